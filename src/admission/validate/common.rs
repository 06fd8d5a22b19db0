//! Parts that several kinds share: driver, repository, task, hooks, times, retention.
//!
//! Each function takes the path of its field, so that a message names the field as the user wrote it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::admission::error::Errors;
use crate::admission::validate::runtime;
use crate::api::common::{Driver, RepositoryRef, RetentionPolicy, RetryConfig, TaskRef};
use crate::api::volume::PvcTemplate;
use crate::names;
use crate::plan::backup::schedule;
use crate::plan::backup::schedule::Schedule;
use crate::plan::run::duration;
use crate::plan::run::hosts::TargetKind;
use crate::plan::systems;
use crate::plan::systems::application::task as application;
use crate::plan::systems::restic::pattern;

/// Whether data is read or written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// Out of the target.
    Backup,
    /// Into the target.
    Restore,
}

impl Direction {
    const fn task(self) -> &'static str {
        match self {
            Self::Backup => names::TASK_PVC_BACKUP,
            Self::Restore => names::TASK_PVC_RESTORE,
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        }
    }
}

/// A driver.
pub fn driver(errors: &mut Errors, at: &str, driver: Driver) {
    if systems::of(driver, None).is_none() {
        errors.not_supported(at, format!("{driver:?} is not supported yet; use Restic"));
    }
}

/// The driver, and the repository that restic needs.
pub fn driver_and_repository(errors: &mut Errors, driver: Driver, repository: Option<&RepositoryRef>) {
    self::driver(errors, "spec.driver", driver);
    self::repository(errors, &[driver], repository);
}

/// The Repository of a run whose parts have these drivers.
pub fn repository(errors: &mut Errors, drivers: &[Driver], repository: Option<&RepositoryRef>) {
    match repository {
        None if drivers.contains(&Driver::Restic) => {
            errors.invalid("spec.repository", "is missing; driver Restic needs the name of a Repository");
        }
        Some(repository) => name(errors, "spec.repository.name", &repository.name, "a Repository"),
        None => {}
    }
}

/// A name of an object of Kubernetes.
pub fn name(errors: &mut Errors, at: &str, name: &str, what: &str) {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.is_empty() {
        errors.invalid(at, format!("is empty; write the name of {what}"));
    } else if name.len() > 253 || !name.chars().all(fits) {
        errors.invalid(at, format!("{name:?} is not a valid name; use lower-case letters, digits, - and ."));
    }
}

/// The task of files, which is built in or absent.
pub fn task(errors: &mut Errors, at: &str, task: Option<&TaskRef>, target: TargetKind, direction: Direction) {
    let Some(task) = task else { return };
    if !task.params.is_empty() {
        errors.not_supported(
            format!("{at}.params"),
            "parameters of tasks are not supported yet; the built-in tasks have none",
        );
    }
    let Some(name) = task.name.as_deref().filter(|n| !n.is_empty()) else { return };
    let (at, right) = (format!("{at}.name"), direction.task());
    if application::addon(name).is_some() {
        let text = format!("{name} is only for an AppBinding; write target.ref with its name, or remove the task");
        return errors.invalid(at, text);
    }
    if !matches!(name, names::TASK_PVC_BACKUP | names::TASK_PVC_RESTORE) {
        let what = format!("task {name:?} is not supported yet; for a PersistentVolumeClaim use {right}");
        errors.not_supported(at, what);
    } else if name != right {
        errors.invalid(at, format!("{name} does not fit a {}; write {right}", direction.noun()));
    } else if target.is_workload() {
        errors.invalid(at, format!("{name} is only for a PersistentVolumeClaim; remove it for a workload"));
    }
}

/// Whether a task other than the built-in ones is named: that task then defines the form of the target.
pub fn has_foreign_task(task: Option<&TaskRef>) -> bool {
    let is_own = |n: &str| matches!(n, "" | names::TASK_PVC_BACKUP | names::TASK_PVC_RESTORE);
    task.and_then(|t| t.name.as_deref()).is_some_and(|n| !is_own(n) && application::addon(n).is_none())
}

/// Whether the field is set, and is not an empty object.
pub fn is_set<T: Default + PartialEq>(value: Option<&T>) -> bool {
    value.is_some_and(|v| *v != T::default())
}

/// `cancel` cannot be set back. `what` is what a new object would do.
pub fn cancel(errors: &mut Errors, new: Option<bool>, old: Option<bool>, what: &str) {
    if old == Some(true) && new != Some(true) {
        errors.invalid(
            "spec.cancel",
            format!("was true, and cannot be taken back; create another object to {what} again"),
        );
    }
}

/// Hooks of any kind.
pub fn hooks(errors: &mut Errors, at: &str, is_set: bool) {
    if is_set {
        errors.not_supported(
            at,
            "hooks are not supported yet; remove them, and run their actions before and after the session",
        );
    }
}

