//! Objects that others write: targets, and what belongs to them.
//!
//! Each kind is watched from the first time that one of it is asked for, so that
//! an operator that restores claims watches no Deployments, and looks cost the API
//! server nothing. Whoever is about to overwrite data asks the API server itself.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    Namespace, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, PodSpec, PodStatus, ReplicationController, Volume,
};
use kube::api::ListParams;
use kube::core::{NamespaceResourceScope, Selector, SelectorExt as _};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::context::Context;
use super::index::Indexed;
use super::watch;

/// Longest wait for the first fill of a store. Beyond it the API server is asked, whose answer says what is wrong.
const FILLS_WITHIN: Duration = Duration::from_secs(10);

/// One kind, watched from the first question on.
pub struct Lookup<K: Resource<DynamicType = ()> + Clone + 'static> {
    client: Client,
    prune: fn(&mut K),
    opened: OnceLock<(Indexed<K>, JoinHandle<()>)>,
    filled: Sender<bool>,
    silent: AtomicBool,
}

impl<K> Lookup<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Not watched yet. `prune` takes off what nobody reads.
    pub fn new(client: &Client, prune: fn(&mut K)) -> Self {
        Self {
            client: client.clone(),
            prune,
            opened: OnceLock::new(),
            filled: Sender::new(false),
            silent: AtomicBool::new(false),
        }
    }

    /// The store, once it is filled; `None` when it does not fill.
    async fn filled(&self) -> Option<&Indexed<K>> {
        let (indexed, _) = self.opened.get_or_init(|| self.open());
        // Who has waited once in vain does not wait again.
        let patience = if self.silent.load(Ordering::Relaxed) { Duration::ZERO } else { FILLS_WITHIN };
        // Not the store's own `wait_until_ready`: of many who wait there at once, some are never woken.
        let mut filled = self.filled.subscribe();
        if let Ok(Ok(_)) = tokio::time::timeout(patience, filled.wait_for(|f| *f)).await {
            return Some(indexed);
        }
        if !self.silent.swap(true, Ordering::Relaxed) {
            warn!(kind = %K::kind(&()), "the watch does not come up; the API server is asked each time");
        }
        None
    }

    fn open(&self) -> (Indexed<K>, JoinHandle<()>) {
        info!(kind = %K::kind(&()), "watching from now on");
        let filled = self.filled.clone();
        let hear = move |event: &Event<K>, _: &Store<K>| {
            if matches!(event, Event::InitDone) {
                filled.send_replace(true);
            }
        };
        let by_namespace = |object: &K| object.meta().namespace.iter().cloned().collect();
        let (indexed, changes) =
            watch::changes(&self.client, watcher::Config::default(), self.prune, by_namespace, hear);
        // Nobody is woken: who waits looks again by itself.
        let task = tokio::spawn(changes.for_each(async |_| {}));
        (indexed, task)
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Drop for Lookup<K> {
    fn drop(&mut self) {
        if let Some((_, task)) = self.opened.get() {
            task.abort();
        }
    }
}

/// Kinds that targets are made of.
pub struct Watched {
    claims: Lookup<PersistentVolumeClaim>,
    pods: Lookup<Pod>,
    deployments: Lookup<Deployment>,
    stateful_sets: Lookup<StatefulSet>,
    daemon_sets: Lookup<DaemonSet>,
    replica_sets: Lookup<ReplicaSet>,
    replication_controllers: Lookup<ReplicationController>,
    autoscalers: Lookup<HorizontalPodAutoscaler>,
    namespaces: Lookup<Namespace>,
}

impl Watched {
    /// Nothing is watched yet.
    pub fn new(client: &Client) -> Self {
        Self {
            claims: Lookup::new(client, prune_claim),
            pods: Lookup::new(client, prune_pod),
            deployments: Lookup::new(client, |_| {}),
            stateful_sets: Lookup::new(client, |_| {}),
            daemon_sets: Lookup::new(client, |_| {}),
            replica_sets: Lookup::new(client, |_| {}),
            replication_controllers: Lookup::new(client, |_| {}),
            autoscalers: Lookup::new(client, |_| {}),
            namespaces: Lookup::new(client, |_| {}),
        }
    }

    /// A Namespace.
    ///
    /// # Errors
    /// It is not watched, and the API server could not be asked.
    pub async fn namespace(&self, name: &str) -> kube::Result<Option<Arc<Namespace>>> {
        match self.namespaces.filled().await {
            Some(indexed) => Ok(indexed.get(&ObjectRef::new(name))),
            None => Ok(Api::all(self.namespaces.client.clone()).get_opt(name).await?.map(Arc::new)),
        }
    }
}

/// A kind of [`Watched`] that lives in namespaces.
pub trait Kind:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
    /// Where it is.
    fn lookup(all: &Watched) -> &Lookup<Self>;
}

