//! Which restores end a hold: those that overwrite everything that is half restored.

use serde_json::{Value, json};

use crate::plan::fake::End;
use crate::plan::restore::tests::held::{again, left_down, note};
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{script, set, web};

/// A session `uid` after another session, with this rule.
pub fn of(before: &World, uid: &str, rule: Value) -> World {
    let mut w = World::session(before.workloads[0].clone());
    w.now = before.now;
    w.object["metadata"]["name"] = uid.into();
    w.object["metadata"]["uid"] = uid.into();
    w.object["spec"]["target"]["rules"] = json!([rule]);
    w
}

/// Without paths, only the content of a snapshot is restored, and nothing else of the volume.
#[test]
fn of_a_rule_without_paths_those_of_the_snapshots_count() {
    let latest = || json!({ "snapshots": ["latest"] });
    let paths = |paths: &[&str]| json!({ "paths": paths });
    let several: &[&str] = &[];
    for (rule, held, then, now, comes_back) in [
        (paths(&["/data/a", "/data/b"]), &["/data/a", "/data/b"][..], latest(), &["/data/a"][..], false),
        (paths(&["/data/a", "/data/b"]), &["/data/a", "/data/b"], latest(), &["/data/a", "/data/b"], true),
        (paths(&["/data/a"]), &["/data/a"], latest(), &["/data"], true),
        (latest(), &["/data/a"], paths(&["/data/a"]), several, true),
        (latest(), &["/data/a"], latest(), &["/data/b"], false),
        // A snapshot of several paths, which status does not list.
        (latest(), several, latest(), several, true),
        (latest(), several, latest(), &["/data/a"], false),
        (latest(), several, paths(&["/data"]), several, true),
        (paths(&["/data/a"]), several, latest(), several, false),
    ] {
        let mut first = of(&World::session(web()), "u-1", rule.clone());
        let owned = |list: &[&str]| list.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        (first.jobs.paths, first.jobs.snapshots_each) = (owned(held), held.len().max(1));
        script(&mut first, "restore/0/m0", &[End::DATA]);
        first.settle();
        let mut w = of(&first, "u-2", then.clone());
        (w.jobs.paths, w.jobs.snapshots_each) = (owned(now), now.len().max(1));
        w.settle();
        assert_eq!(w.phase(), "Succeeded", "{:#}", w.object["status"]);
        let up = if comes_back { 2 } else { 0 };
        assert_eq!(
            (w.workloads[0].replicas, note(&w, 0).is_none()),
            (up, comes_back),
            "{rule} {held:?}, {then} {now:?}"
        );
    }
}

/// Files of the other snapshot may be half written, and this snapshot does not contain them.
#[test]
fn a_restore_of_another_snapshot_does_not_end_it_unless_it_deletes_what_it_has_not() {
    let left = left_down();
    let other = |exact: bool| {
        let mut w = again(&left);
        w.jobs.snapshot = Some("ef".repeat(32));
        if exact {
            w.object["spec"]["target"]["rules"] = json!([{ "paths": ["/data"] }]);
            w.object["spec"]["target"]["extraneous"] = "Delete".into();
        }
        w.settle();
        assert_eq!(w.phase(), "Succeeded", "{:#}", w.object["status"]);
        w
    };
    let w = other(false);
    assert_eq!(w.workloads[0].replicas, 0);
    let text = w.condition_text("Quiesced");
    assert!(
        text.contains("did not restore / of PersistentVolumeClaim data-m0 from snapshot cdcdcdcd, so that"),
        "{text}"
    );
    // A user who sets ScaleBack gets the workload back, whatever its volumes contain.
    let mut back = again(&w);
    back.jobs.snapshot = Some("ef".repeat(32));
    back.object["spec"]["target"]["afterFailure"] = "ScaleBack".into();
    back.settle();
    assert_eq!((back.workloads[0].replicas, note(&back, 0)), (2, None));
    // The user gets a warning.
    assert!(back.condition_text("Quiesced").contains("may be half restored, and afterFailure is ScaleBack"));
    assert_eq!(back.object["status"]["quiesce"]["held"], false);

    assert_eq!(other(true).workloads[0].replicas, 2);
    // The original snapshot, restored after the other snapshot: that restore left nothing half restored.
    let mut w = again(&w);
    w.settle();
    assert_eq!((w.workloads[0].replicas, note(&w, 0)), (2, None));
}

