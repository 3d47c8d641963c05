//! What the agent knows of a job between two looks at its log.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::catalog::JobLog;
use crate::model::JobName;
use crate::model::record::Grade;
use crate::ops::board::{LogFacts, lines_kept};
use crate::ops::{Setup, look};

/// How a job stands, in instants: ages grow by themselves.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When this was read.
    pub read_at: Timestamp,
    /// What was written to the sources after this instant would be lost now: the oldest of the groups. `None`: some group has no good set.
    pub safe_until: Option<Timestamp>,
    /// Groups without a good set.
    pub groups_without_good: Vec<String>,
    /// Live sets.
    pub sets: u64,
    /// When the run of the oldest of them began.
    pub oldest_at: Option<Timestamp>,
    /// Those among them that were read back or better.
    pub verified_sets: u64,
    /// Bytes of all live sets in each store.
    pub stored_bytes: u64,
    /// When the newest proof of each grade ended.
    pub proven_at: BTreeMap<Grade, Timestamp>,
    /// Bytes of the newest good set of each group, and of those before it, newest first.
    pub sizes: BTreeMap<String, Vec<u64>>,
    /// By how much the store's clock is ahead of this host's.
    pub skew: SignedDuration,
    /// What a person must hear of the log.
    pub findings: Vec<String>,
    /// The same for the pages.
    pub page: Option<Arc<LogFacts>>,
}

/// Sets of a group that are looked at for what is usual.
const SIZES: usize = 8;

/// Reads a job's log. `groups` are those of the configuration, `jobs` how many jobs it has: they share what is kept of lines.
pub async fn read(setup: &Setup, job: &JobName, groups: &[String], jobs: usize) -> crate::error::Result<Facts> {
    let log = setup.log(job).await?;
    let now = setup.clock.now();
    // A store that gives no date (read-only, say) says nothing of clocks.
    let skew = log.server_date().await.map_or(SignedDuration::ZERO, |server| server.duration_since(now));
    let page = LogFacts::of(log.state(), Some(groups), lines_kept(jobs));
    Ok(Facts { page: Some(Arc::new(page)), ..of_log(&log, groups, now, skew) })
}

fn of_log(log: &JobLog, groups: &[String], now: Timestamp, skew: SignedDuration) -> Facts {
    let status = look::job_status(log, Some(groups), now, None);
    let mut facts = Facts {
        read_at: now,
        safe_until: status.rpo_seconds.and_then(|age| now.checked_sub(SignedDuration::from_secs(age)).ok()),
        groups_without_good: status.groups_without_good,
        sets: status.sets as u64,
        oldest_at: log.state().live().map(|entry| entry.manifest.started_at).min(),
        verified_sets: status.verified_sets as u64,
        stored_bytes: status.stored_bytes,
        skew,
        findings: log.state().findings().iter().map(ToString::to_string).collect(),
        ..Facts::default()
    };
    for entry in log.state().live().rev() {
        for grade in [Grade::ReadBack, Grade::Restored] {
            if let Some(at) = entry.proven_at(grade).filter(|_| entry.grade(false) >= Some(grade)) {
                let newest = facts.proven_at.entry(grade).or_insert(at);
                *newest = (*newest).max(at);
            }
        }
        let sizes = facts.sizes.entry(entry.manifest.group.clone()).or_default();
        if entry.is_good() && sizes.len() < SIZES {
            sizes.push(entry.manifest.stored_bytes());
        }
    }
    facts
}
