//! Which sets, and which sources of each, a restore takes.
//!
//! A job whose sources have schedules of their own makes a set for each group. A date joins the newest good set of each group
//! (FORMAT, Keys); a partial set is taken only by its id, or for a source that is whole in it and was named.

use jiff::Timestamp;

use crate::catalog::select::{self, When};
use crate::catalog::{JobLog, SetEntry};
use crate::error::{Error, Kind, Result};
use crate::model::{Manifest, SetState};
use crate::ops::backup::OWN_SOURCE;
use crate::ops::choose::{self, Wanted};
use crate::ops::restore::{DATA_KINDS, RestoreOptions};

/// A set and the sources to take from it.
pub struct Pick<'a> {
    /// The set.
    pub entry: &'a SetEntry,
    /// Names of sources, databases before files.
    pub sources: Vec<String>,
}

/// What is taken, and a line for each source that is not.
pub struct Picked<'a> {
    /// Sets, the one that the date means first.
    pub picks: Vec<Pick<'a>>,
    /// `environment: --source environment`.
    pub left_out: Vec<String>,
}

/// Chooses. [`Kind::NoSuchSet`] when there is nothing as asked for.
pub fn pick<'a>(log: &'a JobLog, options: &RestoreOptions, now: Timestamp) -> Result<Picked<'a>> {
    let entries = match &options.wanted {
        Wanted::Set(_) => vec![choose::set(log, &options.wanted, None, now, &options.zone)?],
        Wanted::Date(text) => {
            let when = When::parse(text, now)?;
            if options.sources.is_empty() { by_group(log, &when, options)? } else { by_source(log, &when, options)? }
        }
    };
    for name in &options.sources {
        if !entries.iter().any(|e| has(&e.manifest, name)) {
            return Err(no_such_source(&entries, name));
        }
    }
    let mut picked = Picked { picks: Vec::new(), left_out: Vec::new() };
    let mut seen: Vec<&str> = Vec::new();
    // A source that stands in several of the sets comes from the newest.
    let mut newest_first = entries.clone();
    newest_first.sort_by_key(|e| std::cmp::Reverse(e.number));
    let mut wanted: Vec<(u64, String)> = Vec::new();
    for entry in newest_first {
        for source in entry.manifest.sources.iter().filter(|s| s.kind != OWN_SOURCE || options.sources.contains(&s.name)) {
            if seen.contains(&source.name.as_str()) {
                continue;
            }
            seen.push(&source.name);
            let asked = if options.sources.is_empty() {
                DATA_KINDS.contains(&source.kind.as_str())
            } else {
                options.sources.contains(&source.name)
            };
            if !has(&entry.manifest, &source.name) {
                picked.left_out.push(format!("{}: nothing of it is in this set", source.name));
            } else if asked {
                wanted.push((entry.number, source.name.clone()));
            } else {
                picked.left_out.push(format!("{0}: --source {0}", source.name));
            }
        }
    }
    for entry in &entries {
        let mut sources: Vec<String> = wanted.iter().filter(|(number, _)| *number == entry.number).map(|(_, name)| name.clone()).collect();
        // Databases before files: these are quick to exchange once those are ready.
        sources.sort_by_key(|name| entry.manifest.source(name).is_some_and(|s| s.kind == "files"));
        if !sources.is_empty() {
            picked.picks.push(Pick { entry, sources });
        }
    }
    if picked.picks.is_empty() {
        let set = entries.first().map(|e| e.id().to_string()).unwrap_or_default();
        return Err(Error::new(Kind::NoSuchSet, format!("{set} holds no database and no files"))
            .hint(format!("name what to restore: {}", picked.left_out.join(", "))));
    }
    Ok(picked)
}

/// The set that the date means, and the newest of each other group that joins it.
fn by_group<'a>(log: &'a JobLog, when: &When, options: &RestoreOptions) -> Result<Vec<&'a SetEntry>> {
    let state = log.state();
    let first = select::choose(state, None, when, &options.zone)?;
    let joining = select::joining(when, &options.zone);
    let mut entries = vec![first];
    for group in select::groups(state).into_iter().filter(|group| *group != first.manifest.group) {
        if let Ok(entry) = select::choose(state, Some(group), &joining, &options.zone) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// For sources that were named: the newest set in which each is whole, be it partial in others.
fn by_source<'a>(log: &'a JobLog, when: &When, options: &RestoreOptions) -> Result<Vec<&'a SetEntry>> {
    let candidates = |name: &str| -> Vec<&'a SetEntry> {
        let fits = |e: &&SetEntry| {
            let whole = e.manifest.source(name).is_some_and(|s| s.problems.is_empty()) && has(&e.manifest, name);
            whole && !matches!(e.manifest.state, SetState::Suspect { .. })
        };
        log.state().live().filter(fits).collect()
    };
    let joining = select::joining(when, &options.zone);
    let mut entries: Vec<&SetEntry> = Vec::new();
    let mut strict = false;
    let mut missing = None;
    for name in &options.sources {
        let among = format!(" with source {name} whole");
        match select::choose_among(candidates(name), &among, when, &options.zone) {
            Ok(entry) => {
                strict = true;
                entries.push(entry);
            }
            Err(error) => {
                // Another source of the same restore may be of this day; then this one joins it.
                match select::choose_among(candidates(name), &among, &joining, &options.zone) {
                    Ok(entry) => entries.push(entry),
                    Err(_) => return Err(error),
                }
                missing.get_or_insert(error);
            }
        }
    }
    match missing {
        Some(error) if !strict => Err(error),
        _ => {
            entries.sort_by_key(|e| std::cmp::Reverse(e.number));
            entries.dedup_by_key(|e| e.number);
            Ok(entries)
        }
    }
}

/// Whether anything of a source is in the set.
fn has(manifest: &Manifest, source: &str) -> bool {
    manifest.artifacts.iter().any(|a| a.source == source)
}

fn no_such_source(entries: &[&SetEntry], name: &str) -> Error {
    let mut known: Vec<&str> = Vec::new();
    for source in entries.iter().flat_map(|e| &e.manifest.sources).filter(|s| s.kind != OWN_SOURCE) {
        if !known.contains(&source.name.as_str()) {
            known.push(&source.name);
        }
    }
    let set = entries.first().map(|e| e.id().to_string()).unwrap_or_default();
    Error::new(Kind::NoSuchSet, format!("{set} has nothing of a source '{name}'")).hint(format!("its sources are: {}", known.join(", ")))
}
