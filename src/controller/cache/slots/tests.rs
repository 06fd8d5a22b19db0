//! The ledger, with sessions and Jobs reported in all orders in which watches may report them.

use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer as Fills;
use serde_json::{Value, json};

use crate::api::{BackupBatch, BackupConfiguration, BackupSession, RestoreBatch, RestoreSession};
use crate::controller::cache::index::Indexed;
use crate::controller::cache::slots::*;
use crate::controller::cache::stored::Stored;
use crate::names::annotation;
use crate::plan::seen::job_status::JobState;
use crate::plan::work::job_spec::frame;

struct World {
    queues: Slots,
    users: Consumers,
    configurations: Fills<Stored<BackupConfiguration>>,
    backups: Fills<Stored<BackupSession>>,
    sessions: Store<Stored<RestoreSession>>,
    jobs: Store<Kept<Job>>,
}

impl World {
    fn new() -> Self {
        let (configurations, of_configurations) = reflector::store();
        let (backups, of_backups) = reflector::store();
        let users = Consumers {
            configurations: Indexed::new(configurations, consumers::keys),
            batches: Indexed::new(reflector::store::<Stored<BackupBatch>>().0, |_| vec![]),
            backups: Indexed::new(backups, consumers::keys),
            restores: Indexed::new(reflector::store::<Stored<RestoreSession>>().0, |_| vec![]),
            restore_batches: Indexed::new(reflector::store::<Stored<RestoreBatch>>().0, |_| vec![]),
        };
        Self {
            queues: Slots::default(),
            users,
            configurations: of_configurations,
            backups: of_backups,
            sessions: reflector::store().0,
            jobs: reflector::store().0,
        }
    }

    fn on_event(&self, event: &Event<Stored<RestoreSession>>) {
        self.queues.on_session(&self.users, event, &self.sessions);
    }

    fn on_job(&self, event: &Event<Kept<Job>>) {
        self.queues.on_job::<RestoreSession>(event, &self.jobs);
    }

    fn on_backup(&mut self, event: &Event<Stored<BackupSession>>) {
        self.backups.apply_watcher_event(event);
        self.users.backups.on_event(event);
        self.queues.on_session(&self.users, event, &self.users.backups.store);
    }

    fn on_configuration(&mut self, event: &Event<Stored<BackupConfiguration>>) {
        self.configurations.apply_watcher_event(event);
        self.users.configurations.on_event(event);
        self.queues.on_invoker(&self.users, event);
    }

    fn used(&self) -> Option<usize> {
        self.queues.look(&home(), Queue::used)
    }

    fn reserves(&self, session: &Stored<RestoreSession>, jobs: &[Job], most: usize) -> bool {
        self.queues.reserve(session, jobs, most, false) == Reserved::All
    }
}

/// The Repository of all sessions in these tests, `n/r`.
fn home() -> Home {
    Home::new("r").within("n")
}

fn session(uid: &str) -> Stored<RestoreSession> {
    let target = json!({ "ref": { "kind": "PersistentVolumeClaim", "name": uid } });
    let meta = json!({ "name": uid, "namespace": "n", "uid": uid, "creationTimestamp": "2026-11-20T00:00:00Z" });
    serde_json::from_value(json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreSession",
        "metadata": meta, "spec": { "repository": { "name": "r" }, "target": target } }))
    .unwrap()
}

fn owner(kind: &str, uid: &str) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": kind, "name": uid, "uid": uid, "controller": true })
}

