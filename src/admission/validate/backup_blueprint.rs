//! BackupBlueprint: backups by annotation.
//!
//! Declared as in Stash, so that its manifests apply; not implemented, so every object gets an error.

use crate::admission::error::{Errors, FieldError};
use crate::api::BackupBlueprint;

/// Rejects every object of the kind.
pub fn validate(_: &BackupBlueprint, _: Option<&BackupBlueprint>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    errors.not_supported(
        "spec",
        "BackupBlueprint is not supported yet: create a Repository and a BackupConfiguration for each target",
    );
    errors.into_vec()
}
