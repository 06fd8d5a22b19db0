//! What is looked at before the first byte is written.
//!
//! Each check exists because restic itself finds out too late, or never: it fills a
//! volume and counts the lost bytes as restored, and as an ordinary user it leaves
//! owners wrong without a word. Nothing is changed here.

use std::path::Path;

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::args;
use super::output::Message;
use super::planned::{Planned, below};
use super::repository::Repository;
use super::restore::clean_end;
use super::run::{Limit, STUCK};
use super::select::{clean, within};
use crate::names::reason;
use crate::plan::contract::{Class, Failure, Runner};

/// Bit of `CAP_CHOWN` (linux/capability.h).
const CAP_CHOWN: u32 = 0;

/// Each mount point is there and can be written.
pub fn mounts(root: &Path, mounts: &[String]) -> Result<(), Failure> {
    for mount in mounts {
        let place = below(root, &clean(mount));
        if !place.is_dir() {
            return Err(Failure::new(
                Class::Fatal,
                reason::AGENT_FAILED,
                format!("No volume stands at mount {mount} ({} is no folder). Nothing was written.", place.display()),
            ));
        }
        let read_only = statvfs(&place).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
        if read_only || access(&place, Access::WRITE_OK | Access::EXEC_OK).is_err() {
            let why =
                if read_only { "it is mounted read-only" } else { "its owner or mode does not let the Job's user" };
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

/// Each file system has room for what would be written, of which `at_most` bytes are known to take room at all.
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
            format!("Mount {} {short}. Enlarge the volume or restore less. Nothing was written.", need.mount),
        ));
    }
    Ok(())
}

/// Who we are, as far as owners of files are concerned.
#[derive(Debug)]
pub struct Identity {
    uid: u32,
    gids: Vec<u32>,
    chown: bool,
}

impl Identity {
    /// Of this process. The capability counts, not the user id: root in a container may lack it.
    pub fn of_process() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut gids: Vec<u32> =
            rustix::process::getgroups().unwrap_or_default().into_iter().map(rustix::process::Gid::as_raw).collect();
        gids.push(rustix::process::getegid().as_raw());
        Self { uid: rustix::process::geteuid().as_raw(), gids, chown: has_capability(&status, CAP_CHOWN) }
    }

    /// Of who will restore, in another pod.
    pub fn of(runner: &Runner) -> Self {
        Self { uid: runner.uid, gids: runner.gids.clone(), chown: false }
    }

    /// Whether any owner can be given.
    pub fn may_chown(&self) -> bool {
        self.chown
    }

    /// Whether a file of this owner can be made.
    pub fn can_make(&self, uid: u32, gid: u32) -> bool {
        self.chown || (uid == self.uid && self.gids.contains(&gid))
    }

    /// What to say about the first entry that cannot get its owner.
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

/// Refuses when a selected entry of a snapshot, below `roots`, could not get its owner.
pub async fn owners(
    repository: &Repository,
    id: &str,
    roots: &[String],
    mounts: &[String],
    me: &Identity,
    selected: &(dyn Fn(&str) -> bool + Sync),
) -> Result<(), Failure> {
    // A mount point belongs to whoever made the volume; its owner is not ours to give.
    let mounts: Vec<String> = mounts.iter().map(|m| clean(m)).collect();
    let mut again = false;
    loop {
        let mut first: Option<Failure> = None;
        let ran = repository
            .lines(args::ls(id), Limit::Idle(STUCK), &mut |m: &Message| {
                let counts = first.is_none() && selected(&m.path) && roots.iter().any(|r| within(&m.path, r));
                if counts && !m.node_type.is_empty() && !mounts.contains(&m.path) && !me.can_make(m.uid, m.gid) {
                    first = Some(me.refuse(&m.path, m.uid, m.gid));
                }
            })
            .await;
        if clean_end(&ran) {
            return first.map_or(Ok(()), Err);
        }
        let failure = repository.failure(&ran, "list the snapshot; nothing was written");
        repository.once_more(failure, &mut again).await?;
    }
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

    #[test]
    fn groups_count_as_ours() {
        let me = Identity { uid: 1000, gids: vec![2000, 1000], chown: false };
        assert!(me.can_make(1000, 2000));
        assert!(!me.can_make(0, 1000) && !me.can_make(1000, 0));
        assert!(me.refuse("/data/a", 5, 6).message.contains("5:6"));
    }

    #[test]
    fn a_missing_mount_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(mounts(root.path(), &["/data".into()]).unwrap_err().reason, reason::AGENT_FAILED);
    }
}
