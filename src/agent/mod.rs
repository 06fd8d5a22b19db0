//! Runs one step of a run in a Job: reads a task, writes an outcome.
//!
//! The agent reads its [`Task`] from the environment, calls a driver, and writes an [`Outcome`] to the termination
//! message, which the kubelet stores. It has Kubernetes credentials only for [`cluster`], makes no decisions about
//! the run, and exits with 0 only if the outcome is a success.

mod application;
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

pub use crate::agent::application::measure;
pub use crate::agent::options::Options;
use crate::contract::{Class, Failure, Outcome, Progress, TASK_ENV, Task, VERSION, Work};
use crate::drivers::control::Control;
use crate::drivers::done::Done;
use crate::names::reason;

/// Reads the task from the environment, runs it, and writes the outcome. Configures the log of the process.
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
        Err(text) => (String::new(), failed(format!("The task cannot be run: {text}."))),
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

/// Runs the step, and meanwhile serves progress and handles signals.
async fn act(task: Task, options: &Options) -> Done {
    let (tell, progress) = watch::channel(Progress::default());
    let stop = terminate::stop_on_signal();
    let server = tokio::spawn(progress::serve(options.progress_port, progress.clone()).in_current_span());
    let lines = tokio::spawn(progress::log(progress.clone()).in_current_span());
    tracing::info!("step started");
    // In a separate task, so that an outcome is written even if a driver panics.
    let work = work(task, options.clone(), Control { progress: tell, stop });
    let done = tokio::spawn(work.in_current_span()).await;
    server.abort();
    let _ = lines.await;
    done.unwrap_or_else(|e| failed(format!("The agent failed unexpectedly ({e}). This is a defect of Lifeboat.")))
}

/// Calls the driver of the task's system.
pub(crate) async fn work(task: Task, options: Options, control: Control) -> Done {
    match &task.work {
        Work::Restic(work) => restic::act(&task, work, &options, control).await,
        Work::Application(work) => application::act(&task, work, &options, control).await,
        #[cfg(test)]
        Work::Mock(work) => crate::drivers::mock::act(&task, work, &options.secret_dir, control).await,
    }
}

fn failed(message: String) -> Done {
    Done::failed(Failure::new(Class::Fatal, reason::AGENT_FAILED, message))
}
