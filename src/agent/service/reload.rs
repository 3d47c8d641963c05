//! The configuration while the agent runs: its files are watched, a good one takes over, a bad one is told of and changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Agent, has_come, intervals};
use crate::agent::lifecycle;
use crate::agent::schedule;
use crate::config::load::load;
use crate::config::problem::{Origin, Problems};
use crate::config::reload::{Reload, reload};
use crate::config::typed::Config;
use crate::model::Severity;
use crate::notify::Alert;
use crate::open::history;
use crate::state::{Act, Audited};

/// How often the configuration's files are looked at.
const FILES: SignedDuration = SignedDuration::from_secs(5);

/// For how long a file must have stayed the same before it is read.
const SETTLED: SignedDuration = SignedDuration::from_secs(1);

/// The incident of a configuration that cannot be used.
const CONFIG_ALARM: &str = "config";

/// A file of the configuration as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileMark {
    path: PathBuf,
    modified: Option<std::time::SystemTime>,
    bytes: u64,
}

impl Agent {
    /// Reads the configuration again now, whether its files changed or not.
    pub async fn reload(&mut self) {
        self.files = marks_of(&self.config);
        let read = load(&self.around.load_options());
        match reload(&self.config, read) {
            Reload::Same => {
                self.refused = None;
                self.note_refusal("");
                self.tell(self.desk.clear(CONFIG_ALARM, None, &[]));
                self.log.line("info", None, "the configuration was read again and says what it said");
            }
            Reload::Keep(problems) => {
                let why = problems.to_string();
                self.refused = Some((self.around.clock.now(), why.clone()));
                // Before it is told: whoever reads that may ask `status` for more.
                self.note_refusal(&refusal(&problems));
                self.log.line("error", None, &format!("reload refused, the old configuration stays: {why}"));
                self.raise(Alert {
                    lines: why.lines().take(20).map(str::to_owned).collect(),
                    next: Some("drctl config check; the last good one: drctl config rollback".into()),
                    ..Alert::new(CONFIG_ALARM, Severity::Warning, "reload refused: the old configuration stays in use")
                });
            }
            Reload::Swap { config, changes, removed_sources } => {
                let now = self.around.clock.now();
                let changed: Vec<&str> = changes.iter().map(|change| change.path.as_str()).take(20).collect();
                self.log.line("info", None, &format!("the configuration changed: {}", changed.join(", ")));
                if !removed_sources.is_empty() {
                    self.log.line("warn", None, &format!("no longer backed up, their sets stay: {}", removed_sources.join(", ")));
                }
                self.refused = None;
                self.note_refusal("");
                self.loaded_at = now;
                let act = Act::of("config reload").on(self.config.folder.display()).with(serde_json::json!({ "changed": changed }));
                Audited::begin(self.state.as_ref(), &self.around.bus, act).ended_with(0);
                self.config = Arc::from(config);
                // What was written to a file since it was read is seen at the next look: the mark of before the reading stays.
                let read = std::mem::take(&mut self.files);
                let known = |mark: FileMark| read.iter().find(|old| old.path == mark.path).cloned().unwrap_or(mark);
                self.files = marks_of(&self.config).into_iter().map(known).collect();
                self.intervals = intervals(&self.config, now);
                self.table.reload(schedule::entries(&self.config), now);
                self.keep_marks();
                self.keep_configuration();
                self.desk = Arc::new(self.desk.succeeded_by(&self.config, self.state.clone(), false));
                self.tell(self.desk.clear(CONFIG_ALARM, None, &[]));
                self.known.retain(|job, _| self.config.job(job.as_str()).is_some());
                self.next_look = now;
                self.next_judgement = now;
                lifecycle::give_back_memory();
            }
        }
    }

    /// Why the configuration on the disk is not the one in use.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_ref().map(|(_, why)| why.as_str())
    }

    /// The configuration in use.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub(super) async fn look_at_files(&mut self, now: Timestamp) {
        if !has_come(self.next_file_look, now, FILES) {
            return;
        }
        self.next_file_look = now.saturating_add(FILES).unwrap_or(now);
        let found = marks_of(&self.config);
        let settled = self.changing.take().is_some_and(|before| before == found);
        if found == self.files {
            return;
        }
        if settled {
            self.reload().await;
        } else {
            // Somebody may still be writing, and what is half there would be refused with an alarm.
            self.changing = Some(found);
            self.next_file_look = now.saturating_add(SETTLED).unwrap_or(now);
        }
    }

    /// The configuration in use is a good one: it is kept, so that a person can go back to it.
    pub(super) fn keep_configuration(&self) {
        if let Err(error) = history::keep(&self.config, self.around.clock.now()) {
            self.log.line("warn", None, &format!("the configuration is not kept for `config rollback`: {error}"));
        }
    }
}

/// The files of a configuration, those of `jobs/` that came since among them.
pub(super) fn marks_of(config: &Config) -> Vec<FileMark> {
    let mut paths = config.files.clone();
    if let Ok(folder) = std::fs::read_dir(config.folder.join(crate::config::find::JOBS)) {
        paths.extend(folder.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml")));
    }
    paths.sort();
    paths.dedup();
    let mark = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok();
        FileMark { modified: metadata.as_ref().and_then(|m| m.modified().ok()), bytes: metadata.map_or(0, |m| m.len()), path }
    };
    paths.into_iter().map(mark).collect()
}

/// `line 14: drctl.yaml:14:5: …`, the first of the mistakes.
fn refusal(problems: &Problems) -> String {
    let Some(first) = problems.list().first() else { return "it cannot be read".to_owned() };
    match &first.origin {
        Some(Origin::File { line, .. }) => format!("line {line}: {first}"),
        _ => first.to_string(),
    }
}
