//! Every kind of target: its hosts, where its Jobs run, what is scaled and what is not. Also two restores at once.

use serde_json::{Value, json};

use crate::api::common::TargetRef;
use crate::contract::Class;
use crate::names::reason;
use crate::plan::fake::End;
use crate::plan::restore::conflicts;
use crate::plan::restore::tests::workload::{MADE, Workload};
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{claim, order, preflight_key, script, web};
use crate::plan::seen::surroundings::{Rival, Writer};

fn daemons(nodes: i32) -> Workload {
    Workload::new("DaemonSet", nodes)
}

fn quiesced(world: &World) -> Value {
    let all = world.object["status"]["conditions"].as_array().unwrap();
    all.iter().find(|c| c["type"] == "Quiesced").cloned().unwrap_or_default()
}

/// Proves: scenario 9, scenario 10, scenario 16.
#[test]
fn each_node_of_a_daemon_set_is_a_host_whose_job_runs_there() {
    for (alias, hosts) in [(json!("m0"), ["m0-n0", "m0-n1"]), (Value::Null, ["n0", "n1"])] {
        let mut w = World::session(daemons(2));
        w.object["spec"]["target"]["alias"] = alias;
        w.settle();
        assert_eq!(w.phase(), "Succeeded");
        assert_eq!(order(&w), hosts.map(|h| format!("restore/0/{h}")));
        for (index, host) in hosts.iter().enumerate() {
            let stats = &w.object["status"]["stats"][index];
            assert_eq!((&stats["hostname"], &stats["node"]), (&json!(host), &json!(format!("n{index}"))));
            assert_eq!(w.jobs.node(&format!("restore/0/{host}")), format!("n{index}"));
        }
        let said = quiesced(&w);
        assert_eq!((&said["status"], &said["reason"]), (&json!("False"), &json!(reason::NOT_QUIESCED)));
        assert!(said["message"].as_str().unwrap().contains("partially written"), "{said}");
        assert!(w.object["status"].get("quiesce").is_none());
    }
}

#[test]
fn a_host_that_turns_out_to_be_another_members_too_is_refused() {
    let mut w = World::batch("Parallel", "Continue", vec![daemons(2), web()]);
    w.object["spec"]["members"][0]["target"]["alias"] = Value::Null;
    w.object["spec"]["members"][1]["target"]["alias"] = "n0".into();
    w.settle();
    assert_eq!(w.members(), ["Succeeded", "Failed"]);
    let text = w.object["status"]["members"][1]["message"].as_str().unwrap();
    assert!(text.starts_with("Host n0 of Deployment/m1 is also a host of member 0"), "{text}");
}

#[test]
fn a_daemon_set_waits_for_the_nodes_it_should_run_on() {
    let mut w = World::session(daemons(2));
    w.workloads[0].pods = 1;
    w.workloads[0].wanted = 2;
    let mut before = w.clone();
    before.step(1);
    let text = before.object["status"]["summary"].as_str().unwrap();
    assert!(text.contains("should run on 2 nodes, but has pods on 1"), "{text}");
    w.settle();
    assert_eq!((w.phase().as_str(), order(&w).len()), ("Succeeded", 2));
}

#[test]
fn replica_sets_and_replication_controllers_are_quiesced() {
    for kind in ["ReplicaSet", "ReplicationController", "Deployment", "StatefulSet"] {
        let mut w = World::session(Workload::new(kind, 2));
        w.settle();
        assert_eq!(
            (w.phase().as_str(), &w.object["status"]["quiesce"]["replicas"]),
            ("Succeeded", &json!(2)),
            "{kind}"
        );
        assert_eq!(quiesced(&w)["reason"], reason::SCALED_BACK);
    }
}

