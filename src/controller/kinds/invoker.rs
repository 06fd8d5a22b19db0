//! Reconciles BackupConfiguration and BackupBatch: their readiness, their schedule, their history.
//!
//! Their plan has its own type, so they do not use the loop of [`super::reconcile`]: one reconcile is one round.
//! This module makes no decisions.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;

use crate::controller::apply::invoker::InvokerStatus;
use crate::controller::apply::{invoker as apply, objects};
use crate::controller::cache::queue::Requeue;
use crate::controller::cache::stored::Stored;
use crate::controller::kinds::context::Context;
use crate::controller::kinds::reconcile::{Error, measured};
use crate::controller::observe::invoker as observe;
use crate::plan::backup::invoker;
use crate::plan::effects::FinalizerChange;
use crate::plan::seen::identity::Identity;

/// Reconciles an invoker once.
///
/// # Errors
/// The API server could not be reached or refused a write; the reconcile is retried.
pub async fn reconcile<K: InvokerStatus>(object: Arc<Stored<K>>, ctx: Arc<Context>) -> Result<Requeue, Error> {
    measured(&ctx, object.as_ref(), None, Box::pin(look(object.as_ref(), &ctx))).await
}

async fn look<K: InvokerStatus>(stored: &Stored<K>, ctx: &Context) -> Result<Requeue, Error> {
    let _room = ctx.large_objects.enter(stored, stored.size()).await?;
    let shown = &stored.open();
    if shown.meta().deletion_timestamp.is_some() {
        if Identity::of(shown).held_by_stash {
            let namespace = stored.namespace().unwrap_or_default();
            objects::finalizer(&ctx.writes, stored, &namespace, FinalizerChange::Remove).await?;
        }
        return Ok(Requeue::OnChange);
    }
    let (seen, now) = observe::seen(&ctx.reads, &ctx.setup, stored, shown).await?;
    let plan = invoker::next(&seen, now);
    let requeue = apply::apply(&ctx.writes, stored, shown, &plan).await?;
    Ok(requeue.map(|r| r + Duration::from_millis(50)).into())
}
