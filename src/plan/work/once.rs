//! A step that runs at most once, whatever restarts: a hook.
//!
//! A Job alone cannot promise that. A Job that is gone may have run, and one that is created again would run again. So
//! its Job is created suspended, and a suspended Job has no pod. The order of the writes:
//!
//! 1. Status announces the step.
//! 2. The Job is created, suspended. This may happen again: none of these Jobs runs.
//! 3. Status records the uid of the Job: from now on this Job, and no other, may run the step.
//! 4. The Job with this uid is started.
//! 5. Its result is read, and written to status. What follows the step waits for that.
//!
//! A crash between any two writes leaves one of two cases: no uid is recorded, and nothing has run; or a uid is recorded,
//! and only that Job can tell. If it is gone, or its pod has died, the step is in doubt.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::hooks::{HookPhase, HookStatus};
use crate::contract::hook::ACTIONS;
use crate::contract::{Answer, Class, Failure, Outcome};
use crate::names::reason;
use crate::plan::effects::{Plan, Start};
use crate::plan::run::conditions;
use crate::plan::seen::job_status::{JobSeen, JobState};

/// A pod of a Job starts within this time, or something holds it up: the same as for every other Job
/// ([`PLACE_PATIENCE`](crate::plan::seen::job_status::PLACE_PATIENCE)).
const START_PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// Interval at which something missing, or a running Job, is looked up.
const LOOK: Duration = Duration::from_secs(1);

/// One step in one pass.
pub struct Once<'a> {
    /// Id of the run that the answer must belong to.
    pub run: &'a str,
    /// The clock.
    pub at: Timestamp,
    /// Key of the step within the run.
    pub key: &'a str,
    /// Its entry in the status as written; `None` if that does not announce it.
    pub was: Option<&'a HookStatus>,
    /// Its entry in the status that is about to be written.
    pub now: &'a mut HookStatus,
    /// The Jobs of the run.
    pub jobs: &'a [JobSeen],
    /// Longest time of its work, and of the wait for what it needs.
    pub limit: SignedDuration,
    /// It is to end: it does not begin any more, and its Job is stopped.
    pub stop: bool,
    /// The session is being deleted, maybe with its namespace: nothing that is missing is waited for.
    pub at_once: bool,
    /// Where effects are listed.
    pub plan: &'a mut Plan,
}

/// Why the Job of a step is not created now.
#[derive(Debug)]
pub enum Hold {
    /// Something is missing; it is waited for.
    Wait(Failure),
    /// The step cannot run.
    Fail(Failure),
}

/// Whether the step will not change any more.
pub fn is_over(phase: HookPhase) -> bool {
    !matches!(phase, HookPhase::Announced | HookPhase::Started)
}

/// Whether the step may have run.
pub fn may_have_run(phase: HookPhase) -> bool {
    !matches!(phase, HookPhase::Announced | HookPhase::Skipped)
}

/// Whether the Job of a step is not among these Jobs. Watches lag behind after a start of the operator: before a step
/// counts as in doubt, the API server itself must say that the Job is gone.
pub fn is_missed(step: &HookStatus, jobs: &[JobSeen]) -> bool {
    step.phase == HookPhase::Started && !jobs.iter().any(|j| j.uid.is_some() && j.uid == step.job)
}

/// A new entry.
pub fn announce(name: &str, at: Timestamp) -> HookStatus {
    HookStatus { name: name.to_owned(), since: Some(conditions::whole_second(at)), ..HookStatus::default() }
}

