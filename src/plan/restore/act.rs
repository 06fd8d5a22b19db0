//! Restores one host of a member: announces it, creates its Job, reads and judges the result.

use crate::api::restore_session::HostPhase;
use crate::api::target::RestoreTarget;
use crate::contract::{Class, Failure, Outcome};
use crate::names::{condition, reason};
use crate::plan::effects::warn;
use crate::plan::restore::pass::{
    Ground, LOOK_AT_PROGRESS, LOOK_AT_RUNNING, LOOK_FOR_MISSING, MemberGround, Pass, is_late, job_parts, target_of,
};
use crate::plan::restore::status::{RESTORE, is_broken, is_over, key, member_label, part};
use crate::plan::restore::{conflicts, extraneous, held, rounds};
use crate::plan::run::{conditions, duration};
use crate::plan::seen::job_status::{FIRST_LOOK, JobSeen, JobState};
use crate::plan::seen::progress::progress;
use crate::plan::systems::system::{Acting, Role, System};
use crate::plan::work::attempt::Stand;
use crate::plan::work::job_spec::frame::JobParts;
use crate::plan::work::job_spec::{env, interim};
use crate::plan::work::{attempt, job_spec, retry};

/// Restores all hosts of a member. True when they are over.
pub fn all(pass: &mut Pass<'_>, index: usize, ground: Option<&Ground>) -> bool {
    for host in 0..pass.now.members[index].stats.len() {
        restore(pass, index, host, ground);
    }
    pass.now.members[index].stats.iter().all(|h| is_over(h.phase))
}

/// Restores one host: announces it, creates its Job, reads the result.
fn restore(pass: &mut Pass<'_>, index: usize, host: usize, ground: Option<&Ground>) {
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
    // One writer at a time: a Job that is reported as failed may have a pod that still writes.
    let stand = attempt::look(&mut pass.plan, &pass.seen.jobs, &key, attempt);
    let is_quiet = |j: &JobSeen| j.address.is_none() && matches!(j.state, JobState::Active { held: None });
    if pass.job(&key, attempt).is_some_and(|j| !is_quiet(j)) {
        say_created(pass, index);
    }
    match stand {
        Stand::Active(job, held) => {
            let entry = &mut pass.now.members[index].stats[host];
            if let Some(p) = pass.seen.progress.get(&job.name) {
                entry.progress = Some(progress(p));
            }
            if held::can_be_known(entry) {
                entry.not_before = None;
            }
            attempt::hold(&mut pass.plan, entry, held);
            let moves = job.address.is_some();
            pass.plan.look_again(if moves { LOOK_AT_PROGRESS } else { job.next_look() });
            // The Job would delete what the pods write. It is retried when the pods are gone.
            if extraneous::must_stop(pass, index) {
                extraneous::note_uncounted(pass, index, host);
                pass.plan.stop(Some(job));
            }
        }
        Stand::Done(_, outcome) => read(pass, index, host, outcome),
        Stand::Lost(job, failure) => {
            // A Job that the API server did not accept has never run.
            if job.is_unmade && failure.reason == reason::REFUSED_BY_API {
                held::note_unwritten(&mut pass.now.members[index].stats[host]);
            } else if failure.class != Class::Invalid {
                extraneous::note_uncounted(pass, index, host);
            }
            fail_host(pass, index, host, &broken_off(pass, index, failure));
        }
        Stand::Absent { alone: true } => create(pass, index, host, ground, key, attempt),
        Stand::Absent { alone: false } => pass.plan.look_again(LOOK_AT_RUNNING),
    }
}

/// Sets the conditions that say that a member has Jobs. They get no status write of their own, but go with the first
/// write that says more.
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

/// Takes the result of a Job.
pub fn read(pass: &mut Pass<'_>, index: usize, host: usize, outcome: &Outcome) {
    let (Some(system), Some(target)) = (pass.system(index), &pass.run.members[index].target) else { return };
    let failure = judge(outcome, &pass.run.id.uid, system, target);
    let entry = &mut pass.now.members[index].stats[host];
    let deleted = system.note(entry, outcome);
    pass.plan.events.extend(extraneous::note(entry, deleted));
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
        // Without counts, the Job had not begun to write.
        Some(failure) if outcome.answer.is_none() => fail_host(pass, index, host, &failure),
        Some(failure) => fail_host(pass, index, host, &broken_off(pass, index, &failure)),
    }
}

/// The failure of an attempt that may have left its work half done. If the next attempt would take that work for
/// complete, there is no next attempt.
fn broken_off(pass: &Pass<'_>, index: usize, failure: &Failure) -> Failure {
    let once = if retry::again(failure, None) { runs_once(pass, index) } else { None };
    once.map_or_else(|| failure.clone(), |system| system.half_done(&failure.message))
}

/// The system of a member, if another attempt would not finish what one attempt has begun. A late or canceled run has
/// no other attempt anyway.
fn runs_once(pass: &Pass<'_>, index: usize) -> Option<&'static dyn System> {
    let system = pass.system(index)?;
    let once = system.runs_once(pass.run.members[index].target.as_ref()?);
    (once && !is_late(pass, index) && !pass.run.canceled).then_some(system)
}

/// Stage of an attempt that has no Job.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// The attempt is to begin. Its Job is created once that is written.
    ToBegin,
    /// Its first Job is to be created.
    First,
    /// Its Job is to be created, or created again.
    Any,
}

