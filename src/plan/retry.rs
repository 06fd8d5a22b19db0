//! How often, and after how long, a step is tried again.
//!
//! Infrastructure is tried again until the run's deadline; a container that is
//! killed for its memory or evicted gets a few tries, because the next one will
//! most likely end the same way. Data and configuration are not tried again.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::contract::{Class, Failure};
use crate::names::reason;

/// First wait; doubles with each attempt.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Longest wait: a repository that is down is asked at most once a minute.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Tries of a step whose pod dies of its own needs.
const POD_DEATH_TRIES: i32 = 3;

/// Wait before the attempt after `attempt`.
pub fn wait_after(attempt: i32) -> Duration {
    let doublings = u32::try_from(attempt.clamp(1, 10) - 1).unwrap_or(0);
    LONGEST_WAIT.min(FIRST_WAIT * 2u32.pow(doublings))
}

/// Whether a step that failed so is tried again after `attempt`.
pub fn again(failure: &Failure, attempt: i32) -> bool {
    match failure.class {
        Class::Transient => {
            let pod_death =
                [reason::OOM_KILLED, reason::EVICTED, reason::OUTCOME_LOST].contains(&failure.reason.as_str());
            !pod_death || attempt < POD_DEATH_TRIES
        }
        Class::Waiting => true,
        Class::Invalid | Class::Data | Class::Fatal => false,
    }
}

/// When the attempt after `attempt` is due.
pub fn not_before(attempt: i32, now: Timestamp) -> Timestamp {
    now.checked_add(wait_after(attempt)).unwrap_or(now)
}

/// Time left until `then`; `None` when it has come.
pub fn left(then: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(then.duration_since(now)).ok().filter(|d| !d.is_zero())
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
    fn only_infrastructure_is_tried_again() {
        let f = |class, reason: &str| Failure::new(class, reason, "");
        assert!(again(&f(Class::Transient, reason::REPOSITORY_UNREACHABLE), 1000));
        assert!(again(&f(Class::Transient, reason::OOM_KILLED), 2));
        assert!(!again(&f(Class::Transient, reason::OOM_KILLED), 3));
        for class in [Class::Invalid, Class::Data, Class::Fatal] {
            assert!(!again(&f(class, reason::WRONG_PASSWORD), 1));
        }
    }
}
