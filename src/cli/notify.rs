//! `drctl notify test`.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

use crate::cli::Shell;
use crate::cli::args::{NotifyArgs, NotifyVerb};
use crate::config::load::load;
use crate::config::{Config, NotifierKind};
use crate::error::{Error, Kind, Result};
use crate::model::SystemClock;
use crate::notify::{Desk, DeskOptions, Tried};
use crate::open::stores::host;
use crate::open::{STATE_FILE, load_options};
use crate::state::{QueueState, StateFile};

/// What was tried.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One entry a notifier.
    pub notifiers: Vec<Line>,
    /// Why nothing is known of what waits.
    pub state_problem: Option<String>,
}

/// One notifier.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// `slack`, `webhook`, `healthchecks`.
    pub kind: &'static str,
    /// The job whose notifier it is; `None`: it hears of all.
    pub job: Option<String>,
    /// Whether the message was taken.
    pub delivered: bool,
    /// Whether it can keep an incident in one thread; `None` where that is not known.
    pub threads: Option<bool>,
    /// The answer's status.
    pub status: Option<u16>,
    /// The receiver's own word.
    pub word: Option<String>,
    /// Whether it may work later as it is: nobody answered, or only just now.
    pub unreachable: bool,
    /// What went wrong.
    pub problem: Option<String>,
    /// What helps.
    pub next_step: Option<String>,
    /// Messages that wait for it.
    pub waiting: u64,
    /// Messages that it refused, before this.
    pub refused: u64,
    /// Why the first of those that wait does, else why the newest was refused.
    pub last_problem: Option<String>,
}

