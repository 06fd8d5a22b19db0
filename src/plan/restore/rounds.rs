//! What one look at a run has begun and made in its earlier rounds.
//!
//! That a Job has written nothing says something of the data only if it is the only one that its try ever had. Status
//! alone cannot tell: the operator may die between the write that begins a try and the Job, or after it, and somebody
//! may delete that Job. So a try is begun in one round, and its Job made in a later one of the same look. A look that
//! finds a try begun, and no Job, does not know what an earlier one was, and believes no other.

use std::collections::BTreeSet;

use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::HostRestoreStats;
use crate::plan::effects::Plan;
use crate::plan::restore::status;
use crate::plan::seen::job_status;

/// Tries of hosts: the step, and the attempt at it.
type Tries = BTreeSet<(String, i32)>;

/// The rounds of one look before this one.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Tries that were begun before the look. None in its first round: all that are begun were so before.
    before: Option<Tries>,
    /// Tries whose Jobs were asked for in it. What is watched may not have them yet.
    asked: Tries,
}

impl Rounds {
    /// With one more round: the status that it has read, and its plan.
    #[must_use]
    pub fn after(mut self, members: &[RestoreMemberStatus], plan: &Plan) -> Self {
        self.before.get_or_insert_with(|| begun(members));
        self.asked.extend(plan.jobs.iter().filter_map(job_status::attempt_of));
        self
    }

    /// Whether a Job of a try that is begun would be its first one for certain.
    pub fn is_first(&self, key: &str, attempt: i32) -> bool {
        let of = (key.to_owned(), attempt);
        self.before.as_ref().is_some_and(|before| !before.contains(&of)) && !self.asked.contains(&of)
    }

    /// Whether the Job of a try was asked for a moment ago.
    pub fn has_asked(&self, key: &str, attempt: i32) -> bool {
        self.asked.contains(&(key.to_owned(), attempt))
    }

    /// As if no try had been begun before.
    #[cfg(test)]
    pub fn blind() -> Self {
        Self { before: Some(Tries::new()), asked: Tries::new() }
    }
}

/// Whether a Job of the current try of a host may exist, or may have.
pub fn is_begun(host: &HostRestoreStats) -> bool {
    host.attempt.is_some() && host.not_before.is_none()
}

fn begun(members: &[RestoreMemberStatus]) -> Tries {
    let hosts = members.iter().enumerate().flat_map(|(i, m)| m.stats.iter().map(move |h| (i, h)));
    hosts.filter(|(_, h)| is_begun(h)).filter_map(|(i, h)| Some((status::key(i, &h.hostname), h.attempt?))).collect()
}
