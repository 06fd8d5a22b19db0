//! The reconcile loop: observe, plan, apply, report, and again while a written intent allows the next step.
//!
//! The specifics of a kind are in the file of the kind, as its [`Planned`]. This file handles failed reconciles of all
//! kinds.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource as _, ResourceExt as _};
use tracing::{debug, warn};

use crate::controller::apply::counters::{Measured, Reconciled};
use crate::controller::apply::fence::NotLeading;
use crate::controller::apply::objects;
use crate::controller::apply::objects::{Applied, Refused};
use crate::controller::cache::children::Children;
use crate::controller::cache::queue::Requeue;
use crate::controller::cache::read_your_writes::LAG;
use crate::controller::cache::scope::{self, Presence};
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::cache::stores::Stores;
use crate::controller::cache::verdicts::Busy;
use crate::controller::kinds::context::Context;
use crate::controller::kinds::large_objects::Crowded;
use crate::controller::observe::errors::Error as Unseen;
use crate::names::FINALIZER;
use crate::plan::effects::{FinalizerChange, Plan};

/// Maximum rounds of one reconcile. A round that writes an intent is followed by a round that acts on it. A
/// three-host restore takes four rounds at most, and an endless loop would be a defect.
const ROUNDS: usize = 8;

/// Wait before a failed reconcile is retried. Conflicts are resolved by then, and an unreachable API server is not
/// asked too often.
const RETRY: Duration = Duration::from_secs(2);

