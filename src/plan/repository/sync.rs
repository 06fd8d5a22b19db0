//! When the Snapshots of a Repository are brought up to date: at first, after a backup, on request of a user, and at an
//! interval for what others did to the repository. An update opens the repository, so it also shows whether the
//! repository opens, see [`opened`].
//!
//! The start is written to status before the Job and its grant are created, and the result before they are deleted.

#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::repository::{SyncBegun, SyncStatus};
use crate::contract::{Class, Failure};
use crate::names::{condition, reason};
use crate::plan::effects::Listing;
use crate::plan::repository::pass::{BEING_LISTED, LIST, OUT_OF_DATE, Pass, SOONEST, every};
use crate::plan::repository::{known, opened, store_reasons};
use crate::plan::run::conditions;
use crate::plan::seen::identity::own_labels;
use crate::plan::seen::job_status::{JobSeen, JobState};
use crate::plan::systems::restic;
use crate::plan::systems::restic::backend;
use crate::plan::systems::restic::backend::Access;
use crate::plan::systems::restic::repository::Absent;
use crate::plan::work::pod_security::Level;
use crate::plan::work::step::{Lone, StepState};
use crate::plan::work::{retry, step};
use crate::text;

/// Deadline of an update, further attempts included. Thousands of snapshots take a minute or two.
const LIMIT: SignedDuration = SignedDuration::from_mins(15);

/// Longest time for which a store that was open is retried before its failure is reported. Repositories that wait for
/// their turn wait this long.
const PATIENCE: SignedDuration = SignedDuration::from_mins(1);
/// A Job that has not started after this long gives its turn to other Repositories.
const STUCK_AFTER: SignedDuration = SignedDuration::from_mins(2);
/// A Repository that waits for its turn is woken when the turn comes; this interval is for a missed wake-up.
const LOOK_FOR_TURN: Duration = Duration::from_mins(1);

/// Begins, continues, or ends an update of the Snapshots.
pub fn advance(pass: &mut Pass<'_>, access: &Access) {
    if known::is_not_created(&pass.now) && known::is_behind(&pass.now) {
        let list = &mut pass.now.conditions;
        conditions::set(list, condition::SNAPSHOTS_SYNCED, true, reason::SNAPSHOTS_LISTED, BEING_LISTED, pass.at);
    }
    let mut sync = pass.now.sync.clone().unwrap_or_default();
    match sync.begun.clone() {
        Some(begun) => go_on(pass, access, &mut sync, &begun),
        None => begin_when_due(pass, &mut sync),
    }
    pass.now.sync = Some(sync).filter(|s| *s != SyncStatus::default());
}

fn begin_when_due(pass: &mut Pass<'_>, sync: &mut SyncStatus) {
    // The result of the last Job is in status.
    for job in pass.seen.jobs.iter().filter(|j| j.key == LIST) {
        pass.plan.stop(Some(job));
    }
    let request = pass.run.sync_request.clone();
    let backup_time = known::wished(&pass.run.state);
    let asked = request.is_some() && request != sync.request || backup_time != sync.backup_time;
    let due = [due(pass, sync), opened::due(pass, sync)].into_iter().flatten().min();
    let wait = due.map(|due| retry::left(due, pass.at));
    let wanted = asked || wait == Some(None);
    if wanted && pass.seen.may_list {
        let entry = step::entry(&mut pass.now.steps, LIST);
        if entry.done {
            step::begin_again(entry);
        }
        let with = Some(opened::with(pass));
        sync.begun = Some(SyncBegun { time: conditions::whole_second(pass.at), request, backup_time, with });
        let grant = pass.right_to_list().status;
        if !sync.grants.contains(&grant) {
            sync.grants.push(grant);
        }
        pass.plan.listing = Listing::Works;
        pass.plan.again = true;
        return;
    }
    if wanted {
        pass.plan.listing = Listing::Wants;
        pass.plan.look_again(LOOK_FOR_TURN);
    } else if let Some(Some(wait)) = wait {
        pass.plan.look_again(wait);
    }
    opened::look_again(pass);
    pass.plan.revoke.append(&mut sync.grants);
}

