//! Reconciles RestoreSession and RestoreBatch.
//!
//! This file contains only the differences from the other kinds of the loop. The reads of a reconcile are in
//! [`observe::restore`](crate::controller::observe::restore); the decisions are in
//! [`plan::restore`](crate::plan::restore).

use std::time::Duration;

use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt as _};
use tracing::info;

use crate::api::restore_session::{HostPhase, RestorePhase};
use crate::api::{RestoreBatch, RestoreSession};
use crate::controller::apply::objects::{Applied, Refused};
use crate::controller::apply::{reserve, status};
use crate::controller::cache::children::Children;
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::cache::stores::Stores;
use crate::controller::kinds::context::Context;
use crate::controller::kinds::reconcile::{Error, Planned};
use crate::controller::observe::{jobs, restore as observe};
use crate::plan::effects::Plan;
use crate::plan::restore;
use crate::plan::restore::rounds::Rounds;
use crate::plan::restore::run::{RestoreRun, RestoreState};
use crate::plan::seen::identity::Identity;
use crate::plan::seen::surroundings::Surroundings;

/// A kind that is a restore.
pub trait Restore: UserKind + Resource<Scope = NamespaceResourceScope> {
    /// The restore that the object describes.
    fn run(&self) -> RestoreRun;
    /// The cache of its Jobs.
    fn jobs(stores: &Stores) -> &Children;
    /// Whether its status has the phase Running and was written for the current spec.
    fn goes_on(&self) -> bool;
}

/// After a start, an object that can wait is reconciled after one to two times this duration.
const LATER: Duration = Duration::from_secs(5);

impl Restore for RestoreSession {
    fn run(&self) -> RestoreRun {
        RestoreRun::of_session(self)
    }
    fn jobs(stores: &Stores) -> &Children {
        &stores.of_restore_sessions
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
    fn jobs(stores: &Stores) -> &Children {
        &stores.of_restore_batches
    }
    fn goes_on(&self) -> bool {
        let running = self.status.as_ref().filter(|s| s.phase == Some(RestorePhase::Running));
        running.is_some_and(|s| s.observed_generation == self.metadata.generation)
    }
}

impl<K: Restore> Planned for K {
    type Run = RestoreRun;
    type Seen = Surroundings;
    type Memory = Rounds;

    fn children(stores: &Stores) -> &Children {
        K::jobs(stores)
    }

    fn waits(ctx: &Context, object: &Stored<K>) -> Option<Duration> {
        let wait = || LATER + LATER.mul_f64(share(&object.uid().unwrap_or_default()));
        (ctx.is_starting() && only_waits(object, ctx)).then(wait)
    }

    async fn observe(
        ctx: &Context,
        object: &Stored<K>,
        rounds: &Rounds,
    ) -> Result<Option<(RestoreRun, Surroundings)>, Error> {
        let whole = object.open();
        let run = RestoreRun { rounds: rounds.clone(), ..whole.run() };
        let at_rest = !run.id.held && !run.id.deleting && run.state.observed_generation == run.id.generation;
        let children = K::jobs(&ctx.reads.stores);
        if run.is_over() && at_rest && !jobs::runs(children, &run.id, ctx.now()) {
            return Ok(None);
        }
        // A run that is ending does not wait for a verdict. A running run was judged before, possibly by an operator
        // with other limits; a new verdict would leave its workload at zero.
        let is_let_in = run.is_leaving() || (whole.goes_on() && object.is_whole());
        let refusal = observe::refusal(&ctx.reads, object, &whole, is_let_in).await?;
        let most = ctx.setup.jobs_per_repository;
        let (room, rooms) = (ctx.writes.slots.room(object, most), ctx.writes.slots.rooms(object, most));
        let seen = Box::pin(observe::surroundings(&ctx.reads, &ctx.setup, &run, refusal, children)).await?;
        Ok(Some((run, Surroundings { room, rooms, ..seen })))
    }

    fn refused(seen: &mut Surroundings, refused: Refused) {
        refused.add_to(seen);
    }

    fn plan(ctx: &Context, object: &Stored<K>, run: &RestoreRun, seen: &mut Surroundings, rounds: &mut Rounds) -> Plan {
        let (slots, most) = (&ctx.writes.slots, ctx.setup.jobs_per_repository);
        slots.note(&run.id.namespace, &seen.jobs);
        let plan = reserve::reserved(slots, object, most, seen, |seen| restore::next(run, seen, &ctx.setup, ctx.now()));
        *rounds = run.rounds.clone().after(&run.state.members, &plan);
        plan
    }

    async fn report(
        ctx: &Context,
        mut object: Stored<K>,
        run: &RestoreRun,
        applied: &Applied,
    ) -> Result<Option<Stored<K>>, Error> {
        status::repository(&ctx.writes, &ctx.reads, &object, applied).await?;
        if let Some(written) = status::report(&ctx.writes, &object, applied).await? {
            count(ctx, run, &written.open().run().state);
            object = written.written(&object);
        }
        let is_gone = object.meta().deletion_timestamp.is_some() && object.finalizers().is_empty();
        Ok((!is_gone).then_some(object))
    }
}

/// Whether the object waits only for its Jobs and not for the operator. After a start, objects that wait for the
/// operator go first.
fn only_waits<K: Restore>(object: &Stored<K>, ctx: &Context) -> bool {
    object.meta().deletion_timestamp.is_none()
        && object.is_whole()
        && object.open().goes_on()
        && jobs::runs(K::jobs(&ctx.reads.stores), &Identity::of(object), ctx.now())
}

/// A number from 0 to 1, derived from a random UID, so that many waiting objects are not reconciled at the same time.
fn share(uid: &str) -> f64 {
    let digits = uid.get(..4).and_then(|d| u16::from_str_radix(d, 16).ok());
    f64::from(digits.unwrap_or_default()) / f64::from(u16::MAX)
}

/// Counts what ended between two statuses.
fn count(ctx: &Context, before: &RestoreRun, after: &RestoreState) {
    for (member, old) in after.members.iter().zip(before.state.members.iter().map(Some).chain(std::iter::repeat(None)))
    {
        for host in &member.stats {
            let was = old.and_then(|o| o.stats.iter().find(|h| h.hostname == host.hostname)).and_then(|h| h.phase);
            let ended = matches!(host.phase, Some(HostPhase::Succeeded | HostPhase::Failed)) && was != host.phase;
            if ended {
                ctx.writes.counters.outcome("restore", host.reason.as_deref().unwrap_or("Succeeded"));
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
        ctx.writes.counters.run_ended(&before.id.kind, phase, took);
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
