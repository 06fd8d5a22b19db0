//! Small types that several kinds share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the data is moved. Restic (the default): restic, in Jobs. VolumeSnapshotter: CSI volume snapshots; declared, not
/// built yet.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Driver {
    /// restic, in Jobs.
    #[default]
    Restic,
    /// CSI volume snapshots. Declared; not built yet.
    VolumeSnapshotter,
}

/// Order of the members. Parallel (the default): all at once. Sequential: one after another, in the order of the list.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ExecutionOrder {
    /// All members at once; a member that fails or waits does not hold up another.
    Parallel,
    /// In the order of the list.
    Sequential,
}

/// Extension: what a failed member means for those after it, in Sequential order. Stop (the default): they are not
/// started. Continue: they are started.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnFailure {
    /// Those after it are not started.
    Stop,
    /// They are started all the same.
    Continue,
}

/// Extension: whether a workload is scaled to zero while it is restored in place. Auto (the default): it is scaled to
/// zero, restored, and scaled back. Never: it is restored under running pods, which may read half-written files and
/// overwrite restored ones.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Quiesce {
    /// Scale to zero, restore, scale back.
    Auto,
    /// Restore under the running workload. It may read half-written files, and may overwrite what is restored.
    Never,
}

/// Extension: what becomes of a workload whose data a restore has touched and not restored as a whole. StayDown (the
/// default): it stays at zero replicas, with an annotation that says why, until a restore of it succeeds. ScaleBack: it is
/// scaled back, and starts on what is there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AfterFailure {
    /// It stays at zero replicas, with an annotation that says what it comes back to and why. The next restore of it that
    /// succeeds scales it back.
    StayDown,
    /// It is scaled back, and starts on what is there.
    ScaleBack,
}

/// Extension: what becomes of files that the snapshots do not have. Keep (the default): they stay. Delete: they are
/// deleted once everything else is restored, within what the rule selects.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Extraneous {
    /// They stay.
    Keep,
    /// They are deleted once everything else is restored: what the rule selects by paths, include and exclude, and no
    /// snapshot of the host holds. Volumes that are mounted below a path are not entered.
    Delete,
}

/// Extension: whether a restore gives files back their owners. Keep (the default): every file gets its owner, for which
/// the Job must be allowed to run as root. Ignore: files belong to the user that the Job runs as.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Ownership {
    /// Every file gets its owner, or the restore fails before anything is touched. Needs a Job that may run as root.
    Keep,
    /// Files belong to whom the Job runs as. It runs as an ordinary user, which the Pod Security level `restricted` allows.
    Ignore,
}

/// Reference to a Task, and its parameters.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct TaskRef {
    /// Name of the Task: `pvc-backup` or `pvc-restore`, which are built in. Absent for workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Values for the Task's variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub params: Vec<Param>,
}

/// A named value.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Param {
    /// Name of the variable.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Reference to what is backed up or restored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Group and version: `apps/v1` of workloads, `v1` of PersistentVolumeClaim and ReplicationController. When absent, that
    /// of the kind. An AppBinding is found by its kind whatever stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind: `Deployment`, `StatefulSet`, `DaemonSet`, `ReplicaSet`, `ReplicationController` or `PersistentVolumeClaim`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace of the object; that of the session when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Reference to a Repository.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct RepositoryRef {
    /// Name of the Repository.
    pub name: String,
    /// Its namespace; that of the referring object when absent. Another one must be allowed by the Repository's usagePolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What stays fixed of a BackupConfiguration or BackupBatch: what its snapshots are known by, and where they are.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct InvokerIdentity {
    /// The Repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// Alias and object of each target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetIdentity>,
}

/// What stays fixed of a target.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct TargetIdentity {
    /// Its alias; none means that each host has its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The object.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub ref_: Option<TargetRef>,
}

/// What is restored into which hosts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Hosts this rule is for. Empty means every host that no other rule names; at most one rule may be so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_hosts: Vec<String>,
    /// Host whose backup is restored; the target host itself when absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_host: Option<String>,
    /// Snapshot ids, or `latest`. Exclusive with `paths`. The source host always filters them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<String>,
    /// Paths to restore from the newest snapshot of the source host that holds them. Each must lie within a volume mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Extension: only snapshots at or before this time (RFC 3339); of a backup run that was still going then, none.
    /// The newest when absent. Not together with snapshot ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub as_of: Option<String>,
    /// Extension: how many backup runs back, of those that hold what is asked for; 0, also when absent, is the newest. Not
    /// together with snapshot ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub previous: Option<i32>,
    /// Extension: only snapshots that carry all of these tags. Not together with snapshot ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Only files that match one of these restic patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// No files that match one of these restic patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// The scratch volume of a Job (cache and temporary files).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDirSettings {
    /// Where it is kept: empty (the default) for the node's disk, `Memory` for a tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    /// Most bytes it may take, for example `1Gi`; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    /// Do not cache repository metadata in it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_caching: Option<bool>,
}

/// How often a failed backup is tried again, each time as a session of its own.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryConfig {
    /// Further tries after the first; 1 when absent.
    #[serde(default = "one", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_retry: Option<i32>,
    /// Wait before each further try, for example `10m`; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub delay: Option<String>,
}

#[allow(clippy::unnecessary_wraps, reason = "serde wants the type of the field")]
fn one() -> Option<i32> {
    Some(1)
}

/// A schedule, and since when its times count: those before are nobody's promise.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleInForce {
    /// The expression.
    pub schedule: String,
    /// Its time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// When the object was created, was given this schedule, or was paused no more.
    pub since: Time,
}

/// A duration as Go writes it: `90s`, `1h30m`.
pub const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$";

/// Which snapshots are kept after a backup.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionPolicy {
    /// Name of the policy, for the reader.
    pub name: String,
    /// Newest snapshots to keep; none by this rule when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<i64>,
    /// Hours of which the newest snapshot is kept; none by this rule when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_hourly: Option<i64>,
    /// Days of which the newest snapshot is kept; none by this rule when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_daily: Option<i64>,
    /// Weeks of which the newest snapshot is kept; none by this rule when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_weekly: Option<i64>,
    /// Months of which the newest snapshot is kept; none by this rule when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_monthly: Option<i64>,
    /// Years of which the newest snapshot is kept; none by this rule when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_yearly: Option<i64>,
    /// Snapshots with any of these tags are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_tags: Vec<String>,
    /// Remove data that no snapshot needs any more from the repository.
    pub prune: bool,
    /// Only say what would be removed. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// kstatus and Stash phases of an invoker (BackupConfiguration, BackupBatch).
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum InvokerPhase {
    /// The object contradicts itself or asks for what is not built; see the ValidationPassed condition.
    Invalid,
    /// Backups can be taken.
    Ready,
    /// Something it names is missing; see its conditions.
    NotReady,
}
