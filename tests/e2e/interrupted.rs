//! Runs that are interrupted in the middle of their data: deleted, or left by the operator.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};

use super::harness::{Site, eventually};
use super::manifests::{LATEST, batch, deployment, of_claim, restore, store_at};
use super::proxy::Proxy;
use super::store::{assert_tree, prepared};

/// Restore of host m1 into Deployment `web`.
const WEB: &str = "{alias: m1, ref: {apiVersion: apps/v1, kind: Deployment, name: web}, \
    volumeMounts: [{name: web, mountPath: /stash-data}], rules: [{snapshots: [latest]}]}";

async fn web(site: &Site) -> std::path::PathBuf {
    let folder = site.claim("web").await;
    site.create(&deployment("web", 2, &[("web", "/srv")])).await;
    site.until("Deployment", "web", 60, "available", |d| d["status"]["availableReplicas"] == 2).await;
    folder
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c08_a_deleted_run_stops_its_job_scales_back_and_lets_go() {
    let site = Site::new("c08").await;
    prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    web(&site).await;
    proxy.hold_after(1_000_000);
    site.create(&restore("web", WEB, "")).await;
    proxy.held().await;
    assert_eq!(site.get("Deployment", "web").await["spec"]["replicas"], 0);

    site.delete("RestoreSession", "web").await;
    let gone = eventually(30, async || site.find("RestoreSession", "web").await.is_none().then_some(())).await;
    assert!(gone.is_some(), "still there: {:#}", site.get("RestoreSession", "web").await);
    assert_eq!(site.get("Deployment", "web").await["spec"]["replicas"], 2);
    let left = eventually(15, async || site.jobs_of_sessions().await.is_empty().then_some(())).await;
    assert!(left.is_some(), "Jobs are left: {:#?}", site.jobs_of_sessions().await);
    site.until("Deployment", "web", 60, "back", |d| d["status"]["availableReplicas"] == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c01_a_killed_operator_goes_on_where_it_was() {
    let site = Site::new("c01").await;
    let trees = prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    let (first, middle, last) = (site.claim("m0").await, web(&site).await, site.claim("m2").await);
    proxy.hold_after(1_000_000);
    let members = [of_claim("m0", "m0", LATEST), WEB.to_owned(), of_claim("m2", "m2", LATEST)];
    site.create(&batch("RestoreBatch", "all", "maintainOrder: true", &members)).await;
    proxy.held().await;

    // The webhook is away for a moment too; who needs it waits.
    let alone = super::faults::WEBHOOK.write().await;
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), "lifeboat-system");
    let of_operator = ListParams::default().labels("app.kubernetes.io/name=lifeboat");
    let before = pods.list(&of_operator).await.unwrap().items;
    assert!(!before.is_empty(), "no pod of the operator was found");
    for pod in &before {
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        pods.delete(pod.metadata.name.as_ref().unwrap(), &at_once).await.unwrap();
    }
    let ready = eventually(60, async || {
        let now = pods.list(&of_operator).await.unwrap().items;
        now.into_iter().find(|p| {
            let new = before.iter().all(|b| b.metadata.uid != p.metadata.uid);
            let conditions = p.status.clone().and_then(|s| s.conditions).unwrap_or_default();
            new && conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
        })
    });
    assert!(ready.await.is_some(), "the operator did not come back");
    let wrong = restore("wrong", &of_claim("m0", "m0", ", rules: [{paths: [relative]}]"), "");
    let denies = eventually(30, async || {
        if site.try_create(&wrong).await.is_err() {
            return Some(());
        }
        site.delete("RestoreSession", "wrong").await;
        None
    });
    assert!(denies.await.is_some(), "the webhook did not come back");
    drop(alone);
    proxy.release();

    let session = site.succeeded("RestoreBatch", "all").await;
    for (folder, tree) in [first, middle, last].iter().zip(trees) {
        assert_tree(folder, tree);
    }
    let jobs = site.jobs("all", "restore").await;
    assert_eq!(jobs.len(), 3, "each member has one Job: {:#?}", session["status"]);
    assert_eq!(session["status"]["members"][1]["quiesce"]["state"], "Resumed");
    site.until("Deployment", "web", 60, "back", |d| d["status"]["availableReplicas"] == 2).await;
}
