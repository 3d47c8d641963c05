//! How a run ended, told to the desk: by the agent and by the command line alike, in the same words under the same keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::catalog::select;
use crate::config::typed::{Config, Job};
use crate::error::{Error, Kind, Result};
use crate::model::manifest::SourceEntry;
use crate::model::{ArtifactFormat, Clock, JobName, Manifest, SetId, Severity};
use crate::notify::desk::DeskOptions;
use crate::notify::words::{self, Lost, SourceReport};
use crate::notify::{Alert, Desk, Message, What};
use crate::observe::Bus;
use crate::open::runs::exit_of;
use crate::open::{Opened, Surroundings, stores};
use crate::ops::backup::{BackupReport, OWN_SOURCE};
use crate::ops::diff::ArtifactDiff;
use crate::ops::prune::PruneReport;
use crate::ops::restore::run::RestoreReport;
use crate::ops::words::counted;
use crate::ops::{Setup, conformance, diff};
use crate::state::StateFile;

/// Longest time that a command waits at its end for what it told to be delivered: a request takes 10 s at most, and one that fails is not
/// tried again within it.
const DELIVER: Duration = Duration::from_secs(15);

/// Tells the desk what runs came to.
pub struct Reporter {
    desk: Arc<Desk>,
    bus: Bus,
    clock: Arc<dyn Clock>,
}

/// A backup that was told to begin.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Names the run, for dead-man switches.
    pub run: String,
    /// When it began.
    pub started_at: Timestamp,
}

/// The desk for a configuration, on this machine.
pub fn desk(config: &Config, state: Option<Arc<StateFile>>, around: &Surroundings) -> Desk {
    Desk::new(config, state, around.clock.clone(), DeskOptions::new(stores::host(), around.environment.clone()))
}

