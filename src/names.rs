//! What we call things: groups, labels, finalizers, condition types, reasons
//! and the names of children.
//!
//! Condition types and most reasons are those of Stash, because scripts read
//! them. This room decides nothing and talks to nobody.

use sha2::{Digest, Sha256};

use crate::digest::hex;

/// API group of the kinds users write.
pub const GROUP: &str = "stash.appscode.com";
/// API group of Snapshot.
pub const SNAPSHOT_GROUP: &str = "repositories.stash.appscode.com";
/// Field manager of the Job that writes Snapshots.
pub const SNAPSHOT_MANAGER: &str = "lifeboat-list";
/// Field manager of everything the operator applies.
pub const MANAGER: &str = "lifeboat";
/// Finalizer on sessions, held until nothing of them runs and every workload is scaled back; and on
/// Repositories that are used, held until nobody uses them.
pub const FINALIZER: &str = "lifeboat.stash.appscode.com/run";
/// Finalizer that Stash put on sessions and backup configurations; taken off when the object is deleted.
pub const FINALIZER_OF_STASH: &str = "stash.appscode.com";
/// Finalizer that Stash puts on a Repository; taken off with ours.
pub const STASH_REPOSITORY_FINALIZER: &str = "stash";
/// Name of the operator: Deployment, reporter of events, component label.
pub const OPERATOR: &str = "lifeboat";
/// Name of the task that means "the files of this PVC", for backup.
pub const TASK_PVC_BACKUP: &str = "pvc-backup";
/// Name of the task that means "the files of this PVC", for restore.
pub const TASK_PVC_RESTORE: &str = "pvc-restore";
/// Where a PVC is mounted when its target names no mount (Stash's default).
pub const PVC_MOUNT: &str = "/stash-data";

/// The one container of a Job's pod that is ours.
pub const AGENT_CONTAINER: &str = "agent";

/// Volumes of a Job's pod; a prefix keeps them apart from the user's.
pub mod volume {
    /// The repository's password and credentials.
    pub const SECRET: &str = "lifeboat-repository-secret";
    /// Cache and temporary files; the kubelet names it when it is full.
    pub const WORK: &str = "lifeboat-work";
    /// Where the folders of a restore without mounts are made.
    pub const RESTORE_ROOT: &str = "lifeboat-restore-root";
    /// A repository that lives on a volume.
    pub const REPOSITORY: &str = "lifeboat-repository";
    /// The claim for cache and temporary files, as Stash names it.
    pub const INTERIM: &str = "stash-interim-volume";
    /// The token of a ServiceAccount that was made for the Job.
    pub const TOKEN: &str = "lifeboat-token";
}

/// Labels on everything the operator creates.
pub mod label {
    /// Standard label; [`MANAGED_BY_VALUE`].
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Stash's value, which its users select by.
    pub const MANAGED_BY_VALUE: &str = "stash.appscode.com";
    /// Standard label; `stash-backup` or `stash-restore`.
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// Component of backup Jobs.
    pub const COMPONENT_BACKUP: &str = "stash-backup";
    /// Component of restore Jobs.
    pub const COMPONENT_RESTORE: &str = "stash-restore";
    /// Component of Jobs on a repository that belong to no session.
    pub const COMPONENT_REPOSITORY: &str = "stash-repository";
    /// Kind of the session a Job or Pod belongs to.
    pub const SESSION_KIND: &str = "lifeboat.stash.appscode.com/session-kind";
    /// Uid of the session a Job or Pod belongs to.
    pub const SESSION_UID: &str = "lifeboat.stash.appscode.com/session-uid";
    /// Verb of the step: preflight, restore, prepare, backup, maintain.
    pub const STEP: &str = "lifeboat.stash.appscode.com/step";
    /// Kind of the invoker of a BackupSession.
    pub const INVOKER_TYPE: &str = "stash.appscode.com/invoker-type";
    /// Name of the invoker of a BackupSession.
    pub const INVOKER_NAME: &str = "stash.appscode.com/invoker-name";
    /// Kind of the target of a BackupSession; of a batch, that of its first member.
    pub const TARGET_KIND: &str = "stash.appscode.com/target-kind";
    /// Name of the target of a BackupSession.
    pub const TARGET_NAME: &str = "stash.appscode.com/target-name";
    /// Namespace of the target of a BackupSession.
    pub const TARGET_NAMESPACE: &str = "stash.appscode.com/target-namespace";
    /// On a Namespace, "true": whatever runs code or raises rights is accepted there, whoever wrote it.
    pub const ALLOW_CODE: &str = "lifeboat.stash.appscode.com/allow-code";
}

