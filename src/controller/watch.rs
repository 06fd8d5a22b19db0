//! Watches that fill a store and wake a reconcile in one stream, so that a
//! reconcile never looks at a store older than what woke it.

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};

use super::context::Children;
use crate::names::{annotation, label};

/// Watched Jobs and pods of one kind of session.
pub struct Watched<J, P> {
    /// The stores.
    pub children: Children,
    /// Jobs as they change.
    pub jobs: J,
    /// Pods as they change.
    pub pods: P,
}

type Changes<K> = futures::stream::BoxStream<'static, Result<K, watcher::Error>>;

/// Watches the Jobs and pods of one kind of session.
pub fn children(client: &Client, kind: &str) -> Watched<Changes<Job>, Changes<Pod>> {
    let config = watcher::Config::default().labels(&format!("{}={kind}", label::SESSION_KIND));
    let (jobs_store, jobs) = changes::<Job>(client, config.clone());
    let (pods_store, pods) = changes::<Pod>(client, config);
    Watched { children: Children { jobs: jobs_store, pods: pods_store }, jobs, pods }
}

fn changes<K>(client: &Client, config: watcher::Config) -> (Store<K>, Changes<K>)
where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
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
pub fn session_of<K: Resource<DynamicType = ()>>(pod: &Pod) -> Option<ObjectRef<K>> {
    let name = pod.annotations().get(annotation::SESSION_NAME)?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}
