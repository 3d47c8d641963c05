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

const ROTATE: [&str; 5] = ["key", "rotate", "--identity", "--by", "drctl-recovery.txt"];

fn text(home: &Home, file: &str) -> String {
    std::fs::read_to_string(home.path(file)).unwrap()
}

/// Exit code of a reading with nothing but this recovery file.
fn opens(home: &Home, recovery: &str, set: &str) -> i32 {
    let repo = home.path("drctl-repository").display().to_string();
    with_passphrase(home, &["cat", set, "data", "--repo", &repo, "--recovery", recovery]).code
}

#[test]
fn f80_an_identity_that_live_sets_need_is_missed_when_it_is_taken_away() {
    let home = files();
    assert_eq!(with_passphrase(&home, &ROTATE).code, 0);
    home.ok(&["backup", "now", "--verify", "read-back"]);
    let whole = text(&home, "drctl-keys/identity.txt");
    assert!(!home.run(&["doctor"]).out.contains("cannot be opened"));
    // Somebody tidies up: the newest identity is the first one.
    let mut kept = false;
    let newest: Vec<&str> = whole.lines().filter(|l| !l.starts_with("AGE-SECRET-KEY") || !std::mem::replace(&mut kept, true)).collect();
    home.write("drctl-keys/identity.txt", &(newest.join("\n") + "\n"));
    home.ok(&["backup", "now"]);
    let doctor = home.run(&["doctor"]);
    assert!(
        doctor.code == 1 && doctor.out.contains("1 of 3 sets cannot be opened") && doctor.out.contains("put it back"),
        "{}",
        doctor.all()
    );
    assert!(home.ok(&["status"]).out.contains("ALARM: shop: 1 of 3 sets cannot be opened"));
    home.write("drctl-keys/identity.txt", &whole);
    assert!(!home.run(&["doctor"]).out.contains("cannot be opened"));
    assert!(!home.ok(&["status"]).out.contains("ALARM"));
}

