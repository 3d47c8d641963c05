//! Programs that are not there: said before anything is done, with the line that installs them, for a backup as for a restore.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use shop::Shop;
use support::{bin, fake_tools};

fn jobs(source: &str) -> String {
    format!("jobs:\n  - job: shop\n    timezone: UTC\n    sources:\n      - {source}\n")
}

#[test]
fn nothing_in_path_and_the_line_that_mends_it() {
    let mut shop = Shop::new();
    shop.set_jobs(&jobs(&shop.postgres("")));
    // Packages put the clients where no PATH leads; the PATH of cron does.
    let nothing = fake_tools(&[]);
    let real = std::env::var("PATH").unwrap();
    shop.home.env("PATH", &nothing.path().display().to_string());
    let set = shop.backup();
    // Of this shop alone: others make theirs on the same server meanwhile.
    let databases = shop.databases();

    shop.set_jobs(&jobs(&shop.postgres(&format!(", client_folders: [{}]", nothing.path().display()))));
    let said = |args: &[&str], words: &[&str]| {
        let ran = shop.home.run(args);
        assert_eq!(ran.code, 4, "{args:?}: {}", ran.all());
        for word in words {
            assert!(ran.all().contains(word), "{word}\n{}", ran.all());
        }
    };
    let places = nothing.path().display().to_string();
    let clients = ["apt-get install postgresql-client-", "or name the folder of such a client in client_folders"];
    for args in [&["backup", "now"][..], &["doctor"]] {
        said(args, &[&format!("there is no pg_dump in {places}"), clients[0], clients[1]]);
    }
    for args in [&["restore", &set, "--yes"][..], &["restore", &set, "--dry-run"], &["restore", &set, "--in-place", "--yes"]] {
        said(args, &[&format!("there is no pg_restore in {places}"), clients[0], clients[1]]);
    }
    assert_eq!(shop.databases(), databases, "nothing was made");
    assert_eq!(shop.server.sql(&shop.database, "SELECT count(*) FROM orders"), "1000");

    for (source, what, line) in [
        (
            "postgres: { reach: { ssh: db.example.org }, user: x, database: all }",
            "there is no ssh in PATH",
            "apt-get install openssh-client",
        ),
        (
            "postgres: { reach: { docker: db }, user: x, database: all }",
            "there is no docker in PATH",
            "apt-get install docker-cli or docker.io",
        ),
        ("command: { name: x, run: [redis-cli] }", "program 'redis-cli' of source x was not found", "full path in `command.program`"),
    ] {
        shop.set_jobs(&jobs(source));
        said(&["backup", "now"], &[what, line]);
    }
    assert_eq!(shop.home.sets(), std::slice::from_ref(&set), "no set was made of nothing");

    shop.set_jobs(&jobs(&shop.postgres("")));
    shop.home.ok(&["restore", &set, "--yes"]);
    shop.home.env("PATH", &real);
}

/// A client that is too old counts as missing, and the line is for the one that is needed.
#[test]
fn a_client_that_is_too_old_is_named_with_the_major_that_is_needed() {
    let shop = Shop::new();
    let old = fake_tools(&[("pg_dump", "echo 'pg_dump (PostgreSQL) 12.3'"), ("pg_restore", "echo 'pg_restore (PostgreSQL) 12.3'")]);
    let set = shop.backup();
    shop.set_jobs(&jobs(&shop.postgres(&format!(", client_folders: [{}]", old.path().display()))));
    let version = shop.server.sql("postgres", "SHOW server_version");
    let line = format!("postgresql-client-{}", version.split('.').next().unwrap());
    for (args, tool) in [(&["backup", "now"][..], "pg_dump"), (&["restore", &set, "--source", "postgres", "--yes"], "pg_restore")] {
        let ran = shop.home.run(args);
        assert_eq!(ran.code, 4, "{}", ran.all());
        assert!(ran.all().contains(&format!("{tool} 12.3 (")) && ran.all().contains("is older than"), "{}", ran.all());
        assert!(ran.all().contains(&line), "{line}: {}", ran.all());
    }
}

/// Clients that dump and cannot load: told while the data is still there, by everything that looks ahead.
#[test]
fn f89_what_is_dumped_and_cannot_be_loaded_here_is_told_before_it_is_needed() {
    let shop = Shop::new();
    let real = |tool: &str| format!("exec {} \"$@\"", bin().join(tool).display());
    let dumps = [("pg_dump", real("pg_dump")), ("pg_dumpall", real("pg_dumpall"))];
    let old = ("pg_restore", "echo 'pg_restore (PostgreSQL) 12.3'".to_owned());
    let line = format!("postgresql-client-{}", shop.server.sql("postgres", "SHOW server_version").split('.').next().unwrap());
    for more in [None, Some(&old)] {
        let tools: Vec<(&str, &str)> = dumps.iter().chain(more).map(|(name, script)| (*name, script.as_str())).collect();
        let clients = fake_tools(&tools);
        shop.set_jobs(&jobs(&shop.postgres(&format!(", client_folders: [{}]", clients.path().display()))));
        let why = match more {
            None => format!("there is no pg_restore in {}", clients.path().display()),
            Some(_) => "is older than the pg_dump in use".to_owned(),
        };
        for args in [&["doctor"][..], &["backup", "now", "--dry-run"], &["backup", "now"]] {
            let ran = shop.home.run(args);
            assert!(ran.all().contains("cannot be loaded from this host: ") && ran.all().contains(&why), "{args:?}: {}", ran.all());
            assert!(ran.all().contains(&line), "{args:?}: {}", ran.all());
        }
        let refused = shop.home.run(&["restore", &shop.home.newest(), "--source", "postgres", "--dry-run"]);
        assert_eq!(refused.code, 4, "{}", refused.all());
        assert!(refused.all().contains(&line), "{}", refused.all());
    }
    // With all of one version at hand nothing is said.
    shop.set_jobs(&jobs(&shop.postgres("")));
    assert!(!shop.home.ok(&["backup", "now"]).all().contains("cannot be loaded"));
}
