//! What the operator asks of a Job, and what the Job answers.
//!
//! A [`Task`] travels as JSON in the environment variable [`TASK_ENV`] of the
//! Job's container; an [`Outcome`] comes back as the container's termination
//! message, which the kubelet keeps without any network or credentials. Both
//! are versioned together: operator and agent are one binary.
//!
//! Nothing here is secret. Credentials reach the agent as files below
//! [`SECRET_DIR`] and appear in neither document.

use serde::{Deserialize, Serialize};

/// Version of the two documents; an agent refuses a task of another version.
pub const VERSION: u32 = 1;
/// Environment variable that carries the [`Task`].
pub const TASK_ENV: &str = "LIFEBOAT_TASK";
/// Where the backend Secret is mounted, one file a key.
pub const SECRET_DIR: &str = "/etc/lifeboat/repository";
/// Key of the backend Secret that holds the encryption password.
pub const PASSWORD_KEY: &str = "RESTIC_PASSWORD";
/// Writable scratch space of the agent: cache, derived credentials files.
pub const WORK_DIR: &str = "/lifeboat/work";
/// Where a repository on a volume (`backend.local`) is mounted.
pub const LOCAL_REPOSITORY_DIR: &str = "/lifeboat/repository";
/// Restores write below this folder: the volume that the user mounts at `/data`
/// stands at `/lifeboat/restore/data`, so that no path of the user's can hide
/// the agent's own files and parents of a mount point are never touched.
pub const RESTORE_ROOT: &str = "/lifeboat/restore";
/// Where the kubelet reads the termination message.
pub const OUTCOME_FILE: &str = "/dev/termination-log";
/// Bytes of a termination message the kubelet keeps
/// (Kubernetes, "Customizing the termination message").
pub const OUTCOME_LIMIT: usize = 4096;
/// Port on which a running agent answers `GET /progress`.
pub const PROGRESS_PORT: u16 = 9180;
/// Tag that marks all snapshots of one backup run, so that `latest` is a consistent set.
pub const RUN_TAG_PREFIX: &str = "lifeboat.run=";

/// One Job's work.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Task {
    /// [`VERSION`] of the operator that wrote it.
    pub version: u32,
    /// The run that this Job is a step of; its id goes through every log line.
    pub run: Run,
    /// How to reach the repository.
    pub repository: RepositoryAccess,
    /// How the data mover behaves.
    #[serde(default)]
    pub settings: Settings,
    /// What to do.
    pub step: Step,
}

/// The session a Job belongs to.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Run {
    /// Id of the run, the same in the logs of operator, Job and agent.
    pub id: String,
    /// Kind of the session.
    pub kind: String,
    /// Namespace of the session.
    pub namespace: String,
    /// Name of the session.
    pub name: String,
}

/// A restic repository, without its secrets.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RepositoryAccess {
    /// As restic's `--repo` takes it.
    pub url: String,
    /// S3 region, where one is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Accept any certificate of the store.
    #[serde(default)]
    pub insecure_tls: bool,
}

/// How the data mover behaves.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Settings {
    /// Do not keep a local cache (`tempDir.disableCaching`).
    #[serde(default)]
    pub no_cache: bool,
    /// Scheduling priority, -20 to 19, as nice(1) takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// I/O class 0 to 3, as ionice(1) takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ionice_class: Option<i32>,
    /// I/O priority within the class, 0 to 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ionice_class_data: Option<i32>,
}

/// What a Job does.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Restore, first step: open the repository and resolve every host's snapshots. Touches nothing.
    Preflight(Preflight),
    /// Restore one host of a member.
    Restore(Restore),
    /// Backup, first step: open the repository, create it when it is known to be absent.
    Prepare(Prepare),
    /// Back up one host of a member.
    Backup(Backup),
    /// Backup, last step: retention, integrity check, size and count.
    Maintain(Maintain),
}

impl Step {
    /// One word for names, labels and logs.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Preflight(_) => "preflight",
            Self::Restore(_) => "restore",
            Self::Prepare(_) => "prepare",
            Self::Backup(_) => "backup",
            Self::Maintain(_) => "maintain",
        }
    }
}

/// Hosts whose snapshots are to be resolved.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Preflight {
    /// One query a host; few enough that the answers fit one [`Outcome`].
    pub hosts: Vec<HostQuery>,
}

