//! Raw shapes → typed configuration. Every check that a schema cannot make stands here; each tells its finding with its place and
//! goes on, so that all are told at once. What the schema already refused is missing from the raw shapes and is passed over in silence.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::environment::Environment;
use crate::config::notify::NotifierConfig;
use crate::config::problem::{KeyPath, Problem, shorten};
use crate::config::raw::{RawJob, RawMain};
use crate::config::running::AgentConfig;
use crate::config::tree::Node;
use crate::config::typed::{Job, Repository};
use crate::config::values;

mod job;
mod notify;
mod reference;
mod repository;
mod running;
mod s3;
mod source;

/// What is said of anything that this version accepts but does not do.
pub const LATER: &str = "not yet run by this version of drctl";

/// What checks look at besides the tree, and where they tell.
pub struct World<'a> {
    /// Variables.
    pub environment: &'a Environment,
    /// The folder relative names start from: that of `drctl.yaml`.
    pub folder: &'a Path,
    /// Look at the files that hold keys and secrets.
    pub look_at_files: bool,
    /// Configuration files that others than their owner may read, with their modes.
    pub exposed: Vec<(String, u32)>,
    /// Findings: errors and warnings.
    pub told: RefCell<Told>,
}

/// Findings so far.
#[derive(Default)]
pub struct Told {
    /// Each refuses the configuration.
    pub errors: Vec<Problem>,
    /// Worth saying.
    pub warnings: Vec<Problem>,
}

/// A place in a tree, to tell of it.
#[derive(Clone)]
struct Scope<'a> {
    root: &'a Node,
    path: KeyPath,
    world: &'a World<'a>,
}

impl<'a> Scope<'a> {
    fn key(&self, key: &str) -> Scope<'a> {
        Scope { path: self.path.key(key), ..self.clone() }
    }

    fn index(&self, index: usize) -> Scope<'a> {
        Scope { path: self.path.index(index), ..self.clone() }
    }

    fn problem(&self, what: impl Into<String>) -> Problem {
        Problem { origin: Some(self.root.origin_of(&self.path)), path: self.path.clone(), what: what.into() }
    }

    fn error(&self, what: impl Into<String>) {
        self.world.told.borrow_mut().errors.push(self.problem(what));
    }

    fn warn(&self, what: impl Into<String>) {
        self.world.told.borrow_mut().warnings.push(self.problem(what));
    }

    /// The value, or `None` with its message told.
    fn take<T>(&self, result: Result<T, String>) -> Option<T> {
        result.map_err(|what| self.error(what)).ok()
    }

    /// The file and line of this place, for a message about another one.
    fn place(&self) -> String {
        self.root.origin_of(&self.path).to_string()
    }

    fn duration(&self, key: &str, text: Option<&String>) -> Option<Duration> {
        self.key(key).take(values::duration(text?))
    }

    /// How long something is kept, or may go without a proof.
    fn long_duration(&self, key: &str, text: Option<&String>) -> Option<Duration> {
        self.key(key).take(values::long_duration(text?))
    }

    /// A path of the configuration made absolute.
    fn path(&self, text: &str) -> Option<PathBuf> {
        if text.is_empty() {
            self.error("must not be empty");
            return None;
        }
        if text == "~" || text.starts_with("~/") {
            self.error("'~' has no meaning here; write the whole path, or ${HOME}/…");
            return None;
        }
        if text.contains('\0') {
            self.error("holds a NUL character");
            return None;
        }
        Some(absolute(self.world.folder, text))
    }

    /// A list of paths made absolute.
    fn paths(&self, key: &str, list: &Option<Vec<Option<String>>>) -> Vec<PathBuf> {
        let scope = self.key(key);
        items(list).filter_map(|(i, text)| scope.index(i).path(text)).collect()
    }

    /// A list of text; empty entries are findings.
    fn texts(&self, key: &str, list: &Option<Vec<Option<String>>>) -> Vec<String> {
        let scope = self.key(key);
        let each = items(list).filter_map(|(i, text)| {
            if text.is_empty() {
                scope.index(i).error("must not be empty");
                return None;
            }
            Some(text.clone())
        });
        each.collect()
    }
}

