//! BackupBlueprint: a template for backups that annotations request. Declared as in Stash; not implemented.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::common::{DURATION, EmptyDirSettings, InvokerPhase, RetentionPolicy, RetryConfig, TaskRef};
use crate::api::condition::Condition;
use crate::api::hooks::BackupHooks;
use crate::api::repository::{Backend, UsagePolicy};
use crate::api::runtime::RuntimeSettings;
use crate::api::volume::PvcTemplate;

/// A template for Repositories and BackupConfigurations.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "stash.appscode.com",
    version = "v1beta1",
    kind = "BackupBlueprint",
    plural = "backupblueprints",
    shortname = "bb",
    category = "stash",
    category = "appscode",
    status = "BackupBlueprintStatus",
    derive = "PartialEq",
    doc = "BackupBlueprint is a template for backups that annotations request. Declared; not implemented.",
    printcolumn = r#"{"name":"Task","type":"string","jsonPath":".spec.task.name","priority":1}"#,
    printcolumn = r#"{"name":"Schedule","type":"string","jsonPath":".spec.schedule"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct BackupBlueprintSpec {
    /// The storage. Its prefix may contain variables such as `${TARGET_NAME}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Remove the stored data when the Repository is deleted. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe_out: Option<bool>,
    /// Namespaces whose objects may refer to the Repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_policy: Option<UsagePolicy>,
    /// Namespace of the BackupConfigurations. Defaults to the namespace of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_namespace: Option<String>,
    /// Namespace of the Repositories. Defaults to the namespace of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_namespace: Option<String>,
    /// Cron expression. When absent, backups run only when you create a BackupSession.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// How an application is backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRef>,
    /// Which snapshots are kept.
    pub retention_policy: RetentionPolicy,
    /// Settings of the Jobs' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,
    /// Scratch volume of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temp_dir: Option<EmptyDirSettings>,
    /// Template of a PVC for dumps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interim_volume_template: Option<PvcTemplate>,
    /// Hooks of the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<BackupHooks>,
    /// Number of completed BackupSessions to keep. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_history_limit: Option<i32>,
    /// Maximum duration of a session. Defaults to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub time_out: Option<String>,
    /// Retries of a failed session, each as a new session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_config: Option<RetryConfig>,
}

/// Extension: reports that blueprints are not implemented.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupBlueprintStatus {
    /// Generation of the spec that was last reconciled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether the blueprint is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<InvokerPhase>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
