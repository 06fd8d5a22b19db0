//! Backups that stop: how status, columns, events and metrics report them.

use std::time::Duration;

use serde_json::json;

use super::backups::{configuration, session};
use super::cluster::{Cluster, SOON, condition, eventually, message};
use super::jobs::{self, ground};
use super::operator::Operator;

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn backups_that_stop_are_seen_until_one_succeeds_and_outlive_their_sessions() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("late").await;
    let operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a"], &[]).await;
    let object = configuration(&ns, json!({ "schedule": "@every 2s", "backupHistoryLimit": 1 }));
    cluster.apply(&object).await.unwrap();
    // The first session waits for its Job, the sessions after it are skipped.
    let late = cluster.until(&object, "late", |o| condition(o, "BackupsLate") == ("True", "BackupsLate")).await;
    assert!(message(&late, "BackupsLate").starts_with("No backup has succeeded yet, and more than one was due."));
    assert!(late["status"].get("lastBackup").is_none(), "what is skipped is no backup: {late:#}");
    let told = cluster.events(&ns, 1, |e| e.reason.as_deref() == Some("BackupsLate")).await;
    let about = told[0].regarding.as_ref().and_then(|r| r.name.as_deref());
    assert_eq!((told.len(), told[0].type_.as_deref(), about), (1, Some("Warning"), Some("files")));
    let labels = format!(r#"namespace="{ns}",kind="BackupConfiguration",name="files",repository="{ns}/repo""#);
    let has = async |line: String| {
        eventually(&line, SOON, || async {
            let (_, text) = operator.page("/metrics").await.ok_or("no answer".to_owned())?;
            if text.lines().any(|l| l.starts_with(&line)) { Ok(()) } else { Err(text) }
        })
        .await;
    };
    has(format!("lifeboat_backup_late{{{labels}}} 1")).await;
    has(format!("lifeboat_backup_next_due_timestamp_seconds{{{labels}}} ")).await;

    // The running session fails, then a session that a user creates succeeds. The schedule has no more due backup.
    let yearly = configuration(&ns, json!({ "schedule": "0 0 1 1 *", "backupHistoryLimit": 1 }));
    cluster.apply(&yearly).await.unwrap();
    let prepare = jobs::of_step(&cluster, &ns, "prepare").await;
    let failed = jobs::session_of(&prepare);
    jobs::end(&cluster, &prepare, &jobs::damaged(&prepare)).await;
    let seen = cluster.until(&object, "its end", |o| o["status"]["lastBackup"]["session"] == failed.as_str()).await;
    assert_eq!(
        (&seen["status"]["lastBackup"]["phase"], &seen["status"]["lastBackup"]["reason"]),
        (&json!("Failed"), &json!("DataCorrupt"))
    );
    assert_eq!(condition(&seen, "BackupsLate").0, "True", "another schedule makes no backup");
    let text = message(&seen, "BackupsLate");
    assert!(text.contains(&format!("BackupSession {failed}, failed at")) && text.contains("DataCorrupt"), "{text}");
    has(format!("lifeboat_backup_last_result{{{labels},reason=\"DataCorrupt\"}} 0")).await;

    // Both sessions may end within a second; then the later name counts.
    let by_hand = session(&ns, "now-by-hand");
    cluster.apply(&by_hand).await.unwrap();
    let uid = cluster.get(&by_hand).await["metadata"]["uid"].as_str().unwrap().to_owned();
    for step in ["prepare", "backup/", "maintain"] {
        jobs::succeed_of(&cluster, &ns, step, &uid).await;
    }
    let done = cluster.until_phase(&by_hand, "Succeeded").await;
    let good = cluster.until(&object, "on time", |o| condition(o, "BackupsLate") == ("False", "BackupsOnTime")).await;
    assert_eq!(good["status"]["lastBackup"]["session"], "now-by-hand");
    let ended = &done["status"]["run"]["completionTime"];
    assert_eq!((&good["status"]["lastSuccessTime"], &good["status"]["lastBackup"]["time"]), (ended, ended));
    has(format!("lifeboat_backup_late{{{labels}}} 0")).await;
    has(format!("lifeboat_backup_last_success_timestamp_seconds{{{labels}}} ")).await;

    // The record stays when its session is deleted.
    cluster.delete(&by_hand).await;
    cluster.until(&by_hand, "gone", serde_json::Value::is_null).await;
    cluster.apply(&configuration(&ns, json!({ "schedule": "0 0 1 1 *", "backupHistoryLimit": 2 }))).await.unwrap();
    let looked = |o: &serde_json::Value| o["status"]["observedGeneration"] == o["metadata"]["generation"];
    let after = cluster.until(&object, "looked at", looked).await;
    assert_eq!(after["status"]["lastBackup"], good["status"]["lastBackup"]);
    let (columns, cells) =
        cluster.row(&format!("/apis/stash.appscode.com/v1beta1/namespaces/{ns}/backupconfigurations/files")).await;
    assert_eq!(columns[columns.len() - 4..], ["Last-Success", "Last-Result", "Next", "Status"]);
    let [.., result, next, _] = cells.as_slice() else { panic!("{cells:?}") };
    assert_eq!((result, next), (&json!("Succeeded"), &after["status"]["nextScheduleTime"]));

    // Paused: no backup is expected.
    cluster.apply(&configuration(&ns, json!({ "schedule": "@every 2s", "paused": true }))).await.unwrap();
    cluster.until(&object, "paused", |o| condition(o, "BackupsLate") == ("False", "Paused")).await;
    // A deleted configuration has no metrics.
    cluster.delete(&object).await;
    eventually("its metrics go", Duration::from_secs(20), || async {
        let (_, text) = operator.page("/metrics").await.ok_or("no answer".to_owned())?;
        if text.contains(&labels) { Err("still there".to_owned()) } else { Ok(()) }
    })
    .await;
}
