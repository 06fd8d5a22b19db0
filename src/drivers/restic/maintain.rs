//! Steps after a backup: retention, check, and numbers for status.
//!
//! Retention is restricted to the hosts and the path of its invoker, and removes, by id, only snapshots with this
//! path and no other, so that it never removes snapshots of another invoker. Without hosts, path or rule it does
//! nothing. A check that could not run does not count as a failed check.

use jiff::Timestamp;
use serde::Deserialize;

use crate::contract::restic::{Answer, Maintain, Own, RepositoryFacts};
use crate::contract::{Class, Failure};
use crate::drivers::done::Done;
use crate::drivers::restic::repository::{Repository, Stats, read_document};
use crate::drivers::restic::run::{End, Limit, STUCK};
use crate::drivers::restic::snapshot::Snapshot;
use crate::drivers::restic::{args, forget, paths, snapshot};
use crate::names::reason;

/// One group of `restic forget --json`: snapshots of one host with the same paths.
#[derive(Debug, Deserialize)]
struct Group {
    #[serde(default)]
    paths: Option<Vec<String>>,
    #[serde(default)]
    remove: Option<Vec<Removed>>,
}

#[derive(Debug, Deserialize)]
struct Removed {
    id: String,
}

/// Applies retention, checks the repository and measures it.
pub async fn maintain(repository: &Repository, step: &Maintain) -> Done {
    let mut facts = RepositoryFacts::default();
    let failure = all(repository, step, &mut facts).await.err();
    Done::of(Answer::Maintained(facts), failure)
}

async fn all(repository: &Repository, step: &Maintain, facts: &mut RepositoryFacts) -> Result<(), Failure> {
    repository.reach().await?;
    // The check runs last, to include the result of retention, but its result must not be lost if retention fails:
    // the failure of each step is kept, and the first one reported.
    let retention = retention(repository, step, facts).await;
    facts.retained = retention.is_ok();
    let check = check(repository, facts).await;
    let measure = measure(repository, facts).await;
    // Damage has precedence over all other failures.
    if facts.integrity == Some(false) {
        return check;
    }
    retention.and(check).and(measure)
}

async fn retention(repository: &Repository, step: &Maintain, facts: &mut RepositoryFacts) -> Result<(), Failure> {
    let mut removed = 0;
    let is_applied = |own: &Own| args::would_forget(own, &step.retention, 0).is_some();
    let mut all = if step.own.iter().any(is_applied) { repository.snapshots(&[]).await? } else { vec![] };
    snapshot::know_future(&mut all, Timestamp::now());
    for own in &step.own {
        let future = future(own, &all);
        if let Some(newest) = future.iter().max_by_key(|s| &s.time).map(|s| s.name_and_time()) {
            repository.warn(format!(
                "{} snapshots of {} have a time in the future (for example {newest}), because a clock was wrong. Retention keeps them until that time, in addition to those of the policy.",
                future.len(),
                own.path,
            ));
        }
        // Incomplete snapshots are kept in addition to those of the policy.
        let beside = future.len() + incomplete(own, &all);
        let Some(argv) = args::would_forget(own, &step.retention, beside) else { continue };
        let ran = repository.document_within(argv, Limit::Idle(STUCK)).await;
        if ran.end != End::Exited(0) {
            return Err(repository.failure(&ran, "apply the retention policy"));
        }
        // restic prints nothing if none of the hosts has a snapshot.
        let groups: Vec<Group> =
            if ran.document.trim_ascii().is_empty() { Vec::new() } else { read_document(&ran.document, "forget")? };
        let ids = own_ids(groups, &own.path);
        removed += ids.len();
        if !step.retention.dry_run {
            forget::forget(repository, &ids, "apply the retention policy").await?;
        }
    }
    tracing::info!(removed, dry_run = step.retention.dry_run, "retention");
    let count = i64::try_from(removed).unwrap_or(i64::MAX);
    if step.retention.dry_run {
        facts.would_remove = Some(count);
        return Ok(());
    }
    facts.removed = count;
    if step.retention.prune && removed > 0 {
        forget::prune(repository, "remove the data of forgotten snapshots").await?;
    }
    Ok(())
}

/// The snapshots to remove, of those with this path and no other: a snapshot of several paths belongs to another
/// program.
fn own_ids(groups: Vec<Group>, path: &str) -> Vec<String> {
    let path = paths::clean(path);
    let is_own = |group: &Group| matches!(group.paths.as_deref(), Some([only]) if paths::clean(only) == path);
    groups.into_iter().filter(is_own).flat_map(|g| g.remove.unwrap_or_default()).map(|s| s.id).collect()
}

