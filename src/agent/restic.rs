//! Steps of restic that use the API server: the Secret of another namespace, and Snapshots.

use crate::agent::cluster;
use crate::agent::options::Options;
use crate::contract::Task;
use crate::contract::restic::{Answer, List, Step, Work};
use crate::drivers::control::Control;
use crate::drivers::done::Done;
use crate::drivers::restic;
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
            let done = match &work.step {
                Step::List(step) => list(task, step, options, &repository).await,
                step => restic::act(&repository, step, task).await,
            };
            Done { warnings: repository.warnings(), ..done }
        }
        Err(failure) => Done::untouched(failure),
    }
}

/// Updates the Snapshots of a Repository to match the repository.
async fn list(task: &Task, step: &List, options: &Options, repository: &Repository) -> Done {
    let kept = async {
        let (listed, absent) = restic::list(repository).await?;
        let (written, removed) =
            cluster::snapshots::keep(options.kubeconfig.as_deref(), &task.run, step, &listed).await?;
        Ok(Answer::Listed { snapshots: listed.len() as u64, written, removed, absent })
    };
    kept.await.map_or_else(Done::failed, Done::ok)
}
