//! The paths in the snapshots, and the folders of a volume that are skipped.

use std::collections::HashMap;

use crate::drivers::restic::output::path_key;
use crate::drivers::restic::paths::within;

/// Folder of ext file systems for files that a check found.
const LOST: &str = "lost+found";

/// Paths of the list of a snapshot, by [`path_key`].
#[derive(Debug, Default, PartialEq)]
pub struct Keys {
    /// Paths that must be found on the target.
    here: Vec<u64>,
    /// Paths in folders that are skipped.
    elsewhere: Vec<u64>,
    /// Number of entries for each path that may not be UTF-8: restic lists all such bytes as the same character. Only
    /// its text output has the bytes, but there a line break in a name cannot be distinguished from the end of a
    /// name.
    unclear: HashMap<u64, u32>,
}

impl Keys {
    /// Adds a path.
    pub fn add(&mut self, path: &str, is_elsewhere: bool) {
        let key = path_key(path);
        if is_elsewhere { &mut self.elsewhere } else { &mut self.here }.push(key);
        if is_unclear(path) {
            *self.unclear.entry(key).or_default() += 1;
        }
    }

    /// Adds the paths of another list, which may have the same entries.
    pub fn extend(&mut self, other: Self) {
        self.here.extend(other.here);
        self.elsewhere.extend(other.elsewhere);
        for (key, count) in other.unclear {
            let most = self.unclear.entry(key).or_default();
            *most = count.max(*most);
        }
    }
}

/// Whether a path may represent several names.
pub fn is_unclear(path: &str) -> bool {
    path.contains(char::REPLACEMENT_CHARACTER)
}

/// Paths in snapshots: nine bytes each, because there may be millions.
#[derive(Debug, Default)]
pub struct Kept {
    here: Vec<u64>,
    seen: Vec<bool>,
    elsewhere: Vec<u64>,
    unclear: HashMap<u64, u32>,
}

impl Kept {
    /// Paths in any of the lists.
    pub fn new(keys: Keys) -> Self {
        let Keys { mut here, mut elsewhere, unclear } = keys;
        for all in [&mut here, &mut elsewhere] {
            all.sort_unstable();
            all.dedup();
        }
        Self { seen: vec![false; here.len()], here, elsewhere, unclear }
    }

    /// Whether a snapshot contains the path; also records that it was found.
    pub fn has(&mut self, path: &str) -> bool {
        let key = path_key(path);
        if let Ok(at) = self.here.binary_search(&key) {
            self.seen[at] = true;
            return true;
        }
        self.elsewhere.binary_search(&key).is_ok()
    }

    /// Number of required paths that were not found.
    pub fn missing(&self) -> usize {
        self.seen.iter().filter(|seen| !**seen).count()
    }

    /// Number of required paths.
    pub fn count(&self) -> usize {
        self.here.len()
    }

    /// Number of entries that a path whose name is not UTF-8 represents.
    pub fn entries_of(&self, key: u64) -> u32 {
        self.unclear.get(&key).copied().unwrap_or_default()
    }
}

/// Whether a path is in a skipped folder of the volume of `mount`: in another mount below it, or in a folder of the
/// file system.
pub fn is_elsewhere(path: &str, mount: &str, mounts: &[String]) -> bool {
    let is_below = |m: &String| m != mount && within(m, mount) && within(path, m);
    mounts.iter().any(is_below) || is_lost(path, mount)
}

/// The innermost mount that contains a path.
pub fn mount_of<'a>(path: &str, mounts: &'a [String]) -> Option<&'a String> {
    mounts.iter().filter(|m| within(path, m)).max_by_key(|m| m.len())
}

/// Whether a path is in a folder of the file system.
pub fn is_lost(path: &str, mount: &str) -> bool {
    let rest = path.strip_prefix(mount.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
    rest.is_some_and(|rest| rest.split('/').next() == Some(LOST))
}
