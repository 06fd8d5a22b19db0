//! What a Job answers: an outcome that always fits a termination message.
//!
//! What was done and why it failed may both be there. Success is never read
//! from here alone: the plan compares what was planned with what was done.

use serde::{Deserialize, Serialize};

use super::compact::{Detail, MOST_PINS, Saved, pack, unpack_made};
use super::{OUTCOME_LIMIT, OUTCOME_SLACK, PinnedSnapshot, is_read};
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
    /// What is to be known of it, though it is no failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// It failed before it wrote anything to the volumes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untouched: bool,
}

/// What a step found or did.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Of [`Step::Preflight`], in the order asked: the first of those asked for, as many as fit.
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
    /// The same where it would not fit: packed, in the order of the paths.
    Saved(String),
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
    /// The same where they would not fit, see [`HostAnswer::pins`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<String>,
    /// Why this host cannot be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What will be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Counts>,
    /// Up to two owners among it, `uid:gid,uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What is to be known of what it gets, though it is no failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
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

/// Bytes that messages are cut to, one after the other, until an outcome fits.
const MESSAGES: [usize; 4] = [usize::MAX, 1024, 256, 96];
/// Bytes that messages of hosts are cut to before a host is left out.
const MESSAGE_OF_HOST: usize = 256;

impl Outcome {
    /// JSON of at most [`OUTCOME_LIMIT`] bytes. Messages are cut first; then a backup tells less of each snapshot, and a
    /// preflight leaves its last hosts out, which are asked for again. What still does not fit becomes a failure that says
    /// so, never a silent loss.
    pub fn encode(&self) -> String {
        for answer in self.forms() {
            for limit in MESSAGES {
                let mut cut = Self { answer: answer.clone(), ..self.clone() };
                cut.cut_messages(limit);
                if let Some(text) = cut.fitting() {
                    return text;
                }
                // Rather another attempt at the rest than messages that say nothing.
                if limit == MESSAGE_OF_HOST
                    && let Some(text) = cut.first_hosts()
                {
                    return text;
                }
            }
        }
        let failure = Failure::new(
            Class::Fatal,
            reason::OUTCOME_TOO_LARGE,
            "The result of the step does not fit a termination message (4096 bytes). Name fewer paths or snapshots a host.",
        );
        Self { answer: None, failure: Some(failure), ..self.clone() }.fitting().unwrap_or_default()
    }

    fn fitting(&self) -> Option<String> {
        serde_json::to_string(self).ok().filter(|text| text.len() <= OUTCOME_LIMIT)
    }

    /// The answer, and shorter ones that stand for it.
    fn forms(&self) -> Vec<Option<Answer>> {
        let mut forms = vec![self.answer.clone()];
        if let Some(Answer::BackedUp(made)) = &self.answer {
            let shorter = [Detail::All, Detail::Sums, Detail::Id].map(|d| Some(Answer::Saved(pack(made, d))));
            forms.extend(shorter);
        }
        forms
    }

    /// With the first hosts of a preflight, as many as fit. The first is answered in any case.
    fn first_hosts(&self) -> Option<String> {
        let Some(Answer::Preflight(hosts)) = &self.answer else { return None };
        let with = |hosts: &[HostAnswer]| Self { answer: Some(Answer::Preflight(hosts.to_vec())), ..self.clone() };
        let most = (1..=hosts.len()).rev().find_map(|n| with(&hosts[..n]).fitting());
        most.or_else(|| with(&[hosts.first()?.too_large()]).fitting())
    }

    /// What a backup made of `paths`; `None` where it tells of no snapshots.
    ///
    /// # Errors
    /// What was packed does not read back.
    pub fn saved(&self, paths: &[String]) -> Result<Option<Vec<Saved>>, String> {
        match &self.answer {
            Some(Answer::BackedUp(made)) => {
                Ok(Some(made.iter().map(|made| Saved { made: made.clone(), detail: Detail::All }).collect()))
            }
            Some(Answer::Saved(text)) => unpack_made(text, paths).map(Some),
            _ => Ok(None),
        }
    }

    /// Reads a termination message.
    ///
    /// # Errors
    /// The text is no outcome of this version or the one before; the Job's result is then unknown.
    pub fn decode(text: &str) -> Result<Self, String> {
        let outcome: Self =
            serde_json::from_str(text.trim()).map_err(|e| format!("the termination message is no outcome: {e}"))?;
        if is_read(outcome.version) {
            Ok(outcome)
        } else {
            Err(format!("the outcome is of version {}", outcome.version))
        }
    }

    fn cut_messages(&mut self, limit: usize) {
        if let Some(f) = &mut self.failure {
            cut(&mut f.message, limit);
        }
        self.warnings.iter_mut().for_each(|w| cut(w, limit));
        let Some(Answer::Preflight(hosts)) = &mut self.answer else { return };
        for host in hosts {
            host.failure.iter_mut().for_each(|f| cut(&mut f.message, limit));
            host.warnings.iter_mut().for_each(|w| cut(w, limit));
        }
    }
}

impl HostAnswer {
    /// The answer of a host whose own does not fit even alone.
    fn too_large(&self) -> Self {
        let text = format!(
            "The snapshots of this host do not fit the answer of a Job, which always holds {MOST_PINS} of them. Name some of its paths in a rule, and restore the others by another session."
        );
        Self {
            snapshots: vec![],
            packed: None,
            planned: None,
            owner: None,
            warnings: vec![],
            failure: Some(Failure::new(Class::Invalid, reason::OUTCOME_TOO_LARGE, text)),
            ..self.clone()
        }
    }
}

/// Cuts a text to at most `limit` bytes, as JSON has it, at a character's edge, and shows that it did.
pub fn cut(text: &mut String, limit: usize) {
    if text.chars().map(escaped).sum::<usize>() <= limit {
        return;
    }
    let room = limit.saturating_sub('…'.len_utf8());
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += escaped(*c);
        used > room
    });
    text.truncate(end.map_or(0, |(at, _)| at));
    text.push('…');
}

/// Bytes of a character in a JSON string.
fn escaped(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests;
