//! May a session make Jobs on its Repository now?
//!
//! Two reasons say no. The store does not answer: then nobody asks but the Repository
//! itself, once in a while. Too many Jobs work on it already: then who was created first
//! goes first. What already runs is never touched, and a deadline keeps running.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::observed::{RepositorySeen, Seen};
use super::Plan;
use crate::names::reason;

/// The first in the queue look for room this often. No watch tells one session of another's Jobs.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(3);
/// The last in a long queue look this often.
const LOOK_FROM_AFAR: Duration = Duration::from_secs(30);
/// Beyond this many it does not matter how many are ahead.
const LONG: usize = 100;
/// A change of the Repository wakes who waits for it; this is for one that was missed.
const LOOK_FOR_STORE: Duration = Duration::from_mins(1);

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
}

impl Claim {
    fn order(&self) -> Order {
        (self.created, self.uid.clone())
    }
}

/// Who was created first goes first.
type Order = (Timestamp, String);

/// Room for Jobs on a Repository, as one session has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    /// Jobs that it may make.
    pub free: usize,
    /// Jobs that work, and sessions whose turn comes first.
    pub ahead: usize,
}

/// The queue for Jobs on one Repository, kept as sessions and Jobs come and go.
#[derive(Debug, Default)]
pub struct Queue {
    claims: BTreeMap<String, Claim>,
    /// Of those that want a Job and have none: their place is kept.
    line: BTreeSet<Order>,
    /// Jobs that work, of each session.
    at_work: BTreeMap<String, usize>,
    total: usize,
}

impl Queue {
    /// A session comes, or has changed.
    pub fn enter(&mut self, claim: Claim) {
        let uid = claim.uid.clone();
        if let Some(before) = self.claims.insert(uid.clone(), claim) {
            self.line.remove(&before.order());
        }
        self.line_up(&uid);
    }

    /// A session is over, or gone.
    pub fn leave(&mut self, uid: &str) {
        if let Some(claim) = self.claims.remove(uid) {
            self.line.remove(&claim.order());
        }
    }

    /// A Job of a session begins to work.
    pub fn begin(&mut self, uid: &str) {
        *self.at_work.entry(uid.to_owned()).or_default() += 1;
        self.total += 1;
        self.line_up(uid);
    }

    /// A Job of a session works no more.
    pub fn end(&mut self, uid: &str) {
        let Some(count) = self.at_work.get_mut(uid) else { return };
        *count -= 1;
        if *count == 0 {
            self.at_work.remove(uid);
        }
        self.total -= 1;
        self.line_up(uid);
    }

    fn line_up(&mut self, uid: &str) {
        let Some(claim) = self.claims.get(uid) else { return };
        if claim.wants && !self.at_work.contains_key(uid) {
            self.line.insert(claim.order());
        } else {
            self.line.remove(&claim.order());
        }
    }

    /// Room for the session `uid`: of `most` Jobs, what those that work and the sessions before it leave.
    pub fn room(&self, created: Timestamp, uid: &str, most: usize) -> Room {
        // A long queue is not counted to its end.
        let kept = self.line.range(..(created, uid.to_owned())).take(most.saturating_add(LONG)).count();
        let ahead = self.total + kept;
        Room { free: most.saturating_sub(ahead), ahead }
    }

    /// The first of those that want a Job and have none.
    pub fn first(&self, most: usize) -> impl Iterator<Item = &Claim> {
        self.line.iter().take(most).filter_map(|(_, uid)| self.claims.get(uid))
    }

    /// Sessions that are not over.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether nobody is here: no session and no Job.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.total == 0
    }

    /// Jobs that work.
    pub fn at_work(&self) -> usize {
        self.total
    }
}

/// The gate of one session for one pass.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Reason and text for who is turned away.
    shut: (&'static str, String),
    free: usize,
    wait: Duration,
    turned_away: bool,
}

impl Gate {
    /// The gate to a Repository that messages name as `display`.
    pub fn of(repository: &Seen<RepositorySeen>, display: &str, room: Room) -> Self {
        let silent = match repository {
            Seen::Found(found) => found.unreachable.as_ref(),
            _ => None,
        };
        if let Some(silent) = silent {
            let text = format!(
                "Repository {display} has not answered since {}. It is asked again by one small Job a minute, and nothing else is started meanwhile. {}",
                silent.since, silent.message
            );
            return Self {
                shut: (reason::REPOSITORY_UNREACHABLE, text),
                free: 0,
                wait: LOOK_FOR_STORE,
                turned_away: false,
            };
        }
        // In steps: a status that counts down is written over and over.
        let ahead = match room.ahead {
            0..20 => room.ahead.to_string(),
            20..LONG => "more than 20".to_owned(),
            _ => format!("more than {LONG}"),
        };
        let text = format!("Repository {display} has as many Jobs at work as it may; {ahead} come first.");
        let turns = u32::try_from(room.ahead / 16).unwrap_or(u32::MAX).saturating_add(1);
        let wait = LOOK_FOR_ROOM.saturating_mul(turns).min(LOOK_FROM_AFAR);
        // The text is there in any case: the last place may be taken within the pass.
        Self { shut: (reason::REPOSITORY_BUSY, text), free: room.free, wait, turned_away: false }
    }

