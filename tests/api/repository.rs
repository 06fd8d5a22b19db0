//! Repositories: permission to use them, their holders, their deletion, and stores that do not respond.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use lifeboat::contract::restic::Step;
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, condition, eventually, message};
use super::jobs::{self, ground, session, target};
use super::operator::{Operator, STEADY};
use super::oversized::large_labels;

fn repo(namespace: &str) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository",
        "metadata": { "name": "repo", "namespace": namespace },
        "spec": { "backend": { "storageSecretName": "secret", "s3": { "endpoint": "http://store.invalid", "bucket": namespace } } } })
}

fn invoker(namespace: &str, kind: &str, name: &str, alias: &str) -> Value {
    let retention = json!({ "name": "keep", "keepLast": 1, "prune": true });
    let target = json!({ "alias": alias, "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "a" } });
    let mut spec = json!({ "repository": { "name": "repo" }, "retentionPolicy": retention });
    if kind == "BackupBatch" {
        spec["members"] = json!([{ "target": target }]);
    } else {
        spec["target"] = target;
    }
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": kind,
        "metadata": { "name": name, "namespace": namespace }, "spec": spec })
}

fn named(namespace: &str, name: &str) -> Value {
    let mut run = session(namespace, &target("PersistentVolumeClaim", "a"));
    run["metadata"]["name"] = name.into();
    run
}

/// Creates an object in a later second than another: creation times have whole seconds.
async fn create_after(cluster: &Cluster, other: &Value, object: &Value) {
    let born = cluster.get(other).await["metadata"]["creationTimestamp"].clone();
    eventually("a later second", SOON, || async {
        let made = cluster.apply(object).await.unwrap();
        if made["metadata"]["creationTimestamp"] != born {
            return Ok(());
        }
        cluster.delete(object).await;
        Err("the same second".to_owned())
    })
    .await;
}

/// All Jobs except those with which a Repository lists its snapshots.
async fn jobs_of(cluster: &Cluster, namespace: &str) -> Vec<Job> {
    let mut all = jobs::all(cluster, namespace).await;
    all.retain(|j| !matches!(jobs::work(j).step, Step::List(_)));
    all
}

fn references(repository: &Value) -> Vec<String> {
    let all = repository["status"]["references"].as_array().cloned().unwrap_or_default();
    all.iter().map(|r| format!("{} {}", r["kind"].as_str().unwrap(), r["name"].as_str().unwrap())).collect()
}

