//! Repositories on a real node: a store outage under many sessions, data deleted on request, a deleted namespace.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::harness::{Site, condition, eventually, phase};
use super::manifests::{LATEST, backup_session, claim, configuration, of_claim, repository, restore, store_at};
use super::proxy::Proxy;
use super::store::{assert_tree, back_up, prepared, quick_store, seed};

/// The value that `tests/with-cluster` sets for the operator.
const PROBE_INTERVAL: u64 = 10;
/// Number of sessions of the incident.
const SESSIONS: usize = 31;
/// Number of Jobs on one Repository at once, also set there.
const AT_ONCE: i64 = 6;

/// Number of attempts at a step that belongs to no host.
fn attempts(object: &Value, steps: &str, name: &str) -> i64 {
    let all = object.pointer(steps).and_then(Value::as_array).cloned().unwrap_or_default();
    all.iter().find(|s| s["name"] == name).and_then(|s| s["attempt"].as_i64()).unwrap_or(1)
}

/// The incident behind C06, with a shorter outage and a shorter time between probes.
/// Proves: C06.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c06_thirty_one_restores_outlive_a_store_that_is_away() {
    let site = Site::new("outage").await;
    let trees = prepared(&site).await;
    // A port that was free a moment ago: no process listens there.
    let listener = TcpListener::bind(format!("{}:0", site.host_address())).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    store_at(&site, &format!("http://{address}")).await;
    let names: Vec<String> = (0..SESSIONS).map(|n| format!("d{n}")).collect();
    let began = Instant::now();
    for name in &names {
        site.create(&claim(name)).await;
        site.create(&restore(name, &of_claim("m0", name, LATEST), "  timeOut: 30m\n")).await;
    }
    let silent = |r: &Value| condition(r, "Reachable").0 == "False";
    site.until("Repository", "repo", 60, "known to be away", silent).await;
    let known = Instant::now();
    for name in &names {
        let waits = |s: &Value| condition(s, "Reconciling").1 == "RepositoryUnreachable";
        site.until("RestoreSession", name, 60, "waiting for the store", waits).await;
    }
    let asked = |r: &Value| attempts(r, "/status/steps", "probe") > 4;
    site.until("Repository", "repo", 120, "asked four times in vain", asked).await;
    let (outage, probes) =
        (known.elapsed().as_secs(), attempts(&site.get("Repository", "repo").await, "/status/steps", "probe"));
    let _proxy = Proxy::listen(&site, &address).await;
    let back = Instant::now();
    // The probe that detected the outage had begun before it was known.
    let most = i64::try_from(outage / PROBE_INTERVAL).unwrap() + 2;
    assert!(probes - 1 <= most, "{probes} probes in {outage} s");
    site.until("Repository", "repo", 60, "back", |r| condition(r, "Reachable").0 == "True").await;
    let (noticed, on) = (back.elapsed(), Instant::now());
    let mut in_vain = 0;
    for (name, tree) in names.iter().zip(std::iter::repeat(&trees[0])) {
        let over = |s: &Value| ["Succeeded", "Failed", "Invalid"].contains(&phase(s));
        let session = site.until("RestoreSession", name, 480, "over", over).await;
        assert_eq!(phase(&session), "Succeeded", "{name}: {:#}", session["status"]);
        in_vain += attempts(&session, "/status/run/steps", "preflight") - 1;
        assert_tree(&site.folder(name).await, tree);
    }
    // A report of one session does not block the Repository: other sessions go on until the Repository's own probe.
    assert!(in_vain <= 3 * AT_ONCE, "{in_vain} Jobs of sessions went to a store that was away");
    println!(
        "outage {outage} s, {} probes, {in_vain} Jobs in vain, noticed after {noticed:.1?}, all over {:.1?} after that; {:.1?} in all",
        probes - 1,
        on.elapsed(),
        began.elapsed()
    );
}

/// Number of files below a folder of the bucket.
fn files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.map(|e| e.unwrap().path()).map(|p| if p.is_dir() { files(&p) } else { 1 }).sum()
}

/// Proves: scenario 29.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn data_goes_with_its_repository_on_request_and_a_neighbours_stays() {
    let site = Site::new("wipe").await;
    quick_store(&site).await;
    site.create(&repository(&site, "neighbour", &site.s3("endpoint"), "a/bb")).await;
    let folder = site.claim("data").await;
    let tree = seed(&folder, 1, 20_000);
    let target = of_claim("m0", "data", "");
    back_up(&site, "mine", &target).await;
    site.create(&configuration("theirs", &target, "").replace("{name: repo}", "{name: neighbour}")).await;
    site.create(&backup_session("theirs", "BackupConfiguration", "theirs")).await;
    site.succeeded("BackupSession", "theirs").await;
    let (mine, theirs) = (site.bucket().join("a/b"), site.bucket().join("a/bb"));
    assert!(files(&mine.join("data")) > 0 && files(&mine.join("snapshots")) == 1);
    let before = files(&theirs);

    site.patch("Repository", "repo", json!({ "spec": { "wipeOut": true } })).await;
    site.until("Repository", "repo", 30, "held", |r| r["metadata"]["finalizers"][0].is_string()).await;
    site.delete("Repository", "repo").await;
    let used = |r: &Value| condition(r, "Reconciling").1 == "RepositoryInUse";
    site.until("Repository", "repo", 30, "waiting for its user", used).await;
    assert_eq!(files(&mine.join("snapshots")), 1);
    site.delete("BackupConfiguration", "mine").await;
    site.until("Repository", "repo", 90, "gone", Value::is_null).await;
    assert_eq!((files(&mine.join("data")), files(&mine.join("snapshots")), files(&mine.join("index"))), (0, 0, 0));
    assert!(files(&mine.join("config").with_file_name("keys")) > 0, "an empty repository stays, as documented");
    assert_eq!(files(&theirs), before);
    // The neighbour's data can still be restored.
    super::store::wipe(&folder);
    let from = restore("data", &of_claim("m0", "data", LATEST), "").replace("{name: repo}", "{name: neighbour}");
    site.create(&from).await;
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &tree);
}

/// Proves: C11.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c11_a_namespace_with_a_restore_at_work_can_be_deleted() {
    let site = Site::new("c11").await;
    prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    site.patch("Repository", "repo", json!({ "spec": { "wipeOut": true } })).await;
    site.claim("data").await;
    site.create(&configuration("again", &of_claim("m9", "data", ""), "  schedule: '0 0 1 1 *'\n")).await;
    proxy.hold_after(1_000_000);
    site.create(&restore("data", &of_claim("m1", "data", LATEST), "")).await;
    let held = |r: &Value| r["status"]["references"].as_array().is_some_and(|r| r.len() == 2);
    site.until("Repository", "repo", 30, "used by two", held).await;
    proxy.held().await;
    site.kubectl(&["delete", "namespace", &site.namespace, "--wait=false"]);
    let gone = eventually(90, async || site.find("Namespace", &site.namespace).await.is_none().then_some(()));
    let stays = if gone.await.is_some() { Value::Null } else { site.get("Namespace", &site.namespace).await };
    assert!(stays.is_null(), "the namespace stays: {:#}", stays["status"]);
    assert!(files(&site.bucket().join("a/b/snapshots")) > 0, "nothing is wiped out on the way");
}
