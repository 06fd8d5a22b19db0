//! `extraneous: Delete`: deleted entries are counted and reported, and nothing that another member needs is deleted.

use serde_json::json;

use crate::contract::Class;
use crate::contract::restic::Step;
use crate::names::reason;
use crate::plan::fake::{End, step};
use crate::plan::restore::tests::workload::Workload;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{claim, order, script, set, web};
use crate::plan::seen::target::PodSeen;

fn exact(mut w: World) -> World {
    w.object["spec"]["target"]["extraneous"] = "Delete".into();
    w
}

/// Two members that restore into one workload by these rules. The second member deletes extraneous entries.
fn shared(order: &str, one: &str, two: &str) -> World {
    let mut w = World::batch(order, "Continue", vec![web(), web()]);
    for (i, path) in [one, two].iter().enumerate() {
        let target = &mut w.object["spec"]["members"][i]["target"];
        target["ref"]["name"] = "m0".into();
        target["rules"] = json!([{ "paths": [path] }]);
    }
    w.object["spec"]["members"][1]["target"]["extraneous"] = "Delete".into();
    w
}

#[test]
fn what_was_deleted_is_counted_over_all_tries() {
    let mut w = exact(World::session(web()));
    script(&mut w, "restore/0/m0", &[End::NotDeleted(2, Class::Transient), End::OutOfMemory, End::Deletes(Some(1))]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Succeeded", 3), "{:#}", w.object["status"]);
    let host = &w.object["status"]["stats"][0];
    assert_eq!((&host["deleted"], &host["moreDeleted"]), (&json!(3), &json!(true)), "one died without an answer");
    assert_eq!(w.object["status"]["summary"], "Restored 1 host: 7 entries, 70 B. Deleted at least 3 entries.");
    let told = w.events.iter().filter(|e| *e == reason::EXTRANEOUS_DELETED).count();
    assert_eq!(told, 2, "{:?}", w.events);
    // Both the preflight and the restore get the setting.
    for job in &w.jobs.made {
        match step(job) {
            Step::Preflight(asked) => assert!(asked.hosts[0].exact),
            Step::Restore(step) => assert!(step.exact),
            other => panic!("{other:?}"),
        }
    }
    // An attempt that could not begin has deleted nothing.
    let mut w = exact(World::session(web()));
    script(&mut w, "restore/0/m0", &[End::TRANSIENT, End::Deletes(Some(1))]);
    w.settle();
    assert_eq!(w.object["status"]["summary"], "Restored 1 host: 7 entries, 70 B. Deleted 1 entry.");
    // If nothing was extraneous, status says that too.
    let mut w = exact(World::session(claim()));
    w.settle();
    assert_eq!(w.object["status"]["summary"], "Restored 1 host: 7 entries, 70 B. Deleted 0 entries.");
    assert_eq!(w.events, ["Succeeded"]);
}

#[test]
fn without_it_nothing_is_deleted_and_nothing_said() {
    let mut w = World::session(web());
    w.object["spec"]["target"]["extraneous"] = "Keep".into();
    w.settle();
    assert!(w.object["status"]["stats"][0].get("deleted").is_none());
    let exact = |job| matches!(step(job), Step::Restore(step) if step.exact);
    assert!(!w.jobs.made.iter().any(exact));
}

/// This also holds if everything is restored: the workload does not have the state that was requested.
#[test]
fn a_workload_stays_down_where_not_all_could_be_deleted() {
    let mut w = exact(World::session(web()));
    script(&mut w, "restore/0/m0", &[End::NotDeleted(2, Class::Data)]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::EXTRANEOUS_NOT_DELETED));
    assert_eq!(w.object["status"]["stats"][0]["deleted"], 2);
    assert_eq!((&w.object["status"]["quiesce"]["state"], w.workloads[0].replicas), (&json!("Held"), 0));
}

#[test]
fn a_job_that_does_not_say_what_it_deleted_is_no_success() {
    let mut w = exact(World::session(web()));
    script(&mut w, "restore/0/m0", &[End::Deletes(None)]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::AGENT_FAILED));
}

