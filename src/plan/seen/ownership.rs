//! Which object a Job or a pod belongs to.
//!
//! Any user who may create pods in some namespace can write labels and annotations. A Job counts as a child only of its
//! controller owner, by uid and in the namespace of both, and only under the name that its step computes. A pod counts
//! only as the pod of such a Job. A user who can forge that may write Jobs in the owner's own namespace, and can
//! deceive that namespace only.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

use crate::names::{GROUP, annotation, label};
use crate::plan::seen::identity::Identity;
use crate::plan::seen::job_status::is_of;
use crate::plan::work::job_spec::frame;

/// The step that a Job is for, and the owner of the Job.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Child {
    /// Namespace of both.
    pub namespace: String,
    /// Kind of its owner.
    pub kind: String,
    /// Name of its owner.
    pub name: String,
    /// Uid of its owner.
    pub uid: String,
    /// Key of the step within the run.
    pub key: String,
    /// Attempt at the step, from 1.
    pub attempt: i32,
}

impl Child {
    /// Whether it is a child of this object.
    pub fn is_of(&self, id: &Identity) -> bool {
        !id.uid.is_empty()
            && (&self.namespace, &self.kind, &self.name, &self.uid) == (&id.namespace, &id.kind, &id.name, &id.uid)
    }

    /// Reads the labels and annotations of a Job or its pod. Returns a child only if `job` is the name that a step with
    /// these marks gives a Job of its owner.
    fn named(marks: &impl ResourceExt, kind: &str, name: &str, uid: &str, job: &str) -> Option<Self> {
        let note = |key| marks.annotations().get(key).map(String::as_str);
        let (key, verb) = (note(annotation::STEP_KEY)?, marks.labels().get(label::STEP)?);
        let attempt = note(annotation::ATTEMPT)?.parse().ok().filter(|a: &i32| *a >= 1)?;
        let component = component_of(kind)?;
        (frame::job_name_of(component, name, uid, verb, key, attempt) == job).then(|| Self {
            namespace: marks.namespace().unwrap_or_default(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            key: key.to_owned(),
            attempt,
        })
    }
}

/// Component of the Jobs of a kind; `None` for a kind that owns no Jobs.
fn component_of(kind: &str) -> Option<&'static str> {
    match kind {
        "RestoreSession" | "RestoreBatch" => Some(label::COMPONENT_RESTORE),
        "BackupSession" => Some(label::COMPONENT_BACKUP),
        "Repository" => Some(label::COMPONENT_REPOSITORY),
        _ => None,
    }
}

/// The owner that controls an object; there is one at most.
fn controller(owned: &impl ResourceExt) -> Option<&OwnerReference> {
    owned.owner_references().iter().find(|o| o.controller == Some(true))
}

/// The child that a Job is; `None` for a Job without a valid owner.
pub fn of_job(job: &Job) -> Option<Child> {
    let owner = controller(job)?;
    let ours = owner.api_version.split_once('/').is_some_and(|(group, _)| group == GROUP);
    ours.then(|| Child::named(job, &owner.kind, &owner.name, &owner.uid, &job.name_any())).flatten()
}

/// The child that a pod belongs to, if the Job itself is gone; `None` if no step could have created a Job of that name.
pub fn of_pod(pod: &Pod) -> Option<Child> {
    let job = controller(pod).filter(|o| o.kind == "Job" && o.api_version == "batch/v1")?;
    let mark = |key| pod.labels().get(key).map(String::as_str);
    let session = pod.annotations().get(annotation::SESSION_NAME)?;
    Child::named(pod, mark(label::SESSION_KIND)?, session, mark(label::SESSION_UID)?, &job.name)
}

