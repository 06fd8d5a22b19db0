//! The Jobs of a Repository: what restic is asked, and what the answers mean.

use std::collections::BTreeMap;

use super::{Settings, backend::Access, work};
pub use crate::contract::restic::Absent;
use crate::contract::restic::{Answer, List, Probe, Step, Wipe};
use crate::contract::{self, Outcome, Work};

/// Lists the snapshots; their objects get these labels.
pub fn list(access: &Access, labels: BTreeMap<String, String>) -> Work {
    work(access, Settings::default(), Step::List(List { labels }))
}

/// Opens the repository, and nothing else.
pub fn probe(access: &Access) -> Work {
    work(access, Settings::default(), Step::Probe(Probe {}))
}

/// Removes all that is in the repository.
pub fn wipe(access: &Access) -> Work {
    work(access, Settings::default(), Step::Wipe(Wipe {}))
}

/// Number of snapshots that a Job has listed, and what does not exist to be listed; `None` if the Job does not report
/// this.
pub fn listed(outcome: &Outcome) -> Option<(u64, Option<Absent>)> {
    match &outcome.answer {
        Some(contract::Answer::Restic(Answer::Listed { snapshots, absent, .. })) => Some((*snapshots, *absent)),
        _ => None,
    }
}
