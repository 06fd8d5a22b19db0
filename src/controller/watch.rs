//! Watches that fill a store and wake a reconcile in one stream, so that a
//! reconcile never looks at a store older than what woke it.

use std::fmt::Debug;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};

use serde::de::DeserializeOwned;

use super::context::Children;
use crate::names::{annotation, label};

/// Looks that run at once, for each kind. A look waits for the API server only.
const CONCURRENCY: u16 = 16;

/// Objects of one kind that users write, as they change. The store is filled before a change is heard of.
pub struct Source<K: Resource<DynamicType = ()> + 'static> {
    /// The store.
    pub store: Store<K>,
    changes: Changes<K>,
    /// Wakes the reconcile of one.
    pub bell: UnboundedSender<ObjectRef<K>>,
    rung: UnboundedReceiver<ObjectRef<K>>,
}

impl<K> Source<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Watches all objects of the kind.
    pub fn new(client: &Client) -> Self {
        let (store, changes) = changes::<K>(client, watcher::Config::default());
        let (bell, rung) = futures::channel::mpsc::unbounded();
        Self { store, changes, bell, rung }
    }

    /// Has a change also wake those of another kind that `whom` names; they look after the store has the change.
    pub fn tell<T>(&mut self, other: &Source<T>, whom: impl Fn(&K) -> Vec<ObjectRef<T>> + Send + 'static)
    where
        T: Resource<DynamicType = ()> + 'static,
    {
        let bell = other.bell.clone();
        let changes = std::mem::replace(&mut self.changes, futures::stream::empty().boxed());
        let told = changes.inspect_ok(move |object| {
            for one in whom(object) {
                // Nobody listens only while the operator stops.
                let _ = bell.unbounded_send(one);
            }
        });
        self.changes = told.boxed();
    }

    /// A controller that hears of all of it.
    pub fn controller(self) -> Controller<K> {
        Controller::for_stream(self.changes, self.store)
            .reconcile_on(self.rung)
            .with_config(Config::default().concurrency(CONCURRENCY))
    }
}

type Changes<K> = futures::stream::BoxStream<'static, Result<K, watcher::Error>>;

/// A controller that also hears of the Jobs of its objects, and their pods, and the stores of those.
pub fn with_jobs<K>(controller: Controller<K>, client: &Client) -> (Controller<K>, Children)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let config = watcher::Config::default().labels(&format!("{}={}", label::SESSION_KIND, K::kind(&())));
    let (jobs, changed_jobs) = changes::<Job>(client, config.clone());
    let (pods, changed_pods) = changes::<Pod>(client, config);
    let controller = controller.owns_stream(changed_jobs).watches_stream(changed_pods, |pod| session_of(&pod));
    (controller, Children { jobs, pods })
}

fn changes<K>(client: &Client, config: watcher::Config) -> (Store<K>, Changes<K>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (store, writer): (Store<K>, Writer<K>) = reflector::store();
    let stream = watcher(Api::<K>::all(client.clone()), config)
        .default_backoff()
        // Half of an object's memory, and nothing here reads it.
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects();
    (store, boxed(stream))
}

fn boxed<K: Send + 'static>(stream: impl Stream<Item = Result<K, watcher::Error>> + Send + 'static) -> Changes<K> {
    stream.boxed()
}

/// The session that a pod works for.
fn session_of<K: Resource<DynamicType = ()>>(pod: &Pod) -> Option<ObjectRef<K>> {
    let name = pod.annotations().get(annotation::SESSION_NAME)?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}
