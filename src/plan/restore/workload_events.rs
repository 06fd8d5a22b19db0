//! Events that `kubectl describe` shows for a workload that a restore scales: which session scaled it, and that it is
//! back.
//!
//! Each event is published with a change of status, so that no event is published twice in a loop. A crash may lose an
//! event.

use crate::names::reason;
use crate::plan::effects::FinalizerChange;
use crate::plan::effects::{About, Event, Plan};
use crate::plan::restore::pass::Pass;
use crate::plan::seen::target::Target;

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

/// Publishes that the workload is about to be scaled to zero.
pub fn goes_down(pass: &mut Pass<'_>, index: usize, target: &Target) {
    let text = format!(
        "Scaling from {} to 0 replicas for {}. It is scaled back after the restore.",
        target.replicas,
        pass.run.id.label()
    );
    tell(pass, index, target, false, reason::SCALING_DOWN, &text);
}

/// A session that is being deleted writes no status, so its event about a workload that is back goes with its last
/// write.
pub fn once(plan: &mut Plan, deleting: bool) {
    if deleting && plan.finalizer != Some(FinalizerChange::Remove) {
        plan.events.retain(|e| e.about.is_none() || e.warning);
    }
}
