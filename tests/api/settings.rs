//! Settings of Jobs: from a Repository, from the annotation of its namespace, and quotas.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PodSpec;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use lifeboat::names::annotation;
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, message};
use super::jobs;
use super::operator::Operator;

fn pod(job: &Job) -> PodSpec {
    job.spec.as_ref().unwrap().template.spec.clone().unwrap()
}

fn namespace(ns: &str, defaults: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": ns, "annotations": { annotation::JOB_DEFAULTS: defaults } } })
}

/// Closes: C4 of the newcomer.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn settings_of_a_namespace_reach_jobs_and_wrong_ones_stop_only_it() {
    let cluster = Cluster::enter().await;
    let (ns, other) = (cluster.namespace("defaults").await, cluster.namespace("beside").await);
    let _operator = Operator::leading(&cluster).await;
    let repository = |ns: &str| json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository", "metadata": { "name": "repo", "namespace": ns } });
    cluster.apply(&namespace(&ns, r#"{"resources":{"limits":{"memory":"1GB"}}}"#)).await.unwrap();
    jobs::ground(&cluster, &ns, &["a"], &[]).await;
    jobs::ground(&cluster, &other, &["a"], &[]).await;
    let run = jobs::session(&ns, &jobs::target("PersistentVolumeClaim", "a"));
    cluster.apply(&run).await.unwrap();
    let says = |o: &Value| message(o, "Ready").contains(annotation::JOB_DEFAULTS);
    for object in [&repository(&ns), &run] {
        let told = cluster.until(object, "the annotation is named", says).await;
        assert!(message(&told, "Ready").contains("resources.limits.memory"), "{told:#}");
    }
    // The other namespace works meanwhile.
    jobs::of_step(&cluster, &other, "list").await;
    assert!(jobs::all(&cluster, &ns).await.is_empty());
    let right = r#"{"serviceAccountName":"mover","resources":{"limits":{"memory":"1Gi"}},"tolerations":[{"operator":"Exists"}]}"#;
    cluster.apply(&namespace(&ns, right)).await.unwrap();
    for step in ["list", "preflight"] {
        let pod = pod(&jobs::of_step_within(&cluster, &ns, step, Duration::from_mins(1)).await);
        assert_eq!(pod.service_account_name.as_deref(), Some("mover"), "{step}");
        assert!(pod.containers[0].resources.is_some() && pod.tolerations.is_some(), "{step}");
        assert_eq!(pod.automount_service_account_token, Some(false), "{step}");
    }
}

/// The pods of Jobs, as the Job controller would create them.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_quota_lets_in_the_pods_of_jobs_that_have_settings() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("quota").await;
    let _operator = Operator::leading(&cluster).await;
    let hard = json!({ "limits.cpu": "4", "limits.memory": "4Gi", "requests.cpu": "4", "requests.memory": "4Gi" });
    let quota = json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q", "namespace": ns }, "spec": { "hard": hard } });
    cluster.apply(&quota).await.unwrap();
    // As the controller manager would write it.
    let used = json!({ "limits.cpu": "0", "limits.memory": "0", "requests.cpu": "0", "requests.memory": "0" });
    let status = Patch::Merge(json!({ "status": { "hard": hard, "used": used } }));
    cluster.api_of(&quota).patch_status("q", &PatchParams::default(), &status).await.unwrap();
    jobs::ground(&cluster, &ns, &["a"], &[]).await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(cluster.client.clone(), &ns);
    let try_pod = async |job: &Job| {
        let mut spec = pod(job);
        // The account of a grant does not matter here.
        spec.service_account_name = None;
        let metadata = json!({ "name": job.metadata.name, "namespace": ns });
        let pod = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
        pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await
    };
    let bare = jobs::of_step(&cluster, &ns, "list").await;
    // The admission plugin learns of the quota through a watch.
    super::cluster::eventually("a pod without resources is refused", SOON, async || match try_pod(&bare).await {
        Err(e) if e.to_string().contains("must specify") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let amounts = json!({ "cpu": "100m", "memory": "64Mi" });
    let repository = json!({ "spec": { "runtimeSettings": { "container": { "resources": { "limits": amounts, "requests": amounts } } } } });
    let object = json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository", "metadata": { "name": "repo", "namespace": ns } });
    cluster.patch(&object, repository).await.unwrap();
    cluster
        .until(&object, "its settings are seen", |o| o["status"]["observedGeneration"] == o["metadata"]["generation"])
        .await;
    let all: Api<Job> = Api::namespaced(cluster.client.clone(), &ns);
    all.delete(bare.metadata.name.as_deref().unwrap(), &DeleteParams::background()).await.unwrap();
    let limited = super::cluster::eventually("a Job with limits", SOON * 3, async || {
        let all = jobs::all(&cluster, &ns).await;
        all.into_iter().find(|j| pod(j).containers[0].resources.is_some()).ok_or("none has".to_owned())
    })
    .await;
    try_pod(&limited).await.unwrap();
}