/// Which snapshots a host wants.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct HostQuery {
    /// Index of the member in the run.
    pub member: usize,
    /// Host to restore.
    pub host: String,
    /// Host whose snapshots are taken. The filter always applies.
    pub source_host: String,
    /// Snapshot ids (8 or more hex digits) or `latest`. Exclusive with `paths`.
    #[serde(default)]
    pub snapshots: Vec<String>,
    /// Backed-up paths (or folders below one); the newest snapshot that holds each is taken.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Only snapshots that carry all tags of one of these lists (restic's `--tag a,b --tag c`).
    #[serde(default)]
    pub tags: Vec<Vec<String>>,
    /// Mount points of the target. A snapshot path outside all of them cannot be restored.
    pub mounts: Vec<String>,
}

/// A snapshot fixed before data is touched.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PinnedSnapshot {
    /// Full id.
    pub id: String,
    /// When it was made, RFC 3339.
    pub time: String,
    /// Restore only this path of it; all of its paths when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Restore one host.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Restore {
    /// Index of the member in the run.
    pub member: usize,
    /// Host to restore.
    pub host: String,
    /// What to restore, in this order.
    pub snapshots: Vec<PinnedSnapshot>,
    /// restic include patterns, over paths as they were backed up.
    #[serde(default)]
    pub include: Vec<String>,
    /// restic exclude patterns, over paths as they were backed up.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Further restic arguments, already checked against the allow list.
    #[serde(default)]
    pub args: Vec<String>,
    /// Mount points of the target, as the user wrote them; each stands below [`RESTORE_ROOT`].
    pub mounts: Vec<String>,
    /// Nothing to restore is a success.
    #[serde(default)]
    pub allow_empty: bool,
}

/// Open or create a repository.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Prepare {}

/// Back up one host.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Backup {
    /// Index of the member in the run.
    pub member: usize,
    /// restic host name of the snapshots.
    pub host: String,
    /// Absolute paths, one snapshot each.
    pub paths: Vec<String>,
    /// restic exclude patterns.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Further restic arguments, already checked against the allow list.
    #[serde(default)]
    pub args: Vec<String>,
}

/// Retention, check and statistics after a backup.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Maintain {
    /// Hosts of this invoker; retention never touches another's.
    pub hosts: Vec<String>,
    /// What to keep. No retention is applied when every `keep` is unset.
    pub retention: Retention,
}

/// Which snapshots `restic forget` keeps.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Retention {
    /// Newest snapshots.
    #[serde(default)]
    pub keep_last: Option<i64>,
    /// Hours.
    #[serde(default)]
    pub keep_hourly: Option<i64>,
    /// Days.
    #[serde(default)]
    pub keep_daily: Option<i64>,
    /// Weeks.
    #[serde(default)]
    pub keep_weekly: Option<i64>,
    /// Months.
    #[serde(default)]
    pub keep_monthly: Option<i64>,
    /// Years.
    #[serde(default)]
    pub keep_yearly: Option<i64>,
    /// Snapshots with any of these tags.
    #[serde(default)]
    pub keep_tags: Vec<String>,
    /// Remove data that no snapshot needs any more.
    #[serde(default)]
    pub prune: bool,
    /// Only say what would be removed.
    #[serde(default)]
    pub dry_run: bool,
}

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
    /// Size of the data in the store, bytes.
    pub total_bytes: u64,
    /// Snapshots in the repository, of all hosts.
    pub snapshot_count: i64,
    /// Snapshots removed by this run's retention.
    pub removed: i64,
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

impl Task {
    /// JSON for [`TASK_ENV`].
    pub fn encode(&self) -> String {
        // A Task is plain data with string keys: serialising it cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a task of this [`VERSION`].
    ///
    /// # Errors
    /// The text is no task, or of another version.
    pub fn decode(text: &str) -> Result<Self, String> {
        let task: Self = serde_json::from_str(text).map_err(|e| format!("the task is not readable: {e}"))?;
        if task.version == VERSION {
            Ok(task)
        } else {
            Err(format!(
                "the task is of version {}, this agent speaks version {VERSION}: operator and Job images differ",
                task.version
            ))
        }
    }
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
            "OutcomeTooLarge",
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

    #[test]
    fn another_version_is_refused() {
        let text = r#"{"version":2,"run":{"id":"","kind":"","namespace":"","name":""},"repository":{"url":""},"step":{"prepare":{}}}"#;
        assert!(Task::decode(text).unwrap_err().contains("version 2"));
    }
}
