//! Targets of backups and restores.

use k8s_openapi::api::core::v1::VolumeMount;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::api::common::{AfterFailure, Extraneous, Ownership, Quiesce, Rule, TargetRef};
use crate::api::schema;
use crate::api::volume::PvcTemplate;

fn volume_mounts(generator: &mut SchemaGenerator) -> Schema {
    let mut s = schema::embedded::<Vec<VolumeMount>>(generator);
    s.insert("x-kubernetes-list-type".into(), "map".into());
    s.insert("x-kubernetes-list-map-keys".into(), serde_json::json!(["mountPath"]));
    s
}

/// Target of a backup.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupTarget {
    /// Host name of the target's snapshots; a StatefulSet adds `-<ordinal>`, a DaemonSet `-<node>`. Defaults to
    /// `host-0` (StatefulSet: `host-<ordinal>`, DaemonSet: the node's name). Must be unique in a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The workload or PVC.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub ref_: Option<TargetRef>,
    /// Absolute paths to back up, one snapshot each. Each path must be within a volume mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Volumes of the workload (by their name in its pod template) and where they are mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "volume_mounts")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Replicas whose volumes are snapshotted. For VolumeSnapshotter only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// VolumeSnapshotClass. For VolumeSnapshotter only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_class_name: Option<String>,
    /// restic patterns of files to exclude.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Additional arguments of `restic backup`; none when absent. Allowed are --tag, --exclude-caches,
    /// --exclude-if-present, --exclude-larger-than, --one-file-system, --ignore-inode, --ignore-ctime,
    /// --limit-upload, --read-concurrency, --pack-size, --compression, --no-scan and --iexclude.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// Target of a restore, and what is restored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTarget {
    /// What driver Mock restores. Driver Mock exists in tests only.
    #[cfg(test)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub mock: Option<MockTarget>,
    /// Host name of the backup; a StatefulSet adds `-<ordinal>`, a DaemonSet `-<node>`. Defaults to `host-0`
    /// (StatefulSet: `host-<ordinal>`, DaemonSet: the node's name). Must be unique in a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The workload or PVC.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub ref_: Option<TargetRef>,
    /// Volumes of the workload (by their name in its pod template) and where they are mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "volume_mounts")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Number of replicas for which PVCs of volumeClaimTemplates are created. When absent, one set of PVCs without
    /// ordinal is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Templates of PVCs to create and restore into, instead of `ref`. volumeMounts use the names of the templates
    /// without `-${POD_ORDINAL}`. The PVCs are kept when the session is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_claim_templates: Vec<PvcTemplate>,
    /// Rules: which snapshots are restored to which hosts. At least one is required.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Additional arguments of `restic restore`; none when absent. Allowed are --tag, --verify, --sparse,
    /// --overwrite, --exclude-xattr, --include-xattr and --limit-download.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Extension: whether the workload is scaled to zero during a restore in place. Defaults to Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesce: Option<Quiesce>,
    /// Extension: what happens to the workload if its data is half restored at the end. Defaults to StayDown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_failure: Option<AfterFailure>,
    /// Extension: whether the owners of files are restored. Defaults to Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<Ownership>,
    /// Extension: with Delete, files in the paths of the rules that are not in the snapshots are deleted after
    /// everything else is restored. Defaults to Keep. Cannot be used together with allowEmpty, with quiesce: Never or
    /// with a DaemonSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extraneous: Option<Extraneous>,
    /// Extension: with true, a restore that restores nothing succeeds. Default: false, such a restore fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_empty: Option<bool>,
}

impl RestoreTarget {
    /// Whether files that are not in the snapshots are deleted.
    pub fn is_exact(&self) -> bool {
        self.extraneous == Some(Extraneous::Delete)
    }
}

/// What driver Mock restores. Driver Mock exists in tests only.
#[cfg(test)]
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct MockTarget {
    /// Address of the system.
    pub endpoint: String,
    /// What is restored in the system.
    pub shelf: String,
    /// Secret with the `token` of the system.
    pub secret: String,
}
