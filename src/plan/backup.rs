//! What happens next to a backup: the state machine of BackupSession.
//!
//! Prepare the repository (open it, or create it when it is known to be absent);
//! back up each host, members in parallel or in order; then retention, check and
//! statistics. A backup writes nothing to its targets, so its Jobs need no
//! announcement, and what a crash leaves behind is found again by name. A session
//! that failed is followed by another one, as often as its invoker says.

mod bound;
mod ending;
mod follow;
mod host;
mod hosts;
mod maintain;
mod place;
mod report;
mod summary;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::access::Access;
use super::gate::Gate;
use super::grants::{self, Grant, Rights, Settled};
use super::ground::{self, NoGround};
use super::hosts::HostSet;
use super::jobs::JobSeen;
use super::objects::{self, JobFrame, JobParts};
use super::observed::{Refusal, Setup, Surroundings};
use super::run::Identity;
use super::step::{LOOK_AT_RUNNING, Lone, StepState};
use super::systems::restic;
use super::{Event, FinalizerChange, Plan, conditions, duration, pod_security, retry, size};
use crate::api::backup_batch::BackupMember;
use crate::api::backup_session::{BackupPhase, BackupSessionStatus, BackupTargetStatus};
use crate::api::common::{RepositoryRef, RetentionPolicy, RetryConfig, TargetRef};
use crate::api::runtime::RuntimeSettings;
use crate::api::to_json;
use crate::contract::restic::{Prepare, Step};
use crate::names::{condition, hash_of, label, reason};

pub use self::ending::is_being_canceled;
pub use self::hosts::named;

/// Key of the step that opens the repository.
const PREPARE: &str = "prepare";
const LOOK_FOR_MISSING: Duration = Duration::from_secs(3);
/// Progress is written to status at most this often.
const LOOK_AT_PROGRESS: Duration = Duration::from_secs(5);
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
    /// It is to end, or is ending already, because somebody canceled it.
    pub canceled: bool,
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
        ended: false,
        plan: Plan::nothing(),
    };
    let over = is_over(run.state.phase);
    if run.id.deleting || (over && run.id.held) {
        // What runs goes with its owner, and its rights before it.
        pass.release();
    } else if over {
        // A cancel that comes now changes nothing of it; who compares generations must not wait for ever.
        pass.now.observed_generation = pass.now.observed_generation.and(run.id.generation);
        if has_retry_due(&run.state) {
            pass.follow();
        }
    } else if run.canceled && !size::was_refused(&run.state.conditions) {
        ending::cancel(&mut pass);
    } else {
        pass.step();
    }
    pass.finish()
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
    /// Nothing of it shall run any more, so that rights go before its Jobs do.
    ended: bool,
    plan: Plan,
}

