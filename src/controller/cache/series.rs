//! State of the backups of each BackupConfiguration and BackupBatch, as exported to Prometheus.
//!
//! The state is kept beside the watched objects, so that the export opens none of them. The metrics decide what the
//! numbers are called, and how many are exported.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

/// Exported state of an invoker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backups {
    /// When the last successful backup ended, in seconds.
    pub success: Option<i64>,
    /// When the next backup is due, in seconds.
    pub next: Option<i64>,
    /// Whether backups are late; `None` when no backups are expected.
    pub late: Option<bool>,
    /// Whether the last backup succeeded, and its reason.
    pub result: Option<(bool, String)>,
}

/// An invoker, and its exported state.
#[derive(Clone, Debug)]
pub struct Series {
    /// Labels of the invoker.
    pub labels: Labels,
    /// State of its backups.
    pub backups: Arc<Backups>,
}

/// Labels that identify an invoker.
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
