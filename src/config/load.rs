//! Files, environment and flags → [`Config`], or every problem at once.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::config::check::{self, Document, Told, World};
use crate::config::environment::Environment;
use crate::config::find;
use crate::config::problem::{KeyPath, Origin, Problem, Problems, sort};
use crate::config::raw::{RawJob, RawMain};
use crate::config::schema::{self, Schema};
use crate::config::tree::{self, Data, Entry, FILE_LIMIT, Node};
use crate::config::typed::Config;

/// Most job files beside one configuration.
const JOB_FILES: usize = 1000;

/// What the command line says about the configuration.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--state`.
    pub state: Option<PathBuf>,
    /// Flags that stand for settings.
    pub overlay: Overlay,
    /// The environment.
    pub environment: Environment,
    /// Look at the files that hold keys and secrets. `false` only where they are made later.
    pub look_at_files: bool,
}

impl LoadOptions {
    /// Nothing said on the command line.
    pub fn new(environment: Environment) -> Self {
        LoadOptions { config: None, state: None, overlay: Overlay::default(), environment, look_at_files: true }
    }
}

/// Settings given by flags. A flag wins over its environment variable, which wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// `--identity`, `DRCTL_IDENTITY`: the identity file.
    pub identity: Option<PathBuf>,
    /// `--signing-key`, `DRCTL_SIGNING_KEY`: the signing key's file.
    pub signing_key: Option<PathBuf>,
    /// `--codec`, `DRCTL_CODEC`: `zstd`, `zstd:3`, `gzip`, `none`.
    pub codec: Option<String>,
    /// `--decode-check`, `DRCTL_DECODE_CHECK`.
    pub decode_check: Option<bool>,
}

impl Overlay {
    /// Each setting: its keys, its name for messages, its text.
    fn settings(&self, environment: &Environment) -> Vec<(&'static [&'static str], String, String)> {
        // Paths of flags start from the working folder, not from the configuration file.
        let path = |p: &Path| environment.absolute(p).display().to_string();
        let table: [(&'static [&'static str], &str, &str, Option<String>); 4] = [
            (&["repository", "identity"], "--identity", "DRCTL_IDENTITY", self.identity.as_deref().map(path)),
            (&["repository", "signing_key"], "--signing-key", "DRCTL_SIGNING_KEY", self.signing_key.as_deref().map(path)),
            (&["repository", "codec"], "--codec", "DRCTL_CODEC", self.codec.clone()),
            (&["repository", "decode_check"], "--decode-check", "DRCTL_DECODE_CHECK", self.decode_check.map(|b| b.to_string())),
        ];
        let mut all = Vec::new();
        for (keys, flag, variable, given) in table {
            if let Some(text) = given {
                all.push((keys, flag.to_owned(), text));
            } else if let Some(text) = environment.get(variable) {
                let is_path = matches!(keys, [_, "identity" | "signing_key"]);
                let text = if is_path { path(Path::new(text)) } else { text.to_owned() };
                all.push((keys, variable.to_owned(), text));
            }
        }
        all
    }

    fn lay_over(&self, root: &mut Node, environment: &Environment) {
        for (keys, name, text) in self.settings(environment) {
            let node = Node::named(&name, &text);
            match (keys, text.split_once(':')) {
                ([_, "codec"], Some((codec, level))) => {
                    let entry = Entry { key: codec.to_owned(), origin: node.origin.clone(), node: Node::named(&name, level) };
                    root.put(keys, Node { origin: node.origin, data: Data::Map(vec![entry]) });
                }
                _ => root.put(keys, node),
            }
        }
    }
}

/// Finds and reads the configuration.
pub fn load(options: &LoadOptions) -> Result<Config, Problems> {
    let path = find::config_file(options.config.as_deref(), &options.environment)?;
    let mut told = Told::default();
    let mut reader = Files { options, problems: Vec::new(), files: Vec::new(), exposed: Vec::new() };
    let folder = path.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let main = reader.document::<RawMain>(&path, &schema::MAIN, true);
    let jobs: Vec<Document<RawJob>> =
        reader.job_files(&folder).iter().filter_map(|path| reader.document(path, &schema::JOB, false)).collect();
    let Files { problems, files, exposed, .. } = reader;
    told.errors.extend(problems);
    let Some(main) = main else { return Err(Problems::of(told.errors)) };
    let world = World {
        environment: &options.environment,
        folder: &folder,
        look_at_files: options.look_at_files,
        exposed,
        told: std::cell::RefCell::new(told),
    };
    let made = check::check(&main, &jobs, &world);
    let Told { errors, mut warnings } = world.told.into_inner();
    if !errors.is_empty() {
        return Err(Problems::of(errors));
    }
    let mut origins = BTreeMap::new();
    collect(&main.root, &KeyPath::default(), &KeyPath::default(), &mut origins);
    let mut all_jobs = Vec::new();
    for (index, (file, path, job)) in made.jobs.into_iter().enumerate() {
        let root = file.and_then(|i| jobs.get(i)).map_or(&main.root, |doc| &doc.root);
        let base = KeyPath::default().key("jobs").index(index);
        for key in ["timezone", "schedule", "retention", "objectives"] {
            let shared = KeyPath::default().key("defaults").key(key);
            if let Some(node) = main.root.at(&shared) {
                collect(node, &KeyPath::default(), &base.key(key), &mut origins);
            }
        }
        if let Some(node) = root.at(&path) {
            collect(node, &KeyPath::default(), &base, &mut origins);
        }
        all_jobs.extend(job);
    }
    // Without a finding everything was made; anything else is a mistake of ours, and refuses too.
    let Some(repository) = made.repository.filter(|_| all_jobs.len() == main_jobs(&main) + jobs.len()) else {
        return Err(Problems::one("the configuration was refused without a reason", "report this as a bug of drctl"));
    };
    sort(&mut warnings);
    Ok(Config {
        files,
        state: find::state_folder(options.state.as_deref(), &options.environment),
        folder,
        repository,
        jobs: all_jobs,
        agent: made.agent,
        notify: made.notify,
        warnings,
        origins,
    })
}

