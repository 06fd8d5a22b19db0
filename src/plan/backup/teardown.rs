//! Teardown of a canceled session: its Jobs are stopped, the snapshots that they made by then are kept, and the session
//! fails.
//!
//! A backup does not write to the volumes of a target, so there is nothing to undo. Jobs are deleted in the foreground
//! and end by SIGTERM, so restic removes its lock. If a Job is killed nevertheless, the next Job removes its lock, as
//! after any crash.

use crate::api::backup_session::{
    BackupHostPhase, BackupPhase, BackupTargetPhase, BackupTargetStatus, HostBackupStats,
};
use crate::contract::Failure;
use crate::names::{condition, reason};
use crate::plan::backup::act::{key, read};
use crate::plan::backup::pass::Pass;
use crate::plan::backup::status::host_is_over;
use crate::plan::backup::{conclude, status, summary};
use crate::plan::run::conditions;
use crate::plan::seen::job_status::{JobSeen, JobState};
use crate::plan::work::retry;
use crate::plan::work::step::LOOK_AT_RUNNING;
use crate::text::hosts as count_of;

/// Decides what to do about a canceled session. No retry session follows it.
pub fn cancel(pass: &mut Pass<'_>) {
    pass.now.observed_generation = pass.run.id.generation;
    take_answers(pass);
    if is_done(pass) {
        // The cancel came too late: only the last answer is left to be read.
        conditions::remove(&mut pass.now.conditions, condition::CANCELED);
        return pass.step();
    }
    let at = pass.at;
    let active: Vec<&JobSeen> = pass.seen.jobs.iter().filter(|j| j.is_active()).collect();
    if !active.is_empty() {
        active.iter().for_each(|j| pass.plan.stop(Some(j)));
        pass.plan.look_again(LOOK_AT_RUNNING);
        let text = "Canceling: Jobs are being stopped.";
        conditions::set(&mut pass.now.conditions, condition::CANCELED, false, reason::CANCELING, text, at);
        return conclude::go_on(pass, reason::CANCELING, text);
    }
    pass.now.targets.iter_mut().for_each(|target| cut_off(target, at));
    let text = text(&pass.now.targets);
    conditions::set(&mut pass.now.conditions, condition::CANCELED, true, reason::CANCELED, &text, at);
    conclude::end(pass, BackupPhase::Failed, reason::CANCELED, &text);
    pass.now.next_retry = None;
}

/// Whether every host is over and the last Job has ended by itself, so that only its answer is left to be read.
fn is_done(pass: &Pass<'_>) -> bool {
    let attempt =
        pass.now.run.iter().flat_map(|r| &r.steps).find(|s| s.name == "maintain" && !s.done).map(|s| s.attempt);
    let job = attempt.and_then(|attempt| pass.job("maintain", attempt));
    let ended = job.is_some_and(|j| {
        // A Job that was stopped does not count. Neither does a failure whose retry the cancel prevented.
        matches!(&j.state, JobState::Done(outcome) if !j.deleting && !outcome.failure.as_ref().is_some_and(|f| retry::again(f, None)))
    });
    ended && !pass.seen.jobs.iter().any(JobSeen::is_active)
}

/// Reads the outcomes of Jobs that have ended while the session is being canceled.
fn take_answers(pass: &mut Pass<'_>) {
    let Some(invoker) = &pass.run.invoker else { return };
    for (index, spec) in invoker.members.iter().enumerate().take(pass.now.targets.len()) {
        for host in 0..pass.now.targets[index].stats.len() {
            let entry = &pass.now.targets[index].stats[host];
            let job = pass.job(&key(index, &entry.hostname), entry.attempt.unwrap_or(1));
            let Some(JobSeen { state: JobState::Done(outcome), deleting, .. }) = job else { continue };
            let tries = |f: &Failure| *deleting || retry::again(f, retry::deaths(f, entry.pod_deaths));
            if !host_is_over(entry) && !outcome.failure.as_ref().is_some_and(tries) {
                read(pass, spec, index, host, outcome);
            }
        }
    }
}

/// Ends a member in its present state.
fn cut_off(target: &mut BackupTargetStatus, at: k8s_openapi::jiff::Timestamp) {
    if status::member_is_over(target) {
        return;
    }
    if !target.stats.iter().any(is_begun) {
        target.phase = Some(BackupTargetPhase::Skipped);
        let (list, why) = (&mut target.conditions, reason::NOT_STARTED);
        let text = "Not started: the session was canceled.";
        conditions::set(list, condition::BACKUP_EXECUTOR_ENSURED, false, why, text, at);
    }
    for host in target.stats.iter_mut().filter(|h| !host_is_over(h)) {
        let last = host.error.take().map(|e| format!(" Last: {e}")).unwrap_or_default();
        let text = if is_begun(host) { "Not backed up completely" } else { "Not started" };
        host.error = Some(format!("{text}: the session was canceled.{last}"));
        host.reason = Some(reason::CANCELED.to_owned());
        host.phase = Some(BackupHostPhase::Failed);
        host.progress = None;
        host.not_before = None;
    }
    if target.phase != Some(BackupTargetPhase::Skipped) {
        let failed = target.stats.iter().any(|h| h.phase == Some(BackupHostPhase::Failed));
        target.phase = Some(if failed { BackupTargetPhase::Failed } else { BackupTargetPhase::Succeeded });
    }
}

fn is_begun(host: &HostBackupStats) -> bool {
    host.phase != Some(BackupHostPhase::Pending) || host.attempt.is_some_and(|n| n > 1)
}

/// What a canceled session leaves behind.
fn text(targets: &[BackupTargetStatus]) -> String {
    let all: Vec<&HostBackupStats> = targets.iter().flat_map(|t| &t.stats).collect();
    let done: Vec<_> = all.iter().filter(|h| h.phase == Some(BackupHostPhase::Succeeded)).collect();
    if done.is_empty() {
        return "Canceled. No host was backed up.".to_owned();
    }
    let made: Vec<_> = done.iter().flat_map(|h| &h.snapshots).collect();
    let made = summary::names(&made).map(|names| format!(", {names}")).unwrap_or_default();
    format!(
        "Canceled. {} of {} backed up{made}; retention and check did not complete.",
        done.len(),
        count_of(all.len())
    )
}
