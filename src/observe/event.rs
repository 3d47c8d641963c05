//! The one enum of everything worth telling while work goes on.

use jiff::Timestamp;
use serde::Serialize;

/// Something that happened. Carries names and figures only, never a secret.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// A verb began to work for a job.
    RunStarted {
        /// `backup`, `verify`, `restore` …
        verb: String,
        /// The job.
        job: String,
        /// The set being made or read, once it is known.
        set: Option<String>,
    },
    /// One step within a run, for people: `checking postgres`, `waiting for the lease held by web-2 since 02:00:01Z` …
    Step {
        /// What is being done.
        text: String,
    },
    /// An artifact's stream began.
    ArtifactStarted {
        /// `postgres.shop`: source and artifact.
        artifact: String,
        /// Expected plain bytes, if something is known of them; an estimate.
        expected_bytes: Option<u64>,
    },
    /// So far; sent at most some ten times a second per artifact.
    ArtifactProgress {
        /// The artifact.
        artifact: String,
        /// Plain bytes so far.
        plain_bytes: u64,
        /// Stored bytes so far.
        stored_bytes: u64,
    },
    /// An artifact's stream ended well.
    ArtifactFinished {
        /// The artifact.
        artifact: String,
        /// Plain bytes in all.
        plain_bytes: u64,
        /// Stored bytes in all.
        stored_bytes: u64,
    },
    /// An artifact's stream ended badly; the run goes on with the others.
    ArtifactFailed {
        /// The artifact.
        artifact: String,
        /// Why.
        error: String,
        /// What to type.
        hint: Option<String>,
    },
    /// Worth saying; nothing is missing for it.
    Warning {
        /// A whole sentence.
        text: String,
    },
    /// A step failed and is tried again.
    Retry {
        /// What failed.
        what: String,
        /// Why.
        error: String,
        /// Which try comes next; the first retry is 2.
        attempt: u32,
    },
    /// A record stands in the log.
    Recorded {
        /// `commit`, `proof` …
        record: String,
        /// Its number.
        number: u64,
    },
    /// A run ended.
    RunFinished {
        /// `backup`, `verify`, `restore` …
        verb: String,
        /// The job.
        job: String,
        /// The set.
        set: Option<String>,
        /// Exit code its process would give.
        exit_code: u8,
        /// Seconds it took.
        elapsed_seconds: f64,
        /// When.
        at: Timestamp,
    },
}
