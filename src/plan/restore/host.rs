//! One host of a member: announced, its Job created, what became of it read and judged.

use super::member::{is_broken, is_late};
use super::{Ground, LOOK_AT_PROGRESS, LOOK_AT_RUNNING, LOOK_FOR_MISSING, Pass, is_over, rivals};
use super::{extraneous, held, rounds};
use crate::api::common::Ownership;
use crate::api::restore_session::{Counts, HostPhase, HostRestoreStats, Progress};
use crate::api::target::RestoreTarget;
use crate::contract::restic::{Restore, Restored, Step};
use crate::contract::{self, Answer, Class, Failure, Outcome, Part};
use crate::names::{condition, reason};
use crate::plan::hosts::rule_for;
use crate::plan::jobs::{FIRST_LOOK, JobState};
use crate::plan::objects::{self, JobParts};
use crate::plan::run::member_label;
use crate::plan::target::Reach;
use crate::plan::{conditions, duration, restic_args, retry, warn};
use crate::text;

/// Key of a host's restore within the run.
pub fn key(member: usize, host: &str) -> String {
    format!("restore/{member}/{host}")
}

/// A host, as Jobs are told of it.
pub fn part(member: usize, host: &str) -> Part {
    Part { member, name: host.to_owned() }
}

/// One host: announce, create its Job, read what became of it.
pub fn restore(pass: &mut Pass<'_>, index: usize, host: usize, ground: Option<&Ground>) {
    let entry = &pass.now.members[index].stats[host];
    if is_over(entry.phase) {
        return;
    }
    let key = key(index, &entry.hostname);
    let Some(attempt) = entry.attempt else {
        let entry = &mut pass.now.members[index].stats[host];
        entry.phase = Some(HostPhase::Running);
        entry.attempt = Some(1);
        entry.not_before = Some(conditions::whole_second(pass.at));
        return create(pass, index, host, ground, key, 1);
    };
    // One writer at a time: a Job that is called failed may have a pod that still writes.
    let mut alone = true;
    for earlier in pass.seen.jobs.iter().filter(|j| j.key == key && j.attempt < attempt) {
        alone = false;
        pass.plan.stop(Some(earlier));
    }
    let job = pass.job(&key, attempt);
    if job.is_some_and(|j| j.address.is_some() || !matches!(j.state, JobState::Active { held: None })) {
        say_created(pass, index);
    }
    match job.map(|j| (j, &j.state)) {
        Some((job, JobState::Active { held })) => {
            let entry = &mut pass.now.members[index].stats[host];
            if let Some(p) = pass.seen.progress.get(&job.name) {
                entry.progress = Some(progress(p));
            }
            if held::can_be_known(entry) {
                entry.not_before = None;
            }
            let before = entry.reason.take();
            entry.reason = held.as_ref().map(|f| f.reason.clone());
            entry.error = held.as_ref().map(|f| f.message.clone());
            let moves = job.address.is_some();
            pass.plan.look_again(if moves { LOOK_AT_PROGRESS } else { job.next_look() });
            if let Some(failure) = held {
                pass.plan.warn_of(failure, before.as_deref());
            }
            // It would delete what they write. It is tried again when they are gone.
            if extraneous::must_stop(pass, index) {
                extraneous::note_uncounted(pass, index, host);
                pass.plan.stop(pass.job(&key, attempt));
            }
        }
        Some((_, JobState::Done(outcome))) => read(pass, index, host, outcome),
        Some((job, JobState::Lost(failure))) => {
            // A pod that can never start is still there.
            if failure.class == Class::Invalid {
                pass.plan.stop(Some(job));
            }
            // What the API server did not take has never run.
            if job.is_unmade && failure.reason == reason::REFUSED_BY_API {
                held::note_unwritten(&mut pass.now.members[index].stats[host]);
            } else if failure.class != Class::Invalid {
                extraneous::note_uncounted(pass, index, host);
            }
            fail_host(pass, index, host, &broken_off(pass, index, failure));
        }
        None if alone => create(pass, index, host, ground, key, attempt),
        None => pass.plan.look_again(LOOK_AT_RUNNING),
    }
}

/// Says that a member has Jobs: not in a status of its own, but with the first that tells more.
fn say_created(pass: &mut Pass<'_>, index: usize) {
    let at = pass.at;
    let list = &mut pass.now.members[index].conditions;
    conditions::set(
        list,
        condition::RESTORE_JOB_CREATED,
        true,
        reason::RESTORE_JOB_CREATED,
        "Successfully created restore job.",
        at,
    );
    conditions::set(
        list,
        condition::RESTORE_EXECUTOR_ENSURED,
        true,
        reason::RESTORE_EXECUTOR_ENSURED,
        "Successfully ensured restore executor.",
        at,
    );
}

