//! Reconciles Repository: who uses it, its own Jobs, its end.

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};

use super::context::Context;
use super::reconcile::{Error, ROUNDS, measured};
use crate::api::Repository;
use crate::controller::apply::{objects, status};
use crate::controller::cache::consumers;
use crate::controller::cache::stored::Stored;
use crate::controller::observe::{jobs, validity};
use crate::names::{STASH_REPOSITORY_FINALIZER, annotation};
use crate::plan::access;
use crate::plan::jobs::JobSeen;
use crate::plan::observed::Seen;
use crate::plan::repository::{self, RepositoryRun, RepositorySurroundings, opened, slots};
use crate::plan::run::Identity;

/// One look at a Repository.
///
/// # Errors
/// The API server could not be reached or refused a write; the look is repeated.
pub async fn reconcile(object: Arc<Stored<Repository>>, ctx: Arc<Context>) -> Result<Action, Error> {
    measured(&ctx, object.as_ref(), Some(&ctx.of_repositories), Box::pin(look(&object, &ctx))).await
}

async fn look(object: &Stored<Repository>, ctx: &Context) -> Result<Action, Error> {
    let _room = ctx.rooms.enter(object, object.size()).await?;
    let mut stored = object.clone();
    let mut refused: Vec<JobSeen> = vec![];
    for _ in 0..ROUNDS {
        let object = stored.open();
        let run = RepositoryRun {
            id: Identity::of(&object),
            labels: object.labels().clone(),
            sync_request: object.annotations().get(annotation::SYNC).cloned(),
            stash: object.finalizers().iter().any(|f| f == STASH_REPOSITORY_FINALIZER),
            spec: object.spec,
            state: object.status.unwrap_or_default(),
        };
        let mut seen = observe(ctx, &stored, &run).await?;
        seen.jobs.append(&mut refused);
        let home = ObjectRef::from_obj(&stored);
        seen.may_list = ctx.listings.ask(&home);
        let plan = repository::next(&run, &seen, &ctx.setup, ctx.now());
        ctx.listings.settle(&home, plan.listing);
        let (done, fresh) = objects::apply(ctx, &stored, plan).await?;
        stored = fresh.unwrap_or(stored);
        if stored.meta().deletion_timestamp.is_some() && stored.finalizers().is_empty() {
            return Ok(Action::await_change());
        }
        let written = status::report(ctx, &stored, &done.plan).await?;
        if let Some((written, status)) = written.zip(done.plan.status()) {
            stored = status::take_out(ctx, written, status).await?;
        }
        refused = done.refused.jobs;
        if !done.plan.again() && refused.is_empty() {
            return Ok(done.plan.requeue().map_or_else(Action::await_change, Action::requeue));
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

async fn observe(
    ctx: &Context,
    object: &Stored<Repository>,
    run: &RepositoryRun,
) -> Result<RepositorySurroundings, Error> {
    let mut refusal = validity::judge(ctx, object).await?;
    if refusal.is_none() && !run.id.deleting {
        refusal = ctx.vouching.refusal(&ctx.watched, &object.outline()).await?;
    }
    let name = run.spec.backend.as_ref().and_then(|b| b.storage_secret_name.clone()).unwrap_or_default();
    // One that somebody may just have mended is asked for anew.
    let shut = opened::is_shut(&run.state);
    let version = ctx.secrets.version(&ctx.client, &run.id.namespace, &name, shut).await;
    let (secret, secret_version) = match version {
        Seen::Found(version) => (Seen::Found(()), Some(version.to_string())),
        Seen::Missing => (Seen::Missing, None),
        Seen::Unknown(why) => (Seen::Unknown(why), None),
    };
    let home = ObjectRef::from_obj(object);
    let most = ctx.setup.jobs_per_repository;
    let (waiting, at_work, slots) =
        ctx.queues.look(&home, |q| (q.len(), q.jobs(), slots::of(q, most))).unwrap_or_default();
    // A change of a session brought us here; perhaps it made room.
    ctx.bells.next_in_line(&ctx.queues, &home, most);
    Ok(RepositorySurroundings {
        refusal,
        secret,
        secret_version,
        may_list: false,
        references: consumers::references(ctx, object).await,
        jobs: jobs::jobs(ctx, &ctx.of_repositories, &run.id).await?,
        waiting,
        at_work,
        slots,
        shares_data_with: shares_data_with(ctx, run),
        job_defaults: jobs::job_defaults(ctx, &run.id.namespace).await?,
        namespace_ends: run.id.deleting && namespace_ends(ctx, &run.id.namespace).await,
    })
}

/// Another Repository whose data could be the same. One that is being wiped out itself protects nothing, nor does one of
/// another namespace through which that store was never opened: anybody can write down a bucket. Those of other
/// namespaces are not named.
fn shares_data_with(ctx: &Context, run: &RepositoryRun) -> Option<String> {
    // Asked where data is to be removed; whoever asks looks at all Repositories.
    let mine = run.spec.backend.as_ref().filter(|_| run.id.deleting)?;
    // Where one is, of which not all is kept, is not known.
    let is_near = |namespace: Option<String>| namespace.as_ref() == Some(&run.id.namespace);
    let unknown = |r: &Stored<Repository>| !r.is_whole() && is_near(r.namespace());
    let goes = |r: &Repository| r.metadata.deletion_timestamp.is_some() && r.spec.wipe_out == Some(true);
    let same = |r: &Repository| r.spec.backend.as_ref().is_some_and(|b| access::could_share_data(mine, b));
    let counts = |r: &Repository| is_near(r.namespace()) || repository::has_been_opened(&r.spec, r.status.as_ref());
    let others = ctx.repositories.store.state_filter(|r| r.uid().as_ref() != Some(&run.id.uid));
    if let Some(other) = others.iter().find(|r| unknown(r)) {
        return Some(format!("Repository {}/{}", run.id.namespace, other.name_any()));
    }
    let others: Vec<Repository> =
        others.iter().map(|r| r.open()).filter(|r| !goes(r) && same(r) && counts(r)).collect();
    let near = others
        .iter()
        .filter(|r| is_near(r.namespace()))
        .map(|r| format!("Repository {}/{}", run.id.namespace, r.name_any()));
    near.min().or_else(|| others.first().map(|_| "a Repository of another namespace".to_owned()))
}

/// Whether a namespace is being deleted. Not knowing holds nothing up that would otherwise go.
async fn namespace_ends(ctx: &Context, name: &str) -> bool {
    matches!(ctx.watched.namespace(name).await, Ok(Some(n)) if n.metadata.deletion_timestamp.is_some())
}
