//! Rows of the fault matrix through the built program: what is said, the exit code, and that nothing stored earlier is harmed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use cli::{Home, Ran};
use shop::Shop;
use support::Server;

const FILES: &str = "jobs:\n  - job: shop\n    sources:\n      - files: { paths: [data] }\n";

fn files() -> Home {
    let home = Home::new();
    home.write("data/a.txt", "a");
    home.init(FILES);
    home
}

/// Keys of the repository without leases.
fn stored(home: &Home) -> Vec<String> {
    home.files("drctl-repository").into_iter().filter(|f| !f.contains("/lease/")).collect()
}

#[test]
fn f62_mistakes_in_the_configuration_are_named_with_their_line_and_nothing_runs() {
    let home = files();
    let good = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let line = |text: &str, of: &str| text.lines().enumerate().filter(|(_, l)| l.contains(of)).last().unwrap().0 + 1;
    let before = stored(&home);

    let unknown = good.replace("files: { paths", "files: { pahts");
    home.write("drctl.yaml", &unknown);
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(
        ran.err.contains(&format!("drctl.yaml:{}:", line(&unknown, "pahts"))) && ran.err.contains("did you mean 'paths'"),
        "{}",
        ran.err
    );

    let twice =
        good.replace("      - files: { paths: [data] }", "      - files: { paths: [data] }\n      - files: { paths: [data] } # second");
    home.write("drctl.yaml", &twice);
    let ran = home.run(&["config", "check"]);
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.err.contains(&format!("drctl.yaml:{}:", line(&twice, "second"))) && ran.err.contains("name"), "{}", ran.err);

    let both = unknown.replace("job: shop", "job: Shop!");
    home.write("drctl.yaml", &both);
    let ran = home.run(&["list"]);
    assert!(ran.err.matches("drctl.yaml:").count() >= 2, "all mistakes at once: {}", ran.err);

    home.write("drctl.yaml", &good);
    for secret in ["drctl-keys/identity.txt", "drctl-keys/signing.key"] {
        std::fs::set_permissions(home.path(secret), PermissionsExt::from_mode(0o640)).unwrap();
        let ran = home.run(&["backup", "now"]);
        assert_eq!(ran.code, 2, "{secret}: {}", ran.all());
        assert!(ran.err.contains(secret) && ran.err.contains("chmod 600"), "{secret}: {}", ran.err);
        std::fs::set_permissions(home.path(secret), PermissionsExt::from_mode(0o600)).unwrap();
    }
    assert_eq!(stored(&home), before);
    let none = Home::new().run(&["backup", "now"]);
    assert_eq!(none.code, 2, "{}", none.all());
    assert!(none.err.contains("drctl init"), "{}", none.err);
}

#[test]
fn f30_f42_f45_f66_what_can_be_wrong_with_a_database_and_what_may_change() {
    let shop = Shop::new();
    let jobs = |postgres: &str| format!("jobs:\n  - job: shop\n    timezone: UTC\n    sources:\n      - {postgres}\n");
    shop.set_jobs(&jobs(&shop.postgres("")));
    let good = shop.backup();
    let before = stored(&shop.home);

    // F30: no pg_dump.
    std::fs::create_dir(shop.home.path("empty")).unwrap();
    shop.set_jobs(&jobs(&shop.postgres(", client_folders: [empty]")));
    for args in [&["backup", "now"][..], &["backup", "--dry-run"]] {
        let ran = shop.run(args);
        assert_eq!(ran.code, 4, "{args:?}: {}", ran.all());
        assert!(
            ran.err.contains("there is no pg_dump in") && ran.err.contains("hint: apt-get install postgresql-client-15"),
            "{}",
            ran.err
        );
    }

    // F42: a wrong password.
    shop.set_jobs(&jobs(&shop.postgres("")));
    shop.home.write("pg-password", "wrong");
    let failures = || shop.server.log().matches("password authentication failed").count();
    let tried = failures();
    let ran = shop.run(&["backup", "now"]);
    assert_eq!(ran.code, 4, "{}", ran.all());
    assert!(ran.err.contains("password authentication failed") && ran.err.contains("hint: "), "{}", ran.err);
    assert!(failures() - tried <= 2, "no lockout storm: {} tries", failures() - tried);
    shop.home.write("pg-password", support::PASSWORD);

    assert_eq!(stored(&shop.home), before);
    shop.home.ok(&["verify", &good]);
}

