//! The reads of a decision: all that `plan` may depend on, in one place; targets are
//! in [`super::targets`]. What is read is watched, so that a look costs the API server
//! nothing; of a Secret only the metadata is read, to know that it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};

use super::context::{Children, Context};
use super::pages;
use super::users::{self, restores};
use crate::api::common::{RepositoryRef, TargetRef};
use crate::api::runtime::RuntimeSettings;
use crate::names::{annotation, label};
use crate::plan::jobs::{self, JobSeen};
use crate::plan::kept::{Keep, Kept};
use crate::plan::objects::pod_of;
use crate::plan::observed::{Refusal, RepositorySeen, Rival, Seen, Silence, Writer};
use crate::plan::pod_security::{ENFORCE_LABEL, Level};
use crate::plan::repository::opened;
use crate::plan::restore::rivals;
use crate::plan::run::Identity;
use crate::plan::usage::{self, Verdict};
use crate::plan::{ground, job_defaults, ownership};

/// The Repository of a reference, and whether its Secret is there: as was heard lately, or `now`.
pub async fn repository(
    ctx: &Context,
    reference: Option<&RepositoryRef>,
    namespace: &str,
    now: bool,
) -> Seen<RepositorySeen> {
    let Some(reference) = reference else { return Seen::Missing };
    let home = ground::home(reference, namespace);
    if let Some(why) = ctx.scope.outside(home) {
        return Seen::Unknown(why);
    }
    let Some(found) = ctx.repositories.get(&ObjectRef::new(&reference.name).within(home)) else { return Seen::Missing };
    let outline = found.outline();
    let policy = outline.spec.usage_policy.as_ref();
    let labels =
        if usage::asks_for_labels(policy, home, namespace) { labels(ctx, namespace).await } else { Seen::Missing };
    // Its volume would be mounted by our Jobs. Who may not use it learns nothing of that.
    if usage::verdict(policy, home, namespace, &labels) == Verdict::Allowed {
        match ctx.vouching.refusal(&ctx.watched, &outline).await {
            Ok(None) => {}
            Ok(Some(refusal)) if home == namespace => {
                return Seen::Unknown(format!("it is not valid: {}", refusal.message));
            }
            Ok(Some(_)) => return Seen::Unknown("it is not valid; its owner can see why".to_owned()),
            Err(e) => return Seen::Unknown(plain(&e)),
        }
    }
    let (spec, facts) = (outline.spec, found.facts());
    let name = spec.backend.as_ref().and_then(|b| b.storage_secret_name.clone()).unwrap_or_default();
    let secret = ctx.secrets.look(&ctx.client, home, &name, now).await;
    let (first_backup, known) = (facts.first_backup.clone(), facts.known);
    let reachability = facts.reachability.clone().filter(|r| !r.reachable);
    let unreachable = reachability.map(|r| Silence { since: r.since.0, message: r.message.unwrap_or_default() });
    let not_ready = facts.not_ready.clone().map(|said| told(said, home == namespace));
    Seen::Found(RepositorySeen { spec, first_backup, known, secret, labels, unreachable, not_ready })
}

/// What users of a Repository learn of why it is not ready: those of other namespaces only what a session would tell them.
fn told(said: Refusal, near: bool) -> Refusal {
    if near || opened::is_of_opening(&said.reason) {
        return said;
    }
    Refusal { message: "its owner can see why.".to_owned(), ..said }
}

/// Labels of a Namespace.
pub async fn labels(ctx: &Context, namespace: &str) -> Seen<BTreeMap<String, String>> {
    match ctx.watched.namespace(namespace).await {
        Ok(Some(found)) => Seen::Found(found.labels().clone()),
        Ok(None) => Seen::Missing,
        Err(e) => Seen::Unknown(plain(&e)),
    }
}

/// Pod Security level that a namespace enforces. Without the right to look, only what the API server then
/// refuses shows it.
///
/// # Errors
/// The API server could not be reached.
pub async fn pod_security(ctx: &Context, namespace: &str) -> kube::Result<Level> {
    match ctx.watched.namespace(namespace).await {
        Ok(found) => Ok(Level::of(found.as_ref().and_then(|n| n.labels().get(ENFORCE_LABEL)).map(String::as_str))),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Level::Privileged),
        Err(e) => Err(e),
    }
}

