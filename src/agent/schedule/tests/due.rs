//! What is due, and what a restart, a pause or a clock makes of it.

use jiff::{SignedDuration, ToSpan};

use super::super::table::{CLOCK_STEP, MISSED_COUNTED, start_at};
use super::*;
use crate::model::testing::computed;
use crate::state::ScheduleMark;

/// A host that stores what it is given, as the agent does.
struct Host {
    entries: Vec<Entry>,
    marks: Vec<ScheduleMark>,
    table: Table,
}

impl Host {
    fn start(entries: Vec<Entry>, now: &str) -> Host {
        let table = Table::new(entries.clone(), &[], at(now), "host");
        Host { entries, marks: table.marks(), table }
    }

    fn restart(&mut self, now: &str) {
        self.table = Table::new(self.entries.clone(), &self.marks, at(now), "host");
        self.marks = self.table.marks();
    }

    fn tick(&mut self, now: &str) -> Vec<Due> {
        let due = self.table.due(at(now));
        for due in &due {
            for mark in self.table.take(due) {
                self.marks.retain(|known| (&known.job, &known.group, &known.what) != (&mark.job, &mark.group, &mark.what));
                self.marks.push(mark);
            }
        }
        due
    }

    /// What runs: `full 2026-01-02T02:00:00Z`, with `+3` for missed ones.
    fn runs(&mut self, now: &str) -> Vec<String> {
        let shown = |due: Due| {
            let missed = if due.missed > 0 { format!(" +{}", due.missed) } else { String::new() };
            let old = if due.too_old { " too old" } else { "" };
            format!("{} {}{missed}{old}", due.entry.what.name(), due.scheduled_at)
        };
        self.tick(now).into_iter().map(shown).collect()
    }
}

fn daily() -> Vec<Entry> {
    vec![entry("shop", What::Full, "0 2 * * *", "UTC")]
}

const NOTHING: [&str; 0] = [];

#[test]
fn f59_a_run_missed_while_the_host_was_down_is_made_up_for_once() {
    let mut host = Host::start(daily(), "2026-01-01T12:00:00Z");
    assert_eq!(host.runs("2026-01-01T12:00:00Z"), NOTHING, "a first start makes up for nothing");
    assert_eq!(host.runs("2026-01-02T01:59:59.9Z"), NOTHING);
    assert_eq!(host.runs("2026-01-02T02:00:00Z"), ["full 2026-01-02T02:00:00Z"]);
    assert_eq!(host.runs("2026-01-02T02:00:00.5Z"), NOTHING);
    host.restart("2026-01-02T02:00:01Z");
    assert_eq!(host.runs("2026-01-02T02:00:01Z"), NOTHING, "a restart in the due minute");
    host.restart("2026-01-05T09:00:00Z");
    assert_eq!(host.runs("2026-01-05T09:00:00Z"), ["full 2026-01-05T02:00:00Z +2"]);
    host.restart("2026-01-05T09:00:30Z");
    assert_eq!(host.runs("2026-01-05T09:00:30Z"), NOTHING);
    // Down at its first time already: the first start was remembered.
    let mut host = Host::start(daily(), "2026-01-01T12:00:00Z");
    host.restart("2026-01-02T03:00:00Z");
    assert_eq!(host.runs("2026-01-02T03:00:00Z"), ["full 2026-01-02T02:00:00Z"]);
}

#[test]
fn f59_what_is_older_than_catch_up_is_said_and_not_run() {
    let mut entries = daily();
    entries[0].catch_up = Duration::from_secs(3600);
    let mut host = Host::start(entries, "2026-01-01T12:00:00Z");
    assert_eq!(host.runs("2026-01-02T03:00:00Z"), ["full 2026-01-02T02:00:00Z"], "an hour ago, and no more");
    assert_eq!(host.runs("2026-01-03T03:00:01Z"), ["full 2026-01-03T02:00:00Z too old"]);
    assert_eq!(host.runs("2026-01-03T03:00:02Z"), NOTHING);
    let mut host = Host::start(vec![entry("shop", What::Full, "0 2 1 * *", "UTC")], "2026-01-01T12:00:00Z");
    assert_eq!(host.runs("2026-02-08T02:00:00Z"), ["full 2026-02-01T02:00:00Z"]);
    assert_eq!(host.runs("2026-03-08T02:00:01Z"), ["full 2026-03-01T02:00:00Z too old"]);
}

