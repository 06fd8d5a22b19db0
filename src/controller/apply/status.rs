//! Status and events, only from plans that were applied.
//!
//! Server-side apply writes the status that `plan` computed. Merge patches change only a Repository's status: they add
//! what a session found out, and remove fields.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::warn;

use crate::api::{Repository, to_json};
use crate::controller::apply::objects::Applied;
use crate::controller::apply::writes::Writes;
use crate::controller::cache::consumers::Consumer;
use crate::controller::cache::stored::Stored;
use crate::controller::observe::reads::Reads;
use crate::controller::observe::usage;
use crate::names::MANAGER;
use crate::plan::repository::known::is_being_asked;
use crate::plan::repository::opened;
use crate::plan::run::conditions;
use crate::plan::{effects, run};

/// Writes the status of an applied plan and publishes its events. Returns the object as written.
///
/// # Errors
/// The API server could not be reached, or the object has changed since it was read (a conflict).
pub async fn report<K>(writes: &Writes, object: &K, plan: &Applied) -> kube::Result<Option<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut fresh = None;
    if let Some(status) = plan.status() {
        writes.precedence.give_way().await;
        fresh = Some(match write_status(writes, object, status).await {
            Err(error) if is_too_large(&error) => {
                let Some(short) = run::size::shorten(&K::kind(&()), status, writes.now()) else { return Err(error) };
                warn!(kind = %K::kind(&()), namespace = object.namespace(), name = object.name_any(), %error, "the status is too large; the run is ended");
                write_status(writes, object, &short).await?
            }
            written => written?,
        });
    }
    for event in plan.events() {
        publish(writes, object, event).await;
    }
    Ok(fresh)
}

/// Writes what a plan of a session found out about its Repository into the Repository's status. If the Repository does
/// not answer a Job, the status requests a probe from the Repository's own namespace, because one Job is not enough
/// evidence.
///
/// # Errors
/// The API server could not be reached. A Repository that no longer exists is no error.
pub async fn repository<K: Consumer>(writes: &Writes, reads: &Reads, session: &K, plan: &Applied) -> kube::Result<()> {
    let mut facts = plan.repository_facts().cloned().unwrap_or_else(|| json!({}));
    if facts.as_object().is_none_or(serde_json::Map::is_empty) && !plan.unreachable() && !plan.shut() {
        return Ok(());
    }
    let Some(home) = session.home(&reads.stores.consumers) else { return Ok(()) };
    let Some(found) = reads.stores.repositories.get(&home) else { return Ok(()) };
    // The first report is enough: from then on the Repository itself probes.
    if plan.unreachable() && found.open().status.is_none_or(|s| !is_being_asked(&s)) {
        facts["probeRequestTime"] = json!(conditions::whole_second(writes.now()));
    }
    if plan.shut() && found.open().status.is_none_or(|s| !opened::is_known(&s)) {
        facts["openRequestTime"] = json!(conditions::whole_second(writes.now()));
    }
    // A session that may not use a Repository does not write to its status.
    if facts.as_object().is_none_or(serde_json::Map::is_empty) || !usage::may_use(reads, session, &home).await {
        return Ok(());
    }
    let api: Api<Repository> = Api::namespaced(writes.client.clone(), home.namespace.as_deref().unwrap_or_default());
    // A merge patch: the Repository's own reconcile writes the rest of the same status.
    let patch = Patch::Merge(json!({ "status": facts }));
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    match api.patch_status(&home.name, &params, &patch).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Applies a status document only over the version that the plan was made from:
/// a plan made from an older version must not overwrite a newer status.
///
/// # Errors
/// The API server could not be reached, or a conflict.
pub async fn write_status<K>(writes: &Writes, object: &K, status: &Value) -> kube::Result<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(writes.client.clone(), &object.namespace().unwrap_or_default());
    let mut body = document(object, status);
    if let Some(version) = object.resource_version() {
        body["metadata"]["resourceVersion"] = version.into();
    }
    let params = PatchParams::apply(MANAGER).force();
    let written = api.patch_status(&object.name_any(), &params, &Patch::Apply(body)).await?;
    writes.written.note(&written);
    Ok(written)
}

