//! Which snapshots a host gets. Pure: a list and a question in, ids or a failure out.
//!
//! The host is always part of the question: neither `latest` nor an explicit id ever
//! yields another host's snapshot. What is found is fixed by full id, so that a
//! snapshot made a second later changes nothing any more.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::names::reason;
use crate::plan::contract::{Class, Failure, HostQuery, PinnedSnapshot, RUN_TAG_PREFIX, SESSION_TAG_PREFIX};

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

    /// Whether both are of one backup run. A snapshot without our tag is a run of its own.
    fn is_of_the_run_of(&self, other: &Self) -> bool {
        self.id == other.id || self.run_tag().is_some_and(|run| other.run_tag() == Some(run))
    }

    /// By time; the id decides between equal ones, so that the answer never depends on the store's order.
    fn age(&self, other: &Self) -> Ordering {
        self.at().cmp(&other.at()).then_with(|| self.id.cmp(&other.id))
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
    let own = candidates(query, all)?;
    let mut pins = Vec::new();
    for path in query.paths.iter().map(|p| clean(p)) {
        inside_mounts(&path, &query.mounts)?;
        let holders = own.iter().copied().filter(|s| s.clean_paths().iter().any(|held| within(&path, held)));
        let set = chosen(query, all, &holders.collect::<Vec<_>>(), &format!("snapshot that holds {path}"))?;
        pins.extend(set.last().map(|newest| newest.pin(Some(path))));
    }
    for wanted in &query.snapshots {
        let found = if wanted == LATEST { whole(query, all, &own)? } else { vec![by_id(query, all, wanted)?] };
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

/// Snapshots of the source host that may be taken, oldest first.
fn candidates<'a>(query: &HostQuery, all: &'a [Snapshot]) -> Result<Vec<&'a Snapshot>, Failure> {
    let as_of = query.as_of.as_deref().map(str::parse::<Timestamp>).transpose();
    let as_of = as_of.map_err(|e| Failure::new(Class::Invalid, reason::INVALID, format!("asOf is no time: {e}.")))?;
    // A session that was deleted and made again under its name has two runs: the newer one is meant.
    let of_session = query.session.as_deref().map(|name| newest_of_session(name, all));
    // When a run ended says the last of its snapshots, whichever host that is of: so all hosts that are asked
    // for take the same run, even if this one was done before the time asked for and another was not.
    let mut ended: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for (run, at) in all.iter().filter_map(|s| Some((s.run_tag()?, s.at()))) {
        let last = ended.entry(run).or_insert(at);
        *last = at.max(*last);
    }
    let done = |s: &Snapshot| s.run_tag().and_then(|run| ended.get(run).copied()).unwrap_or_else(|| s.at());
    let mut own: Vec<&Snapshot> = all
        .iter()
        .filter(|s| s.hostname == query.source_host && tagged(s, &query.tags))
        .filter(|s| of_session.is_none_or(|newest| newest.is_some_and(|n| s.is_of_the_run_of(n))))
        .filter(|s| as_of.is_none_or(|at| done(s) <= at))
        .collect();
    own.sort_by(|a, b| a.age(b));
    Ok(own)
}

/// The newest snapshot that a BackupSession made, of whichever host.
fn newest_of_session<'a>(name: &str, all: &'a [Snapshot]) -> Option<&'a Snapshot> {
    let tag = format!("{SESSION_TAG_PREFIX}{name}");
    all.iter().filter(|s| s.tags().contains(&tag)).max_by(|a, b| a.age(b))
}

/// Of these snapshots, oldest first, those of the run that is asked for.
fn chosen<'a>(
    query: &HostQuery,
    all: &[Snapshot],
    from: &[&'a Snapshot],
    what: &str,
) -> Result<Vec<&'a Snapshot>, Failure> {
    let mut newest_of_sets: Vec<&Snapshot> = vec![];
    for snapshot in from.iter().rev() {
        if !newest_of_sets.iter().any(|n| snapshot.is_of_the_run_of(n)) {
            newest_of_sets.push(snapshot);
        }
    }
    let newest = newest_of_sets.get(query.previous).ok_or_else(|| not_found(query, all, newest_of_sets.len(), what))?;
    Ok(from.iter().copied().filter(|s| s.is_of_the_run_of(newest)).collect())
}

