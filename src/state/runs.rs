//! The history of runs on this machine, and which of them were interrupted (FAULTS 1).
//!
//! A run under way holds a lock on a file of its own. When its process dies, however it dies and in whatever container, the kernel lets go of the
//! lock, and the next start finds a run without end whose lock is free: that one was interrupted.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, TransactionBehavior};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::file_lock::HeldFile;
use crate::state::{Process, StateFile, bad_value, with_suffix};

/// Older rows than so many are forgotten when a run begins: ten years of an hourly job.
const KEPT_RUNS: i64 = 100_000;

/// How a run ended, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// Under way.
    Running,
    /// It ended by itself, with this exit code.
    Finished(u8),
    /// Its process died before it could say how it ended.
    Interrupted,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// Its number here; later runs have greater ones.
    pub id: i64,
    /// `backup`, `verify`, `restore` …
    pub verb: String,
    /// The job, where the verb has one.
    pub job: Option<String>,
    /// The set that was made or read, once it was known.
    pub set: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended, or when it was found to have been interrupted.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Why it failed.
    pub error: Option<String>,
    /// The process that ran it.
    pub process: Process,
}

/// Which of a job's runs is meant by its newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newest {
    /// The one that began last.
    Begun,
    /// The last of those that ended or were interrupted.
    Ended,
    /// The last of those that ended with exit code 0.
    Good,
}

/// A run under way. Dropped without [`Run::finish`] it is found as interrupted, which a panic is.
pub struct Run {
    state: Arc<StateFile>,
    id: i64,
    lock: PathBuf,
    /// Holds the lock.
    _file: HeldFile,
}

impl Run {
    /// Its number.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Notes the set, as soon as it has a name.
    pub fn set(&self, set: &str) -> Result<()> {
        let connection = self.state.connection();
        let noted = connection.execute("UPDATE runs SET backup_set = ?2 WHERE id = ?1", (self.id, set));
        noted.map(|_| ()).map_err(|e| self.state.trouble("note the run's set in", e))
    }

    /// Notes how it ended.
    pub fn finish(self, exit_code: u8, error: Option<&str>) -> Result<()> {
        let noted = self.state.connection().execute(
            "UPDATE runs SET finished_at = ?2, exit_code = ?3, error = ?4 WHERE id = ?1",
            (self.id, self.state.now(), exit_code, error),
        );
        noted.map_err(|e| self.state.trouble("note the run's end in", e))?;
        // Only tidiness; the sweep removes it otherwise.
        let _ = std::fs::remove_file(&self.lock);
        Ok(())
    }
}

impl StateFile {
    /// Notes that a run begins in this process.
    pub fn begin_run(self: &Arc<Self>, verb: &str, job: Option<&str>) -> Result<Run> {
        // The lock comes first: a row without one would look interrupted to another process.
        let (name, lock, file) = self.make_lock()?;
        let process = serde_json::to_string(&Process::this()).map_err(|e| Error::failed("note this process").because(e))?;
        let failed = |e| self.trouble("note a run in", e);
        let connection = self.connection();
        connection
            .execute(
                "INSERT INTO runs (verb, job, started_at, process, lock) VALUES (?1, ?2, ?3, ?4, ?5)",
                (verb, job, self.now(), process, name),
            )
            .map_err(failed)?;
        let id = connection.last_insert_rowid();
        connection.execute("DELETE FROM runs WHERE id <= ?1 AND finished_at IS NOT NULL", [id - KEPT_RUNS]).map_err(failed)?;
        drop(connection);
        Ok(Run { state: Arc::clone(self), id, lock, _file: file })
    }

