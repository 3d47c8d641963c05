//! What this machine remembers: one SQLite file with runs, restore journals, high-water marks, incidents, alerts that wait, settings and the
//! audit log.
//!
//! ```text
//! state.sqlite        0600, WAL, synchronous = FULL: what was noted is on the disk before the call returns
//! state.sqlite.runs/  one locked file per run under way; the kernel unlocks it when its process dies
//! state.sqlite.restores/  the same for restores, by their ids
//! ```
//! No set depends on it: a caller that cannot open it says so and goes on without (DESIGN §7), except where something could not be undone.
//! Several processes may use one file at the same time. All calls block; from async code they are short, but belong on a blocking thread.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::{Context, Error, Kind, Result};
use crate::model::Clock;

pub mod agent;
pub mod audit;
pub mod audited;
pub mod incidents;
pub mod journal;
pub mod marks;
mod open_files;
pub mod outbox;
pub mod process;
pub mod restores;
pub mod runs;
pub mod schedule;
mod schema;

pub use agent::{AgentLock, AgentStanding, agent_of};
pub use audit::{AuditEntry, AuditHead, AuditNote};
pub use audited::{Act, Audited};
pub use incidents::{Incident, Raised, Told};
pub use open_files::is_open_here;
pub use outbox::{NewAlert, QueueState, Queued};
pub use process::{Process, process_is_alive};
pub use restores::{Held, RestoreLock};
pub use runs::{Newest, Run, RunOutcome, RunRow};
pub use schedule::ScheduleMark;

/// How long a call waits for another process that writes; each write is a matter of milliseconds.
const BUSY: Duration = Duration::from_secs(10);

/// The open state file.
pub struct StateFile {
    path: PathBuf,
    /// Device and number of the file, to see that it was taken away.
    file: Option<(u64, u64)>,
    connection: Mutex<Connection>,
    clock: Arc<dyn Clock>,
    /// Dropped after the connection: until then nobody else of this process may open these files.
    #[expect(dead_code, reason = "it is there to be dropped")]
    held: open_files::Held,
}

impl StateFile {
    /// Opens the file and checks it; makes it, and its folder with mode 0700, when it is not there.
    ///
    /// Errors: [`Kind::Corrupt`] for what is no sound state file, [`Kind::Unsupported`] for one of a newer program, [`Kind::Denied`],
    /// [`Kind::Full`], [`Kind::Locked`]. Nothing that was there is changed then; see [`StateFile::move_aside`].
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<StateFile> {
        prepare_file(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |e| trouble("open", path, e);
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        connection.pragma_update(None, "trusted_schema", false).map_err(failed)?;
        connection.pragma_update(None, "cell_size_check", true).map_err(failed)?;
        schema::check_owner(&connection, path)?;
        check_sound(&connection, path)?;
        write_ahead(&connection).map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        schema::migrate(&mut connection, path, clock.now())?;
        let held = open_files::Held::of(path);
        Ok(StateFile { path: path.to_owned(), file: identity(path), connection: Mutex::new(connection), clock, held })
    }

    /// One in memory, for what cannot be written to the disk just now. Nothing of it outlives the process.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<StateFile> {
        let path = PathBuf::from(":memory:");
        let failed = |e| trouble("make", &path, e);
        let mut connection = Connection::open_in_memory().map_err(failed)?;
        schema::migrate(&mut connection, &path, clock.now())?;
        Ok(StateFile { path, file: None, connection: Mutex::new(connection), clock, held: open_files::Held::default() })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file that was opened still lies there: what is noted in one that was removed or replaced is lost with this process.
    pub fn is_in_place(&self) -> bool {
        self.file.is_none() || self.file == identity(&self.path)
    }

    /// How long a call waits for another process that writes, from now on: whoever knows that one does not let go need not wait each time.
    pub fn wait_for_others(&self, patiently: bool) {
        let wait = if patiently { BUSY } else { Duration::from_millis(100) };
        // It cannot fail but for lack of memory, and then it stays as it was.
        let _ = self.connection().busy_timeout(wait);
    }

    /// Renames a file that cannot be used, with what SQLite keeps beside it, and says where it is now. Only ever called because a person asked.
    pub fn move_aside(path: &Path, now: Timestamp) -> Result<PathBuf> {
        let suffix = format!(".broken-{}", now.strftime("%Y%m%dT%H%M%SZ"));
        let aside = with_suffix(path, &suffix);
        if aside.exists() {
            return Err(Error::new(Kind::Exists, format!("move {} aside: {} is there already", path.display(), aside.display())));
        }
        std::fs::rename(path, &aside).context(|| format!("move {} aside", path.display()))?;
        for part in ["-wal", "-shm"] {
            let from = with_suffix(path, part);
            match std::fs::rename(&from, with_suffix(&aside, part)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).context(|| format!("move {} aside", from.display()));
                }
                _ => {}
            }
        }
        Ok(aside)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic in another thread rolled its transaction back as it unwound.
        self.connection.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn trouble(&self, doing: &str, error: rusqlite::Error) -> Error {
        trouble(doing, &self.path, error)
    }

