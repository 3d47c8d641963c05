//! The keep rules: which sets take which place.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::DateTime;

use crate::config::values::duration_text;
use crate::model::SetClass;
use crate::ops::retention::Group;

/// A period of the calendar.
struct Period {
    name: &'static str,
    count: u32,
    /// What two instants of the same period have in common.
    key: fn(DateTime) -> (i16, i16, i8),
    /// The archive set of a period is its choice.
    archives: bool,
    /// The period in words.
    shown: &'static str,
}

/// Keeps what the rules want.
pub fn keep(group: &mut Group<'_>, now: Timestamp) {
    let Some(rules) = group.policy.retention else { return };
    let periods = [
        Period {
            name: "hourly",
            count: rules.keep_hourly,
            key: |t| (t.year(), t.date().day_of_year(), t.hour()),
            archives: false,
            shown: "%Y-%m-%d %Hh",
        },
        Period {
            name: "daily",
            count: rules.keep_daily,
            key: |t| (t.year(), t.date().day_of_year(), 0),
            archives: false,
            shown: "%Y-%m-%d",
        },
        Period { name: "weekly", count: rules.keep_weekly, key: week, archives: false, shown: "%G week %V" },
        Period { name: "monthly", count: rules.keep_monthly, key: |t| (t.year(), i16::from(t.month()), 0), archives: true, shown: "%Y-%m" },
        Period { name: "yearly", count: rules.keep_yearly, key: |t| (t.year(), 0, 0), archives: true, shown: "%Y" },
    ];
    if let Some(within) = rules.keep_within {
        for at in 0..group.sets.len() {
            if now.duration_since(group.dates[at]).unsigned_abs() <= within {
                group.keep_because(at, format!("within {}", duration_text(within)));
            }
        }
    }
    let takes_place = |group: &Group<'_>, at: usize| group.odd[at].is_none() && group.sets[at].is_good();
    let good: Vec<usize> = (0..group.sets.len()).rev().filter(|at| takes_place(group, *at)).collect();
    let proven: Vec<usize> = good.iter().copied().filter(|at| group.sets[*at].is_proven()).collect();
    // Once among all, once among the proven: what nobody has read yet takes no proven set's place.
    for among in [&good, &proven] {
        for (nth, at) in among.iter().take(rules.keep_last as usize).enumerate() {
            group.keep_because(*at, format!("newest {} of {}", nth + 1, rules.keep_last));
        }
        for period in &periods {
            keep_periods(group, among, period);
        }
    }
    // An archive was made to be kept: where no rule is for it, nothing ends it.
    if rules.keep_monthly == 0 && rules.keep_yearly == 0 {
        for at in 0..group.sets.len() {
            if group.sets[at].class == SetClass::Archive {
                group.keep_because(at, "an archive, and no monthly or yearly rule ends it".to_owned());
            }
        }
    }
}

/// ISO week: its year and number.
fn week(at: DateTime) -> (i16, i16, i8) {
    let week = at.date().iso_week_date();
    (week.year(), i16::from(week.week()), 0)
}

/// The newest set of each of the newest so many periods that have one; for months and years their newest archive, where they have one. The
/// oldest set of all stays while fewer periods have one.
/// `among` is newest first.
fn keep_periods(group: &mut Group<'_>, among: &[usize], period: &Period) {
    if period.count == 0 {
        return;
    }
    let key = |group: &Group<'_>, at: usize| (period.key)(group.civil[at]);
    let mut chosen: BTreeMap<_, usize> = BTreeMap::new();
    for at in among {
        let key = key(group, *at);
        if !chosen.contains_key(&key) {
            if chosen.len() == period.count as usize {
                break;
            }
            chosen.insert(key, *at);
        }
    }
    // While there are places left, what there is of the oldest period stays from its beginning on: later periods are made of it.
    let oldest = among.last().copied().filter(|_| chosen.len() < period.count as usize);
    if period.archives {
        // Oldest first, so that the newest archive of a period is its choice in the end.
        for at in among.iter().rev().filter(|at| group.sets[**at].class == SetClass::Archive) {
            if let Some(choice) = chosen.get_mut(&key(group, *at)) {
                *choice = *at;
            }
        }
    }
    for at in chosen.into_values() {
        let shown = group.civil[at].strftime(period.shown).to_string();
        group.keep_because(at, format!("{} {shown}", period.name));
    }
    if let Some(at) = oldest {
        let shown = group.civil[at].strftime(period.shown).to_string();
        group.keep_because(at, format!("{} {shown}, the oldest: there are places left", period.name));
    }
}
