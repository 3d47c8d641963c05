//! What pg_restore says it could not do, by entry of the archive's table of contents.
//!
//! ```text
//! pg_restore: while INITIALIZING:                                     (or PROCESSING TOC, FINALIZING)
//! pg_restore: from TOC entry 217; 1259 16494 TABLE g postgres         (with --verbose; once for several errors of one entry)
//! pg_restore: error: could not execute query: ERROR:  type "earth" does not exist
//! DETAIL:  …
//! Command was: CREATE TABLE public.g (
//! pg_restore: warning: errors ignored on restore: 2                   (the last line, and exit status 1)
//! ```
//! These are pg_restore's own words, which it says in English under LC_ALL=C; facts of the shape: PostgreSQL's
//! `src/bin/pg_dump/pg_backup_archiver.c` (`warn_or_exit_horribly`), 13 to 18. A name or a message with line breaks can imitate them. That does
//! no harm: an entry that did not fail is found to be there when it is tried again, and whatever is not there is missed by the counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

/// Bytes kept of a line; PostgreSQL's messages quote names of at most 63 bytes each.
const LINE_BYTES: usize = 2000;

/// Settings of the session that newer clients set and older servers do not know, and that change nothing about what is loaded: time limits, all
/// switched off. `transaction_timeout` came with PostgreSQL 17, `idle_session_timeout` with 14.
const HARMLESS: [&str; 2] = ["transaction_timeout", "idle_session_timeout"];

/// What went wrong with one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Complaint {
    /// Its own statement failed, and not only one that comes before it (a setting) or after it (its owner).
    pub(super) not_made: bool,
    /// The first reason, without rows and statements.
    pub(super) reason: String,
}

/// What a run of pg_restore complained of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Complaints {
    pub(super) entries: BTreeMap<i64, Complaint>,
    /// What has no entry: settings that the server refused …
    pub(super) loose: Vec<String>,
    /// How many it says it passed over; absent when it did not get to its end.
    pub(super) ignored: Option<u64>,
    /// The server or its disk is in no state to go on.
    pub(super) hopeless: Option<String>,
}

/// Reads pg_restore's standard error.
#[derive(Default)]
struct Reader {
    found: Complaints,
    line: Vec<u8>,
    entry: Option<i64>,
    open: Option<Open>,
}

/// An error whose command is still to come.
struct Open {
    entry: Option<i64>,
    reason: String,
    after_reason: bool,
}

/// Words after which every later statement fails too, and more of them make things worse for whoever else uses the server.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// The same, said by the client. What the server says as an error may be about another one, asked by a foreign table.
const GONE: [&str; 4] =
    ["server closed the connection", "terminating connection due to", "no connection to the server", "connection not open"];

impl Reader {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = LINE_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.line(String::from_utf8_lossy(&line).trim_end_matches('\r'));
            }
        }
    }

    fn line(&mut self, line: &str) {
        if let Some(words) = line.strip_prefix("pg_restore: ") {
            self.own(words);
        } else if let Some(command) = line.strip_prefix("Command was: ") {
            self.close(Some(command));
        } else if let Some(open) = &mut self.open {
            // Details may show rows, in whatever language.
            if open.after_reason && line.starts_with("HINT:") {
                let words = line.split_once(':').map_or(line, |(_, rest)| rest).trim();
                open.reason.push_str(&format!(" ({words})"));
            } else {
                open.after_reason = false;
            }
        }
    }

    fn own(&mut self, words: &str) {
        if let Some(error) = words.strip_prefix("error: ") {
            self.close(None);
            let says = |words: &[&str]| words.iter().any(|hopeless| error.contains(hopeless));
            if self.found.hopeless.is_none() && (says(&FULL) || (!error.contains("ERROR:") && says(&GONE))) {
                self.found.hopeless = Some(error.to_owned());
            }
            let reason = error.strip_prefix("could not execute query: ").unwrap_or(error);
            let reason = reason.strip_prefix("ERROR:").unwrap_or(reason).trim();
            self.open = Some(Open { entry: self.entry, reason: reason.to_owned(), after_reason: true });
            return;
        }
        self.close(None);
        if let Some(entry) = words.strip_prefix("from TOC entry ") {
            self.entry = entry.split(';').next().and_then(|id| id.parse().ok());
        } else if words.starts_with("while ") {
            self.entry = None;
        } else if let Some(count) = words.strip_prefix("warning: errors ignored on restore: ") {
            self.found.ignored = count.trim().parse().ok();
        }
    }

    fn close(&mut self, command: Option<&str>) {
        let Some(open) = self.open.take() else { return };
        let word = |n: usize| command.and_then(|c| c.split_whitespace().nth(n)).unwrap_or_default();
        let is_setting = word(0) == "SET";
        let Some(entry) = open.entry else {
            if !(is_setting && HARMLESS.contains(&word(1))) {
                self.found.loose.push(match command {
                    Some(command) => format!("{command}: {}", open.reason),
                    None => open.reason,
                });
            }
            return;
        };
        let is_owner = word(0) == "ALTER" && command.is_some_and(|c| c.contains(" OWNER TO "));
        let complaint = self.found.entries.entry(entry).or_insert_with(|| Complaint { not_made: false, reason: open.reason });
        complaint.not_made |= !is_setting && !is_owner;
    }
}