    /// Whether anything may be begun.
    pub fn is_open(&mut self, plan: &mut Plan) -> bool {
        let open = self.free > 0;
        if !open {
            self.turned_away = true;
            plan.look_again(self.wait);
        }
        open
    }

    /// Takes the place of one Job; false when there is none.
    pub fn admit(&mut self, plan: &mut Plan) -> bool {
        let open = self.is_open(plan);
        self.free = self.free.saturating_sub(1);
        open
    }

    /// Reason and text when the store does not answer, whether anybody was turned away or not.
    pub fn silence(&self) -> Option<(&'static str, &str)> {
        (self.shut.0 == reason::REPOSITORY_UNREACHABLE).then_some((self.shut.0, self.shut.1.as_str()))
    }

    /// Reason and text for a session that was turned away in this pass.
    pub fn refusal(&self) -> Option<(&'static str, &str)> {
        self.turned_away.then_some((self.shut.0, self.shut.1.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn claim(n: usize) -> Claim {
        Claim {
            kind: "RestoreSession".into(),
            namespace: "n".into(),
            name: format!("s{n}"),
            created: at(i64::try_from(n / 3).unwrap()),
            uid: format!("u{n:03}"),
            wants: true,
        }
    }

    proptest! {
        /// Whatever order they look in, no more Jobs than may be, and all come to their turn.
        /// Proves: C13.
        #[test]
        fn any_number_of_sessions_never_has_more_jobs_than_may_be(
            sessions in 1usize..60, most in 1usize..20, order in prop::collection::vec(any::<prop::sample::Index>(), 1..400),
        ) {
            let mut open: Vec<Claim> = (0..sessions).map(claim).collect();
            let mut queue = Queue::default();
            open.iter().for_each(|c| queue.enter(c.clone()));
            for pick in order {
                if open.is_empty() {
                    break;
                }
                let me = open[pick.index(open.len())].clone();
                let room = queue.room(me.created, &me.uid, most);
                if queue.at_work.contains_key(&me.uid) {
                    queue.end(&me.uid);
                    queue.leave(&me.uid);
                    open.retain(|c| c.uid != me.uid);
                } else if room.free > 0 {
                    queue.begin(&me.uid);
                }
                // What is kept says what a search of all would.
                let before = |c: &&Claim| c.order() < me.order() && !queue.at_work.contains_key(&c.uid);
                let ahead = open.iter().filter(before).count() + queue.at_work.len();
                prop_assert_eq!(queue.room(me.created, &me.uid, most).ahead, ahead);
                prop_assert!(queue.at_work() <= most);
            }
            // The first of those that wait always has room, once those that work have ended.
            let working: Vec<String> = queue.at_work.keys().cloned().collect();
            working.iter().for_each(|uid| { queue.end(uid); queue.leave(uid); });
            if let Some(first) = queue.first(1).next() {
                prop_assert!(queue.room(first.created, &first.uid, most).free > 0);
            }
        }
    }

    #[test]
    fn who_waits_for_something_else_keeps_no_place() {
        let mut queue = Queue::default();
        (0..3).map(claim).for_each(|c| queue.enter(c));
        let last = claim(2);
        assert_eq!(queue.room(last.created, "u002", 2), Room { free: 0, ahead: 2 });
        queue.enter(Claim { wants: false, ..claim(0) });
        assert_eq!(queue.room(last.created, "u002", 2), Room { free: 1, ahead: 1 });
        queue.begin("gone");
        assert_eq!(queue.room(last.created, "u002", 2).free, 0, "a Job without a session counts");
        queue.end("gone");
        (0..3).for_each(|n| queue.leave(&claim(n).uid));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_gate_says_why_only_to_whom_it_turned_away() {
        let mut plan = Plan::nothing();
        let mut gate = Gate::of(&Seen::Missing, "n/r", Room { free: 1, ahead: 15 });
        assert!(gate.admit(&mut plan) && gate.refusal().is_none());
        assert!(!gate.admit(&mut plan) && plan.requeue == Some(LOOK_FOR_ROOM));
        let mut gate = Gate::of(&Seen::Missing, "n/r", Room { free: 0, ahead: 400 });
        assert!(gate.refusal().is_none() && !gate.is_open(&mut plan));
        assert_eq!(gate.refusal().unwrap().0, reason::REPOSITORY_BUSY);
    }
}
