//! The hooks of a backup: before and after each member, and before the first and after the last one.
//!
//! A hook before a backup that fails skips the backup, and not the hook after it. Hooks after a backup run whenever the
//! session, or the member, has ended by itself, whatever the result; if it was canceled or broken off, they run if it had
//! begun. A hook in doubt counts as failed, and the data that was backed up stays.

use crate::api::backup_session::{BackupHostPhase, BackupSessionStatus, BackupTargetPhase, BackupTargetStatus};
use crate::api::common::TargetRef;
use crate::api::hooks::{HookPhase, HookStatus};
use crate::contract::{Class, Failure};
use crate::names::{condition, label, reason};
use crate::plan::backup::pass::Pass;
use crate::plan::backup::run::{BackupRun, Invoker};
use crate::plan::backup::status::{host_is_over, label as name_of};
use crate::plan::run::hooks::{Hook, Moment, Summary, failure, of_backup};
use crate::plan::run::{conditions, hooks};
use crate::plan::seen::job_status::JobSeen;
use crate::plan::work::hook_job::Making;
use crate::plan::work::once::{Hold, Once};
use crate::plan::work::{hook_job, once};

fn of(invoker: Option<&Invoker>, moment: Moment, member: Option<usize>) -> Option<Hook<'_>> {
    let hooks = match member {
        None => invoker?.hooks.as_ref(),
        Some(index) => invoker?.members.get(index)?.hooks.as_ref(),
    };
    of_backup(hooks, moment, member)
}

fn list(state: &BackupSessionStatus, member: Option<usize>) -> &[HookStatus] {
    match member {
        None => &state.hooks,
        Some(index) => state.targets.get(index).map_or(&[], |t| &t.hooks),
    }
}

fn entry<'s>(pass: &'s Pass<'_>, moment: Moment, member: Option<usize>) -> Option<&'s HookStatus> {
    hooks::entry(list(&pass.now, member), moment)
}

/// Whether the hooks of the invoker are those that the session began with, and act on the same targets with the same
/// settings.
fn are_known(pass: &Pass<'_>) -> bool {
    let now = pass.run.invoker.as_ref().and_then(Invoker::hooks_hash);
    pass.now.run.as_ref().and_then(|r| r.hooks_hash.clone()) == now
}

/// Writes the entry of a hook, and its condition.
fn put(pass: &mut Pass<'_>, moment: Moment, member: Option<usize>, entry: HookStatus) {
    let (all, conditions) = match member {
        None => (&mut pass.now.hooks, &mut pass.now.conditions),
        Some(index) => {
            let target = &mut pass.now.targets[index];
            (&mut target.hooks, &mut target.conditions)
        }
    };
    moment.tell(member.is_none(), &entry, conditions, pass.at);
    match all.iter_mut().find(|h| h.name == entry.name) {
        Some(known) => *known = entry,
        None => all.push(entry),
    }
}

