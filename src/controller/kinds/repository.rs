//! Reconciles Repository: its users, its own Jobs, its deletion.
//!
//! This file contains only the differences from the other kinds of the loop. A Repository takes no slots: it grants
//! slots, and wakes the sessions whose turn it is.

use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};

use crate::api::Repository;
use crate::controller::apply::objects::{Applied, Refused};
use crate::controller::apply::{reserve, status};
use crate::controller::cache::children::Children;
use crate::controller::cache::stored::Stored;
use crate::controller::cache::stores::Stores;
use crate::controller::kinds::context::Context;
use crate::controller::kinds::reconcile::{Error, Planned};
use crate::controller::observe::repository as observe;
use crate::names::{STASH_REPOSITORY_FINALIZER, annotation};
use crate::plan::effects::Plan;
use crate::plan::repository;
use crate::plan::repository::pass::{RepositoryRun, RepositorySurroundings};
use crate::plan::repository::slots::queue;
use crate::plan::seen::identity::Identity;

impl Planned for Repository {
    type Run = RepositoryRun;
    type Seen = RepositorySurroundings;
    type Memory = ();

    fn children(stores: &Stores) -> &Children {
        &stores.of_repositories
    }

    async fn observe(
        ctx: &Context,
        stored: &Stored<Self>,
        (): &Self::Memory,
    ) -> Result<Option<(RepositoryRun, RepositorySurroundings)>, Error> {
        let object = stored.open();
        let run = RepositoryRun {
            id: Identity::of(&object),
            labels: object.labels().clone(),
            sync_request: object.annotations().get(annotation::SYNC).cloned(),
            stash: object.finalizers().iter().any(|f| f == STASH_REPOSITORY_FINALIZER),
            spec: object.spec,
            state: object.status.unwrap_or_default(),
        };
        let (home, most) = (ObjectRef::from_obj(stored), ctx.setup.jobs_per_repository);
        let ledger = &ctx.writes.slots;
        let (waiting, at_work, slots) =
            ledger.look(&home, |q| (q.len(), q.jobs(), queue::slots(q, most))).unwrap_or_default();
        // This reconcile may follow the change of a session, which may have freed a slot.
        ctx.triggers.next_in_line(ledger, &home, most);
        let seen = observe::surroundings(&ctx.reads, &ctx.setup, stored, &run).await?;
        Ok(Some((run, RepositorySurroundings { waiting, at_work, slots, ..seen })))
    }

    fn refused(seen: &mut RepositorySurroundings, mut refused: Refused) {
        seen.jobs.append(&mut refused.jobs);
    }

    fn plan(
        ctx: &Context,
        stored: &Stored<Self>,
        run: &RepositoryRun,
        seen: &mut RepositorySurroundings,
        (): &mut Self::Memory,
    ) -> Plan {
        let home = ObjectRef::from_obj(stored);
        seen.may_list = ctx.listings.ask(&home);
        let plan = repository::next(run, seen, &ctx.setup, ctx.now());
        reserve::settle(&ctx.listings, &home, &plan);
        plan
    }

    async fn report(
        ctx: &Context,
        stored: Stored<Self>,
        _: &RepositoryRun,
        applied: &Applied,
    ) -> Result<Option<Stored<Self>>, Error> {
        if stored.meta().deletion_timestamp.is_some() && stored.finalizers().is_empty() {
            return Ok(None);
        }
        let written = status::report(&ctx.writes, &stored, applied).await?;
        Ok(Some(match written.zip(applied.status()) {
            Some((written, status)) => status::take_out(&ctx.writes, written, status).await?,
            None => stored,
        }))
    }
}
