//! Backups: where they go, what is kept, when they are taken, and what is said about them.

use std::process::Command;

use serde_json::Value;

use super::faults::assert_no_secrets;
use super::harness::{Site, condition, eventually, phase};
use super::manifests::{
    LATEST, PASSWORD, backup_session, configuration, deployment, of_claim, repository, restore, secret, store,
};
use super::proxy::Proxy;
use super::store::{assert_tree, back_up, prepared, seed, wipe};

fn at(repo: &str, manifest: &str) -> String {
    manifest.replace("{name: repo}", &format!("{{name: {repo}}}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn repositories_on_a_claim_and_on_a_host_path_serve_backup_and_restore() {
    let site = Site::new("local").await;
    let folder = site.claim("data").await;
    let want = seed(&folder, 1, 50_000);
    let vault = site.claim("vault").await;
    site.create(&secret(&site, "store", PASSWORD, "")).await;
    let host = vault.join("host");
    std::fs::create_dir(&host).unwrap();
    for (name, source, folder) in [
        ("on-claim", "persistentVolumeClaim: {claimName: vault}, subPath: inner".to_owned(), "inner"),
        ("on-host", format!("hostPath: {{path: '{}', type: Directory}}", host.display()), "host"),
    ] {
        site.create(&format!(
            "apiVersion: stash.appscode.com/v1alpha1
kind: Repository
metadata: {{name: {name}}}
spec: {{backend: {{local: {{mountPath: /safe, {source}}}, storageSecretName: store}}}}
"
        ))
        .await;
        site.create(&at(name, &configuration(name, &of_claim("data", "data", ""), ""))).await;
        site.create(&backup_session(name, "BackupConfiguration", name)).await;
        site.succeeded("BackupSession", name).await;
        assert!(vault.join(folder).join("config").exists(), "no repository in {folder}");
        wipe(&folder_of(&site).await);
        site.create(&at(name, &restore(name, &of_claim("data", "data", LATEST), ""))).await;
        site.succeeded("RestoreSession", name).await;
        assert_tree(&folder_of(&site).await, &want);
    }
}

/// Proves: defect 27.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn two_configurations_of_one_workload_leave_each_other_alone() {
    let site = Site::new("two").await;
    let folder = site.claim("data").await;
    seed(&folder, 1, 10_000);
    site.create(&deployment("web", 1, &[("data", "/srv")])).await;
    site.until("Deployment", "web", 60, "available", |d| d["status"]["availableReplicas"] == 1).await;
    let before = site.get("Deployment", "web").await;
    store(&site).await;
    site.create(&repository(&site, "other", &site.s3("endpoint"), "elsewhere")).await;
    let target = |path: &str| {
        format!(
            "{{alias: web, ref: {{apiVersion: apps/v1, kind: Deployment, name: web}}, \
            volumeMounts: [{{name: data, mountPath: /srv}}], paths: [{path}]}}"
        )
    };
    for (repo, path) in [("repo", "/srv/deep"), ("other", "/srv/noise")] {
        site.create(&at(repo, &configuration(repo, &target(path), ""))).await;
        site.create(&backup_session(repo, "BackupConfiguration", repo)).await;
    }
    for (repo, path) in [("repo", "/srv/deep"), ("other", "/srv/noise")] {
        let session = site.succeeded("BackupSession", repo).await;
        assert_eq!(session["status"]["targets"][0]["stats"][0]["snapshots"][0]["path"], path);
    }
    let after = site.get("Deployment", "web").await;
    assert_eq!(before["metadata"]["generation"], after["metadata"]["generation"], "a backup changes no workload");
}

async fn folder_of(site: &Site) -> std::path::PathBuf {
    site.folder("data").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a08_a_store_over_tls_needs_its_ca_and_a_slash_before_the_prefix_changes_nothing() {
    let site = Site::new("a08").await;
    let trees = prepared(&site).await;
    let (data, copy) = (site.claim("data").await, site.claim("copy").await);
    let ca = format!(", CA_CERT_DATA: {}", serde_json::to_string(&site.s3("ca")).unwrap());
    site.create(&secret(&site, "with-ca", PASSWORD, &ca)).await;
    site.create(&secret(&site, "store", PASSWORD, "")).await;
    let endpoint = site.s3("tlsEndpoint");
    site.create(&repository(&site, "repo", &endpoint, "/a/b/").replace(": store", ": with-ca")).await;
    site.create(&repository(&site, "stranger", &endpoint, "a/b")).await;
    site.create(&restore("data", &of_claim("m2", "data", LATEST), "")).await;
    site.create(&at("stranger", &restore("copy", &of_claim("m2", "copy", LATEST), ""))).await;

    let text = site.failed("RestoreSession", "copy", "CertificateNotTrusted").await;
    assert!(text.contains("CA_CERT_DATA"), "it says what to do: {text}");
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&data, &trees[2]);
    assert!(!copy.join("who").exists());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn retention_removes_only_what_is_its_own_and_the_repository_says_what_it_holds() {
    let site = Site::new("retention").await;
    prepared(&site).await;
    store(&site).await;
    seed(&site.claim("data").await, 9, 30_000);
    let only = |n: &str| configuration(n, &of_claim(n, "data", ""), "").replace("keepLast: 5", "keepLast: 1");
    site.create(&only("m0")).await;
    // m1 to m3 of the prepared repository, and `mine`, are of others.
    back_up(&site, "mine", &of_claim("mine", "data", "")).await;
    for session in ["one", "two"] {
        site.create(&backup_session(session, "BackupConfiguration", "m0")).await;
        let done = site.succeeded("BackupSession", session).await;
        assert_eq!(condition(&done, "RetentionPolicyApplied").0, "True");
        assert_eq!(condition(&done, "RepositoryIntegrityVerified").0, "True");
    }
    let snapshots = restic(&site, &["snapshots", "--json"]);
    let mut hosts: Vec<&str> = snapshots.as_array().unwrap().iter().map(|s| s["hostname"].as_str().unwrap()).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["m0", "m1", "m2", "m3", "mine"]);
    let status = site.get("Repository", "repo").await["status"].clone();
    assert_eq!((&status["snapshotCount"], &status["integrity"]), (&5.into(), &true.into()), "{status:#}");
    assert_eq!(status["snapshotsRemovedOnLastCleanup"], 1, "{status:#}");
    assert!(status["totalSize"].as_str().unwrap().ends_with("MiB"), "{status:#}");
    assert!(status["firstBackupTime"].as_str() < status["lastBackupTime"].as_str(), "{status:#}");
    assert_no_secrets(&site).await;
}

/// Asks the repository itself, past everything that is under test.
fn restic(site: &Site, words: &[&str]) -> Value {
    let state = std::path::PathBuf::from(std::env::var("LIFEBOAT_CLUSTER_STATE").unwrap());
    let mut command = Command::new(state.ancestors().nth(2).unwrap().join("bin/restic"));
    command.env("RESTIC_PASSWORD", PASSWORD).arg("--repo").arg(site.bucket().join("a/b")).arg("--no-lock");
    let out = command.args(words).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_backup_is_taken_every_minute_and_old_sessions_go() {
    let site = Site::new("schedule").await;
    store(&site).await;
    seed(&site.claim("data").await, 1, 1_000);
    site.create(&configuration(
        "data",
        &of_claim("data", "data", ""),
        "  schedule: '* * * * *'\n  backupHistoryLimit: 1\n",
    ))
    .await;
    let of_schedule = |s: &Value| s["metadata"]["ownerReferences"][0]["kind"] == "BackupConfiguration";
    let due = eventually(70, async || site.list("BackupSession").await.into_iter().find(of_schedule)).await;
    let due = due.expect("no backup was due within 70 s")["metadata"]["name"].as_str().unwrap().to_owned();
    site.patch("BackupConfiguration", "data", serde_json::json!({ "spec": { "paused": true } })).await;
    site.succeeded("BackupSession", &due).await;
    let invoker = site.get("BackupConfiguration", "data").await;
    assert!(invoker["status"]["lastScheduleTime"].is_string(), "{invoker:#}");

    site.create(&backup_session("by-hand", "BackupConfiguration", "data")).await;
    site.succeeded("BackupSession", "by-hand").await;
    let left = eventually(20, async || {
        let names: Vec<Value> =
            site.list("BackupSession").await.iter().map(|s| s["metadata"]["name"].clone()).collect();
        (names == ["by-hand"]).then_some(())
    });
    assert!(left.await.is_some(), "backupHistoryLimit is 1: {:#?}", site.list("BackupSession").await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_second_session_is_skipped_and_a_missing_path_fails() {
    let site = Site::new("overlap").await;
    prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    super::manifests::store_at(&site, &proxy.endpoint).await;
    let folder = site.claim("data").await;
    let want = seed(&folder, 1, 1_000);
    proxy.hold_after(0);
    site.create(&configuration("data", &of_claim("data", "data", ""), "")).await;
    site.create(&backup_session("first", "BackupConfiguration", "data")).await;
    site.until("BackupSession", "first", 30, "running", |s| phase(s) == "Running").await;
    site.create(&backup_session("second", "BackupConfiguration", "data")).await;
    let second = site.ended("BackupSession", "second").await;
    assert_eq!(phase(&second), "Skipped");
    let (skipped, _, text) = condition(&second, "BackupSkipped");
    assert!(skipped == "True" && text.contains("first"), "{text}");
    assert_eq!(phase(&site.get("BackupSession", "first").await), "Running", "it ended before it was overlapped");
    proxy.release();
    site.succeeded("BackupSession", "first").await;

    let target = of_claim("data", "data", ", paths: [/stash-data/who, /stash-data/nowhere]");
    site.create(&configuration("lost", &target, "")).await;
    site.create(&backup_session("lost", "BackupConfiguration", "lost")).await;
    let text = site.failed("BackupSession", "lost", "PathNotFound").await;
    assert!(text.contains("/stash-data/nowhere"), "{text}");
    assert_tree(&folder, &want);
}
