//! Which namespaces hold the slots for Jobs on a Repository, for its status. It is set while sessions wait for a slot,
//! so that users see what the sessions wait for. It changes with each Job, so it is written together with another
//! change, or at an interval.

use k8s_openapi::jiff::SignedDuration;

use crate::api::repository::{SlotHolder, SlotsStatus};
use crate::plan::effects::FinalizerChange;
use crate::plan::repository::pass::Pass;
use crate::plan::run::conditions;
use crate::plan::work::retry;

/// Interval of writes without another change: a Repository with a thousand sessions is written a few times a minute.
const EVERY: SignedDuration = SignedDuration::from_secs(30);

/// Sets the slots in status when they are due. Everything else in the status must be decided before.
pub(super) fn tell(pass: &mut Pass<'_>) {
    if pass.plan.finalizer == Some(FinalizerChange::Remove) {
        return;
    }
    let said = pass.run.state.slots.as_ref();
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let new = pass.seen.slots.as_ref().map(|slots| SlotsStatus {
        time: said.map_or_else(|| conditions::whole_second(pass.at), |s| s.time.clone()),
        used: number(slots.used),
        most: number(slots.most),
        waiting: number(slots.waiting),
        holders: slots
            .holders
            .iter()
            .map(|(namespace, count)| SlotHolder { namespace: namespace.clone(), count: number(*count) })
            .collect(),
    });
    if new.as_ref() == said {
        return;
    }
    let due = said.and_then(|s| s.time.0.checked_add(EVERY).ok());
    match due.and_then(|due| retry::left(due, pass.at)) {
        Some(wait) if pass.now == pass.run.state => pass.plan.look_again(wait),
        _ => pass.now.slots = new.map(|slots| SlotsStatus { time: conditions::whole_second(pass.at), ..slots }),
    }
}
