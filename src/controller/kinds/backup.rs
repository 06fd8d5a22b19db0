//! Reconciles BackupSession.
//!
//! This file contains only the differences from the other kinds of the loop. The reads of a reconcile are in
//! [`observe::backup`](crate::controller::observe::backup); the decisions are in [`plan::backup`](crate::plan::backup).

use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use tracing::info;

use crate::api::BackupSession;
use crate::api::backup_session::BackupPhase;
use crate::controller::apply::objects::{Applied, Refused};
use crate::controller::apply::{reserve, status};
use crate::controller::cache::children::Children;
use crate::controller::cache::stored::Stored;
use crate::controller::cache::stores::Stores;
use crate::controller::kinds::context::Context;
use crate::controller::kinds::reconcile::{Error, Planned};
use crate::controller::observe::backup as observe;
use crate::plan::backup;
use crate::plan::backup::run::BackupRun;
use crate::plan::backup::status::{has_retry_due, is_over};
use crate::plan::effects::Plan;
use crate::plan::seen::identity::Identity;
use crate::plan::seen::surroundings::Surroundings;

impl Planned for BackupSession {
    type Run = BackupRun;
    type Seen = Surroundings;
    type Memory = ();

    fn children(stores: &Stores) -> &Children {
        &stores.of_backup_sessions
    }

    fn size(stores: &Stores, object: &Stored<Self>) -> usize {
        object.size() + size_of_invoker(stores, object)
    }

    async fn observe(
        ctx: &Context,
        object: &Stored<Self>,
        (): &Self::Memory,
    ) -> Result<Option<(BackupRun, Surroundings)>, Error> {
        let opened = object.open();
        let status = opened.status.clone().unwrap_or_default();
        let rests = is_over(status.phase)
            && !has_retry_due(&status)
            && status.observed_generation.is_none_or(|g| Some(g) == object.meta().generation);
        if (rests || object.meta().deletion_timestamp.is_some()) && !Identity::of(&opened).held {
            return Ok(None);
        }
        let (run, refusal) = observe::run(&ctx.reads, &ctx.setup, object, &opened).await?;
        let seen = observe::surroundings(&ctx.reads, &ctx.setup, &run, refusal).await?;
        let room = ctx.writes.slots.room(object, ctx.setup.jobs_per_repository);
        Ok(Some((run, Surroundings { room, ..seen })))
    }

    fn refused(seen: &mut Surroundings, refused: Refused) {
        refused.add_to(seen);
    }

    fn plan(
        ctx: &Context,
        object: &Stored<Self>,
        run: &BackupRun,
        seen: &mut Surroundings,
        (): &mut Self::Memory,
    ) -> Plan {
        let (slots, most) = (&ctx.writes.slots, ctx.setup.jobs_per_repository);
        slots.note(&run.id.namespace, &seen.jobs);
        reserve::reserved(slots, object, most, seen, |seen| backup::next(run, seen, &ctx.setup, ctx.now()))
    }

    async fn report(
        ctx: &Context,
        object: Stored<Self>,
        run: &BackupRun,
        applied: &Applied,
    ) -> Result<Option<Stored<Self>>, Error> {
        status::repository(&ctx.writes, &ctx.reads, &object, applied).await?;
        let Some(written) = status::report(&ctx.writes, &object, applied).await? else { return Ok(Some(object)) };
        // A later write to an ended session, about the session that retries it, is not counted as a second end.
        if !is_over(run.state.phase) {
            count(ctx, run, &written.open());
        }
        Ok(Some(written.written(&object)))
    }
}

/// Bytes of its invoker that a reconcile of a session opens.
fn size_of_invoker(stores: &Stores, session: &Stored<BackupSession>) -> usize {
    let (Some(invoker), Some(namespace)) = (&session.facts().invoker, session.namespace()) else { return 0 };
    if invoker.kind == "BackupBatch" {
        stores.consumers.batches.get(&ObjectRef::new(&invoker.name).within(&namespace)).map_or(0, |o| o.size())
    } else {
        stores.consumers.configurations.get(&ObjectRef::new(&invoker.name).within(&namespace)).map_or(0, |o| o.size())
    }
}

fn count(ctx: &Context, run: &BackupRun, written: &BackupSession) {
    let status = written.status.clone().unwrap_or_default();
    if !is_over(status.phase) {
        return;
    }
    for host in status.targets.iter().flat_map(|t| &t.stats) {
        ctx.writes.counters.outcome("backup", host.reason.as_deref().unwrap_or("Succeeded"));
    }
    let phase = format!("{:?}", status.phase.unwrap_or(BackupPhase::Unknown));
    let took = status.run.as_ref().and_then(|r| r.start_time.as_ref());
    let took = took.map_or(Duration::ZERO, |s| Duration::try_from(ctx.now().duration_since(s.0)).unwrap_or_default());
    ctx.writes.counters.run_ended("BackupSession", &phase, took);
    info!(
        run = run.id.uid,
        namespace = run.id.namespace,
        name = run.id.name,
        phase,
        summary = status.summary,
        "backup ended"
    );
}
