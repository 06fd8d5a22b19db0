//! Row 4: remains of a permission that was revoked, and the longest time of a run.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::actors::{Actor, Role, code, is_denied};
use super::cluster::{SOON, eventually};
use super::scene::{Scene, leading, real_job, real_jobs, uid};

/// A run that may use the victim's Repository and never makes progress, and a client with the token of its Jobs.
async fn kept_open(scene: &Scene, attacker: &Actor, name: &str) -> (Value, Client) {
    let mut session = scene.restore_from_victim(name);
    session["spec"]["timeOut"] = "100h".into();
    session["spec"]["runtimeSettings"] = json!({ "pod": { "nodeSelector": { "no": "node" } } });
    let session = attacker.create(&session).await;
    let job = real_job(&scene.cluster, &session, "preflight").await;
    let account = job.spec.unwrap().template.spec.unwrap().service_account_name.unwrap();
    let bearer = attacker.as_account(&account).await;
    let secrets = Api::<Secret>::namespaced(bearer.clone(), &scene.b);
    eventually("the right is there", SOON, || async {
        let answer = code(secrets.get("secret").await);
        if answer == 200 { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    (session, bearer)
}

/// Nothing of the run remains: no Secret, no right, no Job.
async fn all_is_taken_back(scene: &Scene, session: &Value, bearer: &Client) {
    right_is_taken_back(scene, session, bearer).await;
    eventually("its Jobs are stopped", SOON, || async {
        let runs = |j: &Job| j.metadata.deletion_timestamp.is_none();
        let left: Vec<_> =
            real_jobs(&scene.cluster, session).await.into_iter().filter(runs).map(|j| j.name_any()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// Checks only the right: the garbage collector, which does not run here, deletes the Jobs with their owner.
async fn right_is_taken_back(scene: &Scene, session: &Value, bearer: &Client) {
    let secrets = Api::<Secret>::namespaced(bearer.clone(), &scene.b);
    eventually("the Secret cannot be read any more", SOON, || async {
        let answer = code(secrets.get("secret").await);
        if is_denied(answer) { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    let bindings = Api::<RoleBinding>::namespaced(scene.cluster.client.clone(), &scene.b);
    let of_run = ListParams::default().labels(&format!("{}={}", lifeboat::names::label::SESSION_UID, uid(session)));
    assert!(bindings.list(&of_run).await.unwrap().items.is_empty());
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn the_secret_cannot_be_read_after_the_policy_is_taken_back() {
    let (scene, attacker) = Scene::shared("revoked").await;
    let _operator = leading(&scene, &[]).await;
    let (session, bearer) = kept_open(&scene, &attacker, "open").await;
    scene.allow(json!({ "from": "Same" })).await;
    all_is_taken_back(&scene, &session, &bearer).await;
    // A new value of the Secret cannot be read either.
    let secret =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "secret", "namespace": scene.b } });
    scene.cluster.patch(&secret, json!({ "stringData": { "RESTIC_PASSWORD": "rotated" } })).await.unwrap();
    let answer = code(Api::<Secret>::namespaced(bearer, &scene.b).get("secret").await);
    assert!(is_denied(answer), "{answer}");
    // The run does not start again.
    let victim = scene.victim("run").await;
    scene.goes_well(&victim).await;
    assert!(real_jobs(&scene.cluster, &session).await.iter().all(|j| j.metadata.deletion_timestamp.is_some()));
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_namespace_that_loses_the_label_loses_the_right() {
    let scene = Scene::enter("label").await;
    let attacker = scene.attacker(Role::Edit).await;
    scene.claim_of_attacker(&attacker).await;
    scene.allow(json!({ "from": "Selector", "selector": { "matchLabels": { "team": "a" } } })).await;
    let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": scene.a } });
    assert!(!attacker.can("patch", "", "namespaces", &scene.a).await, "he cannot label himself");
    scene.cluster.patch(&space, json!({ "metadata": { "labels": { "team": "a" } } })).await.unwrap();
    let _operator = leading(&scene, &[]).await;
    let (session, bearer) = kept_open(&scene, &attacker, "open").await;
    scene.cluster.patch(&space, json!({ "metadata": { "labels": { "team": "b" } } })).await.unwrap();
    all_is_taken_back(&scene, &session, &bearer).await;
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_session_that_is_deleted_leaves_no_right() {
    let (scene, attacker) = Scene::shared("deleted").await;
    let _operator = leading(&scene, &[]).await;
    let (session, bearer) = kept_open(&scene, &attacker, "open").await;
    // The attacker's own finalizer keeps the object: the right must be removed all the same.
    let finalizers: Vec<Value> = attacker.get(&session).await["metadata"]["finalizers"].as_array().unwrap().clone();
    let more = [finalizers, vec![json!("example.com/kept")]].concat();
    attacker.patch(&session, json!({ "metadata": { "finalizers": more } })).await.unwrap();
    attacker.delete(&session).await;
    for job in real_jobs(&scene.cluster, &session).await {
        super::jobs::collect(&scene.cluster, &job).await;
    }
    all_is_taken_back(&scene, &session, &bearer).await;
}

/// A user who may change a session can remove its finalizer, and delete it before the operator adds the finalizer
/// again.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_session_that_goes_without_its_finalizer_leaves_no_right() {
    let (scene, attacker) = Scene::shared("unheld").await;
    let let_go = async |session: &Value| {
        attacker.patch(session, json!({ "metadata": { "finalizers": null } })).await.unwrap();
        attacker.delete(session).await;
    };
    let operator = leading(&scene, &[]).await;
    let (session, bearer) = kept_open(&scene, &attacker, "frozen").await;
    operator.freeze();
    let_go(&session).await;
    operator.thaw();
    // The operator may have lost its Lease in the meantime, and then exits; a kubelet would restart it.
    eventually("it leads", SOON, || async { if operator.leads().await { Ok(()) } else { Err("no".to_owned()) } }).await;
    right_is_taken_back(&scene, &session, &bearer).await;
    // A session that stays, and has the name of a deleted one.
    let (other, of_other) = kept_open(&scene, &attacker, "frozen").await;
    // The same while no operator runs.
    let (session, bearer) = kept_open(&scene, &attacker, "away").await;
    drop(operator);
    let_go(&session).await;
    let _operator = leading(&scene, &[]).await;
    right_is_taken_back(&scene, &session, &bearer).await;
    let secrets = Api::<Secret>::namespaced(of_other, &scene.b);
    assert_eq!(code(secrets.get("secret").await), 200, "{}", uid(&other));
}

/// The right was valid until 2036.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn no_run_lasts_ten_years() {
    const MOST_SECONDS: i64 = 7 * 24 * 3600;
    let scene = Scene::enter("years").await;
    let attacker = scene.attacker(Role::Restorer).await;
    scene.allow(json!({ "from": "All" })).await;
    let _operator = leading(&scene, &[]).await;
    let mut session = scene.restore_from_victim("long");
    session["spec"]["timeOut"] = "87600h".into();
    let Ok(session) = attacker.try_create(&session).await else { return };
    let told = scene.cluster.until(&session, "judged", |o| o["status"]["phase"].is_string()).await;
    if told["status"]["phase"] != "Invalid" {
        let deadline: Timestamp = told["status"]["sessionDeadline"].as_str().unwrap().parse().unwrap();
        let left = deadline.duration_since(Timestamp::now()).as_secs();
        assert!(left <= MOST_SECONDS, "it may last {left} s: {:#}", told["status"]);
    }
}
