//! Missing, wrong or damaged parts: named in status, waited for if they may still come, and never reported as success.

use std::path::Path;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::RwLock;

use super::harness::{Site, condition, phase};
use super::manifests::{LATEST, PASSWORD, claim, deployment, of_claim, repository, restore, secret, store_at};
use super::proxy::Proxy;
use super::store::{
    Small, assert_tree, damage_largest_pack, halve_the_index, locks, prepared, quick_store, remove_largest_pack, seed,
    wipe,
};
use super::support::tree::describe;

/// Read-locked by tests that need the operator's answer or log, write-locked by tests that take the operator away.
pub static WEBHOOK: RwLock<()> = RwLock::const_new(());

/// Asserts that neither password nor key is in anything that a user or another program can read, except Secrets.
pub async fn assert_no_secrets(site: &Site) {
    let mut texts = vec![];
    for kind in ["Pod", "Job", "Event", "Repository", "BackupConfiguration", "BackupBatch", "BackupSession"] {
        texts.push((kind.to_owned(), serde_json::to_string(&site.list(kind).await).unwrap()));
    }
    for kind in ["RestoreSession", "RestoreBatch"] {
        texts.push((kind.to_owned(), serde_json::to_string(&site.list(kind).await).unwrap()));
    }
    for pod in site.list("Pod").await {
        let name = pod["metadata"]["name"].as_str().unwrap();
        if pod["status"]["containerStatuses"][0]["state"]["terminated"].is_object() {
            texts.extend(site.log_of(name).map(|log| (format!("the log of {name}"), log)));
        }
    }
    let _present = WEBHOOK.read().await;
    let of_operator =
        ["--namespace=lifeboat-system", "logs", "--selector=app.kubernetes.io/name=lifeboat", "--tail=-1"];
    texts.push(("the operator's log".to_owned(), site.kubectl(&of_operator)));
    assert!(texts.iter().any(|(what, text)| what.contains("log of") && !text.is_empty()), "no Job left a log");
    for (what, text) in &texts {
        for secret in [PASSWORD, &site.s3("secretKey")] {
            assert!(!text.contains(secret), "{what} shows a secret:\n{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_wrong_password_is_said_once_and_shown_nowhere() {
    let site = Site::new("password").await;
    prepared(&site).await;
    site.create(&secret(&site, "store", "not-the-password", "")).await;
    site.create(&repository(&site, "repo", &site.s3("endpoint"), "a/b")).await;
    let folder = site.claim("data").await;
    let before = describe(&folder);
    site.create(&restore("data", &of_claim("m0", "data", LATEST), "")).await;
    let text = site.failed("RestoreSession", "data", "WrongPassword").await;
    assert!(text.contains("RESTIC_PASSWORD"), "it names the key: {text}");
    assert_eq!(site.jobs("data", "preflight").await.len(), 1, "another try does not mend a password");
    assert_tree(&folder, &before);
    assert_no_secrets(&site).await;
    assert!(!site.kubectl(&["get", "pods,jobs,events,restoresessions", "-o", "yaml"]).contains("not-the-password"));
}

/// Proves: defect 25, scenario 23.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn what_is_missing_is_named_and_waited_for() {
    let site = Site::new("missing").await;
    let trees = prepared(&site).await;
    let waits = async |what: &str, words: &[&str]| {
        let says = |s: &Value| {
            let text = condition(s, "Ready").2;
            phase(s) == "Pending" && words.iter().all(|w| text.contains(w))
        };
        site.until("RestoreSession", "data", 30, &format!("waiting for {what}"), says).await;
    };
    site.create(&restore("data", &of_claim("m0", "data", LATEST), "")).await;
    waits("the Repository", &["Repository", "/repo"]).await;
    site.create(&repository(&site, "repo", &site.s3("endpoint"), "a/b")).await;
    waits("the Secret", &["Secret", "/store"]).await;
    site.create(&secret(&site, "store", PASSWORD, "")).await;
    waits("the target", &["PersistentVolumeClaim/data"]).await;
    // The restore's Job is the first user of the claim, so it binds the claim.
    site.create(&claim("data")).await;
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&site.folder("data").await, &trees[0]);
}

/// Proves: defect 10.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn what_stays_missing_fails_at_the_deadline_by_name() {
    let site = Site::new("deadline").await;
    prepared(&site).await;
    quick_store(&site).await;
    let lonely = repository(&site, "lonely", &site.s3("endpoint"), "a/b")
        .replace("storageSecretName: store", "storageSecretName: absent");
    site.create(&lonely).await;
    site.claim("data").await;
    let target = of_claim("m0", "data", LATEST);
    let late = |name: &str, target: &str, repo: &str| {
        restore(name, target, "  timeOut: 10s\n").replace("{name: repo}", &format!("{{name: {repo}}}"))
    };
    site.create(&late("repository", &target, "nowhere")).await;
    site.create(&late("secret", &target, "lonely")).await;
    site.create(&late("target", &of_claim("m0", "no-claim", LATEST), "repo")).await;
    for (name, missing) in [("repository", "nowhere"), ("secret", "absent"), ("target", "no-claim")] {
        let text = site.failed("RestoreSession", name, "FailedToCompleteWithinDeadline").await;
        assert!(text.contains(missing), "{name}: {text}");
        let session = site.get("RestoreSession", name).await;
        assert_eq!(condition(&session, "DeadlineExceeded").0, "True");
        assert!(site.jobs(name, "restore").await.is_empty());
    }
}

