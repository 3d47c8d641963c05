//! Small signed files that are numbered from 1: `repository/0001.json`, `keys/0001.json`.
//!
//! Whoever may write to the store may put anything there. So the look is bounded, sizes come from the listing, and what is none of drctl's
//! files is passed over and named.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::error::{Kind, Result};
use crate::store::{Entry, Store};

/// Largest file of this sort in bytes; nothing larger is read.
pub const LONGEST: u64 = 64 << 10;

/// Largest key file: one that revokes keys names the head of every job's log.
pub const LONGEST_KEY: u64 = 1 << 20;

/// After so many that do not verify, or so many bytes of them, no more are read.
pub const MOST_ODD: usize = 100;
pub(crate) const MOST_ODD_BYTES: u64 = 8 << 20;

/// Entries of one listing. Where there are more, the numbers are asked for one by one.
const PAGE: usize = 1000;

/// So many numbers in a row without a file are the end, where the numbers are asked for.
const HOLE: u64 = 20;

/// Something in the store that is none of drctl's and is passed over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Odd {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

impl Odd {
    pub(crate) fn new(key: impl Into<String>, why: impl Into<String>) -> Odd {
        Odd { key: key.into(), why: why.into() }
    }
}

impl std::fmt::Display for Odd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.key.escape_debug(), self.why)
    }
}

/// A file that may be one, by its name and size.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) number: u64,
    pub(crate) key: String,
    pub(crate) bytes: u64,
    pub(crate) modified: Timestamp,
}

impl Candidate {
    /// As the listing shows it.
    pub(crate) fn entry(&self) -> Entry {
        Entry { key: self.key.clone(), bytes: self.bytes, modified: self.modified }
    }

    /// Tells it from another that takes its place.
    pub(crate) fn identity(&self) -> (String, u64, Timestamp) {
        (self.key.clone(), self.bytes, self.modified)
    }
}

/// What lies below a folder.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// By number.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) odd: Vec<Odd>,
}

/// Looks at what lies below `folder`, with one listing and, where that is full, with requests for single numbers.
pub(crate) async fn look(store: &dyn Store, folder: &str, key_of: fn(u64) -> String, longest: u64) -> Result<Looked> {
    let prefix = format!("{folder}/");
    // Behind everything before number 1.
    let page = store.list(&prefix, Some(&format!("{prefix}0000~")), PAGE).await?;
    let full = page.len() == PAGE;
    let mut looked = Looked::default();
    let mut found = BTreeMap::new();
    for entry in page {
        let number = entry.key.strip_prefix(&prefix).and_then(|name| name.strip_suffix(".json")?.parse::<u64>().ok());
        match number.filter(|number| key_of(*number) == entry.key) {
            Some(number) => {
                found.insert(number, (entry.bytes, entry.modified));
            }
            None => looked.odd.push(Odd::new(entry.key, "no name that drctl gives")),
        }
    }
    if full {
        let (mut number, mut missing) = (0, 0);
        while missing < HOLE && number < PAGE as u64 {
            number += 1;
            if found.contains_key(&number) {
                missing = 0;
                continue;
            }
            match store.head(&key_of(number)).await {
                Ok(head) => {
                    missing = 0;
                    found.insert(number, (head.bytes, head.modified));
                }
                Err(e) if e.kind() == Kind::NotFound => missing += 1,
                Err(e) => return Err(e),
            }
        }
    }
    for (number, (bytes, modified)) in found {
        let key = key_of(number);
        match bytes {
            0 => looked.odd.push(Odd::new(key, "it holds nothing")),
            _ if bytes > longest => looked.odd.push(Odd::new(key, format!("{bytes} bytes, more than any such file has"))),
            _ => looked.candidates.push(Candidate { number, key, bytes, modified }),
        }
    }
    Ok(looked)
}
