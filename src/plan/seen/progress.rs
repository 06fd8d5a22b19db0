//! Progress of a running Job, as its agent reports it.

use crate::api::restore_session::Progress;
use crate::contract;

/// Converts the progress that a Job reports to the form that status uses.
pub fn progress(p: &contract::Progress) -> Progress {
    let i = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    #[allow(clippy::cast_possible_truncation, reason = "clamped to a percentage")]
    let percent = p.percent.clamp(0.0, 100.0) as i32;
    Progress {
        percent,
        bytes_done: i(p.bytes_done),
        bytes_total: i(p.bytes_total),
        files_done: i(p.files_done),
        files_total: i(p.files_total),
    }
}
