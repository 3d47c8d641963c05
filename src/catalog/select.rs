//! Which set a date means. Pure: the log's state, the date, now and a time zone in, a set or the nearest ones out.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::catalog::state::{SetEntry, State};
use crate::error::{Error, Kind, Result};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// The newest good set.
    Latest,
    /// The last good set of a civil day in the zone given.
    Day(Date),
    /// The last good set at or before an instant.
    At(Timestamp),
}

impl When {
    /// Reads `20250101`, `2025-01-01`, RFC 3339 with an offset, `latest`, or a time past such as `2 hours ago` or `3d ago`.
    /// [`Kind::Usage`] otherwise.
    pub fn parse(text: &str, now: Timestamp) -> Result<When> {
        let bad = |why: &str| {
            Error::new(Kind::Usage, format!("'{}' is not a date{why}", text.escape_debug()))
                .hint("dates are 20250101, 2025-01-01, 2025-01-01T02:00:00Z, latest or \"2 hours ago\"")
        };
        let text = text.trim();
        if text == "latest" {
            return Ok(When::Latest);
        }
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if text.len() == 8 && digits(text) {
            return Date::strptime("%Y%m%d", text).map(When::Day).map_err(|e| bad("").because(e));
        }
        if let [year, month, day] = text.split('-').collect::<Vec<_>>()[..]
            && (year.len(), month.len(), day.len()) == (4, 2, 2)
            && [year, month, day].into_iter().all(digits)
        {
            return Date::strptime("%Y-%m-%d", text).map(When::Day).map_err(|e| bad("").because(e));
        }
        if let Some(span) = text.strip_suffix("ago") {
            return past(span.trim(), now).map(When::At).ok_or_else(|| bad(" in the past"));
        }
        if text.bytes().next().is_some_and(|b| b.is_ascii_digit()) && text.contains(['T', 't', ' ']) {
            let instant: Timestamp = text.parse().map_err(|e| bad(": a time of day needs its zone, such as Z or +08:00").because(e))?;
            return Ok(When::At(instant));
        }
        Err(bad(""))
    }
}

/// The instant `span` before now. Days are 24 hours, weeks 7 days; longer units have no fixed length and are refused.
fn past(span: &str, now: Timestamp) -> Option<Timestamp> {
    let span: Span = span.parse().ok()?;
    if span.get_months() != 0 || span.get_years() != 0 || span.is_negative() || span.is_zero() {
        return None;
    }
    let length = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    now.checked_sub(length).ok()
}

/// The good set of `group` (of any group without one) that `when` means; a civil day is one of `zone`, by the start of the run.
///
/// [`Kind::NoSuchSet`], naming the nearest good sets before and after, when there is none: never another day by itself.
pub fn choose<'a>(state: &'a State, group: Option<&str>, when: &When, zone: &TimeZone) -> Result<&'a SetEntry> {
    let among = group.map(|name| format!(" in group {name}")).unwrap_or_default();
    choose_among(good_sets(state, group).collect(), &among, when, zone).map_err(|error| name_others(error, state, group, when, zone))
}

/// The same error with the sets that a date passes over, and how these are had.
pub fn name_others(error: Error, state: &State, group: Option<&str>, when: &When, zone: &TimeZone) -> Error {
    /// More than a person reads at night.
    const NAMED: usize = 3;
    let day = |entry: &SetEntry| entry.id().at().to_zoned(zone.clone()).date();
    let meant = |entry: &&SetEntry| match when {
        When::Latest => true,
        When::Day(date) => day(entry) == *date,
        When::At(instant) => entry.id().at() <= *instant,
    };
    let passed_over = state.live().rev().filter(|e| !e.is_good() && group.is_none_or(|name| e.manifest.group == name)).filter(meant);
    let named: Vec<String> = passed_over.take(NAMED).map(|e| format!("{} ({})", e.id(), e.manifest.words())).collect();
    if named.is_empty() || error.kind() != Kind::NoSuchSet {
        return error;
    }
    error.hint(format!(
        "a date never means {}; by its id it can be had: see what is in it with drctl show ID, then drctl restore ID",
        named.join(", ")
    ))
}

