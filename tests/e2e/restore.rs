//! Restores of backups, into every kind of target.

use serde_json::Value;

use super::harness::{Site, condition, phase};
use super::manifests::{CLAIM_MOUNT, LATEST, deployment, of_claim, repository, restore, stateful_set, store_at};
use super::proxy::Proxy;
use super::store::{assert_tree, back_up, prepared, quick_store, seed, wipe};
use super::support::tree::{build, describe};

/// Proves: scenario 12, A01, scenario 29.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a01_a_claim_comes_back_byte_for_byte() {
    let site = Site::new("a01-claim").await;
    let folder = site.claim("data").await;
    build(&folder, 1);
    let before = describe(&folder);
    quick_store(&site).await;

    let backup = back_up(&site, "data", &of_claim("data", "data", "")).await;
    let made = &backup["status"]["targets"][0]["stats"][0]["snapshots"][0];
    assert_eq!(made["path"], CLAIM_MOUNT);
    assert_tree(&folder, &before);

    wipe(&folder);
    site.create(&restore("data", &of_claim("data", "data", LATEST), "")).await;
    let session = site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &before);
    let host = &session["status"]["stats"][0];
    assert_eq!(host["planned"], host["restored"]);
    assert!(host["restored"]["bytes"].as_i64().unwrap() > 12_000_000, "{host}");
    let pinned = host["snapshots"][0]["id"].as_str().unwrap();
    assert!(pinned.starts_with(made["name"].as_str().unwrap()), "{pinned} is not the snapshot that was made");
    let free = |s: &Value| s["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
    site.until("RestoreSession", "data", 10, "without finalizer", free).await;
}

const AUTOSCALER: &str = "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 4
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
";

/// Proves: A01, scenario 1, defect 19, defect 20.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a01_a_deployment_is_quiesced_restored_and_scaled_back() {
    let site = Site::new("a01-deployment").await;
    let (data, logs) = (site.claim("data").await, site.claim("logs").await);
    seed(&data, 1, 1_500_000);
    seed(&logs.join("kept"), 2, 1_000);
    std::fs::write(logs.join("beside"), "not backed up").unwrap();
    site.create(&deployment("web", 2, &[("data", "/srv/data"), ("logs", "/var/log")])).await;
    site.until("Deployment", "web", 60, "available", |d| d["status"]["availableReplicas"] == 2).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    let mounts = "ref: {apiVersion: apps/v1, kind: Deployment, name: web}, \
        volumeMounts: [{name: data, mountPath: /srv/data}, {name: logs, mountPath: /var/log}]";
    back_up(&site, "web", &format!("{{alias: web, {mounts}, paths: [/srv/data, /var/log/kept]}}")).await;
    let (want_data, want_logs) = (describe(&data), describe(&logs.join("kept")));
    // An autoscaler is inactive while its workload is at zero replicas, so it does not interfere.
    site.create(AUTOSCALER).await;
    let before = site.get("Deployment", "web").await["spec"].clone();

    wipe(&data);
    wipe(&logs.join("kept"));
    let rules = "rules: [{paths: [/srv/data, /var/log/kept]}]";
    proxy.hold_after(600_000);
    site.create(&restore("web", &format!("{{alias: web, {mounts}, {rules}}}"), "")).await;
    proxy.held().await;
    // While data moves, no pod of the Deployment has the volumes.
    assert_eq!(site.get("RestoreSession", "web").await["status"]["quiesce"]["state"], "Quiesced");
    let runs = |p: &&Value| p["metadata"]["labels"]["app"] == "web" && ["Pending", "Running"].contains(&phase(p));
    assert_eq!(site.list("Pod").await.iter().filter(runs).count(), 0, "pods of the Deployment ran beside the restore");
    proxy.release();

    let session = site.succeeded("RestoreSession", "web").await;
    assert_tree(&data, &want_data);
    assert_tree(&logs.join("kept"), &want_logs);
    assert_eq!(std::fs::read_to_string(logs.join("beside")).unwrap(), "not backed up");
    assert_eq!(session["status"]["quiesce"]["replicas"], 2);
    assert_eq!(session["status"]["quiesce"]["state"], "Resumed");
    assert_eq!(condition(&session, "Quiesced").1, "ScaledBack");
    let after = site.until("Deployment", "web", 60, "back", |d| d["status"]["availableReplicas"] == 2).await;
    assert_eq!(before, after["spec"], "template, strategy and all else are as they were");
}

