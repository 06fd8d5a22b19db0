//! The way out before the end: Jobs are stopped, then workloads scaled back, and only then is it over.
//!
//! A session that is deleted goes this way, and its status is no longer written.
//! So does one whose spec is changed under its run: half of one plan and half of
//! another would restore what nobody asked for.

use super::quiesce::resume;
use super::{LOOK_AT_RUNNING, Pass, is_over, member_is_over};
use crate::api::restore_session::{HostPhase, RestorePhase};
use crate::names::reason;
use crate::plan::restore::member::fail_member;

/// What to do about a session that is being deleted.
pub fn leave(pass: &mut Pass<'_>) {
    if pass.run.id.held && is_out(pass) {
        pass.release();
    }
}

/// What to do about a session whose spec was changed under its run.
pub fn abandon(pass: &mut Pass<'_>) {
    if !is_out(pass) {
        return;
    }
    let text = "The spec was changed after the run had begun, so the run was given up; what it had scaled is back. A session is one run: create another one.";
    for member in pass.now.members.iter_mut().filter(|m| !member_is_over(m.phase)) {
        for host in member.stats.iter_mut().filter(|h| !is_over(h.phase)) {
            host.phase = Some(HostPhase::Failed);
            host.reason = Some(reason::SPEC_CHANGED.to_owned());
            host.error = Some(text.to_owned());
        }
        fail_member(member, text);
    }
    pass.end_with(RestorePhase::Failed, reason::SPEC_CHANGED, text);
}

/// True when nothing of the run runs any more and every workload has its replicas.
fn is_out(pass: &mut Pass<'_>) -> bool {
    let mut active = false;
    for job in pass.seen.jobs.iter().filter(|j| j.is_active()) {
        active = true;
        if !job.deleting {
            pass.plan.stop_jobs.push(job.name.clone());
        }
    }
    if active {
        pass.plan.look_again(LOOK_AT_RUNNING);
        return false;
    }
    // Every workload that was announced as scaled down gets its replicas back, whatever became of the restore.
    let mut back = true;
    for index in 0..pass.now.members.len() {
        back &= resume(pass, index);
    }
    if !back {
        pass.plan.look_again(LOOK_AT_RUNNING);
    }
    back
}
