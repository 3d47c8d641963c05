//! The agent itself: [`Agent::tick`] looks once at clock, schedule, runs and configuration and returns at once; [`serve`] ticks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agent::alarms::{self, Disk};
use crate::agent::facts::Facts;
use crate::agent::lifecycle::{self, Manager};
use crate::agent::log::{Log, RunLog};
use crate::agent::schedule::{self, Due, What, table::Table};
use crate::agent::work::{Done, Work};
use crate::config::load::load;
use crate::config::typed::{Config, Job, StorePlace};
use crate::error::{Error, Kind, Result};
use crate::model::{JobName, Severity};
use crate::notify::words;
use crate::notify::{Alert, Desk};
use crate::observe::Bus;
use crate::open::policy::pace;
use crate::open::reporter::{desk, run_name};
use crate::open::{Surroundings, stores};
use crate::ops::board::Board;
use crate::ops::restore::journal::RestoreNote;
use crate::state::{AgentLock, RunRow, StateFile};

mod digest;
mod look;
mod memory;
mod pages;
mod reload;

use look::{LOOK, Looked};
use memory::Memory;
use pages::Pages;
use reload::{FileMark, marks_of};

/// Jobs that run at the same time: a long one must not make a short one late.
const AT_ONCE: usize = 4;

/// Longest time between two looks at the clock: it may be set, and the machine may sleep.
const TICK: Duration = Duration::from_secs(2);

/// How often alarms are judged while nothing happens.
const JUDGE: SignedDuration = SignedDuration::from_secs(60);

/// What was aborted may clean up for so long.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// The agent.
pub struct Agent {
    around: Surroundings,
    log: Log,
    config: Arc<Config>,
    state: Option<Arc<StateFile>>,
    table: Table,
    desk: Arc<Desk>,
    running: BTreeMap<JobName, Running>,
    tasks: JoinSet<Ended>,
    /// The task of each run, to know whose ended when it broke down.
    by_task: BTreeMap<tokio::task::Id, JobName>,
    known: BTreeMap<JobName, Facts>,
    /// The task that looks at the repository.
    looking: Option<tokio::task::Id>,
    next_look: Timestamp,
    next_judgement: Timestamp,
    /// Of each job and group the longest time between two scheduled backups. Known once: it takes a look at a week of each.
    intervals: BTreeMap<(JobName, String), Duration>,
    files: Vec<FileMark>,
    /// Files that were changed, as the last look saw them.
    changing: Option<Vec<FileMark>>,
    next_file_look: Timestamp,
    refused: Option<(Timestamp, String)>,
    loaded_at: Timestamp,
    /// When the repository was last looked at, and why it could not be read.
    looked: Option<(Timestamp, Option<String>)>,
    /// Of each further store why it does not answer, if it does not.
    stores_seen: BTreeMap<String, Option<String>>,
    /// Why single logs could not be read when they were last looked at.
    unreadable: BTreeMap<JobName, String>,
    /// What a person should do some day.
    advice: Vec<String>,
    pages: Pages,
    /// Runs to be made up for, each with when the one that died began.
    again: Vec<(Due, Timestamp)>,
    memory: Memory,
    stopping: bool,
    started_at: Timestamp,
    _lock: Option<AgentLock>,
}

/// A run under way.
struct Running {
    what: What,
    since: Timestamp,
    cancel: CancellationToken,
}

enum Ended {
    Run(Box<Done>),
    Looked(Box<Looked>),
    Remembers(Box<memory::Opening>),
}