/// When an update is due without a request.
fn due(pass: &Pass<'_>, sync: &SyncStatus) -> Option<Timestamp> {
    let every = every(pass)?;
    // A time of a clock that was ahead does not count.
    let latest = pass.at.checked_add(SOONEST).unwrap_or(Timestamp::MAX);
    let tried = sync.tried_time.as_ref().map(|tried| tried.0).filter(|tried| *tried <= latest);
    let Some(tried) = tried else { return Some(pass.at) };
    let list = &pass.run.state.conditions;
    let failing = list.iter().find(|c| c.type_ == condition::SNAPSHOTS_SYNCED && c.status == "False");
    // Each wait is as long as the listing has failed so far, so the waits double.
    let wait = failing.map(|c| tried.duration_since(c.last_transition_time.0).max(SOONEST).min(every));
    tried.checked_add(wait.unwrap_or(every)).ok()
}

fn go_on(pass: &mut Pass<'_>, access: &Access, sync: &mut SyncStatus, begun: &SyncBegun) {
    let grant = pass.right_to_list().status;
    if !sync.grants.contains(&grant) {
        // The Job's service account has changed. Nothing is created before that is in status.
        sync.grants.push(grant);
        if pass.seen.jobs.iter().all(|j| j.key != LIST) {
            sync.begun = Some(SyncBegun { with: Some(opened::with(pass)), ..begun.clone() });
        }
        pass.plan.listing = Listing::Works;
        pass.plan.again = true;
        return;
    }
    let deadline = begun.time.0.checked_add(LIMIT).unwrap_or(Timestamp::MAX);
    let left = retry::left(deadline, pass.at);
    let attempt = step::entry(&mut pass.now.steps, LIST).attempt;
    pass.plan.listing = if is_stuck(pass, begun) { Listing::None } else { Listing::Works };
    let list = restic::repository::list(access, own_labels(&pass.run.labels));
    let job = pass.job(LIST, (attempt, 0), access, left.unwrap_or_default(), list);
    let planned = pass.plan.jobs.len();
    let patience = if opened::is_open(pass, sync) { PATIENCE } else { SignedDuration::ZERO };
    let lone = Lone {
        run: &pass.run.id.uid,
        at: pass.at,
        expired: left.is_none(),
        pod_security: Level::Privileged,
        jobs: &pass.seen.jobs,
        steps: &mut pass.now.steps,
        gate: None,
        plan: &mut pass.plan,
    };
    let result = match lone.advance(LIST, |_, _| job) {
        StepState::Running if is_shut(pass, attempt) && pass.at.duration_since(begun.time.0) >= patience => {
            let entry = step::entry(&mut pass.now.steps, LIST);
            let (why, text) = (entry.reason.take().unwrap_or_default(), entry.message.take().unwrap_or_default());
            Err(Failure::new(Class::Transient, &why, text))
        }
        StepState::Running => {
            if pass.plan.jobs.len() > planned {
                pass.plan.grants.push(pass.right_to_list());
            }
            return;
        }
        StepState::Done(outcome) => match restic::repository::listed(&outcome) {
            Some((snapshots, absent)) => found(pass, sync, begun, snapshots, absent),
            None => Err(Failure::new(Class::Fatal, reason::AGENT_FAILED, "The Job ended without a list.")),
        },
        StepState::Failed(failure) => Err(failure),
    };
    sync.request.clone_from(&begun.request);
    sync.backup_time.clone_from(&begun.backup_time);
    sync.tried.clone_from(&begun.with);
    sync.begun = None;
    pass.plan.listing = Listing::None;
    let now = conditions::whole_second(pass.at);
    sync.tried_time = Some(now.clone());
    conclude(pass, sync, now, result);
    // The Job and its grant are deleted in the next pass, after this status is written.
    pass.plan.again = true;
}

