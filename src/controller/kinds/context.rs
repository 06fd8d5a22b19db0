//! What every reconcile shares: reads, writes, the setup, and which objects wait for what.
//!
//! Only this module has the context. Lower modules take what they need as arguments, so that they work without an
//! operator.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch::Sender;

use crate::controller::apply::writes::Writes;
use crate::controller::cache::listings::Listings;
use crate::controller::cache::triggers::Triggers;
use crate::controller::kinds::large_objects::LargeObjects;
use crate::controller::observe::reads::Reads;
use crate::plan::setup::Setup;

/// What every reconcile shares.
pub struct Context {
    /// How the operator is set up.
    pub setup: Setup,
    /// The input of decisions.
    pub reads: Reads,
    /// The writes that follow from decisions.
    pub writes: Writes,
    /// Room for reconciles of large objects.
    pub large_objects: LargeObjects,
    /// Which Repositories are listed.
    pub listings: Listings,
    /// Wakes sessions.
    pub triggers: Triggers,
    /// The time since which every store has been filled; no object is reconciled before.
    pub filled: Sender<Option<Instant>>,
}

/// Duration of the start, in which all existing objects need a reconcile.
const STARTS_FOR: Duration = Duration::from_secs(5);

impl Context {
    /// Waits until every store has been filled once: before that, the absence of an object is not known.
    /// This is the only waiter of each store; reconciles wait for its result.
    pub async fn fill(&self) {
        self.reads.stores.filled().await;
        self.filled.send_replace(Some(Instant::now()));
    }

    /// Whether the operator has just started.
    pub fn is_starting(&self) -> bool {
        self.filled.borrow().is_none_or(|at| at.elapsed() < STARTS_FOR)
    }

    /// Waits for [`Context::fill`].
    pub async fn filled(&self) {
        let _ = self.filled.subscribe().wait_for(Option::is_some).await;
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.reads.now()
    }
}
