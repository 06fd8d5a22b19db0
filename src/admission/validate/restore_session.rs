//! RestoreSession: a restore of one target, once.
//!
//! A batch of one part at `spec`. The spec is immutable except for `cancel`:
//! another restore needs another object.

use crate::admission::error::{Errors, FieldError};
use crate::admission::validate::common;
use crate::admission::validate::immutable::immutable;
use crate::admission::validate::parts;
use crate::admission::validate::parts::Part;
use crate::api::RestoreSession;

/// All errors of the object; with `old`, also changes of immutable fields.
pub fn validate(new: &RestoreSession, old: Option<&RestoreSession>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = &new.spec;
    immutable(&mut errors, "RestoreSession", spec, old.map(|o| &o.spec));
    common::cancel(&mut errors, spec.cancel, old.and_then(|o| o.spec.cancel), "restore");
    common::selection(&mut errors, spec.as_of.as_deref(), spec.backup_session.as_deref());
    common::driver_and_repository(&mut errors, spec.driver, spec.repository.as_ref());
    common::positive_duration(&mut errors, "spec.timeOut", spec.time_out.as_deref());
    let part = Part {
        at: "spec",
        namespace: new.metadata.namespace.as_deref(),
        driver: spec.driver,
        task: spec.task.as_ref(),
        runtime: spec.runtime_settings.as_ref(),
        temp_dir: spec.temp_dir.as_ref(),
        interim: spec.interim_volume_template.as_deref(),
        has_hooks: common::is_set(spec.hooks.as_deref()),
    };
    parts::restore(&mut errors, &part, spec.target.as_ref(), &spec.rules);
    errors.into_vec()
}
