//! What happens next to a BackupConfiguration or BackupBatch: is it ready, and is a backup due.
//!
//! The schedule is computed from what is in the cluster: the last scheduled time
//! stands in status, and a session's name is made of the time it is due for, so
//! that a restart neither loses nor doubles one. Of several times that were
//! missed, the newest is made up for, once.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;

use super::backup::is_over;
use super::conditions::{self, Health, Value};
use super::ground::{self, NoGround};
use super::observed::{Refusal, RepositorySeen, Seen};
use super::schedule::Schedule;
use super::target::TargetSeen;
use crate::api::Condition;
use crate::api::backup_session::BackupPhase;
use crate::api::common::{InvokerPhase, RepositoryRef};
use crate::names::{condition, reason};

/// Missing things are looked for this often.
const LOOK_FOR_MISSING: Duration = Duration::from_secs(5);
/// A missing target is looked for this often: nothing waits for it.
const LOOK_FOR_TARGET: Duration = Duration::from_mins(1);
/// How far back a missed time is made up for. Longer ago, the backup it asked for is no longer what it was.
const MISSED_HORIZON: Duration = Duration::from_hours(24);

/// An invoker as it was found.
#[derive(Clone, Debug)]
pub struct InvokerSeen<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its generation.
    pub generation: Option<i64>,
    /// When it was created.
    pub created: Timestamp,
    /// Its schedule.
    pub schedule: Option<&'a str>,
    /// No scheduled backups.
    pub paused: bool,
    /// Its Repository's reference.
    pub reference: Option<&'a RepositoryRef>,
    /// Completed sessions to keep.
    pub history_limit: i32,
    /// Why it is not valid.
    pub refusal: Option<Refusal>,
    /// Its Repository.
    pub repository: Seen<RepositorySeen>,
    /// What it backs up, as it was found, with how messages name each.
    pub targets: Vec<(String, TargetSeen)>,
    /// Conditions of each target as last written.
    pub target_conditions: Vec<Vec<Condition>>,
    /// Its sessions.
    pub sessions: Vec<SessionSeen>,
    /// Conditions as last written.
    pub conditions: Vec<Condition>,
    /// The last scheduled time as last written.
    pub last: Option<Time>,
}

/// A session of an invoker.
#[derive(Clone, Debug)]
pub struct SessionSeen {
    /// Name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// Its phase.
    pub phase: Option<BackupPhase>,
}

/// What to do about an invoker.
#[derive(Clone, Debug)]
pub struct InvokerPlan {
    /// Name of a session to create.
    pub create: Option<String>,
    /// Sessions to delete.
    pub delete: Vec<String>,
    /// Its phase.
    pub phase: InvokerPhase,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// Conditions of each target.
    pub target_conditions: Vec<Vec<Condition>>,
    /// The last scheduled time.
    pub last: Option<Time>,
    /// The next scheduled time.
    pub next: Option<Time>,
    /// When to look again.
    pub requeue: Option<Duration>,
}

