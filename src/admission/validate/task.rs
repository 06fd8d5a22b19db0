//! Task: Functions in a row.
//!
//! Declared as Stash declares it, so that its manifests apply; using one is not
//! built yet, and the object is told so as a whole.

use crate::admission::error::{Errors, FieldError};
use crate::api::Task;

/// Refuses the kind as a whole.
pub fn validate(_: &Task, _: Option<&Task>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    errors.not_supported("spec", "Tasks are not run yet: only the built-in tasks pvc-backup and pvc-restore are; the object may stay, nothing uses it");
    errors.into_vec()
}
