//! restic: what a Job is asked to do with a repository.

pub mod act;
pub mod args;
pub mod backup;
pub mod look;

use k8s_openapi::api::core::v1::{Volume, VolumeMount};

use crate::api::runtime::RuntimeSettings;
use crate::contract::restic::{Backup, LOCAL_REPOSITORY_DIR, Restore, Settings, Step, Work};
use crate::contract::{Part, Process, Run, Task, Work as OfSystem};
use crate::names::volume;
use crate::plan::repository::backend::Access;
use crate::plan::work::job_spec::frame::{NeededSecret, Needs};
use crate::{api, contract};

/// A Job's work on a repository. Its attempt is told by whoever makes the Job.
pub fn task(run: Run, access: &Access, process: Process, settings: Settings, step: Step, parts: Vec<Part>) -> Task {
    let verb = step.verb();
    let work = Work { repository: access.told.clone(), settings, step };
    Task { process, ..Task::new(run, verb, parts, OfSystem::Restic(Box::new(work))) }
}

/// What the pod of a Job needs that does this with the repository.
pub fn needs(access: &Access, step: &Step) -> Needs {
    let own = access.local.as_ref().map(|(own, folder)| {
        let name = volume::REPOSITORY.to_owned();
        let mount = VolumeMount {
            name: name.clone(),
            mount_path: LOCAL_REPOSITORY_DIR.to_owned(),
            read_only: Some(false),
            sub_path: folder.clone(),
            ..VolumeMount::default()
        };
        (Volume { name, ..own.clone() }, mount)
    });
    let secret =
        if access.told.secret.is_some() { NeededSecret::Read } else { NeededSecret::Mounted(access.secret.clone()) };
    Needs {
        files: matches!(step, Step::Restore(_) | Step::Backup(_)),
        own_files: own.is_some(),
        writes: matches!(step, Step::Restore(_)),
        secret: Some(secret),
        volumes: own.into_iter().collect(),
    }
}

/// The same for the restore of a host, whatever it restores.
pub fn needs_of_restore(access: &Access) -> Needs {
    needs(access, &Step::Restore(Restore::default()))
}

/// The same for the backup of a host, whatever it backs up.
pub fn needs_of_backup(access: &Access) -> Needs {
    needs(access, &Step::Backup(Backup::default()))
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

/// Counts as status has them.
pub fn counts(c: contract::restic::Counts) -> api::restore_session::Counts {
    api::restore_session::Counts {
        files: i64::try_from(c.files).unwrap_or(i64::MAX),
        bytes: i64::try_from(c.bytes).unwrap_or(i64::MAX),
    }
}
