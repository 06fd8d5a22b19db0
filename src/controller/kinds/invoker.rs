//! Reconciles BackupConfiguration and BackupBatch: their readiness, their schedule, their history.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::VolumeMount;
use k8s_openapi::jiff::Timestamp;
use kube::api::DeleteParams;
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt as _};
use serde_json::Value;
use tracing::info;

use super::context::Context;
use super::reconcile::{Error, measured};
use crate::admission::validate::identity;
use crate::api::backup_batch::{BackupBatchStatus, MemberConditions};
use crate::api::backup_configuration::BackupConfigurationStatus;
use crate::api::common::{InvokerIdentity, InvokerPhase, RepositoryRef, RetryConfig, ScheduleInForce};
use crate::api::target::BackupTarget;
use crate::api::{BackupBatch, BackupConfiguration, BackupSession, Condition, to_json};
use crate::controller::apply::{objects, sessions, status};
use crate::controller::cache::consumers;
use crate::controller::cache::informers::Reads;
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::observe::{jobs, targets as found, validity};
use crate::names::{MANAGER, condition};
use crate::plan::FinalizerChange;
use crate::plan::hosts::{HostSet, TargetKind};
use crate::plan::invoker::lateness::Record;
use crate::plan::invoker::{self, InvokerPlan, InvokerSeen, MemberSeen, SessionSeen};
use crate::plan::restore::display;
use crate::plan::run::Identity;
use crate::plan::{backup, conditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A kind that says what is backed up.
pub trait Invoker: UserKind + Resource<Scope = NamespaceResourceScope> {
    /// Where its data goes.
    fn reference(&self) -> Option<&RepositoryRef>;
    /// When it runs, and what is kept of it.
    fn timing(&self) -> Timing<'_>;
    /// What it backs up.
    fn targets(&self) -> Vec<Option<&BackupTarget>>;
    /// What its Jobs are made of, for each target.
    fn members(&self) -> Vec<MemberSeen<'_>>;
    /// Hosts of what it backs up.
    fn hosts(&self) -> Vec<HostSet>;
    /// What was last written about it; `None` when nobody has looked at it yet.
    fn written(&self) -> Option<Written>;
    /// Conditions of each target, as last written.
    fn target_conditions(&self) -> Vec<Vec<Condition>>;
    /// Its status document for a plan.
    fn status(&self, plan: &InvokerPlan) -> Value;
    /// Its status document as it stands.
    fn standing(&self) -> Value;
}

/// When an invoker runs, and what is kept of it.
pub struct Timing<'a> {
    schedule: Option<&'a str>,
    time_zone: Option<&'a str>,
    paused: bool,
    history_limit: i32,
    retry: Option<&'a RetryConfig>,
    /// Longest time of a session.
    pub time_out: Option<&'a str>,
}

/// What was last written about an invoker.
#[derive(Default)]
pub struct Written {
    /// Its phase.
    pub phase: Option<InvokerPhase>,
    /// Its own conditions.
    pub conditions: Vec<Condition>,
    last: Option<Time>,
    /// When the next scheduled session is due.
    pub next: Option<Time>,
    in_force: Option<ScheduleInForce>,
    /// What became of its backups.
    pub record: Record,
}

/// Completed sessions kept when nobody says how many (Stash's documented default).
const HISTORY: i32 = 1;

impl Invoker for BackupConfiguration {
    fn reference(&self) -> Option<&RepositoryRef> {
        self.spec.repository.as_ref()
    }
    fn timing(&self) -> Timing<'_> {
        Timing {
            schedule: self.spec.schedule.as_deref(),
            time_zone: self.spec.time_zone.as_deref(),
            paused: self.spec.paused.unwrap_or(false),
            history_limit: self.spec.backup_history_limit.unwrap_or(HISTORY),
            retry: self.spec.retry_config.as_ref(),
            time_out: self.spec.time_out.as_deref(),
        }
    }
    fn written(&self) -> Option<Written> {
        let status = self.status.clone()?;
        let own = status.conditions.into_iter().filter(|c| c.type_ != condition::BACKUP_TARGET_FOUND);
        Some(Written {
            phase: status.phase,
            conditions: own.collect(),
            last: status.last_schedule_time,
            next: status.next_schedule_time,
            in_force: status.schedule_in_force,
            record: Record { last: status.last_backup, success: status.last_success_time },
        })
    }
    fn status(&self, plan: &InvokerPlan) -> Value {
        to_json(&BackupConfigurationStatus {
            observed_generation: self.meta().generation,
            // One target: its conditions stand in the same list, as Stash has it.
            conditions: sorted(plan.conditions.iter().chain(plan.target_conditions.iter().flatten())),
            phase: Some(plan.phase),
            last_schedule_time: plan.last.clone(),
            next_schedule_time: plan.next.clone(),
            last_backup: plan.record.last.clone(),
            last_success_time: plan.record.success.clone(),
            schedule_in_force: plan.in_force.clone(),
            identity: accepted(
                plan,
                self.status.as_ref().and_then(|s| s.identity.as_ref()),
                identity::of(self.spec.repository.as_ref(), [self.spec.target.as_ref()]),
            ),
            // Until the first look that writes what stands in its place.
            target_hash: self.status.as_ref().and_then(|s| s.target_hash.clone()).filter(|_| !plan.has_ground),
        })
    }
    fn targets(&self) -> Vec<Option<&BackupTarget>> {
        vec![self.spec.target.as_ref()]
    }
    fn members(&self) -> Vec<MemberSeen<'_>> {
        let spec = &self.spec;
        vec![MemberSeen {
            mounts: mounts(spec.target.as_ref()),
            runtime: spec.runtime_settings.as_ref(),
            temp_dir: spec.temp_dir.as_ref(),
            interim: spec.interim_volume_template.as_ref(),
        }]
    }
    fn hosts(&self) -> Vec<HostSet> {
        hosts_of(self.spec.target.as_ref()).into_iter().collect()
    }
    fn target_conditions(&self) -> Vec<Vec<Condition>> {
        let all = self.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        vec![all.into_iter().filter(|c| c.type_ == condition::BACKUP_TARGET_FOUND).collect()]
    }
    fn standing(&self) -> Value {
        to_json(&self.status)
    }
}

