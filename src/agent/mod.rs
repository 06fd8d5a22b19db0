//! One step of a run, inside a Job: task in, outcome out.
//!
//! The agent reads its [`Task`] from the environment, lets a driver do the step and
//! leaves an [`Outcome`] where the kubelet keeps it. It has no Kubernetes credentials
//! but for what [`cluster`] needs, decides nothing about the run, and ends with exit
//! code 0 only when the outcome says that all was done.

mod cluster;
mod options;
mod progress;
mod report;
mod restic;
mod terminate;

use std::process::ExitCode;
use std::time::Instant;

use tokio::sync::watch;
use tracing::Instrument;

pub use crate::agent::options::Options;
use crate::contract::{Class, Failure, Outcome, Progress, TASK_ENV, Task, VERSION, Work};
use crate::drivers::control::Control;
use crate::drivers::done::Done;
use crate::names::reason;

/// Reads the task from the environment, does it, and leaves the outcome. Sets the log of the process up.
pub async fn run(options: Options) -> ExitCode {
    crate::telemetry::init();
    let started = Instant::now();
    let task = match std::env::var(TASK_ENV) {
        Ok(text) => Task::decode(&text),
        Err(_) => Err(format!("the environment has no {TASK_ENV}: the agent only runs in Jobs that Lifeboat makes")),
    };
    let (run, done) = match task {
        Ok(task) => {
            let span = report::span(&task);
            (task.run.id.clone(), act(task, &options).instrument(span).await)
        }
        Err(text) => (String::new(), failed(format!("The task cannot be done: {text}."))),
    };
    let outcome = Outcome {
        version: VERSION,
        run,
        seconds: (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        failure: done.failure,
        answer: done.answer,
        warnings: done.warnings,
        untouched: done.untouched,
    };
    report::leave(&outcome, &options.outcome_file)
}

/// Does the step, with progress to be read and signals obeyed meanwhile.
async fn act(task: Task, options: &Options) -> Done {
    let (tell, progress) = watch::channel(Progress::default());
    let stop = terminate::stop_on_signal();
    let server = tokio::spawn(progress::serve(options.progress_port, progress.clone()).in_current_span());
    let lines = tokio::spawn(progress::log(progress.clone()).in_current_span());
    tracing::info!("step started");
    // A task of its own, so that a bug in a driver still leaves an outcome.
    let work = work(task, options.clone(), Control { progress: tell, stop });
    let done = tokio::spawn(work.in_current_span()).await;
    server.abort();
    let _ = lines.await;
    done.unwrap_or_else(|e| failed(format!("The agent broke off ({e}). This is a fault of Lifeboat.")))
}

/// Lets the system do it that it is for.
async fn work(task: Task, options: Options, control: Control) -> Done {
    match &task.work {
        Work::Restic(work) => restic::act(&task, work, &options, control).await,
    }
}

fn failed(message: String) -> Done {
    Done::failed(Failure::new(Class::Fatal, reason::AGENT_FAILED, message))
}
