//! Who is told of what a command came to: the notifiers of the configuration, as by the agent.

use std::sync::Arc;

use crate::cli::Shell;
use crate::config::load::load;
use crate::config::typed::Config;
use crate::error::{Error, Kind, Result};
use crate::model::JobName;
use crate::open::reporter::{PruneFailure, Reporter, desk, run_name};
use crate::open::{Opened, open_state};
use crate::state::StateFile;

/// The verbs that report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    Backup,
    Verify,
    Prune,
}

/// A reporter for what was opened. `None` where the configuration tells nobody anything.
pub fn of(shell: &Shell, opened: &Opened) -> Option<Reporter> {
    reporter(shell, opened.config.as_ref()?, opened.setup.state.clone())
}

fn reporter(shell: &Shell, config: &Arc<Config>, state: Option<Arc<StateFile>>) -> Option<Reporter> {
    config.notifiers().next()?;
    let around = shell.around();
    Some(Reporter::new(Arc::new(desk(config, state, &around)), around.bus, around.clock))
}

/// What was opened. Where nothing could be, whoever would have been told of the run is told of that: of the jobs named, of all where none is.
pub async fn opened(shell: &Shell, verb: Reported, jobs: &[String], opened: Result<Opened>) -> Result<Opened> {
    match opened {
        Err(error) if error.kind() != Kind::Usage => {
            tell_of(shell, verb, jobs, &error).await;
            Err(error)
        }
        other => other,
    }
}

async fn tell_of(shell: &Shell, verb: Reported, jobs: &[String], error: &Error) {
    let around = shell.around();
    // Without a configuration that can be read nothing says who is to be told.
    let Ok(config) = load(&around.load_options()) else { return };
    let config = Arc::new(config);
    let Some(reporter) = reporter(shell, &config, open_state(&around, &config.state)) else { return };
    for job in config.jobs.iter().filter(|job| jobs.is_empty() || jobs.iter().any(|name| name == job.name.as_str())) {
        match verb {
            Reported::Backup => {
                let begun = reporter.backup_begins(&job.name, &run_name());
                reporter.backup_ended(None, job, &begun, Err(error)).await;
            }
            Reported::Verify => reporter.verification_ended(&job.name, Some(error)),
            Reported::Prune => reporter.prune_ended(&job.name, PruneFailure::of(None, Err(error)).as_ref()),
        }
    }
    reporter.deliver().await;
}

/// Sends what was told, where somebody is told anything.
pub async fn deliver(reporter: Option<&Reporter>) {
    if let Some(reporter) = reporter {
        reporter.deliver().await;
    }
}

/// Of a set that failed its reading.
pub fn failed_reading(set: &crate::model::SetId, findings: &[String], job: &JobName) -> Error {
    Error::new(Kind::Verify, format!("{set}: {}", findings.join("; "))).hint(format!("make another set now: drctl backup now {job}"))
}
