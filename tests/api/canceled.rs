//! Backups that are canceled, and sessions whose names are already taken.

use std::time::Duration;

use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::backups::{configuration, session};
use super::cluster::{Cluster, SOON, condition, eventually};
use super::jobs::{self, ground};
use super::operator::Operator;

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_canceled_backup_stops_its_jobs_and_is_followed_by_none() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("cancel").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let retry = json!({ "retryConfig": { "maxRetry": 1, "delay": "1s" } });
    cluster.apply(&configuration(&ns, retry)).await.unwrap();
    let object = session(&ns, "by-hand");
    cluster.apply(&object).await.unwrap();
    jobs::succeed(&cluster, &ns, "prepare").await;
    let running = jobs::of_step(&cluster, &ns, "backup/").await;
    // The Job comes before the status that names its host, and a cancel in between would leave nothing to say of it.
    let is_named = |o: &Value| o["status"]["targets"][0]["stats"][0]["phase"] == "Running";
    cluster.until(&object, "its host is in status", is_named).await;

    // Only cancel may change, and it cannot be undone. The definition refuses the change, for there is no webhook here.
    let refused = |patch: Value| cluster.patch(&object, patch);
    for patch in [json!({ "spec": { "retryLeft": 5 } }), json!({ "spec": { "invoker": { "name": "other" } } })] {
        let error = refused(patch).await.unwrap_err().to_string();
        assert!(error.contains("cannot be changed but for cancel"), "{error}");
    }
    let asked = std::time::Instant::now();
    cluster.patch(&object, json!({ "spec": { "cancel": true } })).await.unwrap();
    let said = cluster.until(&object, "acknowledged", |o| condition(o, "Canceled") == ("False", "Canceling")).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "acknowledged after {:?}", asked.elapsed());
    assert_eq!((condition(&said, "Reconciling"), &said["status"]["phase"]), (("True", "Canceling"), &json!("Running")));
    let error = refused(json!({ "spec": { "cancel": false } })).await.unwrap_err().to_string();
    assert!(error.contains("cannot be taken back"), "{error}");

    jobs::collect(&cluster, &running).await;
    let done = cluster.until_phase(&object, "Failed").await;
    assert_eq!(
        (condition(&done, "Canceled"), condition(&done, "Stalled")),
        (("True", "Canceled"), ("True", "Canceled"))
    );
    assert_eq!(done["status"]["summary"], "Canceled. No host was backed up.");
    assert_eq!(done["status"]["observedGeneration"], done["metadata"]["generation"]);
    assert!(done["status"].get("nextRetry").is_none(), "{done:#}");
    let host = &done["status"]["targets"][0]["stats"][0];
    assert_eq!((&host["phase"], &host["reason"]), (&json!("Failed"), &json!("Canceled")), "{host:#}");
    assert_eq!(jobs::keys(&cluster, &ns).await, ["prepare"], "nothing more is begun");

    // The canceled session does not delay the next one, which reports its result.
    let next = session(&ns, "next");
    cluster.apply(&next).await.unwrap();
    let uid = cluster.get(&next).await["metadata"]["uid"].as_str().unwrap().to_owned();
    for step in ["prepare", "backup/", "maintain"] {
        jobs::succeed_of(&cluster, &ns, step, &uid).await;
    }
    let done = cluster.until_phase(&next, "Succeeded").await;
    assert_eq!(done["status"]["summary"], "Backed up 1 host: 0 files, 0 B, snapshot abababab.");
    // A finished session keeps its result; a client that compares generations sees that the operator has observed it.
    cluster.patch(&next, json!({ "spec": { "cancel": true } })).await.unwrap();
    let seen = |o: &Value| o["status"]["observedGeneration"] == o["metadata"]["generation"];
    let after = cluster.until(&next, "looked at", seen).await;
    assert_eq!((&after["status"]["phase"], condition(&after, "Canceled")), (&json!("Succeeded"), ("", "")));
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_name_that_somebody_else_has_costs_no_backup_and_what_is_made_by_hand_stays() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("names").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let object = configuration(&ns, json!({ "schedule": "0 0 1 1 *", "backupHistoryLimit": 1 }));
    cluster.apply(&object).await.unwrap();
    let ready = cluster.until(&object, "scheduled", |o| o["status"]["nextScheduleTime"].is_string()).await;
    assert_eq!(condition(&ready, "BackupsLate").0, "False", "{ready:#}");
    // All session names of the next two minutes are taken by sessions that a user created for the same invoker.
    let now = k8s_openapi::jiff::Timestamp::now();
    let minutes = (0..=2).map(|n| now + Duration::from_secs(60 * n));
    let taken: Vec<String> = minutes.map(|t| format!("files-{}", t.strftime("%Y%m%d-%H%M"))).collect();
    for name in &taken {
        cluster.apply(&session(&ns, name)).await.unwrap();
    }
    let every_minute = configuration(&ns, json!({ "schedule": "* * * * *", "backupHistoryLimit": 1 }));
    cluster.apply(&every_minute).await.unwrap();
    let api = cluster.api("stash.appscode.com/v1beta1", "BackupSession", &ns);
    let made = eventually("a session of the schedule", Duration::from_secs(75), || async {
        let all = api.list(&ListParams::default()).await.unwrap().items;
        all.into_iter().find(|s| !s.owner_references().is_empty()).ok_or("none".to_owned())
    })
    .await;
    let name = made.name_any();
    let (begin, hash) = name.rsplit_once('-').unwrap();
    assert!(taken.iter().any(|t| t == begin) && hash.len() == 10, "{name}");
    // All sessions but the first are or will be skipped; the limit of one removes none of them.
    eventually("the others are skipped", SOON, || async {
        let all = api.list(&ListParams::default()).await.unwrap().items;
        let skipped = all.iter().filter(|s| s.data["status"]["phase"] == "Skipped").count();
        if skipped >= 2 { Ok(()) } else { Err(format!("{skipped}")) }
    })
    .await;
    // The reconcile that would remove them is over: it has recorded the session that it created.
    cluster.until(&every_minute, "looked at", |o| o["status"]["lastScheduleTime"].is_string()).await;
    let there: Vec<String> =
        api.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    assert!(taken.iter().all(|t| there.contains(t)), "{there:?}");
}
