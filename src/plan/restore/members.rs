//! Starts members in their order, restores them host by host (`act`), and closes them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::{HostPhase, MemberPhase, RestorePhase};
use crate::names::{condition, reason};
use crate::plan::restore::pass::{Ground, LOOK_AT_RUNNING, LOOK_FOR_MISSING, Pass, is_late};
use crate::plan::restore::pin::PREFLIGHT;
use crate::plan::restore::quiesce::{held_up, waits_for_controller};
use crate::plan::restore::status::{close, fail_member, is_over, is_started, member_is_over, member_label};
use crate::plan::restore::{act, conflicts, extraneous, pin, provision, stages, status};
use crate::plan::run::{conditions, duration};
use crate::plan::seen::job_status::{JobSeen, JobState};
use crate::plan::work::retry;

/// Advances every member as far as the order allows. Without ground (the text says what is missing) nothing begins;
/// members that were begun are read, and their workloads are scaled back.
pub fn advance(pass: &mut Pass<'_>, ground: Result<&Ground, &str>) {
    let settled = pin::is_settled(pass);
    let started = pass.now.members.iter().any(is_started);
    for index in 0..pass.now.members.len() {
        settle_preflight(pass, index);
    }
    extraneous::refuse_shared(pass);
    for index in 0..pass.now.members.len() {
        if member_is_over(pass.now.members[index].phase) {
            continue;
        }
        if pass.run.sequential && !may_follow(pass, index, settled, started) {
            continue;
        }
        let ground = ground.and_then(|g| g.for_member(pass, index).map(|()| g));
        if is_late(pass, index) {
            run_out(pass, index, ground.err());
        } else if is_started(&pass.now.members[index]) {
            restore(pass, index, ground.ok());
        } else if may_begin(pass, index, ground.is_ok()) {
            match conflicts::ahead(pass, index) {
                None => restore(pass, index, ground.ok()),
                Some(text) => {
                    pass.now.members[index].message = Some(text);
                    pass.plan.look_again(LOOK_FOR_MISSING);
                }
            }
        }
    }
}

/// A member is not begun if one of its hosts cannot be restored.
fn settle_preflight(pass: &mut Pass<'_>, index: usize) {
    let at = pass.at;
    let status = &mut pass.now.members[index];
    if member_is_over(status.phase) || is_started(status) || status.stats.is_empty() {
        return;
    }
    let failed = status.stats.iter().find(|h| h.phase == Some(HostPhase::Failed));
    if let Some(host) = failed {
        let text = format!("Host {}: {}", host.hostname, host.error.clone().unwrap_or_default());
        let why = host.reason.clone().unwrap_or_default();
        // The error is in the entry of the host, and in the result of the run.
        let said = format!("Host {} cannot be restored; its entry in stats has the error.", host.hostname);
        conditions::set(&mut status.conditions, condition::SNAPSHOTS_PINNED, false, &why, said, at);
        fail_member(status, &text);
    } else if is_pinned(status) {
        conditions::set(
            &mut status.conditions,
            condition::SNAPSHOTS_PINNED,
            true,
            reason::SNAPSHOTS_RESOLVED,
            "The snapshots of every host are pinned in status.",
            at,
        );
    }
}

/// A member's own timeout counts from its start, not while it waits for its turn.
fn start_clock(pass: &mut Pass<'_>, index: usize) {
    let limit = pass.run.members[index].time_out.as_deref().and_then(|t| duration::parse(t).ok());
    let Some(limit) = limit.and_then(|l| SignedDuration::try_from(l).ok()) else { return };
    let at = pass.at;
    let end = || Time(conditions::whole_second(at).0.checked_add(limit).unwrap_or(Timestamp::MAX));
    let deadline = pass.now.members[index].deadline.get_or_insert_with(end).0;
    if let Some(left) = retry::left(deadline, at) {
        pass.plan.look_again(left);
    }
}

/// A workload is scaled down only for a restore that can go on at once.
fn may_begin(pass: &mut Pass<'_>, index: usize, ground: bool) -> bool {
    ground && is_pinned(&pass.now.members[index]) && pass.is_open(index)
}

fn is_pinned(status: &RestoreMemberStatus) -> bool {
    !status.stats.is_empty() && status.stats.iter().all(|h| !h.snapshots.is_empty() || is_over(h.phase))
}

