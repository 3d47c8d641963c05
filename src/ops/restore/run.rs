//! Carrying a plan out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Hold, JobLog, hold};
use crate::error::{Context, Error, Kind, Result};
use crate::model::{Facts, JobName, SetId};
use crate::observe::Event;
use crate::ops::Setup;
use crate::ops::dump::interrupted;
use crate::ops::restore::journal::{Phase, RestoreNote, SourceJournal, claim};
use crate::ops::restore::plan::{Prepared, RestorePlan, Work};
use crate::ops::restore::without;
use crate::ops::verify::{hold_all, release_all, while_holding};
use crate::pipeline::plain;
use crate::pipeline::read::StoredArtifact;
use crate::source::load::{LoadArtifact, LoadProblem, Rereads};
use crate::state::{Process, StateFile};

/// What a restore did; the value behind the closing lines and `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// Its id.
    pub restore: String,
    /// The set.
    pub set: SetId,
    /// One entry a source.
    pub sources: Vec<RestoredSource>,
    /// Whether live data was exchanged: then `undo` and `finish` are open.
    pub switched: bool,
    /// What is kept aside.
    pub kept: Vec<String>,
    /// What was only laid aside for a person, how it differs, and the lines that put it in place.
    pub aside: Vec<String>,
    /// What could not be loaded, and was accepted.
    pub problems: Vec<LoadProblem>,
    /// Some of it turned up when nothing live was left, with nobody there to be asked: what was loaded was taken as it is.
    pub unasked: bool,
    /// Lines to type now, each with what it is for.
    pub afterwards: Vec<String>,
    /// Seconds it took.
    pub elapsed_seconds: f64,
}

/// One restored source.
#[derive(Clone, Debug, Serialize)]
pub struct RestoredSource {
    /// Its name.
    pub name: String,
    /// Where it went.
    pub target: String,
    /// Artifacts with the counts found after loading, equal to those of the dump.
    pub counts: BTreeMap<String, BTreeMap<String, u64>>,
    /// Plain bytes loaded.
    pub plain_bytes: u64,
}

/// Kinds that are never put in place by drctl.
fn is_aside(kind: &str) -> bool {
    matches!(kind, "environment" | "compose")
}

/// Whether live data was exchanged, so that it can be undone: not in place (but files are laid beside even then), not into a new
/// folder, not for what is only laid aside.
fn exchanged(plan: &RestorePlan) -> bool {
    let exchanges = |kind: &str| match kind {
        aside if is_aside(aside) => false,
        "files" => plan.target.is_none(),
        _ => !plan.in_place,
    };
    plan.sources.iter().any(|source| exchanges(&source.kind))
}

/// What an earlier restore left half loaded in place is whole again: what it kept for want of anything else goes.
async fn settle_in_place(setup: &Setup, state: &Arc<StateFile>, done: &RestoreNote, work: &[Work]) -> Result<()> {
    for earlier in RestoreNote::all(state)? {
        if earlier.phase != Phase::InPlace || !done.covers(&earlier) || done.target != earlier.target {
            continue;
        }
        let Some(mut claimed) = claim(state, &earlier)? else { continue };
        let earlier = &mut claimed.note;
        let mut clean = true;
        for item in work {
            let journal = SourceJournal::open(state.clone(), &earlier.restore, &item.request.source)?;
            if let Err(error) = item.loader.discard(&journal, &setup.context(&earlier.restore)).await {
                clean = false;
                setup.bus.warn(format!("{}: what restore {} left could not be removed: {error}", item.request.source, earlier.restore));
            }
        }
        // What is left is cleaned up like that of any load that was interrupted: what is live is whole.
        earlier.phase = if clean { Phase::Finished } else { Phase::Loading };
        earlier.save(state)?;
    }
    Ok(())
}

/// The state file, without which nothing could be undone.
pub fn state(setup: &Setup) -> Result<Arc<StateFile>> {
    setup.state.clone().ok_or_else(|| {
        Error::new(Kind::Preflight, "the state file cannot be opened, so this restore could not be undone or cleaned up after a crash")
            .hint("point STATE_DIRECTORY to a folder that can be written")
    })
}

/// When something turned out that could not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Before the load in place, without the rows. Nothing live was touched.
    Rehearsed,
    /// All is loaded and counted beside what is live.
    Beside,
    /// All is loaded and counted, and what was live was dropped for it: without what was loaded there is nothing.
    InPlace,
}