/// Proves: scenario 22.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_batch_has_its_repository_to_itself_and_the_next_takes_over() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("rivals").await;
    let _operator = Operator::leading(&cluster).await;
    let first = invoker(&ns, "BackupBatch", "first", "a");
    cluster.apply(&first).await.unwrap();
    let waits = |o: &Value| message(o, "Ready").contains(&format!("{ns}/repo does not exist"));
    cluster.until(&first, "waiting for its Repository", waits).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    jobs::open(&cluster, &ns).await;
    cluster.until_phase(&first, "Ready").await;
    let second = invoker(&ns, "BackupBatch", "second", "b");
    let third = invoker(&ns, "BackupConfiguration", "third", "c");
    create_after(&cluster, &first, &second).await;
    create_after(&cluster, &second, &third).await;
    for (object, label) in [(&second, "BackupBatch"), (&third, "BackupConfiguration")] {
        let refused = cluster.until_phase(object, "Invalid").await;
        assert_eq!(condition(&refused, "Stalled"), ("True", "RepositoryTaken"));
        let text = message(&refused, "Ready");
        let me = format!("{label} {ns}/{}", object["metadata"]["name"].as_str().unwrap());
        assert!(text.contains(&format!("BackupBatch {ns}/first")) && text.contains(&me), "{text}");
    }
    let backup = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupSession",
        "metadata": { "name": "b", "namespace": ns }, "spec": { "invoker": { "kind": "BackupBatch", "name": "second" } } });
    cluster.apply(&backup).await.unwrap();
    let skipped = cluster.until_phase(&backup, "Skipped").await;
    assert!(message(&skipped, "Ready").contains("first"), "{:#}", skipped["status"]);
    assert!(jobs_of(&cluster, &ns).await.is_empty());
    let all = ["BackupBatch first", "BackupBatch second", "BackupConfiguration third"];
    cluster.until(&repo(&ns), "used by three", |r| references(r) == all).await;

    cluster.delete(&first).await;
    cluster.until_phase(&second, "Ready").await;
    cluster.until_phase(&third, "Invalid").await;
    cluster.delete(&second).await;
    cluster.until_phase(&third, "Ready").await;
    cluster.until(&repo(&ns), "used by one", |r| references(r) == ["BackupConfiguration third"]).await;
    // One host in two configurations.
    let fourth = invoker(&ns, "BackupConfiguration", "zz", "c");
    create_after(&cluster, &third, &fourth).await;
    let refused = cluster.until_phase(&fourth, "Invalid").await;
    let text = message(&refused, "Ready");
    assert!(text.contains("host c ") && text.contains("third") && text.contains("zz"), "{text}");
    assert_eq!(cluster.get(&third).await["status"]["phase"], "Ready");
    // Another Repository resolves this, and the first Repository drops the reference.
    cluster.patch(&fourth, json!({ "spec": { "repository": { "name": "another" } } })).await.unwrap();
    cluster.until_phase(&fourth, "NotReady").await;
    cluster.until(&repo(&ns), "used by one", |r| references(r) == ["BackupConfiguration third"]).await;
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_repository_in_use_is_not_deleted_and_says_by_whom() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("used").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let (batch, run) = (invoker(&ns, "BackupBatch", "all", "a"), named(&ns, "run"));
    cluster.apply(&batch).await.unwrap();
    cluster.apply(&run).await.unwrap();
    let stash = json!({ "metadata": { "finalizers": ["stash", "lifeboat.stash.appscode.com/run"] } });
    let both = ["BackupBatch all", "RestoreSession run"];
    cluster.until(&repo(&ns), "held", |r| references(r) == both && jobs::is_held(r)).await;
    cluster.patch(&repo(&ns), stash).await.unwrap();
    cluster.delete(&repo(&ns)).await;
    let waits = |names: [bool; 2]| {
        move |r: &Value| {
            let text = message(r, "Ready");
            condition(r, "Reconciling") == ("True", "RepositoryInUse")
                && [text.contains("BackupBatch"), text.contains("RestoreSession")] == names
        }
    };
    cluster.until(&repo(&ns), "waiting for both", waits([true, true])).await;
    cluster.delete(&batch).await;
    cluster.until(&repo(&ns), "waiting for one", waits([false, true])).await;
    // The restore still runs to its end.
    jobs::succeed(&cluster, &ns, "preflight").await;
    jobs::succeed(&cluster, &ns, "restore/").await;
    cluster.until_phase(&run, "Succeeded").await;
    cluster.until(&repo(&ns), "gone, Stash's finalizer too", Value::is_null).await;
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn who_may_not_use_a_repository_neither_takes_it_nor_holds_it() {
    let cluster = Cluster::enter().await;
    let (ns, foreign) = (cluster.namespace("owner").await, cluster.namespace("foreign").await);
    let _operator = Operator::leading(&cluster).await;
    // The foreign batch exists first, before any Repository whose owner could allow it.
    let mut evil = invoker(&foreign, "BackupBatch", "evil", "a");
    evil["spec"]["repository"]["namespace"] = ns.as_str().into();
    cluster.apply(&evil).await.unwrap();
    let waits = |o: &Value| message(o, "Ready").contains(&format!("{ns}/repo does not exist"));
    let not_allowed = |o: &Value| condition(o, "Stalled") == ("True", "RepositoryNotAllowed");
    cluster.until(&evil, "told what is told of one that may not be used", not_allowed).await;
    let owners = invoker(&ns, "BackupBatch", "owners", "a");
    create_after(&cluster, &evil, &owners).await;
    cluster.until(&owners, "waiting for the Repository", waits).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    cluster.until(&evil, "kept out", not_allowed).await;
    jobs::open(&cluster, &ns).await;
    cluster.until_phase(&owners, "Ready").await;
    cluster.until(&repo(&ns), "the owner's alone", |r| references(r) == ["BackupBatch owners"]).await;

    // A Repository that selects namespaces by label, and a namespace without the label: the same result.
    let selector = json!({ "from": "Selector", "selector": { "matchLabels": { "team": "a" } } });
    let policy = json!({ "spec": { "usagePolicy": { "allowedNamespaces": selector } } });
    cluster.patch(&repo(&ns), policy).await.unwrap();
    // The labels are private to the owner.
    let by_label = |o: &Value| not_allowed(o) && !message(o, "Ready").contains("team=a");
    cluster.until(&evil, "kept out by its labels", by_label).await;
    cluster.until(&repo(&ns), "the owner's alone", |r| references(r) == ["BackupBatch owners"]).await;
    assert_eq!(cluster.get(&owners).await["status"]["phase"], "Ready");
    cluster.delete(&owners).await;
    cluster.until(&repo(&ns), "nobody's", |r| references(r).is_empty()).await;
    cluster.delete(&repo(&ns)).await;
    cluster.until(&repo(&ns), "gone", Value::is_null).await;
}

