//! Reconciles BackupBlueprint, which the operator does not act on yet: it only reports this.
//!
//! BackupBlueprint is cluster-scoped, and has no Jobs and no plan. The operator writes only errors into its status.

use std::sync::Arc;

use crate::api::backup_blueprint::BackupBlueprintStatus;
use crate::api::common::InvokerPhase;
use crate::api::{BackupBlueprint, to_json};
use crate::controller::apply::status;
use crate::controller::cache::queue::Requeue;
use crate::controller::cache::stored::Stored;
use crate::controller::kinds::context::Context;
use crate::controller::kinds::reconcile::Error;
use crate::controller::observe::validity;
use crate::names::{condition, reason};
use crate::plan::run::conditions;
use crate::plan::run::conditions::Health;

/// Reconciles a blueprint once.
///
/// # Errors
/// The API server could not be reached or refused a write; the reconcile is retried.
pub async fn reconcile(stored: Arc<Stored<BackupBlueprint>>, ctx: Arc<Context>) -> Result<Requeue, Error> {
    let _room = ctx.large_objects.enter(&*stored, stored.size()).await?;
    let Some(refusal) = validity::judge(&ctx.reads.stores.verdicts, &stored).await? else {
        return Ok(Requeue::OnChange);
    };
    let object = stored.open();
    let mut list = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    conditions::set(
        &mut list,
        condition::VALIDATION_PASSED,
        false,
        reason::VALIDATION_FAILED,
        &refusal.message,
        ctx.now(),
    );
    conditions::set_health(&mut list, Health::Stalled, &refusal.reason, &refusal.message, ctx.now());
    let wanted = BackupBlueprintStatus {
        observed_generation: object.metadata.generation,
        phase: Some(InvokerPhase::Invalid),
        conditions: list,
    };
    if object.status.as_ref() != Some(&wanted) {
        status::write_in_cluster(&ctx.writes, &object, &to_json(&wanted)).await?;
    }
    Ok(Requeue::OnChange)
}
