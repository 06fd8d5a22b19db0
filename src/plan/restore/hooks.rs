//! The hooks of a restore: before and after each member, and before the first and after the last one.
//!
//! A member's hook before it is the first stage of its way: its workload still runs. The hook after it runs when the
//! workload is back. Hooks after a restore run whenever the run, or the member, has ended by itself, whatever the
//! result; if it was ended by a cancel, a deletion or a change, they run if it had begun. A hook in doubt counts as
//! failed, and its data stays as it is.

use crate::api::common::TargetRef;
use crate::api::hooks::{HookPhase, HookStatus};
use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::{HostPhase, MemberPhase, RestorePhase};
use crate::contract::{Class, Failure};
use crate::names::{label, reason};
use crate::plan::restore::pass::Pass;
use crate::plan::restore::run::{RestoreRun, RestoreState};
use crate::plan::restore::status::{has_begun, is_broken, is_over, member_label};
use crate::plan::run::hooks;
use crate::plan::run::hooks::{Hook, Moment, Summary, failure, of_restore};
use crate::plan::seen::job_status::JobSeen;
use crate::plan::work::hook_job;
use crate::plan::work::hook_job::Making;
use crate::plan::work::once;
use crate::plan::work::once::{Hold, Once};

fn of(run: &RestoreRun, moment: Moment, member: Option<usize>) -> Option<Hook<'_>> {
    let hooks = match member {
        None => run.hooks.as_deref(),
        Some(index) => run.members.get(index)?.hooks.as_deref(),
    };
    of_restore(hooks, moment, member)
}

fn list(state: &RestoreState, member: Option<usize>) -> &[HookStatus] {
    match member {
        None => &state.hooks,
        Some(index) => state.members.get(index).map_or(&[], |m| &m.hooks),
    }
}

fn list_mut<'p>(pass: &'p mut Pass<'_>, member: Option<usize>) -> &'p mut Vec<HookStatus> {
    match member {
        None => &mut pass.now.hooks,
        Some(index) => &mut pass.now.members[index].hooks,
    }
}

fn entry<'s>(pass: &'s Pass<'_>, moment: Moment, member: Option<usize>) -> Option<&'s HookStatus> {
    hooks::entry(list(&pass.now, member), moment)
}

/// Whether the hooks of the spec are those that the run began with, and act on the same targets with the same settings.
/// Others were never let in.
fn are_known(pass: &Pass<'_>) -> bool {
    pass.now.run.hooks_hash == pass.run.hooks_hash()
}

/// Writes the entry of a hook, and its condition.
fn put(pass: &mut Pass<'_>, moment: Moment, member: Option<usize>, entry: HookStatus) {
    let at = pass.at;
    let all = list_mut(pass, member);
    match all.iter_mut().find(|h| h.name == entry.name) {
        Some(known) => known.clone_from(&entry),
        None => all.push(entry.clone()),
    }
    let conditions = match member {
        None => &mut pass.now.conditions,
        Some(index) => &mut pass.now.members[index].conditions,
    };
    moment.tell(member.is_none(), &entry, conditions, at);
}

/// Advances a hook that is announced. True when it is over, and status says so.
fn advance(pass: &mut Pass<'_>, hook: &Hook<'_>, summary: &Summary) -> bool {
    let (moment, member, run) = (hook.moment, hook.member, pass.run);
    let Some(mut entry) = entry(pass, moment, member).cloned() else { return true };
    let target: Option<TargetRef> = member.map(|index| pass.now.members[index].ref_.clone());
    let began = pass.now.run.start_time.as_ref().map(|t| t.0);
    let data = hooks::data(&run.id, (&run.id.kind, &run.id.name), target.as_ref(), summary, began, pass.at);
    let making = Making {
        setup: pass.setup,
        id: &run.id,
        component: label::COMPONENT_RESTORE,
        target: target.as_ref(),
        runtime: member.and_then(|index| run.members.get(index)?.runtime_settings.as_ref()),
        defaults: &pass.seen.job_defaults,
        pods: member.and_then(|index| pass.seen.hook_pods.get(&index)),
        data: &data,
        pod_security: pass.seen.pod_security,
        at_once: run.id.deleting,
    };
    let mut grant = None;
    let jobs = pass.plan.jobs.len();
    let once = Once {
        run: &run.id.uid,
        at: pass.at,
        key: &hook.key(),
        was: hooks::entry(list(pass.was, member), moment),
        now: &mut entry,
        jobs: &pass.seen.jobs,
        limit: hook.signed_limit(),
        stop: false,
        at_once: run.id.deleting,
        plan: &mut pass.plan,
    };
    let over = once.advance(|entry| {
        let (job, needed) = hook_job::make(hook, entry, &making)?;
        grant = needed;
        Ok(job)
    });
    if pass.plan.jobs.len() > jobs {
        pass.hook_grants.extend(grant);
    }
    put(pass, moment, member, entry);
    over
}

