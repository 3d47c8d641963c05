//! One run of a backup as the command line and the agent make it: between the job's hooks, within its limits.

use crate::error::{Error, Kind, Result};
use crate::open::Opened;
use crate::ops::JobSpec;
use crate::ops::backup::{BackupOptions, BackupReport, backup};
use crate::ops::hooks::HookRunner;
use crate::ops::limits::within;
use crate::ops::own_read::{self, OwnRead};
use crate::ops::verify::VerifyReport;

/// Runs a job once. What hooks after it had to say is among the report's warnings, or told on the bus where there is no report.
pub async fn back_up(opened: &Opened, job: &JobSpec, options: &BackupOptions) -> Result<BackupReport> {
    let setup = &opened.setup;
    let Some((config, settings)) = opened.config.as_ref().and_then(|config| Some((config, config.job(job.name.as_str())?))) else {
        return backup(setup, job, options).await;
    };
    let hooks = HookRunner { hooks: &settings.hooks, folder: &config.folder, job: &job.name, group: &job.group, bus: &setup.bus };
    let run = within(&settings.limits, setup, async |setup| backup(&setup, job, options).await);
    let (done, failed) = hooks.around(&setup.cancel, run, |report| (report.set.clone(), exit_of(report))).await;
    match done {
        Ok(mut report) => {
            report.warnings.extend(failed);
            Ok(report)
        }
        Err(error) => {
            failed.into_iter().for_each(|failed| setup.bus.warn(failed));
            Err(error)
        }
    }
}

/// The exit code of a run that made a set.
pub fn exit_of(report: &BackupReport) -> u8 {
    if report.problems.is_empty() { 0 } else { Kind::Partial.exit_code() }
}

/// What a run found when it read its own set before the commit, as a proof: a sealed host cannot read it any more afterwards.
pub async fn verify_own(opened: &Opened, report: &mut BackupReport) -> Result<VerifyReport> {
    let mut log = opened.setup.log(report.set.job()).await?;
    match report.own_read.take() {
        Some(OwnRead::Proven(reading)) => own_read::tell(&opened.setup, &mut log, *reading).await,
        Some(OwnRead::NotNow { kind, why }) => {
            Err(Error::new(kind, why)
                .hint("this host cannot read the set any more: verify it where the identity is, or make another backup"))
        }
        None => Err(Error::failed(format!("{} was not read before its commit", report.set)).hint("drctl verify, where the identity is")),
    }
}
