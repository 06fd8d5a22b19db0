//! Row 3: the holders of the slots of a Repository.

use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::actors::Role;
use super::cluster::{SOON, condition, eventually};
use super::forged::Forged;
use super::jobs;
use super::scene::{Scene, leading, real_job, real_jobs};

/// Number of Jobs that may work on a Repository at once.
const PLACES: usize = 4;
/// The holders of slots are written to the status every 30 seconds.
const TOLD_WITHIN: Duration = Duration::from_secs(45);
const FLAGS: [&str; 2] = ["--jobs-per-repository", "4"];

/// Creates suspended Jobs that claim to work on the victim's Repository, one more than there are slots.
async fn pretend(scene: &Scene, attacker: &super::actors::Actor, of: &Value) {
    for n in 0..=PLACES {
        let mut job = Forged::new(of, "restore", &format!("restore/0/{n}")).job(&format!("place-{n}"), &scene.a);
        job["metadata"]["annotations"][lifeboat::names::annotation::REPOSITORY] = format!("{}/repo", scene.b).into();
        attacker.create(&job).await;
    }
}

/// An object of that kind that does not exist, so that no session owns the Jobs.
fn nobody(kind: &str) -> Value {
    json!({ "kind": kind, "metadata": { "name": "nobody", "uid": "11111111-2222-3333-4444-555555555555" } })
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn jobs_that_no_session_owns_hold_no_place() {
    let scene = Scene::enter("places").await;
    let attacker = scene.attacker(Role::Edit).await;
    pretend(&scene, &attacker, &nobody("RestoreSession")).await;
    // An operator that starts lists all Jobs before it reconciles.
    let _operator = leading(&scene, &FLAGS).await;
    let victim = scene.victim("run").await;
    scene.goes_well(&victim).await;
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn jobs_that_no_session_owns_hold_no_deletion_up() {
    let scene = Scene::enter("wipe").await;
    let attacker = scene.attacker(Role::Edit).await;
    scene.cluster.patch(&scene.repository(), json!({ "spec": { "wipeOut": true } })).await.unwrap();
    pretend(&scene, &attacker, &nobody("RestoreSession")).await;
    let _operator = leading(&scene, &FLAGS).await;
    scene.cluster.until(&scene.repository(), "held", jobs::is_held).await;
    let repository = scene.cluster.get(&scene.repository()).await;
    scene.cluster.delete(&repository).await;
    let wipe = real_job(&scene.cluster, &repository, "wipe").await;
    jobs::end(&scene.cluster, &wipe, &jobs::success(&wipe)).await;
    scene.cluster.until(&repository, "gone", Value::is_null).await;
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn jobs_in_the_name_of_the_victims_own_session_hold_no_place() {
    let scene = Scene::enter("named").await;
    let attacker = scene.attacker(Role::Edit).await;
    let _operator = leading(&scene, &FLAGS).await;
    let first = scene.victim("first").await;
    real_job(&scene.cluster, &first, "preflight").await;
    pretend(&scene, &attacker, &first).await;
    scene.goes_well(&first).await;
    // By now the watch has delivered the Jobs.
    let second = scene.victim("second").await;
    scene.goes_well(&second).await;
}

/// A tenant who may use the Repository, with Jobs that never start.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn one_namespace_does_not_take_every_place_of_a_shared_repository() {
    let scene = Scene::enter("share").await;
    let attacker = scene.attacker(Role::Edit).await;
    scene.allow(json!({ "from": "All" })).await;
    let _operator = leading(&scene, &FLAGS).await;
    for n in 0..2 * PLACES {
        // Each session has its own target, so that none waits for another.
        let claim = format!("a-{n}");
        attacker
            .create(&json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": { "name": claim, "namespace": scene.a },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }))
            .await;
        let mut session = scene.restore_from_victim(&format!("run-{n}"));
        session["spec"]["target"]["ref"]["name"] = claim.as_str().into();
        session["spec"]["target"]["alias"] = claim.as_str().into();
        session["spec"]["runtimeSettings"] = json!({ "pod": { "nodeSelector": { "no": "node" } } });
        attacker.create(&session).await;
    }
    eventually("the attacker has what he can get", SOON * 2, || async {
        let mut waiting = 0;
        for n in 0..2 * PLACES {
            let now = attacker.get(&scene.restore_from_victim(&format!("run-{n}"))).await;
            waiting += usize::from(condition(&now, "Reconciling").1 == "RepositoryBusy");
        }
        if waiting >= PLACES { Ok(()) } else { Err(format!("{waiting} wait")) }
    })
    .await;
    let victim = scene.victim("run").await;
    scene.goes_well(&victim).await;
    // The owner of the Repository sees the holders of the other slots.
    eventually("it names who holds the places", TOLD_WITHIN, || async {
        let slots = scene.cluster.get(&scene.repository()).await["status"]["slots"].clone();
        if slots["holders"].to_string().contains(&scene.a) { Ok(()) } else { Err(slots.to_string()) }
    })
    .await;
    let held = jobs::all(&scene.cluster, &scene.a).await;
    assert!(held.iter().filter(|j| j.metadata.deletion_timestamp.is_none()).count() < PLACES, "{}", held.len());
    assert!(held.iter().all(|j| j.name_any().starts_with("stash-restore-")));
    assert!(real_jobs(&scene.cluster, &victim).await.len() <= 2);
}
