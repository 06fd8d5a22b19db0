//! Preflight: every host's snapshots are resolved and pinned before data is touched.
//!
//! A preflight Job only reads, so it needs no announcement. Its answers are
//! taken from the Jobs of the current attempt; a fault of the infrastructure
//! makes the next attempt, any other fault is a fault of the hosts asked for.
//! Hosts that a Job leaves out, because its answer has no room for them, are asked
//! for by another one, whose key is another because its hosts are fewer.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::host::{counts, key, part, parts};
use super::{Ground, Pass, is_over, member_is_over};
use crate::api::common::{Ownership, Rule};
use crate::api::restore_session::{HostPhase, HostRestoreStats, PinnedSnapshot, RestorePhase, StepStatus};
use crate::contract::restic::{Companion, HostQuery, Pins, Preflight, Restore, Runner, Step};
use crate::contract::{self, Answer, Class, Failure, Found, OUTCOME_LIMIT, OUTCOME_SLACK, Part};
use crate::names::{hash_of, reason};
use crate::plan::hosts::{HostSet, normal_path, rule_for, source_host};
use crate::plan::jobs::{FIRST_LOOK, JobSeen, JobState};
use crate::plan::objects::{self, JobParts};
use crate::plan::run::Selection;
use crate::plan::target::Reach;
use crate::plan::{pod_security, restic_args, retry, warn};

/// A host, and which snapshots it wants.
type Query = (Part, HostQuery);

/// Key of preflight steps, and name of the step in status.
pub const PREFLIGHT: &str = "preflight";
/// Bytes that one pinned snapshot takes in an answer, its path apart: id (64), time (35) and JSON around them.
const ANSWER_BYTES: usize = 180;

/// Digits by which a snapshot that is pinned already is named.
const PINNED_DIGITS: usize = 16;

/// Reasons by which there is nothing to restore.
const NO_DATA: [&str; 3] = [reason::SNAPSHOT_NOT_FOUND, reason::REPOSITORY_MISSING, reason::NOTHING_TO_RESTORE];

/// Takes answers, and asks for what is still open.
pub fn advance(pass: &mut Pass<'_>, ground: Option<&Ground>) {
    let attempt = take_answers(pass);
    if let Some(ground) = ground.filter(|_| !pass.expired) {
        refuse_forbidden(pass, ground);
    }
    let open = open_queries(pass, ground);
    if open.is_empty() {
        return;
    }
    let Some(Ground { frame, access }) = ground.filter(|_| !pass.expired) else { return };
    if let Some(wait) = retry::pause(step(pass).not_before.clone().as_ref(), pass.at) {
        pass.plan.look_again(wait);
        return;
    }
    let waiting_for: Vec<Query> = open.into_iter().filter(|(part, _)| !is_asked(pass, part, attempt)).collect();
    let together = together(pass);
    for queries in chunks(waiting_for) {
        if !pass.gate.admit(&mut pass.plan) {
            return;
        }
        let names: Vec<String> = queries.iter().map(|(p, _)| format!("{}/{}", p.member, p.name)).collect();
        let step_key = format!("{PREFLIGHT}/{}", hash_of(&names.iter().map(String::as_str).collect::<Vec<_>>()));
        let member = queries[0].0.member;
        let (asked, hosts): (Vec<Part>, Vec<HostQuery>) = queries.into_iter().unzip();
        let look = Step::Preflight(Preflight { hosts, together: together.clone() });
        let task = pass.task(access, member, look, asked);
        let settings = &pass.run.members[member];
        let parts = JobParts {
            key: step_key,
            attempt,
            runtime: settings.runtime_settings.as_ref(),
            temp_dir: settings.temp_dir.as_ref(),
            seconds_left: pass.seconds_left(),
            ..JobParts::default()
        };
        let job = objects::job(frame, &task, parts);
        let level = pass.seen.pod_security;
        let allowed = objects::check_task(&job).and_then(|()| pod_security::check_job(level, &job));
        if let Err(failure) = allowed {
            task.parts.into_iter().for_each(|part| take(pass, &refused(part, failure.clone())));
            continue;
        }
        pass.plan.jobs.push(job);
        pass.plan.look_again(FIRST_LOOK);
        pass.now.phase = Some(RestorePhase::Running);
    }
}

