//! Rows 2 and 12: forged Jobs and pods that pose as a step of another tenant's run.

use lifeboat::names::child_name;
use serde_json::{Value, json};

use super::actors::Role;
use super::cluster::{condition, message};
use super::forged::{self, Forged, kept, owned, preflight, restored};
use super::scene::{Scene, leading, name, real_job, shows, uid};

/// Row 2, first: rt-b's restore reported Succeeded with 4711 entries and without a Job of its own.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn pods_of_another_namespace_end_no_restore() {
    let scene = Scene::enter("pods").await;
    let attacker = scene.attacker(Role::Edit).await;
    let operator = leading(&scene, &[]).await;
    let victim = scene.victim("run").await;
    real_job(&scene.cluster, &victim, "preflight").await;
    let pod = Forged::new(&victim, "preflight", "preflight/x").pod("p", &scene.a);
    forged::run(&scene.cluster, &attacker, &pod, &preflight(&victim)).await;
    let pod = Forged::new(&victim, "restore", "restore/0/a").pod("r", &scene.a);
    forged::run(&scene.cluster, &attacker, &pod, &restored(&victim)).await;
    scene.looked_at(&operator, &victim).await;
    scene.goes_well(&victim).await;
}

/// Row 2, second: rt-b's own Job restored the snapshot that rt-a chose.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_pod_of_another_namespace_chooses_no_snapshot() {
    let scene = Scene::enter("choice").await;
    let attacker = scene.attacker(Role::Edit).await;
    let operator = leading(&scene, &[]).await;
    let victim = scene.victim("run").await;
    let real = real_job(&scene.cluster, &victim, "preflight").await;
    // The same key and name as the real Job.
    let key = super::jobs::key(&real);
    let pod = Forged::new(&victim, "preflight", &key).pod(real.metadata.name.as_deref().unwrap(), &scene.a);
    forged::run(&scene.cluster, &attacker, &pod, &preflight(&victim)).await;
    scene.looked_at(&operator, &victim).await;
    scene.goes_well(&victim).await;
}

/// Row 2, third: the operator deleted rt-b's `victim-cron`, which it had never created.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn no_job_is_deleted_because_another_namespace_has_one_of_its_name() {
    let scene = Scene::enter("cron").await;
    let attacker = scene.attacker(Role::Edit).await;
    let operator = leading(&scene, &[]).await;
    let own = json!({ "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": "victim-cron", "namespace": scene.b, "annotations": {
            lifeboat::names::annotation::STEP_KEY: "none of Lifeboat" },
            "labels": { lifeboat::names::label::SESSION_KIND: "none" } },
        "spec": { "suspend": true, "template": { "spec": { "restartPolicy": "Never",
            "containers": [{ "name": "c", "image": "localhost/none:1" }] } } } });
    let own = scene.cluster.apply(&own).await.unwrap();
    let victim = scene.victim("run").await;
    real_job(&scene.cluster, &victim, "preflight").await;
    for (step, key) in [("restore", "restore/0/a"), ("preflight", "preflight/x")] {
        let job = Forged::new(&victim, step, key).attempt("0").job("victim-cron", &scene.a);
        attacker.create(&job).await;
        scene.looked_at(&operator, &victim).await;
        if step == "restore" {
            attacker.delete(&job).await;
            scene.cluster.until(&job, "gone", Value::is_null).await;
        }
    }
    scene.goes_well(&victim).await;
    let now = scene.cluster.get(&own).await;
    assert_eq!(now["metadata"]["uid"], own["metadata"]["uid"]);
    assert!(now["metadata"]["deletionTimestamp"].is_null(), "{:#}", now["metadata"]);
}

/// An addition of the page: an owner reference was trusted, and a finalizer kept the object from the garbage collector.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn an_owner_in_another_namespace_is_none() {
    let scene = Scene::enter("owner").await;
    let attacker = scene.attacker(Role::Edit).await;
    let operator = leading(&scene, &[]).await;
    let victim = scene.victim("run").await;
    real_job(&scene.cluster, &victim, "preflight").await;
    let asks = Forged::new(&victim, "preflight", "preflight/x").pod("p", &scene.a);
    forged::run(&scene.cluster, &attacker, &kept(owned(asks, &victim, true)), &preflight(&victim)).await;
    let writes = Forged::new(&victim, "restore", "restore/0/a").pod("r", &scene.a);
    forged::run(&scene.cluster, &attacker, &kept(owned(writes, &victim, true)), &restored(&victim)).await;
    scene.looked_at(&operator, &victim).await;
    scene.goes_well(&victim).await;
}

/// The name that the operator gives to the Job of a step of a restore.
pub fn job_name(session: &Value, step: &str, key: &str, attempt: &str) -> String {
    child_name(&format!("stash-restore-{}-{step}", name(session)), &[&uid(session), key, attempt])
}

/// Row 12: the session hung at "Resolving snapshots." without a message.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_job_that_has_the_name_already_is_named_and_not_waited_for() {
    let scene = Scene::enter("taken").await;
    let attacker = scene.attacker(Role::Edit).await;
    let _operator = leading(&scene, &[]).await;
    // The session is created while the claim is missing, so that the names of its Jobs are known beforehand.
    let mut session = super::jobs::session(&scene.a, &super::jobs::target("PersistentVolumeClaim", "a"));
    session["spec"]["repository"] = json!({ "name": "repo", "namespace": scene.b });
    scene.allow(json!({ "from": "All" })).await;
    let session = attacker.create(&session).await;
    scene.cluster.until_phase(&session, "Pending").await;
    let key = format!("preflight/{}", lifeboat::names::hash_of(&["0/a"]));
    let taken = job_name(&session, "preflight", &key, "1");
    let job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": taken, "namespace": scene.a },
        "spec": { "suspend": true, "template": { "spec": { "restartPolicy": "Never",
            "containers": [{ "name": "c", "image": "localhost/none:1" }] } } } });
    attacker.create(&job).await;
    scene.claim_of_attacker(&attacker).await;
    let told = scene
        .cluster
        .until(&session, "told that the name is taken", |o| shows(o, &taken) && o["status"]["phase"] == "Failed")
        .await;
    assert_eq!(condition(&told, "Stalled").0, "True", "{}", message(&told, "Ready"));
    assert!(!scene.cluster.get(&job).await["metadata"]["uid"].is_null(), "it is not the operator's to delete");
}
