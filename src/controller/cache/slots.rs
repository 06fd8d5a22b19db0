//! The ledger of places on Repositories and of claims: who has taken what, kept by the watches of sessions and of Jobs,
//! and by those who are about to make Jobs.
//!
//! A Job is a session's if its controller is that session, of its own namespace; labels and annotations can be
//! anybody's. It takes a place on the Repository that this session names. What is reserved counts from before the Job is
//! there until it is over, or is known not to be there. Nothing here is needed to go on: after a start it is made anew
//! from the watches, before anybody looks.

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
    /// By Repository, or by what else Jobs take slots of.
    queues: HashMap<String, Queue>,
    /// Sessions that are not over, by uid.
    sessions: HashMap<String, Session>,
    /// Jobs that are not over, by namespace and name. Those whose session is not known are held aside: they count
    /// once it is.
    jobs: HashMap<String, Taken>,
    /// Names of Jobs, by uid of their session.
    of: HashMap<String, BTreeSet<String>>,
    /// Names of Jobs, by namespace and name of a claim.
    users: HashMap<String, BTreeSet<String>>,
    /// When the Jobs of a kind of sessions were last listed anew.
    listed: HashMap<String, Instant>,
    /// Names of Jobs that were asked for without an answer, and since when.
    unanswered: VecDeque<(Instant, String)>,
}

struct Session {
    kind: Cow<'static, str>,
    namespace: String,
    /// Keys of its queues; that of its Repository comes first.
    keys: Vec<String>,
}

/// What a Job has taken.
struct Taken {
    kind: Cow<'static, str>,
    namespace: String,
    /// Uid of its session.
    session: String,
    /// Its session, as messages name it.
    label: String,
    /// What it takes a slot of, as it says itself. It counts only if its session has that key.
    slot: Option<String>,
    /// Namespace and name of the claims that it mounts to work on.
    claims: Vec<String>,
    /// It only reads them.
    reads: bool,
    /// Namespace and name of the Repository that it creates, if there is none at its place.
    prepares: Option<String>,
    known: Known,
    /// It works: it is not suspended.
    works: bool,
    /// It cannot start.
    stuck: bool,
    /// Its session knows that it is done, though its controller does not call it so: of a pod with another container in it.
    done: bool,
}

/// How it is known that there is a Job.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    /// Somebody is about to ask for it.
    Reserved,
    /// The API server is being asked for it.
    Asked,
    /// It was asked, and there came no answer. It may be made still.
    Unanswered,
    /// It was made then.
    Made(Instant),
    /// A watch has told of it; `true` when it is being deleted.
    Watched(bool),
}

/// What came of an attempt to reserve.
#[derive(Debug, PartialEq)]
pub enum Reserved {
    /// All of it is reserved.
    All,
    /// Nothing: there is no room for so many Jobs.
    NoRoom,
    /// Nothing: a Job of another session creates the repository.
    BeingCreated,
    /// Nothing: Jobs of others use these claims.
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
                // Where one leads may be known by now.
                there.iter().for_each(|session| self.enter(consumers, session.as_ref()));
            }
        }
    }

    /// Follows the watch of a kind of invokers: they say where backups lead that were heard of before them.
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
        // A backup whose invoker is gone stays where it was.
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
            // Who waits for another session must not keep it from its Jobs.
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
            // What was asked for before is in the list that comes, or is gone.
            Event::Init => self.with(|all| {
                all.listed.insert(kind.into_owned(), Instant::now());
            }),
            Event::InitDone => {
                let there: HashSet<String> = store.state().iter().map(|j| job_name(j.as_ref())).collect();
                self.with(|all| all.give_back_all_but(&kind, &there));
            }
        }
    }

    /// Takes places and claims for Jobs that a session is about to make, all of them or none.
    ///
    /// Of a Repository that `is_new` one Job at a time finds out whether there is anything, and creates it: two that do so
    /// at once leave keys of which one opens nothing (restic 0.18). One that cannot start keeps nobody.
    ///
    /// What comes to nothing is given back with [`Slots::refused`] or [`Slots::give_back`].
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

    /// The API server is asked for a Job now.
    pub fn asked(&self, namespace: &str, job: &str) {
        self.know(namespace, job, Known::Asked);
    }

    /// The API server has made it.
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

    /// The API server has refused to make it.
    pub fn refused(&self, namespace: &str, job: &str) {
        let name = format!("{namespace}/{job}");
        self.with(|all| {
            if all.jobs.get(&name).is_some_and(|taken| !taken.is_watched()) {
                all.give_back(&name);
            }
        });
    }

    /// The look ended before all of its Jobs were made. One that was asked for without an answer may come all the same.
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

    /// Takes note of what a look has found of the Jobs of a session: those that cannot start hold no place, and those
    /// that are done no claim.
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

    /// The same of what else its Jobs take slots of.
    pub fn rooms<K: Consumer>(&self, session: &K, most: usize) -> BTreeMap<String, Room> {
        let created = session.creation_timestamp().map(|t| t.0).unwrap_or_default();
        let uid = session.uid().unwrap_or_default();
        let room = |all: &Ledger, key: &String| (key.clone(), all.room(key, &uid, created, most));
        self.with(|all| session.slots().iter().map(|key| room(all, key)).collect())
    }

    /// Reads the queue of a Repository; `None` when nobody stands there.
    pub fn look<T>(&self, repository: &Home, read: impl FnOnce(&Queue) -> T) -> Option<T> {
        self.with(|all| all.queues.get(&full_name(repository)).map(read))
    }
}

fn job_name(job: &impl kube::ResourceExt) -> String {
    format!("{}/{}", job.namespace().unwrap_or_default(), job.name_any())
}

impl Taken {
    /// Of a Job that a watch tells of; `None` where it is no child of a session of this kind.
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
