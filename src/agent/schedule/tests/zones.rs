//! FAULTS 56: changes of clocks.

use std::collections::BTreeMap;

use jiff::civil::{Date, DateTime, Time, time};
use jiff::tz::AmbiguousOffset;
use jiff::{SignedDuration, ToSpan};

use super::*;

/// Every zone of the database, by name. Two names of one zone are both tried.
fn zones() -> Vec<TimeZone> {
    let zones: Vec<TimeZone> = jiff::tz::db().available().filter_map(|name| TimeZone::get(name.as_str()).ok()).collect();
    assert!(zones.len() > 400, "there is no time zone data here: {} zones", zones.len());
    zones
}

/// All instants of an expression in `[from, until)`.
fn all(cron: &CronSchedule, zone: &TimeZone, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let mut found = Vec::new();
    let mut after = from - SignedDuration::from_secs(1);
    while let Some(next) = cron.next_after(after, zone).filter(|next| *next < until) {
        assert!(next > after, "{} in {:?}: {next} is not after {after}", cron.text(), zone.iana_name());
        found.push(next);
        after = next;
    }
    found
}

/// Dates around every change of clocks in 2026 and 2027, as ranges.
fn around_changes(zone: &TimeZone) -> Vec<(Date, Date)> {
    let changes = zone.following(at("2026-01-01T00:00:00Z")).take_while(|change| change.timestamp() < at("2028-01-01T00:00:00Z"));
    let mut ranges: Vec<(Date, Date)> = changes
        .map(|change| {
            let date = zone.to_datetime(change.timestamp()).date();
            (date - 3.days(), date + 3.days())
        })
        .collect();
    ranges.push((jiff::civil::date(2026, 2, 26), jiff::civil::date(2026, 3, 3)));
    ranges
}

fn start_of(date: Date, zone: &TimeZone) -> Timestamp {
    date.to_zoned(zone.clone()).unwrap().timestamp()
}

/// What a local day's only run must be.
fn check_day(zone: &TimeZone, wanted: DateTime, run: Timestamp) {
    let shown = || format!("{wanted} in {:?}: {run}", zone.iana_name());
    match zone.to_ambiguous_timestamp(wanted).offset() {
        AmbiguousOffset::Unambiguous { offset } => assert_eq!(run, offset.to_timestamp(wanted).unwrap(), "{}", shown()),
        AmbiguousOffset::Fold { before, .. } => assert_eq!(run, before.to_timestamp(wanted).unwrap(), "{}", shown()),
        AmbiguousOffset::Gap { before, after } => {
            // Right after the gap, or where that is another day right before it.
            let (ends, begins) = (zone.to_datetime(run), zone.to_datetime(run - SignedDuration::from_secs(1)));
            let gap = SignedDuration::from_secs(i64::from(after.seconds() - before.seconds()));
            assert!(ends.duration_since(begins) == gap + SignedDuration::from_secs(1) || run_is_last_of_day(zone, run, gap), "{}", shown());
        }
    }
}

fn run_is_last_of_day(zone: &TimeZone, run: Timestamp, gap: SignedDuration) -> bool {
    let (now, next) = (zone.to_datetime(run), zone.to_datetime(run + SignedDuration::from_secs(1)));
    next.date() != now.date() && next.duration_since(now) == gap + SignedDuration::from_secs(1)
}

#[test]
fn f56_in_every_zone_a_daily_job_runs_once_in_each_local_day() {
    let times: [(&str, Time); 7] = [
        ("0 0 * * *", time(0, 0, 0, 0)),
        ("30 0 * * *", time(0, 30, 0, 0)),
        ("0 2 * * *", time(2, 0, 0, 0)),
        ("30 2 * * *", time(2, 30, 0, 0)),
        ("0 3 * * *", time(3, 0, 0, 0)),
        ("30 23 * * *", time(23, 30, 0, 0)),
        ("@daily", time(0, 0, 0, 0)),
    ];
    for zone in zones() {
        for (first, last) in around_changes(&zone) {
            for (expression, time) in times {
                let runs = all(&cron(expression), &zone, start_of(first, &zone), start_of(last, &zone));
                let mut by_day: BTreeMap<Date, Vec<Timestamp>> = BTreeMap::new();
                for run in runs {
                    by_day.entry(zone.to_datetime(run).date()).or_default().push(run);
                }
                let mut date = first;
                while date < last {
                    let runs = by_day.remove(&date).unwrap_or_default();
                    assert_eq!(runs.len(), 1, "{expression} on {date} in {:?}: {runs:?}", zone.iana_name());
                    check_day(&zone, date.to_datetime(time), runs[0]);
                    date = date.tomorrow().unwrap();
                }
                assert!(by_day.is_empty());
            }
        }
    }
}

#[test]
fn f56_in_every_zone_a_whole_year_has_its_days() {
    let half_past_two = cron("30 2 * * *");
    for zone in zones() {
        let (first, last) = (jiff::civil::date(2026, 1, 1), jiff::civil::date(2028, 1, 1));
        let runs = all(&half_past_two, &zone, start_of(first, &zone), start_of(last, &zone));
        let days: std::collections::BTreeSet<Date> = runs.iter().map(|run| zone.to_datetime(*run).date()).collect();
        assert_eq!((runs.len(), days.len()), (730, 730), "{:?}", zone.iana_name());
    }
}

