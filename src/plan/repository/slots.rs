//! Who holds the places for Jobs on a Repository, for its status: said while sessions wait for one, so that whoever
//! waits sees for whom. It changes with each Job, so it is written together with something else, or now and then.

use k8s_openapi::jiff::SignedDuration;

use super::Pass;
use crate::api::repository::{SlotHolder, SlotsStatus};
use crate::plan::FinalizerChange;
use crate::plan::gate::Queue;
use crate::plan::{conditions, retry};

/// By itself it is written this often: a Repository with a thousand sessions is written a few times a minute.
const EVERY: SignedDuration = SignedDuration::from_secs(30);
/// Namespaces that are named; more than there are places by default.
const NAMED: usize = 20;

/// The places on a Repository that has fewer than are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slots {
    /// Places that there are.
    pub most: usize,
    /// Places that are held.
    pub used: usize,
    /// Sessions that want one, and have none.
    pub waiting: usize,
    /// Namespaces that hold places, the most first.
    pub holders: Vec<(String, usize)>,
}

/// Read from its queue; `None` where nobody waits for a place.
pub fn of(queue: &Queue, most: usize) -> Option<Slots> {
    queue.is_short(most).then(|| Slots {
        most,
        used: queue.used(),
        waiting: queue.waiting(),
        holders: queue.holders().into_iter().take(NAMED).map(|(who, count)| (who.to_owned(), count)).collect(),
    })
}

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
