//! One scheduled run: open what it needs, do it, note it, tell of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::agent::choices::{committed_since, drift, groups_meant, readable, set_before, to_verify};
use crate::agent::facts::{self, Facts};
use crate::agent::schedule::{Due, What};
use crate::config::typed::{Config, Job};
use crate::error::{Error, Kind, Result};
use crate::model::manifest::SourceEntry;
use crate::model::record::Grade;
use crate::model::{JobName, Manifest, SetClass, SetId, Severity};
use crate::notify::words::{self, Lost, SourceReport};
use crate::notify::{Alert, Desk};
use crate::open::policy::prune_policy;
use crate::open::runs::{back_up, exit_of, verify_own};
use crate::open::{Opened, RunNote, Surroundings};
use crate::ops::backup::{BackupOptions, BackupReport, OWN_SOURCE};
use crate::ops::limits::within;
use crate::ops::prune::{PruneOptions, PruneReport, prune};
use crate::ops::verify::verify;
use crate::ops::words::counted;
use crate::ops::{Setup, conformance, diff};
use crate::state::{RunOutcome, StateFile};

/// How far back it is looked which run made a set.
const RUNS_LOOKED_AT: u32 = 100;

/// A run that is to be done.
pub struct Work {
    /// The configuration in force; a later one does not touch this run.
    pub config: Arc<Config>,
    /// Its own bus and cancellation.
    pub around: Surroundings,
    /// The state file, where there is one.
    pub state: Option<Arc<StateFile>>,
    /// Who is told.
    pub desk: Arc<Desk>,
    /// What is due.
    pub due: Due,
    /// When the run began that died and that this one makes up for.
    pub instead_of: Option<Timestamp>,
    /// Names the run, for dead-man switches.
    pub run: String,
}

/// A run that ended.
#[derive(Debug)]
pub struct Done {
    /// The job.
    pub job: JobName,
    /// What was run.
    pub what: What,
    /// How it ended (DESIGN §7).
    pub exit_code: u8,
    /// What its log says now, where it could be read.
    pub facts: Option<Facts>,
}

impl Work {
    /// Does it. Whatever goes wrong is noted and told; nothing of it is an error of the agent.
    pub async fn run(self) -> Done {
        let (job, what) = (self.due.entry.job.clone(), self.due.entry.what);
        let opened = Opened::of(&self.around, self.config.clone(), self.state.clone(), true, None).await;
        let settings = self.config.job(job.as_str()).cloned();
        let exit_code = match (what, settings) {
            (_, None) => Kind::Config.exit_code(),
            (What::Verify, Some(settings)) => self.verify(opened.as_ref(), &settings).await,
            (What::Prune, Some(settings)) => self.prune(opened.as_ref(), &settings).await,
            (What::Full | What::Incremental | What::Archive | What::Drill, Some(settings)) => self.backup(opened.as_ref(), &settings).await,
        };
        let facts = match (&opened, self.config.job(job.as_str())) {
            (Ok(opened), Some(settings)) => facts::read(&opened.setup, &job, &settings.group_names(), self.config.jobs.len()).await.ok(),
            _ => None,
        };
        Done { job, what, exit_code, facts }
    }

    async fn backup(&self, opened: Result<&Opened, &Error>, settings: &Job) -> u8 {
        let (job, group) = (&settings.name, &self.due.entry.group);
        if let (Some(died), Ok(opened)) = (self.instead_of, opened)
            && let Some(set) = self.was_committed(opened, settings, died).await
        {
            // It died behind its commit: the log knows, and nothing is run twice (FAULTS 5).
            self.around.bus.warn(format!("the run that was interrupted had committed {set}: it is not made up for"));
            let words = format!("{job}: the backup that was interrupted had been committed");
            self.tell(self.desk.clear(&words::backup_incident(job.as_str()), Some(&words), &[format!("{set} stands")]));
            return 0;
        }
        let started_at = self.around.clock.now();
        self.tell(self.desk.report(words::run_started(job.as_str(), &self.run, started_at)));
        let note = RunNote::begin(self.state.as_ref(), "backup", job);
        let ran = match opened {
            Ok(opened) => self.back_up(opened, settings, group).await,
            Err(error) => Err(told_again(error)),
        };
        let (exit_code, set) = match &ran {
            Ok(report) => (exit_of(report), Some(&report.set)),
            Err(error) => (error.kind().exit_code(), None),
        };
        note.finished(set, exit_code, ran.as_ref().err());
        self.log_error("backup", ran.as_ref().err());
        let mut told = words::BackupReport {
            run: Some(self.run.clone()),
            why: ran.as_ref().err().map(ToString::to_string),
            next: ran.as_ref().err().and_then(|error| error.hint_text().map(str::to_owned)),
            set: set.map(ToString::to_string),
            spread_limit_seconds: settings.objectives.spread.map(|spread| spread.as_secs() as i64),
            rpo_seconds: settings.objectives.rpo.map(|rpo| rpo.as_secs() as i64),
            ..words::BackupReport::new(job.as_str(), exit_code, started_at, self.around.clock.now())
        };
        if let Ok(opened) = opened {
            self.fill(opened, settings, ran.as_ref().ok(), &mut told).await;
            self.tell_of_stores(opened);
        }
        self.tell(self.desk.report(words::backup_report(&told)));
        exit_code
    }

