//! Sessions that are canceled at any point, and the progress of running sessions.

use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;

use crate::contract::Progress;
use crate::names::reason;
use crate::plan::backup::tests::world::{World, from_elsewhere, retry, script};
use crate::plan::fake::End;

/// More passes than the longest of these sessions takes.
const PASSES: usize = 60;

fn world(sequential: bool) -> World {
    let mut w = from_elsewhere(2);
    w.invoker().sequential = sequential;
    w.invoker().retry = Some(retry(2));
    script(&mut w, "backup/0/m0", &[End::TRANSIENT]);
    w
}

/// Runs some passes; false if the session ends before.
fn advance(w: &mut World, passes: usize) -> bool {
    for _ in 0..passes {
        let Some(wait) = w.pass() else { return false };
        w.now += wait;
        if !wait.is_zero() {
            w.jobs.tick();
        }
    }
    !["Succeeded", "Failed"].contains(&w.phase())
}

/// Asserts that the status of a canceled session says what the session did.
fn is_told_truly(w: &World) {
    let begun: BTreeSet<&str> = w.jobs.created.iter().map(|(k, _)| k.as_str()).collect();
    for (index, target) in w.status["targets"].as_array().into_iter().flatten().enumerate() {
        let key = format!("backup/{index}/m{index}");
        match target["phase"].as_str().unwrap() {
            "Succeeded" => assert!(w.jobs.done.contains(&key), "{key} is not backed up"),
            "Skipped" => assert!(!begun.contains(key.as_str()), "{key} was begun"),
            "Failed" => {
                let text = target["stats"][0]["error"].as_str().unwrap();
                assert!(text.contains("the session was canceled."), "{text}");
                assert_eq!(target["stats"][0]["reason"], reason::CANCELED);
            }
            other => panic!("{key} is {other}"),
        }
    }
    if let Some(error) = w.status.pointer("/targets/0/stats/0/progress") {
        panic!("{error}");
    }
}

#[test]
fn a_cancel_at_any_pass_ends_the_session_and_begins_nothing_more() {
    let mut ends = BTreeSet::new();
    for sequential in [true, false] {
        for cancel_at in 0..PASSES {
            let mut w = world(sequential);
            if !advance(&mut w, cancel_at) {
                ends.insert("over");
                continue;
            }
            let (begun, at) = (w.jobs.created.clone(), w.now);
            w.run.canceled = true;
            w.settle();
            assert_eq!(w.jobs.created, begun, "begun after a cancel at {cancel_at}");
            assert!(
                w.now.duration_since(at) <= SignedDuration::from_mins(1),
                "{cancel_at}: took {}",
                w.now.duration_since(at)
            );
            assert_eq!(w.followers.len(), 0, "{cancel_at}: none follows what somebody ended");
            is_told_truly(&w);
            if w.phase() == "Failed" {
                assert_eq!((w.stalled(), w.condition("Canceled").0), (reason::CANCELED, "True"));
                assert!(w.summary().starts_with("Canceled. "), "{}", w.summary());
                assert!(w.status.get("nextRetry").is_none());
                assert_eq!(w.events.last().map(String::as_str), Some(reason::CANCELED));
                let made = w.status["targets"].to_string().contains("snapshots");
                assert_eq!(w.facts, usize::from(made), "the repository is listed where there is something new");
                ends.insert("canceled");
            } else {
                let all = w.status["conditions"].as_array().unwrap();
                assert!(all.iter().all(|c| c["type"] != "Canceled"), "{all:?}");
                ends.insert("succeeded");
            }
        }
    }
    assert_eq!(ends, ["canceled", "over", "succeeded"].into(), "the test tries what it says");
}

#[test]
fn a_crash_while_it_is_canceled_changes_nothing() {
    let mut tried = 0;
    for cancel_at in (1..PASSES).step_by(7) {
        if !advance(&mut world(true), cancel_at) {
            continue;
        }
        tried += 1;
        let run = |crashes: Vec<usize>| {
            let mut w = world(true);
            assert!(advance(&mut w, cancel_at));
            w.run.canceled = true;
            w.crashes = crashes.into_iter().map(|n| n + w.writes).collect();
            w.settle();
            is_told_truly(&w);
            (w.phase().to_owned(), w.summary().to_owned(), w.followers.len())
        };
        let expected = run(vec![]);
        for crash in 0..5 {
            assert_eq!(run(vec![crash]), expected, "{cancel_at}, {crash}");
        }
    }
    assert!(tried >= 3, "{tried}");
}