/// Snapshots that retention would treat as the newest ones for years.
fn future<'a>(own: &'a Own, all: &'a [Snapshot]) -> Vec<&'a Snapshot> {
    of(own, all).filter(|s| s.of_future).collect()
}

/// Number of incomplete snapshots of the host that has most of them.
fn incomplete(own: &Own, all: &[Snapshot]) -> usize {
    let of_host =
        |host: &String| of(own, all).filter(|s| &s.hostname == host && s.is_incomplete() && !s.of_future).count();
    own.hosts.iter().map(of_host).max().unwrap_or(0)
}

fn of<'a>(own: &'a Own, all: &'a [Snapshot]) -> impl Iterator<Item = &'a Snapshot> {
    let path = Some(paths::clean(&own.path));
    all.iter().filter(move |s| own.hosts.contains(&s.hostname) && s.only_path() == path)
}

async fn check(repository: &Repository, facts: &mut RepositoryFacts) -> Result<(), Failure> {
    let ran = repository.lines(args::check(), Limit::Idle(STUCK), &mut |_| {}).await;
    if ran.end == End::Exited(0) {
        facts.integrity = Some(true);
        return Ok(());
    }
    let mut failure = repository.failure(&ran, "check the repository");
    // Only restic's own result counts as damage; a lock or a network error does not.
    let verdict = |t: &str| t.contains("repository contains errors") || t.contains("repository index is damaged");
    if matches!(ran.end, End::Exited(1))
        && (ran.report.fatal.as_deref().is_some_and(verdict) || ran.report.tail().any(verdict))
    {
        facts.integrity = Some(false);
        failure.class = Class::Data;
        reason::DATA_CORRUPT.clone_into(&mut failure.reason);
    }
    Err(failure)
}

async fn measure(repository: &Repository, facts: &mut RepositoryFacts) -> Result<(), Failure> {
    let all: Vec<Snapshot> = repository.snapshots(&[]).await?;
    facts.snapshot_count = Some(i64::try_from(all.len()).unwrap_or(i64::MAX));
    let ran = repository.document_within(args::stats(&[]), Limit::Idle(STUCK)).await;
    if ran.end != End::Exited(0) {
        return Err(repository.failure(&ran, "measure the repository"));
    }
    facts.total_bytes = Some(read_document::<Stats>(&ran.document, "stats")?.total_size);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise complete snapshots would be removed instead.
    #[test]
    fn snapshots_that_miss_files_are_counted_beside_what_is_kept() {
        let snapshot = |host: &str, path: &str, misses: bool| Snapshot {
            hostname: host.into(),
            paths: vec![path.into()],
            tags: misses.then(|| vec![crate::contract::restic::INCOMPLETE_TAG.into()]),
            ..Snapshot::default()
        };
        let all = [
            snapshot("a", "/html", true),
            snapshot("a", "/html", false),
            snapshot("b", "/html", true),
            snapshot("b", "/html/", true),
            snapshot("b", "/etc", true),
            snapshot("c", "/html", true),
        ];
        let own = |hosts: &[&str]| Own { path: "/html".into(), hosts: hosts.iter().map(|h| (*h).to_owned()).collect() };
        assert_eq!(incomplete(&own(&["a", "b"]), &all), 2, "each host has its own snapshots");
        assert_eq!((incomplete(&own(&["a"]), &all), incomplete(&own(&["d"]), &all)), (1, 0));
    }

    #[test]
    fn only_snapshots_of_the_path_alone_are_forgotten() {
        let groups = serde_json::json!([
            { "host": "a", "paths": ["/html"], "remove": [{ "id": "1", "short_id": "1" }, { "id": "2" }] },
            { "host": "a", "paths": ["/etc", "/html"], "remove": [{ "id": "3" }] },
            { "host": "b", "paths": ["/html"], "keep": [{ "id": "4" }], "remove": null },
            { "host": "b", "paths": null, "remove": [{ "id": "5" }] },
            { "host": "c", "paths": ["/html"], "remove": [{ "id": "6" }] },
        ]);
        let groups = || serde_json::from_value::<Vec<Group>>(groups.clone()).unwrap();
        assert_eq!(own_ids(groups(), "/html/"), ["1", "2", "6"]);
        assert!(own_ids(groups(), "/etc").is_empty());
    }
}
