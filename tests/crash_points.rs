//! The program is killed at every step of a backup and of a restore; afterwards earlier sets verify, nothing is taken for a set that is
//! none, live data is whole, and the next run gets on.

#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use std::time::{Duration, Instant};

use cli::Ran;
use shop::Shop;

const KILLED: i32 = 128 + 9;

/// Runs a verb that is killed at a point.
fn killed_at(shop: &Shop, point: &str, args: &[&str]) -> Ran {
    let ran = Ran::of(shop.home.command(args).env("DRCTL_CRASH_AT", point).output().unwrap());
    assert_eq!(ran.code, KILLED, "{point} was not passed: {}", ran.all());
    ran
}

fn log_records(shop: &Shop) -> usize {
    shop.home.files("drctl-repository/jobs/shop/log").len()
}

/// Temporary files in the repository.
fn temporary(shop: &Shop) -> Vec<String> {
    let files = shop.home.files("drctl-repository").into_iter().filter(|f| f.starts_with(".drctl-tmp/"));
    // A lock that a writer holds is a file too; what counts are bytes of a set.
    files.filter(|f| std::fs::metadata(shop.home.path("drctl-repository").join(f)).is_ok_and(|m| m.len() > 0)).collect()
}

/// Processes whose arguments hold `word`.
fn processes_with(word: &str) -> Vec<String> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let lines = numbers.filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(word)).collect()
}

