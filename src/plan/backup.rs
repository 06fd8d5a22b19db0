//! What happens next to a backup: the state machine of BackupSession.
//!
//! Prepare the repository (open it, or create it when it is known to be absent);
//! back up each host, members in parallel or in order; then retention, check and
//! statistics. A backup writes nothing to its targets, so its Jobs need no
//! announcement, and what a crash leaves behind is found again by name. A session
//! that failed is followed by another one, as often as its invoker says.

mod host;
mod hosts;
mod report;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::access::Access;
use super::contract::{Answer, Maintain, Prepare, Retention, Step, Task, VERSION};
use super::gate::Gate;
use super::grants::{self, Grant};
use super::ground::{self, NoGround};
use super::hosts::HostSet;
use super::jobs::JobSeen;
use super::objects::{self, JobFrame, JobParts};
use super::observed::{Refusal, Setup, Surroundings};
use super::restore::mover_settings;
use super::run::Identity;
use super::step::{LOOK_AT_RUNNING, Lone, StepState};
use super::{Event, FinalizerChange, Plan, conditions, duration, pod_security, retry, sessions};
use crate::api::backup_batch::BackupMember;
use crate::api::backup_session::{BackupPhase, BackupSessionStatus, BackupTargetStatus};
use crate::api::common::{RepositoryRef, RetentionPolicy, RetryConfig, TargetRef};
use crate::api::runtime::RuntimeSettings;
use crate::api::to_json;
use crate::names::{condition, hash_of, label, reason};

pub use self::hosts::named;

const LOOK_FOR_MISSING: Duration = Duration::from_secs(3);
/// Nobody says how long a session without invoker may take, so it waits as long as an apply of both could.
const INVOKER_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// A backup as the plan sees it: a BackupConfiguration is a batch of one.
#[derive(Clone, Debug, Default)]
pub struct BackupRun {
    /// The session.
    pub id: Identity,
    /// The invoker, where it is there.
    pub invoker: Option<Invoker>,
    /// How messages name the invoker: kind and name.
    pub invoker_label: String,
    /// Why the session itself is not valid; the surroundings say it of the invoker.
    pub refusal: Option<Refusal>,
    /// Name of another session of the invoker that runs.
    pub running: Option<String>,
    /// Sessions that may follow this one, where it says so itself.
    pub retry_left: Option<i32>,
    /// Other invokers that back up into the same place.
    pub others: Vec<Neighbour>,
    /// How it stands, as last written.
    pub state: BackupSessionStatus,
}

/// What a BackupConfiguration or BackupBatch says.
#[derive(Clone, Debug, Default)]
pub struct Invoker {
    /// The object.
    pub id: Identity,
    /// Nothing starts by itself.
    pub paused: bool,
    /// What follows a failed session.
    pub retry: Option<RetryConfig>,
    /// Where the data goes.
    pub repository: Option<RepositoryRef>,
    /// What is backed up.
    pub members: Vec<BackupMember>,
    /// What is kept.
    pub retention: RetentionPolicy,
    /// Members run one after another.
    pub sequential: bool,
    /// Members after a failed one are not started.
    pub stop: bool,
    /// Longest time a session may take, as written.
    pub time_out: Option<String>,
    /// Settings of Jobs that belong to no member.
    pub runtime: Option<RuntimeSettings>,
}

impl Invoker {
    /// The target that the labels of its sessions name.
    fn first_target(&self) -> Option<&TargetRef> {
        self.members.first()?.target.as_ref()?.ref_.as_ref()
    }

    /// Hash of what a session is planned from; retention and times may change while it runs.
    fn hash(&self) -> String {
        let what = serde_json::json!([to_json(&self.repository), to_json(&self.members)]);
        hash_of(&[&what.to_string(), &self.sequential.to_string(), &self.stop.to_string()])
    }
}

/// Another invoker with the same repository: what its snapshots are known by.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Its kind and name.
    pub name: String,
    /// Hosts and paths of each of its targets.
    pub targets: Vec<(HostSet, Vec<String>)>,
}

impl Neighbour {
    fn has(&self, host: &str, path: &str) -> bool {
        self.targets.iter().any(|(hosts, paths)| hosts.contains(host) && paths.iter().any(|p| p == path))
    }
}

/// Whether a failed session is still to be followed by another one.
pub fn has_retry_due(state: &BackupSessionStatus) -> bool {
    state.phase == Some(BackupPhase::Failed) && state.next_retry.is_some() && state.retried.is_none()
}

