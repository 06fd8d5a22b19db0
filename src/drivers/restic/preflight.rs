//! The first steps of a run: select the snapshots of every host, or prepare the repository.
//!
//! Preflight opens the repository, waits only for commands that remove data, takes no lock and writes nothing.
//! Prepare creates a repository only if restic reports that there is none (exit code 10), and none was known before:
//! any other error could be a temporary network failure, and creating a repository then would hide or damage an
//! existing one.

use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;

use crate::contract;
use crate::contract::restic::{Absent, Answer, HostQuery, Listed, PinnedSnapshot, Pins, Preflight};
use crate::contract::{Failure, Found, Part};
use crate::drivers::done::Done;
use crate::drivers::restic::checks::Identity;
use crate::drivers::restic::count;
use crate::drivers::restic::count::{Asker, Counted};
use crate::drivers::restic::refusal::{incomplete_backup, nothing, would_empty};
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::run::{End, LOOK, Limit};
use crate::drivers::restic::snapshot::Snapshot;
use crate::drivers::restic::{args, paths, pattern, select, snapshot};

/// Number of snapshots that are listed at the same time. Most of the time is spent on deriving the key of the
/// repository, on one core each.
const LISTS_AT_ONCE: usize = 2;

/// Selects the snapshots of every requested host, and counts their entries.
pub async fn preflight(repository: &Repository, step: &Preflight, parts: &[Part]) -> Done {
    if let Err(failure) = repository.reach().await {
        return Done::failed(failure);
    }
    let (all, unlocked) = tokio::join!(repository.snapshots(&[]), repository.unlocked());
    let mut all = match all.and_then(|all| unlocked.map(|()| all)) {
        Ok(all) => all,
        Err(failure) => return Done::failed(failure),
    };
    snapshot::know_future(&mut all, Timestamp::now());
    tracing::info!(snapshots = all.len(), hosts = step.hosts.len(), "repository opened");
    let answer = |(query, part): (&HostQuery, &Part)| {
        let (query, part, all) = (query.clone(), part.clone(), &all);
        async move {
            let mut answer = Found { part, ..Found::default() };
            let mut pins = Pins::default();
            let found = async {
                let chosen = select::resolve(&query, &step.together, all)?;
                let counted = counted(repository, &query, all, &chosen).await?;
                Ok::<_, Failure>((chosen, counted))
            };
            match found.await {
                Ok((chosen, counted)) => {
                    answer.warnings.extend(select::warning(&query, &chosen, all));
                    answer.planned = counted.counts.planned();
                    pins = Pins { owner: counted.owners_text(), snapshots: chosen, packed: None };
                }
                Err(failure) => answer.failure = Some(failure),
            }
            (answer, pins)
        }
    };
    let asked = stream::iter(step.hosts.iter().zip(parts));
    let mut found: Vec<(Found, Pins)> = asked.map(answer).buffered(LISTS_AT_ONCE).collect().await;
    let answer = |found: &[(Found, Pins)]| {
        let pinned = |(found, pins): &(Found, Pins)| Found { pin: pins.write(), ..found.clone() };
        contract::Answer::Found(found.iter().map(pinned).collect())
    };
    if !answer(&found).fits() {
        found.iter_mut().for_each(|(_, pins)| leave_to_be_looked_up(&mut pins.snapshots, &all));
    }
    if !answer(&found).fits() {
        for ((_, pins), query) in found.iter_mut().zip(&step.hosts) {
            pins.pack(&query.paths.iter().map(|p| paths::clean(p)).collect::<Vec<_>>());
        }
    }
    Done::ok(answer(&found))
}

/// Removes paths that are the same as those of their snapshots; the restore Job then reads them from the repository.
fn leave_to_be_looked_up(pins: &mut [PinnedSnapshot], all: &[Snapshot]) {
    for pin in pins {
        let whole = all.iter().find(|s| s.id == pin.id).and_then(Snapshot::only_path);
        pin.path.take_if(|path| whole.as_ref() == Some(&*path));
    }
}

