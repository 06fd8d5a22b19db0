//! Walks one path, and decides for each entry whether it is kept or deleted.
//!
//! Works relative to the open folder: each name is looked up in it and deleted from it.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::atomic::Ordering;

use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags, Timespec, Timestamps, UTIME_OMIT, fstat,
    futimens, openat, statat, statx, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::contract::Failure;
use crate::drivers::restic::blocking::{Shared, stopped};
use crate::drivers::restic::extraneous::error::{WHILE_DELETING, refuse, unreadable};
use crate::drivers::restic::extraneous::kept::{Kept, is_elsewhere, is_lost, is_unclear};
use crate::drivers::restic::output::path_key;
use crate::drivers::restic::pattern::{LeftOut, Walk};

/// Maximum depth of folders. restic itself is limited by paths of 4096 bytes, which is 2048 levels.
pub const DEEPEST: usize = 2500;
/// File descriptors that are reserved for other uses.
const OTHERS: u64 = 124;
/// Maximum number of deleted entries in the log.
const LOGGED: u64 = 1000;
/// Maximum number of skipped folders in warnings.
const NAMED: usize = 3;

/// Flags for opening folders: links are never followed.
pub const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Maximum depth: each open folder needs a file descriptor. The limit is usually 1024; a process may raise it.
pub fn deepest() -> usize {
    let (limit, want) = (getrlimit(Resource::Nofile), DEEPEST as u64 + OTHERS);
    let Some(current) = limit.current.filter(|current| *current < want) else { return DEEPEST };
    let more = limit.maximum.map_or(want, |most| most.min(want)).max(current);
    let is_raised = setrlimit(Resource::Nofile, Rlimit { current: Some(more), ..limit }).is_ok();
    let have = if is_raised { more } else { current };
    usize::try_from(have.saturating_sub(OTHERS)).unwrap_or(DEEPEST).min(DEEPEST)
}

/// Result of a walk.
#[derive(Debug, Default)]
pub struct Found {
    /// Extraneous entries.
    pub extraneous: u64,
    /// Entries that could not be deleted: their number, and the first one.
    pub kept_by_error: u64,
    pub refused: Option<(String, Errno)>,
    /// Skipped folders.
    pub left: Vec<String>,
    /// One of several entries with the same displayed name, of which the snapshots contain fewer.
    pub unclear: Option<String>,
}

/// A walk through one region.
pub struct Pass<'a> {
    pub mounts: &'a [String],
    pub kept: &'a mut Kept,
    pub walk: Walk,
    pub left_out: &'a mut [LeftOut],
    /// Number of entries found for each path that may represent several.
    pub unclear: HashMap<u64, u32>,
    pub deepest: usize,
    /// Length of the prefix of a path before the part that patterns match.
    pub base: usize,
    pub mount: &'a str,
    pub device: u64,
    /// Roots of the other mounts of the restore: a volume may be mounted twice.
    pub others: Vec<(u64, u64)>,
    pub deletes: bool,
    pub shared: &'a Shared,
    pub found: &'a mut Found,
}

