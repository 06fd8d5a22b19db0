//! The end of a repository: every snapshot is forgotten, and then the data removed.
//!
//! restic does it, and so nothing is touched that is not this repository's: whatever else
//! lies below the same prefix stays. An empty repository, its config and keys, stays too.

use super::args;
use super::repository::Repository;
use super::run::{End, Limit, STUCK};
use super::snapshot::Snapshot;
use crate::drivers::done::Done;
use crate::names::reason;
use crate::plan::contract::{Answer, Failure};

/// Ids that go into one command: 64 bytes each, far below what a command line may hold.
pub const IDS_AT_ONCE: usize = 500;

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
    for some in ids.chunks(IDS_AT_ONCE) {
        run(repository, args::forget_ids(some), "forget the snapshots").await?;
    }
    run(repository, args::prune(), "remove the data").await?;
    Ok(u64::try_from(ids.len()).unwrap_or(u64::MAX))
}

async fn run(repository: &Repository, argv: Vec<String>, doing: &str) -> Result<(), Failure> {
    let ran = repository.lines(argv, Limit::Idle(STUCK), &mut |_| {}).await;
    if ran.end == End::Exited(0) { Ok(()) } else { Err(repository.failure(&ran, doing)) }
}
