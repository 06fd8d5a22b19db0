//! Who hears of whose changes: one watch for each kind that users write, and bells between them.
//!
//! An object that uses a Repository wakes it, and it wakes them: so references are true at
//! once, and who waits for a Repository goes on when it is there, or answers again.

use std::collections::HashMap;

use futures::channel::mpsc::UnboundedSender;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt as _};

use super::queues::Queues;
use super::users::{self, Home, User, Users};
use super::watch::Source;
use crate::api::{BackupBatch, BackupConfiguration, BackupSession, Repository, RestoreBatch, RestoreSession};
use crate::plan::gate::Claim;

/// The watches.
pub struct Sources {
    /// Repositories.
    pub repositories: Source<Repository>,
    /// Invokers of one target.
    pub configurations: Source<BackupConfiguration>,
    /// Invokers of many targets.
    pub batches: Source<BackupBatch>,
    /// Backups.
    pub backups: Source<BackupSession>,
    /// Restores of one target.
    pub restores: Source<RestoreSession>,
    /// Restores of many targets.
    pub restore_batches: Source<RestoreBatch>,
}

impl Sources {
    /// Watches, with the bells between them.
    pub fn new(client: &Client, queues: &Queues) -> Self {
        let mut all = Self {
            repositories: Source::new(client, |_| vec![]),
            configurations: Source::new(client, users::keys_of_invoker),
            batches: Source::new(client, users::keys_of_invoker),
            backups: Source::new(client, users::keys_of_backup),
            restores: Source::new(client, users::keys_of_session),
            restore_batches: Source::new(client, users::keys_of_batch),
        };
        let users = all.users();
        line_up(&all.backups, queues, &users);
        line_up(&all.restores, queues, &users);
        line_up(&all.restore_batches, queues, &users);
        all.configurations.tell(&all.repositories, homes(&users));
        all.batches.tell(&all.repositories, homes(&users));
        all.backups.tell(&all.repositories, homes(&users));
        all.restores.tell(&all.repositories, homes(&users));
        all.restore_batches.tell(&all.repositories, homes(&users));
        all.backups.tell(&all.configurations, |s| invoker_of(s, "BackupConfiguration").into_iter().collect());
        all.backups.tell(&all.batches, |s| invoker_of(s, "BackupBatch").into_iter().collect());
        let u = users.clone();
        all.repositories.tell(&all.configurations, move |r| u.of(&u.configurations, &ObjectRef::from_obj(r)));
        let u = users.clone();
        all.repositories.tell(&all.batches, move |r| u.of(&u.batches, &ObjectRef::from_obj(r)));
        let u = users.clone();
        all.repositories.tell(&all.backups, move |r| u.of(&u.backups, &ObjectRef::from_obj(r)));
        let u = users.clone();
        all.repositories.tell(&all.restores, move |r| u.of(&u.restores, &ObjectRef::from_obj(r)));
        let u = users;
        all.repositories.tell(&all.restore_batches, move |r| u.of(&u.restore_batches, &ObjectRef::from_obj(r)));
        all
    }

    /// The bells of sessions.
    pub fn bells(&self) -> Bells {
        Bells {
            backups: self.backups.bell.clone(),
            restores: self.restores.bell.clone(),
            restore_batches: self.restore_batches.bell.clone(),
        }
    }

    /// The stores of those that use Repositories.
    pub fn users(&self) -> Users {
        Users {
            configurations: self.configurations.store.clone(),
            batches: self.batches.store.clone(),
            backups: self.backups.store.clone(),
            restores: self.restores.store.clone(),
            restore_batches: self.restore_batches.store.clone(),
        }
    }
}

/// Wakes sessions.
pub struct Bells {
    backups: UnboundedSender<ObjectRef<BackupSession>>,
    restores: UnboundedSender<ObjectRef<RestoreSession>>,
    restore_batches: UnboundedSender<ObjectRef<RestoreBatch>>,
}

impl Bells {
    /// Wakes the oldest sessions that wait for room on a Repository, as many as there is room.
    pub fn next_in_line(&self, queues: &Queues, repository: &Home, room: usize) {
        let next = queues.look(repository, |q| q.first(room).cloned().collect::<Vec<Claim>>());
        for claim in next.unwrap_or_default() {
            match claim.kind.as_str() {
                "BackupSession" => ring(&self.backups, &claim),
                "RestoreSession" => ring(&self.restores, &claim),
                _ => ring(&self.restore_batches, &claim),
            }
        }
    }
}

fn ring<K: Resource<DynamicType = ()> + 'static>(bell: &UnboundedSender<ObjectRef<K>>, whom: &Claim) {
    let _ = bell.unbounded_send(ObjectRef::new(&whom.name).within(&whom.namespace));
}

/// Has the queues follow a kind of sessions.
fn line_up<K: User + serde::de::DeserializeOwned + std::fmt::Debug>(
    source: &Source<K>,
    queues: &Queues,
    users: &Users,
) {
    let (queues, users) = (queues.clone(), users.clone());
    source.follow(move |event, store| queues.hear_session(&users, event, store));
}

/// The Repositories that hear of a change of a user: the one it uses, and the one that it used.
fn homes<K: User>(users: &Users) -> impl FnMut(&K) -> Vec<Home> + Send + 'static {
    let users = users.clone();
    let mut last: HashMap<String, Home> = HashMap::new();
    move |object| {
        let uid = object.uid().unwrap_or_default();
        let uses = object.home(&users).filter(|_| !object.is_over());
        let used = match &uses {
            Some(home) => last.insert(uid, home.clone()),
            None => last.remove(&uid),
        };
        let used = used.filter(|u| Some(u) != uses.as_ref());
        used.into_iter().chain(uses).collect()
    }
}

fn invoker_of<K: Resource<DynamicType = ()>>(session: &BackupSession, kind: &str) -> Option<ObjectRef<K>> {
    let invoker = session.spec.invoker.as_ref().filter(|i| i.kind == kind)?;
    Some(ObjectRef::new(&invoker.name).within(session.metadata.namespace.as_ref()?))
}
