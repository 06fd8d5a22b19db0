//! Names: groups, labels, finalizers, condition types, reasons and the names of children.
//!
//! Condition types and most reasons are those of Stash, because scripts read them. This module makes no decisions and
//! does no I/O.

use sha2::{Digest, Sha256};

use crate::digest::hex;

/// API group of the kinds that users write.
pub const GROUP: &str = "stash.appscode.com";
/// API group of Snapshot.
pub const SNAPSHOT_GROUP: &str = "repositories.stash.appscode.com";
/// Field manager of the Job that writes Snapshots.
pub const SNAPSHOT_MANAGER: &str = "lifeboat-list";
/// Field manager of everything the operator applies.
pub const MANAGER: &str = "lifeboat";
/// Finalizer on sessions, kept until no Job runs and every workload is scaled back; and on Repositories that are in
/// use, kept until no object uses them.
pub const FINALIZER: &str = "lifeboat.stash.appscode.com/run";
/// Finalizer that Stash set on sessions and backup configurations; removed when the object is deleted.
pub const FINALIZER_OF_STASH: &str = "stash.appscode.com";
/// Finalizer that Stash sets on a Repository; removed together with [`FINALIZER`].
pub const STASH_REPOSITORY_FINALIZER: &str = "stash";
/// Name of the operator: Deployment, reporter of events, component label.
pub const OPERATOR: &str = "lifeboat";
/// Name of the task that means "the files of this PVC", for backup.
pub const TASK_PVC_BACKUP: &str = "pvc-backup";
/// Name of the task that means "the files of this PVC", for restore.
pub const TASK_PVC_RESTORE: &str = "pvc-restore";
/// Mount path of a PVC whose target has no volume mounts (Stash's default).
pub const PVC_MOUNT: &str = "/stash-data";

/// Lifeboat's container in a Job's pod; it has only one.
pub const AGENT_CONTAINER: &str = "agent";

/// Volumes of a Job's pod; a prefix distinguishes them from volumes of the user.
pub mod volume {
    /// The repository's password and credentials.
    pub const SECRET: &str = "lifeboat-repository-secret";
    /// Cache and temporary files; the kubelet reports this name when the volume is full.
    pub const WORK: &str = "lifeboat-work";
    /// Volume in which the folders of a restore without mounts are created.
    pub const RESTORE_ROOT: &str = "lifeboat-restore-root";
    /// A repository that is on a volume.
    pub const REPOSITORY: &str = "lifeboat-repository";
    /// The PVC for cache and temporary files, with the name that Stash uses.
    pub const INTERIM: &str = "stash-interim-volume";
    /// The token of a ServiceAccount that was created for the Job.
    pub const TOKEN: &str = "lifeboat-token";
}

/// Labels on everything the operator creates.
pub mod label {
    /// Standard label; [`MANAGED_BY_VALUE`].
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Stash's value, which users use in selectors.
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
    /// Kind of the target of a BackupSession; for a batch, the kind of its first member.
    pub const TARGET_KIND: &str = "stash.appscode.com/target-kind";
    /// Name of the target of a BackupSession.
    pub const TARGET_NAME: &str = "stash.appscode.com/target-name";
    /// Namespace of the target of a BackupSession.
    pub const TARGET_NAMESPACE: &str = "stash.appscode.com/target-namespace";
    /// On a Namespace, "true": fields that run code or add privileges are accepted there from any author.
    pub const ALLOW_CODE: &str = "lifeboat.stash.appscode.com/allow-code";
}

pub mod annotation;

