//! Every kind of target on one node: controllers of replicas, folders of the node, claims made from templates.

use serde_json::{Value, json};

use super::harness::{Site, condition, phase};
use super::manifests::{
    LATEST, claim, deployment, of_claim, on_host, replicated, repository, restore, stateful_set, stateful_set_of,
    template,
};
use super::proxy::Proxy;
use super::store::{assert_tree, back_up, prepared, quick_store, seed, wipe};

/// ReplicaSet and ReplicationController: quiesced, restored, and back with the replicas they had.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_replica_set_and_a_replication_controller_are_quiesced_and_restored() {
    let site = Site::new("controllers").await;
    quick_store(&site).await;
    for (version, kind, name) in [("apps/v1", "ReplicaSet", "rs"), ("v1", "ReplicationController", "rc")] {
        let folder = site.claim(name).await;
        let want = seed(&folder, 1, 100_000);
        site.create(&replicated(version, kind, name, 2, &[(name, "/data")])).await;
        site.until(kind, name, 60, "ready", |o| o["status"]["readyReplicas"] == 2).await;
        let target = format!(
            "alias: {name}, ref: {{apiVersion: {version}, kind: {kind}, name: {name}}}, \
             volumeMounts: [{{name: {name}, mountPath: /data}}]"
        );
        back_up(&site, name, &format!("{{{target}, paths: [/data]}}")).await;
        wipe(&folder);
        site.create(&restore(name, &format!("{{{target}{LATEST}}}"), "")).await;
        let session = site.succeeded("RestoreSession", name).await;
        assert_tree(&folder, &want);
        let quiesce = &session["status"]["quiesce"];
        assert_eq!((&quiesce["replicas"], &quiesce["state"]), (&json!(2), &json!("Resumed")));
        site.until(kind, name, 60, "back", |o| o["status"]["readyReplicas"] == 2).await;
    }
}

/// Proves: scenario 2.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_folder_of_the_node_with_sub_paths_goes_from_one_deployment_into_another() {
    let site = Site::new("on-host").await;
    quick_store(&site).await;
    let (path, folders) = site.disks(1);
    let (old, new) = (folders[0].join("old"), folders[0].join("new"));
    let want = seed(&old.join("kept"), 1, 50_000);
    seed(&old.join("beside"), 2, 1_000);
    for name in ["old", "new"] {
        std::fs::create_dir_all(folders[0].join(name)).unwrap();
        site.create(&on_host("Deployment", name, "replicas: 1", &format!("{path}/{name}"))).await;
        site.until("Deployment", name, 60, "available", |d| d["status"]["availableReplicas"] == 1).await;
    }
    let target = |name: &str| {
        format!(
            "alias: app, ref: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}, \
             volumeMounts: [{{name: data, mountPath: /data/kept, subPath: kept}}, \
             {{name: data, mountPath: /data/twice, subPath: kept/deep}}]"
        )
    };
    let backup = back_up(&site, "old", &format!("{{{}, paths: [/data/kept, /data/twice]}}", target("old"))).await;
    assert_eq!(backup["status"]["targets"][0]["stats"][0]["node"], "node1");
    let rules = "rules: [{paths: [/data/kept]}]";
    site.create(&restore("new", &format!("{{{}, {rules}}}", target("new")), "")).await;
    let session = site.succeeded("RestoreSession", "new").await;
    assert_tree(&new.join("kept"), &want);
    assert!(!new.join("beside").exists());
    assert_eq!(session["status"]["stats"][0]["node"], "node1");
    assert_eq!(session["status"]["quiesce"]["state"], "Resumed");
}

