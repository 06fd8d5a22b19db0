//! The queue for the slots on one Repository, updated as sessions and Jobs come and go.
//!
//! Slots are shared by namespace: the next slot goes to the namespace that holds the fewest, and within a namespace to
//! the session that was created first. While only one namespace waits, it may take all slots but one: a slot stays free
//! for the Repository's own namespace. No session loses a slot that it has.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

/// Beyond this number, the exact number of sessions ahead does not matter.
pub const LONG: usize = 100;

/// A session that is not over, and its place in the queue for its Repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// Its uid.
    pub uid: String,
    /// It can go on: nothing of its own holds it up.
    pub wants: bool,
    /// It is being deleted, and no longer needs the Repository.
    pub leaves: bool,
}

impl Claim {
    fn order(&self) -> Order {
        (self.created, self.uid.clone())
    }
}

/// Within one namespace, the session that was created first goes first.
type Order = (Timestamp, String);

/// Jobs of a session that are not over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Work {
    /// Jobs that hold a slot each.
    pub places: usize,
    /// Jobs that hold no slot, because they cannot start.
    pub stuck: usize,
    /// Jobs that work on something else, so that no slot is kept for the session here.
    pub elsewhere: usize,
}

/// Room for Jobs of one session on a Repository.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    /// Number of Jobs that the session may create.
    pub free: usize,
    /// Number of running Jobs, and of sessions whose turn comes first.
    pub ahead: usize,
}

impl Room {
    /// No room, because another session creates the repository. No session is ahead in the queue.
    pub const WHILE_CREATED: Self = Self { free: 0, ahead: 0 };
}

/// The queue of one Repository.
#[derive(Debug, Default)]
pub struct Queue {
    /// Namespace of the Repository.
    home: String,
    sessions: BTreeMap<String, (Claim, Work)>,
    /// Sessions that want a Job and have none, by namespace. A slot is kept for each.
    lines: BTreeMap<String, BTreeSet<Order>>,
    /// Slots that each namespace holds.
    held: BTreeMap<String, usize>,
    used: usize,
    stuck: usize,
}

impl Queue {
    /// The queue of a Repository of this namespace. A resource that several namespaces use and none owns has an empty
    /// namespace.
    pub fn of(home: &str) -> Self {
        Self { home: home.to_owned(), ..Self::default() }
    }

    /// Adds or updates a session; `work` is the Jobs that it has created.
    pub fn enter(&mut self, claim: Claim, work: Work) {
        self.leave(&claim.uid);
        if claim.wants && work == Work::default() {
            self.lines.entry(claim.namespace.clone()).or_default().insert(claim.order());
        }
        if work.places > 0 {
            *self.held.entry(claim.namespace.clone()).or_default() += work.places;
        }
        self.used += work.places;
        self.stuck += work.stuck;
        self.sessions.insert(claim.uid.clone(), (claim, work));
    }

    /// Updates the Jobs of a session.
    pub fn works(&mut self, uid: &str, work: Work) {
        if let Some((claim, _)) = self.sessions.get(uid).filter(|(_, before)| *before != work) {
            self.enter(claim.clone(), work);
        }
    }

    /// Removes a session that is over or gone.
    pub fn leave(&mut self, uid: &str) {
        let Some((claim, work)) = self.sessions.remove(uid) else { return };
        if let Some(line) = self.lines.get_mut(&claim.namespace) {
            line.remove(&claim.order());
            if line.is_empty() {
                self.lines.remove(&claim.namespace);
            }
        }
        if let Some(held) = self.held.get_mut(&claim.namespace) {
            *held -= work.places;
            if *held == 0 {
                self.held.remove(&claim.namespace);
            }
        }
        self.used -= work.places;
        self.stuck -= work.stuck;
    }

    fn held(&self, namespace: &str) -> usize {
        self.held.get(namespace).copied().unwrap_or_default()
    }

    /// Level of the `nth` next slot of a namespace: the number of slots that the namespace holds then. The lowest level
    /// goes first. Where there is more than one slot, the first slot of the Repository's own namespace goes before all
    /// others.
    fn level(&self, namespace: &str, nth: usize, most: usize) -> usize {
        match self.held(namespace) + nth {
            0 if most > 1 && namespace == self.home => 0,
            holds => holds + 1,
        }
    }

    /// Whether a slot is kept for the Repository's own namespace, because it holds no slot and waits for none.
    fn keeps_one(&self, most: usize) -> bool {
        most > 1 && !self.home.is_empty() && self.held(&self.home) == 0 && !self.lines.contains_key(&self.home)
    }

