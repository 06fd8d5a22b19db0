//! Restores of many hosts, paths and snapshots: each is answered, or refused with the numbers before anything is
//! touched.

use std::collections::BTreeSet;

use serde_json::json;

use crate::names::reason;
use crate::plan::restore::tests::workload::Workload;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{order, set, web};
use crate::plan::run::size;

fn ordinals(count: i32) -> Workload {
    Workload::new("StatefulSet", count)
}

fn preflights(world: &World) -> Vec<(String, i32)> {
    world.jobs.created.iter().filter(|(key, _)| key.starts_with("preflight")).cloned().collect()
}

/// These restores never began: `latest` is one snapshot for each path, and the answer did not fit.
///
/// Closes: defect 1 of the second engine.
#[test]
fn hosts_with_several_paths_are_restored() {
    for (hosts, paths) in [(16, 2), (12, 3), (9, 4), (6, 64)] {
        let mut w = World::session(ordinals(hosts));
        w.jobs.snapshots_each = paths;
        w.settle();
        assert_eq!(w.phase(), "Succeeded", "{hosts} hosts, {paths} paths: {:#}", w.object["status"]["summary"]);
        let stats = w.object["status"]["stats"].as_array().unwrap();
        assert!(stats.iter().all(|h| h["snapshots"].as_array().unwrap().len() == paths));
        let asked = preflights(&w);
        let keys: BTreeSet<&String> = asked.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), asked.len(), "no step is asked for twice");
        assert!(asked.iter().all(|(_, attempt)| *attempt == 1), "{asked:?}");
    }
}

#[test]
fn hosts_that_are_left_out_are_asked_for_whatever_dies_on_the_way() {
    let mut w = World::session(ordinals(3));
    w.jobs.snapshots_each = 64;
    w.settle_dying(true, |write, w| {
        assert_eq!(w.phase(), "Succeeded", "died before write {write}: {:#}", w.object["status"]["summary"]);
        assert_eq!(order(&w).len(), 3);
    });
}

#[test]
fn a_host_that_no_answer_has_room_for_is_refused_by_name() {
    let mut w = World::session(web());
    w.jobs.snapshots_each = 500;
    w.settle();
    assert_eq!(w.condition("Ready"), ("False".into(), reason::OUTCOME_TOO_LARGE.into()));
    assert!(w.object["status"]["summary"].as_str().unwrap().starts_with("Host m0:"));
    assert_eq!((order(&w).len(), w.workloads[0].replicas), (0, 2), "nothing was touched");
}

/// Closes: defect 6 of the second engine.
#[test]
fn a_run_of_too_many_hosts_is_refused_before_anything_is_touched() {
    let mut w = World::batch("Parallel", "Continue", vec![ordinals(600), ordinals(600)]);
    w.settle();
    assert_eq!(w.condition("Ready"), ("False".into(), reason::RUN_TOO_LARGE.into()));
    let text = w.object["status"]["conditions"].to_string();
    assert!(text.contains("1200 hosts") && text.contains("Nothing was changed"), "{text}");
    assert!(w.jobs.created.is_empty() && w.workloads.iter().all(|w| w.replicas == 600));
    assert!(w.object["status"].to_string().len() < 10_000);
}

#[test]
fn a_daemon_set_on_too_many_nodes_is_refused_at_once() {
    let mut w = World::session(Workload::new("DaemonSet", 1001));
    w.workloads[0].pods = 3;
    w.settle();
    let text = w.object["status"]["summary"].as_str().unwrap();
    assert!(text.contains("1001 nodes") && text.contains("1000 hosts"), "{text}");
    assert!(w.jobs.created.is_empty());
}

/// The size of the status was not foreseen, or the API server has a lower limit than usual.
///
/// Closes: defect 6 of the second engine.
#[test]
fn a_run_whose_status_is_refused_ends_with_workloads_as_they_were() {
    for passes in 0..14 {
        let mut w = World::batch("Sequential", "Stop", vec![set(), web()]);
        w.step(passes);
        if w.run().state.is_final() {
            break;
        }
        let status = w.object["status"].clone();
        if status.is_null() {
            continue;
        }
        w.object["status"] = size::shorten("RestoreBatch", &status, w.now).unwrap();
        w.settle();
        assert_eq!(w.condition("Ready"), ("False".into(), reason::RUN_TOO_LARGE.into()), "{passes}");
        let text = w.object["status"]["conditions"].to_string();
        assert!(text.contains("too large"), "{text}");
    }
}

/// Closes: defect 9 of the second engine.
#[test]
fn jobs_that_the_version_before_made_are_read() {
    let mut w = World::batch("Sequential", "Stop", vec![set(), web()]);
    w.jobs.of_before = true;
    w.settle();
    assert_eq!((w.phase().as_str(), json!(w.object["status"]["run"]["steps"][0]["attempt"])), ("Succeeded", json!(1)));
}
