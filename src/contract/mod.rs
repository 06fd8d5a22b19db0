//! What the operator asks of a Job, and what the Job answers.
//!
//! A [`Task`] travels as JSON in the environment variable [`TASK_ENV`] of the Job's container; an [`Outcome`] comes
//! back as the container's termination message, which the kubelet keeps without any network or credentials. Both are
//! versioned together: operator and agent are one binary. Neither contains a secret. The work of each system has a
//! folder of its own.

pub mod application;
mod constants;
mod failure;
mod job;
#[cfg(test)]
pub mod mock;
mod outcome;
pub mod restic;
mod tallies;
mod task;
#[cfg(test)]
mod tests;
pub(crate) mod upgrade;

pub use crate::contract::constants::{
    APPLICATION_FILES, CREDENTIALS_DIR, INTERIM_DIR, MORE_DIR, OLDEST_VERSION, OUTCOME_FILE, OUTCOME_LIMIT,
    OUTCOME_SLACK, PROGRESS_PORT, RESTORE_ROOT, SECRET_DIR, TASK_ENV, TASK_LIMIT, TLS_DIR, VERSION, WORK_DIR,
};
pub use crate::contract::failure::{Class, Failure};
pub use crate::contract::job::{Runner, SecretPlace};
pub use crate::contract::outcome::{Answer, Did, Found, Outcome, Progress};
pub use crate::contract::tallies::{Tallies, Tally};
pub use crate::contract::task::{Asked, Part, Process, Run, Task, Work};
