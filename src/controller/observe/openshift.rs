//! OpenShift's DeploymentConfig, of which only what a target needs is read. It is never watched: where its API is
//! absent, as on most clusters, a watch would fail for ever.
//!
//! Its scale is written as that of any other workload.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::{Api, Client, CustomResource};
use serde::{Deserialize, Serialize};

/// What of a DeploymentConfig is read (OpenShift API reference, "DeploymentConfig [apps.openshift.io/v1]").
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
    /// Pods that are wanted.
    #[serde(default)]
    pub replicas: i32,
    /// Labels of its pods.
    #[serde(default)]
    pub selector: Option<BTreeMap<String, String>>,
    /// What its pods are made of.
    #[serde(default)]
    pub template: Option<PodTemplateSpec>,
}

/// What of its status is read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentConfigStatus {
    /// Generation that its controller has looked at last.
    #[serde(default)]
    pub observed_generation: Option<i64>,
    /// Pods that its controller counts.
    #[serde(default)]
    pub replicas: i32,
}

/// What became of a question.
pub enum Answer {
    /// It is there.
    Found(Box<DeploymentConfig>),
    /// There is none of this name.
    Missing,
    /// The cluster does not know the kind.
    NoSuchApi,
}

/// Said to who names one where there are none.
pub const NO_SUCH_API: &str =
    "This cluster does not have apps.openshift.io/v1, so DeploymentConfig is not available. Use a Deployment instead.";

/// Asks the API server.
///
/// # Errors
/// It could not be asked, or refused.
pub async fn get(client: Client, namespace: &str, name: &str) -> kube::Result<Answer> {
    let error = match Api::<DeploymentConfig>::namespaced(client.clone(), namespace).get(name).await {
        Ok(found) => return Ok(Answer::Found(Box::new(found))),
        Err(e) => e,
    };
    let code = if let kube::Error::Api(status) = &error { status.code } else { 0 };
    // Where there is no such API nobody has a right to it either, and that is said first.
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
