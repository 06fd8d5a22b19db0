//! Bad manifests: the status of an object contains the same messages as the webhook's response.

use std::fs;
use std::path::Path;

use lifeboat::admission::{check, message};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::installed::Webhook;
use super::operator::Operator;

/// Manifests that the schema or a rule of the definitions refuses, without an operator.
const BY_THE_API_SERVER: [&str; 16] = [
    "backup-batch-order-contradiction",
    "backup-batch-order-typo",
    "backup-retention-missing",
    "backup-retry-delay",
    "backup-retry-negative",
    "batch-order-contradiction",
    "batch-order-typo",
    "repository-claim-name",
    "repository-nfs",
    "repository-selector",
    "repository-two-stores",
    "rules-as-of-no-time",
    "rules-previous-negative",
    "session-as-of-no-time",
    "session-driver-unknown",
    "session-timeout",
];

/// Each bad or good manifest under its own name, with the messages of admission.
fn manifests(folder: &str, namespace: &str) -> Vec<(String, Value, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .map(|file| {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(file).unwrap().replace("namespace: demo", &format!("namespace: {namespace}"));
            let mut object = lifeboat::yaml::read(&text).unwrap().remove(0);
            object["metadata"] = json!({ "name": name, "namespace": namespace });
            let said = message(&check(object["kind"].as_str().unwrap(), &object, None));
            (name, object, said)
        })
        .collect()
}

/// Phase of an invalid object.
fn ends(object: &Value) -> Value {
    match object["kind"].as_str().unwrap() {
        "Repository" => Value::Null,
        "BackupSession" => "Skipped".into(),
        _ => "Invalid".into(),
    }
}

