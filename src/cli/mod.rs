//! The command line: one file per verb; text and JSON from one value.

mod agent;
pub mod args;
mod audit;
mod backup;
mod cat;
pub mod config;
mod config_history;
mod diff;
mod doctor;
mod files;
mod grants;
mod init;
mod init_from;
mod init_preset;
mod key;
mod list;
mod load_errors;
mod nagios;
mod notify;
pub mod output;
mod pin;
mod progress;
mod prune;
mod reports;
mod repository;
mod restore;
mod rotate_identity;
mod schedule;
mod show;
mod status;
mod unlock;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use clap::{CommandFactory, Parser};
use tokio_util::sync::CancellationToken;

use crate::cli::args::{Cli, ConfigVerb, Global, Verb};
use crate::cli::output::Output;
use crate::cli::progress::{JsonLines, Progress};
use crate::error::{Context, Error, Kind, Result};
use crate::model::SystemClock;
use crate::observe::Bus;
use crate::open::{self, Surroundings};
use crate::source::RunContext;

/// What every verb gets.
pub(crate) struct Shell {
    /// The options of every verb.
    pub global: Global,
    /// The verb's name.
    pub verb: &'static str,
    /// How to print.
    pub out: Output,
    /// Where events go.
    pub bus: Bus,
    /// Set by a signal.
    pub cancel: CancellationToken,
}

impl Shell {
    /// The same without a word on the terminal: for a verb that tells of everything itself.
    fn silent(&self) -> Shell {
        Shell { global: self.global.clone(), bus: Bus::new(), cancel: self.cancel.clone(), ..*self }
    }

    /// What opening a repository needs.
    fn around(&self) -> Surroundings {
        let Global { config, repo, recovery, .. } = &self.global;
        let around = Surroundings::new(self.verb, config.clone(), self.bus.clone(), self.cancel.clone());
        Surroundings { repo: repo.clone(), recovery: recovery.clone(), ..around }
    }

    /// What a source gets when there is no repository to go with it.
    fn context(&self, run: &str) -> RunContext {
        RunContext { run: run.to_owned(), cancel: self.cancel.clone(), bus: Bus::new(), clock: Arc::new(SystemClock) }
    }
}