/// Proves: C11.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn in_a_namespace_that_ends_nothing_is_held_up() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("ends").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    cluster.apply(&invoker(&ns, "BackupBatch", "all", "a")).await.unwrap();
    cluster.patch(&repo(&ns), json!({ "spec": { "wipeOut": true } })).await.unwrap();
    cluster.until(&repo(&ns), "held", jobs::is_held).await;
    // There is no namespace controller here: the namespace stays, and its contents are deleted one by one.
    cluster.delete(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ns } })).await;
    cluster.delete(&repo(&ns)).await;
    cluster.until(&repo(&ns), "gone", Value::is_null).await;
    assert!(jobs_of(&cluster, &ns).await.is_empty(), "nothing is wiped out on the way");
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn data_goes_on_request_and_never_anothers() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("wipe").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &[]).await;
    let mut mine = repo(&ns);
    mine["metadata"]["name"] = "mine".into();
    mine["spec"]["wipeOut"] = true.into();
    // The operator also asks for Repositories of other tests.
    mine["spec"]["backend"]["s3"]["bucket"] = ns.as_str().into();
    mine["spec"]["backend"]["s3"]["prefix"] = "demo".into();
    let mut other = mine.clone();
    other["metadata"]["name"] = "other".into();
    other["spec"]["wipeOut"] = false.into();
    other["spec"]["backend"]["s3"]["prefix"] = "/demo/deployment/web/".into();
    cluster.apply(&mine).await.unwrap();
    cluster.apply(&other).await.unwrap();
    cluster.until(&mine, "held", jobs::is_held).await;
    cluster.delete(&mine).await;
    let kept = cluster.until(&mine, "refused", |r| condition(r, "Stalled") == ("True", "DataShared")).await;
    assert!(message(&kept, "Ready").contains(&format!("{ns}/other")), "{:#}", kept["status"]);
    assert!(jobs_of(&cluster, &ns).await.is_empty());
    // The location of a Repository that is too large to be read is unknown.
    let mut unknown = other.clone();
    unknown["metadata"]["name"] = "unknown".into();
    unknown["metadata"]["labels"] = large_labels();
    cluster.apply(&unknown).await.unwrap();
    cluster.delete(&other).await;
    cluster.until(&other, "gone at once", Value::is_null).await;
    let names = |r: &Value| message(r, "Ready").contains(&format!("{ns}/unknown"));
    cluster.until(&mine, "still refused", names).await;
    assert!(jobs_of(&cluster, &ns).await.is_empty());
    cluster.delete(&unknown).await;
    cluster.until(&unknown, "gone at once", Value::is_null).await;
    let wipe = jobs::of_step(&cluster, &ns, "wipe").await;
    cluster.until(&mine, "announced", |r| condition(r, "Reconciling") == ("True", "WipingOut")).await;
    assert_eq!(wipe.labels()["lifeboat.stash.appscode.com/session-kind"], "Repository");
    jobs::end(&cluster, &wipe, &jobs::success(&wipe)).await;
    cluster.until(&mine, "gone", Value::is_null).await;
    // The wipe-out of a volume is refused.
    let mut local = repo(&ns);
    local["spec"]["wipeOut"] = true.into();
    local["spec"]["backend"] =
        json!({ "storageSecretName": "secret", "local": { "mountPath": "/r", "hostPath": { "path": "/x" } } });
    local["metadata"]["name"] = "local".into();
    cluster.apply(&local).await.unwrap();
    cluster.until(&local, "refused", |r| message(r, "Ready").contains("spec.wipeOut")).await;
}