#[test]
fn f39_a_server_that_is_down_is_unreachable_and_the_other_sources_still_run() {
    let server = std::sync::Arc::new(Server::start());
    let shop = Shop::on(server);
    let good = shop.backup();
    shop.server.crash();
    let alone = shop.run(&["backup", "now", "--source", "postgres"]);
    assert_eq!(alone.code, 8, "{}", alone.all());
    assert!(alone.err.contains("127.0.0.1") && alone.err.contains("refused"), "{}", alone.err);
    assert_eq!(shop.home.sets(), [good.as_str()]);
    let partial = shop.run(&["backup", "now"]);
    assert_eq!(partial.code, 3, "{}", partial.all());
    assert!(partial.out.contains("PARTIAL") && partial.out.contains("! postgres: "), "{}", partial.out);
    // A partial set is not what a date means, but its whole sources can be had by its id.
    let newest = shop.home.newest();
    assert_eq!(shop.home.json(&["show", "latest"])["result"]["set"]["set"], good.as_str());
    let status = shop.home.ok(&["status"]);
    assert!(status.out.contains("newer, not good") && status.out.contains(&newest), "{}", status.out);
    shop.home.ok(&["restore", &newest, "--source", "uploads", "--target", "there", "--yes"]);
    let down = shop.run(&["restore", "latest", "--dry-run"]);
    assert_eq!(down.code, 8, "{}", down.all());
    shop.server.start_again();
    shop.backup();
    shop.home.ok(&["verify", "--all"]);
}