/// Counts what will be restored to a host, so that errors are reported before the workload is scaled down.
async fn counted(
    repository: &Repository,
    query: &HostQuery,
    all: &[Snapshot],
    pins: &[PinnedSnapshot],
) -> Result<Counted, Failure> {
    let identity = query.runner.as_ref().map(Identity::of);
    let mounts: Vec<String> = query.mounts.iter().map(|m| paths::clean(m)).collect();
    let asker = Asker { identity: identity.as_ref(), mounts: &mounts, keys: false };
    let rule = (&query.include[..], &query.exclude[..]);
    let mut total = Counted::default();
    for pin in pins {
        if query.exact && all.iter().any(|s| s.id == pin.id && s.is_incomplete()) {
            return Err(incomplete_backup(pin));
        }
        let whole = || all.iter().find(|s| s.id == pin.id).map(Snapshot::clean_paths).unwrap_or_default();
        let roots = pin.path.as_ref().map_or_else(whole, |path| vec![paths::clean(path)]);
        for root in roots {
            let below = pattern::select(&root, rule.0, rule.1)?;
            let found = count::count(repository, pin, &root, &below, &asker).await?;
            if found.lacks(&query.include) && pin.path.is_some() && !query.allow_empty {
                return Err(nothing(rule, &format!("Snapshot {} does not contain {root}", pin.short())));
            }
            if query.exact && !below.patterns.is_empty() && !found.has_content {
                return Err(would_empty(pin, &root));
            }
            total.add(found);
        }
    }
    if !total.has_content {
        return Err(nothing(rule, "No file of the snapshots is selected"));
    }
    if let (Some(me), Some((path, uid, gid))) = (&identity, &total.unowned) {
        return Err(me.refuse(path, *uid, *gid));
    }
    match total.devices_refused().filter(|_| query.no_devices) {
        Some(failure) => Err(failure),
        None => Ok(total),
    }
}

/// Lists all snapshots. If there is no repository yet, and a backup may create it, the list is empty.
pub async fn list(repository: &Repository) -> Result<(Vec<Listed>, Option<Absent>), Failure> {
    match repository.snapshots(&[]).await {
        Ok(listed) => Ok((listed, None)),
        Err(failure) => repository.may_create(&failure).map(|absent| (vec![], Some(absent))).ok_or(failure),
    }
}

/// Opens the repository, to check whether its storage answers.
pub async fn probe(repository: &Repository) -> Done {
    if let Err(failure) = repository.reach().await {
        return Done::failed(failure);
    }
    let opened = repository.document(args::cat_config()).await;
    if opened.end == End::Exited(0) {
        return Done::ok(Answer::Probed);
    }
    Done::failed(repository.opening_failure(&opened).await)
}

/// Opens the repository, and creates it if there is none and was none before.
pub async fn prepare(repository: &Repository) -> Done {
    if let Err(failure) = repository.reach().await {
        return Done::failed(failure);
    }
    let opened = repository.document(args::cat_config()).await;
    if opened.end == End::Exited(0) {
        return Done::ok(Answer::Prepared { created: false });
    }
    let failure = repository.opening_failure(&opened).await;
    // restic also creates the bucket if it does not exist and the keys allow it.
    if repository.may_create(&failure).is_none() {
        return Done::failed(failure);
    }
    let created = repository.lines(args::init(), Limit::Whole(LOOK), &mut |_| {}).await;
    if created.end == End::Exited(0) {
        tracing::info!("repository created");
        return Done::ok(Answer::Prepared { created: true });
    }
    // Another process may have created it meanwhile.
    if repository.document(args::cat_config()).await.end == End::Exited(0) {
        return Done::ok(Answer::Prepared { created: false });
    }
    Done::failed(repository.failure(&created, "create the repository"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_is_taken_off_only_where_the_snapshot_says_the_same() {
        let snapshot = |id: &str, paths: &[&str]| -> Snapshot {
            serde_json::from_value(json!({ "id": id, "time": "", "paths": paths })).unwrap()
        };
        let all = [snapshot("one", &["/data/"]), snapshot("two", &["/data", "/more"])];
        let pin =
            |id: &str, path: &str| PinnedSnapshot { id: id.into(), path: Some(path.into()), ..Default::default() };
        let mut pins = [pin("one", "/data"), pin("one", "/data/part"), pin("two", "/data")];
        leave_to_be_looked_up(&mut pins, &all);
        assert_eq!(pins.map(|p| p.path), [None, Some("/data/part".to_owned()), Some("/data".to_owned())]);
    }
}
