//! What the machine must offer: root, Go and a few packages of the
//! distribution. On Debian missing packages are installed; elsewhere they are
//! named in one line.

use crate::error::{Error, Result};
use crate::exec;

/// Program that must be there, and the Debian package that carries it.
const NODE: &[(&str, &str)] = &[
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("sysctl", "procps"),
    // Tests run operators whose clock is wrong.
    ("faketime", "faketime"),
];
const IMAGE: &[(&str, &str)] =
    &[("buildah", "buildah"), ("mmdebstrap", "mmdebstrap"), ("strip", "binutils"), ("runc", "runc")];
const CNI: &str = "/usr/lib/cni/bridge";

pub fn need_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new(
        "a local cluster needs root (namespaces, cgroups, mounts); \
         without it use CLUSTER=existing with KUBECONFIG set, or CLUSTER=kind",
    ))
}

pub fn need_go() -> Result<()> {
    if exec::on_path("go") {
        return Ok(());
    }
    Err(Error::new("Go 1.26 or later is missing: it builds the cluster's programs from source"))
}

/// Packages for running nodes.
pub fn need_node_packages() -> Result<()> {
    let mut missing = missing(NODE);
    if !std::path::Path::new(CNI).is_file() {
        missing.push("containernetworking-plugins");
    }
    install(&missing)
}

/// Packages for building images where there is no Docker engine.
pub fn need_image_packages() -> Result<()> {
    install(&missing(IMAGE))
}

fn missing(wanted: &[(&str, &'static str)]) -> Vec<&'static str> {
    wanted.iter().filter(|(program, _)| !exec::on_path(program)).map(|(_, package)| *package).collect()
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !exec::on_path("apt-get") {
        return Err(Error::new(format!("missing, please install: {list}")));
    }
    eprintln!("installing {list}");
    let mut words = vec!["apt-get", "install", "-y", "-q", "--no-install-recommends"];
    words.extend(packages);
    let apt = |words: &[&str]| exec::output(exec::command(words).env("DEBIAN_FRONTEND", "noninteractive"));
    // The package lists may be older than the archive, or missing altogether.
    if apt(&words).is_err() {
        apt(&["apt-get", "update", "-q"])?;
        apt(&words)?;
    }
    Ok(())
}
