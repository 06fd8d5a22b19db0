//! Schedules, against the table of robfig/cron and against the simplest possible search.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn next(spec: &str, after: &str) -> Option<String> {
    Schedule::parse(spec).unwrap().upcoming(at(after), at(after), &TimeZone::UTC).map(|t| t.to_string())
}

#[test]
fn runs_at_the_times_robfig_cron_does() {
    for (after, spec, expected) in [
        ("2012-07-09T14:45:00Z", "0/15 * * * *", "2012-07-09T15:00:00Z"),
        ("2012-07-09T14:59:59Z", "0/15 * * * *", "2012-07-09T15:00:00Z"),
        ("2012-07-09T15:45:00Z", "20-35/15 * * * *", "2012-07-09T16:20:00Z"),
        ("2012-07-09T23:35:51Z", "15/35 1/2 10/2 * *", "2012-07-10T01:15:00Z"),
        ("2012-07-09T23:35:00Z", "0 0 9 Apr-Oct ?", "2012-08-09T00:00:00Z"),
        ("2012-07-09T23:35:00Z", "0 0 ? Feb Mon", "2013-02-04T00:00:00Z"),
        ("2012-07-09T23:35:00Z", "0 0 29 Feb ?", "2016-02-29T00:00:00Z"),
        ("2012-07-15T08:10:00Z", "5/15 * * * *", "2012-07-15T08:20:00Z"),
        // Both day fields are restricted: a day matches if either matches. One of them is a wildcard: both must match.
        ("2012-07-15T00:00:00Z", "0 0 1,15 * Sun", "2012-07-22T00:00:00Z"),
        ("2012-07-16T00:00:00Z", "0 0 */10 * Sun", "2012-07-21T00:00:00Z"),
        ("2012-07-02T00:00:00Z", "0 0 * * Mon", "2012-07-09T00:00:00Z"),
        ("2012-07-09T14:45:10.5Z", "@every 1h30m", "2012-07-09T16:15:10Z"),
        ("2012-07-09T14:45:00Z", "@weekly", "2012-07-15T00:00:00Z"),
        ("2012-07-09T14:45:00Z", "@annually", "2013-01-01T00:00:00Z"),
        ("2096-03-01T00:00:00Z", "0 0 29 2 *", "2104-02-29T00:00:00Z"),
    ] {
        assert_eq!(next(spec, after).as_deref(), Some(expected), "{spec} after {after}");
    }
    assert_eq!(next("0 0 30 2 *", "2012-07-09T00:00:00Z"), None);
}

#[test]
fn where_clocks_change_a_named_hour_runs_once_and_any_hour_as_it_passes() {
    for (after, spec, expected) in [
        // Times that the clock skips run when it jumps. Two times that then coincide run once.
        ("2012-03-11T00:00:00-05:00", "30 2 11 Mar ?", "2012-03-11T03:00:00-04:00"),
        ("2012-03-11T00:00:00-05:00", "0 2 * * ?", "2012-03-11T03:00:00-04:00"),
        ("2012-03-11T00:00:00-05:00", "*/20 2,3 * * ?", "2012-03-11T03:00:00-04:00"),
        ("2012-03-11T03:00:00-04:00", "*/20 2,3 * * ?", "2012-03-11T03:20:00-04:00"),
        ("2012-03-11T03:00:00-04:00", "0 2 * * ?", "2012-03-12T02:00:00-04:00"),
        // Times that the clock shows twice run the first time.
        ("2012-11-04T00:00:00-04:00", "0 1 * * ?", "2012-11-04T01:00:00-04:00"),
        ("2012-11-04T01:00:00-04:00", "0 1 * * ?", "2012-11-05T01:00:00-05:00"),
        ("2012-11-04T01:45:00-04:00", "30 1 04 Nov ?", "2013-11-04T01:30:00-05:00"),
        // A schedule of every hour runs at every hour that passes.
        ("2012-03-11T01:00:00-05:00", "0 * * * ?", "2012-03-11T03:00:00-04:00"),
        ("2012-03-11T01:30:00-05:00", "30 * * * ?", "2012-03-11T03:30:00-04:00"),
        ("2012-11-04T01:30:00-04:00", "30 * * * ?", "2012-11-04T01:30:00-05:00"),
        ("2012-11-04T01:30:00-05:00", "30 * * * ?", "2012-11-04T02:30:00-05:00"),
    ] {
        let schedule = Schedule::parse(spec).unwrap();
        let zone = zone(Some("America/New_York")).unwrap();
        assert_eq!(schedule.upcoming(at(after), at(after), &zone), Some(at(expected)), "{spec} after {after}");
    }
    // A day that does not exist in the calendar: in Samoa, 30 December 2011.
    let samoa = zone(Some("Pacific/Apia")).unwrap();
    let daily = Schedule::parse("0 3 * * *").unwrap();
    let jumped = {
        let after = at("2011-12-29T03:00:00-10:00");
        daily.upcoming(after, after, &samoa).unwrap()
    };
    assert_eq!(jumped, at("2011-12-31T00:00:00+14:00"));
    assert_eq!(daily.upcoming(jumped, jumped, &samoa), Some(at("2011-12-31T03:00:00+14:00")));
}

