//! `extraneous: Delete`: a Job that deletes is created only if no other pod or host has files where it looks.
//!
//! Pods that use the volumes would lose what they are writing, so the member waits for them. Another host of the run
//! that restores into the same folder of a volume would lose its restored files, so the member that deletes is refused.
//! Inside of one host, the agent decides what is deleted: it has the names.

use std::collections::BTreeMap;

use crate::api::common::Quiesce;
use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::HostRestoreStats;
use crate::api::target::RestoreTarget;
use crate::names::{condition, reason};
use crate::plan::effects::Event;
use crate::plan::restore::pass::{Pass, target_of};
use crate::plan::restore::places;
use crate::plan::restore::places::Spot;
use crate::plan::restore::status::{fail_member, is_broken, is_over, is_started, member_is_over, member_label};
use crate::plan::restore::users::{named, users};
use crate::plan::run::conditions;
use crate::plan::run::hosts::{is_within, parts};
use crate::text::entries;

/// Records what an attempt has deleted, even if it failed afterwards.
pub fn note(host: &mut HostRestoreStats, deleted: Option<u64>) -> Option<Event> {
    let now = i64::try_from(deleted?).unwrap_or(i64::MAX);
    host.deleted = Some(host.deleted.unwrap_or(0).saturating_add(now));
    let text = format!(
        "Deleted {} of host {} that are not in the snapshots. The log of its Job lists them.",
        entries(now),
        host.hostname
    );
    (now > 0).then(|| Event::new(false, reason::EXTRANEOUS_DELETED, &text))
}

/// Whether a member deletes extraneous files.
fn is_exact(pass: &Pass<'_>, index: usize) -> bool {
    pass.run.members[index].target.as_ref().is_some_and(RestoreTarget::is_exact)
}

/// Records that an attempt ended without reporting what it had deleted.
pub fn note_uncounted(pass: &mut Pass<'_>, index: usize, host: usize) {
    if is_exact(pass, index) {
        pass.now.members[index].stats[host].more_deleted = Some(true);
    }
}

/// The same for every host that is interrupted, by a cancel or the deadline for example.
pub fn note_cut_off(pass: &mut Pass<'_>) {
    for index in 0..pass.now.members.len().min(pass.run.members.len()) {
        for host in 0..pass.now.members[index].stats.len() {
            let entry = &pass.now.members[index].stats[host];
            if !is_over(entry.phase) && entry.attempt.is_some() && entry.unwritten != entry.attempt {
                note_uncounted(pass, index, host);
            }
        }
    }
}

/// What was deleted in total. `None` if no host was to be exact.
pub fn deleted(members: &[RestoreMemberStatus]) -> Option<String> {
    let hosts = || members.iter().flat_map(|m| &m.stats);
    let all = hosts().filter_map(|h| h.deleted).reduce(i64::saturating_add)?;
    let least = if hosts().any(|h| h.more_deleted == Some(true)) { "at least " } else { "" };
    Some(format!("Deleted {least}{}.", entries(all)))
}

/// Why a member that deletes must wait: pods that are not scaled down for it use its volumes.
pub fn in_use(pass: &Pass<'_>, index: usize) -> Option<String> {
    let spec = pass.run.members[index].target.as_ref().filter(|t| t.is_exact())?;
    let target = target_of(pass.seen, index)?;
    let mut pods = users(pass, index);
    if !target.is_scalable() || spec.quiesce == Some(Quiesce::Never) {
        pods.extend(target.pods.iter().map(|p| p.name.clone()));
    }
    (!pods.is_empty()).then(|| {
        format!(
            "target.extraneous is Delete, and pods ({}) use the volumes of {} and would lose files that they write. Stop them, or remove extraneous.",
            named(&pods),
            target.display
        )
    })
}

/// Whether a Job that deletes must be stopped, because other pods have begun to use the volumes.
pub fn must_stop(pass: &Pass<'_>, index: usize) -> bool {
    is_exact(pass, index) && (is_broken(&pass.now.members[index]) || in_use(pass, index).is_some())
}

/// Fails members before they begin if one would delete what another one restores or writes.
pub fn refuse_shared(pass: &mut Pass<'_>) {
    while let Some((index, why, text)) = clash(pass) {
        let at = pass.at;
        let status = &mut pass.now.members[index];
        conditions::set(&mut status.conditions, condition::RESTORE_EXECUTOR_ENSURED, false, why, &text, at);
        fail_member(status, &text);
    }
}

