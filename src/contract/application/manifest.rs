//! The manifest of a dump: what a restore of it must bring back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::contract::application::work::Addon;
use crate::contract::constants::APPLICATION_FILES;

/// Path of the manifest in its snapshot.
pub const MANIFEST_FILE: &str = APPLICATION_FILES[2];

/// What a dump contains. It is stored beside the dump, as JSON.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Manifest {
    /// Format of this document: 1.
    pub version: u32,
    /// The clients that wrote the dump.
    pub addon: Addon,
    /// Id of the snapshot with the dump.
    pub snapshot: String,
    /// Bytes of the dump.
    pub bytes: u64,
    /// SHA-256 of the dump, in hexadecimal digits.
    pub sha256: String,
    /// Version of the server, as the server reports it.
    pub server: String,
    /// The same as a number, if versions of this application can be compared: of PostgreSQL, `server_version_num`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_number: Option<u64>,
    /// How the dump is to be loaded.
    pub format: Format,
    /// What a restore must bring back.
    pub contents: Contents,
}

/// How a dump is to be loaded.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// As a whole, into the server.
    #[default]
    Server,
    /// Into one database, whatever its name.
    Database,
    /// The same, in the custom format of PostgreSQL.
    Custom,
}

/// Names of what is in a server.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Contents {
    /// Databases, each with its tables (`schema.table`). Without tables if these were not recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub databases: BTreeMap<String, BTreeSet<String>>,
    /// Roles or users.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    /// Keys, of a store without tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
}

impl Contents {
    /// What is in both: names that existed before and after a dump are in the dump.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.databases.retain(|name, _| other.databases.contains_key(name));
        for (name, tables) in &mut self.databases {
            let theirs = &other.databases[name];
            tables.retain(|t| theirs.contains(t));
        }
        self.roles.retain(|r| other.roles.contains(r));
        self.keys = self.keys.min(other.keys);
        self
    }

    /// Number of tables.
    pub fn tables(&self) -> u64 {
        self.databases.values().map(|t| t.len() as u64).sum()
    }

    /// Names that are here and not in `found`: databases, then tables as `database/schema.table`, then roles.
    pub fn missing<'a>(&'a self, found: &'a Self) -> impl Iterator<Item = String> + 'a {
        let databases = self.databases.keys().filter(|d| !found.databases.contains_key(*d));
        let tables = self.databases.iter().flat_map(|(d, tables)| {
            let theirs = found.databases.get(d);
            tables.iter().filter(move |t| theirs.is_some_and(|f| !f.contains(*t))).map(move |t| format!("{d}/{t}"))
        });
        let roles = self.roles.iter().filter(|r| !found.roles.contains(*r));
        databases
            .map(|d| format!("database {d}"))
            .chain(tables.map(|t| format!("table {t}")))
            .chain(roles.map(|r| format!("role {r}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(databases: &[(&str, &[&str])], roles: &[&str]) -> Contents {
        let names = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<BTreeSet<_>>();
        Contents {
            databases: databases.iter().map(|(d, t)| ((*d).to_owned(), names(t))).collect(),
            roles: names(roles),
            keys: None,
        }
    }

    #[test]
    fn what_existed_before_and_after_a_dump_is_in_it() {
        let before = contents(&[("a", &["x", "y"]), ("b", &["z"])], &["r", "s"]);
        let after = contents(&[("a", &["y", "new"]), ("c", &["z"])], &["s"]);
        let both = before.and(&after);
        assert_eq!(both, contents(&[("a", &["y"])], &["s"]));
        assert_eq!(both.tables(), 1);
    }

    #[test]
    fn what_is_missing_is_named() {
        let wanted = contents(&[("a", &["x", "y"]), ("b", &["z"])], &["r"]);
        let found = contents(&[("a", &["x"])], &[]);
        assert_eq!(wanted.missing(&found).collect::<Vec<_>>(), ["database b", "table a/y", "role r"]);
        assert_eq!(wanted.missing(&wanted).count(), 0);
    }
}
