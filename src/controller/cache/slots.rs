//! The ledger of slots on Repositories and of claims: which Jobs have taken them. The watches of sessions and of Jobs
//! update the ledger, and so does code that is about to create Jobs.
//!
//! A Job belongs to a session if its controller is that session, in the Job's own namespace; any user can set labels
//! and annotations. The Job takes a slot on the Repository that the session names. A reservation counts from before the
//! Job exists until the Job is over, or is known not to exist. The ledger is not needed to continue: after a start it
//! is rebuilt from the watches, before the first reconcile.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use k8s_openapi::api::batch::v1::Job;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};

use crate::controller::cache::consumers;
use crate::controller::cache::consumers::{Consumer, Consumers, Home, full_name};
use crate::names::{annotation, condition, label, reason};
use crate::plan::repository::slots::queue::{Claim, Queue, Room};
use crate::plan::seen::compact::Kept;
use crate::plan::seen::job_status::JobSeen;
use crate::plan::seen::surroundings::Writer;
use crate::plan::seen::{job_status, ownership};
use crate::plan::systems::restic;

/// The ledger, shared.
#[derive(Clone, Default)]
pub struct Slots(Arc<Mutex<Ledger>>);

#[derive(Default)]
struct Ledger {
    /// Queues by Repository, or by another key that Jobs take slots of.
    queues: HashMap<String, Queue>,
    /// Sessions that are not over, by uid.
    sessions: HashMap<String, Session>,
    /// Jobs that are not over, by namespace and name. Jobs of an unknown session are held aside: they count once the
    /// session is known.
    jobs: HashMap<String, Taken>,
    /// Names of Jobs, by uid of their session.
    of: HashMap<String, BTreeSet<String>>,
    /// Names of Jobs, by namespace and name of a claim.
    users: HashMap<String, BTreeSet<String>>,
    /// When the Jobs of a kind of session were last relisted.
    listed: HashMap<String, Instant>,
    /// Names of Jobs whose create request got no answer, and since when.
    unanswered: VecDeque<(Instant, String)>,
}

struct Session {
    kind: Cow<'static, str>,
    namespace: String,
    /// Keys of its queues; the key of its Repository comes first.
    keys: Vec<String>,
}

/// Slots and claims that a Job has taken.
struct Taken {
    kind: Cow<'static, str>,
    namespace: String,
    /// Uid of its session.
    session: String,
    /// Its session, as messages name it.
    label: String,
    /// Key that the Job itself says it takes a slot of. The key counts only if the session has it.
    slot: Option<String>,
    /// Namespace and name of the claims that it mounts to work on.
    claims: Vec<String>,
    /// The Job only reads its claims.
    reads: bool,
    /// Namespace and name of the Repository whose repository the Job creates if it does not exist.
    prepares: Option<String>,
    known: Known,
    /// The Job works: it is not suspended.
    works: bool,
    /// The Job cannot start.
    stuck: bool,
    /// The session knows that the Job is done, although the Job controller does not report it: the pod has another
    /// container in it.
    done: bool,
}

/// How the ledger knows of a Job.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    /// The operator is about to request the Job.
    Reserved,
    /// The create request is in progress.
    Asked,
    /// The create request got no answer. The API server may still create the Job.
    Unanswered,
    /// The Job was created at this time.
    Made(Instant),
    /// A watch has reported the Job; `true` when it is being deleted.
    Watched(bool),
}

/// Result of an attempt to reserve.
#[derive(Debug, PartialEq)]
pub enum Reserved {
    /// Everything is reserved.
    All,
    /// Nothing is reserved: there is no room for so many Jobs.
    NoRoom,
    /// Nothing is reserved: a Job of another session creates the repository.
    BeingCreated,
    /// Nothing is reserved: other Jobs use these claims.
    InUse(Vec<Writer>),
}

impl Slots {
    fn with<T>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows the watch of a kind of sessions.
    pub fn on_session<K: Consumer>(&self, consumers: &Consumers, event: &Event<K>, store: &Store<K>) {
        match event {
            Event::Apply(session) | Event::InitApply(session) => self.enter(consumers, session),
            Event::Delete(session) => self.with(|all| all.leave(&session.uid().unwrap_or_default())),
            Event::Init => {}
            Event::InitDone => {
                let there = store.state();
                let uids: HashSet<String> = there.iter().filter_map(|s| s.uid()).collect();
                self.with(|all| all.leave_all_but(&K::kind(&()), &uids));
                // The Repository of a session may be known by now.
                there.iter().for_each(|session| self.enter(consumers, session.as_ref()));
            }
        }
    }

