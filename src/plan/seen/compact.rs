//! What the watch caches keep of kinds that others define: only what is read, in compact form.
//!
//! Thousands of Jobs may wait, among thousands of pods. The types of the API are large even when they are empty: a
//! container takes 2 KB, a volume 3, and a Job nearly 15, most of it a template that is not read again. So an object is
//! pruned, and kept as text until it is read. Code that reads more fields must add them here.
//!
//! Users fill most of these kinds, with up to 1.5 MB per object: fields that are not read are not even deserialized.

mod part;

use std::borrow::Cow;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, Namespace, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodStatus,
    ReplicationController, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde::de::{DeserializeOwned, DeserializeSeed as _, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

use crate::api::to_json;
use crate::contract::{Asked, TASK_ENV};
use crate::names::{AGENT_CONTAINER, annotation, label};
use crate::plan::restore::held_note;
use crate::plan::seen::compact::part::{Part, Place};
use crate::plan::seen::job_status;

/// Labels of the operator's Jobs and pods that are read.
const LABELS: [&str; 4] = [label::SESSION_KIND, label::SESSION_UID, label::STEP, label::MANAGED_BY];
/// Metadata that is read of every kind.
const METADATA: [&Place; 8] = [
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "uid"],
    &["metadata", "resourceVersion"],
    &["metadata", "generation"],
    &["metadata", "creationTimestamp"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "ownerReferences"],
];
/// Annotations of the operator's Jobs and pods that are read.
const OUR_ANNOTATIONS: [&Place; 5] = [
    &["metadata", "annotations", annotation::SESSION_NAME],
    &["metadata", "annotations", annotation::REPOSITORY],
    &["metadata", "annotations", annotation::STEP_KEY],
    &["metadata", "annotations", annotation::ATTEMPT],
    &["metadata", "annotations", annotation::DEFAULTS],
];

/// A kind that is kept in a watch cache.
pub trait Keep: Resource<DynamicType = ()> + Clone + Default + Serialize + DeserializeOwned {
    /// Fields that are read in addition to [`METADATA`].
    const READ: &'static [&'static [&'static Place]];

    /// Removes fields that are not read, where that depends on the object.
    fn prune(&mut self) {}

    /// Whether the object is found by its labels, which are then kept outside of its text.
    fn is_found_by_labels(&self) -> bool {
        false
    }
}

/// An object as it is kept. Its metadata contains only what identifies the object, and what it is found by. All other
/// fields are available when the object is opened.
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
        let mut object: K = serde_json::from_str(&self.text).expect("what a type writes, it reads");
        if self.metadata.labels.is_some() {
            object.meta_mut().labels.clone_from(&self.metadata.labels);
        }
        object
    }

    /// The metadata, as far as it was kept: cheaper than to open the object.
    ///
    /// # Panics
    /// Never: the text was written by the type.
    pub fn open_metadata(&self) -> ObjectMeta {
        #[derive(Deserialize)]
        struct Head {
            metadata: ObjectMeta,
        }
        #[allow(clippy::expect_used, reason = "a type wrote it")]
        let Head { mut metadata } = serde_json::from_str(&self.text).expect("what a type writes, it reads");
        if self.metadata.labels.is_some() {
            metadata.labels.clone_from(&self.metadata.labels);
        }
        metadata
    }

    /// Bytes of what is kept.
    pub fn bytes(&self) -> usize {
        let labels = self.metadata.labels.iter().flatten();
        self.text.len() + labels.map(|(key, value)| key.len() + value.len()).sum::<usize>()
    }

    /// Drops everything except what identifies the object.
    pub fn forget(&mut self) {
        let mut known = K::default();
        *known.meta_mut() = ObjectMeta { labels: None, ..self.metadata.clone() };
        *self = Self::keep(known);
    }

    /// Keeps an object of which only the needed fields were read.
    fn keep(mut object: K) -> Self {
        object.prune();
        let labels = if object.is_found_by_labels() { object.meta_mut().labels.take() } else { None };
        #[allow(clippy::expect_used, reason = "types of the API have no keys that are no text")]
        let text = serde_json::to_string(&object).expect("a type of the API is JSON").into();
        let all = std::mem::take(object.meta_mut());
        let metadata = ObjectMeta {
            name: all.name,
            namespace: all.namespace,
            uid: all.uid,
            resource_version: all.resource_version,
            labels,
            ..ObjectMeta::default()
        };
        Self { metadata, text, kind: std::marker::PhantomData }
    }
}

