//! Watches that fill a store and trigger a reconcile in one stream, so that a
//! reconcile never reads a store that is older than the change that triggered it.
//!
//! Each kind that users write has one source. [`super::triggers`] defines which kinds trigger each other.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::controller::cache::budget::Counted;
use crate::controller::cache::children::Children;
use crate::controller::cache::index::{Indexed, Keys};
use crate::controller::cache::pages::PAGE;
use crate::controller::cache::queue::Queue;
use crate::controller::cache::scope::{Place, Scope};
use crate::controller::cache::slots::Slots;
use crate::controller::cache::verdicts::Verdicts;
use crate::controller::cache::{children, scope};
use crate::names::{annotation, label};
use crate::plan::seen::compact::{Keep, Kept};

/// An object that is triggered by many other objects is reconciled once for all triggers within this time.
const TOGETHER: Duration = Duration::from_secs(2);

/// Objects of one kind that users write, and their changes. A change is in the store before it is reported.
pub struct Source<K: Resource<DynamicType = ()> + Clone + 'static> {
    /// The store.
    pub store: Indexed<K>,
    changes: Changes<K>,
    handler: Handler<K>,
    /// Triggers the reconcile of one object.
    pub trigger: UnboundedSender<ObjectRef<K>>,
    triggered: UnboundedReceiver<ObjectRef<K>>,
}

impl<K> Source<K>
where
    K: Counted + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Watches the objects of the kind.
    pub fn new(client: &Client, scope: &Scope, verdicts: &Verdicts, keys: Keys<K>) -> Self
    where
        K::Scope: Place,
    {
        let handler = Handler::default();
        let (handlers, verdicts) = (handler.clone(), verdicts.clone());
        let on_event = move |event: &Event<K>, store: &Store<K>| {
            match event {
                Event::Delete(object) => verdicts.forget(&object.uid().unwrap_or_default()),
                Event::InitDone => {
                    verdicts.keep(&K::kind(&()), &store.state().iter().filter_map(|o| o.uid()).collect());
                }
                Event::Apply(_) | Event::InitApply(_) | Event::Init => {}
            }
            if let Some(on_event) = handlers.get() {
                on_event(event, store);
            }
        };
        let (store, changes) = changes::<K>(client, scope, watcher::Config::default(), keys, on_event);
        let (trigger, triggered) = futures::channel::mpsc::unbounded();
        Self { store, changes, handler, trigger, triggered }
    }

    /// Makes a change also trigger the objects of another kind that `whom` names. The store has the change before that.
    pub fn tell<T>(&mut self, other: &Source<T>, mut whom: impl FnMut(&K) -> Vec<ObjectRef<T>> + Send + 'static)
    where
        T: Resource<DynamicType = ()> + Clone + 'static,
    {
        let trigger = other.trigger.clone();
        let changes = std::mem::replace(&mut self.changes, futures::stream::empty().boxed());
        let told = changes.inspect_ok(move |object| {
            for one in whom(object) {
                // The receiver is gone only while the operator stops.
                let _ = trigger.unbounded_send(one);
            }
        });
        self.changes = told.boxed();
    }

    /// Sets a handler that also follows the store.
    pub fn follow(&self, on_event: impl Fn(&Event<K>, &Store<K>) + Send + Sync + 'static) {
        let _ = self.handler.set(Box::new(on_event));
    }

    /// The queue of a kind that is triggered so often that one reconcile handles several triggers.
    pub fn patient_queue(self) -> Queue<K> {
        let triggered = stream::unfold(self.triggered, async |mut triggered| {
            let first = triggered.next().await?;
            tokio::time::sleep(TOGETHER).await;
            let mut all = HashSet::from([first]);
            while let Ok(one) = triggered.try_recv() {
                all.insert(one);
            }
            Some((stream::iter(all), triggered))
        });
        Self::queue_of(self.store, self.changes, triggered.flatten())
    }

    /// The queue of a kind that receives every trigger without delay.
    pub fn queue(self) -> Queue<K> {
        Self::queue_of(self.store, self.changes, self.triggered)
    }

    fn queue_of(
        store: Indexed<K>,
        changes: Changes<K>,
        triggered: impl Stream<Item = ObjectRef<K>> + Send + 'static,
    ) -> Queue<K> {
        Queue::new(store.store).on(named(changes, |object| Some(ObjectRef::from_obj(object)))).on(triggered)
    }
}

