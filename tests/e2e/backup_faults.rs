//! Disturbed backups: the same faults have the same reasons as in restores, and a backup is whole or Failed.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::harness::{Site, eventually};
use super::manifests::{LATEST, backup_session, configuration, of_claim, repository, restore, secret, store_at};
use super::proxy::Proxy;
use super::quick_repository;
use super::store::{Tree, assert_tree, locks, prepared, quick_store, seed, wipe};

/// A backup of the claim `data` that is held while it writes, with the claim's folder and its content.
async fn caught(name: &str) -> (Site, Proxy, PathBuf, Tree) {
    let site = Site::new(name).await;
    prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    let folder = site.claim("data").await;
    let want = seed(&folder, 11, 3_000_000);
    proxy.hold_after_sent(1_000_000);
    site.create(&configuration("data", &of_claim("data", "data", ""), "")).await;
    site.create(&backup_session("data", "BackupConfiguration", "data")).await;
    proxy.held().await;
    (site, proxy, folder, want)
}

/// Restores the claim `data` from its backup and compares the result.
async fn comes_back(site: &Site, folder: &Path, want: &Tree) {
    wipe(folder);
    site.create(&restore("data", &of_claim("data", "data", LATEST), "")).await;
    site.succeeded("RestoreSession", "data").await;
    assert_tree(folder, want);
}

/// Proves: C05, defect 9.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_backup_whose_pod_is_taken_away_is_made_again_and_comes_back_whole() {
    let site = Site::new("backup-pod").await;
    prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    let folder = site.claim("data").await;
    let want = seed(&folder, 11, 300_000);
    site.create(&configuration("data", &of_claim("data", "data", ""), "")).await;
    site.create(&backup_session("data", "BackupConfiguration", "data")).await;
    let made = eventually(60, async || (!site.jobs("data", "backup").await.is_empty()).then_some(()));
    assert!(made.await.is_some(), "no backup Job");
    // The Job's pod takes longer to start than this call.
    proxy.hold_after(0);
    proxy.held().await;
    let pod = site.running("data", "backup").await;
    site.delete("Pod", pod["metadata"]["name"].as_str().unwrap()).await;
    let again = |s: &Value| s["status"]["targets"][0]["stats"][0]["attempt"] == 2;
    site.until("BackupSession", "data", 60, "tried again", again).await;
    proxy.release();
    let session = site.succeeded("BackupSession", "data").await;
    let host = &session["status"]["targets"][0]["stats"][0];
    assert_eq!(host["attempt"], 2, "{host:#}");
    comes_back(&site, &folder, &want).await;
}

/// Retention needs exclusive access to the repository, and restic considers a lock stale after half an hour.
///
/// Proves: C05, C10.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c10_the_lock_of_a_backup_that_is_killed_goes_with_its_next_attempt() {
    let (site, proxy, folder, want) = caught("backup-killed").await;
    let pod = site.running("data", "backup").await;
    site.kill_agent(&pod);
    let again = |s: &Value| s["status"]["targets"][0]["stats"][0]["attempt"] == 2;
    site.until("BackupSession", "data", 60, "tried again", again).await;
    assert_eq!(locks(&site), 1, "killed, it leaves its lock");
    proxy.release();
    let session = site.succeeded("BackupSession", "data").await;
    let host = &session["status"]["targets"][0]["stats"][0];
    assert_eq!((&host["attempt"], &host["podDeaths"]), (&json!(2), &json!(1)), "{host:#}");
    assert_eq!(locks(&site), 0);
    comes_back(&site, &folder, &want).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_backup_that_is_canceled_leaves_no_lock_and_the_next_one_comes_back_whole() {
    let (site, proxy, folder, want) = caught("backup-canceled").await;
    let pod = site.running("data", "backup").await;
    let asked = std::time::Instant::now();
    site.patch("BackupSession", "data", json!({ "spec": { "cancel": true } })).await;
    // The kubelet sends the signal some time after the Job is deleted. If the store came back before that, the backup
    // would succeed.
    let stopped = eventually(20, async || {
        let log = site.log_of(pod["metadata"]["name"].as_str().unwrap());
        log.is_none_or(|l| l.contains("told to stop")).then_some(())
    });
    assert!(stopped.await.is_some(), "its agent is not told to stop");
    // When restic is told to stop, it removes its lock if the store answers.
    proxy.release();
    let text = site.failed("BackupSession", "data", "Canceled").await;
    assert!(asked.elapsed().as_secs() < 45, "canceled after {:?}", asked.elapsed());
    assert!(text.contains("No host was backed up"), "{text}");
    assert_eq!(locks(&site), 0);
    site.create(&backup_session("again", "BackupConfiguration", "data")).await;
    let session = site.succeeded("BackupSession", "again").await;
    let summary = session["status"]["summary"].as_str().unwrap();
    assert!(summary.starts_with("Backed up 1 host: ") && summary.contains(" MiB, snapshot "), "{summary}");
    comes_back(&site, &folder, &want).await;
}

/// Proves: C05, defect 9.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_backup_without_memory_or_the_password_fails_with_the_reason_and_keeps_what_is_there() {
    let site = Site::new("backup-fails").await;
    let trees = prepared(&site).await;
    quick_store(&site).await;
    seed(&site.claim("data").await, 11, 20_000);
    // restic needs 32 MiB to derive its key.
    quick_repository::slow_down(&site.bucket().join("a/b"));
    let little = "  runtimeSettings: {container: {resources: {limits: {memory: 12Mi}}}}\n";
    site.create(&configuration("little", &of_claim("little", "data", ""), little)).await;
    site.create(&secret(&site, "wrong", "not-the-password", "")).await;
    let wrong = repository(&site, "wrong", &site.s3("endpoint"), "a/b").replace(": store", ": wrong");
    site.create(&wrong).await;
    let stranger = configuration("stranger", &of_claim("stranger", "data", ""), "");
    site.create(&stranger.replace("{name: repo}", "{name: wrong}")).await;
    for name in ["little", "stranger"] {
        site.create(&backup_session(name, "BackupConfiguration", name)).await;
    }
    let text = site.failed("BackupSession", "little", "OOMKilled").await;
    assert!(text.contains("runtimeSettings.container.resources"), "it says what to do: {text}");
    let text = site.failed("BackupSession", "stranger", "WrongPassword").await;
    assert!(text.contains("RESTIC_PASSWORD"), "it says what to do: {text}");
    let session = site.get("BackupSession", "stranger").await;
    assert_eq!(session["status"]["run"]["steps"][0]["attempt"], json!(1), "no wait mends a password");
    let back = site.claim("back").await;
    site.create(&restore("back", &of_claim("m0", "back", LATEST), "")).await;
    site.succeeded("RestoreSession", "back").await;
    assert_tree(&back, &trees[0]);
}
