//! An API server that is unavailable, busy or has another time: runs still reach their end.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster::{Cluster, condition, eventually};
use super::front::Front;
use super::jobs::{self, ground, session, target};
use super::operator::Operator;

/// Reconciles and writes that fail are each retried after seconds.
const BAD_WEATHER: Duration = Duration::from_secs(90);

/// A front of the API server, and a restore of a Deployment that is not applied yet, in its own namespace.
async fn lay(name: &str) -> (Cluster, Front, String, Value) {
    let cluster = Cluster::enter().await;
    let front = Front::new(&cluster.client).await;
    let ns = cluster.namespace(name).await;
    ground(&cluster, &ns, &[], &["web"]).await;
    let object = session(&ns, &target("Deployment", "web"));
    (cluster, front, ns, object)
}

/// Plays the kubelet for every Job of a session until the session is over; returns its phase.
async fn play(cluster: &Cluster, ns: &str, object: &Value, done: &mut Vec<String>) -> String {
    for job in jobs::of_sessions(cluster, ns).await {
        let name = job.metadata.name.clone().unwrap();
        if !done.contains(&name) && job.metadata.deletion_timestamp.is_none() {
            jobs::end(cluster, &job, &jobs::success(&job)).await;
            done.push(name);
        }
    }
    let now = cluster.get(object).await;
    now["status"]["phase"].as_str().unwrap_or_default().to_owned()
}

/// Proves: C04.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn c04_every_other_write_fails_and_the_run_succeeds() {
    let (cluster, front, ns, object) = lay("busy").await;
    let operator = Operator::through(&cluster, &front.kubeconfig).await;
    front.busy(true);
    cluster.apply(&object).await.unwrap();
    let mut done = vec![];
    let run = eventually("the run's success", BAD_WEATHER, async || {
        let phase = play(&cluster, &ns, &object, &mut done).await;
        assert_ne!(phase, "Failed", "{:#}", cluster.get(&object).await["status"]);
        let over = phase == "Succeeded" && !jobs::is_held(&cluster.get(&object).await);
        if over { Ok(()) } else { Err(phase) }
    });
    run.await;
    let failed = front.failed();
    assert!([500, 429, 409].iter().all(|code| failed.contains(code)), "{failed:?}");
    let deployment =
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": ns } });
    assert_eq!(cluster.get(&deployment).await["spec"]["replicas"], 2);
    drop(operator);
}

/// Proves: C04.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn c04_an_api_server_that_comes_and_goes_ends_no_run() {
    let (cluster, mut front, ns, object) = lay("flap").await;
    let mut operator = Operator::through(&cluster, &front.kubeconfig).await;
    cluster.apply(&object).await.unwrap();
    let preflight = jobs::of_step(&cluster, &ns, "preflight").await;
    // The API server is unavailable for a moment, and then so long that leadership is lost; steps end meanwhile.
    front.down().await;
    jobs::end(&cluster, &preflight, &jobs::success(&preflight)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    front.up().await;
    let restore = jobs::of_step_within(&cluster, &ns, "restore/", BAD_WEATHER).await;
    front.down().await;
    jobs::end(&cluster, &restore, &jobs::success(&restore)).await;
    eventually("leadership is lost", BAD_WEATHER, async || {
        if operator.is_running() { Err("it goes on".to_owned()) } else { Ok(()) }
    })
    .await;
    front.up().await;
    let over = eventually("the run's success", BAD_WEATHER, async || {
        if !operator.is_running() {
            // As the kubelet would restart it.
            operator = Operator::through(&cluster, &front.kubeconfig).await;
        }
        let now = cluster.get(&object).await;
        let phase = now["status"]["phase"].as_str().unwrap_or_default().to_owned();
        if phase == "Succeeded" && !jobs::is_held(&now) { Ok(()) } else { Err(phase) }
    });
    over.await;
    assert_eq!(jobs::keys(&cluster, &ns).await.len(), 2, "each step once");
}