/// All snapshots of the run that is asked for: together they are one consistent set.
fn whole<'a>(query: &HostQuery, all: &[Snapshot], own: &[&'a Snapshot]) -> Result<Vec<&'a Snapshot>, Failure> {
    // A step that was tried twice leaves two snapshots of a path: the later one counts.
    let set = chosen(query, all, own, "snapshot")?;
    let by_path: BTreeMap<Vec<String>, &Snapshot> = set.into_iter().map(|s| (s.clean_paths(), s)).collect();
    Ok(by_path.into_values().collect())
}

fn by_id<'a>(query: &HostQuery, all: &'a [Snapshot], wanted: &str) -> Result<&'a Snapshot, Failure> {
    if wanted.len() < ID_MIN || !wanted.chars().all(|c| c.is_ascii_hexdigit()) {
        let text = format!("{wanted:?} is no snapshot id: give {ID_MIN} to 64 hex digits, or latest.");
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

/// Any of the lists, all tags of it; no list asks for nothing.
fn tagged(snapshot: &Snapshot, lists: &[Vec<String>]) -> bool {
    lists.is_empty() || lists.iter().any(|all| all.iter().all(|tag| snapshot.tags().contains(tag)))
}

fn not_found(query: &HostQuery, all: &[Snapshot], sets: usize, what: &str) -> Failure {
    let mut which = String::new();
    if !query.tags.is_empty() {
        let lists: Vec<String> = query.tags.iter().map(|l| l.join("+")).collect();
        which += &format!(" with tags {}", lists.join(" or "));
    }
    if let Some(at) = &query.as_of {
        which += &format!(" from a backup that was complete at {at}");
    }
    if let Some(session) = &query.session {
        which += &format!(" made by BackupSession {session}");
    }
    if sets > 0 {
        which += &format!(", {} back: there are {sets}, and 0 is the newest", query.previous);
    }
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

/// What there is, by name, each with its oldest and newest time.
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

    /// Three runs of session nightly, of two hosts; host-1 is missing in the newest, and the second takes until 12.
    fn runs() -> Vec<Snapshot> {
        let of = |n, host: &str, path: &str, run: &str, session: &str| {
            let mut s = snapshot(n, host, &[path], Some(run));
            s.tags.get_or_insert_default().extend([format!("{SESSION_TAG_PREFIX}demo/{session}"), "weekly".into()]);
            s
        };
        vec![
            of(1, "host-0", "/data", "a", "first"),
            of(2, "host-0", "/etc/app", "a", "first"),
            of(3, "host-1", "/data", "a", "first"),
            of(10, "host-0", "/data", "b", "second"),
            of(11, "host-0", "/etc/app", "b", "second"),
            of(12, "host-1", "/data", "b", "second"),
            of(20, "host-0", "/data", "c", "third"),
        ]
    }

    fn whole_set(host: &str) -> HostQuery {
        HostQuery { snapshots: vec!["latest".into()], ..query(host) }
    }

    /// Minute `n` of `snapshot`.
    fn minute(n: u32) -> Option<String> {
        Some(format!("2026-01-01T00:{n:02}:30+01:00"))
    }

    /// Proves: A02.
    #[test]
    fn as_of_takes_the_newest_run_that_was_complete_for_all_hosts() {
        let at = |host: &str, n| resolve(&HostQuery { as_of: minute(n), ..whole_set(host) }, &runs()).unwrap();
        assert_eq!((ids(&at("host-0", 59)), ids(&at("host-1", 59))), (vec!["14"], vec!["c"]));
        assert_eq!((ids(&at("host-0", 12)), ids(&at("host-1", 12))), (vec!["a", "b"], vec!["c"]));
        // Host 0 was done by 11, the run was not: both hosts get the run before.
        assert_eq!((ids(&at("host-0", 11)), ids(&at("host-1", 11))), (vec!["1", "2"], vec!["3"]));
        let early = resolve(&HostQuery { as_of: minute(0), ..whole_set("host-0") }, &runs()).unwrap_err();
        assert_eq!(early.reason, reason::SNAPSHOT_NOT_FOUND);
        assert!(early.message.contains("complete at 2026-01-01T00:00:30+01:00"), "{}", early.message);
        assert!(early.message.contains("/data (oldest 2025-12-31T23:01:00Z, newest"), "{}", early.message);
        let path = HostQuery { as_of: minute(15), paths: vec!["/data/x".into()], ..query("host-0") };
        assert_eq!(ids(&resolve(&path, &runs()).unwrap()), ["a"]);
        let wrong = HostQuery { as_of: Some("yesterday".into()), ..whole_set("host-0") };
        assert_eq!(resolve(&wrong, &runs()).unwrap_err().class, Class::Invalid);
    }

    /// Proves: A02.
    #[test]
    fn previous_counts_runs_of_those_that_hold_what_is_asked_for() {
        let back = |previous| resolve(&HostQuery { previous, ..whole_set("host-0") }, &runs());
        assert_eq!(ids(&back(0).unwrap()), ["14"]);
        assert_eq!((ids(&back(1).unwrap()), ids(&back(2).unwrap())), (vec!["a", "b"], vec!["1", "2"]));
        let none = back(3).unwrap_err();
        assert!(none.message.contains("3 back: there are 3"), "{}", none.message);
        let path = HostQuery { previous: 1, paths: vec!["/etc/app".into(), "/data".into()], ..query("host-0") };
        assert_eq!(ids(&resolve(&path, &runs()).unwrap()), ["2", "a"], "the newest run does not hold /etc/app");
        let both = HostQuery { as_of: minute(15), previous: 1, ..whole_set("host-0") };
        assert_eq!(ids(&resolve(&both, &runs()).unwrap()), ["1", "2"]);
        let foreign = [snapshot(1, "h", &["/data"], None), snapshot(2, "h", &["/data"], None)];
        let q = HostQuery { previous: 1, ..whole_set("h") };
        assert_eq!(ids(&resolve(&q, &foreign).unwrap()), ["1"], "a snapshot of another program is a run of its own");
    }

    /// Proves: A02.
    #[test]
    fn a_session_is_its_run_and_nothing_else() {
        let of = |host: &str, session: &str| {
            resolve(&HostQuery { session: Some(session.into()), ..whole_set(host) }, &runs())
        };
        assert_eq!(ids(&of("host-0", "demo/first").unwrap()), ["1", "2"]);
        assert_eq!(ids(&of("host-1", "demo/second").unwrap()), ["c"]);
        let lacks = of("host-1", "demo/third").unwrap_err();
        assert_eq!(lacks.reason, reason::SNAPSHOT_NOT_FOUND);
        for word in ["host \"host-1\"", "BackupSession demo/third", "That session has host \"host-0\""] {
            assert!(lacks.message.contains(word), "{}", lacks.message);
        }
        assert!(of("host-0", "demo/none").unwrap_err().message.contains("holds nothing of that session"));
        assert!(of("host-0", "other/first").is_err(), "the namespace counts");
        // Made again under its name: the newer run.
        let mut twice = runs();
        twice.iter_mut().filter(|s| s.run_tag() == Some("lifeboat.run=b")).for_each(|s| {
            s.tags = Some(vec!["lifeboat.run=b".into(), format!("{SESSION_TAG_PREFIX}demo/first")]);
        });
        let q = HostQuery { session: Some("demo/first".into()), ..whole_set("host-0") };
        assert_eq!(ids(&resolve(&q, &twice).unwrap()), ["a", "b"]);
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
