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

use cli::{Home, Ran};
use shop::Shop;

const KILLED: i32 = 128 + 9;

/// Runs a verb that is killed at a point.
fn killed_at(shop: &Shop, point: &str, args: &[&str]) -> Ran {
    let ran = Ran::of(shop.home.command(args).env("DRCTL_CRASH_AT", point).output().unwrap());
    assert_eq!(ran.code, KILLED, "{point} was not passed: {}", ran.all());
    ran
}

/// Runs a verb to which something else happens at a point: `int`, `term`, `panic`, `sh:…`.
fn happens_at(home: &Home, point: &str, by: &str, args: &[&str]) -> Ran {
    Ran::of(home.command(args).env("DRCTL_CRASH_AT", point).env("DRCTL_CRASH_BY", by).output().unwrap())
}

fn log_records(shop: &Shop) -> usize {
    shop.home.files("drctl-repository/jobs/shop/log").len()
}

/// Temporary files in the repository.
fn temporary(home: &Home) -> Vec<String> {
    let files = home.files("drctl-repository").into_iter().filter(|f| f.starts_with(".drctl-tmp/"));
    // A lock that a writer holds is a file too; what counts are bytes of a set.
    files.filter(|f| std::fs::metadata(home.path("drctl-repository").join(f)).is_ok_and(|m| m.len() > 0)).collect()
}

/// Processes that run in the folder of this home, as what its drctl starts does. Tests beside this one use the same server, so their tools have
/// arguments like these.
fn processes_of(home: &Home) -> Vec<String> {
    let folder = home.path("").canonicalize().unwrap();
    let numbers = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let of_it = numbers.filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder));
    let line = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    of_it.map(|pid| format!("{pid} {}", String::from_utf8_lossy(&line(pid)).replace('\0', " "))).collect()
}

/// Children of a drctl that has ended are dead, or are about to be.
fn children_are_gone(home: &Home) {
    let begun = Instant::now();
    loop {
        let left = processes_of(home);
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "still there: {left:?}");
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
        killed_at(&shop, point, &["backup", "now"]);
        // F2: pg_dump dies with it.
        children_are_gone(&shop.home);
        assert_eq!(log_records(&shop), records, "{point}");
        assert_eq!(shop.home.sets(), expected, "{point}: what was begun is no set");
        let status = shop.home.ok(&["status"]);
        assert!(status.out.contains("interrupted: backup shop"), "{point}: {}", status.out);
        assert_eq!(shop.home.ok(&["verify", &good]).code, 0);
        assert_eq!(shop.home.run(&["restore", "--date", "latest", "--dry-run"]).code, 0);
        // F1: the next run sees that the holder of the lease is dead, and says so.
        let next = shop.home.ok(&["backup", "now"]);
        assert!(next.err.contains("its lease is taken over"), "{point}: {}", next.err);
        assert_eq!(temporary(&shop.home), [""; 0], "{point}");
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
    assert!(ran.err.contains("drctl unlock"), "{}", ran.err);
    as_if_it_never_ran(&shop, &good, records);
    std::fs::write(&lease, here).unwrap();
    assert_eq!(backup().code, 0);
    shop.home.ok(&["backup", "now"]);
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(length / 8).flatten().collect()
}

