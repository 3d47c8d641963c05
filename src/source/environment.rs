//! Environment variables as one secret artifact of `NAME=value` lines: an env file byte for byte, or lines of it as they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use crate::error::{Error, Kind, Result};
use crate::model::ArtifactFormat;
use crate::model::artifact::Consistency;
use crate::pipeline::plain::PlainSender;
use crate::source::environment_dotenv as dotenv;
use crate::source::files::let_in;
use crate::source::{ArtifactPlan, DumpEnd, Preflight, RunContext, Session, Source};

/// The name of the one artifact.
pub const ARTIFACT: &str = "variables";

/// Longest env file read.
const MAX_FILE: u64 = 16 << 20;

/// Where variables come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvironmentFrom {
    /// drctl's own process.
    Process,
    /// A file in dotenv syntax.
    File(PathBuf),
}

/// Which variables to take. With neither prefixes nor names: all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentSettings {
    /// Where they come from.
    pub from: EnvironmentFrom,
    /// Names that begin with one of these.
    pub prefixes: Vec<String>,
    /// These names.
    pub names: Vec<String>,
}

impl EnvironmentSettings {
    fn takes(&self, name: &str) -> bool {
        (self.prefixes.is_empty() && self.names.is_empty())
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
            || self.names.iter().any(|wanted| wanted == name)
    }

    fn place(&self) -> String {
        match &self.from {
            EnvironmentFrom::Process => "self".to_owned(),
            EnvironmentFrom::File(path) => path.display().to_string(),
        }
    }

    fn of_process(&self) -> Taken {
        use std::os::unix::ffi::OsStringExt;
        let mut taken = Taken { whole: true, ..Taken::default() };
        for (name, value) in std::env::vars_os() {
            match name.into_string() {
                Ok(name) if dotenv::is_name(&name) && self.takes(&name) => drop(taken.variables.insert(name, value.into_vec())),
                Ok(name) if self.takes(&name) => {
                    taken.warnings.push(format!("{} is no name that an env file can hold and was left out", name.escape_debug()));
                }
                _ => {}
            }
        }
        taken.names = taken.variables.keys().cloned().collect();
        taken.bytes = dotenv::write(&taken.variables);
        taken
    }

    /// The file's own bytes; with `prefixes` or `names` those of its lines that set such a variable.
    fn of_file(&self, path: &Path) -> Result<Taken> {
        let bytes = read_bounded(path, MAX_FILE)?;
        let mut parsed = dotenv::parse(&bytes);
        parsed.variables.retain(|name, _| self.takes(name));
        parsed.lines.retain(|(name, _)| self.takes(name));
        let names = parsed.lines.iter().map(|(name, _)| name.clone()).collect();
        let whole = self.prefixes.is_empty() && self.names.is_empty();
        if whole {
            let mut warnings = Vec::new();
            if parsed.lines.is_empty() && !bytes.trim_ascii().is_empty() {
                warnings.push(format!("{} is kept as it is; there is no variable in it", path.display()));
            }
            return Ok(Taken { bytes, names, variables: parsed.variables, warnings, whole });
        }
        let bytes = parsed.lines.into_iter().flat_map(|(_, line)| line).collect();
        let passed = parsed.warnings.into_iter().map(|why| format!("{why}; without `prefixes` and `names` the whole file is kept"));
        Ok(Taken { bytes, names, variables: parsed.variables, warnings: passed.collect(), whole })
    }

    /// Reads and filters. Nothing left is an error.
    pub(crate) fn read(&self) -> Result<Taken> {
        let mut taken = match &self.from {
            EnvironmentFrom::Process => self.of_process(),
            EnvironmentFrom::File(path) => self.of_file(path)?,
        };
        let missing = self.names.iter().filter(|name| !taken.names.contains(*name));
        taken.warnings.extend(missing.map(|name| format!("{name} is not set in {}", self.place())));
        if taken.bytes.trim_ascii().is_empty() {
            return Err(Error::new(Kind::Preflight, format!("no variable of {} matches", self.place()))
                .hint("correct `prefixes` and `names`, or `from`"));
        }
        Ok(taken)
    }
}

/// What a source takes.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// What is stored.
    bytes: Vec<u8>,
    /// The names in it.
    names: BTreeSet<String>,
    /// Those that have a value, as most readers take it.
    pub variables: dotenv::Variables,
    warnings: Vec<String>,
    /// Nothing of the file is left out.
    whole: bool,
}

/// A whole file of at most `limit` bytes. Missing and unreadable ones are preflight errors.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let refuse = |e: std::io::Error| {
        let hint = match e.kind() {
            std::io::ErrorKind::PermissionDenied => let_in(path),
            _ => "correct the path".to_owned(),
        };
        Error::new(Kind::Preflight, format!("read {}", path.display())).because(e).hint(hint)
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(refuse)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(refuse)?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(Kind::Preflight, format!("{} is longer than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

/// Environment variables of this process or of a file.
pub struct EnvironmentSource {
    name: String,
    settings: EnvironmentSettings,
}

impl EnvironmentSource {
    /// A source.
    pub fn new(name: impl Into<String>, settings: EnvironmentSettings) -> Self {
        EnvironmentSource { name: name.into(), settings }
    }
}

#[async_trait]
impl Source for EnvironmentSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "environment"
    }

    async fn preflight(&self, _context: &RunContext) -> Result<Preflight> {
        let taken = self.settings.read()?;
        let summary = format!("{} variables of {}", taken.names.len(), self.settings.place());
        Ok(Preflight { warnings: taken.warnings, summary, ..Preflight::default() })
    }

    async fn open(&self, context: &RunContext) -> Result<Box<dyn Session>> {
        let as_of = context.clock.now();
        let taken = self.settings.read()?;
        Ok(Box::new(EnvironmentSession { place: self.settings.place(), taken, as_of }))
    }
}

struct EnvironmentSession {
    place: String,
    taken: Taken,
    as_of: Timestamp,
}

#[async_trait]
impl Session for EnvironmentSession {
    fn identity(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("from".to_owned(), self.place.clone())])
    }

    fn artifacts(&self) -> Vec<ArtifactPlan> {
        vec![ArtifactPlan { name: ARTIFACT.to_owned(), format: ArtifactFormat::Env, extension: None, expected_bytes: None, secret: true }]
    }

    async fn dump(&mut self, _artifact: &ArtifactPlan, out: PlainSender, _context: &RunContext) -> Result<DumpEnd> {
        let bytes = self.taken.bytes.len() as u64;
        out.data(Bytes::from(self.taken.bytes.clone())).await?;
        Ok(DumpEnd {
            exit_status: None,
            tool: None,
            consistency: Consistency::Snapshot,
            expected_totals: BTreeMap::from([("bytes".to_owned(), bytes)]),
        })
    }

    fn details(&self) -> serde_json::Value {
        // Names only: a hash of a short value could be guessed.
        json!({ "from": self.place, "names": self.taken.names, "whole": self.taken.whole })
    }

    fn warnings(&self) -> Vec<String> {
        self.taken.warnings.clone()
    }

    fn as_of(&self) -> Timestamp {
        self.as_of
    }
}
