//! One pass over one restore: what it reads, the status it is about to write, and the effects it plans.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::common::{Ownership, Rule};
use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::MemberPhase;
use crate::api::target::RestoreTarget;
use crate::contract::{Part, Task, Work};
use crate::names::label;
use crate::plan::effects::{Event, FinalizerChange, Grant, Plan};
use crate::plan::repository::preconditions;
use crate::plan::repository::slots::Gate;
use crate::plan::restore::run::{RestoreRun, RestoreState};
use crate::plan::restore::status;
use crate::plan::run::hosts::rule_for;
use crate::plan::run::{conditions, duration};
use crate::plan::seen::job_status::JobSeen;
use crate::plan::seen::surroundings::Surroundings;
use crate::plan::seen::target::{Reach, TargetSeen};
use crate::plan::setup::Setup;
use crate::plan::systems::restic::backend::Access;
use crate::plan::systems::system::{Needing, Role, System};
use crate::plan::work::job_spec::frame::{JobFrame, JobParts, Needs};
use crate::plan::work::{process, retry};

/// The target of a member as it was found.
pub fn target_of(seen: &Surroundings, member: usize) -> Option<&crate::plan::seen::target::Target> {
    match seen.targets.get(member) {
        Some(TargetSeen::Found(t)) => Some(t),
        _ => None,
    }
}

/// What new Jobs need to be created.
pub struct Ground {
    frame: JobFrame,
    /// How they reach the Repository. `None` if no member uses one.
    access: Option<Access>,
    /// Why the Repository cannot be used now.
    missing: Option<String>,
}

/// What a new Job of a member needs to be created.
pub struct MemberGround<'g> {
    pub frame: Cow<'g, JobFrame>,
    pub access: Option<&'g Access>,
}

impl Ground {
    pub fn new(frame: JobFrame, access: Result<Option<Access>, String>) -> Self {
        let (access, missing) = access.map_or_else(|why| (None, Some(why)), |access| (access, None));
        Self { frame, access, missing }
    }

    /// Whether Jobs of a member can be created, or what is missing.
    pub fn for_member(&self, pass: &Pass<'_>, index: usize) -> Result<(), &str> {
        pass.system(index).and_then(|system| self.missing_for(system)).map_or(Ok(()), Err)
    }

    fn missing_for(&self, system: &dyn System) -> Option<&str> {
        self.missing.as_deref().filter(|_| system.uses_repository())
    }

    /// What Jobs of a member need to be created, or what is missing.
    pub fn of(&self, system: &dyn System, target: Option<&RestoreTarget>) -> Result<MemberGround<'_>, &str> {
        if let Some(why) = self.missing_for(system) {
            return Err(why);
        }
        if system.uses_repository() {
            return Ok(MemberGround { frame: Cow::Borrowed(&self.frame), access: self.access.as_ref() });
        }
        // Rights are granted only for the Secret of the Repository.
        let slot = target.and_then(|t| system.slot(t)).unwrap_or_default();
        let frame = JobFrame { repository: slot, account: None, ..self.frame.clone() };
        Ok(MemberGround { frame: Cow::Owned(frame), access: None })
    }
}

/// One pass over one run.
pub(super) struct Pass<'a> {
    pub run: &'a RestoreRun,
    pub seen: &'a Surroundings,
    pub setup: &'a Setup,
    /// The current time, passed as an argument.
    pub at: Timestamp,
    /// Status as written: effects may rely on it.
    pub was: &'a RestoreState,
    /// Status as it is to be written.
    pub now: RestoreState,
    /// The deadline has passed.
    pub expired: bool,
    /// How to reach each host, by member and host name. Filled for targets that exist.
    pub reaches: BTreeMap<(usize, String), Reach>,
    /// Gate to the Repository of the run.
    pub gate: Gate,
    /// Gates to everything else that its Jobs take slots of, by key.
    pub gates: BTreeMap<String, Gate>,
    /// What new Jobs need to read the Secret of another namespace.
    pub grant: Option<Grant>,
    /// The Repository may no longer be used, so rights are revoked before the Jobs are gone.
    pub kept_out: bool,
    pub plan: Plan,
}

