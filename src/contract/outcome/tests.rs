//! Every outcome fits its message, and nothing important is lost.

use proptest::prelude::*;

use crate::contract::outcome::*;
use crate::contract::restic::{Detail, MOST_PATHS, MOST_PINS, PinnedSnapshot, Pins, SnapshotMade, unpack_made};

/// Length of a host name with an alias and a node name of maximum length.
const HOST: usize = 320;

fn outcome(failure: Option<Failure>, answer: impl Into<Answer>) -> Outcome {
    Outcome {
        version: VERSION,
        run: "r".repeat(36),
        seconds: 123_456.789,
        failure,
        answer: Some(answer.into()),
        ..Outcome::default()
    }
}

fn read(outcome: &Outcome) -> Outcome {
    let text = outcome.encode();
    assert!(text.len() <= OUTCOME_LIMIT, "{} bytes", text.len());
    Outcome::decode(&text).unwrap()
}

fn id(n: usize) -> String {
    format!("{n:016x}{:048x}", 0x00ab_cdef)
}

fn pins(count: usize, path: Option<&str>) -> Vec<PinnedSnapshot> {
    let pin = |n| PinnedSnapshot { id: id(n + 1), time: "2026-11-20T16:40:27Z".into(), path: path.map(str::to_owned) };
    (0..count).map(pin).collect()
}

/// The packed answer about a host.
fn found(member: usize, host: &str, snapshots: Vec<PinnedSnapshot>, paths: &[String]) -> Found {
    let mut pins = Pins { snapshots, ..Pins::default() };
    pins.pack(paths);
    Found { part: Part { member, name: host.to_owned() }, pin: pins.write(), ..Found::default() }
}

fn pinned(found: &Found, paths: &[String]) -> Vec<PinnedSnapshot> {
    Pins::read(found.pin.as_ref()).unpacked(paths).unwrap()
}

fn saved(outcome: &Outcome, paths: &[String]) -> Vec<restic::Saved> {
    let Some(Answer::Restic(answer)) = &outcome.answer else { panic!("{outcome:?}") };
    answer.saved(paths).unwrap().unwrap()
}

/// Computed before answers could be packed: these answers did not fit.
///
/// Closes: defect 1 of the second engine.
#[test]
fn hosts_with_several_paths_are_all_answered_in_the_end() {
    for (hosts, paths) in [(16, 2), (12, 3), (9, 4), (40, 64)] {
        let name = |i: usize| format!("host-{i}");
        let mut open: Vec<Found> = (0..hosts).map(|i| found(i, &name(i), pins(paths, None), &[])).collect();
        let mut answered = vec![];
        while !open.is_empty() {
            let Some(Answer::Found(hosts)) = read(&outcome(None, Answer::Found(open.clone()))).answer else {
                panic!("{hosts} hosts, {paths} paths: no answer");
            };
            assert!(!hosts.is_empty());
            open.drain(..hosts.len());
            answered.extend(hosts.iter().map(|h| (h.part.name.clone(), pinned(h, &[]))));
        }
        let asked: Vec<_> = (0..hosts).map(|i| (name(i), pins(paths, None))).collect();
        assert_eq!(answered, asked);
    }
}

#[test]
fn a_host_that_does_not_fit_alone_is_told_so_and_no_other() {
    let host = |name: &str, count| found(0, name, pins(count, None), &[]);
    let Some(Answer::Found(hosts)) =
        read(&outcome(None, Answer::Found(vec![host("large", 500), host("small", 1)]))).answer
    else {
        panic!()
    };
    assert_eq!(hosts.len(), 1, "the other one is asked for again");
    let failure = hosts[0].failure.as_ref().unwrap();
    assert_eq!((failure.class, failure.reason.as_str()), (Class::Invalid, reason::OUTCOME_TOO_LARGE));
    assert!(failure.message.contains("Specify fewer"), "{}", failure.message);
}

#[test]
fn what_cannot_be_packed_stays_as_it_is() {
    for (id, time, path) in [
        ("AB".repeat(32), "2026-11-20T16:40:27Z", None),
        ("ab".repeat(31), "2026-11-20T16:40:27Z", None),
        (id(1), "yesterday", None),
        (id(1), "1969-11-20T16:40:27Z", None),
        (id(1), "2026-11-20T16:40:27Z", Some("/not/asked/for".to_owned())),
    ] {
        let snapshots = vec![PinnedSnapshot { id, time: time.into(), path }];
        let mut host = Pins { snapshots: snapshots.clone(), ..Pins::default() };
        host.pack(&["/data".to_owned()]);
        assert_eq!((host.packed.as_ref(), host.unpacked(&[]).unwrap()), (None, snapshots));
    }
    let garbled = |packed: &str| Pins { packed: Some(packed.into()), ..Pins::default() }.unpacked(&[]);
    assert!(garbled("a b").is_err() && garbled("AAAA").is_err() && garbled("").unwrap().is_empty());
}

