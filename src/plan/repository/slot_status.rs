//! Who holds the places for Jobs on a Repository, for its status: said while sessions wait for one, so that whoever
//! waits sees for whom. It changes with each Job, so it is written together with something else, or now and then.

use k8s_openapi::jiff::SignedDuration;

use crate::api::repository::{SlotHolder, SlotsStatus};
use crate::plan::effects::FinalizerChange;
use crate::plan::repository::pass::Pass;
use crate::plan::run::conditions;
use crate::plan::work::retry;

/// By itself it is written this often: a Repository with a thousand sessions is written a few times a minute.
const EVERY: SignedDuration = SignedDuration::from_secs(30);

/// Says it when it is due. Everything else of the status must be decided.
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
