//! What a dump met on its way: kept for the manifest, the details and the restore.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::source::files::sys::shown;

/// Longest list kept in the details; what is beyond is counted.
const MAX_LISTED: usize = 10_000;

/// Most single sentences put into the manifest.
const MAX_SAID: usize = 20;

/// A list that is cut off, not endless.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    /// Path and what is said of it.
    pub entries: Vec<(String, String)>,
    /// How many more there were.
    pub more: u64,
}

impl Listed {
    /// Adds a path and a word about it.
    pub fn add(&mut self, path: &[u8], what: impl Into<String>) {
        if self.entries.len() < MAX_LISTED {
            self.entries.push((shown(path), what.into()));
        } else {
            self.more += 1;
        }
    }

    /// How many there were.
    pub fn len(&self) -> u64 {
        self.entries.len() as u64 + self.more
    }

    /// One sentence each, and one for the rest.
    pub fn sentences(&self, say: impl Fn(&str, &str) -> String) -> Vec<String> {
        let mut out: Vec<String> = self.entries.iter().take(MAX_SAID).map(|(path, what)| say(path, what)).collect();
        let rest = self.len() - out.len() as u64;
        if rest > 0 {
            out.push(format!("{rest} more like the last; the details list them"));
        }
        out
    }
}

/// Everything worth noting about one dump. Paths are absolute and made printable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Sockets, fifos, devices, leftovers of restores: left out on purpose.
    pub skipped: Listed,
    /// Those of them that are no leftovers and that no pattern leaves out.
    pub special: Listed,
    /// Other file systems below a root that were not entered.
    pub mounts: Listed,
    /// Could not be read, or not to the end: the set is not whole.
    pub unreadable: Listed,
    /// Content is in the set, extended attributes could not be read: the set is not whole.
    pub without_attributes: Listed,
    /// Names of files with several names that are stored as files of their own: there were too many to remember.
    pub links_cut: u64,
    /// Changed while read.
    pub changed: Listed,
    /// Gone between being listed and being read.
    pub vanished: Listed,
    /// Names of the owners seen, by number.
    pub users: BTreeMap<u32, String>,
    /// Names of the groups seen, by number.
    pub groups: BTreeMap<u32, String>,
    /// Entries that are not folders.
    pub things: u64,
    /// Paths below which nothing was found.
    pub empty_roots: Vec<String>,
}

impl Report {
    /// For [`crate::source::Session::problems`].
    pub fn problems(&self) -> Vec<String> {
        let mut out = self.unreadable.sentences(|path, why| format!("{path} could not be read: {why}"));
        out.extend(self.without_attributes.sentences(|path, why| format!("the extended attributes of {path} could not be read: {why}")));
        out
    }

    /// For [`crate::source::Session::warnings`].
    pub fn warnings(&self) -> Vec<String> {
        let mut out = self.changed.sentences(|path, what| format!("{path} changed while it was read: {what}"));
        out.extend(self.vanished.sentences(|path, what| format!("{path} {what}")));
        out.extend(self.mounts.sentences(|path, what| format!("{path} is {what} and was not entered (one_file_system)")));
        if self.links_cut > 0 {
            out.push(format!("{} further names of files with several names are stored as files of their own", self.links_cut));
        }
        out.extend(self.special());
        out.extend(
            self.skipped
                .entries
                .iter()
                .filter(|(_, what)| what == LEFTOVER)
                .take(MAX_SAID)
                .map(|(path, what)| format!("{path} was left out: {what}")),
        );
        out
    }

    /// One line for all that is no file, folder or link: only the program that made it can make it again.
    fn special(&self) -> Option<String> {
        let named: Vec<String> = self.special.entries.iter().take(MAX_NAMED).map(|(path, what)| format!("{path} ({what})")).collect();
        let (count, names) = (self.special.len(), named.join(", "));
        let more = if count > named.len() as u64 { ", …" } else { "" };
        (count > 0).then(|| format!("what is neither file, folder nor link is not in the set ({count}): {names}{more}"))
    }
}

/// Most sockets, fifos and devices that are named.
const MAX_NAMED: usize = 5;

/// What is said of trees that a restore laid beside live data.
pub(crate) const LEFTOVER: &str = "kept by an earlier restore; drctl restore --finish removes it";

/// What stands in the list of what was skipped for the state file of this very process.
pub(crate) const OWN_STATE: &str = "drctl's own state file, which is in use; no set depends on it";
