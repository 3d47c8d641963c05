//! What a restore of files notes in its journal, and where its trees lie.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io_kind};
use crate::source::files::names::{Beside, beside, is_id};
use crate::source::files::roots::{FilesDetails, RootKind, RootRecord};
use crate::source::files::sys::{self, Identity};
use crate::source::load::Journal;

/// Journal key of [`State`].
const STATE: &str = "files.state";

/// Journal key of the stages that were loaded, in the order of the roots.
const STAGES: &str = "files.stages";

/// How a root is put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// The whole root changes places with the live one.
    Exchange,
    /// Entry by entry into the live folder: the root cannot be renamed, or the set holds only a part of it.
    Merge,
}

/// One root of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootState {
    pub record: RootRecord,
    pub mode: Mode,
    /// The folder in which the trees lie: the live path's parent, or the live path itself when it is a mount point.
    pub base: PathBuf,
    /// The live path's name in `base`; empty when it is `base` itself.
    pub name: String,
}

/// A whole restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub restore: String,
    /// Extracted below this folder instead; nothing is switched.
    pub target: Option<PathBuf>,
    /// Folders that were made for it, outermost first.
    pub made: Vec<PathBuf>,
    pub roots: Vec<RootState>,
    pub details: FilesDetails,
}

impl RootState {
    /// Where it is live.
    pub fn live(&self) -> PathBuf {
        if self.name.is_empty() { self.base.clone() } else { self.base.join(&self.name) }
    }

    /// The name of one of its trees in `base`.
    pub fn tree(&self, sort: Beside, restore: &str) -> Vec<u8> {
        beside(self.name.as_bytes(), sort, restore)
    }

    /// The full path of one of its trees.
    pub fn tree_path(&self, sort: Beside, restore: &str) -> PathBuf {
        self.base.join(OsStr::from_bytes(&self.tree(sort, restore)))
    }

    /// The list of a merge's steps.
    pub fn steps(&self, restore: &str) -> Vec<u8> {
        [self.tree(Beside::Stage, restore).as_slice(), b".steps"].concat()
    }

    /// Opens `base`.
    pub fn open_base(&self) -> Result<OwnedFd> {
        open_folder(&self.base)
    }
}

/// Opens a folder; the error names it.
pub(crate) fn open_folder(path: &Path) -> Result<OwnedFd> {
    sys::open_dir_path(path).map_err(|e| {
        let e = std::io::Error::from(e);
        Error::new(io_kind(&e), format!("open {}", path.display())).because(e)
    })
}

impl State {
    /// Reads it from the journal.
    pub fn read(journal: &dyn Journal) -> Result<Option<State>> {
        let Some(value) = journal.get(STATE) else { return Ok(None) };
        let state: State = serde_json::from_value(value).map_err(|e| Error::corrupt("the journal of a files restore").because(e))?;
        if !is_id(state.restore.as_bytes()) {
            return Err(Error::corrupt("the journal of a files restore names an impossible id"));
        }
        Ok(Some(state))
    }

    /// Notes it.
    pub async fn note(&self, journal: &dyn Journal) -> Result<()> {
        let value = serde_json::to_value(self).map_err(|e| Error::failed("write the journal").because(e))?;
        journal.note(STATE, value).await
    }
}

/// How far the switch of one root is; noted before each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "step", deny_unknown_fields)]
pub(crate) enum Switch {
    /// The exchange may have been made.
    Exchange {
        /// What was loaded.
        new: Identity,
        /// What was live; nothing when nothing was.
        old: Option<Identity>,
    },
    /// The merge's list of steps is complete; any number of them may have been made.
    Merge,
    /// The set held nothing for this root.
    Nothing,
}

/// How far a root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    pub switch: Switch,
    pub done: bool,
    pub undone: bool,
}

/// Notes what each root's stage is, once all of it is extracted; `None` where the set holds nothing for a root.
pub(crate) async fn note_stages(journal: &dyn Journal, stages: &[Option<Identity>]) -> Result<()> {
    let value = serde_json::to_value(stages).map_err(|e| Error::failed("write the journal").because(e))?;
    journal.note(STAGES, value).await
}

/// The stages noted; an error when none were: the load did not end well.
pub(crate) fn stages(journal: &dyn Journal) -> Result<Vec<Option<Identity>>> {
    let Some(value) = journal.get(STAGES) else {
        return Err(Error::failed("the files of this restore were not loaded to the end").hint("drctl restore again"));
    };
    serde_json::from_value(value).map_err(|e| Error::corrupt("the journal of a files restore").because(e))
}

fn progress_key(index: usize) -> String {
    format!("files.root.{index}")
}

/// How far root `index` is; `None` before its switch began.
pub(crate) fn progress(journal: &dyn Journal, index: usize) -> Result<Option<Progress>> {
    let Some(value) = journal.get(&progress_key(index)) else { return Ok(None) };
    serde_json::from_value(value).map(Some).map_err(|e| Error::corrupt("the journal of a files restore").because(e))
}

/// Notes how far root `index` is.
pub(crate) async fn note_progress(journal: &dyn Journal, index: usize, progress: Progress) -> Result<()> {
    let value = serde_json::to_value(progress).map_err(|e| Error::failed("write the journal").because(e))?;
    journal.note(&progress_key(index), value).await
}

/// What a set's details say, checked.
pub(crate) fn details(value: &serde_json::Value) -> Result<FilesDetails> {
    let details: FilesDetails =
        serde_json::from_value(value.clone()).map_err(|e| Error::corrupt("the set's details of the files source").because(e))?;
    for root in &details.roots {
        let sound = root.path.starts_with('/')
            && root.path.trim_start_matches('/') == root.name
            && !root.path.split('/').any(|p| p == ".." || p == ".");
        if !sound || root.path.contains('\0') || (root.kind == RootKind::File && root.name.is_empty()) {
            return Err(Error::corrupt(format!("the set's details name an impossible path '{}'", root.path.escape_debug())));
        }
    }
    Ok(details)
}
