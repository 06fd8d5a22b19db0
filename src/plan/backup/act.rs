//! One host of a backup: its Job is created, observed, read, and retried.
//!
//! A backup writes nothing to a target, so a Job needs no announcement. A Job waits for sessions that restore the data
//! that it would read: a snapshot of a half-finished restore is no backup, and retention would remove the last good
//! snapshot in favor of it.

use crate::api::backup_batch::BackupMember;
use crate::api::backup_session::{BackupHostPhase, HostBackupStats};
use crate::contract::{Class, Failure, Outcome, Part, Task, Work};
use crate::names::{condition, reason};
use crate::plan::backup::pass::{Ground, LOOK_AT_PROGRESS, LOOK_FOR_MISSING, Pass};
use crate::plan::backup::status::{host_is_over, label};
use crate::plan::effects::{Event, warn};
use crate::plan::restore::held_note;
use crate::plan::run::hosts::{HostSet, TargetKind, display};
use crate::plan::run::{conditions, duration, hosts};
use crate::plan::seen::progress::progress;
use crate::plan::seen::target::{Reach, Target};
use crate::plan::systems::{application, restic};
use crate::plan::work::attempt::Stand;
use crate::plan::work::job_spec::frame::{JobParts, Needs};
use crate::plan::work::job_spec::interim;
use crate::plan::work::step::LOOK_AT_RUNNING;
use crate::plan::work::{attempt, job_spec, process, retry};

/// Whether the run's deadline has passed, or the member's own.
fn is_late(pass: &Pass<'_>, index: usize) -> bool {
    pass.expired || pass.now.targets[index].deadline.as_ref().is_some_and(|d| pass.at >= d.0)
}

/// Seconds that a Job of the member may take, until the earlier of both deadlines.
fn seconds_left(pass: &Pass<'_>, index: usize) -> i64 {
    retry::seconds_left(pass.now.targets[index].deadline.as_ref(), pass.at).min(pass.seconds_left())
}

/// Verb of backup Jobs, and prefix of their keys.
const BACKUP: &str = "backup";

/// Key of a host's backup within the run.
pub fn key(member: usize, host: &str) -> String {
    format!("{BACKUP}/{member}/{host}")
}

/// Advances one host. Its target may be gone: a Job that already runs is read nevertheless.
pub fn back_up(
    pass: &mut Pass<'_>,
    spec: &BackupMember,
    target: Option<&Target>,
    index: usize,
    host: usize,
    ground: &Ground,
) {
    let entry = pass.now.targets[index].stats[host].clone();
    if host_is_over(&entry) {
        return;
    }
    let key = key(index, &entry.hostname);
    let attempt = entry.attempt.unwrap_or(1);
    let late = is_late(pass, index);
    match attempt::look(&mut pass.plan, &pass.seen.jobs, &key, attempt) {
        Stand::Active(job, held) if late => {
            pass.plan.stop(Some(job));
            run_out(pass, index, host, held);
        }
        Stand::Active(job, held) => {
            let slot = &mut pass.now.targets[index].stats[host];
            slot.phase = Some(BackupHostPhase::Running);
            slot.progress = pass.seen.progress.get(&job.name).map(progress).or(slot.progress);
            attempt::hold(&mut pass.plan, slot, held);
            let moves = job.address.is_some();
            pass.plan.look_again(if moves { LOOK_AT_PROGRESS } else { LOOK_AT_RUNNING });
        }
        Stand::Done(_, outcome) => read(pass, spec, index, host, outcome),
        Stand::Lost(_, failure) => fail(pass, index, host, failure),
        Stand::Absent { .. } if late => run_out(pass, index, host, None),
        // Two Jobs that read the same files do no harm, but one is enough.
        Stand::Absent { alone: false } => pass.plan.look_again(LOOK_AT_RUNNING),
        Stand::Absent { alone: true } => create(pass, spec, target, index, host, ground, key),
    }
}

