//! `drctl audit`: the log of who changed what on this host. It needs no configuration.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::cli::args::{AuditArgs, AuditVerb};
use crate::cli::output::{Output, number, table};
use crate::config::environment::Environment;
use crate::config::find::state_folder;
use crate::error::{Error, Result};
use crate::model::{SystemClock, Timestamp};
use crate::open::STATE_FILE;
use crate::state::{AuditEntry, AuditHead, StateFile};

/// What was found.
#[derive(Serialize)]
struct Listed {
    /// The state file.
    state: PathBuf,
    /// How many entries there are, of the job that was asked for.
    total: u64,
    /// The newest of them, the oldest first.
    entries: Vec<AuditEntry>,
}

/// A chain that fits.
#[derive(Serialize)]
struct Verified {
    /// The state file.
    state: PathBuf,
    /// The newest entry; none where nothing was written yet.
    head: Option<AuditHead>,
    /// Whether a noted head was looked for, and found.
    noted_head_found: bool,
}

/// Lists or checks the log.
pub fn run(out: Output, args: &AuditArgs) -> Result<u8> {
    let path = state_folder(None, &Environment::system()).join(STATE_FILE);
    match &args.verb {
        None => {
            let state = open(&path)?;
            let job = args.job.as_deref();
            let (total, entries) = match &state {
                Some(state) => (state.audit_count(job)?, state.audit_entries(job, args.last)?),
                None => (0, Vec::new()),
            };
            out.result("audit", &Listed { state: path, total, entries }, list_text);
        }
        Some(AuditVerb::Verify { head }) => {
            let noted = head.as_deref().map(str::parse::<AuditHead>).transpose()?;
            let head = match (open(&path)?, noted) {
                (Some(state), noted) => state.audit_verify(noted)?,
                (None, None) => None,
                (None, Some(noted)) => {
                    let text = format!("entry {} of the audit log was noted as head, and there is no {}", noted.number, path.display());
                    return Err(Error::corrupt(text).hint("is this the user, and the STATE_DIRECTORY, that it was noted from?"));
                }
            };
            out.result("audit", &Verified { state: path, head, noted_head_found: noted.is_some() }, verified_text);
        }
    }
    Ok(0)
}

/// The state file, where there is one: looking makes none.
fn open(path: &std::path::Path) -> Result<Option<StateFile>> {
    if path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    StateFile::open(path, Arc::new(SystemClock)).map(Some)
}

fn list_text(listed: &Listed) -> String {
    if listed.entries.is_empty() {
        return format!("nothing in the audit log of {}\n", listed.state.display());
    }
    let rows: Vec<Vec<String>> = listed.entries.iter().map(row).collect();
    let mut out = table(&["NO", "AT", "USER", "VERB", "JOB", "ON", "OUTCOME", "DETAILS"], &rows, &[0]);
    if listed.total > listed.entries.len() as u64 {
        out.push_str(&format!("the newest {} of {}; --last N shows more\n", listed.entries.len(), entries(listed.total)));
    }
    out
}

fn row(entry: &AuditEntry) -> Vec<String> {
    let note = &entry.note;
    let at = entry.at.parse::<Timestamp>().map_or_else(|_| entry.at.clone(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
    let name = if note.user.is_empty() { note.uid.to_string() } else { note.user.clone() };
    let user = if note.sudo_user.is_empty() { name } else { format!("{name} (sudo: {})", note.sudo_user) };
    let outcome = match (note.ends, note.outcome.as_str()) {
        (0, "begun") => "begun".to_owned(),
        (0, outcome) => words(outcome),
        (begun, outcome) => format!("{} (of {begun})", words(outcome)),
    };
    let cells = [at, user, note.verb.clone(), note.job.clone(), note.subject.clone(), outcome, note.details.clone()];
    // What stands in a file may be anything; a terminal is not to obey it.
    std::iter::once(entry.number.to_string()).chain(cells.map(|cell| printable(&cell))).collect()
}

fn entries(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{} entries", number(count)) }
}

fn words(outcome: &str) -> String {
    if outcome.parse::<u8>().is_ok() { format!("exit {outcome}") } else { outcome.to_owned() }
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{200e}'..='\u{202e}' | '\u{2066}'..='\u{2069}') { '\u{fffd}' } else { c })
        .collect()
}

fn verified_text(verified: &Verified) -> String {
    let Some(head) = &verified.head else { return format!("ok  nothing in the audit log of {}\n", verified.state.display()) };
    let noted = if verified.noted_head_found { "; the noted head is in it" } else { "" };
    format!(
        "ok  {}, each fits to the one before{noted}\nhead: {head}\nnote it elsewhere: drctl audit verify --head {head} finds a chain that was cut off or written anew\n",
        entries(head.number),
    )
}
