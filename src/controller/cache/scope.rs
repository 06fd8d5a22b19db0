//! The namespaces that the operator works in: all namespaces, or the configured ones.
//!
//! With configured namespaces, the operator has rights in those only, so each namespace is watched separately. Readers
//! of the watches still receive one list and one stream of changes. A namespace that does not exist, or is being deleted
//! and has lost its Role, delays nothing: it counts as empty. The operator waits for any other namespace that may not be
//! read, because decisions need all users of a Repository.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::controller::cache::budget::{Budget, Counted};

/// Interval between checks whether a namespace exists, or may be read, by now.
const COMES: Duration = Duration::from_secs(10);

/// A namespace of `--watch-namespaces`; empty where there is none.
///
/// # Errors
/// The text cannot be the name of a Namespace.
pub fn parse(text: &str) -> Result<String, String> {
    let name = text.trim();
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_name = name.len() <= 63 && name.bytes().all(is_inner) && !name.starts_with('-') && !name.ends_with('-');
    if is_name { Ok(name.to_owned()) } else { Err(format!("{name:?} is not the name of a namespace")) }
}

/// Namespaces; an empty list stands for all namespaces.
#[derive(Clone, Debug, Default)]
pub struct Scope(Arc<[String]>);

impl Scope {
    /// A scope of these namespaces, or of all namespaces if `names` is empty.
    pub fn new(mut names: Vec<String>) -> Self {
        names.retain(|n| !n.is_empty());
        names.sort();
        names.dedup();
        Self(names.into())
    }

    /// The namespaces; empty when all namespaces are meant.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether the operator works in a namespace.
    pub fn has(&self, namespace: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|n| n == namespace)
    }

    /// Why an object of this namespace is not looked up; `None` where it is.
    pub fn outside(&self, namespace: &str) -> Option<String> {
        (!self.has(namespace)).then(|| {
            format!(
                "namespace {namespace} is not among those that this Lifeboat watches (--watch-namespaces, watchNamespaces of the chart)"
            )
        })
    }

    /// API clients for all objects of a kind: one, or one for each namespace.
    pub fn apis<K>(&self, client: &Client) -> Vec<Api<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        if self.0.is_empty() {
            return vec![Api::all(client.clone())];
        }
        self.0.iter().map(|n| Api::namespaced(client.clone(), n)).collect()
    }
}

/// Whether a Namespace exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    /// It exists, as far as that is known.
    There,
    /// It is being deleted.
    Ends,
    /// It does not exist.
    Absent,
}

/// Whether a Namespace exists, as far as that is known.
pub async fn presence(client: &Client, namespace: &str) -> Presence {
    match Api::<Namespace>::all(client.clone()).get_metadata_opt(namespace).await {
        Ok(None) => Presence::Absent,
        Ok(Some(found)) if found.metadata.deletion_timestamp.is_some() => Presence::Ends,
        Ok(Some(_)) | Err(_) => Presence::There,
    }
}

/// Whether the API server has forbidden the request.
pub fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden())
}

/// One watch of a kind.
pub struct Part<K> {
    api: Api<K>,
    config: watcher::Config,
    /// The only namespace that the watch covers; `None` when it covers all namespaces.
    namespace: Option<String>,
}

/// Where the objects of a kind are: in namespaces, or in the cluster.
pub trait Place {
    /// The watches of a kind.
    fn parts<K>(client: &Client, scope: &Scope, config: &watcher::Config) -> Vec<Part<K>>
    where
        K: Resource<Scope = Self, DynamicType = ()>;
}

impl Place for NamespaceResourceScope {
    fn parts<K>(client: &Client, scope: &Scope, config: &watcher::Config) -> Vec<Part<K>>
    where
        K: Resource<Scope = Self, DynamicType = ()>,
    {
        let names = scope.names().iter().cloned().map(Some);
        let names: Vec<_> = if scope.names().is_empty() { vec![None] } else { names.collect() };
        let part = |(api, namespace)| Part { api, config: config.clone(), namespace };
        scope.apis(client).into_iter().zip(names).map(part).collect()
    }
}

