//! The board: what the agent's pages, its metrics and its textfile show, as one value. Nothing here reads a store or a clock.
//!
//! ```text
//!  catalog::State ──LogFacts──┐
//!  state::runs ────RunFacts───┼─ jobs_of ──▶ Board ◀── what only the agent knows: running, next, reload, probes, queues
//!  Config ────────────────────┘               └ judge ──▶ ages and alarms, by Board::at
//! ```
//! What is not known is `None`, never nought: a page leaves it out, and an alert rule can tell the difference.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::config::{Config, Job, Objectives};
use crate::model::clock::age_seconds;
use crate::model::{JobName, Severity};
use crate::state::{Incident, QueueState};

mod alarms;
mod facts;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use facts::{Attempt, Drill, GroupFacts, LogFacts, RunFacts, SourceFacts, Verified, lines_kept};

/// A snapshot of everything.
#[derive(Clone, Debug, Serialize)]
pub struct Board {
    /// When it was taken; ages are counted from here.
    pub at: Timestamp,
    /// Version of drctl.
    pub version: &'static str,
    /// The machine's name.
    pub host: String,
    /// When the agent started.
    pub started_at: Timestamp,
    /// The configuration in use.
    pub config: ConfigBoard,
    /// What starts runs.
    pub scheduler: SchedulerBoard,
    /// The repository on its first store.
    pub repository: RepositoryBoard,
    /// The stores, the repository's first.
    pub stores: Vec<StoreBoard>,
    /// Incidents that are open, the oldest first.
    pub incidents: Vec<IncidentBoard>,
    /// Every notifier with what waits for it.
    pub queues: Vec<QueueBoard>,
    /// This machine's clock.
    pub clock: ClockBoard,
    /// The state file.
    pub state: StateBoard,
    /// The jobs of the configuration, in its order.
    pub jobs: Vec<JobBoard>,
}

/// The configuration in use.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConfigBoard {
    /// `drctl.yaml`.
    pub path: Option<String>,
    /// When the one in use was loaded.
    pub loaded_at: Option<Timestamp>,
    /// The last reload, when it was refused; the old configuration is in use then.
    pub refused: Option<Refused>,
}

/// A reload that was refused.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// When.
    pub at: Timestamp,
    /// Why, with file and line.
    pub why: String,
}

/// What starts runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SchedulerBoard {
    /// When it last looked what is due.
    pub last_tick: Option<Timestamp>,
}

/// The repository on its first store.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RepositoryBoard {
    /// Where it lies.
    pub location: String,
    /// When it was last looked at, whatever was found; `None`: not since the start.
    pub looked_at: Option<Timestamp>,
    /// Why it could not be read then.
    pub problem: Option<String>,
}

/// One store.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreBoard {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub location: String,
    /// A set may miss it.
    pub optional: bool,
    /// Whether it answered when it was last tried; `None`: not tried since the start.
    pub reachable: Option<bool>,
    /// When it was last tried.
    pub probed_at: Option<Timestamp>,
    /// Why it is not reachable.
    pub problem: Option<String>,
    /// Multipart uploads in it that nobody will end; `None`: not looked for, or it has no such thing.
    pub orphan_multiparts: Option<u64>,
}

/// An open incident.
#[derive(Clone, Debug, Serialize)]
pub struct IncidentBoard {
    /// What it is about.
    pub key: String,
    /// The worst it was.
    pub severity: Severity,
    /// The job, where it is about one.
    pub job: Option<String>,
    /// When it began.
    pub opened_at: Timestamp,
    /// How often it was seen.
    pub times: u64,
    /// What was last said of it.
    pub message: String,
}

impl From<&Incident> for IncidentBoard {
    fn from(incident: &Incident) -> Self {
        IncidentBoard {
            key: incident.key.clone(),
            severity: incident.severity,
            job: incident.job.clone(),
            opened_at: incident.opened_at,
            times: incident.times,
            message: incident.message.clone(),
        }
    }
}

/// What waits for one notifier.
#[derive(Clone, Debug, Default, Serialize)]
pub struct QueueBoard {
    /// Its name.
    pub notifier: String,
    /// How many alerts wait.
    pub waiting: u64,
    /// Since when the first of them waits.
    pub waiting_since: Option<Timestamp>,
    /// How many it refused for good, as far as they are kept.
    pub refused: u64,
    /// How many were dropped and nobody was told of yet.
    pub dropped: u64,
    /// Why the first that waits could not be delivered, else why the newest was refused.
    pub problem: Option<String>,
}

