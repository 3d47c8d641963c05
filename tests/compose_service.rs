//! The compose service of docs/docker.md, run as it is written there, beside a small fund platform whose database publishes no port; and the
//! same database by `reach: docker` from the host.
//!
//! Of the manual's text only the folder `/srv/backup`, dates and the place of Docker's command and socket are other ones here. The image is built
//! from the Dockerfile with the drctl of this test run; its base and tools come from scripts/docker-image.sh.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/compose.rs"]
mod compose;
#[path = "support/engine.rs"]
mod engine;
#[path = "support/postgres.rs"]
mod support;

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use cli::Home;
use compose::{Platform, blocks};
use support::PASSWORD;

const SUM: &str = "SELECT count(*) || ' ' || md5(string_agg(holder, ',' ORDER BY id)) FROM funds";

/// One engine for all of it: starting one and building the image takes some seconds.
#[test]
fn the_documented_service_backs_up_and_restores() {
    let Some(platform) = Platform::start("the_documented_service_backs_up_and_restores") else { return };
    platform.sql("CREATE DATABASE jisu_prod", "postgres");
    platform.sql("CREATE TABLE funds AS SELECT i AS id, 'holder ' || i AS holder FROM generate_series(1, 5000) i", "jisu_prod");
    as_the_manual_says(&platform);
    the_agent_of_the_manual_makes_sets(&platform);
    the_container_is_closed(&platform);
    what_may_not_be_read(&platform);
    a_stop_ends_a_run(&platform);
    a_kill_is_got_over(&platform);
    with_dockers_socket(&platform);
    from_the_host(&platform);
}

fn as_the_manual_says(platform: &Platform) {
    platform.line("install -d", "");
    platform.line("install -o", &format!("{PASSWORD}\n"));
    let made = platform.line("run --rm drctl init", "");
    assert_eq!(made.code, 0, "{}", made.all());
    assert!(made.out.contains("/repository/") && made.out.contains("Passphrase"), "{}", made.all());
    platform.set_jobs(blocks("yaml")[1]);

    // The .env file of the host is its owner's alone.
    let doctor = platform.line("run --rm drctl doctor", "");
    assert_ne!(doctor.code, 0);
    for words in ["/data/.env belongs to root:root, mode 0600", "on the host: setfacl -m u:10001:rX /data/.env", "PostgreSQL 15"] {
        assert!(doctor.out.contains(words), "{words}\n{}", doctor.all());
    }
    assert_eq!(platform.line("setfacl -m u:10001:r .env", "").code, 0);
    let made = platform.line("run --rm drctl backup now", "");
    assert_eq!(made.code, 0, "{}", made.all());
    assert!(made.all().contains("ok jisu/"), "{}", made.all());
    let list = platform.line("run --rm drctl list", "");
    assert!(list.code == 0 && list.out.contains("jisu/"), "{}", list.all());
    let repository = std::fs::metadata(platform.path("srv-backup/drctl-repository.json")).unwrap();
    assert_eq!((repository.uid(), repository.gid()), (10001, 10001));

    // Lost, and had back by the lines of the manual.
    let before = platform.sql(SUM, "jisu_prod");
    let uploads = platform.uploads();
    platform.sql("DROP TABLE funds", "jisu_prod");
    platform.in_app("rm -r /data/uploads/*");
    assert_ne!(platform.uploads(), uploads);
    let back = platform.line("--source postgres", "");
    assert_eq!(back.code, 0, "{}", back.all());
    assert_eq!(platform.sql(SUM, "jisu_prod"), before);
    let back = platform.line("--source uploads", "");
    assert_eq!(back.code, 0, "{}", back.all());
    assert_eq!(platform.uploads(), uploads, "with owners and modes");
    for _ in 0..2 {
        let done = platform.line("restore --finish", "");
        assert_eq!(done.code, 0, "{}", done.all());
    }
    assert_eq!(platform.sql("SELECT count(*) FROM pg_database WHERE datname LIKE '%drctl%'", "postgres"), "0");
}

