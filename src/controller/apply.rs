//! The writes of a decision: finalizers, grants, claims, Jobs, scales. Status is `report`'s.
//!
//! Every write is safe to repeat: Jobs have names that their step fixes, so
//! that a second create is AlreadyExists; scaling and deleting to the same end
//! twice is the same as once.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ReplicationController};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::context::Context;
use super::grants;
use super::observe::plain;
use super::openshift::DeploymentConfig;
use super::sessions;
use crate::names::{FINALIZER, FINALIZER_OF_STASH, STASH_REPOSITORY_FINALIZER, annotation, label, reason};
use crate::plan::contract::{Class, Failure};
use crate::plan::grants::Grant;
use crate::plan::jobs::{JobSeen, JobState};
use crate::plan::sessions::NewSession;
use crate::plan::{Event, FinalizerChange, Plan, Scale};

/// A plan whose objects reached the cluster, and what the API server refused of it.
pub struct Done {
    /// What may be said about it now.
    pub plan: Applied,
    /// For the next look.
    pub refused: Refused,
}

/// What is left of a plan once its objects have reached the cluster. Only [`apply`] makes one, so that no status is
/// written of what was not done.
pub struct Applied {
    status: Option<Value>,
    repository_facts: Option<Value>,
    unreachable: Option<String>,
    events: Vec<Event>,
    requeue: Option<Duration>,
    again: bool,
}

impl Applied {
    /// Status to write; `None` leaves it as it is.
    pub fn status(&self) -> Option<&Value> {
        self.status.as_ref()
    }

    /// Facts about the Repository, for its status.
    pub fn repository_facts(&self) -> Option<&Value> {
        self.repository_facts.as_ref()
    }

    /// The Repository did not answer; what was said.
    pub fn unreachable(&self) -> Option<&str> {
        self.unreachable.as_deref()
    }

    /// Events to publish.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// When to look again, even if nothing changes.
    pub fn requeue(&self) -> Option<Duration> {
        self.requeue
    }

    /// Whether to look again at once.
    pub fn again(&self) -> bool {
        self.again
    }
}

/// What a plan does besides its finalizer and the rights it takes back.
struct Effects {
    stop_jobs: Vec<String>,
    scales: Vec<Scale>,
    claims: Vec<PersistentVolumeClaim>,
    grants: Vec<Grant>,
    jobs: Vec<Job>,
    sessions: Vec<NewSession>,
}

/// What the API server refused. Nothing of it keeps the rest of a plan from being done.
#[derive(Default)]
pub struct Refused {
    /// Jobs, as ended ones.
    pub jobs: Vec<JobSeen>,
    /// Claims, by name.
    pub claims: BTreeMap<String, Failure>,
    /// Scales, by [`Scale::key`].
    pub scales: BTreeMap<String, Failure>,
}

/// Brings a plan's objects to the cluster.
///
/// # Errors
/// The API server could not be reached, or refused what is no Job, claim or scale.
pub async fn apply<K>(ctx: &Context, object: &K, plan: Plan) -> kube::Result<(Done, Option<K>)>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    // Without `..`: a plan cannot ask for what nobody does.
    let Plan {
        revoke,
        finalizer: change,
        claims,
        grants,
        jobs,
        stop_jobs,
        scales,
        sessions,
        status,
        repository_facts,
        unreachable,
        events,
        requeue,
        again,
    } = plan;
    let effects = Effects { stop_jobs, scales, claims, grants, jobs, sessions };
    let namespace = object.namespace().unwrap_or_default();
    let done = async {
        for grant in &revoke {
            grants::take_back(ctx, grant, &namespace).await?;
        }
        let fresh = match change {
            Some(FinalizerChange::Add) => Some(finalizer(ctx, object, &namespace, FinalizerChange::Add).await?),
            _ => None,
        };
        Ok((fresh, self::effects(ctx, object, &namespace, &effects).await?))
    };
    let done: kube::Result<_> = done.await;
    for job in effects.jobs.iter().map(kube::ResourceExt::name_any) {
        match &done {
            Ok((_, refused)) if !refused.jobs.iter().any(|j| j.name == job) => {}
            Ok(_) => ctx.queues.refused(&namespace, &job),
            Err(_) => ctx.queues.give_back(&namespace, &job),
        }
    }
    let (mut fresh, refused) = done?;
    if change == Some(FinalizerChange::Remove) {
        fresh = Some(finalizer(ctx, object, &namespace, FinalizerChange::Remove).await?);
    }
    let plan = Applied { status, repository_facts, unreachable, events, requeue, again };
    Ok((Done { plan, refused }, fresh))
}

