//! Reconciles BackupSession.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt as _};
use tracing::info;

use super::context::Context;
use super::reconcile::{Error, ROUNDS, measured, reserved};
use crate::api::backup_session::{BackupPhase, InvokerRef};
use crate::api::common::{InvokerPhase, OnFailure, RepositoryRef};
use crate::api::{BackupBatch, BackupConfiguration, BackupSession, backup_batch::BackupMember};
use crate::controller::apply::{objects, status};
use crate::controller::cache::consumers::{self, User};
use crate::controller::cache::index::Indexed;
use crate::controller::cache::informers::Reads;
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::observe::{jobs, targets, validity};
use crate::names::{condition, reason};
use crate::plan::backup::{self, BackupRun, Invoker, Neighbour, is_over};
use crate::plan::ground;
use crate::plan::jobs::JobSeen;
use crate::plan::observed::{Refusal, Rival, Seen, Surroundings, Writer};
use crate::plan::run::{Identity, is_sequential};
use crate::plan::target::TargetSeen;

/// One look at a backup.
///
/// # Errors
/// The API server could not be reached or refused a write; the look is repeated.
pub async fn reconcile(object: Arc<Stored<BackupSession>>, ctx: Arc<Context>) -> Result<Action, Error> {
    measured(&ctx, object.as_ref(), Some(&ctx.of_backup_sessions), Box::pin(look(&object, &ctx))).await
}