#[test]
fn f03_a_backup_killed_between_two_parts_of_an_object_leaves_garbage_that_the_next_run_takes() {
    let home = Home::new();
    home.write("data/a", "a");
    home.init("jobs:\n  - job: shop\n    sources:\n      - files: { paths: [data] }\n");
    home.ok(&["backup", "now"]);
    let good = home.newest();
    std::fs::write(home.path("data/noise"), noise(56 << 20)).unwrap();
    let before = home.files("drctl-repository/jobs/shop/sets");
    // Parts of 1 MiB, objects of 16: the forty-sixth part is the fourteenth of the third object, of which some have reached the disk, as not so many
    // can wait. The first object is whole by then, the second may still be on its way to its name.
    let backup = |point: Option<&str>| {
        let mut command = home.command(&["backup", "now"]);
        command.env("DRCTL_OBJECT_BYTES", (16 << 20).to_string());
        if let Some(point) = point {
            command.env("DRCTL_CRASH_AT", point);
        }
        Ran::of(command.output().unwrap())
    };
    assert_eq!(backup(Some("split::piece#46")).code, KILLED);
    let left = temporary(&home);
    let orphans: Vec<String> = home.files("drctl-repository/jobs/shop/sets").into_iter().filter(|f| !before.contains(f)).collect();
    let whole = orphans.iter().any(|orphan| orphan.ends_with("files.tree.tar.zst.age"));
    // Of the second there may be either, or for a moment both.
    assert!(whole && (1..=2).contains(&orphans.len()) && (1..=2).contains(&left.len()), "whole: {orphans:?}, open: {left:?}");
    assert_eq!(home.sets(), [good.as_str()]);
    assert_eq!(home.files("drctl-repository/jobs/shop/log").len(), 1, "no record of the dead run");
    home.ok(&["verify", &good]);
    assert_eq!(temporary(&home), left, "who only reads takes nothing away");

    let next = backup(None);
    assert_eq!(next.code, 0, "{}", next.all());
    assert_eq!(temporary(&home), [""; 0]);
    let newest = home.newest();
    let objects = home.json(&["show", &newest])["result"]["artifacts"][0]["objects"].as_u64();
    assert_eq!(objects, Some(4), "the new set is of several objects");
    assert_eq!(home.sets(), [good, newest]);
    home.ok(&["verify", "--all"]);
}

#[test]
fn f05_a_backup_killed_after_its_commit_is_a_set_and_the_next_is_not_confused() {
    // Before and after this host has noted that the record stands.
    for (point, settled) in [("backup::committed", true), ("backup::after-commit", false)] {
        let home = Home::new();
        home.write("data/a", "a");
        home.init("jobs:\n  - job: shop\n    sources:\n      - files: { paths: [data] }\n");
        let killed = Ran::of(home.command(&["backup", "now"]).env("DRCTL_CRASH_AT", point).output().unwrap());
        assert_eq!(killed.code, KILLED);
        let sets = home.sets();
        assert_eq!(sets.len(), 1, "{point}");
        home.ok(&["verify", &sets[0]]);
        // What this host did not get to note, the log tells: nothing is lost, nothing has to be done again.
        let status = home.ok(&["status", "--max-age", "1h"]);
        assert!(status.out.contains(&format!("interrupted: backup {}, begun ", sets[0])), "{point}: {}", status.out);
        assert!(status.out.contains("after its commit, the set stands"), "{point}: {}", status.out);
        assert!(status.out.contains(&format!("newest good set  {}", sets[0])), "{point}: {}", status.out);
        let next = home.ok(&["backup", "now"]);
        assert!(next.out.contains("the good set before it"), "{point}: {}", next.out);
        assert_eq!(next.err.contains(&format!("the earlier backup {} was committed after all", sets[0])), settled, "{point}: {}", next.err);
        let commits = home.sets();
        assert!(commits.len() == 2 && commits[0] == sets[0], "the set is there once: {commits:?}");
        home.ok(&["verify", "--all"]);
        // A run that made its set and one that did not are told apart afterwards, too.
        let killed = Ran::of(home.command(&["backup", "now"]).env("DRCTL_CRASH_AT", "backup::before-commit").output().unwrap());
        assert_eq!(killed.code, KILLED);
        let status = home.ok(&["status"]);
        assert_eq!(status.out.matches("interrupted: backup shop, begun").count(), 1, "{point}: {}", status.out);
        assert_eq!(status.out.matches("the set stands").count(), 1, "{point}: {}", status.out);
    }
}