/// A member that may not begin, and why.
fn clash(pass: &Pass<'_>) -> Option<(usize, &'static str, String)> {
    let is_open = |i: usize| !member_is_over(pass.now.members[i].phase) && !is_started(&pass.now.members[i]);
    let is_exact = |i: usize| is_exact(pass, i);
    let all = 0..pass.run.members.len();
    if !all.clone().any(is_exact) || !all.clone().any(is_open) {
        return None;
    }
    let mut volumes: BTreeMap<String, Vec<Spot<'_>>> = BTreeMap::new();
    for member in all.clone() {
        let status = &pass.now.members[member];
        // A member that ended without having begun restores nothing.
        if !member_is_over(status.phase) || is_started(status) {
            for spot in status.stats.iter().flat_map(|host| places::of_host(pass, member, host)) {
                if spot.deletes && !spot.is_claim && is_open(member) {
                    return Some((member, reason::EXTRANEOUS_NOT_POSSIBLE, no_claim(pass, &spot)));
                }
                volumes.entry(spot.volume.clone()).or_default().push(spot);
            }
        }
    }
    volumes.retain(|_, spots| spots.iter().any(|s| s.deletes));
    let found = volumes.iter_mut().find_map(|(volume, spots)| {
        spots.sort_by(|a, b| parts(&a.path).cmp(parts(&b.path)));
        let mut around: Vec<&Spot<'_>> = vec![];
        for spot in spots.iter() {
            while around.pop_if(|last| !is_within(&spot.path, &last.path)).is_some() {}
            let clashes = |other: &&&Spot<'_>| meets(spot, other) && (is_open(spot.member) || is_open(other.member));
            if let Some(other) = around.iter().find(clashes) {
                return Some((volume, spot, *other));
            }
            around.push(spot);
        }
        // Different subPaths of one volume can be one folder, through a link on the volume: the kubelet follows it.
        let first = spots.iter().find(|s| s.deletes)?;
        let apart = |s: &&Spot<'_>| {
            (s.member, s.host) != (first.member, first.host)
                && s.sub != first.sub
                && (is_open(s.member) || is_open(first.member))
        };
        let other = spots.iter().find(apart)?;
        Some((volume, first, other))
    });
    if let Some((volume, one, two)) = found {
        let (deletes, other) = if one.deletes { (one, two) } else { (two, one) };
        if let Some(ends) = [deletes, other].into_iter().find(|s| is_open(s.member)) {
            return Some((ends.member, reason::EXTRANEOUS_OF_ANOTHER, text(pass, volume, deletes, other)));
        }
    }
    // A member that waits for pods of another member would wait forever: those pods are scaled down only in that
    // member's own turn.
    all.clone().filter(|i| is_open(*i) && is_exact(*i)).find_map(|index| {
        let used = users(pass, index);
        let mut others = all.clone().filter(|other| *other != index);
        let other = others.find(|other| {
            let own = target_of(pass.seen, *other).map(|t| t.pods.as_slice()).unwrap_or_default();
            own.iter().any(|pod| used.contains(&pod.name))
        })?;
        let text = format!(
            "target.extraneous is Delete, and pods of {} use the volumes of {}, which would lose files that they write. Restore both in separate runs, with the pods of the other one stopped, or remove extraneous. Nothing was changed.",
            member_label(other, &pass.now.members[other]),
            member_label(index, &pass.now.members[index])
        );
        Some((index, reason::EXTRANEOUS_OF_ANOTHER, text))
    })
}

/// Whether, of two places where one contains the other, a restore to one deletes what is restored to the other. Paths
/// of one mount are known to the agent, which keeps what any snapshot of its host contains.
fn meets(a: &Spot<'_>, b: &Spot<'_>) -> bool {
    (a.deletes || b.deletes) && ((a.member, a.host) != (b.member, b.host) || a.mount != b.mount)
}

fn text(pass: &Pass<'_>, volume: &str, deletes: &Spot<'_>, other: &Spot<'_>) -> String {
    let label = |s: &Spot<'_>| format!("host {} of {}", s.host, member_label(s.member, &pass.now.members[s.member]));
    let what = if (deletes.member, deletes.host) == (other.member, other.host) {
        format!("{} restores into one folder of {volume} at {} and at {}", label(deletes), deletes.mount, other.mount)
    } else if deletes.sub == other.sub {
        format!("{} and {} restore into one folder of {volume}", label(deletes), label(other))
    } else {
        format!(
            "{} and {} restore into {volume} by different subPaths, which can be one folder",
            label(deletes),
            label(other)
        )
    };
    format!(
        "target.extraneous is Delete, and {what}, so one would delete files of the other. Set separate paths in the rules, restore them in separate runs, or remove extraneous. Nothing was changed."
    )
}

fn no_claim(pass: &Pass<'_>, spot: &Spot<'_>) -> String {
    let member = member_label(spot.member, &pass.now.members[spot.member]);
    format!(
        "target.extraneous is Delete, and host {} of {member} restores into {} at {}, which is not a PersistentVolumeClaim: Lifeboat cannot find out which other pods write to it. Remove extraneous. Nothing was changed.",
        spot.host, spot.volume, spot.mount
    )
}