    /// Number of sessions of other namespaces whose slot is kept before that of `me` at this level.
    fn before(&self, me: &Order, namespace: &str, level: usize, most: usize) -> usize {
        let others = self.lines.iter().filter(|(other, _)| *other != namespace);
        let ahead = others.map(|(other, line)| {
            let (first, held) = (self.level(other, 0, most), self.held(other));
            let lower = level.saturating_sub(held + 1).max(usize::from(first < level));
            // Of two sessions at the same level, the older goes first.
            let is_level = |nth: usize| self.level(other, nth, most) == level;
            let tie = is_level(lower) && line.iter().nth(lower).is_some_and(|order| order < me);
            line.len().min(lower) + usize::from(tie)
        });
        usize::from(namespace != self.home && self.keeps_one(most)) + ahead.sum::<usize>()
    }

    /// Room for a session: what is left of `most` slots without those that are held and those that are kept for others.
    pub fn room(&self, namespace: &str, created: Timestamp, uid: &str, most: usize) -> Room {
        let me = (created, uid.to_owned());
        let line = self.lines.get(namespace);
        // A long line is not counted to its end.
        let own = line.map_or(0, |l| l.range(..me.clone()).take(most.saturating_add(LONG)).count());
        let ahead = |nth: usize| {
            let level = self.level(namespace, own + nth, most);
            self.used + own + nth + self.before(&me, namespace, level, most)
        };
        // The later a slot is, the more are ahead of it, so the number of free slots is found by bisection.
        let (mut free, mut end) = (0, most.saturating_sub(self.used + own));
        while free < end {
            let middle = free.midpoint(end);
            if ahead(middle) < most { free = middle + 1 } else { end = middle }
        }
        // A user who runs Jobs in the name of their own session may hold more slots than exist, but not this one.
        let kept = most > 1 && namespace == self.home && self.held(namespace) == 0 && own == 0;
        let free = free.max(usize::from(kept));
        Room { free, ahead: ahead(0) }
    }

    /// Sessions that get the free slots, in order.
    pub fn first(&self, most: usize) -> Vec<&Claim> {
        let free = most.saturating_sub(self.used);
        let each = |(namespace, line): (&String, &BTreeSet<Order>)| -> Vec<(usize, Order)> {
            let levels = line.iter().take(free).enumerate();
            levels.map(|(nth, order)| (self.level(namespace, nth, most), order.clone())).collect()
        };
        let mut all: Vec<_> = self.lines.iter().flat_map(each).collect();
        all.sort();
        all.iter().take(free).filter_map(|(_, (_, uid))| Some(&self.sessions.get(uid)?.0)).collect()
    }

    /// Number of sessions that are not over and may need the Repository.
    pub fn len(&self) -> usize {
        self.sessions.values().filter(|(claim, _)| !claim.leaves).count()
    }

    /// Whether the queue has no sessions.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Number of slots that are held.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Number of Jobs that run, or may begin to run.
    pub fn jobs(&self) -> usize {
        self.used + self.stuck
    }

    /// Number of sessions that want a Job and have none.
    pub fn waiting(&self) -> usize {
        self.lines.values().map(BTreeSet::len).sum()
    }

    /// Whether more slots are wanted than exist.
    pub fn is_short(&self, most: usize) -> bool {
        let wanted = self.waiting() + usize::from(self.keeps_one(most));
        !self.lines.is_empty() && self.used + wanted > most
    }

    /// Number of slots that each namespace holds, the most first.
    pub fn holders(&self) -> Vec<(&str, usize)> {
        let mut all: Vec<_> = self.held.iter().map(|(namespace, count)| (namespace.as_str(), *count)).collect();
        all.sort_by_key(|(namespace, count)| (std::cmp::Reverse(*count), *namespace));
        all
    }
}

/// Number of namespaces that are named; more than there are slots by default.
const NAMED: usize = 20;

/// The slots on a Repository that has fewer than are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slots {
    /// Number of slots that exist.
    pub most: usize,
    /// Number of slots that are held.
    pub used: usize,
    /// Number of sessions that want a slot and have none.
    pub waiting: usize,
    /// Namespaces that hold slots, the most first.
    pub holders: Vec<(String, usize)>,
}

/// Reads the slots from the queue; `None` if no session waits for a slot.
pub fn slots(queue: &Queue, most: usize) -> Option<Slots> {
    queue.is_short(most).then(|| Slots {
        most,
        used: queue.used(),
        waiting: queue.waiting(),
        holders: queue.holders().into_iter().take(NAMED).map(|(who, count)| (who.to_owned(), count)).collect(),
    })
}

#[cfg(test)]
mod tests;