#[test]
fn pods_that_use_the_volumes_are_waited_for() {
    let beside = || PodSeen { name: "beside".into(), claims: vec!["data-m0".into()], ..PodSeen::default() };
    let worlds = || {
        let mut other = exact(World::session(web()));
        other.others = vec![beside()];
        [(exact(World::session(Workload::new("PersistentVolumeClaim", 1))), "m0-0"), (other, "beside")]
    };
    for (mut w, pod) in worlds() {
        w.settle();
        assert_eq!((w.phase().as_str(), order(&w).len()), ("Failed", 0), "nothing is touched");
        let said = w.object["status"]["summary"].as_str().unwrap();
        assert!(said.contains("extraneous is Delete") && said.contains(pod), "{said}");
        assert!(w.object["status"].get("quiesce").is_none(), "{:#}", w.object["status"]);
    }
    // Once the other pods are gone, the restore continues.
    for (mut w, _) in worlds() {
        w.step(8);
        assert_eq!(order(&w).len(), 0);
        w.others.clear();
        if w.workloads[0].kind == "PersistentVolumeClaim" {
            (w.workloads[0].replicas, w.workloads[0].wanted, w.workloads[0].pods) = (0, 0, 0);
        }
        w.settle();
        assert_eq!(w.phase(), "Succeeded", "{:#}", w.object["status"]);
    }
    // The check also applies between two attempts.
    let mut w = exact(World::session(Workload::new("PersistentVolumeClaim", 0)));
    script(&mut w, "restore/0/m0", &[End::TRANSIENT]);
    while w.jobs.attempts("restore/0/m0") == 0 {
        w.step(1);
    }
    (w.workloads[0].replicas, w.workloads[0].wanted, w.workloads[0].pods) = (1, 1, 1);
    w.settle();
    assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Failed", 1));
    let said = w.object["status"]["stats"][0]["error"].as_str().unwrap();
    assert!(said.contains("m0-0") && said.contains("deadline"), "{said}");
}

/// No other pod may write where a Job deletes: the Job is stopped, and begins again when the pods are gone.
#[test]
fn a_job_that_deletes_is_stopped_when_somebody_uses_the_volumes() {
    let mut w = exact(World::session(Workload::new("PersistentVolumeClaim", 0)));
    script(&mut w, "restore/0/m0", &[End::Never]);
    while !w.jobs.running().contains(&"restore/0/m0".to_owned()) {
        w.step(1);
    }
    w.others = vec![PodSeen { name: "late".into(), claims: vec!["m0".into()], ..PodSeen::default() }];
    while !w.jobs.running().is_empty() {
        w.step(1);
    }
    w.step(5);
    let host = &w.object["status"]["stats"][0];
    assert_eq!((&host["reason"], &host["moreDeleted"]), (&json!(reason::TARGET_BUSY), &json!(true)), "{host:#}");
    // The workload itself is scaled up by hand.
    let mut w = exact(World::session(web()));
    script(&mut w, "restore/0/m0", &[End::Never]);
    while !w.jobs.running().contains(&"restore/0/m0".to_owned()) {
        w.step(1);
    }
    w.workloads[0].replicas = 1;
    while !w.jobs.running().is_empty() {
        w.step(1);
    }
    w.workloads[0].replicas = 0;
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::QUIESCE_BROKEN));
    assert_eq!(w.object["status"]["stats"][0]["moreDeleted"], true);
}

#[test]
fn what_is_cut_off_may_have_deleted_more_than_is_counted() {
    for way in ["cancel", "deadline"] {
        let mut w = exact(World::session(web()));
        script(&mut w, "restore/0/m0", &[End::Never]);
        while !w.jobs.running().contains(&"restore/0/m0".to_owned()) {
            w.step(1);
        }
        if way == "cancel" {
            w.cancel();
        }
        w.settle();
        assert_eq!(w.object["status"]["stats"][0]["moreDeleted"], true, "{way}: {:#}", w.object["status"]);
    }
}

