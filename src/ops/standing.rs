//! How a job stands by its log alone, without a clock: which sets are good, and from when their content is.

use jiff::Timestamp;

use crate::catalog::{SetEntry, State};
use crate::model::manifest::SourceEntry;
use crate::model::record::Grade;
use crate::ops::backup::OWN_SOURCE;

/// Whether a set is one to restore from: complete, and no reading of it failed.
pub fn is_good(entry: &SetEntry) -> bool {
    entry.is_good() && entry.grade(false).is_some()
}

/// The sources of a set, without drctl's own configuration.
pub fn sources(entry: &SetEntry) -> impl Iterator<Item = &SourceEntry> {
    entry.manifest.sources.iter().filter(|source| source.kind != OWN_SOURCE)
}

/// The instant that the content of a set stands for: that of its oldest source.
pub fn as_of(entry: &SetEntry) -> Timestamp {
    sources(entry).map(|source| source.as_of).min().unwrap_or(entry.manifest.started_at)
}

/// A job by its log.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// Sets that are live.
    pub sets: usize,
    /// Sets that are good and proven `read-back` or better.
    pub verified_sets: usize,
    /// Bytes they take in each store.
    pub stored_bytes: u64,
    /// The newest good set.
    pub newest_good: Option<&'a SetEntry>,
    /// A newer set that is not good, if there is one.
    pub newest_bad: Option<&'a SetEntry>,
    /// The instant from which on everything would be lost now: the worst of the groups; `None` where one has no good set.
    pub as_of: Option<Timestamp>,
    /// Groups of sources that have no good set at all.
    pub groups_without_good: Vec<String>,
}

impl<'a> Standing<'a> {
    /// Of a job whose configuration has these groups; those of its sets, where it is not known.
    pub fn of(state: &'a State, groups: Option<&[String]>) -> Standing<'a> {
        let live: Vec<&SetEntry> = state.live().collect();
        let newest_good = live.iter().rev().find(|e| is_good(e)).copied();
        // What would be lost is the worst of the groups: a fresh set of files does not stand for a stale database.
        let in_log: Vec<String> = live.iter().map(|e| e.manifest.group.clone()).collect();
        let mut names = groups.map_or(in_log, <[String]>::to_vec);
        names.sort();
        names.dedup();
        let newest_of = |group: &String| live.iter().rev().find(|e| e.manifest.group == *group && is_good(e));
        let from: Option<Vec<Timestamp>> = names.iter().map(|group| newest_of(group).map(|e| as_of(e))).collect();
        let as_of = from.and_then(|from| from.into_iter().min());
        let groups_without_good: Vec<String> = names.into_iter().filter(|group| newest_of(group).is_none()).collect();
        Standing {
            sets: live.len(),
            verified_sets: live.iter().filter(|e| e.is_good() && e.grade(false) >= Some(Grade::ReadBack)).count(),
            stored_bytes: live.iter().map(|e| e.manifest.stored_bytes()).sum(),
            newest_good,
            newest_bad: live
                .iter()
                .rfind(|e| !e.is_safety())
                .copied()
                .filter(|last| newest_good.is_none_or(|good| good.number < last.number)),
            as_of,
            groups_without_good,
        }
    }

    /// Seconds of work that would be lost at `now`.
    pub fn rpo_seconds(&self, now: Timestamp) -> Option<i64> {
        self.as_of.map(|from| now.as_second() - from.as_second())
    }
}
