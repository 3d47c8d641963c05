use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use jiff::SignedDuration;

use super::*;
use crate::model::SetKind;
use crate::model::testing::computed;

const DAY: i64 = 86_400;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A good, read-back set of group `main` with source `db`, made at this instant.
fn set(number: u64, made: Timestamp) -> Candidate {
    let id = SetId::new("shop".parse().unwrap(), made, SetKind::Full, number as u32);
    Candidate {
        set: id.clone(),
        number,
        committed_at: made,
        chain: id,
        group: "main".into(),
        class: SetClass::Ordinary,
        whole: Whole::Complete,
        grade: Some(Grade::ReadBack),
        sources: vec!["db".into()],
        stored_bytes: 10,
        pinned_until: None,
        held_until: None,
    }
}

/// One set a day at 02:00, the newest on the day of `now`.
fn daily(days: i64, now: Timestamp) -> Vec<Candidate> {
    let first = now.as_second() - now.as_second().rem_euclid(DAY) + 7200 - (days - 1) * DAY;
    (0..days).map(|n| set(n as u64 + 1, Timestamp::from_second(first + n * DAY).unwrap())).collect()
}

fn planned(sets: &[Candidate], retention: &Retention, now: Timestamp) -> Plan {
    let zone = TimeZone::UTC;
    let policy = |_: &str| Some(of(retention, &zone));
    plan(sets, policy, now)
}

fn of<'a>(retention: &'a Retention, zone: &'a TimeZone) -> Policy<'a> {
    Policy {
        retention: Some(retention),
        zone,
        per_day: Some(1),
        interval: None,
        stopped: None,
        accept_surplus: false,
        confirmed: None,
        sources: None,
    }
}

fn kept(plan: &Plan) -> Vec<u64> {
    plan.sets.iter().enumerate().filter(|(_, set)| set.keep).map(|(at, _)| at as u64 + 1).collect()
}

const NOW: &str = "2025-06-30T12:00:00Z";

#[test]
fn each_rule_keeps_what_it_says() {
    let now = at(NOW);
    let sets = daily(400, now);
    let days = Duration::from_secs;
    let table: [(&str, Retention, Vec<u64>); 7] = [
        ("newest 3", Retention { keep_last: 3, ..Retention::NOTHING }, vec![398, 399, 400]),
        ("within 2 d", Retention { keep_within: Some(days(2 * 86_400)), ..Retention::NOTHING }, vec![399, 400]),
        ("hours", Retention { keep_hourly: 2, ..Retention::NOTHING }, vec![399, 400]),
        ("days", Retention { keep_daily: 2, ..Retention::NOTHING }, vec![399, 400]),
        // 30 June 2025 is a Monday.
        ("weeks", Retention { keep_weekly: 3, ..Retention::NOTHING }, vec![392, 399, 400]),
        ("months", Retention { keep_monthly: 3, ..Retention::NOTHING }, vec![339, 370, 400]),
        // While there are places left, the oldest stays too.
        ("years", Retention { keep_yearly: 5, ..Retention::NOTHING }, vec![1, 219, 400]),
    ];
    for (name, rules, expected) in table {
        assert_eq!(kept(&planned(&sets, &rules, now)), expected, "{name}");
    }
    let all = Retention { keep_daily: 7, keep_weekly: 4, keep_monthly: 2, ..Retention::NOTHING };
    let plan = planned(&sets, &all, now);
    assert_eq!(plan.sets[399].reasons, ["daily 2025-06-30", "weekly 2025 week 27", "monthly 2025-06", "proven set 1 of at least 1 of db"]);
    assert_eq!(plan.sets[0].reasons, ["no rule keeps it"]);
    assert_eq!(plan.freed(), (400 - kept(&plan).len(), 10 * (400 - kept(&plan).len() as u64)));
}

