//! `doctor`, `key confirm`, `unlock`: what they find, what they say, and that they change nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;

use cli::Home;

const FILES: &str = "jobs:\n  - job: shop\n    sources:\n      - files: { name: data, paths: [data] }\n";

fn files() -> Home {
    let home = Home::new();
    home.write("data/a.txt", "a");
    home.init(FILES);
    home
}

/// Findings as `level area subject: words -> fix`.
fn findings(home: &Home) -> (i32, Vec<String>) {
    let ran = home.run(&["doctor", "--json", "--quiet"]);
    let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.all()));
    let lines = value["result"]["findings"].as_array().unwrap().iter().map(|f| {
        let text = |name: &str| f[name].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}: {} -> {}", text("level"), text("area"), text("subject"), text("words"), text("fix"))
    });
    (ran.code, lines.collect())
}

fn has(lines: &[String], begin: &str, words: &str) {
    assert!(lines.iter().any(|l| l.starts_with(begin) && l.contains(words)), "no '{begin}…{words}' in\n{}", lines.join("\n"));
}

#[test]
fn doctor_goes_from_no_set_to_all_is_well() {
    let home = files();
    let before = home.files("drctl-repository");
    let (code, found) = findings(&home);
    assert_eq!(code, 1, "{found:?}");
    has(&found, "problem sets shop", "drctl backup now shop");
    has(&found, "ok source shop: data", "");
    has(&found, "warning keys recovery file", "never tried");
    assert_eq!(home.files("drctl-repository"), before, "an examination changes nothing");

    home.ok(&["backup", "now", "--verify", "read-back"]);
    let mut confirm = home.command(&["key", "confirm", "drctl-recovery.txt"]);
    confirm.env("DRCTL_PASSPHRASE_FILE", home.path("passphrase"));
    let ran = cli::Ran::of(confirm.output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.all());
    let ran = home.ok(&["doctor"]);
    assert!(ran.out.ends_with("all is well\n"), "{}", ran.out);
    let (_, found) = findings(&home);
    has(&found, "ok proof shop", "was read back");
    has(&found, "ok keys recovery file", "opened a set on");
}

#[test]
fn doctor_tells_of_everything_that_is_broken_at_once_with_the_line_that_mends_it() {
    let home = files();
    home.ok(&["backup", "now"]);
    std::fs::rename(home.path("data"), home.path("elsewhere")).unwrap();
    let (code, found) = findings(&home);
    assert_ne!(code, 0);
    has(&found, "problem source shop: data", "data");
    has(&found, "warning proof shop", "drctl verify --job shop");

    // No repository: its sources are looked at all the same.
    std::fs::rename(home.path("drctl-repository"), home.path("gone")).unwrap();
    let (code, found) = findings(&home);
    assert_ne!(code, 0);
    has(&found, "problem repository", "drctl-repository");
    has(&found, "problem source shop: data", "data");

    // An identity of another repository opens nothing here.
    std::fs::rename(home.path("gone"), home.path("drctl-repository")).unwrap();
    let other = files();
    let foreign = std::fs::read_to_string(other.path("drctl-keys/identity.txt")).unwrap();
    home.write("drctl-keys/identity.txt", &foreign);
    has(&findings(&home).1, "problem keys identity", "recipients:");

    home.write("drctl.yaml", "jobs: [");
    let (code, found) = findings(&home);
    assert_eq!(code, 2);
    has(&found, "problem configuration", "drctl.yaml");
}

