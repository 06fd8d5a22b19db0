//! A snapshot: as it is pinned, and as restic lists it.

use serde::{Deserialize, Serialize};

use crate::text::short_id;

/// Tag that marks all snapshots of one backup run, so that `latest` is a consistent set.
pub const RUN_TAG_PREFIX: &str = "lifeboat.run=";
/// Tag that names the BackupSession (`namespace/name`) of a run, so that it is found when the object is gone.
pub const SESSION_TAG_PREFIX: &str = "lifeboat.session=";
/// Tag with the number of paths of a host's part of a run: with fewer paths the part is not complete.
pub const PATHS_TAG_PREFIX: &str = "lifeboat.paths=";
/// Tag of a snapshot that misses files which could not be read.
pub const INCOMPLETE_TAG: &str = "lifeboat.incomplete";

/// A snapshot fixed before data is touched.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PinnedSnapshot {
    /// Full id.
    pub id: String,
    /// When it was made, RFC 3339.
    pub time: String,
    /// Restore only this path of it; all of its paths when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl PinnedSnapshot {
    /// How messages name it.
    pub fn short(&self) -> &str {
        short_id(&self.id)
    }
}

/// A snapshot as restic lists it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Listed {
    /// Full id.
    pub id: String,
    /// When it was made, RFC 3339.
    #[serde(default)]
    pub time: String,
    /// Id of its root folder.
    #[serde(default)]
    pub tree: Option<String>,
    /// Paths it holds.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Host it was made for.
    #[serde(default)]
    pub hostname: String,
    /// User who made it.
    #[serde(default)]
    pub username: Option<String>,
    /// User id of the process that made it; root's is left out.
    #[serde(default)]
    pub uid: u32,
    /// Group id of the process that made it; root's is left out.
    #[serde(default)]
    pub gid: u32,
    /// Its tags.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
}
