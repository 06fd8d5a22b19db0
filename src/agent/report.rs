//! The agent's log and its outcome.
//!
//! Each log line is one JSON object with run, session, step and host, so that the lines of one run can be found in
//! the logs of operator and Jobs. The outcome is written once, at the end; if it cannot be written, the step fails.

use std::path::Path;
use std::process::ExitCode;

use tracing::Span;

use crate::contract::{Failure, Outcome, Task};

/// Fields of every log line of a step.
pub fn span(task: &Task) -> Span {
    let host = match &task.parts[..] {
        [part] => part.name.as_str(),
        _ => "",
    };
    let run = &task.run;
    tracing::info_span!(
        "step",
        run = %run.id,
        kind = %run.kind,
        namespace = %run.namespace,
        name = %run.name,
        step = task.verb,
        host,
    )
}

/// Writes the outcome and turns it into the exit code.
pub fn leave(outcome: &Outcome, file: &Path) -> ExitCode {
    if let Some(Failure { class, reason, message, exit_code }) = &outcome.failure {
        tracing::error!(run = %outcome.run, ?class, %reason, exit_code, "step failed: {message}");
    } else {
        tracing::info!(run = %outcome.run, seconds = outcome.seconds, "step done");
    }
    if let Err(error) = std::fs::write(file, outcome.encode()) {
        tracing::error!(%error, file = %file.display(), "the outcome could not be written");
        return ExitCode::FAILURE;
    }
    if outcome.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
