//! Schedules: cron expressions with the meaning that Kubernetes CronJobs give them.
//!
//! The reference is robfig/cron's `ParseStandard`: five fields, names, ranges, steps, descriptors and `@every`; the
//! time zone is an argument. It differs at clock changes, so that every night has one backup, not none or two: a time
//! that the clock skips runs when the clock jumps, and a time that the clock shows twice runs the first time. Where the
//! hour is `*`, elapsed hours count instead: none is skipped, and none is repeated. This module reads no clock: the
//! time to search from is an argument, and the search ends after [`HORIZON_DAYS`].

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use crate::api::common::ScheduleInForce;
use crate::plan::run::duration;

/// Days searched for the next run: two leap years are at most eight years apart (2096 and 2104).
const HORIZON_DAYS: usize = 8 * 366;

/// A parsed schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// `@every`: this long after the last time.
    Every(Duration),
    /// Five fields.
    Fields(Box<Fields>),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Fields {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

/// Values of one field as bits, and whether it said "any": cron joins day and weekday
/// with "and" when one of them is any, with "or" when both are named.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Field {
    bits: u64,
    any: bool,
}

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|v| v < 64 && self.bits & (1 << v) != 0)
    }
}

struct Bounds {
    name: &'static str,
    min: u8,
    max: u8,
    /// Names of values, the first being `min`.
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds { name: "minute", min: 0, max: 59, names: &[] };
const HOUR: Bounds = Bounds { name: "hour", min: 0, max: 23, names: &[] };
const DAY: Bounds = Bounds { name: "day of the month", min: 1, max: 31, names: &[] };
const MONTH: Bounds = Bounds {
    name: "month",
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Bounds =
    Bounds { name: "day of the week", min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl Schedule {
    /// Reads an expression.
    ///
    /// # Errors
    /// Names the part that is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("is empty; write for example \"0 3 * * *\" or @daily".to_owned());
        }
        if let Some(after) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
            // There is one way to set a time zone, the one that Kubernetes has for CronJobs.
            let (zone, rest) = after.split_once(char::is_whitespace).unwrap_or((after, "0 3 * * *"));
            return Err(format!(
                "{text:?} contains a time zone; set it in spec.timeZone instead: schedule: {:?}, timeZone: {zone}",
                rest.trim()
            ));
        }
        let kind = if text.starts_with('@') { descriptor(text)? } else { Kind::Fields(Box::new(fields(text)?)) };
        Ok(Self(kind))
    }

    /// The newest scheduled time after `after` that is neither before `oldest` nor after `now`, by the clocks of
    /// `zone`. `@every` counts from `after`.
    pub fn newest(&self, after: Timestamp, oldest: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.0 {
            Kind::Every(every) => nth(after, *every, passed(after, *every, now)).filter(|t| *t > after && *t >= oldest),
            Kind::Fields(fields) => {
                let begin = after.checked_add(Duration::from_nanos(1)).ok()?.max(oldest);
                fields.last(begin, now, zone)
            }
        }
    }

    /// The first time after `now`. `None` when there is none within eight years.
    pub fn upcoming(&self, after: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.0 {
            Kind::Every(every) => nth(after, *every, passed(after, *every, now).saturating_add(1)),
            Kind::Fields(fields) => fields.next(now, zone),
        }
    }

