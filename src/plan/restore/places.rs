//! Which folders of which volumes the hosts of a run restore into.

use k8s_openapi::api::core::v1::{Volume, VolumeMount};

use crate::api::restore_session::HostRestoreStats;
use crate::api::to_json;
use crate::names::hash_of;
use crate::plan::restore::held_note::ON_NODE;
use crate::plan::restore::pass::{Pass, target_of};
use crate::plan::run::hosts::{HostSet, is_within, normal_path, parts, rule_for};
use crate::plan::seen::target::Reach;
use crate::text::short_id;

/// A place that a host restores to.
pub struct Spot<'a> {
    /// Identity of the volume, whatever its name in pods.
    pub volume: String,
    /// Whether it is a PersistentVolumeClaim. For other volumes it is unknown which other pods use them.
    pub is_claim: bool,
    /// The path in the volume.
    pub path: String,
    /// The folder of the volume that is mounted: `subPath`.
    pub sub: String,
    /// Index of the member.
    pub member: usize,
    /// Name of the host.
    pub host: &'a str,
    /// Where the volume is mounted.
    pub mount: String,
    /// Whether the restore deletes files there that are not its own.
    pub deletes: bool,
    /// The snapshots that are restored there, by the first digits of their ids.
    pub snapshots: Vec<String>,
    /// Stands for what is not restored there. `None` if everything in the snapshot is restored.
    pub only: Option<String>,
}

/// The places of one host.
pub fn of_host<'p>(pass: &'p Pass<'_>, member: usize, host: &'p HostRestoreStats) -> Vec<Spot<'p>> {
    let Some(spec) = pass.run.members.get(member).and_then(|m| m.target.as_ref()) else { return vec![] };
    let Some(rule) = rule_for(&spec.rules, &host.hostname) else { return vec![] };
    let of_target = || {
        let place = HostSet::of_restore(spec).place(&host.hostname, host.node.as_deref());
        target_of(pass.seen, member)?.reach(&spec.volume_mounts, &place, false, true).ok()
    };
    // `pass.reaches` has no entries for a member that is over.
    let computed = if pass.reaches.contains_key(&(member, host.hostname.clone())) { None } else { of_target() };
    let Some(reach) = pass.reaches.get(&(member, host.hostname.clone())).or(computed.as_ref()) else { return vec![] };
    let mounts: Vec<(String, &VolumeMount)> = reach.mounts.iter().map(|m| (normal_path(&m.mount_path), m)).collect();
    let is_part = !rule.include.is_empty() || !rule.exclude.is_empty();
    let patterns = [&rule.include, &rule.exclude].map(|list| to_json(list).to_string());
    let spot = |root: &Root, path: &str, at: &str, mount: &VolumeMount, deletes: bool| {
        let volume = reach.volumes.iter().find(|v| v.name == mount.name)?;
        let (name, base) = identity(volume, reach);
        let rest: Vec<&str> = parts(path).skip(parts(at).count()).collect();
        let sub = mount.sub_path.clone().unwrap_or_default();
        let path = normal_path(&format!("{base}/{sub}/{}", rest.join("/")));
        let is_claim = volume.persistent_volume_claim.is_some();
        let only = (is_part || root.is_vague)
            .then(|| hash_of(&[&patterns[0], &patterns[1], if root.is_vague { "paths" } else { "" }]));
        Some(Spot {
            volume: name,
            is_claim,
            path,
            sub,
            member,
            host: &host.hostname,
            mount: at.to_owned(),
            deletes,
            snapshots: from(host, root),
            only,
        })
    };
    let mut all = vec![];
    for root in roots(&rule.paths, host, &mounts) {
        let around = mounts.iter().filter(|(at, _)| is_within(&root.path, at)).max_by_key(|(at, _)| at.len());
        if let Some((own, mount)) = around {
            all.extend(spot(&root, &root.path, own, mount, spec.is_exact()));
        }
        // Volumes that are mounted below are written to, but not searched.
        let own = around.map(|(at, _)| at);
        for (at, mount) in mounts.iter().filter(|(at, _)| Some(at) != own && is_within(at, &root.path)) {
            all.extend(spot(&root, at, at, mount, false));
        }
    }
    all
}

/// The snapshots that are restored there.
fn from(host: &HostRestoreStats, root: &Root) -> Vec<String> {
    let has = |path: &str| is_within(path, &root.path) || is_within(&root.path, path);
    let pins = host.snapshots.iter().filter(|s| s.path.as_deref().is_none_or(has));
    pins.map(|s| short_id(&s.id).to_owned()).collect()
}

/// A folder that a host restores, as its pods name it.
struct Root {
    path: String,
    /// The restored data is somewhere in it: the snapshot has several paths, and status does not say which.
    is_vague: bool,
}

fn roots(paths: &[String], host: &HostRestoreStats, mounts: &[(String, &VolumeMount)]) -> Vec<Root> {
    let root = |path: &String| Root { path: normal_path(path), is_vague: false };
    let somewhere = |is_vague: bool| mounts.iter().map(move |(at, _)| Root { path: at.clone(), is_vague });
    if !paths.is_empty() {
        return paths.iter().map(root).collect();
    }
    // The paths of a snapshot are not known before it is found.
    if host.snapshots.is_empty() {
        return somewhere(false).collect();
    }
    let vague = host.snapshots.iter().any(|s| s.path.is_none()).then(|| somewhere(true));
    host.snapshots.iter().filter_map(|s| s.path.as_ref()).map(root).chain(vague.into_iter().flatten()).collect()
}

/// Identity of a volume, and the folder in it that is the volume's root.
fn identity(volume: &Volume, reach: &Reach) -> (String, String) {
    if let Some(claim) = &volume.persistent_volume_claim {
        return (format!("PersistentVolumeClaim {}", claim.claim_name), String::new());
    }
    if let Some(folder) = &volume.host_path {
        return (format!("{ON_NODE}{}", reach.home.as_deref().unwrap_or_default()), folder.path.clone());
    }
    if let Some(nfs) = &volume.nfs {
        return (format!("NFS server {}", nfs.server), nfs.path.clone());
    }
    let source = to_json(&Volume { name: String::new(), ..volume.clone() });
    (format!("volume {source}"), String::new())
}
