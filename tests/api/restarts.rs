//! The operator is killed between any two steps of a run: the next operator continues, and repeats nothing.

use serde_json::json;

use super::cluster::{Cluster, condition};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

/// Proves: C01, C02.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_run_survives_a_kill_at_every_step() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("killed").await;
    ground(&cluster, &ns, &[], &["web"]).await;
    let deployment =
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": ns } });
    let object = session(&ns, &target("Deployment", "web"));

    let operator = Operator::leading(&cluster).await;
    cluster.apply(&object).await.unwrap();
    let preflight = jobs::of_step(&cluster, &ns, "preflight").await;
    // While the preflight runs; it ends while no operator runs.
    drop(operator);
    jobs::end(&cluster, &preflight, &jobs::success(&preflight)).await;
    let operator = Operator::leading(&cluster).await;
    let restore = jobs::of_step(&cluster, &ns, "restore/").await;
    // While data is written, with the workload scaled down.
    drop(operator);
    assert_eq!(cluster.get(&deployment).await["spec"]["replicas"], 0);
    let operator = Operator::leading(&cluster).await;
    cluster.until(&object, "running", |o| condition(o, "Reconciling").0 == "True").await;
    drop(operator);
    jobs::end(&cluster, &restore, &jobs::success(&restore)).await;
    let _operator = Operator::leading(&cluster).await;
    cluster.until(&object, "released", |o| o["status"]["phase"] == "Succeeded" && !jobs::is_held(o)).await;
    assert_eq!(cluster.get(&deployment).await["spec"]["replicas"], 2);
    let keys = jobs::keys(&cluster, &ns).await;
    assert!(keys.len() == 2 && keys[1] == "restore/0/web", "each step once: {keys:?}");
}
