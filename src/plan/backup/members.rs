//! Members of a backup: they are started in order, and their hosts are found, backed up (`act`) and counted.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::backup_session::{BackupHostPhase, BackupPhase, BackupTargetPhase, HostBackupStats};
use crate::names::{condition, reason};
use crate::plan::backup::pass::{Ground, LOOK_FOR_MISSING, Pass};
use crate::plan::backup::run::Invoker;
use crate::plan::backup::status::{host_is_over, label, member_is_over};
use crate::plan::backup::{act, too_large};
use crate::plan::effects::Stop;
use crate::plan::run::hosts::{HostSet, TargetKind, display};
use crate::plan::run::{conditions, duration};
use crate::plan::seen::job_status::JobState;
use crate::plan::seen::target::{Target, TargetSeen};
use crate::plan::systems::application;
use crate::plan::systems::application::found::Way;
use crate::plan::work::retry;

/// Advances every member as far as the order allows. Returns true when all members are over.
pub fn advance(pass: &mut Pass<'_>, invoker: &Invoker, ground: &Ground) -> bool {
    for index in 0..pass.now.targets.len() {
        if member_is_over(&pass.now.targets[index]) {
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
            if !earlier.iter().all(member_is_over) {
                continue;
            }
        }
        member(pass, invoker, index, ground);
    }
    pass.now.targets.iter().all(member_is_over)
}

/// Hosts that have a new snapshot, each with the path of the snapshot.
pub fn backed_up(pass: &Pass<'_>) -> Vec<(String, String)> {
    let hosts = pass.now.targets.iter().flat_map(|t| &t.stats);
    hosts
        .filter(|h| h.phase == Some(BackupHostPhase::Succeeded))
        .flat_map(|h| h.snapshots.iter().filter_map(|s| Some((s.path.clone()?, h.hostname.clone()))))
        .map(|(path, host)| (host, path))
        .collect()
}

/// Separates what only this invoker backs up, hosts by path, from what another invoker backs up under the same name.
/// For the latter, a message names the other invoker: the snapshots of the two cannot be distinguished, so retention
/// must not touch them.
pub fn own(pass: &Pass<'_>, done: Vec<(String, String)>) -> (BTreeMap<String, Vec<String>>, Option<String>) {
    let mut own: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut shared = None;
    for (host, path) in done {
        if let Some(other) = pass.run.others.iter().find(|o| o.has(&host, &path)) {
            shared.get_or_insert_with(|| {
                format!(
                    "Retention was not applied to host {host}, path {path}: {} uses the same host and path in the \
                     same repository, so their snapshots cannot be distinguished. Give each target its own alias.",
                    other.name
                )
            });
        } else {
            own.entry(path).or_default().push(host);
        }
    }
    (own, shared)
}

/// Ends a running session. Its invoker was changed or deleted, so its data would be stored under names and in a place
/// that are no longer requested; or its status cannot be written.
pub fn give_up(pass: &mut Pass<'_>, why: &str, text: &str) {
    let running = pass.seen.jobs.iter().filter(|j| !j.deleting && matches!(j.state, JobState::Active { .. }));
    pass.plan.stop_jobs.extend(running.map(Stop::of));
    for status in pass.now.targets.iter_mut().filter(|t| !member_is_over(t)) {
        status.phase = Some(BackupTargetPhase::Failed);
        for host in status.stats.iter_mut().filter(|h| !host_is_over(h)) {
            host.phase = Some(BackupHostPhase::Failed);
            host.reason = Some(why.to_owned());
            host.error = Some(text.to_owned());
        }
    }
    crate::plan::backup::conclude::end(pass, BackupPhase::Failed, why, text);
}

fn member(pass: &mut Pass<'_>, invoker: &Invoker, index: usize, ground: &Ground) {
    let (at, spec) = (pass.at, &invoker.members[index]);
    let target = find(pass, index);
    if pass.now.targets[index].stats.is_empty() && !target.is_some_and(|t| count(pass, invoker, t, index)) {
        return;
    }
    let status = &mut pass.now.targets[index];
    status.phase = Some(BackupTargetPhase::Running);
    let limit = spec.time_out.as_deref().and_then(|t| duration::parse(t).ok());
    if let Some(limit) = limit.and_then(|l| SignedDuration::try_from(l).ok()) {
        let end = || Time(conditions::whole_second(at).0.checked_add(limit).unwrap_or(Timestamp::MAX));
        let deadline = status.deadline.get_or_insert_with(end).0;
        if let Some(left) = retry::left(deadline, at) {
            pass.plan.look_again(left);
        }
    }
    for host in 0..pass.now.targets[index].stats.len() {
        act::back_up(pass, spec, target, index, host, ground);
    }
    let status = &mut pass.now.targets[index];
    if status.stats.iter().all(host_is_over) {
        let failed = status.stats.iter().any(|h| h.phase == Some(BackupHostPhase::Failed));
        status.phase = Some(if failed { BackupTargetPhase::Failed } else { BackupTargetPhase::Succeeded });
    }
}

