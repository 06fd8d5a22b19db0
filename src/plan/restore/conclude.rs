//! Computes the run's phase, conditions and summary from its members.

use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::{HostPhase, MemberPhase, QuiesceState, RestorePhase};
use crate::names::{condition, reason};
use crate::plan::restore::conflicts;
use crate::plan::restore::pass::Pass;
use crate::plan::restore::status::{is_broken, is_started, member_is_over, member_label};
use crate::plan::run::conditions::Health;
use crate::plan::run::{conditions, duration};
use crate::plan::seen::job_status::{JobSeen, STOP_PATIENCE};
use crate::text;
use crate::text::hosts;

/// Concludes a pass: ends the run, or reports its current state.
pub fn conclude(pass: &mut Pass<'_>) {
    let at = pass.at;
    conditions::set(
        &mut pass.now.conditions,
        condition::VALIDATION_PASSED,
        true,
        reason::VALIDATION_PASSED,
        "Successfully validated.",
        at,
    );
    if pass.now.members.iter().all(|m| member_is_over(m.phase)) {
        let failed = pass.now.members.iter().position(|m| m.phase == Some(MemberPhase::Failed));
        if pass.expired && failed.is_some() {
            late(pass);
        }
        match failed {
            None => {
                let text = success(pass);
                end(pass, RestorePhase::Succeeded, reason::SUCCEEDED, &text);
            }
            Some(index) => {
                let text = failure(pass, index);
                let why = why(pass, index);
                end(pass, RestorePhase::Failed, &why, &text);
            }
        }
        return;
    }
    let (reason, text) = standing(pass);
    if pass.now.phase != Some(RestorePhase::Running) {
        pass.now.phase = Some(RestorePhase::Pending);
    }
    say(pass, Health::Reconciling, &reason, &text);
}

/// Says that the deadline has passed.
pub fn late(pass: &mut Pass<'_>) {
    let text = format!("Failed to complete restore within {}.", limit(pass));
    let (list, why) = (&mut pass.now.conditions, reason::DEADLINE_EXCEEDED);
    conditions::set(list, condition::DEADLINE_EXCEEDED, true, why, text, pass.at);
}

/// Says what a run that has not begun waits for.
pub fn wait(pass: &mut Pass<'_>, text: &str) {
    pass.now.phase = Some(RestorePhase::Pending);
    say(pass, Health::Reconciling, reason::PENDING, &format!("Waiting: {text}"));
}

/// The same, with a warning the first time.
pub fn wait_loudly(pass: &mut Pass<'_>, text: &str) {
    pass.plan.warn_of_wait(&pass.was.conditions, &format!("Waiting: {text}"));
    wait(pass, text);
}

/// Ends the run.
pub fn end(pass: &mut Pass<'_>, phase: RestorePhase, why: &str, text: &str) {
    let at = pass.at;
    pass.now.phase = Some(phase);
    pass.now.observed_generation = pass.run.id.generation;
    let start = pass.now.run.start_time.as_ref().map_or(at, |t| t.0);
    pass.now.run.completion_time = Some(conditions::whole_second(at));
    pass.now.duration = std::time::Duration::try_from(at.duration_since(start)).ok().map(duration::format);
    let health = if phase == RestorePhase::Succeeded { Health::Ready } else { Health::Stalled };
    pass.plan.note_end(why);
    say(pass, health, why, text);
    pass.event(phase != RestorePhase::Succeeded, why, text);
    given_up(pass);
    // The finalizer is removed in the next pass, after this status is written.
    pass.plan.again = true;
}

/// Warns of Jobs that were stopped and are no longer waited for.
pub fn given_up(pass: &mut Pass<'_>) {
    for job in pass.seen.jobs.iter().filter(|j| j.given_up) {
        let text = format!(
            "Job {} was stopped more than {} minutes ago and still exists. Its node does not respond; if the node returns before the pod is removed, the Job may still write until it is stopped.",
            job.name,
            STOP_PATIENCE.as_secs() / 60
        );
        pass.event(true, reason::JOB_NOT_STOPPED, &text);
    }
}

/// Sets the run's summary and its kstatus conditions.
pub fn say(pass: &mut Pass<'_>, health: Health, why: &str, said: &str) {
    pass.now.summary = Some(text::summary(said));
    conditions::set_health(&mut pass.now.conditions, health, why, &text::message(said), pass.at);
}

fn limit(pass: &Pass<'_>) -> String {
    pass.run.time_out.clone().unwrap_or_else(|| duration::format(pass.setup.default_timeout))
}

fn success(pass: &Pass<'_>) -> String {
    let count: usize = pass.now.members.iter().map(|m| m.stats.len()).sum();
    // The counts that Jobs report may be any number.
    let restored = || pass.now.members.iter().flat_map(|m| &m.stats).filter_map(|h| h.restored);
    let files = restored().fold(0i64, |all, c| all.saturating_add(c.files));
    let bytes = restored().fold(0i64, |all, c| all.saturating_add(c.bytes));
    let members = pass.now.members.len();
    let of = if members == 1 { String::new() } else { format!("{members} members, ") };
    let deleted =
        crate::plan::restore::extraneous::deleted(&pass.now.members).map(|text| format!(" {text}")).unwrap_or_default();
    let stays = crate::plan::restore::status::held_texts(&pass.now.members);
    format!("Restored {of}{}: {}, {}.{deleted}{stays}", hosts(count), text::entries(files), text::bytes(bytes))
}