/// Whether a session has ended.
pub fn is_over(phase: Option<BackupPhase>) -> bool {
    matches!(phase, Some(BackupPhase::Succeeded | BackupPhase::Failed | BackupPhase::Skipped))
}

/// What to do next about a backup.
pub fn next(run: &BackupRun, seen: &Surroundings, setup: &Setup, now: Timestamp) -> Plan {
    let reference = run.invoker.as_ref().and_then(|i| i.repository.as_ref());
    let gate = Gate::of(&seen.repository, &ground::display(reference, &run.id.namespace), seen.room);
    let mut pass = Pass {
        run,
        seen,
        setup,
        at: now,
        now: run.state.clone(),
        expired: false,
        gate,
        grant: None,
        plan: Plan::nothing(),
    };
    let over = is_over(run.state.phase);
    if run.id.deleting || (over && run.id.held) {
        pass.release();
        return pass.plan;
    }
    if over {
        if has_retry_due(&run.state) {
            pass.follow();
        }
    } else {
        pass.step();
    }
    if !pass.plan.jobs.is_empty() {
        pass.plan.grants.extend(pass.grant.take());
    }
    if pass.now != run.state {
        pass.plan.status = Some(to_json(&pass.now));
    }
    pass.plan
}

/// What new Jobs stand on.
struct Ground {
    frame: JobFrame,
    access: Access,
}

struct Pass<'a> {
    run: &'a BackupRun,
    seen: &'a Surroundings,
    setup: &'a Setup,
    at: Timestamp,
    now: BackupSessionStatus,
    expired: bool,
    /// To its Repository.
    gate: Gate,
    /// What new Jobs need to read the Secret of another namespace.
    grant: Option<Grant>,
    plan: Plan,
}

impl<'a> Pass<'a> {
    /// Makes the session that follows a failed one, when it is time.
    fn follow(&mut self) {
        if let Some(wait) = self.now.next_retry.as_ref().and_then(|t| retry::left(t.0, self.at)) {
            return self.plan.look_again(wait);
        }
        let wanted = self.run.invoker.as_ref();
        let wanted = wanted.filter(|i| !i.paused && self.seen.refusal.is_none() && self.retries_left() > 0);
        self.now.retried = Some(wanted.is_some());
        if let Some(invoker) = wanted {
            let new = sessions::retry(&invoker.id, invoker.first_target(), &self.run.id, self.retries_left() - 1);
            let text =
                format!("Made BackupSession {} to try again.", new.session.metadata.name.as_deref().unwrap_or("-"));
            self.plan.sessions.push(new);
            self.event(false, reason::RETRIED, &text);
        } else {
            let text = format!("Not tried again: {} is gone, paused or not valid.", self.run.invoker_label);
            self.event(true, reason::NOT_RETRIED, &text);
        }
    }

    /// Sessions that may follow this one.
    fn retries_left(&self) -> i32 {
        let configured = self.run.invoker.as_ref().and_then(|i| i.retry.as_ref());
        self.run.retry_left.or(configured.map(|c| c.max_retry.unwrap_or(1))).unwrap_or(0)
    }

