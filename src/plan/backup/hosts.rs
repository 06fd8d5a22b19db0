//! Hosts of a backup: found, backed up, counted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

use super::{Invoker, LOOK_AT_RUNNING, LOOK_FOR_MISSING, Pass};
use crate::api::backup_batch::BackupMember;
use crate::api::backup_session::{
    BackupHostPhase, BackupPhase, BackupTargetPhase, BackupTargetStatus, FileStats, HostBackupStats, SnapshotStats,
};
use crate::api::target::BackupTarget;
use crate::names::{PVC_MOUNT, condition, reason};
use crate::plan::access::Access;
use crate::plan::contract::{Answer, Backup, Class, Failure, Outcome, Own, SnapshotMade, Step};
use crate::plan::hosts::{HostSet, TargetKind, normal_path};
use crate::plan::jobs::JobState;
use crate::plan::objects::{self, JobFrame, JobParts};
use crate::plan::restore::display;
use crate::plan::target::{Target, TargetSeen};
use crate::plan::{conditions, duration, retry};

/// Moves every member on as far as order allows; true when all are over.
pub fn advance(pass: &mut Pass<'_>, invoker: &Invoker, frame: &JobFrame, access: &Access) -> bool {
    for index in 0..pass.now.targets.len() {
        if is_over(&pass.now.targets[index]) {
            continue;
        }
        let earlier = &pass.now.targets[..index];
        if invoker.sequential {
            let failed = earlier.iter().position(|t| t.phase == Some(BackupTargetPhase::Failed));
            if let Some(failed) = failed.filter(|_| invoker.stop) {
                let name = label(failed, &pass.now.targets[failed]);
                let status = &mut pass.now.targets[index];
                status.phase = Some(BackupTargetPhase::Skipped);
                let text = format!("Not started: {name} failed, and onFailure is Stop.");
                conditions::set(
                    &mut status.conditions,
                    condition::BACKUP_EXECUTOR_ENSURED,
                    false,
                    reason::NOT_STARTED,
                    text,
                    pass.at,
                );
                continue;
            }
            if !earlier.iter().all(is_over) {
                continue;
            }
        }
        member(pass, &invoker.members[index], index, frame, access);
    }
    pass.now.targets.iter().all(is_over)
}

/// Hosts that have a new snapshot, each with the path of it.
pub fn backed_up(pass: &Pass<'_>) -> Vec<(String, String)> {
    let hosts = pass.now.targets.iter().flat_map(|t| &t.stats);
    hosts
        .filter(|h| h.phase == Some(BackupHostPhase::Succeeded))
        .flat_map(|h| h.snapshots.iter().filter_map(|s| Some((s.path.clone()?, h.hostname.clone()))))
        .map(|(path, host)| (host, path))
        .collect()
}

/// Parts what only this invoker backs up, by path, from what another one backs up under the same name; of that it
/// says who does. Nobody can tell whose those snapshots are, so that no retention may touch them.
pub fn own(pass: &Pass<'_>, done: Vec<(String, String)>) -> (Vec<Own>, Option<String>) {
    let mut own: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut shared = None;
    for (host, path) in done {
        if let Some(other) = pass.run.others.iter().find(|o| o.has(&host, &path)) {
            shared.get_or_insert_with(|| {
                format!(
                    "Retention was not applied to host {host}, path {path}: {} backs up under the same name into the \
                     same repository, so that nobody can tell whose snapshots are whose. Give each target an alias of its own.",
                    other.name
                )
            });
        } else {
            own.entry(path).or_default().push(host);
        }
    }
    (own.into_iter().map(|(path, hosts)| Own { path, hosts }).collect(), shared)
}

/// Hosts a target can have, and what of it is backed up: one snapshot a path.
pub fn named(target: &BackupTarget) -> (HostSet, Vec<String>) {
    let hosts = HostSet::of(TargetKind::of(target.ref_.as_ref()), target.alias.as_deref());
    let mounts = || target.volume_mounts.iter().map(|m| normal_path(&m.mount_path)).collect::<Vec<_>>();
    let paths = match (target.paths.is_empty(), target.volume_mounts.is_empty()) {
        (false, _) => target.paths.iter().map(|p| normal_path(p)).collect(),
        (true, false) => mounts(),
        (true, true) => vec![PVC_MOUNT.to_owned()],
    };
    (hosts, paths)
}

