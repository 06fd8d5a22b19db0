//! When the Snapshots of a Repository are brought up to date: at first, after a backup, when
//! somebody asks, and now and then for what others did to the repository.
//!
//! That it is begun stands in status before the Job and its right are made, and what the Job
//! came to before they go.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;

use super::Pass;
use crate::api::repository::{SyncBegun, SyncStatus};
use crate::names::{condition, reason};
use crate::plan::access::Access;
use crate::plan::contract::{Answer, Class, Failure, List, Step};
use crate::plan::step::{self, StepState};
use crate::plan::{Event, conditions, grants, retry, snapshots};

/// Key of the step.
const LIST: &str = "list";
/// Longest time of an attempt: thousands of snapshots are written in a minute or two.
const LIMIT: Duration = Duration::from_mins(15);

impl Pass<'_> {
    /// Begins, goes on with, or ends bringing the Snapshots up to date.
    pub(super) fn sync(&mut self, access: &Access) {
        let mut sync = self.now.sync.clone().unwrap_or_default();
        match sync.begun.clone() {
            Some(begun) => self.go_on(access, &mut sync, &begun),
            None => self.begin_when_due(&mut sync),
        }
        self.now.sync = Some(sync);
    }

    fn begin_when_due(&mut self, sync: &mut SyncStatus) {
        // What the last one came to stands in status.
        for job in self.seen.jobs.iter().filter(|j| j.key == LIST) {
            self.plan.stop(Some(job));
        }
        let wanted =
            SyncBegun { request: self.run.sync_request.clone(), backup_time: self.run.state.last_backup_time.clone() };
        let asked = wanted.request.is_some() && wanted.request != sync.request;
        let behind = wanted.backup_time != sync.backup_time;
        let Some(tried) = sync.tried_time.as_ref().filter(|_| !asked && !behind) else {
            return self.begin(sync, wanted);
        };
        if !self.setup.sync_every.is_zero() {
            let every = SignedDuration::try_from(self.setup.sync_every).unwrap_or(SignedDuration::MAX);
            match tried.0.checked_add(every).ok().map(|due| retry::left(due, self.at)) {
                Some(None) => return self.begin(sync, wanted),
                Some(Some(wait)) => self.plan.look_again(wait),
                None => {}
            }
        }
        self.plan.revoke.append(&mut sync.grants);
    }

    fn begin(&mut self, sync: &mut SyncStatus, wanted: SyncBegun) {
        let entry = step::entry(&mut self.now.steps, LIST);
        if entry.done {
            step::begin_again(entry);
        }
        sync.begun = Some(wanted);
        let grant = grants::to_list(&self.run.id).status;
        if !sync.grants.contains(&grant) {
            sync.grants.push(grant);
        }
        self.plan.again = true;
    }

    fn go_on(&mut self, access: &Access, sync: &mut SyncStatus, begun: &SyncBegun) {
        let labels = snapshots::own_labels(&self.run.labels);
        let planned = self.plan.jobs.len();
        let failure = match self.lone_step(LIST, access, LIMIT, Step::List(List { labels })) {
            StepState::Running => {
                if self.plan.jobs.len() > planned {
                    self.plan.grants.push(grants::to_list(&self.run.id));
                }
                return;
            }
            StepState::Done(outcome) => match outcome.answer {
                Some(Answer::Listed { snapshots, .. }) => {
                    self.now.snapshot_count = i64::try_from(snapshots).ok();
                    None
                }
                _ => Some(Failure::new(Class::Fatal, reason::AGENT_FAILED, "The Job ended without a list.")),
            },
            StepState::Failed(failure) => Some(failure),
        };
        let now = conditions::whole_second(self.at);
        sync.tried_time = Some(now.clone());
        sync.request.clone_from(&begun.request);
        sync.backup_time.clone_from(&begun.backup_time);
        sync.begun = None;
        step::entry(&mut self.now.steps, LIST).done = true;
        let (value, why, text) = match failure {
            None => {
                sync.last_time = Some(now);
                let text = format!("{} in the repository.", count(self.now.snapshot_count));
                (true, reason::SNAPSHOTS_LISTED.to_owned(), text)
            }
            Some(failure) => {
                let text = format!("Its Snapshots may be out of date: {}", failure.message);
                self.plan.events.push(Event::new(true, &failure.reason, &text));
                (false, failure.reason, text)
            }
        };
        conditions::set(&mut self.now.conditions, condition::SNAPSHOTS_SYNCED, value, &why, text, self.at);
        // The Job and its right go in the next pass, after this status is written.
        self.plan.again = true;
    }
}

fn count(snapshots: Option<i64>) -> String {
    match snapshots.unwrap_or_default() {
        1 => "1 snapshot".to_owned(),
        n => format!("{n} snapshots"),
    }
}
