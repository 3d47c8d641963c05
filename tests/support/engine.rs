//! A throwaway Docker engine, and containers of PostgreSQL in it.
//!
//! Include it with `#[path = "support/engine.rs"] mod engine;`. On this machine's network only `--network none` and `host` are used: a bridge
//! would touch its firewall. An engine that is started apart has a network of its own, where it may make bridges, and no way out of it.
//! Nothing is pulled: scripts/docker-image.sh makes the images.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::PASSWORD;

pub const IMAGE: &str = "drctl-test-postgres:15";

/// An archive that scripts/docker-image.sh makes.
pub fn archive(what: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/docker-image.sh");
    let made = Command::new(script).arg(what).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    made.status.success().then(|| PathBuf::from(String::from_utf8(made.stdout).unwrap().trim()))
}

pub struct Engine {
    folder: tempfile::TempDir,
    daemon: Child,
}

impl Engine {
    /// `None`, after saying why, where no engine can be started.
    pub fn start(test: &str) -> Option<Engine> {
        Self::launch(test, Command::new("dockerd"))
    }

    /// The same in a network namespace of its own.
    pub fn start_apart(test: &str) -> Option<Engine> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up; exec dockerd \"$@\"", "dockerd"]);
        Self::launch(test, command)
    }

    fn launch(test: &str, mut command: Command) -> Option<Engine> {
        let skipped = |why: &str| -> Option<Engine> {
            eprintln!("SKIPPED {test}: {why}");
            None
        };
        let Some(image) = archive("postgres") else {
            return skipped("no image of PostgreSQL for Docker could be made here (scripts/docker-image.sh)");
        };
        // In memory where there is much of it: on a disk, taking the files of the images away again takes longer than all tests.
        let memory = Path::new("/dev/shm");
        let large = drctl::store::local::available_bytes(memory).is_ok_and(|bytes| bytes > 6 << 30);
        let mut folder = tempfile::Builder::new();
        let folder = folder.prefix("drctl-test-docker-");
        let folder = if large { folder.tempdir_in(memory) } else { folder.tempdir() }.unwrap();
        let at = |name: &str| folder.path().join(name);
        let log = std::fs::File::create(at("log")).unwrap();
        command.arg(format!("--host=unix://{}", at("docker.sock").display())).arg("--data-root").arg(at("data"));
        command.arg("--exec-root").arg(at("exec")).arg("--pidfile").arg(at("pid"));
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"]);
        let Ok(daemon) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn() else {
            return skipped("there is no dockerd here (apt-get install docker.io)");
        };
        let mut engine = Engine { folder, daemon };
        let since = Instant::now();
        while engine.docker(&["version"]).is_err() {
            let ended = engine.daemon.try_wait().unwrap().is_some();
            if ended || since.elapsed() > Duration::from_secs(120) {
                let log = std::fs::read_to_string(engine.path("log")).unwrap_or_default();
                return skipped(&format!("dockerd does not start here: {}", log.lines().last().unwrap_or("it says nothing")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        engine.docker(&["import", "--change", "CMD [\"bash\"]", &image.display().to_string(), IMAGE]).unwrap();
        if let Err(why) = engine.docker(&["run", "--rm", "--network", "none", IMAGE, "true"]) {
            return skipped(&format!("the engine runs no container here: {}", why.lines().last().unwrap_or_default()));
        }
        Some(engine)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The daemon; its network namespace is the engine's.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// What it prints, or what it complains of.
    pub fn docker(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new("docker").args(args).env("DOCKER_HOST", self.host()).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// A container with a server that listens on its 127.0.0.1 only.
    pub fn postgres(&self, name: &str, service: &str, network: &str, port: u16) {
        let script = format!(
            "umask 077; echo \"$PW\" > /tmp/pw; chown postgres /tmp/pw; d=/var/lib/postgresql/d; mkdir -p $d /run/postgresql; \
             chown postgres $d /run/postgresql; as='setpriv --reuid postgres --regid postgres --init-groups'; b=/usr/lib/postgresql/15/bin; \
             $as $b/initdb -D $d -U postgres -A scram-sha-256 --pwfile=/tmp/pw --no-sync -E UTF8 --locale=C.UTF-8 && \
             exec $as $b/postgres -D $d -c listen_addresses=127.0.0.1 -c port={port} -c fsync=off"
        );
        let label = |key: &str, value: &str| format!("--label=com.docker.compose.{key}={value}");
        let (project, service) = (label("project", "shop"), label("service", service));
        let password = format!("PW={PASSWORD}");
        let args = ["run", "--detach", "--init", "--network", network, "--name", name, &project, &service, "--env", &password];
        let all: Vec<&str> = args.into_iter().chain([IMAGE, "bash", "-c", &script]).collect();
        self.docker(&all).unwrap();
        let since = Instant::now();
        while self.sql(name, port, "postgres", "SELECT 1").as_deref() != Ok("1") {
            assert!(since.elapsed() < Duration::from_secs(120), "{:?}", self.docker(&["logs", "--tail", "5", name]));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs SQL inside the container.
    pub fn sql(&self, name: &str, port: u16, database: &str, sql: &str) -> Result<String, String> {
        let (port, variable) = (port.to_string(), format!("PGPASSWORD={PASSWORD}"));
        let psql = ["exec", "--env", &variable, name, "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-p"];
        let all: Vec<&str> = psql.into_iter().chain([port.as_str(), "-d", database, "-c", sql]).collect();
        self.docker(&all)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Ok(ids) = self.docker(&["ps", "--all", "--quiet"]) {
            let ids: Vec<&str> = ids.lines().collect();
            if !ids.is_empty() {
                let _ = self.docker(&[&["rm", "--force", "--volumes"], ids.as_slice()].concat());
            }
        }
        if let Some(pid) = i32::try_from(self.daemon.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let since = Instant::now();
        while self.daemon.try_wait().is_ok_and(|end| end.is_none()) && since.elapsed() < Duration::from_secs(15) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // The mount stays behind otherwise.
        let _ = Command::new("umount").arg(self.path("exec/netns/default")).stderr(Stdio::null()).status();
    }
}
