//! Prepares the backend Secret, a folder of files, for restic.
//!
//! Values are never put into argv or the environment, which every process of the same user can read: they stay in the
//! mounted file, or are written to a file with mode 0600 in the work folder, whose path is passed to restic. The
//! only exception is a password with spaces at its ends or a byte order mark, which restic accepts only from its
//! environment. Values are kept only to redact them in messages.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::contract::restic::PASSWORD_KEY;
use crate::contract::{Class, Failure};
use crate::drivers::restic::bucket::Keys;
use crate::names::reason;

/// Arguments and environment of restic for secrets: only paths.
#[derive(Debug, Default)]
pub struct Secrets {
    /// Global arguments.
    pub args: Vec<String>,
    /// Arguments with which restic reads the password from its file, without spaces and line breaks at its ends.
    pub password_file: [String; 2],
    /// The unchanged password, if it has spaces or line breaks at its ends, or a byte order mark, which restic
    /// removes from a file. restic accepts it only from its environment; users who can read that can also read the
    /// file.
    pub untrimmed: Option<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Credentials come from the environment of the Job (a role of the node or of the pod).
    pub ambient: bool,
    /// Keys of S3 storage, if the Secret has them.
    pub keys: Option<Keys>,
    /// Trusted certificates, in PEM.
    pub ca: Option<Vec<u8>>,
    /// Values to redact in messages.
    pub values: Vec<String>,
}

/// Some editors write this character at the beginning of a text file. restic removes it from a password that it reads
/// from a file (`internal/textfile`).
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Shorter secrets are not redacted, because they would match ordinary words.
const BLOT_FROM: usize = 6;

impl Secrets {
    /// Reads what a repository of this URL needs.
    pub fn load(dir: &Path, work: &Path, url: &str) -> Result<Self, Failure> {
        let mut secrets = Self::default();
        let mut password = required(dir, PASSWORD_KEY, "it holds the encryption password of the repository")?;
        let whole = value(dir, PASSWORD_KEY)?.unwrap_or_default();
        if let Some(text) = whole.strip_prefix(BYTE_ORDER_MARK) {
            text.trim().clone_into(&mut password);
        }
        secrets.untrimmed = Some(whole).filter(|whole| *whole != password);
        if password.is_empty() {
            return Err(missing(PASSWORD_KEY, "it contains only spaces"));
        }
        secrets.values.push(password);
        secrets.password_file = ["--password-file".into(), text(&dir.join(PASSWORD_KEY))];
        if let Some(ca) = optional(dir, "CA_CERT_DATA")? {
            secrets.ca = Some(ca.into_bytes());
            secrets.args.extend(["--cacert".into(), text(&dir.join("CA_CERT_DATA"))]);
        }
        match url.split(':').next().unwrap_or_default() {
            "s3" => secrets.s3(dir, work)?,
            "rest" => return secrets.rest(dir, work, url),
            "gs" => secrets.gs(dir)?,
            scheme @ ("azure" | "b2" | "swift" | "sftp" | "rclone") => {
                return Err(Failure::new(
                    Class::Invalid,
                    reason::NOT_SUPPORTED,
                    format!(
                        "Repositories of kind {scheme} are not supported: restic takes their credentials from the environment only. Use S3, REST, GCS or a volume."
                    ),
                ));
            }
            _ => {}
        }
        secrets.args.extend(["--repo".into(), url.to_owned()]);
        Ok(secrets)
    }

    /// Redacts secrets in a text.
    pub fn blot(&self, text: &mut String) {
        for value in self.values.iter().filter(|v| v.len() >= BLOT_FROM) {
            if text.contains(value.as_str()) {
                *text = text.replace(value.as_str(), "***");
            }
        }
    }

