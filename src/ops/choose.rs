//! Which job and which set the user means.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::catalog::select::{self, When};
use crate::catalog::{JobLog, SetEntry};
use crate::error::{Error, Kind, Result};
use crate::model::{JobName, SetId};
use crate::ops::Setup;

/// How a set was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// By its whole id, or its id without the job.
    Set(String),
    /// By date: `20250101`, `2025-01-01`, RFC 3339, `latest`, `2 hours ago`.
    Date(String),
}

impl Wanted {
    /// A word that may be a set id or a date.
    pub fn word(text: &str) -> Wanted {
        let id = text.rsplit('/').next().unwrap_or(text);
        if text.contains('/') || id.contains("-full-") || id.contains("-incremental-") {
            Wanted::Set(text.to_owned())
        } else {
            Wanted::Date(text.to_owned())
        }
    }
}

/// The job meant: the one named, or the only one there is. `known` comes from the configuration; without one the repository is asked.
pub async fn job(setup: &Setup, named: Option<&str>, known: &[JobName]) -> Result<JobName> {
    if let Some(name) = named {
        return name.parse::<JobName>().map_err(|e| e.with_kind(Kind::Usage));
    }
    let jobs = if known.is_empty() { setup.repository.jobs().await? } else { known.to_vec() };
    match jobs.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Error::new(Kind::NoSuchSet, format!("{} holds no job yet", setup.repository.location())).hint("drctl backup now")),
        several => {
            let names: Vec<&str> = several.iter().map(JobName::as_str).collect();
            Err(Error::new(Kind::Usage, "there is more than one job: say which").hint(format!("--job {}", names.join(" | --job "))))
        }
    }
}

/// The set meant, in a job's log that was read. Dates choose among good sets; an id may name any live set.
pub fn set<'a>(log: &'a JobLog, wanted: &Wanted, group: Option<&str>, now: Timestamp, zone: &TimeZone) -> Result<&'a SetEntry> {
    match wanted {
        Wanted::Date(text) => select::choose(log.state(), group, &When::parse(text, now)?, zone),
        Wanted::Set(text) => {
            let whole = if text.contains('/') { text.clone() } else { format!("{}/{text}", log.job()) };
            let id: SetId = whole.parse()?;
            if id.job() != log.job() {
                return Err(Error::new(Kind::Usage, format!("{id} does not belong to job {}", log.job())));
            }
            let missing = |why: &str| Error::new(Kind::NoSuchSet, format!("{id} {why}")).hint("drctl list");
            match log.state().get(&id) {
                None => Err(missing("was never committed")),
                Some(entry) if !entry.is_live() => Err(missing("was deleted")),
                Some(entry) => Ok(entry),
            }
        }
    }
}
