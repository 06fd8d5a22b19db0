//! What one reconcile of a run has begun and created in its earlier rounds.
//!
//! A Job that has written nothing shows that the data is untouched only if it is the only Job that its attempt ever
//! had. Status alone cannot tell: the operator may die between the write that begins an attempt and the creation of the
//! Job, or after it, and a user may delete that Job. So an attempt is begun in one round, and its Job is created in a
//! later round of the same reconcile. A reconcile that finds an attempt begun, but no Job, does not know what an
//! earlier Job did, and does not trust a later one.

use std::collections::BTreeSet;

use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::HostRestoreStats;
use crate::plan::effects::Plan;
use crate::plan::restore::status;
use crate::plan::seen::job_status;

/// Attempts of hosts: the step, and the number of the attempt.
type Tries = BTreeSet<(String, i32)>;

/// The earlier rounds of one reconcile.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Attempts that were begun before the reconcile. `None` in its first round: every begun attempt was begun before.
    before: Option<Tries>,
    /// Attempts whose Jobs were requested in this reconcile. The caches may not contain those Jobs yet.
    asked: Tries,
}

impl Rounds {
    /// Adds one more round: the status that it has read, and its plan.
    #[must_use]
    pub fn after(mut self, members: &[RestoreMemberStatus], plan: &Plan) -> Self {
        self.before.get_or_insert_with(|| begun(members));
        self.asked.extend(plan.jobs.iter().filter_map(job_status::attempt_of));
        self
    }

    /// Whether a new Job of a begun attempt would certainly be its first one.
    pub fn is_first(&self, key: &str, attempt: i32) -> bool {
        let of = (key.to_owned(), attempt);
        self.before.as_ref().is_some_and(|before| !before.contains(&of)) && !self.asked.contains(&of)
    }

    /// Whether the Job of an attempt was requested in an earlier round.
    pub fn has_asked(&self, key: &str, attempt: i32) -> bool {
        self.asked.contains(&(key.to_owned(), attempt))
    }

    /// Rounds as if no attempt had been begun before.
    #[cfg(test)]
    pub fn blind() -> Self {
        Self { before: Some(Tries::new()), asked: Tries::new() }
    }
}

/// Whether a Job of the current attempt of a host may exist, or may have existed.
pub fn is_begun(host: &HostRestoreStats) -> bool {
    host.attempt.is_some() && host.not_before.is_none()
}

fn begun(members: &[RestoreMemberStatus]) -> Tries {
    let hosts = members.iter().enumerate().flat_map(|(i, m)| m.stats.iter().map(move |h| (i, h)));
    hosts.filter(|(_, h)| is_begun(h)).filter_map(|(i, h)| Some((status::key(i, &h.hostname), h.attempt?))).collect()
}