impl Place for ClusterResourceScope {
    fn parts<K>(client: &Client, scope: &Scope, config: &watcher::Config) -> Vec<Part<K>>
    where
        K: Resource<Scope = Self, DynamicType = ()>,
    {
        let part = |config, namespace| Part { api: Api::all(client.clone()), config, namespace };
        // By name, which is how the right to read some Namespaces can be granted.
        if K::kind(&()) == "Namespace" && !scope.names().is_empty() {
            let named = |n: &String| part(config.clone().fields(&format!("metadata.name={n}")), Some(n.clone()));
            return scope.names().iter().map(named).collect();
        }
        vec![part(config.clone(), None)]
    }
}

/// What a watch reports.
enum Heard<K> {
    Event(Event<K>),
    Failed(watcher::Error),
    /// Its namespace is being deleted, and the rights in it are gone.
    Ends,
    /// Its namespace does not exist.
    Absent,
}

/// The changes of a kind, from all of its watches, as one stream. `store` is the store that follows them.
pub fn events<K>(client: &Client, parts: Vec<Part<K>>, store: Store<K>) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Counted + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut names = vec![];
    let mut streams = vec![];
    for part in parts {
        let mut budget = Budget::default();
        let all = watcher(part.api, part.config).default_backoff().map_ok(move |event| budget.on_event(event));
        let Some(name) = part.namespace else { return all.boxed() };
        let (index, client, of) = (names.len(), client.clone(), name.clone());
        let heard = all.flat_map(move |result| match result {
            Ok(event) => stream::iter([Heard::Event(event)]).boxed(),
            Err(error) if is_refused(&error) => refused(client.clone(), of.clone(), error),
            Err(error) => stream::iter([Heard::Failed(error)]).boxed(),
        });
        streams.push(heard.map(move |heard| (index, heard)).boxed());
        names.push(name);
    }
    let mut whole = Whole::new(names);
    let one = stream::select_all(streams).flat_map(move |(index, heard)| {
        stream::iter(match heard {
            Heard::Event(event) => whole.on_event(index, event, &store).into_iter().map(Ok).collect(),
            Heard::Ends => whole.ends(index).into_iter().map(Ok).collect(),
            Heard::Absent => whole.absent(index, &store).into_iter().map(Ok).collect(),
            Heard::Failed(error) => vec![Err(error)],
        })
    });
    one.boxed()
}

fn is_refused(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause) => is_forbidden(cause),
        _ => false,
    }
}

/// Handles a forbidden watch: rights in a namespace are deleted with it. While the namespace does not exist, the watch
/// is not retried; otherwise it is retried at an interval.
fn refused<K: Send + 'static>(
    client: Client,
    namespace: String,
    error: watcher::Error,
) -> BoxStream<'static, Heard<K>> {
    enum Step {
        Ask(watcher::Error),
        Pause,
        Wait,
    }
    stream::unfold((Step::Ask(error), client, namespace), |(step, client, namespace)| async move {
        match step {
            Step::Ask(error) => Some(match presence(&client, &namespace).await {
                Presence::There => (Heard::Failed(error), (Step::Pause, client, namespace)),
                Presence::Ends => (Heard::Ends, (Step::Pause, client, namespace)),
                Presence::Absent => (Heard::Absent, (Step::Wait, client, namespace)),
            }),
            Step::Wait => {
                while presence(&client, &namespace).await == Presence::Absent {
                    tokio::time::sleep(COMES).await;
                }
                None
            }
            // The backoff of the watch itself begins anew with each try.
            Step::Pause => {
                tokio::time::sleep(COMES).await;
                None
            }
        }
    })
    .boxed()
}

/// Merges several lists into one, and then their changes into one stream.
struct Whole<K> {
    parts: Vec<Of<K>>,
    is_listed: bool,
}

