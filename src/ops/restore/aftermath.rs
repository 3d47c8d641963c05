//! After a restore: undo it, finish it, clean up what an interrupted one left.

use std::sync::Arc;

use serde::Serialize;

use crate::error::{Context, Error, Kind, Result};
use crate::ops::Setup;
use crate::ops::restore::Loaders;
use crate::ops::restore::journal::{Phase, RestoreNote, SourceJournal};
use crate::ops::restore::run::state;
use crate::source::load::Loader;
use crate::state::StateFile;

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
fn pick(state: &StateFile, id: Option<&str>, fits: impl Fn(Phase) -> bool, verb: &str) -> Result<RestoreNote> {
    let notes = RestoreNote::all(state)?;
    match id {
        Some(id) => {
            let note = notes.into_iter().find(|n| n.restore == id);
            let note =
                note.ok_or_else(|| Error::new(Kind::NoSuchSet, format!("no restore {id} is known on this host")).hint("drctl status"))?;
            if fits(note.phase) {
                return Ok(note);
            }
            Err(Error::new(Kind::Preflight, format!("restore {id} cannot be {verb}: it is {}", phase_words(note.phase))))
        }
        None => notes.into_iter().rev().find(|n| fits(n.phase)).ok_or_else(|| {
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
        Phase::InPlace => "interrupted while loading in place",
        Phase::Undone => "undone, its data kept aside",
        Phase::Finished => "finished",
        Phase::Discarded => "discarded",
    }
}

fn parts(state: &Arc<StateFile>, note: &RestoreNote, loaders: &dyn Loaders) -> Result<Vec<(Arc<dyn Loader>, SourceJournal)>> {
    note.sources
        .iter()
        .map(|(name, kind)| Ok((loaders.loader(name, kind)?, SourceJournal::new(state.clone(), &note.restore, name))))
        .collect()
}

/// Puts the old data back. An interrupted restore that never switched is cleaned up instead.
pub async fn undo(setup: &Setup, loaders: &dyn Loaders, id: Option<&str>) -> Result<AftermathReport> {
    let state = state(setup)?;
    let mut note = pick(&state, id, |p| matches!(p, Phase::Switched | Phase::Switching | Phase::Loading), "undone")?;
    let context = setup.context(&note.restore);
    let mut done = Vec::new();
    let switched = note.phase != Phase::Loading;
    for (loader, journal) in parts(&state, &note, loaders)?.into_iter().rev() {
        if switched {
            done.extend(loader.undo(&journal, &context).await.context(|| format!("undo restore {}", note.restore))?);
        } else {
            loader.discard(&journal, &context).await?;
        }
    }
    note.phase = if switched { Phase::Undone } else { Phase::Discarded };
    note.save(&state)?;
    Ok(AftermathReport { restore: note.restore, phase: note.phase, done })
}

/// Drops what was kept aside.
pub async fn finish(setup: &Setup, loaders: &dyn Loaders, id: Option<&str>) -> Result<AftermathReport> {
    let state = state(setup)?;
    let mut note = pick(&state, id, |p| matches!(p, Phase::Switched | Phase::Undone), "finished")?;
    let context = setup.context(&note.restore);
    let mut done = Vec::new();
    for (loader, journal) in parts(&state, &note, loaders)? {
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
        if note.pid == std::process::id() || crate::state::process_is_alive(note.pid) {
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