/// A prune that is killed has either not begun with a set, or that set counts for nothing: never is one listed that cannot be read (FAULTS 76).
#[test]
fn f06_f76_a_prune_killed_anywhere_leaves_no_set_that_cannot_be_read_and_the_next_ends_it() {
    // With the number of sets that are left of four: the first intent stands, the first delete is done, all are, and in the sweep both sets are gone.
    for (point, left) in [("prune::after-intent", 3), ("retire::deleting#2", 3), ("retire::before-deleted", 3), ("retire::sweeping", 2)] {
        let home = Home::new();
        home.write("data/a", "a");
        home.init("jobs:\n  - job: shop\n    retention: { keep_last: 2 }\n    sources:\n      - files: { paths: [data] }\n");
        for _ in 0..4 {
            home.ok(&["backup", "now", "--verify", "read-back"]);
        }
        let before = home.sets();
        // What a run left that came to nothing, two months ago: the sweep takes it.
        let orphan = home.path("drctl-repository/jobs/shop/sets/2020/01/01/020000Z-full-7k3q/files.tree.tar.zst.age");
        std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
        let old = std::fs::File::create(&orphan).unwrap();
        old.set_modified(std::time::SystemTime::now() - Duration::from_secs(60 * 86_400)).unwrap();
        let killed = Ran::of(home.command(&["prune", "--apply"]).env("DRCTL_CRASH_AT", point).output().unwrap());
        assert_eq!(killed.code, KILLED, "{point} was not passed: {}", killed.all());
        assert_eq!(home.sets(), before[4 - left..], "{point}: what has an intent is no set any more");
        if point == "retire::deleting#2" {
            assert!(home.set_folder(&before[0]).exists(), "{point}: it is half there");
        }
        home.ok(&["verify", "--all"]);
        assert_eq!(home.run(&["show", &before[0]]).code, 6, "{point}");
        assert_eq!(home.run(&["restore", &before[0], "--target", "back", "--yes"]).code, 6, "{point}");
        // A backup is not in its way, and it is not in the way of a backup.
        home.ok(&["backup", "now", "--verify", "read-back"]);
        home.ok(&["verify", "--all"]);
        let next = home.ok(&["prune", "--apply"]);
        let sets = home.sets();
        assert_eq!(sets.len(), 2, "{point}: {}", next.all());
        assert_eq!(sets[0], before[3], "{point}");
        for gone in &before[..3] {
            let left: Vec<String> = home
                .files("drctl-repository")
                .into_iter()
                .filter(|f| home.path("drctl-repository").join(f).starts_with(home.set_folder(gone)))
                .collect();
            assert_eq!(left, [""; 0], "{point}: {gone}");
        }
        assert!(!orphan.exists(), "{point}");
        home.ok(&["verify", "--all"]);
        let done = home.ok(&["prune"]).out;
        assert!(done.contains("nothing to delete") && !done.contains("half deleted"), "{point}: {done}");
        if point != "retire::sweeping" {
            continue;
        }
        // A writer that was slow stores an object of a set that is gone by now: it is no set again, and the next prune takes it.
        let late = home.set_folder(&before[0]).join("files.tree.tar.zst.age");
        std::fs::create_dir_all(late.parent().unwrap()).unwrap();
        std::fs::write(&late, "late").unwrap();
        assert_eq!(home.sets(), sets, "{point}");
        home.ok(&["prune", "--apply"]);
        assert!(!late.exists() && home.sets() == sets, "{point}");
    }
}