/// Ends a session whose invoker is another one than it was begun with, or is gone: what it has is put under names
/// and into a place that nobody asks for any more.
pub fn give_up(pass: &mut Pass<'_>) {
    let text =
        format!("{} was changed or deleted while the session ran. Create another session.", pass.run.invoker_label);
    let running = pass.seen.jobs.iter().filter(|j| !j.deleting && matches!(j.state, JobState::Active { .. }));
    pass.plan.stop_jobs.extend(running.map(|j| j.name.clone()));
    for status in pass.now.targets.iter_mut().filter(|t| !is_over(t)) {
        status.phase = Some(BackupTargetPhase::Failed);
        for host in status.stats.iter_mut().filter(|h| !host_is_over(h)) {
            host.phase = Some(BackupHostPhase::Failed);
            host.reason = Some(reason::SPEC_CHANGED.to_owned());
            host.error = Some(text.clone());
        }
    }
    super::report::end(pass, BackupPhase::Failed, reason::SPEC_CHANGED, &text);
}

/// How messages name a member.
pub fn label(index: usize, status: &BackupTargetStatus) -> String {
    let name = status.alias.clone().or_else(|| status.ref_.as_ref()?.name.clone()).unwrap_or_default();
    format!("member {index} ({name})")
}

fn is_over(status: &BackupTargetStatus) -> bool {
    matches!(status.phase, Some(BackupTargetPhase::Succeeded | BackupTargetPhase::Failed | BackupTargetPhase::Skipped))
}

fn host_is_over(host: &HostBackupStats) -> bool {
    matches!(host.phase, Some(BackupHostPhase::Succeeded | BackupHostPhase::Failed))
}

fn member(pass: &mut Pass<'_>, spec: &BackupMember, index: usize, frame: &JobFrame, access: &Access) {
    let at = pass.at;
    let status = &mut pass.now.targets[index];
    let name = display(&status.ref_.clone().unwrap_or_default());
    let seen = pass.seen.targets.get(index);
    let Some(TargetSeen::Found(target)) = seen else {
        let text = match seen {
            Some(TargetSeen::Unknown(why)) => format!("Backup target {name} could not be looked up: {why}"),
            _ => format!("Backup target {name} does not exist."),
        };
        let list = &mut status.conditions;
        conditions::set(list, condition::BACKUP_TARGET_FOUND, false, reason::TARGET_NOT_AVAILABLE, &text, at);
        if pass.expired {
            status.phase = Some(BackupTargetPhase::Failed);
        }
        pass.plan.look_again(LOOK_FOR_MISSING);
        return;
    };
    conditions::set(
        &mut status.conditions,
        condition::BACKUP_TARGET_FOUND,
        true,
        reason::TARGET_AVAILABLE,
        format!("Backup target {name} found."),
        at,
    );
    let Some(target_spec) = &spec.target else { return };
    let set = HostSet::of(TargetKind::of_name(&target.kind), target_spec.alias.as_deref());
    if status.stats.is_empty() {
        if let Some(text) = target.too_many() {
            status.phase = Some(BackupTargetPhase::Failed);
            let (list, why) = (&mut status.conditions, reason::BACKUP_EXECUTOR_FAILED);
            conditions::set(list, condition::BACKUP_EXECUTOR_ENSURED, false, why, text, at);
            return;
        }
        let places = target.places();
        if let Some(text) = target.uncounted().filter(|_| !pass.expired) {
            conditions::set(
                &mut status.conditions,
                condition::BACKUP_EXECUTOR_ENSURED,
                false,
                reason::PENDING,
                text,
                at,
            );
            pass.plan.look_again(LOOK_FOR_MISSING);
            return;
        }
        if places.is_empty() {
            status.phase = Some(BackupTargetPhase::Failed);
            let text = format!("{name} has no replicas, no claims and no node, so it has nothing to back up.");
            conditions::set(
                &mut status.conditions,
                condition::BACKUP_EXECUTOR_ENSURED,
                false,
                reason::BACKUP_EXECUTOR_FAILED,
                text,
                at,
            );
            return;
        }
        status.stats = places
            .into_iter()
            .map(|place| HostBackupStats {
                hostname: set.host(&place),
                node: place.node,
                phase: Some(BackupHostPhase::Pending),
                attempt: Some(1),
                ..HostBackupStats::default()
            })
            .collect();
        status.total_hosts = i32::try_from(status.stats.len()).ok();
    }
    status.phase = Some(BackupTargetPhase::Running);
    let limit = spec.time_out.as_deref().and_then(|t| duration::parse(t).ok());
    if let Some(limit) = limit.and_then(|l| SignedDuration::try_from(l).ok()) {
        let end = || Time(conditions::whole_second(at).0.checked_add(limit).unwrap_or(Timestamp::MAX));
        let deadline = status.deadline.get_or_insert_with(end).0;
        if let Some(left) = retry::left(deadline, at) {
            pass.plan.look_again(left);
        }
    }
    for host in 0..status_len(pass, index) {
        back_up(pass, spec, target, index, host, frame, access);
    }
    let status = &mut pass.now.targets[index];
    if status.stats.iter().all(host_is_over) {
        let failed = status.stats.iter().any(|h| h.phase == Some(BackupHostPhase::Failed));
        status.phase = Some(if failed { BackupTargetPhase::Failed } else { BackupTargetPhase::Succeeded });
    }
}

