//! Writes to workloads: their replicas, and the reason why a workload stays at zero. Never their pod templates.
//!
//! A workload that no longer exists is no error. The writes are idempotent.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::controller::apply::writes::Writes;
use crate::controller::observe::openshift::DeploymentConfig;
use crate::names::{MANAGER, annotation};
use crate::plan::effects::{Hold, Scale};

/// A subresource of a workload.
#[derive(Clone, Copy)]
enum Part {
    Scale,
    Status,
}

/// Sets replicas. A workload that no longer exists is no error.
pub async fn scale(writes: &Writes, namespace: &str, change: &Scale) -> kube::Result<()> {
    let patch = json!({ "spec": { "replicas": change.replicas } });
    patch_part(writes, namespace, (&change.kind, &change.name), Part::Scale, patch).await
}

/// Sets or removes the annotation. The write uses the status subresource: it accepts annotations, and permission to
/// write it does not include the pod template, unlike permission to write the workload.
pub async fn hold(writes: &Writes, namespace: &str, change: &Hold) -> kube::Result<()> {
    let patch = json!({ "metadata": { "annotations": { annotation::HELD_DOWN: change.note } } });
    patch_part(writes, namespace, (&change.kind, &change.name), Part::Status, patch).await
}

async fn patch_part(writes: &Writes, namespace: &str, of: (&str, &str), part: Part, patch: Value) -> kube::Result<()> {
    let (kind, name) = of;
    let result = match kind {
        "StatefulSet" => one::<StatefulSet>(writes, namespace, name, part, patch).await,
        "ReplicaSet" => one::<ReplicaSet>(writes, namespace, name, part, patch).await,
        "ReplicationController" => one::<ReplicationController>(writes, namespace, name, part, patch).await,
        "DeploymentConfig" => one::<DeploymentConfig>(writes, namespace, name, part, patch).await,
        _ => one::<Deployment>(writes, namespace, name, part, patch).await,
    };
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}

async fn one<K>(writes: &Writes, namespace: &str, name: &str, part: Part, patch: Value) -> kube::Result<()>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api = Api::<K>::namespaced(writes.client.clone(), namespace);
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(patch);
    match part {
        Part::Scale => api.patch_scale(name, &params, &patch).await.map(drop),
        Part::Status => api.patch_status(name, &params, &patch).await.map(drop),
    }
}
