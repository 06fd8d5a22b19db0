//! What the watches keep of objects that others define: as much as is read, and compact.
//!
//! Thousands of Jobs may wait, among thousands of pods. The types of the API are large where they are empty as well:
//! a container takes 2 KB, a volume 3, and a Job nearly 15, most of it a template that nobody looks at again. So what
//! is kept of an object is pruned, and stands as text until somebody looks at it. Whoever reads more keeps it here.

use std::borrow::Cow;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, Namespace, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource,
    Pod, PodSpec, PodStatus, PodTemplateSpec, ReplicationController, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::contract::TASK_ENV;
use super::jobs;
use crate::names::{annotation, label};

/// Labels of our Jobs and pods that are read.
const LABELS: [&str; 4] = [label::SESSION_KIND, label::SESSION_UID, label::STEP, label::MANAGED_BY];
/// Their annotations.
const ANNOTATIONS: [&str; 4] =
    [annotation::SESSION_NAME, annotation::REPOSITORY, annotation::STEP_KEY, annotation::ATTEMPT];

/// A kind that is kept.
pub trait Keep: Resource<DynamicType = ()> + Clone + Default + Serialize + DeserializeOwned {
    /// Takes off what nobody reads. Its managed fields go in any case.
    fn prune(&mut self) {}
}

/// An object as it is kept. Its metadata is no more than what tells it from others; all else is known when it is opened.
#[derive(Clone, Debug)]
pub struct Kept<K> {
    metadata: ObjectMeta,
    /// The object, as JSON.
    text: Box<str>,
    kind: std::marker::PhantomData<K>,
}

impl<K: Keep> Kept<K> {
    /// The object, as far as it was kept.
    ///
    /// # Panics
    /// Never: the text was written by the same type.
    pub fn open(&self) -> K {
        #[allow(clippy::expect_used, reason = "it was written by the same type")]
        serde_json::from_str(&self.text).expect("what a type writes, it reads")
    }
}

impl<K: Keep> From<K> for Kept<K> {
    fn from(mut object: K) -> Self {
        object.meta_mut().managed_fields = None;
        object.prune();
        #[allow(clippy::expect_used, reason = "types of the API have no keys that are no text")]
        let text = serde_json::to_string(&object).expect("a type of the API is JSON").into();
        let all = std::mem::take(object.meta_mut());
        let metadata = ObjectMeta {
            name: all.name,
            namespace: all.namespace,
            uid: all.uid,
            resource_version: all.resource_version,
            ..ObjectMeta::default()
        };
        Self { metadata, text, kind: std::marker::PhantomData }
    }
}

impl<'de, K: Keep> Deserialize<'de> for Kept<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::deserialize(deserializer).map(Self::from)
    }
}

impl<K: Keep> Resource for Kept<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Keep for Job {
    fn prune(&mut self) {
        let asks = jobs::is_preflight(self);
        prune_meta(&mut self.metadata);
        let spec = self.spec.take().unwrap_or_default();
        let (suspend, pod) = (spec.suspend, spec.template.spec.unwrap_or_default());
        let pod =
            PodSpec { volumes: claims(pod.volumes), containers: task(asks, &pod.containers), ..PodSpec::default() };
        let template = PodTemplateSpec { metadata: None, spec: Some(pod) };
        self.spec = Some(JobSpec { template, suspend, ..JobSpec::default() });
        self.status = self.status.take().map(|s| JobStatus { conditions: s.conditions, ..JobStatus::default() });
    }
}

impl Keep for Pod {
    /// Ours as a Job's; of others, which claims they use, and where.
    fn prune(&mut self) {
        let (ours, asks) = (self.labels().contains_key(label::SESSION_KIND), jobs::is_preflight(self));
        if ours {
            prune_meta(&mut self.metadata);
        } else {
            self.metadata.annotations = None;
            self.metadata.owner_references = None;
        }
        self.spec = self.spec.take().map(|s| PodSpec {
            containers: task(asks, &s.containers),
            volumes: claims(s.volumes),
            node_name: s.node_name,
            tolerations: s.tolerations.filter(|_| !ours),
            affinity: s.affinity.filter(|_| !ours),
            ..PodSpec::default()
        });
        self.status = self.status.take().map(|s| {
            let phase = PodStatus { phase: s.phase, ..PodStatus::default() };
            if !ours {
                return phase;
            }
            PodStatus {
                reason: s.reason,
                message: s.message,
                conditions: s.conditions,
                container_statuses: s.container_statuses,
                pod_ip: s.pod_ip,
                ..phase
            }
        });
    }
}

impl Keep for PersistentVolumeClaim {
    fn prune(&mut self) {
        self.status = None;
        self.spec = self.spec.take().map(|s| PersistentVolumeClaimSpec {
            access_modes: s.access_modes,
            volume_mode: s.volume_mode,
            ..PersistentVolumeClaimSpec::default()
        });
    }
}

impl Keep for Deployment {}
impl Keep for StatefulSet {}
impl Keep for DaemonSet {}
impl Keep for ReplicaSet {}
impl Keep for ReplicationController {}
impl Keep for HorizontalPodAutoscaler {}
impl Keep for Namespace {}