/// Proves: C06, C13.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn many_sessions_never_flood_a_repository_and_one_that_is_away_is_asked_by_itself() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("many").await;
    let operator = Operator::start_in(
        &cluster,
        "many",
        &[&STEADY[..], &["--jobs-per-repository", "4", "--probe-interval", "2s"]].concat(),
    );
    operator.leads_within(SOON).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let names: Vec<String> = (0..12).map(|n| format!("run-{n}")).collect();
    for name in &names {
        cluster.apply(&named(&ns, name)).await.unwrap();
    }
    let why = async |reason: &str| {
        let mut count = 0;
        for name in &names {
            count += usize::from(condition(&cluster.get(&named(&ns, name)).await, "Reconciling") == ("True", reason));
        }
        count
    };
    eventually("eight wait", SOON, || async {
        let waiting = why("RepositoryBusy").await;
        if waiting == 8 { Ok(()) } else { Err(waiting.to_string()) }
    })
    .await;
    let first = jobs_of(&cluster, &ns).await;
    assert_eq!(first.len(), 4, "no more than four at once");
    // The store becomes unreachable: the first session that notices this causes a probe for all.
    for job in &first {
        jobs::end(&cluster, job, &jobs::unreachable(job)).await;
    }
    let asked = jobs::of_step(&cluster, &ns, "probe").await;
    assert_ne!(condition(&cluster.get(&repo(&ns)).await, "Reachable").0, "False", "one session says nothing for all");
    jobs::end(&cluster, &asked, &jobs::unreachable(&asked)).await;
    cluster.until(&repo(&ns), "away", |r| condition(r, "Reachable") == ("False", "RepositoryUnreachable")).await;
    eventually("all wait", SOON, || async {
        let waiting = why("RepositoryUnreachable").await;
        if waiting == 12 { Ok(()) } else { Err(waiting.to_string()) }
    })
    .await;
    let again = eventually("another probe", SOON, || async {
        let all = jobs_of(&cluster, &ns).await;
        let keys: Vec<String> = all.iter().map(jobs::key).collect();
        all.into_iter().find(|j| jobs::key(j) == "probe" && j.uid() != asked.uid()).ok_or(format!("{keys:?}"))
    })
    .await;
    let begun = jobs_of(&cluster, &ns).await.iter().filter(|j| jobs::key(j) != "probe").count();
    assert!(begun <= 4, "nobody else asks");
    jobs::end(&cluster, &again, &jobs::success(&again)).await;
    cluster.until(&repo(&ns), "back", |r| condition(r, "Reachable") == ("True", "RepositoryReachable")).await;
    // All sessions get a slot, never more than four at once.
    let limit = std::time::Duration::from_mins(1);
    eventually("all succeed", limit, || async {
        let all = jobs_of(&cluster, &ns).await;
        let over = |j: &Job| j.status.as_ref().is_some_and(|s| s.conditions.is_some());
        let open: Vec<_> = all.iter().filter(|j| !over(j) && j.metadata.deletion_timestamp.is_none()).collect();
        assert!(open.len() <= 4, "{} at once", open.len());
        for job in open {
            jobs::end(&cluster, job, &jobs::success(job)).await;
        }
        let mut done = 0;
        for name in &names {
            done += usize::from(cluster.get(&named(&ns, name)).await["status"]["phase"] == "Succeeded");
        }
        if done == names.len() { Ok(()) } else { Err(done.to_string()) }
    })
    .await;
}
