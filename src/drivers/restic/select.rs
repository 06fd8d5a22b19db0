//! Which snapshots a host gets. Pure: a list and a question in, ids or a failure out.
//!
//! The host is always part of the question: neither `latest` nor an explicit id ever
//! yields another host's snapshot. What is found is fixed by full id, so that a
//! snapshot made a second later changes nothing any more.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::names::reason;
use crate::plan::contract::{Class, Failure, HostQuery, PinnedSnapshot, RUN_TAG_PREFIX};

/// Shortest id we take: restic's own short form.
const ID_MIN: usize = 8;
/// Alternatives named in a message.
const NAMED: usize = 5;
/// Word for "the newest".
const LATEST: &str = "latest";

/// One snapshot of `restic snapshots --json`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Snapshot {
    pub id: String,
    pub time: String,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub paths: Vec<String>,
    #[serde(default)]
    pub tags: Option<Vec<String>>,
}

impl Snapshot {
    fn at(&self) -> Timestamp {
        self.time.parse().unwrap_or(Timestamp::MIN)
    }

    /// UTC to the second where restic's text is readable; as it is otherwise.
    fn time_text(&self) -> String {
        match self.time.parse::<Timestamp>() {
            Ok(at) => Timestamp::from_second(at.as_second()).map_or_else(|_| self.time.clone(), |t| t.to_string()),
            Err(_) => self.time.clone(),
        }
    }

    fn tags(&self) -> &[String] {
        self.tags.as_deref().unwrap_or_default()
    }

    fn run_tag(&self) -> Option<&str> {
        self.tags().iter().map(String::as_str).find(|t| t.starts_with(RUN_TAG_PREFIX))
    }

    /// Paths that were backed up, normalised.
    pub fn clean_paths(&self) -> Vec<String> {
        self.paths.iter().map(|p| clean(p)).collect()
    }

    fn short(&self) -> &str {
        self.id.get(..ID_MIN).unwrap_or(&self.id)
    }

    fn pin(&self, path: Option<String>) -> PinnedSnapshot {
        PinnedSnapshot { id: self.id.clone(), time: self.time_text(), path }
    }
}

/// A path without doubled or trailing slashes and without `.` and `..`.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether `path` is `base` or lies below it. Both normalised.
pub fn within(path: &str, base: &str) -> bool {
    base == "/" || path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Refuses a path that no mount of the target holds: it would be written into the container and lost.
pub fn inside_mounts(path: &str, mounts: &[String]) -> Result<(), Failure> {
    if mounts.iter().any(|m| within(path, &clean(m))) {
        return Ok(());
    }
    let mounts = if mounts.is_empty() { "none".to_owned() } else { mounts.join(", ") };
    Err(Failure::new(
        Class::Invalid,
        reason::PATH_OUTSIDE_MOUNTS,
        format!(
            "{path} lies outside every mount of the target ({mounts}). Mount a volume of the target where the data was backed up, or restore other paths."
        ),
    ))
}

/// Resolves one host's question against all snapshots of the repository.
pub fn resolve(query: &HostQuery, all: &[Snapshot]) -> Result<Vec<PinnedSnapshot>, Failure> {
    let mut own: Vec<&Snapshot> =
        all.iter().filter(|s| s.hostname == query.source_host && tagged(s, &query.tags)).collect();
    // Oldest first; the id decides between equal times, so that the answer never depends on the store's order.
    own.sort_by(|a, b| a.at().cmp(&b.at()).then_with(|| a.id.cmp(&b.id)));

    let mut pins = Vec::new();
    for path in query.paths.iter().map(|p| clean(p)) {
        inside_mounts(&path, &query.mounts)?;
        let newest = own.iter().rev().find(|s| s.clean_paths().iter().any(|held| within(&path, held)));
        let newest = newest.ok_or_else(|| not_found(query, all, &own, &format!("path {path}")))?;
        pins.push(newest.pin(Some(path)));
    }
    for wanted in &query.snapshots {
        let found = if wanted == LATEST { latest(query, all, &own)? } else { vec![by_id(query, all, wanted)?] };
        for snapshot in found {
            for path in snapshot.clean_paths() {
                inside_mounts(&path, &query.mounts)?;
            }
            if !pins.iter().any(|p: &PinnedSnapshot| p.id == snapshot.id && p.path.is_none()) {
                pins.push(snapshot.pin(None));
            }
        }
    }
    Ok(pins)
}

/// The newest snapshot, with the others of its backup run: together they are one consistent set.
fn latest<'a>(query: &HostQuery, all: &[Snapshot], own: &[&'a Snapshot]) -> Result<Vec<&'a Snapshot>, Failure> {
    let newest = own.last().ok_or_else(|| not_found(query, all, own, "snapshot"))?;
    let Some(run) = newest.run_tag() else { return Ok(vec![newest]) };
    // A step that was tried twice leaves two snapshots of a path: the later one counts.
    let mut set: BTreeMap<Vec<String>, &Snapshot> = BTreeMap::new();
    for snapshot in own.iter().filter(|s| s.run_tag() == Some(run)) {
        set.insert(snapshot.clean_paths(), snapshot);
    }
    Ok(set.into_values().collect())
}

