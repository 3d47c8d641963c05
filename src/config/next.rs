//! Which instants a cron expression means in a time zone.
//!
//! The expression itself is asked in plain civil time, where each day has 24 hours; what becomes of that where clocks are changed is decided
//! here, by two rules:
//! - **An expression that names hours** (`30 2 * * *`) means local days: it comes once for each of its civil times. A time that clocks skip
//!   comes when they have skipped it; where that is on the next day (some zones change at midnight) in the last second before. A time that
//!   comes twice counts the first time. So each local day has its run, but a day that the zone skips as a whole.
//! - **An expression that takes every hour** (`0 * * * *`, `*/15 * * * *`) means real time: it comes in both hours that have the same name,
//!   and once, right after, for all times that clocks skip.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::config::values::CronSchedule;

/// Most changes of clocks that one search passes; it ends after two or three, and this only bounds what a strange zone could do.
const CHANGES: usize = 64;

/// More than any zone's clock was ever put forward or back.
const FAR: SignedDuration = SignedDuration::from_hours(48);

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// The first instant of `cron` in `zone` after `after`, on a whole second. `None`: never again (the search ends with the year 4999).
pub(super) fn next_after(cron: &CronSchedule, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let after = Timestamp::from_second(after.as_second() - i64::from(after.subsec_nanosecond() < 0)).ok()?;
    if takes_every_hour(cron) { next_real(cron, zone, after) } else { next_civil(cron, zone, after) }
}

fn takes_every_hour(cron: &CronSchedule) -> bool {
    cron.cron().pattern.hours.values().len() == 24
}

/// By local days.
fn next_civil(cron: &CronSchedule, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut from = Search { at: zone.to_datetime(after), inclusive: false };
    for _ in 0..CHANGES {
        let wanted = from.next(cron)?;
        let found = match zone.to_ambiguous_timestamp(wanted).offset() {
            AmbiguousOffset::Unambiguous { offset } => return offset.to_timestamp(wanted).ok(),
            AmbiguousOffset::Fold { before, after: later } => {
                let first = before.to_timestamp(wanted).ok()?;
                from = Search { at: before.to_datetime(change(zone, first, later)?), inclusive: true };
                Some(first)
            }
            AmbiguousOffset::Gap { before, after: later } => {
                let change = change(zone, later.to_timestamp(wanted).ok()?, later)?;
                from = Search { at: later.to_datetime(change), inclusive: true };
                instead_of_skipped(wanted.date(), change, before, later)
            }
        };
        // Not after: its day has had it, or has none. Nothing else lies in the same fold or gap.
        if let Some(found) = found.filter(|found| *found > after) {
            return Some(found);
        }
    }
    None
}

/// When a civil time of this date that clocks skip comes, if at all.
fn instead_of_skipped(date: Date, change: Timestamp, before: Offset, later: Offset) -> Option<Timestamp> {
    let last = change - SECOND;
    if later.to_datetime(change).date() == date { Some(change) } else { (before.to_datetime(last).date() == date).then_some(last) }
}

/// By real time: stretch by stretch between the changes of clocks.
fn next_real(cron: &CronSchedule, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let (mut at, mut inclusive) = (after, false);
    for _ in 0..CHANGES {
        let offset = zone.to_offset(at);
        let wanted = Search { at: offset.to_datetime(at), inclusive }.next(cron)?;
        let found = offset.to_timestamp(wanted).ok()?;
        let Some((change, later)) = next_change(zone, at, offset, found) else { return Some(found) };
        // The civil time right after the change, and the one that would have come without it.
        let (new, old) = (later.to_datetime(change), offset.to_datetime(change));
        if wanted < new {
            return Some(change);
        }
        // The hours that come again.
        if let Some(again) = (Search { at: new, inclusive: true }).next(cron).filter(|again| *again < old) {
            return later.to_timestamp(again).ok();
        }
        // Up to `wanted` nothing matches, however clocks are changed meanwhile.
        let near = later.to_timestamp(wanted).ok()? - FAR;
        (at, inclusive) = (near.max(change), true);
    }
    None
}

/// The first change of `zone` to another offset in `(from, until]`.
fn next_change(zone: &TimeZone, from: Timestamp, offset: Offset, until: Timestamp) -> Option<(Timestamp, Offset)> {
    let changes = zone.following(from).take_while(|change| change.timestamp() <= until);
    changes.map(|change| (change.timestamp(), change.offset())).find(|(_, later)| *later != offset)
}

/// The first change to this offset after an instant.
fn change(zone: &TimeZone, after: Timestamp, offset: Offset) -> Option<Timestamp> {
    zone.following(after).take(CHANGES).find(|change| change.offset() == offset).map(|change| change.timestamp())
}

/// Where in civil time a search begins.
struct Search {
    at: DateTime,
    inclusive: bool,
}

impl Search {
    /// The first match in civil time: UTC has no changes of clocks.
    fn next(&self, cron: &CronSchedule) -> Option<DateTime> {
        let from = self.at.to_zoned(TimeZone::UTC).ok()?;
        cron.cron().find_next_occurrence(&from, self.inclusive).ok().map(|found| found.datetime())
    }
}
