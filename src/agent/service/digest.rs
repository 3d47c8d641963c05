//! The digest: how everything stands, once in a while and whether anything is wrong or not.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Agent;
use crate::model::JobName;
use crate::model::clock::age_seconds;
use crate::model::record::Grade;
use crate::notify::words::{self, DigestJob, DigestLog};
use crate::open::stores;
use crate::state::{RunOutcome, RunRow};

impl Agent {
    pub(super) fn digest(&self, now: Timestamp) {
        // One that is due when the agent starts waits for the first look: what was not read yet is not missing.
        if self.looked.is_none() || !self.desk.digest_is_due() {
            return;
        }
        const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
        let since = now.checked_sub(WEEK).unwrap_or(now);
        let jobs = self.config.jobs.iter().map(|job| self.digest_of(&job.name, job.objectives.rpo, since, now)).collect();
        let open = self.desk.open_incidents().unwrap_or_default();
        let title = |message: &str| serde_json::from_str::<serde_json::Value>(message).ok()?["title"].as_str().map(str::to_owned);
        let digest = words::Digest {
            host: stores::host(),
            at: now,
            over_seconds: WEEK.as_secs(),
            jobs,
            open: open.iter().map(|incident| title(&incident.message).unwrap_or_else(|| incident.key.clone())).collect(),
            advice: self.advice.clone(),
        };
        self.tell(self.desk.digest(words::digest(&digest)));
        if let Some(state) = &self.state {
            for (job, log) in digest.jobs.iter().filter_map(|job| Some((&job.job, job.log.as_ref()?))) {
                let _ = state.set_setting(&format!("digest/stored/{job}"), &log.stored_bytes.to_string());
            }
        }
    }

    fn digest_of(&self, job: &JobName, rpo: Option<Duration>, since: Timestamp, now: Timestamp) -> DigestJob {
        let runs = self.state.as_ref().and_then(|state| state.runs(Some(job.as_str()), Some("backup"), 1000).ok()).unwrap_or_default();
        let recent = runs.iter().filter(|row| row.started_at >= since && row.outcome != RunOutcome::Running);
        let (good, bad): (Vec<&RunRow>, Vec<&RunRow>) = recent.partition(|row| row.outcome == RunOutcome::Finished(0));
        let before = self.state.as_ref().and_then(|state| state.setting(&format!("digest/stored/{job}")).ok()?);
        DigestJob {
            job: job.to_string(),
            good_runs: good.len() as u64,
            bad_runs: bad.len() as u64,
            rpo_seconds: rpo.map(|rpo| rpo.as_secs() as i64),
            log: self.known.get(job).map(|facts| DigestLog {
                newest_good_seconds: facts.log.rpo_seconds(now),
                dated_ahead: facts.log.is_ahead(now),
                sets: facts.log.sets as u64,
                verified_sets: facts.log.verified_sets as u64,
                stored_bytes: facts.log.stored_bytes,
                drill_seconds: facts.log.verified_at(Grade::Restored).and_then(|at| age_seconds(at, now)),
            }),
            stored_bytes_before: before.and_then(|text| text.parse().ok()),
        }
    }
}
