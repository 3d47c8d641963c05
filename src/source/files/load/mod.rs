//! The way back for files: extracted beside the live data, counted, put in place at the end, undoable.
//!
//! `<path>.drctl-<restore>` is extracted beside each path, on its file system, and exchanged with it in one step; the old data then
//! lies as `<path>.drctl-old-<restore>` until `finish`. Mount points, and sets that hold only a part of a folder, are merged entry by
//! entry instead (see [`merge`]). With a target all of it is extracted there and nothing is switched.

mod exchange;
mod extract;
mod look;
mod merge;
mod place;
mod plan;
mod state;
mod tree;

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::format::tar::{Totals, Walker};
use crate::model::Facts;
use crate::pipeline::plain::{Plain, PlainReceiver};
use crate::source::RunContext;
use crate::source::files::mounts::Mounts;
use crate::source::files::names::{Beside, is_id};
use crate::source::files::report::Listed;
use crate::source::files::roots::{RootRecord, absolute};
use crate::source::files::sys::Identity;
use crate::source::files::{FilesSettings, blocking};
use crate::source::load::{Journal, LoadArtifact, LoadPlan, LoadProblem, LoadRequest, Loader};
use extract::{Extractor, Place};
use state::{Mode, Progress, RootState, State, Switch, note_progress, note_stages, open_folder, progress, stages};

/// Journal key: what was extracted into a target is complete and handed over.
const DELIVERED: &str = "files.delivered";

/// Brings files back.
pub struct FilesLoader {
    settings: FilesSettings,
}

impl FilesLoader {
    /// A loader for a source with these settings. What was taken, and from where, is read from the set; the settings only tell
    /// whether the paths are still configured.
    pub fn new(settings: FilesSettings) -> Self {
        FilesLoader { settings }
    }
}

fn read_state(journal: &dyn Journal) -> Result<State> {
    State::read(journal)?.ok_or_else(|| Error::failed("no files were loaded by this restore"))
}

/// Decides where everything goes; the only thing made are missing folders on the way, noted first.
fn prepare(request: &LoadRequest) -> Result<State> {
    if !is_id(request.restore.as_bytes()) {
        return Err(Error::failed(format!("'{}' is no id of a restore", request.restore.escape_debug())));
    }
    let details = state::details(&request.details)?;
    let filter = details.filter()?;
    if let Some(target) = &request.target {
        let target = PathBuf::from(absolute(Path::new(target))?);
        if !place::is_empty_or_absent(&target)? {
            return Err(Error::new(Kind::Preflight, format!("{} is not empty", target.display()))
                .hint("name a folder that is empty or does not exist"));
        }
        let made = place::to_make(&target);
        return Ok(State { restore: request.restore.clone(), target: Some(target), made, roots: Vec::new(), details });
    }
    let mounts = Mounts::of_machine()?;
    let mut roots = Vec::new();
    let mut made: Vec<PathBuf> = Vec::new();
    for placed in place::place_all(&details, &filter, &mounts)? {
        if placed.part_of.is_some() {
            continue;
        }
        if let Some(refusal) = placed.refusal {
            return Err(Error::new(Kind::Preflight, refusal));
        }
        for folder in place::to_make(&placed.root.base) {
            if !made.contains(&folder) {
                made.push(folder);
            }
        }
        roots.push(placed.root);
    }
    Ok(State { restore: request.restore.clone(), target: None, made, roots, details })
}

/// The extractor's places for a restore.
fn places(state: &State) -> Result<Vec<Place>> {
    let parts = |name: &str| name.split('/').filter(|p| !p.is_empty()).map(|p| p.as_bytes().to_vec()).collect();
    match &state.target {
        Some(target) => Ok(vec![Place { prefix: Vec::new(), base: open_folder(target)?, top: None }]),
        None => state
            .roots
            .iter()
            .map(|root| {
                Ok(Place { prefix: parts(&root.record.name), base: root.open_base()?, top: Some(root.tree(Beside::Stage, &state.restore)) })
            })
            .collect(),
    }
}

