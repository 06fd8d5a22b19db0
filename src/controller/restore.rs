//! Reconciles RestoreSession and RestoreBatch: one loop for both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt as _};
use tracing::{debug, info};

use super::apply::Refused;
use super::context::{Children, Context};
use super::stored::{Stored, UserKind};
use super::users;
use super::watched::Reads;
use super::{Error, ROUNDS, apply, backup, measured, observe, report, reserved, targets, validity};
use crate::api::common::TargetRef;
use crate::api::restore_batch::{Adopted, RestoreBatchSpec};
use crate::api::restore_session::{HostPhase, RestorePhase};
use crate::api::{RestoreBatch, RestoreSession};
use crate::plan::gate::Room;
use crate::plan::ground::NoGround;
use crate::plan::hosts::TargetKind;
use crate::plan::jobs::{JobSeen, JobState};
use crate::plan::observed::{Refusal, Seen, Surroundings};
use crate::plan::restore::Rounds;
use crate::plan::run::{Identity, RestoreRun, RestoreState};
use crate::plan::target::TargetSeen;
use crate::plan::{adopt, restore};

/// A kind that is a restore.
pub trait Restore: UserKind + Resource<Scope = NamespaceResourceScope> {
    /// The restore in it.
    fn run(&self) -> RestoreRun;
    /// Where its Jobs are watched.
    fn children(ctx: &Context) -> &Children;
    /// Whether status calls it running, and was written of the spec that it has now.
    fn goes_on(&self) -> bool;
}

/// What can wait after a start is looked at between one and two of these later.
const LATER: Duration = Duration::from_secs(5);

impl Restore for RestoreSession {
    fn run(&self) -> RestoreRun {
        RestoreRun::of_session(self)
    }
    fn children(ctx: &Context) -> &Children {
        &ctx.of_restore_sessions
    }
    fn goes_on(&self) -> bool {
        let running = self.status.as_ref().filter(|s| s.phase == Some(RestorePhase::Running));
        running.is_some_and(|s| s.observed_generation == self.metadata.generation)
    }
}

impl Restore for RestoreBatch {
    fn run(&self) -> RestoreRun {
        RestoreRun::of_batch(self)
    }
    fn children(ctx: &Context) -> &Children {
        &ctx.of_restore_batches
    }
    fn goes_on(&self) -> bool {
        let running = self.status.as_ref().filter(|s| s.phase == Some(RestorePhase::Running));
        running.is_some_and(|s| s.observed_generation == self.metadata.generation)
    }
}

/// One look at a restore: observe, plan, apply, report, and again while a written intent allows the next step.
///
/// # Errors
/// The API server could not be reached or refused a write; the look is repeated.
pub async fn reconcile<K: Restore>(object: Arc<Stored<K>>, ctx: Arc<Context>) -> Result<Action, Error> {
    measured(&ctx, object.as_ref(), Some(K::children(&ctx)), Box::pin(look(object.as_ref(), &ctx))).await
}

