//! Repository: where backups are stored.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Volume;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::condition::Condition;
use crate::api::restore_session::{GrantStatus, StepStatus};
use crate::api::runtime::RuntimeSettings;
use crate::api::schema;

/// A restic repository, and the namespaces that may use it.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "stash.appscode.com",
    version = "v1alpha1",
    kind = "Repository",
    plural = "repositories",
    shortname = "repo",
    category = "stash",
    category = "appscode",
    namespaced,
    status = "RepositoryStatus",
    derive = "PartialEq",
    doc = "Repository defines where backups are stored, the Secret with the credentials, and the namespaces that may use it.",
    printcolumn = r#"{"name":"Integrity","type":"boolean","jsonPath":".status.integrity"}"#,
    printcolumn = r#"{"name":"Size","type":"string","jsonPath":".status.totalSize"}"#,
    printcolumn = r#"{"name":"Snapshot-Count","type":"integer","jsonPath":".status.snapshotCount"}"#,
    printcolumn = r#"{"name":"Last-Successful-Backup","type":"date","jsonPath":".status.lastBackupTime"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RepositorySpec {
    /// The storage. Exactly one kind of backend must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Remove the stored data when the Repository is deleted: all snapshots, and the data that only they use.
    /// Default: false. Not allowed for `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe_out: Option<bool>,
    /// Extension: whether the first backup may create the bucket. `IfBucketExists` (the default): the backup creates
    /// only the repository, and fails with BucketMissing if the bucket does not exist. `Always`: the backup also
    /// creates the bucket, if the credentials allow it. Neither value replaces a lost repository. Not used for `local`.
    #[serde(default, skip_serializing_if = "CreateBucket::is_default")]
    #[schemars(default = "CreateBucket::default")]
    pub create: CreateBucket,
    /// Namespaces whose objects may refer to the Repository. When absent, only the namespace of the Repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_policy: Option<UsagePolicy>,
    /// Extension: settings of the pods of the Repository's own Jobs, which list its snapshots, check storage that did
    /// not answer, and remove data for `wipeOut`. Jobs of sessions use the settings of their session. Fields that are
    /// absent come from the annotation `lifeboat.stash.appscode.com/job-defaults` of the Namespace, then from the
    /// chart's `jobs.defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,
}

/// What the first backup may create.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum CreateBucket {
    /// The repository, and its bucket if it does not exist.
    Always,
    /// The repository, in a bucket that exists.
    #[default]
    IfBucketExists,
}

impl CreateBucket {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The storage. Exactly one kind must be set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.local), has(self.s3), has(self.gcs), has(self.azure), has(self.swift), has(self.b2), has(self.rest)].filter(set, set).size() <= 1",
    "message": "set exactly one of local, s3, gcs, azure, swift, b2 and rest"
}]))]
pub struct Backend {
    /// Secret in the Repository's namespace with RESTIC_PASSWORD (the encryption key) and the credentials of the
    /// storage. This field must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_secret_name: Option<String>,
    /// A volume: PersistentVolumeClaim, hostPath or NFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalBackend>,
    /// S3, or storage with the same protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Backend>,
    /// Google Cloud Storage. Declared; not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<BucketBackend>,
    /// Azure Blob Storage. Declared; not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<ContainerBackend>,
    /// OpenStack Swift. Declared; not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swift: Option<SwiftBackend>,
    /// Backblaze B2. Declared; not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b2: Option<BucketBackend>,
    /// restic's REST server. Declared; not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<RestBackend>,
}

/// A repository on a volume. The fields of any volume source of Kubernetes are set next to these fields.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalBackend {
    /// Mount path in Stash. Kept for its manifests; Lifeboat mounts the volume at another path.
    pub mount_path: String,
    /// Folder of the repository in the volume. Defaults to the root of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
    /// The volume source, as in a pod: `persistentVolumeClaim`, `hostPath`, `nfs`.
    #[serde(flatten)]
    pub source: serde_json::Map<String, Value>,
}

