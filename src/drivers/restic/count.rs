//! What a restore will write, known from a list of what the snapshot holds: how much, and whether the Job can.
//!
//! One `restic ls` a path, of the folder that holds what is wanted and of no other. Counts as restic counts at the end of
//! a restore: folders, links and other entries are one each, and a file that another one is a hard link to adds no bytes.

use std::collections::HashSet;

use super::checks::Identity;
use super::extraneous::{self, Keys};
use super::output::Message;
use super::pattern::{Below, Walk};
use super::repository::Repository;
use super::restore::{clean_end, short};
use super::run::{Limit, STUCK};
use super::{args, pattern};
use crate::names::reason;
use crate::plan::contract::{Class, Counts, Failure, PinnedSnapshot};

/// Devices that a message names.
const NAMED: usize = 3;

/// Owners that each volume is tried with.
const OWNERS: usize = 2;

/// What is selected of a path of a snapshot.
#[derive(Debug, Default, PartialEq)]
pub struct Counted {
    /// Entries and bytes.
    pub counts: Counts,
    /// Some of it is more than the folder that was asked for.
    pub has_content: bool,
    /// Up to two owners among them. A volume that gives all files one owner keeps no more than one of the two.
    pub owners: Vec<(u32, u32)>,
    /// Device files: how many, and the first of them.
    pub devices: (u64, Vec<String>),
    /// The first entry whose owner the Job cannot give it, and that owner.
    pub unowned: Option<(String, u32, u32)>,
    /// Its paths, where they are asked for.
    pub keys: Keys,
}

/// Whom the restore will run as, and where.
#[derive(Debug)]
pub struct Asker<'a> {
    /// Whose files it can make; `None` where owners do not matter.
    pub identity: Option<&'a Identity>,
    /// Mount points, normalised. They belong to whoever made the volume; their owners are not ours to give.
    pub mounts: &'a [String],
    /// Paths are wanted, to know what is extraneous.
    pub keys: bool,
}

/// Counts what `below` selects of the path `root` of a snapshot.
///
/// # Errors
/// The list could not be had.
pub async fn count(
    repository: &Repository,
    pin: &PinnedSnapshot,
    root: &str,
    below: &Below,
    asker: &Asker<'_>,
) -> Result<Counted, Failure> {
    if below.patterns.is_empty() {
        return Ok(Counted::default());
    }
    let start = || Count::new(root, below, asker);
    Ok(listed(repository, pin, &below.base, start, Count::take).await?.counted)
}

/// What comes of a list of what a snapshot holds in a folder, before anything is written. A list that breaks off is begun
/// again, and so is what comes of it.
///
/// # Errors
/// The list could not be had.
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
        if clean_end(&ran) {
            return Ok(all);
        }
        let failure = repository.failure(&ran, &format!("list snapshot {}; nothing was written", short(pin)));
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
    /// Files by inode and size: one with several names is restored once.
    files: HashSet<(u64, u64, String)>,
    counted: Counted,
}

impl<'a> Count<'a> {
    fn new(root: &'a str, below: &'a Below, asker: &'a Asker<'a>) -> Self {
        let walk = pattern::Walk::new(&below.patterns);
        let mount = extraneous::mount_of(root, asker.mounts).map_or("/", String::as_str);
        Self { root, base: &below.base, walk, asker, mount, files: HashSet::new(), counted: Counted::default() }
    }

    fn take(&mut self, m: &Message) {
        let rest = if self.base == "/" { Some(m.path.as_str()) } else { m.path.strip_prefix(self.base) };
        // restic also names the folder itself, and the snapshot.
        let Some(rest) = rest.filter(|rest| rest.len() > 1 && rest.starts_with('/') && !m.node_type.is_empty()) else {
            return;
        };
        let is_folder = m.node_type == "dir";
        if !self.walk.selects(rest, is_folder) {
            return;
        }
        let counted = &mut self.counted;
        counted.counts.files += 1;
        if self.asker.keys {
            counted.keys.add(&m.path, extraneous::is_elsewhere(&m.path, self.mount, self.asker.mounts));
        }
        // Hard links have the same inode; two file systems below one path have the same numbers for different files.
        if m.node_type == "file" && (m.inode == 0 || self.files.insert((m.inode, m.size, m.mtime.clone()))) {
            counted.counts.bytes += m.size;
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
    /// Adds what is selected of another path.
    pub fn add(&mut self, other: Self) {
        self.counts.files += other.counts.files;
        self.counts.bytes += other.counts.bytes;
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

    /// The owners, as [`crate::plan::contract::HostAnswer::owner`] has them.
    pub fn owners_text(&self) -> Option<String> {
        let all: Vec<String> = self.owners.iter().map(|(uid, gid)| format!("{uid}:{gid}")).collect();
        (!all.is_empty()).then(|| all.join(","))
    }

    /// Why a Job that may make no device files cannot restore it.
    pub fn devices_refused(&self) -> Option<Failure> {
        let (count, named) = &self.devices;
        let text = format!(
            "{count} device files, {} for example, need the capability MKNOD, which the Job does not have. Add it in runtimeSettings.container.securityContext.capabilities, to those that a restore has anyway (CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP), or leave the files out by exclude. Nothing was written.",
            named.first()?
        );
        Some(Failure::new(Class::Invalid, reason::DEVICES, text))
    }
}
