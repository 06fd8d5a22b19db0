//! Runs that are interrupted in the middle of their data: by deletion, by cancellation, or by the operator's death.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::TryStreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::harness::{Site, condition, eventually, phase};
use super::manifests::{LATEST, batch, claim, deployment, of_claim, restore, store_at};
use super::proxy::Proxy;
use super::store::{assert_tree, prepared, prepared_behind_a_proxy};
use super::support::tree::describe;

/// Restore of host m1 into Deployment `web`.
const WEB: &str = "{alias: m1, ref: {apiVersion: apps/v1, kind: Deployment, name: web}, \
    volumeMounts: [{name: web, mountPath: /stash-data}], rules: [{snapshots: [latest]}]}";

const HELD_DOWN: &str = "lifeboat.stash.appscode.com/held-down";

async fn web(site: &Site) -> std::path::PathBuf {
    let folder = site.claim("web").await;
    site.create(&deployment("web", 2, &[("web", "/srv")])).await;
    site.until("Deployment", "web", 60, "available", |d| d["status"]["availableReplicas"] == 2).await;
    folder
}

/// Proves: C08.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c08_a_deleted_run_stops_its_job_leaves_its_workload_down_and_lets_go() {
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
    let web = site.get("Deployment", "web").await;
    assert_eq!(web["spec"]["replicas"], 0, "its data is half restored");
    assert!(web["metadata"]["annotations"][HELD_DOWN].is_string(), "{web:#}");
    let left = eventually(15, async || site.jobs_of_sessions().await.is_empty().then_some(())).await;
    assert!(left.is_some(), "Jobs are left: {:#?}", site.jobs_of_sessions().await);
}

/// A batch in order, held in the middle of its second member. Gives the claims' folders.
async fn caught(site: &Site, proxy: &Proxy) -> [std::path::PathBuf; 3] {
    let folders = [site.claim("m0").await, web(site).await, site.claim("m2").await];
    proxy.hold_after(1_000_000);
    site.create(&in_order("all")).await;
    proxy.held().await;
    folders
}

fn in_order(name: &str) -> String {
    let members = [of_claim("m0", "m0", LATEST), WEB.to_owned(), of_claim("m2", "m2", LATEST)];
    batch("RestoreBatch", name, "maintainOrder: true", &members)
}

/// Proves: C08, C14, invented 17.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c08_a_batch_that_is_deleted_in_the_middle_leaves_nothing() {
    let site = Site::new("c08-batch").await;
    prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    caught(&site, &proxy).await;
    assert_eq!(site.get("Deployment", "web").await["spec"]["replicas"], 0);
    site.leaves_nothing().await;
    let web = site.get("Deployment", "web").await;
    assert_eq!(web["spec"]["replicas"], 0, "its data is half restored");
    assert!(web["metadata"]["annotations"][HELD_DOWN].is_string(), "{web:#}");
}

/// Proves: C09, C14.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c09_a_canceled_batch_says_what_is_restored_and_leaves_the_rest_alone() {
    let (site, trees, proxy) = prepared_behind_a_proxy("c09").await;
    let [first, middle, last] = caught(&site, &proxy).await;
    let untouched = describe(&last);

    let asked = Instant::now();
    site.patch("RestoreBatch", "all", json!({ "spec": { "cancel": true } })).await;
    site.until("RestoreBatch", "all", 10, "acknowledged", |s| !condition(s, "Canceled").0.is_empty()).await;
    let text = site.failed("RestoreBatch", "all", "Canceled").await;
    assert!(asked.elapsed().as_secs() < 30, "canceled after {:?}", asked.elapsed());
    let told =
        "1 of 3 members restored; interrupted, and maybe half restored: member 1 (m1); not changed: member 2 (m2)";
    assert!(text.contains(told), "{text}");
    let session = site.get("RestoreBatch", "all").await;
    let phases: Vec<_> = session["status"]["members"].as_array().unwrap().iter().map(|m| &m["phase"]).collect();
    assert_eq!(phases, ["Succeeded", "Failed", "Skipped"]);
    assert_eq!(session["status"]["members"][1]["quiesce"]["state"], "Held");
    assert_tree(&first, &trees[0]);
    assert_tree(&last, &untouched);
    let web = site.get("Deployment", "web").await;
    assert_eq!(web["spec"]["replicas"], 0, "an application never starts on half-restored data");
    let note = web["metadata"]["annotations"][HELD_DOWN].as_str().unwrap();
    let note: serde_json::Value = serde_json::from_str(note).unwrap();
    assert_eq!((&note["replicas"], &note["uid"]), (&json!(2), &session["metadata"]["uid"]), "{note}");
    let told = site.warnings("web", "HeldDown").await;
    assert!(matches!(told.as_slice(), [(text, 1)] if text.contains("scales it back to 2")), "{told:?}");
    assert!(text.contains("stays at 0 replicas and had 2"), "{text}");

    // Another run completes the interrupted restore, and scales the workload back.
    proxy.release();
    site.create(&in_order("again")).await;
    site.succeeded("RestoreBatch", "again").await;
    for (folder, tree) in [first, middle, last].iter().zip(trees) {
        assert_tree(folder, tree);
    }
    let web = site.until("Deployment", "web", 60, "back", |d| d["status"]["availableReplicas"] == 2).await;
    assert!(web["metadata"]["annotations"][HELD_DOWN].is_null(), "{web:#}");
}

