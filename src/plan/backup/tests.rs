//! Backups from their first pass to their last, with Jobs of memory.

mod maintenance;
mod waiting;

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{BackupRun, Invoker, next};
use crate::api::common::RetryConfig;
use crate::names::reason;
use crate::plan::FinalizerChange;
use crate::plan::contract::Task;
use crate::plan::fake::{End, Grants, Jobs, setup};
use crate::plan::gate::Room;
use crate::plan::observed::{Refusal, RepositorySeen, Rival, Seen, Silence, Surroundings, Writer};
use crate::plan::pod_security::Level;
use crate::plan::run::Identity;
use crate::plan::target::{ClaimSeen, PodSeen, Target, TargetSeen};

const MOST_PASSES: usize = 900;

/// A backup of claims m0, m1 and so on.
struct World {
    run: BackupRun,
    status: Value,
    jobs: Jobs,
    grants: Grants,
    policy: Value,
    targets: Vec<bool>,
    /// What stands there in place of the first claim.
    found: Option<Target>,
    repository: bool,
    pod_security: Level,
    refusal: Option<Refusal>,
    now: Timestamp,
    writes: usize,
    crashes: Vec<usize>,
    facts: usize,
    last_facts: Value,
    rivals: Vec<Rival>,
    writers: Vec<Writer>,
    silent: bool,
    room: usize,
    events: Vec<String>,
    /// Sessions made after it failed, with what they may still be followed by.
    followers: BTreeMap<String, Option<i32>>,
    last_task: Option<Task>,
}

