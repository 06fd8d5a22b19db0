//! A Repository of another namespace: used as its owner allows, with a right that ends with the run.

use hyper::header::{HeaderName, HeaderValue};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams};
use kube::config::AuthInfo;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::harness::{Site, condition, eventually, phase};
use super::manifests::{LATEST, backup_session, configuration, of_claim, repository, restore};
use super::proxy::Proxy;
use super::store::{assert_tree, prepared, quick_store, seed};

/// Lets namespaces use the Repository.
pub async fn allow(home: &Site, name: &str, allowed: Value) {
    let policy = json!({ "spec": { "usagePolicy": { "allowedNamespaces": allowed } } });
    home.patch("Repository", name, policy).await;
}

/// A manifest that names the Repository of another namespace.
pub fn of(home: &Site, name: &str, yaml: &str) -> String {
    yaml.replace("{name: repo}", &format!("{{name: {name}, namespace: {}}}", home.namespace))
}

/// A client that authenticates with this token only.
pub async fn as_bearer(token: &str) -> Client {
    let mut config = kube::Config::infer().await.unwrap();
    config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
    // `afterwards` uses this header to tell the client's requests from those of the account's Job.
    config.headers.push((HeaderName::from_static("user-agent"), HeaderValue::from_static("lifeboat-test")));
    Client::try_from(config).unwrap()
}

pub fn code<T>(answer: kube::Result<T>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(other) => panic!("{other}"),
    }
}

/// Rights that Jobs were given in a namespace and that still exist.
async fn rights(site: &Site) -> Vec<String> {
    let mut all = vec![];
    for kind in ["ServiceAccount", "Role", "RoleBinding"] {
        // Excludes the rights of the Repository itself, which may list its Snapshots at any time.
        let ours = |o: &Value| {
            let labels = &o["metadata"]["labels"];
            labels["app.kubernetes.io/managed-by"] == "stash.appscode.com"
                && labels["lifeboat.stash.appscode.com/session-kind"] != "Repository"
        };
        let found = site.list(kind).await.into_iter().filter(ours);
        all.extend(found.map(|o| format!("{kind} {}", o["metadata"]["name"].as_str().unwrap())));
    }
    all
}

pub async fn no_rights_left(sites: [&Site; 2]) {
    for site in sites {
        let gone = eventually(15, async || rights(site).await.is_empty().then_some(())).await;
        assert!(gone.is_some(), "left in {}: {:?}", site.namespace, rights(site).await);
    }
}

/// Proves: A07, scenario 21, scenario 22, invented 20.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a07_who_is_not_allowed_is_told_and_follows_the_policy_and_the_label() {
    let (home, site) = (Site::new("a07-home").await, Site::new("a07").await);
    let trees = prepared(&home).await;
    let folder = site.claim("m0").await;
    // The session comes before its Repository, as may happen if both are applied at once: admission has nothing to
    // check.
    site.create(&of(&home, "repo", &restore("m0", &of_claim("m0", "m0", LATEST), ""))).await;
    quick_store(&home).await;
    let told = {
        format!(
            "Repository {0}/repo does not exist, or its usagePolicy does not allow namespace {1}. Its owner can create it, or change its spec.usagePolicy.allowedNamespaces.",
            home.namespace, site.namespace
        )
    };
    let invalid = async |text: String| {
        let is = |s: &Value| {
            phase(s) == "Invalid"
                && condition(s, "Ready") == ("False".into(), "RepositoryNotAllowed".into(), text.clone())
        };
        let session = site.until("RestoreSession", "m0", 30, &text, is).await;
        assert_eq!(condition(&session, "RepositoryFound").2, text);
    };
    invalid(told.clone()).await;
    allow(&home, "repo", json!({ "from": "Selector", "selector": { "matchLabels": { "team": "a" } } })).await;
    invalid(told).await;
    assert!(
        site.jobs_of_sessions().await.is_empty() && rights(&home).await.is_empty() && rights(&site).await.is_empty()
    );

    site.patch("Namespace", &site.namespace, json!({ "metadata": { "labels": { "team": "a" } } })).await;
    site.until("RestoreSession", "m0", 60, "begun", |s| phase(s) != "Invalid").await;
    site.succeeded("RestoreSession", "m0").await;
    assert_tree(&folder, &trees[0]);
    no_rights_left([&home, &site]).await;
}

