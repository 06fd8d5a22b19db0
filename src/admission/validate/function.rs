//! Function: template of a container.
//!
//! Declared as in Stash, so that its manifests apply; not implemented, so every object gets an error.

use crate::admission::error::{Errors, FieldError};
use crate::api::Function;

/// Rejects every object of the kind.
pub fn validate(_: &Function, _: Option<&Function>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    errors.not_supported("spec", "Functions are not run yet: only the built-in tasks pvc-backup and pvc-restore are; the object may stay, nothing uses it");
    errors.into_vec()
}
