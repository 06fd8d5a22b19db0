//! Credentials of an application, from mounted files to what its clients read.
//!
//! Passwords go into files that only this user may read, or into the environment of a client; never into arguments or
//! messages.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::contract::application::{Connection, KeyChange};
use crate::contract::{Class, Failure};
use crate::names::reason;

/// Longest value of a key in bytes.
const LONGEST: u64 = 64 << 10;

/// Folders in the Job's container.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Where the Secret of the AppBinding is mounted.
    pub credentials: PathBuf,
    /// Where its TLS Secret is mounted.
    pub tls: PathBuf,
    /// Where the Secrets of `addKeysFrom` are mounted.
    pub more: PathBuf,
    /// Scratch space.
    pub work: PathBuf,
}

/// A shorter value would be found in any text.
const SHORTEST: usize = 4;

/// The credentials of a connection.
#[derive(Debug, Default)]
pub struct Credentials {
    keys: BTreeMap<String, String>,
    folder: PathBuf,
    /// Trusted certificates, in a file.
    pub ca: Option<PathBuf>,
    /// Certificate and key of the client, in files.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl Credentials {
    /// Reads the mounted files, and applies the changes of the AppBinding in their order.
    ///
    /// # Errors
    /// A file cannot be read, or a key that is to be renamed does not exist.
    pub fn load(connection: &Connection, folders: &Folders) -> Result<Self, Failure> {
        let wrong = |text: String| {
            let text = format!("Credentials of AppBinding {}: {text}.", connection.binding);
            Failure::new(Class::Invalid, reason::INVALID, text)
        };
        let folder = folders.work.join("application");
        std::fs::create_dir_all(&folder).map_err(|e| wrong(format!("{} cannot be created: {e}", folder.display())))?;
        let mut keys =
            if connection.has_credentials { read(&folders.credentials).map_err(wrong)? } else { BTreeMap::new() };
        for change in &connection.changes {
            match change {
                KeyChange::Rename { from, to } => {
                    let value = keys.remove(from);
                    let value = value.ok_or_else(|| wrong(format!("renameKey: the Secret has no key {from}")))?;
                    keys.insert(to.clone(), value);
                }
                KeyChange::Add { key, value } => {
                    keys.insert(key.clone(), value.clone());
                }
                KeyChange::AddFrom(at) => keys.extend(read(&folders.more.join(at.to_string())).map_err(wrong)?),
                KeyChange::Remove(key) => {
                    keys.remove(key);
                }
            }
        }
        let mut all = Self { keys, folder, ca: None, certificate: None };
        if connection.has_tls_secret {
            let tls = read(&folders.tls).map_err(wrong)?;
            if let Some(ca) = tls.get("ca.crt") {
                all.ca = Some(all.keep("ca.crt", ca)?);
            }
            if let (Some(certificate), Some(key)) = (tls.get("tls.crt"), tls.get("tls.key")) {
                all.certificate = Some((all.keep("tls.crt", certificate)?, all.keep("tls.key", key)?));
            }
        }
        if let Some(ca) = &connection.ca {
            all.ca = Some(all.keep("ca.crt", ca)?);
        }
        Ok(all)
    }

    /// The value of the first of these keys that exists.
    pub fn first(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|k| self.keys.get(*k)).map(|v| v.trim_end_matches(['\r', '\n']))
    }

    /// Writes a file that only this user may read.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, name: &str, content: &str) -> Result<PathBuf, Failure> {
        let file = self.folder.join(name);
        let written = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&file);
        let written = written.and_then(|mut open| open.write_all(content.as_bytes()));
        written.map(|()| file).map_err(|e| {
            let text = format!("A file for the clients cannot be written to the work folder: {e}.");
            Failure::new(Class::Transient, reason::AGENT_FAILED, text)
        })
    }

    /// Path of a file in the folder of these credentials.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Replaces the values of the credentials in a text, except for names of users.
    pub fn blot(&self, text: &mut String) {
        let is_name = |key: &str| key.to_ascii_lowercase().contains("user");
        let secret = self.keys.iter().filter(|(key, _)| !is_name(key)).map(|(_, value)| value.trim());
        for value in secret.filter(|v| v.len() >= SHORTEST) {
            if text.contains(value) {
                *text = text.replace(value, "***");
            }
        }
    }
}

/// The files of a mounted Secret. A mounted Secret has links whose names begin with two dots.
fn read(folder: &Path) -> Result<BTreeMap<String, String>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{} cannot be read: {e}", folder.display()))?;
    let mut keys = BTreeMap::new();
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_file = std::fs::metadata(entry.path()).is_ok_and(|m| m.is_file() && m.len() <= LONGEST);
        if !name.starts_with("..") && is_file {
            let bytes = std::fs::read(entry.path()).map_err(|e| format!("key {name} cannot be read: {e}"))?;
            keys.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn changes_are_applied_in_their_order_and_files_are_private() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for (folder, files) in [
            ("credentials", &[("user", "u"), ("pw", "geheim\n"), ("..data", "x")][..]),
            ("more/1", &[("extra", "e")]),
            ("tls", &[("ca.crt", "CA"), ("tls.crt", "C"), ("tls.key", "K")]),
        ] {
            std::fs::create_dir_all(at(folder)).unwrap();
            files.iter().for_each(|(name, text)| std::fs::write(at(folder).join(name), text).unwrap());
        }
        let folders = Folders { credentials: at("credentials"), tls: at("tls"), more: at("more"), work: at("work") };
        let rename = |from: &str, to: &str| KeyChange::Rename { from: from.into(), to: to.into() };
        let changes = vec![
            rename("pw", "password"),
            KeyChange::AddFrom(1),
            KeyChange::Add { key: "user".into(), value: "other".into() },
            KeyChange::Remove("extra".into()),
        ];
        let connection = Connection { has_credentials: true, has_tls_secret: true, changes, ..Connection::default() };
        let found = Credentials::load(&connection, &folders).unwrap();
        assert_eq!((found.first(&["username", "user"]), found.first(&["password"])), (Some("other"), Some("geheim")));
        assert_eq!((found.first(&["pw", "extra", "..data"]), found.certificate.is_some()), (None, true));
        let mode = std::fs::metadata(found.certificate.as_ref().unwrap().1.as_path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut text = "password geheim is wrong".to_owned();
        found.blot(&mut text);
        assert_eq!(text, "password *** is wrong");
        let unknown = Connection { changes: vec![rename("none", "x")], ..connection };
        assert!(Credentials::load(&unknown, &folders).unwrap_err().message.contains("no key none"));
    }
}