#[test]
fn of_backups_due_together_the_strongest_runs_and_stands_for_the_others() {
    let entries = vec![
        entry("shop", What::Full, "0 2 * * *", "UTC"),
        entry("shop", What::Incremental, "0 * * * *", "UTC"),
        entry("shop", What::Archive, "0 2 1 * *", "UTC"),
        entry("shop", What::Verify, "0 2 * * *", "UTC"),
        entry("shop", What::Drill, "0 2 * * *", "UTC"),
        entry("other", What::Incremental, "0 2 * * *", "UTC"),
        Entry { group: "uploads".into(), ..entry("shop", What::Incremental, "0 2 * * *", "UTC") },
    ];
    let mut host = Host::start(entries, "2026-01-31T23:30:00Z");
    let hourly = ["incremental 2026-02-01T00:00:00Z"];
    assert_eq!(host.runs("2026-02-01T00:00:00Z"), hourly);
    // The hour of 01:00 was missed: it is covered too.
    let due = host.tick("2026-02-01T02:00:00Z");
    let named: Vec<_> = due.iter().map(|due| (due.entry.job.as_str(), due.entry.group.as_str(), due.entry.what)).collect();
    let wanted = [
        ("shop", "main", What::Archive),
        ("shop", "main", What::Verify),
        ("other", "main", What::Incremental),
        ("shop", "uploads", What::Incremental),
    ];
    assert_eq!(named, wanted);
    assert_eq!(due[0].covers.iter().map(|(entry, _)| entry.what).collect::<Vec<_>>(), [What::Full, What::Incremental]);
    host.restart("2026-02-01T02:00:01Z");
    assert_eq!(host.runs("2026-02-01T02:00:01Z"), NOTHING);
    assert_eq!(host.runs("2026-02-01T03:00:00Z"), ["incremental 2026-02-01T03:00:00Z"]);
    assert_eq!(host.runs("2026-02-02T02:00:00Z")[0], "full 2026-02-02T02:00:00Z");
}

#[test]
fn a_backup_too_old_to_be_made_up_for_stands_for_no_other() {
    let mut entries = vec![entry("shop", What::Full, "0 2 * * *", "UTC"), entry("shop", What::Incremental, "0 * * * *", "UTC")];
    entries[0].catch_up = Duration::from_secs(3600);
    let mut host = Host::start(entries, "2026-01-01T12:00:00Z");
    assert_eq!(host.runs("2026-01-02T09:30:00Z"), ["full 2026-01-02T02:00:00Z too old", "incremental 2026-01-02T09:00:00Z +20"]);
}

#[test]
fn a_restart_while_jitter_runs_neither_doubles_nor_loses_a_run() {
    let mut entries = vec![entry("shop", What::Full, "0 2 * * *", "UTC"), entry("shop", What::Incremental, "0 * * * *", "UTC")];
    entries.iter_mut().for_each(|entry| entry.jitter = Duration::from_secs(600));
    let scheduled = at("2026-01-02T02:00:00Z");
    let starts = start_at(&entries[0], scheduled, "host");
    assert!(starts > scheduled && starts < scheduled + SignedDuration::from_mins(10), "{starts}");
    assert_eq!(start_at(&entries[1], scheduled, "host"), starts, "backups of one instant stay together");
    assert_ne!(start_at(&entries[0], scheduled, "other host"), starts);
    assert_ne!(start_at(&entries[0], scheduled + 24.hours(), "host").duration_since(starts), SignedDuration::from_hours(24));
    let mut host = Host::start(entries, "2026-01-02T01:30:00Z");
    let mut runs = Vec::new();
    for second in 0..1200 {
        let now = (scheduled + SignedDuration::from_secs(second)).to_string();
        host.restart(&now);
        runs.extend(host.runs(&now).into_iter().map(|run| (run, now.clone())));
    }
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0].0, "full 2026-01-02T02:00:00Z");
    let began = at(&runs[0].1);
    assert!(began >= starts && began < starts + SignedDuration::from_secs(1), "{began}");
}

#[test]
fn jitter_longer_than_the_time_between_runs_still_gives_each_its_own() {
    let mut entries = vec![entry("shop", What::Verify, "* * * * *", "UTC")];
    entries[0].jitter = Duration::from_secs(3600);
    let mut host = Host::start(entries, "2026-01-01T00:00:00Z");
    let mut runs = Vec::new();
    for second in 1..=7200 {
        runs.extend(host.tick(&(at("2026-01-01T00:00:00Z") + SignedDuration::from_secs(second)).to_string()));
    }
    assert!(runs.windows(2).all(|pair| pair[0].scheduled_at < pair[1].scheduled_at) && runs.iter().all(|due| due.missed == 0));
    assert!((119..=120).contains(&runs.len()), "{}", runs.len());
}

