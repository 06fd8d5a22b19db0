//! What a backup waits for, for how long, and what its status says at the end.

use serde_json::json;

use crate::names::reason;
use crate::plan::backup::tests::world::{World, script};
use crate::plan::fake::End;
use crate::plan::seen::surroundings::{Rival, Writer};
use crate::plan::seen::target::{PodSeen, Target};

#[test]
fn a_target_that_goes_while_it_is_backed_up_holds_up_nothing() {
    let begin = |ends: &[End]| {
        let mut w = World::new(1, false, true);
        script(&mut w, "backup/0/m0", ends);
        w.until("backup/0/m0");
        w.targets[0] = false;
        w.settle();
        w
    };
    // The snapshot that the Job made counts.
    let w = begin(&[End::Ok]);
    assert_eq!((w.phase(), w.condition("RetentionPolicyApplied").0), ("Succeeded", "True"));
    // A Job that never ends is stopped at the deadline; `settle` asserts this.
    let w = begin(&[End::Never]);
    assert_eq!((w.phase(), w.stalled()), ("Failed", reason::DEADLINE_EXCEEDED));
    // There is no second attempt without a target.
    let w = begin(&[End::TRANSIENT]);
    assert_eq!((w.phase(), w.stalled(), w.jobs.attempts("backup/0/m0")), ("Failed", reason::TARGET_NOT_AVAILABLE, 1));
    assert!(w.summary().contains("Last: Backup target") && w.summary().contains("was deleted"), "{}", w.summary());
}

/// A snapshot of a half-restored volume, followed by retention, could remove the last good snapshot.
#[test]
fn what_is_being_restored_is_backed_up_after_it() {
    let rival = |begun| Rival {
        session: "RestoreSession demo/r".into(),
        order: (None, String::new()),
        target: "persistentvolumeclaim/m0".into(),
        reference: crate::api::common::TargetRef::default(),
        begun,
    };
    let writer = |claim: &str, reads| Writer { session: "RestoreSession demo/r".into(), claim: claim.into(), reads };
    for by_claim in [false, true] {
        let mut w = World::new(2, false, true);
        if by_claim {
            w.writers = vec![writer("m0", false)];
        } else {
            w.rivals = vec![rival(true)];
        }
        w.until("backup/1/m1");
        w.step(4);
        assert_eq!(w.steps(), ["prepare", "backup/1/m1"], "{by_claim}");
        let all = w.status["conditions"].as_array().unwrap();
        let why = all.iter().find(|c| c["type"] == "Reconciling").unwrap();
        assert_eq!((w.phase(), &why["reason"]), ("Running", &json!(reason::TARGET_BUSY)));
        assert!(w.summary().contains("host m0: RestoreSession demo/r"), "{}", w.summary());
        assert_eq!(w.status["targets"][0]["stats"][0]["reason"], reason::TARGET_BUSY);
        w.rivals.clear();
        w.writers.clear();
        w.settle();
        assert_eq!((w.phase(), w.status["targets"][0]["stats"][0].get("reason")), ("Succeeded", None));
    }
    // A restore that has not begun waits for the backup. A writer of another claim and a reader of this claim do not
    // block.
    let mut w = World::new(1, false, true);
    w.rivals = vec![rival(false)];
    w.writers = vec![writer("other", false), writer("m0", true)];
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
    // A Job that exists continues.
    let mut w = World::new(1, false, true);
    w.until("backup/0/m0");
    w.rivals = vec![rival(true)];
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
    // The deadline still applies. Status names the session that the backup waited for.
    let mut w = World::new(1, false, true);
    w.rivals = vec![rival(true)];
    w.settle();
    assert_eq!((w.phase(), w.stalled(), w.steps()), ("Failed", reason::TARGET_BUSY, vec!["prepare"]));
    assert!(w.summary().contains("Not backed up before the deadline. Last: RestoreSession demo/r"), "{}", w.summary());
}

#[test]
fn what_only_nodes_reveal_to_be_one_host_is_backed_up_once() {
    let mut w = World::new(2, true, false);
    let members = &mut w.invoker().members;
    let daemon = members[0].target.as_mut().unwrap();
    daemon.alias = None;
    daemon.volume_mounts = serde_json::from_value(json!([{ "name": "data", "mountPath": "/data" }])).unwrap();
    members[1].target.as_mut().unwrap().alias = Some("node-0".into());
    w.found = Some(Target {
        kind: "DaemonSet".into(),
        volumes: vec![serde_json::from_value(json!({ "name": "data", "hostPath": { "path": "/data" } })).unwrap()],
        mounts: serde_json::from_value(json!([{ "name": "data", "mountPath": "/d" }])).unwrap(),
        desired_nodes: Some(1),
        pods: vec![PodSeen { name: "x".into(), node: Some("node-0".into()), ..PodSeen::default() }],
        ..Target::default()
    });
    w.settle();
    assert_eq!((w.phase(), w.targets()), ("Failed", vec!["Succeeded", "Failed"]));
    assert_eq!(w.steps(), ["prepare", "backup/0/node-0", "maintain"]);
    let text = w.summary();
    assert!(text.contains("Host node-0 is also a host of member 0") && text.contains("target.alias"), "{text}");
}

