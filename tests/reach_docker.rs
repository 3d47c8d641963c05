//! A database in a container whose port is not published, with a real engine: connections, tools, cancels, and what people get wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/engine.rs"]
mod engine;
#[path = "support/sshd.rs"]
mod sshd;
#[path = "support/postgres.rs"]
mod support;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cli::{Home, Ran};
use engine::Engine;
use sshd::processes;
use support::{PASSWORD, fake_tools};

const SUM: &str = "SELECT count(*) || ' ' || md5(string_agg(item, ',' ORDER BY id)) FROM orders";

fn home(engine: &Engine) -> Home {
    let mut home = Home::new();
    home.env("DOCKER_HOST", &engine.host());
    home.write("pg-password", PASSWORD);
    home
}

fn jobs(reach: &str, more: &str) -> String {
    format!(
        "jobs:\n  - job: shop\n    timezone: UTC\n    sources:\n      - postgres: {{ reach: {{ docker: {reach} }}, user: postgres, password: {{ file: \
         pg-password }}, database: [shop]{more} }}\n"
    )
}

fn set_jobs(home: &Home, jobs: &str) {
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let head: Vec<&str> = config.lines().take_while(|line| !line.starts_with("jobs:")).collect();
    home.write("drctl.yaml", &format!("{}\n{jobs}", head.join("\n")));
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Arguments of every process while drctl runs, the container's too, that hold the password; and those of `docker`.
fn watched(home: &Home, args: &[&str], leaks: &mut BTreeSet<String>, seen: &mut BTreeSet<String>) {
    let child = home.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiting = std::thread::spawn(move || Ran::of(child.wait_with_output().unwrap()));
    while !waiting.is_finished() {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |file: &str| String::from_utf8_lossy(&std::fs::read(entry.path().join(file)).unwrap_or_default()).replace('\0', " ");
            let (line, is_docker) = (read("cmdline"), read("comm").trim() == "docker");
            if line.contains(PASSWORD) || (is_docker && read("environ").contains(PASSWORD)) {
                leaks.insert(line.clone());
            }
            if is_docker {
                seen.insert(line);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let ran = waiting.join().unwrap();
    assert_eq!(ran.code, 0, "{}", ran.all());
}

/// One engine for all of it: starting one takes some seconds.
#[test]
fn databases_in_containers() {
    let Some(engine) = Engine::start("databases_in_containers") else { return };
    engine.postgres("shop-db-1", "db", "none", 5432);
    engine.sql("shop-db-1", 5432, "postgres", "CREATE DATABASE shop").unwrap();
    let fill = "DROP TABLE IF EXISTS orders; CREATE TABLE orders AS SELECT i AS id, 'item ' || i AS item FROM generate_series(1, 5000) i";
    engine.sql("shop-db-1", 5432, "shop", fill).unwrap();
    let home = home(&engine);
    // init sees the service in the compose file, takes user and password from there, and tries it.
    home.write(
        "compose.yml",
        &format!("services:\n  db:\n    image: postgres:15\n    environment: {{ POSTGRES_PASSWORD: {PASSWORD:?} }}\n"),
    );
    home.write("passphrase", "correct horse battery staple");
    let made = home.ok(&["init", "--job", "shop", "--passphrase-file", "passphrase"]);
    assert!(made.out.contains("works   db: PostgreSQL 15") && made.out.contains("db:5432 by docker db"), "{}", made.all());
    let written = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    assert!(written.contains("reach: { docker: db }") && !written.contains(PASSWORD), "{written}");
    backed_up_and_restored(&engine, &home);
    nothing_is_left_behind(&engine, &home);
    on_the_hosts_network(&engine, &home);
    what_people_get_wrong(&engine, &home);
}

fn backed_up_and_restored(engine: &Engine, home: &Home) {
    let nothing = fake_tools(&[]);
    let sum = || engine.sql("shop-db-1", 5432, "shop", SUM);
    let before = sum().unwrap();
    for more in [String::new(), format!(", client_folders: [{}]", nothing.path().display())] {
        set_jobs(home, &jobs("db", &more));
        let doctor = home.run(&["doctor"]);
        assert!(doctor.out.contains("db:5432 by docker db"), "{}", doctor.all());
        assert_eq!(doctor.out.contains("dumped by the pg_dump 15"), !more.is_empty(), "{}", doctor.out);
        let (mut leaks, mut seen) = (BTreeSet::new(), BTreeSet::new());
        watched(home, &["backup", "now", "--verify", "read-back"], &mut leaks, &mut seen);
        engine.sql("shop-db-1", 5432, "shop", "DROP TABLE orders").unwrap();
        watched(home, &["restore", &home.newest(), "--yes"], &mut leaks, &mut seen);
        assert_eq!(sum().unwrap(), before);
        home.ok(&["restore", "--finish", "--yes"]);
        // The look may have come too late.
        for _ in 0..5 {
            if !seen.iter().any(|line| line.contains("exec --interactive")) {
                watched(home, &["backup", "now"], &mut leaks, &mut seen);
            }
        }
        assert_eq!(leaks, BTreeSet::new());
        assert!(seen.iter().any(|line| line.contains("exec --interactive")), "{seen:?}");
    }
}

/// A dump that waits for a lock; then drctl is told to end, or is killed.
fn nothing_is_left_behind(engine: &Engine, home: &Home) {
    let nothing = fake_tools(&[]);
    for (more, signal) in [
        (String::new(), rustix::process::Signal::TERM),
        (format!(", client_folders: [{}]", nothing.path().display()), rustix::process::Signal::TERM),
        (format!(", client_folders: [{}]", nothing.path().display()), rustix::process::Signal::KILL),
    ] {
        // It does not end by itself while the test waits for its end.
        set_jobs(home, &jobs("db", &format!("{more}, lock_wait_timeout: 10m")));
        let lock = "BEGIN; LOCK TABLE orders; SELECT pg_sleep(600)";
        let variable = format!("PGPASSWORD={PASSWORD}");
        let psql =
            ["exec", "--detach", "--env", &variable, "shop-db-1", "psql", "-h", "127.0.0.1", "-U", "postgres", "-d", "shop", "-c", lock];
        engine.docker(&psql).unwrap();
        let count = |filter: &str| {
            engine.sql("shop-db-1", 5432, "postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE {filter}")).unwrap()
        };
        until("the lock", || count("wait_event = 'PgSleep'") == "1");
        let mut child = home.command(&["backup", "now"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the wait", || count("application_name LIKE 'drctl/%' AND wait_event_type = 'Lock'") == "1");
        assert_eq!(processes("pg_dump", "PGAPPNAME=drctl/").len(), 1, "{more}");
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
        until("the end of pg_dump", || processes("pg_dump", "PGAPPNAME=drctl/").is_empty());
        if signal == rustix::process::Signal::TERM {
            until("the end of its session", || count("application_name LIKE 'drctl/%'") == "0");
        }
        count("CASE WHEN wait_event = 'PgSleep' THEN pg_terminate_backend(pid) END");
        until("the end of all sessions", || count("application_name LIKE 'drctl%'") == "0");
        // No shell of ours either: neither one that carried a connection nor one that watched.
        let top = || engine.docker(&["exec", "shop-db-1", "bash", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).unwrap();
        until("the end of the shells", || !top().contains("/dev/tcp/$1") && !top().contains("IFS= read -r s"));
    }
    set_jobs(home, &jobs("db", ""));
}

/// The engine is here and the container shares this machine's network: local tools connect by themselves.
fn on_the_hosts_network(engine: &Engine, home: &Home) {
    let port = support::free_port();
    engine.postgres("shop-direct-1", "direct", "host", port);
    engine.sql("shop-direct-1", port, "postgres", "CREATE DATABASE shop").unwrap();
    engine.sql("shop-direct-1", port, "shop", "CREATE TABLE orders AS SELECT 1 AS id").unwrap();
    set_jobs(home, &jobs("shop-direct-1", &format!(", port: {port}")));
    let (mut leaks, mut seen) = (BTreeSet::new(), BTreeSet::new());
    watched(home, &["backup", "now", "--accept-new-identity", "postgres"], &mut leaks, &mut seen);
    assert_eq!(leaks, BTreeSet::new());
    assert!(!seen.iter().any(|line| line.contains("exec --interactive")), "{seen:?}");
    set_jobs(home, &jobs("db", ""));
}

fn what_people_get_wrong(engine: &Engine, home: &Home) {
    let said = |reach: &str, more: &str, words: &str| {
        set_jobs(home, &jobs(reach, more));
        // Not `backup now`, which tries again what may come back.
        let ran = home.run(&["doctor"]);
        assert_ne!(ran.code, 0);
        assert!(ran.all().contains(words), "{words}:\n{}", ran.all());
    };
    said("nowhere", "", "there is no container and no compose service 'nowhere'");
    said("db", ", port: 5433", "nothing listens on that port");
    let run =
        ["run", "--detach", "--network", "none", "--label", "com.docker.compose.service=db", "--label", "com.docker.compose.project=other"];
    engine.docker(&[&run[..], &["--name", "other-db-1", "drctl-test-postgres:15", "sleep", "1000"]].concat()).unwrap();
    said("db", "", "2 containers are compose service 'db': ");
    said("other-db-1", "", "nothing listens on that port");
    engine.docker(&["pause", "other-db-1"]).unwrap();
    said("other-db-1", "", "docker unpause other-db-1");
    engine.docker(&["unpause", "other-db-1"]).unwrap();
    engine.docker(&["kill", "other-db-1"]).unwrap();
    said("other-db-1", "", "docker start other-db-1");
}

/// No engine is needed for these.
#[test]
fn an_engine_that_is_not_there() {
    let mut home = Home::new();
    home.write("pg-password", PASSWORD);
    home.init(&jobs("db", ""));
    home.env("DOCKER_HOST", &format!("unix://{}", home.path("no.sock").display()));
    let ran = home.run(&["doctor"]);
    assert_ne!(ran.code, 0, "{}", ran.all());
    assert!(ran.all().contains("Cannot connect to the Docker daemon") && ran.all().contains("systemctl start docker"), "{}", ran.all());
    let nothing = fake_tools(&[]);
    home.env("PATH", &nothing.path().display().to_string());
    let ran = home.run(&["doctor"]);
    assert!(ran.all().contains("there is no docker in PATH"), "{}", ran.all());
    // What the engine's socket says to a user who may not use it, in Docker's words.
    let denied = "echo 'permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock' >&2; exit 1";
    let fake = fake_tools(&[("docker", denied)]);
    home.env("PATH", &fake.path().display().to_string());
    let ran = home.run(&["doctor"]);
    assert!(ran.all().contains("usermod -aG docker"), "{}", ran.all());
}
