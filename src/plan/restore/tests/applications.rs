//! Members that are applications, alone and beside workloads.

use k8s_openapi::api::batch::v1::Job;
use serde_json::json;

use crate::contract::application::{Addon, Step, Work as OfApplication};
use crate::contract::{Class, Work};
use crate::names::reason;
use crate::plan::fake::{End, task};
use crate::plan::restore::tests::workload::Workload;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{order, script, web};
use crate::plan::seen::job_status;
use crate::plan::seen::surroundings::Rival;

fn database() -> Workload {
    Workload::new("AppBinding", 0)
}

fn loads(w: &World) -> Vec<(&Job, OfApplication)> {
    let of = |job| match task(job).work {
        Work::Application(work) => Some((job, *work)),
        _ => None,
    };
    w.jobs.made.iter().filter_map(of).collect()
}

#[test]
fn a_batch_restores_a_database_and_then_its_workload() {
    let mut w = World::batch("Sequential", "Stop", vec![database(), web()]);
    w.settle();
    assert_eq!(
        (w.phase().as_str(), order(&w)),
        ("Succeeded", vec!["restore/0/m0", "restore/1/m1"]),
        "{:#}",
        w.object["status"]
    );
    let verbs: Vec<String> = w.jobs.made.iter().map(|j| task(j).verb).collect();
    assert_eq!(verbs, ["preflight", "restore", "restore"], "one look for both, because the repository is the same");
    let loads = loads(&w);
    let [(job, work)] = loads.as_slice() else { panic!("{loads:?}") };
    assert_eq!((work.addon, work.connection.host.as_str(), work.connection.port), (Addon::Mysql, "db.demo.svc", 3306));
    let Step::Load(load) = &work.step else { panic!("{work:?}") };
    assert_eq!(load.snapshots.len(), 1, "what was pinned");
    let pod = job_status::pod_of(job).unwrap();
    assert_eq!(pod.containers[0].image.as_deref(), Some("with-mariadb"));
    let volumes = pod.volumes.as_ref().unwrap();
    let secrets: Vec<&str> = volumes.iter().filter_map(|v| v.secret.as_ref()?.secret_name.as_deref()).collect();
    assert_eq!(secrets, ["s", "db-auth"]);
    let security = pod.containers[0].security_context.as_ref().unwrap();
    assert!(security.capabilities.as_ref().unwrap().add.is_none(), "it touches no files of users");
}

#[test]
fn what_is_not_there_after_a_load_is_no_success() {
    let mut w = World::session(database());
    script(&mut w, "restore/0/m0", &[End::Short]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", "Incomplete"));
    let text = w.object["status"]["stats"][0]["error"].as_str().unwrap();
    assert!(text.starts_with("Not everything was loaded: 4 of 5 objects."), "{text}");
}

#[test]
fn another_attempt_loads_everything_again() {
    for end in [End::TRANSIENT, End::OutOfMemory, End::Untouched(Class::Transient, reason::APPLICATION_UNREACHABLE)] {
        let mut w = World::session(database());
        script(&mut w, "restore/0/m0", std::slice::from_ref(&end));
        w.settle();
        assert_eq!((w.phase().as_str(), loads(&w).len()), ("Succeeded", 2), "{end:?}");
    }
}

#[test]
fn a_task_that_is_not_built_in_fails_before_anything_begins() {
    let mut w = World::batch("Parallel", "Stop", vec![database(), web()]);
    w.object["spec"]["members"][0]["task"] = json!({ "name": "mongodb-restore-4.4" });
    w.settle();
    assert_eq!(w.members(), ["Failed", "Succeeded"], "{:#}", w.object["status"]);
    let text = w.object["status"]["members"][0]["message"].as_str().unwrap();
    assert!(text.starts_with("Task \"mongodb-restore-4.4\" for AppBinding m0 is not built in."), "{text}");
    assert!(loads(&w).is_empty());
}

#[test]
fn two_restores_of_one_database_go_one_after_the_other() {
    let mut w = World::session(database());
    let reference = w.run().targets()[0].clone().unwrap();
    let rival = Rival {
        session: "RestoreSession demo/first".into(),
        order: (None, "u-0".into()),
        target: crate::plan::run::hosts::target_key(&reference).unwrap(),
        reference,
        begun: true,
    };
    w.rivals = vec![rival];
    w.step(8);
    assert_eq!(w.condition("Reconciling").1, "TargetBusy", "{:#}", w.object["status"]);
    assert!(loads(&w).is_empty());
    w.rivals.clear();
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn a_crash_before_any_write_changes_nothing() {
    let mut smooth = World::batch("Sequential", "Stop", vec![database(), web()]);
    script(&mut smooth, "restore/0/m0", &[End::TRANSIENT]);
    smooth.settle_dying(true, |write, w| assert_eq!(w.phase(), "Succeeded", "crash before write {write}"));
}
