//! `drctl restore`: choose, show, load beside, count, switch; and the ways back: undo and finish.
//!
//! Live data is touched in the switch only, after everything was read, checked, loaded and counted. With `--in-place` the whole
//! set is read and checked first and a safety set is made.

pub mod aftermath;
pub mod journal;
pub mod pick;
pub mod plan;
pub mod run;
mod safety;
pub mod sweep;
pub mod without;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::model::JobName;
use crate::ops::choose::Wanted;
use crate::source::load::Loader;

/// Gives the loader for a source of a set: from the configuration by its name, or for a target by its kind.
pub trait Loaders: Send + Sync {
    /// A loader for the source `name` of kind `kind` of `job`. Without a target only a source that is configured for that job will
    /// do: [`crate::error::Kind::Preflight`] otherwise, as nobody said where to.
    fn loader(&self, job: &JobName, name: &str, kind: &str, has_target: bool) -> Result<Arc<dyn Loader>>;

    /// Names of the groups that the configuration has for a job; `None` when it knows nothing of the job.
    fn groups(&self, job: &JobName) -> Option<Vec<String>>;
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Which set.
    pub wanted: Wanted,
    /// Only these sources; databases and files when empty.
    pub sources: Vec<String>,
    /// Artifacts that are left out, each by `source.name` or its file's name.
    pub without: Vec<String>,
    /// Into another place.
    pub target: Option<String>,
    /// Over the live data.
    pub in_place: bool,
    /// What is live is saved as a set before it is loaded over; with the folders of this machine that the stores are.
    pub safety_set: Option<Vec<PathBuf>>,
    /// Databases under their live names, what is live put aside first.
    pub exchange_first: bool,
    /// The zone of civil days.
    pub zone: jiff::tz::TimeZone,
    /// Words for the zone in messages.
    pub zone_name: String,
}

/// Kinds of sources that a restore takes without being told to; the others only with `--source` (DESIGN §8).
pub const DATA_KINDS: [&str; 4] = ["postgres", "mongodb", "redis", "files"];

/// A new restore's id: eight letters and digits.
pub fn new_restore_id() -> String {
    use rand::RngExt as _;
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    loop {
        let bits: u64 = rand::rng().random();
        let id: String = (0..8).map(|i| char::from(ALPHABET[(bits >> (5 * i)) as usize % 32])).collect();
        // Digits alone are how people date their copies.
        if !id.bytes().all(|b| b.is_ascii_digit()) {
            return id;
        }
    }
}

/// A target as it may be shown and kept: a URL without its password.
pub fn shown_target(target: &str) -> String {
    match crate::config::postgres::masked_url(target) {
        Some(masked) => masked,
        // A URL that cannot be read may hold a password anywhere.
        None => match target.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://***"),
            None => target.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::shown_target;

    #[test]
    fn a_target_is_never_shown_with_its_password() {
        for target in
            ["postgres://u:hunter2@h/d", "postgres://u:hunter2@/d?host=/sock", "postgres://h/d?password=hunter2", "x://u:hunter2@["]
        {
            assert!(!shown_target(target).contains("hunter2"), "{}", shown_target(target));
        }
        assert_eq!(shown_target("/srv/new"), "/srv/new");
    }
}
