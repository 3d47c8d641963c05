//! Which dates of sets can be believed, and which days have more sets than the schedule explains.
//!
//! The log's numbers say what came after what; dates only say how long ago. A date that contradicts the numbers, or lies in the future, is
//! a clock that was wrong or somebody who wants to push sets out, and so are more sets in a day than the schedule explains.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use crate::model::clock::CLOCKS;
use crate::ops::retention::{Candidate, Policy};

/// No run takes longer.
const LONGEST_RUN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Sets a day that people make by hand, beside those of the schedule and a retry of each.
const BY_HAND: u32 = 4;

/// Whether the set says it was made later than now.
pub fn is_ahead(set: &Candidate, now: Timestamp) -> bool {
    set.committed_at.duration_since(now) > CLOCKS
}

/// When each set was made, and why that cannot be believed where it cannot. Sets in the log's order.
pub fn judge(sets: &[&Candidate], policy: &Policy<'_>, now: Timestamp) -> (Vec<Timestamp>, Vec<Option<String>>) {
    let mut newest: Option<Timestamp> = None;
    let (mut dates, mut odd) = (Vec::with_capacity(sets.len()), Vec::with_capacity(sets.len()));
    for set in sets {
        let (begun, committed) = (set.set.at(), set.committed_at);
        let took = committed.duration_since(begun);
        let why = if is_ahead(set, now) {
            Some("it is dated in the future".to_owned())
        } else if newest.is_some_and(|newest| newest.duration_since(committed) > CLOCKS) {
            Some("it is dated before sets that were there already".to_owned())
        } else if took > LONGEST_RUN || took < -CLOCKS {
            Some("its run does not fit the date of its commit".to_owned())
        } else {
            newest = newest.max(Some(committed));
            None
        };
        // For what is odd: as young as its place allows.
        dates.push(if why.is_some() { newest.unwrap_or(now).min(now) } else { begun.min(now) });
        odd.push(why.map(|why| format!("{why}: it takes no place, and stays while older ones do")));
    }
    if let Some(per_day) = policy.per_day.filter(|_| !policy.accept_surplus) {
        mark_surplus(&dates, &mut odd, policy, per_day.saturating_mul(2).saturating_add(BY_HAND));
    }
    (dates, odd)
}

fn mark_surplus(dates: &[Timestamp], odd: &mut [Option<String>], policy: &Policy<'_>, most: u32) {
    let days: Vec<Date> = dates.iter().map(|at| at.to_zoned(policy.zone.clone()).date()).collect();
    let mut count: BTreeMap<Date, u32> = BTreeMap::new();
    for day in &days {
        *count.entry(*day).or_default() += 1;
    }
    for (at, day) in days.iter().enumerate() {
        let found = count.get(day).copied().unwrap_or_default();
        if found > most && odd[at].is_none() {
            odd[at] = Some(format!(
                "{day} has {found} sets, the schedule explains {most}: none of them takes a place, and they stay while older ones do"
            ));
        }
    }
}
