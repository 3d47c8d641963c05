//! Compose files, byte for byte, with the images they pin and the env files they name.

use std::collections::BTreeMap;
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
use crate::source::environment::read_bounded;
use crate::source::{ArtifactPlan, DumpEnd, Preflight, RunContext, Session, Source};

/// Longest compose file read.
const MAX_FILE: u64 = 16 << 20;

/// What to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComposeSettings {
    /// The files; relative ones count from the working folder. Each becomes an artifact named by its file name without `.yml`.
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

/// What is known of each file, and its bytes.
type Files = Vec<(ComposeFile, Bytes)>;

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

    fn read(&self) -> Result<(Files, Vec<String>)> {
        if self.settings.files.is_empty() {
            return Err(Error::new(Kind::Config, "a compose source names no files").hint("add `files: [docker-compose.yml]`"));
        }
        let mut files: Files = Vec::new();
        let mut warnings = Vec::new();
        for path in &self.settings.files {
            let bytes = read_bounded(path, MAX_FILE)?;
            let full = std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
            let mut name = stem(path);
            if files.iter().any(|(file, _)| file.name == name) {
                name = full.trim_start_matches('/').to_owned();
            }
            let (images, env_files) = match serde_saphyr::from_slice::<Value>(&bytes) {
                Ok(document) => (images(&document), env_files(&document)),
                Err(_) => {
                    // The bytes are saved all the same. The parser's words could quote a secret.
                    warnings.push(format!("{full} is not valid YAML; its images are not recorded"));
                    Default::default()
                }
            };
            let file = ComposeFile { name, path: full, plain_sha256: Sha256::of(&bytes), images, env_files };
            files.push((file, Bytes::from(bytes)));
        }
        Ok((files, warnings))
    }
}

/// `docker-compose.prod.yml` → `docker-compose.prod`.
fn stem(path: &Path) -> String {
    let name = path.file_name().map_or_else(|| "compose".into(), |n| n.to_string_lossy());
    name.strip_suffix(".yml").or_else(|| name.strip_suffix(".yaml")).filter(|s| !s.is_empty()).unwrap_or(&name).to_owned()
}

fn services(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
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
        let (files, warnings) = self.read()?;
        let paths: Vec<&str> = files.iter().map(|(file, _)| file.path.as_str()).collect();
        Ok(Preflight { warnings, summary: paths.join(", "), ..Preflight::default() })
    }

    async fn open(&self, context: &RunContext) -> Result<Box<dyn Session>> {
        let as_of = context.clock.now();
        let (files, warnings) = self.read()?;
        Ok(Box::new(ComposeSession { files, warnings, as_of }))
    }
}

struct ComposeSession {
    files: Files,
    warnings: Vec<String>,
    as_of: Timestamp,
}

#[async_trait]
impl Session for ComposeSession {
    fn identity(&self) -> BTreeMap<String, String> {
        let paths: Vec<&str> = self.files.iter().map(|(file, _)| file.path.as_str()).collect();
        BTreeMap::from([("files".to_owned(), paths.join("\n"))])
    }

    fn artifacts(&self) -> Vec<ArtifactPlan> {
        let plan = |(file, bytes): &(ComposeFile, Bytes)| ArtifactPlan {
            name: file.name.clone(),
            format: ArtifactFormat::Yaml,
            extension: None,
            expected_bytes: Some(bytes.len() as u64),
            // Compose files carry passwords often enough.
            secret: true,
        };
        self.files.iter().map(plan).collect()
    }

    async fn dump(&mut self, artifact: &ArtifactPlan, out: PlainSender, _context: &RunContext) -> Result<DumpEnd> {
        let found = self.files.iter().find(|(file, _)| file.name == artifact.name);
        let Some((_, bytes)) = found else {
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
        let details = ComposeDetails { files: self.files.iter().map(|(file, _)| file.clone()).collect() };
        serde_json::to_value(details).unwrap_or_default()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
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
