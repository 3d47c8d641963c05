//! Tries a step again: whole, with a pause that doubles and is jittered, a limited number of times (FAULTS 16 to 25).
//!
//! ```text
//! passing   again after a pause                        slow      the same, and fewer parts at once
//! skewed    once more by the store's clock, warned     expired   once more with new keys
//! garbled   once more; twice is a broken network or memory
//! others    never again
//! ```

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind};
use crate::observe::Event;
use crate::store::retry::jittered;
use crate::store::s3::Inner;
use crate::store::s3::fail::{Class, Doing, Failure};

/// Whether an earlier try of a create may have done its work without our hearing of it (rule 1).
#[derive(Default)]
pub struct Unheard(AtomicBool);

impl Unheard {
    /// Whether one may have.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many parts may be on their way at once: fewer when the store asks for less, more again when it stops asking.
pub struct Pace {
    most: usize,
    now: AtomicUsize,
    since_slow: AtomicUsize,
}

/// Parts that must go well before one more may be on its way.
const CALM: usize = 16;

impl Pace {
    /// At most so many.
    pub fn new(most: usize) -> Pace {
        Pace { most, now: AtomicUsize::new(most), since_slow: AtomicUsize::new(0) }
    }

    /// How many now.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// The store asked for less.
    pub fn slower(&self) {
        self.since_slow.store(0, Ordering::Relaxed);
        let _ = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some((n / 2).max(1)));
    }

    /// A part went well.
    pub fn went_well(&self) {
        if self.now() < self.most && self.since_slow.fetch_add(1, Ordering::Relaxed) >= CALM {
            self.since_slow.store(0, Ordering::Relaxed);
            let _ = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some((n + 1).min(self.most)));
        }
    }
}

impl Inner {
    /// Runs a step until it works or no further try is due; then the last failure is the answer. `limit` bounds each try.
    pub async fn again<T, F>(&self, doing: &Doing<'_>, limit: Duration, unheard: &Unheard, step: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let began = Instant::now();
        let mut delay = self.settings.retry.first_delay;
        let (mut tries, mut skews, mut renewals, mut garbled) = (1, 0, 0, 0);
        loop {
            let failed = match tokio::time::timeout(limit, step()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(failed)) => failed,
                Err(_) => {
                    let text = format!("{}: no answer within {} s", doing.text(), limit.as_secs());
                    Failure::new(Class::Passing, Error::new(Kind::Unreachable, text))
                }
            };
            let pause = match failed.class {
                Class::Passing | Class::Slow => {
                    if failed.class == Class::Slow {
                        self.pace.slower();
                    } else {
                        unheard.note();
                    }
                    let pause = jittered(delay.min(self.settings.retry.longest_delay));
                    delay = delay.saturating_mul(2);
                    Some(pause)
                }
                Class::Skewed(store) if skews == 0 => {
                    skews += 1;
                    self.follow_clock(store);
                    Some(Duration::ZERO)
                }
                Class::Expired if renewals == 0 => {
                    renewals += 1;
                    self.keys.forget();
                    Some(Duration::ZERO)
                }
                Class::Garbled if garbled == 0 => {
                    garbled += 1;
                    Some(Duration::ZERO)
                }
                _ => None,
            };
            let due = pause.filter(|p| tries < self.settings.retry.tries && began.elapsed() + *p <= self.settings.retry.total);
            let Some(pause) = due else { return Err(last(failed, doing, tries)) };
            tries += 1;
            let what = doing.text();
            let error = failed.error.to_string();
            // Most errors begin with what was being done.
            let error = error.strip_prefix(&what).map_or(error.as_str(), |rest| rest.trim_start_matches(": ")).to_owned();
            self.settings.bus.emit(Event::Retry { what, error, attempt: tries });
            tokio::time::sleep(pause).await;
        }
    }

    fn follow_clock(&self, store: jiff::Timestamp) {
        let (offset, new) = self.clock.follow(store);
        if new {
            let way = if offset < 0 { "ahead of" } else { "behind" };
            self.settings.bus.warn(format!(
                "this machine's clock is {} s {way} the one of {}: requests are signed by the store's; set the clock: timedatectl set-ntp true",
                offset.unsigned_abs(),
                self.place
            ));
        }
    }
}

fn last(failed: Failure, doing: &Doing<'_>, tries: u32) -> Failure {
    let Failure { mut error, class } = failed;
    if class == Class::Garbled {
        error = error.context(format!("the store got other bytes than were sent, {tries} times over: network or memory garbles them"));
        error = error.hint_or("test this machine's memory and network; a proxy in between may change bytes too");
    } else if tries > 1 && class != Class::Taken {
        error = error.context(format!("{}, tried {tries} times", doing.verb));
    }
    Failure { error, class }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_parts_grow_fewer_when_the_store_asks_and_more_again_later() {
        let pace = Pace::new(3);
        pace.slower();
        pace.slower();
        assert_eq!(pace.now(), 1, "never none");
        let mut seen = Vec::new();
        for _ in 0..60 {
            pace.went_well();
            seen.push(pace.now());
        }
        assert_eq!((seen[15], seen[16], seen[59]), (1, 2, 3), "slowly, and no more than at first");
    }
}
