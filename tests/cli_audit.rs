//! `drctl audit`: the verbs that change something leave their entries, whoever looks finds what was done, and no secret is in it.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use cli::Home;
use serde_json::Value;
use shop::{ENV_CANARY, Shop};
use support::PASSWORD;

/// Verb, what it was done to, outcome; one line an entry.
fn told(home: &Home, more: &[&str]) -> Vec<String> {
    let listed = home.json(&[&["audit"], more].concat());
    let entries = listed["result"]["entries"].as_array().unwrap();
    entries.iter().map(|e| format!("{} {} {}", text(e, "verb"), text(e, "subject"), text(e, "outcome"))).collect()
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_default()
}

fn entries(home: &Home) -> Vec<Value> {
    home.json(&["audit", "--last", "1000"])["result"]["entries"].as_array().unwrap().clone()
}

#[test]
fn what_changes_something_leaves_two_entries() {
    let mut shop = Shop::new();
    assert!(shop.home.ok(&["audit"]).out.contains("nothing in the audit log"));
    let set = shop.backup();
    let home = &mut shop.home;
    home.env("DRCTL_PASSPHRASE_FILE", &home.path("passphrase").display().to_string());
    home.env("SUDO_USER", "anna");
    home.ok(&["list"]);
    home.ok(&["restore", "latest", "--dry-run"]);
    assert_eq!(home.run(&["restore", "latest"]).code, 4, "nobody said yes");
    assert!(entries(home).is_empty(), "nothing was changed so far");

    home.ok(&["restore", "latest", "--yes"]);
    home.ok(&["restore", "--undo"]);
    home.ok(&["restore", "latest", "--source", "uploads", "--yes"]);
    home.ok(&["restore", "--finish", "--yes"]);
    home.ok(&["key", "confirm", "drctl-recovery.txt"]);
    home.ok(&["key", "add", "--role", "prover", "--holder", "elsewhere", "--out", "prover.key", "--by", "drctl-recovery.txt"]);
    home.ok(&["key", "rotate", "--by", "drctl-recovery.txt"]);
    home.ok(&["key", "rotate", "--identity", "--by", "drctl-recovery.txt"]);
    home.ok(&["repository", "adopt", "--by", "drctl-recovery.txt", "--yes"]);
    assert_eq!(home.run(&["key", "rotate", "--by", "drctl-recovery.txt", "--revoke", "77"]).code, 2);

    let all = entries(home);
    let verbs: Vec<&str> = all.iter().filter(|e| e["ends"] == 0).map(|e| text(e, "verb")).collect();
    assert_eq!(
        verbs,
        [
            "restore",
            "restore --undo",
            "restore",
            "restore --finish",
            "key confirm",
            "key add",
            "key rotate",
            "key rotate --identity",
            "repository adopt",
            "key rotate"
        ]
    );
    assert_eq!(all.len(), 2 * verbs.len());
    for (at, entry) in all.iter().enumerate() {
        assert_eq!(entry["number"], at as u64 + 1);
        let (begun, last) = (at % 2 == 0, at + 2 >= all.len());
        let outcome = match (begun, last) {
            (true, _) => "begun",
            (false, false) => "ok",
            (false, true) => "2",
        };
        assert_eq!(text(entry, "outcome"), outcome, "{entry}");
        assert_eq!(entry["ends"], if begun { 0 } else { at as u64 }, "{entry}");
        assert_eq!((text(entry, "user"), entry["uid"].as_u64()), (login(), Some(u64::from(rustix::process::getuid().as_raw()))));
        assert_eq!((text(entry, "sudo_user"), text(entry, "version")), ("anna", env!("CARGO_PKG_VERSION")));
        assert!(entry["pid"].as_u64().unwrap() > 1 && !text(entry, "host").is_empty(), "{entry}");
    }
    assert_eq!((text(&all[0], "subject"), text(&all[0], "job")), (set.as_str(), "shop"));
    let details: Value = serde_json::from_str(text(&all[4], "details")).unwrap();
    assert_eq!(details["sources"], serde_json::json!(["uploads"]));
    assert!(text(&all[2], "details").contains(&set) && !text(&all[2], "subject").is_empty());
    let details: Value = serde_json::from_str(text(&all[18], "details")).unwrap();
    assert_eq!(details["revoke"], serde_json::json!([77]));

    // By job, from the end, and as text.
    assert_eq!(told(home, &["--job", "shop"]).len(), 8);
    assert_eq!(told(home, &["--job", "other"]).len(), 0);
    assert_eq!(told(home, &["--last", "1"]), [format!("key rotate {} 2", home.path("drctl-keys/signing.key").display())]);
    let table = home.ok(&["audit", "--last", "4"]).out;
    assert!(table.contains("the newest 4 of 20 entries"), "{table}");
    assert!(table.contains("repository adopt") && table.contains("exit 2 (of 19)") && table.contains("(sudo: anna)"), "{table}");
    assert!(home.run(&["audit", "--last", "0"]).code == 2);

    // The chain holds; a noted head stays in it; another is not.
    let verified = home.json(&["audit", "verify"]);
    let (number, sha256) = (&verified["result"]["head"]["number"], verified["result"]["head"]["sha256"].as_str().unwrap());
    assert_eq!((number.as_u64(), sha256), (Some(20), text(&all[19], "own")));
    let head = format!("20:{sha256}");
    assert!(home.ok(&["audit", "verify"]).out.contains(&format!("head: {head}\n")));
    home.ok(&["key", "confirm", "drctl-recovery-2.txt"]);
    assert!(home.ok(&["audit", "verify", "--head", &head]).out.contains("the noted head is in it"));
    assert_eq!(home.run(&["audit", "verify", "--head", "20"]).code, 2);
    let raw = rusqlite::Connection::open(home.state().join("state.sqlite")).unwrap();
    raw.execute_batch("DROP TRIGGER audit_no_delete; DELETE FROM audit WHERE number > 18").unwrap();
    let cut = home.run(&["audit", "verify", "--head", &head]);
    assert!(cut.code == 5 && cut.err.contains("entry 20") && cut.err.contains("cut off"), "{}", cut.all());
    raw.execute_batch("DROP TRIGGER audit_no_update; UPDATE audit SET subject = 'another' WHERE number = 3").unwrap();
    let changed = home.run(&["audit", "verify"]);
    assert!(changed.code == 5 && changed.err.contains("entry 3 of the audit log does not fit"), "{}", changed.all());
}

