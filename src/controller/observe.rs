//! The reads of a decision: all that `plan` may depend on, in one place.
//!
//! Repositories, Jobs and pods of Jobs come from watched stores. Targets are
//! read when they are needed: nobody wants an operator to watch every workload.
//! Of a Secret only the metadata is read, to know that it is there.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, PodSpec, ReplicationController, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::{PartialObjectMeta, Selector};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::context::{Children, Context};
use crate::api::common::{RepositoryRef, TargetRef};
use crate::api::restore_session::RestorePhase;
use crate::api::target::RestoreTarget;
use crate::names::{annotation, label};
use crate::plan::claims::{Made, wanted};
use crate::plan::hosts::TargetKind;
use crate::plan::jobs::{self, JobSeen};
use crate::plan::observed::{RepositorySeen, Rival, Seen, Silence, Writer};
use crate::plan::pod_security::{ENFORCE_LABEL, Level};
use crate::plan::restore::{display, rivals};
use crate::plan::run::{Identity, RestoreRun};
use crate::plan::target::{ClaimSeen, MOST_HOSTS, PodSeen, Target, TargetSeen};
use crate::plan::usage;

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

/// Pod Security level that a namespace enforces. Without the right to look, only what the API server then
/// refuses shows it.
///
/// # Errors
/// The API server could not be reached.
pub async fn pod_security(ctx: &Context, namespace: &str) -> kube::Result<Level> {
    match Api::<Namespace>::all(ctx.client.clone()).get_metadata_opt(namespace).await {
        Ok(found) => Ok(Level::of(found.as_ref().and_then(|n| n.labels().get(ENFORCE_LABEL)).map(String::as_str))),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Level::Privileged),
        Err(e) => Err(e),
    }
}

/// Jobs of a session, each with what became of it.
pub fn jobs(children: &Children, uid: &str, now: Timestamp) -> Vec<JobSeen> {
    let pods = children.pods.state_filter(|p| p.labels().get(label::SESSION_UID).is_some_and(|u| u == uid));
    let pods: Vec<&Pod> = pods.iter().map(std::convert::AsRef::as_ref).collect();
    let of_session = children.jobs.state_filter(|j| j.labels().get(label::SESSION_UID).is_some_and(|u| u == uid));
    let of_session: Vec<&Job> = of_session.iter().map(std::convert::AsRef::as_ref).collect();
    jobs::see_all(&of_session, &pods, now)
}

/// Jobs of a session as the API server has them at this moment.
///
/// # Errors
/// They could not be listed: nobody knows then whether anything runs.
pub async fn jobs_now(ctx: &Context, namespace: &str, uid: &str) -> kube::Result<Vec<JobSeen>> {
    let of_session = ListParams::default().labels(&format!("{}={uid}", label::SESSION_UID));
    let jobs = Api::<Job>::namespaced(ctx.client.clone(), namespace).list(&of_session).await?;
    let pods = Api::<Pod>::namespaced(ctx.client.clone(), namespace).list(&of_session).await?;
    let (jobs, pods): (Vec<&Job>, Vec<&Pod>) = (jobs.items.iter().collect(), pods.items.iter().collect());
    Ok(jobs::see_all(&jobs, &pods, ctx.now()))
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
        TargetKind::DaemonSet => daemon_set(ctx, namespace, &name).await,
        TargetKind::ReplicaSet => replica_set(ctx, namespace, &name).await,
        TargetKind::ReplicationController => replication_controller(ctx, namespace, &name).await,
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
    let target = Target { kind: "Deployment".into(), replicas: spec.replicas.unwrap_or(1), ..Target::default() };
    workload(ctx, namespace, target, spec.selector, spec.template.spec).await.map(Some)
}

async fn replica_set(ctx: &Context, namespace: &str, name: &str) -> kube::Result<Option<Target>> {
    let Some(found) = get::<ReplicaSet>(ctx, namespace, name).await? else { return Ok(None) };
    let spec = found.spec.unwrap_or_default();
    let target = Target {
        kind: "ReplicaSet".into(),
        replicas: spec.replicas.unwrap_or(1),
        controller: controller(&found.metadata),
        ..Target::default()
    };
    workload(ctx, namespace, target, spec.selector, spec.template.and_then(|t| t.spec)).await.map(Some)
}

