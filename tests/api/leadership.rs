//! Two operators: one leads, the other takes over; and the pages that every replica serves.

use std::time::Duration;

use serde_json::json;

use super::cluster::{Cluster, SOON, eventually};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

/// After a graceful stop the Lease is free; after a kill it has to expire.
const AFTER_TERM: Duration = Duration::from_secs(5);
const AFTER_KILL: Duration = Duration::from_secs(15);

/// An operator that leads, with the lease duration of the chart.
async fn first_one(cluster: &Cluster) -> Operator {
    let operator = Operator::start_in(cluster, "test", &["--webhook", "false"]);
    operator.leads_within(SOON).await;
    operator
}

/// Another operator, which is ready but does not lead.
async fn standing_by(cluster: &Cluster, identity: &str) -> Operator {
    let operator = Operator::start_in(cluster, identity, &["--webhook", "false"]);
    eventually("ready, though it does not lead", SOON, || async {
        operator.page("/readyz").await.filter(|(code, _)| *code == 200).map(|_| ()).ok_or("not ready".into())
    })
    .await;
    assert!(!operator.leads().await);
    operator
}

/// Proves: C03.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn one_leads_and_another_takes_over() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("successor").await;
    let first = first_one(&cluster).await;
    let second = standing_by(&cluster, "second").await;
    assert!(first.leads().await);
    for path in ["/healthz", "/readyz"] {
        let (code, text) = second.page(path).await.unwrap();
        assert!(code == 200 && text.ends_with("ok\n"), "{path}: {text}");
    }
    let (_, metrics) = first.page("/metrics").await.unwrap();
    assert!(metrics.contains("application/openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");

    first.terminate();
    second.leads_within(AFTER_TERM).await;
    assert!(first.ended().await, "a graceful stop is a success");
    let third = standing_by(&cluster, "test").await;
    drop(second);
    third.leads_within(AFTER_KILL).await;
    // The new leader works.
    ground(&cluster, &ns, &["a"], &[]).await;
    cluster.apply(&session(&ns, &target("PersistentVolumeClaim", "a"))).await.unwrap();
    jobs::of_step(&cluster, &ns, "preflight").await;
}

/// Proves: C03, C01, defect 21, invented 18, scenario 3.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_leader_that_hangs_or_dies_in_the_middle_of_a_run_is_followed_without_a_second_job() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("followed").await;
    let first = first_one(&cluster).await;
    let second = standing_by(&cluster, "second").await;
    ground(&cluster, &ns, &[], &["web"]).await;
    let deployment =
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": ns } });
    let object = session(&ns, &target("Deployment", "web"));
    cluster.apply(&object).await.unwrap();
    let preflight = jobs::of_step(&cluster, &ns, "preflight").await;

    // The leader hangs while the preflight runs. Afterwards it only notices that another operator leads.
    first.freeze();
    jobs::end(&cluster, &preflight, &jobs::success(&preflight)).await;
    second.leads_within(AFTER_KILL).await;
    let restore = jobs::of_step(&cluster, &ns, "restore/").await;
    let before = cluster.until(&object, "quiesced", |o| o["status"]["quiesce"]["state"] == "Quiesced").await;
    first.thaw();
    assert!(!first.ended().await, "it must not go on beside the one that leads");
    assert!(second.leads().await);
    assert_eq!(cluster.get(&object).await["status"], before["status"], "it wrote nothing more");
    assert_eq!(cluster.get(&deployment).await["spec"]["replicas"], 0);

    // The leader dies while the restore runs.
    let third = standing_by(&cluster, "third").await;
    drop(second);
    jobs::end(&cluster, &restore, &jobs::success(&restore)).await;
    third.leads_within(AFTER_KILL).await;
    let done = cluster.until(&object, "released", |o| o["status"]["phase"] == "Succeeded" && !jobs::is_held(o)).await;
    assert_eq!(done["status"]["stats"][0]["attempt"], 1);
    assert_eq!(cluster.get(&deployment).await["spec"]["replicas"], 2);
    assert_eq!(jobs::keys(&cluster, &ns).await, [jobs::key(&preflight), jobs::key(&restore)], "each step has one Job");
}
