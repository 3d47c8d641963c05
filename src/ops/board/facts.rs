//! What a job's log and the history of runs say, condensed: to be kept by the agent and made anew when one of them changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::{SetEntry, State};
use crate::error::{Kind, Result};
use crate::model::record::Grade;
use crate::ops::look::SetLine;
use crate::ops::standing::{self, Standing, Stored};
use crate::state::{Newest, RunOutcome, RunRow, StateFile};

/// Most lines of sets that are kept of one job, and of all together (some 300 bytes each).
const LINES: (usize, usize) = (1000, 20_000);

/// Sets of a group that are looked at for what is usual.
const SIZES: usize = 8;

/// Of a job's backups that ended, so many are kept.
pub const RECENT: u32 = 20;

/// How many lines of sets are kept of each of so many jobs.
pub fn lines_kept(jobs: usize) -> usize {
    (LINES.1 / jobs.max(1)).clamp(1, LINES.0)
}

/// What a log says.
#[derive(Clone, Debug, Serialize)]
pub struct LogFacts {
    /// Number of its newest record.
    pub head: u64,
    /// Sets that are live.
    pub sets: usize,
    /// Sets that are good and proven `read-back` or better.
    pub verified_sets: usize,
    /// Bytes they take in each store.
    pub stored_bytes: u64,
    /// The newest good set.
    pub newest_good: Option<SetLine>,
    /// A newer set that is not good.
    pub newest_bad: Option<SetLine>,
    /// The instant from which on everything would be lost now: the worst of the groups; `None` where one has no good set.
    pub as_of: Option<Timestamp>,
    /// The latest instant that the newest good set of any group says it stands for. As long as it lies in the future no age is known.
    pub latest: Option<Timestamp>,
    /// Groups of sources that have no good set at all.
    pub groups_without_good: Vec<String>,
    /// The newest set of each group, good or not.
    pub groups: BTreeMap<String, GroupFacts>,
    /// The newest proof of each grade that stands; one of a higher grade counts for the lower ones.
    pub verified: Vec<Verified>,
    /// The newest drill that passed.
    pub drill: Option<Drill>,
    /// What a person must hear of the log and has not acknowledged.
    pub findings: Vec<String>,
    /// Bytes of the newest good sets of each group, the newest first.
    #[serde(skip)]
    pub sizes: BTreeMap<String, Vec<u64>>,
    /// By the source's name.
    #[serde(skip)]
    pub sources: BTreeMap<String, SourceFacts>,
    /// The newest sets, the newest first; a page of its own shows them.
    #[serde(skip)]
    pub lines: Arc<[SetLine]>,
}

/// The newest set of a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupFacts {
    /// When its run began.
    pub started_at: Timestamp,
    /// Seconds from there until everything but the commit was stored.
    pub duration_seconds: f64,
}

/// The newest proof of a grade.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verified {
    /// At least this grade.
    pub grade: Grade,
    /// When it was proven.
    pub at: Timestamp,
}

/// A drill that passed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drill {
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub duration_seconds: f64,
}

/// A source in the newest set that holds all of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceFacts {
    /// When that set was finished.
    pub last_success: Timestamp,
    /// Plain bytes of its artifacts.
    pub plain_bytes: u64,
    /// Bytes that these take in each store.
    pub stored_bytes: u64,
}

impl LogFacts {
    /// Of a job whose configuration has these groups (those of its sets, where it is not known), with what the store says of its
    /// records, and at most `lines` sets by line.
    pub fn of(state: &State, groups: Option<&[String]>, stored: &Stored, lines: usize) -> LogFacts {
        let stands = Standing::of(state, groups, stored);
        let mut facts = LogFacts {
            head: state.head(),
            sets: stands.sets,
            verified_sets: stands.verified_sets,
            stored_bytes: stands.stored_bytes,
            newest_good: stands.newest_good.map(SetLine::of),
            newest_bad: stands.newest_bad.map(SetLine::of),
            as_of: stands.as_of,
            latest: stands.latest,
            groups_without_good: stands.groups_without_good,
            groups: BTreeMap::new(),
            verified: Vec::new(),
            drill: None,
            findings: state.open_findings().map(ToString::to_string).collect(),
            sizes: BTreeMap::new(),
            sources: BTreeMap::new(),
            lines: state.live().rev().take(lines).map(SetLine::of).collect(),
        };
        for entry in state.live().rev() {
            facts.take_in(entry);
        }
        facts.verified = [Grade::ReadBack, Grade::Restored]
            .into_iter()
            .filter_map(|grade| Some(Verified { grade, at: newest_proof(state, grade)?.0 }))
            .collect();
        facts.drill = newest_proof(state, Grade::Restored).map(|(at, duration_seconds)| Drill { at, duration_seconds });
        facts
    }

    /// Seconds of work that would be lost at `now`; `None` where a group has no good set, and where that is not known.
    pub fn rpo_seconds(&self, now: Timestamp) -> Option<i64> {
        standing::rpo_seconds(self.as_of, self.latest, now)
    }

