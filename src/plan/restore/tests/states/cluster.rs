//! A cluster reduced to what the plan of a restore depends on, and every step that it can take.
//!
//! The plan is the real plan: [`next`] is called in every state, and the status that it writes is read back from its
//! document. Time advances only by two steps: to the next retry that is due, and past the deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::json;

use crate::api::restore_batch::{RestoreBatchStatus, RestoreMemberStatus};
use crate::api::restore_session::{HostPhase, HostRestoreStats};
use crate::contract::Work;
use crate::contract::restic::Step;
use crate::plan::effects::{FinalizerChange, Plan, Stop};
use crate::plan::fake::{setup, task};
use crate::plan::repository::slots::queue::Room;
use crate::plan::restore::held_note::Note;
use crate::plan::restore::next;
use crate::plan::restore::rounds::Rounds;
use crate::plan::restore::run::{RestoreRun, RestoreState};
use crate::plan::restore::tests::states::ends::{End, FAULTS, fits};
use crate::plan::restore::tests::states::{Bound, Fault, invariants};
use crate::plan::restore::tests::workload::{OUTSIDE, Workload, look_at};
use crate::plan::restore::tests::world::World;
use crate::plan::seen::job_status::{JobSeen, JobState};
use crate::plan::seen::repository::RepositorySeen;
use crate::plan::seen::surroundings::Surroundings;
use crate::plan::seen::target::{PodSeen, TargetSeen};
use crate::plan::seen::{Seen, job_status};
use crate::plan::work::pod_security::Level;

/// What the cluster can do.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// One pass of the controller, which dies after this number of its writes, or makes all of them.
    Pass(usize, usize),
    /// A Job ends, or is found in a state that it does not leave by itself.
    End(String, End),
    /// The pod of a Job that was deleted is gone.
    Left(String),
    /// A deleted Job reports nothing any more, and counts as given up.
    GivenUp(String),
    /// The pods of a workload that was scaled down are gone.
    Drained(usize),
    /// A foreign pod that uses the volume of a member appears, or disappears (`Abandoned`).
    Visited(usize),
    Abandoned(usize),
    /// The controller starts a new reconcile, and does not know what the last one did.
    Look,
    /// The next retry is due.
    Wait,
    Deadline,
    Cancel,
    Delete,
}

/// A Job in the cluster.
#[derive(Clone)]
pub struct Made {
    pub seen: Rc<JobSeen>,
    /// Its pod runs.
    pub runs: bool,
    /// It deletes what is extraneous.
    pub exact: bool,
    /// For a Job of the second system: whether it first looks up the request that it makes.
    pub outside: Option<bool>,
}

impl Made {
    fn of(job: &Job, seen: JobSeen) -> Self {
        let (exact, outside) = match task(job).work {
            Work::Restic(work) => (matches!(work.step, Step::Restore(step) if step.exact), None),
            Work::Application(_) => (false, None),
            Work::Mock(work) => (false, Some(work.act.is_some_and(|act| act.look_up))),
        };
        Self { seen: Rc::new(seen), runs: true, exact, outside }
    }
}

/// A workload.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scaled {
    Up,
    /// Scaled to zero, with pods that still run.
    Draining,
    Down,
}

/// One state.
#[derive(Clone)]
pub struct Cluster {
    pub run: Rc<RestoreRun>,
    /// Earlier rounds of the reconcile.
    pub rounds: Rounds,
    pub jobs: Vec<Made>,
    pub workloads: Vec<Scaled>,
    /// Which workloads have a note that they stay down.
    pub held: Vec<bool>,
    /// Which members have a volume that a foreign pod uses.
    pub visited: Vec<bool>,
    pub now: Timestamp,
    pub gone: bool,
    /// Restores that were really successful, by key.
    pub done: Rc<BTreeSet<String>>,
    /// Number of Jobs of restores that may have written, by key: all except those that ended before they wrote.
    pub touched: Rc<BTreeMap<String, usize>>,
    /// Extraneous entries that restores have really deleted, by key. The second number counts only those that can be
    /// known, because the Job was not deleted by a user.
    pub deleted: Rc<BTreeMap<String, (i64, i64)>>,
    pub faults: usize,
    /// Number of cancel, deletion and deadline that may still come.
    pub turns: usize,
    /// Number of visits of foreign pods that may still come.
    pub visits: usize,
}

/// The data that does not change while a bound is explored.
pub struct Scene {
    pub bound: Bound,
    pub workloads: Vec<Workload>,
    targets: Vec<[TargetSeen; 3]>,
    repository: RepositorySeen,
    pub fault: Fault,
}

