//! Detects and removes files on the target that restic does not overwrite correctly.
//!
//! restic compares an existing file with that of the snapshot, block by block, and writes the differences. A file
//! with several names (hard links) is replaced by a new file, but equal blocks are not written: the restored file has
//! zeros there, without an error (restic 0.18.0, `internal/restorer/fileswriter.go`). If restic cannot read a file
//! that it may write, holes of the snapshot keep the old bytes. Therefore such names are removed before restic
//! writes, if the snapshot has a file with the name. If a pipe or socket is in place of a file, restic would wait or
//! fail, so the restore fails before data is written.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use k8s_openapi::jiff::Timestamp;
use rustix::fs::Access;

use crate::contract::restic::{PinnedSnapshot, Restore};
use crate::contract::{Class, Failure};
use crate::drivers::restic::blocking;
use crate::drivers::restic::blocking::{Shared, Unfinished};
use crate::drivers::restic::count;
use crate::drivers::restic::extraneous;
use crate::drivers::restic::output::{Message, path_key};
use crate::drivers::restic::pattern::{Below, Walk};
use crate::drivers::restic::planned::below;
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::run::STUCK;
use crate::names::reason;

/// Obstacles at the paths to restore, by [`path_key`] of the path below the base.
#[derive(Debug, Default)]
pub struct Obstacles {
    /// Files whose names must be removed.
    files: HashSet<u64>,
    /// Of these, files whose names are not UTF-8, which the list of a snapshot cannot distinguish.
    unclear: HashSet<u64>,
    /// Pipes and sockets.
    pipes: HashSet<u64>,
}

/// A file of the snapshot with an obstacle.
struct Hit {
    path: String,
    /// Its modification time, in restic's format.
    time: String,
    key: u64,
}

/// Searches for obstacles on the target. Writes nothing.
///
/// # Errors
/// The volume does not respond, or the agent is stopped.
pub async fn find(repository: &Repository, step: &Restore, part: &Below) -> Result<Obstacles, Failure> {
    // Existing files are kept.
    if overwrite(&step.args) == Some("never") {
        return Ok(Obstacles::default());
    }
    let (root, part) = (repository.restore_root.clone(), part.clone());
    let look = move |shared: &Shared| {
        let mut found = Obstacles::default();
        gather(&below(&root, &part.base), "", &mut Walk::new(&part.patterns), &mut found, shared)
            .map(|()| found)
            .map_err(|(place, error)| unreadable(&place, &error))
    };
    blocking::run(Shared::of(&repository.control().stop), look).await.map_err(unfinished)?
}

/// Rejects pipes and sockets in place of files.
///
/// # Errors
/// One exists, or the snapshot could not be listed.
pub async fn refuse_pipes(
    repository: &Repository,
    pin: &PinnedSnapshot,
    part: &Below,
    found: &Obstacles,
) -> Result<(), Failure> {
    if found.pipes.is_empty() {
        return Ok(());
    }
    let hits = hits(repository, pin, part, &found.pipes).await?;
    hits.first().map_or(Ok(()), |hit| {
        Err(Failure::new(
            Class::Data,
            reason::PATH_IS_NO_FILE,
            format!(
                "{}{} is a pipe or a socket on the target, and a file in the snapshot. Remove it, or exclude it in the rule. Nothing was written.",
                part.base.trim_end_matches('/'),
                hit.path
            ),
        ))
    })
}

