//! Pods that do not start, that die, or that are taken away: status names the cause, the pod is created again, and two
//! pods never run side by side.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::harness::{Site, condition, eventually, phase};
use super::manifests::{LATEST, PASSWORD, batch_of, deployment, of_claim, restore, secret};
use super::quick_repository;
use super::store::{assert_tree, prepared, prepared_behind_a_proxy, quick_store};
use super::support::tree::describe;

/// Largest number of restore pods that were there at the same time, not counting those whose container has ended.
pub struct Beside {
    most: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Beside {
    /// Starts the watch before the first restore pod.
    pub fn watch(site: &Site) -> Self {
        let most = Arc::new(AtomicUsize::new(0));
        let (seen, pods) = (most.clone(), Api::<Pod>::namespaced(site.client.clone(), &site.namespace));
        let task = tokio::spawn(async move {
            let of_restores = WatchParams::default().labels("lifeboat.stash.appscode.com/step=restore");
            let events = pods.watch(&of_restores, "0").await.unwrap();
            let mut events = std::pin::pin!(events);
            let mut alive = BTreeSet::new();
            while let Some(event) = events.try_next().await.unwrap() {
                match event {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) if !has_ended(&pod) => {
                        alive.insert(pod.uid());
                    }
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) => {
                        alive.remove(&pod.uid());
                    }
                    WatchEvent::Bookmark(_) => {}
                    WatchEvent::Error(error) => panic!("{error:?}"),
                }
                seen.fetch_max(alive.len(), Ordering::SeqCst);
            }
            panic!("the watch ended");
        });
        Self { most, task }
    }

    /// Asserts that the pods existed one at a time, and that the watch saw all of them.
    pub fn assert_alone(&self) {
        assert!(!self.task.is_finished(), "the watch ended early");
        assert_eq!(self.most.load(Ordering::SeqCst), 1, "restore pods at the same time");
    }
}

fn has_ended(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let ended = |s: &k8s_openapi::api::core::v1::ContainerStatus| {
        s.state.as_ref().is_some_and(|state| state.terminated.is_some())
    };
    status.container_statuses.is_some_and(|all| all.iter().all(ended))
}

fn member(index: usize, session: &Value) -> &Value {
    &session["status"]["members"][index]
}

/// Proves: C07, defect 9.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c07_a_job_that_no_node_takes_waits_says_so_once_and_goes_on() {
    let site = Site::new("c07").await;
    let trees = prepared(&site).await;
    quick_store(&site).await;
    let folder = site.claim("data").await;
    let label = format!("test.example.com/{}", site.namespace);
    let nowhere = format!("  runtimeSettings: {{pod: {{nodeSelector: {{{label}: here}}}}}}\n");
    site.create(&restore("data", &of_claim("m0", "data", LATEST), &nowhere)).await;
    let says = |s: &Value| condition(s, "Reconciling").1 == "Unschedulable";
    let session = site.until("RestoreSession", "data", 30, "waiting for a node", says).await;
    assert!(["Pending", "Running"].contains(&phase(&session)), "{:#}", session["status"]);
    let text = condition(&session, "Ready").2;
    assert!(text.contains("cannot be scheduled") && text.contains("node affinity/selector"), "{text}");
    assert!(!site.warnings("data", "Unschedulable").await.is_empty(), "no Warning event");

    let node = site.list("Node").await[0]["metadata"]["name"].as_str().unwrap().to_owned();
    site.patch("Node", &node, json!({ "metadata": { "labels": { label.clone(): "here" } } })).await;
    site.succeeded("RestoreSession", "data").await;
    site.patch("Node", &node, json!({ "metadata": { "labels": { label: null } } })).await;
    assert_tree(&folder, &trees[0]);
    let said = site.warnings("data", "Unschedulable").await;
    // The preflight waited, and the restore did not.
    assert!(matches!(said.as_slice(), [(_, 1)]), "said once: {said:?}");
}