/// Like [`choose`], among sets that the caller holds good enough; `among` says in an error which these are, a blank in front.
pub fn choose_among<'a>(mut good: Vec<&'a SetEntry>, among: &str, when: &When, zone: &TimeZone) -> Result<&'a SetEntry> {
    // By time asked for, then by the log's order, which no clock can upset.
    good.sort_by_key(|entry| (entry.id().at(), entry.number));
    let day = |entry: &SetEntry| entry.id().at().to_zoned(zone.clone()).date();
    let (found, asked) = match when {
        When::Latest => (good.iter().max_by_key(|entry| entry.number), "at all".to_owned()),
        When::Day(date) => (good.iter().rfind(|entry| day(entry) == *date), format!("of {date} ({})", zone_name(zone))),
        When::At(instant) => (good.iter().rfind(|entry| entry.id().at() <= *instant), format!("at or before {instant}")),
    };
    if let Some(entry) = found {
        return Ok(entry);
    }
    let (before, after): (Vec<&SetEntry>, Vec<&SetEntry>) = good.iter().copied().partition(|entry| match when {
        When::Latest => true,
        When::Day(date) => day(entry) < *date,
        When::At(instant) => entry.id().at() <= *instant,
    });
    let nearest = match (before.last(), after.first()) {
        (Some(b), Some(a)) => format!("nearest before: {}, nearest after: {}", b.id(), a.id()),
        (Some(b), None) => format!("nearest before: {}, none after", b.id()),
        (None, Some(a)) => format!("none before, nearest after: {}", a.id()),
        (None, None) => "there is no good set yet".to_owned(),
    };
    Err(Error::new(Kind::NoSuchSet, format!("no good set {asked}{among}; {nearest}")).hint("see what there is: drctl list"))
}

/// What joins a set of `when` from a group that is backed up less often: at or before the end of the day, or the instant.
pub fn joining(when: &When, zone: &TimeZone) -> When {
    match when {
        When::Day(date) => {
            let end = date.tomorrow().and_then(|next| next.to_zoned(zone.clone())).map(|next| next.timestamp());
            // The last instant of the day; a set of the next day's first second must not count.
            end.and_then(|end| end.checked_sub(Span::new().nanoseconds(1))).map_or(When::Day(*date), When::At)
        }
        other => other.clone(),
    }
}

/// Every good set (complete, not suspect, no intent), of one group or of all, oldest first in the log's order.
pub fn good_sets<'a>(state: &'a State, group: Option<&str>) -> impl DoubleEndedIterator<Item = &'a SetEntry> {
    state.live().filter(move |entry| entry.is_good() && group.is_none_or(|name| entry.manifest.group == name))
}

/// The newest good set of the same group before this one.
pub fn good_before<'a>(state: &'a State, entry: &SetEntry) -> Option<&'a SetEntry> {
    state.live().rev().find(|other| other.is_good() && other.manifest.group == entry.manifest.group && other.number < entry.number)
}

/// The names of the groups that have a live set, in order.
pub fn groups(state: &State) -> std::collections::BTreeSet<&str> {
    state.live().map(|entry| entry.manifest.group.as_str()).collect()
}

fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("local time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_the_command_line_promises() {
        let now: Timestamp = "2025-03-30T12:00:00Z".parse().unwrap();
        let day = |y, m, d| Some(When::Day(jiff::civil::date(y, m, d)));
        let instant = |text: &str| Some(When::At(text.parse().unwrap()));
        let table = [
            ("20250101", day(2025, 1, 1)),
            (" 2025-01-01 ", day(2025, 1, 1)),
            ("20240229", day(2024, 2, 29)),
            ("latest", Some(When::Latest)),
            ("2025-01-01T02:00:00Z", instant("2025-01-01T02:00:00Z")),
            ("2025-01-01T02:00:00+08:00", instant("2024-12-31T18:00:00Z")),
            ("2025-01-01 02:00:00+08:00", instant("2024-12-31T18:00:00Z")),
            ("2 hours ago", instant("2025-03-30T10:00:00Z")),
            ("90m ago", instant("2025-03-30T10:30:00Z")),
            ("3 days ago", instant("2025-03-27T12:00:00Z")),
            ("1 week ago", instant("2025-03-23T12:00:00Z")),
            ("20250229", None),
            ("20251301", None),
            ("2025-1-1", None),
            ("2025-01-01T02:00:00", None),
            ("yesterday", None),
            ("1 month ago", None),
            ("-2 hours ago", None),
            ("ago", None),
            ("0 hours ago", None),
            ("999999999 weeks ago", None),
            ("", None),
            ("latest\0", None),
            ("２０２５0101", None),
        ];
        for (text, expected) in table {
            let found = When::parse(text, now);
            assert_eq!(found.as_ref().ok(), expected.as_ref(), "{text:?}: {found:?}");
            assert!(found.is_ok() || found.is_err_and(|e| e.kind() == Kind::Usage && e.hint_text().is_some()));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = When::parse(&text, Timestamp::UNIX_EPOCH);
        }
    }
}
