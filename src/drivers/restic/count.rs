//! Counts what a restore will write, from a list of the snapshot, and checks whether the Job can write it.
//!
//! One `restic ls` per path, only of the folder that contains the selected files. Counts as restic does at the end of
//! a restore: folders, links and other entries count as one each, sockets are not counted, and further hard links of
//! a file add no bytes. The list does not show hard links, so the number of bytes is an estimate, and may be too low.

use std::collections::HashSet;

use crate::contract::restic::{Counts, PinnedSnapshot};
use crate::contract::{Class, Failure};
use crate::drivers::restic::checks::Identity;
use crate::drivers::restic::extraneous;
use crate::drivers::restic::extraneous::Keys;
use crate::drivers::restic::output::{Message, path_key};
use crate::drivers::restic::paths::within;
use crate::drivers::restic::pattern::{Below, Walk};
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::run::{Limit, STUCK};
use crate::drivers::restic::{args, pattern};
use crate::names::reason;

/// Maximum number of devices that a message names.
const NAMED: usize = 3;

/// Maximum number of owners with which each volume is tested.
const OWNERS: usize = 2;

/// The selected entries of a path of a snapshot.
#[derive(Debug, Default, PartialEq)]
pub struct Counted {
    /// Entries and bytes. A file with the same inode, size and time as another one counts as a hard link to it.
    pub counts: Counts,
    /// Bytes if there are no hard links: a file may have been renamed during the backup, and two file systems may
    /// have the same inodes. A restore with fewer bytes than counted is never correct: then restic treated different
    /// files with the same inode as one, because the file changed during the backup, or the inode was reused.
    pub most: u64,
    /// The snapshot contains the path, or an entry in it, selected or not.
    pub is_held: bool,
    /// Some entries are not the requested folder itself.
    pub has_content: bool,
    /// Up to two different owners. A volume that assigns one owner to all files cannot store both.
    pub owners: Vec<(u32, u32)>,
    /// Number of device files, and the first ones.
    pub devices: (u64, Vec<String>),
    /// The first entry whose owner the Job cannot set, and that owner.
    pub unowned: Option<(String, u32, u32)>,
    /// Paths of the entries, if requested.
    pub keys: Keys,
}

/// User and mounts of the restore.
#[derive(Debug)]
pub struct Asker<'a> {
    /// The owners that the user can set; `None` if owners are not restored.
    pub identity: Option<&'a Identity>,
    /// Mount points, normalised. Their owners are not changed, because they belong to the volume.
    pub mounts: &'a [String],
    /// Collect paths, to detect extraneous files.
    pub keys: bool,
}

/// Counts the entries that `below` selects of the path `root` of a snapshot.
///
/// # Errors
/// The list failed.
pub async fn count(
    repository: &Repository,
    pin: &PinnedSnapshot,
    root: &str,
    below: &Below,
    asker: &Asker<'_>,
) -> Result<Counted, Failure> {
    if below.patterns.is_empty() {
        // No entry of the path is selected.
        return Ok(Counted { is_held: true, ..Counted::default() });
    }
    let start = || Count::new(root, below, asker);
    let mut counted = listed(repository, pin, &below.base, start, Count::take).await?.counted;
    // Only deeper entries were listed, and there are none.
    if !counted.is_held && below.base != root && within(&below.base, root) {
        counted.is_held = listed(repository, pin, root, || false, |is_held, m| *is_held |= is_in(m, root)).await?;
    }
    Ok(counted)
}

/// Whether an entry is the path, or in it. restic also lists the snapshot itself.
fn is_in(m: &Message, root: &str) -> bool {
    !m.node_type.is_empty() && within(&m.path, root)
}

