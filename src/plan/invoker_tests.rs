//! Invokers over time: restarts, crashes between two writes, pauses, changed schedules.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::plan::target::Target;

fn at(s: i64) -> Timestamp {
    Timestamp::from_second(s).unwrap()
}

fn seen(last: Option<i64>) -> InvokerSeen<'static> {
    let spec = json!({ "backend": { "storageSecretName": "s", "s3": { "endpoint": "e", "bucket": "bkt" } } });
    InvokerSeen {
        id: Identity { name: "b".into(), namespace: "n".into(), generation: Some(1), ..Identity::default() },
        created: at(0),
        is_new: true,
        schedule: Some("*/5 * * * *"),
        time_zone: None,
        in_force: None,
        retry: None,
        first_target: None,
        mounts: vec![],
        paused: false,
        reference: None,
        history_limit: 1,
        refusal: None,
        repository: Seen::Found(RepositorySeen {
            spec: serde_json::from_value(spec).unwrap(),
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

fn created(plan: &InvokerPlan) -> Option<&str> {
    plan.create.as_ref()?.session.metadata.name.as_deref()
}

/// The invoker as it is found after a plan's status was written.
fn after<'a>(seen: &InvokerSeen<'a>, plan: &InvokerPlan) -> InvokerSeen<'a> {
    InvokerSeen {
        is_new: false,
        in_force: plan.in_force.clone(),
        last: plan.last.clone(),
        conditions: plan.conditions.clone(),
        ..seen.clone()
    }
}

#[test]
fn a_time_that_has_come_makes_one_session_however_often_it_is_looked_at() {
    let plan = next(&seen(None), at(301));
    assert_eq!(created(&plan), Some("b-300"));
    assert_eq!(
        created(&next(&seen(None), at(302))),
        created(&plan),
        "a crash before the status write makes the same name"
    );
    let later = after(&seen(None), &plan);
    assert_eq!(created(&next(&later, at(303))), None);
    assert_eq!(next(&later, at(303)).next, Some(Time(at(600))));
}

#[test]
fn of_several_missed_times_the_newest_is_made_up_for_unless_it_is_a_day_old() {
    assert_eq!(created(&next(&seen(Some(300)), at(3_000))), Some("b-3000"));
    assert_eq!(created(&next(&seen(Some(300)), at(3_299))), Some("b-3000"));
    let weekly = InvokerSeen { schedule: Some("0 0 * * 4"), ..seen(None) };
    let (due, day) = (7 * 86_400, 86_400);
    assert_eq!(created(&next(&weekly, at(due + day))), Some("b-604800"));
    assert_eq!(created(&next(&weekly, at(due + day + 1))), None, "too old");
    assert_eq!(next(&weekly, at(due + day + 1)).next, Some(Time(at(2 * due))));
    // An interval longer than that is no missed time.
    let every = InvokerSeen { schedule: Some("@every 50h"), ..seen(None) };
    assert_eq!(created(&next(&every, at(50 * 3600))), Some("b-180000"));
}

#[test]
fn a_schedule_counts_from_when_it_was_written() {
    let old = after(&seen(None), &next(&seen(None), at(301)));
    // A daily time that lies behind it today, written at 10:00.
    let changed = InvokerSeen { schedule: Some("0 9 * * *"), ..old.clone() };
    let plan = next(&changed, at(36_000));
    assert_eq!((created(&plan), plan.next.clone()), (None, Some(Time(at(86_400 + 9 * 3600)))));
    assert_eq!(created(&next(&after(&changed, &plan), at(86_400 + 9 * 3600))), Some("b-118800"));
    // Another time zone is another schedule: 9:00 in Tokyo was at midnight.
    let moved = InvokerSeen { time_zone: Some("Asia/Tokyo"), ..after(&changed, &plan) };
    assert_eq!(created(&next(&moved, at(90_000))), None);
    assert_eq!(next(&moved, at(90_000)).next, Some(Time(at(2 * 86_400))));
    // One that gets its first schedule long after it was created.
    let without = InvokerSeen { schedule: None, ..seen(None) };
    let given = InvokerSeen { schedule: Some("0 9 * * *"), ..after(&without, &next(&without, at(5))) };
    assert_eq!(created(&next(&given, at(36_000))), None);
}

/// Proves: scenario 31, scenario 22.
#[test]
fn what_comes_while_paused_is_not_made_up_for_and_what_waits_is() {
    let begun = after(&seen(None), &next(&seen(None), at(301)));
    let paused = InvokerSeen { paused: true, ..begun.clone() };
    let plan = next(&paused, at(700));
    assert_eq!((created(&plan), plan.phase, plan.next.clone()), (None, InvokerPhase::Ready, None));
    let again = InvokerSeen { paused: false, ..after(&paused, &plan) };
    let plan = next(&again, at(1_000));
    assert_eq!((created(&plan), plan.next.clone()), (None, Some(Time(at(1_200)))));
    let waiting = InvokerSeen { repository: Seen::Missing, ..begun };
    let plan = next(&waiting, at(700));
    assert_eq!((created(&plan), plan.phase), (None, InvokerPhase::NotReady));
    let there = InvokerSeen { repository: seen(None).repository, ..after(&waiting, &plan) };
    assert_eq!(created(&next(&there, at(710))), Some("b-600"));
}

#[test]
fn the_time_zone_decides_when() {
    let berlin = InvokerSeen { schedule: Some("30 2 * * *"), time_zone: Some("Europe/Berlin"), ..seen(None) };
    let new = InvokerSeen { created: "2026-03-28T12:00:00Z".parse().unwrap(), ..berlin };
    let plan = next(&new, "2026-03-28T12:00:00Z".parse().unwrap());
    // The night in which 02:30 does not exist: when the clock jumps, at 01:00 UTC.
    assert_eq!(plan.next, Some(Time("2026-03-29T01:00:00Z".parse().unwrap())));
}

#[test]
fn a_scheduled_session_carries_its_retries() {
    let left = |retry: Option<serde_json::Value>| {
        let retry: Option<RetryConfig> = retry.map(|r| serde_json::from_value(r).unwrap());
        let seen = InvokerSeen { retry: retry.as_ref(), ..seen(None) };
        next(&seen, at(301)).create.unwrap().session.spec.retry_left
    };
    assert_eq!(left(None), None);
    assert_eq!(left(Some(json!({}))), Some(1));
    assert_eq!(left(Some(json!({ "maxRetry": 3, "delay": "1m" }))), Some(3));
}

/// Proves: scenario 31.
#[test]
fn history_keeps_the_limit_the_newest_success_and_what_is_tried_again() {
    let session = |name: &str, t, phase| SessionSeen {
        name: name.into(),
        created: at(t),
        phase: Some(phase),
        has_retry_due: name == "w",
    };
    let mut s = seen(None);
    s.sessions = vec![
        session("a", 1, BackupPhase::Succeeded),
        session("b", 2, BackupPhase::Succeeded),
        session("w", 2, BackupPhase::Failed),
        session("c", 3, BackupPhase::Failed),
        session("d", 4, BackupPhase::Running),
        session("e", 5, BackupPhase::Failed),
    ];
    assert_eq!(next(&s, at(10)).delete, ["c", "a"]);
    s.history_limit = 3;
    assert_eq!(next(&s, at(10)).delete, ["a"]);
    s.history_limit = 0;
    assert_eq!(next(&s, at(10)).delete, ["c", "a"], "the newest one stays, to be read");
}

#[test]
fn a_mount_that_the_workload_does_not_have_is_said_before_any_backup() {
    let mounts = [VolumeMount { name: "dta".into(), mount_path: "/data".into(), ..VolumeMount::default() }];
    let target = Target {
        kind: "Deployment".into(),
        display: "Deployment/web".into(),
        claim_templates: vec!["data".into()],
        ..Target::default()
    };
    let mut s = seen(None);
    s.targets = vec![(target.display.clone(), TargetSeen::Found(Box::new(target)))];
    s.mounts = vec![&mounts];
    let plan = next(&s, at(10));
    let said = &plan.target_conditions[0][0];
    assert_eq!((said.status.as_str(), said.reason.as_deref()), ("False", Some(reason::VOLUME_NOT_REACHABLE)));
    let text = said.message.as_deref().unwrap();
    assert!(text.contains("\"dta\"") && text.contains("it has: data"), "{text}");
    assert!(plan.requeue.is_some(), "the workload may be mended");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Looks at any times, some of which crash before the session is made or before status is written.
    #[test]
    fn no_restart_loses_or_doubles_a_backup(
        looks in prop::collection::vec((1_i64..200_000, 0..4_u8), 1..40),
        spec in prop::sample::select(vec!["*/5 * * * *", "30 2 * * *", "0 3 * * 1", "@hourly", "@every 7h", "@every 30h"]),
        zone in prop::sample::select(vec![None, Some("Europe/Berlin"), Some("Pacific/Apia")]),
    ) {
        let begin = 1_774_000_000; // Ten days before clocks change in Berlin.
        let mut invoker = InvokerSeen { schedule: Some(spec), time_zone: zone, created: at(begin), ..seen(None) };
        let (mut now, mut made) = (begin, BTreeSet::new());
        let (schedule, zone) = (Schedule::parse(spec).unwrap(), schedule::zone(zone).unwrap());
        for (gap, crash) in looks {
            now += gap;
            let plan = next(&invoker, at(now));
            if crash == 1 {
                continue;
            }
            let newest = schedule.newest(at(begin), at(now - 86_400), at(now), &zone);
            let name = created(&plan).map(str::to_owned);
            if let Some(name) = &name {
                prop_assert_eq!(name, &format!("b-{}", newest.unwrap().as_second()));
                made.insert(name.clone());
            }
            // What has come is made, now or before: nothing is lost, whatever crashed.
            if let Some(newest) = newest {
                let wanted = format!("b-{}", newest.as_second());
                prop_assert!(made.contains(&wanted), "{} of {:?}", wanted, made);
            }
            if crash == 2 {
                continue;
            }
            prop_assert!(plan.next.as_ref().unwrap().0 > at(now));
            invoker = after(&invoker, &plan);
            prop_assert!(next(&invoker, at(now)).create.is_none(), "twice at one time");
        }
    }
}