/// What to do next about an invoker.
pub fn next(seen: &InvokerSeen<'_>, now: Timestamp) -> InvokerPlan {
    let mut list = seen.conditions.clone();
    let mut plan = InvokerPlan {
        create: None,
        delete: surplus(seen),
        phase: InvokerPhase::NotReady,
        conditions: vec![],
        target_conditions: vec![],
        last: seen.last.clone(),
        next: None,
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
    targets(seen, now, &mut plan);
    match ground::check(seen.reference, seen.namespace, &seen.repository, &mut list, now) {
        Ok(_) => {
            plan.phase = InvokerPhase::Ready;
            schedule(seen, now, &mut plan);
            let text = if seen.paused { "Ready; scheduled backups are paused." } else { "Ready to take backups." };
            conditions::set_health(
                &mut list,
                Health::Ready,
                if seen.paused { reason::PAUSED } else { reason::BACKUPS_CAN_BE_TAKEN },
                text,
                now,
            );
        }
        Err(NoGround::Waiting(text)) => {
            plan.requeue = Some(LOOK_FOR_MISSING);
            conditions::set_health(&mut list, Health::Reconciling, reason::PENDING, &text, now);
        }
        Err(NoGround::Denied(failure)) => {
            plan.requeue = Some(LOOK_FOR_MISSING);
            conditions::set_health(&mut list, Health::Stalled, &failure.reason, &failure.message, now);
        }
        Err(NoGround::Refused(failure)) => {
            plan.phase = InvokerPhase::Invalid;
            conditions::set_health(&mut list, Health::Stalled, &failure.reason, &failure.message, now);
        }
    }
    plan.conditions = list;
    plan
}

/// Says of each target whether it is there. One that is missing holds up no schedule: it may be there in time.
fn targets(seen: &InvokerSeen<'_>, now: Timestamp, plan: &mut InvokerPlan) {
    for (index, (name, target)) in seen.targets.iter().enumerate() {
        let mut list = seen.target_conditions.get(index).cloned().unwrap_or_default();
        let (value, why, text) = match target {
            TargetSeen::Found(_) => (Value::True, reason::TARGET_AVAILABLE, format!("Backup target {name} found.")),
            TargetSeen::Missing(_) => {
                (Value::False, reason::TARGET_NOT_AVAILABLE, format!("Backup target {name} does not exist."))
            }
            TargetSeen::Unknown(e) => (Value::Unknown, reason::TARGET_UNKNOWN, format!("Backup target {name}: {e}")),
        };
        if value != Value::True {
            plan.requeue = Some(LOOK_FOR_TARGET);
        }
        conditions::set(&mut list, condition::BACKUP_TARGET_FOUND, value, why, text, now);
        plan.target_conditions.push(list);
    }
}

/// Makes up for the newest time that has come, and says when the next one does.
fn schedule(seen: &InvokerSeen<'_>, now: Timestamp, plan: &mut InvokerPlan) {
    let Some(schedule) = seen.schedule.filter(|s| !s.is_empty() && !seen.paused).and_then(|s| Schedule::parse(s).ok())
    else {
        return;
    };
    let horizon = now.checked_sub(MISSED_HORIZON).unwrap_or(now);
    let mut from = seen.last.as_ref().map_or(seen.created, |t| t.0).max(horizon);
    let mut due = None;
    while let Some(time) = schedule.next(from, &TimeZone::UTC).filter(|t| *t <= now) {
        due = Some(time);
        from = time;
    }
    if let Some(due) = due {
        plan.create = Some(session_name(seen.name, due));
        plan.last = Some(conditions::whole_second(due));
    }
    plan.next = schedule.next(now, &TimeZone::UTC).map(conditions::whole_second);
    let until_next = plan.next.as_ref().and_then(|t| super::retry::left(t.0, now));
    plan.requeue = [plan.requeue, until_next].into_iter().flatten().min();
}

/// Name of the session of a scheduled time: the same time, the same name.
fn session_name(invoker: &str, due: Timestamp) -> String {
    let plain = format!("{invoker}-{}", due.as_second());
    if plain.len() <= 63 { plain } else { crate::names::child_name(invoker, &[invoker, &due.as_second().to_string()]) }
}

/// Completed sessions beyond the limit, oldest first. The newest success is always kept.
fn surplus(seen: &InvokerSeen<'_>) -> Vec<String> {
    let mut done: Vec<&SessionSeen> = seen.sessions.iter().filter(|s| is_over(s.phase)).collect();
    done.sort_by(|a, b| (b.created, &b.name).cmp(&(a.created, &a.name)));
    let kept = usize::try_from(seen.history_limit.max(1)).unwrap_or(1);
    let success = done.iter().find(|s| s.phase == Some(BackupPhase::Succeeded)).map(|s| s.name.clone());
    done.iter().skip(kept).filter(|s| Some(&s.name) != success.as_ref()).map(|s| s.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn seen(last: Option<i64>) -> InvokerSeen<'static> {
        let spec = serde_json::from_value(
            serde_json::json!({ "backend": { "storageSecretName": "s", "s3": { "endpoint": "e", "bucket": "bkt" } } }),
        )
        .unwrap();
        InvokerSeen {
            namespace: "n",
            name: "b",
            generation: Some(1),
            created: at(0),
            schedule: Some("*/5 * * * *"),
            paused: false,
            reference: None,
            history_limit: 1,
            refusal: None,
            repository: Seen::Found(RepositorySeen {
                spec,
                first_backup: None,
                secret: Seen::Found(()),
                labels: Seen::Missing,
                unreachable: None,
            }),
            targets: vec![],
            target_conditions: vec![],
            sessions: vec![],
            conditions: vec![],
            last: last.map(|s| Time(at(s))),
        }
    }

    #[test]
    fn a_time_that_has_come_makes_one_session_however_often_it_is_looked_at() {
        let plan = next(&seen(None), at(301));
        assert_eq!(plan.create.as_deref(), Some("b-300"));
        assert_eq!(
            next(&seen(None), at(302)).create,
            plan.create,
            "a crash before the status write makes the same name"
        );
        let mut later = seen(None);
        later.last = plan.last;
        assert_eq!(next(&later, at(303)).create, None);
        assert_eq!(next(&later, at(303)).next, Some(Time(at(600))));
    }

    #[test]
    fn of_several_missed_times_the_newest_is_made_up_for() {
        assert_eq!(next(&seen(Some(300)), at(3_000)).create.as_deref(), Some("b-3000"));
        assert_eq!(next(&seen(Some(300)), at(3_299)).create.as_deref(), Some("b-3000"));
    }

    #[test]
    fn a_paused_or_waiting_invoker_starts_nothing() {
        let paused = InvokerSeen { paused: true, ..seen(None) };
        assert_eq!((next(&paused, at(301)).create, next(&paused, at(301)).phase), (None, InvokerPhase::Ready));
        let waiting = InvokerSeen { repository: Seen::Missing, ..seen(None) };
        assert_eq!((next(&waiting, at(301)).create, next(&waiting, at(301)).phase), (None, InvokerPhase::NotReady));
    }

    #[test]
    fn history_keeps_the_limit_and_the_newest_success() {
        let session = |name: &str, t, phase| SessionSeen { name: name.into(), created: at(t), phase: Some(phase) };
        let mut s = seen(None);
        s.sessions = vec![
            session("a", 1, BackupPhase::Succeeded),
            session("b", 2, BackupPhase::Succeeded),
            session("c", 3, BackupPhase::Failed),
            session("d", 4, BackupPhase::Running),
            session("e", 5, BackupPhase::Failed),
        ];
        assert_eq!(next(&s, at(10)).delete, ["c", "a"]);
    }
}
