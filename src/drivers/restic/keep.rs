//! Detects files that restic would not keep with `--overwrite never` and `if-newer`, before data is written.
//!
//! restic (0.18.0) removes any file in place of a folder of the snapshot. For hard links it writes the first name and
//! links the others to it: if the first name is kept, the others become links to the existing file, which then gets
//! owner and time of the snapshot.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::contract::restic::{PinnedSnapshot, Restore, keeps_what_is_there};
use crate::contract::{Class, Failure};
use crate::drivers::restic::count;
use crate::drivers::restic::obstacles::{is_older, overwrite};
use crate::drivers::restic::output::Message;
use crate::drivers::restic::paths::within;
use crate::drivers::restic::pattern::{Below, Walk};
use crate::drivers::restic::planned::below;
use crate::drivers::restic::repository::Repository;
use crate::names::reason;

/// A path of a snapshot, and its selected entries.
pub type Part<'a> = (&'a PinnedSnapshot, &'a str, &'a Below);

/// Rejects a restore that would not keep a file.
///
/// # Errors
/// A file would not be kept, or the snapshot could not be listed.
pub async fn check(repository: &Repository, step: &Restore, parts: &[Part<'_>]) -> Result<(), Failure> {
    if !keeps_what_is_there(&step.args) {
        return Ok(());
    }
    for (at, (_, root, _)) in parts.iter().enumerate() {
        if let Some((_, other, _)) = parts[..at].iter().find(|(_, o, _)| within(o, root) || within(root, o)) {
            return Err(refused(&format!(
                "one of {root} and {other} contains the other: files restored by one would be kept by the other"
            )));
        }
    }
    let only_older = overwrite(&step.args) == Some("if-newer");
    for (pin, _, part) in parts.iter().filter(|(_, _, part)| !part.patterns.is_empty()) {
        let start = || Look::new(&repository.restore_root, part, only_older);
        let look = count::listed(repository, pin, &part.base, start, Look::take).await?;
        if let Some(what) = look.conflict() {
            return Err(refused(&what));
        }
    }
    Ok(())
}

fn refused(what: &str) -> Failure {
    let text = format!(
        "{what}, although --overwrite in target.args requires to keep it. Exclude it in the rule, move it, or remove --overwrite. Nothing was written."
    );
    Failure::new(Class::Invalid, reason::WOULD_NOT_BE_KEPT, text)
}

/// Names of one file.
#[derive(Default)]
struct Names {
    kept: Option<String>,
    written: Option<String>,
}

struct Look {
    root: PathBuf,
    base: String,
    walk: Walk,
    only_older: bool,
    /// Files in place of a folder of the snapshot.
    replaced: Option<String>,
    /// By inode. The list does not show which of them are hard links.
    files: HashMap<u64, Names>,
}

impl Look {
    fn new(root: &Path, part: &Below, only_older: bool) -> Self {
        let base = part.base.trim_end_matches('/').to_owned();
        let walk = Walk::new(&part.patterns);
        Self { root: root.to_owned(), base, walk, only_older, replaced: None, files: HashMap::new() }
    }

    fn take(&mut self, m: &Message) {
        let Some(rest) = m.path.strip_prefix(&self.base).filter(|rest| rest.len() > 1 && rest.starts_with('/')) else {
            return;
        };
        let is_folder = m.node_type == "dir";
        if m.node_type.is_empty() || !self.walk.selects(rest, is_folder) {
            return;
        }
        let there = fs::symlink_metadata(below(&self.root, &m.path)).ok();
        if is_folder {
            if self.replaced.is_none() && there.is_some_and(|there| !there.is_dir()) {
                self.replaced = Some(m.path.clone());
            }
        } else if m.node_type == "file" && m.inode != 0 {
            let names = self.files.entry(m.inode).or_default();
            let is_kept = there.is_some_and(|there| !self.only_older || !is_older(&there, &m.mtime));
            let names = if is_kept { &mut names.kept } else { &mut names.written };
            names.get_or_insert_with(|| m.path.clone());
        }
    }

    fn conflict(self) -> Option<String> {
        if let Some(path) = self.replaced {
            return Some(format!(
                "{path} is a folder in the snapshot but not on the target, so restic would delete it"
            ));
        }
        let both = |names: Names| Some((names.kept?, names.written?));
        let (kept, written) = self.files.into_values().filter_map(both).min()?;
        Some(format!(
            "{kept} and {written} are hard links of one file in the snapshot, and only the first is kept: restic would link the second to it"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::restic::pattern;

    fn conflict(only_older: bool, entries: &[(&str, &str, u64)]) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("data/folder")).unwrap();
        for name in ["there", "other"] {
            fs::write(root.path().join("data").join(name), "x").unwrap();
        }
        let part = pattern::select("/data", &[], &["*.tmp".to_owned()]).unwrap();
        let mut look = Look::new(root.path(), &part, only_older);
        for (path, node_type, inode) in entries {
            let mtime = "2000-01-01T00:00:00Z".to_owned();
            look.take(&Message {
                path: (*path).into(),
                node_type: (*node_type).into(),
                inode: *inode,
                mtime,
                ..Message::default()
            });
        }
        look.conflict()
    }

    #[test]
    fn what_would_be_deleted_or_linked_is_found() {
        assert_eq!(
            conflict(false, &[("/data/folder", "dir", 1), ("/data/there", "file", 2), ("/data/new", "file", 3)]),
            None
        );
        assert!(conflict(false, &[("/data/there", "dir", 1)]).unwrap().starts_with("/data/there is a folder"));
        for only_older in [false, true] {
            let half = conflict(only_older, &[("/data/there", "file", 7), ("/data/new", "file", 7)]).unwrap();
            assert!(half.starts_with("/data/there and /data/new are hard links of one file"), "{half}");
            assert_eq!(
                conflict(only_older, &[("/data/there", "file", 7), ("/data/other", "file", 7)]),
                None,
                "all are kept"
            );
            assert_eq!(
                conflict(only_older, &[("/data/new", "file", 7), ("/data/newer", "file", 7)]),
                None,
                "none is there"
            );
            assert_eq!(
                conflict(only_older, &[("/data/there", "file", 7), ("/data/new.tmp", "file", 7)]),
                None,
                "left out"
            );
        }
    }
}
