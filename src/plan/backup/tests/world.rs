//! A backup with Jobs in memory, and a controller that can be stopped before any write.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::common::RetryConfig;
use crate::contract::{Failure, Progress, Task};
use crate::plan::backup::next;
use crate::plan::backup::run::{BackupRun, Invoker};
use crate::plan::effects::{FinalizerChange, Stop};
use crate::plan::fake::{End, Grants, Jobs, setup};
use crate::plan::repository::slots::queue::Room;
use crate::plan::seen::identity::Identity;
use crate::plan::seen::repository::{RepositorySeen, Silence};
use crate::plan::seen::surroundings::{Rival, Surroundings, Writer};
use crate::plan::seen::target::{ClaimSeen, Target, TargetSeen};
use crate::plan::seen::{Refusal, Seen};
use crate::plan::work::pod_security::Level;

/// Number of passes after which a test fails, because the session does not come to rest.
pub const MOST_PASSES: usize = 900;

/// The claim of a member.
pub fn claim(i: usize) -> Target {
    let claim = ClaimSeen { exists: true, access_modes: vec!["ReadWriteOnce".into()], ..ClaimSeen::default() };
    Target {
        kind: "PersistentVolumeClaim".into(),
        name: format!("m{i}"),
        replicas: 1,
        claims: [(format!("m{i}"), claim)].into(),
        ..Target::default()
    }
}

/// A backup of claims m0, m1 and so on.
pub struct World {
    pub run: BackupRun,
    pub status: Value,
    pub jobs: Jobs,
    pub grants: Grants,
    pub policy: Value,
    /// Backend in the spec of its Repository.
    pub backend: Value,
    pub targets: Vec<bool>,
    /// The target in place of the first claim.
    pub found: Option<Target>,
    pub repository: bool,
    /// When the first backup through the Repository succeeded, and whether a repository existed.
    pub first_backup: Option<Time>,
    pub known: bool,
    pub pod_security: Level,
    /// Job settings of the namespace.
    pub job_defaults: Result<crate::api::runtime::RuntimeSettings, String>,
    pub refusal: Option<Refusal>,
    pub now: Timestamp,
    pub writes: usize,
    pub crashes: Vec<usize>,
    pub facts: usize,
    pub last_facts: Value,
    pub rivals: Vec<Rival>,
    pub writers: Vec<Writer>,
    pub silent: bool,
    pub room: usize,
    pub events: Vec<String>,
    /// Sessions that were created after it failed, with their number of remaining retries.
    pub followers: BTreeMap<String, Option<i32>>,
    pub refused_revoke: Option<Failure>,
    pub last_task: Option<Task>,
    /// Progress that Jobs report when they are asked, by name.
    pub progress: BTreeMap<String, Progress>,
}