/// A Job with the name that its step gives it; `name` is the key of the step.
fn job_on(name: &str, owner: &Value, step: &str, claims: &[&str]) -> Job {
    let (of, uid) = (owner["name"].as_str().unwrap(), owner["uid"].as_str().unwrap());
    let component = if owner["kind"] == "BackupSession" { "stash-backup" } else { "stash-restore" };
    let computed = frame::job_name_of(component, of, uid, step, name, 1);
    let volumes: Vec<Value> =
        claims.iter().map(|c| json!({ "name": c, "persistentVolumeClaim": { "claimName": c } })).collect();
    serde_json::from_value(json!({
        "metadata": { "name": computed, "namespace": "n", "uid": format!("u-{name}"), "ownerReferences": [owner],
            "annotations": { annotation::STEP_KEY: name, annotation::ATTEMPT: "1" },
            "labels": { "lifeboat.stash.appscode.com/step": step } },
        "spec": { "template": { "spec": { "containers": [], "volumes": volumes } } } }))
    .unwrap()
}

fn job(session: &str) -> Job {
    job_on(&format!("job-{session}"), &owner("RestoreSession", session), "restore", &[])
}

fn over(mut job: Job) -> Job {
    job.status = serde_json::from_value(json!({ "conditions": [{ "type": "Complete", "status": "True" }] })).unwrap();
    job
}

fn applied(job: &Job) -> Event<Kept<Job>> {
    Event::Apply(job.clone().into())
}

/// Proves: C13.
#[test]
fn a_place_is_taken_before_the_job_is_there_and_given_back_if_it_never_is() {
    let w = World::new();
    let all = ["b", "a"].map(session);
    all.iter().for_each(|s| w.on_event(&Event::Apply(s.clone())));
    let [later, first] = &all;
    // The session whose uid sorts first goes first, but does not displace a session that has its slot already.
    assert!(!w.reserves(later, &[job("b")], 1), "the place of the first is kept");
    assert!(w.reserves(first, &[job("a")], 1));
    assert!(w.reserves(first, &[job("a")], 1), "the same Job is the same place");
    w.on_job(&applied(&job("a")));
    assert_eq!(w.used(), Some(1));
    assert!(!w.reserves(later, &[job("b")], 1));
    w.on_job(&applied(&over(job("a"))));
    w.on_event(&Event::Delete(first.clone()));
    assert!(w.reserves(later, &[job("b")], 1));
    w.queues.give_back("n", &job("b").name_any());
    assert_eq!(w.used(), Some(0));
    // A session that waits for another session keeps no slot that the other session may need.
    let mut busy = first.open();
    busy.status = serde_json::from_value(json!({ "phase": "Pending", "conditions": [{ "type": "Reconciling",
        "status": "True", "reason": reason::TARGET_BUSY, "message": "", "lastTransitionTime": "2026-11-20T00:00:00Z" }] }))
    .unwrap();
    w.on_event(&Event::Apply(busy.into()));
    assert!(w.reserves(later, &[job("b")], 1));
    w.queues.refused("n", &job("b").name_any());
    w.on_event(&Event::Delete(first.clone()));
    // A Job that disappeared while the watch was down does not count forever.
    w.on_job(&applied(&job("b")));
    w.on_job(&Event::Init);
    w.on_job(&Event::InitDone);
    assert_eq!(w.used(), Some(0));
    w.on_event(&Event::InitDone);
    assert_eq!(w.used(), None);
}

