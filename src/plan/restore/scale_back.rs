//! Scales a member's workload back to its replicas, unless its data is half restored (`held`).
//!
//! If the API server refuses the scale, it is retried without end: the workload must come back. Only a session that is
//! being deleted gives up in the end, because its finalizer would block a namespace. It then says what is left to do.

use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::QuiesceState;
use crate::names::{annotation, condition, reason};
use crate::plan::effects::Scale;
use crate::plan::restore::pass::{LOOK_AT_RUNNING, LOOK_FOR_MISSING, Pass};
use crate::plan::restore::refused::refusal;
use crate::plan::restore::refused::{PATIENCE, refused_once};
use crate::plan::restore::status::{is_over, member_is_over};
use crate::plan::restore::users::others;
use crate::plan::restore::workload_events::tell;
use crate::plan::restore::{held, scale_back};
use crate::plan::run::hosts::display;
use crate::plan::run::{conditions, hosts};
use crate::plan::seen::target::{Target, TargetSeen};
use crate::text::sentence;

/// True when the workload has its replicas back, or stays down, or there is nothing to scale back.
pub fn resume(pass: &mut Pass<'_>, index: usize) -> bool {
    // A workload is scaled back after the last of the members that restore it or its volumes.
    let busy = |m: &RestoreMemberStatus| !member_is_over(m.phase) && m.stats.iter().any(|h| !is_over(h.phase));
    let in_use = others(pass, index).any(|m| m.quiesce.is_some() && busy(m)) || held::is_written_beside(pass, index);
    let on_the_way_out = pass.run.is_leaving();
    let status = &pass.now.members[index];
    let Some(quiesce) = &status.quiesce else { return true };
    if in_use && !on_the_way_out {
        pass.plan.look_again(LOOK_AT_RUNNING);
        return false;
    }
    let (state, replicas, name) = (quiesce.state, quiesce.replicas, display(&quiesce.ref_));
    if matches!(state, QuiesceState::Resumed | QuiesceState::Gone | QuiesceState::Held) {
        return true;
    }
    let broken = state == QuiesceState::Broken;
    let workload = hosts::target_key(&quiesce.ref_);
    let same = |m: &&RestoreMemberStatus| m.quiesce.as_ref().is_some_and(|q| hosts::target_key(&q.ref_) == workload);
    let written = pass.was.members.iter().filter(same).all(|m| m.stats.iter().all(|h| is_over(h.phase)));
    let at = pass.at;
    match pass.seen.targets.get(index) {
        Some(TargetSeen::Found(target)) if broken && is_somebodys(pass, index, target) => leave_to_others(pass, index),
        Some(TargetSeen::Missing(_)) if broken => leave_to_others(pass, index),
        Some(TargetSeen::Found(target)) if held::must_stay(pass, index) && target.replicas != 0 => {
            // A user or another controller has scaled the workload up, and controls it now.
            let status = &mut pass.now.members[index];
            status.quiesce.iter_mut().for_each(|q| q.state = QuiesceState::Broken);
            let text = format!(
                "{name} was scaled up to {} by a user or another controller during the restore.",
                target.replicas
            );
            conditions::set(&mut status.conditions, condition::QUIESCED, false, reason::QUIESCE_BROKEN, text, at);
            leave_to_others(pass, index)
        }
        Some(TargetSeen::Found(target)) if target.replicas == replicas && !held::must_stay(pass, index) => {
            held::settle(pass, index);
            if !held::is_off(pass, target) {
                return false;
            }
            let on_half = held::is_on_half(pass, index);
            let status = &mut pass.now.members[index];
            status.quiesce.iter_mut().for_each(|q| q.state = QuiesceState::Resumed);
            let text = match replicas {
                0 => format!("{name} had 0 replicas before the restore, and has 0 now."),
                _ if on_half => {
                    format!("{name} is scaled back to {}.{}", crate::text::replicas(replicas), held::RUNS_ON_HALF)
                }
                _ => format!("{name} is scaled back to {}.", crate::text::replicas(replicas)),
            };
            if refusal(status).is_some() {
                let list = &mut status.conditions;
                conditions::set(list, condition::SCALED_BACK, true, reason::SCALED_BACK, &text, at);
            }
            conditions::set(&mut status.conditions, condition::QUIESCED, false, reason::SCALED_BACK, &text, at);
            scale_back::is_back(pass, index, target);
            held::is_back(pass, index, &text);
            true
        }
        // Only once status says that its hosts are over. Otherwise, after a crash in between, a workload that is up
        // would look as if a user or another controller had scaled it.
        Some(TargetSeen::Found(_)) if !(written || on_the_way_out) => {
            pass.plan.again = true;
            false
        }
        Some(TargetSeen::Found(target)) if held::must_stay(pass, index) => held::leave_down(pass, index, target),
        Some(TargetSeen::Found(target)) => give_back(pass, index, target, replicas),
        Some(TargetSeen::Missing(_)) => {
            let list = &mut pass.now.members[index];
            list.quiesce.iter_mut().for_each(|q| q.state = QuiesceState::Gone);
            let text = format!("{name} was deleted, so it is not scaled back.");
            conditions::remove(&mut list.conditions, condition::SCALED_BACK);
            conditions::set(&mut list.conditions, condition::QUIESCED, false, reason::TARGET_GONE, text, at);
            true
        }
        Some(TargetSeen::Unknown(why)) => unread(pass, index, why),
        None => {
            pass.plan.look_again(LOOK_FOR_MISSING);
            false
        }
    }
}

