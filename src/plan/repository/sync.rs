//! When the Snapshots of a Repository are brought up to date: at first, after a backup, when
//! somebody asks, and now and then for what others did to the repository.
//!
//! That it is begun stands in status before the Job and its right are made, and what the Job
//! came to before they go.

#[cfg(test)]
mod tests;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Pass;
use crate::api::Condition;
use crate::api::repository::{SyncBegun, SyncStatus};
use crate::names::{condition, reason};
use crate::plan::access::{self, Access};
use crate::plan::contract::{Answer, Class, Failure, List, Step};
use crate::plan::pod_security::Level;
use crate::plan::step::{self, Lone, StepState};
use crate::plan::{conditions, retry, snapshots};

/// Key of the step.
const LIST: &str = "list";
/// Longest time until it has failed, further attempts included. Thousands of snapshots take a minute or two.
const LIMIT: SignedDuration = SignedDuration::from_mins(15);

/// After a listing that failed, the next one comes no sooner than this.
const SOONEST: SignedDuration = SignedDuration::from_mins(1);
/// What is said of a listing that failed, before why.
pub const OUT_OF_DATE: &str = "The Snapshots may be out of date: ";
/// Failures that every session would meet, too.
const OF_REPOSITORY: [&str; 7] = [
    reason::SECRET_INCOMPLETE,
    reason::WRONG_PASSWORD,
    reason::BUCKET_MISSING,
    reason::ACCESS_DENIED,
    reason::TLS_NOT_TRUSTED,
    reason::REPOSITORY_UNREACHABLE,
    reason::NOT_SUPPORTED,
];

/// Begins, goes on with, or ends bringing the Snapshots up to date.
pub fn advance(pass: &mut Pass<'_>, access: &Access) {
    let mut sync = pass.now.sync.clone().unwrap_or_default();
    match sync.begun.clone() {
        Some(begun) => go_on(pass, access, &mut sync, &begun),
        None => begin_when_due(pass, &mut sync),
    }
    pass.now.sync = Some(sync).filter(|s| *s != SyncStatus::default());
}

fn begin_when_due(pass: &mut Pass<'_>, sync: &mut SyncStatus) {
    // What the last one came to stands in status.
    for job in pass.seen.jobs.iter().filter(|j| j.key == LIST) {
        pass.plan.stop(Some(job));
    }
    let request = pass.run.sync_request.clone();
    let backup_time = pass.run.state.last_backup_time.clone();
    let asked = (request.is_some() && request != sync.request) || is_mended(pass);
    let wait = due(pass, sync).map(|due| retry::left(due, pass.at));
    if asked || backup_time != sync.backup_time || wait == Some(None) {
        let entry = step::entry(&mut pass.now.steps, LIST);
        if entry.done {
            step::begin_again(entry);
        }
        sync.begun = Some(SyncBegun { time: conditions::whole_second(pass.at), request, backup_time });
        let grant = pass.right_to_list().status;
        if !sync.grants.contains(&grant) {
            sync.grants.push(grant);
        }
        pass.plan.again = true;
        return;
    }
    if let Some(Some(wait)) = wait {
        pass.plan.look_again(wait);
    }
    pass.plan.revoke.append(&mut sync.grants);
}

/// When it is due by itself; `None` for never.
fn due(pass: &Pass<'_>, sync: &SyncStatus) -> Option<Timestamp> {
    let every = SignedDuration::try_from(pass.setup.sync_every).ok().filter(|e| !e.is_zero())?;
    let tried = sync.tried_time.as_ref().map_or(pass.at, |tried| tried.0);
    if sync.tried_time.is_none() {
        return Some(pass.at);
    }
    let failing_since = failure(&pass.run.state.conditions).map(|c| c.last_transition_time.0);
    // Each wait is as long as it has failed so far, so that the waits double.
    let wait = failing_since.map(|since| tried.duration_since(since).max(SOONEST).min(every));
    tried.checked_add(wait.unwrap_or(every)).ok()
}

/// The last listing failed, and the spec was changed since.
fn is_mended(pass: &Pass<'_>) -> bool {
    let state = &pass.run.state;
    failure(&state.conditions).is_some() && state.observed_generation != pass.run.id.generation
}

/// Why the repository could not be opened when it was last tried; none when it could, or was not tried yet.
pub fn failure(list: &[Condition]) -> Option<&Condition> {
    let of_repository = |c: &&Condition| c.reason.as_deref().is_some_and(|why| OF_REPOSITORY.contains(&why));
    list.iter().find(|c| c.type_ == condition::SNAPSHOTS_SYNCED && c.status == "False").filter(of_repository)
}

fn go_on(pass: &mut Pass<'_>, access: &Access, sync: &mut SyncStatus, begun: &SyncBegun) {
    let grant = pass.right_to_list().status;
    if !sync.grants.contains(&grant) {
        // Its account has changed. Nothing is made before that stands in status.
        sync.grants.push(grant);
        pass.plan.again = true;
        return;
    }
    let deadline = begun.time.0.checked_add(LIMIT).unwrap_or(Timestamp::MAX);
    let left = retry::left(deadline, pass.at);
    let attempt = step::entry(&mut pass.now.steps, LIST).attempt;
    let list = Step::List(List { labels: snapshots::own_labels(&pass.run.labels) });
    let job = pass.job(LIST, (attempt, 0), access, left.unwrap_or_default(), list);
    let planned = pass.plan.jobs.len();
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
    let failure = match lone.advance(LIST, |_, _| job) {
        StepState::Running => {
            if pass.plan.jobs.len() > planned {
                pass.plan.grants.push(pass.right_to_list());
            }
            return;
        }
        StepState::Done(outcome) => match outcome.answer {
            Some(Answer::Listed { snapshots, .. }) => {
                pass.now.snapshot_count = i64::try_from(snapshots).ok();
                pass.now.opened_store = pass.run.spec.backend.as_ref().and_then(access::store);
                None
            }
            _ => Some(Failure::new(Class::Fatal, reason::AGENT_FAILED, "The Job ended without a list.")),
        },
        StepState::Failed(failure) => Some(failure),
    };
    sync.request.clone_from(&begun.request);
    sync.backup_time.clone_from(&begun.backup_time);
    sync.begun = None;
    let now = conditions::whole_second(pass.at);
    sync.tried_time = Some(now.clone());
    conclude(pass, sync, now, failure);
    // The Job and its right go in the next pass, after this status is written.
    pass.plan.again = true;
}

fn conclude(pass: &mut Pass<'_>, sync: &mut SyncStatus, now: Time, failure: Option<Failure>) {
    let entry = step::entry(&mut pass.now.steps, LIST);
    entry.done = true;
    let last = entry.reason.take().zip(entry.message.take());
    let (value, why, text) = match failure {
        None => {
            sync.last_time = Some(now);
            let text = match pass.now.snapshot_count {
                Some(1) => "The repository has 1 snapshot.".to_owned(),
                count => format!("The repository has {} snapshots.", count.unwrap_or_default()),
            };
            (true, reason::SNAPSHOTS_LISTED.to_owned(), text)
        }
        Some(failure) => {
            // The deadline says less than what kept it from being met.
            let late = failure.reason == reason::DEADLINE_EXCEEDED;
            let (why, said) = last.filter(|_| late).unwrap_or((failure.reason, failure.message));
            let text = format!("{OUT_OF_DATE}{said}");
            pass.event(true, &why, &text);
            (false, why, text)
        }
    };
    conditions::set(&mut pass.now.conditions, condition::SNAPSHOTS_SYNCED, value, &why, text, pass.at);
}
