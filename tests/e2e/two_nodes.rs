//! What needs two nodes: `make test-e2e` runs these on a cluster of their own.

use serde_json::json;

use super::deaths::Beside;
use super::harness::{Site, condition, phase};
use super::manifests::{LATEST, backup_session, configuration, of_claim, on_host, restore, store, store_at};
use super::proxy::Proxy;
use super::store::{assert_tree, back_up, prepared, seed, wipe};

/// Proves: scenario 9, scenario 10, scenario 16.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs two nodes: make test-e2e"]
async fn each_node_of_a_daemon_set_gets_its_own_data_back() {
    let site = Site::new("nodes").await;
    store(&site).await;
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
    // By alias and node, and by the node's name alone.
    for (session, alias, hosts) in
        [("aliased", "alias: ds, ", ["ds-node1", "ds-node2"]), ("bare", "", ["node1", "node2"])]
    {
        let backup = back_up(&site, session, &format!("{{{}, paths: [/data]}}", target(alias, "old"))).await;
        let stats = &backup["status"]["targets"][0]["stats"];
        assert_eq!([&stats[0]["hostname"], &stats[1]["hostname"]], hosts.map(|h| json!(h)).each_ref());
        assert_eq!([&stats[0]["node"], &stats[1]["node"]], [&json!("node1"), &json!("node2")]);

        // The same, in place; its pods stay, and status says what that means.
        folders.iter().for_each(|f| wipe(&f.join("old")));
        site.create(&restore(session, &format!("{{{}, rules: [{{paths: [/data]}}]}}", target(alias, "old")), "")).await;
        let done = site.succeeded("RestoreSession", session).await;
        for (folder, tree) in folders.iter().zip(&want) {
            assert_tree(&folder.join("old"), tree);
        }
        let (status, why, text) = condition(&done, "Quiesced");
        assert_eq!((status.as_str(), why.as_str()), ("False", "NotQuiesced"));
        assert!(text.contains("half written"), "{text}");
        assert_eq!(done["status"]["totalHosts"], 2);
    }
    // A different one, each node crossed over to the other's data.
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

/// A folder of the node is where the pod is, also for a Deployment, and on two nodes it is two folders.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs two nodes: make test-e2e"]
async fn a_folder_of_a_node_is_restored_where_its_pod_ran() {
    let site = Site::new("pinned").await;
    store(&site).await;
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

/// A kubelet that is stopped; it is started again whatever becomes of the test.
struct Silent<'s>(&'s Site, &'static str);

impl<'s> Silent<'s> {
    fn stop(site: &'s Site, kubelet: &'static str) -> Self {
        site.component(kubelet, "stop");
        Self(site, kubelet)
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        self.0.component(self.1, "start");
    }
}

/// Proves: C05.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs two nodes: make test-e2e"]
async fn c05_nothing_is_started_beside_a_pod_whose_node_does_not_answer() {
    let site = Site::new("lost").await;
    let trees = prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    let folder = site.claim("data").await;
    let beside = Beside::watch(&site);
    proxy.hold_after(1_000_000);
    let there = "  runtimeSettings: {pod: {nodeSelector: {kubernetes.io/hostname: node2}}}\n";
    site.create(&restore("data", &of_claim("m1", "data", LATEST), there)).await;
    proxy.held().await;
    let before = site.running("data", "restore").await;

    let silent = Silent::stop(&site, "kubelet-2");
    let lost = |s: &serde_json::Value| s["status"]["stats"][0]["reason"] == "NodeLost";
    let session = site.until("RestoreSession", "data", 90, "without its node", lost).await;
    assert_eq!(phase(&session), "Running");
    let text = condition(&session, "Reconciling").2;
    assert!(text.contains("Node node2") && text.contains("kubectl delete node node2"), "{text}");
    // Its pod was never told to stop: it goes on with its data, and nobody hears of it.
    proxy.release();
    let session = site.get("RestoreSession", "data").await;
    assert_eq!((phase(&session), &session["status"]["stats"][0]["attempt"]), ("Running", &json!(1)));
    drop(silent);

    let session = site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &trees[1]);
    beside.assert_alone();
    assert_eq!(session["status"]["stats"][0]["attempt"], 1);
    let after = site.jobs("data", "restore").await;
    assert_eq!(after[0]["metadata"]["name"], before["metadata"]["ownerReferences"][0]["name"]);
    assert_eq!(site.warnings("data", "NodeLost").await.len(), 1, "said once");
}
