//! The stores of all objects that users write, and of the Jobs that are created for them.
//!
//! Until the stores are filled, they report every object as missing. Code that makes decisions waits for the fill.

use crate::api::Repository;
use crate::controller::cache::children::Children;
use crate::controller::cache::consumers::Consumers;
use crate::controller::cache::index::Indexed;
use crate::controller::cache::scope::Scope;
use crate::controller::cache::stored::Stored;
use crate::controller::cache::verdicts::Verdicts;

/// All stores. Clones share them.
#[derive(Clone)]
pub struct Stores {
    /// The namespaces that are watched.
    pub scope: Scope,
    /// Repositories.
    pub repositories: Indexed<Stored<Repository>>,
    /// Objects that use Repositories.
    pub consumers: Consumers,
    /// Validation results of the objects in the stores.
    pub verdicts: Verdicts,
    /// Children of RestoreSessions.
    pub of_restore_sessions: Children,
    /// Children of RestoreBatches.
    pub of_restore_batches: Children,
    /// Children of BackupSessions.
    pub of_backup_sessions: Children,
    /// Children of Repositories.
    pub of_repositories: Children,
}

impl Stores {
    /// Waits until every store has been filled once. If several tasks wait here, only the last task is woken.
    pub async fn filled(&self) {
        // An error means that the writer is gone, which only happens when the operator stops.
        let _ = self.repositories.store.wait_until_ready().await;
        let _ = self.consumers.configurations.store.wait_until_ready().await;
        let _ = self.consumers.batches.store.wait_until_ready().await;
        let _ = self.consumers.backups.store.wait_until_ready().await;
        let _ = self.consumers.restores.store.wait_until_ready().await;
        let _ = self.consumers.restore_batches.store.wait_until_ready().await;
        let all =
            [&self.of_restore_sessions, &self.of_restore_batches, &self.of_backup_sessions, &self.of_repositories];
        for children in all {
            let _ = children.jobs.store.wait_until_ready().await;
            let _ = children.pods.store.wait_until_ready().await;
        }
    }
}
