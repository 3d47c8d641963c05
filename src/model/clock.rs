//! Time, given from outside so that tests may set it.

use std::sync::Mutex;

use jiff::{SignedDuration, Span, Timestamp};

/// Where "now" comes from. Order is never taken from a clock: the log's sequence numbers give it.
pub trait Clock: Send + Sync {
    /// The present instant, UTC.
    fn now(&self) -> Timestamp;
}

/// Clocks of hosts that keep time differ by less (FAULTS I8): what is dated further ahead than this lies in the future.
pub const CLOCKS: SignedDuration = SignedDuration::from_mins(5);

/// Seconds from `at` to `now`; `None` for what is dated in the future: how old that is is not known, and must never be taken for fresh.
pub fn age_seconds(at: Timestamp, now: Timestamp) -> Option<i64> {
    (at.duration_since(now) <= CLOCKS).then(|| (now.as_second() - at.as_second()).max(0))
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that a test sets; it stands still otherwise.
#[derive(Debug)]
pub struct TestClock(Mutex<Timestamp>);

impl TestClock {
    /// A clock standing at `now`.
    pub fn at(now: Timestamp) -> Self {
        TestClock(Mutex::new(now))
    }

    /// Sets the clock, forwards or back.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(|p| p.into_inner()) = now;
    }

    /// Moves the clock by whole seconds, which may be negative. Stops at the ends of representable time.
    pub fn step_seconds(&self, seconds: i64) {
        let mut now = self.0.lock().unwrap_or_else(|p| p.into_inner());
        *now = now.saturating_add(Span::new().seconds(seconds)).unwrap_or(*now);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(|p| p.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f140_what_lies_in_the_future_has_no_age() {
        let now: Timestamp = "2025-01-31T12:00:00Z".parse().unwrap();
        let age = |seconds: i64| age_seconds(now.saturating_add(Span::new().seconds(seconds)).unwrap(), now);
        assert_eq!([age(-90), age(0), age(300), age(301), age(86_400 * 365)], [Some(90), Some(0), Some(0), None, None]);
        assert_eq!((age_seconds(Timestamp::MAX, now), age_seconds(Timestamp::MAX, Timestamp::MIN)), (None, None));
    }
}
