//! The data of the ledger: Jobs, their sessions, and the queues that follow from both.
//!
//! This module uses no watch and no API server: [`Slots`](super::Slots) passes in the watch events and the requests.
//! Every change of a Job is counted into the queue of its session at once.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

use crate::controller::cache::slots::{Home, Known, Ledger, Queue, Session, Taken, full_name};
use crate::plan::repository::slots::queue::{Claim, Room, Work};
use crate::plan::seen::surroundings::Writer;

/// Twice the time after which the API server gives up a request: one minute (its flag --request-timeout).
const UNANSWERED_FOR: Duration = Duration::from_mins(2);

impl Ledger {
    /// Adds or updates a session. It stands in the queue of its Repository, and in the queues of these slots.
    pub fn enter(&mut self, kind: Cow<'static, str>, home: Option<&Home>, slots: &[String], claim: Claim) {
        let uid = claim.uid.clone();
        let namespace = home.and_then(|h| h.namespace.as_deref()).unwrap_or_default();
        let keys: Vec<String> = home.map(full_name).into_iter().chain(slots.iter().cloned()).collect();
        if self.sessions.get(&uid).is_some_and(|s| s.keys != keys) {
            self.leave_queue(&uid);
        }
        let session = Session { kind, namespace: claim.namespace.clone(), keys: keys.clone() };
        self.sessions.insert(uid.clone(), session);
        for (n, key) in keys.into_iter().enumerate() {
            let work = self.work(&uid, &key);
            let of = if n == 0 { namespace } else { "" };
            self.queues.entry(key).or_insert_with(|| Queue::of(of)).enter(claim.clone(), work);
        }
    }

    /// Key of the first queue of a session.
    pub fn first_key(&self, uid: &str) -> &str {
        self.sessions.get(uid).and_then(|s| s.keys.first()).map_or("", String::as_str)
    }

    /// Key that a Job takes a slot of: the key that the Job names if its session has it, else the key of the
    /// Repository.
    pub fn key_of<'a>(&'a self, job: &'a Taken) -> &'a str {
        let known = |key: &&String| self.sessions.get(&job.session).is_some_and(|s| s.keys.contains(key));
        job.slot.as_ref().filter(known).map_or_else(|| self.first_key(&job.session), String::as_str)
    }

    /// Removes a session that is over or gone. Jobs that it requested and no watch has reported can no longer appear.
    pub fn leave(&mut self, uid: &str) {
        self.leave_queue(uid);
        let unheard = |name: &&String| self.jobs.get(*name).is_some_and(|t| !t.is_watched());
        let gone: Vec<String> = self.of.get(uid).into_iter().flatten().filter(unheard).cloned().collect();
        gone.iter().for_each(|name| self.give_back(name));
    }

    pub fn leave_all_but(&mut self, kind: &str, there: &HashSet<String>) {
        let gone = self.sessions.iter().filter(|(uid, s)| s.kind == kind && !there.contains(*uid));
        let gone: Vec<String> = gone.map(|(uid, _)| uid.clone()).collect();
        gone.iter().for_each(|uid| self.leave(uid));
    }

    fn leave_queue(&mut self, uid: &str) {
        let Some(session) = self.sessions.remove(uid) else { return };
        for key in session.keys {
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            queue.leave(uid);
            if queue.is_empty() {
                self.queues.remove(&key);
            }
        }
    }

    /// Slots with this key that the Jobs of a session take.
    fn work(&self, uid: &str, key: &str) -> Work {
        let Some(session) = self.sessions.get(uid) else { return Work::default() };
        let names = self.of.get(uid).into_iter().flatten();
        let jobs = names.filter_map(|name| self.jobs.get(name));
        let own = jobs.filter(|t| t.works && t.kind == session.kind && t.namespace == session.namespace);
        let (here, elsewhere): (Vec<_>, Vec<_>) = own.partition(|t| self.key_of(t) == key);
        let stuck = here.iter().filter(|t| t.stuck).count();
        Work { places: here.len() - stuck, stuck, elsewhere: elsewhere.len() }
    }