fn prune_meta(meta: &mut ObjectMeta) {
    meta.labels.iter_mut().for_each(|all| all.retain(|key, _| LABELS.contains(&key.as_str())));
    meta.annotations.iter_mut().for_each(|all| all.retain(|key, _| ANNOTATIONS.contains(&key.as_str())));
}

/// What the agent was told, where somebody asks.
fn task(asks: bool, containers: &[Container]) -> Vec<Container> {
    let told = jobs::task_text(containers).filter(|_| asks);
    let container = |task: &str| {
        let env = EnvVar { name: TASK_ENV.to_owned(), value: Some(task.to_owned()), value_from: None };
        Container { env: Some(vec![env]), ..Container::default() }
    };
    told.map(container).into_iter().collect()
}

fn claims(volumes: Option<Vec<Volume>>) -> Option<Vec<Volume>> {
    let claim = |v: Volume| {
        let claim_name = v.persistent_volume_claim?.claim_name;
        let claim = PersistentVolumeClaimVolumeSource { claim_name, read_only: None };
        Some(Volume { name: v.name, persistent_volume_claim: Some(claim), ..Volume::default() })
    };
    volumes.map(|all| all.into_iter().filter_map(claim).collect())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::jobs::{JobSeen, see};

    fn template() -> Value {
        let env = json!([{ "name": "HOME", "value": "/" }, { "name": TASK_ENV, "value": "{}" }]);
        let volumes = json!([{ "name": "work", "emptyDir": {} },
            { "name": "data", "persistentVolumeClaim": { "claimName": "claim" } }]);
        json!({ "containers": [{ "name": "agent", "env": env }], "volumes": volumes, "nodeName": "node",
            "tolerations": [{ "key": "k", "operator": "Exists" }] })
    }

    fn meta(labels: &Value) -> Value {
        json!({ "name": "j", "namespace": "n", "uid": "u", "managedFields": [{ "manager": "m" }], "labels": labels,
            "annotations": { annotation::ATTEMPT: "2", "note": "long" } })
    }

    /// That all is kept which plans read is tried wherever a plan is, see [`crate::plan::fake`].
    #[test]
    fn of_a_job_what_is_read_stays_and_the_rest_goes() {
        for step in ["preflight", "restore"] {
            let job = json!({ "metadata": meta(&json!({ label::STEP: step, "app": "shop" })),
                "spec": { "template": { "spec": template() } },
                "status": { "active": 1, "conditions": [{ "type": "Failed", "status": "True", "reason": "DeadlineExceeded" }] } });
            let whole: Job = serde_json::from_value(job.clone()).unwrap();
            let kept: Kept<Job> = serde_json::from_value(job).unwrap();
            let opened = kept.open();
            assert_eq!((opened.labels().len(), opened.annotations().len()), (1, 1));
            assert_eq!(kept.text.contains("LIFEBOAT_TASK"), step == "preflight");
            for gone in ["HOME", "emptyDir", "managedFields"] {
                assert!(!kept.text.contains(gone), "{}", kept.text);
            }
            let [whole, kept] = [&whole, &kept.open()].map(|job| see(job, &[], Timestamp::UNIX_EPOCH));
            assert_eq!(kept, JobSeen { task: None, ..whole });
            assert_eq!(kept.writes.is_empty(), step == "preflight");
        }
    }

    #[test]
    fn of_a_pod_of_others_stays_which_claims_it_uses_and_where() {
        let pod = json!({ "metadata": meta(&json!({ "app": "shop" })), "spec": template(),
            "status": { "phase": "Running", "hostIP": "10.0.0.1" } });
        let kept: Kept<Pod> = serde_json::from_value(pod.clone()).unwrap();
        let (kept, spec) = (json!(kept.open()), &pod["spec"]);
        assert_eq!(kept["metadata"], json!({ "name": "j", "namespace": "n", "uid": "u", "labels": { "app": "shop" } }));
        assert_eq!(kept["spec"]["volumes"], json!([spec["volumes"][1]]));
        assert_eq!(kept["spec"]["tolerations"], spec["tolerations"]);
        assert_eq!((&kept["spec"]["nodeName"], &kept["status"]), (&json!("node"), &json!({ "phase": "Running" })));
        assert_eq!(kept["spec"]["containers"], json!([]));
    }

    #[test]
    fn of_a_claim_stays_how_it_may_be_used() {
        let spec = json!({ "accessModes": ["ReadWriteOnce"], "volumeMode": "Block" });
        let mut claim = json!({ "metadata": meta(&json!({})), "spec": spec, "status": { "phase": "Bound" } });
        claim["spec"]["resources"] = json!({ "requests": { "storage": "1Gi" } });
        let kept: Kept<PersistentVolumeClaim> = serde_json::from_value(claim).unwrap();
        let kept = json!(kept.open());
        assert_eq!((&kept["spec"], kept.get("status")), (&spec, None));
        assert_eq!(kept["metadata"]["annotations"]["note"], "long");
    }
}
