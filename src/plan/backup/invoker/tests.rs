//! Invokers over time: restarts, crashes between two writes, pauses, changed schedules.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::VolumeMount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::common::{RepositoryRef, RetryConfig};
use crate::api::runtime::RuntimeSettings;
use crate::plan::backup::invoker::seen::{MemberSeen, Record};
use crate::plan::backup::schedule::Schedule;
use crate::plan::seen::identity::Identity;
use crate::plan::seen::repository::RepositorySeen;
use crate::plan::seen::target::{Target, TargetSeen};
use crate::plan::seen::{Refusal, Seen};
use crate::plan::work::pod_security::Level;

pub fn at(s: i64) -> Timestamp {
    Timestamp::from_second(s).unwrap()
}

pub fn seen(last: Option<i64>) -> InvokerSeen<'static> {
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
        members: vec![],
        pod_security: Level::Privileged,
        job_defaults: Ok(RuntimeSettings::default()),
        paused: false,
        reference: None,
        history_limit: 1,
        refusal: None,
        repository: Seen::Found(RepositorySeen {
            spec: serde_json::from_value(spec).unwrap(),
            first_backup: None,
            known: false,
            secret: Seen::Found(()),
            labels: Seen::Missing,
            unreachable: None,
            not_ready: None,
        }),
        targets: vec![],
        target_conditions: vec![],
        sessions: vec![],
        conditions: vec![],
        last: last.map(|s| Time(at(s))),
        record: Record::default(),
    }
}

fn created(plan: &InvokerPlan) -> Option<&str> {
    plan.create.as_ref()?.session.metadata.name.as_deref()
}

fn named(due: Timestamp) -> String {
    sessions::scheduled(&seen(None).id, None, due, None).session.metadata.name.unwrap()
}

/// The invoker after the status of a plan was written.
pub fn after<'a>(seen: &InvokerSeen<'a>, plan: &InvokerPlan) -> InvokerSeen<'a> {
    InvokerSeen {
        is_new: false,
        in_force: plan.in_force.clone(),
        last: plan.last.clone(),
        conditions: plan.conditions.clone(),
        record: plan.record.clone(),
        ..seen.clone()
    }
}

#[test]
fn a_time_that_has_come_makes_one_session_however_often_it_is_looked_at() {
    let plan = next(&seen(None), at(301));
    assert_eq!(created(&plan), Some("b-19700101-0005"));
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
    assert_eq!(created(&next(&seen(Some(300)), at(3_000))), Some("b-19700101-0050"));
    assert_eq!(created(&next(&seen(Some(300)), at(3_299))), Some("b-19700101-0050"));
    let weekly = InvokerSeen { schedule: Some("0 0 * * 4"), ..seen(None) };
    let (due, day) = (7 * 86_400, 86_400);
    assert_eq!(created(&next(&weekly, at(due + day))), Some("b-19700108-0000"));
    assert_eq!(created(&next(&weekly, at(due + day + 1))), None, "too old");
    assert_eq!(next(&weekly, at(due + day + 1)).next, Some(Time(at(2 * due))));
    // The due time of an interval that is longer than a day is not a missed time.
    let every = InvokerSeen { schedule: Some("@every 50h"), ..seen(None) };
    assert_eq!(created(&next(&every, at(50 * 3600))), Some("b-19700103-0200"));
}

#[test]
fn a_schedule_counts_from_when_it_was_written() {
    let old = after(&seen(None), &next(&seen(None), at(301)));
    // A daily time that is already past today, written at 10:00.
    let changed = InvokerSeen { schedule: Some("0 9 * * *"), ..old.clone() };
    let plan = next(&changed, at(36_000));
    assert_eq!((created(&plan), plan.next.clone()), (None, Some(Time(at(86_400 + 9 * 3600)))));
    assert_eq!(created(&next(&after(&changed, &plan), at(86_400 + 9 * 3600))), Some("b-19700102-0900"));
    // Another time zone is another schedule: 9:00 in Tokyo was at midnight.
    let moved = InvokerSeen { time_zone: Some("Asia/Tokyo"), ..after(&changed, &plan) };
    assert_eq!(created(&next(&moved, at(90_000))), None);
    assert_eq!(next(&moved, at(90_000)).next, Some(Time(at(2 * 86_400))));
    // An invoker that gets its first schedule long after its creation.
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
    assert_eq!(created(&next(&there, at(710))), Some("b-19700101-0010"));
}

