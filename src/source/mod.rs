//! What is backed up and restored: one folder or file per technology.
//!
//! A [`Source`] is checked, then opened into a [`Session`] that says which artifacts there are and dumps one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::model::ArtifactFormat;
use crate::model::artifact::{Consistency, Tool};
use crate::observe::Bus;
use crate::pipeline::plain::PlainSender;

pub mod command;
pub mod compose;
mod compose_references;
pub mod environment;
pub(crate) mod environment_dotenv;
pub mod environment_load;
pub mod files;
pub mod load;
pub mod postgres;

/// What a source gets from the run it takes part in.
#[derive(Clone)]
pub struct RunContext {
    /// The run's id; tools are told it where they can show it (`application_name=drctl/<run>`).
    pub run: String,
    /// Ends everything that was started; set by a signal or a time limit.
    pub cancel: CancellationToken,
    /// Where to tell of steps and warnings.
    pub bus: Bus,
    /// Now.
    pub clock: Arc<dyn crate::model::Clock>,
}

/// What a check before the run found.
#[derive(Debug, Default)]
pub struct Preflight {
    /// Whole sentences; nothing is missing for them.
    pub warnings: Vec<String>,
    /// What of the source cannot be backed up, each by itself; the rest can. Whoever dumps it meets the same error.
    pub problems: Vec<Error>,
    /// See [`Session::left_out`].
    pub left_out: Vec<LeftOut>,
    /// What was found, in one short line for people: `PostgreSQL 15.18 at 127.0.0.1:5432, 2 databases, 1.0 GiB`.
    pub summary: String,
}

/// What a source holds and does not give out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The name that its artifact would have.
    pub artifact: String,
    /// A whole sentence.
    pub words: String,
    /// The configuration says so. Otherwise the source is not whole without it, unless a person has said that this is known.
    pub on_purpose: bool,
}

/// Something that can be backed up.
#[async_trait]
pub trait Source: Send + Sync {
    /// Its name in the job; unique there.
    fn name(&self) -> &str;

    /// `postgres`, `files`, `environment`, `compose`, `command`.
    fn kind(&self) -> &'static str;

    /// Looks whether a backup can work, changing nothing: reachable, allowed, versions fit, tools there.
    async fn preflight(&self, context: &RunContext) -> Result<Preflight>;

    /// Connects and finds out what there is to dump.
    async fn open(&self, context: &RunContext) -> Result<Box<dyn Session>>;
}

/// One artifact that a session can dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactPlan {
    /// Its true name in the source: a database's name, `globals`, `tree` …
    pub name: String,
    /// Shape of its plain stream.
    pub format: ArtifactFormat,
    /// Another first extension of its file than its format's: `[a-z0-9]{1,16}`.
    pub extension: Option<String>,
    /// Rough size of the plain stream in bytes, for progress.
    pub expected_bytes: Option<u64>,
    /// What must be encrypted, whatever the repository's default: it holds secrets by nature.
    pub secret: bool,
}

/// A source at work in one run.
#[async_trait]
pub trait Session: Send {
    /// What ties the source to one real thing, so that another under the same name is noticed (FAULTS I11).
    fn identity(&self) -> BTreeMap<String, String>;

    /// The key of [`Session::identity`] that outlives restarts and settings: under the same name another value of it is another source, and is
    /// refused. `None` where nothing does: paths change with the configuration, names of hosts with every container.
    fn bound_by(&self) -> Option<&'static str> {
        None
    }

    /// What there is to dump, in the order in which to do it.
    fn artifacts(&self) -> Vec<ArtifactPlan>;

    /// Sends the artifact's plain bytes and returns only when all of it was sent and the tool that made it ended well.
    ///
    /// An error voids the artifact. The caller ends the stream; a session cannot end it by mistake.
    async fn dump(&mut self, artifact: &ArtifactPlan, out: PlainSender, context: &RunContext) -> Result<DumpEnd>;

    /// After a dump that failed: whether what it is about is not there any more, so that there is nothing to dump. `Some` with a sentence.
    async fn gone(&mut self, _artifact: &ArtifactPlan) -> Option<String> {
        None
    }

    /// What the source holds and [`Session::artifacts`] does not name.
    fn left_out(&self) -> Vec<LeftOut> {
        Vec::new()
    }

    /// What a restore will need and a reader will want, beyond the streams: database properties, skipped sockets …
    /// Asked for after the last dump; goes into `details.json`, encrypted.
    fn details(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Why the source is not whole in the set although its dumps ended well (an unreadable file …); empty when it is.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    /// Worth saying, but nothing is missing (a file that changed while it was read …).
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// The instant the content stands for; later writes are not in it. Asked for after the last dump.
    fn as_of(&self) -> Timestamp;

    /// Lets go of connections and helpers, after the last dump or after an error.
    async fn close(&mut self) {}
}

/// How a dump ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpEnd {
    /// The tool's exit status, where a child was run.
    pub exit_status: Option<i32>,
    /// The tool.
    pub tool: Option<Tool>,
    /// How true to one instant the artifact is.
    pub consistency: Consistency,
    /// Counts made before the dump (from the catalog, say) that the inspector's totals must reach at least (FAULTS 28).
    pub expected_totals: BTreeMap<String, u64>,
}
