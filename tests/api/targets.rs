//! Targets in a real API server: scales, autoscalers, claims that are created, and two sessions at once.

use serde_json::{Value, json};

use super::cluster::{Cluster, condition, message};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

fn named(session: &Value, name: &str) -> Value {
    let mut object = session.clone();
    object["metadata"]["name"] = name.into();
    object
}

/// A workload of `kind` in the form of [`ground`]'s Deployments.
fn workload(namespace: &str, version: &str, kind: &str, name: &str, owners: Value) -> Value {
    let labels = json!({ "app": name });
    let selector = if version == "v1" { labels.clone() } else { json!({ "matchLabels": labels }) };
    json!({ "apiVersion": version, "kind": kind,
        "metadata": { "name": name, "namespace": namespace, "ownerReferences": owners },
        "spec": { "replicas": 3, "selector": selector, "template": { "metadata": { "labels": labels }, "spec": {
            "containers": [{ "name": "c", "image": "localhost/none:1" }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": name } }] } } } })
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn every_kind_with_replicas_goes_to_zero_and_back_whatever_an_autoscaler_wants() {
    let cluster = Cluster::enter().await;
    let all = [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "ReplicaSet"),
        ("v1", "ReplicationController"),
    ];
    let namespaces = cluster.namespaces("scaled", all.len()).await;
    let _operator = Operator::leading(&cluster).await;
    for ((version, kind), ns) in all.into_iter().zip(namespaces) {
        ground(&cluster, &ns, &["app"], &[]).await;
        let object = workload(&ns, version, kind, "app", json!([]));
        cluster.apply(&object).await.unwrap();
        // The autoscaler never wants less than five replicas; at zero it rests, and later it finds the previous number.
        let scaler = json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": { "name": "app", "namespace": ns }, "spec": { "minReplicas": 5, "maxReplicas": 9,
            "scaleTargetRef": { "apiVersion": version, "kind": kind, "name": "app" } } });
        cluster.apply(&scaler).await.unwrap();
        let mut of = target(kind, "app");
        of["ref"]["apiVersion"] = version.into();
        let host = if kind == "StatefulSet" { "app-0" } else { "app" };
        let run = session(&ns, &of);
        cluster.apply(&run).await.unwrap();
        jobs::succeed(&cluster, &ns, "preflight").await;
        jobs::of_step(&cluster, &ns, &format!("restore/0/{host}")).await;
        assert_eq!(cluster.get(&object).await["spec"]["replicas"], 0, "{kind}");
        let restores: Vec<_> = if kind == "StatefulSet" { vec!["app-0", "app-1", "app-2"] } else { vec!["app"] };
        for host in restores {
            jobs::succeed(&cluster, &ns, &format!("restore/0/{host}")).await;
        }
        let done = cluster.until_phase(&run, "Succeeded").await;
        assert_eq!(
            (&done["status"]["quiesce"]["replicas"], condition(&done, "Quiesced")),
            (&json!(3), ("False", "ScaledBack"))
        );
        assert_eq!(cluster.get(&object).await["spec"]["replicas"], 3, "{kind}");
    }
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_replica_set_of_a_deployment_is_the_deployments() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("owned").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["app"], &[]).await;
    let owner =
        json!([{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "u", "controller": true }]);
    let object = workload(&ns, "apps/v1", "ReplicaSet", "app", owner);
    cluster.apply(&object).await.unwrap();
    let mut of = target("ReplicaSet", "app");
    of["ref"]["apiVersion"] = "apps/v1".into();
    let run = session(&ns, &of);
    cluster.apply(&run).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    let failed = cluster.until_phase(&run, "Failed").await;
    assert!(message(&failed, "Ready").contains("belongs to Deployment/web"), "{:#}", failed["status"]);
    assert_eq!(cluster.get(&object).await["spec"]["replicas"], 3, "nothing was scaled");
}

/// Proves: scenario 15, defect 8, defect 18, D05.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn claims_are_made_once_outlive_their_session_and_carry_no_trackers() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("claims").await;
    let operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &[]).await;
    let template = |name: &str| {
        json!({ "metadata": { "name": format!("{name}-copy-${{POD_ORDINAL}}"),
            "labels": { "team": "a", "app.kubernetes.io/instance": "shop" }, "annotations": { "argocd.argoproj.io/tracking-id": "x" } },
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } })
    };
    let of = json!({ "replicas": 2, "rules": [{ "paths": ["/data", "/config"] }],
        "volumeMounts": [{ "name": "data-copy", "mountPath": "/data" }, { "name": "config-copy", "mountPath": "/config" }],
        "volumeClaimTemplates": [template("data"), template("config")] });
    let run = session(&ns, &of);
    cluster.apply(&run).await.unwrap();
    let preflight = jobs::of_step(&cluster, &ns, "preflight").await;
    let claim = |name: &str| json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name, "namespace": ns } });
    assert!(cluster.get(&claim("data-copy-0")).await.is_null(), "no claim before the preflight has ended");
    jobs::end(&cluster, &preflight, &jobs::success(&preflight)).await;
    let jobs = [
        jobs::of_step(&cluster, &ns, "restore/0/host-0").await,
        jobs::of_step(&cluster, &ns, "restore/0/host-1").await,
    ];
    // The operator is killed while all this is running: nothing is created twice.
    drop(operator);
    let _operator = Operator::leading(&cluster).await;
    for job in &jobs {
        jobs::end(&cluster, job, &jobs::success(job)).await;
    }
    let done = cluster.until(&run, "released", |o| o["status"]["phase"] == "Succeeded" && !jobs::is_held(o)).await;
    assert_eq!((&done["status"]["totalHosts"], condition(&done, "ClaimsCreated").0), (&json!(2), "True"));
    let mut uids = vec![];
    for name in ["data-copy-0", "config-copy-0", "data-copy-1", "config-copy-1"] {
        let made = cluster.get(&claim(name)).await;
        assert!(made["metadata"].get("ownerReferences").is_none(), "{made:#}");
        let labels = &made["metadata"]["labels"];
        assert_eq!((&labels["team"], &labels["app.kubernetes.io/component"]), (&json!("a"), &json!("stash-restore")));
        assert_eq!(labels["app.kubernetes.io/managed-by"], "stash.appscode.com");
        let texts = json!([labels, made["metadata"]["annotations"]]).to_string();
        assert!(!texts.contains("argocd") && !texts.contains("kubernetes.io/instance"), "{texts}");
        uids.push(made["metadata"]["uid"].clone());
    }
    cluster.delete(&run).await;
    cluster.until(&run, "gone", Value::is_null).await;
    assert_eq!(cluster.get(&claim("data-copy-0")).await["metadata"]["uid"], uids[0]);

    // A claim with such a name from another session is not changed.
    let other = named(&run, "other");
    cluster.apply(&other).await.unwrap();
    let failed = cluster.until_phase(&other, "Failed").await;
    assert_eq!(condition(&failed, "Stalled").1, "ClaimExists");
    let text = message(&failed, "Ready");
    assert!(text.contains("data-copy-0") && text.contains("RestoreSession/run made it"), "{text}");
    assert_eq!(cluster.get(&claim("data-copy-0")).await["metadata"]["uid"], uids[0]);
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_claim_that_the_api_server_refuses_is_said() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("quota").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &[]).await;
    let of = json!({ "rules": [{ "snapshots": ["latest"] }], "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
        "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadSometimes"],
            "resources": { "requests": { "storage": "1Gi" } } } }] });
    let run = session(&ns, &of);
    cluster.apply(&run).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    let failed = cluster.until_phase(&run, "Failed").await;
    assert_eq!(condition(&failed, "Stalled").1, "RefusedByApiServer");
    let text = message(&failed, "Ready");
    assert!(
        text.contains("PersistentVolumeClaim data could not be created") && text.contains("ReadSometimes"),
        "{text}"
    );
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn of_two_sessions_for_one_workload_the_later_waits() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("rivals").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &["web"]).await;
    let object =
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": ns } });
    let run = session(&ns, &target("Deployment", "web"));
    let mut batch = named(&run, "batch");
    batch["kind"] = "RestoreBatch".into();
    batch["spec"] = json!({ "repository": { "name": "repo" }, "members": [{ "target": target("Deployment", "web") }] });
    cluster.apply(&run).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    let first = jobs::of_step(&cluster, &ns, "restore/0/web").await;

    cluster.apply(&batch).await.unwrap();
    let uid = cluster.get(&batch).await["metadata"]["uid"].as_str().unwrap().to_owned();
    jobs::succeed_of(&cluster, &ns, "preflight", &uid).await;
    let waits = cluster.until(&batch, "waiting", |o| condition(o, "Reconciling").1 == "TargetBusy").await;
    let text = message(&waits, "Ready");
    assert!(text.contains(&format!("RestoreSession {ns}/run also restores Deployment/web")), "{text}");
    jobs::end(&cluster, &first, &jobs::success(&first)).await;
    let done = cluster.until_phase(&run, "Succeeded").await;
    assert_eq!(condition(&done, "Quiesced"), ("False", "ScaledBack"));
    jobs::succeed_of(&cluster, &ns, "restore/0/web", &uid).await;
    let done = cluster.until_phase(&batch, "Succeeded").await;
    assert_eq!(done["status"]["members"][0]["quiesce"]["replicas"], 2);
    assert_eq!(cluster.get(&object).await["spec"]["replicas"], 2);
}
