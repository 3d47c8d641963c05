//! `drctl schedule`.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::agent::schedule::{Entry, What, entries, next_after};
use crate::cli::Shell;
use crate::cli::args::ScheduleArgs;
use crate::cli::output::{duration, table, when};
use crate::config::load::load;
use crate::config::values::duration_text;
use crate::error::Result;
use crate::model::SystemClock;
use crate::open::no_such_job;
use crate::open::{STATE_FILE, load_options};
use crate::state::{ScheduleMark, StateFile};

/// So many runs of each entry are shown.
const SHOWN: usize = 5;

/// The value behind text and JSON.
#[derive(Serialize)]
struct Report {
    now: Timestamp,
    entries: Vec<Line>,
}

/// One entry.
#[derive(Serialize)]
struct Line {
    job: String,
    group: String,
    what: &'static str,
    cron: String,
    timezone: String,
    jitter_seconds: u64,
    catch_up_seconds: u64,
    /// Whether this version runs it at all.
    is_run: bool,
    /// What is to be known of it.
    note: Option<&'static str>,
    /// The scheduled instant up to which it was handled on this host.
    last_handled: Option<Timestamp>,
    next: Vec<Next>,
    #[serde(skip)]
    zone: TimeZone,
    #[serde(skip)]
    jitter: String,
}

/// One run to come; jitter is not in it.
#[derive(Serialize)]
struct Next {
    at: Timestamp,
    /// The same in the job's zone.
    local: String,
}

/// Shows the next runs of every entry. Needs the configuration only, no repository.
pub fn run(shell: &Shell, args: &ScheduleArgs) -> Result<u8> {
    let config = load(&load_options(shell.global.config.as_deref()))?;
    for warning in &config.warnings {
        shell.bus.warn(warning.to_string());
    }
    if let Some(name) = args.job.as_ref().filter(|name| config.job(name).is_none()) {
        let known: Vec<String> = config.jobs.iter().map(|job| job.name.to_string()).collect();
        return Err(no_such_job(name, &known));
    }
    let marks = marks(shell, &config.state, &config.repository.id);
    let wanted = |entry: &Entry| args.job.as_ref().is_none_or(|job| entry.job.as_str() == job);
    let report = report(entries(&config).into_iter().filter(wanted), &marks, Timestamp::now());
    shell.out.result("schedule", &report, text);
    Ok(0)
}

/// What the state file knows; without one nothing is known, which is no error here.
fn marks(shell: &Shell, folder: &Path, repository: &str) -> Vec<ScheduleMark> {
    let path = folder.join(STATE_FILE);
    if !path.exists() {
        return Vec::new();
    }
    let read = StateFile::open(&path, Arc::new(SystemClock)).and_then(|state| state.schedule_marks(repository));
    read.unwrap_or_else(|error| {
        shell.bus.warn(format!("what was handled is not known: {error}"));
        Vec::new()
    })
}

fn report(entries: impl Iterator<Item = Entry>, marks: &[ScheduleMark], now: Timestamp) -> Report {
    let line = |entry: Entry| {
        let mark = marks.iter().find(|mark| entry.is(&mark.job, &mark.group, &mark.what));
        let instants = std::iter::successors(next_after(&entry, now), |at| next_after(&entry, *at));
        Line {
            job: entry.job.to_string(),
            group: entry.group.clone(),
            what: entry.what.name(),
            cron: entry.cron.text().to_owned(),
            timezone: entry.zone_name().to_owned(),
            jitter_seconds: entry.jitter.as_secs(),
            catch_up_seconds: entry.catch_up.as_secs(),
            is_run: entry.what.is_run(),
            note: note(entry.what),
            last_handled: mark.filter(|mark| mark.schedule == entry.schedule()).map(|mark| mark.handled),
            next: instants.take(SHOWN).map(|at| Next { at, local: at.to_zoned(entry.zone.clone()).to_string() }).collect(),
            zone: entry.zone.clone(),
            jitter: if entry.jitter.is_zero() { String::new() } else { format!(" +{}", duration_text(entry.jitter)) },
        }
    };
    Report { now, entries: entries.map(line).collect() }
}

fn note(what: What) -> Option<&'static str> {
    match what {
        What::Drill => Some("never run by this version"),
        What::Incremental => Some("makes a full set"),
        _ => None,
    }
}

fn text(report: &Report) -> String {
    if report.entries.is_empty() {
        return "nothing is scheduled\nadd to a job: schedule: { full: \"0 2 * * *\", verify: \"0 6 * * *\" }\n".to_owned();
    }
    let mut rows = Vec::new();
    for line in &report.entries {
        let handled = line.last_handled.map_or_else(|| "-".to_owned(), |at| when(at, &line.zone));
        let what = line.note.map_or_else(|| line.what.to_owned(), |note| format!("{} ({note})", line.what));
        let cron = format!("{}{}", line.cron, line.jitter);
        let mut left = [line.job.clone(), line.group.clone(), what, cron, line.timezone.clone(), handled];
        if line.next.is_empty() {
            rows.push(left.iter().cloned().chain(["never".to_owned()]).collect());
        }
        for next in &line.next {
            let soon = duration(next.at.as_second() - report.now.as_second());
            rows.push(left.iter().cloned().chain([when(next.at, &line.zone), soon]).collect());
            left.iter_mut().for_each(String::clear);
        }
    }
    table(&["JOB", "GROUP", "WHAT", "SCHEDULE", "ZONE", "LAST HANDLED", "NEXT", "IN"], &rows, &[])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::values::{CronSchedule, time_zone};

    fn entry(what: What, cron: &str, zone: &str) -> Entry {
        Entry {
            job: "shop".parse().unwrap(),
            group: "main".to_owned(),
            what,
            cron: CronSchedule::parse(cron).unwrap(),
            zone: time_zone(zone).unwrap(),
            jitter: Duration::ZERO,
            catch_up: Duration::from_secs(86_400),
        }
    }

    #[test]
    fn the_next_five_are_shown_in_the_jobs_own_zone() {
        let entries = [
            Entry { jitter: Duration::from_secs(300), ..entry(What::Full, "30 2 * * *", "Europe/Berlin") },
            entry(What::Incremental, "0 */6 * * *", "Asia/Shanghai"),
            entry(What::Drill, "0 5 * * 0", "UTC"),
        ];
        let mark = |what: &str, schedule: &str| ScheduleMark {
            job: "shop".into(),
            group: "main".into(),
            what: what.into(),
            schedule: schedule.into(),
            handled: "2026-03-27T01:30:00Z".parse().unwrap(),
        };
        // One of another expression says nothing.
        let marks = [mark("full", "30 2 * * * Europe/Berlin"), mark("incremental", "0 * * * * Asia/Shanghai")];
        let report = report(entries.into_iter(), &marks, "2026-03-28T00:00:00Z".parse().unwrap());
        insta::assert_snapshot!(text(&report));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["entries"][0]["next"][1]["at"], "2026-03-29T01:00:00Z");
        assert_eq!(json["entries"][0]["next"][1]["local"], "2026-03-29T03:00:00+02:00[Europe/Berlin]");
        assert_eq!((&json["entries"][2]["is_run"], &json["entries"][1]["last_handled"]), (&false.into(), &serde_json::Value::Null));
        assert!(text(&Report { now: report.now, entries: Vec::new() }).starts_with("nothing is scheduled\n"));
    }
}