pub mod annotation;

/// Condition types.
pub mod condition {
    /// The Repository exists and may be used.
    pub const REPOSITORY_FOUND: &str = "RepositoryFound";
    /// The backend Secret exists and has the keys it needs.
    pub const BACKEND_SECRET_FOUND: &str = "BackendSecretFound";
    /// The object is valid.
    pub const VALIDATION_PASSED: &str = "ValidationPassed";
    /// The backup target exists.
    pub const BACKUP_TARGET_FOUND: &str = "BackupTargetFound";
    /// The restore target exists.
    pub const RESTORE_TARGET_FOUND: &str = "RestoreTargetFound";
    /// The repository was opened, or created.
    pub const BACKEND_REPOSITORY_INITIALIZED: &str = "BackendRepositoryInitialized";
    /// Retention was applied.
    pub const RETENTION_POLICY_APPLIED: &str = "RetentionPolicyApplied";
    /// The repository was checked.
    pub const REPOSITORY_INTEGRITY_VERIFIED: &str = "RepositoryIntegrityVerified";
    /// A backup was not started.
    pub const BACKUP_SKIPPED: &str = "BackupSkipped";
    /// The Jobs of a backup member exist.
    pub const BACKUP_EXECUTOR_ENSURED: &str = "BackupExecutorEnsured";
    /// The Jobs of a restore member exist.
    pub const RESTORE_EXECUTOR_ENSURED: &str = "RestoreExecutorEnsured";
    /// The first Job of a restore member was created.
    pub const RESTORE_JOB_CREATED: &str = "RestoreJobCreated";
    /// The run took longer than it may.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// Extension: the run was canceled; False while it is being stopped.
    pub const CANCELED: &str = "Canceled";
    /// Extension: every host's snapshots are resolved and pinned in status.
    pub const SNAPSHOTS_PINNED: &str = "SnapshotsPinned";
    /// Extension: the workload is scaled to zero for the time of the restore.
    pub const QUIESCED: &str = "Quiesced";
    /// Extension: the workload has its replicas back; there only where the API server has refused to scale it back.
    pub const SCALED_BACK: &str = "ScaledBack";
    /// Extension: the claims of the member's templates are there.
    pub const CLAIMS_CREATED: &str = "ClaimsCreated";
    /// Extension: more than one backup was due since the last that succeeded.
    pub const BACKUPS_LATE: &str = "BackupsLate";
    /// Extension: the Snapshots of a Repository are those of the repository.
    pub const SNAPSHOTS_SYNCED: &str = "SnapshotsSynced";
    /// Extension: the store of a Repository answers.
    pub const REACHABLE: &str = "Reachable";
    /// kstatus: fully as asked.
    pub const READY: &str = "Ready";
    /// kstatus: working on it.
    pub const RECONCILING: &str = "Reconciling";
    /// kstatus: cannot get any further without help.
    pub const STALLED: &str = "Stalled";
}

