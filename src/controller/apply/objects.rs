//! The writes of a plan: finalizers, grants, PVCs, Jobs, scales. Status is written by [`super::status`].
//!
//! Every write is idempotent: the step determines the name of a Job, so
//! that a second create returns AlreadyExists; scaling or deleting twice has
//! the same result as once.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::contract::{Class, Failure};
use crate::controller::apply::writes::Writes;
use crate::controller::apply::{rbac, sessions, workloads};
use crate::controller::observe::errors::plain;
use crate::names::{FINALIZER, FINALIZER_OF_STASH, STASH_REPOSITORY_FINALIZER, annotation, label, reason};
use crate::plan::backup::sessions::NewSession;
use crate::plan::effects::{Event, FinalizerChange, Grant, Hold, Plan, Scale, Stop};
use crate::plan::seen::job_status::{JobSeen, JobState};
use crate::plan::seen::surroundings::Surroundings;
use crate::plan::seen::{job_status, ownership};

/// A plan whose objects are written to the cluster, and the parts that the API server refused.
pub struct Done {
    /// The part of the plan that may be reported now.
    pub plan: Applied,
    /// Input of the next plan.
    pub refused: Refused,
}

/// The rest of a plan once its objects are written to the cluster. Only [`apply`] makes it, so that no status reports
/// a write that was not done.
pub struct Applied {
    status: Option<Value>,
    repository_facts: Option<Value>,
    unreachable: bool,
    shut: bool,
    events: Vec<Event>,
    requeue: Option<Duration>,
    again: bool,
}

impl Applied {
    /// Status to write; `None` leaves the status unchanged.
    pub fn status(&self) -> Option<&Value> {
        self.status.as_ref()
    }

    /// Facts about the Repository, for its status.
    pub fn repository_facts(&self) -> Option<&Value> {
        self.repository_facts.as_ref()
    }

    /// Whether the Repository did not answer.
    pub fn unreachable(&self) -> bool {
        self.unreachable
    }

    /// Whether a session failed in the storage backend, or while connecting to it.
    pub fn shut(&self) -> bool {
        self.shut
    }

    /// Events to publish.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// When to reconcile again, even if nothing changes.
    pub fn requeue(&self) -> Option<Duration> {
        self.requeue
    }

    /// Whether to reconcile again at once.
    pub fn again(&self) -> bool {
        self.again
    }
}

/// The writes of a plan except its finalizer and the rights that it revokes.
struct Effects {
    stop_jobs: Vec<Stop>,
    scales: Vec<Scale>,
    holds: Vec<Hold>,
    claims: Vec<PersistentVolumeClaim>,
    grants: Vec<Grant>,
    jobs: Vec<Job>,
    sessions: Vec<NewSession>,
}

/// What the API server refused. A refusal does not prevent the rest of a plan.
#[derive(Default)]
pub struct Refused {
    /// Jobs, represented as ended Jobs.
    pub jobs: Vec<JobSeen>,
    /// PVCs, by name.
    pub claims: BTreeMap<String, Failure>,
    /// Scales, by [`Scale::key`].
    pub scales: BTreeMap<String, Failure>,
    /// Annotations of workloads, by [`Hold::key`].
    pub holds: BTreeMap<String, Failure>,
    /// Revocation of rights. In this case the finalizer stays, and nothing of the plan may be reported.
    pub revoke: Option<Failure>,
}

impl Refused {
    /// Adds the refusals to the input of the next plan.
    pub fn add_to(mut self, seen: &mut Surroundings) {
        seen.jobs.append(&mut self.jobs);
        seen.refused_claims = self.claims;
        seen.refused_scales = self.scales;
        seen.refused_holds = self.holds;
        seen.refused_revoke = self.revoke;
    }
}

/// Writes a plan's objects to the cluster.
///
/// # Errors
/// The API server could not be reached, or refused a write other than a Job, PVC or scale.
pub async fn apply<K>(writes: &Writes, object: &K, plan: Plan) -> kube::Result<(Done, Option<K>)>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    // Without `..`: a new field of the plan does not compile until it is handled here.
    let Plan {
        revoke,
        finalizer: change,
        claims,
        grants,
        jobs,
        stop_jobs,
        scales,
        holds,
        sessions,
        status,
        repository_facts,
        unreachable,
        shut,
        // Handled by [`super::reserve`].
        listing: _,
        events,
        requeue,
        again,
    } = plan;
    let effects = Effects { stop_jobs, scales, holds, claims, grants, jobs, sessions };
    let namespace = object.namespace().unwrap_or_default();
    let done = async {
        let mut refused_revoke = None;
        for grant in &revoke {
            match rbac::take_back(writes, grant, &namespace).await {
                Ok(()) => {}
                // The rest of the plan does not wait for the revocation: Jobs that the plan stops must stop.
                Err(e) if is_verdict(&e) => {
                    refused_revoke = Some(Failure::new(class(&e), reason::REFUSED_BY_API, plain(&e)));
                }
                Err(e) => return Err(e),
            }
        }
        let fresh = match change {
            Some(FinalizerChange::Add) => Some(finalizer(writes, object, &namespace, FinalizerChange::Add).await?),
            _ => None,
        };
        let refused = self::effects(writes, object, &namespace, &effects).await?;
        Ok((fresh, Refused { revoke: refused_revoke, ..refused }))
    };
    let done: kube::Result<_> = done.await;
    for job in effects.jobs.iter().map(kube::ResourceExt::name_any) {
        match &done {
            Ok((_, refused)) if !refused.jobs.iter().any(|j| j.name == job) => {}
            Ok(_) => writes.slots.refused(&namespace, &job),
            Err(_) => writes.slots.give_back(&namespace, &job),
        }
    }
    let (mut fresh, refused) = done?;
    if change == Some(FinalizerChange::Remove) && refused.revoke.is_none() {
        fresh = Some(finalizer(writes, object, &namespace, FinalizerChange::Remove).await?);
    }
    let plan = Applied { status, repository_facts, unreachable, shut, events, requeue, again };
    Ok((Done { plan, refused }, fresh))
}

