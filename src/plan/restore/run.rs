//! A restore as the plan sees it: a RestoreSession is a batch with one member.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource as _;
use serde_json::{Value, json};

use crate::api::common::{Driver, OnFailure, RepositoryRef, TargetRef};
use crate::api::restore_batch::{Adopted, BackupBatchRef, RestoreBatchStatus, RestoreMember, RestoreMemberStatus};
use crate::api::restore_session::{MemberPhase, RestorePhase, RestoreSessionStatus, RunStatus};
use crate::api::{Condition, RestoreBatch, RestoreSession, to_json};
use crate::names::{condition, hash_of, reason};
use crate::plan::restore::from_backup_batch;
use crate::plan::restore::rounds::Rounds;
use crate::plan::restore::status::is_final;
use crate::plan::run::conditions::order;
use crate::plan::run::limits::is_sequential;
use crate::plan::run::selection::Selection;
use crate::plan::seen::identity::Identity;
use crate::plan::systems;
use crate::plan::systems::system::System;

/// A restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreRun {
    /// The session.
    pub id: Identity,
    /// Where the data comes from.
    pub repository: Option<RepositoryRef>,
    /// Driver of members that do not set one.
    pub driver: Driver,
    /// Its members. Empty while they still have to be taken from `source`.
    pub members: Vec<RestoreMember>,
    /// BackupBatch that names the members.
    pub source: Option<BackupBatchRef>,
    /// Which backup is restored, if the rules do not say so.
    pub selection: Selection,
    /// The run is to end, or is ending already, because it was canceled.
    pub canceled: bool,
    /// Hash of the spec, as written, that the run is planned from.
    pub spec_hash: String,
    /// Members run one after another.
    pub sequential: bool,
    /// Members after a failed one are not started.
    pub stop: bool,
    /// Longest time the run may take, as written.
    pub time_out: Option<String>,
    /// State of the run, as last written.
    pub state: RestoreState,
    /// What the current reconcile has done in earlier rounds.
    pub rounds: Rounds,
}

impl RestoreRun {
    /// Sets the hash of the spec, as written, that the run is planned from.
    fn hashed(mut self) -> Self {
        let order = if self.sequential { "sequential" } else { "parallel" };
        // Runs of a version that had only one driver do not have the driver in their hash.
        let order = if self.driver == Driver::Restic { order.to_owned() } else { format!("{order} {:?}", self.driver) };
        let what = [to_json(&self.repository), to_json(&self.members), to_json(&self.source)];
        let select =
            [self.selection.as_of.as_deref(), self.selection.session.as_deref()].map(Option::unwrap_or_default);
        let stop = if self.stop { "stop" } else { "continue" };
        self.spec_hash = hash_of(&[&json!(what).to_string(), &order, stop, select[0], select[1]]);
        self
    }

    /// Driver of a member.
    pub fn driver(&self, member: usize) -> Driver {
        self.members.get(member).and_then(|m| m.driver).unwrap_or(self.driver)
    }

    /// The system of a member; `None` if its driver is only declared.
    pub fn system(&self, member: usize) -> Option<&'static dyn System> {
        systems::of(self.driver(member), self.members.get(member).and_then(|m| m.target.as_ref()))
    }

    /// Keys of the slots that its Jobs take besides those on its Repository, see
    /// [`System::slot`](crate::plan::systems::system::System::slot).
    pub fn slots(&self) -> Vec<String> {
        let of = |(i, member): (usize, &RestoreMember)| self.system(i)?.slot(member.target.as_ref()?);
        let mut slots: Vec<String> = self.members.iter().enumerate().filter_map(of).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// What was taken from the BackupBatch that the spec names.
    fn taken(&self) -> Option<&Adopted> {
        self.state.adopted.as_ref().filter(|a| self.source.as_ref() == Some(&a.from))
    }

    /// The BackupBatch whose members are still to be taken.
    pub fn untaken(&self) -> Option<&BackupBatchRef> {
        self.source.as_ref().filter(|_| self.taken().is_none())
    }

    /// Uses what was taken from the BackupBatch when the run began, whatever the BackupBatch says now.
    fn adopted(mut self) -> Self {
        if let Some(adopted) = self.taken().cloned() {
            self.repository = self.repository.or(adopted.repository);
            self.members = adopted.members;
        }
        self
    }

    /// Whether the spec differs from the one that the run began with. The webhook refuses such a change. Without the
    /// webhook, what was pinned and scaled belongs to a plan that can no longer be looked up.
    pub fn is_changed(&self) -> bool {
        !self.state.is_final() && self.state.run.spec_hash.as_ref().is_some_and(|h| *h != self.spec_hash)
    }

    /// The target of each member: as written, or, if a workload was scaled down, that workload.
    pub fn targets(&self) -> Vec<Option<TargetRef>> {
        let written = |m: &RestoreMember| m.target.as_ref().and_then(|t| t.ref_.clone());
        let scaled = |s: &RestoreMemberStatus| s.quiesce.as_ref().map(|q| q.ref_.clone());
        let count = self.members.len().max(self.state.members.len());
        (0..count)
            .map(|i| self.state.members.get(i).and_then(scaled).or_else(|| self.members.get(i).and_then(written)))
            .collect()
    }
}

