//! What the operator asks of a Job, and what the Job answers.
//!
//! A [`Task`] travels as JSON in the environment variable [`TASK_ENV`] of the
//! Job's container; an [`Outcome`] comes back as the container's termination
//! message, which the kubelet keeps without any network or credentials. Both
//! are versioned together: operator and agent are one binary.
//!
//! Nothing here is secret. Credentials reach the agent as files below
//! [`SECRET_DIR`] and appear in neither document. Where the backend Secret is in
//! another namespace, the agent puts them there itself, see [`SecretPlace`].

mod compact;
mod outcome;
mod retention;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::compact::{Detail, MOST_PATHS, MOST_PINS, Saved};
pub use self::outcome::{
    Absent, Answer, Class, Counts, Failure, HostAnswer, Outcome, Progress, RepositoryFacts, Restored, SnapshotMade, cut,
};
pub use self::retention::Retention;

/// Version of the two documents.
pub const VERSION: u32 = 2;
/// Oldest version that is read: the one before. Jobs that an operator made before it was upgraded answer in it.
/// Since 2 an answer may be packed, and a preflight may leave hosts out.
pub const OLDEST_VERSION: u32 = 1;
/// Environment variable that carries the [`Task`].
pub const TASK_ENV: &str = "LIFEBOAT_TASK";
/// Where the backend Secret is mounted, one file a key.
pub const SECRET_DIR: &str = "/etc/lifeboat/repository";
/// Key of the backend Secret that holds the encryption password.
pub const PASSWORD_KEY: &str = "RESTIC_PASSWORD";
/// Writable scratch space of the agent: cache, derived credentials files.
pub const WORK_DIR: &str = "/lifeboat/work";
/// Where the claim of an `interimVolumeTemplate` is mounted (Stash's path).
pub const INTERIM_DIR: &str = "/stash-interim-volume";
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
/// Bytes that [`TASK_ENV`] can hold: the kernel takes no longer string (32 pages of 4 KiB, execve(2)), and the name is in it.
pub const TASK_LIMIT: usize = (128 << 10) - 256;
/// Bytes of an outcome that are kept free for what is around its answer.
pub const OUTCOME_SLACK: usize = 400;
/// Port on which a running agent answers `GET /progress`.
pub const PROGRESS_PORT: u16 = 9180;
/// Tag that marks all snapshots of one backup run, so that `latest` is a consistent set.
pub const RUN_TAG_PREFIX: &str = "lifeboat.run=";
/// Tag that names the BackupSession (`namespace/name`) of a run, so that it is found when the object is gone.
pub const SESSION_TAG_PREFIX: &str = "lifeboat.session=";
/// Tag that says of how many paths a host's part of a run is: with fewer it is no whole one.
pub const PATHS_TAG_PREFIX: &str = "lifeboat.paths=";
/// Tag of a snapshot that misses files which could not be read.
pub const INCOMPLETE_TAG: &str = "lifeboat.incomplete";

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
    /// A bucket that does not exist may be created.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create_bucket: bool,
    /// There was a repository: one that is not there is lost, and neither created nor taken for one without snapshots.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
    /// The backend Secret, where no volume can bring it: the agent asks the API server for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretPlace>,
}

/// A Secret in another namespace than the Job's. The Job has a token that may read this one and no other.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SecretPlace {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
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
    /// Cache and temporary files go to the claim at [`INTERIM_DIR`].
    #[serde(default)]
    pub interim: bool,
    /// An earlier attempt died in a pod of this one's hostname, as its kubelet saw: what it has locked is locked by
    /// nobody.
    #[serde(default)]
    pub after_death: bool,
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
    /// Of a Repository: list its snapshots, and make its Snapshot objects those.
    List(List),
    /// Repository: does the store answer, and does the repository open?
    Probe(Probe),
    /// Repository: remove every snapshot, and the data that nothing needs then.
    Wipe(Wipe),
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
            Self::List(_) => "list",
            Self::Probe(_) => "probe",
            Self::Wipe(_) => "wipe",
        }
    }
}

/// Hosts whose snapshots are to be resolved.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Preflight {
    /// One query a host. Hosts whose answers do not fit the [`Outcome`] are left out of it, and asked for again.
    pub hosts: Vec<HostQuery>,
    /// Hosts whose snapshots must be of one backup run, also those that other Jobs ask for: all of the session that
    /// follow its `asOf`. [`HostQuery::together`] says which queries they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub together: Vec<Companion>,
}

/// A host of a set that must come from one backup run.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Companion {
    /// Host whose snapshots are taken.
    pub source_host: String,
    /// As in [`HostQuery::tags`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Vec<String>>,
    /// The run may lack it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// First digits of a snapshot that it has got already: the run is that one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
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
    /// Only sets that were complete at this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    /// `as_of` is the session's, and the run is that of all of [`Preflight::together`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub together: bool,
    /// Only the run of this BackupSession, `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Sets back from the newest.
    #[serde(default)]
    pub previous: usize,
    /// Mount points of the target. A snapshot path outside all of them cannot be restored.
    pub mounts: Vec<String>,
    /// Whom the restore will run as, where it cannot give files their owners and must: every entry must be theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Runner>,
    /// As in [`Restore`]. What they select is counted, and told in [`HostAnswer::planned`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// As in [`Restore`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// The restore may make no device files: none may be among what is selected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_devices: bool,
    /// Paths that a snapshot does not hold are left out, as long as there is something.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// As in [`Restore`]: each path must hold something of what is selected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
}

