//! Restores one host, and verifies the result by counts.
//!
//! First, checks that need no writes: the paths are within mounts, no link leads out of them, and space, owners and
//! write access are sufficient. The preflight has counted what to restore. Then restic restores, and its counts must
//! be equal. An exit code of 0 with other counts is a failure, and the bytes that restic reports are not used if an
//! item has failed (it counts lost writes as done). Then all data is flushed to disk ([`super::flush`]). Finally,
//! files that are not in the snapshots are deleted, if requested ([`extraneous`]).
//!
//! Each path is restored below the deepest existing folder: restic sets owner and mode of the snapshot on every
//! parent folder, and those of existing folders must not change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::contract::restic::{Counts, PinnedSnapshot, Restore, Restored, keeps_what_is_there, reads_what_is_there};
use crate::contract::{Answer, Class, Did, Failure, Progress};
use crate::drivers::done::Done;
use crate::drivers::restic::checks;
use crate::drivers::restic::checks::Identity;
use crate::drivers::restic::count;
use crate::drivers::restic::count::{Asker, Counted};
use crate::drivers::restic::extraneous;
use crate::drivers::restic::extraneous::{Kept, Region, Search};
use crate::drivers::restic::flush::Volumes;
use crate::drivers::restic::obstacles;
use crate::drivers::restic::obstacles::Obstacles;
use crate::drivers::restic::output::{Message, Report, path_key, share};
use crate::drivers::restic::parents::Parents;
use crate::drivers::restic::paths::{clean, inside_mounts, within};
use crate::drivers::restic::pattern;
use crate::drivers::restic::pattern::{Below, LeftOut};
use crate::drivers::restic::planned::{Planned, Tally, below};
use crate::drivers::restic::refusal::{incomplete_backup, nothing, would_empty};
use crate::drivers::restic::repository::{Repository, Stats, read_document};
use crate::drivers::restic::run::{End, Limit, Ran, STUCK};
use crate::drivers::restic::snapshot::Snapshot;
use crate::drivers::restic::{args, error, keep, links, recount};
use crate::names::reason;
use crate::text;

/// One path of a snapshot, ready to be restored.
struct Part<'a> {
    pin: &'a PinnedSnapshot,
    root: String,
    below: Below,
    /// Obstacles on the target, found before data is written.
    obstacles: Obstacles,
}

/// The plan of a restore.
struct Planning<'a> {
    parts: Vec<Part<'a>>,
    total: Counts,
    /// Regions to search for extraneous files.
    search: Option<Search>,
}

/// Restores one host.
pub async fn restore(repository: &Repository, step: &Restore) -> Done {
    match plan(repository, step).await {
        Ok(Planning { parts, total, search }) => {
            tracing::info!(files = total.files, bytes = total.bytes, paths = parts.len(), "planned");
            let paths: Vec<&str> = parts.iter().map(|p| p.root.as_str()).collect();
            let volumes = Volumes::of(repository, &step.mounts, &paths);
            let mut done = write(repository, step, &parts, total).await;
            volumes.flush(repository, &mut done).await;
            if let Some(search) = search {
                done = then_delete(repository, search, done).await;
                volumes.flush(repository, &mut done).await;
            }
            done
        }
        Err(failure) => Done::untouched(failure),
    }
}

fn did(restored: &Restored) -> Answer {
    Answer::Did(Did { tallies: restored.tallies() })
}

fn restored_of(done: &Done) -> Option<Restored> {
    match &done.answer {
        Some(Answer::Did(did)) => Restored::of(&did.tallies),
        _ => None,
    }
}

/// Deletes extraneous files, after a complete restore.
async fn then_delete(repository: &Repository, search: Search, mut done: Done) -> Done {
    let Some(mut restored) = restored_of(&done).filter(|_| done.failure.is_none()) else { return done };
    if restored.restored != restored.planned || restored.errors > 0 {
        return done;
    }
    let (deleted, failure) = extraneous::delete(repository, search).await;
    tracing::info!(entries = deleted, "extraneous entries deleted");
    restored.deleted = Some(deleted);
    done.answer = Some(did(&restored));
    Done { failure, ..done }
}