/// Processes the list of a folder of a snapshot, before data is written. If the list is interrupted, it is repeated,
/// with a new result.
///
/// # Errors
/// The list failed.
pub async fn listed<T>(
    repository: &Repository,
    pin: &PinnedSnapshot,
    folder: &str,
    start: impl Fn() -> T,
    take: impl Fn(&mut T, &Message) + Sync,
) -> Result<T, Failure>
where
    T: Send,
{
    let mut again = false;
    loop {
        let mut all = start();
        let argv = args::ls(&pin.id, folder);
        let ran = repository.lines(argv, Limit::Idle(STUCK), &mut |message| take(&mut all, message)).await;
        if ran.ended_well() {
            return Ok(all);
        }
        let failure = repository.failure(&ran, &format!("list snapshot {}; nothing was written", pin.short()));
        repository.once_more(failure, &mut again).await?;
    }
}

struct Count<'a> {
    root: &'a str,
    base: &'a str,
    walk: Walk,
    asker: &'a Asker<'a>,
    /// The mount that the path is in.
    mount: &'a str,
    /// Files by inode, size and time: a file with several names is restored once.
    files: HashSet<(u64, u64, u64)>,
    counted: Counted,
}

impl<'a> Count<'a> {
    fn new(root: &'a str, below: &'a Below, asker: &'a Asker<'a>) -> Self {
        let walk = pattern::Walk::new(&below.patterns);
        let mount = extraneous::mount_of(root, asker.mounts).map_or("/", String::as_str);
        Self { root, base: &below.base, walk, asker, mount, files: HashSet::new(), counted: Counted::default() }
    }

    fn take(&mut self, m: &Message) {
        self.counted.is_held |= is_in(m, self.root);
        let rest = if self.base == "/" { Some(m.path.as_str()) } else { m.path.strip_prefix(self.base) };
        // restic also lists the folder itself, and the snapshot.
        let Some(rest) = rest.filter(|rest| rest.len() > 1 && rest.starts_with('/') && !m.node_type.is_empty()) else {
            return;
        };
        let is_folder = m.node_type == "dir";
        if !self.walk.selects(rest, is_folder) {
            return;
        }
        // Other programs store sockets. restic does not restore them; an existing one is kept.
        let is_socket = m.node_type == "socket";
        let counted = &mut self.counted;
        if self.asker.keys {
            let is_elsewhere = is_socket || extraneous::is_elsewhere(&m.path, self.mount, self.asker.mounts);
            counted.keys.add(&m.path, is_elsewhere);
        }
        if is_socket {
            return;
        }
        counted.counts.files += 1;
        if m.node_type == "file" {
            counted.most += m.size;
            if m.inode == 0 || self.files.insert((m.inode, m.size, path_key(&m.mtime))) {
                counted.counts.bytes += m.size;
            }
        }
        counted.has_content |= !is_folder || m.path != self.root;
        if ["dev", "chardev"].contains(&m.node_type.as_str()) {
            counted.devices.0 += 1;
            if counted.devices.1.len() < NAMED {
                counted.devices.1.push(m.path.clone());
            }
        }
        if self.asker.mounts.contains(&m.path) {
            return;
        }
        counted.owned_by((m.uid, m.gid));
        if counted.unowned.is_none() && self.asker.identity.is_some_and(|me| !me.can_make(m.uid, m.gid)) {
            counted.unowned = Some((m.path.clone(), m.uid, m.gid));
        }
    }
}

impl Counted {
    /// Whether the snapshot does not contain the path or, without patterns, nothing in it.
    pub fn lacks(&self, include: &[String]) -> bool {
        !self.is_held || (self.counts.files == 0 && include.is_empty())
    }

    /// Whether these counts are possible for a complete restore.
    pub fn can_be(&self, restored: Counts) -> bool {
        restored.files == self.counts.files && (self.counts.bytes..=self.most).contains(&restored.bytes)
    }

    /// Adds the selected entries of another path.
    pub fn add(&mut self, other: Self) {
        self.counts.files += other.counts.files;
        self.counts.bytes += other.counts.bytes;
        self.most += other.most;
        self.has_content |= other.has_content;
        other.owners.into_iter().for_each(|owner| self.owned_by(owner));
        self.devices.0 += other.devices.0;
        self.devices.1.extend(other.devices.1);
        self.devices.1.truncate(NAMED);
        self.unowned = self.unowned.take().or(other.unowned);
        self.keys.extend(other.keys);
    }

