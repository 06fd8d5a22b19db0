//! Quiesces the workload of a member for the restore. `resume` scales it back.
//!
//! The workload is announced with its replicas, scaled to zero, and its pods are waited for. If that is refused or
//! undone, status names the cause; no data was touched by then.

use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;

use crate::api::Condition;
use crate::api::common::Quiesce;
use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::{HostPhase, QuiesceState, QuiesceStatus};
use crate::contract::Class;
use crate::names::{condition, reason};
use crate::plan::effects::Scale;
use crate::plan::restore::held_note::Note;
use crate::plan::restore::pass::{LOOK_AT_RUNNING, LOOK_FOR_MISSING, Pass, target_of};
use crate::plan::restore::status::{fail_member, is_over};
use crate::plan::restore::users::{named, others, users};
use crate::plan::restore::{extraneous, held, workload_events};
use crate::plan::run::conditions;
use crate::plan::run::hosts::{TargetKind, display};
use crate::plan::seen::target::Target;
use crate::text::sentence;

/// A scale is visible at the next reconcile. If the workload is up again this long after the API server accepted the
/// scale, a user or another controller has scaled it up.
const SCALED_WITHIN: SignedDuration = SignedDuration::from_secs(3);
/// A user or controller that scales a workload up repeatedly may stop within this time, from when it was noticed: a
/// HorizontalPodAutoscaler checks every 15 seconds, KEDA every 30. The workload starts and stops meanwhile.
const FIGHT_PATIENCE: SignedDuration = SignedDuration::from_mins(2);

/// True when the workload is quiesced. It is announced in one pass and scaled in the next.
pub fn quiesce(pass: &mut Pass<'_>, index: usize) -> bool {
    let status = &pass.now.members[index];
    let announced_only = status.quiesce.as_ref().is_none_or(|q| q.state == QuiesceState::Announced);
    if !announced_only || status.stats.iter().any(|h| h.attempt.is_some()) {
        watch_over(pass, index);
        // The workload was quiesced before. A workload that was deleted since then needs no quiescing.
        return true;
    }
    if pass.parts_outside(index).is_some() {
        return true;
    }
    let Some(target) = target_of(pass.seen, index) else { return false };
    // A workload that is at zero because its data is half restored has no pods that could keep running.
    let is_held = pass.now.members[index].quiesce.is_some() || Note::valid(target).is_some();
    let wanted = is_held || pass.run.members[index].target.as_ref().and_then(|t| t.quiesce) != Some(Quiesce::Never);
    let name = target.display.clone();
    let at = pass.at;
    // Checked before anything is scaled. The workload's own pods are waited for anyway.
    if let Some(text) = extraneous::in_use(pass, index) {
        pass.now.members[index].message = Some(text);
        pass.plan.look_again(LOOK_FOR_MISSING);
        return false;
    }
    if !target.is_scalable() || !wanted {
        if let Some(text) = stays(target, wanted, &users(pass, index)) {
            let list = &mut pass.now.members[index].conditions;
            conditions::set(list, condition::QUIESCED, false, reason::NOT_QUIESCED, text, at);
        }
        return true;
    }
    let shared = shared_record(pass, index);
    let others = users(pass, index);
    let is_first = pass.now.members[index].quiesce.is_none() && shared.is_none();
    let note = if is_first { held::found(pass, target) } else { None };
    let status = &mut pass.now.members[index];
    match status.quiesce.as_ref().map(|q| q.state) {
        None if shared.is_some() => {
            // Already announced by another member with the same workload, whose record has the correct replicas.
            let ref_ = status.ref_.clone();
            let state = QuiesceState::Announced;
            status.quiesce = shared.map(|replicas| QuiesceStatus { ref_, replicas, state, held: None });
            let text =
                format!("{name} is scaled to 0 for this member as well as for another one, and back after both.");
            conditions::set(&mut status.conditions, condition::QUIESCED, false, reason::SCALING_DOWN, text, at);
            pass.plan.again = true;
            false
        }
        None if target.replicas == 0 && target.pods.is_empty() && target.is_catching_up => {
            status.message = Some(waits_for_pods(target));
            pass.plan.look_again(LOOK_AT_RUNNING);
            false
        }
        None if target.replicas == 0 && target.pods.is_empty() => {
            // Already at zero. It is recorded anyway, so that the operator notices if it comes back too early.
            let ref_ = status.ref_.clone();
            let (held, replicas) = (note.as_ref().map(|_| true), note.as_ref().map_or(0, |n| n.replicas));
            status.quiesce = Some(QuiesceStatus { ref_, replicas, state: QuiesceState::Quiesced, held });
            if let Some(note) = note {
                let text = format!(
                    "{name} is at 0 replicas because {} left its data half restored. A successful restore of that data {}.",
                    note.session,
                    if replicas == 0 { "ends this".to_owned() } else { format!("scales it back to {replicas}") }
                );
                conditions::set(&mut status.conditions, condition::QUIESCED, true, reason::SCALED_TO_ZERO, text, at);
            }
            if !others.is_empty() {
                say_quiet(pass, index, &name, &others);
            }
            true
        }
        None => {
            if let Some(owner) = &target.controller {
                fail_member(
                    status,
                    &format!(
                        "{name} belongs to {owner}, which would scale it up again during the restore. {}, or set target.quiesce: Never.",
                        instead_of(owner)
                    ),
                );
                return false;
            }
            if target.deletes_claims {
                fail_member(
                    status,
                    &format!(
                        "{name} deletes its PVCs when it is scaled down (persistentVolumeClaimRetentionPolicy.whenScaled: Delete), so it cannot be scaled to zero without data loss. Set whenScaled: Retain."
                    ),
                );
                return false;
            }
            let ref_ = status.ref_.clone();
            let (held, replicas) = (note.as_ref().map(|_| true), note.map_or(target.replicas, |n| n.replicas));
            status.quiesce = Some(QuiesceStatus { ref_, replicas, state: QuiesceState::Announced, held });
            conditions::set(
                &mut status.conditions,
                condition::QUIESCED,
                false,
                reason::SCALING_DOWN,
                format!(
                    "{name} will be scaled from {} to 0 for the restore, and back after it.{}",
                    target.replicas,
                    interference(target)
                ),
                at,
            );
            workload_events::goes_down(pass, index, target);
            pass.plan.again = true;
            false
        }
        Some(QuiesceState::Announced) => scale_down(pass, index, target),
        Some(_) => true,
    }
}

