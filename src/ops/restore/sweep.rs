//! Before a restore begins: what earlier ones left that were interrupted is cleaned up (FAULTS 7). What cannot be cleaned up is told with its way
//! on and keeps no other restore, but for a switch that broke off in the very sources that are to be restored.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::ops::Setup;
use crate::ops::dump::interrupted;
use crate::ops::restore::Loaders;
use crate::ops::restore::aftermath::{explain, failure, part};
use crate::ops::restore::journal::{Phase, RestoreNote, SourceJournal, claim};
use crate::ops::restore::plan::{Prepared, RestorePlan};
use crate::ops::restore::run::state;
use crate::source::load::Loader;
use crate::state::StateFile;

/// Adds to a plan what stands in its way: refusals, by source.
pub async fn look(setup: &Setup, loaders: &dyn Loaders, prepared: &mut Prepared) -> Result<()> {
    let Some(state) = &setup.state else { return Ok(()) };
    let mut refusals = Vec::new();
    for note in RestoreNote::all(state)? {
        if note.phase == Phase::Switching && !note.is_running(state) {
            let broken = broken_off(setup, state, loaders, prepared, &note).await;
            refusals.extend(broken.into_iter().map(|name| (refusal(&note, &name), name)));
        }
    }
    for (refusal, name) in refusals {
        let source = prepared.plan.sources.iter_mut().find(|source| source.name == name);
        source.into_iter().for_each(|source| source.load.refusals.push(refusal.clone()));
    }
    Ok(())
}

fn refusal(note: &RestoreNote, source: &str) -> String {
    let id = &note.restore;
    format!(
        "restore {id} was interrupted in its switch and may have exchanged {source}: put the old data back first: drctl restore --undo {id} \
         (or, to give that up: drctl restore --forget {id})"
    )
}

/// Cleans up after every restore that was interrupted, as far as that can be done now; the rest is warned of.
///
/// Errors: [`Kind::Preflight`] when a switch broke off in a source of this plan, and what the state file has to say.
pub async fn sweep(setup: &Setup, loaders: &dyn Loaders, prepared: &Prepared) -> Result<()> {
    let state = state(setup)?;
    for note in RestoreNote::all(&state)? {
        if !matches!(note.phase, Phase::Loading | Phase::InPlace | Phase::Switching) {
            continue;
        }
        if setup.cancel.is_cancelled() {
            return Err(interrupted());
        }
        // What is under way is none of ours, nor what another process cleans up just now.
        let Some(mut claimed) = claim(&state, &note)? else { continue };
        match claimed.note.phase {
            Phase::Loading | Phase::InPlace => clean(setup, &state, loaders, prepared, &mut claimed.note).await?,
            Phase::Switching => match broken_off(setup, &state, loaders, prepared, &note).await.first() {
                Some(name) => return Err(Error::new(Kind::Preflight, refusal(&note, name))),
                None => setup.bus.warn(format!(
                    "restore {0} of {1} was interrupted in its switch and is not touched by this one; its ways on: drctl restore --undo {0}, \
                     or, to give it up: drctl restore --forget {0}",
                    note.restore, note.set
                )),
            },
            _ => {}
        }
    }
    Ok(())
}

/// Sources of the plan in which the switch of an earlier restore broke off. Those whose place is another one by now are none.
async fn broken_off(setup: &Setup, state: &Arc<StateFile>, loaders: &dyn Loaders, prepared: &Prepared, note: &RestoreNote) -> Vec<String> {
    let mut names = Vec::new();
    for source in note.sources.iter().filter(|(name, _)| same_place(&prepared.plan, note, name)) {
        let gone = match part_for(state, note, loaders, prepared, source) {
            // Nothing was made of it, so nothing can have been exchanged.
            Ok(None) => true,
            Ok(Some((loader, journal))) => {
                matches!(loader.elsewhere(&journal, &setup.context(&note.restore)).await, Ok(Some(_)))
            }
            Err(_) => false,
        };
        if !gone {
            names.push(source.0.clone());
        }
    }
    names
}