    fn step(&mut self) {
        let begun = self.run.state.run.as_ref().and_then(|r| r.spec_hash.as_ref());
        let same = |i: &Invoker| self.seen.refusal.is_none() && begun.is_some_and(|h| *h == i.hash());
        if begun.is_some() && !self.run.invoker.as_ref().is_some_and(same) {
            return hosts::give_up(self);
        }
        if let Some(refusal) = &self.run.refusal {
            return report::refuse(self, &refusal.message.clone());
        }
        let Some(invoker) = &self.run.invoker else {
            return self.wait_for_invoker();
        };
        if let Some(refusal) = &self.seen.refusal {
            let text = format!("{} is not valid: {}", self.run.invoker_label, refusal.message);
            return report::skip(self, &text);
        }
        if let Some(other) = self.run.running.as_ref().filter(|_| self.now.phase.is_none()) {
            let text = format!("BackupSession {other} of the same invoker is still running.");
            return report::skip(self, &text);
        }
        self.begin(invoker);
        let access = match ground::check(
            invoker.repository.as_ref(),
            &self.run.id.namespace,
            &self.seen.repository,
            &mut self.now.conditions,
            self.at,
        ) {
            Ok(access) => access,
            Err(NoGround::Refused(failure) | NoGround::Denied(failure)) => {
                self.seen.jobs.iter().filter(|j| j.is_active()).for_each(|j| self.plan.stop(Some(j)));
                report::end(self, BackupPhase::Failed, &failure.reason, &failure.message);
                // Only a change of a manifest helps.
                self.now.next_retry = None;
                return;
            }
            Err(NoGround::Waiting(text)) if self.expired => {
                return report::end(self, BackupPhase::Failed, reason::DEADLINE_EXCEEDED, &text);
            }
            Err(NoGround::Waiting(text)) => {
                self.plan.look_again(LOOK_FOR_MISSING);
                return report::wait(self, &text);
            }
        };
        let run = self.now.run.get_or_insert_with(Default::default);
        run.spec_hash.get_or_insert_with(|| invoker.hash());
        if !self.may_read(invoker, &access) {
            return report::stand(self);
        }
        let ground = Ground { frame: self.frame(&access), access };
        match self.lone_step("prepare", &ground, || Step::Prepare(Prepare {})) {
            StepState::Running => return report::stand(self),
            StepState::Failed(failure) => {
                conditions::set(
                    &mut self.now.conditions,
                    condition::BACKEND_REPOSITORY_INITIALIZED,
                    false,
                    reason::BACKEND_REPOSITORY_FAILED,
                    &failure.message,
                    self.at,
                );
                return report::end(self, BackupPhase::Failed, &failure.reason, &failure.message);
            }
            StepState::Done(_) => {
                conditions::set(
                    &mut self.now.conditions,
                    condition::BACKEND_REPOSITORY_INITIALIZED,
                    true,
                    reason::BACKEND_REPOSITORY_FOUND,
                    "Repository exist in the backend.",
                    self.at,
                );
            }
        }
        if !hosts::advance(self, invoker, &ground) {
            return report::stand(self);
        }
        let done = hosts::backed_up(self);
        if done.is_empty() {
            return report::conclude(self, None);
        }
        let (own, shared) = hosts::own(self, done);
        let maintain = Maintain { own, retention: retention(&invoker.retention) };
        match self.lone_step("maintain", &ground, || Step::Maintain(maintain.clone())) {
            StepState::Running => report::stand(self),
            StepState::Failed(failure) => {
                report::maintained(self, None, Some(&failure));
                report::conclude(self, Some(&failure));
            }
            StepState::Done(outcome) => {
                let facts = match &outcome.answer {
                    Some(Answer::Maintained(facts)) => Some(facts),
                    _ => None,
                };
                let retained = report::maintained(self, facts, outcome.failure.as_ref());
                let shared = shared.filter(|_| retained && maintain.retention.keeps_something());
                if let Some(text) = &shared {
                    report::shared(self, text);
                }
                report::conclude(self, outcome.failure.as_ref());
                if shared.is_some() {
                    // Only a change of the manifest helps.
                    self.now.next_retry = None;
                }
            }
        }
    }

    /// A session may be applied before its invoker; for a while it waits.
    fn wait_for_invoker(&mut self) {
        let text = format!("{} does not exist.", self.run.invoker_label);
        let run = self.now.run.get_or_insert_with(Default::default);
        let start = run.start_time.get_or_insert_with(|| conditions::whole_second(self.at)).0;
        if self.at.duration_since(start) < INVOKER_PATIENCE {
            self.plan.look_again(LOOK_FOR_MISSING);
            report::wait(self, &text);
        } else {
            report::skip(self, &text);
        }
    }

    fn begin(&mut self, invoker: &Invoker) {
        self.now.observed_generation = self.run.id.generation;
        let run = self.now.run.get_or_insert_with(Default::default);
        run.id.clone_from(&self.run.id.uid);
        let start = run.start_time.get_or_insert_with(|| conditions::whole_second(self.at)).0;
        let limit =
            invoker.time_out.as_deref().and_then(|t| duration::parse(t).ok()).unwrap_or(self.setup.default_timeout);
        let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
        let deadline =
            self.now.session_deadline.get_or_insert_with(|| Time(start.checked_add(limit).unwrap_or(Timestamp::MAX))).0;
        self.expired = self.at >= deadline;
        if let Some(left) = retry::left(deadline, self.at) {
            self.plan.look_again(left);
        }
        self.now.targets.resize_with(invoker.members.len(), BackupTargetStatus::default);
        for (status, member) in self.now.targets.iter_mut().zip(&invoker.members) {
            let target = member.target.clone().unwrap_or_default();
            status.ref_ = target.ref_;
            status.alias = target.alias;
            status.phase.get_or_insert_default();
        }
    }

