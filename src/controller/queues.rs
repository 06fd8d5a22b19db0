//! The queues for Jobs on Repositories, kept by the watches of sessions and of Jobs.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::Event;

use super::users::{Home, User, Users};
use crate::names::{annotation, label, reason};
use crate::plan::gate::{Claim, Queue, Room};

/// All of them, by Repository.
#[derive(Clone, Default)]
pub struct Queues(Arc<Mutex<All>>);

#[derive(Default)]
struct All {
    queues: HashMap<String, Queue>,
    /// Where each session stands, by uid.
    sessions: HashMap<String, Place>,
    /// Where each Job works, and for whom, by uid.
    jobs: HashMap<String, Place>,
}

struct Place {
    repository: String,
    kind: Cow<'static, str>,
    session: String,
}

fn name(repository: &Home) -> String {
    format!("{}/{}", repository.namespace.as_deref().unwrap_or_default(), repository.name)
}

impl Queues {
    fn with<T>(&self, act: impl FnOnce(&mut All) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows the watch of a kind of sessions.
    pub fn hear_session<K: User>(&self, users: &Users, event: &Event<K>, store: &Store<K>) {
        match event {
            Event::Apply(session) | Event::InitApply(session) => self.enter(users, session),
            Event::Delete(session) => self.leave(&session.uid().unwrap_or_default()),
            Event::Init => {}
            Event::InitDone => {
                // What went while nobody listened is in no event.
                let there: HashSet<String> = store.state().iter().filter_map(|s| s.uid()).collect();
                let gone = self.with(|all| all.sessions.gone(&K::kind(&()), &there));
                gone.iter().for_each(|uid| self.leave(uid));
            }
        }
    }

    fn enter<K: User>(&self, users: &Users, session: &K) {
        let uid = session.uid().unwrap_or_default();
        let open = !session.is_over() && session.meta().deletion_timestamp.is_none();
        let home = session.home(users).filter(|_| open).map(|h| name(&h));
        if self.with(|all| all.sessions.get(&uid).is_some_and(|p| Some(&p.repository) != home.as_ref())) {
            self.leave(&uid);
        }
        let Some(home) = home else { return };
        let claim = Claim {
            kind: K::kind(&()).into_owned(),
            namespace: session.namespace().unwrap_or_default(),
            name: session.name_any(),
            created: session.creation_timestamp().map(|t| t.0).unwrap_or_default(),
            uid: uid.clone(),
            wants: !session.waits_for(reason::PENDING),
        };
        self.with(|all| {
            all.change(&home, |q| q.enter(claim));
            let place = Place { repository: home, kind: K::kind(&()), session: uid.clone() };
            all.sessions.insert(uid, place);
        });
    }

    fn leave(&self, uid: &str) {
        self.with(|all| {
            if let Some(place) = all.sessions.remove(uid) {
                all.change(&place.repository, |q| q.leave(uid));
            }
        });
    }

    /// Follows the watch of the Jobs of a kind of sessions.
    pub fn hear_job(&self, kind: Cow<'static, str>, event: &Event<Job>, store: &Store<Job>) {
        match event {
            Event::Apply(job) | Event::InitApply(job) if is_over(job) => self.end(&job.uid().unwrap_or_default()),
            Event::Apply(job) | Event::InitApply(job) => self.begin(kind, job),
            Event::Delete(job) => self.end(&job.uid().unwrap_or_default()),
            Event::Init => {}
            Event::InitDone => {
                let there: HashSet<String> = store.state().iter().filter_map(|j| j.uid()).collect();
                let gone = self.with(|all| all.jobs.gone(&kind, &there));
                gone.iter().for_each(|uid| self.end(uid));
            }
        }
    }

    fn begin(&self, kind: Cow<'static, str>, job: &Job) {
        let Some(repository) = job.annotations().get(annotation::REPOSITORY).cloned() else { return };
        let session = job.labels().get(label::SESSION_UID).cloned().unwrap_or_default();
        self.with(|all| {
            let uid = job.uid().unwrap_or_default();
            if !all.jobs.contains_key(&uid) {
                all.change(&repository, |q| q.begin(&session));
                all.jobs.insert(uid, Place { repository, kind, session });
            }
        });
    }

    fn end(&self, uid: &str) {
        self.with(|all| {
            if let Some(place) = all.jobs.remove(uid) {
                all.change(&place.repository, |q| q.end(&place.session));
            }
        });
    }

    /// Room for Jobs of a session on its Repository.
    pub fn room<K: User>(&self, users: &Users, session: &K, most: usize) -> Room {
        let Some(home) = session.home(users) else { return Room { free: most, ahead: 0 } };
        let created = session.creation_timestamp().map(|t| t.0).unwrap_or_default();
        let uid = session.uid().unwrap_or_default();
        self.look(&home, |q| q.room(created, &uid, most)).unwrap_or(Room { free: most, ahead: 0 })
    }

    /// Reads the queue of a Repository; `None` when nobody stands there.
    pub fn look<T>(&self, repository: &Home, read: impl FnOnce(&Queue) -> T) -> Option<T> {
        self.with(|all| all.queues.get(&name(repository)).map(read))
    }
}

impl All {
    fn change(&mut self, repository: &str, act: impl FnOnce(&mut Queue)) {
        let queue = self.queues.entry(repository.to_owned()).or_default();
        act(queue);
        if queue.is_empty() {
            self.queues.remove(repository);
        }
    }
}

trait Places {
    fn gone(&self, kind: &str, there: &HashSet<String>) -> Vec<String>;
}

impl Places for HashMap<String, Place> {
    fn gone(&self, kind: &str, there: &HashSet<String>) -> Vec<String> {
        self.iter().filter(|(uid, p)| p.kind == kind && !there.contains(*uid)).map(|(uid, _)| uid.clone()).collect()
    }
}

fn is_over(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.status == "True" && (c.type_ == "Failed" || c.type_ == "Complete"))
}
