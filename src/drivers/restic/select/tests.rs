use crate::contract::restic::{INCOMPLETE_TAG, PATHS_TAG_PREFIX, RUN_TAG_PREFIX, SESSION_TAG_PREFIX};
use crate::drivers::restic::select::*;
use crate::drivers::restic::snapshot::{Summary, know_future};
use proptest::prelude::*;

/// The snapshots of a host that is queried alone.
fn resolve(query: &HostQuery, all: &[Snapshot]) -> Result<Vec<PinnedSnapshot>, Failure> {
    super::resolve(query, &[], all)
}

fn snapshot(n: u32, host: &str, paths: &[&str], run: Option<&str>) -> Snapshot {
    Snapshot {
        id: format!("{n:08x}{}", "0".repeat(56)),
        time: format!("2026-01-01T00:{:02}:00.123456789+01:00", n % 60),
        hostname: host.into(),
        paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        tags: run.map(|r| vec![format!("{RUN_TAG_PREFIX}{r}")]),
        ..Snapshot::default()
    }
}

fn query(host: &str) -> HostQuery {
    HostQuery { source_host: host.into(), mounts: vec!["/data".into(), "/etc/app/".into()], ..HostQuery::default() }
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

/// Three runs of two hosts. The newest run has no snapshot of host-1, and the second run takes until 12.
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

/// A time in minute `n`, like that of `snapshot`.
fn minute(n: u32) -> String {
    format!("2026-01-01T00:{n:02}:30+01:00")
}

/// Proves: A02.
#[test]
fn as_of_of_a_rule_takes_the_newest_run_that_had_ended_then() {
    let at = |host: &str, n| resolve(&HostQuery { as_of: Some(minute(n)), ..whole_set(host) }, &runs()).unwrap();
    // Each host alone: the newest run has no snapshot of host-1.
    assert_eq!((ids(&at("host-0", 59)), ids(&at("host-1", 59))), (vec!["14"], vec!["c"]));
    assert_eq!((ids(&at("host-0", 12)), ids(&at("host-1", 12))), (vec!["a", "b"], vec!["c"]));
    // The second run was complete for host-0 by 11, but not as a whole: both hosts get the run before it.
    assert_eq!((ids(&at("host-0", 11)), ids(&at("host-1", 11))), (vec!["1", "2"], vec!["3"]));
    let early = resolve(&HostQuery { as_of: Some(minute(0)), ..whole_set("host-0") }, &runs()).unwrap_err();
    assert_eq!(early.reason, reason::SNAPSHOT_NOT_FOUND);
    assert!(early.message.contains("complete at 2026-01-01T00:00:30+01:00"), "{}", early.message);
    assert!(early.message.contains("/data (oldest 2025-12-31T23:01:00Z, newest"), "{}", early.message);
    let path = HostQuery { as_of: Some(minute(15)), paths: vec!["/data/x".into()], ..query("host-0") };
    assert_eq!(ids(&resolve(&path, &runs()).unwrap()), ["a"]);
    let wrong = HostQuery { as_of: Some("yesterday".into()), ..whole_set("host-0") };
    assert_eq!(resolve(&wrong, &runs()).unwrap_err().class, Class::Invalid);
}

fn companions(hosts: &[&str]) -> Vec<Companion> {
    hosts.iter().map(|h| Companion { source_host: (*h).to_owned(), ..Companion::default() }).collect()
}

/// The snapshots of a host whose session has the asOf, together with these hosts.
fn beside(set: &[Companion], host: &str, n: u32, all: &[Snapshot]) -> Result<Vec<PinnedSnapshot>, Failure> {
    super::resolve(&HostQuery { as_of: Some(minute(n)), together: true, ..whole_set(host) }, set, all)
}

/// Proves: A02.
#[test]
fn as_of_of_a_session_takes_the_newest_run_that_holds_all_of_its_hosts() {
    let set = companions(&["host-0", "host-1"]);
    let at = |host: &str, n| beside(&set, host, n, &runs());
    for n in [12, 20, 59] {
        assert_eq!(ids(&at("host-0", n).unwrap()), ["a", "b"], "at {n}");
        assert_eq!(ids(&at("host-1", n).unwrap()), ["c"], "at {n}");
    }
    assert_eq!((ids(&at("host-0", 11).unwrap()), ids(&at("host-1", 11).unwrap())), (vec!["1", "2"], vec!["3"]));
    assert_eq!(ids(&beside(&companions(&["host-0"]), "host-0", 59, &runs()).unwrap()), ["14"], "alone it is free");
}

/// Proves: A02.
#[test]
fn a_run_that_lacks_a_host_is_named_with_it() {
    let set = companions(&["host-0", "host-1"]);
    // The hosts belong together, and neither of the two runs of that time contains both.
    let mut all = runs();
    all.retain(|s| s.run_tag() != Some("lifeboat.run=a") || s.hostname == "host-0");
    for host in ["host-0", "host-1"] {
        let failure = beside(&set, host, 11, &all).unwrap_err();
        assert_eq!((failure.class, failure.reason.as_str()), (Class::Data, reason::SNAPSHOT_NOT_FOUND));
        for word in ["BackupSession demo/first", "lacks host \"host-1\"", "\"host-0\", \"host-1\""] {
            assert!(failure.message.contains(word), "{word}: {}", failure.message);
        }
    }
    // A host that may be empty does not block the other host.
    let mut lenient = set.clone();
    lenient[1].optional = true;
    assert_eq!(ids(&beside(&lenient, "host-0", 59, &runs()).unwrap()), ["14"]);
    assert_eq!(beside(&lenient, "host-1", 59, &runs()).unwrap_err().reason, reason::SNAPSHOT_NOT_FOUND);
    // A snapshot that another host already uses decides the run.
    let mut later = set.clone();
    later[0].pinned = Some(runs()[0].id[..16].to_owned());
    assert_eq!(ids(&beside(&later, "host-1", 59, &runs()).unwrap()), ["3"]);
    later[0].pinned = Some(runs()[6].id[..16].to_owned());
    let failure = beside(&later, "host-1", 59, &runs()).unwrap_err();
    assert!(failure.message.contains("BackupSession demo/third"), "{}", failure.message);
    later[0].pinned = Some("f".repeat(16));
    assert!(beside(&later, "host-1", 59, &runs()).unwrap_err().message.contains("no longer exists in the repository"));
}

/// Proves: A02.
#[test]
fn hosts_that_no_run_ever_held_together_each_take_their_own_newest() {
    let mut all = runs();
    all.push(snapshot(30, "alone", &["/data"], Some("x")));
    all.push(snapshot(31, "foreign", &["/data"], None));
    let set = companions(&["host-0", "host-1", "alone", "foreign"]);
    let at = |host: &str| beside(&set, host, 59, &all).unwrap();
    assert_eq!((ids(&at("alone")), ids(&at("foreign"))), (vec!["1e"], vec!["1f"]));
    assert_eq!((ids(&at("host-0")), ids(&at("host-1"))), (vec!["a", "b"], vec!["c"]));
    // At a time before the first run, only snapshots exist.
    let mut old = vec![snapshot(0, "host-0", &["/data"], None), snapshot(1, "host-1", &["/data"], None)];
    old.extend(runs().into_iter().skip(3));
    assert_eq!(ids(&beside(&set, "host-0", 5, &old).unwrap()), [""]);
    assert_eq!(ids(&beside(&set, "host-1", 5, &old).unwrap()), ["1"]);
}

/// Every set of snapshots of three runs, two hosts and two paths, at every time.
/// Proves: A02.
#[test]
fn whatever_there_is_all_hosts_of_a_set_get_one_run_and_all_of_it() {
    let set = companions(&["host-0", "host-1"]);
    let mut every = vec![];
    for (run, name) in ["a", "b", "c"].iter().enumerate() {
        for (i, (host, path)) in
            [("host-0", "/data"), ("host-1", "/data"), ("host-0", "/etc/app"), ("host-1", "/etc/app")]
                .iter()
                .enumerate()
        {
            let n = u32::try_from(run * 10 + i).unwrap();
            let mut s = snapshot(n, host, &[path], Some(name));
            s.tags.get_or_insert_default().push(format!("{PATHS_TAG_PREFIX}2"));
            every.push(s);
        }
    }
    let mut found = 0;
    for there in 0u32..1 << every.len() {
        let all: Vec<Snapshot> =
            every.iter().enumerate().filter(|(i, _)| there & (1 << i) != 0).map(|(_, s)| s.clone()).collect();
        let held = |run: &str, host: &str| all.iter().filter(|s| s.hostname == host && s.run() == run).count();
        let runs = ["lifeboat.run=a", "lifeboat.run=b", "lifeboat.run=c"];
        let related = runs.iter().any(|r| held(r, "host-0") > 0 && held(r, "host-1") > 0);
        for n in [5, 15, 25] {
            let got = ["host-0", "host-1"].map(|h| beside(&set, h, n, &all));
            let run = |pins: &[PinnedSnapshot]| {
                assert_eq!(pins.len(), 2, "both paths, or none");
                let run = |p: &PinnedSnapshot| all.iter().find(|s| s.id == p.id).unwrap().run().to_owned();
                assert_eq!(run(&pins[0]), run(&pins[1]));
                run(&pins[0])
            };
            match (&got[0], &got[1]) {
                (Ok(a), Ok(b)) => {
                    let (a, b) = (run(a), run(b));
                    assert!(a == b || !related, "{a} and {b}");
                    found += 1;
                }
                (Ok(one), Err(_)) | (Err(_), Ok(one)) => {
                    run(one);
                    assert!(!related, "one of two that belong together");
                }
                (Err(_), Err(_)) => {
                    let newest = usize::try_from(n / 10).unwrap();
                    let all_of = |r: &&str| held(r, "host-0") == 2 && held(r, "host-1") == 2;
                    assert!(!runs[..=newest].iter().any(all_of), "there is one");
                }
            }
        }
    }
    assert!(found > 1000);
}

/// Two runs of two paths each. The second run is incomplete.
fn half() -> Vec<Snapshot> {
    let of = |n, path: &str, run: &str, more: &[&str]| {
        let mut s = snapshot(n, "host-0", &[path], Some(run));
        s.tags.get_or_insert_default().extend(more.iter().map(|t| (*t).to_owned()));
        s
    };
    let two = "lifeboat.paths=2";
    vec![of(1, "/data", "a", &[two]), of(2, "/etc/app", "a", &[two]), of(10, "/data", "b", &[two])]
}

/// Proves: A02.
#[test]
fn half_a_run_is_no_backup() {
    assert_eq!(ids(&resolve(&whole_set("host-0"), &half()).unwrap()), ["1", "2"]);
    let as_of = HostQuery { as_of: Some(minute(59)), ..whole_set("host-0") };
    assert_eq!(ids(&resolve(&as_of, &half()).unwrap()), ["1", "2"]);
    let path = HostQuery { paths: vec!["/data".into()], ..query("host-0") };
    assert_eq!(ids(&resolve(&path, &half()).unwrap()), ["a"], "a path stands for itself");
    let path = HostQuery { as_of: Some(minute(59)), ..path };
    assert_eq!(ids(&resolve(&path, &half()).unwrap()), ["1"], "the newer run was never complete");
    let back = HostQuery { previous: 1, ..whole_set("host-0") };
    assert!(resolve(&back, &half()).unwrap_err().message.contains("1 back: there are 1"));
    let failure = resolve(&whole_set("host-0"), &half()[2..]).unwrap_err();
    assert_eq!(failure.reason, reason::SNAPSHOT_NOT_FOUND);
    assert!(failure.message.contains("host \"host-0\" of run b has 1 of 2 paths"), "{}", failure.message);
    // With the second path, the run is complete.
    let mut done = half();
    done.push(Snapshot { paths: vec!["/etc/app".into()], id: "d".repeat(64), ..half()[2].clone() });
    assert_eq!(ids(&resolve(&whole_set("host-0"), &done).unwrap()), ["a", "dddddddd"]);
}

#[test]
fn a_snapshot_without_all_files_is_taken_by_its_id_only() {
    let mut all = half();
    all.push(Snapshot { paths: vec!["/etc/app".into()], id: "d".repeat(64), ..half()[2].clone() });
    all[3].tags.get_or_insert_default().push(INCOMPLETE_TAG.into());
    assert_eq!(ids(&resolve(&whole_set("host-0"), &all).unwrap()), ["1", "2"]);
    let path = HostQuery { paths: vec!["/etc/app".into()], ..query("host-0") };
    assert_eq!(ids(&resolve(&path, &all).unwrap()), ["2"]);
    let named = HostQuery { snapshots: vec!["dddddddd".into()], ..query("host-0") };
    assert_eq!(ids(&resolve(&named, &all).unwrap()), ["dddddddd"]);
    let failure = resolve(&whole_set("host-0"), &all[2..]).unwrap_err();
    assert!(failure.message.contains("has /etc/app without files that could not be read"), "{}", failure.message);
    // A retry in the same run succeeds.
    all.push(Snapshot { paths: vec!["/etc/app".into()], id: "e".repeat(64), ..half()[2].clone() });
    assert_eq!(ids(&resolve(&whole_set("host-0"), &all).unwrap()), ["a", "eeeeeeee"]);
}

/// An attempt that was killed before it could tag its snapshot, and the next attempt, which misses the same files.
#[test]
fn the_last_try_of_a_path_decides_for_those_before_it() {
    let of = |n, path: &str, is_incomplete: bool| {
        let mut s = snapshot(n, "host-0", &[path], Some("b"));
        let tags = ["lifeboat.paths=1", INCOMPLETE_TAG];
        s.tags.get_or_insert_default().extend(tags[..=usize::from(is_incomplete)].iter().map(|t| (*t).to_owned()));
        s
    };
    let old = Snapshot { tags: Some(vec![format!("{RUN_TAG_PREFIX}a")]), ..of(1, "/data", false) };
    let path = HostQuery { paths: vec!["/data".into()], ..query("host-0") };
    let as_of = HostQuery { as_of: Some(minute(59)), ..path.clone() };
    let all = [of(11, "/data/", true), old.clone(), of(10, "/data", false)];
    for asked in [&whole_set("host-0"), &path, &as_of] {
        assert_eq!(ids(&resolve(asked, &all).unwrap()), ["1"], "{asked:?}");
    }
    let failure = resolve(&whole_set("host-0"), &[all[0].clone(), all[2].clone()]).unwrap_err();
    assert!(failure.message.contains("has /data without files that could not be read"), "{}", failure.message);
    // One more retry succeeds; it says nothing about another path.
    let all = [of(11, "/data", true), old, of(10, "/data", false), of(12, "/data", false)];
    for asked in [&whole_set("host-0"), &path, &as_of] {
        assert_eq!(ids(&resolve(asked, &all).unwrap()), ["c"], "{asked:?}");
    }
    let beside = [of(10, "/data", false), of(11, "/etc/app", true)];
    assert_eq!(ids(&resolve(&path, &beside).unwrap()), ["a"]);
}

#[test]
fn a_snapshot_counts_from_when_it_was_there() {
    let mut all = half();
    all[1].summary = Some(Summary { backup_end: Some(minute(30)) });
    let at = |n| resolve(&HostQuery { as_of: Some(minute(n)), ..whole_set("host-0") }, &all);
    assert!(at(29).is_err(), "its second path was still being read");
    assert_eq!(ids(&at(30).unwrap()), ["1", "2"]);
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
    let both = HostQuery { as_of: Some(minute(15)), previous: 1, ..whole_set("host-0") };
    assert_eq!(ids(&resolve(&both, &runs()).unwrap()), ["1", "2"]);
    let foreign = [snapshot(1, "h", &["/data"], None), snapshot(2, "h", &["/data"], None)];
    let q = HostQuery { previous: 1, ..whole_set("h") };
    assert_eq!(ids(&resolve(&q, &foreign).unwrap()), ["1"], "a snapshot of another program is a run of its own");
}

/// Proves: A02.
#[test]
fn a_session_is_its_run_and_nothing_else() {
    let of =
        |host: &str, session: &str| resolve(&HostQuery { session: Some(session.into()), ..whole_set(host) }, &runs());
    assert_eq!(ids(&of("host-0", "demo/first").unwrap()), ["1", "2"]);
    assert_eq!(ids(&of("host-1", "demo/second").unwrap()), ["c"]);
    let lacks = of("host-1", "demo/third").unwrap_err();
    assert_eq!(lacks.reason, reason::SNAPSHOT_NOT_FOUND);
    for word in ["host \"host-1\"", "BackupSession demo/third", "That session has host \"host-0\""] {
        assert!(lacks.message.contains(word), "{}", lacks.message);
    }
    assert!(of("host-0", "demo/none").unwrap_err().message.contains("holds nothing of that session"));
    assert!(of("host-0", "other/first").is_err(), "the namespace counts");
    // A session was created again with the same name: the newer run is used.
    let mut twice = runs();
    twice.iter_mut().filter(|s| s.run_tag() == Some("lifeboat.run=b")).for_each(|s| {
        s.tags = Some(vec!["lifeboat.run=b".into(), format!("{SESSION_TAG_PREFIX}demo/first")]);
    });
    let q = HostQuery { session: Some("demo/first".into()), ..whole_set("host-0") };
    assert_eq!(ids(&resolve(&q, &twice).unwrap()), ["a", "b"]);
}

/// A tag that users add to their own backups comes after the tags of the backup itself.
///
/// Closes: row 13 of the attacks of tenants.
#[test]
fn a_snapshot_is_of_the_run_and_session_that_made_it_whatever_tags_were_added() {
    let mut with_forged = runs();
    let mut forged = snapshot(55, "mallory", &["/data"], Some("m"));
    forged
        .tags
        .get_or_insert_default()
        .extend(["lifeboat.session=mallory/x", "lifeboat.run=a", "lifeboat.session=demo/first"].map(str::to_owned));
    with_forged.push(forged);
    let q = HostQuery { session: Some("demo/first".into()), ..whole_set("host-0") };
    assert_eq!(ids(&resolve(&q, &with_forged).unwrap()), ["1", "2"]);
    let q = HostQuery { as_of: Some("2026-01-01T00:05:00Z".into()), ..whole_set("host-0") };
    let (before, after) = (resolve(&q, &runs()), resolve(&q, &with_forged));
    assert_eq!(before.map(|p| p.len()).map_err(|f| f.reason), after.map(|p| p.len()).map_err(|f| f.reason));
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

/// Closes: R21 of the reports.
#[test]
fn a_snapshot_of_the_future_is_not_the_latest() {
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let dated =
        |n: u32, time: &str, run: &str| Snapshot { time: time.into(), ..snapshot(n, "host-0", &["/data"], Some(run)) };
    let mut with = all();
    with.push(dated(7, "2037-01-01T00:00:00Z", "x"));
    // Within the tolerated clock difference.
    with.push(dated(8, "2026-01-01T12:59:00Z", "y"));
    know_future(&mut with, now);
    for (q, expected) in [
        (HostQuery { paths: vec!["/data".into()], ..query("host-0") }, "8"),
        (HostQuery { snapshots: vec![LATEST.into()], ..query("host-0") }, "8"),
        (HostQuery { paths: vec!["/data".into()], previous: 3, ..query("host-0") }, "7"),
        (HostQuery { snapshots: vec!["00000007".into()], ..query("host-0") }, "7"),
    ] {
        let pins = resolve(&q, &with).unwrap();
        assert_eq!(ids(&pins), [expected], "{q:?}");
        let note = warning(&q, &pins, &with);
        let said = match (expected, q.previous) {
            ("8", _) => Some("not selected as latest"),
            (_, 3) => Some("treated as the oldest one"),
            _ => None,
        };
        assert_eq!(note.is_some(), said.is_some(), "{note:?}");
        assert!(said.is_none_or(|s| note.as_ref().unwrap().contains(s)), "{note:?}");
    }
    // A time in the future does not select the snapshot of the future.
    let q = HostQuery { paths: vec!["/data".into()], as_of: Some("2099-01-01T00:00:00Z".into()), ..query("host-0") };
    assert_eq!(ids(&resolve(&q, &with).unwrap()), ["8"]);
    // A snapshot of the future that is the only one is used, with a warning.
    let mut alone = vec![dated(7, "2037-01-01T00:00:00Z", "x")];
    know_future(&mut alone, now);
    let q = HostQuery { paths: vec!["/data".into()], ..query("host-0") };
    assert_eq!(ids(&resolve(&q, &alone).unwrap()), ["7"]);
    assert!(warning(&q, &[], &alone).unwrap().contains("2037-01-01T00:00:00Z"));
    // If all snapshots are of the future, the latest is used, whatever their ids.
    let hours = [(4, "2037-01-01T02:00:00Z"), (9, "2037-01-01T01:00:00Z"), (2, "2037-01-01T03:00:00Z")];
    let mut all: Vec<Snapshot> = hours.iter().map(|(id, time)| dated(*id, time, &id.to_string())).collect();
    know_future(&mut all, now);
    assert_eq!(ids(&resolve(&q, &all).unwrap()), ["2"]);
}