/// State of a restore.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RestoreState {
    /// Generation that was last reconciled.
    pub observed_generation: Option<i64>,
    /// Phase.
    pub phase: Option<RestorePhase>,
    /// One line for users.
    pub summary: Option<String>,
    /// How long it took.
    pub duration: Option<String>,
    /// Time at which the run fails if it has not ended.
    pub deadline: Option<Time>,
    /// What was observed of the run.
    pub conditions: Vec<Condition>,
    /// Each member.
    pub members: Vec<RestoreMemberStatus>,
    /// What was taken from a BackupBatch.
    pub adopted: Option<Adopted>,
    /// What the operator keeps track of.
    pub run: RunStatus,
}

/// Condition types that belong to a member; a RestoreSession keeps them in one list with its own.
const MEMBER_CONDITIONS: [&str; 7] = [
    condition::RESTORE_TARGET_FOUND,
    condition::CLAIMS_CREATED,
    condition::SNAPSHOTS_PINNED,
    condition::QUIESCED,
    condition::SCALED_BACK,
    condition::RESTORE_EXECUTOR_ENSURED,
    condition::RESTORE_JOB_CREATED,
];

impl RestoreRun {
    /// The run of a RestoreSession whose spec was defaulted.
    pub fn of_session(object: &RestoreSession) -> Self {
        let s = object.spec.clone();
        let member = RestoreMember {
            driver: None,
            target: s.target,
            task: s.task,
            runtime_settings: s.runtime_settings,
            temp_dir: s.temp_dir,
            interim_volume_template: s.interim_volume_template,
            hooks: s.hooks,
            // The timeout of the session is the timeout of the run.
            time_out: None,
            rules: s.rules,
        };
        let id = Identity::of(object);
        let state = RestoreState::of_session(object.status.clone().unwrap_or_default());
        Self {
            repository: s.repository,
            driver: s.driver,
            members: vec![member],
            source: None,
            selection: Selection::of(s.as_of, s.backup_session, &id.namespace),
            canceled: s.cancel == Some(true) || state.is_being_canceled(),
            spec_hash: String::new(),
            sequential: false,
            stop: true,
            time_out: s.time_out,
            state,
            rounds: Rounds::default(),
            id,
        }
        .hashed()
    }

    /// The run of a RestoreBatch whose spec was defaulted.
    pub fn of_batch(object: &RestoreBatch) -> Self {
        let spec = object.spec.clone();
        let sequential = is_sequential(spec.execution_order, spec.maintain_order);
        let id = Identity::of(object);
        let state = RestoreState::of_batch(object.status.clone().unwrap_or_default());
        let home =
            spec.backup_batch.as_ref().map_or(id.namespace.as_str(), |b| from_backup_batch::home(b, &id.namespace));
        Self {
            repository: spec.repository,
            driver: spec.driver,
            members: spec.members,
            selection: Selection::of(spec.as_of, spec.backup_session, home),
            source: spec.backup_batch,
            canceled: spec.cancel == Some(true) || state.is_being_canceled(),
            spec_hash: String::new(),
            sequential,
            stop: spec.on_failure != Some(OnFailure::Continue),
            time_out: spec.time_out,
            state,
            rounds: Rounds::default(),
            id,
        }
        .hashed()
        .adopted()
    }
}

impl RestoreRun {
    /// Whether the run is being ended early: deleted, canceled, withdrawn or changed.
    pub fn is_leaving(&self) -> bool {
        self.id.deleting || self.canceled || self.state.is_withdrawn() || self.is_changed()
    }

