//! Backups of many paths and hosts: no backup is lost because of its answer, and none begins whose status is too large.

use serde_json::json;

use crate::names::reason;
use crate::plan::backup::tests::world::World;
use crate::plan::run::size;
use crate::plan::seen::target::Target;

/// Everything was uploaded, but the answer did not fit.
///
/// Closes: defect 2 of the second engine.
#[test]
fn a_backup_of_many_paths_succeeds() {
    for count in [16, 64, 255] {
        let paths: Vec<String> = (0..count).map(|n| format!("/stash-data/{n}/{}", "x".repeat(100))).collect();
        let mut w = World::new(1, false, true);
        w.invoker().members[0].target.as_mut().unwrap().paths.clone_from(&paths);
        w.settle();
        assert_eq!(w.phase(), "Succeeded", "{}", w.summary());
        let made = w.status["targets"][0]["stats"][0]["snapshots"].as_array().unwrap();
        assert_eq!(made.iter().map(|s| s["path"].as_str().unwrap()).collect::<Vec<_>>(), paths);
        assert!(made.iter().all(|s| s["name"] == "abababab" && s["totalSize"] == "0 B"), "{:#}", made[0]);
        // For very many paths, the answer has less detail.
        assert!(count > 64 || made.iter().all(|s| s["fileStats"]["newFiles"] == 0), "{:#}", made[0]);
    }
}

/// Closes: defect 6 of the second engine.
#[test]
fn a_backup_of_too_many_hosts_is_refused_before_it_begins() {
    let mut w = World::new(2, false, true);
    w.found = Some(Target { kind: "StatefulSet".into(), name: "m0".into(), replicas: 1000, ..Target::default() });
    w.settle();
    assert_eq!((w.phase(), w.stalled()), ("Failed", reason::RUN_TOO_LARGE));
    assert!(w.summary().contains("1001 hosts"), "{}", w.summary());
    assert!(w.jobs.created.is_empty() && w.status["nextRetry"].is_null());
    let mut w = World::new(1, false, true);
    w.found = Some(Target { kind: "DaemonSet".into(), desired_nodes: Some(1001), ..Target::default() });
    w.settle();
    assert!(w.summary().contains("1001 nodes") && w.phase() == "Failed", "{}", w.summary());
}

#[test]
fn a_backup_whose_status_is_refused_ends_and_stops_its_jobs() {
    let mut w = World::new(2, false, true);
    w.until("backup/1/m1");
    w.status = size::shorten("BackupSession", &w.status, w.now).unwrap();
    w.settle();
    assert_eq!((w.phase(), w.stalled()), ("Failed", reason::RUN_TOO_LARGE));
    assert_eq!(json!(w.status["nextRetry"]), json!(null));
}

/// Closes: defect 9 of the second engine.
#[test]
fn jobs_that_the_version_before_made_are_read() {
    let mut w = World::new(2, true, true);
    w.jobs.of_before = true;
    w.settle();
    assert_eq!((w.phase(), w.jobs.created.len()), ("Succeeded", 4));
}
