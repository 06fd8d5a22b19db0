//! Which folders of which volumes the hosts of a run restore into.

use k8s_openapi::api::core::v1::{Volume, VolumeMount};

use super::{Pass, target_of};
use crate::api::restore_session::HostRestoreStats;
use crate::api::to_json;
use crate::names::hash_of;
use crate::plan::hosts::{HostSet, is_within, normal_path, parts, rule_for};
use crate::plan::target::Reach;

/// Where a host restores to.
pub struct Spot<'a> {
    /// What the volume is, whatever pods call it.
    pub volume: String,
    /// Whether it is a PersistentVolumeClaim: of another volume nobody knows who else uses it.
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
    /// It deletes what is there and not its own.
    pub deletes: bool,
    /// Stands for what the rule leaves out; none where it restores all that is there.
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
    // A member that is over is not looked at any more by others.
    let computed = if pass.reaches.contains_key(&(member, host.hostname.clone())) { None } else { of_target() };
    let Some(reach) = pass.reaches.get(&(member, host.hostname.clone())).or(computed.as_ref()) else { return vec![] };
    let mounts: Vec<(String, &VolumeMount)> = reach.mounts.iter().map(|m| (normal_path(&m.mount_path), m)).collect();
    let only = (!rule.include.is_empty() || !rule.exclude.is_empty()).then(|| {
        let both = [&rule.include, &rule.exclude].map(|list| to_json(list).to_string());
        hash_of(&both.each_ref().map(String::as_str))
    });
    let spot = |path: &str, at: &str, mount: &VolumeMount, deletes: bool| {
        let volume = reach.volumes.iter().find(|v| v.name == mount.name)?;
        let (name, base) = identity(volume, reach);
        let rest: Vec<&str> = parts(path).skip(parts(at).count()).collect();
        let sub = mount.sub_path.clone().unwrap_or_default();
        let path = normal_path(&format!("{base}/{sub}/{}", rest.join("/")));
        let (is_claim, only) = (volume.persistent_volume_claim.is_some(), only.clone());
        Some(Spot {
            volume: name,
            is_claim,
            path,
            sub,
            member,
            host: &host.hostname,
            mount: at.to_owned(),
            deletes,
            only,
        })
    };
    // Which paths a snapshot holds is not known before it is found.
    let roots: Vec<String> = if rule.paths.is_empty() {
        mounts.iter().map(|(at, _)| at.clone()).collect()
    } else {
        rule.paths.iter().map(|p| normal_path(p)).collect()
    };
    let mut all = vec![];
    for root in roots {
        let around = mounts.iter().filter(|(at, _)| is_within(&root, at)).max_by_key(|(at, _)| at.len());
        let Some((own, mount)) = around else { continue };
        all.extend(spot(&root, own, mount, spec.is_exact()));
        // What is mounted below is written to, and not looked through.
        for (at, mount) in mounts.iter().filter(|(at, _)| at != own && is_within(at, &root)) {
            all.extend(spot(at, at, mount, false));
        }
    }
    all
}

/// What a volume is, and the folder of it that is the volume's root.
fn identity(volume: &Volume, reach: &Reach) -> (String, String) {
    if let Some(claim) = &volume.persistent_volume_claim {
        return (format!("PersistentVolumeClaim {}", claim.claim_name), String::new());
    }
    if let Some(folder) = &volume.host_path {
        return (format!("node {}", reach.home.as_deref().unwrap_or_default()), folder.path.clone());
    }
    if let Some(nfs) = &volume.nfs {
        return (format!("NFS server {}", nfs.server), nfs.path.clone());
    }
    let source = to_json(&Volume { name: String::new(), ..volume.clone() });
    (format!("volume {source}"), String::new())
}
