//! What the agent knows of a job between two looks at its log, in instants: ages grow by themselves.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::model::JobName;
use crate::ops::Setup;
use crate::ops::board::{LogFacts, lines_kept};

/// How a job stood when its log was read.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When this was read.
    pub read_at: Timestamp,
    /// By how much the store's clock was ahead of this host's.
    pub skew: SignedDuration,
    /// When the run of the oldest live set began.
    pub oldest_at: Option<Timestamp>,
    /// What the log says.
    pub log: Arc<LogFacts>,
}

/// Reads a job's log. `groups` are those of the configuration, `jobs` how many jobs it has: they share what is kept of lines.
pub async fn read(setup: &Setup, job: &JobName, groups: &[String], jobs: usize) -> crate::error::Result<Facts> {
    let log = setup.log(job).await?;
    let now = setup.clock.now();
    // A store that gives no date (read-only, say) says nothing of clocks.
    let skew = log.server_date().await.map_or(SignedDuration::ZERO, |server| server.duration_since(now));
    Ok(Facts {
        read_at: now,
        skew,
        oldest_at: log.state().live().map(|entry| entry.manifest.started_at).min(),
        log: Arc::new(LogFacts::of(log.state(), Some(groups), lines_kept(jobs))),
    })
}
