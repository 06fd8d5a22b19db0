//! Workloads that cannot be read when they are to be scaled back: the permission is revoked, or their API is gone.

use serde_json::{Value, json};

use crate::names::{annotation, reason};
use crate::plan::fake::End;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{script, web};

/// A run whose only host is being restored, and whose workload cannot be read from now on.
fn unread(after_failure: &str) -> World {
    let mut w = World::session(web());
    w.object["spec"]["target"]["afterFailure"] = after_failure.into();
    script(&mut w, "restore/0/m0", &[End::Never]);
    while w.jobs.attempts("restore/0/m0") == 0 {
        w.step(1);
    }
    w.unreadable = Some(0);
    w
}

fn told(w: &World) -> Option<Value> {
    w.object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "ScaledBack").cloned()
}

fn count(w: &World) -> usize {
    w.events.iter().filter(|e| *e == reason::TARGET_UNKNOWN).count()
}

#[test]
fn a_session_that_goes_says_that_its_workload_cannot_be_read_and_lets_go_after_ten_minutes() {
    let mark = format!("marked with {} as half restored", annotation::HELD_DOWN);
    let cases =
        [("ScaleBack", "--replicas=2", "scaled back to 2 replicas"), ("StayDown", "Leave it at 0 replicas", &mark)];
    for (after_failure, remedy, what) in cases {
        let mut w = unread(after_failure);
        let from = w.now;
        w.delete_at = w.passes;
        for _ in 0..40 {
            w.advance();
        }
        let said = told(&w).unwrap();
        assert_eq!((&said["status"], &said["reason"]), (&json!("False"), &json!(reason::TARGET_UNKNOWN)));
        let text = said["message"].as_str().unwrap();
        for part in ["Deployment/m0 could not be read", what, "deployments.apps is forbidden.", remedy] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!((w.condition("Reconciling").1.as_str(), count(&w)), (reason::TARGET_UNKNOWN, 1));
        let mut shown = w.clone();
        shown.unreadable = None;
        shown.settle();
        assert!(shown.gone, "it goes as soon as it can be read");
        w.settle_but_for_rights();
        let took = w.now.duration_since(from).as_secs();
        assert!(w.gone && (600..660).contains(&took), "{took} s");
        assert_eq!(count(&w), 2, "the last word is one more");
    }
}

#[test]
fn a_canceled_run_says_that_its_workload_cannot_be_read_and_goes_on_when_it_can() {
    let mut w = unread("ScaleBack");
    w.cancel();
    w.step(30);
    let text = w.object["status"]["summary"].as_str().unwrap();
    assert!(text.starts_with("Canceling: ") && text.contains("could not be read"), "{text}");
    w.unreadable = None;
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::CANCELED));
    assert_eq!((w.workloads[0].replicas, told(&w).unwrap()["status"].clone()), (2, json!("True")));
    assert_eq!(count(&w), 1);
    // In the meantime, a user has scaled the workload up.
    let mut w = unread("StayDown");
    w.cancel();
    w.step(30);
    assert!(told(&w).is_some());
    (w.workloads[0].replicas, w.unreadable) = (2, None);
    w.settle_but_for_rights();
    assert_eq!((w.phase().as_str(), told(&w)), ("Failed", None), "what kept it from coming back is over");
}