    /// Whether any day at all can match: 30 February cannot.
    pub fn is_possible(&self) -> bool {
        match &self.0 {
            Kind::Every(_) => true,
            Kind::Fields(f) => {
                let by_weekday = !f.day.any && !f.weekday.any;
                by_weekday || (1..=12).any(|m| f.month.has(m) && (1..=longest(m)).any(|d| f.day.has(d)))
            }
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let first_on = |date: Date| self.instants(date, zone).filter(|t| *t > after).min();
        // The search starts one day early: where clocks go back over midnight, yesterday's date comes again.
        let mut date = after.to_zoned(zone.clone()).date().yesterday().ok()?;
        for _ in 0..HORIZON_DAYS {
            if let Some(found) = first_on(date) {
                // For the same reason, the first instant of tomorrow may come before the second pass of today.
                let next = date.tomorrow().ok().and_then(first_on);
                return Some(next.map_or(found, |n| n.min(found)));
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The last instant from `begin` to `end`.
    fn last(&self, begin: Timestamp, end: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let day = |t: Timestamp| t.to_zoned(zone.clone()).date();
        let last_on = |date: Date| self.instants(date, zone).filter(|t| (begin..=end).contains(t)).max();
        // The search covers one more day at both ends, for the same reason.
        let first = day(begin).yesterday().ok()?;
        let mut date = day(end).tomorrow().ok()?;
        while date >= first {
            if let Some(found) = last_on(date) {
                let before = date.yesterday().ok().and_then(last_on);
                return Some(before.map_or(found, |b| b.max(found)));
            }
            date = date.yesterday().ok()?;
        }
        None
    }

    /// Every instant of this date, in no particular order.
    fn instants<'a>(&'a self, date: Date, zone: &'a TimeZone) -> impl Iterator<Item = Timestamp> + 'a {
        let is_day = self.month.has(date.month()) && self.day_matches(date);
        let hours = (0..24).filter(move |h| is_day && self.hour.has(*h));
        let times =
            hours.flat_map(|h| (0..60).filter(|m| self.minute.has(*m)).map(move |m| Time::constant(h, m, 0, 0)));
        times.flat_map(move |time| {
            let wall = date.to_datetime(time);
            match zone.to_ambiguous_timestamp(wall).offset() {
                AmbiguousOffset::Unambiguous { offset } => [offset.to_timestamp(wall).ok(), None],
                // The clock never shows this time.
                AmbiguousOffset::Gap { .. } if self.hour.any => [None, None],
                AmbiguousOffset::Gap { before, .. } => {
                    [before.to_timestamp(wall).ok().and_then(|t| jump(t, zone)), None]
                }
                AmbiguousOffset::Fold { before, after } => {
                    [before.to_timestamp(wall).ok(), after.to_timestamp(wall).ok().filter(|_| self.hour.any)]
                }
            }
            .into_iter()
            .flatten()
        })
    }

    fn day_matches(&self, date: Date) -> bool {
        let day = self.day.has(date.day());
        let weekday = self.weekday.has(date.weekday().to_sunday_zero_offset());
        if self.day.any || self.weekday.any { day && weekday } else { day || weekday }
    }
}

/// How many whole intervals have passed.
fn passed(after: Timestamp, every: Duration, now: Timestamp) -> u64 {
    u64::try_from(now.as_second() - after.as_second()).unwrap_or(0) / every.as_secs().max(1)
}

/// The time `count` intervals after `after`.
fn nth(after: Timestamp, every: Duration, count: u64) -> Option<Timestamp> {
    let whole = Timestamp::from_second(after.as_second()).ok()?;
    whole.checked_add(Duration::from_secs(every.as_secs().checked_mul(count)?)).ok()
}

fn longest(month: i8) -> i8 {
    match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// When the clock jumped over the time that would have been `at`.
fn jump(at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let after = at.checked_add(Duration::from_secs(1)).ok()?;
    zone.preceding(after).next().map(|t| t.timestamp())
}

/// A time zone by its IANA name; UTC for none.
///
/// # Errors
/// There is no such zone.
pub fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    // The database that is compiled in: the same answer on every machine.
    TimeZoneDatabase::bundled()
        .get(name)
        .map_err(|_| format!("{name:?} is not a valid time zone; write one like Europe/Berlin or UTC"))
}

fn descriptor(text: &str) -> Result<Kind, String> {
    if let Some(every) = text.strip_prefix("@every ") {
        let every = duration::parse(every.trim()).map_err(|e| format!("@every: {e}"))?;
        // Whole seconds and at least one, as robfig/cron has it.
        return Ok(Kind::Every(Duration::from_secs(every.as_secs().max(1))));
    }
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            return Err(format!(
                "{text:?} is not known; write @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or @every 1h30m"
            ));
        }
    };
    crate::plan::backup::schedule::fields(fields).map(|f| Kind::Fields(Box::new(f)))
}

fn fields(text: &str) -> Result<Fields, String> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts[..] else {
        return Err(format!(
            "{text:?} has {} fields; write five: minute, hour, day of the month, month, day of the week",
            parts.len()
        ));
    };
    Ok(Fields {
        minute: field(minute, &MINUTE)?,
        hour: field(hour, &HOUR)?,
        day: field(day, &DAY)?,
        month: field(month, &MONTH)?,
        weekday: field(weekday, &WEEKDAY)?,
    })
}

fn field(text: &str, bounds: &Bounds) -> Result<Field, String> {
    let mut all = Field::default();
    // Extra commas are harmless, as in robfig/cron; a field of commas only is not.
    for item in text.split(',').filter(|i| !i.is_empty()) {
        let one = item_of(item, bounds).map_err(|e| format!("{}: {e}", bounds.name))?;
        all.bits |= one.bits;
        all.any |= one.any;
    }
    if all.bits == 0 {
        return Err(format!("{}: {text:?} names no value", bounds.name));
    }
    Ok(all)
}

fn item_of(item: &str, bounds: &Bounds) -> Result<Field, String> {
    let (range, step) = match item.split_once('/') {
        None => (item, None),
        Some((range, step)) => {
            let n: u8 = number(step).ok_or_else(|| format!("the step {step:?} of {item:?} is not a valid number"))?;
            if n == 0 {
                return Err(format!("the step of {item:?} is 0; write 1 or more"));
            }
            (range, Some(n))
        }
    };
    let (low, high, any) = if matches!(range, "*" | "?") {
        (bounds.min, bounds.max, true)
    } else if let Some((low, high)) = range.split_once('-') {
        (value(low, bounds)?, value(high, bounds)?, false)
    } else {
        let low = value(range, bounds)?;
        // `5/15` is 5, 20, 35, 50.
        (low, if step.is_some() { bounds.max } else { low }, false)
    };
    if low > high {
        return Err(format!("the range {range:?} ends before it begins"));
    }
    let step = step.unwrap_or(1);
    let bits = (low..=high).step_by(usize::from(step)).fold(0_u64, |bits, v| bits | 1 << v);
    Ok(Field { bits, any: any && step == 1 })
}

fn value(text: &str, bounds: &Bounds) -> Result<u8, String> {
    let (min, max) = (bounds.min, bounds.max);
    let lower = text.to_ascii_lowercase();
    if let Some(i) = bounds.names.iter().position(|n| *n == lower) {
        return Ok(min + u8::try_from(i).unwrap_or_default());
    }
    match number(text) {
        Some(n) if (min..=max).contains(&n) => Ok(n),
        Some(7) if bounds.name == WEEKDAY.name => Err("7 is not a day; Sunday is 0".to_owned()),
        Some(n) => Err(format!("{n} is not between {min} and {max}")),
        None => Err(format!(
            "{text:?} is not a valid value; write {min} to {max}, *, a range like {min}-{max} or a step like */5"
        )),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The schedule and its time zone. `None` if an earlier version wrote one that this version does not know.
pub fn parsed(in_force: &ScheduleInForce) -> Option<(Schedule, TimeZone)> {
    Some((Schedule::parse(&in_force.schedule).ok()?, zone(in_force.time_zone.as_deref()).ok()?))
}

/// The latest time that counts: the next scheduled time. Status holds a later time only if a clock was ahead when it
/// was written. Such a time does not count: until it came, no backup would be taken, and none would be missed. Small
/// clock differences do no harm.
pub fn latest(in_force: &ScheduleInForce, now: Timestamp) -> Option<Timestamp> {
    let (schedule, zone) = parsed(in_force)?;
    schedule.upcoming(now, now, &zone)
}

#[cfg(test)]
mod tests;
