//! Whether there was a repository in the place that a Repository names.
//!
//! If such a place is empty, the repository was deleted, its volume is not mounted, or the spec names another place. A
//! backup that created a new repository would report Succeeded and hide that all backups are gone. So the loss is
//! reported instead, and the Snapshots stay. Only another place, or a user who creates a repository there, makes a new
//! beginning.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::repository::{RepositorySpec, RepositoryStatus};
use crate::names::{condition, reason};
use crate::plan::systems::restic::backend;
use crate::text;

/// Failures that say that there is no repository.
const NOTHING: [&str; 2] = [reason::REPOSITORY_MISSING, reason::BUCKET_MISSING];

/// Whether a repository was found, or a backup succeeded, in the place that the spec names now. The place before a
/// change of the spec does not count.
pub fn was_here(spec: &RepositorySpec, status: Option<&RepositoryStatus>) -> bool {
    let Some(status) = status else { return false };
    if status.known_place.is_some() {
        return status.known_place == spec.backend.as_ref().and_then(backend::place);
    }
    // An earlier version of the operator did not record the place.
    status.first_backup_time.is_some() && has_been_opened(spec, Some(status)) && !is_not_created(status)
}

/// Whether the last listing found no repository.
pub(super) fn is_not_created(status: &RepositoryStatus) -> bool {
    let of = |c: &&crate::api::Condition| c.type_ == condition::SNAPSHOTS_SYNCED;
    status.conditions.iter().find(of).is_some_and(|c| c.reason.as_deref() == Some(reason::REPOSITORY_NOT_CREATED))
}

/// Whether a failure to open says that the repository is gone.
pub(super) fn is_loss(why: &str) -> bool {
    NOTHING.contains(&why)
}

/// Time of the last session whose backups are to be listed.
pub(super) fn wished(status: &RepositoryStatus) -> Option<Time> {
    let times = [&status.last_backup_time, &status.list_request_time];
    times.into_iter().flatten().max_by_key(|t| t.0).cloned()
}

/// Whether a backup has ended since the last listing. The result of that listing is then out of date.
pub(super) fn is_behind(status: &RepositoryStatus) -> bool {
    let Some(wished) = wished(status) else { return false };
    let sync = status.sync.as_ref();
    let seen = sync.and_then(|s| s.backup_time.as_ref());
    let listed = sync.and_then(|s| s.last_time.as_ref());
    seen != Some(&wished) || listed.is_none_or(|listed| listed.0 < wished.0)
}

/// Message about a repository that is gone, after why it did not open.
pub(super) fn last_seen(status: &RepositoryStatus) -> String {
    let listed = status.sync.as_ref().and_then(|s| s.last_time.as_ref());
    let held = match (listed, status.snapshot_count) {
        (Some(time), Some(count)) => {
            format!("It had {} when it was listed last, at {}. ", text::count(count, "snapshot", "snapshots"), time.0)
        }
        _ => String::new(),
    };
    format!("{held}Its Snapshots, and integrity, totalSize and snapshotCount in the status, are of that time.")
}

/// Whether the store that a Repository names was opened through this Repository. The store before a change of the spec
/// does not count. If only an earlier version of the operator opened it, any opening counts.
pub fn has_been_opened(spec: &RepositorySpec, status: Option<&RepositoryStatus>) -> bool {
    let Some(status) = status else { return false };
    if status.opened_store.is_some() {
        return status.opened_store == spec.backend.as_ref().and_then(backend::store);
    }
    let listed = status.sync.as_ref().is_some_and(|s| s.last_time.is_some());
    listed || status.first_backup_time.is_some() || status.last_backup_time.is_some()
}

/// Whether the store is probed until it answers: it does not answer, or a session said so after the last probe.
pub fn is_being_asked(status: &RepositoryStatus) -> bool {
    let known = status.reachability.as_ref();
    let last = known.and_then(|k| k.last_probe_time.as_ref());
    let requested = status.probe_request_time.as_ref().is_some_and(|t| last.is_none_or(|last| t.0 > last.0));
    requested || known.is_some_and(|k| !k.reachable)
}
