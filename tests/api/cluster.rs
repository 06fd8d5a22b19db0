//! The API server: creates and reads objects, and waits for changes by others.

#[path = "turns.rs"]
mod turns;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::Request;
use k8s_openapi::api::events::v1::Event;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

pub use self::turns::Turn;

/// Held while a test installs missing definitions; other tests wait for it.
static DEFINITIONS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// Namespace of the operator of a test that has the cluster to itself, as in the chart.
const SYSTEM: &str = "lifeboat-system";

/// Longest wait for an immediate action of the operator or the API server. Only a failure waits that long: a machine
/// that has just built all this is slow.
pub const SOON: Duration = Duration::from_secs(30);
/// Pause between two polls of a wait: a tenth of the time waited so far, within these limits. Many tests wait at once,
/// and each poll costs the API server time that the operators need.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(500);

const CLUSTER_SCOPED: [&str; 13] = [
    "BackupBlueprint",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Function",
    "MutatingWebhookConfiguration",
    "Namespace",
    "PersistentVolume",
    "StorageClass",
    "Task",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
];

/// The cluster, as one test uses it.
pub struct Cluster {
    pub client: Client,
    /// Namespace of the test's operators, with their Lease and their Secrets.
    pub home: String,
    /// Whether the operators work only in the namespaces that the test has created.
    is_limited: bool,
    /// Namespaces that the test has created.
    made: Mutex<Vec<String>>,
    /// Dropped last, after the test's objects. `None` for another user of the same test.
    turn: Option<Turn>,
}

/// What is printed of the runs and Jobs of a test that failed.
const STANDING: &str = "custom-columns=KIND:.kind,NAME:.metadata.name,STEP:.metadata.annotations.lifeboat\\.stash\\.appscode\\.com/step-key,\
PHASE:.status.phase,CONDITIONS:.status.conditions[*].type,SUMMARY:.status.summary,MEMBERS:.status.members[*].message";

impl Drop for Cluster {
    /// When the test has failed: prints what its runs wait for, before its namespaces are forgotten.
    fn drop(&mut self) {
        if !std::thread::panicking() || self.turn.is_none() {
            return;
        }
        let kinds = "restoresessions,restorebatches,backupsessions,jobs";
        for namespace in self.made.lock().unwrap_or_else(PoisonError::into_inner).iter().take(4) {
            let get = ["get", kinds, "--namespace", namespace, "--output", STANDING, "--request-timeout", "10s"];
            if let Ok(got) = std::process::Command::new("kubectl").args(get).output() {
                println!("{namespace}:\n{}", String::from_utf8_lossy(&got.stdout));
            }
        }
    }
}

impl Cluster {
    /// A test beside others, with its own operator for the namespaces that it creates before the operator starts.
    pub async fn enter() -> Self {
        Self::limited(Turn::beside().await).await
    }

    /// Like [`Self::enter`], with the cluster to itself: its changes to the definitions must not affect other tests.
    pub async fn enter_alone() -> Self {
        Self::limited(Turn::alone().await).await
    }

    async fn limited(turn: Turn) -> Self {
        let mut cluster = Self::begin(turn).await;
        cluster.home = cluster.create_namespace("operator").await;
        cluster.is_limited = true;
        cluster
    }

    /// A test that has the cluster to itself, with an operator for all namespaces: it acts on, or needs, more than some
    /// namespaces.
    pub async fn alone() -> Self {
        let cluster = Self::begin(Turn::alone().await).await;
        cluster.ensure_namespace(SYSTEM).await;
        cluster
    }

