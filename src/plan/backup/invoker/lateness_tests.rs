//! Tests of backups that are late, and of the record of deleted sessions.

use super::super::next;
use super::super::tests::{after, at, seen};
use super::*;
use crate::plan::backup::invoker::seen::{InvokerSeen, SessionSeen};
use crate::plan::seen::{Refusal, Seen};

const DAY: i64 = 86_400;

fn session(name: &str, ended: i64, phase: BackupPhase) -> SessionSeen {
    SessionSeen {
        name: name.into(),
        created: at(ended - 60),
        ended: Some(at(ended)),
        by_hand: false,
        phase: Some(phase),
        reason: Some(if phase == BackupPhase::Succeeded { "Succeeded" } else { "WrongPassword" }.into()),
        has_retry_due: false,
    }
}

/// Daily at 02:00, for an invoker created at the Unix epoch.
fn daily() -> InvokerSeen<'static> {
    InvokerSeen { schedule: Some("0 2 * * *"), ..seen(None) }
}

fn said(plan: &InvokerPlan) -> Option<(&str, &str, &str)> {
    let found = plan.conditions.iter().find(|c| c.type_ == condition::BACKUPS_LATE)?;
    Some((&found.status, found.reason.as_deref().unwrap(), found.message.as_deref().unwrap()))
}

fn value(plan: &InvokerPlan) -> &str {
    said(plan).map_or("absent", |s| s.0)
}

#[test]
fn backups_are_late_when_the_second_time_has_come_and_until_one_succeeds() {
    let hour = 3600;
    let mut invoker = daily();
    let plan = next(&invoker, at(10));
    assert_eq!(
        said(&plan),
        Some((
            "False",
            reason::BACKUPS_ON_TIME,
            "Backups are late from 1970-01-02T02:00:00Z on if none succeeds before."
        ))
    );
    // The first succeeds on the first day; then they fail.
    invoker = after(&invoker, &next(&invoker, at(2 * hour)));
    invoker.sessions = vec![session("b-1", 2 * hour + 600, BackupPhase::Succeeded)];
    let plan = next(&invoker, at(2 * hour + 600));
    assert_eq!((plan.record.success.clone(), value(&plan)), (Some(Time(at(2 * hour + 600))), "False"));
    assert_eq!(plan.record.last.as_ref().unwrap().session, "b-1");
    invoker = after(&invoker, &plan);
    invoker.sessions.push(session("b-2", DAY + 2 * hour + 5, BackupPhase::Failed));
    invoker.sessions.push(session("b-3", 2 * DAY + 2 * hour - 5, BackupPhase::Failed));
    // A period is over, not more than one.
    let plan = next(&invoker, at(2 * DAY + 2 * hour - 1));
    assert_eq!((value(&plan), plan.events.len()), ("False", 0));
    assert_eq!(plan.requeue, Some(std::time::Duration::from_secs(1)), "it is looked at when they become late");
    invoker = after(&invoker, &plan);
    let plan = next(&invoker, at(2 * DAY + 2 * hour));
    let (is, why, text) = said(&plan).unwrap();
    assert_eq!((is, why), ("True", reason::BACKUPS_LATE));
    for part in ["since 1970-01-01T02:10:00Z", "BackupSession b-3, failed at", "with WrongPassword"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(plan.events, [Event::new(true, reason::BACKUPS_LATE, text)]);
    let ready = plan.conditions.iter().find(|c| c.type_ == condition::READY).unwrap();
    assert_eq!(ready.status, "True", "one more could be taken all the same");
    assert!(
        ready.message.as_ref().unwrap().contains("but backups are late: see the condition BackupsLate"),
        "{ready:?}"
    );
    // The event is published once.
    invoker = after(&invoker, &plan);
    let plan = next(&invoker, at(3 * DAY));
    assert_eq!((value(&plan), plan.events.len()), ("True", 0));
    // Another schedule does not end the lateness. A success does, also of a session created by hand.
    invoker = InvokerSeen { schedule: Some("0 4 * * *"), ..after(&invoker, &plan) };
    let plan = next(&invoker, at(3 * DAY + 1));
    assert_eq!((value(&plan), plan.in_force.clone().unwrap().since), ("True", Time(at(3 * DAY + 1))));
    invoker = after(&invoker, &plan);
    assert_eq!(value(&next(&invoker, at(3 * DAY + 2))), "True");
    invoker.sessions.push(session("by-hand", 3 * DAY + 30, BackupPhase::Succeeded));
    let plan = next(&invoker, at(3 * DAY + 31));
    assert_eq!((value(&plan), plan.events.len()), ("False", 0));
    let ready = plan.conditions.iter().find(|c| c.type_ == condition::READY).unwrap();
    assert_eq!(ready.message.as_deref(), Some("Ready to take backups."));
    // The event is published once more when backups are late again: from then on, two times are 3 days 04:00 and 4 days
    // 04:00.
    invoker = after(&invoker, &plan);
    assert_eq!(value(&next(&invoker, at(4 * DAY + 4 * hour - 1))), "False");
    assert_eq!(next(&invoker, at(4 * DAY + 4 * hour)).events.len(), 1);
}

#[test]
fn what_keeps_backups_from_being_taken_makes_them_late_too() {
    let never = |mut invoker: InvokerSeen<'static>| {
        invoker = after(&invoker, &next(&invoker, at(10)));
        invoker.repository = Seen::Missing;
        let missing = next(&invoker, at(2 * DAY));
        invoker.refusal = Some(Refusal { reason: "Invalid".into(), message: "spec.x: is wrong".into() });
        // The schedule of an invoker that cannot be read is unknown; status stores the schedule in force.
        invoker.schedule = None;
        (missing, next(&invoker, at(2 * DAY)))
    };
    let (missing, invalid) = never(daily());
    for plan in [missing, invalid] {
        let (is, _, text) = said(&plan).unwrap();
        let late = plan.events.iter().filter(|e| e.reason == reason::BACKUPS_LATE).count();
        assert_eq!((is, late), ("True", 1));
        assert!(text.starts_with("No backup has succeeded yet, and") && text.contains("conditions here"), "{text}");
    }
    let (missing, _) = never(InvokerSeen { schedule: Some("@every 30h"), ..seen(None) });
    assert_eq!(value(&missing), "False", "two of them are 60 hours");
    let (missing, _) = never(InvokerSeen { schedule: Some("@every 23h"), ..seen(None) });
    assert_eq!(value(&missing), "True");
}

