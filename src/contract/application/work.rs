//! The work of a Job on an application.

use serde::{Deserialize, Serialize};

use crate::contract::constants::APPLICATION_FILES;
use crate::contract::restic::{Counts, PinnedSnapshot, RepositoryAccess, Settings};

/// Tag of the snapshot of a manifest, with the id of the snapshot of its dump.
pub const DUMP_TAG_PREFIX: &str = "lifeboat.dump=";

/// What a Job does with an application, and with which repository.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Work {
    /// How to reach the repository.
    pub repository: RepositoryAccess,
    /// How restic behaves.
    #[serde(default)]
    pub settings: Settings,
    /// Which clients are used.
    pub addon: Addon,
    /// How they connect.
    pub connection: Connection,
    /// What is dumped or loaded.
    #[serde(default)]
    pub selection: Selection,
    /// What to do.
    pub step: Step,
}

/// What a Job does.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Backup.
    Dump(Dump),
    /// Restore.
    Load(Load),
}

/// Dumps the application into a snapshot.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Dump {
    /// restic host name of the snapshots.
    pub host: String,
    /// Further arguments of restic, already checked against the allow list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// Loads a dump into the application.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Load {
    /// The dump, and its manifest if there is one.
    pub snapshots: Vec<PinnedSnapshot>,
    /// What the preflight has counted of these snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Counts>,
}

/// The clients of an application.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Addon {
    /// `pg_dump`, `pg_dumpall`, `psql` and `pg_restore`.
    Postgres,
    /// `mariadb-dump` and `mariadb`, for MariaDB and MySQL.
    Mysql,
    /// `valkey-cli`, for Redis and Valkey.
    Redis,
}

impl Addon {
    /// Name of the application in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MariaDB or MySQL",
            Self::Redis => "Redis or Valkey",
        }
    }

    /// Path of the dump in its snapshot. That of SQL is the path that Stash uses.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Postgres | Self::Mysql => APPLICATION_FILES[0],
            Self::Redis => APPLICATION_FILES[1],
        }
    }
}

/// How a client connects to an application.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Connection {
    /// Name of the AppBinding, for messages.
    pub binding: String,
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is used, and what is verified.
    #[serde(default)]
    pub tls: TlsMode,
    /// Certificates that are trusted, in PEM format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Name that the certificate of the server must contain, if it is not `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// There are credentials in [`CREDENTIALS_DIR`](crate::contract::CREDENTIALS_DIR).
    #[serde(default)]
    pub has_credentials: bool,
    /// There is a TLS Secret in [`TLS_DIR`](crate::contract::TLS_DIR).
    #[serde(default)]
    pub has_tls_secret: bool,
    /// Changes to the keys of the credentials, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<KeyChange>,
    /// Seconds to wait until the server answers.
    pub wait: u64,
}

/// Whether TLS is used.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsMode {
    /// If the server offers it, without verification.
    #[default]
    Prefer,
    /// Never.
    Disable,
    /// Always, without verification of the certificate.
    Require,
    /// Always. The certificate must be signed by a trusted CA.
    VerifyCa,
    /// Always. The certificate must also contain the name of the server.
    VerifyFull,
}

/// A change to the keys of the credentials.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyChange {
    /// A key gets another name.
    Rename {
        /// Its name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// A key is added. Its value is not secret.
    Add {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    },
    /// The keys of another Secret are added, by its folder in [`MORE_DIR`](crate::contract::MORE_DIR).
    AddFrom(usize),
    /// A key is removed.
    Remove(String),
}

/// Databases, and how the client treats them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Choice {
    /// Databases; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// Further arguments of the client, already checked against its allow list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// What is dumped or loaded.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Selection {
    /// What is written to the dump, one after another; everything when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Choice>,
    /// The arguments leave out a part of the databases, so the names of tables are not recorded or compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
}

impl Selection {
    /// The databases that it names; empty if it means all.
    pub fn databases(&self) -> Vec<&str> {
        let is_all = self.parts.iter().any(|p| p.databases.is_empty());
        let mut names: Vec<&str> = self.parts.iter().flat_map(|p| &p.databases).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        if is_all { vec![] } else { names }
    }

    /// The arguments of a selection with one part.
    pub fn args(&self) -> &[String] {
        self.parts.first().map(|p| p.args.as_slice()).unwrap_or_default()
    }
}
