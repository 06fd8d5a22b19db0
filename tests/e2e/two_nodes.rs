//! Tests that need two nodes, or that stop what all tests share. `make test-e2e` runs them on clusters of their own.
//! The tests of a lost node mostly wait, so they run on another cluster meanwhile. All tests may begin; [`Turn`]
//! decides which test goes on.

mod late;
mod lost;
mod nodes;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard};

use super::cluster::Turn;
use super::harness::{Site, condition, eventually, phase};
use super::manifests::{LATEST, backup_session, configuration, deployment, of_claim, on_host, restore, store_at};
use super::proxy::Proxy;
use super::store::{assert_tree, back_up, prepared, quick_store, seed, wipe};
use super::support::tree::describe;

/// Puts the Jobs of a session on the second node.
const ON_NODE2: &str = "  runtimeSettings: {pod: {nodeSelector: {kubernetes.io/hostname: node2}}}\n";

/// Read-locked by tests that need the second node, write-locked by tests that take its kubelet away.
static NODE2: RwLock<()> = RwLock::const_new(());

/// The turn of a test that needs both nodes, and that other tests may run beside.
async fn beside_others() -> (Turn, RwLockReadGuard<'static, ()>) {
    (Turn::beside().await, NODE2.read().await)
}

/// Proves: scenario 9, scenario 10, scenario 16.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs two nodes: make test-e2e"]
async fn each_node_of_a_daemon_set_gets_its_own_data_back() {
    let _turn = beside_others().await;
    let site = Site::new("nodes").await;
    quick_store(&site).await;
    let (path, folders) = site.disks(2);
    let want: Vec<_> = folders.iter().zip(1..).map(|(f, n)| seed(&f.join("old"), n, 100_000)).collect();
    for name in ["old", "new"] {
        folders.iter().for_each(|f| std::fs::create_dir_all(f.join(name)).unwrap());
        site.create(&on_host("DaemonSet", name, "revisionHistoryLimit: 1", &format!("{path}/{name}"))).await;
        site.until("DaemonSet", name, 60, "on both nodes", |d| d["status"]["numberReady"] == 2).await;
    }
    let target = |alias: &str, name: &str| {
        format!(
            "{alias}ref: {{apiVersion: apps/v1, kind: DaemonSet, name: {name}}}, \
             volumeMounts: [{{name: data, mountPath: /data}}]"
        )
    };
    // Hosts by alias and node, and by the node's name alone.
    for (session, alias, hosts) in
        [("aliased", "alias: ds, ", ["ds-node1", "ds-node2"]), ("bare", "", ["node1", "node2"])]
    {
        let backup = back_up(&site, session, &format!("{{{}, paths: [/data]}}", target(alias, "old"))).await;
        let stats = &backup["status"]["targets"][0]["stats"];
        assert_eq!([&stats[0]["hostname"], &stats[1]["hostname"]], hosts.map(|h| json!(h)).each_ref());
        assert_eq!([&stats[0]["node"], &stats[1]["node"]], [&json!("node1"), &json!("node2")]);

        // The same, in place. The pods of the DaemonSet stay, and status says what that means.
        folders.iter().for_each(|f| wipe(&f.join("old")));
        site.create(&restore(session, &format!("{{{}, rules: [{{paths: [/data]}}]}}", target(alias, "old")), "")).await;
        let done = site.succeeded("RestoreSession", session).await;
        for (folder, tree) in folders.iter().zip(&want) {
            assert_tree(&folder.join("old"), tree);
        }
        let (status, why, text) = condition(&done, "Quiesced");
        assert_eq!((status.as_str(), why.as_str()), ("False", "NotQuiesced"));
        assert!(text.contains("partially written"), "{text}");
        assert_eq!(done["status"]["totalHosts"], 2);
    }
    // Into a different DaemonSet, where each node gets the other node's data.
    let rules = "rules: [{targetHosts: [ds-node1], sourceHost: ds-node2, paths: [/data]}, \
        {targetHosts: [ds-node2], sourceHost: ds-node1, paths: [/data]}]";
    site.create(&restore("crossed", &format!("{{{}, {rules}}}", target("alias: ds, ", "new")), "")).await;
    site.succeeded("RestoreSession", "crossed").await;
    for (folder, tree) in folders.iter().zip(want.iter().rev()) {
        assert_tree(&folder.join("new"), tree);
    }
    for job in site.jobs("crossed", "restore").await {
        let pod = &job["spec"]["template"]["spec"];
        let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        assert!(terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0].is_string(), "{terms}");
    }
}