impl Scene {
    pub fn new(bound: Bound, fault: Fault) -> (Self, Cluster) {
        let kind = |hosts| match hosts {
            0 => OUTSIDE,
            1 => "Deployment",
            _ => "StatefulSet",
        };
        let workloads: Vec<Workload> = bound.hosts.iter().map(|hosts| Workload::new(kind(*hosts), *hosts)).collect();
        let stands = |w: &Workload| if w.is_outside() { Scaled::Down } else { Scaled::Up };
        let mut world = World::batch(
            if bound.sequential { "Sequential" } else { "Parallel" },
            if bound.stop { "Stop" } else { "Continue" },
            workloads.clone(),
        );
        for member in world.object["spec"]["members"].as_array_mut().unwrap().iter_mut().filter(|_| bound.scale_back) {
            member["target"]["afterFailure"] = "ScaleBack".into();
        }
        for member in world.object["spec"]["members"].as_array_mut().unwrap().iter_mut().filter(|_| bound.exact) {
            member["target"]["extraneous"] = "Delete".into();
        }
        let spec = json!({ "backend": { "storageSecretName": "s", "s3": { "endpoint": "e", "bucket": "b" } } });
        let repository = RepositorySeen {
            spec: serde_json::from_value(spec).unwrap(),
            first_backup: None,
            known: false,
            secret: Seen::Found(()),
            labels: Seen::Missing,
            unreachable: None,
            not_ready: None,
        };
        let target = |(i, w): (usize, &Workload)| {
            [(w.wanted, w.wanted), (0, w.wanted), (0, 0)].map(|(replicas, pods)| {
                if w.is_outside() {
                    return TargetSeen::Missing(String::new());
                }
                TargetSeen::Found(Box::new(look_at(format!("m{i}"), &Workload { replicas, pods, ..w.clone() })))
            })
        };
        let start = Cluster {
            run: world.run(),
            rounds: Rounds::default(),
            jobs: vec![],
            workloads: workloads.iter().map(stands).collect(),
            held: vec![false; workloads.len()],
            visited: vec![false; workloads.len()],
            now: world.now,
            gone: false,
            done: Rc::default(),
            touched: Rc::default(),
            deleted: Rc::default(),
            faults: bound.faults,
            turns: bound.turns,
            // A restore that deletes nothing waits for no foreign pods.
            visits: usize::from(bound.exact),
        };
        let targets = workloads.iter().enumerate().map(target).collect();
        (Self { bound, workloads, targets, repository, fault }, start)
    }
}

/// The states that can follow a state, and the index of the one that follows without faults; `None` if the cluster is
/// at rest.
pub type Ways = (Vec<(Move, Cluster)>, Option<usize>);

impl Cluster {
    fn look(&self, scene: &Scene) -> Surroundings {
        let see = |(i, s): (usize, &Scaled)| {
            let mut seen = scene.targets[i][*s as usize].clone();
            if let TargetSeen::Found(target) = &mut seen {
                target.held_down = self.held[i].then(|| note(scene, i));
                let claims = target.claims.keys().cloned().collect();
                target.others = self.visited[i].then(|| visitor(claims)).into_iter().collect();
            }
            seen
        };
        Surroundings {
            refusal: None,
            source: Seen::Missing,
            repository: Seen::Found(scene.repository.clone()),
            targets: self.workloads.iter().enumerate().map(see).collect(),
            pod_security: Level::Privileged,
            job_defaults: Ok(crate::api::runtime::RuntimeSettings::default()),
            jobs: self.jobs.iter().map(|j| (*j.seen).clone()).collect(),
            room: Room { free: 64, ahead: 0 },
            rooms: BTreeMap::new(),
            rivals: vec![],
            writers: vec![],
            refused_claims: [].into(),
            refused_scales: [].into(),
            refused_holds: [].into(),
            refused_revoke: None,
            progress: [].into(),
        }
    }

    fn decide(&self, scene: &Scene) -> Plan {
        let (mut run, mut seen) = (Rc::clone(&self.run), self.look(scene));
        Rc::make_mut(&mut run).rounds = self.rounds.clone();
        scene.fault.before(&mut run, &mut seen);
        let mut plan = next(&run, &seen, &setup(), self.now);
        scene.fault.after(&mut plan);
        plan
    }

