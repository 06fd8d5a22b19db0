//! One watch for each kind that users write, and the triggers between them.
//!
//! An object that uses a Repository wakes the Repository, and the Repository wakes these objects. So references are
//! correct at once, and an object that waits for a Repository continues when the Repository exists or answers again.

use std::collections::HashMap;
use std::sync::Arc;

use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::{Client, Resource, ResourceExt as _};
use tokio::sync::Notify;

use crate::api::repository::Reachability;
use crate::api::{BackupBatch, BackupConfiguration, BackupSession, Repository, RestoreBatch, RestoreSession};
use crate::controller::cache::budget::Counted;
use crate::controller::cache::consumers;
use crate::controller::cache::consumers::{Consumer, Consumers, Home};
use crate::controller::cache::index::Indexed;
use crate::controller::cache::listings::Listings;
use crate::controller::cache::scope::Scope;
use crate::controller::cache::slots::Slots;
use crate::controller::cache::sources::Source;
use crate::controller::cache::stored::Stored;
use crate::controller::cache::verdicts::Verdicts;
use crate::plan::repository::slots::queue::Claim;

/// The watches.
pub struct Sources {
    /// Repositories.
    pub repositories: Source<Stored<Repository>>,
    /// Invokers of one target.
    pub configurations: Source<Stored<BackupConfiguration>>,
    /// Invokers of many targets.
    pub batches: Source<Stored<BackupBatch>>,
    /// Backups.
    pub backups: Source<Stored<BackupSession>>,
    /// Restores of one target.
    pub restores: Source<Stored<RestoreSession>>,
    /// Restores of many targets.
    pub restore_batches: Source<Stored<RestoreBatch>>,
    /// Notified when a session that had rights is gone.
    pub left: Arc<Notify>,
}

impl Sources {
    /// Watches, with the triggers between them.
    pub fn new(client: &Client, scope: &Scope, slots: &Slots, verdicts: &Verdicts) -> Self {
        let mut all = Self {
            repositories: Source::new(client, scope, verdicts, |_| vec![]),
            configurations: Source::new(client, scope, verdicts, consumers::keys),
            batches: Source::new(client, scope, verdicts, consumers::keys),
            backups: Source::new(client, scope, verdicts, consumers::keys),
            restores: Source::new(client, scope, verdicts, consumers::keys),
            restore_batches: Source::new(client, scope, verdicts, consumers::keys),
            left: Arc::default(),
        };
        let consumers = all.consumers();
        line_up(&all.backups, slots, &consumers, &all.left);
        line_up(&all.restores, slots, &consumers, &all.left);
        line_up(&all.restore_batches, slots, &consumers, &all.left);
        let (q, u) = (slots.clone(), consumers.clone());
        all.configurations.follow(move |event, _| q.on_invoker(&u, event));
        let (q, u) = (slots.clone(), consumers.clone());
        all.batches.follow(move |event, _| q.on_invoker(&u, event));
        all.configurations.tell(&all.repositories, homes(&consumers));
        all.batches.tell(&all.repositories, homes(&consumers));
        all.backups.tell(&all.repositories, homes(&consumers));
        all.restores.tell(&all.repositories, homes(&consumers));
        all.restore_batches.tell(&all.repositories, homes(&consumers));
        all.backups.tell(&all.configurations, |s| invoker_of(s, "BackupConfiguration").into_iter().collect());
        all.backups.tell(&all.batches, |s| invoker_of(s, "BackupBatch").into_iter().collect());
        let u = consumers.clone();
        all.repositories.tell(&all.configurations, move |r| u.of(&u.configurations, &ObjectRef::from_obj(r)));
        let u = consumers.clone();
        all.repositories.tell(&all.batches, move |r| u.of(&u.batches, &ObjectRef::from_obj(r)));
        tell_of_news(&mut all.repositories, &all.backups, &consumers, |u| &u.backups);
        tell_of_news(&mut all.repositories, &all.restores, &consumers, |u| &u.restores);
        tell_of_news(&mut all.repositories, &all.restore_batches, &consumers, |u| &u.restore_batches);
        all
    }

    /// The triggers that wake sessions.
    pub fn triggers(&self) -> Triggers {
        Triggers {
            backups: self.backups.trigger.clone(),
            restores: self.restores.trigger.clone(),
            restore_batches: self.restore_batches.trigger.clone(),
        }
    }

    /// Turns for the listings of Repositories.
    pub fn listings(&self) -> Listings {
        let listings = Listings::new(self.repositories.trigger.clone());
        let hears = listings.clone();
        self.repositories.follow(move |event, store| hears.on_event(event, |home| store.get(home).is_some()));
        listings
    }

    /// The stores of the objects that use Repositories.
    pub fn consumers(&self) -> Consumers {
        Consumers {
            configurations: self.configurations.store.clone(),
            batches: self.batches.store.clone(),
            backups: self.backups.store.clone(),
            restores: self.restores.store.clone(),
            restore_batches: self.restore_batches.store.clone(),
        }
    }
}

/// Wakes sessions.
pub struct Triggers {
    backups: UnboundedSender<ObjectRef<Stored<BackupSession>>>,
    restores: UnboundedSender<ObjectRef<Stored<RestoreSession>>>,
    restore_batches: UnboundedSender<ObjectRef<Stored<RestoreBatch>>>,
}

