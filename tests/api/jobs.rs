//! Plays kubelet, Job controller and garbage collector for the operator's Jobs, and creates the objects for a run.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use lifeboat::contract::restic::{
    Answer, Counts, PinnedSnapshot, Pins, RepositoryFacts, Restored, SnapshotMade, Step, Work,
};
use lifeboat::contract::{self, Class, Did, Failure, Found, Outcome, Part, TASK_ENV, Task, VERSION};
use lifeboat::names::{FINALIZER, annotation, label};
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, eventually};

/// Start and end time of everything that is played here.
const ENDED: &str = "2026-11-20T00:00:00Z";

/// Creates Repository and Secret, and a claim or Deployment (with two replicas) for each name.
pub async fn ground(cluster: &Cluster, namespace: &str, claims: &[&str], deployments: &[&str]) {
    let meta = |name: &str| json!({ "name": name, "namespace": namespace });
    let mut objects = vec![
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta("secret"), "stringData": { "RESTIC_PASSWORD": "x" } }),
        json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository", "metadata": meta("repo"),
            "spec": { "backend": { "storageSecretName": "secret", "s3": { "endpoint": "http://store.invalid", "bucket": cluster.home } } } }),
    ];
    for name in claims.iter().chain(deployments) {
        objects.push(json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta(name),
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }));
    }
    for name in deployments {
        let labels = json!({ "app": name });
        objects.push(json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(name), "spec": {
            "replicas": 2, "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": {
                "containers": [{ "name": "c", "image": "localhost/none:1" }],
                "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": name } }] } } } }));
    }
    for object in &objects {
        cluster.apply(object).await.unwrap();
    }
}

/// A target that [`ground`] has created.
pub fn target(kind: &str, name: &str) -> Value {
    let version = if kind == "Deployment" { "apps/v1" } else { "v1" };
    json!({ "ref": { "apiVersion": version, "kind": kind, "name": name }, "alias": name,
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }], "rules": [{ "snapshots": ["latest"] }] })
}

pub fn session(namespace: &str, target: &Value) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreSession",
        "metadata": { "name": "run", "namespace": namespace },
        "spec": { "repository": { "name": "repo" }, "target": target } })
}

/// Every Job of a namespace.
pub async fn all(cluster: &Cluster, namespace: &str) -> Vec<Job> {
    Api::namespaced(cluster.client.clone(), namespace).list(&ListParams::default()).await.unwrap().items
}

/// Jobs of sessions. A Repository has Jobs of its own.
pub async fn of_sessions(cluster: &Cluster, namespace: &str) -> Vec<Job> {
    let mut jobs = all(cluster, namespace).await;
    jobs.retain(|j| j.labels()[label::SESSION_KIND] != "Repository");
    jobs
}

/// Sorted keys of the steps of sessions that have Jobs.
pub async fn keys(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let mut keys: Vec<String> = of_sessions(cluster, namespace).await.iter().map(key).collect();
    keys.sort();
    keys
}

pub fn key(job: &Job) -> String {
    job.annotations()[annotation::STEP_KEY].clone()
}

/// Name of the session a Job belongs to.
pub fn session_of(job: &Job) -> String {
    job.annotations()[annotation::SESSION_NAME].clone()
}

/// Waits for the Job of a step, by the beginning of its key.
pub async fn of_step(cluster: &Cluster, namespace: &str, start: &str) -> Job {
    of_step_within(cluster, namespace, start, SOON).await
}

/// Like [`of_step`], with a time limit for a failing API server.
pub async fn of_step_within(cluster: &Cluster, namespace: &str, start: &str, limit: Duration) -> Job {
    eventually(&format!("a Job of {start}"), limit, || async {
        let all = all(cluster, namespace).await;
        let keys: Vec<String> = all.iter().map(key).collect();
        all.into_iter().find(|j| key(j).starts_with(start)).ok_or(format!("{keys:?}"))
    })
    .await
}