/// Who said that a restore goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// A person, now or on the command line.
    ByPerson,
    /// Nobody could be asked.
    Unasked,
}

/// Decides whether a restore goes on although something could not be loaded.
pub trait Decide: Send + Sync {
    /// `problems` is not empty. An error ends the restore, with nothing switched. Where nothing live is left and nobody can be asked
    /// ([`Found::InPlace`]) what was loaded is better than nothing.
    fn accept(&self, problems: &[LoadProblem], found: Found) -> Result<Accepted>;
}

/// Carries out a plan that was agreed to.
pub async fn run(setup: &Setup, log: &mut JobLog, prepared: Prepared, decide: &dyn Decide) -> Result<RestoreReport> {
    let started = std::time::Instant::now();
    let state = state(setup)?;
    let Prepared { plan, work } = prepared;
    if let Some(refusal) = plan.refusals().next() {
        return Err(Error::new(Kind::Preflight, refusal.clone()));
    }
    let sets: Vec<SetId> = plan.sets.iter().map(|s| s.set.clone()).collect();
    let Some(first) = sets.first().cloned() else { return Err(Error::failed("the plan names no set")) };
    setup.bus.emit(Event::RunStarted { verb: "restore".into(), job: first.job().to_string(), set: Some(first.to_string()) });
    // Before it is noted: whoever finds the note finds the lock taken.
    let lock = state.hold_restore(&plan.restore)?;
    let lock = lock.ok_or_else(|| Error::new(Kind::Locked, format!("another process works on restore {}", plan.restore)))?;
    let mut note = RestoreNote {
        restore: plan.restore.clone(),
        set: first,
        sources: work.iter().map(|w| (w.request.source.clone(), w.kind.clone())).collect(),
        target: plan.target.clone(),
        in_place: plan.in_place,
        exchange_first: plan.exchange_first,
        phase: Phase::Loading,
        process: Process::this(),
        locked: lock.is_real(),
        started_at: setup.clock.now(),
        switched_at: None,
        elapsed_seconds: None,
        identities: plan.sources.iter().map(|s| (s.name.clone(), s.load.identity.clone())).collect(),
        load_errors: 0,
    };
    let mut holds = hold_all(setup, log, &sets).await?;
    let result = load_and_switch(setup, log, &state, &plan, &work, &mut note, &mut holds, decide, started).await;
    drop(lock);
    release_all(setup, log, holds).await;
    setup.bus.emit(Event::RunFinished {
        verb: "restore".into(),
        job: note.set.job().to_string(),
        set: Some(note.set.to_string()),
        exit_code: result.as_ref().err().map_or(0, |e| e.kind().exit_code()),
        elapsed_seconds: started.elapsed().as_secs_f64(),
        at: setup.clock.now(),
    });
    result
}

