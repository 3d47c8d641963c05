//! A writer's run: from its base to its commit, or to the proof that it came to nothing (rules 2 to 5 and 8).

use serde::{Deserialize, Serialize};

use crate::catalog::log::JobLog;
use crate::error::{Error, Result};
use crate::model::{Manifest, SetId, SetKind, Sha256};

/// One run of one group, begun at a known head of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    set: SetId,
    chain: SetId,
    group: String,
    base: u64,
}

/// A commit that is about to be sent, for the caller's journal: enough to settle it after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The set.
    pub set: SetId,
    /// The number its record was sent to.
    pub number: u64,
    /// SHA-256 of the record's bytes.
    pub sha256: Sha256,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The set exists.
    Committed {
        /// Number of its record.
        number: u64,
    },
    /// The set does not exist and never will; its objects may be deleted.
    Void {
        /// Why.
        reason: VoidReason,
    },
}

/// Why a run came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoidReason {
    /// An intent names the set.
    Doomed {
        /// Number of the intent.
        intent: u64,
    },
    /// Another set joined the chain meanwhile.
    ChainMoved {
        /// Number of its commit.
        number: u64,
    },
    /// The chain takes no more sets.
    ChainClosed {
        /// Number of the record that closed it.
        number: u64,
    },
    /// None of the keys at hand is valid any more.
    NoValidKey,
    /// Another record took the number, and the run ended before.
    Settled,
}

/// What became of a commit whose outcome was unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It stands.
    Committed {
        /// Number of its record.
        number: u64,
    },
    /// It does not stand and never will.
    Void,
    /// Nothing holds its number yet: it may still arrive. The next record appended to the log settles it.
    Open,
}

impl JobLog {
    /// Begins a run: reads the log to its head, remembers that as the base, and makes a new set id.
    ///
    /// An incremental run joins the newest chain of the group; [`crate::error::Kind::Preflight`] when there is none that takes
    /// more sets (make a full set instead).
    pub async fn begin_run(&mut self, kind: SetKind, group: &str) -> Result<Run> {
        let _ = (kind, group);
        Err(Error::failed("runs cannot begin yet"))
    }

    /// Settles a commit whose outcome was unknown (rule 5), by reading the log again.
    pub async fn settle(&mut self, pending: &Pending) -> Result<Settled> {
        let _ = pending;
        Err(Error::failed("runs cannot be settled yet"))
    }
}

impl Run {
    /// The id of the set being made.
    pub fn set(&self) -> &SetId {
        &self.set
    }

    /// The full set its chain begins with; a full run's own.
    pub fn chain(&self) -> &SetId {
        &self.chain
    }

    /// The group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The number of the log's record the run started from; goes into the manifest.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Commits the set: judges every record since the base, then creates the record, and again on every conflict.
    ///
    /// [`crate::error::Kind::OutcomeUnknown`] when the store stopped answering after the record was sent: nothing may be deleted
    /// then. Any other error: the set was not committed and will not be.
    ///
    /// `note` is called before each PUT with what is about to be sent; an error of it stops the run before the PUT.
    pub async fn commit<F>(self, log: &mut JobLog, manifest: Manifest, note: F) -> Result<Outcome>
    where
        F: FnMut(&Pending) -> Result<()> + Send,
    {
        let _ = (log, manifest, note);
        Err(Error::failed("runs cannot be committed yet"))
    }
}
