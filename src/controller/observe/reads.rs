//! Sources of the reads of a decision: the API server, and the stores that watches fill.
//!
//! [`Reads`] takes a client and stores. It uses no leader election, no slots and no metrics, so that any code can use
//! it to see what the operator would see. It never writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::{NamespaceResourceScope, Selector, SelectorExt as _};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt as _};

use crate::admission::seal::Key;
use crate::controller::cache::index::Indexed;
use crate::controller::cache::informers::{Informers, Kind, claims, keys_of_autoscaler, scaler_of, user_of};
use crate::controller::cache::pages;
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::cache::stores::Stores;
use crate::controller::observe::progress::ProgressClient;
use crate::controller::observe::secrets::Secrets;
use crate::plan::seen::compact::Kept;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The webhook's seals, which identify an object whose author may run code.
pub trait Seals: Send + Sync {
    /// The key that the seals are made with; `None` when no webhook makes seals.
    fn key(&self) -> BoxFuture<'_, kube::Result<Option<Arc<Key>>>>;
}

/// The reads of a decision.
pub struct Reads {
    /// The API server.
    pub client: Client,
    /// Objects that users write, and the Jobs that are created for them.
    pub stores: Stores,
    /// Targets, and the objects that belong to them.
    pub informers: Informers,
    /// Which backend Secrets exist.
    pub secrets: Secrets,
    /// Asks running Jobs for their progress.
    pub progress: ProgressClient,
    /// The seals that objects need if they ask for rights. With `None`, a user who may create an object may set all of
    /// its fields.
    pub seals: Option<Arc<dyn Seals>>,
    clock: Clock,
}

impl Reads {
    /// Reads from a client and stores, by the local clock, of a cluster where no object needs a seal.
    pub fn new(client: Client, stores: Stores) -> Self {
        Self {
            informers: Informers::new(&client, &stores.scope),
            client,
            stores,
            secrets: Secrets::default(),
            progress: ProgressClient::default(),
            seals: None,
            clock: Arc::new(Timestamp::now),
        }
    }

    /// The same, where objects that ask for rights need a seal.
    #[must_use]
    pub fn sealed(self, seals: Option<Arc<dyn Seals>>) -> Self {
        Self { seals, ..self }
    }

    /// The same, by another clock.
    #[must_use]
    pub fn by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The current time; decisions get the time only here.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// An object from a store. An object that is not in the store is read from the API server: a session that was
    /// created together with its invoker can be seen before the invoker, and a session that is skipped because it has
    /// no invoker is never reconciled again.
    ///
    /// # Errors
    /// A request to the API server was needed, and failed or was refused.
    pub async fn current<K>(
        &self,
        store: &Indexed<Stored<K>>,
        namespace: &str,
        name: &str,
    ) -> kube::Result<Option<Stored<K>>>
    where
        K: UserKind + Resource<Scope = NamespaceResourceScope>,
    {
        match store.get(&ObjectRef::new(name).within(namespace)) {
            Some(found) => Ok(Some(found.as_ref().clone())),
            None => Api::<Stored<K>>::namespaced(self.client.clone(), namespace).get_opt(name).await,
        }
    }

    /// One namespace from the watches, which lag behind by the time that the API server takes to report changes.
    pub fn cached<'a>(&'a self, namespace: &'a str) -> Reader<'a> {
        Reader { reads: self, namespace, now: false }
    }

    /// One namespace as the API server has it at this moment.
    pub fn live<'a>(&'a self, namespace: &'a str) -> Reader<'a> {
        Reader { reads: self, namespace, now: true }
    }
}

/// Reads one namespace.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    reads: &'a Reads,
    /// The namespace.
    pub namespace: &'a str,
    now: bool,
}

impl<'a> Reader<'a> {
    /// The client for the API server.
    pub fn client(&self) -> Client {
        self.reads.client.clone()
    }

    /// The object with this name.
    ///
    /// # Errors
    /// A request to the API server was needed, and failed or was refused.
    pub async fn get<K: Kind>(&self, name: &str) -> kube::Result<Option<K>> {
        match self.watched_kind::<K>().await {
            Some(indexed) => Ok(indexed.get(&ObjectRef::new(name).within(self.namespace)).map(|o| o.open())),
            None => Ok(self.api::<K>().get_opt(name).await?.map(|o| o.open())),
        }
    }

    /// The same reader, without the watches.
    #[must_use]
    pub fn at_once(self) -> Self {
        Self { now: true, ..self }
    }

    /// Pods whose labels match. Lifeboat's own pods may be left out.
    ///
    /// # Errors
    /// A request to the API server was needed, and failed or was refused.
    pub async fn pods(&self, selector: &Selector) -> kube::Result<Vec<Pod>> {
        match self.watched_kind::<Pod>().await {
            // The labels of other pods are kept outside of the text; a namespace may have many pods, and a batch many
            // targets.
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
    /// A request to the API server was needed, and failed or was refused.
    pub async fn scalers(&self, kind: &str, name: &str) -> kube::Result<Vec<String>> {
        let key = scaler_of(self.namespace, kind, name);
        let Some(indexed) = self.watched_kind::<HorizontalPodAutoscaler>().await else {
            let all: Vec<HorizontalPodAutoscaler> = self.listed(&Selector::default()).await?;
            let all = all.into_iter().map(Kept::from).filter(|a| keys_of_autoscaler(a).contains(&key));
            return Ok(all.map(|a| a.name_any()).collect());
        };
        Ok(indexed.with(&key).iter().map(|a| a.name_any()).collect())
    }

    /// Objects from the API server, in the form that the watches keep.
    async fn listed<K: Kind>(&self, selector: &Selector) -> kube::Result<Vec<K>> {
        pages::all(self.reads.client.clone(), self.namespace, &ListParams::default().labels_from(selector)).await
    }

    /// Pods that use any of these claims. Lifeboat's own pods may be left out.
    ///
    /// # Errors
    /// A request to the API server was needed, and failed or was refused.
    pub async fn users_of(&self, names: &[&str]) -> kube::Result<Vec<Pod>> {
        let Some(indexed) = self.watched_kind::<Pod>().await else {
            let mut all: Vec<Pod> = self.listed(&Selector::default()).await?;
            all.retain(|pod| claims(pod).any(|c| names.contains(&c)));
            return Ok(all);
        };
        // A pod may use several claims.
        let mut found = BTreeMap::new();
        for pod in names.iter().flat_map(|name| indexed.with(&user_of(self.namespace, name))) {
            found.entry(pod.name_any()).or_insert_with(|| pod.open());
        }
        Ok(found.into_values().collect())
    }

    /// The store of the kind, if this reader may use it.
    async fn watched_kind<K: Kind>(&self) -> Option<&'a Indexed<Kept<K>>> {
        if self.now { None } else { K::informer(&self.reads.informers).filled().await }
    }

    fn api<K: Kind>(&self) -> Api<Kept<K>> {
        Api::namespaced(self.reads.client.clone(), self.namespace)
    }
}

#[cfg(test)]
mod tests;
