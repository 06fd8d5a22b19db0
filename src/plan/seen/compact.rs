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
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::contract::VERSION;
    use crate::contract::restic::RepositoryAccess;
    use crate::plan::seen::job_status::{JobSeen, see};

    fn template() -> Value {
        let asks = json!([{ "source_host": "s", "paths": ["/long"], "mounts": [] }]);
        let work = json!({ "repository": RepositoryAccess::default(), "step": { "preflight": { "hosts": asks } } });
        let task = json!({ "version": VERSION, "run": { "id": "i", "kind": "k", "namespace": "n", "name": "r" },
            "verb": "preflight", "parts": [{ "member": 1, "name": "h" }], "work": { "restic": work } });
        let env = json!([{ "name": "HOME", "value": "/" }, { "name": TASK_ENV, "value": task.to_string() }]);
        let volumes = json!([{ "name": "work", "emptyDir": {} },
            { "name": "data", "persistentVolumeClaim": { "claimName": "claim" } }]);
        json!({ "containers": [{ "name": "agent", "env": env }], "volumes": volumes, "nodeName": "node",
            "tolerations": [{ "key": "k", "operator": "Exists" }] })
    }

    fn meta(labels: &Value) -> Value {
        json!({ "name": "j", "namespace": "n", "uid": "u", "managedFields": [{ "manager": "m" }], "labels": labels,
            "annotations": { annotation::ATTEMPT: "2", "note": "long" } })
    }

    /// Every test of a plan checks that everything that plans read is kept, see [`crate::plan::fake`].
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
            for gone in ["HOME", "emptyDir", "managedFields", "/long"] {
                assert!(!kept.text.contains(gone), "{}", kept.text);
            }
            let [whole, kept] = [&whole, &kept.open()].map(|job| see(job, &[], Timestamp::UNIX_EPOCH));
            let parts = if step == "preflight" { whole.parts.clone() } else { vec![] };
            assert!(!whole.parts.is_empty(), "{whole:?}");
            assert_eq!(kept, JobSeen { parts, ..whole });
            assert_eq!(kept.writes.is_empty(), step == "preflight");
        }
    }

    /// The user's variables come first, and the custom resource definitions allow 250.
    #[test]
    fn of_a_preflight_with_many_variables_stays_whom_it_asks_for() {
        let mut template = template();
        let mut env: Vec<Value> = (0..250).map(|i| json!({ "name": format!("N{i}"), "value": "x" })).collect();
        env.append(template["containers"][0]["env"].as_array_mut().unwrap());
        template["containers"][0]["env"] = env.into();
        let job = json!({ "metadata": meta(&json!({ label::STEP: "preflight" })), "spec": { "template": { "spec": template } } });
        let kept: Kept<Job> = serde_json::from_value(job).unwrap();
        assert!(!see(&kept.open(), &[], Timestamp::UNIX_EPOCH).parts.is_empty());
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
    fn of_a_workload_stays_what_its_containers_mount_and_how() {
        fn pod<K: Keep>(spec: &Value) -> Value {
            let kept: Kept<K> = serde_json::from_value(json!({ "metadata": meta(&json!({})), "spec": spec })).unwrap();
            json!(kept.open())["spec"]["template"]["spec"].clone()
        }
        let mut template = template();
        let mounts =
            |read_only: bool| json!([{ "name": "data", "mountPath": "/d", "subPath": "a", "readOnly": read_only }]);
        template["containers"][0]["volumeMounts"] = mounts(true);
        template["initContainers"] = json!([{ "name": "i", "image": "x", "volumeMounts": mounts(false) }]);
        let spec = json!({ "replicas": 2, "template": { "spec": template } });
        for kept in
            [pod::<Deployment>, pod::<StatefulSet>, pod::<DaemonSet>, pod::<ReplicaSet>, pod::<ReplicationController>]
        {
            let kept = kept(&spec);
            assert_eq!((&kept["volumes"], &kept["tolerations"]), (&template["volumes"], &template["tolerations"]));
            for containers in ["containers", "initContainers"] {
                assert_eq!(kept[containers][0]["volumeMounts"], template[containers][0]["volumeMounts"]);
                assert!(kept[containers][0].get("env").is_none() && kept[containers][0].get("image").is_none());
            }
        }
    }

    #[test]
    fn of_a_workload_that_can_be_scaled_stays_why_it_is_at_zero_and_no_more_than_is_read() {
        fn note<K: Keep>(text: &str) -> Option<String> {
            let meta = json!({ "name": "j", "annotations": { annotation::HELD_DOWN: text, "another": "x" } });
            let kept: Kept<K> = serde_json::from_value(json!({ "metadata": meta })).unwrap();
            assert!(!kept.text.contains("another") && kept.text.len() < 5000);
            kept.open().annotations().get(annotation::HELD_DOWN).cloned()
        }
        for note in [note::<Deployment>, note::<StatefulSet>, note::<ReplicaSet>, note::<ReplicationController>] {
            assert_eq!(note("{}").as_deref(), Some("{}"));
            let long = note(&"x".repeat(200_000)).unwrap();
            assert_eq!(held_note::Note::read(&long), Err("is longer than 32768 bytes"));
        }
        assert_eq!(note::<DaemonSet>("{}"), None);
    }

    #[test]
    fn of_a_workload_that_can_be_scaled_stays_how_far_its_controller_is() {
        fn status<K: Keep>() -> Value {
            let status = json!({ "observedGeneration": 3, "replicas": 2, "readyReplicas": 1, "conditions": [] });
            let kept: Kept<K> =
                serde_json::from_value(json!({ "metadata": { "name": "j", "generation": 4 }, "status": status }))
                    .unwrap();
            let kept = json!(kept.open());
            json!([kept["metadata"]["generation"], kept["status"]])
        }
        for status in
            [status::<Deployment>, status::<StatefulSet>, status::<ReplicaSet>, status::<ReplicationController>]
        {
            assert_eq!(status(), json!([4, { "observedGeneration": 3, "replicas": 2 }]));
        }
    }

    #[test]
    fn of_a_claim_stays_how_it_may_be_used() {
        let spec = json!({ "accessModes": ["ReadWriteOnce"], "volumeMode": "Block" });
        let mut claim = json!({ "metadata": meta(&json!({})), "spec": spec, "status": { "phase": "Bound" } });
        claim["spec"]["resources"] = json!({ "requests": { "storage": "1Gi" } });
        let kept: Kept<PersistentVolumeClaim> = serde_json::from_value(claim).unwrap();
        let kept = json!(kept.open());
        assert_eq!((&kept["spec"], kept.get("status")), (&spec, None));
        let meta = json!({ "annotations": {}, "labels": {}, "name": "j", "namespace": "n", "uid": "u" });
        assert_eq!(kept["metadata"], meta);
    }
}
