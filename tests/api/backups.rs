//! Backups whose Jobs the test ends: what follows a failure, and what is taken by hand.

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use lifeboat::api::BackupSession;
use serde_json::{Value, json};

use super::cluster::{Cluster, condition};
use super::jobs::{self, ground};
use super::operator::Operator;

fn configuration(namespace: &str, more: Value) -> Value {
    let mut object = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration",
        "metadata": { "name": "files", "namespace": namespace },
        "spec": { "repository": { "name": "repo" }, "retentionPolicy": { "name": "keep", "keepLast": 1, "prune": true },
            "target": { "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "a" } } } });
    object["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

fn session(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupSession",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "invoker": { "apiGroup": "stash.appscode.com", "kind": "BackupConfiguration", "name": "files" } } })
}

/// Proves: scenario 31.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_failed_backup_is_followed_by_another_whoever_operates() {
    let cluster = Cluster::enter().await;
    let operator = Operator::leading().await;
    let ns = cluster.namespace("retry").await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let retry = json!({ "retryConfig": { "maxRetry": 1, "delay": "3s" }, "backupHistoryLimit": 1 });
    cluster.apply(&configuration(&ns, retry)).await.unwrap();
    let first = session(&ns, "first");
    cluster.apply(&first).await.unwrap();
    let prepare = jobs::of_step(&cluster, &ns, "prepare").await;
    jobs::end(&cluster, &prepare, &jobs::damaged(&prepare)).await;
    let failed = cluster.until_phase(&first, "Failed").await;
    assert!(failed["status"]["nextRetry"].is_string() && failed["status"].get("retried").is_none(), "{failed:#}");
    // Whoever is there when the time comes goes on.
    drop(operator);
    let _again = Operator::leading().await;
    let second = session(&ns, "first-retry-1");
    let made = cluster.until(&second, "made", |o| o["status"]["phase"] == "Running").await;
    assert_eq!(made["spec"]["retryLeft"], 0);
    assert_eq!(made["metadata"]["ownerReferences"][0]["kind"], "BackupConfiguration");
    assert_eq!(made["metadata"]["labels"]["stash.appscode.com/invoker-name"], "files");
    let of_target = ListParams::default()
        .labels("stash.appscode.com/target-name=a,stash.appscode.com/target-kind=PersistentVolumeClaim");
    let found = Api::<BackupSession>::namespaced(cluster.client.clone(), &ns).list(&of_target).await.unwrap();
    assert_eq!(found.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["first-retry-1"]);
    let is_of = |job: &&k8s_openapi::api::batch::v1::Job| jobs::session_of(job) == "first-retry-1";
    let prepare = super::cluster::eventually("its Job", super::cluster::SOON, || async {
        jobs::all(&cluster, &ns).await.iter().find(is_of).cloned().ok_or("none".to_owned())
    })
    .await;
    jobs::end(&cluster, &prepare, &jobs::damaged(&prepare)).await;
    let last = cluster.until_phase(&second, "Failed").await;
    assert!(last["status"].get("nextRetry").is_none(), "none is left: {last:#}");
    // Once the follower stands, the first goes by the history's limit.
    cluster.until(&first, "gone", Value::is_null).await;
    assert_eq!(condition(&last, "Stalled"), ("True", "DataCorrupt"));
}

/// Proves: scenario 31.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_paused_configuration_still_backs_up_by_hand() {
    let cluster = Cluster::enter().await;
    let _operator = Operator::leading().await;
    let ns = cluster.namespace("paused").await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let object = configuration(&ns, json!({ "paused": true, "schedule": "* * * * *", "timeZone": "Asia/Tokyo" }));
    cluster.apply(&object).await.unwrap();
    let ready = cluster.until_phase(&object, "Ready").await;
    assert_eq!(condition(&ready, "Ready"), ("True", "Paused"));
    assert!(ready["status"].get("nextScheduleTime").is_none(), "{ready:#}");
    let by_hand = session(&ns, "by-hand");
    cluster.apply(&by_hand).await.unwrap();
    for step in ["prepare", "backup/", "maintain"] {
        jobs::succeed(&cluster, &ns, step).await;
    }
    let done = cluster.until_phase(&by_hand, "Succeeded").await;
    assert_eq!(condition(&done, "RetentionPolicyApplied").0, "True");
    cluster.apply(&configuration(&ns, json!({ "schedule": "* * * * *", "timeZone": "Asia/Tokyo" }))).await.unwrap();
    let next = cluster.until(&object, "scheduled", |o| o["status"]["nextScheduleTime"].is_string()).await;
    assert_eq!(next["status"]["scheduleInForce"]["timeZone"], "Asia/Tokyo");
}
