//! Backups into the Repository of another namespace.

use serde_json::Value;

use crate::names::reason;
use crate::plan::backup::tests::world::{from_elsewhere, script};
use crate::plan::fake::{End, Jobs};

/// Proves: A07.
#[test]
fn a_repository_of_another_namespace_is_read_by_a_right_that_ends_with_the_run() {
    let mut smooth = from_elsewhere(2);
    smooth.settle();
    assert_eq!((smooth.phase(), smooth.grants.made.len()), ("Succeeded", 3));
    for write in 0..smooth.writes {
        let mut w = from_elsewhere(2);
        w.crashes = vec![write, write + 1];
        w.settle();
        assert_eq!((w.phase(), &w.grants.made), ("Succeeded", &smooth.grants.made), "crash before write {write}");
    }
}

#[test]
fn a_session_that_is_deleted_leaves_no_right() {
    for passes in 1..8 {
        for crash in 0..30 {
            let mut w = from_elsewhere(1);
            for _ in 0..passes {
                w.pass();
                w.jobs.tick();
            }
            w.run.id.deleting = true;
            w.crashes = vec![w.writes + crash];
            // The Jobs of the session are deleted with it.
            w.jobs = Jobs::default();
            w.settle();
        }
    }
}

/// Proves: scenario 21.
#[test]
fn a_policy_that_says_no_fails_the_backup_and_stops_what_runs() {
    let mut w = from_elsewhere(1);
    w.policy = Value::Null;
    w.settle();
    assert_eq!((w.phase(), w.stalled(), w.grants.made.len()), ("Failed", reason::REPOSITORY_NOT_ALLOWED, 0));
    let mut w = from_elsewhere(1);
    script(&mut w, "backup/0/m0", &[End::Never]);
    while !w.steps().contains(&"backup/0/m0") {
        w.pass();
        w.jobs.tick();
    }
    w.policy = Value::Null;
    w.settle();
    assert_eq!((w.phase(), w.stalled()), ("Failed", reason::REPOSITORY_NOT_ALLOWED));
}
