//! A snapshot as listed by `restic snapshots --json`, and its backup run, from its tags.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::contract::restic::{INCOMPLETE_TAG, PATHS_TAG_PREFIX, PinnedSnapshot, RUN_TAG_PREFIX, SESSION_TAG_PREFIX};
use crate::drivers::restic::paths::clean;
use crate::text::short_id;

/// Maximum number of alternatives in a message.
pub const NAMED: usize = 5;
/// Maximum difference between the clocks of two machines.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// One snapshot of `restic snapshots --json`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Snapshot {
    pub id: String,
    pub time: String,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub paths: Vec<String>,
    #[serde(default)]
    pub tags: Option<Vec<String>>,
    /// Exclude patterns of the backup; only those of `--exclude` are recorded.
    #[serde(default)]
    pub excludes: Option<Vec<String>>,
    #[serde(default)]
    pub summary: Option<Summary>,
    /// Its time is in the future, because the clock of a machine was wrong. It counts as older than all others.
    #[serde(skip)]
    pub of_future: bool,
}

/// Data of restic 0.17 and newer about the backup.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Summary {
    #[serde(default)]
    pub backup_end: Option<String>,
}

impl Snapshot {
    /// Start of the backup, which restic uses as its time.
    pub fn at(&self) -> Timestamp {
        if self.of_future { Timestamp::MIN } else { self.time.parse().unwrap_or(Timestamp::MIN) }
    }

    /// End of the backup.
    pub fn done_at(&self) -> Timestamp {
        if self.of_future {
            return Timestamp::MAX;
        }
        let end = self.summary.as_ref().and_then(|s| s.backup_end.as_ref()?.parse().ok());
        end.unwrap_or(Timestamp::MIN).max(self.at())
    }

    /// UTC, in seconds, if restic's text can be parsed; otherwise unchanged.
    pub fn time_text(&self) -> String {
        match self.time.parse::<Timestamp>() {
            Ok(at) => Timestamp::from_second(at.as_second()).map_or_else(|_| self.time.clone(), |t| t.to_string()),
            Err(_) => self.time.clone(),
        }
    }

    pub fn tags(&self) -> &[String] {
        self.tags.as_deref().unwrap_or_default()
    }

    /// The first run tag: a backup sets its own tags before those of the user.
    pub fn run_tag(&self) -> Option<&str> {
        self.tags().iter().map(String::as_str).find(|t| t.starts_with(RUN_TAG_PREFIX))
    }

    /// Its BackupSession; the first tag, for the same reason.
    pub fn session(&self) -> Option<&str> {
        self.tags().iter().find_map(|t| t.strip_prefix(SESSION_TAG_PREFIX))
    }

    /// Its run; a snapshot without the tag is a separate run.
    pub fn run(&self) -> &str {
        self.run_tag().unwrap_or(&self.id)
    }

    /// Name of its run in messages.
    pub fn run_name(&self) -> String {
        match (self.session(), self.run_tag().and_then(|t| t.strip_prefix(RUN_TAG_PREFIX))) {
            (Some(session), _) => format!("BackupSession {session}"),
            (None, Some(run)) => format!("run {run}"),
            (None, None) => format!("snapshot {}", self.short()),
        }
    }

    /// It is incomplete: some files could not be read.
    pub fn is_incomplete(&self) -> bool {
        self.tags().iter().any(|t| t == INCOMPLETE_TAG)
    }

    /// Number of paths that its host's part of the run should have.
    pub fn paths_wanted(&self) -> Option<usize> {
        self.tags().iter().find_map(|t| t.strip_prefix(PATHS_TAG_PREFIX)?.parse().ok())
    }

    /// Whether both belong to the same backup run. A snapshot without the tag is a separate run.
    pub fn is_of_the_run_of(&self, other: &Self) -> bool {
        self.id == other.id || self.run_tag().is_some_and(|run| other.run_tag() == Some(run))
    }

    /// By time, then by id, so that the result does not depend on the order of the list.
    pub fn age(&self, other: &Self) -> Ordering {
        // Also of those with a time in the future, the later one is newer.
        let dated = |s: &Self| s.time.parse().unwrap_or(Timestamp::MIN);
        self.at().cmp(&other.at()).then_with(|| dated(self).cmp(&dated(other))).then_with(|| self.id.cmp(&other.id))
    }

    /// Paths that were backed up, normalised.
    pub fn clean_paths(&self) -> Vec<String> {
        self.paths.iter().map(|p| clean(p)).collect()
    }

    /// Its path, normalised, if it has only one, as all snapshots of Lifeboat have.
    pub fn only_path(&self) -> Option<String> {
        if let [path] = self.paths.as_slice() { Some(clean(path)) } else { None }
    }

    /// Its name in messages, with its time.
    pub fn name_and_time(&self) -> String {
        format!("{} of {}", self.short(), self.time_text())
    }

    pub fn short(&self) -> &str {
        short_id(&self.id)
    }

    /// Whether it has all tags of any of the lists; without lists, always true.
    pub fn has_tags(&self, lists: &[Vec<String>]) -> bool {
        lists.is_empty() || lists.iter().any(|all| all.iter().all(|tag| self.tags().contains(tag)))
    }

    pub fn pin(&self, path: Option<String>) -> PinnedSnapshot {
        PinnedSnapshot { id: self.id.clone(), time: self.time_text(), path }
    }
}

/// Finds snapshots with a time in the future, which would be the latest ones for years.
pub fn know_future(all: &mut [Snapshot], now: Timestamp) {
    let latest = now.checked_add(SKEW).unwrap_or(Timestamp::MAX);
    for snapshot in all {
        snapshot.of_future = snapshot.at() > latest;
    }
}
