//! Preserves parent folders of the restored paths.
//!
//! restic sets mode, owner and attributes of the snapshot on every parent folder of the restored files. Existing
//! parent folders must not change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lremovexattr, lsetxattr};

use crate::drivers::restic::pattern::{Below, Walk};
use crate::drivers::restic::planned::below;

/// Most bytes of the names, or of a value, of extended attributes (Linux, `XATTR_LIST_MAX`).
const XATTR: usize = 64 << 10;

/// Attributes of a folder that a restore could change.
#[derive(Debug, PartialEq)]
struct Folder {
    mode: u32,
    owner: (u32, u32),
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The existing folders that are not selected themselves.
pub struct Parents(Vec<(PathBuf, Folder)>);

impl Parents {
    /// Their current attributes. Empty if there are no folders between the base and the restored path.
    pub fn of(root: &Path, part: &Below) -> Self {
        let mut found = vec![];
        through(root, part, &mut |on| {
            if on.is_folder
                && !on.selected
                && let Some(as_it_is) = Folder::of(&on.place)
            {
                found.push((on.place, as_it_is));
            }
        });
        Self(found)
    }

    /// Reverts the changes of a restore.
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

/// Links of the target in place of parent folders of the restored files: paths below the base. restic would write to
/// their targets.
pub fn links(root: &Path, part: &Below) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    through(root, part, &mut |on| {
        if !on.is_folder && !on.selected && on.opens {
            found.insert(on.path);
        }
    });
    found
}

/// A folder on the target, or a link.
struct On {
    place: PathBuf,
    /// Below the base.
    path: String,
    /// No link.
    is_folder: bool,
    /// It is selected itself.
    selected: bool,
    /// Entries in it may be selected.
    opens: bool,
}

/// Visits folders and links between the base and the selected entries, each before its content.
fn through(root: &Path, part: &Below, on: &mut dyn FnMut(On)) {
    let is_deep = |pattern: &String| !pattern.starts_with('!') && pattern.matches('/').count() > 1;
    if part.patterns.iter().any(is_deep) {
        inner(&below(root, &part.base), "", &mut Walk::new(&part.patterns), on);
    }
}

fn inner(folder: &Path, path: &str, walk: &mut Walk, on: &mut dyn FnMut(On)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(kind) = entry.file_type().ok().filter(|kind| kind.is_dir() || kind.is_symlink()) else { continue };
        let (place, path) = (entry.path(), format!("{path}/{}", entry.file_name().to_string_lossy()));
        let (selected, opens) = walk.look(&path, true);
        on(On { place: place.clone(), path: path.clone(), is_folder: kind.is_dir(), selected, opens });
        if kind.is_dir() && opens {
            inner(&place, &path, walk, on);
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
        // After the owner, which clears set-user-id, and after an access control list, which changes the mode.
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode))
    }
}
