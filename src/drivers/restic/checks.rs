//! Checks before data is written.
//!
//! restic detects these problems too late, or never: it fills a volume and counts the lost bytes as restored, and
//! without root it sets wrong owners without an error. The checks change no data.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use crate::contract::Runner;
use crate::contract::restic::Counts;
use crate::contract::{Class, Failure};
use crate::drivers::restic::paths::{clean, within};
use crate::drivers::restic::planned::{Planned, below};
use crate::names::reason;

/// Bit of `CAP_CHOWN` (linux/capability.h).
const CAP_CHOWN: u32 = 0;

/// Checks that each mount point exists and is writable.
pub fn mounts(root: &Path, mounts: &[String]) -> Result<(), Failure> {
    for mount in mounts {
        let place = below(root, &clean(mount));
        if !place.is_dir() {
            return Err(Failure::new(
                Class::Fatal,
                reason::AGENT_FAILED,
                format!("No volume is mounted at {mount} ({} is not a folder). Nothing was written.", place.display()),
            ));
        }
        let read_only = statvfs(&place).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
        if read_only || access(&place, Access::WRITE_OK | Access::EXEC_OK).is_err() {
            let why = if read_only {
                "it is mounted read-only"
            } else {
                "its owner or mode does not allow the user of the Job to write"
            };
            return Err(Failure::new(
                Class::Invalid,
                reason::PERMISSION_DENIED,
                format!(
                    "Mount {mount} cannot be written: {why}. Set runtimeSettings.pod.securityContext.fsGroup or runtimeSettings.container.securityContext.runAsUser. Nothing was written."
                ),
            ));
        }
    }
    Ok(())
}

/// Checks that each file system has enough space; at most `at_most` bytes need space.
pub fn space(root: &Path, planned: &Planned, at_most: u64) -> Result<(), Failure> {
    for need in planned.needs() {
        let place = below(root, &need.mount);
        let fs = statvfs(&place).map_err(|e| {
            let text = format!("Could not read the free space of mount {}: {e}.", need.mount);
            Failure::new(Class::Fatal, reason::AGENT_FAILED, text)
        })?;
        let free = fs.f_bavail.saturating_mul(fs.f_frsize);
        let bytes = need.bytes.min(at_most);
        let short = if bytes > free {
            format!("needs {bytes} bytes more and has {free}")
        } else if fs.f_files > 0 && need.entries > fs.f_favail {
            format!("needs {} files more and has inodes for {}", need.entries, fs.f_favail)
        } else {
            continue;
        };
        return Err(Failure::new(
            Class::Data,
            reason::NO_SPACE,
            format!("Mount {} {short}. Enlarge the volume, or restore fewer files. Nothing was written.", need.mount),
        ));
    }
    Ok(())
}

/// The user and capabilities that decide which owners can be set.
#[derive(Debug)]
pub struct Identity {
    uid: u32,
    gids: Vec<u32>,
    chown: bool,
}

impl Identity {
    /// Identity of this process. The capability decides, not the user id: root in a container may not have it.
    pub fn of_process() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut gids: Vec<u32> =
            rustix::process::getgroups().unwrap_or_default().into_iter().map(rustix::process::Gid::as_raw).collect();
        gids.push(rustix::process::getegid().as_raw());
        Self { uid: rustix::process::geteuid().as_raw(), gids, chown: has_capability(&status, CAP_CHOWN) }
    }

    /// Identity of the restore Job, which runs in another pod.
    pub fn of(runner: &Runner) -> Self {
        Self { uid: runner.uid, gids: runner.gids.clone(), chown: false }
    }

    /// Whether any owner can be set.
    pub fn may_chown(&self) -> bool {
        self.chown
    }

    /// Whether a file with this owner can be created.
    pub fn can_make(&self, uid: u32, gid: u32) -> bool {
        self.chown || (uid == self.uid && self.gids.contains(&gid))
    }

    /// The error for the first entry whose owner cannot be set.
    pub fn refuse(&self, path: &str, uid: u32, gid: u32) -> Failure {
        Failure::new(
            Class::Invalid,
            reason::OWNERSHIP,
            format!(
                "{path} belongs to {uid}:{gid}, and the Job runs as {}:{} without CAP_CHOWN, so its owner would be lost. \
                 Set target.ownership: Ignore if that is fine, or runtimeSettings.container.securityContext.runAsUser to 0 (or to {uid}, with runAsGroup {gid}, if all files are of that user). Nothing was written.",
                self.uid,
                self.gids.last().copied().unwrap_or_default()
            ),
        )
    }
}

/// Whether each volume has this much free space, without regard to existing files.
pub fn has_plenty(root: &Path, mounts: &[String], counts: Counts) -> bool {
    mounts.iter().all(|mount| {
        statvfs(below(root, &clean(mount))).is_ok_and(|fs| {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            counts.bytes <= free && (fs.f_files == 0 || counts.files <= fs.f_favail)
        })
    })
}

/// Checks that no folder between a mount and the restored path is a symbolic link: files would be written to its
/// target.
pub fn no_link_on_the_way(root: &Path, mounts: &[String], folder: &str) -> Result<(), Failure> {
    let mount = mounts.iter().map(|m| clean(m)).filter(|m| within(folder, m)).max_by_key(String::len);
    let Some(mount) = mount else { return Ok(()) };
    let inner = Path::new(folder).ancestors().take_while(|a| *a != Path::new(&mount));
    let Some(link) = inner.filter(|a| below(root, &a.to_string_lossy()).is_symlink()).last() else { return Ok(()) };
    Err(through_link(root, &link.to_string_lossy(), folder))
}

