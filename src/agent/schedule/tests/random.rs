//! Any sequence of ticks, pauses, restarts and steps of the clock.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// A tick so many seconds later.
    Tick(i64),
    /// A pause of so many hours without a tick.
    Suspend(i64),
    /// drctl is killed, between two ticks or right after a mark was stored, and started again.
    Restart,
    /// To right before, at, or right after the next instant.
    ToDue(i64),
    /// The clock is put right: back by so many seconds.
    Back(i64),
    /// The clock is set: by so many days.
    Set(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1i64..7200).prop_map(Step::Tick),
        2 => (1i64..200).prop_map(Step::Suspend),
        2 => Just(Step::Restart),
        3 => (-2i64..3).prop_map(Step::ToDue),
        2 => (1i64..1200).prop_map(Step::Back),
        1 => prop_oneof![-800i64..-1, 1i64..3000].prop_map(Step::Set),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn f56_f57_f59_no_instant_twice_and_none_lost(
        steps in proptest::collection::vec(step(), 1..80),
        zone_name in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/Nuuk", "Australia/Lord_Howe", "Asia/Beirut", "America/Santiago"]),
        expression in prop::sample::select(vec!["30 2 * * *", "0 0 * * *", "30 23 * * *", "0 * * * *", "0 2 * * 0"]),
        jitter in prop::sample::select(vec![0u64, 60, 900, 100_000]),
        start in 0i64..400,
    ) {
        let entry = Entry {
            jitter: Duration::from_secs(jitter),
            catch_up: Duration::from_secs(100 * 365 * 86_400),
            ..entry("shop", What::Full, expression, zone_name)
        };
        let mut now = at("2026-01-01T00:00:00Z") + SignedDuration::from_hours(24 * start);
        let mut table = Table::new(vec![entry.clone()], &[], now, "host");
        let mut stored = table.marks();
        // The last instant that is done with, and the latest time seen since the clock was last set back.
        let (mut done, mut seen) = (now, now);
        for step in steps {
            match step {
                Step::Tick(seconds) => now += SignedDuration::from_secs(seconds),
                Step::Suspend(hours) => now += SignedDuration::from_hours(hours),
                Step::Restart => table = Table::new(vec![entry.clone()], &stored, now, "host"),
                Step::ToDue(seconds) => {
                    if let Some(next) = table.next_start() {
                        now = now.max(next + SignedDuration::from_secs(seconds));
                    }
                }
                // Not by more than an hour in all, which is another thing.
                Step::Back(seconds) => now = (now - SignedDuration::from_secs(seconds)).max(seen - SignedDuration::from_mins(59)),
                Step::Set(days) => now += SignedDuration::from_hours(24 * days),
            }
            let due = table.due(now);
            if table.clock_went_back().is_some() {
                done = done.min(now);
                seen = now;
                stored = table.marks();
            }
            seen = seen.max(now);
            prop_assert!(due.len() <= 1);
            for due in due {
                prop_assert!(due.scheduled_at <= now);
                prop_assert!(due.scheduled_at > done, "{} was handled up to {done}", due.scheduled_at);
                // All between the two are accounted for.
                let mut between = 0;
                let mut next = entry.cron.next_after(done, &entry.zone).unwrap();
                while next < due.scheduled_at && between < super::super::table::MISSED_COUNTED {
                    between += 1;
                    next = entry.cron.next_after(next, &entry.zone).unwrap();
                }
                prop_assert!(next == due.scheduled_at || between == super::super::table::MISSED_COUNTED, "{next} is no instant, or was lost");
                prop_assert_eq!(due.missed, between);
                stored = table.take(&due);
                done = due.scheduled_at;
            }
            prop_assert_eq!(table.due(now), vec![]);
            // Nothing waits longer than its jitter.
            let next = entry.cron.next_after(done, &entry.zone).unwrap();
            prop_assert!(next + SignedDuration::from_secs(jitter as i64) >= now, "{next} did not run by {now}");
        }
    }
}
