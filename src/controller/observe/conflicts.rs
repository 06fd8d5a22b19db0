//! Conflicts of a session with other sessions of the namespace: targets that they restore, claims that their Jobs use.
//!
//! The watches lag behind. The slots, which are reserved after this, know the work that was started a moment ago.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::api::common::TargetRef;
use crate::controller::cache::children::{Children, in_use, of_session};
use crate::controller::cache::consumers;
use crate::controller::cache::stores::Stores;
use crate::plan::run::hosts;
use crate::plan::seen::compact::Kept;
use crate::plan::seen::identity::Identity;
use crate::plan::seen::job_status::pod_of;
use crate::plan::seen::surroundings::{Rival, Writer};
use crate::plan::seen::{job_status, ownership};

/// Targets of this session that other unfinished restores of the namespace have too; for each target the restore that
/// goes first.
pub fn rivals<'t>(stores: &Stores, id: &Identity, targets: impl IntoIterator<Item = &'t TargetRef>) -> Vec<Rival> {
    let wanted: BTreeSet<String> = targets.into_iter().filter_map(hosts::target_key).collect();
    let mut found = vec![];
    for target in &wanted {
        let key = consumers::restores(&id.namespace, target);
        let (sessions, batches) = (stores.consumers.restores.with(&key), stores.consumers.restore_batches.with(&key));
        let facts = sessions.iter().map(|s| s.facts()).chain(batches.iter().map(|b| b.facts()));
        let others = facts.flat_map(|f| &f.targets).filter(|r| r.target == *target && r.order.1 != id.uid);
        found.extend(others.min_by_key(|r| (!r.begun, &r.order)).cloned());
    }
    found
}

/// Targets that restores of the namespace have started on and not finished.
pub fn begun(stores: &Stores, id: &Identity) -> Vec<Rival> {
    let key = consumers::begun(&id.namespace);
    let (sessions, batches) = (stores.consumers.restores.with(&key), stores.consumers.restore_batches.with(&key));
    let facts = sessions.iter().map(|s| s.facts()).chain(batches.iter().map(|b| b.facts()));
    facts.flat_map(|f| &f.targets).filter(|t| t.begun).cloned().collect()
}

/// Claims that restore Jobs of other sessions of the namespace write to.
pub fn writers(stores: &Stores, id: &Identity, now: Timestamp) -> Vec<Writer> {
    users_of_claims(&[&stores.of_restore_sessions, &stores.of_restore_batches], id, now)
}

/// Claims that backup Jobs of the namespace read.
pub fn readers(stores: &Stores, id: &Identity, now: Timestamp) -> Vec<Writer> {
    users_of_claims(&[&stores.of_backup_sessions], id, now)
}

fn users_of_claims(kinds: &[&Children], id: &Identity, now: Timestamp) -> Vec<Writer> {
    let mut found = vec![];
    for children in kinds {
        let of = |job: Arc<Kept<Job>>| Some((ownership::of_job(&job.open())?, job));
        let mut jobs: Vec<_> = children.jobs.with(&in_use(&id.namespace)).into_iter().filter_map(of).collect();
        jobs.retain(|(child, _)| child.uid != id.uid);
        jobs.sort_by(|(a, _), (b, _)| a.uid.cmp(&b.uid));
        // Pods of a session are opened once, however many Jobs it has, and not together with pods of other sessions.
        for jobs in jobs.chunk_by(|(a, _), (b, _)| a.uid == b.uid) {
            let Some((child, _)) = jobs.first() else { continue };
            let pods = children.pods.with(&of_session(&id.namespace, &child.uid));
            let pods: Vec<Pod> = pods.iter().map(|p| p.open()).collect();
            let pods: Vec<&Pod> = pods.iter().collect();
            for (child, job) in jobs {
                let job = job.open();
                let seen = job_status::see(&job, &pods, now);
                if !seen.is_active() {
                    continue;
                }
                let session = format!("{} {}/{}", child.kind, id.namespace, child.name);
                let reads = seen.writes.is_empty();
                let claims = if reads { pod_of(&job).map(job_status::claims).unwrap_or_default() } else { seen.writes };
                found.extend(claims.into_iter().map(|claim| Writer { session: session.clone(), claim, reads }));
            }
        }
    }
    found.sort_by(|a: &Writer, b| (&a.session, &a.claim).cmp(&(&b.session, &b.claim)));
    found
}
