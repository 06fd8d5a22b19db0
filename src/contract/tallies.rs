//! How much there is to do, and how much of it was done, counted by type.
//!
//! Success is computed from these and from nothing else: a success that an exit code or a remote system reports is only
//! a claim.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The counts of one type.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Tally {
    /// How many there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// How many were done, or found to be as they should be.
    #[serde(skip_serializing_if = "is_zero")]
    pub done: u64,
    /// How many were left out on request.
    #[serde(skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// How many could not be done.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Tally {
    /// A total of which nothing is done yet.
    pub fn planned(total: u64) -> Self {
        Self { total, ..Self::default() }
    }

    /// `done` of `total`.
    pub fn of(done: u64, total: u64) -> Self {
        Self { total, done, ..Self::default() }
    }

    /// Whether all of it is done or left out, and nothing else was done.
    pub fn is_complete(&self) -> bool {
        self.failed == 0 && self.done.checked_add(self.skipped) == Some(self.total)
    }
}

/// Tallies by type: `files`, `bytes`, `tables`, or other types of a system.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Tallies(BTreeMap<String, Tally>);

impl Tallies {
    /// The tally of one type; `None` if the type was not counted.
    pub fn get(&self, type_: &str) -> Option<Tally> {
        self.0.get(type_).copied()
    }

    /// With one more type.
    #[must_use]
    pub fn with(mut self, type_: &str, tally: Tally) -> Self {
        self.0.insert(type_.to_owned(), tally);
        self
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each type that is not complete.
    pub fn incomplete(&self) -> impl Iterator<Item = (&str, Tally)> {
        self.0.iter().filter(|(_, t)| !t.is_complete()).map(|(type_, t)| (type_.as_str(), *t))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_complete_only_where_all_is_accounted_for() {
        let of = |total, done, skipped, failed| Tally { total, done, skipped, failed }.is_complete();
        assert!(of(0, 0, 0, 0) && of(5, 5, 0, 0) && of(5, 3, 2, 0));
        assert!(!of(5, 4, 0, 0) && !of(5, 5, 0, 1) && !of(5, 6, 0, 0) && !of(5, 4, 0, 1));
        assert!(!of(0, u64::MAX, 1, 0));
        let all = Tallies::default().with("files", Tally::of(3, 3)).with("bytes", Tally::of(2, 3));
        assert_eq!(all.incomplete().collect::<Vec<_>>(), [("bytes", Tally::of(2, 3))]);
    }
}
