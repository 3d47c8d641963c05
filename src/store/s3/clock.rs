//! The clock that requests are signed by: the machine's, put right by what the store says.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_smithy_async::time::TimeSource;
use jiff::Timestamp;

/// The machine's clock plus an offset.
#[derive(Clone, Debug, Default)]
pub struct SignClock(Arc<AtomicI64>);

impl SignClock {
    /// Takes the store's date for now; returns the offset in seconds, and whether it differs from the one before by more than a minute.
    pub fn follow(&self, store: Timestamp) -> (i64, bool) {
        let offset = store.as_second().saturating_sub(Timestamp::now().as_second());
        let before = self.0.swap(offset, Ordering::Relaxed);
        (offset, before.abs_diff(offset) > 60)
    }
}

impl TimeSource for SignClock {
    fn now(&self) -> SystemTime {
        let offset = self.0.load(Ordering::Relaxed);
        let by = Duration::from_secs(offset.unsigned_abs());
        let now = SystemTime::now();
        let moved = if offset < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        moved.unwrap_or(now)
    }
}