/// What is fixed from now on: from the first time that backups of it could be taken, what was accepted last.
fn accepted(plan: &InvokerPlan, was: Option<&InvokerIdentity>, now: InvokerIdentity) -> Option<InvokerIdentity> {
    let counts = plan.has_ground || (was.is_some() && plan.phase != InvokerPhase::Invalid);
    if counts { Some(now) } else { was.cloned() }
}

fn mounts(target: Option<&BackupTarget>) -> &[VolumeMount] {
    target.map(|t| t.volume_mounts.as_slice()).unwrap_or_default()
}

fn hosts_of(target: Option<&BackupTarget>) -> Option<HostSet> {
    let target = target?;
    Some(HostSet::of(TargetKind::of(target.ref_.as_ref()), target.alias.as_deref()))
}

fn sorted<'a>(conditions: impl Iterator<Item = &'a Condition>) -> Vec<Condition> {
    let mut all: Vec<Condition> = conditions.cloned().collect();
    conditions::order(&mut all);
    all
}

impl Invoker for BackupBatch {
    fn reference(&self) -> Option<&RepositoryRef> {
        self.spec.repository.as_ref()
    }
    fn timing(&self) -> Timing<'_> {
        Timing {
            schedule: self.spec.schedule.as_deref(),
            time_zone: self.spec.time_zone.as_deref(),
            paused: self.spec.paused.unwrap_or(false),
            history_limit: self.spec.backup_history_limit.unwrap_or(HISTORY),
            retry: self.spec.retry_config.as_ref(),
            time_out: self.spec.time_out.as_deref(),
        }
    }
    fn written(&self) -> Option<Written> {
        let status = self.status.clone()?;
        Some(Written {
            phase: status.phase,
            conditions: status.conditions,
            last: status.last_schedule_time,
            next: status.next_schedule_time,
            in_force: status.schedule_in_force,
            record: Record { last: status.last_backup, success: status.last_success_time },
        })
    }
    fn status(&self, plan: &InvokerPlan) -> Value {
        to_json(&BackupBatchStatus {
            observed_generation: self.meta().generation,
            conditions: plan.conditions.clone(),
            member_conditions: self
                .targets()
                .into_iter()
                .zip(&plan.target_conditions)
                .map(|(target, conditions)| MemberConditions {
                    target: target.and_then(|t| t.ref_.clone()).unwrap_or_default(),
                    conditions: conditions.clone(),
                })
                .collect(),
            phase: Some(plan.phase),
            last_schedule_time: plan.last.clone(),
            next_schedule_time: plan.next.clone(),
            last_backup: plan.record.last.clone(),
            last_success_time: plan.record.success.clone(),
            schedule_in_force: plan.in_force.clone(),
            identity: accepted(
                plan,
                self.status.as_ref().and_then(|s| s.identity.as_ref()),
                identity::of(self.spec.repository.as_ref(), self.targets()),
            ),
        })
    }
    fn targets(&self) -> Vec<Option<&BackupTarget>> {
        self.spec.members.iter().map(|m| m.target.as_ref()).collect()
    }
    fn members(&self) -> Vec<MemberSeen<'_>> {
        let own = self.spec.runtime_settings.as_ref();
        let of_members = self.spec.members.iter().map(|m| MemberSeen {
            mounts: mounts(m.target.as_ref()),
            runtime: m.runtime_settings.as_ref().or(own),
            temp_dir: m.temp_dir.as_ref(),
            interim: m.interim_volume_template.as_ref(),
        });
        of_members.collect()
    }
    fn hosts(&self) -> Vec<HostSet> {
        self.spec.members.iter().filter_map(|m| hosts_of(m.target.as_ref())).collect()
    }
    fn target_conditions(&self) -> Vec<Vec<Condition>> {
        let all = self.status.as_ref().map(|s| s.member_conditions.clone()).unwrap_or_default();
        all.into_iter().map(|m| m.conditions).collect()
    }
    fn standing(&self) -> Value {
        to_json(&self.status)
    }
}

