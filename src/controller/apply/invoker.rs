//! The writes of a reconcile of an invoker: a session that is due, its status, and sessions beyond its history limit.
//!
//! The session is created before the status that reports it. Its scheduled time determines its name, so that a repeated
//! create makes no second session.

use std::time::Duration;

use kube::api::DeleteParams;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::Value;
use tracing::info;

use crate::admission::validate::identity;
use crate::api::backup_batch::{BackupBatchStatus, MemberConditions};
use crate::api::backup_configuration::BackupConfigurationStatus;
use crate::api::common::{InvokerIdentity, InvokerPhase};
use crate::api::{BackupBatch, BackupConfiguration, BackupSession, Condition, to_json};
use crate::controller::apply::writes::Writes;
use crate::controller::apply::{sessions, status};
use crate::controller::cache::invokers::Invoker;
use crate::controller::cache::stored::Stored;
use crate::plan::backup::invoker::seen::InvokerPlan;
use crate::plan::run::conditions;

/// A kind of invoker whose status can be written.
pub trait InvokerStatus: Invoker {
    /// The status document for a plan.
    fn status(&self, plan: &InvokerPlan) -> Value;
    /// The current status document.
    fn standing(&self) -> Value;
}

impl InvokerStatus for BackupConfiguration {
    fn status(&self, plan: &InvokerPlan) -> Value {
        to_json(&BackupConfigurationStatus {
            observed_generation: self.meta().generation,
            // One target: its conditions are in the same list, as in Stash.
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
            // Kept until the first reconcile that writes the field that replaces it.
            target_hash: self.status.as_ref().and_then(|s| s.target_hash.clone()).filter(|_| !plan.has_ground),
        })
    }
    fn standing(&self) -> Value {
        to_json(&self.status)
    }
}

impl InvokerStatus for BackupBatch {
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
    fn standing(&self) -> Value {
        to_json(&self.status)
    }
}

/// The identity that is fixed from now on: the identity that was accepted last, from the first time that backups of the
/// invoker could be taken.
fn accepted(plan: &InvokerPlan, was: Option<&InvokerIdentity>, now: InvokerIdentity) -> Option<InvokerIdentity> {
    let counts = plan.has_ground || (was.is_some() && plan.phase != InvokerPhase::Invalid);
    if counts { Some(now) } else { was.cloned() }
}

fn sorted<'a>(conditions: impl Iterator<Item = &'a Condition>) -> Vec<Condition> {
    let mut all: Vec<Condition> = conditions.cloned().collect();
    conditions::order(&mut all);
    all
}

/// Applies the plan of an invoker. `shown` is the stored object in its typed form. Returns when to reconcile again.
///
/// # Errors
/// The API server could not be reached, or refused a write.
pub async fn apply<K: InvokerStatus>(
    writes: &Writes,
    stored: &Stored<K>,
    shown: &K,
    plan: &InvokerPlan,
) -> kube::Result<Option<Duration>> {
    // Without `..`: a new field of the plan does not compile until it is handled here.
    let InvokerPlan {
        create,
        delete,
        events,
        requeue,
        // These are in the status document.
        phase: _,
        has_ground: _,
        conditions: _,
        target_conditions: _,
        last: _,
        next: _,
        in_force: _,
        record: _,
    } = plan;
    let namespace = stored.namespace().unwrap_or_default();
    if let Some(new) = create {
        sessions::create(writes, new).await?;
    }
    let document = InvokerStatus::status(shown, plan);
    if document != shown.standing() {
        status::write_status(writes, stored, &document).await?;
    }
    for event in events {
        status::publish(writes, stored, event).await;
    }
    // The status already contains the results of these sessions.
    let api: Api<BackupSession> = Api::namespaced(writes.client.clone(), &namespace);
    for old in delete {
        match api.delete(old, &DeleteParams::background()).await {
            Ok(_) => info!(namespace, session = old, "removed a session beyond backupHistoryLimit"),
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(*requeue)
}
