//! Schedules, against the table of robfig/cron and against the plainest search there is.

use super::*;
use proptest::prelude::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn next(spec: &str, after: &str) -> Option<String> {
    Schedule::parse(spec).unwrap().next(at(after), &TimeZone::UTC).map(|t| t.to_string())
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
        // Both days named: either will do. One of them any: both must hold.
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
fn a_clock_change_skips_and_repeats_as_in_robfig_cron() {
    for (after, spec, expected) in [
        ("2012-03-11T00:00:00-05:00", "30 2 11 Mar ?", "2013-03-11T02:30:00-04:00"),
        ("2012-03-11T01:00:00-05:00", "0 * * * ?", "2012-03-11T03:00:00-04:00"),
        ("2012-03-11T00:00:00-05:00", "0 2 * * ?", "2012-03-12T02:00:00-04:00"),
        ("2012-11-04T01:45:00-04:00", "30 1 04 Nov ?", "2012-11-04T01:30:00-05:00"),
        ("2012-11-04T00:00:00-04:00", "0 1 * * ?", "2012-11-04T01:00:00-04:00"),
        ("2012-11-04T01:00:00-04:00", "0 1 * * ?", "2012-11-04T01:00:00-05:00"),
        ("2012-11-04T01:00:00-05:00", "0 1 * * ?", "2012-11-05T01:00:00-05:00"),
    ] {
        let schedule = Schedule::parse(&format!("CRON_TZ=America/New_York {spec}")).unwrap();
        assert_eq!(schedule.next(at(after), &TimeZone::UTC), Some(at(expected)), "{spec} after {after}");
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
        ("TZ=Atlantis/Capital 0 0 * * *", "no time zone"),
        ("TZ=UTC", "no schedule"),
    ] {
        let error = Schedule::parse(spec).unwrap_err();
        assert!(error.contains(part), "{spec}: {error}");
    }
    assert!(!Schedule::parse("0 0 31 4 *").unwrap().is_possible());
    assert!(Schedule::parse("0 0 31 4 Mon").unwrap().is_possible());
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

    /// Against the plainest search there is: look at the clock of every single minute.
    #[test]
    fn next_is_the_first_minute_that_matches(
        (minute, hour, day, month, weekday) in (part(0, 59), part(0, 23), part(1, 31), part(1, 12), part(0, 6)),
        // A week around the change of the clocks in New York in 2024, either one.
        start in prop_oneof![1_709_900_000_i64..1_710_200_000, 1_730_400_000_i64..1_730_800_000],
    ) {
        let spec = format!("{minute} {hour} {day} {month} {weekday}");
        let schedule = Schedule::parse(&spec).unwrap();
        let Kind::Fields(f) = &schedule.kind else { unreachable!() };
        let zone = zone("America/New_York").unwrap();
        let after = Timestamp::from_second(start).unwrap();
        let first = (start / 60 + 1..start / 60 + 7 * 24 * 60)
            .map(|m| Timestamp::from_second(m * 60).unwrap())
            .find(|t| {
                let z = t.to_zoned(zone.clone());
                f.minute.has(z.minute()) && f.hour.has(z.hour()) && f.month.has(z.month()) && f.day_matches(z.date())
            });
        let found = schedule.next(after, &zone);
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
                let next = schedule.next(last, &TimeZone::UTC).unwrap();
                prop_assert!(next > last);
                last = next;
            }
        }
    }

    #[test]
    fn nonsense_never_panics(text in "(@every |TZ=[a-zA-Z/]{0,9} |)[-0-9*?/,a-zL# @]{0,24}") {
        if let Ok(schedule) = Schedule::parse(&text) {
            let _ = schedule.next(Timestamp::MAX, &TimeZone::UTC);
            let _ = schedule.next(Timestamp::MIN, &TimeZone::UTC);
        }
    }
}
