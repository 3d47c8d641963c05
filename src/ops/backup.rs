//! `drctl backup`: one run of one job, from the lease to the commit.
//!
//! The set exists when its commit record stands, and not before. Whatever fails, nothing stored earlier is touched; what this run
//! stored is deleted again unless its commit may stand (FORMAT rules 5 and 17).

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::{JobLog, Outcome, Pending, Run, SetEntry, Settled};
use crate::error::{Error, Kind, Result};
use crate::model::manifest::SourceEntry;
use crate::model::{Artifact, ArtifactFormat, JobName, Manifest, SetClass, SetId, SetKind, SetState};
use crate::observe::Event;
use crate::ops::copies;
use crate::ops::details::{ArtifactDetails, Details, SourceDetails};
use crate::ops::dump::{Destination, interrupted, remove};
use crate::ops::guide::restore_guide;
use crate::ops::identity::Known;
use crate::ops::lease;
use crate::ops::left_out::{self, Judged};
use crate::ops::own_read::{self, OwnRead};
use crate::ops::setup::SourceSpec;
use crate::ops::suspect;
use crate::ops::uploaded::{check_uploaded, take_back};
use crate::ops::{JobSpec, Setup};
use crate::pipeline::split::{Created, put_everywhere};
use crate::source::{RunContext, Session};

/// Name of the pseudo source that holds drctl's own configuration.
pub const OWN_SOURCE: &str = "drctl";

/// How often a source that cannot be reached is tried, with the pauses between (FAULTS 39).
const REACH_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct BackupOptions {
    /// Only these sources; all when empty.
    pub sources: Vec<String>,
    /// Sources that may be others than in the sets before (FAULTS I11).
    pub accept_new_identity: Vec<String>,
    /// Sources that may be much smaller than in the sets before.
    pub accept_smaller: Vec<String>,
    /// What the set is made for.
    pub class: SetClass,
    /// Read the set back before its commit where this host could not read it afterwards: sealed hosts ([`crate::ops::own_read`]).
    pub read_own: bool,
}

/// What a run made; the value behind the closing line and `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct BackupReport {
    /// The set.
    pub set: SetId,
    /// `complete`, `partial` or `suspect`.
    pub state: &'static str,
    /// Sources of the job that were not asked for: without them the set is no whole restore point.
    pub left_out: Vec<String>,
    /// What is missing or odd, a sentence each.
    pub problems: Vec<String>,
    /// Worth knowing.
    pub warnings: Vec<String>,
    /// Number of the commit record.
    pub record: u64,
    /// The artifacts.
    pub artifacts: Vec<ArtifactReport>,
    /// Plain bytes of all of them.
    pub plain_bytes: u64,
    /// Bytes the set takes in each store.
    pub stored_bytes: u64,
    /// Where it lies.
    pub stores: Vec<String>,
    /// Seconds from start to commit.
    pub elapsed_seconds: f64,
    /// The good set before this one, and its end.
    pub previous_good: Option<(SetId, Timestamp)>,
    /// What the state file could not take, if anything.
    pub unrecorded: Option<String>,
    /// What came of reading the set before its commit; `None` where that was not asked for, or this host can read its sets.
    #[serde(skip)]
    pub own_read: Option<OwnRead>,
}

/// One artifact of the report.
#[derive(Clone, Debug, Serialize)]
pub struct ArtifactReport {
    /// `postgres.shop`.
    pub name: String,
    /// File name of its first object.
    pub file: String,
    /// Plain bytes.
    pub plain_bytes: u64,
    /// Stored bytes.
    pub stored_bytes: u64,
    /// Counts.
    pub totals: BTreeMap<String, u64>,
}

/// What one source gave.
struct SourceOutcome {
    entry: SourceEntry,
    details: SourceDetails,
    artifacts: Vec<Artifact>,
    /// The first error, with its kind and hint.
    error: Option<Error>,
    left_out: Judged,
}

