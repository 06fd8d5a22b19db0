//! What happens next to a BackupConfiguration or BackupBatch: is it ready, and is a backup due.
//!
//! The schedule is computed from objects in the cluster. Status holds the time since which the schedule counts, and the
//! last scheduled time. A session's name contains the time for which the session is due, so a restart neither loses nor
//! duplicates a session. Of several missed times, only the newest is made up for, once. A time before the schedule was
//! written, or while it was paused, does not count as missed.

pub mod lateness;
mod ready;
pub mod seen;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::backup_session::BackupPhase;
use crate::api::common::{InvokerPhase, ScheduleInForce};
use crate::names::{condition, reason};
use crate::plan::backup::invoker::seen::{InvokerPlan, InvokerSeen, SessionSeen};
use crate::plan::backup::status::is_over;
use crate::plan::backup::{schedule, sessions};
use crate::plan::repository::preconditions;
use crate::plan::repository::preconditions::NoGround;
use crate::plan::run::conditions::{Health, Value};
use crate::plan::run::{conditions, missing};

/// Interval of checks for missing objects.
const LOOK_FOR_MISSING: Duration = Duration::from_secs(5);
/// Interval of checks on sessions that are not over.
const LOOK_AT_SESSIONS: Duration = Duration::from_secs(5);
/// Interval of checks on what keeps the invoker from being ready. Nothing waits for the result.
const LOOK_FOR_OBSTACLE: Duration = Duration::from_mins(1);
/// Interval of checks on a ready invoker: its targets may be deleted without an event for the invoker. A reconcile
/// reads only what is watched anyway, and sends no request to the API server.
const LOOK_AT_READY: Duration = Duration::from_mins(5);
/// Oldest missed time that is made up for. After a longer time, the backup is no longer the one that was scheduled.
const MISSED_HORIZON: Duration = Duration::from_hours(24);

/// How long a session that a user created is kept after its end, regardless of the history limit.
const KEPT_BY_HAND: Duration = Duration::from_hours(24);

/// What to do next about an invoker.
pub fn next(seen: &InvokerSeen<'_>, now: Timestamp) -> InvokerPlan {
    let mut list = seen.conditions.clone();
    let mut plan = InvokerPlan {
        create: None,
        delete: surplus(seen, now),
        phase: InvokerPhase::NotReady,
        has_ground: false,
        conditions: vec![],
        target_conditions: vec![],
        last: seen.last.clone(),
        next: None,
        in_force: seen.in_force.clone(),
        record: seen.record.clone(),
        events: vec![],
        requeue: None,
    };
    if let Some(refusal) = &seen.refusal {
        conditions::set(
            &mut list,
            condition::VALIDATION_PASSED,
            false,
            reason::VALIDATION_FAILED,
            &refusal.message,
            now,
        );
        conditions::set_health(&mut list, Health::Stalled, &refusal.reason, &refusal.message, now);
        plan.events.extend(missing::not_ready(&seen.conditions, &list));
        lateness::judge(seen, &mut plan, &mut list, now);
        return InvokerPlan { phase: InvokerPhase::Invalid, conditions: list, ..plan };
    }
    conditions::set(
        &mut list,
        condition::VALIDATION_PASSED,
        true,
        reason::VALIDATION_PASSED,
        "Successfully validated.",
        now,
    );
    ready::targets(seen, now, &mut plan);
    plan.in_force = in_force(seen, now);
    lateness::judge(seen, &mut plan, &mut list, now);
    let is_late = conditions::is(&list, condition::BACKUPS_LATE, Value::True);
    match preconditions::check(seen.reference, &seen.id.namespace, &seen.repository, &mut list, now) {
        Ok(access) => {
            plan.phase = InvokerPhase::Ready;
            plan.has_ground = true;
            schedule(seen, now, &mut plan);
            let text = match (seen.paused, is_late) {
                (true, _) => "Ready; scheduled backups are paused.",
                (false, true) => "Ready, but backups are late: see the condition BackupsLate.",
                (false, false) => "Ready to take backups.",
            };
            let why = if seen.paused { reason::PAUSED } else { reason::BACKUPS_CAN_BE_TAKEN };
            match ready::obstacle(seen, &plan, &access) {
                None => {
                    plan.look_again(LOOK_AT_READY);
                    conditions::set_health(&mut list, Health::Ready, why, text, now);
                }
                Some((why, text)) => {
                    plan.phase = InvokerPhase::NotReady;
                    plan.look_again(LOOK_FOR_OBSTACLE);
                    conditions::set_health(&mut list, Health::Reconciling, &why, &text, now);
                }
            }
        }
        Err(NoGround::Waiting(text)) => {
            plan.look_again(LOOK_FOR_MISSING);
            let why = missing::reason_of(&list, &text).unwrap_or(reason::PENDING).to_owned();
            conditions::set_health(&mut list, Health::Reconciling, &why, &text, now);
        }
        Err(NoGround::Denied(failure)) => {
            plan.look_again(LOOK_FOR_MISSING);
            conditions::set_health(&mut list, Health::Stalled, &failure.reason, &failure.message, now);
        }
        Err(NoGround::Refused(failure)) => {
            plan.phase = InvokerPhase::Invalid;
            conditions::set_health(&mut list, Health::Stalled, &failure.reason, &failure.message, now);
        }
    }
    let kept = seen.sessions.iter().filter(|s| is_over(s.phase)).filter_map(|s| s.kept_by_hand(now)).min();
    kept.into_iter().for_each(|wait| plan.look_again(wait));
    // The sessions to remove depend on sessions that another watch may show before the store contains them.
    if seen.sessions.iter().any(|s| !is_over(s.phase) || s.has_retry_due) {
        plan.look_again(LOOK_AT_SESSIONS);
    }
    plan.events.extend(missing::not_ready(&seen.conditions, &list));
    plan.conditions = list;
    plan
}

