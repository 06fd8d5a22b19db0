//! How the backups of each BackupConfiguration and BackupBatch stand, as Prometheus is told of it.
//!
//! It stands beside the watched objects, so that whoever tells of it opens none of them. What the numbers are called, and
//! how many are told, the metrics decide.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

/// What is told of an invoker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backups {
    /// When the last success ended, in seconds.
    pub success: Option<i64>,
    /// When the next one is due, in seconds.
    pub next: Option<i64>,
    /// Whether they are late; none where nobody expects any.
    pub late: Option<bool>,
    /// Whether the last one succeeded, and its reason.
    pub result: Option<(bool, String)>,
}

/// An invoker, and what is told of it.
#[derive(Clone, Debug)]
pub struct Series {
    /// Whose.
    pub labels: Labels,
    /// What.
    pub backups: Arc<Backups>,
}

/// By what an invoker is known.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Labels {
    /// Its namespace.
    pub namespace: String,
    /// `BackupConfiguration` or `BackupBatch`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its Repository, `namespace/name`.
    pub repository: String,
}