/// Scales the announced workload to zero and waits for its pods. True when the last pod is gone.
fn scale_down(pass: &mut Pass<'_>, index: usize, target: &Target) -> bool {
    let at = pass.at;
    if pass.was.members.get(index).is_none_or(|m| m.quiesce.is_none()) {
        pass.plan.again = true;
        return false;
    }
    if target.replicas != 0 {
        ask_for_zero(pass, index, target);
        return false;
    }
    let others = users(pass, index);
    let (status, name) = (&mut pass.now.members[index], &target.display);
    if !target.pods.is_empty() || target.is_catching_up {
        if is_refused(status) {
            let text = format!("{name} is scaled to 0 for the restore.");
            conditions::set(&mut status.conditions, condition::QUIESCED, false, reason::WAITING_FOR_PODS, text, at);
        }
        status.message = Some(waits_for_pods(target));
        pass.plan.look_again(LOOK_AT_RUNNING);
        return false;
    }
    if let Some(q) = &mut status.quiesce {
        q.state = QuiesceState::Quiesced;
    }
    say_quiet(pass, index, name, &others);
    true
}

/// Why a member whose workload is at zero has not begun: the controller of the workload has not observed it yet.
pub fn waits_for_controller(pass: &Pass<'_>, index: usize) -> Option<String> {
    let wanted = pass.run.members[index].target.as_ref().and_then(|t| t.quiesce) != Some(Quiesce::Never);
    let target = target_of(pass.seen, index).filter(|t| wanted && t.replicas == 0 && t.is_catching_up)?;
    Some(waits_for_pods(target))
}

fn waits_for_pods(target: &Target) -> String {
    if target.pods.is_empty() {
        let name = &target.display;
        return format!(
            "Waiting until the controller of {name} has observed the 0 replicas. Until then it may still start pods."
        );
    }
    let pods: Vec<&str> = target.pods.iter().map(|p| p.name.as_str()).collect();
    format!("Waiting for pods of {} to end: {}.", target.display, pods.join(", "))
}