/// Proves: C11.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c11_a_namespace_that_is_deleted_in_the_middle_goes() {
    let site = Site::new("c11").await;
    prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    caught(&site, &proxy).await;
    // A session that waits, and one that has ended, do not hold up the deletion either.
    site.create(&restore("waits", &of_claim("m0", "nowhere", LATEST), "")).await;
    site.until("RestoreSession", "waits", 30, "waiting", |s| phase(s) == "Pending").await;
    let (name, asked) = (site.namespace.clone(), Instant::now());
    site.delete("Namespace", &name).await;
    let gone = eventually(90, async || site.find("Namespace", &name).await.is_none().then_some(())).await;
    assert!(gone.is_some(), "still there: {:#}", site.get("Namespace", &name).await["status"]);
    println!("the namespace was gone after {:?}", asked.elapsed());
}

/// Proves: C01, invented 18.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c01_a_killed_operator_goes_on_where_it_was() {
    let (site, trees, proxy) = prepared_behind_a_proxy("c01").await;
    let (first, middle, last) = (site.claim("m0").await, web(&site).await, site.claim("m2").await);
    proxy.hold_after(1_000_000);
    let members = [of_claim("m0", "m0", LATEST), WEB.to_owned(), of_claim("m2", "m2", LATEST)];
    site.create(&batch("RestoreBatch", "all", "maintainOrder: true", &members)).await;
    proxy.held().await;

    // The webhook is away for a moment too; tests that need it wait.
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

/// Proves: C13, C08.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c13_many_sessions_that_are_deleted_at_once_are_gone_at_once() {
    const SESSIONS: usize = 24;
    // The value that `tests/with-cluster` sets for the operator.
    const AT_ONCE: usize = 6;
    let site = Site::new("c13").await;
    prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    web(&site).await;
    let most = Arc::new(AtomicUsize::new(0));
    let (client, namespace, seen) = (site.client.clone(), site.namespace.clone(), most.clone());
    // Jobs that exist and are not yet over, in every state that the API server has.
    let watch = tokio::spawn(async move {
        let jobs = Api::<Job>::namespaced(client, &namespace);
        let sessions = WatchParams::default().labels("lifeboat.stash.appscode.com/session-kind!=Repository");
        let mut events = std::pin::pin!(jobs.watch(&sessions, "0").await.unwrap());
        let mut alive = BTreeSet::new();
        while let Some(event) = events.try_next().await.unwrap() {
            match event {
                WatchEvent::Added(job) | WatchEvent::Modified(job) => {
                    let over = job.status.as_ref().is_some_and(|s| s.completion_time.is_some());
                    if over {
                        alive.remove(&job.uid())
                    } else {
                        alive.insert(job.uid())
                    };
                }
                WatchEvent::Deleted(job) => drop(alive.remove(&job.uid())),
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(error) => panic!("{error:?}"),
            }
            seen.fetch_max(alive.len(), Ordering::SeqCst);
        }
        panic!("the watch ended");
    });
    proxy.hold_after(500_000);
    site.create(&restore("web", WEB, "")).await;
    proxy.held().await;
    for n in 1..SESSIONS {
        let name = format!("d{n}");
        site.create(&claim(&name)).await;
        site.create(&restore(&name, &of_claim("m1", &name, LATEST), "")).await;
    }
    let full = async || (site.jobs_of_sessions().await.len() >= AT_ONCE).then_some(());
    assert!(eventually(60, full).await.is_some(), "as many as may be are at work");

    let asked = Instant::now();
    site.kubectl(&["delete", "restoresessions", "--all", "--wait=false"]);
    let gone = eventually(60, async || site.list("RestoreSession").await.is_empty().then_some(())).await;
    assert!(gone.is_some(), "still there: {:#?}", site.list("RestoreSession").await);
    println!("{SESSIONS} sessions were gone after {:?}", asked.elapsed());
    let left = eventually(15, async || site.jobs_of_sessions().await.is_empty().then_some(())).await;
    assert!(left.is_some(), "Jobs are left: {:#?}", site.jobs_of_sessions().await);
    assert!(!watch.is_finished(), "the watch ended early");
    let most = most.load(Ordering::SeqCst);
    assert_eq!(most, AT_ONCE, "Jobs at once");
    let web = site.get("Deployment", "web").await;
    assert_eq!(web["spec"]["replicas"], 0, "its data is half restored");
    assert!(web["metadata"]["annotations"][HELD_DOWN].is_string(), "{web:#}");
}
