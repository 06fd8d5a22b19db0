//! Targets: whether each exists, which hosts it has, and how a Job reaches each host.

use crate::api::Condition;
use crate::api::common::Quiesce;
use crate::api::restore_session::{HostPhase, HostRestoreStats, RestorePhase};
use crate::contract::{Class, Failure};
use crate::names::{condition, reason};
use crate::plan::restore::pass::{LOOK_FOR_MISSING, Pass};
use crate::plan::restore::status::{fail_member, is_started, member_is_over, member_label};
use crate::plan::restore::{conclude, pvc_templates};
use crate::plan::run::conditions;
use crate::plan::run::hosts::{HostSet, Place, display, rule_for, source_host};
use crate::plan::seen::Seen;
use crate::plan::seen::target::{Reach, TargetSeen};

/// Takes the members from a BackupBatch, once. From the next pass on, the members in status are used.
pub fn members(pass: &mut Pass<'_>, display: &str) {
    let text = match &pass.seen.source {
        Seen::Found(adopted) => {
            pass.now.adopted = Some(adopted.clone());
            pass.plan.again = true;
            return conclude::wait(pass, &format!("the members are those of {display}."));
        }
        Seen::Missing => format!("{display} does not exist."),
        Seen::Unknown(why) => format!("{display} could not be read: {why}"),
    };
    if pass.expired {
        conclude::late(pass);
        let text = format!("Not started before the deadline. {text}");
        conclude::end(pass, RestorePhase::Failed, reason::DEADLINE_EXCEEDED, &text);
    } else {
        pass.plan.look_again(LOOK_FOR_MISSING);
        if pass.seen.source == Seen::Missing {
            return conclude::wait_loudly(pass, &text);
        }
        conclude::wait(pass, &text);
    }
}

/// Looks up every member's target: whether it exists, which hosts it has, and how a Job reaches each host.
pub fn targets(pass: &mut Pass<'_>) {
    for index in 0..pass.run.members.len() {
        if !member_is_over(pass.now.members[index].phase) {
            find_one(pass, index);
        }
    }
}

/// The member that has a host of this name already. Names of nodes are known here for the first time.
fn taken(pass: &Pass<'_>, index: usize, host: &str) -> Option<String> {
    let mut others = pass.now.members.iter().enumerate().filter(|(i, _)| *i != index);
    let (i, other) = others.find(|(_, m)| m.stats.iter().any(|h| h.hostname == host))?;
    Some(member_label(i, other))
}

/// Handles a member whose parts are outside of the cluster. Its preflight finds out what exists there.
fn outside(pass: &mut Pass<'_>, index: usize, parts: Vec<String>) {
    let name = member_label(index, &pass.now.members[index]);
    if pass.now.members[index].stats.is_empty() {
        if let Some((part, other)) = parts.iter().find_map(|p| Some((p, taken(pass, index, p)?))) {
            let text = format!("Part {part} of {name} has the name of a host of {other}. Set another target.alias.");
            return fail_member(&mut pass.now.members[index], &text);
        }
        let status = &mut pass.now.members[index];
        let entry = |hostname| HostRestoreStats { hostname, phase: Some(HostPhase::Pending), ..Default::default() };
        status.stats = parts.into_iter().map(entry).collect();
        status.total_hosts = i32::try_from(status.stats.len()).ok();
    }
    let hosts = pass.now.members[index].stats.iter();
    let reaches: Vec<_> = hosts.map(|h| ((index, h.hostname.clone()), Reach::default())).collect();
    pass.reaches.extend(reaches);
}

