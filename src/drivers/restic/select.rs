//! Selects the snapshots of a host. Pure: input is a list of snapshots and a query, output is ids or a failure.
//!
//! The host is always part of the query: neither `latest` nor an explicit id ever selects another host's snapshot.
//! The result is full ids, so that later snapshots have no effect. Incomplete backups are selected only by id.

mod runs;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::contract::restic::{Companion, HostQuery, PinnedSnapshot};
use crate::contract::{Class, Failure};
use crate::drivers::restic::paths::{clean, inside_mounts, within};
use crate::drivers::restic::snapshot::{NAMED, Snapshot};
use crate::names::reason;

/// Minimum length of an id: restic's own short form.
const ID_MIN: usize = 8;
/// Word for "the newest".
const LATEST: &str = "latest";

/// The snapshots of a host, oldest first.
#[derive(Default)]
struct Own<'a> {
    /// Snapshots without the tag for incomplete ones.
    complete: Vec<&'a Snapshot>,
    /// Of these, snapshots whose run is complete for this host.
    whole: Vec<&'a Snapshot>,
    /// Additional text of the message if nothing is found.
    note: String,
}

/// Evaluates the query of one host on all snapshots of the repository. `set` are the hosts that must be restored from
/// the same run; this host may be one of them.
pub fn resolve(query: &HostQuery, set: &[Companion], all: &[Snapshot]) -> Result<Vec<PinnedSnapshot>, Failure> {
    let own = candidates(query, set, all)?;
    // Each path is selected separately, unless `asOf` is set.
    let by_path = if query.as_of.is_some() { &own.whole } else { &own.complete };
    let mut pins = Vec::new();
    for path in query.paths.iter().map(|p| clean(p)) {
        inside_mounts(&path, &query.mounts)?;
        let holders = by_path.iter().copied().filter(|s| s.clean_paths().iter().any(|held| within(&path, held)));
        let what = format!("snapshot that holds {path}");
        let set = chosen(query, all, &holders.collect::<Vec<_>>(), &what, &own.note)?;
        pins.extend(set.last().map(|newest| newest.pin(Some(path))));
    }
    for wanted in &query.snapshots {
        let found = if wanted == LATEST { whole(query, all, &own)? } else { vec![by_id(query, all, wanted)?] };
        for snapshot in found {
            for path in snapshot.clean_paths() {
                inside_mounts(&path, &query.mounts)?;
            }
            let pin = snapshot.pin(snapshot.only_path());
            if !pins.iter().any(|p: &PinnedSnapshot| (&p.id, &p.path) == (&pin.id, &pin.path)) {
                pins.push(pin);
            }
        }
    }
    Ok(pins)
}

/// Warnings about the time of selected snapshots: a clock was wrong.
pub fn warning(query: &HostQuery, pins: &[PinnedSnapshot], all: &[Snapshot]) -> Option<String> {
    let by_age = !query.paths.is_empty() || query.snapshots.iter().any(|s| s == LATEST);
    let is_own = |s: &&Snapshot| s.of_future && s.hostname == query.source_host && s.has_tags(&query.tags);
    let newest = all.iter().filter(|_| by_age).filter(is_own).max_by_key(|s| s.time.parse::<Timestamp>().ok())?;
    let (id, time) = (newest.short(), newest.time_text());
    let is_taken = pins.iter().any(|p| all.iter().any(|s| s.id == p.id && s.of_future));
    let what =
        if is_taken { "treated as the oldest one" } else { "not selected as latest; specify its id to restore it" };
    Some(format!("Snapshot {id} has the time {time}, which is in the future, because a clock was wrong. It is {what}."))
}

