//! Flushes restored data to disk before the result is reported.
//!
//! When restic ends, files may only be in the memory of the node. After a loss of power, or with a broken volume, the
//! data of a successful restore would be lost.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fstat, open, syncfs};
use rustix::io::Errno;
use tokio::sync::watch;

use crate::contract::{Class, Failure};
use crate::drivers::done::Done;
use crate::drivers::restic::blocking;
use crate::drivers::restic::blocking::Shared;
use crate::drivers::restic::paths::{clean, within};
use crate::drivers::restic::planned::below;
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::run::STUCK;
use crate::names::reason;

/// The volumes that a restore writes to.
pub struct Volumes(Vec<(String, Arc<OwnedFd>)>);

impl Volumes {
    /// The mounts that contain any of these paths, or are below one. Must be opened before the first write: the
    /// kernel reports a failed write only to processes that had the volume open.
    pub fn of(repository: &Repository, mounts: &[String], paths: &[&str]) -> Self {
        let (volumes, unreadable) = opened(&repository.restore_root, mounts, paths);
        for mount in unreadable {
            repository.warn(format!(
                "The user of the Job cannot read mount {mount}, so Lifeboat cannot check that restored data is on disk."
            ));
        }
        volumes
    }

    /// Waits until all data is on disk; otherwise a successful step fails.
    pub async fn flush(&self, repository: &Repository, done: &mut Done) {
        for (mount, volume) in &self.0 {
            if done.failure.is_some() {
                return;
            }
            let volume = volume.clone();
            let ended = within_time(STUCK, mount, &repository.control().stop, move || syncfs(&volume)).await;
            tracing::info!(mount, ended = ended.is_ok(), "flushed");
            done.failure = ended.err();
        }
    }
}

/// Each volume once, and mounts that cannot be opened.
fn opened(root: &Path, mounts: &[String], paths: &[&str]) -> (Volumes, Vec<String>) {
    let (mut volumes, mut devices, mut unreadable) = (vec![], vec![], vec![]);
    for mount in mounts.iter().map(|m| clean(m)) {
        if !paths.iter().any(|path| within(path, &mount) || within(&mount, path)) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match open(below(root, &mount), flags, Mode::empty()).and_then(|fd| Ok((fstat(&fd)?.st_dev, fd))) {
            Ok((device, _)) if devices.contains(&device) => {}
            Ok((device, fd)) => {
                devices.push(device);
                volumes.push((mount, Arc::new(fd)));
            }
            Err(_) => unreadable.push(mount),
        }
    }
    (Volumes(volumes), unreadable)
}

/// Flushes one volume. This cannot be interrupted; the thread is abandoned if the agent stops.
async fn within_time(
    limit: Duration,
    mount: &str,
    stop: &watch::Receiver<bool>,
    flush: impl FnOnce() -> Result<(), Errno> + Send + 'static,
) -> Result<(), Failure> {
    let shared = Shared::of(stop);
    match blocking::run_within(limit, Duration::ZERO, shared, |_| flush()).await {
        Ok(Ok(()) | Err(Errno::NOSYS)) => Ok(()),
        Ok(Err(error)) => Err(refused(mount, error)),
        Err(why) => {
            let when = format!("while the volume at {mount} wrote what was restored to disk");
            Err(why.failure(&format!("The flush of the volume at {mount}"), &when, || {
                let text = format!(
                    "Everything is restored, but the volume at {mount} did not write all data to disk within {} s. It is retried until the deadline.",
                    limit.as_secs()
                );
                Failure::new(Class::Transient, reason::STEP_TIMEOUT, text)
            }))
        }
    }
}

fn refused(mount: &str, error: Errno) -> Failure {
    let what = format!("Everything was restored, but the volume at {mount} did not write all data to disk: {error}.");
    if [Errno::NOSPC, Errno::DQUOT].contains(&error) {
        return Failure::new(
            Class::Data,
            reason::NO_SPACE,
            format!("{what} Enlarge the volume, or restore fewer files."),
        );
    }
    // Not retried automatically: lost data may still be read from memory, and be counted as restored.
    let text = format!("{what} Check the volume, and restore again.");
    Failure::new(Class::Data, reason::INCOMPLETE, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_on_disk_is_no_success_and_the_wait_has_an_end() {
        let limit = Duration::from_millis(200);
        let (tell, stop) = watch::channel(false);
        for (result, wanted) in [
            (Ok(()), None),
            (Err(Errno::NOSYS), None),
            (Err(Errno::IO), Some((Class::Data, reason::INCOMPLETE))),
            (Err(Errno::DQUOT), Some((Class::Data, reason::NO_SPACE))),
        ] {
            let failure = within_time(STUCK, "/data", &stop, move || result).await.err();
            assert_eq!(failure.as_ref().map(|f| (f.class, f.reason.as_str())), wanted, "{failure:?}");
            assert!(failure.is_none_or(|f| f.message.contains("/data")));
        }
        let (_never, block) = std::sync::mpsc::channel::<()>();
        let stuck = move || block.recv().map_err(|_| Errno::IO);
        assert_eq!(within_time(limit, "/data", &stop, stuck).await.unwrap_err().reason, reason::STEP_TIMEOUT);
        let (_never, block) = std::sync::mpsc::channel::<()>();
        tell.send_replace(true);
        let stuck = move || block.recv().map_err(|_| Errno::IO);
        assert_eq!(within_time(STUCK, "/data", &stop, stuck).await.unwrap_err().reason, reason::TERMINATED);
    }

    #[test]
    fn volumes_are_those_that_are_written_to_each_once() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["data/inner", "other"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let mounts = ["/other", "/data/", "/data/inner", "/gone"].map(str::to_owned);
        let names = |paths: &[&str]| {
            let (volumes, unreadable) = opened(root.path(), &mounts, paths);
            (volumes.0.into_iter().map(|(mount, _)| mount).collect::<Vec<_>>(), unreadable)
        };
        assert_eq!(names(&["/data/x"]), (vec!["/data".to_owned()], vec![]));
        assert_eq!(names(&["/data"]), (vec!["/data".to_owned()], vec![]), "one file system");
        assert_eq!(names(&["/other", "/gone"]), (vec!["/other".to_owned()], vec!["/gone".to_owned()]));
        assert_eq!(names(&[]), (vec![], vec![]));
    }
}
