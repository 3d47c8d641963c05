//! What the terminal shows while a verb works: bars on a terminal, lines elsewhere. Listens on the bus like anyone else.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output::{bytes, took};
use crate::observe::{Event, Observer};

/// Where a terminal is not, a running artifact is mentioned this often.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// The terminal's listener.
pub struct Progress {
    bars: Option<MultiProgress>,
    verbose: bool,
    quiet: bool,
    color: bool,
    open: Mutex<HashMap<String, Open>>,
}

struct Open {
    bar: Option<ProgressBar>,
    started: Instant,
    told: Instant,
}

impl Progress {
    /// Bars when standard error is a terminal.
    pub fn new(verbose: bool, quiet: bool, color: bool) -> Arc<Self> {
        let bars =
            (std::io::stderr().is_terminal() && !quiet).then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        Arc::new(Progress { bars, verbose, quiet, color, open: Mutex::default() })
    }

    fn line(&self, text: &str) {
        match &self.bars {
            // Between the bars, not across them.
            Some(bars) => bars.suspend(|| write_line(text)),
            None => write_line(text),
        }
    }

    fn start(&self, artifact: &str, expected: Option<u64>) {
        let bar = self.bars.as_ref().map(|bars| {
            let (template, length) = match expected {
                Some(total) if total > 0 => ("  {prefix:32} {bar:24} {bytes:>10} of {total_bytes}  {bytes_per_sec}  {msg}", total),
                _ => ("  {prefix:32} {spinner} {bytes:>10}  {bytes_per_sec}  {msg}", 0),
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ ");
            bars.add(ProgressBar::new(length).with_style(style).with_prefix(artifact.to_owned()))
        });
        let now = Instant::now();
        self.opened().insert(artifact.to_owned(), Open { bar, started: now, told: now });
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn advance(&self, artifact: &str, plain: u64, stored: u64) {
        let mut opened = self.opened();
        let Some(open) = opened.get_mut(artifact) else { return };
        if let Some(bar) = &open.bar {
            // An estimate that turned out too small grows with what came.
            if bar.length().is_some_and(|length| length > 0 && plain > length) {
                bar.set_length(plain);
            }
            bar.set_position(plain);
            bar.set_message(format!("{} stored", bytes(stored)));
        } else if open.told.elapsed() >= LINE_EVERY {
            open.told = Instant::now();
            let text = format!("  {artifact}: {} so far, {} stored", bytes(plain), bytes(stored));
            drop(opened);
            self.line(&text);
        }
    }

    fn finish(&self, artifact: &str) -> Option<Duration> {
        let open = self.opened().remove(artifact)?;
        if let Some(bar) = open.bar {
            bar.finish_and_clear();
        }
        Some(open.started.elapsed())
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn write_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Observer for Progress {
    fn observe(&self, event: &Event) {
        if self.quiet && !matches!(event, Event::ArtifactFailed { .. } | Event::Warning { .. }) {
            return;
        }
        match event {
            Event::ArtifactStarted { artifact, expected_bytes } => self.start(artifact, *expected_bytes),
            Event::ArtifactProgress { artifact, plain_bytes, stored_bytes } => self.advance(artifact, *plain_bytes, *stored_bytes),
            Event::ArtifactFinished { artifact, plain_bytes, stored_bytes } => {
                let elapsed = self.finish(artifact).unwrap_or_default();
                let done = self.paint("32", "✓");
                self.line(&format!(
                    "  {done} {artifact:<32} {:>9}  {:>9} stored  {}",
                    bytes(*plain_bytes),
                    bytes(*stored_bytes),
                    took(elapsed.as_secs_f64())
                ));
            }
            Event::ArtifactFailed { artifact, error, hint } => {
                self.finish(artifact);
                self.line(&format!("  {} {artifact}: {error}", self.paint("31", "✗")));
                if let Some(hint) = hint {
                    self.line(&format!("    hint: {hint}"));
                }
            }
            Event::Warning { text } => self.line(&format!("{} {text}", self.paint("33", "warning:"))),
            Event::Retry { what, error, attempt } => self.line(&format!("  {what}: {error}; try {attempt}")),
            Event::Step { text } if self.verbose || self.bars.is_some() => self.line(&self.paint("2", &format!("  {text}"))),
            Event::RunStarted { verb, set: Some(set), .. } => self.line(&format!("{verb} {set}")),
            _ => {}
        }
    }
}

/// Prints every event as a line of JSON on standard error, for `--json`.
pub struct JsonLines;

impl Observer for JsonLines {
    fn observe(&self, event: &Event) {
        if matches!(event, Event::ArtifactProgress { .. }) {
            return;
        }
        if let Ok(line) = serde_json::to_string(event) {
            write_line(&line);
        }
    }
}
