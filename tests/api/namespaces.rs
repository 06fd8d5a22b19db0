//! An operator that is limited to some namespaces: it has the rights of the chart there, and none elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::backups;
use super::cluster::{Cluster, SOON, condition, eventually, message};
use super::installed::{Webhook, of_namespaces};
use super::jobs::{self, ground, session, target};
use super::operator::{Operator, STEADY};

/// The operator checks every ten seconds for a new namespace, and starts its watches after a pause.
const TAKEN_UP: Duration = Duration::from_mins(1);

/// The operator's account and rights, as the chart renders them for two namespaces.
fn rights(cluster: &Cluster, namespaces: [&str; 2]) -> Vec<Value> {
    let mut all = of_namespaces(&cluster.home, namespaces);
    let kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    all.retain(|o| kinds.contains(&o["kind"].as_str().unwrap()));
    assert_eq!(all.len(), 11, "account, three ClusterRoles, their binding, three Roles, their bindings");
    all
}

async fn give(cluster: &Cluster, rights: &[Value]) {
    for object in rights {
        cluster.apply(object).await.unwrap();
    }
}

/// A kubeconfig for the operator's own account, which has only the rights that are bound to it.
fn as_account(cluster: &Cluster, folder: &Path) -> PathBuf {
    let text = fs::read_to_string(std::env::var("KUBECONFIG").unwrap()).unwrap();
    let mut config = lifeboat::yaml::read(&text).unwrap().remove(0);
    config["users"][0]["user"]["as"] = account(cluster).into();
    let path = folder.join("kubeconfig");
    fs::write(&path, config.to_string()).unwrap();
    path
}

fn account(cluster: &Cluster) -> String {
    format!("system:serviceaccount:{}:lifeboat", cluster.home)
}

/// Waits until the API server knows the new rights.
async fn may_read(cluster: &Cluster, namespaces: &[&str]) {
    let user = cluster.as_user(&account(cluster)).await;
    for namespace in namespaces {
        eventually("the rights are known", SOON, || async {
            let api = user.api("stash.appscode.com/v1beta1", "RestoreSession", namespace);
            api.list(&kube::api::ListParams::default()).await.map(|_| ()).map_err(|e| e.to_string())
        })
        .await;
    }
    eventually("the Lease may be read", SOON, || async {
        let api = user.api("coordination.k8s.io/v1", "Lease", &cluster.home);
        api.get_opt("lifeboat").await.map(|_| ()).map_err(|e| e.to_string())
    })
    .await;
}

