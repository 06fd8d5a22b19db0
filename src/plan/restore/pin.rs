//! Preflight: every host's snapshots are resolved and pinned before data is touched.
//!
//! A preflight Job only reads, so it needs no announcement. Answers are taken from the Jobs of the current attempt. A
//! fault of the infrastructure leads to the next attempt; any other fault is a fault of the hosts that were asked for.
//! Hosts that a Job leaves out, because its answer has no room for them, are asked for by another Job, whose key
//! differs because it has fewer hosts.

use k8s_openapi::api::core::v1::PodSpec;

use crate::api::common::Ownership;
use crate::api::restore_session::{HostPhase, HostRestoreStats, RestorePhase, StepStatus};
use crate::api::target::RestoreTarget;
use crate::contract::Runner;
use crate::contract::{Answer, Class, Failure, Found, Part};
use crate::names::{hash_of, reason};
use crate::plan::effects::warn;
use crate::plan::restore::pass::{Ground, MemberGround, Pass, job_parts};
use crate::plan::restore::status::{is_over, is_pinned, key, member_is_over, part};
use crate::plan::seen::job_status::{FIRST_LOOK, JobSeen, JobState};
use crate::plan::seen::target::Reach;
use crate::plan::systems::system::{Looking, Open, Role};
use crate::plan::work;
use crate::plan::work::job_spec::env;
use crate::plan::work::job_spec::frame::JobParts;
use crate::plan::work::{attempt, job_spec, pod_security, retry};

/// Key of preflight steps, and name of the step in status.
pub const PREFLIGHT: &str = "preflight";

/// Takes answers, and requests Jobs for the hosts that are still open.
pub fn advance(pass: &mut Pass<'_>, ground: Option<&Ground>) {
    let attempt = take_answers(pass);
    if let Some(ground) = ground.filter(|_| !pass.expired) {
        refuse_forbidden(pass, ground);
    }
    let open = open(pass);
    if open.is_empty() {
        return;
    }
    let Some(ground) = ground.filter(|_| !pass.expired) else { return };
    if let Some(wait) = retry::pause(step(pass).not_before.clone().as_ref(), pass.at) {
        pass.plan.look_again(wait);
        return;
    }
    let mut waiting: Vec<Part> = open.into_iter().filter(|part| !is_asked(pass, part, attempt)).collect();
    // A Job looks at parts of one system, and with one connection.
    while let Some(first) = waiting.first().map(|part| part.member) {
        let of = |index: usize| (pass.run.driver(index), pass.slot(index));
        let (these, others) = waiting.into_iter().partition(|part: &Part| of(part.member) == of(first));
        waiting = others;
        look(pass, ground, first, these, attempt);
    }
}

/// Requests Jobs for parts of members with the same system and connection as `first`, as far as there are slots.
fn look(pass: &mut Pass<'_>, ground: &Ground, first: usize, parts: Vec<Part>, attempt: i32) {
    let (Some(system), Some(target)) = (pass.system(first), &pass.run.members[first].target) else { return };
    let Ok(MemberGround { frame, access }) = ground.of(system, Some(target)) else { return };
    let driver = pass.run.driver(first);
    let members = pass.run.members.iter().zip(&pass.now.members).enumerate();
    let members = members.filter(|(i, _)| pass.run.driver(*i) == driver);
    let about = Looking {
        access,
        selection: &pass.run.selection,
        began: pass.now.run.start_time.as_ref().map_or(pass.at, |t| t.0),
        members: &pass.run.members,
        parts: members.filter_map(|(_, (m, now))| Some((m.target.as_ref()?, now.stats.as_slice()))).collect(),
    };
    let open = parts.into_iter().filter_map(|part| to_look_at(pass, ground, part)).collect();
    for (asked, work) in system.look(open, &about) {
        if !pass.admit(first) {
            return;
        }
        let names: Vec<String> = asked.iter().map(|p| format!("{}/{}", p.member, p.name)).collect();
        let key = format!("{PREFLIGHT}/{}", hash_of(&names.iter().map(String::as_str).collect::<Vec<_>>()));
        let member = asked.first().map_or(first, |p| p.member);
        let settings = &pass.run.members[member];
        let parts = JobParts {
            key,
            attempt,
            needs: system.needs(pass.needing(first, target, access, Role::Look)),
            runtime: settings.runtime_settings.as_ref(),
            temp_dir: settings.temp_dir.as_ref(),
            seconds_left: pass.seconds_left(),
            ..JobParts::default()
        };
        let task = pass.task(member, PREFLIGHT, asked, work);
        let job = job_spec::job(&frame, &task, parts);
        let level = pass.seen.pod_security;
        let allowed = env::check_task(&job).and_then(|()| pod_security::check_job(level, &job));
        if let Err(failure) = allowed {
            task.parts.into_iter().for_each(|part| take(pass, &refused(part, failure.clone())));
            continue;
        }
        pass.plan.jobs.push(job);
        pass.plan.look_again(FIRST_LOOK);
        pass.now.phase = Some(RestorePhase::Running);
    }
}

