//! The desk: takes what is to be told, decides who hears what, keeps it on the disk until it is delivered (FAULTS 63).
//!
//! It never sleeps: whoever has the time calls [`Desk::deliver_due`] now and then. A message is delivered at least once; a process that dies
//! between sending and striking off sends it again, under the same id. Where the state file cannot be written, everything is kept in
//! memory and goes out all the same (FAULTS 13).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::environment::Environment;
use crate::config::{Config, CronSchedule};
use crate::error::Error;
use crate::error::Result;
use crate::model::figures::{count, duration};
use crate::model::{Clock, Secret, Severity};
use crate::notify::http::Http;
use crate::notify::policy::{self, Pace, Wants};
use crate::notify::{Alert, Clean, Cleaner, Fact, Message, Notifier, What, ways};
use crate::state::{Incident, NewAlert, QueueState, Raised, StateFile};

mod delivery;

pub use delivery::{Outcome, Tried};

/// What the desk needs besides the configuration.
#[derive(Clone, Debug)]
pub struct DeskOptions {
    /// The name of this machine.
    pub host: String,
    /// Where secrets come from.
    pub environment: Environment,
    /// Further secrets that must not stand in a message.
    pub secrets: Vec<Secret>,
    /// The zone that digests are meant in.
    pub zone: TimeZone,
    /// Longest time for one request; `None`: 10 s.
    pub time_limit: Option<Duration>,
}

impl DeskOptions {
    /// For this machine and its zone.
    pub fn new(host: impl Into<String>, environment: Environment) -> DeskOptions {
        DeskOptions { host: host.into(), environment, secrets: Vec::new(), zone: TimeZone::system(), time_limit: None }
    }
}

/// One notifier.
struct Route {
    name: String,
    kind: &'static str,
    /// Only what is about this job.
    job: Option<String>,
    wants: Wants,
    digest: Option<CronSchedule>,
    way: Arc<dyn Notifier>,
}

impl Route {
    fn hears_of(&self, job: Option<&str>) -> bool {
        self.job.is_none() || self.job.as_deref() == job
    }
}

/// The desk.
pub struct Desk {
    disk: Option<Arc<StateFile>>,
    memory: OnceLock<Arc<StateFile>>,
    routes: Vec<Route>,
    cleaner: Cleaner,
    clock: Arc<dyn Clock>,
    options: DeskOptions,
    /// What was sent and could not be struck off, so that it is not sent again: by books (`true`: disk) and number.
    sent: Mutex<HashSet<(bool, i64)>>,
    /// Pauses that could not be written down: by books and number the attempts and when to go on.
    paused: Mutex<HashMap<(bool, i64), (u32, Timestamp)>>,
    /// One delivery at a time, also of what is in memory.
    delivering: tokio::sync::Mutex<()>,
}

impl Desk {
    /// A desk for this configuration. `state`: where things are kept; without one they are kept in memory. Reads the files of secrets.
    pub fn new(config: &Config, state: Option<Arc<StateFile>>, clock: Arc<dyn Clock>, options: DeskOptions) -> Desk {
        let mut desk = Desk {
            disk: state,
            memory: OnceLock::new(),
            routes: Vec::new(),
            cleaner: Cleaner::default(),
            clock,
            options,
            sent: Mutex::default(),
            paused: Mutex::default(),
            delivering: tokio::sync::Mutex::default(),
        };
        desk.configure(config);
        desk
    }

    /// A desk for another configuration or another state file that takes over what this one has in memory. `lost`: the state file of this one
    /// was taken away; what stands in it goes out from there as long as this process has it open.
    pub fn succeeded_by(&self, config: &Config, state: Option<Arc<StateFile>>, lost: bool) -> Desk {
        let same_disk = matches!((&self.disk, &state), (Some(old), Some(new)) if Arc::ptr_eq(old, new));
        let desk = Desk::new(config, state, self.clock.clone(), self.options.clone());
        if let (true, Some(disk)) = (lost && !same_disk, &self.disk) {
            let _ = self.memory.set(disk.clone());
        }
        // Made now if need be: a run that began under this desk may have something to tell later.
        let _ = self.memory();
        if let Some(memory) = self.memory.get() {
            let _ = desk.memory.set(memory.clone());
        }
        let stays = |(on_disk, _): &(bool, i64)| !on_disk || same_disk;
        lock(&desk.sent).extend(lock(&self.sent).iter().filter(|mark| stays(mark)));
        lock(&desk.paused).extend(lock(&self.paused).iter().filter(|(mark, _)| stays(mark)).map(|(mark, pause)| (*mark, *pause)));
        desk
    }

