//! What one look at the cluster found: all that a decision may depend on.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::gate::Room;
use super::jobs::JobSeen;
use super::pod_security::Level;
use super::target::TargetSeen;
use crate::api::common::TargetRef;
use crate::api::repository::RepositorySpec;
use crate::api::restore_batch::Adopted;
use crate::api::runtime::RuntimeSettings;
use crate::contract::{Failure, Progress};

/// Something that was looked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen<T> {
    /// It is not there.
    Missing,
    /// It could not be looked up; why.
    Unknown(String),
    /// It is there.
    Found(T),
}

/// A Repository that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct RepositorySeen {
    /// Its spec.
    pub spec: RepositorySpec,
    /// When the first backup through it succeeded.
    pub first_backup: Option<Time>,
    /// There was a repository in the place that it names.
    pub known: bool,
    /// Whether its backend Secret is there; only its metadata was read.
    pub secret: Seen<()>,
    /// Labels of the referring object's namespace; looked up only where the usagePolicy selects by them.
    pub labels: Seen<BTreeMap<String, String>>,
    /// It does not answer.
    pub unreachable: Option<Silence>,
    /// What its condition Ready says, where it is not True.
    pub not_ready: Option<Refusal>,
}

/// A Repository that does not answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// Since when.
    pub since: Timestamp,
    /// What was said.
    pub message: String,
}

/// Why an object is not valid, as admission says it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// `Invalid` or `NotSupported`.
    pub reason: String,
    /// Fields and what is wrong with them.
    pub message: String,
}

/// A target that another session of the namespace restores, or is about to.
#[derive(Clone, Debug, PartialEq)]
pub struct Rival {
    /// The session, as messages name it.
    pub session: String,
    /// When it was created, and its uid: of two that have not begun, the earlier goes first.
    pub order: (Option<Timestamp>, String),
    /// The target, as [`super::restore::rivals::key`] has it.
    pub target: String,
    /// The same, as it is written.
    pub reference: TargetRef,
    /// Its data may be touched, or its workload scaled, already.
    pub begun: bool,
}

/// A claim that a Job of another session writes to, or reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Writer {
    /// The session, as messages name it.
    pub session: String,
    /// The claim.
    pub claim: String,
    /// It is only read, for a backup.
    pub reads: bool,
}

/// What a look found of the surroundings of a session.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Why the object is not valid.
    pub refusal: Option<Refusal>,
    /// Members that are still to be taken from a BackupBatch.
    pub source: Seen<Adopted>,
    /// Its Repository.
    pub repository: Seen<RepositorySeen>,
    /// The target of each member.
    pub targets: Vec<TargetSeen>,
    /// Pod Security level that its namespace enforces.
    pub pod_security: Level,
    /// Settings of its Jobs that the object does not name; what is wrong with them.
    pub job_defaults: Result<RuntimeSettings, String>,
    /// Its Jobs.
    pub jobs: Vec<JobSeen>,
    /// Room for more of them on its Repository.
    pub room: Room,
    /// Targets of other sessions that are this one's too.
    pub rivals: Vec<Rival>,
    /// Claims that Jobs of other sessions write to, or read.
    pub writers: Vec<Writer>,
    /// Claims that the API server refused, by name.
    pub refused_claims: BTreeMap<String, Failure>,
    /// Scales that the API server refused, by [`super::Scale::key`].
    pub refused_scales: BTreeMap<String, Failure>,
    /// Annotations of workloads that the API server refused, by [`super::Hold::key`].
    pub refused_holds: BTreeMap<String, Failure>,
    /// What the API server said when rights were to be taken back, a moment ago.
    pub refused_revoke: Option<Failure>,
    /// Progress of running Jobs, by name, as far as it could be had.
    pub progress: BTreeMap<String, Progress>,
}

impl Surroundings {
    /// Settings of Jobs that name none. Where they cannot be read, nothing is built.
    pub fn defaults(&self) -> RuntimeSettings {
        self.job_defaults.clone().unwrap_or_default()
    }
}

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
