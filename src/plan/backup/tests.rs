//! Backups from their first reconcile to their last.

mod applications;
mod canceled;
mod defaults;
mod elsewhere;
mod large;
mod maintenance;
mod place;
mod sessions;
mod waiting;
mod world;

use proptest::prelude::*;
use serde_json::json;

use crate::names::reason;
use crate::plan::backup::tests::world::{MOST_PASSES, World, from_elsewhere, retry, script};
use crate::plan::fake::End;
use crate::plan::seen::target::{PodSeen, Target};
use crate::plan::work::pod_security::Level;

/// The snapshot of half-restored data would be the newest, and retention could remove good snapshots because of it.
#[test]
fn what_is_half_restored_is_not_backed_up() {
    let note = crate::plan::restore::held_note::Note {
        replicas: 2,
        session: "RestoreSession/demo/web".into(),
        ..Default::default()
    };
    let target = |replicas| Target {
        display: "Deployment/web".into(),
        held_down: Some(note.write()),
        replicas,
        ..world::claim(0)
    };
    let mut w = World::new(2, true, false);
    w.found = Some(target(0));
    w.settle();
    assert_eq!((w.phase(), w.steps()), ("Failed", vec!["prepare", "backup/1/m1", "maintain"]), "{:#}", w.status);
    let host = &w.status["targets"][0]["stats"][0];
    assert_eq!(host["reason"], reason::HELD_DOWN);
    let said = host["error"].as_str().unwrap();
    assert!(said.contains("RestoreSession/demo/web left its data half restored"), "{said}");
    // A user has scaled the workload up, and has thereby accepted the data.
    let mut w = World::new(1, true, false);
    w.found = Some(target(1));
    w.settle();
    assert_eq!(w.phase(), "Succeeded", "{:#}", w.status);
}

#[test]
fn a_backup_prepares_backs_up_and_maintains() {
    let mut w = World::new(2, true, true);
    w.settle();
    assert_eq!((w.phase(), w.targets()), ("Succeeded", vec!["Succeeded"; 2]));
    assert_eq!(w.steps(), ["prepare", "backup/0/m0", "backup/1/m1", "maintain"]);
    assert_eq!((w.facts, w.events), (1, vec!["Succeeded".to_owned()]));
}

/// Proves: scenario 9, scenario 16.
#[test]
fn each_node_of_a_daemon_set_is_backed_up_where_it_is() {
    let mut w = World::new(1, false, true);
    let target = w.run.invoker.as_mut().unwrap().members[0].target.as_mut().unwrap();
    target.alias = None;
    target.volume_mounts = serde_json::from_value(json!([{ "name": "data", "mountPath": "/data" }])).unwrap();
    let volume = json!({ "name": "data", "hostPath": { "path": "/data" } });
    let pod = |node: &str| PodSeen { name: node.into(), node: Some(node.into()), ..PodSeen::default() };
    let daemons = |pods: Vec<PodSeen>| Target {
        kind: "DaemonSet".into(),
        volumes: vec![serde_json::from_value(volume.clone()).unwrap()],
        // A volume that the workload mounts read-only can be backed up.
        mounts: serde_json::from_value(json!([{ "name": "data", "mountPath": "/d", "readOnly": true }])).unwrap(),
        desired_nodes: Some(2),
        pods,
        ..Target::default()
    };
    w.found = Some(daemons(vec![pod("b")]));
    for _ in 0..8 {
        w.pass();
        w.jobs.tick();
    }
    assert_eq!(w.steps(), ["prepare"], "half of the nodes is no backup");
    // A pod that is not scheduled yet has a node that it is meant for.
    let meant = PodSeen { name: "x".into(), meant_for: Some("a".into()), ..PodSeen::default() };
    w.found = Some(daemons(vec![pod("b"), meant]));
    w.settle();
    assert_eq!((w.phase(), w.steps()), ("Succeeded", vec!["prepare", "backup/0/a", "backup/0/b", "maintain"]));
    for (index, node) in ["a", "b"].iter().enumerate() {
        assert_eq!(w.status["targets"][0]["stats"][index]["node"], *node);
        assert_eq!(w.jobs.node(&format!("backup/0/{node}")), *node);
    }
}

#[test]
fn stop_and_continue_differ_and_maintain_keeps_what_was_made() {
    for (stop, last) in [(true, "Skipped"), (false, "Succeeded")] {
        let mut w = World::new(3, true, stop);
        script(&mut w, "backup/1/m1", &[End::DATA]);
        w.settle();
        assert_eq!((w.phase(), w.targets()), ("Failed", vec!["Succeeded", "Failed", last]));
        assert_eq!((w.stalled(), w.steps().last()), ("DataCorrupt", Some(&"maintain")));
    }
}

