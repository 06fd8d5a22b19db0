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
    /// How the data is moved: Restic (the default), in Jobs. VolumeSnapshotter is declared, and not built yet.
    #[serde(default)]
    #[schemars(default = "Driver::default")]
    pub driver: Driver,
    /// Where the data comes from. Needed by driver Restic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// How an application is restored. `pvc-restore` is built in; others are declared, not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRef>,
    /// Where the data goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RestoreTarget>,
    /// Settings of the Jobs' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,
    /// Scratch volume of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temp_dir: Option<EmptyDirSettings>,
    /// A claim for cache and temporary files instead of the scratch volume, one for each Job; deleted with the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interim_volume_template: Option<Box<PvcTemplate>>,
    /// Hooks around the restore. Declared; not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Box<RestoreHooks>>,
    /// Longest time the restore may take, waiting included, for example `30m`; 24h when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub time_out: Option<String>,
    /// Extension: only snapshots at or before this time (RFC 3339), for every host whose rule does not select by itself.
    /// Of a backup run that was still going then, none. The newest when absent. Not together with backupSession.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub as_of: Option<String>,
    /// Extension: only snapshots that this BackupSession made (`name`, or `namespace/name`), for every host whose rule
    /// does not select by itself. The object may be gone. Any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_session: Option<String>,
    /// Extension: true ends the run. The only field that may change; it cannot be taken back. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
    /// Deprecated: write them below `target`. Moved there on creation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// Phase of a restore.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum RestorePhase {
    /// Waiting for something that is named in the conditions.
    Pending,
    /// Running.
    Running,
    /// All that was planned is restored.
    Succeeded,
    /// Something was not restored; the conditions say what, why, and what to do.
    Failed,
    /// Not known.
    Unknown,
    /// The object contradicts itself or asks for what is not built; nothing was done.
    Invalid,
}

/// Phase of a member of a batch.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum MemberPhase {
    /// Not started yet.
    #[default]
    Pending,
    /// All that was planned for it is restored.
    Succeeded,
    /// Running.
    Running,
    /// Something of it was not restored.
    Failed,
    /// Not known.
    Unknown,
    /// Extension: never started, because an earlier member failed or the run was canceled.
    Skipped,
}

/// Phase of a host.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum HostPhase {
    /// All that was planned for it is restored.
    Succeeded,
    /// Something of it was not restored.
    Failed,
    /// Announced: from here on data may be overwritten.
    Running,
    /// Not known.
    Unknown,
    /// Extension: not started.
    #[default]
    Pending,
}

/// What a restore did.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSessionStatus {
    /// Extension: generation that was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Phase of the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// Extension: one line that says how it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Hosts the target has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_hosts: Option<i32>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_duration: Option<String>,
    /// When it fails if it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_deadline: Option<Time>,
    /// Each host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["hostname"]))]
    pub stats: Vec<HostRestoreStats>,
    /// What was observed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Extension: the workload scaled to zero for the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesce: Option<QuiesceStatus>,
    /// Extension: the run as the operator keeps track of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunStatus>,
}

/// One host of a restore.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRestoreStats {
    /// The host.
    pub hostname: String,
    /// Its phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<HostPhase>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Why it failed, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Extension: why it failed, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Extension: what is to be known of it, though it is no failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Extension: host whose backup is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_host: Option<String>,
    /// Extension: node that its volumes are on, where they are on one; its Job runs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Extension: the snapshots, fixed before data is touched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<PinnedSnapshot>,
    /// Extension: tries, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
    /// Extension: tries that ended with a pod that was killed for its memory, evicted, or gone without a word. Three of
    /// them end the step; other faults of the infrastructure are tried again until the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_deaths: Option<i32>,
    /// Extension: tries, from the first on, that ended before anything was written. As many as there were tries: its data
    /// is as it was. 0: a Job of a try is gone, and what it did is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwritten: Option<i32>,
    /// Extension: when the next try is due, and not set once its Job may exist; or since when it can begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Extension: up to two owners, `uid:gid,uid:gid`, of files that are to be restored, with which each volume is tried
    /// before anything is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Extension: what was counted in the snapshots before anything was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Counts>,
    /// Extension: what was restored, or found already equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Counts>,
    /// Extension: entries that were deleted because the snapshots do not have them, of all tries that have answered. Not set
    /// where target.extraneous is not Delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<i64>,
    /// Extension: true if the pod of a try died without an answer, so that more may have been deleted than `deleted`
    /// counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_deleted: Option<bool>,
    /// Extension: how far it is, at most some seconds old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// A snapshot that will be restored, whatever newer ones appear.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PinnedSnapshot {
    /// Full id.
    pub id: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Only this path of it. Not set where it has several, and all are restored.
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

/// How far a host is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// 0 to 100.
    pub percent: i32,
    /// Bytes done.
    pub bytes_done: i64,
    /// Bytes in all.
    pub bytes_total: i64,
    /// Entries done.
    pub files_done: i64,
    /// Entries in all.
    pub files_total: i64,
}

/// A workload that is scaled to zero while it is restored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct QuiesceStatus {
    /// The workload.
    #[serde(rename = "ref", default)]
    pub ref_: TargetRef,
    /// Replicas it had, and will have again.
    pub replicas: i32,
    /// How far it is.
    pub state: QuiesceState,
    /// It was at zero already, because an earlier restore had left its data half restored; false once it is back although
    /// that data still is so (`afterFailure: ScaleBack`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
}

/// How far a quiesce is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum QuiesceState {
    /// Announced: the workload will be, or is being, scaled to zero.
    #[default]
    Announced,
    /// No pod of it is left.
    Quiesced,
    /// Scaled back to its replicas.
    Resumed,
    /// The workload is gone; there is nothing to scale back.
    Gone,
    /// Somebody else scaled it up during the restore, and has it now.
    Broken,
    /// It stays at zero, because its data is half restored; its annotation says so.
    Held,
}

/// A run as the operator keeps track of it: all it needs to go on after a crash.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// Id of the run, the same in the logs of operator, Job and agent.
    pub id: String,
    /// Hash of what the run was planned from; another one means that the spec was changed under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
    /// Of a backup: hash of where the repository is that its Jobs work on. Another one means that the Repository was changed
    /// under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The steps of the run that belong to no host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<StepStatus>,
    /// Rights that were given to Jobs of the run, for the time of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub grants: Vec<GrantStatus>,
}

/// A right that was given to the Jobs of a run: a Role with its RoleBinding and ServiceAccount, all of one name.
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
    /// Tries, from 1.
    pub attempt: i32,
    /// Extension: tries that ended with a pod that was killed for its memory, evicted, or gone without a word. Three of
    /// them end the step; other faults of the infrastructure are tried again until the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_deaths: Option<i32>,
    /// It is over.
    #[serde(default)]
    pub done: bool,
    /// When the next try is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Why the last try failed, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why the last try failed, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
