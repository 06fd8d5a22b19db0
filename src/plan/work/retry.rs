//! How often, and after how long, a step is retried.
//!
//! Infrastructure failures are retried until the run's deadline. A container that is killed for its memory or evicted
//! gets only a few attempts, because the next attempt will most likely end the same way. Failures of data and
//! configuration are not retried.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::contract::{Class, Failure};
use crate::names::reason;

/// First wait; doubles with each attempt.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Longest wait: a repository that is down is asked at most once a minute.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Number of attempts at a step whose pod dies by itself.
const POD_DEATH_TRIES: i32 = 3;

/// Wait before the attempt after `attempt`.
pub fn wait_after(attempt: i32) -> Duration {
    let doublings = u32::try_from(attempt.clamp(1, 10) - 1).unwrap_or(0);
    LONGEST_WAIT.min(FIRST_WAIT * 2u32.pow(doublings))
}

/// Number of times that a step's pod died by itself, including this failure. Other failures are not counted: a store
/// that was away for an hour must not use up the attempts reserved for memory.
pub fn deaths(failure: &Failure, before: Option<i32>) -> Option<i32> {
    let died = [reason::OOM_KILLED, reason::EVICTED, reason::OUTCOME_LOST, reason::INIT_CONTAINER_FAILED]
        .contains(&failure.reason.as_str());
    if died { Some(before.unwrap_or(0).saturating_add(1)) } else { before }
}

/// Whether a step with this failure is retried; `deaths` is the count from [`deaths`].
pub fn again(failure: &Failure, deaths: Option<i32>) -> bool {
    match failure.class {
        Class::Transient | Class::Waiting => deaths.is_none_or(|n| n < POD_DEATH_TRIES),
        Class::Invalid | Class::Data | Class::Fatal => false,
    }
}

/// When the attempt after `attempt` is due.
pub fn not_before(attempt: i32, now: Timestamp) -> Timestamp {
    now.checked_add(wait_after(attempt)).unwrap_or(now)
}

/// Time left until the next attempt at `due`; `None` if that time has passed. A wait longer than the longest one is
/// ignored: its time was written by a clock that was ahead.
pub fn pause(due: Option<&Time>, now: Timestamp) -> Option<Duration> {
    left(due?.0, now).filter(|wait| *wait <= LONGEST_WAIT)
}

/// Time left until `then`; `None` if that time has passed.
pub fn left(then: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(then.duration_since(now)).ok().filter(|d| !d.is_zero())
}

/// Whole seconds that a Job may take until `deadline`, at least one; the maximum if there is no deadline.
pub fn seconds_left(deadline: Option<&Time>, now: Timestamp) -> i64 {
    deadline.map_or(i64::MAX, |d| (d.0.as_second() - now.as_second()).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let waits: Vec<u64> = (1..8).map(|a| wait_after(a).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60, 60]);
        assert_eq!(wait_after(i32::MAX), LONGEST_WAIT);
        assert_eq!(wait_after(0), FIRST_WAIT);
    }

    #[test]
    fn nobody_waits_longer_than_any_wait_because_a_clock_was_ahead() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let in_seconds = |s: i64| pause(Some(&Time(now + k8s_openapi::jiff::SignedDuration::from_secs(s))), now);
        assert_eq!((pause(None, now), in_seconds(-1), in_seconds(0)), (None, None, None));
        assert_eq!((in_seconds(60), in_seconds(61)), (Some(LONGEST_WAIT), None));
        for attempt in 1..20 {
            let due = Time(not_before(attempt, now));
            assert_eq!(pause(Some(&due), now), Some(wait_after(attempt)));
        }
    }

    #[test]
    fn only_infrastructure_is_tried_again() {
        let f = |class, reason: &str| Failure::new(class, reason, "");
        assert!(again(&f(Class::Transient, reason::REPOSITORY_UNREACHABLE), None));
        for class in [Class::Invalid, Class::Data, Class::Fatal] {
            assert!(!again(&f(class, reason::WRONG_PASSWORD), None));
        }
    }

    #[test]
    fn only_deaths_use_up_the_tries_for_deaths() {
        let f = |reason: &str| Failure::new(Class::Transient, reason, "");
        let mut so_far = None;
        for _ in 0..100 {
            so_far = deaths(&f(reason::REPOSITORY_UNREACHABLE), so_far);
            so_far = deaths(&f(reason::DISRUPTED), so_far);
        }
        assert_eq!(so_far, None);
        for (reason, want) in [(reason::OOM_KILLED, true), (reason::EVICTED, true), (reason::OUTCOME_LOST, false)] {
            so_far = deaths(&f(reason), so_far);
            assert_eq!(again(&f(reason), so_far), want, "{so_far:?}");
        }
    }
}