#[test]
fn past_the_deadline_nothing_begins() {
    let mut w = World::new(2, true, true);
    script(&mut w, "backup/1/m1", &[End::Never]);
    w.settle();
    assert_eq!(
        (w.phase(), w.targets(), w.stalled()),
        ("Failed", vec!["Succeeded", "Failed"], reason::DEADLINE_EXCEEDED)
    );
    assert_eq!(w.steps(), ["prepare", "backup/0/m0", "backup/1/m1"], "no Job that would be stopped at once");
    let mut w = World::new(1, false, true);
    w.repository = false;
    w.settle();
    assert_eq!((w.phase(), w.stalled(), w.steps().len()), ("Failed", reason::DEADLINE_EXCEEDED, 0));
    let said = w.events.iter().filter(|e| *e == reason::REPOSITORY_NOT_AVAILABLE).count();
    assert_eq!(said, 1, "warned of once: {:?}", w.events);
    // At the deadline, status names the obstacle: a pod that cannot be scheduled, a store, or a claim.
    let mut w = World::new(1, false, true);
    script(&mut w, "backup/0/m0", &[End::Unschedulable]);
    w.until("backup/0/m0");
    w.step(2);
    let all = w.status["conditions"].as_array().unwrap();
    assert_eq!(all.iter().find(|c| c["type"] == "Reconciling").unwrap()["reason"], reason::UNSCHEDULABLE);
    w.settle();
    assert_eq!((w.phase(), w.stalled(), w.condition("DeadlineExceeded").0), ("Failed", reason::UNSCHEDULABLE, "True"));
    assert!(w.summary().contains("Not backed up before the deadline. Last: ") && w.summary().contains("0/1 nodes"));
    let mut w = World::new(1, false, true);
    w.jobs.script.insert("backup/0/m0".into(), vec![End::TRANSIENT; 99]);
    w.settle();
    assert_eq!((w.phase(), w.stalled()), ("Failed", reason::REPOSITORY_UNREACHABLE), "{:#}", w.status);
    let mut w = World::new(1, false, true);
    w.found =
        Some(Target { kind: "PersistentVolumeClaim".into(), name: "m0".into(), replicas: 1, ..Target::default() });
    w.settle();
    assert_eq!((w.phase(), w.stalled()), ("Failed", reason::TARGET_NOT_AVAILABLE));
    assert!(w.summary().contains("Last: PersistentVolumeClaim m0"), "{}", w.summary());
    // A session that waits for a target says so, and not that it opens the repository.
    let mut w = World::new(1, false, true);
    w.targets[0] = false;
    w.until("prepare");
    w.step(6);
    let missing = "Waiting: Backup target PersistentVolumeClaim/m0 does not exist.";
    assert_eq!((w.summary(), w.condition("Ready").1), (missing, missing));
    let mut w = World::new(1, false, true);
    w.until("prepare");
    w.silent = true;
    w.settle();
    assert_eq!((w.phase(), w.stalled()), ("Failed", reason::REPOSITORY_UNREACHABLE), "{:#}", w.status);
}

#[test]
fn a_members_own_deadline_ends_that_member_only() {
    let mut w = World::new(2, true, false);
    w.run.invoker.as_mut().unwrap().members[0].time_out = Some("20s".into());
    w.jobs.script.insert("backup/0/m0".into(), vec![End::Never]);
    w.settle();
    assert_eq!((w.targets(), w.stalled()), (vec!["Failed", "Succeeded"], reason::DEADLINE_EXCEEDED), "{:#}", w.status);
    let mut w = World::new(2, true, false);
    w.invoker().members[0].time_out = Some("20s".into());
    w.jobs.script.insert("backup/0/m0".into(), vec![End::Unschedulable]);
    w.settle();
    assert_eq!((w.targets(), w.stalled()), (vec!["Failed", "Succeeded"], reason::UNSCHEDULABLE), "{:#}", w.status);
}

/// The clock jumped ahead while attempts failed, and then back.
#[test]
fn tries_wait_for_no_time_of_a_clock_that_was_ahead() {
    for step in ["prepare", "backup/0/m0", "maintain"] {
        let mut w = World::new(1, false, true);
        script(&mut w, step, &[End::TRANSIENT]);
        w.until(step);
        while !w.status.to_string().contains("notBefore") {
            w.step(1);
        }
        let ahead = json!("2040-01-01T00:00:00Z");
        for list in ["/run/steps", "/targets/0/stats"] {
            let entries = w.status.pointer_mut(list).and_then(|l| l.as_array_mut()).into_iter().flatten();
            entries.filter(|e| e.get("notBefore").is_some()).for_each(|e| e["notBefore"] = ahead.clone());
        }
        w.settle();
        assert_eq!((w.phase(), w.jobs.attempts(step)), ("Succeeded", 2), "{step}");
    }
}
