//! Whether a repository can be opened, as reported by `Ready`.

use crate::contract::restic::Absent;
use crate::plan::repository::sync::tests::*;

/// Closes: B1, B3, B4 of the newcomer.
#[test]
fn a_repository_that_cannot_be_opened_is_not_ready_and_asked_less_and_less() {
    for why in [reason::WRONG_PASSWORD, reason::BUCKET_MISSING, reason::SECRET_INCOMPLETE] {
        let mut w = World::new();
        w.every = Duration::from_hours(6);
        w.jobs.script.insert("list".into(), vec![End::Fails(Class::Invalid, why); 9]);
        w.live(1);
        assert_eq!(w.ready(), ("False".into(), why.into()));
        w.live(120);
        let asked = w.jobs.created.len();
        assert!((6..=9).contains(&asked), "{asked} times in two hours");
        assert_eq!(w.events, [why], "warned of once");
        w.jobs.script.clear();
        w.request = Some("now".into());
        w.live(2);
        assert_eq!(w.ready(), is_open());
    }
}

#[test]
fn before_it_was_opened_it_is_not_ready_and_says_what_it_waits_for() {
    let mut w = World::new();
    w.pass();
    assert_eq!(w.ready(), ("False".into(), reason::NOT_OPENED.into()));
    let mut w = World::new();
    w.may_list = false;
    w.live(30);
    assert_eq!((w.ready(), w.jobs.created.len()), (("False".into(), reason::NOT_OPENED.into()), 0));
    assert!(w.condition("Ready").2.contains("a limited number"), "{}", w.condition("Ready").2);
    w.may_list = true;
    w.live(2);
    assert_eq!(w.ready(), is_open());
    w.rests(1);
    // If the Job cannot run, `Ready` says that.
    let mut w = World::new();
    w.jobs.script.insert("list".into(), vec![End::Unschedulable]);
    w.live(5);
    let (status, why, text) = w.condition("Ready");
    assert_eq!((status.as_str(), why.as_str()), ("False", reason::NOT_OPENED));
    let held = w.status["steps"][0]["message"].as_str().unwrap();
    assert!(text.contains(held), "{text}");
    // Without regular listings, `Ready` says that it is not known.
    let mut w = World::new();
    w.every = Duration::ZERO;
    w.live(60);
    assert_eq!((w.ready(), w.jobs.created.len()), (("True".into(), reason::BACKEND_SECRET_AVAILABLE.into()), 0));
    assert!(w.condition("Ready").2.contains("not known"));
}

/// Closes: B1 of the newcomer.
#[test]
fn a_change_of_its_secret_or_spec_opens_it_again_once() {
    let mut w = World::new();
    w.live(10);
    w.rests(1);
    w.secret = "2";
    w.pass();
    let (status, why, text) = w.condition("Ready");
    assert_eq!((status.as_str(), why.as_str()), ("False", reason::NOT_OPENED));
    assert!(text.contains("since its Secret or spec changed"), "{text}");
    w.live(30);
    w.rests(2);
    assert_eq!(w.ready(), is_open());
    // A change of fields that are not used to open the repository does not trigger a listing.
    w.spec.wipe_out = Some(false);
    w.spec.usage_policy = serde_json::from_value(json!({ "allowedNamespaces": { "from": "All" } })).unwrap();
    w.live(30);
    w.rests(2);
    w.spec.backend.as_mut().unwrap().s3.as_mut().unwrap().bucket = "another".into();
    w.live(30);
    w.rests(3);
    assert_eq!((w.ready(), &w.status["sync"]["opened"]["secretVersion"]), (is_open(), &json!("2")));
    // A wrong Secret, then the right Secret.
    w.jobs.script.insert("list".into(), vec![End::Fails(Class::Invalid, reason::WRONG_PASSWORD); 9]);
    w.secret = "3";
    w.live(1);
    assert_eq!(w.ready(), ("False".into(), reason::WRONG_PASSWORD.into()));
    w.jobs.script.clear();
    w.secret = "4";
    let before = w.now;
    while w.ready() != is_open() {
        let wait = w.pass().unwrap();
        w.now += wait;
        w.jobs.tick();
    }
    assert!(w.now.duration_since(before) < SignedDuration::from_mins(1), "mended, it is opened at once");
    assert!(!w.status.to_string().contains("RESTIC"));
}

#[test]
fn a_secret_that_changes_while_it_is_opened_is_opened_with_too() {
    let mut w = World::new();
    while w.jobs.created.is_empty() {
        w.pass();
    }
    w.secret = "2";
    w.live(20);
    w.rests(2);
    assert_eq!(w.ready(), is_open());
}

#[test]
fn what_an_operator_of_before_has_listed_is_not_listed_anew() {
    let mut w = World::new();
    w.live(10);
    for known in ["opened", "tried"] {
        w.status["sync"].as_object_mut().unwrap().remove(known);
    }
    w.live(30);
    w.rests(1);
    assert_eq!(w.ready(), is_open());
}

#[test]
fn after_a_session_that_failed_in_the_store_it_is_opened_once_a_minute_at_most() {
    let mut w = World::new();
    w.live(10);
    w.rests(1);
    for n in 0..10 {
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(w.now);
        w.status["openRequestTime"] = serde_json::to_value(time).unwrap();
        w.now += SignedDuration::from_secs(1);
        if n == 9 {
            break;
        }
        w.pass();
    }
    w.live(10);
    assert!((2..=3).contains(&w.jobs.created.len()), "{:?}", w.jobs.created);
    let opened = w.jobs.created.len();
    w.live(30);
    w.rests(opened);
}

#[test]
fn what_the_first_backup_creates_is_told_from_a_repository_that_is_empty() {
    let cases = [
        (End::Absent(Absent::Repository), reason::REPOSITORY_NOT_CREATED, "no repository yet"),
        (End::Absent(Absent::Bucket), reason::REPOSITORY_NOT_CREATED, "no bucket yet"),
        (End::Empty, reason::REPOSITORY_OPENED, "holds no snapshots"),
    ];
    for (end, why, text) in cases {
        let mut w = World::new();
        w.jobs.script.insert("list".into(), vec![end]);
        w.live(10);
        w.rests(1);
        let (status, found, said) = w.condition("Ready");
        assert_eq!((status.as_str(), found.as_str()), ("True", why));
        assert!(said.contains(text) && w.condition("SnapshotsSynced").2.contains(text), "{said}");
    }
}

#[test]
fn a_store_that_does_not_answer_is_told_at_once_of_a_new_one_and_in_time_of_others() {
    let away = vec![End::Fails(Class::Transient, reason::REPOSITORY_UNREACHABLE); 90];
    let seconds = |w: &mut World| {
        let before = w.now;
        while w.ready().1 != reason::REPOSITORY_UNREACHABLE {
            let wait = w.pass().unwrap();
            w.now += wait.min(SignedDuration::from_secs(5));
            w.jobs.tick();
        }
        w.now.duration_since(before).as_secs()
    };
    let mut w = World::new();
    w.pass();
    w.jobs.script.insert("list".into(), away.clone());
    assert!(seconds(&mut w) < 30);
    assert!(w.status["sync"]["begun"].is_null(), "others have its turn");
    let mut w = World::new();
    w.live(10);
    w.jobs.script.insert("list".into(), away);
    w.request = Some("now".into());
    let took = seconds(&mut w);
    assert!((60..180).contains(&took), "{took} s");
}
