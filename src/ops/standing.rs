//! How a job stands by its log alone, without a clock: which sets are good, and from when their content is.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::catalog::log::record_key;
use crate::catalog::{JobLog, SetEntry, State};
use crate::model::clock::{CLOCKS, age_seconds};
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

/// When the records of sets came into the store, by its own clock as this host's `now` counts, by number of their commit; of some sets only,
/// or none.
pub type Stored = BTreeMap<u64, Timestamp>;

/// Asks the store for the dates of the newest good sets' records, of each group one. What it does not say is left out.
pub async fn stored_dates(log: &JobLog, groups: Option<&[String]>, now: Timestamp) -> Stored {
    let (mut dates, mut earlier) = (Stored::new(), false);
    for entry in newest(log.state(), groups).into_values().flatten() {
        if let Ok(head) = log.repository().store().head(&record_key(log.job(), entry.number)).await {
            earlier |= entry.at.duration_since(head.modified) > CLOCKS;
            dates.insert(entry.number, head.modified);
        }
    }
    // Whose clock is wrong? What this host's and the store's differ by now is no matter of the set. Asked only where it counts, for a folder
    // tells its date by a file that is made there.
    if earlier && let Ok(date) = log.server_date().await {
        let ahead = now.duration_since(date);
        dates.values_mut().for_each(|at| *at = at.checked_add(ahead).unwrap_or(*at));
    }
    dates
}

/// The newest good set of each group: those of the configuration; those of the sets, where it is not known.
fn newest<'a>(state: &'a State, groups: Option<&[String]>) -> BTreeMap<String, Option<&'a SetEntry>> {
    let in_log = || state.live().map(|entry| entry.manifest.group.clone()).collect();
    let names: Vec<String> = groups.map_or_else(in_log, <[String]>::to_vec);
    names.into_iter().map(|group| (group.clone(), state.live().rev().find(|e| e.manifest.group == group && is_good(e)))).collect()
}

/// From when on what a set holds would be lost. A store that had the record before its writer's clock says knows better; one that says later
/// may have been copied.
fn lost_from(entry: &SetEntry, stored: &Stored) -> Timestamp {
    let own = as_of(entry);
    let took = entry.at.duration_since(own).clamp(SignedDuration::ZERO, LONGEST_RUN);
    stored.get(&entry.number).and_then(|at| at.checked_sub(took).ok()).map_or(own, |by_store| own.min(by_store))
}

/// No run takes longer.
const LONGEST_RUN: SignedDuration = SignedDuration::from_hours(7 * 24);

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
    /// The latest instant that the newest good set of any group says it stands for. As long as it lies in the future it is not known how old
    /// the set is.
    pub latest: Option<Timestamp>,
    /// Groups of sources that have no good set at all.
    pub groups_without_good: Vec<String>,
}

impl<'a> Standing<'a> {
    /// Of a job whose configuration has these groups; those of its sets, where it is not known.
    pub fn of(state: &'a State, groups: Option<&[String]>, stored: &Stored) -> Standing<'a> {
        let live: Vec<&SetEntry> = state.live().collect();
        let newest_good = live.iter().rev().find(|e| is_good(e)).copied();
        // What would be lost is the worst of the groups: a fresh set of files does not stand for a stale database.
        let newest = newest(state, groups);
        let from: Option<Vec<Timestamp>> = newest.values().map(|entry| entry.map(|entry| lost_from(entry, stored))).collect();
        let latest = newest.values().flatten().map(|entry| as_of(entry)).max();
        let groups_without_good = newest.into_iter().filter(|(_, entry)| entry.is_none()).map(|(group, _)| group).collect();
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
            as_of: from.and_then(|from| from.into_iter().min()),
            latest,
            groups_without_good,
        }
    }
}

/// Seconds of work that would be lost at `now`, by [`Standing::as_of`] and [`Standing::latest`]; `None` where a group has no good set, and where
/// one is dated in the future: what nobody knows the age of is stale.
pub fn rpo_seconds(as_of: Option<Timestamp>, latest: Option<Timestamp>, now: Timestamp) -> Option<i64> {
    if is_ahead(latest, now) { None } else { age_seconds(as_of?, now) }
}

/// Whether the newest good set of a group is dated in the future.
pub fn is_ahead(latest: Option<Timestamp>, now: Timestamp) -> bool {
    latest.is_some_and(|at| age_seconds(at, now).is_none())
}