pub fn task(job: &Job) -> Task {
    let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let env = pod.containers[0].env.as_ref().unwrap().iter().find(|e| e.name == TASK_ENV).unwrap();
    Task::decode(env.value.as_deref().unwrap()).unwrap()
}

/// The work of restic in a Job.
pub fn work(job: &Job) -> Work {
    task(job).work.restic().unwrap().clone()
}

/// Result of a preflight that has found this snapshot.
pub fn found(part: &Part, id: &str) -> Found {
    let snapshots = vec![PinnedSnapshot { id: id.repeat(32), time: ENDED.into(), path: None }];
    let pin = Pins { snapshots, ..Pins::default() }.write();
    Found { part: part.clone(), pin, ..Found::default() }
}

/// Answer of a restore with these counts.
pub fn did(restored: &Restored) -> contract::Answer {
    contract::Answer::Did(Did { tallies: restored.tallies() })
}

/// Outcome of an agent that succeeds in every step.
pub fn success(job: &Job) -> Outcome {
    let task = task(job);
    let counts = Counts { files: 7, bytes: 70 };
    let answer: contract::Answer = match work(job).step {
        Step::Preflight(_) => contract::Answer::Found(task.parts.iter().map(|part| found(part, "ab")).collect()),
        Step::Restore(step) => {
            let deleted = step.exact.then_some(3);
            did(&Restored { planned: counts, restored: counts, deleted, ..Restored::default() })
        }
        Step::Prepare(_) => Answer::Prepared { created: false }.into(),
        Step::Backup(asked) => {
            let made =
                |path: &String| SnapshotMade { id: "ab".repeat(32), path: path.clone(), ..SnapshotMade::default() };
            Answer::BackedUp(asked.paths.iter().map(made).collect()).into()
        }
        Step::Maintain(_) => {
            Answer::Maintained(RepositoryFacts { integrity: Some(true), retained: true, ..Default::default() }).into()
        }
        Step::Probe(_) => Answer::Probed.into(),
        Step::Wipe(_) => Answer::Wiped { snapshots: 3 }.into(),
        Step::List(_) => Answer::Listed { snapshots: 3, written: 3, removed: 0, absent: None }.into(),
    };
    Outcome { version: VERSION, run: task.run.id, seconds: 1.0, answer: Some(answer), ..Outcome::default() }
}

/// Outcome of an agent whose data is damaged.
pub fn damaged(job: &Job) -> Outcome {
    let failure = Failure::new(Class::Data, "DataCorrupt", "Pack 1234 is damaged. Run restic check.");
    Outcome { failure: Some(failure), answer: None, ..success(job) }
}

/// Outcome of an agent whose store does not respond.
pub fn unreachable(job: &Job) -> Outcome {
    let failure = Failure::new(Class::Transient, "RepositoryUnreachable", "The storage does not answer at b:9000.");
    Outcome { failure: Some(failure), answer: None, ..success(job) }
}

/// Name of the pod of a Job.
fn pod_of(job: &Job) -> String {
    format!("{}-x", job.name_any())
}

/// Creates the Job's pod, which waits for a node; an existing pod stays.
pub async fn start(cluster: &Cluster, job: &Job) {
    let (namespace, name) = (job.namespace().unwrap(), job.name_any());
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace);
    let template = job.spec.as_ref().unwrap().template.clone();
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": template.metadata, "spec": template.spec });
    pod["metadata"]["name"] = pod_of(job).into();
    pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job.uid().unwrap(), "controller": true }]);
    let pod: Pod = serde_json::from_value(pod).unwrap();
    match pods.create(&kube::api::PostParams::default(), &pod).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        made => drop(made.unwrap()),
    }
}