/// The run-level entry of this step, made when it is not there.
fn step<'p>(pass: &'p mut Pass<'_>) -> &'p mut StepStatus {
    let steps = &mut pass.now.run.steps;
    let at = steps.iter().position(|s| s.name == PREFLIGHT).unwrap_or_else(|| {
        steps.push(StepStatus { name: PREFLIGHT.to_owned(), attempt: 1, ..StepStatus::default() });
        steps.len() - 1
    });
    &mut steps[at]
}

/// Reads the Jobs of the current attempt; the attempt that is current afterwards.
fn take_answers(pass: &mut Pass<'_>) -> i32 {
    let attempt = step(pass).attempt;
    let jobs: Vec<&JobSeen> = pass.seen.jobs.iter().filter(|j| j.key.starts_with(PREFLIGHT)).collect();
    let mut fault = None;
    for job in jobs {
        if job.attempt < attempt {
            // Its fault stands in status; two attempts at once would only fill the namespace.
            if pass.was.run.steps.iter().any(|s| s.name == PREFLIGHT && s.attempt == attempt) {
                pass.plan.stop(Some(job));
            }
            continue;
        }
        let failure = match &job.state {
            JobState::Active { held } => {
                if let Some(held) = held {
                    let before = step(pass).reason.take();
                    note(pass, held);
                    pass.plan.warn_of(held, before.as_deref());
                }
                if pass.expired {
                    pass.plan.stop(Some(job));
                }
                pass.plan.look_again(job.next_look());
                continue;
            }
            JobState::Lost(failure) => failure.clone(),
            JobState::Done(outcome) => match (&outcome.failure, &outcome.answer) {
                (None, Some(Answer::Found(answers)))
                    if outcome.run == pass.run.id.uid && answers_some(job, answers) =>
                {
                    for answer in answers {
                        take(pass, answer);
                    }
                    continue;
                }
                (Some(failure), _) => failure.clone(),
                (None, _) => {
                    Failure::new(Class::Fatal, reason::AGENT_FAILED, "The preflight gave no answer for this run.")
                }
            },
        };
        let deaths = retry::deaths(&failure, step(pass).pod_deaths);
        if retry::again(&failure, deaths) {
            fault = Some(failure);
            continue;
        }
        if failure.class == Class::Invalid && matches!(job.state, JobState::Lost(_)) {
            // A pod that can never start is still there.
            pass.plan.stop(Some(job));
        }
        for part in &job.parts {
            take(pass, &refused(part.clone(), failure.clone()));
        }
    }
    if let Some(failure) = fault {
        if pass.expired {
            note(pass, &failure);
            return attempt;
        }
        let due = retry::not_before(attempt, pass.at);
        pass.plan.note(&failure);
        let entry = step(pass);
        entry.attempt = attempt.saturating_add(1);
        entry.pod_deaths = retry::deaths(&failure, entry.pod_deaths);
        entry.done = false;
        entry.not_before = Some(super::conditions::whole_second(due));
        note(pass, &failure);
        return attempt.saturating_add(1);
    }
    attempt
}

/// Whether it answers for any host that it was asked for. One that does not would not by another Job either.
fn answers_some(job: &JobSeen, answers: &[Found]) -> bool {
    job.parts.is_empty() || job.parts.iter().any(|part| answers.iter().any(|a| a.part == *part))
}

fn refused(part: Part, failure: Failure) -> Found {
    Found { part, failure: Some(failure), ..Found::default() }
}

