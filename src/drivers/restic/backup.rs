//! Backs up one host: one snapshot per path, all tagged with the run.
//!
//! All paths must exist before the first one is read, so that a misspelt path never causes a partial set. No path may
//! lead through a symbolic link, because restic would store only the link; nor be a device, a pipe or a socket,
//! because restic would store only the name. A path that patterns exclude as a whole is a failure, because restic
//! would report an empty snapshot as a success. An incomplete snapshot (exit code 3) is reported, because it exists,
//! and is a failure. It is tagged, so that no restore selects it as the newest backup. Files that were removed before
//! they were read do not make a snapshot incomplete.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;

use crate::contract::restic::{Answer, Backup, INCOMPLETE_TAG, SnapshotMade};
use crate::contract::{Class, Failure, Progress, Run};
use crate::drivers::done::Done;
use crate::drivers::restic::args;
use crate::drivers::restic::output;
use crate::drivers::restic::output::{Message, share};
use crate::drivers::restic::paths::{clean, within};
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::run::{End, Limit, Ran, STUCK};
use crate::names::reason;
use crate::text::short_id;

/// Exit code of a backup that could not read everything.
const INCOMPLETE: i32 = 3;
/// Timeout for tagging a snapshot: longer than it waits for other commands.
const MARK: Duration = Duration::from_mins(35);

/// Backs up one host in this run.
pub async fn backup(repository: &Repository, step: &Backup, run: &Run) -> Done {
    if let Some(missing) = step.paths.iter().find(|p| Path::new(p).symlink_metadata().is_err()) {
        let text = format!(
            "{missing} does not exist or cannot be reached in the volumes of the target. Correct the paths of the target. Nothing was backed up."
        );
        return Done::failed(Failure::new(Class::Invalid, reason::PATH_NOT_FOUND, text));
    }
    let wrong = |path: &String| link_on_the_way(&step.mounts, path).or_else(|| no_file(path));
    if let Some(failure) = step.paths.iter().find_map(wrong) {
        return Done::failed(failure);
    }
    if let Err(failure) = repository.reach().await {
        return Done::failed(failure);
    }
    repository.own_locks_removed().await;
    let mut made: Vec<SnapshotMade> = Vec::new();
    for path in &step.paths {
        let ran = one(repository, step, run, path, &made).await;
        if let Some(summary) = &ran.report.summary {
            made.push(output::made(summary, path));
        }
        let is_done = ran.end == End::Exited(0);
        if let Some(mut failure) = verdict(repository, &ran, path) {
            let is_there = matches!(ran.end, End::Exited(0 | INCOMPLETE)) && ran.report.summary.is_some();
            if let Some(last) = made.last_mut().filter(|_| is_there) {
                mark(repository, last, &mut failure).await;
            }
            return Done::of(Answer::BackedUp(made), Some(failure));
        }
        if is_done && made.last().is_some_and(|last| last.total_files == 0) {
            repository.warn(format!("{path} of host {} contains no files, so the snapshot is empty. Check that the correct volume is mounted there.", step.host));
        }
    }
    Done::ok(Answer::BackedUp(made))
}

/// Rejects a path that is a symbolic link, or leads through one, within its volume: restic stores only the link.
/// Folders above the volume belong to the image.
fn link_on_the_way(mounts: &[String], path: &str) -> Option<Failure> {
    let path = clean(path);
    let mount = mounts.iter().map(|m| clean(m)).filter(|m| within(&path, m)).max_by_key(String::len);
    let inner = Path::new(&path).ancestors().take_while(|a| mount.as_deref().map(Path::new) != Some(*a));
    let link = inner.filter(|a| a.is_symlink()).last()?;
    let to = link.read_link().map(|to| to.display().to_string()).unwrap_or_default();
    let text = format!(
        "{} is a symbolic link to {to}, so a backup of {path} would contain only the link. Specify the path of the folder itself, or of a folder that contains both. Nothing was backed up.",
        link.display()
    );
    Some(Failure::new(Class::Invalid, reason::PATH_IS_LINK, text))
}

/// Rejects files without content that could be stored.
fn no_file(path: &str) -> Option<Failure> {
    let found = Path::new(path).symlink_metadata().ok()?.file_type();
    let what = match () {
        () if found.is_block_device() || found.is_char_device() => "a device",
        () if found.is_fifo() => "a pipe",
        () if found.is_socket() => "a socket",
        () => return None,
    };
    let text = format!(
        "{path} is {what}, so a backup would contain no data. Specify a file or folder. Nothing was backed up."
    );
    Some(Failure::new(Class::Invalid, reason::PATH_IS_NO_FILE, text))
}

