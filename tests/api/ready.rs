//! `Ready` of Repositories and of the objects that back up into them: it reports what would stop a session, until the
//! cause is gone.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use lifeboat::contract::restic::{Absent, Answer, Step};
use lifeboat::contract::{Class, Failure, Outcome};
use lifeboat::names::reason;
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, condition, eventually, message};
use super::jobs::{self, ground, success};
use super::operator::Operator;

/// Longest time until the operator checks again something that no watch reports.
const LOOKED_AT: Duration = Duration::from_secs(90);

fn repository(ns: &str) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository", "metadata": { "name": "repo", "namespace": ns } })
}

fn configuration(ns: &str, claim: &str) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration",
        "metadata": { "name": "files", "namespace": ns },
        "spec": { "repository": { "name": "repo" }, "retentionPolicy": { "name": "keep", "keepLast": 1, "prune": true },
            "target": { "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim } } } })
}

/// The next Job that lists the snapshots: not a Job whose result was already read.
async fn next_list(cluster: &Cluster, ns: &str) -> Job {
    eventually("a Job that lists", SOON, || async {
        let all = jobs::all(cluster, ns).await;
        let is_next = |j: &Job| {
            matches!(jobs::work(j).step, Step::List(_)) && j.status.as_ref().is_none_or(|s| s.start_time.is_none())
        };
        all.into_iter().find(is_next).ok_or("none".to_owned())
    })
    .await
}

async fn ends_with(cluster: &Cluster, ns: &str, why: &str) {
    let job = next_list(cluster, ns).await;
    let failure = Failure::new(Class::Invalid, why, format!("It is {why}."));
    jobs::end(cluster, &job, &Outcome { failure: Some(failure), answer: None, ..success(&job) }).await;
}

/// Reasons of the warnings about an object, without those with an unwanted reason, once there are two.
async fn warnings(cluster: &Cluster, ns: &str, object: &Value, unwanted: Option<&str>) -> Vec<String> {
    let meant = |e: &Event| {
        e.regarding.as_ref().is_some_and(|r| r.kind.as_deref() == object["kind"].as_str())
            && e.type_.as_deref() == Some("Warning")
            && e.reason.as_deref() != unwanted
    };
    cluster.events(ns, 2, meant).await.into_iter().filter_map(|e| e.reason).collect()
}

/// Closes: B1, B3, B4 of the newcomer.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_repository_says_why_it_does_not_open_and_is_opened_when_its_secret_is_mended() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("opens").await;
    let _operator = Operator::leading(&cluster).await;
    let (store, files) = (repository(&ns), configuration(&ns, "a"));
    ground(&cluster, &ns, &["a"], &[]).await;
    cluster.apply(&files).await.unwrap();
    let says = |why: &'static str| move |o: &Value| condition(o, "Ready") == ("False", why);
    for object in [&store, &files] {
        cluster.until(object, "not opened yet", says(reason::NOT_OPENED)).await;
    }
    let secret = |password: &str| {
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "secret", "namespace": ns },
            "stringData": { "RESTIC_PASSWORD": password } })
    };
    let mut last = String::new();
    // The Repository is opened again when the Secret changes, long before the next retry would be due.
    for (round, why) in [reason::WRONG_PASSWORD, reason::SECRET_INCOMPLETE].into_iter().enumerate() {
        ends_with(&cluster, &ns, why).await;
        for object in [&store, &files] {
            let told = cluster.until(object, why, says(why)).await;
            assert!(message(&told, "Ready").contains(&format!("It is {why}.")), "{told:#}");
        }
        cluster.apply(&secret(&format!("changed-{round}"))).await.unwrap();
        let job = next_list(&cluster, &ns).await.name_any();
        assert_ne!(std::mem::replace(&mut last, job.clone()), job);
    }
    let job = next_list(&cluster, &ns).await;
    jobs::end(&cluster, &job, &success(&job)).await;
    for object in [&store, &files] {
        cluster.until(object, "ready", |o| condition(o, "Ready").0 == "True").await;
        let said = warnings(&cluster, &ns, object, None).await;
        assert_eq!(said, [reason::WRONG_PASSWORD, reason::SECRET_INCOMPLETE], "each once");
    }
    let written = cluster.get(&store).await.to_string();
    assert!(!written.contains("changed-"), "nothing of a Secret stands in a status");
}

/// Closes: B8, B21 of the newcomer.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_configuration_whose_target_is_missing_warns_once_and_is_ready_when_it_comes() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("waits").await;
    let _operator = Operator::leading(&cluster).await;
    let files = configuration(&ns, "later");
    cluster.apply(&files).await.unwrap();
    let says = |why: &'static str| move |o: &Value| condition(o, "Ready") == ("False", why);
    cluster.until(&files, "no Repository", says(reason::REPOSITORY_NOT_AVAILABLE)).await;
    ground(&cluster, &ns, &[], &[]).await;
    jobs::open(&cluster, &ns).await;
    let told = cluster.until(&files, "no target", says(reason::TARGET_NOT_AVAILABLE)).await;
    assert_eq!(told["status"]["phase"], "NotReady");
    ground(&cluster, &ns, &["later"], &[]).await;
    eventually("ready", LOOKED_AT, || async {
        let now = cluster.get(&files).await;
        if condition(&now, "Ready").0 == "True" { Ok(()) } else { Err(format!("{:#}", now["status"])) }
    })
    .await;
    // The operator may have seen the Secret after the Repository.
    let said = warnings(&cluster, &ns, &files, Some(reason::BACKEND_SECRET_NOT_AVAILABLE)).await;
    assert_eq!(said, [reason::REPOSITORY_NOT_AVAILABLE, reason::TARGET_NOT_AVAILABLE]);
}

/// Sessions merge the figures into the status, and an apply without them does not remove them.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn figures_of_another_place_leave_the_status() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("figures").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &[]).await;
    jobs::open(&cluster, &ns).await;
    let repo = repository(&ns);
    cluster.until(&repo, "ready", |r| condition(r, "Ready").0 == "True").await;
    let facts = Patch::Merge(json!({ "status": { "integrity": true, "totalSize": "1 MiB" } }));
    cluster.api_of(&repo).patch_status("repo", &PatchParams::default(), &facts).await.unwrap();
    cluster.patch(&repo, json!({ "spec": { "backend": { "s3": { "prefix": "other" } } } })).await.unwrap();
    let job = next_list(&cluster, &ns).await;
    let answer = Answer::Listed { snapshots: 0, written: 0, removed: 0, absent: Some(Absent::Repository) };
    jobs::end(&cluster, &job, &Outcome { answer: Some(answer.into()), ..success(&job) }).await;
    let is_new = |r: &Value| condition(r, "Ready") == ("True", reason::REPOSITORY_NOT_CREATED);
    cluster
        .until(&repo, "without figures", |r| {
            is_new(r) && ["integrity", "totalSize"].iter().all(|f| r["status"].get(*f).is_none())
        })
        .await;
}
