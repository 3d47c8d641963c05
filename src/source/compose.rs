//! Compose files, byte for byte, with the images they pin and the env files they name.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::model::artifact::Consistency;
use crate::model::{ArtifactFormat, Sha256};
use crate::pipeline::plain::PlainSender;
use crate::source::compose_references::{Reference, beside, references};
use crate::source::environment::read_bounded;
use crate::source::{ArtifactPlan, DumpEnd, Preflight, RunContext, Session, Source};

/// Longest compose file read.
const MAX_FILE: u64 = 16 << 20;

/// Most files of one project: whoever includes in a circle of links comes to an end.
const MAX_FILES: usize = 1000;

/// What to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComposeSettings {
    /// The files; relative ones count from the working folder. Each becomes an artifact named by its file name without `.yml`; so does what they
    /// name: env files, included and extended files, secrets and configs, overrides and `.env`.
    pub files: Vec<PathBuf>,
}

/// One file as the details keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ComposeFile {
    /// The artifact's name.
    pub name: String,
    /// Absolute path.
    pub path: String,
    /// SHA-256 of its bytes.
    pub plain_sha256: Sha256,
    /// Service to image.
    pub images: BTreeMap<String, String>,
    /// Files that services take variables from, as written.
    pub env_files: Vec<String>,
}

/// What the details hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ComposeDetails {
    pub files: Vec<ComposeFile>,
}

/// One file that was read.
struct Taken {
    file: ComposeFile,
    format: ArtifactFormat,
    bytes: Bytes,
}

/// Compose files of this machine.
pub struct ComposeSource {
    name: String,
    settings: ComposeSettings,
}

impl ComposeSource {
    /// A source.
    pub fn new(name: impl Into<String>, settings: ComposeSettings) -> Self {
        ComposeSource { name: name.into(), settings }
    }

    /// Every file: those of the settings, which must be there, and what these name, as far as it can be had.
    fn read(&self) -> Result<Project> {
        if self.settings.files.is_empty() {
            return Err(Error::new(Kind::Config, "a compose source names no files").hint("add `files: [docker-compose.yml]`"));
        }
        let mut project = Project::default();
        let mut named = VecDeque::new();
        for path in &self.settings.files {
            let bytes = read_bounded(path, MAX_FILE)?;
            let full = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            let folder = full.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
            // One that is listed itself stands for itself.
            let document = project.add(&full, bytes, ArtifactFormat::Yaml);
            named.extend(document.iter().flat_map(|document| references(document, &folder)).map(|reference| (full.clone(), reference)));
            named.extend(beside(&full, &folder).into_iter().map(|reference| (full.clone(), reference)));
        }
        project.listed = project.files.len();
        while let Some((by, reference)) = named.pop_front() {
            if project.has(&reference.path) {
                continue;
            }
            if project.files.len() >= MAX_FILES {
                project.problems.push(format!(
                    "the project has more than {MAX_FILES} files: {} and what follows is not in the set",
                    reference.path.display()
                ));
                break;
            }
            let Some((document, folder)) = project.follow(&by, &reference) else { continue };
            named.extend(references(&document, &folder).into_iter().map(|next| (reference.path.clone(), next)));
        }
        Ok(project)
    }
}

/// A compose project as it was found.
#[derive(Default)]
struct Project {
    files: Vec<Taken>,
    /// So many of them, the first, are those of the settings.
    listed: usize,
    warnings: Vec<String>,
    /// What is there and cannot be read.
    problems: Vec<String>,
}

impl Project {
    fn has(&self, path: &Path) -> bool {
        let path = path.display().to_string();
        self.files.iter().any(|taken| taken.file.path == path)
    }

    /// Keeps a file; gives what stands in it where it is a compose file that can be understood.
    fn add(&mut self, full: &Path, bytes: Vec<u8>, format: ArtifactFormat) -> Option<Value> {
        let path = full.display().to_string();
        let mut name = if format == ArtifactFormat::Yaml { stem(full) } else { file_name(full) };
        if self.files.iter().any(|taken| taken.file.name == name) {
            name = path.trim_start_matches('/').to_owned();
        }
        let document = (format == ArtifactFormat::Yaml).then(|| serde_saphyr::from_slice::<Value>(&bytes));
        let (images, env_files) = match &document {
            Some(Ok(document)) => (images(document), env_files(document)),
            Some(Err(_)) => {
                // The bytes are saved all the same. The parser's words could quote a secret.
                self.warnings.push(format!("{path} is not valid YAML; its images, and the files that it names, are not recorded"));
                Default::default()
            }
            None => Default::default(),
        };
        let file = ComposeFile { name, path, plain_sha256: Sha256::of(&bytes), images, env_files };
        self.files.push(Taken { file, format, bytes: Bytes::from(bytes) });
        document.and_then(Result::ok)
    }

