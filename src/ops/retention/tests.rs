use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::model::SetKind;

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

fn rules() -> Retention {
    Retention {
        keep_last: 0,
        keep_within: None,
        keep_hourly: 0,
        keep_daily: 0,
        keep_weekly: 0,
        keep_monthly: 0,
        keep_yearly: 0,
        keep_min_verified: 1,
    }
}

fn planned(sets: &[Candidate], retention: &Retention, now: Timestamp) -> Plan {
    let zone = TimeZone::UTC;
    let policy = |_: &str| Some(of(retention, &zone));
    plan(sets, policy, now)
}

fn of<'a>(retention: &'a Retention, zone: &'a TimeZone) -> Policy<'a> {
    Policy { retention: Some(retention), zone, per_day: Some(1), interval: None, stopped: None, accept_surplus: false, confirmed: None }
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
        ("newest 3", Retention { keep_last: 3, ..rules() }, vec![398, 399, 400]),
        ("within 2 d", Retention { keep_within: Some(days(2 * 86_400)), ..rules() }, vec![399, 400]),
        ("hours", Retention { keep_hourly: 2, ..rules() }, vec![399, 400]),
        ("days", Retention { keep_daily: 2, ..rules() }, vec![399, 400]),
        // 30 June 2025 is a Monday.
        ("weeks", Retention { keep_weekly: 3, ..rules() }, vec![392, 399, 400]),
        ("months", Retention { keep_monthly: 3, ..rules() }, vec![339, 370, 400]),
        ("years", Retention { keep_yearly: 5, ..rules() }, vec![219, 400]),
    ];
    for (name, rules, expected) in table {
        assert_eq!(kept(&planned(&sets, &rules, now)), expected, "{name}");
    }
    let all = Retention { keep_daily: 7, keep_weekly: 4, keep_monthly: 2, ..rules() };
    let plan = planned(&sets, &all, now);
    assert_eq!(plan.sets[399].reasons, ["daily 2025-06-30", "weekly 2025 week 27", "monthly 2025-06", "proven set 1 of at least 1 of db"]);
    assert_eq!(plan.sets[0].reasons, ["no rule keeps it"]);
    assert_eq!(plan.freed(), (400 - kept(&plan).len(), 10 * (400 - kept(&plan).len() as u64)));
}

#[test]
fn days_are_those_of_the_zone() {
    let now = at(NOW);
    // 23:30 and 00:30 in Shanghai are one day in UTC.
    let sets = vec![set(1, at("2025-06-28T15:30:00Z")), set(2, at("2025-06-28T16:30:00Z")), set(3, at("2025-06-29T16:30:00Z"))];
    let zone = TimeZone::get("Asia/Shanghai").unwrap();
    let rules = Retention { keep_daily: 3, ..rules() };
    let in_zone = plan(&sets, |_: &str| Some(of(&rules, &zone)), now);
    assert_eq!((kept(&in_zone), kept(&planned(&sets, &rules, now))), (vec![1, 2, 3], vec![2, 3]));
}

#[test]
fn the_archive_is_its_months_choice_and_nothing_else_ends_it() {
    let now = at(NOW);
    let mut sets = daily(100, now);
    sets[70].class = SetClass::Archive; // 1 June
    let plan = planned(&sets, &Retention { keep_last: 2, keep_monthly: 2, ..rules() }, now);
    assert_eq!(kept(&plan), [70, 71, 99, 100], "of May its last set, of June its archive");
    let plan = planned(&sets, &Retention { keep_last: 2, ..rules() }, now);
    assert_eq!(kept(&plan), [71, 99, 100]);
    assert!(plan.sets[70].reasons[0].starts_with("an archive"), "{:?}", plan.sets[70]);
}

#[test]
fn what_nobody_read_takes_no_proven_sets_place() {
    let now = at(NOW);
    let mut sets = daily(20, now);
    for set in &mut sets[10..] {
        set.grade = Some(Grade::Uploaded);
    }
    let plan = planned(&sets, &Retention { keep_last: 3, ..rules() }, now);
    assert_eq!(kept(&plan), [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20], "nothing newer than the newest proven set goes");
    assert!(plan.sets[10].reasons[0].starts_with("no newer set of db is proven"), "{:?}", plan.sets[10]);
    // None is proven at all.
    sets.iter_mut().for_each(|set| set.grade = Some(Grade::Uploaded));
    let plan = planned(&sets, &Retention { keep_last: 3, ..rules() }, now);
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
    let rules = Retention { keep_last: 2, keep_min_verified: 3, ..rules() };
    let plan = planned(&sets, &rules, now);
    assert_eq!(kept(&plan), [3, 4, 5, 18, 19, 20]);
    assert_eq!(plan.sets[2].reasons, ["proven set 3 of at least 3 of old"]);
}

#[test]
fn f58_dates_that_cannot_be_take_no_place_and_free_nothing() {
    let now = at(NOW);
    let mut sets = daily(10, now);
    // The clock was ten years ahead for one run, and two days behind for another.
    sets[6].committed_at = at("2035-01-01T00:00:00Z");
    let plan = planned(&sets, &Retention { keep_last: 2, ..rules() }, now);
    assert_eq!(kept(&plan).len(), 10, "a date in the future stops everything");
    assert!(plan.stopped["main"][0].contains("dated in the future"), "{:?}", plan.stopped);
    let mut sets = daily(10, now);
    sets[8].committed_at = at("2025-06-27T02:00:00Z");
    let plan = planned(&sets, &Retention { keep_last: 2, ..rules() }, now);
    assert_eq!(kept(&plan), [8, 9, 10], "what is out of order takes no place, and stays while older ones do");
    // With now set back nothing is old.
    let plan = planned(&daily(10, now), &Retention { keep_last: 2, ..rules() }, at("2025-06-01T00:00:00Z"));
    assert_eq!(kept(&plan).len(), 10);
}

#[test]
fn a_day_with_more_sets_than_the_schedule_explains_pushes_nothing_out() {
    let now = at(NOW);
    let mut sets = daily(10, now);
    for n in 0..50 {
        sets.push(set(11 + n, at("2025-06-30T03:00:00Z")));
    }
    let rules = Retention { keep_last: 3, keep_daily: 3, ..rules() };
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
    let rules = Retention { keep_last: 2, ..rules() };
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
}

#[test]
fn pins_holds_chains_and_groups_that_are_gone() {
    let now = at(NOW);
    let rules = Retention { keep_last: 1, ..rules() };
    let mut sets = daily(10, now);
    sets[0].pinned_until = Some(at("2025-07-01T00:00:00Z"));
    sets[1].pinned_until = Some(at("2025-06-01T00:00:00Z"));
    sets[2].held_until = Some(at("2025-06-30T13:00:00Z"));
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
    let plan = super::plan(&sets, |name: &str| (name == "main").then(|| of(&rules, &zone)), now);
    assert!(plan.sets[..5].iter().all(|set| set.keep && set.reasons[0].starts_with("the configuration no longer has")));
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
    let rules = Retention { keep_hourly: 48, keep_daily: 30, keep_weekly: 8, keep_monthly: 24, keep_yearly: 10, ..rules() };
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let began = std::time::Instant::now();
    let plan = plan(&sets, |_: &str| Some(Policy { per_day: Some(24), ..of(&rules, &zone) }), now);
    // A release build takes a tenth of it.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!((100..130).contains(&kept(&plan).len()), "{}", kept(&plan).len());
}