/// Fails every host that is not begun and whose Job the namespace would not let in: with nothing touched, and at
/// once rather than when its Job has waited for a pod until the deadline.
fn refuse_forbidden(pass: &mut Pass<'_>, ground: &Ground) {
    let level = pass.seen.pod_security;
    if level == pod_security::Level::Privileged {
        return;
    }
    let namespace = pass.run.id.namespace.clone();
    for (part, _) in open_queries(pass, None) {
        let Some(reach) = pass.reaches.get(&(part.member, part.name.clone())) else { continue };
        let pod = restore_pod(pass, ground, part.member, &part.name, reach);
        let Err(mut failure) = pod_security::check(level, &pod, &namespace) else { continue };
        let unowned =
            pass.run.members[part.member].target.as_ref().and_then(|t| t.ownership) == Some(Ownership::Ignore);
        if !unowned && pod_security::is_about_root(level, &pod) {
            reason::OWNERSHIP.clone_into(&mut failure.reason);
            failure.message = format!(
                "Namespace {namespace} enforces the Pod Security level {}, under which no Job may give files their owners. Restore in a namespace that allows baseline, or set target.ownership: Ignore if files may belong to whom the Job runs as. Nothing was touched.",
                level.as_str()
            );
        }
        take(pass, &refused(part, failure));
    }
}

/// The pod that will restore a host, as far as Pod Security judges it: a whole Job for each host would be made at each
/// look.
fn restore_pod(pass: &Pass<'_>, ground: &Ground, member: usize, host: &str, reach: &Reach) -> PodSpec {
    let task = pass.task(&ground.access, member, Step::Restore(Restore::default()), vec![]);
    objects::guarded_pod(&ground.frame, &task, &parts(pass, member, key(member, host), reach))
}

/// Whom the restore of a host will run as, where every file must be theirs, and whether it may make no device files.
fn limits(pass: &Pass<'_>, ground: Option<&Ground>, member: usize, host: &str) -> (Option<Runner>, bool) {
    let Some((ground, target)) = ground.zip(pass.run.members[member].target.as_ref()) else { return (None, false) };
    // Its volumes do not matter here.
    let pod = restore_pod(pass, ground, member, host, &Reach::default());
    let keep = target.ownership != Some(Ownership::Ignore);
    (pod_security::runner(&pod).filter(|_| keep), !pod_security::makes_devices(&pod))
}

/// Says in status what holds the preflight up.
fn note(pass: &mut Pass<'_>, failure: &Failure) {
    let entry = step(pass);
    entry.reason = Some(failure.reason.clone());
    entry.message = Some(failure.message.clone());
}

/// What holds the preflight up: reason and message.
pub fn held(pass: &Pass<'_>) -> Option<(String, String)> {
    let step = pass.now.run.steps.iter().find(|s| s.name == PREFLIGHT);
    let said = step.and_then(|s| Some((s.reason.clone()?, s.message.clone()?)));
    said.or_else(|| pass.gate.silence().map(|(why, text)| (why.to_owned(), text.to_owned())))
}

/// Pins what a host was answered, or fails it. A host that is pinned stays as it is.
fn take(pass: &mut Pass<'_>, answer: &Found) {
    let Part { member, name } = &answer.part;
    let target = pass.run.members.get(*member).and_then(|m| m.target.as_ref());
    let allow_empty = target.and_then(|t| t.allow_empty).unwrap_or(false);
    let rule = target.and_then(|t| rule_for(&t.rules, name));
    let asked: Vec<String> = rule.iter().flat_map(|r| &r.paths).map(|p| normal_path(p)).collect();
    let fixed = Pins::read(answer.pin.as_ref());
    let pins = fixed.unpacked(&asked);
    let Some(member) = pass.now.members.get_mut(*member) else { return };
    let Some(host) = member.stats.iter_mut().find(|h| h.hostname == *name && is_open(h)) else { return };
    let said = warn(&mut host.warnings, &host.hostname, &answer.warnings);
    match (&answer.failure, pins) {
        // A repository that nothing was ever backed up into is as empty as one without a snapshot of the host.
        (Some(failure), _) if allow_empty && NO_DATA.contains(&failure.reason.as_str()) => {
            host.phase = Some(HostPhase::Succeeded);
            host.reason = Some(failure.reason.clone());
        }
        (Some(failure), _) => {
            host.phase = Some(HostPhase::Failed);
            host.reason = Some(failure.reason.clone());
            host.error = Some(failure.message.clone());
        }
        (None, Err(why)) => {
            host.phase = Some(HostPhase::Failed);
            host.reason = Some(reason::AGENT_FAILED.to_owned());
            host.error = Some(format!("The answer of the preflight is not readable: {why}."));
        }
        (None, Ok(pins)) => {
            host.planned = contract::restic::Counts::of_planned(&answer.planned).map(counts);
            host.owner.clone_from(&fixed.owner);
            let pin =
                |s: contract::restic::PinnedSnapshot| PinnedSnapshot { id: s.id, time: Some(s.time), path: s.path };
            host.snapshots = pins.into_iter().map(pin).collect();
            if host.snapshots.is_empty() {
                host.phase = Some(HostPhase::Failed);
                host.reason = Some(reason::SNAPSHOT_NOT_FOUND.to_owned());
                host.error = Some("The preflight found no snapshot.".to_owned());
            }
        }
    }
    let entry = step(pass);
    entry.done = true;
    entry.reason = None;
    entry.message = None;
    pass.plan.events.extend(said);
}

