//! What one look at the cluster found: all that a decision may depend on.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::api::common::TargetRef;
use crate::api::restore_batch::Adopted;
use crate::api::runtime::RuntimeSettings;
use crate::contract::{Failure, Progress};
use crate::plan::repository::slots::queue::Room;
use crate::plan::seen::job_status::JobSeen;
use crate::plan::seen::repository::RepositorySeen;
use crate::plan::seen::target::TargetSeen;
use crate::plan::seen::{Refusal, Seen};
use crate::plan::work::pod_security::Level;

/// A target that another session of the namespace restores, or is about to.
#[derive(Clone, Debug, PartialEq)]
pub struct Rival {
    /// The session, as messages name it.
    pub session: String,
    /// When it was created, and its uid: of two that have not begun, the earlier goes first.
    pub order: (Option<Timestamp>, String),
    /// The target, as [`crate::plan::run::hosts::target_key`] has it.
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
    /// The same of what else its Jobs take slots of, by key.
    pub rooms: BTreeMap<String, Room>,
    /// Targets of other sessions that are this one's too.
    pub rivals: Vec<Rival>,
    /// Claims that Jobs of other sessions write to, or read.
    pub writers: Vec<Writer>,
    /// Claims that the API server refused, by name.
    pub refused_claims: BTreeMap<String, Failure>,
    /// Scales that the API server refused, by [`crate::plan::effects::Scale::key`].
    pub refused_scales: BTreeMap<String, Failure>,
    /// Annotations of workloads that the API server refused, by [`crate::plan::effects::Hold::key`].
    pub refused_holds: BTreeMap<String, Failure>,
    /// What the API server said when rights were to be taken back, a moment ago.
    pub refused_revoke: Option<Failure>,
    /// Progress of running Jobs, by name, as far as it could be had.
    pub progress: BTreeMap<String, Progress>,
}

impl Surroundings {
    /// What room there was is gone. There are `most` slots of each kind.
    pub fn no_room(&mut self, most: usize) {
        let none = Room { free: 0, ahead: most };
        self.room = none;
        self.rooms.values_mut().for_each(|room| *room = none);
    }

    /// Settings of Jobs that name none. Where they cannot be read, nothing is built.
    pub fn defaults(&self) -> RuntimeSettings {
        self.job_defaults.clone().unwrap_or_default()
    }
}