/// Takes what a Job answered.
pub fn read(pass: &mut Pass<'_>, index: usize, host: usize, outcome: &Outcome) {
    let target = pass.run.members[index].target.as_ref();
    let allow_empty = target.and_then(|t| t.allow_empty).unwrap_or(false);
    let exact = target.is_some_and(RestoreTarget::is_exact);
    let failure = judge(outcome, &pass.run.id.uid, allow_empty, exact);
    let entry = &mut pass.now.members[index].stats[host];
    if let Some(r) = restored(outcome) {
        entry.planned = Some(counts(r.planned));
        entry.restored = Some(counts(r.restored));
        pass.plan.events.extend(extraneous::note(entry, r.deleted));
    }
    if failure.is_some() && outcome.untouched && outcome.answer.is_none() && outcome.run == pass.run.id.uid {
        held::note_unwritten(entry);
    }
    entry.duration = Some(duration::format(std::time::Duration::from_secs_f64(outcome.seconds.clamp(0.0, 1e9))));
    entry.progress = None;
    pass.plan.events.extend(warn(&mut entry.warnings, &entry.hostname, &outcome.warnings));
    match failure {
        None => {
            entry.phase = Some(HostPhase::Succeeded);
            entry.error = None;
            entry.reason = None;
            entry.not_before = None;
        }
        // Without counts it had not begun to write.
        Some(failure) if outcome.answer.is_none() => fail_host(pass, index, host, &failure),
        Some(failure) => fail_host(pass, index, host, &broken_off(pass, index, &failure)),
    }
}

/// The failure of an attempt that may have left files half written: where the next one would take them for whole, there
/// is none.
fn broken_off(pass: &Pass<'_>, index: usize, failure: &Failure) -> Failure {
    if runs_once(pass, index) && retry::again(failure, None) { half_written(&failure.message) } else { failure.clone() }
}

/// Whether what one attempt has begun, another would not finish. Past its end a run has no other anyway.
fn runs_once(pass: &Pass<'_>, index: usize) -> bool {
    let target = pass.run.members[index].target.as_ref();
    target.is_some_and(|t| contract::restic::keeps_what_is_there(&t.args))
        && !is_late(pass, index)
        && !pass.run.canceled
}

fn half_written(why: &str) -> Failure {
    let text = format!(
        "{why} Files may be half written, and with --overwrite never or if-newer restic would take them for whole, so the restore is not tried again. Remove what it has restored, or leave --overwrite out, and create another one."
    );
    Failure::new(Class::Data, reason::INCOMPLETE, text)
}

/// How the try stands of which no Job is there.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// It is to begin: a Job is made once that is written.
    ToBegin,
    /// Its first Job is to be made.
    First,
    /// Its Job is to be made, or made once more.
    Any,
}

/// Where the try stands. None where that is all there is to do now.
fn stage(pass: &mut Pass<'_>, index: usize, host: usize, key: &str, attempt: i32) -> Option<Stage> {
    let was = pass.was.members.get(index).and_then(|m| m.stats.get(host));
    let entry = &mut pass.now.members[index].stats[host];
    if !held::can_be_known(entry) {
        // What its Job will say of the data changes nothing.
        let announced = was.is_some_and(|h| h.attempt == Some(attempt) && h.unwritten == entry.unwritten);
        pass.plan.again |= !announced;
        return announced.then_some(Stage::Any);
    }
    if !rounds::is_begun(entry) {
        return Some(Stage::ToBegin);
    }
    if pass.run.rounds.is_first(key, attempt) {
        return Some(Stage::First);
    }
    if pass.run.rounds.has_asked(key, attempt) {
        pass.plan.look_again(LOOK_AT_RUNNING);
        return None;
    }
    held::note_unknown(entry);
    pass.plan.again = true;
    None
}