/// Leaves a workload to the user or controller that has scaled it. What kept it from being scaled back no longer
/// applies.
fn leave_to_others(pass: &mut Pass<'_>, index: usize) -> bool {
    conditions::remove(&mut pass.now.members[index].conditions, condition::SCALED_BACK);
    true
}

/// A workload that cannot be read, because the right to do so or its API is gone, can be neither scaled nor marked. It
/// is treated like a workload that the API server refuses to scale.
fn unread(pass: &mut Pass<'_>, index: usize, why: &str) -> bool {
    let Some(quiesce) = &pass.now.members[index].quiesce else { return true };
    let (name, why, minutes) = (display(&quiesce.ref_), sentence(why), PATIENCE.as_mins());
    let (kind, of) = (quiesce.ref_.kind.clone().unwrap_or_default(), quiesce.ref_.name.clone().unwrap_or_default());
    let scale = Scale { kind, name: of, replicas: quiesce.replicas };
    let by_hand = format!("kubectl -n {} scale {} --replicas={}", pass.run.id.namespace, scale.key(), scale.replicas);
    let had = crate::text::replicas(scale.replicas);
    let (what, by_hand) = if held::must_stay(pass, index) {
        let text = format!("Leave it at 0 replicas until it is restored again; it had {had}.");
        (format!("marked with {} as half restored", annotation::HELD_DOWN), text)
    } else {
        (format!("scaled back to {had}"), format!("To do it by hand: {by_hand}"))
    };
    let text = format!("{name} could not be read, so it is not {what}: {why} It is retried. {by_hand}");
    let last = format!(
        "{name} is not {what}: it could not be read for {minutes} minutes, and the session is being deleted. {by_hand} Last: {why}"
    );
    refused_once(pass, index, reason::TARGET_UNKNOWN, &text, &last)
}

/// Whether a workload that a user or another controller scaled is left as it is: it is up, or another member scales it
/// back, or the run has ended long ago. A workload that they left at zero is scaled back.
fn is_somebodys(pass: &Pass<'_>, index: usize, target: &Target) -> bool {
    let status = &pass.now.members[index];
    let scaled = |s: QuiesceState| matches!(s, QuiesceState::Announced | QuiesceState::Quiesced);
    let gives_back = |m: &RestoreMemberStatus| m.quiesce.as_ref().is_some_and(|q| scaled(q.state));
    let nothing = status.quiesce.as_ref().is_none_or(|q| q.replicas == 0) && !held::must_stay(pass, index);
    target.replicas != 0 || nothing || member_is_over(status.phase) || others(pass, index).any(gives_back)
}

/// Tries once to scale the workload back. True when a session that is being deleted has tried for long enough.
fn give_back(pass: &mut Pass<'_>, index: usize, target: &Target, replicas: i32) -> bool {
    let name = &target.display;
    let scale = Scale { kind: target.kind.clone(), name: target.name.clone(), replicas };
    let status = &mut pass.now.members[index];
    let Some(refused) = pass.seen.refused_scales.get(&scale.key()) else {
        // Until the workload is back, status says why it is not.
        if let Some(text) = refusal(status).and_then(|c| c.message.clone()) {
            status.message = Some(text);
        }
        pass.plan.scales.push(scale);
        pass.plan.again = true;
        return false;
    };
    let by_hand = format!("kubectl -n {} scale {} --replicas={replicas}", pass.run.id.namespace, scale.key());
    let text = format!(
        "{name} could not be scaled back from {} to {}: {} It is retried; to do it by hand: {by_hand}",
        target.replicas,
        crate::text::replicas(replicas),
        sentence(&refused.message)
    );
    let minutes = PATIENCE.as_mins();
    let last = format!(
        "{name} stays at {} replicas, and had {replicas} before the restore: it could not be scaled back for {minutes} minutes, and the session is being deleted. To do it by hand: {by_hand}. Last: {}",
        target.replicas,
        sentence(&refused.message)
    );
    refused_once(pass, index, &refused.reason, &text, &last)
}

/// Publishes that the workload has its replicas back. Called once its record says so. Several members whose workload
/// comes back at the same time publish this once.
pub fn is_back(pass: &mut Pass<'_>, index: usize, target: &Target) {
    let resumed = |m: &RestoreMemberStatus| m.quiesce.as_ref().is_some_and(|q| q.state == QuiesceState::Resumed);
    let own = hosts::target_key(&pass.now.members[index].ref_);
    let mut others =
        pass.now.members.iter().enumerate().filter(|(i, m)| *i != index && hosts::target_key(&m.ref_) == own);
    let told = others.any(|(i, m)| resumed(m) && !pass.was.members.get(i).is_some_and(resumed));
    if told || target.replicas == 0 {
        return;
    }
    let text = format!("Scaled back to {} after {}.", crate::text::replicas(target.replicas), pass.run.id.label());
    let half = if held::is_on_half(pass, index) { held::RUNS_ON_HALF } else { "" };
    tell(pass, index, target, !half.is_empty(), reason::SCALED_BACK, &format!("{text}{half}"));
}