fn by_id<'a>(query: &HostQuery, all: &'a [Snapshot], wanted: &str) -> Result<&'a Snapshot, Failure> {
    if wanted.len() < ID_MIN || !wanted.chars().all(|c| c.is_ascii_hexdigit()) {
        let text = format!("{wanted:?} is no snapshot id: give {ID_MIN} to 64 hex digits, or latest.");
        return Err(Failure::new(Class::Invalid, reason::INVALID, text));
    }
    let wanted = wanted.to_ascii_lowercase();
    let found: Vec<_> = all.iter().filter(|s| s.id.starts_with(&wanted)).collect();
    match found.as_slice() {
        [] => {
            let own: Vec<_> = all.iter().filter(|s| s.hostname == query.source_host).collect();
            Err(not_found(query, all, &own, &format!("snapshot {wanted}")))
        }
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

/// Any of the lists, all tags of it; no list asks for nothing.
fn tagged(snapshot: &Snapshot, lists: &[Vec<String>]) -> bool {
    lists.is_empty() || lists.iter().any(|all| all.iter().all(|tag| snapshot.tags().contains(tag)))
}

fn not_found(query: &HostQuery, all: &[Snapshot], own: &[&Snapshot], what: &str) -> Failure {
    let tags = if query.tags.is_empty() {
        String::new()
    } else {
        format!(" and tags {}", query.tags.iter().map(|l| l.join("+")).collect::<Vec<_>>().join(" or "))
    };
    let mut newest: BTreeMap<String, &Snapshot> = BTreeMap::new();
    let there = if !own.is_empty() {
        for snapshot in own {
            newest.insert(snapshot.clean_paths().join(" + "), snapshot);
        }
        format!("This host has {}", list(&newest))
    } else if all.is_empty() {
        "The repository holds no snapshot at all".to_owned()
    } else {
        let mut sorted: Vec<_> = all.iter().collect();
        sorted.sort_by_key(|s| s.at());
        for snapshot in sorted {
            newest.insert(format!("host {:?}", snapshot.hostname), snapshot);
        }
        format!("The repository has {}", list(&newest))
    };
    Failure::new(
        Class::Data,
        reason::SNAPSHOT_NOT_FOUND,
        format!("No {what} for host {:?}{tags}. {there}.", query.source_host),
    )
}

fn list(newest: &BTreeMap<String, &Snapshot>) -> String {
    let mut items: Vec<String> =
        newest.iter().take(NAMED).map(|(name, s)| format!("{name} (newest {})", s.time_text())).collect();
    if newest.len() > NAMED {
        items.push(format!("{} more", newest.len() - NAMED));
    }
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot(n: u32, host: &str, paths: &[&str], run: Option<&str>) -> Snapshot {
        Snapshot {
            id: format!("{n:08x}{}", "0".repeat(56)),
            time: format!("2026-01-01T00:{:02}:00.123456789+01:00", n % 60),
            hostname: host.into(),
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
            tags: run.map(|r| vec![format!("{RUN_TAG_PREFIX}{r}")]),
        }
    }

    fn query(host: &str) -> HostQuery {
        HostQuery {
            host: "host-9".into(),
            source_host: host.into(),
            mounts: vec!["/data".into(), "/etc/app/".into()],
            ..HostQuery::default()
        }
    }

    fn all() -> Vec<Snapshot> {
        vec![
            snapshot(1, "host-0", &["/data"], Some("a")),
            snapshot(2, "host-0", &["/etc/app"], Some("a")),
            snapshot(3, "host-0", &["/data/"], Some("b")),
            snapshot(4, "host-0", &["/etc/app"], Some("b")),
            snapshot(5, "host-0", &["/etc/app"], Some("b")),
            snapshot(9, "host-1", &["/data"], Some("c")),
        ]
    }

    fn ids(pins: &[PinnedSnapshot]) -> Vec<&str> {
        pins.iter().map(|p| p.id[..8].trim_start_matches('0')).collect()
    }

    #[test]
    fn a_path_gets_the_newest_snapshot_of_its_host_that_holds_it() {
        let q = HostQuery { paths: vec!["/data/db//".into(), "/etc/app".into()], ..query("host-0") };
        let pins = resolve(&q, &all()).unwrap();
        assert_eq!(ids(&pins), ["3", "5"]);
        assert_eq!(pins[0].path.as_deref(), Some("/data/db"));
        assert_eq!(pins[0].time, "2025-12-31T23:03:00Z");
    }

    #[test]
    fn a_name_that_only_begins_alike_is_another_path() {
        let q = HostQuery { paths: vec!["/database".into()], mounts: vec!["/".into()], ..query("host-0") };
        assert_eq!(resolve(&q, &all()).unwrap_err().reason, reason::SNAPSHOT_NOT_FOUND);
    }

    #[test]
    fn latest_is_the_whole_run_and_a_repeated_path_counts_once() {
        let q = HostQuery { snapshots: vec!["latest".into()], ..query("host-0") };
        assert_eq!(ids(&resolve(&q, &all()).unwrap()), ["3", "5"]);
        let untagged = [snapshot(1, "h", &["/data"], None), snapshot(2, "h", &["/data"], None)];
        let q = HostQuery { snapshots: vec!["latest".into()], ..query("h") };
        assert_eq!(ids(&resolve(&q, &untagged).unwrap()), ["2"]);
    }

    #[test]
    fn an_id_of_another_host_names_both() {
        let q = HostQuery { snapshots: vec!["00000009".into()], ..query("host-0") };
        let failure = resolve(&q, &all()).unwrap_err();
        assert_eq!(failure.reason, reason::SNAPSHOT_OF_ANOTHER_HOST);
        assert!(failure.message.contains("host-0") && failure.message.contains("host-1"));
    }

    #[test]
    fn ids_that_cannot_be_meant_are_refused() {
        let ask = |id: &str| resolve(&HostQuery { snapshots: vec![id.into()], ..query("host-0") }, &all()).unwrap_err();
        assert_eq!(ask("0000001").class, Class::Invalid);
        assert_eq!(ask("zzzzzzzz").class, Class::Invalid);
        assert_eq!(ask("--target=/").class, Class::Invalid);
        assert_eq!(ask("deadbeef").reason, reason::SNAPSHOT_NOT_FOUND);
        let mut twins = all();
        twins[1].id = format!("00000001{}", "1".repeat(56));
        let q = HostQuery { snapshots: vec!["00000001".into()], ..query("host-0") };
        assert!(resolve(&q, &twins).unwrap_err().message.contains("ambiguous"));
    }

    #[test]
    fn outside_of_every_mount_is_refused() {
        let q = HostQuery { paths: vec!["/data/../etc/passwd".into()], ..query("host-0") };
        assert_eq!(resolve(&q, &all()).unwrap_err().reason, reason::PATH_OUTSIDE_MOUNTS);
        let q = HostQuery { snapshots: vec!["00000001".into()], mounts: vec!["/data/deep".into()], ..query("host-0") };
        assert_eq!(resolve(&q, &all()).unwrap_err().reason, reason::PATH_OUTSIDE_MOUNTS);
    }

    #[test]
    fn tags_are_or_of_and() {
        let q = |tags: &[&[&str]]| HostQuery {
            snapshots: vec!["latest".into()],
            tags: tags.iter().map(|l| l.iter().map(|t| (*t).to_owned()).collect()).collect(),
            ..query("host-0")
        };
        assert_eq!(ids(&resolve(&q(&[&["lifeboat.run=a"]]), &all()).unwrap()), ["1", "2"]);
        assert!(resolve(&q(&[&["lifeboat.run=a", "lifeboat.run=b"]]), &all()).is_err());
        assert_eq!(ids(&resolve(&q(&[&["x"], &["lifeboat.run=a"]]), &all()).unwrap()), ["1", "2"]);
    }

    #[test]
    fn what_exists_is_named() {
        let message = |host: &str| {
            resolve(&HostQuery { paths: vec!["/etc/app/x".into()], ..query(host) }, &all()).unwrap_err().message
        };
        assert!(message("host-1").contains("/data (newest 2025-12-31T23:09:00Z)"), "{}", message("host-1"));
        assert!(message("host-7").contains("host \"host-0\""), "{}", message("host-7"));
    }

    proptest! {
        #[test]
        fn never_another_host_whatever_is_asked(snapshots in proptest::collection::vec("latest|[0-9a-f]{8,10}", 0..3), path in "/[a-c/.]{0,6}", host in "host-[0-2]") {
            let q = HostQuery { snapshots, paths: vec![path], mounts: vec!["/".into()], ..query(&host) };
            let everything = all();
            if let Ok(pins) = resolve(&q, &everything) {
                for pin in pins {
                    let of = everything.iter().find(|s| s.id == pin.id).unwrap();
                    prop_assert_eq!(&of.hostname, &host);
                }
            }
        }

        #[test]
        fn clean_is_absolute_and_stable(path in "[a-c/.]{0,12}") {
            let once = clean(&path);
            prop_assert!(once.starts_with('/') && !once.contains("//"));
            prop_assert_eq!(clean(&once), once);
        }
    }
}
