//! Runs that are canceled, and objects that are deleted: what is recorded, and what remains.

use std::time::Duration;

use lifeboat::names::FINALIZER_OF_STASH;
use lifeboat::names::annotation::HELD_DOWN;
use serde_json::{Value, json};

use super::cluster::{Cluster, condition};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

fn deployment(ns: &str) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": ns } })
}

/// Proves: C09.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_canceled_batch_says_what_became_of_each_member() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("canceled").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a", "c"], &["web"]).await;
    let targets =
        [target("PersistentVolumeClaim", "a"), target("Deployment", "web"), target("PersistentVolumeClaim", "c")];
    let members: Vec<Value> = targets.iter().map(|t| json!({ "target": t })).collect();
    let object = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch",
        "metadata": { "name": "run", "namespace": ns },
        "spec": { "repository": { "name": "repo" }, "maintainOrder": true, "members": members } });
    cluster.apply(&object).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    jobs::succeed(&cluster, &ns, "restore/0/a").await;
    let running = jobs::of_step(&cluster, &ns, "restore/1/web").await;
    assert_eq!(cluster.get(&deployment(&ns)).await["spec"]["replicas"], 0);

    let asked = std::time::Instant::now();
    cluster.patch(&object, json!({ "spec": { "cancel": true } })).await.unwrap();
    let said = cluster.until(&object, "acknowledged", |o| condition(o, "Canceled") == ("False", "Canceling")).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "acknowledged after {:?}", asked.elapsed());
    assert_eq!(condition(&said, "Reconciling"), ("True", "Canceling"));
    assert_eq!(said["status"]["phase"], "Running");
    assert_eq!(cluster.get(&deployment(&ns)).await["spec"]["replicas"], 0, "not scaled back while the Job writes");
    jobs::collect(&cluster, &running).await;
    let done = cluster.until(&object, "released", |o| o["status"]["phase"] == "Failed" && !jobs::is_held(o)).await;
    assert_eq!(condition(&done, "Canceled"), ("True", "Canceled"));
    assert_eq!((condition(&done, "Stalled"), condition(&done, "Ready").0), (("True", "Canceled"), "False"));
    let members = done["status"]["members"].as_array().unwrap();
    let phases: Vec<_> = members.iter().map(|m| m["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["Succeeded", "Failed", "Skipped"]);
    let line = "Canceled. 1 of 3 members restored; interrupted, and maybe half restored: member 1 (web); not changed: member 2 (c).";
    assert!(done["status"]["summary"].as_str().unwrap().starts_with(line), "{:#}", done["status"]);
    let web = cluster.get(&deployment(&ns)).await;
    assert_eq!(web["spec"]["replicas"], 0, "its data is half restored");
    assert!(web["metadata"]["annotations"][HELD_DOWN].is_string(), "{web:#}");
    assert_eq!(jobs::keys(&cluster, &ns).await.len(), 2, "nothing more was begun");
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn members_are_taken_from_a_backup_batch_once() {
    let cluster = Cluster::enter().await;
    let (ns, home) = (cluster.namespace("adopts").await, cluster.namespace("prod").await);
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a", "b"], &[]).await;
    let backup = |names: &[&str]| {
        let target = |n: &&str| json!({ "target": { "alias": n, "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": n } } });
        json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupBatch",
            "metadata": { "name": "shop", "namespace": home },
            "spec": { "repository": { "name": "elsewhere" }, "retentionPolicy": { "name": "r", "prune": false, "keepLast": 1 },
                "members": names.iter().map(target).collect::<Vec<_>>() } })
    };
    let object = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch",
        "metadata": { "name": "run", "namespace": ns },
        "spec": { "repository": { "name": "repo" }, "maintainOrder": true,
            "backupBatch": { "name": "shop", "namespace": home, "members": ["b", "a"] } } });
    cluster.apply(&object).await.unwrap();
    // The message does not reveal whether the BackupBatch exists: only its owner may disclose its contents.
    let missing = cluster.until_phase(&object, "Invalid").await;
    let text = missing["status"]["summary"].as_str().unwrap();
    assert!(text.starts_with(&format!("spec.backupBatch: BackupBatch {home}/shop does not exist, or ")), "{text}");
    cluster.apply(&backup(&["a", "b", "c"])).await.unwrap();
    let mut owners = json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository",
        "metadata": { "name": "elsewhere", "namespace": home },
        "spec": { "backend": { "storageSecretName": "s", "s3": { "endpoint": "http://store.invalid", "bucket": "b" } } } });
    cluster.apply(&owners).await.unwrap();
    let denied = cluster.until_phase(&object, "Invalid").await;
    assert_eq!(condition(&denied, "Stalled"), ("True", "RepositoryNotAllowed"));
    assert_eq!(denied["status"]["adopted"], Value::Null);
    let mut nosy = object.clone();
    nosy["metadata"]["name"] = "nosy".into();
    nosy["spec"]["backupBatch"]["members"] = json!(["no-such-alias"]);
    cluster.apply(&nosy).await.unwrap();
    let told = cluster.until_phase(&nosy, "Invalid").await["status"]["summary"].to_string();
    assert!(told.contains(&format!("BackupBatch {home}/shop")) && !told.contains("no member"), "{told}");
    assert_eq!(jobs::keys(&cluster, &ns).await.len(), 0, "nothing was begun");
    cluster.delete(&nosy).await;
    owners["spec"]["usagePolicy"] = json!({ "allowedNamespaces": { "from": "All" } });
    cluster.apply(&owners).await.unwrap();
    let preflight = jobs::of_step(&cluster, &ns, "preflight").await;
    cluster.delete(&backup(&[])).await;
    jobs::end(&cluster, &preflight, &jobs::success(&preflight)).await;
    for step in ["restore/0/b", "restore/1/a"] {
        jobs::succeed(&cluster, &ns, step).await;
    }
    let done = cluster.until(&object, "released", |o| o["status"]["phase"] == "Succeeded" && !jobs::is_held(o)).await;
    assert_eq!(done["status"]["adopted"]["members"][0]["target"]["rules"], json!([{ "snapshots": ["latest"] }]));

    // A member that cannot be restored is refused, with the path of its field.
    cluster.apply(&backup(&["a"])).await.unwrap();
    let mut wrong = object.clone();
    wrong["metadata"]["name"] = "wrong".into();
    cluster.apply(&wrong).await.unwrap();
    let refused = cluster.until_phase(&wrong, "Invalid").await;
    let text = refused["status"]["summary"].as_str().unwrap();
    assert!(text.starts_with(&format!("spec.backupBatch.members[0]: BackupBatch {home}/shop has no member")), "{text}");
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn what_stash_left_behind_does_not_keep_an_object() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("left").await;
    let _operator = Operator::leading(&cluster).await;
    let claim = target("PersistentVolumeClaim", "a");
    let backup = json!({ "alias": "a", "ref": claim["ref"], "volumeMounts": claim["volumeMounts"] });
    let retention = json!({ "name": "r", "prune": false, "keepLast": 1 });
    let repository = json!({ "name": "repo" });
    let specs = [
        ("RestoreSession", json!({ "repository": repository, "target": claim })),
        ("RestoreBatch", json!({ "repository": repository, "members": [{ "target": claim }] })),
        ("BackupConfiguration", json!({ "repository": repository, "target": backup, "retentionPolicy": retention })),
        (
            "BackupBatch",
            json!({ "repository": repository, "members": [{ "target": backup }], "retentionPolicy": retention }),
        ),
    ];
    for (kind, spec) in &specs {
        let object = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": kind, "spec": spec,
            "metadata": { "name": "old", "namespace": ns, "finalizers": [FINALIZER_OF_STASH] } });
        cluster.apply(&object).await.unwrap();
        cluster.until(&object, "looked at", |o| o["status"]["phase"].is_string()).await;
        let kept = cluster.get(&object).await["metadata"]["finalizers"].clone();
        assert!(
            kept.as_array().unwrap().contains(&json!(FINALIZER_OF_STASH)),
            "{kind}: it is not ours to take off before"
        );
        cluster.delete(&object).await;
        cluster.until(&object, "gone", Value::is_null).await;
    }
    // A session that Stash ended has no status of Lifeboat, and can be deleted as well.
    let object = session(&ns, &claim);
    cluster.apply(&object).await.unwrap();
    cluster.until_phase(&object, "Pending").await;
    cluster.patch(&object, json!({ "metadata": { "finalizers": [FINALIZER_OF_STASH] } })).await.unwrap();
    cluster.delete(&object).await;
    cluster.until(&object, "gone", Value::is_null).await;
}
