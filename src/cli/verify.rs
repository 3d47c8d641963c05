//! `drctl verify`.

use crate::cli::Shell;
use crate::cli::args::{GradeArg, VerifyArgs};
use crate::cli::output::{bytes, number, took};
use crate::cli::reports::{self, Reported};
use crate::error::{Error, Kind, Result};
use crate::model::record::Grade;
use crate::model::{JobName, SetId};
use crate::open::Opened;
use crate::open::reporter::Reporter;
use crate::ops::choose::{self, Wanted};
use crate::ops::verify::{VerifyReport, verify};

impl From<GradeArg> for Grade {
    fn from(arg: GradeArg) -> Grade {
        match arg {
            GradeArg::Uploaded => Grade::Uploaded,
            GradeArg::ReadBack => Grade::ReadBack,
        }
    }
}

/// Verifies one set, or all. Exit 5 when one fails.
pub async fn run(shell: &Shell, args: VerifyArgs) -> Result<u8> {
    let named: Vec<String> = args.job.iter().cloned().collect();
    let opened = Opened::for_reading_from(&shell.around(), args.from_store.store.as_deref()).await;
    let opened = reports::opened(shell, Reported::Verify, &named, opened).await?;
    let reporter = reports::of(shell, &opened);
    let outcome = verify_all(&opened, &args, reporter.as_ref()).await;
    reports::deliver(reporter.as_ref()).await;
    let reports = outcome?;
    shell.out.result("verify", &reports, |reports| reports.iter().map(text).collect());
    let failed = reports.iter().any(|r| !r.passed);
    Ok(if failed { Kind::Verify.exit_code() } else { 0 })
}

async fn verify_all(opened: &Opened, args: &VerifyArgs, reporter: Option<&Reporter>) -> Result<Vec<VerifyReport>> {
    let wanted = Wanted::word(args.set.as_deref().unwrap_or("latest"));
    let jobs = if args.all { opened.jobs(args.job.as_deref()).await? } else { vec![opened.job_of(&wanted, args.job.as_deref()).await?] };
    let mut reports = Vec::new();
    for job in jobs {
        let made = verify_job(opened, args, &wanted, &job).await;
        if let Some(reporter) = reporter {
            tell(reporter, &job, made.as_ref());
        }
        reports.extend(made?.reports);
    }
    Ok(reports)
}

/// What was read of one job.
struct Verified {
    reports: Vec<VerifyReport>,
    /// Whether the newest set is among them.
    newest: bool,
}

async fn verify_job(opened: &Opened, args: &VerifyArgs, wanted: &Wanted, job: &JobName) -> Result<Verified> {
    let mut log = opened.setup.log(job).await?;
    let sets: Vec<SetId> = if args.all {
        log.state().live().map(|e| e.id().clone()).collect()
    } else {
        vec![choose::set(&log, wanted, None, opened.setup.clock.now(), &opened.zone(Some(job)))?.id().clone()]
    };
    let newest = log.state().live().rfind(|entry| entry.is_good()).map(|entry| entry.id().clone());
    let newest = newest.is_some_and(|newest| sets.contains(&newest));
    let mut reports = Vec::new();
    for set in sets {
        reports.push(verify(&opened.setup, &mut log, &set, args.grade.into()).await?);
    }
    Ok(Verified { reports, newest })
}

/// What failed is an incident; it is over when the newest set is among what passed.
fn tell(reporter: &Reporter, job: &JobName, made: Result<&Verified, &Error>) {
    match made {
        Ok(verified) => match verified.reports.iter().find(|report| !report.passed) {
            Some(failed) => reporter.verification_ended(job, Some(&reports::failed_reading(&failed.set, &failed.findings, job))),
            None if verified.newest => reporter.verification_ended(job, None),
            None => {}
        },
        // Nobody is told of a word that was typed wrong.
        Err(error) if matches!(error.kind(), Kind::Usage | Kind::NoSuchSet) => {}
        Err(error) => reporter.verification_ended(job, Some(error)),
    }
}

/// The closing lines of one verification.
pub fn text(report: &VerifyReport) -> String {
    if report.passed {
        let how = match (report.before_commit, report.record) {
            (false, _) => "",
            (true, Some(_)) => "   read before its commit, by an identity of this run that nobody has any more\n",
            (true, None) => {
                "   read before its commit, by an identity of this run that nobody has any more; no proof in the log: that takes a prover's key\n"
            }
        };
        return format!(
            "verified {} to {}: {} objects, {}, {}\n{how}",
            report.set,
            report.grade,
            number(report.objects),
            bytes(report.stored_bytes),
            took(report.elapsed_seconds)
        );
    }
    let mut out = format!("FAILED  {} does not reach {}:\n", report.set, report.grade);
    for finding in &report.findings {
        out.push_str(&format!("  {finding}\n"));
    }
    out.push_str(&format!("what of it is whole: drctl show {} --rescue\n", report.set));
    out
}
