//! Turns for listings: the operator lists only some of the Repositories at once.
//!
//! A listing is a Job. A thousand Repositories that are written together, or whose Secrets are changed together, would
//! start a thousand Jobs. A Repository without a turn waits in line. The Repository whose namespace has the fewest
//! listings at work comes first, then the Repository that has waited longest. This state is not needed to continue:
//! after a start of the operator, listings that were already started take their turns again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::mpsc::UnboundedSender;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;

use crate::api::Repository;
use crate::controller::cache::consumers::Home;
use crate::controller::cache::stored::Stored;
use crate::plan::effects::Listing;

/// Maximum number of listings at once.
const MOST: usize = 16;

/// All listings.
#[derive(Clone)]
pub struct Listings {
    all: Arc<Mutex<All>>,
    trigger: UnboundedSender<Home>,
}

#[derive(Default)]
struct All {
    /// Repositories that are being listed.
    held: HashSet<Home>,
    /// Repositories that wait, with their number in line.
    line: HashMap<Home, u64>,
    last: u64,
}

impl All {
    fn of_namespace(&self) -> HashMap<Option<String>, usize> {
        let mut counts = HashMap::new();
        for home in &self.held {
            *counts.entry(home.namespace.clone()).or_default() += 1;
        }
        counts
    }

    /// Repositories that wait, in their order.
    fn next(&self) -> Vec<Home> {
        let counts = self.of_namespace();
        let order = |home: &Home| counts.get(&home.namespace).copied().unwrap_or_default();
        let mut all: Vec<(usize, u64, &Home)> = self.line.iter().map(|(home, n)| (order(home), *n, home)).collect();
        all.sort_unstable_by_key(|(held, number, _)| (*held, *number));
        all.into_iter().map(|(_, _, home)| home.clone()).collect()
    }

    fn may(&self, home: &Home) -> bool {
        if self.held.contains(home) {
            return true;
        }
        let free = MOST.saturating_sub(self.held.len());
        if free == 0 || self.line.is_empty() {
            return free > 0;
        }
        let counts = self.of_namespace();
        let order = |home: &Home, number: Option<&u64>| {
            (counts.get(&home.namespace).copied().unwrap_or_default(), number.copied().unwrap_or(u64::MAX))
        };
        let mine = order(home, self.line.get(home));
        self.line.iter().filter(|(other, number)| *other != home && order(other, Some(*number)) < mine).count() < free
    }
}

impl Listings {
    /// No listings yet; `trigger` wakes a Repository.
    pub fn new(trigger: UnboundedSender<Home>) -> Self {
        Self { all: Arc::default(), trigger }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is the turn of a Repository. The Repository then keeps its turn until [`Listings::settle`] ends it.
    pub fn ask(&self, home: &Home) -> bool {
        let mut all = self.lock();
        let may = all.may(home);
        if may {
            all.held.insert(home.clone());
        }
        may
    }

    /// Records what a reconcile has decided.
    pub fn settle(&self, home: &Home, listing: Listing) {
        let mut all = self.lock();
        if listing == Listing::Wants {
            all.last += 1;
            let number = all.last;
            all.line.entry(home.clone()).or_insert(number);
            return;
        }
        let mut changed = all.line.remove(home).is_some();
        if listing == Listing::Works {
            // A listing that was started before the operator continues.
            all.held.insert(home.clone());
        } else {
            changed |= all.held.remove(home);
        }
        if changed {
            self.wake(&all);
        }
    }

    fn wake(&self, all: &All) {
        let free = MOST.saturating_sub(all.held.len());
        if free == 0 || all.line.is_empty() {
            return;
        }
        for home in all.next().into_iter().take(free) {
            let _ = self.trigger.unbounded_send(home);
        }
    }

    /// Follows the watch of Repositories: a deleted Repository makes room.
    pub fn on_event(&self, event: &Event<Stored<Repository>>, is_there: impl Fn(&Home) -> bool) {
        match event {
            Event::Delete(repository) => self.settle(&ObjectRef::from_obj(repository), Listing::None),
            Event::InitDone => {
                let mut all = self.lock();
                all.held.retain(|home| is_there(home));
                all.line.retain(|home, _| is_there(home));
                self.wake(&all);
            }
            Event::Init | Event::InitApply(_) | Event::Apply(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc::{UnboundedReceiver, unbounded};

    use super::*;

    fn home(namespace: &str, n: usize) -> Home {
        ObjectRef::new(&format!("r{n}")).within(namespace)
    }

    fn listings() -> (Listings, UnboundedReceiver<Home>) {
        let (trigger, triggered) = unbounded();
        (Listings::new(trigger), triggered)
    }

    /// Reconciles a Repository that is to be listed; returns whether it is listed.
    fn look(all: &Listings, home: &Home) -> bool {
        let may = all.ask(home);
        all.settle(home, if may { Listing::Works } else { Listing::Wants });
        may
    }

    fn woken(triggered: &mut UnboundedReceiver<Home>) -> Vec<Home> {
        std::iter::from_fn(|| triggered.try_recv().ok()).collect()
    }

    #[test]
    fn of_a_thousand_some_are_listed_at_once_and_each_in_its_turn() {
        let (all, mut triggered) = listings();
        let thousand: Vec<Home> = (0..1000).map(|n| home("n", n)).collect();
        let begun: Vec<&Home> = thousand.iter().filter(|h| look(&all, h)).collect();
        assert_eq!(begun.len(), MOST);
        assert!(begun.iter().all(|h| look(&all, h)), "who has a turn keeps it");
        let mut order = begun.into_iter().cloned().collect::<Vec<Home>>();
        for n in 0..1000 {
            let done = order[n].clone();
            all.settle(&done, Listing::None);
            for next in woken(&mut triggered) {
                assert!(look(&all, &next), "woken for nothing: {next:?}");
                order.push(next);
            }
            assert!(all.lock().held.len() <= MOST);
        }
        assert_eq!(order, thousand);
        assert!(all.lock().line.is_empty() && all.lock().held.is_empty());
    }

    #[test]
    fn a_namespace_with_many_does_not_keep_others_waiting() {
        let (all, mut triggered) = listings();
        assert_eq!((0..500).filter(|n| look(&all, &home("many", *n))).count(), MOST);
        let other = home("one", 0);
        assert!(!look(&all, &other), "all turns are taken");
        all.settle(&home("many", 0), Listing::None);
        assert_eq!(woken(&mut triggered), std::slice::from_ref(&other));
        assert!(!look(&all, &home("many", 499)), "it is not the turn of those");
        assert!(look(&all, &other));
    }

    #[test]
    fn who_needs_no_turn_or_is_gone_makes_room_and_what_was_begun_goes_on() {
        let (all, mut triggered) = listings();
        assert_eq!((0..=MOST).filter(|n| look(&all, &home("n", *n))).count(), MOST);
        let last = home("n", MOST);
        // A reconcile that finds nothing to do.
        assert!(all.ask(&home("n", 0)));
        all.settle(&home("n", 0), Listing::None);
        assert_eq!(woken(&mut triggered), std::slice::from_ref(&last));
        assert!(look(&all, &last));
        // A listing that was started before the operator.
        all.settle(&home("n", 99), Listing::Works);
        assert!(all.ask(&home("n", 99)) && !all.ask(&home("n", 98)));
        all.on_event(&Event::InitDone, |home| home.name == "r1");
        assert_eq!(all.lock().held.len(), 1);
        assert!(look(&all, &home("n", 98)));
    }
}