#[test]
fn f129_the_oldest_stays_while_a_rule_has_places_left() {
    let now = at(NOW);
    let sets = daily(400, now);
    let kept_by = |rules: Retention| kept(&planned(&sets, &rules, now));
    assert_eq!(kept_by(Retention { keep_yearly: 3, ..Retention::NOTHING }), [1, 219, 400]);
    assert_eq!(kept_by(Retention { keep_yearly: 2, ..Retention::NOTHING }), [219, 400], "no place is left");
    assert_eq!(kept_by(Retention { keep_weekly: 100, ..Retention::NOTHING }).first(), Some(&1));
    assert_eq!(
        kept_by(Retention { keep_monthly: 14, ..Retention::NOTHING }).first(),
        Some(&5),
        "the last of 14 months takes the last place"
    );
    let reasons = &planned(&sets, &Retention { keep_yearly: 3, ..Retention::NOTHING }, now).sets[0].reasons;
    assert_eq!(reasons, &["yearly 2024, the oldest: there are places left"]);
    // As the years come, what was the oldest becomes its year's, and goes when the places are taken.
    let mut years: Vec<Candidate> = (2020..2026).map(|year| set(year as u64 - 2019, at(&format!("{year}-03-01T00:00:00Z")))).collect();
    let rules = Retention { keep_yearly: 4, ..Retention::NOTHING };
    assert_eq!(kept(&planned(&years[..3], &rules, at("2022-03-02T00:00:00Z"))), [1, 2, 3]);
    assert_eq!(kept(&planned(&years, &rules, now)), [3, 4, 5, 6]);
    // What is not good is no oldest.
    years[0].whole = Whole::Partial;
    let rules = Retention { keep_yearly: 9, ..Retention::NOTHING };
    assert_eq!(kept(&planned(&years, &rules, now)), [2, 3, 4, 5, 6]);
}

#[test]
fn f141_sets_of_a_source_that_the_configuration_no_longer_has_stay() {
    let (now, zone) = (at(NOW), TimeZone::UTC);
    let mut sets = daily(10, now);
    for set in &mut sets[..6] {
        set.sources.push("gone".into());
    }
    let rules = Retention { keep_last: 2, ..Retention::NOTHING };
    let known = BTreeSet::from(["db".to_owned()]);
    let policy = |_: &str| Some(Policy { sources: Some(&known), ..of(&rules, &zone) });
    let plan = super::plan(&sets, policy, now);
    assert_eq!(kept(&plan), [1, 2, 3, 4, 5, 6, 9, 10]);
    assert!(plan.sets[0].reasons[0].contains("it holds gone, which the configuration no longer has"), "{:?}", plan.sets[0]);
    // One that comes back, and one that was never gone, is as any other.
    let known = BTreeSet::from(["db".to_owned(), "gone".to_owned()]);
    let policy = |_: &str| Some(Policy { sources: Some(&known), ..of(&rules, &zone) });
    assert_eq!(kept(&super::plan(&sets, policy, now)), [6, 9, 10]);
}

#[test]
fn days_are_those_of_the_zone() {
    let now = at(NOW);
    // 23:30 and 00:30 in Shanghai are one day in UTC.
    let sets = vec![set(1, at("2025-06-28T15:30:00Z")), set(2, at("2025-06-28T16:30:00Z")), set(3, at("2025-06-29T16:30:00Z"))];
    let zone = TimeZone::get("Asia/Shanghai").unwrap();
    let rules = Retention { keep_daily: 3, ..Retention::NOTHING };
    let in_zone = plan(&sets, |_: &str| Some(of(&rules, &zone)), now);
    let two = Retention { keep_daily: 2, ..Retention::NOTHING };
    assert_eq!((kept(&in_zone), kept(&planned(&sets, &two, now))), (vec![1, 2, 3], vec![2, 3]));
}

#[test]
fn the_archive_is_its_months_choice_and_nothing_else_ends_it() {
    let now = at(NOW);
    let mut sets = daily(100, now);
    sets[70].class = SetClass::Archive; // 1 June
    let plan = planned(&sets, &Retention { keep_last: 2, keep_monthly: 2, ..Retention::NOTHING }, now);
    assert_eq!(kept(&plan), [70, 71, 99, 100], "of May its last set, of June its archive");
    let plan = planned(&sets, &Retention { keep_last: 2, ..Retention::NOTHING }, now);
    assert_eq!(kept(&plan), [71, 99, 100]);
    assert!(plan.sets[70].reasons[0].starts_with("an archive"), "{:?}", plan.sets[70]);
    sets[60].class = SetClass::Archive;
    let plan = planned(&sets, &Retention { keep_last: 2, keep_yearly: 1, ..Retention::NOTHING }, now);
    assert_eq!(kept(&plan), [71, 99, 100], "where years are kept, the newest archive is that of its year");
    let plan = planned(&sets, &Retention { keep_last: 2, keep_monthly: 1, ..Retention::NOTHING }, now);
    assert_eq!(kept(&plan), [71, 99, 100], "and where months are, that of its month");
}