/// Runs one command line; the exit codes are those of DESIGN §7.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // Before the command line is understood, for a mistake in it is an answer too: OK, WARNING or CRITICAL it is not.
    let for_nagios = args.iter().any(|arg| arg == "--nagios");
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            if for_nagios && error.use_stderr() {
                let text = error.to_string();
                let line = nagios::unknown_words(text.lines().next().unwrap_or_default());
                output::print_bytes(format!("{line}\n").as_bytes());
                return ExitCode::from(3);
            }
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(Kind::Usage.exit_code()) } else { ExitCode::SUCCESS };
        }
    };
    #[cfg(feature = "failpoints")]
    crash_point();
    let out = Output::new(cli.global.json, cli.global.quiet, cli.global.no_color);
    let verb = verb_name(&cli.verb);
    start_log(cli.global.verbose);
    let signal = Arc::new(AtomicU8::new(0));
    // A panic is an error like another: said once more in our words, exit 1 (FORMAT, Exit codes).
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| start(cli, out, signal.clone())));
    match ended.unwrap_or_else(|panic| Err(Error::broke_down(&format!("drctl {verb}"), &*panic))) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // A signal's own exit code for what it ended; words and hint stay, they know what was done and what was not.
            let error = match (error.kind(), signal.load(Ordering::Relaxed)) {
                (Kind::Interrupted, 15) => error.with_kind(Kind::Terminated).context("terminated"),
                _ => error,
            };
            if for_nagios {
                let (line, code) = nagios::unknown(&error);
                output::print_bytes(format!("{line}\n").as_bytes());
                return ExitCode::from(code);
            }
            out.error(verb, &error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// A signal has reached the task that listens, and the run was told to end.
#[cfg(feature = "failpoints")]
static HEARD: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// `DRCTL_CRASH_AT=point` or `point#n`: at its n-th passage this process is killed where it stands. `DRCTL_CRASH_BY` makes it another end than
/// `kill`: `int` and `term` send the signal and go on once it was seen, `panic` panics, `sh:…` runs a line of shell and goes on. For tests, never in
/// a release.
#[cfg(feature = "failpoints")]
fn crash_point() {
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::atomic::AtomicU32;
    let Ok(wanted) = std::env::var("DRCTL_CRASH_AT") else { return };
    let (point, nth) = wanted.split_once('#').unwrap_or((&wanted, "1"));
    let nth: u32 = nth.parse().unwrap_or(1);
    let by = std::env::var("DRCTL_CRASH_BY").unwrap_or_default();
    let passed = AtomicU32::new(0);
    let set = fail::cfg_callback(point, move || {
        if passed.fetch_add(1, Ordering::Relaxed) + 1 != nth {
            return;
        }
        let signal = match by.as_str() {
            "panic" => panic!("DRCTL_CRASH_AT"),
            script if script.starts_with("sh:") => {
                let _ = std::process::Command::new("sh").arg("-c").arg(&script[3..]).status();
                return;
            }
            "int" => Signal::INT,
            "term" => Signal::TERM,
            _ => Signal::KILL,
        };
        let _ = kill_process(getpid(), signal);
        // The task that listens runs on another thread.
        let sent = std::time::Instant::now();
        while !HEARD.load(Ordering::Acquire) && sent.elapsed() < std::time::Duration::from_secs(60) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    if let Err(error) = set {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("DRCTL_CRASH_AT: {error}\n").as_bytes());
    }
}

fn verb_name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Init(_) => "init",
        Verb::Backup(_) => "backup",
        Verb::List(_) => "list",
        Verb::Show(_) => "show",
        Verb::Status(_) => "status",
        Verb::Schedule(_) => "schedule",
        Verb::Verify(_) => "verify",
        Verb::Agent => "agent",
        Verb::Restore(_) => "restore",
        Verb::Prune(_) => "prune",
        Verb::Pin(_) => "pin",
        Verb::Unpin(_) => "unpin",
        Verb::Hold(_) => "hold",
        Verb::Cat(_) => "cat",
        Verb::Diff(_) => "diff",
        Verb::Doctor => "doctor",
        Verb::Key(_) => "key",
        Verb::Notify(_) => "notify",
        Verb::Grants(_) => "grants",
        Verb::Unlock(_) => "unlock",
        Verb::Repository(_) => "repository",
        Verb::Audit(_) => "audit",
        Verb::Config(_) => "config",
        Verb::Completions { .. } => "completions",
        Verb::Man { .. } => "man",
    }
}

/// Logs go to standard error; what they say is for whoever debugs drctl itself (RUST_LOG).
fn start_log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 | 1 => "error",
        2 => "drctl=debug",
        _ => "debug",
    };
    if verbose < 2 && std::env::var_os("RUST_LOG").is_none() {
        return;
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

fn start(cli: Cli, out: Output, signal: Arc<AtomicU8>) -> Result<u8> {
    match &cli.verb {
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "drctl", &mut text);
            output::print_bytes(&text);
            return Ok(0);
        }
        Verb::Man { out } => return man(out.as_deref()),
        Verb::Config(args) => return configure(&cli.global, out, args.verb.clone()),
        Verb::Grants(args) => return grants::run(&cli.global, out, &args.verb),
        Verb::Audit(args) => return audit::run(out, args),
        _ => {}
    }
    if cli.global.recovery.is_some() && cli.global.repo.is_none() && !matches!(&cli.verb, Verb::Init(args) if args.from.is_some()) {
        return Err(Error::new(Kind::Usage, "--recovery opens the repository that --repo names")
            .hint("--repo FOLDER|URL --recovery FILE; or drctl init --from FOLDER|URL --recovery FILE"));
    }
    no_core_dumps();
    file_size_limit_is_an_error();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4))
        .enable_all()
        .build()
        .context(|| "start the runtime")?;
    let code = runtime.block_on(async {
        let shell = Shell { verb: verb_name(&cli.verb), out, bus: Bus::new(), cancel: CancellationToken::new(), global: cli.global };
        if shell.global.json {
            if !shell.out.quiet {
                shell.bus.subscribe(Arc::new(JsonLines));
            }
        } else {
            shell.bus.subscribe(Progress::new(shell.global.verbose > 0, shell.out.quiet, shell.out.color));
        }
        // The agent reads its configuration again at SIGHUP.
        listen(shell.cancel.clone(), signal, !matches!(cli.verb, Verb::Agent))?;
        match cli.verb {
            Verb::Init(args) => init::run(&shell, args).await,
            Verb::Backup(args) => backup::run(&shell, args).await,
            Verb::List(args) => list::run(&shell, args).await,
            Verb::Show(args) => show::run(&shell, args).await,
            Verb::Status(args) => status::run(&shell, args).await,
            Verb::Schedule(args) => schedule::run(&shell, &args),
            Verb::Verify(args) => verify::run(&shell, args).await,
            Verb::Agent => agent::run(&shell).await,
            Verb::Restore(args) => restore::run(&shell, args).await,
            Verb::Prune(args) => prune::run(&shell, args).await,
            Verb::Pin(args) => pin::pin(&shell, args).await,
            Verb::Unpin(args) => pin::unpin(&shell, args).await,
            Verb::Hold(args) => pin::hold(&shell, args).await,
            Verb::Cat(args) => cat::run(&shell, args).await,
            Verb::Diff(args) => diff::run(&shell, args).await,
            Verb::Doctor => doctor::run(&shell).await,
            Verb::Key(args) => key::run(&shell, args).await,
            Verb::Notify(args) => notify::run(&shell, args).await,
            Verb::Unlock(args) => unlock::run(&shell, args).await,
            Verb::Repository(args) => repository::run(&shell, args).await,
            Verb::Grants(_) | Verb::Audit(_) | Verb::Config(_) | Verb::Completions { .. } | Verb::Man { .. } => Ok(0),
        }
    });
    // A blocking read of a terminal or a stuck store must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    code
}

