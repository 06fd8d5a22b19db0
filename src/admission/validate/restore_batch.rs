//! RestoreBatch: a restore of several targets, once.
//!
//! Each member is a part; together they have an order and no host in common. Its
//! spec cannot be changed: another restore is another object.

use super::members::{self, Member};
use super::parts::{self, Part};
use super::{Errors, FieldError, common, immutable};
use crate::api::RestoreBatch;

/// Everything wrong with the object; with `old`, also what may not change.
pub fn validate(new: &RestoreBatch, old: Option<&RestoreBatch>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = &new.spec;
    immutable(&mut errors, "RestoreBatch", spec, old.map(|o| &o.spec));
    common::driver_and_repository(&mut errors, spec.driver, spec.repository.as_ref());
    common::positive_duration(&mut errors, "spec.timeOut", spec.time_out.as_deref());
    common::hooks(&mut errors, "spec.hooks", common::is_set(spec.hooks.as_ref()));
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
        parts::restore(&mut errors, &part, member.target.as_ref(), &member.rules);
    }
    let all: Vec<_> = spec
        .members
        .iter()
        .map(|m| m.target.as_ref().map(|t| Member { alias: t.alias.as_deref(), target: t.ref_.as_ref() }))
        .collect();
    members::validate(&mut errors, &all);
    errors.into_vec()
}
