//! A repository that existed and is gone, and a first backup that creates a repository that did not exist.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::contract::restic::Absent;
use crate::plan::fake::work;
use crate::plan::repository::known::was_here;
use crate::plan::repository::sync::tests::*;

const LONG: usize = 90;

fn gone(w: &mut World, what: Absent) {
    w.jobs.script.insert("list".into(), vec![End::Absent(what); LONG]);
    w.request = Some(format!("at {}", w.now));
}

/// Writes what a session writes that has just succeeded.
fn back_up(w: &mut World) {
    let time = serde_json::to_value(Time(w.now)).unwrap();
    w.status["lastBackupTime"] = time.clone();
    w.status["firstBackupTime"] = time;
    w.status["knownPlace"] = "b/".into();
}

#[test]
fn a_repository_that_is_lost_is_not_taken_for_a_new_one() {
    for (what, why) in [(Absent::Repository, reason::REPOSITORY_MISSING), (Absent::Bucket, reason::BUCKET_MISSING)] {
        let mut w = World::new();
        w.live(10);
        assert_eq!((w.ready(), &w.status["knownPlace"]), (is_open(), &json!("b/")));
        gone(&mut w, what);
        w.live(5);
        let (status, found, said) = w.condition("Ready");
        assert_eq!((status.as_str(), found.as_str()), ("False", why));
        assert!(said.contains("It had 3 snapshots when it was listed last, at 20"), "{said}");
        assert!(said.contains("snapshotCount in the status, are of that time"), "{said}");
        assert!(!said.contains("out of date"), "{said}");
        assert_eq!(w.status["snapshotCount"], 3);
        w.live(120);
        assert_eq!((w.ready().1.as_str(), &w.events[..]), (why, &[why.to_owned()][..]), "warned of once");
        // A volume that is mounted again.
        w.jobs.script.clear();
        w.request = Some("again".into());
        w.live(5);
        assert_eq!(w.ready(), is_open());
    }
}

#[test]
fn another_place_is_a_new_beginning_and_the_old_one_is_none() {
    let mut w = World::new();
    w.live(10);
    back_up(&mut w);
    w.live(10);
    (w.status["integrity"], w.status["totalSize"]) = (json!(true), json!("1 MiB"));
    w.spec.backend.as_mut().unwrap().s3.as_mut().unwrap().prefix = Some("other".into());
    gone(&mut w, Absent::Repository);
    w.live(10);
    assert_eq!(w.ready(), ("True".into(), reason::REPOSITORY_NOT_CREATED.into()));
    assert!(w.status.get("integrity").is_none() && w.status.get("totalSize").is_none(), "{:#}", w.status);
    assert!(!work(w.jobs.made.last().unwrap()).repository.known);
    w.spec.backend.as_mut().unwrap().s3.as_mut().unwrap().prefix = None;
    gone(&mut w, Absent::Repository);
    w.live(10);
    assert_eq!(w.ready(), ("False".into(), reason::REPOSITORY_MISSING.into()));
}

#[test]
fn what_an_operator_or_a_job_of_before_says_counts() {
    let mut w = World::new();
    w.live(10);
    back_up(&mut w);
    w.live(10);
    w.status.as_object_mut().unwrap().remove("knownPlace");
    gone(&mut w, Absent::Repository);
    w.live(5);
    assert_eq!(w.ready(), ("False".into(), reason::REPOSITORY_MISSING.into()));
    assert_eq!(w.status["knownPlace"], "b/");
    // An agent of the previous version, which ignores that a repository existed.
    let mut w = World::new();
    w.live(10);
    w.jobs.of_before = true;
    gone(&mut w, Absent::Repository);
    w.live(5);
    assert_eq!(w.ready(), ("False".into(), reason::REPOSITORY_MISSING.into()));
    let spec = World::new().spec;
    let was = |status: Value| was_here(&spec, Some(&serde_json::from_value(status).unwrap()));
    let time = "2026-11-20T00:00:00Z";
    let nothing = json!([{ "type": "SnapshotsSynced", "status": "True", "reason": reason::REPOSITORY_NOT_CREATED, "lastTransitionTime": time }]);
    assert!(was(json!({ "firstBackupTime": time })) && was(json!({ "firstBackupTime": time, "openedStore": "b/" })));
    assert!(!was(json!({})) && !was(json!({ "openedStore": "b/" })), "no backup has succeeded");
    assert!(!was(json!({ "firstBackupTime": time, "openedStore": "c" })), "it was in another place");
    assert!(!was(json!({ "firstBackupTime": time, "openedStore": "b/", "conditions": nothing })));
    assert!(!was(json!({ "firstBackupTime": time, "knownPlace": "c" })) && was(json!({ "knownPlace": "b/" })));
}

#[test]
fn what_the_first_backup_has_made_is_not_said_not_to_be_there() {
    let mut w = World::new();
    w.jobs.script.insert("list".into(), vec![End::Absent(Absent::Repository); 2]);
    w.live(10);
    assert_eq!(w.ready().1, reason::REPOSITORY_NOT_CREATED);
    // The backup ends once before the next listing, and once during a listing whose Job has found nothing yet.
    w.request = Some("now".into());
    while w.jobs.created.len() < 2 {
        w.pass();
    }
    back_up(&mut w);
    let mut said = vec![];
    w.status["totalSize"] = json!("1 MiB");
    while w.status["snapshotCount"] != 3 {
        let wait = w.pass().unwrap();
        w.now += wait;
        w.jobs.tick();
        let text = w.status.to_string();
        assert!(!text.contains("no repository yet") && !text.contains(reason::REPOSITORY_MISSING), "{text}");
        said.push(w.condition("Ready").2);
    }
    assert!(said[0].contains("Its Snapshots are being listed.") && said.len() > 3, "{said:?}");
    w.live(10);
    assert_eq!(w.condition("Ready"), ("True".into(), reason::REPOSITORY_OPENED.into(), "Ready to be used.".into()));
    assert_eq!(w.status["totalSize"], "1 MiB", "what the backup has measured");
    w.rests(3);
}

#[test]
fn snapshots_of_a_session_that_failed_are_listed_though_no_backup_has_succeeded() {
    let mut w = World::new();
    w.jobs.script.insert("list".into(), vec![End::Absent(Absent::Repository)]);
    w.live(10);
    w.status["listRequestTime"] = serde_json::to_value(Time(w.now)).unwrap();
    w.pass();
    assert!(!w.status.to_string().contains("no repository yet"), "{:#}", w.status);
    w.live(10);
    w.rests(2);
    assert_eq!((w.ready(), &w.status["snapshotCount"]), (is_open(), &json!(3)));
    assert!(w.status.get("lastBackupTime").is_none());
}

#[test]
fn what_is_out_of_date_is_said_last_and_only_where_there_is_something() {
    let wrong = || vec![End::Fails(Class::Invalid, reason::WRONG_PASSWORD); LONG];
    let mut w = World::new();
    w.jobs.script.insert("list".into(), wrong());
    w.live(2);
    assert_eq!(w.said, ["It is WrongPassword."]);
    let mut w = World::new();
    w.live(10);
    w.jobs.script.insert("list".into(), wrong());
    w.request = Some("now".into());
    w.live(2);
    assert_eq!(w.said, ["It is WrongPassword. The Snapshots may be out of date."]);
    assert_eq!(w.condition("Ready").2, "It is WrongPassword.");
}
