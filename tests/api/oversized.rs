//! Objects that are too large, stored without the webhook: each fails alone, and other objects are not affected.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{Cluster, condition, eventually, message};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

/// Memory limit of the operator's container in the chart, in KiB.
const MEMORY: u64 = 512 * 1024;
/// Thirty objects of a megabyte are each read and written by a debug build.
const WITHIN: Duration = Duration::from_mins(1);
/// Objects of each kind.
const COUNT: usize = 5;
/// Labels that make an object too large, whatever the schema says: keys may have 317 bytes, values 63. With
/// managedFields, which contain each key again, the object has about the maximum size for etcd.
const LABELS: usize = 1500;

pub fn large_labels() -> Value {
    let prefix = "p".repeat(60);
    let prefix = [&*prefix, &prefix, &prefix, &prefix].join(".");
    (0..LABELS)
        .map(|i| (format!("{prefix}/{i:063}"), Value::from("v".repeat(63))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Valid settings of some 200 KB.
fn large_settings() -> Value {
    let env: Vec<Value> = (0..50).map(|i| json!({ "name": format!("N{i}"), "value": "x".repeat(4000) })).collect();
    json!({ "container": { "env": env } })
}

/// One object with this name of each kind that a user may write.
fn kinds(namespace: &str, name: &str) -> Vec<Value> {
    let claim = json!({ "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "a" } });
    let (repository, retention) = (json!({ "name": "repo" }), json!({ "name": "k", "keepLast": 1, "prune": true }));
    let specs = [
        (
            "v1beta1",
            "RestoreSession",
            json!({ "repository": repository, "target": target("PersistentVolumeClaim", "a") }),
        ),
        (
            "v1beta1",
            "RestoreBatch",
            json!({ "repository": repository, "members": [{ "target": target("PersistentVolumeClaim", "a") }] }),
        ),
        (
            "v1beta1",
            "BackupConfiguration",
            json!({ "repository": repository, "retentionPolicy": retention, "target": claim }),
        ),
        (
            "v1beta1",
            "BackupBatch",
            json!({ "repository": { "name": name }, "retentionPolicy": retention, "members": [{ "target": claim }] }),
        ),
        (
            "v1beta1",
            "BackupSession",
            json!({ "invoker": { "apiGroup": "stash.appscode.com", "kind": "BackupConfiguration", "name": "none" } }),
        ),
        (
            "v1alpha1",
            "Repository",
            json!({ "backend": { "storageSecretName": "secret", "s3": { "endpoint": "http://store.invalid", "bucket": "b" } } }),
        ),
    ];
    let object = |(version, kind, spec): (&str, &str, Value)| {
        json!({ "apiVersion": format!("stash.appscode.com/{version}"), "kind": kind,
            "metadata": { "name": name, "namespace": namespace }, "spec": spec })
    };
    specs.into_iter().map(object).collect()
}

/// Peak memory of the operator, in KiB.
fn peak(operator: &Operator) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", operator.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Whether the status reports that the object is too large.
fn is_refused(object: &Value) -> bool {
    let (phase, why) = match object["kind"].as_str().unwrap() {
        "Repository" => (Value::Null, "ObjectTooLarge"),
        "BackupSession" => ("Skipped".into(), "SkippedTakingNewBackup"),
        _ => ("Invalid".into(), "ObjectTooLarge"),
    };
    object["status"]["phase"] == phase
        && condition(object, "ValidationPassed").0 == "False"
        && message(object, "ValidationPassed").contains("262144 are allowed")
        && condition(object, "Stalled") == ("True", why)
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn objects_that_are_too_large_end_by_themselves_and_a_restart_survives_them() {
    let cluster = Cluster::enter().await;
    let (bad, good) = (cluster.namespace("large").await, cluster.namespace("small").await);
    let mut large = vec![];
    for i in 0..COUNT {
        for mut object in kinds(&bad, &format!("o{i}")) {
            object["metadata"]["labels"] = large_labels();
            cluster.apply(&object).await.unwrap_or_else(|e| panic!("{}: {e}", object["kind"]));
            large.push(object);
        }
        // Objects of valid size, if the definitions admit them: many of them must not be in memory at once.
        let mut valid = kinds(&bad, &format!("valid{i}")).remove(0);
        valid["spec"]["runtimeSettings"] = large_settings();
        match cluster.apply(&valid).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 422 => {}
            Err(error) => panic!("{error}"),
        }
    }
    ground(&cluster, &good, &["a"], &[]).await;
    let object = session(&good, &target("PersistentVolumeClaim", "a"));
    cluster.apply(&object).await.unwrap();

    let operator = Operator::leading(&cluster).await;
    let preflight = jobs::of_step_within(&cluster, &good, "preflight", WITHIN).await;
    jobs::end(&cluster, &preflight, &jobs::success(&preflight)).await;
    for object in &large {
        let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
        eventually(&what, WITHIN, || async {
            let now = cluster.get(object).await;
            if is_refused(&now) { Ok(()) } else { Err(format!("{:#}", now["status"])) }
        })
        .await;
    }
    let before = peak(&operator);
    drop(operator);

    let operator = Operator::leading(&cluster).await;
    let restore = jobs::of_step_within(&cluster, &good, "restore/0/a", WITHIN).await;
    jobs::end(&cluster, &restore, &jobs::success(&restore)).await;
    eventually("restored", WITHIN, || async {
        let now = cluster.get(&object).await;
        if now["status"]["phase"] == "Succeeded" { Ok(()) } else { Err(format!("{:#}", now["status"])) }
    })
    .await;
    let after = peak(&operator);
    println!("most memory: {} MiB, after the restart {} MiB", before / 1024, after / 1024);
    assert!(before < MEMORY && after < MEMORY, "{before} KiB, after the restart {after} KiB");
    for object in &large {
        cluster.delete(object).await;
    }
    cluster.until(&large[0], "gone", Value::is_null).await;
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_run_whose_object_becomes_too_large_is_undone() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("grows").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &["web"]).await;
    let mut waiting = session(&ns, &target("Deployment", "web"));
    waiting["metadata"]["name"] = "waiting".into();
    waiting["spec"]["repository"]["name"] = "none".into();
    cluster.apply(&waiting).await.unwrap();
    cluster.until_phase(&waiting, "Pending").await;
    let object = session(&ns, &target("Deployment", "web"));
    let deployment =
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": ns } });
    cluster.apply(&object).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    let running = jobs::of_step(&cluster, &ns, "restore/0/web").await;
    assert_eq!(cluster.get(&deployment).await["spec"]["replicas"], 0);
    cluster.patch(&object, json!({ "metadata": { "labels": large_labels() } })).await.unwrap();
    jobs::collect(&cluster, &running).await;
    let ended = cluster.until(&object, "released", |o| o["status"]["phase"] == "Failed" && !jobs::is_held(o)).await;
    // The message is true: the spec has not changed.
    let is_said = |o: &Value| {
        condition(o, "Stalled") == ("True", "ObjectTooLarge") && message(o, "Ready").contains("262144 are allowed")
    };
    assert!(
        is_said(&ended) && message(&ended, "Ready").contains("It may be half restored. Deployment/web stays at 0"),
        "{:#}",
        ended["status"]
    );
    cluster.patch(&waiting, json!({ "metadata": { "labels": large_labels() } })).await.unwrap();
    let ended = cluster.until_phase(&waiting, "Failed").await;
    assert!(is_said(&ended) && !message(&ended, "Ready").contains("half restored"), "{:#}", ended["status"]);
    assert_eq!(cluster.get(&deployment).await["spec"]["replicas"], 0, "its data is half restored");
    cluster.delete(&object).await;
    cluster.until(&object, "gone", Value::is_null).await;
}
