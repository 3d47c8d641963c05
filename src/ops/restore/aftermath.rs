//! After a restore: undo it, finish it, give it up. Cleaning up what an interrupted one left is in [`super::sweep`].

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::ops::Setup;
use crate::ops::restore::Loaders;
use crate::ops::restore::journal::{Claimed, Phase, RestoreNote, SourceJournal, claim};
use crate::ops::restore::run::state;
use crate::source::load::Loader;
use crate::state::StateFile;

/// What can be done to an earlier restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Put the old data back.
    Undo,
    /// Drop what was kept aside.
    Finish,
    /// Forget it, and leave what it left.
    Forget,
}

impl Way {
    fn fits(self, phase: Phase) -> bool {
        match self {
            Way::Undo => matches!(phase, Phase::Switched | Phase::Switching | Phase::Loading),
            Way::Finish => matches!(phase, Phase::Switched | Phase::Undone | Phase::InPlace),
            Way::Forget => phase.leaves_something(),
        }
    }

    fn done(self) -> &'static str {
        match self {
            Way::Undo => "undone",
            Way::Finish => "finished",
            Way::Forget => "given up",
        }
    }
}

/// What would be done to an earlier restore; shown before it is done.
#[derive(Clone, Debug, Serialize)]
pub struct AftermathPlan {
    /// What is to be done.
    pub way: Way,
    /// The restore as it was noted.
    pub restore: RestoreNote,
    /// Now; ages are counted from here.
    pub now: Timestamp,
    /// A line each: what an undo makes live again, what a finish drops, with its size; what is left lying when the restore is given up.
    pub kept: Vec<String>,
    /// Sources that were loaded in place: an undo cannot bring them back.
    pub stay: Vec<String>,
}

/// What was done to an earlier restore.
#[derive(Clone, Debug, Serialize)]
pub struct AftermathReport {
    /// The restore's id.
    pub restore: String,
    /// Where it stands now.
    pub phase: Phase,
    /// A line for each thing done.
    pub done: Vec<String>,
    /// A line for each source with which it failed, and its way on: those are still to be done.
    pub failed: Vec<String>,
    /// What the process exits with.
    #[serde(skip)]
    pub exit_code: u8,
}

/// The restore meant: by id, or the newest that leaves something.
fn pick(state: &StateFile, id: Option<&str>, way: Way) -> Result<RestoreNote> {
    let verb = way.done();
    let notes = RestoreNote::all(state)?;
    match id {
        Some(id) => {
            let note = notes.into_iter().find(|n| n.restore == id);
            let note =
                note.ok_or_else(|| Error::new(Kind::NoSuchSet, format!("no restore {id} is known on this host")).hint("drctl status"))?;
            if note.is_running(state) {
                return Err(under_way(&note));
            }
            if way.fits(note.phase) {
                return Ok(note);
            }
            Err(Error::new(Kind::Preflight, format!("restore {id} cannot be {verb}: it is {}", note.words())))
        }
        None => notes.into_iter().rev().find(|n| way.fits(n.phase) && !n.is_running(state)).ok_or_else(|| {
            Error::new(Kind::NoSuchSet, format!("there is no restore on this host that could be {verb}")).hint("drctl status")
        }),
    }
}

fn under_way(note: &RestoreNote) -> Error {
    Error::new(Kind::Locked, format!("restore {} is under way as process {}", note.restore, note.process.pid))
        .hint("wait for its end, or stop that process (in another container it has another number)")
}

/// The same, in the hands of this process alone.
fn take(state: &StateFile, id: Option<&str>, way: Way) -> Result<Claimed> {
    let note = pick(state, id, way)?;
    let busy = || {
        Error::new(Kind::Locked, format!("another process works on restore {}", note.restore)).hint("wait for its end, then run this again")
    };
    let claimed = claim(state, &note)?.ok_or_else(busy)?;
    // Another process may have been quicker.
    if way.fits(claimed.note.phase) {
        return Ok(claimed);
    }
    let words = claimed.note.words();
    Err(Error::new(Kind::Preflight, format!("restore {} cannot be {}: it is {words}", note.restore, way.done())))
}