    /// Whether nothing more is to be done. An invalid object that was changed is reconciled again.
    pub fn is_over(&self) -> bool {
        let changed = self.state.observed_generation != self.id.generation && !self.canceled;
        self.state.is_final() && !(changed && self.state.phase == Some(RestorePhase::Invalid))
    }
}

impl RestoreState {
    fn of_session(status: RestoreSessionStatus) -> Self {
        let (member_conditions, conditions): (Vec<_>, Vec<_>) =
            status.conditions.into_iter().partition(|c| MEMBER_CONDITIONS.contains(&c.type_.as_str()));
        let phase = match status.phase {
            Some(RestorePhase::Succeeded) => MemberPhase::Succeeded,
            Some(RestorePhase::Failed) => MemberPhase::Failed,
            Some(RestorePhase::Running) => MemberPhase::Running,
            _ => MemberPhase::Pending,
        };
        let member = RestoreMemberStatus {
            conditions: member_conditions,
            total_hosts: status.total_hosts,
            phase: Some(phase),
            stats: status.stats,
            quiesce: status.quiesce,
            ..RestoreMemberStatus::default()
        };
        Self {
            observed_generation: status.observed_generation,
            phase: status.phase,
            summary: status.summary,
            duration: status.session_duration,
            deadline: status.session_deadline,
            conditions,
            members: vec![member],
            adopted: None,
            run: status.run.unwrap_or_default(),
        }
    }

    /// The state in the status of a RestoreBatch.
    pub fn of_batch(status: RestoreBatchStatus) -> Self {
        Self {
            observed_generation: status.observed_generation,
            phase: status.phase,
            summary: status.summary,
            duration: status.session_duration,
            deadline: status.session_deadline,
            conditions: status.conditions,
            members: status.members,
            adopted: status.adopted,
            run: status.run.unwrap_or_default(),
        }
    }

    /// The status document of a session of this kind.
    pub fn document(&self, kind: &str) -> Value {
        let s = self.clone();
        if kind == RestoreBatch::kind(&()) {
            return to_json(&RestoreBatchStatus {
                observed_generation: s.observed_generation,
                phase: s.phase,
                summary: s.summary,
                session_duration: s.duration,
                session_deadline: s.deadline,
                conditions: s.conditions,
                members: s.members,
                adopted: s.adopted,
                run: Some(s.run),
            });
        }
        let member = s.members.into_iter().next().unwrap_or_default();
        let mut conditions = s.conditions;
        conditions.extend(member.conditions);
        order(&mut conditions);
        to_json(&RestoreSessionStatus {
            observed_generation: s.observed_generation,
            phase: s.phase,
            summary: s.summary,
            total_hosts: member.total_hosts,
            session_duration: s.duration,
            session_deadline: s.deadline,
            stats: member.stats,
            conditions,
            quiesce: member.quiesce,
            run: Some(s.run),
        })
    }

    /// Whether the run is being ended because of a cancel, which cannot be undone.
    fn is_being_canceled(&self) -> bool {
        !self.is_final() && self.conditions.iter().any(|c| c.type_ == condition::CANCELED)
    }

    /// Whether the run is over.
    pub fn is_final(&self) -> bool {
        is_final(self.phase) && !self.is_denied()
    }

    /// Whether the usagePolicy of its Repository does not allow the run. The run goes on when that changes.
    pub fn is_denied(&self) -> bool {
        self.phase == Some(RestorePhase::Invalid) && self.is_not_allowed()
    }

    /// Whether the usagePolicy of its Repository changed during the run, so that the run is being ended. This cannot be
    /// undone.
    pub fn is_withdrawn(&self) -> bool {
        !is_final(self.phase) && self.is_not_allowed()
    }

    fn is_not_allowed(&self) -> bool {
        let of = |c: &&Condition| c.type_ == condition::REPOSITORY_FOUND;
        let why = self.conditions.iter().find(of).and_then(|c| c.reason.as_deref());
        why == Some(reason::REPOSITORY_NOT_ALLOWED)
    }

    /// The state of a run that starts again. Granted rights stay on the list until they are revoked.
    #[must_use]
    pub fn anew(&self) -> Self {
        let run = RunStatus { grants: self.run.grants.clone(), ..RunStatus::default() };
        Self { run, ..Self::default() }
    }
}
