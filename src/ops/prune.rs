//! `drctl prune`: what retention gives up goes, under an intent, and so do objects that no set names.
//!
//! Without `apply` nothing is changed. With it every intent is planned anew on the log it is appended to (FORMAT rule 7), and nothing goes
//! before the sets that stay have been looked at by exact key (FAULTS 32, 33).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::catalog::retire::{self, Retirement};
use crate::catalog::{JobLog, SetEntry, State, lease, rules};
use crate::config::typed::Retention;
use crate::error::{Error, Kind, Result};
use crate::model::record::Grade;
use crate::model::{JobName, SetId};
use crate::observe::Event;
use crate::ops::retention::{self, Decision, Plan, Policy};
use crate::ops::{Setup, copies, words};
use crate::state::RunOutcome;
use crate::store::{DynStore, whole};

/// Objects that no set names are left alone for so long: longer than any run takes (FORMAT rule 8).
pub const GRACE: Duration = Duration::from_secs(3 * 24 * 3600);

/// Clocks that differ by more make ages meaningless (FAULTS I8).
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A store that lags is asked so often, with this pause, before it is believed.
const LOOKS: u32 = 3;
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// After so many sets in a row that the store would not let go of it is not asked for more.
const REFUSALS: usize = 3;

/// What the newest time that this host pruned or looked is kept under.
const CLOCK_MARK: &str = "prune/clock";

/// What is asked of the sets of one job.
#[derive(Clone, Debug)]
pub struct PrunePolicy {
    /// The job.
    pub job: JobName,
    /// The zone its calendar is meant in.
    pub zone: TimeZone,
    /// By group.
    pub groups: BTreeMap<String, GroupPolicy>,
    /// The sources that the job has now.
    pub sources: BTreeSet<String>,
    /// A person gives up what the configuration no longer has: groups, sources, the job.
    pub abandoned: bool,
}

/// What is asked of one group.
#[derive(Clone, Debug, Default)]
pub struct GroupPolicy {
    /// The keep rules; `None` keeps every set.
    pub retention: Option<Retention>,
    /// Sets a day that the schedule explains; `None` where nothing is scheduled.
    pub per_day: Option<u32>,
    /// Longest time between two scheduled sets.
    pub interval: Option<Duration>,
}

