//! Schedules: cron expressions with the meaning that Kubernetes CronJobs give them.
//!
//! The reference is robfig/cron's `ParseStandard`: five fields, names, ranges,
//! steps, descriptors, `@every`, and a time zone in front. A wall-clock time
//! that a change to summer time leaves out does not run; one that a change back
//! repeats runs twice. Reads no clock: the time to search from is an argument,
//! and the search ends after [`HORIZON_DAYS`].

use std::time::Duration;

use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp};

use super::duration;

/// Days searched for the next run: two leap years are at most eight years apart (2096 and 2104).
const HORIZON_DAYS: usize = 8 * 366;

/// A schedule that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    zone: Option<TimeZone>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// `@every`: so long after the last time.
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
        let (zone, rest) = match text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
            None => (None, text),
            Some(after) => {
                let (name, rest) = after
                    .split_once(char::is_whitespace)
                    .ok_or_else(|| format!("{text:?} has a time zone but no schedule after it"))?;
                (Some(zone(name)?), rest.trim())
            }
        };
        if rest.is_empty() {
            return Err("is empty; write for example \"0 3 * * *\" or @daily".to_owned());
        }
        let kind = if rest.starts_with('@') { descriptor(rest)? } else { Kind::Fields(Box::new(fields(rest)?)) };
        Ok(Self { zone, kind })
    }

    /// The first time after `after`, in the schedule's own time zone or, where it names none, in `zone`.
    /// `None` when there is none within eight years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.kind {
            Kind::Every(every) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*every).ok()
            }
            Kind::Fields(fields) => fields.next(after, self.zone.as_ref().unwrap_or(zone)),
        }
    }

    /// Whether any day at all can match: 30 February cannot.
    pub fn is_possible(&self) -> bool {
        match &self.kind {
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
        // One day early: where clocks go back over midnight, yesterday's date comes again.
        let mut date = after.to_zoned(zone.clone()).date().yesterday().ok()?;
        for _ in 0..HORIZON_DAYS {
            if let Some(found) = self.first_on(date, after, zone) {
                // For the same reason tomorrow's first may come before today's second pass.
                let next = date.tomorrow().ok().and_then(|d| self.first_on(d, after, zone));
                return Some(next.map_or(found, |n| n.min(found)));
            }
            date = date.checked_add(Span::new().days(1)).ok()?;
        }
        None
    }

    /// First instant of this date, in any pass of its clock, that is later than `after`.
    fn first_on(&self, date: Date, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if !self.month.has(date.month()) || !self.day_matches(date) {
            return None;
        }
        let mut first: Option<Timestamp> = None;
        for hour in (0..24).filter(|h| self.hour.has(*h)) {
            for minute in (0..60).filter(|m| self.minute.has(*m)) {
                let wall = date.to_datetime(Time::constant(hour, minute, 0, 0));
                let offsets = match zone.to_ambiguous_timestamp(wall).offset() {
                    AmbiguousOffset::Unambiguous { offset } => [Some(offset), None],
                    // The clock never shows this time.
                    AmbiguousOffset::Gap { .. } => [None, None],
                    AmbiguousOffset::Fold { before, after } => [Some(before), Some(after)],
                };
                for instant in offsets.into_iter().flatten().filter_map(|o| o.to_timestamp(wall).ok()) {
                    if instant > after {
                        first = Some(first.map_or(instant, |f| f.min(instant)));
                    }
                }
            }
            // Clocks go back by three hours at most; anything four hours later cannot be earlier.
            if first.is_some_and(|f| f.to_zoned(zone.clone()).hour() + 4 < hour) {
                break;
            }
        }
        first
    }

    fn day_matches(&self, date: Date) -> bool {
        let day = self.day.has(date.day());
        let weekday = self.weekday.has(date.weekday().to_sunday_zero_offset());
        if self.day.any || self.weekday.any { day && weekday } else { day || weekday }
    }
}

fn longest(month: i8) -> i8 {
    match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn zone(name: &str) -> Result<TimeZone, String> {
    // The database that is compiled in: the same answer on every machine.
    TimeZoneDatabase::bundled()
        .get(name)
        .map_err(|_| format!("{name:?} is no time zone; write one like Europe/Berlin or UTC"))
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
    self::fields(fields).map(|f| Kind::Fields(Box::new(f)))
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
            let n: u8 = number(step).ok_or_else(|| format!("the step {step:?} of {item:?} is no number"))?;
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
        None => {
            Err(format!("{text:?} is no value; write {min} to {max}, *, a range like {min}-{max} or a step like */5"))
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