/// Ends a host that is past the deadline. The message includes what held the host up.
fn run_out(pass: &mut Pass<'_>, index: usize, host: usize, held: Option<&Failure>) {
    let slot = &pass.now.targets[index].stats[host];
    let silence = pass.gate.silence().map(|(why, text)| (why.to_owned(), text.to_owned()));
    let last = held
        .map(|f| (f.reason.clone(), f.message.clone()))
        .or_else(|| Some((slot.reason.clone().unwrap_or_default(), slot.error.clone()?)))
        .or(silence);
    let text = "Not backed up before the deadline.";
    let late = match last {
        Some((why, last)) => {
            let why = if why.is_empty() { reason::DEADLINE_EXCEEDED } else { &why };
            Failure::new(Class::Fatal, why, format!("{text} Last: {last}"))
        }
        None => Failure::new(Class::Fatal, reason::DEADLINE_EXCEEDED, text),
    };
    end(pass, index, host, &late);
}

/// The host waits for something; no Job is created for it meanwhile.
fn hold(pass: &mut Pass<'_>, index: usize, host: usize, why: &str, text: String) {
    let slot = &mut pass.now.targets[index].stats[host];
    if why != reason::TARGET_BUSY && slot.reason.as_deref() != Some(why) {
        pass.plan.events.push(Event::new(true, why, &text));
    }
    slot.reason = Some(why.to_owned());
    slot.error = Some(text);
    pass.plan.look_again(LOOK_FOR_MISSING);
}

