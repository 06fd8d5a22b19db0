//! A member's workload: out of the way for the restore, and back after it.

use super::member::fail_member;
use super::{LOOK_AT_RUNNING, LOOK_FOR_MISSING, Pass, display, is_over, member_is_over, target_of};
use crate::api::common::Quiesce;
use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::{QuiesceState, QuiesceStatus};
use crate::names::{condition, reason};
use crate::plan::target::TargetSeen;
use crate::plan::{Scale, conditions};

/// True when the workload is out of the way. Announced in one pass, scaled in the next.
pub fn quiesce(pass: &mut Pass<'_>, index: usize) -> bool {
    let status = &pass.now.members[index];
    let announced_only = status.quiesce.as_ref().is_none_or(|q| q.state == QuiesceState::Announced);
    if !announced_only || status.stats.iter().any(|h| h.attempt.is_some()) {
        watch_over(pass, index);
        // It was out of the way before; and what is gone since then is in nobody's.
        return true;
    }
    let Some(target) = target_of(pass.seen, index) else { return false };
    let wanted = pass.run.members[index].target.as_ref().and_then(|t| t.quiesce) != Some(Quiesce::Never);
    let name = target.display.clone();
    let at = pass.at;
    if !target.is_scalable() || !wanted {
        return true;
    }
    let shared = shared_record(pass, index);
    let status = &mut pass.now.members[index];
    match status.quiesce.as_ref().map(|q| q.state) {
        None if shared.is_some() => {
            // Announced already, by a member with the same workload: its replicas are the true ones.
            let ref_ = status.ref_.clone();
            status.quiesce = shared.map(|replicas| QuiesceStatus { ref_, replicas, state: QuiesceState::Announced });
            pass.plan.again = true;
            false
        }
        None if target.replicas == 0 && target.pods.is_empty() => {
            // Out of the way already; recorded all the same, so that it is noticed when it comes back too early.
            let ref_ = status.ref_.clone();
            status.quiesce = Some(QuiesceStatus { ref_, replicas: 0, state: QuiesceState::Quiesced });
            true
        }
        None => {
            if target.deletes_claims {
                fail_member(
                    status,
                    &format!(
                        "{name} deletes its claims when it is scaled down (persistentVolumeClaimRetentionPolicy.whenScaled: Delete), so it cannot be quiesced without losing data. Set whenScaled: Retain."
                    ),
                );
                return false;
            }
            let ref_ = status.ref_.clone();
            status.quiesce = Some(QuiesceStatus { ref_, replicas: target.replicas, state: QuiesceState::Announced });
            conditions::set(
                &mut status.conditions,
                condition::QUIESCED,
                false,
                reason::SCALING_DOWN,
                format!("{name} will be scaled from {} to 0 for the restore, and back after it.", target.replicas),
                at,
            );
            pass.plan.again = true;
            false
        }
        Some(QuiesceState::Announced) => {
            let announced = pass.was.members.get(index).is_some_and(|m| m.quiesce.is_some());
            if !announced {
                pass.plan.again = true;
            } else if target.replicas != 0 {
                pass.plan.scales.push(Scale { kind: target.kind.clone(), name: target.name.clone(), replicas: 0 });
                pass.plan.look_again(LOOK_AT_RUNNING);
            } else if target.pods.is_empty() {
                if let Some(q) = &mut status.quiesce {
                    q.state = QuiesceState::Quiesced;
                }
                conditions::set(
                    &mut status.conditions,
                    condition::QUIESCED,
                    true,
                    reason::SCALED_TO_ZERO,
                    format!("{name} has no pod left."),
                    at,
                );
                return true;
            } else {
                let pods: Vec<&str> = target.pods.iter().map(|p| p.name.as_str()).collect();
                status.message = Some(format!("Waiting for pods of {name} to end: {}.", pods.join(", ")));
                pass.plan.look_again(LOOK_AT_RUNNING);
            }
            false
        }
        Some(_) => true,
    }
}

