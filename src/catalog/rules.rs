//! The rules of the log that do not belong to one protocol alone, and a switch for each rule.
//!
//! The switches are for tests, which show with them that each rule is needed. Production code always runs with
//! [`Rules::default`], every rule on; there is no configuration for this.

use std::time::Duration;

use jiff::Timestamp;

use crate::catalog::state::State;
use crate::error::{Error, Kind, Result};
use crate::model::SetId;
use crate::model::record::Body;

/// One switch per rule of FORMAT.md that the model run can take out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Rule 1: a retry sends the same bytes, and a taken number is compared with them.
    pub same_bytes: bool,
    /// Rule 2: every record since the base is judged, however it came to be read.
    pub judge_all: bool,
    /// Rule 3: an incremental is void when its chain moved on or was closed.
    pub chain_moves: bool,
    /// Rule 4: the appender signs with a key that is valid at the head.
    pub fresh_key: bool,
    /// Rule 5: an unknown outcome is never taken for a failure.
    pub unknown_is_unknown: bool,
    /// Rule 6: records are never deleted, not even after a checkpoint.
    pub keep_records: bool,
    /// Rule 7: an intent holds only for the log it was planned on.
    pub plan_anew: bool,
    /// Rule 7: a set counts for nothing from its intent on.
    pub dead_is_dead: bool,
    /// Rule 8: orphans are deleted only after an intent that names them.
    pub orphan_intent: bool,
    /// Rule 8: a writer whose set stands in an intent is void.
    pub intent_voids: bool,
    /// Rule 9: readers append a hold and judge the log before the first read.
    pub hold_first: bool,
    /// Rule 10: pins and holds are refused after an intent.
    pub refuse_late_pins: bool,
    /// Rule 11: objects in a copy are deleted only after the intent stands there.
    pub copy_intent: bool,
    /// Rule 11: records are copied in order.
    pub copy_in_order: bool,
    /// Rule 12: a record that does not verify counts for nothing.
    pub unverified_is_nothing: bool,
    /// Rule 12: a record that does not verify still takes its number.
    pub unverified_takes_number: bool,
    /// Rule 18: what a revoked key signed counts up to the heads that the revoking file names, and in no other log.
    pub revoked_everywhere: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            same_bytes: true,
            judge_all: true,
            chain_moves: true,
            fresh_key: true,
            unknown_is_unknown: true,
            keep_records: true,
            plan_anew: true,
            dead_is_dead: true,
            orphan_intent: true,
            intent_voids: true,
            hold_first: true,
            refuse_late_pins: true,
            copy_intent: true,
            copy_in_order: true,
            unverified_is_nothing: true,
            unverified_takes_number: true,
            revoked_everywhere: true,
        }
    }
}

/// What the log up to its head forbids for a record of this type, whoever appends it (rules 7, 8 and 10).
pub fn admissible(state: &State, body: &Body, rules: Rules) -> Result<()> {
    let live = |set: &SetId| -> Result<()> {
        let entry = state.get(set).ok_or_else(|| no_such_set(state, set))?;
        match entry.intent {
            Some(_) if rules.refuse_late_pins => Err(no_such_set(state, set)),
            _ => Ok(()),
        }
    };
    match body {
        Body::Pin { set, .. } | Body::Hold { set, .. } => live(set),
        Body::Proof { proof } => live(&proof.set),
        Body::Unpin { set } | Body::Release { set, .. } => state.get(set).map(|_| ()).ok_or_else(|| no_such_set(state, set)),
        Body::Deleted { intent } if !state.intents().any(|known| known.number == *intent) => {
            Err(Error::failed(format!("record {intent} is no delete-intent")))
        }
        Body::DeleteIntent { sets, .. } if sets.is_empty() => Err(Error::failed("a delete-intent must name a set")),
        _ => Ok(()),
    }
}

/// [`Kind::NoSuchSet`], saying whether the set never was or is gone.
pub fn no_such_set(state: &State, set: &SetId) -> Error {
    let why = match state.intent_for(set) {
        Some(intent) => format!("{set} is being deleted (record {intent})"),
        None => format!("there is no set {set}"),
    };
    Error::new(Kind::NoSuchSet, why).hint("see what there is: drctl list")
}

/// Rule 14: nothing is pruned while the clock is before the newest record, or after it by more than the larger of 7 days and twice
/// the job's interval, until a person confirms. The clock is then wrong, or the job long silent.
pub fn clock_allows_pruning(newest: Option<Timestamp>, now: Timestamp, interval: Duration) -> Result<()> {
    const LEAST: Duration = Duration::from_secs(7 * 24 * 3600);
    let Some(newest) = newest else { return Ok(()) };
    let refuse = |why: String| {
        Err(Error::new(Kind::Preflight, format!("prune: {why}")).hint("check the clock, and whether the job still runs: drctl status"))
    };
    if now < newest {
        return refuse(format!("it is {now} here, but the newest record was written at {newest}"));
    }
    let most = LEAST.max(interval.saturating_mul(2));
    let silent = now.duration_since(newest).unsigned_abs();
    if silent > most {
        return refuse(format!("the newest record is of {newest}, more than {} days ago", most.as_secs() / 86_400));
    }
    Ok(())
}
