//! Deleting: intent, objects, `deleted`; for sets that retention gave up and for orphans (rules 7 and 8). Every step is repeatable.

use std::time::Duration;

use jiff::Timestamp;

use crate::catalog::log::JobLog;
use crate::catalog::state::State;
use crate::error::{Error, Result};
use crate::model::SetId;

/// What a plan wants gone: a whole chain and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retirement {
    /// The full set the chain begins with.
    pub chain: SetId,
    /// Why, for people.
    pub reason: String,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Sets without a commit that were put under an intent now.
    pub doomed: Vec<SetId>,
    /// Objects deleted.
    pub objects: u64,
    /// Bytes they took.
    pub bytes: u64,
    /// Orphans younger than the grace time.
    pub waiting: Vec<SetId>,
    /// Keys below `sets/` that belong to no set id; never touched.
    pub strange: Vec<String>,
}

/// What one finished intent took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Objects deleted now.
    pub objects: u64,
    /// Bytes they took, as far as known.
    pub bytes: u64,
}

/// Appends a delete-intent for the chain that `plan` names; `plan` is asked again on every conflict (rule 7). Returns the intent's
/// number, or `None` when the plan wants nothing gone.
///
/// Refused ([`crate::error::Kind::Preflight`]) whatever the plan says: a chain with a pin or hold in force, and the last good set
/// of a group.
pub async fn retire<F>(log: &mut JobLog, plan: F) -> Result<Option<u64>>
where
    F: FnMut(&State, Timestamp) -> Result<Option<Retirement>> + Send,
{
    let _ = (log, plan);
    Err(Error::failed("sets cannot be retired yet"))
}

/// Deletes the objects of every set under the intent, then appends `deleted`. May be repeated by anyone with the role.
pub async fn finish_delete(log: &mut JobLog, intent: u64) -> Result<Deletion> {
    let _ = (log, intent);
    Err(Error::failed("sets cannot be deleted yet"))
}

/// Finds objects of sets that no commit names, and of dead sets; deletes them under an intent once the newest object of the set is
/// older than `grace` (server date).
pub async fn sweep(log: &mut JobLog, grace: Duration) -> Result<Swept> {
    let _ = (log, grace);
    Err(Error::failed("orphans cannot be swept yet"))
}