/// `text` from `folder`, `.` steps left out.
fn absolute(folder: &Path, text: &str) -> PathBuf {
    folder.join(text).components().filter(|c| !matches!(c, std::path::Component::CurDir)).collect()
}

/// The entries of a list that the schema left, with their numbers.
fn items<T>(list: &Option<Vec<Option<T>>>) -> impl Iterator<Item = (usize, &T)> {
    list.iter().flatten().enumerate().filter_map(|(i, item)| Some((i, item.as_ref()?)))
}

/// Names of sources, stores and artifacts: 1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit.
fn check_name(scope: &Scope<'_>, name: &str) -> bool {
    let good = name.len() <= 63
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !good {
        scope.error(format!("'{}' is not a name: 1 to 63 letters, digits, '.', '_' or '-', first a letter or digit", shorten(name)));
    }
    good
}

/// One file after the schema check.
pub struct Document<T> {
    /// Its tree.
    pub root: Node,
    /// Its content.
    pub raw: T,
}

/// What the checks made.
pub struct Made {
    /// Where sets are kept; `None` when a finding stood in the way.
    pub repository: Option<Repository>,
    /// The jobs, each with its tree (`None`: that of `drctl.yaml`, else the number of the job file) and the path of its map there.
    pub jobs: Vec<(Option<usize>, KeyPath, Option<Job>)>,
    /// The agent's settings.
    pub agent: AgentConfig,
    /// Who is told of everything.
    pub notify: Vec<NotifierConfig>,
}

/// Makes the typed configuration of all files.
pub fn check(main: &Document<RawMain>, jobs: &[Document<RawJob>], world: &World<'_>) -> Made {
    let top = Scope { root: &main.root, path: KeyPath::default(), world };
    let repository = main.raw.repository.as_ref().and_then(|raw| repository::repository(&top.key("repository"), raw));
    let names = notify::Names::default();
    let known = known_stores(&main.raw, repository.as_ref());
    let context = job::Context {
        defaults: main.raw.defaults.as_ref().map(|raw| job::defaults(&top.key("defaults"), raw)).unwrap_or_default(),
        stores: known,
        repository: repository.as_ref(),
        notifiers: &names,
    };
    let mut made = Vec::new();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let inline = items(&main.raw.jobs).map(|(i, raw)| (None, top.key("jobs").index(i), raw));
    let files = jobs.iter().enumerate().map(|(i, doc)| {
        let scope = Scope { root: &doc.root, path: KeyPath::default(), world };
        (Some(i), scope, &doc.raw)
    });
    let all: Vec<_> = inline.chain(files).collect();
    names.written(&top.key("notify"), &main.raw.notify);
    for (_, scope, raw) in &all {
        names.written(&scope.key("notify"), &raw.notify);
    }
    let notifiers = notify::notify(&top.key("notify"), &main.raw.notify, None, &names);
    notify::shared_checks(&top.key("notify"), &notifiers, all.len());
    for (file, scope, raw) in all {
        if let Some(name) = &raw.job {
            let here = scope.key("job");
            match seen.get(name) {
                Some(first) => here.error(format!("'{}' names two jobs, first at {first}", shorten(name))),
                None => {
                    seen.insert(name.clone(), here.place());
                }
            }
        }
        made.push((file, scope.path.clone(), job::job(&scope, raw, &context)));
    }
    if made.is_empty() && main.raw.jobs.as_ref().is_none_or(Vec::is_empty) {
        top.warn("there are no jobs, so nothing is backed up; add them under 'jobs', or in jobs/*.yaml beside this file");
    }
    let agent = main.raw.agent.as_ref().map(|raw| running::agent(&top.key("agent"), raw)).unwrap_or_default();
    Made { repository, jobs: made, agent, notify: notifiers }
}

/// The stores' names as far as they can be told, also when something else is wrong with the repository.
fn known_stores(raw: &RawMain, repository: Option<&Repository>) -> Vec<(String, bool)> {
    if let Some(repository) = repository {
        return repository.stores.iter().map(|s| (s.name.clone(), s.optional)).collect();
    }
    let stores = raw.repository.as_ref().map(|r| items(&r.stores).map(|(_, s)| s));
    stores.into_iter().flatten().filter_map(|s| Some((s.name.clone()?, s.optional.unwrap_or(false)))).collect()
}
