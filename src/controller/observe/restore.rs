//! Reads of the reconcile of a restore: whether it is let in, its targets, its Jobs, and members that it takes from a
//! BackupBatch.
//!
//! Watches lag behind. Before data is overwritten or rights are revoked, the API server itself is asked.

use std::collections::BTreeMap;

use futures::future::join_all;

use crate::api::RestoreBatch;
use crate::api::common::TargetRef;
use crate::api::restore_batch::{Adopted, RestoreBatchSpec};
use crate::controller::cache::children::Children;
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::observe::errors::{Error, plain};
use crate::controller::observe::reads::{Reader, Reads};
use crate::controller::observe::{code_rights, conflicts, jobs, namespace, repository, targets, usage, validity};
use crate::plan::repository::preconditions::NoGround;
use crate::plan::repository::slots::queue::Room;
use crate::plan::restore::from_backup_batch;
use crate::plan::restore::run::RestoreRun;
use crate::plan::run::hosts::TargetKind;
use crate::plan::seen::job_status::{JobSeen, JobState};
use crate::plan::seen::surroundings::Surroundings;
use crate::plan::seen::target::TargetSeen;
use crate::plan::seen::{Refusal, Seen};
use crate::plan::setup::Setup;

/// Why nothing is done for a restore. `whole` is the kept part of the object, in the type of its kind.
///
/// # Errors
/// The restore could not be validated yet, or the rights of its author could not be read.
pub async fn refusal<K: UserKind>(
    reads: &Reads,
    object: &Stored<K>,
    whole: &K,
    is_let_in: bool,
) -> Result<Option<Refusal>, Error> {
    // Only an object that is not whole has this refusal: its spec looks changed, but is not.
    if is_let_in && !object.is_of_another_version() {
        return Ok(object.refusal());
    }
    match validity::judge(&reads.stores.verdicts, object).await? {
        None => Ok(code_rights::refusal(reads, whole).await?),
        refusal => Ok(refusal),
    }
}

/// Observed state for a restore. The caller knows how much room there is for its Jobs, and what the API server has
/// refused. Here the room is the maximum, and nothing is refused.
///
/// # Errors
/// The API server could not be reached, or the object could not be validated yet.
pub async fn surroundings(
    reads: &Reads,
    setup: &Setup,
    run: &RestoreRun,
    refusal: Option<Refusal>,
    children: &Children,
) -> Result<Surroundings, Error> {
    let namespace = &run.id.namespace;
    // Watches lag behind. A restore that is being torn down must not use them: a Job that was created a moment ago, and
    // is not seen yet, would continue to write after the restore has reported that all Jobs have stopped.
    let watched = if run.is_leaving() { None } else { Some(jobs::cached(reads, children, &run.id).await?) };
    // The same applies when rights are revoked because no Job needs them.
    let needed = |jobs: &Vec<JobSeen>| run.state.run.grants.is_empty() || jobs.iter().any(JobSeen::is_active);
    let jobs = match watched.filter(needed) {
        Some(jobs) => jobs,
        None => jobs::live(reads, &run.id).await?,
    };
    let now = touches_workloads(run, &jobs);
    let reader = if now { reads.live(namespace) } else { reads.cached(namespace) };
    let targets = targets(reader, reads.cached(namespace), run);
    let repository = repository::referenced(reads, run.repository.as_ref(), namespace, now);
    let progress = reads.progress.of(&jobs);
    let source = source(reads, run, refusal);
    let pod_security = namespace::pod_security(reads, namespace);
    let (targets, repository, progress, source, pod_security) =
        futures::join!(targets, repository, progress, source, pod_security);
    let (source, refusal) = source?;
    let rivals = conflicts::rivals(&reads.stores, &run.id, run.targets().iter().flatten());
    let mut writers = conflicts::writers(&reads.stores, &run.id, reads.now());
    writers.extend(conflicts::readers(&reads.stores, &run.id, reads.now()));
    Ok(Surroundings {
        refusal,
        source,
        repository,
        targets,
        pod_security: pod_security?,
        job_defaults: namespace::job_defaults(reads, &setup.job_defaults, namespace).await?,
        jobs,
        room: Room { free: setup.jobs_per_repository, ahead: 0 },
        rooms: BTreeMap::new(),
        rivals,
        writers,
        refused_claims: BTreeMap::new(),
        refused_scales: BTreeMap::new(),
        refused_holds: BTreeMap::new(),
        refused_revoke: None,
        progress,
    })
}

