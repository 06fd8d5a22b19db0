//! restic: what a Job is asked to do with a repository.

pub mod act;
pub mod args;
pub mod backend;
pub mod backup;
pub mod look;
pub mod repository;
pub mod snapshots;
pub mod system;

use k8s_openapi::api::core::v1::{Volume, VolumeMount};

use crate::api::common::EmptyDirSettings;
use crate::contract::Work as OfSystem;
pub use crate::contract::restic::pattern;
use crate::contract::restic::{Backup, LOCAL_REPOSITORY_DIR, Preflight, Restore, Settings, Step, Work};
use crate::names::volume;
use crate::plan::systems::restic::backend::Access;
use crate::plan::work::job_spec::frame::{NeededSecret, Needs};
use crate::{api, contract};

/// A Job's work on a repository.
pub fn work(access: &Access, settings: Settings, step: Step) -> OfSystem {
    OfSystem::Restic(Box::new(Work { repository: access.told.clone(), settings, step }))
}

/// What the pod of a Job with this work needs.
pub fn needs(access: &Access, work: &OfSystem) -> Needs {
    work.restic().map(|work| needs_of(access, &work.step)).unwrap_or_default()
}

fn needs_of(access: &Access, step: &Step) -> Needs {
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
        image: None,
    }
}

/// The same for a look at hosts.
pub fn needs_of_look(access: &Access) -> Needs {
    needs_of(access, &Step::Preflight(Preflight::default()))
}

/// The same for the restore of a host, whatever it restores.
pub fn needs_of_restore(access: &Access) -> Needs {
    needs_of(access, &Step::Restore(Restore::default()))
}

/// The same for the backup of a host, whatever it backs up.
pub fn needs_of_backup(access: &Access) -> Needs {
    needs_of(access, &Step::Backup(Backup::default()))
}

/// How restic behaves, as `tempDir` says. `interim`: there is a claim for its cache.
pub fn settings(temp_dir: Option<&EmptyDirSettings>, interim: bool) -> Settings {
    Settings { no_cache: temp_dir.and_then(|t| t.disable_caching).unwrap_or(false), interim }
}

/// Counts in the form that status uses.
pub fn counts(c: contract::restic::Counts) -> api::restore_session::Counts {
    api::restore_session::Counts {
        files: i64::try_from(c.files).unwrap_or(i64::MAX),
        bytes: i64::try_from(c.bytes).unwrap_or(i64::MAX),
    }
}
