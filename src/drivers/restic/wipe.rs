//! Wipes a repository: forgets every snapshot, and removes the data.
//!
//! This is done by restic, so other files below the same prefix are kept. The config and keys of the empty repository
//! are kept too.

use crate::contract::Failure;
use crate::contract::restic::Answer;
use crate::drivers::done::Done;
use crate::drivers::restic::forget;
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::snapshot::Snapshot;
use crate::names::reason;

/// Removes every snapshot, and the data.
pub async fn wipe(repository: &Repository) -> Done {
    match all(repository).await {
        Ok(snapshots) => Done::ok(Answer::Wiped { snapshots }),
        // A repository that does not exist has no data.
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
