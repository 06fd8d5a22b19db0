//! BackupBatch: several targets under one configuration and one Repository.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::backup_session::LastBackup;
use crate::api::common::{
    DURATION, Driver, EmptyDirSettings, ExecutionOrder, InvokerIdentity, InvokerPhase, OnFailure, RepositoryRef,
    RetentionPolicy, RetryConfig, ScheduleInForce, TargetRef, TaskRef,
};
use crate::api::condition::Condition;
use crate::api::hooks::BackupHooks;
use crate::api::runtime::RuntimeSettings;
use crate::api::target::BackupTarget;
use crate::api::volume::PvcTemplate;

/// Backups of several targets.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "stash.appscode.com",
    version = "v1beta1",
    kind = "BackupBatch",
    plural = "backupbatches",
    category = "stash",
    category = "appscode",
    category = "all",
    namespaced,
    status = "BackupBatchStatus",
    derive = "PartialEq",
    doc = "BackupBatch says which targets are backed up together, when, to which Repository, and what is kept.",
    printcolumn = r#"{"name":"Schedule","type":"string","jsonPath":".spec.schedule"}"#,
    printcolumn = r#"{"name":"Paused","type":"boolean","jsonPath":".spec.paused"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Last-Success","type":"date","jsonPath":".status.lastSuccessTime"}"#,
    printcolumn = r#"{"name":"Last-Result","type":"string","jsonPath":".status.lastBackup.phase"}"#,
    printcolumn = r#"{"name":"Next","type":"string","jsonPath":".status.nextScheduleTime"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.maintainOrder) || !has(self.executionOrder) || self.maintainOrder == (self.executionOrder == 'Sequential')",
    "message": "maintainOrder and executionOrder contradict each other; set one of them"
}]))]
pub struct BackupBatchSpec {
    /// The targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<BackupMember>,
    /// Cron expression (five fields, or @hourly and the like). When absent, backups are taken only by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Extension: whose clocks the schedule means, as an IANA name such as `Europe/Berlin`; UTC when absent. Where
    /// clocks change, a time they leave out runs when they jump, and one they show twice runs the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Settings of the Jobs' pods; a member's own come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,
    /// How the data is moved: Restic (the default), in Jobs. VolumeSnapshotter is declared, and not built yet.
    #[serde(default)]
    #[schemars(default = "Driver::default")]
    pub driver: Driver,
    /// Where the data goes. Needed by driver Restic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// What is kept, per host.
    pub retention_policy: RetentionPolicy,
    /// Nothing starts by itself while true, neither by schedule nor as a retry; sessions made by hand still run. Default:
    /// false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Completed BackupSessions to keep, at least the newest one; 1 when absent. The newest success is kept beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_history_limit: Option<i32>,
    /// Hooks around the whole batch. Declared; not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<BackupHooks>,
    /// Parallel (when absent) or Sequential, in the order of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_order: Option<ExecutionOrder>,
    /// The same as executionOrder: true is Sequential, false is Parallel. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintain_order: Option<bool>,
    /// Extension: what a failed member means for those after it, in order; Stop when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Longest time a session may take, for example `2h`; 24h when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub time_out: Option<String>,
    /// New sessions after a failed one; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_config: Option<RetryConfig>,
}

/// One target of a batch.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupMember {
    /// How an application is backed up. `pvc-backup` is built in; others are declared, not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRef>,
    /// What is backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<BackupTarget>,
    /// Settings of the Jobs' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,
    /// Scratch volume of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temp_dir: Option<EmptyDirSettings>,
    /// A claim for cache and temporary files instead of the scratch volume, one for each Job; deleted with the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interim_volume_template: Option<PvcTemplate>,
    /// Hooks around this member. Declared; not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<BackupHooks>,
    /// Extension: longest time this member may take, from its start, for example `30m`. Past it the member fails, and
    /// the batch goes on as onFailure says. When absent, only the batch's own timeOut counts, which always holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub time_out: Option<String>,
}

/// Whether backups can be taken.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupBatchStatus {
    /// Generation that was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What was observed of the batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What was observed of each member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_conditions: Vec<MemberConditions>,
    /// Whether backups can be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<InvokerPhase>,
    /// Extension: the scheduled time the newest scheduled session was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// Extension: when the next scheduled session is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// Extension: what became of the last backup that ended, by schedule or by hand. None before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// Extension: when the last backup that succeeded ended. None before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// Extension: the schedule that is in force. None while paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_in_force: Option<ScheduleInForce>,
    /// Extension: Repository, and alias and target of each member, that were accepted. Members may come and go; those
    /// that stay keep alias and target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<InvokerIdentity>,
}

/// What was observed of a member.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct MemberConditions {
    /// The member's target.
    pub target: TargetRef,
    /// What was observed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
