//! The session's phase, conditions and summary line, and what is now known about the Repository.

use serde_json::{Map, Value};

use crate::api::backup_session::{
    BackupHostPhase, BackupPhase, BackupTargetPhase, BackupTargetStatus, HostBackupStats,
};
use crate::api::repository::RepositoryStatus;
use crate::api::restore_session::Progress;
use crate::api::to_json;
use crate::contract::{Class, Failure};
use crate::names::{condition, reason};
use crate::plan::backup::pass::Pass;
use crate::plan::backup::{status, summary};
use crate::plan::run::conditions::Health;
use crate::plan::run::{conditions, duration};
use crate::plan::seen::Seen;
use crate::plan::seen::job_status::JobSeen;
use crate::plan::systems::restic::backend;
use crate::plan::systems::restic::backup::RepositoryFacts;
use crate::text;
use crate::text::hosts as count_of;

/// Skips the backup and says why.
pub fn skip(pass: &mut Pass<'_>, text: &str) {
    conditions::set(&mut pass.now.conditions, condition::BACKUP_SKIPPED, true, reason::BACKUP_SKIPPED, text, pass.at);
    end(pass, BackupPhase::Skipped, reason::BACKUP_SKIPPED, text);
}

/// Skips a session that is not valid, with the message of admission.
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

/// The same, with a warning the first time.
pub fn wait_loudly(pass: &mut Pass<'_>, text: &str) {
    pass.plan.warn_of_wait(&pass.run.state.conditions, &format!("Waiting: {text}"));
    wait(pass, text);
}

/// Marks the session as running, and says what it does.
pub fn go_on(pass: &mut Pass<'_>, why: &str, text: &str) {
    pass.now.phase = Some(BackupPhase::Running);
    say(pass, Health::Reconciling, why, text);
}

/// Marks the session as running, or as waiting for the gate, and says how far it is.
pub fn stand(pass: &mut Pass<'_>) {
    let idle = !pass.seen.jobs.iter().any(JobSeen::is_active);
    if let Some((why, text)) = pass.gate.refusal().filter(|_| idle).map(|(why, text)| (why, text.to_owned())) {
        // A session that has begun keeps its phase. A session that has not begun waits.
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
        let held = all.iter().find(|h| h.error.is_some() && h.phase != Some(BackupHostPhase::Succeeded));
        let trouble =
            held.map(|h| format!("; host {}: {}", h.hostname, h.error.clone().unwrap_or_default())).unwrap_or_default();
        let missing = missing_target(pass);
        if let Some((why, text)) = missing.as_ref().filter(|_| all.is_empty()) {
            let (why, text) = (why.clone(), format!("Waiting: {text}"));
            return say(pass, Health::Reconciling, &why, &text);
        }
        let text = if all.is_empty() {
            "Opening the repository.".to_owned()
        } else {
            let missing = missing.map(|(_, text)| format!("; waiting: {text}")).unwrap_or_default();
            format!("{done} of {} backed up{}{trouble}{missing}", count_of(all.len()), percent(&all))
        };
        let held = held.filter(|h| !status::host_is_over(h)).and_then(|h| h.reason.clone());
        (held.unwrap_or_else(|| reason::RUNNING.to_owned()), text)
    };
    say(pass, Health::Reconciling, &why, &text);
}

/// Reason and message of the first target that does not exist, and whose hosts are not known.
fn missing_target(pass: &Pass<'_>) -> Option<(String, String)> {
    let waiting = pass.now.targets.iter().filter(|t| t.stats.is_empty());
    let mut all = waiting.flat_map(|t| &t.conditions);
    let missing = all.find(|c| c.type_ == condition::BACKUP_TARGET_FOUND && c.status == "False")?;
    Some((missing.reason.clone().unwrap_or_default(), missing.message.clone().unwrap_or_default()))
}

/// Progress of the hosts by bytes, as far as they report it.
fn percent(hosts: &[&HostBackupStats]) -> String {
    let known = || hosts.iter().filter_map(|h| h.progress).filter(|p| p.bytes_total > 0);
    let of = |what: fn(&Progress) -> i64| known().fold(0_i128, |all, p| all + i128::from(what(&p)));
    let (done, total) = (of(|p| p.bytes_done.min(p.bytes_total)), of(|p| p.bytes_total));
    match (done * 100).checked_div(total) {
        Some(percent) if percent > 0 => format!(", {percent} % of the current data"),
        _ => String::new(),
    }
}

/// Writes the results of retention and check to the conditions, and the facts found about the repository to the
/// Repository. Returns true when retention was applied.
pub fn maintained(pass: &mut Pass<'_>, facts: Option<&RepositoryFacts>, failure: Option<&Failure>) -> bool {
    let at = pass.at;
    let list = &mut pass.now.conditions;
    let text = failure.map(|f| f.message.clone());
    let integrity = facts.and_then(|f| f.integrity);
    // An agent of an earlier version does not report retention. If nothing failed, retention did not fail either.
    let retained = facts.is_some_and(|f| f.retained || failure.is_none());
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
    } else if facts.is_some() {
        let said = text.unwrap_or_else(|| "The check returned no result.".to_owned());
        conditions::set(list, condition::REPOSITORY_INTEGRITY_VERIFIED, false, reason::INTEGRITY_FAILED, said, at);
    }
    let Some(facts) = facts else { return retained };
    pass.plan.repository_facts = Some(to_json(&RepositoryStatus {
        integrity: facts.integrity,
        total_size: facts.total_bytes.map(text::size),
        snapshot_count: facts.snapshot_count,
        snapshots_removed_on_last_cleanup: (retained || facts.removed > 0).then_some(facts.removed),
        ..RepositoryStatus::default()
    }));
    retained
}

