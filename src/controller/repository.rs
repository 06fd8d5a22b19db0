//! Reconciles Repository: is it valid, is its Secret there, who uses it.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use serde_json::json;

use super::context::Context;
use super::metrics::Reconciled;
use super::{Error, observe, report, validity};
use crate::api::repository::Reference;
use crate::api::{Repository, to_json};
use crate::names::{GROUP, condition, reason};
use crate::plan::conditions::{self, Health, Value};
use crate::plan::observed::Seen;

/// Field manager of what is written here. Facts of backups in the same status are another's.
const MANAGER: &str = "lifeboat-repository";
/// A missing Secret is looked for this often.
const LOOK_FOR_MISSING: Duration = Duration::from_secs(10);

/// One look at a Repository.
///
/// # Errors
/// The API server could not be reached or refused a write; the look is repeated.
pub async fn reconcile(object: Arc<Repository>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.filled().await;
    let measured = ctx.metrics.reconcile("Repository");
    let result = look(&object, &ctx).await;
    measured.end(if result.is_ok() { Reconciled::Done } else { Reconciled::Failed });
    result
}

async fn look(object: &Repository, ctx: &Context) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let namespace = object.namespace().unwrap_or_default();
    let now = ctx.now();
    let before = object.status.clone().unwrap_or_default();
    let mut list = before.conditions.clone();
    let mut action = Action::await_change();
    let (_, refusal) = validity::examine(object);
    if let Some(refusal) = &refusal {
        conditions::set(
            &mut list,
            condition::VALIDATION_PASSED,
            false,
            reason::VALIDATION_FAILED,
            &refusal.message,
            now,
        );
        conditions::set_health(&mut list, Health::Stalled, &refusal.reason, &refusal.message, now);
    } else {
        conditions::set(
            &mut list,
            condition::VALIDATION_PASSED,
            true,
            reason::VALIDATION_PASSED,
            "Successfully validated.",
            now,
        );
        let name = object.spec.backend.as_ref().and_then(|b| b.storage_secret_name.clone()).unwrap_or_default();
        let found = observe::secret(ctx, &namespace, &name).await;
        let (value, why, text) = match &found {
            Seen::Found(()) => {
                (Value::True, reason::BACKEND_SECRET_AVAILABLE, format!("Backend Secret {namespace}/{name} exist."))
            }
            Seen::Missing => (
                Value::False,
                reason::BACKEND_SECRET_NOT_AVAILABLE,
                format!("Backend Secret {namespace}/{name} does not exist."),
            ),
            Seen::Unknown(e) => {
                (Value::Unknown, reason::BACKEND_SECRET_UNKNOWN, format!("Backend Secret {namespace}/{name}: {e}"))
            }
        };
        conditions::set(&mut list, condition::BACKEND_SECRET_FOUND, value, why, &text, now);
        let health = if value == Value::True { Health::Ready } else { Health::Reconciling };
        conditions::set_health(&mut list, health, why, &text, now);
        if value != Value::True {
            action = Action::requeue(LOOK_FOR_MISSING);
        }
    }
    let references = references(ctx, &namespace, &object.name_any());
    if list != before.conditions
        || references != before.references
        || before.observed_generation != object.metadata.generation
    {
        let status = json!({
            "observedGeneration": object.metadata.generation,
            "conditions": to_json(&list),
            "references": to_json(&references),
        });
        report::write_status(ctx, object, MANAGER, &status, true).await?;
    }
    Ok(action)
}

/// Invokers that send their data here, in a stable order.
fn references(ctx: &Context, namespace: &str, name: &str) -> Vec<Reference> {
    let uses = |r: Option<&crate::api::common::RepositoryRef>, home: Option<String>| {
        r.is_some_and(|r| r.name == name && r.namespace.clone().or(home).as_deref() == Some(namespace))
    };
    let of = |kind: &str, namespace: Option<String>, name: String| Reference {
        api_group: Some(GROUP.into()),
        kind: Some(kind.into()),
        namespace,
        name,
    };
    let configurations = ctx.configurations.state_filter(|c| uses(c.spec.repository.as_ref(), c.namespace()));
    let batches = ctx.batches.state_filter(|b| uses(b.spec.repository.as_ref(), b.namespace()));
    let mut all: Vec<Reference> = configurations
        .iter()
        .map(|c| of("BackupConfiguration", c.namespace(), c.name_any()))
        .chain(batches.iter().map(|b| of("BackupBatch", b.namespace(), b.name_any())))
        .collect();
    all.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
    all
}
