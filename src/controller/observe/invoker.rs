//! Reads of the reconcile of an invoker: its Repository, its targets and its sessions.
//!
//! Targets are read from the watches: here the existence of a target is only a condition, and nothing is overwritten.

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::api::BackupSession;
use crate::controller::cache::invokers::{Invoker, Written};
use crate::controller::cache::stored::Stored;
use crate::controller::observe::errors::Error;
use crate::controller::observe::reads::Reads;
use crate::controller::observe::{namespace, repository, targets as found, usage, validity};
use crate::names::condition;
use crate::plan::backup::invoker::seen::{InvokerSeen, SessionSeen};
use crate::plan::backup::status;
use crate::plan::run::hosts::display;
use crate::plan::seen::identity::Identity;
use crate::plan::setup::Setup;

/// The observed state of an invoker. `shown` is the kept part of the object, in the type of its kind.
///
/// # Errors
/// The API server could not be reached, or the object could not be validated yet.
pub async fn seen<'a, K: Invoker>(
    reads: &Reads,
    setup: &Setup,
    stored: &Stored<K>,
    shown: &'a K,
) -> Result<(InvokerSeen<'a>, Timestamp), Error> {
    let refusal = validity::judge(&reads.stores.verdicts, stored).await?;
    let (namespace, name, kind) = (stored.namespace().unwrap_or_default(), stored.name_any(), K::kind(&()));
    let of_us = |s: &Stored<BackupSession>| {
        s.namespace().as_deref() == Some(&namespace)
            && s.facts().invoker.as_ref().is_some_and(|i| i.kind == kind && i.name == name)
    };
    let refusal = usage::refused(reads, stored, refusal, setup.max_timeout).await?;
    let of_us = reads.stores.consumers.backups.store.state_filter(of_us);
    let timing = shown.timing();
    let written = shown.written();
    let now = reads.now();
    let targets = shown.targets();
    let looked = targets.iter().map(async |t| {
        let reference = t.and_then(|t| t.ref_.as_ref());
        (reference.map(display).unwrap_or_default(), found::target(reads.cached(&namespace), None, reference).await)
    });
    let is_new = written.is_none();
    let Written { conditions, last, in_force, record, .. } = written.unwrap_or_default();
    let seen = InvokerSeen {
        targets: join_all(looked).await,
        first_target: targets.first().and_then(|t| t.as_ref()?.ref_.as_ref()),
        members: shown.members(),
        pod_security: namespace::pod_security(reads, &namespace).await?,
        job_defaults: namespace::job_defaults(reads, &setup.job_defaults, &namespace).await?,
        target_conditions: shown.target_conditions(),
        id: Identity::of(shown),
        created: stored.creation_timestamp().map_or(now, |t| t.0),
        is_new,
        schedule: timing.schedule,
        time_zone: timing.time_zone,
        in_force,
        retry: timing.retry,
        paused: timing.paused,
        reference: shown.reference(),
        // The history limit of an invoker that cannot be read is unknown.
        history_limit: if stored.is_whole() { timing.history_limit } else { i32::MAX },
        refusal,
        repository: repository::referenced(reads, shown.reference(), &namespace, false).await,
        sessions: of_us.iter().map(|s| session_seen(s, now)).collect(),
        conditions,
        last,
        record,
    };
    Ok((seen, now))
}

fn session_seen(session: &Stored<BackupSession>, now: Timestamp) -> SessionSeen {
    let status = session.open().status.unwrap_or_default();
    let ready = status.conditions.iter().find(|c| c.type_ == condition::READY);
    SessionSeen {
        name: session.name_any(),
        created: session.creation_timestamp().map_or(now, |t| t.0),
        ended: status.run.as_ref().and_then(|r| r.completion_time.as_ref()).map(|t| t.0),
        by_hand: session.facts().by_hand,
        phase: status.phase,
        reason: ready.and_then(|c| c.reason.clone()),
        has_retry_due: status::has_retry_due(&status),
    }
}
