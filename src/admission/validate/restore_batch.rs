//! RestoreBatch: a restore of several targets, once.
//!
//! Each member is a part; together they have an order and no host in common. The
//! spec is immutable except for `cancel`: another restore needs another object.

use std::collections::HashSet;

use crate::admission::error::{Errors, FieldError};
use crate::admission::validate::immutable::immutable;
use crate::admission::validate::members::Member;
use crate::admission::validate::parts::Part;
use crate::admission::validate::{common, extraneous, members, overlap, parts};
use crate::api::RestoreBatch;
use crate::api::common::Driver;
use crate::api::restore_batch::{BackupBatchRef, RestoreMember};
use crate::plan::run::hosts::HostSet;
use crate::plan::run::limits::is_sequential;

/// All errors of the object; with `old`, also changes of immutable fields.
pub fn validate(new: &RestoreBatch, old: Option<&RestoreBatch>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = &new.spec;
    immutable(&mut errors, "RestoreBatch", spec, old.map(|o| &o.spec));
    common::cancel(&mut errors, spec.cancel, old.and_then(|o| o.spec.cancel), "restore");
    common::selection(&mut errors, spec.as_of.as_deref(), spec.backup_session.as_deref());
    let from_backup = spec.backup_batch.as_ref();
    if from_backup.is_none() || spec.repository.is_some() {
        common::driver(&mut errors, "spec.driver", spec.driver);
        let of = |m: &RestoreMember| m.driver.unwrap_or(spec.driver);
        // Without members, the driver of the batch itself is checked.
        let drivers: Vec<Driver> =
            spec.members.iter().map(of).chain(spec.members.is_empty().then_some(spec.driver)).collect();
        common::repository(&mut errors, &drivers, spec.repository.as_ref());
    }
    common::positive_duration(&mut errors, "spec.timeOut", spec.time_out.as_deref());
    common::hooks(&mut errors, "spec.hooks", common::is_set(spec.hooks.as_deref()));
    members::order(&mut errors, spec.execution_order, spec.maintain_order, spec.on_failure);
    if let Some(reference) = from_backup {
        source(&mut errors, reference, spec.members.len());
        return errors.into_vec();
    }
    for (i, member) in spec.members.iter().enumerate() {
        common::positive_duration(&mut errors, &format!("spec.members[{i}].timeOut"), member.time_out.as_deref());
        if let Some(driver) = member.driver {
            common::driver(&mut errors, &format!("spec.members[{i}].driver"), driver);
        }
        let part = Part {
            at: &format!("spec.members[{i}]"),
            namespace: new.metadata.namespace.as_deref(),
            driver: member.driver.unwrap_or(spec.driver),
            task: member.task.as_ref(),
            runtime: member.runtime_settings.as_ref(),
            temp_dir: member.temp_dir.as_ref(),
            interim: member.interim_volume_template.as_deref(),
            has_hooks: common::is_set(member.hooks.as_deref()),
        };
        parts::restore(&mut errors, &part, member.target.as_ref(), &member.rules);
    }
    let all: Vec<_> = spec
        .members
        .iter()
        .map(|m| m.target.as_ref().map(|t| Member { hosts: HostSet::of_restore(t), target: t.ref_.as_ref() }))
        .collect();
    members::validate(&mut errors, &all);
    let targets: Vec<_> = spec.members.iter().map(|m| m.target.as_ref()).collect();
    if is_sequential(spec.execution_order, spec.maintain_order) {
        extraneous::disjoint(&mut errors, &targets);
    } else {
        overlap::disjoint(&mut errors, &targets);
    }
    errors.into_vec()
}

/// The BackupBatch with the members. It is read when the run starts.
fn source(errors: &mut Errors, reference: &BackupBatchRef, members: usize) {
    common::name(errors, "spec.backupBatch.name", &reference.name, "a BackupBatch");
    if let Some(namespace) = &reference.namespace {
        common::name(errors, "spec.backupBatch.namespace", namespace, "a namespace");
    }
    if members > 0 {
        errors.invalid(
            "spec.members",
            format!("are written, but spec.backupBatch is {}, which names them; set one of them", reference.name),
        );
    }
    let mut named = HashSet::new();
    for (i, alias) in reference.members.iter().enumerate() {
        let at = format!("spec.backupBatch.members[{i}]");
        if alias.is_empty() {
            errors.invalid(at, "is empty; write the alias of a member");
        } else if !named.insert(alias) {
            errors.invalid(at, format!("{alias:?} is listed twice; a member is restored once"));
        }
    }
}