#[test]
fn f56_in_every_zone_an_hourly_job_runs_in_every_real_hour() {
    let hour = SignedDuration::from_hours(1);
    let expressions = [(cron("0 * * * *"), 60, 60 * 60), (cron("*/15 * * * *"), 15, 15 * 60)];
    for zone in zones() {
        for (first, last) in around_changes(&zone) {
            // Looked at minute by minute: the day of the change, and what of its neighbours a change at midnight touches.
            let (from, until) =
                (start_of(first, &zone) + SignedDuration::from_hours(60), start_of(last, &zone) - SignedDuration::from_hours(36));
            let changes: Vec<_> = zone.following(from).take_while(|change| change.timestamp() < until).collect();
            for (cron, minutes, expected) in &expressions {
                let runs = all(cron, &zone, from, until);
                // Every instant that the clock shows as one of the expression, and the end of every gap that has one in it: looked for by minutes.
                let mut wanted = Vec::new();
                let mut minute = from;
                while minute < until {
                    let civil = zone.to_datetime(minute);
                    let before = zone.to_datetime(minute - SignedDuration::from_secs(1));
                    let mut shown = before + 1.second();
                    let changed = changes.iter().any(|change| change.timestamp() == minute);
                    let skipped = changed
                        && std::iter::from_fn(|| {
                            let this = shown;
                            shown += 1.minute();
                            (this < civil).then_some(this)
                        })
                        .any(|skipped| skipped.minute() % minutes == 0 && skipped.second() == 0);
                    if skipped || (civil.minute() % minutes == 0 && civil.second() == 0) {
                        wanted.push(minute);
                    }
                    minute += SignedDuration::from_mins(1);
                }
                assert_eq!(runs, wanted, "{} in {:?}", cron.text(), zone.iana_name());
                let longest = runs.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().unwrap();
                assert!(longest <= SignedDuration::from_secs(*expected) + hour, "{} in {:?}: {longest:?}", cron.text(), zone.iana_name());
            }
        }
    }
}

#[test]
fn f56_known_changes_of_clocks() {
    for (zone_name, expression, from, wanted) in [
        // Spring and autumn.
        ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"][..]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
        // From within the second of the two hours.
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T01:10:00Z", &["2026-10-26T01:30:00Z"]),
        (
            "Europe/Berlin",
            "0,30 2,3 * * *",
            "2026-03-29T00:59:59Z",
            &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:00:00Z"],
        ),
        ("Europe/Berlin", "0 * * * *", "2026-10-24T23:30:00Z", &["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"]),
        ("Europe/Berlin", "30 * * * *", "2026-03-29T00:00:00Z", &["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]),
        // Greenland's clocks skip the last hour of a Saturday.
        ("America/Nuuk", "30 23 * * *", "2026-03-28T12:00:00Z", &["2026-03-29T00:59:59Z", "2026-03-30T00:30:00Z"]),
        ("America/Nuuk", "0 * * * *", "2026-03-28T23:30:00Z", &["2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]),
        // Lebanon's skip the first of a Sunday.
        ("Asia/Beirut", "0 0 * * *", "2026-03-28T12:00:00Z", &["2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z"]),
        // Samoa had no 30 December 2011, the Marshall Islands no 21 August 1993.
        ("Pacific/Apia", "0 2 * * *", "2011-12-29T00:00:00Z", &["2011-12-29T12:00:00Z", "2011-12-30T12:00:00Z"]),
        ("Pacific/Kwajalein", "0 2 * * *", "1993-08-20T00:00:00Z", &["1993-08-20T14:00:00Z", "1993-08-21T14:00:00Z"]),
        // Half an hour.
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T00:00:00Z", &["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]),
        // Leap days.
        ("Asia/Shanghai", "0 2 29 2 *", "2026-01-01T00:00:00Z", &["2028-02-28T18:00:00Z", "2032-02-28T18:00:00Z"]),
        ("Europe/Berlin", "0 * 29 2 *", "2096-02-29T22:00:00Z", &["2104-02-28T23:00:00Z", "2104-02-29T00:00:00Z"]),
        ("UTC", "0 2 29 2 *", "2096-03-01T00:00:00Z", &["2104-02-29T02:00:00Z"]),
    ] {
        let (zone, cron, mut after) = (zone(zone_name), cron(expression), at(from));
        for wanted in wanted {
            let next = cron.next_after(after, &zone).unwrap();
            assert_eq!(next, at(wanted), "{expression} in {zone_name} after {after}");
            after = next;
        }
    }
}

#[test]
fn parts_of_a_second_and_the_ends_of_time_are_taken() {
    let (daily, utc) = (cron("0 2 * * *"), TimeZone::UTC);
    assert_eq!(daily.next_after(at("2026-01-01T01:59:59.999Z"), &utc), Some(at("2026-01-01T02:00:00Z")));
    assert_eq!(daily.next_after(at("2026-01-01T02:00:00.001Z"), &utc), Some(at("2026-01-02T02:00:00Z")));
    assert_eq!(daily.next_after(at("1960-01-01T01:59:59.5Z"), &utc), Some(at("1960-01-01T02:00:00Z")));
    for zone in [utc, zone("Europe/Berlin"), zone("Pacific/Kiritimati")] {
        for text in ["0 2 * * *", "* * * * *"] {
            assert_eq!(cron(text).next_after(Timestamp::MAX, &zone), None);
            let _ = cron(text).next_after(Timestamp::MIN, &zone);
        }
    }
}