/// One namespace.
struct Of<K> {
    name: String,
    /// Objects that a list has reported so far.
    coming: HashMap<String, K>,
    /// Until every namespace is listed: the objects of this namespace. `None` while they are not known.
    listed: Option<HashMap<String, K>>,
    /// After that: names that another list has reported so far.
    again: HashSet<String>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Whole<K> {
    fn new(names: Vec<String>) -> Self {
        let of = |name| Of { name, coming: HashMap::new(), listed: None, again: HashSet::new() };
        Self { parts: names.into_iter().map(of).collect(), is_listed: false }
    }

    /// Events to pass on for an event: none until all namespaces are listed. After that no list is passed on, because
    /// it would stand for all namespaces.
    fn on_event(&mut self, index: usize, event: Event<K>, store: &Store<K>) -> Vec<Event<K>> {
        let is_listed = self.is_listed;
        let Some(part) = self.parts.get_mut(index) else { return vec![] };
        match event {
            Event::Init => {
                part.coming.clear();
                part.again.clear();
            }
            Event::InitApply(object) if is_listed => {
                part.again.insert(object.name_any());
                let before = store.get(&ObjectRef::from_obj(&object)).filter(|before| before.uid() != object.uid());
                let gone = before.map(|before| Event::Delete(K::clone(&before)));
                return gone.into_iter().chain([Event::Apply(object)]).collect();
            }
            Event::InitDone if is_listed => {
                let again = std::mem::take(&mut part.again);
                let is_gone = |o: &K| is_of(o, &part.name) && !again.contains(&o.name_any());
                let gone = store.state_filter(is_gone);
                return gone.into_iter().map(|o| Event::Delete(K::clone(&o))).collect();
            }
            event if is_listed => return vec![event],
            Event::InitApply(object) => drop(part.coming.insert(object.name_any(), object)),
            Event::InitDone => part.listed = Some(std::mem::take(&mut part.coming)),
            Event::Apply(object) => {
                part.listed.get_or_insert_default().insert(object.name_any(), object);
            }
            Event::Delete(object) => drop(part.listed.get_or_insert_default().remove(&object.name_any())),
        }
        self.list()
    }

    /// A namespace that does not exist has no objects. Its objects may have been deleted while its watch was broken.
    fn absent(&mut self, index: usize, store: &Store<K>) -> Vec<Event<K>> {
        let Some(part) = self.parts.get_mut(index) else { return vec![] };
        warn!(namespace = part.name, kind = %K::kind(&()), "the namespace does not exist; it is watched once it does");
        if self.is_listed {
            let gone = store.state_filter(|o| is_of(o, &part.name));
            return gone.into_iter().map(|o| Event::Delete(K::clone(&o))).collect();
        }
        part.listed = Some(HashMap::new());
        self.list()
    }

    /// A namespace that is being deleted, and whose rights are gone, counts as empty if it was not listed. Objects that
    /// are known already stay: the operator still has to release them.
    fn ends(&mut self, index: usize) -> Vec<Event<K>> {
        let Some(part) = self.parts.get_mut(index).filter(|p| !self.is_listed && p.listed.is_none()) else {
            return vec![];
        };
        part.listed = Some(HashMap::new());
        self.list()
    }

    /// The list of all namespaces, once.
    fn list(&mut self) -> Vec<Event<K>> {
        if self.is_listed || self.parts.iter().any(|p| p.listed.is_none()) {
            return vec![];
        }
        self.is_listed = true;
        let all = self.parts.iter_mut().filter_map(|p| p.listed.take()).flat_map(HashMap::into_values);
        [Event::Init].into_iter().chain(all.map(Event::InitApply)).chain([Event::InitDone]).collect()
    }
}

/// Whether an object is in a namespace, or is the Namespace.
fn is_of<K: ResourceExt>(object: &K, namespace: &str) -> bool {
    object.meta().namespace.as_deref().or(object.meta().name.as_deref()) == Some(namespace)
}

#[cfg(test)]
mod tests;
