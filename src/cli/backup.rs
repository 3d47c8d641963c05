//! `drctl backup`.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::Shell;
use crate::cli::args::{BackupArgs, GradeArg};
use crate::cli::output::{bytes, count, counted, took};
use crate::cli::reports::{self, Reported};
use crate::config::typed::Job;
use crate::error::{Error, Kind, Result};
use crate::model::record::Grade;
use crate::model::{SetClass, Timestamp};
use crate::open::Opened;
use crate::open::reporter::{Begun, Reporter, run_name};
use crate::open::runs::{back_up, exit_of, verify_own};
use crate::ops::JobSpec;
use crate::ops::backup::{BackupOptions, BackupReport};
use crate::ops::conformance;
use crate::ops::dump::interrupted;
use crate::ops::identity::Known;
use crate::ops::left_out;
use crate::ops::pins;
use crate::ops::verify::{VerifyReport, verify};
use crate::source::{Preflight, Source};

/// One run of the report.
#[derive(Serialize)]
struct Ran {
    #[serde(flatten)]
    backup: BackupReport,
    verified: Option<VerifyReport>,
}

/// Runs one job, or all, one after the other. The first error decides the exit code; jobs after it still run.
pub async fn run(shell: &Shell, args: BackupArgs) -> Result<u8> {
    let mut names = args.jobs.clone();
    if names.first().is_some_and(|word| word == "now") {
        names.remove(0);
    }
    let opened = Opened::for_writing(&shell.around()).await;
    let opened = if args.dry_run { opened? } else { reports::opened(shell, Reported::Backup, &names, opened).await? };
    let jobs = opened.job_specs(&names)?;
    with_sources(jobs.clone(), &args.accept_new_identity)?;
    with_sources(jobs.clone(), &args.accept_smaller)?;
    accept_changed(&opened, &args.accept_changed_store)?;
    let jobs = with_sources(jobs, &args.source)?;
    if args.dry_run {
        return check(shell, &opened, jobs, &args.accept_new_identity).await;
    }
    let pin = match (&args.pin, &args.reason) {
        (Some(length), Some(reason)) => Some((super::pin::end(opened.setup.clock.now(), length)?, reason.clone())),
        _ => None,
    };
    let (mut ran, mut outcome) = (Vec::new(), Outcome { bus: &shell.bus, first_error: None, code: 0 });
    let reporter = reports::of(shell, &opened);
    for job in jobs {
        if shell.cancel.is_cancelled() {
            outcome.error(interrupted().context(format!("job {} was not run", job.name)));
            break;
        }
        let recorded = opened.run_started("backup", &job.name);
        let telling = Telling::begin(reporter.as_ref(), &opened, &job, &args);
        let options = BackupOptions {
            accept_new_identity: own(&job, &args.accept_new_identity),
            accept_smaller: own(&job, &args.accept_smaller),
            read_own: args.verify == Some(GradeArg::ReadBack),
            class: if args.archive { SetClass::Archive } else { SetClass::Ordinary },
            ..own_sources(&job, &args.source)
        };
        let made = back_up(&opened, &job, &options).await;
        if let Some(telling) = &telling {
            telling.ended(made.as_ref()).await;
        }
        match made {
            Ok(mut report) => {
                let exit = exit_of(&report);
                report.unrecorded = recorded.finished(Some(&report.set), exit, None);
                outcome.code(exit);
                if let Some((until, reason)) = &pin
                    && let Err(error) = pin_now(&opened, &report, *until, reason).await
                {
                    outcome.error(error.context(format!("{} was committed and is not pinned", report.set)));
                }
                let verified = match args.verify {
                    Some(grade) => match verify_now(&opened, &mut report, grade.into()).await {
                        Ok(verified) => {
                            telling.iter().for_each(|telling| telling.verified(&verified));
                            outcome.code(if verified.passed { 0 } else { Kind::Verify.exit_code() });
                            Some(verified)
                        }
                        Err(error) => {
                            outcome.error(error.context(format!("{} was committed; verify it", report.set)));
                            None
                        }
                    },
                    None => None,
                };
                ran.push(Ran { backup: report, verified });
            }
            Err(error) => {
                let error = error.context(format!("job {}", job.name));
                recorded.finished(None, error.kind().exit_code(), Some(&error));
                outcome.error(error);
            }
        }
    }
    reports::deliver(reporter.as_ref()).await;
    for alarm in conformance::alarms(&opened.setup) {
        outcome.error(alarm.context(if ran.is_empty() { "nothing was backed up" } else { "the backup stands, with an alarm" }));
    }
    let Outcome { first_error, code, .. } = outcome;
    let now = opened.setup.clock.now();
    if !ran.is_empty() || first_error.is_none() {
        shell.out.result("backup", &ran, |ran| ran.iter().map(|r| text(r, now)).collect());
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(code),
    }
}