/// Takes the stream and extracts. Anything but a good end of stream and archive is an error; what was made stays for `discard`.
fn extract(state: &State, facts: &Facts, mut input: PlainReceiver, cancel: &CancellationToken) -> Result<Listed> {
    for folder in &state.made {
        match std::fs::create_dir(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::new(crate::error::io_kind(&e), format!("create {}", folder.display())).because(e));
            }
            _ => {}
        }
    }
    let limits = Totals::of_facts(facts);
    let mut extractor = Extractor::new(places(state)?, limits.clone());
    let mut walker = Walker::new();
    loop {
        if cancel.is_cancelled() {
            return Err(Error::new(Kind::Interrupted, "the restore was stopped"));
        }
        fail::fail_point!("files::extracting");
        match input.blocking_next() {
            Some(Plain::Data(bytes)) => walker.feed(&bytes, &mut extractor)?,
            Some(Plain::Cut) => {}
            Some(Plain::End) => break,
            None => return Err(Error::corrupt("the stream of files broke off")),
        }
    }
    walker.finish()?;
    let (seen, warnings) = extractor.finish()?;
    if seen != limits {
        return Err(Error::corrupt("the archive holds less than was counted when it was made"));
    }
    Ok(warnings)
}

/// Removes the trees of some sorts, and says which were there. One that cannot be removed keeps no other.
fn remove_trees(state: &State, sorts: &[Beside]) -> Result<Vec<String>> {
    let (mut out, mut result) = (Vec::new(), Ok(()));
    for root in &state.roots {
        // The folder itself may be gone by now.
        let Ok(base) = root.open_base() else { continue };
        for sort in sorts {
            let name = root.tree(*sort, &state.restore);
            if crate::source::files::sys::lstat_opt(base.as_fd(), &name).ok().flatten().is_some() {
                let removed = tree::remove(base.as_fd(), &name);
                if removed.is_ok() && *sort != Beside::Stage {
                    out.push(format!("removed {}", root.tree_path(*sort, &state.restore).display()));
                }
                result = result.and(removed);
            }
        }
        let _ = rustix::fs::fsync(&base);
    }
    result.map(|()| out)
}

/// Removes the lists of the merges' steps.
fn remove_steps(state: &State) -> Result<()> {
    for root in &state.roots {
        if let Ok(base) = root.open_base() {
            tree::remove(base.as_fd(), &root.steps(&state.restore))?;
        }
    }
    Ok(())
}

/// Whether `finish` would remove nothing but what a root's switch put aside, and nothing that may be the last of its kind. Looks only.
fn check_finish(root: &RootState, restore: &str, at: &Progress) -> Result<()> {
    let base = root.open_base()?;
    let found = |sort| exchange::id(base.as_fd(), &root.tree(sort, restore));
    let shown = |sort| root.tree_path(sort, restore).display().to_string();
    let gone = !root.name.is_empty() && exchange::id(base.as_fd(), root.name.as_bytes())?.is_none();
    let last = |sort, way: String| {
        let what = format!("nothing is at {}, and {} would be removed: it may be the last copy", root.live().display(), shown(sort));
        Err(Error::new(Kind::Preflight, what).hint(way))
    };
    if at.undone && gone && found(Beside::Undone)?.is_some() {
        return last(Beside::Undone, format!("move it to {}, or away", root.live().display()));
    }
    let Some(kept) = found(Beside::Old)? else { return Ok(()) };
    match at.switch {
        Switch::Merge if at.undone => merge::nothing_left(root, restore),
        Switch::Exchange { old, .. } if at.undone || !exchange::is(Some(kept), old) => {
            let why = if at.undone { "should have been put back by the undo" } else { "is not what this restore put aside" };
            Err(Error::failed(format!("{} {why}; it is left alone", shown(Beside::Old))).hint("look at it, and move it away"))
        }
        Switch::Exchange { .. } | Switch::Merge if gone => {
            last(Beside::Old, format!("put it back: drctl restore --undo {restore}; or move it away"))
        }
        _ => Ok(()),
    }
}

