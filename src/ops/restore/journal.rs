//! What a restore did, kept in the state file so that another process can finish, undo or clean up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::SetId;
use crate::source::load::Journal;
use crate::state::{Held, Process, RestoreLock, StateFile};

/// How far a restore has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Loading beside the live data, which is untouched.
    Loading,
    /// Putting what was loaded in the live data's place; it may be half done.
    Switching,
    /// Live; the old data is kept aside.
    Switched,
    /// Loading over the live data.
    InPlace,
    /// The old data is live again.
    Undone,
    /// Nothing is kept aside any more.
    Finished,
    /// It came to nothing and what it made is gone.
    Discarded,
    /// A person gave it up: what it left is nobody's business here any more.
    Forgotten,
}

impl Phase {
    /// In words for people. Of a restore that stands, [`RestoreNote::words`] knows more.
    pub fn words(self) -> &'static str {
        match self {
            Phase::Loading => "interrupted while loading; the live data is untouched",
            Phase::Switching => "interrupted in the switch",
            Phase::Switched => "live, the old data kept aside",
            Phase::InPlace => "interrupted while loading in place; the live data may be overwritten in part",
            Phase::Undone => "undone, its data kept aside",
            Phase::Finished => "finished",
            Phase::Discarded => "discarded",
            Phase::Forgotten => "given up",
        }
    }

    /// Whether something of the restore may still lie beside the live data.
    pub fn leaves_something(self) -> bool {
        !matches!(self, Phase::Finished | Phase::Discarded | Phase::Forgotten)
    }
}

/// One restore as a whole; kept under the empty source name and the key `restore`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestoreNote {
    /// Its id.
    pub restore: String,
    /// The set it reads.
    pub set: SetId,
    /// Names and kinds of its sources, in order.
    pub sources: Vec<(String, String)>,
    /// The target, where it is not the place the set came from.
    pub target: Option<String>,
    /// Whether databases were loaded over the live ones: then only files can be undone.
    pub in_place: bool,
    /// Whether databases were loaded under their live names, what was live put aside first. Absent in notes of older versions.
    #[serde(default)]
    pub exchange_first: bool,
    /// How far it has come.
    pub phase: Phase,
    /// The process that runs or ran it.
    pub process: Process,
    /// Whether it holds the lock of its id while it runs: then the lock tells whether it does. Notes of older versions, and those on a
    /// filesystem without locks, have the process alone.
    #[serde(default)]
    pub locked: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// When the switch was done.
    pub switched_at: Option<Timestamp>,
    /// Seconds from start to switch.
    pub elapsed_seconds: Option<f64>,
    /// By source: what its data went into, in the words of a manifest's identity; absent in notes of older versions.
    #[serde(default)]
    pub identities: BTreeMap<String, BTreeMap<String, String>>,
    /// How many objects it could not load, as far as it came.
    #[serde(default)]
    pub load_errors: usize,
}

/// Where a restore as a whole is noted.
const WHOLE: &str = "";
const NOTE: &str = "restore";

impl RestoreNote {
    /// Whether it is at work, in whatever container: neither it nor what it made may be touched by another process.
    pub fn is_running(&self, state: &StateFile) -> bool {
        if !matches!(self.phase, Phase::Loading | Phase::Switching | Phase::InPlace) {
            return false;
        }
        match state.restore_is_held(&self.restore) {
            Ok(Held::Yes) => true,
            Ok(Held::No) if self.locked => false,
            // A lock that cannot be looked at is no proof that nobody has it.
            Err(_) if self.locked => true,
            _ => self.process.is_alive(),
        }
    }

    /// Whether it brings back every source that `other` was about.
    pub fn covers(&self, other: &RestoreNote) -> bool {
        self.set.job() == other.set.job() && other.sources.iter().all(|source| self.sources.contains(source))
    }

    /// How far it has come, in words for people.
    pub fn words(&self) -> &'static str {
        match self.phase {
            Phase::Loading if self.exchange_first => {
                "interrupted while loading under the live name; what was live before may be put aside until this restore is undone"
            }
            phase => phase.words(),
        }
    }

    /// Keeps it.
    pub fn save(&self, state: &StateFile) -> Result<()> {
        let value = serde_json::to_value(self).map_err(|e| Error::failed("note the restore").because(e))?;
        state.journal_note(&self.restore, WHOLE, NOTE, &value)
    }

    /// Every restore that is known, oldest first. One that cannot be read is left out.
    pub fn all(state: &StateFile) -> Result<Vec<RestoreNote>> {
        let mut notes = Vec::new();
        for restore in state.journal_restores()? {
            if let Some(value) = state.journal_get(&restore, WHOLE, NOTE)?
                && let Ok(note) = serde_json::from_value::<RestoreNote>(value)
            {
                notes.push(note);
            }
        }
        notes.sort_by_key(|n| n.started_at);
        Ok(notes)
    }
}

/// An earlier restore in the hands of this process alone.
pub(super) struct Claimed {
    pub(super) note: RestoreNote,
    _lock: RestoreLock,
}

/// Takes an earlier restore in hand, as it stands by then. `None` while another process runs it or works on it.
pub(super) fn claim(state: &StateFile, note: &RestoreNote) -> Result<Option<Claimed>> {
    // By its process, where a note has no lock; and before this process holds the lock itself.
    if note.is_running(state) {
        return Ok(None);
    }
    let Some(lock) = state.hold_restore(&note.restore)? else { return Ok(None) };
    let now = RestoreNote::all(state)?.into_iter().find(|now| now.restore == note.restore);
    Ok(now.map(|note| Claimed { note, _lock: lock }))
}

/// The journal of one source of one restore. What was noted is read once, at the start: a state file that cannot be read is an
/// error then, never an empty journal.
pub struct SourceJournal {
    state: Arc<StateFile>,
    restore: String,
    source: String,
    noted: Mutex<BTreeMap<String, Value>>,
}

impl SourceJournal {
    /// Opens the journal of `source` in restore `restore`.
    pub fn open(state: Arc<StateFile>, restore: &str, source: &str) -> Result<Self> {
        let noted = state.journal_all(restore, source)?.into_iter().collect();
        Ok(SourceJournal { state, restore: restore.to_owned(), source: source.to_owned(), noted: Mutex::new(noted) })
    }

    /// Whether nothing was noted: then nothing was made either.
    pub fn is_empty(&self) -> bool {
        self.noted().is_empty()
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Value>> {
        self.noted.lock().unwrap_or_else(|p| p.into_inner())
    }
}

#[async_trait]
impl Journal for SourceJournal {
    async fn note(&self, key: &str, value: Value) -> Result<()> {
        let (state, restore, source) = (self.state.clone(), self.restore.clone(), self.source.clone());
        let (key_text, kept) = (key.to_owned(), value.clone());
        let noting = tokio::task::spawn_blocking(move || state.journal_note(&restore, &source, &key_text, &value));
        noting.await.map_err(|e| Error::failed("the journal broke down").because(e))??;
        self.noted().insert(key.to_owned(), kept);
        Ok(())
    }

    fn get(&self, key: &str) -> Option<Value> {
        self.noted().get(key).cloned()
    }
}