/// Why a reconcile of an object failed. A failed reconcile is always retried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server could not be reached, or refused a write.
    #[error("{0}")]
    Kube(#[from] kube::Error),
    /// The object could not be validated yet.
    #[error("{0}")]
    Busy(#[from] Busy),
    /// Other large objects of its namespace are being reconciled.
    #[error("{0}")]
    Crowded(#[from] Crowded),
    /// The operator cannot know what was started for the object.
    #[error("its status was written by another version of the operator, and cannot be read; nothing is done")]
    AnotherVersion,
}

impl From<Unseen> for Error {
    fn from(error: Unseen) -> Self {
        match error {
            Unseen::Kube(error) => Self::Kube(error),
            Unseen::Busy(error) => Self::Busy(error),
            Unseen::AnotherVersion => Self::AnotherVersion,
        }
    }
}

/// Wait before the retry of an object that could not be validated because other objects of its namespace take long.
const BUSY: Duration = Duration::from_secs(5);

/// Wait before the retry of a large object when too many large objects of its namespace are being reconciled.
const CROWDED: Duration = Duration::from_secs(1);

/// An object in the form that `plan` uses, and its observed surroundings.
pub type Observed<K> = (<K as Planned>::Run, <K as Planned>::Seen);

/// A kind whose reconciles make a [`Plan`].
pub trait Planned: UserKind + kube::Resource<Scope = NamespaceResourceScope> {
    /// The object, in the form that `plan` uses.
    type Run: Send + Sync;
    /// The observed surroundings of the object.
    type Seen: Send;
    /// State that one reconcile keeps from round to round.
    type Memory: Default + Send + Sync;

    /// Its Jobs. An object is not reconciled before the caches contain the operator's own last writes.
    fn children(stores: &Stores) -> &Children;

    /// Bytes that a reconcile of the object opens.
    fn size(_: &Stores, object: &Stored<Self>) -> usize {
        object.size()
    }

    /// How long the object can wait for its reconcile after a start; `None` if it cannot wait.
    fn waits(_: &Context, _: &Stored<Self>) -> Option<Duration> {
        None
    }

    /// The input of a plan; `None` if there is nothing to do.
    fn observe(
        ctx: &Context,
        object: &Stored<Self>,
        memory: &Self::Memory,
    ) -> impl Future<Output = Result<Option<Observed<Self>>, Error>> + Send;

    /// Adds what the API server refused in the previous round.
    fn refused(seen: &mut Self::Seen, refused: Refused);

    /// The plan, with slots and PVCs reserved for its Jobs.
    fn plan(
        ctx: &Context,
        object: &Stored<Self>,
        run: &Self::Run,
        seen: &mut Self::Seen,
        memory: &mut Self::Memory,
    ) -> Plan;

    /// Writes the status of a plan that was applied. Returns the object as written; `None` once it is gone.
    fn report(
        ctx: &Context,
        object: Stored<Self>,
        run: &Self::Run,
        applied: &Applied,
    ) -> impl Future<Output = Result<Option<Stored<Self>>, Error>> + Send;
}

/// Reconciles an object once.
///
/// # Errors
/// The API server could not be reached or refused a write; the reconcile is retried.
pub async fn reconcile<K: Planned>(object: Arc<Stored<K>>, ctx: Arc<Context>) -> Result<Requeue, Error> {
    let children = K::children(&ctx.reads.stores);
    let done = measured(&ctx, object.as_ref(), Some(children), Box::pin(look(object.as_ref(), &ctx))).await;
    match done {
        Err(Error::Kube(error)) if scope::is_forbidden(&error) && is_lost(&ctx, object.as_ref()).await => {
            let namespace = object.namespace().unwrap_or_default();
            warn!(kind = %K::kind(&()), namespace, name = object.name_any(), "the namespace is being deleted, and the rights in it are gone: only the finalizer is removed");
            objects::finalizer(&ctx.writes, object.as_ref(), &namespace, FinalizerChange::Remove).await?;
            Ok(Requeue::OnChange)
        }
        done => done,
    }
}

/// Whether an object is deleted with its namespace, whose Role was deleted before the object. Nothing in the namespace
/// can be stopped or scaled back then, and all of it goes. An object that has granted rights in another namespace stays,
/// because they would stay too.
async fn is_lost<K: Planned>(ctx: &Context, object: &Stored<K>) -> bool {
    let (client, namespace) = (ctx.reads.client.clone(), object.namespace().unwrap_or_default());
    let is_held = object.finalizers().iter().any(|f| f == FINALIZER);
    if object.meta().deletion_timestamp.is_none() || !is_held || object.facts().has_rights {
        return false;
    }
    if scope::presence(&client, &namespace).await != Presence::Ends {
        return false;
    }
    // Only the Role gives this right.
    let jobs = Api::<Job>::namespaced(client, &namespace).list_metadata(&ListParams::default().limit(1)).await;
    jobs.is_err_and(|error| scope::is_forbidden(&error))
}

async fn look<K: Planned>(object: &Stored<K>, ctx: &Context) -> Result<Requeue, Error> {
    let _room = ctx.large_objects.enter(object, K::size(&ctx.reads.stores, object)).await?;
    if let Some(wait) = K::waits(ctx, object) {
        return Ok(Requeue::After(wait));
    }
    let mut object = object.clone();
    let (mut refused, mut memory) = (Refused::default(), K::Memory::default());
    for _ in 0..ROUNDS {
        let observed = Box::pin(K::observe(ctx, &object, &memory)).await?;
        let Some((run, mut seen)) = observed else { return Ok(Requeue::OnChange) };
        K::refused(&mut seen, std::mem::take(&mut refused));
        let plan = K::plan(ctx, &object, &run, &mut seen, &mut memory);
        let (done, fresh) = objects::apply(&ctx.writes, &object, plan).await?;
        object = fresh.map_or_else(|| object.clone(), |fresh| fresh.written(&object));
        refused = done.refused;
        if refused.revoke.is_some() || !refused.scales.is_empty() {
            // The status of the plan is wrong about the rights or the workload, so it is not reported.
            continue;
        }
        let Some(reported) = K::report(ctx, object, &run, &done.plan).await? else {
            return Ok(Requeue::OnChange);
        };
        object = reported;
        if !done.plan.again() && refused.jobs.is_empty() && refused.scales.is_empty() && refused.holds.is_empty() {
            return Ok(done.plan.requeue().into());
        }
    }
    debug!(kind = %K::kind(&()), name = object.name_any(), "more iterations than expected; reconciling again soon");
    Ok(Requeue::After(Duration::from_secs(1)))
}

/// Reconciles an object once and measures it. With `children`, the reconcile does not start before the caches contain
/// the operator's own last writes.
///
/// # Errors
/// The errors of the reconcile.
pub async fn measured<K>(
    ctx: &Context,
    object: &K,
    children: Option<&Children>,
    look: Pin<Box<impl Future<Output = Result<Requeue, Error>>>>,
) -> Result<Requeue, Error>
where
    K: kube::Resource<DynamicType = ()>,
{
    if children.is_some_and(|c| ctx.writes.written.is_ahead(object, c)) {
        return Ok(Requeue::After(LAG));
    }
    let measured = Measured::begin(&*ctx.writes.counters, &K::kind(&()));
    let result = look.await;
    measured.end(if result.is_ok() { Reconciled::Done } else { Reconciled::Failed });
    result
}

/// What happens after a failed reconcile.
pub fn error_policy<K>(object: &K, error: &Error) -> Requeue
where
    K: kube::Resource<DynamicType = ()>,
{
    match error {
        Error::Busy(_) => return Requeue::After(BUSY),
        Error::Crowded(_) => return Requeue::After(CROWDED),
        // The new leader reconciles the object, and this process ends. If it was only late to see that its Lease was
        // renewed, it goes on.
        Error::Kube(cause) if NotLeading::is(cause) => return Requeue::After(RETRY),
        // Another client wrote or deleted the object between the operator's read and write: the watch delivers the
        // new state.
        Error::Kube(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
            return Requeue::After(Duration::from_millis(200));
        }
        Error::Kube(_) | Error::AnotherVersion => {}
    }
    warn!(kind = %K::kind(&()), namespace = object.namespace(), name = object.name_any(), %error, "could not reconcile; trying again");
    if let Error::AnotherVersion = error {
        return Requeue::OnChange;
    }
    Requeue::After(RETRY)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::Status;

    use super::*;

    #[test]
    fn an_object_whose_write_was_refused_is_reconciled_again_even_if_the_fence_refused_it() {
        let api = |code| Error::Kube(kube::Error::Api(Status { code, ..Status::default() }.boxed()));
        let fence = Error::Kube(kube::Error::Service(NotLeading.into()));
        assert_eq!(error_policy(&ConfigMap::default(), &fence), Requeue::After(RETRY));
        assert_eq!(error_policy(&ConfigMap::default(), &api(500)), Requeue::After(RETRY));
        assert_eq!(error_policy(&ConfigMap::default(), &Error::AnotherVersion), Requeue::OnChange);
    }
}