fn create(pass: &mut Pass<'_>, index: usize, host: usize, ground: Option<&Ground>, key: String, attempt: i32) {
    if is_broken(&pass.now.members[index]) {
        let text = "The workload was scaled up by somebody else during the restore, so it is not tried again.";
        return fail_host(pass, index, host, &Failure::new(Class::Fatal, reason::QUIESCE_BROKEN, text));
    }
    let entry = &pass.now.members[index].stats[host];
    if (entry.progress.is_some() || held::is_unknown(entry)) && runs_once(pass, index) {
        // Somebody has deleted it, and it may have been at work.
        return fail_host(pass, index, host, &half_written("The Job is gone, and what it did is not known."));
    }
    if let Some(wait) = retry::pause(entry.not_before.as_ref(), pass.at) {
        pass.plan.look_again(wait);
        return;
    }
    let Some(stage) = stage(pass, index, host, &key, attempt) else { return };
    let ready = is_ready(pass, index, host, ground, &key);
    if stage == Stage::ToBegin && ready {
        pass.now.members[index].stats[host].not_before = None;
        pass.plan.again = true;
    }
    if stage == Stage::First && !ready {
        // Nothing was asked for: it is still to begin.
        pass.now.members[index].stats[host].not_before = Some(conditions::whole_second(pass.at));
    }
    if ready && stage != Stage::ToBegin {
        make(pass, index, host, ground, key, attempt);
    }
}

/// Whether a Job of a host can be made now.
fn is_ready(pass: &mut Pass<'_>, index: usize, host: usize, ground: Option<&Ground>, key: &str) -> bool {
    let name = &pass.now.members[index].stats[host].hostname;
    let Some(reach) = ground.and_then(|_| pass.reaches.get(&(index, name.clone()))) else {
        pass.plan.look_again(LOOK_FOR_MISSING);
        return false;
    };
    if rivals::writing(pass, key, reach).is_some() {
        pass.plan.look_again(LOOK_AT_RUNNING);
        return false;
    }
    // Who began to use the volumes since the last try would lose what it writes.
    if let Some(text) = extraneous::in_use(pass, index) {
        let entry = &mut pass.now.members[index].stats[host];
        entry.reason = Some(reason::TARGET_BUSY.to_owned());
        entry.error = Some(text);
        pass.plan.look_again(LOOK_FOR_MISSING);
        return false;
    }
    pass.gate.admit(&mut pass.plan)
}

fn make(pass: &mut Pass<'_>, index: usize, host: usize, ground: Option<&Ground>, key: String, attempt: i32) {
    let entry = &pass.now.members[index].stats[host];
    let reach = pass.reaches.get(&(index, entry.hostname.clone()));
    let (Some(Ground { frame, access }), Some(target), Some(reach)) = (ground, &pass.run.members[index].target, reach)
    else {
        return;
    };
    let Some(rule) = rule_for(&target.rules, &entry.hostname) else { return };
    let restore = Restore {
        snapshots: entry
            .snapshots
            .iter()
            .map(|s| contract::restic::PinnedSnapshot {
                id: s.id.clone(),
                time: s.time.clone().unwrap_or_default(),
                path: s.path.clone(),
            })
            .collect(),
        include: rule.include.clone(),
        exclude: rule.exclude.clone(),
        args: args(entry, &target.args),
        mounts: reach.mount_points(),
        allow_empty: target.allow_empty.unwrap_or(false),
        ignore_owners: target.ownership == Some(Ownership::Ignore),
        planned: entry
            .planned
            .map(|c| contract::restic::Counts { files: c.files.unsigned_abs(), bytes: c.bytes.unsigned_abs() }),
        owner: entry.owner.clone(),
        exact: target.is_exact(),
    };
    let parts = JobParts { attempt, seconds_left: seconds_left(pass, index), ..parts(pass, index, key, reach) };
    let claim = objects::interim_claim(frame, &parts);
    let job = objects::job(
        frame,
        &pass.task(access, index, Step::Restore(restore), vec![part(index, &entry.hostname)]),
        parts,
    );
    if let Err(failure) = objects::check_task(&job) {
        return fail_host(pass, index, host, &failure);
    }
    pass.plan.claims.extend(claim);
    pass.plan.jobs.push(job);
    pass.plan.look_again(FIRST_LOOK);
}

/// What restic is told beside the rule. Where an earlier Job may have written, it reads all that is there.
fn args(entry: &HostRestoreStats, written: &[String]) -> Vec<String> {
    let args = restic_args::without_tags(written);
    if held::can_be_known(entry) { args } else { contract::restic::reads_what_is_there(&args) }
}

/// What is particular to the restore Job of a host.
pub fn parts<'p>(pass: &Pass<'p>, index: usize, key: String, reach: &Reach) -> JobParts<'p> {
    let member = &pass.run.members[index];
    JobParts {
        key,
        attempt: 1,
        // It locks nothing.
        deaths: 0,
        runtime: member.runtime_settings.as_ref(),
        temp_dir: member.temp_dir.as_ref(),
        interim: member.interim_volume_template.as_deref(),
        unowned: member.target.as_ref().and_then(|t| t.ownership) == Some(Ownership::Ignore),
        reach: reach.clone(),
        seconds_left: 1,
    }
}

