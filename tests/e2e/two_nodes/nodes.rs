//! Nodes that are drained.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::EvictParams;
use serde_json::Value;

use crate::cluster::Turn;
use crate::deaths::Beside;
use crate::harness::Site;
use crate::manifests::{LATEST, of_claim, restore};
use crate::store::{assert_tree, prepared_behind_a_proxy};

/// A cordoned node. It is uncordoned however the test ends.
struct Cordoned<'s>(&'s Site, String);

impl<'s> Cordoned<'s> {
    fn new(site: &'s Site, node: &str) -> Self {
        site.kubectl(&["cordon", node]);
        Self(site, node.to_owned())
    }
}

impl Drop for Cordoned<'_> {
    fn drop(&mut self) {
        self.0.kubectl(&["uncordon", &self.1]);
    }
}

/// Works as `kubectl drain` does: no new pods, and existing pods are evicted.
/// Proves: C05.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs two nodes: make test-e2e"]
async fn c05_a_restore_on_a_node_that_is_drained_goes_on_on_another() {
    let _turn = Turn::alone().await;
    let (site, trees, proxy) = prepared_behind_a_proxy("drain").await;
    let folder = site.claim("data").await;
    let beside = Beside::watch(&site);
    proxy.hold_after(1_000_000);
    site.create(&restore("data", &of_claim("m1", "data", LATEST), "")).await;
    proxy.held().await;
    let pod = site.running("data", "restore").await;
    let (name, node) = (pod["metadata"]["name"].as_str().unwrap(), pod["spec"]["nodeName"].as_str().unwrap());
    let _cordoned = Cordoned::new(&site, node);
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), &site.namespace);
    pods.evict(name, &EvictParams::default()).await.unwrap();
    let again = |s: &Value| s["status"]["stats"][0]["attempt"] == 2;
    site.until("RestoreSession", "data", 60, "tried again", again).await;
    proxy.release();
    let session = site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &trees[1]);
    beside.assert_alone();
    assert!(session["status"]["stats"][0]["podDeaths"].is_null(), "a drain is not the restore's own doing");
    let all = site.list("Pod").await;
    let of_restore = |p: &&Value| p["metadata"]["labels"]["lifeboat.stash.appscode.com/step"] == "restore";
    let on: Vec<&Value> = all.iter().filter(of_restore).map(|p| &p["spec"]["nodeName"]).collect();
    assert!(on.iter().any(|n| **n != *node), "it went on on {node}: {on:?}");
}
