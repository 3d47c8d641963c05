//! The look at the repository: every job's log, and whether the stores answer.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{Agent, Ended};
use crate::agent::facts::{self, Facts};
use crate::error::Kind;
use crate::model::{JobName, Severity};
use crate::notify::Alert;
use crate::open::Opened;
use crate::ops::confirm;

/// How often logs are read that no run of this host changed.
pub(super) const LOOK: SignedDuration = SignedDuration::from_hours(1);
/// The same after a look that failed.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(5);

/// What a look at the repository found.
#[derive(Default)]
pub(super) struct Looked {
    facts: Vec<(JobName, Facts)>,
    /// Why it could not be read.
    problem: Option<String>,
    /// Why single logs could not be read.
    unreadable: BTreeMap<JobName, String>,
    /// What a person should do some day.
    advice: Vec<String>,
    /// Of each further store why it does not answer, if it does not.
    stores: BTreeMap<String, Option<String>>,
}

impl Looked {
    /// A look that ended by a panic.
    pub(super) fn broken() -> Looked {
        Looked { problem: Some("the look at it broke down: this is a mistake in drctl, please report it".into()), ..Looked::default() }
    }
}

impl Agent {
    /// Reads every job's log, in a task of its own.
    pub(super) fn look(&mut self) {
        let (around, config, state) = (self.around.clone(), self.config.clone(), self.state.clone());
        let task = self.tasks.spawn(async move {
            let mut looked = Looked::default();
            let opened = match Opened::of(&around, config.clone(), state, false, None).await {
                Ok(opened) => opened,
                Err(error) => return Ended::Looked(Box::new(Looked { problem: Some(error.to_string()), ..looked })),
            };
            for sink in opened.setup.sinks.iter().skip(1) {
                let problem = sink.store.list("", None, 1).await.err().map(|error| error.to_string());
                looked.stores.insert(sink.name.clone(), problem);
            }
            looked.advice.extend(confirm::untried(&opened.setup).map(|words| format!("{words}: drctl key confirm FILE")));
            for job in &config.jobs {
                match facts::read(&opened.setup, &job.name, &job.group_names(), config.jobs.len()).await {
                    Ok(facts) => looked.facts.push((job.name.clone(), facts)),
                    // A log that is damaged is its job's own trouble; a store that does not answer is everyone's, and asking on takes long.
                    Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Unsupported) => {
                        looked.unreadable.insert(job.name.clone(), error.to_string());
                    }
                    Err(error) => {
                        looked.problem = Some(format!("job {}: {error}", job.name));
                        break;
                    }
                }
            }
            Ended::Looked(Box::new(looked))
        });
        self.looking = Some(task.id());
    }

    /// Takes in what a look found.
    pub(super) fn saw(&mut self, looked: Looked, now: Timestamp) {
        let Looked { facts, problem, unreadable, advice, stores } = looked;
        self.looking = None;
        self.looked = Some((now, problem.clone()));
        self.stores_seen = stores;
        if problem.is_none() {
            if unreadable.is_empty() {
                self.told_by_logs(facts.iter().filter_map(|(_, facts)| facts.oldest_at).min());
            }
            (self.unreadable, self.advice) = (unreadable, advice);
        }
        self.known.extend(facts);
        self.next_look = now.saturating_add(if problem.is_some() { LOOK_AGAIN } else { LOOK }).unwrap_or(now);
        match problem {
            Some(problem) => self.raise(Alert {
                lines: vec![problem],
                next: Some("drctl doctor".into()),
                ..Alert::new("repository", Severity::Critical, "the repository cannot be read")
            }),
            None => self.tell(self.desk.clear("repository", None, &[])),
        }
    }
}
