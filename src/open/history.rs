//! The last good configurations, kept beside the state file so that a person can go back: `drctl config history`, `drctl config rollback`.
//!
//! ```text
//! <state>/config-history/20250101T020000Z-1a2b3c4d/drctl.yaml, jobs/shop.yaml …   0600, as they were
//! ```

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::config::typed::Config;
use crate::error::{Context as _, Error, Kind, Result};
use crate::model::Sha256;

/// How many are kept (SYSTEMS §5).
pub const KEPT: usize = 5;

/// One that was in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Names it: when it was first in use, and what it says.
    pub name: String,
    /// When it was first in use.
    pub since: String,
    /// Its files, from the configuration's folder.
    pub files: Vec<String>,
    /// Whether it is what stands there now.
    pub current: bool,
}

fn folder(config_state: &Path) -> PathBuf {
    config_state.join("config-history")
}

/// The files of a configuration by their names from its folder. Files elsewhere are none of ours.
fn files(config: &Config) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for path in &config.files {
        let Ok(below) = path.strip_prefix(&config.folder) else { continue };
        let bytes = std::fs::read(path).context(|| format!("read {}", path.display()))?;
        files.push((below.to_string_lossy().into_owned(), bytes));
    }
    files.sort();
    Ok(files)
}

fn digest(files: &[(String, Vec<u8>)]) -> String {
    let mut all = Vec::new();
    for (name, bytes) in files {
        all.extend_from_slice(name.as_bytes());
        all.push(0);
        all.extend_from_slice(&Sha256::of(bytes).0);
    }
    Sha256::of(&all).to_string()[..8].to_owned()
}

/// Keeps the files of a configuration that was just loaded; those beyond the newest [`KEPT`] go. Nothing is written when the newest kept one
/// says the same.
pub fn keep(config: &Config, now: Timestamp) -> Result<()> {
    let files = files(config)?;
    let own = digest(&files);
    let root = folder(&config.state);
    let mut names = names(&root)?;
    if names.last().is_some_and(|newest| newest.ends_with(&own)) {
        return Ok(());
    }
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    // Never before those that are there, whatever the clock says.
    let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let after = names.last().and_then(|newest| newest.get(..16)).map_or(stamp.clone(), |newest| stamp.max(newest.to_owned()));
    let name = format!("{after}-{own}");
    let beside = root.join(format!(".{name}"));
    let _ = std::fs::remove_dir_all(&beside);
    for (below, bytes) in &files {
        let path = beside.join(below);
        let parent = path.parent().unwrap_or(&beside);
        private.create(parent).context(|| format!("make {}", parent.display()))?;
        write_private(&path, bytes)?;
    }
    let whole = root.join(&name);
    if !whole.exists() {
        std::fs::rename(&beside, &whole).context(|| format!("keep {}", whole.display()))?;
        names.push(name);
    }
    for old in names.iter().rev().skip(KEPT) {
        let _ = std::fs::remove_dir_all(root.join(old));
    }
    Ok(())
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = opened.context(|| format!("write {}", path.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).context(|| format!("write {}", path.display()))
}

/// Names of those kept, oldest first.
fn names(root: &Path) -> Result<Vec<String>> {
    let listed = match std::fs::read_dir(root) {
        Ok(listed) => listed,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).context(|| format!("look into {}", root.display())),
    };
    let mut names: Vec<String> = listed.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.len() == 25 && !name.starts_with('.'));
    names.sort();
    Ok(names)
}

/// Those kept, newest first. `now` are the files as they stand there, where they can be read.
pub fn list(state: &Path, configuration: &Path) -> Result<Vec<Kept>> {
    let root = folder(state);
    let mut kept = Vec::new();
    for name in names(&root)?.into_iter().rev() {
        let files = stored(&root.join(&name))?;
        let same = |(below, bytes): &(String, Vec<u8>)| std::fs::read(configuration.join(below)).is_ok_and(|now| now == *bytes);
        kept.push(Kept {
            since: name[..16].to_owned(),
            current: files.iter().all(same),
            files: files.into_iter().map(|(below, _)| below).collect(),
            name,
        });
    }
    Ok(kept)
}

fn stored(root: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for below in ["", crate::config::find::JOBS] {
        let Ok(listed) = std::fs::read_dir(root.join(below)) else { continue };
        for entry in listed.flatten().filter(|entry| entry.path().is_file()) {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push((name, std::fs::read(&path).context(|| format!("read {}", path.display()))?));
        }
    }
    files.sort();
    Ok(files)
}

/// What a rollback did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RolledBack {
    /// The configuration that is in force again.
    pub to: String,
    /// Files that were written.
    pub written: Vec<String>,
    /// Job files that it did not have, laid aside under this name.
    pub aside: Vec<String>,
}

/// Puts the files of a kept configuration back: the one named, or the newest that is not what stands there. What stands there is laid aside
/// beside itself as `NAME.before-rollback`. [`Kind::NoSuchSet`] when there is none such.
pub fn roll_back(state: &Path, configuration: &Path, wanted: Option<&str>) -> Result<RolledBack> {
    let kept = list(state, configuration)?;
    let chosen = match wanted {
        Some(name) => kept.iter().find(|kept| kept.name == name || kept.name.ends_with(name)),
        None => kept.iter().find(|kept| !kept.current),
    };
    let chosen = chosen.ok_or_else(|| {
        Error::new(Kind::NoSuchSet, "there is no such configuration to go back to").hint("see what was kept: drctl config history")
    })?;
    let files = stored(&folder(state).join(&chosen.name))?;
    let mut done = RolledBack { to: chosen.name.clone(), written: Vec::new(), aside: Vec::new() };
    let jobs = configuration.join(crate::config::find::JOBS);
    for entry in std::fs::read_dir(&jobs).into_iter().flatten().flatten() {
        let path = entry.path();
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        let below = path.strip_prefix(configuration).unwrap_or(&path).to_string_lossy().into_owned();
        if yaml && !files.iter().any(|(name, _)| *name == below) {
            let aside = with_suffix(&path);
            std::fs::rename(&path, &aside).context(|| format!("lay {} aside", path.display()))?;
            done.aside.push(aside.display().to_string());
        }
    }
    for (below, bytes) in files {
        let path = configuration.join(&below);
        match std::fs::read(&path) {
            Ok(now) if now == bytes => continue,
            Ok(now) => write_private(&with_suffix(&path), &now)?,
            Err(_) => {}
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).context(|| format!("make {}", parent.display()))?;
        }
        // Beside and renamed: whoever reads meanwhile reads one or the other.
        let beside = configuration.join(format!(".{}.rollback", below.replace('/', "-")));
        write_private(&beside, &bytes)?;
        std::fs::rename(&beside, &path).context(|| format!("write {}", path.display()))?;
        done.written.push(path.display().to_string());
    }
    Ok(done)
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".before-rollback");
    PathBuf::from(name)
}