/// Runs `notify …`. Exit 0: all delivered; 8: one is unreachable; 1: one refused.
pub async fn run(shell: &Shell, args: NotifyArgs) -> Result<u8> {
    let NotifyVerb::Test { name } = args.verb;
    let config = load(&load_options(shell.global.config.as_deref()))?;
    check(&config, name.as_deref())?;
    for warning in config.warnings.iter().filter(|w| w.to_string().contains("notify")) {
        shell.bus.warn(warning.to_string());
    }
    let clock = Arc::new(SystemClock);
    let (state, mut state_problem) = match StateFile::open(&config.state.join(STATE_FILE), clock.clone()) {
        Ok(state) => (Some(Arc::new(state)), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let environment = load_options(None).environment;
    let desk = Desk::new(&config, state.clone(), clock, DeskOptions::new(host(), environment));
    let states = desk.states().unwrap_or_else(|error| {
        state_problem = Some(error.to_string());
        Vec::new()
    });
    let tried = desk.try_out(name.as_deref()).await;
    let lines: Vec<Line> = tried.into_iter().map(|tried| line(tried, &config, &states)).collect();
    if let Some(state) = &state {
        // They were shown now, and what was in their way is not there any more.
        for line in lines.iter().filter(|line| line.delivered && line.refused > 0) {
            if let Err(error) = state.queue_forget_refused(&line.name) {
                state_problem = Some(error.to_string());
            }
        }
    }
    let report = Report { notifiers: lines, state_problem };
    shell.out.result("notify", &report, text);
    Ok(exit_code(&report))
}

fn check(config: &Config, name: Option<&str>) -> Result<()> {
    let names: Vec<&str> = config.notifiers().map(|(_, notifier)| notifier.name.as_str()).collect();
    if names.is_empty() {
        return Err(Error::new(Kind::Config, "the configuration tells nobody anything")
            .hint("add notify: [ { slack: { webhook: { env: SLACK_WEBHOOK_URL } } } ] to drctl.yaml; see drctl config schema"));
    }
    match name.filter(|name| !names.contains(name)) {
        Some(name) => Err(Error::new(Kind::Usage, format!("there is no notifier '{}'", name.escape_debug()))
            .hint(format!("the configuration has: {}", names.join(", ")))),
        None => Ok(()),
    }
}

fn line(tried: Tried, config: &Config, states: &[QueueState]) -> Line {
    let state = states.iter().find(|state| state.notifier == tried.notifier).cloned().unwrap_or_default();
    let kind = config.notifiers().find(|(_, n)| n.name == tried.notifier).map(|(_, n)| &n.kind);
    let line = Line {
        name: tried.notifier,
        kind: tried.kind,
        job: tried.job,
        delivered: tried.result.is_ok(),
        threads: None,
        status: None,
        word: None,
        unreachable: false,
        problem: None,
        next_step: None,
        waiting: state.waiting,
        refused: state.refused,
        last_problem: state.problem,
    };
    match tried.result {
        Ok(delivered) => {
            // A webhook's answer names no message that one could reply to.
            let slack = matches!(kind, Some(NotifierKind::SlackToken { .. } | NotifierKind::SlackWebhook { .. }));
            Line { threads: slack.then_some(delivered.thread.is_some()), status: delivered.status, ..line }
        }
        Err(failed) => Line {
            status: failed.status,
            unreachable: failed.error.kind() == Kind::Unreachable,
            problem: Some(failed.error.to_string()),
            next_step: failed.error.hint_text().map(str::to_owned),
            word: failed.word,
            ..line
        },
    }
}

fn exit_code(report: &Report) -> u8 {
    let failed = || report.notifiers.iter().filter(|line| !line.delivered);
    match (failed().count(), failed().any(|line| !line.unreachable)) {
        (0, _) => 0,
        // What will not mend itself decides.
        (_, true) => Kind::Failed.exit_code(),
        _ => Kind::Unreachable.exit_code(),
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for line in &report.notifiers {
        let whose = line.job.as_ref().map(|job| format!(", job {job}")).unwrap_or_default();
        let _ = write!(out, "{} ({}{whose}): ", line.name, line.kind);
        let _ = match (&line.problem, line.threads) {
            (Some(problem), _) => writeln!(out, "NOT delivered: {problem}"),
            (None, Some(true)) => writeln!(out, "delivered; an incident gets one thread"),
            (None, Some(false)) => {
                writeln!(out, "delivered; without threads: a bot's token in place of the webhook gives one for each incident")
            }
            (None, None) if line.kind == "healthchecks" => writeln!(out, "delivered, to the log of the check: its state stays as it was"),
            (None, None) => writeln!(out, "delivered"),
        };
        if let Some(next) = &line.next_step {
            let _ = writeln!(out, "  → {next}");
        }
        let why = line.last_problem.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let messages = |n: u64| crate::cli::output::count(n, "message");
        if line.waiting > 0 {
            let _ = writeln!(out, "  {} waiting for it{why}", messages(line.waiting));
        }
        if line.refused > 0 {
            let why = if line.waiting > 0 { "" } else { &why };
            let _ = writeln!(out, "  {} it refused before{why}", messages(line.refused));
        }
    }
    if let Some(problem) = &report.state_problem {
        let _ = writeln!(out, "what waits is not known: {problem}");
    }
    out
}

/// What `status` says of messages that did not get through.
pub(super) fn undelivered(state: &StateFile) -> Vec<String> {
    let stuck = |state: QueueState| {
        let why = state.problem?;
        let since = state.waiting_since.map(|at| format!(" since {}", at.strftime("%Y-%m-%d %H:%M UTC"))).unwrap_or_default();
        let messages = |n: u64| crate::cli::output::count(n, "message");
        Some(match (state.waiting, state.refused) {
            (0, refused) => format!("{} refused {}: {why}: try drctl notify test", state.notifier, messages(refused)),
            (waiting, _) => format!("{} for {} waiting{since}: {why}", messages(waiting), state.notifier),
        })
    };
    match state.queue_states() {
        Ok(states) => states.into_iter().filter_map(stuck).collect(),
        Err(error) => vec![error.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, problem: Option<&str>, unreachable: bool) -> Line {
        Line {
            name: name.into(),
            kind: "webhook",
            job: None,
            delivered: problem.is_none(),
            threads: None,
            status: None,
            word: None,
            unreachable,
            problem: problem.map(str::to_owned),
            next_step: None,
            waiting: 0,
            refused: 0,
            last_problem: None,
        }
    }

    #[test]
    fn what_will_not_mend_itself_decides_the_exit_code() {
        let of = |lines| exit_code(&Report { notifiers: lines, state_problem: None });
        assert_eq!(of(vec![line("a", None, false)]), 0);
        assert_eq!(of(vec![line("a", None, false), line("b", Some("x"), true)]), 8);
        assert_eq!(of(vec![line("a", Some("x"), false), line("b", Some("x"), true)]), 1);
    }

    #[test]
    fn what_each_could_and_could_not_do() {
        let threads = Line { kind: "slack", threads: Some(true), ..line("slack", None, false) };
        let hook = Line {
            kind: "slack",
            threads: Some(false),
            waiting: 3,
            last_problem: Some("connection refused".into()),
            ..line("ops", None, false)
        };
        let bad = Line {
            job: Some("jisu".into()),
            next_step: Some("in #backups type /invite @its-name".into()),
            refused: 1,
            last_problem: Some("Slack refused: not_in_channel".into()),
            ..line("jisu.slack", Some("Slack refused: not_in_channel"), false)
        };
        let check = Line { kind: "healthchecks", ..line("hc", None, false) };
        let report = Report { notifiers: vec![threads, hook, bad, check], state_problem: Some("no".into()) };
        insta::assert_snapshot!(text(&report));
    }
}
