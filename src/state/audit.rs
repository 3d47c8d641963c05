//! The audit log: who did what on this host, each entry bound to the one before by its hash.
//!
//! Entries are only ever added, one transaction each, so that several processes keep one chain; triggers of the table refuse everything else. Whoever
//! may write the file can still do so without SQLite: [`StateFile::audit_verify`] finds the first entry that does not fit. A whole chain written anew, or
//! an end cut off, is found only by a head that was noted elsewhere.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior};
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::model::Sha256;
use crate::state::StateFile;

/// The step of the schema. A number that is taken is refused too: `INSERT OR REPLACE` deletes without asking the trigger for deletes.
pub(super) const TABLES: &str = "
    CREATE TABLE audit (
        number    INTEGER PRIMARY KEY,
        at        TEXT NOT NULL,
        user      TEXT NOT NULL,
        uid       INTEGER NOT NULL,
        sudo_user TEXT NOT NULL,
        host      TEXT NOT NULL,
        pid       INTEGER NOT NULL,
        version   TEXT NOT NULL,
        verb      TEXT NOT NULL,
        job       TEXT NOT NULL,
        subject   TEXT NOT NULL,
        details   TEXT NOT NULL,
        outcome   TEXT NOT NULL,
        ends      INTEGER NOT NULL,
        before    TEXT NOT NULL,
        own       TEXT NOT NULL
    ) STRICT;
    CREATE INDEX audit_by_job ON audit (job, number);
    CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
    CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
    CREATE TRIGGER audit_in_order BEFORE INSERT ON audit WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM audit)
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;";

const COLUMNS: &str = "number, at, user, uid, sudo_user, host, pid, version, verb, job, subject, details, outcome, ends, before, own";

/// What [`AuditEntry::before`] of the first entry is.
const NONE_BEFORE: Sha256 = Sha256([0; 32]);

/// What the hash of an entry begins with; another encoding gets another line.
const ENCODING: &[u8] = b"drctl audit 1\n";

/// What an entry says, apart from its place in the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditNote {
    /// Login name; empty where the uid has none in `/etc/passwd`.
    pub user: String,
    /// Real user id.
    pub uid: u32,
    /// `SUDO_USER`: who became that user; empty where nobody did.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sudo_user: String,
    /// The machine's name.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// `restore`, `restore --undo`, `key rotate`, `prune` …
    pub verb: String,
    /// The job, where it is about one; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job: String,
    /// What it was done to: a set, a restore, a key, a store.
    pub subject: String,
    /// More of it: JSON or short text, without secrets; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// `begun`, `ok`, or the exit code.
    pub outcome: String,
    /// Number of the entry that said `begun`; 0 for that one itself.
    pub ends: u64,
}

/// One entry.
///
/// **Encoding.** `own` is SHA-256 over the line `drctl audit 1` with its newline, then each field in the order of the table (number, at, user, uid,
/// sudo_user, host, pid, version, verb, job, subject, details, outcome, ends, before) as its length in bytes in decimal, `:`, its bytes in UTF-8, `,`.
/// Numbers are decimal, hashes 64 lower-case hex digits, `at` is the text in the table. `before` is `own` of the entry with the number before, 64 zeros
/// for entry 1; numbers go up by one from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// Its number: 1, 2, 3 …
    pub number: u64,
    /// When it was written by this host's clock, RFC 3339 in UTC. Order is by number.
    pub at: String,
    /// What it says.
    #[serde(flatten)]
    pub note: AuditNote,
    /// Hash of the entry before.
    pub before: Sha256,
    /// Hash of this entry.
    pub own: Sha256,
}

impl AuditEntry {
    /// The hash that belongs to what the entry says.
    pub fn hash(&self) -> Sha256 {
        let note = &self.note;
        let [number, uid, pid, ends] = [self.number, note.uid.into(), note.pid.into(), note.ends].map(|n| n.to_string());
        let before = self.before.to_string();
        let fields: [&str; 15] = [
            &number,
            &self.at,
            &note.user,
            &uid,
            &note.sudo_user,
            &note.host,
            &pid,
            &note.version,
            &note.verb,
            &note.job,
            &note.subject,
            &note.details,
            &note.outcome,
            &ends,
            &before,
        ];
        let mut hasher = Sha256::hasher();
        hasher.update(ENCODING);
        for field in fields {
            hasher.update(format!("{}:", field.len()).as_bytes());
            hasher.update(field.as_bytes());
            hasher.update(b",");
        }
        hasher.finish()
    }
}

/// The newest entry: what to note elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AuditHead {
    /// Its number; how many entries there are.
    pub number: u64,
    /// Its hash.
    pub sha256: Sha256,
}

impl std::fmt::Display for AuditHead {
    /// `42:9f86…`, as `--head` takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.number, self.sha256)
    }
}

