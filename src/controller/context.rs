//! What every reconcile shares: the client, the stores, the setup.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::events::Reporter;
use tokio::sync::watch::Sender;

use super::clock::Clock;
use super::index::Indexed;
use super::listings::Listings;
use super::metrics::Metrics;
use super::precedence::Precedence;
use super::progress::ProgressClient;
use super::queues::Queues;
use super::room::Rooms;
use super::scope::Scope;
use super::secrets::Secrets;
use super::stored::Stored;
use super::users::Users;
use super::verdicts::Verdicts;
use super::vouching::Vouching;
use super::watched::Watched;
use super::wires::Bells;
use super::written::Written;
use crate::api::Repository;
use crate::plan::kept::Kept;
use crate::plan::observed::Setup;

/// Jobs of one kind of session, and their pods, as last watched.
#[derive(Clone)]
pub struct Children {
    /// Jobs.
    pub jobs: Indexed<Kept<Job>>,
    /// Their pods.
    pub pods: Indexed<Kept<Pod>>,
}

/// What every reconcile shares.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The namespaces that are watched.
    pub scope: Scope,
    /// Its clock.
    pub clock: Clock,
    /// How the operator is set up.
    pub setup: Setup,
    /// Counters.
    pub metrics: Metrics,
    /// Who reports events.
    pub reporter: Reporter,
    /// Asks running Jobs how far they are.
    pub progress: ProgressClient,
    /// Repositories.
    pub repositories: Indexed<Stored<Repository>>,
    /// Those that use Repositories.
    pub users: Users,
    /// What validation said.
    pub verdicts: Verdicts,
    /// Room for looks at large objects.
    pub rooms: Rooms,
    /// Who waits for Jobs on them.
    pub queues: Queues,
    /// What goes first at the API server.
    pub precedence: Precedence,
    /// Targets, and what belongs to them.
    pub watched: Watched,
    /// Which backend Secrets are there.
    pub secrets: Secrets,
    /// Which Repositories are listed.
    pub listings: Listings,
    /// Who may run code.
    pub vouching: Arc<Vouching>,
    /// What was written, and the watches have not told yet.
    pub written: Written,
    /// Wakes sessions.
    pub bells: Bells,
    /// Children of RestoreSessions.
    pub of_restore_sessions: Children,
    /// Children of RestoreBatches.
    pub of_restore_batches: Children,
    /// Children of BackupSessions.
    pub of_backup_sessions: Children,
    /// Children of Repositories.
    pub of_repositories: Children,
    /// Since when every store has been filled; nobody looks before.
    pub gate: Sender<Option<Instant>>,
}

/// After a start, everything that is there wants a look.
const STARTS_FOR: Duration = Duration::from_secs(5);

impl Context {
    /// Waits until every store has been filled once: before that, "not there" is not known.
    /// The one waiter of each store; looks wait for the gate it opens.
    pub async fn fill(&self) {
        // An error means that the writer is gone, which only happens when the operator stops.
        let _ = self.repositories.store.wait_until_ready().await;
        let _ = self.users.configurations.store.wait_until_ready().await;
        let _ = self.users.batches.store.wait_until_ready().await;
        let _ = self.users.backups.store.wait_until_ready().await;
        let _ = self.users.restores.store.wait_until_ready().await;
        let _ = self.users.restore_batches.store.wait_until_ready().await;
        let all =
            [&self.of_restore_sessions, &self.of_restore_batches, &self.of_backup_sessions, &self.of_repositories];
        for children in all {
            let _ = children.jobs.store.wait_until_ready().await;
            let _ = children.pods.store.wait_until_ready().await;
        }
        self.gate.send_replace(Some(Instant::now()));
    }

    /// Whether the operator has only just begun.
    pub fn is_starting(&self) -> bool {
        self.gate.borrow().is_none_or(|at| at.elapsed() < STARTS_FOR)
    }

    /// Waits for [`Context::fill`].
    pub async fn filled(&self) {
        let _ = self.gate.subscribe().wait_for(Option::is_some).await;
    }

    /// The clock; the only place where the operator's decisions get it.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
