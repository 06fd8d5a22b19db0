//! What BackupConfiguration and BackupBatch have in common: where their data goes, when they run, what they back up.
//!
//! This module only reads the object. [`plan::invoker`](crate::plan::backup::invoker) decides what follows from it.

use k8s_openapi::api::core::v1::VolumeMount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::core::NamespaceResourceScope;

use crate::api::common::{InvokerPhase, RepositoryRef, RetryConfig, ScheduleInForce};
use crate::api::target::BackupTarget;
use crate::api::{BackupBatch, BackupConfiguration, Condition};
use crate::controller::cache::stored::UserKind;
use crate::names::condition;
use crate::plan::backup::invoker::seen::{MemberSeen, Record};
use crate::plan::run::hosts::{HostSet, TargetKind};

/// A kind that defines what is backed up.
pub trait Invoker: UserKind + Resource<Scope = NamespaceResourceScope> {
    /// The Repository that its data goes to.
    fn reference(&self) -> Option<&RepositoryRef>;
    /// When it runs, and how many of its sessions are kept.
    fn timing(&self) -> Timing<'_>;
    /// What it backs up.
    fn targets(&self) -> Vec<Option<&BackupTarget>>;
    /// Settings of its Jobs, for each target.
    fn members(&self) -> Vec<MemberSeen<'_>>;
    /// Hosts of its targets.
    fn hosts(&self) -> Vec<HostSet>;
    /// Its last written status; `None` when it has not been reconciled yet.
    fn written(&self) -> Option<Written>;
    /// Conditions of each target, as last written.
    fn target_conditions(&self) -> Vec<Vec<Condition>>;
}

/// When an invoker runs, and how many of its sessions are kept.
pub struct Timing<'a> {
    /// Cron expression of its sessions.
    pub schedule: Option<&'a str>,
    /// Time zone of the schedule.
    pub time_zone: Option<&'a str>,
    /// Whether no sessions are scheduled.
    pub paused: bool,
    /// Number of completed sessions that are kept.
    pub history_limit: i32,
    /// How a failed session is retried.
    pub retry: Option<&'a RetryConfig>,
    /// Longest time of a session.
    pub time_out: Option<&'a str>,
}

/// The last written status of an invoker.
#[derive(Default)]
pub struct Written {
    /// Its phase.
    pub phase: Option<InvokerPhase>,
    /// Its own conditions.
    pub conditions: Vec<Condition>,
    /// When the last scheduled session was due.
    pub last: Option<Time>,
    /// When the next scheduled session is due.
    pub next: Option<Time>,
    /// The schedule that is in force.
    pub in_force: Option<ScheduleInForce>,
    /// Results of its backups.
    pub record: Record,
}

/// Number of completed sessions that are kept when the spec sets none (Stash's documented default).
const HISTORY: i32 = 1;

impl Invoker for BackupConfiguration {
    fn reference(&self) -> Option<&RepositoryRef> {
        self.spec.repository.as_ref()
    }
    fn timing(&self) -> Timing<'_> {
        Timing {
            schedule: self.spec.schedule.as_deref(),
            time_zone: self.spec.time_zone.as_deref(),
            paused: self.spec.paused.unwrap_or(false),
            history_limit: self.spec.backup_history_limit.unwrap_or(HISTORY),
            retry: self.spec.retry_config.as_ref(),
            time_out: self.spec.time_out.as_deref(),
        }
    }
    fn written(&self) -> Option<Written> {
        let status = self.status.clone()?;
        let own = status.conditions.into_iter().filter(|c| c.type_ != condition::BACKUP_TARGET_FOUND);
        Some(Written {
            phase: status.phase,
            conditions: own.collect(),
            last: status.last_schedule_time,
            next: status.next_schedule_time,
            in_force: status.schedule_in_force,
            record: Record { last: status.last_backup, success: status.last_success_time },
        })
    }
    fn targets(&self) -> Vec<Option<&BackupTarget>> {
        vec![self.spec.target.as_ref()]
    }
    fn members(&self) -> Vec<MemberSeen<'_>> {
        let spec = &self.spec;
        vec![MemberSeen {
            mounts: mounts(spec.target.as_ref()),
            runtime: spec.runtime_settings.as_ref(),
            temp_dir: spec.temp_dir.as_ref(),
            interim: spec.interim_volume_template.as_ref(),
        }]
    }
    fn hosts(&self) -> Vec<HostSet> {
        hosts_of(self.spec.target.as_ref()).into_iter().collect()
    }
    fn target_conditions(&self) -> Vec<Vec<Condition>> {
        let all = self.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        vec![all.into_iter().filter(|c| c.type_ == condition::BACKUP_TARGET_FOUND).collect()]
    }
}

fn mounts(target: Option<&BackupTarget>) -> &[VolumeMount] {
    target.map(|t| t.volume_mounts.as_slice()).unwrap_or_default()
}

fn hosts_of(target: Option<&BackupTarget>) -> Option<HostSet> {
    let target = target?;
    Some(HostSet::of(TargetKind::of(target.ref_.as_ref()), target.alias.as_deref()))
}

impl Invoker for BackupBatch {
    fn reference(&self) -> Option<&RepositoryRef> {
        self.spec.repository.as_ref()
    }
    fn timing(&self) -> Timing<'_> {
        Timing {
            schedule: self.spec.schedule.as_deref(),
            time_zone: self.spec.time_zone.as_deref(),
            paused: self.spec.paused.unwrap_or(false),
            history_limit: self.spec.backup_history_limit.unwrap_or(HISTORY),
            retry: self.spec.retry_config.as_ref(),
            time_out: self.spec.time_out.as_deref(),
        }
    }
    fn written(&self) -> Option<Written> {
        let status = self.status.clone()?;
        Some(Written {
            phase: status.phase,
            conditions: status.conditions,
            last: status.last_schedule_time,
            next: status.next_schedule_time,
            in_force: status.schedule_in_force,
            record: Record { last: status.last_backup, success: status.last_success_time },
        })
    }
    fn targets(&self) -> Vec<Option<&BackupTarget>> {
        self.spec.members.iter().map(|m| m.target.as_ref()).collect()
    }
    fn members(&self) -> Vec<MemberSeen<'_>> {
        let own = self.spec.runtime_settings.as_ref();
        let of_members = self.spec.members.iter().map(|m| MemberSeen {
            mounts: mounts(m.target.as_ref()),
            runtime: m.runtime_settings.as_ref().or(own),
            temp_dir: m.temp_dir.as_ref(),
            interim: m.interim_volume_template.as_ref(),
        });
        of_members.collect()
    }
    fn hosts(&self) -> Vec<HostSet> {
        self.spec.members.iter().filter_map(|m| hosts_of(m.target.as_ref())).collect()
    }
    fn target_conditions(&self) -> Vec<Vec<Condition>> {
        let all = self.status.as_ref().map(|s| s.member_conditions.clone()).unwrap_or_default();
        all.into_iter().map(|m| m.conditions).collect()
    }
}