#[expect(clippy::too_many_arguments, reason = "one restore's whole state, used nowhere else")]
async fn load_and_switch(
    setup: &Setup,
    log: &mut JobLog,
    state: &Arc<StateFile>,
    plan: &RestorePlan,
    work: &[Work],
    note: &mut RestoreNote,
    holds: &mut [Hold],
    decide: &dyn Decide,
    started: std::time::Instant,
) -> Result<RestoreReport> {
    note.save(state)?;
    refuse_second(state, note)?;
    let mut errors = LoadErrors { decide, in_place: plan.in_place, agreed: Vec::new(), found: Vec::new(), unasked: false };
    let mut loaded = Ok(());
    if plan.in_place {
        // What can be known before anything is dropped is decided before.
        let rehearsed = while_holding(setup, log, holds, check_all(setup, state, work)).await;
        loaded = rehearsed.and_then(|problems| errors.rehearsed(problems));
    }
    if plan.in_place && loaded.is_ok() {
        note.phase = Phase::InPlace;
        note.load_errors = errors.agreed.len();
        loaded = note.save(state);
    }
    let loaded = match loaded {
        Ok(()) => while_holding(setup, log, holds, load_all(setup, state, work, &mut errors)).await,
        Err(error) => Err(error),
    };
    fail::fail_point!("restore::counted");
    let loaded = loaded.and_then(|counts| errors.loaded().map(|()| counts));
    // The last moment at which a signal leaves everything as it was: the switch itself is not broken off. In place nothing is as it was, and
    // what is loaded is all there is.
    let databases_are_gone = plan.in_place && !exchanged(plan);
    let signalled = || setup.cancel.is_cancelled() && !databases_are_gone;
    let loaded = loaded.and_then(|loaded| if signalled() { Err(interrupted()) } else { Ok(loaded) });
    note.load_errors = note.load_errors.max(errors.found.len());
    let counts = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            // The line that mends it has to accept them again.
            if note.load_errors > 0
                && let Err(error) = note.save(state)
            {
                setup.bus.warn(format!("the state file does not know what restore {} could not load: {error}", note.restore));
            }
            discard(setup, state, work, note).await;
            let error = hold::explain(log, &note.set, error).await;
            return Err(match (plan.in_place, note.phase) {
                (true, Phase::InPlace) => half_in_place(error),
                (true, _) => untouched(error, &note.set),
                (false, _) => damaged(error, &note.set),
            });
        }
    };
    switch_all(setup, state, work, note).await?;
    fail::fail_point!("restore::switched");
    let mut switched = exchanged(plan);
    note.phase = if switched { Phase::Switched } else { Phase::Finished };
    note.switched_at = Some(setup.clock.now());
    note.elapsed_seconds = Some(started.elapsed().as_secs_f64());
    let noted = match note.save(state) {
        // What was left out may be the very thing that the earlier one left half loaded.
        Ok(()) if plan.without.is_empty() => settle_in_place(setup, state, note, work).await,
        noted => noted,
    };
    noted.map_err(|e| e.context("the restore is done, but could not be noted"))?;

    let (mut kept, mut aside) = (Vec::new(), Vec::new());
    for item in work {
        let journal = SourceJournal::open(state.clone(), &plan.restore, &item.request.source)?;
        match item.loader.kept(&journal, &setup.context(&plan.restore)).await {
            Ok(lines) if is_aside(&item.kind) => aside.extend(lines),
            Ok(lines) => kept.extend(lines),
            Err(error) => setup.bus.warn(format!("{}: what is kept aside cannot be listed: {error}", item.request.source)),
        }
    }
    // A scratch target that was not there before leaves nothing to undo or to drop.
    if plan.target.is_some() && kept.is_empty() && switched {
        switched = false;
        note.phase = Phase::Finished;
        note.save(state)?;
    }
    let sources = work.iter().zip(counts).zip(&plan.sources).map(|((item, counts), planned)| RestoredSource {
        name: item.request.source.clone(),
        target: planned.load.target.clone(),
        counts,
        plain_bytes: planned.plain_bytes,
    });
    Ok(RestoreReport {
        restore: plan.restore.clone(),
        set: note.set.clone(),
        sources: sources.collect(),
        switched,
        kept,
        aside,
        problems: errors.found,
        unasked: errors.unasked,
        afterwards: plan.sources.iter().flat_map(|s| s.load.afterwards.iter().cloned()).collect(),
        elapsed_seconds: started.elapsed().as_secs_f64(),
    })
}

/// Two restores of one source into one place would each take the other's work for what was live. Both are noted before they look: of two that
/// begin together the one that began later gives way.
fn refuse_second(state: &Arc<StateFile>, note: &mut RestoreNote) -> Result<()> {
    let at = |note: &RestoreNote| (note.started_at, note.restore.clone());
    let same_place = |other: &RestoreNote| {
        other.set.job() == note.set.job() && other.target == note.target && other.sources.iter().any(|source| note.sources.contains(source))
    };
    let notes = RestoreNote::all(state)?;
    let other = notes.iter().find(|other| at(other) < at(note) && same_place(other) && other.is_running(state));
    let Some(other) = other else { return Ok(()) };
    note.phase = Phase::Discarded;
    note.save(state)?;
    Err(Error::new(Kind::Locked, format!("restore {} of {} is under way, to the same place", other.restore, other.set))
        .hint("wait for its end (drctl status), or stop that process"))
}

/// What was found before the first byte was loaded in place: the work was refused, nothing was changed (exit 4). A signal stays a signal, and
/// a store that cannot be reached is no damage.
fn untouched(error: Error, set: &SetId) -> Error {
    let refused = matches!(error.kind(), Kind::Corrupt | Kind::Verify | Kind::NotFound);
    let error = damaged(error, set).context("nothing was changed: the check before the load in place failed");
    if refused { error.with_kind(Kind::Preflight) } else { error }
}

/// A set that is not what its manifest says.
fn damaged(error: Error, set: &SetId) -> Error {
    match error.kind() {
        Kind::Corrupt | Kind::Verify => {
            error.hint_or(format!("what of it is whole: drctl show {set} --rescue; other sets: drctl list; nothing live was changed"))
        }
        _ => error,
    }
}