/// A user who may create Jobs in some namespace must not take slots on a Repository by labels and annotations.
#[test]
fn only_a_job_whose_controller_is_a_session_there_takes_a_place() {
    let w = World::new();
    let labelled = |mut job: Job| {
        let marks = [
            ("lifeboat.stash.appscode.com/session-kind", "RestoreSession"),
            ("lifeboat.stash.appscode.com/session-uid", "a"),
        ];
        job.labels_mut().extend(marks.map(|(k, v)| (k.to_owned(), v.to_owned())));
        job.annotations_mut().insert("lifeboat.stash.appscode.com/repository".into(), "n/r".into());
        job
    };
    let mut foreign = labelled(job("a"));
    foreign.metadata.namespace = Some("elsewhere".into());
    let mut not_controlled = labelled(job("a"));
    not_controlled.owner_references_mut()[0].controller = None;
    let mut suspended = labelled(job("a"));
    suspended.spec.get_or_insert_default().suspend = Some(true);
    let forged = [
        labelled(job_on(
            "bare",
            &json!({ "apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "a", "controller": true }),
            "restore",
            &[],
        )),
        labelled(job_on(
            "of-another-group",
            &json!({ "apiVersion": "x/v1", "kind": "RestoreSession", "name": "a", "uid": "a", "controller": true }),
            "restore",
            &[],
        )),
        labelled(job_on("of-nobody", &owner("RestoreSession", "nobody"), "restore", &[])),
        foreign,
        not_controlled,
        suspended,
    ];
    // The session is unknown to the ledger, and then known.
    for known in [false, true] {
        if known {
            w.on_event(&Event::Apply(session("a")));
        }
        for job in &forged {
            w.on_job(&applied(job));
            assert_eq!(w.used().unwrap_or_default(), 0, "{job:?}");
        }
    }
    assert_eq!(w.queues.look(&home(), Queue::jobs), Some(0), "nor do they hold a deletion up");
    // The watch may report an existing session after its Job. The Job counts where the session says, not where the Job
    // says.
    let mut late = labelled(job("late"));
    late.annotations_mut().insert("lifeboat.stash.appscode.com/repository".into(), "elsewhere/r".into());
    w.on_job(&applied(&late));
    assert_eq!(w.used(), Some(0));
    w.on_event(&Event::Apply(session("late")));
    assert_eq!(w.used(), Some(1));
    let mut ended = session("late").open();
    ended.status = serde_json::from_value(json!({ "phase": "Failed" })).unwrap();
    w.on_event(&Event::Apply(ended.into()));
    assert_eq!(w.used(), Some(0));
    w.on_event(&Event::Apply(session("late")));
    let mut moved = session("late").open();
    moved.spec.repository.as_mut().unwrap().name = "other".into();
    w.on_event(&Event::Apply(moved.into()));
    assert_eq!((w.used(), w.queues.look(&Home::new("other").within("n"), Queue::used)), (Some(0), Some(1)));
}

fn backup(name: &str) -> Stored<BackupSession> {
    let meta = json!({ "name": name, "namespace": "n", "uid": name, "creationTimestamp": "2026-11-20T00:00:00Z" });
    serde_json::from_value(json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupSession",
        "metadata": meta, "spec": { "invoker": { "kind": "BackupConfiguration", "name": "nightly" } } }))
    .unwrap()
}

fn nightly() -> Stored<BackupConfiguration> {
    serde_json::from_value(json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration",
        "metadata": { "name": "nightly", "namespace": "n", "uid": "nightly" }, "spec": { "repository": { "name": "r" }, "retentionPolicy": { "name": "all", "prune": true } } }))
    .unwrap()
}

/// The Repository of a backup is named in its invoker. A store that is unreachable is probed again only if a session
/// waits for it.
#[test]
fn a_backup_is_entered_whether_it_or_its_invoker_is_heard_of_first() {
    let waits = |w: &World| w.queues.look(&home(), Queue::len).unwrap_or_default();
    // At a start, with the two lists in either order.
    for backups_first in [true, false] {
        let mut w = World::new();
        let backups = |w: &mut World| {
            [Event::Init, Event::InitApply(backup("one")), Event::InitDone].iter().for_each(|e| w.on_backup(e));
        };
        let configurations = |w: &mut World| {
            [Event::Init, Event::InitApply(nightly()), Event::InitDone].iter().for_each(|e| w.on_configuration(e));
        };
        let lists: [&dyn Fn(&mut World); 2] =
            if backups_first { [&backups, &configurations] } else { [&configurations, &backups] };
        lists.iter().for_each(|list| list(&mut w));
        assert_eq!(waits(&w), 1, "backups first: {backups_first}");
    }
    // The list of backups is read while the list of invokers is read.
    let mut w = World::new();
    w.on_backup(&Event::Init);
    w.on_configuration(&Event::Init);
    w.on_backup(&Event::InitApply(backup("one")));
    w.on_configuration(&Event::InitApply(nightly()));
    w.on_configuration(&Event::InitDone);
    w.on_backup(&Event::InitDone);
    assert_eq!(waits(&w), 1);
    // Later, by single events.
    let mut w = World::new();
    w.on_backup(&Event::Init);
    w.on_backup(&Event::InitDone);
    w.on_configuration(&Event::Init);
    w.on_configuration(&Event::InitDone);
    w.on_backup(&Event::Apply(backup("one")));
    assert_eq!(waits(&w), 0);
    w.on_configuration(&Event::Apply(nightly()));
    assert_eq!(waits(&w), 1);
}

