//! BackupBlueprint: backups by annotation. Declared as Stash declares it; not built yet.

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
    doc = "BackupBlueprint is a template for backups that annotations ask for. Declared; not built yet.",
    printcolumn = r#"{"name":"Task","type":"string","jsonPath":".spec.task.name","priority":1}"#,
    printcolumn = r#"{"name":"Schedule","type":"string","jsonPath":".spec.schedule"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct BackupBlueprintSpec {
    /// The store; variables such as `${TARGET_NAME}` may stand in its prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Remove the data with the Repository. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe_out: Option<bool>,
    /// Which namespaces may refer to the Repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_policy: Option<UsagePolicy>,
    /// Namespace of the BackupConfigurations; that of the target when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_namespace: Option<String>,
    /// Namespace of the Repositories; that of the target when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_namespace: Option<String>,
    /// Cron expression; by hand only when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// How an application is backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRef>,
    /// What is kept.
    pub retention_policy: RetentionPolicy,
    /// Settings of the Jobs' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,
    /// Scratch volume of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temp_dir: Option<EmptyDirSettings>,
    /// Claim for dumps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interim_volume_template: Option<PvcTemplate>,
    /// Hooks around the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<BackupHooks>,
    /// Completed BackupSessions to keep; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_history_limit: Option<i32>,
    /// Longest time a session may take; 24h when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub time_out: Option<String>,
    /// New sessions after a failed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_config: Option<RetryConfig>,
}

/// Extension: says that blueprints are not built yet.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupBlueprintStatus {
    /// Generation that was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<InvokerPhase>,
    /// What was observed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