    fn now(&self) -> String {
        self.clock.now().to_string()
    }
}

/// Creates the file with mode 0600 before SQLite does so with another, and takes rights of others away.
///
/// A state file is never opened but by SQLite: its locks are POSIX record locks, and a process loses all of those it has on a file when it
/// closes any descriptor of that file (fcntl_locking(2)). Another process would then take itself for the last one, and remove the
/// write-ahead log that this one still writes to.
fn prepare_file(path: &Path) -> Result<()> {
    let name = path.display();
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty() && !f.exists()) {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.context(|| format!("make folder {} for the state file", folder.display()))?;
    }
    // Makes the file without opening it; whoever is second finds it there.
    match rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::RegularFile, rustix::fs::Mode::from_raw_mode(0o600), 0) {
        Err(e) if e != rustix::io::Errno::EXIST => {
            return Err(std::io::Error::from(e)).context(|| format!("make state file {name}")).map_err(of_another_user);
        }
        _ => {}
    }
    let metadata = std::fs::metadata(path).context(|| format!("look at state file {name}")).map_err(of_another_user)?;
    if !metadata.is_file() {
        return Err(Error::corrupt(format!("{name} is not a file, so it cannot be the state file")));
    }
    let usable = rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK);
    usable.map_err(std::io::Error::from).context(|| format!("open state file {name}")).map_err(of_another_user)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, private).context(|| format!("make state file {name} private"))?;
    }
    Ok(())
}

fn of_another_user(error: Error) -> Error {
    match error.kind() {
        Kind::Denied => error.hint("run as the user who owns the state file, or set STATE_DIRECTORY to a folder of your own"),
        _ => error,
    }
}

/// Walks every page. `quick_check` leaves out only the comparison of indexes with their tables.
fn check_sound(connection: &Connection, path: &Path) -> Result<()> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|e| trouble("check", path, e))?;
    if verdict == "ok" { Ok(()) } else { Err(broken(path, &verdict)) }
}

/// Turns the write-ahead log on. Two processes that make the file at the same moment get in each other's way here, and SQLite does not wait then.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let began = std::time::Instant::now();
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && began.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            // Where shared memory is not to be had it stays with the rollback journal, which is as safe.
            other => return other.map(|_| ()),
        }
    }
}

/// Device and number of what lies there.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn broken(path: &Path, why: &str) -> Error {
    Error::corrupt(format!("{} is not a sound state file: {why}", path.display())).hint(format!(
        "no backup set depends on it: move it away (`mv {0} {0}.broken`) and run again; the history of runs and what unfinished restores noted stay in the broken file",
        path.display()
    ))
}

/// An SQLite error with what was being done and what helps.
fn trouble(doing: &str, path: &Path, error: rusqlite::Error) -> Error {
    let what = format!("{doing} state file {}", path.display());
    let plain = |kind, error| Error::new(kind, what.clone()).because(error);
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => broken(path, &error.to_string()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            plain(Kind::Locked, error).hint("another process has been writing to it for seconds: look with `fuser` who that is")
        }
        Some(ErrorCode::DiskFull) => plain(Kind::Full, error).hint("free some room on its disk (`df -h`) and run again"),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            plain(Kind::Denied, error).hint("its folder must be writable too: set STATE_DIRECTORY to a folder that is")
        }
        _ => plain(Kind::Failed, error),
    }
}

/// A value that is in the file and cannot be read.
fn bad_value(path: &Path, what: &str) -> Error {
    broken(path, &format!("{what} cannot be read"))
}
