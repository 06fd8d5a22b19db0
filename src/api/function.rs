//! Function: one container of a Task. Declared as in Stash; only the built-in tasks are implemented.

use k8s_openapi::api::core::v1::{ContainerPort, VolumeDevice, VolumeMount};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::runtime::ContainerRuntimeSettings;
use crate::api::schema;

/// Template of a container. Every string may contain variables, `${NAME}` or `${NAME:=default}`.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "stash.appscode.com",
    version = "v1beta1",
    kind = "Function",
    plural = "functions",
    shortname = "fn",
    category = "stash",
    category = "appscode",
    derive = "PartialEq",
    doc = "Function is one container of a Task: a template with variables.",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct FunctionSpec {
    /// Image of the container. Defaults to the image of Stash. Declared; not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Entry point. Defaults to the entry point of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Working directory. Defaults to the working directory of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Ports of the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::embedded::<Vec<ContainerPort>>")]
    pub ports: Vec<ContainerPort>,
    /// Volumes of the Task that the container mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::embedded::<Vec<VolumeMount>>")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Block devices that the container uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::embedded::<Vec<VolumeDevice>>")]
    pub volume_devices: Vec<VolumeDevice>,
    /// Settings of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<ContainerRuntimeSettings>,
    /// PodSecurityPolicy was removed from Kubernetes in 1.25. This field is not used and must be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security_policy_name: Option<String>,
}