fn the_agent_of_the_manual_makes_sets(platform: &Platform) {
    let sets = || platform.line("run --rm drctl list", "").out.matches("jisu/").count();
    let before = sets();
    let jobs = blocks("yaml")[1];
    platform.set_jobs(&jobs.replace("    sources:", "    schedule: { full: \"*/5 * * * * *\" }\n    sources:"));
    let up = platform.line("up -d drctl-agent", "");
    assert_eq!(up.code, 0, "{}", up.all());
    let logs = || platform.compose(&["logs", "drctl-agent"], "").all();
    let begun = Instant::now();
    while sets() < before + 2 {
        assert!(begun.elapsed() < Duration::from_secs(300), "{}", logs());
    }
    platform.set_jobs(jobs);
    assert_eq!(platform.line("kill -s HUP drctl-agent", "").code, 0);
    let begun = Instant::now();
    while !logs().contains("the configuration changed") {
        assert!(begun.elapsed() < Duration::from_secs(120), "{}", logs());
    }
    assert_eq!(platform.compose(&["stop", "drctl-agent"], "").code, 0);
    assert!(logs().contains("\"stopped\""), "{}", logs());
    assert_eq!(platform.compose(&["rm", "-f", "drctl-agent"], "").code, 0);
}

fn the_container_is_closed(platform: &Platform) {
    let script = "id -u; grep CapEff /proc/self/status; touch /usr/x 2>&1; ls -d /var/run/docker.sock 2>&1";
    let seen = platform.compose(&["run", "--rm", "-T", "--entrypoint", "tini -- sh -c", "drctl", script], "");
    for words in ["10001\n", "CapEff:\t0000000000000000\n", "Read-only file system", "docker.sock': No such file"] {
        assert!(seen.out.contains(words), "{words}\n{}", seen.all());
    }
    // The copies do not start without their capabilities.
    for copy in ["drctl-read-all", "drctl-restore"] {
        let run = ["run", "--rm", "--network", "none", "--cap-drop", "ALL", "--entrypoint", copy, "drctl", "--version"];
        assert!(platform.engine.docker(&run).unwrap_err().contains("operation not permitted"));
    }
    let set_uid = ["run", "--rm", "--network", "none", "--entrypoint", "find", "drctl", "/usr", "-perm", "/6000"];
    assert_eq!(platform.engine.docker(&set_uid).unwrap(), "");
}

fn what_may_not_be_read(platform: &Platform) {
    platform.in_app("umask 077; echo closed > /data/uploads/closed; mkdir /data/uploads/vault; echo x > /data/uploads/vault/x");
    platform.in_app("chown -R www-data /data/uploads/closed /data/uploads/vault");
    let doctor = platform.line("run --rm drctl doctor", "");
    for words in [
        "2 of 5 files and folders may not be read by drctl (uid 10001)",
        "/data/uploads/closed (www-data:root, mode 0600), /data/uploads/vault (www-data:root, mode 0700)",
        "on the host: setfacl -R -m u:10001:rX,d:u:10001:rX /data/uploads",
    ] {
        assert!(doctor.out.contains(words), "{words}\n{}", doctor.all());
    }
    let partial = platform.line("run --rm drctl backup now", "");
    assert_eq!(partial.code, 3, "{}", partial.all());
    // What the restores wrote to state and repository is not in the way.
    assert!(!partial.all().contains("not recorded"), "{}", partial.all());
    // The manual's variant, beside the service.
    platform.also(blocks("yaml")[2]);
    let whole = platform.line("run --rm drctl backup now", "");
    assert!(whole.code == 0 && !whole.all().contains("may not be read"), "{}", whole.all());
    // It reads what it may not, and writes no more than before.
    let script = "touch /data/x 2>&1; touch /var/spool/x 2>&1; ls -ln /repository/drctl-repository.json";
    let seen = platform.compose(&["run", "--rm", "-T", "--entrypoint", "tini -- sh -c", "drctl", script], "");
    assert!(seen.out.contains("10001 10001") && seen.out.matches("cannot touch").count() == 2, "{}", seen.all());
    platform.also("");
    // The manual's line for the host does as well.
    assert_eq!(platform.line("setfacl -R", "").code, 0);
    platform.in_app("echo new > /data/uploads/new; mkdir -m 770 /data/uploads/vault/new");
    let doctor = platform.line("run --rm drctl doctor", "");
    assert!(!doctor.out.contains("may not be read"), "{}", doctor.all());
}

