//! The effects of a plan: objects to create, Jobs to stop, workloads to scale, status to write, events to publish.
//!
//! Only `controller::apply` carries them out. This module makes no decisions.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde_json::Value;

use crate::api::restore_session::GrantStatus;
use crate::api::runtime::RuntimeSettings;
use crate::contract::{Class, Failure};
use crate::names::reason;
use crate::plan::backup::sessions::NewSession;
use crate::plan::repository::store_reasons;
use crate::plan::seen::job_status::JobSeen;
use crate::plan::seen::job_status::reasons::WARNINGS;
use crate::plan::work::job_defaults;
use crate::text;

/// What to do about an object. Only `controller::apply` can tell which results may be reported afterwards.
#[derive(Debug, Default)]
pub struct Plan {
    /// Grants to revoke. They are revoked before anything else, so that the finalizer stays until they are gone.
    pub revoke: Vec<GrantStatus>,
    /// Change of the object's finalizer. It is added before anything else is done, and removed after everything else.
    pub finalizer: Option<FinalizerChange>,
    /// Claims to create, before the Jobs that mount them.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Grants that the Jobs need.
    pub grants: Vec<Grant>,
    /// Jobs to create.
    pub jobs: Vec<Job>,
    /// Jobs to stop and remove, with their pods.
    pub stop_jobs: Vec<Stop>,
    /// Workloads to scale.
    pub scales: Vec<Scale>,
    /// Workloads whose annotation about staying at zero is set or removed.
    pub holds: Vec<Hold>,
    /// Backup sessions to create.
    pub sessions: Vec<NewSession>,
    /// Status to write; `None` leaves it as it is.
    pub status: Option<Value>,
    /// Facts about the Repository, for its status.
    pub repository_facts: Option<Value>,
    /// The Repository did not answer a Job. The Repository is asked to check for itself; all other objects learn the
    /// result from its status.
    pub unreachable: bool,
    /// A session failed in the store, or on the way to it. The Repository is asked to check whether it still opens.
    pub shut: bool,
    /// Whether a Repository is being listed.
    pub listing: Listing,
    /// Events to publish.
    pub events: Vec<Event>,
    /// Requeue after this time, even if nothing changes.
    pub requeue: Option<Duration>,
    /// Requeue at once: the status just written allows the next step.
    pub again: bool,
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Publishes one warning about what holds up a Job. `before` is the reason that was in status.
    pub fn warn_of(&mut self, held: &Failure, before: Option<&str>) {
        if before != Some(held.reason.as_str()) {
            self.events.push(Event::new(true, &held.reason, &held.message));
        }
    }

    /// Stops a Job, unless it does not exist or is already being deleted.
    pub fn stop(&mut self, job: Option<&JobSeen>) {
        self.stop_jobs.extend(job.filter(|j| !j.deleting).map(Stop::of));
    }

    /// Stops Jobs that cannot start with the settings they were created with, if the settings have changed since. These
    /// Jobs are then created again.
    pub fn renew(&mut self, jobs: &[JobSeen], defaults: &RuntimeSettings) {
        let now = job_defaults::defaults_hash(defaults);
        for job in jobs.iter().filter(|j| j.waits_to_start() && j.defaults.as_ref().is_some_and(|d| *d != now)) {
            self.stop(Some(job));
        }
    }

    /// Removes Jobs whose agent has ended but whose pod is kept running by a container that was added to it: the pod
    /// would hold the volumes until the deadline. This happens only if the reconcile changes no status: status then
    /// contains what the agents reported.
    pub fn release(&mut self, jobs: &[JobSeen]) {
        let lingering: Vec<&JobSeen> = jobs.iter().filter(|j| j.lingers && !j.deleting).collect();
        if self.status.is_some() {
            self.again |= !lingering.is_empty();
            return;
        }
        for job in lingering.into_iter().map(Stop::of) {
            if !self.stop_jobs.contains(&job) {
                self.stop_jobs.push(job);
            }
        }
    }

    /// Records a failure that concerns other objects too: a store that does not answer one object answers no object.
    pub fn note(&mut self, failure: &Failure) {
        if failure.class == Class::Transient && failure.reason == reason::REPOSITORY_UNREACHABLE {
            self.unreachable = true;
        }
    }

    /// Records why a session ended.
    pub fn note_end(&mut self, why: &str) {
        self.shut |= store_reasons::is_of_store(why);
    }

    /// Requeues after `wait`, or sooner.
    pub fn look_again(&mut self, wait: Duration) {
        self.requeue = Some(self.requeue.map_or(wait, |r| r.min(wait)));
    }
}

/// A Job to stop. Only the Job with this uid is stopped, not another Job that has its name by now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stop {
    /// Its name.
    pub name: String,
    /// Its uid; `None` stands for no Job that the API server knows.
    pub uid: Option<String>,
}

impl Stop {
    /// The stop of a Job that was found.
    pub fn of(job: &JobSeen) -> Self {
        Self { name: job.name.clone(), uid: job.uid.clone() }
    }
}

/// Adds the new warnings of a Job about a host to `kept`. Returns an event for each new warning.
pub fn warn(kept: &mut Vec<String>, host: &str, said: &[String]) -> Vec<Event> {
    let new: Vec<String> = said.iter().filter(|w| !kept.contains(w)).cloned().collect();
    kept.extend(new.iter().cloned());
    kept.truncate(WARNINGS);
    new.iter().map(|w| Event::new(true, reason::HOST_WARNING, &format!("Host {host}: {w}"))).collect()
}

/// Whether a Repository is being listed. Only some Repositories are listed at the same time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Listing {
    /// No listing runs, and none is needed.
    #[default]
    None,
    /// A listing is needed and waits for its turn.
    Wants,
    /// A listing runs.
    Works,
}

/// Change of a finalizer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FinalizerChange {
    /// Add the finalizer.
    Add,
    /// Remove the finalizer.
    Remove,
}

/// A workload to scale.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scale {
    /// `Deployment`, `StatefulSet`, `ReplicaSet` or `ReplicationController`.
    pub kind: String,
    /// Name, in the session's namespace.
    pub name: String,
    /// Replicas to set.
    pub replicas: i32,
}

impl Scale {
    /// What is scaled, as kubectl names it: `deployment/web`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }
}

/// The annotation of a workload that says why it stays at zero.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hold {
    /// As in [`Scale`].
    pub kind: String,
    /// Name, in the session's namespace.
    pub name: String,
    /// The annotation; `None` removes it.
    pub note: Option<String>,
}

impl Hold {
    /// As [`Scale::key`].
    pub fn key(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }
}

/// A workload that an event is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct About {
    /// apiVersion.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name, in the session's namespace.
    pub name: String,
    /// Uid; `kubectl describe` looks for it.
    pub uid: String,
}

/// An event to publish about the session, or about a workload that it restores.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// The workload; `None` for the session.
    pub about: Option<About>,
    /// Whether it is a warning.
    pub warning: bool,
    /// PascalCase.
    pub reason: String,
    /// What happened, to what, and what to do.
    pub message: String,
}

impl Event {
    /// Creates an event. The message is cut to the length that an event allows.
    pub fn new(warning: bool, reason: &str, message: &str) -> Self {
        Self { about: None, warning, reason: reason.to_owned(), message: text::message(message) }
    }
}

/// A right, as objects to create in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// The grant as it is recorded in status.
    pub status: GrantStatus,
    /// ServiceAccount that uses the grant; `None` if the user names every account.
    pub account: Option<ServiceAccount>,
    /// What it allows.
    pub role: Role,
    /// Binds the Role to the accounts.
    pub binding: RoleBinding,
}
