//! Restores from their first reconcile to their last, in a cluster in memory.

mod adopted;
mod announced;
mod applications;
mod crashes;
mod defaults;
mod document;
mod elsewhere;
mod ends;
mod extraneous;
mod faults;
mod held;
mod holds_end;
mod large;
mod leaving;
mod outside;
mod proof;
mod quiesced;
mod states;
mod targets;
mod unread;
mod workload;
mod world;

use serde_json::json;
use workload::Workload;
use world::World;

use crate::names::reason;
use crate::plan::fake::End;
use crate::plan::restore::status::is_over;

fn web() -> Workload {
    Workload::new("Deployment", 2)
}

fn set() -> Workload {
    Workload::new("StatefulSet", 2)
}

fn claim() -> Workload {
    Workload::new("PersistentVolumeClaim", 0)
}

fn script(world: &mut World, key: &str, ends: &[End]) {
    world.jobs.script.insert(key.into(), ends.to_vec());
}

/// Keys of the restore steps in the order in which they were begun.
fn order(world: &World) -> Vec<&str> {
    world.jobs.created.iter().map(|(k, _)| k.as_str()).filter(|k| k.starts_with("restore/")).collect()
}

#[test]
fn members_go_in_order_one_after_another() {
    let mut w = World::batch("Sequential", "Stop", vec![web(), set(), claim()]);
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
    assert_eq!(order(&w), ["restore/0/m0", "restore/1/m1-0", "restore/1/m1-1", "restore/2/m2"]);
    assert_eq!(w.condition("Ready"), ("True".into(), "Succeeded".into()));
    assert_eq!(w.events, ["Succeeded"]);
    let told: Vec<(&str, &str)> = w.told.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
    let (down, back) = (reason::SCALING_DOWN, reason::SCALED_BACK);
    assert_eq!(told, [("m0", down), ("m0", back), ("m1", down), ("m1", back)], "on the workloads themselves");
    assert_eq!(w.object["status"]["summary"], "Restored 3 members, 4 hosts: 28 entries, 280 B.");
}

#[test]
fn a_session_is_a_batch_of_one() {
    let mut w = World::session(web());
    w.settle();
    assert_eq!((w.phase().as_str(), order(&w)), ("Succeeded", vec!["restore/0/m0"]));
    let workload = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "m0" });
    assert_eq!(w.object["status"]["quiesce"], json!({ "ref": workload, "replicas": 2, "state": "Resumed" }));
    assert_eq!(w.object["status"]["stats"][0]["restored"], json!({ "files": 7, "bytes": 70 }));
    assert_eq!(w.condition("RestoreTargetFound"), ("True".into(), "TargetAvailable".into()));
}

#[test]
fn the_line_says_what_is_done() {
    let mut w = World::session(claim());
    let mut lines = vec![];
    for pass in 1..12 {
        let mut before = w.clone();
        before.delete_at = pass;
        before.settle();
        lines.extend(before.object["status"]["summary"].as_str().map(ToOwned::to_owned));
    }
    lines.dedup();
    assert_eq!(lines, ["Resolving snapshots.", "Restoring, 0 of 1 host done", "Restored 1 host: 7 entries, 70 B."]);
    w.settle();
}

/// Proves: B01, invented 9.
#[test]
fn stop_starts_nothing_after_a_failure_and_continue_does() {
    for (policy, members, begun) in [
        ("Stop", ["Succeeded", "Failed", "Skipped"], vec!["restore/0/m0", "restore/1/m1"]),
        ("Continue", ["Succeeded", "Failed", "Succeeded"], vec!["restore/0/m0", "restore/1/m1", "restore/2/m2"]),
    ] {
        let mut w = World::batch("Sequential", policy, vec![web(), web(), web()]);
        script(&mut w, "restore/1/m1", &[End::DATA]);
        w.settle();
        assert_eq!((w.phase().as_str(), w.members()), ("Failed", members.map(String::from).to_vec()));
        assert_eq!(order(&w), begun);
        assert_eq!(w.condition("Stalled"), ("True".into(), "DataCorrupt".into()));
        assert_eq!(w.events, ["DataCorrupt", "DataCorrupt"], "of the host, and of the run");
    }
}

