//! `drctl status`.

use std::fmt::Write as _;

use crate::cli::Shell;
use crate::cli::args::StatusArgs;
use crate::cli::list::proof;
use crate::cli::output::{bytes, count, duration};
use crate::error::{Error, Kind, Result};
use crate::open::Opened;
use crate::ops::copies::CopyStatus;
use crate::ops::look::{self, StandingRestore, StatusReport};
use crate::ops::restore::aftermath;

/// Shows where every job stands. Exit 9 when one is older than `--max-age`.
pub async fn run(shell: &Shell, args: StatusArgs) -> Result<u8> {
    let max_age = args.max_age.as_deref().map(max_age).transpose()?;
    let opened = Opened::for_reading(&shell.around()).await?;
    let jobs = opened.jobs(args.job.as_deref()).await?;
    let standing = aftermath::standing(&opened.setup, &opened).await?;
    let restores = standing.into_iter().map(|(restore, kept)| StandingRestore { restore, kept }).collect();
    let mut report = look::status(&opened.setup, &jobs, &opened, restores, max_age).await?;
    report.interrupted = opened.interrupted_runs().await?;
    report.findings.extend(opened.setup.state.as_deref().map(crate::cli::notify::undelivered).unwrap_or_default());
    shell.out.result("status", &report, text);
    let stale = report.jobs.iter().any(|j| j.stale);
    Ok(if stale { Kind::Stale.exit_code() } else { 0 })
}

fn max_age(text: &str) -> Result<i64> {
    let bad = || Error::new(Kind::Usage, format!("--max-age '{}' is not a time span", text.escape_debug())).hint("such as 90m, 2h, 1d12h");
    let span: jiff::Span = text.parse().map_err(|_| bad())?;
    let seconds = span.total((jiff::Unit::Second, jiff::SpanRelativeTo::days_are_24_hours())).map_err(|_| bad())?;
    if seconds > 0.0 { Ok(seconds as i64) } else { Err(bad()) }
}

fn text(report: &StatusReport) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "repository {}\n  {}", report.location, report.role);
    for job in &report.jobs {
        let _ = writeln!(
            out,
            "\n{}: {}, {} verified, {} stored",
            job.job,
            count(job.sets as u64, "set"),
            job.verified_sets,
            bytes(job.stored_bytes)
        );
        match (&job.newest_good, job.rpo_seconds) {
            (Some(set), Some(age)) => {
                let late = if job.stale { "   STALE" } else { "" };
                let _ = writeln!(out, "  newest good set  {}  ({})", set.set, proof(set, report.now));
                let _ = writeln!(out, "  lost if now      {}{late}", duration(age));
            }
            _ => {
                let _ = writeln!(out, "  NO GOOD SET: everything would be lost. Make one: drctl backup now {}", job.job);
            }
        }
        for group in job.groups_without_good.iter().filter(|_| job.newest_good.is_some()) {
            let _ = writeln!(out, "  NO GOOD SET of the sources of group {group}: all of theirs would be lost");
        }
        for copy in &job.copies {
            let _ = writeln!(out, "  store {:<10} {}", copy.store, copy_words(copy));
        }
        if let Some(bad) = &job.newest_bad {
            let what = if bad.grade.is_none() { "failed its verification" } else { bad.state };
            let _ = writeln!(out, "  newer, not good  {}  {what}: drctl show {}", bad.set, bad.set);
        }
    }
    for standing in &report.restores {
        let restore = &standing.restore;
        if restore.is_running() {
            let _ = writeln!(out, "\nrestore {} of {}: under way as process {}", restore.restore, restore.set, restore.process.pid);
            continue;
        }
        let _ = writeln!(out, "\nrestore {} of {}: {}", restore.restore, restore.set, aftermath::phase_words(restore.phase));
        for line in &standing.kept {
            let _ = writeln!(out, "  {line}");
        }
        let _ = writeln!(out, "  {}", aftermath::ways_on(restore));
    }
    for run in &report.interrupted {
        let _ = writeln!(out, "\ninterrupted: {run}");
    }
    for finding in &report.findings {
        let _ = writeln!(out, "ALARM: {finding}");
    }
    for advice in &report.advice {
        let _ = writeln!(out, "\n{advice}");
    }
    out
}

/// `2 records behind; 5 sets are not there`.
fn copy_words(copy: &CopyStatus) -> String {
    let behind = match (copy.records_behind, &copy.problem) {
        (Some(_), Some(problem)) => return format!("ALARM: {problem}"),
        (Some(0), None) => "has every record".to_owned(),
        (Some(behind), None) => format!("{} behind: the next backup brings them", count(behind, "record")),
        (None, problem) => return format!("CANNOT BE READ: {}", problem.as_deref().unwrap_or("no answer")),
    };
    match copy.sets_missing {
        0 => behind,
        missing => format!("{behind}; it has not all of {}", count(missing as u64, "set")),
    }
}
