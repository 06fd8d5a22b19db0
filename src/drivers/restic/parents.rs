//! Folders that a restore only goes through, as they were.
//!
//! restic gives every folder that leads to what it restores the mode, owner and attributes of the snapshot. One that
//! was there before is not asked for, and stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lremovexattr, lsetxattr};

use super::pattern::{Below, Walk};
use super::planned::below;

/// Most bytes of the names, or of a value, of extended attributes (Linux, `XATTR_LIST_MAX`).
const XATTR: usize = 64 << 10;

/// What of a folder a restore could change.
#[derive(Debug, PartialEq)]
struct Folder {
    mode: u32,
    owner: (u32, u32),
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The folders that are there, and not selected themselves.
pub struct Parents(Vec<(PathBuf, Folder)>);

impl Parents {
    /// As they are now. Where nothing lies between the folder and what is restored, there are none.
    pub fn of(root: &Path, part: &Below) -> Self {
        let mut found = vec![];
        if part.patterns.iter().any(|p| is_deep(p)) {
            let mut walk = Walk::new(&part.patterns);
            note(&below(root, &part.base), String::new(), &mut walk, &mut found);
        }
        Self(found)
    }

    /// Undoes what a restore has changed of them.
    pub fn put_back(&self) {
        for (path, folder) in &self.0 {
            if Folder::of(path).is_none_or(|now| now != *folder)
                && let Err(error) = folder.put_back(path)
            {
                tracing::warn!(folder = %path.display(), %error, "a folder that was there before is not as it was");
            }
        }
    }
}

/// Links of the target in the place of folders that a restore would only go through: paths below the base. restic would
/// write to where they point.
pub fn links(root: &Path, part: &Below) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if part.patterns.iter().any(|p| is_deep(p)) {
        note_links(&below(root, &part.base), "", &mut Walk::new(&part.patterns), &mut found);
    }
    found
}

fn note_links(folder: &Path, path: &str, walk: &mut Walk, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() || kind.is_symlink() {
            let inner = format!("{path}/{}", entry.file_name().to_string_lossy());
            match walk.look(&inner, true) {
                (_, true) if kind.is_dir() => note_links(&entry.path(), &inner, walk, found),
                (false, true) => drop(found.insert(inner)),
                _ => {}
            }
        }
    }
}

/// Whether folders can lie between the base and what a pattern selects.
fn is_deep(pattern: &str) -> bool {
    !pattern.starts_with('!') && pattern.matches('/').count() > 1
}

fn note(folder: &Path, path: String, walk: &mut Walk, found: &mut Vec<(PathBuf, Folder)>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        let (inner, full) = (format!("{path}/{}", entry.file_name().to_string_lossy()), entry.path());
        let (selected, opens) = walk.look(&inner, true);
        if !selected && let Some(as_it_is) = Folder::of(&full) {
            found.push((full.clone(), as_it_is));
        }
        if opens {
            note(&full, inner, walk, found);
        }
    }
}

impl Folder {
    fn of(path: &Path) -> Option<Self> {
        let found = path.symlink_metadata().ok().filter(fs::Metadata::is_dir)?;
        let mut buffer = vec![0; XATTR];
        let names = llistxattr(path, &mut buffer[..]).map(|n| buffer[..n].to_vec()).unwrap_or_default();
        let mut attributes = BTreeMap::new();
        for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
            if let Ok(size) = lgetxattr(path, name, &mut buffer[..]) {
                attributes.insert(name.to_vec(), buffer[..size].to_vec());
            }
        }
        Some(Self { mode: found.mode() & 0o7777, owner: (found.uid(), found.gid()), attributes })
    }

    fn put_back(&self, path: &Path) -> std::io::Result<()> {
        let Some(now) = Self::of(path) else { return Ok(()) };
        if now.owner != self.owner {
            lchown(path, Some(self.owner.0), Some(self.owner.1))?;
        }
        for name in now.attributes.keys().filter(|name| !self.attributes.contains_key(*name)) {
            lremovexattr(path, name.as_slice())?;
        }
        for (name, value) in self.attributes.iter().filter(|(name, value)| now.attributes.get(*name) != Some(value)) {
            lsetxattr(path, name.as_slice(), value, XattrFlags::empty())?;
        }
        // After the owner, which takes set-user-id off, and after an access list, which is a mode too.
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode))
    }
}
