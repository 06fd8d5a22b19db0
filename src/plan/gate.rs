//! May a session make Jobs on its Repository now?
//!
//! Two reasons say no. The store does not answer: then nobody asks but the Repository
//! itself, once in a while. Too many Jobs work on it already: then who was created first
//! goes first. What already runs is never touched, and a deadline keeps running.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::observed::{RepositorySeen, Seen};
use super::{Plan, Prepared};
use crate::names::reason;

/// The first in the queue look for room this often. No watch tells one session of another's Jobs.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(3);
/// The last in a long queue look this often.
const LOOK_FROM_AFAR: Duration = Duration::from_secs(30);
/// A change of the Repository wakes who waits for it; this is for one that was missed.
const LOOK_FOR_STORE: Duration = Duration::from_mins(1);

/// A session that is not over, and its place in the queue for its Repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// When it was created.
    pub created: Timestamp,
    /// Its uid.
    pub uid: String,
    /// It can go on: nothing of its own holds it up.
    pub wants: bool,
}

/// Room for Jobs on a Repository, as one session has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    /// Jobs that it may make.
    pub free: usize,
    /// Jobs that work, and sessions whose turn comes first.
    pub ahead: usize,
}

/// Room for the session `uid`: of `most` Jobs, what those that work and the sessions before it leave.
/// `at_work` counts the Jobs of each session, by uid.
pub fn room(created: Timestamp, uid: &str, claims: &[Claim], at_work: &BTreeMap<String, usize>, most: usize) -> Room {
    let before = |c: &&Claim| (c.created, c.uid.as_str()) < (created, uid);
    // A session without a Job is between two of them: its place is kept.
    let kept = claims.iter().filter(before).filter(|c| c.wants && !at_work.contains_key(&c.uid)).count();
    let ahead = at_work.values().sum::<usize>() + kept;
    Room { free: most.saturating_sub(ahead), ahead }
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
        let text = format!("Repository {display} has as many Jobs at work as it may; {} come first.", room.ahead);
        let turns = u32::try_from(room.ahead / 16).unwrap_or(u32::MAX).saturating_add(1);
        let wait = LOOK_FOR_ROOM.saturating_mul(turns).min(LOOK_FROM_AFAR);
        // The text is there in any case: the last place may be taken within the pass.
        Self { shut: (reason::REPOSITORY_BUSY, text), free: room.free, wait, turned_away: false }
    }

    /// Whether anything may be begun.
    pub fn is_open(&mut self, plan: &mut Plan<Prepared>) -> bool {
        let open = self.free > 0;
        if !open {
            self.turned_away = true;
            plan.look_again(self.wait);
        }
        open
    }

    /// Takes the place of one Job; false when there is none.
    pub fn admit(&mut self, plan: &mut Plan<Prepared>) -> bool {
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
        Claim { created: at(i64::try_from(n / 3).unwrap()), uid: format!("u{n:03}"), wants: true }
    }

    proptest! {
        /// Whatever order they look in, no more Jobs than may be, and all come to their turn.
        /// Proves: C13.
        #[test]
        fn any_number_of_sessions_never_has_more_jobs_than_may_be(
            sessions in 1usize..60, most in 1usize..20, order in prop::collection::vec(any::<prop::sample::Index>(), 1..400),
        ) {
            let mut claims: Vec<Claim> = (0..sessions).map(claim).collect();
            let mut at_work = BTreeMap::new();
            for pick in order {
                if claims.is_empty() {
                    break;
                }
                let me = claims[pick.index(claims.len())].clone();
                let room = room(me.created, &me.uid, &claims, &at_work, most);
                if at_work.remove(&me.uid).is_some() {
                    claims.retain(|c| c.uid != me.uid);
                } else if room.free > 0 {
                    at_work.insert(me.uid, 1);
                }
                prop_assert!(at_work.values().sum::<usize>() <= most);
            }
            // The first of those that wait always has room, once those that work have ended.
            if let Some(first) = claims.first() {
                prop_assert!(room(first.created, &first.uid, &claims, &BTreeMap::new(), most).free > 0);
            }
        }
    }

    #[test]
    fn who_waits_for_something_else_keeps_no_place() {
        let mut claims: Vec<Claim> = (0..3).map(claim).collect();
        let none = BTreeMap::new();
        assert_eq!(room(claims[2].created, "u002", &claims, &none, 2), Room { free: 0, ahead: 2 });
        claims[0].wants = false;
        assert_eq!(room(claims[2].created, "u002", &claims, &none, 2), Room { free: 1, ahead: 1 });
        let orphan = BTreeMap::from([("gone".to_owned(), 1)]);
        assert_eq!(room(claims[2].created, "u002", &claims, &orphan, 2).free, 0, "a Job without a session counts");
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