fn find_one(pass: &mut Pass<'_>, index: usize) {
    if let Some(parts) = pass.parts_outside(index) {
        return outside(pass, index, parts);
    }
    let at = pass.at;
    let Some(spec) = &pass.run.members[index].target else { return };
    let name = match spec.volume_claim_templates.len() {
        0 => display(&pass.now.members[index].ref_),
        _ => "of volumeClaimTemplates".to_owned(),
    };
    let status = &mut pass.now.members[index];
    let target = match pass.seen.targets.get(index) {
        Some(TargetSeen::Found(target)) => target,
        Some(TargetSeen::Unknown(why)) => {
            let text = format!("Restore target {name} could not be read: {why}");
            conditions::set(
                &mut status.conditions,
                condition::RESTORE_TARGET_FOUND,
                conditions::Value::Unknown,
                reason::TARGET_UNKNOWN,
                &text,
                at,
            );
            status.message = Some(text);
            pass.plan.look_again(LOOK_FOR_MISSING);
            return;
        }
        Some(TargetSeen::Missing(_)) | None => {
            let text = format!("Restore target {name} does not exist.");
            conditions::set(
                &mut status.conditions,
                condition::RESTORE_TARGET_FOUND,
                false,
                reason::TARGET_NOT_AVAILABLE,
                &text,
                at,
            );
            status.message = Some(text);
            pass.plan.look_again(LOOK_FOR_MISSING);
            return;
        }
    };
    conditions::set(
        &mut status.conditions,
        condition::RESTORE_TARGET_FOUND,
        true,
        reason::TARGET_AVAILABLE,
        format!("Restore target {name} found."),
        at,
    );
    if let (false, Some(system)) = (is_started(status), pass.run.system(index))
        && let Err(failure) = system.check(target, &pass.run.members[index], &pass.run.id.namespace)
    {
        let (list, text) = (&mut status.conditions, &failure.message);
        conditions::set(list, condition::RESTORE_EXECUTOR_ENSURED, false, &failure.reason, text, at);
        fail_member(status, text);
        return;
    }
    let set = HostSet::of_restore(spec);
    // Once a workload is quiesced, its hosts are counted from status and no longer from its replicas.
    let known = !status.stats.is_empty();
    let waits = |text: String| Some(text).filter(|_| !known);
    if let Some(text) = target.too_many().and_then(waits) {
        fail_member(status, &text);
        return;
    }
    if let Some(text) = target.uncounted().and_then(waits) {
        status.message = Some(text);
        pass.plan.look_again(LOOK_FOR_MISSING);
        return;
    }
    let all: Vec<(Place, String)> = if known {
        status.stats.iter().map(|h| (set.place(&h.hostname, h.node.as_deref()), h.hostname.clone())).collect()
    } else {
        target
            .places()
            .into_iter()
            .map(|p| {
                let host = set.host(&p);
                (p, host)
            })
            .collect()
    };
    if all.is_empty() {
        status.message = Some(format!(
            "{name} has no replicas, PVCs or nodes, so it has no host to restore. Scale it up, or create its PVCs."
        ));
        pass.plan.look_again(LOOK_FOR_MISSING);
        return;
    }
    let unmatched: Vec<&String> =
        spec.rules.iter().flat_map(|r| &r.target_hosts).filter(|h| !all.iter().any(|(_, host)| host == *h)).collect();
    if !known && !unmatched.is_empty() {
        let names: Vec<&str> = all.iter().map(|(_, h)| h.as_str()).collect();
        let text = format!(
            "target.rules names hosts that {name} does not have: {}. It has: {}.",
            unmatched.iter().map(|h| h.as_str()).collect::<Vec<_>>().join(", "),
            names.join(", ")
        );
        fail_member(status, &text);
        return;
    }
    if let Some((host, other)) = all.iter().filter(|_| !known).find_map(|(_, h)| Some((h, taken(pass, index, h)?))) {
        let text = format!(
            "Host {host} of {name} is also a host of {other}, so that both would be restored from the same backups. Set another target.alias."
        );
        fail_member(&mut pass.now.members[index], &text);
        return;
    }
    let status = &mut pass.now.members[index];
    // A workload that will be scaled to zero no longer holds its volumes when a Job mounts them.
    let live = !(target.is_scalable() && spec.quiesce != Some(Quiesce::Never));
    let mut waiting = None;
    for (place, host) in &all {
        let Some(rule) = rule_for(&spec.rules, host) else { continue };
        let own = target.to_make.iter().filter(|w| w.ordinal == place.ordinal);
        let free = own.map(|w| pvc_templates::may_use(w, target, &pass.run.id)).collect::<Result<Vec<()>, _>>();
        let reach = free.and_then(|_| target.reach(&spec.volume_mounts, place, live, true));
        let home = reach.as_ref().ok().and_then(|r| r.home.clone());
        match reach {
            Ok(reach) => {
                pass.reaches.insert((index, host.clone()), reach);
            }
            Err(failure) if failure.class == Class::Waiting || is_started(status) => waiting = Some(failure),
            Err(failure) => {
                // The reason would be lost otherwise, because the member has no host entry that could hold it.
                let (list, text) = (&mut status.conditions, &failure.message);
                conditions::set(list, condition::RESTORE_EXECUTOR_ENSURED, false, &failure.reason, text, at);
                fail_member(status, text);
                return;
            }
        }
        if !known {
            status.stats.push(HostRestoreStats {
                hostname: host.clone(),
                phase: Some(HostPhase::Pending),
                source_host: Some(source_host(rule, host).to_owned()),
                node: place.node.clone(),
                ..HostRestoreStats::default()
            });
        }
        // The node is known from the workload's pods, so it is recorded before they are gone.
        if let Some(entry) = status.stats.iter_mut().find(|h| h.hostname == *host) {
            entry.node = entry.node.take().or(home);
        }
    }
    if status.stats.is_empty() {
        fail_member(status, &format!("No rule of target.rules is for a host of {name}, so nothing would be restored."));
        return;
    }
    status.total_hosts = i32::try_from(status.stats.len()).ok();
    if let Some(Failure { reason: why, message: text, .. }) = waiting {
        if why == reason::TARGET_NOT_AVAILABLE && !is_started(status) {
            conditions::set(&mut status.conditions, condition::RESTORE_EXECUTOR_ENSURED, false, &why, &text, at);
        }
        status.message = Some(text);
        pass.plan.look_again(LOOK_FOR_MISSING);
    } else {
        status.message = None;
        // The object that was missing exists now.
        let is_past = |c: &Condition| c.type_ == condition::RESTORE_EXECUTOR_ENSURED && c.status == "False";
        status.conditions.retain(|c| !is_past(c) || c.reason.as_deref() != Some(reason::TARGET_NOT_AVAILABLE));
    }
}