impl<K: Keep> From<K> for Kept<K> {
    fn from(object: K) -> Self {
        #[allow(clippy::expect_used, reason = "what a type writes, it reads")]
        serde_json::from_value(to_json(&object)).expect("it was written by the same type")
    }
}

impl<'de, K: Keep> Deserialize<'de> for Kept<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let part =
            Part::of(METADATA.iter().chain(K::READ.iter().copied().flatten()).copied()).deserialize(deserializer)?;
        K::deserialize(part).map(Self::keep).map_err(D::Error::custom)
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
    const READ: &'static [&'static [&'static Place]] = &[
        &OUR_ANNOTATIONS,
        &[
            &["metadata", "labels"],
            &["spec", "suspend"],
            &["spec", "template", "spec", "containers", "name"],
            &["spec", "template", "spec", "containers", "env", "name"],
            &["spec", "template", "spec", "containers", "env", "value"],
            &["spec", "template", "spec", "volumes", "name"],
            &["spec", "template", "spec", "volumes", "persistentVolumeClaim", "claimName"],
            &["status", "conditions"],
            &["status", "active"],
            &["status", "terminating"],
            &["status", "failed"],
            &["status", "succeeded"],
        ],
    ];

    fn prune(&mut self) {
        let asks = job_status::is_preflight(self);
        prune_labels(&mut self.metadata);
        if let Some(pod) = self.spec.as_mut().and_then(|s| s.template.spec.as_mut()) {
            pod.volumes = claims(pod.volumes.take());
            pod.containers = task(asks, &pod.containers);
        }
    }
}

impl Keep for Pod {
    const READ: &'static [&'static [&'static Place]] = &[
        &OUR_ANNOTATIONS,
        &[
            &["metadata", "labels"],
            &["spec", "containers", "name"],
            &["spec", "containers", "env", "name"],
            &["spec", "containers", "env", "value"],
            &["spec", "initContainers", "name"],
            &["spec", "initContainers", "restartPolicy"],
            &["spec", "volumes", "name"],
            &["spec", "volumes", "persistentVolumeClaim", "claimName"],
            &["spec", "nodeName"],
            &["spec", "tolerations"],
            &["spec", "affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms", "matchFields"],
            &["status", "phase"],
            &["status", "reason"],
            &["status", "message"],
            &["status", "conditions"],
            &["status", "containerStatuses"],
            &["status", "initContainerStatuses"],
            &["status", "podIP"],
        ],
    ];

    /// The operator's own pods are pruned like its Jobs. Of other pods, only the claims that they use, and where, are
    /// kept.
    fn prune(&mut self) {
        let (ours, asks) = (!self.is_found_by_labels(), job_status::is_preflight(self));
        if ours {
            prune_labels(&mut self.metadata);
        } else {
            self.metadata.annotations = None;
            self.metadata.owner_references = None;
            self.status = self.status.take().map(|s| PodStatus { phase: s.phase, ..PodStatus::default() });
        }
        if let Some(spec) = &mut self.spec {
            spec.containers = task(asks, &spec.containers);
            spec.volumes = claims(spec.volumes.take());
            if ours {
                spec.tolerations = None;
                spec.affinity = None;
            } else {
                spec.init_containers = None;
            }
        }
    }

    fn is_found_by_labels(&self) -> bool {
        !self.labels().contains_key(label::SESSION_KIND)
    }
}

/// Field in which a DaemonSet's pods name the node that they are for.
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

