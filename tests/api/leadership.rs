//! Two operators: one leads, the other takes over; and the pages every replica serves.

use std::time::Duration;

use super::cluster::{Cluster, SOON, eventually};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

/// After a graceful stop the Lease is free; after a kill it has to run out.
const AFTER_TERM: Duration = Duration::from_secs(5);
const AFTER_KILL: Duration = Duration::from_secs(15);

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn one_leads_and_another_takes_over() {
    let cluster = Cluster::enter().await;
    let first = Operator::leading().await;
    let second = Operator::start("second", &["--webhook", "false"]);
    eventually("ready, though it does not lead", SOON, || async {
        second.page("/readyz").await.filter(|(code, _)| *code == 200).map(|_| ()).ok_or("not ready".into())
    })
    .await;
    assert!(first.leads().await && !second.leads().await);
    for path in ["/healthz", "/readyz"] {
        let (code, text) = second.page(path).await.unwrap();
        assert!(code == 200 && text.ends_with("ok\n"), "{path}: {text}");
    }
    let (_, metrics) = first.page("/metrics").await.unwrap();
    assert!(metrics.contains("application/openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");

    first.terminate();
    second.leads_within(AFTER_TERM).await;
    assert!(first.ended().await, "a graceful stop is a success");
    let third = Operator::start("test", &["--webhook", "false"]);
    eventually("standing by", SOON, || async {
        third.page("/readyz").await.filter(|(code, _)| *code == 200).map(|_| ()).ok_or("not ready".into())
    })
    .await;
    assert!(!third.leads().await);
    drop(second);
    third.leads_within(AFTER_KILL).await;
    // And it works.
    let ns = cluster.namespace("successor").await;
    ground(&cluster, &ns, &["a"], &[]).await;
    cluster.apply(&session(&ns, &target("PersistentVolumeClaim", "a"))).await.unwrap();
    jobs::of_step(&cluster, &ns, "preflight").await;
}
