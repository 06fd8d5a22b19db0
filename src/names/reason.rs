//! Reasons, PascalCase, of conditions, events and failures.

/// Declares constants, and the list of them.
macro_rules! listed {
    ($($(#[$doc:meta])* pub const $name:ident: &str = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $value;)*
        /// All reasons.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

listed! {
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
    /// An application does not answer.
    pub const APPLICATION_UNREACHABLE: &str = "ApplicationUnreachable";
    /// An application answers with an error that is not known.
    pub const APPLICATION_FAILED: &str = "ApplicationFailed";
    /// Other clients are connected to an application that is to be loaded.
    pub const APPLICATION_IN_USE: &str = "ApplicationInUse";
    /// The image of the Job does not have the clients of the application.
    pub const CLIENT_MISSING: &str = "ClientMissing";
    /// An application does not accept the credentials, or its certificate is not trusted.
    pub const LOGIN_FAILED: &str = "LoginFailed";
    /// The user of an application does not have the required rights.
    pub const PRIVILEGE_MISSING: &str = "PrivilegeMissing";
    /// The volume of the server of an application is full.
    pub const SERVER_DISK_FULL: &str = "ServerDiskFull";
    /// Another client holds a lock for too long.
    pub const LOCK_TIMEOUT: &str = "LockTimeout";
    /// A server is newer than the clients in the image of the Job.
    pub const SERVER_TOO_NEW: &str = "ServerTooNew";
    /// A dump is of a newer version than the server.
    pub const DUMP_TOO_NEW: &str = "DumpTooNew";
    /// A client failed to dump an application.
    pub const DUMP_FAILED: &str = "DumpFailed";
    /// A dump cannot be read to its end, or is not the one that was made.
    pub const DUMP_INCOMPLETE: &str = "DumpIncomplete";
    /// A snapshot is not a dump of this application.
    pub const WRONG_DUMP: &str = "WrongDump";
    /// A client failed to load a dump.
    pub const LOAD_FAILED: &str = "LoadFailed";
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
