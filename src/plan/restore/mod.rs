//! What happens next to a restore: the state machine of RestoreSession and RestoreBatch.
//!
//! One pass goes from the status as it stands (`was`) to the status as it shall
//! stand (`now`), and lists effects. Two rules keep a crash between any two
//! writes harmless. Intent before effect: an effect that scales a workload or
//! overwrites data is listed only if `was`, the written status, announces it.
//! Same name for the same step: an effect that is listed twice happens once.
//!
//! The order: repository and Secret are there; each target is there and a Job
//! can reach it; a preflight Job resolves every host's snapshots, which are
//! pinned; nobody else restores the same; claims that are to be made are made;
//! a member's workload is quiesced; its hosts are restored; the workload is
//! scaled back; the run ends. Whoever deletes, cancels or changes it goes another
//! way out, at any point.

mod bound;
mod ending;
mod extraneous;
mod find;
mod held;
mod host;
mod made;
mod member;
mod preflight;
mod quiesce;
mod report;
mod resume;
pub mod rivals;
mod rounds;
mod spots;
#[cfg(test)]
mod tests;
mod told;

pub use self::host::progress;
pub use self::rounds::Rounds;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::access::Access;
use super::conditions::{self, Health};
use super::gate::Gate;
use super::grants::{self, Grant, Rights, Settled};
use super::ground::{self, NoGround};
use super::jobs::{self, JobSeen};
use super::objects::JobFrame;
use super::observed::{Setup, Surroundings};
use super::run::{self, RestoreRun, RestoreState};
use super::systems::restic;
use super::target::{Reach, TargetSeen};
use super::{Event, FinalizerChange, Plan, adopt, duration, retry, size};
use crate::api::common::TargetRef;
use crate::api::restore_batch::{RestoreMember, RestoreMemberStatus};
use crate::api::restore_session::{HostPhase, MemberPhase, RestorePhase};
use crate::contract::restic::Step;
use crate::contract::{Class, Failure, Part, Task};
use crate::names::{condition, label, reason};
use crate::text::replicas;

/// Objects that are missing are looked for this often; nothing tells us when they appear.
const LOOK_FOR_MISSING: Duration = Duration::from_secs(3);
/// Pods of a workload that is scaled, and counters of running Jobs, are looked at this often.
const LOOK_AT_RUNNING: Duration = Duration::from_secs(1);
/// Progress is written to status at most this often.
const LOOK_AT_PROGRESS: Duration = Duration::from_secs(5);

/// What to do next about a restore.
pub fn next(run: &RestoreRun, seen: &Surroundings, setup: &Setup, now: Timestamp) -> Plan {
    let mut pass = Pass::new(run, seen, setup, now);
    if run.id.deleting {
        ending::leave(&mut pass);
    } else if run.is_over() {
        // A spec that is changed now changes nothing; who compares generations must not wait for ever.
        pass.now.observed_generation = run.id.generation;
        ending::stop_all(&mut pass);
        pass.release();
    } else if run.canceled {
        ending::cancel(&mut pass);
    } else if run.state.is_withdrawn() {
        ending::withdraw(&mut pass);
    } else if run.is_changed() {
        ending::abandon(&mut pass);
    } else {
        pass.step();
    }
    let plan = pass.finish();
    // The API server puts no finalizer on what is being deleted.
    // Nor does anybody else take it off a run that has rights in another namespace.
    // Nor off one whose workload is down: whoever replaces the object takes every finalizer off it.
    let stands =
        !run.state.run.grants.is_empty() || (!run.is_over() && run.state.members.iter().any(member::is_started));
    if run.id.held || run.id.deleting {
        return plan;
    }
    if leaves_something(&plan) {
        return Plan { finalizer: Some(FinalizerChange::Add), again: true, ..Plan::nothing() };
    }
    // What stands already waits for nothing: its finalizer goes with whatever else is to be written.
    let finalizer = plan.finalizer.or(stands.then_some(FinalizerChange::Add));
    Plan { finalizer, ..plan }
}