impl<'a> Pass<'a> {
    fn step(&mut self) {
        let begun = self.run.state.run.as_ref().and_then(|r| r.spec_hash.as_ref());
        let same = |i: &Invoker| self.seen.refusal.is_none() && begun.is_some_and(|h| *h == i.hash());
        if begun.is_some() && !self.run.invoker.as_ref().is_some_and(same) {
            let how = if self.run.invoker.is_some() { "changed" } else { "deleted" };
            return self.break_off(&format!("{} was {how}", self.run.invoker_label));
        }
        if size::was_refused(&self.now.conditions) {
            hosts::give_up(self, reason::RUN_TOO_LARGE, size::REFUSED);
            // Only a change of the manifest helps.
            self.now.next_retry = None;
            return;
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
        let found = ground::check(
            invoker.repository.as_ref(),
            &self.run.id.namespace,
            &self.seen.repository,
            &mut self.now.conditions,
            self.at,
        );
        let access = match ground::with_defaults(found, &self.seen.job_defaults) {
            Ok(access) => access,
            Err(NoGround::Refused(failure) | NoGround::Denied(failure)) => {
                self.ended = true;
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
                if self.seen.job_defaults.as_ref().err() == Some(&text) {
                    return report::wait_loudly(self, &text);
                }
                return report::wait(self, &text);
            }
        };
        let run = self.now.run.get_or_insert_with(Default::default);
        run.spec_hash.get_or_insert_with(|| invoker.hash());
        if let Some(text) = bound::refusal(self, invoker) {
            self.seen.jobs.iter().filter(|j| j.is_active()).for_each(|j| self.plan.stop(Some(j)));
            self.now.targets.iter_mut().for_each(|t| t.stats.clear());
            report::end(self, BackupPhase::Failed, reason::RUN_TOO_LARGE, &text);
            // Only a change of the manifest helps.
            self.now.next_retry = None;
            return;
        }
        self.plan.renew(&self.seen.jobs, &self.seen.defaults());
        let ground = self.stand_on(invoker, access);
        self.note_place(&ground.access);
        match self.lone_step(PREPARE, &ground, || Step::Prepare(Prepare {})) {
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
        if self.is_moved(&ground.access) {
            return self.break_off(&format!("The backend of Repository {} was changed", ground.access.display));
        }
        if !hosts::advance(self, invoker, &ground) {
            return report::stand(self);
        }
        let done = hosts::backed_up(self);
        if done.is_empty() {
            return report::conclude(self, None);
        }
        self.maintain(invoker, &ground, done);
    }

    /// A session may be applied before its invoker; for a while it waits.
    fn wait_for_invoker(&mut self) {
        let text = format!("{} does not exist.", self.run.invoker_label);
        let run = self.now.run.get_or_insert_with(Default::default);
        let start = run.start_time.get_or_insert_with(|| conditions::whole_second(self.at)).0;
        if self.at.duration_since(start) < INVOKER_PATIENCE {
            self.plan.look_again(LOOK_FOR_MISSING);
            report::wait_loudly(self, &text);
        } else {
            report::skip(self, &text);
        }
    }

    fn begin(&mut self, invoker: &Invoker) {
        self.now.observed_generation = self.run.id.generation;
        let run = self.now.run.get_or_insert_with(Default::default);
        run.id.clone_from(&self.run.id.uid);
        let start = run.start_time.get_or_insert_with(|| conditions::whole_second(self.at)).0;
        let asked = invoker.time_out.as_deref().and_then(|t| duration::parse(t).ok());
        let limit = asked.unwrap_or(self.setup.default_timeout).min(self.setup.max_timeout);
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

    /// What new Jobs stand on. They have the Secret mounted, or need a grant to read it.
    fn stand_on(&mut self, invoker: &Invoker, access: Access) -> Ground {
        let runtime = invoker.runtime.as_ref();
        let defaults = self.seen.defaults();
        let of_members = invoker.members.iter().map(|m| m.runtime_settings.as_ref().or(runtime));
        let settings = of_members.chain([runtime]);
        self.grant =
            access.told.secret.as_ref().map(|secret| grants::to_read(&self.run.id, secret, settings, &defaults));
        Ground { frame: self.frame(&access), access }
    }

    /// Takes the finalizer off, after its rights are taken back.
    fn release(&mut self) {
        self.ended = true;
        if self.run.id.held {
            self.plan.finalizer = Some(FinalizerChange::Remove);
        }
    }

    fn finish(mut self) -> Plan {
        let written = self.run.state.run.clone().unwrap_or_default();
        let rights = Rights {
            wanted: self.grant.take(),
            announced: &written.grants,
            at_work: !self.ended && self.seen.jobs.iter().any(JobSeen::is_active),
            refused: self.seen.refused_revoke.as_ref(),
            give_up: grants::give_up(written.completion_time.map(|t| t.0), self.run.id.deleted, self.at),
        };
        let settled = rights.settle(&mut self.plan);
        if !(written.grants.is_empty() || self.run.id.held || self.run.id.deleting) {
            // Somebody has taken it off a session that has rights in another namespace.
            return Plan { finalizer: Some(FinalizerChange::Add), again: true, ..Plan::nothing() };
        }
        if settled == Settled::Gone {
            self.now.run.iter_mut().for_each(|r| r.grants.clear());
        }
        if let Settled::Announce(grant) = settled {
            if !self.run.id.held {
                // It is held until they are taken back.
                return Plan { finalizer: Some(FinalizerChange::Add), again: true, ..Plan::nothing() };
            }
            // All else waits until that is written.
            let mut announced = self.run.state.clone();
            announced.run.get_or_insert_default().grants.push(grant);
            return Plan { status: Some(to_json(&announced)), again: true, ..Plan::nothing() };
        }
        self.warn_of_missing();
        size::bound_backup(&mut self.now);
        // One that is being deleted is written no more.
        if self.now != self.run.state && !self.run.id.deleting {
            self.plan.status = Some(to_json(&self.now));
        }
        self.plan.release(&self.seen.jobs);
        self.plan
    }

    fn warn_of_missing(&mut self) {
        let none = BackupTargetStatus::default();
        let before = self.run.state.targets.iter().chain(std::iter::repeat(&none));
        for (before, now) in before.zip(&self.now.targets) {
            self.plan.warn_of_missing(&before.conditions, &now.conditions);
        }
        self.plan.warn_of_missing(&self.run.state.conditions, &self.now.conditions);
    }

    fn frame(&self, access: &Access) -> JobFrame {
        let account = self.grant.as_ref().map(|g| g.status.name.clone());
        JobFrame::of(self.setup, &self.run.id, label::COMPONENT_BACKUP, access, account, self.seen.defaults())
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
        let (process, settings) = (restic::process(runtime), restic::settings(no_cache, false));
        let task = restic::task(run.id.told(), &ground.access, process, settings, step(), vec![]);
        let seconds_left = self.seconds_left();
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
    fn may_run(&self, job: &Job) -> Result<(), crate::contract::Failure> {
        objects::check_task(job)?;
        pod_security::check_job(self.seen.pod_security, job)
    }

    fn stop(&mut self, key: &str, attempt: i32) {
        self.plan.stop(self.job(key, attempt));
    }

    fn event(&mut self, warning: bool, reason: &str, message: &str) {
        self.plan.events.push(Event::new(warning, reason, message));
    }
}
