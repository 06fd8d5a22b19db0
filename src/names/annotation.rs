//! Annotations on Jobs and their Pods.

/// Name of the session a Job or Pod belongs to (a label could be too short for it).
pub const SESSION_NAME: &str = "lifeboat.stash.appscode.com/session-name";
/// Namespace of the session to which a Role in another namespace belongs.
pub const SESSION_NAMESPACE: &str = "lifeboat.stash.appscode.com/session-namespace";
/// On a Repository: a new value requests a new list of its Snapshots.
pub const SYNC: &str = "lifeboat.stash.appscode.com/sync";
/// On a Snapshot: hash of its content, so that only changed Snapshots are written.
pub const CONTENT: &str = "lifeboat.stash.appscode.com/content";
/// On a BackupBatch: comma-separated namespaces whose restores may use its members.
pub const RESTORE_FROM: &str = "lifeboat.stash.appscode.com/restore-from";
/// On a Namespace: default settings of the Jobs in it, as JSON, see `plan::job_defaults`.
pub const JOB_DEFAULTS: &str = "lifeboat.stash.appscode.com/job-defaults";
/// Key of the step within its run, see `plan`.
pub const STEP_KEY: &str = "lifeboat.stash.appscode.com/step-key";
/// On a PVC that a restore created: hash of its template.
pub const TEMPLATE: &str = "lifeboat.stash.appscode.com/template";
/// Repository that a Job works on, by namespace and name.
pub const REPOSITORY: &str = "lifeboat.stash.appscode.com/repository";
/// On a Job: hash of the settings that do not come from its session, but for example from its namespace.
pub const DEFAULTS: &str = "lifeboat.stash.appscode.com/defaults";
/// Attempt at the step, from 1.
pub const ATTEMPT: &str = "lifeboat.stash.appscode.com/attempt";
/// On a workload that stays at zero because its data is half restored: its former replicas, and the cause.
pub const HELD_DOWN: &str = "lifeboat.stash.appscode.com/held-down";
/// On objects of users: the webhook's seal, which proves that the author may run code in the namespace.
pub const SEAL: &str = "lifeboat.stash.appscode.com/code-rights";