#[test]
fn status_asks_for_the_recovery_file_until_it_opened_a_set() {
    let home = files();
    let confirm = |home: &Home, file: &str| {
        let mut command = home.command(&["key", "confirm", file]);
        command.env("DRCTL_PASSPHRASE_FILE", home.path("passphrase"));
        cli::Ran::of(command.output().unwrap())
    };
    let ran = confirm(&home, "drctl-recovery.txt");
    assert_eq!(ran.code, 6, "no set to open yet: {}", ran.all());
    assert!(ran.err.contains("drctl backup now"), "{}", ran.err);
    home.ok(&["backup", "now"]);
    assert!(home.ok(&["status"]).out.contains("drctl key confirm"), "the nag");

    // Another repository's file, and a passphrase that is wrong, confirm nothing.
    let other = files();
    std::fs::copy(other.path("drctl-recovery.txt"), home.path("other.txt")).unwrap();
    let ran = confirm(&home, "other.txt");
    assert_eq!(ran.code, 4, "{}", ran.all());
    assert!(ran.err.contains("not for"), "{}", ran.err);
    home.write("passphrase", "wrong");
    let ran = confirm(&home, "drctl-recovery.txt");
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.err.contains("passphrase is wrong"), "{}", ran.err);
    assert!(home.ok(&["status"]).out.contains("drctl key confirm"), "still not tried");

    home.write("passphrase", "correct horse battery staple");
    let ran = confirm(&home, "drctl-recovery.txt");
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(ran.out.contains(&home.newest()), "{}", ran.out);
    assert!(!home.ok(&["status"]).out.contains("drctl key confirm"), "tried");

    // Sets that are sealed for somebody else are not opened by it.
    let recipient = |home: &Home| {
        let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
        let line = config.lines().find(|l| l.contains("age1")).unwrap();
        line[line.find("age1").unwrap()..].split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap().to_owned()
    };
    let (own, recipient) = (recipient(&home), recipient(&other));
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &config.replace(&own, &recipient));
    home.ok(&["backup", "now"]);
    let ran = confirm(&home, "drctl-recovery.txt");
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.err.contains("recipients:"), "{}", ran.err);
}

#[test]
fn unlock_frees_what_a_run_elsewhere_left_and_never_what_lives_here() {
    let home = files();
    home.ok(&["backup", "now"]);
    assert!(home.ok(&["unlock", "shop"]).out.contains("nobody held"));
    let lease = |host: &str, pid: u32, epoch: u32| {
        let until = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(15);
        let since = jiff::Timestamp::now();
        home.write(
            &format!("drctl-repository/jobs/shop/lease/{epoch:010}.json"),
            &format!(
                r#"{{"epoch":{epoch},"holder":{{"host":"{host}","pid":{pid},"since":"{since}"}},"until":"{until}","released":false}}"#
            ),
        );
    };
    lease("elsewhere", 77, 900);
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 7, "{}", ran.all());
    assert!(ran.err.contains("drctl unlock shop"), "{}", ran.err);
    has(&findings(&home).1, "warning lease shop", "elsewhere");
    let ran = home.run(&["unlock", "shop"]);
    assert_eq!(ran.code, 4, "not without a word: {}", ran.all());
    assert_eq!(home.run(&["backup", "now"]).code, 7);
    let ran = home.ok(&["unlock", "shop", "--yes"]);
    assert!(ran.out.contains("elsewhere pid 77"), "{}", ran.out);
    home.ok(&["backup", "now"]);

    let here = rustix::system::uname().nodename().to_string_lossy().into_owned();
    lease(&here, std::process::id(), 950);
    let ran = home.run(&["unlock", "shop", "--yes"]);
    assert_eq!(ran.code, 7, "it lives: {}", ran.all());
    assert_eq!(home.run(&["backup", "now"]).code, 7);
    assert_eq!(home.run(&["unlock", "shopp"]).code, 6);
    // The one time that something was taken away is in the audit log.
    let audit = home.json(&["audit"]);
    let entries = audit["result"]["entries"].as_array().unwrap();
    let told: Vec<[&str; 3]> = entries.iter().map(|e| ["verb", "job", "outcome"].map(|key| e[key].as_str().unwrap())).collect();
    assert_eq!(told, [["unlock", "shop", "begun"], ["unlock", "shop", "ok"]]);
    assert!(entries[0]["details"].as_str().unwrap().contains("elsewhere pid 77"), "{audit}");
}