/// Drops the Jobs that are not children of this object, and the pods that do not belong to its children.
pub fn retain_children(id: &Identity, jobs: &mut Vec<Job>, pods: &mut Vec<Pod>) {
    jobs.retain(|job| of_job(job).is_some_and(|c| c.is_of(id)));
    pods.retain(|pod| jobs.iter().any(|job| is_of(pod, job)) || of_pod(pod).is_some_and(|c| c.is_of(id)));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::contract::restic;
    use crate::contract::restic::{Prepare, RepositoryAccess, Settings, Step};
    use crate::contract::{Task, Work};
    use crate::plan::work::job_spec;
    use crate::plan::work::job_spec::frame::{JobFrame, JobParts};

    fn id() -> Identity {
        Identity {
            api_version: "stash.appscode.com/v1beta1".into(),
            kind: "RestoreSession".into(),
            namespace: "demo".into(),
            name: "back".into(),
            uid: "uid-1".into(),
            ..Identity::default()
        }
    }

    fn job() -> Value {
        let id = id();
        let frame = JobFrame {
            image: "i".into(),
            owner: id.owner(),
            namespace: id.namespace.clone(),
            labels: [].into(),
            component: label::COMPONENT_RESTORE,
            repository: "demo/r".into(),
            account: None,
            defaults: crate::api::runtime::RuntimeSettings::default(),
        };
        let parts = JobParts { key: "preflight/x".into(), attempt: 2, ..JobParts::default() };
        let mut job = json!(job_spec::job(&frame, &task(), parts));
        job["metadata"]["uid"] = "job-uid".into();
        job
    }

    fn task() -> Task {
        let (repository, settings) = (RepositoryAccess::default(), Settings::default());
        let work = restic::Work { repository, settings, step: Step::Prepare(Prepare {}) };
        Task::new(id().told(), "preflight", vec![], Work::Restic(Box::new(work)))
    }

    fn pod(job: &Value) -> Value {
        let mut meta = job["spec"]["template"]["metadata"].clone();
        meta["name"] = "p".into();
        meta["namespace"] = job["metadata"]["namespace"].clone();
        meta["ownerReferences"] = json!([{ "apiVersion": "batch/v1", "kind": "Job", "controller": true,
            "name": job["metadata"]["name"], "uid": job["metadata"]["uid"] }]);
        json!({ "metadata": meta })
    }

    /// How many Jobs and pods are left of these.
    fn left(jobs: &[Value], pods: &[Value]) -> (usize, usize) {
        let mut jobs = jobs.iter().map(|j| serde_json::from_value(j.clone()).unwrap()).collect();
        let mut pods = pods.iter().map(|p| serde_json::from_value(p.clone()).unwrap()).collect();
        retain_children(&id(), &mut jobs, &mut pods);
        (jobs.len(), pods.len())
    }

    #[test]
    fn a_job_of_ours_and_its_pod_are_children_also_when_the_job_is_gone() {
        let job = job();
        assert_eq!(left(std::slice::from_ref(&job), &[pod(&job)]), (1, 1));
        assert_eq!(left(&[], &[pod(&job)]), (0, 1));
        let child = of_job(&serde_json::from_value(job).unwrap()).unwrap();
        assert_eq!((child.key.as_str(), child.attempt), ("preflight/x", 2));
    }

    /// Closes: row 2, row 5 of the attacks by tenants.
    #[test]
    fn a_forged_job_is_no_child() {
        let forge = |path: &str, value: Value| {
            let mut job = job();
            *job.pointer_mut(path).unwrap() = value;
            job
        };
        for (what, forged) in [
            ("another namespace", forge("/metadata/namespace", "other".into())),
            ("no owner", forge("/metadata/ownerReferences", json!([]))),
            ("an owner that does not control it", forge("/metadata/ownerReferences/0/controller", json!(false))),
            ("another owner", forge("/metadata/ownerReferences/0/uid", "uid-2".into())),
            ("an owner of another name", forge("/metadata/ownerReferences/0/name", "other".into())),
            ("an owner of another kind", forge("/metadata/ownerReferences/0/kind", "BackupSession".into())),
            ("an owner of another group", forge("/metadata/ownerReferences/0/apiVersion", "example.com/v1".into())),
            ("a name of its own", forge("/metadata/name", "victim-cron".into())),
            ("attempt 0", forge("/metadata/annotations/lifeboat.stash.appscode.com~1attempt", "0".into())),
            ("no attempt", forge("/metadata/annotations/lifeboat.stash.appscode.com~1attempt", "x".into())),
            ("another attempt", forge("/metadata/annotations/lifeboat.stash.appscode.com~1attempt", "3".into())),
            (
                "another step",
                forge("/metadata/annotations/lifeboat.stash.appscode.com~1step-key", "restore/0/x".into()),
            ),
            ("another verb", forge("/metadata/labels/lifeboat.stash.appscode.com~1step", "restore".into())),
        ] {
            let mut pod = pod(&forged);
            pod["metadata"]["labels"] = forged["metadata"]["labels"].clone();
            pod["metadata"]["annotations"] = forged["metadata"]["annotations"].clone();
            let (jobs, _) = left(std::slice::from_ref(&forged), std::slice::from_ref(&pod));
            assert_eq!(jobs, 0, "{what}");
        }
    }

    /// Closes: row 2 of the attacks by tenants.
    #[test]
    fn a_forged_pod_is_nobodys() {
        let job = job();
        let forge = |path: &str, value: Value| {
            let mut pod = pod(&job);
            *pod.pointer_mut(path).unwrap() = value;
            pod
        };
        for (what, forged) in [
            ("another namespace", forge("/metadata/namespace", "other".into())),
            ("no owner", forge("/metadata/ownerReferences", json!([]))),
            ("an owner that does not control it", forge("/metadata/ownerReferences/0/controller", json!(null))),
            ("the session as its owner", forge("/metadata/ownerReferences/0/kind", "RestoreSession".into())),
            ("a Job that no step makes", forge("/metadata/ownerReferences/0/name", "mine".into())),
            ("another session", forge("/metadata/labels/lifeboat.stash.appscode.com~1session-uid", "uid-2".into())),
        ] {
            assert_eq!(left(&[], std::slice::from_ref(&forged)).1, 0, "{what}, Job gone");
        }
        // While the Job exists, its uid decides.
        let other = forge("/metadata/ownerReferences/0/uid", "another".into());
        let elsewhere = forge("/metadata/namespace", "other".into());
        let uncontrolled = forge("/metadata/ownerReferences/0/controller", json!(false));
        for pod in [elsewhere, uncontrolled] {
            assert_eq!(left(std::slice::from_ref(&job), std::slice::from_ref(&pod)), (1, 0));
        }
        let (seen_job, pod): (Job, Pod) =
            (serde_json::from_value(job.clone()).unwrap(), serde_json::from_value(other).unwrap());
        assert!(!is_of(&pod, &seen_job));
    }
}
