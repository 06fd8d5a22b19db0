//! Repositories from their first reconcile to their last, with Jobs in memory.

mod silence;
mod world;

use std::time::Duration;

use serde_json::json;

use crate::contract::Class;
use crate::names::{annotation, reason};
use crate::plan::fake::End;
use crate::plan::repository::slots::queue::Slots;
use crate::plan::repository::tests::world::World;

#[test]
fn it_is_held_from_its_first_use_and_says_by_whom() {
    let mut w = World::new(false);
    w.lives(60);
    assert!(!w.held && w.condition("Ready").0 == "True", "unused, it carries nothing of ours");
    let mut w = w.used_by(&["a", "b"]);
    w.lives(60);
    assert!(w.held);
    assert_eq!(w.object["status"]["references"].as_array().unwrap().len(), 2);
    let written = w.object.clone();
    w.lives(600);
    assert_eq!(w.object, written, "at rest");
    let many: Vec<String> = (0..20_000).map(|n| format!("r{n}")).collect();
    let mut w = w.used_by(&many.iter().map(String::as_str).collect::<Vec<_>>());
    w.lives(60);
    assert_eq!(w.object["status"]["references"].as_array().unwrap().len(), 100, "a status has a limit");
}

#[test]
fn it_stays_until_nobody_uses_it() {
    let mut w = World::new(false).used_by(&["a", "b", "c", "d", "e", "f"]);
    w.lives(10);
    w.delete();
    w.lives(600);
    assert!(!w.gone && w.held);
    let (_, why, text) = w.condition("Ready");
    assert!(why == "RepositoryInUse" && text.contains("BackupBatch n/a") && text.contains("1 more"), "{text}");
    assert_eq!(w.events, ["RepositoryInUse"], "said once");
    let mut w = w.used_by(&["f"]);
    w.lives(60);
    assert!(!w.gone && w.condition("Ready").2.contains("BackupBatch n/f."));
    let mut w = w.used_by(&[]);
    w.lives(60);
    assert!(w.gone && w.jobs.created.is_empty());
}

/// Proves: C11.
#[test]
fn in_a_namespace_that_ends_it_holds_nothing_up() {
    for wipe_out in [false, true] {
        let mut w = World::new(wipe_out).used_by(&["a"]);
        w.lives(10);
        w.delete();
        w.seen.namespace_ends = true;
        w.lives(60);
        assert!(w.gone && w.jobs.created.is_empty());
    }
}

#[test]
fn data_is_removed_on_request_only_and_once() {
    let mut smooth = World::new(true);
    smooth.lives(10);
    assert!(smooth.held && smooth.jobs.created.is_empty());
    smooth.delete();
    smooth.lives(600);
    assert!(smooth.gone);
    assert_eq!((smooth.attempts("wipe"), smooth.events.clone()), (1, vec!["WipingOut".to_owned()]));
    for write in 0..smooth.writes {
        let mut w = World::new(true);
        w.crashes = vec![write, write + 1];
        w.lives(10);
        w.delete();
        w.lives(600);
        assert!(w.gone && w.attempts("wipe") == 1, "crash before write {write}");
    }
    let mut w = World::new(true);
    w.jobs.script.insert("wipe".into(), vec![End::TRANSIENT, End::OutOfMemory]);
    w.lives(10);
    w.delete();
    w.lives(600);
    assert!(w.gone && w.attempts("wipe") == 3);
}

#[test]
fn data_that_could_be_anothers_is_never_removed() {
    let mut w = World::new(true);
    w.lives(10);
    w.seen.shares_data_with = Some("n/other".into());
    w.delete();
    w.lives(600);
    let (_, why, text) = w.condition("Ready");
    assert!(!w.gone && w.jobs.created.is_empty() && why == "DataShared", "{:#}", w.object["status"]);
    assert!(text.contains("n/other") && text.contains("spec.wipeOut: false"), "{text}");
    assert_eq!(w.events.len(), 1, "said once");
    w.object["spec"]["wipeOut"] = json!(false);
    w.lives(60);
    assert!(w.gone && w.jobs.created.is_empty());
    // A Repository with the same data that appears during the removal stops the removal.
    let mut w = World::new(true);
    w.jobs.script.insert("wipe".into(), vec![End::Never]);
    w.lives(10);
    w.delete();
    w.lives(30);
    assert_eq!(w.jobs.running(), ["wipe"]);
    w.seen.shares_data_with = Some("n/other".into());
    w.lives(60);
    assert!(w.jobs.running().is_empty() && !w.gone);
}

