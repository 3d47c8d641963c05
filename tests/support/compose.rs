//! A small fund platform in a compose project of its own, with the service of docs/docker.md beside it.
//!
//! Include it with `#[path = "support/compose.rs"] mod compose;`, and `engine` and `support` and `cli` beside it.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::Ran;
use crate::engine::{Engine, IMAGE, archive};
use crate::support::PASSWORD;

const MANUAL: &str = include_str!("../../docs/docker.md");

/// Services of the platform. The database publishes no port; `app` has the uploads.
const PLATFORM: &str = "services:
  db:
    image: drctl-test-postgres:15
    container_name: jisu-db
    command: [bash, /db.sh]
    networks: [backend]
    volumes: [\"./db.sh:/db.sh:ro\"]
  app:
    image: drctl-test-postgres:15
    container_name: jisu-app
    command: [sleep, infinity]
    init: true
    networks: [backend]
    env_file: .env
    volumes: [\"uploads:/data/uploads\"]
";

/// Its compose file, with what the manual adds.
fn compose_file() -> String {
    let added = blocks("yaml")[0].replace("/srv/backup", "./srv-backup");
    let added = added.replacen("services:\n", PLATFORM, 1).replacen("\nvolumes:\n", "\nvolumes:\n  uploads:\n", 1);
    format!("{added}networks:\n  backend:\n")
}

const SERVER: &str = "umask 077; d=/var/lib/postgresql/d; mkdir -p $d /run/postgresql; cat > /tmp/pw <<'E'
PASSWORD
E
chown postgres $d /run/postgresql /tmp/pw
as='setpriv --reuid postgres --regid postgres --init-groups'; b=/usr/lib/postgresql/15/bin
$as $b/initdb -D $d -U postgres -A scram-sha-256 --pwfile=/tmp/pw --no-sync -E UTF8 --locale=C.UTF-8
echo 'host all all all scram-sha-256' >> $d/pg_hba.conf
exec $as $b/postgres -D $d -c listen_addresses='*' -c fsync=off
";

/// The fenced blocks of a language in the manual, in their order.
pub fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("\n```{language}\n");
    MANUAL.split(fence.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The one command of the manual that holds these words, without its comment.
fn command_of_manual(words: &str) -> String {
    let lines = blocks("sh").into_iter().flat_map(str::lines).filter(|line| line.contains(words));
    let found: Vec<&str> = lines.map(|line| line.split("  #").next().unwrap().trim_end()).collect();
    assert_eq!(found.len(), 1, "commands of docs/docker.md with '{words}': {found:?}");
    found[0].to_owned()
}

/// How compose is called here: Docker's plugin, or the older program.
fn program() -> Option<&'static str> {
    let runs = |program: &str, args: &[&str]| Command::new(program).args(args).output().is_ok_and(|out| out.status.success());
    match () {
        () if runs("docker", &["compose", "version"]) => Some("docker compose"),
        () if runs("docker-compose", &["version"]) => Some("docker-compose"),
        () => None,
    }
}

/// The services of a compose file of this source tree, as compose reads it; `None` where there is none.
pub fn parse(file: &str) -> Option<Ran> {
    let mut words = program()?.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["-f", file, "config", "--services"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    Some(Ran::of(command.output().unwrap()))
}

pub struct Platform {
    pub engine: Engine,
    folder: tempfile::TempDir,
    program: &'static str,
}

impl Platform {
    /// With the database running; `None`, after saying why, where that cannot be.
    pub fn start(test: &str) -> Option<Platform> {
        let Some(program) = program() else {
            eprintln!("SKIPPED {test}: there is no docker compose here (apt-get install docker-compose)");
            return None;
        };
        let engine = Engine::start_apart(test)?;
        let Some(tools) = archive("tools") else {
            eprintln!("SKIPPED {test}: no image of drctl's tools could be made here (scripts/docker-image.sh tools)");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("drctl-test-compose-").tempdir().unwrap();
        // uid 10001 must get through to what is mounted from below.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let platform = Platform { engine, folder, program };
        platform.engine.docker(&["load", "--input", &tools.display().to_string()]).unwrap();
        platform.build();
        if let Err(why) = platform.engine.docker(&["run", "--rm", "--network", "none", "drctl", "--version"]) {
            eprintln!("SKIPPED {test}: a drctl built here does not run on Debian bookworm: {why}");
            return None;
        }
        platform.up();
        Some(platform)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The image, by the Dockerfile; its stage of tools is the one that was loaded.
    fn build(&self) {
        let context = self.path("context");
        std::fs::create_dir_all(context.join("target/release")).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in ["Dockerfile", ".dockerignore"] {
            std::fs::copy(root.join(file), context.join(file)).unwrap();
        }
        let binary = context.join("target/release/drctl");
        let stripped = Command::new("strip").arg("-o").arg(&binary).arg(env!("CARGO_BIN_EXE_drctl")).status();
        if !stripped.is_ok_and(|status| status.success()) {
            std::fs::copy(env!("CARGO_BIN_EXE_drctl"), &binary).unwrap();
        }
        let mut command = Command::new("docker");
        command.args(["build", "--network", "none", "--target", "prebuilt", "--cache-from", "drctl-tools", "--tag", "drctl"]);
        let built = command.arg(&context).env("DOCKER_HOST", self.engine.host()).env("DOCKER_BUILDKIT", "0").output().unwrap();
        let built = Ran::of(built);
        assert_eq!(built.code, 0, "{}", built.all());
    }

    fn up(&self) {
        self.write("docker-compose.prod.yml", &compose_file());
        assert!(PLATFORM.contains(IMAGE));
        self.write("db.sh", &SERVER.replace("PASSWORD", PASSWORD));
        self.write(".env", "JISU_SECRET=abc\nDATABASE_NAME=jisu_prod\n");
        std::fs::set_permissions(self.path(".env"), PermissionsExt::from_mode(0o600)).unwrap();
        let up = self.compose(&["up", "--detach", "db", "app"], "");
        assert_eq!(up.code, 0, "{}", up.all());
        self.in_app("cd /data/uploads && mkdir a && echo one > a/1 && echo two > 2 && chown -R www-data:staff a && chmod 0664 2");
        self.until("the database", || self.try_sql("SELECT 1", "postgres").as_deref() == Ok("1"));
    }

    /// Another compose file laid over the others; an empty one takes it away.
    pub fn also(&self, text: &str) {
        if text.is_empty() {
            let _ = std::fs::remove_file(self.path("also.yml"));
        } else {
            self.write("also.yml", text);
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env("DOCKER_HOST", self.engine.host()).env("COMPOSE_PROJECT_NAME", "jisu");
        let also = if self.path("also.yml").exists() { ":also.yml" } else { "" };
        command.env("COMPOSE_FILE", format!("docker-compose.prod.yml{also}"));
        command
    }

    fn ran(mut command: Command, input: &str) -> Ran {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    pub fn compose(&self, args: &[&str], input: &str) -> Ran {
        let mut words = self.program.split(' ');
        let mut command = self.command(words.next().unwrap());
        command.args(words).args(args);
        Self::ran(command, input)
    }

    /// Runs the line of the manual that holds these words: without a terminal, where restores need `--yes`.
    pub fn line(&self, words: &str, input: &str) -> Ran {
        let mut line = command_of_manual(words).replace("/srv/backup", "./srv-backup").replace("--date 20250101", "--date latest");
        line = line.replace("docker compose run --rm", &format!("{} run --rm -T", self.program));
        line = line.replace("docker compose ", &format!("{} ", self.program));
        if line.contains(" restore --") {
            line.push_str(" --yes");
        }
        let uploads = self.engine.docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", "jisu_uploads"]).unwrap_or_default();
        line = line.replace("/var/lib/docker/volumes/jisu_uploads/_data", &uploads);
        let mut command = self.command("sh");
        command.args(["-c", &line]);
        Self::ran(command, input)
    }

    /// Puts these jobs in place of those that `init` wrote.
    pub fn set_jobs(&self, jobs: &str) {
        let path = self.path("drctl/drctl.yaml");
        let config = std::fs::read_to_string(&path).unwrap();
        let head: Vec<&str> = config.lines().take_while(|line| !line.starts_with("jobs:")).collect();
        // Written over, not anew: owner and mode stay.
        std::fs::write(&path, format!("{}\n{jobs}", head.join("\n"))).unwrap();
    }

    pub fn in_app(&self, script: &str) -> String {
        self.engine.docker(&["exec", "jisu-app", "sh", "-c", script]).unwrap()
    }

    /// Every upload with owner, mode and content; not what a restore keeps beside them until it is finished.
    pub fn uploads(&self) -> String {
        self.in_app(
            "cd /data/uploads; found() { find . -mindepth 1 -name '.drctl-*' -prune -o \"$@\"; }
             found -printf '%p %U:%G %m\\n' | sort; found -type f -exec md5sum {} + | sort",
        )
    }

    fn try_sql(&self, sql: &str, database: &str) -> Result<String, String> {
        self.engine.sql("jisu-db", 5432, database, sql)
    }

    pub fn sql(&self, sql: &str, database: &str) -> String {
        self.try_sql(sql, database).unwrap()
    }

    /// Holds a table locked until [`Platform::unlock`].
    pub fn lock(&self, table: &str) {
        let (variable, sql) = (format!("PGPASSWORD={PASSWORD}"), format!("BEGIN; LOCK TABLE {table}; SELECT pg_sleep(600)"));
        let psql =
            ["exec", "--detach", "--env", &variable, "jisu-db", "psql", "-h", "127.0.0.1", "-U", "postgres", "-d", "jisu_prod", "-c", &sql];
        self.engine.docker(&psql).unwrap();
        self.until("the lock", || self.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'", "postgres") == "1");
    }

    pub fn unlock(&self) {
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'", "postgres");
    }

    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "{what} never came: {:?}",
                self.engine.docker(&["logs", "--tail", "5", "jisu-db"])
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The same command in the network of the engine, where this machine's bridges are.
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net=/proc/{}/ns/net", self.engine.pid())).arg(command.get_program()).args(command.get_args());
        inside.current_dir(command.get_current_dir().unwrap()).env_clear().stdin(Stdio::null());
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside
    }
}
