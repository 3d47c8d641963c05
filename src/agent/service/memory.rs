//! The state file under a running agent: it may be lost, new, full, read-only, locked or broken. Runs go on, and it is said.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Agent, Ended, has_come};
use crate::agent::schedule::{self, Due};
use crate::config::typed::Config;
use crate::error::{Error, Kind, Result};
use crate::model::{Clock, Severity};
use crate::notify::Alert;
use crate::open::STATE_FILE;
use crate::state::{Process, RunOutcome, RunRow, ScheduleMark, StateFile, agent};

/// Key of the alarm that the state file cannot be used.
const ALARM: &str = "state";

/// Key of the alarm that it knows nothing of sets that are there.
pub(super) const NEW: &str = "state-new";

/// How often it is tried whether it can be written to.
const TRY: SignedDuration = SignedDuration::from_secs(60);

/// How it stands with the state file.
pub(super) struct Memory {
    next_try: Timestamp,
    /// It could not be written to, which was said.
    trouble: bool,
    /// A task tries to open it.
    pub(super) opening: bool,
    /// When it was made anew, as far as it seems: whether the repository has sets that it should know is told by the logs.
    new_since: Option<Timestamp>,
}

impl Memory {
    pub(super) fn new(now: Timestamp, is_open: bool, knows_logs: bool) -> Memory {
        let next_try = if is_open { now } else { now.saturating_add(TRY).unwrap_or(now) };
        Memory { next_try, trouble: false, opening: false, new_since: (!knows_logs).then_some(now) }
    }

    /// Something could not be written down: it is looked at with the next tick.
    pub(super) fn look_now(&mut self) {
        self.next_try = Timestamp::MIN;
    }
}

/// What opening the state file gave.
pub(super) struct Opening {
    pub(super) state: Option<Arc<StateFile>>,
    /// Backups of the agent before this one that were interrupted.
    pub(super) interrupted: Vec<RunRow>,
    /// Why it cannot be used.
    pub(super) problem: Option<Error>,
    /// Whether it has seen the log of any job; `true` too while nothing can be said.
    pub(super) knows_logs: bool,
}

/// Opens the state file. Blocks for seconds where another process does not let go of it.
pub(super) fn open(config: &Config, clock: &Arc<dyn Clock>) -> Opening {
    crate::source::postgres::sweep_private_files();
    let opened = StateFile::open(&config.state.join(STATE_FILE), clock.clone()).and_then(|state| {
        state.sweep_interrupted()?;
        let interrupted = interrupted(&state)?;
        Ok((Arc::new(state), interrupted))
    });
    match opened {
        Ok((state, interrupted)) => {
            let has_seen = |job: &crate::config::typed::Job| !matches!(state.mark(&config.repository.id, &job.name), Ok(None));
            let knows_logs = config.jobs.iter().any(has_seen);
            Opening { state: Some(state), interrupted, problem: None, knows_logs }
        }
        Err(problem) => Opening { state: None, interrupted: Vec::new(), problem: Some(problem), knows_logs: true },
    }
}

/// Among so many newest backups those of an agent that died are looked for.
const LOOKED_AT: u32 = 100;

/// Backups that the agent before this one did not end. Any verb may have noted in between that they were interrupted. From here on this is the
/// agent, so that each is found once.
fn interrupted(state: &StateFile) -> Result<Vec<RunRow>> {
    let last: Option<Process> = state.setting(agent::PROCESS)?.and_then(|text| serde_json::from_str(&text).ok());
    let mut dead = match last {
        Some(_) => state.runs(None, Some("backup"), LOOKED_AT)?,
        None => Vec::new(),
    };
    // One with an error broke down while that agent lived, which told of it.
    dead.retain(|row| row.outcome == RunOutcome::Interrupted && last.as_ref() == Some(&row.process) && row.error.is_none());
    dead.reverse();
    Ok(dead)
}

/// A run to be made up for, as it outlives this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Again {
    job: String,
    group: String,
    what: String,
    /// The instant it was meant for.
    scheduled_at: Timestamp,
    /// When the run began that died.
    died: Timestamp,
    /// It was begun anew: should that one die too, it is left to the next instant.
    begun: bool,
}

/// So many are remembered.
const AGAIN_KEPT: usize = 100;

impl Agent {
    /// What an earlier agent was to make up for, and what it left undone itself.
    pub(super) fn make_up_for(&mut self, interrupted: &[RunRow], marks: &[ScheduleMark]) {
        let kept = self.state.as_ref().and_then(|state| state.setting(agent::AGAIN).ok()?);
        let mut all: Vec<Again> = kept.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        for row in interrupted {
            // Of the group whose instant it was: the mark was kept just before it began.
            let begun_for = |mark: &&ScheduleMark| {
                let before = row.started_at.duration_since(mark.handled);
                row.job.as_ref() == Some(&mark.job) && before >= SignedDuration::ZERO && before < SignedDuration::from_hours(24)
            };
            let backups = marks.iter().filter(|mark| matches!(mark.what.as_str(), "full" | "incremental" | "archive"));
            let Some(mark) = backups.filter(begun_for).max_by_key(|mark| mark.handled) else { continue };
            let (job, group, what) = (mark.job.clone(), mark.group.clone(), mark.what.clone());
            let again = Again { job, group, what, scheduled_at: mark.handled, died: row.started_at, begun: false };
            let same = |other: &Again| Again { died: again.died, begun: false, ..other.clone() } == again;
            if !all.iter().any(same) {
                all.push(again);
            }
        }
        all.drain(..all.len().saturating_sub(AGAIN_KEPT));
        let entries = schedule::entries(&self.config);
        for again in all.iter().filter(|again| !again.begun) {
            let entry = entries.iter().find(|entry| entry.is(&again.job, &again.group, &again.what));
            if let Some(entry) = entry.cloned() {
                let (entry, scheduled_at) = (Arc::new(entry), again.scheduled_at);
                self.again.push((Due { entry, scheduled_at, missed: 0, too_old: false, covers: Vec::new() }, again.died));
            }
        }
        self.keep_again(&all);
        let process = serde_json::to_string(&Process::this()).unwrap_or_default();
        self.keep_setting(agent::PROCESS, &process);
    }

