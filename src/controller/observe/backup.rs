//! Reads of the reconcile of a backup: its invoker, other invokers of the same place, its targets and its Jobs.
//!
//! The order of reads matters where a comment says so: a restore first marks a workload, and is over after that.

use std::collections::BTreeMap;

use futures::future::join_all;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt as _};

use crate::api::backup_batch::BackupMember;
use crate::api::backup_session::{BackupPhase, BackupSessionStatus, InvokerRef};
use crate::api::common::{InvokerPhase, OnFailure, RepositoryRef};
use crate::api::{BackupBatch, BackupConfiguration, BackupSession};
use crate::controller::cache::consumers::Consumer;
use crate::controller::cache::index::Indexed;
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::observe::errors::Error;
use crate::controller::observe::reads::{Reader, Reads};
use crate::controller::observe::{conflicts, jobs, namespace, repository, targets, usage, validity};
use crate::names::{condition, reason};
use crate::plan::backup::run::{BackupRun, Invoker, Neighbour};
use crate::plan::backup::status;
use crate::plan::repository::preconditions;
use crate::plan::repository::slots::queue::Room;
use crate::plan::run::hosts;
use crate::plan::run::limits::is_sequential;
use crate::plan::seen::identity::Identity;
use crate::plan::seen::job_status::JobSeen;
use crate::plan::seen::surroundings::{Rival, Surroundings, Writer};
use crate::plan::seen::target::TargetSeen;
use crate::plan::seen::{Refusal, Seen};
use crate::plan::setup::Setup;

/// The session with the settings of its invoker, and why nothing is done for that invoker.
///
/// # Errors
/// The API server could not be reached, or the object could not be validated yet.
pub async fn run(
    reads: &Reads,
    setup: &Setup,
    stored: &Stored<BackupSession>,
    object: &BackupSession,
) -> Result<(BackupRun, Option<Refusal>), Error> {
    let id = Identity::of(object);
    let reference = object.spec.invoker.clone().unwrap_or_default();
    let own = validity::judge(&reads.stores.verdicts, stored).await?;
    // A session that is not valid names no invoker that could be looked up.
    let (invoker, theirs) = match own {
        None => invoker(reads, setup, &id.namespace, &reference, object.status.as_ref()).await?,
        Some(_) => (None, None),
    };
    let same = |s: &Stored<BackupSession>| {
        let i = s.facts().invoker.as_ref();
        i.is_some_and(|i| i.kind == reference.kind && i.name == reference.name)
    };
    // Of two sessions that were created at the same time, the later by name steps back.
    let before_us = |s: &Stored<BackupSession>| {
        (s.creation_timestamp(), s.name_any()) < (object.creation_timestamp(), object.name_any())
    };
    let running = reads.stores.consumers.backups.store.state_filter(|s| {
        let started = match s.facts().backup {
            Some(BackupPhase::Running | BackupPhase::Pending) => true,
            None => before_us(s),
            Some(_) => false,
        };
        started && s.namespace() == Some(id.namespace.clone()) && s.name_any() != id.name && same(s)
    });
    let others = invoker.as_ref().map(|i| neighbours(reads, i)).unwrap_or_default();
    let run = BackupRun {
        invoker,
        invoker_label: format!("{} {}/{}", reference.kind, id.namespace, reference.name),
        running: running.first().map(|s| s.name_any()),
        retry_left: object.spec.retry_left,
        canceled: object.spec.cancel == Some(true) || object.status.as_ref().is_some_and(status::is_being_canceled),
        others,
        refusal: own,
        state: object.status.clone().unwrap_or_default(),
        id,
    };
    Ok((run, theirs))
}

async fn invoker(
    reads: &Reads,
    setup: &Setup,
    namespace: &str,
    reference: &InvokerRef,
    state: Option<&BackupSessionStatus>,
) -> Result<(Option<Invoker>, Option<Refusal>), Error> {
    let (consumers, verdicts) = (&reads.stores.consumers, &reads.stores.verdicts);
    let is_over = status::is_over(state.and_then(|s| s.phase));
    let begun = state.and_then(|s| s.run.as_ref()?.spec_hash.as_deref());
    let is_known = |invoker: &Invoker| is_over || begun.is_some_and(|hash| hash == invoker.hash());
    match reference.kind.as_str() {
        "BackupConfiguration" => {
            let known = |found: &Stored<BackupConfiguration>| is_known(&of_configuration(found.open()));
            let found = certain(reads, &consumers.configurations, namespace, &reference.name, known).await?;
            let Some(found) = found else { return Ok((None, None)) };
            let refusal =
                usage::refused(reads, &found, validity::judge(verdicts, &found).await?, setup.max_timeout).await?;
            Ok((Some(of_configuration(found.open())), refusal))
        }
        "BackupBatch" => {
            let known = |found: &Stored<BackupBatch>| is_known(&of_batch(found.open()));
            let found = certain(reads, &consumers.batches, namespace, &reference.name, known).await?;
            let Some(found) = found else { return Ok((None, None)) };
            let refusal =
                usage::refused(reads, &found, validity::judge(verdicts, &found).await?, setup.max_timeout).await?;
            Ok((Some(of_batch(found.open())), refusal))
        }
        _ => Ok((None, None)),
    }
}

/// An invoker from a store, if it is what the session has begun with. Otherwise the API server is asked: the watches of
/// two kinds lag differently, and a session that is created after a change of its invoker must not begin without it.
async fn certain<K>(
    reads: &Reads,
    store: &Indexed<Stored<K>>,
    namespace: &str,
    name: &str,
    is_known: impl Fn(&Stored<K>) -> bool,
) -> kube::Result<Option<Stored<K>>>
where
    K: UserKind + Resource<Scope = NamespaceResourceScope>,
{
    match store.get(&ObjectRef::new(name).within(namespace)) {
        // The rest of an object that is not kept whole is over a limit, also in the answer of the API server.
        Some(found) if !found.is_whole() || is_known(&found) => Ok(Some(found.as_ref().clone())),
        _ => Api::<Stored<K>>::namespaced(reads.client.clone(), namespace).get_opt(name).await,
    }
}

