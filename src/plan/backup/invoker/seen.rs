//! An invoker as it was found, and what is to be done about it.
use std::time::Duration;

use k8s_openapi::api::core::v1::VolumeMount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::api::Condition;
use crate::api::backup_session::{BackupPhase, LastBackup};
use crate::api::common::{EmptyDirSettings, InvokerPhase, RepositoryRef, RetryConfig, ScheduleInForce, TargetRef};
use crate::api::runtime::RuntimeSettings;
use crate::api::volume::PvcTemplate;
use crate::plan::backup::sessions::NewSession;
use crate::plan::effects::Event;
use crate::plan::run::conditions;
use crate::plan::seen::identity::Identity;
use crate::plan::seen::repository::RepositorySeen;
use crate::plan::seen::target::TargetSeen;
use crate::plan::seen::{Refusal, Seen};
use crate::plan::work::pod_security::Level;

/// An invoker as it was found.
#[derive(Clone, Debug)]
pub struct InvokerSeen<'a> {
    /// The invoker.
    pub id: Identity,
    /// When it was created.
    pub created: Timestamp,
    /// The invoker was not reconciled before.
    pub is_new: bool,
    /// Its schedule.
    pub schedule: Option<&'a str>,
    /// Time zone of its schedule.
    pub time_zone: Option<&'a str>,
    /// The schedule that was in force, as last written.
    pub in_force: Option<ScheduleInForce>,
    /// How a failed session is retried.
    pub retry: Option<&'a RetryConfig>,
    /// The first of its targets, which the labels of its sessions name.
    pub first_target: Option<&'a TargetRef>,
    /// Settings of its Jobs, for each target.
    pub members: Vec<MemberSeen<'a>>,
    /// Pod Security level that its namespace enforces.
    pub pod_security: Level,
    /// Settings of its Jobs that the invoker does not set, or what is wrong with them.
    pub job_defaults: Result<RuntimeSettings, String>,
    /// Scheduled backups are paused.
    pub paused: bool,
    /// Its Repository's reference.
    pub reference: Option<&'a RepositoryRef>,
    /// Completed sessions to keep.
    pub history_limit: i32,
    /// Why it is not valid.
    pub refusal: Option<Refusal>,
    /// Its Repository.
    pub repository: Seen<RepositorySeen>,
    /// Its targets as they were found, each with its name in messages.
    pub targets: Vec<(String, TargetSeen)>,
    /// Conditions of each target as last written.
    pub target_conditions: Vec<Vec<Condition>>,
    /// Its sessions.
    pub sessions: Vec<SessionSeen>,
    /// Conditions as last written.
    pub conditions: Vec<Condition>,
    /// The last scheduled time as last written.
    pub last: Option<Time>,
    /// Results of its backups, as last written.
    pub record: Record,
}

/// Settings of the Job that backs a target up.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemberSeen<'a> {
    /// What it mounts, and where.
    pub mounts: &'a [VolumeMount],
    /// Settings of its pod.
    pub runtime: Option<&'a RuntimeSettings>,
    /// Its scratch volume.
    pub temp_dir: Option<&'a EmptyDirSettings>,
    /// The PVC in place of the scratch volume.
    pub interim: Option<&'a PvcTemplate>,
}

/// A session of an invoker.
#[derive(Clone, Debug)]
pub struct SessionSeen {
    /// Name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it ended, if it has begun.
    pub ended: Option<Timestamp>,
    /// A user created it.
    pub by_hand: bool,
    /// Its phase.
    pub phase: Option<BackupPhase>,
    /// Why it is in that phase, in one word.
    pub reason: Option<String>,
    /// It failed, and its retry session is not created yet.
    pub has_retry_due: bool,
}

/// What to do about an invoker.
#[derive(Clone, Debug)]
pub struct InvokerPlan {
    /// A session to create.
    pub create: Option<NewSession>,
    /// Sessions to delete.
    pub delete: Vec<String>,
    /// Its phase.
    pub phase: InvokerPhase,
    /// Backups can be taken as far as the Repository is concerned. From then on, what names the backups is fixed.
    pub has_ground: bool,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// Conditions of each target.
    pub target_conditions: Vec<Vec<Condition>>,
    /// The last scheduled time.
    pub last: Option<Time>,
    /// The next scheduled time.
    pub next: Option<Time>,
    /// The schedule that is in force.
    pub in_force: Option<ScheduleInForce>,
    /// Results of its backups.
    pub record: Record,
    /// Events to publish.
    pub events: Vec<Event>,
    /// When to reconcile again.
    pub requeue: Option<Duration>,
}

impl InvokerPlan {
    /// Requeues after this time, if not sooner.
    pub fn look_again(&mut self, after: Duration) {
        self.requeue = Some(self.requeue.map_or(after, |before| before.min(after)));
    }
}

/// Results of the backups of an invoker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The last backup that ended.
    pub last: Option<LastBackup>,
    /// When the last successful backup ended.
    pub success: Option<Time>,
}

impl Record {
    /// The record, updated from the existing sessions. Sessions of an earlier invoker with the same name do not count,
    /// and neither do times after `latest`.
    #[must_use]
    pub fn with(&self, sessions: &[SessionSeen], created: Timestamp, latest: Timestamp) -> Self {
        let mut all = self.clone();
        all.last.take_if(|last| last.time.0 > latest);
        all.success.take_if(|success| success.0 > latest);
        for session in sessions {
            let ended = session.ended.filter(|t| (created..=latest).contains(t));
            let Some(ended) = ended.map(conditions::whole_second) else { continue };
            // A skipped session is no backup: the record of the last backup stays.
            let Some(phase @ (BackupPhase::Succeeded | BackupPhase::Failed)) = session.phase else { continue };
            if phase == BackupPhase::Succeeded && all.success.as_ref().is_none_or(|t| t.0 < ended.0) {
                all.success = Some(ended.clone());
            }
            let is_newer = |last: &LastBackup| (last.time.0, &last.session) < (ended.0, &session.name);
            if all.last.as_ref().is_none_or(is_newer) {
                let (session, reason) = (session.name.clone(), session.reason.clone());
                all.last = Some(LastBackup { session, phase, reason, time: ended });
            }
        }
        all
    }
}
