//! What a verb that changes or destroys writes into the audit log: an entry before it begins, one when it ended.

use std::sync::Arc;

use serde_json::Value;

use crate::error::Result;
use crate::observe::Bus;
use crate::state::StateFile;
use crate::state::audit::AuditNote;

/// What is about to be done.
#[derive(Clone, Debug, Default)]
pub struct Act {
    verb: String,
    job: String,
    subject: String,
    details: String,
}

impl Act {
    /// A verb as it is typed: `restore --undo`, `key rotate`, `prune`.
    pub fn of(verb: &str) -> Act {
        Act { verb: verb.to_owned(), ..Act::default() }
    }

    /// The job that it is about.
    pub fn job(mut self, job: impl ToString) -> Act {
        self.job = job.to_string();
        self
    }

    /// What it is done to: a set, a restore, a key, a store, a file.
    pub fn on(mut self, subject: impl ToString) -> Act {
        self.subject = subject.to_string();
        self
    }

    /// More of it. **No secrets**: a URL only as it is shown to people. Keys without a value are left out.
    pub fn with(mut self, mut details: Value) -> Act {
        if let Value::Object(map) = &mut details {
            let empty = |v: &Value| v.is_null() || v == &Value::Bool(false) || v.as_array().is_some_and(Vec::is_empty);
            map.retain(|_, v| !empty(v));
        }
        self.details = match details {
            Value::Null => String::new(),
            Value::String(text) => text,
            Value::Object(map) if map.is_empty() => String::new(),
            other => other.to_string(),
        };
        self
    }
}

/// An act under way. Dropped without [`Audited::ended`] its `begun` stays the last word, which is true of a process that died.
#[must_use = "say how it ended"]
pub struct Audited {
    state: Option<Arc<StateFile>>,
    bus: Bus,
    act: Act,
    begun: u64,
}

impl Audited {
    /// Writes that it begins. An entry that cannot be written is said and stops nothing: a restore must work on a broken host too. `state` is `None` where
    /// the state file cannot be opened, which whoever tried has said.
    pub fn begin(state: Option<&Arc<StateFile>>, bus: &Bus, act: Act) -> Audited {
        let mut audited = Audited { state: state.cloned(), bus: bus.clone(), act, begun: 0 };
        audited.begun = audited.append("begun").unwrap_or(0);
        audited
    }

    /// Writes how it ended.
    pub fn ended<T>(self, outcome: &Result<T>) {
        self.ended_with(outcome.as_ref().err().map_or(0, |error| error.kind().exit_code()));
    }

    /// The same by the exit code, for what ends without an error and is not all well.
    pub fn ended_with(self, exit_code: u8) {
        match exit_code {
            0 => self.append("ok"),
            code => self.append(&code.to_string()),
        };
    }

    fn append(&self, outcome: &str) -> Option<u64> {
        let state = self.state.as_ref()?;
        let Act { verb, job, subject, details } = self.act.clone();
        let uid = rustix::process::getuid().as_raw();
        let note = AuditNote {
            user: login_name(uid),
            uid,
            sudo_user: std::env::var_os("SUDO_USER").unwrap_or_default().to_string_lossy().into_owned(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            verb,
            job,
            subject,
            // The entry that ends it is found by its number.
            details: if self.begun == 0 { details } else { String::new() },
            outcome: outcome.to_owned(),
            ends: self.begun,
        };
        match state.audit_append(note) {
            Ok(entry) => Some(entry.number),
            Err(error) => {
                self.bus.warn(format!("'{}' ({outcome}) is not in the audit log: {error}", self.act.verb));
                None
            }
        }
    }
}

/// The name of a user, by `/etc/passwd`; other name services are not asked, the number stands beside it.
fn login_name(uid: u32) -> String {
    let text = std::fs::read("/etc/passwd").unwrap_or_default();
    let named = String::from_utf8_lossy(&text).lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_default()
}
