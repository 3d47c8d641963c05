//! What the agent knows of a job between two looks at its log, in instants: ages grow by themselves.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::model::JobName;
use crate::ops::Setup;
use crate::ops::board::{LogFacts, lines_kept};
use crate::ops::standing::stored_dates;

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
    let stored = stored_dates(&log, Some(groups), now).await;
    Ok(Facts {
        read_at: now,
        skew,
        oldest_at: log.state().live().map(|entry| entry.manifest.started_at).min(),
        log: Arc::new(LogFacts::of(log.state(), Some(groups), &stored, lines_kept(jobs))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{Bed, job};
    use crate::error::Kind;
    use crate::model::SetKind;
    use crate::pipeline::seal::Sealing;
    use crate::pipeline::split::Sink;
    use crate::store::faulty::{Fault, FaultyStore, Operation, When};

    #[tokio::test]
    async fn a_store_without_a_date_says_nothing_of_clocks() {
        let bed = Bed::new().await;
        bed.backup(&mut bed.log().await, SetKind::Full).await;
        let store = Arc::new(FaultyStore::new(bed.store.clone()));
        let setup = Setup::new(bed.through(store.clone()).await, vec![Sink::new("main", store.clone())], Sealing::None);
        store.rule(Operation::Date, "*", When::Always, Fault::Fail(Kind::Denied));
        let facts = read(&setup, &job(), &["main".to_owned()], 1).await.unwrap();
        assert_eq!((facts.log.sets, facts.skew), (1, SignedDuration::ZERO));
    }
}