/// Reports a successful backup to the Repository. After a failed backup that left or removed snapshots, requests a
/// listing.
fn tell_repository(pass: &mut Pass<'_>, phase: BackupPhase) {
    let now = Some(conditions::whole_second(pass.at));
    let made = pass.now.targets.iter().flat_map(|t| &t.stats).any(|h| !h.snapshots.is_empty());
    let news = if phase == BackupPhase::Succeeded {
        let seen = match &pass.seen.repository {
            Seen::Found(seen) => Some(seen),
            _ => None,
        };
        RepositoryStatus {
            first_backup_time: seen.and_then(|r| r.first_backup.clone()).or_else(|| now.clone()),
            last_backup_time: now,
            // The place that the session's Jobs worked on: the session ends with a failure as soon as another place is
            // seen.
            known_place: seen.and_then(|r| r.spec.backend.as_ref()).and_then(backend::place),
            ..RepositoryStatus::default()
        }
    } else if made || pass.plan.repository_facts.is_some() {
        RepositoryStatus { list_request_time: now, ..RepositoryStatus::default() }
    } else {
        return;
    };
    let facts = pass.plan.repository_facts.get_or_insert_with(|| Value::Object(Map::new()));
    if let (Value::Object(facts), Value::Object(news)) = (facts, to_json(&news)) {
        facts.extend(news);
    }
}

/// Says that retention was not applied to all hosts and paths.
pub fn shared(pass: &mut Pass<'_>, text: &str) {
    let list = &mut pass.now.conditions;
    conditions::set(list, condition::RETENTION_POLICY_APPLIED, false, reason::RETENTION_FAILED, text, pass.at);
}

/// Ends the session when every member is over. `left` is the failure after the backup itself.
pub fn conclude(pass: &mut Pass<'_>, left: Option<&Failure>) {
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
        let (why, what) = why(target);
        let text = if pass.now.targets.len() == 1 {
            format!("Not backed up: {what}")
        } else {
            format!("{} was not backed up: {what}", status::label(index, target))
        };
        return end(pass, BackupPhase::Failed, &why, &text);
    }
    let mut order = [condition::RETENTION_POLICY_APPLIED, condition::REPOSITORY_INTEGRITY_VERIFIED];
    if left.is_some_and(|f| f.class == Class::Data) {
        // Damage is reported before everything else.
        order.reverse();
    }
    let of = |type_: &&str| pass.now.conditions.iter().find(|c| c.type_ == **type_ && c.status == "False");
    if let Some(c) = order.iter().find_map(of).cloned() {
        return end(pass, BackupPhase::Failed, &c.reason.unwrap_or_default(), &c.message.unwrap_or_default());
    }
    if let Some(failure) = left {
        return end(pass, BackupPhase::Failed, &failure.reason.clone(), &failure.message.clone());
    }
    let text = summary::backed_up(&pass.now.targets);
    end(pass, BackupPhase::Succeeded, reason::SUCCEEDED, &text);
}

/// Reason and text of a failed member: those of its failed host, or those of its failed condition.
fn why(target: &BackupTargetStatus) -> (String, String) {
    if let Some(host) = target.stats.iter().find(|h| h.phase == Some(BackupHostPhase::Failed)) {
        let why = host.reason.clone().unwrap_or_else(|| reason::MEMBER_FAILED.to_owned());
        return (why, format!("host {}: {}", host.hostname, host.error.clone().unwrap_or_default()));
    }
    let Some(c) = target.conditions.iter().find(|c| c.status == "False") else {
        return (reason::MEMBER_FAILED.to_owned(), String::new());
    };
    let text = c.message.clone().unwrap_or_default();
    // The session waits until the deadline, and no longer, for something that may still appear.
    if [reason::TARGET_NOT_AVAILABLE, reason::PENDING].contains(&c.reason.as_deref().unwrap_or_default()) {
        return (reason::DEADLINE_EXCEEDED.to_owned(), format!("Not started before the deadline. Last: {text}"));
    }
    (reason::MEMBER_FAILED.to_owned(), text)
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
    tell_repository(pass, phase);
    let health = if phase == BackupPhase::Succeeded { Health::Ready } else { Health::Stalled };
    pass.plan.note_end(why);
    say(pass, health, why, text);
    pass.event(phase != BackupPhase::Succeeded, why, text);
    // The finalizer is removed, and the retry session is created, after this status is written.
    pass.plan.again = pass.run.id.held || pass.now.next_retry.is_some();
}

/// Sets the session's summary line and its kstatus conditions.
fn say(pass: &mut Pass<'_>, health: Health, why: &str, said: &str) {
    pass.now.summary = Some(text::summary(said));
    conditions::set_health(&mut pass.now.conditions, health, why, &text::message(said), pass.at);
}
