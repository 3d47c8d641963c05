//! `drctl status`.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::cli::Shell;
use crate::cli::args::StatusArgs;
use crate::cli::list::proof;
use crate::cli::nagios;
use crate::cli::output::{bytes, count, duration, print_bytes};
use crate::error::{Error, Kind, Result};
use crate::open::{Opened, STATE_FILE};
use crate::ops::copies::CopyStatus;
use crate::ops::look::{self, JobStatus, StandingRestore, StatusReport};
use crate::ops::restore::aftermath;
use crate::state::{AgentStanding, StateFile, agent, agent_of};

/// Shows where every job stands. Exit 9 when one is older than `--max-age`; with `--nagios` what plugins exit with.
pub async fn run(shell: &Shell, args: StatusArgs) -> Result<u8> {
    let max_age = args.max_age.as_deref().map(max_age).transpose()?;
    let opened = Opened::for_reading(&shell.around()).await.map_err(|error| refused_by_agent(shell, error))?;
    let jobs = opened.jobs(args.job.as_deref()).await?;
    let standing = aftermath::standing(&opened.setup, &opened).await?;
    let restores = standing.into_iter().map(|s| StandingRestore { restore: s.restore, running: s.running, kept: s.kept }).collect();
    let mut report = look::status(&opened.setup, &jobs, &opened, restores, max_age).await?;
    for job in &mut report.jobs {
        job.configured = opened.config.as_ref().is_none_or(|config| config.job(job.job.as_str()).is_some());
        job.stale &= job.configured;
    }
    // What comes behind these is about this host, not about what is stored.
    let grave = report.findings.len();
    report.interrupted = opened.interrupted_runs().await?;
    report.findings.extend(opened.setup.state.as_deref().map(crate::cli::notify::undelivered).unwrap_or_default());
    look_at_agent(&opened, &mut report);
    if args.nagios {
        let rpo = |job: &JobStatus| opened.config.as_ref()?.job(job.job.as_str())?.objectives.rpo;
        let critical = |job: &JobStatus| max_age.or(rpo(job).and_then(|rpo| i64::try_from(rpo.as_secs()).ok()));
        let (line, code) = nagios::judge(&report, critical, grave);
        print_bytes(format!("{line}\n").as_bytes());
        return Ok(code);
    }
    shell.out.result("status", &report, text);
    let stale = report.jobs.iter().any(|j| j.stale);
    Ok(if stale { Kind::Stale.exit_code() } else { 0 })
}

/// Whether the agent lives, which configuration it works by, and why it could not remember anything.
fn look_at_agent(opened: &Opened, report: &mut StatusReport) {
    let Some(config) = &opened.config else { return };
    let setting = |key: &str| opened.setup.state.as_ref().and_then(|state| state.setting(key).ok()?).filter(|text| !text.is_empty());
    match agent_of(&config.state) {
        AgentStanding::Never => {}
        AgentStanding::Runs(pid) => {
            report.agent = Some(pid.map_or_else(|| "runs".to_owned(), |pid| format!("runs as process {pid}")));
            report.findings.extend(setting(agent::REFUSED).map(|why| format!("reload refused, {why}; {WORKS_ON}")));
        }
        AgentStanding::Gone => {
            let seen = setting(agent::SEEN).and_then(|text| text.parse::<Timestamp>().ok());
            let since = seen.map(|at| format!(" since about {}", at.strftime("%Y-%m-%d %H:%M UTC"))).unwrap_or_default();
            report.agent = Some(format!("DOES NOT RUN{since}: nothing runs by schedule; start it: drctl agent"));
        }
    }
    if opened.setup.state.is_none()
        && let Err(error) = StateFile::open(&config.state.join(STATE_FILE), opened.setup.clock.clone())
    {
        let hint = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
        report.findings.push(format!("nothing is remembered on this host: {error}{hint}"));
    }
}

const WORKS_ON: &str = "the agent works by the configuration it had: drctl config check, or drctl config rollback";

/// A configuration that cannot be read, which the agent of this host refused as well. Its state folder is looked for where it is by default.
fn refused_by_agent(shell: &Shell, error: Error) -> Error {
    if error.kind() != Kind::Config {
        return error;
    }
    let around = shell.around();
    let folder = crate::config::find::state_folder(None, &around.environment);
    let refused = || {
        let AgentStanding::Runs(_) = agent_of(&folder) else { return None };
        let path = folder.join(STATE_FILE);
        let state = path.exists().then(|| StateFile::open(&path, around.clock.clone()).ok())??;
        state.setting(agent::REFUSED).ok()?.filter(|why| !why.is_empty())
    };
    match refused() {
        Some(why) => {
            let line = why.split_once(": ").map_or(why.as_str(), |(line, _)| line);
            error.context(format!("reload refused, {line}; {WORKS_ON}"))
        }
        None => error,
    }
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
    if let Some(agent) = &report.agent {
        let _ = writeln!(out, "agent {agent}");
    }
    for job in report.jobs.iter().filter(|job| job.configured) {
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
            (Some(set), None) if job.dated_ahead.is_some() => {
                let _ = writeln!(out, "  newest good set  {}  ({})", set.set, proof(set, report.now));
                let _ = writeln!(out, "  lost if now      NOT KNOWN: a newest set is dated in the future   STALE");
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
    for job in report.jobs.iter().filter(|job| !job.configured) {
        let newest = job.newest_good.as_ref().map_or_else(String::new, |set| format!(", the newest good one {}", set.set));
        let _ = writeln!(
            out,
            "\nno longer configured: {}: {}, {} stored{newest}",
            job.job,
            count(job.sets as u64, "set"),
            bytes(job.stored_bytes)
        );
        let _ = writeln!(out, "  they stay; what giving them up would take: drctl prune --job {} --abandoned", job.job);
    }
    for standing in &report.restores {
        let restore = &standing.restore;
        if standing.running {
            let _ = writeln!(out, "\nrestore {} of {}: under way as process {}", restore.restore, restore.set, restore.process.pid);
            continue;
        }
        let _ = writeln!(out, "\nrestore {} of {}: {}", restore.restore, restore.set, restore.words());
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
