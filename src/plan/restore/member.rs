//! Members: found, quiesced, restored host by host, scaled back, in parallel or in order.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    LOOK_AT_PROGRESS, LOOK_AT_RUNNING, LOOK_FOR_MISSING, Pass, display, is_over, member_is_over, preflight, target_of,
};
use crate::api::common::Quiesce;
use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::{
    Counts, HostPhase, HostRestoreStats, MemberPhase, Progress, QuiesceState, QuiesceStatus, RestorePhase,
};
use crate::names::{condition, reason};
use crate::plan::access::Access;
use crate::plan::contract::{self, Answer, Class, Failure, Outcome, Restore, Step};
use crate::plan::hosts::{HostSet, TargetKind, rule_for, source_host};
use crate::plan::jobs::JobState;
use crate::plan::objects::{self, JobFrame, JobParts};
use crate::plan::run::member_label;
use crate::plan::target::TargetSeen;
use crate::plan::{Scale, conditions, duration, restic_args, retry};

/// Key of a host's restore within the run.
pub fn key(member: usize, host: &str) -> String {
    format!("restore/{member}/{host}")
}

/// Looks at every member's target: is it there, which hosts has it, how does a Job reach each.
pub fn find(pass: &mut Pass<'_>) {
    for index in 0..pass.run.members.len() {
        if !member_is_over(pass.now.members[index].phase) {
            find_one(pass, index);
        }
    }
}

fn find_one(pass: &mut Pass<'_>, index: usize) {
    let at = pass.at;
    let name = display(&pass.now.members[index].ref_);
    let status = &mut pass.now.members[index];
    let target = match pass.seen.targets.get(index) {
        Some(TargetSeen::Found(target)) => target,
        Some(TargetSeen::Unknown(why)) => {
            let text = format!("Restore target {name} could not be looked up: {why}");
            conditions::set(
                &mut status.conditions,
                condition::RESTORE_TARGET_FOUND,
                conditions::Value::Unknown,
                "UnableToCheckTargetAvailability",
                &text,
                at,
            );
            status.message = Some(text);
            pass.plan.look_again(LOOK_FOR_MISSING);
            return;
        }
        Some(TargetSeen::Missing(_)) | None => {
            let text = format!("Restore target {name} does not exist.");
            conditions::set(
                &mut status.conditions,
                condition::RESTORE_TARGET_FOUND,
                false,
                reason::TARGET_NOT_AVAILABLE,
                &text,
                at,
            );
            status.message = Some(text);
            pass.plan.look_again(LOOK_FOR_MISSING);
            return;
        }
    };
    conditions::set(
        &mut status.conditions,
        condition::RESTORE_TARGET_FOUND,
        true,
        reason::TARGET_AVAILABLE,
        format!("Restore target {name} found."),
        at,
    );
    let Some(spec) = &pass.run.members[index].target else { return };
    let set = HostSet::of(TargetKind::of_name(&target.kind), spec.alias.as_deref());
    // Once a workload is quiesced its replicas no longer count its hosts: status does.
    let known = !status.stats.is_empty();
    let all: Vec<(i32, String)> = if known {
        let ordinal = |host: &str| host.rsplit('-').next().and_then(|o| o.parse().ok()).unwrap_or(0);
        status.stats.iter().map(|h| (ordinal(&h.hostname), h.hostname.clone())).collect()
    } else {
        target.ordinals().into_iter().map(|o| (o, set.host(o))).collect()
    };
    if all.is_empty() {
        status.message = Some(format!(
            "{name} has no replicas and no claims, so it has no host to restore. Scale it up, or create its claims."
        ));
        pass.plan.look_again(LOOK_FOR_MISSING);
        return;
    }
    let unmatched: Vec<&String> =
        spec.rules.iter().flat_map(|r| &r.target_hosts).filter(|h| !all.iter().any(|(_, host)| host == *h)).collect();
    if !known && !unmatched.is_empty() {
        let names: Vec<&str> = all.iter().map(|(_, h)| h.as_str()).collect();
        let text = format!(
            "target.rules names hosts that {name} does not have: {}. It has: {}.",
            unmatched.iter().map(|h| h.as_str()).collect::<Vec<_>>().join(", "),
            names.join(", ")
        );
        fail_member(status, &text);
        return;
    }
    // What will be scaled to zero does not hold its volumes by the time a Job mounts them.
    let live = !(target.is_scalable() && spec.quiesce != Some(Quiesce::Never));
    let mut waiting = None;
    for (ordinal, host) in &all {
        let Some(rule) = rule_for(&spec.rules, host) else { continue };
        match target.reach(&spec.volume_mounts, *ordinal, live) {
            Ok(reach) => {
                pass.reaches.insert((index, host.clone()), reach);
            }
            Err(failure) if failure.class == Class::Waiting => waiting = Some(failure.message),
            Err(failure) => {
                if is_started(status) {
                    waiting = Some(failure.message);
                } else {
                    fail_member(status, &failure.message);
                    return;
                }
            }
        }
        if !known {
            status.stats.push(HostRestoreStats {
                hostname: host.clone(),
                phase: Some(HostPhase::Pending),
                source_host: Some(source_host(rule, host).to_owned()),
                ..HostRestoreStats::default()
            });
        }
    }
    if status.stats.is_empty() {
        fail_member(status, &format!("No rule of target.rules is for a host of {name}, so nothing would be restored."));
        return;
    }
    status.total_hosts = i32::try_from(status.stats.len()).ok();
    if let Some(text) = waiting {
        status.message = Some(text);
        pass.plan.look_again(LOOK_FOR_MISSING);
    } else {
        status.message = None;
    }
}

