//! Members of a second system, together with members of restic.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::contract::mock::Act;
use crate::contract::{Class, Work};
use crate::names::{annotation, reason};
use crate::plan::fake::{End, key_of, task};
use crate::plan::repository::slots::queue::Room;
use crate::plan::restore::tests::workload::{OUTSIDE, Workload};
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{order, script, web};
use crate::plan::seen::job_status;

fn shelf() -> Workload {
    Workload::new(OUTSIDE, 0)
}

/// The actions that the second system is asked for, Job by Job.
fn acts(w: &World) -> Vec<Act> {
    let act = |job: &Job| match task(job).work {
        Work::Mock(work) => work.act,
        Work::Restic(_) | Work::Application(_) => None,
    };
    w.jobs.made.iter().filter_map(act).collect()
}

fn secrets(job: &Job) -> Vec<String> {
    let volumes = job_status::pod_of(job).unwrap().volumes.clone().unwrap_or_default();
    volumes.iter().filter_map(|v| v.secret.as_ref()?.secret_name.clone()).collect()
}

#[test]
fn a_batch_restores_members_of_two_systems_in_order() {
    for (workloads, keys) in [
        (vec![web(), shelf()], ["restore/0/m0", "restore/1/m1"]),
        (vec![shelf(), web()], ["restore/0/m0", "restore/1/m1"]),
    ] {
        let shelves = workloads.iter().position(Workload::is_outside).unwrap();
        let mut w = World::batch("Sequential", "Stop", workloads);
        w.settle();
        assert_eq!((w.phase().as_str(), order(&w)), ("Succeeded", keys.to_vec()), "{:#}", w.object["status"]);
        assert_eq!(w.object["status"]["summary"], "Restored 2 members, 2 hosts: 14 entries, 70 B.");
        // The preflights, one for each system, come before anything is touched.
        let verbs: Vec<String> = w.jobs.made.iter().map(|j| task(j).verb).collect();
        assert_eq!(verbs, ["preflight", "preflight", "restore", "restore"]);
        for job in &w.jobs.made {
            let task = task(job);
            let is_outside = task.parts.iter().all(|p| p.member == shelves);
            let pod = json!(job_status::pod_of(job).unwrap());
            // Each Job has the Secret of its own system, and takes a slot of that system.
            let (secret, slot) = if is_outside { ("shelves", "Mock shelves:1") } else { ("s", "demo/repo") };
            assert_eq!((secrets(job), job.annotations()[annotation::REPOSITORY].as_str()), (vec![secret.into()], slot));
            let writes = task.verb == "restore" && !is_outside;
            assert_eq!(pod.to_string().contains("/lifeboat/restore"), writes, "{pod:#}");
        }
        let expected = [Act { edition: "e1".into(), items: 7, request: acts(&w)[0].request.clone(), look_up: false }];
        assert_eq!(acts(&w), expected, "as it was pinned, and once");
    }
}

#[test]
fn its_failure_stops_the_order_and_is_counted_as_its_own() {
    let mut w = World::batch("Sequential", "Stop", vec![shelf(), web()]);
    script(&mut w, "restore/0/m0", &[End::Short]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.members()), ("Failed", ["Failed", "Skipped"].map(String::from).to_vec()));
    assert_eq!(w.condition("Stalled"), ("True".into(), "Incomplete".into()));
    let text = w.object["status"]["members"][0]["message"].as_str().unwrap();
    assert!(text.contains("6 of 7 items were put back"), "{text}");
    assert_eq!(w.workloads[1].replicas, 2, "what follows was not touched");
}

#[test]
fn a_request_keeps_its_id_and_is_looked_up_by_the_next_attempt() {
    for (end, looks_up) in [
        (End::TRANSIENT, true),
        (End::OutOfMemory, true),
        (End::DeletedByHand, true),
        (End::Untouched(Class::Transient, reason::REPOSITORY_UNREACHABLE), false),
    ] {
        let mut w = World::batch("Parallel", "Stop", vec![shelf()]);
        script(&mut w, "restore/0/m0", std::slice::from_ref(&end));
        w.settle();
        let acts = acts(&w);
        assert_eq!(w.phase(), "Succeeded", "{end:?}");
        let asked: Vec<bool> = acts.iter().map(|a| a.look_up).collect();
        assert_eq!(asked, [false, looks_up], "{end:?}");
        assert_eq!(acts[0].request, acts[1].request, "{end:?}");
    }
}

#[test]
fn what_needs_no_repository_does_not_wait_for_one() {
    let mut alone = World::batch("Parallel", "Stop", vec![shelf()]);
    alone.repository = false;
    alone.object["spec"]["repository"] = Value::Null;
    alone.settle();
    assert_eq!(alone.phase(), "Succeeded", "{:#}", alone.object["status"]);
    assert!(!alone.object["status"].to_string().contains("RepositoryFound"));

    let mut beside = World::batch("Parallel", "Stop", vec![shelf(), web()]);
    beside.repository = false;
    beside.settle();
    assert_eq!(beside.members(), ["Succeeded", "Failed"], "{:#}", beside.object["status"]);
    assert_eq!(beside.phase(), "Failed");
    assert!(beside.object["status"]["summary"].as_str().unwrap().contains("Repository demo/repo does not exist"));
}

#[test]
fn a_system_without_a_free_slot_keeps_only_its_own_members_waiting() {
    let mut w = World::batch("Parallel", "Stop", vec![shelf(), web()]);
    w.rooms.insert("Mock shelves:1".into(), Room { free: 0, ahead: 3 });
    w.settle();
    assert_eq!(w.members(), ["Failed", "Succeeded"], "{:#}", w.object["status"]);
    assert!(w.jobs.created.iter().all(|(key, _)| key != "restore/0/m0"));
    w.rooms.clear();

    let mut w = World::batch("Parallel", "Stop", vec![shelf()]);
    w.rooms.insert("Mock shelves:1".into(), Room { free: 0, ahead: 3 });
    w.step(6);
    assert_eq!(w.condition("Reconciling"), ("True".into(), "SystemBusy".into()), "{:#}", w.object["status"]);
    w.rooms.insert("Mock shelves:1".into(), Room { free: 1, ahead: 0 });
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn a_cancel_stops_its_job_at_once_and_says_that_it_may_be_half_done() {
    let mut w = World::batch("Parallel", "Stop", vec![shelf()]);
    script(&mut w, "restore/0/m0", &[End::Never]);
    while w.jobs.running().iter().all(|key| key != "restore/0/m0") {
        assert!(w.beat());
    }
    w.cancel();
    let stops = w.decide().stop_jobs;
    let job = w.jobs.made.iter().find(|j| key_of(j) == "restore/0/m0").unwrap();
    assert_eq!(stops.iter().map(|s| s.name.clone()).collect::<Vec<_>>(), [job.name_any()]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", "Canceled"));
    assert!(w.object["status"]["members"][0]["stats"][0]["error"].as_str().unwrap().contains("half restored"));
}
