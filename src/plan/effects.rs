//! What a plan asks for: objects to make, Jobs to stop, workloads to scale, status to write, events to publish.
//!
//! Only `controller::apply` makes it so. Nothing here decides.

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

/// What to do about an object. What may be said of it afterwards, only `controller::apply` can tell.
#[derive(Debug, Default)]
pub struct Plan {
    /// Grants to take back; done before anything else, so that the finalizer stays until they are gone.
    pub revoke: Vec<GrantStatus>,
    /// Change of the object's finalizer: it is on before anything else is done, and off after all of it.
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
    /// Workloads to say of that they stay at zero, or no longer.
    pub holds: Vec<Hold>,
    /// Backup sessions to create.
    pub sessions: Vec<NewSession>,
    /// Status to write; `None` leaves it as it is.
    pub status: Option<Value>,
    /// Facts about the Repository, for its status.
    pub repository_facts: Option<Value>,
    /// The Repository did not answer a Job. It is asked to see for itself; everybody else learns of that from its status.
    pub unreachable: bool,
    /// A session failed in the store, or on the way to it: the Repository is asked to see whether it still opens.
    pub shut: bool,
    /// Whether a Repository is being listed.
    pub listing: Listing,
    /// Events to publish.
    pub events: Vec<Event>,
    /// Look again after this long, even if nothing changes.
    pub requeue: Option<Duration>,
    /// Look again at once: the status just written allows the next step.
    pub again: bool,
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Warns once of what holds a Job up; `before` is the reason that stood in status.
    pub fn warn_of(&mut self, held: &Failure, before: Option<&str>) {
        if before != Some(held.reason.as_str()) {
            self.events.push(Event::new(true, &held.reason, &held.message));
        }
    }

    /// Stops a Job, unless it is not there or on its way out.
    pub fn stop(&mut self, job: Option<&JobSeen>) {
        self.stop_jobs.extend(job.filter(|j| !j.deleting).map(Stop::of));
    }

    /// Stops Jobs that cannot start with the settings that they were made with, once those are other ones: they are
    /// made again.
    pub fn renew(&mut self, jobs: &[JobSeen], defaults: &RuntimeSettings) {
        let now = job_defaults::defaults_hash(defaults);
        for job in jobs.iter().filter(|j| j.waits_to_start() && j.defaults.as_ref().is_some_and(|d| *d != now)) {
            self.stop(Some(job));
        }
    }

    /// Removes Jobs whose agent has ended and whose pod is kept up by a container that somebody added: it would hold the
    /// volumes until the deadline. Only once this look changes nothing: what the agents said stands in status then.
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

    /// Takes note of a failure that others should know of: a store that does not answer one answers nobody.
    pub fn note(&mut self, failure: &Failure) {
        if failure.class == Class::Transient && failure.reason == reason::REPOSITORY_UNREACHABLE {
            self.unreachable = true;
        }
    }

    /// Takes note of why a session ended.
    pub fn note_end(&mut self, why: &str) {
        self.shut |= store_reasons::is_of_store(why);
    }

    /// Looks again after `wait`, or sooner.
    pub fn look_again(&mut self, wait: Duration) {
        self.requeue = Some(self.requeue.map_or(wait, |r| r.min(wait)));
    }
}

/// A Job to stop: the one of this uid, not another that has its name by now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stop {
    /// Its name.
    pub name: String,
    /// Its uid; of none that the API server knows, where it has none.
    pub uid: Option<String>,
}

impl Stop {
    /// Of a Job that was seen.
    pub fn of(job: &JobSeen) -> Self {
        Self { name: job.name.clone(), uid: job.uid.clone() }
    }
}

/// Keeps what a Job says that is to be known of a host; the events that tell of what is new.
pub fn warn(kept: &mut Vec<String>, host: &str, said: &[String]) -> Vec<Event> {
    let new: Vec<String> = said.iter().filter(|w| !kept.contains(w)).cloned().collect();
    kept.extend(new.iter().cloned());
    kept.truncate(WARNINGS);
    new.iter().map(|w| Event::new(true, reason::HOST_WARNING, &format!("Host {host}: {w}"))).collect()
}

/// Whether a Repository is being listed. Only some are at once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Listing {
    /// It is not, and need not be.
    #[default]
    None,
    /// It is to be, and waits for its turn.
    Wants,
    /// It is.
    Works,
}

/// Change of a finalizer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FinalizerChange {
    /// Put it on.
    Add,
    /// Take it off.
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

/// What a workload is to say of why it stays at zero.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hold {
    /// As of [`Scale`].
    pub kind: String,
    /// Name, in the session's namespace.
    pub name: String,
    /// The annotation; none to take it off.
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
    /// The workload; none for the session.
    pub about: Option<About>,
    /// Something is wrong.
    pub warning: bool,
    /// PascalCase.
    pub reason: String,
    /// What happened, to what, and what to do.
    pub message: String,
}

impl Event {
    /// An event whose message fits one.
    pub fn new(warning: bool, reason: &str, message: &str) -> Self {
        Self { about: None, warning, reason: reason.to_owned(), message: text::message(message) }
    }
}

/// A right, as objects to create in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// How it stands in status.
    pub status: GrantStatus,
    /// Who works with it; `None` where the user names every account.
    pub account: Option<ServiceAccount>,
    /// What it allows.
    pub role: Role,
    /// That it allows it to them.
    pub binding: RoleBinding,
}
