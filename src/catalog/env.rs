//! What the catalog needs from its surroundings, given from outside: time, chance, waiting, and the high-water mark.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt as _;

use crate::error::Result;
use crate::model::{Clock, JobName, Sha256, SystemClock};

/// Where random numbers come from.
pub trait Random: Send + Sync {
    /// 32 random bits.
    fn bits(&self) -> u32;
}

/// The operating system's random numbers, by way of the thread's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn bits(&self) -> u32 {
        rand::rng().random()
    }
}

/// How to wait between tries.
#[async_trait]
pub trait Pause: Send + Sync {
    /// Waits before try number `attempt` (the first retry is 1). `false` means: no more tries.
    async fn before_retry(&self, attempt: u32) -> bool;
}

/// Waits 0.25 s, 0.5 s, 1 s … at most 10 s each, about 2 minutes in all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff;

impl Backoff {
    const TRIES: u32 = 16;
}

#[async_trait]
impl Pause for Backoff {
    async fn before_retry(&self, attempt: u32) -> bool {
        if attempt > Self::TRIES {
            return false;
        }
        let millis = 250u64.saturating_mul(1 << attempt.saturating_sub(1).min(6)).min(10_000);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        true
    }
}

/// The newest record this machine has ever seen of a log, kept outside the repository (FAULTS 72).
///
/// With it a log that was rolled back or exchanged for an older one is noticed; without it only gaps are.
pub trait HighWater: Send + Sync {
    /// Number and SHA-256 of the newest record seen; `None` when nothing is known of this log.
    fn get(&self, repository: &str, job: &JobName) -> Result<Option<(u64, Sha256)>>;

    /// Remembers a newer record. Called only with numbers that do not go back.
    fn set(&self, repository: &str, job: &JobName, number: u64, sha256: &Sha256) -> Result<()>;

    /// Puts this record in the place of whatever was seen: a person knows that the log went back.
    fn reset(&self, repository: &str, job: &JobName, number: u64, sha256: &Sha256) -> Result<()>;
}

/// What is let go when dropped.
pub type Guard = Box<dyn Send + Sync>;

/// Keeps the appends of one host apart where the store cannot (rule 13).
#[async_trait]
pub trait WriterLock: Send + Sync {
    /// Waits for the lock, which is held until the guard is dropped. Any error means that it is not held.
    async fn lock(&self) -> Result<Guard>;
}

/// Everything from outside, in one value.
#[derive(Clone)]
pub struct Env {
    /// The machine's clock; it dates records, it never orders them.
    pub clock: Arc<dyn Clock>,
    /// Chance: set ids, names of holds, ids of repositories.
    pub random: Arc<dyn Random>,
    /// Waiting between tries.
    pub pause: Arc<dyn Pause>,
    /// The high-water mark, where the machine keeps one.
    pub high_water: Option<Arc<dyn HighWater>>,
    /// Folder of verified record bytes, where the machine keeps one.
    pub cache: Option<crate::catalog::cache::Cache>,
    /// The lock under which a single-writer repository is appended to; without one nothing is.
    pub writer_lock: Option<Arc<dyn WriterLock>>,
}

impl Default for Env {
    fn default() -> Self {
        Env {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            pause: Arc::new(Backoff),
            high_water: None,
            cache: None,
            writer_lock: None,
        }
    }
}
