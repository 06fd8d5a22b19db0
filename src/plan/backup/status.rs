//! What the status of a backup says of its members and hosts.

use crate::api::backup_session::{
    BackupHostPhase, BackupPhase, BackupSessionStatus, BackupTargetPhase, BackupTargetStatus, HostBackupStats,
};
use crate::names::condition;

/// Whether the retry session of a failed session is still to be created.
pub fn has_retry_due(state: &BackupSessionStatus) -> bool {
    state.phase == Some(BackupPhase::Failed) && state.next_retry.is_some() && state.retried.is_none()
}

/// Whether a session has ended.
pub fn is_over(phase: Option<BackupPhase>) -> bool {
    matches!(phase, Some(BackupPhase::Succeeded | BackupPhase::Failed | BackupPhase::Skipped))
}

/// How messages name a member.
pub fn label(index: usize, status: &BackupTargetStatus) -> String {
    let name = status.alias.clone().or_else(|| status.ref_.as_ref()?.name.clone()).unwrap_or_default();
    format!("member {index} ({name})")
}

/// Whether a member has ended.
pub fn member_is_over(status: &BackupTargetStatus) -> bool {
    matches!(status.phase, Some(BackupTargetPhase::Succeeded | BackupTargetPhase::Failed | BackupTargetPhase::Skipped))
}

/// Whether a host has ended.
pub fn host_is_over(host: &HostBackupStats) -> bool {
    matches!(host.phase, Some(BackupHostPhase::Succeeded | BackupHostPhase::Failed))
}

/// Whether the teardown was begun because of a cancel. A cancel cannot be undone.
pub fn is_being_canceled(state: &BackupSessionStatus) -> bool {
    !is_over(state.phase) && state.conditions.iter().any(|c| c.type_ == condition::CANCELED)
}
