//! What every reconcile shares: the client, the stores, the setup.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::events::Reporter;
use kube::runtime::reflector::Store;

use super::metrics::Metrics;
use super::progress::ProgressClient;
use crate::api::{BackupBatch, BackupConfiguration, BackupSession, Repository};
use crate::plan::observed::Setup;

/// Jobs of one kind of session, and their pods, as last watched.
#[derive(Clone)]
pub struct Children {
    /// Jobs.
    pub jobs: Store<Job>,
    /// Their pods.
    pub pods: Store<Pod>,
}

/// What every reconcile shares.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// How the operator is set up.
    pub setup: Setup,
    /// Counters.
    pub metrics: Metrics,
    /// Who reports events.
    pub reporter: Reporter,
    /// Asks running Jobs how far they are.
    pub progress: ProgressClient,
    /// Repositories.
    pub repositories: Store<Repository>,
    /// Invokers of one target.
    pub configurations: Store<BackupConfiguration>,
    /// Invokers of many targets.
    pub batches: Store<BackupBatch>,
    /// Backup sessions.
    pub sessions: Store<BackupSession>,
    /// Children of RestoreSessions.
    pub of_restore_sessions: Children,
    /// Children of RestoreBatches.
    pub of_restore_batches: Children,
    /// Children of BackupSessions.
    pub of_backup_sessions: Children,
}

impl Context {
    /// Waits until every store has been filled once: before that, "not there" is not known.
    pub async fn filled(self: &Arc<Self>) {
        // An error means that the writer is gone, which only happens when the operator stops.
        let _ = futures::join!(
            self.repositories.wait_until_ready(),
            self.configurations.wait_until_ready(),
            self.batches.wait_until_ready(),
            self.sessions.wait_until_ready(),
            children(&self.of_restore_sessions),
            children(&self.of_restore_batches),
            children(&self.of_backup_sessions),
        );
    }

    /// The clock; the only place where the operator's decisions get it.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

async fn children(children: &Children) {
    let _ = futures::join!(children.jobs.wait_until_ready(), children.pods.wait_until_ready());
}
