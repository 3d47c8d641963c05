//! `drctl doctor`: opens one thing after the other, so that what is broken does not hide what else is.

use std::fmt::Write as _;
use std::time::Duration;

use crate::catalog::{JobLog, Role};
use crate::cli::Shell;
use crate::config::load::load;
use crate::config::typed::{Config, StorePlace};
use crate::error::{Kind, Result};
use crate::open::{Opened, load_options};
use crate::ops::conformance;
use crate::ops::doctor::{self, DoctorReport, Finding, Level};
use crate::ops::restore::Loaders as _;
use crate::ops::setup::Setup;
use crate::store::local;

/// A source that does not answer for so long is given up.
const SOURCE_LIMIT: Duration = Duration::from_secs(30);

/// Examines everything; exit 0, or the code of the first problem.
pub async fn run(shell: &Shell) -> Result<u8> {
    let mut report = DoctorReport::default();
    examine(shell, &mut report.findings).await;
    let color = shell.out.color;
    shell.out.result("doctor", &report, |report| text(report, color));
    Ok(report.exit_code())
}

async fn examine(shell: &Shell, found: &mut Vec<Finding>) {
    let config = match load(&load_options(shell.global.config.as_deref())) {
        Ok(config) => config,
        // Without it nothing is known to look at.
        Err(problems) => return found.push(Finding::error("configuration", "", &problems.into())),
    };
    let file = config.files.first().map(|f| f.display().to_string()).unwrap_or_default();
    found.push(Finding::ok("configuration", "", format!("{file}, {}", crate::cli::output::count(config.jobs.len() as u64, "job"))));
    // What is odd in it is a warning of its own when everything opens below; here it must show even when nothing does.
    found.extend(config.warnings.iter().map(|w| Finding { level: Level::Warning, ..Finding::ok("configuration", "", w.to_string()) }));
    found.push(
        match crate::state::StateFile::open(&config.state.join(crate::open::STATE_FILE), std::sync::Arc::new(crate::model::SystemClock)) {
            Ok(state) => Finding::ok("state", "", state.path().display().to_string()),
            Err(error) => Finding {
                // A backup runs without it; undo and alarms do not.
                level: Level::Warning,
                ..Finding::error("state", "", &error)
            },
        },
    );
    let opened = match Opened::for_writing(&shell.silent().around()).await {
        Ok(opened) => opened,
        Err(error) => {
            let read = if error.kind() == Kind::Denied { Opened::for_reading(&shell.silent().around()).await.ok() } else { None };
            match read {
                // A prover's or pruner's store keys write records only.
                Some(opened) if !opened.setup.roles.is_empty() && !opened.setup.roles.contains(&Role::Writer) => {
                    found.push(Finding::ok("repository", "", "this host's role makes no sets, and its store keys do not let it"));
                    opened
                }
                _ => {
                    found.push(Finding::error("repository", "", &error));
                    return sources(shell, None, &config, found).await;
                }
            }
        }
    };
    let setup = &opened.setup;
    found.push(Finding::ok("repository", "", format!("{} in {}", setup.repository.id(), setup.repository.location())));
    found.extend(doctor::odd(setup).await);
    let mut logs = Vec::new();
    for job in &config.jobs {
        logs.push(setup.log(&job.name).await);
    }
    stores(setup, &config, &logs, found).await;
    found.extend(doctor::keys(setup, &config.repository.recipients).await);
    for (job, log) in config.jobs.iter().zip(&logs) {
        found.extend(doctor::job(setup, &job.name, log, opened.groups(&job.name).as_deref()).await);
    }
    sources(shell, Some(setup), &config, found).await;
}

async fn stores(setup: &Setup, config: &Config, logs: &[Result<JobLog>], found: &mut Vec<Finding>) {
    // A log that cannot be read is told of where its job is looked at.
    let newest_of = |log: &JobLog| log.state().live().next_back().map(|entry| entry.manifest.stored_bytes());
    let newest = logs.iter().flatten().filter_map(newest_of).max();
    for (sink, place) in setup.sinks.iter().zip(&config.repository.stores) {
        match sink.store.server_date().await {
            Ok(there) => found.push(doctor::clock(&sink.name, setup.clock.now(), there)),
            Err(error) => found.push(Finding::error("store", &sink.name, &error)),
        }
        found.extend(conformance::findings(&sink.name, setup));
        // How much a bucket takes nobody knows beforehand.
        let StorePlace::Local { path } = &place.place else { continue };
        match local::available_bytes(path) {
            Ok(left) => found.push(doctor::room(&sink.name, left, newest)),
            Err(error) => found.push(Finding::error("room", &sink.name, &error)),
        }
    }
}

/// Sources can be tried without a repository too: one broken thing must not hide the other.
async fn sources(shell: &Shell, setup: Option<&Setup>, config: &Config, found: &mut Vec<Finding>) {
    for job in &config.jobs {
        for source in &job.sources {
            let subject = format!("{}: {}", job.name, source.name);
            let built = match crate::open::sources::source(source) {
                Ok(built) => built,
                Err(error) => {
                    found.push(Finding::error("source", subject, &error));
                    continue;
                }
            };
            let context = match setup {
                Some(setup) => setup.context("doctor"),
                None => shell.context("doctor"),
            };
            found.extend(doctor::source(&subject, &*built, &context, SOURCE_LIMIT).await);
        }
    }
}

fn text(report: &DoctorReport, color: bool) -> String {
    let paint = |code: &str, word: &str| if color { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() };
    let mut out = String::new();
    for finding in &report.findings {
        let mark = match finding.level {
            Level::Ok => paint("32", "ok     "),
            Level::Warning => paint("33", "warning"),
            Level::Problem => paint("31;1", "PROBLEM"),
        };
        let subject = if finding.subject.is_empty() { String::new() } else { format!(" {}", finding.subject) };
        let _ = writeln!(out, "{mark}  {}{subject}: {}", finding.area, finding.words);
        if let Some(fix) = &finding.fix {
            let _ = writeln!(out, "         → {fix}");
        }
    }
    let (problems, warnings) = (report.count(Level::Problem), report.count(Level::Warning));
    let count = |n: usize, noun| crate::cli::output::count(n as u64, noun);
    let _ = match (problems, warnings) {
        (0, 0) => writeln!(out, "all is well"),
        (0, _) => writeln!(out, "no problem, {}", count(warnings, "warning")),
        _ => writeln!(out, "{}, {}", count(problems, "problem"), count(warnings, "warning")),
    };
    out
}
