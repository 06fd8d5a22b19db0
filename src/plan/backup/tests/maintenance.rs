//! The steps after the backups: retention, the check, and what is written to the Repository.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::contract::Class;
use crate::contract::restic::{Absent, Own, RepositoryFacts, Step};
use crate::names::reason;
use crate::plan::backup::run::Neighbour;
use crate::plan::backup::tests::world::{World, retry, script};
use crate::plan::fake::End;
use crate::plan::run::hosts::HostSet;

#[test]
fn retention_names_what_was_backed_up_and_leaves_what_another_backs_up_too() {
    let keep = |w: &mut World| w.invoker().retention.keep_last = Some(1);
    let own = |w: &World| match w.last_task.clone().unwrap().work.restic().unwrap().step.clone() {
        Step::Maintain(m) => m.own,
        other => panic!("{other:?}"),
    };
    let at =
        |hosts: &[&str]| vec![Own { path: "/stash-data".into(), hosts: hosts.iter().map(|&h| h.to_owned()).collect() }];
    let mut w = World::new(3, false, true);
    keep(&mut w);
    script(&mut w, "backup/1/m1", &[End::DATA]);
    w.settle();
    assert_eq!(own(&w), at(&["m0", "m2"]), "what failed keeps all it has");
    // The backup of another invoker: the same host and path, the same host and another path, another host.
    let neighbour = |host: &str, path: &str| Neighbour {
        name: "BackupConfiguration demo/twin".into(),
        targets: vec![(HostSet::One(host.into()), vec![path.into()])],
    };
    let mut w = World::new(2, false, true);
    keep(&mut w);
    w.invoker().retry = Some(retry(3));
    w.run.others = vec![neighbour("m0", "/other"), neighbour("x", "/stash-data"), neighbour("m1", "/stash-data")];
    w.settle();
    assert_eq!(own(&w), at(&["m0"]));
    let (applied, text) = w.condition("RetentionPolicyApplied");
    assert!(applied == "False" && text.contains("host m1") && text.contains("demo/twin"), "{text}");
    assert_eq!((w.phase(), w.followers.len()), ("Failed", 0), "a retry would change nothing");
    // A policy that keeps everything touches nothing.
    let mut w = World::new(1, false, true);
    w.run.others = vec![neighbour("m0", "/stash-data")];
    w.settle();
    assert_eq!((w.phase(), w.condition("RetentionPolicyApplied").0), ("Succeeded", "True"));
}

