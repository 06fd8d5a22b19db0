//! Targets: what a run restores or backs up, as one reconcile finds it.
//!
//! The [`Reader`] decides whether a target is read from a watch or from the API server. A target that does not exist
//! and a target that cannot be read are different results.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::core::{Selector, SelectorExt as _};
use kube::{Api, ResourceExt as _};

use crate::api::AppBinding;
use crate::api::common::TargetRef;
use crate::api::target::RestoreTarget;
use crate::controller::cache::informers;
use crate::controller::observe::errors::plain;
use crate::controller::observe::openshift;
use crate::controller::observe::openshift::Answer;
use crate::controller::observe::reads::Reader;
use crate::names::{annotation, label};
use crate::plan::restore::held_note;
use crate::plan::restore::held_note::Note;
use crate::plan::restore::pvc_templates::wanted;
use crate::plan::run::hosts::{TargetKind, display};
use crate::plan::seen::identity::Identity;
use crate::plan::seen::pvc::Made;
use crate::plan::seen::target::{ClaimSeen, MOST_HOSTS, PodSeen, Target, TargetSeen};

/// The target of a member. If `beside` is set, it is used to find other pods that use a workload's claims.
pub async fn target(reads: Reader<'_>, beside: Option<Reader<'_>>, reference: Option<&TargetRef>) -> TargetSeen {
    let Some(reference) = reference else { return TargetSeen::Missing("no target".into()) };
    let name = reference.name.clone().unwrap_or_default();
    let shown = display(reference);
    let found = match TargetKind::of(Some(reference)) {
        TargetKind::Claim => claim(reads, &name).await,
        TargetKind::Deployment => deployment(reads, &name).await,
        TargetKind::StatefulSet => stateful_set(reads, &name).await,
        TargetKind::DaemonSet => daemon_set(reads, &name).await,
        TargetKind::ReplicaSet => replica_set(reads, &name).await,
        TargetKind::ReplicationController => replication_controller(reads, &name).await,
        TargetKind::DeploymentConfig => match deployment_config(reads, &name).await {
            Ok(None) => return TargetSeen::Unknown(openshift::NO_SUCH_API.into()),
            Ok(Some(found)) => Ok(found),
            Err(e) => Err(e),
        },
        TargetKind::AppBinding => app_binding(reads, &name).await,
        _ => Ok(None),
    };
    let found = match (found, beside) {
        (Ok(Some((target, Some(own)))), Some(beside)) => with_others(beside, target, own).await.map(Some),
        (found, _) => found.map(|f| f.map(|(target, _)| target)),
    };
    match found {
        Ok(Some(target)) => TargetSeen::Found(Box::new(Target { display: shown, name, ..target })),
        Ok(None) => TargetSeen::Missing(shown),
        Err(e) => TargetSeen::Unknown(plain(&e)),
    }
}

/// A target, and for a workload the selector of its pods.
type Found = Option<(Target, Option<LabelSelector>)>;

/// Adds the pods that use the workload's claims and are not its own.
async fn with_others(beside: Reader<'_>, mut target: Target, own: LabelSelector) -> kube::Result<Target> {
    if let Ok(own) = Selector::try_from(own)
        && !target.claims.is_empty()
    {
        let all = beside.users_of(&names(&target.claims)).await?;
        target.others = all.iter().filter(|p| !own.matches(p.labels()) && counts(p)).map(pod_seen).collect();
    }
    Ok(target)
}

async fn claim(reads: Reader<'_>, name: &str) -> kube::Result<Found> {
    let Some(claim) = reads.get::<PersistentVolumeClaim>(name).await? else { return Ok(None) };
    let mut target = Target { kind: "PersistentVolumeClaim".into(), replicas: 1, ..Target::default() };
    target.claims.insert(name.to_owned(), claim_seen(&claim));
    target.pods = users(reads, &target.claims).await?;
    Ok(Some((target, None)))
}

