//! Ends a run early: Jobs are stopped, then workloads are scaled back, or annotated if their data is half restored.
//! Only then is the run over.
//!
//! A session that is deleted is torn down, and its status is no longer written. A session that is canceled is torn down
//! too, and so is a session whose spec is changed during its run: half of one plan and half of another would restore a
//! state that the user did not ask for.

use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::{HostPhase, MemberPhase, RestorePhase};
use crate::contract::Failure;
use crate::names::{condition, reason};
use crate::plan::restore::act::read;
use crate::plan::restore::conclude::{conclude, say, upper};
use crate::plan::restore::pass::{LOOK_AT_RUNNING, Pass};
use crate::plan::restore::status::{close, fail_member, is_over, key, member_is_over, member_label};
use crate::plan::restore::{conclude, extraneous, refused, stages, status};
use crate::plan::run::conditions::Health;
use crate::plan::run::{conditions, size};
use crate::plan::seen::job_status::{JobSeen, JobState};
use crate::plan::work::retry;

/// What to do about a session that is being deleted.
pub fn leave(pass: &mut Pass<'_>) {
    let held = pass.run.id.held || pass.run.id.held_by_stash;
    take_answers_quietly(pass);
    if is_out(pass) && held {
        crate::plan::restore::conclude::given_up(pass);
        pass.release();
    }
}

/// What to do about a session that is canceled. Restored data stays restored; members that were not begun are not
/// touched.
pub fn cancel(pass: &mut Pass<'_>) {
    if pass.now.run.spec_hash.is_none() {
        pass.begin();
    }
    pass.now.observed_generation = pass.run.id.generation;
    take_answers(pass);
    let at = pass.at;
    // A run whose status is refused for its size is ended the same way, with that as the reason.
    let large = size::was_refused(&pass.now.conditions);
    let why = if large { reason::RUN_TOO_LARGE } else { reason::CANCELED };
    if !is_out(pass) {
        if large {
            return;
        }
        let held = refused::refused(&pass.now.members).map(|text| format!(" {text}")).unwrap_or_default();
        let text = format!("Canceling: Jobs are being stopped, then workloads scaled back.{held}");
        conditions::set(&mut pass.now.conditions, condition::CANCELED, false, reason::CANCELING, &text, at);
        say(pass, Health::Reconciling, reason::CANCELING, &text);
        return;
    }
    extraneous::note_cut_off(pass);
    let mut cut = pass.now.members.is_empty();
    for member in &mut pass.now.members {
        cut |= cut_off(member);
    }
    if !cut {
        // The cancel came too late: the run had nothing left to do.
        conditions::remove(&mut pass.now.conditions, condition::CANCELED);
        conclude(pass);
        return;
    }
    let mut text = canceled(&pass.now.members);
    if large {
        text = format!("{} {text}", size::REFUSED);
    }
    conditions::set(&mut pass.now.conditions, condition::CANCELED, true, why, &text, at);
    conclude::end(pass, RestorePhase::Failed, why, &text);
}

/// Takes the answers without publishing events, so that a workload whose data is completely restored may start.
fn take_answers_quietly(pass: &mut Pass<'_>) {
    let events = pass.plan.events.len();
    take_answers(pass);
    pass.plan.events.truncate(events);
}

/// Takes the answers of Jobs that have ended while the run is being canceled.
fn take_answers(pass: &mut Pass<'_>) {
    for index in 0..pass.now.members.len().min(pass.run.members.len()) {
        for host in 0..pass.now.members[index].stats.len() {
            let entry = &pass.now.members[index].stats[host];
            let job = entry.attempt.and_then(|a| pass.job(&key(index, &entry.hostname), a));
            let Some(JobSeen { state: JobState::Done(outcome), deleting, .. }) = job else { continue };
            // A failure that would have been retried is not taken, because the cancel prevented the retry. Neither is
            // the answer of a Job that was stopped.
            let tries = |f: &Failure| *deleting || retry::again(f, retry::deaths(f, entry.pod_deaths));
            if !is_over(entry.phase) && !outcome.failure.as_ref().is_some_and(tries) {
                read(pass, index, host, outcome);
            }
        }
    }
}

/// Closes a member as it is. True if the cancel kept it from ending by itself.
fn cut_off(status: &mut RestoreMemberStatus) -> bool {
    if member_is_over(status.phase) {
        return false;
    }
    if !status.stats.is_empty() && status.stats.iter().all(|h| is_over(h.phase)) {
        close(status);
        return false;
    }
    if !is_touched(status) {
        status.phase = Some(MemberPhase::Skipped);
        let stays = status::held_text(status).map(|text| format!(" {text}")).unwrap_or_default();
        status.message = Some(match &status.quiesce {
            None => "Not changed: the run was canceled.".to_owned(),
            Some(_) => {
                format!("No data was changed: the run was canceled. Its workload was scaled down for it.{stays}")
            }
        });
        return true;
    }
    for host in status.stats.iter_mut().filter(|h| !is_over(h.phase)) {
        let last = host.error.take().map(|e| format!(" Last: {e}")).unwrap_or_default();
        let text = if host.attempt.is_some() {
            format!("Interrupted, because the run was canceled: it may be half restored. Restore it again.{last}")
        } else {
            "Not started: the run was canceled.".to_owned()
        };
        host.phase = Some(HostPhase::Failed);
        host.reason = Some(reason::CANCELED.to_owned());
        host.error = Some(text);
        host.not_before = None;
        host.progress = None;
    }
    close(status);
    true
}

/// Whether data of the member may have been written.
fn is_touched(status: &RestoreMemberStatus) -> bool {
    status.stats.iter().any(|h| h.attempt.is_some())
}