/// Tries once to scale the workload to zero, and reports on earlier tries.
fn ask_for_zero(pass: &mut Pass<'_>, index: usize, target: &Target) {
    let at = pass.at;
    let name = &target.display;
    let scale = Scale { kind: target.kind.clone(), name: target.name.clone(), replicas: 0 };
    if let Some(refused) = pass.seen.refused_scales.get(&scale.key()) {
        let text = format!(
            "{name} could not be scaled from {} to 0 for the restore: {} Allow Lifeboat to scale it (RBAC, admission policies), or set target.quiesce: Never.",
            target.replicas,
            sentence(&refused.message)
        );
        if refused.class == Class::Invalid {
            return give_up(pass, index, &refused.reason, &text);
        }
        let status = &mut pass.now.members[index];
        let first = !is_refused(status);
        conditions::set(&mut status.conditions, condition::QUIESCED, false, &refused.reason, &text, at);
        status.message = Some(text.clone());
        if first {
            pass.event(true, &refused.reason, &text);
        }
        return pass.plan.look_again(LOOK_FOR_MISSING);
    }
    let status = &mut pass.now.members[index];
    let said = of_quiesce(status).cloned();
    let since = said.as_ref().map_or(SignedDuration::ZERO, |c| at.duration_since(c.last_transition_time.0));
    let mut set = |why: &str, text: &str| {
        // The condition is removed first, so that its time starts again.
        conditions::remove(&mut status.conditions, condition::QUIESCED);
        conditions::set(&mut status.conditions, condition::QUIESCED, false, why, text, at);
    };
    let text = again_and_again(name);
    match said.as_ref().and_then(|c| c.reason.as_deref()).unwrap_or_default() {
        reason::SCALED_UP_AGAIN if since > FIGHT_PATIENCE => {
            if let Some(quiesce) = &mut status.quiesce {
                quiesce.state = QuiesceState::Broken;
            }
            let minutes = FIGHT_PATIENCE.as_mins();
            let text = format!("{text} It failed after {minutes} minutes; no data was changed.");
            return give_up(pass, index, reason::QUIESCE_BROKEN, &text);
        }
        reason::SCALED_UP_AGAIN => status.message = Some(text),
        reason::WAITING_FOR_PODS if since >= SCALED_WITHIN => {
            set(reason::SCALED_UP_AGAIN, &text);
            status.message = Some(text.clone());
            pass.event(true, reason::SCALED_UP_AGAIN, &text);
        }
        reason::WAITING_FOR_PODS => {}
        // This is written only if the API server accepts the scale.
        why => {
            let announced = said.as_ref().filter(|_| why == reason::SCALING_DOWN).and_then(|c| c.message.clone());
            let text =
                announced.unwrap_or_else(|| format!("{name} is scaled to 0 for the restore, and back after it."));
            set(reason::WAITING_FOR_PODS, &text);
            if why == reason::REFUSED_BY_API {
                status.message = Some(text);
            }
        }
    }
    pass.plan.scales.push(scale);
    pass.plan.look_again(LOOK_AT_RUNNING);
}

fn again_and_again(name: &str) -> String {
    format!(
        "{name} must stay at 0 replicas during the restore, but is scaled up again: by an autoscaler (HorizontalPodAutoscaler, KEDA), an operator that owns it, or a GitOps tool. Pause it until the restore has ended, or set target.quiesce: Never."
    )
}

/// Ends a member whose workload cannot be scaled down. None of its data was touched; its workload is scaled back.
fn give_up(pass: &mut Pass<'_>, index: usize, why: &str, text: &str) {
    let at = pass.at;
    let status = &mut pass.now.members[index];
    conditions::set(&mut status.conditions, condition::QUIESCED, false, why, text, at);
    for host in status.stats.iter_mut().filter(|h| !is_over(h.phase)) {
        host.phase = Some(HostPhase::Failed);
        host.reason = Some(why.to_owned());
        host.error = Some(text.to_owned());
    }
    pass.event(true, why, text);
}

fn of_quiesce(status: &RestoreMemberStatus) -> Option<&Condition> {
    status.conditions.iter().find(|c| c.type_ == condition::QUIESCED)
}

fn is_refused(status: &RestoreMemberStatus) -> bool {
    of_quiesce(status).is_some_and(|c| c.reason.as_deref() == Some(reason::REFUSED_BY_API))
}

/// Why an announced workload is not quiesced yet: a reason, if it has its own, and a text.
pub fn held_up(pass: &Pass<'_>, index: usize) -> Option<(Option<String>, String)> {
    let status = &pass.now.members[index];
    status.quiesce.as_ref().filter(|q| q.state == QuiesceState::Announced)?;
    let target = target_of(pass.seen, index)?;
    if let Some(text) = extraneous::in_use(pass, index) {
        return Some((Some(reason::TARGET_BUSY.to_owned()), text));
    }
    if target.replicas == 0 {
        let waits = !target.pods.is_empty() || target.is_catching_up;
        return waits.then(|| (None, waits_for_pods(target)));
    }
    let is_on_its_way = |why: &str| [reason::SCALING_DOWN, reason::WAITING_FOR_PODS].contains(&why);
    let said = of_quiesce(status).filter(|c| !c.reason.as_deref().is_some_and(is_on_its_way))?;
    Some((said.reason.clone(), said.message.clone()?))
}