fn fail_member(status: &mut RestoreMemberStatus, text: &str) {
    status.phase = Some(MemberPhase::Failed);
    status.message = Some(text.to_owned());
}

/// Whether data of the member may have been touched, or its workload scaled.
pub fn is_started(status: &RestoreMemberStatus) -> bool {
    status.quiesce.is_some() || status.stats.iter().any(|h| h.attempt.is_some())
}

/// Without repository or Secret nothing starts; past the deadline nothing ever will.
pub fn without_ground(pass: &mut Pass<'_>, waiting: &str) {
    for index in 0..pass.now.members.len() {
        if !member_is_over(pass.now.members[index].phase) && is_started(&pass.now.members[index]) {
            // What runs has its Secret mounted already; only the way out is left here.
            run_out(pass, index);
        } else if pass.expired && !member_is_over(pass.now.members[index].phase) {
            fail_member(&mut pass.now.members[index], waiting);
        }
    }
}

/// Moves every member on as far as order allows.
pub fn advance(pass: &mut Pass<'_>, frame: &JobFrame, access: &Access) {
    let settled = preflight::is_settled(pass);
    let started = pass.now.members.iter().any(is_started);
    for index in 0..pass.now.members.len() {
        settle_preflight(pass, index);
    }
    for index in 0..pass.now.members.len() {
        if member_is_over(pass.now.members[index].phase) {
            continue;
        }
        if pass.run.sequential && !may_follow(pass, index, settled, started) {
            continue;
        }
        if pass.expired {
            run_out(pass, index);
        } else if is_started(&pass.now.members[index]) || is_pinned(&pass.now.members[index]) {
            restore(pass, index, frame, access);
        }
    }
}

/// A member one of whose hosts cannot be restored is not begun.
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
        conditions::set(&mut status.conditions, condition::SNAPSHOTS_PINNED, false, &why, &text, at);
        fail_member(status, &text);
    } else if is_pinned(status) {
        conditions::set(
            &mut status.conditions,
            condition::SNAPSHOTS_PINNED,
            true,
            "SnapshotsResolved",
            "Every host's snapshots are fixed in status.",
            at,
        );
    }
}

