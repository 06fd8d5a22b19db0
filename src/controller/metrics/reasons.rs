//! Reasons as label values: those that there are, and one for all others.
//!
//! A reason may be what a Job said. Whoever can make a Job say something must not be able to fill Prometheus with series.

use crate::names::reason;

/// What is said of a reason that nobody knows.
const OTHER: &str = "Other";

/// Every reason.
const ALL: [&str; 118] = [
    reason::REPOSITORY_AVAILABLE,
    reason::REPOSITORY_NOT_AVAILABLE,
    reason::REPOSITORY_NOT_ALLOWED,
    reason::BACKEND_SECRET_AVAILABLE,
    reason::BACKEND_SECRET_NOT_AVAILABLE,
    reason::VALIDATION_PASSED,
    reason::VALIDATION_FAILED,
    reason::TARGET_AVAILABLE,
    reason::TARGET_NOT_AVAILABLE,
    reason::BACKEND_REPOSITORY_FOUND,
    reason::BACKEND_REPOSITORY_FAILED,
    reason::RETENTION_APPLIED,
    reason::RETENTION_FAILED,
    reason::INTEGRITY_VERIFIED,
    reason::INTEGRITY_FAILED,
    reason::BACKUP_SKIPPED,
    reason::BACKUP_EXECUTOR_ENSURED,
    reason::BACKUP_EXECUTOR_FAILED,
    reason::RESTORE_EXECUTOR_ENSURED,
    reason::RESTORE_JOB_CREATED,
    reason::DEADLINE_EXCEEDED,
    reason::PENDING,
    reason::PREFLIGHT,
    reason::RUNNING,
    reason::SUCCEEDED,
    reason::MEMBER_FAILED,
    reason::NOT_STARTED,
    reason::NOT_SUPPORTED,
    reason::INVALID,
    reason::OBJECT_TOO_LARGE,
    reason::VALIDATION_TIMED_OUT,
    reason::PAUSED,
    reason::BACKUPS_LATE,
    reason::BACKUPS_ON_TIME,
    reason::RETRIED,
    reason::NOT_RETRIED,
    reason::SCALING_DOWN,
    reason::SCALED_UP_AGAIN,
    reason::SCALED_TO_ZERO,
    reason::SCALED_BACK,
    reason::HELD_DOWN,
    reason::HELD_DOWN_IGNORED,
    reason::NOT_QUIESCED,
    reason::TARGET_BUSY,
    reason::CREATING_CLAIMS,
    reason::CLAIMS_CREATED,
    reason::TARGET_GONE,
    reason::SNAPSHOTS_RESOLVED,
    reason::SNAPSHOTS_LISTED,
    reason::BACKUPS_CAN_BE_TAKEN,
    reason::OUTCOME_TOO_LARGE,
    reason::RUN_TOO_LARGE,
    reason::PROBE_LOST,
    reason::REPOSITORY_UNKNOWN,
    reason::BACKEND_SECRET_UNKNOWN,
    reason::TARGET_UNKNOWN,
    reason::SNAPSHOT_NOT_FOUND,
    reason::SNAPSHOT_OF_ANOTHER_HOST,
    reason::PATH_OUTSIDE_MOUNTS,
    reason::PATH_NOT_FOUND,
    reason::NOTHING_TO_RESTORE,
    reason::INCOMPLETE,
    reason::REPOSITORY_MISSING,
    reason::BUCKET_MISSING,
    reason::REPOSITORY_LOCKED,
    reason::WRONG_PASSWORD,
    reason::ACCESS_DENIED,
    reason::REPOSITORY_UNREACHABLE,
    reason::REPOSITORY_REACHABLE,
    reason::REPOSITORY_BUSY,
    reason::REPOSITORY_IN_USE,
    reason::REPOSITORY_TAKEN,
    reason::WIPING_OUT,
    reason::DATA_SHARED,
    reason::TLS_NOT_TRUSTED,
    reason::DATA_CORRUPT,
    reason::NO_SPACE,
    reason::OWNERSHIP,
    reason::PERMISSION_DENIED,
    reason::SECRET_INCOMPLETE,
    reason::TERMINATED,
    reason::STEP_TIMEOUT,
    reason::RESTIC_FAILED,
    reason::AGENT_FAILED,
    reason::OOM_KILLED,
    reason::IMAGE_UNAVAILABLE,
    reason::EVICTED,
    reason::DISRUPTED,
    reason::NODE_LOST,
    reason::TEMP_DIR_FULL,
    reason::IMAGE_INVALID,
    reason::POD_SECURITY,
    reason::POD_NOT_CREATED,
    reason::UNSCHEDULABLE,
    reason::CONTAINER_NOT_CREATED,
    reason::INIT_CONTAINER_FAILED,
    reason::PATH_IS_LINK,
    reason::DEVICES,
    reason::HOST_WARNING,
    reason::OUTCOME_LOST,
    reason::QUIESCE_BROKEN,
    reason::SPEC_CHANGED,
    reason::CANCELING,
    reason::CANCELED,
    reason::JOB_NOT_STOPPED,
    reason::REFUSED_BY_API,
    reason::CLAIM_EXISTS,
    reason::RIGHT_NOT_TAKEN_BACK,
    reason::JOB_EXISTS,
    reason::VOLUME_NOT_REACHABLE,
    reason::REPOSITORY_OPENED,
    reason::REPOSITORY_NOT_CREATED,
    reason::NOT_OPENED,
    reason::EXTRANEOUS_NOT_DELETED,
    reason::EXTRANEOUS_DELETED,
    reason::EXTRANEOUS_OF_ANOTHER,
    reason::PATH_IS_NO_FILE,
    reason::NOTHING_TO_BACK_UP,
];

/// The reason itself, or `Other`.
pub fn known(reason: &str) -> &'static str {
    ALL.iter().find(|known| **known == reason).copied().unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_known_and_nothing_else() {
        let names = include_str!("../../names.rs");
        let module = names.split("pub mod reason {").nth(1).unwrap().split("\n}").next().unwrap();
        let all = module.lines().filter_map(|l| l.trim().strip_prefix("pub const ")?.split_once(": &str = "));
        let values: Vec<&str> = all.map(|(_, value)| value.trim_matches(['"', ';'])).collect();
        assert!(values.len() > 40);
        for value in &values {
            assert_eq!(known(value), *value, "it is not in the list");
        }
        assert_eq!(values.len(), ALL.len());
        assert_eq!(known("DataCorrupt\"} 1"), OTHER);
    }
}
