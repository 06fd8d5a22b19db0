//! restic: what a Job is asked to do with a repository.

use crate::api::runtime::RuntimeSettings;
use crate::contract::restic::{Settings, Step, Work};
use crate::contract::{Part, Process, Run, Task, Work as OfSystem};
use crate::plan::access::Access;

/// A Job's work on a repository. Its attempt is told by whoever makes the Job.
pub fn task(run: Run, access: &Access, process: Process, settings: Settings, step: Step, parts: Vec<Part>) -> Task {
    let verb = step.verb();
    let work = Work { repository: access.told.clone(), settings, step };
    Task { process, ..Task::new(run, verb, parts, OfSystem::Restic(Box::new(work))) }
}

/// Whether restic keeps a cache, as `tempDir` says.
pub fn settings(disable_caching: Option<bool>, interim: bool) -> Settings {
    Settings { no_cache: disable_caching.unwrap_or(false), interim }
}

/// How the processes of a Job are scheduled, as its settings say.
pub fn process(runtime: Option<&RuntimeSettings>) -> Process {
    let container = runtime.and_then(|r| r.container.as_ref());
    let ionice = container.and_then(|c| c.ionice);
    Process {
        nice: container.and_then(|c| c.nice?.adjustment),
        ionice_class: ionice.and_then(|i| i.class),
        ionice_class_data: ionice.and_then(|i| i.class_data),
    }
}
