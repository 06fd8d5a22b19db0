//! Repository: where restic data lives.

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

/// A restic repository and who may use it.
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
    doc = "Repository says where restic keeps backed-up data, with which credentials, and who may use it.",
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
    /// The store. Exactly one kind of backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Remove the backed-up data when the Repository is deleted: all snapshots, and what only they need. Default: false. Not
    /// for `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe_out: Option<bool>,
    /// Extension: whether the first backup may create the bucket. `IfBucketExists` (the default): only the repository in
    /// it is created, and a bucket that does not exist is the failure BucketMissing. `Always`: the bucket too, where the
    /// credentials allow it. Neither replaces a repository that was there and is gone. It has no meaning for `local`.
    #[serde(default, skip_serializing_if = "CreateBucket::is_default")]
    #[schemars(default = "CreateBucket::default")]
    pub create: CreateBucket,
    /// Which namespaces may refer to it; its own only, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_policy: Option<UsagePolicy>,
    /// Extension: settings of the pods of the Repository's own Jobs, which list its snapshots, ask a store that was
    /// silent, and remove data for `wipeOut`. Jobs of sessions have those of their session. Fields that are absent come
    /// from the annotation `lifeboat.stash.appscode.com/job-defaults` of the Namespace, then from the chart's `jobs.defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,
}

/// What the first backup may create.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum CreateBucket {
    /// The repository, and its bucket where it does not exist.
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

/// A store. Exactly one of its kinds is set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.local), has(self.s3), has(self.gcs), has(self.azure), has(self.swift), has(self.b2), has(self.rest)].filter(set, set).size() <= 1",
    "message": "set exactly one of local, s3, gcs, azure, swift, b2 and rest"
}]))]
pub struct Backend {
    /// Secret in the Repository's namespace with RESTIC_PASSWORD (the encryption key) and the store's credentials. It must
    /// be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_secret_name: Option<String>,
    /// A volume: PersistentVolumeClaim, hostPath or NFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalBackend>,
    /// S3 or a store that speaks its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Backend>,
    /// Google Cloud Storage. Declared; not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<BucketBackend>,
    /// Azure Blob Storage. Declared; not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<ContainerBackend>,
    /// OpenStack Swift. Declared; not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swift: Option<SwiftBackend>,
    /// Backblaze B2. Declared; not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b2: Option<BucketBackend>,
    /// restic's REST server. Declared; not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<RestBackend>,
}

/// A repository on a volume: any volume source of Kubernetes, written beside these fields.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalBackend {
    /// Where Stash mounted it. Kept for its manifests: Lifeboat mounts it at a place of its own.
    pub mount_path: String,
    /// Folder of the volume that holds the repository; the volume's root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
    /// The volume source, as in a pod: `persistentVolumeClaim`, `hostPath`, `nfs`.
    #[serde(flatten)]
    pub source: serde_json::Map<String, Value>,
}

impl LocalBackend {
    /// The volume under a name, as a pod wants it.
    ///
    /// # Errors
    /// The source is none that Kubernetes knows.
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
                json!({ "type": "string", "description": "Where Stash mounted it. Kept for its manifests: Lifeboat mounts it at a place of its own." }),
            );
            properties.insert(
                "subPath".into(),
                json!({ "type": "string", "description": "Folder of the volume that holds the repository; the volume's root when absent." }),
            );
        }
        schema
    }
}

/// A bucket that speaks the S3 protocol.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Backend {
    /// Host or URL, for example `s3.amazonaws.com` or `https://minio.example:9000`. HTTPS unless it says http.
    pub endpoint: String,
    /// Name of the bucket.
    pub bucket: String,
    /// Folder in the bucket, for example `demo/shop`; the bucket's root when absent. A leading slash makes no difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Region of the bucket, for example `eu-central-1`; found by asking the store when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Accept any certificate. Default: false. A CA of your own is better: key CA_CERT_DATA of the Secret.
    #[serde(rename = "insecureTLS", default, skip_serializing_if = "Option::is_none")]
    pub insecure_tls: Option<bool>,
}

/// A bucket.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketBackend {
    /// Name of the bucket.
    pub bucket: String,
    /// Folder in the bucket; its root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Most connections at once; restic's own number when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
}

/// An Azure container.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerBackend {
    /// Name of the container.
    pub container: String,
    /// Folder in the container; its root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Most connections at once; restic's own number when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
}