/// A clock that jumped ahead, and back.
#[test]
fn times_of_a_clock_that_was_ahead_hold_no_backup_up() {
    const DAY: i64 = 86_400;
    for schedule in ["0 2 * * *", "@every 24h"] {
        let daily = InvokerSeen { schedule: Some(schedule), ..seen(None) };
        let begun = after(&daily, &next(&daily, at(DAY + 7_200)));
        let right = after(&begun, &next(&begun, at(2 * DAY + 7_200)));
        let now = at(3 * DAY + 7_200);
        let due = created(&next(&right, now)).map(str::to_owned);
        assert!(due.is_some(), "{schedule}");
        // The last time is a year ahead.
        let mut ahead = InvokerSeen { last: Some(Time(at(365 * DAY))), ..right.clone() };
        let plan = next(&ahead, now);
        assert_eq!(created(&plan).map(str::to_owned), due, "{schedule}");
        assert!(plan.next.as_ref().unwrap().0 <= at(4 * DAY + 7_200) && plan.last.as_ref().unwrap().0 <= now);
        assert_eq!(created(&next(&after(&ahead, &plan), now)), None, "once");
        // So is the time since which the schedule is in force: it is in force from now on.
        ahead.in_force.as_mut().unwrap().since = Time(at(365 * DAY));
        let plan = next(&ahead, now);
        assert_eq!(plan.in_force.as_ref().unwrap().since, Time(now));
        assert!(plan.next.as_ref().unwrap().0 <= at(4 * DAY + 7_200), "{schedule}: {:?}", plan.next);
        let later = next(&after(&ahead, &plan), at(4 * DAY + 7_200));
        assert!(created(&later).is_some(), "{schedule}");
    }
    // The clocks of two replicas differ a little: a session that was created is not created again.
    let last = after(&seen(None), &next(&seen(None), at(300)));
    assert_eq!((created(&next(&last, at(299))), created(&next(&last, at(301)))), (None, None));
}

