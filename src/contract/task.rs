//! What the operator asks of a Job: one document, with the work of one system.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::constants::{OLDEST_VERSION, VERSION, is_read};
#[cfg(test)]
use crate::contract::mock;
use crate::contract::{application, restic, upgrade};

/// One Job's work.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Task {
    /// [`VERSION`] of the operator that wrote it.
    pub version: u32,
    /// The run that this Job is a step of; its id goes through every log line.
    pub run: Run,
    /// What step of the run it is, in one word: for names, labels and logs.
    pub verb: String,
    /// The parts of the run that it is for, in the order in which [`Task::work`] has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Attempt at the step, from 1: an earlier attempt may have done the work already.
    #[serde(default = "first")]
    pub attempt: i32,
    /// An earlier attempt died in a pod with the hostname of this one, as its kubelet saw: its locks are held by no
    /// process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub after_death: bool,
    /// How its processes are scheduled.
    #[serde(default, skip_serializing_if = "Process::is_default")]
    pub process: Process,
    /// What to do.
    pub work: Work,
}

fn first() -> i32 {
    1
}

/// What a Job does, by the system that does it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// restic.
    Restic(Box<restic::Work>),
    /// An application, whose data is in a repository of restic.
    Application(Box<application::Work>),
    /// A system that exists in tests only.
    #[cfg(test)]
    Mock(mock::Work),
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

/// A part of a run that succeeds or fails by itself: for restic, a host.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Part {
    /// Index of the member in the run.
    pub member: usize,
    /// Its name, unique in the run.
    pub name: String,
}

/// How processes are scheduled.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Process {
    /// Priority, -20 to 19, as nice(1) takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// I/O class 0 to 3, as ionice(1) takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ionice_class: Option<i32>,
    /// I/O priority within the class, 0 to 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ionice_class_data: Option<i32>,
}

impl Process {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The parts that a Job was asked for, without the rest of its task.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Asked {
    version: u32,
    /// As in [`Task`].
    #[serde(default)]
    pub parts: Vec<Part>,
}

impl Work {
    /// The work of restic; `None` for the work of another system.
    pub fn restic(&self) -> Option<&restic::Work> {
        match self {
            Self::Restic(work) => Some(work),
            Self::Application(_) => None,
            #[cfg(test)]
            Self::Mock(_) => None,
        }
    }
}

impl Task {
    /// The first attempt at a step.
    pub fn new(run: Run, verb: &str, parts: Vec<Part>, work: Work) -> Self {
        let (verb, process) = (verb.to_owned(), Process::default());
        Self { version: VERSION, run, verb, parts, attempt: 1, after_death: false, process, work }
    }

    /// JSON for [`TASK_ENV`](super::TASK_ENV).
    pub fn encode(&self) -> String {
        encode(self)
    }

    /// Reads a task of this [`VERSION`] or the one before.
    ///
    /// # Errors
    /// The text is not a task, or is of another version.
    pub fn decode(text: &str) -> Result<Self, String> {
        decode(text)
    }
}

impl Asked {
    /// As [`Task::encode`].
    pub fn encode(&self) -> String {
        encode(self)
    }

    /// Reads it from a task, or from what was kept of one.
    ///
    /// # Errors
    /// As in [`Task::decode`].
    pub fn decode(text: &str) -> Result<Self, String> {
        decode(text)
    }
}

fn encode(document: &impl Serialize) -> String {
    // Plain data with string keys: serialising it cannot fail.
    let text = serde_json::to_string(document).unwrap_or_default();
    // The kubelet expands $(NAME) in values of the environment: a user's pattern would include the value of a user's
    // variable, with its quotes. Dollar signs occur only within strings, so that each can be escaped.
    text.replace('$', "\\u0024")
}

fn decode<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    let unreadable = |e: serde_json::Error| format!("the task is not readable: {e}");
    let version = upgrade::version(text).map_err(unreadable)?;
    if !is_read(version) {
        return Err(format!(
            "the task has version {version}, but this agent supports {OLDEST_VERSION} to {VERSION}: operator and Jobs use different images"
        ));
    }
    if version == VERSION {
        return serde_json::from_str(text).map_err(unreadable);
    }
    let old: Value = serde_json::from_str(text).map_err(unreadable)?;
    serde_json::from_value(upgrade::task(old)).map_err(unreadable)
}