    /// Follows the watch of a kind of invokers: they name the Repository of backups that were reported before them.
    pub fn on_invoker<K: Resource<DynamicType = ()>>(&self, consumers: &Consumers, event: &Event<K>) {
        let of = |key: &str| consumers.backups.with(key).iter().for_each(|b| self.enter(consumers, b.as_ref()));
        match event {
            Event::Apply(invoker) | Event::Delete(invoker) => of(&consumers::backups_of(invoker)),
            Event::InitDone => of(consumers::OPEN),
            Event::Init | Event::InitApply(_) => {}
        }
    }

    fn enter<K: Consumer>(&self, consumers: &Consumers, session: &K) {
        let uid = session.uid().unwrap_or_default();
        if session.is_over() {
            return self.with(|all| all.leave(&uid));
        }
        // A backup whose invoker is gone stays in its queues.
        let home = session.home(consumers);
        if home.is_none() && session.slots().is_empty() {
            return;
        }
        let leaves = session.meta().deletion_timestamp.is_some();
        let waits = [reason::PENDING, reason::TARGET_BUSY].iter().any(|why| session.says(condition::RECONCILING, why));
        let claim = Claim {
            kind: K::kind(&()).into_owned(),
            namespace: session.namespace().unwrap_or_default(),
            name: session.name_any(),
            created: session.creation_timestamp().map(|t| t.0).unwrap_or_default(),
            uid,
            // A session that waits for another session must not keep that session from its Jobs.
            wants: !waits && !leaves,
            leaves,
        };
        self.with(|all| all.enter(K::kind(&()), home.as_ref(), session.slots(), claim));
    }

    /// Follows the watch of the Jobs of a kind of sessions.
    pub fn on_job<K: Resource<DynamicType = ()>>(&self, event: &Event<Kept<Job>>, store: &Store<Kept<Job>>) {
        let kind = K::kind(&());
        match event {
            Event::Apply(job) | Event::InitApply(job) => {
                let job = job.open();
                self.with(|all| match Taken::watched::<K>(&job) {
                    Some(taken) if !job_status::is_over(&job) => all.take(job_name(&job), taken),
                    _ => all.give_back(&job_name(&job)),
                });
            }
            Event::Delete(job) => self.with(|all| all.give_back(&job_name(job))),
            // A Job that was created before this is in the coming list, or is gone.
            Event::Init => self.with(|all| {
                all.listed.insert(kind.into_owned(), Instant::now());
            }),
            Event::InitDone => {
                let there: HashSet<String> = store.state().iter().map(|j| job_name(j.as_ref())).collect();
                self.with(|all| all.give_back_all_but(&kind, &there));
            }
        }
    }

    /// Reserves slots and claims for Jobs that a session is about to create, all of them or none.
    ///
    /// For a Repository that `is_new`, one Job at a time checks whether a repository exists, and creates it: two Jobs
    /// that do so at once leave keys of which one opens nothing (restic 0.18). A Job that cannot start does not block
    /// others.
    ///
    /// An unused reservation is given back with [`Slots::refused`] or [`Slots::give_back`].
    pub fn reserve<K: Consumer>(&self, session: &K, jobs: &[Job], most: usize, is_new: bool) -> Reserved {
        let uid = session.uid().unwrap_or_default();
        self.with(|all| {
            all.forget_unanswered(Instant::now());
            let new: Vec<(String, Taken)> =
                jobs.iter().map(|job| (job_name(job), Taken::reserved(session, job))).collect();
            let busy: Vec<Writer> = new.iter().flat_map(|(name, taken)| all.conflicts(name, taken)).collect();
            if !busy.is_empty() {
                return Reserved::InUse(busy);
            }
            if is_new && new.iter().any(|(_, taken)| all.is_being_created(taken)) {
                return Reserved::BeingCreated;
            }
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for (_, taken) in new.iter().filter(|(name, _)| !all.jobs.contains_key(name)) {
                *counts.entry(all.key_of(taken)).or_default() += 1;
            }
            let created = session.creation_timestamp().map(|t| t.0).unwrap_or_default();
            if counts.iter().any(|(key, count)| *count > all.room(key, &uid, created, most).free) {
                return Reserved::NoRoom;
            }
            for (name, taken) in new {
                if !all.jobs.contains_key(&name) {
                    all.take(name, taken);
                }
            }
            Reserved::All
        })
    }

    /// Records that the API server is now asked to create a Job.
    pub fn asked(&self, namespace: &str, job: &str) {
        self.know(namespace, job, Known::Asked);
    }

    /// Records that the API server has created the Job.
    pub fn made(&self, namespace: &str, job: &str) {
        self.know(namespace, job, Known::Made(Instant::now()));
    }