/// Runs a job once. The error's kind is the exit code; a partial set is a report, not an error.
pub async fn backup(setup: &Setup, job: &JobSpec, options: &BackupOptions) -> Result<BackupReport> {
    let started = std::time::Instant::now();
    chosen(job, options)?;
    if setup.keys.is_empty() {
        // A store that is only read from: what is dumped could not be committed.
        return Err(Error::new(Kind::Preflight, format!("back up {}: there is no signing key at hand", job.name))
            .hint("a backup needs the repository's first store and the configured signing key: drctl config show"));
    }
    let setup = setup.for_run(&job.name);
    let own = if options.read_own { own_read::with_identity(&setup)? } else { None };
    let options = &BackupOptions { read_own: own.is_some(), ..options.clone() };
    let setup = &own.unwrap_or(setup);
    let mut log = setup.log(&job.name).await?;
    settle_pending(setup, &mut log).await?;
    let mut lease = lease::acquire(setup, &job.name).await?;
    let run = log.begin_run(SetKind::Full, &job.group).await?;
    fail::fail_point!("backup::leased");
    let set = run.set().clone();
    setup.bus.emit(Event::RunStarted { verb: "backup".into(), job: job.name.to_string(), set: Some(set.to_string()) });

    let epoch = lease.as_ref().map(|lease| lease.epoch);
    let outcome = {
        let renewing = lease::keep(setup, lease.as_mut());
        let working = attempt(setup, job, options, &mut log, run, epoch);
        tokio::pin!(renewing, working);
        tokio::select! {
            done = &mut working => done,
            // The lease is a courtesy: losing it is said, the log decides (FORMAT rule 16).
            lost = &mut renewing => {
                setup.bus.warn(format!("the lease could not be kept, the log's order will decide: {lost}"));
                working.await
            }
        }
    };
    if let Some(lease) = lease
        && let Err(error) = lease.release(&setup.repository).await
    {
        setup.bus.warn(format!("the lease stays until it expires: {error}"));
    }
    if outcome.is_ok() {
        copies::bring_records(setup, &mut log).await;
    }
    let result = outcome.map(|committed| report(committed, &log, started.elapsed()));
    setup.bus.emit(Event::RunFinished {
        verb: "backup".into(),
        job: job.name.to_string(),
        set: Some(set.to_string()),
        exit_code: match &result {
            Ok(report) if report.problems.is_empty() => 0,
            Ok(_) => Kind::Partial.exit_code(),
            Err(error) => error.kind().exit_code(),
        },
        elapsed_seconds: started.elapsed().as_secs_f64(),
        at: setup.clock.now(),
    });
    result
}

fn chosen(job: &JobSpec, options: &BackupOptions) -> Result<Vec<SourceSpec>> {
    let wanted = &options.sources;
    for name in wanted.iter().chain(&options.accept_new_identity).chain(&options.accept_smaller) {
        if !job.sources.iter().any(|s| s.source.name() == name) {
            let known: Vec<&str> = job.sources.iter().map(|s| s.source.name()).collect();
            return Err(Error::new(Kind::Usage, format!("job {} has no source '{name}'", job.name))
                .hint(format!("its sources are: {}", known.join(", "))));
        }
    }
    Ok(job.sources.iter().filter(|s| wanted.is_empty() || wanted.iter().any(|w| w == s.source.name())).cloned().collect())
}

/// A set that stands.
struct Committed {
    manifest: Manifest,
    /// Number of its record.
    record: u64,
    own_read: Option<OwnRead>,
}

