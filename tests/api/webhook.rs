//! Lookups of the webhook.

use serde_json::{Value, json};

use super::cluster::{Cluster, condition, message};
use super::installed::Webhook;
use super::jobs::{session, target};

/// Message with which the webhook denies a request.
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

    // The Repository may be created later than the object that uses it.
    let early = restore("early");
    cluster.apply(&early).await.unwrap();
    cluster.apply(&repository(json!({ "from": "Same" }))).await.unwrap();
    let told = cluster.until_phase(&early, "Invalid").await;
    assert_eq!(condition(&told, "RepositoryFound"), ("False", "RepositoryNotAllowed"));
    let said = message(&told, "RepositoryFound").to_owned();
    assert!(
        said.contains(&format!("{home}/repo does not exist, or its usagePolicy does not allow namespace {ns}")),
        "{said}"
    );

    // Later objects of all kinds get the same message.
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
    // An existing object can be canceled, even if its Repository refuses it.
    cluster.patch(&early, json!({ "spec": { "cancel": true } })).await.unwrap();

    // A selector applies to the labels that the namespace has at that time.
    let by_label = json!({ "from": "Selector", "selector": { "matchLabels": { "team": "a" } } });
    cluster.apply(&repository(by_label)).await.unwrap();
    for object in &all {
        cluster.until(object, "not allowed", tells).await;
    }
    let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ns } });
    cluster.patch(&space, json!({ "metadata": { "labels": { "team": "a" } } })).await.unwrap();
    // Only one of the two backups can have the Repository to itself; that is not tested here.
    for object in &all[..2] {
        cluster.until(object, "allowed", |o| !tells(o)).await;
    }
    cluster.patch(&space, json!({ "metadata": { "labels": { "team": "b" } } })).await.unwrap();
    cluster.apply(&repository(json!({ "from": "All" }))).await.unwrap();
    // Only one of the two backups can have the Repository to itself; that is not tested here.
    for object in &all[..2] {
        cluster.until(object, "allowed", |o| !tells(o)).await;
    }
    webhook.remove(&cluster).await;
}
