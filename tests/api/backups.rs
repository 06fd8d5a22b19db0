//! Backups whose Jobs the test ends: retries after a failure, and backups that a user creates.

use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use lifeboat::api::BackupSession;
use lifeboat::contract::{Class, Failure, Outcome};
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, condition, eventually, message};
use super::jobs::{self, ground};
use super::operator::Operator;

pub fn configuration(namespace: &str, more: Value) -> Value {
    let mut object = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration",
        "metadata": { "name": "files", "namespace": namespace },
        "spec": { "repository": { "name": "repo" }, "retentionPolicy": { "name": "keep", "keepLast": 1, "prune": true },
            "target": { "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "a" } } } });
    object["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

pub fn session(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupSession",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "invoker": { "apiGroup": "stash.appscode.com", "kind": "BackupConfiguration", "name": "files" } } })
}

fn repository(namespace: &str) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository",
        "metadata": { "name": "repo", "namespace": namespace } })
}

/// Proves: scenario 31.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_failed_backup_is_followed_by_another_whoever_operates() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("retry").await;
    let operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let retry = json!({ "retryConfig": { "maxRetry": 1, "delay": "3s" }, "backupHistoryLimit": 1 });
    let invoker = configuration(&ns, retry);
    cluster.apply(&invoker).await.unwrap();
    let mut first = session(&ns, "first");
    // As a schedule creates it: a session that a user created would stay for a day.
    first["metadata"]["ownerReferences"] = json!([{ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration",
        "name": "files", "uid": cluster.get(&invoker).await["metadata"]["uid"], "controller": true }]);
    cluster.apply(&first).await.unwrap();
    let prepare = jobs::of_step(&cluster, &ns, "prepare").await;
    jobs::end(&cluster, &prepare, &jobs::damaged(&prepare)).await;
    let failed = cluster.until_phase(&first, "Failed").await;
    assert!(failed["status"]["nextRetry"].is_string() && failed["status"].get("retried").is_none(), "{failed:#}");
    // The operator that runs when the retry is due continues.
    drop(operator);
    let _again = Operator::leading(&cluster).await;
    let second = session(&ns, "first-retry-1");
    let made = cluster.until(&second, "made", |o| o["status"]["phase"] == "Running").await;
    assert_eq!(made["spec"]["retryLeft"], 0);
    assert_eq!(made["metadata"]["ownerReferences"][0]["kind"], "BackupConfiguration");
    assert_eq!(made["metadata"]["labels"]["stash.appscode.com/invoker-name"], "files");
    let of_target = ListParams::default()
        .labels("stash.appscode.com/target-name=a,stash.appscode.com/target-kind=PersistentVolumeClaim");
    let found = Api::<BackupSession>::namespaced(cluster.client.clone(), &ns).list(&of_target).await.unwrap();
    assert_eq!(found.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["first-retry-1"]);
    let is_of = |job: &&k8s_openapi::api::batch::v1::Job| jobs::session_of(job) == "first-retry-1";
    let prepare = super::cluster::eventually("its Job", super::cluster::SOON, || async {
        jobs::all(&cluster, &ns).await.iter().find(is_of).cloned().ok_or("none".to_owned())
    })
    .await;
    jobs::end(&cluster, &prepare, &jobs::damaged(&prepare)).await;
    let last = cluster.until_phase(&second, "Failed").await;
    assert!(last["status"].get("nextRetry").is_none(), "none is left: {last:#}");
    // When the retry exists, the history limit removes the first session.
    cluster.until(&first, "gone", Value::is_null).await;
    assert_eq!(condition(&last, "Stalled"), ("True", "DataCorrupt"));
    let repository = cluster.get(&repository(&ns)).await;
    assert!(repository["status"].get("lastBackupTime").is_none(), "none has succeeded: {:#}", repository["status"]);
}

