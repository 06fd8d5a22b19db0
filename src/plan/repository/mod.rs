//! What happens next to a Repository: is it valid, does its Secret exist, which objects use it.
//!
//! A Repository can own Jobs, as a session does: each is a [`step`](crate::plan::work::step) with
//! an entry in status, made by [`Pass::lone_step`], and watched by the same labels.

mod finalize;
pub mod known;
pub mod opened;
pub mod pass;
pub mod preconditions;
mod probe;
pub mod slot_status;
pub mod slots;
pub mod store_reasons;
mod sync;
#[cfg(test)]
mod tests;
pub mod usage_policy;

use k8s_openapi::jiff::Timestamp;

use crate::api::to_json;
use crate::plan::effects::{FinalizerChange, Plan};
use crate::plan::repository::pass::{Pass, RepositoryRun, RepositorySurroundings};
use crate::plan::setup::Setup;

/// Number of objects using the Repository that status lists.
const LISTED: usize = 100;

/// What to do next about a Repository.
pub fn next(run: &RepositoryRun, seen: &RepositorySurroundings, setup: &Setup, now: Timestamp) -> Plan {
    let mut pass = Pass { run, seen, setup, at: now, now: run.state.clone(), plan: Plan::nothing() };
    // The size of a status is limited. All references, not only the listed ones, decide about the finalizer.
    pass.now.references = seen.references.iter().take(LISTED).cloned().collect();
    if run.id.deleting {
        finalize::advance(&mut pass);
    } else {
        pass.step();
    }
    pass.finish()
}

impl Pass<'_> {
    fn step(&mut self) {
        let needed = !self.seen.references.is_empty() || self.run.spec.wipe_out == Some(true);
        if needed && !self.run.id.held {
            self.plan.finalizer = Some(FinalizerChange::Add);
        }
        self.now.observed_generation = self.run.id.generation;
        let Some(access) = self.ground() else { return };
        self.plan.renew(&self.seen.jobs, &self.job_settings());
        if probe::advance(self, &access) {
            return;
        }
        sync::advance(self, &access);
        opened::tell(self);
    }

    fn finish(mut self) -> Plan {
        slot_status::tell(&mut self);
        if self.now != self.run.state {
            self.plan.status = Some(to_json(&self.now));
        }
        self.plan.release(&self.seen.jobs);
        self.plan
    }
}
