//! Attempts at a step: the state of the current attempt, and what follows a failed one.
//!
//! This module handles every Job of every run: the looks at hosts, their restores and backups, the steps that stand
//! alone ([`step`](super::step)), and probes. Status records the current attempt, when the next attempt is due, and why
//! the last attempt failed. The Job of an attempt always has the same name, so a crash between two writes loses
//! nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::api::backup_session::HostBackupStats;
use crate::api::restore_session::{HostRestoreStats, StepStatus};
use crate::contract::{Class, Failure, Outcome};
use crate::plan::effects::Plan;
use crate::plan::run::conditions;
use crate::plan::seen::job_status::{JobSeen, JobState};
use crate::plan::work::retry;

/// An entry of status that keeps the attempts at a step.
pub trait Attempts {
    /// Returns what the entry keeps.
    fn kept(&mut self) -> Kept<'_>;
}

/// What status keeps of the attempts at a step.
pub struct Kept<'a> {
    /// The current attempt, from 1.
    pub attempt: Number<'a>,
    /// Number of attempts whose pod died by itself, see [`retry::deaths`].
    pub pod_deaths: &'a mut Option<i32>,
    /// When the attempt is due.
    pub not_before: &'a mut Option<Time>,
    /// Why the last attempt failed, or what holds up this one.
    pub reason: &'a mut Option<String>,
    /// The same as a text.
    pub message: &'a mut Option<String>,
}

/// The number of an attempt, as a status entry stores it.
pub enum Number<'a> {
    /// Always set.
    Always(&'a mut i32),
    /// Not set before the first attempt.
    Once(&'a mut Option<i32>),
}

impl Number<'_> {
    fn get(&self) -> i32 {
        match self {
            Self::Always(n) => **n,
            Self::Once(n) => n.unwrap_or(1),
        }
    }

    fn set(&mut self, to: i32) {
        match self {
            Self::Always(n) => **n = to,
            Self::Once(n) => **n = Some(to),
        }
    }
}

impl Attempts for StepStatus {
    fn kept(&mut self) -> Kept<'_> {
        let Self { attempt, pod_deaths, not_before, reason, message, .. } = self;
        Kept { attempt: Number::Always(attempt), pod_deaths, not_before, reason, message }
    }
}

impl Attempts for HostRestoreStats {
    fn kept(&mut self) -> Kept<'_> {
        let Self { attempt, pod_deaths, not_before, reason, error: message, .. } = self;
        Kept { attempt: Number::Once(attempt), pod_deaths, not_before, reason, message }
    }
}

impl Attempts for HostBackupStats {
    fn kept(&mut self) -> Kept<'_> {
        let Self { attempt, pod_deaths, not_before, reason, error: message, .. } = self;
        Kept { attempt: Number::Once(attempt), pod_deaths, not_before, reason, message }
    }
}

/// State of the Job of an attempt.
#[derive(Clone, Copy)]
pub enum Stand<'j> {
    /// The Job runs, or something holds it up.
    Active(&'j JobSeen, Option<&'j Failure>),
    /// The Job has left an outcome.
    Done(&'j JobSeen, &'j Outcome),
    /// The Job has ended, or cannot start, and there is no outcome.
    Lost(&'j JobSeen, &'j Failure),
    /// There is no Job.
    Absent {
        /// There is no Job of an earlier attempt either, whose pod could still write.
        alone: bool,
    },
}

/// Checks the Job of an attempt, and stops Jobs of earlier attempts.
pub fn look<'j>(plan: &mut Plan, jobs: &'j [JobSeen], key: &str, attempt: i32) -> Stand<'j> {
    let alone = stop_earlier(plan, jobs, key, attempt);
    let Some(job) = jobs.iter().find(|j| j.key == key && j.attempt == attempt) else { return Stand::Absent { alone } };
    match &job.state {
        JobState::Active { held } => Stand::Active(job, held.as_ref()),
        JobState::Done(outcome) => Stand::Done(job, outcome),
        JobState::Lost(failure) => {
            give_up(plan, job, failure);
            Stand::Lost(job, failure)
        }
    }
}

/// Stops Jobs of earlier attempts, because status contains their results. Returns true if there were none.
pub fn stop_earlier(plan: &mut Plan, jobs: &[JobSeen], key: &str, attempt: i32) -> bool {
    let mut alone = true;
    for earlier in jobs.iter().filter(|j| j.key == key && j.attempt < attempt) {
        alone = false;
        plan.stop(Some(earlier));
    }
    alone
}

/// Stops a Job whose pod can never start, because the Job still exists.
pub fn give_up(plan: &mut Plan, job: &JobSeen, failure: &Failure) {
    if failure.class == Class::Invalid {
        plan.stop(Some(job));
    }
}

/// Records what holds up the Job of an attempt, or that nothing does. A new reason is also published as an event.
pub fn hold(plan: &mut Plan, entry: &mut impl Attempts, held: Option<&Failure>) {
    let kept = entry.kept();
    if let Some(failure) = held {
        plan.warn_of(failure, kept.reason.as_deref());
    }
    *kept.reason = held.map(|f| f.reason.clone());
    *kept.message = held.map(|f| f.message.clone());
}

/// Schedules the attempt after a failed one.
///
/// # Errors
/// There is no further attempt: the failure is not of a kind that is retried, its pod died too often, or it is too
/// `late`. The error is the number of pods that died.
pub fn again(
    plan: &mut Plan,
    entry: &mut impl Attempts,
    failure: &Failure,
    at: Timestamp,
    late: bool,
) -> Result<(), Option<i32>> {
    let mut kept = entry.kept();
    let deaths = retry::deaths(failure, *kept.pod_deaths);
    if late || !retry::again(failure, deaths) {
        return Err(deaths);
    }
    let attempt = kept.attempt.get();
    kept.attempt.set(attempt.saturating_add(1));
    *kept.pod_deaths = deaths;
    *kept.not_before = Some(conditions::whole_second(retry::not_before(attempt, at)));
    *kept.reason = Some(failure.reason.clone());
    *kept.message = Some(failure.message.clone());
    plan.note(failure);
    plan.look_again(retry::wait_after(attempt));
    Ok(())
}