async fn look<K: Restore>(object: &Stored<K>, ctx: &Context) -> Result<Action, Error> {
    let _room = ctx.rooms.enter(object, object.size()).await?;
    if ctx.is_starting() && only_waits(object, ctx) {
        return Ok(Action::requeue(LATER + LATER.mul_f64(share(&object.uid().unwrap_or_default()))));
    }
    let mut object = object.clone();
    let (mut refused, mut rounds) = (Refused::default(), Rounds::default());
    for _ in 0..ROUNDS {
        let whole = object.open();
        let run = RestoreRun { rounds, ..whole.run() };
        let at_rest = !run.id.held && !run.id.deleting && run.state.observed_generation == run.id.generation;
        if run.is_over() && at_rest && !observe::runs(K::children(ctx), &run.id, ctx.now()) {
            return Ok(Action::await_change());
        }
        // Whoever ends waits for no verdict. What runs was judged, by an operator with other limits, maybe; a verdict of
        // today would leave its workload at zero.
        let is_let_in = run.is_leaving() || (whole.goes_on() && object.is_whole());
        // Of what is not whole: it looks like a spec that was changed, and is none.
        let mut refusal = object.refusal();
        if !is_let_in || object.is_of_another_version() {
            refusal = validity::judge(ctx, &object).await?;
            if refusal.is_none() {
                refusal = ctx.vouching.refusal(&ctx.watched, &whole).await?;
            }
        }
        let room = ctx.queues.room(&object, ctx.setup.jobs_per_repository);
        let mut seen = Box::pin(observe(ctx, &run, refusal, K::children(ctx), room)).await?;
        seen.jobs.append(&mut refused.jobs);
        seen.refused_claims = std::mem::take(&mut refused.claims);
        seen.refused_scales = std::mem::take(&mut refused.scales);
        seen.refused_holds = std::mem::take(&mut refused.holds);
        seen.refused_revoke = refused.revoke.take();
        ctx.queues.note(&run.id.namespace, &seen.jobs);
        let plan = reserved(ctx, &object, &mut seen, |seen| restore::next(&run, seen, &ctx.setup, ctx.now()));
        rounds = run.rounds.clone().after(&run.state, &plan);
        let (done, fresh) = apply::apply(ctx, &object, plan).await?;
        object = fresh.map_or_else(|| object.clone(), |fresh| fresh.written(&object));
        if done.refused.revoke.is_some() || !done.refused.scales.is_empty() {
            // What it says of rights, or of a workload, is not so.
            refused = done.refused;
            continue;
        }
        report::repository(ctx, &object, &done.plan).await?;
        if let Some(written) = report::report(ctx, &object, &done.plan).await? {
            count(ctx, &run, &written.open().run().state);
            object = written.written(&object);
        }
        if object.meta().deletion_timestamp.is_some() && object.finalizers().is_empty() {
            return Ok(Action::await_change());
        }
        refused = done.refused;
        if !done.plan.again() && refused.jobs.is_empty() && refused.scales.is_empty() && refused.holds.is_empty() {
            return Ok(done.plan.requeue().map_or_else(Action::await_change, Action::requeue));
        }
    }
    debug!(session = object.name_any(), "more rounds than expected; looking again soon");
    Ok(Action::requeue(Duration::from_secs(1)))
}

/// Whether it waits for its Jobs, and for nothing of us. After a start those go first who wait for us.
fn only_waits<K: Restore>(object: &Stored<K>, ctx: &Context) -> bool {
    object.meta().deletion_timestamp.is_none()
        && object.is_whole()
        && object.open().goes_on()
        && observe::runs(K::children(ctx), &Identity::of(object), ctx.now())
}

/// From 0 to 1, by a random id: many that wait do not come back at once.
fn share(uid: &str) -> f64 {
    let digits = uid.get(..4).and_then(|d| u16::from_str_radix(d, 16).ok());
    f64::from(digits.unwrap_or_default()) / f64::from(u16::MAX)
}

