//! Batches that take their members from a BackupBatch, and which backup they request.

use serde_json::{Value, json};

use crate::api::common::RepositoryRef;
use crate::api::restore_batch::Adopted;
use crate::contract::restic::{HostQuery, Step};
use crate::names::reason;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{claim, order, set, web};
use crate::plan::seen::{Refusal, Seen};

impl World {
    /// What a reconcile reads of BackupBatch `shop`.
    pub fn source(&self) -> Seen<Adopted> {
        let repository = Some(RepositoryRef { name: "repo".into(), namespace: None });
        let members = self.shop.as_ref().map(|m| serde_json::from_value(json!(m)).unwrap());
        members.map_or(Seen::Missing, |members| {
            Seen::Found(Adopted { from: self.run().source.clone().unwrap(), repository, members })
        })
    }
}

/// A sequential batch whose members are those of BackupBatch `shop`.
fn of_shop() -> (World, Vec<Value>) {
    let mut w = World::batch("Sequential", "Stop", vec![web(), set(), claim()]);
    let members = w.object["spec"]["members"].as_array().unwrap().clone();
    let spec = w.object["spec"].as_object_mut().unwrap();
    spec.remove("members");
    spec.remove("repository");
    spec.insert("backupBatch".into(), json!({ "name": "shop" }));
    (w, members)
}

/// Proves: defect 10.
#[test]
fn a_backup_batch_that_is_missing_is_waited_for_by_name() {
    let (mut w, members) = of_shop();
    w.step(3);
    assert_eq!((w.phase().as_str(), w.condition("Reconciling").1.as_str()), ("Pending", reason::PENDING));
    assert_eq!(w.object["status"]["summary"], "Waiting: BackupBatch demo/shop does not exist.");
    let mut late = w.clone();
    w.shop = Some(members);
    w.settle();
    assert_eq!((w.phase().as_str(), w.members().len()), ("Succeeded", 3));

    late.settle();
    assert_eq!(late.events.iter().filter(|e| *e == reason::PENDING).count(), 1, "{:?}", late.events);
    assert_eq!((late.phase().as_str(), late.condition("Stalled").1), ("Failed", reason::DEADLINE_EXCEEDED.to_owned()));
    assert_eq!(late.condition("DeadlineExceeded").0, "True");
    assert_eq!(
        late.object["status"]["summary"],
        "Not started before the deadline. BackupBatch demo/shop does not exist."
    );
    let (mut canceled, _) = of_shop();
    canceled.step(3);
    canceled.cancel();
    canceled.settle();
    assert_eq!(canceled.object["status"]["summary"], "Canceled. Nothing was changed.");
}

#[test]
fn who_may_not_take_from_a_backup_batch_takes_nothing_and_follows_the_policy() {
    let (mut w, members) = of_shop();
    w.refusal = Some(Refusal { reason: reason::REPOSITORY_NOT_ALLOWED.into(), message: "Not you.".into() });
    w.step(5);
    let not_allowed = reason::REPOSITORY_NOT_ALLOWED;
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Invalid", not_allowed));
    assert_eq!((w.jobs.created.len(), w.events.as_slice()), (0, [not_allowed.to_owned()].as_slice()), "said once");
    assert!(w.object["status"]["adopted"].is_null());
    (w.refusal, w.shop) = (None, Some(members));
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn what_becomes_of_the_backup_batch_afterwards_changes_nothing() {
    let mut passes = 0;
    loop {
        let (mut w, members) = of_shop();
        w.shop = Some(members.clone());
        w.step(passes);
        let (taken, over) = (w.object["status"]["adopted"].is_object(), w.run().state.is_final());
        w.shop = if passes % 2 == 0 { None } else { Some(members[..1].to_vec()) };
        if !taken {
            w.shop = Some(members);
        }
        w.settle();
        assert_eq!((w.phase().as_str(), w.members().len()), ("Succeeded", 3), "edited after {passes}");
        if over {
            break;
        }
        passes += 1;
    }
    assert!(passes > 10, "{passes} passes: the test tries what it says");
}

/// Proves: C01.
#[test]
fn a_crash_changes_nothing_of_what_was_taken() {
    let (mut smooth, members) = of_shop();
    smooth.shop = Some(members);
    let mut crashed = vec![];
    smooth.settle_dying(true, |write, w| crashed.push((write, w)));
    for (write, w) in crashed {
        assert_eq!((w.phase(), order(&w)), (smooth.phase(), order(&smooth)), "crash before write {write}");
        assert_eq!(w.object["status"]["adopted"], smooth.object["status"]["adopted"]);
    }
}

/// How a spec change affects the run: another reference is another plan.
#[test]
fn another_reference_under_the_run_ends_it() {
    let (mut w, members) = of_shop();
    w.shop = Some(members);
    w.step(6);
    w.object["spec"]["backupBatch"]["members"] = json!(["m0"]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::SPEC_CHANGED));
}

