//! Paths of backups: normalisation, and whether one is within another.

use crate::contract::{Class, Failure};
use crate::names::reason;

/// A path without doubled or trailing slashes and without `.` and `..`.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether `path` is `base` or is below it. Both normalised.
pub fn within(path: &str, base: &str) -> bool {
    base == "/" || path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Rejects a path outside of all mounts of the target: it would be written into the container and lost.
pub fn inside_mounts(path: &str, mounts: &[String]) -> Result<(), Failure> {
    if mounts.iter().any(|m| within(path, &clean(m))) {
        return Ok(());
    }
    let mounts = if mounts.is_empty() { "none".to_owned() } else { mounts.join(", ") };
    Err(Failure::new(
        Class::Invalid,
        reason::PATH_OUTSIDE_MOUNTS,
        format!(
            "{path} is outside of all mounts of the target ({mounts}). Add a mount with this path, or restore other paths."
        ),
    ))
}