fn configure(global: &Global, out: Output, verb: ConfigVerb) -> Result<u8> {
    let verb = match verb {
        ConfigVerb::History => return config_history::list(global, out),
        ConfigVerb::Rollback { name } => return config_history::roll_back(global, out, name.as_deref()),
        ConfigVerb::Check => config::ConfigVerb::Check,
        ConfigVerb::Show => config::ConfigVerb::Show,
        ConfigVerb::Schema { job } => config::ConfigVerb::Schema { job },
    };
    let found = config::run(verb, &open::load_options(global.config.as_deref()))?;
    out.result("config", &found.json, |_| found.text.clone());
    Ok(0)
}

/// The first signal asks for a clean end; the second ends the process where it stands.
fn listen(cancel: CancellationToken, seen: Arc<AtomicU8>, hang_up_ends: bool) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context(|| "listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context(|| "listen for signals")?;
    // A terminal that is closed, an ssh connection that breaks; not below nohup, which had it ignored.
    let hang_up_ends = hang_up_ends && !hang_up_is_ignored();
    let mut hang_up = hang_up_ends.then(|| signal(SignalKind::hangup())).transpose().context(|| "listen for signals")?;
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
                Some(_) = async { hang_up.as_mut()?.recv().await } => 15,
            };
            if cancel.is_cancelled() {
                std::process::exit(128 + i32::from(number));
            }
            seen.store(number, Ordering::Relaxed);
            cancel.cancel();
            #[cfg(feature = "failpoints")]
            HEARD.store(true, Ordering::Release);
        }
    });
    Ok(())
}

/// Whether whoever started this process had SIGHUP ignored. Asked before it is listened for.
fn hang_up_is_ignored() -> bool {
    // SAFETY: a null new action changes nothing; `old` is written by the call or left as it is, and all of its bytes may be zero.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut old) == 0 && old.sa_sigaction == libc::SIG_IGN
    }
}

/// A core dump would hold keys and passwords.
fn no_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// A write past the file size limit must come back as an error (FAULTS 12), not end the process by SIGXFSZ.
fn file_size_limit_is_an_error() {
    // SAFETY: ignoring a signal runs no code of ours; called before any thread is started.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

fn man(folder: Option<&std::path::Path>) -> Result<u8> {
    let command = Cli::command();
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder).context(|| format!("make {}", folder.display()))?;
            clap_mangen::generate_to(command, folder).context(|| format!("write pages into {}", folder.display()))?;
        }
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(command).render(&mut text).context(|| "write the manual page")?;
            output::print_bytes(&text);
        }
    }
    Ok(0)
}