/// Proves: C07, defect 9.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c07_a_member_that_no_node_takes_ends_at_its_own_time_out_and_alone() {
    let site = Site::new("c07-late").await;
    let trees = prepared(&site).await;
    quick_store(&site).await;
    let folders = [site.claim("m0").await, site.claim("m2").await, site.claim("m3").await];
    let untouched = describe(&folders[1]);
    // The preflight's pod has the settings of the first member.
    let members = [
        format!("target: {}", of_claim("m0", "m0", LATEST)),
        format!(
            "target: {}, timeOut: 8s, runtimeSettings: {{pod: {{nodeSelector: {{nobody: has}}}}}}",
            of_claim("m2", "m2", LATEST)
        ),
        format!("target: {}", of_claim("m3", "m3", LATEST)),
    ];
    let settings = "executionOrder: Sequential\n  onFailure: Continue";
    site.create(&batch_of("RestoreBatch", "all", settings, &members)).await;
    let text = site.failed("RestoreBatch", "all", "Unschedulable").await;
    assert!(text.contains("2 of 3 members restored") && text.contains("deadline"), "{text}");
    let session = site.get("RestoreBatch", "all").await;
    let phases = [0, 1, 2].map(|n| member(n, &session)["phase"].as_str().unwrap());
    assert_eq!(phases, ["Succeeded", "Failed", "Succeeded"]);
    let said = member(1, &session)["message"].as_str().unwrap();
    assert!(said.contains("cannot be scheduled"), "{said}");
    let said = site.warnings("all", "Unschedulable").await;
    assert_eq!(said.iter().filter(|(note, _)| note.starts_with("Pod ")).count(), 1, "{said:?}");
    assert_tree(&folders[0], &trees[0]);
    assert_tree(&folders[1], &untouched);
    assert_tree(&folders[2], &trees[3]);
}

/// Proves: C05, invented 11, defect 9.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c05_a_restore_that_is_killed_for_its_memory_ends_after_three_tries() {
    let site = Site::new("c05-memory").await;
    let trees = prepared(&site).await;
    quick_store(&site).await;
    let folders = [site.claim("m0").await, site.claim("m2").await];
    let untouched = describe(&folders[1]);
    // restic needs 32 MiB to derive its key.
    quick_repository::slow_down(&site.bucket().join("a/b"));
    let members = [
        format!("target: {}", of_claim("m0", "m0", LATEST)),
        format!(
            "target: {}, runtimeSettings: {{container: {{resources: {{limits: {{memory: 12Mi}}}}}}}}",
            of_claim("m2", "m2", LATEST)
        ),
    ];
    site.create(&batch_of("RestoreBatch", "all", "executionOrder: Parallel", &members)).await;
    let text = site.failed("RestoreBatch", "all", "OOMKilled").await;
    assert!(text.contains("runtimeSettings.container.resources"), "it says what to do: {text}");
    let session = site.get("RestoreBatch", "all").await;
    assert_eq!(member(0, &session)["phase"], "Succeeded");
    assert_tree(&folders[0], &trees[0]);
    let host = &member(1, &session)["stats"][0];
    assert_eq!((&host["attempt"], &host["reason"]), (&json!(3), &json!("OOMKilled")), "{host:#}");
    assert_tree(&folders[1], &untouched);
}

/// Proves: C05, defect 9.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c05_a_pod_that_is_evicted_and_a_job_that_is_deleted_are_made_again_alone() {
    taken_away("c05-job", &[Taken::Evicted, Taken::JobDeleted]).await;
}

/// Proves: C05, defect 9.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c05_a_pod_that_is_deleted_is_made_again_alone() {
    taken_away("c05-pod", &[Taken::PodDeleted]).await;
}

/// How a restore is taken away in the middle of its data.
enum Taken {
    Evicted,
    PodDeleted,
    JobDeleted,
}

