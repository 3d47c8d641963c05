//! Files and folders as one tar archive.
//!
//! The archive holds absolute paths without their leading slash (`data/uploads/a.jpg`), so that several roots stay apart and
//! stock `tar -C / -x` puts everything where it was; the details name the roots. A root that is a link is read where it points.
//! Links inside are stored, not followed. Holes stay holes. Sockets, fifos and devices are listed, not stored. Extended attributes
//! of symbolic links are not kept.

mod access;
mod content;
mod dump;
mod filter;
mod load;
mod mounts;
mod names;
mod owners;
mod read;
mod report;
mod roots;
mod sys;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::config::patterns::{self, RootPath};
use crate::error::{Error, Kind, Result};
use crate::model::ArtifactFormat;
use crate::model::artifact::Consistency;
use crate::pipeline::plain::PlainSender;
use crate::source::{ArtifactPlan, DumpEnd, Preflight, RunContext, Session, Source};
pub(crate) use access::let_in;
use filter::Filter;
pub use load::FilesLoader;
pub use read::{extract_path, list};
use report::Report;
use roots::{FilesDetails, Root, RootKind, RootRecord};

/// The name of the one artifact.
pub const ARTIFACT: &str = "tree";

/// What to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesSettings {
    /// Folders and files; relative ones count from the working folder.
    pub paths: Vec<PathBuf>,
    /// Only what matches one of these patterns; empty takes all. For their rules see [`crate::config::patterns`].
    pub include: Vec<String>,
    /// Nothing that matches one of these.
    pub exclude: Vec<String>,
    /// Only files changed within this time before the run.
    pub newer_than: Option<Duration>,
    /// Do not enter other file systems mounted below a path.
    pub one_file_system: bool,
    /// Finding no file at all is no error.
    pub allow_empty: bool,
}

impl FilesSettings {
    /// All of these paths.
    pub fn all_of(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        FilesSettings {
            paths: paths.into_iter().map(Into::into).collect(),
            include: Vec::new(),
            exclude: Vec::new(),
            newer_than: None,
            one_file_system: true,
            allow_empty: false,
        }
    }

    fn filter(&self, roots: &[Root], now: Timestamp) -> Result<Filter> {
        let since = self.newer_than.map(|age| now.as_second().saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX)));
        Filter::new(&roots::paths(roots), &self.include, &self.exclude, since)
    }

    /// A pattern that is none, or that can match nothing, is a configuration error.
    fn check(&self) -> Result<()> {
        let absolute = self.paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        let roots: Vec<RootPath> = absolute.map(|path| RootPath::of(&path)).collect();
        match patterns::check(&roots, &self.include, &self.exclude).into_iter().next() {
            Some((list, _, why)) => Err(Error::new(Kind::Config, format!("{}: {why}", list.key())).hint(filter::SPELLING)),
            None => Ok(()),
        }
    }

    /// What is said when nothing at all was found.
    fn nothing(&self, roots: &[RootRecord]) -> Error {
        let paths: Vec<&str> = roots.iter().map(|root| root.path.as_str()).collect();
        let keys =
            [("include", !self.include.is_empty()), ("exclude", !self.exclude.is_empty()), ("newer_than", self.newer_than.is_some())];
        let keys: Vec<String> = keys.iter().filter(|(_, set)| *set).map(|(key, _)| format!("`{key}`")).collect();
        let through = if keys.is_empty() { String::new() } else { format!(" that {} would take", keys.join(" and ")) };
        Error::new(Kind::Preflight, format!("there is no file below {}{through}", paths.join(", ")))
            .hint("is it mounted? correct `paths` and the patterns; if that is as it should be, set `allow_empty: true`")
    }
}

/// Files and folders of this machine.
pub struct FilesSource {
    name: String,
    settings: FilesSettings,
}

impl FilesSource {
    /// A source; a pattern that is none is a configuration error.
    pub fn new(name: impl Into<String>, settings: FilesSettings) -> Result<Self> {
        settings.check()?;
        Ok(FilesSource { name: name.into(), settings })
    }

    async fn roots(&self) -> Result<Vec<Root>> {
        let paths = self.settings.paths.clone();
        blocking(move || roots::find(&paths)).await
    }
}

