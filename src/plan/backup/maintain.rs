//! What follows the backup of the hosts: retention and the check of the repository.

use crate::names::reason;
use crate::plan::backup::pass::{Ground, Pass};
use crate::plan::backup::run::Invoker;
use crate::plan::backup::{conclude, members};
use crate::plan::effects::Event;
use crate::plan::systems::restic;
use crate::plan::work::step::StepState;

impl Pass<'_> {
    /// Applies retention to the hosts that were backed up, checks the repository, and ends the session.
    pub(super) fn maintain(&mut self, invoker: &Invoker, ground: &Ground, done: Vec<(String, String)>) {
        let (own, shared) = members::own(self, done);
        let (work, retains) = restic::backup::maintain(&ground.access, self.temp_dir(), own, &invoker.retention);
        match self.lone_step("maintain", ground, work) {
            StepState::Running => conclude::stand(self),
            StepState::Failed(failure) => {
                conclude::maintained(self, None, Some(&failure));
                conclude::conclude(self, Some(&failure));
            }
            StepState::Done(outcome) => {
                let facts = restic::backup::facts(&outcome);
                let is_known =
                    |w: &&String| self.now.targets.iter().flat_map(|t| &t.stats).any(|h| h.warnings.contains(w));
                let new = outcome.warnings.iter().filter(|w| !is_known(w));
                let events: Vec<Event> = new.map(|w| Event::new(true, reason::HOST_WARNING, w)).collect();
                self.plan.events.extend(events);
                let retained = conclude::maintained(self, facts, outcome.failure.as_ref());
                let shared = shared.filter(|_| retained && retains);
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
