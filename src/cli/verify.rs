//! `drctl verify`.

use crate::cli::Shell;
use crate::cli::args::{GradeArg, VerifyArgs};
use crate::cli::output::{bytes, number, took};
use crate::error::{Kind, Result};
use crate::model::SetId;
use crate::model::record::Grade;
use crate::open::Opened;
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
    let opened = Opened::for_reading_from(&shell.around(), args.from_store.store.as_deref()).await?;
    let wanted = Wanted::word(args.set.as_deref().unwrap_or("latest"));
    let jobs = if args.all { opened.jobs(args.job.as_deref()).await? } else { vec![opened.job_of(&wanted, args.job.as_deref()).await?] };
    let mut reports = Vec::new();
    for job in jobs {
        let mut log = opened.setup.log(&job).await?;
        let sets: Vec<SetId> = if args.all {
            log.state().live().map(|e| e.id().clone()).collect()
        } else {
            vec![choose::set(&log, &wanted, None, opened.setup.clock.now(), &opened.zone(Some(&job)))?.id().clone()]
        };
        for set in sets {
            reports.push(verify(&opened.setup, &mut log, &set, args.grade.into()).await?);
        }
    }
    shell.out.result("verify", &reports, |reports| reports.iter().map(text).collect());
    let failed = reports.iter().any(|r| !r.passed);
    Ok(if failed { Kind::Verify.exit_code() } else { 0 })
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