impl Agent {
    /// Loads the configuration and takes up where an earlier agent left off. [`Kind::Config`] when the configuration is wrong,
    /// [`Kind::Locked`] when another agent works on its state folder.
    pub async fn start(around: Surroundings, log: Log) -> Result<Agent> {
        let config = load(&around.load_options())?;
        // At once: what is written to them while the state file is opened must be seen later.
        let files = marks_of(&config);
        for warning in &config.warnings {
            log.line("warn", None, &warning.to_string());
        }
        let now = around.clock.now();
        let lock = match AgentLock::take(&config.state) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == Kind::Locked => return Err(error),
            Err(error) => {
                log.line("warn", None, &format!("a second agent on this folder would not be noticed: {error}"));
                None
            }
        };
        let memory::Opening { state, interrupted, problem, knows_logs } = memory::open(&config, &around.clock);
        let seed = stores::host();
        let marks =
            state.as_ref().map(|state| state.schedule_marks(&config.repository.id)).transpose().unwrap_or_default().unwrap_or_default();
        let table = Table::new(schedule::entries(&config), &marks, now, &seed);
        let desk = Arc::new(desk(&config, state.clone(), &around));
        let intervals = intervals(&config, now);
        let mut agent = Agent {
            around,
            log,
            config: Arc::new(config),
            state,
            table,
            desk,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            by_task: BTreeMap::new(),
            known: BTreeMap::new(),
            looking: None,
            next_look: now,
            next_judgement: now,
            intervals,
            files,
            changing: None,
            next_file_look: now,
            refused: None,
            loaded_at: now,
            looked: None,
            stores_seen: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            advice: Vec::new(),
            pages: Pages::new(now),
            again: Vec::new(),
            memory: Memory::new(now, problem.is_none(), knows_logs),
            stopping: false,
            started_at: now,
            _lock: lock,
        };
        match problem {
            Some(problem) => agent.cannot_remember(&problem),
            None => agent.remembers(),
        }
        agent.note_refusal("");
        agent.keep_marks();
        agent.keep_configuration();
        // Reading a large configuration takes several times what it is.
        lifecycle::give_back_memory();
        agent.take_up(&interrupted);
        agent.make_up_for(&interrupted, &marks);
        Ok(agent)
    }

    /// Backups of an earlier agent that died are told of.
    fn take_up(&self, interrupted: &[RunRow]) {
        for row in interrupted {
            let Some(job) = row.job.clone() else { continue };
            let ended = row.finished_at.unwrap_or(row.started_at);
            let report = words::BackupReport {
                why: Some(format!("the process that ran it since {} died", row.started_at.strftime("%Y-%m-%d %H:%M UTC"))),
                set: row.set.clone(),
                ..words::BackupReport::new(job.clone(), Kind::Interrupted.exit_code(), row.started_at, ended)
            };
            self.log.line("warn", None, &format!("the backup of {job}, begun {}, was interrupted", row.started_at));
            self.tell(self.desk.report(words::backup_report(&report)));
        }
    }

    /// Looks once at everything; begins what is due, ends what ended. Returns at once.
    pub async fn tick(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(ended);
        }
        if self.stopping {
            return;
        }
        let now = self.around.clock.now();
        self.look_at_memory(now);
        self.look_at_files(now).await;
        self.begin_due(now);
        if self.looking.is_none() && has_come(self.next_look, now, LOOK) {
            self.look();
        }
        if has_come(self.next_judgement, now, JUDGE) {
            let board = self.make_board(now);
            self.judge(&board, now);
            self.serve_pages().await;
            self.show(board);
        }
        self.digest(now);
    }

    /// When the next tick has something to do, by the schedule alone.
    pub fn sleep_for(&mut self) -> Duration {
        let now = self.around.clock.now();
        let next = self.table.next_start().map(|at| at.duration_since(now)).filter(|left| *left > SignedDuration::ZERO);
        next.map_or(TICK, |left| left.unsigned_abs().min(TICK))
    }

    /// Waits until no run and no look is under way.
    pub async fn settle(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.ended(ended);
        }
    }

    /// Sends what waits to be sent.
    pub async fn deliver(&self) {
        for outcome in self.desk.deliver_due().await {
            if let Some(problem) = outcome.problem {
                self.log.line("warn", None, &format!("notifier {}: {problem}", outcome.notifier));
            }
        }
    }

    /// The desk, for whoever delivers beside.
    pub fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    /// Jobs with a run under way.
    pub fn busy(&self) -> usize {
        self.running.len()
    }

    /// Begins nothing more; what runs may go on for the configured time, then it is aborted.
    pub async fn stop(&mut self) {
        self.stopping = true;
        let within = self.config.agent.stop_within;
        if !self.running.is_empty() {
            self.log.line("info", None, &format!("stopping: {} may end within {} s", self.busy_words(), within.as_secs()));
        }
        if tokio::time::timeout(within, self.settle()).await.is_err() {
            self.log.line("warn", None, &format!("stopping: {} is aborted", self.busy_words()));
            self.running.values().for_each(|running| running.cancel.cancel());
            let _ = tokio::time::timeout(CLEAN_UP, self.settle()).await;
        }
        self.tasks.abort_all();
        self.deliver().await;
    }

    fn busy_words(&self) -> String {
        let words: Vec<String> = self.running.iter().map(|(job, running)| format!("{} of {job}", running.what.name())).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    }

    fn begin_due(&mut self, now: Timestamp) {
        if let Some(back) = self.table.clock_went_back() {
            self.log.line("warn", None, &format!("the clock was set back by {} s", back.as_secs()));
            self.keep_marks();
        }
        let mut due: Vec<(Due, Option<Timestamp>)> = self.table.due(now).into_iter().map(|due| (due, None)).collect();
        due.extend(std::mem::take(&mut self.again).into_iter().map(|(due, died)| (due, Some(died))));
        if due.is_empty() {
            return;
        }
        let restoring = self.restore_is_running();
        for (due, repeated) in due {
            let entry = due.entry.clone();
            if due.too_old {
                self.take(&due);
                let scheduled = due.scheduled_at.to_zoned(entry.zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string();
                self.raise(Alert {
                    job: Some(entry.job.to_string()),
                    lines: vec![format!("it was due {scheduled}, longer ago than schedule.catch_up allows; it comes at its next time")],
                    ..Alert::new(
                        format!("missed:{}:{}:{}", entry.job, entry.group, entry.what.name()),
                        Severity::Warning,
                        format!("{}: {} was missed", entry.job, entry.what.name()),
                    )
                });
                continue;
            }
            if restoring || self.running.contains_key(&entry.job) || self.running.len() >= AT_ONCE {
                // It stays due. A restore comes first, and a job does one thing at a time.
                if let Some(died) = repeated {
                    self.again.push((due, died));
                }
                continue;
            }
            match repeated {
                Some(_) => self.begins_again(&due),
                None => self.take(&due),
            }
            self.begin(due, repeated, now);
        }
    }

    /// Counts it as handled, on the disk before it begins.
    fn take(&mut self, due: &Due) {
        let marks = self.table.take(due);
        if let Some(state) = &self.state
            && let Err(error) = state.keep_schedule_marks(&self.config.repository.id, &marks)
        {
            self.log.line("warn", None, &format!("what ran when is not remembered: {error}"));
            self.memory.look_now();
        }
    }

    fn begin(&mut self, due: Due, instead_of: Option<Timestamp>, now: Timestamp) {
        let (job, what) = (due.entry.job.clone(), due.entry.what);
        let run = run_name();
        let bus = Bus::new();
        bus.subscribe(Arc::new(RunLog { log: self.log.clone(), run: format!("{job}/{}", what.name()) }));
        let cancel = CancellationToken::new();
        let bandwidth = self.config.agent.bandwidth;
        let around = Surroundings { bus, cancel: cancel.clone(), verb: "agent", bandwidth, ..self.around.clone() };
        let late = due.missed > 0;
        let missed = if late { format!(", and stands for {} missed", due.missed) } else { String::new() };
        self.log.line("info", None, &format!("{} of {job} (group {}) begins{missed}", what.name(), due.entry.group));
        let work = Work { config: self.config.clone(), around, state: self.state.clone(), desk: self.desk.clone(), due, instead_of, run };
        let task = self.tasks.spawn(async move { Ended::Run(Box::new(work.run().await)) });
        self.by_task.insert(task.id(), job.clone());
        self.running.insert(job, Running { what, since: now, cancel });
    }

    fn restore_is_running(&self) -> bool {
        let Some(state) = &self.state else { return false };
        RestoreNote::all(state).unwrap_or_default().iter().any(|note| note.is_running(state))
    }

    fn ended(&mut self, ended: std::result::Result<(tokio::task::Id, Ended), tokio::task::JoinError>) {
        let now = self.around.clock.now();
        match ended {
            Ok((task, Ended::Run(done))) => {
                self.by_task.remove(&task);
                self.running.remove(&done.job);
                if done.exit_code == 0 {
                    if done.what.makes_sets() {
                        self.tell(self.desk.clear(memory::NEW, None, &[]));
                    }
                    let key = format!("broke-down:{}", done.job);
                    self.tell(self.desk.clear(&key, None, &[]));
                    for group in self.config.job(done.job.as_str()).map(Job::group_names).unwrap_or_default() {
                        self.tell(self.desk.clear(&format!("missed:{}:{group}:{}", done.job, done.what.name()), None, &[]));
                    }
                }
                if let Some(facts) = done.facts {
                    self.unreadable.remove(&done.job);
                    self.known.insert(done.job, facts);
                }
                lifecycle::give_back_memory();
            }
            Ok((_, Ended::Looked(looked))) => {
                self.saw(*looked, now);
                lifecycle::give_back_memory();
            }
            Ok((_, Ended::Remembers(opening))) => self.opened_again(*opening),
            Err(broken) => self.broke_down(broken.id(), now),
        }
        self.next_judgement = now;
    }

    /// A task ended by a panic, which is a mistake in drctl.
    fn broke_down(&mut self, task: tokio::task::Id, now: Timestamp) {
        if self.looking == Some(task) {
            return self.saw(Looked::broken(), now);
        }
        let Some(job) = self.by_task.remove(&task) else {
            self.memory.opening = false;
            return;
        };
        let verb = self.running.remove(&job).map_or("run", |running| running.what.name());
        self.log.line("error", None, &format!("{verb} of {job} broke down: this is a mistake in drctl"));
        // As long as it counts as under way nobody hears that it came to nothing, and its lease keeps the next one from its work.
        if let Some(state) = &self.state
            && let Err(error) = state.sweep_broken("it broke down: this is a mistake in drctl")
        {
            self.log.line("warn", None, &format!("that it broke down is not remembered: {error}"));
        }
        self.raise(Alert {
            job: Some(job.to_string()),
            lines: vec![format!("its {verb} broke down: this is a mistake in drctl, please report it; no set was harmed")],
            next: Some(format!("drctl status --job {job}")),
            ..Alert::new(format!("broke-down:{job}"), Severity::Critical, format!("{job}: a run broke down"))
        });
    }

    /// Raises what is wrong now and clears what no longer is.
    fn judge(&mut self, board: &Board, now: Timestamp) {
        self.next_judgement = now.saturating_add(JUDGE).unwrap_or(now);
        let mut found: Vec<Alert> = board.jobs.iter().flat_map(alarms::of_job).collect();
        let skew = self.known.values().max_by_key(|facts| facts.read_at).map(|facts| facts.skew);
        found.extend(skew.and_then(alarms::of_clock));
        found.extend(alarms::of_disks(&self.disks()));
        found.extend(alarms::of_stores(&self.stores_seen));
        let open = self.desk.open_incidents().unwrap_or_default();
        for incident in open.iter().filter(|incident| incident.key.starts_with(alarms::PREFIX)) {
            let key = &incident.key;
            if !found.iter().any(|alert| alert.key == *key) && self.can_tell(key, incident.job.as_deref(), board) {
                self.tell(self.desk.clear(key, None, &[]));
            }
        }
        for alert in found {
            self.raise(alert);
        }
    }

    /// Whether so much is known that an alarm which is not found is over. An agent that has just begun has looked at nothing yet.
    fn can_tell(&self, key: &str, job: Option<&str>, board: &Board) -> bool {
        if let Some(store) = key.strip_prefix(alarms::STORE) {
            return self.stores_seen.contains_key(store) || !board.stores.iter().any(|known| known.name == store);
        }
        match job.and_then(|job| board.job(job)) {
            Some(job) => job.log.is_some(),
            None => key != alarms::CLOCK || !self.known.is_empty(),
        }
    }

    fn disks(&self) -> Vec<Disk> {
        let local = self.config.repository.stores.iter().filter_map(|store| match &store.place {
            StorePlace::Local { path } => Some((format!("store {}", store.name), path.clone())),
            StorePlace::S3(_) => None,
        });
        let all = local.chain([("the state file".to_owned(), self.config.state.clone())]);
        let look = |(name, path): (String, PathBuf)| {
            let stat = rustix::fs::statvfs(&path).ok()?;
            Some(Disk { name, free: stat.f_bavail.saturating_mul(stat.f_frsize), size: stat.f_blocks.saturating_mul(stat.f_frsize) })
        };
        all.filter_map(look).collect()
    }

    fn keep_marks(&self) {
        if let Some(state) = &self.state
            && let Err(error) = state.replace_schedule_marks(&self.config.repository.id, &self.table.marks())
        {
            self.log.line("warn", None, &format!("what ran when is not remembered: {error}"));
        }
    }

    fn raise(&self, alert: Alert) {
        self.tell(self.desk.raise(&alert));
    }

    fn tell(&self, problem: Option<Error>) {
        if let Some(problem) = problem {
            self.log.line("warn", None, &format!("an alert is kept in memory only: {problem}"));
        }
    }
}

