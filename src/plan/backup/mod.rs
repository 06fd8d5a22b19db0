//! What happens next to a backup: the state machine of BackupSession.
//!
//! The session prepares the repository (opens it, or creates it when it is known to be absent), backs up each host with
//! members in parallel or in order, and then runs retention, check and statistics. A backup writes nothing to its
//! targets, so its Jobs need no announcement, and Jobs that a crash leaves behind are found again by name. A failed
//! session is followed by a retry session, as often as its invoker allows.

mod act;
mod conclude;
pub mod exclusive;
pub mod invoker;
mod maintain;
mod members;
mod pass;
mod place;
mod retried;
pub mod run;
pub mod schedule;
pub mod sessions;
pub mod status;
pub mod summary;
mod teardown;
#[cfg(test)]
mod tests;
mod too_large;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::backup_session::{BackupPhase, BackupTargetStatus};
use crate::api::to_json;
use crate::names::{condition, reason};
use crate::plan::backup::pass::{Ground, LOOK_FOR_MISSING, Pass};
use crate::plan::backup::run::{BackupRun, Invoker};
use crate::plan::backup::status::{has_retry_due, is_over};
use crate::plan::effects::{FinalizerChange, Plan};
use crate::plan::repository::preconditions;
use crate::plan::repository::preconditions::NoGround;
use crate::plan::repository::slots::Gate;
use crate::plan::run::{conditions, duration, size};
use crate::plan::seen::job_status::JobSeen;
use crate::plan::seen::surroundings::Surroundings;
use crate::plan::setup::Setup;
use crate::plan::systems::restic;
use crate::plan::systems::restic::backend::Access;
use crate::plan::systems::restic::backup::PREPARE;
use crate::plan::work::rbac::{Rights, Settled};
use crate::plan::work::step::StepState;
use crate::plan::work::{rbac, retry};

/// Longest wait of a session for its invoker. No limit is known without the invoker, so this is the time that an apply
/// of both can take.
const INVOKER_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// What to do next about a backup.
pub fn next(run: &BackupRun, seen: &Surroundings, setup: &Setup, now: Timestamp) -> Plan {
    let reference = run.invoker.as_ref().and_then(|i| i.repository.as_ref());
    let gate = Gate::of(&seen.repository, &preconditions::display(reference, &run.id.namespace), seen.room);
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
        // Running Jobs are deleted with the session that owns them. Their rights are removed first.
        pass.release();
    } else if over {
        // A cancel after the end has no effect. Clients that compare generations must not wait forever.
        pass.now.observed_generation = pass.now.observed_generation.and(run.id.generation);
        if has_retry_due(&run.state) {
            pass.follow();
        }
    } else if run.canceled && !size::was_refused(&run.state.conditions) {
        teardown::cancel(&mut pass);
    } else {
        pass.step();
    }
    pass.finish()
}