/// Removes names that are files in the snapshot. Returns their number, also after a failure. Without a previous
/// search it searches itself, because earlier parts may have created hard links.
pub async fn clear(
    repository: &Repository,
    step: &Restore,
    pin: &PinnedSnapshot,
    part: &Below,
    found: Option<&Obstacles>,
) -> (u64, Result<(), Failure>) {
    let now = match found {
        Some(_) => Obstacles::default(),
        None => match find(repository, step, part).await {
            Ok(now) => now,
            Err(failure) => return (0, Err(failure)),
        },
    };
    let found = found.unwrap_or(&now);
    if found.files.is_empty() {
        return (0, Ok(()));
    }
    let hits = match hits(repository, pin, part, &found.files).await {
        Ok(hits) => hits,
        Err(failure) => return (0, Err(failure)),
    };
    let base = part.base.trim_end_matches('/');
    if let Some(hit) = hits.iter().find(|hit| found.unclear.contains(&hit.key)) {
        return (0, Err(unclear(&format!("{base}{}", hit.path))));
    }
    let only_older = overwrite(&step.args) == Some("if-newer");
    let folder = below(&repository.restore_root, &part.base);
    let shared = Shared::of(&repository.control().stop);
    let take = move |shared: &Shared| {
        for hit in hits {
            let place = folder.join(hit.path.trim_start_matches('/'));
            take_away(&place, &hit.time, only_older, shared).map_err(|error| stays(&place, &error))?;
        }
        Ok(())
    };
    let ended = blocking::run(shared.clone(), take).await;
    let taken = shared.deleted.load(Ordering::Relaxed);
    tracing::info!(files = taken, "names of files taken away that restic does not overwrite");
    (taken, ended.map_err(unfinished).and_then(|ended| ended))
}

/// Files of the snapshot at these paths.
async fn hits(
    repository: &Repository,
    pin: &PinnedSnapshot,
    part: &Below,
    keys: &HashSet<u64>,
) -> Result<Vec<Hit>, Failure> {
    let base = part.base.trim_end_matches('/');
    let take = |hits: &mut Vec<Hit>, m: &Message| {
        let Some(path) = m.path.strip_prefix(base).filter(|_| m.node_type == "file") else { return };
        let key = path_key(path);
        if keys.contains(&key) {
            hits.push(Hit { path: path.to_owned(), time: m.mtime.clone(), key });
        }
    };
    count::listed(repository, pin, &part.base, Vec::new, take).await
}

/// Visits the selected entries. In a folder without execute permission restic cannot open files either; in a folder
/// with execute but without read permission, obstacles cannot be detected.
fn gather(
    folder: &Path,
    path: &str,
    walk: &mut Walk,
    found: &mut Obstacles,
    shared: &Shared,
) -> Result<(), (PathBuf, io::Error)> {
    let mut folders = vec![];
    let can_be_searched = || rustix::fs::access(folder, Access::EXEC_OK).is_ok();
    let listed = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && can_be_searched() => {
            return Err((folder.to_owned(), e));
        }
        listed => listed,
    };
    let Some(entries) = passing(folder, listed)? else { return Ok(()) };
    for entry in entries {
        shared.moved.fetch_add(1, Ordering::Relaxed);
        if shared.is_over() {
            return Ok(());
        }
        let Some(entry) = passing(folder, entry)? else { continue };
        let (place, name) = (entry.path(), entry.file_name());
        let path = format!("{path}/{}", extraneous::text_of(name.as_bytes()));
        let Some(kind) = passing(&place, entry.file_type())? else { continue };
        let (selected, opens) = walk.look(&path, kind.is_dir());
        if kind.is_dir() && opens {
            folders.push((place, path));
        } else if selected && (kind.is_fifo() || kind.is_socket()) {
            found.pipes.insert(path_key(&path));
        } else if selected
            && kind.is_file()
            && let Some(meta) = passing(&place, entry.metadata())?
            && is_in_the_way(&place, &meta)
        {
            found.files.insert(path_key(&path));
            if name.to_str().is_none() {
                found.unclear.insert(path_key(&path));
            }
        }
    }
    for (place, path) in folders {
        gather(&place, &path, walk, found, shared)?;
    }
    Ok(())
}

/// The obstacle; `None` if it no longer exists, or restic would fail in the same way.
fn passing<T>(place: &Path, result: io::Result<T>) -> Result<Option<T>, (PathBuf, io::Error)> {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if [NotFound, NotADirectory, PermissionDenied, InvalidFilename].contains(&e.kind()) => Ok(None),
        Err(e) => Err((place.to_owned(), e)),
    }
}