/// A Swift container.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SwiftBackend {
    /// Name of the container.
    pub container: String,
    /// Folder in the container; its root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A restic REST server.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct RestBackend {
    /// URL of the repository. Declared; not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Who may use a Repository.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsagePolicy {
    /// Namespaces whose objects may refer to it.
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
    /// Same (the default): its own namespace only. Selector: namespaces whose labels match `selector`. All: every namespace.
    #[serde(default)]
    #[schemars(default = "FromNamespaces::default")]
    pub from: FromNamespaces,
    /// Labels of the namespaces, for `Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::embedded::<LabelSelector>")]
    pub selector: Option<LabelSelector>,
}

/// Namespaces whose objects may refer to the Repository. Same (the default): its own only. Selector: those whose labels
/// match `selector`. All: every namespace.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum FromNamespaces {
    /// All.
    All,
    /// Those whose labels match the selector.
    Selector,
    /// Its own only.
    #[default]
    Same,
}

/// What is known of a repository.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// Generation that was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the first backup through this Repository succeeded, retention and check included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_backup_time: Option<Time>,
    /// When the newest backup succeeded, retention and check included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_time: Option<Time>,
    /// Result of the last check of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<bool>,
    /// Size of the data in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size: Option<String>,
    /// Snapshots in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_count: Option<i64>,
    /// Snapshots the last retention removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots_removed_on_last_cleanup: Option<i64>,
    /// Objects that use it; the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// Extension: what was observed, Ready among it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Extension: whether the store answers. Absent as long as it always did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachability: Option<Reachability>,
    /// Bucket and prefix that were opened through it last, `bucket/prefix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_store: Option<String>,
    /// Extension: where a repository was last found, or a backup succeeded: `bucket/prefix`, or a hash of volume and folder. As
    /// long as the spec names that place, a repository that is not there is a failure, and no backup creates one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_place: Option<String>,
    /// When a session that failed last left snapshots. Later than `sync.backupTime`: they are about to be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_request_time: Option<Time>,
    /// When a session last said that the store does not answer its Job. Later than `reachability.lastProbeTime`: the
    /// Repository is about to ask for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_request_time: Option<Time>,
    /// When a session last failed for a reason that lies in the store. Later than `sync.triedTime`: the repository is
    /// about to be opened again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_request_time: Option<Time>,
    /// Extension: what the operator keeps track of, of its own Jobs on the repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<StepStatus>,
    /// Extension: how its Snapshots stand to what the repository holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncStatus>,
    /// Extension: who holds the places for Jobs on it. There only while sessions wait for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<SlotsStatus>,
}

/// The places for Jobs on a Repository, and who holds them.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotsStatus {
    /// When it was so. Written at most every half minute.
    pub time: Time,
    /// Places that are held.
    pub used: i64,
    /// Places that there are.
    pub most: i64,
    /// Sessions that have no Job yet and want one.
    pub waiting: i64,
    /// Namespaces that hold places, the most first; the first twenty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace"]))]
    pub holders: Vec<SlotHolder>,
}

/// A namespace that holds places.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SlotHolder {
    /// The namespace.
    pub namespace: String,
    /// How many it holds.
    pub count: i64,
}

/// How the Snapshots of a Repository stand to what it holds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// When they last were brought up to date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_time: Option<Time>,
    /// When that was last tried, with whatever result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_time: Option<Time>,
    /// Value of the annotation `lifeboat.stash.appscode.com/sync` that was last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The newest backup that was last looked for: `lastBackupTime` or `listRequestTime`, whichever is later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_time: Option<Time>,
    /// Secret and spec with which the repository was last opened. `Ready` is about those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<OpenedWith>,
    /// Secret and spec with which that was last tried, with whatever result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<OpenedWith>,
    /// A Job is at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<SyncBegun>,
    /// Rights that were given to the Job, for its time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub grants: Vec<GrantStatus>,
}

/// What a repository is opened with. Of the Secret only its version is kept.
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

/// What a Job that brings Snapshots up to date was begun for.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncBegun {
    /// When.
    pub time: Time,
    /// Value of the annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The newest backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_time: Option<Time>,
    /// Secret and spec that the Job opens the repository with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<OpenedWith>,
}

/// Whether a store answers. While it does not, one small Job asks it once in a while, and nothing else is started.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reachability {
    /// It does.
    pub reachable: bool,
    /// Since when it does, or does not.
    pub since: Time,
    /// What was said when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the last probe came to an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    /// When it is asked next, if somebody waits for it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_probe_time: Option<Time>,
    /// Hash of what it was asked with last: spec, version of the Secret, and annotation `lifeboat.stash.appscode.com/sync`. A
    /// store that does not answer is asked at once when one of them changes.
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