/// The steps before data is written: what is restored, and how much.
async fn plan<'a>(repository: &Repository, step: &'a Restore) -> Result<Planning<'a>, Failure> {
    let root = &repository.restore_root;
    checks::mounts(root, &step.mounts)?;
    let mut parts = parts(repository, step).await?;
    for part in &parts {
        checks::no_link_on_the_way(root, &step.mounts, &part.below.base)?;
    }
    let me = Identity::of_process();
    let must_own = !me.may_chown() && !step.ignore_owners;
    let (total, keys) = match step.planned {
        Some(total) if !must_own && !step.exact => (total, None),
        // If the preflight did not count, or did not know the user of the Job; or if each path is needed.
        _ => {
            let Counted { counts, keys, .. } = count_all(repository, step, &parts, must_own.then_some(&me)).await?;
            (counts, Some(keys).filter(|_| step.exact))
        }
    };
    let kept: Vec<keep::Part<'_>> = parts.iter().map(|p| (p.pin, &*p.root, &p.below)).collect();
    keep::check(repository, step, &kept).await?;
    let search = match keys {
        Some(keys) => Some(Search {
            restore_root: root.clone(),
            mounts: step.mounts.iter().map(|m| clean(m)).collect(),
            regions: regions(&parts),
            left_out: left_out(repository, &parts).await?,
            kept: Kept::new(keys),
        }),
        None => None,
    };
    for part in &mut parts {
        // A missing folder is created from the snapshot, with all missing parents.
        let there = Path::new(&part.below.base).ancestors().find(|a| below(root, &a.to_string_lossy()).is_dir());
        let there = there.map_or_else(|| "/".to_owned(), |a| a.to_string_lossy().into_owned());
        part.below.start_at(&there);
    }
    for part in parts.iter_mut().filter(|_| total.files > 0) {
        part.obstacles = obstacles::find(repository, step, &part.below).await?;
        obstacles::refuse_pipes(repository, part.pin, &part.below, &part.obstacles).await?;
    }
    if !checks::has_plenty(root, &step.mounts, total) {
        room(repository, step, &parts).await?;
    }
    if let Some(owner) = step.owner.as_ref().filter(|_| me.may_chown() && !step.ignore_owners) {
        let is_used = |mount: &&String| parts.iter().any(|p| within(&p.root, &clean(mount)));
        let mounts: Vec<String> = step.mounts.iter().filter(is_used).cloned().collect();
        checks::owners_are_kept(root, &mounts, owner)?;
    }
    for part in parts.iter().filter(|_| total.files > 0) {
        links::none_for_folders(repository, part.pin, &part.below).await?;
    }
    Ok(Planning { parts, total, search })
}

