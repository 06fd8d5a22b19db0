//! Who hears of whose changes: one watch for each kind that users write, and bells between them.
//!
//! An object that uses a Repository wakes it, and it wakes them: so references are true at
//! once, and who waits for a Repository goes on when it is there, or answers again.

use futures::channel::mpsc::UnboundedSender;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt as _};

use super::users::{Home, User, Users};
use super::watch::Source;
use crate::api::{BackupBatch, BackupConfiguration, BackupSession, Repository, RestoreBatch, RestoreSession};

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
    pub fn new(client: &Client) -> Self {
        let mut all = Self {
            repositories: Source::new(client),
            configurations: Source::new(client),
            batches: Source::new(client),
            backups: Source::new(client),
            restores: Source::new(client),
            restore_batches: Source::new(client),
        };
        let users = all.users();
        let repositories = all.repositories.store.clone();
        all.configurations.tell(&all.repositories, homes(&users, &repositories));
        all.batches.tell(&all.repositories, homes(&users, &repositories));
        all.backups.tell(&all.repositories, homes(&users, &repositories));
        all.restores.tell(&all.repositories, homes(&users, &repositories));
        all.restore_batches.tell(&all.repositories, homes(&users, &repositories));
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
    /// Wakes the oldest sessions that wait for room on a Repository, as many of each kind as there is room.
    pub fn next_in_line(&self, users: &Users, repository: &Home, room: usize) {
        if room > 0 {
            ring(&self.backups, users.turned_away(&users.backups, repository, room));
            ring(&self.restores, users.turned_away(&users.restores, repository, room));
            ring(&self.restore_batches, users.turned_away(&users.restore_batches, repository, room));
        }
    }
}

fn ring<K: Resource<DynamicType = ()> + 'static>(bell: &UnboundedSender<ObjectRef<K>>, whom: Vec<ObjectRef<K>>) {
    for one in whom {
        let _ = bell.unbounded_send(one);
    }
}

/// The Repositories that hear of a change of a user: the one it uses, and those that still say that it uses them.
fn homes<K: User>(users: &Users, repositories: &Store<Repository>) -> impl Fn(&K) -> Vec<Home> + Send + 'static {
    let (users, repositories) = (users.clone(), repositories.clone());
    move |object| {
        let (kind, name, namespace) = (K::kind(&()), object.name_any(), object.namespace());
        let said = repositories.state_filter(|r| {
            let all = r.status.as_ref().map(|s| s.references.as_slice()).unwrap_or_default();
            all.iter().any(|u| u.name == name && u.namespace == namespace && u.kind.as_deref() == Some(&kind))
        });
        let mut all: Vec<Home> = said.iter().map(|r| ObjectRef::from_obj(r.as_ref())).collect();
        all.extend(object.home(&users).filter(|h| !all.contains(h)));
        all
    }
}

fn invoker_of<K: Resource<DynamicType = ()>>(session: &BackupSession, kind: &str) -> Option<ObjectRef<K>> {
    let invoker = session.spec.invoker.as_ref().filter(|i| i.kind == kind)?;
    Some(ObjectRef::new(&invoker.name).within(session.metadata.namespace.as_ref()?))
}