/// Proves: scenario 14, invented 13, defect 18.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn volumes_of_a_deployment_are_cloned_into_new_claims() {
    let site = Site::new("clone").await;
    quick_store(&site).await;
    let (data, config) = (site.claim("data").await, site.claim("config").await);
    let want = [seed(&data, 1, 200_000), seed(&config, 2, 1_000)];
    site.create(&deployment("web", 1, &[("data", "/source/data"), ("config", "/source/config")])).await;
    site.until("Deployment", "web", 60, "available", |d| d["status"]["availableReplicas"] == 1).await;
    let target = "{ref: {apiVersion: apps/v1, kind: Deployment, name: web}, \
        volumeMounts: [{name: data, mountPath: /source/data}, {name: config, mountPath: /source/config}], \
        paths: [/source/data, /source/config]}";
    back_up(&site, "web", target).await;

    // As published: no alias, no ref, two templates.
    let clone = |name: &str| {
        let mounts = "volumeMounts: [{name: restore-data, mountPath: /source/data}, \
            {name: restore-config, mountPath: /source/config}]";
        let templates = [template("restore-data"), template("restore-config")].concat().replace('\n', "\n  ");
        let more = format!(
            "    rules: [{{paths: [/source/data, /source/config]}}]\n    {mounts}\n    volumeClaimTemplates:\n  {templates}"
        );
        restore(name, "", more.trim_end_matches(' '))
    };
    site.create(&clone("clone")).await;
    let session = site.succeeded("RestoreSession", "clone").await;
    assert_eq!(session["status"]["stats"][0]["hostname"], "host-0");
    assert_eq!(condition(&session, "ClaimsCreated").0, "True");
    let folders = [site.folder("restore-data").await, site.folder("restore-config").await];
    for (folder, tree) in folders.iter().zip(&want) {
        assert_tree(folder, tree);
    }

    // The same session again, under its name: it owns the claims. A session with another name does not.
    site.delete("RestoreSession", "clone").await;
    let gone =
        super::harness::eventually(30, async || site.find("RestoreSession", "clone").await.is_none().then_some(()));
    assert!(gone.await.is_some());
    let kept = site.get("PersistentVolumeClaim", "restore-data").await;
    assert!(kept["metadata"]["deletionTimestamp"].is_null() && kept["metadata"]["ownerReferences"].is_null());
    wipe(&folders[0]);
    site.create(&clone("clone")).await;
    site.succeeded("RestoreSession", "clone").await;
    assert_tree(&folders[0], &want[0]);
    std::fs::write(folders[1].join("since"), "new data").unwrap();
    site.create(&clone("other")).await;
    let text = site.failed("RestoreSession", "other", "ClaimExists").await;
    assert!(text.contains("restore-data") && text.contains("RestoreSession/clone made it"), "{text}");
    assert!(folders[1].join("since").exists(), "left as it is");
}

/// Proves: scenario 15, defect 8, invented 13.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn volumes_of_a_stateful_set_are_cloned_replica_by_replica() {
    let site = Site::new("clone-set").await;
    quick_store(&site).await;
    site.create(&stateful_set_of("db", 3, &["data", "config"])).await;
    let mut want = vec![];
    for n in 0..3 {
        for (kind, size) in [("data", 50_000), ("config", 1_000)] {
            let name = format!("{kind}-db-{n}");
            site.until("PersistentVolumeClaim", &name, 60, "bound", |c| phase(c) == "Bound").await;
            want.push((format!("{kind}-copy-{n}"), seed(&site.folder(&name).await, n * 10 + size, size)));
        }
    }
    let mounts = "volumeMounts: [{name: data, mountPath: /data}, {name: config, mountPath: /config}]";
    let target =
        format!("{{ref: {{apiVersion: apps/v1, kind: StatefulSet, name: db}}, {mounts}, paths: [/data, /config]}}");
    back_up(&site, "db", &target).await;

    let templates = [template("data-copy-${POD_ORDINAL}"), template("config-copy-${POD_ORDINAL}")].concat();
    let mounts = "[{name: data-copy, mountPath: /data}, {name: config-copy, mountPath: /config}]";
    let more = format!(
        "    replicas: 3\n    rules: [{{paths: [/data, /config]}}]\n    volumeMounts: {mounts}\n    volumeClaimTemplates:\n  {}",
        templates.replace('\n', "\n  ")
    );
    site.create(&restore("copy", "", more.trim_end_matches(' '))).await;
    let session = site.succeeded("RestoreSession", "copy").await;
    assert_eq!(
        (&session["status"]["totalHosts"], session["status"]["stats"].as_array().unwrap().len()),
        (&json!(3), 3)
    );
    for (claim, tree) in &want {
        assert_tree(&site.folder(claim).await, tree);
    }
    // A StatefulSet that is created now finds its data.
    site.create(&stateful_set_of("copy", 3, &["data", "config"])).await;
    site.until("StatefulSet", "copy", 60, "ready", |s| s["status"]["readyReplicas"] == 3).await;
}

