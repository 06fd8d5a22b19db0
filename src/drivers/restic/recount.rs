//! Decides whether a restore with more bytes than planned is complete.
//!
//! The list of a snapshot does not say which files are hard links, so bytes are planned by an estimate
//! ([`super::count`]). restic itself detects hard links.

use crate::contract::Failure;
use crate::contract::restic::{Counts, PinnedSnapshot};
use crate::drivers::restic::count;
use crate::drivers::restic::count::{Asker, Counted};
use crate::drivers::restic::links::some_is_written;
use crate::drivers::restic::pattern::Below;
use crate::drivers::restic::repository::Repository;

/// Whether these bytes can be all selected files of these paths, each with its snapshot. The number of entries is
/// always as planned.
pub async fn holds(
    repository: &Repository,
    paths: impl Iterator<Item = (&PinnedSnapshot, &str, &Below)>,
    restored: Counts,
    planned: Counts,
) -> Result<bool, Failure> {
    if restored.files != planned.files {
        return Ok(false);
    }
    let asker = Asker { identity: None, mounts: &[], keys: false };
    let mut total = Counted::default();
    for (pin, root, below) in paths {
        let found = count::count(repository, pin, root, below, &asker).await;
        total.add(found.map_err(|failure| some_is_written(failure, ""))?);
    }
    tracing::info!(restored = restored.bytes, planned = planned.bytes, most = total.most, "counted again");
    Ok(total.can_be(restored))
}
