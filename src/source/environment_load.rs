//! Restoring environment and compose artifacts: never by itself. They are written into `./drctl-restore-<date>/`, and drctl prints what
//! differs and the lines that would copy them. Values of variables are never printed.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::error::{Context, Error, Kind, Result};
use crate::format;
use crate::model::{ArtifactFormat, Facts, Sha256};
use crate::pipeline::plain::{Plain, PlainReceiver};
use crate::process::shell_word;
use crate::source::RunContext;
use crate::source::compose::ComposeDetails;
use crate::source::environment::{EnvironmentFrom, EnvironmentSettings};
use crate::source::environment_dotenv::{self as dotenv, Variables};
use crate::source::load::{Journal, LoadArtifact, LoadPlan, LoadProblem, LoadRequest, Loader};

/// Journal key of an artifact's file.
fn file_key(artifact: &str) -> String {
    format!("aside.file.{artifact}")
}

/// Journal key of all artifacts' names.
const FILES: &str = "aside.files";

/// Journal key of what there is to tell.
const LINES: &str = "aside.lines";

/// Lays environment and compose files aside for a person to copy.
pub struct AsideLoader {
    folder: PathBuf,
    live_environment: Option<EnvironmentSettings>,
}

impl AsideLoader {
    /// Writes below `folder` (usually the working folder). With `live_environment` variables are compared to those there now.
    pub fn new(folder: impl Into<PathBuf>, live_environment: Option<EnvironmentSettings>) -> Self {
        AsideLoader { folder: folder.into(), live_environment }
    }

    fn place(&self, request: &LoadRequest) -> PathBuf {
        let base = request.target.as_ref().map_or_else(|| self.folder.clone(), PathBuf::from);
        base.join(format!("drctl-restore-{}", request.as_of.strftime("%Y%m%d")))
    }

    /// Where an artifact would be written; an earlier restore's file is never overwritten.
    fn path(&self, request: &LoadRequest, artifact: &LoadArtifact) -> PathBuf {
        let plain = |name: &str| -> String {
            name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' }).collect()
        };
        let name = match artifact.artifact.format {
            ArtifactFormat::Env => format!("{}.env", plain(&request.source)),
            other => format!("{}.{}.{}", plain(&request.source), plain(&artifact.name), other.extension()),
        };
        let path = self.place(request).join(&name);
        if path.symlink_metadata().is_ok() { path.with_file_name(format!("{name}.{}", request.restore)) } else { path }
    }

    fn live_variables(&self) -> Option<Variables> {
        self.live_environment.as_ref()?.read().ok().map(|parsed| parsed.variables)
    }

    /// Where the artifact came from, when that is a file.
    fn live_path(&self, request: &LoadRequest, artifact: &LoadArtifact) -> Option<PathBuf> {
        match artifact.artifact.format {
            ArtifactFormat::Env => match self.live_environment.as_ref().map(|settings| &settings.from) {
                Some(EnvironmentFrom::File(path)) => Some(path.clone()),
                _ => None,
            },
            _ => compose_file(request, &artifact.name).map(|(path, _)| path),
        }
    }
}

fn compose_file(request: &LoadRequest, name: &str) -> Option<(PathBuf, Sha256)> {
    let details: ComposeDetails = serde_json::from_value(request.details.clone()).ok()?;
    details.files.into_iter().find(|file| file.name == name).map(|file| (PathBuf::from(file.path), file.plain_sha256))
}

/// Whether the set holds chosen lines of a file only: to copy them over it would lose the others.
fn is_part(request: &LoadRequest, artifact: &LoadArtifact) -> bool {
    artifact.artifact.format == ArtifactFormat::Env && request.details["whole"] == json!(false)
}

/// A path for a shell line.
fn quoted(path: &Path) -> String {
    shell_word(&path.display().to_string())
}

/// Names that differ, a line each; never a value.
fn differences(set: &Variables, live: &Variables) -> Vec<String> {
    let mut out = Vec::new();
    for (name, value) in set {
        match live.get(name) {
            None => out.push(format!("+ {name} (only in the set)")),
            Some(now) if now != value => out.push(format!("~ {name} (differs)")),
            Some(_) => {}
        }
    }
    out.extend(live.keys().filter(|name| !set.contains_key(*name)).map(|name| format!("- {name} (only here)")));
    out
}