/// Otherwise more Jobs than allowed would run for a moment.
#[test]
fn a_new_list_forgets_what_is_gone_and_not_what_is_about_to_come() {
    let w = World::new();
    let all = ["a", "b", "c", "d"].map(session);
    all.iter().for_each(|s| w.on_event(&Event::Apply(s.clone())));
    for (session, name) in all.iter().zip(["a", "b", "c", "d"]) {
        assert!(w.reserves(session, &[job(name)], 4));
    }
    w.queues.asked("n", &job("b").name_any());
    w.queues.asked("n", &job("c").name_any());
    w.queues.made("n", &job("c").name_any());
    w.on_job(&applied(&job("d")));
    w.on_job(&Event::Init);
    w.queues.made("n", &job("b").name_any());
    w.on_job(&Event::InitDone);
    assert_eq!(w.used(), Some(2), "a is about to be made, and b was made after the list was begun");
    // A Job whose create request got no answer may exist. It does not count forever, and no longer than its session.
    w.queues.asked("n", &job("a").name_any());
    w.queues.give_back("n", &job("a").name_any());
    w.on_job(&Event::Init);
    w.on_job(&Event::InitDone);
    assert_eq!(w.used(), Some(1), "of b a later list would tell");
    w.on_event(&Event::Delete(all[0].clone()));
    w.on_event(&Event::Apply(all[0].clone()));
    assert_eq!(w.used(), Some(0));
    assert!(w.reserves(&all[0], &[job("a")], 4));
    w.queues.asked("n", &job("a").name_any());
    w.queues.give_back("n", &job("a").name_any());
    let later = Instant::now() + std::time::Duration::from_mins(3);
    w.queues.with(|all| all.forget_unanswered(later));
    assert_eq!(w.used(), Some(0));
}

/// Two Jobs that create a repository at the same time destroy it.
#[test]
fn a_new_repository_is_created_by_one_job_at_a_time() {
    let mut w = World::new();
    w.on_configuration(&Event::Apply(nightly()));
    let [one, two] = ["one", "two"].map(backup);
    for session in [&one, &two] {
        w.on_backup(&Event::Apply(session.clone()));
    }
    let prepares = |name: &str| {
        let mut job = job_on("prepare", &owner("BackupSession", name), "prepare", &[]);
        let notes = job.metadata.annotations.get_or_insert_default();
        notes.insert(annotation::REPOSITORY.to_owned(), "n/r".to_owned());
        job
    };
    let (first, second) = ([prepares("one")], [prepares("two")]);
    assert_eq!(w.queues.reserve(&one, &first, 16, true), Reserved::All);
    assert_eq!(w.queues.reserve(&one, &first, 16, true), Reserved::All, "its own");
    assert_eq!(w.queues.reserve(&two, &second, 16, true), Reserved::BeingCreated, "before it is there");
    w.queues.made("n", &first[0].name_any());
    w.queues.on_job::<BackupSession>(&applied(&first[0]), &w.jobs);
    assert_eq!(w.queues.reserve(&two, &second, 16, true), Reserved::BeingCreated, "while it works");
    assert_eq!(w.queues.reserve(&two, &second, 16, false), Reserved::All, "nothing is created where there is one");
    w.queues.give_back("n", &second[0].name_any());
    w.queues.with(|all| all.note(&format!("n/{}", first[0].name_any()), true, false));
    assert_eq!(w.queues.reserve(&two, &second, 16, true), Reserved::All, "one that cannot start keeps nobody");
    w.queues.give_back("n", &second[0].name_any());
    w.queues.on_job::<BackupSession>(&applied(&over(first[0].clone())), &w.jobs);
    assert_eq!(w.queues.reserve(&two, &second, 16, true), Reserved::All);
}