    /// Takes another configuration; what waits stays. Reads the files of secrets.
    pub fn configure(&mut self, config: &Config) {
        let http = match self.options.time_limit {
            Some(limit) => Http::with_limit(self.clock.clone(), limit),
            None => Http::new(self.clock.clone()),
        };
        let http = Arc::new(http);
        let mut secrets = config.known_secrets(&self.options.environment);
        secrets.extend(self.options.secrets.iter().cloned());
        self.cleaner = Cleaner::new(&secrets);
        let route = |(job, notifier): (Option<&crate::model::JobName>, &crate::config::NotifierConfig)| {
            let (way, pace) = ways::way(notifier, &http, &self.options.environment, &self.clock);
            Route {
                name: notifier.name.clone(),
                kind: notifier.kind.name(),
                job: job.map(ToString::to_string),
                wants: Wants { least: notifier.least, success: notifier.success, pace },
                digest: notifier.digest.clone(),
                way,
            }
        };
        self.routes = config.notifiers().map(route).collect();
    }

    /// What takes secrets out of texts, with those it knows.
    pub fn cleaner(&self) -> &Cleaner {
        &self.cleaner
    }

    /// Something is wrong: opens an incident, or notes that it was seen again. `Some`: why it is kept in memory only.
    pub fn raise(&self, alert: &Alert) -> Option<Error> {
        self.raise_with(alert, None, None)
    }

    fn raise_with(&self, alert: &Alert, run: Option<&str>, exit_code: Option<u8>) -> Option<Error> {
        let message = Message {
            incident: Some(alert.key.clone()),
            job: alert.job.clone(),
            lines: alert.lines.clone(),
            next: alert.next.clone(),
            facts: alert.facts.clone(),
            run: run.map(str::to_owned),
            exit_code,
            ..self.message(What::IncidentOpened, alert.severity, &alert.title)
        };
        let text = json(&self.cleaner.clean(message));
        let raised = Raised { key: &alert.key, severity: alert.severity, job: alert.job.as_deref(), message: &text };
        self.write(|books| {
            let incident = books.incident_raise(&raised)?;
            self.settle(books, &incident)
        })
    }

    /// What was wrong under this key is right again. Without a title its end is told in the words of its beginning. Nothing happens when
    /// nothing was wrong. `Some`: why it could not be noted; whoever clears it the next time ends it.
    pub fn clear(&self, key: &str, title: Option<&str>, lines: &[String]) -> Option<Error> {
        let title = title.unwrap_or_default();
        let message = Message {
            incident: Some(key.to_owned()),
            lines: lines.to_vec(),
            ..self.message(What::IncidentRecovered, Severity::Info, title)
        };
        let text = json(&self.cleaner.clean(message));
        let mut problem = None;
        for books in self.all_books() {
            let done = books.incident_clear(key, &text).and_then(|incident| match incident {
                Some(incident) => self.settle(books, &incident),
                None => Ok(()),
            });
            problem = problem.or(done.err());
        }
        problem
    }

