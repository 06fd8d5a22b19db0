//! Bringing a cluster up and down.
//!
//! `up` has one rule for everything that can have gone wrong before: if no
//! supervisor answers, whatever is left of the cluster outside of its folder
//! is removed, and the cluster is started from what the folder has. The same
//! path serves a first start, a crash, a half-finished `up` and a reboot.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::control::{ComponentStatus, Request, ask};
use crate::error::{Context, Error, Result};
use crate::image_builder::Builder;
use crate::layout::Place;
use crate::net::{self, Veth};
use crate::process::Identity;
use crate::{binaries, cgroup, config, exec, host, images, mounts, pki};

const START_PATIENCE: Duration = Duration::from_secs(90);
const STOP_PATIENCE: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(50);

/// Settings that a cluster keeps over restarts. Tests use them too.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    pub nodes: u8,
    subnet: Option<u16>,
    /// Addresses at which cluster and host reach each other.
    host_address: String,
    cluster_address: String,
    netns: Vec<String>,
}

impl Settings {
    fn read(place: &Place) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(place.file("cluster.json")).ok()?).ok()
    }

    fn write(&self, place: &Place) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot encode settings")?;
        fs::write(place.file("cluster.json"), text + "\n").context("cannot write cluster.json")
    }
}

/// Starts the cluster unless it runs, and waits until all of it is ready.
pub fn up(place: &Place, nodes: Option<u8>) -> Result<()> {
    let started = Instant::now();
    host::need_root()?;
    let _lock = lock(place)?;
    let settings = Settings::read(place);
    let has = settings.as_ref().map(|s| s.nodes);
    if ask(place, &Request::Status).is_ok() {
        if let (Some(wanted), Some(has)) = (nodes, has)
            && wanted != has
        {
            return Err(Error::new(format!(
                "cluster {} runs with NODES={has}; take it down before you start it with NODES={wanted}",
                place.name
            )));
        }
        wait_ready(place, None)?;
    } else {
        let nodes = nodes.or(has).unwrap_or(1);
        if nodes > 2 {
            return Err(Error::new("NODES is 0, 1 or 2"));
        }
        host::need_node_packages()?;
        binaries::ensure(&place.home)?;
        clean(place)?;
        let mut supervisor = start(place, nodes, settings.and_then(|s| s.subnet))?;
        wait_ready(place, Some(&mut supervisor))?;
    }
    eprintln!("cluster {} is ready ({:.1} s)", place.name, started.elapsed().as_secs_f32());
    println!("export KUBECONFIG={}", place.kubeconfig().display());
    Ok(())
}

fn start(place: &Place, nodes: u8, subnet: Option<u16>) -> Result<Child> {
    for dir in [place.dir.clone(), place.logs(), place.runtime()] {
        fs::create_dir_all(&dir).context(format!("cannot make {}", dir.display()))?;
    }
    let subnet = net::create(place, nodes, subnet)?;
    let veth = Veth::nth(subnet);
    let settings = Settings {
        nodes,
        subnet: Some(subnet),
        host_address: veth.host.to_string(),
        cluster_address: veth.cluster.to_string(),
        netns: (1..=nodes.max(1)).map(|n| place.netns(n)).collect(),
    };
    settings.write(place)?;
    pki::ensure(place, veth)?;
    config::write_control_plane(place)?;
    if nodes > 0 {
        config::write_services(place, veth)?;
        images::ensure_pause(&place.home)?;
        // Without these images, the cluster still runs all other images that are loaded.
        let made = Builder::new(&place.home).and_then(|b| b.ensure_test_images());
        if let Err(e) = made {
            eprintln!("warning: no images for test applications: {e}");
        }
    }
    for node in 1..=nodes {
        config::write_node(place, node)?;
    }
    cgroup::create(place, nodes)?;

    let log = File::options()
        .create(true)
        .append(true)
        .open(place.log_of("supervisor"))
        .context("cannot write the supervisor's log")?;
    let errors = log.try_clone().context("cannot share a log")?;
    let own = std::env::current_exe().context("cannot find own program")?;
    let mut cmd = exec::command(&["nsenter"]);
    cmd.arg(format!("--net={}", place.netns_path(1).display()));
    cmd.args(["unshare", "--mount", "--propagation", "slave"]);
    cmd.arg(own).args(["supervise", "--name", &place.name, "--nodes", &nodes.to_string()]);
    cmd.env("LIFEBOAT_DIR", &place.home.dir).current_dir("/");
    cmd.stdout(Stdio::from(log)).stderr(errors);
    cmd.spawn().context("cannot start the supervisor")
}