macro_rules! kinds {
    ($($kind:ty: $field:ident,)*) => {
        $(impl Kind for $kind {
            fn lookup(all: &Watched) -> &Lookup<Self> {
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

/// How a look reads one namespace.
#[derive(Clone, Copy)]
pub struct Reads<'a> {
    ctx: &'a Context,
    /// The namespace.
    pub namespace: &'a str,
    now: bool,
}

impl<'a> Reads<'a> {
    /// From the watches, which lag behind by as much as the API server takes to tell.
    pub fn watched(ctx: &'a Context, namespace: &'a str) -> Self {
        Self { ctx, namespace, now: false }
    }

    /// As the API server has it at this moment.
    pub fn now(ctx: &'a Context, namespace: &'a str) -> Self {
        Self { ctx, namespace, now: true }
    }

    /// The way to the API server.
    pub fn client(&self) -> Client {
        self.ctx.client.clone()
    }

    /// The object of a name.
    ///
    /// # Errors
    /// The API server had to be asked, and could not be or refused.
    pub async fn get<K: Kind>(&self, name: &str) -> kube::Result<Option<Arc<K>>> {
        let lookup = K::lookup(&self.ctx.watched);
        if !self.now
            && let Some(indexed) = lookup.filled().await
        {
            return Ok(indexed.get(&ObjectRef::new(name).within(self.namespace)));
        }
        Ok(Api::namespaced(lookup.client.clone(), self.namespace).get_opt(name).await?.map(Arc::new))
    }

    /// The same, past the watches.
    #[must_use]
    pub fn at_once(self) -> Self {
        Self { now: true, ..self }
    }

    /// Objects of the kind whose labels match.
    ///
    /// # Errors
    /// The API server had to be asked, and could not be or refused.
    pub async fn list<K: Kind>(&self, selector: &Selector) -> kube::Result<Vec<Arc<K>>> {
        let lookup = K::lookup(&self.ctx.watched);
        if !self.now
            && let Some(indexed) = lookup.filled().await
        {
            let all = indexed.with(self.namespace).into_iter();
            return Ok(all.filter(|o| selector.matches(o.labels())).collect());
        }
        let params = ListParams::default().labels_from(selector);
        let all = Api::<K>::namespaced(lookup.client.clone(), self.namespace).list(&params).await?;
        Ok(all.items.into_iter().map(Arc::new).collect())
    }
}

fn prune_claim(claim: &mut PersistentVolumeClaim) {
    claim.status = None;
    if let Some(spec) = &mut claim.spec {
        let (access_modes, volume_mode) = (spec.access_modes.take(), spec.volume_mode.take());
        *spec = PersistentVolumeClaimSpec { access_modes, volume_mode, ..Default::default() };
    }
}

/// Of every pod of the cluster as little as can be: which claims it uses, and where.
fn prune_pod(pod: &mut Pod) {
    pod.annotations_mut().clear();
    pod.metadata.owner_references = None;
    pod.status = pod.status.take().map(|s| PodStatus { phase: s.phase, ..Default::default() });
    pod.spec = pod.spec.take().map(|s| {
        let of_claims = s.volumes.into_iter().flatten().filter(|v| v.persistent_volume_claim.is_some());
        let of_claims = of_claims.map(|v| Volume {
            name: v.name,
            persistent_volume_claim: v.persistent_volume_claim,
            ..Default::default()
        });
        PodSpec {
            volumes: Some(of_claims.collect()),
            node_name: s.node_name,
            tolerations: s.tolerations,
            affinity: s.affinity,
            ..Default::default()
        }
    });
}
