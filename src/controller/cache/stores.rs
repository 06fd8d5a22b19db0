//! The stores of everything that users write, and of the Jobs made for it.
//!
//! They say "not there" of everything until they are filled; whoever decides anything waits for that.

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
    /// Those that use Repositories.
    pub consumers: Consumers,
    /// What validation said of what is in them.
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
    /// Waits until every store has been filled once. Of several who wait here, only the last is woken.
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