fn gone_within(seconds: u64, what: impl Fn() -> Vec<String>) {
    let begun = Instant::now();
    loop {
        let left = what();
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(seconds), "still there: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What must hold after any crash of a backup that did not commit.
fn as_if_it_never_ran(shop: &Shop, good: &str, records: usize) {
    assert_eq!(log_records(shop), records, "no record of the dead run");
    assert_eq!(shop.home.sets(), [good]);
    shop.home.ok(&["verify", good]);
    let status = shop.home.ok(&["status"]);
    assert!(status.out.contains("interrupted: backup shop"), "{}", status.out);
}

#[test]
fn f01_f02_f04_a_backup_killed_before_its_commit_leaves_nothing_that_counts() {
    let shop = Shop::new();
    shop.sql("CREATE TABLE big AS SELECT i, repeat(md5(i::text), 8) t FROM generate_series(1, 60000) i");
    let good = shop.backup();
    let mut expected = vec![good.clone()];
    // The sixth batch is in the midst of the dump of `big`.
    for point in ["backup::leased", "pipeline::damage#6", "backup::before-commit"] {
        let records = log_records(&shop);
        let children = || processes_with(&format!("--port={}", shop.server.port));
        killed_at(&shop, point, &["backup", "now"]);
        // F2: pg_dump dies with it.
        gone_within(2, children);
        assert_eq!(log_records(&shop), records, "{point}");
        assert_eq!(shop.home.sets(), expected, "{point}: what was begun is no set");
        let status = shop.home.ok(&["status"]);
        assert!(status.out.contains("interrupted: backup shop"), "{point}: {}", status.out);
        assert_eq!(shop.home.ok(&["verify", &good]).code, 0);
        assert_eq!(shop.home.run(&["restore", "--date", "latest", "--dry-run"]).code, 0);
        // F1: the next run sees that the holder of the lease is dead, and says so.
        let next = shop.home.ok(&["backup", "now"]);
        assert!(next.err.contains("its lease is taken over"), "{point}: {}", next.err);
        assert_eq!(temporary(&shop), [""; 0], "{point}");
        expected.push(shop.home.newest());
        assert_eq!(shop.home.sets(), expected, "{point}");
    }
    shop.home.ok(&["verify", "--all"]);
}

/// Without its state file a run knows that a holder of this boot is dead. Of a holder elsewhere it cannot know: it waits, and says
/// until when.
#[test]
fn f01_without_the_state_file_only_a_holder_of_this_boot_is_known_to_be_dead() {
    let shop = Shop::new();
    let good = shop.backup();
    let records = log_records(&shop);
    killed_at(&shop, "backup::leased", &["backup", "now"]);
    let folder = shop.home.path("drctl-repository/jobs/shop/lease");
    let newest = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap());
    let lease = newest.unwrap();
    let here = std::fs::read_to_string(&lease).unwrap();
    let mut elsewhere: serde_json::Value = serde_json::from_str(&here).unwrap();
    elsewhere["boot"] = "of another machine".into();
    std::fs::write(&lease, elsewhere.to_string()).unwrap();
    let other = tempfile::tempdir().unwrap();
    let backup = || Ran::of(shop.home.command(&["backup", "now"]).env("STATE_DIRECTORY", other.path()).output().unwrap());
    let ran = backup();
    assert_eq!(ran.code, 7, "{}", ran.all());
    assert!(ran.err.contains("is held by") && ran.err.contains("by itself at 20"), "{}", ran.err);
    assert!(!ran.err.contains("unlock"), "a verb that is not there: {}", ran.err);
    as_if_it_never_ran(&shop, &good, records);
    std::fs::write(&lease, here).unwrap();
    assert_eq!(backup().code, 0);
    shop.home.ok(&["backup", "now"]);
}

#[test]
fn f05_a_backup_killed_after_its_commit_is_a_set_and_the_next_is_not_confused() {
    let shop = Shop::new();
    killed_at(&shop, "backup::after-commit", &["backup", "now"]);
    let sets = shop.home.sets();
    assert_eq!(sets.len(), 1);
    shop.home.ok(&["verify", &sets[0]]);
    let next = shop.home.ok(&["backup", "now"]);
    assert!(next.out.contains("the good set before it"), "{}", next.out);
    assert_eq!(shop.home.sets().len(), 2);
    shop.home.ok(&["verify", "--all"]);
}

/// How a killed restore is got out of.
enum Way {
    /// Nothing was switched: another restore cleans up by itself.
    Again,
    /// The switch had begun: the old data comes back first.
    Undo,
}

#[test]
fn f07_f84_a_restore_killed_anywhere_loses_nothing() {
    let points = [
        ("postgres::feeding#2", Way::Again),
        ("restore::loaded#1", Way::Again),
        ("restore::loaded#2", Way::Again),
        ("files::extracting#2", Way::Again),
        ("restore::loaded#3", Way::Again),
        ("restore::before-switch#1", Way::Undo),
        ("postgres::closed", Way::Undo),
        ("postgres::renamed", Way::Undo),
        ("restore::before-switch#2", Way::Undo),
        ("files::exchanged", Way::Undo),
        ("restore::switched", Way::Undo),
    ];
    let shop = Shop::new();
    let whole = shop.picture();
    let set = shop.backup();
    shop.damage();
    let lost = shop.picture();
    for (point, way) in points {
        let killed = killed_at(&shop, point, &["restore", &set, "--yes"]);
        gone_within(2, || processes_with(&format!("--port={}", shop.server.port)));
        let status = shop.home.ok(&["status"]);
        assert!(
            status.out.contains("interrupted while loading") || status.out.contains("interrupted in the switch"),
            "{point}: {}",
            status.out
        );
        assert!(status.out.contains("drctl restore --undo "), "{point}: {}", status.out);
        let databases = shop.databases();
        assert!(databases.iter().any(|d| d.contains("_drctl_")) || !matches!(way, Way::Undo), "{point}: {databases:?}");
        shop.home.ok(&["verify", &set]);
        match way {
            Way::Again => assert_eq!(shop.picture(), lost, "{point}: live data is untouched\n{}", killed.all()),
            Way::Undo => {
                let again = shop.run(&["restore", &set, "--yes"]);
                assert_eq!(again.code, 4, "{point}: {}", again.all());
                assert!(again.err.contains("drctl restore --undo "), "{point}: {}", again.err);
                let undone = shop.home.ok(&["restore", "--undo"]);
                assert_eq!(shop.picture(), lost, "{point}: {}", undone.all());
            }
        }
        let done = shop.home.ok(&["restore", &set, "--yes"]);
        assert_eq!(shop.picture(), whole, "{point}: {}", done.all());
        // Back to the loss for the next round; then nothing may be left of either.
        shop.home.ok(&["restore", "--undo"]);
        assert_eq!(shop.picture(), lost, "{point}");
        while shop.run(&["restore", "--finish", "--yes"]).code == 0 {}
        assert_eq!((shop.databases().len(), shop.beside()), (1, Vec::<String>::new()), "{point}");
        assert!(!shop.home.ok(&["status"]).out.contains("restore --"), "{point}");
    }
    // And from an interrupted one the way forward is open too: the newest set is as good as ever.
    shop.home.ok(&["restore", &set, "--yes"]);
    assert_eq!(shop.picture(), whole);
}

/// In place the live database is gone while the new one loads: a crash says so, and the same line again mends it.
#[test]
fn f07_a_restore_in_place_that_was_killed_is_told_and_can_be_repeated() {
    let shop = Shop::new();
    let whole = shop.orders();
    let set = shop.backup();
    shop.damage();
    let args = ["restore", &set, "--source", "postgres", "--in-place", "--yes"];
    // Once for all that is checked, once more for the load.
    killed_at(&shop, "postgres::feeding#2", &args);
    let safety = shop.home.newest();
    assert_ne!(safety, set);
    let status = shop.home.ok(&["status"]);
    assert!(status.out.contains("interrupted while loading in place") && status.out.contains("--no-safety-set"), "{}", status.out);
    shop.home.ok(&["verify", "--all"]);
    shop.home.ok(&["restore", &set, "--source", "postgres", "--in-place", "--no-safety-set", "--yes"]);
    assert_eq!(shop.orders(), whole);
    assert_eq!(shop.databases().len(), 1, "{:?}", shop.databases());
    assert!(!shop.home.ok(&["status"]).out.contains("interrupted while"), "{}", shop.home.ok(&["status"]).out);
}
