//! From a job's configuration to what is asked of its sets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::config::typed::{Job, MAIN_GROUP, Schedule};
use crate::model::JobName;
use crate::ops::prune::{GroupPolicy, PrunePolicy};

/// So long a schedule is looked ahead for its busiest day and its longest pause: a week, and the day on which it begins anew.
const AHEAD: SignedDuration = SignedDuration::from_hours(8 * 24);

/// A schedule that comes due more seldom is looked at until so many instants were seen.
const LEAST: usize = 3;

/// What is asked of a job's sets, its schedules looked at from `now` on.
pub fn prune_policy(job: &Job, now: Timestamp) -> PrunePolicy {
    let mut groups = BTreeMap::new();
    for (name, sources) in job.groups() {
        // A group of its own is made of one source.
        let own = sources.first().filter(|_| name != MAIN_GROUP);
        let retention = own.and_then(|source| source.retention.as_ref()).or(job.retention.as_ref());
        let (per_day, interval) = pace(job.schedule_of(name), &job.timezone, now).unzip();
        groups.insert(name.to_owned(), GroupPolicy { retention: retention.cloned(), per_day, interval });
    }
    let sources = job.sources.iter().map(|source| source.name.clone()).collect();
    PrunePolicy { job: job.name.clone(), zone: job.timezone.clone(), groups, sources, abandoned: false }
}

/// What is asked of the sets of a job that the configuration no longer has, once a person gives them up.
pub fn abandoned(job: &JobName) -> PrunePolicy {
    PrunePolicy { job: job.clone(), zone: TimeZone::UTC, groups: BTreeMap::new(), sources: BTreeSet::new(), abandoned: true }
}

/// The most sets a schedule makes in a day, and the longest time between two of them; `None` where nothing is scheduled.
pub fn pace(schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<(u32, Duration)> {
    let crons: Vec<_> = [&schedule.full, &schedule.incremental, &schedule.archive].into_iter().flatten().collect();
    let mut by_day: BTreeMap<jiff::civil::Date, u32> = BTreeMap::new();
    let (mut at, mut longest, mut seen) = (now, SignedDuration::ZERO, 0usize);
    while seen < LEAST || at.duration_since(now) < AHEAD {
        let Some(next) = crons.iter().filter_map(|cron| cron.next_after(at, zone)).min() else { break };
        *by_day.entry(next.to_zoned(zone.clone()).date()).or_default() += 1;
        if seen > 0 {
            longest = longest.max(next.duration_since(at));
        }
        (at, seen) = (next, seen + 1);
    }
    let most = by_day.values().max().copied()?;
    Some((most, longest.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::CronSchedule;

    #[test]
    fn the_pace_of_a_schedule() {
        let now = "2025-06-30T12:00:00Z".parse().unwrap();
        let cron = |text: &str| (!text.is_empty()).then(|| CronSchedule::parse(text).unwrap());
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let table = [
            (["0 2 * * *", "", ""], Some((1, hours(24)))),
            (["0 2 * * *", "0 * * * *", ""], Some((24, hours(1)))),
            (["0 2 * * 1-5", "", ""], Some((1, hours(72)))),
            (["", "", "0 4 1 * *"], Some((1, hours(31 * 24)))),
            (["", "", ""], None),
        ];
        for ([full, incremental, archive], expected) in table {
            let schedule = Schedule { full: cron(full), incremental: cron(incremental), archive: cron(archive), ..Schedule::default() };
            assert_eq!(pace(&schedule, &TimeZone::UTC, now), expected, "{full} {incremental} {archive}");
        }
    }
}
