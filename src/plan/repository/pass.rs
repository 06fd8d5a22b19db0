//! One reconcile pass over one Repository: its input, and the status and actions that it plans.
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;

use crate::api::repository::{Reference, RepositorySpec, RepositoryStatus};
use crate::api::runtime::RuntimeSettings;
use crate::contract::Failure;
use crate::contract::{Task, Work};
use crate::names::{condition, label, reason};
use crate::plan::effects::{Event, Grant, Plan};
use crate::plan::repository::known::was_here;
use crate::plan::repository::slots::queue::Slots;
use crate::plan::run::conditions;
use crate::plan::run::conditions::{Health, Value};
use crate::plan::seen::identity::Identity;
use crate::plan::seen::job_status::JobSeen;
use crate::plan::seen::{Refusal, Seen};
use crate::plan::setup::Setup;
use crate::plan::systems::restic;
use crate::plan::systems::restic::backend;
use crate::plan::systems::restic::backend::Access;
use crate::plan::work::job_spec::frame::{JobFrame, JobParts};
use crate::plan::work::pod_security::Level;
use crate::plan::work::process;
use crate::plan::work::step::{Lone, StepState};
use crate::plan::work::{job_defaults, job_spec, rbac, step};
use k8s_openapi::jiff::SignedDuration;

/// Interval of checks for a missing Secret.
pub const LOOK_FOR_MISSING: Duration = Duration::from_secs(10);

/// A Repository.
#[derive(Clone, Debug, Default)]
pub struct RepositoryRun {
    /// The Repository; its uid is the id of the run of its Jobs.
    pub id: Identity,
    /// Its spec.
    pub spec: RepositorySpec,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The annotation that asks for its Snapshots to be brought up to date.
    pub sync_request: Option<String>,
    /// It carries Stash's finalizer.
    pub stash: bool,
    /// Its status, as last written.
    pub state: RepositoryStatus,
}

/// What a reconcile found around a Repository.
#[derive(Clone, Debug)]
pub struct RepositorySurroundings {
    /// Why it is not valid.
    pub refusal: Option<Refusal>,
    /// Whether its backend Secret is there.
    pub secret: Seen<()>,
    /// Version of that Secret.
    pub secret_version: Option<String>,
    /// It is the turn of this Repository, of all Repositories, to be listed.
    pub may_list: bool,
    /// Objects that use it, in a stable order.
    pub references: Vec<Reference>,
    /// Its own Jobs.
    pub jobs: Vec<JobSeen>,
    /// Number of sessions that are not over; they wait for the store when it does not answer.
    pub waiting: usize,
    /// Number of Jobs of sessions that work on it.
    pub at_work: usize,
    /// Its slots, if more are wanted than exist.
    pub slots: Option<Slots>,
    /// Another Repository whose data could be the same, as messages name it.
    pub shares_data_with: Option<String>,
    /// Settings of its Jobs that the Repository does not set, or what is wrong with them.
    pub job_defaults: Result<RuntimeSettings, String>,
    /// Its namespace is being deleted.
    pub namespace_ends: bool,
}

pub(super) struct Pass<'a> {
    pub run: &'a RepositoryRun,
    pub seen: &'a RepositorySurroundings,
    pub setup: &'a Setup,
    pub at: Timestamp,
    pub now: RepositoryStatus,
    pub plan: Plan,
}

/// Key of the step.
pub const LIST: &str = "list";

/// Shortest wait between a failed listing and the next one.
pub const SOONEST: SignedDuration = SignedDuration::from_mins(1);

/// Text after the reason of a failed listing, if there are Snapshots.
pub const OUT_OF_DATE: &str = " The Snapshots may be out of date.";

/// Message when a backup has made snapshots that the last listing did not find.
pub const BEING_LISTED: &str = "A backup has ended since the last listing. The Snapshots are being listed.";

/// Interval of listings without a request; `None` for never.
pub(super) fn every(pass: &Pass<'_>) -> Option<SignedDuration> {
    SignedDuration::try_from(pass.setup.sync_every).ok().filter(|e| !e.is_zero())
}

impl Pass<'_> {
    /// How its Jobs reach the repository, if the Repository is valid and its Secret exists; otherwise the conditions
    /// say why not.
    pub fn ground(&mut self) -> Option<Access> {
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

    /// How its Jobs reach the repository, if they can; does not change the conditions.
    pub fn access(&self) -> Option<Access> {
        let there =
            self.seen.refusal.is_none() && self.seen.secret == Seen::Found(()) && self.seen.job_defaults.is_ok();
        self.reached().ok().filter(|_| there)
    }

    pub fn reached(&self) -> Result<Access, Failure> {
        let mut access = backend::of(&self.run.spec, &self.display())?;
        access.told.known = was_here(&self.run.spec, Some(&self.run.state));
        Ok(access)
    }

    pub fn display(&self) -> String {
        format!("{}/{}", self.run.id.namespace, self.run.id.name)
    }

    /// Advances a step of the Repository: its Job is created, retried, or read. `limit` bounds each attempt.
    pub fn lone_step(&mut self, name: &str, access: &Access, limit: Duration, work: Work) -> StepState {
        let entry = step::entry(&mut self.now.steps, name);
        let turn = (entry.attempt, entry.pod_deaths.unwrap_or(0));
        let job = self.job(name, turn, access, limit, work);
        let lone = Lone {
            run: &self.run.id.uid,
            at: self.at,
            expired: false,
            // The steps touch no files, so every Pod Security level admits them.
            pod_security: Level::Privileged,
            jobs: &self.seen.jobs,
            steps: &mut self.now.steps,
            gate: None,
            plan: &mut self.plan,
        };
        lone.advance(name, |_, _| job)
    }

    /// The Job of an attempt at a step of the Repository; `deaths` is the number of pod deaths before it.
    pub fn job(&self, name: &str, (attempt, deaths): (i32, i32), access: &Access, limit: Duration, work: Work) -> Job {
        let id = &self.run.id;
        let runtime = self.run.spec.runtime_settings.as_ref();
        let account = (name == LIST).then(|| self.right_to_list().status.name);
        // The Repository's settings can change while a Job waits.
        let frame =
            JobFrame::of(self.setup, id, label::COMPONENT_REPOSITORY, &access.display, account, self.job_settings());
        let needs = restic::needs(access, &work);
        let task = Task { process: process::of(runtime), ..Task::new(id.told(), name, vec![], work) };
        let (key, seconds_left) = (name.to_owned(), i64::try_from(limit.as_secs()).unwrap_or(i64::MAX));
        job_spec::job(&frame, &task, JobParts { key, attempt, deaths, needs, seconds_left, ..JobParts::default() })
    }

    /// Settings of its Jobs, with those of its namespace.
    pub fn job_settings(&self) -> RuntimeSettings {
        let defaults = self.seen.job_defaults.clone().unwrap_or_default();
        job_defaults::over(self.run.spec.runtime_settings.as_ref(), &defaults)
    }

    /// Grant that the listing Job needs, for its service account.
    pub fn right_to_list(&self) -> Grant {
        let none = RuntimeSettings::default();
        let defaults = self.seen.job_defaults.as_ref().unwrap_or(&none);
        rbac::to_list(&self.run.id, self.run.spec.runtime_settings.as_ref(), defaults)
    }

    pub fn event(&mut self, warning: bool, reason: &str, message: &str) {
        self.plan.events.push(Event::new(warning, reason, message));
    }

    pub fn say(&mut self, health: Health, why: &str, text: &str) {
        let text = crate::text::message(text);
        conditions::set_health(&mut self.now.conditions, health, why, &text, self.at);
    }
}
