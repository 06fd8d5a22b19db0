//! Workloads that stay at zero because their data is half restored: annotation and event on a real API server, and the
//! restore that scales them up again.

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use lifeboat::names::annotation::HELD_DOWN;
use lifeboat::plan::restore::held_note::Note;
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, condition, eventually, message};
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

fn workload(ns: &str, kind: &str) -> Value {
    let version = if kind == "ReplicationController" { "v1" } else { "apps/v1" };
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "web", "namespace": ns } })
}

fn note(workload: &Value) -> Option<Note> {
    workload["metadata"]["annotations"][HELD_DOWN].as_str().map(|text| Note::read(text).unwrap())
}

/// Waits for the warning event of a workload, which `kubectl describe` shows.
async fn told(cluster: &Cluster, ns: &str, workload: &Value) -> String {
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), ns);
    eventually("the event on the workload", SOON, || async {
        let all = api.list(&ListParams::default()).await.unwrap().items;
        let about = |e: &Event| {
            let r = e.regarding.clone().unwrap_or_default();
            r.uid.as_deref() == workload["metadata"]["uid"].as_str() && r.kind.as_deref() == workload["kind"].as_str()
        };
        let mut ours = all.into_iter().filter(|e| e.reason.as_deref() == Some("HeldDown") && about(e));
        ours.next().and_then(|e| e.note).ok_or("none".to_owned())
    })
    .await
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn what_is_canceled_in_the_middle_stays_down_until_the_next_restore_succeeds() {
    let cluster = Cluster::enter().await;
    let ns = cluster.namespace("held").await;
    let _operator = Operator::leading(&cluster).await;
    ground(&cluster, &ns, &[], &["web"]).await;
    let object = session(&ns, &target("Deployment", "web"));
    cluster.apply(&object).await.unwrap();
    jobs::succeed(&cluster, &ns, "preflight").await;
    let running = jobs::of_step(&cluster, &ns, "restore/0/web").await;
    let before = cluster.get(&workload(&ns, "Deployment")).await;
    cluster.patch(&object, json!({ "spec": { "cancel": true } })).await.unwrap();
    jobs::collect(&cluster, &running).await;
    let done = cluster.until(&object, "released", |o| o["status"]["phase"] == "Failed" && !jobs::is_held(o)).await;
    assert_eq!(
        (&done["status"]["quiesce"]["state"], condition(&done, "Quiesced")),
        (&json!("Held"), ("True", "HeldDown"))
    );
    assert!(
        message(&done, "Ready").contains("stays at 0 replicas and had 2: restore it again"),
        "{:#}",
        done["status"]
    );
    let web = cluster.get(&workload(&ns, "Deployment")).await;
    let left = note(&web).unwrap();
    assert_eq!((&web["spec"]["replicas"], left.replicas), (&json!(0), 2));
    assert_eq!(left.session, format!("RestoreSession/{ns}/run"));
    assert_eq!(Some(left.uid.as_str()), done["metadata"]["uid"].as_str());
    assert_eq!(web["spec"]["template"], before["spec"]["template"], "the pod template is never written");
    let text = told(&cluster, &ns, &web).await;
    assert!(text.contains(&format!("kubectl -n {ns} scale deployment/web --replicas=2")), "{text}");

    // The session may be deleted: the workload keeps the data that the operator needs.
    cluster.delete(&object).await;
    cluster.until(&object, "gone", Value::is_null).await;

    // The workload is not backed up in this state.
    let configuration = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration",
        "metadata": { "name": "files", "namespace": ns }, "spec": { "repository": { "name": "repo" },
        "retentionPolicy": { "name": "keep", "keepLast": 1, "prune": true }, "target": { "alias": "web",
        "ref": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }], "paths": ["/data"] } } });
    cluster.apply(&configuration).await.unwrap();
    cluster.until(&configuration, "not ready", |o| condition(o, "Ready") == ("False", "HeldDown")).await;
    let backup = super::backups::session(&ns, "too-early");
    cluster.apply(&backup).await.unwrap();
    jobs::succeed(&cluster, &ns, "prepare").await;
    let failed = cluster.until_phase(&backup, "Failed").await;
    assert_eq!(condition(&failed, "Ready").1, "HeldDown");
    assert!(message(&failed, "Ready").contains("left its data half restored"), "{:#}", failed["status"]);

    // A restore of other data does not scale it up.
    let mut part = session(&ns, &target("Deployment", "web"));
    part["metadata"]["name"] = "part".into();
    part["spec"]["target"]["rules"] = json!([{ "paths": ["/data/part"] }]);
    cluster.apply(&part).await.unwrap();
    let uid = cluster.get(&part).await["metadata"]["uid"].as_str().unwrap().to_owned();
    jobs::succeed_of(&cluster, &ns, "preflight", &uid).await;
    jobs::succeed_of(&cluster, &ns, "restore/0/web", &uid).await;
    let done = cluster.until(&part, "released", |o| o["status"]["phase"] == "Succeeded" && !jobs::is_held(o)).await;
    assert!(message(&done, "Ready").contains("Deployment/web stays at 0 replicas"), "{:#}", done["status"]);
    assert!(message(&done, "Quiesced").contains("did not restore / of PersistentVolumeClaim web"), "{done:#}");
    let web = cluster.get(&workload(&ns, "Deployment")).await;
    assert_eq!((&web["spec"]["replicas"], note(&web)), (&json!(0), Some(left)));

    let mut again = session(&ns, &target("Deployment", "web"));
    again["metadata"]["name"] = "again".into();
    cluster.apply(&again).await.unwrap();
    let uid = cluster.get(&again).await["metadata"]["uid"].as_str().unwrap().to_owned();
    jobs::succeed_of(&cluster, &ns, "preflight", &uid).await;
    jobs::succeed_of(&cluster, &ns, "restore/0/web", &uid).await;
    let done = cluster.until(&again, "released", |o| o["status"]["phase"] == "Succeeded" && !jobs::is_held(o)).await;
    assert_eq!((&done["status"]["quiesce"]["replicas"], &done["status"]["quiesce"]["held"]), (&json!(2), &json!(true)));
    let web = cluster.get(&workload(&ns, "Deployment")).await;
    assert_eq!((&web["spec"]["replicas"], note(&web)), (&json!(2), None));
}

