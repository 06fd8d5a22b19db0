//! Restores from begin to end: order, status, events, and no writes afterwards.

use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, condition, eventually, message};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

/// Records every version of an object from now on.
struct Versions {
    seen: Arc<Mutex<Vec<Value>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Versions {
    fn of(cluster: &Cluster, object: &Value) -> Self {
        let api = cluster.api_of(object);
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let seen = Arc::new(Mutex::new(vec![]));
        let into = seen.clone();
        let task = tokio::spawn(async move {
            let params = WatchParams::default().fields(&format!("metadata.name={name}"));
            let mut events = api.watch(&params, "0").await.unwrap().boxed();
            while let Some(Ok(event)) = events.next().await {
                if let WatchEvent::Added(o) | WatchEvent::Modified(o) = event {
                    let o: DynamicObject = o;
                    into.lock().unwrap().push(json!(o));
                }
            }
        });
        Self { seen, task }
    }

    /// Checks each version for kstatus: never two states at once, never an old generation.
    fn end(self) -> Vec<Value> {
        self.task.abort();
        let seen = self.seen.lock().unwrap().clone();
        for version in seen.iter().filter(|v| v["status"]["phase"].is_string()) {
            let is = |t| condition(version, t).0 == "True";
            let states = ["Reconciling", "Stalled"].map(is);
            assert!(states != [true, true] && is("Ready") != (states[0] || states[1]), "{version:#}");
            assert_eq!(version["status"]["observedGeneration"], version["metadata"]["generation"]);
        }
        seen
    }
}

/// Type and reason of the events about an object, oldest first.
async fn events(cluster: &Cluster, namespace: &str, name: &str, count: usize) -> Vec<(String, String)> {
    let about = |e: &Event| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name);
    let all = cluster.events(namespace, count, about).await;
    all.into_iter().map(|e| (e.type_.unwrap(), e.reason.unwrap())).collect()
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_session_runs_to_success_and_rests() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("success").await;
    let operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &["web"]).await;
    let deployment =
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": ns } });
    let mut object = session(&ns, &target("Deployment", "web"));
    object["metadata"]["labels"] =
        json!({ "app.kubernetes.io/instance": "shop", "argocd.argoproj.io/instance": "shop" });
    object["metadata"]["annotations"] =
        json!({ "argocd.argoproj.io/tracking-id": "shop:x", "argocd.argoproj.io/sync-wave": "1" });
    object = cluster.apply(&object).await.unwrap();
    let uid = object["metadata"]["uid"].as_str().unwrap();
    let versions = Versions::of(&cluster, &object);

    let preflight = jobs::of_step(&cluster, &ns, "preflight").await;
    let running = cluster.until_phase(&object, "Running").await;
    assert!(!jobs::is_held(&running), "it only reads");
    assert_eq!(
        (running["status"]["summary"].as_str(), condition(&running, "Reconciling").0),
        (Some("Resolving snapshots."), "True")
    );
    assert_eq!(
        cluster.get(&deployment).await["spec"]["replicas"],
        2,
        "nothing is touched before the preflight has ended"
    );
    jobs::end(&cluster, &preflight, &jobs::success(&preflight)).await;
    let restore = jobs::of_step(&cluster, &ns, "restore/0/web").await;
    assert_eq!(cluster.get(&deployment).await["spec"]["replicas"], 0);
    let running = cluster.until(&object, "quiesced", |o| o["status"]["quiesce"]["state"] == "Quiesced").await;
    assert_eq!(running["status"]["quiesce"]["replicas"], 2);
    assert_eq!(condition(&running, "Quiesced"), ("True", "ScaledToZero"));
    for job in [&preflight, &restore] {
        assert_eq!(jobs::task(job).run.id, uid);
        let text = json!(job).to_string();
        assert!(
            !text.contains("argocd") && !text.contains("app.kubernetes.io/instance"),
            "trackers are not copied: {text}"
        );
        assert!(text.contains(r#""app.kubernetes.io/component":"stash-restore""#));
        assert_eq!(job.metadata.owner_references.as_ref().unwrap()[0].uid, uid);
    }
    jobs::end(&cluster, &restore, &jobs::success(&restore)).await;
    let done = cluster.until(&object, "released", |o| o["status"]["phase"] == "Succeeded" && !jobs::is_held(o)).await;

    let status = &done["status"];
    assert_eq!((&status["run"]["id"], &status["totalHosts"]), (&json!(uid), &json!(1)));
    assert_eq!(status["stats"][0]["hostname"], "web");
    assert_eq!(status["stats"][0]["restored"], json!({ "files": 7, "bytes": 70 }));
    assert_eq!(status["stats"][0]["snapshots"][0]["id"], "ab".repeat(32));
    for (type_, expected) in [
        ("RepositoryFound", ("True", "RepositoryAvailable")),
        ("BackendSecretFound", ("True", "BackendSecretAvailable")),
        ("ValidationPassed", ("True", "ResourceValidationPassed")),
        ("RestoreTargetFound", ("True", "TargetAvailable")),
        ("RestoreJobCreated", ("True", "RestoreJobCreationSucceeded")),
        ("RestoreExecutorEnsured", ("True", "SuccessfullyEnsuredRestoreExecutor")),
        ("Quiesced", ("False", "ScaledBack")),
        ("Ready", ("True", "Succeeded")),
        ("Reconciling", ("", "")),
        ("Stalled", ("", "")),
    ] {
        assert_eq!(condition(&done, type_), expected, "{type_}");
    }
    assert_eq!(message(&done, "RepositoryFound"), format!("Repository {ns}/repo exists."));
    assert_eq!(message(&done, "BackendSecretFound"), format!("Backend Secret {ns}/secret exists."));
    assert_eq!(message(&done, "RestoreTargetFound"), "Restore target Deployment/web found.");
    assert_eq!(message(&done, "RestoreJobCreated"), "Successfully created restore job.");
    assert_eq!(cluster.get(&deployment).await["spec"]["replicas"], 2);
    assert_eq!(events(&cluster, &ns, "run", 1).await, [("Normal".to_owned(), "Succeeded".to_owned())]);
    let of_workload = ["ScalingDown", "ScaledBack"].map(|reason| ("Normal".to_owned(), reason.to_owned()));
    assert_eq!(events(&cluster, &ns, "web", 2).await, of_workload);
    assert_eq!(done["status"]["conditions"][0]["type"], "Ready");
    let (columns, cells) =
        cluster.row(&format!("/apis/stash.appscode.com/v1beta1/namespaces/{ns}/restoresessions/run")).await;
    assert_eq!(columns[..6], ["Name", "Repository", "Phase", "Duration", "Age", "Status"]);
    assert_eq!(
        (&cells[1], &cells[2], &cells[5]),
        (&json!("repo"), &json!("Succeeded"), &json!("Restored 1 host: 7 entries, 70 B."))
    );

    // A finished run causes no more writes, even by a new operator.
    drop(operator);
    let written = done["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let again = Operator::leading(&cluster).await;
    // The operator would write in its first reconcile.
    eventually("a look at it", SOON, || async {
        let (_, text) = again.page("/metrics").await.ok_or("no answer".to_owned())?;
        let looks = text.lines().filter(|l| l.starts_with("lifeboat_reconciles_total{kind=\"RestoreSession\""));
        if looks.clone().any(|l| !l.ends_with(" 0")) { Ok(()) } else { Err(format!("{:?}", looks.collect::<Vec<_>>())) }
    })
    .await;
    let params = WatchParams::default().fields("metadata.name=run").timeout(3);
    let api = cluster.api_of(&done);
    let quiet = api.watch(&params, &written).await.unwrap().boxed();
    let changes: Vec<_> = quiet.collect().await;
    assert!(changes.iter().all(|c| matches!(c, Ok(WatchEvent::Bookmark(_)))), "{changes:?}");
    assert!(versions.end().len() >= 5, "the watch saw the run");
}

/// Proves: invented 5.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_batch_goes_in_order_and_stops_at_a_failure() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("batch").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &["a", "b", "c"], &[]).await;
    let members: Vec<Value> = ["a", "b", "c"].map(|n| json!({ "target": target("PersistentVolumeClaim", n) })).to_vec();
    let object = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch",
        "metadata": { "name": "run", "namespace": ns },
        "spec": { "repository": { "name": "repo" }, "maintainOrder": true, "members": members } });
    cluster.apply(&object).await.unwrap();
    let versions = Versions::of(&cluster, &object);
    jobs::succeed(&cluster, &ns, "preflight").await;
    let first = jobs::of_step(&cluster, &ns, "restore/0/a").await;
    cluster
        .until(&object, "first of three", |o| {
            o["status"]["summary"]
                .as_str()
                .is_some_and(|s| s.starts_with("0 of 3 members restored; member 0 (a): restoring"))
        })
        .await;
    assert_eq!(jobs::keys(&cluster, &ns).await.len(), 2, "one after another");
    jobs::end(&cluster, &first, &jobs::success(&first)).await;
    let second = jobs::of_step(&cluster, &ns, "restore/1/b").await;
    assert_eq!(jobs::keys(&cluster, &ns).await.len(), 3);
    jobs::end(&cluster, &second, &jobs::damaged(&second)).await;
    let done = cluster.until(&object, "released", |o| o["status"]["phase"] == "Failed" && !jobs::is_held(o)).await;
    let phases: Vec<_> =
        done["status"]["members"].as_array().unwrap().iter().map(|m| m["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["Succeeded", "Failed", "Skipped"]);
    assert_eq!(condition(&done, "Stalled"), ("True", "DataCorrupt"));
    assert_eq!(condition(&done, "Ready"), ("False", "DataCorrupt"));
    let line = "Member 1 (b) failed: host b: Pack 1234 is damaged. Run restic check. (1 of 3 members restored, 1 not started.)";
    assert_eq!(done["status"]["summary"], line);
    let (_, cells) = cluster.row(&format!("/apis/stash.appscode.com/v1beta1/namespaces/{ns}/restorebatches/run")).await;
    assert_eq!((&cells[2], &cells[5]), (&json!("Failed"), &json!(line)));
    assert_eq!(events(&cluster, &ns, "run", 2).await, vec![("Warning".to_owned(), "DataCorrupt".to_owned()); 2]);
    assert_eq!(jobs::keys(&cluster, &ns).await.len(), 3, "the third is not begun");
    versions.end();
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn a_run_waits_for_what_is_missing_and_says_so() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("waits").await;
    let _operator = Operator::leading(&cluster).await;
    let object = session(&ns, &target("PersistentVolumeClaim", "a"));
    cluster.apply(&object).await.unwrap();
    let waiting = cluster.until_phase(&object, "Pending").await;
    assert_eq!(waiting["status"]["summary"], format!("Waiting: Repository {ns}/repo does not exist."));
    assert_eq!(condition(&waiting, "RepositoryFound"), ("False", "RepositoryNotAvailable"));
    ground(&cluster, &ns, &["a"], &[]).await;
    jobs::of_step(&cluster, &ns, "preflight").await;
    cluster.until_phase(&object, "Running").await;
}

/// Proves: C08, invented 17.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn deletion_in_the_middle_stops_leaves_the_workload_down_and_lets_go() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("deleted").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &["web"]).await;
    let deployment =
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": ns } });
    let object = session(&ns, &target("Deployment", "web"));
    cluster.apply(&object).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    let restore = jobs::of_step(&cluster, &ns, "restore/").await;
    cluster.delete(&object).await;
    let stays = cluster.get(&object).await;
    assert!(jobs::is_held(&stays), "held while its Job runs");
    assert_eq!(cluster.get(&deployment).await["spec"]["replicas"], 0, "not scaled back while the Job writes");
    jobs::collect(&cluster, &restore).await;
    cluster.until(&object, "gone", Value::is_null).await;
    let web = cluster.get(&deployment).await;
    assert_eq!(web["spec"]["replicas"], 0, "its data is half restored");
    assert!(web["metadata"]["annotations"][lifeboat::names::annotation::HELD_DOWN].is_string(), "{web:#}");
    // A run that has not begun is deleted at once.
    let object = session(&ns, &target("PersistentVolumeClaim", "nothing"));
    cluster.apply(&object).await.unwrap();
    cluster.until_phase(&object, "Pending").await;
    cluster.delete(&object).await;
    cluster.until(&object, "gone", Value::is_null).await;
}