/// Proves: scenario 31.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_paused_configuration_still_backs_up_by_hand() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("paused").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let object = configuration(&ns, json!({ "paused": true, "schedule": "* * * * *", "timeZone": "Asia/Tokyo" }));
    cluster.apply(&object).await.unwrap();
    jobs::open(&cluster, &ns).await;
    let ready = cluster.until_phase(&object, "Ready").await;
    assert_eq!(condition(&ready, "Ready"), ("True", "Paused"));
    assert!(ready["status"].get("nextScheduleTime").is_none(), "{ready:#}");
    let by_hand = session(&ns, "by-hand");
    cluster.apply(&by_hand).await.unwrap();
    // The Repository was opened, so a backup must not create another repository in its place.
    let prepare = jobs::of_step(&cluster, &ns, "prepare").await;
    assert!(jobs::work(&prepare).repository.known);
    for step in ["prepare", "backup/", "maintain"] {
        jobs::succeed(&cluster, &ns, step).await;
    }
    let done = cluster.until_phase(&by_hand, "Succeeded").await;
    assert_eq!(condition(&done, "RetentionPolicyApplied").0, "True");
    cluster.apply(&configuration(&ns, json!({ "schedule": "* * * * *", "timeZone": "Asia/Tokyo" }))).await.unwrap();
    let next = cluster.until(&object, "scheduled", |o| o["status"]["nextScheduleTime"].is_string()).await;
    assert_eq!(next["status"]["scheduleInForce"]["timeZone"], "Asia/Tokyo");
}

/// Proves: scenario 31.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_claim_that_is_being_restored_is_backed_up_after_it_and_the_other_way_round() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("torn").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    cluster.apply(&configuration(&ns, json!({}))).await.unwrap();
    let of = |name: &str| {
        let mut run = jobs::session(&ns, &jobs::target("PersistentVolumeClaim", "a"));
        run["metadata"]["name"] = name.into();
        run
    };
    let restore = of("run");
    cluster.apply(&restore).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    let writes = jobs::of_step(&cluster, &ns, "restore/").await;

    let backup = session(&ns, "by-hand");
    cluster.apply(&backup).await.unwrap();
    jobs::succeed(&cluster, &ns, "prepare").await;
    let waits = cluster.until(&backup, "waiting", |o| condition(o, "Reconciling").1 == "TargetBusy").await;
    let text = message(&waits, "Ready");
    assert!(text.contains(&format!("RestoreSession {ns}/run is restoring PersistentVolumeClaim/a")), "{text}");
    let keys = jobs::keys(&cluster, &ns).await;
    assert!(keys.iter().all(|k| !k.starts_with("backup/")), "{keys:?}");
    jobs::end(&cluster, &writes, &jobs::success(&writes)).await;
    cluster.until_phase(&restore, "Succeeded").await;

    // Now the backup reads, and nothing is restored at the same time.
    let reads = jobs::of_step(&cluster, &ns, "backup/").await;
    let second = of("second");
    cluster.apply(&second).await.unwrap();
    let uid = cluster.get(&second).await["metadata"]["uid"].as_str().unwrap().to_owned();
    jobs::succeed_of(&cluster, &ns, "preflight", &uid).await;
    let waits = cluster.until(&second, "waiting", |o| condition(o, "Reconciling").1 == "TargetBusy").await;
    let text = message(&waits, "Ready");
    assert!(text.contains(&format!("BackupSession {ns}/by-hand backs up PersistentVolumeClaim a")), "{text}");
    jobs::end(&cluster, &reads, &jobs::success(&reads)).await;
    jobs::succeed(&cluster, &ns, "maintain").await;
    cluster.until_phase(&backup, "Succeeded").await;
    jobs::succeed_of(&cluster, &ns, "restore/", &uid).await;
    cluster.until_phase(&second, "Succeeded").await;
}