/// Jobs and pods have separate watches, and after a break one watch is back before the other.
///
/// Proves: C04.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn c04_a_job_that_is_known_to_have_ended_before_its_pod_is_known_is_not_run_again() {
    let (cluster, mut front, ns, object) = lay("halves").await;
    let operator = Operator::through(&cluster, &front.kubeconfig).await;
    cluster.apply(&object).await.unwrap();
    jobs::of_step(&cluster, &ns, "preflight").await;
    front.without_pods(true);
    front.down().await;
    front.up().await;
    let mut done = vec![];
    let run = eventually("the run's success", BAD_WEATHER, async || {
        let phase = play(&cluster, &ns, &object, &mut done).await;
        if phase == "Succeeded" { Ok(()) } else { Err(phase) }
    });
    run.await;
    assert_eq!(jobs::keys(&cluster, &ns).await.len(), 2, "each step once");
    drop(operator);
}

/// The conditions that the cluster sets on a pod before it deletes it are gone with the pod.
///
/// Proves: C05.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn c05_a_pod_that_was_drained_while_nobody_looked_takes_nothing_off_the_tries() {
    let (cluster, mut front, ns, object) = lay("drained").await;
    let operator = Operator::through(&cluster, &front.kubeconfig).await;
    cluster.apply(&object).await.unwrap();
    let preflight = jobs::succeed(&cluster, &ns, "preflight").await;
    let restore = jobs::of_step(&cluster, &ns, "restore/").await;
    jobs::start(&cluster, &restore).await;
    front.down().await;
    jobs::drain(&cluster, &restore).await;
    front.up().await;
    let again = eventually("the second attempt", BAD_WEATHER, async || {
        let now = cluster.get(&object).await;
        if now["status"]["stats"][0]["attempt"] == 2 { Ok(now) } else { Err(format!("{:#}", now["status"])) }
    });
    let entry = &again.await["status"]["stats"][0];
    assert_eq!((&entry["reason"], &entry["podDeaths"]), (&json!("Disrupted"), &Value::Null));
    jobs::collect(&cluster, &restore).await;
    let mut done = vec![preflight.metadata.name.unwrap()];
    let run = eventually("the run's success", BAD_WEATHER, async || {
        let phase = play(&cluster, &ns, &object, &mut done).await;
        if phase == "Succeeded" { Ok(()) } else { Err(phase) }
    });
    run.await;
    drop(operator);
}

/// Proves: C12.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn c12_the_operator_goes_by_the_api_servers_clock() {
    let cluster = Cluster::enter().await;
    let front = Front::new(&cluster.client).await;
    for ahead in [3600, -3600] {
        front.set_ahead(ahead);
        // The operator also works in the namespace of the first round: finished sessions there are not reconciled.
        let ns = cluster.namespace("skew").await;
        ground(&cluster, &ns, &[], &[]).await;
        let mut object = session(&ns, &target("Deployment", "web"));
        object["spec"]["timeOut"] = "4s".into();
        let operator = Operator::through(&cluster, &front.kubeconfig).await;
        let begun = Timestamp::now();
        cluster.apply(&object).await.unwrap();
        let ended = eventually("the deadline", BAD_WEATHER, async || {
            let now = cluster.get(&object).await;
            if now["status"]["phase"] == "Failed" { Ok(now) } else { Err(format!("{:#}", now["status"])) }
        });
        let ended = ended.await;
        let took = Timestamp::now().duration_since(begun).as_secs();
        assert!((3..90).contains(&took), "the deadline holds: {took} s");
        assert_eq!(condition(&ended, "DeadlineExceeded").0, "True");
        let started: Timestamp = ended["status"]["run"]["startTime"].as_str().unwrap().parse().unwrap();
        let off = started.duration_since(begun).as_secs() - ahead;
        assert!(off.abs() < 120, "started {off} s off the API server's time");
        drop(operator);
    }
}