fn is_in_the_way(place: &Path, meta: &Metadata) -> bool {
    meta.is_file() && (meta.nlink() > 1 || rustix::fs::access(place, Access::READ_OK).is_err())
}

/// Removes one name if it is still an obstacle: the last name of a file is not an obstacle.
fn take_away(place: &Path, time: &str, only_older: bool, shared: &Shared) -> io::Result<()> {
    shared.moved.fetch_add(1, Ordering::Relaxed);
    let meta = match place.symlink_metadata() {
        Ok(meta) if is_in_the_way(place, &meta) => meta,
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if shared.is_over() || (only_older && !is_older(&meta, time)) {
        return Ok(());
    }
    // Counted before the removal: if the volume does not respond, the result is not known.
    shared.deleted.fetch_add(1, Ordering::Relaxed);
    fs::remove_file(place)
}

/// Whether a file is older than that of the snapshot; false if its time cannot be read.
pub fn is_older(meta: &Metadata, time: &str) -> bool {
    let there = i32::try_from(meta.mtime_nsec()).ok().and_then(|nanos| Timestamp::new(meta.mtime(), nanos).ok());
    time.parse::<Timestamp>().ok().zip(there).is_some_and(|(snapshot, there)| there < snapshot)
}

/// The value of the argument `--overwrite`; restic uses the last one.
pub fn overwrite(args: &[String]) -> Option<&str> {
    let at = args.iter().rposition(|a| a == "--overwrite" || a.starts_with("--overwrite="))?;
    args[at].strip_prefix("--overwrite=").or_else(|| args.get(at + 1).map(String::as_str))
}

fn unfinished(why: Unfinished) -> Failure {
    why.failure("The look at the target", "before it restored", || {
        let text = format!(
            "A volume has not responded for {} minutes while its files were checked. It is retried until the deadline.",
            STUCK.as_secs() / 60
        );
        Failure::new(Class::Transient, reason::STEP_TIMEOUT, text)
    })
}

fn unreadable(place: &Path, error: &io::Error) -> Failure {
    let text = format!("{} on the target could not be checked before overwriting it: {error}.", place.display());
    if error.kind() == io::ErrorKind::PermissionDenied {
        let text = format!("{text} Allow the user of the Job to list it, or exclude it in the rule.");
        return Failure::new(Class::Invalid, reason::PERMISSION_DENIED, text);
    }
    Failure::new(Class::Transient, reason::INCOMPLETE, text)
}

fn stays(place: &Path, error: &io::Error) -> Failure {
    let text = format!(
        "{} has several hard links, or cannot be read, and could not be removed before it is restored: {error}. Remove it, or exclude it in the rule.",
        place.display()
    );
    Failure::new(Class::Data, reason::INCOMPLETE, text)
}

fn unclear(path: &str) -> Failure {
    let text = format!(
        "{path} has several hard links on the target, or cannot be read, and its name is not UTF-8, so it cannot be identified. Remove it, or exclude it in the rule."
    );
    Failure::new(Class::Data, reason::INCOMPLETE, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_overwrite_is_found_however_it_is_written() {
        let of =
            |args: &[&str]| overwrite(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>()).map(str::to_owned);
        assert_eq!(of(&["--overwrite=never"]).as_deref(), Some("never"));
        assert_eq!(of(&["--sparse", "--overwrite", "if-newer"]).as_deref(), Some("if-newer"));
        assert_eq!((of(&[]), of(&["--overwrite"])), (None, None));
    }

    #[test]
    fn a_file_is_older_by_its_time_wherever_the_snapshot_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "a").unwrap();
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        fs::File::open(&file).unwrap().set_modified(at.into()).unwrap();
        let meta = file.symlink_metadata().unwrap();
        for (time, older) in [
            ("2023-11-14T22:13:20.000000001Z", true),
            ("2023-11-14T23:13:20.5+01:00", true),
            ("2023-11-14T22:13:20Z", false),
            ("2023-11-14T22:13:19+00:00", false),
            ("", false),
        ] {
            assert_eq!(is_older(&meta, time), older, "{time}");
        }
    }
}