/// Proves: B01, invented 9.
#[test]
fn nothing_is_started_after_the_first_member_has_failed() {
    let mut w = World::batch("Sequential", "Stop", vec![web(), web(), web()]);
    script(&mut w, "restore/0/m0", &[End::DATA]);
    w.settle();
    assert_eq!(
        (w.phase().as_str(), w.members()),
        ("Failed", ["Failed", "Skipped", "Skipped"].map(String::from).to_vec())
    );
    assert_eq!(order(&w), ["restore/0/m0"]);
}

/// Proves: defect 10, invented 10.
#[test]
fn a_first_target_that_is_missing_holds_up_no_other_member() {
    let mut w = World::batch("Parallel", "Continue", vec![web(), web(), web()]);
    w.workloads[0].from = usize::MAX;
    w.settle();
    assert_eq!(w.members(), ["Failed", "Succeeded", "Succeeded"]);
    assert_eq!(order(&w)[0], "restore/1/m1");
    assert_eq!(w.events.iter().filter(|e| *e == reason::TARGET_NOT_AVAILABLE).count(), 1, "{:?}", w.events);
}

/// Proves: defect 2, invented 1.
#[test]
fn a_member_whose_phase_is_unknown_does_not_keep_the_run_from_its_end() {
    for order in ["Sequential", "Parallel"] {
        let mut run = World::batch(order, "Stop", vec![web(), set()]);
        for _ in 0..40 {
            run.step(1);
            for index in 0..2 {
                let mut w = run.clone();
                if w.object["status"]["members"][index].is_object() {
                    w.object["status"]["members"][index]["phase"] = "Unknown".into();
                }
                w.settle();
                assert_eq!(w.phase(), "Succeeded", "{order}, {:#}", run.object["status"]);
            }
        }
    }
}

/// Proves: defect 10, invented 10.
#[test]
fn parallel_members_do_not_wait_for_each_other() {
    let mut w = World::batch("Parallel", "Continue", vec![web(), web(), web()]);
    script(&mut w, "restore/0/m0", &[End::DATA]);
    w.workloads[1].from = usize::MAX;
    w.settle();
    assert_eq!(w.members(), ["Failed", "Failed", "Succeeded"]);
    assert_eq!(order(&w), ["restore/0/m0", "restore/2/m2"]);
    let text = w.object["status"]["members"][1]["message"].as_str().unwrap();
    assert_eq!(text, "Not started before the deadline. Restore target Deployment/m1 does not exist.");
    assert_eq!(w.condition("DeadlineExceeded"), ("True".into(), reason::DEADLINE_EXCEEDED.into()));
}

/// Proves: scenario 23, defect 10, invented 10.
#[test]
fn a_target_that_appears_later_is_restored() {
    for order in ["Sequential", "Parallel"] {
        let mut w = World::batch(order, "Stop", vec![web(), web()]);
        w.workloads[0].from = 9;
        w.settle();
        assert_eq!(w.members(), ["Succeeded", "Succeeded"]);
    }
}

#[test]
fn a_preflight_that_fails_in_order_touches_nothing() {
    let mut w = World::batch("Sequential", "Stop", vec![web(), web(), web()]);
    w.jobs.without_snapshot.insert("m2".into());
    w.settle();
    assert_eq!(w.members(), ["Skipped", "Skipped", "Failed"]);
    assert_eq!(order(&w), Vec::<&str>::new());
    assert_eq!(w.condition("Stalled"), ("True".into(), "SnapshotNotFound".into()));
    assert!(w.object["status"]["members"].as_array().unwrap().iter().all(|m| m.get("quiesce").is_none()));
}