/// Whether a snapshot contains only the parent folders of the path.
fn holds_nothing_of(path: &str, summary: &Message) -> bool {
    let above = clean(path).split('/').filter(|name| !name.is_empty()).count().saturating_sub(1) as u64;
    let folders = summary.dirs_new + summary.dirs_changed + summary.dirs_unmodified;
    summary.total_files_processed == 0 && folders <= above
}

async fn one(repository: &Repository, step: &Backup, run: &Run, path: &str, made: &[SnapshotMade]) -> Ran {
    let (files, bytes) = made.iter().fold((0, 0), |(f, b), m| (f + m.total_files, b + m.total_bytes));
    let progress = &repository.control().progress;
    repository
        .lines(args::backup(step, run, path), Limit::Idle(STUCK), &mut |m: &Message| {
            let (done, total) = match m.message_type.as_str() {
                "status" => ((m.files_done, m.bytes_done), (m.total_files, m.total_bytes)),
                "summary" => {
                    let all = (m.total_files_processed, m.total_bytes_processed);
                    (all, all)
                }
                _ => return,
            };
            let (bytes_done, bytes_total) = (bytes + done.1, bytes + total.1);
            let percent = if bytes_total == 0 { 0.0 } else { share(bytes_done.min(bytes_total), bytes_total) };
            progress.send_replace(Progress {
                percent,
                bytes_done,
                bytes_total,
                files_done: files + done.0,
                files_total: files + total.0,
            });
        })
        .await
}

/// Tags an incomplete snapshot; reports a failure to do so.
async fn mark(repository: &Repository, made: &mut SnapshotMade, failure: &mut Failure) {
    let mut id = None;
    let ran = repository
        .lines(args::mark_incomplete(&made.id), Limit::Whole(MARK), &mut |m: &Message| {
            id = Some(m.new_snapshot_id.clone()).filter(|id| !id.is_empty()).or(id.take());
        })
        .await;
    if ran.end == End::Exited(0) {
        made.id = id.unwrap_or_else(|| made.id.clone());
        return;
    }
    tracing::warn!(end = ?ran.end, "the snapshot is not marked as incomplete");
    failure.message.insert_str(
        0,
        &format!(
            "Snapshot {} is incomplete and could not be tagged ({}): latest selects it until the next backup. Run restic tag --add {INCOMPLETE_TAG} {0}, or back up again. ",
            short_id(&made.id),
            repository.failure(&ran, "mark it").reason,
        ),
    );
}

/// Whether all missing files were removed during the backup; not the path itself.
fn only_vanished(ran: &Ran, path: &str) -> bool {
    let report = &ran.report;
    let is_path = |(item, _): &(String, String)| within(path, item);
    report.summary.is_some()
        && report.errors > 0
        && report.vanished == report.errors
        && !report.items.iter().any(is_path)
}

fn verdict(repository: &Repository, ran: &Ran, path: &str) -> Option<Failure> {
    match ran.end {
        End::Exited(0) if ran.report.summary.as_ref().is_some_and(|s| holds_nothing_of(path, s)) => Some(Failure::new(
            Class::Invalid,
            reason::NOTHING_TO_BACK_UP,
            format!(
                "The snapshot contains nothing of {path}: exclude or args exclude the path itself. Correct the patterns; a pattern such as {path}/* excludes only its content."
            ),
        )),
        End::Exited(0) if ran.report.summary.is_some() => None,
        End::Exited(0) => Some(Failure::new(
            Class::Fatal,
            reason::RESTIC_FAILED,
            format!("restic succeeded but did not report what it backed up of {path}."),
        )),
        End::Exited(INCOMPLETE) if only_vanished(ran, path) => {
            let (count, first) = (ran.report.vanished, ran.report.items.first());
            let first = first.map(|(item, _)| item.as_str()).unwrap_or_default();
            repository.warn(format!("{count} files of {path} were removed before they could be read (for example {first}), and are not in the snapshot."));
            None
        }
        End::Exited(INCOMPLETE) => {
            let mut failure = repository.failure(ran, &format!("read all of {path}; the snapshot exists without it"));
            failure.class = Class::Data;
            if failure.reason != reason::PERMISSION_DENIED {
                reason::INCOMPLETE.clone_into(&mut failure.reason);
            }
            Some(failure)
        }
        _ => Some(repository.failure(ran, &format!("back up {path}"))),
    }
}