/// A run that was killed with its container keeps nobody out.
fn a_kill_is_got_over(platform: &Platform) {
    platform.lock("funds");
    let id = waiting_run(platform);
    let locked = platform.line("run --rm drctl backup now", "");
    assert_eq!(locked.code, 7, "{}", locked.all());
    platform.engine.docker(&["kill", &id]).unwrap();
    platform.unlock();
    let made = platform.line("run --rm drctl backup now", "");
    assert_eq!(made.code, 0, "{}", made.all());
}

/// A backup in a container of its own that waits for the locked table.
fn waiting_run(platform: &Platform) -> String {
    let started = platform.compose(&["run", "--detach", "drctl", "backup", "now"], "");
    assert_eq!(started.code, 0, "{}", started.all());
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'drctl/%' AND wait_event_type = 'Lock'";
    platform.until("the wait", || platform.sql(waits, "postgres") == "1");
    started.out.lines().last().unwrap().to_owned()
}

/// A dump that waits for a lock is ended by `docker stop`, at once, as by a signal.
fn a_stop_ends_a_run(platform: &Platform) {
    platform.lock("funds");
    let id = waiting_run(platform);
    // An orphan that has ended is taken off the list by the first process; nobody else would.
    let orphan = "orphan=$(sleep 0.1 > /dev/null & echo $!); n=0; \
                  while [ -e /proc/$orphan ] && [ $n -lt 1200 ]; do sleep 0.05; n=$((n + 1)); done; \
                  grep -ls 'State:.Z' /proc/$orphan/status; cat /proc/1/comm";
    assert_eq!(platform.engine.docker(&["exec", &id, "sh", "-c", orphan]).unwrap(), "tini");
    let begun = Instant::now();
    platform.engine.docker(&["stop", "--time", "300", &id]).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(200), "{:?}", begun.elapsed());
    let code = platform.engine.docker(&["inspect", "--format", "{{.State.ExitCode}}", &id]).unwrap();
    assert_eq!(code, "143", "{:?}", platform.engine.docker(&["logs", &id]));
    platform.unlock();
}

fn with_dockers_socket(platform: &Platform) {
    let gid = std::fs::metadata(platform.engine.path("docker.sock")).unwrap().gid().to_string();
    let found = drctl::process::lookup::find("docker", &drctl::process::lookup::path_folders());
    let docker = found.tools[0].display().to_string();
    let mount = format!("{docker}:/usr/bin/docker:ro");
    if platform.engine.docker(&["run", "--rm", "--network", "none", "-v", &mount, "--entrypoint", "docker", "drctl", "--version"]).is_err()
    {
        eprintln!("SKIPPED the service with Docker's socket: {docker} does not run on Debian bookworm");
        return;
    }
    let socket = platform.engine.path("docker.sock").display().to_string();
    let service = blocks("yaml")[3].replace("\"999\"", &format!("{gid:?}")).replace("- /var/run/docker.sock:", &format!("- {socket}:"));
    platform.also(&service.replace("- /usr/bin/docker:", &format!("- {docker}:")));
    platform.set_jobs(&blocks("yaml")[1].replace("host: db", "reach: { docker: db }"));
    // Nothing but the socket leads from the container's own 127.0.0.1 to the database.
    let made = platform.line("run --rm drctl backup now", "");
    assert_eq!(made.code, 0, "{}", made.all());
    platform.also("");
}

