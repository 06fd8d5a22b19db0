//! RestoreSession: one run of a restore, into one target.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::common::{DURATION, Driver, EmptyDirSettings, RepositoryRef, Rule, TargetRef, TaskRef};
use crate::api::condition::Condition;
use crate::api::hooks::RestoreHooks;
use crate::api::runtime::RuntimeSettings;
use crate::api::target::RestoreTarget;
use crate::api::volume::PvcTemplate;

/// A restore into one target.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "stash.appscode.com",
    version = "v1beta1",
    kind = "RestoreSession",
    plural = "restoresessions",
    shortname = "restore",
    category = "stash",
    category = "appscode",
    category = "all",
    namespaced,
    status = "RestoreSessionStatus",
    derive = "PartialEq",
    doc = "RestoreSession restores one target, once. Create another one to restore again.",
    printcolumn = r#"{"name":"Repository","type":"string","jsonPath":".spec.repository.name"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Duration","type":"string","jsonPath":".status.sessionDuration"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.summary"}"#,
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.target.ref.name","priority":1}"#,
    printcolumn = r#"{"name":"Hosts","type":"integer","jsonPath":".status.totalHosts","priority":1}"#,
    printcolumn = r#"{"name":"Deadline","type":"string","jsonPath":".status.sessionDeadline","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSessionSpec {
    /// How the data is transferred: Restic (the default), in Jobs. VolumeSnapshotter is declared, but not
    /// implemented.
    #[serde(default)]
    #[schemars(default = "Driver::default")]
    pub driver: Driver,
    /// Repository from which data is restored. Required by driver Restic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// How an application is restored. `pvc-restore` is built in; other tasks are declared, but not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRef>,
    /// The target of the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RestoreTarget>,
    /// Settings of the Jobs' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,
    /// Scratch volume of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temp_dir: Option<EmptyDirSettings>,
    /// Template of a PVC for cache and temporary files that replaces the scratch volume. Each Job has its own PVC,
    /// which is deleted with the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interim_volume_template: Option<Box<PvcTemplate>>,
    /// Hooks of the restore. Declared; not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Box<RestoreHooks>>,
    /// Maximum duration of the restore, including the time spent waiting, for example `30m`. Defaults to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub time_out: Option<String>,
    /// Extension: use only snapshots at or before this time (RFC 3339), and only of backup runs that were complete at
    /// that time. Applies to every host whose rule has no asOf, previous or id. When absent, the newest snapshots are
    /// used. Cannot be used together with backupSession.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub as_of: Option<String>,
    /// Extension: use only snapshots that this BackupSession created (`name`, or `namespace/name`). Applies to every
    /// host whose rule has no asOf, previous or id. The BackupSession may have been deleted. When absent, snapshots of
    /// any session are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_session: Option<String>,
    /// Extension: true cancels the run. This is the only field that may change; it cannot be set back. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
    /// Deprecated: use `target.rules`. Moved there when the object is created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// Phase of a restore.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum RestorePhase {
    /// Waits for the object that the conditions name.
    Pending,
    /// Running.
    Running,
    /// Everything that was planned is restored.
    Succeeded,
    /// Not everything was restored; the conditions contain the cause, and what to do.
    Failed,
    /// Unknown.
    Unknown,
    /// The spec is not valid, or uses a feature that is not implemented. Nothing was changed.
    Invalid,
}

/// Phase of a member of a batch.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum MemberPhase {
    /// Not started yet.
    #[default]
    Pending,
    /// Everything that was planned for the member is restored.
    Succeeded,
    /// Running.
    Running,
    /// Not everything of the member was restored.
    Failed,
    /// Unknown.
    Unknown,
    /// Extension: never started, because an earlier member failed or the run was canceled.
    Skipped,
}

/// Phase of a host.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum HostPhase {
    /// Everything that was planned for the host is restored.
    Succeeded,
    /// Not everything of the host was restored.
    Failed,
    /// The restore of the host is announced. From now on data may be overwritten.
    Running,
    /// Unknown.
    Unknown,
    /// Extension: not started.
    #[default]
    Pending,
}

/// Status of a restore.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSessionStatus {
    /// Extension: generation of the spec that was last reconciled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Phase of the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// Extension: one line with the current state or the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Number of hosts of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_hosts: Option<i32>,
    /// Duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_duration: Option<String>,
    /// Deadline: time at which the restore fails if it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_deadline: Option<Time>,
    /// Status of each host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["hostname"]))]
    pub stats: Vec<HostRestoreStats>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Extension: the workload scaled to zero for the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesce: Option<QuiesceStatus>,
    /// Extension: state of the run, written by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunStatus>,
}

