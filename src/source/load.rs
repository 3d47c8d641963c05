//! The way back: loading beside the live data, counting, switching, undoing.
//!
//! A loader changes the live data in [`Loader::switch`] only (or in [`Loader::load`] when the request says `in_place`).
//! Whatever it makes or moves it notes in the [`Journal`] *before* doing it, so that another process can finish, undo or clean up
//! after a crash at any point.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Kind, Result};
use crate::model::{Artifact, Facts};
use crate::pipeline::plain::{Plain, PlainReceiver};
use crate::source::RunContext;

/// A way to have an artifact's plain stream once more; without one, it can be read once only.
#[derive(Clone, Default)]
pub struct Rereads(Option<mpsc::Sender<oneshot::Sender<PlainReceiver>>>);

impl Rereads {
    /// Asks whoever holds the other end of this channel for streams.
    pub fn of(ask: mpsc::Sender<oneshot::Sender<PlainReceiver>>) -> Rereads {
        Rereads(Some(ask))
    }

    /// The stream from its start; `None` where it cannot be had again.
    pub async fn open(&self) -> Option<PlainReceiver> {
        let (reply, answer) = oneshot::channel();
        self.0.as_ref()?.send(reply).await.ok()?;
        answer.await.ok()
    }
}

impl std::fmt::Debug for Rereads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rereads({})", if self.0.is_some() { "possible" } else { "none" })
    }
}

/// Something of an artifact that could not be loaded; all the rest of it was.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LoadProblem {
    /// The artifact's true name: a database's.
    pub artifact: String,
    /// What is missing: `INDEX public.a_idx`.
    pub object: String,
    /// The statement that makes it; without what may hold a password.
    pub statement: String,
    /// Why it failed, in the server's words, without rows.
    pub reason: String,
}

/// One artifact to load.
#[derive(Clone, Debug)]
pub struct LoadArtifact {
    /// As the manifest has it.
    pub artifact: Artifact,
    /// Its true name in the source: a database's name, `globals`, `tree` …
    pub name: String,
    /// What the inspector counted when it was dumped.
    pub facts: Facts,
    /// Its stream again, for what can be loaded only once the rest is there.
    pub rereads: Rereads,
}

/// What is written to a folder of this machine before the load begins: a safety set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Where.
    pub folder: PathBuf,
    /// How much, as far as earlier ones tell.
    pub bytes: u64,
}

impl Growth {
    /// What of these goes to the disk that `place` is on.
    pub fn beside(all: &[Growth], place: &Path) -> u64 {
        let disk = |path: &Path| path.ancestors().find_map(|path| std::fs::metadata(path).ok()).map(|found| found.dev());
        let here = disk(place);
        all.iter().filter(|growth| here.is_some() && disk(&growth.folder) == here).map(|growth| growth.bytes).sum()
    }
}

/// What is to be loaded, from one source of one set.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// Short id of this restore, `[a-z0-9]{4,16}`; part of every name the loader makes.
    pub restore: String,
    /// The source's name in the set.
    pub source: String,
    /// What to load, in the set's order.
    pub artifacts: Vec<LoadArtifact>,
    /// What the source's session gave as details.
    pub details: Value,
    /// The instant the content stands for.
    pub as_of: Timestamp,
    /// Load over the live data instead of beside it.
    pub in_place: bool,
    /// What takes room before that load begins.
    pub grows: Vec<Growth>,
    /// Load under the live name, with the live data out of use meanwhile, whatever needs that or not.
    pub exchange_first: bool,
    /// Load into another place (a URL for databases, a folder for files) instead of where it came from.
    pub target: Option<String>,
}

/// What a load would do; made without changing anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LoadPlan {
    /// Where it goes, one line for people: `PostgreSQL 15.18 at 127.0.0.1:5432`.
    pub target: String,
    /// What ties that place to one real thing, in the words of [`crate::source::Session::identity`]; empty where nothing does.
    pub identity: BTreeMap<String, String>,
    /// What will be touched, a line each: `database shop: 1.0 GiB live, kept as shop_drctl_old_7k3q`.
    pub touches: Vec<String>,
    /// Whether something live is put aside by the switch, to be had back by an undo.
    pub exchanges: bool,
    /// Names of artifacts that are not loaded at all; `touches` says why.
    pub leaves: Vec<String>,
    /// Names of artifacts whose live counterpart is dropped before the load: what is live there must be safe elsewhere by then.
    pub drops: Vec<String>,
    /// Lines to type once the restore is done, each with what it is for.
    pub afterwards: Vec<String>,
    /// Worth knowing before saying yes.
    pub warnings: Vec<String>,
    /// Why it cannot work; anything here refuses the restore (exit 4) with nothing changed. With the line that mends it.
    pub refusals: Vec<String>,
}

