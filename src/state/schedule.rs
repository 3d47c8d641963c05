//! What of each schedule was handled, so that a restart neither repeats nor loses a run.

use jiff::Timestamp;
use rusqlite::TransactionBehavior;

use crate::error::Result;
use crate::state::{StateFile, bad_value};

/// Up to where one entry of a schedule was handled. Job, group and `what` name the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleMark {
    /// The job.
    pub job: String,
    /// The group of sources.
    pub group: String,
    /// `full`, `verify` …
    pub what: String,
    /// The expression and its zone by which it was handled: `0 2 * * * Europe/Berlin`. Under another one the instant means nothing.
    pub schedule: String,
    /// Every scheduled instant up to this one was run, or will never be.
    pub handled: Timestamp,
}

impl StateFile {
    /// What is known of a repository's schedules.
    pub fn schedule_marks(&self, repository: &str) -> Result<Vec<ScheduleMark>> {
        let failed = |e| self.trouble("read what was scheduled from", e);
        let connection = self.connection();
        let sql = "SELECT job, source_group, what, schedule, handled FROM schedule WHERE repository = ?1 ORDER BY job, source_group, what";
        let mut statement = connection.prepare(sql).map_err(failed)?;
        let rows = statement
            .query_map([repository], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get::<_, String>(4)?)))
            .map_err(failed)?;
        let mut marks = Vec::new();
        for row in rows {
            let (job, group, what, schedule, handled) = row.map_err(failed)?;
            let handled = handled.parse().map_err(|_| bad_value(&self.path, "an instant of a schedule"))?;
            marks.push(ScheduleMark { job, group, what, schedule, handled });
        }
        Ok(marks)
    }

    /// Keeps marks, all or none, over older ones of the same entries. On the disk when it returns: the run that they stand for may begin then.
    pub fn keep_schedule_marks(&self, repository: &str, marks: &[ScheduleMark]) -> Result<()> {
        if marks.is_empty() { Ok(()) } else { self.write_schedule_marks(repository, marks, false) }
    }

    /// Keeps these marks and no others: an entry that was taken out of the configuration begins anew when it comes back, instead of
    /// making up for the time without it.
    pub fn replace_schedule_marks(&self, repository: &str, marks: &[ScheduleMark]) -> Result<()> {
        self.write_schedule_marks(repository, marks, true)
    }

    fn write_schedule_marks(&self, repository: &str, marks: &[ScheduleMark], replace: bool) -> Result<()> {
        let failed = |e| self.trouble("note what was scheduled in", e);
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        if replace {
            transaction.execute("DELETE FROM schedule WHERE repository = ?1", [repository]).map_err(failed)?;
        }
        let sql = "INSERT INTO schedule (repository, job, source_group, what, schedule, handled) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                   ON CONFLICT (repository, job, source_group, what) DO UPDATE SET schedule = excluded.schedule, handled = excluded.handled";
        for mark in marks {
            let row = (repository, &mark.job, &mark.group, &mark.what, &mark.schedule, mark.handled.to_string());
            transaction.execute(sql, row).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }
}