    /// Whether Jobs can have the Secret: mounted, or by a grant. Before one is made it stands in status, and
    /// the session is held until it is taken back.
    fn may_read(&mut self, invoker: &Invoker, access: &Access) -> bool {
        let Some(secret) = &access.told.secret else { return true };
        let runtime = invoker.runtime.as_ref();
        let of_members = invoker.members.iter().map(|m| m.runtime_settings.as_ref().or(runtime));
        let grant = grants::to_read(&self.run.id, secret, of_members.chain([runtime]));
        let announced = self.run.state.run.iter().any(|r| r.grants.contains(&grant.status));
        if !self.run.id.held {
            self.plan.finalizer = Some(FinalizerChange::Add);
        } else if !announced {
            self.now.run.get_or_insert_default().grants.push(grant.status.clone());
        }
        let ready = self.run.id.held && announced;
        self.plan.again = !ready;
        self.grant = Some(grant);
        ready
    }

    /// Takes grants back, and then the finalizer off.
    fn release(&mut self) {
        if self.run.id.held {
            self.plan.revoke = self.run.state.run.iter().flat_map(|r| r.grants.clone()).collect();
            self.plan.finalizer = Some(FinalizerChange::Remove);
        }
    }

    fn frame(&self, access: &Access) -> JobFrame {
        let account = self.grant.as_ref().map(|g| g.status.name.clone());
        JobFrame::of(self.setup, &self.run.id, label::COMPONENT_BACKUP, access, account)
    }

    fn task(&self, access: &Access, runtime: Option<&RuntimeSettings>, no_cache: Option<bool>, step: Step) -> Task {
        Task {
            version: VERSION,
            run: self.run.id.told(),
            repository: access.told.clone(),
            settings: mover_settings(runtime, no_cache),
            step,
        }
    }

    fn seconds_left(&self) -> i64 {
        retry::seconds_left(self.now.session_deadline.as_ref(), self.at)
    }

    fn job(&self, key: &str, attempt: i32) -> Option<&'a JobSeen> {
        self.seen.jobs.iter().find(|j| j.key == key && j.attempt == attempt)
    }

    /// A step that belongs to no host: created, tried again, or read.
    fn lone_step(&mut self, name: &str, ground: &Ground, step: impl Fn() -> Step) -> StepState {
        let (run, seen) = (self.run, self.seen);
        let runtime = run.invoker.as_ref().and_then(|i| i.runtime.as_ref());
        // Of several members none speaks for the repository's own Jobs.
        let temp_dir = match run.invoker.as_ref().map(|i| i.members.as_slice()) {
            Some([only]) => only.temp_dir.as_ref(),
            _ => None,
        };
        let no_cache = temp_dir.and_then(|t| t.disable_caching);
        let (task, seconds_left) = (self.task(&ground.access, runtime, no_cache, step()), self.seconds_left());
        let lone = Lone {
            run: &run.id.uid,
            at: self.at,
            expired: self.expired,
            jobs: &seen.jobs,
            pod_security: seen.pod_security,
            steps: &mut self.now.run.get_or_insert_with(Default::default).steps,
            gate: Some(&mut self.gate),
            plan: &mut self.plan,
        };
        lone.advance(name, |attempt, deaths| {
            let key = name.to_owned();
            objects::job(
                &ground.frame,
                &task,
                JobParts { key, attempt, deaths, runtime, temp_dir, seconds_left, ..JobParts::default() },
            )
        })
    }

    /// Whether the namespace lets the pod of a Job in.
    fn may_run(&self, job: &Job) -> Result<(), super::contract::Failure> {
        pod_security::check_job(self.seen.pod_security, job)
    }

    fn stop(&mut self, key: &str, attempt: i32) {
        self.plan.stop(self.job(key, attempt));
    }

    fn event(&mut self, warning: bool, reason: &str, message: &str) {
        self.plan.events.push(Event::new(warning, reason, message));
    }
}

fn retention(policy: &RetentionPolicy) -> Retention {
    let p = policy.clone();
    Retention {
        keep_last: p.keep_last,
        keep_hourly: p.keep_hourly,
        keep_daily: p.keep_daily,
        keep_weekly: p.keep_weekly,
        keep_monthly: p.keep_monthly,
        keep_yearly: p.keep_yearly,
        keep_tags: p.keep_tags,
        prune: p.prune,
        dry_run: p.dry_run.unwrap_or(false),
    }
}