/// For a folder of a node, it is not known which other pods write to it.
#[test]
fn only_claims_are_deleted_from() {
    let mut web = web();
    web.on_host = true;
    let mut w = exact(World::session(web.clone()));
    w.settle();
    let why = w.condition("Stalled").1;
    assert_eq!(
        (w.phase().as_str(), why.as_str()),
        ("Failed", reason::EXTRANEOUS_NOT_POSSIBLE),
        "{:#}",
        w.object["status"]
    );
    assert!(w.object["status"].get("quiesce").is_none() && order(&w).is_empty());
    let mut w = World::session(web);
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

/// A link on the volume can make two subPaths the same folder.
#[test]
fn sub_paths_of_one_volume_are_not_told_apart() {
    for (one, two, fails) in [("a", "b", true), ("a", "a", true), ("", "a", true)] {
        let mut w = shared("Sequential", "/data/x", "/data/y");
        for (i, sub) in [one, two].iter().enumerate() {
            let target = &mut w.object["spec"]["members"][i]["target"];
            target["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data", "subPath": sub }]);
            target["rules"] = json!([{ "paths": ["/data"] }]);
        }
        w.settle();
        let members = ["Succeeded", if fails { "Failed" } else { "Succeeded" }];
        assert_eq!(w.members(), members, "{one} {two}: {:#}", w.object["status"]);
        assert_eq!(w.condition("Stalled").1, reason::EXTRANEOUS_OF_ANOTHER);
    }
}

/// Otherwise each member would wait until the deadline for the pods of the other.
#[test]
fn members_whose_pods_use_each_others_volumes_are_refused_at_once() {
    let mut w = World::batch("Parallel", "Continue", vec![web(), web()]);
    w.object["spec"]["members"][0]["target"]["extraneous"] = "Delete".into();
    w.others = vec![PodSeen { name: "m1-0".into(), claims: vec!["data-m0".into()], ..PodSeen::default() }];
    w.step(12);
    w.others.clear();
    w.settle();
    assert_eq!(w.members(), ["Failed", "Succeeded"], "{:#}", w.object["status"]);
    assert_eq!(w.condition("Stalled").1, reason::EXTRANEOUS_OF_ANOTHER);
    let said = w.object["status"]["members"][0]["message"].as_str().unwrap();
    assert!(said.contains("pods of member 1 (m1) use the volumes of member 0 (m0)"), "{said}");
}

#[test]
fn no_member_deletes_what_another_one_restores() {
    for order_ in ["Sequential", "Parallel"] {
        for (one, two, fails) in [
            ("/data", "/data", true),
            ("/data/a", "/data", true),
            ("/data", "/data/a", true),
            ("/data/a", "/data/b", false),
            ("/data/a", "/data/ab", false),
        ] {
            let mut w = shared(order_, one, two);
            w.settle();
            let members = ["Succeeded", if fails { "Failed" } else { "Succeeded" }];
            assert_eq!(w.members(), members, "{order_} {one} {two}: {:#}", w.object["status"]);
            if fails {
                assert_eq!(order(&w), ["restore/0/m0"]);
                assert_eq!(w.condition("Stalled").1, reason::EXTRANEOUS_OF_ANOTHER);
                let said = w.object["status"]["members"][1]["message"].as_str().unwrap();
                assert!(said.contains("PersistentVolumeClaim data-m0") && said.contains("host m1"), "{said}");
            }
        }
    }
    // Without rules that name paths, the content of a snapshot is not known.
    let mut w = shared("Sequential", "/data/a", "/data/b");
    w.object["spec"]["members"][0]["target"]["rules"] = json!([{ "snapshots": ["latest"] }]);
    w.settle();
    assert_eq!(w.members(), ["Succeeded", "Failed"]);
}

#[test]
fn hosts_of_one_target_may_not_share_a_volume_that_they_delete_from() {
    let mut w = exact(World::session(set()));
    w.settle();
    assert_eq!((w.phase().as_str(), order(&w).len()), ("Succeeded", 2), "each has its own claim");

    // One volume is mounted at two paths.
    let twice = |two: &str, paths: &[&str]| {
        let mut w = exact(World::session(web()));
        let target = &mut w.object["spec"]["target"];
        target["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" },
            { "name": "data", "mountPath": "/again", "subPath": two }]);
        target["rules"] = json!([{ "paths": paths }]);
        w.settle();
        w
    };
    let w = twice("a", &["/data", "/again"]);
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::EXTRANEOUS_OF_ANOTHER));
    assert!(w.object["status"].get("quiesce").is_none() && order(&w).is_empty());
    for (two, paths) in [("a", &["/data"][..]), ("a", &["/data/b", "/again"]), ("a", &["/again", "/again/b"])] {
        assert_eq!(twice(two, paths).phase(), "Succeeded", "{two} {paths:?}");
    }
}