/// One look at an invoker.
///
/// # Errors
/// The API server could not be reached or refused a write; the look is repeated.
pub async fn reconcile<K: Invoker>(object: Arc<Stored<K>>, ctx: Arc<Context>) -> Result<Action, Error> {
    measured(&ctx, object.as_ref(), None, Box::pin(look(object.as_ref(), &ctx))).await
}

async fn look<K: Invoker>(stored: &Stored<K>, ctx: &Context) -> Result<Action, Error> {
    let _room = ctx.rooms.enter(stored, stored.size()).await?;
    let shown = &stored.open();
    if stored.meta().deletion_timestamp.is_some() {
        if Identity::of(shown).held_by_stash {
            let namespace = stored.namespace().unwrap_or_default();
            objects::finalizer(ctx, stored, &namespace, FinalizerChange::Remove).await?;
        }
        return Ok(Action::await_change());
    }
    let refusal = validity::judge(ctx, stored).await?;
    let (namespace, name, kind) = (stored.namespace().unwrap_or_default(), stored.name_any(), K::kind(&()));
    let of_us = |s: &Stored<BackupSession>| {
        s.namespace().as_deref() == Some(&namespace)
            && s.facts().invoker.as_ref().is_some_and(|i| i.kind == kind && i.name == name)
    };
    let refusal = consumers::refused(ctx, stored, refusal).await?;
    let of_us = ctx.users.backups.store.state_filter(of_us);
    let timing = shown.timing();
    let written = shown.written();
    let now = ctx.now();
    let targets = shown.targets();
    let looked = targets.iter().map(async |t| {
        let reference = t.and_then(|t| t.ref_.as_ref());
        (
            reference.map(display).unwrap_or_default(),
            found::target(Reads::watched(ctx, &namespace), None, reference).await,
        )
    });
    let is_new = written.is_none();
    let Written { conditions, last, in_force, record, .. } = written.unwrap_or_default();
    let seen = InvokerSeen {
        targets: join_all(looked).await,
        first_target: targets.first().and_then(|t| t.as_ref()?.ref_.as_ref()),
        members: shown.members(),
        pod_security: jobs::pod_security(ctx, &namespace).await?,
        job_defaults: jobs::job_defaults(ctx, &namespace).await?,
        target_conditions: shown.target_conditions(),
        id: Identity::of(shown),
        created: stored.creation_timestamp().map_or(now, |t| t.0),
        is_new,
        schedule: timing.schedule,
        time_zone: timing.time_zone,
        in_force,
        retry: timing.retry,
        paused: timing.paused,
        reference: shown.reference(),
        // Of one that cannot be read nobody knows how many it keeps.
        history_limit: if stored.is_whole() { timing.history_limit } else { i32::MAX },
        refusal,
        repository: jobs::repository(ctx, shown.reference(), &namespace, false).await,
        sessions: of_us.iter().map(|s| session_seen(s, now)).collect(),
        conditions,
        last,
        record,
    };
    let plan = invoker::next(&seen, now);
    if let Some(new) = &plan.create {
        sessions::create(ctx, new).await?;
    }
    let status = Invoker::status(shown, &plan);
    if status != shown.standing() {
        status::write_status(ctx, stored, MANAGER, &status, true).await?;
    }
    for event in &plan.events {
        status::publish(ctx, stored, event).await;
    }
    // What they came to stands in status by now.
    let api: Api<BackupSession> = Api::namespaced(ctx.client.clone(), &namespace);
    for old in &plan.delete {
        match api.delete(old, &DeleteParams::background()).await {
            Ok(_) => info!(namespace, session = old, "removed a session beyond backupHistoryLimit"),
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(plan.requeue.map_or_else(Action::await_change, |r| Action::requeue(r + Duration::from_millis(50))))
}

fn session_seen(session: &Stored<BackupSession>, now: Timestamp) -> SessionSeen {
    let status = session.open().status.unwrap_or_default();
    let ready = status.conditions.iter().find(|c| c.type_ == condition::READY);
    SessionSeen {
        name: session.name_any(),
        created: session.creation_timestamp().map_or(now, |t| t.0),
        ended: status.run.as_ref().and_then(|r| r.completion_time.as_ref()).map(|t| t.0),
        by_hand: session.facts().by_hand,
        phase: status.phase,
        reason: ready.and_then(|c| c.reason.clone()),
        has_retry_due: backup::has_retry_due(&status),
    }
}