async fn effects<K>(ctx: &Context, object: &K, namespace: &str, plan: &Effects) -> kube::Result<Refused>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), namespace);
    for name in &plan.stop_jobs {
        // In the foreground: the Job stays until its pods are gone, so that "no Job" means "nothing runs".
        match jobs.delete(name, &DeleteParams::foreground()).await {
            Ok(_) => info!(namespace, job = name, session = object.name_any(), "stopping a Job"),
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    let mut refused = Refused::default();
    for change in &plan.scales {
        let (kind, name, replicas) = (&change.kind, &change.name, change.replicas);
        match scale(ctx, namespace, change).await {
            Ok(()) => info!(namespace, kind, name, replicas, session = object.name_any(), "scaling a workload"),
            Err(e) if is_verdict(&e) => {
                warn!(namespace, kind, name, replicas, session = object.name_any(), error = %e, "a scale was refused");
                refused.scales.insert(change.key(), Failure::new(class(&e), reason::REFUSED_BY_API, plain(&e)));
            }
            Err(e) => return Err(e),
        }
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), namespace);
    let mut without_claim = BTreeMap::new();
    for claim in &plan.claims {
        let name = claim.name_any();
        match claims.create(&PostParams::default(), claim).await {
            Ok(_) => info!(namespace, claim = name, session = object.name_any(), "created a claim"),
            // Whose it is, the next look judges.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(e) if is_verdict(&e) => match claim.annotations().get(annotation::STEP_KEY) {
                Some(step) => drop(without_claim.insert(step.clone(), e)),
                None => {
                    refused.claims.insert(name, Failure::new(class(&e), reason::REFUSED_BY_API, plain(&e)));
                }
            },
            Err(e) => return Err(e),
        }
    }
    for grant in &plan.grants {
        match grants::make(ctx, grant).await {
            Ok(()) => {}
            Err(e) if is_verdict(&e) => {
                let what = format!("the right {}/{}, without which", grant.status.namespace, grant.status.name);
                refused.jobs.extend(plan.jobs.iter().map(|j| refusal(ctx, j, &e, &what)));
                return Ok(refused);
            }
            Err(e) => return Err(e),
        }
    }
    for job in &plan.jobs {
        let step = job.labels().get(label::STEP).cloned().unwrap_or_default();
        if let Some(e) = job.annotations().get(annotation::STEP_KEY).and_then(|key| without_claim.get(key)) {
            refused.jobs.push(refusal(ctx, job, e, "the claim of interimVolumeTemplate, without which"));
            continue;
        }
        ctx.queues.asked(namespace, &job.name_any());
        let made = {
            let _making = ctx.precedence.making();
            jobs.create(&PostParams::default(), job).await
        };
        if made.is_ok() {
            ctx.queues.made(namespace, &job.name_any());
        }
        match made {
            Ok(made) => {
                ctx.metrics.job_created(&step);
                ctx.written.note_job(&object.uid().unwrap_or_default(), &made);
                let run = job.labels().get(label::SESSION_UID).cloned().unwrap_or_default();
                info!(namespace, job = made.name_any(), session = object.name_any(), run, step, "created a Job");
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(e) if is_verdict(&e) => refused.jobs.push(refusal(ctx, job, &e, "")),
            Err(e) => return Err(e),
        }
    }
    for new in &plan.sessions {
        sessions::create(ctx, new).await?;
    }
    Ok(refused)
}

/// Whether the API server has judged a request; a server that is busy, or a conflict, says nothing about it.
fn is_verdict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if ![408, 409, 429, 503, 504].contains(&status.code))
}

/// A refused Job as one that ended: its failure goes the way of any other.
fn refusal(ctx: &Context, job: &Job, error: &kube::Error, what: &str) -> JobSeen {
    let class = class(error);
    let name = job.name_any();
    let note = |key: &str| job.annotations().get(key).cloned().unwrap_or_default();
    JobSeen {
        key: note(annotation::STEP_KEY),
        attempt: note(annotation::ATTEMPT).parse().unwrap_or(1),
        deleting: false,
        given_up: false,
        starts: false,
        is_stuck: false,
        address: None,
        state: JobState::Lost(Failure::new(
            class,
            reason::REFUSED_BY_API,
            format!(
                "The API server refused {}: {} Look at runtimeSettings and the namespace's policies.",
                if what.is_empty() { format!("Job {name}") } else { format!("{what} Job {name} cannot run") },
                plain(error)
            ),
        )),
        task: crate::plan::jobs::see(job, &[], ctx.now()).task,
        writes: vec![],
        name,
    }
}

/// A quota or a namespace's policy may change while we wait; a malformed object stays malformed.
fn class(error: &kube::Error) -> Class {
    match error {
        kube::Error::Api(status) if status.is_invalid() || status.code == 400 => Class::Invalid,
        _ => Class::Transient,
    }
}

/// Puts our finalizer on, or takes it off; off an object that is being deleted goes also the one that Stash left.
///
/// # Errors
/// The API server could not be reached, or the object has changed since it was looked at (a conflict).
pub async fn finalizer<K>(ctx: &Context, object: &K, namespace: &str, change: FinalizerChange) -> kube::Result<K>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut all = object.finalizers().to_vec();
    let deleting = object.meta().deletion_timestamp.is_some();
    let left_by_stash = |f: &str| deleting && [FINALIZER_OF_STASH, STASH_REPOSITORY_FINALIZER].contains(&f);
    all.retain(|f| f != FINALIZER && !left_by_stash(f));
    if change == FinalizerChange::Add {
        all.push(FINALIZER.to_owned());
    }
    // The resourceVersion makes it a compare-and-swap: finalizers are one list that others write too.
    let patch = json!({ "metadata": { "finalizers": all, "resourceVersion": object.resource_version() } });
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    let written = api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    ctx.written.note(&written);
    Ok(written)
}

async fn scale(ctx: &Context, namespace: &str, change: &Scale) -> kube::Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "replicas": change.replicas } }));
    let params = PatchParams::default();
    let client = ctx.client.clone();
    let result = match change.kind.as_str() {
        "StatefulSet" => {
            Api::<StatefulSet>::namespaced(client, namespace).patch_scale(&change.name, &params, &patch).await
        }
        "ReplicaSet" => {
            Api::<ReplicaSet>::namespaced(client, namespace).patch_scale(&change.name, &params, &patch).await
        }
        "ReplicationController" => {
            Api::<ReplicationController>::namespaced(client, namespace).patch_scale(&change.name, &params, &patch).await
        }
        "DeploymentConfig" => {
            Api::<DeploymentConfig>::namespaced(client, namespace).patch_scale(&change.name, &params, &patch).await
        }
        _ => Api::<Deployment>::namespaced(client, namespace).patch_scale(&change.name, &params, &patch).await,
    };
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}
