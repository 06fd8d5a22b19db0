//! What a Job does with a repository.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::contract::job::{Runner, SecretPlace};
use crate::contract::restic::counts::Counts;
use crate::contract::restic::retention::Retention;
use crate::contract::restic::snapshot::PinnedSnapshot;

/// Key of the backend Secret that holds the encryption password.
pub const PASSWORD_KEY: &str = "RESTIC_PASSWORD";
/// Where a repository on a volume (`backend.local`) is mounted.
pub const LOCAL_REPOSITORY_DIR: &str = "/lifeboat/repository";

/// A restic repository, without its secrets.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RepositoryAccess {
    /// As restic's `--repo` takes it.
    pub url: String,
    /// S3 region, where one is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Accept any certificate of the store.
    #[serde(default)]
    pub insecure_tls: bool,
    /// A bucket that does not exist may be created.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create_bucket: bool,
    /// A repository has existed: if it is not there, it is lost, and is neither created nor treated as a repository
    /// without snapshots.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
    /// The backend Secret, if no volume can provide it: the agent reads it from the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretPlace>,
}

/// How restic behaves.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Settings {
    /// Do not keep a local cache (`tempDir.disableCaching`).
    #[serde(default)]
    pub no_cache: bool,
    /// Cache and temporary files go to the claim at [`INTERIM_DIR`](crate::contract::INTERIM_DIR).
    #[serde(default)]
    pub interim: bool,
}

/// What a Job does, and with which repository.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Work {
    /// How to reach the repository.
    pub repository: RepositoryAccess,
    /// How restic behaves.
    #[serde(default)]
    pub settings: Settings,
    /// What to do.
    pub step: Step,
}

/// What a Job does.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Restore, first step: open the repository and resolve every host's snapshots. Touches nothing.
    Preflight(Preflight),
    /// Restore one host of a member.
    Restore(Restore),
    /// Backup, first step: open the repository, create it when it is known to be absent.
    Prepare(Prepare),
    /// Back up one host of a member.
    Backup(Backup),
    /// Backup, last step: retention, integrity check, size and count.
    Maintain(Maintain),
    /// Repository: list its snapshots, and make its Snapshot objects match them.
    List(List),
    /// Repository: does the store answer, and does the repository open?
    Probe(Probe),
    /// Repository: remove every snapshot, and the data that is then not needed.
    Wipe(Wipe),
}

impl Step {
    /// One word for names, labels and logs.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Preflight(_) => "preflight",
            Self::Restore(_) => "restore",
            Self::Prepare(_) => "prepare",
            Self::Backup(_) => "backup",
            Self::Maintain(_) => "maintain",
            Self::List(_) => "list",
            Self::Probe(_) => "probe",
            Self::Wipe(_) => "wipe",
        }
    }
}

/// Hosts whose snapshots are to be resolved.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Preflight {
    /// One query per host. Hosts whose answers do not fit the [`Outcome`] are left out of it, and requested again.
    pub hosts: Vec<HostQuery>,
    /// Hosts whose snapshots must belong to one backup run, including hosts that other Jobs ask for: all hosts of the
    /// session that follow its `asOf`. [`HostQuery::together`] marks their queries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub together: Vec<Companion>,
}

/// A host of a set that must come from one backup run.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Companion {
    /// Host whose snapshots are taken.
    pub source_host: String,
    /// As in [`HostQuery::tags`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Vec<String>>,
    /// The run may have no snapshot of this host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// First digits of a snapshot that is already pinned for it: the run is the run of that snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
}

/// Which snapshots a host wants.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct HostQuery {
    /// Host whose snapshots are taken. The filter always applies.
    pub source_host: String,
    /// Snapshot ids (8 or more hex digits) or `latest`. Exclusive with `paths`.
    #[serde(default)]
    pub snapshots: Vec<String>,
    /// Backed-up paths (or folders below one); the newest snapshot that holds each is taken.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Only snapshots that carry all tags of one of these lists (restic's `--tag a,b --tag c`).
    #[serde(default)]
    pub tags: Vec<Vec<String>>,
    /// Only sets that were complete at this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    /// `as_of` is the session's, and all of [`Preflight::together`] share one run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub together: bool,
    /// Only the run of this BackupSession, `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Sets back from the newest.
    #[serde(default)]
    pub previous: usize,
    /// Mount points of the target. A snapshot path outside all of them cannot be restored.
    pub mounts: Vec<String>,
    /// User that the restore will run as, if it must set the owners of files and cannot: every entry must belong to
    /// that user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Runner>,
    /// As in [`Restore`]. The selected entries are counted, and reported in [`Found::planned`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// As in [`Restore`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// The restore may create no device files: the selection may contain none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_devices: bool,
    /// Paths that a snapshot does not hold are left out, as long as something is left to restore.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// As in [`Restore`]: each path must hold a selected entry.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
}

/// Restore one host.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Restore {
    /// What to restore, in this order.
    pub snapshots: Vec<PinnedSnapshot>,
    /// restic include patterns, over paths as they were backed up.
    #[serde(default)]
    pub include: Vec<String>,
    /// restic exclude patterns, over paths as they were backed up.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Further restic arguments, already checked against the allow list.
    #[serde(default)]
    pub args: Vec<String>,
    /// Mount points of the target, as the user wrote them; each is below
    /// [`RESTORE_ROOT`](crate::contract::RESTORE_ROOT).
    pub mounts: Vec<String>,
    /// Nothing to restore is a success.
    #[serde(default)]
    pub allow_empty: bool,
    /// Files may belong to the user that the Job runs as.
    #[serde(default)]
    pub ignore_owners: bool,
    /// What the preflight has counted; if it has not counted, the restore does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Counts>,
    /// Up to two owners of selected entries, `uid:gid,uid:gid`. Each volume is tested with them before anything is
    /// written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Selected entries that the snapshots do not have are deleted, after everything is restored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
}

/// Open or create a repository.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Prepare {}

/// Open a repository, and nothing else.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Probe {}

/// Remove all that is in a repository.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Wipe {}

/// Back up one host.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Backup {
    /// restic host name of the snapshots.
    pub host: String,
    /// Absolute paths, one snapshot each.
    pub paths: Vec<String>,
    /// Mount points of the target's volumes.
    #[serde(default)]
    pub mounts: Vec<String>,
    /// restic exclude patterns.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Further restic arguments, already checked against the allow list.
    #[serde(default)]
    pub args: Vec<String>,
}

/// What only one invoker backs up: hosts, and the path in each.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Own {
    /// The path.
    pub path: String,
    /// Hosts that have it.
    pub hosts: Vec<String>,
}

/// Retention, check and statistics after a backup.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Maintain {
    /// Snapshots of this invoker; retention never touches those of another invoker.
    pub own: Vec<Own>,
    /// What to keep. No retention is applied when every `keep` is unset.
    pub retention: Retention,
}

/// List the snapshots of the Repository of the run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct List {
    /// Labels that the Snapshots get besides their own: those of the Repository.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}
