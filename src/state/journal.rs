//! Journals of restores: what a loader made or moved, noted before it did so, so that another process can undo or clean up.

use rusqlite::{OptionalExtension, TransactionBehavior};
use serde_json::Value;

use crate::error::Result;
use crate::state::{StateFile, bad_value};

impl StateFile {
    /// Notes a value under a key of one source of one restore; it is on the disk when this returns. An earlier value of the key is replaced.
    pub fn journal_note(&self, restore: &str, source: &str, key: &str, value: &Value) -> Result<()> {
        let failed = |e| self.trouble("note a step of the restore in", e);
        let (text, now) = (value.to_string(), self.now());
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction
            .execute("INSERT INTO restores (restore, started_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING", (restore, &now))
            .map_err(failed)?;
        transaction
            .execute(
                "INSERT INTO journal (restore, source, key, value, noted_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (restore, source, key) DO UPDATE SET value = excluded.value, noted_at = excluded.noted_at",
                (restore, source, key, text, &now),
            )
            .map_err(failed)?;
        transaction.commit().map_err(failed)
    }

    /// What was noted under a key.
    pub fn journal_get(&self, restore: &str, source: &str, key: &str) -> Result<Option<Value>> {
        let sql = "SELECT value FROM journal WHERE restore = ?1 AND source = ?2 AND key = ?3";
        let found = self.connection().query_row(sql, (restore, source, key), |row| row.get::<_, String>(0)).optional();
        let found = found.map_err(|e| self.trouble("read the restore's journal from", e))?;
        found.map(|text| self.value(&text)).transpose()
    }

    /// Everything noted for one source of one restore, keys in byte order.
    pub fn journal_all(&self, restore: &str, source: &str) -> Result<Vec<(String, Value)>> {
        let failed = |e| self.trouble("read the restore's journal from", e);
        let connection = self.connection();
        let sql = "SELECT key, value FROM journal WHERE restore = ?1 AND source = ?2 ORDER BY key";
        let mut query = connection.prepare(sql).map_err(failed)?;
        let rows = query.query_map((restore, source), |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).map_err(failed)?;
        rows.map(|row| row.map_err(failed).and_then(|(key, text)| Ok((key, self.value(&text)?)))).collect()
    }

    /// Ids of every restore of which something was noted, the oldest first.
    pub fn journal_restores(&self) -> Result<Vec<String>> {
        let failed = |e| self.trouble("read restores from", e);
        let connection = self.connection();
        let mut query = connection.prepare("SELECT restore FROM restores ORDER BY rowid").map_err(failed)?;
        let rows = query.query_map([], |row| row.get(0)).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    fn value(&self, text: &str) -> Result<Value> {
        serde_json::from_str(text).map_err(|_| bad_value(&self.path, "a step of a restore"))
    }
}