impl PrunePolicy {
    fn of_group(&self, group: &str) -> Option<Policy<'_>> {
        let asked = self.groups.get(group)?;
        Some(Policy {
            retention: asked.retention.as_ref(),
            zone: &self.zone,
            per_day: asked.per_day,
            interval: asked.interval,
            stopped: None,
            accept_surplus: false,
            confirmed: None,
            sources: (!self.abandoned).then_some(&self.sources),
        })
    }

    /// Whether the sets of a group are given up.
    fn gives_up(&self, group: &str) -> bool {
        self.abandoned && !self.groups.contains_key(group)
    }

    /// The longest time between two scheduled sets of any group.
    fn interval(&self) -> Duration {
        self.groups.values().filter_map(|group| group.interval).max().unwrap_or_default()
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct PruneOptions {
    /// Do it.
    pub apply: bool,
    /// A person says that the clock is right.
    pub confirm_clock: bool,
    /// A person has looked at the days that have more sets than the schedule explains.
    pub accept_surplus: bool,
}

/// What is to go, or went.
#[derive(Clone, Debug, Serialize)]
pub struct PruneReport {
    /// The job.
    pub job: JobName,
    /// Whether anything was to be deleted.
    pub applied: bool,
    /// What the configuration no longer has was given up.
    pub abandoned: bool,
    /// What becomes of every set, and why.
    pub plan: Plan,
    /// Why nothing may be deleted now.
    pub refused: Option<String>,
    /// Sets under an intent whose objects may still be there.
    pub half_deleted: Vec<SetId>,
    /// Objects of these were never part of a set; their grace time is over.
    pub orphans: Vec<SetId>,
    /// The same, still in their grace time: a run may be making them.
    pub waiting: Vec<SetId>,
    /// Keys below the sets that belong to none; never touched.
    pub strange: Vec<String>,
    /// Sets that went.
    pub deleted: Vec<SetId>,
    /// What the store did not let go of, with its words.
    pub retained: Vec<String>,
    /// Objects deleted.
    pub objects: u64,
    /// Bytes they took.
    pub bytes: u64,
}

impl PruneReport {
    /// How it ended: what the store keeps is no success.
    pub fn exit_code(&self) -> u8 {
        if self.retained.is_empty() { 0 } else { Kind::Denied.exit_code() }
    }
}

/// Plans, and with `apply` deletes. [`Kind::Preflight`] when it may not be now; [`Kind::Verify`] when a set that must stay is not as the log
/// says: then nothing goes.
pub async fn prune(setup: &Setup, policy: &PrunePolicy, options: PruneOptions) -> Result<PruneReport> {
    let started = std::time::Instant::now();
    let job = &policy.job;
    let emit_end = |code: u8| {
        setup.bus.emit(Event::RunFinished {
            verb: "prune".into(),
            job: job.to_string(),
            set: None,
            exit_code: code,
            elapsed_seconds: started.elapsed().as_secs_f64(),
            at: setup.clock.now(),
        });
    };
    setup.bus.emit(Event::RunStarted { verb: "prune".into(), job: job.to_string(), set: None });
    let outcome = run(setup, policy, options).await;
    emit_end(match &outcome {
        Ok(report) => report.exit_code(),
        Err(error) => error.kind().exit_code(),
    });
    outcome
}

async fn run(setup: &Setup, policy: &PrunePolicy, options: PruneOptions) -> Result<PruneReport> {
    let mut log = setup.log(&policy.job).await?;
    let local = setup.clock.now();
    let server = match log.server_date().await {
        Ok(server) => server,
        // Whoever may not write a file there may still see the plan.
        Err(error) if !options.apply && error.kind() == Kind::Denied => local,
        Err(error) => return Err(error),
    };
    if options.confirm_clock && options.apply {
        note_confirmed(setup, &log)?;
    }
    let confirmed = if options.confirm_clock { log.state().newest_at() } else { confirmed(setup, &log)? };
    let refused = clock_trouble(setup, log.state(), policy, confirmed, (local, server))?.filter(|_| !options.confirm_clock);
    let stopped = last_run_failed(setup, &policy.job);
    let planner = Planner { policy, stopped, confirmed, accept_surplus: options.accept_surplus };
    let orphans = retire::orphans(&mut log, GRACE).await?;
    let mut report = PruneReport {
        job: policy.job.clone(),
        applied: options.apply,
        abandoned: policy.abandoned,
        plan: planner.plan(log.state(), local.min(server)),
        refused,
        half_deleted: half_deleted(log.state()),
        orphans: orphans.doomed,
        waiting: orphans.waiting,
        strange: orphans.strange,
        deleted: Vec::new(),
        retained: Vec::new(),
        objects: 0,
        bytes: 0,
    };
    let odd = lease::odd(&setup.repository, &policy.job).await.unwrap_or_default();
    if let Some(first) = odd.first() {
        let goes = if options.apply { "taken away now" } else { "--apply takes it away" };
        setup.bus.warn(format!("job {}: {first}{}: {goes}", policy.job, words::and_more(odd.len())));
    }
    if !options.apply {
        return Ok(report);
    }
    if setup.keys.is_empty() {
        return Err(
            Error::new(Kind::Preflight, "prune: there is no signing key at hand").hint("prune where the pruner's key is: drctl key list")
        );
    }
    if let Some(why) = &report.refused {
        return Err(Error::new(Kind::Preflight, format!("prune of job {}: {why}", policy.job))
            .hint("see `date` and `drctl status`; if the clock is right: drctl prune --apply --confirm-clock"));
    }
    apply(setup, &mut log, &planner, local, &mut report).await?;
    note_clock(setup, local)?;
    copies::bring_records(setup, &mut log).await;
    Ok(report)
}

async fn apply(setup: &Setup, log: &mut JobLog, planner: &Planner<'_>, local: Timestamp, report: &mut PruneReport) -> Result<()> {
    // What an earlier prune began is ended first: those sets are dead already (FAULTS 76).
    let open: Vec<u64> = log.state().intents().filter(|intent| intent.deleted.is_none()).map(|intent| intent.number).collect();
    for intent in open {
        finish(setup, log, intent, report).await?;
    }
    if !report.plan.doomed().is_empty() {
        look_at_what_stays(log.repository().store(), log.state(), &report.plan).await?;
    }
    let most = report.plan.doomed().len();
    for _ in 0..most {
        stop_if_cancelled(setup)?;
        let mut planned = None;
        let intent = retire::retire(log, |state, date| {
            let plan = planner.plan(state, local.min(date));
            let next = plan.doomed().first().map(|(chain, why)| {
                let given_up = |set: &Decision| set.chain == **chain && planner.policy.gives_up(&set.group);
                Retirement { chain: (*chain).clone(), reason: (*why).to_owned(), abandoned: plan.sets.iter().any(given_up) }
            });
            planned = Some(plan);
            Ok(next)
        });
        let Some(intent) = intent.await? else { break };
        fail::fail_point!("prune::after-intent");
        setup.bus.emit(Event::Recorded { record: "delete-intent".into(), number: intent });
        finish(setup, log, intent, report).await?;
        if report.retained.len() >= REFUSALS {
            return Ok(());
        }
    }
    stop_if_cancelled(setup)?;
    let swept = retire::sweep(log, GRACE).await;
    match swept {
        Ok(swept) => {
            report.objects += swept.objects;
            report.bytes += swept.bytes;
        }
        Err(error) if error.kind() == Kind::Denied => report.retained.push(format!("objects that no set names: {error}")),
        Err(error) => return Err(error.context("sweep what no set names")),
    }
    lease::tidy(&setup.repository, &report.job).await.map_err(|e| e.context("remove old leases")).or_else(|e| {
        setup.bus.warn(e.to_string());
        Ok::<_, Error>(0)
    })?;
    Ok(())
}

/// Deletes what stands under an intent; what the store keeps is said, not an error: backups go on (FAULTS 35).
async fn finish(setup: &Setup, log: &mut JobLog, intent: u64, report: &mut PruneReport) -> Result<()> {
    let sets: Vec<SetId> = log.state().intents().find(|known| known.number == intent).map(|known| known.sets.clone()).unwrap_or_default();
    let named = sets.iter().map(SetId::to_string).collect::<Vec<_>>().join(", ");
    setup.bus.step(format!("delete {named}"));
    match retire::finish_delete(log, intent).await {
        Ok(deletion) => {
            report.objects += deletion.objects;
            report.bytes += deletion.bytes;
            report.deleted.extend(sets);
            Ok(())
        }
        Err(error) if error.kind() == Kind::Denied => {
            report.retained.push(format!("{named}: {error}"));
            Ok(())
        }
        Err(error) => Err(error
            .context(format!("delete {named}"))
            .hint("what was begun is ended by the next prune: drctl prune --apply; the sets count for nothing already")),
    }
}

fn stop_if_cancelled(setup: &Setup) -> Result<()> {
    if setup.cancel.is_cancelled() { Err(crate::ops::dump::interrupted()) } else { Ok(()) }
}

/// Plans on whatever log it is given.
struct Planner<'a> {
    policy: &'a PrunePolicy,
    stopped: Option<String>,
    confirmed: Option<Timestamp>,
    accept_surplus: bool,
}