/// What a Job says that it restored.
fn restored(outcome: &Outcome) -> Option<Restored> {
    match &outcome.answer {
        Some(Answer::Did(did)) => Restored::of(&did.tallies),
        _ => None,
    }
}

/// Success is computed from counts, never from an exit code alone.
fn judge(outcome: &Outcome, run: &str, allow_empty: bool, exact: bool) -> Option<Failure> {
    if outcome.failure.is_some() {
        return outcome.failure.clone();
    }
    if outcome.run != run {
        return Some(Failure::new(
            Class::Fatal,
            reason::AGENT_FAILED,
            format!("The Job answered for another run ({}).", outcome.run),
        ));
    }
    let Some(r) = restored(outcome) else {
        return Some(Failure::new(
            Class::Fatal,
            reason::AGENT_FAILED,
            "The Job ended without counts of what it restored.",
        ));
    };
    if r.errors > 0 || r.restored != r.planned {
        let (restored, planned) = (counts(r.restored), counts(r.planned));
        return Some(Failure::new(
            Class::Data,
            reason::INCOMPLETE,
            format!(
                "{} of {} were restored ({}), with {}. See the log of the Job.",
                r.restored.files,
                text::entries(planned.files),
                text::bytes_of(restored.bytes, planned.bytes),
                text::count(i64::try_from(r.errors).unwrap_or(i64::MAX), "error", "errors")
            ),
        ));
    }
    if r.restored.files == 0 && !allow_empty {
        return Some(Failure::new(
            Class::Data,
            reason::NOTHING_TO_RESTORE,
            "Nothing was restored: no file of the snapshot matches the rule. If that is fine, set target.allowEmpty: true.",
        ));
    }
    if exact && r.deleted.is_none() {
        return Some(Failure::new(
            Class::Fatal,
            reason::AGENT_FAILED,
            "The Job restored everything, and did not look for files that the snapshots do not have: its image is of another version.",
        ));
    }
    None
}

/// A failed attempt: another one, or the end of the host.
fn fail_host(pass: &mut Pass<'_>, index: usize, host: usize, failure: &Failure) {
    let late = is_late(pass, index) || pass.run.canceled;
    let at = pass.at;
    let entry = &mut pass.now.members[index].stats[host];
    entry.pod_deaths = retry::deaths(failure, entry.pod_deaths);
    let again = !late && retry::again(failure, entry.pod_deaths);
    entry.reason = Some(failure.reason.clone());
    entry.error = Some(failure.message.clone());
    entry.progress = None;
    let attempt = entry.attempt.unwrap_or(1);
    if again {
        pass.plan.note(failure);
        entry.attempt = Some(attempt.saturating_add(1));
        entry.not_before = Some(conditions::whole_second(retry::not_before(attempt, at)));
        pass.plan.look_again(retry::wait_after(attempt));
    } else {
        entry.phase = Some(HostPhase::Failed);
        entry.not_before = None;
        let name = entry.hostname.clone();
        let label = member_label(index, &pass.now.members[index]);
        // The end of a run of one host says the same.
        if pass.now.members.iter().map(|m| m.stats.len()).sum::<usize>() > 1 {
            let of = if pass.now.members.len() > 1 { format!(" of {label}") } else { String::new() };
            let text = format!("Restore of host {name}{of} failed: {}", failure.message);
            pass.event(true, &failure.reason, &text);
        }
    }
}

/// Seconds a Job of the member may take: to the nearer of both deadlines.
fn seconds_left(pass: &Pass<'_>, index: usize) -> i64 {
    retry::seconds_left(pass.now.members[index].deadline.as_ref(), pass.at).min(pass.seconds_left())
}

pub fn counts(c: contract::restic::Counts) -> Counts {
    Counts { files: i64::try_from(c.files).unwrap_or(i64::MAX), bytes: i64::try_from(c.bytes).unwrap_or(i64::MAX) }
}

/// How far a Job says that it is, as status has it.
pub fn progress(p: &contract::Progress) -> Progress {
    let i = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    #[allow(clippy::cast_possible_truncation, reason = "clamped to a percentage")]
    let percent = p.percent.clamp(0.0, 100.0) as i32;
    Progress {
        percent,
        bytes_done: i(p.bytes_done),
        bytes_total: i(p.bytes_total),
        files_done: i(p.files_done),
        files_total: i(p.files_total),
    }
}