/// Proves: C06.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c06_a_store_that_is_away_is_tried_again_until_the_deadline() {
    let site = Site::new("away").await;
    let trees = prepared(&site).await;
    let (data, late) = (site.claim("data").await, site.claim("late").await);
    let before = seed(&late, 50, 1_000);
    // A port that was free a moment ago: no process listens there.
    let closed = async || {
        let listener = TcpListener::bind(format!("{}:0", site.host_address())).await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let address = closed().await;
    store_at(&site, &format!("http://{address}")).await;
    site.create(&repository(&site, "never", &format!("http://{}", closed().await), "a/b")).await;
    let never = restore("late", &of_claim("m0", "late", LATEST), "  timeOut: 25s\n");
    site.create(&never.replace("{name: repo}", "{name: never}")).await;
    site.create(&restore("data", &of_claim("m0", "data", LATEST), "")).await;

    let tried = |s: &Value| condition(s, "Reconciling").1 == "RepositoryUnreachable";
    site.until("RestoreSession", "data", 60, "tried again", tried).await;
    let _proxy = Proxy::listen(&site, &address).await;
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&data, &trees[0]);

    let text = site.failed("RestoreSession", "late", "RepositoryUnreachable").await;
    assert!(text.contains("deadline") && text.contains("refused"), "{text}");
    let session = site.get("RestoreSession", "late").await;
    assert_eq!(condition(&session, "DeadlineExceeded").0, "True");
    assert!(session["status"]["run"]["steps"][0]["attempt"].as_i64().unwrap() > 1, "{:#}", session["status"]);
    assert_tree(&late, &before);
}

/// Proves: A04.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a04_a_pack_or_an_index_that_is_gone_or_cut_is_damaged_data() {
    for (name, harm) in [("a04-missing", remove_largest_pack as fn(&Path)), ("a04-index", halve_the_index)] {
        let site = Site::new(name).await;
        prepared(&site).await;
        harm(&site.bucket());
        quick_store(&site).await;
        site.claim("data").await;
        site.create(&restore("data", &of_claim("m1", "data", LATEST), "")).await;
        let text = site.failed("RestoreSession", "data", "DataCorrupt").await;
        assert!(text.contains("restic check"), "{name}: it says what to do: {text}");
        assert!(site.jobs("data", "restore").await.len() <= 1, "{name}: damaged data is not tried again");
    }
}

/// Proves: A04.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a04_damaged_data_is_never_a_success() {
    let site = Site::new("a04").await;
    let trees = prepared(&site).await;
    damage_largest_pack(&site.bucket());
    quick_store(&site).await;
    let folder = site.claim("data").await;
    site.create(&restore("data", &of_claim("m1", "data", LATEST), "")).await;
    let text = site.failed("RestoreSession", "data", "DataCorrupt").await;
    assert!(text.contains("host m1"), "{text}");
    let session = site.get("RestoreSession", "data").await;
    let (planned, restored) = (&session["status"]["stats"][0]["planned"], &session["status"]["stats"][0]["restored"]);
    assert!(restored["bytes"].as_i64() < planned["bytes"].as_i64(), "what was saved is counted: {session:#}");
    assert_eq!(site.jobs("data", "restore").await.len(), 1, "damaged data is not tried again");
    assert_eq!(describe(&folder).get("./who"), trees[1].get("./who"), "what is whole is restored");
    assert_no_secrets(&site).await;
}

/// Proves: A05.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a05_a_volume_that_somebody_fills_in_the_middle_ends_the_restore_with_true_counts() {
    let site = Site::new("a05-race").await;
    prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    let small = Small::new(&site, "16m").await;
    site.create(&deployment("web", 1, &[("small", "/srv")])).await;
    site.until("Deployment", "web", 60, "available", |d| d["status"]["availableReplicas"] == 1).await;
    let target = format!(
        "{{alias: m1, ref: {{apiVersion: apps/v1, kind: Deployment, name: web}}, \
         volumeMounts: [{{name: small, mountPath: /stash-data}}]{LATEST}}}"
    );
    proxy.hold_after(1_000_000);
    site.create(&restore("web", &target, "")).await;
    proxy.held().await;
    small.fill();
    proxy.release();
    let text = site.failed("RestoreSession", "web", "NoSpace").await;
    assert!(text.contains("host m1"), "{text}");
    let session = site.get("RestoreSession", "web").await;
    let host = &session["status"]["stats"][0];
    assert_eq!((&host["phase"], &host["attempt"]), (&"Failed".into(), &1.into()), "{host:#}");
    let (planned, restored) = (&host["planned"]["bytes"], &host["restored"]["bytes"]);
    assert!(planned.as_i64().unwrap() > 3_000_000, "{host:#}");
    assert!(restored.as_i64().unwrap_or_default() < planned.as_i64().unwrap(), "it is not called whole: {host:#}");
    assert_eq!(site.jobs("web", "restore").await.len(), 1, "a volume does not grow by trying again");
    assert_eq!(condition(&session, "Quiesced").1, "HeldDown");
    let web = site.get("Deployment", "web").await;
    assert_eq!(web["spec"]["replicas"], 0, "its data is half restored");
    assert!(web["metadata"]["annotations"]["lifeboat.stash.appscode.com/held-down"].is_string(), "{web:#}");
}

