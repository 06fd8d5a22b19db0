//! The reconcile loop: observe, plan, apply, report, and again while a written intent allows the next step.
//!
//! What is special to a kind stands in the file of the kind, as its [`Planned`]. What follows a look that failed is decided
//! here for all of them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::core::NamespaceResourceScope;
use tracing::{debug, warn};

use crate::controller::apply::counters::{Measured, Reconciled};
use crate::controller::apply::fence::NotLeading;
use crate::controller::apply::objects;
use crate::controller::apply::objects::{Applied, Refused};
use crate::controller::cache::children::Children;
use crate::controller::cache::queue::Requeue;
use crate::controller::cache::read_your_writes::LAG;
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::cache::stores::Stores;
use crate::controller::cache::verdicts::Busy;
use crate::controller::kinds::context::Context;
use crate::controller::kinds::large_objects::Crowded;
use crate::controller::observe::errors::Error as Unseen;
use crate::plan::effects::Plan;

/// Rounds of one look. A round that writes an intent is followed by one that acts on it; a
/// three-host restore takes four at most, and a loop without end would be a defect.
const ROUNDS: usize = 8;

/// Wait before a failed look is repeated. Conflicts are gone by then; a server that is away is not asked too often.
const RETRY: Duration = Duration::from_secs(2);

/// Why a look at an object failed. It is always repeated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server could not be reached, or refused a write.
    #[error("{0}")]
    Kube(#[from] kube::Error),
    /// It could not be validated yet.
    #[error("{0}")]
    Busy(#[from] Busy),
    /// Others of its namespace are looked at.
    #[error("{0}")]
    Crowded(#[from] Crowded),
    /// Nobody knows what was begun for it.
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

/// Wait before an object is looked at again that could not be validated, because others of its namespace take long.
const BUSY: Duration = Duration::from_secs(5);

/// Wait before a large object is looked at again of which too many of its namespace are.
const CROWDED: Duration = Duration::from_secs(1);

/// An object as `plan` has it, and what is seen of it.
pub type Observed<K> = (<K as Planned>::Run, <K as Planned>::Seen);

/// A kind whose looks end in a [`Plan`].
pub trait Planned: UserKind + kube::Resource<Scope = NamespaceResourceScope> {
    /// The object, as `plan` has it.
    type Run: Send + Sync;
    /// What is seen of it.
    type Seen: Send;
    /// What one look remembers from round to round.
    type Memory: Default + Send + Sync;

    /// Its Jobs. Nobody looks before the watches have told of our own last writes.
    fn children(stores: &Stores) -> &Children;

    /// Bytes that a look at it opens.
    fn size(_: &Stores, object: &Stored<Self>) -> usize {
        object.size()
    }

    /// How long it can wait for a look after a start, if it can.
    fn waits(_: &Context, _: &Stored<Self>) -> Option<Duration> {
        None
    }

    /// What a plan is made from; `None` where nothing is to be done.
    fn observe(
        ctx: &Context,
        object: &Stored<Self>,
        memory: &Self::Memory,
    ) -> impl Future<Output = Result<Option<Observed<Self>>, Error>> + Send;

    /// Adds what the API server refused in the round before.
    fn refused(seen: &mut Self::Seen, refused: Refused);

    /// The plan, with what its Jobs need reserved.
    fn plan(
        ctx: &Context,
        object: &Stored<Self>,
        run: &Self::Run,
        seen: &mut Self::Seen,
        memory: &mut Self::Memory,
    ) -> Plan;

    /// Writes the status of a plan that was applied. Gives the object as it is then; `None` once it is gone.
    fn report(
        ctx: &Context,
        object: Stored<Self>,
        run: &Self::Run,
        applied: &Applied,
    ) -> impl Future<Output = Result<Option<Stored<Self>>, Error>> + Send;
}

/// One look at an object.
///
/// # Errors
/// The API server could not be reached or refused a write; the look is repeated.
pub async fn reconcile<K: Planned>(object: Arc<Stored<K>>, ctx: Arc<Context>) -> Result<Requeue, Error> {
    let children = K::children(&ctx.reads.stores);
    measured(&ctx, object.as_ref(), Some(children), Box::pin(look(object.as_ref(), &ctx))).await
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
            // What it says of rights, or of a workload, is not so.
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

/// One look at an object, measured, and, where it has `children`, not before the watches have told of our own last writes.
///
/// # Errors
/// Those of the look.
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

/// What happens after a failed look.
pub fn error_policy<K>(object: &K, error: &Error) -> Requeue
where
    K: kube::Resource<DynamicType = ()>,
{
    match error {
        Error::Busy(_) => return Requeue::After(BUSY),
        Error::Crowded(_) => return Requeue::After(CROWDED),
        // Whoever leads now looks at it; this process ends.
        Error::Kube(cause) if NotLeading::is(cause) => return Requeue::OnChange,
        // Somebody wrote, or deleted it, between our look and our write: the watch brings what is true now.
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