/// Interval at which missing objects are looked up. The operator is not notified when they appear.
pub const LOOK_FOR_MISSING: Duration = Duration::from_secs(3);

/// Interval at which pods of a workload that is scaled, and counters of running Jobs, are read.
pub const LOOK_AT_RUNNING: Duration = Duration::from_secs(1);

/// Progress is written to status at most this often.
pub const LOOK_AT_PROGRESS: Duration = Duration::from_secs(5);

/// Whether the run's deadline has passed, or the member's own.
pub fn is_late(pass: &Pass<'_>, index: usize) -> bool {
    pass.expired || pass.now.members[index].deadline.as_ref().is_some_and(|d| pass.at >= d.0)
}

/// The parts that are specific to the restore Job of a host.
pub fn job_parts<'p>(pass: &Pass<'p>, index: usize, key: String, needs: Needs, reach: &Reach) -> JobParts<'p> {
    let member = &pass.run.members[index];
    JobParts {
        key,
        attempt: 1,
        // The Job locks nothing.
        deaths: 0,
        needs,
        runtime: member.runtime_settings.as_ref(),
        temp_dir: member.temp_dir.as_ref(),
        interim: member.interim_volume_template.as_deref(),
        unowned: member.target.as_ref().and_then(|t| t.ownership) == Some(Ownership::Ignore),
        reach: reach.clone(),
        seconds_left: 1,
    }
}

impl<'a> Pass<'a> {
    pub fn new(run: &'a RestoreRun, seen: &'a Surroundings, setup: &'a Setup, now: Timestamp) -> Self {
        Self {
            run,
            seen,
            setup,
            at: now,
            was: &run.state,
            // An invalid run has begun nothing, so it starts again when its spec is changed.
            now: if run.state.is_final() && !run.is_over() { run.state.anew() } else { run.state.clone() },
            expired: false,
            reaches: BTreeMap::new(),
            gate: Gate::of(
                &seen.repository,
                &preconditions::display(run.repository.as_ref(), &run.id.namespace),
                seen.room,
            ),
            gates: seen.rooms.iter().map(|(key, room)| (key.clone(), Gate::to(key, *room))).collect(),
            grant: None,
            kept_out: false,
            plan: Plan::nothing(),
        }
    }

    /// Sets the start time and the deadline, and gives every member its entry.
    pub fn begin(&mut self) {
        self.now.observed_generation = self.run.id.generation;
        let start = self.now.run.start_time.get_or_insert_with(|| conditions::whole_second(self.at)).0;
        self.now.run.id.clone_from(&self.run.id.uid);
        self.now.run.spec_hash.get_or_insert_with(|| self.run.spec_hash.clone());
        let asked = self.run.time_out.as_deref().and_then(|t| duration::parse(t).ok());
        // A longer timeout is refused below. The limit here is for sessions that were stored before there was a limit.
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

    pub fn enlist(&mut self) {
        self.now.members.resize_with(self.run.members.len(), RestoreMemberStatus::default);
        for (status, member) in self.now.members.iter_mut().zip(&self.run.members) {
            let target = member.target.clone().unwrap_or_default();
            status.ref_ = target.ref_.unwrap_or_default();
            status.alias = target.alias;
            status.phase.get_or_insert(MemberPhase::Pending);
        }
    }

    /// Whether status says that anything was begun. Waiting for the Repository does not count. A Job that was not read
    /// does not count either: any user of the namespace can create one.
    pub fn has_begun(&self) -> bool {
        let tried = self.now.run.steps.iter().any(|s| s.done || s.attempt > 1);
        tried || self.now.members.iter().any(status::is_started)
    }

    pub fn frame(&self) -> JobFrame {
        let account = self.grant.as_ref().map(|g| g.status.name.clone());
        let repository = preconditions::display(self.run.repository.as_ref(), &self.run.id.namespace);
        JobFrame::of(self.setup, &self.run.id, label::COMPONENT_RESTORE, &repository, account, self.seen.defaults())
    }

    /// The system of a member.
    pub fn system(&self, index: usize) -> Option<&'static dyn System> {
        self.run.system(index)
    }