/// One host of a restore.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRestoreStats {
    /// The host.
    pub hostname: String,
    /// Phase of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<HostPhase>,
    /// Duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Error message: why the host failed, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Extension: reason of the failure, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Extension: warnings, which do not fail the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Extension: host whose backup is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_host: Option<String>,
    /// Extension: node of the host's volumes, if they are bound to a node. The Job of the host runs on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Extension: the pinned snapshots, selected before data is changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<PinnedSnapshot>,
    /// Extension: number of the attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
    /// Extension: number of attempts whose pod ran out of memory, was evicted, or ended without a result. The third
    /// such attempt fails the step; other failures of the infrastructure are retried until the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_deaths: Option<i32>,
    /// Extension: number of attempts, from the first one, that ended before data was written. If equal to the number of
    /// attempts, the data is unchanged. 0 if a Job no longer exists, and it is unknown whether that Job wrote data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwritten: Option<i32>,
    /// Extension: time of the next attempt, or time since which the host can start. Not set if the Job of the attempt
    /// may exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Extension: up to two owners of files to be restored, `uid:gid,uid:gid`, with which each volume is tested
    /// before data is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Extension: entries and bytes to restore, counted in the snapshots before data is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Counts>,
    /// Extension: entries and bytes that were restored, or were already equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Counts>,
    /// Extension: number of entries that were deleted because they are not in the snapshots, of all attempts with a
    /// result. Not set if target.extraneous is not Delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<i64>,
    /// Extension: true if the pod of an attempt ended without a result, so that more entries may have been deleted
    /// than `deleted` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_deleted: Option<bool>,
    /// Extension: progress, at most a few seconds old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// A pinned snapshot: it will be restored even if newer snapshots are created.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PinnedSnapshot {
    /// Full id.
    pub id: String,
    /// Time of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The path of the snapshot that is restored. Not set if the snapshot has several paths, and all of them are
    /// restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Entries (files, folders, links) and bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Counts {
    /// Entries.
    pub files: i64,
    /// Bytes.
    pub bytes: i64,
}

/// Progress of a host.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// 0 to 100.
    pub percent: i32,
    /// Bytes done.
    pub bytes_done: i64,
    /// Total bytes.
    pub bytes_total: i64,
    /// Entries done.
    pub files_done: i64,
    /// Total entries.
    pub files_total: i64,
}

/// A workload that is scaled to zero during a restore.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct QuiesceStatus {
    /// The workload.
    #[serde(rename = "ref", default)]
    pub ref_: TargetRef,
    /// Number of replicas before the workload was scaled to zero, to which the workload will be scaled back.
    pub replicas: i32,
    /// State of the quiesce.
    pub state: QuiesceState,
    /// True if the workload was already at zero, because an earlier restore left its data half restored. False after
    /// the workload is scaled back although the data is still half restored (`afterFailure: ScaleBack`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
}

/// State of a quiesce.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum QuiesceState {
    /// Announced: the workload will be, or is being, scaled to zero.
    #[default]
    Announced,
    /// The workload has no pods.
    Quiesced,
    /// The workload is scaled back to its former replicas.
    Resumed,
    /// The workload was deleted, so it is not scaled back.
    Gone,
    /// A user or another controller scaled the workload up during the restore, and now controls its replicas.
    Broken,
    /// The workload stays at zero, with the annotation, because its data is half restored.
    Held,
}

/// State of a run: everything that the operator needs to continue after a restart.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// Id of the run, the same in the logs of operator, Job and agent.
    pub id: String,
    /// Hash of the spec of the run. If it differs, the spec was changed during the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
    /// For a backup: hash of the location of the repository. If it differs, the Repository was changed during the
    /// run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Start time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// End time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The steps of the run that belong to no host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<StepStatus>,
    /// Permissions that were granted to Jobs of the run, for the duration of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub grants: Vec<GrantStatus>,
}

/// A permission that was granted to the Jobs of a run: a Role, a RoleBinding and a ServiceAccount with the same name.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct GrantStatus {
    /// Name of the Role, the RoleBinding and, in the namespace of the run, the ServiceAccount.
    pub name: String,
    /// Namespace of the Role and the RoleBinding.
    pub namespace: String,
}

/// A step of a run that belongs to no host.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Preflight, prepare or maintain.
    pub name: String,
    /// Number of the attempt, from 1.
    pub attempt: i32,
    /// Extension: number of attempts whose pod ran out of memory, was evicted, or ended without a result. The third
    /// such attempt fails the step; other failures of the infrastructure are retried until the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_deaths: Option<i32>,
    /// True if the step has ended.
    #[serde(default)]
    pub done: bool,
    /// Time of the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Reason of the last failure, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Message of the last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
