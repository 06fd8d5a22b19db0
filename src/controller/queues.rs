//! The queues for Jobs on Repositories, kept by the watches of sessions and of Jobs.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::Event;

use super::users::{Home, User, Users, full_name};
use crate::names::{annotation, condition, label, reason};
use crate::plan::gate::{Claim, Queue, Room};
use crate::plan::jobs;
use crate::plan::kept::Kept;

/// All of them, by Repository.
#[derive(Clone, Default)]
pub struct Queues(Arc<Mutex<All>>);

#[derive(Default)]
struct All {
    queues: HashMap<String, Queue>,
    /// Where each session stands, by uid.
    sessions: HashMap<String, Place>,
    /// Where each Job works, and for whom, by namespace and name: it is counted before it is there.
    jobs: HashMap<String, Place>,
}

struct Place {
    repository: String,
    kind: Cow<'static, str>,
    session: String,
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
        let home = session.home(users).filter(|_| open).map(|h| full_name(&h));
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
            // Who waits for another session must not keep it from its Jobs.
            wants: ![reason::PENDING, reason::TARGET_BUSY].iter().any(|why| session.says(condition::RECONCILING, why)),
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
    pub fn hear_job(&self, kind: Cow<'static, str>, event: &Event<Kept<Job>>, store: &Store<Kept<Job>>) {
        match event {
            Event::Apply(job) | Event::InitApply(job) => {
                let job = job.open();
                if jobs::is_over(&job) { self.end(&job_name(&job)) } else { self.begin(kind, &job) }
            }
            Event::Delete(job) => self.end(&job_name(job)),
            Event::Init => {}
            Event::InitDone => {
                let there: HashSet<String> = store.state().iter().map(|j| job_name(j.as_ref())).collect();
                let gone = self.with(|all| all.jobs.gone(&kind, &there));
                gone.iter().for_each(|name| self.end(name));
            }
        }
    }

    fn begin(&self, kind: Cow<'static, str>, job: &Job) {
        let Some(repository) = job.annotations().get(annotation::REPOSITORY).cloned() else { return };
        let session = job.labels().get(label::SESSION_UID).cloned().unwrap_or_default();
        self.with(|all| all.begin(job_name(job), Place { repository, kind, session }));
    }

    /// Counts Jobs that a session is about to make; false, and none of them, where others have taken the room
    /// since it was looked for. What comes to nothing is given back with [`Queues::give_back`].
    pub fn reserve<K: User>(&self, users: &Users, session: &K, jobs: &[Job], most: usize) -> bool {
        let Some(home) = session.home(users) else { return true };
        let (repository, uid) = (full_name(&home), session.uid().unwrap_or_default());
        let created = session.creation_timestamp().map(|t| t.0).unwrap_or_default();
        self.with(|all| {
            let new: Vec<String> = jobs.iter().map(job_name).filter(|n| !all.jobs.contains_key(n)).collect();
            let room = all.queues.get(&repository).map_or(most, |q| q.room(created, &uid, most).free);
            if new.len() > room {
                return false;
            }
            for name in new {
                let place = Place { repository: repository.clone(), kind: K::kind(&()), session: uid.clone() };
                all.begin(name, place);
            }
            true
        })
    }

    /// Counts a Job no more that was not made after all.
    pub fn give_back(&self, namespace: &str, job: &str) {
        self.end(&format!("{namespace}/{job}"));
    }

