//! What restic counts of a restore, and the same as tallies.

use serde::{Deserialize, Serialize};

use crate::contract::tallies::{Tallies, Tally};

/// Types that are counted.
const FILES: &str = "files";
const BYTES: &str = "bytes";
const DELETED: &str = "deleted";

/// Counts of a restore; success is computed from these.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Restored {
    /// What the plan (a dry run over the same snapshots) said.
    pub planned: Counts,
    /// What was written or found already equal.
    pub restored: Counts,
    /// Files or folders restic could not restore.
    #[serde(default)]
    pub errors: u64,
    /// Deleted entries that the snapshots do not have; `None` if the restore did not look for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<u64>,
}

/// Files (with folders, links and other entries) and bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Entries.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Counts {
    /// As planned tallies.
    pub fn planned(self) -> Tallies {
        Tallies::default().with(FILES, Tally::planned(self.files)).with(BYTES, Tally::planned(self.bytes))
    }

    /// What is to be restored; `None` if it was not counted.
    pub fn of_planned(tallies: &Tallies) -> Option<Self> {
        Some(Self { files: tallies.get(FILES)?.total, bytes: tallies.get(BYTES)?.total })
    }
}

impl Restored {
    /// As tallies.
    pub fn tallies(&self) -> Tallies {
        let files = Tally { failed: self.errors, ..Tally::of(self.restored.files, self.planned.files) };
        let all = Tallies::default().with(FILES, files).with(BYTES, Tally::of(self.restored.bytes, self.planned.bytes));
        match self.deleted {
            Some(n) => all.with(DELETED, Tally::of(n, n)),
            None => all,
        }
    }

    /// From tallies; `None` if they are not restic's.
    pub fn of(tallies: &Tallies) -> Option<Self> {
        let (files, bytes) = (tallies.get(FILES)?, tallies.get(BYTES)?);
        Some(Self {
            planned: Counts { files: files.total, bytes: bytes.total },
            restored: Counts { files: files.done, bytes: bytes.done },
            errors: files.failed,
            deleted: tallies.get(DELETED).map(|t| t.done),
        })
    }
}