/// The run-level entry of this step, created if it does not exist.
fn step<'p>(pass: &'p mut Pass<'_>) -> &'p mut StepStatus {
    work::step::entry(&mut pass.now.run.steps, PREFLIGHT)
}

/// Reads the Jobs of the current attempt. Returns the attempt that is current afterwards.
fn take_answers(pass: &mut Pass<'_>) -> i32 {
    let attempt = step(pass).attempt;
    let jobs: Vec<&JobSeen> = pass.seen.jobs.iter().filter(|j| j.key.starts_with(PREFLIGHT)).collect();
    let mut fault = None;
    for job in jobs {
        if job.attempt < attempt {
            // Its fault is in status. Two attempts at once would only fill the namespace.
            if pass.was.run.steps.iter().any(|s| s.name == PREFLIGHT && s.attempt == attempt) {
                pass.plan.stop(Some(job));
            }
            continue;
        }
        let failure = match &job.state {
            JobState::Active { held } => {
                if held.is_some() {
                    let entry = work::step::entry(&mut pass.now.run.steps, PREFLIGHT);
                    attempt::hold(&mut pass.plan, entry, held.as_ref());
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
                    Failure::new(Class::Fatal, reason::AGENT_FAILED, "The preflight returned no result for this run.")
                }
            },
        };
        let deaths = retry::deaths(&failure, step(pass).pod_deaths);
        if retry::again(&failure, deaths) {
            fault = Some(failure);
            continue;
        }
        if matches!(job.state, JobState::Lost(_)) {
            attempt::give_up(&mut pass.plan, job, &failure);
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
        let entry = work::step::entry(&mut pass.now.run.steps, PREFLIGHT);
        // The result is not needed: it is known already that the attempt is retried.
        let _ = attempt::again(&mut pass.plan, entry, &failure, pass.at, false);
        entry.done = false;
        return entry.attempt;
    }
    attempt
}

/// Whether the Job answers for any host that it was asked for. If it does not, another Job would not either.
fn answers_some(job: &JobSeen, answers: &[Found]) -> bool {
    job.parts.is_empty() || job.parts.iter().any(|part| answers.iter().any(|a| a.part == *part))
}

fn refused(part: Part, failure: Failure) -> Found {
    Found { part, failure: Some(failure), ..Found::default() }
}

/// Fails every host that is not begun and whose Job the namespace would not admit. The host fails at once and with
/// nothing touched, not after its Job has waited for a pod until the deadline.
fn refuse_forbidden(pass: &mut Pass<'_>, ground: &Ground) {
    let level = pass.seen.pod_security;
    if level == pod_security::Level::Privileged {
        return;
    }
    let namespace = pass.run.id.namespace.clone();
    for part in open(pass) {
        let Some(reach) = pass.reaches.get(&(part.member, part.name.clone())) else { continue };
        let Some(pod) = restore_pod(pass, ground, &part, reach) else { continue };
        let Err(mut failure) = pod_security::check(level, &pod, &namespace) else { continue };
        let unowned =
            pass.run.members[part.member].target.as_ref().and_then(|t| t.ownership) == Some(Ownership::Ignore);
        if !unowned && pod_security::is_about_root(level, &pod) {
            reason::OWNERSHIP.clone_into(&mut failure.reason);
            failure.message = format!(
                "Namespace {namespace} enforces the Pod Security level {}, which does not allow Jobs to set owners of files. Restore in a namespace that allows baseline, or set target.ownership: Ignore if files may belong to the user of the Job. Nothing was changed.",
                level.as_str()
            );
        }
        take(pass, &refused(part, failure));
    }
}

/// The pod that will restore a host, as far as Pod Security checks it. Otherwise a whole Job would be built for each
/// host at each reconcile.
fn restore_pod(pass: &Pass<'_>, ground: &Ground, part: &Part, reach: &Reach) -> Option<PodSpec> {
    let system = pass.system(part.member)?;
    let target = pass.run.members[part.member].target.as_ref()?;
    let ground = ground.of(system, Some(target)).ok()?;
    let needs = system.needs(pass.needing(part.member, target, ground.access, Role::Act));
    let parts = job_parts(pass, part.member, key(part.member, &part.name), needs, reach);
    Some(job_spec::guarded_pod(&ground.frame, &parts))
}

/// The user that the restore of a host will run as, if every file must belong to that user, and whether the restore may
/// not create device files.
fn limits(pass: &Pass<'_>, ground: &Ground, part: &Part, target: &RestoreTarget) -> (Option<Runner>, bool) {
    // The volumes of the host do not matter here.
    let Some(pod) = restore_pod(pass, ground, part, &Reach::default()) else { return (None, false) };
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

/// Pins the answer for a host, or fails the host. A host that is pinned does not change.
fn take(pass: &mut Pass<'_>, answer: &Found) {
    let Part { member, name } = &answer.part;
    let Some(system) = pass.system(*member) else { return };
    let rule = pass.rule(*member, name);
    let target = pass.run.members.get(*member).and_then(|m| m.target.as_ref());
    let allow_empty = target.and_then(|t| t.allow_empty).unwrap_or(false);
    let Some(member) = pass.now.members.get_mut(*member) else { return };
    let Some(host) = member.stats.iter_mut().find(|h| h.hostname == *name && is_open(h)) else { return };
    let said = warn(&mut host.warnings, &host.hostname, &answer.warnings);
    let pinned = answer.failure.clone().map_or_else(|| system.pin(host, answer, rule), Err);
    match pinned {
        Ok(()) => {}
        Err(failure) if answer.failure.is_some() && allow_empty && system.has_nothing(&failure) => {
            host.phase = Some(HostPhase::Succeeded);
            host.reason = Some(failure.reason);
        }
        Err(failure) => {
            host.phase = Some(HostPhase::Failed);
            host.reason = Some(failure.reason);
            host.error = Some(failure.message);
        }
    }
    let entry = step(pass);
    entry.done = true;
    entry.reason = None;
    entry.message = None;
    pass.plan.events.extend(said);
}

fn is_open(host: &HostRestoreStats) -> bool {
    !is_pinned(host) && !is_over(host.phase)
}

/// Hosts that are not resolved yet and can be: their target exists and is reachable.
fn open(pass: &Pass<'_>) -> Vec<Part> {
    let members = pass.now.members.iter().zip(&pass.run.members).enumerate();
    let unfinished = members.filter(|(_, (status, _))| !member_is_over(status.phase));
    let hosts = unfinished.flat_map(|(index, (status, _))| {
        let has_rule = move |h: &&HostRestoreStats| pass.is_asked_for(index, &h.hostname);
        status.stats.iter().filter(|h| is_open(h)).filter(has_rule).map(move |h| part(index, &h.hostname))
    });
    hosts.filter(|part| pass.reaches.contains_key(&(part.member, part.name.clone()))).collect()
}

fn to_look_at<'p>(pass: &Pass<'p>, ground: &Ground, part: Part) -> Option<Open<'p>> {
    let target = pass.run.members[part.member].target.as_ref()?;
    let rule = pass.rule(part.member, &part.name);
    let mounts = pass.reaches.get(&(part.member, part.name.clone()))?.mount_points();
    let (runner, no_devices) = limits(pass, ground, &part, target);
    let system = pass.system(part.member)?;
    Some(system.opened(Open { part, target, rule, mounts, runner, no_devices }))
}

/// Whether a Job of this attempt asks for the host, and has not answered without it.
fn is_asked(pass: &Pass<'_>, part: &Part, attempt: i32) -> bool {
    let of_attempt = |j: &&JobSeen| j.attempt == attempt && j.key.starts_with(PREFLIGHT);
    let waits = |j: &&JobSeen| !matches!(j.state, JobState::Done(_));
    pass.seen.jobs.iter().filter(of_attempt).filter(waits).any(|j| j.parts.contains(part))
}

/// Whether every host that can be asked for is resolved or failed.
pub fn is_settled(pass: &Pass<'_>) -> bool {
    open(pass).is_empty()
}