/// Dumps everything and commits. On an error, what was stored is deleted unless the commit may stand.
async fn attempt(
    setup: &Setup,
    job: &JobSpec,
    options: &BackupOptions,
    log: &mut JobLog,
    run: Run,
    lease_epoch: Option<u64>,
) -> Result<Committed> {
    let created = Created::default();
    let working = dump_and_commit(setup, job, options, log, run, lease_epoch, &created);
    let result = match AssertUnwindSafe(working).catch_unwind().await {
        Ok(result) => result,
        // Where it was is not known, perhaps behind the commit: nothing is deleted, the sweep knows what is garbage (FAULTS 10).
        Err(panic) => return Err(Error::broke_down(&format!("the backup of {}", job.name), &*panic)),
    };
    match result {
        Err(error) if error.kind() == Kind::OutcomeUnknown => Err(error),
        Err(error) => {
            remove(setup, &created).await;
            // Whatever broke because of the signal, the signal is what happened, and here it is known that nothing was committed.
            let cancelled = setup.cancel.is_cancelled();
            Err(if cancelled { interrupted().context(format!("back up {}: nothing was committed", job.name)) } else { error })
        }
        done => done,
    }
}

async fn dump_and_commit(
    setup: &Setup,
    job: &JobSpec,
    options: &BackupOptions,
    log: &mut JobLog,
    run: Run,
    lease_epoch: Option<u64>,
    created: &Created,
) -> Result<Committed> {
    let started_at = setup.clock.now();
    let sources = &chosen(job, options)?;
    let set = run.set().clone();
    let destination = Destination { setup, prefix: set.prefix(), created: created.clone() };
    let context = setup.context(&set.short());
    copies::make_ready(setup, log).await?;

    let known = Known { setup, log, accepted: &options.accept_new_identity };
    let mut outcomes = Vec::new();
    let mut told = setup.sinks.iter().filter(|sink| sink.given_up().is_some()).map(|sink| sink.name.clone()).collect();
    for spec in sources {
        let accepted = options.accept_smaller.iter().any(|name| name == spec.source.name());
        let outcome = back_up_source(spec, &destination, &context, &known, accepted).await;
        copies::tell_given_up(setup, &mut told);
        if setup.cancel.is_cancelled() {
            return Err(interrupted());
        }
        outcomes.push(outcome);
    }
    if outcomes.iter().all(|o| o.artifacts.is_empty()) {
        return Err(nothing_came_out(job, outcomes));
    }

    let not_chosen = not_chosen(job, sources);
    let left_out: Vec<(String, Judged)> = outcomes.iter_mut().map(|o| (o.entry.name.clone(), std::mem::take(&mut o.left_out))).collect();
    let mut manifest = describe(setup, job, &run, started_at, outcomes, &not_chosen, &destination).await?;
    manifest.class = options.class;
    let on_purpose = left_out.iter().flat_map(|(_, judged)| judged.on_purpose.iter().cloned()).collect();
    judge(&mut manifest, log, sources, &options.accept_smaller, &on_purpose);
    let guide = restore_guide(&manifest, setup.repository.id(), setup.repository.root().as_str());
    manifest.guide = put_everywhere(&setup.sinks, created, &destination.prefix, "RESTORE.md", Bytes::from(guide)).await?;
    check_uploaded(setup, &manifest).await?;
    copies::tell_given_up(setup, &mut told);
    manifest.stores = setup.sinks.iter().filter(|sink| sink.given_up().is_none()).map(|sink| sink.name.clone()).collect();
    take_back(setup, created).await;
    let own_read = if options.read_own { Some(own_read::before_commit(setup, &manifest).await?) } else { None };
    fail::fail_point!("backup::before-commit");
    if setup.cancel.is_cancelled() {
        return Err(interrupted());
    }
    manifest.finished_at = setup.clock.now();
    manifest.lease_epoch = lease_epoch;
    setup.bus.step("committing");
    let committed = run
        .commit(log, manifest.clone(), |pending| {
            // Without the note only a hint for the next start is lost: the log itself settles the outcome.
            note_pending(setup, &job.name, Some(pending)).unwrap_or_else(|e| setup.bus.warn(format!("not noted on this host: {e}")));
            Ok(())
        })
        .await;
    fail::fail_point!("backup::committed");
    if committed.as_ref().err().is_none_or(|e| e.kind() != Kind::OutcomeUnknown) {
        note_pending(setup, &job.name, None).unwrap_or_else(|e| setup.bus.warn(e.to_string()));
    }
    match committed? {
        Outcome::Committed { number } => {
            fail::fail_point!("backup::after-commit");
            for (source, judged) in &left_out {
                let kept = left_out::keep(setup, &job.name, source, &judged.accepted);
                kept.unwrap_or_else(|e| setup.bus.warn(format!("{source}: that something is left out is not kept as known: {e}")));
            }
            setup.bus.emit(Event::Recorded { record: "commit".into(), number });
            Ok(Committed { manifest, record: number, own_read })
        }
        Outcome::Void { reason } => {
            Err(Error::failed(format!("{set} was not committed: {reason}")).hint("run the backup again: drctl backup now"))
        }
    }
}