/// Says that a workload is quiesced, and which other pods still use its volumes.
fn say_quiet(pass: &mut Pass<'_>, index: usize, name: &str, others: &BTreeSet<String>) {
    let at = pass.at;
    let list = &mut pass.now.members[index].conditions;
    if others.is_empty() {
        let text = format!("{name} has no pods.");
        return conditions::set(list, condition::QUIESCED, true, reason::SCALED_TO_ZERO, text, at);
    }
    let text = format!(
        "{name} has no pods, but its volumes are used by pods that are not its own, and are not scaled: {}. {RISK}",
        named(others)
    );
    conditions::set(list, condition::QUIESCED, false, reason::NOT_QUIESCED, &text, at);
    pass.event(true, reason::NOT_QUIESCED, &text);
}

/// What pods that keep running may do.
const RISK: &str = "They may read partially written files, and overwrite restored files.";

/// What to do about a workload whose replicas are set by its owner.
pub fn instead_of(owner: &str) -> String {
    let kind = owner.split('/').next().unwrap_or_default();
    if TargetKind::of_name(kind).is_scalable() {
        format!("Name {owner} as the target")
    } else {
        format!("{owner} cannot be a target: scale it to zero before the restore, and back after it")
    }
}

/// What it means that the pods of a target keep running, if there are any.
fn stays(target: &Target, wanted: bool, others: &BTreeSet<String>) -> Option<String> {
    let name = &target.display;
    let why = match TargetKind::of_name(&target.kind) {
        _ if target.pods.is_empty() && others.is_empty() => return None,
        _ if target.pods.is_empty() => {
            return Some(format!(
                "Pods of other workloads use volumes of {name} and keep running: {}. {RISK}",
                named(others)
            ));
        }
        TargetKind::DaemonSet => format!("{name} runs on every node and cannot be scaled to zero"),
        kind if kind.is_scalable() && !wanted => format!("target.quiesce of {name} is Never"),
        _ => {
            let pods: Vec<&str> = target.pods.iter().map(|p| p.name.as_str()).collect();
            format!("{name} is not a workload that could be scaled to zero, and is used by {}", pods.join(", "))
        }
    };
    let beside =
        if others.is_empty() { String::new() } else { format!(" So do pods of other workloads: {}.", named(others)) };
    Some(format!("{why}: its pods keep running during the restore.{beside} {RISK}"))
}

/// An autoscaler does nothing at zero replicas, unless its own minimum is zero too.
fn interference(target: &Target) -> String {
    if target.autoscalers.is_empty() {
        return String::new();
    }
    let names = target.autoscalers.join(", ");
    format!(
        " HorizontalPodAutoscaler {names} has minReplicas 0, so it may scale the workload up during the restore: remove it until the restore has ended."
    )
}

/// Notices that a user or another controller scales the workload up while it is restored. Its pods then read
/// half-written files, or overwrite them. The restore goes on, because stopping it half way would leave less, but it
/// does not count as a success.
fn watch_over(pass: &mut Pass<'_>, index: usize) {
    let replicas = target_of(pass.seen, index).map_or(0, |t| t.replicas);
    let at = pass.at;
    let status = &mut pass.now.members[index];
    let Some(quiesce) = status.quiesce.as_mut().filter(|q| q.state == QuiesceState::Quiesced && replicas > 0) else {
        return;
    };
    quiesce.state = QuiesceState::Broken;
    let (name, before) = (display(&quiesce.ref_), quiesce.replicas);
    let text = format!(
        "{name} was scaled up to {replicas} by a user or another controller during the restore. It had {before} before."
    );
    conditions::set(&mut status.conditions, condition::QUIESCED, false, reason::QUIESCE_BROKEN, &text, at);
    pass.event(true, reason::QUIESCE_BROKEN, &text);
}

/// Replicas that another member of the run has recorded for the same workload.
fn shared_record(pass: &Pass<'_>, index: usize) -> Option<i32> {
    let scaled = |q: &&QuiesceStatus| matches!(q.state, QuiesceState::Announced | QuiesceState::Quiesced);
    others(pass, index).find_map(|m| m.quiesce.as_ref().filter(scaled).map(|q| q.replicas))
}
