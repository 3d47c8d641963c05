//! Tables of the state file and the steps from version to version.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};

use crate::error::{Error, Kind, Result};
use crate::state::{broken, trouble};

/// `drct` in ASCII; SQLite keeps it in the file's header so that a file of another program is not taken for ours.
const APPLICATION: i32 = 0x6472_6374;

/// Step `n` makes version `n + 1` of version `n`. Steps are only ever added.
const STEPS: &[(&str, &str)] = &[FIRST_TABLES, ("audit", crate::state::audit::TABLES), SCHEDULE, ALERTS];

const FIRST_TABLES: (&str, &str) = (
    "first tables",
    "CREATE TABLE migrations (
         version    INTEGER PRIMARY KEY,
         name       TEXT NOT NULL,
         applied_at TEXT NOT NULL
     ) STRICT;
     CREATE TABLE runs (
         id          INTEGER PRIMARY KEY AUTOINCREMENT,
         verb        TEXT NOT NULL,
         job         TEXT,
         backup_set  TEXT,
         started_at  TEXT NOT NULL,
         finished_at TEXT,
         exit_code   INTEGER,
         interrupted INTEGER NOT NULL DEFAULT 0,
         error       TEXT,
         process     TEXT NOT NULL,
         lock        TEXT NOT NULL
     ) STRICT;
     CREATE INDEX runs_open ON runs (id) WHERE finished_at IS NULL;
     CREATE INDEX runs_by_job ON runs (job, verb, id);
     CREATE TABLE restores (
         restore     TEXT PRIMARY KEY,
         started_at  TEXT NOT NULL,
         finished_at TEXT
     ) STRICT;
     CREATE TABLE journal (
         restore  TEXT NOT NULL REFERENCES restores (restore),
         source   TEXT NOT NULL,
         key      TEXT NOT NULL,
         value    TEXT NOT NULL,
         noted_at TEXT NOT NULL,
         PRIMARY KEY (restore, source, key)
     ) STRICT;
     CREATE TABLE high_water (
         repository TEXT NOT NULL,
         job        TEXT NOT NULL,
         number     INTEGER NOT NULL,
         sha256     TEXT NOT NULL,
         PRIMARY KEY (repository, job)
     ) STRICT;
     CREATE TABLE settings (
         key   TEXT PRIMARY KEY,
         value TEXT NOT NULL
     ) STRICT;",
);

const SCHEDULE: (&str, &str) = (
    "schedule",
    "CREATE TABLE schedule (
         repository   TEXT NOT NULL,
         job          TEXT NOT NULL,
         source_group TEXT NOT NULL,
         what         TEXT NOT NULL,
         schedule     TEXT NOT NULL,
         handled      TEXT NOT NULL,
         PRIMARY KEY (repository, job, source_group, what)
     ) STRICT;",
);

const ALERTS: (&str, &str) = (
    "alerts",
    "CREATE TABLE incidents (
         id           INTEGER PRIMARY KEY AUTOINCREMENT,
         key          TEXT NOT NULL,
         severity     INTEGER NOT NULL,
         job          TEXT,
         opened_at    TEXT NOT NULL,
         raised_at    TEXT NOT NULL,
         times        INTEGER NOT NULL,
         message      TEXT NOT NULL,
         recovered_at TEXT,
         closing      TEXT
     ) STRICT;
     CREATE UNIQUE INDEX incidents_open ON incidents (key) WHERE recovered_at IS NULL;
     CREATE TABLE incident_told (
         incident INTEGER NOT NULL REFERENCES incidents (id),
         notifier TEXT NOT NULL,
         severity INTEGER NOT NULL,
         told_at  TEXT NOT NULL,
         times    INTEGER NOT NULL,
         thread   TEXT,
         closed   INTEGER NOT NULL DEFAULT 0,
         PRIMARY KEY (incident, notifier)
     ) STRICT;
     CREATE INDEX incident_told_open ON incident_told (incident) WHERE closed = 0;
     CREATE TABLE outbox (
         id          INTEGER PRIMARY KEY AUTOINCREMENT,
         notifier    TEXT NOT NULL,
         severity    INTEGER NOT NULL,
         incident    INTEGER,
         message     TEXT NOT NULL,
         queued_at   TEXT NOT NULL,
         attempts    INTEGER NOT NULL DEFAULT 0,
         next_try_at TEXT,
         failed_at   TEXT,
         problem     TEXT
     ) STRICT;
     CREATE INDEX outbox_by_notifier ON outbox (notifier, id);
     CREATE TABLE outbox_dropped (
         notifier TEXT PRIMARY KEY,
         dropped  INTEGER NOT NULL
     ) STRICT;",
);

/// The version this program works with.
pub(super) fn latest() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// Refuses an SQLite file of another program, and one of a newer drctl. Reads only.
pub(super) fn check_owner(connection: &Connection, path: &Path) -> Result<()> {
    let failed = |e| trouble("read", path, e);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    // Tables first: they and the owner appear at once, so whoever sees tables of ours sees the owner too, even while another process makes them.
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    let (owner, version) = (pragma("application_id")?, pragma("user_version")?);
    if version > latest() {
        let text = format!("state file {} has version {version}, this program knows versions up to {}", path.display(), latest());
        return Err(Error::new(Kind::Unsupported, text).hint("use the newer drctl that wrote it"));
    }
    if tables == 0 || owner == i64::from(APPLICATION) { Ok(()) } else { Err(broken(path, "it is the database of another program")) }
}

/// Brings the tables to the newest version, in one transaction that only one process can be in.
pub(super) fn migrate(connection: &mut Connection, path: &Path, now: Timestamp) -> Result<()> {
    let failed = |e| trouble("bring up to date", path, e);
    let version = |c: &Connection| c.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    if version(connection).map_err(failed)? == latest() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Asked again: another process may have been faster.
    let from = version(&transaction).map_err(failed)?;
    for (n, (name, step)) in (0i64..).zip(STEPS).filter(|(n, _)| *n >= from) {
        transaction.execute_batch(step).map_err(failed)?;
        transaction
            .execute("INSERT INTO migrations (version, name, applied_at) VALUES (?1, ?2, ?3)", (n + 1, name, now.to_string()))
            .map_err(failed)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
    transaction.pragma_update(None, "user_version", latest()).map_err(failed)?;
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::SystemClock;
    use crate::state::StateFile;

    #[test]
    fn a_file_of_every_earlier_version_is_brought_up_to_date_with_what_is_in_it() {
        for version in 1..STEPS.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.sqlite");
            let old = Connection::open(&path).unwrap();
            for (n, (name, step)) in STEPS[..version].iter().enumerate() {
                old.execute_batch(step).unwrap();
                old.execute("INSERT INTO migrations VALUES (?1, ?2, '2025-01-01T00:00:00Z')", (n as i64 + 1, name)).unwrap();
            }
            old.pragma_update(None, "application_id", APPLICATION).unwrap();
            old.pragma_update(None, "user_version", version as i64).unwrap();
            old.execute("INSERT INTO settings VALUES ('k', 'v')", []).unwrap();
            drop(old);
            let state = StateFile::open(&path, Arc::new(SystemClock)).unwrap();
            assert_eq!(state.setting("k").unwrap().as_deref(), Some("v"));
            assert_eq!(state.queue_states().unwrap(), []);
            assert_eq!(state.incidents_open().unwrap(), []);
        }
    }
}
