//! How the operator is set up, as far as plans depend on it.

use std::time::Duration;

use crate::api::runtime::RuntimeSettings;

/// How the operator is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Image of the Jobs.
    pub image: String,
    /// Deadline of a run that names none.
    pub default_timeout: Duration,
    /// Longest deadline that a run may name.
    pub max_timeout: Duration,
    /// How often the Snapshots of a Repository are brought up to date by themselves; never, when zero.
    pub sync_every: Duration,
    /// Jobs that may work on one Repository at once.
    pub jobs_per_repository: usize,
    /// Time between two probes of a Repository that does not answer.
    pub probe_interval: Duration,
    /// Settings of Jobs where neither the object nor its namespace names any.
    pub job_defaults: RuntimeSettings,
}