/// Queries of the first preflight Job of a session whose spec has these fields and this rule.
fn asked(session: &Value, rule: &Value) -> HostQuery {
    let mut w = World::session(claim());
    w.object["spec"]["target"]["rules"] = json!([rule]);
    w.object["spec"]["target"]["args"] = json!(["--tag=a", "--tag=b"]);
    w.object["spec"].as_object_mut().unwrap().extend(session.as_object().unwrap().clone());
    loop {
        if let Some(job) = w.decide().jobs.first() {
            let Step::Preflight(step) = crate::plan::fake::step(job) else { panic!("preflight is the first") };
            return step.hosts[0].clone();
        }
        w.step(1);
    }
}

/// Proves: A02.
#[test]
fn every_preflight_job_knows_all_hosts_that_follow_the_sessions_as_of() {
    let preflights = |w: &World| -> Vec<crate::contract::restic::Preflight> {
        let of = |job| match crate::plan::fake::step(job) {
            Step::Preflight(step) => Some(step),
            _ => None,
        };
        w.jobs.made.iter().filter_map(of).collect()
    };
    let hosts = |p: &crate::contract::restic::Preflight| -> Vec<String> {
        p.together.iter().map(|c| c.source_host.clone()).collect()
    };
    let mut w = World::batch("Parallel", "Continue", vec![web(), set(), claim(), web()]);
    w.object["spec"]["asOf"] = json!("2999-01-01T00:00:00Z");
    w.object["spec"]["members"][2]["target"]["allowEmpty"] = json!(true);
    w.object["spec"]["members"][3]["target"]["rules"] = json!([{ "snapshots": ["latest"], "previous": 1 }]);
    w.settle();
    let all = preflights(&w);
    assert!(!all.is_empty());
    for p in &all {
        assert_eq!(hosts(p), ["m0", "m1-0", "m1-1", "m2"]);
        assert_eq!(p.together.iter().filter(|c| c.optional).count(), 1);
        let start = w.run().state.run.start_time.as_ref().unwrap().0;
        for q in &p.hosts {
            assert_eq!(q.together, q.source_host != "m3", "{}", q.source_host);
            let at = q.as_of.as_ref().map(|at| at.parse::<k8s_openapi::jiff::Timestamp>().unwrap());
            assert!(at.is_none_or(|at| at.duration_since(start).as_secs() == 1), "no later than the run: {at:?}");
        }
    }
    let mut w = World::batch("Parallel", "Continue", vec![web(), claim()]);
    w.settle();
    assert!(preflights(&w).iter().all(|p| p.together.is_empty() && !p.hosts[0].together));
    // The preflight of a member that appears later gets the snapshots that the other members already use.
    let mut w = World::batch("Parallel", "Continue", vec![web(), claim()]);
    w.object["spec"]["asOf"] = json!("2026-11-20T16:00:00Z");
    w.workloads[1].from = 20;
    w.settle();
    assert_eq!(w.phase(), "Succeeded", "{:#}", w.object["status"]);
    let last = preflights(&w).pop().unwrap();
    assert_eq!((last.hosts[0].source_host.as_str(), hosts(&last)), ("m1", vec!["m0".to_owned(), "m1".to_owned()]));
    assert_eq!(last.together[0].pinned.as_ref().map(String::len), Some(16));
    assert_eq!(last.together[1].pinned, None);
}

/// Proves: A02.
#[test]
fn a_rule_that_selects_by_itself_comes_before_the_session() {
    let at = "2026-11-20T16:00:00Z";
    let latest = json!({ "snapshots": ["latest"] });
    let with = |field: &str, value: Value| {
        let mut rule = latest.clone();
        rule[field] = value;
        rule
    };
    let as_of = json!({ "asOf": at });
    assert_eq!(asked(&as_of, &latest).as_of.as_deref(), Some(at));
    assert_eq!(asked(&as_of, &json!({ "paths": ["/data"] })).as_of.as_deref(), Some(at));
    assert_eq!(
        asked(&as_of, &with("asOf", json!("2020-01-01T00:00:00Z"))).as_of.as_deref(),
        Some("2020-01-01T00:00:00Z")
    );
    assert_eq!(
        (asked(&as_of, &with("previous", json!(2))).as_of, asked(&as_of, &with("previous", json!(2))).previous),
        (None, 2)
    );
    assert_eq!(asked(&as_of, &json!({ "snapshots": ["0123456789abcdef"] })).as_of, None);

    let nightly = asked(&json!({ "backupSession": "nightly" }), &with("tags", json!(["gold"])));
    assert_eq!(nightly.session.as_deref(), Some("demo/nightly"));
    assert_eq!(nightly.tags, [["a", "gold"], ["b", "gold"]], "tags only narrow down");
    assert_eq!(asked(&json!({ "backupSession": "prod/nightly" }), &latest).session.as_deref(), Some("prod/nightly"));
    assert_eq!(asked(&json!({ "backupSession": "nightly" }), &with("previous", json!(0))).session, None);
}

/// Proves: A02.
#[test]
fn another_selection_is_another_plan() {
    for change in [json!({ "asOf": "2026-11-20T16:00:00Z" }), json!({ "backupSession": "nightly" })] {
        let mut w = World::session(claim());
        w.step(3);
        w.object["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        w.settle();
        assert_eq!(w.condition("Stalled").1, reason::SPEC_CHANGED);
    }
}
