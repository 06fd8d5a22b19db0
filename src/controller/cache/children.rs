//! Jobs of one kind of object, and their pods, as last watched, and the keys by which they are found.
//!
//! Keys come from labels, which any user may set. [`ownership`](crate::plan::seen::ownership) decides whose child a Job
//! is; code that reads Jobs or pods here asks it.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controller::cache::index::Indexed;
use crate::names::label;
use crate::plan::seen::compact::Kept;
use crate::plan::seen::job_status;

/// Jobs of one kind of session, and their pods, as last watched.
#[derive(Clone)]
pub struct Children {
    /// Jobs.
    pub jobs: Indexed<Kept<Job>>,
    /// Their pods.
    pub pods: Indexed<Kept<Pod>>,
}

/// Key of objects whose label names a session, in the session's own namespace, where its children are.
pub fn of_session(namespace: &str, uid: &str) -> String {
    format!("session {namespace}/{uid}")
}

/// Key of an object whose label names a session.
fn labelled(metadata: &ObjectMeta) -> Option<String> {
    let uid = metadata.labels.as_ref()?.get(label::SESSION_UID)?;
    Some(of_session(metadata.namespace.as_deref()?, uid))
}

/// Key of Jobs of a namespace that write to claims or read them, and are not complete.
pub fn in_use(namespace: &str) -> String {
    format!("claims {namespace}")
}

/// Keys of a Job.
pub fn keys_of_job(job: &Kept<Job>) -> Vec<String> {
    let metadata = job.open_metadata();
    let mut all: Vec<String> = labelled(&metadata).into_iter().collect();
    let step = metadata.labels.as_ref().and_then(|l| l.get(label::STEP));
    if step.is_some_and(|s| s == "restore" || s == "backup") && !job_status::is_complete(&job.open()) {
        all.extend(metadata.namespace.map(|n| in_use(&n)));
    }
    all
}

/// Keys of a pod of a Job.
pub fn keys_of_pod(pod: &Kept<Pod>) -> Vec<String> {
    labelled(&pod.open_metadata()).into_iter().collect()
}