fn is_pinned(status: &RestoreMemberStatus) -> bool {
    !status.stats.is_empty() && status.stats.iter().all(|h| !h.snapshots.is_empty() || is_over(h.phase))
}

/// Order: whether a member's turn has come. Marks those that never get one.
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

/// Quiesce, restore, scale back: one member, one pass.
fn restore(pass: &mut Pass<'_>, index: usize, frame: &JobFrame, access: &Access) {
    pass.now.phase = Some(RestorePhase::Running);
    pass.now.members[index].phase = Some(MemberPhase::Running);
    let hosts_over = pass.now.members[index].stats.iter().all(|h| is_over(h.phase));
    if !hosts_over && quiesce(pass, index) {
        for host in 0..pass.now.members[index].stats.len() {
            restore_host(pass, index, host, frame, access);
        }
    }
    if pass.now.members[index].stats.iter().all(|h| is_over(h.phase)) && resume(pass, index) {
        close(&mut pass.now.members[index]);
    }
}

/// The member's phase once all its hosts are over and its workload is back.
fn close(status: &mut RestoreMemberStatus) {
    let failed: Vec<String> = status
        .stats
        .iter()
        .filter(|h| h.phase == Some(HostPhase::Failed))
        .map(|h| format!("host {}: {}", h.hostname, h.error.clone().unwrap_or_default()))
        .collect();
    if failed.is_empty() {
        status.phase = Some(MemberPhase::Succeeded);
        status.message = None;
    } else {
        fail_member(status, &failed.join("; "));
    }
}

/// True when the workload is out of the way. Announced in one pass, scaled in the next.
fn quiesce(pass: &mut Pass<'_>, index: usize) -> bool {
    let Some(target) = target_of(pass.seen, index) else { return false };
    let wanted = pass.run.members[index].target.as_ref().and_then(|t| t.quiesce) != Some(Quiesce::Never);
    let name = target.display.clone();
    let at = pass.at;
    if !target.is_scalable() || !wanted {
        return true;
    }
    let shared = shared_quiesce(pass, index);
    let status = &mut pass.now.members[index];
    match status.quiesce.as_ref().map(|q| q.state) {
        None if shared.is_some() => {
            // Announced already, by a member with the same workload: its replicas are the true ones.
            status.quiesce = shared.map(|replicas| QuiesceStatus { replicas, state: QuiesceState::Announced });
            pass.plan.again = true;
            false
        }
        None if target.replicas == 0 && target.pods.is_empty() => true,
        None => {
            if target.deletes_claims {
                fail_member(
                    status,
                    &format!(
                        "{name} deletes its claims when it is scaled down (persistentVolumeClaimRetentionPolicy.whenScaled: Delete), so it cannot be quiesced without losing data. Set whenScaled: Retain."
                    ),
                );
                return false;
            }
            status.quiesce = Some(QuiesceStatus { replicas: target.replicas, state: QuiesceState::Announced });
            conditions::set(
                &mut status.conditions,
                condition::QUIESCED,
                false,
                "ScalingDown",
                format!("{name} will be scaled from {} to 0 for the restore, and back after it.", target.replicas),
                at,
            );
            pass.plan.again = true;
            false
        }
        Some(QuiesceState::Announced) => {
            let announced = pass.was.members.get(index).is_some_and(|m| m.quiesce.is_some());
            if !announced {
                pass.plan.again = true;
            } else if target.replicas != 0 {
                pass.plan.scales.push(Scale { kind: target.kind.clone(), name: target.name.clone(), replicas: 0 });
                pass.plan.look_again(LOOK_AT_RUNNING);
            } else if target.pods.is_empty() {
                if let Some(q) = &mut status.quiesce {
                    q.state = QuiesceState::Quiesced;
                }
                conditions::set(
                    &mut status.conditions,
                    condition::QUIESCED,
                    true,
                    "ScaledToZero",
                    format!("{name} has no pod left."),
                    at,
                );
                return true;
            } else {
                let pods: Vec<&str> = target.pods.iter().map(|p| p.name.as_str()).collect();
                status.message = Some(format!("Waiting for pods of {name} to end: {}.", pods.join(", ")));
                pass.plan.look_again(LOOK_AT_RUNNING);
            }
            false
        }
        Some(QuiesceState::Quiesced | QuiesceState::Resumed | QuiesceState::Gone) => true,
    }
}

