//! A PgBouncer before a server of [`crate::support`].
//!
//! Include it after `postgres.rs`, as `#[path = "support/pgbouncer.rs"] mod pgbouncer;` beside `mod support`.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drctl::source::postgres::PostgresSettings;

use crate::support::{PASSWORD, Server, free_port};

/// Stopped when dropped.
pub struct Pooler {
    folder: tempfile::TempDir,
    child: Child,
    pub port: u16,
}

impl Pooler {
    /// In this `pool_mode`. `databases` are lines of its section of that name, `SERVER` in them for where the server is.
    pub fn start(server: &Server, pool_mode: &str, databases: &str) -> Pooler {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).exists());
        let program = program.expect("PgBouncer is needed for this test: apt-get install pgbouncer");
        let folder = tempfile::Builder::new().prefix("drctl-test-pgbouncer-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        let at = format!("host=127.0.0.1 port={} user=postgres password='{}'", server.port, PASSWORD.replace('\'', "''"));
        let settings = format!(
            "[databases]\n{}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\n",
            databases.replace("SERVER", &at)
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        // As root it refuses to run.
        let mut command = match rustix::process::geteuid().is_root() {
            true => Command::new("setpriv"),
            false => Command::new(program),
        };
        if rustix::process::geteuid().is_root() {
            command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--", program]);
        }
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = command.arg(&file).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut pooler = Pooler { folder, child, port };
        let since = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = pooler.child.try_wait().unwrap();
            assert!(ended.is_none() && since.elapsed() < Duration::from_secs(60), "{}", pooler.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        pooler
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// These settings, but by way of it.
    pub fn before(&self, settings: PostgresSettings) -> PostgresSettings {
        PostgresSettings { port: self.port, ..settings }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
