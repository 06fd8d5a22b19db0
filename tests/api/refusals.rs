//! Bad manifests: told the same in an object's status as by the webhook.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use lifeboat::admission::{check, message};
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, eventually};
use super::operator::Operator;

/// Refused by the schema or a rule of the definitions, whatever runs.
const BY_THE_API_SERVER: [&str; 11] = [
    "backup-retention-missing",
    "backup-retry-delay",
    "backup-retry-negative",
    "batch-order-contradiction",
    "batch-order-typo",
    "repository-claim-name",
    "repository-nfs",
    "repository-selector",
    "repository-two-stores",
    "session-driver-unknown",
    "session-timeout",
];

/// Each bad manifest under a name of its own, with what admission says of it.
fn bad(namespace: &str) -> Vec<(String, Value, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests/bad");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .map(|file| {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            let mut object = lifeboat::yaml::read(&fs::read_to_string(file).unwrap()).unwrap().remove(0);
            object["metadata"] = json!({ "name": name, "namespace": namespace });
            let said = message(&check(object["kind"].as_str().unwrap(), &object, None));
            (name, object, said)
        })
        .collect()
}

/// Phase in which an object ends that is not valid.
fn ends(object: &Value) -> Value {
    match object["kind"].as_str().unwrap() {
        "Repository" => Value::Null,
        "BackupSession" => "Skipped".into(),
        _ => "Invalid".into(),
    }
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn without_the_webhook_the_status_says_what_is_wrong() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("bad").await;
    let all = bad(&ns);
    assert!(all.len() >= 93, "{}", all.len());
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
    let _operator = Operator::leading().await;
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
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn what_is_mended_begins_anew() {
    let cluster = Cluster::enter().await;
    let _operator = Operator::leading().await;
    let ns = cluster.namespace("mended").await;
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

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn with_the_webhook_it_is_denied_in_the_same_words() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("denied").await;
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
    let valid = super::jobs::session(&ns, &super::jobs::target("PersistentVolumeClaim", "a"));
    let dialect = |name: &str| {
        let mut object = valid.clone();
        object["metadata"]["name"] = name.into();
        let rules = object["spec"]["target"]["rules"].take();
        object["spec"]["rules"] = rules;
        object["spec"]["target"].as_object_mut().unwrap().remove("rules");
        object
    };
    // The API server takes up new configurations within a second or so.
    eventually("the webhook is asked", SOON, || async {
        let made = cluster.apply(&dialect("moved")).await.unwrap();
        cluster.delete(&made).await;
        let moved = made["spec"]["target"]["rules"].is_array() && made["spec"].get("rules").is_none();
        if moved { Ok(()) } else { Err(format!("{:#}", made["spec"])) }
    })
    .await;
    let mut wrong = vec![];
    for (name, object, said) in bad(&ns) {
        match cluster.apply(&object).await {
            Err(kube::Error::Api(status)) if BY_THE_API_SERVER.contains(&name.as_str()) && status.code == 422 => {}
            Err(kube::Error::Api(status)) if status.message.ends_with(&format!("denied the request: {said}")) => {}
            other => wrong.push(format!("{name}: expected {said:?}, got {other:?}")),
        }
    }
    for configuration in &configurations {
        cluster.delete(configuration).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