/// An application. AppBindings are not watched, because they are read only by runs that name one.
async fn app_binding(reads: Reader<'_>, name: &str) -> kube::Result<Found> {
    let api: Api<AppBinding> = Api::namespaced(reads.client(), reads.namespace);
    let Some(found) = api.get_opt(name).await? else { return Ok(None) };
    let application = Some(Box::new(found.spec));
    Ok(Some((Target { kind: "AppBinding".into(), replicas: 1, application, ..Target::default() }, None)))
}

async fn deployment(reads: Reader<'_>, name: &str) -> kube::Result<Found> {
    let Some(found) = reads.get::<Deployment>(name).await? else { return Ok(None) };
    let spec = found.spec.clone().unwrap_or_default();
    let status = found.status.unwrap_or_default();
    let seen = (status.observed_generation, status.replicas.unwrap_or(0));
    let target = Target { kind: "Deployment".into(), ..of(&found.metadata, spec.replicas.unwrap_or(1), seen) };
    workload(reads, target, spec.selector, spec.template.spec).await.map(Some)
}

async fn replica_set(reads: Reader<'_>, name: &str) -> kube::Result<Found> {
    let Some(found) = reads.get::<ReplicaSet>(name).await? else { return Ok(None) };
    let spec = found.spec.clone().unwrap_or_default();
    let seen = found.status.map_or((None, 0), |s| (s.observed_generation, s.replicas));
    let target = Target {
        kind: "ReplicaSet".into(),
        controller: controller(&found.metadata),
        ..of(&found.metadata, spec.replicas.unwrap_or(1), seen)
    };
    workload(reads, target, spec.selector, spec.template.and_then(|t| t.spec)).await.map(Some)
}

async fn replication_controller(reads: Reader<'_>, name: &str) -> kube::Result<Found> {
    let Some(found) = reads.get::<ReplicationController>(name).await? else { return Ok(None) };
    let spec = found.spec.clone().unwrap_or_default();
    let seen = found.status.map_or((None, 0), |s| (s.observed_generation, s.replicas));
    let target = Target {
        kind: "ReplicationController".into(),
        controller: controller(&found.metadata),
        ..of(&found.metadata, spec.replicas.unwrap_or(1), seen)
    };
    let selector = LabelSelector { match_labels: spec.selector, ..LabelSelector::default() };
    workload(reads, target, selector, spec.template.and_then(|t| t.spec)).await.map(Some)
}

/// `None` if the cluster does not have this kind.
async fn deployment_config(reads: Reader<'_>, name: &str) -> kube::Result<Option<Found>> {
    let found = match openshift::get(reads.client(), reads.namespace, name).await? {
        Answer::Found(found) => found,
        Answer::Missing => return Ok(Some(None)),
        Answer::NoSuchApi => return Ok(None),
    };
    let seen = found.status.map_or((None, 0), |s| (s.observed_generation, s.replicas));
    let target = Target { kind: "DeploymentConfig".into(), ..of(&found.metadata, found.spec.replicas, seen) };
    let spec = found.spec;
    let selector = LabelSelector { match_labels: spec.selector, ..LabelSelector::default() };
    let target = workload(reads, target, selector, spec.template.and_then(|t| t.spec)).await?;
    Ok(Some(Some(target)))
}

async fn daemon_set(reads: Reader<'_>, name: &str) -> kube::Result<Found> {
    let Some(found) = reads.get::<DaemonSet>(name).await? else { return Ok(None) };
    let spec = found.spec.clone().unwrap_or_default();
    let counted = found.status.as_ref().filter(|s| s.observed_generation >= found.metadata.generation);
    let target = Target {
        kind: "DaemonSet".into(),
        desired_nodes: counted.map(|s| s.desired_number_scheduled),
        ..Target::default()
    };
    workload(reads, target, spec.selector, spec.template.spec).await.map(Some)
}

