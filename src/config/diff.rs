//! What differs between two configurations: what a reload will change. Pure.

use std::collections::BTreeMap;

use crate::config::show::{Secrets, View, view};
use crate::config::typed::Config;

/// Whether a value came, went or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Only the new configuration has it.
    Added,
    /// Only the old configuration has it.
    Removed,
    /// Both have it, with different values.
    Changed,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// What it is about, by the names of jobs, sources and stores: `jobs.shop.sources.uploads.files.paths[0]`.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// Every difference, sorted by path. A secret that stands in the configuration counts by its content; what an environment variable, a
/// file or a command gives is not looked at. Order of jobs and sources is no difference.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let (old, new) = (flat(old), flat(new));
    let mut changes = Vec::new();
    for (path, value) in &old {
        match new.get(path) {
            None => changes.push(Change { path: path.clone(), kind: ChangeKind::Removed }),
            Some(now) if now != value => changes.push(Change { path: path.clone(), kind: ChangeKind::Changed }),
            Some(_) => {}
        }
    }
    let added = new.keys().filter(|path| !old.contains_key(*path));
    changes.extend(added.map(|path| Change { path: path.clone(), kind: ChangeKind::Added }));
    changes.sort();
    changes
}

fn flat(config: &Config) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    flatten(&view(config, Secrets::Digest), String::new(), &mut out);
    out.insert("state".to_owned(), config.state.display().to_string());
    out
}

fn flatten(view: &View, at: String, out: &mut BTreeMap<String, String>) {
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match view {
        View::Map(entries) => entries.iter().for_each(|(k, v)| flatten(v, below(k), out)),
        View::Own(entries) => entries.iter().for_each(|(k, v)| flatten(v, below(k), out)),
        View::List(items) => {
            for (i, item) in items.iter().enumerate() {
                let at = name(item).map_or_else(|| format!("{at}[{i}]"), |name| below(&name));
                flatten(item, at, out);
            }
        }
        View::Text(text) | View::Raw(text) => {
            out.insert(at, text.clone());
        }
        View::Value(value) => {
            out.insert(at, value.to_string());
        }
        View::Nothing => {}
    }
}

/// What an entry of a list is called: a job by `job`, a store by `name`, a source by the `name` in its only key.
fn name(item: &View) -> Option<String> {
    let View::Map(entries) = item else { return None };
    if let Some((_, View::Text(text))) = entries.iter().find(|(key, _)| matches!(*key, "job" | "name")) {
        return Some(text.clone());
    }
    match entries.as_slice() {
        // It has no name that anyone looked at.
        [("later", View::Map(source))] => source.first().map(|(kind, _)| format!("later.{kind}")),
        [(_, inner)] => name(inner),
        _ => None,
    }
}
