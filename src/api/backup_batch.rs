//! BackupBatch: several targets with one configuration and one Repository.

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
    doc = "BackupBatch defines the backups of several targets: members, schedule, Repository and retention.",
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
    /// Cron expression (five fields, or @hourly and similar). When absent, backups run only when you create a
    /// BackupSession.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Extension: time zone of the schedule, as an IANA name such as `Europe/Berlin`. Defaults to UTC. When clocks
    /// change, a backup scheduled at a skipped time starts at the change, and a backup scheduled at a time that occurs
    /// twice starts the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Settings of the Jobs' pods. Settings of a member have precedence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,
    /// How the data is transferred: Restic (the default), in Jobs. VolumeSnapshotter is declared, but not
    /// implemented.
    #[serde(default)]
    #[schemars(default = "Driver::default")]
    pub driver: Driver,
    /// Repository in which backups are stored. Required by driver Restic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// Which snapshots are kept, per host.
    pub retention_policy: RetentionPolicy,
    /// If true, no session is created by schedule or as a retry; sessions that you create still run. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Number of completed BackupSessions to keep, at least the newest one. Defaults to 1. The newest successful
    /// session is kept in addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_history_limit: Option<i32>,
    /// Hooks of the whole batch. Declared; not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<BackupHooks>,
    /// Parallel (when absent) or Sequential, in the order of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_order: Option<ExecutionOrder>,
    /// The same as executionOrder: true is Sequential, false is Parallel. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintain_order: Option<bool>,
    /// Extension: what happens to the members after a failed member, in Sequential order. Defaults to Stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Maximum duration of a session, for example `2h`. Defaults to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub time_out: Option<String>,
    /// Retries of a failed session, each as a new session. When absent, there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_config: Option<RetryConfig>,
}

/// One target of a batch.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupMember {
    /// How an application is backed up. `pvc-backup` is built in; other tasks are declared, but not implemented.
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
    /// Template of a PVC for cache and temporary files that replaces the scratch volume. Each Job has its own PVC,
    /// which is deleted with the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interim_volume_template: Option<PvcTemplate>,
    /// Hooks of this member. Declared; not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<BackupHooks>,
    /// Extension: maximum duration of this member, from its start, for example `30m`. After this time the member
    /// fails, and the batch continues as onFailure specifies. When absent, only the timeOut of the batch applies. The
    /// timeOut of the batch always applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub time_out: Option<String>,
}

/// Whether backups can be taken.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupBatchStatus {
    /// Generation of the spec that was last reconciled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Conditions of each member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_conditions: Vec<MemberConditions>,
    /// Whether backups can be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<InvokerPhase>,
    /// Extension: scheduled time of the newest scheduled session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// Extension: time of the next scheduled session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// Extension: result of the last backup that ended, scheduled or manual. Absent before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// Extension: end of the last successful backup. Absent before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// Extension: the active schedule. Absent while paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_in_force: Option<ScheduleInForce>,
    /// Extension: the Repository, and the alias and target of each member, as they were when the object first became
    /// valid. Members can be added and removed; the alias and target of a member cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<InvokerIdentity>,
}

/// Conditions of a member.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct MemberConditions {
    /// The member's target.
    pub target: TargetRef,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