impl std::str::FromStr for AuditHead {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once(':').and_then(|(number, sha256)| {
            let number = number.parse().ok().filter(|n| *n > 0)?;
            Some(AuditHead { number, sha256: sha256.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            Error::new(Kind::Usage, "a head of the audit log is NUMBER:HASH").hint("drctl audit verify prints it; note it elsewhere")
        })
    }
}

impl StateFile {
    /// Adds an entry; it is on the disk when this returns.
    pub fn audit_append(&self, note: AuditNote) -> Result<AuditEntry> {
        let failed = |e| self.trouble("write to the audit log in", e);
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let (last, before) = match head(&transaction).map_err(failed)? {
            None => (0, NONE_BEFORE),
            Some((number, own)) => (number, own.parse().map_err(|_| unfit(number, "its hash cannot be read"))?),
        };
        let mut entry = AuditEntry { number: last + 1, at: self.now(), note, before, own: NONE_BEFORE };
        entry.own = entry.hash();
        let AuditEntry { number, at, note, before, own } = &entry;
        transaction
            .execute(
                &format!("INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"),
                rusqlite::params![
                    signed(*number),
                    at,
                    note.user,
                    note.uid,
                    note.sudo_user,
                    note.host,
                    note.pid,
                    note.version,
                    note.verb,
                    note.job,
                    note.subject,
                    note.details,
                    note.outcome,
                    signed(note.ends),
                    before.to_string(),
                    own.to_string(),
                ],
            )
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(entry)
    }

    /// The newest `last` entries, of one job or of all, the oldest of them first.
    pub fn audit_entries(&self, job: Option<&str>, last: u32) -> Result<Vec<AuditEntry>> {
        let failed = |e| self.trouble("read the audit log from", e);
        let connection = self.connection();
        let which = if job.is_some() { "WHERE job = ?1" } else { "WHERE ?1 IS NULL" };
        let sql = format!("SELECT {COLUMNS} FROM audit {which} ORDER BY number DESC LIMIT ?2");
        let mut query = connection.prepare(&sql).map_err(failed)?;
        let mut rows = query.query((job, last)).map_err(failed)?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            entries.push(read(row)?);
        }
        entries.reverse();
        Ok(entries)
    }

    /// How many entries there are, of one job or of all.
    pub fn audit_count(&self, job: Option<&str>) -> Result<u64> {
        let sql = if job.is_some() { "SELECT count(*) FROM audit WHERE job = ?1" } else { "SELECT count(*) FROM audit WHERE ?1 IS NULL" };
        let count: i64 =
            self.connection().query_row(sql, [job], |row| row.get(0)).map_err(|e| self.trouble("count the audit log in", e))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Walks the chain from its first entry on; gives its head, `None` where there is no entry. `noted` must be in it.
    ///
    /// Errors: [`Kind::Corrupt`] names the first entry that does not fit.
    pub fn audit_verify(&self, noted: Option<AuditHead>) -> Result<Option<AuditHead>> {
        let failed = |e| self.trouble("read the audit log from", e);
        let connection = self.connection();
        let mut query = connection.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY number")).map_err(failed)?;
        let mut rows = query.query([]).map_err(failed)?;
        let mut head = AuditHead { number: 0, sha256: NONE_BEFORE };
        let mut met = false;
        while let Some(row) = rows.next().map_err(failed)? {
            let expected = head.number + 1;
            // A row whose very number cannot be read stands where the next one should.
            let entry = read(row).map_err(|e| if e.kind() == Kind::Corrupt { e } else { unfit(expected, "it cannot be read") })?;
            if entry.number != expected {
                return Err(unfit(expected, &format!("it is missing, entry {} stands in its place", entry.number)));
            }
            if entry.hash() != entry.own {
                return Err(unfit(expected, "it was changed: its hash is another"));
            }
            if entry.before != head.sha256 {
                return Err(unfit(expected, "it was not written behind the entry before it"));
            }
            head = AuditHead { number: entry.number, sha256: entry.own };
            met |= noted == Some(head);
        }
        match noted {
            Some(noted) if noted.number > head.number => Err(unfit(
                noted.number,
                &format!("it was noted as head, and the chain ends at {}: its end was cut off, or this is another state file", head.number),
            )),
            Some(noted) if !met => Err(unfit(noted.number, "its hash is not the one that was noted: the chain was written anew")),
            _ => Ok((head.number > 0).then_some(head)),
        }
    }
}

fn unfit(number: u64, why: &str) -> Error {
    Error::corrupt(format!("entry {number} of the audit log does not fit: {why}"))
        .hint("keep a copy of the state file as it is, and find out who could write it: drctl audit --json shows what it says")
}

/// Number and hash of the newest entry.
fn head(connection: &Connection) -> rusqlite::Result<Option<(u64, String)>> {
    let sql = "SELECT number, own FROM audit ORDER BY number DESC LIMIT 1";
    connection.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?))).optional()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn read(row: &Row<'_>) -> Result<AuditEntry> {
    let raw_number: i64 = row.get(0).map_err(|e| Error::failed("read an entry of the audit log").because(e))?;
    let number = u64::try_from(raw_number).unwrap_or(0);
    fields(row, number).ok_or_else(|| unfit(number, "it cannot be read"))
}

fn fields(row: &Row<'_>, number: u64) -> Option<AuditEntry> {
    let text = |at: usize| row.get::<_, String>(at).ok();
    let count = |at: usize| row.get::<_, i64>(at).ok();
    Some(AuditEntry {
        number,
        at: text(1)?,
        note: AuditNote {
            user: text(2)?,
            uid: count(3)?.try_into().ok()?,
            sudo_user: text(4)?,
            host: text(5)?,
            pid: count(6)?.try_into().ok()?,
            version: text(7)?,
            verb: text(8)?,
            job: text(9)?,
            subject: text(10)?,
            details: text(11)?,
            outcome: text(12)?,
            ends: count(13)?.try_into().ok()?,
        },
        before: text(14)?.parse().ok()?,
        own: text(15)?.parse().ok()?,
    })
}
