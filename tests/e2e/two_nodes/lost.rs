//! A node that does not answer, and a node that does not come back.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::{Mutex, RwLockWriteGuard};

use super::{NODE2, ON_NODE2, Silent, beside_others, caught};
use crate::cluster::Turn;
use crate::deaths::Beside;
use crate::harness::{Site, component, condition, eventually, phase};
use crate::manifests::{LATEST, of_claim, restore};
use crate::proxy::Proxy;
use crate::store::{assert_tree, prepared, prepared_behind_a_proxy};

const KUBELET: &str = "kubelet-2";

/// The time without the second node's kubelet, shared by all tests that are ready for it. It begins when no test needs
/// the node any more, and ends when the last of these tests is done with it, however the tests end.
struct Silence {
    state: PathBuf,
    _nobody: RwLockWriteGuard<'static, ()>,
}

impl Silence {
    async fn join(site: &Site) -> Arc<Self> {
        static NOW: Mutex<Weak<Silence>> = Mutex::const_new(Weak::new());
        let mut now = NOW.lock().await;
        if let Some(silence) = now.upgrade() {
            return silence;
        }
        let nobody = NODE2.write().await;
        let silence = Arc::new(Self { state: site.state.clone(), _nobody: nobody });
        *now = Arc::downgrade(&silence);
        component(&silence.state, KUBELET, "stop");
        silence
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        component(&self.state, KUBELET, "start");
    }
}

/// Proves: C05.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs two nodes: make test-e2e"]
async fn c05_nothing_is_started_beside_a_pod_whose_node_does_not_answer() {
    let (_turn, present) = beside_others().await;
    let (site, trees, proxy) = prepared_behind_a_proxy("lost").await;
    let folder = site.claim("data").await;
    let beside = Beside::watch(&site);
    proxy.hold_after(1_000_000);
    site.create(&restore("data", &of_claim("m1", "data", LATEST), ON_NODE2)).await;
    proxy.held().await;
    let before = site.running("data", "restore").await;

    drop(present);
    let silence = Silence::join(&site).await;
    let lost = |s: &Value| s["status"]["stats"][0]["reason"] == "NodeLost";
    let session = site.until("RestoreSession", "data", 90, "without its node", lost).await;
    assert_eq!(phase(&session), "Running");
    let text = condition(&session, "Ready").2;
    assert!(text.contains("Node node2") && text.contains("kubectl delete node node2"), "{text}");
    // The pod was never told to stop: it goes on with its data, but the API server does not hear of it.
    proxy.release();
    let session = site.get("RestoreSession", "data").await;
    assert_eq!((phase(&session), &session["status"]["stats"][0]["attempt"]), ("Running", &json!(1)));
    drop(silence);
    // Other tests may still need the time without the kubelet.
    let _present = NODE2.read().await;

    let session = site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &trees[1]);
    beside.assert_alone();
    assert_eq!(session["status"]["stats"][0]["attempt"], 1);
    let after = site.jobs("data", "restore").await;
    assert_eq!(after[0]["metadata"]["name"], before["metadata"]["ownerReferences"][0]["name"]);
    assert_eq!(site.warnings("data", "NodeLost").await.len(), 1, "said once");
}

/// The operator cannot know whether a Job on a node that does not answer still writes, so it waits for the Job, two
/// minutes and no longer.
/// Proves: C08, C05.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs two nodes: make test-e2e"]
async fn c08_a_run_that_is_deleted_while_its_node_is_lost_leaves_its_workload_down_and_lets_go() {
    let (_turn, present) = beside_others().await;
    let site = Site::new("c08-lost").await;
    prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    caught(&site, &proxy).await;
    drop(present);
    let silence = Silence::join(&site).await;
    let asked = Instant::now();
    site.delete("RestoreSession", "web").await;
    let gone = eventually(150, async || site.find("RestoreSession", "web").await.is_none().then_some(())).await;
    assert!(gone.is_some(), "still there: {:#}", site.get("RestoreSession", "web").await);
    println!("the session was gone after {:?}, its node away", asked.elapsed());
    let web = site.get("Deployment", "web").await;
    assert_eq!(web["spec"]["replicas"], 0, "its data is half restored");
    assert!(web["metadata"]["annotations"]["lifeboat.stash.appscode.com/held-down"].is_string(), "{web:#}");
    let said = site.warnings("web", "JobNotStopped").await;
    assert!(matches!(said.as_slice(), [(_, 1)]), "said once: {said:?}");
    proxy.release();
    drop(silence);
    let left = eventually(60, async || site.jobs_of_sessions().await.is_empty().then_some(())).await;
    assert!(left.is_some(), "Jobs are left: {:#?}", site.jobs_of_sessions().await);
}

/// Does what `NodeLost` tells the user to do.
/// Proves: C05.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs two nodes: make test-e2e"]
async fn c05_a_lost_node_that_is_removed_is_given_up_and_the_restore_goes_on_on_another() {
    let _turn = Turn::alone().await;
    let (site, trees, proxy) = prepared_behind_a_proxy("removed").await;
    let folder = site.claim("data").await;
    proxy.hold_after(1_000_000);
    // The node is only preferred: the other node takes the pod when this node is gone.
    let prefers = "  runtimeSettings: {pod: {affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node2]}]}}]}}}}\n";
    site.create(&restore("data", &of_claim("m1", "data", LATEST), prefers)).await;
    proxy.held().await;
    let pod = site.running("data", "restore").await;
    assert_eq!(pod["spec"]["nodeName"], "node2");
    let silent = Silent::stop(&site, KUBELET);
    let lost = |s: &Value| s["status"]["stats"][0]["reason"] == "NodeLost";
    let session = site.until("RestoreSession", "data", 90, "without its node", lost).await;
    assert!(condition(&session, "Ready").2.contains("kubectl delete node node2"));

    // The machine is off: its processes run no more.
    site.kill_agent(&pod);
    site.kubectl(&["delete", "node", "node2"]);
    let again = |s: &Value| s["status"]["stats"][0]["attempt"] == 2;
    site.until("RestoreSession", "data", 120, "tried again", again).await;
    proxy.release();
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &trees[1]);
    drop(silent);
    let back = eventually(60, async || {
        let node = site.find("Node", "node2").await?;
        (condition(&node, "Ready").0 == "True").then_some(())
    });
    assert!(back.await.is_some(), "node2 did not come back");
    // Later tests find the node by its name.
    let node = site.get("Node", "node2").await;
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], json!("node2"));
}