    /// Takes a file that another names; gives what is to be followed from it, and from where. What cannot be taken is named.
    fn follow(&mut self, by: &Path, reference: &Reference) -> Option<(Value, PathBuf)> {
        let (by, key, path) = (by.display(), reference.key, reference.path.display());
        if reference.is_remote() {
            self.warnings.push(format!("{by} takes {path} ({key}) from elsewhere: it is not in the set"));
            return None;
        }
        if reference.depends_on_a_variable() {
            self.warnings
                .push(format!("{by} names {path} ({key}), which a variable decides: it is not in the set; list the file under `files:`"));
            return None;
        }
        match std::fs::metadata(&reference.path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => {
                self.warnings.push(format!("{by} names {path} ({key}), which is no file: it is not in the set; take it by a files source"));
                return None;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if !reference.optional {
                    self.warnings.push(format!("{by} names {path} ({key}), which is not there"));
                }
                return None;
            }
            // Looked at again where it is opened, which says why.
            Err(_) => {}
        }
        match read_bounded(&reference.path, MAX_FILE) {
            Ok(bytes) => {
                let format = if reference.compose.is_some() { ArtifactFormat::Yaml } else { ArtifactFormat::Raw };
                let document = self.add(&reference.path, bytes, format)?;
                Some((document, reference.compose.clone()?))
            }
            Err(error) => {
                let hint = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
                self.problems.push(format!("{by} names it ({key}): {error}{hint}"));
                None
            }
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into_owned())
}

/// `docker-compose.prod.yml` → `docker-compose.prod`.
fn stem(path: &Path) -> String {
    let name = path.file_name().map_or_else(|| "compose".into(), |n| n.to_string_lossy());
    name.strip_suffix(".yml").or_else(|| name.strip_suffix(".yaml")).filter(|s| !s.is_empty()).unwrap_or(&name).to_owned()
}

pub(super) fn services(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
    document.get("services").and_then(Value::as_object).into_iter().flatten()
}

fn images(document: &Value) -> BTreeMap<String, String> {
    services(document).filter_map(|(name, service)| Some((name.clone(), service.get("image")?.as_str()?.to_owned()))).collect()
}

/// `env_file: a`, `[a, b]` or `[{path: a}]`.
fn env_files(document: &Value) -> Vec<String> {
    let one = |value: &Value| value.as_str().or_else(|| value.get("path")?.as_str()).map(str::to_owned);
    let mut out: Vec<String> = services(document)
        .filter_map(|(_, service)| service.get("env_file"))
        .flat_map(|value| match value {
            Value::Array(list) => list.iter().filter_map(one).collect(),
            other => one(other).into_iter().collect::<Vec<_>>(),
        })
        .collect();
    out.sort();
    out.dedup();
    out
}

#[async_trait]
impl Source for ComposeSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "compose"
    }

    async fn preflight(&self, _context: &RunContext) -> Result<Preflight> {
        let Project { files, warnings, problems, .. } = self.read()?;
        let paths: Vec<&str> = files.iter().map(|taken| taken.file.path.as_str()).collect();
        let problems = problems.into_iter().map(|problem| Error::new(Kind::Preflight, problem)).collect();
        Ok(Preflight { warnings, problems, summary: paths.join(", "), ..Preflight::default() })
    }

    async fn open(&self, context: &RunContext) -> Result<Box<dyn Session>> {
        let as_of = context.clock.now();
        Ok(Box::new(ComposeSession { project: self.read()?, as_of }))
    }
}

struct ComposeSession {
    project: Project,
    as_of: Timestamp,
}

#[async_trait]
impl Session for ComposeSession {
    fn identity(&self) -> BTreeMap<String, String> {
        // Those of the settings come first; what they name comes and goes.
        let listed = self.project.files.iter().take(self.project.listed);
        let paths: Vec<&str> = listed.map(|taken| taken.file.path.as_str()).collect();
        BTreeMap::from([("files".to_owned(), paths.join("\n"))])
    }

    fn artifacts(&self) -> Vec<ArtifactPlan> {
        let plan = |taken: &Taken| ArtifactPlan {
            name: taken.file.name.clone(),
            format: taken.format,
            extension: None,
            expected_bytes: Some(taken.bytes.len() as u64),
            // Compose files carry passwords often enough.
            secret: true,
        };
        self.project.files.iter().map(plan).collect()
    }

    async fn dump(&mut self, artifact: &ArtifactPlan, out: PlainSender, _context: &RunContext) -> Result<DumpEnd> {
        let found = self.project.files.iter().find(|taken| taken.file.name == artifact.name);
        let Some(Taken { bytes, .. }) = found else {
            return Err(Error::failed(format!("there is no compose file '{}'", artifact.name)));
        };
        if !bytes.is_empty() {
            out.data(bytes.clone()).await?;
        }
        Ok(DumpEnd {
            exit_status: None,
            tool: None,
            consistency: Consistency::Snapshot,
            expected_totals: BTreeMap::from([("bytes".to_owned(), bytes.len() as u64)]),
        })
    }

    fn details(&self) -> Value {
        let details = ComposeDetails { files: self.project.files.iter().map(|taken| taken.file.clone()).collect() };
        serde_json::to_value(details).unwrap_or_default()
    }

    fn warnings(&self) -> Vec<String> {
        self.project.warnings.clone()
    }

    fn problems(&self) -> Vec<String> {
        self.project.problems.clone()
    }

    fn as_of(&self) -> Timestamp {
        self.as_of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_env_files_in_every_spelling() {
        let text = "x-base: &base {image: 'base:1'}\nservices:\n  a: {image: 'nginx:1.27@sha256:ab', env_file: .env}\n  b:\n    <<: *base\n    env_file: [b.env, {path: c.env, required: false}]\n  c: {build: .}\n  d:\n";
        let document: Value = serde_saphyr::from_slice(text.as_bytes()).unwrap();
        let found = images(&document);
        assert_eq!(found.get("a").unwrap(), "nginx:1.27@sha256:ab");
        assert_eq!(found.get("b").unwrap(), "base:1");
        assert_eq!(env_files(&document), [".env", "b.env", "c.env"]);
    }

    #[test]
    fn names() {
        for (path, name) in
            [("a/docker-compose.prod.yml", "docker-compose.prod"), ("compose.yaml", "compose"), (".yml", ".yml"), ("x", "x")]
        {
            assert_eq!(stem(Path::new(path)), name);
        }
    }
}
