//! One reconcile pass over one backup: its input, and the status and actions that it plans.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;

use crate::api::backup_session::BackupSessionStatus;
use crate::api::common::EmptyDirSettings;
use crate::contract::{Task, Work};
use crate::names::label;
use crate::plan::backup::run::BackupRun;
use crate::plan::effects::{Event, FinalizerChange, Grant, Plan};
use crate::plan::repository::slots::Gate;
use crate::plan::seen::job_status::JobSeen;
use crate::plan::seen::surroundings::Surroundings;
use crate::plan::setup::Setup;
use crate::plan::systems::restic;
use crate::plan::systems::restic::backend::Access;
use crate::plan::work::job_spec::env;
use crate::plan::work::job_spec::frame::{JobFrame, JobParts};
use crate::plan::work::step::{Lone, StepState};
use crate::plan::work::{job_spec, pod_security, process, retry};

pub const LOOK_FOR_MISSING: Duration = Duration::from_secs(3);

/// Progress is written to status at most this often.
pub const LOOK_AT_PROGRESS: Duration = Duration::from_secs(5);

/// What new Jobs are built from.
pub struct Ground {
    pub frame: JobFrame,
    pub access: Access,
}

pub(super) struct Pass<'a> {
    pub run: &'a BackupRun,
    pub seen: &'a Surroundings,
    pub setup: &'a Setup,
    pub at: Timestamp,
    pub now: BackupSessionStatus,
    pub expired: bool,
    /// Gate to the Repository.
    pub gate: Gate,
    /// Grant that new Jobs need to read the Secret of another namespace.
    pub grant: Option<Grant>,
    /// No Job of the session shall run any more, so the rights are removed before the Jobs.
    pub ended: bool,
    pub plan: Plan,
}

impl<'a> Pass<'a> {
    pub fn frame(&self, access: &Access) -> JobFrame {
        let account = self.grant.as_ref().map(|g| g.status.name.clone());
        JobFrame::of(self.setup, &self.run.id, label::COMPONENT_BACKUP, &access.display, account, self.seen.defaults())
    }

    pub fn seconds_left(&self) -> i64 {
        retry::seconds_left(self.now.session_deadline.as_ref(), self.at)
    }

    pub fn job(&self, key: &str, attempt: i32) -> Option<&'a JobSeen> {
        self.seen.jobs.iter().find(|j| j.key == key && j.attempt == attempt)
    }

    /// Whether the namespace admits the pod of a Job.
    pub fn may_run(&self, job: &Job) -> Result<(), crate::contract::Failure> {
        env::check_task(job)?;
        pod_security::check_job(self.seen.pod_security, job)
    }

    pub fn event(&mut self, warning: bool, reason: &str, message: &str) {
        self.plan.events.push(Event::new(warning, reason, message));
    }

    /// Scratch volume of the Jobs that belong to no host. With several members there is none, because no single member
    /// decides.
    pub fn temp_dir(&self) -> Option<&'a EmptyDirSettings> {
        match self.run.invoker.as_ref().map(|i| i.members.as_slice()) {
            Some([only]) => only.temp_dir.as_ref(),
            _ => None,
        }
    }

    /// Advances a step that belongs to no host: its Job is created, retried, or read.
    pub fn lone_step(&mut self, name: &str, ground: &Ground, work: Work) -> StepState {
        let (run, seen, temp_dir) = (self.run, self.seen, self.temp_dir());
        let runtime = run.invoker.as_ref().and_then(|i| i.runtime.as_ref());
        let needs = restic::needs(&ground.access, &work);
        let task = Task { process: process::of(runtime), ..Task::new(run.id.told(), name, vec![], work) };
        let seconds_left = self.seconds_left();
        let lone = Lone {
            run: &run.id.uid,
            at: self.at,
            expired: self.expired,
            jobs: &seen.jobs,
            pod_security: seen.pod_security,
            steps: &mut self.now.run.get_or_insert_with(Default::default).steps,
            gate: Some(&mut self.gate),
            plan: &mut self.plan,
        };
        lone.advance(name, |attempt, deaths| {
            let key = name.to_owned();
            job_spec::job(
                &ground.frame,
                &task,
                JobParts { key, attempt, deaths, runtime, temp_dir, needs, seconds_left, ..JobParts::default() },
            )
        })
    }

    /// Removes the finalizer, after the rights are revoked.
    pub fn release(&mut self) {
        self.ended = true;
        if self.run.id.held {
            self.plan.finalizer = Some(FinalizerChange::Remove);
        }
    }

    /// Number of retry sessions that may follow this one.
    pub fn retries_left(&self) -> i32 {
        let configured = self.run.invoker.as_ref().and_then(|i| i.retry.as_ref());
        self.run.retry_left.or(configured.map(|c| c.max_retry.unwrap_or(1))).unwrap_or(0)
    }
}
