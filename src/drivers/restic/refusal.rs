//! Errors of a restore that has nothing to write, or must not delete files. Used by preflight and restore.

use crate::contract::restic::PinnedSnapshot;
use crate::contract::{Class, Failure};
use crate::names::reason;

/// Why there is nothing to restore; `rule` is what to include and to exclude.
pub fn nothing(rule: (&[String], &[String]), what: &str) -> Failure {
    let (include, exclude) = (rule.0.join(", "), rule.1.join(", "));
    let patterns = if include.is_empty() && exclude.is_empty() {
        String::new()
    } else {
        format!(" (include: [{include}], exclude: [{exclude}])")
    };
    let text = format!(
        "{what}{patterns}. Correct paths and patterns of the rule, or set allowEmpty if the backup may be without these files. Nothing was written."
    );
    Failure::new(Class::Data, reason::NOTHING_TO_RESTORE, text)
}

/// Error: nothing is deleted for an incomplete backup.
pub fn incomplete_backup(pin: &PinnedSnapshot) -> Failure {
    let text = format!(
        "Snapshot {} is incomplete, because some files could not be read, and target.extraneous: Delete would delete them. Restore another snapshot, or remove extraneous. Nothing was written.",
        pin.short()
    );
    Failure::new(Class::Data, reason::INCOMPLETE, text)
}

/// Error of an exact restore of a path that is empty in the snapshot: a folder without its volume looks like an empty
/// folder.
pub fn would_empty(pin: &PinnedSnapshot, root: &str) -> Failure {
    let text = format!(
        "Snapshot {} contains nothing in {root} that the rule selects, so target.extraneous: Delete would delete all files there. Remove the path from the rule, or restore it without extraneous. Nothing was written.",
        pin.short()
    );
    Failure::new(Class::Data, reason::NOTHING_TO_RESTORE, text)
}
