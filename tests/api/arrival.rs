//! The wrong order of creation: the operator before the definitions, the webhook's configuration before a webhook.

use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, condition, eventually};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

fn definition(plural: &str) -> Value {
    let all = lifeboat::api::all_crds();
    all.into_iter().find(|c| c["spec"]["names"]["plural"] == plural).unwrap()
}

/// A webhook configuration of Lifeboat without a webhook behind it.
fn unanswered() -> Value {
    json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "lifeboat-unanswered" }, "webhooks": [{
            "name": "restoresessions.lifeboat.stash.appscode.com", "sideEffects": "None", "failurePolicy": "Ignore",
            "timeoutSeconds": 1, "admissionReviewVersions": ["v1"],
            "clientConfig": { "url": "https://127.0.0.1:9/validate" },
            "rules": [{ "apiGroups": ["stash.appscode.com"], "apiVersions": ["v1beta1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["restoresessions"], "scope": "Namespaced" }] }] })
}

/// Proves: B07.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn what_comes_late_is_waited_for() {
    let cluster = Cluster::alone().await;
    let sessions = definition("restoresessions");
    cluster.delete_all("stash.appscode.com/v1beta1", "RestoreSession").await;
    cluster.delete(&sessions).await;
    cluster.until(&sessions, "gone", Value::is_null).await;
    let operator = Operator::start_in(&cluster, "test", &["--webhook", "false"]);
    eventually("waiting for the definitions", SOON, || async {
        match operator.page("/readyz").await {
            Some((503, text)) if text.contains("custom resource definitions") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(!operator.leads().await);

    cluster.apply(&sessions).await.unwrap();
    cluster.until(&sessions, "Established", |c| condition(c, "Established").0 == "True").await;
    let webhook = cluster.apply(&unanswered()).await.unwrap();
    operator.leads_within(SOON).await;
    let ns = cluster.namespace("late").await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let mut object = session(&ns, &target("PersistentVolumeClaim", "a"));
    object["metadata"]["finalizers"] = json!(["example.com/somebody-elses"]);
    let object = eventually("let in without the webhook", SOON, || async {
        cluster.apply(&object).await.map_err(|e| e.to_string())
    })
    .await;
    let preflight = jobs::of_step(&cluster, &ns, "preflight").await;
    jobs::end(&cluster, &preflight, &jobs::success(&preflight)).await;
    let restore = jobs::of_step(&cluster, &ns, "restore/0/a").await;

    // Deleted: the finalizer of Lifeboat is removed, the other finalizer keeps the object, and no step starts again.
    cluster.delete(&object).await;
    let held = |o: &Value| o["metadata"]["finalizers"] == json!(["example.com/somebody-elses"]);
    jobs::collect(&cluster, &restore).await;
    cluster.until(&object, "let go by the operator", held).await;
    assert!(jobs::all(&cluster, &ns).await.iter().all(|j| jobs::key(j) != "restore/0/a"));
    cluster.patch(&object, json!({ "metadata": { "finalizers": null } })).await.unwrap();
    cluster.until(&object, "gone", Value::is_null).await;
    cluster.delete(&webhook).await;
}