/// Proves: A07.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a07_a_right_is_for_one_secret_and_goes_with_the_run_even_when_it_is_deleted() {
    let (home, site) = (Site::new("a07-right-home").await, Site::new("a07-right").await);
    let trees = prepared(&home).await;
    quick_store(&home).await;
    let proxy = Proxy::start(&home).await;
    home.create(&repository(&home, "held", &proxy.endpoint, "a/b")).await;
    home.kubectl(&["create", "secret", "generic", "other", "--from-literal=a=b"]);
    allow(&home, "held", json!({ "from": "All" })).await;
    let folder = site.claim("m1").await;
    proxy.hold_after(1_000_000);
    site.create(&of(&home, "held", &restore("m1", &of_claim("m1", "m1", LATEST), ""))).await;
    proxy.held().await;

    let job = site.jobs("m1", "restore").await.remove(0);
    let account = job["spec"]["template"]["spec"]["serviceAccountName"].as_str().unwrap();
    let token = site.kubectl(&["create", "token", account]);
    let secrets: Api<Secret> = Api::namespaced(as_bearer(token.trim()).await, &home.namespace);
    let store = secrets.get("store").await.unwrap().data.unwrap();
    assert_eq!(store["RESTIC_PASSWORD"].0, super::manifests::PASSWORD.as_bytes());
    assert_eq!(code(secrets.get("other").await), 403);
    assert_eq!(code(secrets.list(&ListParams::default()).await), 403);
    assert_eq!(code(secrets.delete("store", &DeleteParams::default()).await), 403);
    let pods: Api<Pod> = Api::namespaced(as_bearer(token.trim()).await, &site.namespace);
    assert_eq!(code(pods.list(&ListParams::default()).await), 403);
    // The Job has the password, but its objects do not show it.
    for shown in [job.to_string(), site.kubectl(&["get", "pods,jobs,restoresessions", "-o", "yaml"])] {
        assert!(!shown.contains(super::manifests::PASSWORD));
    }

    site.delete("RestoreSession", "m1").await;
    let gone = eventually(60, async || site.find("RestoreSession", "m1").await.is_none().then_some(())).await;
    assert!(gone.is_some(), "still there: {:#}", site.get("RestoreSession", "m1").await);
    assert!(rights(&home).await.is_empty(), "rights go before the session does: {:?}", rights(&home).await);
    no_rights_left([&home, &site]).await;

    proxy.release();
    site.create(&of(&home, "held", &restore("again", &of_claim("m1", "m1", LATEST), ""))).await;
    site.succeeded("RestoreSession", "again").await;
    assert_tree(&folder, &trees[1]);
    let log = site.kubectl(&["logs", "--selector", "lifeboat.stash.appscode.com/session-kind", "--tail", "-1"]);
    assert!(log.contains("read the backend Secret") && !log.contains(super::manifests::PASSWORD), "{log}");
    no_rights_left([&home, &site]).await;
}

/// Proves: A07, scenario 21.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a07_a_backup_goes_to_a_repository_of_another_namespace_and_comes_back() {
    let (home, site) = (Site::new("a07-backup-home").await, Site::new("a07-backup").await);
    let folder = site.claim("data").await;
    let tree = seed(&folder, 7, 50_000);
    let target = of_claim("data", "data", "");
    site.create(&of(&home, "repo", &configuration("data", &target, ""))).await;
    quick_store(&home).await;
    let denied = |c: &Value| phase(c) == "NotReady" && condition(c, "Stalled").1 == "RepositoryNotAllowed";
    site.until("BackupConfiguration", "data", 30, "not allowed", denied).await;
    site.create(&backup_session("early", "BackupConfiguration", "data")).await;
    let text = site.failed("BackupSession", "early", "RepositoryNotAllowed").await;
    assert!(text.contains(&format!("does not allow namespace {}", site.namespace)), "{text}");

    allow(&home, "repo", json!({ "from": "All" })).await;
    site.until("BackupConfiguration", "data", 30, "Ready", |c| phase(c) == "Ready").await;
    site.create(&backup_session("first", "BackupConfiguration", "data")).await;
    site.succeeded("BackupSession", "first").await;
    let known = home.until("Repository", "repo", 30, "counted", |r| r["status"]["snapshotCount"] == 1).await;
    assert_eq!(known["status"]["references"][0]["namespace"], site.namespace.as_str());
    no_rights_left([&home, &site]).await;
    let copy = site.claim("copy").await;
    site.create(&of(&home, "repo", &restore("copy", &of_claim("data", "copy", LATEST), ""))).await;
    site.succeeded("RestoreSession", "copy").await;
    assert_tree(&copy, &tree);
    no_rights_left([&home, &site]).await;
}