fn login() -> &'static str {
    if rustix::process::getuid().is_root() { "root" } else { Box::leak(std::env::var("USER").unwrap().into_boxed_str()) }
}

#[test]
fn no_secret_is_in_the_audit_log() {
    let mut shop = Shop::new();
    shop.backup();
    shop.home.env("DRCTL_PASSPHRASE_FILE", &shop.home.path("passphrase").display().to_string());
    let encoded: String = PASSWORD.bytes().map(|b| format!("%{b:02X}")).collect();
    let url = format!("postgres://postgres:{encoded}@127.0.0.1:{}/{}_copy", shop.server.port, shop.database);
    shop.home.ok(&["restore", "latest", "--source", "postgres", "--target", &url, "--yes"]);
    let wrong = format!("postgres://postgres:canary-wrong@127.0.0.1:{}/{}_copy", shop.server.port, shop.database);
    assert_ne!(shop.home.run(&["restore", "latest", "--source", "postgres", "--target", &wrong, "--yes"]).code, 0);
    shop.home.ok(&["restore", "latest", "--source", "environment", "--yes"]);
    shop.home.ok(&["key", "confirm", "drctl-recovery.txt"]);
    shop.home.ok(&["key", "rotate", "--by", "drctl-recovery.txt"]);

    let listed = shop.home.ok(&["audit", "--json"]).out + &shop.home.ok(&["audit"]).out;
    assert!(listed.contains("_copy"), "the target is told: {listed}");
    let identity = shop.file("drctl-keys/identity.txt");
    let identity = identity.lines().find(|l| l.starts_with("AGE-SECRET-KEY-1")).unwrap();
    let signing = shop.file("drctl-keys/signing.key");
    for secret in [PASSWORD, &encoded, "canary:pg", "canary-wrong", ENV_CANARY, "correct horse", identity, signing.lines().last().unwrap()]
    {
        assert!(!listed.contains(secret), "{secret} in {listed}");
    }
}

#[test]
fn a_log_that_cannot_be_written_is_said_and_stops_nothing() {
    let shop = Shop::new();
    shop.backup();
    let raw = rusqlite::Connection::open(shop.home.state().join("state.sqlite")).unwrap();
    raw.execute_batch("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END").unwrap();
    shop.damage();
    let ran = shop.home.ok(&["restore", "latest", "--yes"]);
    assert_eq!(ran.err.matches("is not in the audit log").count(), 2, "{}", ran.err);
    assert!(ran.err.contains("'restore' (begun) is not in the audit log") && ran.err.contains("no room"), "{}", ran.err);
    assert!(shop.orders().starts_with("1000 "));
    // Without a state file that can be opened: said by whoever opened it, and `audit` itself fails.
    std::fs::write(shop.home.state().join("state.sqlite"), "no database, and longer than a header: ".repeat(40)).unwrap();
    for part in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(shop.home.state().join(format!("state.sqlite{part}")));
    }
    let listed = shop.home.run(&["audit"]);
    assert!(listed.code == 5 && listed.err.contains("is not a sound state file"), "{}", listed.all());
    assert_eq!(shop.home.run(&["audit", "verify"]).code, 5);
    // What needs no way back goes on.
    let confirmed = {
        let mut command = shop.home.command(&["key", "confirm", "drctl-recovery.txt"]);
        command.env("DRCTL_PASSPHRASE_FILE", shop.home.path("passphrase"));
        cli::Ran::of(command.output().unwrap())
    };
    assert!(confirmed.code == 0 && confirmed.err.contains("not recorded on this host"), "{}", confirmed.all());
}

#[test]
fn looking_needs_no_configuration_and_makes_no_state_file() {
    let home = Home::new();
    assert!(home.ok(&["audit"]).out.starts_with("nothing in the audit log of "));
    assert!(home.ok(&["audit", "verify"]).out.starts_with("ok  nothing in the audit log of "));
    let noted = format!("3:{}", "ab".repeat(32));
    let gone = home.run(&["audit", "verify", "--head", &noted]);
    assert!(gone.code == 5 && gone.err.contains("entry 3 "), "{}", gone.all());
    assert!(std::fs::read_dir(home.state()).unwrap().next().is_none());
}
