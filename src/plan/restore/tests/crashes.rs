//! The controller dies before every single write, and in any combination of writes: the end is the same.

use proptest::prelude::*;

use crate::plan::fake::End;
use crate::plan::restore::tests::workload::{MADE, Workload};
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{claim, script, set, web};

/// The results that must be the same with and without a crash.
fn end(world: &World) -> (String, Vec<String>, Vec<String>) {
    let mut steps: Vec<String> = world.jobs.created.iter().map(|(k, a)| format!("{k}#{a}")).collect();
    steps.sort();
    steps.dedup();
    (world.phase(), world.members(), steps)
}

#[test]
fn a_crash_before_any_write_changes_nothing() {
    let (daemons, made) = (Workload::new("DaemonSet", 2), Workload::new(MADE, 2));
    let on_host = Workload { on_host: true, ..web() };
    let mut smooth = World::batch("Sequential", "Continue", vec![web(), set(), claim(), on_host, daemons, made]);
    script(&mut smooth, "restore/0/m0", &[End::TRANSIENT]);
    script(&mut smooth, "restore/5/m5-1", &[End::TRANSIENT]);
    script(&mut smooth, "restore/1/m1-1", &[End::DATA]);
    let mut crashed = vec![];
    // Twice: the resumed controller dies at its first write again.
    smooth.settle_dying(true, |write, w| crashed.push((write, end(&w))));
    let done = "Succeeded";
    assert_eq!(smooth.members(), [done, "Failed", done, done, done, done]);
    assert!(smooth.writes > 25, "{} writes: the test tries what it says", smooth.writes);
    for (write, ended) in crashed {
        assert_eq!(ended, end(&smooth), "crash before write {write}");
    }
}

#[test]
fn a_crash_in_a_session_or_under_a_shared_workload_is_nobodys_scaling() {
    let mut shared = World::batch("Parallel", "Stop", vec![web(), web()]);
    shared.object["spec"]["members"][1]["target"]["ref"]["name"] = "m0".into();
    for mut world in [World::session(web()), shared] {
        world.settle_dying(false, |write, w| assert_eq!(w.phase(), "Succeeded", "crash before write {write}"));
    }
}

#[test]
fn a_crash_while_it_leaves_changes_nothing() {
    for delete_at in [5, 7, 9] {
        let mut smooth = World::batch("Parallel", "Stop", vec![web(), set()]);
        smooth.delete_at = delete_at;
        smooth.settle_dying(false, |write, w| assert!(w.gone, "crash before write {write}"));
        assert!(smooth.gone);
    }
}

fn ending() -> impl Strategy<Value = End> {
    prop_oneof![
        6 => Just(End::Ok),
        2 => Just(End::TRANSIENT),
        1 => Just(End::DATA),
        1 => Just(End::OutOfMemory),
        1 => Just(End::PodLingers),
        1 => Just(End::DeletedByHand),
        1 => Just(End::Short),
        1 => Just(End::Empty),
        1 => Just(End::OtherRun),
        1 => Just(End::Never),
    ]
}

#[derive(Clone, Debug)]
struct Member {
    workload: Workload,
    ends: Vec<Vec<End>>,
    snapshot: bool,
}

fn member() -> impl Strategy<Value = Member> {
    let kind = prop::sample::select(vec![
        "Deployment",
        "StatefulSet",
        "PersistentVolumeClaim",
        "ReplicaSet",
        "ReplicationController",
        "DaemonSet",
        MADE,
    ]);
    let ends = prop::collection::vec(prop::collection::vec(ending(), 0..4), 2);
    let from = prop_oneof![5 => Just(0usize), 1 => 1..30usize, 1 => Just(usize::MAX)];
    let until = prop_oneof![6 => Just(usize::MAX), 1 => 3..60usize];
    (kind, 0..3i32, ends, prop::bool::weighted(0.9), from, until).prop_map(
        |(kind, replicas, ends, snapshot, from, until)| {
            let replicas = match kind {
                "PersistentVolumeClaim" => 0,
                "StatefulSet" | "DaemonSet" | MADE => replicas.max(1),
                _ => replicas,
            };
            Member { workload: Workload { from, until, ..Workload::new(kind, replicas) }, ends, snapshot }
        },
    )
}

/// Hosts of a member, named after its alias.
fn hosts(index: usize, workload: &Workload) -> Vec<String> {
    match workload.kind {
        "StatefulSet" | MADE => (0..workload.wanted).map(|o| format!("m{index}-{o}")).collect(),
        "DaemonSet" => (0..workload.wanted).map(|n| format!("m{index}-n{n}")).collect(),
        _ => vec![format!("m{index}")],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_run_ends_well_or_says_that_it_did_not(
        members in prop::collection::vec(member(), 1..=4),
        session: bool,
        sequential: bool,
        stop: bool,
        crashes in prop::collection::vec(0..60usize, 0..6),
        delete_at in prop_oneof![4 => Just(usize::MAX), 1 => 0..60usize],
        cancel_at in prop_oneof![4 => Just(usize::MAX), 1 => 0..60usize],
        repository_until in prop_oneof![6 => Just(usize::MAX), 1 => 0..60usize],
        elsewhere in prop::option::of(0..10usize),
    ) {
        let workloads: Vec<Workload> = members.iter().map(|m| m.workload.clone()).collect();
        let mut w = if session && members.len() == 1 {
            World::session(workloads[0].clone())
        } else {
            let order = if sequential { "Sequential" } else { "Parallel" };
            World::batch(order, if stop { "Stop" } else { "Continue" }, workloads.clone())
        };
        if let Some(allowed_from) = elsewhere {
            w = w.elsewhere(allowed_from);
        }
        let batch = w.object["kind"] == "RestoreBatch";
        for (index, member) in members.iter().enumerate() {
            for (host, ends) in hosts(index, &member.workload).iter().zip(&member.ends) {
                w.jobs.script.insert(format!("restore/{index}/{host}"), ends.clone());
                if !member.snapshot {
                    w.jobs.without_snapshot.insert(host.clone());
                }
            }
        }
        (w.crashes, w.delete_at, w.cancel_at, w.repository_until) = (crashes, delete_at, cancel_at, repository_until);
        // The run ends in a bounded number of passes, with every workload back, no Job running and no finalizer;
        // `settle` asserts this.
        w.settle();
        let done = |index: usize| hosts(index, &workloads[index]).iter().all(|h| w.jobs.done.contains(&format!("restore/{index}/{h}")));
        if w.phase() == "Succeeded" {
            for index in 0..workloads.len() {
                prop_assert!(done(index), "Succeeded, but m{} was not restored", index);
            }
        }
        if batch && sequential && !w.gone {
            let started: Vec<usize> = w.jobs.created.iter().filter_map(|(k, _)| k.strip_prefix("restore/")?.split('/').next()?.parse().ok()).collect();
            prop_assert!(started.is_sorted(), "in order: {:?}", started);
            let phases = w.members();
            if stop && let Some(failed) = phases.iter().position(|p| p == "Failed") {
                prop_assert!(started.iter().all(|s| *s <= failed), "started after m{}: {:?}", failed, started);
                prop_assert!(phases[failed + 1..].iter().all(|p| p != "Succeeded"));
            }
        }
    }
}
