//! OpenShift's DeploymentConfig: with a replacement for its API, and without its API.

use serde_json::{Value, json};

use super::cluster::{Cluster, condition, message};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

/// A definition with the parts of OpenShift's own API that are used: the kind, and its scale.
fn stand_in() -> Value {
    json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "deploymentconfigs.apps.openshift.io" },
        "spec": { "group": "apps.openshift.io", "scope": "Namespaced",
            "names": { "kind": "DeploymentConfig", "plural": "deploymentconfigs", "singular": "deploymentconfig" },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
                "subresources": { "scale": { "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas" } } }] } })
}

fn of_config(name: &str) -> Value {
    let mut of = target("DeploymentConfig", name);
    of["ref"]["apiVersion"] = "apps.openshift.io/v1".into();
    of
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_deployment_config_is_quiesced_and_restored_and_where_there_are_none_that_is_said() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("openshift").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["app"], &[]).await;
    let run = session(&ns, &of_config("app"));
    cluster.apply(&run).await.unwrap();
    let said = cluster.until(&run, "told", |o| condition(o, "RestoreTargetFound").0 == "Unknown").await;
    let text = message(&said, "RestoreTargetFound");
    assert!(text.contains("does not have apps.openshift.io/v1") && text.contains("Use a Deployment"), "{text}");
    assert!(jobs::keys(&cluster, &ns).await.iter().all(|k| !k.starts_with("restore/")));

    let definition = stand_in();
    cluster.apply(&definition).await.unwrap();
    cluster.until(&definition, "Established", |c| condition(c, "Established").0 == "True").await;
    let object = json!({ "apiVersion": "apps.openshift.io/v1", "kind": "DeploymentConfig",
        "metadata": { "name": "app", "namespace": ns },
        "spec": { "replicas": 3, "selector": { "app": "app" }, "template": {
            "metadata": { "labels": { "app": "app" } }, "spec": {
            "containers": [{ "name": "c", "image": "localhost/none:1" }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "app" } }] } } } });
    cluster.apply(&object).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    jobs::of_step(&cluster, &ns, "restore/0/app").await;
    assert_eq!(cluster.get(&object).await["spec"]["replicas"], 0);
    jobs::succeed(&cluster, &ns, "restore/0/app").await;
    let done = cluster.until_phase(&run, "Succeeded").await;
    assert_eq!(condition(&done, "Quiesced"), ("False", "ScaledBack"));
    assert_eq!(cluster.get(&object).await["spec"]["replicas"], 3);
    cluster.delete(&definition).await;
}