/// Where a commit that was sent is remembered until its outcome is known (FORMAT rule 5).
fn pending_key(setup: &Setup, job: &JobName) -> String {
    format!("pending-commit/{}/{job}", setup.repository.id())
}

fn note_pending(setup: &Setup, job: &JobName, pending: Option<&Pending>) -> Result<()> {
    let Some(state) = &setup.state else { return Ok(()) };
    let text = pending.map(serde_json::to_string).transpose().map_err(|e| Error::failed("note the commit").because(e))?;
    state.set_setting(&pending_key(setup, job), text.as_deref().unwrap_or_default())
}

/// What became of a commit that an earlier run had to leave with its outcome unknown. It is said to a person, no more: what cannot be read
/// from the state file or written to it stops no backup (FAULTS 13), and what was not struck off is said again by the next run.
async fn settle_pending(setup: &Setup, log: &mut JobLog) -> Result<()> {
    let job = log.job().clone();
    let noted = setup.state.as_ref().map(|state| state.setting(&pending_key(setup, &job))).transpose();
    let noted = noted.unwrap_or_else(|e| {
        setup.bus.warn(e.to_string());
        None
    });
    let Some(text) = noted.flatten() else { return Ok(()) };
    let Ok(pending) = serde_json::from_str::<Pending>(&text) else { return Ok(()) };
    match log.settle(&pending).await? {
        Settled::Committed { number } => {
            setup.bus.warn(format!("the earlier backup {} was committed after all, as record {number}", pending.set))
        }
        Settled::Void => setup.bus.warn(format!("the earlier backup {} was not committed; its objects go with a sweep", pending.set)),
        // The record that this run will append settles it.
        Settled::Open => return Ok(()),
    }
    note_pending(setup, &job, None).unwrap_or_else(|e| setup.bus.warn(e.to_string()));
    Ok(())
}

