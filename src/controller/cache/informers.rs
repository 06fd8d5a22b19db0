//! Informers of objects that are not Lifeboat's own: targets, and the objects that belong to them.
//!
//! Each kind is watched from the first read of an object of that kind, so that
//! an operator that restores claims watches no Deployments, and reconciles cost the
//! API server nothing. Code that is about to overwrite data reads from the API server itself.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, ReplicationController};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::controller::cache::index::{Indexed, Keys};
use crate::controller::cache::scope::{Place, Scope};
use crate::controller::cache::sources;
use crate::names::label;
use crate::plan::seen::compact::{Keep, Kept};

/// Longest wait for the first fill of a store. After it the API server is asked, whose answer says what is wrong.
const FILLS_WITHIN: Duration = Duration::from_secs(10);

/// One kind, watched from the first read on.
pub struct Informer<K: Keep + Sync + 'static> {
    client: Client,
    scope: Scope,
    config: watcher::Config,
    keys: Keys<Kept<K>>,
    opened: OnceLock<(Indexed<Kept<K>>, JoinHandle<()>)>,
    filled: Sender<bool>,
    silent: AtomicBool,
}

impl<K: Keep + Debug + Send + Sync + 'static> Informer<K>
where
    K::Scope: Place,
{
    /// An informer that does not watch yet. Objects are found by name, and by `keys`.
    pub fn new(client: &Client, scope: &Scope, config: watcher::Config, keys: Keys<Kept<K>>) -> Self {
        Self {
            client: client.clone(),
            scope: scope.clone(),
            config,
            keys,
            opened: OnceLock::new(),
            filled: Sender::new(false),
            silent: AtomicBool::new(false),
        }
    }

    /// The store, once it is filled; `None` when it does not fill.
    pub async fn filled(&self) -> Option<&Indexed<Kept<K>>> {
        let (indexed, _) = self.opened.get_or_init(|| self.open());
        // After one wait has timed out, no read waits again.
        let patience = if self.silent.load(Ordering::Relaxed) { Duration::ZERO } else { FILLS_WITHIN };
        // Not the store's own `wait_until_ready`: of many tasks that wait there at once, some are never woken.
        let mut filled = self.filled.subscribe();
        if let Ok(Ok(_)) = tokio::time::timeout(patience, filled.wait_for(|f| *f)).await {
            return Some(indexed);
        }
        if !self.silent.swap(true, Ordering::Relaxed) {
            warn!(kind = %K::kind(&()), "the watch could not be opened; reading from the API server");
        }
        None
    }

    fn open(&self) -> (Indexed<Kept<K>>, JoinHandle<()>) {
        info!(kind = %K::kind(&()), "watching from now on");
        let filled = self.filled.clone();
        let hear = move |event: &Event<Kept<K>>, _: &Store<Kept<K>>| {
            if matches!(event, Event::InitDone) {
                filled.send_replace(true);
            }
        };
        let (indexed, changes) = sources::changes(&self.client, &self.scope, self.config.clone(), self.keys, hear);
        let guard = Unfilled(self.filled.clone());
        // A change triggers no reconcile: an object that waits is requeued anyway.
        let task = tokio::spawn(async move {
            let _guard = guard;
            changes.for_each(async |_| {}).await;
        });
        (indexed, task)
    }
}

/// When the watch ends, which only a defect does, the store is not read any more.
struct Unfilled(Sender<bool>);

impl Drop for Unfilled {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl<K: Keep + Sync + 'static> Drop for Informer<K> {
    fn drop(&mut self) {
        if let Some((_, task)) = self.opened.get() {
            task.abort();
        }
    }
}

/// Kinds that targets are made of.
pub struct Informers {
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
    deployments: Informer<Deployment>,
    stateful_sets: Informer<StatefulSet>,
    daemon_sets: Informer<DaemonSet>,
    replica_sets: Informer<ReplicaSet>,
    replication_controllers: Informer<ReplicationController>,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    namespaces: Informer<Namespace>,
}

impl Informers {
    /// Nothing is watched yet.
    pub fn new(client: &Client, scope: &Scope) -> Self {
        fn named<K: Keep + Debug + Send + Sync + 'static>(client: &Client, scope: &Scope) -> Informer<K>
        where
            K::Scope: Place,
        {
            Informer::new(client, scope, watcher::Config::default(), |_| vec![])
        }
        let not_ours = format!("{}!={}", label::MANAGED_BY, label::MANAGED_BY_VALUE);
        Self {
            claims: named(client, scope),
            pods: Informer::new(client, scope, watcher::Config::default().labels(&not_ours), keys_of_pod),
            deployments: named(client, scope),
            stateful_sets: named(client, scope),
            daemon_sets: named(client, scope),
            replica_sets: named(client, scope),
            replication_controllers: named(client, scope),
            autoscalers: Informer::new(client, scope, watcher::Config::default(), keys_of_autoscaler),
            namespaces: named(client, scope),
        }
    }

    /// A Namespace.
    ///
    /// # Errors
    /// Namespaces are not watched, and the request to the API server failed.
    pub async fn namespace(&self, name: &str) -> kube::Result<Option<Namespace>> {
        if let Some(indexed) = self.namespaces.filled().await {
            return Ok(indexed.get(&ObjectRef::new(name)).map(|n| n.open()));
        }
        let api = Api::<Kept<Namespace>>::all(self.namespaces.client.clone());
        Ok(api.get_opt(name).await?.map(|n| n.open()))
    }
}

/// Keys of a pod: its namespace, and each claim that it uses.
fn keys_of_pod(pod: &Kept<Pod>) -> Vec<String> {
    let Some(namespace) = pod.namespace() else { return vec![] };
    let claims = claims(&pod.open()).map(|c| user_of(&namespace, c)).collect::<Vec<_>>();
    [vec![namespace], claims].concat()
}

/// Key of an autoscaler: the workload that it scales up from zero.
pub fn keys_of_autoscaler(autoscaler: &Kept<HorizontalPodAutoscaler>) -> Vec<String> {
    let of = |spec: HorizontalPodAutoscalerSpec| (spec.scale_target_ref.kind, spec.scale_target_ref.name);
    let spec = autoscaler.open().spec.filter(|s| s.min_replicas == Some(0));
    let (namespace, target) = (autoscaler.namespace().unwrap_or_default(), spec.map(of));
    target.map(|(kind, name)| scaler_of(&namespace, &kind, &name)).into_iter().collect()
}

/// Key of autoscalers of a workload.
pub fn scaler_of(namespace: &str, kind: &str, name: &str) -> String {
    format!("{namespace}/{kind}/{name}")
}

/// Key of pods that use a claim.
pub fn user_of(namespace: &str, claim: &str) -> String {
    format!("{namespace}/{claim}")
}

/// Claims that a pod uses.
pub fn claims(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// A namespaced kind of [`Informers`].
pub trait Kind:
    Keep + Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Debug + Send + Sync + 'static
{
    /// The informer of this kind.
    fn informer(all: &Informers) -> &Informer<Self>;
}

macro_rules! kinds {
    ($($kind:ty: $field:ident,)*) => {
        $(impl Kind for $kind {
            fn informer(all: &Informers) -> &Informer<Self> {
                &all.$field
            }
        })*
    };
}
kinds! {
    PersistentVolumeClaim: claims,
    Pod: pods,
    Deployment: deployments,
    StatefulSet: stateful_sets,
    DaemonSet: daemon_sets,
    ReplicaSet: replica_sets,
    ReplicationController: replication_controllers,
    HorizontalPodAutoscaler: autoscalers,
}