/// Whether the restore scales workloads and writes under them, or is about to: its snapshots are known. Watches lag
/// behind, and a workload that was scaled a moment ago, by the operator or another client, must be seen as it is. A
/// workload is also not scaled for a restore that cannot continue because its Secret is gone.
fn touches_workloads(run: &RestoreRun, jobs: &[JobSeen]) -> bool {
    let begun =
        run.state.members.iter().any(|m| m.quiesce.is_some() || m.stats.iter().any(|h| !h.snapshots.is_empty()));
    let answered = jobs.iter().any(|j| matches!(j.state, JobState::Done(_)));
    (begun || answered) && run.targets().iter().any(|t| TargetKind::of(t.as_ref()).is_workload())
}

async fn targets(reads: Reader<'_>, beside: Reader<'_>, run: &RestoreRun) -> Vec<TargetSeen> {
    let references = run.targets();
    join_all(references.iter().enumerate().map(|(i, r)| target(reads, beside, run, i, r.as_ref()))).await
}

/// `beside` reads other pods that use the claims, and autoscalers: as recent as the watch has them.
async fn target(
    reads: Reader<'_>,
    beside: Reader<'_>,
    run: &RestoreRun,
    index: usize,
    reference: Option<&TargetRef>,
) -> TargetSeen {
    let spec = run.members.get(index).and_then(|m| m.target.as_ref());
    if let Some(spec) = spec.filter(|t| !t.volume_claim_templates.is_empty()) {
        // Claims that were created a moment ago must be seen.
        return targets::made_claims(reads.at_once(), &run.id, spec).await;
    }
    let mut seen = targets::target(reads, Some(beside), reference).await;
    let state = run.state.members.get(index);
    let uncounted = state.is_none_or(|m| m.stats.is_empty());
    if uncounted && TargetKind::of(reference).is_workload() && matches!(seen, TargetSeen::Found(_)) {
        // The hosts of a workload are counted once, and not by replicas that have just been changed.
        seen = targets::target(reads.at_once(), Some(beside), reference).await;
    }
    let quiesced = state.is_some_and(|m| m.quiesce.is_some());
    if let TargetSeen::Found(target) = &mut seen
        && target.is_scalable()
        && !quiesced
    {
        // Only a warning depends on the autoscalers: without the right to list them, there is no warning.
        target.autoscalers = beside.scalers(&target.kind, &target.name).await.unwrap_or_default();
    }
    seen
}

/// Members that are still to be taken from a BackupBatch, validated as if they were in the RestoreBatch itself.
async fn source(
    reads: &Reads,
    run: &RestoreRun,
    refusal: Option<Refusal>,
) -> Result<(Seen<Adopted>, Option<Refusal>), Error> {
    let Some(reference) = run.untaken().filter(|_| refusal.is_none()) else {
        return Ok((Seen::Missing, refusal));
    };
    let home = from_backup_batch::home(reference, &run.id.namespace);
    if let Some(why) = reads.stores.scope.outside(home) {
        return Ok((Seen::Unknown(why), None));
    }
    let batch = match reads.current(&reads.stores.consumers.batches, home, &reference.name).await {
        Ok(Some(batch)) if batch.is_whole() => Some(batch.open()),
        Ok(_) => None,
        Err(e) => return Ok((Seen::Unknown(plain(&e)), None)),
    };
    // Before any part of the BackupBatch is used: messages and status would show it.
    let verdict = match batch.as_ref().and_then(|b| from_backup_batch::repository(b, reference, &run.id.namespace)) {
        Some(repository) => usage::verdict(reads, &repository, &run.id.namespace).await,
        None => None,
    };
    match from_backup_batch::consent(batch.as_ref(), reference, &run.id.namespace, verdict) {
        Ok(()) => {}
        Err(NoGround::Waiting(why)) => return Ok((Seen::Unknown(why), None)),
        Err(NoGround::Denied(e) | NoGround::Refused(e)) => {
            return Ok((Seen::Missing, Some(Refusal { reason: e.reason, message: e.message })));
        }
    }
    let Some(batch) = batch else { return Ok((Seen::Missing, None)) };
    // The operator does nothing for the author of the BackupBatch that the author may not do.
    if let Some(e) = code_rights::refusal(reads, &batch).await? {
        let message =
            format!("{} is not valid: {}", from_backup_batch::display(reference, &run.id.namespace), e.message);
        return Ok((Seen::Missing, Some(Refusal { message, ..e })));
    }
    let adopted = match from_backup_batch::adopt(&batch, reference, &run.id.namespace) {
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
        None => validity::judge_part(&reads.stores.verdicts, &run.id.uid, &version, written.open()).await?,
        refusal => refusal,
    };
    let spec = written.open().spec;
    let refusal = refusal.map(|r| Refusal {
        message: format!("{}, as a restore: {}", from_backup_batch::display(reference, &run.id.namespace), r.message),
        ..r
    });
    Ok((Seen::Found(Adopted { members: spec.members, ..adopted }), refusal))
}
