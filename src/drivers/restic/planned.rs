//! What a restore would write, computed from restic's dry run.
//!
//! The counts are compared with those of the restore; the sizes are used to check free space. No data is written.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::contract::restic::Counts;
use crate::drivers::restic::output::{Message, path_key};
use crate::drivers::restic::paths::{clean, within};

/// Required space of one file system.
#[derive(Debug, Default, PartialEq)]
pub struct Need {
    /// A mount of the file system, as the user wrote it.
    pub mount: String,
    /// Bytes that do not exist yet.
    pub bytes: u64,
    /// Entries that do not exist yet.
    pub entries: u64,
}

/// Collects the items of dry runs.
#[derive(Debug)]
pub struct Planned {
    root: PathBuf,
    /// Mount, normalised, longest first, with the device below it.
    mounts: Vec<(String, u64)>,
    /// Paths, by [`path_key`].
    seen: HashSet<u64>,
    need: HashMap<u64, Need>,
}

impl Planned {
    /// `mounts` are below `root`.
    pub fn new(root: &Path, mounts: &[String]) -> Self {
        let mut all: Vec<(String, u64)> = mounts
            .iter()
            .map(|m| clean(m))
            .map(|m| {
                let device = std::fs::metadata(below(root, &m)).map_or(0, |d| d.dev());
                (m, device)
            })
            .collect();
        all.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        Self { root: root.to_owned(), mounts: all, seen: HashSet::new(), need: HashMap::new() }
    }

    /// Adds an item of a dry run, for `path`, if it is within the restored path `root`.
    pub fn item(&mut self, message: &Message, path: &str, root: &str) {
        let is_item =
            message.message_type == "verbose_status" && !message.item.is_empty() && message.action != "deleted";
        // restic also lists the parents of selected entries. A path in two snapshots is counted once.
        if is_item && within(path, root) && self.seen.insert(path_key(path)) {
            self.weigh(path, message);
        }
    }

    fn weigh(&mut self, path: &str, message: &Message) {
        let there = std::fs::symlink_metadata(below(&self.root, path));
        let (exists, held) = match &there {
            // Blocks, not length: a partially written file already has its full length. A file with several names is
            // written again.
            Ok(m) if m.is_file() && m.nlink() == 1 => (true, (m.blocks() * 512).min(m.len())),
            Ok(_) => (true, 0),
            Err(_) => (false, 0),
        };
        let Some((mount, device)) = self.mounts.iter().find(|(m, _)| within(path, m)) else { return };
        let need = self.need.entry(*device).or_insert_with(|| Need { mount: mount.clone(), ..Need::default() });
        if message.action != "unchanged" {
            need.bytes += message.size.saturating_sub(held);
        }
        need.entries += u64::from(!exists);
    }

    /// The required space of each file system.
    pub fn needs(&self) -> impl Iterator<Item = &Need> {
        self.need.values()
    }
}

/// Location of a backed-up path during the restore.
pub fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Sums of one restic run over a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Selected entries, including equal ones.
    pub total: Counts,
    /// Finished entries, including equal ones and parent folders.
    pub done: Counts,
}

impl Tally {
    /// From the summary; without a summary, zero.
    pub fn of(summary: Option<&Message>) -> Self {
        let Some(m) = summary else { return Self::default() };
        Self {
            total: Counts { files: m.total_files + m.files_skipped, bytes: m.total_bytes + m.bytes_skipped },
            done: Counts { files: m.files_restored + m.files_skipped, bytes: m.bytes_restored + m.bytes_skipped },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str, action: &str, size: u64) -> Message {
        Message {
            message_type: "verbose_status".into(),
            action: action.into(),
            item: path.into(),
            size,
            ..Message::default()
        }
    }

    #[test]
    fn only_what_is_missing_is_needed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("data")).unwrap();
        std::fs::write(root.path().join("data/there"), vec![1; 8192]).unwrap();
        let mut planned = Planned::new(root.path(), &["/data/".into()]);
        // Another snapshot may contain the same path.
        for (path, action, size) in [
            ("/data/new", "restored", 1000),
            ("/data/there", "updated", 10_000),
            ("/data/same", "unchanged", 77),
            ("/data", "restored", 0),
            ("/", "restored", 0),
            ("/other", "restored", 5),
            ("/data/gone", "deleted", 5),
            ("/data/new", "restored", 1000),
        ] {
            planned.item(&item(path, action, size), path, "/data");
        }
        let need: Vec<_> = planned.needs().collect();
        assert_eq!(need.len(), 1);
        assert_eq!((need[0].bytes, need[0].entries), (1000 + 10_000 - 8192, 2));
    }

    #[test]
    fn a_run_without_summary_counts_nothing() {
        assert_eq!(Tally::of(None), Tally::default());
    }
}
