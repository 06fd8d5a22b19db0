//! One Repository in memory, reconciled pass by pass.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::Repository;
use crate::api::repository::Reference;
use crate::names::{FINALIZER, annotation};
use crate::plan::effects::{FinalizerChange, Stop};
use crate::plan::fake::{Jobs, setup};
use crate::plan::repository::next;
use crate::plan::repository::pass::{RepositoryRun, RepositorySurroundings};
use crate::plan::seen::Seen;
use crate::plan::seen::identity::Identity;
use crate::plan::setup::Setup;

/// Most passes until a Repository must rest.
const MOST_PASSES: usize = 300;

pub struct World {
    pub object: Value,
    pub seen: RepositorySurroundings,
    pub jobs: Jobs,
    pub now: Timestamp,
    pub writes: usize,
    pub crashes: Vec<usize>,
    pub events: Vec<String>,
    pub held: bool,
    pub gone: bool,
    /// Interval of listings.
    pub every: Duration,
    /// When a probe or wipe was created, seconds after the start.
    pub at: Vec<i64>,
}

pub fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

impl World {
    pub fn new(wipe_out: bool) -> Self {
        let spec = json!({ "wipeOut": wipe_out, "backend": { "storageSecretName": "s", "s3": { "endpoint": "e", "bucket": "b" } } });
        Self {
            object: json!({ "spec": spec, "metadata": { "name": "repo", "namespace": "n", "uid": "u-1", "generation": 1 } }),
            seen: RepositorySurroundings {
                refusal: None,
                secret: Seen::Found(()),
                secret_version: None,
                may_list: true,
                references: vec![],
                jobs: vec![],
                waiting: 0,
                at_work: 0,
                slots: None,
                shares_data_with: None,
                job_defaults: Ok(crate::api::runtime::RuntimeSettings::default()),
                namespace_ends: false,
            },
            jobs: Jobs::default(),
            now: start(),
            writes: 0,
            crashes: vec![],
            events: vec![],
            held: false,
            gone: false,
            every: Duration::ZERO,
            at: vec![],
        }
    }

    pub fn used_by(mut self, names: &[&str]) -> Self {
        self.seen.references = names
            .iter()
            .map(|n| Reference {
                kind: Some("BackupBatch".into()),
                namespace: Some("n".into()),
                name: (*n).into(),
                ..Reference::default()
            })
            .collect();
        self
    }

    pub fn delete(&mut self) {
        self.object["metadata"]["deletionTimestamp"] = json!("2026-11-20T00:00:00Z");
    }

    /// Requests a probe, as a session does that cannot reach the store.
    pub fn is_reported(&mut self) {
        let time = serde_json::to_value(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now)).unwrap();
        self.object["status"]["probeRequestTime"] = time;
    }

    pub fn write(&mut self) -> bool {
        self.writes += 1;
        !self.crashes.contains(&(self.writes - 1))
    }

    /// One pass. Returns the wait for the next pass, or `None` when nothing more is to be done.
    pub fn pass(&mut self) -> Option<SignedDuration> {
        let mut object: Repository = serde_json::from_value({
            let mut o = self.object.clone();
            o["apiVersion"] = json!("stash.appscode.com/v1alpha1");
            o["kind"] = json!("Repository");
            o
        })
        .unwrap();
        object.metadata.finalizers = self.held.then(|| vec![FINALIZER.to_owned()]);
        let run = RepositoryRun {
            id: Identity::of(&object),
            spec: object.spec.clone(),
            stash: false,
            labels: std::collections::BTreeMap::new(),
            sync_request: object.metadata.annotations.as_ref().and_then(|a| a.get(annotation::SYNC).cloned()),
            state: object.status.clone().unwrap_or_default(),
        };
        self.seen.jobs = self.jobs.seen();
        let plan = next(&run, &self.seen, &Setup { sync_every: self.every, ..setup() }, self.now);
        let at_once = Some(SignedDuration::ZERO);
        if let Some(change) = plan.finalizer {
            if !self.write() {
                return at_once;
            }
            self.held = change == FinalizerChange::Add;
            self.gone = run.id.deleting && !self.held;
            if self.gone {
                return None;
            }
        }
        for Stop { name, .. } in &plan.stop_jobs {
            if !self.write() {
                return at_once;
            }
            self.jobs.stop(name);
        }
        for job in &plan.jobs {
            if crate::plan::fake::task(job).verb == "wipe" {
                let announced = run.state.steps.iter().any(|s| s.name == "wipe");
                assert!(announced && run.id.deleting && self.held, "intent before effect");
            }
            if !self.write() {
                return at_once;
            }
            let before = self.jobs.created.len();
            self.jobs.create(job);
            self.at.extend((self.jobs.created.len() > before).then(|| self.now.duration_since(start()).as_secs()));
        }
        if let Some(status) = plan.status {
            if !self.write() {
                return at_once;
            }
            self.object["status"] = status;
        }
        self.events.extend(plan.events.into_iter().map(|e| e.reason));
        if plan.again {
            return at_once;
        }
        plan.requeue.map(|r| SignedDuration::try_from(r).unwrap())
    }

    /// Runs passes for this long, or until the Repository is gone or rests.
    pub fn lives(&mut self, seconds: i64) {
        let end = self.now + SignedDuration::from_secs(seconds);
        for _ in 0..MOST_PASSES {
            let wait = self.pass();
            if self.gone || self.now >= end {
                return;
            }
            // The end of a Job triggers a reconcile.
            let left = end.duration_since(self.now);
            let running = if self.jobs.running().is_empty() { left } else { SignedDuration::from_secs(2) };
            let wait = wait.unwrap_or(left).min(running).min(left);
            self.now += wait;
            if !wait.is_zero() {
                self.jobs.tick();
            }
        }
        panic!("no rest: {:#}", self.object["status"]);
    }

    pub fn condition(&self, type_: &str) -> (String, String, String) {
        let all = self.object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|c| c["type"] == type_).unwrap_or_default();
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    pub fn attempts(&self, key: &str) -> usize {
        self.jobs.attempts(key)
    }
}
