//! Figures as people read them: on the terminal and in `RESTORE.md`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use crate::model::figures::{bytes, count, duration, number, two};

/// [`duration`] of a length of time.
pub fn span(length: Duration) -> String {
    duration(i64::try_from(length.as_secs()).unwrap_or(i64::MAX))
}

/// An instant in a zone, to the minute, with the zone's abbreviation: `2025-01-31 14:00 CET`.
pub fn when(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// What an inspector counted, in words and in the order people ask for it: `3 tables, 305,000 rows`. A zero is left out, but
/// where tables, rows or files are counted at all their zero is news. Bytes and the archive's own entries are for `--json`.
pub fn counted<'a>(totals: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    const WORDS: [(&str, &str, bool); 9] = [
        ("tables", "table", true),
        ("rows", "row", true),
        ("large_objects", "large object", false),
        ("files", "file", true),
        ("dirs", "folder", false),
        ("symlinks", "symlink", false),
        ("hardlinks", "hard link", false),
        ("others", "other", false),
        ("lines", "line", true),
    ];
    const LEFT_OUT: [&str; 2] = ["bytes", "entries"];
    let mut parts: Vec<(usize, String)> = Vec::new();
    for (name, total) in totals {
        match WORDS.iter().position(|(word, ..)| *word == name) {
            Some(at) if total > 0 || WORDS[at].2 => parts.push((at, count(total, WORDS[at].1))),
            None if total > 0 && !LEFT_OUT.contains(&name) => {
                parts.push((WORDS.len(), format!("{} {}", number(total), name.replace('_', " "))))
            }
            _ => {}
        }
    }
    // Stable: names without a word of their own stay in their order.
    parts.sort_by_key(|(at, _)| *at);
    parts.into_iter().map(|(_, words)| words).collect::<Vec<_>>().join(", ")
}

/// ` and 3 more` behind the first of some.
pub fn and_more(all: usize) -> String {
    if all > 1 { format!(" and {} more", all - 1) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_well() {
        assert_eq!([count(0, "set"), count(1, "set"), count(1200, "set")], ["0 sets", "1 set", "1,200 sets"]);
        let tar = [("bytes", 9), ("dirs", 1), ("files", 2), ("hardlinks", 0), ("others", 0), ("symlinks", 1)];
        assert_eq!(counted(tar), "2 files, 1 folder, 1 symlink");
        let dump = [("bytes", 9), ("entries", 21), ("large_objects", 0), ("rows", 305_000), ("tables", 3)];
        assert_eq!(counted(dump), "3 tables, 305,000 rows");
        assert_eq!(counted([("rows", 0), ("tables", 1)]), "1 table, 0 rows");
        assert_eq!(counted([("zebra_stripes", 2), ("keys", 0), ("tables", 1)]), "1 table, 2 zebra stripes");
        assert_eq!(counted([("bytes", 1)]), "");
        assert_eq!((number(1_234_567), number(12)), ("1,234,567".to_owned(), "12".to_owned()));
        assert_eq!((count(1, "set"), count(0, "set")), ("1 set".to_owned(), "0 sets".to_owned()));
    }
}