/// Applies the status document of a cluster-scoped object.
///
/// # Errors
/// The API server could not be reached.
pub async fn write_in_cluster<K>(writes: &Writes, object: &K, status: &Value) -> kube::Result<()>
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::all(writes.client.clone());
    let params = PatchParams::apply(MANAGER).force();
    api.patch_status(&object.name_any(), &params, &Patch::Apply(document(object, status))).await.map(drop)
}

fn document<K: Resource<DynamicType = ()>>(object: &K, status: &Value) -> Value {
    json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": object.name_any() },
        "status": status,
    })
}

/// Removes fields from a Repository's status that the apply did not remove: applying a status without a field does not
/// remove a field that a merge patch wrote, and sessions write what they find out by merge patch ([`repository`]).
///
/// # Errors
/// The API server could not be reached, or a conflict.
pub async fn take_out(
    writes: &Writes,
    written: Stored<Repository>,
    status: &Value,
) -> kube::Result<Stored<Repository>> {
    let Some(gone) = stayed(&to_json(&written.open().status), status) else { return Ok(written) };
    let api: Api<Stored<Repository>> = Api::namespaced(writes.client.clone(), &written.namespace().unwrap_or_default());
    let patch = json!({ "metadata": { "resourceVersion": written.resource_version() }, "status": gone });
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let written = api.patch_status(&written.name_any(), &params, &Patch::Merge(patch)).await?;
    writes.written.note(&written);
    Ok(written)
}

/// The fields that a status contains but should not contain, each with the value null.
fn stayed(there: &Value, wanted: &Value) -> Option<Value> {
    let is_wanted = |field: &String| wanted.get(field).is_some_and(|value| !value.is_null());
    let gone = there.as_object()?.keys().filter(|field| !is_wanted(field)).map(|field| (field.clone(), Value::Null));
    let gone: serde_json::Map<String, Value> = gone.collect();
    (!gone.is_empty()).then_some(Value::Object(gone))
}

/// Whether the API server or etcd refuses an object as too large. A message of etcd itself has code 500.
fn is_too_large(error: &kube::Error) -> bool {
    const WORDS: [&str; 3] =
        ["request is too large", "request entity too large", "trying to send message larger than max"];
    let kube::Error::Api(status) = error else { return false };
    let said = status.message.to_lowercase();
    status.code == 413 || WORDS.iter().any(|words| said.contains(words))
}

/// Publishes an event about an object. An event that cannot be written is dropped.
pub async fn publish<K>(writes: &Writes, object: &K, event: &effects::Event)
where
    K: Resource<DynamicType = ()>,
{
    let about = match &event.about {
        None => object.object_ref(&()),
        Some(workload) => ObjectReference {
            api_version: Some(workload.api_version.clone()),
            kind: Some(workload.kind.clone()),
            name: Some(workload.name.clone()),
            namespace: object.meta().namespace.clone(),
            uid: Some(workload.uid.clone()),
            ..ObjectReference::default()
        },
    };
    // Each event has its own recorder: a shared recorder repeats the first note that it was given for a reason.
    let recorder = Recorder::new(writes.client.clone(), writes.reporter.clone());
    let event = Event {
        type_: if event.warning { EventType::Warning } else { EventType::Normal },
        reason: event.reason.clone(),
        note: Some(event.message.clone()),
        action: "Reconcile".into(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &about).await {
        // An event that cannot be written never changes an outcome.
        warn!(%error, reason = event.reason, "could not publish an event");
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_was_to_go_and_stayed_is_found() {
        let there = json!({ "phase": "Ready", "integrity": true, "snapshotCount": 0, "steps": [] });
        assert_eq!(
            stayed(&there, &json!({ "phase": "X", "snapshotCount": 1, "steps": [] })),
            Some(json!({ "integrity": null }))
        );
        assert_eq!(stayed(&there, &there), None);
    }

    #[test]
    fn an_object_that_is_too_large_is_known_from_other_refusals() {
        let said = |code: u16, text: &str| {
            is_too_large(&kube::Error::Api(Box::new(Status::failure(text, "").with_code(code))))
        };
        assert!(said(413, "Request entity too large: limit is 3145728"));
        assert!(said(500, "etcdserver: request is too large"));
        assert!(said(
            500,
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2097152 vs. 2000000)"
        ));
        assert!(!said(500, "etcdserver: request timed out") && !said(409, "the object has been modified"));
    }
}