/// Proves: scenario 2.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn what_one_deployment_backed_up_another_gets() {
    let site = Site::new("another").await;
    let (old, new) = (site.claim("old").await, site.claim("new").await);
    let want = seed(&old, 1, 50_000);
    seed(&new, 2, 1_000);
    for name in ["old", "new"] {
        site.create(&deployment(name, 1, &[(name, "/srv")])).await;
        site.until("Deployment", name, 60, "available", |d| d["status"]["availableReplicas"] == 1).await;
    }
    quick_store(&site).await;
    let of = |name: &str, more: &str| {
        format!(
            "{{alias: {name}, ref: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}, \
            volumeMounts: [{{name: {name}, mountPath: /srv}}], {more}}}"
        )
    };
    back_up(&site, "old", &of("old", "paths: [/srv]")).await;
    // Files that are not in the backup are deleted; the targets of links are not.
    std::fs::create_dir_all(new.join("extra/deep")).unwrap();
    std::fs::write(new.join("extra/deep/file"), "not backed up").unwrap();
    std::os::unix::fs::symlink("/srv", new.join("extra/link")).unwrap();
    let exact = "extraneous: Delete, rules: [{sourceHost: old, paths: [/srv]}]";
    site.create(&restore("new", &of("new", exact), "")).await;
    let session = site.succeeded("RestoreSession", "new").await;
    let host = &session["status"]["stats"][0];
    assert_eq!(host["sourceHost"], "old");
    let deleted = host["deleted"].as_i64().unwrap();
    assert!(deleted >= 4, "{host}");
    let summary = session["status"]["summary"].as_str().unwrap();
    assert!(summary.ends_with(&format!("Deleted {deleted} entries.")), "{summary}");
    assert_tree(&new, &want);
    assert_tree(&old, &want);
    site.until("Deployment", "new", 60, "back", |d| d["status"]["availableReplicas"] == 1).await;
}

/// Proves: scenario 5, scenario 7, A11, defect 20.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a11_each_ordinal_of_a_stateful_set_gets_its_own_data() {
    let site = Site::new("a11").await;
    site.create(&stateful_set("db", 3)).await;
    let mut folders = vec![];
    for n in 0..3 {
        let claim = format!("data-db-{n}");
        site.until("PersistentVolumeClaim", &claim, 60, "bound", |c| phase(c) == "Bound").await;
        folders.push(site.folder(&claim).await);
    }
    let want: Vec<_> = folders.iter().zip(1..).map(|(f, n)| seed(f, n, 200_000)).collect();
    quick_store(&site).await;
    let target = "alias: db, ref: {apiVersion: apps/v1, kind: StatefulSet, name: db}, \
        volumeMounts: [{name: data, mountPath: /data}]";
    back_up(&site, "db", &format!("{{{target}, paths: [/data]}}")).await;

    for folder in &folders {
        wipe(folder);
    }
    let before = site.get("StatefulSet", "db").await["spec"].clone();
    site.create(&restore("db", &format!("{{{target}, rules: [{{paths: [/data]}}]}}"), "")).await;
    let session = site.succeeded("RestoreSession", "db").await;
    assert_eq!(session["status"]["totalHosts"], 3);
    for (folder, tree) in folders.iter().zip(&want) {
        assert_tree(folder, tree);
    }
    let after = site.until("StatefulSet", "db", 60, "back", |s| s["status"]["readyReplicas"] == 3).await;
    assert_eq!(before, after["spec"], "template, strategy and all else are as they were");

    // The KEP's idiom, in the deprecated place: new ordinals take the data of an old one.
    site.patch("StatefulSet", "db", serde_json::json!({ "spec": { "replicas": 5 } })).await;
    site.until("StatefulSet", "db", 60, "larger", |s| s["status"]["readyReplicas"] == 5).await;
    for folder in &folders {
        wipe(folder);
    }
    let rules = "  rules:\n  - {targetHosts: [db-3, db-4], sourceHost: db-1, paths: [/data]}\n  - {paths: [/data]}\n";
    site.create(&restore("larger", &format!("{{{target}}}"), rules)).await;
    let session = site.succeeded("RestoreSession", "larger").await;
    for n in 3..5 {
        assert_tree(&site.folder(&format!("data-db-{n}")).await, &want[1]);
        assert_eq!(session["status"]["stats"][n]["sourceHost"], "db-1");
    }
    for (folder, tree) in folders.iter().zip(&want) {
        assert_tree(folder, tree);
    }
    site.until("StatefulSet", "db", 60, "back", |s| s["status"]["readyReplicas"] == 5).await;
}

