//! RestoreBatch: one run of a restore, into several targets, in parallel or in order.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::common::{
    DURATION, Driver, EmptyDirSettings, ExecutionOrder, OnFailure, RepositoryRef, Rule, TargetRef, TaskRef,
};
use crate::api::condition::Condition;
use crate::api::hooks::RestoreHooks;
use crate::api::restore_session::{HostRestoreStats, MemberPhase, QuiesceStatus, RestorePhase, RunStatus};
use crate::api::runtime::RuntimeSettings;
use crate::api::schema;
use crate::api::target::RestoreTarget;
use crate::api::volume::PvcTemplate;

/// A restore into several targets.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "stash.appscode.com",
    version = "v1beta1",
    kind = "RestoreBatch",
    plural = "restorebatches",
    category = "stash",
    category = "appscode",
    category = "all",
    namespaced,
    status = "RestoreBatchStatus",
    derive = "PartialEq",
    doc = "RestoreBatch restores several targets, once, in parallel or in order. Create another one to restore again.",
    printcolumn = r#"{"name":"Repository","type":"string","jsonPath":".spec.repository.name"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Duration","type":"string","jsonPath":".status.sessionDuration"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.summary"}"#,
    printcolumn = r#"{"name":"Deadline","type":"string","jsonPath":".status.sessionDeadline","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.maintainOrder) || !has(self.executionOrder) || self.maintainOrder == (self.executionOrder == 'Sequential')",
    "message": "maintainOrder and executionOrder contradict each other; set one of them"
}]))]
pub struct RestoreBatchSpec {
    /// How the data is transferred: Restic (the default), in Jobs. VolumeSnapshotter is declared, but not
    /// implemented.
    #[serde(default)]
    #[schemars(default = "Driver::default")]
    pub driver: Driver,
    /// Repository from which data is restored. Required by driver Restic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// Parallel (when absent) or Sequential, in the order of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_order: Option<ExecutionOrder>,
    /// The same as executionOrder: true is Sequential, false is Parallel. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintain_order: Option<bool>,
    /// Extension: what happens to the members after a failed member, in Sequential order. Defaults to Stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Hooks of the whole batch. Declared; not implemented.
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
    /// The targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<RestoreMember>,
    /// Extension: use the members of a BackupBatch instead of `members`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_batch: Option<BackupBatchRef>,
}

/// A BackupBatch, and which of its members are restored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct BackupBatchRef {
    /// Name of the BackupBatch.
    pub name: String,
    /// Namespace of the BackupBatch. Defaults to the namespace of the restore. Targets are always in the namespace of
    /// the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Aliases of the members to restore, in this order. If empty, all members, in the order of the BackupBatch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// Copy of the fields of a BackupBatch that a run uses.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Adopted {
    /// The `spec.backupBatch` from which the copy was made.
    pub from: BackupBatchRef,
    /// Repository of the BackupBatch, unless the restore specifies a Repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// The members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<RestoreMember>,
}

/// One target of a batch.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreMember {
    /// Extension: how this member is restored. Defaults to the driver of the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// The target of the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RestoreTarget>,
    /// How an application is restored. `pvc-restore` is built in; other tasks are declared, but not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRef>,
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
    /// Hooks of this member. Declared; not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Box<RestoreHooks>>,
    /// Extension: maximum duration of this member, from its start, for example `30m`. After this time the member fails,
    /// and the batch continues as onFailure specifies. When absent, only the timeOut of the batch applies. The timeOut
    /// of the batch applies in every case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub time_out: Option<String>,
    /// Rules: which snapshots are restored to which hosts. Moved to `target` when the object is created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// Status of a batch.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreBatchStatus {
    /// Extension: generation of the spec that was last reconciled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Phase of the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// Extension: one line with the current state or the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_duration: Option<String>,
    /// Deadline: time at which the batch fails if it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_deadline: Option<Time>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Status of each member, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<RestoreMemberStatus>,
    /// Extension: repository and members, copied from spec.backupBatch when the run started. Later changes of the
    /// BackupBatch have no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_object")]
    pub adopted: Option<Adopted>,
    /// Extension: state of the run, written by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunStatus>,
}

/// One member of a batch.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreMemberStatus {
    /// The target.
    #[serde(rename = "ref", default)]
    pub ref_: TargetRef,
    /// Extension: alias of the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Number of hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_hosts: Option<i32>,
    /// Phase of the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MemberPhase>,
    /// Extension: time at which the member fails if it has not ended; set when it starts, if the member has a
    /// `timeOut`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Extension: message that explains why the member waits, failed or was not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Status of each host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["hostname"]))]
    pub stats: Vec<HostRestoreStats>,
    /// Extension: the workload scaled to zero for the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesce: Option<QuiesceStatus>,
}