#[test]
fn what_nobody_read_takes_no_proven_sets_place() {
    let now = at(NOW);
    let mut sets = daily(20, now);
    for set in &mut sets[10..] {
        set.grade = Some(Grade::Uploaded);
    }
    let plan = planned(&sets, &Retention { keep_last: 3, ..Retention::NOTHING }, now);
    assert_eq!(kept(&plan), [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20], "nothing newer than the newest proven set goes");
    assert!(plan.sets[10].reasons[0].starts_with("no newer set of db is proven"), "{:?}", plan.sets[10]);
    // None is proven at all.
    sets.iter_mut().for_each(|set| set.grade = Some(Grade::Uploaded));
    let plan = planned(&sets, &Retention { keep_last: 3, ..Retention::NOTHING }, now);
    assert_eq!(kept(&plan).len(), 20);
    assert!(plan.sets[0].reasons[0].starts_with("only 0 of 1 proven sets of db would stay"), "{:?}", plan.sets[0]);
}

#[test]
fn the_floor_counts_for_each_source() {
    let now = at(NOW);
    let mut sets = daily(20, now);
    // A source that was taken out of the job after the fifth day.
    for set in &mut sets[..5] {
        set.sources.push("old".into());
    }
    let rules = Retention { keep_last: 2, keep_min_verified: 3, ..Retention::NOTHING };
    let plan = planned(&sets, &rules, now);
    assert_eq!(kept(&plan), [3, 4, 5, 18, 19, 20]);
    assert_eq!(plan.sets[2].reasons, ["proven set 3 of at least 3 of old"]);
}

#[test]
fn the_floor_stands_whatever_the_rules_and_the_sets_say() {
    let now = at(NOW);
    assert_eq!(kept(&planned(&daily(5, now), &Retention { keep_min_verified: 0, ..Retention::NOTHING }, now)), [5], "one at least");
    // A set that is not whole, or not like its predecessors, proves nothing, though it was read back.
    for whole in [Whole::Partial, Whole::Suspect] {
        let mut sets = daily(12, now);
        (sets[10].whole, sets[11].grade) = (whole, Some(Grade::Uploaded));
        let plan = planned(&sets, &Retention::NOTHING, now);
        assert_eq!((kept(&plan), plan.stopped.len()), (vec![10, 11, 12], 0), "{whole:?}");
    }
    // Sets in which no source is whole free nobody's place, but the last stays.
    let mut sets = daily(3, now);
    sets.iter_mut().for_each(|set| set.sources.clear());
    assert_eq!(kept(&planned(&sets, &Retention::NOTHING, now)), [3]);
}

#[test]
fn f58_dates_that_cannot_be_take_no_place_and_free_nothing() {
    let now = at(NOW);
    let mut sets = daily(10, now);
    // The clock was ten years ahead for one run, and two days behind for another.
    sets[6].committed_at = at("2035-01-01T00:00:00Z");
    let plan = planned(&sets, &Retention { keep_last: 2, ..Retention::NOTHING }, now);
    assert_eq!(kept(&plan).len(), 10, "a date in the future stops everything");
    assert!(plan.stopped["main"][0].contains("dated in the future"), "{:?}", plan.stopped);
    let mut sets = daily(10, now);
    sets[8].committed_at = at("2025-06-27T02:00:00Z");
    let plan = planned(&sets, &Retention { keep_last: 2, ..Retention::NOTHING }, now);
    assert_eq!(kept(&plan), [8, 9, 10], "what is out of order takes no place, and stays while older ones do");
    // With now set back nothing is old.
    let plan = planned(&daily(10, now), &Retention { keep_last: 2, ..Retention::NOTHING }, at("2025-06-01T00:00:00Z"));
    assert_eq!(kept(&plan).len(), 10);
}