/// Removes what a load made and nothing else. Roots whose switch has begun are left to `undo`.
fn discard(state: &State, begun: &[bool]) -> Result<()> {
    if let Some(target) = &state.target {
        let Ok(fd) = open_folder(target) else { return Ok(()) };
        // The folder was empty when the load began; only what the archive can have made in it is removed.
        let tops: Vec<Vec<u8>> =
            state.details.roots.iter().map(|root| root.name.split('/').next().unwrap_or_default().as_bytes().to_vec()).collect();
        for name in std::fs::read_dir(target).into_iter().flatten().flatten() {
            let name = name.file_name();
            if tops.iter().any(|top| top.is_empty() || top == name.as_bytes()) {
                tree::remove(fd.as_fd(), name.as_bytes())?;
            }
        }
    } else {
        let roots = state.roots.iter().zip(begun).filter(|(_, begun)| !**begun).map(|(root, _)| root.clone()).collect();
        let begins = State { roots, ..state.clone() };
        remove_trees(&begins, &[Beside::Stage])?;
        remove_steps(&begins)?;
    }
    for folder in state.made.iter().rev() {
        // Stays when something else is in it by now.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}

fn begun(state: &State, journal: &dyn Journal) -> Result<Vec<bool>> {
    (0..state.roots.len()).map(|index| Ok(progress(journal, index)?.is_some())).collect()
}

/// The stage of a root as it is now.
fn stage(root: &RootState, restore: &str) -> Result<Option<Identity>> {
    exchange::id(root.open_base()?.as_fd(), &root.tree(Beside::Stage, restore))
}

/// What must be noted before a root is touched. `loaded` is the stage as it was noted after extraction.
fn begin(root: &RootState, state: &State, loaded: Option<Identity>) -> Result<Switch> {
    let new = stage(root, &state.restore)?;
    if !(exchange::is(new, loaded) || new.is_none() && loaded.is_none()) {
        let path = root.tree_path(Beside::Stage, &state.restore);
        return Err(Error::failed(format!("{} is not what was loaded", path.display())).hint("drctl restore again"));
    }
    if root.mode == Mode::Merge {
        return Ok(if merge::plan(root, state)? { Switch::Merge } else { Switch::Nothing });
    }
    let base = root.open_base()?;
    if new.is_some() {
        Mounts::of_machine()?.refuse_within(&root.live(), "exchange")?;
    }
    let old = exchange::id(base.as_fd(), root.name.as_bytes())?;
    Ok(new.map_or(Switch::Nothing, |new| Switch::Exchange { new, old }))
}

#[async_trait]
impl Loader for FilesLoader {
    async fn plan(&self, request: &LoadRequest, _context: &RunContext) -> Result<LoadPlan> {
        let (settings, request) = (self.settings.clone(), request.clone());
        blocking(move || plan::plan(&settings, &request)).await
    }

    async fn load(
        &self,
        request: &LoadRequest,
        artifact: &LoadArtifact,
        input: PlainReceiver,
        journal: &dyn Journal,
        context: &RunContext,
    ) -> Result<Vec<LoadProblem>> {
        if let Some(earlier) = State::read(journal)? {
            // The same restore, tried again after a crash.
            let begun = begun(&earlier, journal)?;
            if begun.contains(&true) {
                return Err(Error::failed("the switch of this restore has begun").hint("drctl restore --undo, or --finish"));
            }
            blocking(move || discard(&earlier, &begun)).await?;
        }
        let planned = request.clone();
        let state = blocking(move || prepare(&planned)).await?;
        let taken =
            state.roots.iter().map(|root| root.tree_path(Beside::Stage, &state.restore)).find(|path| path.symlink_metadata().is_ok());
        if let Some(path) = taken {
            return Err(Error::new(Kind::Preflight, format!("{} is there already", path.display())).hint("move it away"));
        }
        state.note(journal).await?;
        let (facts, cancel) = (artifact.facts.clone(), context.cancel.clone());
        let working = state.clone();
        let (warnings, stages) = blocking(move || {
            let warnings = extract(&working, &facts, input, &cancel).inspect_err(|_| {
                // The error that began it counts; leftovers are found by name and journal.
                let _ = discard(&working, &vec![false; working.roots.len()]);
            })?;
            let stages: Vec<_> = working.roots.iter().map(|root| stage(root, &working.restore)).collect::<Result<_>>()?;
            Ok((warnings, stages))
        })
        .await?;
        note_stages(journal, &stages).await?;
        for sentence in warnings.sentences(|path, what| format!("{path}: {what}")) {
            context.bus.warn(sentence);
        }
        Ok(Vec::new())
    }

    async fn count(&self, _request: &LoadRequest, _artifact: &LoadArtifact, journal: &dyn Journal, _context: &RunContext) -> Result<Facts> {
        let state = read_state(journal)?;
        blocking(move || {
            let mut sum = Totals::default();
            let mut add = |base: std::os::fd::BorrowedFd<'_>, name: &[u8]| -> Result<()> {
                if crate::source::files::sys::lstat_opt(base, name).ok().flatten().is_none() {
                    return Ok(());
                }
                let found = tree::totals(base, name)?;
                for (total, more) in [
                    (&mut sum.files, found.files),
                    (&mut sum.dirs, found.dirs),
                    (&mut sum.symlinks, found.symlinks),
                    (&mut sum.hardlinks, found.hardlinks),
                    (&mut sum.others, found.others),
                    (&mut sum.bytes, found.bytes),
                ] {
                    *total += more;
                }
                Ok(())
            };
            match &state.target {
                Some(target) => {
                    let roots = &state.details.roots;
                    // What lies in another root is counted with it.
                    let inner = |root: &RootRecord| roots.iter().any(|o| o.name != root.name && Path::new(&root.path).starts_with(&o.path));
                    for root in roots.iter().filter(|root| !inner(root)) {
                        let path = target.join(&root.name);
                        let (parent, name) = match (path.parent(), path.file_name()) {
                            _ if root.name.is_empty() => (target.as_path(), std::ffi::OsStr::new(".")),
                            (Some(parent), Some(name)) => (parent, name),
                            _ => continue,
                        };
                        if let Ok(parent) = open_folder(parent) {
                            add(parent.as_fd(), name.as_bytes())?;
                        }
                    }
                }
                None => {
                    for root in &state.roots {
                        add(root.open_base()?.as_fd(), &root.tree(Beside::Stage, &state.restore))?;
                    }
                }
            }
            Ok(sum.facts())
        })
        .await
    }

    async fn switch(&self, _request: &LoadRequest, journal: &dyn Journal, _context: &RunContext) -> Result<()> {
        let state = read_state(journal)?;
        if state.target.is_some() {
            // From here on the extracted files are the user's: never discarded.
            return journal.note(DELIVERED, serde_json::Value::Bool(true)).await;
        }
        // All that can be found to stand in the way is found before anything is changed.
        let loaded = stages(journal)?;
        let mut begins = Vec::new();
        for (index, root) in state.roots.iter().enumerate() {
            let Some(loaded) = loaded.get(index).copied() else { return Err(Error::corrupt("the journal of a files restore")) };
            begins.push(match progress(journal, index)? {
                Some(_) => None,
                None => {
                    let (root, state) = (root.clone(), state.clone());
                    Some(blocking(move || begin(&root, &state, loaded)).await?)
                }
            });
        }
        for ((index, root), begun) in state.roots.iter().enumerate().zip(begins) {
            let (root, state) = (root.clone(), state.clone());
            let mut at = match progress(journal, index)? {
                Some(at) if at.undone => return Err(Error::failed("this restore was undone already").hint("drctl restore again")),
                Some(at) if at.done => continue,
                Some(at) => at,
                None => {
                    let switch = begun.unwrap_or(Switch::Nothing);
                    let at = Progress { switch, done: false, undone: false };
                    note_progress(journal, index, at).await?;
                    at
                }
            };
            let switch = at.switch;
            blocking(move || match switch {
                Switch::Exchange { new, old } => exchange::switch(&root, &state.restore, new, old),
                Switch::Merge => merge::run(&root, &state.restore),
                Switch::Nothing => Ok(()),
            })
            .await?;
            fail::fail_point!("files::exchanged");
            at.done = true;
            note_progress(journal, index, at).await?;
        }
        Ok(())
    }

    async fn discard(&self, journal: &dyn Journal, _context: &RunContext) -> Result<()> {
        let Some(state) = State::read(journal)? else { return Ok(()) };
        if journal.get(DELIVERED).is_some() {
            return Ok(());
        }
        let begun = begun(&state, journal)?;
        blocking(move || discard(&state, &begun)).await
    }

    async fn undo(&self, journal: &dyn Journal, _context: &RunContext) -> Result<Vec<String>> {
        let Some(state) = State::read(journal)? else { return Ok(Vec::new()) };
        let mut done = Vec::new();
        for (index, root) in state.roots.iter().enumerate().rev() {
            let Some(mut at) = progress(journal, index)? else { continue };
            if at.undone {
                continue;
            }
            let (working, restore, switch) = (root.clone(), state.restore.clone(), at.switch);
            let line = blocking(move || match switch {
                Switch::Exchange { new, old } => exchange::undo(&working, &restore, new, old),
                Switch::Merge => merge::undo(&working, &restore).map(Some),
                Switch::Nothing => Ok(None),
            })
            .await?;
            done.extend(line);
            at.undone = true;
            note_progress(journal, index, at).await?;
        }
        let begun = vec![false; state.roots.len()];
        blocking(move || {
            remove_trees(&State { roots: state.roots.iter().zip(begun).map(|(r, _)| r.clone()).collect(), ..state }, &[Beside::Stage])
        })
        .await?;
        Ok(done)
    }

    async fn finish(&self, journal: &dyn Journal, _context: &RunContext) -> Result<Vec<String>> {
        let Some(state) = State::read(journal)? else { return Ok(Vec::new()) };
        let mut ends = Vec::new();
        for index in 0..state.roots.len() {
            let at = progress(journal, index)?;
            if at.is_some_and(|at| !at.done && !at.undone) {
                return Err(Error::failed("the switch of this restore was not completed").hint("drctl restore --undo"));
            }
            ends.push(at);
        }
        blocking(move || {
            for (root, at) in state.roots.iter().zip(&ends) {
                // The folder itself may be gone by now.
                if let Some(at) = at
                    && root.base.exists()
                {
                    check_finish(root, &state.restore, at)?;
                }
            }
            let done = remove_trees(&state, &[Beside::Old, Beside::Undone, Beside::Stage])?;
            remove_steps(&state)?;
            Ok(done)
        })
        .await
    }

    async fn kept(&self, journal: &dyn Journal, _context: &RunContext) -> Result<Vec<String>> {
        let Some(state) = State::read(journal)? else { return Ok(Vec::new()) };
        blocking(move || {
            let mut out = Vec::new();
            for root in &state.roots {
                let Ok(base) = root.open_base() else { continue };
                for sort in [Beside::Old, Beside::Undone] {
                    let name = root.tree(sort, &state.restore);
                    if crate::source::files::sys::lstat_opt(base.as_fd(), &name).ok().flatten().is_some() {
                        let measured = tree::measure(base.as_fd(), &name, std::time::Duration::from_secs(2));
                        out.push(format!("{}: {measured}", root.tree_path(sort, &state.restore).display()));
                    }
                }
            }
            Ok(out)
        })
        .await
    }

    fn traces(&self, journal: &dyn Journal) -> Vec<String> {
        let state = match State::read(journal) {
            Ok(Some(state)) => state,
            Ok(None) => return Vec::new(),
            Err(error) => return vec![format!("unknown: {error}")],
        };
        let there = |path: &Path| path.symlink_metadata().is_ok();
        if let Some(target) = state.target.as_ref().filter(|target| journal.get(DELIVERED).is_none() && there(target)) {
            return vec![format!("{}: what was extracted so far", target.display())];
        }
        let sorts = [
            (Beside::Stage, "what was extracted, or in the midst of a switch what was live before"),
            (Beside::Old, "what was live before"),
            (Beside::Undone, "what was live from the restore to its undo"),
        ];
        let trees = state.roots.iter().flat_map(|root| sorts.map(|(sort, what)| (root.tree_path(sort, &state.restore), what)));
        trees.filter(|(path, _)| there(path)).map(|(path, what)| format!("{}: {what}", path.display())).collect()
    }
}
