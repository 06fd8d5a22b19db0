//! `target.extraneous`: the run waits for the deletion, counts the files and reports them.

use serde_json::json;

use super::cluster::{Cluster, condition};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

/// A pod of another user starts to use the claim between two attempts: nothing is deleted while it runs.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_restore_that_deletes_waits_for_pods_and_says_what_it_deleted() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("extraneous").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "reader", "namespace": ns }, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "localhost/none:1" }],
        "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "a" } }] } });
    let mut object = session(&ns, &target("PersistentVolumeClaim", "a"));
    object["spec"]["target"]["extraneous"] = "Everything".into();
    let refused = cluster.try_apply(&object).await.unwrap_err().to_string();
    assert!(refused.contains("spec.target.extraneous") && refused.contains("\"Keep\", \"Delete\""), "{refused}");
    object["spec"]["target"]["extraneous"] = "Delete".into();

    cluster.apply(&pod).await.unwrap();
    cluster.apply(&object).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    let said = |o: &serde_json::Value| o["status"]["summary"].as_str().unwrap_or_default().to_owned();
    let waits = |o: &serde_json::Value| said(o).contains("extraneous is Delete") && said(o).contains("reader");
    cluster.until(&object, "it names the pod", waits).await;
    let made = jobs::keys(&cluster, &ns).await;
    assert!(made.len() == 1 && made[0].starts_with("preflight"), "nothing is touched: {made:?}");

    cluster.delete(&pod).await;
    let first = jobs::of_step(&cluster, &ns, "restore").await;
    assert!(matches!(jobs::work(&first).step, lifeboat::contract::restic::Step::Restore(step) if step.exact));
    cluster.apply(&pod).await.unwrap();
    jobs::end(&cluster, &first, &jobs::unreachable(&first)).await;
    jobs::collect(&cluster, &first).await;
    let busy = |o: &serde_json::Value| o["status"]["stats"][0]["reason"] == "TargetBusy";
    cluster.until(&object, "it waits for the pod again", busy).await;

    cluster.delete(&pod).await;
    jobs::succeed_again(&cluster, &ns, "restore", &first).await;
    let done = cluster.until_phase(&object, "Succeeded").await;
    assert_eq!(said(&done), "Restored 1 host: 7 entries, 70 B. Deleted 3 entries.");
    assert_eq!((&done["status"]["stats"][0]["deleted"], condition(&done, "Ready").0), (&json!(3), "True"));
    let told = cluster.events(&ns, 1, |e| e.reason.as_deref() == Some("ExtraneousDeleted")).await;
    assert_eq!(told[0].type_.as_deref(), Some("Normal"));
}