/// Proves: C10, defect 11, invented 12.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn c10_a_prune_at_work_is_waited_for_and_the_lock_of_a_dead_command_is_not() {
    let site = Site::new("c10").await;
    let trees = prepared(&site).await;
    quick_store(&site).await;
    let folder = site.claim("data").await;
    let untouched = describe(&folder);
    let proxy = Proxy::start(&site).await;
    // A pack that loses a part of its data: prune reads the rest and packs it anew.
    let (own, endpoint) = (tempfile::tempdir().unwrap(), site.s3("endpoint"));
    seed(own.path(), 9, 2_000_000);
    for _ in 0..2 {
        let taken = site.restic(&endpoint).args(["backup", "--quiet", "--host", "own"]).arg(own.path()).status();
        assert!(taken.await.unwrap().success());
        std::fs::remove_dir_all(own.path().join("deep")).unwrap();
        std::fs::create_dir(own.path().join("deep")).unwrap();
    }
    proxy.hold_after(500_000);
    let prune = ["forget", "--host", "own", "--keep-last", "1", "--prune", "--max-unused", "0"];
    let mut prune = site.restic(&proxy.endpoint).args(prune).spawn().unwrap();
    proxy.held().await;
    assert_eq!(locks(&site), 1);
    site.create(&restore("data", &of_claim("m1", "data", LATEST), "")).await;
    let waits = |s: &Value| condition(s, "Reconciling").1 == "RepositoryLocked";
    let session = site.until("RestoreSession", "data", 60, "waiting for the prune", waits).await;
    assert!(
        condition(&session, "Ready").2.contains("never removes the lock of a running command"),
        "{:#}",
        session["status"]
    );
    assert!(session["status"]["stats"][0]["snapshots"].is_null(), "nothing is chosen while data goes");
    assert!(site.jobs("data", "restore").await.is_empty());
    assert_tree(&folder, &untouched);
    proxy.release();
    let ended = prune.wait().await.unwrap();
    assert!(ended.success(), "the prune failed under the restore: {ended}");
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &trees[1]);

    // A reader that dies leaves a lock, which says that the reader may still read.
    proxy.hold_after(500_000);
    let mut dump = site.restic(&proxy.endpoint).args(["dump", "--host", "m1", "latest", "/"]).spawn().unwrap();
    proxy.held().await;
    dump.kill().await.unwrap();
    proxy.release();
    assert_eq!(locks(&site), 1, "killed, it leaves its lock");
    wipe(&folder);
    site.create(&restore("again", &of_claim("m1", "data", LATEST), "")).await;
    site.succeeded("RestoreSession", "again").await;
    assert_tree(&folder, &trees[1]);
    assert_eq!(locks(&site), 1, "nobody's lock is removed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_wrong_object_is_denied_and_one_that_is_not_supported_warned_about() {
    let site = Site::new("admission").await;
    let _present = WEBHOOK.read().await;
    let wrong = restore("wrong", &of_claim("m0", "data", ", rules: [{paths: [relative]}]"), "");
    let refusal = site.try_create(&wrong).await.expect_err("a relative path was accepted").to_string();
    assert!(refusal.contains("spec.target.rules[0].paths[0]"), "{refusal}");
    assert!(site.find("RestoreSession", "wrong").await.is_none());

    let binding = "{ref: {apiVersion: appcatalog.appscode.com/v1alpha1, kind: AppBinding, name: db}, rules: [{snapshots: [latest]}]}";
    let mongodb = restore("mongodb", binding, "  task: {name: mongodb-restore-4.4.6}\n");
    let said = site.apply_by_kubectl(&mongodb);
    assert!(said.contains("Warning:") && said.contains("spec.task.name"), "{said}");
    let session = site.ended("RestoreSession", "mongodb").await;
    assert_eq!(phase(&session), "Invalid");
    let (ready, reason, text) = condition(&session, "Ready");
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "NotSupported"));
    assert!(text.contains("spec.task.name"), "it names the field: {text}");
    assert!(site.jobs_of_sessions().await.is_empty());
}