#[test]
fn f57_a_clock_that_jumps_ahead_ten_years_gives_one_run() {
    let mut host = Host::start(vec![entry("shop", What::Full, "* * * * *", "Europe/Berlin")], "2026-01-01T12:00:00Z");
    let since = computed();
    assert_eq!(host.runs("2036-06-01T12:00:30Z"), [format!("full 2036-06-01T12:00:00Z +{MISSED_COUNTED}")]);
    // Five million minutes one by one would take minutes.
    assert!(computed() - since < Duration::from_secs(30), "{:?}", computed() - since);
    assert_eq!(host.runs("2036-06-01T12:00:31Z"), NOTHING);
    assert_eq!(host.table.clock_went_back(), None);
    // And back again, as the clock is put right.
    assert_eq!(host.runs("2026-01-01T12:00:40Z"), NOTHING);
    assert!(host.table.clock_went_back().unwrap() > SignedDuration::from_hours(10 * 365 * 24));
    assert_eq!(host.runs("2026-01-01T12:01:00Z"), ["full 2026-01-01T12:01:00Z"]);
    assert_eq!(host.table.clock_went_back(), None, "told once");
}

#[test]
fn f57_a_clock_set_back_by_two_days_runs_again_by_the_new_time() {
    let mut host = Host::start(daily(), "2026-01-09T12:00:00Z");
    assert_eq!(host.runs("2026-01-10T02:00:00Z"), ["full 2026-01-10T02:00:00Z"]);
    let mut restarted =
        Host { entries: host.entries.clone(), marks: host.marks.clone(), table: Table::new(vec![], &[], at("2026-01-08T03:00:00Z"), "") };
    assert_eq!(host.runs("2026-01-08T03:00:00Z"), NOTHING);
    assert_eq!(host.table.clock_went_back(), Some(SignedDuration::from_hours(47)));
    assert_eq!(host.runs("2026-01-09T02:00:00Z"), ["full 2026-01-09T02:00:00Z"]);
    // The same when drctl was not running meanwhile.
    restarted.restart("2026-01-08T03:00:00Z");
    assert_eq!(restarted.table.clock_went_back(), Some(SignedDuration::from_hours(47)));
    assert_eq!(restarted.runs("2026-01-09T02:00:00Z"), ["full 2026-01-09T02:00:00Z"]);
}

#[test]
fn f57_a_clock_that_is_put_right_by_less_than_an_hour_runs_nothing_twice() {
    assert_eq!(CLOCK_STEP, SignedDuration::from_hours(1));
    for back in ["2026-01-10T01:59:59Z", "2026-01-10T01:30:00Z", "2026-01-10T01:00:10Z"] {
        for restart in [false, true] {
            let mut host = Host::start(daily(), "2026-01-09T12:00:00Z");
            assert_eq!(host.runs("2026-01-10T02:00:05Z").len(), 1);
            if restart {
                host.restart(back);
            }
            for now in [back, "2026-01-10T02:00:00Z", "2026-01-10T02:00:05Z", "2026-01-10T03:00:00Z"] {
                assert_eq!(host.runs(now), NOTHING, "{back} {now}");
            }
            assert_eq!(host.table.clock_went_back(), None);
            assert_eq!(host.runs("2026-01-11T02:00:00Z").len(), 1);
        }
    }
}

#[test]
fn a_changed_expression_begins_at_its_change() {
    let mut host = Host::start(daily(), "2026-01-01T12:00:00Z");
    host.entries = vec![entry("shop", What::Full, "0 11 * * *", "UTC")];
    host.restart("2026-01-01T12:30:00Z");
    assert_eq!(host.runs("2026-01-01T12:30:00Z"), NOTHING, "11:00 was never due by it");
    assert_eq!(host.runs("2026-01-02T11:00:00Z").len(), 1);
    host.entries = vec![entry("shop", What::Full, "0 11 * * *", "Asia/Tokyo")];
    host.restart("2026-01-03T10:00:00Z");
    assert_eq!(host.runs("2026-01-03T10:00:00Z"), NOTHING, "the same expression in another zone");
}

