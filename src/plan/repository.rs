//! What happens next to a Repository: is it valid, is its Secret there, who uses it.
//!
//! A Repository can own Jobs, as a session does: each is a [`step`](super::step) with
//! an entry in status, made by [`Pass::lone_step`], and watched by the same labels.

mod known;
mod leave;
pub mod opened;
mod reach;
pub mod slots;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;

use super::access::{self, Access};
use super::conditions::{self, Health, Value};
use super::grants::{self, Grant};
use super::jobs::JobSeen;
use super::objects::{self, JobFrame, JobParts};
use super::observed::{Refusal, Seen, Setup};
use super::pod_security::Level;
use super::run::Identity;
use super::step::{self, Lone, StepState};
use super::systems::restic;
use super::{Event, FinalizerChange, Plan, job_defaults, retry};
use crate::api::repository::{Reference, RepositorySpec, RepositoryStatus};
use crate::api::runtime::RuntimeSettings;
use crate::api::to_json;
use crate::contract::Failure;
use crate::contract::restic::Step;
use crate::names::{condition, label, reason};

pub use self::known::was_here;
pub use self::reach::is_being_asked;

/// A missing Secret is looked for this often.
const LOOK_FOR_MISSING: Duration = Duration::from_secs(10);

/// A Repository.
#[derive(Clone, Debug, Default)]
pub struct RepositoryRun {
    /// The Repository; its uid is the id of the run of its Jobs.
    pub id: Identity,
    /// What it says.
    pub spec: RepositorySpec,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The annotation that asks for its Snapshots to be brought up to date.
    pub sync_request: Option<String>,
    /// It carries Stash's finalizer.
    pub stash: bool,
    /// How it stands, as last written.
    pub state: RepositoryStatus,
}

/// What a look found around a Repository.
#[derive(Clone, Debug)]
pub struct RepositorySurroundings {
    /// Why it is not valid.
    pub refusal: Option<Refusal>,
    /// Whether its backend Secret is there.
    pub secret: Seen<()>,
    /// Version of that Secret.
    pub secret_version: Option<String>,
    /// It is its turn to be listed, of all Repositories.
    pub may_list: bool,
    /// Who uses it, in a stable order.
    pub references: Vec<Reference>,
    /// Its own Jobs.
    pub jobs: Vec<JobSeen>,
    /// Sessions that are not over; they wait for it when it does not answer.
    pub waiting: usize,
    /// Jobs of sessions that work on it.
    pub at_work: usize,
    /// Its places, where more are wanted than there are.
    pub slots: Option<slots::Slots>,
    /// Another Repository whose data could be the same, as messages name it.
    pub shares_data_with: Option<String>,
    /// Settings of its Jobs that it does not name; what is wrong with them.
    pub job_defaults: Result<RuntimeSettings, String>,
    /// Its namespace is being deleted.
    pub namespace_ends: bool,
}

/// Whether the store that a Repository names was opened through it. What it was before its spec was changed does not
/// count; where only an older operator looked, that it was opened at all does.
pub fn has_been_opened(spec: &RepositorySpec, status: Option<&RepositoryStatus>) -> bool {
    let Some(status) = status else { return false };
    if status.opened_store.is_some() {
        return status.opened_store == spec.backend.as_ref().and_then(access::store);
    }
    let listed = status.sync.as_ref().is_some_and(|s| s.last_time.is_some());
    listed || status.first_backup_time.is_some() || status.last_backup_time.is_some()
}

/// Users that are listed in status.
const LISTED: usize = 100;

/// What to do next about a Repository.
pub fn next(run: &RepositoryRun, seen: &RepositorySurroundings, setup: &Setup, now: Timestamp) -> Plan {
    let mut pass = Pass { run, seen, setup, at: now, now: run.state.clone(), plan: Plan::nothing() };
    // A status has a limit; who holds it is decided by all of them.
    pass.now.references = seen.references.iter().take(LISTED).cloned().collect();
    if run.id.deleting {
        leave::advance(&mut pass);
    } else {
        pass.step();
    }
    pass.finish()
}

