//! Snapshot: represents one restic snapshot. Deleting the object does not delete data. The next list creates the object
//! again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One restic snapshot.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "repositories.stash.appscode.com",
    version = "v1alpha1",
    kind = "Snapshot",
    plural = "snapshots",
    category = "storage",
    category = "appscode",
    category = "all",
    namespaced,
    status = "SnapshotStatus",
    derive = "PartialEq",
    doc = "Snapshot represents one restic snapshot of a Repository.",
    printcolumn = r#"{"name":"ID","type":"string","jsonPath":".status.id","priority":1}"#,
    printcolumn = r#"{"name":"Repository","type":"string","jsonPath":".status.repository"}"#,
    printcolumn = r#"{"name":"Hostname","type":"string","jsonPath":".status.hostname"}"#,
    printcolumn = r#"{"name":"Created At","type":"date","jsonPath":".status.time"}"#,
    printcolumn = r#"{"name":"Path","type":"string","jsonPath":".status.paths[0]"}"#,
    printcolumn = r#"{"name":"Tags","type":"string","jsonPath":".status.tags","priority":1}"#
)]
pub struct SnapshotSpec {}

/// Data of restic about a snapshot.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SnapshotStatus {
    /// Extension: full id of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Extension: time of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Id of the snapshot's root folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    /// Paths that the snapshot contains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Host of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// User that created the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// User id of the process that created the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<i32>,
    /// Group id of the process that created the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<i32>,
    /// Tags of the snapshot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Name of the Repository that contains the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
}
