//! Keys and roles through the program: rotation, a prover on another machine, a writer that can neither read nor delete.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;

use cli::{Home, Ran};

const FILES: &str = "jobs:\n  - job: shop\n    sources:\n      - files: { name: data, paths: [data] }\n";

fn files() -> Home {
    let home = Home::new();
    home.write("data/a.txt", "a");
    home.init(FILES);
    home.ok(&["backup", "now"]);
    home
}

/// Runs a verb that opens the recovery file.
fn with_passphrase(home: &Home, args: &[&str]) -> Ran {
    let mut command = home.command(args);
    command.env("DRCTL_PASSPHRASE_FILE", home.path("passphrase"));
    Ran::of(command.output().unwrap())
}

fn records(home: &Home, job: &str) -> usize {
    home.files(&format!("drctl-repository/jobs/{job}/log")).len()
}

/// Another machine with the same repository and a key of its own.
fn elsewhere(home: &Home, key: &str, identity: bool) -> Home {
    let other = Home::new();
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let config = config.replace(&home.path("").display().to_string(), &other.path("").display().to_string());
    let store = home.path("drctl-repository").display().to_string();
    let config: Vec<String> = config
        .lines()
        .filter(|line| identity || !line.trim_start().starts_with("identity:"))
        .map(|line| line.replace("path: drctl-repository", &format!("path: {store}")))
        .collect();
    other.write("drctl.yaml", &config.join("\n"));
    other.write("drctl-keys/signing.key", &std::fs::read_to_string(home.path(key)).unwrap());
    if identity {
        other.write("drctl-keys/identity.txt", &std::fs::read_to_string(home.path("drctl-keys/identity.txt")).unwrap());
    }
    other.write("data/a.txt", "a");
    other
}

#[test]
fn f80_a_rotated_key_takes_over_and_the_old_one_writes_nothing_any_more() {
    let home = files();
    let first = home.newest();
    let old = std::fs::read_to_string(home.path("drctl-keys/signing.key")).unwrap();
    home.write("passphrase", "wrong");
    assert_eq!(with_passphrase(&home, &["key", "rotate", "--by", "drctl-recovery.txt"]).code, 1);
    home.write("passphrase", "correct horse battery staple");
    assert_eq!(std::fs::read_to_string(home.path("drctl-keys/signing.key")).unwrap(), old, "nothing changed");
    let ran = with_passphrase(&home, &["key", "rotate", "--by", "drctl-recovery.txt"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(ran.out.contains("key 2") && ran.out.contains("key 1 is revoked"), "{}", ran.out);
    home.ok(&["backup", "now"]);
    assert_eq!(home.sets().len(), 2);
    home.ok(&["verify", &first]);
    let list = home.ok(&["key", "list"]).out;
    assert!(list.contains("revoked by key 2") && list.contains("on this host"), "{list}");

    // The stolen one.
    let new = std::fs::read_to_string(home.path("drctl-keys/signing.key")).unwrap();
    home.write("drctl-keys/signing.key", &old);
    let (before, files) = (records(&home, "shop"), home.files("drctl-repository/jobs/shop/sets"));
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.err.contains("revoked") || ran.err.contains("signing key"), "{}", ran.err);
    assert_eq!((records(&home, "shop"), home.files("drctl-repository/jobs/shop/sets")), (before, files));

    // A job that begins after the rotation begins with the new key.
    home.write("drctl-keys/signing.key", &new);
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &format!("{config}  - job: later\n    sources:\n      - files: {{ name: data, paths: [data] }}\n"));
    home.ok(&["backup", "now", "later"]);
    let list = home.ok(&["list", "--job", "later"]).out;
    assert!(list.contains("later/"), "{list}");
    assert!(!home.ok(&["status"]).out.contains("ALARM"));
    // Its log knows that key 1 is no more.
    home.write("drctl-keys/signing.key", &old);
    assert_eq!(home.run(&["backup", "now", "later"]).code, 1);
}

#[test]
fn a_rotation_that_broke_off_is_said_and_finished() {
    let home = files();
    let ran = with_passphrase(
        &home,
        &[
            "key",
            "add",
            "--role",
            "writer",
            "--role",
            "prover",
            "--role",
            "pruner",
            "--role",
            "restorer",
            "--holder",
            "me",
            "--out",
            "drctl-keys/signing.key.next",
            "--by",
            "drctl-recovery.txt",
            "--revoke",
            "1",
        ],
    );
    assert_eq!(ran.code, 0, "{}", ran.all());
    let ran = home.ok(&["backup", "now"]);
    assert!(ran.err.contains("drctl key rotate"), "{}", ran.err);
    let ran = with_passphrase(&home, &["key", "rotate", "--by", "drctl-recovery.txt"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(!home.path("drctl-keys/signing.key.next").exists());
    let ran = home.ok(&["backup", "now"]);
    assert!(!ran.err.contains("key rotate"), "{}", ran.err);
    assert_eq!(home.json(&["key", "list"])["result"].as_array().unwrap().len(), 2, "no third key");
}

#[test]
fn a_prover_elsewhere_proves_and_cannot_write() {
    let home = files();
    let ran = with_passphrase(
        &home,
        &["key", "add", "--role", "prover", "--holder", "vault", "--out", "prover.key", "--by", "drctl-recovery.txt"],
    );
    assert_eq!(ran.code, 0, "{}", ran.all());
    let vault = elsewhere(&home, "prover.key", true);
    let set = home.newest();
    vault.ok(&["verify", &set]);
    assert!(home.ok(&["list"]).out.contains("read-back"), "the proof stands in the log");
    let status = vault.ok(&["status"]).out;
    assert!(status.contains("prover: a thief of this host can read every set, vouch"), "{status}");
    let before = home.files("drctl-repository/jobs/shop/sets");
    let ran = vault.run(&["backup", "now"]);
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.err.contains("commit"), "{}", ran.err);
    assert_eq!(home.files("drctl-repository/jobs/shop/sets"), before);
}

#[test]
fn a_sealed_writer_writes_and_can_neither_read_nor_vouch() {
    let home = files();
    let ran = with_passphrase(&home, &["key", "rotate", "--role", "writer", "--by", "drctl-recovery.txt"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    std::fs::remove_file(home.path("drctl-keys/identity.txt")).unwrap();
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let config: Vec<&str> = config.lines().filter(|line| !line.trim_start().starts_with("identity:")).collect();
    home.write("drctl.yaml", &config.join("\n"));
    home.ok(&["backup", "now"]);
    let status = home.ok(&["status"]).out;
    assert!(status.contains("sealed writer: a thief of this host can write sets that drctl believes, and"), "{status}");
    let set = home.newest();
    let ran = home.run(&["cat", &set, "data"]);
    assert_ne!(ran.code, 0);
    assert!(ran.err.contains("recovery"), "{}", ran.err);
    let ran = home.run(&["verify", &set]);
    assert_ne!(ran.code, 0, "{}", ran.all());
    assert!(!home.ok(&["list"]).out.contains("read-back"));
    // What this host cannot open the recovery file can.
    let back = home.path("back");
    let repo = home.path("drctl-repository").display().to_string();
    let ran = with_passphrase(
        &home,
        &[
            "restore",
            "--date",
            "latest",
            "--repo",
            &repo,
            "--recovery",
            "drctl-recovery.txt",
            "--source",
            "data",
            "--target",
            &back.display().to_string(),
            "--yes",
        ],
    );
    assert_eq!(ran.code, 0, "{}", ran.all());
}
