//! Runs that are canceled, or can no longer be waited for, at any point.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::names::{FINALIZER, FINALIZER_OF_STASH, reason};
use crate::plan::effects::FinalizerChange;
use crate::plan::fake::End;
use crate::plan::restore::tests::workload::Workload;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{claim, script, set, web};

impl World {
    pub fn cancel(&mut self) {
        self.object["spec"]["cancel"] = true.into();
        let generation = self.object["metadata"]["generation"].as_i64().unwrap();
        self.object["metadata"]["generation"] = (generation + 1).into();
    }
}

/// More passes than the longest of these runs takes.
const PASSES: usize = 60;

fn trio(order: &str) -> World {
    let mut w = World::batch(order, "Stop", vec![web(), set(), claim()]);
    script(&mut w, "restore/0/m0", &[End::TRANSIENT]);
    w
}

/// Hosts of each member of `trio`.
const HOSTS: [&[&str]; 3] = [&["restore/0/m0"], &["restore/1/m1-0", "restore/1/m1-1"], &["restore/2/m2"]];

/// Asserts that the status of a canceled run says what the run did.
fn is_told_truly(w: &World) {
    let begun: BTreeSet<&str> = w.jobs.created.iter().map(|(k, _)| k.as_str()).collect();
    for (index, hosts) in HOSTS.iter().enumerate() {
        let member = &w.object["status"]["members"][index];
        let (phase, text) = (member["phase"].as_str().unwrap(), member["message"].as_str().unwrap_or_default());
        let done = hosts.iter().all(|h| w.jobs.done.contains(*h));
        match phase {
            "Succeeded" => assert!(done, "m{index} is not restored"),
            "Skipped" => {
                assert!(hosts.iter().all(|h| !begun.contains(h)), "m{index} was touched");
                assert!(text.contains("changed") && text.contains("canceled"), "{text}");
            }
            "Failed" => assert!(text.contains("canceled"), "{text}"),
            other => panic!("m{index} is {other}"),
        }
    }
}

/// Proves: C09.
#[test]
fn a_cancel_at_any_pass_ends_the_run_and_begins_nothing_more() {
    let mut ends = BTreeSet::new();
    for order in ["Sequential", "Parallel"] {
        let mut run = trio(order);
        for cancel_at in 0..PASSES {
            let mut w = run.clone();
            run.step(1);
            if w.run().state.is_final() {
                ends.insert("over");
                continue;
            }
            let (begun, at) = (w.jobs.created.clone(), w.now);
            w.cancel();
            w.step(1);
            // Status reports the cancel in the first pass, whatever the state of the run.
            if w.phase() != "Succeeded" {
                let said = w.condition("Canceled").1;
                assert!([reason::CANCELING, reason::CANCELED].contains(&said.as_str()), "{said}");
            }
            w.settle();
            assert_eq!(w.jobs.created, begun, "{order}: begun after a cancel at {cancel_at}");
            assert!(
                w.now.duration_since(at).as_secs() < 10,
                "{order}: {cancel_at}: took {:?}",
                w.now.duration_since(at)
            );
            is_told_truly(&w);
            if w.phase() == "Failed" {
                assert_eq!(w.condition("Stalled"), ("True".into(), reason::CANCELED.into()));
                assert_eq!(w.condition("Canceled"), ("True".into(), reason::CANCELED.into()));
                ends.insert("canceled");
            } else {
                // The cancel is too late: only the scaling back was left to do.
                let conditions = w.object["status"]["conditions"].as_array().unwrap();
                assert!(conditions.iter().all(|c| c["type"] != "Canceled"), "{conditions:?}");
                ends.insert("succeeded");
            }
            let generation = &w.object["metadata"]["generation"];
            assert_eq!(&w.object["status"]["observedGeneration"], generation);
        }
    }
    assert_eq!(ends, ["canceled", "over", "succeeded"].into(), "the test tries what it says");
}

