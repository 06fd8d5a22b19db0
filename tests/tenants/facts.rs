//! Row 5, and other reports of a run about a Repository or in the operator's metrics.

use std::time::Duration;

use lifeboat::contract::Class;
use lifeboat::names::reason;
use serde_json::{Value, json};

use super::actors::{Actor, Role};
use super::cluster::{condition, eventually};
use super::forged::{self, Forged, TEXT, failed, owned};
use super::jobs;
use super::scene::{Scene, leading, real_job, real_jobs, shows, uid};

/// The victim's Repository stays reachable, and contains nothing from the attacker.
async fn nothing_is_told(scene: &Scene) {
    let victim = scene.victim("after").await;
    scene.goes_well(&victim).await;
    let now = scene.cluster.get(&scene.repository()).await;
    assert!(!shows(&now, TEXT), "{:#}", now["status"]);
    assert_ne!(now["status"]["reachability"]["reachable"], false, "{:#}", now["status"]);
    assert_ne!(condition(&now, "Reachable").0, "False");
}

/// Creates a Job and its pod for a step of the attacker's own session, with the names and owners of real ones.
async fn lie(scene: &Scene, attacker: &Actor, session: &Value, outcome: &lifeboat::contract::Outcome) {
    let key = format!("preflight/{}", lifeboat::names::hash_of(&["0/a"]));
    let forged = Forged::new(session, "preflight", &key);
    let name = super::children::job_name(session, "preflight", &key, "1");
    let job = attacker.create(&owned(forged.job(&name, &scene.a), session, true)).await;
    let pod = owned(forged.pod(&format!("{name}-x"), &scene.a), &job, true);
    forged::run(&scene.cluster, attacker, &pod, outcome).await;
}

fn away(session: &Value) -> lifeboat::contract::Outcome {
    failed(session, Class::Transient, reason::REPOSITORY_UNREACHABLE)
}

/// A session that was admitted because the Repository did not exist yet, and a pod with its uid.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn who_may_not_use_a_repository_says_nothing_of_it() {
    let scene = Scene::enter("facts").await;
    let attacker = scene.attacker(Role::Edit).await;
    scene.claim_of_attacker(&attacker).await;
    let repository = scene.cluster.get(&scene.repository()).await;
    scene.cluster.delete(&scene.repository()).await;
    let _operator = leading(&scene, &[]).await;
    let session = attacker.create(&scene.restore_from_victim("early")).await;
    scene.cluster.until_phase(&session, "Invalid").await;
    let pod = Forged::new(&session, "preflight", "preflight/x").pod("p", &scene.a);
    forged::run(&scene.cluster, &attacker, &pod, &away(&session)).await;
    let mut again = repository.clone();
    again["metadata"] = json!({ "name": "repo", "namespace": scene.b });
    again.as_object_mut().unwrap().remove("status");
    scene.cluster.apply(&again).await.unwrap();
    let refused = |o: &Value| condition(o, "RepositoryFound").0 == "False" && o["status"]["phase"] == "Invalid";
    scene.cluster.until(&session, "kept out", refused).await;
    nothing_is_told(&scene).await;
    assert!(real_jobs(&scene.cluster, &session).await.is_empty());
}

/// The same with a Job of the right name that the session owns: its author can forge this Job.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn who_may_not_use_a_repository_says_nothing_of_it_by_a_job_of_the_right_name() {
    let scene = Scene::enter("named").await;
    let attacker = scene.attacker(Role::Edit).await;
    scene.claim_of_attacker(&attacker).await;
    let repository = scene.cluster.get(&scene.repository()).await;
    scene.cluster.delete(&scene.repository()).await;
    let _operator = leading(&scene, &[]).await;
    let session = attacker.create(&scene.restore_from_victim("early")).await;
    scene.cluster.until_phase(&session, "Invalid").await;
    lie(&scene, &attacker, &session, &away(&session)).await;
    let mut again = repository.clone();
    again["metadata"] = json!({ "name": "repo", "namespace": scene.b });
    again.as_object_mut().unwrap().remove("status");
    scene.cluster.apply(&again).await.unwrap();
    let refused = |o: &Value| condition(o, "RepositoryFound").0 == "False";
    scene.cluster.until(&session, "kept out", refused).await;
    nothing_is_told(&scene).await;
}

/// A tenant who may use the Repository can simply run a pod that lies. The Repository checks its store itself, and
/// reports its own result.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn who_may_use_a_repository_does_not_shut_it_by_a_lie() {
    let (scene, attacker) = Scene::shared("lie").await;
    let _operator = leading(&scene, &[]).await;
    let session = attacker.create(&scene.restore_from_victim("lies")).await;
    let job = real_job(&scene.cluster, &session, "preflight").await;
    jobs::end(&scene.cluster, &job, &away(&session)).await;
    let tried = |o: &Value| o["status"].to_string().contains(reason::REPOSITORY_UNREACHABLE);
    scene.cluster.until(&session, "taken note of", tried).await;
    nothing_is_told(&scene).await;
}

/// The operator sets the labels of metrics: a run that invents reasons would fill its memory and that of Prometheus.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_run_invents_no_label_of_a_metric() {
    let (scene, attacker) = Scene::shared("label").await;
    let operator = leading(&scene, &[]).await;
    let session = attacker.create(&scene.restore_from_victim("lies")).await;
    let job = real_job(&scene.cluster, &session, "preflight").await;
    jobs::end(&scene.cluster, &job, &jobs::success(&job)).await;
    let job = real_job(&scene.cluster, &session, "restore/").await;
    jobs::end(&scene.cluster, &job, &failed(&session, Class::Data, "MalloryWasHere")).await;
    let done = scene.cluster.until_phase(&session, "Failed").await;
    assert!(!done["status"]["conditions"].to_string().contains("\"MalloryWasHere\""), "{:#}", done["status"]);
    // The status is written before the metrics are updated.
    let counted = async || match operator.page("/metrics").await {
        Some((_, metrics)) if metrics.contains("lifeboat_outcomes_total") => Ok(metrics),
        other => Err(format!("{other:?}")),
    };
    let metrics = eventually("counted", Duration::from_secs(10), counted).await;
    assert!(!metrics.contains("Mallory"), "{metrics}");
    assert!(!metrics.contains(&uid(&session)));
}
