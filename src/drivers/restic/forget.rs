//! Removes snapshots by id, and then data that no snapshot uses.

use crate::contract::Failure;
use crate::drivers::restic::args;
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::run::{End, Limit, STUCK};

/// Ids per command: 64 bytes each, far below the limit of a command line.
const IDS_AT_ONCE: usize = 500;

/// Forgets these snapshots; `doing` is what messages call that.
///
/// # Errors
/// Not all of them are forgotten.
pub async fn forget(repository: &Repository, ids: &[String], doing: &str) -> Result<(), Failure> {
    for some in ids.chunks(IDS_AT_ONCE) {
        run(repository, args::forget_ids(some), doing).await?;
    }
    Ok(())
}

/// Removes data that no snapshot needs; `doing` is what messages call that.
///
/// # Errors
/// Some of it may be left.
pub async fn prune(repository: &Repository, doing: &str) -> Result<(), Failure> {
    run(repository, args::prune(), doing).await
}

async fn run(repository: &Repository, argv: Vec<String>, doing: &str) -> Result<(), Failure> {
    let ran = repository.lines(argv, Limit::Idle(STUCK), &mut |_| {}).await;
    if ran.end == End::Exited(0) { Ok(()) } else { Err(repository.failure(&ran, doing)) }
}
