//! Whether a session may create Jobs on its Repository now.
//!
//! Two reasons prevent it. If the store does not answer, only the Repository itself probes it from time to time. If too
//! many Jobs work on the Repository already, sessions wait for their turn in its [`Queue`]. Running Jobs are never
//! touched, and a deadline keeps running.

pub mod queue;

use std::time::Duration;

use crate::names::reason;
use crate::plan::effects::Plan;
use crate::plan::repository::slots::queue::{LONG, Room};
use crate::plan::seen::Seen;
use crate::plan::seen::repository::RepositorySeen;

/// Requeue interval of the first sessions in the queue. No watch tells a session about Jobs of another session.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(3);
/// Requeue interval of the last sessions in a long queue.
const LOOK_FROM_AFAR: Duration = Duration::from_secs(30);
/// A change of the Repository wakes the sessions that wait for it; this interval is for a missed change.
const LOOK_FOR_STORE: Duration = Duration::from_mins(1);

/// The gate of one session for one pass.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Reason and text for a session that is turned away.
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
                "The storage of Repository {display} does not answer: {} It has not answered since {}. One small Job a minute checks it; until it answers, no other Job is started.",
                crate::text::sentence(&silent.message),
                silent.since
            );
            return Self {
                shut: (reason::REPOSITORY_UNREACHABLE, text),
                free: 0,
                wait: LOOK_FOR_STORE,
                turned_away: false,
            };
        }
        // In steps, because a status that counts down is written again and again.
        let ahead = match room.ahead {
            0..20 => room.ahead.to_string(),
            20..LONG => "more than 20".to_owned(),
            _ => format!("more than {LONG}"),
        };
        let text = if room == Room::WHILE_CREATED {
            format!("Another session is creating the repository of {display}; this session starts afterwards.")
        } else {
            format!(
                "Repository {display} has no free slot for a Job of this namespace; {ahead} come first. Slots are shared by namespace."
            )
        };
        let turns = u32::try_from(room.ahead / 16).unwrap_or(u32::MAX).saturating_add(1);
        let wait = LOOK_FOR_ROOM.saturating_mul(turns).min(LOOK_FROM_AFAR);
        // The text is always set: the last slot may be taken within the pass.
        Self { shut: (reason::REPOSITORY_BUSY, text), free: room.free, wait, turned_away: false }
    }

    /// The gate to another resource whose slots Jobs take.
    pub fn to(key: &str, room: Room) -> Self {
        let text = format!("{key} has no free slot for another Job of this namespace; {} are before it.", room.ahead);
        Self { shut: (reason::SYSTEM_BUSY, text), free: room.free, wait: LOOK_FOR_ROOM, turned_away: false }
    }

    /// Whether the session may begin anything.
    pub fn is_open(&mut self, plan: &mut Plan) -> bool {
        let open = self.free > 0;
        if !open {
            self.turned_away = true;
            plan.look_again(self.wait);
        }
        open
    }

    /// Takes the slot of one Job. Returns false when no slot is free.
    pub fn admit(&mut self, plan: &mut Plan) -> bool {
        let open = self.is_open(plan);
        self.free = self.free.saturating_sub(1);
        open
    }

    /// Reason and text when the store does not answer, whether the session was turned away or not.
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

    #[test]
    fn a_gate_says_why_only_to_whom_it_turned_away() {
        let mut plan = Plan::nothing();
        let mut gate = Gate::of(&Seen::Missing, "n/r", Room { free: 1, ahead: 15 });
        assert!(gate.admit(&mut plan) && gate.refusal().is_none());
        assert!(!gate.admit(&mut plan) && plan.requeue == Some(LOOK_FOR_ROOM));
        let mut gate = Gate::of(&Seen::Missing, "n/r", Room { free: 0, ahead: 400 });
        assert!(gate.refusal().is_none() && !gate.is_open(&mut plan));
        let (why, text) = gate.refusal().unwrap();
        assert!(why == reason::REPOSITORY_BUSY && text.contains("more than 100 come first"), "{text}");
        let mut gate = Gate::of(&Seen::Missing, "n/r", Room::WHILE_CREATED);
        assert!(!gate.admit(&mut plan));
        let (why, text) = gate.refusal().unwrap();
        assert!(why == reason::REPOSITORY_BUSY && text.contains("creating the repository of n/r"), "{text}");
    }
}
