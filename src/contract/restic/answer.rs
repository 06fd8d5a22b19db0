//! What a step found out about a repository, or did with it.

use serde::{Deserialize, Serialize};

use super::compact::MOST_PINS;
use super::snapshot::PinnedSnapshot;
use crate::contract::failure::{Class, Failure};
use crate::contract::task::{OUTCOME_LIMIT, OUTCOME_SLACK};
use crate::names::reason;

/// What a step found or did.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Of [`Step::Preflight`], in the order asked: the first of those asked for, as many as fit.
    Preflight(Vec<HostAnswer>),
    /// Of [`Step::Restore`].
    Restored(Restored),
    /// Of [`Step::Prepare`].
    Prepared {
        /// The repository did not exist and was created.
        created: bool,
    },
    /// Of [`Step::Backup`].
    BackedUp(Vec<SnapshotMade>),
    /// The same where it would not fit: packed, in the order of the paths.
    Saved(String),
    /// Of [`Step::Maintain`].
    Maintained(RepositoryFacts),
    /// Of [`Step::List`].
    Listed {
        /// Snapshots in the repository.
        snapshots: u64,
        /// Snapshot objects that were written.
        written: u64,
        /// Snapshot objects that were removed.
        removed: u64,
        /// What the first backup has to create.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        absent: Option<Absent>,
    },
    /// Of [`Step::Probe`]: the repository opened.
    Probed,
    /// Of [`Step::Wipe`].
    Wiped {
        /// Snapshots removed.
        snapshots: u64,
    },
}

/// What is not there yet, and the first backup creates.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Absent {
    /// The repository.
    Repository,
    /// The bucket, and the repository with it.
    Bucket,
}

impl Answer {
    /// Whether an outcome has room for it.
    pub fn fits(&self) -> bool {
        serde_json::to_string(self).is_ok_and(|text| text.len() + OUTCOME_SLACK <= OUTCOME_LIMIT)
    }
}

/// Snapshots of one host, or why there are none.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct HostAnswer {
    /// Index of the member in the run.
    pub member: usize,
    /// Host asked for.
    pub host: String,
    /// What will be restored, in this order.
    #[serde(default)]
    pub snapshots: Vec<PinnedSnapshot>,
    /// The same where they would not fit, see [`HostAnswer::pins`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<String>,
    /// Why this host cannot be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What will be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Counts>,
    /// Up to two owners among it, `uid:gid,uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What is to be known of what it gets, though it is no failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Counts of a restore; success is computed from these.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Restored {
    /// What the plan (a dry run over the same snapshots) said.
    pub planned: Counts,
    /// What was written or found already equal.
    pub restored: Counts,
    /// Files or folders restic could not restore.
    #[serde(default)]
    pub errors: u64,
    /// Entries deleted that the snapshots do not have; `None` where nothing was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<u64>,
}

/// Files (with folders, links and other entries) and bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Entries.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One snapshot a backup made.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SnapshotMade {
    /// Full id.
    pub id: String,
    /// Path it holds.
    pub path: String,
    /// Files in it.
    pub total_files: u64,
    /// Files that were new.
    pub new_files: u64,
    /// Files that had changed.
    pub modified_files: u64,
    /// Files that had not changed.
    pub unmodified_files: u64,
    /// Bytes read.
    pub total_bytes: u64,
    /// Bytes added to the repository.
    pub uploaded_bytes: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// What is true of a repository after a backup run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RepositoryFacts {
    /// `restic check` found no error; `None` when it did not run.
    #[serde(default)]
    pub integrity: Option<bool>,
    /// Retention was applied to its end, or there was none to apply.
    #[serde(default)]
    pub retained: bool,
    /// Size of the data in the store, bytes; `None` when it was not measured.
    #[serde(default)]
    pub total_bytes: Option<u64>,
    /// Snapshots in the repository, of all hosts; `None` when they were not counted.
    #[serde(default)]
    pub snapshot_count: Option<i64>,
    /// Snapshots removed by this run's retention.
    pub removed: i64,
    /// Snapshots that a dry run of retention would remove; `None` when it was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_remove: Option<i64>,
}

impl HostAnswer {
    /// The answer of a host whose own does not fit even alone.
    pub(in crate::contract) fn too_large(&self) -> Self {
        let text = format!(
            "The snapshots of this host do not fit the answer of a Job, which always holds {MOST_PINS} of them. Name some of its paths in a rule, and restore the others by another session."
        );
        Self {
            snapshots: vec![],
            packed: None,
            planned: None,
            owner: None,
            warnings: vec![],
            failure: Some(Failure::new(Class::Invalid, reason::OUTCOME_TOO_LARGE, text)),
            ..self.clone()
        }
    }
}