/// The schedule that is in force, and since when.
fn in_force(seen: &InvokerSeen<'_>, now: Timestamp) -> Option<ScheduleInForce> {
    let schedule = seen.schedule.filter(|s| !s.is_empty() && !seen.paused)?;
    let same = |f: &&ScheduleInForce| f.schedule == schedule && f.time_zone.as_deref() == seen.time_zone;
    let is_now = |f: &&ScheduleInForce| same(f) && schedule::latest(f, now).is_none_or(|latest| f.since.0 <= latest);
    Some(seen.in_force.as_ref().filter(is_now).cloned().unwrap_or_else(|| ScheduleInForce {
        schedule: schedule.to_owned(),
        time_zone: seen.time_zone.map(str::to_owned),
        since: conditions::whole_second(if seen.is_new { seen.created } else { now }),
    }))
}

/// Creates a session for the newest scheduled time that has passed, and sets the next scheduled time.
fn schedule(seen: &InvokerSeen<'_>, now: Timestamp, plan: &mut InvokerPlan) {
    let Some(in_force) = &plan.in_force else { return };
    let Some((schedule, zone)) = schedule::parsed(in_force) else { return };
    let latest = schedule::latest(in_force, now);
    let last = seen.last.as_ref().filter(|last| latest.is_none_or(|latest| last.0 <= latest));
    let since = last.map_or(in_force.since.0, |last| last.0.max(in_force.since.0));
    let due = schedule.newest(since, now.checked_sub(MISSED_HORIZON).unwrap_or(now), now, &zone);
    if let Some(due) = due {
        let retries = seen.retry.map(|r| r.max_retry.unwrap_or(1));
        plan.create = Some(sessions::scheduled(&seen.id, seen.first_target, due, retries));
        plan.last = Some(conditions::whole_second(due));
    }
    plan.next = schedule.upcoming(due.unwrap_or(since), now, &zone).map(conditions::whole_second);
    let until_next = plan.next.as_ref().and_then(|t| crate::plan::work::retry::left(t.0, now));
    until_next.into_iter().for_each(|wait| plan.look_again(wait));
}

/// Completed sessions beyond the history limit, newest first. The newest successful session is always kept. A failed
/// session is kept until its retry session exists. For a day, the limit does not count a session that a user created,
/// so that the user can read it.
fn surplus(seen: &InvokerSeen<'_>, now: Timestamp) -> Vec<String> {
    let mut done: Vec<&SessionSeen> = seen.sessions.iter().filter(|s| is_over(s.phase)).collect();
    done.sort_by(|a, b| (b.created, &b.name).cmp(&(a.created, &a.name)));
    let kept = usize::try_from(seen.history_limit.max(1)).unwrap_or(1);
    let success = done.iter().find(|s| s.phase == Some(BackupPhase::Succeeded)).map(|s| s.name.clone());
    let needed = |s: &&&SessionSeen| Some(&s.name) == success.as_ref() || s.has_retry_due;
    let counted = done.iter().filter(|s| s.kept_by_hand(now).is_none());
    counted.skip(kept).filter(|s| !needed(s)).map(|s| s.name.clone()).collect()
}

impl SessionSeen {
    /// Remaining time for which the session is kept because a user created it.
    fn kept_by_hand(&self, now: Timestamp) -> Option<Duration> {
        let end = self.ended.unwrap_or(self.created).checked_add(KEPT_BY_HAND).ok()?;
        crate::plan::work::retry::left(end, now).filter(|_| self.by_hand)
    }
}

#[cfg(test)]
mod tests;
