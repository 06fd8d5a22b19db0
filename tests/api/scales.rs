//! Scales that a policy refuses, or that another client changes: the reported status, and the replicas afterwards.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, condition, eventually, message};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

const REFUSED: &str = "RefusedByApiServer";
/// The operator checks a Job without a pod after twelve seconds.
const NEXT_LOOK: Duration = Duration::from_secs(25);

/// A policy that refuses scales of the Deployments of a namespace unless they follow the rule.
struct Policy {
    objects: [Value; 2],
}

impl Policy {
    async fn new(cluster: &Cluster, ns: &str, rule: &str) -> Self {
        let meta = json!({ "name": ns });
        let policy = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": meta, "spec": { "failurePolicy": "Fail",
                "matchConstraints": { "resourceRules": [{ "apiGroups": ["apps"], "apiVersions": ["v1"],
                    "operations": ["UPDATE"], "resources": ["deployments/scale"] }] },
                "validations": [{ "expression": rule, "message": "the house wants it so", "reason": "Forbidden" }] } });
        let binding = json!({ "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding", "metadata": meta, "spec": { "policyName": ns,
                "validationActions": ["Deny"],
                "matchResources": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": ns } } } } });
        cluster.apply(&policy).await.unwrap();
        cluster.apply(&binding).await.unwrap();
        Self { objects: [binding, policy] }
    }

    async fn remove(self, cluster: &Cluster) {
        for object in &self.objects {
            cluster.delete(object).await;
        }
    }
}

/// Waits until the API server decides like this on a scale of `web`; policies take effect after a moment.
async fn judges(cluster: &Cluster, ns: &str, replicas: i32, allowed: bool) {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), ns);
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    let params = PatchParams::default().dry_run();
    eventually("the policy", SOON, || async {
        let judged = api.patch_scale("web", &params, &patch).await.map(|_| ());
        if judged.is_ok() == allowed { Ok(()) } else { Err(format!("{judged:?}")) }
    })
    .await;
}

fn web(ns: &str) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": ns } })
}

/// Number of warnings about refused scales, once there is one.
async fn refusals(cluster: &Cluster, ns: &str) -> usize {
    let is_refusal = |e: &Event| e.reason.as_deref() == Some(REFUSED) && e.type_.as_deref() == Some("Warning");
    cluster.events(ns, 1, is_refusal).await.len()
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_scale_that_a_policy_refuses_holds_up_its_member_and_nobody_else() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("no-zero").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &["web", "db"]).await;
    let rule = "object.metadata.name != 'web' || object.?spec.?replicas.orValue(0) > 0";
    let policy = Policy::new(&cluster, &ns, rule).await;
    judges(&cluster, &ns, 0, false).await;
    let members = ["web", "db"].map(|name| json!({ "target": target("Deployment", name) }));
    let object = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch",
        "metadata": { "name": "run", "namespace": ns }, "spec": { "repository": { "name": "repo" }, "members": members } });
    cluster.apply(&object).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    jobs::succeed(&cluster, &ns, "restore/1/db").await;
    let now = cluster.until(&object, "the other restored", |o| o["status"]["members"][1]["phase"] == "Succeeded").await;
    let member = &now["status"]["members"][0];
    let text = member["message"].as_str().unwrap();
    assert!(text.contains("Deployment/web could not be scaled from 2 to 0 for the restore"), "{text}");
    assert!(text.contains("the house wants it so"), "{text}");
    let told = json!({ "status": { "conditions": member["conditions"] } });
    assert_eq!(condition(&told, "Quiesced"), ("False", REFUSED));
    assert_eq!(refusals(&cluster, &ns).await, 1);

    policy.remove(&cluster).await;
    judges(&cluster, &ns, 0, true).await;
    jobs::succeed(&cluster, &ns, "restore/0/web").await;
    cluster.until_phase(&object, "Succeeded").await;
    assert_eq!(cluster.get(&web(&ns)).await["spec"]["replicas"], 2);
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_session_that_goes_and_may_not_scale_back_says_so_until_it_may() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("no-return").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &["web"]).await;
    let mut of = target("Deployment", "web");
    of["afterFailure"] = "ScaleBack".into();
    let object = session(&ns, &of);
    cluster.apply(&object).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    let running = jobs::of_step(&cluster, &ns, "restore/0/web").await;
    let policy = Policy::new(&cluster, &ns, "object.?spec.?replicas.orValue(0) == 0").await;
    judges(&cluster, &ns, 2, false).await;
    cluster.delete(&object).await;
    jobs::collect(&cluster, &running).await;
    let told = cluster.until(&object, "told", |o| condition(o, "ScaledBack") == ("False", REFUSED)).await;
    let text = message(&told, "ScaledBack");
    assert!(text.contains("could not be scaled back from 0 to 2 replicas"), "{text}");
    assert!(text.contains(&format!("kubectl -n {ns} scale deployment/web --replicas=2")), "{text}");
    assert!(told["status"]["summary"].as_str().unwrap().contains("could not be scaled back"), "{:#}", told["status"]);
    assert_eq!(refusals(&cluster, &ns).await, 1);
    assert!(jobs::is_held(&cluster.get(&object).await));

    policy.remove(&cluster).await;
    judges(&cluster, &ns, 2, true).await;
    cluster.until(&object, "gone", Value::is_null).await;
    assert_eq!(cluster.get(&web(&ns)).await["spec"]["replicas"], 2);
}

/// Proves: invented 16.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn who_scales_a_workload_up_under_its_restore_breaks_it_and_who_leaves_it_at_zero_finds_it_back() {
    let cluster = Cluster::enter().await;
    let namespaces = cluster.namespaces("broken", 2).await;
    let _operator = Operator::leading(&cluster).await;
    for ((then, ends), ns) in [(3, 3), (0, 2)].into_iter().zip(namespaces) {
        ground(&cluster, &ns, &[], &["web"]).await;
        let object = session(&ns, &target("Deployment", "web"));
        cluster.apply(&object).await.unwrap();
        jobs::succeed(&cluster, &ns, "preflight").await;
        let running = jobs::of_step(&cluster, &ns, "restore/0/web").await;
        cluster.patch(&web(&ns), json!({ "spec": { "replicas": 3 } })).await.unwrap();
        let noticed = eventually("noticed", NEXT_LOOK, || async {
            let now = cluster.get(&object).await;
            if now["status"]["quiesce"]["state"] == "Broken" { Ok(now) } else { Err(format!("{:#}", now["status"])) }
        })
        .await;
        assert_eq!(condition(&noticed, "Quiesced"), ("False", "QuiesceBroken"));
        assert!(message(&noticed, "Quiesced").contains("It had 2 before"), "{:#}", noticed["status"]);
        cluster.patch(&web(&ns), json!({ "spec": { "replicas": then } })).await.unwrap();
        jobs::end(&cluster, &running, &jobs::success(&running)).await;
        let failed = cluster.until_phase(&object, "Failed").await;
        assert_eq!(condition(&failed, "Stalled").1, "QuiesceBroken");
        assert_eq!(cluster.get(&web(&ns)).await["spec"]["replicas"], ends, "left at {then}");
    }
}
