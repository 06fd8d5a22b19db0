//! BackupBatch: backups of several targets into one Repository.
//!
//! Each member is a part; together they have an order and no host in common,
//! because one Repository holds the snapshots of all of them.

use crate::admission::error::{Errors, FieldError};
use crate::admission::validate::members::Member;
use crate::admission::validate::parts::Part;
use crate::admission::validate::{common, identity, members, parts, runtime};
use crate::api::BackupBatch;
use crate::plan::run::hosts::{HostSet, TargetKind};

/// All errors of the object, and changes of immutable fields. A running session with other members then fails.
pub fn validate(new: &BackupBatch, _: Option<&BackupBatch>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = &new.spec;
    if let Some(was) = new.status.as_ref().and_then(|s| s.identity.as_ref()) {
        let now = identity::of(spec.repository.as_ref(), spec.members.iter().map(|m| m.target.as_ref()));
        identity::of_batch(&mut errors, was, &now, new.metadata.namespace.as_deref().unwrap_or_default());
    }
    common::driver_and_repository(&mut errors, spec.driver, spec.repository.as_ref());
    common::schedule(&mut errors, spec.schedule.as_deref(), spec.time_zone.as_deref());
    common::retention(&mut errors, &spec.retention_policy);
    common::history_limit(&mut errors, spec.backup_history_limit);
    common::positive_duration(&mut errors, "spec.timeOut", spec.time_out.as_deref());
    common::retry(&mut errors, spec.retry_config.as_ref());
    common::hooks(&mut errors, "spec.hooks", common::is_set(spec.hooks.as_ref()));
    runtime::settings(&mut errors, "spec.runtimeSettings", spec.runtime_settings.as_ref());
    members::order(&mut errors, spec.execution_order, spec.maintain_order, spec.on_failure);
    for (i, member) in spec.members.iter().enumerate() {
        common::positive_duration(&mut errors, &format!("spec.members[{i}].timeOut"), member.time_out.as_deref());
        let part = Part {
            at: &format!("spec.members[{i}]"),
            namespace: new.metadata.namespace.as_deref(),
            driver: spec.driver,
            task: member.task.as_ref(),
            runtime: member.runtime_settings.as_ref(),
            temp_dir: member.temp_dir.as_ref(),
            interim: member.interim_volume_template.as_ref(),
            has_hooks: common::is_set(member.hooks.as_ref()),
        };
        parts::backup(&mut errors, &part, member.target.as_ref());
    }
    let all: Vec<_> = spec
        .members
        .iter()
        .map(|m| m.target.as_ref())
        .map(|t| {
            t.map(|t| {
                let hosts = HostSet::of(TargetKind::of(t.ref_.as_ref()), t.alias.as_deref());
                Member { hosts, target: t.ref_.as_ref() }
            })
        })
        .collect();
    members::validate(&mut errors, &all);
    errors.into_vec()
}
