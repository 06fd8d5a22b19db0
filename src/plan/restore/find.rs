//! Targets: is each there, which hosts has it, how does a Job reach each.

use super::member::{fail_member, is_started};
use super::{LOOK_FOR_MISSING, Pass, display, member_is_over, report};
use crate::api::common::Quiesce;
use crate::api::restore_session::{HostPhase, HostRestoreStats, RestorePhase};
use crate::names::{condition, reason};
use crate::plan::conditions;
use crate::plan::contract::Class;
use crate::plan::hosts::{HostSet, TargetKind, ordinal_of, rule_for, source_host};
use crate::plan::observed::Seen;
use crate::plan::target::TargetSeen;

/// Takes the members from a BackupBatch, once: from the next pass on they are those in status.
pub fn members(pass: &mut Pass<'_>, display: &str) {
    let text = match &pass.seen.source {
        Seen::Found(adopted) => {
            pass.now.adopted = Some(adopted.clone());
            pass.plan.again = true;
            return report::wait(pass, &format!("members are taken from {display}."));
        }
        Seen::Missing => format!("{display} does not exist."),
        Seen::Unknown(why) => format!("{display} could not be looked up: {why}"),
    };
    if pass.expired {
        report::late(pass);
        let text = format!("Not begun before the deadline. {text}");
        pass.end_with(RestorePhase::Failed, reason::DEADLINE_EXCEEDED, &text);
    } else {
        pass.plan.look_again(LOOK_FOR_MISSING);
        report::wait(pass, &text);
    }
}

/// Looks at every member's target: is it there, which hosts has it, how does a Job reach each.
pub fn targets(pass: &mut Pass<'_>) {
    for index in 0..pass.run.members.len() {
        if !member_is_over(pass.now.members[index].phase) {
            find_one(pass, index);
        }
    }
}

fn find_one(pass: &mut Pass<'_>, index: usize) {
    let at = pass.at;
    let name = display(&pass.now.members[index].ref_);
    let status = &mut pass.now.members[index];
    let target = match pass.seen.targets.get(index) {
        Some(TargetSeen::Found(target)) => target,
        Some(TargetSeen::Unknown(why)) => {
            let text = format!("Restore target {name} could not be looked up: {why}");
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
    let Some(spec) = &pass.run.members[index].target else { return };
    let set = HostSet::of(TargetKind::of_name(&target.kind), spec.alias.as_deref());
    // Once a workload is quiesced its replicas no longer count its hosts: status does.
    let known = !status.stats.is_empty();
    let all: Vec<(i32, String)> = if known {
        status.stats.iter().map(|h| (ordinal_of(&h.hostname), h.hostname.clone())).collect()
    } else {
        target.ordinals().into_iter().map(|o| (o, set.host(o))).collect()
    };
    if all.is_empty() {
        status.message = Some(format!(
            "{name} has no replicas and no claims, so it has no host to restore. Scale it up, or create its claims."
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
    // What will be scaled to zero does not hold its volumes by the time a Job mounts them.
    let live = !(target.is_scalable() && spec.quiesce != Some(Quiesce::Never));
    let mut waiting = None;
    for (ordinal, host) in &all {
        let Some(rule) = rule_for(&spec.rules, host) else { continue };
        match target.reach(&spec.volume_mounts, *ordinal, live) {
            Ok(reach) => {
                pass.reaches.insert((index, host.clone()), reach);
            }
            Err(failure) if failure.class == Class::Waiting => waiting = Some(failure.message),
            Err(failure) => {
                if is_started(status) {
                    waiting = Some(failure.message);
                } else {
                    fail_member(status, &failure.message);
                    return;
                }
            }
        }
        if !known {
            status.stats.push(HostRestoreStats {
                hostname: host.clone(),
                phase: Some(HostPhase::Pending),
                source_host: Some(source_host(rule, host).to_owned()),
                ..HostRestoreStats::default()
            });
        }
    }
    if status.stats.is_empty() {
        fail_member(status, &format!("No rule of target.rules is for a host of {name}, so nothing would be restored."));
        return;
    }
    status.total_hosts = i32::try_from(status.stats.len()).ok();
    if let Some(text) = waiting {
        status.message = Some(text);
        pass.plan.look_again(LOOK_FOR_MISSING);
    } else {
        status.message = None;
    }
}