/// A restore that skips existing files, or has no files to restore, leaves half-restored files as they are.
#[test]
fn a_restore_that_writes_nothing_over_it_does_not_end_it() {
    let left = left_down();
    for args in [json!(["--overwrite=never"]), json!(["--overwrite", "if-newer"]), json!(["--overwrite=if-changed"])] {
        let mut w = again(&left);
        w.object["spec"]["target"]["args"] = args.clone();
        w.settle();
        assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Succeeded", 0), "{args}");
    }
    // A host without a snapshot does not count as restored.
    let mut first = World::session(set());
    script(&mut first, "restore/0/m0-1", &[End::DATA]);
    first.settle();
    let mut w = World::session(first.workloads[0].clone());
    (w.now, w.object["metadata"]["uid"]) = (first.now, "u-2".into());
    w.object["spec"]["target"]["allowEmpty"] = true.into();
    w.jobs.without_snapshot.insert("m0-1".into());
    w.settle();
    let status = &w.object["status"];
    assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Succeeded", 0), "{status:#}");
    assert!(w.condition_text("Quiesced").contains("did not restore /"), "{status:#}");
}

/// A restore of other data does not bring the workload back.
#[test]
fn only_a_restore_of_what_is_half_restored_ends_it() {
    let half = |rule: Value| {
        let mut w = of(&World::session(web()), "u-1", rule);
        script(&mut w, "restore/0/m0", &[End::DATA]);
        w.settle();
        assert_eq!(w.workloads[0].replicas, 0);
        w
    };
    let paths = |paths: &[&str]| json!({ "paths": paths });
    for (first, then, comes_back) in [
        (paths(&["/data/big"]), paths(&["/data/small"]), false),
        (paths(&["/data/big"]), paths(&["/data/big/inner"]), false),
        (paths(&["/data/big", "/data/more"]), paths(&["/data/big"]), false),
        (paths(&["/data/big"]), paths(&["/data/big"]), true),
        (paths(&["/data/big"]), paths(&["/data"]), true),
        (paths(&["/data/big"]), json!({ "snapshots": ["latest"] }), false),
        (paths(&["/data"]), json!({ "paths": ["/data"], "exclude": ["*.tmp"] }), false),
        (json!({ "paths": ["/data"], "include": ["a"] }), json!({ "paths": ["/data"], "include": ["a"] }), true),
        (json!({ "paths": ["/data"], "include": ["a"] }), json!({ "paths": ["/data"], "include": ["b"] }), false),
        (json!({ "paths": ["/data"], "include": ["a"] }), paths(&["/data"]), true),
    ] {
        let mut w = of(&half(first.clone()), "u-2", then.clone());
        w.settle();
        let status = &w.object["status"];
        assert_eq!(w.phase(), "Succeeded", "{first} {then}: {status:#}");
        let up = if comes_back { 2 } else { 0 };
        assert_eq!((w.workloads[0].replicas, note(&w, 0).is_none()), (up, comes_back), "{first} {then}: {status:#}");
        if comes_back {
            continue;
        }
        let summary = status["summary"].as_str().unwrap();
        assert!(summary.contains("Deployment/m0 stays at 0 replicas"), "{summary}");
        let quiesced = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Quiesced").unwrap();
        let said = quiesced["message"].as_str().unwrap();
        assert!(said.contains("This restore did not restore /"), "{said}");
        // A restore that also fails adds its own paths.
        let mut w = of(&w, "u-3", paths(&["/data/third"]));
        script(&mut w, "restore/0/m0", &[End::DATA]);
        w.settle();
        let mut w = of(&w, "u-4", paths(&["/data/third"]));
        w.settle();
        assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Succeeded", 0), "the first one is still half");
        let mut w = of(&w, "u-5", paths(&["/data"]));
        w.settle();
        assert_eq!((w.phase().as_str(), w.workloads[0].replicas, note(&w, 0)), ("Succeeded", 2, None));
    }
}
