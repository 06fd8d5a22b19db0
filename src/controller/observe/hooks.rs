//! Pods that a hook may act on: those of a workload, or those behind the Service of an AppBinding.
//!
//! They are read from the API server when a hook is about to begin, because watches keep too little of foreign pods, and
//! a pod that is not ready any more is of no use.

use std::collections::BTreeMap;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Container, Pod, ReplicationController};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::core::Selector;
use kube::{Api, ResourceExt as _};

use crate::api::AppBinding;
use crate::api::common::TargetRef;
use crate::controller::observe::errors::plain;
use crate::controller::observe::openshift;
use crate::controller::observe::openshift::Answer;
use crate::controller::observe::reads::Reader;
use crate::names::label;
use crate::plan::run::hosts::{TargetKind, display};
use crate::plan::seen::hook_pods::{HookContainer, HookPod, HookPods, NoPods};

/// Pods of a target that are read. A hook needs one that is ready.
const MOST: u32 = 500;

/// Pods of these members, by their index.
pub async fn hook_pods(reads: Reader<'_>, wanted: Vec<(usize, TargetRef)>) -> BTreeMap<usize, HookPods> {
    let all = wanted.iter().map(async |(index, target)| (*index, pods(reads, target).await));
    join_all(all).await.into_iter().collect()
}

/// Pods of a target, sorted by name.
///
/// # Errors
/// They could not be read, or the target has none by its nature.
async fn pods(reads: Reader<'_>, target: &TargetRef) -> HookPods {
    let found = if TargetKind::of(Some(target)) == TargetKind::AppBinding {
        of_application(reads, target).await
    } else {
        of_workload(reads, target).await
    };
    let mut pods = found?;
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pods)
}

fn unknown(error: &kube::Error) -> NoPods {
    NoPods::Unknown(format!("The pods for the hook could not be read: {}", plain(error)))
}

async fn of_workload(reads: Reader<'_>, target: &TargetRef) -> HookPods {
    let missing = || NoPods::Never(format!("{} does not exist, so it has no pod for the hook.", display(target)));
    let selector = selector(reads.at_once(), target).await.map_err(|e| unknown(&e))?.ok_or_else(missing)?;
    let Ok(selector) = Selector::try_from(selector) else { return Ok(vec![]) };
    let pods = listed(reads, &ListParams::default().labels_from(&selector)).await?;
    Ok(pods.iter().filter(|p| runs(p)).map(seen).collect())
}

/// The selector of a workload's pods; `None` if the workload does not exist.
async fn selector(reads: Reader<'_>, target: &TargetRef) -> kube::Result<Option<LabelSelector>> {
    let name = target.name.as_deref().unwrap_or_default();
    let of_labels = |match_labels| LabelSelector { match_labels, ..LabelSelector::default() };
    Ok(match TargetKind::of(Some(target)) {
        TargetKind::Deployment => reads.get::<Deployment>(name).await?.and_then(|o| Some(o.spec?.selector)),
        TargetKind::StatefulSet => reads.get::<StatefulSet>(name).await?.and_then(|o| Some(o.spec?.selector)),
        TargetKind::DaemonSet => reads.get::<DaemonSet>(name).await?.and_then(|o| Some(o.spec?.selector)),
        TargetKind::ReplicaSet => reads.get::<ReplicaSet>(name).await?.and_then(|o| Some(o.spec?.selector)),
        TargetKind::ReplicationController => {
            reads.get::<ReplicationController>(name).await?.map(|o| of_labels(o.spec.and_then(|s| s.selector)))
        }
        TargetKind::DeploymentConfig => match openshift::get(reads.client(), reads.namespace, name).await? {
            Answer::Found(found) => Some(of_labels(found.spec.selector)),
            Answer::Missing | Answer::NoSuchApi => None,
        },
        _ => None,
    })
}

async fn listed(reads: Reader<'_>, params: &ListParams) -> Result<Vec<Pod>, NoPods> {
    let api: Api<Pod> = Api::namespaced(reads.client(), reads.namespace);
    api.list(&params.clone().limit(MOST)).await.map(|list| list.items).map_err(|e| unknown(&e))
}

