//! Deletion of a Repository: it waits while objects use the Repository, and removes the data only on request.
//!
//! With `wipeOut: true` a Job removes the data, but never data that another Repository of the cluster could refer to.
//! The intent is written to status before the Job is created, and resetting `wipeOut` stops the Job. In a namespace
//! that is being deleted, the deletion does not wait: the Secret is deleted with the namespace, and no Job can be
//! created there.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;

use crate::api::Condition;
use crate::names::{condition, reason};
use crate::plan::effects::FinalizerChange;
use crate::plan::repository::pass::Pass;
use crate::plan::repository::probe;
use crate::plan::run::conditions;
use crate::plan::run::conditions::Health;
use crate::plan::systems::restic;
use crate::plan::systems::restic::backend;
use crate::plan::work::step;
use crate::plan::work::step::StepState;

/// Key of the step.
const WIPE: &str = "wipe";
/// How to delete the Repository without removing the data.
const KEEP: &str = "To delete the Repository and keep the data, set spec.wipeOut: false.";
/// Number of objects using the Repository that a message names.
const NAMED: usize = 5;
/// Interval of checks on what holds a deletion up; a watch reports most of it.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// Retry interval after a failure: a user may have repaired the Secret or the store.
const TRY_AGAIN: Duration = Duration::from_mins(1);

/// Advances the deletion.
pub fn advance(pass: &mut Pass<'_>) {
    if !pass.run.id.held && !pass.run.stash {
        return;
    }
    if pass.seen.namespace_ends {
        return release(pass);
    }
    if !pass.seen.references.is_empty() {
        return wait_for_users(pass);
    }
    if pass.run.spec.wipe_out == Some(true) && pass.run.spec.backend.as_ref().is_some_and(backend::can_be_wiped) {
        return wipe(pass);
    }
    // wipeOut was reset: a Job that has begun is stopped first.
    if is_stopped(pass) {
        release(pass);
    }
}

/// Stops Jobs that remove data. Returns true when there are none.
fn is_stopped(pass: &mut Pass<'_>) -> bool {
    let mut stopped = true;
    for job in pass.seen.jobs.iter().filter(|j| j.key == WIPE && j.is_active()) {
        stopped = false;
        pass.plan.stop(Some(job));
    }
    if !stopped {
        pass.plan.look_again(LOOK_AGAIN);
    }
    stopped
}

fn release(pass: &mut Pass<'_>) {
    pass.plan.finalizer = Some(FinalizerChange::Remove);
    // The Repository is gone then.
    pass.now = pass.run.state.clone();
}

fn wait_for_users(pass: &mut Pass<'_>) {
    let all = &pass.seen.references;
    let names: Vec<String> = all
        .iter()
        .take(NAMED)
        .map(|r| {
            let kind = r.kind.as_deref().unwrap_or_default();
            format!("{kind} {}/{}", r.namespace.as_deref().unwrap_or_default(), r.name)
        })
        .collect();
    let more = if all.len() > NAMED { format!(" and {} more", all.len() - NAMED) } else { String::new() };
    let text = format!(
        "Deletion waits, because it is used by {}{more}. Delete them, or change them to another Repository.",
        names.join(", ")
    );
    // Sessions that wait for a store that does not answer must be able to end.
    if let Some(access) = pass.access() {
        probe::advance(pass, &access);
    }
    hold(pass, Health::Reconciling, reason::REPOSITORY_IN_USE, &text);
}

fn not_removed(why: &str) -> String {
    format!("The data could not be removed: {why} It is retried every minute. {KEEP}")
}

/// Whether the conditions already say that the last attempt failed for this reason.
fn is_stalled(list: &[Condition], why: &str) -> bool {
    list.iter().any(|c| c.type_ == condition::STALLED && c.status == "True" && c.reason.as_deref() == Some(why))
}

fn wipe(pass: &mut Pass<'_>) {
    let keep = KEEP;
    if let Some(other) = &pass.seen.shares_data_with {
        let text = format!("The data is not removed, because it is, or could be, that of {other}. {keep}");
        is_stopped(pass);
        pass.plan.look_again(LOOK_AGAIN);
        return hold(pass, Health::Stalled, reason::DATA_SHARED, &text);
    }
    if pass.seen.at_work > 0 {
        pass.plan.look_again(LOOK_AGAIN);
        let text = format!("Deletion waits for {} running Jobs.", pass.seen.at_work);
        return hold(pass, Health::Reconciling, reason::REPOSITORY_IN_USE, &text);
    }
    if !pass.run.state.steps.iter().any(|s| s.name == WIPE) {
        step::entry(&mut pass.now.steps, WIPE);
        pass.plan.again = true;
        let text = format!("All snapshots and their data are being removed, because spec.wipeOut is true. {keep}");
        return hold(pass, Health::Reconciling, reason::WIPING_OUT, &text);
    }
    let Some(access) = pass.ground() else { return };
    let limit = pass.setup.default_timeout;
    match pass.lone_step(WIPE, &access, limit, restic::repository::wipe(&access)) {
        StepState::Running => {
            let entry = step::entry(&mut pass.now.steps, WIPE);
            if let (Some(why), Some(said)) = (entry.reason.clone(), entry.message.clone()) {
                if is_stalled(&pass.run.state.conditions, &why) {
                    return hold(pass, Health::Stalled, &why, &not_removed(&said));
                }
                let text = format!("The data is not removed yet (attempt {}): {said} {keep}", entry.attempt);
                hold(pass, Health::Reconciling, &why, &text);
            }
        }
        StepState::Done(_) => release(pass),
        StepState::Failed(failure) => {
            let entry = step::entry(&mut pass.now.steps, WIPE);
            step::begin_again(entry);
            let next = SignedDuration::try_from(TRY_AGAIN).ok().and_then(|wait| pass.at.checked_add(wait).ok());
            entry.not_before = next.map(conditions::whole_second);
            entry.reason = Some(failure.reason.clone());
            entry.message = Some(failure.message.clone());
            pass.plan.look_again(TRY_AGAIN);
            hold(pass, Health::Stalled, &failure.reason, &not_removed(&failure.message));
        }
    }
}

/// Says why the Repository is not deleted yet. The event is published once.
fn hold(pass: &mut Pass<'_>, health: Health, why: &str, text: &str) {
    pass.say(health, why, text);
    let said = |list: &[Condition]| list.iter().find(|c| c.type_ == condition::READY).map(|c| c.message.clone());
    if said(&pass.now.conditions) != said(&pass.run.state.conditions) {
        pass.event(true, why, text);
    }
}