/// A failure while the live data may have been overwritten in part.
fn half_in_place(error: Error) -> Error {
    error
        .context("the live data may be overwritten in part")
        .hint_or("restore this set or the safety set again: drctl status shows the line")
}

type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// An error of one artifact of several: the others can be had without it.
fn past(error: Error, work: &[Work], item: &Work, artifact: &LoadArtifact) -> Error {
    let several = work.iter().map(|item| item.request.artifacts.len()).sum::<usize>() > 1;
    let error = damaged(error, &item.set);
    if several { without::explained(error, &item.request.source, &artifact.name) } else { error }
}

/// Reads and checks everything once, and tries out what can be tried, before the first byte is loaded over live data.
async fn check_all(setup: &Setup, state: &Arc<StateFile>, work: &[Work]) -> Result<Vec<LoadProblem>> {
    let mut problems = Vec::new();
    for item in work {
        let journal = SourceJournal::open(state.clone(), &item.request.restore, &item.request.source)?;
        for artifact in &item.request.artifacts {
            setup.bus.step(format!("checking all of {} before anything is touched", artifact.artifact.file));
            let (sender, receiver) = plain::channel();
            let failed = CancellationToken::new();
            let context = setup.context(&item.request.restore);
            let reading = read(setup, item, artifact, Some(sender), failed.clone());
            let trying = until(&failed, item.loader.rehearse(&item.request, artifact, receiver, &journal, &context));
            let (read, tried) = tokio::join!(reading, trying);
            let tried = both(read, tried).context(|| format!("try out {}", artifact.artifact.file));
            problems.extend(tried.map_err(|error| past(error, work, item, artifact))?);
        }
    }
    Ok(problems)
}

/// What could not be loaded, and what was said to it.
struct LoadErrors<'a> {
    decide: &'a dyn Decide,
    in_place: bool,
    /// Accepted before anything live was dropped.
    agreed: Vec<LoadProblem>,
    /// What the load came to.
    found: Vec<LoadProblem>,
    unasked: bool,
}

impl LoadErrors<'_> {
    /// Before anything is dropped in place.
    fn rehearsed(&mut self, problems: Vec<LoadProblem>) -> Result<()> {
        if !problems.is_empty() {
            self.decide.accept(&problems, Found::Rehearsed)?;
        }
        self.agreed = problems;
        Ok(())
    }

    /// An artifact is in place of what was dropped for it, and counted. Asked for each by itself: the next one is still live.
    fn in_place(&mut self, problems: &[LoadProblem]) -> Result<()> {
        if problems.iter().any(|problem| !self.agreed.contains(problem)) {
            self.unasked |= self.decide.accept(problems, Found::InPlace)? == Accepted::Unasked;
        }
        Ok(())
    }

    /// All is loaded beside what is live, and counted.
    fn loaded(&mut self) -> Result<()> {
        if !self.in_place && !self.found.is_empty() {
            self.decide.accept(&self.found, Found::Beside)?;
        }
        Ok(())
    }
}

/// Loads and counts every source. In place each artifact is counted and decided on before what the next one replaces is dropped.
async fn load_all(setup: &Setup, state: &Arc<StateFile>, work: &[Work], errors: &mut LoadErrors<'_>) -> Result<Vec<Counts>> {
    let mut all = Vec::new();
    for item in work {
        let journal = SourceJournal::open(state.clone(), &item.request.restore, &item.request.source)?;
        let mut counts = Counts::new();
        for artifact in &item.request.artifacts {
            let loaded = load_one(setup, item, artifact, &journal).await.context(|| format!("load {}", artifact.artifact.file));
            let problems = loaded.map_err(|error| past(error, work, item, artifact))?;
            errors.found.extend(problems.iter().cloned());
            fail::fail_point!("restore::loaded");
            if errors.in_place {
                counts.insert(artifact.name.clone(), count_one(setup, work, item, artifact, &journal, &problems).await?);
                if !problems.is_empty() {
                    errors.in_place(&problems)?;
                    let taken = item.loader.take(&item.request, artifact, &journal, &setup.context(&item.request.restore)).await;
                    taken.context(|| format!("take {} as it is", artifact.name)).map_err(|error| past(error, work, item, artifact))?;
                }
            }
        }
        for artifact in item.request.artifacts.iter().filter(|_| !errors.in_place) {
            counts.insert(artifact.name.clone(), count_one(setup, work, item, artifact, &journal, &errors.found).await?);
        }
        all.push(counts);
    }
    Ok(all)
}

