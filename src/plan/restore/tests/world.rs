//! A cluster in memory, and a controller that can be stopped before any write.
//!
//! The session is kept as a JSON document that is read again in every pass: nothing survives that is not in status.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::common::TargetRef;
use crate::api::target::RestoreTarget;
use crate::contract::{Class, Failure};
use crate::names::FINALIZER;
use crate::plan::effects::{Event, FinalizerChange, Plan, Stop};
use crate::plan::fake::{Grants, Jobs, key_of, setup};
use crate::plan::repository::slots::queue::Room;
use crate::plan::restore::rounds::Rounds;
use crate::plan::restore::run::RestoreRun;
use crate::plan::restore::tests::document::Document;
use crate::plan::restore::tests::workload::{Workload, look_at, member, target, workload_of};
use crate::plan::restore::{next, pvc_templates};
use crate::plan::seen::job_status::{JobSeen, JobState};
use crate::plan::seen::pvc::Made;
use crate::plan::seen::repository::{RepositorySeen, Silence};
use crate::plan::seen::surroundings::{Rival, Surroundings, Writer};
use crate::plan::seen::target::{ClaimSeen, PodSeen, Target, TargetSeen};
use crate::plan::seen::{Refusal, Seen, job_status};
use crate::plan::work::pod_security::Level;

/// Number of passes after which a test fails, as the world does not come to rest: ten minutes at one per second.
const MOST_PASSES: usize = 900;
/// The reconcile loop gives up on a chain of `again` after 8 rounds.
const MOST_AGAIN: usize = 7;

/// The cluster and its clock.
#[derive(Clone, Debug)]
pub struct World {
    pub object: Document,
    pub workloads: Vec<Workload>,
    pub jobs: Jobs,
    pub grants: Grants,
    /// usagePolicy of the Repository, with the pass from which it applies.
    pub policies: Vec<(usize, Value)>,
    pub repository: bool,
    /// Pod security level that the namespace enforces.
    pub pod_security: Level,
    pub job_defaults: Result<crate::api::runtime::RuntimeSettings, String>,
    pub now: Timestamp,
    pub passes: usize,
    /// Writes so far; `crashes` are those before which the controller dies.
    pub writes: usize,
    pub crashes: Vec<usize>,
    /// Pass before which the session is deleted; at `repository_until`, the Repository is deleted.
    pub delete_at: usize,
    /// Pass before which it is canceled.
    pub cancel_at: usize,
    /// Members of the BackupBatch `shop`; `None` while it does not exist.
    pub shop: Option<Vec<Value>>,
    pub repository_until: usize,
    /// Passes during which the store does not answer; `silent`: this is known.
    pub away: Range<usize>,
    pub silent: bool,
    /// Passes during which other sessions take all slots of the Repository.
    pub busy: Range<usize>,
    pub gone: bool,
    /// Free slots of systems outside of the cluster. A system that is not listed has no limit.
    pub rooms: BTreeMap<String, Room>,
    /// Claims that were created, or existed before.
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    /// Autoscalers that interfere.
    pub autoscalers: Vec<String>,
    /// Pods may run beside a restore.
    pub may_run_on: bool,
    /// How the API server refuses claims, if it does.
    pub refuses_claims: Option<Class>,
    /// Scales that the API server refuses: the workload, the replicas, and the class of the refusal.
    pub refuses_scales: Vec<(usize, i32, Class)>,
    /// The workload that cannot be read from the API server.
    pub unreadable: Option<usize>,
    /// Replicas that another client sets whenever a workload has others.
    pub set_by_others: BTreeMap<usize, i32>,
    /// Pods that do not belong to the workloads.
    pub others: Vec<PodSeen>,
    /// Other sessions, as this one sees them.
    pub rivals: Vec<Rival>,
    pub writers: Vec<Writer>,
    /// Why the session is not valid.
    pub refusal: Option<Refusal>,
    /// Events published, by reason.
    pub events: Vec<String>,
    refused: BTreeMap<String, Failure>,
    refused_scales: BTreeMap<String, Failure>,
    refused_holds: BTreeMap<String, Failure>,
    refused_jobs: Vec<JobSeen>,
    /// The API server refuses Jobs that restore. The value tells whether it is certain that they were not created.
    pub refuses_jobs: Option<bool>,
    /// The API server refuses annotations of workloads.
    pub refuses_holds: bool,
    /// Events about workloads: the name, and the reason.
    pub told: Vec<(String, String)>,
    refused_revoke: Option<Failure>,
    /// The API server refuses to revoke grants.
    pub refuses_revokes: bool,
    /// Earlier rounds of the reconcile.
    rounds: Rounds,
    again: usize,
}