    /// Installs missing definitions: none exist before the first test, and a test that deletes one may fail before it
    /// restores it.
    async fn begin(turn: Turn) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_default().await.expect("KUBECONFIG names no cluster: make test-api starts one");
        let cluster =
            Self { client, home: SYSTEM.to_owned(), is_limited: false, made: Mutex::default(), turn: Some(turn) };
        let _one = DEFINITIONS.lock().await;
        let there = cluster.api("apiextensions.k8s.io/v1", "CustomResourceDefinition", "");
        let there = there.list_metadata(&ListParams::default()).await.unwrap().items;
        let is_there = |crd: &Value| there.iter().any(|t| crd["metadata"]["name"] == t.name_any());
        let missing: Vec<Value> = lifeboat::api::all_crds().into_iter().filter(|crd| !is_there(crd)).collect();
        for crd in &missing {
            cluster.apply(crd).await.unwrap();
        }
        for crd in &missing {
            cluster.until(crd, "Established", |c| condition(c, "Established").0 == "True").await;
        }
        cluster
    }

    /// Flags for an operator of this test.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec!["--namespace".to_owned(), self.home.clone()];
        if let Some(namespaces) = self.limits() {
            flags.extend(["--watch-namespaces".to_owned(), namespaces.join(",")]);
        }
        flags
    }

    /// The namespaces in which operators of this test work; `None` for all.
    pub fn limits(&self) -> Option<Vec<String>> {
        if !self.is_limited {
            return None;
        }
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(!made.is_empty(), "make the namespaces of the test before its operator: it is told them");
        Some(made)
    }

    /// The same cluster with the identity of another user, within the turn of the test.
    pub async fn as_user(&self, name: &str) -> Self {
        let mut config = kube::Config::infer().await.unwrap();
        config.auth_info.impersonate = Some(name.to_owned());
        let client = Client::try_from(config).unwrap();
        Self { client, home: self.home.clone(), is_limited: false, made: Mutex::default(), turn: None }
    }

    /// A namespace for the test only. Operators that are started afterwards work in it.
    pub async fn namespace(&self, name: &str) -> String {
        let name = self.namespace_of_others(name).await;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        name
    }

    /// A namespace in which the test's operators do not work.
    pub async fn namespace_of_others(&self, name: &str) -> String {
        let name = self.create_namespace(name).await;
        self.service_account(&name).await;
        name
    }

    /// Several namespaces for the test only.
    pub async fn namespaces(&self, name: &str, count: usize) -> Vec<String> {
        let mut all = vec![];
        for _ in 0..count {
            all.push(self.namespace(name).await);
        }
        all
    }

    async fn create_namespace(&self, name: &str) -> String {
        let made: Value =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "generateName": format!("{name}-") } });
        let made = self.api("v1", "Namespace", "").create(&PostParams::default(), &dynamic(&made)).await.unwrap();
        made.name_any()
    }

    pub async fn ensure_namespace(&self, name: &str) {
        self.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })).await.unwrap();
        self.service_account(name).await;
    }

    /// The ServiceAccount that the controller manager would create; without it no pod is admitted.
    async fn service_account(&self, namespace: &str) {
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default", "namespace": namespace } });
        self.apply(&account).await.unwrap();
    }

    pub fn api(&self, version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = resource(version, kind);
        if CLUSTER_SCOPED.contains(&kind) {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        }
    }

    /// The client for an object's kind, in its namespace.
    pub fn api_of(&self, object: &Value) -> Api<DynamicObject> {
        let text = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default();
        self.api(text("/apiVersion"), text("/kind"), text("/metadata/namespace"))
    }

    /// Strict server-side apply: an unknown field is an error.
    pub async fn apply(&self, object: &Value) -> kube::Result<Value> {
        let params = PatchParams::apply("test").force().validation_strict();
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api_of(object).patch(name, &params, &Patch::Apply(object)).await.map(|o| json!(o))
    }

    /// A dry run of [`Self::apply`], through the API server and its webhooks.
    pub async fn try_apply(&self, object: &Value) -> kube::Result<Value> {
        let params = PatchParams::apply("test").force().validation_strict().dry_run();
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api_of(object).patch(name, &params, &Patch::Apply(object)).await.map(|o| json!(o))
    }

    pub async fn patch(&self, object: &Value, patch: Value) -> kube::Result<Value> {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api_of(object).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|o| json!(o))
    }

    /// The current state of the object; null when it is gone.
    pub async fn get(&self, object: &Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api_of(object).get_opt(name).await.unwrap().map_or(Value::Null, |o| json!(o))
    }

    pub async fn delete(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api_of(object).delete(name, &DeleteParams::background()).await.unwrap();
    }

    /// Deletes the objects of a kind that other tests have left, with their finalizers: without an operator, a
    /// definition with such objects cannot be deleted.
    pub async fn delete_all(&self, version: &str, kind: &str) {
        let all = Api::<DynamicObject>::all_with(self.client.clone(), &resource(version, kind));
        for left in all.list(&ListParams::default()).await.unwrap() {
            let left = json!(left);
            self.patch(&left, json!({ "metadata": { "finalizers": null } })).await.unwrap();
            self.delete(&left).await;
        }
    }

    /// Waits until the object meets the condition, and returns it.
    pub async fn until(&self, object: &Value, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, SOON, || async {
            let now = self.get(object).await;
            if is(&now) { Ok(now) } else { Err(format!("{:#}", now["status"])) }
        })
        .await
    }

    /// Waits until a session is in this phase.
    pub async fn until_phase(&self, object: &Value, phase: &str) -> Value {
        self.until(object, phase, |o| o["status"]["phase"] == phase).await
    }

    /// Events of a namespace that are meant, oldest first, once there are this many: an event is written after the
    /// status that it is about.
    pub async fn events(&self, namespace: &str, count: usize, meant: impl Fn(&Event) -> bool) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        eventually("events", SOON, || async {
            let all = api.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
            let (mut found, others): (Vec<_>, Vec<_>) = all.into_iter().partition(&meant);
            found.sort_by_key(|e| e.event_time.clone().map(|t| t.0));
            if found.len() >= count { Ok(found) } else { Err(format!("{found:?}, and of others {others:?}")) }
        })
        .await
    }

    /// The row that `kubectl get` prints: columns and cells.
    pub async fn row(&self, path: &str) -> (Vec<String>, Vec<Value>) {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let request = Request::get(path).header("Accept", accept).body(vec![]).unwrap();
        let table: Value = self.client.request(request).await.unwrap();
        let columns = table["columnDefinitions"].as_array().unwrap().iter();
        let columns = columns.map(|c| c["name"].as_str().unwrap().to_owned()).collect();
        (columns, table["rows"][0]["cells"].as_array().unwrap().clone())
    }
}

/// Status and reason of a condition; empty when there is none.
pub fn condition<'a>(object: &'a Value, type_: &str) -> (&'a str, &'a str) {
    let all = object["status"]["conditions"].as_array();
    let found = all.into_iter().flatten().find(|c| c["type"] == type_);
    found.map_or(("", ""), |c| (c["status"].as_str().unwrap_or_default(), c["reason"].as_str().unwrap_or_default()))
}

/// Message of a condition.
pub fn message<'a>(object: &'a Value, type_: &str) -> &'a str {
    let all = object["status"]["conditions"].as_array();
    let found = all.into_iter().flatten().find(|c| c["type"] == type_);
    found.and_then(|c| c["message"].as_str()).unwrap_or_default()
}

/// Retries until `look` succeeds, and returns its result. Fails with the last error.
pub async fn eventually<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let since = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(why) => assert!(since.elapsed() < limit, "{what}: not within {limit:?}; last: {why}"),
        }
        tokio::time::sleep((since.elapsed() / 10).clamp(*PAUSE.start(), *PAUSE.end())).await;
    }
}

fn resource(version: &str, kind: &str) -> ApiResource {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

fn dynamic(object: &Value) -> DynamicObject {
    serde_json::from_value(object.clone()).unwrap()
}
