//! The reads of a decision: all that `plan` may depend on, in one place.
//!
//! Repositories, Jobs and pods of Jobs come from watched stores. Targets are
//! read when they are needed: nobody wants an operator to watch every workload.
//! Of a Secret only the metadata is read, to know that it is there.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, PodSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::{PartialObjectMeta, Selector};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::context::{Children, Context};
use crate::api::common::{RepositoryRef, TargetRef};
use crate::names::label;
use crate::plan::hosts::TargetKind;
use crate::plan::jobs::{self, JobSeen};
use crate::plan::observed::{RepositorySeen, Seen, Silence};
use crate::plan::restore::display;
use crate::plan::target::{ClaimSeen, PodSeen, Target, TargetSeen};
use crate::plan::usage;

/// Ordinals that are looked for when a StatefulSet is scaled to zero.
const MOST_DORMANT: i32 = 1000;

/// The Repository of a reference, and whether its Secret is there.
pub async fn repository(ctx: &Context, reference: Option<&RepositoryRef>, namespace: &str) -> Seen<RepositorySeen> {
    let Some(reference) = reference else { return Seen::Missing };
    let home = reference.namespace.as_deref().unwrap_or(namespace);
    let Some(found) = ctx.repositories.get(&ObjectRef::new(&reference.name).within(home)) else { return Seen::Missing };
    let name = found.spec.backend.as_ref().and_then(|b| b.storage_secret_name.clone()).unwrap_or_default();
    let secret = if name.is_empty() { Seen::Missing } else { secret(ctx, home, &name).await };
    let first_backup = found.status.as_ref().and_then(|s| s.first_backup_time.clone());
    let reachability = found.status.as_ref().and_then(|s| s.reachability.clone()).filter(|r| !r.reachable);
    let unreachable = reachability.map(|r| Silence { since: r.since.0, message: r.message.unwrap_or_default() });
    let labels = if usage::asks_for_labels(found.spec.usage_policy.as_ref(), home, namespace) {
        labels(ctx, namespace).await
    } else {
        Seen::Missing
    };
    Seen::Found(RepositorySeen { spec: found.spec.clone(), first_backup, secret, labels, unreachable })
}

/// Labels of a Namespace.
async fn labels(ctx: &Context, namespace: &str) -> Seen<BTreeMap<String, String>> {
    match Api::<Namespace>::all(ctx.client.clone()).get_metadata_opt(namespace).await {
        Ok(Some(found)) => Seen::Found(found.metadata.labels.unwrap_or_default()),
        Ok(None) => Seen::Missing,
        Err(e) => Seen::Unknown(plain(&e)),
    }
}

/// Whether a Secret is there; its data is not read.
pub async fn secret(ctx: &Context, namespace: &str, name: &str) -> Seen<()> {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(ctx.client.clone(), namespace);
    match api.get_metadata_opt(name).await {
        Ok(Some(_)) => Seen::Found(()),
        Ok(None) => Seen::Missing,
        Err(e) => Seen::Unknown(plain(&e)),
    }
}

/// Jobs of a session, each with what became of it.
pub fn jobs(children: &Children, uid: &str, now: Timestamp) -> Vec<JobSeen> {
    let pods = children.pods.state_filter(|p| p.labels().get(label::SESSION_UID).is_some_and(|u| u == uid));
    let pods: Vec<&Pod> = pods.iter().map(std::convert::AsRef::as_ref).collect();
    let of_session = children.jobs.state_filter(|j| j.labels().get(label::SESSION_UID).is_some_and(|u| u == uid));
    of_session.iter().map(|j| jobs::see(j, &pods, now)).collect()
}

/// Jobs of a session as the API server has them at this moment.
///
/// # Errors
/// They could not be listed: nobody knows then whether anything runs.
pub async fn jobs_now(ctx: &Context, namespace: &str, uid: &str) -> kube::Result<Vec<JobSeen>> {
    let of_session = ListParams::default().labels(&format!("{}={uid}", label::SESSION_UID));
    let jobs = Api::<Job>::namespaced(ctx.client.clone(), namespace).list(&of_session).await?;
    let pods = Api::<Pod>::namespaced(ctx.client.clone(), namespace).list(&of_session).await?;
    let pods: Vec<&Pod> = pods.items.iter().collect();
    Ok(jobs.items.iter().map(|j| jobs::see(j, &pods, ctx.now())).collect())
}

/// Whether a watched Job of a session runs.
pub fn runs(children: &Children, uid: &str, now: Timestamp) -> bool {
    jobs(children, uid, now).iter().any(JobSeen::is_active)
}

/// The target of a member.
pub async fn target(ctx: &Context, namespace: &str, reference: Option<&TargetRef>) -> TargetSeen {
    let Some(reference) = reference else { return TargetSeen::Missing("no target".into()) };
    let name = reference.name.clone().unwrap_or_default();
    let shown = display(reference);
    let found = match TargetKind::of(Some(reference)) {
        TargetKind::Claim => claim(ctx, namespace, &name).await,
        TargetKind::Deployment => deployment(ctx, namespace, &name).await,
        TargetKind::StatefulSet => stateful_set(ctx, namespace, &name).await,
        _ => Ok(None),
    };
    match found {
        Ok(Some(target)) => TargetSeen::Found(Box::new(Target { display: shown, name, ..target })),
        Ok(None) => TargetSeen::Missing(shown),
        Err(e) => TargetSeen::Unknown(plain(&e)),
    }
}