    /// Notes that a run is made up for now, before it begins: never more than once.
    pub(super) fn begins_again(&self, due: &Due) {
        let kept = self.state.as_ref().and_then(|state| state.setting(agent::AGAIN).ok()?);
        let mut all: Vec<Again> = kept.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let of_due = |again: &&mut Again| due.entry.is(&again.job, &again.group, &again.what) && again.scheduled_at == due.scheduled_at;
        all.iter_mut().filter(of_due).for_each(|again| again.begun = true);
        self.keep_again(&all);
    }

    fn keep_again(&self, all: &[Again]) {
        self.keep_setting(agent::AGAIN, &serde_json::to_string(all).unwrap_or_default());
    }

    fn keep_setting(&self, key: &str, value: &str) {
        if let Some(state) = &self.state
            && let Err(error) = state.set_setting(key, value)
        {
            self.log.line("warn", None, &format!("not remembered on this host: {error}"));
        }
    }

    /// Notes that this agent lives, which tells whether anything can be noted.
    pub(super) fn look_at_memory(&mut self, now: Timestamp) {
        if self.memory.opening || !has_come(self.memory.next_try, now, TRY) {
            return;
        }
        self.memory.next_try = now.saturating_add(TRY).unwrap_or(now);
        let Some(state) = self.state.clone() else { return self.open_memory() };
        if !state.is_in_place() {
            self.log.line("warn", None, &format!("{} was taken away: it is made anew", state.path().display()));
            // Runs under way still write to the old one; what waits in it to be delivered goes out from there.
            (self.state, self.memory.new_since) = (None, Some(now));
            self.desk = Arc::new(self.desk.succeeded_by(&self.config, None, true));
            return self.open_memory();
        }
        match state.set_setting(agent::SEEN, &now.to_string()) {
            Ok(()) if self.memory.trouble => {
                state.wait_for_others(true);
                self.remembers();
                self.keep_marks();
            }
            Ok(()) => {}
            Err(problem) => {
                // Each write would wait as long: that makes runs late, and the watchdog nervous.
                state.wait_for_others(false);
                if problem.kind() == Kind::Corrupt {
                    self.state = None;
                    self.desk = Arc::new(self.desk.succeeded_by(&self.config, None, false));
                }
                self.cannot_remember(&problem);
            }
        }
    }

    fn open_memory(&mut self) {
        self.memory.opening = true;
        let (config, clock) = (self.config.clone(), self.around.clock.clone());
        self.tasks.spawn_blocking(move || Ended::Remembers(Box::new(open(&config, &clock))));
    }

    /// The state file was tried again.
    pub(super) fn opened_again(&mut self, opening: Opening) {
        self.memory.opening = false;
        if let Some(problem) = opening.problem {
            return self.cannot_remember(&problem);
        }
        let now = self.around.clock.now();
        self.memory.new_since = self.memory.new_since.or((!opening.knows_logs).then_some(now));
        self.state = opening.state;
        self.desk = Arc::new(self.desk.succeeded_by(&self.config, self.state.clone(), false));
        self.remembers();
        self.keep_marks();
        let refused = self.refused.as_ref().map(|(_, why)| why.clone()).unwrap_or_default();
        self.note_refusal(&refused);
        self.next_look = now;
        // What was due meanwhile ran: they are told of, and not made up for.
        self.take_up(&opening.interrupted);
        self.make_up_for(&[], &[]);
    }

    /// The state file can be written to.
    pub(super) fn remembers(&mut self) {
        self.memory.trouble = false;
        self.tell(self.desk.clear(ALARM, None, &[]));
    }

    /// The state file cannot be used, or not be written to.
    pub(super) fn cannot_remember(&mut self, problem: &Error) {
        self.memory.trouble = true;
        self.log.line("error", None, &format!("the state file cannot be used, runs go on without: {problem}"));
        self.raise(Alert {
            lines: vec![
                problem.to_string(),
                "runs go on; what they were is not remembered on this host, and a restart repeats what is due".into(),
            ],
            next: Some(problem.hint_text().unwrap_or("drctl doctor").to_owned()),
            ..Alert::new(ALARM, Severity::Warning, "the state file cannot be used")
        });
    }

    /// All logs were read; `oldest_set` is when the oldest set in them was begun. Says once that the state file does not know of it.
    pub(super) fn told_by_logs(&mut self, oldest_set: Option<Timestamp>) {
        if self.state.is_none() {
            return;
        }
        let since = self.memory.new_since.take();
        if oldest_set.zip(since).is_some_and(|(oldest, since)| oldest < since) {
            self.log.line("warn", None, "the state file is new, and the repository has sets");
            self.raise(Alert {
                lines: vec![
                    "what the old one knew is lost: the history of runs, what `restore --undo` needs, the audit log, what was last due".into(),
                    "which records of the log must be there is taken from the log as it is now: a set that was cut off it would not be missed".into(),
                ],
                next: Some("was it you who moved it? else compare: drctl list".into()),
                ..Alert::new(NEW, Severity::Warning, "the state file is new although there are sets")
            });
        }
    }

    /// Leaves for `drctl status` why the configuration on the disk is not in use; empty when it is.
    pub(super) fn note_refusal(&self, why: &str) {
        self.keep_setting(agent::REFUSED, why);
    }
}
