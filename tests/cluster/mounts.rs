//! Mounts of a cluster.
//!
//! Kubelet and containerd mount in a mount namespace that only the cluster's
//! processes share, so their mounts end with the last process whatever
//! happens. In this namespace, folders of the cluster cover the few paths that
//! are built into Kubernetes, so that clusters do not conflict there.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Context, Result};
use crate::layout::Place;

/// Built-in paths, and the cluster's folder that covers them.
const COVERED: &[(&str, &str)] = &[
    // Dynamic volumes of the controller manager's host-path provisioner.
    ("/tmp/hostpath_pv", "volumes"),
    ("/var/lib/kubelet", "cover/kubelet"),
    ("/var/lib/cni", "cover/cni"),
    ("/var/log/containers", "cover/containers"),
    // Sockets of containerd's shims.
    ("/run/containerd", "cover/containerd"),
];

const NONE: Option<&str> = None;

/// Prepares the supervisor's own mount namespace.
pub fn cover(place: &Place) -> Result<()> {
    // Pods see what a test mounts on the host, but the host sees no mount of the
    // cluster. Mounts are shared inside, as the kubelet requires.
    mount(NONE, "/", NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE).context("cannot share mounts in the cluster")?;
    for (built_in, own) in COVERED {
        let own = place.file(own);
        for dir in [Path::new(built_in), &own] {
            fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
        }
        mount(Some(&own), *built_in, NONE, MsFlags::MS_BIND, NONE).context(format!("cannot cover {built_in}"))?;
    }
    Ok(())
}

/// Unmounts what is mounted below a folder in this mount namespace, such as a
/// small volume that a test has made there.
pub fn release(dir: &Path) -> Result<()> {
    for target in below(dir)?.iter().rev() {
        umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .context(format!("cannot unmount {}", target.display()))?;
    }
    Ok(())
}

/// Mount points below a folder, in the order they were made.
pub fn below(dir: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read mountinfo")?;
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        // The kernel writes a space as an octal escape.
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(dir) && point != dir)
        .collect())
}
