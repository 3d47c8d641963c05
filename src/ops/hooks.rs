//! Programs that run before and after each run of a job: stop a service, flush a cache, tell somebody.
//!
//! There is no shell between. A hook gets a cleared environment with what the configuration sets for it and the `DRCTL_*` variables below; its
//! exit status decides, its standard output is dropped. It ends with all it started when its time is up or the run is cancelled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::config::{Hook, Hooks};
use crate::error::{Context, Error, Kind, Result};
use crate::model::{JobName, SetId};
use crate::observe::Bus;
use crate::process::{Command, Failure, Limits, Reason, lookup};

/// What came of a run, in the words of `DRCTL_OUTCOME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole set stands.
    Ok,
    /// A set stands, but not every source is whole in it.
    Partial,
    /// There is no set.
    Failed,
    /// A signal ended it.
    Interrupted,
}

impl Outcome {
    /// From the exit code that the run ends with.
    pub fn of(exit_code: u8) -> Outcome {
        match exit_code {
            0 => Outcome::Ok,
            code if code == Kind::Partial.exit_code() => Outcome::Partial,
            code if code == Kind::Interrupted.exit_code() || code == Kind::Terminated.exit_code() => Outcome::Interrupted,
            _ => Outcome::Failed,
        }
    }

    /// As hooks get it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Partial => "partial",
            Outcome::Failed => "failed",
            Outcome::Interrupted => "interrupted",
        }
    }
}

/// The hooks of one run.
pub struct HookRunner<'a> {
    /// What to run.
    pub hooks: &'a Hooks,
    /// The folder they run in, and relative programs start from: the configuration's.
    pub folder: &'a Path,
    /// The job.
    pub job: &'a JobName,
    /// The group of sources.
    pub group: &'a str,
    /// Where it is told what runs.
    pub bus: &'a Bus,
}

impl HookRunner<'_> {
    /// Runs `run` between the hooks. `told` says of its result which set there is and the exit code. The sentences are of hooks after it that
    /// failed: they are no part of the outcome.
    pub async fn around<T>(
        &self,
        cancel: &CancellationToken,
        run: impl Future<Output = Result<T>>,
        told: impl FnOnce(&T) -> (SetId, u8),
    ) -> (Result<T>, Vec<String>) {
        let done = match self.before(cancel).await {
            Ok(()) => run.await,
            Err(error) => Err(error),
        };
        let (set, exit_code) = match &done {
            Ok(done) => {
                let (set, exit_code) = told(done);
                (Some(set), exit_code)
            }
            Err(error) => (None, error.kind().exit_code()),
        };
        let failed = self.after(set.as_ref(), exit_code).await;
        (done, failed)
    }

    /// Runs those before, in their order. The first that fails ends it: the run must not happen then. Cancelling ends the one that runs.
    ///
    /// Errors: [`Kind::Preflight`] when one could not be started or failed, [`Kind::Interrupted`] when cancelled.
    pub async fn before(&self, cancel: &CancellationToken) -> Result<()> {
        for (at, hook) in self.hooks.before.iter().enumerate() {
            let name = name("before", at, hook);
            self.bus.step(format!("running {name}"));
            let ran = self.run(&name, hook, &[], cancel).await;
            ran.map_err(|error| {
                let kind = if error.kind() == Kind::Interrupted { Kind::Interrupted } else { Kind::Preflight };
                error
                    .context("not run")
                    .with_kind(kind)
                    .hint_or(format!("try it by hand, or take it out of `hooks.before` of job {}", self.job))
            })?;
        }
        Ok(())
    }

    /// Runs those after, every one, whatever became of the run, and gives a sentence for each that failed. They have their own time limits
    /// and are not ended by the signal that ended the run: what `before` stopped must be started again.
    pub async fn after(&self, set: Option<&SetId>, exit_code: u8) -> Vec<String> {
        let mut told = vec![("DRCTL_OUTCOME", Outcome::of(exit_code).name().to_owned()), ("DRCTL_EXIT_CODE", exit_code.to_string())];
        told.extend(set.map(|set| ("DRCTL_SET", set.to_string())));
        let mut failed = Vec::new();
        for (at, hook) in self.hooks.after.iter().enumerate() {
            let name = name("after", at, hook);
            self.bus.step(format!("running {name}"));
            if let Err(error) = self.run(&name, hook, &told, &CancellationToken::new()).await {
                failed.push(error.to_string());
            }
        }
        failed
    }

    async fn run(&self, name: &str, hook: &Hook, told: &[(&str, String)], cancel: &CancellationToken) -> Result<()> {
        let (program, args) = hook.run.split_first().ok_or_else(|| Error::new(Kind::Config, format!("{name} names no program")))?;
        let limits = Limits { total: Some(hook.timeout), ..Limits::default() };
        let mut command = Command::new(name, self.find(program)?).args(args).folder(self.folder).limits(limits);
        for (name, value) in &self.environment(hook, name).await? {
            command = command.env(name, value.expose()).secret(value);
        }
        command = command.env("DRCTL_JOB", self.job.as_str()).env("DRCTL_GROUP", self.group);
        for (name, value) in told {
            command = command.env(name, value);
        }
        match command.stream(cancel, |_| Ok(())).await {
            Ok(_) => Ok(()),
            Err(Failure { reason: Reason::Leftover, error, .. }) => {
                Err(error.hint("what a hook starts ends with it: let it ask systemctl or docker to start a service"))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Fetching may ask a program, so it blocks.
    async fn environment(&self, hook: &Hook, name: &str) -> Result<BTreeMap<String, crate::model::Secret>> {
        let wanted = hook.env.clone();
        let fetch = move || wanted.iter().map(|(name, secret)| Ok((name.clone(), secret.resolve()?))).collect::<Result<_>>();
        let fetched = tokio::task::spawn_blocking(fetch).await.map_err(|e| Error::failed("fetch its variables").because(e))?;
        fetched.context(|| name.to_owned())
    }

    fn find(&self, program: &str) -> Result<PathBuf> {
        if program.contains('/') {
            return Ok(self.folder.join(program));
        }
        let found = lookup::find(program, &lookup::path_folders()).tools.into_iter().next();
        found.ok_or_else(|| Error::new(Kind::Preflight, format!("program '{program}' was not found")).hint("give its full path in `run`"))
    }
}

/// `hook before[0] (systemctl)`: arguments stay out, someone may have put a password there.
fn name(list: &str, at: usize, hook: &Hook) -> String {
    let program = hook.run.first().map(|program| program.rsplit('/').next().unwrap_or(program));
    format!("hook {list}[{at}] ({})", program.unwrap_or_default())
}
