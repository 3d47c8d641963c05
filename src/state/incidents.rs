//! Incidents: what is wrong since when, and what each notifier was told of it.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, TransactionBehavior};

use crate::error::Result;
use crate::model::Severity;
use crate::state::outbox::{NewAlert, insert};
use crate::state::{StateFile, bad_value};

/// Incidents that are over and still remembered.
const KEPT: i64 = 1000;

/// Something that is or was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Its number; later ones have greater numbers.
    pub id: i64,
    /// What it is about. Of those that are open no two have the same.
    pub key: String,
    /// The worst it was.
    pub severity: Severity,
    /// The job, where it is about one.
    pub job: Option<String>,
    /// When it began.
    pub opened_at: Timestamp,
    /// When it was last seen.
    pub raised_at: Timestamp,
    /// How often it was seen.
    pub times: u64,
    /// What was last said of it.
    pub message: String,
    /// When it ended.
    pub recovered_at: Option<Timestamp>,
    /// What was said of its end.
    pub closing: Option<String>,
}

/// What one notifier was told of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who.
    pub notifier: String,
    /// How bad it was said to be.
    pub severity: Severity,
    /// When something was last queued.
    pub told_at: Timestamp,
    /// How often the incident had been seen then.
    pub times: u64,
    /// Where what follows goes.
    pub thread: Option<String>,
    /// Whether its end was told.
    pub closed: bool,
}

/// Something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised<'a> {
    /// What it is about.
    pub key: &'a str,
    /// How bad it is.
    pub severity: Severity,
    /// The job, where it is about one.
    pub job: Option<&'a str>,
    /// What is to be said of it.
    pub message: &'a str,
}

const COLUMNS: &str = "id, key, severity, job, opened_at, raised_at, times, message, recovered_at, closing";

impl StateFile {
    /// Opens an incident, or notes that the one that is open was seen again. An incident never becomes milder.
    pub fn incident_raise(&self, raised: &Raised<'_>) -> Result<Incident> {
        let failed = |e| self.trouble("note an incident in", e);
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let now = self.now();
        let sql = "UPDATE incidents SET severity = max(severity, ?2), raised_at = ?3, times = times + 1, message = ?4
                   WHERE key = ?1 AND recovered_at IS NULL";
        let seen = transaction.execute(sql, (raised.key, raised.severity as i64, &now, raised.message)).map_err(failed)?;
        if seen == 0 {
            let sql = "INSERT INTO incidents (key, severity, job, opened_at, raised_at, times, message) VALUES (?1, ?2, ?3, ?4, ?4, 1, ?5)";
            transaction.execute(sql, (raised.key, raised.severity as i64, raised.job, &now, raised.message)).map_err(failed)?;
            let old = "SELECT id FROM incidents WHERE recovered_at IS NOT NULL AND id <= ?1";
            let last = transaction.last_insert_rowid() - KEPT;
            transaction.execute(&format!("DELETE FROM incident_told WHERE incident IN ({old})"), [last]).map_err(failed)?;
            transaction.execute("DELETE FROM incidents WHERE recovered_at IS NOT NULL AND id <= ?1", [last]).map_err(failed)?;
        }
        let sql = format!("SELECT {COLUMNS} FROM incidents WHERE key = ?1 AND recovered_at IS NULL");
        let raw = transaction.query_row(&sql, [raised.key], raw_row).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        drop(connection);
        self.incident(raw)
    }

    /// Ends the incident that is open under this key; `None` when none is.
    pub fn incident_clear(&self, key: &str, closing: &str) -> Result<Option<Incident>> {
        let failed = |e| self.trouble("note the end of an incident in", e);
        let sql =
            format!("UPDATE incidents SET recovered_at = ?2, closing = ?3 WHERE key = ?1 AND recovered_at IS NULL RETURNING {COLUMNS}");
        let raw = self.connection().query_row(&sql, (key, self.now(), closing), raw_row).optional().map_err(failed)?;
        raw.map(|raw| self.incident(raw)).transpose()
    }

    /// The incident that is open under this key.
    pub fn incident_open(&self, key: &str) -> Result<Option<Incident>> {
        let sql = format!("SELECT {COLUMNS} FROM incidents WHERE key = ?1 AND recovered_at IS NULL");
        let raw = self.connection().query_row(&sql, [key], raw_row).optional().map_err(|e| self.trouble("read incidents from", e))?;
        raw.map(|raw| self.incident(raw)).transpose()
    }

    /// Incidents that are open, the oldest first.
    pub fn incidents_open(&self) -> Result<Vec<Incident>> {
        self.incidents("recovered_at IS NULL AND ?1 = ''", "")
    }