/// A handler that follows a store; set once its watch is wired.
type Handler<K> = Arc<OnceLock<Box<dyn Fn(&Event<K>, &Store<K>) + Send + Sync>>>;

/// Changes of a kind.
pub type Changes<K> = BoxStream<'static, Result<K, watcher::Error>>;

/// Objects that the changes of a kind name. A closed watch reopens automatically.
fn named<K, T>(
    changes: Changes<K>,
    whom: impl Fn(&K) -> Option<ObjectRef<T>> + Send + 'static,
) -> impl Stream<Item = ObjectRef<T>> + Send + 'static
where
    K: Resource<DynamicType = ()> + 'static,
    T: Resource<DynamicType = ()> + 'static,
{
    changes.filter_map(move |change| {
        let named = match &change {
            Ok(object) => whom(object),
            Err(cause) => {
                warn!(kind = %K::kind(&()), %cause, "a watch was closed; reopening it");
                None
            }
        };
        std::future::ready(named)
    })
}

/// A queue that also receives the changes of the Jobs of its objects and of their pods, and the stores of both.
/// A Repository passes no `slots`: its own Jobs stand in no queue.
pub fn with_jobs<K>(queue: Queue<K>, client: &Client, scope: &Scope, slots: Option<&Slots>) -> (Queue<K>, Children)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let config = watcher::Config::default().labels(&format!("{}={}", label::SESSION_KIND, K::kind(&())));
    let slots = slots.cloned();
    let line_up = move |event: &Event<Kept<Job>>, store: &Store<Kept<Job>>| {
        if let Some(slots) = &slots {
            slots.on_job::<K>(event, store);
        }
    };
    let (jobs, changed_jobs) = changes::<Kept<Job>>(client, scope, config.clone(), children::keys_of_job, line_up);
    let (pods, changed_pods) = changes::<Kept<Pod>>(client, scope, config, children::keys_of_pod, |_, _| {});
    let queue = queue.on(named(changed_jobs, |job| session_of(job))).on(named(changed_pods, |pod| session_of(pod)));
    (queue, Children { jobs, pods })
}

/// Watches a kind. Returns its indexed store, and its changes, each reported after the store has it.
/// `on_event` follows the store.
pub fn changes<K>(
    client: &Client,
    scope: &Scope,
    config: watcher::Config,
    keys: Keys<K>,
    on_event: impl Fn(&Event<K>, &Store<K>) + Send + 'static,
) -> (Indexed<K>, Changes<K>)
where
    K: Counted + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::Scope: Place,
{
    let (store, writer): (Store<K>, Writer<K>) = reflector::store();
    let indexed = Indexed::new(store, keys);
    let follows = indexed.clone();
    let parts = K::Scope::parts(client, scope, &config.page_size(PAGE));
    let stream = scope::events(client, parts, indexed.store.clone())
        .reflect(writer)
        .inspect_ok(move |event| {
            follows.on_event(event);
            on_event(event, &follows.store);
        })
        .touched_objects();
    (indexed, stream.boxed())
}

/// The session that a Job or a pod works for.
fn session_of<K: Resource<DynamicType = ()>, C: Keep>(child: &Kept<C>) -> Option<ObjectRef<K>> {
    let metadata = child.open_metadata();
    let name = metadata.annotations.as_ref()?.get(annotation::SESSION_NAME)?;
    Some(ObjectRef::new(name).within(metadata.namespace.as_deref()?))
}