/// Settings of Jobs of a namespace that the object does not name; what is wrong with its annotation. Without the right to
/// look, those of the chart.
///
/// # Errors
/// The API server could not be reached.
pub async fn job_defaults(ctx: &Context, namespace: &str) -> kube::Result<Result<RuntimeSettings, String>> {
    let chart = &ctx.setup.job_defaults;
    match ctx.watched.namespace(namespace).await {
        Ok(found) => {
            let text = found.as_ref().and_then(|n| n.annotations().get(annotation::JOB_DEFAULTS));
            Ok(job_defaults::of_namespace(chart, namespace, text.map(String::as_str)))
        }
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Ok(chart.clone())),
        Err(e) => Err(e),
    }
}

/// Key of what says that it belongs to a session: of the session's own namespace, where children are.
fn of_session(namespace: &str, uid: &str) -> String {
    format!("session {namespace}/{uid}")
}

/// Key of what a label calls a session's.
fn labelled(object: &impl kube::ResourceExt) -> Option<String> {
    Some(of_session(&object.namespace()?, object.labels().get(label::SESSION_UID)?))
}

/// Key of Jobs of a namespace that write to claims, or read them, and are not done.
fn in_use(namespace: &str) -> String {
    format!("claims {namespace}")
}

/// Keys of a Job.
pub fn keys_of_job(job: &Kept<Job>) -> Vec<String> {
    let job = job.open();
    let mut all: Vec<String> = labelled(&job).into_iter().collect();
    let uses_claims = job.labels().get(label::STEP).is_some_and(|s| s == "restore" || s == "backup");
    if uses_claims && !jobs::is_complete(&job) {
        all.extend(job.namespace().map(|n| in_use(&n)));
    }
    all
}

/// Keys of a pod of a Job.
pub fn keys_of_pod(pod: &Kept<Pod>) -> Vec<String> {
    labelled(&pod.open()).into_iter().collect()
}

/// Jobs of a session, each with what became of it. Jobs and pods are watched apart: after a break a Job can be known
/// to have ended before its pod is known at all. Its result stands in that pod, so the API server is asked for it; else
/// what was done would be done again.
///
/// # Errors
/// It was asked, and could not be reached.
pub async fn jobs(ctx: &Context, children: &Children, id: &Identity) -> kube::Result<Vec<JobSeen>> {
    let (mut jobs, mut pods) = watched(children, id);
    if jobs.iter().any(|job| jobs::is_over(job) && !pods.iter().any(|pod| jobs::is_of(pod, job))) {
        pods = listed(ctx, id).await?;
        ownership::retain_children(id, &mut jobs, &mut pods);
    }
    Ok(see(&jobs, &pods, ctx.now()))
}

fn watched(children: &Children, id: &Identity) -> (Vec<Job>, Vec<Pod>) {
    let key = of_session(&id.namespace, &id.uid);
    let (pods, jobs) = (children.pods.with(&key), children.jobs.with(&key));
    let mut jobs: Vec<Job> = jobs.iter().map(|j| j.open()).collect();
    let mut pods: Vec<Pod> = pods.iter().map(|p| p.open()).collect();
    ownership::retain_children(id, &mut jobs, &mut pods);
    jobs.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    (jobs, pods)
}

fn see(jobs: &[Job], pods: &[Pod], now: Timestamp) -> Vec<JobSeen> {
    jobs::see_all(&jobs.iter().collect::<Vec<_>>(), &pods.iter().collect::<Vec<_>>(), now)
}

/// What the API server has of one kind that says that it belongs to a session.
async fn listed<K>(ctx: &Context, id: &Identity) -> kube::Result<Vec<K>>
where
    K: Keep + Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Debug,
{
    let params = ListParams::default().labels(&format!("{}={}", label::SESSION_UID, id.uid));
    pages::all(ctx.client.clone(), &id.namespace, &params).await
}

