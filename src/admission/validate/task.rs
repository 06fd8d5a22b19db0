//! Task: a sequence of Functions.
//!
//! Declared as in Stash, so that its manifests apply; not implemented, so every object gets an error.

use crate::admission::error::{Errors, FieldError};
use crate::api::Task;

/// Rejects every object of the kind.
pub fn validate(_: &Task, _: Option<&Task>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    errors.not_supported("spec", "Tasks are not run yet: only the built-in tasks pvc-backup and pvc-restore are; the object may stay, nothing uses it");
    errors.into_vec()
}