impl World {
    /// A RestoreBatch with these workloads, named m0, m1 and so on.
    pub fn batch(order: &str, on_failure: &str, workloads: Vec<Workload>) -> Self {
        let members: Vec<Value> = workloads.iter().enumerate().map(|(i, w)| member(i, w)).collect();
        let spec = json!({ "repository": { "name": "repo" }, "executionOrder": order, "onFailure": on_failure,
            "timeOut": "2m", "members": members });
        Self::of("RestoreBatch", &spec, workloads)
    }

    /// A RestoreSession of one workload, m0.
    pub fn session(workload: Workload) -> Self {
        let spec = json!({ "repository": { "name": "repo" }, "timeOut": "2m", "target": target(0, &workload) });
        Self::of("RestoreSession", &spec, vec![workload])
    }

    /// The Repository is in namespace `store`. Its owner allows all namespaces from this pass on.
    pub fn elsewhere(mut self, allowed_from: usize) -> Self {
        self.object["spec"]["repository"]["namespace"] = "store".into();
        self.policies.push((allowed_from, json!({ "allowedNamespaces": { "from": "All" } })));
        self
    }

    fn of(kind: &str, spec: &Value, workloads: Vec<Workload>) -> Self {
        let object = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": kind, "spec": spec,
            "metadata": { "name": "all", "namespace": "demo", "uid": "u-1", "generation": 1 } });
        Self {
            object: Document::new(object),
            workloads,
            jobs: Jobs::default(),
            grants: Grants::default(),
            policies: vec![],
            repository: true,
            pod_security: Level::Privileged,
            job_defaults: Ok(crate::api::runtime::RuntimeSettings::default()),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            passes: 0,
            writes: 0,
            crashes: vec![],
            delete_at: usize::MAX,
            cancel_at: usize::MAX,
            shop: None,
            repository_until: usize::MAX,
            away: 0..0,
            silent: false,
            busy: 0..0,
            gone: false,
            rooms: BTreeMap::new(),
            claims: BTreeMap::new(),
            autoscalers: vec![],
            may_run_on: false,
            refuses_claims: None,
            refuses_scales: vec![],
            unreadable: None,
            set_by_others: BTreeMap::new(),
            others: vec![],
            rivals: vec![],
            writers: vec![],
            refusal: None,
            refused: BTreeMap::new(),
            refused_scales: BTreeMap::new(),
            refused_holds: BTreeMap::new(),
            refuses_holds: false,
            refused_jobs: vec![],
            refuses_jobs: None,
            told: vec![],
            refused_revoke: None,
            refuses_revokes: false,
            events: vec![],
            rounds: Rounds::default(),
            again: 0,
        }
    }

    pub fn run(&self) -> Rc<RestoreRun> {
        self.object.run()
    }

    pub fn is_there(&self, index: usize) -> bool {
        let w = &self.workloads[index];
        (w.from..w.until).contains(&self.passes)
    }

    fn room(&self) -> Room {
        if self.busy.contains(&self.passes) { Room { free: 0, ahead: 16 } } else { Room { free: 2, ahead: 14 } }
    }

    fn look(&self) -> Surroundings {
        let policy = self.policies.iter().rev().find(|(from, _)| *from <= self.passes).map(|(_, policy)| policy);
        let spec = json!({ "backend": { "storageSecretName": "s", "s3": { "endpoint": "e", "bucket": "b" } },
            "usagePolicy": policy });
        let silence = || Silence { since: self.now, message: "It is away.".into() };
        let found = RepositorySeen {
            spec: serde_json::from_value(spec).unwrap(),
            first_backup: None,
            known: false,
            secret: Seen::Found(()),
            labels: Seen::Missing,
            unreachable: self.silent.then(silence),
            not_ready: None,
        };
        let there = self.repository && self.passes < self.repository_until;
        Surroundings {
            refusal: self.refusal.clone(),
            source: self.source(),
            repository: if there { Seen::Found(found) } else { Seen::Missing },
            targets: self.targets(),
            pod_security: self.pod_security,
            job_defaults: self.job_defaults.clone(),
            jobs: self.jobs.seen().into_iter().chain(self.refused_jobs.clone()).collect(),
            room: self.room(),
            rooms: self.rooms.clone(),
            rivals: self.rivals.clone(),
            writers: self.writers.clone(),
            refused_claims: self.refused.clone(),
            refused_scales: self.refused_scales.clone(),
            refused_holds: self.refused_holds.clone(),
            refused_revoke: self.refused_revoke.clone(),
            progress: BTreeMap::new(),
        }
    }

    /// The targets that the run looks for. A member that names no target has a missing one.
    fn targets(&self) -> Vec<TargetSeen> {
        let run = self.run();
        let seen = |t: Option<&TargetRef>| workload_of(t).map_or(TargetSeen::Missing(String::new()), |i| self.see(i));
        let spec = |i: usize| run.members.get(i)?.target.as_ref().filter(|t| !t.volume_claim_templates.is_empty());
        let targets = run.targets();
        let all = targets.iter().enumerate();
        all.map(|(i, t)| spec(i).map_or_else(|| seen(t.as_ref()), |spec| self.see_made(&run, spec))).collect()
    }

    fn see_made(&self, run: &RestoreRun, spec: &RestoreTarget) -> TargetSeen {
        let to_make = pvc_templates::wanted(spec, &run.id);
        let seen = |c: &PersistentVolumeClaim| ClaimSeen { exists: true, made: Made::of(c), ..ClaimSeen::default() };
        let claims = to_make.iter().map(|w| (w.name.clone(), self.claims.get(&w.name).map(seen).unwrap_or_default()));
        let claims = claims.collect();
        TargetSeen::Found(Box::new(Target { display: "claims".into(), to_make, claims, ..Target::default() }))
    }

    fn see(&self, index: usize) -> TargetSeen {
        let (w, name) = (&self.workloads[index], format!("m{index}"));
        if self.unreadable == Some(index) {
            return TargetSeen::Unknown("deployments.apps is forbidden".into());
        }
        if !self.is_there(index) {
            return TargetSeen::Missing(name);
        }
        let seen = Target { autoscalers: self.autoscalers.clone(), others: self.others.clone(), ..look_at(name, w) };
        TargetSeen::Found(Box::new(seen))
    }

    pub fn decide(&self) -> Plan {
        let mut run = self.run();
        Rc::make_mut(&mut run).rounds = self.rounds.clone();
        next(&run, &self.look(), &setup(), self.now)
    }

    /// A write; false when the controller dies before it.
    fn write(&mut self) -> bool {
        self.writes += 1;
        !self.crashes.contains(&(self.writes - 1))
    }

    /// One pass. Returns the time until the next, or `None` when nothing more is to be done.
    fn pass(&mut self) -> Option<SignedDuration> {
        let plan = self.decide();
        // A refusal is known in one reconcile only.
        let refused = !std::mem::take(&mut self.refused_scales).is_empty()
            | !std::mem::take(&mut self.refused_holds).is_empty()
            | !std::mem::take(&mut self.refused_jobs).is_empty()
            | self.refused_revoke.take().is_some();
        self.announced(&plan);
        self.again = if plan.again { self.again + 1 } else { 0 };
        assert!(self.again <= MOST_AGAIN, "{} rounds at one go", self.again);
        let at_once = Some(SignedDuration::ZERO);
        let wait = plan.requeue.map(|r| SignedDuration::try_from(r).unwrap());
        let (again, changed) = (plan.again, plan.finalizer.is_some());
        let rounds = std::mem::take(&mut self.rounds).after(&self.run().state.members, &plan);
        let quiet = plan.jobs.is_empty()
            && plan.claims.is_empty()
            && plan.scales.is_empty()
            && plan.holds.is_empty()
            && plan.stop_jobs.is_empty()
            && !changed
            && !refused;
        if !self.apply(plan) {
            self.again = 0;
            return at_once;
        }
        if self.gone {
            return None;
        }
        if again
            || !self.refused_scales.is_empty()
            || !self.refused_holds.is_empty()
            || !self.refused_jobs.is_empty()
            || self.refused_revoke.is_some()
        {
            self.rounds = rounds;
            return at_once;
        }
        if quiet {
            self.rests();
        }
        // A change of the object or of a Job triggers a reconcile.
        if changed || !self.jobs.running().is_empty() {
            Some(wait.unwrap_or(SignedDuration::from_secs(1)).min(SignedDuration::from_secs(5)))
        } else {
            wait
        }
    }

    /// Applies a plan in the controller's order; false when the controller died on the way.
    fn apply(&mut self, plan: Plan) -> bool {
        for object in plan.revoke.iter().flat_map(|g| Grants::to_remove(g, "demo")) {
            if !self.write() {
                return false;
            }
            if self.refuses_revokes {
                self.refused_revoke = Some(Failure::new(Class::Transient, "RefusedByApiServer", "Not you."));
            } else {
                self.grants.there.remove(&object);
            }
        }
        if plan.finalizer == Some(FinalizerChange::Add) {
            if !self.write() {
                return false;
            }
            self.object["metadata"]["finalizers"] = json!([FINALIZER]);
        }
        for Stop { name, .. } in &plan.stop_jobs {
            if !self.write() {
                return false;
            }
            self.jobs.stop(name);
        }
        for scale in &plan.scales {
            if !self.write() {
                return false;
            }
            let index: usize = scale.name.trim_start_matches('m').parse().unwrap();
            assert!(scale.replicas == 0 || !self.is_restored_now(index), "m{index} comes back under a restore");
            if let Some((.., class)) = self.refuses_scales.iter().find(|r| (r.0, r.1) == (index, scale.replicas)) {
                self.refused_scales.insert(scale.key(), Failure::new(*class, "RefusedByApiServer", "Not that"));
                continue;
            }
            self.workloads[index].replicas = scale.replicas;
        }
        for hold in &plan.holds {
            if !self.write() {
                return false;
            }
            let index: usize = hold.name.trim_start_matches('m').parse().unwrap();
            assert!(
                hold.note.is_none() || self.workloads[index].replicas == 0,
                "m{index} is up, and said to stay down"
            );
            if self.refuses_holds {
                self.refused_holds.insert(hold.key(), Failure::new(Class::Transient, "RefusedByApiServer", "Not that"));
                continue;
            }
            self.workloads[index].held.clone_from(&hold.note);
        }
        for claim in &plan.claims {
            if !self.write() {
                return false;
            }
            let name = claim.metadata.name.clone().unwrap();
            if let Some(class) = self.refuses_claims {
                self.refused.insert(name, Failure::new(class, "RefusedByApiServer", "No."));
            } else {
                self.claims.entry(name).or_insert_with(|| claim.clone());
            }
        }
        assert!(plan.jobs.is_empty() || !self.silent, "nothing is begun on a store that is away");
        assert!(plan.jobs.len() <= self.room().free, "no more Jobs than may be");
        for object in plan.grants.iter().flat_map(Grants::objects) {
            if !self.write() {
                return false;
            }
            self.grants.make(object);
        }
        for job in &plan.jobs {
            if !self.write() {
                return false;
            }
            self.grants.serve(job);
            if let Some(is_unmade) = self.refuses_jobs.filter(|_| key_of(job).starts_with("restore/")) {
                let failure = Failure::new(Class::Transient, "RefusedByApiServer", "No more Jobs.");
                let seen = job_status::see(job, &[], self.now);
                self.refused_jobs.push(JobSeen { is_unmade, starts: false, state: JobState::Lost(failure), ..seen });
                continue;
            }
            self.jobs.create(job);
        }
        if self.refused_revoke.is_some() || !self.refused_scales.is_empty() {
            // The status of this plan is not written. The next reconcile knows what was refused.
            return true;
        }
        if plan.finalizer == Some(FinalizerChange::Remove) {
            if !self.write() {
                return false;
            }
            self.object["metadata"]["finalizers"] = json!([]);
            self.gone = self.run().id.deleting;
            if self.gone {
                self.publish(plan.events);
                return true;
            }
        }
        if plan.unreachable && self.jobs.away {
            if !self.write() {
                return false;
            }
            self.silent = true;
        }
        if let Some(status) = plan.status {
            if !self.write() {
                return false;
            }
            self.object["status"] = status;
        }
        self.publish(plan.events);
        true
    }

    fn publish(&mut self, events: Vec<Event>) {
        for event in events {
            match event.about {
                None => self.events.push(event.reason),
                Some(about) => self.told.push((about.name, event.reason)),
            }
        }
    }

    /// Applies outside events to the session, runs one pass, and lets time go by until the next; false when nothing
    /// more is to be done.
    pub fn advance(&mut self) -> bool {
        if self.passes == self.delete_at {
            self.object["metadata"]["deletionTimestamp"] = json!("2026-11-20T00:00:00Z");
            if !self.run().id.held {
                self.gone = true;
                self.jobs.go_with_their_owner();
                return false;
            }
        }
        if self.passes == self.cancel_at {
            self.cancel();
        }
        let Some(wait) = self.pass() else { return false };
        self.passes += 1;
        assert!(self.passes < MOST_PASSES, "no end: {:#}", self.object["status"]);
        self.goes_by(wait);
        true
    }

    /// Runs one pass, and lets time go by until the next; false when nothing more is to be done.
    pub fn beat(&mut self) -> bool {
        let wait = self.pass();
        self.passes += 1;
        self.goes_by(wait.unwrap_or_default());
        wait.is_some()
    }

    /// Runs some passes only.
    pub fn step(&mut self, passes: usize) {
        for _ in 0..passes {
            let wait = self.pass().unwrap_or_default();
            self.passes += 1;
            self.goes_by(wait);
        }
    }

    fn goes_by(&mut self, wait: SignedDuration) {
        self.now += wait;
        self.jobs.now = self.now;
        self.jobs.away = self.away.contains(&self.passes);
        // A probe notices that the store answers again. Probes belong to the Repository.
        self.silent &= self.jobs.away;
        if !wait.is_zero() {
            self.refused.clear();
            self.jobs.tick();
            for (index, replicas) in &self.set_by_others {
                self.workloads[*index].replicas = *replicas;
            }
            self.workloads.iter_mut().for_each(|w| w.pods = if w.replicas == 0 { 0 } else { w.wanted });
        }
    }
}
