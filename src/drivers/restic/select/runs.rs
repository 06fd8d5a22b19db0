//! Backup runs: whether the part of a host is complete, and which run contains all hosts of a set.
//!
//! Pure. A run consists of the snapshots with the same run tag; a snapshot of another program is a separate run.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::contract::restic::Companion;
use crate::contract::{Class, Failure};
use crate::drivers::restic::snapshot::{NAMED, Snapshot};
use crate::names::reason;

/// The missing paths of a host's part of a run; `None` if it is complete.
pub fn missing(part: &[&Snapshot]) -> Option<String> {
    let tries = last_tries(part);
    if let Some((path, _)) = tries.iter().find(|(_, last)| last.is_incomplete()) {
        return Some(format!("{} without files that could not be read", path.join(" + ")));
    }
    // Without the tag the expected number is not known.
    let wanted = part.iter().filter_map(|s| s.paths_wanted()).max().unwrap_or(0);
    (tries.len() < wanted).then(|| format!("{} of {wanted} paths", tries.len()))
}

/// The newest snapshot of each path of a host's part of a run. It also decides for earlier ones: an attempt that was
/// killed before it could tag its snapshot may have missed the same files.
pub fn last_tries<'a>(part: &[&'a Snapshot]) -> BTreeMap<Vec<String>, &'a Snapshot> {
    let mut last: BTreeMap<Vec<String>, &Snapshot> = BTreeMap::new();
    for snapshot in part {
        let newest = last.entry(snapshot.clean_paths()).or_insert(snapshot);
        if newest.age(snapshot).is_lt() {
            *newest = snapshot;
        }
    }
    last
}

/// The end of each run: the time of its last snapshot, of any host. So all requested hosts use the same run, even if
/// one host had ended before the given time and another had not.
pub fn ends(all: &[Snapshot]) -> BTreeMap<&str, Timestamp> {
    let mut ends: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for snapshot in all {
        let last = ends.entry(snapshot.run()).or_insert(Timestamp::MIN);
        *last = snapshot.done_at().max(*last);
    }
    ends
}

/// The run for all hosts of `set` that are backed up together with `host`: the newest run that was complete at
/// `as_of` and contains each of them. `None` if the host uses its own newest snapshot, because it was never in the
/// same run as another host of the set (they have separate configurations), or because only snapshots without a run
/// existed at that time.
///
/// # Errors
/// Such runs exist, but none contains all hosts.
pub fn common<'a>(
    host: &str,
    set: &[Companion],
    all: &'a [Snapshot],
    as_of: Timestamp,
) -> Result<Option<&'a str>, Failure> {
    let mut runs: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in all.iter().filter(|s| s.run_tag().is_some()) {
        runs.entry(snapshot.run()).or_default().push(snapshot);
    }
    let related = related(host, set, &runs);
    if related.len() < 2 {
        return Ok(None);
    }
    let members: Vec<&Companion> = set.iter().filter(|c| related.contains(c.source_host.as_str())).collect();
    let ends = ends(all);
    let holds_any = |run: &str| runs[run].iter().any(|s| related.contains(s.hostname.as_str()));
    let mut candidates: Vec<&str> = runs.keys().copied().filter(|run| ends[run] <= as_of && holds_any(run)).collect();
    candidates.sort_by_key(|run| std::cmp::Reverse((ends[run], *run)));
    // Snapshots that are already pinned for other hosts of the set determine the run.
    if let Some(pinned) = members.iter().find_map(|c| c.pinned.as_deref()) {
        let Some(snapshot) = all.iter().find(|s| s.id.starts_with(pinned)) else {
            let text = format!(
                "Snapshot {pinned}, which is pinned for another host of this session, no longer exists in the repository. Create another session."
            );
            return Err(Failure::new(Class::Data, reason::SNAPSHOT_NOT_FOUND, text));
        };
        let Some(run) = runs.keys().copied().find(|run| snapshot.run_tag().is_some() && *run == snapshot.run()) else {
            return Ok(None);
        };
        candidates = vec![run];
    }
    let Some(newest) = candidates.first() else { return Ok(None) };
    match candidates.iter().find(|run| flaws(&runs[*run], &members).is_empty()) {
        Some(run) => Ok(Some(run)),
        None => Err(none_whole(&related, &runs[newest], &members, as_of)),
    }
}

/// The host, and all hosts of the set that were ever in the same run with it, or with one of these.
fn related<'s>(host: &'s str, set: &'s [Companion], runs: &BTreeMap<&str, Vec<&Snapshot>>) -> BTreeSet<&'s str> {
    let wanted: BTreeSet<&str> = set.iter().map(|c| c.source_host.as_str()).chain([host]).collect();
    let together: BTreeSet<BTreeSet<&str>> = runs
        .values()
        .map(|run| run.iter().filter_map(|s| wanted.get(s.hostname.as_str()).copied()).collect::<BTreeSet<&str>>())
        .filter(|hosts| hosts.len() > 1)
        .collect();
    let mut related = BTreeSet::from([host]);
    loop {
        let before = related.len();
        for hosts in &together {
            if !hosts.is_disjoint(&related) {
                related.extend(hosts);
            }
        }
        if related.len() == before {
            return related;
        }
    }
}

/// Why a run cannot be used for these members.
fn flaws(run: &[&Snapshot], members: &[&Companion]) -> Vec<String> {
    let mut flaws = vec![];
    let mut held = 0;
    for member in members {
        let of = |s: &&&Snapshot| s.hostname == member.source_host && s.has_tags(&member.tags);
        let part: Vec<&Snapshot> = run.iter().filter(of).copied().collect();
        held += usize::from(!part.is_empty());
        if part.is_empty() {
            flaws.extend((!member.optional).then(|| format!("lacks host {:?}", member.source_host)));
        } else if let Some(what) = missing(&part) {
            flaws.push(format!("holds {what} of host {:?}", member.source_host));
        }
    }
    if held == 0 && flaws.is_empty() {
        flaws.push("lacks all of them".to_owned());
    }
    flaws
}

fn none_whole(related: &BTreeSet<&str>, newest: &[&Snapshot], members: &[&Companion], as_of: Timestamp) -> Failure {
    let mut hosts: Vec<String> = related.iter().take(NAMED).map(|h| format!("{h:?}")).collect();
    if related.len() > NAMED {
        hosts.push(format!("{} more", related.len() - NAMED));
    }
    let mut why = flaws(newest, members);
    if why.len() > NAMED {
        let more = why.len() - NAMED;
        why.truncate(NAMED);
        why.push(format!("{more} more"));
    }
    let last = newest.iter().max_by(|a, b| a.age(b));
    let name = last.map(|s| format!("{} of {}", s.run_name(), s.time_text())).unwrap_or_default();
    Failure::new(
        Class::Data,
        reason::SNAPSHOT_NOT_FOUND,
        format!(
            "No backup run that was complete at {as_of} contains all of these hosts: {}. The newest, {name}, {}. Set another asOf, or set asOf in the rule of that host.",
            hosts.join(", "),
            why.join(", ")
        ),
    )
}