    fn s3(&mut self, dir: &Path, work: &Path) -> Result<(), Failure> {
        let (id, key) = (optional(dir, "AWS_ACCESS_KEY_ID")?, optional(dir, "AWS_SECRET_ACCESS_KEY")?);
        let (id, key) = match (id, key) {
            (Some(id), Some(key)) => (id, key),
            (None, None) => {
                self.ambient = true;
                return Ok(());
            }
            (Some(_), None) => return Err(missing("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID is set")),
            (None, Some(_)) => return Err(missing("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY is set")),
        };
        let mut file = "[default]\n".to_owned();
        let token = optional(dir, "AWS_SESSION_TOKEN")?;
        self.keys = Some(Keys { id: id.clone(), secret: key.clone(), token: token.clone() });
        for (name, value) in
            [("aws_access_key_id", Some(id)), ("aws_secret_access_key", Some(key)), ("aws_session_token", token)]
        {
            if let Some(value) = value {
                file.extend([name, " = ", &ini(&value)?, "\n"]);
                self.values.push(value);
            }
        }
        let path = private_file(work, "aws-credentials", &file)?;
        self.env.push(("AWS_SHARED_CREDENTIALS_FILE".into(), path));
        Ok(())
    }

    /// User and password of a REST server are part of the URL, so the URL is in a file.
    fn rest(mut self, dir: &Path, work: &Path, url: &str) -> Result<Self, Failure> {
        let (user, password) = (optional(dir, "REST_SERVER_USERNAME")?, optional(dir, "REST_SERVER_PASSWORD")?);
        let (user, password) = match (user, password) {
            (Some(user), Some(password)) => (user, password),
            (None, None) => {
                self.args.extend(["--repo".into(), url.to_owned()]);
                return Ok(self);
            }
            (Some(_), None) => return Err(missing("REST_SERVER_PASSWORD", "REST_SERVER_USERNAME is set")),
            (None, Some(_)) => return Err(missing("REST_SERVER_USERNAME", "REST_SERVER_PASSWORD is set")),
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("rest:https", url));
        let full = format!("{scheme}://{}:{}@{rest}", percent(&user), percent(&password));
        let path = private_file(work, "repository", &full)?;
        self.args.extend(["--repository-file".into(), path]);
        self.values.extend([percent(&password), password]);
        Ok(self)
    }

    fn gs(&mut self, dir: &Path) -> Result<(), Failure> {
        const KEY: &str = "GOOGLE_SERVICE_ACCOUNT_JSON_KEY";
        if optional(dir, KEY)?.is_some() {
            self.env.push(("GOOGLE_APPLICATION_CREDENTIALS".into(), text(&dir.join(KEY))));
        } else {
            self.ambient = true;
        }
        if let Some(project) = optional(dir, "GOOGLE_PROJECT_ID")? {
            self.env.push(("GOOGLE_PROJECT_ID".into(), project));
        }
        Ok(())
    }
}

/// The value of a key without the line end that editors add; `None` when absent or empty.
fn optional(dir: &Path, key: &str) -> Result<Option<String>, Failure> {
    Ok(value(dir, key)?.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()))
}

/// The unchanged value of a key; `None` when absent.
fn value(dir: &Path, key: &str) -> Result<Option<String>, Failure> {
    match fs::read(dir.join(key)) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| {
            Failure::new(
                Class::Invalid,
                reason::SECRET_INCOMPLETE,
                format!("Key {key} of the backend Secret is not valid UTF-8."),
            )
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::new(
            Class::Invalid,
            reason::SECRET_INCOMPLETE,
            format!("Key {key} of the backend Secret cannot be read by the Job's user: {e}."),
        )),
    }
}

fn required(dir: &Path, key: &str, why: &str) -> Result<String, Failure> {
    optional(dir, key)?.ok_or_else(|| missing(key, why))
}

fn missing(key: &str, why: &str) -> Failure {
    Failure::new(
        Class::Invalid,
        reason::SECRET_INCOMPLETE,
        format!("Key {key} of the backend Secret is missing or empty ({why}). Add it to the Secret."),
    )
}

/// Writes a file that only this user can read, in place of any older one.
fn private_file(work: &Path, name: &str, content: &str) -> Result<String, Failure> {
    let path = work.join(name);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(work)?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(content.as_bytes())
    };
    write().map_err(|e| {
        Failure::new(Class::Fatal, reason::AGENT_FAILED, format!("Could not write {}: {e}.", path.display()))
    })?;
    Ok(text(&path))
}