#[test]
fn a_reload_leaves_what_stays_as_it_was() {
    let mut host = Host::start(daily(), "2026-01-01T12:00:00Z");
    let mut entries = daily();
    entries.push(entry("other", What::Full, "0 2 * * *", "UTC"));
    host.table.reload(entries.clone(), at("2026-01-02T02:30:00Z"));
    let due = host.table.due(at("2026-01-02T02:30:00Z"));
    assert_eq!(due.iter().map(|due| due.entry.job.as_str()).collect::<Vec<_>>(), ["shop"], "the new one begins now");
    // A run that was found due before a reload is taken after it.
    host.table.reload(entries, at("2026-01-02T02:30:01Z"));
    assert_eq!(host.table.take(&due[0]).len(), 1);
    assert_eq!(host.table.due(at("2026-01-02T02:30:02Z")), []);
    host.table.reload(vec![], at("2026-01-02T02:30:03Z"));
    assert_eq!((host.table.due(at("2027-01-01T00:00:00Z")), host.table.next_start()), (vec![], None));
    // The step of the clock is told once, also when the reload notices it.
    host.table.reload(daily(), at("2026-01-01T00:00:00Z"));
    assert!(host.table.clock_went_back().is_some());
    assert_eq!(host.table.due(at("2026-01-01T00:00:01Z")), []);
    assert_eq!(host.table.clock_went_back(), None);
}

#[test]
fn a_thousand_jobs_are_looked_through_at_once() {
    let zones = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe"];
    let mut entries = Vec::new();
    for job in 0..1000usize {
        for (what, expression) in [(What::Full, "0 2 * * *"), (What::Incremental, "0 * * * *"), (What::Verify, "30 6 * * *")] {
            entries.push(Entry {
                jitter: Duration::from_secs(300),
                ..entry(&format!("job-{job}"), what, expression, zones[job % zones.len()])
            });
        }
    }
    let mut table = Table::new(entries, &[], at("2026-01-01T00:00:00Z"), "host");
    table.due(at("2026-01-01T00:00:01Z"));
    let timed = |table: &mut Table, now: &str| {
        let since = computed();
        let due = table.due(at(now));
        (due.len(), computed() - since)
    };
    let since = computed();
    for second in 0..10_000 {
        assert!(table.due(at("2026-01-01T00:30:00Z") + SignedDuration::from_millis(second)).is_empty());
    }
    let idle = (computed() - since) / 10_000;
    let (count, hour) = timed(&mut table, "2026-01-01T01:05:00Z");
    assert!(count >= 1000, "{count}");
    let (count, years) = timed(&mut table, "2031-01-01T00:00:00Z");
    assert!(count >= 1000, "{count}");
    // Generous: drctl itself is unoptimised here, and the machine may be busy. Optimised, an hour takes less than 50 ms.
    let (most_idle, most) = if cfg!(debug_assertions) { (2000, 10_000) } else { (200, 50) };
    assert!(
        idle < Duration::from_micros(most_idle) && hour < Duration::from_millis(most) && years < Duration::from_secs(60),
        "{idle:?} {hour:?} {years:?}"
    );
    eprintln!("idle {idle:?}, an hour {hour:?}, five years {years:?}");
}

#[test]
fn entries_of_a_configuration() {
    use crate::config::{Environment, LoadOptions};
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/config/schedule/drctl.yaml")).unwrap();
    let path = folder.path().join("drctl.yaml");
    std::fs::write(&path, text).unwrap();
    let mut options = LoadOptions::new(Environment::of(folder.path(), [("HOME", "/nonexistent")]));
    options.look_at_files = false;
    let config = crate::config::load(&options).unwrap();
    let shown: Vec<String> = entries(&config)
        .iter()
        .map(|e| format!("{} {} {} {} {}s {}s", e.job, e.group, e.what.name(), e.schedule(), e.jitter.as_secs(), e.catch_up.as_secs()))
        .collect();
    assert_eq!(
        shown,
        [
            "shop main full 0 2 * * * Europe/Berlin 300s 604800s",
            "shop main incremental 0 * * * * Europe/Berlin 300s 604800s",
            "shop main drill 0 5 * * 0 Europe/Berlin 300s 604800s",
            "shop uploads full 0 3 1 * * Europe/Berlin 0s 86400s",
            "shop uploads prune 0 5 * * * Europe/Berlin 0s 86400s",
            "alone main verify 0 6 * * * UTC 0s 604800s",
            "alone logs archive @monthly UTC 0s 604800s",
        ]
    );
}