/// A folder of the node is on the pod's node, also for a Deployment. The same path on two nodes is two folders.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs two nodes: make test-e2e"]
async fn a_folder_of_a_node_is_restored_where_its_pod_ran() {
    let _turn = beside_others().await;
    let site = Site::new("pinned").await;
    quick_store(&site).await;
    let (path, folders) = site.disks(2);
    let pinned = |name: &str, node: &str| {
        on_host("Deployment", name, "replicas: 1", &path).replace(
            "      terminationGrace",
            &format!("      nodeSelector: {{kubernetes.io/hostname: {node}}}\n      terminationGrace"),
        )
    };
    site.create(&pinned("app", "node2")).await;
    site.until("Deployment", "app", 60, "available", |d| d["status"]["availableReplicas"] == 1).await;
    let want = seed(&folders[1], 5, 50_000);
    let target = "alias: app, ref: {apiVersion: apps/v1, kind: Deployment, name: app}, \
        volumeMounts: [{name: data, mountPath: /data}]";
    back_up(&site, "app", &format!("{{{target}}}")).await;
    wipe(&folders[1]);
    site.create(&restore("app", &format!("{{{target}, rules: [{{snapshots: [latest]}}]}}"), "")).await;
    let session = site.succeeded("RestoreSession", "app").await;
    assert_eq!(session["status"]["stats"][0]["node"], "node2");
    assert_tree(&folders[1], &want);
    assert_eq!(std::fs::read_dir(&folders[0]).unwrap().count(), 0, "nothing was written on the other node");

    let spread = on_host("Deployment", "spread", "replicas: 2", &path).replace(
        "      terminationGrace",
        "      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: spread}}}]\n      terminationGrace",
    );
    site.create(&spread).await;
    site.until("Deployment", "spread", 60, "available", |d| d["status"]["availableReplicas"] == 2).await;
    let target = target.replace("app}", "spread}").replace("alias: app", "alias: spread");
    site.create(&configuration("spread", &format!("{{{target}}}"), "")).await;
    site.create(&backup_session("spread", "BackupConfiguration", "spread")).await;
    let text = site.failed("BackupSession", "spread", "VolumeNotReachable").await;
    assert!(text.contains("node1, node2"), "{text}");
}

/// A stopped component of the cluster. It is started again however the test ends.
struct Silent<'s>(&'s Site, &'static str);

impl<'s> Silent<'s> {
    fn stop(site: &'s Site, component: &'static str) -> Self {
        site.component(component, "stop");
        Self(site, component)
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        self.0.component(self.1, "start");
    }
}

/// Deployment `web` of two replicas, held in the middle of its restore from host m1 by a Job on node2.
async fn caught(site: &Site, proxy: &Proxy) -> PathBuf {
    store_at(site, &proxy.endpoint).await;
    let folder = site.claim("web").await;
    site.create(&deployment("web", 2, &[("web", "/srv")])).await;
    site.until("Deployment", "web", 60, "available", |d| d["status"]["availableReplicas"] == 2).await;
    let target = format!(
        "{{alias: m1, ref: {{apiVersion: apps/v1, kind: Deployment, name: web}}, \
         volumeMounts: [{{name: web, mountPath: /stash-data}}]{LATEST}}}"
    );
    proxy.hold_after(1_000_000);
    site.create(&restore("web", &target, ON_NODE2)).await;
    proxy.held().await;
    assert_eq!(site.get("Deployment", "web").await["spec"]["replicas"], 0);
    folder
}