impl Pass<'_> {
    /// Whether all entries in a folder are extraneous, or were deleted.
    pub fn folder(&mut self, folder: OwnedFd, path: &str, depth: usize) -> Result<bool, Failure> {
        if depth > self.deepest {
            return Err(refuse(format!(
                "Everything is restored, but {path} has more than {} levels of folders, so it was not searched for extraneous files.",
                self.deepest
            )));
        }
        let before = fstat(&folder).map_err(|e| unreadable(path, e))?;
        let mut list = Dir::new(folder).map_err(|e| unreadable(path, e))?;
        let (mut all, deleted) = (true, self.shared.deleted.load(Ordering::Relaxed));
        while let Some(entry) = list.read() {
            let entry = entry.map_err(|e| unreadable(path, e))?;
            let name = entry.file_name();
            if [&b"."[..], b".."].contains(&name.to_bytes()) {
                continue;
            }
            self.shared.moved.fetch_add(1, Ordering::Relaxed);
            if self.shared.is_over() {
                return Err(stopped(WHILE_DELETING));
            }
            let inner = format!("{}/{}", path.trim_end_matches('/'), text(name));
            let parent = list.fd().map_err(|e| unreadable(path, e))?;
            all &= self.entry(parent, name, entry.file_type(), &inner, depth)?;
        }
        if self.deletes && deleted != self.shared.deleted.load(Ordering::Relaxed) {
            put_back_time(list.fd(), &before, path);
        }
        Ok(all)
    }

    /// Whether an entry is extraneous, or was deleted.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        path: &str,
        depth: usize,
    ) -> Result<bool, Failure> {
        let kind = match kind {
            FileType::Unknown => match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => FileType::from_raw_mode(found.st_mode),
                Err(Errno::NOENT) => return Ok(true),
                Err(e) => return Err(unreadable(path, e)),
            },
            kind => kind,
        };
        let is_folder = kind.is_dir();
        let is_kept = self.kept.has(path);
        let is_one_too_many = is_kept && is_unclear(path) && self.is_one_too_many(path);
        let (stays, is_in_none) = self.look_left_out(path, is_folder);
        let (selected, opens) = self.walk.look(&path[self.base..], is_folder);
        if is_elsewhere(path, self.mount, self.mounts) {
            if !is_lost(path, self.mount) && opens {
                self.leave(path);
            }
            return Ok(false);
        }
        if is_folder {
            // The content is searched if a pattern can match in it, also if the folder itself is kept.
            if !opens || is_in_none {
                return Ok(false);
            }
            let inner = match openat(parent, name, FOLDER, Mode::empty()) {
                Ok(inner) => inner,
                Err(Errno::NOENT) => return Ok(true),
                Err(e) => return Err(unreadable(path, e)),
            };
            let at = fstat(&inner).map_err(|e| unreadable(path, e))?;
            if at.st_dev != self.device || self.others.contains(&(at.st_dev, at.st_ino)) || is_mount(inner.as_fd()) {
                self.leave(path);
                return Ok(false);
            }
            if !self.folder(inner, path, depth + 1)? {
                return Ok(false);
            }
        }
        if is_kept || !selected || stays {
            if is_one_too_many && selected && !stays {
                self.found.unclear.get_or_insert_with(|| path.to_owned());
            }
            return Ok(false);
        }
        self.found.extraneous += 1;
        Ok(!self.deletes || self.unlink(parent, name, is_folder, path))
    }

    /// Whether a backup excluded an entry; and whether all backups of this path did, so that no snapshot contains it
    /// or its content.
    fn look_left_out(&mut self, path: &str, is_folder: bool) -> (bool, bool) {
        let (mut any, mut all) = (false, true);
        for left in &mut *self.left_out {
            let (is_of, is_out) = left.look(path, is_folder);
            any |= is_out;
            all &= is_out || !is_of;
        }
        (any, any && all)
    }

    /// Whether the target has more entries with this displayed name than the snapshots.
    fn is_one_too_many(&mut self, path: &str) -> bool {
        let key = path_key(path);
        let seen = self.unclear.entry(key).or_default();
        *seen += 1;
        *seen > self.kept.entries_of(key)
    }

    /// Whether the entry was deleted.
    fn unlink(&mut self, parent: BorrowedFd<'_>, name: &CStr, is_folder: bool, path: &str) -> bool {
        let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match unlinkat(parent, name, flags) {
            Ok(()) => {
                let count = self.shared.deleted.fetch_add(1, Ordering::Relaxed) + 1;
                if count <= LOGGED {
                    tracing::info!(entry = path, "deleted");
                } else if count == LOGGED + 1 {
                    tracing::info!("deleted entries beyond the first {LOGGED} are not named");
                }
                true
            }
            Err(Errno::NOENT) => true,
            Err(error) => {
                self.found.kept_by_error += 1;
                self.found.refused.get_or_insert_with(|| (path.to_owned(), error));
                false
            }
        }
    }

    fn leave(&mut self, path: &str) {
        if self.found.left.len() < NAMED && !self.found.left.iter().any(|l| l == path) {
            self.found.left.push(path.to_owned());
        }
    }
}

/// Whether a folder is the root of a mount, if the kernel reports it (Linux 5.8): two volumes may be on one device.
fn is_mount(folder: BorrowedFd<'_>) -> bool {
    let found = statx(folder, c"", AtFlags::EMPTY_PATH, StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Restores the modification time of a folder after deletions in it.
fn put_back_time(folder: rustix::io::Result<BorrowedFd<'_>>, before: &Stat, path: &str) {
    #[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast, reason = "below a thousand million")]
    let last_modification = Timespec { tv_sec: before.st_mtime as _, tv_nsec: before.st_mtime_nsec as _ };
    let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification };
    if let Err(error) = folder.and_then(|folder| futimens(folder, &times)) {
        tracing::debug!(folder = path, %error, "the time of a folder is not as it was");
    }
}

/// A name as restic lists it: each byte that is not UTF-8 is one replacement character, as in Go's JSON.
pub fn text(name: &CStr) -> String {
    text_of(name.to_bytes())
}

/// The same, for bytes.
pub fn text_of(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}
