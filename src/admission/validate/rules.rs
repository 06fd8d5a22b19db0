//! Rules of a restore: which snapshots are restored to which hosts.
//!
//! Stash checks only the deprecated list, so rules of a target are not checked, and a rule that matches nothing
//! restores nothing and succeeds. Here a rule that can never match is rejected.

use std::collections::BTreeMap;

use crate::admission::error::Errors;
use crate::admission::validate::common;
use crate::admission::validate::folders::Folders;
use crate::admission::validate::target::{is_clean_path, not_a_path, patterns, say_hosts, say_mounts};
use crate::api::common::Rule;
use crate::plan::run::hosts::HostSet;

/// Word for "the newest".
const LATEST: &str = "latest";

/// Where rules apply.
pub struct Scope<'a> {
    /// Possible hosts of the target.
    pub hosts: &'a HostSet,
    /// Mount points of the target; `None` if they are not known.
    pub mounts: Option<&'a Folders<()>>,
}

/// The rules of one target, at the path `at`.
pub fn validate(errors: &mut Errors, at: &str, rules: &[Rule], scope: &Scope) {
    if rules.is_empty() {
        errors.invalid(at, "is empty, so nothing would be restored; write for example - snapshots: [latest]");
    }
    let mut catch_all: Option<usize> = None;
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, rule) in rules.iter().enumerate() {
        let at = format!("{at}[{i}]");
        if rule.target_hosts.is_empty() {
            if let Some(first) = catch_all {
                errors.invalid(
                    format!("{at}.targetHosts"),
                    format!("is empty, as that of rule {first} is; only one rule may be for all other hosts"),
                );
            }
            catch_all = catch_all.or(Some(i));
        }
        for (h, host) in rule.target_hosts.iter().enumerate() {
            let at = format!("{at}.targetHosts[{h}]");
            if let Some(first) = named.insert(host, i) {
                errors.invalid(at, format!("{host:?} is already in rule {first}; a host can be in only one rule"));
            } else if !scope.hosts.contains(host) {
                errors.invalid(at, format!("{host:?} can never match: the target has {}", say_hosts(scope.hosts)));
            }
        }
        content(errors, &at, rule, scope);
    }
}

fn content(errors: &mut Errors, at: &str, rule: &Rule, scope: &Scope) {
    match (rule.snapshots.is_empty(), rule.paths.is_empty()) {
        (true, true) => errors.invalid(
            at,
            "names neither snapshots nor paths, so nothing would be restored; write one of them, for example \
             snapshots: [latest]",
        ),
        (false, false) => errors.invalid(
            at,
            "names snapshots and paths; write snapshots to restore all of them, or paths to restore these from the \
             newest snapshot",
        ),
        _ => {}
    }
    for (i, id) in rule.snapshots.iter().enumerate().filter(|(_, id)| !is_snapshot(id)) {
        errors.invalid(
            format!("{at}.snapshots[{i}]"),
            format!("{id:?} is not a snapshot id; write latest, or an id of 8 to 64 hex digits"),
        );
    }
    selection(errors, at, rule);
    for (i, path) in rule.paths.iter().enumerate() {
        let at = format!("{at}.paths[{i}]");
        if !is_clean_path(path) {
            errors.invalid(at, not_a_path(path, "/data"));
        } else if let Some(mounts) = scope.mounts.filter(|mounts| mounts.around(path).is_none()) {
            errors.invalid(
                at,
                format!(
                    "{path:?} lies outside every volume mount of the target ({}), so it cannot be restored; \
                         restore a path below a mount, or mount the volume where the path was backed up",
                    say_mounts(mounts)
                ),
            );
        }
    }
    for (field, list) in [("include", &rule.include), ("exclude", &rule.exclude)] {
        patterns(errors, &format!("{at}.{field}"), list, "*.json");
    }
}

/// Fields that restrict which snapshot is the newest.
fn selection(errors: &mut Errors, at: &str, rule: &Rule) {
    let id = rule.snapshots.iter().find(|s| *s != LATEST);
    let set = [("asOf", rule.as_of.is_some()), ("previous", rule.previous.is_some()), ("tags", !rule.tags.is_empty())];
    for (field, _) in set.iter().filter(|(_, is_set)| *is_set) {
        if let Some(id) = id {
            let text = format!("chooses among snapshots, but snapshots names {id:?}; remove one of them");
            errors.invalid(format!("{at}.{field}"), text);
        }
    }
    common::time(errors, &format!("{at}.asOf"), rule.as_of.as_deref());
    if let Some(n) = rule.previous.filter(|n| *n < 0) {
        errors
            .invalid(format!("{at}.previous"), format!("is {n}; write 0 for the newest backup, 1 for the one before"));
    }
    for (i, tag) in rule.tags.iter().enumerate().filter(|(_, t)| t.trim().is_empty() || t.contains([',', '\0'])) {
        errors.invalid(
            format!("{at}.tags[{i}]"),
            format!("{tag:?} is not a valid tag; write one tag, without a comma or a NUL character"),
        );
    }
}

fn is_snapshot(id: &str) -> bool {
    id == LATEST || ((8..=64).contains(&id.len()) && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}
