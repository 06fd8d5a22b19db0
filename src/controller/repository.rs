//! Reconciles Repository: who uses it, its own Jobs, its end.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::controller::Action;

use super::context::Context;
use super::metrics::Reconciled;
use super::{Error, ROUNDS, apply, observe, report, validity};
use crate::api::Repository;
use crate::api::common::RepositoryRef;
use crate::api::repository::Reference;
use crate::names::{GROUP, STASH_REPOSITORY_FINALIZER, annotation};
use crate::plan::jobs::JobSeen;
use crate::plan::observed::Seen;
use crate::plan::repository::{self, RepositoryRun, RepositorySurroundings};
use crate::plan::run::Identity;

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
    let mut object = object.clone();
    let mut refused: Vec<JobSeen> = vec![];
    for _ in 0..ROUNDS {
        let run = RepositoryRun {
            id: Identity::of(&object),
            spec: object.spec.clone(),
            labels: object.labels().clone(),
            sync_request: object.annotations().get(annotation::SYNC).cloned(),
            stash: object.finalizers().iter().any(|f| f == STASH_REPOSITORY_FINALIZER),
            state: object.status.clone().unwrap_or_default(),
        };
        let mut seen = observe(ctx, &object, &run).await;
        seen.jobs.append(&mut refused);
        let plan = repository::next(&run, &seen, &ctx.setup, ctx.now());
        let (done, fresh) = apply::apply(ctx, &object, plan).await?;
        object = fresh.unwrap_or(object);
        if object.metadata.deletion_timestamp.is_some() && object.finalizers().is_empty() {
            return Ok(Action::await_change());
        }
        if let Some(written) = report::report(ctx, &object, &done.plan).await? {
            object = written;
        }
        refused = done.refused;
        if !done.plan.again && refused.is_empty() {
            return Ok(done.plan.requeue.map_or_else(Action::await_change, Action::requeue));
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

async fn observe(ctx: &Context, object: &Repository, run: &RepositoryRun) -> RepositorySurroundings {
    let (_, refusal) = validity::examine(object);
    let name = run.spec.backend.as_ref().and_then(|b| b.storage_secret_name.clone()).unwrap_or_default();
    let secret = if name.is_empty() { Seen::Missing } else { observe::secret(ctx, &run.id.namespace, &name).await };
    RepositorySurroundings {
        refusal,
        secret,
        references: references(ctx, &run.id.namespace, &run.id.name),
        jobs: observe::jobs(&ctx.of_repositories, &run.id.uid, ctx.now()),
    }
}

/// Invokers that send their data here, in a stable order.
fn references(ctx: &Context, namespace: &str, name: &str) -> Vec<Reference> {
    let uses = |r: Option<&RepositoryRef>, home: Option<String>| {
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