impl Triggers {
    /// Wakes the sessions that are next in line on a Repository with `most` slots, as many as there is room for.
    pub fn next_in_line(&self, slots: &Slots, repository: &Home, most: usize) {
        let next = slots.look(repository, |q| q.first(most).into_iter().cloned().collect::<Vec<Claim>>());
        for claim in next.unwrap_or_default() {
            match claim.kind.as_str() {
                "BackupSession" => wake(&self.backups, &claim),
                "RestoreSession" => wake(&self.restores, &claim),
                _ => wake(&self.restore_batches, &claim),
            }
        }
    }
}

fn wake<K: Resource<DynamicType = ()> + 'static>(trigger: &UnboundedSender<ObjectRef<K>>, whom: &Claim) {
    let _ = trigger.unbounded_send(ObjectRef::new(&whom.name).within(&whom.namespace));
}

/// Makes the slots follow a kind of session, and notifies the code that revokes rights.
fn line_up<K: Counted + Consumer + serde::de::DeserializeOwned + std::fmt::Debug>(
    source: &Source<K>,
    slots: &Slots,
    consumers: &Consumers,
    left: &Arc<Notify>,
) {
    let (slots, consumers, left) = (slots.clone(), consumers.clone(), left.clone());
    source.follow(move |event, store| {
        slots.on_session(&consumers, event, store);
        if matches!(event, Event::Delete(session) if session.has_rights()) {
            left.notify_one();
        }
    });
}

/// Makes a Repository wake its sessions when a value changes that sessions read. Its list of users is no such value:
/// with thousands of sessions, each new session would wake all others.
fn tell_of_news<K: Consumer>(
    repositories: &mut Source<Stored<Repository>>,
    sessions: &Source<K>,
    consumers: &Consumers,
    of: fn(&Consumers) -> &Indexed<K>,
) {
    let (consumers, store) = (consumers.clone(), repositories.store.clone());
    let mut told: HashMap<Home, News> = HashMap::new();
    repositories.tell(sessions, move |repository| {
        let home = ObjectRef::from_obj(repository);
        let news = store.get(&home).map(|r| News::of(&r));
        let known = match &news {
            Some(news) => told.insert(home.clone(), news.clone()),
            None => told.remove(&home),
        };
        if news == known { vec![] } else { consumers.of(of(&consumers), &home) }
    });
}

/// Values of a Repository that its sessions read.
#[derive(Clone, PartialEq)]
struct News {
    uid: Option<String>,
    generation: Option<i64>,
    leaves: bool,
    first_backup: Option<Time>,
    known: bool,
    reachability: Option<Reachability>,
}

impl News {
    fn of(repository: &Stored<Repository>) -> Self {
        let (meta, facts) = (repository.meta(), repository.facts());
        Self {
            uid: meta.uid.clone(),
            generation: meta.generation,
            leaves: meta.deletion_timestamp.is_some(),
            first_backup: facts.first_backup.clone(),
            known: facts.known,
            reachability: facts.reachability.clone(),
        }
    }
}

/// The Repositories that a change of a consumer wakes: the one that it uses, and the one that it used before.
fn homes<K: Consumer>(consumers: &Consumers) -> impl FnMut(&K) -> Vec<Home> + Send + 'static {
    let consumers = consumers.clone();
    let mut last: HashMap<String, Home> = HashMap::new();
    move |object| {
        let uid = object.uid().unwrap_or_default();
        let uses = object.home(&consumers).filter(|_| !object.is_over());
        let used = match &uses {
            Some(home) => last.insert(uid, home.clone()),
            None => last.remove(&uid),
        };
        let used = used.filter(|u| Some(u) != uses.as_ref());
        used.into_iter().chain(uses).collect()
    }
}

fn invoker_of<K: Resource<DynamicType = ()>>(session: &Stored<BackupSession>, kind: &str) -> Option<ObjectRef<K>> {
    let invoker = session.facts().invoker.as_ref().filter(|i| i.kind == kind)?;
    Some(ObjectRef::new(&invoker.name).within(session.meta().namespace.as_ref()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn news(generation: i64, status: &Value) -> News {
        let meta = json!({ "name": "r", "namespace": "n", "uid": "u", "generation": generation });
        let repository = json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository", "metadata": meta,
            "spec": { "backend": { "s3": { "endpoint": "e", "bucket": "b" } } }, "status": status });
        News::of(&serde_json::from_value(repository).unwrap())
    }

    #[test]
    fn who_else_uses_a_repository_is_no_news_to_its_sessions() {
        let (time, before) = ("2026-11-20T00:00:00Z", news(1, &json!({})));
        let used =
            json!({ "references": [{ "kind": "RestoreSession", "namespace": "n", "name": "s" }], "snapshotCount": 3 });
        assert!(before == news(1, &used));
        let away = json!({ "reachability": { "reachable": false, "since": time } });
        let backed_up = json!({ "firstBackupTime": time });
        for (generation, status) in [(2, json!({})), (1, away), (1, backed_up), (1, json!({ "knownPlace": "b/" }))] {
            assert!(before != news(generation, &status), "{status}");
        }
    }
}