#[test]
fn f79_sets_of_before_and_after_a_rotated_identity_open_on_the_host_and_from_paper() {
    let home = files();
    let first = home.newest();
    assert_eq!(with_passphrase(&home, &["key", "confirm", "drctl-recovery.txt"]).code, 0);
    assert!(!home.ok(&["status"]).out.contains("recovery file"));
    let old_recovery = text(&home, "drctl-recovery.txt");
    let old_identity = text(&home, "drctl-keys/identity.txt");
    let config = text(&home, "drctl.yaml");

    let ran = with_passphrase(&home, &ROTATE);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(ran.out.contains("drctl-recovery-2.txt") && !ran.all().contains("AGE-SECRET-KEY"), "{}", ran.all());
    assert_eq!(text(&home, "drctl-recovery.txt"), old_recovery, "the old one stays as it was");
    let identity = text(&home, "drctl-keys/identity.txt");
    let lines = |text: &str| text.lines().filter(|l| l.starts_with("AGE-SECRET-KEY-1")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&identity)[1..], lines(&old_identity));
    let changed = text(&home, "drctl.yaml");
    let differ: Vec<_> = config.lines().zip(changed.lines()).filter(|(a, b)| a != b).collect();
    assert!(differ.len() == 1 && differ[0].0.contains("age1") && differ[0].1.contains("age1"), "{differ:?}");
    for private in ["drctl.yaml", "drctl-keys/identity.txt", "drctl-recovery-2.txt"] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(home.path(private).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{private}");
    }
    assert_eq!(home.files("").iter().filter(|f| f.starts_with('.')).count(), 0, "{:?}", home.files(""));

    // The confirmation was of another file.
    assert!(home.ok(&["status"]).out.contains("not tried since the identity was changed"), "{}", home.ok(&["status"]).out);
    let ran = with_passphrase(&home, &["key", "confirm", "drctl-recovery.txt"]);
    assert!(ran.code == 1 && ran.err.contains("does not open what is written from now on"), "{}", ran.all());
    assert_eq!(with_passphrase(&home, &["key", "confirm", "drctl-recovery-2.txt"]).code, 0);
    assert!(!home.ok(&["status"]).out.contains("recovery file"));

    home.ok(&["backup", "now", "--verify", "read-back"]);
    let second = home.newest();
    home.ok(&["verify", "--all"]);
    assert_eq!(
        (opens(&home, "drctl-recovery.txt", &first), opens(&home, "drctl-recovery.txt", &second)),
        (0, 4),
        "the old paper is of yesterday"
    );
    assert_eq!((opens(&home, "drctl-recovery-2.txt", &first), opens(&home, "drctl-recovery-2.txt", &second)), (0, 0));

    // The old paper rotates nothing any more, the new one does.
    let ran = with_passphrase(&home, &ROTATE);
    assert!(ran.code == 4 && ran.err.contains("take the newest recovery file"), "{}", ran.all());
    let ran = with_passphrase(&home, &["key", "rotate", "--identity", "--by", "drctl-recovery-2.txt"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    home.ok(&["backup", "now"]);
    for set in home.sets() {
        assert_eq!(opens(&home, "drctl-recovery-3.txt", &set), 0);
    }
    home.ok(&["verify", "--all"]);

    // A new machine seals for the newest only, and reads all.
    let other = Home::new();
    other.write("recovery.txt", &text(&home, "drctl-recovery-3.txt"));
    other.write("passphrase", "correct horse battery staple");
    let repo = home.path("drctl-repository").display().to_string();
    let ran = with_passphrase(&other, &["init", "--from", &repo, "--recovery", "recovery.txt"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(text(&other, "drctl.yaml").matches("age1").count(), 1);
    other.ok(&["verify", "--all"]);
}

#[test]
fn a_rotation_of_the_identity_that_broke_off_goes_on_with_the_same_one() {
    let home = files();
    let (config, identity) = (text(&home, "drctl.yaml"), text(&home, "drctl-keys/identity.txt"));
    // Something else; that of another repository under the same passphrase; a copy of the old one.
    for there in ["a shopping list".to_owned(), text(&files(), "drctl-recovery.txt"), text(&home, "drctl-recovery.txt")] {
        home.write("drctl-recovery-2.txt", &there);
        let ran = with_passphrase(&home, &ROTATE);
        assert!(ran.code == 4 && ran.err.contains("drctl-recovery-2.txt exists already"), "{}", ran.all());
        assert_eq!((text(&home, "drctl.yaml"), text(&home, "drctl-keys/identity.txt")), (config.clone(), identity.clone()));
        assert_eq!(text(&home, "drctl-recovery-2.txt"), there);
    }
    std::fs::remove_file(home.path("drctl-recovery-2.txt")).unwrap();

    assert_eq!(with_passphrase(&home, &ROTATE).code, 0);
    let done = (text(&home, "drctl.yaml"), text(&home, "drctl-keys/identity.txt"), text(&home, "drctl-recovery-2.txt"));
    // Behind the recovery file; behind the identity.
    for (config, identity) in [(&config, &identity), (&config, &done.1)] {
        home.write("drctl.yaml", config);
        home.write("drctl-keys/identity.txt", identity);
        let ran = with_passphrase(&home, &ROTATE);
        assert_eq!(ran.code, 0, "{}", ran.all());
        assert_eq!((text(&home, "drctl.yaml"), text(&home, "drctl-keys/identity.txt"), text(&home, "drctl-recovery-2.txt")), done);
    }
    home.ok(&["backup", "now"]);
    home.ok(&["verify", "--all"]);
}

#[test]
fn what_cannot_be_changed_without_doubt_is_left_to_a_person() {
    let home = files();
    let config = text(&home, "drctl.yaml");
    let old = config.split_whitespace().find(|word| word.starts_with("age1")).unwrap().to_owned();
    let noted = format!("{config}\n# {old} is the one of the safe\n");
    home.write("drctl.yaml", &noted);
    let ran = with_passphrase(&home, &["key", "rotate", "--identity", "--by", "drctl-recovery.txt", "--out", "safe.txt"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(ran.out.starts_with("CHANGE ") && ran.out.contains(&old), "{}", ran.out);
    assert_eq!(text(&home, "drctl.yaml"), noted);
    let new = ran.out.split_whitespace().find(|word| word.starts_with("age1") && **word != old).unwrap();
    home.write("drctl.yaml", &config.replace(&old, new));
    home.ok(&["backup", "now", "--verify", "read-back"]);
    assert_eq!(opens(&home, "safe.txt", &home.newest()), 0);

    // It comes from a variable, and the one place where it stands is not where it is read.
    let mut by_variable = files();
    let config = text(&by_variable, "drctl.yaml");
    let old = config.split_whitespace().find(|word| word.starts_with("age1")).unwrap().to_owned();
    by_variable.env("RECIPIENT", &old);
    let config = format!("{}\n# once {old}\n", config.replace(&old, "\"${RECIPIENT}\""));
    by_variable.write("drctl.yaml", &config);
    let ran = with_passphrase(&by_variable, &ROTATE);
    assert!(ran.code == 0 && ran.out.starts_with("CHANGE "), "{}", ran.all());
    assert_eq!(text(&by_variable, "drctl.yaml"), config);

    // Another repository's recovery file; a sealed host, which has no identity file; roles are of signing keys.
    let other = files();
    home.write("other.txt", &text(&other, "drctl-recovery.txt"));
    assert_eq!(with_passphrase(&home, &["key", "rotate", "--identity", "--by", "other.txt"]).code, 4);
    assert_eq!(with_passphrase(&other, &[ROTATE.as_slice(), &["--role", "writer"]].concat()).code, 2);
    std::fs::remove_file(other.path("drctl-keys/identity.txt")).unwrap();
    let config: Vec<String> =
        text(&other, "drctl.yaml").lines().filter(|line| !line.trim_start().starts_with("identity:")).map(str::to_owned).collect();
    other.write("drctl.yaml", &config.join("\n"));
    assert_eq!(with_passphrase(&other, &ROTATE).code, 0);
    other.ok(&["backup", "now"]);
    for set in other.sets() {
        assert_eq!(opens(&other, "drctl-recovery-2.txt", &set), 0);
    }
    assert!(!other.path("drctl-keys/identity.txt").exists());
}