impl LocalBackend {
    /// The volume with a name, as in a pod.
    ///
    /// # Errors
    /// The source is not a volume source of Kubernetes.
    pub fn volume(&self, name: &str) -> serde_json::Result<Volume> {
        let mut volume = self.source.clone();
        volume.insert("name".into(), name.into());
        serde_json::from_value(Value::Object(volume))
    }
}

impl JsonSchema for LocalBackend {
    fn schema_name() -> Cow<'static, str> {
        "LocalBackend".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = schema::embedded::<Volume>(generator);
        schema.insert("required".into(), json!(["mountPath"]));
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            properties.remove("name");
            properties.insert(
                "mountPath".into(),
                json!({ "type": "string", "description": "Mount path in Stash. Kept for its manifests; Lifeboat mounts the volume at another path." }),
            );
            properties.insert(
                "subPath".into(),
                json!({ "type": "string", "description": "Folder of the repository in the volume. Defaults to the root of the volume." }),
            );
        }
        schema
    }
}

/// A bucket with the S3 protocol.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Backend {
    /// Host or URL, for example `s3.amazonaws.com` or `https://minio.example:9000`. HTTPS is used unless the URL begins
    /// with http://.
    pub endpoint: String,
    /// Name of the bucket.
    pub bucket: String,
    /// Folder in the bucket, for example `demo/shop`. Defaults to the root of the bucket. A leading slash is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Region of the bucket, for example `eu-central-1`. When absent, the region is requested from the storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Accept any certificate. Default: false. For your own CA use the key CA_CERT_DATA of the Secret instead.
    #[serde(rename = "insecureTLS", default, skip_serializing_if = "Option::is_none")]
    pub insecure_tls: Option<bool>,
}

/// A bucket.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketBackend {
    /// Name of the bucket.
    pub bucket: String,
    /// Folder in the bucket. Defaults to its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Maximum number of connections. Defaults to that of restic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
}

/// An Azure container.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerBackend {
    /// Name of the container.
    pub container: String,
    /// Folder in the container. Defaults to its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Maximum number of connections. Defaults to that of restic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
}

/// A Swift container.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SwiftBackend {
    /// Name of the container.
    pub container: String,
    /// Folder in the container. Defaults to its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A restic REST server.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct RestBackend {
    /// URL of the repository. Declared; not implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Which namespaces may use a Repository.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsagePolicy {
    /// Namespaces whose objects may refer to the Repository.
    #[serde(default)]
    pub allowed_namespaces: AllowedNamespaces,
}

/// Namespaces.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.from) || self.from != 'Selector' || has(self.selector)",
    "message": "from: Selector needs a selector"
}]))]
pub struct AllowedNamespaces {
    /// Same (the default): only the namespace of the Repository. Selector: namespaces whose labels match `selector`.
    /// All: every namespace.
    #[serde(default)]
    #[schemars(default = "FromNamespaces::default")]
    pub from: FromNamespaces,
    /// Labels of the namespaces, for `Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::embedded::<LabelSelector>")]
    pub selector: Option<LabelSelector>,
}

/// Namespaces whose objects may refer to the Repository. Same (the default): only the namespace of the Repository.
/// Selector: namespaces whose labels match `selector`. All: every namespace.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum FromNamespaces {
    /// Every namespace.
    All,
    /// Namespaces whose labels match the selector.
    Selector,
    /// Only the namespace of the Repository.
    #[default]
    Same,
}