fn is_open(host: &HostRestoreStats) -> bool {
    host.snapshots.is_empty() && !is_over(host.phase)
}

/// Hosts that are not resolved yet and can be: their target is there and reachable.
fn open_queries(pass: &Pass<'_>, ground: Option<&Ground>) -> Vec<Query> {
    let mut open = vec![];
    for (index, (status, member)) in pass.now.members.iter().zip(&pass.run.members).enumerate() {
        if member_is_over(status.phase) {
            continue;
        }
        let Some(target) = &member.target else { continue };
        for host in status.stats.iter().filter(|h| is_open(h)) {
            let Some(rule) = rule_for(&target.rules, &host.hostname) else { continue };
            let Some(reach) = pass.reaches.get(&(index, host.hostname.clone())) else { continue };
            // A rule that selects by itself is not narrowed down by what the session says of the others.
            let of_session = if selects(rule) { &Selection::default() } else { &pass.run.selection };
            let (runner, no_devices) = limits(pass, ground, index, &host.hostname);
            let query = HostQuery {
                source_host: source_host(rule, &host.hostname).to_owned(),
                snapshots: rule.snapshots.clone(),
                paths: rule.paths.clone(),
                tags: with_tags(restic_args::tags(&target.args), &rule.tags),
                as_of: rule.as_of.as_ref().or(of_session.as_of.as_ref()).map(|at| not_later(pass, at)),
                together: of_session.as_of.is_some(),
                session: of_session.session.clone(),
                previous: rule.previous.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
                mounts: reach.mount_points(),
                runner,
                include: rule.include.clone(),
                exclude: rule.exclude.clone(),
                no_devices,
                allow_empty: target.allow_empty.unwrap_or(false),
                exact: target.is_exact(),
            };
            open.push((part(index, &host.hostname), query));
        }
    }
    open
}

/// Whether a rule says by itself which backup it takes.
fn selects(rule: &Rule) -> bool {
    rule.as_of.is_some() || rule.previous.is_some() || rule.snapshots.iter().any(|s| s != "latest")
}

/// A time that the run knows the backups of: what is yet to come may be there for one host and not yet for the next, so a
/// later time means when the run began.
fn not_later(pass: &Pass<'_>, as_of: &str) -> String {
    let start = pass.now.run.start_time.as_ref().map_or(pass.at, |t| t.0);
    // Status has whole seconds, cut off.
    let last = start.saturating_add(SignedDuration::from_secs(1)).unwrap_or(start);
    if as_of.parse::<Timestamp>().is_ok_and(|at| at > last) { last.to_string() } else { as_of.to_owned() }
}