/// Replicas that another member of the run has recorded of the same workload.
fn shared_quiesce(pass: &Pass<'_>, index: usize) -> Option<i32> {
    let scaled = |q: &&QuiesceStatus| matches!(q.state, QuiesceState::Announced | QuiesceState::Quiesced);
    others(pass, index).find_map(|m| m.quiesce.as_ref().filter(scaled).map(|q| q.replicas))
}

/// Other members of the run with the same target.
fn others<'p>(pass: &'p Pass<'_>, index: usize) -> impl Iterator<Item = &'p RestoreMemberStatus> {
    let own = &pass.now.members[index].ref_;
    pass.now.members.iter().enumerate().filter(move |(i, m)| *i != index && m.ref_ == *own).map(|(_, m)| m)
}

/// True when the workload has its replicas back, or there is nothing to give back.
pub fn resume(pass: &mut Pass<'_>, index: usize) -> bool {
    let at = pass.at;
    // A workload that several members restore comes back after the last of them.
    let in_use = others(pass, index)
        .any(|m| m.quiesce.is_some() && !member_is_over(m.phase) && m.stats.iter().any(|h| !is_over(h.phase)));
    if in_use && !pass.run.id.deleting && pass.now.members[index].quiesce.is_some() {
        pass.plan.look_again(LOOK_AT_RUNNING);
        return false;
    }
    let status = &mut pass.now.members[index];
    let name = display(&status.ref_);
    let Some(quiesce) = &mut status.quiesce else { return true };
    if matches!(quiesce.state, QuiesceState::Resumed | QuiesceState::Gone) {
        return true;
    }
    match pass.seen.targets.get(index) {
        Some(TargetSeen::Found(target)) if target.replicas == quiesce.replicas => {
            quiesce.state = QuiesceState::Resumed;
            let text = format!("{name} has its {} replicas back.", quiesce.replicas);
            conditions::set(&mut status.conditions, condition::QUIESCED, false, "ScaledBack", text, at);
            true
        }
        Some(TargetSeen::Found(target)) => {
            pass.plan.scales.push(Scale {
                kind: target.kind.clone(),
                name: target.name.clone(),
                replicas: quiesce.replicas,
            });
            pass.plan.again = true;
            false
        }
        Some(TargetSeen::Missing(_)) => {
            quiesce.state = QuiesceState::Gone;
            conditions::set(
                &mut status.conditions,
                condition::QUIESCED,
                false,
                "TargetGone",
                format!("{name} is gone; there is nothing to scale back."),
                at,
            );
            true
        }
        _ => {
            pass.plan.look_again(LOOK_FOR_MISSING);
            false
        }
    }
}

