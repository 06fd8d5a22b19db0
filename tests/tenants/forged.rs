//! Objects that attackers forge as a step of another tenant's run, and the node that runs them.

use kube::api::{Api, Patch, PatchParams};
use lifeboat::contract::restic::{self, Counts, Restored};
use lifeboat::contract::{Answer, Class, Failure, Outcome, Part, VERSION};
use lifeboat::names::{annotation, label};
use serde_json::{Value, json};

use super::actors::Actor;
use super::cluster::Cluster;
use super::jobs;
use super::scene::{name, uid};

/// Count of files in forged restores.
pub const LIE: u64 = 4711;
/// Text of forged failures, which must not appear in the victim's namespace.
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
    /// A forged step of this object, with the marks that the operator would set.
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

    /// A suspended Job with the marks of the step: it uses no resources, and stays.
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

/// Adds an owner reference to another object.
pub fn owned(mut object: Value, owner: &Value, controller: bool) -> Value {
    object["metadata"]["ownerReferences"] = json!([{ "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": name(owner), "uid": uid(owner), "controller": controller }]);
    object
}

/// Protects an object from the garbage collector when its owner does not exist.
pub fn kept(mut object: Value) -> Value {
    object["metadata"]["finalizers"] = json!(["example.com/kept"]);
    object
}

/// Outcome of a preflight that chooses a snapshot for the one host of the one member.
pub fn preflight(run: &Value) -> Outcome {
    done(run, Answer::Found(vec![jobs::found(&Part { member: 0, name: "a".into() }, "cd")]))
}

/// Outcome of a restore that did everything.
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

/// The attacker creates the pod, and the node runs it: it ends with the attacker's outcome.
pub async fn run(cluster: &Cluster, attacker: &Actor, pod: &Value, outcome: &Outcome) {
    attacker.create(pod).await;
    end(cluster, pod, outcome).await;
}

/// Sets the pod's status as a kubelet does when a pod has ended.
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
