//! BackupSession: one run of a backup.
//!
//! It only names what to run. The spec is immutable except for `cancel`:
//! another backup needs another object.

use crate::admission::error::{Errors, FieldError};
use crate::admission::validate::common;
use crate::admission::validate::immutable::immutable;
use crate::api::BackupSession;
use crate::names::GROUP;

/// All errors of the object; with `old`, also changes of immutable fields.
pub fn validate(new: &BackupSession, old: Option<&BackupSession>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = &new.spec;
    immutable(&mut errors, "BackupSession", spec, old.map(|o| &o.spec));
    common::cancel(&mut errors, spec.cancel, old.and_then(|o| o.spec.cancel), "back up");
    match &spec.invoker {
        None => errors.invalid("spec.invoker", "is missing; name the BackupConfiguration or BackupBatch to run"),
        Some(invoker) => {
            if !matches!(invoker.kind.as_str(), "BackupConfiguration" | "BackupBatch") {
                errors.invalid(
                    "spec.invoker.kind",
                    format!("{:?} cannot be run; write BackupConfiguration or BackupBatch", invoker.kind),
                );
            }
            if let Some(group) = invoker.api_group.as_deref().filter(|g| !matches!(*g, "" | GROUP)) {
                errors.invalid("spec.invoker.apiGroup", format!("is {group:?}; must be {GROUP}, or absent"));
            }
            common::name(&mut errors, "spec.invoker.name", &invoker.name, "the invoker");
        }
    }
    match spec.retry_left {
        Some(n) if n < 0 => {
            errors.invalid("spec.retryLeft", format!("is {n}; must be 0 or more, or absent"));
        }
        _ => {}
    }
    errors.into_vec()
}
