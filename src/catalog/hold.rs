//! What readers and people ask of a set: holds while it is read, pins, proofs (rules 9 and 10).

use std::time::Duration;

use jiff::Timestamp;

use crate::catalog::log::{Appended, JobLog};
use crate::error::{Error, Result};
use crate::model::SetId;
use crate::model::record::Proof;

/// A reader's hold on one set. Dropping it does nothing; it ends by [`Hold::release`] or at its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The set.
    pub set: SetId,
    /// The hold's name in the log.
    pub name: String,
    /// End, server date.
    pub until: Timestamp,
}

impl Hold {
    /// Appends a hold that ends after `length` by the server's date, having judged the log up to it.
    /// [`crate::error::Kind::NoSuchSet`] when the set is unknown or an intent names it: pick another.
    pub async fn acquire(log: &mut JobLog, set: &SetId, length: Duration) -> Result<Hold> {
        let _ = (log, set, length);
        Err(Error::failed("sets cannot be held yet"))
    }

    /// Moves the end to `length` from now.
    pub async fn renew(&mut self, log: &mut JobLog, length: Duration) -> Result<()> {
        let _ = (log, length);
        Err(Error::failed("sets cannot be held yet"))
    }

    /// Ends the hold.
    pub async fn release(self, log: &mut JobLog) -> Result<()> {
        let _ = log;
        Err(Error::failed("sets cannot be held yet"))
    }
}

/// For a reader that may not append: reads the log again and refuses a set that an intent names. The caller says that it reads
/// without a hold.
pub async fn check_readable(log: &mut JobLog, set: &SetId) -> Result<()> {
    let _ = (log, set);
    Err(Error::failed("the log cannot be read yet"))
}

/// After a failed read: reads the log again, and gives [`crate::error::Kind::NoSuchSet`] when the set was deleted meanwhile,
/// otherwise `error` as it was (rule 9).
pub async fn explain(log: &mut JobLog, set: &SetId, error: Error) -> Error {
    let _ = (log, set);
    error
}

/// Keeps a set from deletion until `until`. [`crate::error::Kind::NoSuchSet`] when the set is unknown or an intent names it.
pub async fn pin(log: &mut JobLog, set: &SetId, until: Timestamp, reason: &str) -> Result<Appended> {
    let _ = (log, set, until, reason);
    Err(Error::failed("sets cannot be pinned yet"))
}

/// Ends every pin of a set.
pub async fn unpin(log: &mut JobLog, set: &SetId) -> Result<Appended> {
    let _ = (log, set);
    Err(Error::failed("sets cannot be pinned yet"))
}

/// Appends the outcome of a verification or drill; refused like a pin when the set is gone.
pub async fn prove(log: &mut JobLog, proof: Proof) -> Result<Appended> {
    let _ = (log, proof);
    Err(Error::failed("proofs cannot be written yet"))
}
