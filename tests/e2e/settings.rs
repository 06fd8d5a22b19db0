//! Settings of the Jobs' pods, checked in the pod and in its process, and the limits that a namespace sets for them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use serde_json::{Value, json};

use super::harness::{Site, eventually};
use super::manifests::{LATEST, deployment, of_claim, restore};
use super::proxy::Proxy;
use super::store::{Tree, assert_tree, back_up, files, prepared, prepared_behind_a_proxy, quick_store, seed, wipe};
use super::support::tree::describe;

async fn enforce(site: &Site, level: &str) {
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": level } } });
    site.patch("Namespace", &site.namespace, label).await;
}

/// Proves: A09, A01.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a09_where_baseline_is_enforced_owners_are_kept() {
    let site = Site::new("a09-baseline").await;
    enforce(&site, "baseline").await;
    quick_store(&site).await;
    let folder = site.claim("data").await;
    seed(&folder, 7, 50_000);
    for (file, owner, mode) in [("who", 1234, 0o4711), ("deep/er/1.txt", 4321, 0o400), ("deep", 33, 0o2750)] {
        chown(folder.join(file), Some(owner), Some(owner + 1)).unwrap();
        fs::set_permissions(folder.join(file), PermissionsExt::from_mode(mode)).unwrap();
    }
    let want = describe(&folder);
    back_up(&site, "data", &of_claim("app", "data", "")).await;
    wipe(&folder);
    site.create(&restore("data", &of_claim("app", "data", LATEST), "")).await;
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &want);
}

/// Proves: A09.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a09_where_restricted_is_enforced_nothing_is_touched_unless_owners_may_be_ignored() {
    let site = Site::new("a09-restricted").await;
    let trees = prepared(&site).await;
    quick_store(&site).await;
    let folder = site.claim("web").await;
    site.create(&deployment("web", 2, &[("web", "/srv")])).await;
    site.until("Deployment", "web", 60, "available", |d| d["status"]["availableReplicas"] == 2).await;
    // Pods that run when the label is set go on running. A pod that is scaled down would not come back.
    enforce(&site, "restricted").await;
    let untouched = describe(&folder);
    let of_web = async || {
        let all = site.list("Pod").await;
        let uids =
            all.iter().filter(|p| p["metadata"]["labels"]["app"] == "web").map(|p| p["metadata"]["uid"].to_string());
        let mut uids: Vec<String> = uids.collect();
        uids.sort();
        (uids, site.get("Deployment", "web").await["metadata"]["generation"].clone())
    };
    let before = of_web().await;
    let target = format!(
        "{{alias: m0, ref: {{apiVersion: apps/v1, kind: Deployment, name: web}}, \
         volumeMounts: [{{name: web, mountPath: /stash-data}}]{LATEST}}}"
    );
    site.create(&restore("web", &target, "")).await;
    let text = site.failed("RestoreSession", "web", "OwnershipNotPossible").await;
    assert!(text.contains("restricted") && text.contains("ownership: Ignore"), "{text}");
    assert!(site.jobs("web", "restore").await.is_empty());
    assert_eq!(of_web().await, before, "the workload was never scaled");
    assert_tree(&folder, &untouched);

    let other = site.claim("other").await;
    fs::set_permissions(&other, PermissionsExt::from_mode(0o777)).unwrap();
    let ignore = format!("{LATEST}, ownership: Ignore");
    site.create(&restore("other", &of_claim("m0", "other", &ignore), "")).await;
    site.succeeded("RestoreSession", "other").await;
    let have = describe(&other);
    assert_eq!(contents(&have), contents(&trees[0]));
    assert!(have["./who"].contains("65532"), "{}", have["./who"]);
}

/// Each file and its content.
fn contents(tree: &Tree) -> BTreeMap<&str, &str> {
    files(tree).into_iter().map(|path| (path, tree[path].split("sha256=").nth(1).unwrap())).collect()
}

/// A restore of m1 that is held in the middle of its data. Gives the process id of its restic on the host.
async fn caught(site: &Site, proxy: &Proxy, more: &str) -> String {
    proxy.hold_after(1_000_000);
    site.create(&restore("data", &of_claim("m1", "data", LATEST), more)).await;
    proxy.held().await;
    let pod = site.running("data", "restore").await;
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let found = eventually(30, async || {
        let numbers = fs::read_dir("/proc").unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        let mut numbers = numbers.filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
        numbers.find(|n| {
            let read = |what: &str| fs::read_to_string(format!("/proc/{n}/{what}")).unwrap_or_default();
            read("comm").trim() == "restic" && read("cgroup").replace('_', "-").contains(uid)
        })
    });
    found.await.unwrap_or_else(|| panic!("no restic of pod {uid} runs"))
}

/// Options of the file system that a process has mounted at `place`.
fn mounted(pid: &str, place: &str) -> Option<String> {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    mounts.lines().find(|l| l.split(' ').nth(4) == Some(place)).map(|l| l.split(" - ").nth(1).unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn nice_ionice_and_the_scratch_volume_are_those_of_the_process() {
    let (site, trees, proxy) = prepared_behind_a_proxy("priority").await;
    let folder = site.claim("data").await;
    let more = "  runtimeSettings: {container: {nice: {adjustment: 7}, ionice: {class: 2, classData: 6}}}
  tempDir: {medium: Memory, sizeLimit: 48Mi}
";
    let pid = caught(&site, &proxy, more).await;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The 19th field; the second field, in parentheses, may hold spaces.
    let nice = stat.rsplit(')').next().unwrap().split_whitespace().nth(16);
    assert_eq!(nice, Some("7"), "{stat}");
    let ionice = Command::new("ionice").args(["-p", &pid]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ionice.stdout).trim(), "best-effort: prio 6");
    let scratch = mounted(&pid, "/lifeboat/work").expect("no scratch volume");
    assert!(scratch.starts_with("tmpfs") && scratch.contains("size=49152k"), "{scratch}");
    proxy.release();
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &trees[1]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn an_interim_volume_holds_the_cache_and_goes_with_the_session() {
    let (site, trees, proxy) = prepared_behind_a_proxy("interim").await;
    let folder = site.claim("data").await;
    let more = "  interimVolumeTemplate:
    metadata: {name: room, labels: {team: blue}}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
";
    let pid = caught(&site, &proxy, more).await;
    assert!(mounted(&pid, "/stash-interim-volume").is_some());
    let claims = site.list("PersistentVolumeClaim").await;
    let made: Vec<&Value> = claims.iter().filter(|c| c["metadata"]["labels"]["team"] == "blue").collect();
    let [room] = made.as_slice() else { panic!("{} claims were made", made.len()) };
    let name = room["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("data-room"), "{name}");
    let held = describe(&site.folder(name).await);
    assert!(files(&held).iter().any(|f| f.contains("/index/")), "the cache is not there: {:?}", files(&held));
    proxy.release();
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &trees[1]);
    assert!(site.find("PersistentVolumeClaim", name).await.is_some(), "it stays as long as the session");
    site.leaves_nothing().await;
    assert!(site.find("PersistentVolumeClaim", name).await.is_none());
    assert_tree(&folder, &trees[1]);
}