/// Proves: C09, C01.
#[test]
fn a_crash_while_it_is_canceled_changes_nothing() {
    for cancel_at in [2, 6, 10, 15, 22, 30] {
        let mut w = trio("Sequential");
        w.cancel_at = cancel_at;
        // A crash before the cancel moves the cancel to another point of the run. Its status must be true nevertheless.
        w.settle_dying(false, |_, w| is_told_truly(&w));
    }
}

/// Proves: C09.
#[test]
fn what_is_canceled_before_it_begins_is_not_even_held() {
    for (mut w, text) in [
        (World::session(web()), "Canceled. Not changed: the run was canceled."),
        (
            trio("Sequential"),
            "Canceled. 0 of 3 members restored; not changed: member 0 (m0), member 1 (m1), member 2 (m2).",
        ),
    ] {
        w.cancel();
        w.settle();
        assert_eq!((w.phase().as_str(), w.writes, w.jobs.created.len()), ("Failed", 1, 0), "status is the only write");
        assert_eq!(w.object["status"]["conditions"][0]["message"], text);
    }
}

/// Proves: C08.
#[test]
fn a_preflight_holds_nothing_up_and_what_writes_does() {
    let preflight_runs = |w: &World| w.jobs.running().iter().any(|key| key.starts_with("preflight/"));
    let mut w = World::session(web());
    while !preflight_runs(&w) {
        w.step(1);
    }
    assert!(!w.run().id.held, "it only reads");
    let mut deleted = w.clone();
    deleted.delete_at = deleted.passes;
    deleted.settle();
    assert_eq!((deleted.gone, deleted.workloads[0].replicas), (true, 2), "it goes at once");
    // While a finalizer of another controller keeps the session, its preflight is stopped.
    let mut kept = w.clone();
    kept.object["metadata"]["deletionTimestamp"] = json!("2026-11-20T00:00:00Z");
    kept.object["metadata"]["finalizers"] = json!(["example.com/somebody-elses"]);
    assert_eq!(kept.decide().stop_jobs.len(), 1);
    // A pod takes its grace period.
    kept.step(40);
    assert_eq!(kept.jobs.running(), Vec::<String>::new());
    // `announced` asserts that the session has its finalizer before anything is scaled or written.
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

/// Proves: C09.
#[test]
fn the_end_of_a_canceled_run_names_each_member() {
    let mut w = trio("Sequential");
    script(&mut w, "restore/1/m1-1", &[End::Never]);
    while !w.jobs.done.contains("restore/1/m1-0") {
        w.step(1);
    }
    w.cancel();
    // A cancel cannot be revoked.
    w.step(1);
    w.object["spec"]["cancel"] = Value::Null;
    w.settle();
    assert_eq!(w.members(), ["Succeeded", "Failed", "Skipped"]);
    let text = "Canceled. 1 of 3 members restored; interrupted, and maybe half restored: member 1 (m1); not changed: member 2 (m2).";
    let said = w.condition_text("Ready");
    assert!(said.starts_with(&format!("{text} StatefulSet/m1 stays at 0 replicas and had 2")), "{said}");
    assert!(w.object["status"]["summary"].as_str().unwrap().starts_with(text));
    let hosts = &w.object["status"]["members"][1]["stats"];
    assert_eq!((&hosts[0]["phase"], &hosts[1]["phase"]), (&json!("Succeeded"), &json!("Failed")));
    assert_eq!(hosts[1]["reason"], reason::CANCELED);
    assert_eq!(w.events, [reason::CANCELED]);
}

/// Proves: C09.
#[test]
fn what_may_not_use_its_repository_can_be_canceled() {
    for passes in 0..6 {
        let mut w = trio("Parallel").elsewhere(usize::MAX);
        w.step(passes);
        w.cancel();
        w.settle();
        assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::CANCELED));
        assert_eq!(w.members(), ["Skipped"; 3]);
    }
}