/// A PVC for dumps.
pub fn interim_volume(errors: &mut Errors, at: &str, template: Option<&PvcTemplate>) {
    let Some(template) = template else { return };
    if template.metadata.as_ref().and_then(|m| m.namespace.as_deref()).is_some_and(|n| !n.is_empty()) {
        errors.invalid(
            format!("{at}.metadata.namespace"),
            "must not be set: the PVC is created in the namespace of the session",
        );
    }
    if template.metadata.as_ref().is_some_and(|m| !m.owner_references.is_empty()) {
        errors.invalid(format!("{at}.metadata.ownerReferences"), "must not be set: the PVC belongs to the session");
    }
    let spec = template.spec.clone().unwrap_or_default();
    let size = spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage"));
    if !size.is_some_and(|q| runtime::is_size(&q.0)) {
        errors.invalid(format!("{at}.spec.resources.requests.storage"), "is not a valid size; write for example 10Gi");
    }
    let modes = spec.access_modes.unwrap_or_default();
    if !modes.iter().any(|m| m.starts_with("ReadWrite")) {
        errors.invalid(format!("{at}.spec.accessModes"), "names no mode that can write; write [ReadWriteOnce]");
    }
}

/// A duration greater than zero.
pub fn positive_duration(errors: &mut Errors, at: &str, text: Option<&str>) {
    match text.map(duration::parse) {
        Some(Err(e)) => errors.invalid(at, e),
        Some(Ok(d)) if d < Duration::from_secs(1) => {
            errors.invalid(at, "is shorter than a second; write for example 30m");
        }
        None | Some(Ok(_)) => {}
    }
}

/// A point in time.
pub fn time(errors: &mut Errors, at: &str, text: Option<&str>) {
    if let Some(text) = text.filter(|t| t.parse::<Timestamp>().is_err()) {
        errors.invalid(at, format!("{text:?} is not a valid time; write for example 2026-11-20T16:00:00Z"));
    }
}

/// The backup that a session restores, for rules without their own selection.
pub fn selection(errors: &mut Errors, as_of: Option<&str>, backup_session: Option<&str>) {
    time(errors, "spec.asOf", as_of);
    let Some(session) = backup_session else { return };
    let parts: Vec<&str> = session.split('/').collect();
    if parts.len() > 2 {
        errors.invalid("spec.backupSession", format!("{session:?} is not a valid name; write name, or namespace/name"));
    }
    for part in parts {
        name(errors, "spec.backupSession", part, "a BackupSession");
    }
    if let Some(as_of) = as_of {
        errors.invalid("spec.asOf", format!("is {as_of}, but spec.backupSession is {session}; set one of them"));
    }
}

/// A schedule and its time zone. An empty schedule means none, because charts write it so.
pub fn schedule(errors: &mut Errors, text: Option<&str>, time_zone: Option<&str>) {
    let text = text.filter(|t| !t.is_empty());
    if let Err(e) = schedule::zone(time_zone) {
        errors.invalid("spec.timeZone", e);
    } else if text.is_none() && time_zone.is_some() {
        errors.invalid(
            "spec.timeZone",
            "is that of a schedule, but spec.schedule is missing; write it, or remove timeZone",
        );
    }
    match text.map(Schedule::parse) {
        Some(Err(e)) => errors.invalid("spec.schedule", e),
        Some(Ok(s)) if !s.is_possible() => {
            errors.invalid("spec.schedule", "never comes: no month named has the day named");
        }
        None | Some(Ok(_)) => {}
    }
}

/// Sessions to keep.
pub fn history_limit(errors: &mut Errors, limit: Option<i32>) {
    if let Some(limit) = limit.filter(|l| *l < 0) {
        errors.invalid("spec.backupHistoryLimit", format!("is {limit}; write 0 or more"));
    }
}

/// Retries of a failed session.
pub fn retry(errors: &mut Errors, retry: Option<&RetryConfig>) {
    let Some(retry) = retry else { return };
    positive_duration(errors, "spec.retryConfig.delay", retry.delay.as_deref());
    match retry.max_retry {
        Some(n) if n < 0 => errors.invalid("spec.retryConfig.maxRetry", format!("is {n}; write 0 or more")),
        _ => {}
    }
}

/// The retention policy.
pub fn retention(errors: &mut Errors, policy: &RetentionPolicy) {
    let keeps = [
        ("keepLast", policy.keep_last),
        ("keepHourly", policy.keep_hourly),
        ("keepDaily", policy.keep_daily),
        ("keepWeekly", policy.keep_weekly),
        ("keepMonthly", policy.keep_monthly),
        ("keepYearly", policy.keep_yearly),
    ];
    for (field, n) in keeps.iter().filter_map(|(f, n)| n.filter(|n| *n < 0).map(|n| (f, n))) {
        errors.invalid(format!("spec.retentionPolicy.{field}"), format!("is {n}; must be 1 or more, or absent"));
    }
    for (i, _) in policy.keep_tags.iter().enumerate().filter(|(_, t)| t.trim().is_empty()) {
        errors.invalid(format!("spec.retentionPolicy.keepTags[{i}]"), "is empty; write a tag");
    }
    for (i, text) in policy.keep_tags.iter().enumerate().filter_map(|(i, t)| Some((i, pattern::no_nul(t).err()?))) {
        errors.invalid(format!("spec.retentionPolicy.keepTags[{i}]"), text);
    }
    let keeps_nothing = keeps.iter().all(|(_, n)| n.is_none_or(|n| n == 0)) && policy.keep_tags.is_empty();
    if policy.prune && keeps_nothing {
        errors.invalid(
            "spec.retentionPolicy",
            "removes data (prune: true) but names nothing to keep; set one of keepLast, keepHourly, keepDaily, \
             keepWeekly, keepMonthly, keepYearly or keepTags",
        );
    }
}