/// Whether the run's deadline has passed, or the member's own.
fn is_late(pass: &Pass<'_>, index: usize) -> bool {
    pass.expired || pass.now.targets[index].deadline.as_ref().is_some_and(|d| pass.at >= d.0)
}

/// Seconds a Job of the member may take: to the nearer of both deadlines.
fn seconds_left(pass: &Pass<'_>, index: usize) -> i64 {
    retry::seconds_left(pass.now.targets[index].deadline.as_ref(), pass.at).min(pass.seconds_left())
}

fn status_len(pass: &Pass<'_>, index: usize) -> usize {
    pass.now.targets[index].stats.len()
}

fn back_up(
    pass: &mut Pass<'_>,
    spec: &BackupMember,
    target: &Target,
    index: usize,
    host: usize,
    frame: &JobFrame,
    access: &Access,
) {
    let entry = pass.now.targets[index].stats[host].clone();
    if host_is_over(&entry) {
        return;
    }
    let key = format!("backup/{index}/{}", entry.hostname);
    let attempt = entry.attempt.unwrap_or(1);
    let late = is_late(pass, index);
    // What the earlier attempt came to stands in status.
    pass.stop(&key, attempt.saturating_sub(1));
    let alone = !pass.seen.jobs.iter().any(|j| j.key == key && j.attempt < attempt);
    match pass.job(&key, attempt).map(|j| &j.state) {
        Some(JobState::Active { .. }) if late => {
            pass.stop(&key, attempt);
            let late = Failure::new(Class::Fatal, reason::DEADLINE_EXCEEDED, "Not backed up before the deadline.");
            fail(pass, index, host, &late);
        }
        Some(JobState::Active { held }) => {
            let slot = &mut pass.now.targets[index].stats[host];
            slot.phase = Some(BackupHostPhase::Running);
            let before = slot.reason.take();
            slot.reason = held.as_ref().map(|f| f.reason.clone());
            slot.error = held.as_ref().map(|f| f.message.clone());
            if let Some(failure) = held {
                pass.plan.warn_of(failure, before.as_deref());
            }
            pass.plan.look_again(LOOK_AT_RUNNING);
        }
        Some(JobState::Done(outcome)) => read(pass, index, host, outcome),
        Some(JobState::Lost(failure)) => {
            if failure.class == Class::Invalid {
                // A pod that can never start is still there.
                pass.stop(&key, attempt);
            }
            fail(pass, index, host, failure);
        }
        None if late => {
            let late = Failure::new(Class::Fatal, reason::DEADLINE_EXCEEDED, "Not backed up before the deadline.");
            fail(pass, index, host, &late);
        }
        // Two that read the same files do no harm, but one is enough.
        None if !alone => pass.plan.look_again(LOOK_AT_RUNNING),
        None => create(pass, spec, target, index, host, frame, access, key),
    }
}

#[allow(clippy::too_many_arguments, reason = "one call, all of it needed to build a Job")]
fn create(
    pass: &mut Pass<'_>,
    spec: &BackupMember,
    target: &Target,
    index: usize,
    host: usize,
    frame: &JobFrame,
    access: &Access,
    key: String,
) {
    let entry = pass.now.targets[index].stats[host].clone();
    if let Some(wait) = entry.not_before.as_ref().and_then(|t| retry::left(t.0, pass.at)) {
        pass.plan.look_again(wait);
        return;
    }
    let Some(target_spec) = &spec.target else { return };
    let set = HostSet::of(TargetKind::of_name(&target.kind), target_spec.alias.as_deref());
    let place = set.place(&entry.hostname, entry.node.as_deref());
    let reach = match target.reach(&target_spec.volume_mounts, &place, true, false) {
        Ok(reach) => reach,
        Err(failure) if failure.class == Class::Waiting => {
            let slot = &mut pass.now.targets[index].stats[host];
            slot.error = Some(failure.message);
            pass.plan.look_again(LOOK_FOR_MISSING);
            return;
        }
        Err(failure) => return fail(pass, index, host, &failure),
    };
    let home = reach.home.clone();
    let paths = if target_spec.paths.is_empty() {
        reach.mount_points()
    } else {
        target_spec.paths.iter().map(|p| normal_path(p)).collect()
    };
    let backup = Backup {
        member: index,
        host: entry.hostname,
        paths,
        exclude: target_spec.exclude.clone(),
        args: target_spec.args.clone(),
    };
    if !pass.gate.admit(&mut pass.plan) {
        return;
    }
    let runtime = spec.runtime_settings.as_ref().or(pass.run.invoker.as_ref().and_then(|i| i.runtime.as_ref()));
    let no_cache = spec.temp_dir.as_ref().and_then(|t| t.disable_caching);
    let mut task = pass.task(access, runtime, no_cache, Step::Backup(backup));
    task.settings.interim = spec.interim_volume_template.is_some();
    let parts = JobParts {
        key,
        attempt: entry.attempt.unwrap_or(1),
        runtime,
        temp_dir: spec.temp_dir.as_ref(),
        interim: spec.interim_volume_template.as_ref(),
        unowned: false,
        reach,
        seconds_left: seconds_left(pass, index),
    };
    let claim = objects::interim_claim(frame, &parts);
    let job = objects::job(frame, &task, parts);
    if let Err(failure) = pass.may_run(&job) {
        return fail(pass, index, host, &failure);
    }
    pass.plan.claims.extend(claim);
    pass.plan.jobs.push(job);
    pass.plan.look_again(LOOK_AT_RUNNING);
    let at = pass.at;
    let status = &mut pass.now.targets[index];
    status.stats[host].phase = Some(BackupHostPhase::Running);
    status.stats[host].node = home;
    conditions::set(
        &mut status.conditions,
        condition::BACKUP_EXECUTOR_ENSURED,
        true,
        reason::BACKUP_EXECUTOR_ENSURED,
        "Successfully ensured backup executor.",
        at,
    );
}

