//! Switches for the rules of the log, so that tests can show that each rule is needed.
//!
//! Production code always runs with [`Rules::default`]: every rule on. There is no configuration for this.

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
    /// Rule 8: objects are listed before the log is read.
    pub list_first: bool,
    /// Rule 9: readers append a hold and judge the log before the first read.
    pub hold_first: bool,
    /// Rule 10: pins and holds are refused after an intent.
    pub refuse_late_pins: bool,
    /// Rule 12: a record that does not verify counts for nothing.
    pub unverified_is_nothing: bool,
    /// Rule 12: a record that does not verify still takes its number.
    pub unverified_takes_number: bool,
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
            list_first: true,
            hold_first: true,
            refuse_late_pins: true,
            unverified_is_nothing: true,
            unverified_takes_number: true,
        }
    }
}