/// The Job's pod runs and ends with this outcome; then the Job is complete.
pub async fn end(cluster: &Cluster, job: &Job, outcome: &Outcome) {
    start(cluster, job).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &job.namespace().unwrap());
    let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let terminated = json!({ "exitCode": i32::from(outcome.failure.is_some()), "reason": "Completed", "message": outcome.encode(),
        "startedAt": ENDED, "finishedAt": ENDED });
    let container = json!({ "name": pod.containers[0].name, "image": "i", "imageID": "", "ready": false,
        "restartCount": 0, "state": { "terminated": terminated } });
    let phase = if outcome.failure.is_some() { "Failed" } else { "Succeeded" };
    let status = json!({ "status": { "phase": phase, "containerStatuses": [container] } });
    pods.patch_status(&pod_of(job), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    close(cluster, job, outcome.failure.is_some()).await;
}

/// Sets the Job's status as the Job controller does at its end.
async fn close(cluster: &Cluster, job: &Job, failed: bool) {
    let condition = |type_: &str| json!({ "type": type_, "status": "True", "lastTransitionTime": ENDED });
    let status = if failed {
        json!({ "startTime": ENDED, "failed": 1, "conditions": [condition("FailureTarget"), condition("Failed")] })
    } else {
        json!({ "startTime": ENDED, "completionTime": ENDED, "succeeded": 1, "conditions": [condition("SuccessCriteriaMet"), condition("Complete")] })
    };
    let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), &job.namespace().unwrap());
    jobs.patch_status(&job.name_any(), &PatchParams::default(), &Patch::Merge(json!({ "status": status })))
        .await
        .unwrap();
}

/// The node is drained: the Job's pod ends and is deleted, and the Job failed.
pub async fn drain(cluster: &Cluster, job: &Job) {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &job.namespace().unwrap());
    pods.delete(&pod_of(job), &DeleteParams::default().grace_period(0)).await.unwrap();
    close(cluster, job, true).await;
}

/// Ends the next Job of a step with success, and returns it.
pub async fn succeed(cluster: &Cluster, namespace: &str, start: &str) -> Job {
    let job = of_step(cluster, namespace, start).await;
    end(cluster, &job, &success(&job)).await;
    job
}

/// Ends with success the Job of a step that was created after `before`.
pub async fn succeed_again(cluster: &Cluster, namespace: &str, start: &str, before: &Job) {
    let job = eventually(&format!("another Job of {start}"), SOON, || async {
        let all = of_sessions(cluster, namespace).await;
        let is_new = |j: &Job| key(j).starts_with(start) && j.uid() != before.uid();
        all.into_iter().find(is_new).ok_or("none".to_owned())
    })
    .await;
    end(cluster, &job, &success(&job)).await;
}

/// Opens the Repository of a namespace: its first list of snapshots succeeds. Until then none of its users is Ready.
pub async fn open(cluster: &Cluster, namespace: &str) {
    succeed(cluster, namespace, "list").await;
}

/// Ends the next Job of a step of one session with success, and returns it.
pub async fn succeed_of(cluster: &Cluster, namespace: &str, start: &str, uid: &str) -> Job {
    let job = eventually(&format!("a Job of {start} of {uid}"), SOON, || async {
        let all = all(cluster, namespace).await;
        let own = |j: &Job| j.labels()[label::SESSION_UID] == uid && key(j).starts_with(start);
        all.into_iter().find(own).ok_or("none".to_owned())
    })
    .await;
    end(cluster, &job, &success(&job)).await;
    job
}

/// Waits until a Job is being deleted, then removes it as the garbage collector does, after its pod.
pub async fn collect(cluster: &Cluster, job: &Job) {
    let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), &job.namespace().unwrap());
    let name = job.name_any();
    eventually("the Job is stopped", SOON, || async {
        let going = jobs.get(&name).await.unwrap().metadata.deletion_timestamp.is_some();
        if going { Ok(()) } else { Err("it runs".to_owned()) }
    })
    .await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &job.namespace().unwrap());
    match pods.delete(&pod_of(job), &DeleteParams::default().grace_period(0)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        gone => drop(gone.unwrap()),
    }
    let patch = json!({ "metadata": { "finalizers": null } });
    jobs.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Whether a session has our finalizer.
pub fn is_held(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|f| f.contains(&json!(FINALIZER)))
}
