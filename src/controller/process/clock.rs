//! The operator's clock follows the API server's clock.
//!
//! Deadlines are in status and may be read by another replica, and timestamps of
//! the API server (a Job's creation) are compared with the current time: both are
//! wrong if a node's clock is wrong. Every response of the API server carries its
//! time, so that no extra request is needed.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::{HeaderMap, header};
use jiff::fmt::rfc2822::DateTimeParser;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Seconds of difference that are ignored: the header has whole seconds, and a response takes time to arrive.
const NOISE: i64 = 2;

/// Local time, corrected.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Mutex<Ahead>>);

/// Seconds by which the API server is ahead.
#[derive(Debug, Default)]
struct Ahead {
    /// The offset in use.
    used: i64,
    /// The offset of the last response. A response that was read late shows a wrong time, but not the same wrong time
    /// twice.
    heard: i64,
}

impl Clock {
    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.right(Timestamp::now())
    }

    /// Records the time of a response.
    pub fn observe(&self, headers: &HeaderMap) {
        let date = headers.get(header::DATE).and_then(|d| d.to_str().ok());
        if let Some(theirs) = date.and_then(|d| DateTimeParser::new().parse_timestamp(d).ok()) {
            self.set(theirs.as_second(), Timestamp::now().as_second());
        }
    }

    fn set(&self, theirs: i64, ours: i64) {
        let near = |a: i64, b: i64| (a - b).abs() <= NOISE;
        let mut ahead = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = theirs - ours;
        if !near(heard, ahead.used) && near(heard, ahead.heard) {
            tracing::warn!(seconds = heard, "the clock of this node differs from the API server's, which is used");
            ahead.used = heard;
        }
        ahead.heard = heard;
    }

    fn right(&self, local: Timestamp) -> Timestamp {
        let ahead = self.0.lock().unwrap_or_else(PoisonError::into_inner).used;
        local.checked_add(SignedDuration::from_secs(ahead)).unwrap_or(local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn ahead(clock: &Clock) -> i64 {
        clock.right(Timestamp::UNIX_EPOCH).as_second()
    }

    /// Proves: C12.
    #[test]
    fn an_hour_either_way_is_put_right() {
        for skew in [HOUR, -HOUR] {
            let clock = Clock::default();
            for second in 0..10 {
                clock.set(1_000_000 + second, 1_000_000 + second - skew);
            }
            assert_eq!(ahead(&clock), skew);
        }
    }

    #[test]
    fn noise_and_a_late_response_change_nothing() {
        let clock = Clock::default();
        for delay in [0, 1, 2, 0, 300, 1, 40, 2] {
            clock.set(1_000_000, 1_000_000 + delay);
        }
        assert_eq!(ahead(&clock), 0);
    }

    #[test]
    fn the_header_is_read() {
        let clock = Clock::default();
        let mut headers = HeaderMap::new();
        headers.insert(header::DATE, "Fri, 20 Nov 2099 20:03:06 GMT".parse().unwrap());
        clock.observe(&headers);
        clock.observe(&headers);
        assert!(clock.now().as_second() > 4_000_000_000);
        headers.insert(header::DATE, "nonsense".parse().unwrap());
        clock.observe(&headers);
    }
}
