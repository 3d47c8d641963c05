//! Which set a date means. Pure: the log's state, the date, now and a time zone in, a set or the nearest ones out.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::catalog::state::{SetEntry, State};
use crate::error::{Error, Result};

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
    /// Reads `20250101`, `2025-01-01`, RFC 3339, `latest`, `2 hours ago`. [`crate::error::Kind::Usage`] otherwise.
    pub fn parse(text: &str, now: Timestamp) -> Result<When> {
        let _ = now;
        Err(Error::failed(format!("cannot read the date '{text}' yet")))
    }
}

/// The good set of `group` that `when` means; a civil day is one of `zone`. [`crate::error::Kind::NoSuchSet`], naming the nearest
/// sets before and after, when there is none: never another day by itself.
pub fn choose<'a>(state: &'a State, group: Option<&str>, when: &When, zone: &TimeZone) -> Result<&'a SetEntry> {
    let _ = (state, group, when, zone);
    Err(Error::failed("sets cannot be chosen yet"))
}
