//! BackupConfiguration: backups of one target, by schedule or by hand.
//!
//! A batch of one part at `spec`, with a schedule and a retention. Once it was
//! Ready its target stays: the snapshots of another one, under the same name,
//! would be taken for those of the first. What the target was stands in status,
//! where both the webhook and the controller find it.

use super::parts::{self, Part};
use super::{Errors, FieldError, common};
use crate::api::target::BackupTarget;
use crate::api::{BackupConfiguration, to_json};
use crate::names::hash_of;

/// Hash of a target, in its one form.
pub fn hash_of_target(target: Option<&BackupTarget>) -> String {
    hash_of(&[&to_json(&target).to_string()])
}

/// Everything wrong with the object, and what may not change any more.
pub fn validate(new: &BackupConfiguration, _: Option<&BackupConfiguration>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = &new.spec;
    let was = new.status.as_ref().and_then(|s| s.target_hash.as_ref());
    if was.is_some_and(|was| *was != hash_of_target(spec.target.as_ref())) {
        errors.invalid(
            "spec.target",
            "cannot be changed any more, because backups of it can have been taken; create another BackupConfiguration",
        );
    }
    common::driver_and_repository(&mut errors, spec.driver, spec.repository.as_ref());
    common::schedule(&mut errors, spec.schedule.as_deref(), spec.time_zone.as_deref());
    common::retention(&mut errors, &spec.retention_policy);
    common::history_limit(&mut errors, spec.backup_history_limit);
    common::positive_duration(&mut errors, "spec.timeOut", spec.time_out.as_deref());
    common::retry(&mut errors, spec.retry_config.as_ref());
    let part = Part {
        at: "spec",
        namespace: new.metadata.namespace.as_deref(),
        driver: spec.driver,
        task: spec.task.as_ref(),
        runtime: spec.runtime_settings.as_ref(),
        temp_dir: spec.temp_dir.as_ref(),
        interim: spec.interim_volume_template.as_ref(),
        has_hooks: common::is_set(spec.hooks.as_ref()),
    };
    parts::backup(&mut errors, &part, spec.target.as_ref());
    errors.into_vec()
}