impl World {
    fn new(members: usize, sequential: bool, stop: bool) -> Self {
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
            targets: vec![true; members],
            found: None,
            repository: true,
            pod_security: Level::Privileged,
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
            last_task: None,
        }
    }

    fn invoker(&mut self) -> &mut Invoker {
        self.run.invoker.as_mut().unwrap()
    }

    fn condition(&self, kind: &str) -> (&str, &str) {
        let all = self.status["conditions"].as_array().unwrap();
        let found = all.iter().find(|c| c["type"] == kind).unwrap_or_else(|| panic!("no {kind}"));
        (found["status"].as_str().unwrap(), found["message"].as_str().unwrap())
    }

    fn look(&self) -> Surroundings {
        let spec = json!({ "backend": { "storageSecretName": "s", "s3": { "endpoint": "e", "bucket": "b" } },
            "usagePolicy": self.policy });
        let found = RepositorySeen {
            spec: serde_json::from_value(spec).unwrap(),
            first_backup: None,
            secret: Seen::Found(()),
            labels: Seen::Missing,
            unreachable: self.silent.then(|| Silence { since: self.now, message: "It is away.".into() }),
        };
        let claim = ClaimSeen { exists: true, access_modes: vec!["ReadWriteOnce".into()], ..ClaimSeen::default() };
        let target = |i: usize| Target {
            kind: "PersistentVolumeClaim".into(),
            name: format!("m{i}"),
            replicas: 1,
            claims: [(format!("m{i}"), claim.clone())].into(),
            ..Target::default()
        };
        let see = |(i, there): (usize, &bool)| {
            let found = self.found.clone().filter(|_| i == 0).unwrap_or_else(|| target(i));
            if *there { TargetSeen::Found(Box::new(found)) } else { TargetSeen::Missing(format!("m{i}")) }
        };
        Surroundings {
            source: Seen::Missing,
            refusal: self.refusal.clone(),
            repository: if self.repository { Seen::Found(found) } else { Seen::Missing },
            targets: self.targets.iter().enumerate().map(see).collect(),
            pod_security: self.pod_security,
            jobs: self.jobs.seen(),
            rivals: self.rivals.clone(),
            writers: self.writers.clone(),
            refused_claims: BTreeMap::new(),
            refused_scales: BTreeMap::new(),
            room: Room { free: self.room, ahead: 16 - self.room },
            progress: BTreeMap::new(),
        }
    }

    fn write(&mut self) -> bool {
        self.writes += 1;
        !self.crashes.contains(&(self.writes - 1))
    }

    /// One pass; the wait for the next one, or `None` at the end.
    fn pass(&mut self) -> Option<SignedDuration> {
        self.run.state = serde_json::from_value(self.status.clone()).unwrap();
        let plan = next(&self.run, &self.look(), &setup(), self.now);
        assert!(plan.jobs.len() <= self.room && (plan.jobs.is_empty() || !self.silent), "only what may be made");
        let wait = plan.requeue.map(|r| SignedDuration::try_from(r).unwrap());
        // A change of the object wakes the controller.
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
        for name in &plan.stop_jobs {
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
            self.last_task = crate::plan::jobs::see(job, &[], self.now).task;
            self.jobs.create(job);
        }
        self.silent |= plan.unreachable.is_some() && self.jobs.away;
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

    fn settle(&mut self) {
        for _ in 0..MOST_PASSES {
            let Some(wait) = self.pass() else {
                let over = ["Succeeded", "Failed", "Skipped"].contains(&self.phase());
                assert!(over || self.run.id.deleting, "stuck: {:#}", self.status);
                // Stopped Jobs go.
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

    /// Some passes.
    fn step(&mut self, passes: usize) {
        for _ in 0..passes {
            let wait = self.pass().unwrap();
            self.now += wait;
            self.jobs.tick();
        }
    }

    /// Passes until a step has a Job.
    fn until(&mut self, step: &str) {
        for _ in 0..MOST_PASSES {
            if self.steps().contains(&step) {
                return;
            }
            self.step(1);
        }
        panic!("no {step}: {:#}", self.status);
    }

    fn summary(&self) -> &str {
        self.status["summary"].as_str().unwrap_or_default()
    }

    fn stalled_is_absent(&self) -> bool {
        self.status["conditions"].as_array().unwrap().iter().all(|c| c["type"] != "Stalled")
    }

    fn phase(&self) -> &str {
        self.status["phase"].as_str().unwrap_or_default()
    }

    fn targets(&self) -> Vec<&str> {
        self.status["targets"].as_array().unwrap().iter().map(|t| t["phase"].as_str().unwrap()).collect()
    }

    fn stalled(&self) -> &str {
        let all = self.status["conditions"].as_array().unwrap();
        all.iter().find(|c| c["type"] == "Stalled").unwrap()["reason"].as_str().unwrap()
    }

    fn steps(&self) -> Vec<&str> {
        self.jobs.created.iter().map(|(k, _)| k.as_str()).collect()
    }
}

fn script(world: &mut World, key: &str, ends: &[End]) {
    world.jobs.script.insert(key.into(), ends.to_vec());
}

#[test]
fn a_backup_prepares_backs_up_and_maintains() {
    let mut w = World::new(2, true, true);
    w.settle();
    assert_eq!((w.phase(), w.targets()), ("Succeeded", vec!["Succeeded"; 2]));
    assert_eq!(w.steps(), ["prepare", "backup/0/m0", "backup/1/m1", "maintain"]);
    assert_eq!((w.facts, w.events), (1, vec!["Succeeded".to_owned()]));
}

/// Proves: scenario 9, scenario 16.
#[test]
fn each_node_of_a_daemon_set_is_backed_up_where_it_is() {
    let mut w = World::new(1, false, true);
    let target = w.run.invoker.as_mut().unwrap().members[0].target.as_mut().unwrap();
    target.alias = None;
    target.volume_mounts = serde_json::from_value(json!([{ "name": "data", "mountPath": "/data" }])).unwrap();
    let volume = json!({ "name": "data", "hostPath": { "path": "/data" } });
    let pod = |node: &str| PodSeen { name: node.into(), node: Some(node.into()), ..PodSeen::default() };
    let daemons = |pods: Vec<PodSeen>| Target {
        kind: "DaemonSet".into(),
        volumes: vec![serde_json::from_value(volume.clone()).unwrap()],
        desired_nodes: Some(2),
        pods,
        ..Target::default()
    };
    w.found = Some(daemons(vec![pod("b")]));
    for _ in 0..8 {
        w.pass();
        w.jobs.tick();
    }
    assert_eq!(w.steps(), ["prepare"], "half of the nodes is no backup");
    // The one that is not scheduled yet has a node that it is meant for.
    let meant = PodSeen { name: "x".into(), meant_for: Some("a".into()), ..PodSeen::default() };
    w.found = Some(daemons(vec![pod("b"), meant]));
    w.settle();
    assert_eq!((w.phase(), w.steps()), ("Succeeded", vec!["prepare", "backup/0/a", "backup/0/b", "maintain"]));
    for (index, node) in ["a", "b"].iter().enumerate() {
        assert_eq!(w.status["targets"][0]["stats"][index]["node"], *node);
        assert_eq!(w.jobs.node(&format!("backup/0/{node}")), *node);
    }
}

#[test]
fn stop_and_continue_differ_and_maintain_keeps_what_was_made() {
    for (stop, last) in [(true, "Skipped"), (false, "Succeeded")] {
        let mut w = World::new(3, true, stop);
        script(&mut w, "backup/1/m1", &[End::DATA]);
        w.settle();
        assert_eq!((w.phase(), w.targets()), ("Failed", vec!["Succeeded", "Failed", last]));
        assert_eq!((w.stalled(), w.steps().last()), ("DataCorrupt", Some(&"maintain")));
    }
}

#[test]
fn parallel_members_do_not_wait_for_a_missing_one() {
    let mut w = World::new(2, false, true);
    w.targets[0] = false;
    w.settle();
    assert_eq!((w.phase(), w.targets()), ("Failed", vec!["Failed", "Succeeded"]));
    assert_eq!(w.stalled(), reason::DEADLINE_EXCEEDED);
    assert!(w.summary().contains("Not begun before the deadline. Last: Backup target"), "{}", w.summary());
}

#[test]
fn steps_are_tried_again_by_their_class() {
    let mut w = World::new(1, false, true);
    // Eight attempts, each seen at its end ten seconds late.
    w.run.invoker.as_mut().unwrap().time_out = Some("10m".into());
    script(&mut w, "prepare", &[End::TRANSIENT]);
    script(&mut w, "backup/0/m0", &[End::TRANSIENT, End::PodLingers]);
    script(&mut w, "maintain", &[End::OutOfMemory]);
    w.settle();
    assert_eq!((w.phase(), w.jobs.attempts("prepare"), w.jobs.attempts("maintain")), ("Succeeded", 2, 2));
    let mut w = World::new(1, false, true);
    script(&mut w, "backup/0/m0", &vec![End::OutOfMemory; 5]);
    w.settle();
    assert_eq!((w.phase(), w.stalled(), w.jobs.attempts("backup/0/m0")), ("Failed", "OOMKilled", 3));
}

#[test]
fn nothing_is_begun_on_a_store_that_is_away_or_busy() {
    for steps_before in 0..4 {
        let mut w = World::new(2, false, true);
        w.run.invoker.as_mut().unwrap().time_out = Some("5h".into());
        let mut passes = 0;
        while w.jobs.created.len() < steps_before {
            let wait = w.pass().unwrap();
            w.now += wait;
            w.jobs.tick();
            passes += 1;
            assert!(passes < MOST_PASSES);
        }
        w.jobs.away = true;
        for _ in 0..20 {
            let wait = w.pass().unwrap();
            w.now += wait;
            w.jobs.tick();
        }
        assert!(w.silent && w.stalled_is_absent(), "{:#}", w.status);
        assert!(w.jobs.created.iter().all(|(_, attempt)| *attempt == 1), "one try learns it: {:?}", w.jobs.created);
        assert!(w.status["summary"].as_str().unwrap().starts_with("Waiting: Repository demo/repo has not answered"));
        w.jobs.away = false;
        w.silent = false;
        w.settle();
        assert_eq!(w.phase(), "Succeeded", "{steps_before}");
    }
    let mut w = World::new(2, false, true);
    w.room = 0;
    assert!(w.pass().is_some());
    assert_eq!((w.phase(), w.steps().len()), ("Pending", 0));
    assert!(w.status["summary"].as_str().unwrap().contains("16 come first"), "{:#}", w.status);
    w.room = 1;
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn an_answer_of_another_run_is_refused_at_every_step() {
    for key in ["prepare", "backup/0/m0", "maintain"] {
        let mut w = World::new(1, false, true);
        script(&mut w, key, &[End::OtherRun]);
        w.settle();
        assert_eq!(w.phase(), "Failed", "{key}");
        let told: Vec<&str> = w.last_facts.as_object().into_iter().flat_map(|f| f.keys().map(String::as_str)).collect();
        let own: &[&str] = if key == "maintain" { &["lastBackupTime"] } else { &[] };
        assert_eq!(told, own, "{key}: another run's facts are not the Repository's");
    }
}

#[test]
fn a_session_applied_before_its_invoker_waits_for_it() {
    let mut w = World::new(1, false, true);
    let invoker = w.run.invoker.take();
    assert!(w.pass().is_some());
    assert_eq!((w.phase(), w.stalled_is_absent()), ("Pending", true));
    w.run.invoker = invoker;
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

/// Proves: defect 15, scenario 31.
#[test]
fn what_cannot_be_taken_is_skipped_with_the_reason() {
    let mut w = World::new(1, false, true);
    w.run.invoker = None;
    w.settle();
    assert_eq!((w.phase(), w.status["summary"].as_str()), ("Skipped", Some("BackupBatch demo/all does not exist.")));
    let mut w = World::new(1, false, true);
    w.run.running = Some("other".into());
    w.settle();
    assert_eq!(w.phase(), "Skipped");
    let mut w = World::new(1, false, true);
    w.refusal = Some(Refusal { reason: "Invalid".into(), message: "spec.x: is wrong".into() });
    w.settle();
    assert_eq!(
        (w.phase(), w.status["summary"].as_str()),
        ("Skipped", Some("BackupBatch demo/all is not valid: spec.x: is wrong"))
    );
    assert_eq!(w.steps().len(), 0);
}

fn retry(max: i32) -> RetryConfig {
    serde_json::from_value(json!({ "maxRetry": max, "delay": "10m" })).unwrap()
}

/// Proves: scenario 31.
#[test]
fn a_failed_session_is_followed_by_another_after_the_delay() {
    let mut w = World::new(1, false, true);
    w.invoker().retry = Some(retry(2));
    script(&mut w, "backup/0/m0", &[End::DATA]);
    let begin = w.now;
    w.settle();
    assert_eq!((w.phase(), w.status["retried"].as_bool()), ("Failed", Some(true)));
    assert_eq!(w.followers, [("b-retry-1".to_owned(), Some(1))].into());
    assert_eq!(w.events, ["DataCorrupt", "DataCorrupt", "Retried"]);
    let due: Timestamp = w.status["nextRetry"].as_str().unwrap().parse().unwrap();
    assert!(due >= begin + SignedDuration::from_mins(10) && w.now >= due, "{due} {}", w.now);
    // The last of them is followed by none, and neither is a success.
    for (left, ends, phase) in [(0, vec![End::DATA], "Failed"), (3, vec![], "Succeeded")] {
        let mut w = World::new(1, false, true);
        w.invoker().retry = Some(retry(2));
        w.run.retry_left = Some(left);
        script(&mut w, "backup/0/m0", &ends);
        w.settle();
        assert_eq!((w.phase(), w.followers.len()), (phase, 0));
        assert!(w.status.get("nextRetry").is_none() && w.status.get("retried").is_none());
    }
}

#[test]
fn what_a_retry_cannot_mend_or_nobody_wants_is_not_tried_again() {
    // The Repository does not let it in.
    let mut w = from_elsewhere(1);
    w.policy = Value::Null;
    w.invoker().retry = Some(retry(2));
    w.settle();
    assert_eq!((w.phase(), w.followers.len(), w.status.get("nextRetry")), ("Failed", 0, None));
    // Paused, or gone, while the delay lasts.
    for gone in [false, true] {
        let mut w = World::new(1, false, true);
        w.invoker().retry = Some(retry(2));
        script(&mut w, "backup/0/m0", &[End::DATA]);
        while w.phase() != "Failed" {
            let wait = w.pass().unwrap();
            w.now += wait;
            w.jobs.tick();
        }
        if gone {
            w.run.invoker = None;
        } else {
            w.invoker().paused = true;
        }
        w.settle();
        assert_eq!((w.followers.len(), w.status["retried"].as_bool()), (0, Some(false)));
        assert_eq!(w.events.last().map(String::as_str), Some("NotRetried"));
    }
}

#[test]
fn an_invoker_that_is_changed_or_deleted_under_a_session_ends_it() {
    for change in ["members", "repository", "deleted", "invalid"] {
        let mut w = World::new(2, true, true);
        script(&mut w, "backup/0/m0", &[End::Never]);
        while !w.steps().contains(&"backup/0/m0") {
            let wait = w.pass().unwrap();
            w.now += wait;
            w.jobs.tick();
        }
        match change {
            "members" => w.invoker().members.swap(0, 1),
            "repository" => w.invoker().repository = serde_json::from_value(json!({ "name": "other" })).unwrap(),
            "deleted" => w.run.invoker = None,
            _ => w.refusal = Some(Refusal { reason: "Invalid".into(), message: "spec.x: is wrong".into() }),
        }
        w.settle();
        assert_eq!((w.phase(), w.stalled()), ("Failed", reason::SPEC_CHANGED), "{change}");
        assert_eq!(w.targets(), ["Failed", "Failed"], "{change}");
    }
    // What says nothing of where data comes from and goes may change.
    let mut w = World::new(1, false, true);
    w.pass();
    w.pass();
    w.invoker().paused = true;
    w.invoker().retention.keep_last = Some(9);
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

/// Its Repository is in namespace `store`.
fn from_elsewhere(members: usize) -> World {
    let mut w = World::new(members, true, true);
    let reference = json!({ "name": "repo", "namespace": "store" });
    w.run.invoker.as_mut().unwrap().repository = serde_json::from_value(reference).unwrap();
    w
}

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
            // Its Jobs go with it.
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

fn ending() -> impl Strategy<Value = End> {
    prop_oneof![
        5 => Just(End::Ok),
        2 => Just(End::TRANSIENT),
        1 => Just(End::DATA),
        1 => Just(End::OutOfMemory),
        1 => Just(End::PodLingers),
        1 => Just(End::OtherRun),
        1 => Just(End::Never),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_backup_ends_and_succeeds_only_if_all_was_backed_up(
        members in prop::collection::vec((prop::bool::weighted(0.9), prop::collection::vec(ending(), 0..4)), 1..=4),
        prepare in prop::collection::vec(ending(), 0..3),
        sequential: bool,
        stop: bool,
        crashes in prop::collection::vec(0..40usize, 0..6),
        retries in 0..3,
        elsewhere: bool,
    ) {
        let mut w = World::new(members.len(), sequential, stop);
        w.invoker().retry = Some(retry(retries));
        if elsewhere {
            w.run.invoker.as_mut().unwrap().repository = from_elsewhere(1).run.invoker.unwrap().repository;
        }
        script(&mut w, "prepare", &prepare);
        for (i, (there, ends)) in members.iter().enumerate() {
            w.targets[i] = *there;
            script(&mut w, &format!("backup/{i}/m{i}"), ends);
        }
        w.crashes = crashes;
        w.settle();
        let done = |i: usize| w.jobs.done.contains(&format!("backup/{i}/m{i}"));
        if w.phase() == "Succeeded" {
            prop_assert!((0..members.len()).all(done));
            prop_assert_eq!(w.facts, 1);
        }
        // One follower of a failure, whatever crashed; none of anything else.
        let wanted = usize::from(w.phase() == "Failed" && retries > 0);
        prop_assert_eq!(w.followers.len(), wanted, "{:#}", w.status);
        let begun: Vec<usize> = w.jobs.created.iter().filter_map(|(k, _)| k.strip_prefix("backup/")?.split('/').next()?.parse().ok()).collect();
        if sequential {
            prop_assert!(begun.is_sorted(), "{:?}", begun);
            if stop && let Some(failed) = (0..members.len()).find(|i| w.status["targets"][*i]["phase"] == "Failed") {
                prop_assert!(begun.iter().all(|b| *b <= failed), "begun after a failure: {:?}", begun);
            }
        }
    }
}

/// Proves: defect 9.
#[test]
fn deaths_of_pods_are_counted_by_themselves() {
    let mut w = World::new(1, false, true);
    w.run.invoker.as_mut().unwrap().time_out = Some("30m".into());
    let ends = [vec![End::TRANSIENT; 5], vec![End::OutOfMemory; 2]].concat();
    w.jobs.script.insert("backup/0/m0".into(), ends.clone());
    w.jobs.script.insert("prepare".into(), ends);
    w.settle();
    assert_eq!(w.phase(), "Succeeded", "{:#}", w.status);
    let mut w = World::new(1, false, true);
    w.jobs.script.insert("backup/0/m0".into(), vec![End::OutOfMemory; 9]);
    w.settle();
    assert_eq!((w.phase(), w.stalled(), w.jobs.attempts("backup/0/m0")), ("Failed", "OOMKilled", 3));
}

/// Proves: defect 9.
#[test]
fn a_job_that_is_deleted_by_hand_is_made_again_after_its_pod() {
    for key in ["prepare", "backup/0/m0", "maintain"] {
        let mut w = World::new(1, false, true);
        w.jobs.script.insert(key.into(), vec![End::DeletedByHand]);
        w.settle();
        assert_eq!((w.phase(), w.jobs.attempts(key)), ("Succeeded", 2), "{key}");
    }
}

/// Proves: D10.
#[test]
fn a_namespace_that_forbids_root_is_told_of_at_once_and_a_user_helps() {
    for (runtime, phase) in
        [(json!({}), "Failed"), (json!({ "pod": { "securityContext": { "runAsUser": 1000 } } }), "Succeeded")]
    {
        let mut w = World::new(1, false, true);
        w.pod_security = Level::Restricted;
        w.run.invoker.as_mut().unwrap().members[0].runtime_settings = serde_json::from_value(runtime).unwrap();
        w.settle();
        assert_eq!(w.phase(), phase, "{:#}", w.status);
        if phase == "Failed" {
            assert_eq!((w.stalled(), w.jobs.attempts("backup/0/m0")), (reason::POD_SECURITY, 0));
        }
    }
}

#[test]
fn the_scratch_volume_of_the_only_member_serves_all_its_jobs() {
    let temp = json!({ "medium": "Memory", "sizeLimit": "64Mi", "disableCaching": true });
    for members in [1, 2] {
        let mut w = World::new(members, false, true);
        w.invoker().members[0].temp_dir = serde_json::from_value(temp.clone()).unwrap();
        w.settle();
        for job in &w.jobs.made {
            let volumes = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap().volumes.as_ref().unwrap();
            let work = volumes.iter().find(|v| v.name == crate::plan::objects::WORK_VOLUME).unwrap();
            let work = work.empty_dir.as_ref().unwrap();
            let key = crate::plan::fake::key_of(job);
            let own = members == 1 || key == "backup/0/m0";
            assert_eq!(work.medium.as_deref() == Some("Memory") && work.size_limit.is_some(), own, "{key}");
            assert_eq!(crate::plan::fake::task(job).settings.no_cache, own, "{key}");
        }
    }
}