#[test]
fn the_time_zone_decides_when() {
    let berlin = InvokerSeen { schedule: Some("30 2 * * *"), time_zone: Some("Europe/Berlin"), ..seen(None) };
    let new = InvokerSeen { created: "2026-03-28T12:00:00Z".parse().unwrap(), ..berlin };
    let plan = next(&new, "2026-03-28T12:00:00Z".parse().unwrap());
    // In this night, 02:30 does not exist: the backup runs when the clock jumps, at 01:00 UTC.
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
        ended: Some(at(t)),
        by_hand: false,
        phase: Some(phase),
        reason: None,
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
fn what_was_made_by_hand_is_kept_for_a_day_after_its_end_and_pushes_nothing_out() {
    const DAY: i64 = 86_400;
    let session = |name: &str, t, by_hand, ended| SessionSeen {
        name: name.into(),
        created: at(t),
        ended,
        by_hand,
        phase: Some(if name.starts_with('f') { BackupPhase::Failed } else { BackupPhase::Succeeded }),
        reason: None,
        has_retry_due: false,
    };
    let mut s = InvokerSeen { schedule: None, ..seen(None) };
    s.sessions = vec![
        session("old", 1, false, Some(at(1))),
        session("hand", 2, true, Some(at(100))),
        session("f-hand", 3, true, Some(at(200))),
        // The session was skipped, or its status is not read yet: it is kept from its creation on.
        session("f-unread", 4, true, None),
        session("new", 5, false, Some(at(300))),
        session("hand-newest", 6, true, Some(at(400))),
    ];
    assert_eq!(next(&s, at(500)).delete, ["old"], "of those that the schedule made, the limit of one");
    // The requeue is due when the first failed session has been kept for a day.
    assert_eq!(next(&s, at(DAY)).requeue, Some(Duration::from_secs(4)));
    assert_eq!(next(&s, at(DAY + 99)).delete, ["f-unread", "old"]);
    assert_eq!(next(&s, at(DAY + 100)).delete, ["f-unread", "hand", "old"]);
    assert_eq!(next(&s, at(DAY + 200)).delete, ["f-unread", "f-hand", "hand", "old"]);
    assert_eq!(next(&s, at(DAY + 400)).delete, ["new", "f-unread", "f-hand", "hand", "old"], "then it is one of all");
    assert_eq!(next(&s, at(DAY + 400)).requeue, Some(LOOK_AT_READY), "what it backs up may go without a word");
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
    s.members = vec![MemberSeen { mounts: &mounts, ..MemberSeen::default() }];
    let plan = next(&s, at(10));
    let said = &plan.target_conditions[0][0];
    assert_eq!((said.status.as_str(), said.reason.as_deref()), ("False", Some(reason::VOLUME_NOT_REACHABLE)));
    let text = said.message.as_deref().unwrap();
    assert!(text.contains("\"dta\"") && text.contains("it has: data"), "{text}");
    assert!(plan.requeue.is_some(), "the workload may be mended");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Reconciles at any times. Some crash before the session is created or before status is written.
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
                prop_assert_eq!(name, &named(newest.unwrap()));
                made.insert(name.clone());
            }
            // Every time that has come has its session, created now or before: nothing is lost, whatever crashed.
            if let Some(newest) = newest {
                let wanted = named(newest);
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

/// Closes: B8, B21 of the newcomer.
#[test]
fn it_is_ready_only_where_a_backup_could_begin_and_wakes_when_it_can() {
    let deployment = |volumes: serde_json::Value| Target {
        display: "apps/v1 deployment/web".into(),
        kind: "Deployment".into(),
        name: "web".into(),
        volumes: serde_json::from_value(volumes).unwrap(),
        ..Target::default()
    };
    let mounts: Vec<VolumeMount> = serde_json::from_value(json!([{ "name": "data", "mountPath": "/data" }])).unwrap();
    let claim = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "c" } }]);
    let mut there = deployment(claim.clone());
    there.claims.insert("c".into(), crate::plan::seen::target::ClaimSeen { exists: true, ..Default::default() });
    let ready = TargetSeen::Found(Box::new(there));
    let cases = [
        (TargetSeen::Missing(String::new()), reason::TARGET_NOT_AVAILABLE, "does not exist"),
        (TargetSeen::Found(Box::new(deployment(claim))), reason::TARGET_NOT_AVAILABLE, "PersistentVolumeClaim c"),
        (TargetSeen::Found(Box::new(deployment(json!([])))), reason::VOLUME_NOT_REACHABLE, "does not have"),
        (
            TargetSeen::Found(Box::new(deployment(json!([{ "name": "data", "emptyDir": {} }])))),
            reason::VOLUME_NOT_REACHABLE,
            "an emptyDir",
        ),
    ];
    for (target, why, said) in cases {
        let mut world = seen(None);
        world.members = vec![MemberSeen { mounts: &mounts, ..MemberSeen::default() }];
        world.targets = vec![("web".into(), target)];
        let plan = next(&world, at(301));
        let condition = |plan: &InvokerPlan| plan.conditions.iter().find(|c| c.type_ == "Ready").cloned().unwrap();
        let found = condition(&plan);
        assert_eq!((found.status.as_str(), found.reason.as_deref()), ("False", Some(why)));
        assert!(found.message.unwrap().contains(said));
        assert_eq!(plan.phase, InvokerPhase::NotReady);
        assert_eq!(created(&plan), Some("b-19700101-0005"), "no schedule is held up");
        let mut mended = after(&world, &plan);
        mended.targets = vec![("web".into(), ready.clone())];
        let plan = next(&mended, at(302));
        assert_eq!((condition(&plan).status.as_str(), plan.phase), ("True", InvokerPhase::Ready));
    }
    let mut silent = seen(None);
    let Seen::Found(repository) = &mut silent.repository else { panic!() };
    repository.unreachable = Some(crate::plan::seen::repository::Silence { since: at(0), message: "Refused.".into() });
    let plan = next(&silent, at(301));
    let found = plan.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(found.reason.as_deref(), Some(reason::REPOSITORY_UNREACHABLE));
}

fn ready(plan: &InvokerPlan) -> (String, String, String) {
    let found = plan.conditions.iter().find(|c| c.type_ == "Ready").cloned().unwrap();
    (found.status, found.reason.unwrap(), found.message.unwrap())
}

/// A world with a claim as target.
fn with_claim() -> InvokerSeen<'static> {
    let mut target =
        Target { kind: "PersistentVolumeClaim".into(), name: "c".into(), replicas: 1, ..Target::default() };
    target.claims.insert("c".into(), crate::plan::seen::target::ClaimSeen { exists: true, ..Default::default() });
    let targets = vec![("v1 persistentvolumeclaim/c".into(), TargetSeen::Found(Box::new(target)))];
    InvokerSeen { targets, members: vec![MemberSeen::default()], ..seen(None) }
}