/// Shared between the thread that reads pg_restore's standard error and whoever waits for its end.
#[derive(Clone)]
pub(super) struct Listener {
    reader: Arc<Mutex<Reader>>,
    /// Ends pg_restore when going on is hopeless.
    stop: CancellationToken,
}

impl Listener {
    pub(super) fn new(stop: CancellationToken) -> Listener {
        Listener { reader: Arc::default(), stop }
    }

    pub(super) fn hear(&self, bytes: &[u8]) {
        let mut reader = self.reader.lock().unwrap_or_else(|p| p.into_inner());
        reader.push(bytes);
        if reader.found.hopeless.is_some() {
            self.stop.cancel();
        }
    }

    /// What was said, once pg_restore has ended.
    pub(super) fn found(&self) -> Complaints {
        let mut reader = self.reader.lock().unwrap_or_else(|p| p.into_inner());
        reader.push(b"\n");
        reader.close(None);
        reader.found.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Complaints {
        let listener = Listener::new(CancellationToken::new());
        for piece in text.as_bytes().chunks(7) {
            listener.hear(piece);
        }
        listener.found()
    }

    const TEXT: &str = "pg_restore: connecting to database for restore\n\
        pg_restore: while INITIALIZING:\n\
        pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter \"transaction_timeout\"\n\
        Command was: SET transaction_timeout = 0;\n\
        pg_restore: creating TABLE \"public.g\"\n\
        pg_restore: while PROCESSING TOC:\n\
        pg_restore: from TOC entry 217; 1259 16494 TABLE g postgres\n\
        pg_restore: error: could not execute query: ERROR:  type \"earth\" does not exist\n\
        LINE 1: secret\n\
        DETAIL:  secret: not after the reason.\n\
        Command was: CREATE TABLE public.g (\n    secret\n);\n\n\n\
        pg_restore: error: could not execute query: ERROR:  relation \"public.g\" does not exist\n\
        Command was: ALTER TABLE public.g OWNER TO postgres;\n\n\
        pg_restore: creating TABLE \"public.h\"\n\
        pg_restore: from TOC entry 218; 1259 16495 TABLE h postgres\n\
        pg_restore: error: could not execute query: ERROR:  role \"x\" does not exist\n\
        HINT:  Make it.\n\
        Command was: ALTER TABLE public.h OWNER TO x;\n\n\
        pg_restore: from TOC entry 3445; 0 16494 TABLE DATA g postgres\n\
        pg_restore: error: COPY failed for table \"g\": ERROR:  new row violates check\n\
        DETAIL:  Failing row contains (secret).\n\
        CONTEXT:  COPY g, line 1: \"secret\"\n\
        pg_restore: warning: errors ignored on restore: 5\n";

    #[test]
    fn f90_what_pg_restore_says_is_known_by_entry() {
        let found = said(TEXT);
        let want = [
            (217, true, "type \"earth\" does not exist"),
            (218, false, "role \"x\" does not exist (Make it.)"),
            (3445, true, "COPY failed for table \"g\": ERROR:  new row violates check"),
        ];
        let want = want.map(|(id, not_made, reason)| (id, Complaint { not_made, reason: reason.into() }));
        assert_eq!(found.entries, BTreeMap::from(want));
        assert_eq!((found.ignored, found.loose.as_slice(), found.hopeless), (Some(5), [].as_slice(), None));
    }

    #[test]
    fn f89_a_setting_that_matters_is_no_harmless_one() {
        let text = TEXT.replace("transaction_timeout", "search_path");
        let found = said(&text);
        assert_eq!(found.loose.len(), 1);
        assert!(found.loose[0].starts_with("SET search_path = 0;: unrecognized"), "{:?}", found.loose);
    }

    #[test]
    fn what_ends_before_its_end_has_no_count() {
        assert_eq!(said("pg_restore: error: unexpected end of file\n").ignored, None);
    }

    #[test]
    fn f90_another_server_that_went_away_stops_nothing() {
        let text = "pg_restore: from TOC entry 217; 0 16494 MATERIALIZED VIEW DATA g postgres\n\
            pg_restore: error: could not execute query: ERROR:  server closed the connection unexpectedly\n\
            Command was: REFRESH MATERIALIZED VIEW public.g;\n";
        let found = said(text);
        assert_eq!((found.entries.len(), found.hopeless), (1, None));
        let text = text.replace("ERROR:  ", "");
        assert!(said(&text).hopeless.is_some());
    }

    #[test]
    fn f90_a_full_disk_stops_pg_restore() {
        let stop = CancellationToken::new();
        let listener = Listener::new(stop.clone());
        listener.hear(b"pg_restore: error: COPY failed for table \"t\": ERROR:  could not extend file \"base/5/1\": ");
        assert!(!stop.is_cancelled());
        listener.hear(b"No space left on device\n");
        assert!(stop.is_cancelled() && listener.found().hopeless.is_some());
    }
}
