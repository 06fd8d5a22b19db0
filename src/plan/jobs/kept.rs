//! What the watches keep of Jobs and pods: as much as [`super::see`] and the indexes read.
//!
//! Thousands of Jobs may wait. One as the API server has it takes 15 KB of memory,
//! nearly all of it a pod's template that nobody looks at again. Whoever reads more
//! of a watched Job or pod keeps it here.

use std::borrow::Cow;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, PersistentVolumeClaimVolumeSource, Pod, PodSpec, PodStatus, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Deserialize;

use super::TASK_ENV;
use crate::names::{annotation, label};

const LABELS: [&str; 3] = [label::SESSION_KIND, label::SESSION_UID, label::STEP];
const ANNOTATIONS: [&str; 4] =
    [annotation::SESSION_NAME, annotation::REPOSITORY, annotation::STEP_KEY, annotation::ATTEMPT];

/// A watched Job. Types of the API are large where they are empty as well: a container takes 2 KB, a volume 3.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Job")]
pub struct KeptJob {
    metadata: ObjectMeta,
    conditions: Vec<JobCondition>,
    task: Option<String>,
    /// Volumes and their claims, by name.
    claims: Vec<(String, String)>,
}

impl From<Job> for KeptJob {
    fn from(job: Job) -> Self {
        let asks = asks(&job);
        let mut metadata = job.metadata;
        prune_meta(&mut metadata);
        let pod = job.spec.and_then(|s| s.template.spec).unwrap_or_default();
        Self {
            metadata,
            conditions: job.status.and_then(|s| s.conditions).unwrap_or_default(),
            task: super::task_text(&pod).filter(|_| asks).map(str::to_owned),
            claims: claims(pod.volumes).collect(),
        }
    }
}

impl KeptJob {
    /// The Job, as far as it was kept.
    pub fn job(&self) -> Job {
        let pod = pod_spec(self.task.clone(), self.claims.clone());
        Job {
            metadata: self.metadata.clone(),
            spec: Some(JobSpec { template: PodTemplateSpec { metadata: None, spec: Some(pod) }, ..JobSpec::default() }),
            status: Some(JobStatus { conditions: Some(self.conditions.clone()), ..JobStatus::default() }),
        }
    }

    /// Whether its controller calls it ended.
    pub fn is_over(&self) -> bool {
        super::end_of(&self.conditions).is_some()
    }
}

impl Resource for KeptJob {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Job::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        Job::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        Job::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        Job::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Takes off a pod of a Job what nobody reads.
pub fn prune_pod(pod: &mut Pod) {
    let asks = asks(pod);
    prune_meta(&mut pod.metadata);
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        node_name: spec.node_name.clone(),
        ..pod_spec(super::task_text(&spec).filter(|_| asks).map(str::to_owned), claims(spec.volumes))
    });
    pod.status = pod.status.take().map(|s| PodStatus {
        phase: s.phase,
        reason: s.reason,
        message: s.message,
        conditions: s.conditions,
        container_statuses: s.container_statuses,
        pod_ip: s.pod_ip,
        ..PodStatus::default()
    });
}

/// Whether somebody asks what its task was: when a preflight fails, its hosts stand in its task only.
fn asks(labelled: &impl ResourceExt) -> bool {
    labelled.labels().get(label::STEP).is_some_and(|s| s == "preflight")
}

fn prune_meta(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    meta.labels.iter_mut().for_each(|all| all.retain(|key, _| LABELS.contains(&key.as_str())));
    meta.annotations.iter_mut().for_each(|all| all.retain(|key, _| ANNOTATIONS.contains(&key.as_str())));
}

fn claims(volumes: Option<Vec<Volume>>) -> impl Iterator<Item = (String, String)> {
    volumes.into_iter().flatten().filter_map(|v| Some((v.name, v.persistent_volume_claim?.claim_name)))
}

fn pod_spec(task: Option<String>, claims: impl IntoIterator<Item = (String, String)>) -> PodSpec {
    let container = |task| {
        let env = EnvVar { name: TASK_ENV.to_owned(), value: Some(task), value_from: None };
        Container { env: Some(vec![env]), ..Container::default() }
    };
    let volume = |(name, claim_name)| {
        let claim = PersistentVolumeClaimVolumeSource { claim_name, read_only: None };
        Volume { name, persistent_volume_claim: Some(claim), ..Volume::default() }
    };
    PodSpec {
        containers: task.into_iter().map(container).collect(),
        volumes: Some(claims.into_iter().map(volume).collect()),
        ..PodSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::super::{JobSeen, see};
    use super::*;

    fn job(step: &str) -> Value {
        let env = json!([{ "name": "HOME", "value": "/" }, { "name": TASK_ENV, "value": "{}" }]);
        let volumes = json!([{ "name": "work", "emptyDir": {} },
            { "name": "data", "persistentVolumeClaim": { "claimName": "claim" } }]);
        let meta = json!({ "name": "j", "namespace": "n", "uid": "u", "managedFields": [{ "manager": "m" }],
            "labels": { label::STEP: step, "app": "shop" }, "annotations": { annotation::ATTEMPT: "2", "note": "long" } });
        json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": meta,
            "spec": { "template": { "spec": { "containers": [{ "name": "agent", "env": env }], "volumes": volumes } } },
            "status": { "active": 1, "conditions": [{ "type": "Failed", "status": "True", "reason": "DeadlineExceeded" }] } })
    }

    /// That all is kept which plans read is tried wherever a plan is, see [`crate::plan::fake`].
    #[test]
    fn of_a_job_what_is_read_stays_and_the_rest_goes() {
        for (step, task) in [("preflight", Some("{}")), ("restore", None)] {
            let whole: Job = serde_json::from_value(job(step)).unwrap();
            let kept: KeptJob = serde_json::from_value(job(step)).unwrap();
            assert_eq!((kept.task.as_deref(), kept.is_over()), (task, true));
            assert_eq!((kept.labels().len(), kept.annotations().len()), (1, 1));
            assert_eq!(kept.metadata.managed_fields, None);
            let [whole, kept] = [&whole, &kept.job()].map(|job| see(job, &[], Timestamp::UNIX_EPOCH));
            assert_eq!(kept, JobSeen { task: None, ..whole });
            assert_eq!(kept.writes.is_empty(), step == "preflight");
        }
    }
}