/// Declares constants, and the list of them.
macro_rules! listed {
    ($(#[$of:meta])* pub mod $module:ident { $($(#[$doc:meta])* pub const $name:ident: &str = $value:literal;)* }) => {
        $(#[$of])*
        pub mod $module {
            $($(#[$doc])* pub const $name: &str = $value;)*
            /// All of them.
            pub const ALL: &[&str] = &[$($name),*];
        }
    };
}

listed! {
/// Reasons, PascalCase, of conditions, events and failures.
pub mod reason {
    // Stash's, of conditions.
    /// Repository exists.
    pub const REPOSITORY_AVAILABLE: &str = "RepositoryAvailable";
    /// Repository does not exist.
    pub const REPOSITORY_NOT_AVAILABLE: &str = "RepositoryNotAvailable";
    /// The usagePolicy of the Repository does not let this namespace use it.
    pub const REPOSITORY_NOT_ALLOWED: &str = "RepositoryNotAllowed";
    /// Secret exists.
    pub const BACKEND_SECRET_AVAILABLE: &str = "BackendSecretAvailable";
    /// Secret does not exist.
    pub const BACKEND_SECRET_NOT_AVAILABLE: &str = "BackendSecretNotAvailable";
    /// Valid.
    pub const VALIDATION_PASSED: &str = "ResourceValidationPassed";
    /// Not valid.
    pub const VALIDATION_FAILED: &str = "ResourceValidationFailed";
    /// Target exists.
    pub const TARGET_AVAILABLE: &str = "TargetAvailable";
    /// Target does not exist.
    pub const TARGET_NOT_AVAILABLE: &str = "TargetNotAvailable";
    /// Repository opened.
    pub const BACKEND_REPOSITORY_FOUND: &str = "BackendRepositoryFound";
    /// Repository neither opened nor created.
    pub const BACKEND_REPOSITORY_FAILED: &str = "FailedToInitializeBackendRepository";
    /// Retention applied.
    pub const RETENTION_APPLIED: &str = "SuccessfullyAppliedRetentionPolicy";
    /// Retention not applied.
    pub const RETENTION_FAILED: &str = "FailedToApplyRetentionPolicy";
    /// Check passed.
    pub const INTEGRITY_VERIFIED: &str = "SuccessfullyVerifiedRepositoryIntegrity";
    /// Check failed.
    pub const INTEGRITY_FAILED: &str = "FailedToVerifyRepositoryIntegrity";
    /// Backup not started.
    pub const BACKUP_SKIPPED: &str = "SkippedTakingNewBackup";
    /// Jobs of a backup exist.
    pub const BACKUP_EXECUTOR_ENSURED: &str = "SuccessfullyEnsuredBackupExecutor";
    /// Jobs of a backup could not be made.
    pub const BACKUP_EXECUTOR_FAILED: &str = "FailedToEnsureBackupExecutor";
    /// Jobs of a restore exist.
    pub const RESTORE_EXECUTOR_ENSURED: &str = "SuccessfullyEnsuredRestoreExecutor";
    /// Job created.
    pub const RESTORE_JOB_CREATED: &str = "RestoreJobCreationSucceeded";
    /// Deadline exceeded.
    pub const DEADLINE_EXCEEDED: &str = "FailedToCompleteWithinDeadline";

    // Ours, of phases.
    /// Waiting for something named in the message.
    pub const PENDING: &str = "Pending";
    /// Resolving snapshots.
    pub const PREFLIGHT: &str = "Preflight";
    /// Running.
    pub const RUNNING: &str = "Running";
    /// All that was planned is restored.
    pub const SUCCEEDED: &str = "Succeeded";
    /// A member failed.
    pub const MEMBER_FAILED: &str = "MemberFailed";
    /// A member was not started because an earlier one failed.
    pub const NOT_STARTED: &str = "NotStarted";
    /// A field is declared but what it asks for is not built yet.
    pub const NOT_SUPPORTED: &str = "NotSupported";
    /// The object is not valid.
    pub const INVALID: &str = "Invalid";
    /// The object is larger than what is read of an object.
    pub const OBJECT_TOO_LARGE: &str = "ObjectTooLarge";
    /// Validation of the object did not end in time.
    pub const VALIDATION_TIMED_OUT: &str = "ValidationTimedOut";
    /// The invoker is paused.
    pub const PAUSED: &str = "Paused";
    /// More than one backup was due since the last that succeeded.
    pub const BACKUPS_LATE: &str = "BackupsLate";
    /// No more than one was.
    pub const BACKUPS_ON_TIME: &str = "BackupsOnTime";
    /// A session follows a failed one.
    pub const RETRIED: &str = "Retried";
    /// No session follows a failed one, although one was announced.
    pub const NOT_RETRIED: &str = "NotRetried";

    // Ours and Stash's, of conditions.
    /// The workload is being scaled to zero.
    pub const SCALING_DOWN: &str = "ScalingDown";
    /// The workload is scaled to zero, and its pods are waited for.
    pub const WAITING_FOR_PODS: &str = "WaitingForPods";
    /// The workload is scaled up again each time that it is scaled to zero.
    pub const SCALED_UP_AGAIN: &str = "ScaledUpAgain";
    /// The workload has no pod left.
    pub const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// The workload has its replicas back.
    pub const SCALED_BACK: &str = "ScaledBack";
    /// The workload stays at zero, because its data is half restored.
    pub const HELD_DOWN: &str = "HeldDown";
    /// The annotation of a workload that should say what it comes back to cannot be read.
    pub const HELD_DOWN_IGNORED: &str = "HeldDownIgnored";
    /// The pods stay during the restore.
    pub const NOT_QUIESCED: &str = "NotQuiesced";
    /// Another restore has the target.
    pub const TARGET_BUSY: &str = "TargetBusy";
    /// Claims are being made.
    pub const CREATING_CLAIMS: &str = "CreatingClaims";
    /// The claims are there.
    pub const CLAIMS_CREATED: &str = "ClaimsCreated";
    /// The workload went away while it was scaled to zero.
    pub const TARGET_GONE: &str = "TargetGone";
    /// Every host's snapshots are fixed.
    pub const SNAPSHOTS_RESOLVED: &str = "SnapshotsResolved";
    /// The snapshots of a repository were listed, and its Snapshots are those.
    pub const SNAPSHOTS_LISTED: &str = "SnapshotsListed";
    /// The repository was opened with its Secret and spec as they are.
    pub const REPOSITORY_OPENED: &str = "RepositoryOpened";
    /// The store was reached, and there is no repository in it yet: the first backup creates it.
    pub const REPOSITORY_NOT_CREATED: &str = "RepositoryNotCreated";
    /// Nobody has opened the repository since it was written, or its Secret or spec was changed.
    pub const NOT_OPENED: &str = "NotOpenedYet";
    /// The invoker is ready.
    pub const BACKUPS_CAN_BE_TAKEN: &str = "BackupsCanBeTaken";
    /// The result of a step does not fit a termination message.
    pub const OUTCOME_TOO_LARGE: &str = "OutcomeTooLarge";
    /// The run has more hosts, or its status would be larger, than an object can hold.
    pub const RUN_TOO_LARGE: &str = "RunTooLarge";
    /// Jobs that should ask a silent store did not run, so sessions try it for themselves.
    pub const PROBE_LOST: &str = "ProbeLost";
    /// The Repository could not be looked up.
    pub const REPOSITORY_UNKNOWN: &str = "UnableToCheckRepositoryAvailability";
    /// The Secret could not be looked up.
    pub const BACKEND_SECRET_UNKNOWN: &str = "UnableToCheckBackendSecretAvailability";
    /// The target could not be looked up.
    pub const TARGET_UNKNOWN: &str = "UnableToCheckTargetAvailability";

    // Ours, of failures.
    /// No snapshot for host, path or id.
    pub const SNAPSHOT_NOT_FOUND: &str = "SnapshotNotFound";
    /// The snapshot belongs to another host than the rule's.
    pub const SNAPSHOT_OF_ANOTHER_HOST: &str = "SnapshotOfAnotherHost";
    /// A path of the snapshot lies outside every mount of the target.
    pub const PATH_OUTSIDE_MOUNTS: &str = "PathOutsideMounts";
    /// A path to back up does not exist.
    pub const PATH_NOT_FOUND: &str = "PathNotFound";
    /// The restore would have written nothing.
    pub const NOTHING_TO_RESTORE: &str = "NothingToRestore";
    /// Fewer files were restored than planned.
    pub const INCOMPLETE: &str = "Incomplete";
    /// All is restored, but files that the snapshots do not have could not be deleted.
    pub const EXTRANEOUS_NOT_DELETED: &str = "ExtraneousNotDeleted";
    /// Files that the snapshots do not have were deleted, as the target asks for.
    pub const EXTRANEOUS_DELETED: &str = "ExtraneousDeleted";
    /// A volume from which a restore may delete is none of which it is known who else uses it.
    pub const EXTRANEOUS_NOT_POSSIBLE: &str = "ExtraneousNotPossible";
    /// Hosts of a run restore into one place of a volume, and one of them would delete what another one restores.
    pub const EXTRANEOUS_OF_ANOTHER: &str = "ExtraneousOfAnother";
    /// The repository does not exist (restic exit code 10).
    pub const REPOSITORY_MISSING: &str = "RepositoryMissing";
    /// The bucket does not exist.
    pub const BUCKET_MISSING: &str = "BucketMissing";
    /// The repository is locked (restic exit code 11).
    pub const REPOSITORY_LOCKED: &str = "RepositoryLocked";
    /// The password does not open the repository (restic exit code 12).
    pub const WRONG_PASSWORD: &str = "WrongPassword";
    /// The store refuses the credentials.
    pub const ACCESS_DENIED: &str = "AccessDenied";
    /// The store does not answer.
    pub const REPOSITORY_UNREACHABLE: &str = "RepositoryUnreachable";
    /// The store answers again.
    pub const REPOSITORY_REACHABLE: &str = "RepositoryReachable";
    /// As many Jobs as may be work on the Repository already.
    pub const REPOSITORY_BUSY: &str = "RepositoryBusy";
    /// The Repository is being deleted, but somebody uses it.
    pub const REPOSITORY_IN_USE: &str = "RepositoryInUse";
    /// Another invoker has the Repository, or a host in it.
    pub const REPOSITORY_TAKEN: &str = "RepositoryTaken";
    /// The data of a deleted Repository is being removed.
    pub const WIPING_OUT: &str = "WipingOut";
    /// The data of a deleted Repository stays, because another Repository's lies there.
    pub const DATA_SHARED: &str = "DataShared";
    /// The store's certificate is not trusted.
    pub const TLS_NOT_TRUSTED: &str = "CertificateNotTrusted";
    /// Data in the repository is damaged or missing.
    pub const DATA_CORRUPT: &str = "DataCorrupt";
    /// The target volume is full, or would be.
    pub const NO_SPACE: &str = "NoSpace";
    /// The Job may not give files their owners.
    pub const OWNERSHIP: &str = "OwnershipNotPossible";
    /// A file could not be read or written for lack of permission.
    pub const PERMISSION_DENIED: &str = "PermissionDenied";
    /// A key is missing in the backend Secret.
    pub const SECRET_INCOMPLETE: &str = "BackendSecretIncomplete";
    /// The agent was told to stop.
    pub const TERMINATED: &str = "Terminated";
    /// A step of the agent took longer than it may.
    pub const STEP_TIMEOUT: &str = "StepTimedOut";
    /// The data mover failed in a way not known.
    pub const RESTIC_FAILED: &str = "ResticFailed";
    /// The agent could not read its task or write its result.
    pub const AGENT_FAILED: &str = "AgentFailed";
    /// The container was killed for its memory use.
    pub const OOM_KILLED: &str = "OOMKilled";
    /// The image of the Job cannot be pulled or started.
    pub const IMAGE_UNAVAILABLE: &str = "ImageUnavailable";
    /// The kubelet evicted the pod for what it used.
    pub const EVICTED: &str = "Evicted";
    /// The cluster took the pod away: drained, preempted, shut down, or its node is gone.
    pub const DISRUPTED: &str = "Disrupted";
    /// The node of the pod does not answer.
    pub const NODE_LOST: &str = "NodeLost";
    /// The scratch volume is smaller than what restic keeps in it.
    pub const TEMP_DIR_FULL: &str = "TempDirFull";
    /// The name of the image is no name.
    pub const IMAGE_INVALID: &str = "ImageNameInvalid";
    /// The Pod Security level of the namespace forbids the pod.
    pub const POD_SECURITY: &str = "PodSecurityViolation";
    /// The Job gets no pod.
    pub const POD_NOT_CREATED: &str = "PodNotCreated";
    /// No node takes the pod.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// The container cannot be created (a volume, Secret or setting is missing).
    pub const CONTAINER_NOT_CREATED: &str = "ContainerNotCreated";
    /// A container that the cluster added before the agent failed.
    pub const INIT_CONTAINER_FAILED: &str = "InitContainerFailed";
    /// A path that is to be backed up is a symbolic link, or goes through one.
    pub const PATH_IS_LINK: &str = "PathIsLink";
    /// What --overwrite asks to keep would not be kept.
    pub const WOULD_NOT_BE_KEPT: &str = "WouldNotBeKept";
    /// A path that is to be backed up is neither a file nor a folder.
    pub const PATH_IS_NO_FILE: &str = "PathIsNoFile";
    /// Patterns or arguments of a backup leave a whole path out.
    pub const NOTHING_TO_BACK_UP: &str = "NothingToBackUp";
    /// Device files are to be restored, and the Job may make none.
    pub const DEVICES: &str = "DevicesNotPossible";
    /// Something is to be known of a host, though it is no failure.
    pub const HOST_WARNING: &str = "HostWarning";
    /// The Job ended without an outcome that could be read.
    pub const OUTCOME_LOST: &str = "OutcomeLost";
    /// The workload was scaled up by somebody else during the restore.
    pub const QUIESCE_BROKEN: &str = "QuiesceBroken";
    /// The spec was changed under the run.
    pub const SPEC_CHANGED: &str = "SpecChanged";
    /// The run is being canceled.
    pub const CANCELING: &str = "Canceling";
    /// The run was canceled before it had done all of it.
    pub const CANCELED: &str = "Canceled";
    /// A Job was stopped, but nobody can say whether it has ended.
    pub const JOB_NOT_STOPPED: &str = "JobNotStopped";
    /// The API server refused an object the operator made.
    pub const REFUSED_BY_API: &str = "RefusedByApiServer";
    /// A claim that was to be made is there already, and is not the restore's own.
    pub const CLAIM_EXISTS: &str = "ClaimExists";
    /// The API server does not let the operator take a right back.
    pub const RIGHT_NOT_TAKEN_BACK: &str = "RightNotTakenBack";
    /// A Job that was to be made is there already, and is not the session's own.
    pub const JOB_EXISTS: &str = "JobExists";
    /// A volume of the target cannot be reached by a Job.
    pub const VOLUME_NOT_REACHABLE: &str = "VolumeNotReachable";
}
}

/// Whether a label or annotation is how a tool tells what it owns (Argo CD, Flux, Helm, kubectl and the like).
/// On something the tool did not make, it would prune it, or call it changed. The one list: what is copied to a Job, a
/// claim, a session or a Snapshot goes past it.
pub fn is_tracker(key: &str) -> bool {
    const KEYS: [&str; 5] = [
        "app.kubernetes.io/created-by",
        "app.kubernetes.io/instance",
        label::MANAGED_BY,
        "kubectl.kubernetes.io/last-applied-configuration",
        "config.kubernetes.io/owning-inventory",
    ];
    const GROUPS: [&str; 9] = [
        "applyset.kubernetes.io",
        "argocd.argoproj.io",
        "config.k8s.io",
        "toolkit.fluxcd.io",
        "meta.helm.sh",
        "helm.sh",
        "kapp.k14s.io",
        "fleet.cattle.io",
        "objectset.rio.cattle.io",
    ];
    let group = key.split('/').next().unwrap_or_default();
    KEYS.contains(&key) || GROUPS.iter().any(|g| group == *g || group.ends_with(&format!(".{g}")))
}

/// Longest name of a child: Jobs put theirs into a label (63 characters).
const CHILD_NAME_MAX: usize = 63;
/// Hex digits of the hash in a child's name: 40 bits, one collision in a million at 1,400 children of one parent.
const CHILD_HASH_LEN: usize = 10;

/// Name of a child: readable prefix, then a hash over all `parts`. The same parts give the
/// same name, so creating twice is AlreadyExists and never a duplicate; long names are
/// hashed, never cut into a collision.
pub fn child_name(prefix: &str, parts: &[&str]) -> String {
    let hash = hash_of(parts);
    let room = CHILD_NAME_MAX - CHILD_HASH_LEN - 1;
    let clean: String = prefix
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(room)
        .collect();
    format!("{}-{hash}", clean.trim_matches('-'))
}

/// A label's value for any text: the text itself where it can be one, else what can be kept of it and a hash.
pub fn label_value(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: char| c.is_ascii_alphanumeric();
    let fine =
        text.len() <= CHILD_NAME_MAX && text.chars().all(plain) && text.starts_with(ends) && text.ends_with(ends);
    if fine {
        return text.to_owned();
    }
    let kept: String =
        text.chars().map(|c| if plain(c) { c } else { '-' }).take(CHILD_NAME_MAX - CHILD_HASH_LEN - 1).collect();
    let kept = kept.trim_matches(|c: char| !ends(c));
    let hash = hash_of(&[text]);
    if kept.is_empty() { hash } else { format!("{kept}-{hash}") }
}

/// Hash over parts, each length-delimited so that `["ab","c"]` and `["a","bc"]` differ.
pub fn hash_of(parts: &[&str]) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part.len().to_be_bytes());
        sha.update(part.as_bytes());
    }
    hex(&sha.finalize()[..CHILD_HASH_LEN / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_child_name_is_a_dns_label(prefix in ".{0,120}", a in ".{0,20}", b in ".{0,20}") {
            let name = child_name(&format!("x{prefix}"), &[&a, &b]);
            prop_assert!(name.len() <= 63);
            prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            prop_assert!(!name.starts_with('-') && !name.ends_with('-'));
        }
    }

    proptest! {
        #[test]
        fn a_label_value_is_one(text in ".{0,100}") {
            let value = label_value(&text);
            let ends = |c: char| c.is_ascii_alphanumeric();
            prop_assert!(value.len() <= 63 && value.starts_with(ends) && value.ends_with(ends));
            prop_assert!(value.chars().all(|c| ends(c) || "-_.".contains(c)));
        }
    }

    #[test]
    fn a_label_value_is_the_text_where_it_can_be() {
        assert_eq!(label_value("host-0.a_B"), "host-0.a_B");
        assert_ne!(label_value("a/b"), label_value("a:b"));
        assert!(label_value("a/b").starts_with("a-b-"));
    }

    #[test]
    fn parts_are_delimited() {
        assert_ne!(hash_of(&["ab", "c"]), hash_of(&["a", "bc"]));
        assert_eq!(child_name("stash-restore-Web.0", &["u"]), child_name("stash-restore-Web.0", &["u"]));
    }
}
