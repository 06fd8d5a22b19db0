//! Small types that several kinds use.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the data is transferred. Restic (the default): restic, in Jobs. VolumeSnapshotter: CSI volume snapshots;
/// declared, but not implemented.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Driver {
    /// restic, in Jobs.
    #[default]
    Restic,
    /// CSI volume snapshots. Declared; not implemented.
    VolumeSnapshotter,
    /// A system that exists in tests only.
    #[cfg(test)]
    #[schemars(skip)]
    Mock,
}

/// Order of the members. Parallel (the default): all at the same time. Sequential: one after another, in the order of
/// the list.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ExecutionOrder {
    /// All members at the same time; a member that fails or waits does not delay others.
    Parallel,
    /// In the order of the list.
    Sequential,
}

/// Extension: what happens to the members after a failed member, in Sequential order. Stop (the default): these
/// members are not started. Continue: these members are started.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnFailure {
    /// Members after the failed member are not started.
    Stop,
    /// Members after the failed member are started.
    Continue,
}

/// Extension: whether a workload is scaled to zero during a restore in place. Auto (the default): the workload is
/// scaled to zero, restored, and scaled back. Never: its pods keep running during the restore, and may read partially
/// written files and overwrite restored files.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Quiesce {
    /// Scale to zero, restore, scale back.
    Auto,
    /// Do not scale. Pods keep running; they may read partially written files and overwrite restored files.
    Never,
}

/// Extension: what happens to a workload whose data is partially restored at the end of a restore. StayDown (the
/// default): the workload stays at zero replicas, with an annotation that gives the cause, until a restore of the data
/// succeeds. ScaleBack: the workload is scaled back, and starts with the data as it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AfterFailure {
    /// The workload stays at zero replicas, with an annotation that contains the former number of replicas and the
    /// cause. The next successful restore of the data scales the workload back.
    StayDown,
    /// The workload is scaled back, and starts with the data as it is.
    ScaleBack,
}

/// Extension: what happens to files that are not in the snapshots. Keep (the default): these files are kept.
/// Delete: these files are deleted if the rule selects them, after everything else is restored.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Extraneous {
    /// The files are kept.
    Keep,
    /// Files that the rule selects by paths, include and exclude, and that are in no snapshot of the host, are
    /// deleted after everything else is restored. Volumes that are mounted below a path are skipped.
    Delete,
}

/// Extension: whether a restore sets the owners of files. Keep (the default): owners are restored, which requires
/// that the Job may run as root. Ignore: files belong to the user of the Job.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Ownership {
    /// Owners are restored, or the restore fails before data is changed. Requires that the Job may run as root.
    Keep,
    /// Files belong to the user of the Job. The Job does not run as root, which the Pod Security level `restricted`
    /// allows.
    Ignore,
}

/// Reference to a Task, and its parameters.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct TaskRef {
    /// Name of the Task. Built in are `pvc-backup` and `pvc-restore` for PVCs, and `postgres-backup`, `mysql-backup`,
    /// `mariadb-backup`, `redis-backup` and the same with `restore`, with or without a version, for AppBindings. Absent
    /// for workloads. An AppBinding may name its task itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Parameters of the Task, for AppBindings: `args`, `databases`, `multiDumpArgs` and `waitTimeout`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub params: Vec<Param>,
}

/// A named value.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Param {
    /// Name of the variable.
    pub name: String,
    /// Value of the variable.
    pub value: String,
}

/// Reference to the object that is backed up or restored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Group and version: `apps/v1` for workloads, `v1` for PersistentVolumeClaim and ReplicationController. Defaults
    /// to the group and version of the kind. Ignored for an AppBinding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind: `Deployment`, `StatefulSet`, `DaemonSet`, `ReplicaSet`, `ReplicationController`,
    /// `PersistentVolumeClaim` or `AppBinding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace of the object. Defaults to the namespace of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Reference to a Repository.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct RepositoryRef {
    /// Name of the Repository.
    pub name: String,
    /// Namespace of the Repository. Defaults to the namespace of the referring object. If the namespaces differ, the
    /// Repository's usagePolicy must allow the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Fields of a BackupConfiguration or BackupBatch that cannot change, because they identify its snapshots and their