    fn count(&mut self, uid: &str) {
        let keys = self.sessions.get(uid).map(|s| s.keys.clone()).unwrap_or_default();
        for key in keys {
            let work = self.work(uid, &key);
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.works(uid, work);
            }
        }
    }

    pub fn take(&mut self, name: String, mut taken: Taken) {
        // A repeated watch event of a Job contains nothing about its pod.
        if let Some(before) = self.jobs.get(&name) {
            (taken.stuck, taken.done) = (before.stuck, before.done);
        }
        self.give_back(&name);
        let session = taken.session.clone();
        for claim in &taken.claims {
            self.users.entry(claim.clone()).or_default().insert(name.clone());
        }
        self.of.entry(session.clone()).or_default().insert(name.clone());
        self.jobs.insert(name, taken);
        self.count(&session);
    }

    pub fn give_back(&mut self, name: &str) {
        let Some(taken) = self.jobs.remove(name) else { return };
        for claim in &taken.claims {
            if let Some(users) = self.users.get_mut(claim) {
                users.remove(name);
                if users.is_empty() {
                    self.users.remove(claim);
                }
            }
        }
        if let Some(names) = self.of.get_mut(&taken.session) {
            names.remove(name);
            if names.is_empty() {
                self.of.remove(&taken.session);
            }
        }
        self.count(&taken.session);
    }

    /// Forgets Jobs that a new list does not contain. A Job that is about to be created, or was created after the list
    /// was started, may exist all the same.
    pub fn give_back_all_but(&mut self, kind: &str, there: &HashSet<String>) {
        let begun = self.listed.get(kind).copied();
        let may_come = |taken: &Taken| match taken.known {
            Known::Reserved | Known::Asked | Known::Unanswered => true,
            Known::Made(at) => begun.is_none_or(|begun| at >= begun),
            Known::Watched(_) => false,
        };
        let gone = self.jobs.iter().filter(|(n, t)| t.kind == kind && !there.contains(*n) && !may_come(t));
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.give_back(name));
    }

    /// Forgets Jobs that were requested so long ago that the API server no longer creates them.
    pub fn forget_unanswered(&mut self, now: Instant) {
        while let Some((_, name)) = self.unanswered.pop_front_if(|(at, _)| now.duration_since(*at) > UNANSWERED_FOR) {
            if self.jobs.get(&name).is_some_and(|taken| taken.known == Known::Unanswered) {
                self.give_back(&name);
            }
        }
    }

    pub fn note(&mut self, name: &str, stuck: bool, done: bool) {
        let Some(taken) = self.jobs.get_mut(name) else { return };
        taken.done = done;
        if taken.stuck != stuck {
            taken.stuck = stuck;
            let session = taken.session.clone();
            self.count(&session);
        }
    }

    pub fn room(&self, key: &str, uid: &str, created: Timestamp, most: usize) -> Room {
        let found = self.sessions.get(uid).and_then(|s| Some((s, self.queues.get(key)?)));
        found.map_or(Room { free: most, ahead: 0 }, |(s, queue)| queue.room(&s.namespace, created, uid, most))
    }

    /// Whether a Job of another session may be creating the same Repository.
    pub fn is_being_created(&self, new: &Taken) -> bool {
        let creates = |other: &Taken| other.prepares == new.prepares && other.session != new.session;
        new.prepares.is_some() && self.jobs.values().any(|other| creates(other) && !other.done && !other.stuck)
    }

    /// Claims of a Job that other Jobs use in a way that it cannot share. Only readers share. The plan knows the Jobs
    /// of the same session as soon as a watch has reported them. It also knows the Jobs of other sessions that are
    /// being stopped, and how long to wait for them.
    pub fn conflicts(&self, name: &str, new: &Taken) -> Vec<Writer> {
        let mut found = vec![];
        let harmless = |other: &&Taken| other.done || (other.reads && new.reads);
        for claim in &new.claims {
            for other in self.users.get(claim).into_iter().flatten().filter(|other| *other != name) {
                let Some(other) = self.jobs.get(other).filter(|o| !harmless(o)) else { continue };
                let is_known = match other.known {
                    Known::Watched(deleting) => deleting || other.session == new.session,
                    Known::Reserved | Known::Asked | Known::Unanswered | Known::Made(_) => false,
                };
                if !is_known {
                    let claim = claim.split_once('/').map_or(claim.as_str(), |(_, name)| name).to_owned();
                    found.push(Writer { session: other.label.clone(), claim, reads: other.reads });
                }
            }
        }
        found
    }
}
