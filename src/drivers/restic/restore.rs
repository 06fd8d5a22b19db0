//! Restores one host, and proves it by counts.
//!
//! First everything that can be known without writing: the paths lie in the mounts,
//! a dry run says that the snapshots are there and what would be written, and space,
//! owners and write access suffice. Then the real run, whose counts must equal the
//! dry run's. An exit code of 0 with other counts is a failure, and the bytes restic
//! reports are not believed once an item has failed (it counts lost writes as done).

use super::checks::{self, Identity};
use super::output::{Message, Report};
use super::pattern::patterns;
use super::planned::{Planned, Tally};
use super::repository::{Repository, Stats, read_document};
use super::run::{End, Limit, Ran, STUCK};
use super::select::{Snapshot, clean, inside_mounts};
use super::{Done, args};
use crate::names::reason;
use crate::plan::contract::{
    Answer, Class, Counts, Failure, PinnedSnapshot, Progress, Restore, Restored, keeps_what_is_there,
};

/// One snapshot, ready to be restored.
struct Part<'a> {
    pin: &'a PinnedSnapshot,
    /// Paths of it that are restored.
    roots: Vec<String>,
    patterns: Vec<String>,
    /// What the dry run said.
    planned: Tally,
}

/// Restores one host.
pub async fn restore(repository: &Repository, step: &Restore) -> Done {
    let mut planned = Planned::new(&repository.restore_root, &step.mounts);
    let parts = match plan(repository, step, &mut planned).await {
        Ok(parts) => parts,
        Err(failure) => return Done::failed(failure),
    };
    let total = sum(parts.iter().map(|p| p.planned.total));
    tracing::info!(files = total.files, bytes = total.bytes, snapshots = parts.len(), "planned");
    write(repository, step, &parts, &planned, total).await
}

/// Everything before the first byte.
async fn plan<'a>(repository: &Repository, step: &'a Restore, planned: &mut Planned) -> Result<Vec<Part<'a>>, Failure> {
    checks::mounts(&repository.restore_root, &step.mounts)?;
    let mut parts = parts(repository, step).await?;
    let mut content = 0;
    for part in &mut parts {
        content += match dry_run(repository, step, part, planned).await {
            Ok(content) => content,
            Err(failure) => return Err(or_gone(repository, part.pin, failure).await),
        };
        if part.pin.path.is_some() && part.planned.total.files == 0 && step.include.is_empty() && !step.allow_empty {
            return Err(nothing(
                step,
                &format!("Snapshot {} does not hold {}", short(part.pin), part.roots.join(", ")),
            ));
        }
    }
    if content == 0 && !step.allow_empty {
        return Err(nothing(step, "No file of the snapshots is selected"));
    }
    if let Err(short) = checks::space(&repository.restore_root, planned, u64::MAX) {
        // Holes of sparse files take no room, and all of them are one and the same data in the repository.
        let most = distinct_bytes(repository, step).await.ok_or(short)?;
        checks::space(&repository.restore_root, planned, most)?;
    }
    let me = Identity::of_process();
    if !me.may_chown() && !step.ignore_owners {
        for part in &parts {
            let selected = |path: &str| planned.holds(path);
            checks::owners(repository, &part.pin.id, &part.roots, &step.mounts, &me, &selected).await?;
        }
    }
    Ok(parts)
}

fn nothing(step: &Restore, what: &str) -> Failure {
    let (include, exclude) = (step.include.join(", "), step.exclude.join(", "));
    Failure::new(
        Class::Data,
        reason::NOTHING_TO_RESTORE,
        format!(
            "{what} (include: [{include}], exclude: [{exclude}]). Correct paths and patterns of the rule, or set allowEmpty if nothing is to be expected. Nothing was written."
        ),
    )
}

fn short(pin: &PinnedSnapshot) -> &str {
    pin.id.get(..8).unwrap_or(&pin.id)
}

fn sum(counts: impl Iterator<Item = Counts>) -> Counts {
    counts.fold(Counts::default(), |a, b| Counts { files: a.files + b.files, bytes: a.bytes + b.bytes })
}

