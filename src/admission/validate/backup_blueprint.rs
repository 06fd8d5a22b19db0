//! BackupBlueprint: backups by annotation.
//!
//! Declared as Stash declares it, so that its manifests apply; using one is not
//! built yet, and the object is told so as a whole.

use crate::admission::error::{Errors, FieldError};
use crate::api::BackupBlueprint;

/// Refuses the kind as a whole.
pub fn validate(_: &BackupBlueprint, _: Option<&BackupBlueprint>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    errors.not_supported(
        "spec",
        "BackupBlueprints are not built yet: write a Repository and a BackupConfiguration for each target",
    );
    errors.into_vec()
}