/// The hosts that follow the session's `asOf`, of all members, so that every Job of the preflight chooses the same run.
/// What a target is not there yet for is known where it has only one host.
fn together(pass: &Pass<'_>) -> Vec<Companion> {
    let mut all = BTreeSet::new();
    if pass.run.selection.as_of.is_none() {
        return vec![];
    }
    for (status, member) in pass.now.members.iter().zip(&pass.run.members) {
        let Some(target) = &member.target else { continue };
        let mut hosts: Vec<(String, Option<String>)> = vec![];
        for host in &status.stats {
            let pinned = host.snapshots.first().and_then(|s| s.id.get(..PINNED_DIGITS)).map(str::to_owned);
            hosts.push((host.hostname.clone(), pinned));
        }
        if let (HostSet::One(host), true) = (HostSet::of_restore(target), hosts.is_empty()) {
            hosts.push((host, None));
        }
        for (host, pinned) in hosts {
            let Some(rule) = rule_for(&target.rules, &host).filter(|r| !selects(r)) else { continue };
            all.insert(Companion {
                source_host: source_host(rule, &host).to_owned(),
                tags: with_tags(restic_args::tags(&target.args), &rule.tags),
                optional: target.allow_empty.unwrap_or(false),
                pinned,
            });
        }
    }
    all.into_iter().collect()
}

/// Lists of which one must match in full, each with further tags.
fn with_tags(mut lists: Vec<Vec<String>>, more: &[String]) -> Vec<Vec<String>> {
    if lists.is_empty() && !more.is_empty() {
        lists.push(vec![]);
    }
    lists.iter_mut().for_each(|list| list.extend_from_slice(more));
    lists
}

/// Whether a Job of this attempt asks for the host, and has not answered without it.
fn is_asked(pass: &Pass<'_>, part: &Part, attempt: i32) -> bool {
    let of_attempt = |j: &&JobSeen| j.attempt == attempt && j.key.starts_with(PREFLIGHT);
    let waits = |j: &&JobSeen| !matches!(j.state, JobState::Done(_));
    pass.seen.jobs.iter().filter(of_attempt).filter(waits).any(|j| j.parts.contains(part))
}

/// Splits queries so that each chunk's answers most likely fit one termination message. How many snapshots `latest` is,
/// one a path that was backed up, nobody knows here: what does not fit is left out and asked for again.
fn chunks(queries: Vec<Query>) -> Vec<Vec<Query>> {
    let mut chunks: Vec<Vec<Query>> = vec![];
    let mut room = 0;
    for (part, query) in queries {
        let paths: usize = query.paths.iter().map(|p| p.len() + ANSWER_BYTES).sum();
        let snapshots = if query.paths.is_empty() { query.snapshots.len().max(query.mounts.len()).max(1) } else { 0 };
        let cost = part.name.len() + paths.max(snapshots * ANSWER_BYTES);
        match chunks.last_mut() {
            Some(last) if cost <= room => {
                last.push((part, query));
                room -= cost;
            }
            _ => {
                room = (OUTCOME_LIMIT - OUTCOME_SLACK).saturating_sub(cost);
                chunks.push(vec![(part, query)]);
            }
        }
    }
    chunks
}

/// Whether every host that can be asked for is resolved or failed.
pub fn is_settled(pass: &Pass<'_>) -> bool {
    open_queries(pass, None).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_query_is_lost_and_no_chunk_is_too_large(sizes in prop::collection::vec((0usize..4, 1usize..60), 0..60)) {
            let queries: Vec<Query> = sizes.iter().enumerate()
                .map(|(i, (paths, len))| (part(9, &format!("h{i}")), HostQuery { paths: vec!["x".repeat(*len); *paths], ..HostQuery::default() })).collect();
            let split = chunks(queries.clone());
            prop_assert_eq!(split.concat(), queries);
            for chunk in split {
                let pins = |q: &HostQuery| Pins {
                    snapshots: q.paths.iter().map(|p| crate::contract::restic::PinnedSnapshot { id: "a".repeat(64), time: "2026-11-20T16:40:27.123456789+00:00".into(), path: Some(p.clone()) }).collect(),
                    ..Pins::default()
                };
                let answers = chunk.iter().map(|(part, q)| Found { part: part.clone(), pin: pins(q).write(), ..Found::default() }).collect();
                let outcome = crate::contract::Outcome { version: 1, run: "r".repeat(36), seconds: 1.0, answer: Some(Answer::Found(answers)), ..Default::default() };
                prop_assert!(serde_json::to_string(&outcome).unwrap().len() <= OUTCOME_LIMIT);
            }
        }
    }
}