impl Keep for PersistentVolumeClaim {
    const READ: &'static [&'static [&'static Place]] = &[&[
        &["metadata", "labels", label::SESSION_KIND],
        &["metadata", "labels", label::SESSION_UID],
        OUR_ANNOTATIONS[0],
        &["metadata", "annotations", annotation::TEMPLATE],
        &["spec", "accessModes"],
        &["spec", "volumeMode"],
    ]];
}

impl Keep for Deployment {
    const READ: &'static [&'static [&'static Place]] = &[&WORKLOAD, &NOTE, &COUNTED];

    fn prune(&mut self) {
        bound_note(&mut self.metadata);
    }
}
impl Keep for StatefulSet {
    const READ: &'static [&'static [&'static Place]] = &[
        &WORKLOAD,
        &NOTE,
        &COUNTED,
        &[
            &["spec", "persistentVolumeClaimRetentionPolicy"],
            &["spec", "ordinals"],
            &["spec", "volumeClaimTemplates", "metadata", "name"],
        ],
    ];

    fn prune(&mut self) {
        bound_note(&mut self.metadata);
    }
}
impl Keep for DaemonSet {
    const READ: &'static [&'static [&'static Place]] =
        &[&WORKLOAD, &[&["status", "observedGeneration"], &["status", "desiredNumberScheduled"]]];
}
impl Keep for ReplicaSet {
    const READ: &'static [&'static [&'static Place]] = &[&WORKLOAD, &NOTE, &COUNTED];

    fn prune(&mut self) {
        bound_note(&mut self.metadata);
    }
}
impl Keep for ReplicationController {
    const READ: &'static [&'static [&'static Place]] = &[&WORKLOAD, &NOTE, &COUNTED];

    fn prune(&mut self) {
        bound_note(&mut self.metadata);
    }
}

/// Why a workload that can be scaled stays at zero.
const NOTE: [&Place; 1] = [&["metadata", "annotations", annotation::HELD_DOWN]];

/// Progress of the controller of a workload that can be scaled.
const COUNTED: [&Place; 2] = [&["status", "observedGeneration"], &["status", "replicas"]];

/// Limits the length of the annotation, which any user may have written.
fn bound_note(meta: &mut ObjectMeta) {
    let note = meta.annotations.as_mut().and_then(|all| all.get_mut(annotation::HELD_DOWN));
    note.into_iter().for_each(held_note::bound);
}

/// Fields that are read of workloads of all kinds.
const WORKLOAD: [&Place; 6] = [
    &["spec", "replicas"],
    &["spec", "selector"],
    &["spec", "template", "spec", "volumes"],
    &["spec", "template", "spec", "containers", "volumeMounts"],
    &["spec", "template", "spec", "initContainers", "volumeMounts"],
    &["spec", "template", "spec", "tolerations"],
];

impl Keep for HorizontalPodAutoscaler {
    const READ: &'static [&'static [&'static Place]] =
        &[&[&["spec", "scaleTargetRef", "kind"], &["spec", "scaleTargetRef", "name"], &["spec", "minReplicas"]]];
}
impl Keep for Namespace {
    const READ: &'static [&'static [&'static Place]] =
        &[&[&["metadata", "labels"], &["metadata", "annotations", annotation::JOB_DEFAULTS]]];
}

fn prune_labels(meta: &mut ObjectMeta) {
    meta.labels.iter_mut().for_each(|all| all.retain(|key, _| LABELS.contains(&key.as_str())));
}

/// The agent's container with only the parts that its task asks for; empty if `asks` is false.
fn task(asks: bool, containers: &[Container]) -> Vec<Container> {
    let told = job_status::task_text(containers).filter(|_| asks).and_then(|t| Asked::decode(t).ok());
    let container = |task: Asked| {
        let env = EnvVar { name: TASK_ENV.to_owned(), value: Some(task.encode()), value_from: None };
        Container { name: AGENT_CONTAINER.to_owned(), env: Some(vec![env]), ..Container::default() }
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
mod tests;