/// Whether it is time for what is done every `pace`. A time that lies further ahead was set by a clock that has gone back since.
fn has_come(next: Timestamp, now: Timestamp, pace: SignedDuration) -> bool {
    let until = next.duration_since(now);
    until <= SignedDuration::ZERO || until > pace
}

fn intervals(config: &Config, now: Timestamp) -> BTreeMap<(JobName, String), Duration> {
    let of_group = |job: &Job, group: &str| {
        pace(job.schedule_of(group), &job.timezone, now).map(|(_, interval)| ((job.name.clone(), group.to_owned()), interval))
    };
    config.jobs.iter().flat_map(|job| job.group_names().into_iter().filter_map(move |group| of_group(job, &group))).collect()
}

/// Runs until `around.cancel`: schedules, configuration, alarms, delivery.
pub async fn serve(around: Surroundings) -> Result<u8> {
    use tokio::signal::unix::{SignalKind, signal};
    let log = Log::to_stderr(around.clock.clone());
    let manager = Manager::from_environment();
    let cancel = around.cancel.clone();
    // Before anything else: whoever asks for a reload early must not end the agent by it.
    lifecycle::few_arenas();
    let mut hang_up = signal(SignalKind::hangup()).map_err(|e| Error::failed("listen for SIGHUP").because(e))?;
    let mut agent = Agent::start(around, log.clone()).await?;
    if let Some(nice) = agent.config.agent.nice
        && let Err(error) = lifecycle::be_nice(nice)
    {
        log.line("warn", None, &format!("agent.nice: {error}"));
    }
    let jobs = agent.config.jobs.len();
    log.line("info", None, &format!("drctl {} runs {}", env!("CARGO_PKG_VERSION"), crate::ops::words::count(jobs as u64, "job")));
    manager.ready(&format!("{jobs} jobs"));
    loop {
        agent.tick().await;
        manager.alive();
        let desk = agent.desk();
        tokio::spawn(async move { desk.deliver_due().await });
        let pause = agent.sleep_for();
        tokio::select! {
            () = cancel.cancelled() => break,
            _ = hang_up.recv() => agent.reload().await,
            () = tokio::time::sleep(pause) => {}
        }
    }
    manager.stopping(agent.config.agent.stop_within + CLEAN_UP);
    agent.stop().await;
    log.line("info", None, "stopped");
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f57_what_a_clock_ahead_put_off_is_done_at_once() {
        let now: Timestamp = "2025-06-30T12:00:00Z".parse().unwrap();
        let pace = SignedDuration::from_secs(60);
        let come = |seconds: i64| has_come(now + SignedDuration::from_secs(seconds), now, pace);
        assert_eq!([come(-3600), come(0), come(1), come(60), come(61), come(86_400)], [true, true, false, false, true, true]);
    }
}