    /// Finds runs whose process died, notes them as interrupted and gives them back. For the start of every verb that changes something.
    pub fn sweep_interrupted(&self) -> Result<Vec<RunRow>> {
        let failed = |e| self.trouble("look for interrupted runs in", e);
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let open: Vec<(i64, String, String)> = {
            let mut query =
                transaction.prepare("SELECT id, lock, process FROM runs WHERE finished_at IS NULL ORDER BY id").map_err(failed)?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(failed)?;
            rows.collect::<Result<_, _>>().map_err(failed)?
        };
        let mut dead = Vec::new();
        for (id, lock, process) in open {
            if self.is_under_way(&lock, &process)? {
                continue;
            }
            transaction.execute("UPDATE runs SET interrupted = 1, finished_at = ?2 WHERE id = ?1", (id, self.now())).map_err(failed)?;
            let _ = std::fs::remove_file(self.lock_path(&lock));
            dead.push(id);
        }
        transaction.commit().map_err(failed)?;
        drop(connection);
        dead.into_iter().map(|id| self.run(id)?.ok_or_else(|| bad_value(&self.path, "a run"))).collect()
    }

    /// The same for runs of this process, which goes on: `why` they did not end by themselves is noted with them.
    pub fn sweep_broken(&self, why: &str) -> Result<()> {
        let this = Process::this();
        for run in self.sweep_interrupted()?.iter().filter(|run| run.process == this) {
            let noted = self.connection().execute("UPDATE runs SET error = ?2 WHERE id = ?1", (run.id, why));
            noted.map_err(|e| self.trouble("note the run's end in", e))?;
        }
        Ok(())
    }

    /// One run by its number.
    pub fn run(&self, id: i64) -> Result<Option<RunRow>> {
        let row = self.connection().query_row(&select("WHERE id = ?1"), [id], raw_row).optional();
        row.map_err(|e| self.trouble("read a run from", e))?.map(|raw| self.run_row(raw)).transpose()
    }

    /// The newest `limit` runs, the newest first; those of one job, of one verb, where these are given.
    pub fn runs(&self, job: Option<&str>, verb: Option<&str>, limit: u32) -> Result<Vec<RunRow>> {
        let failed = |e| self.trouble("read runs from", e);
        let connection = self.connection();
        let sql = select("WHERE (?1 IS NULL OR job = ?1) AND (?2 IS NULL OR verb = ?2) ORDER BY id DESC LIMIT ?3");
        let mut query = connection.prepare(&sql).map_err(failed)?;
        let rows = query.query_map((job, verb, limit), raw_row).map_err(failed)?;
        rows.map(|raw| self.run_row(raw.map_err(failed)?)).collect()
    }

    /// The newest run of a verb for each job that has one.
    pub fn newest_runs(&self, verb: &str, which: Newest) -> Result<Vec<RunRow>> {
        let failed = |e| self.trouble("read runs from", e);
        let counted = match which {
            Newest::Begun => "",
            Newest::Ended => "AND finished_at IS NOT NULL",
            Newest::Good => "AND exit_code = 0 AND NOT interrupted",
        };
        let newest = format!("SELECT max(id) FROM runs WHERE verb = ?1 AND job IS NOT NULL {counted} GROUP BY job");
        let connection = self.connection();
        let mut query = connection.prepare(&select(&format!("WHERE id IN ({newest}) ORDER BY job"))).map_err(failed)?;
        let rows = query.query_map([verb], raw_row).map_err(failed)?;
        rows.map(|raw| self.run_row(raw.map_err(failed)?)).collect()
    }