/// What the notifiers are told of one run.
struct Telling<'a> {
    reporter: &'a Reporter,
    opened: &'a Opened,
    settings: &'a Job,
    /// Of a run of all sources. One of some only ends no alarm, and is no sign of life.
    begun: Option<Begun>,
    sources: &'a [String],
}

impl<'a> Telling<'a> {
    fn begin(reporter: Option<&'a Reporter>, opened: &'a Opened, job: &JobSpec, args: &'a BackupArgs) -> Option<Telling<'a>> {
        let (reporter, settings) = (reporter?, opened.config.as_ref()?.job(job.name.as_str())?);
        let begun = args.source.is_empty().then(|| reporter.backup_begins(&job.name, &run_name()));
        Some(Telling { reporter, opened, settings, begun, sources: &args.source })
    }

    async fn ended(&self, made: Result<&BackupReport, &Error>) {
        match &self.begun {
            Some(begun) => self.reporter.backup_ended(Some(self.opened), self.settings, begun, made).await,
            None => self.reporter.backup_of_some_ended(&self.settings.name, self.sources, made),
        }
    }

    /// The set just made is the newest: its reading says how verifications stand.
    fn verified(&self, verified: &VerifyReport) {
        let job = &self.settings.name;
        let failed = (!verified.passed).then(|| reports::failed_reading(&verified.set, &verified.findings, job));
        if failed.is_some() || self.begun.is_some() {
            self.reporter.verification_ended(job, failed.as_ref());
        }
    }
}

fn accept_changed(opened: &Opened, names: &[String]) -> Result<()> {
    let setup = &opened.setup;
    for name in names {
        let Some(bucket) = setup.buckets.iter().find(|bucket| bucket.name == *name) else {
            let known: Vec<&str> = setup.buckets.iter().map(|bucket| bucket.name.as_str()).collect();
            return Err(Error::new(Kind::Usage, format!("--accept-changed-store {name}: there is no such bucket in the configuration"))
                .hint(format!("its buckets are: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })));
        };
        if !conformance::accept(setup.state.as_deref(), &bucket.url)? {
            setup.bus.warn(format!("store '{name}' does what it did before: there is nothing to accept"));
        }
    }
    Ok(())
}

async fn pin_now(opened: &Opened, report: &BackupReport, until: Timestamp, reason: &str) -> Result<()> {
    let mut log = opened.setup.log(report.set.job()).await?;
    pins::pin(&opened.setup, &mut log, &report.set, until, reason).await.map(|_| ())
}

async fn verify_now(opened: &Opened, report: &mut BackupReport, grade: Grade) -> Result<VerifyReport> {
    if report.own_read.is_some() {
        return verify_own(opened, report).await;
    }
    let mut log = opened.setup.log(report.set.job()).await?;
    verify(&opened.setup, &mut log, &report.set, grade).await
}

/// The first thing that went wrong decides the exit code (FORMAT, Exit codes); later errors are said.
struct Outcome<'a> {
    bus: &'a crate::observe::Bus,
    first_error: Option<Error>,
    code: u8,
}

impl Outcome<'_> {
    fn code(&mut self, code: u8) {
        if self.code == 0 {
            self.code = code;
        }
    }

    fn error(&mut self, error: Error) {
        match self.first_error {
            None => self.first_error = Some(error),
            Some(_) => self.bus.warn(error.to_string()),
        }
    }
}

/// Of the jobs' groups those that have one of the named sources; all when none is named.
pub fn with_sources(mut jobs: Vec<JobSpec>, wanted: &[String]) -> Result<Vec<JobSpec>> {
    let names: Vec<String> = jobs.iter().flat_map(|job| job.sources.iter().map(|s| s.source.name().to_owned())).collect();
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(name)) {
        return Err(
            Error::new(Kind::Usage, format!("no job has a source '{unknown}'")).hint(format!("the sources are: {}", names.join(", ")))
        );
    }
    if !wanted.is_empty() {
        jobs.retain(|job| job.sources.iter().any(|s| wanted.iter().any(|name| name == s.source.name())));
    }
    Ok(jobs)
}

/// A group takes of the named sources those that are its own.
pub fn own_sources(job: &JobSpec, wanted: &[String]) -> BackupOptions {
    BackupOptions { sources: own(job, wanted), ..BackupOptions::default() }
}

fn own(job: &JobSpec, names: &[String]) -> Vec<String> {
    names.iter().filter(|name| job.sources.iter().any(|s| s.source.name() == name.as_str())).cloned().collect()
}

async fn check(shell: &Shell, opened: &Opened, jobs: Vec<JobSpec>, accepted: &[String]) -> Result<u8> {
    #[derive(Serialize)]
    struct Found {
        job: String,
        source: String,
        summary: String,
        warnings: Vec<String>,
        /// What of it would be missing.
        problems: Vec<String>,
    }
    let (mut found, mut first_error) = (Vec::new(), None);
    for job in &jobs {
        let log = opened.setup.log(&job.name).await?;
        let known = Known { setup: &opened.setup, log: &log, accepted };
        for spec in &job.sources {
            let source = spec.source.as_ref();
            match check_source(source, &known).await {
                Ok(checked) => {
                    let name = spec.source.name();
                    let left_out = left_out::judge(&opened.setup, &job.name, name, &checked.left_out, false);
                    let problems = checked.problems.iter().map(ToString::to_string).chain(left_out.problems);
                    found.push(Found {
                        job: job.name.to_string(),
                        source: name.to_owned(),
                        summary: checked.summary,
                        warnings: checked.warnings.into_iter().chain(left_out.warnings).collect(),
                        problems: problems.collect(),
                    });
                    let first = checked.problems.into_iter().next().map(|error| error.context(format!("{}: {name}", job.name)));
                    first_error = first_error.or(first);
                }
                Err(error) => {
                    let error = error.context(format!("{}: {}", job.name, spec.source.name()));
                    if first_error.is_none() {
                        first_error = Some(error);
                    } else {
                        shell.bus.warn(error.to_string());
                    }
                }
            }
        }
    }
    for sink in opened.setup.sinks.iter().skip(1) {
        if let Err(error) = sink.store.list("", None, 1).await {
            let error = error.context(format!("store '{}'", sink.name));
            match first_error {
                None if !sink.is_optional() => first_error = Some(error),
                _ => shell.bus.warn(error.to_string()),
            }
        }
    }
    shell.out.result("backup", &found, |found| {
        let mut out = String::new();
        for item in found {
            let mark = if item.problems.is_empty() { "ok " } else { "PARTIAL" };
            let _ = writeln!(out, "{mark} {}: {}: {}", item.job, item.source, item.summary);
            for warning in &item.warnings {
                let _ = writeln!(out, "    - {warning}");
            }
            for problem in &item.problems {
                let _ = writeln!(out, "    ! {problem}");
            }
        }
        if first_error.is_none() && found.iter().all(|item| item.problems.is_empty()) {
            out.push_str("every source can be backed up; nothing was (--dry-run)\n");
        }
        out
    });
    first_error.map_or(Ok(0), Err)
}

/// What a backup would find out before its first byte.
async fn check_source(source: &dyn Source, known: &Known<'_>) -> Result<Preflight> {
    let context = known.setup.context("preflight");
    let mut checked = source.preflight(&context).await?;
    let mut session = source.open(&context).await?;
    let another = known.check(source, session.as_ref());
    session.close().await;
    checked.warnings.extend(another?);
    Ok(checked)
}

/// The closing lines of one run: set, artifacts, bytes, time, age of the last good set.
fn text(ran: &Ran, now: Timestamp) -> String {
    let report = &ran.backup;
    let mut out = String::new();
    for warning in &report.warnings {
        let _ = writeln!(out, "  - {warning}");
    }
    for problem in &report.problems {
        let _ = writeln!(out, "  ! {problem}");
    }
    let counts = totals(report);
    let _ = writeln!(
        out,
        "{} {}: {}{counts}, {} → {} in {}, {}",
        match (report.state, report.problems.is_empty()) {
            ("suspect", _) => "SUSPECT",
            (_, true) => "ok",
            _ => "PARTIAL",
        },
        report.set,
        count(report.artifacts.len() as u64, "artifact"),
        bytes(report.plain_bytes),
        bytes(report.stored_bytes),
        report.stores.join(" and "),
        took(report.elapsed_seconds),
    );
    if !report.left_out.is_empty() {
        let _ = writeln!(
            out,
            "   on request without {}: no whole restore point, taken only by its id or with --source",
            report.left_out.join(", ")
        );
        return out + &verified_text(ran);
    }
    let _ = match &report.previous_good {
        Some((_, ended)) => writeln!(out, "   the good set before it was made {}", crate::cli::output::ago(*ended, now)),
        None if report.problems.is_empty() => writeln!(out, "   it is the first good set of this job"),
        None => writeln!(out, "   this job has NO GOOD SET yet"),
    };
    out + &verified_text(ran)
}

fn verified_text(ran: &Ran) -> String {
    let mut out = ran.verified.as_ref().map(crate::cli::verify::text).unwrap_or_default();
    if let Some(unrecorded) = &ran.backup.unrecorded {
        let _ = writeln!(out, "   not recorded on this host: {unrecorded}");
    }
    out
}

fn totals(report: &BackupReport) -> String {
    let sum = |name: &str| report.artifacts.iter().filter_map(|a| a.totals.get(name)).sum::<u64>();
    let counts = counted(["tables", "rows", "files"].map(|name| (name, sum(name))).into_iter().filter(|(_, sum)| *sum > 0));
    if counts.is_empty() { counts } else { format!(" ({counts})") }
}