async fn replication_controller(ctx: &Context, namespace: &str, name: &str) -> kube::Result<Option<Target>> {
    let Some(found) = get::<ReplicationController>(ctx, namespace, name).await? else { return Ok(None) };
    let spec = found.spec.unwrap_or_default();
    let target = Target {
        kind: "ReplicationController".into(),
        replicas: spec.replicas.unwrap_or(1),
        controller: controller(&found.metadata),
        ..Target::default()
    };
    let selector = LabelSelector { match_labels: spec.selector, ..LabelSelector::default() };
    workload(ctx, namespace, target, selector, spec.template.and_then(|t| t.spec)).await.map(Some)
}

async fn daemon_set(ctx: &Context, namespace: &str, name: &str) -> kube::Result<Option<Target>> {
    let Some(found) = get::<DaemonSet>(ctx, namespace, name).await? else { return Ok(None) };
    let spec = found.spec.unwrap_or_default();
    let counted = found.status.filter(|s| s.observed_generation >= found.metadata.generation);
    let target = Target {
        kind: "DaemonSet".into(),
        desired_nodes: counted.map(|s| s.desired_number_scheduled),
        ..Target::default()
    };
    workload(ctx, namespace, target, spec.selector, spec.template.spec).await.map(Some)
}

/// What the kinds have in common: pods, volumes, and the claims behind them.
async fn workload(
    ctx: &Context,
    namespace: &str,
    mut target: Target,
    selector: LabelSelector,
    pod: Option<PodSpec>,
) -> kube::Result<Target> {
    target.pods = workload_pods(ctx, namespace, selector).await?;
    let pod = pod.unwrap_or_default();
    target.volumes = pod.volumes.unwrap_or_default();
    target.tolerations = pod.tolerations.unwrap_or_default();
    let names =
        target.volumes.iter().filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone())).collect();
    target.claims = claims(ctx, namespace, names).await?;
    Ok(target)
}

fn controller(meta: &ObjectMeta) -> Option<String> {
    let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    Some(format!("{}/{}", owner.kind, owner.name))
}

/// HorizontalPodAutoscalers of a workload that scale it up from zero; the others rest while it is there.
pub async fn autoscalers(ctx: &Context, namespace: &str, target: &Target) -> kube::Result<Vec<String>> {
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(ctx.client.clone(), namespace);
    let mut all = api.list(&ListParams::default()).await?.items;
    all.retain(|a| {
        a.spec.as_ref().is_some_and(|s| {
            let of = &s.scale_target_ref;
            of.kind == target.kind && of.name == target.name && s.min_replicas == Some(0)
        })
    });
    Ok(all.iter().map(kube::ResourceExt::name_any).collect())
}

/// The claims that a restore makes, as they are.
pub async fn made_claims(ctx: &Context, id: &Identity, spec: &RestoreTarget) -> TargetSeen {
    let look = async {
        let mut target = Target { to_make: wanted(spec, id), ..Target::default() };
        target.display = "the claims of volumeClaimTemplates".into();
        let names: Vec<String> = target.to_make.iter().map(|w| w.name.clone()).collect();
        target.claims = claims(ctx, &id.namespace, names).await?;
        if target.claims.values().any(|c| c.exists) {
            let users = pods(ctx, &id.namespace, ListParams::default()).await?;
            target.pods =
                users.into_iter().filter(|p| p.claims.iter().any(|c| target.claims.contains_key(c))).collect();
        }
        Ok::<_, kube::Error>(target)
    };
    match look.await {
        Ok(target) => TargetSeen::Found(Box::new(target)),
        Err(e) => TargetSeen::Unknown(plain(&e)),
    }
}