#[test]
fn what_is_canceled_says_what_it_left() {
    let mut w = World::new(2, true, true);
    w.run.canceled = true;
    w.settle();
    assert_eq!((w.summary(), w.steps().len()), ("Canceled. No host was backed up.", 0));
    // The cancel comes during retention. Deleting the Job of retention ends it.
    let mut w = World::new(2, true, true);
    script(&mut w, "maintain", &[End::Never]);
    w.until("maintain");
    w.run.canceled = true;
    w.step(1);
    assert_eq!((w.phase(), w.condition("Canceled").0), ("Running", "False"));
    assert_eq!(w.summary(), "Canceling: Jobs are being stopped.");
    w.settle();
    assert_eq!(w.targets(), ["Succeeded"; 2]);
    let text = w.summary();
    assert!(
        text.starts_with("Canceled. 2 of 2 hosts backed up, snapshots ")
            && text.ends_with("; retention and check did not complete."),
        "{text}"
    );
    assert_eq!(w.facts, 1);
    // The first target is done, and the second is being backed up.
    let mut w = World::new(2, true, true);
    script(&mut w, "backup/1/m1", &[End::Never]);
    w.until("backup/1/m1");
    w.run.canceled = true;
    w.settle();
    assert_eq!(w.targets(), ["Succeeded", "Failed"]);
    assert!(w.summary().starts_with("Canceled. 1 of 2 hosts backed up, snapshot "), "{}", w.summary());
}

#[test]
fn a_cancel_of_one_that_has_failed_keeps_the_next_from_being_made() {
    let mut w = World::new(1, false, true);
    w.invoker().retry = Some(retry(2));
    script(&mut w, "backup/0/m0", &[End::DATA]);
    while w.phase() != "Failed" {
        w.step(1);
    }
    (w.run.canceled, w.run.id.generation) = (true, Some(2));
    w.settle();
    assert_eq!((w.followers.len(), w.status["retried"].as_bool(), w.stalled()), (0, Some(false), "DataCorrupt"));
    assert_eq!(w.events.last().map(String::as_str), Some("NotRetried"));
}

#[test]
fn it_says_how_far_the_jobs_are() {
    let mut w = World::new(2, false, true);
    for key in ["backup/0/m0", "backup/1/m1"] {
        script(&mut w, key, &[End::Never]);
    }
    w.until("backup/1/m1");
    assert_eq!(w.summary(), "0 of 2 hosts backed up");
    let of = |w: &World, key: &str| w.jobs.seen().into_iter().find(|j| j.key == key).unwrap().name;
    let progress =
        |bytes_done, bytes_total| Progress { percent: 25.7, bytes_done, bytes_total, files_done: 1, files_total: 4 };
    w.progress = [(of(&w, "backup/0/m0"), progress(100, 400))].into();
    w.step(1);
    assert_eq!(w.summary(), "0 of 2 hosts backed up, 25 % of the current data");
    let host = &w.status["targets"][0]["stats"][0]["progress"];
    assert_eq!((&host["percent"], &host["bytesDone"], &host["filesTotal"]), (&25.into(), &100.into(), &4.into()));
    // Each host counts by its bytes. The last progress stays while a Job does not answer.
    w.progress = [(of(&w, "backup/1/m1"), progress(400, 600))].into();
    w.step(1);
    assert_eq!(w.summary(), "0 of 2 hosts backed up, 50 % of the current data");
    w.progress = [(of(&w, "backup/1/m1"), progress(u64::MAX, u64::MAX))].into();
    w.step(1);
    assert!(
        w.summary().ends_with(", 99 % of the current data") || w.summary().ends_with(", 100 % of the current data"),
        "{}",
        w.summary()
    );
    w.run.canceled = true;
    w.settle();
    is_told_truly(&w);
}
