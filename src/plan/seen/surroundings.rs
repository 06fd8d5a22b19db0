//! The cluster as it was read for one reconcile: everything that a decision may depend on.

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

/// A target that another session of the namespace restores, or is about to restore.
#[derive(Clone, Debug, PartialEq)]
pub struct Rival {
    /// The session, as messages name it.
    pub session: String,
    /// Creation time and uid of the session: of two sessions that have not begun, the earlier one goes first.
    pub order: (Option<Timestamp>, String),
    /// The target, as [`crate::plan::run::hosts::target_key`] has it.
    pub target: String,
    /// The same, as it is written.
    pub reference: TargetRef,
    /// The data of the target may already be changed, or its workload scaled.
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

/// The surroundings of a session, as they were read for one reconcile.
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
    /// Default settings of its Jobs, for fields that the object does not set; or what is wrong with them.
    pub job_defaults: Result<RuntimeSettings, String>,
    /// Its Jobs.
    pub jobs: Vec<JobSeen>,
    /// Room for more Jobs on its Repository.
    pub room: Room,
    /// Room for more Jobs on the other systems of which its Jobs take slots, by key.
    pub rooms: BTreeMap<String, Room>,
    /// Targets that other sessions have in common with this session.
    pub rivals: Vec<Rival>,
    /// Claims that Jobs of other sessions write to, or read.
    pub writers: Vec<Writer>,
    /// Claims that the API server refused, by name.
    pub refused_claims: BTreeMap<String, Failure>,
    /// Scales that the API server refused, by [`crate::plan::effects::Scale::key`].
    pub refused_scales: BTreeMap<String, Failure>,
    /// Annotations of workloads that the API server refused, by [`crate::plan::effects::Hold::key`].
    pub refused_holds: BTreeMap<String, Failure>,
    /// What the API server answered a moment ago to the revocation of rights.
    pub refused_revoke: Option<Failure>,
    /// Progress of running Jobs, by name, as far as it is known.
    pub progress: BTreeMap<String, Progress>,
}

impl Surroundings {
    /// Marks all slots as taken. There are `most` slots of each kind.
    pub fn no_room(&mut self, most: usize) {
        let none = Room { free: 0, ahead: most };
        self.room = none;
        self.rooms.values_mut().for_each(|room| *room = none);
    }

    /// Default settings of Jobs. If they cannot be read, no Job is built.
    pub fn defaults(&self) -> RuntimeSettings {
        self.job_defaults.clone().unwrap_or_default()
    }
}
