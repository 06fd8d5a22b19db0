//! The session's phase, conditions and one line; and what is now known of the Repository.

use super::{Pass, hosts};
use crate::api::backup_session::{BackupHostPhase, BackupPhase, BackupTargetPhase};
use crate::api::repository::RepositoryStatus;
use crate::api::to_json;
use crate::names::{condition, reason};
use crate::plan::conditions::{self, Health};
use crate::plan::contract::{Failure, RepositoryFacts};
use crate::plan::jobs::JobSeen;
use crate::plan::observed::Seen;
use crate::plan::run::hosts as count_of;
use crate::plan::{duration, text};

/// The backup is not taken, and says why.
pub fn skip(pass: &mut Pass<'_>, text: &str) {
    conditions::set(&mut pass.now.conditions, condition::BACKUP_SKIPPED, true, reason::BACKUP_SKIPPED, text, pass.at);
    end(pass, BackupPhase::Skipped, reason::BACKUP_SKIPPED, text);
}

/// The session is not valid; the words are admission's.
pub fn refuse(pass: &mut Pass<'_>, text: &str) {
    let list = &mut pass.now.conditions;
    conditions::set(list, condition::VALIDATION_PASSED, false, reason::VALIDATION_FAILED, text, pass.at);
    skip(pass, text);
}

/// The backup waits for something that is missing.
pub fn wait(pass: &mut Pass<'_>, text: &str) {
    pass.now.phase = Some(BackupPhase::Pending);
    say(pass, Health::Reconciling, reason::PENDING, &format!("Waiting: {text}"));
}

/// The backup goes on.
pub fn stand(pass: &mut Pass<'_>) {
    let idle = !pass.seen.jobs.iter().any(JobSeen::is_active);
    if let Some((why, text)) = pass.gate.refusal().filter(|_| idle).map(|(why, text)| (why, text.to_owned())) {
        // What was begun goes on; what was not waits.
        pass.now.phase.get_or_insert(BackupPhase::Pending);
        return say(pass, Health::Reconciling, why, &format!("Waiting: {text}"));
    }
    pass.now.phase = Some(BackupPhase::Running);
    let held = pass.now.run.iter().flat_map(|r| &r.steps).find(|s| !s.done && s.message.is_some());
    let (why, text) = if let Some(step) = held {
        (
            step.reason.clone().unwrap_or_default(),
            format!("{}, attempt {}: {}", step.name, step.attempt, step.message.clone().unwrap_or_default()),
        )
    } else {
        let all: Vec<_> = pass.now.targets.iter().flat_map(|t| &t.stats).collect();
        let done = all.iter().filter(|h| h.phase == Some(BackupHostPhase::Succeeded)).count();
        let trouble = all.iter().find(|h| h.error.is_some() && h.phase != Some(BackupHostPhase::Succeeded));
        let trouble = trouble
            .map(|h| format!("; host {}: {}", h.hostname, h.error.clone().unwrap_or_default()))
            .unwrap_or_default();
        let text = if all.is_empty() {
            "Opening the repository.".to_owned()
        } else {
            format!("{done} of {} backed up{trouble}", count_of(all.len()))
        };
        (reason::RUNNING.to_owned(), text)
    };
    say(pass, Health::Reconciling, &why, &text);
}

/// Says in the conditions what retention and check came to; a good result also goes to the Repository.
pub fn maintained(pass: &mut Pass<'_>, facts: Option<&RepositoryFacts>, failure: Option<&Failure>) {
    let at = pass.at;
    let list = &mut pass.now.conditions;
    let text = failure.map(|f| f.message.clone());
    let integrity = facts.and_then(|f| f.integrity);
    // The answer comes after retention, so a failure with an answer is one of the check.
    let retained = facts.is_some();
    let (value, why) = if retained { (true, reason::RETENTION_APPLIED) } else { (false, reason::RETENTION_FAILED) };
    let would_go = facts.and_then(|f| f.would_remove);
    let said = match (retained, would_go) {
        (true, None) => "Successfully applied retention policy.".to_owned(),
        (true, Some(n)) => format!("Dry run of the retention policy: it would remove {n} snapshots."),
        (false, _) => text.clone().unwrap_or_default(),
    };
    conditions::set(list, condition::RETENTION_POLICY_APPLIED, value, why, said, at);
    if integrity == Some(true) {
        conditions::set(
            list,
            condition::REPOSITORY_INTEGRITY_VERIFIED,
            true,
            reason::INTEGRITY_VERIFIED,
            "Repository integrity verification succeeded.",
            at,
        );
    } else if retained {
        let said = text.unwrap_or_else(|| "The check gave no result.".to_owned());
        conditions::set(list, condition::REPOSITORY_INTEGRITY_VERIFIED, false, reason::INTEGRITY_FAILED, said, at);
    }
    let Some(facts) = facts else { return };
    let first = match &pass.seen.repository {
        Seen::Found(r) => r.first_backup.clone(),
        _ => None,
    };
    let now = conditions::whole_second(at);
    pass.plan.repository_facts = Some(to_json(&RepositoryStatus {
        first_backup_time: Some(first.unwrap_or_else(|| now.clone())),
        last_backup_time: Some(now),
        integrity: facts.integrity,
        total_size: Some(hosts::size(facts.total_bytes)),
        snapshot_count: Some(facts.snapshot_count),
        snapshots_removed_on_last_cleanup: Some(facts.removed),
        ..RepositoryStatus::default()
    }));
}

