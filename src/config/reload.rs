//! Whether a configuration that was read again takes the place of the one in use (FAULTS 60, 61). Pure: whoever reads and swaps calls it.
//!
//! A run keeps the configuration it began with; what is decided here holds from the next run on. A source that was taken out is not
//! backed up any more, and its sets stay: nothing is ever deleted because a configuration no longer names it.

use std::collections::BTreeSet;

use crate::config::diff::{Change, diff};
use crate::config::problem::Problems;
use crate::config::typed::Config;

/// What becomes of a configuration that was read again.
#[derive(Debug)]
pub enum Reload {
    /// It has mistakes: the old one stays in use, and these are told with their lines.
    Keep(Problems),
    /// It says what the old one says.
    Same,
    /// It takes the old one's place between runs.
    Swap {
        /// The new configuration.
        config: Box<Config>,
        /// What is different, by name.
        changes: Vec<Change>,
        /// Sources that are not backed up any more, as `job/source`, those of a removed job among them. Their sets stay.
        removed_sources: Vec<String>,
    },
}

/// Decides what becomes of `read`, the outcome of loading the files again.
pub fn reload(old: &Config, read: Result<Config, Problems>) -> Reload {
    let new = match read {
        Ok(new) => new,
        Err(problems) => return Reload::Keep(problems),
    };
    let changes = diff(old, &new);
    if changes.is_empty() {
        return Reload::Same;
    }
    let (had, has) = (sources(old), sources(&new));
    let removed_sources = had.difference(&has).cloned().collect();
    Reload::Swap { config: Box::new(new), changes, removed_sources }
}

fn sources(config: &Config) -> BTreeSet<String> {
    config.jobs.iter().flat_map(|job| job.sources.iter().map(|s| format!("{}/{}", job.name, s.name))).collect()
}
