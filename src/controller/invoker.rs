//! Reconciles BackupConfiguration and BackupBatch: their readiness, their schedule, their history.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kube::api::{DeleteParams, PostParams};
use kube::core::{NamespaceResourceScope, ObjectMeta};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::info;

use super::context::Context;
use super::metrics::Reconciled;
use super::users::User;
use super::{Error, observe, report, validity};
use crate::api::backup_batch::{BackupBatchStatus, MemberConditions};
use crate::api::backup_configuration::BackupConfigurationStatus;
use crate::api::backup_session::{BackupSessionSpec, InvokerRef};
use crate::api::common::{RepositoryRef, TargetRef};
use crate::api::target::BackupTarget;
use crate::api::{BackupBatch, BackupConfiguration, BackupSession, Condition, to_json};
use crate::names::{GROUP, MANAGER, condition, label};
use crate::plan::hosts::{HostSet, TargetKind};
use crate::plan::invoker::{self, InvokerPlan, InvokerSeen, SessionSeen};
use crate::plan::restore::display;
use crate::plan::run::Identity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A kind that says what is backed up.
pub trait Invoker:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Where its data goes.
    fn reference(&self) -> Option<&RepositoryRef>;
    /// Its schedule, unless it is paused: schedule, paused, history limit.
    fn timing(&self) -> (Option<&str>, bool, i32);
    /// What it backs up.
    fn targets(&self) -> Vec<Option<&TargetRef>>;
    /// Hosts of what it backs up.
    fn hosts(&self) -> Vec<HostSet>;
    /// Conditions and last scheduled time, as last written.
    fn written(&self) -> (Vec<Condition>, Option<Time>);
    /// Conditions of each target, as last written.
    fn target_conditions(&self) -> Vec<Vec<Condition>>;
    /// Its status document for a plan.
    fn status(&self, plan: &InvokerPlan) -> Value;
    /// Its status document as it stands.
    fn standing(&self) -> Value;
}

/// Completed sessions kept when nobody says how many (Stash's documented default).
const HISTORY: i32 = 1;

