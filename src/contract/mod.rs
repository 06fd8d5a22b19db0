//! What the operator asks of a Job, and what the Job answers.
//!
//! A [`Task`] travels as JSON in the environment variable [`TASK_ENV`] of the
//! Job's container; an [`Outcome`] comes back as the container's termination
//! message, which the kubelet keeps without any network or credentials. Both
//! are versioned together: operator and agent are one binary. Neither has a
//! secret in it. What is asked of one system stands in a folder of its own.

mod failure;
mod outcome;
pub mod restic;
mod task;
#[cfg(test)]
mod tests;

pub use self::failure::{Class, Failure};
pub use self::outcome::{Outcome, Progress};
pub use self::task::{
    OLDEST_VERSION, OUTCOME_FILE, OUTCOME_LIMIT, OUTCOME_SLACK, PROGRESS_PORT, Run, TASK_ENV, TASK_LIMIT, Task,
    VERSION, WORK_DIR,
};