#[async_trait]
impl Loader for AsideLoader {
    async fn plan(&self, request: &LoadRequest, _context: &RunContext) -> Result<LoadPlan> {
        let mut plan = LoadPlan { target: self.place(request).display().to_string(), ..LoadPlan::default() };
        for artifact in &request.artifacts {
            let path = self.path(request, artifact);
            plan.touches.push(format!("{} is written; nothing live is changed", path.display()));
            if artifact.artifact.format == ArtifactFormat::Env {
                let in_set: Vec<&str> = request.details["names"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                if let Some(live) = self.live_variables() {
                    let added = in_set.iter().filter(|name| !live.contains_key(**name)).map(|name| format!("+ {name} (only in the set)"));
                    let gone = live.keys().filter(|name| !in_set.contains(&name.as_str())).map(|name| format!("- {name} (only here)"));
                    plan.touches.extend(added.chain(gone));
                }
            } else if let Some((live, sha256)) = compose_file(request, &artifact.name) {
                plan.touches.push(match std::fs::read(&live) {
                    Ok(bytes) if Sha256::of(&bytes) == sha256 => format!("{} is as in the set", live.display()),
                    Ok(_) => format!("diff -u {} {}", quoted(&live), quoted(&path)),
                    Err(_) => format!("{} is not there any more", live.display()),
                });
            }
            if let Some(live) = self.live_path(request, artifact) {
                plan.touches.push(match is_part(request, artifact) {
                    true => format!("only a part of {}: its lines are put in there by hand", live.display()),
                    false => format!("cp {} {}", quoted(&path), quoted(&live)),
                });
            }
        }
        Ok(plan)
    }

    async fn load(
        &self,
        request: &LoadRequest,
        artifact: &LoadArtifact,
        mut input: PlainReceiver,
        journal: &dyn Journal,
        _context: &RunContext,
    ) -> Result<Vec<LoadProblem>> {
        let path = self.path(request, artifact);
        let mut names: Vec<String> = journal.get(FILES).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
        if !names.contains(&artifact.name) {
            names.push(artifact.name.clone());
        }
        journal.note(FILES, json!(names)).await?;
        journal.note(&file_key(&artifact.name), json!(path)).await?;
        let mut file = create(&path)?;
        let written = async {
            let mut left = artifact.artifact.plain_bytes;
            loop {
                match input.next().await {
                    Some(Plain::Data(bytes)) => {
                        left = left
                            .checked_sub(bytes.len() as u64)
                            .ok_or_else(|| Error::corrupt("the artifact is longer than its manifest says"))?;
                        file.write_all(&bytes).context(|| format!("write {}", path.display()))?;
                    }
                    Some(Plain::Cut) => {}
                    Some(Plain::End) => break,
                    None => return Err(Error::corrupt(format!("the stream of {} broke off", artifact.name))),
                }
            }
            file.sync_all().context(|| format!("write {}", path.display()))
        }
        .await;
        if written.is_err() {
            // What is not whole must not be found and copied.
            let _ = std::fs::remove_file(&path);
        }
        written.map(|()| Vec::new())
    }

    async fn count(&self, _request: &LoadRequest, artifact: &LoadArtifact, journal: &dyn Journal, _context: &RunContext) -> Result<Facts> {
        let path = written(journal, &artifact.name)?;
        let bytes = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
        let mut inspector = format::inspector(artifact.artifact.format);
        inspector.feed(&bytes)?;
        inspector.finish()
    }

    /// Changes nothing: notes what differs, and the lines that copy.
    async fn switch(&self, request: &LoadRequest, journal: &dyn Journal, _context: &RunContext) -> Result<()> {
        let mut lines = Vec::new();
        for artifact in &request.artifacts {
            let path = written(journal, &artifact.name)?;
            lines.push(format!("{}; nothing live was changed", path.display()));
            if artifact.artifact.format == ArtifactFormat::Env
                && let (Ok(bytes), Some(live)) = (std::fs::read(&path), self.live_variables())
            {
                lines.extend(differences(&dotenv::parse(&bytes).variables, &live));
            }
            if let Some(live) = self.live_path(request, artifact) {
                lines.push(match is_part(request, artifact) {
                    true => format!("it holds only a part of {0}: put its lines in there by hand", live.display()),
                    false => format!("to put it in place: cp {} {}", quoted(&path), quoted(&live)),
                });
            }
        }
        journal.note(LINES, json!(lines)).await
    }

    async fn discard(&self, journal: &dyn Journal, _context: &RunContext) -> Result<()> {
        let names: Vec<String> = journal.get(FILES).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
        for name in names {
            let path = written(journal, &name)?;
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).context(|| format!("remove {}", path.display())),
                _ => {}
            }
            if let Some(folder) = path.parent() {
                // Stays when something else is in it.
                let _ = std::fs::remove_dir(folder);
            }
        }
        Ok(())
    }

    async fn undo(&self, _journal: &dyn Journal, _context: &RunContext) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn finish(&self, _journal: &dyn Journal, _context: &RunContext) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The files laid aside, what differs, and the lines that copy.
    async fn kept(&self, journal: &dyn Journal, _context: &RunContext) -> Result<Vec<String>> {
        Ok(journal.get(LINES).and_then(|lines| serde_json::from_value(lines).ok()).unwrap_or_default())
    }

    fn traces(&self, journal: &dyn Journal) -> Vec<String> {
        let names: Vec<String> = journal.get(FILES).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
        let paths = names.iter().filter_map(|name| written(journal, name).ok()).filter(|path| path.exists());
        paths.map(|path| format!("{}: laid aside", path.display())).collect()
    }
}

fn written(journal: &dyn Journal, artifact: &str) -> Result<PathBuf> {
    let path = journal.get(&file_key(artifact)).and_then(|value| serde_json::from_value(value).ok());
    path.ok_or_else(|| Error::failed(format!("{artifact} was not loaded")))
}

/// A new file that only its owner reads, in a folder only its owner enters.
fn create(path: &Path) -> Result<std::fs::File> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).context(|| format!("create {}", folder.display()))?;
        if folder.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            return Err(Error::new(Kind::Preflight, format!("{} is a symbolic link", folder.display())).hint("remove it"));
        }
    }
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).context(|| format!("create {}", path.display()))
}
