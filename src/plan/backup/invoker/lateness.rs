//! Whether backups succeed as scheduled, and the result of the last backup.
//!
//! The invoker's status stores the last backup and the last success, because the sessions are deleted by the history
//! limit or by hand. Backups are late when two scheduled times have passed since the last success: more than one period
//! has no backup. They stay late until a backup succeeds, whatever else changes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::api::Condition;
use crate::api::backup_session::BackupPhase;
use crate::api::common::ScheduleInForce;
use crate::names::{condition, reason};
use crate::plan::backup::invoker::seen::{InvokerPlan, InvokerSeen, Record};
use crate::plan::backup::schedule;
use crate::plan::effects::Event;
use crate::plan::run::conditions;
use crate::plan::run::conditions::Value;
use crate::plan::work::retry;

/// Records the results of the backups, and decides whether backups are late. `list` holds the invoker's conditions.
pub fn judge(seen: &InvokerSeen<'_>, plan: &mut InvokerPlan, list: &mut Vec<Condition>, now: Timestamp) {
    let latest = plan.in_force.as_ref().and_then(|in_force| schedule::latest(in_force, now));
    plan.record = seen.record.with(&seen.sessions, seen.created, latest.unwrap_or(Timestamp::MAX));
    if seen.paused && seen.schedule.is_some_and(|s| !s.is_empty()) {
        let text = "Scheduled backups are paused.";
        return conditions::set(list, condition::BACKUPS_LATE, false, reason::PAUSED, text, now);
    }
    let Some(late) = plan.in_force.as_ref().and_then(|f| late_from(f, plan.record.success.as_ref())) else {
        return conditions::remove(list, condition::BACKUPS_LATE);
    };
    let was_late = conditions::is(list, condition::BACKUPS_LATE, Value::True);
    // Another schedule or time zone does not end the lateness.
    let stays = was_late && plan.record.success == seen.record.success;
    if now < late && !stays {
        let text = format!("Backups are late from {late} on if none succeeds before.");
        conditions::set(list, condition::BACKUPS_LATE, false, reason::BACKUPS_ON_TIME, text, now);
        plan.requeue = [plan.requeue, retry::left(late, now)].into_iter().flatten().min();
        return;
    }
    let text = text(&plan.record);
    if !was_late {
        plan.events.push(Event::new(true, reason::BACKUPS_LATE, &text));
    }
    conditions::set(list, condition::BACKUPS_LATE, true, reason::BACKUPS_LATE, text, now);
}

/// The second scheduled time after the last success, or after the schedule came into force.
fn late_from(in_force: &ScheduleInForce, success: Option<&Time>) -> Option<Timestamp> {
    let (schedule, zone) = schedule::parsed(in_force)?;
    let base = success.map_or(in_force.since.0, |t| t.0.max(in_force.since.0));
    let first = schedule.upcoming(base, base, &zone)?;
    schedule.upcoming(base, first, &zone)
}

fn text(record: &Record) -> String {
    let since = record.success.as_ref().map_or_else(|| "yet".to_owned(), |t| format!("since {}", t.0));
    let last = match &record.last {
        Some(last) if last.phase == BackupPhase::Failed => {
            let why = last.reason.as_deref().unwrap_or("no reason");
            format!(
                "The last backup, BackupSession {}, failed at {} with {why}: see its conditions.",
                last.session, last.time.0
            )
        }
        _ => "No session has ended since: see the conditions here, and the BackupSessions that wait or run.".to_owned(),
    };
    format!("No backup has succeeded {since}, and more than one was due. {last}")
}

#[cfg(test)]
#[path = "lateness_tests.rs"]
mod tests;