/// A panic anywhere: exit 1, no set, and the other jobs run.
#[test]
fn f10_a_panic_fails_its_run_only_and_is_exit_1() {
    let home = Home::new();
    home.write("a/1", "1");
    home.write("b/2", "2");
    std::fs::write(home.path("a/noise"), noise(3 << 20)).unwrap();
    home.init(
        "jobs:\n  - job: one\n    sources:\n      - files: { paths: [a] }\n  - job: two\n    sources:\n      - files: { paths: [b] }\n  \
         - job: three\n    sources:\n      - command: { name: slow, run: [sh, -c, 'head -c 2000000 /dev/zero; [ ! -e slow ] || exec sleep 601'] }\n",
    );
    home.ok(&["backup", "now"]);
    let good = home.sets();
    assert_eq!(good.len(), 3);
    let mut expected = good.clone();
    // In a worker that compresses, in the thread that stores, in the run itself.
    for point in ["pipeline::damage#2", "split::piece#2", "backup::before-commit"] {
        let ran = happens_at(&home, point, "panic", &["backup", "now", "one", "two"]);
        assert_eq!(ran.code, 1, "{point}: {}", ran.all());
        assert!(ran.err.contains("error: job one: ") && ran.err.contains("\nhint: this is a bug in drctl"), "{point}: {}", ran.err);
        // The second job's set, and none of the first.
        let sets = home.sets();
        let new: Vec<&String> = sets.iter().filter(|s| !expected.contains(s)).collect();
        assert!(new.len() == 1 && new[0].starts_with("two/"), "{point}: {new:?}\n{}", ran.all());
        expected = sets;
        assert_eq!(home.files("drctl-repository/jobs/one/log").len(), 1, "{point}");
        assert_eq!(temporary(&home), [""; 0], "{point}");
    }
    // Where no job is to blame nothing else can run, but the exit code is the same and the lease is found to be nobody's.
    let ran = happens_at(&home, "backup::leased", "panic", &["backup", "now"]);
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.err.contains("drctl backup broke down: DRCTL_CRASH_AT") && ran.err.contains("hint: "), "{}", ran.err);
    for set in &good {
        home.ok(&["verify", set]);
    }
    // Children of a run that panics die with it.
    home.write("slow", "");
    let ran = happens_at(&home, "command::bytes", "panic", &["backup", "now", "three"]);
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.err.contains("hint: "), "{}", ran.err);
    children_are_gone(&home);
    std::fs::remove_file(home.path("slow")).unwrap();
    home.ok(&["backup", "now"]);
    home.ok(&["verify", "--all"]);
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
        children_are_gone(&shop.home);
        let status = shop.home.ok(&["status"]);
        assert!(
            status.out.contains("interrupted while loading") || status.out.contains("interrupted in the switch"),
            "{point}: {}",
            status.out
        );
        assert!(status.out.contains("drctl restore --undo "), "{point}: {}", status.out);
        assert!(!killed.out.contains(&set), "{point}: it is not said to be restored: {}", killed.out);
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

/// A signal when all is loaded and nothing is switched: the live data stays, what was made is gone, the same line works.
#[test]
fn f08_a_signal_between_load_and_switch_changes_nothing_live() {
    let shop = Shop::new();
    let whole = shop.picture();
    let set = shop.backup();
    shop.damage();
    let lost = shop.picture();
    let args = ["restore", &set, "--yes"];
    for (point, by, code, word) in [
        ("restore::loaded#2", "int", 130, "interrupted"),
        ("restore::loaded#3", "term", 143, "terminated"),
        ("restore::counted", "int", 130, "interrupted"),
        ("restore::counted", "term", 143, "terminated"),
    ] {
        let ran = happens_at(&shop.home, point, by, &args);
        assert_eq!(ran.code, code, "{point}: {}", ran.all());
        assert!(ran.err.contains(word) && !ran.out.contains("ok "), "{point}: {}", ran.all());
        assert_eq!(shop.picture(), lost, "{point}: {}", ran.all());
        assert_eq!((shop.databases().len(), shop.beside()), (1, vec![]), "{point}: {}", ran.all());
        assert!(!shop.home.ok(&["status"]).out.contains("restore --"), "{point}: nothing is left to undo");
    }
    // Once the switch has begun it is done whole; the undo is there for whoever did not want it.
    // Or not at all: what was switched before is switched back.
    for point in ["restore::before-switch#1", "restore::before-switch#2"] {
        let ran = happens_at(&shop.home, point, "int", &args);
        println!("{point}: {} {}", ran.code, ran.err.lines().last().unwrap_or_default());
        match ran.code {
            0 => {
                assert_eq!(shop.picture(), whole, "{point}: {}", ran.all());
                shop.home.ok(&["restore", "--undo"]);
            }
            code => {
                assert_eq!(code, 130, "{point}: {}", ran.all());
                assert!(ran.err.contains("the live data is as it was before"), "{point}: {}", ran.err);
            }
        }
        assert_eq!(shop.picture(), lost, "{point}: {}", ran.all());
        // What was live for a moment is kept until a person has looked, and named; else there is nothing.
        let beside = (shop.databases().len() - 1) + shop.beside().len();
        let status = shop.home.ok(&["status"]);
        assert_eq!(status.out.contains("drctl restore --finish"), beside > 0, "{point}: {}", status.out);
        if beside > 0 {
            shop.home.ok(&["restore", "--finish", "--yes"]);
        }
        assert_eq!((shop.databases().len(), shop.beside()), (1, vec![]), "{point}");
    }
    shop.home.ok(&args);
    assert_eq!(shop.picture(), whole);
    shop.home.ok(&["restore", "--finish", "--yes"]);
    assert_eq!((shop.databases().len(), shop.beside().len()), (1, 0));
}

