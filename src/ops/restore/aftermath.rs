//! After a restore: undo it, finish it, clean up what an interrupted one left.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Context, Error, Kind, Result};
use crate::ops::Setup;
use crate::ops::restore::Loaders;
use crate::ops::restore::journal::{Phase, RestoreNote, SourceJournal};
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
}

impl Way {
    fn fits(self, phase: Phase) -> bool {
        match self {
            Way::Undo => matches!(phase, Phase::Switched | Phase::Switching | Phase::Loading),
            Way::Finish => matches!(phase, Phase::Switched | Phase::Undone | Phase::InPlace),
        }
    }

    fn done(self) -> &'static str {
        match self {
            Way::Undo => "undone",
            Way::Finish => "finished",
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
    /// What is kept aside, a line each with its size: what an undo makes live again, and what a finish drops.
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
            if note.is_running() {
                return Err(Error::new(Kind::Locked, format!("restore {id} is under way as process {}", note.process.pid))
                    .hint("wait for its end, or stop that process"));
            }
            if way.fits(note.phase) {
                return Ok(note);
            }
            Err(Error::new(Kind::Preflight, format!("restore {id} cannot be {verb}: it is {}", phase_words(note.phase))))
        }
        None => notes.into_iter().rev().find(|n| way.fits(n.phase) && !n.is_running()).ok_or_else(|| {
            Error::new(Kind::NoSuchSet, format!("there is no restore on this host that could be {verb}")).hint("drctl status")
        }),
    }
}

/// A phase in words for people.
pub fn phase_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Loading => "interrupted while loading; the live data is untouched",
        Phase::Switching => "interrupted in the switch",
        Phase::Switched => "live, the old data kept aside",
        Phase::InPlace => "interrupted while loading in place; the live data may be overwritten in part",
        Phase::Undone => "undone, its data kept aside",
        Phase::Finished => "finished",
        Phase::Discarded => "discarded",
    }
}

/// The lines that can be typed next.
pub fn ways_on(note: &RestoreNote) -> String {
    let id = &note.restore;
    match note.phase {
        Phase::Loading | Phase::Switching => format!("drctl restore --undo {id}"),
        Phase::InPlace => {
            let sources: Vec<String> = note.sources.iter().map(|(name, _)| format!(" --source {name}")).collect();
            format!("drctl restore {}{} --in-place --no-safety-set", note.set, sources.concat())
        }
        Phase::Switched => format!("drctl restore --undo {id}   or   drctl restore --finish {id}"),
        Phase::Undone | Phase::Finished | Phase::Discarded => format!("drctl restore --finish {id}"),
    }
}

fn parts(state: &Arc<StateFile>, note: &RestoreNote, loaders: &dyn Loaders) -> Result<Vec<(Arc<dyn Loader>, SourceJournal)>> {
    note.sources
        .iter()
        .map(|(name, kind)| {
            let loader = loaders.loader(note.set.job(), name, kind, note.target.is_some())?;
            Ok((loader, SourceJournal::open(state.clone(), &note.restore, name)?))
        })
        .collect()
}

/// Says what [`undo`] or [`finish`] would do. Changes nothing.
pub async fn look(setup: &Setup, loaders: &dyn Loaders, id: Option<&str>, way: Way) -> Result<AftermathPlan> {
    let state = state(setup)?;
    let note = pick(&state, id, way)?;
    let context = setup.context(&note.restore);
    let mut kept = Vec::new();
    for (loader, journal) in parts(&state, &note, loaders)? {
        kept.extend(loader.kept(&journal, &context).await.context(|| format!("look at what restore {} keeps", note.restore))?);
    }
    let stay = note.sources.iter().filter(|(_, kind)| stays(&note, kind)).map(|(name, _)| name.clone()).collect();
    Ok(AftermathPlan { way, restore: note, now: setup.clock.now(), kept, stay })
}

/// Whether a source of this kind was loaded over the live data; files are laid beside even then.
fn stays(note: &RestoreNote, kind: &str) -> bool {
    note.in_place && kind != "files"
}

