//! What is wrong with a configuration: every finding with its place, so that all are told at once.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::{Error, Kind};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In a file; line and column count from 1, the column in characters.
    File {
        /// The file as people know it.
        file: Arc<str>,
        /// Line.
        line: u32,
        /// Column.
        column: u32,
    },
    /// Outside of any file: a flag (`--identity`) or an environment variable (`DRCTL_IDENTITY`).
    Named(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Origin::Named(name) => f.write_str(name),
        }
    }
}

/// One step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A key of a map.
    Key(String),
    /// A place in a list, from 0.
    Index(usize),
}

/// The way to a value: `jobs[0].sources[1].postgres.password`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath(pub Vec<Step>);

impl KeyPath {
    /// The path of a key below this one.
    pub fn key(&self, key: &str) -> KeyPath {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        KeyPath(steps)
    }

    /// The path of a list's entry below this one.
    pub fn index(&self, index: usize) -> KeyPath {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        KeyPath(steps)
    }

    /// The path one step up; `None` at the root.
    pub fn parent(&self) -> Option<KeyPath> {
        let (_, up) = self.0.split_last()?;
        Some(KeyPath(up.to_vec()))
    }

    /// This path below `base`.
    pub fn below(&self, base: &KeyPath) -> KeyPath {
        KeyPath(base.0.iter().chain(&self.0).cloned().collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
                    match (plain, i) {
                        (true, 0) => f.write_str(key)?,
                        (true, _) => write!(f, ".{key}")?,
                        (false, _) => write!(f, "[\"{}\"]", shorten(key))?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// One finding. An error refuses the configuration, a warning is only said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it is; `None` when it is about no place in particular.
    pub origin: Option<Origin>,
    /// Which value it is about; empty for a whole file.
    pub path: KeyPath,
    /// What is wrong, and what would be right. Never holds a secret.
    pub what: String,
}

impl fmt::Display for Problem {
    /// `drctl.yaml:14:5: jobs[0].sources[1].postgres.pasword: unknown key; did you mean 'password'?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.path.0.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

impl Problem {
    /// The same finding for machines.
    pub fn to_json(&self) -> Value {
        let mut value = json!({ "path": self.path.to_string(), "message": self.what });
        match &self.origin {
            Some(Origin::File { file, line, column }) => {
                value["file"] = json!(&**file);
                value["line"] = json!(line);
                value["column"] = json!(column);
            }
            Some(Origin::Named(name)) => value["from"] = json!(&**name),
            None => {}
        }
        value
    }
}

/// Everything that is wrong with a configuration, in the order of files and lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The findings.
    pub list: Vec<Problem>,
    /// The next command to type.
    pub hint: Option<String>,
}

impl Problems {
    /// One finding about no place in particular.
    pub fn one(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Problems { list: vec![Problem { origin: None, path: KeyPath::default(), what: what.into() }], hint: Some(hint.into()) }
    }

    /// Sorted by place, each finding once.
    pub(crate) fn of(mut list: Vec<Problem>) -> Self {
        sort(&mut list);
        Problems { list, hint: None }
    }

    /// The findings, sorted by place.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// The findings for machines.
    pub fn to_json(&self) -> Value {
        Value::Array(self.list.iter().map(Problem::to_json).collect())
    }
}

/// By file, line and column; equal ones once.
pub(crate) fn sort(list: &mut Vec<Problem>) {
    list.sort_by(|a, b| (&a.origin, &a.path, &a.what).cmp(&(&b.origin, &b.path, &b.what)));
    list.dedup();
}

impl fmt::Display for Problems {
    /// One line per finding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for Error {
    /// [`Kind::Config`]; one finding stays one line, several are listed below a count.
    fn from(problems: Problems) -> Error {
        let count = problems.list.len();
        let text = if count == 1 { problems.to_string() } else { format!("the configuration has {count} mistakes:\n{problems}") };
        let error = Error::new(Kind::Config, text);
        match problems.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// A user's text made fit for one line of a message: control characters escaped, at most 60 characters.
pub(crate) fn shorten(text: &str) -> String {
    let mut out: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

/// The candidate that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A word of n letters may be a third of them wrong: "sorces" finds "sources", "x" finds nothing.
    let limit = (word.chars().count() / 3).clamp(1, 4);
    let lower = word.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&lower, c), c))
        .filter(|(distance, c)| *distance <= limit && *distance < c.chars().count())
        .min()
        .map(|(_, c)| c)
}

/// `; did you mean 'x'?`, or `; known here: a, b` when nothing is near.
pub(crate) fn suggestion(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("; did you mean '{near}'?"),
        None => format!("; known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_they_are_written() {
        let path = KeyPath::default().key("jobs").index(0).key("sources").index(1).key("postgres").key("pass word");
        assert_eq!(path.to_string(), "jobs[0].sources[1].postgres[\"pass word\"]");
        assert_eq!(KeyPath::default().to_string(), "");
    }

    #[test]
    fn the_nearest_word_is_near() {
        for (word, near) in [
            ("pasword", Some("password")),
            ("Password", Some("password")),
            ("keep-last", Some("keep_last")),
            ("sorces", None),
            ("zzz", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, ["password", "keep_last", "user"]), near, "{word}");
        }
    }

    #[test]
    fn user_text_cannot_forge_lines() {
        assert_eq!(shorten("a\nb"), "a\\nb");
        assert_eq!(shorten(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }
}