impl Planner<'_> {
    fn plan(&self, state: &State, now: Timestamp) -> Plan {
        let mut candidates = retention::candidates(state, state.is_sealed());
        if self.policy.abandoned {
            // What was given up asks for no proof any more.
            candidates.iter_mut().for_each(|set| set.sources.retain(|source| self.policy.sources.contains(source)));
        }
        let asked = |group: &str| {
            let policy = self.policy.of_group(group)?;
            Some(Policy { stopped: self.stopped.clone(), accept_surplus: self.accept_surplus, confirmed: self.confirmed, ..policy })
        };
        let mut plan = retention::plan(&candidates, asked, now);
        retention::abandon(&mut plan, &candidates, |group| self.policy.gives_up(group), now);
        plan
    }
}

/// Sets whose intent stands and whose `deleted` does not.
fn half_deleted(state: &State) -> Vec<SetId> {
    state.intents().filter(|intent| intent.deleted.is_none()).flat_map(|intent| intent.sets.clone()).collect()
}

/// Why ages mean nothing now: rule 14, clocks that differ, a clock that went back (FAULTS 17, 57, 58). `confirmed` is the newest date that a
/// person has seen in the log and found to be a clock's mistake.
fn clock_trouble(
    setup: &Setup,
    state: &State,
    policy: &PrunePolicy,
    confirmed: Option<Timestamp>,
    (local, server): (Timestamp, Timestamp),
) -> Result<Option<String>> {
    let skew = local.duration_since(server);
    if skew.abs() > SKEW {
        return Ok(Some(format!("this host's clock and the store's differ by {}", words::span(skew.unsigned_abs()))));
    }
    if let Some(seen) = last_seen(setup)?.filter(|seen| seen.duration_since(local) > SKEW) {
        return Ok(Some(format!("the clock went back: it is {local} now, and was {seen} at the last prune")));
    }
    // Records have their writers' dates, and a store tells whole seconds: of two clocks that agree the later one says what is past.
    let now = local.max(server);
    let newest = match state.newest_at() {
        known if known == confirmed => state.live().map(|entry| entry.at).filter(|at| *at <= now).max(),
        newest => newest,
    };
    Ok(rules::clock_allows_pruning(newest, now, policy.interval()).err().map(|error| error.to_string()))
}

