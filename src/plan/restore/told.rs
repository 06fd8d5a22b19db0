//! What `kubectl describe` shows beside a workload that a restore scales: who did it, and that it is back.
//!
//! Each event goes with a change of status, so that none is published twice in a loop; a crash may lose one.

use super::{FinalizerChange, Pass, held, rivals};
use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::QuiesceState;
use crate::names::reason;
use crate::plan::target::Target;
use crate::plan::{About, Event, Plan};

/// An event about a member's workload.
pub fn tell(pass: &mut Pass<'_>, index: usize, target: &Target, warning: bool, why: &str, text: &str) {
    let ref_ = &pass.now.members[index].ref_;
    let about = About {
        api_version: ref_.api_version.clone().unwrap_or_default(),
        kind: target.kind.clone(),
        name: target.name.clone(),
        uid: target.uid.clone(),
    };
    pass.plan.events.push(Event { about: Some(about), ..Event::new(warning, why, text) });
}

/// That it is about to be scaled to zero.
pub fn goes_down(pass: &mut Pass<'_>, index: usize, target: &Target) {
    let text = format!(
        "Scaling from {} to 0 replicas for {}. It is scaled back after the restore.",
        target.replicas,
        pass.run.id.label()
    );
    tell(pass, index, target, false, reason::SCALING_DOWN, &text);
}

/// That it has its replicas back. Called once its record says so; several members that it comes back for at once tell of it
/// once.
pub fn is_back(pass: &mut Pass<'_>, index: usize, target: &Target) {
    let resumed = |m: &RestoreMemberStatus| m.quiesce.as_ref().is_some_and(|q| q.state == QuiesceState::Resumed);
    let own = rivals::key(&pass.now.members[index].ref_);
    let mut others = pass.now.members.iter().enumerate().filter(|(i, m)| *i != index && rivals::key(&m.ref_) == own);
    let told = others.any(|(i, m)| resumed(m) && !pass.was.members.get(i).is_some_and(resumed));
    if told || target.replicas == 0 {
        return;
    }
    let text = format!("Scaled back to {} after {}.", super::replicas(target.replicas), pass.run.id.label());
    let half = if held::is_on_half(pass, index) { held::RUNS_ON_HALF } else { "" };
    tell(pass, index, target, !half.is_empty(), reason::SCALED_BACK, &format!("{text}{half}"));
}

/// A session that is deleted writes no status, so what it says of a workload that is back goes with its last write.
pub fn once(plan: &mut Plan, deleting: bool) {
    if deleting && plan.finalizer != Some(FinalizerChange::Remove) {
        plan.events.retain(|e| e.about.is_none() || e.warning);
    }
}
