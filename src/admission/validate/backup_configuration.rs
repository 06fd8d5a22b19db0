//! BackupConfiguration: backups of one target, by schedule or by hand.
//!
//! A batch of one part at `spec`, with a schedule and a retention. After it was Ready, its alias, target and
//! Repository are immutable ([`identity`]); all other fields may change.

use crate::admission::error::{Errors, FieldError};
use crate::admission::validate::parts;
use crate::admission::validate::parts::Part;
use crate::admission::validate::{common, identity};
use crate::api::target::BackupTarget;
use crate::api::{BackupConfiguration, to_json};
use crate::names::hash_of;

/// Hash of a target, in its one form, as earlier versions wrote it into status.
fn hash_of_target(target: Option<&BackupTarget>) -> String {
    hash_of(&[&to_json(&target).to_string()])
}

/// All errors of the object, and changes of immutable fields.
pub fn validate(new: &BackupConfiguration, _: Option<&BackupConfiguration>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = &new.spec;
    let (status, namespace) = (new.status.as_ref(), new.metadata.namespace.as_deref().unwrap_or_default());
    if let Some(was) = status.and_then(|s| s.identity.as_ref()) {
        let now = identity::of(spec.repository.as_ref(), [spec.target.as_ref()]);
        identity::of_one(&mut errors, was, &now, namespace);
    } else if status
        .and_then(|s| s.target_hash.as_ref())
        .is_some_and(|was| *was != hash_of_target(spec.target.as_ref()))
    {
        errors.invalid(
            "spec.target",
            "was changed under an older version of Lifeboat, and may be another target than the one whose snapshots there are. Delete the BackupConfiguration and create it again: its snapshots stay in the Repository",
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