struct Pass<'a> {
    run: &'a RepositoryRun,
    seen: &'a RepositorySurroundings,
    setup: &'a Setup,
    at: Timestamp,
    now: RepositoryStatus,
    plan: Plan,
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
        if reach::advance(self, &access) {
            return;
        }
        sync::advance(self, &access);
        opened::tell(self);
    }

    /// How its Jobs reach the repository, once it is valid and its Secret is there; the conditions say why not.
    fn ground(&mut self) -> Option<Access> {
        let access = self.reached();
        let list = &mut self.now.conditions;
        if let Some(refusal) = &self.seen.refusal {
            let text = &refusal.message;
            conditions::set(list, condition::VALIDATION_PASSED, false, reason::VALIDATION_FAILED, text, self.at);
            self.say(Health::Stalled, &refusal.reason, text);
            return None;
        }
        let valid = "Successfully validated.";
        conditions::set(list, condition::VALIDATION_PASSED, true, reason::VALIDATION_PASSED, valid, self.at);
        let access = match access {
            Ok(access) => access,
            Err(failure) => {
                self.say(Health::Stalled, &failure.reason, &failure.message);
                return None;
            }
        };
        let name = format!("Backend Secret {}/{}", self.run.id.namespace, access.secret);
        let (value, why, text) = match &self.seen.secret {
            Seen::Found(()) => (Value::True, reason::BACKEND_SECRET_AVAILABLE, format!("{name} exists.")),
            Seen::Missing => (Value::False, reason::BACKEND_SECRET_NOT_AVAILABLE, format!("{name} does not exist.")),
            Seen::Unknown(e) => (Value::Unknown, reason::BACKEND_SECRET_UNKNOWN, format!("{name}: {e}")),
        };
        conditions::set(list, condition::BACKEND_SECRET_FOUND, value, why, &text, self.at);
        if value == Value::True {
            let Err(text) = &self.seen.job_defaults else { return Some(access) };
            self.plan.look_again(LOOK_FOR_MISSING);
            self.plan.warn_of_wait(&self.run.state.conditions, text);
            self.say(Health::Reconciling, reason::PENDING, text);
            return None;
        }
        self.plan.look_again(LOOK_FOR_MISSING);
        self.plan.warn_of_missing(&self.run.state.conditions, &self.now.conditions);
        self.say(Health::Reconciling, why, &text);
        None
    }

    /// How its Jobs reach the repository, if they can; without a word.
    fn access(&self) -> Option<Access> {
        let there =
            self.seen.refusal.is_none() && self.seen.secret == Seen::Found(()) && self.seen.job_defaults.is_ok();
        self.reached().ok().filter(|_| there)
    }

    fn reached(&self) -> Result<Access, Failure> {
        let mut access = access::of(&self.run.spec, &self.display())?;
        access.told.known = was_here(&self.run.spec, Some(&self.run.state));
        Ok(access)
    }

    fn display(&self) -> String {
        format!("{}/{}", self.run.id.namespace, self.run.id.name)
    }

    /// A step of its own: its Job is created, tried again, or read. `limit` bounds each attempt.
    fn lone_step(&mut self, name: &str, access: &Access, limit: Duration, step: Step) -> StepState {
        let entry = step::entry(&mut self.now.steps, name);
        let turn = (entry.attempt, entry.pod_deaths.unwrap_or(0));
        let job = self.job(name, turn, access, limit, step);
        let lone = Lone {
            run: &self.run.id.uid,
            at: self.at,
            expired: false,
            // Its steps touch no files, so that every level lets them in.
            pod_security: Level::Privileged,
            jobs: &self.seen.jobs,
            steps: &mut self.now.steps,
            gate: None,
            plan: &mut self.plan,
        };
        lone.advance(name, |_, _| job)
    }

    /// The Job of an attempt at a step of its own, and of how many deaths it comes after.
    fn job(&self, name: &str, (attempt, deaths): (i32, i32), access: &Access, limit: Duration, step: Step) -> Job {
        let id = &self.run.id;
        let runtime = self.run.spec.runtime_settings.as_ref();
        let account = matches!(step, Step::List(_)).then(|| self.right_to_list().status.name);
        // Its own settings can change while a Job waits.
        let frame = JobFrame::of(self.setup, id, label::COMPONENT_REPOSITORY, access, account, self.job_settings());
        let (process, settings) = (restic::process(runtime), restic::settings(None, false));
        let task = restic::task(id.told(), access, process, settings, step, vec![]);
        let (key, seconds_left) = (name.to_owned(), i64::try_from(limit.as_secs()).unwrap_or(i64::MAX));
        objects::job(&frame, &task, JobParts { key, attempt, deaths, seconds_left, ..JobParts::default() })
    }

    /// Settings of its Jobs, with those of its namespace.
    fn job_settings(&self) -> RuntimeSettings {
        let defaults = self.seen.job_defaults.clone().unwrap_or_default();
        job_defaults::over(self.run.spec.runtime_settings.as_ref(), &defaults)
    }

    /// What the Job that lists needs, for the account that it gets.
    fn right_to_list(&self) -> Grant {
        let none = RuntimeSettings::default();
        let defaults = self.seen.job_defaults.as_ref().unwrap_or(&none);
        grants::to_list(&self.run.id, self.run.spec.runtime_settings.as_ref(), defaults)
    }

    fn event(&mut self, warning: bool, reason: &str, message: &str) {
        self.plan.events.push(Event::new(warning, reason, message));
    }

    fn say(&mut self, health: Health, why: &str, text: &str) {
        let text = crate::text::message(text);
        conditions::set_health(&mut self.now.conditions, health, why, &text, self.at);
    }

    fn finish(mut self) -> Plan {
        slots::tell(&mut self);
        if self.now != self.run.state {
            self.plan.status = Some(to_json(&self.now));
        }
        self.plan.release(&self.seen.jobs);
        self.plan
    }
}
