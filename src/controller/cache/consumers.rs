//! Objects that use Repositories, from the watched stores: the Repository of each, and the keys that find them.
//!
//! This module does not know whether a namespace may use a Repository: that needs its labels, which are read in
//! [`usage`](crate::controller::observe::usage).

use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};

use crate::api::{BackupBatch, BackupConfiguration, BackupSession, Repository, RestoreBatch, RestoreSession};
use crate::controller::cache::index::Indexed;
use crate::controller::cache::series::{Labels, Series};
use crate::controller::cache::stored::{Stored, UserKind};

/// A Repository, by name.
pub type Home = ObjectRef<Stored<Repository>>;

/// Stores of the objects that use Repositories.
#[derive(Clone)]
pub struct Consumers {
    /// Invokers of one target.
    pub configurations: Indexed<Stored<BackupConfiguration>>,
    /// Invokers of many targets.
    pub batches: Indexed<Stored<BackupBatch>>,
    /// Backups.
    pub backups: Indexed<Stored<BackupSession>>,
    /// Restores of one target.
    pub restores: Indexed<Stored<RestoreSession>>,
    /// Restores of many targets.
    pub restore_batches: Indexed<Stored<RestoreBatch>>,
}

/// An object that uses a Repository.
pub trait Consumer: Resource<DynamicType = ()> + Clone + Send + Sync + 'static {
    /// The Repository that the object uses.
    fn home(&self, consumers: &Consumers) -> Option<Home>;
    /// Keys of the slots that its Jobs take in addition to the slots on the Repository.
    fn slots(&self) -> &[String];
    /// Whether the object no longer needs the Repository.
    fn is_over(&self) -> bool;
    /// Whether its Jobs have rights, according to its status.
    fn has_rights(&self) -> bool;
    /// Whether a condition of the object, Reconciling or Stalled, is True with this reason.
    fn says(&self, type_: &str, why: &str) -> bool;
}

impl<K: UserKind> Consumer for Stored<K> {
    fn home(&self, consumers: &Consumers) -> Option<Home> {
        let of = |(namespace, name): &(String, String)| ObjectRef::new(name).within(namespace);
        let Some(invoker) = &self.facts().invoker else { return self.facts().repository.as_ref().map(of) };
        let namespace = self.namespace()?;
        match invoker.kind.as_str() {
            "BackupConfiguration" => {
                consumers.configurations.get(&ObjectRef::new(&invoker.name).within(&namespace))?.home(consumers)
            }
            "BackupBatch" => consumers.batches.get(&ObjectRef::new(&invoker.name).within(&namespace))?.home(consumers),
            _ => None,
        }
    }
    fn slots(&self) -> &[String] {
        &self.facts().slots
    }
    fn is_over(&self) -> bool {
        self.facts().over
    }
    fn has_rights(&self) -> bool {
        self.facts().has_rights
    }
    fn says(&self, type_: &str, why: &str) -> bool {
        self.facts().says.iter().any(|(t, reason)| t == type_ && reason == why)
    }
}

/// Namespace and name of a Repository, as written in Jobs and messages.
pub fn full_name(repository: &Home) -> String {
    format!("{}/{}", repository.namespace.as_deref().unwrap_or_default(), repository.name)
}

/// Key of objects that use a Repository and are not over.
pub fn uses(repository: &Home) -> String {
    format!("repository {}", full_name(repository))
}

/// Key of restores that may block other restores of this target.
pub fn restores(namespace: &str, target: &str) -> String {
    format!("target {namespace}/{target}")
}

/// Key of restores of a namespace that have started on a target and not finished.
pub fn begun(namespace: &str) -> String {
    format!("begun {namespace}")
}

/// Key of backups that are not over. There are few, and their Repository depends on their invoker.
pub const OPEN: &str = "open";

/// Key of backups of an invoker that are not over.
pub fn backups_of<K: Resource<DynamicType = ()>>(invoker: &K) -> String {
    of_invoker(&K::kind(&()), &invoker.namespace().unwrap_or_default(), &invoker.name_any())
}

fn of_invoker(kind: &str, namespace: &str, name: &str) -> String {
    format!("invoker {kind} {namespace}/{name}")
}

/// Keys of an object that may use a Repository.
pub fn keys<K: UserKind>(object: &Stored<K>) -> Vec<String> {
    let facts = object.facts();
    if facts.over {
        return vec![];
    }
    let namespace = object.namespace().unwrap_or_default();
    if let Some(invoker) = &facts.invoker {
        return vec![of_invoker(&invoker.kind, &namespace, &invoker.name), OPEN.to_owned()];
    }
    let home = facts.repository.as_ref().map(|(namespace, name)| ObjectRef::new(name).within(namespace));
    let has_begun = facts.targets.iter().any(|t| t.begun);
    let targets = facts.targets.iter().map(|t| restores(&namespace, &t.target));
    home.iter().map(uses).chain(targets).chain(has_begun.then(|| begun(&namespace))).collect()
}

/// State of the backups of all invokers in a store.
fn series<K: UserKind>(store: &Indexed<Stored<K>>) -> Vec<Series> {
    let of = |object: &Arc<Stored<K>>| {
        let facts = object.facts();
        let repository = facts.repository.as_ref().map(|(home, name)| format!("{home}/{name}")).unwrap_or_default();
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let labels = Labels { namespace, kind: K::kind(&()).into_owned(), name, repository };
        Series { labels, backups: facts.backups.clone().unwrap_or_default() }
    };
    store.store.state().iter().map(of).collect()
}

impl Consumers {
    /// State of the backups of all invokers.
    pub fn invokers(&self) -> Vec<Series> {
        series(&self.configurations).into_iter().chain(series(&self.batches)).collect()
    }

    /// Objects of one kind that use the Repository and are not over.
    pub fn of<K: Consumer>(&self, all: &Indexed<K>, repository: &Home) -> Vec<ObjectRef<K>> {
        let found = all.with(&uses(repository)).into_iter().chain(all.with(OPEN));
        let found = found.filter(|o| !o.is_over() && o.home(self).as_ref() == Some(repository));
        found.map(|o| ObjectRef::from_obj(o.as_ref())).collect()
    }
}