async fn claim(ctx: &Context, namespace: &str, name: &str) -> kube::Result<Option<Target>> {
    let Some(claim) = get::<PersistentVolumeClaim>(ctx, namespace, name).await? else { return Ok(None) };
    let mut target = Target { kind: "PersistentVolumeClaim".into(), replicas: 1, ..Target::default() };
    target.claims.insert(name.to_owned(), claim_seen(&claim));
    let users = pods(ctx, namespace, ListParams::default()).await?;
    target.pods = users.into_iter().filter(|p| p.claims.iter().any(|c| c == name)).collect();
    Ok(Some(target))
}

async fn deployment(ctx: &Context, namespace: &str, name: &str) -> kube::Result<Option<Target>> {
    let Some(found) = get::<Deployment>(ctx, namespace, name).await? else { return Ok(None) };
    let spec = found.spec.unwrap_or_default();
    let mut target = Target { kind: "Deployment".into(), replicas: spec.replicas.unwrap_or(1), ..Target::default() };
    target.pods = workload_pods(ctx, namespace, spec.selector).await?;
    take_volumes(&mut target, spec.template.spec);
    let names =
        target.volumes.iter().filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone())).collect();
    target.claims = claims(ctx, namespace, names).await?;
    Ok(Some(target))
}

async fn stateful_set(ctx: &Context, namespace: &str, name: &str) -> kube::Result<Option<Target>> {
    let Some(found) = get::<StatefulSet>(ctx, namespace, name).await? else { return Ok(None) };
    let spec = found.spec.unwrap_or_default();
    let deletes =
        spec.persistent_volume_claim_retention_policy.as_ref().and_then(|p| p.when_scaled.as_deref()) == Some("Delete");
    let mut target = Target {
        kind: "StatefulSet".into(),
        name: name.to_owned(),
        replicas: spec.replicas.unwrap_or(1),
        first_ordinal: spec.ordinals.and_then(|o| o.start).unwrap_or(0),
        claim_templates: spec.volume_claim_templates.iter().flatten().map(kube::ResourceExt::name_any).collect(),
        deletes_claims: deletes,
        ..Target::default()
    };
    target.pods = workload_pods(ctx, namespace, spec.selector).await?;
    take_volumes(&mut target, spec.template.spec);
    let shared: Vec<String> =
        target.volumes.iter().filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone())).collect();
    target.claims = claims(ctx, namespace, shared).await?;
    // Scaled to zero, its hosts are those whose claims are still there: all of its templates', without a gap.
    let last = if target.replicas > 0 { target.replicas } else { MOST_DORMANT };
    for count in 0..last {
        let ordinal = target.first_ordinal + count;
        let names: Vec<String> = target.claim_templates.iter().map(|t| format!("{t}-{name}-{ordinal}")).collect();
        let found = claims(ctx, namespace, names).await?;
        let all = !found.is_empty() && found.values().all(|c| c.exists);
        target.claims.extend(found);
        if target.replicas == 0 {
            if !all {
                break;
            }
            target.dormant_ordinals = count + 1;
        }
    }
    Ok(Some(target))
}

fn take_volumes(target: &mut Target, pod: Option<PodSpec>) {
    target.volumes = pod.and_then(|p| p.volumes).unwrap_or_default();
}

async fn claims(ctx: &Context, namespace: &str, names: Vec<String>) -> kube::Result<BTreeMap<String, ClaimSeen>> {
    let mut seen = BTreeMap::new();
    for name in names {
        let found = get::<PersistentVolumeClaim>(ctx, namespace, &name).await?;
        seen.insert(name, found.as_ref().map(claim_seen).unwrap_or_default());
    }
    Ok(seen)
}

fn claim_seen(claim: &PersistentVolumeClaim) -> ClaimSeen {
    let modes = claim.spec.as_ref().and_then(|s| s.access_modes.clone()).unwrap_or_default();
    ClaimSeen { exists: claim.metadata.deletion_timestamp.is_none(), access_modes: modes }
}

async fn workload_pods(ctx: &Context, namespace: &str, selector: LabelSelector) -> kube::Result<Vec<PodSeen>> {
    let Ok(selector) = Selector::try_from(selector) else { return Ok(vec![]) };
    pods(ctx, namespace, ListParams::default().labels_from(&selector)).await
}

/// Pods that are not over and not ours.
async fn pods(ctx: &Context, namespace: &str, params: ListParams) -> kube::Result<Vec<PodSeen>> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let list = api.list(&params).await?;
    let ours = |p: &Pod| p.labels().get(label::MANAGED_BY).is_some_and(|v| v == label::MANAGED_BY_VALUE);
    let over = |p: &Pod| matches!(p.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    Ok(list.items.iter().filter(|p| !ours(p) && !over(p)).map(pod_seen).collect())
}

fn pod_seen(pod: &Pod) -> PodSeen {
    let spec = pod.spec.clone().unwrap_or_default();
    let claims =
        spec.volumes.iter().flatten().filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone()));
    PodSeen {
        name: pod.name_any(),
        node: spec.node_name,
        claims: claims.collect(),
        tolerations: spec.tolerations.unwrap_or_default(),
    }
}

async fn get<K>(ctx: &Context, namespace: &str, name: &str) -> kube::Result<Option<K>>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    Api::<K>::namespaced(ctx.client.clone(), namespace).get_opt(name).await
}

/// An error of the API server as one sentence for a user.
pub fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