    /// A run begins or ended, or something was done. The report of a run that names an incident raises it when the run was not good, and clears it when it was.
    /// `Some`: why it is kept in memory only.
    pub fn report(&self, report: Message) -> Option<Error> {
        let report = Message { id: self.id(), host: self.options.host.clone(), ..report };
        let hears = self.routes.iter().filter(|r| r.hears_of(report.job.as_deref()) && policy::wanted(&report, r.wants));
        let names: Vec<&str> = hears.map(|route| route.name.as_str()).collect();
        let text = json(&self.cleaner.clean(report.clone()));
        let queued =
            names.iter().map(|notifier| self.write(|books| books.queue(&NewAlert { notifier, severity: report.severity, message: &text })));
        let problem = queued.fold(None, |first, next| first.or(next));
        let Some(key) = report.incident.as_deref().filter(|_| report.what == What::RunReport) else { return problem };
        let told = if report.is_good_run() {
            self.clear(key, Some(&again(&report)), report.lines.get(..1).unwrap_or_default())
        } else {
            let alert = Alert {
                key: key.to_owned(),
                // A run that is not good is never only good to know.
                severity: report.severity.max(Severity::Warning),
                job: report.job.clone(),
                title: report.title.clone(),
                lines: report.lines.clone(),
                next: report.next.clone(),
                facts: report.facts.clone(),
            };
            // A run without an exit code was cut off: the check that its report did not reach must hear it by its number all the same.
            self.raise_with(&alert, report.run.as_deref(), Some(report.exit_code.unwrap_or(1)))
        };
        problem.or(told)
    }

    /// Whether a digest is due for somebody. Asked for the first time it notes the day and says no.
    pub fn digest_is_due(&self) -> bool {
        self.routes.iter().any(|route| self.route_digest_is_due(route))
    }

    /// Sends a digest to those for whom one is due. `Some`: why it is kept in memory only.
    pub fn digest(&self, digest: Message) -> Option<Error> {
        let digest = Message { id: self.id(), host: self.options.host.clone(), what: What::Digest, ..digest };
        let text = json(&self.cleaner.clean(digest.clone()));
        let mut problem = None;
        for route in self.routes.iter().filter(|route| self.route_digest_is_due(route)) {
            let now = self.clock.now().to_string();
            let told = self.write(|books| {
                books.queue(&NewAlert { notifier: &route.name, severity: digest.severity, message: &text })?;
                books.set_setting(&digest_key(&route.name), &now)
            });
            problem = problem.or(told);
        }
        problem
    }

    fn route_digest_is_due(&self, route: &Route) -> bool {
        let Some(cron) = &route.digest else { return false };
        let (key, now) = (digest_key(&route.name), self.clock.now());
        // The newest of what the books say: the disk may have been read only for a while.
        let last = self.all_books().iter().filter_map(|books| books.setting(&key).ok()?.as_deref()?.parse::<Timestamp>().ok()).max();
        match last {
            // One from the future is of a clock that was wrong.
            Some(last) if last <= now => cron.next_after(last, &self.options.zone).is_some_and(|next| next <= now),
            _ => {
                let _ = self.write(|books| books.set_setting(&key, &now.to_string()));
                false
            }
        }
    }

    /// How it stands with what waits, of all notifiers, those among them that the configuration no longer has.
    pub fn states(&self) -> Result<Vec<QueueState>> {
        let mut all = match &self.disk {
            Some(disk) => disk.queue_states()?,
            None => Vec::new(),
        };
        for more in self.memory.get().map(|books| books.queue_states()).transpose()?.into_iter().flatten() {
            match all.iter_mut().find(|state| state.notifier == more.notifier) {
                Some(state) => {
                    state.waiting += more.waiting;
                    state.refused += more.refused;
                    state.dropped += more.dropped;
                    state.problem = state.problem.take().or(more.problem);
                }
                None => all.push(more),
            }
        }
        Ok(all)
    }

    /// What is wrong now, the oldest first.
    pub fn open_incidents(&self) -> Result<Vec<Incident>> {
        let mut all = Vec::new();
        for books in self.all_books() {
            all.extend(books.incidents_open()?);
        }
        Ok(all)
    }