/// Turns paths and rules into patterns.
async fn parts<'a>(repository: &Repository, step: &'a Restore) -> Result<Vec<Part<'a>>, Failure> {
    if !step.snapshots.is_empty() {
        repository.reach().await?;
    }
    let mut parts = Vec::new();
    for pin in &step.snapshots {
        let roots = match &pin.path {
            Some(path) => vec![clean(path)],
            // A start of restic costs the derivation of the repository's key: only where its paths are not known.
            None => look_up(repository, pin).await?.clean_paths(),
        };
        for root in &roots {
            inside_mounts(root, &step.mounts)?;
        }
        let patterns = patterns(&roots, &step.include, &step.exclude)?;
        parts.push(Part { pin, roots, patterns, planned: Tally::default() });
    }
    Ok(parts)
}

/// A pinned snapshot, as the repository has it now.
async fn look_up(repository: &Repository, pin: &PinnedSnapshot) -> Result<Snapshot, Failure> {
    let found: Vec<Snapshot> = repository.snapshots(std::slice::from_ref(&pin.id)).await?;
    found.into_iter().find(|s| s.id == pin.id).ok_or_else(|| {
        let text =
            format!("Snapshot {} of {} is not in the repository any more. Nothing was written.", short(pin), pin.time);
        Failure::new(Class::Data, reason::SNAPSHOT_NOT_FOUND, text)
    })
}

/// Why a snapshot could not be read; that it is not there any more, if that is why.
async fn or_gone(repository: &Repository, pin: &PinnedSnapshot, failure: Failure) -> Failure {
    if failure.class == Class::Transient {
        return failure;
    }
    match look_up(repository, pin).await {
        Err(gone) if gone.reason == reason::SNAPSHOT_NOT_FOUND => gone,
        _ => failure,
    }
}

/// Asks restic what it would write. Gives the number of items that are content.
async fn dry_run(
    repository: &Repository,
    step: &Restore,
    part: &mut Part<'_>,
    planned: &mut Planned,
) -> Result<u64, Failure> {
    // Without a pattern restic would restore everything: the includes lie outside of this path.
    if part.patterns.iter().all(|p| p.starts_with('!')) {
        return Ok(0);
    }
    let argv = args::restore(step, &part.pin.id, &part.patterns, &repository.restore_root, true);
    let mut again = false;
    let (ran, content, lone) = loop {
        let (mut content, mut lone) = (0, false);
        let ran = repository
            .lines(argv.clone(), Limit::Idle(STUCK), &mut |message: &Message| {
                if planned.item(message, &part.roots) {
                    content += 1;
                } else if part.roots.contains(&message.item) {
                    lone = true;
                }
            })
            .await;
        if clean_end(&ran) {
            break (ran, content, lone);
        }
        let failure = repository.failure(&ran, &format!("read snapshot {}; nothing was written", short(part.pin)));
        repository.once_more(failure, &mut again).await?;
    };
    part.planned = Tally::of(ran.report.summary.as_ref());
    if content == 0 && lone { lone_entries(repository, part).await } else { Ok(content) }
}

