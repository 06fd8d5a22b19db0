//! A store that does not answer: one small Job probes it at intervals, for all sessions that wait.
//!
//! A session that finds the store silent only requests a probe: the session's own network may be at fault. A probe
//! opens the repository from the Repository's own namespace. Once a probe has found the store silent, no session starts
//! anything on it, and the store is probed again: once a minute while a session waits, at once when the spec or the
//! Secret has changed, and otherwise at growing intervals, for `Ready`. When a probe succeeds, or fails for a reason
//! that is an answer, all sessions go on. A probe that cannot run says nothing about the store. After a few such
//! probes, waiting sessions try for themselves, because their Jobs, with settings of their own, may be able to run.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::repository::{Reachability, RepositoryStatus};
use crate::names::{condition, hash_of, reason};
use crate::plan::repository::known::is_being_asked;
use crate::plan::repository::pass::{LOOK_FOR_MISSING, Pass};
use crate::plan::repository::{opened, pass};
use crate::plan::run::conditions;
use crate::plan::run::conditions::{Health, Value};
use crate::plan::systems::restic;
use crate::plan::systems::restic::backend::Access;
use crate::plan::work::attempt::Stand;
use crate::plan::work::{attempt, retry, step};
use crate::text;

/// Key of the step.
const PROBE: &str = "probe";
/// Longest time of a probe, its pod's start included. It opens a repository, and does nothing else.
const LIMIT: Duration = Duration::from_mins(3);

/// Number of consecutive probes without a result, after which waiting sessions try for themselves.
const MOST_LOST: i32 = 3;

/// Probes the store again when it is due. Returns true while the store does not answer.
pub fn advance(pass: &mut Pass<'_>, access: &Access) -> bool {
    if pass.now.reachability.is_none() && pass.now.probe_request_time.is_none() {
        drop_old(pass);
        return false;
    }
    let since = conditions::whole_second(pass.at);
    let unknown = || Reachability {
        reachable: true,
        since,
        message: None,
        last_probe_time: None,
        next_probe_time: None,
        asked_with: None,
    };
    let mut known = pass.now.reachability.clone().unwrap_or_else(unknown);
    drop_future(pass, &mut known);
    if is_being_asked(&pass.now) {
        probe(pass, access, &mut known);
    } else {
        drop_old(pass);
    }
    if known.reachable && has_worked(&pass.now, known.since.0) {
        known.message = None;
    }
    let silent = !known.reachable;
    let said = known.message.clone().unwrap_or_default();
    let list = &mut pass.now.conditions;
    if silent {
        conditions::set(list, condition::REACHABLE, false, reason::REPOSITORY_UNREACHABLE, &said, pass.at);
        let asked =
            if pass::every(pass).is_some() { "otherwise at doubling intervals" } else { "otherwise not at all" };
        let asked = format!(
            "One small Job checks it again: at once when the spec or the Secret changes, once a minute while a session waits, {asked}. No other Job is started until then."
        );
        pass.say(Health::Reconciling, reason::REPOSITORY_UNREACHABLE, &format!("{said} {asked}"));
    } else if known.message.is_some() {
        conditions::set(list, condition::REACHABLE, Value::Unknown, reason::PROBE_LOST, &said, pass.at);
    } else if known.last_probe_time.is_some() {
        let text = "The storage answers.";
        conditions::set(list, condition::REACHABLE, true, reason::REPOSITORY_REACHABLE, text, pass.at);
    }
    pass.now.reachability = Some(known);
    silent
}

/// Drops times of a clock that was ahead, so that nothing waits for them.
fn drop_future(pass: &Pass<'_>, known: &mut Reachability) {
    let latest = pass.at.checked_add(interval(pass)).unwrap_or(Timestamp::MAX);
    known.next_probe_time.take_if(|t| t.0 > latest);
    known.last_probe_time.take_if(|t| t.0 > latest);
    if known.since.0 > latest {
        known.since = conditions::whole_second(pass.at);
    }
}

fn interval(pass: &Pass<'_>) -> SignedDuration {
    SignedDuration::try_from(pass.setup.probe_interval).unwrap_or(SignedDuration::MAX)
}

/// Hash of what the store is probed with now, and of the request for its Snapshots. After a change of these, the known
/// result is outdated.
fn asked_with(pass: &Pass<'_>) -> String {
    let with = opened::with(pass);
    let parts = [with.secret_version, with.spec_hash, pass.run.sync_request.clone()].map(Option::unwrap_or_default);
    hash_of(&parts.each_ref().map(String::as_str))
}

/// When the next probe is due; `None` as long as the result is not needed.
fn due(pass: &Pass<'_>, known: &Reachability) -> Option<Timestamp> {
    if !known.reachable && known.asked_with.as_ref() != Some(&asked_with(pass)) {
        return Some(pass.at);
    }
    if pass.seen.waiting > 0 {
        return Some(known.next_probe_time.as_ref().map_or(pass.at, |t| t.0));
    }
    if known.reachable {
        return None;
    }
    // `Ready` says that the store does not answer: that must not stay so forever. As with failed listings, each wait is
    // as long as the silence so far.
    let every = pass::every(pass)?;
    let Some(last) = known.last_probe_time.as_ref().map(|t| t.0) else { return Some(pass.at) };
    let due = last.checked_add(last.duration_since(known.since.0).max(pass::SOONEST).min(every)).ok()?;
    // A probe without a result does not shorten the wait.
    Some(known.next_probe_time.as_ref().map_or(due, |t| due.max(t.0)))
}

