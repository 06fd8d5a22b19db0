//! Backups: their destinations, retention, schedule and status.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::faults::assert_no_secrets;
use super::harness::{Site, condition, eventually, phase};
use super::manifests::{
    LATEST, PASSWORD, backup_session, configuration, deployment, of_claim, repository, restore, secret, stateful_set,
};
use super::proxy::Proxy;
use super::store::{assert_tree, back_up, prepared, quick_store, seed, wipe};

fn at(repo: &str, manifest: &str) -> String {
    manifest.replace("{name: repo}", &format!("{{name: {repo}}}"))
}

/// Proves: scenario 29.
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
    // Another test may have taken the webhook away while this test names a path of the node.
    let open = json!({ "metadata": { "labels": { "lifeboat.stash.appscode.com/allow-code": "true" } } });
    site.patch("Namespace", &site.namespace, open).await;
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
    quick_store(&site).await;
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

/// Proves: A08, scenario 13.
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

    let other = rcgen::generate_simple_self_signed(vec!["other.example.com".to_owned()]).unwrap().cert.pem();
    let wrong = format!(", CA_CERT_DATA: {}", serde_json::to_string(&other).unwrap());
    site.create(&secret(&site, "wrong-ca", PASSWORD, &wrong)).await;
    site.create(&repository(&site, "wrong", &endpoint, "a/b").replace(": store", ": wrong-ca")).await;
    site.create(&at("wrong", &restore("copy2", &of_claim("m2", "copy", LATEST), ""))).await;

    for session in ["copy", "copy2"] {
        let text = site.failed("RestoreSession", session, "CertificateNotTrusted").await;
        assert!(text.contains("CA_CERT_DATA"), "it says what to do: {text}");
    }
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&data, &trees[2]);
    assert!(!copy.join("who").exists());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn retention_removes_only_what_is_its_own_and_the_repository_says_what_it_holds() {
    let site = Site::new("retention").await;
    prepared(&site).await;
    quick_store(&site).await;
    seed(&site.claim("data").await, 9, 30_000);
    let only = |n: &str| configuration(n, &of_claim(n, "data", ""), "").replace("keepLast: 5", "keepLast: 1");
    site.create(&only("m0")).await;
    // m1 to m3 of the prepared repository, and `mine`, belong to other hosts.
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

/// Queries the repository of the test's bucket, without the code under test.
fn restic(site: &Site, words: &[&str]) -> Value {
    restic_at(&site.bucket().join("a/b"), words)
}

fn restic_at(repository: &Path, words: &[&str]) -> Value {
    let state = std::path::PathBuf::from(std::env::var("LIFEBOAT_CLUSTER_STATE").unwrap());
    let mut command = Command::new(state.ancestors().nth(2).unwrap().join("bin/restic"));
    command.env("RESTIC_PASSWORD", PASSWORD).arg("--repo").arg(repository).arg("--no-lock");
    let out = command.args(words).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Hosts of all snapshots, sorted, each with its tags except the tag that names the run.
fn hosts(repository: &Path) -> Vec<String> {
    let all = restic_at(repository, &["snapshots", "--json"]);
    let said = |s: &Value| {
        let tags = s["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let tags: Vec<&str> = tags.filter(|t| ["gold"].contains(t)).collect();
        format!("{} {}", s["hostname"].as_str().unwrap(), tags.join(",")).trim().to_owned()
    };
    let mut hosts: Vec<String> = all.as_array().unwrap().iter().map(said).collect();
    hosts.sort();
    hosts
}

async fn run(site: &Site, invoker: &str, session: &str) -> Value {
    site.create(&backup_session(session, "BackupConfiguration", invoker)).await;
    site.succeeded("BackupSession", session).await
}

/// Retention in a repository: a dry run removes nothing, a tag keeps a snapshot, and other hosts keep all snapshots.
async fn kept(site: &Site, repo: &str, repository: &Path) {
    let of = |name: &str, retention: &str, args: &str| {
        let target = of_claim("data", "data", args);
        at(repo, &configuration(name, &target, "")).replace("{name: keep, keepLast: 5, prune: true}", retention)
    };
    let (gold, plain) = (format!("{repo}-gold"), format!("{repo}-plain"));
    let all = "{name: all, prune: false}";
    site.create(&at(repo, &configuration(&format!("{repo}-other"), &of_claim("other", "data", ""), ""))).await;
    run(site, &format!("{repo}-other"), &format!("{repo}-o1")).await;
    run(site, &format!("{repo}-other"), &format!("{repo}-o2")).await;
    site.create(&of(&gold, all, ", args: ['--tag=gold']")).await;
    run(site, &gold, &format!("{repo}-g1")).await;
    site.delete("BackupConfiguration", &gold).await;
    site.create(&of(&plain, "{name: dry, keepLast: 1, keepTags: [gold], prune: true, dryRun: true}", "")).await;
    // Its host belonged to the deleted configuration, whose deletion is not seen everywhere at once.
    site.until("BackupConfiguration", &plain, 30, "ready", |c| phase(c) == "Ready").await;
    for n in ["p1", "p2"] {
        run(site, &plain, &format!("{repo}-{n}")).await;
    }
    let dry = run(site, &plain, &format!("{repo}-p3")).await;
    let (applied, _, text) = condition(&dry, "RetentionPolicyApplied");
    assert_eq!((applied.as_str(), text.contains("would remove 2 snapshots")), ("True", true), "{text}");
    assert_eq!(hosts(repository), ["data", "data", "data", "data gold", "other", "other"]);
    let wet = serde_json::json!({ "spec": { "retentionPolicy": { "dryRun": false } } });
    site.patch("BackupConfiguration", &plain, wet).await;
    run(site, &plain, &format!("{repo}-p4")).await;
    assert_eq!(hosts(repository), ["data", "data gold", "other", "other"]);
    assert_eq!(site.get("Repository", repo).await["status"]["snapshotsRemovedOnLastCleanup"], 3);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn retention_keeps_tags_and_other_hosts_and_a_dry_run_only_says_in_a_bucket_and_in_a_volume() {
    let site = Site::new("kept").await;
    quick_store(&site).await;
    seed(&site.claim("data").await, 1, 20_000);
    let vault = site.claim("vault").await;
    site.create(&repository_in("volume", "vault")).await;
    let (bucket, volume) = (site.bucket().join("a/b"), vault.join("inner"));
    tokio::join!(kept(&site, "repo", &bucket), kept(&site, "volume", &volume));
}

fn repository_in(name: &str, claim: &str) -> String {
    format!(
        "apiVersion: stash.appscode.com/v1alpha1
kind: Repository
metadata: {{name: {name}}}
spec: {{backend: {{storageSecretName: store, local: {{mountPath: /safe, subPath: inner, persistentVolumeClaim: {{claimName: {claim}}}}}}}}}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn retention_leaves_ordinals_that_are_gone_and_a_host_has_one_invoker() {
    let site = Site::new("shared").await;
    quick_store(&site).await;
    let repository = site.bucket().join("a/b");
    site.create(&stateful_set("db", 2)).await;
    for ordinal in 0..2 {
        seed(&site.folder(&format!("data-db-{ordinal}")).await, ordinal, 10_000);
    }
    let target = "{alias: db, ref: {apiVersion: apps/v1, kind: StatefulSet, name: db}, volumeMounts: [{name: data, mountPath: /data}]}";
    site.create(&configuration("db", target, "").replace("keepLast: 5", "keepLast: 1")).await;
    run(&site, "db", "both-1").await;
    run(&site, "db", "both-2").await;
    assert_eq!(hosts(&repository), ["db-0", "db-1"]);
    site.patch("StatefulSet", "db", serde_json::json!({ "spec": { "replicas": 1 } })).await;
    site.until("StatefulSet", "db", 60, "scaled down", |s| s["status"]["replicas"] == 1).await;
    run(&site, "db", "one-1").await;
    run(&site, "db", "one-2").await;
    assert_eq!(hosts(&repository), ["db-0", "db-1"], "the ordinal that is gone keeps its last");

    // Neither of two claims has an alias, so both are host-0. The configuration that existed first has the name.
    for name in ["left", "right"] {
        seed(&site.claim(name).await, 7, 1_000);
        let target = format!("{{ref: {{apiVersion: v1, kind: PersistentVolumeClaim, name: {name}}}}}");
        site.create(&configuration(name, &target, "").replace("keepLast: 5", "keepLast: 1")).await;
        let phase_is = if name == "left" { "Ready" } else { "Invalid" };
        let made = site.until("BackupConfiguration", name, 30, phase_is, |c| phase(c) == phase_is).await;
        // Times of creation are whole seconds. Of two objects of the same second, chance decides which was first.
        let created: jiff::Timestamp = made["metadata"]["creationTimestamp"].as_str().unwrap().parse().unwrap();
        let passed = async || (jiff::Timestamp::now().as_second() > created.as_second()).then_some(());
        eventually(10, passed).await.expect("a second passes");
    }
    run(&site, "left", "left").await;
    site.create(&backup_session("right", "BackupConfiguration", "right")).await;
    let skipped = site.ended("BackupSession", "right").await;
    let text = condition(&skipped, "BackupSkipped").2;
    assert!(phase(&skipped) == "Skipped" && text.contains("/left") && text.contains("host-0"), "{text}");
    assert_eq!(hosts(&repository), ["db-0", "db-1", "host-0"]);
}

/// Proves: scenario 31.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_failed_backup_is_tried_again_as_a_session_of_its_own() {
    let site = Site::new("retry").await;
    quick_store(&site).await;
    let folder = site.claim("data").await;
    seed(&folder, 1, 1_000);
    let target = of_claim("data", "data", ", paths: [/stash-data/late]");
    let more = "  retryConfig: {maxRetry: 2, delay: 4s}\n  backupHistoryLimit: 5\n";
    site.create(&configuration("data", &target, more)).await;
    site.create(&backup_session("first", "BackupConfiguration", "data")).await;
    site.failed("BackupSession", "first", "PathNotFound").await;
    std::fs::create_dir(folder.join("late")).unwrap();
    std::fs::write(folder.join("late/file"), "here").unwrap();
    let made = eventually(30, async || site.find("BackupSession", "first-retry-1").await).await;
    assert_eq!(made.expect("no retry within 30 s")["spec"]["retryLeft"], 1);
    site.succeeded("BackupSession", "first-retry-1").await;
    let first = site.get("BackupSession", "first").await;
    assert_eq!(first["status"]["retried"], true);
    assert!(site.find("BackupSession", "first-retry-2").await.is_none(), "a success is not tried again");
    assert_eq!(hosts(&site.bucket().join("a/b")), ["data"]);
}

/// Proves: scenario 31.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_backup_is_taken_every_minute_and_old_sessions_go() {
    let site = Site::new("schedule").await;
    quick_store(&site).await;
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
    // A session that a user made stays for a day regardless of the limit, so it is turned into one of the schedule.
    let both = site.list("BackupSession").await;
    assert_eq!(both.len(), 2, "{both:#?}");
    let owner = serde_json::json!([{ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration",
        "name": "data", "uid": invoker["metadata"]["uid"], "controller": true }]);
    site.patch("BackupSession", "by-hand", serde_json::json!({ "metadata": { "ownerReferences": owner } })).await;
    let left = eventually(20, async || {
        let names: Vec<Value> =
            site.list("BackupSession").await.iter().map(|s| s["metadata"]["name"].clone()).collect();
        (names == ["by-hand"]).then_some(())
    });
    assert!(left.await.is_some(), "backupHistoryLimit is 1: {:#?}", site.list("BackupSession").await);
}

/// Proves: scenario 31, defect 15.
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

    let target = of_claim("lost", "data", ", paths: [/stash-data/who, /stash-data/nowhere]");
    site.create(&configuration("lost", &target, "")).await;
    site.create(&backup_session("lost", "BackupConfiguration", "lost")).await;
    let text = site.failed("BackupSession", "lost", "PathNotFound").await;
    assert!(text.contains("/stash-data/nowhere"), "{text}");
    assert_tree(&folder, &want);
}
