//! Durations, sizes and schedules: text ↔ value. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::civil::date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::config::problem::shorten;

/// Units of a duration, greatest first. A day has 24 hours; a month has 31 days and a year 366, so that nothing ends too early.
const UNITS: [(&str, u64); 9] = [
    ("y", 31_622_400_000),
    ("mo", 2_678_400_000),
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Longest duration: 100 years of 365 days.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Reads `30d`, `1h30m`, `90s`, `2w`: whole numbers with units in falling order, each unit once. Errors are whole messages.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{}' is not a duration; write it like 90s, 15m, 1h30m, 7d or 2w", shorten(text));
    let mut rest = text;
    let mut millis = 0u64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let found = UNITS.iter().position(|(unit, _)| *unit == &rest[..letters]).filter(|at| *at >= next_unit).ok_or_else(bad)?;
        rest = &rest[letters..];
        next_unit = found + 1;
        millis = number.checked_mul(UNITS[found].1).and_then(|part| millis.checked_add(part)).ok_or_else(bad)?;
    }
    if next_unit == 0 {
        return Err(bad());
    }
    let duration = Duration::from_millis(millis);
    match duration {
        Duration::ZERO => Err("must be longer than nothing".to_owned()),
        long if long > LONGEST => Err(format!("'{}' is longer than 100 years", shorten(text))),
        fine => Ok(fine),
    }
}

/// Writes a duration as [`duration`] reads it, in days at most: `30d`, `1h30m`.
pub fn duration_text(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut out = String::new();
    for (unit, size) in UNITS.iter().filter(|(unit, _)| !matches!(*unit, "y" | "mo" | "w" | "min")) {
        if millis >= *size {
            out.push_str(&format!("{}{unit}", millis / size));
            millis %= size;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

/// [`duration`] of how long something is kept, or may go without a proof: `m`, which is minutes here and months in other programs, is refused.
/// Errors are whole messages.
pub fn long_duration(text: &str) -> Result<Duration, String> {
    let found = duration(text)?;
    let letters = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_alphabetic);
    match text.char_indices().find(|(at, c)| *c == 'm' && !letters(at + 1) && !(*at > 0 && letters(at - 1))) {
        Some((at, _)) => {
            let (before, after) = (&text[..at], &text[at + 1..]);
            // Months stand before what is shorter.
            let (front, number) = before.split_at(before.trim_end_matches(|c: char| c.is_ascii_digit()).len());
            let months = format!("{before}mo{after}");
            let months = if duration(&months).is_ok() { months } else { format!("{number}mo{front}{after}") };
            Err(format!("'{}' may mean minutes or months; write '{before}min{after}' or '{months}'", shorten(text)))
        }
        None => Ok(found),
    }
}

/// Writes a duration as [`long_duration`] reads it.
pub fn long_duration_text(duration: Duration) -> String {
    let text = duration_text(duration);
    let mut out = String::new();
    for (at, c) in text.char_indices() {
        let minutes = c == 'm' && !text[at + 1..].starts_with('s');
        out.push_str(if minutes { "min" } else { &text[at..at + c.len_utf8()] });
    }
    out
}

/// Reads `8MiB`, `512KiB`, `20MB`, `4096B` as bytes. Errors are whole messages.
pub fn size(text: &str) -> Result<u64, String> {
    const SIZES: [(&str, u64); 9] = [
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
    ];
    let bad = || format!("'{}' is not a size; write it like 512KiB, 8MiB or 1GiB", shorten(text));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let unit = text[digits..].trim_start();
    let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    number.checked_mul(*factor).filter(|bytes| *bytes > 0).ok_or_else(bad)
}

/// A cron expression of 5 fields, or 6 with seconds first; also `@daily` and the like. Equal ones share what was parsed: that takes 5 KiB, a
/// byte for each year, and an agent of 1,000 jobs has thousands of them.
#[derive(Clone)]
pub struct CronSchedule {
    text: Arc<str>,
    cron: Arc<Cron>,
}

/// Expressions that are in use, parsed.
static PARSED: Mutex<BTreeMap<Arc<str>, Weak<Cron>>> = Mutex::new(BTreeMap::new());

fn parsed(text: &str) -> Option<(Arc<str>, Arc<Cron>)> {
    let all = PARSED.lock().unwrap_or_else(|p| p.into_inner());
    let (text, cron) = all.get_key_value(text)?;
    Some((text.clone(), cron.upgrade()?))
}

impl CronSchedule {
    /// Reads an expression; one that never comes due is an error. Errors are whole messages.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some((text, cron)) = parsed(text) {
            return Ok(CronSchedule { text, cron });
        }
        let shown = shorten(text);
        let fields = text.split_whitespace().count();
        if !text.starts_with('@') && !(5..=6).contains(&fields) {
            return Err(format!("'{shown}' is not a cron expression: {fields} fields, 5 are needed (minute hour day month weekday)"));
        }
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|e| format!("'{shown}' is not a cron expression: {}", fragment(&e.to_string())))?;
        // From a fixed instant just before a leap year: 29 February comes within the search.
        let start: Zoned = date(2027, 12, 31).to_zoned(TimeZone::UTC).map_err(|e| e.to_string())?;
        if cron.find_next_occurrence(&start, false).is_err() {
            return Err(format!("'{shown}' never comes due"));
        }
        let (text, cron) = (Arc::<str>::from(text), Arc::new(cron));
        let mut all = PARSED.lock().unwrap_or_else(|p| p.into_inner());
        all.retain(|_, cron| cron.strong_count() > 0);
        all.insert(text.clone(), Arc::downgrade(&cron));
        Ok(CronSchedule { text, cron })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first instant after `at` that it means in a zone, changes of clocks among it; `None` when it never comes again.
    pub fn next_after(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        super::next::next_after(self, zone, at)
    }

    /// The parsed expression.
    pub fn cron(&self) -> &Cron {
        &self.cron
    }
}

