//! What every reconcile shares: reads, writes, the setup, and who waits for what.
//!
//! Only this room has it. Lower rooms take what they need of it as arguments, so that they can do without an operator.

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
    /// What a decision is made from.
    pub reads: Reads,
    /// What is done about it.
    pub writes: Writes,
    /// Room for looks at large objects.
    pub large_objects: LargeObjects,
    /// Which Repositories are listed.
    pub listings: Listings,
    /// Wakes sessions.
    pub triggers: Triggers,
    /// Since when every store has been filled; nobody looks before.
    pub filled: Sender<Option<Instant>>,
}

/// After a start, everything that is there wants a look.
const STARTS_FOR: Duration = Duration::from_secs(5);

impl Context {
    /// Waits until every store has been filled once: before that, "not there" is not known.
    /// The one waiter of each store; looks wait for what it says.
    pub async fn fill(&self) {
        self.reads.stores.filled().await;
        self.filled.send_replace(Some(Instant::now()));
    }

    /// Whether the operator has only just begun.
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
