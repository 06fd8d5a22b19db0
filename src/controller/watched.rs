//! Objects that others write: targets, and what belongs to them.
//!
//! Each kind is watched from the first time that one of it is asked for, so that
//! an operator that restores claims watches no Deployments, and looks cost the API
//! server nothing. Whoever is about to overwrite data asks the API server itself.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, ReplicationController};
use kube::api::ListParams;
use kube::core::{NamespaceResourceScope, Selector, SelectorExt as _};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::context::Context;
use super::index::{Indexed, Keys};
use super::scope::{Place, Scope};
use super::{pages, watch};
use crate::names::label;
use crate::plan::kept::{Keep, Kept};

/// Longest wait for the first fill of a store. Beyond it the API server is asked, whose answer says what is wrong.
const FILLS_WITHIN: Duration = Duration::from_secs(10);

/// One kind, watched from the first question on.
pub struct Lookup<K: Keep + Sync + 'static> {
    client: Client,
    scope: Scope,
    config: watcher::Config,
    keys: Keys<Kept<K>>,
    opened: OnceLock<(Indexed<Kept<K>>, JoinHandle<()>)>,
    filled: Sender<bool>,
    silent: AtomicBool,
}

impl<K: Keep + Debug + Send + Sync + 'static> Lookup<K>
where
    K::Scope: Place,
{
    /// Not watched yet. Objects are found by name; `keys` says by what else.
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
    async fn filled(&self) -> Option<&Indexed<Kept<K>>> {
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

    fn open(&self) -> (Indexed<Kept<K>>, JoinHandle<()>) {
        info!(kind = %K::kind(&()), "watching from now on");
        let filled = self.filled.clone();
        let hear = move |event: &Event<Kept<K>>, _: &Store<Kept<K>>| {
            if matches!(event, Event::InitDone) {
                filled.send_replace(true);
            }
        };
        let (indexed, changes) = watch::changes(&self.client, &self.scope, self.config.clone(), self.keys, hear);
        // Nobody is woken: who waits looks again by itself.
        let task = tokio::spawn(changes.for_each(async |_| {}));
        (indexed, task)
    }
}

impl<K: Keep + Sync + 'static> Drop for Lookup<K> {
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
    pub fn new(client: &Client, scope: &Scope) -> Self {
        fn named<K: Keep + Debug + Send + Sync + 'static>(client: &Client, scope: &Scope) -> Lookup<K>
        where
            K::Scope: Place,
        {
            Lookup::new(client, scope, watcher::Config::default(), |_| vec![])
        }
        let not_ours = format!("{}!={}", label::MANAGED_BY, label::MANAGED_BY_VALUE);
        Self {
            claims: named(client, scope),
            pods: Lookup::new(client, scope, watcher::Config::default().labels(&not_ours), keys_of_pod),
            deployments: named(client, scope),
            stateful_sets: named(client, scope),
            daemon_sets: named(client, scope),
            replica_sets: named(client, scope),
            replication_controllers: named(client, scope),
            autoscalers: Lookup::new(client, scope, watcher::Config::default(), keys_of_autoscaler),
            namespaces: named(client, scope),
        }
    }

    /// A Namespace.
    ///
    /// # Errors
    /// It is not watched, and the API server could not be asked.
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
fn keys_of_autoscaler(autoscaler: &Kept<HorizontalPodAutoscaler>) -> Vec<String> {
    let of = |spec: HorizontalPodAutoscalerSpec| (spec.scale_target_ref.kind, spec.scale_target_ref.name);
    let spec = autoscaler.open().spec.filter(|s| s.min_replicas == Some(0));
    let (namespace, target) = (autoscaler.namespace().unwrap_or_default(), spec.map(of));
    target.map(|(kind, name)| scaler_of(&namespace, &kind, &name)).into_iter().collect()
}

/// Key of autoscalers of a workload.
fn scaler_of(namespace: &str, kind: &str, name: &str) -> String {
    format!("{namespace}/{kind}/{name}")
}

/// Key of pods that use a claim.
fn user_of(namespace: &str, claim: &str) -> String {
    format!("{namespace}/{claim}")
}

/// Claims that a pod uses.
pub fn claims(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// A kind of [`Watched`] that lives in namespaces.
pub trait Kind:
    Keep + Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Debug + Send + Sync + 'static
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
    pub async fn get<K: Kind>(&self, name: &str) -> kube::Result<Option<K>> {
        match self.watched_kind::<K>().await {
            Some(indexed) => Ok(indexed.get(&ObjectRef::new(name).within(self.namespace)).map(|o| o.open())),
            None => Ok(self.api::<K>().get_opt(name).await?.map(|o| o.open())),
        }
    }

    /// The same, past the watches.
    #[must_use]
    pub fn at_once(self) -> Self {
        Self { now: true, ..self }
    }

    /// Pods whose labels match. Ours may be left out.
    ///
    /// # Errors
    /// The API server had to be asked, and could not be or refused.
    pub async fn pods(&self, selector: &Selector) -> kube::Result<Vec<Pod>> {
        match self.watched_kind::<Pod>().await {
            // Those of others stand with their labels outside; a namespace may have many, and a batch many targets.
            Some(indexed) => {
                let all = indexed.with(self.namespace).into_iter();
                Ok(all.filter(|p| selector.matches(p.labels())).map(|p| p.open()).collect())
            }
            None => self.listed(selector).await,
        }
    }

    /// Names of autoscalers that scale a workload up from zero.
    ///
    /// # Errors
    /// The API server had to be asked, and could not be or refused.
    pub async fn scalers(&self, kind: &str, name: &str) -> kube::Result<Vec<String>> {
        let key = scaler_of(self.namespace, kind, name);
        let Some(indexed) = self.watched_kind::<HorizontalPodAutoscaler>().await else {
            let all: Vec<HorizontalPodAutoscaler> = self.listed(&Selector::default()).await?;
            let all = all.into_iter().map(Kept::from).filter(|a| keys_of_autoscaler(a).contains(&key));
            return Ok(all.map(|a| a.name_any()).collect());
        };
        Ok(indexed.with(&key).iter().map(|a| a.name_any()).collect())
    }

    /// Objects as the API server has them, and as the watches keep them.
    async fn listed<K: Kind>(&self, selector: &Selector) -> kube::Result<Vec<K>> {
        pages::all(self.ctx.client.clone(), self.namespace, &ListParams::default().labels_from(selector)).await
    }

    /// Pods that use any of these claims. Ours may be left out.
    ///
    /// # Errors
    /// The API server had to be asked, and could not be or refused.
    pub async fn users_of(&self, names: &[&str]) -> kube::Result<Vec<Pod>> {
        let Some(indexed) = self.watched_kind::<Pod>().await else {
            let mut all: Vec<Pod> = self.listed(&Selector::default()).await?;
            all.retain(|pod| claims(pod).any(|c| names.contains(&c)));
            return Ok(all);
        };
        // One may use several.
        let mut found = BTreeMap::new();
        for pod in names.iter().flat_map(|name| indexed.with(&user_of(self.namespace, name))) {
            found.entry(pod.name_any()).or_insert_with(|| pod.open());
        }
        Ok(found.into_values().collect())
    }

    /// The store of the kind, where it may be read from.
    async fn watched_kind<K: Kind>(&self) -> Option<&'a Indexed<Kept<K>>> {
        if self.now { None } else { K::lookup(&self.ctx.watched).filled().await }
    }

    fn api<K: Kind>(&self) -> Api<Kept<K>> {
        Api::namespaced(self.ctx.client.clone(), self.namespace)
    }
}