/// Snapshots of the source host that may be selected.
fn candidates<'a>(query: &HostQuery, set: &[Companion], all: &'a [Snapshot]) -> Result<Own<'a>, Failure> {
    let as_of = query.as_of.as_deref().map(str::parse::<Timestamp>).transpose();
    let as_of =
        as_of.map_err(|e| Failure::new(Class::Invalid, reason::INVALID, format!("asOf is not a valid time: {e}.")))?;
    let common = match as_of.filter(|_| query.together) {
        Some(at) => runs::common(&query.source_host, set, all, at)?,
        None => None,
    };
    // A session that was deleted and created again with the same name has two runs: the newer one is used.
    let of_session = query.session.as_deref().map(|name| newest_of_session(name, all));
    let ends = as_of.map(|at| (at, runs::ends(all)));
    let complete_then =
        |s: &Snapshot| ends.as_ref().is_none_or(|(at, ends)| ends.get(s.run()).is_some_and(|e| e <= at));
    let mut own: Vec<&Snapshot> = all
        .iter()
        .filter(|s| s.hostname == query.source_host && s.has_tags(&query.tags))
        .filter(|s| of_session.is_none_or(|newest| newest.is_some_and(|n| s.is_of_the_run_of(n))))
        .filter(|s| common.map_or_else(|| complete_then(s), |run| s.run() == run))
        .collect();
    own.sort_by(|a, b| a.age(b));
    Ok(Own::of(own, common))
}

impl<'a> Own<'a> {
    /// `common` is the run for all hosts of a set.
    fn of(own: Vec<&'a Snapshot>, common: Option<&str>) -> Self {
        let mut parts: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
        for snapshot in &own {
            parts.entry(snapshot.run()).or_default().push(snapshot);
        }
        let flaws: BTreeMap<&str, String> =
            parts.iter().filter_map(|(run, part)| Some((*run, runs::missing(part)?))).collect();
        let flaw = own.iter().rev().find_map(|s| Some((s, flaws.get(s.run())?)));
        let note = match (flaw, common.and(own.last())) {
            (Some((s, what)), _) => {
                format!(
                    " Not selected, because it is incomplete: host {:?} of {} has {what}.",
                    s.hostname,
                    s.run_name()
                )
            }
            (None, Some(s)) => format!(" All hosts to which asOf applies use {}.", s.run_name()),
            (None, None) => String::new(),
        };
        let tries: BTreeMap<&str, _> = parts.iter().map(|(run, part)| (*run, runs::last_tries(part))).collect();
        let last = |s: &Snapshot| tries.get(s.run()).and_then(|tries| tries.get(&s.clean_paths()));
        let is_partly = |s: &Snapshot| s.is_incomplete() || last(s).is_some_and(|last| last.is_incomplete());
        let complete: Vec<&Snapshot> = own.iter().copied().filter(|s| !is_partly(s)).collect();
        let whole = complete.iter().copied().filter(|s| !flaws.contains_key(s.run())).collect();
        Self { complete, whole, note }
    }
}

/// The newest snapshot of a BackupSession, of any host.
fn newest_of_session<'a>(name: &str, all: &'a [Snapshot]) -> Option<&'a Snapshot> {
    all.iter().filter(|s| s.session() == Some(name)).max_by(|a, b| a.age(b))
}

/// Of these snapshots, oldest first, those of the requested run.
fn chosen<'a>(
    query: &HostQuery,
    all: &[Snapshot],
    from: &[&'a Snapshot],
    what: &str,
    note: &str,
) -> Result<Vec<&'a Snapshot>, Failure> {
    let mut newest_of_sets: Vec<&Snapshot> = vec![];
    for snapshot in from.iter().rev() {
        if !newest_of_sets.iter().any(|n| snapshot.is_of_the_run_of(n)) {
            newest_of_sets.push(snapshot);
        }
    }
    let newest = newest_of_sets.get(query.previous).ok_or_else(|| {
        let mut failure = not_found(query, all, newest_of_sets.len(), what);
        failure.message.push_str(note);
        failure
    })?;
    Ok(from.iter().copied().filter(|s| s.is_of_the_run_of(newest)).collect())
}

/// All snapshots of the requested run, which are a consistent set.
fn whole<'a>(query: &HostQuery, all: &[Snapshot], own: &Own<'a>) -> Result<Vec<&'a Snapshot>, Failure> {
    // A repeated step leaves two snapshots of a path: the later one is used.
    let set = chosen(query, all, &own.whole, "snapshot", &own.note)?;
    let by_path: BTreeMap<Vec<String>, &Snapshot> = set.into_iter().map(|s| (s.clean_paths(), s)).collect();
    Ok(by_path.into_values().collect())
}