/// By `docker exec`, and by the address in the compose network where this machine has a foot in it.
fn from_the_host(platform: &Platform) {
    let home = home_reaching("db", "jisu_prod", PASSWORD, &[("DOCKER_HOST", &platform.engine.host())]);
    for apart in [false, true] {
        let run = |args: &[&str]| {
            let command = home.command(args);
            cli::Ran::of(if apart { platform.inside(&command) } else { command }.output().unwrap())
        };
        let made = lost_and_back(&run, &|sql| platform.sql(sql, "jisu_prod"), "DROP TABLE funds", &[SUM]);
        assert_eq!(made.all().contains("Address("), apart, "{}", made.all());
    }
}

/// A home with one job: this database of this compose service.
fn home_reaching(service: &str, database: &str, password: &str, env: &[(&str, &str)]) -> Home {
    let mut home = Home::new();
    for (name, value) in env {
        home.env(name, value);
    }
    home.write("pg-password", password);
    home.init(&format!(
        "jobs:\n  - job: shop\n    timezone: UTC\n    sources:\n      - postgres: {{ reach: {{ docker: {service} }}, user: postgres, password: {{ file: \
         pg-password }}, database: [{database}] }}\n"
    ));
    home
}

/// Backs up and reads back, loses, restores, finishes; what the sums say must be what they said. Gives what the backup said.
fn lost_and_back(run: &dyn Fn(&[&str]) -> cli::Ran, sql: &dyn Fn(&str) -> String, lose: &str, sums: &[&str]) -> cli::Ran {
    let ok = |args: &[&str]| {
        let ran = run(args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.all());
        ran
    };
    let sum = || sums.iter().map(|query| sql(query)).collect::<Vec<_>>();
    let before = sum();
    let made = ok(&["backup", "now", "--verify", "read-back", "-vv"]);
    sql(lose);
    ok(&["restore", "--date", "latest", "--yes"]);
    assert_eq!(sum(), before);
    ok(&["restore", "--finish", "--yes"]);
    made
}

/// Services of docker-compose.test.yml that run, by `make test-compose`.
const SERVERS: &str = "DRCTL_TEST_SERVERS";
const ORIGINALS: &str = include_str!("../docker-compose.test.yml");

#[test]
fn the_originals() {
    let Some(servers) = std::env::var(SERVERS).ok().filter(|servers| !servers.is_empty()) else {
        eprintln!("SKIPPED the_originals: {SERVERS} is not set (make test-compose starts the real images and sets it)");
        return;
    };
    for service in servers.split_ascii_whitespace() {
        original(service);
        eprintln!("{service}: backed up, lost, restored, equal");
    }
}

