//! BackupConfiguration: backups of one target, by schedule or by hand.
//!
//! A batch of one part at `spec`, with a schedule and a retention.

use super::parts::{self, Part};
use super::{Errors, FieldError, common};
use crate::api::BackupConfiguration;

/// Everything wrong with the object. It may change at any time: a session that runs keeps what it started with.
pub fn validate(new: &BackupConfiguration, _: Option<&BackupConfiguration>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = &new.spec;
    common::driver_and_repository(&mut errors, spec.driver, spec.repository.as_ref());
    common::schedule(&mut errors, spec.schedule.as_deref());
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