/// A claim that a Job writes to is reserved before the watches report the Job. Otherwise a half-restored volume could
/// become a successful backup.
#[test]
fn claims_are_reserved_and_only_readers_share_one() {
    let mut w = World::new();
    w.on_configuration(&Event::Apply(nightly()));
    let [one, two] = ["one", "two"].map(backup);
    w.on_backup(&Event::Apply(one.clone()));
    w.on_event(&Event::Apply(session("a")));
    let writes = job_on("writes", &owner("RestoreSession", "a"), "restore", &["data", "more"]);
    let reads = |name: &str| job_on(&format!("reads-{name}"), &owner("BackupSession", name), "backup", &["data"]);
    let preflight = job_on("looks", &owner("RestoreSession", "a"), "preflight", &["data"]);

    assert_eq!(w.queues.reserve(&session("a"), std::slice::from_ref(&writes), 16, false), Reserved::All);
    let writer = Writer { session: "RestoreSession n/a".into(), claim: "data".into(), reads: false };
    assert_eq!(
        w.queues.reserve(&one, &[reads("one")], 16, false),
        Reserved::InUse(vec![writer.clone()]),
        "before it is there"
    );
    assert_eq!(w.queues.reserve(&session("a"), std::slice::from_ref(&writes), 16, false), Reserved::All, "its own");
    assert_eq!(w.queues.reserve(&session("b"), &[preflight], 16, false), Reserved::All, "it only asks the repository");
    w.queues.asked("n", &writes.name_any());
    w.queues.made("n", &writes.name_any());
    w.on_job(&applied(&writes));
    assert_eq!(w.queues.reserve(&one, &[reads("one")], 16, false), Reserved::InUse(vec![writer]), "while it works");
    // The session has read the outcome of the Job, although another container of the pod still runs.
    let outcome = crate::contract::Outcome::default();
    let done = JobSeen {
        state: JobState::Done(Box::new(outcome)),
        ..job_status::see(&writes, &[], k8s_openapi::jiff::Timestamp::UNIX_EPOCH)
    };
    w.queues.note("n", &[done]);
    assert_eq!(w.queues.reserve(&one, &[reads("one")], 16, false), Reserved::All);
    w.queues.give_back("n", &reads("one").name_any());
    w.on_job(&applied(&over(writes.clone())));

    assert_eq!(w.queues.reserve(&one, &[reads("one")], 16, false), Reserved::All);
    assert_eq!(w.queues.reserve(&two, &[reads("two")], 16, false), Reserved::All, "readers share");
    let Reserved::InUse(readers) = w.queues.reserve(&session("b"), std::slice::from_ref(&writes), 16, false) else {
        panic!("in use")
    };
    assert_eq!(
        readers.iter().map(|r| (r.session.as_str(), r.reads)).collect::<Vec<_>>(),
        [("BackupSession n/one", true), ("BackupSession n/two", true)]
    );
    w.queues.refused("n", &reads("one").name_any());
    w.queues.give_back("n", &reads("two").name_any());
    assert_eq!(w.queues.reserve(&session("b"), std::slice::from_ref(&writes), 16, false), Reserved::All);

    // After a start, running Jobs reserve claims before their session is known.
    let w = World::new();
    w.on_job(&Event::Init);
    w.on_job(&Event::InitApply(writes.into()));
    assert!(matches!(w.queues.reserve(&one, &[reads("one")], 16, false), Reserved::InUse(_)));
    w.on_job(&Event::InitDone);
    assert_eq!(w.queues.reserve(&one, &[reads("one")], 16, false), Reserved::All);
}

