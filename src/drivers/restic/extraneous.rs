//! Deletes what is on a target and in none of the snapshots that were restored to it.
//!
//! Not by `restic restore --delete` (tried with 0.18.0): it deletes in the run that restores, also where a file of that
//! run failed; it deletes for each snapshot what another one of the same host has brought; a folder that the
//! snapshot does not have goes with the files in it that a pattern excludes; and it enters volumes that are mounted below.
//! Here a walk of our own begins after everything is restored and counted.
//!
//! What never happens: a symbolic link is never followed, and no folder is entered that is on another device, the root of
//! a mount, or `lost+found` of the volume. Every folder is opened from the one that it is in, so that
//! nobody can put a link in its place. An entry stays if a snapshot holds its path, by a hash: two paths with the
//! same one keep an entry too much, and delete none. It also stays if the backup of any of the snapshots left it out: what
//! the rule selects and what each backup excluded are asked apart, so that no pattern of the one takes back one of another.
//!
//! Before the first deletion all that was restored must be found under its name. A volume that knows
//! files by other names (one that ignores the case of letters) would otherwise lose what it has just got back.

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

/// Looks at the whole of it. A file system may leave entries out of a list while others are deleted; what is found after
/// as many looks is being written by somebody.
const LOOKS: usize = 10;
/// What is looked through: what the patterns select of a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// The path, normalised.
    pub root: String,
    /// The patterns of the rule, below a folder.
    pub below: Below,
}

impl Region {
    /// The folder that is looked through. It stays itself: the user has named it, or it is above what is selected.
    fn start(&self) -> &str {
        if within(&self.below.base, &self.root) { &self.below.base } else { &self.root }
    }
}

/// What was restored, and where.
#[derive(Debug, Default)]
pub struct Search {
    /// Folder below which the volumes stand.
    pub restore_root: PathBuf,
    /// Mount points, normalised.
    pub mounts: Vec<String>,
    /// Paths of the rule.
    pub regions: Vec<Region>,
    /// What the backups of the snapshots left out, each of which is for all regions.
    pub left_out: Vec<LeftOut>,
    /// What the snapshots hold.
    pub kept: Kept,
}

/// Deletes what is extraneous. How many entries that were, also where it fails.
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
        "Everything is restored, but a volume has not answered for {} minutes while extraneous files were deleted. Lifeboat tries again within the deadline.",
        STUCK.as_secs() / 60
    );
    Failure { class: Class::Transient, ..refuse(text) }
}

impl Search {
    /// Looks, deletes, and looks again until nothing is found. What is to be known of it.
    fn run(&mut self, shared: &Shared) -> Result<Vec<String>, Failure> {
        for look in 0..LOOKS {
            let found = self.pass(shared, false)?;
            let missing = self.kept.missing();
            if missing > 0 {
                return Err(refuse(format!(
                    "{missing} of {} entries that were restored are not found under their names, so nothing more is deleted. The volume may ignore the case of letters or change names, or something else writes to it.",
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
                    "Everything is restored, but {count} could not be deleted, {path} for example: {error}. Delete {them}, or leave {them} out by exclude of the rule, and restore again."
                );
                return Err(Failure { class: class_of(error), ..refuse(text) });
            }
        }
        Err(refuse(format!(
            "Everything is restored, but extraneous entries were found again after {LOOKS} looks: something else writes to the volume. Stop it, and restore again."
        )))
    }

    /// What is to be said of a search that found nothing more.
    fn warnings(&self, found: Found) -> Vec<String> {
        let left = found.left.into_iter().filter(|left| !self.regions.iter().any(|r| within(&r.root, left)));
        let entered = left.map(|folder| format!("{folder} was not looked through for extraneous files, because another volume is mounted there. Name it in paths of the rule, if its files shall go too."));
        let unclear = found.unclear.map(|path| format!("Entries whose names are not UTF-8 were not deleted, {path} for example: restic lists their names like those of restored entries. Compare them with the backup, and delete what is not in it."));
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
            // Inside of it by the check before the first byte.
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

    /// Opens a folder of a volume, through none but folders. `None` where it is not there, or is no folder.
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

    /// Whether something stands at a path that is no folder.
    fn is_there(&self, mount: &str, path: &str) -> bool {
        let Some((above, name)) = path.rsplit_once('/').filter(|_| path != mount) else { return false };
        let above = self.open(mount, if above.is_empty() { "/" } else { above });
        above.is_ok_and(|above| above.is_some_and(|(fd, _)| statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()))
    }
}

#[cfg(test)]
mod tests;
