//! Which files a source takes: its patterns ([`crate::config::patterns`]) and its age limit.

use std::path::Path;

use crate::config::patterns::{Patterns, RootPath, Rules};
use crate::error::{Error, Kind, Result};

/// Compiled patterns and the age limit.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    patterns: Patterns,
    /// Only what was changed at or after this second.
    pub since: Option<i64>,
}

impl Filter {
    /// Compiles the patterns; a bad one is a configuration error.
    pub fn new(roots: &[RootPath], include: &[String], exclude: &[String], since: Option<i64>) -> Result<Self> {
        let patterns = Patterns::new(roots, include, exclude).map_err(|why| Error::new(Kind::Config, why).hint(SPELLING))?;
        Ok(Filter { patterns, since })
    }

    /// Whether everything is taken.
    pub fn takes_all(&self) -> bool {
        self.patterns.takes_all() && self.since.is_none()
    }

    /// What is taken below one of the roots, by its configured path.
    pub fn of(&self, root: &str) -> Taken<'_> {
        Taken { rules: self.patterns.of(Path::new(root)), since: self.since }
    }
}

/// What to do about a bad pattern.
pub(crate) const SPELLING: &str = "quote special characters with a backslash";

/// What is taken below one root. A root that the filter was not made for has no patterns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken<'a> {
    rules: Option<&'a Rules>,
    since: Option<i64>,
}

impl Taken<'_> {
    /// Whether folders are taken for their own sake.
    pub fn takes_folders(&self) -> bool {
        self.since.is_none() && !self.rules.is_some_and(Rules::chooses)
    }

    /// Whether the path (below its root) is left out with all below it.
    pub fn excludes(&self, path: &[u8]) -> bool {
        self.rules.is_some_and(|rules| rules.excludes(path))
    }

    /// Whether a file or link that is not excluded is taken.
    pub fn includes(&self, path: &[u8], mtime: i64) -> bool {
        self.since.is_none_or(|since| mtime >= since) && self.rules.is_none_or(|rules| rules.includes(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_included_folder_takes_what_is_below_it() {
        let root = RootPath { path: "/srv".into(), real: "/srv".into() };
        let filter = Filter::new(&[root], &["2024".to_owned()], &[], Some(100)).unwrap();
        let taken = filter.of("/srv");
        assert!(taken.includes(b"x/2024/a/b", 100));
        assert!(!taken.includes(b"x/2024/a/b", 99), "too old");
        assert!(!taken.includes(b"x/2025/a", 100));
        assert!(taken.includes(b"2024/\xff", 100), "any bytes");
    }
}
