//! What is backed up, and where a restore goes.

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

/// What is backed up.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupTarget {
    /// Host name of its snapshots; a StatefulSet adds `-<ordinal>`, a DaemonSet `-<node>`. `host-0` (`host-<ordinal>`, the node's name) when absent. Unique in a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The workload or claim.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub ref_: Option<TargetRef>,
    /// Absolute paths to back up, one snapshot each. Each must lie within a volume mount.
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
    /// restic patterns of files to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Further arguments of `restic backup`, none when absent. Allowed are --tag, --exclude-caches, --exclude-if-present,
    /// --exclude-larger-than, --one-file-system, --ignore-inode, --ignore-ctime, --limit-upload, --read-concurrency,
    /// --pack-size, --compression, --no-scan and --iexclude.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// Where a restore goes, and what goes there.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTarget {
    /// Host name the target was backed up under; a StatefulSet adds `-<ordinal>`, a DaemonSet `-<node>`. `host-0` (`host-<ordinal>`, the node's name) when absent. Unique in a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The workload or claim.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub ref_: Option<TargetRef>,
    /// Volumes of the workload (by their name in its pod template) and where they are mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "volume_mounts")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Replicas that volumeClaimTemplates are made for, each with claims of its own; one without ordinal when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Claims to make and restore into, in place of `ref`. Mounts name them without their `-${POD_ORDINAL}`. They stay when the session goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_claim_templates: Vec<PvcTemplate>,
    /// What is restored into which hosts. Needs at least one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Further arguments of `restic restore`, none when absent. Allowed are --tag, --verify, --sparse, --overwrite,
    /// --exclude-xattr, --include-xattr and --limit-download.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Extension: whether the workload is scaled to zero while it is restored in place; Auto when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesce: Option<Quiesce>,
    /// Extension: what becomes of the workload where its data was touched and is not restored as a whole; StayDown when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_failure: Option<AfterFailure>,
    /// Extension: whether files must get back their owners; Keep when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<Ownership>,
    /// Extension: Delete removes files in the paths of the rules that the snapshots do not have, once everything else is
    /// restored; Keep when absent. Not together with allowEmpty, with quiesce: Never or with a DaemonSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extraneous: Option<Extraneous>,
    /// Extension: true: restoring nothing at all is a success. Default: false, it is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_empty: Option<bool>,
}

impl RestoreTarget {
    /// Whether files that the snapshots do not have are deleted.
    pub fn is_exact(&self) -> bool {
        self.extraneous == Some(Extraneous::Delete)
    }
}