/// Proves: A10.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a10_a_claim_that_a_pod_holds_is_restored_on_the_pods_node() {
    let site = Site::new("a10").await;
    let trees = prepared(&site).await;
    let folder = site.claim("data").await;
    site.create(&deployment("holder", 1, &[("data", "/data")])).await;
    site.until("Deployment", "holder", 60, "available", |d| d["status"]["availableReplicas"] == 1).await;
    quick_store(&site).await;
    // Restores over existing files: files that differ are corrected, files that were not backed up stay.
    std::fs::create_dir(folder.join("deep")).unwrap();
    std::fs::write(folder.join("who"), "spoiled").unwrap();

    site.create(&restore("data", &of_claim("m0", "data", LATEST), "")).await;
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &trees[0]);
    let holder = site.list("Pod").await.into_iter().find(|p| p["metadata"]["labels"]["app"] == "holder").unwrap();
    let job = site.jobs("data", "restore").await.remove(0);
    let terms = &job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"];
    let terms = &terms["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchFields"][0]["values"][0], holder["spec"]["nodeName"], "{terms}");
    assert_eq!(site.get("Deployment", "holder").await["spec"]["replicas"], 1, "a restore of a claim scales nobody");
}

/// Proves: A02.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a02_a_newer_snapshot_does_not_change_a_run_that_has_begun() {
    let site = Site::new("a02").await;
    let trees = prepared(&site).await;
    let (data, copy) = (site.claim("data").await, site.claim("copy").await);
    let proxy = Proxy::start(&site).await;
    quick_store(&site).await;
    site.create(&repository(&site, "held", &proxy.endpoint, "a/b")).await;

    proxy.hold_after(1_000_000);
    let slow = restore("copy", &of_claim("m1", "copy", LATEST), "").replace("{name: repo}", "{name: held}");
    site.create(&slow).await;
    proxy.held().await;
    let pinned = site.get("RestoreSession", "copy").await["status"]["stats"][0]["snapshots"].clone();
    assert_eq!(pinned.as_array().map(Vec::len), Some(1), "a snapshot is pinned before data moves");
    seed(&data, 77, 1_000);
    back_up(&site, "newer", &of_claim("m1", "data", "")).await;
    // A second attempt needs no query: it restores the pinned snapshot.
    let job = site.jobs("copy", "restore").await.remove(0);
    let of_job = format!("job-name={}", job["metadata"]["name"].as_str().unwrap());
    site.kubectl(&["delete", "pod", "--selector", &of_job, "--grace-period=0", "--force"]);
    proxy.release();

    let session = site.succeeded("RestoreSession", "copy").await;
    assert_eq!(session["status"]["stats"][0]["snapshots"], pinned);
    assert_eq!(session["status"]["stats"][0]["attempt"], 2);
    assert_tree(&copy, &trees[1]);
}