/// Proves: scenario 6, scenario 7.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_stateful_set_is_restored_into_a_larger_one_of_another_name() {
    let site = Site::new("other-set").await;
    quick_store(&site).await;
    for (name, replicas) in [("db", 2), ("big", 3)] {
        site.create(&stateful_set(name, replicas)).await;
        site.until("StatefulSet", name, 60, "ready", |s| s["status"]["readyReplicas"] == replicas).await;
    }
    let mut want = vec![];
    for n in 0..2 {
        want.push(seed(&site.folder(&format!("data-db-{n}")).await, n, 20_000));
    }
    let target = |name: &str| {
        format!(
            "alias: db, ref: {{apiVersion: apps/v1, kind: StatefulSet, name: {name}}}, \
             volumeMounts: [{{name: data, mountPath: /data}}]"
        )
    };
    back_up(&site, "db", &format!("{{{}, paths: [/data]}}", target("db"))).await;
    let rules = "rules: [{targetHosts: [db-2], sourceHost: db-1, paths: [/data]}, {paths: [/data]}]";
    site.create(&restore("big", &format!("{{{}, {rules}}}", target("big")), "")).await;
    site.succeeded("RestoreSession", "big").await;
    for (n, source) in [(0, 0), (1, 1), (2, 1)] {
        assert_tree(&site.folder(&format!("data-big-{n}")).await, &want[source]);
    }
    site.until("StatefulSet", "big", 60, "back", |s| s["status"]["readyReplicas"] == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn of_two_restores_of_one_workload_the_later_waits_for_the_earlier() {
    let site = Site::new("rivals").await;
    let trees = prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    quick_store(&site).await;
    site.create(&repository(&site, "held", &proxy.endpoint, "a/b")).await;
    let folder = site.claim("web").await;
    site.create(&deployment("web", 2, &[("web", "/srv")])).await;
    site.until("Deployment", "web", 60, "available", |d| d["status"]["availableReplicas"] == 2).await;
    let target = |alias: &str| {
        format!(
            "{{alias: {alias}, ref: {{apiVersion: apps/v1, kind: Deployment, name: web}}, \
             volumeMounts: [{{name: web, mountPath: /stash-data}}]{LATEST}}}"
        )
    };
    proxy.hold_after(1_000_000);
    site.create(&restore("first", &target("m1"), "").replace("{name: repo}", "{name: held}")).await;
    proxy.held().await;
    site.create(&restore("second", &target("m0"), "")).await;
    site.create(&restore("claim", &of_claim("m2", "web", LATEST), "")).await;
    let waits = |o: &Value| condition(o, "Reconciling").1 == "TargetBusy";
    let second = site.until("RestoreSession", "second", 60, "waiting", waits).await;
    let text = condition(&second, "Ready").2;
    assert!(text.contains(&format!("RestoreSession {}/first", site.namespace)), "{text}");
    // Another target with the same volume.
    let writes = |o: &Value| condition(o, "Ready").2.contains("writes to PersistentVolumeClaim web");
    site.until("RestoreSession", "claim", 60, "waiting", writes).await;
    assert!(site.jobs("second", "restore").await.is_empty() && site.jobs("claim", "restore").await.is_empty());
    site.delete("RestoreSession", "claim").await;
    proxy.release();
    for name in ["first", "second"] {
        let session = site.succeeded("RestoreSession", name).await;
        assert_eq!(session["status"]["quiesce"]["replicas"], 2);
    }
    for (path, line) in &trees[0] {
        assert_eq!(super::support::tree::describe(&folder).get(path), Some(line), "the later one was last: {path}");
    }
    site.until("Deployment", "web", 60, "back", |d| d["status"]["availableReplicas"] == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn what_no_job_can_write_to_is_refused_with_the_reason() {
    let site = Site::new("unreachable").await;
    prepared(&site).await;
    quick_store(&site).await;
    site.create(&claim("alone").replace("ReadWriteOnce", "ReadWriteOncePod")).await;
    site.create(&deployment("alone", 1, &[("alone", "/srv")])).await;
    site.until("Deployment", "alone", 60, "available", |d| d["status"]["availableReplicas"] == 1).await;
    site.create(&restore("held", &of_claim("m0", "alone", LATEST), "")).await;
    let text = site.failed("RestoreSession", "held", "VolumeNotReachable").await;
    assert!(text.contains("ReadWriteOncePod"), "{text}");

    let volumes =
        "[{name: scratch, emptyDir: {}}, {name: fixed, persistentVolumeClaim: {claimName: alone, readOnly: true}}]";
    let pods = deployment("odd", 0, &[]).replace("volumes: []", &format!("volumes: {volumes}"));
    site.create(&pods).await;
    for (volume, why) in [("scratch", "emptyDir"), ("fixed", "read-only"), ("nowhere", "does not have")] {
        let target = format!(
            "{{alias: m0, ref: {{apiVersion: apps/v1, kind: Deployment, name: odd}}, \
             volumeMounts: [{{name: {volume}, mountPath: /stash-data}}]{LATEST}}}"
        );
        site.create(&restore(volume, &target, "")).await;
        let text = site.failed("RestoreSession", volume, "VolumeNotReachable").await;
        assert!(text.contains(why), "{text}");
    }
    // A workload that is at zero replicas itself, on a claim that another workload's pod holds.
    site.create(&deployment("beside", 0, &[("alone", "/srv")])).await;
    let target = format!(
        "{{alias: m0, ref: {{apiVersion: apps/v1, kind: Deployment, name: beside}}, \
         volumeMounts: [{{name: alone, mountPath: /stash-data}}]{LATEST}}}"
    );
    site.create(&restore("beside", &target, "")).await;
    let text = site.failed("RestoreSession", "beside", "VolumeNotReachable").await;
    assert!(text.contains("ReadWriteOncePod and pod alone-"), "{text}");
    // In place, the workload's pod is gone before the Job's pod starts, so only one pod at a time has the claim.
    let target = format!(
        "{{alias: m0, ref: {{apiVersion: apps/v1, kind: Deployment, name: alone}}, \
         volumeMounts: [{{name: alone, mountPath: /stash-data}}]{LATEST}}}"
    );
    site.create(&restore("in-place", &target, "")).await;
    site.succeeded("RestoreSession", "in-place").await;
}