/// The state of a session that has its backups and whose maintenance ended like this.
fn after(facts: RepositoryFacts, failure: Option<(Class, &'static str)>) -> World {
    let mut w = World::new(1, false, true);
    w.invoker().retention.keep_last = Some(1);
    script(&mut w, "maintain", &[End::Maintained(facts, failure)]);
    w.settle();
    w
}

#[test]
fn retention_that_failed_is_no_success_whatever_the_check_says() {
    let good = RepositoryFacts { integrity: Some(true), ..RepositoryFacts::default() };
    for why in [reason::ACCESS_DENIED, reason::PERMISSION_DENIED] {
        let w = after(good.clone(), Some((Class::Invalid, why)));
        assert_eq!((w.phase(), w.stalled()), ("Failed", reason::RETENTION_FAILED));
        let text = format!("It is {why}.");
        assert_eq!(w.condition("RetentionPolicyApplied"), ("False", text.as_str()));
        assert_eq!((w.condition("RepositoryIntegrityVerified").0, w.targets()), ("True", vec!["Succeeded"]));
        // Values that were not measured are not reported as zero.
        assert_eq!(w.last_facts["integrity"], true);
        for unknown in ["totalSize", "snapshotCount", "snapshotsRemovedOnLastCleanup"] {
            assert!(w.last_facts.get(unknown).is_none(), "{:#}", w.last_facts);
        }
    }
    // Snapshots were forgotten, but not pruned.
    let forgotten = RepositoryFacts { removed: 3, ..good.clone() };
    let w = after(forgotten, Some((Class::Invalid, reason::ACCESS_DENIED)));
    assert_eq!((w.phase(), &w.last_facts["snapshotsRemovedOnLastCleanup"]), ("Failed", &json!(3)));
    // Only the last part failed.
    let kept = RepositoryFacts { retained: true, snapshot_count: Some(0), ..good.clone() };
    let w = after(kept.clone(), Some((Class::Invalid, reason::ACCESS_DENIED)));
    assert_eq!((w.phase(), w.stalled()), ("Failed", reason::ACCESS_DENIED));
    assert_eq!((w.condition("RetentionPolicyApplied").0, &w.last_facts["snapshotCount"]), ("True", &json!(0)));
    let w = after(RepositoryFacts { total_bytes: Some(1024), ..kept }, None);
    assert_eq!((w.phase(), &w.last_facts["totalSize"]), ("Succeeded", &json!("1.000 KiB")));
    // The answer of an agent of the previous version.
    let w = after(good, None);
    assert_eq!((w.phase(), w.condition("RetentionPolicyApplied").0), ("Succeeded", "True"));
}

#[test]
fn a_repository_that_is_damaged_fails_the_backup_and_says_so() {
    for retained in [true, false] {
        let facts = RepositoryFacts { integrity: Some(false), retained, ..RepositoryFacts::default() };
        let w = after(facts, Some((Class::Data, reason::DATA_CORRUPT)));
        assert_eq!((w.phase(), w.stalled()), ("Failed", reason::INTEGRITY_FAILED), "{retained}");
        assert_eq!(w.condition("RepositoryIntegrityVerified"), ("False", "It is DataCorrupt."));
        assert_eq!(w.condition("RetentionPolicyApplied").0, if retained { "True" } else { "False" });
        assert_eq!((&w.last_facts["integrity"], w.facts), (&json!(false), 1));
    }
    // A check that did not run verified nothing.
    let facts = RepositoryFacts { retained: true, ..RepositoryFacts::default() };
    let w = after(facts, Some((Class::Fatal, reason::RESTIC_FAILED)));
    assert_eq!((w.phase(), w.stalled()), ("Failed", reason::INTEGRITY_FAILED));
    assert!(w.last_facts.get("integrity").is_none(), "{:#}", w.last_facts);
}

#[test]
fn snapshots_are_listed_though_nobody_looked_at_the_repository_after_them() {
    let times =
        |w: &World| (w.facts, w.last_facts["listRequestTime"].is_string(), w.last_facts.as_object().unwrap().len());
    let mut w = World::new(1, false, true);
    script(&mut w, "maintain", &[End::OutOfMemory, End::OutOfMemory, End::OutOfMemory]);
    w.settle();
    assert_eq!((w.phase(), w.stalled()), ("Failed", reason::RETENTION_FAILED));
    assert_eq!(times(&w), (1, true, 1), "{:#}", w.last_facts);
    // The session ends at the deadline.
    let mut w = World::new(1, false, true);
    script(&mut w, "maintain", &[End::Never]);
    w.settle();
    assert_eq!((w.phase(), times(&w)), ("Failed", (1, true, 1)));
    // No host succeeded, although the host left a snapshot of the files that could be read.
    let mut w = World::new(1, false, true);
    script(&mut w, "backup/0/m0", &[End::Partial(Class::Data, reason::PERMISSION_DENIED)]);
    w.settle();
    assert_eq!((w.phase(), w.steps()), ("Failed", vec!["prepare", "backup/0/m0"]));
    assert_eq!(times(&w), (1, true, 1));
    // Without snapshots, there is nothing to list.
    let mut w = World::new(1, false, true);
    script(&mut w, "backup/0/m0", &[End::DATA]);
    w.settle();
    assert_eq!((w.phase(), w.facts), ("Failed", 0));
}

/// Closes: a Repository that showed a last successful backup without any.
#[test]
fn only_a_backup_that_succeeded_is_told_as_one() {
    let told = |w: &World, key: &str| w.last_facts.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut w = World::new(1, false, true);
    w.settle();
    assert_eq!((w.phase(), told(&w, "knownPlace").as_deref()), ("Succeeded", Some("b/")));
    assert_eq!(told(&w, "firstBackupTime"), told(&w, "lastBackupTime"));
    assert!(told(&w, "lastBackupTime").is_some() && told(&w, "listRequestTime").is_none());
    let mut w = World::new(1, false, true);
    w.first_backup = Some(Time(Timestamp::UNIX_EPOCH));
    w.settle();
    assert_eq!(told(&w, "firstBackupTime").as_deref(), Some("1970-01-01T00:00:00Z"));
    // Retention failed, the check failed, another host failed, and the session was canceled.
    let good = RepositoryFacts { integrity: Some(true), ..RepositoryFacts::default() };
    let mut all = vec![
        after(good, Some((Class::Invalid, reason::ACCESS_DENIED))),
        after(
            RepositoryFacts { integrity: Some(false), retained: true, ..RepositoryFacts::default() },
            Some((Class::Data, reason::DATA_CORRUPT)),
        ),
    ];
    let mut w = World::new(2, false, true);
    script(&mut w, "backup/1/m1", &[End::DATA]);
    w.settle();
    all.push(w);
    let mut w = World::new(2, true, true);
    w.until("backup/1/m1");
    w.run.canceled = true;
    w.settle();
    all.push(w);
    for w in all {
        assert_eq!((w.phase(), w.facts), ("Failed", 1), "{:#}", w.status);
        assert!(told(&w, "listRequestTime").is_some(), "{:#}", w.last_facts);
        for key in ["firstBackupTime", "lastBackupTime", "knownPlace"] {
            assert_eq!(told(&w, key), None, "{:#}", w.last_facts);
        }
    }
    // If no snapshot was made, nothing is written to the Repository.
    for key in ["prepare", "backup/0/m0"] {
        let mut w = World::new(1, false, true);
        script(&mut w, key, &[End::Fails(Class::Invalid, reason::NOTHING_TO_BACK_UP)]);
        w.settle();
        assert_eq!((w.phase(), w.facts), ("Failed", 0), "{key}");
    }
}

#[test]
fn a_repository_that_is_lost_is_not_created_anew() {
    let absent = |known: bool, what: Absent| {
        let mut w = World::new(1, false, true);
        w.known = known;
        script(&mut w, "prepare", &[End::Absent(what)]);
        w.settle();
        assert!(w.last_task.as_ref().is_some_and(|task| task.work.restic().unwrap().repository.known == known));
        w
    };
    for (what, why) in [(Absent::Repository, reason::REPOSITORY_MISSING), (Absent::Bucket, reason::BUCKET_MISSING)] {
        let w = absent(true, what);
        assert_eq!((w.phase(), w.stalled(), w.steps()), ("Failed", why, vec!["prepare"]));
        assert_eq!(absent(false, what).phase(), "Succeeded");
    }
}