/// Finds the target of a member, and sets the condition that says whether the target exists. A target whose hosts are
/// known may be deleted while they are backed up: running Jobs are read to their end. A member whose target never
/// appears fails at the deadline.
fn find<'a>(pass: &mut Pass<'a>, index: usize) -> Option<&'a Target> {
    let status = &mut pass.now.targets[index];
    let name = display(&status.ref_.clone().unwrap_or_default());
    let (target, why, text) = match pass.seen.targets.get(index) {
        Some(TargetSeen::Found(target)) => {
            (Some(target.as_ref()), reason::TARGET_AVAILABLE, format!("Backup target {name} found."))
        }
        Some(TargetSeen::Unknown(why)) => {
            (None, reason::TARGET_NOT_AVAILABLE, format!("Backup target {name} could not be read: {why}"))
        }
        _ => (None, reason::TARGET_NOT_AVAILABLE, format!("Backup target {name} does not exist.")),
    };
    let list = &mut status.conditions;
    conditions::set(list, condition::BACKUP_TARGET_FOUND, target.is_some(), why, text, pass.at);
    if target.is_none() {
        if pass.expired && status.stats.is_empty() {
            status.phase = Some(BackupTargetPhase::Failed);
        }
        pass.plan.look_again(LOOK_FOR_MISSING);
    }
    target
}

/// Counts the hosts of a member once. Returns false when there are no hosts, or none yet.
fn count(pass: &mut Pass<'_>, invoker: &Invoker, target: &Target, index: usize) -> bool {
    let spec = &invoker.members[index];
    let Some(target_spec) = &spec.target else { return false };
    if let Some(binding) = &target.application {
        let (namespace, task) = (pass.run.id.namespace.as_str(), spec.task.as_ref());
        let found = application::found::Found { binding, name: &target.name, namespace, task };
        if let Err(failure) = application::check(found, Way::Dump) {
            refuse(pass, index, &failure.message);
            return false;
        }
    }
    let set = HostSet::of(TargetKind::of_name(&target.kind), target_spec.alias.as_deref());
    if let Some(text) = target.too_many() {
        refuse(pass, index, &text);
        return false;
    }
    if let Some(text) = target.uncounted() {
        let status = &mut pass.now.targets[index];
        let list = &mut status.conditions;
        conditions::set(list, condition::BACKUP_EXECUTOR_ENSURED, false, reason::PENDING, text, pass.at);
        if pass.expired {
            status.phase = Some(BackupTargetPhase::Failed);
        }
        pass.plan.look_again(LOOK_FOR_MISSING);
        return false;
    }
    let places = target.places();
    let name = display(&pass.now.targets[index].ref_.clone().unwrap_or_default());
    if places.is_empty() {
        refuse(pass, index, &format!("{name} has no replicas, PVCs or nodes, so there is nothing to back up."));
        return false;
    }
    let stats = places.into_iter().map(|place| HostBackupStats {
        hostname: set.host(&place),
        node: place.node,
        phase: Some(BackupHostPhase::Pending),
        attempt: Some(1),
        ..HostBackupStats::default()
    });
    let stats: Vec<_> = stats.collect();
    let large = too_large::refusal_of(pass, invoker, index, target);
    if let Some(text) = large.or_else(|| taken(pass, index, &stats)) {
        refuse(pass, index, &text);
        return false;
    }
    let status = &mut pass.now.targets[index];
    status.total_hosts = i32::try_from(stats.len()).ok();
    status.stats = stats;
    true
}

/// Message for a member that has a host of another member. The hosts of a target may depend on node names, which are
/// not known when the manifest is admitted. With one name for two hosts, the newest snapshot of one host is the newest
/// of the other.
fn taken(pass: &Pass<'_>, index: usize, stats: &[HostBackupStats]) -> Option<String> {
    let others = pass.now.targets.iter().enumerate().filter(|(i, _)| *i != index);
    let mut others = others.flat_map(|(i, t)| t.stats.iter().map(move |h| (i, t, h)));
    let (other, status, host) = others.find(|(_, _, h)| stats.iter().any(|s| s.hostname == h.hostname))?;
    Some(format!(
        "Host {} is also a host of {}, so their snapshots could not be distinguished. Set another target.alias for one of them.",
        host.hostname,
        label(other, status)
    ))
}

/// Ends a member of which no host can be backed up.
fn refuse(pass: &mut Pass<'_>, index: usize, text: &str) {
    let status = &mut pass.now.targets[index];
    status.phase = Some(BackupTargetPhase::Failed);
    let (list, why) = (&mut status.conditions, reason::BACKUP_EXECUTOR_FAILED);
    conditions::set(list, condition::BACKUP_EXECUTOR_ENSURED, false, why, text, pass.at);
}