fn main_jobs(main: &Document<RawMain>) -> usize {
    main.raw.jobs.as_ref().map_or(0, Vec::len)
}

/// Notes where each value of `node` came from, below `base`.
fn collect(node: &Node, at: &KeyPath, base: &KeyPath, origins: &mut BTreeMap<String, String>) {
    node.leaves(at, &mut |path, origin| {
        origins.insert(path.below(base).to_string(), origin.to_string());
    });
}

struct Files<'a> {
    options: &'a LoadOptions,
    problems: Vec<Problem>,
    files: Vec<PathBuf>,
    /// Labels of files that others than their owner may read.
    exposed: Vec<(String, u32)>,
}

impl Files<'_> {
    /// The file as people know it: from the working folder where it lies there.
    fn label(&self, path: &Path) -> Arc<str> {
        path.strip_prefix(&self.options.environment.folder).unwrap_or(path).display().to_string().into()
    }

    fn refuse(&mut self, label: &Arc<str>, line: u32, column: u32, what: String) {
        let origin = Origin::File { file: label.clone(), line, column };
        self.problems.push(Problem { origin: Some(origin), path: KeyPath::default(), what });
    }

    fn document<T: DeserializeOwned + Default>(&mut self, path: &Path, schema: &Schema, main: bool) -> Option<Document<T>> {
        let label = self.label(path);
        let text = self.text(path, &label)?;
        let mut root = tree::parse(&text, &label, &self.options.environment, &mut self.problems)?;
        self.files.push(path.to_owned());
        if main {
            self.options.overlay.lay_over(&mut root, &self.options.environment);
        }
        let checked = schema::check(schema, &root);
        let clean = checked.problems.is_empty();
        self.problems.extend(checked.problems);
        let raw = match serde_json::from_value::<T>(checked.value) {
            Ok(raw) => raw,
            Err(e) => {
                // Types and schema are made from each other, so this is not expected; serde's words may repeat a value.
                if clean {
                    self.refuse(&label, 1, 1, format!("cannot be read ({:?} error)", e.classify()));
                }
                T::default()
            }
        };
        Some(Document { root, raw })
    }

    fn text(&mut self, path: &Path, label: &Arc<str>) -> Option<String> {
        let mut bytes = Vec::new();
        // Without waiting: a named pipe would hold us for ever.
        let open = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let read = open.and_then(|file| {
            let meta = file.metadata()?;
            if !meta.is_file() {
                return Err(std::io::Error::other("not a file"));
            }
            if meta.permissions().mode() & 0o077 != 0 {
                self.exposed.push((label.to_string(), meta.permissions().mode() & 0o7777));
            }
            file.take(FILE_LIMIT + 1).read_to_end(&mut bytes)
        });
        if let Err(e) = read {
            self.refuse(label, 1, 1, format!("cannot be read: {e}"));
            return None;
        }
        if bytes.len() as u64 > FILE_LIMIT {
            self.refuse(label, 1, 1, "larger than 1 MiB; that is no configuration".to_owned());
            return None;
        }
        match String::from_utf8(bytes) {
            Ok(text) => Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
            Err(e) => {
                let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
                let line = good.iter().filter(|b| **b == b'\n').count() + 1;
                let column = good.iter().rev().take_while(|b| **b != b'\n').count() + 1;
                let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                self.refuse(label, count(line), count(column), "not text in UTF-8".to_owned());
                None
            }
        }
    }

    /// `jobs/*.yaml` and `*.yml`, by name.
    fn job_files(&mut self, folder: &Path) -> Vec<PathBuf> {
        let jobs = folder.join(find::JOBS);
        let label = self.label(&jobs);
        let entries = match std::fs::read_dir(&jobs) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(e) => {
                self.refuse(&label, 1, 1, format!("cannot be read: {e}"));
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => {
                    let path = entry.path();
                    let hidden = entry.file_name().to_string_lossy().starts_with('.');
                    if !hidden && path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
                        found.push(path);
                    }
                }
                Err(e) => self.refuse(&label, 1, 1, format!("cannot be read: {e}")),
            }
        }
        found.sort();
        if found.len() > JOB_FILES {
            self.refuse(&label, 1, 1, format!("holds {} job files; at most {JOB_FILES} are read", found.len()));
            found.clear();
        }
        found
    }
}
