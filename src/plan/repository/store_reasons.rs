//! Reasons for which the store, or the way to it, fails, so that every session would fail.

use crate::names::reason;

/// Failures that every session would meet.
pub const OF_STORE: [&str; 8] = [
    reason::SECRET_INCOMPLETE,
    reason::WRONG_PASSWORD,
    reason::BUCKET_MISSING,
    reason::REPOSITORY_MISSING,
    reason::ACCESS_DENIED,
    reason::TLS_NOT_TRUSTED,
    reason::REPOSITORY_UNREACHABLE,
    reason::NOT_SUPPORTED,
];

/// Whether it is the store, or the way to it, that fails for this reason.
pub fn is_of_store(why: &str) -> bool {
    OF_STORE.contains(&why)
}

/// Whether `Ready` has this reason because the repository did not open, or was not tried yet.
pub fn is_of_opening(why: &str) -> bool {
    is_of_store(why) || why == reason::NOT_OPENED
}