#[test]
fn what_cannot_be_removed_says_why_and_lets_go_on_request() {
    let mut w = World::new(true);
    let wrong = End::Fails(Class::Invalid, reason::WRONG_PASSWORD);
    w.jobs.script.insert("wipe".into(), vec![wrong; 20]);
    w.lives(10);
    w.delete();
    w.lives(600);
    assert!((8..=10).contains(&w.attempts("wipe")), "once a minute: {:?}", w.at);
    assert!(w.jobs.seen().len() <= 1, "a failed Job makes room for the next");
    assert_eq!(w.events, ["WipingOut", "WrongPassword"], "said once");
    let (_, why, text) = w.condition("Ready");
    assert!(!w.gone && why == "WrongPassword" && text.contains("spec.wipeOut: false"), "{text}");
    w.object["spec"]["wipeOut"] = json!(false);
    w.lives(60);
    assert!(w.gone);
    let mut w = World::new(true);
    w.seen.at_work = 2;
    w.lives(10);
    w.delete();
    w.lives(60);
    assert!(!w.gone && w.jobs.created.is_empty() && w.condition("Ready").2.contains("2 running Jobs"));
    w.seen.at_work = 0;
    w.lives(60);
    assert!(w.gone && w.attempts("wipe") == 1);
}

/// Proves: C06.
#[test]
fn a_store_that_is_away_is_asked_once_a_minute_and_only_while_somebody_waits() {
    let mut w = World::new(false).used_by(&["a"]);
    w.lives(10);
    w.is_reported();
    w.jobs.away = true;
    w.lives(600);
    assert_eq!((w.attempts("probe"), w.condition("Reachable").0.as_str()), (0, ""), "nobody waits");
    w.seen.waiting = 31;
    w.lives(3300);
    assert!((54..=56).contains(&w.at.len()), "55 minutes: {:?}", w.at);
    assert!(w.at.windows(2).all(|t| t[1] - t[0] >= 60), "{:?}", w.at);
    assert_eq!(w.condition("Reconciling").1, "RepositoryUnreachable");
    w.jobs.away = false;
    w.lives(70);
    assert_eq!((w.condition("Reachable").0.as_str(), w.condition("Ready").0.as_str()), ("True", "True"));
    let asked = w.attempts("probe");
    w.lives(600);
    assert_eq!(w.attempts("probe"), asked, "it answers, so nobody asks");
    assert!(w.jobs.seen().is_empty(), "no probe is left behind");
    // The store fails again at once: probes still run at most once a minute.
    w.jobs.away = true;
    for _ in 0..5 {
        w.is_reported();
        w.jobs.away = false;
        w.lives(20);
    }
    assert!(w.at.windows(2).all(|t| t[1] - t[0] >= 60), "{:?}", w.at);
    assert!(w.events.iter().all(|e| e == "RepositoryReachable"));
}

/// Closes: row 10 of the attacks by tenants.
#[test]
fn a_store_counts_as_opened_only_where_it_is_the_one_that_is_named() {
    let spec = |bucket: &str| -> crate::api::repository::RepositorySpec {
        let s3 = json!({ "endpoint": "e", "bucket": bucket, "prefix": "/a/" });
        serde_json::from_value(json!({ "backend": { "storageSecretName": "s", "s3": s3 } })).unwrap()
    };
    let status = |status: serde_json::Value| serde_json::from_value(status).unwrap();
    let opened = |bucket: &str, s| crate::plan::repository::known::has_been_opened(&spec(bucket), Some(&status(s)));
    assert!(!crate::plan::repository::known::has_been_opened(&spec("b"), None) && !opened("b", json!({})));
    assert!(opened("b", json!({ "openedStore": "b/a" })) && !opened("c", json!({ "openedStore": "b/a" })));
    let time = "2026-11-20T00:00:00Z";
    assert!(opened("b", json!({ "firstBackupTime": time })), "an older operator did not write it down");
    assert!(!opened("c", json!({ "firstBackupTime": time, "openedStore": "b/a" })));
}

/// Closes: row 5 of the attacks by tenants; defect 3.
#[test]
fn what_one_session_says_shuts_nothing() {
    let mut w = World::new(false).used_by(&["a"]);
    w.lives(10);
    w.seen.waiting = 1;
    for _ in 0..20 {
        w.is_reported();
        w.lives(1);
        assert_ne!(w.condition("Reachable").0, "False");
        w.lives(29);
        assert_eq!((w.condition("Reachable").0.as_str(), w.condition("Ready").0.as_str()), ("True", "True"));
    }
    assert!((9..=11).contains(&w.at.len()), "no more than once a minute: {:?}", w.at);
    assert!(w.events.is_empty(), "{:?}", w.events);
}

#[test]
fn any_answer_is_an_answer_and_a_lost_probe_is_none() {
    for (end, reachable) in [
        (End::Ok, true),
        (End::Fails(Class::Invalid, reason::WRONG_PASSWORD), true),
        (End::Fails(Class::Transient, reason::REPOSITORY_LOCKED), true),
        (End::TRANSIENT, false),
        (End::Fails(Class::Transient, reason::STEP_TIMEOUT), false),
        (End::OutOfMemory, false),
    ] {
        for crash in 0..5 {
            let mut w = World::new(false);
            w.lives(10);
            w.jobs.script.insert("probe".into(), vec![end.clone()]);
            w.seen.waiting = 1;
            w.is_reported();
            w.crashes = vec![w.writes + crash];
            w.lives(40);
            assert_eq!(w.condition("Reachable").0 == "True", reachable, "{end:?}, crash before write {crash}");
            assert_eq!(w.attempts("probe"), 1);
        }
    }
}