#[test]
fn infrastructure_is_tried_again_and_data_is_not() {
    let mut w = World::session(web());
    script(&mut w, "restore/0/m0", &[End::TRANSIENT, End::PodLingers, End::TRANSIENT]);
    let start = w.now;
    w.settle();
    assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Succeeded", 4));
    assert_eq!(w.object["status"]["stats"][0]["attempt"], 4);
    assert!(w.object["status"]["stats"][0].get("error").is_none(), "a success keeps no error");
    assert!(w.now.duration_since(start).as_secs() >= 5 + 10 + 20, "waits double");

    let mut w = World::session(web());
    script(&mut w, "restore/0/m0", &[End::DATA]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Failed", 1));
}

/// Proves: C06.
#[test]
fn a_store_that_is_away_is_asked_by_nobody_and_nothing_is_scaled_for_it() {
    for from in 0..12 {
        let mut w = World::batch("Parallel", "Continue", vec![web(), set(), claim()]);
        w.object["spec"]["timeOut"] = json!("5h");
        w.away = from..from + 40;
        w.step(from + 1);
        let (before, scaled) = (w.jobs.created.len(), w.workloads.iter().filter(|x| x.replicas != x.wanted).count());
        w.step(38);
        let begun = w.jobs.created[before..].iter().filter(|(_, attempt)| *attempt > 1).count();
        assert_eq!(begun, 0, "away from {from}: {:?}", w.jobs.created);
        let now = w.workloads.iter().filter(|x| x.replicas != x.wanted).count();
        assert!(now <= scaled || from < 6, "away from {from}: {now} scaled down, {scaled} before");
        w.settle();
        assert_eq!((w.phase().as_str(), w.members()), ("Succeeded", vec!["Succeeded".to_owned(); 3]), "from {from}");
    }
    let mut w = World::session(web());
    w.object["spec"]["timeOut"] = json!("5h");
    (w.away, w.jobs.away) = (0..20, true);
    w.step(10);
    assert_eq!(w.condition("Reconciling"), ("True".into(), "RepositoryUnreachable".into()));
    assert_eq!((w.jobs.created.len(), w.workloads[0].replicas), (1, 2), "one try, and nothing touched");
    assert!(
        w.object["status"]["summary"]
            .as_str()
            .unwrap()
            .starts_with("Waiting: The storage of Repository demo/repo does not answer: ")
    );
}

#[test]
fn a_full_house_is_waited_for_in_peace() {
    let mut w = World::batch("Parallel", "Stop", vec![web(), set(), set()]);
    w.object["spec"]["timeOut"] = json!("5h");
    w.busy = 0..10;
    w.step(9);
    assert_eq!((w.phase().as_str(), w.jobs.created.len()), ("Pending", 0));
    assert_eq!(w.condition("Reconciling"), ("True".into(), "RepositoryBusy".into()));
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
    // The Repository is busy between preflight and restore: nothing is scaled down for a restore that cannot begin.
    let mut w = World::session(web());
    w.object["spec"]["timeOut"] = json!("5h");
    w.busy = 2..30;
    w.step(25);
    assert_eq!((w.jobs.created.len(), w.workloads[0].replicas), (1, 2));
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn a_preflight_is_tried_again_too() {
    let mut w = World::session(web());
    w.jobs.without_snapshot.clear();
    let key = preflight_key();
    script(&mut w, &key, &[End::TRANSIENT, End::OtherRun]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.jobs.attempts(&key)), ("Failed", 2));
    assert_eq!(w.condition("Stalled"), ("True".into(), "AgentFailed".into()), "an answer of another run is refused");
}

#[test]
fn what_held_the_preflight_up_is_said_at_the_deadline() {
    let mut w = World::session(web());
    w.object["spec"]["timeOut"] = "5m".into();
    script(&mut w, &preflight_key(), &vec![End::TRANSIENT; 60]);
    w.settle();
    assert_eq!(w.phase(), "Failed");
    assert_eq!(w.condition("Stalled").1, reason::REPOSITORY_UNREACHABLE);
    assert_eq!(w.condition("DeadlineExceeded").0, "True");
    let host = &w.object["status"]["stats"][0];
    assert!(host["error"].as_str().unwrap().starts_with("Not restored before the deadline. Last: "), "{host}");
}

/// Key of the preflight of a session of one host.
fn preflight_key() -> String {
    let mut w = World::session(web());
    w.settle();
    w.jobs.created[0].0.clone()
}

/// Proves: defect 9, C05.
#[test]
fn a_pod_that_dies_of_its_memory_gets_three_tries() {
    let mut w = World::session(web());
    script(&mut w, "restore/0/m0", &vec![End::OutOfMemory; 9]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Failed", 3));
    assert_eq!(w.condition("Stalled").1, "OOMKilled");
}

#[test]
fn success_is_counted() {
    for (end, why) in [(End::Short, "Incomplete"), (End::Empty, "NothingToRestore"), (End::OtherRun, "AgentFailed")] {
        let mut w = World::session(web());
        script(&mut w, "restore/0/m0", &[end]);
        w.settle();
        assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", why));
    }
    let mut w = World::session(web());
    w.object["spec"]["target"]["allowEmpty"] = true.into();
    script(&mut w, "restore/0/m0", &[End::Empty]);
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn the_deadline_stops_what_runs_and_leaves_down_what_is_half_restored() {
    let mut w = World::batch("Sequential", "Stop", vec![web(), set(), web()]);
    script(&mut w, "restore/1/m1-1", &[End::Never]);
    w.settle();
    assert_eq!(w.members(), ["Succeeded", "Failed", "Skipped"]);
    assert_eq!(w.condition("Stalled"), ("True".into(), reason::DEADLINE_EXCEEDED.into()));
    let member = &w.object["status"]["members"][1];
    assert_eq!((&member["stats"][0]["phase"], &member["stats"][1]["phase"]), (&json!("Succeeded"), &json!("Failed")));
    let text = member["message"].as_str().unwrap();
    assert!(text.starts_with("host m1-1: Not restored before the deadline. StatefulSet/m1 stays at 0"), "{text}");
    assert!(w.object["status"]["summary"].as_str().unwrap().starts_with("Member 1 (m1) failed: host m1-1"));
}

#[test]
fn what_was_done_before_the_deadline_counts_though_nobody_looked() {
    let mut w = World::session(web());
    // The operator is down from when the Job is created until long after the deadline.
    let mut passes = 0;
    while w.jobs.attempts("restore/0/m0") == 0 {
        passes += 1;
        w = World::session(web());
        w.step(passes);
    }
    w.jobs.tick();
    w.jobs.tick();
    w.now += k8s_openapi::jiff::SignedDuration::from_mins(11);
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn a_workload_that_goes_does_not_keep_the_run_from_ending() {
    for gone_at in 0..30 {
        let mut w = World::batch("Sequential", "Stop", vec![set(), web()]);
        w.workloads[0].until = gone_at;
        w.settle();
        // Once its Job has been created, the workload is not needed any more: its claims still exist.
        let restored = ["restore/0/m0-0", "restore/0/m0-1"].iter().all(|k| w.jobs.done.contains(*k));
        assert_eq!(w.phase() == "Succeeded", restored, "gone at {gone_at}: {:#}", w.object["status"]);
        assert_eq!(w.members()[1] == "Succeeded", restored);
    }
}

#[test]
fn a_repository_that_goes_does_not_keep_a_workload_down() {
    for gone_at in 0..30 {
        let mut w = World::session(web());
        w.repository_until = gone_at;
        w.settle();
        let restored = w.jobs.done.contains("restore/0/m0");
        assert_eq!(w.phase() == "Succeeded", restored, "gone at {gone_at}: {:#}", w.object["status"]);
    }
}

#[test]
fn a_run_without_ground_waits_and_says_for_what() {
    let mut w = World::batch("Sequential", "Stop", vec![web(), web()]);
    w.repository = false;
    w.step(2);
    assert_eq!((w.phase().as_str(), w.condition("RepositoryFound").0.as_str()), ("Pending", "False"));
    assert_eq!(w.object["status"]["summary"], "Waiting: Repository demo/repo does not exist.");
    assert_eq!(w.condition("Reconciling").0, "True");
    w.settle();
    assert_eq!(w.members(), ["Failed", "Skipped"]);
    let text = w.object["status"]["members"][0]["message"].as_str().unwrap();
    assert_eq!(text, "Not started before the deadline. Repository demo/repo does not exist.");
    assert_eq!(w.events.iter().filter(|e| *e == reason::REPOSITORY_NOT_AVAILABLE).count(), 1, "{:?}", w.events);
}

/// Proves: invented 17, C08.
#[test]
fn deletion_at_any_pass_leaves_everything_as_it_was() {
    for delete_at in 0..40 {
        let mut w = World::batch("Sequential", "Stop", vec![web(), set()]);
        script(&mut w, "restore/0/m0", &[End::TRANSIENT]);
        w.delete_at = delete_at;
        w.settle();
        assert!(w.gone || w.phase() == "Succeeded", "deleted at {delete_at}");
    }
}

#[test]
fn a_spec_that_is_changed_under_its_run_ends_it_with_everything_back() {
    let mut run = World::batch("Sequential", "Stop", vec![web(), set()]);
    script(&mut run, "restore/0/m0", &[End::TRANSIENT]);
    for passes in 0..40 {
        for shrink in [true, false] {
            let mut w = run.clone();
            let (begun, over) = (w.object["status"]["run"]["specHash"].is_string(), w.run().state.is_final());
            let half =
                w.run().state.members.iter().flat_map(|m| &m.stats).any(|h| h.attempt.is_some() && !is_over(h.phase));
            let members = w.object["spec"]["members"].as_array_mut().unwrap();
            if shrink {
                members.pop();
            } else {
                members.swap(0, 1);
            }
            w.settle();
            if begun && !over {
                assert_eq!(
                    (w.phase().as_str(), w.condition("Stalled").1.as_str()),
                    ("Failed", reason::SPEC_CHANGED),
                    "after {passes}"
                );
                let said = w.object["status"]["conditions"].to_string();
                assert_eq!(said.contains("May be half restored"), half, "after {passes}: {said}");
            } else {
                assert_eq!(w.phase(), "Succeeded", "after {passes}");
            }
        }
        run.step(1);
    }
}

/// Proves: defect 14, invented 4.
#[test]
fn a_workload_of_several_members_comes_back_after_the_last() {
    for order in ["Parallel", "Sequential"] {
        let mut w = World::batch(order, "Stop", vec![web(), web()]);
        w.object["spec"]["members"][1]["target"]["ref"]["name"] = "m0".into();
        script(&mut w, "restore/1/m1", &[End::TRANSIENT, End::TRANSIENT]);
        w.settle();
        assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/1/m1")), ("Succeeded", 3), "{order}");
        // Each member has its own status, although both name one target.
        for (index, alias) in ["m0", "m1"].iter().enumerate() {
            let member = &w.object["status"]["members"][index];
            assert_eq!((&member["alias"], &member["stats"][0]["hostname"]), (&json!(alias), &json!(alias)));
        }
    }
}

#[test]
fn a_spec_that_is_changed_after_the_end_changes_only_the_generation_looked_at() {
    let mut w = World::session(claim());
    w.settle();
    w.object["metadata"]["generation"] = 2.into();
    w.object["spec"]["target"]["rules"] = json!([{ "snapshots": ["0123456789abcdef"] }]);
    w.settle();
    assert_eq!((w.phase().as_str(), order(&w)), ("Succeeded", vec!["restore/0/m0"]));
    assert_eq!(w.object["status"]["observedGeneration"], 2);
}

/// Proves: invented 16.
#[test]
fn a_workload_that_somebody_scales_up_during_the_restore_is_no_success() {
    let cases = [("Deployment", 2), ("Deployment", 0), ("StatefulSet", 2), ("ReplicationController", 1)];
    for (kind, replicas) in cases {
        let key = if kind == "StatefulSet" { "restore/0/m0-0" } else { "restore/0/m0" };
        let mut w = World::session(Workload::new(kind, replicas));
        while w.jobs.attempts(key) == 0 {
            w.step(1);
        }
        // A GitOps controller, a user or an autoscaler scales the workload up.
        w.workloads[0].replicas = 3;
        w.workloads[0].wanted = 3;
        w.settle();
        assert_eq!((w.phase().as_str(), w.condition("Quiesced").1.as_str()), ("Failed", reason::QUIESCE_BROKEN));
        assert_eq!(w.condition("Stalled").1, reason::QUIESCE_BROKEN);
    }
}
