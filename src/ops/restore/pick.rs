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
    /// Worth knowing before saying yes.
    pub warnings: Vec<String>,
}

/// Chooses. [`Kind::NoSuchSet`] when there is nothing as asked for. `groups` are those of the configuration, where it knows the job.
pub fn pick<'a>(log: &'a JobLog, options: &RestoreOptions, groups: Option<&[String]>, now: Timestamp) -> Result<Picked<'a>> {
    let mut picked = Picked { picks: Vec::new(), left_out: Vec::new(), warnings: Vec::new() };
    let chosen = match (&options.wanted, options.sources.is_empty()) {
        (Wanted::Set(_), true) => all_of(vec![choose::set(log, &options.wanted, None, now, &options.zone)?], &mut picked),
        (Wanted::Set(_), false) => named(choose::set(log, &options.wanted, None, now, &options.zone)?, options)?,
        (Wanted::Date(text), true) => all_of(by_group(log, &When::parse(text, now)?, options, groups, &mut picked)?, &mut picked),
        (Wanted::Date(text), false) => by_source(log, &When::parse(text, now)?, options)?,
    };
    for (entry, source) in chosen {
        match picked.picks.iter_mut().find(|p| p.entry.number == entry.number) {
            Some(pick) => pick.sources.push(source),
            None => picked.picks.push(Pick { entry, sources: vec![source] }),
        }
    }
    for pick in &mut picked.picks {
        // Databases before files: these are quick to exchange once those are ready.
        let manifest = &pick.entry.manifest;
        pick.sources.sort_by_key(|name| manifest.source(name).is_some_and(|s| s.kind == "files"));
    }
    if picked.picks.is_empty() {
        return Err(Error::new(Kind::NoSuchSet, "the set holds no database and no files")
            .hint(format!("name what to restore: {}", picked.left_out.join(", "))));
    }
    Ok(picked)
}

/// A set and the name of a source to take from it.
type Chosen<'a> = (&'a SetEntry, String);

/// Databases and files of these sets; a source that stands in several comes from the newest.
fn all_of<'a>(entries: Vec<&'a SetEntry>, picked: &mut Picked<'a>) -> Vec<Chosen<'a>> {
    let mut newest_first: Vec<&SetEntry> = entries.clone();
    newest_first.sort_by_key(|e| std::cmp::Reverse(e.number));
    let mut owner: Vec<(&str, u64)> = Vec::new();
    for entry in newest_first {
        for source in entry.manifest.sources.iter().filter(|s| has(&entry.manifest, &s.name)) {
            if !owner.iter().any(|(name, _)| *name == source.name) {
                owner.push((&source.name, entry.number));
            }
        }
    }
    let mut chosen = Vec::new();
    for entry in entries {
        for source in entry.manifest.sources.iter().filter(|s| s.kind != OWN_SOURCE) {
            let owned = owner.iter().find(|(name, _)| *name == source.name);
            match owned {
                None => picked.left_out.push(format!("{}: nothing of it is in this set", source.name)),
                Some((_, number)) if *number != entry.number => {}
                Some(_) if DATA_KINDS.contains(&source.kind.as_str()) => chosen.push((entry, source.name.clone())),
                Some(_) => picked.left_out.push(format!("{0}: --source {0}", source.name)),
            }
        }
    }
    chosen
}

/// The named sources of one set.
fn named<'a>(entry: &'a SetEntry, options: &RestoreOptions) -> Result<Vec<Chosen<'a>>> {
    let missing = options.sources.iter().find(|name| !has(&entry.manifest, name));
    match missing {
        Some(name) => Err(no_such_source(&[entry], name)),
        None => Ok(options.sources.iter().map(|name| (entry, name.clone())).collect()),
    }
}

/// The set that the date means, and the newest of each other group that joins it.
fn by_group<'a>(
    log: &'a JobLog,
    when: &When,
    options: &RestoreOptions,
    groups: Option<&[String]>,
    picked: &mut Picked<'a>,
) -> Result<Vec<&'a SetEntry>> {
    let state = log.state();
    let joining = select::joining(when, &options.zone);
    let known: Vec<&str> = select::groups(state).into_iter().collect();
    // A bare date means the main group's own set of that day where there is such a group, never another's alone.
    let first = match known.iter().find(|g| **g == MAIN_GROUP) {
        Some(main) => select::choose(state, Some(main), when, &options.zone)?,
        None => select::choose(state, None, when, &options.zone)?,
    };
    let mut entries = vec![first];
    for group in known.into_iter().filter(|group| *group != first.manifest.group) {
        if groups.is_some_and(|configured| !configured.iter().any(|g| g == group)) {
            picked.left_out.push(format!("group {group}: it is not in the configuration any more; its sets go by their ids"));
            continue;
        }
        match select::choose(state, Some(group), &joining, &options.zone) {
            Ok(entry) => {
                let apart = (entry.id().at().as_second() - first.id().at().as_second()).abs();
                if apart >= 86_400 {
                    picked.warnings.push(format!("{} lies {} days from {}", entry.id(), apart / 86_400, first.id()));
                }
                entries.push(entry);
            }
            Err(error) => picked.left_out.push(format!("group {group}: {error}")),
        }
    }
    Ok(entries)
}

/// The group of all sources without a schedule of their own.
const MAIN_GROUP: &str = crate::config::MAIN_GROUP;

/// For sources that were named: the newest set in which each is whole, be it partial in others.
fn by_source<'a>(log: &'a JobLog, when: &When, options: &RestoreOptions) -> Result<Vec<Chosen<'a>>> {
    let live: Vec<&SetEntry> = log.state().live().collect();
    let candidates = |name: &str| -> Vec<&'a SetEntry> {
        let fits = |e: &&SetEntry| {
            let whole = e.manifest.source(name).is_some_and(|s| s.problems.is_empty()) && has(&e.manifest, name);
            whole && !matches!(e.manifest.state, SetState::Suspect { .. }) && !e.is_safety()
        };
        log.state().live().filter(fits).collect()
    };
    let joining = select::joining(when, &options.zone);
    let (mut chosen, mut strict, mut missing) = (Vec::new(), false, None);
    for name in &options.sources {
        if !live.iter().any(|e| e.manifest.source(name).is_some()) {
            live.last().map_or(Ok(()), |newest| Err(no_such_source(&[newest], name)))?;
        }
        let among = format!(" with source {name} whole");
        match select::choose_among(candidates(name), &among, when, &options.zone) {
            Ok(entry) => {
                strict = true;
                chosen.push((entry, name.clone()));
            }
            Err(error) => {
                // Another source of the same restore may be of this day; then this one joins it.
                match select::choose_among(candidates(name), &among, &joining, &options.zone) {
                    Ok(entry) => chosen.push((entry, name.clone())),
                    Err(_) => return Err(select::name_others(error, log.state(), None, when, &options.zone)),
                }
                missing.get_or_insert(error);
            }
        }
    }
    match missing {
        Some(error) if !strict => Err(error),
        _ => {
            chosen.sort_by_key(|(entry, _)| std::cmp::Reverse(entry.number));
            Ok(chosen)
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