/// One host: announce, create its Job, read what became of it.
fn restore_host(pass: &mut Pass<'_>, index: usize, host: usize, frame: &JobFrame, access: &Access) {
    let entry = &pass.now.members[index].stats[host];
    if is_over(entry.phase) {
        return;
    }
    let key = key(index, &entry.hostname);
    let Some(attempt) = entry.attempt else {
        let entry = &mut pass.now.members[index].stats[host];
        entry.phase = Some(HostPhase::Running);
        entry.attempt = Some(1);
        pass.plan.again = true;
        return;
    };
    if let Some(earlier) = pass.job(&key, attempt - 1)
        && !earlier.deleting
    {
        pass.plan.stop_jobs.push(earlier.name.clone());
    }
    match pass.job(&key, attempt).map(|j| (j, &j.state)) {
        Some((job, JobState::Active { held })) => {
            let entry = &mut pass.now.members[index].stats[host];
            if let Some(p) = pass.seen.progress.get(&job.name) {
                entry.progress = Some(progress(p));
            }
            entry.reason = held.as_ref().map(|f| f.reason.clone());
            entry.error = held.as_ref().map(|f| f.message.clone());
            pass.plan.look_again(LOOK_AT_PROGRESS);
        }
        Some((_, JobState::Done(outcome))) => {
            let allow_empty = pass.run.members[index].target.as_ref().and_then(|t| t.allow_empty).unwrap_or(false);
            let failure = judge(outcome, &pass.run.id.uid, allow_empty);
            let entry = &mut pass.now.members[index].stats[host];
            if let Some(Answer::Restored(r)) = &outcome.answer {
                entry.planned = Some(counts(r.planned));
                entry.restored = Some(counts(r.restored));
            }
            entry.duration =
                Some(duration::format(std::time::Duration::from_secs_f64(outcome.seconds.clamp(0.0, 1e9))));
            entry.progress = None;
            match failure {
                None => {
                    entry.phase = Some(HostPhase::Succeeded);
                    entry.error = None;
                    entry.reason = None;
                }
                Some(failure) => fail_host(pass, index, host, &failure),
            }
        }
        Some((_, JobState::Lost(failure))) => fail_host(pass, index, host, &failure.clone()),
        None => create(pass, index, host, frame, access, key, attempt),
    }
}

fn create(
    pass: &mut Pass<'_>,
    index: usize,
    host: usize,
    frame: &JobFrame,
    access: &Access,
    key: String,
    attempt: i32,
) {
    let entry = &pass.now.members[index].stats[host];
    if let Some(wait) = entry.not_before.as_ref().and_then(|t: &Time| retry::left(t.0, pass.at)) {
        pass.plan.look_again(wait);
        return;
    }
    let announced =
        pass.was.members.get(index).and_then(|m| m.stats.get(host)).is_some_and(|h| h.attempt == Some(attempt));
    if !announced {
        pass.plan.again = true;
        return;
    }
    let (Some(target), Some(reach)) =
        (&pass.run.members[index].target, pass.reaches.get(&(index, entry.hostname.clone())))
    else {
        pass.plan.look_again(LOOK_FOR_MISSING);
        return;
    };
    let Some(rule) = rule_for(&target.rules, &entry.hostname) else { return };
    let restore = Restore {
        member: index,
        host: entry.hostname.clone(),
        snapshots: entry
            .snapshots
            .iter()
            .map(|s| contract::PinnedSnapshot {
                id: s.id.clone(),
                time: s.time.clone().unwrap_or_default(),
                path: s.path.clone(),
            })
            .collect(),
        include: rule.include.clone(),
        exclude: rule.exclude.clone(),
        args: restic_args::without_tags(&target.args),
        mounts: reach.mount_points(),
        allow_empty: target.allow_empty.unwrap_or(false),
    };
    let member = &pass.run.members[index];
    let parts = JobParts {
        key,
        attempt,
        runtime: member.runtime_settings.as_ref(),
        temp_dir: member.temp_dir.as_ref(),
        reach: reach.clone(),
        seconds_left: pass.seconds_left(),
    };
    let job = objects::job(frame, &pass.task(access, index, Step::Restore(restore)), parts);
    pass.plan.jobs.push(job);
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
    pass.plan.look_again(LOOK_AT_PROGRESS);
}