async fn taken_away(name: &str, ways: &[Taken]) {
    let (site, trees, proxy) = prepared_behind_a_proxy(name).await;
    let folder = site.claim("data").await;
    let beside = Beside::watch(&site);
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), &site.namespace);
    proxy.hold_after(1_000_000);
    site.create(&restore("data", &of_claim("m1", "data", LATEST), "")).await;
    for way in ways {
        proxy.held().await;
        let pod = site.running("data", "restore").await;
        let name = pod["metadata"]["name"].as_str().unwrap();
        match way {
            Taken::Evicted => drop(pods.evict(name, &EvictParams::default()).await.unwrap()),
            Taken::PodDeleted => site.delete("Pod", name).await,
            Taken::JobDeleted => {
                site.delete("Job", pod["metadata"]["ownerReferences"][0]["name"].as_str().unwrap()).await;
            }
        }
        let gone = eventually(60, async || {
            let now: Option<Pod> = pods.get_opt(name).await.unwrap();
            now.is_none_or(|p| has_ended(&p)).then_some(())
        });
        assert!(gone.await.is_some(), "pod {name} is still there");
        // The next pod restores a part of the data before it is held.
        proxy.hold_after(500_000);
    }
    proxy.held().await;
    proxy.release();
    let session = site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &trees[1]);
    beside.assert_alone();
    let host = &session["status"]["stats"][0];
    // A deleted Job may be gone with its pod before the operator has looked: then the same attempt is made again.
    let traceless = ways.iter().filter(|w| matches!(w, Taken::JobDeleted)).count();
    let attempts = ways.len() + 1 - traceless..=ways.len() + 1;
    assert!(attempts.contains(&usize::try_from(host["attempt"].as_u64().unwrap()).unwrap()), "{attempts:?}: {host:#}");
    assert!(host["podDeaths"].is_null(), "none of it is the restore's own doing: {host:#}");
}

/// Proves: A05.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn half_a_file_is_not_taken_for_whole_where_what_is_there_is_kept() {
    let (site, trees, proxy) = prepared_behind_a_proxy("half").await;
    let folder = site.claim("data").await;
    proxy.hold_after(1_000_000);
    let target = of_claim("m1", "data", &format!("{LATEST}, args: ['--overwrite=never']"));
    site.create(&restore("data", &target, "")).await;
    proxy.held().await;
    let pod = site.running("data", "restore").await;
    site.delete("Pod", pod["metadata"]["name"].as_str().unwrap()).await;
    let text = site.failed("RestoreSession", "data", "Incomplete").await;
    assert!(text.contains("half written") && text.contains("--overwrite"), "{text}");
    assert_eq!(site.jobs("data", "restore").await.len(), 1, "and it is not tried again");

    // Without that argument, the next restore completes what this restore has begun.
    proxy.release();
    site.create(&restore("again", &of_claim("m1", "data", LATEST), "")).await;
    site.succeeded("RestoreSession", "again").await;
    assert_tree(&folder, &trees[1]);
}

/// Proves: C05.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_secret_that_goes_between_preflight_and_restore_is_waited_for() {
    let (site, trees, proxy) = prepared_behind_a_proxy("secret-gone").await;
    let folder = site.claim("web").await;
    let untouched = describe(&folder);
    site.create(&deployment("web", 1, &[("web", "/srv")])).await;
    site.until("Deployment", "web", 60, "available", |d| d["status"]["availableReplicas"] == 1).await;
    let target = format!(
        "{{alias: m0, ref: {{apiVersion: apps/v1, kind: Deployment, name: web}}, \
         volumeMounts: [{{name: web, mountPath: /stash-data}}]{LATEST}}}"
    );
    proxy.hold_after(0);
    site.create(&restore("web", &target, "")).await;
    site.running("web", "preflight").await;
    site.delete("Secret", "store").await;
    proxy.release();
    let pinned = |s: &Value| s["status"]["stats"][0]["snapshots"].is_array();
    site.until("RestoreSession", "web", 60, "through its preflight", pinned).await;
    let says = |s: &Value| condition(s, "Reconciling").1 == "BackendSecretNotAvailable";
    let session = site.until("RestoreSession", "web", 30, "waiting for the Secret", says).await;
    assert!(condition(&session, "Ready").2.contains("Secret"), "{:#}", session["status"]);
    assert!(session["status"]["quiesce"].is_null(), "nothing is scaled for what cannot go on");
    assert_eq!(site.get("Deployment", "web").await["spec"]["replicas"], 1);
    assert!(site.jobs("web", "restore").await.is_empty());
    assert_tree(&folder, &untouched);
    site.create(&secret(&site, "store", PASSWORD, "")).await;
    site.succeeded("RestoreSession", "web").await;
    assert_tree(&folder, &trees[0]);
}
