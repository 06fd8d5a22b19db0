//! Two restores of one target at once: one of them waits.
//!
//! Sessions do not know of each other, so each session looks at the unfinished sessions of its namespace. A session
//! that has begun goes on. Of the sessions that have not begun, the one that was created first goes first, unless it
//! waits for something that is missing. A session that has begun never waits for a target, so there is no deadlock.

use crate::api::restore_session::RestorePhase;
use crate::plan::restore::pass::Pass;
use crate::plan::restore::run::RestoreRun;
use crate::plan::restore::status::{is_started, member_is_over};
use crate::plan::run::hosts::{display, target_key};
use crate::plan::seen::job_status;
use crate::plan::seen::surroundings::Rival;
use crate::plan::seen::target::Reach;

/// Targets that a session has not finished. A target that it has not begun counts only if the session is about to
/// begin.
pub fn of(other: &RestoreRun) -> Vec<Rival> {
    if other.is_over() {
        return vec![];
    }
    // A session that waits for a Repository or a Secret may wait for a day. A session that was not reconciled yet is
    // about to begin.
    let about_to_begin = !other.is_leaving() && other.state.phase != Some(RestorePhase::Pending);
    let targets = other.targets();
    let member = |i: usize| other.state.members.get(i);
    let unfinished = targets.iter().enumerate().filter(|(i, _)| member(*i).is_none_or(|m| !member_is_over(m.phase)));
    unfinished
        .filter_map(|(i, target)| {
            let begun = member(i).is_some_and(is_started);
            (begun || about_to_begin).then_some(())?;
            let order = (other.id.created, other.id.uid.clone());
            let reference = target.clone()?;
            Some(Rival { session: other.id.label(), order, target: target_key(&reference)?, reference, begun })
        })
        .collect()
}

/// What a member that has not begun must wait for, if anything.
pub(super) fn ahead(pass: &Pass<'_>, index: usize) -> Option<String> {
    let target = target_key(&pass.now.members[index].ref_);
    let own = (pass.run.id.created, pass.run.id.uid.clone());
    let first = |r: &&Rival| Some(&r.target) == target.as_ref() && (r.begun || r.order < own);
    if let Some(rival) = pass.seen.rivals.iter().find(first) {
        let own = display(&pass.now.members[index].ref_);
        return Some(format!("{} also restores {own}; this session starts afterwards.", rival.session));
    }
    let reaches = pass.reaches.iter().filter(|((member, _), _)| *member == index);
    reaches.into_iter().find_map(|(_, reach)| elsewhere(pass, reach))
}

/// A Job that already writes to one of these claims, or reads it for a backup. The Job is of another session, or for
/// another host of this run.
pub(super) fn writing(pass: &Pass<'_>, own_key: &str, reach: &Reach) -> Option<String> {
    let jobs = pass.seen.jobs.iter().filter(|j| j.is_active() && j.key != own_key);
    let about_to = pass.plan.jobs.iter().map(|j| job_status::see(j, &[], pass.at));
    let own: Vec<String> = jobs.flat_map(|j| j.writes.clone()).chain(about_to.flat_map(|j| j.writes)).collect();
    let shared = reach.claims().find(|claim| own.iter().any(|c| c == claim));
    elsewhere(pass, reach).or(shared.map(|c| format!("Another host of this run writes to PersistentVolumeClaim {c}.")))
}

fn elsewhere(pass: &Pass<'_>, reach: &Reach) -> Option<String> {
    let other = pass.seen.writers.iter().find(|w| reach.claims().any(|c| c == w.claim))?;
    let does = if other.reads { "backs up" } else { "writes to" };
    Some(format!("{} {does} PersistentVolumeClaim {}; this session starts afterwards.", other.session, other.claim))
}