    /// The good set that this host committed for the group in a run that began at `died` or after it.
    async fn was_committed(&self, opened: &Opened, settings: &Job, died: Timestamp) -> Option<SetId> {
        let log = opened.setup.log(&settings.name).await.ok()?;
        // Of runs that came to their end it is known which set each made.
        let runs = self.state.as_ref().and_then(|state| state.runs(Some(settings.name.as_str()), Some("backup"), RUNS_LOOKED_AT).ok());
        let ended: Vec<String> =
            runs.into_iter().flatten().filter(|run| matches!(run.outcome, RunOutcome::Finished(_))).filter_map(|run| run.set).collect();
        let another = |set: &SetId| ended.contains(&set.to_string());
        committed_since(log.state(), &self.due.entry.group, &opened.setup.host, died, another).cloned()
    }

    async fn back_up(&self, opened: &Opened, settings: &Job, group: &str) -> Result<BackupReport> {
        let specs = opened.job_specs(&[settings.name.to_string()])?;
        let spec = specs.into_iter().find(|spec| spec.group == *group);
        let spec = spec.ok_or_else(|| Error::new(Kind::Config, format!("job {} has no sources in group {group}", settings.name)))?;
        let sealed = opened.setup.identities.recipients().is_empty() && opened.config.as_ref().is_some_and(|c| c.repository.encrypt);
        let options = BackupOptions {
            class: if self.due.entry.what == What::Archive { SetClass::Archive } else { SetClass::Ordinary },
            // Whoever wants sets verified, on a host that cannot read them afterwards, wants them read before the commit.
            read_own: sealed && settings.schedule.verify.is_some(),
            ..BackupOptions::default()
        };
        let mut report = back_up(opened, &spec, &options).await?;
        if options.read_own && report.own_read.is_some() {
            let verified =
                verify_own(opened, &mut report).await.map_err(|error| error.context(format!("{} was committed; verify it", report.set)))?;
            if !verified.passed {
                return Err(Error::new(Kind::Verify, format!("{}: {}", report.set, verified.findings.join("; "))));
            }
        }
        Ok(report)
    }

