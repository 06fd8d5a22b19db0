//! A step that stands alone: its Job is created, retried, and read.
//!
//! The plan keeps one status entry for it: the current attempt, when the next attempt is due, and why the last attempt
//! failed. A crash between two writes loses nothing, because the Job of an attempt always has the same name.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;

use crate::api::restore_session::StepStatus;
use crate::contract::{Class, Failure, Outcome};
use crate::names::reason;
use crate::plan::effects::Plan;
use crate::plan::repository::slots::Gate;
use crate::plan::seen::job_status::JobSeen;
use crate::plan::work::attempt::Stand;
use crate::plan::work::job_spec::env;
use crate::plan::work::pod_security::Level;
use crate::plan::work::{attempt, pod_security, retry};

/// Interval at which running Jobs are checked; a watch reports their end.
pub const LOOK_AT_RUNNING: Duration = Duration::from_secs(10);

/// State of a step.
#[derive(Debug, PartialEq)]
pub enum StepState {
    /// Its Job runs, or the next attempt is not due yet.
    Running,
    /// The step is over. The outcome is set in the pass that reads it first, and empty afterwards.
    Done(Box<Outcome>),
    /// The step failed, and is not retried.
    Failed(Failure),
}

/// What a step needs of the pass that it is part of.
pub struct Lone<'a> {
    /// Id of the run that the answer must belong to.
    pub run: &'a str,
    /// The clock.
    pub at: Timestamp,
    /// The deadline has passed.
    pub expired: bool,
    /// Pod Security level that the namespace of its Jobs enforces.
    pub pod_security: Level,
    /// The Jobs of the run.
    pub jobs: &'a [JobSeen],
    /// The entries of status.
    pub steps: &'a mut Vec<StepStatus>,
    /// Decides whether its Job may be created now; `None` for Jobs that always may.
    pub gate: Option<&'a mut Gate>,
    /// Where effects are listed.
    pub plan: &'a mut Plan,
}

/// The entry of a step. It is created if it does not exist.
pub fn entry<'a>(steps: &'a mut Vec<StepStatus>, name: &str) -> &'a mut StepStatus {
    let at = steps.iter().position(|s| s.name == name).unwrap_or_else(|| {
        steps.push(StepStatus { name: name.to_owned(), attempt: 1, ..StepStatus::default() });
        steps.len() - 1
    });
    &mut steps[at]
}

/// Makes a step that is over do its work once more. Attempt numbers continue, so that no Job name is used twice.
pub fn begin_again(entry: &mut StepStatus) {
    *entry = StepStatus { name: entry.name.clone(), attempt: entry.attempt.saturating_add(1), ..StepStatus::default() };
}

impl Lone<'_> {
    /// Advances the step. `job` builds the Job of an attempt, given the number of earlier attempts whose pod died by
    /// itself.
    pub fn advance(self, name: &str, job: impl FnOnce(i32, i32) -> Job) -> StepState {
        let entry = entry(self.steps, name);
        let attempt = entry.attempt;
        if entry.done {
            return StepState::Done(Box::default());
        }
        let failure = match attempt::look(self.plan, self.jobs, name, attempt) {
            Stand::Active(_, held) if !self.expired => {
                attempt::hold(self.plan, entry, held);
                self.plan.look_again(LOOK_AT_RUNNING);
                return StepState::Running;
            }
            Stand::Active(job, _) => {
                self.plan.stop(Some(job));
                return StepState::Failed(late(name, entry.message.as_deref()));
            }
            Stand::Done(_, outcome) => match &outcome.failure {
                None if outcome.run != self.run => {
                    let text = format!("The result of the {name} step belongs to another run ({}).", outcome.run);
                    return StepState::Failed(Failure::new(Class::Fatal, reason::AGENT_FAILED, text));
                }
                Some(failure) if retry::again(failure, retry::deaths(failure, entry.pod_deaths)) => failure,
                Some(failure) if outcome.answer.is_none() => return StepState::Failed(failure.clone()),
                _ => {
                    entry.done = true;
                    return StepState::Done(Box::new(outcome.clone()));
                }
            },
            Stand::Lost(_, failure) => failure,
            Stand::Absent { .. } if self.expired => {
                let silence = self.gate.and_then(|g| g.silence().map(|(_, text)| text.to_owned()));
                return StepState::Failed(late(name, silence.or_else(|| entry.message.clone()).as_deref()));
            }
            Stand::Absent { .. } => {
                if let Some(wait) = retry::pause(entry.not_before.as_ref(), self.at) {
                    self.plan.look_again(wait);
                } else {
                    let job = job(attempt, entry.pod_deaths.unwrap_or(0));
                    let allowed = env::check_task(&job);
                    if let Err(failure) = allowed.and_then(|()| pod_security::check_job(self.pod_security, &job)) {
                        return StepState::Failed(failure);
                    }
                    if self.gate.is_none_or(|g| g.admit(self.plan)) {
                        self.plan.jobs.push(job);
                    }
                    self.plan.look_again(LOOK_AT_RUNNING);
                }
                return StepState::Running;
            }
        };
        match attempt::again(self.plan, entry, failure, self.at, self.expired) {
            Ok(()) => StepState::Running,
            Err(_) => StepState::Failed(failure.clone()),
        }
    }
}

fn late(step: &str, last: Option<&str>) -> Failure {
    let last = last.map(|l| format!(" Last: {l}")).unwrap_or_default();
    let text = format!("The {step} step did not complete before the deadline.{last}");
    Failure::new(Class::Fatal, reason::DEADLINE_EXCEEDED, text)
}