/// Bytes of the snapshots, the same data counted once; `None` when restic cannot say.
async fn distinct_bytes(repository: &Repository, step: &Restore) -> Option<u64> {
    let mut ids: Vec<&str> = step.snapshots.iter().map(|p| p.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let ran = repository.document_within(args::stats(&ids), Limit::Idle(STUCK)).await;
    let stats: Stats = (ran.end == End::Exited(0)).then(|| read_document(&ran.document, "stats").ok()).flatten()?;
    Some(stats.total_uncompressed_size.max(stats.total_size))
}

/// A path that was backed up and is no folder (an empty file, a link) is content by itself.
async fn lone_entries(repository: &Repository, part: &Part<'_>) -> Result<u64, Failure> {
    let mut again = false;
    loop {
        let mut count = 0;
        let ran = repository
            .lines(args::ls(&part.pin.id), Limit::Idle(STUCK), &mut |m: &Message| {
                if part.roots.contains(&m.path) && !m.node_type.is_empty() && m.node_type != "dir" {
                    count += 1;
                }
            })
            .await;
        if clean_end(&ran) {
            return Ok(count);
        }
        let failure = repository.failure(&ran, "list the snapshot; nothing was written");
        repository.once_more(failure, &mut again).await?;
    }
}

/// Whether a command ended well and without any error of an item.
pub fn clean_end(ran: &Ran) -> bool {
    ran.end == End::Exited(0) && ran.report.errors == 0
}

/// The real run.
async fn write(repository: &Repository, step: &Restore, parts: &[Part<'_>], planned: &Planned, total: Counts) -> Done {
    let mut answer = Restored { planned: total, ..Restored::default() };
    let progress = &repository.control().progress;
    progress.send_replace(at(Counts::default(), total));
    let mut failure = None;
    for part in parts.iter().filter(|p| p.planned.total.files > 0) {
        let before = answer.restored;
        let mut again = keeps_what_is_there(&step.args);
        loop {
            let argv = args::restore(step, &part.pin.id, &part.patterns, &repository.restore_root, false);
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
            let done = done(part, &ran.report, planned);
            answer.restored = sum([before, done].into_iter());
            if let Some(found) = verdict(repository, part, &ran, done)
                && repository.once_more(found, &mut again).await.map_err(|f| failure = Some(f)).is_ok()
            {
                continue;
            }
            answer.errors += ran.report.errors;
            break;
        }
        if failure.is_some() {
            break;
        }
    }
    if failure.is_none() && answer.restored != total {
        failure = Some(incomplete(answer.restored, total, ""));
    }
    progress.send_replace(at(answer.restored, total));
    Done { answer: Some(Answer::Restored(answer)), failure }
}

/// What one run really restored.
fn done(part: &Part<'_>, report: &Report, planned: &Planned) -> Counts {
    let said = Tally::of(report.summary.as_ref());
    if report.failed.is_empty() && report.errors == 0 {
        return Counts { files: said.done.files.saturating_sub(part.planned.parents()), bytes: said.done.bytes };
    }
    // The summary counts failed writes as restored: take from the plan what is known to have failed.
    let failed = u64::try_from(report.failed.len()).unwrap_or(u64::MAX);
    let bytes = planned.bytes_of(report.failed.iter());
    let (files, all) = match report.summary {
        Some(_) => (part.planned.total.files, part.planned.total.bytes),
        None => (0, 0),
    };
    Counts { files: files.saturating_sub(failed), bytes: all.saturating_sub(bytes) }
}

/// Success is an end without any error whose counts are the planned ones.
fn verdict(repository: &Repository, part: &Part<'_>, ran: &Ran, done: Counts) -> Option<Failure> {
    if clean_end(ran) {
        let said = Tally::of(ran.report.summary.as_ref());
        let equal = done == part.planned.total && said.total == part.planned.total;
        return (!equal).then(|| incomplete(done, part.planned.total, &format!(" of snapshot {}", short(part.pin))));
    }
    let mut failure = repository.failure(ran, &format!("restore snapshot {}", short(part.pin)));
    if ran.report.errors > 0 {
        let planned = part.planned.total.files;
        failure.message =
            format!("{} of {planned} entries restored, {} errors. {}", done.files, ran.report.errors, failure.message);
        // Errors of items that have no sign of their own are data that is not there.
        if failure.reason == reason::RESTIC_FAILED {
            failure.class = Class::Data;
            reason::INCOMPLETE.clone_into(&mut failure.reason);
        }
    }
    Some(failure)
}

fn incomplete(done: Counts, planned: Counts, of: &str) -> Failure {
    Failure::new(
        Class::Data,
        reason::INCOMPLETE,
        format!(
            "Restored {} of {} entries and {} of {} bytes{of}, though restic reported no error. See the log of the Job.",
            done.files, planned.files, done.bytes, planned.bytes
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

/// Percent of a whole that is not zero.
#[allow(clippy::cast_precision_loss)] // A percentage for people: 53 bits are plenty.
pub fn share(done: u64, whole: u64) -> f64 {
    done as f64 * 100.0 / whole as f64
}