#[test]
fn one_that_is_paused_is_not_late_and_one_without_a_schedule_says_nothing() {
    let late = after(&daily(), &next(&daily(), at(3 * DAY)));
    assert!(conditions::is(&late.conditions, condition::BACKUPS_LATE, Value::True));
    let paused = InvokerSeen { paused: true, ..late.clone() };
    let plan = next(&paused, at(3 * DAY + 1));
    assert_eq!(said(&plan), Some(("False", reason::PAUSED, "Scheduled backups are paused.")));
    // Scheduled times during the pause were not due.
    let again = InvokerSeen { paused: false, ..after(&paused, &plan) };
    assert_eq!(value(&next(&again, at(9 * DAY))), "False");
    for schedule in [None, Some("")] {
        let without = InvokerSeen { schedule, ..late.clone() };
        assert_eq!(value(&next(&without, at(3 * DAY + 1))), "absent");
        let without = InvokerSeen { paused: true, schedule, ..late.clone() };
        assert_eq!(value(&next(&without, at(3 * DAY + 1))), "absent");
    }
}

#[test]
fn the_record_outlives_the_sessions_and_is_of_this_invoker() {
    let mut invoker = InvokerSeen { created: at(1000), schedule: None, ..seen(None) };
    invoker.sessions = vec![
        // A session of an earlier invoker with the same name.
        session("before", 999, BackupPhase::Succeeded),
        session("good", 2000, BackupPhase::Succeeded),
        session("bad", 3000, BackupPhase::Failed),
        session("skipped", 4000, BackupPhase::Skipped),
        SessionSeen { ended: None, ..session("unread", 5000, BackupPhase::Succeeded) },
        SessionSeen { phase: Some(BackupPhase::Running), ended: None, ..session("runs", 6000, BackupPhase::Running) },
    ];
    let plan = next(&invoker, at(7000));
    let last = plan.record.last.clone().unwrap();
    assert_eq!(
        (last.session.as_str(), last.phase, last.reason.as_deref()),
        ("bad", BackupPhase::Failed, Some("WrongPassword"))
    );
    assert_eq!((last.time, plan.record.success.clone()), (Time(at(3000)), Some(Time(at(2000)))));
    let mut gone = after(&invoker, &plan);
    gone.sessions.clear();
    assert_eq!(next(&gone, at(8000)).record, plan.record);
    // An older session that still exists does not change the record.
    gone.sessions = vec![session("good", 2000, BackupPhase::Succeeded)];
    assert_eq!(next(&gone, at(8000)).record, plan.record);
}

#[test]
fn a_success_of_a_clock_that_was_ahead_makes_no_backup_on_time() {
    let mut invoker = after(&daily(), &next(&daily(), at(10)));
    invoker.sessions = vec![session("ahead", 365 * DAY, BackupPhase::Succeeded)];
    // As it was recorded while the clock was ahead.
    invoker = after(&invoker, &next(&invoker, at(365 * DAY)));
    assert_eq!((&invoker.record.success, value(&next(&invoker, at(365 * DAY)))), (&Some(Time(at(365 * DAY))), "False"));
    let plan = next(&invoker, at(3 * DAY));
    assert_eq!((value(&plan), plan.record.clone()), ("True", Record::default()));
    assert!(said(&plan).unwrap().2.starts_with("No backup has succeeded yet"));
    invoker = after(&invoker, &plan);
    invoker.sessions.push(session("right", 3 * DAY + 60, BackupPhase::Succeeded));
    let plan = next(&invoker, at(3 * DAY + 61));
    assert_eq!((value(&plan), plan.record.last.as_ref().unwrap().session.as_str()), ("False", "right"));
}
