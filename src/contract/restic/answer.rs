//! What a step found out about a repository, or did with it.

use serde::{Deserialize, Serialize};

use crate::contract::restic::compact::{Detail, Saved, SnapshotMade, pack, unpack_made};

/// What a step found or did.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Of [`Step::Prepare`].
    Prepared {
        /// The repository did not exist and was created.
        created: bool,
    },
    /// Of [`Step::Backup`].
    BackedUp(Vec<SnapshotMade>),
    /// The same if it would not fit: packed, in the order of the paths.
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

/// What does not exist yet, and is created by the first backup.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Absent {
    /// The repository.
    Repository,
    /// The bucket, and the repository with it.
    Bucket,
}

impl Answer {
    /// Shorter answers that can replace it, the longest first.
    pub fn shorter(&self) -> Vec<Self> {
        match self {
            Self::BackedUp(made) => [Detail::All, Detail::Sums, Detail::Id].map(|d| Self::Saved(pack(made, d))).into(),
            _ => vec![],
        }
    }

    /// What a backup made of `paths`; `None` if the answer contains no snapshots.
    ///
    /// # Errors
    /// The packed text cannot be read.
    pub fn saved(&self, paths: &[String]) -> Result<Option<Vec<Saved>>, String> {
        match self {
            Self::BackedUp(made) => {
                Ok(Some(made.iter().map(|made| Saved { made: made.clone(), detail: Detail::All }).collect()))
            }
            Self::Saved(text) => unpack_made(text, paths).map(Some),
            _ => Ok(None),
        }
    }
}

/// State of a repository after a backup run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RepositoryFacts {
    /// `restic check` found no error; `None` when it did not run.
    #[serde(default)]
    pub integrity: Option<bool>,
    /// Retention was applied completely, or there was none to apply.
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
    /// Snapshots that a dry run of retention would remove; `None` if it was not a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_remove: Option<i64>,
}
