//! What follows the hosts of a session: retention and the check of the repository.

use crate::contract::restic::{Maintain, Step};
use crate::contract::{Answer, restic};
use crate::names::reason;
use crate::plan::backup::pass::{Ground, Pass};
use crate::plan::backup::run::Invoker;
use crate::plan::backup::{conclude, members};
use crate::plan::effects::Event;
use crate::plan::systems::restic::backup as restic_backup;
use crate::plan::work::step::StepState;

impl Pass<'_> {
    /// Applies retention to the hosts that were backed up, checks the repository, and ends the session.
    pub(super) fn maintain(&mut self, invoker: &Invoker, ground: &Ground, done: Vec<(String, String)>) {
        let (own, shared) = members::own(self, done);
        let maintain = Maintain { own, retention: restic_backup::retention(&invoker.retention) };
        match self.lone_step("maintain", ground, || Step::Maintain(maintain.clone())) {
            StepState::Running => conclude::stand(self),
            StepState::Failed(failure) => {
                conclude::maintained(self, None, Some(&failure));
                conclude::conclude(self, Some(&failure));
            }
            StepState::Done(outcome) => {
                let facts = match &outcome.answer {
                    Some(Answer::Restic(restic::Answer::Maintained(facts))) => Some(facts),
                    _ => None,
                };
                let is_known =
                    |w: &&String| self.now.targets.iter().flat_map(|t| &t.stats).any(|h| h.warnings.contains(w));
                let new = outcome.warnings.iter().filter(|w| !is_known(w));
                let events: Vec<Event> = new.map(|w| Event::new(true, reason::HOST_WARNING, w)).collect();
                self.plan.events.extend(events);
                let retained = conclude::maintained(self, facts, outcome.failure.as_ref());
                let shared = shared.filter(|_| retained && maintain.retention.keeps_something());
                if let Some(text) = &shared {
                    conclude::shared(self, text);
                }
                conclude::conclude(self, outcome.failure.as_ref());
                if shared.is_some() {
                    // Only a change of the manifest helps.
                    self.now.next_retry = None;
                }
            }
        }
    }
}