    /// A Job of a member that is to be created.
    pub fn needing<'n>(
        &'n self,
        index: usize,
        target: &'n RestoreTarget,
        access: Option<&'n Access>,
        role: Role,
    ) -> Needing<'n> {
        Needing {
            member: &self.run.members[index],
            target,
            seen: target_of(self.seen, index),
            namespace: &self.run.id.namespace,
            access,
            addons: &self.setup.addons,
            role,
        }
    }

    /// What a member connects to besides the Repository.
    pub fn slot(&self, index: usize) -> Option<String> {
        self.system(index)?.slot(self.run.members.get(index)?.target.as_ref()?)
    }

    /// The gate whose slots the Jobs of a member take. `None` if it is not known yet.
    fn gate_of(&mut self, index: usize) -> (Option<&mut Gate>, &mut Plan) {
        let gate = match self.slot(index) {
            None => Some(&mut self.gate),
            Some(key) => self.gates.get_mut(&key),
        };
        (gate, &mut self.plan)
    }

    /// Whether Jobs of a member may be created now.
    pub fn is_open(&mut self, index: usize) -> bool {
        let (gate, plan) = self.gate_of(index);
        gate.is_none_or(|gate| gate.is_open(plan))
    }

    /// Takes the slot of one Job of a member. False if no slot is free.
    pub fn admit(&mut self, index: usize) -> bool {
        let (gate, plan) = self.gate_of(index);
        gate.is_none_or(|gate| gate.admit(plan))
    }

    /// Reason and text, if a Job got no slot in this pass.
    pub fn refusal(&self) -> Option<(&'static str, &str)> {
        std::iter::once(&self.gate).chain(self.gates.values()).find_map(Gate::refusal)
    }

    /// Whether any member uses the Repository.
    pub fn uses_repository(&self) -> bool {
        (0..self.run.members.len()).any(|index| self.system(index).is_some_and(System::uses_repository))
    }

    /// The parts of a member that is outside of the cluster. `None` if its target is in the cluster.
    pub fn parts_outside(&self, index: usize) -> Option<Vec<String>> {
        self.system(index)?.parts(self.run.members.get(index)?.target.as_ref()?)
    }

    /// The rule of a part.
    pub fn rule(&self, index: usize, part: &str) -> Option<&'a Rule> {
        rule_for(&self.run.members.get(index)?.target.as_ref()?.rules, part)
    }

    /// Whether anything is to be restored to a part: it has a rule, or is outside of the cluster, where no rule is
    /// needed.
    pub fn is_asked_for(&self, index: usize, part: &str) -> bool {
        self.rule(index, part).is_some() || self.parts_outside(index).is_some()
    }

    pub fn task(&self, member: usize, verb: &str, parts: Vec<Part>, work: Work) -> Task {
        let process = process::of(self.run.members[member].runtime_settings.as_ref());
        Task { process, ..Task::new(self.run.id.told(), verb, parts, work) }
    }

    pub fn seconds_left(&self) -> i64 {
        retry::seconds_left(self.now.deadline.as_ref(), self.at)
    }

    pub fn job(&self, key: &str, attempt: i32) -> Option<&'a JobSeen> {
        self.seen.jobs.iter().find(|j| j.key == key && j.attempt == attempt)
    }

    pub fn event(&mut self, warning: bool, reason: &str, message: &str) {
        self.plan.events.push(Event::new(warning, reason, message));
    }

    /// Removes the finalizer of a run that is over, after its rights are revoked.
    pub fn release(&mut self) {
        self.kept_out = true;
        if self.run.id.held || (self.run.id.deleting && self.run.id.held_by_stash) {
            self.plan.finalizer = Some(FinalizerChange::Remove);
        }
    }
}
