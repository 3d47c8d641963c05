//! High-water marks (the newest record of each log that this machine has seen, FAULTS 72) and settings.

use rusqlite::{OptionalExtension, TransactionBehavior};

use crate::error::{Error, Result};
use crate::model::{JobName, Sha256};
use crate::state::{StateFile, bad_value};

impl StateFile {
    /// Number and SHA-256 of the newest record seen in a job's log; `None` when none was.
    pub fn mark(&self, repository: &str, job: &JobName) -> Result<Option<(u64, Sha256)>> {
        let sql = "SELECT number, sha256 FROM high_water WHERE repository = ?1 AND job = ?2";
        let row = self.connection().query_row(sql, (repository, job.as_str()), read_mark).optional();
        row.map_err(|e| self.trouble("read the high-water mark from", e))?.map(|raw| self.mark_of(raw)).transpose()
    }

    /// Remembers a record that was seen. The mark never goes back: a lower number changes nothing, for another process may have seen a newer one.
    /// The same number with another hash is [`crate::error::Kind::Corrupt`]: the log was exchanged or forked.
    pub fn raise_mark(&self, repository: &str, job: &JobName, number: u64, sha256: &Sha256) -> Result<()> {
        let failed = |e| self.trouble("note the high-water mark in", e);
        let signed = i64::try_from(number).map_err(|e| Error::corrupt(format!("record number {number}")).because(e))?;
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction
            .execute(
                "INSERT INTO high_water (repository, job, number, sha256) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (repository, job) DO UPDATE SET number = excluded.number, sha256 = excluded.sha256
                 WHERE excluded.number > high_water.number",
                (repository, job.as_str(), signed, sha256.to_string()),
            )
            .map_err(failed)?;
        let sql = "SELECT number, sha256 FROM high_water WHERE repository = ?1 AND job = ?2";
        let stands = transaction.query_row(sql, (repository, job.as_str()), read_mark).map_err(failed)?;
        let (stands_number, stands_sha256) = self.mark_of(stands)?;
        transaction.commit().map_err(failed)?;
        if stands_number == number && stands_sha256 != *sha256 {
            let text = format!("record {number} of job {job} is not the one that this machine has seen under that number");
            return Err(Error::corrupt(text)
                .hint("the log was exchanged or rolled back: compare with a copy of the repository before anything else"));
        }
        Ok(())
    }

    /// Puts a mark in the place of whatever was seen, also a lower one: only because a person said that the log went back.
    pub fn replace_mark(&self, repository: &str, job: &JobName, number: u64, sha256: &Sha256) -> Result<()> {
        let signed = i64::try_from(number).map_err(|e| Error::corrupt(format!("record number {number}")).because(e))?;
        let sql = "INSERT INTO high_water (repository, job, number, sha256) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (repository, job) DO UPDATE SET number = excluded.number, sha256 = excluded.sha256";
        let done = self.connection().execute(sql, (repository, job.as_str(), signed, sha256.to_string()));
        done.map(|_| ()).map_err(|e| self.trouble("replace the high-water mark in", e))
    }

    /// A value kept under a key.
    pub fn setting(&self, key: &str) -> Result<Option<String>> {
        let row = self.connection().query_row("SELECT value FROM settings WHERE key = ?1", [key], |row| row.get(0)).optional();
        row.map_err(|e| self.trouble("read a setting from", e))
    }

    /// Keeps a value under a key.
    pub fn set_setting(&self, key: &str, value: &str) -> Result<()> {
        let sql = "INSERT INTO settings (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.connection().execute(sql, (key, value)).map(|_| ()).map_err(|e| self.trouble("keep a setting in", e))
    }

    fn mark_of(&self, (number, sha256): (i64, String)) -> Result<(u64, Sha256)> {
        let bad = || bad_value(&self.path, "a high-water mark");
        Ok((u64::try_from(number).map_err(|_| bad())?, sha256.parse().map_err(|_| bad())?))
    }
}

fn read_mark(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, String)> {
    Ok((row.get(0)?, row.get(1)?))
}