/// What the kinds have in common: pods, volumes, and the claims behind them.
async fn workload(
    reads: Reader<'_>,
    mut target: Target,
    selector: LabelSelector,
    pod: Option<PodSpec>,
) -> kube::Result<(Target, Option<LabelSelector>)> {
    target.pods = workload_pods(reads, selector.clone()).await?;
    let pod = pod.unwrap_or_default();
    target.volumes = pod.volumes.unwrap_or_default();
    let containers = pod.containers.into_iter().chain(pod.init_containers.unwrap_or_default());
    target.mounts = containers.flat_map(|c| c.volume_mounts.unwrap_or_default()).collect();
    target.tolerations = pod.tolerations.unwrap_or_default();
    let names =
        target.volumes.iter().filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone())).collect();
    target.claims = claims(reads, names).await?;
    target.left_on = Note::valid(&target).and_then(|n| n.node().map(ToOwned::to_owned));
    Ok((target, Some(selector)))
}

/// Whether a workload's controller may act on a different number of replicas than the desired one, according to the
/// generation that it has observed last, and the pods that it counts.
fn is_catching_up(meta: &ObjectMeta, observed: Option<i64>, wanted: i32, counted: i32) -> bool {
    observed.is_some_and(|seen| Some(seen) < meta.generation) || (wanted == 0 && counted > 0)
}

/// Fields that all workloads have that can be scaled. `seen` contains the generation and the number of pods that its
/// controller has observed.
fn of(meta: &ObjectMeta, replicas: i32, seen: (Option<i64>, i32)) -> Target {
    let mut held_down = meta.annotations.as_ref().and_then(|a| a.get(annotation::HELD_DOWN)).cloned();
    held_down.iter_mut().for_each(held_note::bound);
    let is_catching_up = is_catching_up(meta, seen.0, replicas, seen.1);
    Target { uid: meta.uid.clone().unwrap_or_default(), held_down, replicas, is_catching_up, ..Target::default() }
}

fn controller(meta: &ObjectMeta) -> Option<String> {
    let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    Some(format!("{}/{}", owner.kind, owner.name))
}

/// The claims that a restore creates, in their current state.
pub async fn made_claims(reads: Reader<'_>, id: &Identity, spec: &RestoreTarget) -> TargetSeen {
    let look = async {
        let mut target = Target { to_make: wanted(spec, id), ..Target::default() };
        target.display = "the PVCs of volumeClaimTemplates".into();
        let names: Vec<String> = target.to_make.iter().map(|w| w.name.clone()).collect();
        target.claims = claims(reads, names).await?;
        if target.claims.values().any(|c| c.exists) {
            target.pods = users(reads, &target.claims).await?;
        }
        Ok::<_, kube::Error>(target)
    };
    match look.await {
        Ok(target) => TargetSeen::Found(Box::new(target)),
        Err(e) => TargetSeen::Unknown(plain(&e)),
    }
}

async fn stateful_set(reads: Reader<'_>, name: &str) -> kube::Result<Found> {
    let Some(found) = reads.get::<StatefulSet>(name).await? else { return Ok(None) };
    let spec = found.spec.clone().unwrap_or_default();
    let deletes =
        spec.persistent_volume_claim_retention_policy.as_ref().and_then(|p| p.when_scaled.as_deref()) == Some("Delete");
    let seen = found.status.map_or((None, 0), |s| (s.observed_generation, s.replicas));
    let target = Target {
        kind: "StatefulSet".into(),
        name: name.to_owned(),
        first_ordinal: spec.ordinals.and_then(|o| o.start).unwrap_or(0),
        claim_templates: spec.volume_claim_templates.iter().flatten().map(kube::ResourceExt::name_any).collect(),
        deletes_claims: deletes,
        ..of(&found.metadata, spec.replicas.unwrap_or(1), seen)
    };
    let (mut target, own) = workload(reads, target, spec.selector, spec.template.spec).await?;
    // If the StatefulSet is scaled to zero, its hosts are the hosts of the restore that left it so. Otherwise its hosts
    // are those whose claims still exist: the claims of all its templates, without a gap.
    let held = Note::valid(&target).map(|n| n.replicas).filter(|n| *n > 0);
    let last = if target.replicas > 0 { target.replicas } else { held.unwrap_or(MOST_HOSTS) }.min(MOST_HOSTS);
    for count in 0..last {
        let ordinal = target.first_ordinal.saturating_add(count);
        let names: Vec<String> = target.claim_templates.iter().map(|t| format!("{t}-{name}-{ordinal}")).collect();
        let found = claims(reads, names).await?;
        let all = !found.is_empty() && found.values().all(|c| c.exists);
        target.claims.extend(found);
        if target.replicas == 0 {
            if !all && held.is_none() {
                break;
            }
            target.dormant_ordinals = count + 1;
        }
    }
    Ok(Some((target, own)))
}