/// Steps of one restore of one source, kept durably by whoever runs the restore.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Notes a value under a key, durably before it returns; an earlier value of the key is replaced.
    async fn note(&self, key: &str, value: Value) -> Result<()>;

    /// What was noted.
    fn get(&self, key: &str) -> Option<Value>;
}

/// Reads a stream to its end for nothing but to know that it is whole.
pub async fn drained(mut input: PlainReceiver) -> Result<()> {
    loop {
        match input.next().await {
            Some(Plain::End) => return Ok(()),
            Some(_) => {}
            None => return Err(Error::new(Kind::Stopped, "the artifact broke off")),
        }
    }
}

/// Something that a source's artifacts can be loaded into.
#[async_trait]
pub trait Loader: Send + Sync {
    /// Looks at set and target and says what would happen, changing nothing.
    async fn plan(&self, request: &LoadRequest, context: &RunContext) -> Result<LoadPlan>;

    /// Tries as much of a load in place as can be tried while the live data is untouched, and leaves nothing behind. What it returns would be
    /// missing after the load. Reads the stream to its end.
    async fn rehearse(
        &self,
        _request: &LoadRequest,
        _artifact: &LoadArtifact,
        input: PlainReceiver,
        _journal: &dyn Journal,
        _context: &RunContext,
    ) -> Result<Vec<LoadProblem>> {
        drained(input).await.map(|()| Vec::new())
    }

    /// Loads one artifact from its plain stream, beside the live data (or over it when `in_place`). The stream is cut short
    /// (`None` before `End`) when anything about the artifact is found bad: then the load must fail.
    ///
    /// What it returns is missing although all the rest is there: a person decides whether that will do.
    async fn load(
        &self,
        request: &LoadRequest,
        artifact: &LoadArtifact,
        input: PlainReceiver,
        journal: &dyn Journal,
        context: &RunContext,
    ) -> Result<Vec<LoadProblem>>;

    /// Counts what was loaded, in the shape of the dump's facts: totals and names that can be counted at the target, others left out.
    async fn count(&self, request: &LoadRequest, artifact: &LoadArtifact, journal: &dyn Journal, context: &RunContext) -> Result<Facts>;

    /// Puts what was loaded in the live data's place; keeps the old data aside. Nothing to do when `in_place`. May be repeated.
    async fn switch(&self, request: &LoadRequest, journal: &dyn Journal, context: &RunContext) -> Result<()>;

    /// In place: what was loaded of this artifact lacks something, is counted, and was accepted; what was live there is gone. Puts it in that
    /// place now, whatever becomes of the others. Nothing to do for what is in its place already. May be repeated; a cancel does not break it off.
    async fn take(&self, _request: &LoadRequest, _artifact: &LoadArtifact, _journal: &dyn Journal, _context: &RunContext) -> Result<()> {
        Ok(())
    }

    /// Removes what a load left that was never switched in. May be repeated.
    async fn discard(&self, journal: &dyn Journal, context: &RunContext) -> Result<()>;

    /// Puts the old data back; what was written since the switch is kept aside too. Returns a line for each thing done. May be repeated.
    async fn undo(&self, journal: &dyn Journal, context: &RunContext) -> Result<Vec<String>>;

    /// Drops what was kept aside. Returns a line for each thing done. May be repeated.
    async fn finish(&self, journal: &dyn Journal, context: &RunContext) -> Result<Vec<String>>;

    /// What is kept aside: a line each with its size where that is known.
    async fn kept(&self, journal: &dyn Journal, context: &RunContext) -> Result<Vec<String>>;

    /// A sentence when the place is proven to be another one by now (a server built anew under the same address): then nothing of what the
    /// journal tells is there. `None` when it is the same, or nothing tells.
    async fn elsewhere(&self, _journal: &dyn Journal, _context: &RunContext) -> Result<Option<String>> {
        Ok(None)
    }

    /// What the restore may have left, a line each, as far as the journal and this machine tell: the place need not be there any more.
    fn traces(&self, journal: &dyn Journal) -> Vec<String>;
}
