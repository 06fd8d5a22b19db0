//! A store that was found unreachable, and that no session waits for any more.

use crate::plan::repository::tests::*;

const HOUR: Duration = Duration::from_hours(1);

/// A Repository whose store was found unreachable by a session that was then canceled.
fn silent(every: Duration) -> World {
    let mut w = World::new(false).used_by(&["a"]);
    w.every = every;
    w.seen.secret_version = Some("1".into());
    w.lives(60);
    assert_eq!(w.condition("Ready").0, "True");
    w.jobs.away = true;
    w.seen.waiting = 1;
    w.is_reported();
    w.lives(30);
    w.seen.waiting = 0;
    assert_eq!(w.condition("Ready").1, reason::REPOSITORY_UNREACHABLE);
    w
}

#[test]
fn what_is_corrected_is_asked_at_once_though_nobody_waits() {
    for every in [HOUR, Duration::ZERO] {
        for what in ["spec", "Secret", "annotation"] {
            let mut w = silent(every);
            let before = w.attempts("probe");
            w.jobs.away = false;
            match what {
                "spec" => w.object["spec"]["backend"]["s3"]["endpoint"] = json!("right"),
                "Secret" => w.seen.secret_version = Some("2".into()),
                _ => w.object["metadata"]["annotations"] = json!({ annotation::SYNC: "now" }),
            }
            w.lives(30);
            assert_eq!(w.condition("Ready").0, "True", "{what}: {:#}", w.object["status"]);
            assert_eq!((w.attempts("probe"), w.condition("Reachable").0.as_str()), (before + 1, "True"), "{what}");
        }
    }
    // A correction that does not help triggers only one probe.
    let mut w = silent(Duration::ZERO);
    let before = w.attempts("probe");
    w.object["spec"]["backend"]["s3"]["endpoint"] = json!("as wrong");
    w.lives(1200);
    assert_eq!((w.attempts("probe"), w.condition("Ready").0.as_str()), (before + 1, "False"));
    // A change of fields that are not used to open the repository is not a correction.
    w.object["spec"]["usagePolicy"] = json!({ "allowedNamespaces": { "from": "All" } });
    w.lives(60);
    assert_eq!(w.attempts("probe"), before + 1);
}

#[test]
fn a_store_that_comes_back_is_found_though_nobody_waits_and_nothing_was_changed() {
    let mut w = silent(Duration::from_hours(6));
    let before = w.attempts("probe");
    for _ in 0..4 {
        w.lives(900);
    }
    let asked = w.attempts("probe") - before;
    assert!((5..=7).contains(&asked), "{asked} times in an hour");
    w.jobs.away = false;
    for _ in 0..6 {
        w.lives(900);
    }
    assert_eq!((w.condition("Reachable").0.as_str(), w.condition("Ready").0.as_str()), ("True", "True"));
    // Listings also limit the wait.
    let mut w = silent(HOUR);
    for _ in 0..8 {
        w.lives(1800);
    }
    let asked = w.attempts("probe");
    for _ in 0..4 {
        w.lives(1800);
    }
    assert!((1..=3).contains(&(w.attempts("probe") - asked)), "once an hour");
}

#[test]
fn probes_that_cannot_run_are_not_made_without_a_pause() {
    let mut w = silent(HOUR);
    let attempt = w.attempts("probe");
    w.jobs.away = false;
    let ends = [vec![End::Ok; attempt], vec![End::OutOfMemory; 3]].concat();
    w.jobs.script.insert("probe".into(), ends);
    let before = w.at.len();
    w.lives(600);
    let at: Vec<i64> = w.at[before..].iter().copied().take(3).collect();
    assert!(at.windows(2).all(|t| t[1] - t[0] >= 60), "{at:?}");
    assert_eq!(w.condition("Reachable").1, reason::PROBE_LOST);
}

#[test]
fn times_of_a_clock_that_was_ahead_hold_no_probe_up() {
    let ahead = json!("2040-01-01T00:00:00Z");
    for waiting in [0, 1] {
        let mut w = silent(HOUR);
        for key in ["nextProbeTime", "lastProbeTime", "since"] {
            w.object["status"]["reachability"][key] = ahead.clone();
        }
        w.jobs.away = false;
        w.seen.waiting = waiting;
        w.lives(90);
        assert_eq!((w.condition("Reachable").0.as_str(), w.condition("Ready").0.as_str()), ("True", "True"));
        // A clock that was ahead does not hold up a listing either.
        w.object["status"]["sync"]["triedTime"] = ahead.clone();
        let listed = w.attempts("list");
        w.lives(60);
        assert_eq!(w.attempts("list"), listed + 1);
    }
}