/// The lines that can be typed next.
pub fn ways_on(note: &RestoreNote) -> String {
    let id = &note.restore;
    match note.phase {
        Phase::Loading | Phase::Switching => format!("drctl restore --undo {id}   or, to give it up:   drctl restore --forget {id}"),
        Phase::InPlace => format!("{}   or, to give it up:   drctl restore --forget {id}", again_in_place(note)),
        Phase::Switched => format!("drctl restore --undo {id}   or   drctl restore --finish {id}"),
        Phase::Undone | Phase::Finished | Phase::Discarded | Phase::Forgotten => format!("drctl restore --finish {id}"),
    }
}

/// The line that loads the same in place once more, when nothing live is left to be saved.
fn again_in_place(note: &RestoreNote) -> String {
    let sources: Vec<String> = note.sources.iter().map(|(name, _)| format!(" --source {name}")).collect();
    // What could not be loaded once cannot be loaded the next time.
    let errors = if note.load_errors > 0 { format!(" --accept-load-errors {}", note.load_errors) } else { String::new() };
    format!("drctl restore {}{} --in-place --no-safety-set{errors}", note.set, sources.concat())
}

/// How to get at what a restore made of one source: its journal, and a loader. `None` where nothing was noted, and so nothing was made.
pub(super) fn part(
    state: &Arc<StateFile>,
    note: &RestoreNote,
    loaders: &dyn Loaders,
    (name, kind): &(String, String),
) -> Result<Option<(Arc<dyn Loader>, SourceJournal)>> {
    let journal = SourceJournal::open(state.clone(), &note.restore, name)?;
    if journal.is_empty() {
        return Ok(None);
    }
    // Where files went stands in the journal; where a database went, without a target, in the configuration alone.
    let knows_its_place = note.target.is_some() || kind != "postgres";
    let loader = loaders.loader(note.set.job(), name, kind, knows_its_place);
    let loader = loader.map_err(|e| {
        e.hint(format!("put source {name} back into the configuration and repeat; to give it up: drctl restore --forget {}", note.restore))
    })?;
    Ok(Some((loader, journal)))
}

/// The same error with every way on: a password that is never noted, and giving it up.
pub(super) fn explain(note: &RestoreNote, kind: &str, error: Error) -> Error {
    let mut ways: Vec<String> = error.hint_text().map(str::to_owned).into_iter().collect();
    if let Some(target) = &note.target
        && kind == "postgres"
        && (matches!(error.kind(), Kind::Preflight | Kind::Denied) || error.to_string().contains("password"))
    {
        ways.push(format!("the password of {target} is never noted: it is taken from PGPASSWORD or ~/.pgpass"));
    }
    if !ways.iter().any(|way| way.contains("drctl restore --")) {
        ways.push(format!("to give it up: drctl restore --forget {}", note.restore));
    }
    error.hint(ways.join("; "))
}

/// `SOURCE: why; what to do`.
pub(super) fn failure(name: &str, error: &Error) -> String {
    let hint = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{name}: {error}{hint}")
}

/// Says what [`undo`], [`finish`] or [`forget`] would do. Changes nothing.
pub async fn look(setup: &Setup, loaders: &dyn Loaders, id: Option<&str>, way: Way) -> Result<AftermathPlan> {
    let state = state(setup)?;
    let note = pick(&state, id, way)?;
    let kept = match way {
        Way::Forget => traces(&state, &note, loaders),
        Way::Undo | Way::Finish => kept(setup, &state, &note, loaders).await?,
    };
    let stay = note.sources.iter().filter(|(_, kind)| stays(&note, kind)).map(|(name, _)| name.clone()).collect();
    Ok(AftermathPlan { way, restore: note, now: setup.clock.now(), kept, stay })
}