/// A name for a run that no other run has: a UUID of version 4, as dead-man switches want it.
pub fn run_name() -> String {
    let bits: u128 = rand::random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

impl Reporter {
    /// One for a desk that somebody else delivers from. `bus` hears what could not be written down.
    pub fn new(desk: Arc<Desk>, bus: Bus, clock: Arc<dyn Clock>) -> Reporter {
        Reporter { desk, bus, clock }
    }

    /// A backup begins.
    pub fn backup_begins(&self, job: &JobName, run: &str) -> Begun {
        let begun = Begun { run: run.to_owned(), started_at: self.clock.now() };
        self.tell(self.desk.report(words::run_started(job.as_str(), run, begun.started_at)));
        begun
    }

    /// A backup ended. `opened` is `None` where nothing could be opened.
    pub async fn backup_ended(&self, opened: Option<&Opened>, settings: &Job, begun: &Begun, ran: Result<&BackupReport, &Error>) {
        let (exit_code, set) = match ran {
            Ok(report) => (exit_of(report), Some(&report.set)),
            Err(error) => (error.kind().exit_code(), None),
        };
        let error = ran.err();
        let mut told = words::BackupReport {
            run: Some(begun.run.clone()),
            why: error.map(ToString::to_string),
            next: error.and_then(|error| error.hint_text().map(str::to_owned)),
            set: set.map(ToString::to_string),
            spread_limit_seconds: settings.objectives.spread.map(|spread| spread.as_secs() as i64),
            rpo_seconds: settings.objectives.rpo.map(|rpo| rpo.as_secs() as i64),
            ..words::BackupReport::new(settings.name.as_str(), exit_code, begun.started_at, self.clock.now())
        };
        if let Some(opened) = opened {
            self.fill(opened, settings, ran.ok(), &mut told).await;
            self.stores_changed(opened);
        }
        self.tell(self.desk.report(words::backup_report(&told)));
    }

    /// A backup of some sources of a job only ended: whatever it came to, the job's whole backups stand as they stood.
    pub fn backup_of_some_ended(&self, job: &JobName, sources: &[String], ran: Result<&BackupReport, &Error>) {
        let of = sources.join(", ");
        let (severity, words, lines, next) = match ran {
            Ok(report) if report.problems.is_empty() => (Severity::Info, "done", vec![format!("set {}", report.set)], None),
            Ok(report) => (Severity::Warning, "is not whole", report.problems.clone(), Some(format!("drctl show {}", report.set))),
            Err(error) => (Severity::Warning, "failed", vec![error.to_string()], error.hint_text().map(str::to_owned)),
        };
        self.done(severity, job, format!("{job}: backup of {of} alone {words}"), lines, next);
    }

    /// What was to be made up for stands in the log already.
    pub fn backup_was_committed(&self, job: &JobName, set: &SetId) {
        let words = format!("{job}: the backup that was interrupted had been committed");
        self.tell(self.desk.clear(&words::backup_incident(job.as_str()), Some(&words), &[format!("{set} stands")]));
    }

    /// A verification of what a job holds ended: all that was read passed, or why not.
    pub fn verification_ended(&self, job: &JobName, failed: Option<&Error>) {
        self.incident(&format!("verify:{job}"), Severity::Critical, job, &format!("{job}: verification failed"), failed);
    }

    /// A prune that may delete ended.
    pub fn prune_ended(&self, job: &JobName, failed: Option<&PruneFailure>) {
        let title = failed.map(|failure| format!("{job}: {}", failure.title)).unwrap_or_default();
        self.incident(&format!("prune:{job}"), Severity::Warning, job, &title, failed.map(|failure| &failure.error));
    }

    /// A restore ended. One that was done is told to everybody who hears warnings: what is live was exchanged.
    pub fn restore_ended(&self, job: &JobName, restored: Result<&RestoreReport, &Error>) {
        // A person is at it: whoever watches backups is not woken by it.
        self.incident(&format!("restore:{job}"), Severity::Warning, job, &format!("{job}: restore failed"), restored.err());
        let Ok(report) = restored else { return };
        let into = report.sources.iter().map(|source| format!("{} into {}", source.name, source.target));
        let not_loaded = (!report.problems.is_empty()).then(|| format!("{} accepted as not loaded", report.problems.len()));
        let next = report.switched.then(|| format!("back again: drctl restore --undo {}", report.restore));
        let title = format!("{job}: restored {}", report.set);
        self.done(Severity::Warning, job, title, into.chain(not_loaded).collect(), next);
    }

    /// An earlier restore was undone.
    pub fn restore_undone(&self, job: &JobName, restore: &str, lines: &[String]) {
        self.done(Severity::Warning, job, format!("{job}: restore {restore} was undone"), lines.to_vec(), None);
    }

    fn done(&self, severity: Severity, job: &JobName, title: String, lines: Vec<String>, next: Option<String>) {
        let message = Message::new(What::Done, severity, title, self.clock.now());
        self.tell(self.desk.report(Message { job: Some(job.to_string()), lines, next, ..message }));
    }

    /// Sends what waits, from here and from before, for a while. What does not go out now stays on the disk, and is said.
    pub async fn deliver(&self) {
        let sent = tokio::time::timeout(DELIVER, self.desk.deliver_due()).await;
        let problems = sent.unwrap_or_default().into_iter().filter_map(|outcome| Some((outcome.notifier, outcome.problem?)));
        for (notifier, problem) in problems {
            self.bus.warn(format!("notifier {notifier}: {problem}"));
        }
        let waiting: u64 = self.desk.states().unwrap_or_default().iter().map(|state| state.waiting).sum();
        if waiting > 0 {
            self.bus
                .warn(format!("{waiting} to be told later, by the agent or the next command: drctl notify test shows what is in the way"));
        }
    }

    /// What the log knows of the run: sizes against the set before, spread, proof, what would be lost now.
    async fn fill(&self, opened: &Opened, settings: &Job, report: Option<&BackupReport>, told: &mut words::BackupReport) {
        let Ok(log) = opened.setup.log(&settings.name).await else { return };
        let now = self.clock.now();
        let status = crate::ops::look::job_status(&log, Some(&settings.group_names()), now, None).await;
        let unknown = if status.dated_ahead.is_some() { Lost::Ahead } else { Lost::Everything };
        told.lost_now = status.rpo_seconds.map_or(unknown, Lost::Seconds);
        let Some(report) = report else { return };
        if report.state == "suspect" {
            told.suspicions.clone_from(&report.problems);
        }
        let Some(entry) = log.state().get(&report.set) else { return };
        let manifest = entry.manifest.clone();
        let before = select::good_before(log.state(), entry).map(|entry| entry.manifest.clone());
        told.grade = entry.grade(false).map(|grade| grade.name().to_owned());
        told.missed_stores = opened
            .setup
            .sinks_of(&settings.name)
            .iter()
            .map(|sink| sink.name.clone())
            .filter(|name| !manifest.stores.contains(name))
            .collect();
        let own = |source: &&SourceEntry| source.kind != OWN_SOURCE;
        let times: Vec<Timestamp> = manifest.sources.iter().filter(own).map(|source| source.as_of).collect();
        told.spread_seconds = times.iter().max().zip(times.iter().min()).map(|(last, first)| last.duration_since(*first).as_secs());
        told.sources = manifest.sources.iter().filter(own).map(|source| source_report(source, &manifest, before.as_deref())).collect();
        if let Some(before) = before {
            told.drift = changes(&opened.setup, &before, &manifest).await;
        }
    }

    /// A bucket that does less than it did.
    fn stores_changed(&self, opened: &Opened) {
        let key = "store-changed";
        match conformance::alarms(&opened.setup).into_iter().next() {
            Some(alarm) => self.raise(key, Severity::Critical, None, "a store is less safe than it was", &alarm),
            None => self.tell(self.desk.clear(key, None, &[])),
        }
    }

    /// Raised where it failed, over where it did not.
    fn incident(&self, key: &str, severity: Severity, job: &JobName, title: &str, failed: Option<&Error>) {
        match failed {
            Some(error) => self.raise(key, severity, Some(job), title, error),
            None => self.tell(self.desk.clear(key, None, &[])),
        }
    }

    fn raise(&self, key: &str, severity: Severity, job: Option<&JobName>, title: &str, error: &Error) {
        let alert = Alert {
            job: job.map(ToString::to_string),
            lines: vec![error.to_string()],
            next: error.hint_text().map(str::to_owned),
            ..Alert::new(key, severity, title)
        };
        self.tell(self.desk.raise(&alert));
    }

    fn tell(&self, problem: Option<Error>) {
        if let Some(problem) = problem {
            self.bus.warn(format!("an alert is kept in memory only: {problem}"));
        }
    }
}

/// Why a prune is an incident.
#[derive(Debug)]
pub struct PruneFailure {
    /// What came of it, in words.
    pub title: &'static str,
    /// Why, and what helps.
    pub error: Error,
}

impl PruneFailure {
    /// Of a prune that came to this; `None` when it did what it was to do.
    pub fn of(opened: Option<&Opened>, pruned: Result<&PruneReport, &Error>) -> Option<PruneFailure> {
        match pruned {
            Ok(report) if report.retained.is_empty() => None,
            Ok(report) => {
                let error = Error::new(Kind::Denied, report.retained.join("; ")).hint(may_delete(opened));
                Some(PruneFailure { title: "the store keeps what was to be deleted", error })
            }
            Err(error) => Some(PruneFailure { title: "nothing was pruned", error: told_again(error) }),
        }
    }
}

/// The same error once more, for each of those who are to know it.
pub fn told_again(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string()).hint_or(error.hint_text().unwrap_or("drctl doctor"))
}

