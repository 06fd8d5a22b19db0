//! What a Job answers: an outcome that always fits a termination message.
//!
//! What was done and why it failed may both be there. Success is never read
//! from here alone: the plan compares what was planned with what was done.

use serde::{Deserialize, Serialize};

use super::{OUTCOME_LIMIT, OUTCOME_SLACK, PinnedSnapshot, VERSION};
use crate::names::reason;

/// What a Job answers. Failure and answer may both be present: what was done before it failed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Outcome {
    /// [`VERSION`] of the agent that wrote it.
    pub version: u32,
    /// Id of the run.
    pub run: String,
    /// Seconds the step took.
    #[serde(default)]
    pub seconds: f64,
    /// Why it failed; `None` is success as far as the agent can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What it did or found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// What a step found or did.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Of [`Step::Preflight`], in the order asked.
    Preflight(Vec<HostAnswer>),
    /// Of [`Step::Restore`].
    Restored(Restored),
    /// Of [`Step::Prepare`].
    Prepared {
        /// The repository did not exist and was created.
        created: bool,
    },
    /// Of [`Step::Backup`].
    BackedUp(Vec<SnapshotMade>),
    /// Of [`Step::Maintain`].
    Maintained(RepositoryFacts),
    /// Of [`Step::List`].
    Listed {
        /// Snapshots in the repository.
        snapshots: u64,
        /// Snapshot objects that were written.
        written: u64,
        /// Snapshot objects that were removed.
        removed: u64,
    },
    /// Of [`Step::Probe`]: the repository opened.
    Probed,
    /// Of [`Step::Wipe`].
    Wiped {
        /// Snapshots removed.
        snapshots: u64,
    },
}

impl Answer {
    /// Whether an outcome has room for it.
    pub fn fits(&self) -> bool {
        serde_json::to_string(self).is_ok_and(|text| text.len() + OUTCOME_SLACK <= OUTCOME_LIMIT)
    }
}

/// Snapshots of one host, or why there are none.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct HostAnswer {
    /// Index of the member in the run.
    pub member: usize,
    /// Host asked for.
    pub host: String,
    /// What will be restored, in this order.
    #[serde(default)]
    pub snapshots: Vec<PinnedSnapshot>,
    /// Why this host cannot be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

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
}

/// Files (with folders, links and other entries) and bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Entries.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One snapshot a backup made.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SnapshotMade {
    /// Full id.
    pub id: String,
    /// Path it holds.
    pub path: String,
    /// Files in it.
    pub total_files: u64,
    /// Files that were new.
    pub new_files: u64,
    /// Files that had changed.
    pub modified_files: u64,
    /// Files that had not changed.
    pub unmodified_files: u64,
    /// Bytes read.
    pub total_bytes: u64,
    /// Bytes added to the repository.
    pub uploaded_bytes: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// What is true of a repository after a backup run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RepositoryFacts {
    /// `restic check` found no error; `None` when it did not run.
    #[serde(default)]
    pub integrity: Option<bool>,
    /// Retention was applied to its end, or there was none to apply.
    #[serde(default)]
    pub retained: bool,
    /// Size of the data in the store, bytes; `None` when it was not measured.
    #[serde(default)]
    pub total_bytes: Option<u64>,
    /// Snapshots in the repository, of all hosts; `None` when they were not counted.
    #[serde(default)]
    pub snapshot_count: Option<i64>,
    /// Snapshots removed by this run's retention.
    pub removed: i64,
    /// Snapshots that a dry run of retention would remove; `None` when it was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_remove: Option<i64>,
}

/// How far a running step is.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// 0 to 100.
    pub percent: f64,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Entries done.
    pub files_done: u64,
    /// Entries in all.
    pub files_total: u64,
}

/// Why something failed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Failure {
    /// Decides what happens next.
    pub class: Class,
    /// PascalCase, one of `names::reason`.
    pub reason: String,
    /// What happened, to what, and what to do.
    pub message: String,
    /// Exit code of the data mover, where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl Failure {
    /// A failure without an exit code.
    pub fn new(class: Class, reason: &str, message: impl Into<String>) -> Self {
        Self { class, reason: reason.to_owned(), message: message.into(), exit_code: None }
    }
}

/// What a failure means for the run.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Class {
    /// The user's object or settings are wrong; only a change of them helps.
    Invalid,
    /// Something named is not there yet; wait for it.
    Waiting,
    /// Infrastructure: try again within the deadline.
    Transient,
    /// The data is wrong or missing; trying again does not help.
    Data,
    /// Ours or unknown; stop.
    #[default]
    Fatal,
}

impl Outcome {
    /// JSON of at most [`OUTCOME_LIMIT`] bytes. Messages are cut first; an answer
    /// that still does not fit becomes a failure that says so, never a silent loss.
    pub fn encode(&self) -> String {
        let fits = |o: &Self| serde_json::to_string(o).ok().filter(|s| s.len() <= OUTCOME_LIMIT);
        let mut cut = self.clone();
        for limit in [usize::MAX, 1024, 256, 96] {
            cut.cut_messages(limit);
            if let Some(text) = fits(&cut) {
                return text;
            }
        }
        let failure = Failure::new(
            Class::Fatal,
            reason::OUTCOME_TOO_LARGE,
            "The result of the step does not fit a termination message (4096 bytes). Name fewer paths or snapshots a host.",
        );
        fits(&Self { answer: None, failure: Some(failure), ..cut }).unwrap_or_default()
    }

    /// Reads a termination message.
    ///
    /// # Errors
    /// The text is no outcome of this version; the Job's result is then unknown.
    pub fn decode(text: &str) -> Result<Self, String> {
        let outcome: Self =
            serde_json::from_str(text.trim()).map_err(|e| format!("the termination message is no outcome: {e}"))?;
        if outcome.version == VERSION {
            Ok(outcome)
        } else {
            Err(format!("the outcome is of version {}", outcome.version))
        }
    }

    fn cut_messages(&mut self, limit: usize) {
        if let Some(f) = &mut self.failure {
            cut(&mut f.message, limit);
        }
        if let Some(Answer::Preflight(hosts)) = &mut self.answer {
            for f in hosts.iter_mut().filter_map(|h| h.failure.as_mut()) {
                cut(&mut f.message, limit);
            }
        }
    }
}

/// Cuts a text to at most `limit` bytes at a character's edge, and shows that it did.
pub fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        let mut end = limit.saturating_sub(3);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_outcome_always_fits_and_reads_back(message in ".{0,6000}", hosts in 0usize..60, text in ".{0,400}") {
            let answer = Answer::Preflight((0..hosts).map(|i| HostAnswer {
                member: i, host: format!("host-{i}"), snapshots: vec![],
                failure: Some(Failure::new(Class::Data, "SnapshotNotFound", text.clone())),
            }).collect());
            let outcome = Outcome { version: VERSION, run: "r".into(), seconds: 1.5,
                failure: Some(Failure::new(Class::Transient, "RepositoryUnreachable", message)), answer: Some(answer) };
            let json = outcome.encode();
            prop_assert!(json.len() <= OUTCOME_LIMIT);
            let back = Outcome::decode(&json).unwrap();
            prop_assert!(back.failure.is_some());
        }

        #[test]
        fn cut_keeps_whole_characters(mut text in ".{0,50}", limit in 3usize..40) {
            let before = text.clone();
            cut(&mut text, limit);
            prop_assert!(text.len() <= limit.max(before.len().min(limit)));
            prop_assert!(before.len() > limit || text == before);
        }
    }
}
