//! What happens next to a restore: the state machine of RestoreSession and RestoreBatch.
//!
//! One pass computes the new status (`now`) from the current status (`was`), and lists effects. Two rules keep a crash
//! between any two writes harmless. Intent before effect: an effect that scales a workload or overwrites data is listed
//! only if `was`, the written status, announces it. Same name for the same step: an effect that is listed twice happens
//! once.
//!
//! The order: Repository and Secret exist; each target exists and a Job can reach it; a preflight Job resolves every
//! host's snapshots, which are pinned; no other session restores the same target; claims are created; a member's
//! workload is quiesced; its hosts are restored; the workload is scaled back; the run ends. A run that is deleted,
//! canceled or changed is torn down instead, at any point.

mod act;
mod conclude;
pub mod conflicts;
mod extraneous;
pub mod from_backup_batch;
mod held;
pub mod held_note;
mod members;
mod pass;
mod pin;
mod places;
mod provision;
pub mod pvc_templates;
mod quiesce;
mod refused;
pub mod rounds;
pub mod run;
mod scale_back;
mod stages;
pub mod status;
mod targets;
mod teardown;
#[cfg(test)]
pub mod tests;
mod too_large;
mod users;
mod workload_events;

use k8s_openapi::jiff::Timestamp;

use crate::api::restore_batch::{RestoreMember, RestoreMemberStatus};
use crate::api::restore_session::RestorePhase;
use crate::contract::{Class, Failure};
use crate::names::{condition, reason};
use crate::plan::effects::{FinalizerChange, Plan};
use crate::plan::repository::preconditions;
use crate::plan::repository::preconditions::NoGround;
use crate::plan::restore::pass::{Ground, LOOK_FOR_MISSING, Pass};
use crate::plan::restore::run::RestoreRun;
use crate::plan::run::conditions::Health;
use crate::plan::run::{conditions, limits, size};
use crate::plan::seen::Refusal;
use crate::plan::seen::job_status;
use crate::plan::seen::job_status::JobSeen;
use crate::plan::seen::surroundings::Surroundings;
use crate::plan::setup::Setup;
use crate::plan::systems::restic::backend::Access;
use crate::plan::systems::system::System;
use crate::plan::work::rbac;
use crate::plan::work::rbac::{Rights, Settled};

/// What to do next about a restore.
pub fn next(run: &RestoreRun, seen: &Surroundings, setup: &Setup, now: Timestamp) -> Plan {
    let mut pass = Pass::new(run, seen, setup, now);
    if run.id.deleting {
        teardown::leave(&mut pass);
    } else if run.is_over() {
        // A change of the spec has no effect now. A client that compares generations must not wait forever.
        pass.now.observed_generation = run.id.generation;
        teardown::stop_all(&mut pass);
        pass.release();
    } else if run.canceled {
        teardown::cancel(&mut pass);
    } else if run.state.is_withdrawn() {
        teardown::withdraw(&mut pass);
    } else if run.is_changed() {
        teardown::abandon(&mut pass);
    } else {
        pass.step();
    }
    let plan = pass.finish();
    // The API server adds no finalizer to an object that is being deleted. A run that has rights in another namespace,
    // or whose workload is down, gets its finalizer back if it was removed: a client that replaces the object removes
    // every finalizer.
    let stands =
        !run.state.run.grants.is_empty() || (!run.is_over() && run.state.members.iter().any(status::is_started));
    if run.id.held || run.id.deleting {
        return plan;
    }
    if leaves_something(&plan) {
        return Plan { finalizer: Some(FinalizerChange::Add), again: true, ..Plan::nothing() };
    }
    // A run that has such rights or workloads does not wait for its finalizer: it is added with the other writes.
    let finalizer = plan.finalizer.or(stands.then_some(FinalizerChange::Add));
    Plan { finalizer, ..plan }
}

/// Whether a deletion would have to undo something of the plan. A preflight Job only reads, and is deleted with its
/// owner.
fn leaves_something(plan: &Plan) -> bool {
    let made = !(plan.scales.is_empty() && plan.holds.is_empty() && plan.claims.is_empty() && plan.grants.is_empty());
    made || !plan.jobs.iter().all(job_status::is_preflight)
}