/// Notices that somebody else scales the workload up while it is restored: its pods then read what is half
/// written, or write over it. The restore goes on, for stopping it half way would leave less, but it is no success.
fn watch_over(pass: &mut Pass<'_>, index: usize) {
    let replicas = target_of(pass.seen, index).map_or(0, |t| t.replicas);
    let at = pass.at;
    let status = &mut pass.now.members[index];
    let Some(quiesce) = status.quiesce.as_mut().filter(|q| q.state == QuiesceState::Quiesced && replicas > 0) else {
        return;
    };
    quiesce.state = QuiesceState::Broken;
    let name = display(&quiesce.ref_);
    let text = format!("{name} was scaled up to {replicas} by somebody else during the restore.");
    conditions::set(&mut status.conditions, condition::QUIESCED, false, reason::QUIESCE_BROKEN, &text, at);
    pass.event(true, reason::QUIESCE_BROKEN, &text);
}

/// Replicas that another member of the run has recorded of the same workload.
fn shared_record(pass: &Pass<'_>, index: usize) -> Option<i32> {
    let scaled = |q: &&QuiesceStatus| matches!(q.state, QuiesceState::Announced | QuiesceState::Quiesced);
    others(pass, index).find_map(|m| m.quiesce.as_ref().filter(scaled).map(|q| q.replicas))
}

/// Other members of the run with the same target.
fn others<'p>(pass: &'p Pass<'_>, index: usize) -> impl Iterator<Item = &'p RestoreMemberStatus> {
    let own = &pass.now.members[index].ref_;
    pass.now.members.iter().enumerate().filter(move |(i, m)| *i != index && m.ref_ == *own).map(|(_, m)| m)
}

/// True when the workload has its replicas back, or there is nothing to give back.
pub fn resume(pass: &mut Pass<'_>, index: usize) -> bool {
    let at = pass.at;
    // A workload that several members restore comes back after the last of them.
    let busy = |m: &RestoreMemberStatus| !member_is_over(m.phase) && m.stats.iter().any(|h| !is_over(h.phase));
    let in_use = others(pass, index).any(|m| m.quiesce.is_some() && busy(m));
    let workload = pass.now.members[index].quiesce.as_ref().map(|q| &q.ref_);
    let mut sharing = pass.was.members.iter().filter(|m| m.quiesce.as_ref().map(|q| &q.ref_) == workload);
    let written = sharing.all(|m| m.stats.iter().all(|h| is_over(h.phase)));
    let on_the_way_out = pass.run.id.deleting || pass.run.canceled || pass.run.is_changed();
    if in_use && !on_the_way_out && pass.now.members[index].quiesce.is_some() {
        pass.plan.look_again(LOOK_AT_RUNNING);
        return false;
    }
    let status = &mut pass.now.members[index];
    let Some(quiesce) = &mut status.quiesce else { return true };
    let name = display(&quiesce.ref_);
    if matches!(quiesce.state, QuiesceState::Resumed | QuiesceState::Gone | QuiesceState::Broken) {
        return true;
    }
    match pass.seen.targets.get(index) {
        Some(TargetSeen::Found(target)) if target.replicas == quiesce.replicas => {
            quiesce.state = QuiesceState::Resumed;
            let text = format!("{name} has its {} replicas back.", quiesce.replicas);
            conditions::set(&mut status.conditions, condition::QUIESCED, false, reason::SCALED_BACK, text, at);
            true
        }
        // Only once status says that its hosts are over: after a crash in between, a workload that is up would
        // look as if somebody else had scaled it.
        Some(TargetSeen::Found(_)) if !(written || on_the_way_out) => {
            pass.plan.again = true;
            false
        }
        Some(TargetSeen::Found(target)) => {
            pass.plan.scales.push(Scale {
                kind: target.kind.clone(),
                name: target.name.clone(),
                replicas: quiesce.replicas,
            });
            pass.plan.again = true;
            false
        }
        Some(TargetSeen::Missing(_)) => {
            quiesce.state = QuiesceState::Gone;
            conditions::set(
                &mut status.conditions,
                condition::QUIESCED,
                false,
                reason::TARGET_GONE,
                format!("{name} is gone; there is nothing to scale back."),
                at,
            );
            true
        }
        _ => {
            pass.plan.look_again(LOOK_FOR_MISSING);
            false
        }
    }
}
