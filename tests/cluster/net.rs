//! Network of a cluster: a namespace per node, a veth pair to the host.
//!
//! Inside, every cluster uses the same addresses. Only the /30 between host
//! and cluster differs; it is the address by which the host reaches the API
//! server and the S3 server, and by which pods and webhooks reach the host.
//! A second node hangs off the first by a veth pair of its own.

use std::fs::File;
use std::net::Ipv4Addr;

use crate::error::{Context, Error, Result};
use crate::exec;
use crate::layout::Place;

/// Pods of node N live in 10.244.N.0/24.
pub const POD_NET: &str = "10.244.0.0/16";
pub const SERVICE_NET: &str = "10.96.0.0/16";
/// First Service address: `kubernetes.default`.
pub const SERVICE_API: &str = "10.96.0.1";
pub const BRIDGE: &str = "pods0";
const LINK: &str = "172.31.255";

/// The bridge's address: the node's own, and its pods' gateway.
pub fn node_address(node: u8) -> String {
    format!("10.244.{node}.1")
}

pub fn pod_subnet(node: u8) -> String {
    format!("10.244.{node}.0/24")
}

/// The two ends of a cluster's /30.
#[derive(Clone, Copy, Debug)]
pub struct Veth {
    pub host: Ipv4Addr,
    pub cluster: Ipv4Addr,
}

impl Veth {
    /// The n-th /30 of 10.213.0.0/16.
    pub fn nth(n: u16) -> Self {
        let base = u32::from(Ipv4Addr::new(10, 213, 0, 0)) + u32::from(n % 16384) * 4;
        Self { host: Ipv4Addr::from(base + 1), cluster: Ipv4Addr::from(base + 2) }
    }
}

/// Makes the cluster's namespaces and links. `wanted` is the /30 that the
/// cluster had last time. Returns the /30 that it gets.
pub fn create(place: &Place, nodes: u8, wanted: Option<u16>) -> Result<u16> {
    // Two clusters starting at once must not choose the same addresses.
    let lock = File::create("/run/lifeboat-net.lock").context("cannot open the network lock")?;
    lock.lock().context("cannot take the network lock")?;
    let taken = exec::run(&["ip", "-4", "-o", "addr"])?;
    let free = |n: &u16| !taken.contains(&format!(" {}/", Veth::nth(*n).host));
    let seed = u16::from_str_radix(&place.id[..4], 16).unwrap_or(0);
    let n = wanted
        .into_iter()
        .chain((0..16384).map(|i| seed.wrapping_add(i) % 16384))
        .find(free)
        .context("no free /30 is left in 10.213.0.0/16")?;
    let veth = Veth::nth(n);

    for node in 1..=nodes.max(1) {
        add_namespace(place, node)?;
    }
    let (outer, ns) = (place.host_veth(), place.netns(1));
    let ip = |line: &str| exec::run(&line.split(' ').collect::<Vec<_>>());
    ip(&format!("ip link add {outer} type veth peer name host0 netns {ns}"))?;
    ip(&format!("ip addr add {}/30 dev {outer}", veth.host))?;
    ip(&format!("ip link set {outer} up"))?;
    ip(&format!("ip -n {ns} addr add {}/30 dev host0", veth.cluster))?;
    ip(&format!("ip -n {ns} link set host0 up"))?;
    ip(&format!("ip -n {ns} route add default via {}", veth.host))?;
    // The host knows no pod addresses, so traffic to the host takes the node's address.
    inside(place, 1, "iptables -w -t nat -A POSTROUTING -o host0 -j MASQUERADE")?;
    if nodes > 1 {
        link_second_node(place)?;
    }
    Ok(n)
}

fn add_namespace(place: &Place, node: u8) -> Result<()> {
    let ns = place.netns(node);
    exec::run(&["ip", "netns", "add", &ns])?;
    let ip = |line: &str| exec::run(&format!("ip -n {ns} {line}").split(' ').collect::<Vec<_>>());
    ip("link set lo up")?;
    ip(&format!("link add {BRIDGE} type bridge"))?;
    // An address that is set by hand stays. Otherwise the bridge has the lowest of its ports' addresses, which changes
    // as pods come and go. Pods that know the old one are cut off until their neighbour entry expires, up to 30 s
    // later.
    ip(&format!("link set {BRIDGE} address 02:00:00:00:00:{node:02x}"))?;
    ip(&format!("addr add {}/24 dev {BRIDGE}", node_address(node)))?;
    ip(&format!("link set {BRIDGE} up"))?;
    inside(place, node, "sysctl -q -w net.ipv4.ip_forward=1")?;
    // Without this setting, a Service's answer between two pods of a node misses its
    // address translation. It is absent where the kernel has no bridge filter.
    let _ = inside(place, node, "sysctl -q -w net.bridge.bridge-nf-call-iptables=1");
    Ok(())
}

fn link_second_node(place: &Place) -> Result<()> {
    let (one, two) = (place.netns(1), place.netns(2));
    let ip = |line: &str| exec::run(&format!("ip {line}").split(' ').collect::<Vec<_>>());
    ip(&format!("-n {one} link add peer2 type veth peer name peer1 netns {two}"))?;
    ip(&format!("-n {one} addr add {LINK}.1/30 dev peer2"))?;
    ip(&format!("-n {two} addr add {LINK}.2/30 dev peer1"))?;
    ip(&format!("-n {one} link set peer2 up"))?;
    ip(&format!("-n {two} link set peer1 up"))?;
    // Nodes and pods reach each other only by the bridges' subnets.
    let (first, second) = (node_address(1), node_address(2));
    ip(&format!("-n {one} route add {} via {LINK}.2 src {first}", pod_subnet(2)))?;
    ip(&format!("-n {two} route add default via {LINK}.1 src {second}"))?;
    Ok(())
}

/// Runs a command in a node's network namespace. It does not use
/// `ip netns exec`, which mounts another /sys and hides the cgroups.
fn inside(place: &Place, node: u8, line: &str) -> Result<String> {
    let net = format!("--net={}", place.netns_path(node).display());
    let mut words = vec!["nsenter", &net];
    words.extend(line.split(' '));
    exec::run(&words)
}

/// Removes all parts of the network that exist.
pub fn remove(place: &Place) -> Result<()> {
    let outer = place.host_veth();
    if std::path::Path::new("/sys/class/net").join(&outer).exists() {
        exec::run(&["ip", "link", "del", &outer])?;
    }
    for node in 1..=2 {
        let path = place.netns_path(node);
        if path.exists() {
            // After a reboot this may be a plain file that `ip` rejects.
            let _ = exec::run(&["ip", "netns", "del", &place.netns(node)]);
            let _ = std::fs::remove_file(&path);
        }
        if path.exists() {
            return Err(Error::new(format!("cannot remove {}", path.display())));
        }
    }
    Ok(())
}
