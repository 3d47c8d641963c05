//! Which files a source takes.
//!
//! A pattern without a slash matches a name at any depth; one with a slash matches the path below the root. `*` and `?` stop at
//! slashes, `**` does not. An excluded folder is not entered. With `include` only files and links that match (or lie below a
//! folder that matches) are taken, and of folders only those needed for them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Kind, Result};

/// Compiled patterns and the age limit.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    include: Option<GlobSet>,
    exclude: GlobSet,
    /// Only what was changed at or after this second.
    pub since: Option<i64>,
}

impl Filter {
    /// Compiles the patterns; a bad one is a configuration error.
    pub fn new(include: &[String], exclude: &[String], since: Option<i64>) -> Result<Self> {
        Ok(Filter { include: if include.is_empty() { None } else { Some(set(include, true)?) }, exclude: set(exclude, false)?, since })
    }

    /// Whether everything is taken.
    pub fn takes_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty() && self.since.is_none()
    }

    /// Whether folders are taken for their own sake.
    pub fn takes_folders(&self) -> bool {
        self.include.is_none() && self.since.is_none()
    }

    /// Whether the path (below its root) is left out with all below it.
    pub fn excludes(&self, path: &[u8]) -> bool {
        !self.exclude.is_empty() && self.exclude.is_match(Path::new(OsStr::from_bytes(path)))
    }

    /// Whether a file or link that is not excluded is taken.
    pub fn includes(&self, path: &[u8], mtime: i64) -> bool {
        self.since.is_none_or(|since| mtime >= since)
            && self.include.as_ref().is_none_or(|set| set.is_match_candidate(&Candidate::new(Path::new(OsStr::from_bytes(path)))))
    }
}

fn set(patterns: &[String], below: bool) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    let mut add = |text: String| -> std::result::Result<(), globset::Error> {
        set.add(GlobBuilder::new(&text).literal_separator(true).backslash_escape(true).build()?);
        Ok(())
    };
    for pattern in patterns {
        let bad = |why: String| {
            Error::new(Kind::Config, format!("pattern '{pattern}' is not valid: {why}")).hint("quote special characters with a backslash")
        };
        let trimmed = pattern.trim_end_matches('/');
        let anchored = trimmed.contains('/');
        let trimmed = trimmed.trim_start_matches('/');
        if trimmed.is_empty() {
            return Err(bad("it is empty".into()));
        }
        let full = if anchored { trimmed.to_owned() } else { format!("**/{trimmed}") };
        if below {
            add(format!("{full}/**")).map_err(|e| bad(e.kind().to_string()))?;
        }
        add(full).map_err(|e| bad(e.kind().to_string()))?;
    }
    set.build().map_err(|e| Error::new(Kind::Config, "the patterns are too large together").because(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, path, matches) in [
            ("*.log", "a.log", true),
            ("*.log", "x/y/a.log", true),
            ("*.log", "a.log.1", false),
            ("cache", "x/cache", true),
            ("cache/", "cache", true),
            ("/cache", "cache", true),
            ("/cache", "x/cache", false),
            ("x/*", "x/a", true),
            ("x/*", "x/a/b", false),
            ("x/**", "x/a/b", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("{a,b}.txt", "z/b.txt", true),
            ("[", "", false),
        ] {
            let Ok(filter) = Filter::new(&[], &strings(&[pattern]), None) else {
                assert_eq!(pattern, "[");
                continue;
            };
            assert_eq!(filter.excludes(path.as_bytes()), matches, "{pattern} {path}");
        }
        assert!(Filter::new(&strings(&["/"]), &[], None).is_err());
    }

    #[test]
    fn an_included_folder_takes_what_is_below_it() {
        let filter = Filter::new(&strings(&["2024"]), &[], Some(100)).unwrap();
        assert!(filter.includes(b"x/2024/a/b", 100));
        assert!(!filter.includes(b"x/2024/a/b", 99), "too old");
        assert!(!filter.includes(b"x/2025/a", 100));
        assert!(filter.includes(b"2024/\xff", 100), "any bytes");
    }
}