    /// Every state that can follow. An error is a broken invariant.
    pub fn ways(&self, scene: &Scene) -> Result<Ways, String> {
        let plan = self.decide(scene);
        let writes = usize::from(plan.finalizer.is_some())
            + plan.stop_jobs.len()
            + plan.scales.len()
            + plan.holds.len()
            + plan.jobs.len()
            + usize::from(plan.status.is_some());
        if writes == 0 && (self.gone || (self.run.state.is_final() && !self.run.id.held)) {
            invariants::left_well(self, scene)?;
            return Ok((vec![], None));
        }
        let mut ways = vec![];
        for made in 1..=writes {
            let mut after = self.apply(scene, &plan, made)?;
            let goes_on = made == writes && plan.again;
            after.rounds =
                if goes_on { self.rounds.clone().after(&self.run.state.members, &plan) } else { Rounds::default() };
            ways.push((Move::Pass(made, writes), after));
        }
        let mut fair = writes.checked_sub(1);
        if writes == 0 {
            invariants::is_woken(self, &plan)?;
        }
        for (step, after) in self.befalls() {
            // In the order in which they are listed.
            let is_bad = matches!(step, Move::Cancel | Move::Delete | Move::GivenUp(_) | Move::Visited(_));
            if fair.is_none() && !is_bad && !is_fault(&step) {
                fair = Some(ways.len());
            }
            ways.push((step, after));
        }
        if fair.is_none() && !self.gone {
            return Err("nothing more happens, and the run is not over".to_owned());
        }
        Ok((ways, fair))
    }

    /// What happens outside of the controller.
    fn befalls(&self) -> Vec<(Move, Self)> {
        let mut ways = vec![];
        if self.gone {
            return ways;
        }
        if self.knows() {
            ways.push((Move::Look, Self { rounds: Rounds::default(), ..self.clone() }));
        }
        for index in 0..self.workloads.len() {
            if self.workloads[index] == Scaled::Draining {
                let mut after = self.clone();
                after.workloads[index] = Scaled::Down;
                ways.push((Move::Drained(index), after));
            }
        }
        for index in 0..self.workloads.len() {
            let mut after = self.clone();
            after.visited[index] = !self.visited[index];
            if self.visited[index] {
                ways.push((Move::Abandoned(index), after));
            } else if self.visits > 0 && !self.run.state.is_final() {
                after.visits -= 1;
                ways.push((Move::Visited(index), after));
            }
        }
        for (at, job) in self.jobs.iter().enumerate() {
            let name = || format!("{}#{}", job.seen.key, job.seen.attempt);
            if job.runs && matches!(job.seen.state, JobState::Active { .. }) && !job.seen.given_up {
                ways.push((Move::End(name(), End::Ok), self.ended(at, End::Ok)));
                let possible = |end: &End| !job.seen.deleting && fits(*end, job);
                for end in FAULTS.into_iter().filter(|end| self.faults > 0 && possible(end)) {
                    let mut after = self.ended(at, end);
                    after.faults -= 1;
                    ways.push((Move::End(name(), end), after));
                }
            }
            if job.seen.deleting && !job.seen.given_up {
                let mut after = self.clone();
                after.jobs.remove(at);
                ways.push((Move::Left(name()), after));
                if self.faults > 0 && job.runs {
                    let mut after = self.clone();
                    Rc::make_mut(&mut after.jobs[at].seen).given_up = true;
                    after.faults -= 1;
                    ways.push((Move::GivenUp(name()), after));
                }
            }
        }
        if let Some(due) = self.waits().min() {
            ways.push((Move::Wait, Self { now: due, ..self.clone() }));
        }
        let over = self.run.state.is_final();
        if let Some(deadline) = &self.run.state.deadline
            && self.now < deadline.0
            && !over
        {
            // The deadline always comes in the end. As a turn, it may also come at any time.
            if self.turns > 0 || ways.is_empty() {
                let turns = self.turns.saturating_sub(1);
                ways.push((Move::Deadline, Self { now: deadline.0, turns, ..self.clone() }));
            }
        }
        if self.turns > 0 && !over {
            if !self.run.canceled {
                let mut after = Self { turns: self.turns - 1, ..self.clone() };
                Rc::make_mut(&mut after.run).canceled = true;
                ways.push((Move::Cancel, after));
            }
            if !self.run.id.deleting {
                let mut after = Self { turns: self.turns - 1, ..self.clone() };
                Rc::make_mut(&mut after.run).id.deleting = true;
                after.gone = !after.run.id.held;
                if after.gone {
                    // The Jobs are deleted with their owner.
                    after.jobs.clear();
                }
                ways.push((Move::Delete, after));
            }
        }
        ways
    }

    /// Current attempts of hosts, by step.
    fn tries(&self) -> impl Iterator<Item = (String, i32)> {
        let of = |(i, m): (usize, &RestoreMemberStatus)| {
            let of = |h: &HostRestoreStats| Some((format!("restore/{i}/{}", h.hostname), h.attempt?));
            m.stats.iter().filter_map(of).collect::<Vec<_>>()
        };
        self.run.state.members.iter().enumerate().flat_map(of)
    }

    /// What earlier rounds of the reconcile have done with an attempt of a host.
    pub fn done_with(&self, key: &str, attempt: i32) -> (bool, bool) {
        (self.rounds.is_first(key, attempt), self.rounds.has_asked(key, attempt))
    }

