//! Steps of applications: the Secret of the Repository may be in another namespace.

use std::path::Path;
use std::process::ExitCode;

use crate::agent::cluster;
use crate::agent::options::Options;
use crate::contract::Task;
use crate::contract::application::Work;
use crate::drivers::application;
use crate::drivers::application::meter;
use crate::drivers::control::Control;
use crate::drivers::done::Done;
use crate::drivers::restic::Repository;

/// Runs the step.
pub async fn act(task: &Task, work: &Work, options: &Options, control: Control) -> Done {
    let places = options.places();
    let open = async {
        if let Some(secret) = &work.repository.secret {
            cluster::fetch(options.kubeconfig.as_deref(), secret, &places.secret_dir).await?;
        }
        Repository::new(&work.repository, &work.settings, task, &places, control)
    };
    match open.await {
        Ok(repository) => {
            let myself = std::env::current_exe().unwrap_or_else(|_| "lifeboat".into());
            let done = application::act(&repository, work, task, &options.folders(), myself).await;
            Done { warnings: repository.warnings(), ..done }
        }
        Err(failure) => Done::untouched(failure),
    }
}

/// Runs the clients of a dump for restic, see [`meter`].
pub fn measure(order: &Path) -> ExitCode {
    meter::run(order)
}