impl Invoker for BackupConfiguration {
    fn reference(&self) -> Option<&RepositoryRef> {
        self.spec.repository.as_ref()
    }
    fn timing(&self) -> (Option<&str>, bool, i32) {
        (
            self.spec.schedule.as_deref(),
            self.spec.paused.unwrap_or(false),
            self.spec.backup_history_limit.unwrap_or(HISTORY),
        )
    }
    fn written(&self) -> (Vec<Condition>, Option<Time>) {
        let status = self.status.clone().unwrap_or_default();
        let own = status.conditions.into_iter().filter(|c| c.type_ != condition::BACKUP_TARGET_FOUND);
        (own.collect(), status.last_schedule_time)
    }
    fn status(&self, plan: &InvokerPlan) -> Value {
        to_json(&BackupConfigurationStatus {
            observed_generation: self.meta().generation,
            // One target: its conditions stand in the same list, as Stash has it.
            conditions: sorted(plan.conditions.iter().chain(plan.target_conditions.iter().flatten())),
            phase: Some(plan.phase),
            last_schedule_time: plan.last.clone(),
            next_schedule_time: plan.next.clone(),
        })
    }
    fn targets(&self) -> Vec<Option<&TargetRef>> {
        vec![self.spec.target.as_ref().and_then(|t| t.ref_.as_ref())]
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

fn hosts_of(target: Option<&BackupTarget>) -> Option<HostSet> {
    let target = target?;
    Some(HostSet::of(TargetKind::of(target.ref_.as_ref()), target.alias.as_deref()))
}

fn sorted<'a>(conditions: impl Iterator<Item = &'a Condition>) -> Vec<Condition> {
    let mut all: Vec<Condition> = conditions.cloned().collect();
    all.sort_by(|a, b| a.type_.cmp(&b.type_));
    all
}

impl Invoker for BackupBatch {
    fn reference(&self) -> Option<&RepositoryRef> {
        self.spec.repository.as_ref()
    }
    fn timing(&self) -> (Option<&str>, bool, i32) {
        (
            self.spec.schedule.as_deref(),
            self.spec.paused.unwrap_or(false),
            self.spec.backup_history_limit.unwrap_or(HISTORY),
        )
    }
    fn written(&self) -> (Vec<Condition>, Option<Time>) {
        self.status.as_ref().map(|s| (s.conditions.clone(), s.last_schedule_time.clone())).unwrap_or_default()
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
                    target: target.cloned().unwrap_or_default(),
                    conditions: conditions.clone(),
                })
                .collect(),
            phase: Some(plan.phase),
            last_schedule_time: plan.last.clone(),
            next_schedule_time: plan.next.clone(),
        })
    }
    fn targets(&self) -> Vec<Option<&TargetRef>> {
        self.spec.members.iter().map(|m| m.target.as_ref().and_then(|t| t.ref_.as_ref())).collect()
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
pub async fn reconcile<K: Invoker + User>(object: Arc<K>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.filled().await;
    let measured = ctx.metrics.reconcile(&K::kind(&()));
    let result = look(object.as_ref(), &ctx).await;
    measured.end(if result.is_ok() { Reconciled::Done } else { Reconciled::Failed });
    result
}

async fn look<K: Invoker + User>(object: &K, ctx: &Context) -> Result<Action, Error> {
    if object.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (defaulted, refusal) = validity::examine(object);
    let shown = defaulted.as_ref().unwrap_or(object);
    let (namespace, name, kind) = (object.namespace().unwrap_or_default(), object.name_any(), K::kind(&()));
    let of_us = |s: &BackupSession| {
        s.namespace().as_deref() == Some(&namespace)
            && s.spec.invoker.as_ref().is_some_and(|i| i.kind == kind && i.name == name)
    };
    let refusal = refusal.or_else(|| ctx.users.rivalry(shown));
    let sessions = ctx.users.backups.state_filter(of_us);
    let (schedule, paused, history_limit) = shown.timing();
    let (conditions, last) = object.written();
    let now = ctx.now();
    let targets = shown
        .targets()
        .into_iter()
        .map(async |t| (t.map(display).unwrap_or_default(), observe::target(ctx, &namespace, t).await));
    let seen = InvokerSeen {
        targets: join_all(targets).await,
        target_conditions: object.target_conditions(),
        namespace: &namespace,
        name: &name,
        generation: object.meta().generation,
        created: object.creation_timestamp().map_or(now, |t| t.0),
        schedule,
        paused,
        reference: shown.reference(),
        history_limit,
        refusal,
        repository: observe::repository(ctx, shown.reference(), &namespace).await,
        sessions: sessions
            .iter()
            .map(|s| SessionSeen {
                name: s.name_any(),
                created: s.creation_timestamp().map_or(now, |t| t.0),
                phase: s.status.as_ref().and_then(|s| s.phase),
            })
            .collect(),
        conditions,
        last,
    };
    let plan = invoker::next(&seen, now);
    let api: Api<BackupSession> = Api::namespaced(ctx.client.clone(), &namespace);
    if let Some(session) = &plan.create {
        create(&api, object, session).await?;
    }
    for old in &plan.delete {
        match api.delete(old, &DeleteParams::background()).await {
            Ok(_) => info!(namespace, session = old, "removed a session beyond backupHistoryLimit"),
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
    }
    let status = object.status(&plan);
    if status != object.standing() {
        report::write_status(ctx, object, MANAGER, &status, true).await?;
    }
    Ok(plan.requeue.map_or_else(Action::await_change, |r| Action::requeue(r + Duration::from_millis(50))))
}

/// Creates the session of a scheduled time; its name says which, so a second create changes nothing.
async fn create<K: Invoker>(api: &Api<BackupSession>, object: &K, name: &str) -> kube::Result<()> {
    let id = Identity::of(object);
    let invoker = InvokerRef { api_group: Some(GROUP.into()), kind: id.kind.clone(), name: id.name.clone() };
    let session = BackupSession {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(
                [
                    (label::MANAGED_BY, label::MANAGED_BY_VALUE),
                    (label::COMPONENT, label::COMPONENT_BACKUP),
                    (label::INVOKER_TYPE, &id.kind),
                ]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into_iter()
                .chain((id.name.len() <= 63).then(|| (label::INVOKER_NAME.to_owned(), id.name.clone())))
                .collect(),
            ),
            owner_references: Some(vec![id.owner()]),
            ..ObjectMeta::default()
        },
        spec: BackupSessionSpec { invoker: Some(invoker), retry_left: None },
        status: None,
    };
    match api.create(&PostParams::default(), &session).await {
        Ok(_) => {
            info!(namespace = id.namespace, session = name, invoker = id.name, "a scheduled backup is due");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(e) => Err(e),
    }
}