async fn effects<K>(writes: &Writes, object: &K, namespace: &str, plan: &Effects) -> kube::Result<Refused>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    let jobs: Api<Job> = Api::namespaced(writes.client.clone(), namespace);
    for Stop { name, uid } in &plan.stop_jobs {
        // A Job that the API server refused does not exist.
        let Some(uid) = uid.clone() else { continue };
        // Foreground deletion: the Job stays until its pods are gone, so that "no Job" means "nothing runs".
        let this = Preconditions { uid: Some(uid), resource_version: None };
        match jobs.delete(name, &DeleteParams::foreground().preconditions(this)).await {
            Ok(_) => info!(namespace, job = name, session = object.name_any(), "stopping a Job"),
            // Another Job that now has this name stays.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(e) => return Err(e),
        }
    }
    let mut refused = Refused::default();
    for change in &plan.scales {
        let (kind, name, replicas) = (&change.kind, &change.name, change.replicas);
        match workloads::scale(writes, namespace, change).await {
            Ok(()) => info!(namespace, kind, name, replicas, session = object.name_any(), "scaling a workload"),
            Err(e) if is_verdict(&e) => {
                warn!(namespace, kind, name, replicas, session = object.name_any(), error = %e, "the API server rejected a scale");
                refused.scales.insert(change.key(), Failure::new(class(&e), reason::REFUSED_BY_API, plain(&e)));
            }
            Err(e) => return Err(e),
        }
    }
    for change in &plan.holds {
        let (kind, name, held) = (&change.kind, &change.name, change.note.is_some());
        match workloads::hold(writes, namespace, change).await {
            Ok(()) => info!(namespace, kind, name, held, session = object.name_any(), "annotated a workload"),
            Err(e) if is_verdict(&e) => {
                warn!(namespace, kind, name, held, session = object.name_any(), error = %e, "the API server rejected an annotation");
                refused.holds.insert(change.key(), Failure::new(class(&e), reason::REFUSED_BY_API, plain(&e)));
            }
            Err(e) => return Err(e),
        }
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(writes.client.clone(), namespace);
    let mut without_claim = BTreeMap::new();
    for claim in &plan.claims {
        let name = claim.name_any();
        match claims.create(&PostParams::default(), claim).await {
            Ok(_) => info!(namespace, claim = name, session = object.name_any(), "created a claim"),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                // The next plan checks the owner of a PVC of a template. A PVC of a step must belong to the session.
                if let Some(step) = claim.annotations().get(annotation::STEP_KEY)
                    && find(&claims, &name).await?.is_some_and(|there| !is_of_the_same(&there, claim))
                {
                    let failure = taken("PersistentVolumeClaim", &name, reason::CLAIM_EXISTS);
                    without_claim.insert(step.clone(), NoClaim::Taken(failure));
                }
            }
            Err(e) if is_verdict(&e) => match claim.annotations().get(annotation::STEP_KEY) {
                Some(step) => drop(without_claim.insert(step.clone(), NoClaim::Refused(e))),
                None => {
                    refused.claims.insert(name, Failure::new(class(&e), reason::REFUSED_BY_API, plain(&e)));
                }
            },
            Err(e) => return Err(e),
        }
    }
    for grant in &plan.grants {
        match rbac::make(writes, grant).await {
            Ok(()) => {}
            Err(e) if is_verdict(&e) => {
                let what =
                    format!("the Role and RoleBinding {}/{}, without which", grant.status.namespace, grant.status.name);
                refused.jobs.extend(plan.jobs.iter().map(|j| refusal(writes, j, refused_by_api(j, &e, &what), true)));
                return Ok(refused);
            }
            Err(e) => return Err(e),
        }
    }
    for job in &plan.jobs {
        let step = job.labels().get(label::STEP).cloned().unwrap_or_default();
        if let Some(why) = job.annotations().get(annotation::STEP_KEY).and_then(|key| without_claim.get(key)) {
            let failure = match why {
                NoClaim::Taken(failure) => failure.clone(),
                NoClaim::Refused(e) => refused_by_api(job, e, "the PVC of interimVolumeTemplate, without which"),
            };
            refused.jobs.push(refusal(writes, job, failure, true));
            continue;
        }
        writes.slots.asked(namespace, &job.name_any());
        let made = {
            let _making = writes.precedence.making();
            jobs.create(&PostParams::default(), job).await
        };
        if made.is_ok() {
            writes.slots.made(namespace, &job.name_any());
        }
        match made {
            Ok(made) => {
                writes.counters.job_created(&step);
                writes.written.note_job(&object.uid().unwrap_or_default(), &made);
                let run = job.labels().get(label::SESSION_UID).cloned().unwrap_or_default();
                info!(namespace, job = made.name_any(), session = object.name_any(), run, step, "created a Job");
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let name = job.name_any();
                let there = find(&jobs, &name).await?;
                if there.is_some_and(|there| ownership::of_job(&there) != ownership::of_job(job)) {
                    let failure = taken("Job", &name, reason::JOB_EXISTS);
                    refused.jobs.push(refusal(writes, job, failure, true));
                }
            }
            Err(e) if is_verdict(&e) => {
                refused.jobs.push(refusal(writes, job, refused_by_api(job, &e, ""), has_refused(&e)));
            }
            Err(e) => return Err(e),
        }
    }
    for new in &plan.sessions {
        sessions::create(writes, new).await?;
    }
    Ok(refused)
}