/// Says that retention was not applied to all of it.
pub fn shared(pass: &mut Pass<'_>, text: &str) {
    let list = &mut pass.now.conditions;
    conditions::set(list, condition::RETENTION_POLICY_APPLIED, false, reason::RETENTION_FAILED, text, pass.at);
}

/// Draws the conclusion when every member is over.
pub fn conclude(pass: &mut Pass<'_>) {
    if pass.expired {
        let text = "Failed to complete backup before the deadline.";
        conditions::set(
            &mut pass.now.conditions,
            condition::DEADLINE_EXCEEDED,
            true,
            reason::DEADLINE_EXCEEDED,
            text,
            pass.at,
        );
    }
    let failed = pass.now.targets.iter().position(|t| t.phase == Some(BackupTargetPhase::Failed));
    if let Some(index) = failed {
        let target = &pass.now.targets[index];
        let host = target.stats.iter().find(|h| h.phase == Some(BackupHostPhase::Failed));
        let why = host.and_then(|h| h.reason.clone()).unwrap_or_else(|| reason::MEMBER_FAILED.to_owned());
        let what = host.map_or_else(
            || {
                target
                    .conditions
                    .iter()
                    .find(|c| c.status == "False")
                    .and_then(|c| c.message.clone())
                    .unwrap_or_default()
            },
            |h| format!("host {}: {}", h.hostname, h.error.clone().unwrap_or_default()),
        );
        let text = format!("{} was not backed up: {what}", hosts::label(index, target));
        return end(pass, BackupPhase::Failed, &why, &text);
    }
    let bad = [condition::RETENTION_POLICY_APPLIED, condition::REPOSITORY_INTEGRITY_VERIFIED]
        .iter()
        .find_map(|t| pass.now.conditions.iter().find(|c| c.type_ == *t && c.status == "False"));
    if let Some(c) = bad.cloned() {
        return end(pass, BackupPhase::Failed, &c.reason.unwrap_or_default(), &c.message.unwrap_or_default());
    }
    let hosts = pass.now.targets.iter().map(|t| t.stats.len()).sum::<usize>();
    let text = format!("Backed up {}.", count_of(hosts));
    end(pass, BackupPhase::Succeeded, reason::SUCCEEDED, &text);
}

/// Ends the session.
pub fn end(pass: &mut Pass<'_>, phase: BackupPhase, why: &str, text: &str) {
    let at = pass.at;
    pass.now.phase = Some(phase);
    pass.now.observed_generation = pass.run.id.generation;
    if let Some(run) = &mut pass.now.run {
        run.completion_time = Some(conditions::whole_second(at));
        let took = run.start_time.as_ref().and_then(|s| std::time::Duration::try_from(at.duration_since(s.0)).ok());
        pass.now.session_duration = took.map(duration::format);
    }
    if phase == BackupPhase::Failed && pass.retries_left() > 0 {
        let delay = pass.run.invoker.as_ref().and_then(|i| i.retry.as_ref()?.delay.as_deref());
        let delay = delay.and_then(|d| duration::parse(d).ok()).unwrap_or_default();
        let due = pass.at.checked_add(delay).unwrap_or(pass.at);
        pass.now.next_retry = Some(conditions::whole_second(due));
    }
    let health = if phase == BackupPhase::Succeeded { Health::Ready } else { Health::Stalled };
    say(pass, health, why, text);
    pass.event(phase != BackupPhase::Succeeded, why, text);
    // What holds the session goes, and what follows it is made, after this status is written.
    pass.plan.again = pass.run.id.held || pass.now.next_retry.is_some();
}

/// The session's line and its kstatus conditions.
fn say(pass: &mut Pass<'_>, health: Health, why: &str, said: &str) {
    pass.now.summary = Some(text::summary(said));
    conditions::set_health(&mut pass.now.conditions, health, why, &text::message(said), pass.at);
}