/// Every notifier of the configuration with what waits for it, which may be nothing; then those that were taken out and still have a queue.
pub fn queues_of<'a>(notifiers: impl IntoIterator<Item = &'a str>, states: &[QueueState]) -> Vec<QueueBoard> {
    let mut all: BTreeMap<String, QueueBoard> =
        notifiers.into_iter().map(|name| (name.to_owned(), QueueBoard { notifier: name.to_owned(), ..QueueBoard::default() })).collect();
    for state in states {
        let queue = QueueBoard {
            notifier: state.notifier.clone(),
            waiting: state.waiting,
            waiting_since: state.waiting_since,
            refused: state.refused,
            dropped: state.dropped,
            problem: state.problem.clone(),
        };
        all.insert(state.notifier.clone(), queue);
    }
    all.into_values().collect()
}

/// This machine's clock.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClockBoard {
    /// By how many seconds it is ahead of the first store's; negative: behind.
    pub skew_seconds: Option<f64>,
    /// When they were compared.
    pub compared_at: Option<Timestamp>,
}

/// The state file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StateBoard {
    /// Where it lies.
    pub path: Option<String>,
    /// Why it cannot be used: the agent then remembers nothing over a restart.
    pub problem: Option<String>,
}

/// One job.
#[derive(Clone, Debug, Serialize)]
pub struct JobBoard {
    /// Its name.
    pub job: JobName,
    /// Its groups of sources.
    pub groups: Vec<String>,
    /// Its sources.
    pub sources: Vec<SourceBoard>,
    /// What a recovery must achieve.
    pub objectives: ObjectivesBoard,
    /// What its log says; `None`: not read since the start.
    pub log: Option<Arc<LogFacts>>,
    /// Why its log could not be read the last time.
    pub log_problem: Option<String>,
    /// Seconds of work that would be lost now; `None` also while a group has no good set, and while it is not known.
    pub rpo_seconds: Option<i64>,
    /// The newest good set of a group is dated in the future: how old it is is not known.
    pub age_unknown: bool,
    /// What the state file says of its runs.
    pub runs: RunFacts,
    /// The run under way.
    pub running: Option<Running>,
    /// What runs next, the first first.
    pub next: Vec<Next>,
    /// What is wrong, by names and figures only.
    pub alarms: Vec<Alarm>,
}

/// One source of a job.
#[derive(Clone, Debug, Serialize)]
pub struct SourceBoard {
    /// Its name.
    pub name: String,
    /// `postgres`, `files` …
    pub kind: &'static str,
    /// The group it belongs to.
    pub group: String,
    /// Greatest time between two scheduled backups of its group, in seconds; `None`: only by hand, or not known.
    pub expected_interval_seconds: Option<i64>,
    /// End of the newest run that stored all of it.
    pub last_success: Option<Timestamp>,
    /// That date lies in the future: how old it is is not known.
    pub ahead: bool,
    /// Plain bytes of it in that run's set.
    pub plain_bytes: Option<u64>,
    /// Bytes that these take in each store.
    pub stored_bytes: Option<u64>,
}

/// What a recovery must achieve; all in seconds but the size.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ObjectivesBoard {
    /// Greatest age of the newest good set.
    pub rpo_seconds: Option<i64>,
    /// Longest time a restore may take.
    pub rto_seconds: Option<i64>,
    /// Greatest age of the newest verification.
    pub verified_within_seconds: Option<i64>,
    /// Greatest age of the newest drill.
    pub drilled_within_seconds: Option<i64>,
    /// A run that takes longer is told of.
    pub max_duration_seconds: i64,
    /// Greatest size of all sets together, in stored bytes.
    pub max_total_bytes: Option<u64>,
}

impl ObjectivesBoard {
    fn of(objectives: &Objectives) -> Self {
        let seconds = |length: std::time::Duration| i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        ObjectivesBoard {
            rpo_seconds: objectives.rpo.map(seconds),
            rto_seconds: objectives.rto.map(seconds),
            verified_within_seconds: objectives.verified_within.map(seconds),
            drilled_within_seconds: objectives.drilled_within.map(seconds),
            max_duration_seconds: seconds(objectives.max_duration),
            max_total_bytes: objectives.max_total_size,
        }
    }
}