#[test]
fn parallel_members_do_not_wait_for_a_missing_one() {
    let mut w = World::new(2, false, true);
    w.targets[0] = false;
    w.settle();
    assert_eq!((w.phase(), w.targets()), ("Failed", vec!["Failed", "Succeeded"]));
    assert_eq!(w.stalled(), reason::DEADLINE_EXCEEDED);
    assert!(w.summary().contains("Not started before the deadline. Last: Backup target"), "{}", w.summary());
}

#[test]
fn steps_are_tried_again_by_their_class() {
    let mut w = World::new(1, false, true);
    // Eight attempts. The end of each is seen ten seconds late.
    w.run.invoker.as_mut().unwrap().time_out = Some("10m".into());
    script(&mut w, "prepare", &[End::TRANSIENT]);
    script(&mut w, "backup/0/m0", &[End::TRANSIENT, End::PodLingers]);
    script(&mut w, "maintain", &[End::OutOfMemory]);
    w.settle();
    assert_eq!((w.phase(), w.jobs.attempts("prepare"), w.jobs.attempts("maintain")), ("Succeeded", 2, 2));
    let mut w = World::new(1, false, true);
    script(&mut w, "backup/0/m0", &vec![End::OutOfMemory; 5]);
    w.settle();
    assert_eq!((w.phase(), w.stalled(), w.jobs.attempts("backup/0/m0")), ("Failed", "OOMKilled", 3));
}