/// Whether a member's turn in the order has come. Marks members that never get a turn.
fn may_follow(pass: &mut Pass<'_>, index: usize, settled: bool, started: bool) -> bool {
    let blocker = pass.now.members[..index]
        .iter()
        .position(|m| matches!(m.phase, Some(MemberPhase::Failed | MemberPhase::Skipped)))
        // A preflight that fails before anything began stops the whole run, whichever member it is.
        .or_else(|| {
            (!started).then(|| pass.now.members.iter().position(|m| m.phase == Some(MemberPhase::Failed))).flatten()
        });
    if pass.run.stop
        && let Some(failed) = blocker
    {
        if !is_started(&pass.now.members[index]) {
            let first = pass.now.members.iter().position(|m| m.phase == Some(MemberPhase::Failed)).unwrap_or(failed);
            let who = member_label(first, &pass.now.members[first]);
            let status = &mut pass.now.members[index];
            status.phase = Some(MemberPhase::Skipped);
            status.message = Some(format!("Not started: {who} failed, and onFailure is Stop."));
            return false;
        }
        return true;
    }
    let earlier_over = pass.now.members[..index].iter().all(|m| member_is_over(m.phase));
    if pass.expired {
        return earlier_over;
    }
    earlier_over && (started || settled)
}

/// Runs one pass over one member.
fn restore(pass: &mut Pass<'_>, index: usize, ground: Option<&Ground>) {
    pass.now.phase = Some(RestorePhase::Running);
    pass.now.members[index].phase = Some(MemberPhase::Running);
    start_clock(pass, index);
    let is_done = |pass: &Pass<'_>| pass.now.members[index].stats.iter().all(|h| is_over(h.phase));
    if !is_done(pass) {
        stages::advance(pass, index, ground);
    }
    // A stage may have ended all of its hosts.
    if is_done(pass) && stages::tear_down(pass, index) {
        close(&mut pass.now.members[index]);
    }
}

/// Ends a member after the deadline: reads finished Jobs, stops active Jobs, scales back, and fails hosts that are not
/// over.
fn run_out(pass: &mut Pass<'_>, index: usize, missing: Option<&str>) {
    let started = is_started(&pass.now.members[index]);
    let held = pin::held(pass);
    let mut stopped = true;
    for host in 0..pass.now.members[index].stats.len() {
        let entry = pass.now.members[index].stats[host].clone();
        if is_over(entry.phase) {
            continue;
        }
        let key = status::key(index, &entry.hostname);
        // The Job may have ended in time without having been read.
        if let Some(JobSeen { state: JobState::Done(outcome), deleting: false, .. }) =
            entry.attempt.and_then(|a| pass.job(&key, a))
        {
            act::read(pass, index, host, outcome);
            continue;
        }
        for job in pass.seen.jobs.iter().filter(|j| j.key == key && j.is_active()) {
            stopped = false;
            pass.plan.stop(Some(job));
            if let JobState::Active { held: Some(failure) } = &job.state {
                let entry = &mut pass.now.members[index].stats[host];
                entry.reason = Some(failure.reason.clone());
                entry.error = Some(failure.message.clone());
            }
        }
    }
    if !stopped {
        pass.plan.look_again(LOOK_AT_RUNNING);
        return;
    }
    let not_down = held_up(pass, index);
    extraneous::note_cut_off(pass);
    for entry in pass.now.members[index].stats.iter_mut().filter(|h| !is_over(h.phase)) {
        // A host that was not begun waited for its workload.
        if let (None, None, Some((why, text))) = (entry.attempt, &entry.error, &not_down) {
            entry.reason = why.clone().or(entry.reason.take());
            entry.error = Some(text.clone());
        }
        entry.phase = Some(HostPhase::Failed);
        entry.not_before = None;
        // A host whose snapshots were never resolved waited for what held the preflight up.
        if entry.error.is_none()
            && entry.snapshots.is_empty()
            && let Some((why, text)) = &held
        {
            entry.reason = Some(why.clone());
            entry.error = Some(text.clone());
        }
        entry.error = Some(match entry.error.take() {
            Some(last) => format!("Not restored before the deadline. Last: {last}"),
            None => "Not restored before the deadline.".to_owned(),
        });
        entry.reason.get_or_insert_with(|| reason::DEADLINE_EXCEEDED.to_owned());
    }
    if started {
        if stages::tear_down(pass, index) {
            close(&mut pass.now.members[index]);
        }
        return;
    }
    let kept = provision::refused(&pass.now.members[index]).or_else(|| conflicts::ahead(pass, index));
    let kept = kept.or_else(|| extraneous::in_use(pass, index)).or_else(|| waits_for_controller(pass, index));
    let is_look = |j: &&JobSeen| j.key.starts_with(PREFLIGHT) && j.is_active();
    let looks = pass.seen.jobs.iter().find(is_look).map(|job| {
        let (name, namespace) = (&job.name, &pass.run.id.namespace);
        format!(
            "Job {name} was still selecting its snapshots: see kubectl -n {namespace} describe pods -l job-name={name}."
        )
    });
    let status = &mut pass.now.members[index];
    // The same text as while the member waited.
    let missing = missing.map(ToOwned::to_owned);
    let waited_for = missing.or_else(|| status.message.clone()).or(kept).or(held.map(|(_, text)| text)).or(looks);
    let waited_for = waited_for.unwrap_or_else(|| "It was still waiting.".to_owned());
    fail_member(status, &format!("Not started before the deadline. {waited_for}"));
}
