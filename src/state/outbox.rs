//! Alerts that wait for their way out, in order for each notifier, bounded, over restarts (FAULTS 63).
//!
//! What an alert says is the notifiers' business: here it is text.

use std::os::unix::fs::OpenOptionsExt;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior};
use rustix::io::Errno;

use crate::error::{Context, Result};
use crate::file_lock::HeldFile;
use crate::model::Severity;
use crate::state::{StateFile, bad_value, with_suffix};

/// Alerts that may wait for one notifier. Beyond it the oldest of the mildest goes.
pub const WAITING: u32 = 1000;
/// Refused alerts that are kept of one notifier, to be shown; the oldest go.
const REFUSED: u32 = 100;

/// An alert to be queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAlert<'a> {
    /// For whom.
    pub notifier: &'a str,
    /// How bad it is: the mildest go first when there are too many.
    pub severity: Severity,
    /// What it says.
    pub message: &'a str,
}

/// An alert that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its number; later ones have greater numbers.
    pub id: i64,
    /// For whom.
    pub notifier: String,
    /// The incident it belongs to.
    pub incident: Option<i64>,
    /// What it says.
    pub message: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is to be tried next; `None`: at once.
    pub next_try_at: Option<Timestamp>,
}

/// How it stands with one notifier's alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Whose.
    pub notifier: String,
    /// How many wait.
    pub waiting: u64,
    /// Since when the first of them waits.
    pub waiting_since: Option<Timestamp>,
    /// When the first of them is to be tried again.
    pub next_try_at: Option<Timestamp>,
    /// How many were refused for good, the newest so many.
    pub refused: u64,
    /// How many were dropped that nobody was told of yet.
    pub dropped: u64,
    /// Why the first that waits could not be delivered, else why the newest was refused.
    pub problem: Option<String>,
}

impl StateFile {
    /// Queues an alert that belongs to no incident.
    pub fn queue(&self, alert: &NewAlert<'_>) -> Result<()> {
        let failed = |e| self.trouble("queue an alert in", e);
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        insert(&transaction, alert, None, &self.now()).map_err(failed)?;
        transaction.commit().map_err(failed)
    }

    /// The first alert that waits for a notifier.
    pub fn queue_head(&self, notifier: &str, after: i64) -> Result<Option<Queued>> {
        let sql = "SELECT id, notifier, incident, message, attempts, next_try_at FROM outbox
                   WHERE notifier = ?1 AND failed_at IS NULL AND id > ?2 ORDER BY id LIMIT 1";
        let row = self.connection().query_row(sql, (notifier, after), raw_row).optional();
        row.map_err(|e| self.trouble("read an alert from", e))?.map(|raw| self.queued(raw)).transpose()
    }