/// A user without the right to give files away.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Runner {
    /// User id.
    pub uid: u32,
    /// Group ids.
    pub gids: Vec<u32>,
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

impl PinnedSnapshot {
    /// How messages name it.
    pub fn short(&self) -> &str {
        short_id(&self.id)
    }
}

/// The first digits of a snapshot's id, by which restic shows it.
pub fn short_id(id: &str) -> &str {
    id.char_indices().nth(8).map_or(id, |(at, _)| &id[..at])
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
    /// Files may belong to whom the Job runs as.
    #[serde(default)]
    pub ignore_owners: bool,
    /// What the preflight has counted; the restore counts by itself where it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Counts>,
    /// Up to two owners, `uid:gid,uid:gid`, among what is selected, with which each volume is tried before anything is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What is selected and the snapshots do not have is deleted, once all of it is restored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
}

/// Whether restic, with these arguments, leaves files as they are that are there: also those that a restore before it has
/// begun to write and not finished. Such a restore runs once.
pub fn keeps_what_is_there(args: &[String]) -> bool {
    args.iter().any(|a| ["never", "if-newer"].contains(&a.trim_start_matches("--overwrite=")))
}

/// The same arguments, with which restic reads what is there: what an earlier run of it has left half written may have the
/// size and time that it should.
pub fn reads_what_is_there(args: &[String]) -> Vec<String> {
    const TRUSTS: &str = "if-changed";
    let is_value = |at: usize| at > 0 && args[at - 1] == "--overwrite" && args[at] == TRUSTS;
    let always = |(at, arg): (usize, &String)| match arg.as_str() {
        "--overwrite=if-changed" => "--overwrite=always".to_owned(),
        _ if is_value(at) => "always".to_owned(),
        other => other.to_owned(),
    };
    args.iter().enumerate().map(always).collect()
}

/// Open or create a repository.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Prepare {}

/// Open a repository, and nothing else.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Probe {}

/// Remove all that is in a repository.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Wipe {}

/// Back up one host.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Backup {
    /// Index of the member in the run.
    pub member: usize,
    /// restic host name of the snapshots.
    pub host: String,
    /// Absolute paths, one snapshot each.
    pub paths: Vec<String>,
    /// Mount points of the target's volumes.
    #[serde(default)]
    pub mounts: Vec<String>,
    /// restic exclude patterns.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Further restic arguments, already checked against the allow list.
    #[serde(default)]
    pub args: Vec<String>,
}

/// What only one invoker backs up: hosts, and the path in each.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Own {
    /// The path.
    pub path: String,
    /// Hosts that have it.
    pub hosts: Vec<String>,
}

/// Retention, check and statistics after a backup.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Maintain {
    /// Snapshots of this invoker; retention never touches another's.
    pub own: Vec<Own>,
    /// What to keep. No retention is applied when every `keep` is unset.
    pub retention: Retention,
}

/// List the snapshots of the Repository that the run is of.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct List {
    /// Labels that the Snapshots get besides their own: those of the Repository.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A snapshot as restic lists it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Listed {
    /// Full id.
    pub id: String,
    /// When it was made, RFC 3339.
    #[serde(default)]
    pub time: String,
    /// Id of its root folder.
    #[serde(default)]
    pub tree: Option<String>,
    /// Paths it holds.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Host it was made for.
    #[serde(default)]
    pub hostname: String,
    /// User who made it.
    #[serde(default)]
    pub username: Option<String>,
    /// User id of the process that made it; root's is left out.
    #[serde(default)]
    pub uid: u32,
    /// Group id of the process that made it; root's is left out.
    #[serde(default)]
    pub gid: u32,
    /// Its tags.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
}

impl Task {
    /// JSON for [`TASK_ENV`].
    pub fn encode(&self) -> String {
        // A Task is plain data with string keys: serialising it cannot fail.
        let text = serde_json::to_string(self).unwrap_or_default();
        // The kubelet expands $(NAME) in values of the environment: a user's pattern would take in a user's variable,
        // quotes included. Dollar signs stand within strings only, so that each can be escaped.
        text.replace('$', "\\u0024")
    }

    /// For whom a preflight asks, and nothing else of it: as much as is read of the task of a Job.
    #[must_use]
    pub fn asked(self) -> Self {
        let of = |q: HostQuery| HostQuery { member: q.member, host: q.host, ..HostQuery::default() };
        match self.step {
            Step::Preflight(p) => {
                let hosts = p.hosts.into_iter().map(of).collect();
                let step = Step::Preflight(Preflight { hosts, together: vec![] });
                let (run, repository, settings) = (Run::default(), RepositoryAccess::default(), Settings::default());
                Self { version: self.version, run, repository, settings, step }
            }
            _ => self,
        }
    }

    /// Reads a task of this [`VERSION`] or the one before.
    ///
    /// # Errors
    /// The text is no task, or of another version.
    pub fn decode(text: &str) -> Result<Self, String> {
        let task: Self = serde_json::from_str(text).map_err(|e| format!("the task is not readable: {e}"))?;
        if is_read(task.version) {
            Ok(task)
        } else {
            Err(format!(
                "the task is of version {}, this agent speaks versions {OLDEST_VERSION} to {VERSION}: operator and Job images differ",
                task.version
            ))
        }
    }
}

/// Whether documents of this version are understood.
fn is_read(version: u32) -> bool {
    (OLDEST_VERSION..=VERSION).contains(&version)
}

#[cfg(test)]
mod tests;
