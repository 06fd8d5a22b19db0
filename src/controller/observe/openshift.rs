//! OpenShift's DeploymentConfig. Only the fields that a target needs are read. It is never watched: where its API is
//! absent, as on most clusters, a watch would fail for ever.
//!
//! Its scale is written like the scale of any other workload.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::{Api, Client, CustomResource};
use serde::{Deserialize, Serialize};

/// Fields of a DeploymentConfig that are read (OpenShift API reference, "DeploymentConfig [apps.openshift.io/v1]").
#[derive(Clone, CustomResource, Debug, Deserialize, Serialize)]
#[kube(
    group = "apps.openshift.io",
    version = "v1",
    kind = "DeploymentConfig",
    namespaced,
    status = "DeploymentConfigStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentConfigSpec {
    /// Number of desired pods.
    #[serde(default)]
    pub replicas: i32,
    /// Labels of its pods.
    #[serde(default)]
    pub selector: Option<BTreeMap<String, String>>,
    /// Template of its pods.
    #[serde(default)]
    pub template: Option<PodTemplateSpec>,
}

/// Fields of its status that are read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentConfigStatus {
    /// Generation that its controller has observed last.
    #[serde(default)]
    pub observed_generation: Option<i64>,
    /// Pods that its controller counts.
    #[serde(default)]
    pub replicas: i32,
}

/// Result of a read.
pub enum Answer {
    /// The DeploymentConfig exists.
    Found(Box<DeploymentConfig>),
    /// No DeploymentConfig has this name.
    Missing,
    /// The cluster does not know the kind.
    NoSuchApi,
}

/// Message for a user who names a DeploymentConfig in a cluster without this kind.
pub const NO_SUCH_API: &str =
    "This cluster does not have apps.openshift.io/v1, so DeploymentConfig is not available. Use a Deployment instead.";

/// Reads a DeploymentConfig from the API server.
///
/// # Errors
/// The request failed or was refused.
pub async fn get(client: Client, namespace: &str, name: &str) -> kube::Result<Answer> {
    let error = match Api::<DeploymentConfig>::namespaced(client.clone(), namespace).get(name).await {
        Ok(found) => return Ok(Answer::Found(Box::new(found))),
        Err(e) => e,
    };
    let code = if let kube::Error::Api(status) = &error { status.code } else { 0 };
    // If the API does not exist, the operator has no right to it either, and the API server reports that first.
    if ![403, 404].contains(&code) {
        return Err(error);
    }
    match client.list_api_group_resources("apps.openshift.io/v1").await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Answer::NoSuchApi),
        Err(e) => Err(e),
        Ok(_) if code == 404 => Ok(Answer::Missing),
        Ok(_) => Err(error),
    }
}
