//! What follows the hosts of a session: retention and the check of the repository.

use super::{Ground, Invoker, Pass, hosts, report};
use crate::api::common::RetentionPolicy;
use crate::contract::Answer;
use crate::contract::restic::{self, Maintain, Retention, Step};
use crate::names::reason;
use crate::plan::Event;
use crate::plan::step::StepState;

impl Pass<'_> {
    /// Applies retention to the hosts that were backed up, checks the repository, and ends the session.
    pub(super) fn maintain(&mut self, invoker: &Invoker, ground: &Ground, done: Vec<(String, String)>) {
        let (own, shared) = hosts::own(self, done);
        let maintain = Maintain { own, retention: retention(&invoker.retention) };
        match self.lone_step("maintain", ground, || Step::Maintain(maintain.clone())) {
            StepState::Running => report::stand(self),
            StepState::Failed(failure) => {
                report::maintained(self, None, Some(&failure));
                report::conclude(self, Some(&failure));
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
                let retained = report::maintained(self, facts, outcome.failure.as_ref());
                let shared = shared.filter(|_| retained && maintain.retention.keeps_something());
                if let Some(text) = &shared {
                    report::shared(self, text);
                }
                report::conclude(self, outcome.failure.as_ref());
                if shared.is_some() {
                    // Only a change of the manifest helps.
                    self.now.next_retry = None;
                }
            }
        }
    }
}

fn retention(policy: &RetentionPolicy) -> Retention {
    let p = policy.clone();
    Retention {
        keep_last: p.keep_last,
        keep_hourly: p.keep_hourly,
        keep_daily: p.keep_daily,
        keep_weekly: p.keep_weekly,
        keep_monthly: p.keep_monthly,
        keep_yearly: p.keep_yearly,
        keep_tags: p.keep_tags,
        prune: p.prune,
        dry_run: p.dry_run.unwrap_or(false),
    }
}
