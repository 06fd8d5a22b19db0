//! The operator: observe, plan, apply, report. The only room that talks to Kubernetes.
//!
//! Every replica serves admission, health and metrics; one of them, the
//! [`leader`], reconciles. What has to be remembered is in the cluster, so a
//! new leader goes on where the old one was stopped.

pub mod apply;
pub mod backup;
pub mod blueprint;
pub mod budget;
pub mod certs;
pub mod clock;
pub mod context;
pub mod grants;
pub mod http;
pub mod index;
pub mod invoker;
pub mod leader;
mod listings;
pub mod metrics;
pub mod observe;
mod openshift;
pub mod operator;
pub mod owners;
pub mod pages;
mod precedence;
pub mod progress;
pub mod queues;
pub mod report;
pub mod repository;
pub mod restore;
pub mod room;
pub mod scope;
pub mod secrets;
pub mod sessions;
pub mod stored;
pub mod targets;
pub mod users;
pub mod validity;
pub mod verdicts;
pub mod vouching;
mod watch;
pub mod watched;
mod wires;
mod workloads;
pub mod written;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use tracing::warn;

use self::context::{Children, Context};
use self::leader::NotLeading;
use self::metrics::Reconciled;
use self::queues::Reserved;
use self::room::Crowded;
use self::users::User;
use self::verdicts::Busy;
use self::written::LAG;
use crate::plan::Plan;
use crate::plan::gate::Room;
use crate::plan::observed::{Seen, Surroundings};

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

/// Wait before an object is looked at again that could not be validated, because others of its namespace take long.
const BUSY: Duration = Duration::from_secs(5);

/// Wait before a large object is looked at again of which too many of its namespace are.
const CROWDED: Duration = Duration::from_secs(1);

/// One look at an object, measured: once the stores are filled, and, where it has `children`, not before the
/// watches have told of our own last writes.
async fn measured<K>(
    ctx: &Context,
    object: &K,
    children: Option<&Children>,
    look: Pin<Box<impl Future<Output = Result<Action, Error>>>>,
) -> Result<Action, Error>
where
    K: kube::Resource<DynamicType = ()>,
{
    ctx.filled().await;
    if children.is_some_and(|c| ctx.written.is_ahead(object, c)) {
        return Ok(Action::requeue(LAG));
    }
    let measured = ctx.metrics.reconcile(&K::kind(&()));
    let result = look.await;
    measured.end(if result.is_ok() { Reconciled::Done } else { Reconciled::Failed });
    result
}

/// The plan of a session whose Jobs have places and claims: what others took since the look is left to them.
fn reserved<K: User>(ctx: &Context, object: &K, seen: &mut Surroundings, next: impl Fn(&Surroundings) -> Plan) -> Plan {
    let most = ctx.setup.jobs_per_repository;
    let is_new = matches!(&seen.repository, Seen::Found(found) if !found.known);
    // Once without the claims that are in use, once without any Job.
    for _ in 0..2 {
        let plan = next(seen);
        match ctx.queues.reserve(object, &plan.jobs, most, is_new) {
            Reserved::All => return plan,
            Reserved::InUse(claims) => seen.writers.extend(claims),
            Reserved::NoRoom => seen.room = Room { free: 0, ahead: most },
            Reserved::BeingCreated => seen.room = Room::WHILE_CREATED,
        }
    }
    seen.room = Room { free: 0, ahead: most };
    next(seen)
}

/// What happens after a failed look.
#[allow(clippy::needless_pass_by_value, reason = "the signature that kube's Controller calls")]
pub fn error_policy<K>(object: Arc<K>, error: &Error, _: Arc<Context>) -> Action
where
    K: kube::Resource<DynamicType = ()>,
{
    match error {
        Error::Busy(_) => return Action::requeue(BUSY),
        Error::Crowded(_) => return Action::requeue(CROWDED),
        // Whoever leads now looks at it; this process ends.
        Error::Kube(cause) if NotLeading::is(cause) => return Action::await_change(),
        // Somebody wrote, or deleted it, between our look and our write: the watch brings what is true now.
        Error::Kube(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
            return Action::requeue(Duration::from_millis(200));
        }
        Error::Kube(_) | Error::AnotherVersion => {}
    }
    warn!(kind = %K::kind(&()), namespace = object.namespace(), name = object.name_any(), %error, "could not reconcile; trying again");
    if let Error::AnotherVersion = error {
        return Action::await_change();
    }
    Action::requeue(RETRY)
}
