//! What the operator asks of a Job: one document, with the work of one system.

use serde::{Deserialize, Serialize};

use super::restic::{HostQuery, Preflight, RepositoryAccess, Settings, Step};

/// Version of the two documents.
pub const VERSION: u32 = 2;
/// Oldest version that is read: the one before. Jobs that an operator made before it was upgraded answer in it.
/// Since 2 an answer may be packed, and a preflight may leave hosts out.
pub const OLDEST_VERSION: u32 = 1;
/// Environment variable that carries the [`Task`].
pub const TASK_ENV: &str = "LIFEBOAT_TASK";
/// Bytes that [`TASK_ENV`] can hold: the kernel takes no longer string (32 pages of 4 KiB, execve(2)), and the name is in it.
pub const TASK_LIMIT: usize = (128 << 10) - 256;
/// Writable scratch space of the agent: cache, derived credentials files.
pub const WORK_DIR: &str = "/lifeboat/work";
/// Where the kubelet reads the termination message.
pub const OUTCOME_FILE: &str = "/dev/termination-log";
/// Bytes of a termination message the kubelet keeps
/// (Kubernetes, "Customizing the termination message").
pub const OUTCOME_LIMIT: usize = 4096;
/// Bytes of an outcome that are kept free for what is around its answer.
pub const OUTCOME_SLACK: usize = 400;
/// Port on which a running agent answers `GET /progress`.
pub const PROGRESS_PORT: u16 = 9180;

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
pub(super) fn is_read(version: u32) -> bool {
    (OLDEST_VERSION..=VERSION).contains(&version)
}
