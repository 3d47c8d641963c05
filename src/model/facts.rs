//! What an inspector learned of a plain stream: that it reached its own end, and what was in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counted while the stream flows by. The same walk at dump, verify and drill must give an equal value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The format that was walked: `pgdump-custom 1.14`, `tar`, `lines`, `bytes` …
    pub format: String,
    /// Whole-stream counts by name: `tables`, `rows`, `files`, `dirs`, `bytes` …; safe to show in a manifest.
    pub totals: BTreeMap<String, u64>,
    /// Counts per named thing, such as rows per table (`public.orders`). Names may be secret: details only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub per_name: BTreeMap<String, u64>,
}

impl Facts {
    /// Facts with no counts yet.
    pub fn of(format: impl Into<String>) -> Self {
        Facts { format: format.into(), ..Facts::default() }
    }

    /// Adds to a total.
    pub fn add(&mut self, total: &str, count: u64) {
        match self.totals.get_mut(total) {
            Some(value) => *value = value.saturating_add(count),
            None => {
                self.totals.insert(total.to_owned(), count);
            }
        }
    }
}
