//! Reconciles Repository: who uses it, its own Jobs, its end.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::context::Context;
use super::{Error, ROUNDS, apply, measured, observe, report, users, validity};
use crate::api::Repository;
use crate::names::{STASH_REPOSITORY_FINALIZER, annotation};
use crate::plan::access;
use crate::plan::jobs::JobSeen;
use crate::plan::repository::{self, RepositoryRun, RepositorySurroundings};
use crate::plan::run::Identity;

/// One look at a Repository.
///
/// # Errors
/// The API server could not be reached or refused a write; the look is repeated.
pub async fn reconcile(object: Arc<Repository>, ctx: Arc<Context>) -> Result<Action, Error> {
    measured(&ctx, object.as_ref(), Some(&ctx.of_repositories), Box::pin(look(&object, &ctx))).await
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
        let mut seen = observe(ctx, &object, &run).await?;
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
        refused = done.refused.jobs;
        if !done.plan.again && refused.is_empty() {
            return Ok(done.plan.requeue.map_or_else(Action::await_change, Action::requeue));
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

async fn observe(ctx: &Context, object: &Repository, run: &RepositoryRun) -> kube::Result<RepositorySurroundings> {
    let (_, mut refusal) = validity::examine(object);
    if refusal.is_none() && !run.id.deleting {
        refusal = ctx.vouching.refusal(&ctx.watched, object).await?;
    }
    let name = run.spec.backend.as_ref().and_then(|b| b.storage_secret_name.clone()).unwrap_or_default();
    let secret = ctx.secrets.look(&ctx.client, &run.id.namespace, &name, false).await;
    let home = ObjectRef::from_obj(object);
    let (waiting, at_work) = ctx.queues.look(&home, |q| (q.len(), q.at_work())).unwrap_or_default();
    // A change of a session brought us here; perhaps it made room.
    ctx.bells.next_in_line(&ctx.queues, &home, ctx.setup.jobs_per_repository.saturating_sub(at_work));
    Ok(RepositorySurroundings {
        refusal,
        secret,
        references: users::references(ctx, object).await,
        jobs: observe::jobs(ctx, &ctx.of_repositories, &run.id).await?,
        waiting,
        at_work,
        shares_data_with: shares_data_with(ctx, object),
        namespace_ends: run.id.deleting && namespace_ends(ctx, &run.id.namespace).await,
    })
}

/// Another Repository whose data could be the same. One that is being wiped out itself protects nothing.
fn shares_data_with(ctx: &Context, object: &Repository) -> Option<String> {
    let mine = object.spec.backend.as_ref()?;
    let goes = |r: &Repository| r.metadata.deletion_timestamp.is_some() && r.spec.wipe_out == Some(true);
    let same = |r: &Repository| r.spec.backend.as_ref().is_some_and(|b| access::could_share_data(mine, b));
    let found = ctx.repositories.store.state_filter(|r| r.uid() != object.uid() && !goes(r) && same(r));
    found.iter().map(|r| format!("{}/{}", r.namespace().unwrap_or_default(), r.name_any())).min()
}

/// Whether a namespace is being deleted. Not knowing holds nothing up that would otherwise go.
async fn namespace_ends(ctx: &Context, name: &str) -> bool {
    matches!(ctx.watched.namespace(name).await, Ok(Some(n)) if n.metadata.deletion_timestamp.is_some())
}