/// What each source keeps; a line with the reason for one that cannot be asked. An error where none can.
async fn kept(setup: &Setup, state: &Arc<StateFile>, note: &RestoreNote, loaders: &dyn Loaders) -> Result<Vec<String>> {
    let (mut lines, mut asked, mut error) = (Vec::new(), 0, None);
    for source in &note.sources {
        match kept_by(setup, state, note, loaders, source).await {
            Ok(kept) => {
                asked += 1;
                lines.extend(kept);
            }
            Err(why) => {
                lines.push(format!("unknown: {}", failure(&source.0, &why)));
                error = error.or(Some(why));
            }
        }
    }
    match error {
        Some(error) if asked == 0 => Err(error.context(format!("look at what restore {} keeps", note.restore))),
        _ => Ok(lines),
    }
}

async fn kept_by(
    setup: &Setup,
    state: &Arc<StateFile>,
    note: &RestoreNote,
    loaders: &dyn Loaders,
    source: &(String, String),
) -> Result<Vec<String>> {
    let Some((loader, journal)) = part(state, note, loaders, source)? else { return Ok(Vec::new()) };
    let kept = loader.kept(&journal, &setup.context(&note.restore)).await;
    kept.map_err(|error| explain(note, &source.1, error))
}

/// What a restore may leave lying when it is given up. Nothing is asked of a server: it need not be there.
fn traces(state: &Arc<StateFile>, note: &RestoreNote, loaders: &dyn Loaders) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, kind) in &note.sources {
        let traces = || -> Result<Vec<String>> {
            let journal = SourceJournal::open(state.clone(), &note.restore, name)?;
            if journal.is_empty() {
                return Ok(Vec::new());
            }
            // One that is not configured any more can still tell by its kind.
            let loader = loaders.loader(note.set.job(), name, kind, true)?;
            Ok(loader.traces(&journal))
        };
        lines.extend(traces().unwrap_or_else(|error| vec![format!("unknown: {name}: {error}")]));
    }
    lines
}

/// Whether a source of this kind was loaded over the live data; files are laid beside even then.
fn stays(note: &RestoreNote, kind: &str) -> bool {
    note.in_place && kind != "files"
}

/// What came of each source: what was done, and the errors of those with which it failed.
#[derive(Default)]
struct Outcome {
    done: Vec<String>,
    failed: Vec<String>,
    error: Option<Error>,
}

impl Outcome {
    fn add(&mut self, note: &RestoreNote, (name, kind): &(String, String), outcome: Result<()>) {
        if let Err(error) = outcome {
            let error = explain(note, kind, error);
            self.failed.push(failure(name, &error));
            self.error.get_or_insert(error);
        }
    }

    /// An error where nothing was done; otherwise the report, with exit code 3 where something is left to do.
    fn report(self, note: &RestoreNote, way: Way) -> Result<AftermathReport> {
        let exit_code = match self.error {
            Some(error) if self.done.is_empty() && self.failed.len() == 1 => {
                return Err(error.context(format!("restore {} could not be {}", note.restore, way.done())));
            }
            Some(_) if !self.done.is_empty() => Kind::Partial.exit_code(),
            Some(error) => error.kind().exit_code(),
            None => 0,
        };
        Ok(AftermathReport { restore: note.restore.clone(), phase: note.phase, done: self.done, failed: self.failed, exit_code })
    }
}

/// Puts the old data back. An interrupted restore that never switched is cleaned up instead. A source with which that fails keeps no other: it
/// is told, and the restore stays noted.
pub async fn undo(setup: &Setup, loaders: &dyn Loaders, id: Option<&str>) -> Result<AftermathReport> {
    let state = state(setup)?;
    let mut claimed = take(&state, id, Way::Undo)?;
    let note = &mut claimed.note;
    let (mut outcome, mut kept) = (Outcome::default(), false);
    for source in note.sources.iter().rev() {
        let undone = undo_one(setup, &state, note, loaders, source, &mut outcome.done, &mut kept).await;
        outcome.add(note, source, undone);
    }
    if outcome.failed.is_empty() {
        note.phase = if note.phase != Phase::Loading && kept { Phase::Undone } else { Phase::Discarded };
        note.save(&state)?;
    }
    outcome.report(note, Way::Undo)
}