impl Once<'_> {
    /// Advances the step by one write. `make` builds its Job, which need not be suspended yet. True when the step is
    /// over, and status says so.
    pub fn advance(mut self, make: impl FnOnce(&mut HookStatus) -> Result<Job, Hold>) -> bool {
        let is_written = self
            .was
            .is_some_and(|was| (was.phase, &was.job, &was.pod) == (self.now.phase, &self.now.job, &self.now.pod));
        if is_over(self.now.phase) {
            // Created by a pass that did not know yet that the step is over.
            let left = self.jobs.iter().filter(|j| j.key == self.key && j.suspended);
            left.for_each(|job| self.plan.stop(Some(job)));
            self.plan.again |= !is_written;
            return is_written;
        }
        if !is_written {
            self.plan.again = true;
            return false;
        }
        match self.now.phase {
            HookPhase::Started => self.read(),
            _ => self.begin(make),
        }
        false
    }

    /// Nothing has run yet.
    fn begin(&mut self, make: impl FnOnce(&mut HookStatus) -> Result<Job, Hold>) {
        let found = self.jobs.iter().find(|j| j.key == self.key);
        if self.stop {
            self.plan.stop(found);
            return self.end(HookPhase::Skipped, reason::NOT_STARTED, "Not run: the run ended first.");
        }
        match found {
            Some(job) if job.uid.is_none() => match &job.state {
                // The API server has refused it.
                JobState::Lost(failure) if self.at_once || failure.class == Class::Invalid => {
                    self.fail(failure.clone());
                }
                JobState::Lost(failure) => self.wait(&failure.clone()),
                _ => {}
            },
            Some(job) if job.deleting => self.plan.look_again(LOOK),
            Some(job) => {
                self.now.job.clone_from(&job.uid);
                self.now.phase = HookPhase::Started;
                self.now.since = Some(conditions::whole_second(self.at));
                (self.now.reason, self.now.message) = (None, None);
                self.plan.again = true;
            }
            None if self.waited() > self.limit => {
                let why = self.now.reason.clone().unwrap_or_else(|| reason::HOOK_TIMED_OUT.to_owned());
                let last = self.now.message.clone().map(|m| format!(" Last: {m}")).unwrap_or_default();
                let text = format!("Not run: it could not begin within {}.{last}", self.limit());
                self.fail(Failure::new(Class::Fatal, &why, text));
            }
            None => {
                let before = self.now.pod.clone();
                match make(self.now) {
                    Ok(mut job) => {
                        // Its pod is recorded before its Job is created.
                        if self.now.pod != before {
                            self.plan.again = true;
                            return;
                        }
                        job.spec.get_or_insert_default().suspend = Some(true);
                        self.plan.jobs.push(job);
                        self.plan.look_again(LOOK);
                    }
                    Err(Hold::Wait(failure)) => self.wait(&failure),
                    Err(Hold::Fail(failure)) => self.fail(failure),
                }
            }
        }
    }

    /// The Job may have been started.
    fn read(&mut self) {
        let Some(job) = self.jobs.iter().find(|j| j.uid.is_some() && j.uid == self.now.job) else {
            return self.doubt("Its Job no longer exists, and its result was not read.");
        };
        match &job.state {
            JobState::Done(outcome) => self.judge(outcome),
            // Its pod can never start.
            JobState::Lost(failure) if failure.class == Class::Invalid => {
                self.plan.stop(Some(job));
                self.fail(failure.clone());
            }
            JobState::Lost(failure) => self.doubt(&failure.message.clone()),
            JobState::Active { .. } if job.given_up => {
                self.doubt("Its Job was stopped and still exists: its node does not respond.");
            }
            JobState::Active { held } => {
                let late = self.waited() > self.limit.saturating_add(START_PATIENCE);
                let held = held.clone();
                if self.stop || late {
                    self.plan.stop(Some(job));
                } else if let (true, false, Some(uid)) = (job.suspended, job.deleting, job.uid.clone()) {
                    self.plan.starts.push(Start { name: job.name.clone(), uid });
                }
                match held {
                    Some(failure) => self.wait(&failure),
                    None => self.plan.look_again(LOOK),
                }
            }
        }
    }

    fn judge(&mut self, outcome: &Outcome) {
        let is_complete = || match &outcome.answer {
            Some(Answer::Did(did)) => did.tallies.get(ACTIONS).is_some_and(|t| t.is_complete()),
            _ => false,
        };
        match &outcome.failure {
            Some(failure) if failure.reason == reason::HOOK_IN_DOUBT => self.doubt(&failure.message.clone()),
            Some(failure) => self.fail(failure.clone()),
            None if outcome.run != self.run || !is_complete() => {
                let text = "The Job ended without the result of this hook.";
                self.fail(Failure::new(Class::Fatal, reason::AGENT_FAILED, text));
            }
            None => {
                let said = outcome.warnings.join(" ");
                self.now.phase = HookPhase::Succeeded;
                (self.now.since, self.now.reason) = (None, None);
                self.now.message = Some(said).filter(|s| !s.is_empty());
                self.plan.again = true;
            }
        }
    }

    /// How long the phase has lasted.
    fn waited(&self) -> SignedDuration {
        self.now.since.as_ref().map_or(SignedDuration::ZERO, |since| self.at.duration_since(since.0))
    }

    fn limit(&self) -> String {
        crate::plan::run::duration::format(self.limit.unsigned_abs())
    }

    fn wait(&mut self, failure: &Failure) {
        self.plan.warn_of(failure, self.now.reason.as_deref());
        self.now.reason = Some(failure.reason.clone());
        self.now.message = Some(failure.message.clone());
        self.plan.look_again(LOOK);
    }

    fn fail(&mut self, failure: Failure) {
        self.end(HookPhase::Failed, &failure.reason, &failure.message);
    }

    fn doubt(&mut self, why: &str) {
        let text = format!("It is not known whether the hook has run to its end, and it is not run again. {why}");
        self.end(HookPhase::InDoubt, reason::HOOK_IN_DOUBT, &text);
    }

    fn end(&mut self, phase: HookPhase, why: &str, text: &str) {
        self.now.phase = phase;
        self.now.since = None;
        self.now.reason = Some(why.to_owned());
        self.now.message = Some(text.to_owned());
        self.plan.again = true;
    }
}

#[cfg(test)]
mod tests;