/// Whether a deletion would have to undo something of it. A preflight only reads, and goes with its owner.
fn leaves_something(plan: &Plan) -> bool {
    let made = !(plan.scales.is_empty() && plan.holds.is_empty() && plan.claims.is_empty() && plan.grants.is_empty());
    made || !plan.jobs.iter().all(jobs::is_preflight)
}

/// What new Jobs stand on.
struct Ground {
    frame: JobFrame,
    access: Access,
}

/// One pass over one run.
struct Pass<'a> {
    run: &'a RestoreRun,
    seen: &'a Surroundings,
    setup: &'a Setup,
    /// The clock, as an argument.
    at: Timestamp,
    /// Status as written: effects may rely on it.
    was: &'a RestoreState,
    /// Status as it shall be.
    now: RestoreState,
    /// The deadline has passed.
    expired: bool,
    /// How to reach each host, by member and host name; filled for targets that are there.
    reaches: BTreeMap<(usize, String), Reach>,
    /// To its Repository.
    gate: Gate,
    /// What new Jobs need to read the Secret of another namespace.
    grant: Option<Grant>,
    /// Its Repository may not be used any more, so that rights go before its Jobs do.
    kept_out: bool,
    plan: Plan,
}

impl<'a> Pass<'a> {
    fn new(run: &'a RestoreRun, seen: &'a Surroundings, setup: &'a Setup, now: Timestamp) -> Self {
        Self {
            run,
            seen,
            setup,
            at: now,
            was: &run.state,
            // What was not valid has begun nothing, so a changed one begins anew.
            now: if run.state.is_final() && !run.is_over() { run.state.anew() } else { run.state.clone() },
            expired: false,
            reaches: BTreeMap::new(),
            gate: Gate::of(&seen.repository, &ground::display(run.repository.as_ref(), &run.id.namespace), seen.room),
            grant: None,
            kept_out: false,
            plan: Plan::nothing(),
        }
    }

    fn step(&mut self) {
        self.begin();
        let longest = self.setup.max_timeout;
        let of_member = |(i, m): (usize, &RestoreMember)| {
            run::too_long(&format!("spec.members[{i}].timeOut"), m.time_out.as_deref(), longest)
        };
        let too_long = || {
            let own = run::too_long("spec.timeOut", self.run.time_out.as_deref(), longest);
            // What began before there was a limit ends within it.
            own.or_else(|| self.run.members.iter().enumerate().find_map(of_member)).filter(|_| !self.has_begun())
        };
        if let Some(refusal) = &self.seen.refusal.clone().or_else(too_long) {
            if refusal.reason == reason::REPOSITORY_NOT_ALLOWED {
                // Of the BackupBatch that it names.
                let (list, text) = (&mut self.now.conditions, refusal.message.as_str());
                conditions::set(list, condition::REPOSITORY_FOUND, false, &refusal.reason, text, self.at);
                return self.keep_out(&Failure::new(Class::Invalid, &refusal.reason, text));
            }
            self.now.phase = Some(RestorePhase::Invalid);
            let text = &refusal.message;
            // Said of another spec.
            self.now.conditions.retain(|c| c.type_ != condition::REPOSITORY_FOUND);
            conditions::set(
                &mut self.now.conditions,
                condition::VALIDATION_PASSED,
                false,
                reason::VALIDATION_FAILED,
                text,
                self.at,
            );
            self.end_with(RestorePhase::Invalid, &refusal.reason.clone(), &refusal.message.clone());
            return;
        }
        let namespace = &self.run.id.namespace;
        if let Some(source) = self.run.untaken() {
            if self.was.is_denied() {
                // It may take them now.
                self.now.conditions.retain(|c| c.type_ != condition::REPOSITORY_FOUND);
            }
            find::members(self, &adopt::display(source, namespace));
            return;
        }
        let ground = ground::check(
            self.run.repository.as_ref(),
            namespace,
            &self.seen.repository,
            &mut self.now.conditions,
            self.at,
        );
        let ground = ground::with_defaults(ground, &self.seen.job_defaults);
        if let Err(NoGround::Denied(failure)) = &ground {
            return self.keep_out(&failure.clone());
        }
        find::targets(self);
        let ground = match ground {
            Ok(access) => {
                self.plan.renew(&self.seen.jobs, &self.seen.defaults());
                Ok(self.stand_on(access))
            }
            Err(NoGround::Refused(failure)) if !self.now.members.iter().any(member::is_started) => {
                self.end_with(RestorePhase::Invalid, &failure.reason, &failure.message);
                return;
            }
            Err(NoGround::Refused(failure)) => Err(failure.message),
            Err(NoGround::Denied(Failure { message: waiting, .. }) | NoGround::Waiting(waiting)) => {
                self.plan.look_again(LOOK_FOR_MISSING);
                Err(waiting)
            }
        };
        if bound::refuse(self) {
            return;
        }
        preflight::advance(self, ground.as_ref().ok());
        if bound::refuse(self) {
            // Its Jobs are stopped once this is written.
            self.plan.jobs.clear();
            return;
        }
        member::advance(self, ground.as_ref().map_err(String::as_str));
        report::conclude(self);
    }