#[test]
fn what_pod_security_would_refuse_is_not_ready_until_it_would_not() {
    let world = with_claim();
    assert_eq!(ready(&next(&world, at(301))).0, "True");
    for (level, is_ready) in [(Level::Baseline, true), (Level::Restricted, false)] {
        let world = InvokerSeen { pod_security: level, ..world.clone() };
        assert_eq!(ready(&next(&world, at(301))).0 == "True", is_ready, "{level:?}");
    }
    let restricted = InvokerSeen { pod_security: Level::Restricted, ..world };
    let plan = next(&restricted, at(301));
    let (_, why, text) = ready(&plan);
    assert!(why == reason::POD_SECURITY && text.contains("restricted"), "{text}");
    assert!(plan.requeue.is_some_and(|wait| wait <= Duration::from_mins(1)), "nothing else wakes it");
    assert_eq!((created(&plan), plan.phase), (Some("b-19700101-0005"), InvokerPhase::NotReady));
    let settings = json!({ "container": { "securityContext": { "runAsUser": 1000, "runAsNonRoot": true } } });
    let settings: RuntimeSettings = serde_json::from_value(settings).unwrap();
    let members = vec![MemberSeen { runtime: Some(&settings), ..MemberSeen::default() }];
    let (status, why, text) = ready(&next(&InvokerSeen { members, ..restricted.clone() }, at(301)));
    assert_eq!((status.as_str(), why.as_str()), ("True", reason::BACKUPS_CAN_BE_TAKEN), "{text}");
    // A repository in a folder of a node is a volume of each of its Jobs.
    let mut local = InvokerSeen { pod_security: Level::Baseline, ..with_claim() };
    let Seen::Found(repository) = &mut local.repository else { panic!() };
    let backend = json!({ "storageSecretName": "s", "local": { "mountPath": "/r", "hostPath": { "path": "/r" } } });
    repository.spec = serde_json::from_value(json!({ "backend": backend })).unwrap();
    assert_eq!(ready(&next(&local, at(301))).1, reason::POD_SECURITY);
}

/// Closes: B1, B3, B4 of the newcomer.
#[test]
fn a_repository_that_is_not_ready_is_told_with_its_reason_and_once() {
    let repository = RepositoryRef { name: "r".into(), namespace: None };
    let mut world = InvokerSeen { reference: Some(&repository), ..with_claim() };
    let mut events = vec![];
    for (why, text) in [
        (reason::NOT_OPENED, "The repository was not opened yet."),
        (reason::WRONG_PASSWORD, "It does not open."),
        (reason::WRONG_PASSWORD, "It does not open."),
        (reason::BUCKET_MISSING, "No bucket."),
    ] {
        let Seen::Found(found) = &mut world.repository else { panic!() };
        found.not_ready = Some(Refusal { reason: why.into(), message: text.into() });
        let plan = next(&world, at(301));
        assert_eq!(ready(&plan), ("False".into(), why.into(), format!("Repository n/r is not ready: {text}")));
        events.extend(plan.events.iter().map(|e| e.reason.clone()));
        world = after(&world, &plan);
    }
    assert_eq!(events, [reason::WRONG_PASSWORD, reason::BUCKET_MISSING]);
    let Seen::Found(found) = &mut world.repository else { panic!() };
    found.not_ready = None;
    let plan = next(&world, at(301));
    assert_eq!((ready(&plan).0.as_str(), plan.events.len()), ("True", 0));
}

#[test]
fn what_is_missing_is_warned_of_once_for_each_cause() {
    let looks = |world: InvokerSeen<'static>| {
        let (mut world, mut events) = (world, vec![]);
        for _ in 0..5 {
            let plan = next(&world, at(301));
            events.extend(plan.events.iter().map(|e| (e.warning, e.reason.clone())));
            world = after(&world, &plan);
        }
        events
    };
    let said = |why: &str| vec![(true, why.to_owned())];
    assert_eq!(
        looks(InvokerSeen { repository: Seen::Missing, ..with_claim() }),
        said(reason::REPOSITORY_NOT_AVAILABLE)
    );
    let mut world = with_claim();
    let Seen::Found(found) = &mut world.repository else { panic!() };
    found.secret = Seen::Missing;
    assert_eq!(looks(world), said(reason::BACKEND_SECRET_NOT_AVAILABLE));
    let targets = vec![("t".into(), TargetSeen::Missing(String::new()))];
    assert_eq!(looks(InvokerSeen { targets, ..with_claim() }), said(reason::TARGET_NOT_AVAILABLE));
    let job_defaults = Err("Annotation a of Namespace n is not valid.".to_owned());
    assert_eq!(looks(InvokerSeen { job_defaults, ..with_claim() }), said(reason::PENDING));
    assert_eq!(looks(with_claim()), []);
}