    fn know(&self, namespace: &str, job: &str, known: Known) {
        self.with(|all| {
            if let Some(taken) = all.jobs.get_mut(&format!("{namespace}/{job}")).filter(|t| !t.is_watched()) {
                taken.known = known;
            }
        });
    }

    /// Records that the API server has refused to create the Job.
    pub fn refused(&self, namespace: &str, job: &str) {
        let name = format!("{namespace}/{job}");
        self.with(|all| {
            if all.jobs.get(&name).is_some_and(|taken| !taken.is_watched()) {
                all.give_back(&name);
            }
        });
    }

    /// Gives a reservation back when the reconcile ended before all of its Jobs were created. A Job whose create
    /// request got no answer may still appear.
    pub fn give_back(&self, namespace: &str, job: &str) {
        let name = format!("{namespace}/{job}");
        self.with(|all| match all.jobs.get_mut(&name) {
            Some(taken) if taken.known == Known::Reserved => all.give_back(&name),
            Some(taken) if taken.known == Known::Asked => {
                taken.known = Known::Unanswered;
                all.unanswered.push_back((Instant::now(), name));
            }
            _ => {}
        });
    }

    /// Records the state in which a reconcile has found the Jobs of a session: Jobs that cannot start hold no slot, and
    /// Jobs that are done hold no claim.
    pub fn note(&self, namespace: &str, seen: &[JobSeen]) {
        self.with(|all| {
            for job in seen {
                all.note(&format!("{namespace}/{}", job.name), job.is_stuck, !job.is_active());
            }
        });
    }

    /// Room for Jobs of a session on its Repository.
    pub fn room<K: Consumer>(&self, session: &K, most: usize) -> Room {
        let created = session.creation_timestamp().map(|t| t.0).unwrap_or_default();
        let uid = session.uid().unwrap_or_default();
        self.with(|all| all.room(all.first_key(&uid), &uid, created, most))
    }

    /// Room for Jobs of a session on each other key that they take slots of.
    pub fn rooms<K: Consumer>(&self, session: &K, most: usize) -> BTreeMap<String, Room> {
        let created = session.creation_timestamp().map(|t| t.0).unwrap_or_default();
        let uid = session.uid().unwrap_or_default();
        let room = |all: &Ledger, key: &String| (key.clone(), all.room(key, &uid, created, most));
        self.with(|all| session.slots().iter().map(|key| room(all, key)).collect())
    }

    /// Reads the queue of a Repository; `None` when no session is in it.
    pub fn look<T>(&self, repository: &Home, read: impl FnOnce(&Queue) -> T) -> Option<T> {
        self.with(|all| all.queues.get(&full_name(repository)).map(read))
    }
}

fn job_name(job: &impl kube::ResourceExt) -> String {
    format!("{}/{}", job.namespace().unwrap_or_default(), job.name_any())
}

impl Taken {
    /// The entry for a Job that a watch reports; `None` when the Job is not a child of a session of this kind.
    fn watched<K: Resource<DynamicType = ()>>(job: &Job) -> Option<Self> {
        let kind = K::kind(&());
        let owner = ownership::of_job(job).filter(|child| child.kind == kind)?;
        let deleting = job.metadata.deletion_timestamp.is_some();
        let suspended = job.spec.as_ref().is_some_and(|s| s.suspend == Some(true));
        let taken = Self::of(kind, &owner.uid, &owner.name, job);
        Some(Self { known: Known::Watched(deleting), works: !suspended, ..taken })
    }

    fn reserved<K: Consumer>(session: &K, job: &Job) -> Self {
        Self::of(K::kind(&()), &session.uid().unwrap_or_default(), &session.name_any(), job)
    }

    fn of(kind: Cow<'static, str>, session: &str, name: &str, job: &Job) -> Self {
        let namespace = job.namespace().unwrap_or_default();
        let (claims, reads) = job_status::uses(job);
        let prepares = job.labels().get(label::STEP).is_some_and(|step| step == restic::backup::PREPARE);
        Self {
            prepares: job.annotations().get(annotation::REPOSITORY).filter(|_| prepares).cloned(),
            slot: job.annotations().get(annotation::REPOSITORY).cloned(),
            label: format!("{kind} {namespace}/{name}"),
            kind,
            session: session.to_owned(),
            claims: claims.iter().map(|claim| format!("{namespace}/{claim}")).collect(),
            namespace,
            reads,
            known: Known::Reserved,
            works: true,
            stuck: false,
            done: false,
        }
    }

    fn is_watched(&self) -> bool {
        matches!(self.known, Known::Watched(_))
    }
}

mod ledger;
#[cfg(test)]
mod tests;