impl Pass<'_> {
    fn step(&mut self) {
        let begun = self.run.state.run.as_ref().and_then(|r| r.spec_hash.as_ref());
        let same = |i: &Invoker| self.seen.refusal.is_none() && begun.is_some_and(|h| *h == i.hash());
        if begun.is_some() && !self.run.invoker.as_ref().is_some_and(same) {
            let how = if self.run.invoker.is_some() { "changed" } else { "deleted" };
            return self.break_off(&format!("{} was {how}", self.run.invoker_label));
        }
        if size::was_refused(&self.now.conditions) {
            members::give_up(self, reason::RUN_TOO_LARGE, size::REFUSED);
            // Only a change of the manifest helps.
            self.now.next_retry = None;
            return;
        }
        if let Some(refusal) = &self.run.refusal {
            return conclude::refuse(self, &refusal.message.clone());
        }
        let Some(invoker) = &self.run.invoker else {
            return self.wait_for_invoker();
        };
        if let Some(refusal) = &self.seen.refusal {
            let text = format!("{} is not valid: {}", self.run.invoker_label, refusal.message);
            return conclude::skip(self, &text);
        }
        if let Some(other) = self.run.running.as_ref().filter(|_| self.now.phase.is_none()) {
            let text = format!("BackupSession {other} of the same invoker is still running.");
            return conclude::skip(self, &text);
        }
        self.begin(invoker);
        let found = preconditions::check(
            invoker.repository.as_ref(),
            &self.run.id.namespace,
            &self.seen.repository,
            &mut self.now.conditions,
            self.at,
        );
        let access = match preconditions::with_defaults(found, &self.seen.job_defaults) {
            Ok(access) => access,
            Err(NoGround::Refused(failure) | NoGround::Denied(failure)) => {
                self.ended = true;
                self.seen.jobs.iter().filter(|j| j.is_active()).for_each(|j| self.plan.stop(Some(j)));
                conclude::end(self, BackupPhase::Failed, &failure.reason, &failure.message);
                // Only a change of a manifest helps.
                self.now.next_retry = None;
                return;
            }
            Err(NoGround::Waiting(text)) if self.expired => {
                return conclude::end(self, BackupPhase::Failed, reason::DEADLINE_EXCEEDED, &text);
            }
            Err(NoGround::Waiting(text)) => {
                self.plan.look_again(LOOK_FOR_MISSING);
                if self.seen.job_defaults.as_ref().err() == Some(&text) {
                    return conclude::wait_loudly(self, &text);
                }
                return conclude::wait(self, &text);
            }
        };
        let run = self.now.run.get_or_insert_with(Default::default);
        run.spec_hash.get_or_insert_with(|| invoker.hash());
        if let Some(text) = too_large::refusal(self, invoker) {
            self.seen.jobs.iter().filter(|j| j.is_active()).for_each(|j| self.plan.stop(Some(j)));
            self.now.targets.iter_mut().for_each(|t| t.stats.clear());
            conclude::end(self, BackupPhase::Failed, reason::RUN_TOO_LARGE, &text);
            // Only a change of the manifest helps.
            self.now.next_retry = None;
            return;
        }
        self.plan.renew(&self.seen.jobs, &self.seen.defaults());
        let ground = self.stand_on(invoker, access);
        self.note_place(&ground.access);
        let prepare = restic::backup::prepare(&ground.access, self.temp_dir());
        match self.lone_step(PREPARE, &ground, prepare) {
            StepState::Running => return conclude::stand(self),
            StepState::Failed(failure) => {
                conditions::set(
                    &mut self.now.conditions,
                    condition::BACKEND_REPOSITORY_INITIALIZED,
                    false,
                    reason::BACKEND_REPOSITORY_FAILED,
                    &failure.message,
                    self.at,
                );
                return conclude::end(self, BackupPhase::Failed, &failure.reason, &failure.message);
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
        if !members::advance(self, invoker, &ground) {
            return conclude::stand(self);
        }
        let done = members::backed_up(self);
        if done.is_empty() {
            return conclude::conclude(self, None);
        }
        self.maintain(invoker, &ground, done);
    }

    /// A session may be applied before its invoker, so it waits for the invoker for a while.
    fn wait_for_invoker(&mut self) {
        let text = format!("{} does not exist.", self.run.invoker_label);
        let run = self.now.run.get_or_insert_with(Default::default);
        let start = run.start_time.get_or_insert_with(|| conditions::whole_second(self.at)).0;
        if self.at.duration_since(start) < INVOKER_PATIENCE {
            self.plan.look_again(LOOK_FOR_MISSING);
            conclude::wait_loudly(self, &text);
        } else {
            conclude::skip(self, &text);
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

    /// Frame and access of new Jobs. The Jobs mount the Secret, or need a grant to read it.
    fn stand_on(&mut self, invoker: &Invoker, access: Access) -> Ground {
        let runtime = invoker.runtime.as_ref();
        let defaults = self.seen.defaults();
        let of_members = invoker.members.iter().map(|m| m.runtime_settings.as_ref().or(runtime));
        let settings = of_members.chain([runtime]);
        self.grant = access.told.secret.as_ref().map(|secret| rbac::to_read(&self.run.id, secret, settings, &defaults));
        Ground { frame: self.frame(&access), access }
    }

    fn finish(mut self) -> Plan {
        let written = self.run.state.run.clone().unwrap_or_default();
        let rights = Rights {
            wanted: self.grant.take(),
            announced: &written.grants,
            at_work: !self.ended && self.seen.jobs.iter().any(JobSeen::is_active),
            refused: self.seen.refused_revoke.as_ref(),
            give_up: rbac::give_up(written.completion_time.map(|t| t.0), self.run.id.deleted, self.at),
        };
        let settled = rights.settle(&mut self.plan);
        if !(written.grants.is_empty() || self.run.id.held || self.run.id.deleting) {
            // The finalizer was removed from a session that has rights in another namespace.
            return Plan { finalizer: Some(FinalizerChange::Add), again: true, ..Plan::nothing() };
        }
        if settled == Settled::Gone {
            self.now.run.iter_mut().for_each(|r| r.grants.clear());
        }
        if let Settled::Announce(grant) = settled {
            if !self.run.id.held {
                // The finalizer stays until the rights are revoked.
                return Plan { finalizer: Some(FinalizerChange::Add), again: true, ..Plan::nothing() };
            }
            // Everything else waits until the grant is written to status.
            let mut announced = self.run.state.clone();
            announced.run.get_or_insert_default().grants.push(grant);
            return Plan { status: Some(to_json(&announced)), again: true, ..Plan::nothing() };
        }
        self.warn_of_missing();
        size::bound_backup(&mut self.now);
        // The status of a session that is being deleted is no longer written.
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
}
