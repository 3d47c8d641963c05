//! The agent's own words on standard error: text on a terminal, one JSON object a line elsewhere, the run on each line.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use crate::model::Clock;
use crate::observe::{Event, Observer};

/// Where lines go. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    json: bool,
    clock: Arc<dyn Clock>,
    sink: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Log {
    /// To standard error.
    pub fn to_stderr(clock: Arc<dyn Clock>) -> Log {
        let sink = |line: &str| {
            let _ = std::io::stderr().write_all(line.as_bytes());
        };
        Log { json: !std::io::stderr().is_terminal(), clock, sink: Arc::new(sink) }
    }

    /// Nowhere: for tests.
    pub fn silent(clock: Arc<dyn Clock>) -> Log {
        Log { json: true, clock, sink: Arc::new(|_| {}) }
    }

    /// One line. `run` names the run it is of.
    pub fn line(&self, level: &str, run: Option<&str>, text: &str) {
        let now: Timestamp = self.clock.now();
        let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let line = match (self.json, run) {
            (true, _) => format!("{}\n", json!({ "time": second.to_string(), "level": level, "run": run, "message": text })),
            (false, Some(run)) => format!("{second} {level:5} [{run}] {text}\n"),
            (false, None) => format!("{second} {level:5} {text}\n"),
        };
        (self.sink)(&line);
    }
}

/// Writes what a run tells.
pub struct RunLog {
    /// Where to.
    pub log: Log,
    /// The run.
    pub run: String,
}

impl Observer for RunLog {
    fn observe(&self, event: &Event) {
        let (level, text) = match event {
            Event::RunStarted { verb, job, set } => ("info", format!("{verb} of {job} begins{}", named(set))),
            Event::Step { text } => ("debug", text.clone()),
            Event::Warning { text } => ("warn", text.clone()),
            Event::Retry { what, error, attempt } => ("warn", format!("{what}: {error}; try {attempt}")),
            Event::ArtifactFailed { artifact, error, .. } => ("error", format!("{artifact}: {error}")),
            Event::RunFinished { verb, job, set, exit_code, elapsed_seconds, .. } => {
                let level = if *exit_code == 0 { "info" } else { "error" };
                (level, format!("{verb} of {job} ended with exit code {exit_code} after {elapsed_seconds:.1} s{}", named(set)))
            }
            Event::ArtifactFinished { artifact, plain_bytes, stored_bytes } => {
                ("debug", format!("{artifact}: {plain_bytes} bytes, {stored_bytes} stored"))
            }
            Event::ArtifactStarted { .. } | Event::ArtifactProgress { .. } | Event::Recorded { .. } => return,
        };
        // The journal of a service is no place for each step.
        if level != "debug" {
            self.log.line(level, Some(&self.run), &text);
        }
    }
}

fn named(set: &Option<String>) -> String {
    set.as_ref().map(|set| format!(": {set}")).unwrap_or_default()
}
