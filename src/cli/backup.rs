//! `drctl backup`.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::Shell;
use crate::cli::args::BackupArgs;
use crate::cli::open::Opened;
use crate::cli::output::{bytes, duration, number, took};
use crate::error::{Error, Kind, Result};
use crate::model::Timestamp;
use crate::ops::backup::{BackupOptions, BackupReport, backup};
use crate::ops::verify::{VerifyReport, verify};

/// One run of the report.
#[derive(Serialize)]
struct Ran {
    #[serde(flatten)]
    backup: BackupReport,
    verified: Option<VerifyReport>,
}

/// Runs one job, or all, one after the other. The first error decides the exit code; jobs after it still run.
pub async fn run(shell: &Shell, args: BackupArgs) -> Result<u8> {
    let opened = Opened::for_writing(shell).await?;
    let mut names = args.jobs.clone();
    if names.first().is_some_and(|word| word == "now") {
        names.remove(0);
    }
    let jobs = opened.job_specs(&names)?;
    if args.dry_run {
        return check(shell, &opened, jobs).await;
    }
    let options = BackupOptions { sources: args.source };
    let (mut ran, mut first_error, mut code) = (Vec::new(), None, 0);
    for job in jobs {
        if shell.cancel.is_cancelled() {
            break;
        }
        let recorded = opened.run_started("backup", &job.name);
        match backup(&opened.setup, &job, &options).await {
            Ok(mut report) => {
                report.unrecorded = recorded.finished(Some(&report.set), if report.problems.is_empty() { 0 } else { 3 }, None);
                if !report.problems.is_empty() {
                    code = Kind::Partial.exit_code();
                }
                let verified = match args.verify {
                    Some(grade) => {
                        let mut log = opened.setup.log(&job.name).await?;
                        let verified = verify(&opened.setup, &mut log, &report.set, grade.into()).await?;
                        if !verified.passed {
                            code = Kind::Verify.exit_code();
                        }
                        Some(verified)
                    }
                    None => None,
                };
                ran.push(Ran { backup: report, verified });
            }
            Err(error) => {
                let error = error.context(format!("job {}", job.name));
                recorded.finished(None, error.kind().exit_code(), Some(&error));
                if let Some(earlier) = first_error.replace(error) {
                    let later = first_error.replace(earlier);
                    if let Some(later) = later {
                        shell.bus.warn(later.to_string());
                    }
                }
            }
        }
    }
    let now = opened.setup.clock.now();
    if !ran.is_empty() || first_error.is_none() {
        shell.out.result("backup", &ran, |ran| ran.iter().map(|r| text(r, now)).collect());
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(code),
    }
}

async fn check(shell: &Shell, opened: &Opened, jobs: Vec<crate::ops::JobSpec>) -> Result<u8> {
    #[derive(Serialize)]
    struct Found {
        job: String,
        source: String,
        summary: String,
        warnings: Vec<String>,
    }
    let (mut found, mut first_error) = (Vec::new(), None);
    for job in &jobs {
        for spec in &job.sources {
            match spec.source.preflight(&opened.setup.context("preflight")).await {
                Ok(checked) => found.push(Found {
                    job: job.name.to_string(),
                    source: spec.source.name().to_owned(),
                    summary: checked.summary,
                    warnings: checked.warnings,
                }),
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
    shell.out.result("backup", &found, |found| {
        let mut out = String::new();
        for item in found {
            let _ = writeln!(out, "ok  {}: {}: {}", item.job, item.source, item.summary);
            for warning in &item.warnings {
                let _ = writeln!(out, "    - {warning}");
            }
        }
        if first_error.is_none() {
            out.push_str("every source can be backed up; nothing was (--dry-run)\n");
        }
        out
    });
    first_error.map_or(Ok(0), Err)
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
        "{} {}: {} artifacts{counts}, {} → {} in {}, {}",
        match report.state {
            "complete" => "ok",
            "suspect" => "SUSPECT",
            _ => "PARTIAL",
        },
        report.set,
        report.artifacts.len(),
        bytes(report.plain_bytes),
        bytes(report.stored_bytes),
        report.stores.join(" and "),
        took(report.elapsed_seconds),
    );
    let _ = match &report.previous_good {
        Some((_, ended)) => writeln!(out, "   the good set before it is {} old", duration(crate::cli::output::age(*ended, now))),
        None if report.problems.is_empty() => writeln!(out, "   it is the first good set of this job"),
        None => writeln!(out, "   this job has NO GOOD SET yet"),
    };
    if let Some(verified) = &ran.verified {
        out.push_str(&crate::cli::verify::text(verified));
    }
    if let Some(unrecorded) = &report.unrecorded {
        let _ = writeln!(out, "   not recorded on this host: {unrecorded}");
    }
    out
}

fn totals(report: &BackupReport) -> String {
    let sum = |name: &str| report.artifacts.iter().filter_map(|a| a.totals.get(name)).sum::<u64>();
    let parts: Vec<String> =
        ["tables", "rows", "files"].iter().filter(|name| sum(name) > 0).map(|name| format!("{} {name}", number(sum(name)))).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// Asked for by a caller that has no job at all.
pub fn no_such_job(name: &str, known: &[String]) -> Error {
    Error::new(Kind::Usage, format!("there is no job '{name}' in the configuration")).hint(format!("its jobs are: {}", known.join(", ")))
}