impl World {
    pub fn new(members: usize, sequential: bool, stop: bool) -> Self {
        let member = |i| json!({ "target": { "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": format!("m{i}") }, "alias": format!("m{i}") } });
        let invoker = Invoker {
            repository: serde_json::from_value(json!({ "name": "repo" })).unwrap(),
            members: (0..members).map(|i| serde_json::from_value(member(i)).unwrap()).collect(),
            sequential,
            stop,
            time_out: Some("6m".into()),
            ..Invoker::default()
        };
        let id = Identity {
            uid: "u-1".into(),
            kind: "BackupSession".into(),
            namespace: "demo".into(),
            name: "b".into(),
            ..Identity::default()
        };
        Self {
            run: BackupRun {
                id,
                invoker: Some(invoker),
                invoker_label: "BackupBatch demo/all".into(),
                ..BackupRun::default()
            },
            status: json!({}),
            jobs: Jobs::default(),
            grants: Grants::default(),
            policy: json!({ "allowedNamespaces": { "from": "All" } }),
            backend: json!({ "storageSecretName": "s", "s3": { "endpoint": "e", "bucket": "b" } }),
            targets: vec![true; members],
            found: None,
            repository: true,
            first_backup: None,
            known: false,
            pod_security: Level::Privileged,
            job_defaults: Ok(crate::api::runtime::RuntimeSettings::default()),
            refusal: None,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            writes: 0,
            crashes: vec![],
            facts: 0,
            last_facts: Value::Null,
            rivals: vec![],
            writers: vec![],
            silent: false,
            room: 16,
            events: vec![],
            followers: BTreeMap::new(),
            refused_revoke: None,
            last_task: None,
            progress: BTreeMap::new(),
        }
    }

    pub fn invoker(&mut self) -> &mut Invoker {
        self.run.invoker.as_mut().unwrap()
    }

    pub fn condition(&self, kind: &str) -> (&str, &str) {
        let all = self.status["conditions"].as_array().unwrap();
        let found = all.iter().find(|c| c["type"] == kind).unwrap_or_else(|| panic!("no {kind}"));
        (found["status"].as_str().unwrap(), found["message"].as_str().unwrap())
    }

    pub fn look(&self) -> Surroundings {
        let spec = json!({ "backend": self.backend, "usagePolicy": self.policy });
        let found = RepositorySeen {
            spec: serde_json::from_value(spec).unwrap(),
            first_backup: self.first_backup.clone(),
            known: self.known,
            secret: Seen::Found(()),
            labels: Seen::Missing,
            unreachable: self.silent.then(|| Silence { since: self.now, message: "It is away.".into() }),
            not_ready: None,
        };
        let see = |(i, there): (usize, &bool)| {
            let found = self.found.clone().filter(|_| i == 0).unwrap_or_else(|| claim(i));
            if *there { TargetSeen::Found(Box::new(found)) } else { TargetSeen::Missing(format!("m{i}")) }
        };
        Surroundings {
            source: Seen::Missing,
            refusal: self.refusal.clone(),
            repository: if self.repository { Seen::Found(found) } else { Seen::Missing },
            targets: self.targets.iter().enumerate().map(see).collect(),
            pod_security: self.pod_security,
            job_defaults: self.job_defaults.clone(),
            jobs: self.jobs.seen(),
            rivals: self.rivals.clone(),
            writers: self.writers.clone(),
            refused_claims: BTreeMap::new(),
            refused_scales: BTreeMap::new(),
            refused_holds: BTreeMap::new(),
            refused_revoke: self.refused_revoke.clone(),
            room: Room { free: self.room, ahead: 16 - self.room },
            rooms: BTreeMap::new(),
            progress: self.progress.clone(),
        }
    }

    pub fn write(&mut self) -> bool {
        self.writes += 1;
        !self.crashes.contains(&(self.writes - 1))
    }

    /// One pass. Returns the wait for the next pass, or `None` at the end.
    pub fn pass(&mut self) -> Option<SignedDuration> {
        self.run.state = serde_json::from_value(self.status.clone()).unwrap();
        let plan = next(&self.run, &self.look(), &setup(), self.now);
        assert!(plan.jobs.len() <= self.room && (plan.jobs.is_empty() || !self.silent), "only what may be made");
        let wait = plan.requeue.map(|r| SignedDuration::try_from(r).unwrap());
        // A change of the object triggers a reconcile.
        let wait = if plan.again || plan.finalizer.is_some() { Some(SignedDuration::ZERO) } else { wait };
        for grant in &plan.grants {
            let announced = self.run.state.run.iter().any(|r| r.grants.contains(&grant.status));
            assert!(self.run.id.held && announced, "{grant:?} is not announced");
        }
        for object in plan.revoke.iter().flat_map(|g| Grants::to_remove(g, "demo")) {
            if !self.write() {
                return Some(SignedDuration::ZERO);
            }
            self.grants.there.remove(&object);
        }
        if let Some(change) = plan.finalizer {
            if !self.write() {
                return Some(SignedDuration::ZERO);
            }
            self.run.id.held = change == FinalizerChange::Add;
        }
        for Stop { name, .. } in &plan.stop_jobs {
            if !self.write() {
                return Some(SignedDuration::ZERO);
            }
            self.jobs.stop(name);
        }
        for object in plan.grants.iter().flat_map(Grants::objects) {
            if !self.write() {
                return Some(SignedDuration::ZERO);
            }
            self.grants.make(object);
        }
        for job in &plan.jobs {
            if !self.write() {
                return Some(SignedDuration::ZERO);
            }
            self.grants.serve(job);
            self.last_task = Some(crate::plan::fake::task(job));
            self.jobs.create(job);
        }
        self.silent |= plan.unreachable && self.jobs.away;
        for new in &plan.sessions {
            if !self.write() {
                return Some(SignedDuration::ZERO);
            }
            let name = new.session.metadata.name.clone().unwrap();
            self.followers.insert(name, new.session.spec.retry_left);
        }
        if let Some(status) = plan.status {
            if !self.write() {
                return Some(SignedDuration::ZERO);
            }
            self.facts += usize::from(plan.repository_facts.is_some());
            self.last_facts = plan.repository_facts.unwrap_or(std::mem::take(&mut self.last_facts));
            self.status = status;
        }
        self.events.extend(plan.events.into_iter().map(|e| e.reason));
        wait
    }

    pub fn settle(&mut self) {
        for _ in 0..MOST_PASSES {
            let Some(wait) = self.pass() else {
                let over = ["Succeeded", "Failed", "Skipped"].contains(&self.phase());
                assert!(over || self.run.id.deleting, "stuck: {:#}", self.status);
                // Stopped Jobs end.
                (0..4).for_each(|_| self.jobs.tick());
                assert_eq!(self.jobs.running(), Vec::<String>::new(), "nothing runs on");
                assert!(self.grants.there.is_empty() && !self.run.id.held, "left: {:?}", self.grants.there);
                return;
            };
            self.now += wait;
            if !wait.is_zero() {
                self.jobs.tick();
            }
        }
        panic!("no end: {:#}", self.status);
    }

    /// Runs some passes.
    pub fn step(&mut self, passes: usize) {
        for _ in 0..passes {
            let wait = self.pass().unwrap();
            self.now += wait;
            self.jobs.tick();
        }
    }

    /// Runs passes until a step has a Job.
    pub fn until(&mut self, step: &str) {
        for _ in 0..MOST_PASSES {
            if self.steps().contains(&step) {
                return;
            }
            self.step(1);
        }
        panic!("no {step}: {:#}", self.status);
    }

    pub fn summary(&self) -> &str {
        self.status["summary"].as_str().unwrap_or_default()
    }

    pub fn stalled_is_absent(&self) -> bool {
        self.status["conditions"].as_array().unwrap().iter().all(|c| c["type"] != "Stalled")
    }

    pub fn phase(&self) -> &str {
        self.status["phase"].as_str().unwrap_or_default()
    }

    pub fn targets(&self) -> Vec<&str> {
        self.status["targets"].as_array().unwrap().iter().map(|t| t["phase"].as_str().unwrap()).collect()
    }

    pub fn stalled(&self) -> &str {
        let all = self.status["conditions"].as_array().unwrap();
        all.iter().find(|c| c["type"] == "Stalled").unwrap()["reason"].as_str().unwrap()
    }

    pub fn steps(&self) -> Vec<&str> {
        self.jobs.created.iter().map(|(k, _)| k.as_str()).collect()
    }
}

pub fn script(world: &mut World, key: &str, ends: &[End]) {
    world.jobs.script.insert(key.into(), ends.to_vec());
}

/// A session whose Repository is in namespace `store`.
pub fn from_elsewhere(members: usize) -> World {
    let mut w = World::new(members, true, true);
    let reference = json!({ "name": "repo", "namespace": "store" });
    w.run.invoker.as_mut().unwrap().repository = serde_json::from_value(reference).unwrap();
    w
}

pub fn retry(max: i32) -> RetryConfig {
    serde_json::from_value(json!({ "maxRetry": max, "delay": "10m" })).unwrap()
}
