//! Jobs of a session: from the watches, or from the API server where the watches are not enough.
//!
//! The controller of a Job decides which session the Job belongs to; any user can set labels and annotations.

use std::fmt::Debug;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;

use crate::controller::cache::children::{Children, of_session};
use crate::controller::cache::pages;
use crate::controller::observe::reads::Reads;
use crate::names::label;
use crate::plan::seen::compact::Keep;
use crate::plan::seen::identity::Identity;
use crate::plan::seen::job_status::JobSeen;
use crate::plan::seen::{job_status, ownership};

/// Jobs of a session, each with its result. Jobs and pods are watched separately: after a break, the end of a Job can
/// be known before its pod is known. The result of the Job is in that pod, so the API server is asked for the pod;
/// otherwise completed work would be repeated.
///
/// # Errors
/// The API server was asked, and could not be reached.
pub async fn cached(reads: &Reads, children: &Children, id: &Identity) -> kube::Result<Vec<JobSeen>> {
    let (mut jobs, mut pods) = watched(children, id);
    if jobs.iter().any(|job| job_status::is_over(job) && !pods.iter().any(|pod| job_status::is_of(pod, job))) {
        pods = listed(reads, id).await?;
        ownership::retain_children(id, &mut jobs, &mut pods);
    }
    Ok(see(&jobs, &pods, reads.now()))
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
    job_status::see_all(&jobs.iter().collect::<Vec<_>>(), &pods.iter().collect::<Vec<_>>(), now)
}

/// Objects of one kind from the API server whose label names a session.
async fn listed<K>(reads: &Reads, id: &Identity) -> kube::Result<Vec<K>>
where
    K: Keep + Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Debug,
{
    let params = ListParams::default().labels(&format!("{}={}", label::SESSION_UID, id.uid));
    pages::all(reads.client.clone(), &id.namespace, &params).await
}

/// Jobs of a session as the API server has them at this moment.
///
/// # Errors
/// The Jobs could not be listed: it is unknown whether any Job runs.
pub async fn live(reads: &Reads, id: &Identity) -> kube::Result<Vec<JobSeen>> {
    let mut jobs: Vec<Job> = listed(reads, id).await?;
    let mut pods: Vec<Pod> = listed(reads, id).await?;
    ownership::retain_children(id, &mut jobs, &mut pods);
    Ok(see(&jobs, &pods, reads.now()))
}

/// Whether a watched Job of a session runs.
pub fn runs(children: &Children, id: &Identity, now: Timestamp) -> bool {
    let (jobs, pods) = watched(children, id);
    see(&jobs, &pods, now).iter().any(JobSeen::is_active)
}