/// Condition types.
pub mod condition {
    /// The Repository exists and may be used.
    pub const REPOSITORY_FOUND: &str = "RepositoryFound";
    /// The backend Secret exists and has the required keys.
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
    /// The run exceeded its deadline.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// Extension: the run was canceled; False while it is being stopped.
    pub const CANCELED: &str = "Canceled";
    /// Extension: every host's snapshots are resolved and pinned in status.
    pub const SNAPSHOTS_PINNED: &str = "SnapshotsPinned";
    /// Extension: the workload is scaled to zero during the restore.
    pub const QUIESCED: &str = "Quiesced";
    /// Extension: the workload has its former replicas; set only if the API server rejected the scale.
    pub const SCALED_BACK: &str = "ScaledBack";
    /// Extension: the PVCs of the member's templates exist.
    pub const CLAIMS_CREATED: &str = "ClaimsCreated";
    /// Extension: more than one backup was due since the last that succeeded.
    pub const BACKUPS_LATE: &str = "BackupsLate";
    /// Extension: the Snapshots of a Repository match the snapshots in the repository.
    pub const SNAPSHOTS_SYNCED: &str = "SnapshotsSynced";
    /// Extension: the storage of a Repository answers.
    pub const REACHABLE: &str = "Reachable";
    /// kstatus: the spec is fully applied.
    pub const READY: &str = "Ready";
    /// kstatus: in progress.
    pub const RECONCILING: &str = "Reconciling";
    /// kstatus: failed, and not retried.
    pub const STALLED: &str = "Stalled";
}