/// The pods behind the Service of an AppBinding.
async fn of_application(reads: Reader<'_>, target: &TargetRef) -> HookPods {
    let name = target.name.as_deref().unwrap_or_default();
    let api: Api<AppBinding> = Api::namespaced(reads.client(), reads.namespace);
    let Some(binding) = api.get_opt(name).await.map_err(|e| unknown(&e))? else {
        return Err(NoPods::Never(format!("AppBinding {name} does not exist, so it has no pod for the hook.")));
    };
    let service = service(&binding)?;
    let api: Api<EndpointSlice> = Api::namespaced(reads.client(), reads.namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={}", service)).limit(MOST);
    let slices = api.list(&of_service).await.map_err(|e| unknown(&e))?;
    let mut names: Vec<String> = slices.items.iter().flat_map(pod_names).collect();
    names.sort();
    names.dedup();
    let mut pods = vec![];
    for name in names.iter().take(MOST as usize) {
        let found = listed(reads, &ListParams::default().fields(&format!("metadata.name={name}"))).await?;
        pods.extend(found.iter().filter(|p| runs(p)).map(seen));
        if pods.iter().any(|p| p.ready) {
            break;
        }
    }
    Ok(pods)
}

/// The Service that an AppBinding names, in its own namespace.
fn service(binding: &AppBinding) -> Result<String, NoPods> {
    let name = binding.name_any();
    let Some(service) = &binding.spec.client_config.service else {
        let text = format!(
            "spec.clientConfig.service of AppBinding {name} is not set, so the hook has no pod: a url leads to none. Set service, or give the hook a host and a port."
        );
        return Err(NoPods::Never(text));
    };
    if service.namespace.as_ref().is_some_and(|n| !n.is_empty() && Some(n) != binding.metadata.namespace.as_ref()) {
        let text = format!(
            "spec.clientConfig.service.namespace of AppBinding {name} is another namespace, in which no hook runs."
        );
        return Err(NoPods::Never(text));
    }
    Ok(service.name.clone())
}

/// Pods that a slice has as endpoints.
fn pod_names(slice: &EndpointSlice) -> Vec<String> {
    let all = slice.endpoints.iter();
    let refs = all.filter_map(|e| e.target_ref.as_ref()).filter(|r| r.kind.as_deref() == Some("Pod"));
    refs.filter_map(|r| r.name.clone()).collect()
}

/// Whether a pod runs, is not being deleted, and is not one of Lifeboat's own.
fn runs(pod: &Pod) -> bool {
    let is_ours = pod.labels().get(label::MANAGED_BY).is_some_and(|v| v == label::MANAGED_BY_VALUE);
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    !is_ours && pod.metadata.deletion_timestamp.is_none() && phase == Some("Running")
}

fn seen(pod: &Pod) -> HookPod {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let container = |c: &Container| HookContainer {
        name: c.name.clone(),
        ports: c
            .ports
            .iter()
            .flatten()
            .filter_map(|p| Some((p.name.clone()?, u16::try_from(p.container_port).ok()?)))
            .collect(),
    };
    HookPod {
        name: pod.name_any(),
        ready: conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        ip: status.and_then(|s| s.pod_ip.clone()).filter(|ip| !ip.is_empty()),
        containers: pod.spec.iter().flat_map(|s| &s.containers).map(container).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Proves: invented 25.
    #[test]
    fn a_binding_without_a_service_has_no_pod_and_the_message_names_the_field() {
        let of = |config: serde_json::Value| {
            let binding = json!({ "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding",
                "metadata": { "name": "db", "namespace": "demo" }, "spec": { "clientConfig": config } });
            service(&serde_json::from_value(binding).unwrap())
        };
        let by_url = of(json!({ "url": "tcp://db.example:3306" }));
        let Err(NoPods::Never(text)) = by_url else { panic!("{by_url:?}") };
        assert!(text.starts_with("spec.clientConfig.service of AppBinding db is not set"), "{text}");
        let named = |namespace: &str| json!({ "service": { "scheme": "tcp", "name": "db", "port": 3306, "namespace": namespace } });
        assert_eq!((of(named("demo")), of(named(""))), (Ok("db".into()), Ok("db".into())));
        assert!(matches!(of(named("other")), Err(NoPods::Never(text)) if text.contains("another namespace")));
    }

    #[test]
    fn a_pod_counts_while_it_runs_and_is_nobodys_job() {
        let pod = |change: serde_json::Value| -> Pod {
            let mut pod = json!({ "metadata": { "name": "web-0", "labels": {} },
                "spec": { "containers": [{ "name": "a", "ports": [{ "name": "http", "containerPort": 8080 }, { "containerPort": 1 }] }] },
                "status": { "phase": "Running", "podIP": "10.0.0.7",
                    "conditions": [{ "type": "Ready", "status": "True" }] } });
            json_patch::merge(&mut pod, &change);
            serde_json::from_value(pod).unwrap()
        };
        let found = seen(&pod(json!({})));
        assert!(runs(&pod(json!({}))) && found.ready);
        assert_eq!(found.containers, [HookContainer { name: "a".into(), ports: vec![("http".into(), 8080)] }]);
        assert!(!runs(&pod(json!({ "status": { "phase": "Pending" } }))));
        assert!(!runs(&pod(json!({ "metadata": { "deletionTimestamp": "2026-11-20T00:00:00Z" } }))));
        assert!(!runs(&pod(json!({ "metadata": { "labels": { label::MANAGED_BY: label::MANAGED_BY_VALUE } } }))));
        assert!(!seen(&pod(json!({ "status": { "conditions": [] } }))).ready);
    }
}