    /// Whether the newest good set of a group is dated in the future.
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        standing::is_ahead(self.latest, now)
    }

    /// When a grade, or a higher one, was last proven.
    pub fn verified_at(&self, grade: Grade) -> Option<Timestamp> {
        self.verified.iter().find(|verified| verified.grade == grade).map(|verified| verified.at)
    }

    /// Sets come newest first: the first word of each source and group stands.
    fn take_in(&mut self, entry: &SetEntry) {
        let manifest = &entry.manifest;
        // What was live before a restore says nothing of how backups go.
        if entry.is_safety() {
            return;
        }
        self.groups.entry(manifest.group.clone()).or_insert_with(|| GroupFacts {
            started_at: manifest.started_at,
            duration_seconds: manifest.finished_at.duration_since(manifest.started_at).as_secs_f64().max(0.0),
        });
        if entry.is_good() {
            let sizes = self.sizes.entry(manifest.group.clone()).or_default();
            if sizes.len() < SIZES {
                sizes.push(manifest.stored_bytes());
            }
        }
        // In a set that lacks something each source stands for itself; one that is suspect, or failed its reading, is no success of any.
        if manifest.state.name() == "suspect" || entry.grade(false).is_none() {
            return;
        }
        for source in standing::sources(entry).filter(|source| source.problems.is_empty()) {
            let artifacts = || manifest.artifacts.iter().filter(|artifact| artifact.source == source.name);
            self.sources.entry(source.name.clone()).or_insert_with(|| SourceFacts {
                last_success: manifest.finished_at,
                plain_bytes: artifacts().map(|artifact| artifact.plain_bytes).sum(),
                stored_bytes: artifacts().map(crate::model::Artifact::stored_bytes).sum(),
            });
        }
    }
}

/// End and seconds of the newest passed proof of at least this grade, of a good set whose grade still stands.
fn newest_proof(state: &State, grade: Grade) -> Option<(Timestamp, f64)> {
    let good = state.live().filter(|entry| entry.is_good() && entry.grade(false) >= Some(grade));
    let proofs = good.flat_map(|entry| entry.proofs.iter().filter(|p| !entry.is_copy(&p.proof.store)));
    // The log's order: a date may be a clock's mistake.
    let newest = &proofs.filter(|p| p.proof.passed && p.proof.grade >= grade).max_by_key(|p| p.number)?.proof;
    Some((newest.finished_at, newest.finished_at.duration_since(newest.started_at).as_secs_f64().max(0.0)))
}

/// What the history of this machine's runs says of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunFacts {
    /// When its newest backup began, ended or not.
    pub attempted_at: Option<Timestamp>,
    /// Its newest backup that ended.
    pub last_attempt: Option<Attempt>,
    /// Seconds that the newest restore took that went well.
    pub restore_seconds: Option<f64>,
    /// Of its newest [`RECENT`] backups that ended which failed, the newest first.
    #[serde(skip)]
    pub recent_failed: Vec<bool>,
}

/// A backup that ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attempt {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended, or was found to have been interrupted.
    pub finished_at: Option<Timestamp>,
    /// How it ended; `None`: its process died.
    pub exit_code: Option<u8>,
    /// Why it failed.
    pub error: Option<String>,
    /// The set it made.
    pub set: Option<String>,
}

impl RunFacts {
    /// Of every job that the state file knows runs of, by the job's name. Four queries, whatever the number of jobs.
    pub fn read(state: &StateFile) -> Result<BTreeMap<String, RunFacts>> {
        let mut all: BTreeMap<String, RunFacts> = BTreeMap::new();
        let mut each = |verb, which, note: fn(&mut RunFacts, RunRow)| -> Result<()> {
            for row in state.newest_runs(verb, which)? {
                let job = row.job.clone().unwrap_or_default();
                note(all.entry(job).or_default(), row);
            }
            Ok(())
        };
        each("backup", Newest::Begun, |facts, row| facts.attempted_at = Some(row.started_at))?;
        each("backup", Newest::Ended, |facts, row| facts.last_attempt = Some(Attempt::of(row)))?;
        each("restore", Newest::Good, |facts, row| {
            facts.restore_seconds = row.finished_at.map(|end| end.duration_since(row.started_at).as_secs_f64().max(0.0));
        })?;
        for (job, exit_code) in state.recent_outcomes("backup", RECENT)? {
            all.entry(job).or_default().recent_failed.push(is_failure(exit_code));
        }
        Ok(all)
    }
}

/// Whether a run that ended so came to nothing; `None`: its process died. Where another run had the job, that one counts.
fn is_failure(exit_code: Option<u8>) -> bool {
    exit_code.is_none_or(|code| code != 0 && code != Kind::Locked.exit_code())
}

impl Attempt {
    /// Whether it failed, or died.
    pub fn failed(&self) -> bool {
        is_failure(self.exit_code)
    }

    fn of(row: RunRow) -> Attempt {
        let exit_code = match row.outcome {
            RunOutcome::Finished(code) => Some(code),
            RunOutcome::Running | RunOutcome::Interrupted => None,
        };
        Attempt { started_at: row.started_at, finished_at: row.finished_at, exit_code, error: row.error, set: row.set }
    }
}