/// Whether a plan puts a source where an earlier restore put it.
fn same_place(plan: &RestorePlan, note: &RestoreNote, name: &str) -> bool {
    plan.target == note.target && plan.sources.iter().any(|source| source.name == name && source.set.job() == note.set.job())
}

/// Like [`part`], with a loader of the restore that is about to begin where that goes to the same place: it knows the password of a target,
/// which is never noted, and the server of a source that had another name.
fn part_for(
    state: &Arc<StateFile>,
    note: &RestoreNote,
    loaders: &dyn Loaders,
    prepared: &Prepared,
    source: &(String, String),
) -> Result<Option<(Arc<dyn Loader>, SourceJournal)>> {
    let plan = &prepared.plan;
    let identity = note.identities.get(&source.0).filter(|identity| !identity.is_empty());
    let same = |name: &str| {
        let planned = plan.sources.iter().find(|planned| planned.name == name);
        plan.target == note.target && (note.target.is_some() || planned.is_some_and(|planned| Some(&planned.load.identity) == identity))
    };
    let Some(work) = prepared.work.iter().find(|work| work.kind == source.1 && same(&work.request.source)) else {
        return part(state, note, loaders, source);
    };
    let journal = SourceJournal::open(state.clone(), &note.restore, &source.0)?;
    Ok((!journal.is_empty()).then(|| (work.loader.clone(), journal)))
}

/// What came of one source.
enum Cleaned {
    /// Nothing of it is left.
    Done,
    /// The place is another one by now; a sentence.
    Elsewhere(String),
}

async fn clean(setup: &Setup, state: &Arc<StateFile>, loaders: &dyn Loaders, prepared: &Prepared, note: &mut RestoreNote) -> Result<()> {
    setup.bus.step(format!("cleaning up the interrupted restore {}", note.restore));
    let (mut left, mut elsewhere) = (Vec::new(), Vec::new());
    for source in &note.sources {
        match clean_one(setup, state, loaders, prepared, note, source).await {
            Ok(Cleaned::Done) => {}
            Ok(Cleaned::Elsewhere(why)) => elsewhere.push(format!("{}: {why}", source.0)),
            Err(error) => left.push(failure(&source.0, &explain(note, &source.1, error))),
        }
    }
    let of = format!("restore {} of {} ({})", note.restore, note.set, note.words());
    for why in &elsewhere {
        setup.bus.warn(format!(
            "{of}: {why}. What it loaded is gone with that server, or lies there if it lives on elsewhere as a database ending in _drctl_{}",
            note.restore
        ));
    }
    if !left.is_empty() {
        let again = match note.phase {
            Phase::Loading => format!("; to try again: drctl restore --undo {}", note.restore),
            // The next restore tries by itself.
            _ => String::new(),
        };
        setup.bus.warn(format!("{of} cannot be cleaned up for now, and stays noted: {}{again}", left.join("; ")));
        return Ok(());
    }
    // The half-loaded copy is gone. That the live data is not whole is still told until a restore has mended it, unless it is another's by now.
    if note.phase == Phase::Loading || elsewhere.len() == note.sources.len() {
        note.phase = Phase::Discarded;
        note.save(state)?;
    }
    Ok(())
}

async fn clean_one(
    setup: &Setup,
    state: &Arc<StateFile>,
    loaders: &dyn Loaders,
    prepared: &Prepared,
    note: &RestoreNote,
    source: &(String, String),
) -> Result<Cleaned> {
    let Some((loader, journal)) = part_for(state, note, loaders, prepared, source)? else { return Ok(Cleaned::Done) };
    let context = setup.context(&note.restore);
    if let Some(why) = loader.elsewhere(&journal, &context).await? {
        return Ok(Cleaned::Elsewhere(why));
    }
    loader.discard(&journal, &context).await?;
    Ok(Cleaned::Done)
}
