//! (to come)

/// The state file.
pub struct StateFile;