/// The error for a link through which files would be written.
pub fn through_link(root: &Path, link: &str, folder: &str) -> Failure {
    let to = below(root, link).read_link().map(|to| to.display().to_string()).unwrap_or_default();
    let text = format!(
        "{link} is a symbolic link to {to} on the target, so files of {folder} would be written to another folder. Restore another path, or remove the link. Nothing was written."
    );
    Failure::new(Class::Invalid, reason::PATH_IS_LINK, text)
}

/// File with which owners are tested.
const OWNER_TRY: &str = ".lifeboat-owner";

/// Tests that each volume stores the owners to be restored, `owners` as in
/// [`crate::contract::restic::Restore::owner`]. Some reject `chown` (NFS with root_squash, EFS), and some accept it
/// without effect (SMB, Azure Files).
pub fn owners_are_kept(root: &Path, mounts: &[String], owners: &str) -> Result<(), Failure> {
    let ids = |owner: &str| owner.split_once(':').and_then(|(u, g)| Some((u.parse().ok()?, g.parse().ok()?)));
    let all: Vec<(u32, u32)> = owners.split(',').filter_map(ids).collect();
    for (mount, (uid, gid)) in mounts.iter().flat_map(|mount| all.iter().map(move |owner| (mount, *owner))) {
        let folder = below(root, &clean(mount));
        let file = name_for_a_try(&folder);
        let last_change = folder.metadata().and_then(|m| m.modified());
        // An attempt that was killed may have left the file.
        let _ = std::fs::remove_file(&file);
        let tried = try_owner(&file, uid, gid);
        let _ = std::fs::remove_file(&file);
        // Restores the time of the folder, because no data was written.
        if let Ok(time) = last_change {
            let _ = std::fs::File::open(&folder).and_then(|f| f.set_modified(time));
        }
        let why = match tried {
            Ok(true) => continue,
            Ok(false) => "accepts chown without effect".to_owned(),
            Err(e) => format!("rejects chown ({e})"),
        };
        let text = format!(
            "The volume at {mount} does not store the owner {uid}:{gid} of the snapshot: it {why}. Restore to a volume that stores owners, or set target.ownership: Ignore if files may belong to the user of the Job. Nothing was written."
        );
        return Err(Failure::new(Class::Invalid, reason::OWNERSHIP, text));
    }
    Ok(())
}

/// An unused file name in the folder: it does not exist, or is an empty file that an attempt left.
fn name_for_a_try(folder: &Path) -> PathBuf {
    let is_free = |file: &PathBuf| file.symlink_metadata().map_or(true, |m| m.is_file() && m.len() == 0);
    let first = folder.join(OWNER_TRY);
    let further = (1..).map(|n| folder.join(format!("{OWNER_TRY}-{n}")));
    std::iter::once(first).chain(further).find(is_free).unwrap_or_default()
}

fn try_owner(file: &Path, uid: u32, gid: u32) -> std::io::Result<bool> {
    std::fs::File::options().write(true).create_new(true).open(file)?;
    std::os::unix::fs::lchown(file, Some(uid), Some(gid))?;
    let now = file.symlink_metadata()?;
    Ok((now.uid(), now.gid()) == (uid, gid))
}

/// Whether the effective set of a `/proc/self/status` has a capability.
fn has_capability(status: &str, bit: u32) -> bool {
    let set = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap_or_default();
    u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & (1 << bit) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_read_from_the_effective_set() {
        assert!(has_capability("Name:\tx\nCapPrm:\t0\nCapEff:\t00000000a80425fb\n", CAP_CHOWN));
        assert!(!has_capability("CapPrm:\t1\nCapEff:\t0000000000000000\n", CAP_CHOWN));
        assert!(!has_capability("CapEff:\tfffffffffffffffe\n", CAP_CHOWN));
        assert!(!has_capability("", CAP_CHOWN));
    }

    /// An attempt leaves an empty file; any other file belongs to a user.
    #[test]
    fn a_file_of_somebody_is_not_taken_for_a_try() {
        let dir = tempfile::tempdir().unwrap();
        let name = || name_for_a_try(dir.path()).file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(name(), OWNER_TRY);
        std::fs::write(dir.path().join(OWNER_TRY), "").unwrap();
        assert_eq!(name(), OWNER_TRY);
        std::fs::write(dir.path().join(OWNER_TRY), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join(".lifeboat-owner-1")).unwrap();
        assert_eq!(name(), ".lifeboat-owner-2");
        let mounts = ["/".to_owned()];
        let own = format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        owners_are_kept(dir.path(), &mounts, &own).unwrap();
        assert_eq!(std::fs::read(dir.path().join(OWNER_TRY)).unwrap(), b"mine");
    }

    #[test]
    fn groups_count_as_ours() {
        let me = Identity { uid: 1000, gids: vec![2000, 1000], chown: false };
        assert!(me.can_make(1000, 2000));
        assert!(!me.can_make(0, 1000) && !me.can_make(1000, 0));
        assert!(me.refuse("/data/a", 5, 6).message.contains("5:6"));
    }

    #[test]
    fn a_tried_owner_leaves_no_trace() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("data");
        std::fs::create_dir(&folder).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        std::fs::File::open(&folder).unwrap().set_modified(long_ago).unwrap();
        let me = folder.metadata().unwrap();
        let owner = format!("{}:{}", me.uid(), me.gid());
        owners_are_kept(root.path(), &["/data".into()], &owner).unwrap();
        assert_eq!(folder.metadata().unwrap().modified().unwrap(), long_ago);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_mount_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(mounts(root.path(), &["/data".into()]).unwrap_err().reason, reason::AGENT_FAILED);
    }
}
