//! What is kept of a repository.

use serde::{Deserialize, Serialize};

/// Which snapshots `restic forget` keeps.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Retention {
    /// Newest snapshots.
    #[serde(default)]
    pub keep_last: Option<i64>,
    /// Hours.
    #[serde(default)]
    pub keep_hourly: Option<i64>,
    /// Days.
    #[serde(default)]
    pub keep_daily: Option<i64>,
    /// Weeks.
    #[serde(default)]
    pub keep_weekly: Option<i64>,
    /// Months.
    #[serde(default)]
    pub keep_monthly: Option<i64>,
    /// Years.
    #[serde(default)]
    pub keep_yearly: Option<i64>,
    /// Snapshots with any of these tags.
    #[serde(default)]
    pub keep_tags: Vec<String>,
    /// Remove data that no snapshot needs any more.
    #[serde(default)]
    pub prune: bool,
    /// Only say what would be removed.
    #[serde(default)]
    pub dry_run: bool,
}

impl Retention {
    /// Whether it removes anything at all: without any rule that keeps snapshots, everything is kept.
    pub fn keeps_something(&self) -> bool {
        let counts =
            [self.keep_last, self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly];
        counts.iter().any(|c| c.is_some_and(|c| c != 0)) || self.keep_tags.iter().any(|t| !t.is_empty())
    }
}
