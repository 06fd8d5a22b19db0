//! Status and events, from plans that were applied and from nothing else.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::warn;

use super::context::Context;
use super::users::Home;
use crate::api::Repository;
use crate::names::MANAGER;
use crate::plan::{self, Applied, Plan, conditions};

/// Writes the status of an applied plan and publishes its events. Gives the object as it is then.
///
/// # Errors
/// The API server could not be reached, or the object has changed since it was looked at (a conflict).
pub async fn report<K>(ctx: &Context, object: &K, plan: &Plan<Applied>) -> kube::Result<Option<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut fresh = None;
    if let Some(status) = &plan.status {
        ctx.precedence.give_way().await;
        fresh = Some(write_status(ctx, object, MANAGER, status, true).await?);
    }
    for event in &plan.events {
        publish(ctx, object, event).await;
    }
    Ok(fresh)
}

/// Writes what a plan of a session found out about its Repository into the Repository's status.
///
/// # Errors
/// The API server could not be reached. A Repository that is gone is no error.
pub async fn repository(ctx: &Context, home: Option<&Home>, plan: &Plan<Applied>) -> kube::Result<()> {
    let Some(home) = home else { return Ok(()) };
    let mut facts = plan.repository_facts.clone().unwrap_or_else(|| json!({}));
    // Who reports first is enough: the Repository itself asks from then on.
    let known =
        || ctx.repositories.get(home).is_some_and(|r| r.facts().reachability.as_ref().is_some_and(|r| !r.reachable));
    if let Some(message) = plan.unreachable.as_ref().filter(|_| !known()) {
        let since = conditions::whole_second(ctx.now());
        facts["reachability"] = json!({ "reachable": false, "since": since, "message": plan::text::message(message) });
    }
    if facts.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(());
    }
    let api: Api<Repository> = Api::namespaced(ctx.client.clone(), home.namespace.as_deref().unwrap_or_default());
    // A merge: the rest of the same status is the Repository's own reconcile's.
    let patch = Patch::Merge(json!({ "status": facts }));
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    match api.patch_status(&home.name, &params, &patch).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Applies a status document. With `guarded`, only over the version that the decision was made from:
/// a decision made from an older one must not turn the clock back.
///
/// # Errors
/// The API server could not be reached, or a conflict.
pub async fn write_status<K>(ctx: &Context, object: &K, manager: &str, status: &Value, guarded: bool) -> kube::Result<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    let mut body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": object.name_any() },
        "status": status,
    });
    if guarded && let Some(version) = object.resource_version() {
        body["metadata"]["resourceVersion"] = version.into();
    }
    let params = PatchParams::apply(manager).force();
    let written = api.patch_status(&object.name_any(), &params, &Patch::Apply(body)).await?;
    ctx.written.note(&written);
    Ok(written)
}

async fn publish<K>(ctx: &Context, object: &K, event: &plan::Event)
where
    K: Resource<DynamicType = ()>,
{
    // A recorder of its own for each event: a shared one repeats the first note it was given for a reason.
    let recorder = Recorder::new(ctx.client.clone(), ctx.reporter.clone());
    let event = Event {
        type_: if event.warning { EventType::Warning } else { EventType::Normal },
        reason: event.reason.clone(),
        note: Some(event.message.clone()),
        action: "Reconcile".into(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
        // An event that cannot be written never changes an outcome.
        warn!(%error, reason = event.reason, "could not publish an event");
    }
}