async fn observe(
    ctx: &Context,
    run: &RestoreRun,
    refusal: Option<Refusal>,
    children: &Children,
    room: Room,
) -> Result<Surroundings, Error> {
    let namespace = &run.id.namespace;
    // What is watched lags behind. On the way out that must not be: a Job made a moment ago, and not seen yet, would
    // write on after all is said to have stopped.
    let watched = if run.is_leaving() { None } else { Some(observe::jobs(ctx, children, &run.id).await?) };
    // Nor where rights are taken back because no Job needs them.
    let needed = |jobs: &Vec<JobSeen>| run.state.run.grants.is_empty() || jobs.iter().any(JobSeen::is_active);
    let jobs = match watched.filter(needed) {
        Some(jobs) => jobs,
        None => observe::jobs_now(ctx, &run.id).await?,
    };
    let now = touches_workloads(run, &jobs);
    let reads = if now { Reads::now(ctx, namespace) } else { Reads::watched(ctx, namespace) };
    let targets = targets(reads, Reads::watched(ctx, namespace), run);
    let repository = observe::repository(ctx, run.repository.as_ref(), namespace, now);
    let progress = ctx.progress.of(&jobs);
    let source = source(ctx, run, refusal);
    let pod_security = observe::pod_security(ctx, namespace);
    let (targets, repository, progress, source, pod_security) =
        futures::join!(targets, repository, progress, source, pod_security);
    let (source, refusal) = source?;
    let rivals = observe::rivals(ctx, &run.id, run.targets().iter().flatten());
    let mut writers = observe::writers(ctx, &run.id, ctx.now());
    writers.extend(observe::readers(ctx, &run.id, ctx.now()));
    Ok(Surroundings {
        refusal,
        source,
        repository,
        targets,
        pod_security: pod_security?,
        job_defaults: observe::job_defaults(ctx, namespace).await?,
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

/// Whether it scales workloads and writes under them, or is about to: its snapshots are known. Watches lag behind,
/// and a workload that was scaled a moment ago, by us or by somebody else, must be seen as it is. Nor is one scaled for
/// a restore that cannot go on, because its Secret has gone.
fn touches_workloads(run: &RestoreRun, jobs: &[JobSeen]) -> bool {
    let begun =
        run.state.members.iter().any(|m| m.quiesce.is_some() || m.stats.iter().any(|h| !h.snapshots.is_empty()));
    let answered = jobs.iter().any(|j| matches!(j.state, JobState::Done(_)));
    (begun || answered) && run.targets().iter().any(|t| TargetKind::of(t.as_ref()).is_workload())
}

async fn targets(reads: Reads<'_>, beside: Reads<'_>, run: &RestoreRun) -> Vec<TargetSeen> {
    let references = run.targets();
    join_all(references.iter().enumerate().map(|(i, r)| target(reads, beside, run, i, r.as_ref()))).await
}

/// `beside` is where pods of others and autoscalers are looked for: as lately as the watch has them.
async fn target(
    reads: Reads<'_>,
    beside: Reads<'_>,
    run: &RestoreRun,
    index: usize,
    reference: Option<&TargetRef>,
) -> TargetSeen {
    let spec = run.members.get(index).and_then(|m| m.target.as_ref());
    if let Some(spec) = spec.filter(|t| !t.volume_claim_templates.is_empty()) {
        // What was made a moment ago must be seen.
        return targets::made_claims(reads.at_once(), &run.id, spec).await;
    }
    let mut seen = targets::target(reads, Some(beside), reference).await;
    let state = run.state.members.get(index);
    let uncounted = state.is_none_or(|m| m.stats.is_empty());
    if uncounted && TargetKind::of(reference).is_workload() && matches!(seen, TargetSeen::Found(_)) {
        // Its hosts are counted once, and not by replicas that somebody has just changed.
        seen = targets::target(reads.at_once(), Some(beside), reference).await;
    }
    let quiesced = state.is_some_and(|m| m.quiesce.is_some());
    if let TargetSeen::Found(target) = &mut seen
        && target.is_scalable()
        && !quiesced
    {
        // A warning is all that hangs on it: who may not list them goes without.
        target.autoscalers = beside.scalers(&target.kind, &target.name).await.unwrap_or_default();
    }
    seen
}

/// Members that are still to be taken from a BackupBatch, judged as if they stood in the RestoreBatch itself.
async fn source(
    ctx: &Context,
    run: &RestoreRun,
    refusal: Option<Refusal>,
) -> Result<(Seen<Adopted>, Option<Refusal>), Error> {
    let Some(reference) = run.untaken().filter(|_| refusal.is_none()) else {
        return Ok((Seen::Missing, refusal));
    };
    let home = adopt::home(reference, &run.id.namespace);
    if let Some(why) = ctx.scope.outside(home) {
        return Ok((Seen::Unknown(why), None));
    }
    let batch = match backup::current(ctx, &ctx.users.batches, home, &reference.name).await {
        Ok(Some(batch)) if batch.is_whole() => Some(batch.open()),
        Ok(_) => None,
        Err(e) => return Ok((Seen::Unknown(observe::plain(&e)), None)),
    };
    // Before anything of it is looked at: messages and status would show it.
    let verdict = match batch.as_ref().and_then(|b| adopt::repository(b, reference, &run.id.namespace)) {
        Some(repository) => users::verdict(ctx, &repository, &run.id.namespace).await,
        None => None,
    };
    match adopt::consent(batch.as_ref(), reference, &run.id.namespace, verdict) {
        Ok(()) => {}
        Err(NoGround::Waiting(why)) => return Ok((Seen::Unknown(why), None)),
        Err(NoGround::Denied(e) | NoGround::Refused(e)) => {
            return Ok((Seen::Missing, Some(Refusal { reason: e.reason, message: e.message })));
        }
    }
    let Some(batch) = batch else { return Ok((Seen::Missing, None)) };
    // What its author may not do, nobody does for him.
    if let Some(e) = ctx.vouching.refusal(&ctx.watched, &batch).await? {
        let message = format!("{} is not valid: {}", adopt::display(reference, &run.id.namespace), e.message);
        return Ok((Seen::Missing, Some(Refusal { message, ..e })));
    }
    let adopted = match adopt::adopt(&batch, reference, &run.id.namespace) {
        Ok(adopted) => adopted,
        Err(e) => return Ok((Seen::Missing, Some(Refusal { reason: e.reason, message: e.message }))),
    };
    let mut written = RestoreBatch::new(&run.id.name, RestoreBatchSpec::default());
    written.metadata.namespace = Some(run.id.namespace.clone());
    written.spec = RestoreBatchSpec {
        driver: batch.spec.driver,
        repository: run.repository.clone().or(adopted.repository.clone()),
        members: adopted.members.clone(),
        ..RestoreBatchSpec::default()
    };
    let (of, by) = (run.id.generation.unwrap_or_default(), batch.metadata.generation.unwrap_or_default());
    let version = format!("{of} {} {by}", batch.metadata.uid.as_deref().unwrap_or_default());
    let written = Stored::from(written);
    let refusal = match written.refusal() {
        None => validity::judge_part(ctx, &run.id.uid, &version, written.open()).await?,
        refusal => refusal,
    };
    let spec = written.open().spec;
    let refusal = refusal.map(|r| Refusal {
        message: format!("{}, as a restore: {}", adopt::display(reference, &run.id.namespace), r.message),
        ..r
    });
    Ok((Seen::Found(Adopted { members: spec.members, ..adopted }), refusal))
}

/// Counts what ended between two statuses.
fn count(ctx: &Context, before: &RestoreRun, after: &RestoreState) {
    for (member, old) in after.members.iter().zip(before.state.members.iter().map(Some).chain(std::iter::repeat(None)))
    {
        for host in &member.stats {
            let was = old.and_then(|o| o.stats.iter().find(|h| h.hostname == host.hostname)).and_then(|h| h.phase);
            let ended = matches!(host.phase, Some(HostPhase::Succeeded | HostPhase::Failed)) && was != host.phase;
            if ended {
                ctx.metrics.outcome("restore", host.reason.as_deref().unwrap_or("Succeeded"));
            }
        }
    }
    if after.is_final() && !before.state.is_final() {
        let phase = match after.phase {
            Some(RestorePhase::Succeeded) => "Succeeded",
            Some(RestorePhase::Invalid) => "Invalid",
            _ => "Failed",
        };
        let took = after
            .run
            .start_time
            .as_ref()
            .map_or(Duration::ZERO, |s| Duration::try_from(ctx.now().duration_since(s.0)).unwrap_or_default());
        ctx.metrics.run_ended(&before.id.kind, phase, took);
        info!(
            run = before.id.uid,
            kind = before.id.kind,
            namespace = before.id.namespace,
            name = before.id.name,
            phase,
            summary = after.summary,
            "restore ended"
        );
    }
}
