//! A store that tries again.
//!
//! Only errors whose kind says so are retried (a store that cannot be reached just now), always the whole step, after a pause that doubles and
//! is jittered, a limited number of times. Each retry is told on the bus.
//!
//! A create is retried when its body is small ([`SMALL_BYTES`]: records, keys, details), for then the very same bytes can be sent again. A retry that
//! finds the key taken compares what stands there: its own bytes mean that only the answer was lost (rule 1). A retry that is refused after an earlier
//! try went unanswered is [`Kind::OutcomeUnknown`]. A larger body is a stream that cannot
//! be had twice: it passes through, and retrying its parts is the business of the store below.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use rand::RngExt;

use crate::error::{Error, Kind, Result};
use crate::model::Sha256;
use crate::observe::{Bus, Event};
use crate::store::{Body, DynStore, Entry, Head, Piece, Store, whole};

/// A body up to this length is kept, so that it can be sent again.
pub const SMALL_BYTES: usize = 1 << 20;

/// How often and how long to try.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Tries in all, the first one included; at least one is made.
    pub tries: u32,
    /// Pause before the second try; doubles from try to try. The real pause is a random one between half of it and all of it.
    pub first_delay: Duration,
    /// No pause is longer.
    pub longest_delay: Duration,
    /// No further try begins when so much time has passed since the first one began.
    pub total: Duration,
}

impl Default for RetryPolicy {
    /// Six tries within about 15 s of pauses: over a restart of a store's server, short enough for a person who waits.
    fn default() -> Self {
        RetryPolicy {
            tries: 6,
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(30),
            total: Duration::from_secs(300),
        }
    }
}

/// Wraps a store and tries its steps again.
pub struct RetryStore {
    inner: DynStore,
    policy: RetryPolicy,
    bus: Bus,
}

impl RetryStore {
    /// A store that does what `inner` does, and tries again as `policy` says.
    pub fn new(inner: DynStore, policy: RetryPolicy, bus: Bus) -> Self {
        RetryStore { inner, policy, bus }
    }

    /// Runs a step until it works, its error is not one to retry, or the limits are reached; then the last error is the answer.
    async fn again<T, F: Future<Output = Result<T>>>(&self, what: &str, step: impl Fn() -> F) -> Result<T> {
        let began = Instant::now();
        let mut delay = self.policy.first_delay;
        let mut attempt = 1;
        loop {
            let error = match step().await {
                Err(e) if e.kind().retryable() => e,
                other => return other,
            };
            let pause = jittered(delay.min(self.policy.longest_delay));
            if attempt >= self.policy.tries || began.elapsed() + pause > self.policy.total {
                return Err(if attempt == 1 { error } else { error.context(format!("{what}, tried {attempt} times")) });
            }
            attempt += 1;
            self.bus.emit(Event::Retry { what: what.to_owned(), error: error.to_string(), attempt });
            tokio::time::sleep(pause).await;
            delay = delay.saturating_mul(2);
        }
    }

    async fn put_small(&self, key: &str, bytes: Bytes) -> Result<()> {
        let unheard = AtomicBool::new(false);
        let what = format!("store {key} at {}", self.inner.location());
        self.again(&what, || self.put_once(key, &bytes, &unheard)).await
    }

    /// One try. `unheard` says whether an earlier one may have done its work without our hearing of it; from then on a refusal says nothing
    /// about that earlier try, and is [`Kind::OutcomeUnknown`] (rule 5).
    async fn put_once(&self, key: &str, bytes: &Bytes, unheard: &AtomicBool) -> Result<()> {
        let earlier = unheard.load(Ordering::Relaxed);
        let unknown = |e: Error| match e.kind().retryable() {
            true => e,
            false => e.with_kind(Kind::OutcomeUnknown).context(format!("{key} was sent before without an answer and may stand")),
        };
        match self.inner.put(key, Body::of(bytes.clone())).await {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == Kind::Exists && earlier => match self.holds(key, bytes).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(e),
                Err(why) => Err(unknown(why)),
            },
            Err(e) if earlier => Err(unknown(e)),
            Err(e) => {
                unheard.fetch_or(e.kind().retryable(), Ordering::Relaxed);
                Err(e)
            }
        }
    }

    /// Whether exactly these bytes stand under the key.
    async fn holds(&self, key: &str, bytes: &Bytes) -> Result<bool> {
        let head = match self.inner.head(key).await {
            Err(e) if e.kind() == Kind::NotFound => return Ok(false),
            other => other?,
        };
        Ok(head.bytes == bytes.len() as u64 && whole::read(self.inner.as_ref(), key).await? == *bytes)
    }

    /// Hands on what was kept and then the rest of the stream. What the store below says is the answer.
    async fn put_stream(&self, key: &str, kept: Vec<Bytes>, mut rest: Body) -> Result<()> {
        let (sender, body) = Body::channel(2);
        let feed = async move {
            for bytes in kept {
                sender.send(Piece::Data(bytes)).await?;
            }
            loop {
                let piece = rest.next().await?;
                let end = matches!(piece, Piece::End { .. });
                sender.send(piece).await?;
                if end {
                    return Ok::<(), Error>(());
                }
            }
        };
        let (stored, _) = tokio::join!(self.inner.put(key, body), feed);
        stored
    }
}

#[async_trait]
impl Store for RetryStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn put(&self, key: &str, mut body: Body) -> Result<()> {
        let mut kept: Vec<Bytes> = Vec::new();
        let mut held = 0usize;
        while held <= SMALL_BYTES {
            match body.next().await? {
                Piece::Data(bytes) => {
                    held += bytes.len();
                    kept.push(bytes);
                }
                Piece::End { bytes, sha256, .. } => {
                    let mut whole = BytesMut::with_capacity(held);
                    kept.iter().for_each(|k| whole.extend_from_slice(k));
                    // Checked here, because the store below is told length and hash of what we hold.
                    if whole.len() as u64 != bytes || Sha256::of(&whole) != sha256 {
                        return Err(crate::store::wrong_end(key));
                    }
                    return self.put_small(key, whole.freeze()).await;
                }
            }
        }
        self.put_stream(key, kept, body).await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        let what = format!("read {key} at {}", self.inner.location());
        self.again(&what, || self.inner.get_range(key, offset, length)).await
    }

    async fn head(&self, key: &str) -> Result<Head> {
        let what = format!("look at {key} at {}", self.inner.location());
        self.again(&what, || self.inner.head(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        let what = format!("list {prefix}* at {}", self.inner.location());
        self.again(&what, || self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let what = format!("delete {key} at {}", self.inner.location());
        self.again(&what, || self.inner.delete(key)).await
    }

    async fn server_date(&self) -> Result<Timestamp> {
        let what = format!("ask for the date at {}", self.inner.location());
        self.again(&what, || self.inner.server_date()).await
    }
}

/// Between half of `delay` and all of it, so that many who failed together do not come back together.
pub(crate) fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::rng().random_range(0.5..=1.0))
}
