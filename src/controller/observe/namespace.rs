//! Values that are read from a Namespace: its labels, its Pod Security level, its settings of Jobs.
//!
//! The operator also works without the right to read Namespaces: each function says which value is used then.

use std::collections::BTreeMap;

use kube::ResourceExt as _;

use crate::api::runtime::RuntimeSettings;
use crate::controller::observe::errors::plain;
use crate::controller::observe::reads::Reads;
use crate::names::annotation;
use crate::plan::seen::Seen;
use crate::plan::work::job_defaults;
use crate::plan::work::pod_security::{ENFORCE_LABEL, Level};

/// Labels of a Namespace.
pub async fn labels(reads: &Reads, namespace: &str) -> Seen<BTreeMap<String, String>> {
    match reads.informers.namespace(namespace).await {
        Ok(Some(found)) => Seen::Found(found.labels().clone()),
        Ok(None) => Seen::Missing,
        Err(e) => Seen::Unknown(plain(&e)),
    }
}

/// Pod Security level that a namespace enforces. Without the right to read Namespaces, only refusals of the
/// API server show it.
///
/// # Errors
/// The API server could not be reached.
pub async fn pod_security(reads: &Reads, namespace: &str) -> kube::Result<Level> {
    match reads.informers.namespace(namespace).await {
        Ok(found) => Ok(Level::of(found.as_ref().and_then(|n| n.labels().get(ENFORCE_LABEL)).map(String::as_str))),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Level::Privileged),
        Err(e) => Err(e),
    }
}

/// Settings of Jobs that the object does not set, from its namespace; or what is wrong with the annotation of the
/// namespace. `chart` contains the settings of the chart, which apply without the right to read Namespaces.
///
/// # Errors
/// The API server could not be reached.
pub async fn job_defaults(
    reads: &Reads,
    chart: &RuntimeSettings,
    namespace: &str,
) -> kube::Result<Result<RuntimeSettings, String>> {
    match reads.informers.namespace(namespace).await {
        Ok(found) => {
            let text = found.as_ref().and_then(|n| n.annotations().get(annotation::JOB_DEFAULTS));
            Ok(job_defaults::of_namespace(chart, namespace, text.map(String::as_str)))
        }
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Ok(chart.clone())),
        Err(e) => Err(e),
    }
}