/// A run under way.
#[derive(Clone, Debug, Serialize)]
pub struct Running {
    /// `backup`, `verify` …
    pub verb: String,
    /// Since when.
    pub since: Timestamp,
}

/// What will run.
#[derive(Clone, Debug, Serialize)]
pub struct Next {
    /// The group of sources.
    pub group: String,
    /// `full`, `verify` …
    pub what: &'static str,
    /// The next scheduled instant.
    pub at: Timestamp,
}

/// Something that is wrong with a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// What it is about, as `rpo` or `growth-main`: the same as long as it lasts, and no other's of this job.
    pub what: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, by names and figures only.
    pub text: String,
    /// The next command.
    pub next: String,
    /// What the incident is called that the agent makes of it; `None` where it is told otherwise, or where it is too early to tell.
    #[serde(skip)]
    pub incident: Option<&'static str>,
}

impl Board {
    /// A board of an agent that has just started: nothing is known yet.
    pub fn new(host: impl Into<String>, started_at: Timestamp) -> Board {
        Board {
            at: started_at,
            version: env!("CARGO_PKG_VERSION"),
            host: host.into(),
            started_at,
            config: ConfigBoard::default(),
            scheduler: SchedulerBoard::default(),
            repository: RepositoryBoard::default(),
            stores: Vec::new(),
            incidents: Vec::new(),
            queues: Vec::new(),
            clock: ClockBoard::default(),
            state: StateBoard::default(),
            jobs: Vec::new(),
        }
    }

    /// A job by name.
    pub fn job(&self, name: &str) -> Option<&JobBoard> {
        self.jobs.iter().find(|job| job.job.as_str() == name)
    }

    /// Works out ages and alarms as of `now`. To be called last, when everything else is filled in; again whenever time has passed.
    pub fn judge(&mut self, now: Timestamp) {
        self.at = now;
        for job in &mut self.jobs {
            job.rpo_seconds = job.log.as_ref().and_then(|log| log.rpo_seconds(now));
            job.age_unknown = job.log.as_ref().is_some_and(|log| log.is_ahead(now));
            for source in &mut job.sources {
                source.ahead = source.last_success.is_some_and(|at| age_seconds(at, now).is_none());
            }
            job.alarms = alarms::of(job, self.started_at, now);
        }
    }
}

impl JobBoard {
    /// A job of the configuration with what is known of it. `running`, `next` and what is expected are the agent's to fill in.
    pub fn new(job: &Job, log: Option<Arc<LogFacts>>, runs: RunFacts) -> JobBoard {
        let sources = job.sources.iter().map(|source| {
            let known = log.as_ref().and_then(|log| log.sources.get(&source.name));
            SourceBoard {
                name: source.name.clone(),
                kind: source.kind.name(),
                group: source.group().to_owned(),
                expected_interval_seconds: None,
                last_success: known.map(|known| known.last_success),
                ahead: false,
                plain_bytes: known.map(|known| known.plain_bytes),
                stored_bytes: known.map(|known| known.stored_bytes),
            }
        });
        JobBoard {
            job: job.name.clone(),
            groups: job.group_names(),
            sources: sources.collect(),
            objectives: ObjectivesBoard::of(&job.objectives),
            log,
            log_problem: None,
            rpo_seconds: None,
            age_unknown: false,
            runs,
            running: None,
            next: Vec::new(),
            alarms: Vec::new(),
        }
    }

    /// Notes the greatest time between two scheduled backups of a group.
    pub fn expect(&mut self, group: &str, interval_seconds: Option<i64>) {
        for source in self.sources.iter_mut().filter(|source| source.group == group) {
            source.expected_interval_seconds = interval_seconds;
        }
    }
}

/// Every job of the configuration with what is known of it, in its order.
pub fn jobs_of(config: &Config, logs: &BTreeMap<JobName, Arc<LogFacts>>, runs: &BTreeMap<String, RunFacts>) -> Vec<JobBoard> {
    let one = |job: &Job| JobBoard::new(job, logs.get(&job.name).cloned(), runs.get(job.name.as_str()).cloned().unwrap_or_default());
    config.jobs.iter().map(one).collect()
}