/// Puts the old data back. An interrupted restore that never switched is cleaned up instead.
pub async fn undo(setup: &Setup, loaders: &dyn Loaders, id: Option<&str>) -> Result<AftermathReport> {
    let state = state(setup)?;
    let mut note = pick(&state, id, Way::Undo)?;
    let context = setup.context(&note.restore);
    let (mut done, mut kept) = (Vec::new(), false);
    let switched = note.phase != Phase::Loading;
    for ((name, kind), (loader, journal)) in note.sources.iter().zip(parts(&state, &note, loaders)?).rev() {
        if stays(&note, kind) {
            done.push(format!("{name} was loaded in place and stays: its way back is the safety set"));
        } else if switched {
            done.extend(loader.undo(&journal, &context).await.context(|| format!("undo restore {}", note.restore))?);
        }
        // What a crash kept from being switched in.
        loader.discard(&journal, &context).await.context(|| format!("clean up restore {}", note.restore))?;
        kept |= !loader.kept(&journal, &context).await?.is_empty();
    }
    note.phase = if switched && kept { Phase::Undone } else { Phase::Discarded };
    note.save(&state)?;
    Ok(AftermathReport { restore: note.restore, phase: note.phase, done })
}

/// Drops what was kept aside.
pub async fn finish(setup: &Setup, loaders: &dyn Loaders, id: Option<&str>) -> Result<AftermathReport> {
    let state = state(setup)?;
    let mut note = pick(&state, id, Way::Finish)?;
    let context = setup.context(&note.restore);
    let mut done = Vec::new();
    for (loader, journal) in parts(&state, &note, loaders)? {
        if note.phase == Phase::InPlace {
            loader.discard(&journal, &context).await.context(|| format!("clean up restore {}", note.restore))?;
        }
        done.extend(loader.finish(&journal, &context).await.context(|| format!("finish restore {}", note.restore))?);
    }
    note.phase = Phase::Finished;
    note.save(&state)?;
    Ok(AftermathReport { restore: note.restore, phase: note.phase, done })
}

/// Cleans up what restores left whose process is gone and that never switched; called before a new one begins (FAULTS 7).
pub async fn sweep(setup: &Setup, loaders: &dyn Loaders) -> Result<()> {
    let state = state(setup)?;
    for mut note in RestoreNote::all(&state)? {
        if note.is_running() {
            continue;
        }
        match note.phase {
            Phase::Loading => {
                setup.bus.step(format!("cleaning up the interrupted restore {}", note.restore));
                for (loader, journal) in parts(&state, &note, loaders)? {
                    loader.discard(&journal, &setup.context(&note.restore)).await?;
                }
                note.phase = Phase::Discarded;
                note.save(&state)?;
            }
            // The half-loaded copy goes; that the live data is not whole is still told until a restore has mended it.
            Phase::InPlace => {
                for (loader, journal) in parts(&state, &note, loaders)? {
                    loader.discard(&journal, &setup.context(&note.restore)).await?;
                }
            }
            Phase::Switching => {
                return Err(Error::new(Kind::Preflight, format!("restore {} was interrupted in its switch", note.restore))
                    .hint(format!("put the old data back first: drctl restore --undo {}", note.restore)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Restores of this host that leave something, with what that is.
pub async fn standing(setup: &Setup, loaders: &dyn Loaders) -> Result<Vec<(RestoreNote, Vec<String>)>> {
    let Some(state) = &setup.state else { return Ok(Vec::new()) };
    let mut standing = Vec::new();
    for note in RestoreNote::all(state)?.into_iter().filter(|n| n.phase.leaves_something()) {
        let mut kept = Vec::new();
        for part in parts(state, &note, loaders).into_iter().flatten() {
            match part.0.kept(&part.1, &setup.context(&note.restore)).await {
                Ok(lines) => kept.extend(lines),
                Err(error) => kept.push(format!("unknown: {error}")),
            }
        }
        standing.push((note, kept));
    }
    Ok(standing)
}
