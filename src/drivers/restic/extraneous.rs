//! Deletes files on a target that are in none of the snapshots restored to it.
//!
//! `restic restore --delete` is not used (tested with 0.18.0): it deletes during the restore, even if a file failed;
//! it deletes files of other snapshots of the same host; it deletes a folder that is not in the snapshot together
//! with excluded files in it; and it enters volumes that are mounted below. Therefore this module walks the target
//! itself, after everything is restored and counted.
//!
//! Symbolic links are never followed. Folders on another device, roots of mounts, and `lost+found` of the volume are
//! skipped. Every folder is opened relative to its parent, so that it cannot be replaced by a link. An entry is kept
//! if a snapshot contains its path, compared by a hash: a collision keeps an entry, but never deletes one. It is also
//! kept if the backup of any of the snapshots excluded it. The patterns of the rule and of each backup are matched
//! separately, so that no pattern negates one of another list.
//!
//! Before the first deletion, all restored entries must be found by their names. Otherwise restored files could be
//! deleted on a volume that changes names (for example because it ignores case).

mod error;
mod kept;
mod walk;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use crate::contract::{Class, Failure};
use crate::drivers::restic::blocking;
use crate::drivers::restic::blocking::Shared;
use crate::drivers::restic::extraneous::error::{WHILE_DELETING, class_of, refuse, unreadable};
pub use crate::drivers::restic::extraneous::kept::{Kept, Keys, is_elsewhere, mount_of};
pub use crate::drivers::restic::extraneous::walk::text_of;
use crate::drivers::restic::extraneous::walk::{FOLDER, Found, Pass};
use crate::drivers::restic::paths::within;
use crate::drivers::restic::pattern::{Below, LeftOut, Walk};
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::run::STUCK;
use crate::text;

/// Maximum number of walks. A file system may omit entries from a list while others are deleted; entries that are
/// still found after so many walks are being written by another process.
const LOOKS: usize = 10;
/// A region: the entries of a path that the patterns select.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// The path, normalised.
    pub root: String,
    /// The patterns of the rule, below a folder.
    pub below: Below,
}

impl Region {
    /// The folder to search. It is kept itself, because the user specified it, or it is a parent of the selected
    /// entries.
    fn start(&self) -> &str {
        if within(&self.below.base, &self.root) { &self.below.base } else { &self.root }
    }
}

/// What was restored, and its location.
#[derive(Debug, Default)]
pub struct Search {
    /// Folder below which the volumes are mounted.
    pub restore_root: PathBuf,
    /// Mount points, normalised.
    pub mounts: Vec<String>,
    /// Paths of the rule.
    pub regions: Vec<Region>,
    /// The excludes of each backup, which apply to all regions.
    pub left_out: Vec<LeftOut>,
    /// The paths in the snapshots.
    pub kept: Kept,
}

/// Deletes extraneous entries. Returns their number, also after a failure.
pub async fn delete(repository: &Repository, mut search: Search) -> (u64, Option<Failure>) {
    let shared = Shared::of(&repository.control().stop);
    let ended = blocking::run(shared.clone(), move |shared| search.run(shared)).await;
    let failure = match ended {
        Ok(Ok(warnings)) => {
            warnings.into_iter().for_each(|text| repository.warn(text));
            None
        }
        Ok(Err(failure)) => Some(failure),
        Err(why) => Some(why.failure("The search for extraneous files", WHILE_DELETING, stuck)),
    };
    (shared.deleted.load(Ordering::Relaxed), failure)
}

fn stuck() -> Failure {
    let text = format!(
        "Everything is restored, but a volume has not responded for {} minutes while extraneous files were deleted. It is retried until the deadline.",
        STUCK.as_secs() / 60
    );
    Failure { class: Class::Transient, ..refuse(text) }
}

impl Search {
    /// Walks and deletes until no entry is found. Returns warnings.
    fn run(&mut self, shared: &Shared) -> Result<Vec<String>, Failure> {
        for look in 0..LOOKS {
            let found = self.pass(shared, false)?;
            let missing = self.kept.missing();
            if missing > 0 {
                return Err(refuse(format!(
                    "{missing} of {} restored entries are not found by their names, so no more files are deleted. The volume may ignore case or change names, or another process writes to it.",
                    self.kept.count()
                )));
            }
            if found.extraneous == 0 {
                return Ok(self.warnings(found));
            }
            tracing::info!(entries = found.extraneous, look, "extraneous entries are deleted");
            let gone = self.pass(shared, true)?;
            if let Some((path, error)) = gone.refused {
                let refused = i64::try_from(gone.kept_by_error).unwrap_or(i64::MAX);
                let count = text::count(refused, "extraneous entry", "extraneous entries");
                let them = if refused == 1 { "it" } else { "them" };
                let text = format!(
                    "Everything is restored, but {count} could not be deleted (for example {path}): {error}. Delete {them}, or exclude {them} in the rule, and restore again."
                );
                return Err(Failure { class: class_of(error), ..refuse(text) });
            }
        }
        Err(refuse(format!(
            "Everything is restored, but extraneous entries were still found after {LOOKS} passes: another process writes to the volume. Stop it, and restore again."
        )))
    }

