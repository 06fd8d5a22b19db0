//! Leaving: a session that is deleted while it runs stops its Jobs, scales its
//! workloads back, and only then lets go. Its status is no longer written.

use super::quiesce::resume;
use super::{LOOK_AT_RUNNING, Pass};

/// What to do about a session that is being deleted.
pub fn leave(pass: &mut Pass<'_>) {
    if !pass.run.id.held {
        return;
    }
    let mut active = false;
    for job in pass.seen.jobs.iter().filter(|j| j.is_active()) {
        active = true;
        if !job.deleting {
            pass.plan.stop_jobs.push(job.name.clone());
        }
    }
    if active {
        pass.plan.look_again(LOOK_AT_RUNNING);
        return;
    }
    // Every workload that was announced as scaled down gets its replicas back, whatever became of the restore.
    let mut back = true;
    for index in 0..pass.now.members.len() {
        back &= resume(pass, index);
    }
    if back {
        pass.release();
    } else {
        pass.plan.look_again(LOOK_AT_RUNNING);
    }
}
