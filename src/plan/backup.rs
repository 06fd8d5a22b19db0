//! What happens next to a backup: the state machine of BackupSession.
//!
//! Prepare the repository (open it, or create it when it is known to be absent);
//! back up each host, members in parallel or in order; then retention, check and
//! statistics. A backup writes nothing to its targets, so its Jobs need no
//! announcement, and what a crash leaves behind is found again by name.

mod hosts;
mod report;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::access::Access;
use super::contract::{Answer, Class, Failure, Maintain, Outcome, Prepare, Retention, Run, Step, Task, VERSION};
use super::ground::{self, NoGround};
use super::jobs::{JobSeen, JobState};
use super::objects::{self, JobFrame, JobParts};
use super::observed::{Refusal, Setup, Surroundings};
use super::restore::mover_settings;
use super::run::Identity;
use super::{Event, Plan, Prepared, conditions, duration, pod_security, retry};
use crate::api::backup_batch::BackupMember;
use crate::api::backup_session::{BackupPhase, BackupSessionStatus, BackupTargetStatus};
use crate::api::common::{RepositoryRef, RetentionPolicy};
use crate::api::restore_session::StepStatus;
use crate::api::runtime::RuntimeSettings;
use crate::api::to_json;
use crate::names::{condition, label, reason};

const LOOK_FOR_MISSING: Duration = Duration::from_secs(3);
const LOOK_AT_RUNNING: Duration = Duration::from_secs(10);
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
    /// How it stands, as last written.
    pub state: BackupSessionStatus,
}

/// What a BackupConfiguration or BackupBatch says.
#[derive(Clone, Debug, Default)]
pub struct Invoker {
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

/// Whether a session has ended.
pub fn is_over(phase: Option<BackupPhase>) -> bool {
    matches!(phase, Some(BackupPhase::Succeeded | BackupPhase::Failed | BackupPhase::Skipped))
}

/// What to do next about a backup.
pub fn next(run: &BackupRun, seen: &Surroundings, setup: &Setup, now: Timestamp) -> Plan<Prepared> {
    if is_over(run.state.phase) || run.id.deleting {
        return Plan::nothing();
    }
    let mut pass = Pass { run, seen, setup, at: now, now: run.state.clone(), expired: false, plan: Plan::nothing() };
    pass.step();
    if pass.now != run.state {
        pass.plan.status = Some(to_json(&pass.now));
    }
    pass.plan
}

struct Pass<'a> {
    run: &'a BackupRun,
    seen: &'a Surroundings,
    setup: &'a Setup,
    at: Timestamp,
    now: BackupSessionStatus,
    expired: bool,
    plan: Plan<Prepared>,
}

/// How a step that belongs to no host stands.
enum StepState {
    Running,
    Done(Box<Outcome>),
    Failed(Failure),
}