/// Records the result of a listing.
fn found(
    pass: &mut Pass<'_>,
    sync: &mut SyncStatus,
    begun: &SyncBegun,
    snapshots: u64,
    absent: Option<Absent>,
) -> Result<Option<Absent>, Failure> {
    // Whether the spec is the one with which the Job began.
    let is_here = begun.with.as_ref().is_none_or(|with| with.spec_hash == opened::with(pass).spec_hash);
    let is_new = known::wished(&pass.now) == begun.backup_time;
    if absent.is_some() && is_here && is_new && known::was_here(&pass.run.spec, Some(&pass.now)) {
        // A Job that an earlier version of the operator created does not know that a repository was there.
        let text = "There is no repository any more, and there was one before.";
        return Err(Failure::new(Class::Invalid, reason::REPOSITORY_MISSING, text));
    }
    pass.now.snapshot_count = i64::try_from(snapshots).ok();
    sync.opened.clone_from(&begun.with);
    if let Some(backend) = pass.run.spec.backend.as_ref().filter(|_| is_here) {
        pass.now.opened_store = backend::store(backend);
        if absent.is_none() {
            pass.now.known_place = backend::place(backend);
        } else if is_new {
            // Integrity and size are those of another place.
            (pass.now.integrity, pass.now.total_size) = (None, None);
        }
    }
    Ok(absent)
}

/// Whether the Job has not started for a while. It then does not keep other Repositories waiting for their turn.
fn is_stuck(pass: &Pass<'_>, begun: &SyncBegun) -> bool {
    let stuck = |j: &JobSeen| j.key == LIST && matches!(&j.state, JobState::Active { held: Some(_) });
    pass.at.duration_since(begun.time.0) > STUCK_AFTER && pass.seen.jobs.iter().any(stuck)
}

/// Whether this attempt has failed for a reason that every session would meet, and another attempt is to follow.
fn is_shut(pass: &Pass<'_>, attempt: i32) -> bool {
    let entry = pass.now.steps.iter().find(|s| s.name == LIST && s.attempt > attempt);
    entry.and_then(|s| s.reason.as_deref()).is_some_and(store_reasons::is_of_store)
}

fn conclude(pass: &mut Pass<'_>, sync: &mut SyncStatus, now: Time, result: Result<Option<Absent>, Failure>) {
    let entry = step::entry(&mut pass.now.steps, LIST);
    entry.done = true;
    let last = entry.reason.take().zip(entry.message.take());
    let (value, why, text) = match result {
        // The snapshots of the last backup were not there yet.
        Ok(Some(_)) if known::wished(&pass.now) != sync.backup_time => {
            sync.last_time = Some(now);
            (true, reason::SNAPSHOTS_LISTED.to_owned(), BEING_LISTED.to_owned())
        }
        Ok(absent) => {
            sync.last_time = Some(now);
            let why = if absent.is_some() { reason::REPOSITORY_NOT_CREATED } else { reason::SNAPSHOTS_LISTED };
            let text = match (absent, pass.now.snapshot_count.unwrap_or_default()) {
                (Some(Absent::Repository), _) => "There is no repository yet: the first backup creates it.".to_owned(),
                (Some(Absent::Bucket), _) => {
                    "There is no bucket yet: the first backup creates it, and the repository in it.".to_owned()
                }
                (None, 0) => "The repository holds no snapshots.".to_owned(),
                (None, count) => format!("The repository has {}.", text::count(count, "snapshot", "snapshots")),
            };
            (true, why.to_owned(), text)
        }
        Err(failure) => {
            // The last failure says more than the missed deadline.
            let late = failure.reason == reason::DEADLINE_EXCEEDED;
            let (why, said) = last.filter(|_| late).unwrap_or((failure.reason, failure.message));
            let text = told(pass, sync, &why, said);
            let before = pass.run.state.conditions.iter().find(|c| c.type_ == condition::SNAPSHOTS_SYNCED);
            if before.is_none_or(|c| c.status != "False" || c.reason.as_deref() != Some(&why)) {
                pass.event(true, &why, &text);
            }
            (false, why, text)
        }
    };
    conditions::set(&mut pass.now.conditions, condition::SNAPSHOTS_SYNCED, value, &why, text, pass.at);
}

/// Message for a failed listing: why it failed, and what that means for the Snapshots that were listed before.
fn told(pass: &mut Pass<'_>, sync: &SyncStatus, why: &str, said: String) -> String {
    if known::is_loss(why) && known::was_here(&pass.run.spec, Some(&pass.now)) {
        pass.now.known_place = pass.run.spec.backend.as_ref().and_then(backend::place);
        return format!("{} {}", text::sentence(&said), known::last_seen(&pass.now));
    }
    let is_listed = sync.last_time.is_some() && pass.now.snapshot_count.is_some_and(|count| count > 0);
    if is_listed { format!("{}{OUT_OF_DATE}", text::sentence(&said)) } else { said }
}