/// Waits for every component. With a supervisor of our own, the death of the
/// supervisor ends the wait at once.
fn wait_ready(place: &Place, mut supervisor: Option<&mut Child>) -> Result<()> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        if let Some(child) = supervisor.as_mut()
            && let Ok(Some(status)) = child.try_wait()
        {
            return Err(Error::new(format!(
                "the supervisor ended ({status}); its log ends with:\n{}",
                exec::tail(&place.log_of("supervisor"), 20)
            )));
        }
        let reply = ask(place, &Request::Status);
        if let Ok(reply) = &reply
            && reply.components.iter().all(|c| c.ready)
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            let reply = reply.context("the supervisor does not answer")?;
            return Err(not_ready(place, &reply.components));
        }
        sleep(POLL);
    }
}

fn not_ready(place: &Place, components: &[ComponentStatus]) -> Error {
    let mut text = format!("not ready after {} s:", START_PATIENCE.as_secs());
    for c in components.iter().filter(|c| !c.ready) {
        let _ = write!(text, "\n{} is {} ({})", c.name, c.state, c.reason);
        // A component that only waits for another has nothing to report.
        if c.state != "waiting" {
            let log = place.log_of(&c.name);
            let _ = write!(text, "; {} ends with:\n{}", log.display(), exec::tail(&log, 10));
        }
    }
    Error::new(text)
}

/// Ends the cluster. Without `keep`, all of it is removed.
pub fn down(place: &Place, keep: bool) -> Result<()> {
    host::need_root()?;
    let _lock = lock(place)?;
    if ask(place, &Request::Shutdown).is_ok() {
        let deadline = Instant::now() + STOP_PATIENCE;
        let supervisor = Identity::read(&place.file("supervisor.json"));
        while supervisor.as_ref().is_some_and(Identity::alive) && Instant::now() < deadline {
            sleep(POLL);
        }
    }
    clean(place)?;
    if !keep {
        if place.dir.exists() {
            fs::remove_dir_all(&place.dir).context(format!("cannot remove {}", place.dir.display()))?;
        }
        let _ = fs::remove_file(place.lock());
    }
    Ok(())
}

/// Removes everything of a cluster outside of its folder, and the files in the
/// folder that are valid for one run only.
fn clean(place: &Place) -> Result<()> {
    let record = place.file("supervisor.json");
    if let Some(supervisor) = Identity::read(&record).filter(Identity::alive) {
        let pid = nix::unistd::Pid::from_raw(supervisor.pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
    cgroup::kill_all(place)?;
    cgroup::remove(place)?;
    net::remove(place)?;
    if place.dir.exists() {
        mounts::release(&place.dir)?;
        let left = mounts::below(&place.dir)?;
        if !left.is_empty() {
            return Err(Error::new(format!("still mounted: {left:?}")));
        }
    }
    let mut stale = vec![place.runtime(), place.file("cover/containerd"), place.file("cover/cni")];
    for node in 1..=2 {
        stale.extend(["containerd-state", "ipam"].map(|d| place.node(node).join(d)));
    }
    for dir in stale.iter().filter(|d| d.exists()) {
        fs::remove_dir_all(dir).context(format!("cannot remove {}", dir.display()))?;
    }
    if record.exists() {
        fs::remove_file(&record).context("cannot remove supervisor.json")?;
    }
    Ok(())
}

/// Allows one `up` or `down` of a cluster at a time.
fn lock(place: &Place) -> Result<File> {
    let path = place.lock();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
    }
    loop {
        let file = File::create(&path).context(format!("cannot open {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("waiting for another up or down of cluster {}", place.name);
            file.lock().context("cannot take the cluster's lock")?;
        }
        // A `down` that held the lock before has removed this file.
        if same_file(&file, &path) {
            return Ok(file);
        }
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => held.ino() == there.ino() && held.dev() == there.dev(),
        _ => false,
    }
}

/// Runs a command in the cluster's namespaces, to inspect it or to cause a fault.
pub fn exec_inside(place: &Place, node: u8, words: &[String]) -> Result<ExitCode> {
    let supervisor = Identity::read(&place.file("supervisor.json"))
        .filter(Identity::alive)
        .context(format!("cluster {} does not run", place.name))?;
    let mut cmd = exec::command(&["nsenter"]);
    cmd.arg(format!("--mount=/proc/{}/ns/mnt", supervisor.pid));
    cmd.arg(format!("--net={}", place.netns_path(node).display()));
    let status = cmd.args(words).stdin(Stdio::inherit()).status().context("cannot run nsenter")?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}