/// Regions in which files may be deleted, each one once for any number of snapshots.
fn regions(parts: &[Part<'_>]) -> Vec<Region> {
    let mut all = vec![];
    for Part { root, below, .. } in parts {
        let region = Region { root: root.clone(), below: below.clone() };
        if !all.contains(&region) {
            all.push(region);
        }
    }
    all
}

/// The excludes of the restored backups. Not known for an incomplete backup.
async fn left_out(repository: &Repository, parts: &[Part<'_>]) -> Result<Vec<LeftOut>, Failure> {
    let pins: BTreeMap<&str, &PinnedSnapshot> = parts.iter().map(|p| (p.pin.id.as_str(), p.pin)).collect();
    let ids: Vec<String> = pins.keys().map(|id| (*id).to_owned()).collect();
    let found: Vec<Snapshot> = if ids.is_empty() { vec![] } else { repository.snapshots(&ids).await? };
    let mut all = BTreeSet::new();
    for (id, pin) in pins {
        let snapshot = found.iter().find(|s| s.id == id).ok_or_else(|| gone(pin))?;
        if snapshot.is_incomplete() {
            return Err(incomplete_backup(pin));
        }
        let exclude = snapshot.excludes.as_deref().unwrap_or_default();
        all.extend(snapshot.clean_paths().into_iter().map(|root| (root, exclude)));
    }
    Ok(all.into_iter().map(|(root, exclude)| LeftOut::new(&root, exclude)).collect())
}

/// Counts all parts.
async fn count_all(
    repository: &Repository,
    step: &Restore,
    parts: &[Part<'_>],
    identity: Option<&Identity>,
) -> Result<Counted, Failure> {
    let mounts: Vec<String> = step.mounts.iter().map(|m| clean(m)).collect();
    let asker = Asker { identity, mounts: &mounts, keys: step.exact };
    let rule = (&step.include[..], &step.exclude[..]);
    let mut total = Counted::default();
    for part in parts {
        let found = match count::count(repository, part.pin, &part.root, &part.below, &asker).await {
            Ok(found) => found,
            Err(failure) => return Err(or_gone(repository, part.pin, failure).await),
        };
        if found.lacks(&step.include) && part.pin.path.is_some() && !step.allow_empty {
            return Err(nothing(rule, &format!("Snapshot {} does not contain {}", part.pin.short(), part.root)));
        }
        if step.exact && !found.has_content {
            return Err(would_empty(part.pin, &part.root));
        }
        total.add(found);
    }
    if !total.has_content && !step.allow_empty {
        return Err(nothing(rule, "No file of the snapshots is selected"));
    }
    match (identity, &total.unowned) {
        (Some(me), Some((path, uid, gid))) => Err(me.refuse(path, *uid, *gid)),
        _ => Ok(total),
    }
}

fn sum(counts: impl Iterator<Item = Counts>) -> Counts {
    counts.fold(Counts::default(), |a, b| Counts { files: a.files + b.files, bytes: a.bytes + b.bytes })
}

/// Converts paths and rules to patterns.
async fn parts<'a>(repository: &Repository, step: &'a Restore) -> Result<Vec<Part<'a>>, Failure> {
    if !step.snapshots.is_empty() {
        repository.reach().await?;
    }
    let mut parts = Vec::new();
    for pin in &step.snapshots {
        let roots = match &pin.path {
            Some(path) => vec![clean(path)],
            // Each start of restic derives the key of the repository, so this is done only if the paths are not
            // known.
            None => look_up(repository, pin).await?.clean_paths(),
        };
        for root in roots {
            inside_mounts(&root, &step.mounts)?;
            let below = pattern::select(&root, &step.include, &step.exclude)?;
            parts.push(Part { pin, root, below, obstacles: Obstacles::default() });
        }
    }
    // Without a pattern restic would restore everything: the includes are outside of this path.
    parts.retain(|p| !p.below.patterns.is_empty());
    Ok(parts)
}

/// A pinned snapshot, read from the repository.
async fn look_up(repository: &Repository, pin: &PinnedSnapshot) -> Result<Snapshot, Failure> {
    let found: Vec<Snapshot> = repository.snapshots(std::slice::from_ref(&pin.id)).await?;
    found.into_iter().find(|s| s.id == pin.id).ok_or_else(|| gone(pin))
}

fn gone(pin: &PinnedSnapshot) -> Failure {
    let text =
        format!("Snapshot {} of {} no longer exists in the repository. Nothing was written.", pin.short(), pin.time);
    Failure::new(Class::Data, reason::SNAPSHOT_NOT_FOUND, text)
}

/// Why a snapshot could not be read, for example because it no longer exists.
async fn or_gone(repository: &Repository, pin: &PinnedSnapshot, failure: Failure) -> Failure {
    if failure.class == Class::Transient {
        return failure;
    }
    match look_up(repository, pin).await {
        Err(gone) if gone.reason == reason::SNAPSHOT_NOT_FOUND => gone,
        _ => failure,
    }
}

/// If there is not enough space for all data: whether there is enough for the data that does not exist yet, according
/// to a dry run.
async fn room(repository: &Repository, step: &Restore, parts: &[Part<'_>]) -> Result<(), Failure> {
    let mut planned = Planned::new(&repository.restore_root, &step.mounts);
    for part in parts {
        if let Err(failure) = dry_run(repository, step, part, &mut planned).await {
            return Err(or_gone(repository, part.pin, failure).await);
        }
    }
    if let Err(short) = checks::space(&repository.restore_root, &planned, u64::MAX) {
        // Holes of sparse files need no space, and are stored once in the repository.
        let most = distinct_bytes(repository, step).await.ok_or(short)?;
        checks::space(&repository.restore_root, &planned, most)?;
    }
    Ok(())
}

/// Gets what restic would write, by a dry run.
async fn dry_run(
    repository: &Repository,
    step: &Restore,
    part: &Part<'_>,
    planned: &mut Planned,
) -> Result<(), Failure> {
    let argv = args::restore(step, &part.pin.id, &part.below, &repository.restore_root, true);
    let base = part.below.base.trim_end_matches('/');
    let mut again = false;
    loop {
        let ran = repository
            .lines(argv.clone(), Limit::Idle(STUCK), &mut |m: &Message| {
                planned.item(m, &format!("{base}{}", m.item), &part.root);
            })
            .await;
        if ran.ended_well() || holds_nothing(&ran) {
            return Ok(());
        }
        let failure = repository.failure(&ran, &format!("read snapshot {}; nothing was written", part.pin.short()));
        repository.once_more(failure, &mut again).await?;
    }
}

/// Bytes of the snapshots, the same data counted once; `None` if restic cannot compute them.
async fn distinct_bytes(repository: &Repository, step: &Restore) -> Option<u64> {
    let mut ids: Vec<&str> = step.snapshots.iter().map(|p| p.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let ran = repository.document_within(args::stats(&ids), Limit::Idle(STUCK)).await;
    let stats: Stats = (ran.end == End::Exited(0)).then(|| read_document(&ran.document, "stats").ok()).flatten()?;
    Some(stats.total_uncompressed_size.max(stats.total_size))
}

/// Whether the snapshot has no such folder (restic 0.17 and 0.18). What was counted shows whether it should have.
fn holds_nothing(ran: &Ran) -> bool {
    let says_so = |text: &String| text.starts_with("path ") && text.ends_with(": not found");
    ran.end == End::Exited(1) && ran.report.errors == 0 && ran.report.fatal.as_ref().is_some_and(says_so)
}

/// Runs the restore.
async fn write(repository: &Repository, step: &Restore, parts: &[Part<'_>], total: Counts) -> Done {
    let mut answer = Restored { planned: total, ..Restored::default() };
    let progress = &repository.control().progress;
    progress.send_replace(at(Counts::default(), total));
    let (mut failure, mut has_begun) = (None, false);
    for (index, part) in parts.iter().enumerate().filter(|_| total.files > 0) {
        if index > 0
            && let Err(found) = links::none_restored(repository, &step.mounts, part.pin, &part.below).await
        {
            failure = Some(found);
            break;
        }
        let before = answer.restored;
        let found = Some(&part.obstacles).filter(|_| index == 0);
        let (cleared, ended) = obstacles::clear(repository, step, part.pin, &part.below, found).await;
        has_begun |= cleared > 0;
        if let Err(found) = ended {
            failure = Some(if index == 0 { found } else { links::after_the_first(found) });
            break;
        }
        let mut again = keeps_what_is_there(&step.args);
        let mut step = step.clone();
        let parents = Parents::of(&repository.restore_root, &part.below);
        loop {
            let argv = args::restore(&step, &part.pin.id, &part.below, &repository.restore_root, false);
            let ran = repository
                .lines(argv, Limit::Idle(STUCK), &mut |m: &Message| {
                    if m.message_type == "status" {
                        let here = Counts {
                            files: m.files_restored + m.files_skipped,
                            bytes: m.bytes_restored + m.bytes_skipped,
                        };
                        progress.send_replace(at(sum([before, here].into_iter()), total));
                    }
                })
                .await;
            has_begun |= !error::never_began(&ran);
            parents.put_back();
            if holds_nothing(&ran) {
                break;
            }
            let done = done(repository, part, &ran.report).await;
            answer.restored = sum([before, done].into_iter());
            if let Some(found) = verdict(repository, part, &ran, done)
                && repository.once_more(found, &mut again).await.map_err(|f| failure = Some(f)).is_ok()
            {
                // The first run created hard links, and files with the right size and time but wrong content.
                step.args = reads_what_is_there(&step.args);
                let (_, ended) = obstacles::clear(repository, &step, part.pin, &part.below, None).await;
                match ended {
                    Ok(()) => continue,
                    Err(found) => failure = Some(found),
                }
            }
            answer.errors += ran.report.errors;
            break;
        }
        if failure.is_some() {
            break;
        }
    }
    if failure.is_none() && answer.restored != total {
        match recount::holds(repository, parts.iter().map(|p| (p.pin, &*p.root, &p.below)), answer.restored, total)
            .await
        {
            // Each run restored everything that restic counted, and restic detects the hard links.
            Ok(true) => answer.planned = answer.restored,
            Ok(false) => {
                let mut found = incomplete(answer.restored, total, "");
                if answer.restored.files == total.files && answer.restored.bytes < total.bytes {
                    found.message.push_str(" restic restores files with the same inode as one file, also if they differ because they changed during the backup or the inode was reused: back up again, or restore these files separately with include.");
                }
                failure = Some(found);
            }
            Err(found) => failure = Some(found),
        }
    }
    progress.send_replace(at(answer.restored, total));
    if let Some(failure) = failure.take_if(|_| total.files > 0 && !has_begun) {
        return Done::untouched(failure);
    }
    Done::of(did(&answer), failure)
}

/// The data that one run restored.
async fn done(repository: &Repository, part: &Part<'_>, report: &Report) -> Counts {
    let said = Tally::of(report.summary.as_ref());
    // Parent folders are processed, but not counted in the total.
    let files = said.done.files.min(said.total.files);
    if report.failed.is_empty() && report.errors == 0 {
        return Counts { files, bytes: said.done.bytes };
    }
    // The summary counts failed writes as restored, so known failures are subtracted from the total.
    let failed = u64::try_from(report.failed.len()).unwrap_or(u64::MAX);
    let lost = bytes_of_failed(repository, part, report).await;
    Counts { files: said.total.files.saturating_sub(failed), bytes: said.total.bytes.saturating_sub(lost) }
}

/// Bytes of the entries that could not be restored; of all entries, if not known.
async fn bytes_of_failed(repository: &Repository, part: &Part<'_>, report: &Report) -> u64 {
    let base = part.below.base.trim_end_matches('/');
    let mut bytes = 0;
    let argv = args::ls(&part.pin.id, &part.below.base);
    let ran = repository
        .lines(argv, Limit::Idle(STUCK), &mut |m: &Message| {
            let item = m.path.strip_prefix(base).unwrap_or(&m.path);
            if report.failed.contains(&path_key(item)) {
                bytes += m.size;
            }
        })
        .await;
    if ran.ended_well() { bytes } else { u64::MAX }
}

/// A success is an end without errors, with everything restored that restic counted.
fn verdict(repository: &Repository, part: &Part<'_>, ran: &Ran, done: Counts) -> Option<Failure> {
    let said = Tally::of(ran.report.summary.as_ref()).total;
    if ran.ended_well() {
        return (done.bytes != said.bytes || ran.report.summary.is_none())
            .then(|| incomplete(done, said, &format!(" of snapshot {}", part.pin.short())));
    }
    let mut failure = repository.failure(ran, &format!("restore snapshot {}", part.pin.short()));
    if ran.report.errors > 0 {
        failure.message = format!(
            "{} of {} restored, {}. {}",
            done.files,
            text::entries(signed(said.files)),
            text::count(signed(ran.report.errors), "error", "errors"),
            failure.message
        );
        // Errors of items without a known text mean missing data.
        if failure.reason == reason::RESTIC_FAILED {
            failure.class = Class::Data;
            reason::INCOMPLETE.clone_into(&mut failure.reason);
        }
    }
    Some(failure)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn incomplete(done: Counts, planned: Counts, of: &str) -> Failure {
    Failure::new(
        Class::Data,
        reason::INCOMPLETE,
        format!(
            "Restored {} of {} ({}){of}, though restic reported no error. See the log of the Job.",
            done.files,
            text::entries(signed(planned.files)),
            text::bytes_of(signed(done.bytes), signed(planned.bytes))
        ),
    )
}

fn at(done: Counts, total: Counts) -> Progress {
    let (files_done, bytes_done) = (done.files.min(total.files), done.bytes.min(total.bytes));
    let percent = match (total.bytes, total.files) {
        (0, 0) => 0.0,
        (0, files) => share(files_done, files),
        (bytes, _) => share(bytes_done, bytes),
    };
    Progress { percent, bytes_done, bytes_total: total.bytes, files_done, files_total: total.files }
}
