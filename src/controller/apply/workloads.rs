//! What is written to workloads: replicas, and why one stays at zero. Never their pod templates.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::controller::kinds::context::Context;
use crate::controller::observe::openshift::DeploymentConfig;
use crate::names::{MANAGER, annotation};
use crate::plan::{Hold, Scale};

/// A subresource of a workload.
#[derive(Clone, Copy)]
enum Part {
    Scale,
    Status,
}

/// Sets replicas. A workload that is gone is no error.
pub async fn scale(ctx: &Context, namespace: &str, change: &Scale) -> kube::Result<()> {
    let patch = json!({ "spec": { "replicas": change.replicas } });
    patch_part(ctx, namespace, (&change.kind, &change.name), Part::Scale, patch).await
}

/// Sets the annotation, or takes it off. By way of the status subresource: it takes annotations, and the right to write
/// it does not reach the pod template, as the right to write the workload would.
pub async fn hold(ctx: &Context, namespace: &str, change: &Hold) -> kube::Result<()> {
    let patch = json!({ "metadata": { "annotations": { annotation::HELD_DOWN: change.note } } });
    patch_part(ctx, namespace, (&change.kind, &change.name), Part::Status, patch).await
}

async fn patch_part(ctx: &Context, namespace: &str, of: (&str, &str), part: Part, patch: Value) -> kube::Result<()> {
    let (kind, name) = of;
    let result = match kind {
        "StatefulSet" => one::<StatefulSet>(ctx, namespace, name, part, patch).await,
        "ReplicaSet" => one::<ReplicaSet>(ctx, namespace, name, part, patch).await,
        "ReplicationController" => one::<ReplicationController>(ctx, namespace, name, part, patch).await,
        "DeploymentConfig" => one::<DeploymentConfig>(ctx, namespace, name, part, patch).await,
        _ => one::<Deployment>(ctx, namespace, name, part, patch).await,
    };
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}

async fn one<K>(ctx: &Context, namespace: &str, name: &str, part: Part, patch: Value) -> kube::Result<()>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api = Api::<K>::namespaced(ctx.client.clone(), namespace);
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(patch);
    match part {
        Part::Scale => api.patch_scale(name, &params, &patch).await.map(drop),
        Part::Status => api.patch_status(name, &params, &patch).await.map(drop),
    }
}