fn failure(pass: &Pass<'_>, index: usize) -> String {
    let member = &pass.now.members[index];
    let text = member.message.clone().unwrap_or_default();
    if pass.now.members.len() == 1 {
        return text;
    }
    let done = count(pass, MemberPhase::Succeeded);
    let skipped = count(pass, MemberPhase::Skipped);
    let not_started = if skipped > 0 { format!(", {skipped} not started") } else { String::new() };
    format!(
        "{} failed: {text} ({done} of {} members restored{not_started}.)",
        upper(&member_label(index, member)),
        pass.now.members.len()
    )
}

/// The reason of the first failed host. Without one, the reason why the member was refused, or that it failed.
fn why(pass: &Pass<'_>, index: usize) -> String {
    let member = &pass.now.members[index];
    let host = member.stats.iter().find(|h| h.phase == Some(HostPhase::Failed)).and_then(|h| h.reason.clone());
    let refused =
        member.conditions.iter().find(|c| c.type_ == condition::RESTORE_EXECUTOR_ENSURED && c.status == "False");
    host.or_else(|| refused?.reason.clone()).unwrap_or_else(|| {
        match member {
            m if is_broken(m) => reason::QUIESCE_BROKEN,
            _ if pass.expired => reason::DEADLINE_EXCEEDED,
            _ => reason::MEMBER_FAILED,
        }
        .to_owned()
    })
}

fn count(pass: &Pass<'_>, phase: MemberPhase) -> usize {
    pass.now.members.iter().filter(|m| m.phase == Some(phase)).count()
}

pub fn upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The current state of an unfinished run: what it waits for, otherwise what it does.
fn standing(pass: &mut Pass<'_>) -> (String, String) {
    let missing = [condition::REPOSITORY_FOUND, condition::BACKEND_SECRET_FOUND];
    for type_ in missing {
        if let Some(c) = pass.now.conditions.iter().find(|c| c.type_ == type_ && c.status != "True") {
            return (
                c.reason.clone().unwrap_or_default(),
                format!("Waiting: {}", c.message.clone().unwrap_or_default()),
            );
        }
    }
    if let Err(text) = &pass.seen.job_defaults {
        return (reason::PENDING.to_owned(), format!("Waiting: {text}"));
    }
    let idle = !pass.seen.jobs.iter().any(JobSeen::is_active);
    if let Some((why, text)) = pass.refusal().filter(|_| idle) {
        return (why.to_owned(), format!("Waiting: {text}"));
    }
    if let Some(step) = pass.now.run.steps.iter().find(|s| s.message.is_some()) {
        let text = step.message.clone().unwrap_or_default();
        return (step.reason.clone().unwrap_or_default(), format!("Preflight, attempt {}: {text}", step.attempt));
    }
    let total = pass.now.members.len();
    let done = count(pass, MemberPhase::Succeeded);
    let current =
        pass.now.members.iter().enumerate().find(|(_, m)| m.phase == Some(MemberPhase::Running) && is_started(m));
    if let Some((index, member)) = current {
        let what = doing(member);
        let text = if total == 1 {
            upper(&what)
        } else {
            format!("{done} of {total} members restored; {}: {what}", member_label(index, member))
        };
        return (reason::RUNNING.to_owned(), text);
    }
    if let Some((index, member)) =
        pass.now.members.iter().enumerate().find(|(_, m)| !member_is_over(m.phase) && m.message.is_some())
    {
        let why = if conflicts::ahead(pass, index) == member.message { reason::TARGET_BUSY } else { reason::PENDING };
        let text = member.message.clone().unwrap_or_default();
        let text = if total == 1 { text } else { format!("{}: {text}", upper(&member_label(index, member))) };
        return (why.to_owned(), format!("Waiting: {text}"));
    }
    (reason::PREFLIGHT.to_owned(), "Resolving snapshots.".to_owned())
}

fn doing(member: &RestoreMemberStatus) -> String {
    if let Some(host) = member.stats.iter().find(|h| h.error.is_some() && h.phase == Some(HostPhase::Running)) {
        return format!(
            "host {} (attempt {}): {}",
            host.hostname,
            host.attempt.unwrap_or(1),
            host.error.clone().unwrap_or_default()
        );
    }
    if let Some(text) = crate::plan::restore::refused::refused(std::slice::from_ref(member)) {
        return text;
    }
    match member.quiesce.as_ref().map(|q| q.state) {
        Some(QuiesceState::Announced) => {
            return member.message.clone().unwrap_or_else(|| "scaling the workload to zero".to_owned());
        }
        Some(QuiesceState::Quiesced) if member.stats.iter().all(|h| crate::plan::restore::status::is_over(h.phase)) => {
            return "scaling the workload back".to_owned();
        }
        _ => {}
    }
    let done = member.stats.iter().filter(|h| crate::plan::restore::status::is_over(h.phase)).count();
    let percent: i32 = member.stats.iter().filter_map(|h| h.progress).map(|p| p.percent).max().unwrap_or(0);
    let moving = if percent > 0 { format!(", {percent} %") } else { String::new() };
    format!("restoring, {done} of {} done{moving}", hosts(member.stats.len()))
}
