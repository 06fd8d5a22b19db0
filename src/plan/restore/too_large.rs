//! Checks whether a restore is too large for its own status, before anything is touched.
//!
//! The preflight, which only reads, finds out how many snapshots a host is restored from. Until then the rules say how
//! many there will be at least. A run that has begun goes on: only members that have not begun are refused then.

use crate::api::restore_session::{HostRestoreStats, RestorePhase};
use crate::api::target::RestoreTarget;
use crate::api::to_json;
use crate::names::{condition, reason};
use crate::plan::restore::conclude;
use crate::plan::restore::pass::Pass;
use crate::plan::restore::status::{fail_member, is_started, member_is_over};
use crate::plan::run::conditions;
use crate::plan::run::hosts::rule_for;
use crate::plan::run::size::Size;

/// Refuses the run, or its members that have not begun, if it is too large. True if this ends the run.
pub fn refuse(pass: &mut Pass<'_>) -> bool {
    let is_open = |pass: &Pass<'_>, i: usize| {
        let member = &pass.now.members[i];
        !member_is_over(member.phase) && !is_started(member) && !member.stats.is_empty()
    };
    let open: Vec<usize> = (0..pass.now.members.len()).filter(|i| is_open(pass, *i)).collect();
    if open.is_empty() {
        return false;
    }
    let Some(text) = size(pass).restore_refusal() else { return false };
    let begun = pass.now.members.iter().any(is_started);
    for (index, status) in pass.now.members.iter_mut().enumerate() {
        let ends = !begun && !member_is_over(status.phase);
        if !ends && !open.contains(&index) {
            continue;
        }
        // The list of its hosts is what is too long.
        status.stats.clear();
        let (list, why) = (&mut status.conditions, reason::RUN_TOO_LARGE);
        conditions::set(list, condition::RESTORE_EXECUTOR_ENSURED, false, why, &text, pass.at);
        fail_member(status, &text);
    }
    if !begun {
        conclude::end(pass, RestorePhase::Failed, reason::RUN_TOO_LARGE, &format!("{text} Nothing was changed."));
    }
    !begun
}

fn size(pass: &Pass<'_>) -> Size {
    // What was taken from a BackupBatch is in status, once.
    let taken = pass.now.adopted.as_ref().map(|a| to_json(a).to_string().len() / 2);
    let written = taken.unwrap_or_else(|| to_json(&pass.run.members).to_string().len());
    let mut size = Size { members: pass.now.members.len(), written, ..Size::default() };
    for (status, member) in pass.now.members.iter().zip(&pass.run.members) {
        for host in &status.stats {
            let paths = member.target.as_ref().map(|t| paths(host, t)).unwrap_or_default();
            size.add_host(&host.hostname, host.node.as_deref(), paths);
        }
    }
    size
}

/// Bytes of the path of each snapshot: of the pinned snapshots, or of those that the rule names.
fn paths(host: &HostRestoreStats, target: &RestoreTarget) -> Vec<usize> {
    if !host.snapshots.is_empty() {
        return host.snapshots.iter().map(|s| s.path.as_ref().map_or(0, String::len)).collect();
    }
    let Some(rule) = rule_for(&target.rules, &host.hostname) else { return vec![] };
    if rule.paths.is_empty() {
        vec![0; rule.snapshots.len().max(target.volume_mounts.len()).max(1)]
    } else {
        rule.paths.iter().map(String::len).collect()
    }
}
