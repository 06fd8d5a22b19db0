//! A backup as the plan sees it: a BackupConfiguration is a batch of one.

use crate::api::backup_batch::BackupMember;
use crate::api::backup_session::BackupSessionStatus;
use crate::api::common::{RepositoryRef, RetentionPolicy, RetryConfig, TargetRef};
use crate::api::runtime::RuntimeSettings;
use crate::api::to_json;
use crate::names::hash_of;
use crate::plan::run::hosts::HostSet;
use crate::plan::seen::Refusal;
use crate::plan::seen::identity::Identity;

/// A backup as the plan sees it: a BackupConfiguration is a batch of one.
#[derive(Clone, Debug, Default)]
pub struct BackupRun {
    /// The session.
    pub id: Identity,
    /// The invoker, if it exists.
    pub invoker: Option<Invoker>,
    /// How messages name the invoker: kind and name.
    pub invoker_label: String,
    /// Why the session itself is not valid. The surroundings hold the same for the invoker.
    pub refusal: Option<Refusal>,
    /// Name of another running session of the invoker.
    pub running: Option<String>,
    /// Number of retry sessions that may follow this one, if the session sets it itself.
    pub retry_left: Option<i32>,
    /// The session was canceled: it is to end, or is ending already.
    pub canceled: bool,
    /// Other invokers that back up into the same place.
    pub others: Vec<Neighbour>,
    /// Its status, as last written.
    pub state: BackupSessionStatus,
}

/// The spec of a BackupConfiguration or BackupBatch.
#[derive(Clone, Debug, Default)]
pub struct Invoker {
    /// The object.
    pub id: Identity,
    /// No session starts by itself.
    pub paused: bool,
    /// How a failed session is retried.
    pub retry: Option<RetryConfig>,
    /// Where the data goes.
    pub repository: Option<RepositoryRef>,
    /// What is backed up.
    pub members: Vec<BackupMember>,
    /// What is kept.
    pub retention: RetentionPolicy,
    /// Members run one after another.
    pub sequential: bool,
    /// Members after a failed one are not started.
    pub stop: bool,
    /// Longest time a session may take, as written.
    pub time_out: Option<String>,
    /// Settings of Jobs that belong to no member.
    pub runtime: Option<RuntimeSettings>,
}

impl Invoker {
    /// The target that the labels of its sessions name.
    pub fn first_target(&self) -> Option<&TargetRef> {
        self.members.first()?.target.as_ref()?.ref_.as_ref()
    }

    /// Hash of what a session is planned from; retention and times may change while it runs.
    pub fn hash(&self) -> String {
        let what = serde_json::json!([to_json(&self.repository), to_json(&self.members)]);
        hash_of(&[&what.to_string(), &self.sequential.to_string(), &self.stop.to_string()])
    }
}

/// Another invoker with the same repository, with what identifies its snapshots.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Its kind and name.
    pub name: String,
    /// Hosts and paths of each of its targets.
    pub targets: Vec<(HostSet, Vec<String>)>,
}

impl Neighbour {
    /// Whether a snapshot of this host and path could belong to this invoker.
    pub fn has(&self, host: &str, path: &str) -> bool {
        self.targets.iter().any(|(hosts, paths)| hosts.contains(host) && paths.iter().any(|p| p == path))
    }
}
