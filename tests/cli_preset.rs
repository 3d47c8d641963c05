//! `drctl init --preset`: a ready-made job is written, said what it needs, and backs up what it can reach.

#[path = "support/cli.rs"]
mod cli;
#[path = "support/postgres.rs"]
mod support;

use cli::{Home, Ran};
use support::{PASSWORD, Server, shared};

const NAMES: [&str; 8] = ["postgres", "compose-app", "files", "quant", "chan", "jisu", "sagacity", "erp"];

fn init(home: &Home, more: &[&str]) -> Ran {
    home.write("../passphrase", "correct horse battery staple");
    home.run(&[&["init", "--passphrase-file", "../passphrase"], more].concat())
}

fn url(server: &Server, database: &str) -> String {
    let encoded: String = PASSWORD.bytes().map(|b| format!("%{b:02X}")).collect();
    format!("postgresql+psycopg2://postgres:{encoded}@127.0.0.1:{}/{database}", server.port)
}

#[test]
fn they_are_listed_and_a_wrong_name_changes_nothing() {
    let home = Home::new();
    let list = home.ok(&["init", "--preset", "list"]);
    for name in NAMES {
        assert!(list.out.lines().any(|line| line.starts_with(&format!("{name} ")) && line.len() > 30), "{name}: {}", list.out);
    }
    let json = home.json(&["init", "--preset", "list"]);
    assert_eq!(json["result"].as_array().unwrap().len(), NAMES.len());
    let wrong = init(&home, &["--preset", "jisuu"]);
    assert!(wrong.code == 2 && wrong.err.contains("no preset 'jisuu'") && wrong.err.contains("jisu, sagacity, erp"), "{}", wrong.all());
    assert_eq!(init(&home, &["--preset", "jisu", "--job", "other"]).code, 2);
    assert_eq!(home.files(""), [""; 0]);
}

