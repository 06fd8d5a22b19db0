//! A member's workload, back at its replicas, unless its data is half restored (`held`).
//!
//! One that the API server does not let us scale back is tried again and again: it
//! must come back. Only a session that is being deleted lets go of it in the end, for
//! its finalizer would hold up a namespace, and says what is left to do.

use k8s_openapi::jiff::SignedDuration;

use super::held;
use super::quiesce::others;
use super::{LOOK_AT_RUNNING, LOOK_FOR_MISSING, Pass, display, is_over, member_is_over, rivals, told};
use crate::api::Condition;
use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::QuiesceState;
use crate::names::{annotation, condition, reason};
use crate::plan::target::{Target, TargetSeen};
use crate::plan::{Scale, conditions};
use crate::text::sentence;

/// For so long a session that is being deleted tries to scale back what it is refused. A webhook or its node may be
/// away for as long: pods of a dead node are moved after five minutes, and start.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// True when the workload has its replicas back, or stays down, or there is nothing to give back.
pub fn resume(pass: &mut Pass<'_>, index: usize) -> bool {
    // A workload that several members restore, or whose volumes they do, comes back after the last of them.
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
    let workload = rivals::key(&quiesce.ref_);
    let same = |m: &&RestoreMemberStatus| m.quiesce.as_ref().is_some_and(|q| rivals::key(&q.ref_) == workload);
    let written = pass.was.members.iter().filter(same).all(|m| m.stats.iter().all(|h| is_over(h.phase)));
    let at = pass.at;
    match pass.seen.targets.get(index) {
        Some(TargetSeen::Found(target)) if broken && is_somebodys(pass, index, target) => leave_to_others(pass, index),
        Some(TargetSeen::Missing(_)) if broken => leave_to_others(pass, index),
        Some(TargetSeen::Found(target)) if held::must_stay(pass, index) && target.replicas != 0 => {
            // Somebody has scaled it up, and has it now.
            let status = &mut pass.now.members[index];
            status.quiesce.iter_mut().for_each(|q| q.state = QuiesceState::Broken);
            let text = format!("{name} was scaled up to {} by somebody else during the restore.", target.replicas);
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
                    format!("{name} is scaled back to {}.{}", super::replicas(replicas), held::RUNS_ON_HALF)
                }
                _ => format!("{name} is scaled back to {}.", super::replicas(replicas)),
            };
            if refusal(status).is_some() {
                let list = &mut status.conditions;
                conditions::set(list, condition::SCALED_BACK, true, reason::SCALED_BACK, &text, at);
            }
            conditions::set(&mut status.conditions, condition::QUIESCED, false, reason::SCALED_BACK, &text, at);
            told::is_back(pass, index, target);
            held::is_back(pass, index, &text);
            true
        }
        // Only once status says that its hosts are over: after a crash in between, a workload that is up would
        // look as if somebody else had scaled it.
        Some(TargetSeen::Found(_)) if !(written || on_the_way_out) => {
            pass.plan.again = true;
            false
        }
        Some(TargetSeen::Found(target)) if held::must_stay(pass, index) => held::leave_down(pass, index, target),
        Some(TargetSeen::Found(target)) => give_back(pass, index, target, replicas),
        Some(TargetSeen::Missing(_)) => {
            let list = &mut pass.now.members[index];
            list.quiesce.iter_mut().for_each(|q| q.state = QuiesceState::Gone);
            let text = format!("{name} is gone; there is nothing to scale back.");
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

/// Leaves a workload to whoever has it now; what kept it from coming back is over.
fn leave_to_others(pass: &mut Pass<'_>, index: usize) -> bool {
    conditions::remove(&mut pass.now.members[index].conditions, condition::SCALED_BACK);
    true
}

/// A workload that cannot be read, because the right to do so or its API is gone, can be neither scaled nor marked. It is
/// treated as one that the API server refuses to scale.
fn unread(pass: &mut Pass<'_>, index: usize, why: &str) -> bool {
    let Some(quiesce) = &pass.now.members[index].quiesce else { return true };
    let (name, why, minutes) = (display(&quiesce.ref_), sentence(why), PATIENCE.as_mins());
    let (kind, of) = (quiesce.ref_.kind.clone().unwrap_or_default(), quiesce.ref_.name.clone().unwrap_or_default());
    let scale = Scale { kind, name: of, replicas: quiesce.replicas };
    let by_hand = format!("kubectl -n {} scale {} --replicas={}", pass.run.id.namespace, scale.key(), scale.replicas);
    let had = super::replicas(scale.replicas);
    let (what, by_hand) = if held::must_stay(pass, index) {
        let text = format!("Leave it at 0 replicas until it is restored again; it had {had}.");
        (format!("marked with {} as half restored", annotation::HELD_DOWN), text)
    } else {
        (format!("scaled back to {had}"), format!("Do it yourself: {by_hand}"))
    };
    let text = format!("{name} could not be read, so it is not {what}: {why} It is tried again. {by_hand}");
    let last = format!(
        "{name} is not {what}: for {minutes} minutes it could not be read, and the session is being deleted. {by_hand} Last: {why}"
    );
    refused_once(pass, index, reason::TARGET_UNKNOWN, &text, &last)
}

/// Whether a workload that somebody else scaled is left to him: it is up, or another member gives it back, or the run
/// has ended long ago. One that he left at zero comes back.
fn is_somebodys(pass: &Pass<'_>, index: usize, target: &Target) -> bool {
    let status = &pass.now.members[index];
    let scaled = |s: QuiesceState| matches!(s, QuiesceState::Announced | QuiesceState::Quiesced);
    let gives_back = |m: &RestoreMemberStatus| m.quiesce.as_ref().is_some_and(|q| scaled(q.state));
    let nothing = status.quiesce.as_ref().is_none_or(|q| q.replicas == 0) && !held::must_stay(pass, index);
    target.replicas != 0 || nothing || member_is_over(status.phase) || others(pass, index).any(gives_back)
}

/// One try to scale it back. True when a session that goes has tried for long enough.
fn give_back(pass: &mut Pass<'_>, index: usize, target: &Target, replicas: i32) -> bool {
    let name = &target.display;
    let scale = Scale { kind: target.kind.clone(), name: target.name.clone(), replicas };
    let status = &mut pass.now.members[index];
    let Some(refused) = pass.seen.refused_scales.get(&scale.key()) else {
        // Until it is back, status says why it is not.
        if let Some(text) = refusal(status).and_then(|c| c.message.clone()) {
            status.message = Some(text);
        }
        pass.plan.scales.push(scale);
        pass.plan.again = true;
        return false;
    };
    let by_hand = format!("kubectl -n {} scale {} --replicas={replicas}", pass.run.id.namespace, scale.key());
    let text = format!(
        "{name} could not be scaled back from {} to {}: {} It is tried again; or do it yourself: {by_hand}",
        target.replicas,
        super::replicas(replicas),
        sentence(&refused.message)
    );
    let minutes = PATIENCE.as_mins();
    let last = format!(
        "{name} is left at {} replicas, and had {replicas} before the restore: for {minutes} minutes it could not be scaled back, and the session is being deleted. Do it yourself: {by_hand}. Last: {}",
        target.replicas,
        sentence(&refused.message)
    );
    refused_once(pass, index, &refused.reason, &text, &last)
}

/// Says what the API server refused of a workload's way back, and looks again. True when a session that goes has tried
/// for long enough; `last` is what is said then.
pub fn refused_once(pass: &mut Pass<'_>, index: usize, why: &str, text: &str, last: &str) -> bool {
    let at = pass.at;
    let status = &mut pass.now.members[index];
    let since = refusal(status).map(|c| c.last_transition_time.0);
    conditions::set(&mut status.conditions, condition::SCALED_BACK, false, why, text, at);
    status.message = Some(text.to_owned());
    if since.is_none() {
        pass.event(true, why, text);
    }
    if pass.run.id.deleting && since.is_some_and(|since| at.duration_since(since) > PATIENCE) {
        pass.event(true, why, last);
        return true;
    }
    pass.plan.look_again(LOOK_FOR_MISSING);
    false
}

/// That a workload could not be scaled back yet.
fn refusal(status: &RestoreMemberStatus) -> Option<&Condition> {
    status.conditions.iter().find(|c| c.type_ == condition::SCALED_BACK && c.status == "False")
}

/// Why a workload of the run is not back, where the API server refuses it: reason and text.
pub fn why_refused(members: &[RestoreMemberStatus]) -> Option<(String, String)> {
    members.iter().find_map(|m| refusal(m)).and_then(|c| Some((c.reason.clone()?, c.message.clone()?)))
}

/// The text of that.
pub fn refused(members: &[RestoreMemberStatus]) -> Option<String> {
    why_refused(members).map(|(_, text)| text)
}
