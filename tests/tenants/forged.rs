//! What attackers make to pass for a step of somebody's run, and the node that does what they say.

use kube::api::{Api, Patch, PatchParams};
use lifeboat::contract::restic::{self, Counts, Restored};
use lifeboat::contract::{Answer, Class, Failure, Outcome, Part, VERSION};
use lifeboat::names::{annotation, label};
use serde_json::{Value, json};

use super::actors::Actor;
use super::cluster::Cluster;
use super::jobs;
use super::scene::{name, uid};

/// What forged restores count.
pub const LIE: u64 = 4711;
/// What forged failures say, and what must stand nowhere at the victim's.
pub const TEXT: &str = "MALLORY WAS HERE";

/// A claim to be a step of an object.
#[derive(Clone)]
pub struct Forged {
    pub step: &'static str,
    pub key: String,
    pub attempt: String,
    kind: String,
    of: Value,
}

impl Forged {
    /// Of this object, as the operator would mark it.
    pub fn new(of: &Value, step: &'static str, key: &str) -> Self {
        let kind = of["kind"].as_str().unwrap().to_owned();
        Self { step, key: key.to_owned(), attempt: "1".to_owned(), kind, of: of.clone() }
    }

    pub fn attempt(mut self, attempt: &str) -> Self {
        attempt.clone_into(&mut self.attempt);
        self
    }

    fn metadata(&self, object: &str, namespace: &str) -> Value {
        json!({ "name": object, "namespace": namespace,
            "labels": { label::SESSION_KIND: self.kind, label::SESSION_UID: uid(&self.of), label::STEP: self.step,
                "forged": "true" },
            "annotations": { annotation::STEP_KEY: self.key, annotation::ATTEMPT: self.attempt,
                annotation::SESSION_NAME: name(&self.of) } })
    }

    /// A pod with the marks of the step.
    pub fn pod(&self, object: &str, namespace: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": self.metadata(object, namespace), "spec": pod_spec() })
    }

    /// A suspended Job with the marks of the step: it costs nothing, and stays.
    pub fn job(&self, object: &str, namespace: &str) -> Value {
        let template = json!({ "metadata": self.metadata(object, namespace), "spec": pod_spec() });
        let mut template = template;
        template["metadata"].as_object_mut().unwrap().retain(|k, _| k != "name" && k != "namespace");
        json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": self.metadata(object, namespace),
            "spec": { "suspend": true, "template": template } })
    }
}

fn pod_spec() -> Value {
    json!({ "restartPolicy": "Never", "containers": [{ "name": "agent", "image": "localhost/none:1" }] })
}

/// Says that another object owns this one.
pub fn owned(mut object: Value, owner: &Value, controller: bool) -> Value {
    object["metadata"]["ownerReferences"] = json!([{ "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": name(owner), "uid": uid(owner), "controller": controller }]);
    object
}

/// Keeps the garbage collector from an object whose owner it does not find.
pub fn kept(mut object: Value) -> Value {
    object["metadata"]["finalizers"] = json!(["example.com/kept"]);
    object
}

/// The answer of a preflight that chooses a snapshot for the one host of the one member.
pub fn preflight(run: &Value) -> Outcome {
    done(run, Answer::Found(vec![jobs::found(&Part { member: 0, name: "a".into() }, "cd")]))
}

/// The answer of a restore that did everything.
pub fn restored(run: &Value) -> Outcome {
    let counts = Counts { files: LIE, bytes: 1 };
    done(run, jobs::did(&Restored { planned: counts, restored: counts, ..Restored::default() }))
}

pub fn done(run: &Value, answer: impl Into<Answer>) -> Outcome {
    Outcome { version: VERSION, run: uid(run), seconds: 1.0, answer: Some(answer.into()), ..Outcome::default() }
}

pub fn failed(run: &Value, class: Class, reason: &str) -> Outcome {
    Outcome { failure: Some(Failure::new(class, reason, TEXT)), answer: None, ..done(run, restic::Answer::Probed) }
}

/// The attacker makes the pod, and the node runs it: it ends with what he had it write.
pub async fn run(cluster: &Cluster, attacker: &Actor, pod: &Value, outcome: &Outcome) {
    attacker.create(pod).await;
    end(cluster, pod, outcome).await;
}

/// What a kubelet writes when a pod has ended.
pub async fn end(cluster: &Cluster, pod: &Value, outcome: &Outcome) {
    let at = "2026-11-20T00:00:00Z";
    let failed = outcome.failure.is_some();
    let terminated = json!({ "exitCode": i32::from(failed), "reason": "Completed", "message": outcome.encode(),
        "startedAt": at, "finishedAt": at });
    let container = json!({ "name": "agent", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": terminated } });
    let phase = if failed { "Failed" } else { "Succeeded" };
    let status = json!({ "status": { "phase": phase, "containerStatuses": [container] } });
    let namespace = pod["metadata"]["namespace"].as_str().unwrap();
    let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(cluster.client.clone(), namespace);
    api.patch_status(name(pod), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}