/// Status of a repository.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// Generation of the spec that was last reconciled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Time of the first successful backup to this Repository, including retention and check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_backup_time: Option<Time>,
    /// Time of the newest successful backup, including retention and check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_time: Option<Time>,
    /// Result of the last check of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<bool>,
    /// Size of the data in the storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size: Option<String>,
    /// Number of snapshots in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_count: Option<i64>,
    /// Number of snapshots that the last retention removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots_removed_on_last_cleanup: Option<i64>,
    /// The first hundred objects that use the Repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// Extension: conditions, including Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Extension: whether the storage answers. Not set if the storage has always answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachability: Option<Reachability>,
    /// Bucket and prefix that were last opened with this Repository, `bucket/prefix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_store: Option<String>,
    /// Extension: location where a repository was last found, or a backup succeeded: `bucket/prefix`, or a hash of
    /// volume and folder. While the spec has this location, a missing repository is a failure, and backups do not
    /// create a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_place: Option<String>,
    /// Time at which a failed session last left snapshots. If later than `sync.backupTime`, the snapshots will be
    /// listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_request_time: Option<Time>,
    /// Time at which a session last reported that the storage does not answer the session's Job. If later than
    /// `reachability.lastProbeTime`, a Job of the Repository will check the storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_request_time: Option<Time>,
    /// Time at which a session last failed because of the storage. If later than `sync.triedTime`, the repository
    /// will be opened again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_request_time: Option<Time>,
    /// Extension: state of the Repository's own Jobs, written by the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<StepStatus>,
    /// Extension: state of the list of the Repository's Snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncStatus>,
    /// Extension: namespaces that hold the slots for the Repository's Jobs. Present only while sessions wait for a
    /// slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<SlotsStatus>,
}

/// The slots for Jobs of a Repository, and the namespaces that hold them.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotsStatus {
    /// Time of this observation. Updated at most every 30 seconds.
    pub time: Time,
    /// Number of slots in use.
    pub used: i64,
    /// Number of slots.
    pub most: i64,
    /// Number of sessions that wait for a slot.
    pub waiting: i64,
    /// The first twenty namespaces that hold slots, in descending order of the number of slots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace"]))]
    pub holders: Vec<SlotHolder>,
}

/// A namespace that holds slots.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SlotHolder {
    /// The namespace.
    pub namespace: String,
    /// Number of slots that the namespace holds.
    pub count: i64,
}

/// State of the list of Snapshots of a Repository.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// Time of the last successful list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_time: Option<Time>,
    /// Time of the last list, successful or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_time: Option<Time>,
    /// Value of the annotation `lifeboat.stash.appscode.com/sync` of the last list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Time of the newest backup that the last list includes: `lastBackupTime` or `listRequestTime`, whichever is
    /// later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_time: Option<Time>,
    /// Secret and spec with which the repository was last opened. `Ready` refers to this Secret and spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<OpenedWith>,
    /// Secret and spec of the last attempt to open the repository, successful or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<OpenedWith>,
    /// The running Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<SyncBegun>,
    /// Permissions that were granted to the Job while it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub grants: Vec<GrantStatus>,
}

/// Secret and spec with which a repository is opened. Of the Secret, only its version is stored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenedWith {
    /// `metadata.resourceVersion` of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<String>,
    /// Hash of `spec.backend`, `spec.create` and `spec.runtimeSettings` of the Repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
}

/// Why a Job that lists Snapshots was started.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncBegun {
    /// Start time.
    pub time: Time,
    /// Value of the annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Time of the newest backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_time: Option<Time>,
    /// Secret and spec with which the Job opens the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<OpenedWith>,
}

/// Whether the storage answers. While the storage does not answer, one small Job checks it from time to time, and no
/// other Job is started.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reachability {
    /// True if the storage answers.
    pub reachable: bool,
    /// Time of the last change.
    pub since: Time,
    /// Error message of the last check that got no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// End of the last check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    /// Time of the next check, if a session is waiting at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_probe_time: Option<Time>,
    /// Hash of the spec, the version of the Secret, and the annotation `lifeboat.stash.appscode.com/sync` at the last
    /// check. When one of them changes, storage that does not answer is checked at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_with: Option<String>,
}

/// An object that uses a Repository.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// API group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// Kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}
