//! Hooks: declared as in Stash. An object that uses a hook is rejected as NotSupported.

use k8s_openapi::api::core::v1::{ExecAction, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::schema;

/// One action: a command, an HTTP request or a TCP connection. If several are set, all of them run, in this order.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Handler {
    /// Command to run in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::embedded::<ExecAction>")]
    pub exec: Option<ExecAction>,
    /// HTTP GET request. A status from 200 to 399 is a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::embedded::<HTTPGetAction>")]
    pub http_get: Option<HTTPGetAction>,
    /// HTTP POST request. A status from 200 to 399 is a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_post: Option<HttpPostAction>,
    /// TCP connection. The action succeeds if the connection can be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::embedded::<TCPSocketAction>")]
    pub tcp_socket: Option<TCPSocketAction>,
    /// Container in which the command runs, and whose port names can be used. Defaults to the first container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
}

/// An HTTP POST request.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpPostAction {
    /// Path on the server. Defaults to `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Number or name of the port.
    #[schemars(schema_with = "schema::int_or_string")]
    pub port: IntOrString,
    /// Host name. Defaults to the address of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `HTTP` (the default) or `HTTPS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<HttpHeader>,
    /// Body of the request. When absent, the request has no body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Form fields. They have precedence over `body`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub form: Vec<FormEntry>,
}

/// One header.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct HttpHeader {
    /// Name of the header.
    pub name: String,
    /// Value of the header.
    pub value: String,
}

/// One form field.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct FormEntry {
    /// Name of the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Values of the field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// Hooks of a backup. Declared; not implemented.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupHooks {
    /// Runs before the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_backup: Option<Handler>,
    /// Runs after the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_backup: Option<PostBackupHook>,
}

/// A hook after a backup.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PostBackupHook {
    /// The action.
    #[serde(flatten)]
    pub handler: Handler,
    /// When it runs: Always (the default), OnSuccess, OnFailure, or OnFinalRetryFailure (no retry is left).
    #[serde(default)]
    #[schemars(default = "PostBackupPolicy::default")]
    pub execution_policy: PostBackupPolicy,
}

/// When the hook runs: Always (the default), OnSuccess, OnFailure, or OnFinalRetryFailure (no retry is left).
/// Declared; not implemented.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum PostBackupPolicy {
    /// Always.
    #[default]
    Always,
    /// After a failure.
    OnFailure,
    /// After a success.
    OnSuccess,
    /// After a failure with no retry left.
    OnFinalRetryFailure,
}

/// Hooks of a restore. Declared; not implemented.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreHooks {
    /// Runs before the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_restore: Option<Handler>,
    /// Runs after the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_restore: Option<PostRestoreHook>,
}

/// A hook after a restore.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PostRestoreHook {
    /// The action.
    #[serde(flatten)]
    pub handler: Handler,
    /// When it runs: Always (the default), OnSuccess or OnFailure.
    #[serde(default)]
    #[schemars(default = "PostRestorePolicy::default")]
    pub execution_policy: PostRestorePolicy,
}

/// When the hook runs: Always (the default), OnSuccess or OnFailure. Declared; not implemented.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum PostRestorePolicy {
    /// Always.
    #[default]
    Always,
    /// After a failure.
    OnFailure,
    /// After a success.
    OnSuccess,
}