    /// Warnings of a walk that found no more entries.
    fn warnings(&self, found: Found) -> Vec<String> {
        let left = found.left.into_iter().filter(|left| !self.regions.iter().any(|r| within(&r.root, left)));
        let entered = left.map(|folder| format!("{folder} was not searched for extraneous files, because another volume is mounted there. To include it, add it to paths of the rule."));
        let unclear = found.unclear.map(|path| format!("Entries whose names are not UTF-8 were not deleted (for example {path}): restic shows their names as equal to those of restored entries. Compare them with the backup, and delete entries that are not in it."));
        entered.chain(unclear).collect()
    }

    /// One walk through all regions.
    fn pass(&mut self, shared: &Shared, deletes: bool) -> Result<Found, Failure> {
        let mut found = Found::default();
        let used: BTreeSet<String> =
            self.regions.iter().filter_map(|r| mount_of(&r.root, &self.mounts).cloned()).collect();
        let mut roots = vec![];
        for mount in &used {
            let (_, at) = self.open(mount, mount)?.ok_or_else(|| unreadable(mount, Errno::NOTDIR))?;
            roots.push((mount.as_str(), (at.st_dev, at.st_ino)));
        }
        let deepest = walk::deepest();
        for region in self.regions.clone() {
            let start = region.start().to_owned();
            // Within it, as checked before data was written.
            let Some(mount) = mount_of(&start, &self.mounts).cloned() else { continue };
            let opened = self.open(&mount, &start)?;
            if opened.is_some() || self.is_there(&mount, &start) {
                self.kept.has(&start);
            }
            let Some((folder, at)) = opened else { continue };
            let others = roots.iter().filter(|(m, _)| **m != *mount).map(|(_, id)| *id).collect();
            self.left_out.iter_mut().for_each(|left| left.enter(&start));
            let mut walk = Pass {
                mounts: &self.mounts,
                kept: &mut self.kept,
                left_out: &mut self.left_out,
                unclear: HashMap::new(),
                deepest,
                walk: Walk::new(&region.below.patterns),
                base: region.below.base.trim_end_matches('/').len(),
                mount: &mount,
                device: at.st_dev,
                others,
                deletes,
                shared,
                found: &mut found,
            };
            walk.folder(folder, &start, 0)?;
        }
        Ok(found)
    }

    /// Opens a folder of a volume, without following links. `None` if it does not exist, or is not a folder.
    fn open(&self, mount: &str, path: &str) -> Result<Option<(OwnedFd, Stat)>, Failure> {
        let mut folder = openat(CWD, &self.restore_root, FOLDER - OFlags::NOFOLLOW, Mode::empty())
            .map_err(|e| unreadable(path, e))?;
        let mut device = None;
        let mut at = String::new();
        for name in std::iter::once("").chain(path.split('/').filter(|n| !n.is_empty())) {
            if !name.is_empty() {
                at = format!("{at}/{name}");
                folder = match openat(&folder, name, FOLDER, Mode::empty()) {
                    Ok(inner) => inner,
                    Err(Errno::NOENT) => return Ok(None),
                    Err(Errno::NOTDIR | Errno::LOOP) if at == path && at != mount => return Ok(None),
                    Err(e) => return Err(unreadable(&at, e)),
                };
            }
            let here = fstat(&folder).map_err(|e| unreadable(path, e))?.st_dev;
            if at == mount || (at.is_empty() && mount == "/") {
                device = Some(here);
            } else if device.is_some_and(|device| device != here) {
                return Err(unreadable(&at, Errno::XDEV));
            }
        }
        let found = fstat(&folder).map_err(|e| unreadable(path, e))?;
        Ok(Some((folder, found)))
    }

    /// Whether a path exists and is not a folder.
    fn is_there(&self, mount: &str, path: &str) -> bool {
        let Some((above, name)) = path.rsplit_once('/').filter(|_| path != mount) else { return false };
        let above = self.open(mount, if above.is_empty() { "/" } else { above });
        above.is_ok_and(|above| above.is_some_and(|(fd, _)| statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()))
    }
}

#[cfg(test)]
mod tests;