/// Other invokers that back up into the same place. An invoker of another namespace counts only if it may use the
/// Repository: an invoker that may not use it must not block invokers that may.
fn neighbours(reads: &Reads, invoker: &Invoker) -> Vec<Neighbour> {
    let place = place(reads, &invoker.id.namespace, invoker.repository.as_ref());
    let consumers = &reads.stores.consumers;
    let mut found = vec![];
    for c in consumers.configurations.store.state().iter().filter(|c| is_beside(reads, invoker, place.as_ref(), c)) {
        let targets = c.outline().spec.target.iter().map(hosts::named).collect();
        found.push(Neighbour { name: name(c.as_ref()), targets });
    }
    for b in consumers.batches.store.state().iter().filter(|b| is_beside(reads, invoker, place.as_ref(), b)) {
        let targets = b.outline().spec.members.iter().filter_map(|m| m.target.as_ref()).map(hosts::named).collect();
        found.push(Neighbour { name: name(b.as_ref()), targets });
    }
    found
}

/// Whether another invoker backs up into the place of this invoker.
fn is_beside<K: UserKind>(reads: &Reads, invoker: &Invoker, own: Option<&String>, other: &Stored<K>) -> bool {
    let facts = other.facts();
    let is_other = other.uid().as_ref() != Some(&invoker.id.uid);
    let is_near = other.namespace().as_ref() == Some(&invoker.id.namespace);
    // Its target may be missing, so that the invoker is not Ready; its backups exist all the same.
    let may_use = facts.invoker_phase != Some(InvokerPhase::Invalid)
        && other.says(condition::REPOSITORY_FOUND, reason::REPOSITORY_AVAILABLE);
    let is_in_use = facts.invoker_phase == Some(InvokerPhase::Ready) || may_use;
    let counts = is_other && (is_near || is_in_use) && !is_refused(other);
    counts && facts.repository.as_ref().map(|(home, name)| place_of(reads, home, name)).as_ref() == own
}

fn name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{} {}/{}", K::kind(&()), object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether another invoker has the Repository, so that this invoker does not back up into it.
fn is_refused<K: Consumer>(invoker: &K) -> bool {
    invoker.says(condition::STALLED, reason::REPOSITORY_TAKEN)
}

/// The place that a reference names: the namespace of the Repository, and its URL or, for a volume, its name. Two
/// namespaces that reach one bucket are independent: writes of one namespace must not block the other.
fn place(reads: &Reads, namespace: &str, reference: Option<&RepositoryRef>) -> Option<String> {
    let reference = reference?;
    Some(place_of(reads, preconditions::home(reference, namespace), &reference.name))
}

fn place_of(reads: &Reads, home: &str, name: &str) -> String {
    let url = reads.stores.repositories.get(&ObjectRef::new(name).within(home)).and_then(|r| r.facts().url.clone());
    format!("{home} {}", url.as_deref().unwrap_or(name))
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

/// Claims of targets that a restore has started on. Between two attempts the restore has no Job, and the data of the
/// targets is half restored.
async fn between(reads: Reader<'_>, begun: Vec<Rival>) -> Vec<Writer> {
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

/// Observed state for a backup. The caller knows how much room there is for its Jobs, and what the API server has
/// refused. Here the room is the maximum, and nothing is refused.
///
/// # Errors
/// The API server could not be reached.
pub async fn surroundings(
    reads: &Reads,
    setup: &Setup,
    run: &BackupRun,
    refusal: Option<Refusal>,
) -> kube::Result<Surroundings> {
    let namespace = &run.id.namespace;
    let members = run.invoker.as_ref().map(|i| i.members.as_slice()).unwrap_or_default();
    // Restores are read before the targets: a restore that leaves data half restored first marks the workload, and is
    // over after that. In the other order, the targets could be read before the mark, and the restores after the end.
    let named = members.iter().filter_map(|m| m.target.as_ref()?.ref_.as_ref());
    let (rivals, begun) = (conflicts::rivals(&reads.stores, &run.id, named), conflicts::begun(&reads.stores, &run.id));
    let mut writers = conflicts::writers(&reads.stores, &run.id, reads.now());
    writers.extend(between(reads.cached(namespace), begun).await);
    let references = members.iter().map(|m| m.target.as_ref().and_then(|t| t.ref_.as_ref()));
    // Hosts are counted by replicas, which may just have been changed.
    let targets = join_all(references.map(|r| targets::target(reads.live(namespace), None, r)));
    let reference = run.invoker.as_ref().and_then(|i| i.repository.as_ref());
    let repository = repository::referenced(reads, reference, namespace, false);
    let pod_security = namespace::pod_security(reads, namespace);
    let (targets, repository, pod_security) = futures::join!(targets, repository, pod_security);
    let mut jobs = jobs::cached(reads, &reads.stores.of_backup_sessions, &run.id).await?;
    let has_rights = run.state.run.as_ref().is_some_and(|r| !r.grants.is_empty());
    if has_rights && !jobs.iter().any(JobSeen::is_active) {
        // Watches lag behind. Before rights are revoked because no Job needs them, the API server must confirm that.
        jobs = jobs::live(reads, &run.id).await?;
    }
    let progress = reads.progress.of(&jobs).await;
    Ok(Surroundings {
        refusal,
        source: Seen::Missing,
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
