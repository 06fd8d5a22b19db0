//! `extraneous: Delete`: before a Job that deletes can exist, nobody else may have a file where it looks.
//!
//! Pods that use the volumes would lose what they are writing, so the member waits for them. Another host of
//! the run that restores into the same folder of a volume would lose what it has got back, so the member that
//! deletes is refused. What deletes inside of one host is the agent's to know: it has the names.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Volume, VolumeMount};

use super::member::{fail_member, is_started};
use super::quiesce::{named, users};
use super::{Pass, member_is_over, target_of};
use crate::api::common::Quiesce;
use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::HostRestoreStats;
use crate::api::target::RestoreTarget;
use crate::api::to_json;
use crate::names::{condition, reason};
use crate::plan::hosts::{HostSet, is_within, normal_path, parts, rule_for};
use crate::plan::run::member_label;
use crate::plan::target::Reach;
use crate::plan::text::entries;
use crate::plan::{Event, conditions};

/// Takes note of what a try has deleted, also one that failed afterwards.
pub fn note(host: &mut HostRestoreStats, deleted: Option<u64>) -> Option<Event> {
    let now = i64::try_from(deleted?).unwrap_or(i64::MAX);
    host.deleted = Some(host.deleted.unwrap_or(0).saturating_add(now));
    let text = format!(
        "Deleted {} of host {} that the snapshots do not have. The log of its Job names them.",
        entries(now),
        host.hostname
    );
    (now > 0).then(|| Event::new(false, reason::EXTRANEOUS_DELETED, &text))
}

/// Takes note of a try that ended without saying what it had deleted.
pub fn note_uncounted(pass: &mut Pass<'_>, index: usize, host: usize) {
    if pass.run.members[index].target.as_ref().is_some_and(RestoreTarget::is_exact) {
        pass.now.members[index].stats[host].more_deleted = Some(true);
    }
}

/// What was deleted in all; nothing where no host was to be exact.
pub fn deleted(members: &[RestoreMemberStatus]) -> Option<String> {
    let hosts = || members.iter().flat_map(|m| &m.stats);
    let all = hosts().filter_map(|h| h.deleted).reduce(i64::saturating_add)?;
    let least = if hosts().any(|h| h.more_deleted == Some(true)) { "at least " } else { "" };
    Some(format!("Deleted {least}{}.", entries(all)))
}

/// Why a member that deletes must wait: pods use its volumes that are not scaled down for it.
pub fn in_use(pass: &Pass<'_>, index: usize) -> Option<String> {
    let spec = pass.run.members[index].target.as_ref().filter(|t| t.is_exact())?;
    let target = target_of(pass.seen, index)?;
    let mut pods = users(pass, index);
    if !target.is_scalable() || spec.quiesce == Some(Quiesce::Never) {
        pods.extend(target.pods.iter().map(|p| p.name.clone()));
    }
    (!pods.is_empty()).then(|| {
        format!(
            "target.extraneous is Delete, and the volumes of {} are used by {}, which would lose files that they are writing. Stop them, or leave extraneous out.",
            target.display,
            named(&pods)
        )
    })
}

/// Where a host restores to.
struct Spot<'a> {
    path: String,
    member: usize,
    host: &'a str,
    mount: String,
    /// It deletes what is there and not its own.
    deletes: bool,
}

/// Fails members of which one would delete what another one restores, before they begin.
pub fn refuse_shared(pass: &mut Pass<'_>) {
    while let Some((index, text)) = clash(pass) {
        let (at, why) = (pass.at, reason::EXTRANEOUS_OF_ANOTHER);
        let status = &mut pass.now.members[index];
        conditions::set(&mut status.conditions, condition::RESTORE_EXECUTOR_ENSURED, false, why, &text, at);
        fail_member(status, &text);
    }
}

