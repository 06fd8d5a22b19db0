//! The paths in the snapshots, and the folders of a volume that are skipped.

use std::collections::HashMap;

use crate::drivers::restic::output::path_key;
use crate::drivers::restic::paths::within;

/// Where ext file systems keep what a check has found; it is the file system's own.
const LOST: &str = "lost+found";

/// Paths of the list of a snapshot, by [`path_key`].
#[derive(Debug, Default, PartialEq)]
pub struct Keys {
    /// Those that must be found on the target.
    here: Vec<u64>,
    /// Those in places of it that are not looked through.
    elsewhere: Vec<u64>,
    /// How many entries each path stands for that may not be UTF-8: all their bytes restic lists as one and the same sign.
    /// It has the bytes in its list for people only, where a line break in a name cannot be told from the end of one.
    unclear: HashMap<u64, u32>,
}

impl Keys {
    /// Takes note of a path.
    pub fn add(&mut self, path: &str, is_elsewhere: bool) {
        let key = path_key(path);
        if is_elsewhere { &mut self.elsewhere } else { &mut self.here }.push(key);
        if is_unclear(path) {
            *self.unclear.entry(key).or_default() += 1;
        }
    }

    /// Adds those of another list, which may have the same entries.
    pub fn extend(&mut self, other: Self) {
        self.here.extend(other.here);
        self.elsewhere.extend(other.elsewhere);
        for (key, count) in other.unclear {
            let most = self.unclear.entry(key).or_default();
            *most = count.max(*most);
        }
    }
}

/// Whether a path may stand for several names.
pub fn is_unclear(path: &str) -> bool {
    path.contains(char::REPLACEMENT_CHARACTER)
}

/// Paths that snapshots hold: nine bytes each, also of a tree of millions.
#[derive(Debug, Default)]
pub struct Kept {
    here: Vec<u64>,
    seen: Vec<bool>,
    elsewhere: Vec<u64>,
    unclear: HashMap<u64, u32>,
}

impl Kept {
    /// What any of the lists has.
    pub fn new(keys: Keys) -> Self {
        let Keys { mut here, mut elsewhere, unclear } = keys;
        for all in [&mut here, &mut elsewhere] {
            all.sort_unstable();
            all.dedup();
        }
        Self { seen: vec![false; here.len()], here, elsewhere, unclear }
    }

    /// Whether a snapshot holds the path, of which it is noted that it is there.
    pub fn has(&mut self, path: &str) -> bool {
        let key = path_key(path);
        if let Ok(at) = self.here.binary_search(&key) {
            self.seen[at] = true;
            return true;
        }
        self.elsewhere.binary_search(&key).is_ok()
    }

    /// How many of those that must be found are not noted.
    pub fn missing(&self) -> usize {
        self.seen.iter().filter(|seen| !**seen).count()
    }

    /// How many must be found.
    pub fn count(&self) -> usize {
        self.here.len()
    }

    /// How many entries a path stands for whose name is not UTF-8.
    pub fn entries_of(&self, key: u64) -> u32 {
        self.unclear.get(&key).copied().unwrap_or_default()
    }
}

/// Whether a path is in a place of the volume of `mount` that is not looked through: in one that is mounted below, or
/// in what is the file system's own.
pub fn is_elsewhere(path: &str, mount: &str, mounts: &[String]) -> bool {
    let is_below = |m: &String| m != mount && within(m, mount) && within(path, m);
    mounts.iter().any(is_below) || is_lost(path, mount)
}

/// The innermost mount that a path is in.
pub fn mount_of<'a>(path: &str, mounts: &'a [String]) -> Option<&'a String> {
    mounts.iter().filter(|m| within(path, m)).max_by_key(|m| m.len())
}

/// Whether a path is in what is the file system's own.
pub fn is_lost(path: &str, mount: &str) -> bool {
    let rest = path.strip_prefix(mount.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
    rest.is_some_and(|rest| rest.split('/').next() == Some(LOST))
}