fn web(ns: &str) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": ns } })
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn it_works_with_the_roles_of_the_chart_and_touches_no_other_namespace() {
    let cluster = Cluster::enter().await;
    let (home, ns) = (cluster.namespace("home").await, cluster.namespace("some").await);
    let other = cluster.namespace_of_others("other").await;
    give(&cluster, &rights(&cluster, [&home, &ns])).await;
    may_read(&cluster, &[&home, &ns]).await;
    for namespace in [&home, &ns, &other] {
        ground(&cluster, namespace, &["a"], &["web"]).await;
    }
    let repository = |ns: &str| {
        json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository",
            "metadata": { "name": "repo", "namespace": ns } })
    };
    for namespace in [&home, &other] {
        let all = json!({ "spec": { "usagePolicy": { "allowedNamespaces": { "from": "All" } } } });
        cluster.patch(&repository(namespace), all).await.unwrap();
    }
    let of_other = session(&other, &target("Deployment", "web"));
    cluster.apply(&of_other).await.unwrap();
    drop(fs::remove_file(Operator::log("test")));
    let folder = tempfile::tempdir().unwrap();
    let _operator = Operator::through(&cluster, &as_account(&cluster, folder.path())).await;

    // A workload is scaled, and a Repository in another watched namespace is used.
    let mut run = session(&ns, &target("Deployment", "web"));
    run["spec"]["repository"]["namespace"] = home.as_str().into();
    cluster.apply(&run).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    let restore = jobs::of_step(&cluster, &ns, "restore/0/web").await;
    assert_eq!(cluster.get(&web(&ns)).await["spec"]["replicas"], 0);
    jobs::end(&cluster, &restore, &jobs::success(&restore)).await;
    cluster.until(&run, "released", |o| o["status"]["phase"] == "Succeeded" && !jobs::is_held(o)).await;
    assert_eq!(cluster.get(&web(&ns)).await["spec"]["replicas"], 2);
    // A backup that a user creates.
    cluster.apply(&backups::configuration(&home, json!({}))).await.unwrap();
    let backup = backups::session(&home, "by-hand");
    cluster.apply(&backup).await.unwrap();
    for step in ["prepare", "backup/", "maintain"] {
        jobs::succeed(&cluster, &home, step).await;
    }
    cluster.until_phase(&backup, "Succeeded").await;

    // For a Repository that the operator does not watch, the session says so and waits: the Repository's owner may
    // still allow it.
    let mut beyond = session(&ns, &target("PersistentVolumeClaim", "a"));
    beyond["metadata"]["name"] = "beyond".into();
    beyond["spec"]["repository"]["namespace"] = other.as_str().into();
    cluster.apply(&beyond).await.unwrap();
    let told = cluster.until(&beyond, "told", |o| condition(o, "RepositoryFound").0 == "Unknown").await;
    let said = message(&told, "RepositoryFound");
    for words in [format!("{other}/repo could not be read"), format!("namespace {other} is not among those")] {
        assert!(said.contains(&words) && message(&told, "Ready").contains(&words), "{told:#}");
    }
    // The operator has not changed objects that it does not watch: session, workload and Repository.
    assert_eq!(cluster.get(&of_other).await.get("status"), None);
    assert!(jobs::all(&cluster, &other).await.is_empty());
    assert_eq!(cluster.get(&web(&other)).await["spec"]["replicas"], 2);
    let left = cluster.get(&repository(&other)).await;
    assert!(left.get("status").is_none() && !jobs::is_held(&left), "{left:#}");
    // None of these requests was refused.
    let log = fs::read_to_string(Operator::log("test")).unwrap();
    assert!(log.contains("leading"), "{log}");
    assert!(!log.to_lowercase().contains("forbidden"), "{log}");
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn it_waits_for_rights_in_a_namespace_and_not_for_one_that_does_not_exist() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("granted").await;
    // Named after a namespace that belongs only to this test.
    let late = format!("late-{}", cluster.home);
    let all = rights(&cluster, [&ns, &late]);
    let is_in = |namespace: &str| {
        let of: Vec<Value> = all.iter().filter(|o| o["metadata"]["namespace"] == namespace).cloned().collect();
        assert!(!of.is_empty());
        of
    };
    let everywhere: Vec<Value> = all.iter().filter(|o| o["metadata"].get("namespace").is_none()).cloned().collect();
    give(&cluster, &everywhere).await;
    give(&cluster, &is_in(&cluster.home)).await;
    may_read(&cluster, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = as_account(&cluster, folder.path());
    let flags = [&STEADY[..], &["--watch-namespaces", late.as_str()]].concat();
    let operator = Operator::start_through(&cluster, &kubeconfig, &flags);
    eventually("it says what it waits for", SOON, || async {
        match operator.page("/readyz").await {
            Some((503, text)) if text.contains("rights in the namespaces") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(!operator.leads().await);

    // The existing namespace is enough.
    give(&cluster, &is_in(&ns)).await;
    operator.leads_within(SOON).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    cluster.apply(&session(&ns, &target("PersistentVolumeClaim", "a"))).await.unwrap();
    jobs::of_step(&cluster, &ns, "preflight").await;
    // The operator starts to work in the other namespace when it exists.
    cluster.ensure_namespace(&late).await;
    give(&cluster, &is_in(&late)).await;
    ground(&cluster, &late, &["a"], &[]).await;
    cluster.apply(&session(&late, &target("PersistentVolumeClaim", "a"))).await.unwrap();
    jobs::of_step_within(&cluster, &late, "preflight", TAKEN_UP).await;
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn its_webhooks_are_asked_about_its_namespaces_alone() {
    let cluster = Cluster::enter().await;
    let (home, ns) = (cluster.namespace("home").await, cluster.namespace("asked").await);
    let other = cluster.namespace_of_others("unasked").await;
    give(&cluster, &rights(&cluster, [&home, &ns])).await;
    may_read(&cluster, &[&home, &ns]).await;
    drop(fs::remove_file(Operator::log("test")));
    let folder = tempfile::tempdir().unwrap();
    let webhook = Webhook::install_through(&cluster, &as_account(&cluster, folder.path())).await;
    let wrong = |ns: &str| {
        let mut object = session(ns, &target("PersistentVolumeClaim", "a"));
        object["spec"]["target"]["rules"] = json!([{ "paths": ["relative"] }]);
        object
    };
    match cluster.try_apply(&wrong(&ns)).await {
        Err(kube::Error::Api(status)) if status.message.contains("denied the request") => {}
        other => panic!("not denied: {other:?}"),
    }
    cluster.try_apply(&wrong(&other)).await.expect("nobody asks about it");
    // The webhook admits a reference to a Repository elsewhere, and the status reports it.
    let mut beyond = session(&ns, &target("PersistentVolumeClaim", "a"));
    beyond["spec"]["repository"]["namespace"] = other.as_str().into();
    let made = cluster.apply(&beyond).await.unwrap();
    let told = cluster.until(&made, "told", |o| condition(o, "RepositoryFound").0 == "Unknown").await;
    assert!(message(&told, "RepositoryFound").contains(&format!("namespace {other} is not among those")), "{told:#}");
    // The webhook seals what runs code, and the operator believes the seal.
    ground(&cluster, &ns, &["b"], &[]).await;
    let mut sealed = session(&ns, &target("PersistentVolumeClaim", "b"));
    sealed["metadata"]["name"] = "sealed".into();
    sealed["spec"]["runtimeSettings"] = json!({ "container": { "env": [{ "name": "A", "value": "b" }] } });
    cluster.apply(&sealed).await.unwrap();
    jobs::of_step(&cluster, &ns, "preflight").await;
    let log = fs::read_to_string(Operator::log("test")).unwrap();
    assert!(log.contains("leading") && !log.to_lowercase().contains("forbidden"), "{log}");
    webhook.remove(&cluster).await;
}

/// A Repository in a namespace that the operator watches, and one elsewhere, with the same data.
async fn sharing(cluster: &Cluster, watched: &str, other: &str) -> Value {
    let repository = |ns: &str| {
        json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository",
            "metadata": { "name": "shared", "namespace": ns },
            "spec": { "wipeOut": ns == watched, "backend": { "storageSecretName": "secret",
                "s3": { "endpoint": "http://store.invalid", "bucket": watched, "prefix": "demo" } } } })
    };
    cluster.apply(&repository(watched)).await.unwrap();
    let elsewhere = cluster.apply(&repository(other)).await.unwrap();
    let opened = json!({ "status": { "firstBackupTime": "2026-11-01T00:00:00Z" } });
    let api = cluster.api_of(&elsewhere);
    api.patch_status("shared", &PatchParams::default(), &Patch::Merge(&opened)).await.unwrap();
    repository(watched)
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn it_removes_no_data_of_a_repository_that_it_does_not_watch() {
    let cluster = Cluster::enter().await;
    let (home, ns) = (cluster.namespace("home").await, cluster.namespace("wiped").await);
    let other = cluster.namespace_of_others("sharing").await;
    let mut all = rights(&cluster, [&home, &ns]);
    give(&cluster, &all).await;
    may_read(&cluster, &[&home, &ns]).await;
    for namespace in [&ns, &other] {
        ground(&cluster, namespace, &[], &[]).await;
    }
    let mine = sharing(&cluster, &ns, &other).await;
    let folder = tempfile::tempdir().unwrap();
    let _operator = Operator::through(&cluster, &as_account(&cluster, folder.path())).await;
    cluster.until(&mine, "held", jobs::is_held).await;
    cluster.delete(&mine).await;
    let is_refused = |o: &Value| condition(o, "Stalled") == ("True", "DataShared");
    let told = cluster.until(&mine, "refused", is_refused).await;
    assert!(message(&told, "Ready").contains("a Repository of another namespace: the same bucket"), "{told:#}");
    // Without the right to list them all, nothing is known of the others.
    let role = all
        .iter_mut()
        .find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == format!("lifeboat.{}", cluster.home));
    let role = role.unwrap();
    let across = |rule: &Value| rule["resources"] == json!(["repositories"]) && rule["verbs"] == json!(["list"]);
    let rules = role["rules"].as_array_mut().unwrap();
    let before = rules.len();
    rules.retain(|r| !across(r));
    assert_eq!(rules.len(), before - 1);
    cluster.patch(role, json!({ "rules": role["rules"] })).await.unwrap();
    let told = cluster.until(&mine, "refused still", |o| message(o, "Ready").contains("may not list those")).await;
    assert!(is_refused(&told) && message(&told, "Ready").contains("forbidden"), "{told:#}");
    assert!(jobs::all(&cluster, &ns).await.iter().all(|j| !j.metadata.name.as_deref().unwrap().contains("wipe")));
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_namespace_that_loses_its_role_while_it_is_deleted_loses_the_finalizers_too() {
    let cluster = Cluster::enter().await;
    let (home, ns) = (cluster.namespace("home").await, cluster.namespace("ending").await);
    let all = rights(&cluster, [&home, &ns]);
    give(&cluster, &all).await;
    may_read(&cluster, &[&home, &ns]).await;
    ground(&cluster, &ns, &["a", "b"], &["web"]).await;
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::through(&cluster, &as_account(&cluster, folder.path())).await;
    // A restore that has scaled its workload, a backup at work, and the Repository that they use.
    let run = session(&ns, &target("Deployment", "web"));
    cluster.apply(&run).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    jobs::of_step(&cluster, &ns, "restore/0/web").await;
    cluster.apply(&backups::configuration(&ns, json!({}))).await.unwrap();
    let backup = backups::session(&ns, "by-hand");
    cluster.apply(&backup).await.unwrap();
    jobs::succeed(&cluster, &ns, "prepare").await;
    jobs::of_step(&cluster, &ns, "backup/").await;
    let repo = json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository",
        "metadata": { "name": "repo", "namespace": ns } });
    for object in [&run, &repo] {
        cluster.until(object, "held", jobs::is_held).await;
    }
    // The namespace controller, which is not here, deletes in any order: here the rights go first.
    cluster.delete(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ns } })).await;
    for object in all.iter().filter(|o| o["metadata"]["namespace"] == ns.as_str()) {
        cluster.delete(object).await;
    }
    for (version, kind) in
        [("batch/v1", "Job"), ("apps/v1", "Deployment"), ("v1", "PersistentVolumeClaim"), ("v1", "Secret")]
    {
        let api = cluster.api(version, kind, &ns);
        api.delete_collection(&DeleteParams::background(), &ListParams::default()).await.unwrap();
    }
    for object in [&backup, &run, &repo] {
        cluster.delete(object).await;
    }
    for object in [&run, &backup, &repo] {
        cluster.until(object, "gone", Value::is_null).await;
    }
    // The namespace still ends, held by something of others. An operator that starts now works in the other one.
    drop(operator);
    let _next = Operator::through(&cluster, &as_account(&cluster, folder.path())).await;
    ground(&cluster, &home, &["a"], &[]).await;
    cluster.apply(&session(&home, &target("PersistentVolumeClaim", "a"))).await.unwrap();
    jobs::of_step(&cluster, &home, "preflight").await;
}
