//! What is told: one value for every way.

use serde::{Deserialize, Serialize};

use crate::model::{Severity, Timestamp};

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Something is wrong that was not before.
    IncidentOpened,
    /// It still is.
    IncidentOpen,
    /// It is over.
    IncidentRecovered,
    /// A run begins. For dead-man switches only.
    RunStarted,
    /// A run ended.
    RunReport,
    /// Something else was done that is worth knowing: a restore, say.
    Done,
    /// How everything stands: a sign of life.
    Digest,
    /// A person tries whether messages arrive.
    Test,
}

impl What {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            What::IncidentOpened => "incident-opened",
            What::IncidentOpen => "incident-open",
            What::IncidentRecovered => "incident-recovered",
            What::RunStarted => "run-started",
            What::RunReport => "run-report",
            What::Done => "done",
            What::Digest => "digest",
            What::Test => "test",
        }
    }
}

/// A label and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is: `Size`.
    pub label: String,
    /// Its value: `289 MiB`.
    pub value: String,
}

impl Fact {
    /// One fact.
    pub fn new(label: impl Into<String>, value: impl Into<String>) -> Fact {
        Fact { label: label.into(), value: value.into() }
    }
}

/// One message. Also its shape in the outbox, so fields are added with a default only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The same for every delivery of one message: a receiver may get it twice.
    #[serde(default)]
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub what: What,
    /// The incident it belongs to, by its key.
    #[serde(default)]
    pub incident: Option<String>,
    /// The job, where it is about one.
    #[serde(default)]
    pub job: Option<String>,
    /// The machine that speaks.
    #[serde(default)]
    pub host: String,
    /// Job and what: `jisu: backup failed`.
    pub title: String,
    /// Why, first; then what else is worth knowing.
    #[serde(default)]
    pub lines: Vec<String>,
    /// The next command to type.
    #[serde(default)]
    pub next: Option<String>,
    /// Figures.
    #[serde(default)]
    pub facts: Vec<Fact>,
    /// When what it tells happened; it may be sent much later.
    pub at: Timestamp,
    /// The run it is about: what began and what ended are paired by it.
    #[serde(default)]
    pub run: Option<String>,
    /// Of a run report: how the run ended.
    #[serde(default)]
    pub exit_code: Option<u8>,
    /// Older messages that were dropped since the last one arrived, for the queue was full.
    #[serde(default)]
    pub dropped: u64,
}

impl Message {
    /// A message with a title and nothing else.
    pub fn new(what: What, severity: Severity, title: impl Into<String>, at: Timestamp) -> Message {
        Message {
            id: String::new(),
            severity,
            what,
            incident: None,
            job: None,
            host: String::new(),
            title: title.into(),
            lines: Vec::new(),
            next: None,
            facts: Vec::new(),
            at,
            run: None,
            exit_code: None,
            dropped: 0,
        }
    }

    /// Whether it reports a run that went well.
    pub fn is_good_run(&self) -> bool {
        self.what == What::RunReport && self.exit_code == Some(0)
    }

    /// As plain text: title, lines, next command, facts.
    pub fn to_text(&self) -> String {
        let mut out = format!("{}\n", self.title);
        for line in &self.lines {
            out.push_str(line);
            out.push('\n');
        }
        if let Some(next) = &self.next {
            out.push_str(&format!("→ {next}\n"));
        }
        for Fact { label, value } in &self.facts {
            out.push_str(&format!("{label}: {value}\n"));
        }
        if let Some(words) = self.dropped_words() {
            out.push_str(&words);
            out.push('\n');
        }
        out
    }

    /// What is said of messages that were dropped.
    pub fn dropped_words(&self) -> Option<String> {
        match self.dropped {
            0 => None,
            1 => Some("1 older message was dropped: too many waited".to_owned()),
            n => Some(format!("{} older messages were dropped: too many waited", crate::model::figures::number(n))),
        }
    }
}

/// Something is wrong: what [`crate::notify::Desk::raise`] takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What it is about, the same each time it is seen: `backup:jisu`.
    pub key: String,
    /// How bad it is.
    pub severity: Severity,
    /// The job, where it is about one.
    pub job: Option<String>,
    /// Job and what: `jisu: backup failed`.
    pub title: String,
    /// Why, first.
    pub lines: Vec<String>,
    /// The next command to type.
    pub next: Option<String>,
    /// Figures.
    pub facts: Vec<Fact>,
}

impl Alert {
    /// One without a next command and figures.
    pub fn new(key: impl Into<String>, severity: Severity, title: impl Into<String>) -> Alert {
        Alert { key: key.into(), severity, job: None, title: title.into(), lines: Vec::new(), next: None, facts: Vec::new() }
    }
}
