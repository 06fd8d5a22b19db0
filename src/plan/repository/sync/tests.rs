//! The Snapshots of a Repository follow the content of its repository, with Jobs in memory.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

mod lost;
mod opened;

use crate::api::repository::RepositorySpec;
use crate::api::runtime::RuntimeSettings;
use crate::contract::Class;
use crate::names::reason;
use crate::plan::effects::Stop;
use crate::plan::fake::{End, Grants, Jobs, setup};
use crate::plan::repository::next;
use crate::plan::repository::pass::{RepositoryRun, RepositorySurroundings};
use crate::plan::seen::Seen;
use crate::plan::seen::identity::Identity;
use crate::plan::setup::Setup;

const HOUR: Duration = Duration::from_hours(1);

struct World {
    status: Value,
    spec: RepositorySpec,
    defaults: Result<RuntimeSettings, String>,
    request: Option<String>,
    secret: &'static str,
    may_list: bool,
    every: Duration,
    jobs: Jobs,
    grants: Grants,
    now: Timestamp,
    writes: usize,
    crashes: Vec<usize>,
    events: Vec<String>,
    /// Messages of the events.
    said: Vec<String>,
}

impl World {
    fn new() -> Self {
        let spec = json!({ "backend": { "storageSecretName": "s", "s3": { "endpoint": "e", "bucket": "b" } } });
        Self {
            status: json!({}),
            spec: serde_json::from_value(spec).unwrap(),
            defaults: Ok(RuntimeSettings::default()),
            request: None,
            secret: "1",
            may_list: true,
            every: HOUR,
            jobs: Jobs::default(),
            grants: Grants::default(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            writes: 0,
            crashes: vec![],
            events: vec![],
            said: vec![],
        }
    }

    fn write(&mut self) -> bool {
        self.writes += 1;
        !self.crashes.contains(&(self.writes - 1))
    }

    /// One pass. Returns the wait for the next pass.
    fn pass(&mut self) -> Option<SignedDuration> {
        let at_once = Some(SignedDuration::ZERO);
        let id = Identity {
            uid: "u".into(),
            kind: "Repository".into(),
            namespace: "store".into(),
            name: "r".into(),
            ..Identity::default()
        };
        let run = RepositoryRun {
            id,
            spec: self.spec.clone(),
            sync_request: self.request.clone(),
            state: serde_json::from_value(self.status.clone()).unwrap(),
            ..RepositoryRun::default()
        };
        let seen = RepositorySurroundings {
            refusal: None,
            secret: Seen::Found(()),
            secret_version: Some(self.secret.into()),
            may_list: self.may_list,
            references: vec![],
            jobs: self.jobs.seen(),
            waiting: 0,
            at_work: 0,
            slots: None,
            shares_data_with: None,
            job_defaults: self.defaults.clone(),
            namespace_ends: false,
        };
        let setup = Setup { sync_every: self.every, ..setup() };
        let plan = next(&run, &seen, &setup, self.now);
        for grant in &plan.grants {
            assert!(run.state.sync.iter().any(|s| s.grants.contains(&grant.status)), "{grant:?} is not announced");
        }
        for object in plan.revoke.iter().flat_map(|g| Grants::to_remove(g, "store")) {
            if !self.write() {
                return at_once;
            }
            self.grants.there.remove(&object);
        }
        for Stop { name, .. } in &plan.stop_jobs {
            if !self.write() {
                return at_once;
            }
            self.jobs.stop(name);
        }
        for object in plan.grants.iter().flat_map(Grants::objects) {
            if !self.write() {
                return at_once;
            }
            self.grants.make(object);
        }
        for job in &plan.jobs {
            if !self.write() {
                return at_once;
            }
            let account = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap().service_account_name.clone();
            let bound = plan.grants.iter().flat_map(|g| g.binding.subjects.iter().flatten());
            assert!(
                bound.into_iter().any(|s| Some(&s.name) == account.as_ref()),
                "{account:?} has not the right that its Job needs"
            );
            self.jobs.create(job);
        }
        if let Some(status) = plan.status {
            if !self.write() {
                return at_once;
            }
            self.status = status;
        }
        self.said.extend(plan.events.iter().map(|e| e.message.clone()));
        self.events.extend(plan.events.into_iter().map(|e| e.reason));
        if plan.again { at_once } else { plan.requeue.map(|r| SignedDuration::try_from(r).unwrap()) }
    }

    /// Runs passes for some time, or until nothing more is to be done.
    fn live(&mut self, minutes: i64) {
        let until = self.now + SignedDuration::from_mins(minutes);
        for _ in 0..2000 {
            let Some(wait) = self.pass() else { return };
            if self.now + wait > until {
                self.now = until;
                return;
            }
            self.now += wait;
            if !wait.is_zero() {
                self.jobs.tick();
            }
        }
        panic!("no rest: {:#}", self.status);
    }

    fn rests(&mut self, lists: usize) {
        assert_eq!(self.jobs.created.len(), lists, "{:?}", self.jobs.created);
        // Stopped Jobs end.
        (0..4).for_each(|_| self.jobs.tick());
        assert!(self.jobs.seen().is_empty() && self.grants.there.is_empty(), "left: {:?}", self.grants.there);
        assert!(self.status["sync"]["begun"].is_null() && self.status["sync"]["grants"].is_null(), "{:#}", self.status);
    }

    fn synced(&self) -> (String, String) {
        let (status, why, _) = self.condition("SnapshotsSynced");
        (status, why)
    }

    fn ready(&self) -> (String, String) {
        let (status, why, _) = self.condition("Ready");
        (status, why)
    }

    fn condition(&self, type_: &str) -> (String, String, String) {
        let all = self.status["conditions"].as_array().unwrap();
        let found = all.iter().find(|c| c["type"] == type_).unwrap();
        let text = |key: &str| found[key].as_str().unwrap().to_owned();
        (text("status"), text("reason"), text("message"))
    }
}

fn is_open() -> (String, String) {
    ("True".into(), reason::REPOSITORY_OPENED.into())
}

#[test]
fn snapshots_are_listed_at_first_and_then_now_and_then() {
    let mut w = World::new();
    w.live(30);
    w.rests(1);
    assert_eq!(w.synced(), ("True".into(), reason::SNAPSHOTS_LISTED.into()));
    assert_eq!(w.status["snapshotCount"], 3);
    w.live(60 * 3);
    w.rests(4);
    let mut w = World::new();
    w.every = Duration::ZERO;
    w.live(60 * 24);
    w.rests(0);
    w.request = Some("now".into());
    w.live(60 * 24);
    w.rests(1);
}

#[test]
fn a_backup_and_a_request_ask_for_a_list_and_each_is_answered_once() {
    let mut w = World::new();
    w.live(1);
    w.status["lastBackupTime"] = "2027-01-15T08:00:00Z".into();
    w.live(10);
    w.rests(2);
    w.request = Some("now".into());
    w.live(10);
    w.rests(3);
    assert_eq!(w.status["sync"]["request"], "now");
    w.live(10);
    w.rests(3);
    w.request = None;
    w.live(10);
    w.rests(3);
}

#[test]
fn what_is_asked_for_while_a_list_runs_is_answered_by_another() {
    let mut w = World::new();
    while w.jobs.created.is_empty() {
        w.pass();
    }
    w.request = Some("now".into());
    w.live(20);
    w.rests(2);
    assert_eq!(w.status["sync"]["request"], "now");
}

#[test]
fn a_crash_before_any_write_changes_nothing() {
    let world = || {
        let mut w = World::new();
        w.jobs.script.insert("list".into(), vec![End::TRANSIENT]);
        w.request = Some("a".into());
        w
    };
    let mut smooth = world();
    smooth.live(30);
    smooth.rests(2);
    assert!(smooth.writes > 10, "{}", smooth.writes);
    for write in 0..smooth.writes {
        let mut w = world();
        w.crashes = vec![write, write + 1];
        w.live(30);
        w.rests(2);
        assert_eq!((w.synced().0, &w.jobs.created), ("True".to_owned(), &smooth.jobs.created), "crash before {write}");
    }
}

#[test]
fn a_list_that_fails_is_said_and_tried_again_in_time() {
    let mut w = World::new();
    w.jobs.script.insert("list".into(), vec![End::DATA]);
    w.pass();
    while w.events.is_empty() {
        w.now += SignedDuration::from_secs(1);
        w.pass();
        w.jobs.tick();
    }
    assert_eq!(w.synced(), ("False".into(), reason::DATA_CORRUPT.into()));
    w.live(30);
    w.rests(2);
    assert_eq!(w.events, [reason::DATA_CORRUPT]);
    assert_eq!(w.synced().0, "True");
}

fn account(name: &str) -> RuntimeSettings {
    serde_json::from_value(json!({ "pod": { "serviceAccountName": name } })).unwrap()
}

/// Closes: C4 and B37 of the newcomer.
#[test]
fn the_job_that_lists_has_the_settings_of_its_repository_and_its_account_the_right() {
    let mut w = World::new();
    w.spec.runtime_settings = Some(account("mine"));
    w.defaults = crate::plan::work::job_defaults::parse(r#"{"serviceAccountName":"theirs","nodeSelector":{"a":"b"}}"#);
    w.live(5);
    let pod = crate::plan::seen::job_status::pod_of(&w.jobs.made[0]).unwrap().clone();
    assert_eq!(pod.service_account_name.as_deref(), Some("mine"));
    assert_eq!(pod.node_selector.unwrap().len(), 1, "from the namespace");
    assert!(w.grants.there.is_empty(), "{:?}", w.grants.there);
    assert_eq!(w.jobs.made.len(), 1);
}

#[test]
fn an_account_that_changes_between_announcement_and_job_is_announced_again() {
    let mut w = World::new();
    // The sync is announced, and no Job is created.
    w.pass();
    w.spec.runtime_settings = Some(account("mine"));
    w.live(5);
    assert!(w.status["snapshotCount"].is_number() && w.jobs.made.len() == 1, "{:#}", w.status);
    assert!(w.grants.there.is_empty() && w.status["sync"].get("grants").is_none(), "{:#}", w.status);
}

#[test]
fn settings_of_a_namespace_that_cannot_be_read_list_nothing_and_are_told() {
    let mut w = World::new();
    w.defaults = Err("Annotation a of Namespace store is not valid: it is.".into());
    w.live(5);
    assert_eq!(w.jobs.made.len(), 0);
    assert!(w.status.to_string().contains("Annotation a of Namespace store"), "{:#}", w.status);
    w.defaults = Ok(RuntimeSettings::default());
    w.live(5);
    assert_eq!(w.jobs.made.len(), 1);
}
