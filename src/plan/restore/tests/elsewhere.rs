//! A Repository in another namespace: which sessions are allowed, and what is left afterwards.

use serde_json::json;

use crate::names::reason;
use crate::plan::fake::End;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{claim, script, set, web};

fn denied(w: &World) {
    assert_eq!((w.phase().as_str(), w.jobs.created.len(), w.grants.made.len()), ("Invalid", 0, 0));
    let not_allowed = ("False".to_owned(), reason::REPOSITORY_NOT_ALLOWED.to_owned());
    assert_eq!(w.condition("RepositoryFound"), not_allowed);
    assert_eq!(w.condition("Stalled"), ("True".to_owned(), reason::REPOSITORY_NOT_ALLOWED.to_owned()));
}

/// Proves: A07.
#[test]
fn rights_last_as_long_as_the_run_whatever_crashes() {
    let mut smooth = World::batch("Sequential", "Continue", vec![web(), set(), claim()]).elsewhere(0);
    let mut crashed = vec![];
    smooth.settle_dying(true, |write, w| crashed.push((write, w)));
    assert_eq!((smooth.phase().as_str(), smooth.grants.made.len()), ("Succeeded", 3));
    for (write, w) in crashed {
        assert_eq!((w.phase().as_str(), &w.grants.made), ("Succeeded", &smooth.grants.made), "crash before {write}");
    }
}

#[test]
fn a_run_that_is_deleted_leaves_no_right_whatever_crashes() {
    for delete_at in 0..10 {
        let mut smooth = World::batch("Parallel", "Stop", vec![web(), set()]).elsewhere(0);
        smooth.delete_at = delete_at;
        smooth.settle_dying(false, |write, w| assert!(w.gone, "crash before write {write}"));
        assert!(smooth.gone);
    }
}

/// Proves: scenario 21, scenario 22, invented 20.
#[test]
fn who_is_not_allowed_is_invalid_and_follows_the_policy() {
    let mut w = World::session(web()).elsewhere(6);
    w.step(5);
    denied(&w);
    assert_eq!(w.events, [reason::REPOSITORY_NOT_ALLOWED], "said once");
    w.settle();
    assert_eq!((w.phase().as_str(), w.grants.made.len()), ("Succeeded", 3));
}

/// Waiting for a Repository that is created later does not begin the run.
#[test]
fn who_came_before_a_repository_that_does_not_allow_it_is_invalid_too() {
    let mut w = World::session(web()).elsewhere(20);
    w.repository = false;
    w.step(3);
    denied(&w);
    w.repository = true;
    w.step(3);
    denied(&w);
    w.settle();
    assert_eq!((w.phase().as_str(), w.grants.made.len()), ("Succeeded", 3));
}

#[test]
fn who_is_never_allowed_fails_at_the_deadline() {
    let mut w = World::session(web()).elsewhere(usize::MAX);
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::REPOSITORY_NOT_ALLOWED));
}

#[test]
fn who_is_not_allowed_may_name_another_repository() {
    let mut w = World::session(web()).elsewhere(usize::MAX);
    w.step(5);
    denied(&w);
    w.object["spec"]["repository"] = json!({ "name": "repo" });
    w.object["metadata"]["generation"] = json!(2);
    w.settle();
    assert_eq!((w.phase().as_str(), w.grants.made.len()), ("Succeeded", 0));
}

#[test]
fn a_policy_that_changes_under_a_run_begins_nothing_more_and_leaves_no_right() {
    for until in 2..14 {
        let mut w = World::batch("Sequential", "Stop", vec![web(), claim()]).elsewhere(0);
        w.policies.push((until, json!({})));
        script(&mut w, "restore/0/m0", &[End::TRANSIENT]);
        w.settle();
        assert!(["Failed", "Succeeded"].contains(&w.phase().as_str()), "{until}: {}", w.phase());
    }
}

/// Closes: row 4 of the attacks by tenants.
#[test]
fn a_policy_that_is_taken_back_ends_jobs_and_rights_at_once_and_for_good() {
    for comes_back in [false, true] {
        let mut w = World::batch("Sequential", "Continue", vec![web(), claim()]).elsewhere(0);
        script(&mut w, "restore/0/m0", &[End::Never]);
        while !w.jobs.running().contains(&"restore/0/m0".to_owned()) {
            w.beat();
        }
        assert_eq!(w.grants.there.len(), 3);
        w.policies.push((w.passes, json!({})));
        if comes_back {
            let all = json!({ "allowedNamespaces": { "from": "All" } });
            w.policies.push((w.passes + 1, all));
        }
        w.beat();
        assert!(w.grants.there.is_empty(), "rights go before the Job is gone");
        assert_eq!(w.run().state.run.grants, []);
        w.settle();
        let not_allowed = reason::REPOSITORY_NOT_ALLOWED;
        assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", not_allowed));
        assert_eq!(w.jobs.attempts("restore/1/m1"), 0, "nothing is begun after it");
    }
}

/// Closes: row 4 of the attacks by tenants.
#[test]
fn a_run_that_only_waits_has_no_right() {
    let mut w = World::session(web()).elsewhere(0);
    script(&mut w, "restore/0/m0", &[End::TRANSIENT, End::Ok]);
    let mut waited = 0;
    while w.advance() {
        let held = w.jobs.running().is_empty() && !w.run().state.is_final();
        waited += usize::from(held && w.run().state.run.grants.is_empty());
    }
    assert!(waited > 0 && w.phase() == "Succeeded");
    w.is_left_well();
}

/// Closes: defect 13 of the second engine.
#[test]
fn rights_that_cannot_be_taken_back_hold_a_run_for_a_while_only() {
    let mut w = World::session(web()).elsewhere(0);
    w.refuses_revokes = true;
    w.settle_but_for_rights();
    assert_eq!((w.phase().as_str(), w.run().id.held), ("Succeeded", false));
    let said = w.events.iter().filter(|e| *e == reason::RIGHT_NOT_TAKEN_BACK).count();
    assert!((4..20).contains(&said), "said {said} times");
    assert!(!w.grants.there.is_empty(), "they stay, and an event says which");
    // Once the rights can be revoked again, they are removed.
    let mut w = World::session(web()).elsewhere(0);
    w.refuses_revokes = true;
    while w.phase() != "Succeeded" {
        w.beat();
    }
    w.beat();
    assert!(w.run().id.held && !w.run().state.run.grants.is_empty());
    w.refuses_revokes = false;
    w.settle();
}

/// Closes: row 4 of the attacks by tenants.
#[test]
fn no_run_takes_longer_than_the_operator_allows() {
    let mut w = World::session(web());
    w.object["spec"]["timeOut"] = json!("87600h");
    w.settle();
    let text = w.object["status"]["summary"].as_str().unwrap().to_owned();
    assert_eq!((w.phase().as_str(), w.jobs.created.len()), ("Invalid", 0));
    assert!(text.starts_with("spec.timeOut: 87600h is more than the 168h0m0s"), "{text}");
    let mut w = World::batch("Parallel", "Stop", vec![web(), claim()]);
    w.object["spec"]["members"][1]["timeOut"] = json!("169h");
    w.settle();
    assert!(w.object["status"]["summary"].as_str().unwrap().starts_with("spec.members[1].timeOut"));
}

#[test]
fn a_changed_spec_leaves_no_right_in_the_namespace_it_named_before() {
    for passes in 1..12 {
        let mut w = World::session(claim()).elsewhere(0);
        w.step(passes);
        w.object["spec"]["repository"]["namespace"] = "elsewhere".into();
        w.object["metadata"]["generation"] = json!(2);
        w.settle();
    }
}