impl<'a> Pass<'a> {
    fn step(&mut self) {
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
            Err(NoGround::Refused(failure)) => {
                return report::end(self, BackupPhase::Failed, &failure.reason, &failure.message);
            }
            Err(NoGround::Waiting(text)) if self.expired => {
                return report::end(self, BackupPhase::Failed, reason::DEADLINE_EXCEEDED, &text);
            }
            Err(NoGround::Waiting(text)) => {
                self.plan.look_again(LOOK_FOR_MISSING);
                return report::wait(self, &text);
            }
        };
        let frame = self.frame(&access);
        match self.lone_step("prepare", &frame, &access, || Step::Prepare(Prepare {})) {
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
        if !hosts::advance(self, invoker, &frame, &access) {
            return report::stand(self);
        }
        let done = hosts::backed_up(self);
        if done.is_empty() {
            return report::conclude(self);
        }
        let maintain = Maintain { hosts: done, retention: retention(&invoker.retention) };
        match self.lone_step("maintain", &frame, &access, || Step::Maintain(maintain.clone())) {
            StepState::Running => report::stand(self),
            StepState::Failed(failure) => {
                report::maintained(self, None, Some(&failure));
                report::conclude(self);
            }
            StepState::Done(outcome) => {
                let facts = match &outcome.answer {
                    Some(Answer::Maintained(facts)) => Some(facts),
                    _ => None,
                };
                report::maintained(self, facts, outcome.failure.as_ref());
                report::conclude(self);
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

    fn frame(&self, access: &Access) -> JobFrame {
        JobFrame {
            image: self.setup.image.clone(),
            owner: self.run.id.owner(),
            namespace: self.run.id.namespace.clone(),
            component: label::COMPONENT_BACKUP,
            secret: access.secret.clone(),
            local_repository: access.local.clone(),
        }
    }

    fn task(&self, access: &Access, runtime: Option<&RuntimeSettings>, no_cache: Option<bool>, step: Step) -> Task {
        let id = &self.run.id;
        Task {
            version: VERSION,
            run: Run {
                id: id.uid.clone(),
                kind: id.kind.clone(),
                namespace: id.namespace.clone(),
                name: id.name.clone(),
            },
            repository: access.told.clone(),
            settings: mover_settings(runtime, no_cache),
            step,
        }
    }

    fn seconds_left(&self) -> i64 {
        self.now
            .session_deadline
            .as_ref()
            .and_then(|d| retry::left(d.0, self.at))
            .map_or(1, |l| i64::try_from(l.as_secs()).unwrap_or(i64::MAX).max(1))
    }

    fn job(&self, key: &str, attempt: i32) -> Option<&'a JobSeen> {
        self.seen.jobs.iter().find(|j| j.key == key && j.attempt == attempt)
    }

    /// A step that belongs to no host: created, tried again, or read.
    fn lone_step(&mut self, name: &str, frame: &JobFrame, access: &Access, step: impl Fn() -> Step) -> StepState {
        let steps = &mut self.now.run.get_or_insert_with(Default::default).steps;
        let at = steps.iter().position(|s| s.name == name).unwrap_or_else(|| {
            steps.push(StepStatus { name: name.to_owned(), attempt: 1, ..StepStatus::default() });
            steps.len() - 1
        });
        let entry = steps[at].clone();
        if entry.done {
            return StepState::Done(Box::default());
        }
        // What the earlier attempt came to stands in status.
        self.stop(name, entry.attempt - 1);
        let failure = match self.job(name, entry.attempt).map(|j| &j.state) {
            Some(JobState::Active { held }) if !self.expired => {
                let (why, text) = (held.as_ref().map(|f| f.reason.clone()), held.as_ref().map(|f| f.message.clone()));
                if let Some(failure) = held {
                    self.plan.warn_of(failure, entry.reason.as_deref());
                }
                let slot = self.entry(at);
                (slot.reason, slot.message) = (why, text);
                self.plan.look_again(LOOK_AT_RUNNING);
                return StepState::Running;
            }
            Some(JobState::Active { .. }) => {
                self.stop(name, entry.attempt);
                return StepState::Failed(late(name));
            }
            Some(JobState::Done(outcome)) => match &outcome.failure {
                None if outcome.run != self.run.id.uid => {
                    let text = format!("The {name} step answered for another run ({}).", outcome.run);
                    return StepState::Failed(Failure::new(Class::Fatal, reason::AGENT_FAILED, text));
                }
                Some(failure) if retry::again(failure, retry::deaths(failure, entry.pod_deaths)) => failure.clone(),
                Some(failure) if outcome.answer.is_none() => return StepState::Failed(failure.clone()),
                _ => {
                    self.entry(at).done = true;
                    return StepState::Done(outcome.clone());
                }
            },
            Some(JobState::Lost(failure)) => {
                if failure.class == Class::Invalid {
                    // A pod that can never start is still there.
                    self.stop(name, entry.attempt);
                }
                failure.clone()
            }
            None if self.expired => return StepState::Failed(late(name)),
            None => {
                if let Some(wait) = entry.not_before.as_ref().and_then(|t| retry::left(t.0, self.at)) {
                    self.plan.look_again(wait);
                } else {
                    let runtime = self.run.invoker.as_ref().and_then(|i| i.runtime.as_ref());
                    let task = self.task(access, runtime, None, step());
                    let parts = JobParts {
                        key: name.to_owned(),
                        attempt: entry.attempt,
                        runtime,
                        seconds_left: self.seconds_left(),
                        ..JobParts::default()
                    };
                    let job = objects::job(frame, &task, parts);
                    if let Err(failure) = self.may_run(&job) {
                        return StepState::Failed(failure);
                    }
                    self.plan.jobs.push(job);
                    self.plan.look_again(LOOK_AT_RUNNING);
                }
                return StepState::Running;
            }
        };
        let deaths = retry::deaths(&failure, entry.pod_deaths);
        if self.expired || !retry::again(&failure, deaths) {
            return StepState::Failed(failure);
        }
        let due = conditions::whole_second(retry::not_before(entry.attempt, self.at));
        let slot = self.entry(at);
        slot.attempt += 1;
        slot.pod_deaths = deaths;
        slot.not_before = Some(due);
        slot.reason = Some(failure.reason);
        slot.message = Some(failure.message);
        self.plan.look_again(retry::wait_after(entry.attempt));
        StepState::Running
    }

    /// Whether the namespace lets the pod of a Job in.
    fn may_run(&self, job: &Job) -> Result<(), Failure> {
        objects::pod_of(job)
            .map_or(Ok(()), |pod| pod_security::check(self.seen.pod_security, pod, &self.run.id.namespace))
    }

    fn entry(&mut self, at: usize) -> &mut StepStatus {
        &mut self.now.run.get_or_insert_with(Default::default).steps[at]
    }

    fn stop(&mut self, key: &str, attempt: i32) {
        if let Some(job) = self.job(key, attempt).filter(|j| !j.deleting) {
            self.plan.stop_jobs.push(job.name.clone());
        }
    }

    fn event(&mut self, warning: bool, reason: &str, message: &str) {
        self.plan.events.push(Event::new(warning, reason, message));
    }
}

fn late(step: &str) -> Failure {
    let text = format!("The {step} step was not complete before the deadline.");
    Failure::new(Class::Fatal, reason::DEADLINE_EXCEEDED, text)
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