    /// Queues what is to be told of an incident now.
    fn settle(&self, books: &StateFile, incident: &Incident) -> Result<()> {
        let told = books.incident_told(incident.id)?;
        for route in self.routes.iter().filter(|route| route.hears_of(incident.job.as_deref())) {
            let own = told.iter().find(|t| t.notifier == route.name);
            let Some(what) = policy::incident(incident, own, route.wants, self.clock.now()) else { continue };
            let text = json(&self.cleaner.clean(self.of_incident(incident, what)));
            let alert = NewAlert { notifier: &route.name, severity: incident.severity, message: &text };
            let closes = what == What::IncidentRecovered || route.wants.pace == Pace::Runs;
            books.incident_tell(incident, &alert, closes)?;
        }
        Ok(())
    }

    fn of_incident(&self, incident: &Incident, what: What) -> Message {
        let read = |text: &str| serde_json::from_str::<Message>(text).ok();
        let lost = || self.message(what, incident.severity, &incident.key);
        let seen = read(&incident.message).unwrap_or_else(lost);
        let lasted = |until: Timestamp| duration(until.duration_since(incident.opened_at).as_secs());
        let times = Fact::new("Seen", count(incident.times, "time"));
        let common = |message: Message| Message {
            id: self.id(),
            what,
            severity: incident.severity,
            incident: Some(incident.key.clone()),
            job: incident.job.clone(),
            host: self.options.host.clone(),
            ..message
        };
        match (what, incident.recovered_at) {
            (What::IncidentRecovered, Some(at)) => {
                let closing = incident.closing.as_deref().and_then(read).unwrap_or_else(lost);
                let title = if closing.title.is_empty() { format!("{}: over", seen.title) } else { closing.title.clone() };
                let mut facts = vec![Fact::new("Was", seen.title), Fact::new("Lasted", lasted(at)), times];
                facts.extend(closing.facts.iter().cloned());
                common(Message { title, facts, at, ..closing })
            }
            (What::IncidentOpen, _) => {
                let mut facts = vec![Fact::new("Open for", lasted(self.clock.now())), times];
                facts.extend(seen.facts.iter().cloned());
                common(Message { facts, at: incident.raised_at, ..seen })
            }
            _ => common(Message { at: incident.opened_at, ..seen }),
        }
    }

    fn message(&self, what: What, severity: Severity, title: &str) -> Message {
        Message { id: self.id(), host: self.options.host.clone(), ..Message::new(what, severity, title, self.clock.now()) }
    }

    fn id(&self) -> String {
        format!("{:032x}", rand::random::<u128>())
    }

    /// What went wrong in one line, with what helps.
    /// Does something on the disk; where that fails, in memory. `Some`: why it was only in memory.
    fn write(&self, act: impl Fn(&StateFile) -> Result<()>) -> Option<Error> {
        let problem = match &self.disk {
            None => None,
            Some(disk) => match act(disk) {
                Ok(()) => return None,
                Err(error) => Some(error),
            },
        };
        let done = self.memory().and_then(&act);
        match (problem, done) {
            (Some(problem), _) => Some(problem),
            (None, done) => done.err(),
        }
    }

    fn memory(&self) -> Result<&StateFile> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory);
        }
        let made = Arc::new(StateFile::in_memory(self.clock.clone())?);
        Ok(self.memory.get_or_init(|| made))
    }

    fn all_books(&self) -> Vec<&StateFile> {
        self.disk.iter().map(Arc::as_ref).chain(self.memory.get().map(Arc::as_ref)).collect()
    }

    fn is_disk(&self, books: &StateFile) -> bool {
        self.disk.as_ref().is_some_and(|disk| std::ptr::eq(disk.as_ref(), books))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|p| p.into_inner())
}

/// `jisu: recovered, backup done`.
fn again(report: &Message) -> String {
    let job = report.job.as_deref().unwrap_or_default();
    match report.title.strip_prefix(job).and_then(|rest| rest.strip_prefix(": ")) {
        Some(rest) => format!("{job}: recovered, {rest}"),
        None => format!("recovered: {}", report.title),
    }
}

fn digest_key(notifier: &str) -> String {
    format!("notify.digest.{notifier}")
}

fn json(message: &Clean) -> String {
    // Text and numbers only: this cannot fail.
    serde_json::to_string(&**message).unwrap_or_default()
}