    fn end(&self, name: &str) {
        self.with(|all| {
            if let Some(place) = all.jobs.remove(name) {
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
        self.with(|all| all.queues.get(&full_name(repository)).map(read))
    }
}

fn job_name(job: &impl kube::ResourceExt) -> String {
    format!("{}/{}", job.namespace().unwrap_or_default(), job.name_any())
}

impl All {
    fn begin(&mut self, name: String, place: Place) {
        if !self.jobs.contains_key(&name) {
            self.change(&place.repository, |q| q.begin(&place.session));
            self.jobs.insert(name, place);
        }
    }

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

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use serde_json::json;

    use super::*;
    use crate::api::RestoreSession;
    use crate::controller::index::Indexed;
    use crate::controller::stored::Stored;

    fn users() -> Users {
        Users {
            configurations: Indexed::new(reflector::store().0, |_| vec![]),
            batches: Indexed::new(reflector::store().0, |_| vec![]),
            backups: Indexed::new(reflector::store().0, |_| vec![]),
            restores: Indexed::new(reflector::store().0, |_| vec![]),
            restore_batches: Indexed::new(reflector::store().0, |_| vec![]),
        }
    }

    fn session(uid: &str) -> Stored<RestoreSession> {
        let target = json!({ "ref": { "kind": "PersistentVolumeClaim", "name": uid } });
        let meta = json!({ "name": uid, "namespace": "n", "uid": uid, "creationTimestamp": "2026-11-20T00:00:00Z" });
        serde_json::from_value(json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreSession",
            "metadata": meta, "spec": { "repository": { "name": "r" }, "target": target } }))
        .unwrap()
    }

    fn job(session: &str, over: bool) -> Job {
        let condition = json!([{ "type": "Complete", "status": if over { "True" } else { "False" } }]);
        serde_json::from_value(json!({
            "metadata": { "name": format!("job-{session}"), "namespace": "n", "uid": format!("u-{session}"),
                "labels": { label::SESSION_UID: session, label::SESSION_KIND: "RestoreSession" },
                "annotations": { annotation::REPOSITORY: "n/r" } },
            "status": { "conditions": condition } }))
        .unwrap()
    }

    /// Proves: C13.
    #[test]
    fn a_place_is_taken_before_the_job_is_there_and_given_back_if_it_never_is() {
        let (users, queues) = (users(), Queues::default());
        let (sessions, _) = reflector::store::<Stored<RestoreSession>>();
        let (jobs, _) = reflector::store::<Kept<Job>>();
        let all = ["b", "a"].map(session);
        for session in &all {
            queues.hear_session(&users, &Event::Apply(session.clone()), &sessions);
        }
        let [later, first] = &all;
        // Whose uid sorts first goes first, but not over one whose place is taken already.
        assert!(!queues.reserve(&users, later, &[job("b", false)], 1), "the place of the first is kept");
        assert!(queues.reserve(&users, first, &[job("a", false)], 1));
        assert!(queues.reserve(&users, first, &[job("a", false)], 1), "the same Job is the same place");
        let kind = || Cow::Borrowed("RestoreSession");
        queues.hear_job(kind(), &Event::Apply(job("a", false).into()), &jobs);
        let home = first.home(&users).unwrap();
        assert_eq!(queues.look(&home, Queue::at_work), Some(1));
        assert!(!queues.reserve(&users, later, &[job("b", false)], 1));
        queues.hear_job(kind(), &Event::Apply(job("a", true).into()), &jobs);
        queues.hear_session(&users, &Event::Delete(first.clone()), &sessions);
        assert!(queues.reserve(&users, later, &[job("b", false)], 1));
        queues.give_back("n", "job-b");
        assert_eq!(queues.look(&home, Queue::at_work), Some(0));
        // Who waits for another session keeps no place that this one may need.
        let mut busy = first.open();
        busy.status = serde_json::from_value(json!({ "phase": "Pending", "conditions": [{ "type": "Reconciling",
            "status": "True", "reason": reason::TARGET_BUSY, "message": "", "lastTransitionTime": "2026-11-20T00:00:00Z" }] }))
        .unwrap();
        queues.hear_session(&users, &Event::Apply(busy.into()), &sessions);
        assert!(queues.reserve(&users, later, &[job("b", false)], 1));
        queues.give_back("n", "job-b");
        queues.hear_session(&users, &Event::Delete(first.clone()), &sessions);
        // What went while nobody listened is not counted for ever.
        queues.hear_job(kind(), &Event::Apply(job("b", false).into()), &jobs);
        queues.hear_job(kind(), &Event::InitDone, &jobs);
        queues.hear_session::<Stored<RestoreSession>>(&users, &Event::InitDone, &sessions);
        assert_eq!(queues.look(&home, Queue::len), None);
    }
}
