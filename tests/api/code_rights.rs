//! Permission to run code: the webhook checks the author of an object, and the controller trusts the webhook's seal.

use kube::api::PostParams;
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, eventually, message};
use super::installed::Webhook;
use super::jobs::{session, target};
use super::webhook::refusal;

const SEAL: &str = "lifeboat.stash.appscode.com/code-rights";

async fn may(cluster: &Cluster, namespace: &str, name: &str, user: &str, rule: Value) {
    let group = "rbac.authorization.k8s.io";
    let role = json!({ "apiVersion": format!("{group}/v1"), "kind": "Role",
        "metadata": { "name": name, "namespace": namespace }, "rules": [rule] });
    let binding = json!({ "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
        "metadata": { "name": name, "namespace": namespace },
        "roleRef": { "apiGroup": group, "kind": "Role", "name": name },
        "subjects": [{ "apiGroup": group, "kind": "User", "name": user }] });
    for object in [role, binding] {
        cluster.apply(&object).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn only_who_may_create_pods_may_run_code_in_a_job() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("code").await;
    let webhook = Webhook::install(&cluster).await;
    let sessions = json!({ "apiGroups": ["stash.appscode.com"], "resources": ["restoresessions"],
        "verbs": ["create", "get", "patch"] });
    may(&cluster, &ns, "restorer", "jane", sessions.clone()).await;
    may(&cluster, &ns, "developer", "joe", sessions).await;
    let pods = json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["create"] });
    may(&cluster, &ns, "developer-pods", "joe", pods).await;
    let named = |name: &str, settings: Value| {
        let mut object = session(&ns, &target("PersistentVolumeClaim", "a"));
        object["metadata"]["name"] = name.into();
        object["spec"]["runtimeSettings"] = settings;
        object
    };
    let hook = || json!({ "container": { "lifecycle": { "postStart": { "exec": { "command": ["true"] } } } } });
    let (jane, joe) = (cluster.as_user("jane").await, cluster.as_user("joe").await);
    eventually("the rights are known", SOON, || async {
        jane.try_apply(&named("plain", json!({}))).await.map_err(|e| e.to_string())?;
        joe.try_apply(&named("hook", hook())).await.map_err(|e| e.to_string())
    })
    .await;

    jane.apply(&named("plain", json!({ "container": { "securityContext": { "runAsNonRoot": true } } }))).await.unwrap();
    let said = refusal(jane.apply(&named("hook", hook())).await);
    for word in ["spec.runtimeSettings.container.lifecycle", "create Pods", &ns, "\"jane\""] {
        assert!(said.contains(word), "{said}");
    }
    let stored = joe.apply(&named("hook", hook())).await.unwrap();
    let seal = stored["metadata"]["annotations"][SEAL].as_str().expect("a seal").to_owned();
    let waits = |o: &Value| o["status"]["phase"] == "Pending";
    cluster.until(&named("hook", hook()), "let in", waits).await;
    // Applied again unchanged: the seal stays.
    let again = joe.apply(&named("hook", hook())).await.unwrap();
    assert_eq!(again["metadata"]["annotations"][SEAL], json!(seal));
    // An object whose name the API server generates.
    let mut unnamed = named("", hook());
    unnamed["metadata"] = json!({ "generateName": "generated-", "namespace": ns });
    let api = joe.api("stash.appscode.com/v1beta1", "RestoreSession", &ns);
    let made = api.create(&PostParams::default(), &serde_json::from_value(unnamed).unwrap()).await.unwrap();
    cluster.until(&json!(made), "let in", waits).await;

    // While an administrator has opened the namespace, any user who may create an object may run code.
    let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ns } });
    let label = |value: Value| json!({ "metadata": { "labels": { "lifeboat.stash.appscode.com/allow-code": value } } });
    cluster.patch(&space, label("true".into())).await.unwrap();
    let opened = jane.apply(&named("opened", hook())).await.unwrap();
    assert_eq!(opened["metadata"]["annotations"].get(SEAL), None);
    cluster.until(&opened, "let in", waits).await;
    cluster.patch(&space, label(Value::Null)).await.unwrap();
    let told = cluster.until_phase(&opened, "Invalid").await;
    assert!(message(&told, "ValidationPassed").contains("requires permission to create Pods"), "{told:#}");
    refusal(jane.apply(&named("closed", hook())).await);

    // Without the webhook, the seal of another object does not count, and the label of an administrator does.
    webhook.silence(&cluster).await;
    let mut forged = named("forged", hook());
    forged["metadata"]["annotations"] = json!({ SEAL: seal });
    jane.apply(&forged).await.unwrap();
    let told = cluster.until_phase(&forged, "Invalid").await;
    let said = message(&told, "ValidationPassed");
    assert!(said.contains("the webhook did not check its author") && said.contains("allow-code"), "{said}");
    cluster.patch(&space, label("true".into())).await.unwrap();
    jane.apply(&named("late", hook())).await.unwrap();
    cluster.until(&named("late", hook()), "let in", waits).await;
    drop(webhook);
}