#[test]
fn what_was_repaired_is_removed_without_another_word() {
    let mut w = World::new(true);
    w.jobs.script.insert("wipe".into(), vec![End::Fails(Class::Invalid, reason::WRONG_PASSWORD), End::Ok]);
    w.lives(10);
    w.delete();
    w.lives(40);
    let (_, why, text) = w.condition("Ready");
    assert!(why == "WrongPassword" && text.contains("retried every minute"), "{text}");
    w.lives(60);
    assert!(w.gone && w.attempts("wipe") == 2);
}

#[test]
fn probes_that_cannot_run_do_not_keep_the_store_shut() {
    let mut w = World::new(false).used_by(&["a"]);
    w.lives(10);
    w.seen.waiting = 1;
    let round = [vec![End::TRANSIENT], vec![End::OutOfMemory; 3]].concat();
    w.jobs.script.insert("probe".into(), [round.clone(), round].concat());
    w.is_reported();
    for round in 1..=2 {
        w.lives(160);
        let (value, why, text) = w.condition("Reachable");
        assert_eq!((value.as_str(), why.as_str()), ("False", "RepositoryUnreachable"));
        assert!(text.contains("does not run") && text.contains("memory"), "it does not blame the store: {text}");
        w.lives(100);
        let (value, why, text) = w.condition("Reachable");
        assert_eq!((value.as_str(), why.as_str(), w.attempts("probe")), ("Unknown", "ProbeLost", 4 * round));
        assert!(text.contains("memory"), "{text}");
        assert_eq!(w.condition("Ready").0, "True", "who waits goes on");
        assert_eq!(w.events.iter().filter(|e| *e == "ProbeLost").count(), round);
        // A session that cannot reach the store reports it, and probing begins again.
        w.is_reported();
    }
    w.lives(70);
    assert_eq!(w.condition("Reachable").0, "True");
    // A probe that waits for a node is also reported.
    let mut w = World::new(false).used_by(&["a"]);
    w.lives(10);
    w.seen.waiting = 1;
    w.jobs.script.insert("probe".into(), vec![End::TRANSIENT, End::Unschedulable]);
    w.is_reported();
    w.lives(120);
    let text = w.condition("Reachable").2;
    assert!(text.contains("does not run") && text.contains("0/1 nodes"), "{text}");
}

#[test]
fn who_waits_for_a_store_that_is_away_can_end_though_the_repository_is_being_deleted() {
    let mut w = World::new(false).used_by(&["a"]);
    w.lives(10);
    w.seen.waiting = 1;
    w.is_reported();
    w.delete();
    w.lives(60);
    assert_eq!(w.condition("Reachable").0, "True");
    assert_eq!(w.condition("Reconciling").1, "RepositoryInUse");
    assert_eq!(w.events.iter().filter(|e| *e == "RepositoryInUse").count(), 1, "{:?}", w.events);
}

/// The status names the namespaces that hold the slots, without a write for each Job.
#[test]
fn who_holds_its_places_is_said_while_sessions_wait_for_one() {
    let slots = |used: usize, holders: &[(&str, usize)]| {
        let holders = holders.iter().map(|(who, count)| ((*who).to_owned(), *count)).collect();
        Some(Slots { most: 16, used, waiting: 3, holders })
    };
    let mut w = World::new(false).used_by(&["a"]);
    w.lives(600);
    let before = w.writes;
    w.seen.slots = slots(16, &[("b", 15), ("n", 1)]);
    w.lives(1);
    let said = json!([{ "namespace": "b", "count": 15 }, { "namespace": "n", "count": 1 }]);
    assert_eq!((&w.object["status"]["slots"]["holders"], w.writes), (&said, before + 1), "at once");
    for used in 1..=15 {
        w.seen.slots = slots(used, &[("b", used)]);
        w.lives(1);
    }
    assert_eq!(w.writes, before + 1, "not with each Job");
    w.lives(30);
    assert_eq!((&w.object["status"]["slots"]["used"], w.writes), (&json!(15), before + 2));
    w.seen.slots = slots(3, &[("b", 3)]);
    let mut w = w.used_by(&["a", "b"]);
    w.lives(1);
    assert_eq!((&w.object["status"]["slots"]["used"], w.writes), (&json!(3), before + 3), "with what changes anyway");
    w.seen.slots = None;
    w.lives(60);
    assert_eq!((w.object["status"].get("slots"), w.writes), (None, before + 4));
}
