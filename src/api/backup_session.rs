//! BackupSession: one run of a backup.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::common::TargetRef;
use crate::api::condition::Condition;
use crate::api::restore_session::{Progress, RunStatus};

/// One run of a BackupConfiguration or BackupBatch.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "stash.appscode.com",
    version = "v1beta1",
    kind = "BackupSession",
    plural = "backupsessions",
    category = "stash",
    category = "appscode",
    category = "all",
    namespaced,
    status = "BackupSessionStatus",
    derive = "PartialEq",
    doc = "BackupSession is one run of a BackupConfiguration or BackupBatch. Create one to take a backup now.",
    printcolumn = r#"{"name":"Invoker-Type","type":"string","jsonPath":".spec.invoker.kind","priority":1}"#,
    printcolumn = r#"{"name":"Invoker-Name","type":"string","jsonPath":".spec.invoker.name"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Duration","type":"string","jsonPath":".status.sessionDuration"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.summary"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.invoker) == has(oldSelf.invoker) && (!has(self.invoker) || self.invoker == oldSelf.invoker) && has(self.retryLeft) == has(oldSelf.retryLeft) && (!has(self.retryLeft) || self.retryLeft == oldSelf.retryLeft)",
    "message": "the spec of a BackupSession cannot be changed but for cancel: it is one run; create another"
}, {
    "rule": "!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)",
    "message": "cancel cannot be taken back; create another BackupSession"
}]))]
pub struct BackupSessionSpec {
    /// The BackupConfiguration or BackupBatch to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoker: Option<InvokerRef>,
    /// Number of retries if this session fails. Defaults to the number in the invoker's retryConfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_left: Option<i32>,
    /// Extension: `true` cancels the session: its Jobs are stopped, and the session fails with the reason Canceled and
    /// is not retried. Complete snapshots are kept. This is the only field that may change, and it cannot be set
    /// back. Defaults to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
}

/// Reference to an invoker.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InvokerRef {
    /// API group. Defaults to `stash.appscode.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// `BackupConfiguration` or `BackupBatch`.
    pub kind: String,
    /// Name, in the namespace of the session.
    pub name: String,
}

/// Phase of a backup session.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum BackupPhase {
    /// The session waits for the object that the conditions name.
    Pending,
    /// Not started: another session runs, or the invoker is not ready.
    Skipped,
    /// Running.
    Running,
    /// Every host is backed up.
    Succeeded,
    /// A host was not backed up, or retention or the check failed.
    Failed,
    /// Unknown.
    Unknown,
}

/// Result of the last backup of a BackupConfiguration or BackupBatch.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct LastBackup {
    /// Name of the BackupSession, in the same namespace. The BackupSession may no longer exist.
    pub session: String,
    /// `Succeeded` or `Failed`.
    pub phase: BackupPhase,
    /// Reason, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time at which the backup ended.
    pub time: Time,
}

/// Phase of one target.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum BackupTargetPhase {
    /// Not started.
    #[default]
    Pending,
    /// Every host is backed up.
    Succeeded,
    /// Running.
    Running,
    /// A host is not backed up.
    Failed,
    /// Extension: never started, because an earlier member failed.
    Skipped,
}

/// Phase of one host.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum BackupHostPhase {
    /// Backed up.
    Succeeded,
    /// Not backed up.
    Failed,
    /// Extension: the Job runs.
    Running,
    /// Extension: not started.
    #[default]
    Pending,
}

/// Status of a backup session.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupSessionStatus {
    /// Extension: generation of the spec that was last reconciled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Phase of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// Extension: one line with the current state or the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Duration of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_duration: Option<String>,
    /// Deadline: time at which the session fails if it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_deadline: Option<Time>,
    /// The session failed, and a retry was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<bool>,
    /// Time at which a retry will be created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry: Option<Time>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Status of each target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<BackupTargetStatus>,
    /// Extension: state of the run, written by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunStatus>,
}

/// One target of a backup session.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupTargetStatus {
    /// The target.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub ref_: Option<TargetRef>,
    /// Extension: alias of the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Number of hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_hosts: Option<i32>,
    /// Phase of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupTargetPhase>,
    /// Extension: time at which the member fails if it has not ended. Set when the member starts, if the
    /// member has a `timeOut`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Actions before the backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre_backup_actions: Vec<String>,
    /// Actions after the backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post_backup_actions: Vec<String>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Status of each host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["hostname"]))]
    pub stats: Vec<HostBackupStats>,
}

/// One host of a backup.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostBackupStats {
    /// restic host name of the snapshots.
    pub hostname: String,
    /// Phase of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupHostPhase>,
    /// Duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Error message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Extension: reason of the failure, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Extension: warnings, which do not fail the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Extension: number of the attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
    /// Extension: attempts whose pod ran out of memory, was evicted, or ended without a result. The third such
    /// attempt fails the step; other failures of the infrastructure are retried until the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_deaths: Option<i32>,
    /// Extension: time of the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Extension: node of the host's volumes, if they are bound to a node. The host's Job runs on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Extension: progress, at most some seconds old. Present only while the host's Job runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Snapshots that were created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotStats>,
}

/// One snapshot.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStats {
    /// Short ID of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Path that the snapshot contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Size of the data that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size: Option<String>,
    /// Size of the data that was added to the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded: Option<String>,
    /// Duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processing_time: Option<String>,
    /// Counts of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_stats: Option<FileStats>,
}

/// Counts of files.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStats {
    /// Total number of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_files: Option<i64>,
    /// Number of files that are new since the previous snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_files: Option<i64>,
    /// Number of files that changed since the previous snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_files: Option<i64>,
    /// Number of files that are unchanged since the previous snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmodified_files: Option<i64>,
}