#[test]
fn f45_f66_new_and_empty_databases_are_in_the_next_set() {
    let server = std::sync::Arc::new(Server::start());
    let shop = Shop::on(server);
    let all = shop.postgres("").replace(&format!("[{}]", shop.database), "all");
    shop.set_jobs(&format!("jobs:\n  - job: shop\n    sources:\n      - {all}\n"));
    let first = shop.backup();
    shop.server.sql("postgres", "CREATE DATABASE newcomer");
    shop.server.sql("newcomer", "CREATE TABLE t AS SELECT 1 AS i");
    shop.server.sql("postgres", "CREATE DATABASE hollow");
    let second = shop.backup();
    let names = |set: &str| -> Vec<String> {
        let shown = shop.home.json(&["show", set]);
        let artifacts = shown["result"]["artifacts"].as_array().unwrap().clone();
        artifacts.iter().filter(|a| a["source"] == "postgres").map(|a| a["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(!names(&first).contains(&"newcomer".to_owned()));
    for name in ["globals", "newcomer", "hollow", "postgres", &shop.database] {
        assert!(names(&second).contains(&name.to_owned()), "{name}: {:?}", names(&second));
    }
    let diff = shop.home.ok(&["diff", &first, &second]);
    assert!(diff.out.contains("postgres.newcomer: new"), "{}", diff.out);
    // One that lost its tables is not what a date means, unless that is said to be right.
    shop.server.sql("newcomer", "DROP TABLE t");
    let emptied = shop.run(&["backup", "now"]);
    assert_eq!(emptied.code, 3, "{}", emptied.all());
    assert!(emptied.out.contains("SUSPECT") && emptied.out.contains("newcomer") && emptied.out.contains("had 1 tables"), "{}", emptied.out);
    assert_eq!(shop.home.json(&["show", "latest"])["result"]["set"]["set"], second.as_str());
    // An empty database is a whole artifact and comes back as one.
    shop.home.ok(&["verify"]);
    shop.server.sql("postgres", "DROP DATABASE hollow WITH (FORCE)");
    shop.home.ok(&["restore", "latest", "--yes"]);
    assert_eq!(shop.server.sql("hollow", "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "0");
    assert_eq!(shop.server.sql("newcomer", "SELECT i FROM t"), "1");
}

#[test]
fn f66_f120_nothing_found_makes_no_good_set_unless_it_is_allowed() {
    let home = files();
    home.ok(&["backup", "now"]);
    std::fs::remove_file(home.path("data/a.txt")).unwrap();
    let good = home.newest();
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 4, "{}", ran.all());
    assert!(ran.all().contains("there is no file below") && ran.all().contains("allow_empty"), "{}", ran.all());
    let dry = home.run(&["backup", "now", "--dry-run"]);
    assert!(dry.code == 4 && dry.all().contains("there is no file below"), "{}", dry.all());
    assert!(home.run(&["doctor"]).all().contains("there is no file below"));
    // A date still means the set that holds something.
    assert_eq!(home.json(&["show", "latest"])["result"]["set"]["set"], good.as_str());
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &text.replace("paths: [data] }", "paths: [data], allow_empty: true }"));
    home.ok(&["backup", "now"]);
    home.ok(&["verify"]);
}

#[test]
fn f127_one_target_takes_the_files_of_one_source() {
    let home = Home::new();
    home.write("data/a.txt", "a");
    home.write("more/b.txt", "b");
    home.write("app.env", "A=1\n");
    let sources = "      - files: { name: one, paths: [data] }\n      - files: { name: two, paths: [more] }\n      - environment: { from: { file: app.env } }\n";
    home.init(&format!("jobs:\n  - job: shop\n    sources:\n{sources}"));
    home.ok(&["backup", "now"]);
    for sources in [&["one", "two"][..], &["one", "environment"], &[]] {
        let named = sources.iter().flat_map(|name| ["--source", name]);
        let args: Vec<&str> = ["restore", "latest", "--target", "out", "--yes"].into_iter().chain(named).collect();
        let ran = home.run(&args);
        assert!(ran.code == 4 && ran.all().contains("would go into the same folder (out)"), "{}", ran.all());
        assert!(ran.all().contains("--source one --target FOLDER") && !home.path("out").exists(), "{}", ran.all());
    }
    for (name, folder) in [("one", "out1"), ("two", "out2"), ("environment", "out3")] {
        home.ok(&["restore", "latest", "--source", name, "--target", folder, "--yes"]);
    }
}

/// Runs a shell line in a mount namespace of its own, as root; `None` where that is not allowed.
fn in_namespace(home: &Home, script: &str) -> Option<Ran> {
    let can = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|s| s.success());
    if !can {
        eprintln!("SKIPPED full and read-only stores: no mount namespaces here");
        return None;
    }
    let inner = home.command(&["list"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-c", script]).current_dir(home.path("")).env_clear();
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.env("DRCTL", env!("CARGO_BIN_EXE_drctl"));
    Some(Ran::of(command.output().unwrap()))
}

#[test]
fn f12_a_full_store_fails_the_run_and_harms_nothing() {
    let home = files();
    home.ok(&["backup", "now"]);
    let good = home.newest();
    std::fs::write(home.path("big.bin"), noise(6 << 20)).unwrap();
    // The repository on a file system of 4 MiB, and data that does not fit.
    let script = format!(
        "mount -t tmpfs -o size=4m none /mnt && cp -a drctl-repository/. /mnt/ && mount --bind /mnt drctl-repository || exit 99
         mv big.bin data/
         \"$DRCTL\" backup now; echo \"code $?\"
         find drctl-repository -type f | grep -v lease | sort; \"$DRCTL\" verify {good}; echo \"verify $?\"
         rm data/big.bin; \"$DRCTL\" backup now; echo \"again $?\""
    );
    let Some(ran) = in_namespace(&home, &script) else { return };
    assert!(ran.out.contains("code 1\n"), "{}", ran.all());
    assert!(ran.err.contains("no space left") || ran.err.contains("No space left"), "{}", ran.err);
    assert!(ran.err.contains("hint: "), "{}", ran.err);
    assert!(ran.out.contains("verify 0\n") && ran.out.contains("again 0\n"), "{}", ran.all());
    let listed: Vec<&str> =
        ran.out.lines().skip_while(|l| *l != "code 1").skip(1).take_while(|l| l.starts_with("drctl-repository")).collect();
    let left: Vec<&&str> =
        listed.iter().filter(|f| f.contains("/sets/") && !f.contains(good.split('/').nth(1).unwrap().split_once('T').unwrap().1)).collect();
    assert!(left.is_empty(), "objects of the failed run: {left:?}");
    assert!(!listed.iter().any(|f| f.contains(".drctl-tmp/")), "temporary files: {listed:?}");
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out
}

#[test]
fn f11_f13_a_read_only_store_is_said_and_can_still_be_read() {
    let home = files();
    home.ok(&["backup", "now"]);
    let script = "mount --bind drctl-repository drctl-repository && mount -o remount,bind,ro drctl-repository || exit 99
         \"$DRCTL\" backup now; echo \"code $?\"
         \"$DRCTL\" list; echo \"list $?\"
         \"$DRCTL\" verify; echo \"verify $?\"
         \"$DRCTL\" cat latest files --path \"$PWD/data/a.txt\"; echo \" cat $?\"
         \"$DRCTL\" restore latest --target back --yes; echo \"restore $?\"; find back -type f";
    let Some(ran) = in_namespace(&home, script) else { return };
    assert!(ran.out.contains("code 1\n"), "{}", ran.all());
    assert!(ran.err.to_lowercase().contains("read-only file system") && ran.err.contains("drctl-repository"), "{}", ran.err);
    for word in ["list 0\n", "verify 0\n", "a cat 0\n", "restore 0\n", "data/a.txt"] {
        assert!(ran.out.contains(word), "{word}: {}", ran.all());
    }
}

/// State that cannot be written: the backup runs and says what was not recorded; a restore that could not be undone is refused.
#[test]
fn f11_a_state_folder_that_cannot_be_written_does_not_stop_a_backup() {
    let mut home = files();
    home.write("no-folder", "a file");
    let blocked = home.path("no-folder").display().to_string();
    home.env("STATE_DIRECTORY", &blocked);
    let ran = home.ok(&["backup", "now"]);
    assert!(ran.err.contains("not recorded"), "{}", ran.err);
    let quiet = home.ok(&["backup", "now", "--quiet"]);
    assert!(quiet.out.contains("not recorded on this host: "), "cron shows this: {}", quiet.out);
    home.ok(&["list"]);
    let restore = home.run(&["restore", "latest", "--yes"]);
    assert_eq!(restore.code, 4, "{}", restore.all());
    assert!(restore.err.contains("STATE_DIRECTORY"), "{}", restore.err);
}

/// State that can be read and in which no run can be noted.
#[test]
fn f11_a_run_that_cannot_be_noted_does_not_stop_a_backup() {
    let home = files();
    home.ok(&["backup", "now"]);
    let locks = home.path("../state/state.sqlite.runs");
    std::fs::remove_dir_all(&locks).unwrap();
    std::fs::write(&locks, "a file").unwrap();
    let ran = home.ok(&["backup", "now"]);
    assert!(ran.out.contains("not recorded on this host: "), "{}", ran.all());
    assert_eq!(home.sets().len(), 2);
    home.ok(&["verify", "--all"]);
}

/// The state folder fills up while a backup runs: the set is committed, and what was not recorded is said.
#[test]
fn f11_a_state_folder_that_fills_up_in_mid_run_does_not_stop_a_backup() {
    let home = files();
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &format!("{text}      - command: {{ name: filler, run: [sh, fill.sh] }}\n"));
    home.write("fill.sh", "head -c 100000000 /dev/zero > \"$(cat state-folder)/fill\" 2> /dev/null; echo done\n");
    let script = "echo \"$STATE_DIRECTORY\" > state-folder; mount -t tmpfs -o size=2m none \"$STATE_DIRECTORY\" || exit 99
         \"$DRCTL\" backup now; echo \"first $?\"; df --output=avail \"$STATE_DIRECTORY\" | tail -1
         \"$DRCTL\" backup now; echo \"second $?\"
         \"$DRCTL\" verify --all; echo \"verify $?\"
         \"$DRCTL\" restore latest --source files --yes; echo \"restore $?\"
         rm \"$STATE_DIRECTORY/fill\"; \"$DRCTL\" backup now --source files; echo \"third $?\"; \"$DRCTL\" status; echo \"status $?\"";
    let Some(ran) = in_namespace(&home, script) else { return };
    println!("{}", ran.all());
    let at = |word: &str| ran.out.find(word).unwrap_or_else(|| panic!("{word}: {}", ran.all()));
    assert!(ran.out[at("first 0\n")..].trim_start_matches("first 0\n").trim_start().starts_with("0\n"), "it is full: {}", ran.out);
    assert!(ran.out[..at("first 0\n")].contains("not recorded on this host"), "{}", ran.all());
    assert!(ran.out.contains("second 0\n") && ran.out.contains("verify 0\n"), "{}", ran.all());
    // What could not be undone is not begun; nothing live was touched.
    assert!(ran.out.contains("restore 4\n") || ran.out.contains("restore 1\n"), "{}", ran.all());
    assert!(ran.out.contains("third 0\n") && ran.out.contains("status 0\n"), "{}", ran.all());
    assert_eq!(std::fs::read_to_string(home.path("data/a.txt")).unwrap(), "a");
    assert_eq!(home.sets().len(), 3);
    home.ok(&["verify", "--all"]);
}

/// No room where temporary files go: the source that needs one says where, the others are saved.
#[test]
fn f11_a_full_folder_for_temporary_files_is_named_and_the_other_sources_run() {
    let shop = Shop::new();
    let good = shop.backup();
    let script =
        "for f in /dev/shm tmp2; do mkdir -p $f; mount -t tmpfs -o size=64k none $f || exit 99; head -c 1000000 /dev/zero > $f/fill; done
         export TMPDIR=\"$PWD/tmp2\"; \"$DRCTL\" backup now; echo \"backup $?\"; ls -A /dev/shm tmp2
         \"$DRCTL\" verify --all; echo \"verify $?\"";
    let Some(ran) = in_namespace(&shop.home, script) else { return };
    println!("{}", ran.all());
    assert!(ran.out.contains("backup 3\n") && ran.out.contains("verify 0\n"), "{}", ran.all());
    assert!(ran.err.contains("/dev/shm: No space left") && ran.err.contains("hint: "), "{}", ran.err);
    assert!(!ran.out.contains("drctl-"), "nothing of ours is left there: {}", ran.out);
    let partial = shop.home.newest();
    assert_ne!(partial, good);
    shop.home.ok(&["restore", &partial, "--source", "uploads", "--target", "there", "--yes"]);
}

/// Several jobs in one run: all of them run, the first error decides the exit code, and 3 is for a set that is partial.
#[test]
fn exit_codes_of_several_jobs_in_one_run() {
    let home = Home::new();
    home.write("data/a", "a");
    let job = |name: &str, sources: &[&str]| {
        let sources: Vec<String> = sources.iter().map(|s| format!("      - {s}\n")).collect();
        format!("  - job: {name}\n    sources:\n{}", sources.concat())
    };
    let (files, fails) = ("files: { paths: [data] }", "command: { run: [sh, -c, 'echo out; exit 7'] }");
    let down = format!("postgres: {{ host: 127.0.0.1, port: {}, user: x, password: x }}", support::free_port());
    let all = [
        job("a-good", &[files]),
        job("b-partial", &[files, fails]),
        job("c-failed", &[fails]),
        job("d-down", &[&down]),
        job("e-good", &[files]),
        job("f-failed", &[fails]),
    ];
    home.init(&format!("jobs:\n{}", all.concat()));
    let table: [(&[&str], i32, usize); 8] = [
        (&["a-good", "e-good"], 0, 2),
        (&["a-good", "b-partial"], 3, 2),
        (&["b-partial", "e-good"], 3, 2),
        (&["a-good", "c-failed"], 1, 1),
        (&["c-failed", "e-good"], 1, 1),
        (&["b-partial", "c-failed", "e-good"], 1, 2),
        (&["c-failed", "d-down"], 1, 0),
        (&["d-down", "f-failed", "e-good"], 8, 1),
    ];
    let mut sets = 0;
    for (jobs, code, made) in table {
        let ran = home.run(&[&["backup", "now"], jobs].concat());
        assert_eq!(ran.code, code, "{jobs:?}: {}", ran.all());
        sets += made;
        assert_eq!(home.sets().len(), sets, "{jobs:?}: every job ran: {}", ran.all());
        for job in jobs.iter().filter(|j| j.ends_with("failed") || j.ends_with("down")) {
            assert!(ran.err.contains(&format!("job {job}")), "{jobs:?}: each failure is told: {}", ran.err);
        }
        if jobs.contains(&"d-down") {
            // It is tried again for some seconds each time.
            continue;
        }
        // As JSON the sets that were made are a line, and the error that decided is one.
        let ran = home.run(&[&["backup", "now"], jobs, &["--json", "--quiet"]].concat());
        sets += made;
        let lines: Vec<serde_json::Value> = ran.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.iter().filter_map(|l| l["result"].as_array()).map(Vec::len).sum::<usize>(), made, "{jobs:?}: {}", ran.out);
        let error = lines.iter().find_map(|l| l["error"]["exit_code"].as_i64());
        assert_eq!((ran.code, error), (code, Some(i64::from(code)).filter(|c| !matches!(c, 0 | 3))), "{jobs:?}: {}", ran.out);
    }
    home.ok(&["verify", "--all"]);
}

/// Few descriptors, little memory: success or a clear error, never a hang.
#[test]
fn f15_limits_end_in_success_or_a_clear_error() {
    let home = files();
    std::fs::write(home.path("data/noise.bin"), noise(3 << 20)).unwrap();
    for index in 0..200 {
        home.write(&format!("data/many/{index}"), "x");
    }
    home.ok(&["backup", "now"]);
    let good = home.newest();
    let limited = |limit: &str, verb: &str| {
        let mut command = Command::new("bash");
        let inner = home.command(&["list"]);
        command.args(["-c", &format!("ulimit {limit}; exec timeout -s KILL 180 \"$DRCTL\" {verb}")]);
        command.current_dir(home.path("")).env_clear().env("DRCTL", env!("CARGO_BIN_EXE_drctl"));
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        Ran::of(command.output().unwrap())
    };
    let mut failed = 0;
    for limit in ["-n 64", "-n 24", "-n 18", "-n 16", "-n 14", "-n 12", "-v 150000", "-v 90000"] {
        for verb in ["backup now", "verify", "list"] {
            let begun = Instant::now();
            let ran = limited(limit, verb);
            println!("ulimit {limit}: {verb}: {} in {:?}: {}", ran.code, begun.elapsed(), ran.err.lines().last().unwrap_or_default());
            assert!(begun.elapsed() < Duration::from_secs(175), "ulimit {limit}: {verb} hangs: {}", ran.all());
            failed += usize::from(ran.code != 0);
            // Too few descriptors are an error in our words with what to do; memory that is not there ends the process by its runtime's words.
            let hint = if limit.contains("-n") { "hint: too many files are open: raise `ulimit -n`" } else { "hint: " };
            let in_words = ran.err.contains("error: ") && ran.err.contains(hint);
            let no_memory = limit.contains("-v") && ran.err.contains("memory");
            assert!(ran.code == 0 || in_words || no_memory, "ulimit {limit}: {verb}: {} {}", ran.code, ran.all());
        }
    }
    assert!(failed > 0, "no limit was too low");
    home.ok(&["verify", &good]);
    home.ok(&["backup", "now"]);
    home.ok(&["verify", "--all"]);
}

/// What is in memory does not grow with what is saved.
#[test]
fn f15_an_artifact_of_1_gib_in_200_mib() {
    let home = Home::new();
    // One in which hardly anything is stored, and one in which nearly all of it is: a reader that asks too far ahead holds that one.
    home.init(
        "jobs:\n  - job: shop\n    sources:\n      - command: { name: flood, run: [head, -c, '1073741824', /dev/zero] }\n      \
         - command: { name: noise, run: [head, -c, '314572800', /dev/urandom] }\n",
    );
    for args in [&["backup", "now"][..], &["verify"]] {
        let begun = Instant::now();
        let mut child = home.command(args).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut peak_kib = 0;
        let ended = loop {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
            peak_kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(peak_kib);
            if let Some(ended) = child.try_wait().unwrap() {
                break ended;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        println!("{args:?}: {:?}, {} MiB", begun.elapsed(), peak_kib / 1024);
        assert!(ended.success(), "{args:?}: {ended}");
        assert!(peak_kib > 1024 && peak_kib < 200 * 1024, "{args:?}: {} MiB of memory", peak_kib / 1024);
    }
    assert_eq!(home.json(&["show", "latest"])["result"]["artifacts"][0]["plain_bytes"], 1_073_741_824u64);
}
