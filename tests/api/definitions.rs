//! Effects of the definitions in the API server itself: defaults, and rules that apply without any operator.

use kube::api::ListParams;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::jobs::{session, target};

fn refusal(result: kube::Result<Value>) -> String {
    match result {
        Err(kube::Error::Api(status)) if status.code == 422 => status.message.clone(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn each_kind_is_served_and_found_by_its_category() {
    let cluster = Cluster::enter().await;
    let crds = lifeboat::api::all_crds();
    assert_eq!(crds.len(), 11);
    for crd in crds {
        let text = |p: &str| crd.pointer(p).and_then(Value::as_str).unwrap();
        let version = format!("{}/{}", text("/spec/group"), text("/spec/versions/0/name"));
        let api = cluster.api(&version, text("/spec/names/kind"), "default");
        api.list(&ListParams::default().limit(1)).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn rules_hold_without_the_operator() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("rules").await;
    let made = cluster.apply(&session(&ns, &target("PersistentVolumeClaim", "a"))).await.unwrap();
    assert_eq!((&made["spec"]["driver"], made.get("status")), (&json!("Restic"), None), "defaults");

    let batch = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch", "metadata": { "name": "b", "namespace": ns },
        "spec": { "repository": { "name": "r" }, "maintainOrder": true, "executionOrder": "Parallel", "members": [{ "target": target("PersistentVolumeClaim", "a") }] } });
    let text = refusal(cluster.apply(&batch).await);
    assert!(text.contains("maintainOrder and executionOrder contradict each other; set one of them"), "{text}");

    let backup = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupSession", "metadata": { "name": "s", "namespace": ns },
        "spec": { "invoker": { "kind": "BackupConfiguration", "name": "x" } } });
    cluster.apply(&backup).await.unwrap();
    let text = refusal(cluster.patch(&backup, json!({ "spec": { "invoker": { "name": "y" } } })).await);
    assert!(text.contains("the spec of a BackupSession cannot be changed"), "{text}");

    let mut unknown = session(&ns, &target("PersistentVolumeClaim", "a"));
    unknown["spec"]["nonsense"] = json!(1);
    let Err(kube::Error::Api(status)) = cluster.apply(&unknown).await else { panic!("an unknown field was taken") };
    assert!(status.message.contains("nonsense"), "{}", status.message);
}