    /// Incidents of which a notifier may have to be told: open ones, and those that ended after `since` and whose end was not told to
    /// somebody. Who is not there any more after that time will not be told.
    pub fn incidents_to_tell(&self, since: Timestamp) -> Result<Vec<Incident>> {
        let since = since.to_string();
        self.incidents(
            "recovered_at IS NULL OR (recovered_at > ?1 AND id IN (SELECT incident FROM incident_told WHERE closed = 0))",
            &since,
        )
    }

    /// What notifiers were told of an incident.
    pub fn incident_told(&self, incident: i64) -> Result<Vec<Told>> {
        let failed = |e| self.trouble("read incidents from", e);
        let connection = self.connection();
        let sql = "SELECT notifier, severity, told_at, times, thread, closed FROM incident_told WHERE incident = ?1";
        let mut query = connection.prepare(sql).map_err(failed)?;
        type Raw = (String, i64, String, i64, Option<String>, bool);
        let rows = query.query_map([incident], |row| Raw::try_from(row)).map_err(failed)?;
        rows.map(|row| {
            let (notifier, severity, told_at, times, thread, closed) = row.map_err(failed)?;
            Ok(Told {
                notifier,
                severity: severity_of(severity),
                told_at: told_at.parse().map_err(|_| bad_value(&self.path, "the time of an alert"))?,
                times: u64::try_from(times).unwrap_or(0),
                thread,
                closed,
            })
        })
        .collect()
    }

    /// Queues an alert of an incident and notes that its notifier was told, in one step.
    pub fn incident_tell(&self, incident: &Incident, alert: &NewAlert<'_>, closes: bool) -> Result<()> {
        let failed = |e| self.trouble("queue an alert in", e);
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let now = self.now();
        insert(&transaction, alert, Some(incident.id), &now).map_err(failed)?;
        let times = i64::try_from(incident.times).unwrap_or(i64::MAX);
        let sql = "INSERT INTO incident_told (incident, notifier, severity, told_at, times, closed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                   ON CONFLICT (incident, notifier) DO UPDATE SET severity = excluded.severity, told_at = excluded.told_at,
                   times = excluded.times, closed = excluded.closed";
        transaction.execute(sql, (incident.id, alert.notifier, incident.severity as i64, &now, times, closes)).map_err(failed)?;
        transaction.commit().map_err(failed)
    }

    /// Where what follows of an incident goes, for one notifier.
    pub fn incident_thread(&self, incident: i64, notifier: &str) -> Result<Option<String>> {
        let sql = "SELECT thread FROM incident_told WHERE incident = ?1 AND notifier = ?2";
        let found = self.connection().query_row(sql, (incident, notifier), |row| row.get(0)).optional();
        Ok(found.map_err(|e| self.trouble("read incidents from", e))?.flatten())
    }

    fn incidents(&self, which: &str, since: &str) -> Result<Vec<Incident>> {
        let failed = |e| self.trouble("read incidents from", e);
        let connection = self.connection();
        let mut query = connection.prepare(&format!("SELECT {COLUMNS} FROM incidents WHERE {which} ORDER BY id")).map_err(failed)?;
        let rows = query.query_map([since], raw_row).map_err(failed)?;
        rows.map(|raw| self.incident(raw.map_err(failed)?)).collect()
    }

    fn incident(&self, raw: RawIncident) -> Result<Incident> {
        let time = |text: &str| text.parse::<Timestamp>().map_err(|_| bad_value(&self.path, "the time of an incident"));
        Ok(Incident {
            id: raw.id,
            key: raw.key,
            severity: severity_of(raw.severity),
            job: raw.job,
            opened_at: time(&raw.opened_at)?,
            raised_at: time(&raw.raised_at)?,
            times: u64::try_from(raw.times).unwrap_or(0),
            message: raw.message,
            recovered_at: raw.recovered_at.as_deref().map(time).transpose()?,
            closing: raw.closing,
        })
    }
}

/// An unknown number is taken for the worst: it must not be passed over.
fn severity_of(number: i64) -> Severity {
    Severity::ALL.iter().map(|(severity, _)| *severity).find(|s| *s as i64 == number).unwrap_or(Severity::Critical)
}

struct RawIncident {
    id: i64,
    key: String,
    severity: i64,
    job: Option<String>,
    opened_at: String,
    raised_at: String,
    times: i64,
    message: String,
    recovered_at: Option<String>,
    closing: Option<String>,
}

fn raw_row(row: &Row<'_>) -> rusqlite::Result<RawIncident> {
    Ok(RawIncident {
        id: row.get(0)?,
        key: row.get(1)?,
        severity: row.get(2)?,
        job: row.get(3)?,
        opened_at: row.get(4)?,
        raised_at: row.get(5)?,
        times: row.get(6)?,
        message: row.get(7)?,
        recovered_at: row.get(8)?,
        closing: row.get(9)?,
    })
}
