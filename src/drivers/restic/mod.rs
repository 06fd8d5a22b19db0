//! restic, run as a child process.
//!
//! One function per step, see [`act`]. Each converts the output of restic to counts and a classified failure; no
//! success is derived from an exit code alone. This module never removes the lock of a running command, never passes
//! a secret in argv, and never starts a command without a time limit.

pub(crate) mod args;
mod backup;
mod blocking;
mod bucket;
mod checks;
mod count;
mod error;
mod extraneous;
mod flush;
mod forget;
mod keep;
mod links;
mod maintain;
mod obstacles;
pub(crate) mod output;
mod parents;
mod paths;
mod pattern;
mod place;
mod planned;
mod preflight;
mod recount;
mod refusal;
pub(crate) mod repository;
mod restore;
mod run;
mod secrets;
pub(crate) mod select;
pub(crate) mod snapshot;
pub mod tuning;
mod wipe;

pub use preflight::list;
pub use repository::{Places, Repository};

use crate::contract::restic::Step;
use crate::contract::{Class, Failure, Task};
use crate::drivers::done::Done;
use crate::names::reason;

/// Runs a step, except for [`list`], whose result the caller needs.
pub async fn act(repository: &Repository, step: &Step, task: &Task) -> Done {
    match step {
        Step::Preflight(step) => preflight::preflight(repository, step, &task.parts).await,
        Step::Restore(step) => restore::restore(repository, step).await,
        Step::Prepare(_) => preflight::prepare(repository).await,
        Step::Backup(step) => backup::backup(repository, step, &task.run).await,
        Step::Maintain(step) => maintain::maintain(repository, step).await,
        Step::List(_) => Done::failed(Failure::new(Class::Fatal, reason::AGENT_FAILED, "Nobody keeps the Snapshots.")),
        Step::Probe(_) => preflight::probe(repository).await,
        Step::Wipe(_) => wipe::wipe(repository).await,
    }
}