fn create(
    pass: &mut Pass<'_>,
    spec: &BackupMember,
    target: Option<&Target>,
    index: usize,
    host: usize,
    ground: &Ground,
    key: String,
) {
    let entry = pass.now.targets[index].stats[host].clone();
    if let Some(wait) = retry::pause(entry.not_before.as_ref(), pass.at) {
        pass.plan.look_again(wait);
        return;
    }
    let Some(target_spec) = &spec.target else { return };
    let Some(target) = target else {
        let text = format!("Backup target {} was deleted.", display(&target_spec.ref_.clone().unwrap_or_default()));
        return hold(pass, index, host, reason::TARGET_NOT_AVAILABLE, text);
    };
    if let Some(text) = held_note::no_backup(target) {
        return fail(pass, index, host, &Failure::new(Class::Data, reason::HELD_DOWN, text));
    }
    let set = HostSet::of(TargetKind::of_name(&target.kind), target_spec.alias.as_deref());
    let place = set.place(&entry.hostname, entry.node.as_deref());
    let reach = match target.reach(&target_spec.volume_mounts, &place, true, false) {
        Ok(reach) => reach,
        Err(failure) if failure.class == Class::Waiting => {
            return hold(pass, index, host, &failure.reason, failure.message);
        }
        Err(failure) => return fail(pass, index, host, &failure),
    };
    if let Some(text) = restored_meanwhile(pass, spec, &reach) {
        return hold(pass, index, host, reason::TARGET_BUSY, text);
    }
    let home = reach.home.clone();
    if !pass.gate.admit(&mut pass.plan) {
        return;
    }
    let runtime = spec.runtime_settings.as_ref().or(pass.run.invoker.as_ref().and_then(|i| i.runtime.as_ref()));
    let (work, needs) = match work(pass, spec, target, &entry.hostname, reach.mount_points(), ground) {
        Ok(made) => made,
        Err(failure) => return fail(pass, index, host, &failure),
    };
    let asked = vec![Part { member: index, name: entry.hostname }];
    let task = Task { process: process::of(runtime), ..Task::new(pass.run.id.told(), BACKUP, asked, work) };
    let parts = JobParts {
        key,
        attempt: entry.attempt.unwrap_or(1),
        deaths: entry.pod_deaths.unwrap_or(0),
        runtime,
        temp_dir: spec.temp_dir.as_ref(),
        interim: spec.interim_volume_template.as_ref(),
        needs,
        unowned: false,
        reach,
        seconds_left: seconds_left(pass, index),
    };
    let claim = interim::interim_claim(&ground.frame, &parts);
    let job = job_spec::job(&ground.frame, &task, parts);
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

/// The work of a host's Job, and what its pod needs.
///
/// # Errors
/// The target is an application that cannot be backed up.
fn work(
    pass: &Pass<'_>,
    spec: &BackupMember,
    target: &Target,
    host: &str,
    mounts: Vec<String>,
    ground: &Ground,
) -> Result<(Work, Needs), Failure> {
    if let Some(binding) = &target.application {
        let (name, namespace, task) = (target.name.as_str(), pass.run.id.namespace.as_str(), spec.task.as_ref());
        let found = application::found::Found { binding, name, namespace, task };
        return application::dump(found, spec, &ground.access, &pass.setup.addons, host);
    }
    let settings = restic::settings(spec.temp_dir.as_ref(), spec.interim_volume_template.is_some());
    let target = spec.target.clone().unwrap_or_default();
    let work = restic::backup::back_up(&ground.access, settings, host, &target, mounts);
    let needs = restic::needs(&ground.access, &work);
    Ok((work, needs))
}

/// Message about the session that restores the target, or that writes to a PVC of the target. A restore that has not
/// begun waits for this Job instead, so there is no circular wait.
fn restored_meanwhile(pass: &Pass<'_>, spec: &BackupMember, reach: &Reach) -> Option<String> {
    let target = spec.target.as_ref()?.ref_.as_ref().and_then(hosts::target_key);
    let rival = pass.seen.rivals.iter().find(|r| r.begun && Some(&r.target) == target.as_ref());
    let own = display(&spec.target.as_ref()?.ref_.clone().unwrap_or_default());
    let rival = rival.map(|r| format!("{} is restoring {own}; the backup starts afterwards.", r.session));
    rival.or_else(|| {
        let writer = pass.seen.writers.iter().find(|w| !w.reads && reach.claims().any(|c| c == w.claim))?;
        Some(format!(
            "{} writes to PersistentVolumeClaim {}; the backup starts afterwards.",
            writer.session, writer.claim
        ))
    })
}

/// Takes over the outcome of a Job.
pub fn read(pass: &mut Pass<'_>, spec: &BackupMember, index: usize, host: usize, outcome: &Outcome) {
    let is_ours = outcome.run == pass.run.id.uid;
    let made = spec.target.as_ref().filter(|_| is_ours).map(|t| restic::backup::made(outcome, t)).unwrap_or_default();
    let slot = &mut pass.now.targets[index].stats[host];
    slot.duration = Some(duration::format(std::time::Duration::from_secs_f64(outcome.seconds.clamp(0.0, 1e9))));
    slot.progress = None;
    if !made.is_empty() {
        slot.snapshots.clone_from(&made);
    }
    pass.plan.events.extend(warn(&mut slot.warnings, &slot.hostname, &outcome.warnings));
    match &outcome.failure {
        Some(failure) => fail(pass, index, host, failure),
        None if made.is_empty() => {
            let lost =
                Failure::new(Class::Fatal, reason::AGENT_FAILED, "The Job ended without reporting its snapshots.");
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

/// Handles a failed attempt: retries the host, or ends it.
fn fail(pass: &mut Pass<'_>, index: usize, host: usize, failure: &Failure) {
    let late = is_late(pass, index);
    let slot = &mut pass.now.targets[index].stats[host];
    slot.progress = None;
    if let Err(deaths) = attempt::again(&mut pass.plan, slot, failure, pass.at, late) {
        slot.pod_deaths = deaths;
        end(pass, index, host, failure);
    }
}

fn end(pass: &mut Pass<'_>, index: usize, host: usize, failure: &Failure) {
    let slot: &mut HostBackupStats = &mut pass.now.targets[index].stats[host];
    slot.phase = Some(BackupHostPhase::Failed);
    slot.not_before = None;
    slot.progress = None;
    slot.reason = Some(failure.reason.clone());
    slot.error = Some(failure.message.clone());
    let name = slot.hostname.clone();
    // The event at the end of a session with one host says the same.
    if pass.now.targets.iter().map(|t| t.stats.len()).sum::<usize>() == 1 {
        return;
    }
    let text =
        format!("Backup of host {name} of {} failed: {}", label(index, &pass.now.targets[index]), failure.message);
    pass.event(true, &failure.reason, &text);
}
