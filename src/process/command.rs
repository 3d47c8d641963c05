//! What to run, and within which limits.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::model::Secret;

/// Variables that a child gets from drctl's own environment; all `LC_*` too. Everything else is cleared.
const ALLOWED: &[&str] = &["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// When to give up on a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest time without a byte on standard output; time in which drctl itself was not ready to read does not count.
    pub idle: Option<Duration>,
    /// Longest time from start to end.
    pub total: Option<Duration>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { idle: None, total: None, grace: Duration::from_secs(5) }
    }
}

/// What sees a child's standard error.
type Watcher = dyn FnMut(&[u8]) + Send;

/// Sees a child's standard error.
#[derive(Clone)]
pub(super) struct WatchStderr(pub(super) Arc<Mutex<Watcher>>);

impl std::fmt::Debug for WatchStderr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WatchStderr")
    }
}

/// A program with its arguments and environment. Arguments are never seen by a shell.
#[derive(Clone, Debug)]
pub struct Command {
    pub(super) what: String,
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) folder: Option<PathBuf>,
    pub(super) secrets: Vec<Secret>,
    pub(super) limits: Limits,
    pub(super) keep_stderr: Option<KeepLine>,
    pub(super) watch_stderr: Option<WatchStderr>,
    pub(super) first_input: Option<Secret>,
}

/// Whether a line of standard error is kept, given whether the one before it was.
pub type KeepLine = fn(line: &str, after_kept: bool) -> bool;

impl Command {
    /// `what` names the child in errors: `pg_dump of shop`. `program` is best an absolute path (see [`super::lookup`]).
    pub fn new(what: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Command {
            what: what.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            folder: None,
            secrets: Vec::new(),
            limits: Limits::default(),
            keep_stderr: None,
            watch_stderr: None,
            first_input: None,
        }
    }

    /// Which lines of its standard error may be kept and shown; all, unless said.
    pub fn keep_stderr(mut self, keep: KeepLine) -> Self {
        self.keep_stderr = Some(keep);
        self
    }

    /// Shows all of its standard error to `watch` as it comes, in pieces of any size, unredacted: what is kept of that is the watcher's to clean.
    pub fn watch_stderr(mut self, watch: impl FnMut(&[u8]) + Send + 'static) -> Self {
        self.watch_stderr = Some(WatchStderr(Arc::new(Mutex::new(watch))));
        self
    }

    /// Its standard input begins with this text, and then stays open until the child has ended, even where nothing else is written. So a
    /// program far away can be given a secret, and can watch its input to learn that drctl is gone. At most 4 KiB: a pipe takes that at once.
    pub fn first_input(mut self, text: Secret) -> Self {
        self.first_input = Some(text);
        self
    }

    /// Adds one argument. Every user of the machine can read it: never a secret.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable, over the allow-list. Never a secret: give the path of a private file instead.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The folder it runs in.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Passes these variables of drctl's own environment on, where they are set. Never for one that holds a secret.
    pub fn pass_on(mut self, names: &[&str]) -> Self {
        for name in names {
            if let Some(value) = std::env::var_os(name) {
                self.env.push(((*name).into(), value));
            }
        }
        self
    }

    /// Text to be removed from whatever is kept of standard error.
    pub fn secret(mut self, secret: &Secret) -> Self {
        self.secrets.push(secret.clone());
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The variables the child gets, in the order in which they are set.
    pub(super) fn environment(&self) -> Vec<(OsString, OsString)> {
        let allowed = std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            ALLOWED.contains(&name.as_ref()) || name.starts_with("LC_")
        });
        allowed.chain(self.env.iter().cloned()).collect()
    }
}
