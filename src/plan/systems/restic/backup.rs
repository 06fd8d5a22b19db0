//! The backup of a host and what follows it: what restic is asked, and what its answer means.

use std::collections::BTreeMap;

use super::{settings, work};
use crate::api::backup_session::{FileStats, SnapshotStats};
use crate::api::common::{EmptyDirSettings, RetentionPolicy};
use crate::api::target::BackupTarget;
pub use crate::contract::restic::RepositoryFacts;
use crate::contract::restic::{Backup, Detail, Maintain, Own, Prepare, Retention, Saved, Settings, Step};
use crate::contract::{Answer, Outcome, Work, restic};
use crate::plan::run::duration;
use crate::plan::run::hosts::{named, normal_path};
use crate::plan::systems::restic::backend::Access;
use crate::text::{short_id, size};

/// The verb of [`prepare`], and the key of its step.
pub const PREPARE: &str = "prepare";

/// Opens the repository, or creates it when it is known to be absent.
pub fn prepare(access: &Access, temp_dir: Option<&EmptyDirSettings>) -> Work {
    work(access, settings(temp_dir, false), Step::Prepare(Prepare {}))
}

/// Retention, check and statistics after a backup. `own` is what only this invoker backs up, hosts by path. Also
/// returns whether the rules of the retention remove anything.
pub fn maintain(
    access: &Access,
    temp_dir: Option<&EmptyDirSettings>,
    own: BTreeMap<String, Vec<String>>,
    policy: &RetentionPolicy,
) -> (Work, bool) {
    let own = own.into_iter().map(|(path, hosts)| Own { path, hosts }).collect();
    let retention = retention(policy);
    let retains = retention.keeps_something();
    (work(access, settings(temp_dir, false), Step::Maintain(Maintain { own, retention })), retains)
}

/// What a Job reports about the repository that it has maintained.
pub fn facts(outcome: &Outcome) -> Option<&RepositoryFacts> {
    match &outcome.answer {
        Some(Answer::Restic(restic::Answer::Maintained(facts))) => Some(facts),
        _ => None,
    }
}

/// The backup of a host whose volumes are mounted at `mounts`.
pub fn back_up(access: &Access, settings: Settings, host: &str, target: &BackupTarget, mounts: Vec<String>) -> Work {
    let named: Vec<String> = target.paths.iter().map(|p| normal_path(p)).collect();
    let paths = if named.is_empty() { mounts.clone() } else { named };
    let step = Step::Backup(Backup {
        host: host.to_owned(),
        paths,
        mounts,
        exclude: target.exclude.clone(),
        args: target.args.clone(),
    });
    work(access, settings, step)
}

/// The snapshots that a Job reports as created.
pub fn made(outcome: &Outcome, target: &BackupTarget) -> Vec<SnapshotStats> {
    let Some(Answer::Restic(answer)) = &outcome.answer else { return vec![] };
    let saved = answer.saved(&named(target).1).ok().flatten().unwrap_or_default();
    saved.iter().map(snapshot).collect()
}

/// Values that were not reported are left out: zero would say that there was nothing.
fn snapshot(Saved { made, detail }: &Saved) -> SnapshotStats {
    let i = |n: u64| i64::try_from(n).ok();
    let (sums, all) = (*detail >= Detail::Sums, *detail == Detail::All);
    let took = || duration::format(std::time::Duration::from_secs_f64(made.seconds.clamp(0.0, 1e9)));
    SnapshotStats {
        name: Some(short_id(&made.id).to_owned()),
        path: Some(made.path.clone()).filter(|p| !p.is_empty()),
        total_size: sums.then(|| size(made.total_bytes)),
        uploaded: sums.then(|| size(made.uploaded_bytes)),
        processing_time: all.then(took),
        file_stats: sums.then(|| FileStats {
            total_files: i(made.total_files),
            new_files: i(made.new_files).filter(|_| all),
            modified_files: i(made.modified_files).filter(|_| all),
            unmodified_files: i(made.unmodified_files).filter(|_| all),
        }),
    }
}

/// Which snapshots are kept.
fn retention(policy: &RetentionPolicy) -> Retention {
    let p = policy.clone();
    Retention {
        keep_last: p.keep_last,
        keep_hourly: p.keep_hourly,
        keep_daily: p.keep_daily,
        keep_weekly: p.keep_weekly,
        keep_monthly: p.keep_monthly,
        keep_yearly: p.keep_yearly,
        keep_tags: p.keep_tags,
        prune: p.prune,
        dry_run: p.dry_run.unwrap_or(false),
    }
}