#[test]
fn nothing_is_begun_on_a_store_that_is_away_or_busy() {
    for steps_before in 0..4 {
        let mut w = World::new(2, false, true);
        w.run.invoker.as_mut().unwrap().time_out = Some("5h".into());
        let mut passes = 0;
        while w.jobs.created.len() < steps_before {
            let wait = w.pass().unwrap();
            w.now += wait;
            w.jobs.tick();
            passes += 1;
            assert!(passes < MOST_PASSES);
        }
        w.jobs.away = true;
        for _ in 0..20 {
            let wait = w.pass().unwrap();
            w.now += wait;
            w.jobs.tick();
        }
        assert!(w.silent && w.stalled_is_absent(), "{:#}", w.status);
        assert!(w.jobs.created.iter().all(|(_, attempt)| *attempt == 1), "one try learns it: {:?}", w.jobs.created);
        assert!(
            w.status["summary"]
                .as_str()
                .unwrap()
                .starts_with("Waiting: The storage of Repository demo/repo does not answer: ")
        );
        w.jobs.away = false;
        w.silent = false;
        w.settle();
        assert_eq!(w.phase(), "Succeeded", "{steps_before}");
    }
    let mut w = World::new(2, false, true);
    w.room = 0;
    assert!(w.pass().is_some());
    assert_eq!((w.phase(), w.steps().len()), ("Pending", 0));
    assert!(w.status["summary"].as_str().unwrap().contains("16 come first"), "{:#}", w.status);
    w.room = 1;
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn an_answer_of_another_run_is_refused_at_every_step() {
    for key in ["prepare", "backup/0/m0", "maintain"] {
        let mut w = World::new(1, false, true);
        script(&mut w, key, &[End::OtherRun]);
        w.settle();
        assert_eq!(w.phase(), "Failed", "{key}");
        let told: Vec<&str> = w.last_facts.as_object().into_iter().flat_map(|f| f.keys().map(String::as_str)).collect();
        let own: &[&str] = if key == "maintain" { &["listRequestTime"] } else { &[] };
        assert_eq!(told, own, "{key}: another run's facts are not the Repository's");
    }
}

fn ending() -> impl Strategy<Value = End> {
    prop_oneof![
        5 => Just(End::Ok),
        2 => Just(End::TRANSIENT),
        1 => Just(End::DATA),
        1 => Just(End::OutOfMemory),
        1 => Just(End::PodLingers),
        1 => Just(End::OtherRun),
        1 => Just(End::Never),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_backup_ends_and_succeeds_only_if_all_was_backed_up(
        members in prop::collection::vec((prop::bool::weighted(0.9), prop::collection::vec(ending(), 0..4)), 1..=4),
        prepare in prop::collection::vec(ending(), 0..3),
        sequential: bool,
        stop: bool,
        crashes in prop::collection::vec(0..40usize, 0..6),
        retries in 0..3,
        elsewhere: bool,
    ) {
        let mut w = World::new(members.len(), sequential, stop);
        w.invoker().retry = Some(retry(retries));
        if elsewhere {
            w.run.invoker.as_mut().unwrap().repository = from_elsewhere(1).run.invoker.unwrap().repository;
        }
        script(&mut w, "prepare", &prepare);
        for (i, (there, ends)) in members.iter().enumerate() {
            w.targets[i] = *there;
            script(&mut w, &format!("backup/{i}/m{i}"), ends);
        }
        w.crashes = crashes;
        w.settle();
        let done = |i: usize| w.jobs.done.contains(&format!("backup/{i}/m{i}"));
        if w.phase() == "Succeeded" {
            prop_assert!((0..members.len()).all(done));
            prop_assert_eq!(w.facts, 1);
        }
        // A failure is followed by one retry, whatever crashed. Anything else is followed by none.
        let wanted = usize::from(w.phase() == "Failed" && retries > 0);
        prop_assert_eq!(w.followers.len(), wanted, "{:#}", w.status);
        let begun: Vec<usize> = w.jobs.created.iter().filter_map(|(k, _)| k.strip_prefix("backup/")?.split('/').next()?.parse().ok()).collect();
        if sequential {
            prop_assert!(begun.is_sorted(), "{:?}", begun);
            if stop && let Some(failed) = (0..members.len()).find(|i| w.status["targets"][*i]["phase"] == "Failed") {
                prop_assert!(begun.iter().all(|b| *b <= failed), "begun after a failure: {:?}", begun);
            }
        }
    }
}

/// Proves: defect 9.
#[test]
fn deaths_of_pods_are_counted_by_themselves() {
    let mut w = World::new(1, false, true);
    w.run.invoker.as_mut().unwrap().time_out = Some("30m".into());
    let ends = [vec![End::TRANSIENT; 5], vec![End::OutOfMemory; 2]].concat();
    w.jobs.script.insert("backup/0/m0".into(), ends.clone());
    w.jobs.script.insert("prepare".into(), ends);
    w.settle();
    assert_eq!(w.phase(), "Succeeded", "{:#}", w.status);
    let mut w = World::new(1, false, true);
    w.jobs.script.insert("backup/0/m0".into(), vec![End::OutOfMemory; 9]);
    w.settle();
    assert_eq!((w.phase(), w.stalled(), w.jobs.attempts("backup/0/m0")), ("Failed", "OOMKilled", 3));
}

/// Proves: defect 9.
#[test]
fn a_job_that_is_deleted_by_hand_is_made_again_after_its_pod() {
    for key in ["prepare", "backup/0/m0", "maintain"] {
        let mut w = World::new(1, false, true);
        w.jobs.script.insert(key.into(), vec![End::DeletedByHand]);
        w.settle();
        assert_eq!((w.phase(), w.jobs.attempts(key)), ("Succeeded", 2), "{key}");
    }
}

/// Proves: D10.
#[test]
fn a_namespace_that_forbids_root_is_told_of_at_once_and_a_user_helps() {
    for (runtime, phase) in
        [(json!({}), "Failed"), (json!({ "pod": { "securityContext": { "runAsUser": 1000 } } }), "Succeeded")]
    {
        let mut w = World::new(1, false, true);
        w.pod_security = Level::Restricted;
        w.run.invoker.as_mut().unwrap().members[0].runtime_settings = serde_json::from_value(runtime).unwrap();
        w.settle();
        assert_eq!(w.phase(), phase, "{:#}", w.status);
        if phase == "Failed" {
            assert_eq!((w.stalled(), w.jobs.attempts("backup/0/m0")), (reason::POD_SECURITY, 0));
        }
    }
}

#[test]
fn the_scratch_volume_of_the_only_member_serves_all_its_jobs() {
    let temp = json!({ "medium": "Memory", "sizeLimit": "64Mi", "disableCaching": true });
    for members in [1, 2] {
        let mut w = World::new(members, false, true);
        w.invoker().members[0].temp_dir = serde_json::from_value(temp.clone()).unwrap();
        w.settle();
        for job in &w.jobs.made {
            let volumes = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap().volumes.as_ref().unwrap();
            let work = volumes.iter().find(|v| v.name == crate::names::volume::WORK).unwrap();
            let work = work.empty_dir.as_ref().unwrap();
            let key = crate::plan::fake::key_of(job);
            let own = members == 1 || key == "backup/0/m0";
            assert_eq!(work.medium.as_deref() == Some("Memory") && work.size_limit.is_some(), own, "{key}");
            assert_eq!(crate::plan::fake::work(job).settings.no_cache, own, "{key}");
        }
    }
}