fn read(pass: &mut Pass<'_>, index: usize, host: usize, outcome: &Outcome) {
    let slot = &mut pass.now.targets[index].stats[host];
    slot.duration = Some(duration::format(std::time::Duration::from_secs_f64(outcome.seconds.clamp(0.0, 1e9))));
    if let Some(Answer::BackedUp(made)) = &outcome.answer {
        slot.snapshots = made.iter().map(snapshot).collect();
    }
    match &outcome.failure {
        Some(failure) => fail(pass, index, host, failure),
        None if outcome.run != pass.run.id.uid || slot.snapshots.is_empty() => {
            let lost = Failure::new(Class::Fatal, reason::AGENT_FAILED, "The Job ended without the snapshots it made.");
            fail(pass, index, host, &lost);
        }
        None => {
            slot.phase = Some(BackupHostPhase::Succeeded);
            slot.error = None;
            slot.reason = None;
            slot.not_before = None;
        }
    }
}

fn fail(pass: &mut Pass<'_>, index: usize, host: usize, failure: &Failure) {
    let at = pass.at;
    let late = is_late(pass, index);
    let slot = &mut pass.now.targets[index].stats[host];
    slot.pod_deaths = retry::deaths(failure, slot.pod_deaths);
    let again = !late && retry::again(failure, slot.pod_deaths);
    let attempt = slot.attempt.unwrap_or(1);
    slot.reason = Some(failure.reason.clone());
    slot.error = Some(failure.message.clone());
    if again {
        pass.plan.note(failure);
        slot.attempt = Some(attempt.saturating_add(1));
        slot.not_before = Some(conditions::whole_second(retry::not_before(attempt, at)));
        pass.plan.look_again(retry::wait_after(attempt));
    } else {
        slot.phase = Some(BackupHostPhase::Failed);
        slot.not_before = None;
        let text = format!(
            "Backup of host {} of {} failed: {}",
            slot.hostname.clone(),
            label(index, &pass.now.targets[index]),
            failure.message
        );
        pass.event(true, &failure.reason, &text);
    }
}

fn snapshot(made: &SnapshotMade) -> SnapshotStats {
    let i = |n: u64| i64::try_from(n).ok();
    SnapshotStats {
        name: Some(made.id.chars().take(8).collect()),
        path: Some(made.path.clone()),
        total_size: Some(size(made.total_bytes)),
        uploaded: Some(size(made.uploaded_bytes)),
        processing_time: Some(duration::format(std::time::Duration::from_secs_f64(made.seconds.clamp(0.0, 1e9)))),
        file_stats: Some(FileStats {
            total_files: i(made.total_files),
            new_files: i(made.new_files),
            modified_files: i(made.modified_files),
            unmodified_files: i(made.unmodified_files),
        }),
    }
}

/// Bytes for people, as restic and Stash write them: `3.408 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    #[allow(clippy::cast_precision_loss, reason = "three decimals are shown")]
    let mut value = bytes as f64;
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    value /= 1024.0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.3} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_read_as_restic_writes_them() {
        assert_eq!(super::size(0), "0 B");
        assert_eq!(super::size(1024), "1.000 KiB");
        assert_eq!(super::size(3_573_547), "3.408 MiB");
        assert_eq!(super::size(u64::MAX), "16384.000 PiB");
    }
}