/// Stage of the attempt. `None` if there is nothing more to do now.
fn stage(pass: &mut Pass<'_>, index: usize, host: usize, key: &str, attempt: i32) -> Option<Stage> {
    let was = pass.was.members.get(index).and_then(|m| m.stats.get(host));
    let entry = &mut pass.now.members[index].stats[host];
    if !held::can_be_known(entry) {
        // Whatever the Job reports, the data does not count as untouched.
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
        let text = "A user or another controller scaled the workload up during the restore, so it is not retried.";
        return fail_host(pass, index, host, &Failure::new(Class::Fatal, reason::QUIESCE_BROKEN, text));
    }
    let entry = &pass.now.members[index].stats[host];
    let was_at_work = entry.progress.is_some() || held::is_unknown(entry);
    if let Some(system) = runs_once(pass, index).filter(|_| was_at_work) {
        // The Job was deleted, and it may have been at work.
        let failure = system.half_done("The Job no longer exists, and its result is not known.");
        return fail_host(pass, index, host, &failure);
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
        // No Job was requested, so the attempt is still to begin.
        pass.now.members[index].stats[host].not_before = Some(conditions::whole_second(pass.at));
    }
    if ready && stage != Stage::ToBegin {
        make(pass, index, host, ground, key, attempt);
    }
}

/// Whether a Job of a host can be created now.
fn is_ready(pass: &mut Pass<'_>, index: usize, host: usize, ground: Option<&Ground>, key: &str) -> bool {
    let name = &pass.now.members[index].stats[host].hostname;
    let Some(reach) = ground.and_then(|_| pass.reaches.get(&(index, name.clone()))) else {
        pass.plan.look_again(LOOK_FOR_MISSING);
        return false;
    };
    if conflicts::writing(pass, key, reach).is_some() {
        pass.plan.look_again(LOOK_AT_RUNNING);
        return false;
    }
    // A pod that began to use the volumes since the last attempt would lose what it writes.
    if let Some(text) = extraneous::in_use(pass, index) {
        let entry = &mut pass.now.members[index].stats[host];
        entry.reason = Some(reason::TARGET_BUSY.to_owned());
        entry.error = Some(text);
        pass.plan.look_again(LOOK_FOR_MISSING);
        return false;
    }
    pass.admit(index)
}

fn make(pass: &mut Pass<'_>, index: usize, host: usize, ground: Option<&Ground>, key: String, attempt: i32) {
    let entry = &pass.now.members[index].stats[host];
    let member = &pass.run.members[index];
    let reach = pass.reaches.get(&(index, entry.hostname.clone()));
    let (Some(ground), Some(target), Some(reach)) = (ground, &member.target, reach) else { return };
    let (Some(system), rule) = (pass.system(index), pass.rule(index, &entry.hostname)) else { return };
    let Ok(MemberGround { frame, access }) = ground.of(system, Some(target)) else { return };
    let (mounts, may_have_acted) = (reach.mount_points(), !held::can_be_known(entry));
    let run = pass.run.id.uid.as_str();
    let (seen, namespace) = (target_of(pass.seen, index), pass.run.id.namespace.as_str());
    let acting = Acting { run, access, host: entry, member, target, seen, namespace, rule, mounts, may_have_acted };
    let Some(work) = system.act(acting) else { return };
    let needs = system.needs(pass.needing(index, target, access, Role::Act));
    let parts =
        JobParts { attempt, seconds_left: seconds_left(pass, index), ..job_parts(pass, index, key, needs, reach) };
    let claim = interim::interim_claim(&frame, &parts);
    let task = pass.task(index, RESTORE, vec![part(index, &entry.hostname)], work);
    let job = job_spec::job(&frame, &task, parts);
    if let Err(failure) = env::check_task(&job) {
        return fail_host(pass, index, host, &failure);
    }
    pass.plan.claims.extend(claim);
    pass.plan.jobs.push(job);
    pass.plan.look_again(FIRST_LOOK);
}

/// Why a Job has not done its work.
fn judge(outcome: &Outcome, run: &str, system: &dyn System, target: &RestoreTarget) -> Option<Failure> {
    if outcome.failure.is_some() {
        return outcome.failure.clone();
    }
    if outcome.run != run {
        let text = format!("The result of the Job belongs to another run ({}).", outcome.run);
        return Some(Failure::new(Class::Fatal, reason::AGENT_FAILED, text));
    }
    system.verdict(outcome, target)
}

/// Handles a failed attempt: retries, or fails the host.
fn fail_host(pass: &mut Pass<'_>, index: usize, host: usize, failure: &Failure) {
    let late = is_late(pass, index) || pass.run.canceled;
    let entry = &mut pass.now.members[index].stats[host];
    entry.progress = None;
    let Err(deaths) = attempt::again(&mut pass.plan, entry, failure, pass.at, late) else { return };
    entry.pod_deaths = deaths;
    entry.reason = Some(failure.reason.clone());
    entry.error = Some(failure.message.clone());
    entry.phase = Some(HostPhase::Failed);
    entry.not_before = None;
    let name = entry.hostname.clone();
    let label = member_label(index, &pass.now.members[index]);
    // If the run has only one host, the event at its end says the same.
    if pass.now.members.iter().map(|m| m.stats.len()).sum::<usize>() > 1 {
        let of = if pass.now.members.len() > 1 { format!(" of {label}") } else { String::new() };
        let text = format!("Restore of host {name}{of} failed: {}", failure.message);
        pass.event(true, &failure.reason, &text);
    }
}

/// Seconds a Job of the member may take: until the earlier of both deadlines.
fn seconds_left(pass: &Pass<'_>, index: usize) -> i64 {
    retry::seconds_left(pass.now.members[index].deadline.as_ref(), pass.at).min(pass.seconds_left())
}