/// The state file breaks while a restore is under way: an error that names it, and the live data is one or the other, whole.
#[test]
fn a_state_file_that_breaks_in_mid_restore_is_a_clear_error_and_harms_nothing_live() {
    let shop = Shop::new();
    let whole = shop.picture();
    let set = shop.backup();
    shop.damage();
    let lost = shop.picture();
    let state = shop.home.path("../state/state.sqlite").canonicalize().unwrap();
    let spoil = format!("sh:for f in '{0}' '{0}-wal' '{0}-shm'; do head -c 200000 /dev/urandom > \"$f\"; done", state.display());
    let mend = || {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", state.display()));
        }
    };
    for (point, live) in
        [("postgres::feeding#2", &lost), ("restore::loaded#1", &lost), ("restore::counted", &lost), ("restore::switched", &whole)]
    {
        let ran = happens_at(&shop.home, point, &spoil, &["restore", &set, "--yes"]);
        assert!(!matches!(ran.code, 0 | 101 | 137), "{point}: {}", ran.all());
        assert!(ran.err.contains("state.sqlite"), "{point}: {}", ran.err);
        assert_eq!(&shop.picture(), live, "{point}: {}", ran.all());
        // What could not be noted as gone or kept is named, so that a person can look at it.
        let beside = (shop.databases().len() - 1) + shop.beside().len();
        assert!(
            beside == 0 || ran.err.contains("stays") || ran.err.contains("kept") || ran.err.contains("_drctl_"),
            "{point}: {:?} {:?}\n{}",
            shop.databases(),
            shop.beside(),
            ran.err
        );
        // Every verb says so; a backup still runs, a restore that could not be undone does not.
        let status = shop.run(&["status"]);
        assert!(status.err.contains("state.sqlite"), "{point}: {}", status.all());
        let again = shop.run(&["restore", &set, "--yes"]);
        assert_eq!(again.code, 4, "{point}: {}", again.all());
        assert!(again.err.contains("hint: "), "{point}: {}", again.err);
        assert_eq!(&shop.picture(), live, "{point}");
        let undo = shop.run(&["restore", "--undo"]);
        assert_eq!(undo.code, 4, "{point}: {}", undo.all());
        let backup = shop.home.ok(&["backup", "now", "--source", "hello"]);
        assert!(backup.err.contains("not recorded"), "{point}: {}", backup.err);
        shop.home.ok(&["verify", &set]);
        mend();
        for database in shop.databases().iter().filter(|d| **d != shop.database) {
            shop.server.sql("postgres", &format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"));
            shop.server.sql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
        }
        for left in shop.beside() {
            std::fs::remove_dir_all(shop.home.path(&left)).unwrap();
        }
    }
    shop.home.ok(&["restore", &set, "--yes"]);
    assert_eq!(shop.picture(), whole);
}
