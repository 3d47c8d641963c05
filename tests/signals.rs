//! SIGTERM and SIGINT in the midst of a backup or a restore: the exit code says so, and nothing is left (FAULTS 8).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use cli::{Home, Ran};
use rustix::process::{Pid, Signal, kill_process};
use shop::Shop;

/// A run under way, killed when the test fails.
struct Running(Option<Child>);

impl Running {
    /// With SIGHUP as it is at a terminal, whatever the tests were started below.
    fn start(home: &Home, args: &[&str]) -> Running {
        Running::start_by(&["env", "--default-signal=HUP"], home, args)
    }

    /// By a program that becomes drctl.
    fn start_by(program: &[&str], home: &Home, args: &[&str]) -> Running {
        let (drctl, mut command) = (home.command(args), std::process::Command::new(program[0]));
        command.args(&program[1..]).arg(drctl.get_program()).args(drctl.get_args()).current_dir(home.path("")).env_clear();
        for (name, value) in drctl.get_envs() {
            command.env(name, value.unwrap());
        }
        Running(Some(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.0.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    fn end(mut self, within: Duration) -> Ran {
        let begun = Instant::now();
        let mut child = self.0.take().unwrap();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > within {
                child.kill().unwrap();
                panic!("it did not end within {within:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ran::of(child.wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn alive(pid: &str) -> bool {
    drctl::state::process_is_alive(pid.trim().parse().unwrap_or(0))
}

/// A shop whose pg_dump waits for a lock for longer than any test: it does not end by itself.
fn patient() -> Shop {
    let shop = Shop::new();
    shop.set_jobs(&shop.jobs().replace(&shop.postgres(""), &shop.postgres(", lock_wait_timeout: 10m")));
    shop
}

/// Whether a pg_dump or pg_restore of the shop's database, or of one beside it, is there: other tests share the server.
fn clients(shop: &Shop) -> bool {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let mut lines = numbers.filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok());
    let names = [format!("--dbname=dbname='{}'", shop.database), format!("--dbname=dbname='{}_drctl_", shop.database)];
    let port = format!("--port={}\0", shop.server.port);
    lines.any(|line| {
        let line = String::from_utf8_lossy(&line);
        line.contains(&port) && names.iter().any(|name| line.contains(name))
    })
}

/// Keys of the repository that only a run under way may have.
fn stored(home: &Home) -> Vec<String> {
    let files = home.files("drctl-repository");
    files.into_iter().filter(|f| !f.contains("/lease/")).collect()
}

#[test]
fn f08_a_signal_in_the_midst_of_a_dump_leaves_no_child_no_object_no_record() {
    let home = Home::new();
    home.write("a/1", "1");
    // It gives a few MiB, of which something is in the store by then, and never ends.
    let slow = "echo $$ > pid; head -c 20000000 /dev/urandom; sleep 600 & echo $! > child; wait";
    home.init(&format!(
        "jobs:\n  - job: shop\n    sources:\n      - files: {{ paths: [a] }}\n      - command: {{ name: slow, run: [sh, -c, \"{slow}\"] }}\n"
    ));
    for (signal, code, word) in [(Signal::TERM, 143, "terminated"), (Signal::INT, 130, "interrupted"), (Signal::HUP, 143, "terminated")] {
        let before = stored(&home);
        let running = Running::start(&home, &["backup", "now"]);
        // Written, not only made.
        let told = |name: &str| std::fs::read_to_string(home.path(name)).is_ok_and(|text| text.ends_with('\n'));
        until("the child", || told("pid") && told("child"));
        until("an object", || stored(&home).len() > before.len());
        let (pid, child) = (read(&home, "pid"), read(&home, "child"));
        assert!(alive(&pid) && alive(&child));
        running.signal(signal);
        let ran = running.end(Duration::from_secs(120));
        assert_eq!(ran.code, code, "{}", ran.all());
        assert!(ran.err.contains(word) && ran.err.contains("nothing was committed"), "{}", ran.err);
        // What the child started is killed and not waited for.
        until("the end of the child and of what it started", || !alive(&pid) && !alive(&child));
        assert_eq!(stored(&home), before, "{}", ran.all());
        std::fs::remove_file(home.path("child")).unwrap();
        // Its end is known: not interrupted, and the lease is free.
        let status = home.ok(&["status"]);
        assert!(!status.out.contains("interrupted: "), "{}", status.out);
        let leases = home.files("drctl-repository/jobs/shop/lease");
        let newest = home.path("drctl-repository/jobs/shop/lease").join(leases.last().unwrap());
        let lease: serde_json::Value = serde_json::from_slice(&std::fs::read(newest).unwrap()).unwrap();
        assert_eq!(lease["released"], true, "the lease was given back: {lease}");
        home.ok(&["backup", "now", "--source", "files"]);
    }
    // Below nohup a closed terminal ends nothing.
    let running = Running::start_by(&["nohup"], &home, &["backup", "now"]);
    let told = |name: &str| std::fs::read_to_string(home.path(name)).is_ok_and(|text| text.ends_with('\n'));
    until("the child", || told("child"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.as_ref().unwrap().id())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 1, 1, "SIGHUP, number 1, is still ignored: {status}");
    running.signal(Signal::TERM);
    assert_eq!(running.end(Duration::from_secs(120)).code, 143);
    home.ok(&["verify", "--all"]);
}

fn read(home: &Home, below: &str) -> String {
    std::fs::read_to_string(home.path(below)).unwrap()
}

#[test]
fn f08_a_signal_while_pg_dump_waits_for_a_lock_and_while_pg_restore_loads() {
    let shop = patient();
    let set = shop.backup();
    let before = stored(&shop.home);
    let mut locking =
        shop.server.sql_in_background(&shop.database, "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)");
    until("the lock", || {
        shop.sql("SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND mode = 'AccessExclusiveLock'") == "1"
    });
    let running = Running::start(&shop.home, &["backup", "now"]);
    until("pg_dump at the lock", || clients(&shop) && waiting(&shop));
    running.signal(Signal::TERM);
    let ran = running.end(Duration::from_secs(120));
    assert_eq!(ran.code, 143, "{}", ran.all());
    until("the end of pg_dump", || !clients(&shop));
    assert_eq!(stored(&shop.home), before);
    locking.kill().unwrap();
    locking.wait().unwrap();
    shop.server.sql("postgres", &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", shop.database));

    // A restore that is stopped while it loads leaves the live data and nothing beside it. The load hangs in a trigger of our making.
    shop.sql("CREATE TABLE slow (i int); INSERT INTO slow VALUES (1); CREATE FUNCTION snail(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN IF current_database() <> '__LIVE__' THEN PERFORM pg_sleep(600); END IF; RETURN i; END $$; CREATE INDEX ON slow (snail(i))".replace("__LIVE__", &shop.database).as_str());
    let slow = shop.backup();
    let whole = shop.picture();
    let running = Running::start(&shop.home, &["restore", &slow, "--yes"]);
    until("the load", || {
        shop.server.sql(
            "postgres",
            &format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE '{}\\_drctl\\_%' AND query LIKE 'CREATE INDEX%'",
                shop.database
            ),
        ) == "1"
    });
    assert!(clients(&shop), "pg_restore is seen");
    running.signal(Signal::INT);
    let ran = running.end(Duration::from_secs(120));
    assert_eq!(ran.code, 130, "{}", ran.all());
    until("the end of pg_restore", || !clients(&shop));
    assert_eq!((shop.databases().len(), shop.beside().len()), (1, 0), "{:?}\n{}", shop.databases(), ran.all());
    assert_eq!(shop.picture(), whole);
    assert!(!shop.home.ok(&["status"]).out.contains("restore --"), "nothing is left to undo");
    shop.home.ok(&["restore", &set, "--dry-run"]);
}

/// Killed while pg_dump says nothing for it waits: no broken pipe ends it, and it must not stay behind with the locks it has.
#[test]
fn f02_kill_9_while_pg_dump_waits_for_a_lock_leaves_no_pg_dump() {
    let shop = patient();
    shop.backup();
    let before = stored(&shop.home);
    let mut locking =
        shop.server.sql_in_background(&shop.database, "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)");
    until("the lock", || {
        shop.sql("SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND mode = 'AccessExclusiveLock'") == "1"
    });
    let running = Running::start(&shop.home, &["backup", "now", "--source", "postgres"]);
    until("pg_dump at the lock", || clients(&shop) && waiting(&shop));
    running.signal(Signal::KILL);
    assert_eq!(running.end(Duration::from_secs(60)).code, 137);
    until("the end of pg_dump", || !clients(&shop));
    locking.kill().unwrap();
    locking.wait().unwrap();
    shop.server.sql("postgres", &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", shop.database));
    shop.home.ok(&["backup", "now"]);
    assert!(before.iter().all(|key| stored(&shop.home).contains(key)));
    shop.home.ok(&["verify", "--all"]);
}

fn waiting(shop: &Shop) -> bool {
    shop.sql("SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted") != "0"
}