/// Jobs of a session as the API server has them at this moment.
///
/// # Errors
/// They could not be listed: nobody knows then whether anything runs.
pub async fn jobs_now(ctx: &Context, id: &Identity) -> kube::Result<Vec<JobSeen>> {
    let mut jobs: Vec<Job> = listed(ctx, id).await?;
    let mut pods: Vec<Pod> = listed(ctx, id).await?;
    ownership::retain_children(id, &mut jobs, &mut pods);
    Ok(see(&jobs, &pods, ctx.now()))
}

/// Whether a watched Job of a session runs.
pub fn runs(children: &Children, id: &Identity, now: Timestamp) -> bool {
    let (jobs, pods) = watched(children, id);
    see(&jobs, &pods, now).iter().any(JobSeen::is_active)
}

/// Targets of other unfinished restores of the namespace that are this session's too; of each the one that goes first.
pub fn rivals<'t>(ctx: &Context, id: &Identity, targets: impl IntoIterator<Item = &'t TargetRef>) -> Vec<Rival> {
    let wanted: BTreeSet<String> = targets.into_iter().filter_map(rivals::key).collect();
    let mut found = vec![];
    for target in &wanted {
        let key = restores(&id.namespace, target);
        let (sessions, batches) = (ctx.users.restores.with(&key), ctx.users.restore_batches.with(&key));
        let facts = sessions.iter().map(|s| s.facts()).chain(batches.iter().map(|b| b.facts()));
        let others = facts.flat_map(|f| &f.targets).filter(|r| r.target == *target && r.order.1 != id.uid);
        found.extend(others.min_by_key(|r| (!r.begun, &r.order)).cloned());
    }
    found
}

/// Targets that restores of the namespace have begun with, and not finished.
pub fn begun(ctx: &Context, id: &Identity) -> Vec<Rival> {
    let key = users::begun(&id.namespace);
    let (sessions, batches) = (ctx.users.restores.with(&key), ctx.users.restore_batches.with(&key));
    let facts = sessions.iter().map(|s| s.facts()).chain(batches.iter().map(|b| b.facts()));
    facts.flat_map(|f| &f.targets).filter(|t| t.begun).cloned().collect()
}

/// Claims that restore Jobs of other sessions of the namespace write to.
pub fn writers(ctx: &Context, id: &Identity, now: Timestamp) -> Vec<Writer> {
    users_of_claims(&[&ctx.of_restore_sessions, &ctx.of_restore_batches], id, now)
}

/// Claims that backup Jobs of the namespace read.
pub fn readers(ctx: &Context, id: &Identity, now: Timestamp) -> Vec<Writer> {
    users_of_claims(&[&ctx.of_backup_sessions], id, now)
}

fn users_of_claims(kinds: &[&Children], id: &Identity, now: Timestamp) -> Vec<Writer> {
    let mut found = vec![];
    for children in kinds {
        let of = |job: Arc<Kept<Job>>| Some((ownership::of_job(&job.open())?, job));
        let mut jobs: Vec<_> = children.jobs.with(&in_use(&id.namespace)).into_iter().filter_map(of).collect();
        jobs.retain(|(child, _)| child.uid != id.uid);
        jobs.sort_by(|(a, _), (b, _)| a.uid.cmp(&b.uid));
        // Pods of a session are opened once, however many Jobs it has, and not together with those of others.
        for jobs in jobs.chunk_by(|(a, _), (b, _)| a.uid == b.uid) {
            let Some((child, _)) = jobs.first() else { continue };
            let pods = children.pods.with(&of_session(&id.namespace, &child.uid));
            let pods: Vec<Pod> = pods.iter().map(|p| p.open()).collect();
            let pods: Vec<&Pod> = pods.iter().collect();
            for (child, job) in jobs {
                let job = job.open();
                let seen = jobs::see(&job, &pods, now);
                if !seen.is_active() {
                    continue;
                }
                let session = format!("{} {}/{}", child.kind, id.namespace, child.name);
                let reads = seen.writes.is_empty();
                let claims = if reads { pod_of(&job).map(jobs::claims).unwrap_or_default() } else { seen.writes };
                found.extend(claims.into_iter().map(|claim| Writer { session: session.clone(), claim, reads }));
            }
        }
    }
    found.sort_by(|a: &Writer, b| (&a.session, &a.claim).cmp(&(&b.session, &b.claim)));
    found
}

/// An error of the API server as one sentence for a user.
pub fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