/// location.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct InvokerIdentity {
    /// The Repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// Alias and object of each target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetIdentity>,
}

/// Fields of a target that cannot change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct TargetIdentity {
    /// Alias of the target. If absent, hosts have default names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The object.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub ref_: Option<TargetRef>,
}

/// A rule: which snapshots are restored to which hosts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Hosts of this rule. If empty, the rule applies to every host that no other rule names. At most one rule may
    /// have an empty list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_hosts: Vec<String>,
    /// Host whose backup is restored. Defaults to the target host itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_host: Option<String>,
    /// Snapshot IDs, or `latest`. Cannot be used together with `paths`. The snapshots must belong to the source host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<String>,
    /// Paths to restore, each from the newest snapshot of the source host that contains it. Each path must be within
    /// a volume mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Extension: restore only snapshots taken at or before this time (RFC 3339), and only from backup runs that were
    /// complete at this time. When absent, the newest snapshots are restored. Cannot be used together with snapshot
    /// IDs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub as_of: Option<String>,
    /// Extension: number of newer matching backup runs to skip. Defaults to 0, the newest run. Cannot be used
    /// together with snapshot IDs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub previous: Option<i32>,
    /// Extension: restore only snapshots with all of these tags. Cannot be used together with snapshot IDs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Restore only files that match one of these restic patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Do not restore files that match one of these restic patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// The scratch volume of a Job (cache and temporary files).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDirSettings {
    /// Storage medium: empty (the default) for the node's disk, `Memory` for a tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    /// Size limit, for example `1Gi`. No limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    /// Do not cache repository metadata in this volume. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_caching: Option<bool>,
}

/// Retries of a failed backup, each as a new session.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryConfig {
    /// Maximum number of retries. Defaults to 1.
    #[serde(default = "one", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_retry: Option<i32>,
    /// Delay before each retry, for example `10m`. No delay when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub delay: Option<String>,
}

#[allow(clippy::unnecessary_wraps, reason = "serde wants the type of the field")]
fn one() -> Option<i32> {
    Some(1)
}

/// A schedule, and the time since which it is active. No session is created for earlier times.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleInForce {
    /// Cron expression.
    pub schedule: String,
    /// Time zone of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Time at which the object was created or resumed, or its schedule was set.
    pub since: Time,
}

/// A duration in Go's format: `90s`, `1h30m`.
pub const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$";

/// Which snapshots are kept after a backup.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionPolicy {
    /// Name of the policy, for information.
    pub name: String,
    /// Number of newest snapshots to keep. When absent, this rule keeps no snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<i64>,
    /// Number of hours for each of which the newest snapshot is kept. When absent, this rule keeps no snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_hourly: Option<i64>,
    /// Number of days for each of which the newest snapshot is kept. When absent, this rule keeps no snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_daily: Option<i64>,
    /// Number of weeks for each of which the newest snapshot is kept. When absent, this rule keeps no snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_weekly: Option<i64>,
    /// Number of months for each of which the newest snapshot is kept. When absent, this rule keeps no snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_monthly: Option<i64>,
    /// Number of years for each of which the newest snapshot is kept. When absent, this rule keeps no snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_yearly: Option<i64>,
    /// Snapshots with any of these tags are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_tags: Vec<String>,
    /// Remove data from the repository if no snapshot uses it any more.
    pub prune: bool,
    /// Only report what would be removed. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Phase of an invoker (BackupConfiguration, BackupBatch), with the values of kstatus and Stash.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum InvokerPhase {
    /// The spec is not valid, or uses a feature that is not implemented; see the ValidationPassed condition.
    Invalid,
    /// Backups can be taken.
    Ready,
    /// An object that the invoker names is missing, or a backup could not be taken for another reason; see the
    /// conditions of the invoker.
    NotReady,
}