/// One source from its check to its last artifact. Never an error: what went wrong is part of the outcome.
/// `accepted`: a person has said that what is missing of it is known.
async fn back_up_source(
    spec: &SourceSpec,
    destination: &Destination<'_>,
    context: &RunContext,
    known: &Known<'_>,
    accepted: bool,
) -> SourceOutcome {
    let (name, kind) = (spec.source.name().to_owned(), spec.source.kind());
    let mut outcome = SourceOutcome {
        entry: SourceEntry {
            name: name.clone(),
            kind: kind.to_owned(),
            identity: Arc::default(),
            as_of: context.clock.now(),
            problems: Vec::new(),
            warnings: Vec::new(),
        },
        details: SourceDetails { name: name.clone(), details: serde_json::Value::Null, artifacts: Vec::new() },
        artifacts: Vec::new(),
        error: None,
        left_out: Judged::default(),
    };
    let mut session = match reach(spec, context, &mut outcome).await {
        Ok(session) => session,
        Err(error) => {
            fail_source(&mut outcome, context, &name, error);
            return outcome;
        }
    };
    match known.check(spec.source.as_ref(), session.as_ref()) {
        Ok(None) => {}
        Ok(Some(another)) => {
            context.bus.warn(format!("{name}: {another}"));
            outcome.entry.warnings.push(another);
        }
        Err(error) => {
            session.close().await;
            fail_source(&mut outcome, context, &name, error);
            return outcome;
        }
    }
    outcome.entry.identity = Arc::new(session.identity());
    // What was dumped before a second try stands for an earlier instant.
    let mut earliest: Option<Timestamp> = None;
    for plan in session.artifacts() {
        let mut dumped = destination.dump(&name, session.as_mut(), &plan, context, !spec.allow_plaintext).await;
        // A database that went away in mid-dump is given one more chance, from the start (FAULTS 40).
        if let Err(error) = &dumped
            && error.kind().retryable()
            && !context.cancel.is_cancelled()
        {
            context.bus.emit(Event::Retry { what: format!("{name}.{}", plan.name), error: error.to_string(), attempt: 2 });
            tokio::time::sleep(REACH_PAUSES[0]).await;
            dumped = match reach(spec, context, &mut outcome).await {
                Ok(fresh) if fresh.identity() != *outcome.entry.identity => {
                    Err(another_server(&name, &outcome.entry.identity, &fresh.identity()))
                }
                Ok(fresh) => {
                    earliest = Some(earliest.map_or(session.as_of(), |at: Timestamp| at.min(session.as_of())));
                    session.close().await;
                    session = fresh;
                    destination.dump(&name, session.as_mut(), &plan, context, !spec.allow_plaintext).await
                }
                Err(_) => dumped,
            };
        }
        match dumped {
            Ok((artifact, facts)) => {
                outcome.details.artifacts.push(ArtifactDetails { file: artifact.file.clone(), name: plan.name.clone(), facts });
                outcome.artifacts.push(artifact);
            }
            Err(error) => {
                if !context.cancel.is_cancelled()
                    && let Some(gone) = session.gone(&plan).await
                {
                    context.bus.warn(format!("{name}: {gone}"));
                    outcome.entry.warnings.push(gone);
                    continue;
                }
                let error = error.hint_or(AGAIN);
                context.bus.emit(Event::ArtifactFailed {
                    artifact: format!("{name}.{}", plan.name),
                    error: error.to_string(),
                    hint: error.hint_text().map(str::to_owned),
                });
                outcome.entry.problems.push(format!("{name}: {error}"));
                outcome.error.get_or_insert(error);
                if context.cancel.is_cancelled() {
                    break;
                }
            }
        }
    }
    outcome.entry.as_of = earliest.map_or(session.as_of(), |at| at.min(session.as_of()));
    outcome.details.details = session.details();
    let mut judged = left_out::judge(known.setup, known.log.job(), &name, &session.left_out(), accepted);
    let problems: Vec<String> = session.problems().into_iter().chain(std::mem::take(&mut judged.problems)).collect();
    outcome.entry.problems.extend(problems.iter().map(|p| format!("{name}: {p}")));
    for warning in session.warnings().into_iter().chain(std::mem::take(&mut judged.warnings)) {
        // The check before may have said it already.
        if !outcome.entry.warnings.contains(&warning) {
            outcome.entry.warnings.push(warning);
        }
    }
    outcome.left_out = judged;
    session.close().await;
    for problem in problems {
        context.bus.warn(format!("{name}: {problem}"));
    }
    outcome
}

/// What answers after a retry is not what the run began with: what it dumped is void, and nothing of the other one is taken.
fn another_server(name: &str, before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Error {
    let told = |identity: &BTreeMap<String, String>| match identity.is_empty() {
        true => "no identity".to_owned(),
        false => identity.iter().map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", "),
    };
    let (before, now) = (told(before), told(now));
    Error::failed(format!(
        "another server answers for {name} now: it began with {before}, now there is {now}; its data does not belong into this set"
    ))
    .hint("see which server is meant, correct the source's host and port if need be, then run again: drctl backup now")
}

/// The hint for a source that failed without one of its own.
const AGAIN: &str = "nothing of it was kept; when that is mended, run the job again: drctl backup now";

fn fail_source(outcome: &mut SourceOutcome, context: &RunContext, name: &str, error: Error) {
    let error = error.hint_or(AGAIN);
    context.bus.emit(Event::ArtifactFailed {
        artifact: name.to_owned(),
        error: error.to_string(),
        hint: error.hint_text().map(str::to_owned),
    });
    outcome.entry.problems.push(format!("{name}: {error}"));
    outcome.error = Some(error);
}

