//! The queue for the places on one Repository, kept as sessions and Jobs come and go.
//!
//! Places are shared out by namespace: the next one goes to the namespace that holds the fewest, and within a namespace
//! to the session that was created first. As long as one namespace alone waits, it may have them all, but for one: a
//! place stays free for the Repository's own namespace. Nobody loses a place that it has.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

/// Beyond this many it does not matter how many are ahead.
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
    /// It is being deleted, and needs the Repository no more.
    pub leaves: bool,
}

impl Claim {
    fn order(&self) -> Order {
        (self.created, self.uid.clone())
    }
}

/// Of one namespace, who was created first goes first.
type Order = (Timestamp, String);

/// Jobs of a session that are not over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Work {
    /// Those that hold a place each.
    pub places: usize,
    /// Those that hold none, because they cannot start.
    pub stuck: usize,
    /// Those that work on something else, so that no place is kept for it here.
    pub elsewhere: usize,
}

/// Room for Jobs on a Repository, as one session has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    /// Jobs that it may make.
    pub free: usize,
    /// Jobs that work, and sessions whose turn comes first.
    pub ahead: usize,
}

impl Room {
    /// None, because another session creates the repository: nobody is ahead in the queue.
    pub const WHILE_CREATED: Self = Self { free: 0, ahead: 0 };
}

/// The queue of one Repository.
#[derive(Debug, Default)]
pub struct Queue {
    /// Namespace of the Repository.
    home: String,
    sessions: BTreeMap<String, (Claim, Work)>,
    /// Those that want a Job and have none, by namespace. Their place is kept.
    lines: BTreeMap<String, BTreeSet<Order>>,
    /// Places that each namespace holds.
    held: BTreeMap<String, usize>,
    used: usize,
    stuck: usize,
}

impl Queue {
    /// Of a Repository of this namespace. What several namespaces connect to and none owns has an empty one.
    pub fn of(home: &str) -> Self {
        Self { home: home.to_owned(), ..Self::default() }
    }

    /// A session comes, or has changed; `work` is what it has made.
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

    /// The Jobs of a session have changed.
    pub fn works(&mut self, uid: &str, work: Work) {
        if let Some((claim, _)) = self.sessions.get(uid).filter(|(_, before)| *before != work) {
            self.enter(claim.clone(), work);
        }
    }

    /// A session is over, or gone.
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

    /// Where the `nth` next place of a namespace stands: by how many it holds then. The lowest goes first, and before
    /// all others the first of the Repository's own namespace, where there is more than one place.
    fn level(&self, namespace: &str, nth: usize, most: usize) -> usize {
        match self.held(namespace) + nth {
            0 if most > 1 && namespace == self.home => 0,
            holds => holds + 1,
        }
    }

    /// Whether the Repository's own namespace holds no place and waits for none: one is kept for it.
    fn keeps_one(&self, most: usize) -> bool {
        most > 1 && !self.home.is_empty() && self.held(&self.home) == 0 && !self.lines.contains_key(&self.home)
    }

    /// Those of other namespaces whose place is kept before that of `me` at this level.
    fn before(&self, me: &Order, namespace: &str, level: usize, most: usize) -> usize {
        let others = self.lines.iter().filter(|(other, _)| *other != namespace);
        let ahead = others.map(|(other, line)| {
            let (first, held) = (self.level(other, 0, most), self.held(other));
            let lower = level.saturating_sub(held + 1).max(usize::from(first < level));
            // Of two at one level, the older goes first.
            let is_level = |nth: usize| self.level(other, nth, most) == level;
            let tie = is_level(lower) && line.iter().nth(lower).is_some_and(|order| order < me);
            line.len().min(lower) + usize::from(tie)
        });
        usize::from(namespace != self.home && self.keeps_one(most)) + ahead.sum::<usize>()
    }

    /// Room for a session: of `most` places, what those that are held and those that are kept for others leave.
    pub fn room(&self, namespace: &str, created: Timestamp, uid: &str, most: usize) -> Room {
        let me = (created, uid.to_owned());
        let line = self.lines.get(namespace);
        // A long line is not counted to its end.
        let own = line.map_or(0, |l| l.range(..me.clone()).take(most.saturating_add(LONG)).count());
        let ahead = |nth: usize| {
            let level = self.level(namespace, own + nth, most);
            self.used + own + nth + self.before(&me, namespace, level, most)
        };
        // The later a place is, the more are ahead of it: those that it may have are found by halving.
        let (mut free, mut end) = (0, most.saturating_sub(self.used + own));
        while free < end {
            let middle = free.midpoint(end);
            if ahead(middle) < most { free = middle + 1 } else { end = middle }
        }
        // Whoever runs Jobs in the name of a session of his may hold more places than there are, but not this one.
        let kept = most > 1 && namespace == self.home && self.held(namespace) == 0 && own == 0;
        let free = free.max(usize::from(kept));
        Room { free, ahead: ahead(0) }
    }

    /// Those that get the places that are free, in their order.
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

    /// Sessions that are not over, and may need the Repository.
    pub fn len(&self) -> usize {
        self.sessions.values().filter(|(claim, _)| !claim.leaves).count()
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Places that are held.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Jobs that work, or may begin to.
    pub fn jobs(&self) -> usize {
        self.used + self.stuck
    }

    /// Sessions that want a Job and have none.
    pub fn waiting(&self) -> usize {
        self.lines.values().map(BTreeSet::len).sum()
    }

    /// Whether there are more who want a place than there are places.
    pub fn is_short(&self, most: usize) -> bool {
        let wanted = self.waiting() + usize::from(self.keeps_one(most));
        !self.lines.is_empty() && self.used + wanted > most
    }

    /// Who holds how many places, the most first.
    pub fn holders(&self) -> Vec<(&str, usize)> {
        let mut all: Vec<_> = self.held.iter().map(|(namespace, count)| (namespace.as_str(), *count)).collect();
        all.sort_by_key(|(namespace, count)| (std::cmp::Reverse(*count), *namespace));
        all
    }
}

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