async fn claims(reads: Reader<'_>, names: Vec<String>) -> kube::Result<BTreeMap<String, ClaimSeen>> {
    let mut seen = BTreeMap::new();
    for name in names {
        let found = reads.get::<PersistentVolumeClaim>(&name).await?;
        seen.insert(name, found.as_ref().map(claim_seen).unwrap_or_default());
    }
    Ok(seen)
}

fn claim_seen(claim: &PersistentVolumeClaim) -> ClaimSeen {
    let modes = claim.spec.as_ref().and_then(|s| s.access_modes.clone()).unwrap_or_default();
    let is_going = claim.metadata.deletion_timestamp.is_some();
    let is_block = claim.spec.as_ref().is_some_and(|s| s.volume_mode.as_deref() == Some("Block"));
    ClaimSeen { exists: !is_going, access_modes: modes, is_block, is_going, made: Made::of(claim) }
}

async fn workload_pods(reads: Reader<'_>, selector: LabelSelector) -> kube::Result<Vec<PodSeen>> {
    let Ok(selector) = Selector::try_from(selector) else { return Ok(vec![]) };
    let all = reads.pods(&selector).await?;
    Ok(all.iter().filter(|p| counts(p)).map(pod_seen).collect())
}

/// Pods that use any of these claims.
async fn users(reads: Reader<'_>, claims: &BTreeMap<String, ClaimSeen>) -> kube::Result<Vec<PodSeen>> {
    let all = reads.users_of(&names(claims)).await?;
    Ok(all.iter().filter(|p| counts(p)).map(pod_seen).collect())
}

fn names(claims: &BTreeMap<String, ClaimSeen>) -> Vec<&str> {
    claims.keys().map(String::as_str).collect()
}

/// Whether a pod is not over and not one of Lifeboat's own.
fn counts(pod: &Pod) -> bool {
    let ours = pod.labels().get(label::MANAGED_BY).is_some_and(|v| v == label::MANAGED_BY_VALUE);
    let over = matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    !ours && !over
}

fn pod_seen(pod: &Pod) -> PodSeen {
    let spec = pod.spec.clone().unwrap_or_default();
    PodSeen {
        name: pod.name_any(),
        meant_for: meant_for(&spec),
        node: spec.node_name,
        claims: informers::claims(pod).map(str::to_owned).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_catches_up_with_the_generation_and_then_with_its_pods() {
        let meta = |generation| ObjectMeta { generation, ..ObjectMeta::default() };
        for (observed, generation, wanted, counted, catches_up) in [
            (Some(1), Some(2), 0, 0, true),
            (Some(2), Some(2), 0, 1, true),
            (Some(2), Some(2), 0, 0, false),
            (Some(2), Some(2), 3, 1, false),
            (None, Some(2), 0, 0, false),
            (None, Some(2), 0, 1, true),
            (Some(2), None, 0, 0, false),
        ] {
            assert_eq!(is_catching_up(&meta(generation), observed, wanted, counted), catches_up, "{observed:?}");
        }
    }
}