#[test]
fn a_day_with_more_sets_than_the_schedule_explains_pushes_nothing_out() {
    let now = at(NOW);
    let mut sets = daily(10, now);
    for n in 0..50 {
        sets.push(set(11 + n, at("2025-06-30T03:00:00Z")));
    }
    let rules = Retention { keep_last: 3, keep_daily: 3, ..Retention::NOTHING };
    let plan = planned(&sets, &rules, now);
    assert!((7..=9).all(|number| plan.sets[number - 1].keep), "{:?}", &plan.sets[..10]);
    assert!(plan.sets[20].reasons[0].starts_with("2025-06-30 has 51 sets, the schedule explains 6"), "{:?}", plan.sets[20]);
    let zone = TimeZone::UTC;
    let accepted = super::plan(&sets, |_: &str| Some(Policy { accept_surplus: true, ..of(&rules, &zone) }), now);
    assert_eq!(kept(&accepted), [8, 9, 58, 59, 60]);
}

#[test]
fn a_bad_newest_set_and_a_late_one_free_nothing() {
    let now = at(NOW);
    let rules = Retention { keep_last: 2, ..Retention::NOTHING };
    for (bad, words) in [(Whole::Partial, "is partial"), (Whole::Suspect, "is suspect")] {
        let mut sets = daily(10, now);
        sets[9].whole = bad;
        let plan = planned(&sets, &rules, now);
        assert_eq!(kept(&plan).len(), 10);
        assert!(plan.stopped["main"][0].ends_with(words), "{:?}", plan.stopped);
    }
    let mut sets = daily(10, now);
    sets[9].grade = None;
    assert_eq!(kept(&planned(&sets, &rules, now)).len(), 10);
    let (zone, sets) = (TimeZone::UTC, daily(10, now));
    let scheduled = |_: &str| Some(Policy { interval: Some(Duration::from_secs(86_400)), ..of(&rules, &zone) });
    assert_eq!(kept(&super::plan(&sets, scheduled, now)).len(), 2);
    let late = super::plan(&sets, scheduled, at("2025-07-03T12:00:00Z"));
    assert_eq!((kept(&late).len(), late.stopped.len()), (10, 1));
    let failed = |_: &str| Some(Policy { stopped: Some("its last run failed".into()), ..of(&rules, &zone) });
    assert_eq!(kept(&super::plan(&sets, failed, now)).len(), 10);
    // Bad sets in between stay a week, then go.
    let mut sets = daily(20, now);
    (sets[4].whole, sets[15].whole) = (Whole::Partial, Whole::Partial);
    assert_eq!(kept(&planned(&sets, &rules, now)), [16, 19, 20]);
    let all_good = Retention { keep_last: 18, ..rules };
    assert_eq!(
        kept(&planned(&sets, &all_good, now)),
        [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
        "it takes no place"
    );
}

#[test]
fn pins_holds_chains_and_groups_that_are_gone() {
    let now = at(NOW);
    let rules = Retention { keep_last: 1, ..Retention::NOTHING };
    let mut sets = daily(10, now);
    sets[0].pinned_until = Some(at("2025-07-01T00:00:00Z"));
    sets[1].pinned_until = Some(at("2025-06-01T00:00:00Z"));
    sets[2].held_until = Some(at("2025-06-30T13:00:00Z"));
    sets[7].held_until = Some(at("2025-06-30T11:00:00Z"));
    // 4 to 6 are one chain of which only the last is pinned.
    for n in [4, 5] {
        sets[n].chain = sets[3].set.clone();
    }
    sets[5].pinned_until = Some(at("2025-07-01T00:00:00Z"));
    let plan = planned(&sets, &rules, now);
    assert_eq!(kept(&plan), [1, 3, 4, 5, 6, 10]);
    assert_eq!(plan.doomed().len(), 4);
    sets.iter_mut().take(5).for_each(|set| set.group = "gone".into());
    let zone = TimeZone::UTC;
    let unruled = super::plan(&sets, |_: &str| Some(Policy { retention: None, ..of(&rules, &zone) }), now);
    assert_eq!(kept(&unruled).len(), 10, "without a rule everything stays");
    let plan = super::plan(&sets, |name: &str| (name == "main").then(|| of(&rules, &zone)), now);
    assert!(plan.sets[..5].iter().all(|set| set.keep && set.reasons[0].starts_with("the configuration no longer has")));
}

#[test]
fn f58_a_date_is_believed_where_it_fits_and_else_as_young_as_its_place_allows() {
    let now = at(NOW);
    let minutes = |n: i64| now + SignedDuration::from_mins(n);
    // Begun and committed, in minutes from now; whether that is believed, and the date that counts.
    let judged = |runs: &[(i64, i64)]| {
        let sets: Vec<Candidate> = (1..)
            .zip(runs)
            .map(|(number, (begun, committed))| Candidate { committed_at: minutes(*committed), ..set(number, minutes(*begun)) })
            .collect();
        let zone = TimeZone::UTC;
        let (dates, odd) = dates::judge(&sets.iter().collect::<Vec<_>>(), &of(&Retention::NOTHING, &zone), now);
        let ages: Vec<i64> = dates.iter().map(|at| at.duration_since(now).as_mins()).collect();
        (ages, odd.iter().map(Option::is_none).collect::<Vec<_>>())
    };
    const WEEK: i64 = 7 * 24 * 60;
    assert_eq!(judged(&[(-90, -60), (-30, -20)]), (vec![-90, -30], vec![true, true]));
    // Clocks of hosts differ by some minutes; nothing is younger than now.
    assert_eq!(judged(&[(4, 5), (-9, 0)]), (vec![0, -9], vec![true, true]));
    assert_eq!(judged(&[(-90, -60), (5, 6)]), (vec![-90, -60], vec![true, false]), "dated in the future");
    assert_eq!(judged(&[(-30, -20), (-50, -25)]), (vec![-30, -50], vec![true, true]));
    assert_eq!(judged(&[(-30, -20), (-50, -26)]), (vec![-30, -20], vec![true, false]), "before what was there");
    assert_eq!(judged(&[(-90, -60), (-WEEK - 30, -30)]), (vec![-90, -WEEK - 30], vec![true, true]));
    assert_eq!(judged(&[(-90, -60), (-WEEK - 31, -30)]), (vec![-90, -60], vec![true, false]), "longer than any run");
    assert_eq!(judged(&[(-90, -60), (-25, -30)]), (vec![-90, -25], vec![true, true]));
    assert_eq!(judged(&[(-90, -60), (-24, -30)]), (vec![-90, -60], vec![true, false]), "begun after its end");
    assert_eq!(judged(&[(0, 4), (-60, -10)]), (vec![0, 0], vec![true, false]), "never younger than now");
    assert_eq!(judged(&[(-60, 9)]), (vec![0], vec![false]), "of the first set nothing is known");
}

#[test]
fn each_period_is_that_of_its_year() {
    let now = at(NOW);
    let kept_of = |rules: Retention, made: &[&str]| {
        let sets: Vec<Candidate> = (1..).zip(made).map(|(number, made)| set(number, at(made))).collect();
        kept(&planned(&sets, &rules, now))
    };
    // Day 61 of both years, then a day that only the floor keeps.
    let days = ["2024-03-01T02:00:00Z", "2025-03-02T02:00:00Z"];
    assert_eq!(kept_of(Retention { keep_hourly: 2, ..Retention::NOTHING }, &days), [1, 2]);
    assert_eq!(kept_of(Retention { keep_daily: 2, ..Retention::NOTHING }, &days), [1, 2]);
    assert_eq!(kept_of(Retention { keep_monthly: 2, ..Retention::NOTHING }, &days), [1, 2]);
    // 30 December 2024 lies in the first week of 2025, as 2 January 2025 does.
    let weeks = Retention { keep_weekly: 2, ..Retention::NOTHING };
    assert_eq!(kept_of(weeks.clone(), &["2024-01-02T02:00:00Z", "2024-12-30T02:00:00Z"]), [1, 2]);
    assert_eq!(kept_of(weeks, &["2024-12-20T02:00:00Z", "2024-12-30T02:00:00Z", "2025-01-02T02:00:00Z"]), [1, 3]);
}

#[test]
fn a_set_is_late_after_twice_the_pause_and_a_day_at_least() {
    let sets = daily(3, at(NOW));
    let (zone, rules) = (TimeZone::UTC, Retention { keep_last: 1, ..Retention::NOTHING });
    let late = |every: u64, hours: i64| {
        let scheduled = |_: &str| Some(Policy { interval: Some(Duration::from_secs(every * 3600)), ..of(&rules, &zone) });
        !super::plan(&sets, scheduled, sets[2].committed_at + SignedDuration::from_hours(hours)).stopped.is_empty()
    };
    assert_eq!([late(1, 24), late(1, 25), late(24, 48), late(24, 49)], [false, true, false, true]);
}

#[test]
fn f58_a_person_answers_for_the_dates_that_were_seen_only() {
    let now = at(NOW);
    let mut sets = daily(10, now);
    sets[6].committed_at = at("2035-01-01T00:00:00Z");
    let (zone, rules) = (TimeZone::UTC, Retention { keep_last: 2, ..Retention::NOTHING });
    let stopped = |confirmed: &str| {
        let policy = |_: &str| Some(Policy { confirmed: Some(at(confirmed)), ..of(&rules, &zone) });
        !super::plan(&sets, policy, now).stopped.is_empty()
    };
    assert_eq!([stopped("2034-12-31T23:59:59Z"), stopped("2035-01-01T00:00:00Z")], [true, false]);
}

#[test]
fn what_is_odd_stays_while_something_older_does_and_makes_up_for_nothing() {
    let now = at(NOW);
    let rules = Retention { keep_last: 2, ..Retention::NOTHING };
    let mut sets = daily(10, now);
    // The third is dated before those that were there.
    sets[2].committed_at = at("2025-06-01T02:00:00Z");
    assert_eq!(kept(&planned(&sets, &rules, now)), [9, 10]);
    sets[1].pinned_until = Some(at("2025-07-01T00:00:00Z"));
    assert_eq!(kept(&planned(&sets, &rules, now)), [2, 3, 9, 10]);
    // A good set with an odd date behind one that failed.
    let mut sets = daily(10, now);
    (sets[8].whole, sets[9].committed_at) = (Whole::Partial, at("2025-06-01T02:00:00Z"));
    let plan = planned(&sets, &rules, now);
    assert!(plan.stopped["main"][0].ends_with("is partial"), "{:?}", plan.stopped);
}

#[tokio::test]
async fn candidates_are_what_the_log_says() {
    use crate::catalog::testing::{Bed, at, source_entry};
    use crate::catalog::{Hold, hold};
    use crate::model::record::{Body, Proof};

    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let states = [
        SetState::Complete,
        SetState::Partial { reasons: vec!["db: gone".into()] },
        SetState::Suspect { reasons: vec!["files: small".into()] },
    ];
    let mut sets = Vec::new();
    for state in states {
        let run = log.begin_run(SetKind::Full, "main").await.unwrap();
        sets.push(run.set().clone());
        let mut manifest = bed.upload(&run).await;
        (manifest.state, manifest.class) = (state, SetClass::Archive);
        manifest.sources = vec![
            source_entry("files", "files"),
            SourceEntry { problems: vec!["gone".into()], ..source_entry("db", "postgres") },
            source_entry("drctl", OWN_SOURCE),
        ];
        run.commit(&mut log, manifest, |_| Ok(())).await.unwrap();
        bed.hours(1);
    }
    hold::pin(&mut log, &sets[0], at("2025-02-01T00:00:00Z"), "audit").await.unwrap();
    for hours in [5, 9, 7] {
        std::mem::forget(Hold::acquire(&mut log, &sets[0], Duration::from_secs(hours * 3600)).await.unwrap());
    }
    let proof = Proof {
        set: sets[0].clone(),
        grade: Grade::ReadBack,
        passed: true,
        findings: Vec::new(),
        started_at: at("2025-01-01T05:00:00Z"),
        finished_at: at("2025-01-01T05:00:00Z"),
        store: "main".into(),
    };
    log.append(Body::Proof { proof }).await.unwrap();
    let found = candidates(log.state(), false);
    assert_eq!(
        found.iter().map(|c| (c.whole, c.class)).collect::<Vec<_>>(),
        [Whole::Complete, Whole::Partial, Whole::Suspect].map(|w| (w, SetClass::Archive))
    );
    assert_eq!(found[0].sources, ["files"], "neither what failed nor drctl's own");
    assert_eq!((found[0].pinned_until, found[1].pinned_until), (Some(at("2025-02-01T00:00:00Z")), None));
    assert_eq!((found[0].held_until, found[1].held_until), (Some(at("2025-01-01T14:00:00Z")), None), "until the last reader ends");
    assert_eq!((found[0].grade, found[1].grade), (Some(Grade::ReadBack), Some(Grade::Uploaded)));
    assert_eq!(candidates(log.state(), true)[0].grade, Some(Grade::Uploaded), "its key also writes");
}

/// A history as it may happen: several groups and sources, chains, failures, clock steps, pins, holds, sets that nobody explains.
fn history(random: &mut StdRng) -> (Vec<Candidate>, Retention, Option<u32>, Timestamp) {
    let mut sets: Vec<Candidate> = Vec::new();
    let mut clock = at("2025-01-01T00:00:00Z").as_second();
    let groups = ["main", "files", "logs"];
    for number in 1..=random.random_range(1..70u64) {
        clock += random.random_range(0..3 * DAY / 2);
        let step = match random.random_range(0..40) {
            0 => -2 * DAY,
            1 => 3650 * DAY,
            2 => -3650 * DAY,
            _ => 0,
        };
        let mut made = set(number, Timestamp::from_second(clock + step).unwrap());
        made.group = groups[random.random_range(0..groups.len())].into();
        made.sources = ["db", "files", "env"].iter().filter(|_| random.random_bool(0.6)).map(|s| (*s).to_owned()).collect();
        made.whole = [Whole::Complete, Whole::Complete, Whole::Complete, Whole::Partial, Whole::Suspect][random.random_range(0..5)];
        made.grade =
            [None, Some(Grade::Uploaded), Some(Grade::ReadBack), Some(Grade::ReadBack), Some(Grade::Restored)][random.random_range(0..5)];
        made.class = if random.random_bool(0.1) { SetClass::Archive } else { SetClass::Ordinary };
        let until = |random: &mut StdRng| Some(Timestamp::from_second(clock + random.random_range(0..30 * DAY)).unwrap());
        made.pinned_until = if random.random_bool(0.05) { until(random) } else { None };
        made.held_until = if random.random_bool(0.05) { until(random) } else { None };
        let full = sets.iter().rev().find(|s| s.group == made.group && s.chain == s.set).filter(|_| random.random_bool(0.5));
        if let Some(full) = full {
            made.chain = full.set.clone();
        }
        sets.push(made);
    }
    let mut small = |most: u32| if random.random_bool(0.4) { random.random_range(0..=most) } else { 0 };
    let rules = Retention {
        keep_last: small(5),
        keep_within: (small(10) > 3).then(|| Duration::from_secs(5 * 86_400)),
        keep_hourly: small(3),
        keep_daily: small(5),
        keep_weekly: small(3),
        keep_monthly: small(3),
        keep_yearly: small(2),
        keep_min_verified: small(3).max(1),
    };
    let per_day = random.random_bool(0.5).then_some(1);
    (sets, rules, per_day, Timestamp::from_second(clock + random.random_range(0..40 * DAY)).unwrap())
}

fn proven_of<'a>(sets: impl Iterator<Item = &'a Candidate>, source: &str) -> Vec<u64> {
    let holds = |set: &&Candidate| set.grade >= Some(Grade::ReadBack) && set.sources.iter().any(|s| s == source);
    sets.filter(holds).map(|set| set.number).collect()
}