/// Proves: defect 5, defect 6, defect 26, invented 3, invented 7, D06.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn without_the_webhook_the_status_says_what_is_wrong() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("bad").await;
    let good = cluster.namespace("good").await;
    let all = manifests("bad", &ns);
    assert!(all.len() >= 110, "{}", all.len());
    let mut by_the_api_server = vec![];
    let mut taken = vec![];
    for (name, object, said) in all {
        match cluster.apply(&object).await {
            Ok(_) => taken.push((name, object, said)),
            Err(kube::Error::Api(status)) if status.code == 422 => by_the_api_server.push(name),
            Err(error) => panic!("{name}: {error}"),
        }
    }
    assert_eq!(by_the_api_server, BY_THE_API_SERVER);
    let right = manifests("good", &good);
    assert!(right.len() >= 60, "{}", right.len());
    let _operator = Operator::leading(&cluster).await;
    for (name, object, said) in taken {
        cluster
            .until(&object, &format!("{name}: {said}"), |o| {
                let conditions = o["status"]["conditions"].as_array();
                let told = conditions
                    .into_iter()
                    .flatten()
                    .any(|c| c["type"] == "ValidationPassed" && c["status"] == "False" && c["message"] == *said);
                let stalled = conditions.into_iter().flatten().any(|c| c["type"] == "Stalled" && c["status"] == "True");
                told && stalled && o["status"]["phase"] == ends(&object)
            })
            .await;
    }
    for (name, mut object, _) in right {
        // In one Repository they would conflict: a BackupBatch needs the Repository for itself.
        if object["kind"].as_str().unwrap().starts_with("Backup") && object["spec"]["repository"].is_object() {
            object["spec"]["repository"]["name"] = name.as_str().into();
        }
        cluster.apply(&object).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        cluster
            .until(&object, &format!("{name} is right"), |o| {
                let is_refused = super::cluster::condition(o, "ValidationPassed").0 == "False";
                // Repositories of other namespaces do not exist here: this is reported for a valid object as well.
                let is_kept_out = super::cluster::condition(o, "Stalled").1 == "RepositoryNotAllowed";
                let ends = o["status"]["phase"] == ends(&object) && !is_kept_out;
                o["status"]["conditions"].is_array() && !is_refused && !ends
                    || (object["kind"] == "Repository" && super::cluster::condition(o, "ValidationPassed").0 == "True")
            })
            .await;
    }
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn all_but_alias_target_and_repository_may_be_edited_with_and_without_the_webhook() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("target").await;
    let _operator = Operator::leading(&cluster).await;
    super::jobs::ground(&cluster, &ns, &["a", "b"], &[]).await;
    super::jobs::open(&cluster, &ns).await;
    let of = |claim: &str, paused: bool| {
        json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration",
            "metadata": { "name": "files", "namespace": ns },
            "spec": { "repository": { "name": "repo" }, "retentionPolicy": { "name": "keep", "keepLast": 1, "prune": true },
                "paused": paused, "target": { "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim } } } })
    };
    cluster.apply(&of("a", false)).await.unwrap();
    let ready = cluster.until_phase(&of("a", false), "Ready").await;
    // The webhook's message for the change.
    let mut changed = ready.clone();
    changed["spec"]["target"] = of("b", false)["spec"]["target"].clone();
    let said = message(&check("BackupConfiguration", &changed, Some(&ready)));
    assert!(said.starts_with("spec.target.ref: cannot be changed from PersistentVolumeClaim a to"), "{said}");
    cluster.apply(&of("b", false)).await.unwrap();
    let told = cluster.until_phase(&of("b", false), "Invalid").await;
    assert_eq!(super::cluster::message(&told, "ValidationPassed"), said);
    assert_eq!(super::cluster::condition(&told, "Stalled").0, "True");
    let mut edited = of("a", true);
    edited["spec"]["target"]["exclude"] = json!(["*.tmp"]);
    edited["spec"]["target"]["paths"] = json!(["/stash-data/b"]);
    edited["spec"]["retentionPolicy"]["keepLast"] = json!(3);
    cluster.apply(&edited).await.unwrap();
    cluster.until_phase(&edited, "Ready").await;
}

fn batch(ns: &str, members: &[(&str, &str)]) -> Value {
    let target = |(alias, claim): &(&str, &str)| {
        json!({ "target": { "alias": alias,
        "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim } } })
    };
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupBatch",
        "metadata": { "name": "all", "namespace": ns },
        "spec": { "repository": { "name": "repo" }, "retentionPolicy": { "name": "keep", "keepLast": 1, "prune": true },
            "members": members.iter().map(target).collect::<Vec<_>>() } })
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn members_of_a_batch_come_and_go_and_a_removed_alias_is_free_again() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("members").await;
    let _operator = Operator::leading(&cluster).await;
    super::jobs::ground(&cluster, &ns, &["a", "b"], &[]).await;
    super::jobs::open(&cluster, &ns).await;
    let apply = async |members: &[(&str, &str)], phase: &str| {
        let applied = cluster.apply(&batch(&ns, members)).await.unwrap();
        let generation = applied["metadata"]["generation"].clone();
        let is = |o: &Value| o["status"]["observedGeneration"] == generation && o["status"]["phase"] == phase;
        cluster.until(&batch(&ns, members), phase, is).await
    };
    apply(&[("one", "a")], "Ready").await;
    let told = apply(&[("one", "b")], "Invalid").await;
    let said = super::cluster::message(&told, "ValidationPassed");
    assert!(said.starts_with("spec.members[0].target.ref: is PersistentVolumeClaim b, but"), "{said}");
    apply(&[("one", "a"), ("two", "b")], "Ready").await;
    let ready = apply(&[("two", "b")], "Ready").await;
    assert_eq!(ready["status"]["identity"]["targets"].as_array().unwrap().len(), 1, "{ready:#}");
    apply(&[("two", "b"), ("one", "b")], "Ready").await;
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn what_is_mended_begins_anew() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("mended").await;
    let _operator = Operator::leading(&cluster).await;
    let right = super::jobs::session(&ns, &super::jobs::target("PersistentVolumeClaim", "a"));
    let mut wrong = right.clone();
    wrong["spec"]["target"]["rules"] = json!([]);
    cluster.apply(&wrong).await.unwrap();
    let told = cluster
        .until(&wrong, "Invalid, and let go", |o| o["status"]["phase"] == "Invalid" && !super::jobs::is_held(o))
        .await;
    assert_eq!(super::cluster::condition(&told, "Stalled"), ("True", "Invalid"));
    cluster.apply(&right).await.unwrap();
    let waits = cluster.until_phase(&right, "Pending").await;
    assert_eq!(waits["status"]["observedGeneration"], 2);
    assert_eq!(super::cluster::condition(&waits, "ValidationPassed").0, "True");
    assert!(waits["status"]["run"].get("completionTime").is_none(), "nothing of the refusal is left");
}

/// Proves: defect 5, defect 6, defect 26, scenario 17, invented 3, invented 7.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn with_the_webhook_it_is_denied_in_the_same_words() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("denied").await;
    let webhook = Webhook::install(&cluster).await;
    let mut wrong = vec![];
    for (name, object, _) in manifests("good", &ns) {
        if let Err(error) = cluster.try_apply(&object).await {
            wrong.push(format!("{name}: {error}"));
        }
    }
    for (name, object, said) in manifests("bad", &ns) {
        match cluster.apply(&object).await {
            Err(kube::Error::Api(status)) if BY_THE_API_SERVER.contains(&name.as_str()) && status.code == 422 => {}
            Err(kube::Error::Api(status)) if status.message.ends_with(&format!("denied the request: {said}")) => {}
            other => wrong.push(format!("{name}: expected {said:?}, got {other:?}")),
        }
    }
    webhook.remove(&cluster).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