async fn count_one(
    setup: &Setup,
    work: &[Work],
    item: &Work,
    artifact: &LoadArtifact,
    journal: &SourceJournal,
    problems: &[LoadProblem],
) -> Result<BTreeMap<String, u64>> {
    setup.bus.step(format!("counting {}.{}", item.request.source, artifact.name));
    let context = setup.context(&item.request.restore);
    let found = tokio::select! {
        biased;
        () = setup.cancel.cancelled() => return Err(interrupted()),
        found = item.loader.count(&item.request, artifact, journal, &context) => found,
    };
    let counted = found.and_then(|found| compare(&artifact.facts, &found).map(|()| found));
    let counted = counted.map_err(|e| with_problems(e, problems)).context(|| format!("count {}.{}", item.request.source, artifact.name));
    Ok(counted.map_err(|error| past(error, work, item, artifact))?.totals)
}

/// What is missing after a load, with why it could not be loaded.
fn with_problems(error: Error, problems: &[LoadProblem]) -> Error {
    let Some(first) = problems.first() else { return error };
    let more = if problems.len() > 1 { format!("; and {} more could not be loaded", problems.len() - 1) } else { String::new() };
    let kind = error.kind();
    Error::new(kind, format!("{error}; {} could not be loaded: {}{more}", first.object, first.reason)).hint_of(&error)
}

/// How many streams of one artifact may be asked for at a time.
const STREAMS: usize = 1;

async fn load_one(setup: &Setup, item: &Work, artifact: &LoadArtifact, journal: &SourceJournal) -> Result<Vec<LoadProblem>> {
    let (sender, receiver) = plain::channel();
    let failed = CancellationToken::new();
    let context = setup.context(&item.request.restore);
    let (ask, mut asked) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<plain::PlainReceiver>>(STREAMS);
    let reading = async {
        let mut facts = read(setup, item, artifact, Some(sender), failed.clone()).await?;
        // Until the loader is done, and lets go of its end of the channel.
        while let Some(reply) = asked.recv().await {
            let (sender, receiver) = plain::channel();
            if reply.send(receiver).is_ok() {
                facts = read(setup, item, artifact, Some(sender), failed.clone()).await?;
            }
        }
        Ok(facts)
    };
    let loading = async {
        // Dropped when the load is done: that is what the reading side waits for.
        let artifact = LoadArtifact { rereads: Rereads::of(ask), ..artifact.clone() };
        until(&failed, item.loader.load(&item.request, &artifact, receiver, journal, &context)).await
    };
    let (read, loaded) = tokio::join!(reading, loading);
    both(read, loaded)
}

/// Runs something that takes a stream; when it fails, the stream is given up.
async fn until<T>(failed: &CancellationToken, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = work.await;
    if done.is_err() {
        failed.cancel();
    }
    done
}

/// The error that began it, of reading and of what took the stream.
fn both<T>(read: Result<Facts>, taken: Result<T>) -> Result<T> {
    match (read, taken) {
        (Ok(_), Ok(done)) => Ok(done),
        (Err(read), Err(taken)) => Err(Error::first_of(read, taken)),
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => Err(error),
    }
}

async fn read(
    setup: &Setup,
    item: &Work,
    artifact: &LoadArtifact,
    out: Option<plain::PlainSender>,
    failed: CancellationToken,
) -> Result<Facts> {
    let shown = format!("{}.{}", item.request.source, artifact.name);
    let (plain_bytes, stored_bytes) = (artifact.artifact.plain_bytes, artifact.artifact.stored_bytes());
    setup.bus.emit(Event::ArtifactStarted { artifact: shown.clone(), expected_bytes: Some(plain_bytes) });
    let stored = StoredArtifact {
        store: setup.reading().store.clone(),
        prefix: item.set.prefix(),
        artifact: artifact.artifact.clone(),
        identities: setup.identities.clone(),
    };
    let read_bytes = Arc::new(AtomicU64::new(0));
    let reading = stored.read(out, read_bytes.clone(), failed);
    let reading = crate::ops::progress::while_telling(setup, &shown, &artifact.artifact, &read_bytes, reading);
    let facts = tokio::select! {
        biased;
        () = setup.cancel.cancelled() => return Err(interrupted()),
        facts = reading => facts?,
    };
    if facts != artifact.facts {
        return Err(Error::corrupt(format!("{}: the counts now are not those of the dump", artifact.artifact.file)));
    }
    setup.bus.emit(Event::ArtifactFinished { artifact: shown, plain_bytes, stored_bytes });
    Ok(facts)
}