fn original(service: &str) {
    let services = services();
    assert!(services.contains_key(service), "{service} is not in docker-compose.test.yml");
    let passed_on = ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "HOME", "XDG_RUNTIME_DIR"].map(|name| (name, std::env::var(name)));
    let env: Vec<(&str, &str)> = passed_on.iter().filter_map(|(name, value)| Some((*name, value.as_deref().ok()?))).collect();
    let label = ["com.docker.compose.project=drctl-test".to_owned(), format!("com.docker.compose.service={service}")];
    let docker = |args: &[&str]| {
        let out = std::process::Command::new("docker").args(args).output().unwrap();
        if out.status.success() { Ok(String::from_utf8(out.stdout).unwrap().trim().to_owned()) } else { Err(out.stderr) }
    };
    let filters = label.map(|label| format!("--filter=label={label}"));
    let name = docker(&["ps", "--format", "{{.Names}}", &filters[0], &filters[1]]).unwrap();
    assert_eq!(name.lines().count(), 1, "containers of service {service} in project drctl-test: {name}");
    let sql_in = |database: &str, sql: &str| {
        docker(&["exec", &name, "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-d", database, "-c", sql])
    };
    // While it makes its cluster the official image listens on no address.
    let since = Instant::now();
    while sql_in("postgres", "SELECT 1").is_err() {
        assert!(since.elapsed() < Duration::from_secs(120), "{service} does not start: {:?}", docker(&["logs", "--tail", "5", &name]));
        std::thread::sleep(Duration::from_millis(200));
    }
    let sql = |text: &str| sql_in("shop", text).unwrap_or_else(|e| panic!("{text}: {}", String::from_utf8_lossy(&e)));
    for text in ["DROP DATABASE IF EXISTS shop", "CREATE DATABASE shop"] {
        sql_in("postgres", text).unwrap();
    }
    sql("CREATE TABLE funds AS SELECT i AS id, 'holder ' || i AS holder FROM generate_series(1, 5000) i");
    let mut sums = vec![SUM];
    if service == "timescale" {
        for text in TIMESCALE {
            sql(text);
        }
        sums.extend(TIMESCALE_SUMS);
        assert_eq!(sql(TIMESCALE_SUMS[1]).split(' ').count(), 2);
    }
    let home = home_reaching(service, "shop", "drctl-test", &env);
    lost_and_back(&|args| home.run(args), &sql, "DROP TABLE funds", &sums);
}

/// Chunks, some of them compressed.
const TIMESCALE: [&str; 5] = [
    "CREATE EXTENSION IF NOT EXISTS timescaledb",
    "CREATE TABLE load (at timestamptz NOT NULL, value int)",
    "SELECT create_hypertable('load', 'at', chunk_time_interval => interval '1 day')",
    "INSERT INTO load SELECT timestamptz '2025-01-01' + i * interval '10 min', i FROM generate_series(1, 2000) i; ALTER TABLE load SET (timescaledb.compress)",
    "SELECT compress_chunk(c) FROM show_chunks('load', older_than => timestamptz '2025-01-06') c",
];
const TIMESCALE_SUMS: [&str; 2] = [
    "SELECT count(*) || ' ' || sum(value) FROM load",
    "SELECT count(*) || ' ' || count(*) FILTER (WHERE is_compressed) FROM timescaledb_information.chunks",
];

fn services() -> serde_json::Map<String, serde_json::Value> {
    let file: serde_json::Value = serde_saphyr::from_str(ORIGINALS).unwrap();
    file["services"].as_object().unwrap().clone()
}

/// No engine is needed for this.
#[test]
fn the_compose_file_of_the_originals_is_sound() {
    let services = services();
    let majors: Vec<String> = (13..=18).map(|major| format!("postgres{major}")).collect();
    let names: Vec<&String> = services.keys().collect();
    assert_eq!(names.len(), majors.len() + 1, "{names:?}");
    for (name, service) in &services {
        let image = service["image"].as_str().unwrap();
        match name.strip_prefix("postgres") {
            Some(major) => assert_eq!(image, format!("postgres:{major}")),
            None => assert!(name == "timescale" && image.starts_with("timescale/timescaledb:"), "{name}: {image}"),
        }
        assert_eq!(service["environment"]["POSTGRES_PASSWORD"], "drctl-test", "{name}");
        assert_eq!(service["healthcheck"]["test"][1], "pg_isready", "{name}");
        assert!(service.get("ports").is_none(), "{name} publishes a port");
    }
    // As compose itself reads it, where it is.
    match compose::parse("docker-compose.test.yml") {
        None => eprintln!("SKIPPED docker compose config: there is no docker compose here"),
        Some(ran) => {
            assert_eq!(ran.code, 0, "{}", ran.all());
            let mut listed: Vec<&str> = ran.out.lines().collect();
            listed.sort_unstable();
            assert_eq!(listed, names);
        }
    }
}
