//! Annotations on Jobs and their Pods.

/// Name of the session a Job or Pod belongs to (a label could be too short for it).
pub const SESSION_NAME: &str = "lifeboat.stash.appscode.com/session-name";
/// Namespace of the session that a grant in another namespace belongs to.
pub const SESSION_NAMESPACE: &str = "lifeboat.stash.appscode.com/session-namespace";
/// On a Repository: another value than before asks for its Snapshots to be brought up to date.
pub const SYNC: &str = "lifeboat.stash.appscode.com/sync";
/// On a Snapshot: hash of what was written of it, so that only what differs is written again.
pub const CONTENT: &str = "lifeboat.stash.appscode.com/content";
/// On a BackupBatch: namespaces, separated by commas, whose restores may take its members.
pub const RESTORE_FROM: &str = "lifeboat.stash.appscode.com/restore-from";
/// On a Namespace: settings of the Jobs in it that name none themselves, as JSON, see `plan::job_defaults`.
pub const JOB_DEFAULTS: &str = "lifeboat.stash.appscode.com/job-defaults";
/// Key of the step within its run, see `plan`.
pub const STEP_KEY: &str = "lifeboat.stash.appscode.com/step-key";
/// On a claim that a restore made: hash of what it was made from.
pub const TEMPLATE: &str = "lifeboat.stash.appscode.com/template";
/// Repository that a Job works on, by namespace and name.
pub const REPOSITORY: &str = "lifeboat.stash.appscode.com/repository";
/// On a Job: hash of the settings that it has of others than its session, such as its namespace.
pub const DEFAULTS: &str = "lifeboat.stash.appscode.com/defaults";
/// Attempt at the step, from 1.
pub const ATTEMPT: &str = "lifeboat.stash.appscode.com/attempt";
/// On a workload that stays at zero because its data is half restored: what it comes back to, and why.
pub const HELD_DOWN: &str = "lifeboat.stash.appscode.com/held-down";
/// On what users write: the webhook's seal that who wrote it may run code in the namespace.
pub const SEAL: &str = "lifeboat.stash.appscode.com/code-rights";