/// A member that may not begin, and why.
fn clash(pass: &Pass<'_>) -> Option<(usize, String)> {
    let is_open = |i: usize| !member_is_over(pass.now.members[i].phase) && !is_started(&pass.now.members[i]);
    let is_exact = |i: usize| pass.run.members[i].target.as_ref().is_some_and(RestoreTarget::is_exact);
    let all = 0..pass.run.members.len();
    if !all.clone().any(is_exact) || !all.clone().any(is_open) {
        return None;
    }
    let mut volumes: BTreeMap<String, Vec<Spot<'_>>> = BTreeMap::new();
    for member in all {
        let status = &pass.now.members[member];
        // What was never begun restores nothing.
        if !member_is_over(status.phase) || is_started(status) {
            for host in &status.stats {
                spots(pass, member, host, &mut volumes);
            }
        }
    }
    volumes.retain(|_, spots| spots.iter().any(|s| s.deletes));
    volumes.iter_mut().find_map(|(volume, spots)| {
        spots.sort_by(|a, b| parts(&a.path).cmp(parts(&b.path)));
        let mut around: Vec<&Spot<'_>> = vec![];
        for spot in spots.iter() {
            while around.pop_if(|last| !is_within(&spot.path, &last.path)).is_some() {}
            let found = around.iter().filter(|other| meets(spot, other)).find_map(|other| {
                let (one, two) = if spot.deletes { (spot, *other) } else { (*other, spot) };
                let ends = [one, two].into_iter().find(|s| is_open(s.member))?;
                Some((ends.member, text(pass, volume, one, two)))
            });
            if found.is_some() {
                return found;
            }
            around.push(spot);
        }
        None
    })
}

/// Whether one of two places that are one in the other loses what the other one gets. Paths of one mount are
/// known to the agent, which keeps what any snapshot of its host holds.
fn meets(a: &Spot<'_>, b: &Spot<'_>) -> bool {
    (a.deletes || b.deletes) && ((a.member, a.host) != (b.member, b.host) || a.mount != b.mount)
}

fn text(pass: &Pass<'_>, volume: &str, deletes: &Spot<'_>, other: &Spot<'_>) -> String {
    let label = |s: &Spot<'_>| format!("host {} of {}", s.host, member_label(s.member, &pass.now.members[s.member]));
    let what = if (deletes.member, deletes.host) == (other.member, other.host) {
        format!("{} restores into one folder of {volume} at {} and at {}", label(deletes), deletes.mount, other.mount)
    } else {
        format!("{} and {} restore into one folder of {volume}", label(deletes), label(other))
    };
    format!(
        "target.extraneous is Delete, and {what}, so that files of the one would be deleted for the other. Name in paths of the rules what each restores by itself, or leave extraneous out. Nothing was touched."
    )
}

/// The places of one host, by volume.
fn spots<'p>(
    pass: &'p Pass<'_>,
    member: usize,
    host: &'p HostRestoreStats,
    volumes: &mut BTreeMap<String, Vec<Spot<'p>>>,
) {
    let Some(spec) = pass.run.members[member].target.as_ref() else { return };
    let Some(rule) = rule_for(&spec.rules, &host.hostname) else { return };
    let known = pass.reaches.get(&(member, host.hostname.clone())).cloned();
    // A member that is over is not looked at any more by others.
    let of_target = || {
        let place = HostSet::of_restore(spec).place(&host.hostname, host.node.as_deref());
        target_of(pass.seen, member)?.reach(&spec.volume_mounts, &place, false, true).ok()
    };
    let Some(reach) = known.or_else(of_target) else { return };
    let mounts: Vec<(String, &VolumeMount)> = reach.mounts.iter().map(|m| (normal_path(&m.mount_path), m)).collect();
    let mut add = |path: &str, at: &str, mount: &VolumeMount, deletes: bool| {
        let Some(volume) = reach.volumes.iter().find(|v| v.name == mount.name) else { return };
        let (name, base) = identity(volume, &reach);
        let rest: Vec<&str> = parts(path).skip(parts(at).count()).collect();
        let sub = mount.sub_path.as_deref().unwrap_or_default();
        let path = normal_path(&format!("{base}/{sub}/{}", rest.join("/")));
        let spot = Spot { path, member, host: &host.hostname, mount: at.to_owned(), deletes };
        volumes.entry(name).or_default().push(spot);
    };
    // Which paths a snapshot holds is not known before it is found.
    let roots: Vec<String> = if rule.paths.is_empty() {
        mounts.iter().map(|(at, _)| at.clone()).collect()
    } else {
        rule.paths.iter().map(|p| normal_path(p)).collect()
    };
    for root in roots {
        let around = mounts.iter().filter(|(at, _)| is_within(&root, at)).max_by_key(|(at, _)| at.len());
        let Some((own, mount)) = around else { continue };
        add(&root, own, mount, spec.is_exact());
        // What is mounted below is written to, and not looked through.
        for (at, mount) in mounts.iter().filter(|(at, _)| at != own && is_within(at, &root)) {
            add(at, at, mount, false);
        }
    }
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