/// How a store is brought to let go of what a prune deletes.
fn may_delete(opened: Option<&Opened>) -> &'static str {
    match opened {
        Some(opened) if !opened.setup.buckets.is_empty() => "drctl grants s3 --role pruner prints what it needs",
        _ => "give the agent's user the right to delete there; the next prune ends what was begun",
    }
}

/// Names of what changed in the configuration of the system: variables, compose files. Read only where this host can.
async fn changes(setup: &Setup, before: &Manifest, now: &Manifest) -> Vec<String> {
    let only = |manifest: &Manifest| {
        let kinds: BTreeMap<&str, &str> = manifest.sources.iter().map(|s| (s.name.as_str(), s.kind.as_str())).collect();
        let mut cut = manifest.clone();
        cut.artifacts.retain(|a| {
            matches!(kinds.get(a.source.as_str()), Some(&"environment" | &"compose")) && setup.identities.can_open(&a.encryption)
        });
        cut
    };
    let (before, now) = (only(before), only(now));
    if before.artifacts.is_empty() || now.artifacts.is_empty() {
        return Vec::new();
    }
    let Ok(found) = diff::diff(setup, &before, &now).await else { return Vec::new() };
    drift(found.artifacts, &now)
}

fn source_report(source: &SourceEntry, manifest: &Manifest, before: Option<&Manifest>) -> SourceReport {
    let of = |manifest: &Manifest| -> u64 { manifest.artifacts.iter().filter(|a| a.source == source.name).map(|a| a.stored_bytes()).sum() };
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for artifact in manifest.artifacts.iter().filter(|a| a.source == source.name) {
        for (name, total) in &artifact.totals {
            *totals.entry(name).or_default() += total;
        }
    }
    SourceReport {
        source: source.name.clone(),
        problem: (!source.problems.is_empty()).then(|| source.problems.join("; ")),
        plain_bytes: manifest.artifacts.iter().filter(|a| a.source == source.name).map(|a| a.plain_bytes).sum(),
        stored_bytes: of(manifest),
        stored_bytes_before: before.filter(|b| b.source(&source.name).is_some()).map(of),
        counts: counted(totals),
    }
}