/// The crate's message as a lower-case fragment, without the name of its error.
fn fragment(message: &str) -> String {
    let message = message.split_once(": ").map_or(message, |(_, rest)| rest).trim_end_matches('.');
    let mut chars = message.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

impl fmt::Debug for CronSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl PartialEq for CronSchedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for CronSchedule {}

/// A time zone by its IANA name. Errors are whole messages.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| {
        let near = jiff::tz::db().available().map(|n| n.as_str().to_owned()).collect::<Vec<_>>();
        let lower = name.to_lowercase();
        let best = near
            .iter()
            .map(|n| (strsim::damerau_levenshtein(&lower, &n.to_lowercase()), n))
            .filter(|(distance, _)| *distance <= 3)
            .min_by_key(|(distance, n)| (*distance, n.len(), (*n).clone()));
        match (best, near.is_empty()) {
            (Some((_, best)), _) => format!("'{}' is not a time zone; did you mean '{best}'?", shorten(name)),
            (None, true) => format!("'{}' cannot be looked up: this machine has no time zone data; install tzdata", shorten(name)),
            (None, false) => format!("'{}' is not a time zone; write a name like Europe/Berlin or UTC", shorten(name)),
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1h30m", 5400), ("7d", 604_800), ("2w", 1_209_600), ("1d12h", 129_600)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "1", "d", "1x", "1 h", "30m1h", "1h1h", "-1h", "1.5h", "99999999999999999999d", "999999w", "0s", "1hé"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn f142_months_and_minutes_are_told_apart_where_time_is_kept() {
        for (text, seconds) in [("7min", 420), ("7mo", 7 * 31 * 86_400), ("1y6mo", 366 * 86_400 + 6 * 31 * 86_400), ("1h30min", 5400)] {
            assert_eq!(
                (duration(text), long_duration(text)),
                (Ok(Duration::from_secs(seconds)), Ok(Duration::from_secs(seconds))),
                "{text}"
            );
        }
        for (text, min, months) in [("7m", "'7min'", "'7mo'"), ("1d12m", "'1d12min'", "'12mo1d'"), ("3m2s", "'3min2s'", "'3mo2s'")] {
            let why = long_duration(text).unwrap_err();
            assert!(why.contains(min) && why.contains(months), "{why}");
            assert!(duration(text).is_ok(), "{text}");
        }
        assert_eq!(long_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(long_duration_text(Duration::from_secs(5400)), "1h30min");
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("8MiB", 8 << 20), ("4096B", 4096), ("20 MB", 20_000_000), ("1TiB", 1 << 40)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "8", "8M", "8mib", "MiB", "0B", "-1B", "99999999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn equal_expressions_share_what_was_parsed_as_long_as_one_is_in_use() {
        let text = "17 3 5 7 *";
        let (one, other) = (CronSchedule::parse(text).unwrap(), CronSchedule::parse(&format!(" {text} ")).unwrap());
        assert!(Arc::ptr_eq(&one.cron, &other.cron) && one == other);
        drop((one, other));
        assert!(parsed(text).is_none(), "nobody has it any more");
        assert_eq!(CronSchedule::parse(text).unwrap().text(), text);
    }

    #[test]
    fn cron_expressions() {
        for good in ["0 2 * * *", "0 3 1 * *", "0 5 * * 0", "*/15 * * * *", "30 0 2 * * *", "@daily", "0 4 29 2 *", "0 2 * * MON-FRI"] {
            assert!(CronSchedule::parse(good).is_ok(), "{good}");
        }
        for (bad, part) in [
            ("", "0 fields"),
            ("0 2 * *", "4 fields, 5 are needed"),
            ("0 2 * * * * 2025", "7 fields"),
            ("61 * * * *", "not a cron expression"),
            ("a b c d e", "not a cron expression"),
            ("0 0 31 2 *", "never comes due"),
            ("@sometimes", "not a cron expression"),
        ] {
            let error = CronSchedule::parse(bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn time_zones() {
        assert!(time_zone("UTC").is_ok());
        assert!(time_zone("Asia/Shanghai").is_ok());
        assert_eq!(time_zone("Asia/Shangai").unwrap_err(), "'Asia/Shangai' is not a time zone; did you mean 'Asia/Shanghai'?");
        assert!(time_zone("Mars/Olympus Mons").unwrap_err().contains("write a name like"));
    }

    proptest! {
        #[test]
        fn durations_are_read_as_they_are_written(millis in 1u64..3_000_000_000_000) {
            let value = Duration::from_millis(millis);
            prop_assert_eq!(duration(&duration_text(value)), Ok(value));
            prop_assert_eq!(long_duration(&long_duration_text(value)), Ok(value));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,20}") {
            let _ = (long_duration(&text), duration(&text), size(&text), CronSchedule::parse(&text));
        }
    }
}
