//! How bad something is.

use serde::{Deserialize, Serialize};

/// How bad it is, the mildest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know; nobody has to do anything.
    #[default]
    Info,
    /// Somebody has to look, within days.
    Warning,
    /// Somebody has to act now: data would be lost, or is.
    Critical,
}

impl Severity {
    /// All of them with their names.
    pub const ALL: [(Severity, &'static str); 3] =
        [(Severity::Info, "info"), (Severity::Warning, "warning"), (Severity::Critical, "critical")];

    /// `info`, `warning`, `critical`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(severity, _)| *severity == self).map_or("info", |(_, name)| name)
    }

    /// The one of this name.
    pub fn of(name: &str) -> Option<Severity> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(severity, _)| *severity)
    }
}
