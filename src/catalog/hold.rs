//! What readers and people ask of a set: holds while it is read, pins, proofs (rules 9 and 10).

use std::time::Duration;

use jiff::Timestamp;

use crate::catalog::log::{Appended, JobLog};
use crate::catalog::rules::no_such_set;
use crate::error::{Error, Kind, Result};
use crate::model::SetId;
use crate::model::record::{Body, Proof};

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
    /// [`Kind::NoSuchSet`] when the set is unknown or an intent names it: pick another.
    pub async fn acquire(log: &mut JobLog, set: &SetId, length: Duration) -> Result<Hold> {
        let random = &log.repository().env().random;
        let name = format!("{:08x}{:08x}", random.bits(), random.bits());
        let mut hold = Hold { set: set.clone(), name, until: log.server_date().await? };
        if log.rules.hold_first {
            hold.renew(log, length).await?;
        } else {
            hold.until = after(hold.until, length)?;
        }
        Ok(hold)
    }

    /// Moves the end to `length` from now. [`Kind::NoSuchSet`] when an intent names the set: the hold ran out before, and what was
    /// read may be incomplete.
    pub async fn renew(&mut self, log: &mut JobLog, length: Duration) -> Result<()> {
        let (set, hold) = (self.set.clone(), self.name.clone());
        let mut end = self.until;
        log.append_with(|_, date| {
            end = after(date, length)?;
            Ok(Body::Hold { set: set.clone(), hold: hold.clone(), until: end })
        })
        .await?;
        self.until = end;
        Ok(())
    }

    /// Ends the hold.
    pub async fn release(self, log: &mut JobLog) -> Result<()> {
        log.append(Body::Release { set: self.set, hold: self.name }).await.map(|_| ())
    }
}

fn after(date: Timestamp, length: Duration) -> Result<Timestamp> {
    date.checked_add(length).map_err(|e| Error::new(Kind::Usage, "the end of the hold lies too far ahead").because(e))
}

/// For a reader that may not append: reads the log again and refuses a set that an intent names. The caller says that it reads
/// without a hold.
pub async fn check_readable(log: &mut JobLog, set: &SetId) -> Result<()> {
    log.refresh().await?;
    match log.state().get(set) {
        Some(entry) if entry.is_live() => Ok(()),
        _ => Err(no_such_set(log.state(), set)),
    }
}

/// After a failed read: reads the log again, and gives [`Kind::NoSuchSet`] when the set was deleted meanwhile, otherwise `error` as
/// it was (rule 9).
pub async fn explain(log: &mut JobLog, set: &SetId, error: Error) -> Error {
    match check_readable(log, set).await {
        Err(gone) if gone.kind() == Kind::NoSuchSet => gone,
        _ => error,
    }
}

/// Keeps a set from deletion until `until`. [`Kind::NoSuchSet`] when the set is unknown or an intent names it.
pub async fn pin(log: &mut JobLog, set: &SetId, until: Timestamp, reason: &str) -> Result<Appended> {
    log.append(Body::Pin { set: set.clone(), until, reason: reason.to_owned() }).await
}

/// Ends every pin of a set.
pub async fn unpin(log: &mut JobLog, set: &SetId) -> Result<Appended> {
    log.append(Body::Unpin { set: set.clone() }).await
}

/// Appends the outcome of a verification or drill; refused like a pin when the set is gone.
pub async fn prove(log: &mut JobLog, proof: Proof) -> Result<Appended> {
    log.append(Body::Proof { proof }).await
}