    /// Whether the next round knows something that a new reconcile would not know.
    fn knows(&self) -> bool {
        self.tries().any(|(key, attempt)| self.done_with(&key, attempt) != (false, false))
    }

    /// Retries that are not due yet.
    fn waits(&self) -> impl Iterator<Item = Timestamp> {
        let hosts = self.run.state.members.iter().flat_map(|m| &m.stats).filter_map(|h| h.not_before.as_ref());
        let steps = self.run.state.run.steps.iter().filter_map(|s| s.not_before.as_ref());
        hosts.chain(steps).map(|t| t.0).filter(|due| *due > self.now)
    }

    /// The first writes of a plan, in the controller's order.
    fn apply(&self, scene: &Scene, plan: &Plan, mut writes: usize) -> Result<Self, String> {
        let mut after = self.clone();
        let mut more = || {
            writes = writes.checked_sub(1)?;
            Some(())
        };
        let mut all = || {
            if plan.finalizer == Some(FinalizerChange::Add) {
                more()?;
                Rc::make_mut(&mut after.run).id.held = true;
            }
            for Stop { name, .. } in &plan.stop_jobs {
                more()?;
                if let Some(job) = after.jobs.iter_mut().find(|j| j.seen.name == *name) {
                    Rc::make_mut(&mut job.seen).deleting = true;
                }
            }
            for scale in &plan.scales {
                more()?;
                let index: usize = scale.name.trim_start_matches('m').parse().unwrap();
                if let Err(broken) = invariants::may_scale(&after, scene, index, scale.replicas) {
                    return Some(Err(broken));
                }
                after.workloads[index] = match (scale.replicas, after.workloads[index]) {
                    (0, Scaled::Up) => Scaled::Draining,
                    (0, as_it_is) => as_it_is,
                    _ => Scaled::Up,
                };
            }
            for hold in &plan.holds {
                more()?;
                let index: usize = hold.name.trim_start_matches('m').parse().unwrap();
                if let Err(broken) = invariants::may_hold(&after, scene, index, hold.note.as_deref()) {
                    return Some(Err(broken));
                }
                after.held[index] = hold.note.is_some();
            }
            for job in &plan.jobs {
                more()?;
                let seen = job_status::see(job, &[], self.now);
                if after.jobs.iter().any(|j| j.seen.name == seen.name) && scene.fault != Fault::RepeatsItself {
                    continue;
                }
                let made = Made::of(job, seen);
                if let Err(broken) = invariants::may_start(&after, scene, &made) {
                    return Some(Err(broken));
                }
                let seen = &made.seen;
                if !is_preflight(seen) {
                    *Rc::make_mut(&mut after.touched).entry(seen.key.clone()).or_default() += 1;
                }
                after.jobs.push(made);
            }
            if plan.finalizer == Some(FinalizerChange::Remove) {
                more()?;
                Rc::make_mut(&mut after.run).id.held = false;
                after.gone = after.run.id.deleting;
                if after.gone {
                    return None;
                }
            }
            if let Some(status) = &plan.status {
                more()?;
                let state = RestoreState::of_batch(RestoreBatchStatus::deserialize(status).unwrap());
                let broken = invariants::agree(&state).and_then(|()| invariants::all_restored(self, scene, &state));
                Rc::make_mut(&mut after.run).state = state;
                return Some(broken);
            }
            None
        };
        let broken: Option<Result<(), String>> = all();
        broken.unwrap_or(Ok(())).map(|()| after)
    }

    /// The member index and the status of the host of a restore step.
    pub fn host(&self, key: &str) -> Option<(usize, &HostRestoreStats)> {
        let mut parts = key.splitn(3, '/').skip(1);
        let index: usize = parts.next()?.parse().ok()?;
        let host = parts.next()?;
        Some((index, self.run.state.members.get(index)?.stats.iter().find(|h| h.hostname == host)?))
    }
}

/// A foreign pod.
fn visitor(claims: Vec<String>) -> PodSeen {
    PodSeen { name: "visitor".into(), claims, ..PodSeen::default() }
}

/// The note on a workload that this run has left at zero.
fn note(scene: &Scene, index: usize) -> String {
    let note = Note {
        replicas: scene.workloads[index].wanted,
        session: "RestoreBatch/demo/all".into(),
        uid: "u-1".into(),
        why: String::new(),
        ..Note::default()
    };
    note.write()
}

fn is_fault(step: &Move) -> bool {
    matches!(step, Move::End(_, end) if *end != End::Ok)
}

pub fn is_preflight(job: &JobSeen) -> bool {
    job.key.starts_with("preflight")
}

/// Whether a host was restored according to status.
pub fn is_restored(host: &HostRestoreStats) -> bool {
    host.phase == Some(HostPhase::Succeeded)
}