/// A value of an ini file. Back quotes preserve `#`, `;` and quotes (go-ini, with which restic's client reads the
/// file).
fn ini(value: &str) -> Result<String, Failure> {
    if value.contains(['\n', '\r', '`']) {
        return Err(Failure::new(
            Class::Invalid,
            reason::SECRET_INCOMPLETE,
            "An AWS key of the backend Secret holds a line break or a back quote, which no access key does.",
        ));
    }
    Ok(format!("`{value}`"))
}

/// Percent-encodes characters that are not allowed in the user part of a URL.
fn percent(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

fn text(path: &Path) -> String {
    PathBuf::from(path).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn secret(keys: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (key, value) in keys {
            fs::write(dir.path().join(key), value).unwrap();
        }
        dir
    }

    fn load(keys: &[(&str, &str)], url: &str) -> Result<Secrets, Failure> {
        let dir = secret(keys);
        let work = dir.path().join("work");
        let secrets = Secrets::load(dir.path(), &work, url)?;
        // The files exist now, but not after this function returns.
        if let Some((_, path)) = secrets.env.iter().find(|(k, _)| k == "AWS_SHARED_CREDENTIALS_FILE") {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        Ok(secrets)
    }

    #[test]
    fn a_missing_key_is_named() {
        let key = |keys: &[(&str, &str)], url: &str| {
            let failure = load(keys, url).unwrap_err();
            assert_eq!((failure.class, failure.reason.as_str()), (Class::Invalid, reason::SECRET_INCOMPLETE));
            failure.message.split(' ').nth(1).unwrap().to_owned()
        };
        let s3 = "s3:http://minio:9000/b";
        assert_eq!(key(&[], s3), "RESTIC_PASSWORD");
        assert_eq!(key(&[("RESTIC_PASSWORD", " \n")], s3), "RESTIC_PASSWORD");
        assert_eq!(key(&[("RESTIC_PASSWORD", "\u{feff} \n")], s3), "RESTIC_PASSWORD");
        assert_eq!(key(&[("RESTIC_PASSWORD", "p"), ("AWS_ACCESS_KEY_ID", "a")], s3), "AWS_SECRET_ACCESS_KEY");
        assert_eq!(key(&[("RESTIC_PASSWORD", "p"), ("AWS_SECRET_ACCESS_KEY", "a")], s3), "AWS_ACCESS_KEY_ID");
        assert_eq!(
            key(&[("RESTIC_PASSWORD", "p"), ("REST_SERVER_USERNAME", "a")], "rest:http://h/"),
            "REST_SERVER_PASSWORD"
        );
    }

    #[test]
    fn no_value_is_in_argv_or_environment() {
        let keys = [
            ("RESTIC_PASSWORD", "secret-one"),
            ("AWS_ACCESS_KEY_ID", "secret-two"),
            ("AWS_SECRET_ACCESS_KEY", "secret-#;three"),
            ("AWS_SESSION_TOKEN", "secret-four"),
            ("REST_SERVER_USERNAME", "secret-five"),
            ("REST_SERVER_PASSWORD", "secret:six/"),
            ("GOOGLE_SERVICE_ACCOUNT_JSON_KEY", "{\"secret-seven\":1}"),
        ];
        for url in ["s3:http://minio:9000/b", "rest:http://h:8000/", "gs:b:/", "/lifeboat/repository"] {
            let secrets = load(&keys, url).unwrap();
            let all = format!("{:?} {:?} {:?}", secrets.args, secrets.env, secrets.password_file);
            assert_eq!(secrets.untrimmed, None);
            assert!(!all.contains("secret-") && !all.contains("secret:"), "{url}: {all}");
            assert!(!secrets.ambient);
        }
    }

    #[test]
    fn without_keys_the_role_of_the_pod_counts() {
        let secrets = load(&[("RESTIC_PASSWORD", "p")], "s3:https://s3.amazonaws.com/b").unwrap();
        assert!(secrets.ambient && secrets.env.is_empty());
    }

    #[test]
    fn values_are_blotted_out() {
        let secrets = load(&[("RESTIC_PASSWORD", "hunter22\n")], "/r").unwrap();
        let mut text = "the password hunter22 is wrong".to_owned();
        secrets.blot(&mut text);
        assert_eq!(text, "the password *** is wrong");
    }
}