/// 16 paths took 4,132 bytes: everything was uploaded, and the backup failed at every attempt.
///
/// Closes: defect 2 of the second engine.
#[test]
fn a_backup_of_many_paths_tells_all_counts() {
    let paths: Vec<String> = (0..64).map(|n| format!("/var/lib/app/{n}/{}", "x".repeat(200))).collect();
    let made: Vec<SnapshotMade> = paths
        .iter()
        .enumerate()
        .map(|(n, path)| SnapshotMade {
            id: id(n + 1),
            path: path.clone(),
            total_files: (1 << 28) - 1,
            new_files: (1 << 28) - 1,
            modified_files: (1 << 28) - 1,
            unmodified_files: (1 << 28) - 1,
            total_bytes: (1 << 56) - 1,
            uploaded_bytes: (1 << 56) - 1,
            seconds: 250_000.0,
        })
        .collect();
    let saved = saved(&read(&outcome(None, restic::Answer::BackedUp(made.clone()))), &paths);
    let short = |m: &SnapshotMade| SnapshotMade { id: m.id[..16].to_owned(), ..m.clone() };
    assert!(saved.iter().all(|s| s.detail == Detail::All));
    assert_eq!(saved.into_iter().map(|s| s.made).collect::<Vec<_>>(), made.iter().map(short).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn an_outcome_always_fits_and_reads_back(message in ".{0,6000}", hosts in 0usize..60, text in ".{0,400}") {
        let answer = Answer::Found((0..hosts).map(|i| Found {
            failure: Some(Failure::new(Class::Data, "SnapshotNotFound", text.clone())), warnings: vec![text.clone(); i % 3],
            ..found(i, &format!("host-{i}"), vec![], &[])
        }).collect());
        let outcome = Outcome { version: VERSION, run: "r".into(), seconds: 1.5, untouched: true,
            failure: Some(Failure::new(Class::Transient, "RepositoryUnreachable", message)), answer: Some(answer), warnings: vec![text.clone(); hosts % 4] };
        let back = read(&outcome);
        prop_assert!(back.failure.is_some());
        let Some(Answer::Found(answered)) = back.answer else { panic!("no answer") };
        prop_assert!(hosts == 0 || !answered.is_empty());
    }

    /// The largest backup that can be requested, with any counts and any failure.
    #[test]
    fn no_backup_is_lost_for_its_answer(
        counts in prop::collection::vec(any::<(u64, u64, u64, u64, u64)>(), 1..=MOST_PATHS),
        message in prop::option::of(prop_oneof![".{0,3000}", "[\"\\\\\\x00-\\x1f]{0,3000}"]),
    ) {
        let paths: Vec<String> = (0..counts.len()).map(|n| format!("/{n}/{}", "p".repeat(250))).collect();
        let made: Vec<SnapshotMade> = counts.iter().zip(&paths).enumerate().map(|(n, (c, path))| SnapshotMade {
            id: id(n + 1), path: path.clone(), total_files: c.0, new_files: c.1, modified_files: c.2, unmodified_files: c.3,
            total_bytes: c.4, uploaded_bytes: c.0, seconds: 1e6,
        }).collect();
        let failure = message.map(|m| Failure::new(Class::Data, "Incomplete", m));
        let back = read(&outcome(failure.clone(), restic::Answer::BackedUp(made.clone())));
        let saved = saved(&back, &paths);
        prop_assert_eq!(back.failure.map(|f| f.reason), failure.map(|f| f.reason));
        prop_assert_eq!(saved.len(), made.len());
        for (s, m) in saved.iter().zip(&made) {
            prop_assert!(m.id.starts_with(&s.made.id) && s.made.id.len() >= 16);
            prop_assert_eq!(&s.made.path, &m.path);
            if s.detail >= Detail::Sums {
                prop_assert_eq!((s.made.total_files, s.made.total_bytes), (m.total_files, m.total_bytes));
            }
        }
    }

    /// The maximum number of snapshots that admission allows for a host.
    #[test]
    fn a_host_that_was_let_in_is_always_answered(count in 1usize..=MOST_PINS, with_paths in any::<bool>(), more in 0usize..9) {
        let paths: Vec<String> = (0..count).map(|n| format!("/{n}/{}", "p".repeat(1000))).collect();
        let mut snapshots = pins(count, None);
        if with_paths {
            snapshots.iter_mut().zip(&paths).for_each(|(pin, path)| pin.path = Some(path.clone()));
        }
        let hosts = vec![found(999, &"h".repeat(HOST), snapshots.clone(), &paths); more + 1];
        let Some(Answer::Found(answered)) = read(&outcome(None, Answer::Found(hosts))).answer else { panic!() };
        prop_assert_eq!(pinned(&answered[0], &paths), snapshots);
    }

    #[test]
    fn any_packed_text_reads_or_is_refused(text in "[A-Za-z0-9_-]{0,300}") {
        let _ = unpack_made(&text, &[]);
        let _ = Pins { packed: Some(text), ..Pins::default() }.unpacked(&[]);
    }

    #[test]
    fn cut_keeps_whole_characters_and_counts_as_json_does(mut text in ".{0,50}", limit in 3usize..40) {
        let before = text.clone();
        let size = |t: &str| serde_json::to_string(t).unwrap().len() - 2;
        cut(&mut text, limit);
        prop_assert!(size(&text) <= limit);
        prop_assert!(size(&before) > limit || text == before);
    }
}
