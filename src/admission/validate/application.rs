//! Targets that are applications: the task, and fields of files that do not apply.
//!
//! The AppBinding is another object, which the controller reads: whether it exists and names an address is not known
//! here.

use crate::admission::error::Errors;
use crate::admission::validate::common::Direction;
use crate::api::common::{AfterFailure, Extraneous, Ownership, Quiesce, Rule, TaskRef};
use crate::api::target::{BackupTarget, RestoreTarget};
use crate::plan::systems::application::found::Way;
use crate::plan::systems::application::task::{BUILT_IN, addon, parameters};

/// The task of an application. Without a name, the AppBinding names it.
pub fn task(errors: &mut Errors, at: &str, task: &TaskRef, direction: Direction) {
    let Some(name) = task.name.as_deref().filter(|n| !n.is_empty()) else { return };
    let Some(addon) = addon(name) else {
        errors.not_supported(format!("{at}.name"), format!("task {name:?} is not built in; built in are {BUILT_IN}"));
        return;
    };
    let way = match direction {
        Direction::Backup => Way::Dump,
        Direction::Restore => Way::Load,
    };
    if let Err(wrong) = parameters(addon, way, &task.params) {
        for (i, text) in wrong {
            errors.invalid(format!("{at}.params[{i}].value"), text);
        }
    }
}

/// Fields of a backup that are about files.
pub fn backup(errors: &mut Errors, at: &str, target: &BackupTarget) {
    refuse(errors, at, "paths", !target.paths.is_empty());
    refuse(errors, at, "exclude", !target.exclude.is_empty());
}

/// Fields of a restore that are about files and workloads.
pub fn restore(errors: &mut Errors, at: &str, target: &RestoreTarget) {
    refuse(errors, at, "quiesce", target.quiesce == Some(Quiesce::Auto));
    refuse(errors, at, "afterFailure", target.after_failure == Some(AfterFailure::StayDown));
    refuse(errors, at, "ownership", target.ownership == Some(Ownership::Ignore));
    refuse(errors, at, "extraneous", target.extraneous == Some(Extraneous::Delete));
    for (i, rule) in target.rules.iter().enumerate() {
        let Rule { paths, include, exclude, .. } = rule;
        for (field, list) in [("paths", paths), ("include", include), ("exclude", exclude)] {
            let at = format!("{at}.rules[{i}]");
            if !list.is_empty() {
                let text = "is about files, and the target is an AppBinding; write snapshots: [latest], or an id";
                errors.invalid(format!("{at}.{field}"), text);
            }
        }
    }
}

fn refuse(errors: &mut Errors, at: &str, field: &str, is_set: bool) {
    if is_set {
        errors.invalid(format!("{at}.{field}"), "does not apply to an AppBinding; remove it");
    }
}