/// The permission to write a status is enough for the annotation, for every kind.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn each_kind_that_is_scaled_can_say_that_it_stays_down() {
    let cluster = Cluster::enter().await;
    let all = [("StatefulSet", false), ("StatefulSet", true), ("ReplicaSet", false), ("ReplicationController", false)];
    let namespaces = cluster.namespaces("held", all.len()).await;
    let _operator = Operator::leading(&cluster).await;
    for ((kind, templates), ns) in all.into_iter().zip(namespaces) {
        // Claims remain of a StatefulSet that had more replicas.
        ground(&cluster, &ns, if templates { &["data-web-0", "data-web-1", "data-web-2"] } else { &["web"] }, &[])
            .await;
        let labels = json!({ "app": "web" });
        let selector = if kind == "ReplicationController" { labels.clone() } else { json!({ "matchLabels": labels }) };
        let mut object = workload(&ns, kind);
        object["spec"] = json!({ "replicas": 1, "selector": selector, "template": { "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "c", "image": "localhost/none:1" }],
                "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "web" } }] } } });
        if kind == "StatefulSet" {
            object["spec"]["serviceName"] = "web".into();
        }
        if templates {
            object["spec"]["template"]["spec"].as_object_mut().unwrap().remove("volumes");
            object["spec"]["volumeClaimTemplates"] = json!([{ "metadata": { "name": "data" }, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }]);
        }
        cluster.apply(&object).await.unwrap();
        let mut of = target(kind, "web");
        of["ref"]["apiVersion"] = object["apiVersion"].clone();
        let run = session(&ns, &of);
        cluster.apply(&run).await.unwrap();
        jobs::succeed(&cluster, &ns, "preflight").await;
        let job = jobs::of_step(&cluster, &ns, "restore/0/").await;
        jobs::end(&cluster, &job, &jobs::damaged(&job)).await;
        cluster.until_phase(&run, "Failed").await;
        let left = cluster.get(&object).await;
        assert_eq!((&left["spec"]["replicas"], note(&left).map(|n| n.replicas)), (&json!(0), Some(1)), "{kind}");
        told(&cluster, &ns, &left).await;

        // The workload keeps its hosts, and the next restore of them scales it up.
        let mut again = run.clone();
        again["metadata"]["name"] = "again".into();
        cluster.apply(&again).await.unwrap();
        let uid = cluster.get(&again).await["metadata"]["uid"].as_str().unwrap().to_owned();
        jobs::succeed_of(&cluster, &ns, "preflight", &uid).await;
        jobs::succeed_of(&cluster, &ns, "restore/0/", &uid).await;
        let done = cluster.until_phase(&again, "Succeeded").await;
        assert_eq!(done["status"]["stats"].as_array().unwrap().len(), 1, "{kind}: {:#}", done["status"]);
        let back = cluster.get(&object).await;
        assert_eq!((&back["spec"]["replicas"], note(&back)), (&json!(1), None), "{kind}");
    }
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn what_was_not_touched_or_is_wanted_back_is_scaled_back() {
    let cluster = Cluster::enter().await;
    let all = [("untouched", None, true), ("wanted", Some("ScaleBack"), false)];
    let namespaces = cluster.namespaces("back", all.len()).await;
    let _operator = Operator::leading(&cluster).await;
    for ((name, after, untouched), ns) in all.into_iter().zip(namespaces) {
        ground(&cluster, &ns, &[], &["web"]).await;
        let mut of = target("Deployment", "web");
        if let Some(after) = after {
            of["afterFailure"] = after.into();
        }
        let run = session(&ns, &of);
        cluster.apply(&run).await.unwrap();
        jobs::succeed(&cluster, &ns, "preflight").await;
        let job = jobs::of_step(&cluster, &ns, "restore/0/web").await;
        let mut outcome = jobs::damaged(&job);
        outcome.untouched = untouched;
        jobs::end(&cluster, &job, &outcome).await;
        cluster.until_phase(&run, "Failed").await;
        let web = cluster.get(&workload(&ns, "Deployment")).await;
        assert_eq!((&web["spec"]["replicas"], note(&web)), (&json!(2), None), "{name}");
    }
}