fn probe(pass: &mut Pass<'_>, access: &Access, known: &mut Reachability) {
    let entry = step::entry(&mut pass.now.steps, PROBE);
    let (attempt, entry_lost) = (entry.attempt, entry.pod_deaths.unwrap_or_default());
    let mut lost = 0;
    let interval = interval(pass);
    match attempt::look(&mut pass.plan, &pass.seen.jobs, PROBE, attempt) {
        Stand::Active(_, held) => {
            if let Some(failure) = held.filter(|_| !known.reachable) {
                known.message = Some(cannot_ask(&failure.message));
            }
            return pass.plan.look_again(step::LOOK_AT_RUNNING);
        }
        Stand::Done(_, outcome) => match &outcome.failure {
            Some(f) if [reason::REPOSITORY_UNREACHABLE, reason::STEP_TIMEOUT].contains(&f.reason.as_str()) => {
                if known.reachable {
                    known.since = conditions::whole_second(pass.at);
                }
                known.reachable = false;
                known.message = Some(text::message(&f.message));
                known.last_probe_time = Some(conditions::whole_second(pass.at));
                // Not set if the operator crashed before it was written.
                known.asked_with.get_or_insert_with(|| asked_with(pass));
            }
            // The repository opened, or the store answered: each session that uses it gets the present error itself.
            _ => answered(pass, known),
        },
        // A Job without a result says nothing about the store.
        Stand::Lost(_, failure) => {
            lost = entry_lost.saturating_add(1);
            if !known.reachable {
                known.message = Some(cannot_ask(&failure.message));
            }
            if lost >= MOST_LOST {
                lost = 0;
                give_way(pass, known, &failure.message);
            }
        }
        Stand::Absent { .. } => {
            if pass.seen.waiting == 0 && !known.reachable {
                // No watch reports a corrected Secret.
                pass.plan.look_again(LOOK_FOR_MISSING);
            }
            // If the result is not needed, a new session wakes the Repository.
            let Some(due) = due(pass, known) else { return };
            if let Some(wait) = retry::left(due, pass.at) {
                pass.plan.look_again(wait);
            } else {
                known.asked_with = Some(asked_with(pass));
                known.next_probe_time = pass.at.checked_add(interval).ok().map(conditions::whole_second);
                let job = pass.job(PROBE, (attempt, 0), access, LIMIT, restic::repository::probe(access));
                pass.plan.jobs.push(job);
                pass.plan.look_again(step::LOOK_AT_RUNNING);
            }
            return;
        }
    }
    // The Job may have been created just before a crash, with no time written.
    let next = || pass.at.checked_add(interval).ok().map(conditions::whole_second);
    let is_open = !known.reachable || lost > 0;
    if is_open && known.next_probe_time.as_ref().is_none_or(|t| t.0 <= pass.at) {
        known.next_probe_time = next();
    }
    let entry = step::entry(&mut pass.now.steps, PROBE);
    step::begin_again(entry);
    // Kept in status, so that the count survives a restart.
    entry.pod_deaths = Some(lost).filter(|n| *n > 0);
    pass.plan.again = true;
}

fn cannot_ask(why: &str) -> String {
    text::message(&format!(
        "It is not known whether the storage answers, because the Job that checks it does not run: {why}"
    ))
}

/// Lets waiting sessions try for themselves. A session that finds the store silent says so, and probes begin again.
fn give_way(pass: &mut Pass<'_>, known: &mut Reachability, why: &str) {
    let said = format!(
        "{MOST_LOST} consecutive Jobs that check the storage did not run, so sessions use it without this check. Last: {why}"
    );
    let said = text::message(&said);
    pass.event(true, reason::PROBE_LOST, &said);
    *known = Reachability {
        reachable: true,
        since: conditions::whole_second(pass.at),
        message: Some(said),
        last_probe_time: Some(conditions::whole_second(pass.at)),
        next_probe_time: known.next_probe_time.clone(),
        asked_with: known.asked_with.clone(),
    };
}

/// Whether a listing or a backup succeeded after this time, so that the store is known to answer.
fn has_worked(status: &RepositoryStatus, since: Timestamp) -> bool {
    let listed = status.sync.as_ref().and_then(|s| s.last_time.as_ref());
    [listed, status.last_backup_time.as_ref()].into_iter().flatten().any(|t| t.0 > since)
}

fn answered(pass: &mut Pass<'_>, known: &mut Reachability) {
    let was_away = !known.reachable;
    let now = conditions::whole_second(pass.at);
    *known = Reachability {
        reachable: true,
        since: if was_away { now.clone() } else { known.since.clone() },
        message: None,
        last_probe_time: Some(now),
        // Kept, so that a store that comes and goes is not probed more often.
        next_probe_time: known.next_probe_time.clone().filter(|t: &Time| t.0 > pass.at),
        asked_with: known.asked_with.clone(),
    };
    if was_away {
        pass.event(false, reason::REPOSITORY_REACHABLE, "The storage answers again.");
    }
}

/// Removes probe Jobs whose result is in status.
fn drop_old(pass: &mut Pass<'_>) {
    let written = pass.run.state.steps.iter().find(|s| s.name == PROBE).map_or(0, |s| s.attempt);
    attempt::stop_earlier(&mut pass.plan, &pass.seen.jobs, PROBE, written);
}