    /// What the log knows of the run: sizes against the set before, spread, proof, what would be lost now.
    async fn fill(&self, opened: &Opened, settings: &Job, report: Option<&BackupReport>, told: &mut words::BackupReport) {
        let Ok(log) = opened.setup.log(&settings.name).await else { return };
        let now = self.around.clock.now();
        let status = crate::ops::look::job_status(&log, Some(&settings.group_names()), now, None);
        told.lost_now = status.rpo_seconds.map_or(Lost::Everything, Lost::Seconds);
        let Some(report) = report else { return };
        if report.state == "suspect" {
            told.suspicions.clone_from(&report.problems);
        }
        let Some(entry) = log.state().get(&report.set) else { return };
        let manifest = entry.manifest.clone();
        let before = set_before(log.state(), entry).map(|entry| entry.manifest.clone());
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
    fn tell_of_stores(&self, opened: &Opened) {
        let key = "store-changed";
        match conformance::alarms(&opened.setup).into_iter().next() {
            Some(alarm) => self.raise(key, Severity::Critical, None, "a store is less safe than it was", &alarm),
            None => self.tell(self.desk.clear(key, None, &[])),
        }
    }

    async fn verify(&self, opened: Result<&Opened, &Error>, settings: &Job) -> u8 {
        let job = &settings.name;
        let note = RunNote::begin(self.state.as_ref(), "verify", job);
        let outcome = match opened {
            Ok(opened) => self.verify_sets(opened, settings).await,
            Err(error) => Err(told_again(error)),
        };
        let key = format!("verify:{job}");
        let code = match &outcome {
            Ok(_) => {
                self.tell(self.desk.clear(&key, None, &[]));
                0
            }
            Err(error) => {
                self.raise(&key, Severity::Critical, Some(job), &format!("{job}: verification failed"), error);
                error.kind().exit_code()
            }
        };
        note.finished(outcome.as_ref().ok().and_then(Option::as_ref), code, outcome.as_ref().err());
        self.log_error("verify", outcome.as_ref().err());
        code
    }

    /// Reads sets that nobody has read. Gives the newest that passed.
    async fn verify_sets(&self, opened: &Opened, settings: &Job) -> Result<Option<SetId>> {
        let mut log = opened.setup.log(&settings.name).await?;
        let sets = to_verify(log.state(), &groups_meant(settings, &self.due.entry.group, |schedule| schedule.verify.is_some()));
        let can_read = !opened.setup.identities.recipients().is_empty() || !opened.config.as_ref().is_some_and(|c| c.repository.encrypt);
        let sets = readable(log.state(), sets, can_read)?;
        let (mut passed, mut failed) = (None, Vec::new());
        for set in sets {
            let setup = &opened.setup;
            let report = within(&settings.limits, setup, async |setup| verify(&setup, &mut log, &set, Grade::ReadBack).await).await?;
            match report.passed {
                true => passed = passed.or(Some(set)),
                false => failed.push(format!("{set}: {}", report.findings.join("; "))),
            }
        }
        if failed.is_empty() {
            return Ok(passed);
        }
        Err(Error::new(Kind::Verify, failed.join("; ")).hint(format!("make another set now: drctl backup now {}", settings.name)))
    }

    async fn prune(&self, opened: Result<&Opened, &Error>, settings: &Job) -> u8 {
        let job = &settings.name;
        let note = RunNote::begin(self.state.as_ref(), "prune", job);
        let key = format!("prune:{job}");
        let outcome = match opened {
            Ok(opened) => {
                let mut policy = prune_policy(settings, self.around.clock.now());
                let meant = groups_meant(settings, &self.due.entry.group, |schedule| schedule.prune.is_some());
                policy.groups.retain(|group, _| meant.contains(group));
                let act = crate::state::Act::of("prune").job(job);
                let pruning = prune(&opened.setup, &policy, PruneOptions { apply: true, ..PruneOptions::default() });
                opened.setup.audited_by(act, pruning, PruneReport::exit_code).await
            }
            Err(error) => Err(told_again(error)),
        };
        let failed = match outcome {
            Ok(report) if report.retained.is_empty() => None,
            Ok(report) => {
                let error = Error::new(Kind::Denied, report.retained.join("; "));
                Some(("the store keeps what was to be deleted", error.hint(may_delete(opened))))
            }
            Err(error) => Some(("nothing was pruned", error)),
        };
        let code = match &failed {
            None => {
                self.tell(self.desk.clear(&key, None, &[]));
                0
            }
            Some((title, error)) => {
                self.raise(&key, Severity::Warning, Some(job), &format!("{job}: {title}"), error);
                error.kind().exit_code()
            }
        };
        let error = failed.as_ref().map(|(_, error)| error);
        note.finished(None, code, error);
        self.log_error("prune", error);
        code
    }

    /// Whoever looks into the log after a bad night finds why there, notifiers or not.
    fn log_error(&self, verb: &str, error: Option<&Error>) {
        if let Some(error) = error {
            self.around.bus.warn(format!("{verb} failed: {error}"));
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
            self.around.bus.warn(format!("an alert is kept in memory only: {problem}"));
        }
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

/// How a store is brought to let go of what a prune deletes.
fn may_delete(opened: Result<&Opened, &Error>) -> &'static str {
    match opened {
        Ok(opened) if !opened.setup.buckets.is_empty() => "drctl grants s3 --role pruner prints what it needs",
        _ => "give the agent's user the right to delete there; the next prune ends what was begun",
    }
}

/// An error of opening, for the run that it kept from its work.
fn told_again(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string()).hint_or(error.hint_text().unwrap_or("drctl doctor"))
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
}