async fn look(object: &Stored<BackupSession>, ctx: &Context) -> Result<Action, Error> {
    let size = object.size() + size_of_invoker(ctx, object);
    let _room = ctx.rooms.enter(object, size).await?;
    let mut object = object.clone();
    let mut refused: Vec<JobSeen> = vec![];
    let mut refused_revoke = None;
    for _ in 0..ROUNDS {
        let opened = object.open();
        let status = opened.status.clone().unwrap_or_default();
        let rests = is_over(status.phase)
            && !backup::has_retry_due(&status)
            && status.observed_generation.is_none_or(|g| Some(g) == object.meta().generation);
        if (rests || object.meta().deletion_timestamp.is_some()) && !Identity::of(&opened).held {
            return Ok(Action::await_change());
        }
        let (run, refusal) = run(ctx, &object, &opened).await?;
        let mut seen = observe(ctx, &object, &run, refusal).await?;
        seen.jobs.append(&mut refused);
        seen.refused_revoke = refused_revoke.take();
        ctx.queues.note(&run.id.namespace, &seen.jobs);
        let plan = reserved(ctx, &object, &mut seen, |seen| backup::next(&run, seen, &ctx.setup, ctx.now()));
        let (done, fresh) = objects::apply(ctx, &object, plan).await?;
        object = fresh.map_or_else(|| object.clone(), |fresh| fresh.written(&object));
        if done.refused.revoke.is_some() {
            // What it says of rights is not so.
            (refused, refused_revoke) = (done.refused.jobs, done.refused.revoke);
            continue;
        }
        status::repository(ctx, &object, &done.plan).await?;
        if let Some(written) = status::report(ctx, &object, &done.plan).await? {
            // What is written about an ended session, of the one that follows it, is no second end.
            if !is_over(status.phase) {
                count(ctx, &run, &written.open());
            }
            object = written.written(&object);
        }
        refused = done.refused.jobs;
        if !done.plan.again() && refused.is_empty() {
            return Ok(done.plan.requeue().map_or_else(Action::await_change, Action::requeue));
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

/// The session with what its invoker says.
async fn run(
    ctx: &Context,
    stored: &Stored<BackupSession>,
    object: &BackupSession,
) -> Result<(BackupRun, Option<Refusal>), Error> {
    let id = Identity::of(object);
    let reference = object.spec.invoker.clone().unwrap_or_default();
    let own = validity::judge(ctx, stored).await?;
    // A session that is not valid names nothing that could be looked up.
    let (invoker, theirs) = match own {
        None => invoker(ctx, &id.namespace, &reference).await?,
        Some(_) => (None, None),
    };
    let same = |s: &Stored<BackupSession>| {
        let i = s.facts().invoker.as_ref();
        i.is_some_and(|i| i.kind == reference.kind && i.name == reference.name)
    };
    // Of two that were created at once, the later by name steps back.
    let before_us = |s: &Stored<BackupSession>| {
        (s.creation_timestamp(), s.name_any()) < (object.creation_timestamp(), object.name_any())
    };
    let running = ctx.users.backups.store.state_filter(|s| {
        let started = match s.facts().backup {
            Some(BackupPhase::Running | BackupPhase::Pending) => true,
            None => before_us(s),
            Some(_) => false,
        };
        started && s.namespace() == Some(id.namespace.clone()) && s.name_any() != id.name && same(s)
    });
    let others = invoker.as_ref().map(|i| neighbours(ctx, i)).unwrap_or_default();
    let run = BackupRun {
        invoker,
        invoker_label: format!("{} {}/{}", reference.kind, id.namespace, reference.name),
        running: running.first().map(|s| s.name_any()),
        retry_left: object.spec.retry_left,
        canceled: object.spec.cancel == Some(true) || object.status.as_ref().is_some_and(backup::is_being_canceled),
        others,
        refusal: own,
        state: object.status.clone().unwrap_or_default(),
        id,
    };
    Ok((run, theirs))
}

async fn invoker(
    ctx: &Context,
    namespace: &str,
    reference: &InvokerRef,
) -> Result<(Option<Invoker>, Option<Refusal>), Error> {
    match reference.kind.as_str() {
        "BackupConfiguration" => {
            let Some(found) = current(ctx, &ctx.users.configurations, namespace, &reference.name).await? else {
                return Ok((None, None));
            };
            let refusal = consumers::refused(ctx, &found, validity::judge(ctx, &found).await?).await?;
            Ok((Some(of_configuration(found.open())), refusal))
        }
        "BackupBatch" => {
            let Some(found) = current(ctx, &ctx.users.batches, namespace, &reference.name).await? else {
                return Ok((None, None));
            };
            let refusal = consumers::refused(ctx, &found, validity::judge(ctx, &found).await?).await?;
            Ok((Some(of_batch(found.open())), refusal))
        }
        _ => Ok((None, None)),
    }
}

/// An invoker as the store has it. One that it does not have is asked for: a session created together with its
/// invoker can be seen before it, and what is skipped as without invoker is never looked at again.
pub(super) async fn current<K>(
    ctx: &Context,
    store: &Indexed<Stored<K>>,
    namespace: &str,
    name: &str,
) -> kube::Result<Option<Stored<K>>>
where
    K: UserKind + Resource<Scope = NamespaceResourceScope>,
{
    match store.get(&ObjectRef::new(name).within(namespace)) {
        Some(found) => Ok(Some(found.as_ref().clone())),
        None => Api::<Stored<K>>::namespaced(ctx.client.clone(), namespace).get_opt(name).await,
    }
}

/// Other invokers that back up into the same place. One of another namespace counts only where it may use the Repository:
/// whoever may not must not get in the way of those who may.
fn neighbours(ctx: &Context, invoker: &Invoker) -> Vec<Neighbour> {
    let place = place(ctx, &invoker.id.namespace, invoker.repository.as_ref());
    let mut found = vec![];
    for c in ctx.users.configurations.store.state().iter().filter(|c| is_beside(ctx, invoker, place.as_ref(), c)) {
        let targets = c.outline().spec.target.iter().map(backup::named).collect();
        found.push(Neighbour { name: name(c.as_ref()), targets });
    }
    for b in ctx.users.batches.store.state().iter().filter(|b| is_beside(ctx, invoker, place.as_ref(), b)) {
        let targets = b.outline().spec.members.iter().filter_map(|m| m.target.as_ref()).map(backup::named).collect();
        found.push(Neighbour { name: name(b.as_ref()), targets });
    }
    found
}

/// Whether another invoker backs up into the place of this one.
fn is_beside<K: UserKind>(ctx: &Context, invoker: &Invoker, own: Option<&String>, other: &Stored<K>) -> bool {
    let facts = other.facts();
    let is_other = other.uid().as_ref() != Some(&invoker.id.uid);
    let is_near = other.namespace().as_ref() == Some(&invoker.id.namespace);
    // Its target may be away, so that it is not Ready; its backups are there all the same.
    let may_use = facts.invoker_phase != Some(InvokerPhase::Invalid)
        && other.says(condition::REPOSITORY_FOUND, reason::REPOSITORY_AVAILABLE);
    let is_in_use = facts.invoker_phase == Some(InvokerPhase::Ready) || may_use;
    let counts = is_other && (is_near || is_in_use) && !is_refused(other);
    counts && facts.repository.as_ref().map(|(home, name)| place_of(ctx, home, name)).as_ref() == own
}

fn name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{} {}/{}", K::kind(&()), object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether somebody else has the Repository, so that this one backs nothing up into it.
fn is_refused<K: User>(invoker: &K) -> bool {
    invoker.says(condition::STALLED, reason::REPOSITORY_TAKEN)
}

/// Where a reference leads: the namespace of the Repository, and its URL or, for a volume, its name. Two namespaces
/// that reach one bucket are strangers: what one writes there must not hold up the other.
fn place(ctx: &Context, namespace: &str, reference: Option<&RepositoryRef>) -> Option<String> {
    let reference = reference?;
    Some(place_of(ctx, ground::home(reference, namespace), &reference.name))
}

fn place_of(ctx: &Context, home: &str, name: &str) -> String {
    let url = ctx.repositories.get(&ObjectRef::new(name).within(home)).and_then(|r| r.facts().url.clone());
    format!("{home} {}", url.as_deref().unwrap_or(name))
}

/// Bytes that a look at a session opens of its invoker.
fn size_of_invoker(ctx: &Context, session: &Stored<BackupSession>) -> usize {
    let (Some(invoker), Some(namespace)) = (&session.facts().invoker, session.namespace()) else { return 0 };
    if invoker.kind == "BackupBatch" {
        ctx.users.batches.get(&ObjectRef::new(&invoker.name).within(&namespace)).map_or(0, |o| o.size())
    } else {
        ctx.users.configurations.get(&ObjectRef::new(&invoker.name).within(&namespace)).map_or(0, |o| o.size())
    }
}

fn of_configuration(object: BackupConfiguration) -> Invoker {
    let id = Identity::of(&object);
    let s = object.spec;
    Invoker {
        id,
        paused: s.paused.unwrap_or(false),
        retry: s.retry_config,
        repository: s.repository,
        retention: s.retention_policy,
        sequential: false,
        stop: true,
        time_out: s.time_out,
        runtime: s.runtime_settings.clone(),
        members: vec![BackupMember {
            task: s.task,
            target: s.target,
            runtime_settings: s.runtime_settings,
            temp_dir: s.temp_dir,
            interim_volume_template: s.interim_volume_template,
            hooks: s.hooks,
            time_out: None,
        }],
    }
}

fn of_batch(object: BackupBatch) -> Invoker {
    let id = Identity::of(&object);
    let s = object.spec;
    Invoker {
        id,
        paused: s.paused.unwrap_or(false),
        retry: s.retry_config,
        repository: s.repository,
        members: s.members,
        retention: s.retention_policy,
        sequential: is_sequential(s.execution_order, s.maintain_order),
        stop: s.on_failure != Some(OnFailure::Continue),
        time_out: s.time_out,
        runtime: s.runtime_settings,
    }
}

/// Claims of targets that a restore has begun with. Between two of its tries it has no Job, and their data is half restored.
async fn between(reads: Reads<'_>, begun: Vec<Rival>) -> Vec<Writer> {
    let of = async |rival: Rival| {
        let claims = match targets::target(reads, None, Some(&rival.reference)).await {
            TargetSeen::Found(found) => found.claims.into_keys().collect(),
            TargetSeen::Missing(_) | TargetSeen::Unknown(_) => vec![],
        };
        let writer = move |claim| Writer { session: rival.session.clone(), claim, reads: false };
        claims.into_iter().map(writer).collect::<Vec<_>>()
    };
    join_all(begun.into_iter().map(of)).await.concat()
}

async fn observe(
    ctx: &Context,
    object: &Stored<BackupSession>,
    run: &BackupRun,
    refusal: Option<Refusal>,
) -> kube::Result<Surroundings> {
    let namespace = &run.id.namespace;
    let members = run.invoker.as_ref().map(|i| i.members.as_slice()).unwrap_or_default();
    // Before the targets: a restore that leaves data half restored first marks the workload, and then it is over. Asked in
    // the other order, it could be over here, and its mark not be there yet.
    let named = members.iter().filter_map(|m| m.target.as_ref()?.ref_.as_ref());
    let (rivals, begun) = (jobs::rivals(ctx, &run.id, named), jobs::begun(ctx, &run.id));
    let mut writers = jobs::writers(ctx, &run.id, ctx.now());
    writers.extend(between(Reads::watched(ctx, namespace), begun).await);
    let references = members.iter().map(|m| m.target.as_ref().and_then(|t| t.ref_.as_ref()));
    // Hosts are counted by replicas that somebody may just have changed.
    let targets = join_all(references.map(|r| targets::target(Reads::now(ctx, namespace), None, r)));
    let reference = run.invoker.as_ref().and_then(|i| i.repository.as_ref());
    let repository = jobs::repository(ctx, reference, namespace, false);
    let pod_security = jobs::pod_security(ctx, namespace);
    let (targets, repository, pod_security) = futures::join!(targets, repository, pod_security);
    let mut jobs = jobs::jobs(ctx, &ctx.of_backup_sessions, &run.id).await?;
    let has_rights = run.state.run.as_ref().is_some_and(|r| !r.grants.is_empty());
    if has_rights && !jobs.iter().any(JobSeen::is_active) {
        // Watches lag behind. Before rights are taken back because no Job needs them, that must be so.
        jobs = jobs::jobs_now(ctx, &run.id).await?;
    }
    let progress = ctx.progress.of(&jobs).await;
    let room = ctx.queues.room(object, ctx.setup.jobs_per_repository);
    Ok(Surroundings {
        refusal,
        source: Seen::Missing,
        repository,
        targets,
        pod_security: pod_security?,
        job_defaults: jobs::job_defaults(ctx, namespace).await?,
        jobs,
        room,
        rivals,
        writers,
        refused_claims: BTreeMap::new(),
        refused_scales: BTreeMap::new(),
        refused_holds: BTreeMap::new(),
        refused_revoke: None,
        progress,
    })
}

fn count(ctx: &Context, run: &BackupRun, written: &BackupSession) {
    let status = written.status.clone().unwrap_or_default();
    if !is_over(status.phase) {
        return;
    }
    for host in status.targets.iter().flat_map(|t| &t.stats) {
        ctx.metrics.outcome("backup", host.reason.as_deref().unwrap_or("Succeeded"));
    }
    let phase = format!("{:?}", status.phase.unwrap_or(BackupPhase::Unknown));
    let took = status.run.as_ref().and_then(|r| r.start_time.as_ref());
    let took = took.map_or(Duration::ZERO, |s| Duration::try_from(ctx.now().duration_since(s.0)).unwrap_or_default());
    ctx.metrics.run_ended("BackupSession", &phase, took);
    info!(
        run = run.id.uid,
        namespace = run.id.namespace,
        name = run.id.name,
        phase,
        summary = status.summary,
        "backup ended"
    );
}