    /// How the newest `limit` runs of a verb ended of each job that has any, by job and the newest first: the exit code, `None` where the
    /// process died. Those under way are left out.
    pub fn recent_outcomes(&self, verb: &str, limit: u32) -> Result<Vec<(String, Option<u8>)>> {
        let failed = |e| self.trouble("read runs from", e);
        let connection = self.connection();
        let places = "SELECT job, exit_code, interrupted, row_number() OVER (PARTITION BY job ORDER BY id DESC) AS place FROM runs \
                      WHERE verb = ?1 AND job IS NOT NULL AND finished_at IS NOT NULL";
        let sql = format!("SELECT job, exit_code, interrupted FROM ({places}) WHERE place <= ?2 ORDER BY job, place");
        let mut query = connection.prepare(&sql).map_err(failed)?;
        let outcome = |row: &Row<'_>| {
            let (code, interrupted): (Option<i64>, bool) = (row.get(1)?, row.get(2)?);
            Ok((row.get(0)?, code.filter(|_| !interrupted).and_then(|code| u8::try_from(code).ok())))
        };
        let rows = query.query_map((verb, limit), outcome).map_err(failed)?;
        rows.map(|row| row.map_err(failed)).collect()
    }

    fn locks(&self) -> PathBuf {
        with_suffix(&self.path, ".runs")
    }

    /// Names of locks are ours; anything else in the file is damage and must not lead elsewhere.
    fn lock_path(&self, name: &str) -> PathBuf {
        let safe = !name.is_empty() && name.bytes().all(|b| b.is_ascii_hexdigit());
        self.locks().join(if safe { name } else { "none" })
    }

    fn make_lock(&self) -> Result<(String, PathBuf, HeldFile)> {
        let folder = self.locks();
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.context(|| format!("make folder {}", folder.display()))?;
        let name = format!("{:032x}", rand::random::<u128>());
        let path = self.lock_path(&name);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = HeldFile::of(file.context(|| format!("make {}", path.display()))?);
        // A filesystem without locks leaves it to the process number.
        let _ = file.try_exclusive();
        Ok((name, path, file))
    }

    fn is_under_way(&self, lock: &str, process: &str) -> Result<bool> {
        let process: Option<Process> = serde_json::from_str(process).ok();
        let seems_alive = || process.as_ref().is_some_and(Process::is_alive);
        match lock_is_held(&self.lock_path(lock))? {
            Some(held) => Ok(held),
            None => Ok(seems_alive()),
        }
    }

    fn run_row(&self, raw: RawRow) -> Result<RunRow> {
        let bad = |what| bad_value(&self.path, what);
        let time = |text: &str| text.parse::<Timestamp>().map_err(|_| bad("the time of a run"));
        let outcome = match (raw.interrupted, raw.finished_at.is_some(), raw.exit_code) {
            (true, _, _) => RunOutcome::Interrupted,
            (_, false, _) => RunOutcome::Running,
            (_, true, code) => RunOutcome::Finished(code.and_then(|c| u8::try_from(c).ok()).ok_or_else(|| bad("the exit code of a run"))?),
        };
        Ok(RunRow {
            id: raw.id,
            verb: raw.verb,
            job: raw.job,
            set: raw.set,
            started_at: time(&raw.started_at)?,
            finished_at: raw.finished_at.as_deref().map(time).transpose()?,
            outcome,
            error: raw.error,
            process: serde_json::from_str(&raw.process).map_err(|_| bad("the process of a run"))?,
        })
    }
}

/// Whether somebody holds the lock; `None` when the file is not there or the filesystem has no locks.
fn lock_is_held(path: &Path) -> Result<Option<bool>> {
    let file = match File::open(path) {
        Ok(file) => HeldFile::of(file),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).context(|| format!("open {}", path.display())),
    };
    match file.try_shared() {
        Ok(()) => Ok(Some(false)),
        Err(Errno::AGAIN) => Ok(Some(true)),
        Err(_) => Ok(None),
    }
}

struct RawRow {
    id: i64,
    verb: String,
    job: Option<String>,
    set: Option<String>,
    started_at: String,
    finished_at: Option<String>,
    exit_code: Option<i64>,
    interrupted: bool,
    error: Option<String>,
    process: String,
}

fn select(rest: &str) -> String {
    format!("SELECT id, verb, job, backup_set, started_at, finished_at, exit_code, interrupted, error, process FROM runs {rest}")
}

fn raw_row(row: &Row<'_>) -> rusqlite::Result<RawRow> {
    Ok(RawRow {
        id: row.get(0)?,
        verb: row.get(1)?,
        job: row.get(2)?,
        set: row.get(3)?,
        started_at: row.get(4)?,
        finished_at: row.get(5)?,
        exit_code: row.get(6)?,
        interrupted: row.get(7)?,
        error: row.get(8)?,
        process: row.get(9)?,
    })
}