/// What may be told of a difference: of variables their names; of a file its name says enough, a line of it could be a secret.
fn drift(changed: Vec<ArtifactDiff>, now: &Manifest) -> Vec<String> {
    let mut drift = Vec::new();
    for changed in changed {
        let source = changed.artifact.split('.').next().unwrap_or_default();
        match now.artifacts.iter().any(|a| a.source == source && a.format == ArtifactFormat::Env) {
            true => drift.extend(changed.lines),
            false => drift.push(changed.artifact),
        }
    }
    drift
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{Bed, job, plain_manifest, source_entry};
    use crate::model::artifact::IndexPlace;
    use crate::model::{Encryption, SetKind, Sha256};
    use crate::pipeline::seal::Sealing;
    use crate::pipeline::split::Sink;
    use crate::store::faulty::{FaultyStore, Operation};

    #[tokio::test]
    async fn of_sets_that_this_host_cannot_open_nothing_is_asked() {
        let bed = Bed::new().await;
        bed.backup(&mut bed.log().await, SetKind::Full).await;
        let store = Arc::new(FaultyStore::new(bed.store.clone()));
        let setup = Setup::new(bed.through(store.clone()).await, vec![Sink::new("main", store.clone())], Sealing::None);
        let set = setup.log(&job()).await.unwrap().state().live().next().unwrap().id().clone();
        let manifest = |encryption: Encryption| {
            let mut manifest = plain_manifest();
            manifest.set = set.clone();
            manifest.artifacts[0].encryption = encryption;
            manifest.details.index = IndexPlace::Inside { offset: 8, length: 5, sha256: Sha256([0; 32]) };
            manifest.sources = vec![source_entry(&manifest.artifacts[0].source, "environment")];
            manifest
        };
        let sealed = Encryption::Age { recipients: vec!["age1another".into()] };
        for (encryption, asked) in [(sealed, false), (Encryption::None, true)] {
            let (before, now) = (manifest(encryption.clone()), manifest(encryption));
            let calls = store.calls().len();
            assert_eq!(changes(&setup, &before, &now).await, [""; 0]);
            assert_eq!(store.calls()[calls..].iter().any(|(operation, _)| *operation == Operation::Get), asked);
        }
    }

    #[test]
    fn f64_of_a_file_that_changed_no_line_is_told() {
        let mut now = plain_manifest();
        let mut artifact = |source: &str, file: &str, format: ArtifactFormat| {
            let first = now.artifacts[0].clone();
            now.artifacts.push(crate::model::Artifact { source: source.into(), file: file.into(), format, ..first });
        };
        artifact("environment", "environment.app.env.zst", ArtifactFormat::Env);
        // Its name alone makes it no list of variables.
        artifact("compose", "compose.env.yml.zst", ArtifactFormat::Yaml);
        let changed = |artifact: &str, line: &str| ArtifactDiff {
            artifact: artifact.into(),
            plain_bytes_before: None,
            plain_bytes_after: None,
            counts: Vec::new(),
            lines: vec![line.into()],
            more: 0,
        };
        let found = vec![changed("environment.app", "~ DB_POOL"), changed("compose.env", "+ PASSWORD: hunter2")];
        assert_eq!(drift(found, &now), ["~ DB_POOL", "compose.env"]);
    }
}