/// Ends a hook before a member, or before all, that has not ended by itself. It needs no spec: the spec may have
/// changed. True when the hook is over, and status says so.
pub(super) fn stop_pre(pass: &mut Pass<'_>, member: Option<usize>) -> bool {
    let moment = Moment::PreRestore;
    let Some(mut entry) = entry(pass, moment, member).cloned() else { return true };
    let once = Once {
        run: &pass.run.id.uid,
        at: pass.at,
        key: &hooks::key(moment, member),
        was: hooks::entry(list(pass.was, member), moment),
        now: &mut entry,
        jobs: &pass.seen.jobs,
        limit: hooks::signed(hooks::LIMIT),
        stop: true,
        at_once: true,
        plan: &mut pass.plan,
    };
    let not_made = || Hold::Fail(Failure::new(Class::Fatal, reason::NOT_STARTED, "The run has ended."));
    let over = once.advance(|_| Err(not_made()));
    put(pass, moment, member, entry);
    over
}

/// The first stage of a member. True when its hook has succeeded, or there is none.
pub(super) fn pre(pass: &mut Pass<'_>, index: usize) -> bool {
    let Some(hook) = of(pass.run, Moment::PreRestore, Some(index)) else { return true };
    if entry(pass, hook.moment, hook.member).is_none() {
        put(pass, hook.moment, hook.member, once::announce(hook.moment.field(), pass.at));
    }
    if !advance(pass, &hook, &Summary::default()) {
        return false;
    }
    let Some((why, text)) = failure(&pass.now.members[index].hooks, hook.moment) else { return true };
    // Nothing was touched. The hook after the member runs all the same.
    for host in pass.now.members[index].stats.iter_mut().filter(|h| !is_over(h.phase)) {
        host.phase = Some(HostPhase::Failed);
        host.reason = Some(why.clone());
        host.error = Some(format!("Not restored, nothing was changed: {text}"));
        host.not_before = None;
    }
    pass.event(true, &why, &text);
    false
}

/// The last stage of a member. True when its hook is over, is skipped, or there is none.
/// `error` says why the whole run has failed.
pub(super) fn post(pass: &mut Pass<'_>, index: usize, error: Option<&str>, by_itself: bool) -> bool {
    let Some(hook) = of(pass.run, Moment::PostRestore, Some(index)) else { return true };
    let summary = Summary { error: error_of(&pass.now.members[index], error), retries_left: 0 };
    if entry(pass, hook.moment, hook.member).is_none() {
        let status = &pass.now.members[index];
        if !has_begun(status) && (status.phase == Some(MemberPhase::Skipped) || !by_itself) {
            return true;
        }
        begin_post(pass, &hook, &summary);
    }
    advance(pass, &hook, &summary)
}

/// Announces a hook after a restore, or notes that it is not run.
fn begin_post(pass: &mut Pass<'_>, hook: &Hook<'_>, summary: &Summary) {
    let new = if !are_known(pass) {
        hooks::not_run(hook.moment, "Not run: its hook, target or settings were changed during the run.".to_owned())
    } else if let Some(text) = hook.skipped(summary) {
        hooks::not_run(hook.moment, text)
    } else {
        once::announce(hook.moment.field(), pass.at)
    };
    put(pass, hook.moment, hook.member, new);
}

/// Why a member counts as failed for the hook after it.
fn error_of(status: &RestoreMemberStatus, of_run: Option<&str>) -> Option<String> {
    if let Some((_, text)) = failure(&status.hooks, Moment::PreRestore) {
        return Some(text);
    }
    let failed = status.stats.iter().filter(|h| h.phase == Some(HostPhase::Failed));
    let failed: Vec<String> =
        failed.map(|h| format!("host {}: {}", h.hostname, h.error.as_deref().unwrap_or_default())).collect();
    let unfinished = status.stats.is_empty() || status.stats.iter().any(|h| !is_over(h.phase));
    match status.phase {
        _ if !failed.is_empty() => Some(failed.join("; ")),
        Some(MemberPhase::Failed) => Some(status.message.clone().unwrap_or_default()),
        Some(MemberPhase::Succeeded) => None,
        _ if unfinished => Some(of_run.unwrap_or("The run ended before the member was restored.").to_owned()),
        _ if is_broken(status) => Some("The workload was scaled up during the restore.".to_owned()),
        _ => None,
    }
}

/// Whether nothing is left to do about the hook after a member that is over.
pub fn is_settled(status: &RestoreMemberStatus) -> bool {
    hooks::entry(&status.hooks, Moment::PostRestore).is_none_or(|h| once::is_over(h.phase))
}

