//! What proves that data is unchanged: every Job of every attempt has said so, or was never created.

use serde_json::Value;

use crate::contract::Class;
use crate::names::reason;
use crate::plan::fake::End;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{script, web};

const KEY: &str = "restore/0/m0";
const UNTOUCHED: End = End::Untouched(Class::Data, reason::NO_SPACE);

/// A run whose first Job runs. If that Job is deleted, the next Job ends like this.
fn at_work(then: End) -> World {
    let mut w = World::session(web());
    script(&mut w, KEY, &[End::DeletedByHand]);
    while w.jobs.attempts(KEY) == 0 {
        w.step(1);
    }
    script(&mut w, KEY, &[then]);
    w
}

fn host(w: &World) -> &Value {
    &w.object["status"]["stats"][0]
}

#[test]
fn what_the_next_job_of_a_try_says_counts_for_no_job_that_is_gone() {
    // The operator sees the first Job, or dies before it could, and then dies once more.
    for crashes in 0..8 {
        let mut w = at_work(UNTOUCHED);
        w.crashes = (w.writes..w.writes + crashes).collect();
        w.settle();
        assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Failed", 0), "{:#}", w.object["status"]);
        assert_eq!((w.jobs.attempts(KEY), &host(&w)["attempt"], &host(&w)["unwritten"]), (2, &1.into(), &0.into()));
        assert!(w.workloads[0].held.is_some());
    }
    // Later, the Job ends like this for other reasons.
    let mut w = at_work(UNTOUCHED);
    script(&mut w, KEY, &[End::Untouched(Class::Transient, reason::REPOSITORY_UNREACHABLE), UNTOUCHED]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Failed", 0));
    // This does not count as an attempt.
    let mut w = at_work(End::Ok);
    w.settle();
    assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Succeeded", 2));
    assert_eq!((&host(&w)["attempt"], &host(&w)["podDeaths"]), (&1.into(), &Value::Null));
}

/// The Job is created, and the operator dies before it can write anything about the Job.
#[test]
fn a_job_that_nobody_has_seen_may_have_written() {
    let mut w = World::session(web());
    script(&mut w, KEY, &[End::Never]);
    let before = loop {
        let before = w.clone();
        w.step(1);
        if w.jobs.attempts(KEY) == 1 {
            break before;
        }
    };
    let mut w = before;
    w.crashes = vec![w.writes + 1];
    w.step(1);
    let name = w.jobs.seen().iter().find(|j| j.key == KEY).map(|j| j.name.clone()).unwrap();
    w.jobs.stop(&name);
    (0..10).for_each(|_| w.jobs.tick());
    assert!(w.jobs.running().is_empty(), "it is gone, and its pod");
    script(&mut w, KEY, &[UNTOUCHED]);
    w.settle();
    assert_eq!((w.jobs.attempts(KEY), w.workloads[0].replicas), (2, 0), "{:#}", w.object["status"]);
}

#[test]
fn who_waits_for_a_place_or_dies_before_it_has_asked_for_a_job_loses_no_more_than_the_proof() {
    let mut w = World::session(web());
    w.object["spec"]["timeOut"] = "30m".into();
    script(&mut w, KEY, &[End::Untouched(Class::Transient, "X"), UNTOUCHED]);
    while w.jobs.attempts(KEY) == 0 {
        w.step(1);
    }
    // For a while, there is no slot for the second attempt, before and after the attempt has begun.
    for busy in w.passes..w.passes + 12 {
        for long in [1, 2, 20] {
            let mut w = w.clone();
            w.busy = busy..busy + long;
            w.settle();
            assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Failed", 2), "{busy} {long}");
        }
    }
    // An operator that crashes on the way does not know whether it has requested a Job.
    let mut down = 0;
    w.settle_dying(false, |_, w| down += usize::from(w.workloads[0].replicas == 0));
    assert!((1..=3).contains(&down), "{down}");
}

#[test]
fn only_what_was_certainly_refused_has_never_run() {
    for (is_unmade, replicas) in [(true, 2), (false, 0)] {
        let mut w = World::session(web());
        script(&mut w, KEY, &[End::Ok, UNTOUCHED]);
        w.refuses_jobs = Some(is_unmade);
        while host(&w)["attempt"] != 2 {
            w.step(1);
        }
        assert_eq!((w.jobs.attempts(KEY), &host(&w)["reason"]), (0, &reason::REFUSED_BY_API.into()));
        assert_eq!(host(&w)["error"], "No more Jobs.", "it is told, whichever it was");
        w.refuses_jobs = None;
        w.settle();
        assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Failed", replicas), "{:#}", w.object["status"]);
    }
}