/// What the newest date of the log that a person confirmed is kept under.
fn confirmed_key(log: &JobLog) -> String {
    format!("{CLOCK_MARK}-confirmed/{}/{}", log.repository().id(), log.job())
}

fn confirmed(setup: &Setup, log: &JobLog) -> Result<Option<Timestamp>> {
    let Some(state) = &setup.state else { return Ok(None) };
    Ok(state.setting(&confirmed_key(log))?.and_then(|text| text.parse().ok()))
}

fn note_confirmed(setup: &Setup, log: &JobLog) -> Result<()> {
    match (&setup.state, log.state().newest_at()) {
        (Some(state), Some(newest)) => state.set_setting(&confirmed_key(log), &newest.to_string()),
        _ => Ok(()),
    }
}

fn last_seen(setup: &Setup) -> Result<Option<Timestamp>> {
    let Some(state) = &setup.state else { return Ok(None) };
    Ok(state.setting(CLOCK_MARK)?.and_then(|text| text.parse().ok()))
}

fn note_clock(setup: &Setup, now: Timestamp) -> Result<()> {
    setup.state.as_ref().map_or(Ok(()), |state| state.set_setting(CLOCK_MARK, &now.to_string()))
}

/// Whether the newest backup of the job that this host knows of came to nothing.
fn last_run_failed(setup: &Setup, job: &JobName) -> Option<String> {
    let runs = setup.state.as_ref()?.runs(Some(job.as_str()), Some("backup"), 1).ok()?;
    let newest = runs.first()?;
    let begun = newest.started_at.strftime("%Y-%m-%d %H:%M UTC");
    match newest.outcome {
        RunOutcome::Interrupted => Some(format!("the newest backup, begun {begun}, was interrupted")),
        // A partial set stands in the log, and is judged there.
        RunOutcome::Finished(code) if code != 0 && code != Kind::Partial.exit_code() => {
            Some(format!("the newest backup, begun {begun}, failed with exit code {code}"))
        }
        _ => None,
    }
}

/// The sets that everything rests on once the rest is gone are there, and the store's listing tells the truth of them: of each group the newest
/// good set, of each source those that were read back.
async fn look_at_what_stays(store: &DynStore, state: &State, plan: &Plan) -> Result<()> {
    let stays: BTreeSet<&SetId> = plan.sets.iter().filter(|set| set.keep).map(|set| &set.set).collect();
    let mut looked_at: BTreeMap<String, u32> = BTreeMap::new();
    for entry in state.live().rev().filter(|entry| stays.contains(entry.id()) && entry.is_good()) {
        let manifest = &entry.manifest;
        let proven = entry.grade(false) >= Some(Grade::ReadBack);
        let names = std::iter::once(format!("group {}", manifest.group))
            .chain(manifest.sources.iter().filter(|_| proven).map(|source| format!("source {}", source.name)));
        let mut needed = false;
        for name in names {
            let seen = looked_at.entry(name).or_default();
            needed |= *seen == 0;
            *seen += 1;
        }
        if needed {
            look_at(store, entry).await?;
        }
    }
    Ok(())
}

async fn look_at(store: &DynStore, entry: &SetEntry) -> Result<()> {
    let prefix = entry.id().prefix();
    let mut last = None;
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK_AGAIN * look).await;
        }
        let listed: BTreeMap<String, u64> =
            whole::list_all(&**store, &prefix).await?.into_iter().map(|found| (found.key, found.bytes)).collect();
        last = None;
        for object in entry.manifest.every_object() {
            let key = format!("{prefix}{}", object.file);
            let there = match store.head(&key).await {
                Ok(head) => Some(head.bytes),
                Err(e) if e.kind() == Kind::NotFound => None,
                Err(e) => return Err(e.context(format!("look at {key} before anything is deleted"))),
            };
            let wrong = match (there, listed.get(&key)) {
                (Some(bytes), _) if bytes != object.stored_bytes => {
                    Some(format!("{key} has {bytes} bytes, {} were stored", object.stored_bytes))
                }
                (Some(_), Some(_)) => None,
                (Some(_), None) => Some(format!("the store has {key} and does not list it: its listing cannot be trusted")),
                (None, Some(_)) => Some(format!("the store lists {key} and does not have it")),
                (None, None) => Some(format!("{key} is missing")),
            };
            last = last.or(wrong);
        }
        if last.is_none() {
            return Ok(());
        }
    }
    let why = last.unwrap_or_default();
    Err(Error::new(Kind::Verify, format!("nothing was deleted: of {}, which has to stay, {why}", entry.id()))
        .hint(format!("drctl verify {}, and a new backup: drctl backup now", entry.id())))
}