#[test]
fn zones_are_compiled_in() {
    assert_eq!(zone(None).unwrap(), TimeZone::UTC);
    for name in ["UTC", "Europe/Berlin", "Asia/Kolkata", "Pacific/Chatham", "America/Argentina/Buenos_Aires"] {
        assert!(zone(Some(name)).is_ok(), "{name}");
    }
    for name in ["", "Local", "Mars/Olympus", "+02:00", "../etc/passwd"] {
        assert!(zone(Some(name)).unwrap_err().contains("Europe/Berlin"), "{name}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (spec, part) in [
        ("", "empty"),
        ("* * * *", "4 fields"),
        ("0 0 3 * * *", "6 fields"),
        ("60 * * * *", "minute: 60"),
        ("* 24 * * *", "hour: 24"),
        ("* * 0 * *", "day of the month: 0"),
        ("* * * 13 *", "month: 13"),
        ("* * * * 7", "day of the week: 7 is not a day; Sunday is 0"),
        ("*/0 * * * *", "step"),
        ("5-1 * * * *", "ends before"),
        (", * * * *", "names no value"),
        ("* * L * *", "day of the month: \"L\""),
        ("1-2-3 * * * *", "minute"),
        ("@fortnightly", "@hourly"),
        ("@every 1d", "@every"),
        ("TZ=Asia/Tokyo 0 0 * * *", "spec.timeZone instead: schedule: \"0 0 * * *\", timeZone: Asia/Tokyo"),
        ("CRON_TZ=UTC", "spec.timeZone"),
    ] {
        let error = Schedule::parse(spec).unwrap_err();
        assert!(error.contains(part), "{spec}: {error}");
    }
    assert!(!Schedule::parse("0 0 31 4 *").unwrap().is_possible());
    assert!(Schedule::parse("0 0 31 4 Mon").unwrap().is_possible());
}

#[test]
fn the_newest_time_that_has_come_is_found_and_an_interval_counts_from_its_begin() {
    let newest = |spec: &str, after: &str, oldest: &str, now: &str| {
        Schedule::parse(spec).unwrap().newest(at(after), at(oldest), at(now), &TimeZone::UTC).map(|t| t.to_string())
    };
    let (begin, now) = ("2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
    assert_eq!(newest("0 3 * * *", begin, begin, now).as_deref(), Some("2026-01-03T03:00:00Z"));
    assert_eq!(newest("0 3 * * *", begin, "2026-01-03T03:00:00Z", now).as_deref(), Some("2026-01-03T03:00:00Z"));
    assert_eq!(newest("0 3 * * *", begin, "2026-01-03T03:00:01Z", now), None);
    // An interval longer than the limit for missed times.
    assert_eq!(newest("@every 50h", begin, "2026-01-03T00:00:00Z", now).as_deref(), Some("2026-01-03T02:00:00Z"));
    assert_eq!(newest("@every 80h", begin, begin, now), None);
    let every = Schedule::parse("@every 50h").unwrap();
    assert_eq!(every.upcoming(at(begin), at(now), &TimeZone::UTC), Some(at("2026-01-05T04:00:00Z")));
}

fn part(min: u8, max: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        1 => Just("?".to_owned()),
        2 => (min..=max).prop_map(|v| v.to_string()),
        1 => (min..=max, 1..=15u8).prop_map(|(v, s)| format!("{v}/{s}")),
        1 => (2..=20u8).prop_map(|s| format!("*/{s}")),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{a},{b}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against the simplest search: checks the clock of every single minute.
    #[test]
    fn next_is_the_first_minute_that_matches(
        (minute, hour, day, month, weekday) in (part(0, 59), part(0, 23), part(1, 31), part(1, 12), part(0, 6)),
        // A week around one of the two changes of the clocks in New York in 2024.
        start in prop_oneof![1_709_900_000_i64..1_710_200_000, 1_730_400_000_i64..1_730_800_000],
    ) {
        let spec = format!("{minute} {hour} {day} {month} {weekday}");
        let schedule = Schedule::parse(&spec).unwrap();
        let Kind::Fields(f) = &schedule.0 else { unreachable!() };
        let zone = zone(Some("America/New_York")).unwrap();
        let after = Timestamp::from_second(start).unwrap();
        let matches = |d: jiff::civil::DateTime| {
            f.minute.has(d.minute()) && f.hour.has(d.hour()) && f.month.has(d.month()) && f.day_matches(d.date())
        };
        let clock = |m: i64| Timestamp::from_second(m * 60).unwrap().to_zoned(zone.clone()).datetime();
        // The latest time that the clock has shown so far, starting the day before, so that a second pass is
        // recognized.
        let mut latest = clock(start / 60 - 24 * 60);
        let mut first = None;
        for m in start / 60 - 24 * 60 + 1..start / 60 + 7 * 24 * 60 {
            let shown = clock(m);
            let mut runs = f.hour.any && matches(shown);
            // Each time of day is checked once: when it comes, or when the clock has jumped over it.
            while latest < shown {
                latest = latest.checked_add(jiff::Span::new().minutes(1)).unwrap();
                runs |= !f.hour.any && matches(latest);
            }
            if runs && m > start / 60 {
                first = Some(Timestamp::from_second(m * 60).unwrap());
                break;
            }
        }
        let found = schedule.upcoming(after, after, &zone);
        match first {
            Some(t) => prop_assert_eq!(found, Some(t), "{}", spec),
            None => prop_assert!(found.is_none_or(|t| t.as_second() >= start + 7 * 24 * 3600 - 60), "{}", spec),
        }
    }

    #[test]
    fn time_only_moves_forward(spec in "(\\*|[0-9]{1,2}|\\*/[1-9]) (\\*|[0-9]|1[0-9]) \\* \\* [0-6]", start in 0i64..4_000_000_000) {
        if let Ok(schedule) = Schedule::parse(&spec) {
            let after = Timestamp::from_second(start).unwrap();
            let mut last = after;
            for _ in 0..3 {
                let next = schedule.upcoming(last, last, &TimeZone::UTC).unwrap();
                prop_assert!(next > last);
                last = next;
            }
        }
    }

    #[test]
    fn nonsense_never_panics(text in "(@every |TZ=[a-zA-Z/]{0,9} ?|)[-0-9*?/,a-zL# @]{0,24}") {
        if let Ok(schedule) = Schedule::parse(&text) {
            for (after, now) in [(Timestamp::MAX, Timestamp::MAX), (Timestamp::MIN, Timestamp::MIN), (Timestamp::MIN, Timestamp::UNIX_EPOCH)] {
                let _ = schedule.upcoming(after, now, &TimeZone::UTC);
                let _ = schedule.newest(after, now, now, &TimeZone::UTC);
            }
        }
    }
}