/// Checks and opens a source; one that cannot be reached is tried again a few times.
async fn reach(spec: &SourceSpec, context: &RunContext, outcome: &mut SourceOutcome) -> Result<Box<dyn Session>> {
    let name = spec.source.name();
    let mut pauses = REACH_PAUSES.iter();
    loop {
        let opened = async {
            let found = spec.source.preflight(context).await?;
            context.bus.step(format!("{name}: {}", found.summary));
            for warning in found.warnings {
                context.bus.warn(format!("{name}: {warning}"));
                if !outcome.entry.warnings.contains(&warning) {
                    outcome.entry.warnings.push(warning);
                }
            }
            spec.source.open(context).await
        };
        let opened = tokio::select! {
            biased;
            () = context.cancel.cancelled() => Err(interrupted()),
            opened = opened => opened,
        };
        match (opened, pauses.next()) {
            (Err(error), Some(pause)) if error.kind().retryable() => {
                context.bus.emit(Event::Retry { what: name.to_owned(), error: error.to_string(), attempt: 2 });
                tokio::select! {
                    () = context.cancel.cancelled() => return Err(interrupted()),
                    () = tokio::time::sleep(*pause) => {}
                }
            }
            (opened, _) => return opened,
        }
    }
}

/// Why a set made with `--source` is partial.
const LEFT_OUT: &str = "left out on request (--source)";

/// Sources of the group that were not asked for.
fn not_chosen(job: &JobSpec, chosen: &[SourceSpec]) -> Vec<String> {
    let names = job.sources.iter().map(|s| s.source.name());
    names.filter(|name| !chosen.iter().any(|c| c.source.name() == *name)).map(str::to_owned).collect()
}