fn by_id<'a>(query: &HostQuery, all: &'a [Snapshot], wanted: &str) -> Result<&'a Snapshot, Failure> {
    if wanted.len() < ID_MIN || !wanted.chars().all(|c| c.is_ascii_hexdigit()) {
        let text = format!("{wanted:?} is not a snapshot id: specify {ID_MIN} to 64 hex digits, or latest.");
        return Err(Failure::new(Class::Invalid, reason::INVALID, text));
    }
    let wanted = wanted.to_ascii_lowercase();
    let found: Vec<_> = all.iter().filter(|s| s.id.starts_with(&wanted)).collect();
    match found.as_slice() {
        [] => Err(not_found(query, all, 0, &format!("snapshot {wanted}"))),
        [one] if one.hostname == query.source_host => Ok(one),
        [one] => Err(Failure::new(
            Class::Invalid,
            reason::SNAPSHOT_OF_ANOTHER_HOST,
            format!(
                "Snapshot {} belongs to host {:?}, not to {:?}. Set sourceHost of the rule to {:?}, or name a snapshot of {:?}.",
                one.short(),
                one.hostname,
                query.source_host,
                one.hostname,
                query.source_host
            ),
        )),
        many => Err(Failure::new(
            Class::Invalid,
            reason::INVALID,
            format!("Snapshot id {wanted} is ambiguous: {} snapshots begin with it. Give more digits.", many.len()),
        )),
    }
}

fn not_found(query: &HostQuery, all: &[Snapshot], sets: usize, what: &str) -> Failure {
    let tags = query.tags.iter().map(|l| l.join("+")).collect::<Vec<_>>().join(" or ");
    let which = [
        (!tags.is_empty()).then(|| format!(" with tags {tags}")),
        query.as_of.as_ref().map(|at| format!(" from a backup that was complete at {at}")),
        query.session.as_ref().map(|session| format!(" made by BackupSession {session}")),
        (sets > 0).then(|| format!(", {} back: there are {sets}, and 0 is the newest", query.previous)),
    ];
    let which: String = which.into_iter().flatten().collect();
    let own: Vec<&Snapshot> = all.iter().filter(|s| s.hostname == query.source_host).collect();
    let of_session = query.session.as_deref().map(|name| newest_of_session(name, all));
    let there = match of_session {
        Some(Some(run)) => {
            let its: Vec<&Snapshot> = all.iter().filter(|s| s.is_of_the_run_of(run)).collect();
            format!("That session has {}", list(its, |s| format!("host {:?}", s.hostname)))
        }
        Some(None) => "The repository holds nothing of that session".to_owned(),
        None if all.is_empty() => "The repository holds no snapshot at all".to_owned(),
        None if own.is_empty() => {
            format!("The repository has {}", list(all.iter().collect(), |s| format!("host {:?}", s.hostname)))
        }
        None => format!("This host has {}", list(own, |s| s.clean_paths().join(" + "))),
    };
    Failure::new(
        Class::Data,
        reason::SNAPSHOT_NOT_FOUND,
        format!("No {what} for host {:?}{which}. {there}.", query.source_host),
    )
}

/// The existing hosts or paths, each with its oldest and newest time.
fn list(mut snapshots: Vec<&Snapshot>, name: impl Fn(&Snapshot) -> String) -> String {
    snapshots.sort_by(|a, b| a.age(b));
    let mut spans: BTreeMap<String, (&Snapshot, &Snapshot)> = BTreeMap::new();
    for snapshot in snapshots {
        spans.entry(name(snapshot)).or_insert((snapshot, snapshot)).1 = snapshot;
    }
    let say = |(name, (oldest, newest)): (&String, &(&Snapshot, &Snapshot))| {
        let from = if oldest.id == newest.id { String::new() } else { format!("oldest {}, ", oldest.time_text()) };
        format!("{name} ({from}newest {})", newest.time_text())
    };
    let mut items: Vec<String> = spans.iter().take(NAMED).map(say).collect();
    if spans.len() > NAMED {
        items.push(format!("{} more", spans.len() - NAMED));
    }
    items.join(", ")
}

#[cfg(test)]
mod tests;