/// Targets of other unfinished restores of the namespace that are this one's too.
pub fn rivals(ctx: &Context, run: &RestoreRun) -> Vec<Rival> {
    let own: Vec<String> = run.targets().iter().filter_map(|t| rivals::key(t.as_ref()?)).collect();
    let near = |meta: &ObjectMeta, phase: Option<RestorePhase>| {
        let over = matches!(phase, Some(RestorePhase::Succeeded | RestorePhase::Failed));
        !over && meta.namespace.as_ref() == Some(&run.id.namespace) && meta.uid.as_ref() != Some(&run.id.uid)
    };
    let sessions = ctx.users.restores.state_filter(|s| near(&s.metadata, s.status.as_ref().and_then(|s| s.phase)));
    let batches =
        ctx.users.restore_batches.state_filter(|b| near(&b.metadata, b.status.as_ref().and_then(|s| s.phase)));
    let others =
        sessions.iter().map(|s| RestoreRun::of_session(s)).chain(batches.iter().map(|b| RestoreRun::of_batch(b)));
    others.flat_map(|other| rivals::of(&other)).filter(|r| own.contains(&r.target)).collect()
}

/// Claims that restore Jobs of other sessions of the namespace write to.
pub fn writers(ctx: &Context, id: &Identity, now: Timestamp) -> Vec<Writer> {
    let near = |job: &Job| {
        let label = |key: &str| job.labels().get(key).map(String::as_str);
        job.namespace().as_ref() == Some(&id.namespace)
            && label(label::STEP) == Some("restore")
            && label(label::SESSION_UID) != Some(&id.uid)
    };
    let mut found = vec![];
    for children in [&ctx.of_restore_sessions, &ctx.of_restore_batches] {
        for job in children.jobs.state_filter(|j| near(j)) {
            let uid = job.labels().get(label::SESSION_UID).cloned().unwrap_or_default();
            let pods = children.pods.state_filter(|p| p.labels().get(label::SESSION_UID) == Some(&uid));
            let seen = jobs::see(&job, &pods.iter().map(AsRef::as_ref).collect::<Vec<_>>(), now);
            let name = job.annotations().get(annotation::SESSION_NAME).cloned().unwrap_or_default();
            let kind = job.labels().get(label::SESSION_KIND).cloned().unwrap_or_default();
            let session = format!("{kind} {}/{name}", id.namespace);
            if seen.is_active() {
                found.extend(seen.writes.into_iter().map(|claim| Writer { session: session.clone(), claim }));
            }
        }
    }
    found
}

async fn stateful_set(ctx: &Context, namespace: &str, name: &str) -> kube::Result<Option<Target>> {
    let Some(found) = get::<StatefulSet>(ctx, namespace, name).await? else { return Ok(None) };
    let spec = found.spec.unwrap_or_default();
    let deletes =
        spec.persistent_volume_claim_retention_policy.as_ref().and_then(|p| p.when_scaled.as_deref()) == Some("Delete");
    let target = Target {
        kind: "StatefulSet".into(),
        name: name.to_owned(),
        replicas: spec.replicas.unwrap_or(1),
        first_ordinal: spec.ordinals.and_then(|o| o.start).unwrap_or(0),
        claim_templates: spec.volume_claim_templates.iter().flatten().map(kube::ResourceExt::name_any).collect(),
        deletes_claims: deletes,
        ..Target::default()
    };
    let mut target = workload(ctx, namespace, target, spec.selector, spec.template.spec).await?;
    // Scaled to zero, its hosts are those whose claims are still there: all of its templates', without a gap.
    let last = if target.replicas > 0 { target.replicas.min(MOST_HOSTS) } else { MOST_HOSTS };
    for count in 0..last {
        let ordinal = target.first_ordinal.saturating_add(count);
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
    let is_going = claim.metadata.deletion_timestamp.is_some();
    ClaimSeen { exists: !is_going, access_modes: modes, is_going, made: Made::of(claim) }
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
        meant_for: meant_for(&spec),
        node: spec.node_name,
        claims: claims.collect(),
        tolerations: spec.tolerations.unwrap_or_default(),
    }
}

/// The one node that a pod's affinity names, as the DaemonSet controller writes it.
fn meant_for(pod: &PodSpec) -> Option<String> {
    let required = pod.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &required.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.first()?.match_fields.iter().flatten();
    let mut named = fields.filter(|f| f.key == "metadata.name").filter_map(|f| f.values.as_ref()?.first());
    named.next().cloned()
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