/// Between two attempts, a restore has no Job, and its data is half written.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_claim_of_a_workload_is_not_backed_up_between_two_tries_of_its_restore() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("between").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &["a"]).await;
    // The workload is not scaled down here, because no controller runs its pods.
    let mut restore = jobs::session(&ns, &jobs::target("Deployment", "a"));
    restore["spec"]["target"]["quiesce"] = "Never".into();
    cluster.apply(&restore).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    // The backoff doubles with each attempt.
    for attempt in 2..=4 {
        let writes = jobs::of_step(&cluster, &ns, "restore/").await;
        let failure = Failure::new(Class::Transient, "Terminated", "The agent was told to stop.");
        let half = Outcome { failure: Some(failure), ..jobs::success(&writes) };
        jobs::end(&cluster, &writes, &half).await;
        cluster.until(&restore, "between two tries", |o| o["status"]["stats"][0]["attempt"] == attempt).await;
        jobs::collect(&cluster, &writes).await;
    }
    cluster.apply(&configuration(&ns, json!({}))).await.unwrap();
    let backup = session(&ns, "by-hand");
    cluster.apply(&backup).await.unwrap();
    jobs::succeed(&cluster, &ns, "prepare").await;
    let waits = cluster.until(&backup, "waiting", |o| condition(o, "Reconciling").1 == "TargetBusy").await;
    let text = message(&waits, "Ready");
    assert!(text.contains(&format!("RestoreSession {ns}/run writes to PersistentVolumeClaim a")), "{text}");
    let keys = jobs::keys(&cluster, &ns).await;
    assert!(!keys.iter().any(|k| k.starts_with("restore/") || k.starts_with("backup/")), "{keys:?}");
}

/// Time at which each session of the schedule was due, and time at which it was created, in seconds.
async fn scheduled(cluster: &Cluster, namespace: &str) -> Vec<(i64, i64)> {
    let api = cluster.api("stash.appscode.com/v1beta1", "BackupSession", namespace);
    let all = api.list(&ListParams::default()).await.unwrap().items;
    let times = |o: kube::api::DynamicObject| {
        let name = o.metadata.name.unwrap();
        let (date, time) = name.strip_prefix("files-").unwrap().split_once('-').unwrap();
        let due =
            format!("{}-{}-{}T{}:{}:{:0<2}Z", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..4], &time[4..]);
        let due = due.parse::<k8s_openapi::jiff::Timestamp>().unwrap().as_second();
        (due, o.metadata.creation_timestamp.unwrap().0.as_second())
    };
    let mut all: Vec<(i64, i64)> = all.into_iter().map(times).collect();
    all.sort_unstable();
    all
}

/// Waits until `more` sessions exist that were due after `after`.
async fn scheduled_after(cluster: &Cluster, namespace: &str, after: i64, more: usize) -> Vec<(i64, i64)> {
    eventually("sessions of the schedule", SOON * 3, || async {
        let all = scheduled(cluster, namespace).await;
        let new: Vec<_> = all.iter().copied().filter(|(due, _)| *due > after).collect();
        if new.len() >= more { Ok(new) } else { Err(format!("{all:?}")) }
    })
    .await
}

/// Proves: scenario 31.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn times_that_came_while_nobody_operated_are_made_up_for_once() {
    const EVERY: i64 = 3;
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("missed").await;
    let operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let schedule = json!({ "schedule": format!("@every {EVERY}s"), "backupHistoryLimit": 99 });
    cluster.apply(&configuration(&ns, schedule)).await.unwrap();
    // No Job of the first session is ended: later sessions are skipped, but each due time still gets one session.
    scheduled_after(&cluster, &ns, 0, 2).await;
    drop(operator);
    let before = scheduled(&cluster, &ns).await;
    let (last, _) = *before.last().unwrap();
    let passed = || async {
        let now = k8s_openapi::jiff::Timestamp::now().as_second();
        if now > last + 4 * EVERY { Ok(()) } else { Err("not yet".to_owned()) }
    };
    eventually("several times have passed", Duration::from_mins(1), passed).await;
    assert_eq!(scheduled(&cluster, &ns).await, before, "nobody makes any");

    let _second = Operator::start_in(&cluster, "second", &["--webhook", "false"]);
    let _first = Operator::start_in(&cluster, "test", &["--webhook", "false"]);
    let new = scheduled_after(&cluster, &ns, last, 3).await;
    // The first session is for the newest of the missed times; the other missed times never get a session.
    let (due, made) = new[0];
    assert!(due >= last + 4 * EVERY && made < due + EVERY + 2, "{before:?} {new:?}");
    let all = scheduled(&cluster, &ns).await;
    // The next session may be due, and created, in the second in which this session was created.
    let until = due.max(made - 1);
    assert_eq!(all.iter().filter(|(due, _)| (last + 1..=until).contains(due)).count(), 1, "{all:?}");
    for pair in all.windows(2) {
        assert!(pair[0].0 < pair[1].0 && (pair[1].0 - pair[0].0) % EVERY == 0, "each time once, and no other: {all:?}");
    }
}