#[test]
fn an_autoscaler_that_may_interfere_is_named_before_anything_is_scaled() {
    let mut w = World::session(web());
    w.autoscalers = vec!["web".into()];
    while w.object["status"]["quiesce"].is_null() {
        w.step(1);
    }
    assert_eq!(w.workloads[0].replicas, 2);
    let said = quiesced(&w)["message"].to_string();
    assert!(said.contains("HorizontalPodAutoscaler web has minReplicas 0"), "{said}");
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn a_workload_that_is_not_to_be_quiesced_runs_on_and_status_says_what_that_means() {
    let mut w = World::session(web());
    w.object["spec"]["target"]["quiesce"] = "Never".into();
    // The world asserts that no pods run during a restore where the workload is scaled down. Here they may run.
    w.may_run_on = true;
    w.settle();
    assert_eq!((w.phase().as_str(), &quiesced(&w)["reason"]), ("Succeeded", &json!(reason::NOT_QUIESCED)));
    assert!(quiesced(&w)["message"].as_str().unwrap().contains("target.quiesce"), "{}", quiesced(&w));
}

#[test]
fn a_host_path_is_restored_on_the_node_where_its_pods_ran() {
    let mut w = World::session(Workload { on_host: true, ..web() });
    script(&mut w, "restore/0/m0", &[End::TRANSIENT]);
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
    // When the workload is scaled to zero, only status knows the node, for each attempt.
    assert_eq!((w.jobs.attempts("restore/0/m0"), w.jobs.node("restore/0/m0")), (2, "n7".to_owned()));

    let nobody = Workload { replicas: 0, pods: 0, wanted: 0, on_host: true, ..web() };
    let mut w = World::session(nobody);
    w.settle();
    let text = w.object["status"]["summary"].as_str().unwrap();
    assert!(w.phase() == "Failed" && text.contains("its node is not known without a pod"), "{text}");
}

/// Proves: scenario 14, scenario 15, defect 8.
#[test]
fn claims_are_made_after_the_preflight_and_restored_into() {
    let mut w = World::session(Workload::new(MADE, 3));
    w.settle();
    assert_eq!((w.phase().as_str(), &w.object["status"]["totalHosts"]), ("Succeeded", &json!(3)));
    assert_eq!(order(&w), ["restore/0/m0-0", "restore/0/m0-1", "restore/0/m0-2"]);
    assert_eq!(w.claims.keys().collect::<Vec<_>>(), ["data-0", "data-1", "data-2"]);
    assert_eq!(w.condition("ClaimsCreated"), ("True".into(), reason::CLAIMS_CREATED.into()));

    // If a restore is not possible, no claim is created.
    let mut w = World::session(Workload::new(MADE, 2));
    w.jobs.without_snapshot.insert("m0-1".into());
    w.settle();
    assert_eq!((w.phase().as_str(), w.claims.len()), ("Failed", 0));
}

/// Proves: defect 18.
#[test]
fn made_claims_are_used_again_and_those_of_others_are_left_alone() {
    let mut first = World::session(Workload::new(MADE, 2));
    first.settle();
    // The session is created again with the same name, as a GitOps controller would do.
    let mut again = World::session(Workload::new(MADE, 2));
    again.object["metadata"]["uid"] = "u-2".into();
    again.claims.clone_from(&first.claims);
    again.settle();
    assert_eq!((again.phase().as_str(), again.claims == first.claims), ("Succeeded", true));
    // A session with another name is another restore.
    let mut other = World::session(Workload::new(MADE, 2));
    other.object["metadata"]["uid"] = "u-3".into();
    other.object["metadata"]["name"] = "other".into();
    other.claims.clone_from(&first.claims);
    other.settle();
    let text = other.object["status"]["summary"].as_str().unwrap();
    assert!(
        other.phase() == "Failed" && text.contains("data-0") && text.contains("RestoreSession/all made it"),
        "{text}"
    );
    assert_eq!(order(&other), Vec::<&str>::new());
}

#[test]
fn a_claim_that_is_refused_is_said() {
    for (class, phase) in [(Class::Invalid, "Failed"), (Class::Transient, "Failed")] {
        let mut w = World::session(Workload::new(MADE, 1));
        w.refuses_claims = Some(class);
        let start = w.now;
        w.settle();
        let waited = w.now.duration_since(start).as_secs() > 60;
        assert_eq!((w.phase().as_str(), waited), (phase, class == Class::Transient), "a quota is waited for");
        let text = w.object["status"]["summary"].as_str().unwrap();
        assert!(text.contains("PersistentVolumeClaim data-0 could not be created: No."), "{text}");
    }
}

/// Two sessions, each in its own world over the same workload, one beat after the other.
struct Two {
    all: [World; 2],
}

impl Two {
    fn new(mut first: World, mut second: World) -> Self {
        for (world, name, second) in [(&mut first, "one", 0), (&mut second, "two", 1)] {
            world.object["metadata"]["name"] = name.into();
            world.object["metadata"]["uid"] = format!("u-{name}").into();
            world.object["metadata"]["creationTimestamp"] = format!("2026-11-20T00:00:0{second}Z").into();
        }
        Self { all: [first, second] }
    }

    /// Passes to each session what it sees of the other, and one workload to both.
    fn beat(&mut self, who: usize) -> bool {
        let other = &self.all[1 - who];
        let (seen, workloads, now) = (conflicts::of(&other.run()), other.workloads.clone(), other.now);
        let own = &mut self.all[who];
        own.rivals = seen;
        own.workloads = workloads;
        own.now = own.now.max(now);
        let goes_on = own.beat();
        let restored = self.all.iter().filter(|w| w.is_restored_now(0)).count();
        assert!(restored <= 1, "both restore the workload");
        goes_on
    }

    fn settle(&mut self) {
        for _ in 0..400 {
            let on = [self.beat(0), self.beat(1)];
            if on == [false, false] {
                self.all.iter_mut().for_each(|w| w.rivals.clear());
                return self.all.iter().for_each(World::is_left_well);
            }
        }
        panic!("no end");
    }
}

#[test]
fn of_two_restores_of_a_workload_the_later_waits_and_both_succeed() {
    for first in 0..2 {
        for begun in 0..30 {
            let mut two = Two::new(World::session(web()), World::session(web()));
            // One session may be far ahead when the other is seen for the first time.
            for _ in 0..begun {
                two.all[first].beat();
            }
            let workloads = two.all[first].workloads.clone();
            two.all[1 - first].workloads = workloads;
            two.settle();
            let phases = [two.all[0].phase(), two.all[1].phase()];
            assert_eq!(phases, ["Succeeded", "Succeeded"], "{begun} beats ahead: {first}");
        }
    }
    let mut two = Two::new(World::session(web()), World::session(web()));
    for _ in 0..8 {
        two.beat(0);
        two.beat(1);
    }
    let text = two.all[1].object["status"]["summary"].as_str().unwrap();
    assert_eq!(text, "Waiting: RestoreSession demo/one also restores Deployment/m0; this session starts afterwards.");
    assert_eq!(two.all[1].condition("Reconciling").1, reason::TARGET_BUSY);
    assert_eq!(two.all[0].condition("Reconciling").1, reason::RUNNING);
}

#[test]
fn who_waited_for_another_until_its_deadline_says_for_whom() {
    let mut w = World::session(web());
    let order = (None, String::new());
    let (session, target) = ("RestoreSession demo/x".to_owned(), "deployment/m0".to_owned());
    w.rivals = vec![Rival { session, order, target, reference: TargetRef::default(), begun: true }];
    w.settle();
    let text = w.object["status"]["summary"].as_str().unwrap();
    assert!(
        w.phase() == "Failed" && text.starts_with("Not started before the deadline. RestoreSession demo/x"),
        "{text}"
    );
}

#[test]
fn a_preflight_that_did_not_end_before_the_deadline_is_named() {
    let mut w = World::session(web());
    script(&mut w, &preflight_key(), &[End::Never]);
    w.settle();
    let text = w.object["status"]["summary"].as_str().unwrap();
    let begins = "Not started before the deadline. Job ";
    assert!(w.phase() == "Failed" && text.starts_with(begins), "{text}");
}

#[test]
fn batches_that_share_targets_the_other_way_round_both_end() {
    let mut one = World::batch("Sequential", "Stop", vec![web(), claim()]);
    let mut two = World::batch("Sequential", "Stop", vec![web(), claim()]);
    two.object["spec"]["members"].as_array_mut().unwrap().reverse();
    script(&mut one, "restore/0/m0", &[End::TRANSIENT]);
    script(&mut two, "restore/0/m1", &[End::TRANSIENT]);
    one.object["spec"]["timeOut"] = "10m".into();
    two.object["spec"]["timeOut"] = "10m".into();
    let mut both = Two::new(one, two);
    both.settle();
    assert_eq!([both.all[0].phase(), both.all[1].phase()], ["Succeeded", "Succeeded"]);
}

#[test]
fn who_waits_for_something_missing_or_is_done_with_the_target_holds_up_nobody() {
    let mut w = World::session(web());
    w.repository = false;
    w.step(2);
    assert_eq!((w.phase().as_str(), conflicts::of(&w.run())), ("Pending", vec![]));
    w.repository = true;
    w.step(1);
    let seen = conflicts::of(&w.run());
    assert_eq!((seen[0].target.as_str(), seen[0].begun), ("deployment/m0", false));
    w.settle();
    assert_eq!(conflicts::of(&w.run()), vec![]);

    let mut w = World::batch("Sequential", "Stop", vec![web(), claim()]);
    while w.jobs.attempts("restore/1/m1") == 0 {
        w.step(1);
    }
    let seen: Vec<(String, bool)> = conflicts::of(&w.run()).into_iter().map(|r| (r.target, r.begun)).collect();
    assert_eq!(seen, [("persistentvolumeclaim/m1".to_owned(), true)], "m0 is back already");
}

#[test]
fn nobody_writes_to_a_claim_beside_another() {
    // The claim is used by another session with another target, which restores into it or backs it up.
    for (reads, does) in [(false, "writes to"), (true, "backs up")] {
        let mut w = World::session(web());
        w.writers = vec![Writer { session: "X demo/x".into(), claim: "data-m0".into(), reads }];
        w.step(12);
        assert_eq!(order(&w), Vec::<&str>::new());
        let text = w.object["status"]["summary"].as_str().unwrap();
        assert!(text.contains(&format!("X demo/x {does} PersistentVolumeClaim data-m0")), "{text}");
        assert_eq!(w.condition("Reconciling").1, reason::TARGET_BUSY);
        assert_eq!(w.workloads[0].replicas, 2, "nothing was scaled");
        w.writers.clear();
        w.settle();
        assert_eq!(w.phase(), "Succeeded");
    }

    // The claim is used by another host of this run.
    let mut w = World::batch("Parallel", "Stop", vec![web(), web(), web()]);
    w.object["spec"]["members"][1]["target"]["ref"]["name"] = "m0".into();
    while w.jobs.attempts("restore/1/m1") == 0 {
        assert!(w.jobs.running().iter().filter(|k| *k == "restore/0/m0" || *k == "restore/1/m1").count() <= 1);
        w.step(1);
    }
    assert!(w.jobs.done.contains("restore/0/m0"), "one after the other");
    assert_eq!(w.jobs.attempts("restore/2/m2"), 1, "and nobody else waits");
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn a_rival_of_another_target_is_none() {
    let mut w = World::session(web());
    let order = (None, String::new());
    let (session, target) = ("x".to_owned(), "deployment/other".to_owned());
    w.rivals = vec![Rival { session, order, target, reference: TargetRef::default(), begun: true }];
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}
