//! The end of a repository: every snapshot is forgotten, and then the data removed.
//!
//! restic does it, and so nothing is touched that is not this repository's: whatever else
//! lies below the same prefix stays. An empty repository, its config and keys, stays too.

use crate::contract::Failure;
use crate::contract::restic::Answer;
use crate::drivers::done::Done;
use crate::drivers::restic::forget;
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::snapshot::Snapshot;
use crate::names::reason;

/// Removes every snapshot, and the data that nothing needs then.
pub async fn wipe(repository: &Repository) -> Done {
    match all(repository).await {
        Ok(snapshots) => Done::ok(Answer::Wiped { snapshots }),
        // A repository that was never made, or is gone, has no data.
        Err(failure) if failure.reason == reason::REPOSITORY_MISSING => Done::ok(Answer::Wiped { snapshots: 0 }),
        Err(failure) => Done::failed(failure),
    }
}

async fn all(repository: &Repository) -> Result<u64, Failure> {
    let ids: Vec<String> = repository.snapshots(&[]).await?.into_iter().map(|s: Snapshot| s.id).collect();
    tracing::info!(snapshots = ids.len(), "removing every snapshot");
    forget::forget(repository, &ids, "forget the snapshots").await?;
    forget::prune(repository, "remove the data").await?;
    Ok(u64::try_from(ids.len()).unwrap_or(u64::MAX))
}
