//! Telling how far a read has come while it goes on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Artifact;
use crate::observe::Event;
use crate::ops::Setup;

/// How often.
const EVERY: Duration = Duration::from_millis(100);

/// Runs `work`, telling the plain bytes that `read_bytes` counts, and the share of the stored bytes that goes with them.
pub async fn while_telling<T>(
    setup: &Setup,
    shown: &str,
    artifact: &Artifact,
    read_bytes: &AtomicU64,
    work: impl std::future::Future<Output = T>,
) -> T {
    let so_far = || {
        let plain_bytes = read_bytes.load(Ordering::Relaxed);
        let share = plain_bytes as f64 / artifact.plain_bytes.max(1) as f64;
        (plain_bytes, (artifact.stored_bytes() as f64 * share) as u64)
    };
    telling(setup, shown, so_far, work).await
}

/// Runs `work`, telling the plain and the stored bytes that `so_far` gives.
pub async fn telling<T>(setup: &Setup, shown: &str, so_far: impl Fn() -> (u64, u64), work: impl std::future::Future<Output = T>) -> T {
    let ticking = async {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            let (plain_bytes, stored_bytes) = so_far();
            setup.bus.emit(Event::ArtifactProgress { artifact: shown.to_owned(), plain_bytes, stored_bytes });
        }
    };
    tokio::select! {
        done = work => done,
        never = ticking => never,
    }
}
