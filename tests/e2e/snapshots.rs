//! Snapshot objects match the repository, whichever program changes it.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use super::harness::{Site, condition, eventually};
use super::manifests::{PASSWORD, backup_session, configuration, of_claim, secret, store};
use super::store::seed;

/// Full ids of the Snapshots that a selector finds.
fn listed(site: &Site, selector: &str) -> BTreeSet<String> {
    let text = site.kubectl(&["get", "snapshots", "--selector", selector, "--output", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    let id = |s: &Value| s["status"]["id"].as_str().unwrap_or_default().to_owned();
    list["items"].as_array().unwrap().iter().map(id).collect()
}

/// Full ids of the snapshots, listed by restic on the host.
fn held(site: &Site, words: &[&str]) -> BTreeSet<String> {
    let list: Value = serde_json::from_str(&restic(site, &[&["snapshots", "--json"], words].concat())).unwrap();
    list.as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
}

fn restic(site: &Site, words: &[&str]) -> String {
    let bucket = site.bucket();
    let repository = format!("s3:{}/{}/a/b", site.s3("endpoint"), bucket.file_name().unwrap().to_str().unwrap());
    let out = Command::new("restic")
        .env("RESTIC_PASSWORD", PASSWORD)
        .env("AWS_ACCESS_KEY_ID", site.s3("accessKey"))
        .env("AWS_SECRET_ACCESS_KEY", site.s3("secretKey"))
        .env("RESTIC_REPOSITORY", repository)
        .args(["--no-cache"])
        .args(words)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Asks for a sync, and waits until it is answered.
async fn sync(site: &Site, name: &str, request: &str) -> Value {
    let note = json!({ "metadata": { "annotations": { "lifeboat.stash.appscode.com/sync": request } } });
    site.patch("Repository", name, note).await;
    site.until("Repository", name, 60, "synced", |r| r["status"]["sync"]["request"] == request).await
}

async fn until_listed(site: &Site, selector: &str, count: usize) -> BTreeSet<String> {
    // An object is created before its status: an object without an id is not yet complete.
    let whole = |l: &BTreeSet<String>| l.len() == count && !l.contains("");
    let found = eventually(60, async || Some(listed(site, selector)).filter(whole)).await;
    found.unwrap_or_else(|| {
        panic!("{selector}: {:?}; {:#?}", listed(site, selector), site.kubectl(&["get", "repository", "-o", "yaml"]))
    })
}

async fn back_up_again(site: &Site, session: &str, invoker: &str) {
    site.create(&backup_session(session, "BackupConfiguration", invoker)).await;
    site.succeeded("BackupSession", session).await;
}

/// Proves: scenario 30.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn snapshots_are_those_of_the_repository_whoever_changes_it() {
    let site = Site::new("snapshots").await;
    store(&site).await;
    site.patch(
        "Repository",
        "repo",
        json!({ "metadata": { "labels": { "team": "a", "app.kubernetes.io/instance": "x" } } }),
    )
    .await;
    for host in ["one", "two"] {
        seed(&site.claim(host).await, 1, 10_000);
        site.create(&configuration(host, &of_claim(host, host, ""), "")).await;
        back_up_again(&site, host, host).await;
    }
    // Snapshots are listed after backups, without a request.
    until_listed(&site, "repository=repo", 2).await;
    back_up_again(&site, "again", "two").await;
    assert_eq!(until_listed(&site, "repository=repo", 3).await, held(&site, &[]));
    assert_eq!(listed(&site, "hostname=two"), held(&site, &["--host", "two"]));
    assert_eq!(listed(&site, "hostname=one,team=a").len(), 1);

    for snapshot in site.list("Snapshot").await {
        let (name, id) = (snapshot["metadata"]["name"].as_str().unwrap(), snapshot["status"]["id"].as_str().unwrap());
        assert_eq!(name, format!("repo-{}", &id[..8]));
        assert_eq!(snapshot["metadata"]["ownerReferences"][0]["name"], "repo");
        assert!(snapshot["metadata"]["labels"]["app.kubernetes.io/instance"].is_null(), "{snapshot:#}");
        assert_eq!(snapshot["status"]["paths"], json!(["/stash-data"]));
        assert!(
            snapshot["status"]["tree"].as_str().is_some_and(|t| t.len() == 64)
                && snapshot["status"]["time"].is_string()
        );
    }

    // A user forgets one snapshot, and deletes an object whose snapshot still exists.
    let one = held(&site, &["--host", "one"]).pop_first().unwrap();
    restic(&site, &["forget", &one]);
    let left = held(&site, &[]).pop_first().unwrap();
    site.delete("Snapshot", &format!("repo-{}", &left[..8])).await;
    let repository = sync(&site, "repo", "please").await;
    assert_eq!(listed(&site, "repository=repo"), held(&site, &[]));
    assert_eq!(held(&site, &[]).len(), 2, "an object that goes takes no data with it");
    assert_eq!(
        (condition(&repository, "SnapshotsSynced").0.as_str(), &repository["status"]["snapshotCount"]),
        ("True", &json!(2))
    );

    // Nothing is left of the Job and its rights, and the objects go with the Repository.
    let clean = eventually(30, async || {
        let jobs = site
            .list("Job")
            .await
            .into_iter()
            .filter(|j| j["metadata"]["labels"]["app.kubernetes.io/component"] == "stash-repository")
            .count();
        let ours = |o: &Value| o["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "stash.appscode.com";
        let mut rights = 0;
        for kind in ["ServiceAccount", "Role", "RoleBinding"] {
            rights += site.list(kind).await.iter().filter(|o| ours(o)).count();
        }
        (jobs + rights == 0).then_some(())
    });
    assert!(clean.await.is_some(), "{}", site.kubectl(&["get", "jobs,serviceaccounts,roles,rolebindings"]));
    for host in ["one", "two"] {
        site.delete("BackupConfiguration", host).await;
    }
    site.delete("Repository", "repo").await;
    let gone = eventually(60, async || site.list("Snapshot").await.is_empty().then_some(())).await;
    assert!(gone.is_some(), "{:#?}", site.list("Snapshot").await);
}

/// Proves: scenario 30.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn snapshots_of_a_repository_on_a_volume_and_of_none() {
    let site = Site::new("snapshots-local").await;
    site.create(&secret(&site, "store", PASSWORD, "")).await;
    site.claim("safe").await;
    site.create(
        "apiVersion: stash.appscode.com/v1alpha1
kind: Repository
metadata: {name: repo}
spec:
  backend:
    local: {mountPath: /safe, persistentVolumeClaim: {claimName: safe}}
    storageSecretName: store
",
    )
    .await;
    let empty = site.until("Repository", "repo", 60, "synced", |r| condition(r, "SnapshotsSynced").0 == "True").await;
    assert_eq!(empty["status"]["snapshotCount"], 0, "where there is no repository there are no snapshots");
    seed(&site.claim("data").await, 1, 10_000);
    site.create(&configuration("data", &of_claim("data", "data", ""), "")).await;
    back_up_again(&site, "first", "data").await;
    until_listed(&site, "repository=repo,hostname=data", 1).await;
}