/// What a canceled run leaves behind, member by member.
fn canceled(members: &[RestoreMemberStatus]) -> String {
    let named = |is: &dyn Fn(&RestoreMemberStatus) -> bool| {
        let found = members.iter().enumerate().filter(|(_, m)| is(m));
        found.map(|(i, m)| member_label(i, m)).collect::<Vec<_>>().join(", ")
    };
    let cut = |m: &RestoreMemberStatus| m.stats.iter().any(|h| h.reason.as_deref() == Some(reason::CANCELED));
    let interrupted = named(&cut);
    let failed = named(&|m| m.phase == Some(MemberPhase::Failed) && !cut(m));
    let untouched = named(&|m| m.phase == Some(MemberPhase::Skipped));
    if members.len() <= 1 {
        let text = match members.first() {
            Some(member) => member.message.clone().unwrap_or_default(),
            None => "Nothing was changed.".to_owned(),
        };
        return format!("Canceled. {}", upper(&text));
    }
    let done = members.iter().filter(|m| m.phase == Some(MemberPhase::Succeeded)).count();
    let groups =
        [("interrupted, and maybe half restored", interrupted), ("failed before", failed), ("not changed", untouched)];
    let kept = status::held_texts(members);
    let groups = groups.iter().filter(|(_, which)| !which.is_empty());
    let groups: String = groups.map(|(what, which)| format!("; {what}: {which}")).collect();
    format!("Canceled. {done} of {} members restored{groups}.{kept}", members.len())
}

/// What to do about a session whose Repository may no longer be used. Restored data stays restored.
pub fn withdraw(pass: &mut Pass<'_>) {
    pass.kept_out = true;
    take_answers_quietly(pass);
    if !is_out(pass) {
        return;
    }
    let found = pass.now.conditions.iter().find(|c| c.type_ == condition::REPOSITORY_FOUND);
    let why = found.and_then(|c| c.message.clone()).unwrap_or_default();
    let text = format!(
        "Ended during the run, because its Repository may no longer be used. {why}{}{}",
        half_restored(pass),
        status::held_texts(&pass.now.members)
    );
    fail_unfinished(pass, reason::REPOSITORY_NOT_ALLOWED, &text);
    conclude::end(pass, RestorePhase::Failed, reason::REPOSITORY_NOT_ALLOWED, &text);
}

/// Which members of a run that is broken off may be half restored.
fn half_restored(pass: &Pass<'_>) -> String {
    let half = |m: &RestoreMemberStatus| {
        !member_is_over(m.phase) && m.stats.iter().any(|h| h.attempt.is_some() && !is_over(h.phase))
    };
    let named = pass.now.members.iter().enumerate().filter(|(_, m)| half(m));
    let named = named.map(|(i, m)| member_label(i, m)).collect::<Vec<_>>().join(", ");
    if !named.is_empty() && pass.now.members.len() == 1 {
        // The text about a workload that stays down says what to do.
        let remedy = if status::held_texts(&pass.now.members).is_empty() { ": restore it again" } else { "" };
        return format!(" It may be half restored{remedy}.");
    }
    if named.is_empty() { named } else { format!(" May be half restored; restore again: {named}.") }
}

/// Fails every member and host that is not over.
fn fail_unfinished(pass: &mut Pass<'_>, why: &str, text: &str) {
    extraneous::note_cut_off(pass);
    for member in pass.now.members.iter_mut().filter(|m| !member_is_over(m.phase)) {
        if !member.stats.is_empty() && member.stats.iter().all(|h| is_over(h.phase)) {
            close(member);
            continue;
        }
        for host in member.stats.iter_mut().filter(|h| !is_over(h.phase)) {
            host.phase = Some(HostPhase::Failed);
            host.reason = Some(why.to_owned());
            host.error = Some(text.to_owned());
            host.not_before = None;
        }
        fail_member(member, text);
    }
}

/// What to do about a session whose spec was changed during its run.
pub fn abandon(pass: &mut Pass<'_>) {
    if !is_out(pass) {
        return;
    }
    let (why, text) = match &pass.seen.refusal {
        // Its spec is not kept any more.
        Some(refusal) => (refusal.reason.clone(), format!("The run was ended. {}", refusal.message)),
        None => (
            reason::SPEC_CHANGED.to_owned(),
            "The spec was changed after the run had started, so the run was ended. Create another session.".to_owned(),
        ),
    };
    let text = format!("{text}{}{}", half_restored(pass), status::held_texts(&pass.now.members));
    fail_unfinished(pass, &why, &text);
    conclude::end(pass, RestorePhase::Failed, &why, &text);
}

/// True when no Job of the run is active any more and every workload has its replicas.
fn is_out(pass: &mut Pass<'_>) -> bool {
    if stop_all(pass) {
        pass.plan.look_again(LOOK_AT_RUNNING);
        return false;
    }
    // Every workload that was announced as scaled down gets its replicas back, or stays down if its data is half
    // restored.
    let mut back = true;
    for index in 0..pass.now.members.len() {
        back &= stages::tear_down(pass, index);
    }
    if !back {
        match refused::why_refused(&pass.now.members) {
            // Retried at the interval for missing objects.
            Some((why, text)) => say(pass, Health::Reconciling, &why, &text),
            None => pass.plan.look_again(LOOK_AT_RUNNING),
        }
    }
    back
}

/// Stops every active Job. True while there is one. After the end of the run, such a Job was left by an operator
/// replica that was stopped in the middle of a write and did not know yet that another replica leads.
pub fn stop_all(pass: &mut Pass<'_>) -> bool {
    let mut active = false;
    for job in pass.seen.jobs.iter().filter(|j| j.is_active()) {
        active = true;
        pass.plan.stop(Some(job));
    }
    active
}