    /// Strikes off an alert that was delivered. `dropped` of those that had been dropped before were told with it; `thread` is where what
    /// follows of its incident goes.
    pub fn queue_delivered(&self, alert: &Queued, dropped: u64, thread: Option<&str>) -> Result<()> {
        let failed = |e| self.trouble("strike an alert off in", e);
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction.execute("DELETE FROM outbox WHERE id = ?1", [alert.id]).map_err(failed)?;
        if dropped > 0 {
            let sql = "UPDATE outbox_dropped SET dropped = max(0, dropped - ?2) WHERE notifier = ?1";
            transaction.execute(sql, (&alert.notifier, i64::try_from(dropped).unwrap_or(i64::MAX))).map_err(failed)?;
        }
        if let (Some(incident), Some(thread)) = (alert.incident, thread) {
            let sql = "UPDATE incident_told SET thread = coalesce(thread, ?3) WHERE incident = ?1 AND notifier = ?2";
            transaction.execute(sql, (incident, &alert.notifier, thread)).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }

    /// Notes that an alert could not be delivered just now.
    pub fn queue_retry(&self, id: i64, next_try_at: Timestamp, problem: &str) -> Result<()> {
        let sql = "UPDATE outbox SET attempts = attempts + 1, next_try_at = ?2, problem = ?3 WHERE id = ?1";
        let done = self.connection().execute(sql, (id, next_try_at.to_string(), problem));
        done.map(|_| ()).map_err(|e| self.trouble("note a failed delivery in", e))
    }

    /// Notes that an alert was refused for good: it stays to be seen, and is not tried again.
    pub fn queue_refused(&self, alert: &Queued, problem: &str) -> Result<()> {
        let failed = |e| self.trouble("note a refused alert in", e);
        let connection = self.connection();
        let sql = "UPDATE outbox SET attempts = attempts + 1, failed_at = ?2, problem = ?3 WHERE id = ?1";
        connection.execute(sql, (alert.id, self.now(), problem)).map_err(failed)?;
        let sql = "DELETE FROM outbox WHERE notifier = ?1 AND failed_at IS NOT NULL AND id NOT IN
                   (SELECT id FROM outbox WHERE notifier = ?1 AND failed_at IS NOT NULL ORDER BY id DESC LIMIT ?2)";
        connection.execute(sql, (&alert.notifier, REFUSED)).map(|_| ()).map_err(failed)
    }

    /// Forgets the alerts that a notifier refused.
    pub fn queue_forget_refused(&self, notifier: &str) -> Result<()> {
        let done = self.connection().execute("DELETE FROM outbox WHERE notifier = ?1 AND failed_at IS NOT NULL", [notifier]);
        done.map(|_| ()).map_err(|e| self.trouble("forget refused alerts in", e))
    }

    /// How many alerts of a notifier were dropped that nobody was told of yet.
    pub fn queue_dropped(&self, notifier: &str) -> Result<u64> {
        let row = self.connection().query_row("SELECT dropped FROM outbox_dropped WHERE notifier = ?1", [notifier], |row| row.get(0));
        let count: Option<i64> = row.optional().map_err(|e| self.trouble("read alerts from", e))?;
        Ok(count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
    }

    /// How it stands with every notifier that has alerts here, by name.
    pub fn queue_states(&self) -> Result<Vec<QueueState>> {
        let failed = |e| self.trouble("read alerts from", e);
        let connection = self.connection();
        let sql = "SELECT notifier, sum(failed_at IS NULL), min(iif(failed_at IS NULL, queued_at, NULL)), sum(failed_at IS NOT NULL),
                       (SELECT o.next_try_at FROM outbox o WHERE o.notifier = outbox.notifier AND o.failed_at IS NULL ORDER BY o.id LIMIT 1),
                       (SELECT o.problem FROM outbox o WHERE o.notifier = outbox.notifier AND o.problem IS NOT NULL
                        ORDER BY o.failed_at IS NOT NULL, iif(o.failed_at IS NULL, o.id, -o.id) LIMIT 1),
                       coalesce((SELECT d.dropped FROM outbox_dropped d WHERE d.notifier = outbox.notifier), 0)
                   FROM outbox GROUP BY notifier ORDER BY notifier";
        let mut query = connection.prepare(sql).map_err(failed)?;
        type Raw = (String, i64, Option<String>, i64, Option<String>, Option<String>, i64);
        let rows = query.query_map([], |row| Raw::try_from(row)).map_err(failed)?;
        let time = |text: Option<String>| text.and_then(|t| t.parse().ok());
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        rows.map(|row| {
            let (notifier, waiting, since, refused, next, problem, dropped) = row.map_err(failed)?;
            Ok(QueueState {
                notifier,
                waiting: count(waiting),
                waiting_since: time(since),
                next_try_at: time(next),
                refused: count(refused),
                dropped: count(dropped),
                problem,
            })
        })
        .collect()
    }

    /// The right to deliver what waits: one process at a time, let go when the file is dropped or its process dies. `None`: another has it.
    pub fn queue_right(&self) -> Result<Option<Option<HeldFile>>> {
        if self.path.as_os_str() == ":memory:" {
            return Ok(Some(None));
        }
        let path = with_suffix(&self.path, ".outbox");
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = HeldFile::of(file.context(|| format!("open {}", path.display()))?);
        match file.try_exclusive() {
            Err(Errno::AGAIN) => Ok(None),
            // A filesystem without locks: twice is better than never.
            _ => Ok(Some(Some(file))),
        }
    }

    fn queued(&self, raw: RawRow) -> Result<Queued> {
        let (id, notifier, incident, message, attempts, next) = raw;
        let bad = |what| bad_value(&self.path, what);
        let next_try_at = next.map(|text| text.parse().map_err(|_| bad("the time of an alert"))).transpose()?;
        Ok(Queued { id, notifier, incident, message, attempts: u32::try_from(attempts).unwrap_or(u32::MAX), next_try_at })
    }
}

type RawRow = (i64, String, Option<i64>, String, i64, Option<String>);

fn raw_row(row: &Row<'_>) -> rusqlite::Result<RawRow> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
}

/// Puts an alert at the end of its queue, and makes room: the oldest of the mildest goes, never the one that came.
pub(super) fn insert(connection: &Connection, alert: &NewAlert<'_>, incident: Option<i64>, now: &str) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO outbox (notifier, severity, incident, message, queued_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        (alert.notifier, alert.severity as i64, incident, alert.message, now),
    )?;
    let own = connection.last_insert_rowid();
    let sql = "SELECT count(*) FROM outbox WHERE notifier = ?1 AND failed_at IS NULL";
    let waiting: i64 = connection.query_row(sql, [alert.notifier], |row| row.get(0))?;
    let over = waiting - i64::from(WAITING);
    if over <= 0 {
        return Ok(());
    }
    let sql = "DELETE FROM outbox WHERE id IN
               (SELECT id FROM outbox WHERE notifier = ?1 AND failed_at IS NULL AND id <> ?2 ORDER BY severity, id LIMIT ?3)";
    let gone = connection.execute(sql, (alert.notifier, own, over))?;
    let sql = "INSERT INTO outbox_dropped (notifier, dropped) VALUES (?1, ?2)
               ON CONFLICT (notifier) DO UPDATE SET dropped = dropped + excluded.dropped";
    connection.execute(sql, (alert.notifier, i64::try_from(gone).unwrap_or(i64::MAX))).map(|_| ())
}