/// What could be counted at the target must be what was counted in the dump.
pub fn compare(dumped: &Facts, found: &Facts) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, count) in &found.per_name {
        let expected = dumped.per_name.get(name).copied();
        if expected != Some(*count) {
            wrong.push(format!("{name} has {count}, the dump had {}", expected.map_or("none".into(), |e| e.to_string())));
        }
    }
    for (total, count) in &found.totals {
        if let Some(expected) = dumped.totals.get(total)
            && expected != count
        {
            wrong.push(format!("{count} {total} in all, the dump had {expected}"));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let shown = wrong.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    let more = if wrong.len() > 5 { format!("; and {} more", wrong.len() - 5) } else { String::new() };
    Err(Error::new(Kind::Verify, format!("what was loaded is not what was dumped: {shown}{more}")))
}

/// Switches source after source. When one fails, those before it are switched back: a restore takes place whole or not at all.
async fn switch_all(setup: &Setup, state: &Arc<StateFile>, work: &[Work], note: &mut RestoreNote) -> Result<()> {
    // Read before anything is touched: a journal that cannot be read must not be met half way.
    let journals = work.iter().map(|item| SourceJournal::open(state.clone(), &note.restore, &item.request.source));
    let journals = journals.collect::<Result<Vec<_>>>()?;
    note.phase = Phase::Switching;
    note.save(state)?;
    let context = setup.context(&note.restore);
    for (at, item) in work.iter().enumerate() {
        setup.bus.step(format!("switching {}", item.request.source));
        fail::fail_point!("restore::before-switch");
        let Err(error) = item.loader.switch(&item.request, &journals[at], &context).await else { continue };
        let error = error.context(format!("switch {}", item.request.source));
        for (done, journal) in work[..=at].iter().zip(&journals).rev() {
            if let Err(again) = done.loader.undo(journal, &context).await {
                setup.bus.warn(format!("{} could not be switched back: {again}", done.request.source));
                return Err(error.hint(format!("the restore is half done: drctl restore --undo {}", note.restore)));
            }
        }
        discard(setup, state, work, note).await;
        keep_what_was_live(setup, state, work, note).await?;
        return Err(error.hint("the live data is as it was before"));
    }
    Ok(())
}

/// What was live for a moment and was switched back may hold writes of that moment: it stays until `--finish`.
async fn keep_what_was_live(setup: &Setup, state: &Arc<StateFile>, work: &[Work], note: &mut RestoreNote) -> Result<()> {
    for item in work {
        let journal = SourceJournal::open(state.clone(), &note.restore, &item.request.source)?;
        let kept = item.loader.kept(&journal, &setup.context(&note.restore)).await.unwrap_or_default();
        if note.phase == Phase::Discarded && !kept.is_empty() {
            note.phase = Phase::Undone;
            note.save(state)?;
        }
    }
    Ok(())
}

/// Removes what was loaded and never switched in.
async fn discard(setup: &Setup, state: &Arc<StateFile>, work: &[Work], note: &mut RestoreNote) {
    let mut clean = true;
    for item in work {
        let discarded = match SourceJournal::open(state.clone(), &note.restore, &item.request.source) {
            Ok(journal) => item.loader.discard(&journal, &setup.context(&note.restore)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = discarded {
            clean = false;
            setup.bus.warn(format!("{}: what was loaded stays for now: {error}", item.request.source));
        }
    }
    // In place the live data itself may be half loaded: that is not clean again.
    if clean && note.phase != Phase::InPlace {
        note.phase = Phase::Discarded;
        if let Err(error) = note.save(state) {
            setup.bus.warn(format!("the state file does not know that restore {} was discarded: {error}", note.restore));
        }
    }
}

/// Seconds that the job's last restore on this host took, and when it was.
pub fn took_before(setup: &Setup, job: &JobName) -> Option<(f64, Timestamp)> {
    let state = setup.state.as_ref()?;
    let notes = RestoreNote::all(state).ok()?;
    notes.into_iter().rev().filter(|n| n.set.job() == job).find_map(|n| Some((n.elapsed_seconds?, n.switched_at?)))
}
