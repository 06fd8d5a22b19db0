//! How the operator is set up, as far as plans depend on it.

use std::time::Duration;

use crate::api::runtime::RuntimeSettings;

/// How the operator is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Image of the Jobs.
    pub image: String,
    /// Deadline of a run that does not specify one.
    pub default_timeout: Duration,
    /// Longest deadline that a run may name.
    pub max_timeout: Duration,
    /// Interval at which the Snapshots of a Repository are updated automatically; zero turns this off.
    pub sync_every: Duration,
    /// Jobs that may work on one Repository at once.
    pub jobs_per_repository: usize,
    /// Time between two probes of a Repository that does not answer.
    pub probe_interval: Duration,
    /// Images with the clients of applications.
    pub addons: AddonImages,
    /// Settings of Jobs where neither the object nor its namespace specifies any.
    pub job_defaults: RuntimeSettings,
}

/// Images that have the clients of an application beside the agent, of the operator's version.
#[derive(Clone, Debug, Default)]
pub struct AddonImages {
    /// Clients of PostgreSQL.
    pub postgres: String,
    /// Clients of MariaDB and MySQL.
    pub mariadb: String,
    /// Clients of Redis and Valkey.
    pub redis: String,
}
