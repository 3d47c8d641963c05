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
    /// What a person must hear of the log and has not acknowledged.
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
        findings: log.state().open_findings().map(ToString::to_string).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{Bed, at, job};
    use crate::catalog::{Repository, Trust, checkpoint};
    use crate::error::Kind;
    use crate::model::record::{Body, Proof};
    use crate::model::{SetId, SetKind, SetState};
    use crate::pipeline::seal::Sealing;
    use crate::pipeline::split::Sink;
    use crate::store::faulty::{Fault, FaultyStore, Operation, When};

    fn known(log: &JobLog) -> Facts {
        of_log(log, &["main".to_owned()], at("2025-01-02T00:00:00Z"), SignedDuration::ZERO)
    }

    async fn prove(log: &mut JobLog, set: &SetId, grade: Grade, passed: bool, when: &str) {
        let (set, findings, store) = (set.clone(), Vec::new(), "main".to_owned());
        let proof = Proof { set, grade, passed, findings, started_at: at(when), finished_at: at(when), store };
        log.append(Body::Proof { proof }).await.unwrap();
    }

    #[tokio::test]
    async fn the_newest_proof_that_stands_counts() {
        let bed = Bed::new().await;
        let mut log = bed.log().await;
        let one = bed.backup(&mut log, SetKind::Full).await;
        let two = bed.backup(&mut log, SetKind::Full).await;
        assert_eq!(known(&log).proven_at, BTreeMap::new());
        // The older set is verified last.
        prove(&mut log, &two, Grade::ReadBack, true, "2025-01-01T04:00:00Z").await;
        prove(&mut log, &two, Grade::Restored, true, "2025-01-01T05:00:00Z").await;
        prove(&mut log, &one, Grade::ReadBack, true, "2025-01-01T06:00:00Z").await;
        let (five, six) = (at("2025-01-01T05:00:00Z"), at("2025-01-01T06:00:00Z"));
        assert_eq!(known(&log).proven_at, [(Grade::ReadBack, six), (Grade::Restored, five)].into());
        // What a later reading found bad proves nothing any more.
        prove(&mut log, &one, Grade::ReadBack, false, "2025-01-01T07:00:00Z").await;
        let four = at("2025-01-01T04:00:00Z");
        assert_eq!(known(&log).proven_at, [(Grade::ReadBack, four), (Grade::Restored, five)].into());
        assert_eq!((known(&log).sets, known(&log).verified_sets), (2, 1));
    }

    #[tokio::test]
    async fn what_is_usual_is_the_size_of_the_newest_good_sets() {
        let bed = Bed::new().await;
        let mut log = bed.log().await;
        let mut sizes = Vec::new();
        for n in 0..SIZES + 2 {
            let run = log.begin_run(SetKind::Full, "main").await.unwrap();
            let mut manifest = bed.upload(&run).await;
            if n == 2 {
                manifest.state = SetState::Partial { reasons: vec!["db: gone".into()] };
            }
            run.commit(&mut log, manifest, |_| Ok(())).await.unwrap();
            sizes.push(known(&log).sizes["main"].len());
        }
        assert_eq!(sizes, [1, 2, 2, 3, 4, 5, 6, 7, 8, 8]);
    }

    #[tokio::test]
    async fn a_store_without_a_date_says_nothing_of_clocks() {
        let bed = Bed::new().await;
        bed.backup(&mut bed.log().await, SetKind::Full).await;
        let store = std::sync::Arc::new(FaultyStore::new(bed.store.clone()));
        let trust = Trust::Known { id: bed.repository.id().into(), root: bed.repository.root().clone() };
        let repository = Repository::open(store.clone(), bed.repository.env().clone(), &trust).await.unwrap();
        let setup = Setup::new(repository, vec![Sink::new("main", store.clone())], Sealing::None);
        store.rule(Operation::Date, "*", When::Always, Fault::Fail(Kind::Denied));
        let facts = read(&setup, &job(), &["main".to_owned()], 1).await.unwrap();
        assert_eq!((facts.sets, facts.skew), (1, SignedDuration::ZERO));
    }

    #[tokio::test]
    async fn what_somebody_looked_at_is_told_no_more() {
        let bed = Bed::new().await;
        let mut log = bed.log().await;
        bed.backup(&mut log, SetKind::Full).await;
        bed.backup(&mut log, SetKind::Full).await;
        bed.store.inner.overwrite(&crate::catalog::log::record_key(&job(), 2), "garbage".into());
        let mut log = bed.log().await;
        assert!(!known(&log).findings.is_empty());
        checkpoint::acknowledge(&mut log).await.unwrap();
        assert_eq!(known(&bed.log().await).findings, [""; 0]);
    }
}