#[test]
fn jisu_says_what_must_be_set_and_loads_once_it_is() {
    let mut home = Home::new();
    home.env("POSTGRES_USER", "postgres");
    home.env("SLACK_WEBHOOK_URL", "https://hooks.slack.example/canary");
    home.env("JISU_UPLOADS", "/srv/jisu/uploads");
    let dry = init(&home, &["--preset", "jisu", "--dry-run"]);
    assert!(dry.code == 0 && dry.out.contains("jobs/jisu.yaml"), "{}", dry.all());
    assert_eq!(home.files(""), [""; 0]);

    let ran = init(&home, &["--preset", "jisu"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let line = |name: &str, how: &str| ran.out.lines().any(|l| l.trim().starts_with(name) && l.ends_with(how));
    assert!(line("POSTGRES_USER ", "  set") && line("POSTGRES_PASSWORD ", "  NOT SET"), "{}", ran.out);
    assert!(line("JISU_UPLOADS ", "  set") && line("JISU_LOGS ", "  not set: /var/log/jisu"), "{}", ran.out);
    assert!(ran.out.contains("'later:' in it: redis, the environment of a container, kubernetes"), "{}", ran.out);
    assert!(ran.out.contains("next:   set POSTGRES_PASSWORD where drctl runs"), "{}", ran.out);
    assert!(ran.out.contains("FAILS   postgres"), "{}", ran.out);
    assert!(!ran.all().contains("canary"), "a variable's value is never shown: {}", ran.all());
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/jisu.yaml")).unwrap();
    assert_eq!(std::fs::read_to_string(home.path("jobs/jisu.yaml")).unwrap(), shipped);

    let check = home.ok(&["config", "check"]);
    assert!(check.out.contains("POSTGRES_PASSWORD is not set here"), "{}", check.out);
    home.env("POSTGRES_PASSWORD", "x");
    let check = home.ok(&["config", "check"]);
    assert!(!check.out.contains("is not set here"), "{}", check.out);
    let redis = "redis comes with a later version of drctl: nothing of it is backed up";
    let line = shipped.lines().position(|line| line.contains("later: { redis")).unwrap() + 1;
    assert!(check.out.contains(&format!("warning: jobs/jisu.yaml:{line}:14: sources[1].later.redis: {redis}")), "{}", check.out);
    assert!(check.out.contains("job jisu: postgres, uploads (files), logs (files), compose, environment"), "{}", check.out);

    // Never over what is there.
    let again = init(&home, &["--preset", "jisu"]);
    assert!(again.code == 4 && again.err.contains("drctl.yaml exists already"), "{}", again.all());
    let other = Home::new();
    other.write("jobs/jisu.yaml", "job: mine\n");
    let taken = init(&other, &["--preset", "jisu"]);
    assert!(taken.code == 4 && taken.err.contains("jobs/jisu.yaml exists already"), "{}", taken.all());
    assert_eq!(other.files(""), ["jobs/jisu.yaml"]);
}

#[test]
fn the_postgres_preset_makes_a_set_and_one_that_needs_a_folder_waits_for_it() {
    let mut home = Home::new();
    let server = shared();
    server.sql("postgres", "CREATE DATABASE preset_one");
    server.sql("preset_one", "CREATE TABLE t AS SELECT generate_series(1, 7) i");
    home.env("DATABASE_URL", &url(&server, "preset_one"));
    let ran = init(&home, &["--preset", "postgres", "--preset", "files", "--preset", "postgres"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(home.files("jobs"), ["files.yaml", "postgres.yaml"]);
    // Its path is part of what is loaded, so nothing loads before it is there; and that is said.
    assert!(ran.out.contains("next:   set BACKUP_FOLDER, SLACK_WEBHOOK_URL where"), "{}", ran.out);
    assert!(ran.out.contains("BACKUP_FOLDER is not set"), "{}", ran.out);
    assert_eq!(home.run(&["config", "check"]).code, 2);

    home.write("data/a", "alpha");
    home.env("BACKUP_FOLDER", &home.path("data").display().to_string());
    home.ok(&["config", "check"]);
    let made = home.ok(&["backup", "now", "--verify", "read-back"]);
    assert!(made.out.contains("postgres/") && made.out.contains("files/") && made.out.contains("7 rows"), "{}", made.out);
    let sets = home.json(&["list"]);
    assert_eq!(sets["result"]["sets"].as_array().unwrap().len(), 2);
    assert!(!made.all().contains(PASSWORD), "{}", made.all());
}

#[test]
fn a_set_of_chan_is_whole_and_says_that_redis_is_not_in_it() {
    let mut home = Home::new();
    let server = shared();
    server.sql("postgres", "CREATE DATABASE preset_chan");
    server.sql("preset_chan", "CREATE TABLE t AS SELECT generate_series(1, 5) i");
    home.env("DATABASE_URL", &url(&server, "preset_chan"));
    home.env("SLACK_WEBHOOK_URL", "https://hooks.slack.example/x");
    home.write(".env", "SECRET_KEY=x\n");
    home.write("logs/app.log", "one\n");
    home.write("logs/app.log.1", "two\n");
    home.write("logs/other.log", "not taken\n");
    let ran = init(&home, &["--preset", "chan"]);
    assert!(ran.code == 0 && ran.out.contains("works   postgres"), "{}", ran.all());
    let made = home.ok(&["backup", "now"]);
    let redis = "redis comes with a later version of drctl: nothing of it is backed up";
    assert!(made.out.contains(redis) && made.out.contains("ok chan/"), "{}", made.out);
    let json = home.json(&["backup", "now"]);
    let warnings = json["result"][0]["warnings"].to_string();
    assert!(warnings.contains(redis), "{warnings}");
    assert_eq!(json["result"][0]["state"], "complete");
    // It stands in the set itself, for whoever looks at it later.
    assert!(home.ok(&["show", "latest"]).out.contains(redis));
    // And whoever is about to restore it.
    let plan = home.run(&["restore", "latest", "--dry-run"]);
    assert_eq!(plan.out.matches(redis).count(), 1, "{}", plan.all());
    let list = home.ok(&["cat", "latest", "logs"]).out;
    assert!(list.contains("app.log.1") && !list.contains("other.log"));
}
