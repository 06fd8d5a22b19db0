//! `extraneous: Delete`: settings that cannot be combined with it.
//!
//! A restore that deletes files must know exactly which files to keep. Therefore these cases are rejected: a backup
//! that may be empty, files that are not overwritten, pods that write during the restore, and another member that
//! restores into the same folder.

use std::collections::BTreeMap;

use crate::admission::error::Errors;
use crate::admission::validate::overlap::{COMPARED, walk};
use crate::api::common::Quiesce;
use crate::api::target::RestoreTarget;
use crate::plan::run::hosts::TargetKind;
use crate::plan::systems::restic::act;

/// Settings of the target at `at` that contradict it.
pub fn target(errors: &mut Errors, at: &str, target: &RestoreTarget, kind: TargetKind) {
    if !target.is_exact() {
        return;
    }
    let field = format!("{at}.extraneous");
    if target.allow_empty == Some(true) {
        let text =
            "is Delete, but allowEmpty is true, so that an empty backup would delete everything; remove one of them";
        errors.invalid(&field, text);
    }
    if act::keeps_files(target) {
        let text =
            "is Delete, but args have --overwrite never or if-newer, which leave files as they are; remove one of them";
        errors.invalid(&field, text);
    }
    if target.quiesce == Some(Quiesce::Never) {
        let text = "is Delete, but quiesce is Never, so that files which the running pods write would be deleted; remove one of them";
        errors.invalid(&field, text);
    } else if kind == TargetKind::DaemonSet {
        let text = "is Delete, but a DaemonSet is not scaled to zero, so that files which its pods write would be deleted; remove extraneous";
        errors.not_supported(&field, text);
    }
}

/// No member may delete files that another member restored to the same target, in any order. Parallel members never
/// restore the same path.
pub fn disjoint(errors: &mut Errors, targets: &[Option<&RestoreTarget>]) {
    let mut shared: BTreeMap<_, Vec<(usize, &RestoreTarget)>> = BTreeMap::new();
    for (i, target) in targets.iter().enumerate() {
        if let Some((target, reference)) = target.and_then(|t| Some((t, t.ref_.as_ref()?))) {
            shared.entry((&reference.kind, &reference.name)).or_default().push((i, target));
        }
    }
    let mut clashes = BTreeMap::new();
    let mut cost = 0;
    for members in shared.values() {
        for (n, one) in members.iter().enumerate() {
            for other in members[..n].iter().filter(|other| one.1.is_exact() || other.1.is_exact()) {
                let rules = one.1.rules.iter().chain(&other.1.rules);
                cost += rules.map(|rule| rule.paths.len() * rule.target_hosts.len().max(1)).sum::<usize>();
                if cost > COMPARED {
                    let text = format!(
                        "restore one target with extraneous: Delete, and are more than can be compared ({COMPARED} pairs of a path and a host); write fewer members for it"
                    );
                    return errors.invalid("spec.members", text);
                }
                walk(&[*other, *one], &mut clashes);
            }
        }
    }
    for (i, (j, path)) in clashes {
        let deletes = if targets[i].is_some_and(RestoreTarget::is_exact) { i } else { j };
        let other = if deletes == i { j } else { i };
        errors.invalid(
            format!("spec.members[{deletes}].target.extraneous"),
            format!(
                "is Delete, but member {other} restores {path:?} of the same target too, so that files of the one are extraneous to the other; restore other paths, or write both as one member"
            ),
        );
    }
}
