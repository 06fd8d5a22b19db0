//! The webhook as it is installed, and what it looks up.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, condition, eventually, message};
use super::jobs::{session, target};
use super::operator::Operator;

/// An operator that leads and serves the webhook, which the API server asks.
pub struct Webhook {
    configurations: Vec<Value>,
    _operator: Operator,
}

impl Webhook {
    pub async fn install(cluster: &Cluster) -> Self {
        let state = std::env::var("LIFEBOAT_CLUSTER_STATE").expect("make test-api names the cluster's state folder");
        let state = fs::read_to_string(Path::new(&state).join("cluster.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        // The API server resolves the Service of the webhook to the host, on which the operator runs.
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "lifeboat", "namespace": "lifeboat-system" },
            "spec": { "type": "ExternalName", "externalName": state["hostAddress"] } });
        cluster.apply(&service).await.unwrap();
        let operator = Operator::start("test", &["--webhook", "true"]);
        operator.leads_within(SOON).await;
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "lifeboat-webhook-cert", "namespace": "lifeboat-system" } });
        let secret = cluster.until(&secret, "a certificate", |s| s["data"]["ca.crt"].is_string()).await;
        let bundle = secret["data"]["ca.crt"].as_str().unwrap();
        assert!(base64::prelude::BASE64_STANDARD.decode(bundle).unwrap().starts_with(b"-----BEGIN CERTIFICATE"));
        let installed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/install.yaml")).unwrap();
        let mut configurations: Vec<Value> = lifeboat::yaml::read(&installed).unwrap();
        configurations.retain(|o| o["kind"].as_str().is_some_and(|k| k.ends_with("WebhookConfiguration")));
        assert_eq!(configurations.len(), 2);
        for configuration in &mut configurations {
            for webhook in configuration["webhooks"].as_array_mut().unwrap() {
                webhook["clientConfig"]["service"]["port"] = 9443.into();
                webhook["clientConfig"]["caBundle"] = bundle.into();
                webhook["timeoutSeconds"] = 10.into();
            }
            cluster.apply(configuration).await.unwrap();
        }
        let webhook = Self { configurations, _operator: operator };
        webhook.is_asked(cluster).await;
        webhook
    }

    /// The API server takes up new configurations within a second or so: both kinds of webhook, each in its time.
    async fn is_asked(&self, cluster: &Cluster) {
        let mut moved = session("default", &target("PersistentVolumeClaim", "a"));
        moved["spec"]["rules"] = moved["spec"]["target"]["rules"].take();
        moved["spec"]["target"].as_object_mut().unwrap().remove("rules");
        let mut wrong = session("default", &target("PersistentVolumeClaim", "a"));
        wrong["spec"]["target"]["rules"] = json!([{ "paths": ["relative"] }]);
        eventually("the webhook is asked", SOON, || async {
            let made = cluster.try_apply(&moved).await.unwrap();
            let is_moved = made["spec"]["target"]["rules"].is_array() && made["spec"].get("rules").is_none();
            let is_denied = cluster.try_apply(&wrong).await.is_err();
            if is_moved && is_denied { Ok(()) } else { Err(format!("{:#}", made["spec"])) }
        })
        .await;
    }

    pub async fn remove(self, cluster: &Cluster) {
        self.silence(cluster).await;
    }

    /// The API server asks nobody any more; the operator stays.
    pub async fn silence(&self, cluster: &Cluster) {
        for configuration in &self.configurations {
            cluster.delete(configuration).await;
        }
    }
}

/// What the webhook says no with.
pub fn refusal(answer: kube::Result<Value>) -> String {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let (_, said) = status.message.split_once("denied the request: ").unwrap_or_else(|| panic!("{status:?}"));
            said.to_owned()
        }
        other => panic!("not denied: {other:?}"),
    }
}

/// Proves: A07, scenario 21, scenario 22, invented 20.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn who_may_not_use_a_repository_is_told_at_admission_as_by_the_controller() {
    let cluster = Cluster::enter().await;
    let (home, ns) = (cluster.namespace("owner").await, cluster.namespace("user").await);
    let webhook = Webhook::install(&cluster).await;
    let repository = |allowed: Value| {
        json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository",
            "metadata": { "name": "repo", "namespace": home }, "spec": {
                "backend": { "storageSecretName": "secret", "s3": { "endpoint": "http://store.invalid", "bucket": "b" } },
                "usagePolicy": { "allowedNamespaces": allowed } } })
    };
    let restore = |name: &str| {
        let mut restore = session(&ns, &target("PersistentVolumeClaim", "a"));
        restore["metadata"]["name"] = name.into();
        restore["spec"]["repository"]["namespace"] = home.as_str().into();
        restore
    };

    // The Repository may come later than who uses it.
    let early = restore("early");
    cluster.apply(&early).await.unwrap();
    cluster.apply(&repository(json!({ "from": "Same" }))).await.unwrap();
    let told = cluster.until_phase(&early, "Invalid").await;
    assert_eq!(condition(&told, "RepositoryFound"), ("False", "RepositoryNotAllowed"));
    let said = message(&told, "RepositoryFound").to_owned();
    assert!(
        said.contains(&format!("{home}/repo does not exist, or its usagePolicy does not let namespace {ns} use it")),
        "{said}"
    );

    // Whoever comes now is told the same, whatever its kind.
    let mut all = vec![restore("late")];
    let part = json!({ "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "a" }, "alias": "a" });
    let keep = json!({ "name": "keep", "keepLast": 1, "prune": true });
    for (kind, spec) in [
        ("RestoreBatch", json!({ "members": [{ "target": target("PersistentVolumeClaim", "a") }] })),
        ("BackupConfiguration", json!({ "retentionPolicy": keep, "target": part })),
        ("BackupBatch", json!({ "retentionPolicy": keep, "members": [{ "target": part }] })),
    ] {
        let mut object = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": kind,
            "metadata": { "name": "late", "namespace": ns }, "spec": spec });
        object["spec"]["repository"] = json!({ "name": "repo", "namespace": home });
        all.push(object);
    }
    let tells = |o: &Value| o["status"]["conditions"].is_array() && message(o, "RepositoryFound") == said;
    for object in &all {
        cluster.apply(object).await.unwrap();
        cluster.until(object, "not allowed", tells).await;
    }
    // What is there already can be canceled, though its Repository refuses it.
    cluster.patch(&early, json!({ "spec": { "cancel": true } })).await.unwrap();

    // A selector is over the labels that the namespace has at that time.
    let by_label = json!({ "from": "Selector", "selector": { "matchLabels": { "team": "a" } } });
    cluster.apply(&repository(by_label)).await.unwrap();
    for object in &all {
        cluster.until(object, "not allowed", tells).await;
    }
    let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ns } });
    cluster.patch(&space, json!({ "metadata": { "labels": { "team": "a" } } })).await.unwrap();
    // Of the two backups one has the Repository to itself; that is another matter.
    for object in &all[..2] {
        cluster.until(object, "allowed", |o| !tells(o)).await;
    }
    cluster.patch(&space, json!({ "metadata": { "labels": { "team": "b" } } })).await.unwrap();
    cluster.apply(&repository(json!({ "from": "All" }))).await.unwrap();
    // Of the two backups one has the Repository to itself; that is another matter.
    for object in &all[..2] {
        cluster.until(object, "allowed", |o| !tells(o)).await;
    }
    webhook.remove(&cluster).await;
}
