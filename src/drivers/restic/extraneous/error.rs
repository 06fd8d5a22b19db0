//! Why extraneous entries were not deleted, or not all of them.

use rustix::io::Errno;

use crate::contract::{Class, Failure};
use crate::names::reason;

/// Part of messages: when the agent was stopped.
pub const WHILE_DELETING: &str = "while it deleted extraneous files";

/// The failure of an obstacle that is kept.
pub fn refuse(text: String) -> Failure {
    Failure::new(Class::Data, reason::EXTRANEOUS_NOT_DELETED, text)
}

/// The failure of a folder that could not be searched.
pub fn unreadable(path: &str, error: Errno) -> Failure {
    let text = format!(
        "Everything is restored, but {path} could not be searched for extraneous files: {error}. Allow the Job to read it, or exclude it in the rule."
    );
    Failure { class: class_of(error), ..refuse(text) }
}

/// Class of an error: temporary errors are retried.
pub fn class_of(error: Errno) -> Class {
    let passes = [Errno::IO, Errno::STALE, Errno::TIMEDOUT, Errno::HOSTDOWN, Errno::NOTCONN, Errno::INTR];
    if passes.contains(&error) { Class::Transient } else { Class::Data }
}