/// Success is computed from counts, never from an exit code alone.
fn judge(outcome: &Outcome, run: &str, allow_empty: bool) -> Option<Failure> {
    if outcome.failure.is_some() {
        return outcome.failure.clone();
    }
    if outcome.run != run {
        return Some(Failure::new(
            Class::Fatal,
            reason::AGENT_FAILED,
            format!("The Job answered for another run ({}).", outcome.run),
        ));
    }
    let Some(Answer::Restored(r)) = &outcome.answer else {
        return Some(Failure::new(
            Class::Fatal,
            reason::AGENT_FAILED,
            "The Job ended without counts of what it restored.",
        ));
    };
    if r.errors > 0 || r.restored != r.planned {
        return Some(Failure::new(
            Class::Data,
            reason::INCOMPLETE,
            format!(
                "{} of {} entries and {} of {} bytes were restored, with {} errors. See the log of the Job.",
                r.restored.files, r.planned.files, r.restored.bytes, r.planned.bytes, r.errors
            ),
        ));
    }
    if r.restored.files == 0 && !allow_empty {
        return Some(Failure::new(
            Class::Data,
            reason::NOTHING_TO_RESTORE,
            "Nothing was restored: no file of the snapshot matches the rule. If that is fine, set target.allowEmpty: true.",
        ));
    }
    None
}

/// A failed attempt: another one, or the end of the host.
fn fail_host(pass: &mut Pass<'_>, index: usize, host: usize, failure: &Failure) {
    let again = !pass.expired && retry::again(failure, pass.now.members[index].stats[host].attempt.unwrap_or(1));
    let at = pass.at;
    let entry = &mut pass.now.members[index].stats[host];
    entry.reason = Some(failure.reason.clone());
    entry.error = Some(failure.message.clone());
    entry.progress = None;
    let attempt = entry.attempt.unwrap_or(1);
    if again {
        entry.attempt = Some(attempt + 1);
        entry.not_before = Some(conditions::whole_second(retry::not_before(attempt, at)));
        pass.plan.look_again(retry::wait_after(attempt));
    } else {
        entry.phase = Some(HostPhase::Failed);
        entry.not_before = None;
        let name = entry.hostname.clone();
        let label = member_label(index, &pass.now.members[index]);
        pass.event(true, &failure.reason, format!("Restore of host {name} of {label} failed: {}", failure.message));
    }
}

/// Past the deadline: stop what runs, scale back, fail what is not over.
fn run_out(pass: &mut Pass<'_>, index: usize) {
    let waiting_for =
        pass.now.members[index].message.clone().unwrap_or_else(|| "It was still waiting for its turn.".to_owned());
    if !pass.expired && !pass.run.id.deleting {
        return;
    }
    let mut stopped = true;
    for host in 0..pass.now.members[index].stats.len() {
        let name = pass.now.members[index].stats[host].hostname.clone();
        if is_over(pass.now.members[index].stats[host].phase) {
            continue;
        }
        let prefix = key(index, &name);
        for job in pass.seen.jobs.iter().filter(|j| j.key == prefix && j.is_active()) {
            stopped = false;
            if !job.deleting {
                pass.plan.stop_jobs.push(job.name.clone());
            }
        }
    }
    if !stopped {
        pass.plan.look_again(LOOK_AT_RUNNING);
        return;
    }
    for entry in pass.now.members[index].stats.iter_mut().filter(|h| !is_over(h.phase)) {
        entry.phase = Some(HostPhase::Failed);
        entry.error = Some(match entry.error.take() {
            Some(last) => format!("Not restored before the deadline. Last: {last}"),
            None => "Not restored before the deadline.".to_owned(),
        });
        entry.reason.get_or_insert_with(|| reason::DEADLINE_EXCEEDED.to_owned());
    }
    if resume(pass, index) {
        fail_member(&mut pass.now.members[index], &format!("Not complete before the deadline. {waiting_for}"));
    }
}

fn counts(c: contract::Counts) -> Counts {
    Counts { files: i64::try_from(c.files).unwrap_or(i64::MAX), bytes: i64::try_from(c.bytes).unwrap_or(i64::MAX) }
}

fn progress(p: &contract::Progress) -> Progress {
    let i = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    #[allow(clippy::cast_possible_truncation, reason = "clamped to a percentage")]
    let percent = p.percent.clamp(0.0, 100.0) as i32;
    Progress {
        percent,
        bytes_done: i(p.bytes_done),
        bytes_total: i(p.bytes_total),
        files_done: i(p.files_done),
        files_total: i(p.files_total),
    }
}
