//! How the agent and everything it looks after stands. Pure.
//!
//! `failing`: something that a restore will need is not so, or no backup can be made. `degraded`: a person should look within days.
//! Texts hold names and figures only: `/health` asks for no token, and what a server or a tool said may hold anything.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::model::Severity;
use crate::model::clock::age_seconds;
use crate::model::figures::{count, duration};
use crate::ops::board::{Board, JobBoard};

/// The scheduler looks what is due at least once a minute; after this it stands still.
pub const TICK_LATE_SECONDS: i64 = 150;
/// An alert that has waited for so long is not on its way any more.
pub const QUEUE_LATE_SECONDS: i64 = 15 * 60;
/// Clocks that differ by more are told of; a bucket refuses requests from 15 minutes on.
pub const SKEW_SECONDS: f64 = 60.0;

/// How something stands, the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well, or nothing is known to be wrong.
    #[default]
    Ok,
    /// It works; somebody should look.
    Degraded,
    /// It does not, or data would be lost.
    Failing,
}

impl Status {
    /// `ok`, `degraded`, `failing`.
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Degraded => "degraded",
            Status::Failing => "failing",
        }
    }

    fn of(severity: Severity) -> Status {
        match severity {
            Severity::Info => Status::Ok,
            Severity::Warning => Status::Degraded,
            Severity::Critical => Status::Failing,
        }
    }
}

/// One component.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Component {
    /// How it stands.
    pub status: Status,
    /// Why, in a line.
    pub detail: String,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    /// The worst of the components.
    pub status: Status,
    /// `scheduler`, `repository`, `stores`, `state`, `notify`, `config`, `clock`, `incidents`, and `jobs/NAME` for each job.
    pub components: BTreeMap<String, Component>,
}

/// Judges a board as of `now`.
pub fn health(board: &Board, now: Timestamp) -> Health {
    let mut components: BTreeMap<String, Component> = BTreeMap::new();
    let mut put = |name: String, (status, detail): (Status, String)| {
        components.insert(name, Component { status, detail });
    };
    put("scheduler".into(), scheduler(board, now));
    put("repository".into(), repository(board));
    put("stores".into(), stores(board));
    put("state".into(), state(board));
    put("notify".into(), notify(board, now));
    put("config".into(), config(board));
    put("clock".into(), clock(board));
    put("incidents".into(), incidents(board));
    for job in &board.jobs {
        put(format!("jobs/{}", job.job), of_job(job, now));
    }
    Health { status: components.values().map(|c| c.status).max().unwrap_or_default(), components }
}

/// Why the agent is not ready to do its work; `None`: it is.
pub fn not_ready(board: &Board, now: Timestamp) -> Option<String> {
    if board.config.loaded_at.is_none() {
        return Some("the configuration is not loaded yet".into());
    }
    if board.repository.looked_at.is_none() {
        return Some("the repository has not been looked at yet".into());
    }
    let (status, detail) = scheduler(board, now);
    (status != Status::Ok).then(|| format!("scheduler: {detail}"))
}

type Judged = (Status, String);

fn ok(detail: impl Into<String>) -> Judged {
    (Status::Ok, detail.into())
}

fn scheduler(board: &Board, now: Timestamp) -> Judged {
    let Some(tick) = board.scheduler.last_tick else {
        return (Status::Failing, "it has not started yet".into());
    };
    let age = now.as_second() - tick.as_second();
    // A clock that was set back is no reason to trust it: the next tick corrects it, if there is one.
    if age.abs() > TICK_LATE_SECONDS {
        return (Status::Failing, format!("it last looked what is due {} ago: restart the agent", duration(age.abs())));
    }
    ok("running")
}

fn repository(board: &Board) -> Judged {
    match (&board.repository.looked_at, &board.repository.problem) {
        (None, _) => (Status::Failing, "it has not been looked at yet".into()),
        (Some(_), Some(_)) => (Status::Failing, "it cannot be read: drctl doctor".into()),
        (Some(_), None) => ok("readable"),
    }
}

fn stores(board: &Board) -> Judged {
    let away: Vec<_> = board.stores.iter().filter(|store| store.reachable == Some(false)).collect();
    if away.is_empty() {
        return ok(count(board.stores.len() as u64, "store"));
    }
    let names: Vec<&str> = away.iter().map(|store| store.name.as_str()).collect();
    let status = if away.iter().all(|store| store.optional) { Status::Degraded } else { Status::Failing };
    (status, format!("not reachable: {}; drctl doctor says why", names.join(", ")))
}

fn state(board: &Board) -> Judged {
    match board.state.problem {
        Some(_) => {
            (Status::Degraded, "the state file cannot be used: backups go on, and nothing is remembered of them: drctl doctor".into())
        }
        None => ok("the state file is in use"),
    }
}

fn notify(board: &Board, now: Timestamp) -> Judged {
    let late = |since: Timestamp| age_seconds(since, now).is_none_or(|age| age > QUEUE_LATE_SECONDS);
    let stuck = board.queues.iter().filter(|q| q.refused > 0 || q.dropped > 0 || q.waiting_since.is_some_and(late));
    let names: Vec<&str> = stuck.map(|queue| queue.notifier.as_str()).collect();
    if names.is_empty() {
        return ok(count(board.queues.len() as u64, "notifier"));
    }
    (Status::Degraded, format!("alerts were not delivered to {}: drctl notify test", names.join(", ")))
}

fn config(board: &Board) -> Judged {
    match (&board.config.loaded_at, &board.config.refused) {
        (None, _) => (Status::Failing, "it is not loaded yet".into()),
        (Some(_), Some(_)) => (Status::Degraded, "the last reload was refused, the one before is in use: drctl config check".into()),
        (Some(_), None) => ok("loaded"),
    }
}

fn clock(board: &Board) -> Judged {
    match board.clock.skew_seconds {
        Some(skew) if skew.is_nan() || skew.abs() > SKEW_SECONDS => {
            let way = if skew > 0.0 { "ahead of" } else { "behind" };
            (Status::Degraded, format!("it is {} {way} the store's: set up NTP", duration(skew.abs() as i64)))
        }
        Some(_) => ok("as the store's"),
        None => ok("not compared"),
    }
}

fn incidents(board: &Board) -> Judged {
    let Some(worst) = board.incidents.iter().map(|incident| incident.severity).max() else {
        return ok("none open");
    };
    let open = count(board.incidents.len() as u64, "incident");
    (Status::of(worst), format!("{open} open, the worst {}: drctl status", worst.name()))
}

fn of_job(job: &JobBoard, now: Timestamp) -> Judged {
    if let Some(worst) = job.alarms.iter().max_by_key(|alarm| alarm.severity) {
        let texts: Vec<String> = job.alarms.iter().map(|alarm| format!("{}: {}", alarm.text, alarm.next)).collect();
        return (Status::of(worst.severity), texts.join("; "));
    }
    match (&job.log, job.log.as_ref().and_then(|log| log.rpo_seconds(now))) {
        (None, _) => ok("its log has not been read yet"),
        (Some(_), Some(lost)) => ok(format!("{} of work would be lost now", duration(lost))),
        (Some(_), None) => ok("no set yet"),
    }
}
