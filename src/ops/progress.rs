//! Telling how far a read has come while it goes on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Artifact;
use crate::observe::Event;
use crate::ops::Setup;

/// How often.
pub const EVERY: Duration = Duration::from_millis(100);

/// Runs `work`, telling the plain bytes that `read_bytes` counts.
pub async fn while_telling<T>(
    setup: &Setup,
    shown: &str,
    artifact: &Artifact,
    read_bytes: &AtomicU64,
    work: impl std::future::Future<Output = T>,
) -> T {
    let telling = async {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            let plain_bytes = read_bytes.load(Ordering::Relaxed);
            let share = plain_bytes as f64 / artifact.plain_bytes.max(1) as f64;
            let stored_bytes = (artifact.stored_bytes() as f64 * share) as u64;
            setup.bus.emit(Event::ArtifactProgress { artifact: shown.to_owned(), plain_bytes, stored_bytes });
        }
    };
    tokio::select! {
        done = work => done,
        never = telling => never,
    }
}