#[test]
fn a_cancel_after_the_end_changes_nothing() {
    let mut w = World::session(web());
    w.settle();
    let before = w.object["status"].clone();
    w.cancel();
    w.settle();
    assert_eq!((w.phase(), &w.object["status"]["conditions"]), ("Succeeded".into(), &before["conditions"]));
    assert_eq!(w.object["status"]["observedGeneration"], 2);
}

/// Proves: C08, C09.
#[test]
fn a_job_whose_node_is_gone_is_waited_for_two_minutes() {
    for way in ["delete", "cancel", "deadline"] {
        let mut w = World::session(web());
        script(&mut w, "restore/0/m0", &[End::NodeGone]);
        while w.jobs.attempts("restore/0/m0") == 0 {
            w.step(1);
        }
        let from = w.now;
        match way {
            "delete" => w.delete_at = w.passes,
            "cancel" => w.cancel(),
            _ => {}
        }
        w.settle();
        let took = w.now.duration_since(from).as_secs();
        let waits = if way == "deadline" { 200..=240 } else { 120..=125 };
        assert!(waits.contains(&took), "{way}: {took} s");
        assert!(w.events.contains(&reason::JOB_NOT_STOPPED.to_owned()), "{way}: {:?}", w.events);
    }
}

/// Proves: C03.
#[test]
fn a_job_that_a_deposed_replica_leaves_after_the_end_is_stopped() {
    let mut w = World::session(web());
    let mut job = None;
    while job.is_none() {
        job = w.decide().jobs.into_iter().find(|j| j.metadata.name.as_ref().unwrap().contains("-restore-"));
        w.step(1);
    }
    w.cancel();
    w.settle();
    assert_eq!(w.phase(), "Failed");
    let job = job.unwrap();
    w.jobs.create(&job);
    assert_eq!(w.jobs.running().len(), 1);
    w.settle();
    assert_eq!(w.jobs.running(), Vec::<String>::new());
}

#[test]
fn a_finalizer_that_stash_left_goes_with_ours() {
    for passes in 0..20 {
        let mut w = World::session(Workload::new("Deployment", 1));
        w.step(passes);
        let held = w.run().id.held;
        let ours: &[&str] = if held { &[FINALIZER, FINALIZER_OF_STASH] } else { &[FINALIZER_OF_STASH] };
        w.object["metadata"]["finalizers"] = json!(ours);
        if !held && w.run().state.is_final() {
            let rest = w.decide();
            assert!(rest.finalizer.is_none(), "it stays until somebody deletes the object");
        }
        w.object["metadata"]["deletionTimestamp"] = json!("2026-11-20T00:00:00Z");
        let mut plans = 0;
        while w.decide().finalizer != Some(FinalizerChange::Remove) {
            w.step(1);
            plans += 1;
            assert!(plans < PASSES, "deleted at {passes}");
        }
    }
}

/// A client that replaces an object by its manifest removes all finalizers.
///
/// Closes: R24 of the reports.
#[test]
fn a_finalizer_that_somebody_takes_off_is_put_back_at_any_pass_of_a_run_that_has_begun() {
    let mut taken_at = 0;
    // Each run continues to its end, so each order is combined with only one way to end.
    for (order, how) in [("Sequential", "delete"), ("Parallel", "cancel"), ("Parallel", "")] {
        let mut run = trio(order);
        for at in 0..PASSES {
            let mut w = run.clone();
            let goes_on = run.advance();
            let down = w.workloads.iter().any(|workload| workload.replicas == 0);
            if down && w.run().id.held && !w.run().is_over() {
                w.object["metadata"]["finalizers"] = json!([]);
                if how == "cancel" {
                    w.cancel();
                }
                assert_eq!(w.decide().finalizer, Some(FinalizerChange::Add), "{order} {how} {at}");
                w.step(2);
                assert!(w.run().id.held || w.run().is_over(), "{order} {how} {at}");
                if how == "delete" {
                    w.delete_at = w.passes;
                }
                w.settle();
                taken_at += 1;
            }
            if !goes_on {
                break;
            }
        }
    }
    assert!(taken_at > 10, "{taken_at}");
}