#[test]
fn a_job_that_cannot_start_holds_claims_and_no_place() {
    let w = World::new();
    w.on_event(&Event::Apply(session("a")));
    w.on_event(&Event::Apply(session("b")));
    let writes = job_on("writes", &owner("RestoreSession", "a"), "restore", &["data"]);
    assert!(w.reserves(&session("a"), std::slice::from_ref(&writes), 1));
    w.on_job(&applied(&writes));
    assert!(!w.reserves(&session("b"), &[job("b")], 1));
    let seen =
        |is_stuck| JobSeen { is_stuck, ..job_status::see(&writes, &[], k8s_openapi::jiff::Timestamp::UNIX_EPOCH) };
    w.queues.note("n", &[seen(true)]);
    assert_eq!((w.used(), w.queues.look(&home(), Queue::jobs)), (Some(0), Some(1)));
    // A further event about the Job does not change that.
    w.on_job(&applied(&writes));
    assert!(w.reserves(&session("b"), &[job("b")], 1));
    let other = job_on("other", &owner("RestoreSession", "b"), "restore", &["data"]);
    assert!(matches!(w.queues.reserve(&session("b"), &[other], 16, false), Reserved::InUse(_)));
    w.queues.note("n", &[seen(false)]);
    assert_eq!(w.used(), Some(2), "it has started after all");
}

/// A resource that several sessions connect to has its own slots, which do not count for any Repository.
#[test]
fn a_session_takes_slots_of_each_thing_that_its_jobs_work_on() {
    let w = World::new();
    let batch = |uid: &str| -> Stored<RestoreBatch> {
        let shelf = json!({ "driver": "Mock", "target": { "mock": { "endpoint": "e", "shelf": "a", "secret": "s" } } });
        let claim = json!({ "target": { "ref": { "kind": "PersistentVolumeClaim", "name": uid } } });
        let meta = json!({ "name": uid, "namespace": "n", "uid": uid, "creationTimestamp": "2026-11-20T00:00:00Z" });
        serde_json::from_value(json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch",
            "metadata": meta, "spec": { "repository": { "name": "r" }, "members": [shelf, claim] } }))
        .unwrap()
    };
    let (store, events) = (&w.users.restore_batches.store, |s: &Stored<RestoreBatch>| Event::Apply(s.clone()));
    let (a, b) = (batch("a"), batch("b"));
    for session in [&a, &b] {
        w.queues.on_session(&w.users, &events(session), store);
    }
    let job = |of: &str, key: &str, slot: &str| {
        let mut job = job_on(key, &owner("RestoreBatch", of), "restore", &[]);
        job.annotations_mut().insert(annotation::REPOSITORY.into(), slot.into());
        job
    };
    let of_mock = "Mock e";
    let reserves = |s, jobs: &[Job]| w.queues.reserve(s, jobs, 1, false);
    assert_eq!(reserves(&a, &[job("a", "1", of_mock), job("a", "2", "n/r")]), Reserved::All, "one of each");
    assert_eq!((w.used(), w.queues.rooms(&a, 1)[of_mock].free), (Some(1), 0));
    // Another session finds both taken, whatever its Jobs claim.
    for slot in [of_mock, "n/r", "nobody's"] {
        assert_eq!(reserves(&b, &[job("b", "3", slot)]), Reserved::NoRoom, "{slot}");
    }
    w.queues.give_back("n", &job("a", "1", of_mock).name_any());
    assert_eq!(reserves(&b, &[job("b", "3", "n/r")]), Reserved::NoRoom);
    assert_eq!(reserves(&b, &[job("b", "4", of_mock)]), Reserved::All);
    assert_eq!(w.queues.rooms(&a, 1)[of_mock].free, 0);
    w.queues.on_session(&w.users, &Event::Delete(b), store);
    assert_eq!(w.queues.rooms(&a, 1)[of_mock].free, 1, "slots go with their session");
}