async fn undo_one(
    setup: &Setup,
    state: &Arc<StateFile>,
    note: &RestoreNote,
    loaders: &dyn Loaders,
    source: &(String, String),
    done: &mut Vec<String>,
    kept: &mut bool,
) -> Result<()> {
    let Some((loader, journal)) = part(state, note, loaders, source)? else { return Ok(()) };
    let context = setup.context(&note.restore);
    if stays(note, &source.1) {
        done.push(format!("{} was loaded in place and stays: its way back is the safety set", source.0));
    } else if note.phase != Phase::Loading {
        done.extend(loader.undo(&journal, &context).await?);
    }
    // What a crash kept from being switched in.
    loader.discard(&journal, &context).await?;
    *kept |= !loader.kept(&journal, &context).await?.is_empty();
    Ok(())
}

/// Drops what was kept aside. A source with which that fails keeps no other, as with [`undo`].
pub async fn finish(setup: &Setup, loaders: &dyn Loaders, id: Option<&str>) -> Result<AftermathReport> {
    let state = state(setup)?;
    let mut claimed = take(&state, id, Way::Finish)?;
    let note = &mut claimed.note;
    let mut outcome = Outcome::default();
    for source in &note.sources {
        let finished = finish_one(setup, &state, note, loaders, source, &mut outcome.done).await;
        outcome.add(note, source, finished);
    }
    if outcome.failed.is_empty() {
        note.phase = Phase::Finished;
        note.save(&state)?;
    }
    outcome.report(note, Way::Finish)
}

async fn finish_one(
    setup: &Setup,
    state: &Arc<StateFile>,
    note: &RestoreNote,
    loaders: &dyn Loaders,
    source: &(String, String),
    done: &mut Vec<String>,
) -> Result<()> {
    let Some((loader, journal)) = part(state, note, loaders, source)? else { return Ok(()) };
    let context = setup.context(&note.restore);
    let in_place = stays(note, &source.1);
    if in_place {
        loader.discard(&journal, &context).await?;
    }
    done.extend(loader.finish(&journal, &context).await?);
    // However it ended: a load in place keeps nothing but what is the last of its kind.
    if in_place && let Some(line) = loader.kept(&journal, &context).await?.first() {
        let what = format!("nothing else is left of what was live, so what was loaded of it stays: {line}");
        return Err(Error::new(Kind::Preflight, what).hint(format!(
            "restore it: {}   or, to give it up:   drctl restore --forget {}",
            again_in_place(note),
            note.restore
        )));
    }
    Ok(())
}

/// Gives a restore up: nothing it left is touched, and nobody is told of it any more. A person decides that, from what [`look`] showed.
pub fn forget(setup: &Setup, loaders: &dyn Loaders, id: &str) -> Result<AftermathReport> {
    let state = state(setup)?;
    let mut claimed = take(&state, Some(id), Way::Forget)?;
    let note = &mut claimed.note;
    let done = traces(&state, note, loaders).into_iter().map(|line| format!("left as it is: {line}")).collect();
    note.phase = Phase::Forgotten;
    note.save(&state)?;
    Outcome { done, ..Outcome::default() }.report(note, Way::Forget)
}

/// A restore of this host that leaves something.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The restore.
    pub restore: RestoreNote,
    /// Whether it is under way.
    pub running: bool,
    /// What it keeps aside.
    pub kept: Vec<String>,
}

/// Restores of this host that leave something, with what that is.
pub async fn standing(setup: &Setup, loaders: &dyn Loaders) -> Result<Vec<Standing>> {
    let Some(state) = &setup.state else { return Ok(Vec::new()) };
    let mut standing = Vec::new();
    for restore in RestoreNote::all(state)?.into_iter().filter(|n| n.phase.leaves_something()) {
        let running = restore.is_running(state);
        let mut kept = Vec::new();
        for source in &restore.sources {
            match kept_by(setup, state, &restore, loaders, source).await {
                Ok(lines) => kept.extend(lines),
                // What is under way keeps nothing yet.
                Err(_) if running => {}
                Err(error) => {
                    kept.push(format!("unknown: {}", failure(&source.0, &error)));
                }
            }
        }
        standing.push(Standing { restore, running, kept });
    }
    Ok(standing)
}
