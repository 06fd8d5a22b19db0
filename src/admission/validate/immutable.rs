//! The spec of a run is immutable.

use crate::admission::error::Errors;
use crate::api;

/// The only field of a run that may change.
const MUTABLE: [&str; 1] = ["cancel"];

/// Rejects a changed spec of a run, and names the changed fields.
pub fn immutable<S: serde::Serialize + PartialEq>(errors: &mut Errors, kind: &str, new: &S, old: Option<&S>) {
    let Some(old) = old.filter(|old| *old != new) else { return };
    let (new, old) = (api::to_json(new), api::to_json(old));
    let empty = serde_json::Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let is_changed = |k: &&String| new.get(*k) != old.get(*k) && !MUTABLE.contains(&k.as_str());
    let mut changed: Vec<&str> = new.keys().chain(old.keys()).filter(is_changed).map(String::as_str).collect();
    changed.sort_unstable();
    changed.dedup();
    if changed.is_empty() {
        return;
    }
    errors.invalid(
        "spec",
        format!(
            "cannot be changed, because a {kind} is one run; create another object (changed: {})",
            changed.join(", ")
        ),
    );
}