#[test]
fn ten_thousand_histories_never_lose_what_counts() {
    let (mut freed, mut stopped) = (0, 0);
    for seed in 0..10_000 {
        let random = &mut StdRng::seed_from_u64(seed);
        let (mut sets, rules, per_day, now) = history(random);
        let zone = TimeZone::UTC;
        let policy = |_: &str| Some(Policy { per_day, ..of(&rules, &zone) });
        let found = plan(&sets, policy, now);
        let gone: BTreeSet<&SetId> = found.sets.iter().filter(|set| !set.keep).map(|set| &set.set).collect();
        freed += gone.len();
        stopped += found.stopped.len();
        let (stay, go): (Vec<&Candidate>, Vec<&Candidate>) = sets.iter().partition(|set| !gone.contains(&set.set));
        for source in ["db", "files", "env"] {
            let had = proven_of(sets.iter(), source);
            let has = proven_of(stay.iter().copied(), source);
            assert_eq!(had.last(), has.last(), "seed {seed}: the last verified set of {source}");
            let lost_one = go.iter().any(|set| set.sources.iter().any(|s| s == source));
            let good = stay.iter().filter(|set| set.is_proven() && set.sources.iter().any(|s| s == source)).count();
            assert!(!lost_one || good >= rules.keep_min_verified as usize, "seed {seed}: the floor of {source}");
        }
        for set in &go {
            assert!(!stay.iter().any(|other| other.chain == set.chain), "seed {seed}: {} breaks a chain", set.set);
            assert!(set.pinned_until.is_none_or(|until| until <= now) && set.held_until.is_none_or(|until| until <= now), "seed {seed}");
        }
        assert!(found.sets.iter().all(|set| !set.reasons.is_empty()), "seed {seed}: every decision has a reason");
        // The order of the input is of no matter.
        sets.shuffle(random);
        assert_eq!(plan(&sets, policy, now), found, "seed {seed}");
        // An attacker with the writer's key makes sets without end, whole and even read back: nothing that stayed goes.
        let mut attacked = sets.clone();
        let newest = sets.iter().map(|set| set.number).max().unwrap_or(0);
        let dated = [now.as_second(), now.as_second() - 3 * DAY, now.as_second() + DAY][random.random_range(0..3)];
        for n in 0..30 {
            let mut surplus = set(newest + 1 + n, Timestamp::from_second(dated).unwrap());
            surplus.group = "main".into();
            surplus.sources = vec!["db".into(), "files".into(), "env".into()];
            attacked.push(surplus);
        }
        let scheduled = |_: &str| Some(Policy { per_day: Some(1), ..of(&rules, &zone) });
        let before = plan(&sets, scheduled, now);
        let after = plan(&attacked, scheduled, now);
        let lost = before.sets.iter().filter(|set| set.keep).find(|set| after.sets.iter().any(|other| other.set == set.set && !other.keep));
        assert_eq!(lost, None, "seed {seed}: pushed out");
    }
    assert!(freed > 10_000 && stopped > 1000, "the histories exercise both: {freed} freed, {stopped} stopped");
}