/// Declares constants, and the list of them.
macro_rules! listed {
    ($(#[$of:meta])* pub mod $module:ident { $($(#[$doc:meta])* pub const $name:ident: &str = $value:literal;)* }) => {
        $(#[$of])*
        pub mod $module {
            $($(#[$doc])* pub const $name: &str = $value;)*
            /// All constants of this module.
            pub const ALL: &[&str] = &[$($name),*];
        }
    };
}

listed! {
/// Reasons, PascalCase, of conditions, events and failures.
pub mod reason {
    // Reasons of Stash, for conditions.
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
    /// Jobs of a backup could not be created.
    pub const BACKUP_EXECUTOR_FAILED: &str = "FailedToEnsureBackupExecutor";
    /// Jobs of a restore exist.
    pub const RESTORE_EXECUTOR_ENSURED: &str = "SuccessfullyEnsuredRestoreExecutor";
    /// Job created.
    pub const RESTORE_JOB_CREATED: &str = "RestoreJobCreationSucceeded";
    /// Deadline exceeded.
    pub const DEADLINE_EXCEEDED: &str = "FailedToCompleteWithinDeadline";

    // Reasons of Lifeboat, for phases.
    /// Waits for the object that the message names.
    pub const PENDING: &str = "Pending";
    /// Resolving snapshots.
    pub const PREFLIGHT: &str = "Preflight";
    /// Running.
    pub const RUNNING: &str = "Running";
    /// Everything that was planned is restored.
    pub const SUCCEEDED: &str = "Succeeded";
    /// A member failed.
    pub const MEMBER_FAILED: &str = "MemberFailed";
    /// A member was not started because an earlier one failed.
    pub const NOT_STARTED: &str = "NotStarted";
    /// A field is declared, but its feature is not implemented.
    pub const NOT_SUPPORTED: &str = "NotSupported";
    /// The object is not valid.
    pub const INVALID: &str = "Invalid";
    /// The object exceeds the size limit.
    pub const OBJECT_TOO_LARGE: &str = "ObjectTooLarge";
    /// Validation of the object took too long.
    pub const VALIDATION_TIMED_OUT: &str = "ValidationTimedOut";
    /// The invoker is paused.
    pub const PAUSED: &str = "Paused";
    /// More than one backup was due since the last that succeeded.
    pub const BACKUPS_LATE: &str = "BackupsLate";
    /// No more than one backup was due.
    pub const BACKUPS_ON_TIME: &str = "BackupsOnTime";
    /// A retry of a failed session was created.
    pub const RETRIED: &str = "Retried";
    /// No retry of a failed session was created, although it was announced.
    pub const NOT_RETRIED: &str = "NotRetried";

    // Reasons of Lifeboat and Stash, for conditions.
    /// The workload is being scaled to zero.
    pub const SCALING_DOWN: &str = "ScalingDown";
    /// The workload is scaled to zero, and its pods still run.
    pub const WAITING_FOR_PODS: &str = "WaitingForPods";
    /// A user or controller scales the workload up each time it is scaled to zero.
    pub const SCALED_UP_AGAIN: &str = "ScaledUpAgain";
    /// The workload has no pods.
    pub const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// The workload has its former replicas.
    pub const SCALED_BACK: &str = "ScaledBack";
    /// The workload stays at zero, because its data is half restored.
    pub const HELD_DOWN: &str = "HeldDown";
    /// The annotation of a workload with its former replicas cannot be read.
    pub const HELD_DOWN_IGNORED: &str = "HeldDownIgnored";
    /// Pods keep running during the restore.
    pub const NOT_QUIESCED: &str = "NotQuiesced";
    /// Another session uses the target.
    pub const TARGET_BUSY: &str = "TargetBusy";
    /// PVCs are being created.
    pub const CREATING_CLAIMS: &str = "CreatingClaims";
    /// The PVCs exist.
    pub const CLAIMS_CREATED: &str = "ClaimsCreated";
    /// The workload was deleted while it was scaled to zero.
    pub const TARGET_GONE: &str = "TargetGone";
    /// The snapshots of every host are pinned.
    pub const SNAPSHOTS_RESOLVED: &str = "SnapshotsResolved";
    /// The snapshots of a repository were listed, and its Snapshots updated.
    pub const SNAPSHOTS_LISTED: &str = "SnapshotsListed";
    /// The repository was opened with its current Secret and spec.
    pub const REPOSITORY_OPENED: &str = "RepositoryOpened";
    /// The storage answers and has no repository yet: the first backup creates it.
    pub const REPOSITORY_NOT_CREATED: &str = "RepositoryNotCreated";
    /// The repository was not opened since the object was created, or since its Secret or spec changed.
    pub const NOT_OPENED: &str = "NotOpenedYet";
    /// The invoker is ready.
    pub const BACKUPS_CAN_BE_TAKEN: &str = "BackupsCanBeTaken";
    /// The result of a step does not fit a termination message.
    pub const OUTCOME_TOO_LARGE: &str = "OutcomeTooLarge";
    /// The run has too many hosts, or its status would be too large for an object.
    pub const RUN_TOO_LARGE: &str = "RunTooLarge";
    /// Jobs that check storage that did not answer did not run, so sessions use it without this check.
    pub const PROBE_LOST: &str = "ProbeLost";
    /// The Repository could not be looked up.
    pub const REPOSITORY_UNKNOWN: &str = "UnableToCheckRepositoryAvailability";
    /// The Secret could not be looked up.
    pub const BACKEND_SECRET_UNKNOWN: &str = "UnableToCheckBackendSecretAvailability";
    /// The target could not be looked up.
    pub const TARGET_UNKNOWN: &str = "UnableToCheckTargetAvailability";

    // Reasons of Lifeboat, for failures.
    /// No snapshot for host, path or id.
    pub const SNAPSHOT_NOT_FOUND: &str = "SnapshotNotFound";
    /// The snapshot belongs to another host than the rule's.
    pub const SNAPSHOT_OF_ANOTHER_HOST: &str = "SnapshotOfAnotherHost";
    /// A path of the snapshot is outside of all mounts of the target.
    pub const PATH_OUTSIDE_MOUNTS: &str = "PathOutsideMounts";
    /// A path to back up does not exist.
    pub const PATH_NOT_FOUND: &str = "PathNotFound";
    /// The restore would have written nothing.
    pub const NOTHING_TO_RESTORE: &str = "NothingToRestore";
    /// Fewer files were restored than planned.
    pub const INCOMPLETE: &str = "Incomplete";
    /// Everything is restored, but files that are not in the snapshots could not be deleted.
    pub const EXTRANEOUS_NOT_DELETED: &str = "ExtraneousNotDeleted";
    /// Files that are not in the snapshots were deleted, because of `extraneous: Delete`.
    pub const EXTRANEOUS_DELETED: &str = "ExtraneousDeleted";
    /// `extraneous: Delete` on a volume whose other users are not known.
    pub const EXTRANEOUS_NOT_POSSIBLE: &str = "ExtraneousNotPossible";
    /// Hosts of a run restore into one folder of a volume, and one would delete files that another one restores.
    pub const EXTRANEOUS_OF_ANOTHER: &str = "ExtraneousOfAnother";
    /// The repository does not exist (restic exit code 10).
    pub const REPOSITORY_MISSING: &str = "RepositoryMissing";
    /// The bucket does not exist.
    pub const BUCKET_MISSING: &str = "BucketMissing";
    /// The repository is locked (restic exit code 11).
    pub const REPOSITORY_LOCKED: &str = "RepositoryLocked";
    /// The password does not open the repository (restic exit code 12).
    pub const WRONG_PASSWORD: &str = "WrongPassword";
    /// The storage rejects the credentials.
    pub const ACCESS_DENIED: &str = "AccessDenied";
    /// The storage does not answer.
    pub const REPOSITORY_UNREACHABLE: &str = "RepositoryUnreachable";
    /// The storage answers again.
    pub const REPOSITORY_REACHABLE: &str = "RepositoryReachable";
    /// No slot for a Job of the Repository is free.
    pub const REPOSITORY_BUSY: &str = "RepositoryBusy";
    /// A system outside of the cluster has no free slot for another Job now.
    pub const SYSTEM_BUSY: &str = "SystemBusy";
    /// The Repository is being deleted, but is in use.
    pub const REPOSITORY_IN_USE: &str = "RepositoryInUse";
    /// Another invoker uses the Repository, or a host in it.
    pub const REPOSITORY_TAKEN: &str = "RepositoryTaken";
    /// The data of a deleted Repository is being removed.
    pub const WIPING_OUT: &str = "WipingOut";
    /// The data of a deleted Repository is kept, because it may belong to another Repository.
    pub const DATA_SHARED: &str = "DataShared";
    /// The certificate of the storage is not trusted.
    pub const TLS_NOT_TRUSTED: &str = "CertificateNotTrusted";
    /// Data in the repository is damaged or missing.
    pub const DATA_CORRUPT: &str = "DataCorrupt";
    /// The target volume is full, or does not have enough space.
    pub const NO_SPACE: &str = "NoSpace";
    /// The Job may not set the owners of files.
    pub const OWNERSHIP: &str = "OwnershipNotPossible";
    /// A file could not be read or written because of missing permissions.
    pub const PERMISSION_DENIED: &str = "PermissionDenied";
    /// A key is missing in the backend Secret.
    pub const SECRET_INCOMPLETE: &str = "BackendSecretIncomplete";
    /// The agent received a signal to stop.
    pub const TERMINATED: &str = "Terminated";
    /// A step of the agent took too long.
    pub const STEP_TIMEOUT: &str = "StepTimedOut";
    /// restic failed for an unknown reason.
    pub const RESTIC_FAILED: &str = "ResticFailed";
    /// The agent could not read its task or write its result.
    pub const AGENT_FAILED: &str = "AgentFailed";
    /// The container ran out of memory.
    pub const OOM_KILLED: &str = "OOMKilled";
    /// The image of the Job cannot be pulled or started.
    pub const IMAGE_UNAVAILABLE: &str = "ImageUnavailable";
    /// The kubelet evicted the pod because of its usage, or because of node pressure.
    pub const EVICTED: &str = "Evicted";
    /// The cluster removed the pod: drain, preemption, shutdown, or its node no longer exists.
    pub const DISRUPTED: &str = "Disrupted";
    /// The node of the pod does not respond.
    pub const NODE_LOST: &str = "NodeLost";
    /// The scratch volume is smaller than the cache of restic.
    pub const TEMP_DIR_FULL: &str = "TempDirFull";
    /// The name of the image is not valid.
    pub const IMAGE_INVALID: &str = "ImageNameInvalid";
    /// The Pod Security level of the namespace does not allow the pod.
    pub const POD_SECURITY: &str = "PodSecurityViolation";
    /// The pod of the Job is not created.
    pub const POD_NOT_CREATED: &str = "PodNotCreated";
    /// The pod cannot be scheduled.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// The container cannot be created (a volume, Secret or setting is missing).
    pub const CONTAINER_NOT_CREATED: &str = "ContainerNotCreated";
    /// An init container that a policy of the cluster added failed.
    pub const INIT_CONTAINER_FAILED: &str = "InitContainerFailed";
    /// A path is a symbolic link, or leads through one.
    pub const PATH_IS_LINK: &str = "PathIsLink";
    /// restic would not keep a file that `--overwrite` requires to keep.
    pub const WOULD_NOT_BE_KEPT: &str = "WouldNotBeKept";
    /// A path is neither a file nor a folder.
    pub const PATH_IS_NO_FILE: &str = "PathIsNoFile";
    /// Patterns or arguments of a backup exclude a whole path.
    pub const NOTHING_TO_BACK_UP: &str = "NothingToBackUp";
    /// Device files are selected, and the Job may not create them.
    pub const DEVICES: &str = "DevicesNotPossible";
    /// A host has a warning, which does not fail it.
    pub const HOST_WARNING: &str = "HostWarning";
    /// The Job ended without a readable outcome.
    pub const OUTCOME_LOST: &str = "OutcomeLost";
    /// A user or another controller scaled the workload up during the restore.
    pub const QUIESCE_BROKEN: &str = "QuiesceBroken";
    /// The spec was changed during the run.
    pub const SPEC_CHANGED: &str = "SpecChanged";
    /// The run is being canceled.
    pub const CANCELING: &str = "Canceling";
    /// The run was canceled before it had ended.
    pub const CANCELED: &str = "Canceled";
    /// A Job was stopped, but it is not known whether it has ended.
    pub const JOB_NOT_STOPPED: &str = "JobNotStopped";
    /// The API server rejected an object of the operator.
    pub const REFUSED_BY_API: &str = "RefusedByApiServer";
    /// A PVC to be created already exists, and was not created by this restore.
    pub const CLAIM_EXISTS: &str = "ClaimExists";
    /// The API server does not allow the operator to revoke a permission.
    pub const RIGHT_NOT_TAKEN_BACK: &str = "RightNotTakenBack";
    /// A Job to be created already exists, and was not created by this session.
    pub const JOB_EXISTS: &str = "JobExists";
    /// A Job cannot mount a volume of the target.
    pub const VOLUME_NOT_REACHABLE: &str = "VolumeNotReachable";
}
}

/// Whether a tool (Argo CD, Flux, Helm, kubectl and similar) uses a label or annotation to track its objects. On an
/// object that the tool did not create, it would prune the object, or report a difference. This is the only list:
/// labels that are copied to a Job, a PVC, a session or a Snapshot are checked against it.
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

/// Maximum length of a child's name: the name of a Job is also a label value (63 characters).
const CHILD_NAME_MAX: usize = 63;
/// Hex digits of the hash in a child's name: 40 bits, one collision in a million at 1,400 children of one parent.
const CHILD_HASH_LEN: usize = 10;

/// Name of a child: readable prefix, then a hash over all `parts`. The same parts give the same name, so a second
/// creation fails with AlreadyExists and never creates a duplicate. A long name is cut, and its hash prevents
/// collisions.
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

/// Label value for any text: the text itself if it is a valid value, otherwise its valid characters and a hash.
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