/// The hook before the first member. True when members may begin.
pub(super) fn before_all(pass: &mut Pass<'_>) -> bool {
    let Some(hook) = of(pass.run, Moment::PreRestore, None) else { return true };
    if entry(pass, hook.moment, None).is_none() {
        put(pass, hook.moment, None, once::announce(hook.moment.field(), pass.at));
    }
    pass.now.phase = Some(RestorePhase::Running);
    advance(pass, &hook, &Summary::default()) && refusal(pass).is_none()
}

/// Why no member may begin, once that is written: the hook before all has failed.
pub(super) fn refusal(pass: &Pass<'_>) -> Option<(String, String)> {
    failure(&pass.was.hooks, Moment::PreRestore)
}

/// Runs what is left of the hooks at the end of the run. `error` says why the run has failed; `None` if it has not.
/// True when all of them are over.
pub(super) fn finish(pass: &mut Pass<'_>, error: Option<&str>, by_itself: bool) -> bool {
    let mut over = stop_pre(pass, None);
    for index in 0..pass.now.members.len() {
        over &= stop_pre(pass, Some(index)) && post(pass, index, error, by_itself);
    }
    over && after_all(pass, error, by_itself)
}

fn after_all(pass: &mut Pass<'_>, error: Option<&str>, by_itself: bool) -> bool {
    let Some(hook) = of(pass.run, Moment::PostRestore, None) else { return true };
    let error = error.map(str::to_owned).or_else(|| worst(pass).map(|(_, text)| text));
    let summary = Summary { error, retries_left: 0 };
    if entry(pass, hook.moment, None).is_none() {
        if !pass.has_begun() && !by_itself {
            return true;
        }
        begin_post(pass, &hook, &summary);
    }
    advance(pass, &hook, &summary)
}

/// The first hook after a member, or after all, that has failed: reason and message.
pub(super) fn worst(pass: &Pass<'_>) -> Option<(String, String)> {
    let named = |(index, m): (usize, &RestoreMemberStatus)| {
        let (why, text) = failure(&m.hooks, Moment::PostRestore)?;
        let one = pass.now.members.len() == 1;
        Some((why, if one { text } else { format!("{} of {}", text, member_label(index, m)) }))
    };
    let of_members = pass.now.members.iter().enumerate().find_map(named);
    of_members.or_else(|| failure(&pass.now.hooks, Moment::PostRestore))
}

/// What a hook that is not over does: for the summary of the run.
pub(super) fn standing(pass: &Pass<'_>) -> Option<(String, String)> {
    let of_members =
        pass.now.members.iter().enumerate().flat_map(|(i, m)| m.hooks.iter().map(move |h| (Some((i, m)), h)));
    let mut all = of_members.chain(pass.now.hooks.iter().map(|h| (None, h)));
    let (member, hook) = all.find(|(_, h)| !once::is_over(h.phase))?;
    let of = match member {
        Some((index, m)) if pass.now.members.len() > 1 => format!(" of {}", member_label(index, m)),
        _ => String::new(),
    };
    let why = hook.reason.clone().unwrap_or_else(|| reason::RUNNING.to_owned());
    let said = hook.message.as_ref().map_or_else(|| ".".to_owned(), |m| format!(": {m}"));
    Some((why, format!("Running the {} hook{of}{said}", hook.name)))
}

/// Keys of the hooks that are not over.
pub fn unfinished(state: &RestoreState) -> Vec<String> {
    let open = |list: &[HookStatus], member: Option<usize>| {
        let open = list.iter().filter(|h| !once::is_over(h.phase));
        open.map(|h| hooks::key_of(&h.name, member)).collect::<Vec<_>>()
    };
    let of_members = state.members.iter().enumerate().flat_map(|(i, m)| open(&m.hooks, Some(i)));
    of_members.chain(open(&state.hooks, None)).collect()
}

/// Members whose pods the next pass needs, for a hook that has not begun.
pub fn wants_pods(run: &RestoreRun) -> Vec<(usize, TargetRef)> {
    let targets = run.targets();
    let wants = |index: &usize| {
        let target = targets.get(*index).and_then(Option::as_ref);
        let waits = list(&run.state, Some(*index)).iter().filter(|h| h.phase == HookPhase::Announced);
        let mut hooks = waits.filter_map(|h| {
            let moments = [Moment::PreRestore, Moment::PostRestore];
            of(run, *moments.iter().find(|m| m.field() == h.name)?, Some(*index))
        });
        hooks.any(|hook| hook_job::needs_pod(hook.handler, target))
    };
    (0..run.members.len()).filter(wants).filter_map(|i| Some((i, targets.get(i)?.clone()?))).collect()
}

/// Whether a Job of a hook that may have been started is not among these.
pub fn is_any_missed(state: &RestoreState, jobs: &[JobSeen]) -> bool {
    state.members.iter().flat_map(|m| &m.hooks).chain(&state.hooks).any(|h| once::is_missed(h, jobs))
}
