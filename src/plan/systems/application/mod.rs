//! Applications: databases that are dumped into, and loaded from, a repository of restic.
//!
//! A member whose target is an AppBinding belongs to this system. The names of its snapshots, their selection and their
//! pins are those of restic, so this system stands on that one.

pub mod args;
pub mod binding;
pub mod found;
pub mod system;
pub mod task;

use crate::api::backup_batch::BackupMember;
use crate::contract::application::{Addon, Dump, Step, Work};
use crate::contract::{Failure, Work as OfSystem, restic};
use crate::plan::setup::AddonImages;
use crate::plan::systems::application::found::{Found, Way};
use crate::plan::systems::restic::backend::Access;
use crate::plan::systems::restic::{needs_of_look, settings};
use crate::plan::work::job_spec::frame::Needs;

/// Checks whether Jobs for the application can be created.
///
/// # Errors
/// The AppBinding or the task is not valid, or names no application that is built in.
pub fn check(found: Found<'_>, way: Way) -> Result<(), Failure> {
    task::recipe(found, way).and_then(|_| binding::connection(found).map(drop))
}

/// The backup of an application, and what the pod of its Job needs.
///
/// # Errors
/// As in [`check`].
pub fn dump(
    found: Found<'_>,
    member: &BackupMember,
    access: &Access,
    images: &AddonImages,
    host: &str,
) -> Result<(OfSystem, Needs), Failure> {
    let settings = settings(member.temp_dir.as_ref(), member.interim_volume_template.is_some());
    let args = member.target.as_ref().map(|t| t.args.clone()).unwrap_or_default();
    let work = work(found, Way::Dump, access, settings, Step::Dump(Dump { host: host.to_owned(), args }))?;
    let needs = needs(found, Way::Dump, access, images)?;
    Ok((work, needs))
}

fn work(
    found: Found<'_>,
    way: Way,
    access: &Access,
    settings: restic::Settings,
    step: Step,
) -> Result<OfSystem, Failure> {
    let recipe = task::recipe(found, way)?;
    let mut connection = binding::connection(found)?;
    connection.wait = recipe.wait;
    Ok(OfSystem::Application(Box::new(Work {
        repository: access.told.clone(),
        settings,
        addon: recipe.addon,
        connection,
        selection: recipe.selection,
        step,
    })))
}

fn needs(found: Found<'_>, way: Way, access: &Access, images: &AddonImages) -> Result<Needs, Failure> {
    let mut needs = needs_of_look(access);
    needs.volumes.extend(binding::volumes(found.binding));
    let image = match task::recipe(found, way)?.addon {
        Addon::Postgres => &images.postgres,
        Addon::Mysql => &images.mariadb,
        Addon::Redis => &images.redis,
    };
    needs.image = Some(image.clone());
    Ok(needs)
}