#[test]
fn a_hundred_thousand_sets_are_planned_in_seconds() {
    let now = at(NOW);
    let first = now.as_second() - 100_000 * 3600;
    let sets: Vec<Candidate> = (0..100_000).map(|n| set(n + 1, Timestamp::from_second(first + n as i64 * 3600).unwrap())).collect();
    let rules = Retention { keep_hourly: 48, keep_daily: 30, keep_weekly: 8, keep_monthly: 24, keep_yearly: 10, ..Retention::NOTHING };
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let began = computed();
    let plan = plan(&sets, |_: &str| Some(Policy { per_day: Some(24), ..of(&rules, &zone) }), now);
    // A release build takes a tenth of it.
    let took = computed() - began;
    assert!(took < Duration::from_secs(40), "{took:?}");
    assert!((100..130).contains(&kept(&plan).len()), "{}", kept(&plan).len());
}

#[test]
fn f117_a_safety_set_takes_no_place_stops_nothing_and_stays_for_a_month() {
    let now = at(NOW);
    let rules = Retention { keep_last: 1, ..Retention::NOTHING };
    // A set a day; a safety set an hour after it 31 and 29 days ago, and today.
    let mut sets = Vec::new();
    for days in (0..=40).rev() {
        let made = Timestamp::from_second(now.as_second() - days * DAY - 7200).unwrap();
        sets.push(set(sets.len() as u64 + 1, made));
        if [31, 29, 0].contains(&days) {
            let number = sets.len() as u64 + 1;
            sets.push(Candidate { class: SetClass::Safety, ..set(number, Timestamp::from_second(made.as_second() + 3600).unwrap()) });
        }
    }
    let plan = planned(&sets, &rules, now);
    assert!(plan.stopped.is_empty(), "{:?}", plan.stopped);
    let safety: Vec<usize> = (0..sets.len()).filter(|at| sets[*at].class == SetClass::Safety).collect();
    assert_eq!(safety.iter().map(|at| plan.sets[*at].keep).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(plan.sets[safety[1]].reasons, ["the safety set of a restore, and younger than 30 days"]);
    let newest = &plan.sets[sets.len() - 2];
    assert!(newest.reasons.contains(&"newest 1 of 1".to_owned()), "{:?}", newest.reasons);
}
