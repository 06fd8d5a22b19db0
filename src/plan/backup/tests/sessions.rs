//! Whether a session begins, and what follows a failed session.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::names::reason;
use crate::plan::backup::tests::world::{World, from_elsewhere, retry, script};
use crate::plan::fake::End;
use crate::plan::seen::Refusal;

#[test]
fn a_session_applied_before_its_invoker_waits_for_it() {
    let mut w = World::new(1, false, true);
    let invoker = w.run.invoker.take();
    assert!(w.pass().is_some());
    assert_eq!((w.phase(), w.stalled_is_absent()), ("Pending", true));
    w.run.invoker = invoker;
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

/// Proves: defect 15, scenario 31.
#[test]
fn what_cannot_be_taken_is_skipped_with_the_reason() {
    let mut w = World::new(1, false, true);
    w.run.invoker = None;
    w.settle();
    assert_eq!((w.phase(), w.status["summary"].as_str()), ("Skipped", Some("BackupBatch demo/all does not exist.")));
    let mut w = World::new(1, false, true);
    w.run.running = Some("other".into());
    w.settle();
    assert_eq!(w.phase(), "Skipped");
    let mut w = World::new(1, false, true);
    w.refusal = Some(Refusal { reason: "Invalid".into(), message: "spec.x: is wrong".into() });
    w.settle();
    assert_eq!(
        (w.phase(), w.status["summary"].as_str()),
        ("Skipped", Some("BackupBatch demo/all is not valid: spec.x: is wrong"))
    );
    assert_eq!(w.steps().len(), 0);
}

/// Proves: scenario 31.
#[test]
fn a_failed_session_is_followed_by_another_after_the_delay() {
    let mut w = World::new(1, false, true);
    w.invoker().retry = Some(retry(2));
    script(&mut w, "backup/0/m0", &[End::DATA]);
    let begin = w.now;
    w.settle();
    assert_eq!((w.phase(), w.status["retried"].as_bool()), ("Failed", Some(true)));
    assert_eq!(w.followers, [("b-retry-1".to_owned(), Some(1))].into());
    assert_eq!(w.events, ["DataCorrupt", "Retried"]);
    let due: Timestamp = w.status["nextRetry"].as_str().unwrap().parse().unwrap();
    assert!(due >= begin + SignedDuration::from_mins(10) && w.now >= due, "{due} {}", w.now);
    // The last retry is not followed by another, and a success is not followed by a retry.
    for (left, ends, phase) in [(0, vec![End::DATA], "Failed"), (3, vec![], "Succeeded")] {
        let mut w = World::new(1, false, true);
        w.invoker().retry = Some(retry(2));
        w.run.retry_left = Some(left);
        script(&mut w, "backup/0/m0", &ends);
        w.settle();
        assert_eq!((w.phase(), w.followers.len()), (phase, 0));
        assert!(w.status.get("nextRetry").is_none() && w.status.get("retried").is_none());
    }
}

#[test]
fn what_a_retry_cannot_mend_or_nobody_wants_is_not_tried_again() {
    // The Repository does not allow the session.
    let mut w = from_elsewhere(1);
    w.policy = Value::Null;
    w.invoker().retry = Some(retry(2));
    w.settle();
    assert_eq!((w.phase(), w.followers.len(), w.status.get("nextRetry")), ("Failed", 0, None));
    // The invoker is paused or deleted during the delay.
    for gone in [false, true] {
        let mut w = World::new(1, false, true);
        w.invoker().retry = Some(retry(2));
        script(&mut w, "backup/0/m0", &[End::DATA]);
        while w.phase() != "Failed" {
            let wait = w.pass().unwrap();
            w.now += wait;
            w.jobs.tick();
        }
        if gone {
            w.run.invoker = None;
        } else {
            w.invoker().paused = true;
        }
        w.settle();
        assert_eq!((w.followers.len(), w.status["retried"].as_bool()), (0, Some(false)));
        assert_eq!(w.events.last().map(String::as_str), Some("NotRetried"));
    }
}

#[test]
fn an_invoker_that_is_changed_or_deleted_under_a_session_ends_it() {
    for change in ["members", "repository", "deleted", "invalid"] {
        let mut w = World::new(2, true, true);
        script(&mut w, "backup/0/m0", &[End::Never]);
        while !w.steps().contains(&"backup/0/m0") {
            let wait = w.pass().unwrap();
            w.now += wait;
            w.jobs.tick();
        }
        match change {
            "members" => w.invoker().members.swap(0, 1),
            "repository" => w.invoker().repository = serde_json::from_value(json!({ "name": "other" })).unwrap(),
            "deleted" => w.run.invoker = None,
            _ => w.refusal = Some(Refusal { reason: "Invalid".into(), message: "spec.x: is wrong".into() }),
        }
        w.settle();
        assert_eq!((w.phase(), w.stalled()), ("Failed", reason::SPEC_CHANGED), "{change}");
        assert_eq!(w.targets(), ["Failed", "Failed"], "{change}");
    }
    // Fields that do not say where data comes from and goes to may change.
    let mut w = World::new(1, false, true);
    w.pass();
    w.pass();
    w.invoker().paused = true;
    w.invoker().retention.keep_last = Some(9);
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}
