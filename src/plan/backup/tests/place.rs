//! A Repository whose backend is changed while a session runs.

use serde_json::json;

use crate::names::reason;
use crate::plan::backup::tests::world::{World, retry, script};
use crate::plan::fake::End;

fn prefix(w: &mut World, prefix: &str) {
    w.backend["s3"]["prefix"] = json!(prefix);
}

#[test]
fn one_session_never_works_in_two_places() {
    for (step, attempts) in [("backup/0/m0", 1), ("backup/1/m1", 2), ("maintain", 2)] {
        let mut w = World::new(2, true, true);
        w.invoker().retry = Some(retry(1));
        w.until(step);
        let begun = w.jobs.created.len();
        prefix(&mut w, "new");
        w.settle();
        assert_eq!((w.phase(), w.stalled()), ("Failed", reason::SPEC_CHANGED), "{step}");
        assert!(w.summary().starts_with("The backend of Repository demo/repo was changed during"), "{}", w.summary());
        assert_eq!(w.jobs.created.len(), begun, "{step}: nothing is begun in the new place");
        assert_eq!(w.jobs.created.iter().filter(|(key, _)| key.starts_with("backup/")).count(), attempts);
        // The new place is not known: the next session begins there from the start.
        assert!(w.last_facts.get("knownPlace").is_none(), "{step}: {}", w.last_facts);
        assert_eq!(w.followers.len(), 1, "{step}");
    }
    let mut w = World::new(2, true, true);
    prefix(&mut w, "/old/");
    w.settle();
    assert_eq!((w.phase(), &w.last_facts["knownPlace"]), ("Succeeded", &json!("b/old")));
}

#[test]
fn what_is_opened_in_one_place_is_not_backed_up_into_another() {
    let mut w = World::new(1, true, true);
    script(&mut w, "prepare", &[End::Ok]);
    w.until("prepare");
    prefix(&mut w, "new");
    w.settle();
    assert_eq!((w.phase(), w.stalled(), w.steps()), ("Failed", reason::SPEC_CHANGED, vec!["prepare"]));
}

#[test]
fn before_the_repository_is_opened_its_place_may_be_corrected() {
    let mut w = World::new(1, true, true);
    w.backend["s3"]["endpoint"] = json!("wrong");
    script(&mut w, "prepare", &[End::TRANSIENT, End::TRANSIENT]);
    w.until("prepare");
    w.step(2);
    assert_eq!(w.phase(), "Running");
    w.backend["s3"]["endpoint"] = json!("right");
    w.settle();
    assert_eq!((w.phase(), w.jobs.attempts("prepare")), ("Succeeded", 3));
}

#[test]
fn what_is_not_the_place_may_change_under_a_session() {
    let mut w = World::new(2, true, true);
    w.until("backup/0/m0");
    w.backend["storageSecretName"] = json!("other");
    w.backend["s3"]["region"] = json!("r");
    w.backend["s3"]["prefix"] = json!("/");
    w.policy = json!({ "allowedNamespaces": { "from": "Same" } });
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}
