//! Detects links on the target through which files would be written to another folder.
//!
//! Checked before data is written, and again before each further path, because an earlier path may have restored a
//! link.

use std::collections::BTreeSet;

use crate::contract::Failure;
use crate::contract::restic::PinnedSnapshot;
use crate::drivers::restic::output::Message;
use crate::drivers::restic::pattern::Below;
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::{checks, count, parents};

/// Rejects links on the target in place of folders of the snapshot. The snapshot is listed only if there are links.
pub async fn none_for_folders(repository: &Repository, pin: &PinnedSnapshot, part: &Below) -> Result<(), Failure> {
    let links: BTreeSet<String> = parents::links(&repository.restore_root, part);
    if links.is_empty() {
        return Ok(());
    }
    let base = part.base.trim_end_matches('/');
    let take = |folder: &mut Option<String>, m: &Message| {
        let is_one = m.node_type == "dir" && m.path.strip_prefix(base).is_some_and(|p| links.contains(p));
        if is_one && folder.is_none() {
            *folder = Some(m.path.clone());
        }
    };
    let folder = count::listed(repository, pin, &part.base, || None, take).await?;
    folder.map_or(Ok(()), |path| Err(checks::through_link(&repository.restore_root, &path, &path)))
}

/// Rejects links that a path of this restore created, and that the next path would follow.
pub async fn none_restored(
    repository: &Repository,
    mounts: &[String],
    pin: &PinnedSnapshot,
    part: &Below,
) -> Result<(), Failure> {
    let found = match checks::no_link_on_the_way(&repository.restore_root, mounts, &part.base) {
        Ok(()) => none_for_folders(repository, pin, part).await,
        found => found,
    };
    found.map_err(after_the_first)
}

/// The failure of a path of the rule after other paths were restored.
pub fn after_the_first(failure: Failure) -> Failure {
    some_is_written(failure, "Earlier paths of the rule were restored; this path was not.")
}

/// The same for checks that are usually made before the first write.
pub fn some_is_written(failure: Failure, what: &str) -> Failure {
    let message = failure.message.replace("Nothing was written.", what).replace("; nothing was written", "");
    Failure { message, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_after_the_first_path_does_not_say_that_nothing_was_written() {
        let root = tempfile::tempdir().unwrap();
        let failure = some_is_written(checks::through_link(root.path(), "/data/l", "/data/l/m"), "Some was.");
        assert!(failure.message.contains("/data/l ") && failure.message.ends_with("link. Some was."), "{failure:?}");
    }
}