impl Pass<'_> {
    fn step(&mut self) {
        self.begin();
        let longest = self.setup.max_timeout;
        let of_member = |(i, m): (usize, &RestoreMember)| {
            limits::too_long(&format!("spec.members[{i}].timeOut"), m.time_out.as_deref(), longest)
        };
        let too_long = || {
            let own = limits::too_long("spec.timeOut", self.run.time_out.as_deref(), longest);
            let own = own.or_else(|| self.unsupported());
            // A run that began before there was a limit ends within the limit.
            own.or_else(|| self.run.members.iter().enumerate().find_map(of_member)).filter(|_| !self.has_begun())
        };
        if let Some(refusal) = &self.seen.refusal.clone().or_else(too_long) {
            if refusal.reason == reason::REPOSITORY_NOT_ALLOWED {
                // The refusal is about the BackupBatch that the run names.
                let (list, text) = (&mut self.now.conditions, refusal.message.as_str());
                conditions::set(list, condition::REPOSITORY_FOUND, false, &refusal.reason, text, self.at);
                return self.keep_out(&Failure::new(Class::Invalid, &refusal.reason, text));
            }
            self.now.phase = Some(RestorePhase::Invalid);
            let text = &refusal.message;
            // This condition is about another spec.
            self.now.conditions.retain(|c| c.type_ != condition::REPOSITORY_FOUND);
            conditions::set(
                &mut self.now.conditions,
                condition::VALIDATION_PASSED,
                false,
                reason::VALIDATION_FAILED,
                text,
                self.at,
            );
            conclude::end(self, RestorePhase::Invalid, &refusal.reason.clone(), &refusal.message.clone());
            return;
        }
        let namespace = &self.run.id.namespace;
        if let Some(source) = self.run.untaken() {
            if self.was.is_denied() {
                // The run may take the members now.
                self.now.conditions.retain(|c| c.type_ != condition::REPOSITORY_FOUND);
            }
            targets::members(self, &from_backup_batch::display(source, namespace));
            return;
        }
        let ground = if self.uses_repository() {
            let (reference, seen) = (self.run.repository.as_ref(), &self.seen.repository);
            preconditions::check(reference, namespace, seen, &mut self.now.conditions, self.at).map(Some)
        } else {
            Ok(None)
        };
        let ground = preconditions::with_defaults(ground, &self.seen.job_defaults);
        if let Err(NoGround::Denied(failure)) = &ground {
            return self.keep_out(&failure.clone());
        }
        targets::targets(self);
        let ground = match ground {
            Ok(access) => {
                self.plan.renew(&self.seen.jobs, &self.seen.defaults());
                Ok(access)
            }
            Err(NoGround::Refused(failure)) if !self.now.members.iter().any(status::is_started) => {
                conclude::end(self, RestorePhase::Invalid, &failure.reason, &failure.message);
                return;
            }
            Err(NoGround::Refused(failure)) => Err(failure.message),
            Err(NoGround::Denied(Failure { message: waiting, .. }) | NoGround::Waiting(waiting)) => {
                self.plan.look_again(LOOK_FOR_MISSING);
                Err(waiting)
            }
        };
        let ground = self.stand_on(ground);
        if too_large::refuse(self) {
            return;
        }
        pin::advance(self, ground.as_ref().ok());
        if too_large::refuse(self) {
            // The Jobs of the run are stopped once this status is written.
            self.plan.jobs.clear();
            return;
        }
        members::advance(self, ground.as_ref().map_err(String::as_str));
        conclude::conclude(self);
    }

    /// Handles a run that the usagePolicy does not allow. Its Jobs and rights end at once. A run that has not begun
    /// becomes invalid, and goes on when the policy changes. A run that has begun is ended.
    fn keep_out(&mut self, failure: &Failure) {
        self.kept_out = true;
        teardown::stop_all(self);
        if self.has_begun() {
            let text = format!("{} The run is being ended: its Jobs are stopped.", failure.message);
            conclude::say(self, Health::Reconciling, &failure.reason, &text);
            // Workloads are scaled back once this status is written.
            self.plan.again = true;
        } else {
            self.stay_out(failure);
        }
    }

    fn stay_out(&mut self, failure: &Failure) {
        self.now.members.clear();
        self.now.run.steps.clear();
        self.enlist();
        if self.expired {
            return conclude::end(self, RestorePhase::Failed, &failure.reason, &failure.message);
        }
        // Another spec may name another Repository.
        self.now.run.spec_hash = None;
        if !self.was.is_denied() {
            self.event(true, &failure.reason, &failure.message);
        }
        self.now.phase = Some(RestorePhase::Invalid);
        conclude::say(self, Health::Stalled, &failure.reason, &failure.message);
        self.plan.look_again(LOOK_FOR_MISSING);
    }

    /// What new Jobs need to be created. They have the Secret mounted, or need a grant to read it. Without a
    /// Repository, members that use none go on.
    fn stand_on(&mut self, access: Result<Option<Access>, String>) -> Result<Ground, String> {
        let defaults = self.seen.job_defaults.clone()?;
        if let Ok(Some(access)) = &access {
            let uses = |index: &usize| self.system(*index).is_some_and(System::uses_repository);
            let members = (0..self.run.members.len()).filter(uses).map(|i| &self.run.members[i]);
            let settings: Vec<_> = members.map(|m| m.runtime_settings.as_ref()).collect();
            let secret = access.told.secret.as_ref();
            self.grant = secret.map(|secret| rbac::to_read(&self.run.id, secret, settings, &defaults));
        }
        Ok(Ground::new(self.frame(), access))
    }

    /// The refusal of a member whose driver is declared but not supported.
    fn unsupported(&self) -> Option<Refusal> {
        let index = (0..self.run.members.len()).find(|index| self.system(*index).is_none())?;
        let text = format!("Driver {:?} of member {index} is not supported yet; use Restic.", self.run.driver(index));
        Some(Refusal { reason: reason::NOT_SUPPORTED.to_owned(), message: text })
    }

    fn warn_of_missing(&mut self) {
        let none = RestoreMemberStatus::default();
        let before = self.was.members.iter().chain(std::iter::repeat(&none));
        for (before, now) in before.zip(&self.now.members) {
            self.plan.warn_of_missing(&before.conditions, &now.conditions);
        }
        self.plan.warn_of_missing(&self.was.conditions, &self.now.conditions);
    }

    fn finish(mut self) -> Plan {
        size::bound_restore(&mut self.now.conditions, &mut self.now.members, &mut self.now.run);
        let at_work = !self.kept_out && self.seen.jobs.iter().any(JobSeen::is_active);
        let end = self.was.run.completion_time.as_ref().map(|t| t.0);
        let rights = Rights {
            wanted: self.grant.take(),
            announced: &self.was.run.grants,
            at_work,
            refused: self.seen.refused_revoke.as_ref(),
            give_up: rbac::give_up(end, self.run.id.deleted, self.at),
        };
        match rights.settle(&mut self.plan) {
            Settled::Keep => {}
            Settled::Gone => self.now.run.grants.clear(),
            Settled::Announce(grant) => {
                // Everything else waits until this status is written.
                let mut announced = self.was.clone();
                announced.run.grants.push(grant);
                let status = Some(announced.document(&self.run.id.kind));
                return Plan { status, again: true, ..Plan::nothing() };
            }
        }
        // A session that is being deleted reports only what blocks its deletion.
        let silent = self.run.id.deleting
            && (refused::refused(&self.now.members).is_none() || self.plan.finalizer == Some(FinalizerChange::Remove));
        if !silent {
            self.warn_of_missing();
        }
        if !silent && self.now != *self.was {
            // Compared as documents: a field that the status of the kind does not have is no difference.
            let document = self.now.document(&self.run.id.kind);
            self.plan.status = Some(document).filter(|d| *d != self.was.document(&self.run.id.kind));
        }
        self.plan.release(&self.seen.jobs);
        workload_events::once(&mut self.plan, self.run.id.deleting);
        self.plan
    }
}
