//! When what runs. Pure: `now` and what was handled are given from outside, and nothing here waits, stores or starts anything.
//!
//! ```text
//! Config ──entries──▶ Entry × n ──Table (+ marks of the state file)──due(now)──▶ Due ──take──▶ marks to store, then the run
//! ```
//! [`CronSchedule::next_after`] says which instants an expression means in a zone, [`table`] what of it is due now.

pub mod table;

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::values::CronSchedule;
use crate::config::{Config, Job, MAIN_GROUP, Schedule};
use crate::model::JobName;

pub use table::{Due, Table};

/// What an entry runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// A backup that refers to earlier ones; a full one until incremental sets exist.
    Incremental,
    /// A full backup.
    Full,
    /// A full backup that is kept longer.
    Archive,
    /// A verification by reading back.
    Verify,
    /// A restore into a scratch server.
    Drill,
    /// Deleting what retention does not keep.
    Prune,
}

impl What {
    /// All of them, in the order in which they are listed.
    pub const ALL: [What; 6] = [What::Full, What::Incremental, What::Archive, What::Verify, What::Drill, What::Prune];

    /// Its key in the configuration, which is its name everywhere.
    pub fn name(self) -> &'static str {
        match self {
            What::Full => "full",
            What::Incremental => "incremental",
            What::Archive => "archive",
            What::Verify => "verify",
            What::Drill => "drill",
            What::Prune => "prune",
        }
    }

    /// Whether it is a backup.
    pub fn makes_sets(self) -> bool {
        self.strength().is_some()
    }

    /// Of backups that are due together only the strongest is made, for it does what the others would; `None` for what is no backup.
    fn strength(self) -> Option<u8> {
        match self {
            What::Incremental => Some(1),
            What::Full => Some(2),
            What::Archive => Some(3),
            What::Verify | What::Drill | What::Prune => None,
        }
    }

    /// Whether this version runs it.
    pub fn is_run(self) -> bool {
        self != What::Drill
    }

    fn cron(self, schedule: &Schedule) -> Option<&CronSchedule> {
        match self {
            What::Full => schedule.full.as_ref(),
            What::Incremental => schedule.incremental.as_ref(),
            What::Archive => schedule.archive.as_ref(),
            What::Verify => schedule.verify.as_ref(),
            What::Drill => schedule.drill.as_ref(),
            What::Prune => schedule.prune.as_ref(),
        }
    }
}

/// One line of a schedule: what of which group runs when. Job, group and [`What`] name it; no two entries have the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The job.
    pub job: JobName,
    /// The group of sources: [`MAIN_GROUP`], or the name of a source with a schedule of its own. Verifications, drills and prunes of the
    /// main group are those of all groups without such an entry of their own.
    pub group: String,
    /// What runs.
    pub what: What,
    /// When.
    pub cron: CronSchedule,
    /// In which zone.
    pub zone: TimeZone,
    /// Start up to this much later.
    pub jitter: Duration,
    /// A missed run that should have begun longer ago than this is not made up for.
    pub catch_up: Duration,
}

impl Entry {
    /// The expression with its zone: as long as it is the same, what was handled by it counts.
    pub fn schedule(&self) -> String {
        format!("{} {}", self.cron.text(), self.zone_name())
    }

    /// The zone's IANA name.
    pub fn zone_name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// Whether both name the same line of a schedule.
    pub fn is(&self, job: &str, group: &str, what: &str) -> bool {
        self.job.as_str() == job && self.group == group && self.what.name() == what
    }
}

/// Every entry of a configuration: job by job, the main group first, each in the order of [`What::ALL`].
pub fn entries(config: &Config) -> Vec<Entry> {
    config.jobs.iter().flat_map(entries_of).collect()
}

fn entries_of(job: &Job) -> Vec<Entry> {
    let has_main = job.sources.iter().any(|source| source.group() == MAIN_GROUP);
    let own = job.sources.iter().filter_map(|source| Some((source.group(), source.schedule.as_ref()?)));
    let mut entries = Vec::new();
    for (group, schedule) in std::iter::once((MAIN_GROUP, &job.schedule)).chain(own) {
        for what in What::ALL {
            // Where every source has a schedule of its own the job's has nothing to back up.
            let nothing = group == MAIN_GROUP && !has_main && what.strength().is_some();
            let Some(cron) = what.cron(schedule).filter(|_| !nothing) else { continue };
            entries.push(Entry {
                job: job.name.clone(),
                group: group.to_owned(),
                what,
                cron: cron.clone(),
                zone: job.timezone.clone(),
                jitter: schedule.jitter,
                catch_up: schedule.catch_up,
            });
        }
    }
    entries
}

/// The first scheduled instant after `after`; `None` when there is none any more (after the year 4999). Jitter is not in it.
pub fn next_after(entry: &Entry, after: Timestamp) -> Option<Timestamp> {
    entry.cron.next_after(after, &entry.zone)
}
