//! A cluster's own branch of the machine's cgroups.
//!
//! The supervisor enters `lifeboat-ID/supervisor` and so does everything it
//! starts; pods run below `lifeboat-ID/nodeN`. The membership records what
//! belongs to the cluster: this cluster, and nothing else, started all that is
//! in this branch. Neither a crash nor a forgotten pid can lose this record.
//! No cgroup outside of the branch is ever touched.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Context, Error, Result};
use crate::layout::Place;

/// Mount points of all hierarchies: one for cgroup v2, one per controller (and
/// the named one of an init system) for v1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read mountinfo")?;
    let of_type = |kind: &str| -> Vec<PathBuf> {
        mounts
            .lines()
            .filter(|l| l.split(" - ").nth(1).is_some_and(|t| t.split(' ').next() == Some(kind)))
            .filter_map(|l| l.split(' ').nth(4).map(PathBuf::from))
            .collect()
    };
    // Where both are mounted, runc makes folders in both.
    let mut found = of_type("cgroup");
    found.extend(of_type("cgroup2"));
    if found.is_empty() {
        return Err(Error::new("no cgroup file system is mounted"));
    }
    Ok(found)
}

fn branches(place: &Place) -> Result<Vec<PathBuf>> {
    Ok(hierarchies()?.into_iter().map(|root| root.join(place.cgroup())).collect())
}

/// Makes the branch, with a folder for each node.
pub fn create(place: &Place, nodes: u8) -> Result<()> {
    for branch in branches(place)? {
        make(&branch)?;
        make(&branch.join("supervisor"))?;
        for node in 1..=nodes {
            make(&branch.join(format!("node{node}")))?;
        }
    }
    Ok(())
}

fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).context(format!("cannot make cgroup {}", dir.display()))?;
    // A new cpuset is empty, and nothing can run in an empty one.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let above = dir.parent().map(|p| p.join(file));
        if let Some(above) = above.filter(|p| p.exists())
            && dir.join("cpuset.effective_cpus").exists()
        {
            let value = fs::read_to_string(&above).context(format!("cannot read {file}"))?;
            fs::write(dir.join(file), value.trim()).context(format!("cannot set {file}"))?;
        }
    }
    Ok(())
}

/// Puts the calling process, and all that it will start, into the branch.
pub fn enter(place: &Place) -> Result<()> {
    let branches = branches(place)?;
    // One hierarchy is enough to find the processes. `pids` has no effect on them.
    let chosen = branches
        .iter()
        .find(|b| b.parent().is_some_and(|p| p.ends_with("pids")))
        .or(branches.first())
        .context("no cgroup")?;
    fs::write(chosen.join("supervisor/cgroup.procs"), std::process::id().to_string())
        .context("cannot enter the cluster's cgroup")
}

/// All processes of the cluster.
pub fn processes(place: &Place) -> Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for branch in branches(place)? {
        visit(&branch, &mut |dir| {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
        });
    }
    found.remove(&0);
    Ok(found)
}

/// Children before their parents.
fn visit(dir: &Path, act: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            visit(&entry.path(), act);
        }
    }
    if dir.is_dir() {
        act(dir);
    }
}

/// Kills every process of the cluster, and waits until they are gone.
pub fn kill_all(place: &Place) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left = processes(place)?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::new(format!("processes survive SIGKILL: {left:?}")));
        }
        for pid in left {
            // A process that has ended in between is no error.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        sleep(Duration::from_millis(20));
    }
}

/// Removes the branch. All of its processes must be gone.
pub fn remove(place: &Place) -> Result<()> {
    for branch in branches(place)? {
        let deadline = Instant::now() + Duration::from_secs(10);
        while branch.exists() {
            // The kernel takes a moment to let go of a cgroup's last process.
            visit(&branch, &mut |dir| {
                let _ = fs::remove_dir(dir);
            });
            if Instant::now() > deadline {
                return Err(Error::new(format!("cannot remove cgroup {}", branch.display())));
            }
            if branch.exists() {
                sleep(Duration::from_millis(20));
            }
        }
    }
    Ok(())
}