    fn owned_by(&mut self, owner: (u32, u32)) {
        if self.owners.len() < OWNERS && !self.owners.contains(&owner) {
            self.owners.push(owner);
        }
    }

    /// The owners, as [`crate::contract::restic::HostAnswer::owner`] has them.
    pub fn owners_text(&self) -> Option<String> {
        let all: Vec<String> = self.owners.iter().map(|(uid, gid)| format!("{uid}:{gid}")).collect();
        (!all.is_empty()).then(|| all.join(","))
    }

    /// The error for a Job that may not create device files.
    pub fn devices_refused(&self) -> Option<Failure> {
        let (count, named) = &self.devices;
        let text = format!(
            "{count} device files (for example {}) require the capability MKNOD, which the Job does not have. Add it in runtimeSettings.container.securityContext.capabilities, together with the default capabilities (CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP), or exclude the files with exclude. Nothing was written.",
            named.first()?
        );
        Some(Failure::new(Class::Invalid, reason::DEVICES, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, node_type: &str, inode: u64, size: u64) -> Message {
        let mtime = "2026-01-01T00:00:00Z".to_owned();
        Message { path: path.into(), node_type: node_type.into(), inode, size, mtime, ..Message::default() }
    }

    fn counted(below: &Below, keys: bool, entries: &[Message]) -> Counted {
        let mounts = ["/data".to_owned()];
        let asker = Asker { identity: None, mounts: &mounts, keys };
        let mut count = Count::new("/data", below, &asker);
        entries.iter().for_each(|m| count.take(m));
        count.counted
    }

    fn all() -> Below {
        pattern::select("/data", &[], &[]).unwrap()
    }

    /// The list does not show which of the files were hard links.
    #[test]
    fn bytes_have_bounds_where_files_may_be_hard_links_of_each_other() {
        for (entries, bytes, most) in [
            ([entry("/data/a", "file", 7, 10), entry("/data/b", "file", 8, 5)], 15, 15),
            // A hard link, or a file that was renamed while the folder was read.
            ([entry("/data/a", "file", 7, 10), entry("/data/b", "file", 7, 10)], 10, 20),
            // Files of two file systems. On one file system, restic would link one to the other, with the wrong
            // content.
            ([entry("/data/a", "file", 7, 15), entry("/data/b", "file", 7, 10)], 25, 25),
            ([entry("/data/a", "file", 0, 10), entry("/data/b", "file", 0, 10)], 20, 20),
        ] {
            let counted = counted(&all(), false, &entries);
            assert_eq!((counted.counts, counted.most), (Counts { files: 2, bytes }, most), "{entries:?}");
            let can_be = |files, bytes| counted.can_be(Counts { files, bytes });
            assert!(can_be(2, bytes) && can_be(2, most) && !can_be(1, bytes) && !can_be(3, bytes));
            assert!(!can_be(2, bytes - 1) && !can_be(2, most + 1));
        }
    }

    /// restic does not restore sockets, and its backups have none.
    #[test]
    fn sockets_of_other_programs_are_not_counted_and_stay_where_they_are() {
        let entries = [entry("/data/a", "file", 7, 10), entry("/data/s", "socket", 8, 0)];
        let counted = counted(&all(), true, &entries);
        assert_eq!((counted.counts, counted.has_content), (Counts { files: 1, bytes: 10 }, true));
        let mut wanted = Keys::default();
        wanted.add("/data/a", false);
        wanted.add("/data/s", true);
        assert_eq!(counted.keys, wanted);
    }

    #[test]
    fn a_path_is_held_if_it_is_there_whatever_is_selected_of_it() {
        let sql = pattern::select("/data", &["*.sql".to_owned()], &[]).unwrap();
        let is_held = |entries: &[Message]| counted(&sql, false, entries).is_held;
        assert!(!is_held(&[]));
        assert!(!is_held(&[entry("", "", 0, 0), entry("/database", "dir", 1, 0)]));
        assert!(is_held(&[entry("/data", "dir", 1, 0)]));
        assert!(is_held(&[entry("/data/a.txt", "file", 1, 0)]));
    }
}