#[async_trait]
impl Source for FilesSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "files"
    }

    async fn preflight(&self, context: &RunContext) -> Result<Preflight> {
        let roots = self.roots().await?;
        let mut found = Preflight::default();
        for root in &roots {
            if root.real.as_os_str() != root.record.path.as_str() {
                found.warnings.push(format!(
                    "{} leads through a link to {}; what lies there is saved",
                    root.record.path,
                    root.real.display()
                ));
            }
        }
        let paths: Vec<&str> = roots.iter().map(|root| root.record.path.as_str()).collect();
        found.summary = paths.join(", ");
        if roots.iter().all(|root| root.record.kind == RootKind::File) {
            let unused = [("include", &self.settings.include), ("exclude", &self.settings.exclude)];
            let unused = unused.iter().filter(|(_, patterns)| !patterns.is_empty());
            found.warnings.extend(unused.map(|(key, _)| format!("`{key}` does nothing: every path is a file, and is taken as it is")));
        }
        let (filter, one_file_system) = (self.settings.filter(&roots, context.clock.now())?, self.settings.one_file_system);
        let cancel = context.cancel.clone();
        let records: Vec<RootRecord> = roots.iter().map(|root| root.record.clone()).collect();
        let looked = blocking(move || {
            for root in &roots {
                can_open(root)?;
            }
            let first = access::reads_everything();
            let looked = access::look(&roots, &filter, one_file_system, access::Look { longest: access::LONGEST, first }, &cancel);
            Ok((looked, first))
        })
        .await?;
        let (looked, first) = looked;
        if looked.is_empty() && !self.settings.allow_empty {
            return Err(self.settings.nothing(&records));
        }
        if !first {
            if looked.cut {
                found.summary.push_str(&format!(" (of the rights in them the first {} were looked at)", looked.seen));
            }
            found.warnings.extend(looked.warning());
        }
        Ok(found)
    }

    async fn open(&self, context: &RunContext) -> Result<Box<dyn Session>> {
        let now = context.clock.now();
        let roots = self.roots().await?;
        let filter = self.settings.filter(&roots, now)?;
        let details = FilesDetails {
            roots: roots.iter().map(|root| root.record.clone()).collect(),
            include: self.settings.include.clone(),
            exclude: self.settings.exclude.clone(),
            since: filter.since,
            one_file_system: self.settings.one_file_system,
            empty: false,
            allow_empty: self.settings.allow_empty,
            skipped: Default::default(),
            mounts: Default::default(),
            unreadable: Default::default(),
            without_attributes: Default::default(),
            changed: Default::default(),
            vanished: Default::default(),
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
        };
        Ok(Box::new(FilesSession { settings: self.settings.clone(), roots, filter, details, report: Report::default(), as_of: now }))
    }
}

struct FilesSession {
    settings: FilesSettings,
    roots: Vec<Root>,
    filter: Filter,
    details: FilesDetails,
    report: Report,
    as_of: Timestamp,
}

#[async_trait]
impl Session for FilesSession {
    fn identity(&self) -> BTreeMap<String, String> {
        let paths: Vec<&str> = self.details.roots.iter().map(|root| root.path.as_str()).collect();
        BTreeMap::from([("paths".to_owned(), paths.join("\n"))])
    }

    fn artifacts(&self) -> Vec<ArtifactPlan> {
        vec![ArtifactPlan { name: ARTIFACT.to_owned(), format: ArtifactFormat::Tar, extension: None, expected_bytes: None, secret: false }]
    }

    async fn dump(&mut self, _artifact: &ArtifactPlan, out: PlainSender, context: &RunContext) -> Result<DumpEnd> {
        // What is written from here on may or may not be in the set.
        self.as_of = context.clock.now();
        let (roots, filter, one_file_system) = (self.roots.clone(), self.filter.clone(), self.details.one_file_system);
        let cancel = context.cancel.clone();
        let dumped = blocking(move || dump::dump(&roots, &filter, one_file_system, out, cancel)).await?;
        self.report = dumped.report;
        self.details.set_report(&self.report);
        // What could not be read is told as that; the set is not whole then.
        if self.details.empty && !self.details.allow_empty && self.report.unreadable.len() == 0 {
            return Err(self.settings.nothing(&self.details.roots));
        }
        Ok(DumpEnd {
            exit_status: None,
            tool: None,
            consistency: Consistency::Fuzzy,
            expected_totals: dumped.totals.named().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        })
    }

    fn details(&self) -> serde_json::Value {
        serde_json::to_value(&self.details).unwrap_or_default()
    }

    fn problems(&self) -> Vec<String> {
        self.report.problems()
    }

    fn warnings(&self) -> Vec<String> {
        let mut out = self.report.warnings();
        if !self.details.allow_empty {
            let empty = self.report.empty_roots.iter();
            out.extend(empty.map(|path| format!("there is no file below {path}; if that is as it should be, set `allow_empty: true`")));
        }
        out
    }

    fn as_of(&self) -> Timestamp {
        self.as_of
    }
}

fn can_open(root: &Root) -> Result<()> {
    let opened = match root.record.kind {
        RootKind::Dir => sys::open_dir_path(&root.real).map(drop).map_err(std::io::Error::from),
        RootKind::File => std::fs::File::open(&root.real).map(drop),
    };
    opened.map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::PermissionDenied => let_in(&root.real),
            _ => "mend it, or leave it out of `paths`".to_owned(),
        };
        Error::new(Kind::Preflight, format!("open {}", root.real.display())).because(e).hint(hint)
    })
}

/// Runs on a thread where waiting for the disk holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::failed("a files worker broke off").because(e)),
    }
}