/// Why a step has no PVC.
enum NoClaim {
    /// A PVC of another owner has its name.
    Taken(Failure),
    /// The API server refused the PVC.
    Refused(kube::Error),
}

/// Whether the API server has judged a request. A busy server or a conflict is no verdict on the request.
fn is_verdict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if ![408, 409, 429, 503, 504].contains(&status.code))
}

/// Whether a verdict means that nothing was stored. A server that fails may have stored the object: a timeout of etcd
/// is a 500, and so is a webhook that does not answer.
fn has_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code))
}

/// A refused Job, represented as an ended Job: its failure is handled like any other.
fn refusal(writes: &Writes, job: &Job, failure: Failure, is_unmade: bool) -> JobSeen {
    JobSeen {
        uid: None,
        starts: false,
        is_unmade,
        state: JobState::Lost(failure),
        ..job_status::see(job, &[], writes.now())
    }
}

/// The API server's refusal of a Job, or of `what`, which the Job needs to run.
fn refused_by_api(job: &Job, error: &kube::Error, what: &str) -> Failure {
    let name = job.name_any();
    let what = if what.is_empty() { format!("Job {name}") } else { format!("{what} Job {name} cannot run") };
    let text = format!(
        "The API server rejected {what}: {} Check runtimeSettings and the policies of the namespace.",
        plain(error)
    );
    Failure::new(class(error), reason::REFUSED_BY_API, text)
}

/// The failure when an object of another owner has the name of an object that a step makes.
fn taken(kind: &str, name: &str, reason: &str) -> Failure {
    let text = format!(
        "{kind} {name} exists and was not made by this session, which needs an object of that name. Delete it, and create another session."
    );
    Failure::new(Class::Invalid, reason, text)
}

/// Whether the existing object has the same controller as the object to be made.
fn is_of_the_same(there: &impl kube::ResourceExt, made: &impl kube::ResourceExt) -> bool {
    let controller = |o: &OwnerReference| (o.controller == Some(true)).then(|| o.uid.clone());
    let of = |all: &[OwnerReference]| all.iter().find_map(controller);
    of(there.owner_references()) == of(made.owner_references())
}

/// The object of a name, found with permission to list only.
async fn find<K>(api: &Api<K>, name: &str) -> kube::Result<Option<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    Ok(api.list(&named).await?.items.pop())
}

/// A quota or a namespace's policy may change while the session waits; a malformed object stays malformed.
fn class(error: &kube::Error) -> Class {
    match error {
        kube::Error::Api(status) if status.is_invalid() || status.code == 400 => Class::Invalid,
        _ => Class::Transient,
    }
}

/// Adds or removes the operator's finalizer. On an object that is being deleted, also removes the finalizer that Stash
/// left.
///
/// # Errors
/// The API server could not be reached, or the object has changed since it was read (a conflict).
pub async fn finalizer<K>(writes: &Writes, object: &K, namespace: &str, change: FinalizerChange) -> kube::Result<K>
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
    // The resourceVersion makes the patch a compare-and-swap: other controllers also write the list of finalizers.
    let patch = json!({ "metadata": { "finalizers": all, "resourceVersion": object.resource_version() } });
    let api: Api<K> = Api::namespaced(writes.client.clone(), namespace);
    let written = api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    writes.written.note(&written);
    Ok(written)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_server_that_fails_has_judged_and_may_have_stored() {
        for (code, verdict, refused) in [
            (400, true, true),
            (403, true, true),
            (422, true, true),
            (500, true, false),
            (429, false, true),
            (503, false, false),
            (504, false, false),
        ] {
            let error = kube::Error::Api(Status { code, ..Status::default() }.boxed());
            assert_eq!((is_verdict(&error), has_refused(&error)), (verdict, refused), "{code}");
        }
    }
}
