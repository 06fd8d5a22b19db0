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
    /// How the data is moved: Restic (the default), in Jobs. VolumeSnapshotter is declared, and not built yet.
    #[serde(default)]
    #[schemars(default = "Driver::default")]
    pub driver: Driver,
    /// Where the data comes from. Needed by driver Restic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// Parallel (when absent) or Sequential, in the order of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_order: Option<ExecutionOrder>,
    /// The same as executionOrder: true is Sequential, false is Parallel. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintain_order: Option<bool>,
    /// Extension: what a failed member means for those after it, in order; Stop when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Hooks around the whole batch. Declared; not built yet.
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
    /// The targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<RestoreMember>,
    /// Extension: takes the members from a BackupBatch instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_batch: Option<BackupBatchRef>,
}

/// Which members of which BackupBatch are restored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct BackupBatchRef {
    /// Name of the BackupBatch.
    pub name: String,
    /// Its namespace; that of the restore when absent. Targets are looked for in the namespace of the restore either way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Aliases of the members to restore, in this order; all, in the order of the BackupBatch, when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// What a run was planned from, taken from a BackupBatch once.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Adopted {
    /// What was asked for.
    pub from: BackupBatchRef,
    /// Where its data is, unless the restore says so itself.
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
    /// Where the data goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RestoreTarget>,
    /// How an application is restored. `pvc-restore` is built in; others are declared, not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRef>,
    /// Settings of the Jobs' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,
    /// Scratch volume of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temp_dir: Option<EmptyDirSettings>,
    /// A claim for cache and temporary files instead of the scratch volume, one for each Job; deleted with the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interim_volume_template: Option<Box<PvcTemplate>>,
    /// Hooks around this member. Declared; not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Box<RestoreHooks>>,
    /// Extension: longest time this member may take, from its start, for example `30m`. Past it the member fails, and
    /// the batch goes on as onFailure says. When absent, only the batch's own timeOut counts, which always holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub time_out: Option<String>,
    /// What is restored into which hosts. Moved below `target` on creation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// What a batch did.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreBatchStatus {
    /// Extension: generation that was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Phase of the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// Extension: one line that says how it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_duration: Option<String>,
    /// When it fails if it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_deadline: Option<Time>,
    /// What was observed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Each member, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<RestoreMemberStatus>,
    /// Extension: repository and members as they were taken from spec.backupBatch when the run began. What becomes of
    /// the BackupBatch afterwards changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_object")]
    pub adopted: Option<Adopted>,
    /// Extension: the run as the operator keeps track of it.
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
    /// What was observed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Hosts it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_hosts: Option<i32>,
    /// Its phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MemberPhase>,
    /// Extension: when it fails if it has not ended; set when it starts, where `timeOut` of the member is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Extension: why it waits, failed or was not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Each host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["hostname"]))]
    pub stats: Vec<HostRestoreStats>,
    /// Extension: the workload scaled to zero for the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesce: Option<QuiesceStatus>,
}
