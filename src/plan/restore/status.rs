//! What the status of a restore says of its members and hosts, and how a member's status is closed.

use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::{HostPhase, HostRestoreStats, MemberPhase, QuiesceState, RestorePhase};
use crate::contract::Part;
use crate::names::annotation;
use crate::plan::run::hosts::display;

/// The verb of the Jobs that restore, of every system, and the beginning of their keys.
pub const RESTORE: &str = "restore";

/// Key of a host's restore within the run.
pub fn key(member: usize, host: &str) -> String {
    format!("{RESTORE}/{member}/{host}")
}

/// A host, as it is passed to Jobs.
pub fn part(member: usize, host: &str) -> Part {
    Part { member, name: host.to_owned() }
}

/// Whether a restore in this phase is over.
pub fn is_final(phase: Option<RestorePhase>) -> bool {
    matches!(phase, Some(RestorePhase::Succeeded | RestorePhase::Failed | RestorePhase::Invalid))
}

/// How messages name a member: by alias and place.
pub fn member_label(index: usize, status: &RestoreMemberStatus) -> String {
    let name = status.alias.clone().or_else(|| status.ref_.name.clone()).unwrap_or_default();
    format!("member {index} ({name})")
}

/// Whether the snapshots that a host is restored from are pinned.
pub fn is_pinned(host: &HostRestoreStats) -> bool {
    !host.snapshots.is_empty()
}

/// Whether a host will not change any more.
pub fn is_over(phase: Option<HostPhase>) -> bool {
    matches!(phase, Some(HostPhase::Succeeded | HostPhase::Failed))
}

/// Whether a member will not change any more.
pub fn member_is_over(phase: Option<MemberPhase>) -> bool {
    matches!(phase, Some(MemberPhase::Succeeded | MemberPhase::Failed | MemberPhase::Skipped))
}

/// Ends a member that cannot go on.
pub fn fail_member(status: &mut RestoreMemberStatus, text: &str) {
    status.phase = Some(MemberPhase::Failed);
    status.message = Some(text.to_owned());
}

/// Whether data of the member may have been touched, or its workload scaled.
pub fn is_started(status: &RestoreMemberStatus) -> bool {
    status.quiesce.is_some() || status.stats.iter().any(|h| h.attempt.is_some())
}

/// Whether a user or another controller scaled its workload up during the restore.
pub fn is_broken(status: &RestoreMemberStatus) -> bool {
    status.quiesce.as_ref().is_some_and(|q| q.state == QuiesceState::Broken)
}

/// Sets the member's phase once all its hosts are over and its workload is back.
pub fn close(status: &mut RestoreMemberStatus) {
    let failed: Vec<String> = status
        .stats
        .iter()
        .filter(|h| h.phase == Some(HostPhase::Failed))
        .map(|h| format!("host {}: {}", h.hostname, h.error.clone().unwrap_or_default()))
        .collect();
    if failed.is_empty() && is_broken(status) {
        let before = status.quiesce.as_ref().map_or(0, |q| q.replicas);
        let text = format!(
            "The data was written, but a user or another controller scaled the workload up during the restore, so it may have read or overwritten partial data. It had {} before the restore. Restore again, and make sure that the workload is not scaled.",
            crate::text::replicas(before)
        );
        fail_member(status, &text);
    } else if failed.is_empty() {
        status.phase = Some(MemberPhase::Succeeded);
        status.message = None;
    } else {
        let stays = held_text(status).map(|text| format!(" {text}")).unwrap_or_default();
        let failed: Vec<&str> = failed.iter().map(|text| text.trim_end_matches('.')).collect();
        fail_member(status, &format!("{}.{stays}", failed.join("; ")));
    }
}

/// Whether a member's workload was left at zero.
pub fn is_held(status: &RestoreMemberStatus) -> bool {
    status.quiesce.as_ref().is_some_and(|q| q.state == QuiesceState::Held)
}

/// Message about a workload that was left at zero.
pub fn held_text(status: &RestoreMemberStatus) -> Option<String> {
    let quiesce = status.quiesce.as_ref().filter(|q| q.state == QuiesceState::Held)?;
    let (name, replicas) = (display(&quiesce.ref_), quiesce.replicas);
    Some(match replicas {
        0 => format!(
            "{name} has half-restored data, and had 0 replicas: restore it again before you scale it up, or remove its annotation {}.",
            annotation::HELD_DOWN
        ),
        _ => format!(
            "{name} stays at 0 replicas and had {replicas}: restore it again, or scale it up by hand and remove its annotation {}.",
            annotation::HELD_DOWN
        ),
    })
}

/// The same for all members, each workload once, to be appended to another text.
pub fn held_texts(members: &[RestoreMemberStatus]) -> String {
    let mut all: Vec<String> = members.iter().filter_map(held_text).collect();
    all.dedup();
    all.iter().map(|t| format!(" {t}")).collect()
}