/// Stores configuration and details, and puts the manifest together; its guide is still to come.
async fn describe(
    setup: &Setup,
    job: &JobSpec,
    run: &Run,
    started_at: Timestamp,
    outcomes: Vec<SourceOutcome>,
    not_chosen: &[String],
    destination: &Destination<'_>,
) -> Result<Manifest> {
    let set = run.set().clone();
    let mut details = Details::new(set.clone());
    let (mut sources, mut artifacts, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    for outcome in outcomes {
        reasons.extend(outcome.entry.problems.iter().cloned());
        sources.push(outcome.entry);
        artifacts.extend(outcome.artifacts);
        details.sources.push(outcome.details);
    }
    // What a date means must be a whole restore point: a set of some sources only is partial, by request.
    reasons.extend(not_chosen.iter().map(|name| format!("{name}: {LEFT_OUT}")));
    let config = Bytes::from(job.config_text.clone());
    let (artifact, facts) = destination.small(OWN_SOURCE, "drctl.yaml", ArtifactFormat::Raw, config, false).await?;
    details.sources.push(SourceDetails {
        name: OWN_SOURCE.into(),
        details: serde_json::Value::Null,
        artifacts: vec![ArtifactDetails { file: artifact.file.clone(), name: "configuration".into(), facts }],
    });
    artifacts.push(artifact);
    sources.push(SourceEntry {
        name: OWN_SOURCE.into(),
        kind: OWN_SOURCE.into(),
        identity: Arc::default(),
        as_of: started_at,
        problems: Vec::new(),
        warnings: job.warnings.clone(),
    });
    let json = serde_json::to_vec(&details).map_err(|e| Error::failed("write the details").because(e))?;
    let (details, _) = destination.small(OWN_SOURCE, "details.json", ArtifactFormat::Json, Bytes::from(json), false).await?;
    let guide = details.objects[0].clone();
    Ok(Manifest {
        set,
        group: run.group().to_owned(),
        chain: run.chain().clone(),
        class: SetClass::Ordinary,
        base: run.base(),
        state: if reasons.is_empty() { SetState::Complete } else { SetState::Partial { reasons } },
        started_at,
        finished_at: setup.clock.now(),
        drctl_version: env!("CARGO_PKG_VERSION").into(),
        host: setup.host.clone(),
        config_sha256: job.config_sha256,
        lease_epoch: None,
        sources,
        artifacts,
        details,
        guide,
        // Which of them hold all of it is known when all of it is stored.
        stores: Vec::new(),
    })
}

/// Nothing at all came out: the first error decides (FORMAT, Exit codes), and every source that failed is named.
fn nothing_came_out(job: &JobSpec, outcomes: Vec<SourceOutcome>) -> Error {
    let mut failed = outcomes.into_iter().filter_map(|outcome| Some((outcome.entry.name, outcome.error?)));
    let Some((name, first)) = failed.next() else { return Error::failed(format!("job {} has nothing to back up", job.name)) };
    let others: Vec<String> = failed.map(|(name, error)| format!("{name}: {error}")).collect();
    if others.is_empty() {
        return first;
    }
    let text = format!("no source could be backed up: {}", [vec![format!("{name}: {first}")], others].concat().join("; "));
    let error = Error::new(first.kind(), text);
    match first.hint_text() {
        Some(hint) => error.hint(format!("{name}: {hint}")),
        None => error,
    }
}

/// A whole set that is not like those before it is suspect. `on_purpose`: artifacts that the configuration leaves out by now.
fn judge(manifest: &mut Manifest, log: &JobLog, sources: &[SourceSpec], accepted: &[String], on_purpose: &BTreeSet<String>) {
    // What is live before a restore is saved as it is: that it is not like the sets before is why it is restored.
    if manifest.state != SetState::Complete || manifest.class == SetClass::Safety {
        return;
    }
    let alike = |entry: &&SetEntry| entry.is_good() && entry.manifest.group == manifest.group && entry.manifest.kind() == manifest.kind();
    let before: Vec<&Manifest> = log.state().live().rev().filter(alike).take(suspect::LOOK_BACK).map(|e| e.manifest.as_ref()).collect();
    let reasons = suspect::findings(manifest, &before, on_purpose, &|name| {
        let mut allowed = sources.iter().find(|spec| spec.source.name() == name).map(|spec| spec.allowed).unwrap_or_default();
        allowed.smaller |= accepted.iter().any(|accepted| accepted == name);
        allowed
    });
    if !reasons.is_empty() {
        manifest.state = SetState::Suspect { reasons };
    }
}

fn report(committed: Committed, log: &JobLog, elapsed: Duration) -> BackupReport {
    let Committed { manifest, record, own_read } = committed;
    let previous =
        log.state().live().rev().find(|entry| entry.is_good() && *entry.id() != manifest.set && entry.manifest.group == manifest.group);
    BackupReport {
        set: manifest.set.clone(),
        state: manifest.state.name(),
        problems: manifest.state.reasons().iter().filter(|r| !r.ends_with(LEFT_OUT)).cloned().collect(),
        left_out: manifest
            .state
            .reasons()
            .iter()
            .filter_map(|r| Some(r.strip_suffix(LEFT_OUT)?.trim_end_matches(": ").to_owned()))
            .collect(),
        warnings: manifest.sources.iter().flat_map(|s| s.warnings.iter().map(|w| format!("{}: {w}", s.name))).collect(),
        record,
        artifacts: manifest
            .artifacts
            .iter()
            .map(|a| ArtifactReport {
                name: a.file.clone(),
                file: a.file.clone(),
                plain_bytes: a.plain_bytes,
                stored_bytes: a.stored_bytes(),
                totals: a.totals.clone(),
            })
            .collect(),
        plain_bytes: manifest.plain_bytes(),
        stored_bytes: manifest.stored_bytes(),
        stores: manifest.stores.clone(),
        elapsed_seconds: elapsed.as_secs_f64(),
        previous_good: previous.map(|entry| (entry.id().clone(), entry.manifest.finished_at)),
        unrecorded: None,
        own_read,
    }
}
