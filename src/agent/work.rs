//! One scheduled run: open what it needs, do it, note it, tell of it.

use std::sync::Arc;

use jiff::Timestamp;

use crate::agent::choices::{committed_since, groups_meant, readable, to_verify};
use crate::agent::facts::{self, Facts};
use crate::agent::schedule::{Due, What};
use crate::config::typed::{Config, Job};
use crate::error::{Error, Kind, Result};
use crate::model::record::Grade;
use crate::model::{JobName, SetClass, SetId};
use crate::notify::Desk;
use crate::open::policy::prune_policy;
use crate::open::reporter::{PruneFailure, Reporter, told_again};
use crate::open::runs::{back_up, exit_of, verify_own};
use crate::open::{Opened, RunNote, Surroundings};
use crate::ops::backup::{BackupOptions, BackupReport};
use crate::ops::limits::within;
use crate::ops::prune::{PruneOptions, PruneReport, prune};
use crate::ops::verify::verify;
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
            self.reporter().backup_was_committed(job, &set);
            return 0;
        }
        let reporter = self.reporter();
        let begun = reporter.backup_begins(job, &self.run);
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
        reporter.backup_ended(opened.ok(), settings, &begun, ran.as_ref()).await;
        exit_code
    }

    fn reporter(&self) -> Reporter {
        Reporter::new(self.desk.clone(), self.around.bus.clone(), self.around.clock.clone())
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

    async fn verify(&self, opened: Result<&Opened, &Error>, settings: &Job) -> u8 {
        let job = &settings.name;
        let note = RunNote::begin(self.state.as_ref(), "verify", job);
        let outcome = match opened {
            Ok(opened) => self.verify_sets(opened, settings).await,
            Err(error) => Err(told_again(error)),
        };
        let failed = outcome.as_ref().err();
        self.reporter().verification_ended(job, failed);
        let code = failed.map_or(0, |error| error.kind().exit_code());
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
        let failed = PruneFailure::of(opened.ok(), outcome.as_ref());
        self.reporter().prune_ended(job, failed.as_ref());
        let code = failed.as_ref().map_or(0, |failure| failure.error.kind().exit_code());
        let error = failed.as_ref().map(|failure| &failure.error);
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
}