    /// Starts the clock and gives every member its entry.
    fn begin(&mut self) {
        self.now.observed_generation = self.run.id.generation;
        let start = self.now.run.start_time.get_or_insert_with(|| conditions::whole_second(self.at)).0;
        self.now.run.id.clone_from(&self.run.id.uid);
        self.now.run.spec_hash.get_or_insert_with(|| self.run.spec_hash.clone());
        let asked = self.run.time_out.as_deref().and_then(|t| duration::parse(t).ok());
        // One that is longer is refused below; this is for what was stored before there was a limit.
        let limit = asked.unwrap_or(self.setup.default_timeout).min(self.setup.max_timeout);
        let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
        let deadline =
            self.now.deadline.get_or_insert_with(|| Time(start.checked_add(limit).unwrap_or(Timestamp::MAX))).0;
        self.expired = self.at >= deadline;
        if let Some(left) = retry::left(deadline, self.at) {
            self.plan.look_again(left);
        }
        self.enlist();
    }

    fn enlist(&mut self) {
        self.now.members.resize_with(self.run.members.len(), RestoreMemberStatus::default);
        for (status, member) in self.now.members.iter_mut().zip(&self.run.members) {
            let target = member.target.clone().unwrap_or_default();
            status.ref_ = target.ref_.unwrap_or_default();
            status.alias = target.alias;
            status.phase.get_or_insert(MemberPhase::Pending);
        }
    }

    /// Whether it says that anything was begun. To have waited for its Repository is no beginning, nor is a Job that
    /// has not been read: anybody in its namespace can make one.
    fn has_begun(&self) -> bool {
        let tried = self.now.run.steps.iter().any(|s| s.done || s.attempt > 1);
        tried || self.now.members.iter().any(member::is_started)
    }

    /// The usagePolicy keeps a run out. Its Jobs and rights end at once. One that has not begun is called invalid, and
    /// follows when the policy changes; one that has is ended.
    fn keep_out(&mut self, failure: &Failure) {
        self.kept_out = true;
        ending::stop_all(self);
        if self.has_begun() {
            let text = format!("{} The run is being ended: its Jobs are stopped.", failure.message);
            report::say(self, Health::Reconciling, &failure.reason, &text);
            // What is scaled back comes when this is written.
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
            return self.end_with(RestorePhase::Failed, &failure.reason, &failure.message);
        }
        // Another spec may name another Repository.
        self.now.run.spec_hash = None;
        if !self.was.is_denied() {
            self.event(true, &failure.reason, &failure.message);
        }
        self.now.phase = Some(RestorePhase::Invalid);
        report::say(self, Health::Stalled, &failure.reason, &failure.message);
        self.plan.look_again(LOOK_FOR_MISSING);
    }

    /// What new Jobs stand on. They have the Secret mounted, or need a grant to read it.
    fn stand_on(&mut self, access: Access) -> Ground {
        let defaults = self.seen.defaults();
        let settings = self.run.members.iter().map(|m| m.runtime_settings.as_ref());
        self.grant =
            access.told.secret.as_ref().map(|secret| grants::to_read(&self.run.id, secret, settings, &defaults));
        Ground { frame: self.frame(&access), access }
    }