/// Advances a hook that is announced. True when it is over, and status says so.
fn advance(pass: &mut Pass<'_>, hook: &Hook<'_>, summary: &Summary) -> bool {
    let (moment, member, run) = (hook.moment, hook.member, pass.run);
    let (Some(mut entry), Some(invoker)) = (entry(pass, moment, member).cloned(), &run.invoker) else { return true };
    let target: Option<TargetRef> = member.and_then(|index| pass.now.targets[index].ref_.clone());
    let began = pass.now.run.as_ref().and_then(|r| r.start_time.as_ref()).map(|t| t.0);
    let named = (invoker.id.kind.as_str(), invoker.id.name.as_str());
    let data = hooks::data(&run.id, named, target.as_ref(), summary, began, pass.at);
    let of_member = member.and_then(|index| invoker.members.get(index)?.runtime_settings.as_ref());
    let making = Making {
        setup: pass.setup,
        id: &run.id,
        component: label::COMPONENT_BACKUP,
        target: target.as_ref(),
        runtime: of_member.or(invoker.runtime.as_ref()),
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
        was: hooks::entry(list(&run.state, member), moment),
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

/// Ends a hook before a member, or before all, that has not ended by itself. True when the hook is over, and status says
/// so.
pub(super) fn stop_pre(pass: &mut Pass<'_>, member: Option<usize>) -> bool {
    let moment = Moment::PreBackup;
    let Some(mut entry) = entry(pass, moment, member).cloned() else { return true };
    let once = Once {
        run: &pass.run.id.uid,
        at: pass.at,
        key: &hooks::key(moment, member),
        was: hooks::entry(list(&pass.run.state, member), moment),
        now: &mut entry,
        jobs: &pass.seen.jobs,
        limit: hooks::signed(hooks::LIMIT),
        stop: true,
        at_once: true,
        plan: &mut pass.plan,
    };
    let not_made = || Hold::Fail(Failure::new(Class::Fatal, reason::NOT_STARTED, "The session has ended."));
    let over = once.advance(|_| Err(not_made()));
    put(pass, moment, member, entry);
    over
}

/// The hook before a member whose hosts are known. True when it has succeeded, or there is none.
pub(super) fn pre(pass: &mut Pass<'_>, index: usize) -> bool {
    let Some(hook) = of(pass.run.invoker.as_ref(), Moment::PreBackup, Some(index)) else { return true };
    if entry(pass, hook.moment, hook.member).is_none() {
        put(pass, hook.moment, hook.member, once::announce(hook.moment.field(), pass.at));
    }
    if !advance(pass, &hook, &summary(pass, None)) {
        return false;
    }
    let Some((why, text)) = failure(&pass.now.targets[index].hooks, hook.moment) else { return true };
    for host in pass.now.targets[index].stats.iter_mut().filter(|h| !host_is_over(h)) {
        host.phase = Some(BackupHostPhase::Failed);
        host.reason = Some(why.clone());
        host.error = Some(format!("Not backed up: {text}"));
        host.not_before = None;
    }
    false
}

/// The hook after a member. True when it is over, is skipped, or there is none. `error` says
/// why the whole session has failed.
pub(super) fn post(pass: &mut Pass<'_>, index: usize, error: Option<&str>, by_itself: bool) -> bool {
    let Some(hook) = of(pass.run.invoker.as_ref(), Moment::PostBackup, Some(index)) else { return true };
    let summary = summary(pass, error_of(&pass.now.targets[index], error));
    if entry(pass, hook.moment, hook.member).is_none() {
        let status = &pass.now.targets[index];
        if !has_begun(status) && (status.phase == Some(BackupTargetPhase::Skipped) || !by_itself) {
            return true;
        }
        begin_post(pass, &hook, &summary);
    }
    advance(pass, &hook, &summary)
}

fn summary(pass: &Pass<'_>, error: Option<String>) -> Summary {
    let retries_left = match pass.now.run.as_ref().and_then(|r| r.ending.as_ref()) {
        Some(ending) if !ending.retry => 0,
        _ => pass.retries_left(),
    };
    Summary { error, retries_left }
}

/// Announces a hook after a backup, or notes that it is not run.
fn begin_post(pass: &mut Pass<'_>, hook: &Hook<'_>, summary: &Summary) {
    let new = if !are_known(pass) {
        hooks::not_run(hook.moment, "Not run: its hook, target or settings were changed during the session.".to_owned())
    } else if let Some(text) = hook.skipped(summary) {
        hooks::not_run(hook.moment, text)
    } else {
        once::announce(hook.moment.field(), pass.at)
    };
    put(pass, hook.moment, hook.member, new);
}

/// Whether anything was begun for a member.
fn has_begun(status: &BackupTargetStatus) -> bool {
    let is_begun = |p: Option<BackupHostPhase>| p.is_some_and(|p| p != BackupHostPhase::Pending);
    hooks::entry(&status.hooks, Moment::PreBackup).is_some() || status.stats.iter().any(|h| is_begun(h.phase))
}

/// Why a member counts as failed for the hook after it.
fn error_of(status: &BackupTargetStatus, of_run: Option<&str>) -> Option<String> {
    if let Some((_, text)) = failure(&status.hooks, Moment::PreBackup) {
        return Some(text);
    }
    let failed = status.stats.iter().filter(|h| h.phase == Some(BackupHostPhase::Failed));
    let failed: Vec<String> =
        failed.map(|h| format!("host {}: {}", h.hostname, h.error.as_deref().unwrap_or_default())).collect();
    if !failed.is_empty() {
        return Some(failed.join("; "));
    }
    if status.phase == Some(BackupTargetPhase::Succeeded) {
        return None;
    }
    let wrong = [condition::BACKUP_EXECUTOR_ENSURED, condition::BACKUP_TARGET_FOUND];
    let said = status.conditions.iter().find(|c| wrong.contains(&c.type_.as_str()) && c.status == "False");
    if status.phase == Some(BackupTargetPhase::Failed) {
        return Some(said.and_then(|c| c.message.clone()).unwrap_or_default());
    }
    let unfinished = status.stats.is_empty() || !status.stats.iter().all(host_is_over);
    unfinished.then(|| of_run.unwrap_or("The session ended before the member was backed up.").to_owned())
}

/// Whether nothing is left to do about the hook after a member that is over.
pub fn is_settled(status: &BackupTargetStatus) -> bool {
    hooks::entry(&status.hooks, Moment::PostBackup).is_none_or(|h| once::is_over(h.phase))
}

/// The hook before the first member. True when members may begin.
pub(super) fn before_all(pass: &mut Pass<'_>) -> bool {
    let Some(hook) = of(pass.run.invoker.as_ref(), Moment::PreBackup, None) else { return true };
    if entry(pass, hook.moment, None).is_none() {
        put(pass, hook.moment, None, once::announce(hook.moment.field(), pass.at));
    }
    advance(pass, &hook, &summary(pass, None)) && refusal(pass).is_none()
}

/// Why no member may begin, once that is written: the hook before all has failed.
pub(super) fn refusal(pass: &Pass<'_>) -> Option<(String, String)> {
    failure(&pass.run.state.hooks, Moment::PreBackup)
}

/// Skips every member: the hook before all has failed.
pub(super) fn skip_all(pass: &mut Pass<'_>) {
    let text = "Not started: the preBackup hook of the batch failed.";
    for status in &mut pass.now.targets {
        status.phase = Some(BackupTargetPhase::Skipped);
        let list = &mut status.conditions;
        conditions::set(list, condition::BACKUP_EXECUTOR_ENSURED, false, reason::NOT_STARTED, text, pass.at);
    }
}

/// Runs what is left of the hooks at the end of the session. `error` says why it has failed; `None` if it has not. True
/// when all of them are over.
pub(super) fn finish(pass: &mut Pass<'_>, error: Option<&str>, by_itself: bool) -> bool {
    let mut over = stop_pre(pass, None);
    for index in 0..pass.now.targets.len() {
        over &= stop_pre(pass, Some(index)) && post(pass, index, error, by_itself);
    }
    over && after_all(pass, error, by_itself)
}

fn after_all(pass: &mut Pass<'_>, error: Option<&str>, by_itself: bool) -> bool {
    let Some(hook) = of(pass.run.invoker.as_ref(), Moment::PostBackup, None) else { return true };
    let error = error.map(str::to_owned).or_else(|| worst(pass).map(|(_, text)| text));
    let summary = summary(pass, error);
    if entry(pass, hook.moment, None).is_none() {
        let begun = !pass.now.hooks.is_empty() || pass.now.targets.iter().any(has_begun);
        if !begun && !by_itself {
            return true;
        }
        begin_post(pass, &hook, &summary);
    }
    advance(pass, &hook, &summary)
}

/// The first hook after a member, or after all, that has failed: reason and message.
pub(super) fn worst(pass: &Pass<'_>) -> Option<(String, String)> {
    let named = |(index, t): (usize, &BackupTargetStatus)| {
        let (why, text) = failure(&t.hooks, Moment::PostBackup)?;
        let one = pass.now.targets.len() == 1;
        Some((why, if one { text } else { format!("{text} of {}", name_of(index, t)) }))
    };
    let of_members = pass.now.targets.iter().enumerate().find_map(named);
    of_members.or_else(|| failure(&pass.now.hooks, Moment::PostBackup))
}

/// What a hook that is not over does: for the summary of the session.
pub(super) fn standing(pass: &Pass<'_>) -> Option<(String, String)> {
    let targets = pass.now.targets.iter().enumerate();
    let of_members = targets.flat_map(|(i, t)| t.hooks.iter().map(move |h| (Some((i, t)), h)));
    let mut all = of_members.chain(pass.now.hooks.iter().map(|h| (None, h)));
    let (member, hook) = all.find(|(_, h)| !once::is_over(h.phase))?;
    let of = match member {
        Some((index, t)) if pass.now.targets.len() > 1 => format!(" of {}", name_of(index, t)),
        _ => String::new(),
    };
    let why = hook.reason.clone().unwrap_or_else(|| reason::RUNNING.to_owned());
    let said = hook.message.as_ref().map_or_else(|| ".".to_owned(), |m| format!(": {m}"));
    Some((why, format!("Running the {} hook{of}{said}", hook.name)))
}

/// Keys of the hooks that are not over.
pub fn unfinished(state: &BackupSessionStatus) -> Vec<String> {
    let open = |list: &[HookStatus], member: Option<usize>| {
        let open = list.iter().filter(|h| !once::is_over(h.phase));
        open.map(|h| hooks::key_of(&h.name, member)).collect::<Vec<_>>()
    };
    let of_members = state.targets.iter().enumerate().flat_map(|(i, t)| open(&t.hooks, Some(i)));
    of_members.chain(open(&state.hooks, None)).collect()
}

/// Members whose pods the next pass needs, for a hook that has not begun.
pub fn wants_pods(run: &BackupRun) -> Vec<(usize, TargetRef)> {
    let wants = |(index, status): (usize, &BackupTargetStatus)| {
        let target = status.ref_.as_ref();
        let mut waits = status.hooks.iter().filter(|h| h.phase == HookPhase::Announced);
        let needs = waits.any(|h| {
            let moments = [Moment::PreBackup, Moment::PostBackup];
            let moment = moments.into_iter().find(|m| m.field() == h.name);
            let hook = moment.and_then(|m| of(run.invoker.as_ref(), m, Some(index)));
            hook.is_some_and(|hook| hook_job::needs_pod(hook.handler, target))
        });
        Some((index, target?.clone())).filter(|_| needs)
    };
    run.state.targets.iter().enumerate().filter_map(wants).collect()
}

/// Whether a hook of the session has begun.
pub fn is_any(state: &BackupSessionStatus) -> bool {
    !state.hooks.is_empty() || state.targets.iter().any(|t| !t.hooks.is_empty())
}

/// Whether a Job of a hook that may have been started is not among these.
pub fn is_any_missed(state: &BackupSessionStatus, jobs: &[JobSeen]) -> bool {
    state.targets.iter().flat_map(|t| &t.hooks).chain(&state.hooks).any(|h| once::is_missed(h, jobs))
}