/// Proves: C04, C02.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster of its own: make test-e2e"]
async fn c04_an_api_server_that_is_killed_and_away_for_half_a_minute_ends_no_run() {
    let _turn = Turn::alone().await;
    let site = Site::new("c04").await;
    let trees = prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    let folder = caught(&site, &proxy).await;
    site.component("apiserver", "kill");
    let answers = eventually(30, async || site.try_list("RestoreSession").await.ok());
    assert!(answers.await.is_some(), "the API server did not come back");
    let silent = Silent::stop(&site, "apiserver");
    // The Job ends while the API server is away.
    proxy.release();
    tokio::time::sleep(Duration::from_secs(30)).await;
    // Asks only once: to ask until the API server answers would add two minutes to the outage.
    let api = site.api("RestoreSession");
    let asked = tokio::time::timeout(Duration::from_secs(5), api.get_opt("web")).await;
    assert!(!matches!(asked, Ok(Ok(_))), "the API server was not away");
    drop(silent);
    let answers = eventually(60, async || site.try_list("RestoreSession").await.ok());
    assert!(answers.await.is_some(), "the API server did not come back");

    let session = site.succeeded("RestoreSession", "web").await;
    assert_tree(&folder, &trees[1]);
    assert_eq!(session["status"]["stats"][0]["attempt"], 1, "{:#}", session["status"]);
    assert_eq!((site.jobs("web", "preflight").await.len(), site.jobs("web", "restore").await.len()), (1, 1));
    // Kubernetes' own controllers start the pods again and delete those of deleted Jobs. Their watches come back up to a
    // minute after an outage as long as this one: client-go doubles the pause to 30 s, and adds as much again at random.
    site.until("Deployment", "web", 90, "back", |d| d["status"]["availableReplicas"] == 2).await;
    site.leaves_nothing_within(90).await;
}

/// The image of Jobs, removed from node2. It is put back however the test ends.
struct NoImage<'s>(&'s Site, String);

impl<'s> NoImage<'s> {
    const KEPT: &'static str = "localhost/kept:1";

    fn take(site: &'s Site) -> Self {
        let path = "jsonpath={.spec.template.spec.containers[0].image}";
        let image = site.kubectl(&["--namespace=lifeboat-system", "get", "deployment/lifeboat", "-o", path]);
        site.containerd("node2", &["images", "tag", "--force", &image, Self::KEPT]);
        site.containerd("node2", &["images", "remove", "--sync", &image]);
        Self(site, image)
    }
}

impl Drop for NoImage<'_> {
    fn drop(&mut self) {
        self.0.containerd("node2", &["images", "tag", "--force", Self::KEPT, &self.1]);
        self.0.containerd("node2", &["images", "remove", Self::KEPT]);
    }
}

/// Proves: defect 9, invented 11.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs two nodes: make test-e2e"]
async fn an_image_that_a_node_does_not_have_is_named_and_waited_for_until_the_deadline() {
    let _turn = Turn::alone().await;
    let site = Site::new("image").await;
    let trees = prepared(&site).await;
    quick_store(&site).await;
    let (data, late) = (site.claim("data").await, site.claim("late").await);
    let untouched = describe(&late);
    let missing = NoImage::take(&site);
    site.create(&restore("data", &of_claim("m0", "data", LATEST), ON_NODE2)).await;
    site.create(&restore("late", &of_claim("m0", "late", LATEST), &format!("{ON_NODE2}  timeOut: 15s\n"))).await;
    let says = |s: &Value| condition(s, "Reconciling").1 == "ImageUnavailable";
    let session = site.until("RestoreSession", "data", 30, "waiting for the image", says).await;
    let text = condition(&session, "Ready").2;
    assert!(text.contains(&missing.1) && text.contains("runtimeSettings.pod.imagePullSecrets"), "{text}");
    assert!(["Pending", "Running"].contains(&phase(&session)), "{:#}", session["status"]);

    let asked = Instant::now();
    let text = site.failed("RestoreSession", "late", "ImageUnavailable").await;
    assert!(asked.elapsed().as_secs() < 45, "it ended {:?} later", asked.elapsed());
    assert!(text.contains("deadline") && text.contains(&missing.1), "{text}");
    let session = site.get("RestoreSession", "late").await;
    assert_eq!(condition(&session, "DeadlineExceeded").0, "True");
    assert!(site.jobs("late", "restore").await.is_empty());
    assert_tree(&late, &untouched);

    drop(missing);
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&data, &trees[0]);
    assert_eq!(site.jobs("data", "preflight").await.len(), 1, "it waited, and was not made again");
    let said = site.warnings("data", "ImageUnavailable").await;
    assert!(matches!(said.as_slice(), [(_, 1)]), "said once: {said:?}");
}