    fn frame(&self, access: &Access) -> JobFrame {
        let account = self.grant.as_ref().map(|g| g.status.name.clone());
        JobFrame::of(self.setup, &self.run.id, label::COMPONENT_RESTORE, access, account, self.seen.defaults())
    }

    fn task(&self, access: &Access, member: usize, step: Step, parts: Vec<Part>) -> Task {
        let spec = &self.run.members[member];
        let no_cache = spec.temp_dir.as_ref().and_then(|t| t.disable_caching);
        let interim = matches!(step, Step::Restore(_)) && spec.interim_volume_template.is_some();
        let (process, settings) =
            (restic::process(spec.runtime_settings.as_ref()), restic::settings(no_cache, interim));
        restic::task(self.run.id.told(), access, process, settings, step, parts)
    }

    fn seconds_left(&self) -> i64 {
        retry::seconds_left(self.now.deadline.as_ref(), self.at)
    }

    fn job(&self, key: &str, attempt: i32) -> Option<&'a JobSeen> {
        self.seen.jobs.iter().find(|j| j.key == key && j.attempt == attempt)
    }

    fn event(&mut self, warning: bool, reason: &str, message: &str) {
        self.plan.events.push(Event::new(warning, reason, message));
    }

    /// Ends the run in this phase.
    fn end_with(&mut self, phase: RestorePhase, reason: &str, message: &str) {
        report::end(self, phase, reason, message);
    }

    /// Takes the finalizer off a run that is over, after its rights are taken back.
    fn release(&mut self) {
        self.kept_out = true;
        if self.run.id.held || (self.run.id.deleting && self.run.id.held_by_stash) {
            self.plan.finalizer = Some(FinalizerChange::Remove);
        }
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
            give_up: grants::give_up(end, self.run.id.deleted, self.at),
        };
        match rights.settle(&mut self.plan) {
            Settled::Keep => {}
            Settled::Gone => self.now.run.grants.clear(),
            Settled::Announce(grant) => {
                // All else waits until that is written.
                let mut announced = self.was.clone();
                announced.run.grants.push(grant);
                let status = Some(announced.document(&self.run.id.kind));
                return Plan { status, again: true, ..Plan::nothing() };
            }
        }
        // One that is being deleted says only what keeps it.
        let silent = self.run.id.deleting
            && (resume::refused(&self.now.members).is_none() || self.plan.finalizer == Some(FinalizerChange::Remove));
        if !silent {
            self.warn_of_missing();
        }
        if !silent && self.now != *self.was {
            // As documents: what a kind's status does not hold is no difference.
            let document = self.now.document(&self.run.id.kind);
            self.plan.status = Some(document).filter(|d| *d != self.was.document(&self.run.id.kind));
        }
        self.plan.release(&self.seen.jobs);
        told::once(&mut self.plan, self.run.id.deleting);
        self.plan
    }
}

/// What the data mover is told of a member's settings.
/// How messages name a target: `Deployment/web`, which kubectl takes as well.
pub fn display(target: &TargetRef) -> String {
    format!("{}/{}", target.kind.as_deref().unwrap_or_default(), target.name.as_deref().unwrap_or_default())
}

/// Whether a host will not change any more.
fn is_over(phase: Option<HostPhase>) -> bool {
    matches!(phase, Some(HostPhase::Succeeded | HostPhase::Failed))
}

/// Whether a member will not change any more.
fn member_is_over(phase: Option<MemberPhase>) -> bool {
    matches!(phase, Some(MemberPhase::Succeeded | MemberPhase::Failed | MemberPhase::Skipped))
}

/// The target of a member as it was found.
fn target_of(seen: &Surroundings, member: usize) -> Option<&super::target::Target> {
    match seen.targets.get(member) {
        Some(TargetSeen::Found(t)) => Some(t),
        _ => None,
    }
}
