//! The state file: what is remembered, by several processes at once, after a kill, and when the file is damaged.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use drctl::error::Kind;
use drctl::model::{Sha256, SystemClock, TestClock};
use drctl::state::{RunOutcome, ScheduleMark, StateFile};
use serde_json::json;

/// Set for the inner half of a test that runs in a process of its own: the state file.
const INSIDE: &str = "DRCTL_TEST_STATE";

fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

fn another_process(test: &str, path: &Path) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--test-threads", "1"]).env(INSIDE, path).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
}

fn open(path: &Path) -> Arc<StateFile> {
    Arc::new(StateFile::open(path, Arc::new(SystemClock)).unwrap())
}

fn kind_of_open(path: &Path) -> (Kind, String) {
    let error = StateFile::open(path, Arc::new(SystemClock)).err().unwrap();
    (error.kind(), format!("{error:?}"))
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/anew/state.sqlite");
    (folder, path)
}

#[test]
fn runs_are_remembered() {
    let (_folder, path) = scratch();
    let clock = Arc::new(TestClock::at("2025-01-01T02:00:00Z".parse().unwrap()));
    let state = Arc::new(StateFile::open(&path, clock.clone()).unwrap());
    let run = state.begin_run("backup", Some("shop")).unwrap();
    run.set("shop/20250101T020000Z-full-7k3q").unwrap();
    let under_way = state.run(run.id()).unwrap().unwrap();
    assert_eq!((under_way.outcome, under_way.finished_at), (RunOutcome::Running, None));
    clock.step_seconds(60);
    let id = run.id();
    run.finish(3, Some("uploads is not whole")).unwrap();
    state.begin_run("list", None).unwrap().finish(0, None).unwrap();
    state.begin_run("verify", Some("shop")).unwrap().finish(0, None).unwrap();

    let row = open(&path).run(id).unwrap().unwrap();
    assert_eq!((row.verb.as_str(), row.job.as_deref()), ("backup", Some("shop")));
    assert_eq!(row.set.as_deref(), Some("shop/20250101T020000Z-full-7k3q"));
    assert_eq!(row.outcome, RunOutcome::Finished(3));
    assert_eq!(row.finished_at.unwrap().as_second() - row.started_at.as_second(), 60);
    assert_eq!(row.error.as_deref(), Some("uploads is not whole"));
    let verbs = |job, verb, limit| state.runs(job, verb, limit).unwrap().into_iter().map(|r| r.verb).collect::<Vec<_>>();
    assert_eq!(verbs(None, None, 10), ["verify", "list", "backup"]);
    assert_eq!(verbs(Some("shop"), None, 10), ["verify", "backup"]);
    assert_eq!(verbs(Some("shop"), Some("backup"), 10), ["backup"]);
    assert_eq!(verbs(None, None, 1), ["verify"]);
    assert_eq!(state.run(999).unwrap(), None);
    let locks = path.with_file_name("state.sqlite.runs");
    assert_eq!(std::fs::read_dir(locks).unwrap().count(), 0);
}

#[test]
fn f1_a_killed_run_is_found_as_interrupted() {
    if let Some(path) = inside() {
        let run = open(&path).begin_run("backup", Some("shop")).unwrap();
        std::fs::write(path.with_extension("begun"), run.id().to_string()).unwrap();
        std::thread::sleep(Duration::from_secs(600));
        unreachable!("killed before");
    }
    let (_folder, path) = scratch();
    let state = open(&path);
    let ours = state.begin_run("verify", Some("shop")).unwrap();
    let mut child = another_process("f1_a_killed_run_is_found_as_interrupted", &path);
    let begun = path.with_extension("begun");
    while !begun.exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(state.sweep_interrupted().unwrap().is_empty(), "both are alive, one of them in this very process");
    child.kill().unwrap();
    child.wait().unwrap();

    let found = state.sweep_interrupted().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].verb.as_str(), found[0].outcome), ("backup", RunOutcome::Interrupted));
    assert!(found[0].finished_at.is_some());
    assert!(state.sweep_interrupted().unwrap().is_empty(), "told once");
    assert_eq!(state.run(ours.id()).unwrap().unwrap().outcome, RunOutcome::Running);
    ours.finish(0, None).unwrap();
}

/// A run that was dropped by a panic; and one whose lock file was lost with its folder, in this process and in another one.
#[test]
fn f1_a_run_without_an_end_is_interrupted() {
    let (_folder, path) = scratch();
    let state = open(&path);
    let panicked = {
        let run = state.begin_run("backup", None).unwrap();
        let id = run.id();
        assert!(
            std::thread::spawn(move || {
                let _run = run;
                panic!("on purpose")
            })
            .join()
            .is_err()
        );
        id
    };
    assert_eq!(state.sweep_interrupted().unwrap().iter().map(|r| r.id).collect::<Vec<_>>(), [panicked]);

    let run = state.begin_run("backup", None).unwrap();
    std::fs::remove_dir_all(path.with_file_name("state.sqlite.runs")).unwrap();
    assert!(state.sweep_interrupted().unwrap().is_empty(), "the process number says that it lives");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute("UPDATE runs SET process = json_set(process, '$.start_ticks', 1)", []).unwrap();
    database.execute("UPDATE runs SET lock = '../../etc/passwd' WHERE id = ?1", [run.id()]).unwrap();
    assert_eq!(state.sweep_interrupted().unwrap().len(), 1);
    run.finish(0, None).unwrap();
}

#[test]
fn journals_outlive_their_process() {
    let (_folder, path) = scratch();
    {
        let state = open(&path);
        state.journal_note("7k3q", "postgres", "renamed", &json!({"from": "shop", "to": "shop_old"})).unwrap();
        state.journal_note("7k3q", "postgres", "renamed", &json!({"from": "shop", "to": "shop_older"})).unwrap();
        state.journal_note("7k3q", "postgres", "created", &json!("shop_new")).unwrap();
        state.journal_note("7k3q", "files", "renamed", &json!(null)).unwrap();
        state.journal_note("9x9x", "", "restore", &json!([1, "ü", 1.5])).unwrap();
    }
    let state = open(&path);
    assert_eq!(state.journal_get("7k3q", "postgres", "renamed").unwrap(), Some(json!({"from": "shop", "to": "shop_older"})));
    assert_eq!(state.journal_get("7k3q", "files", "renamed").unwrap(), Some(json!(null)));
    assert_eq!(state.journal_get("9x9x", "", "restore").unwrap(), Some(json!([1, "ü", 1.5])));
    for (restore, source, key) in [("7k3q", "redis", "renamed"), ("7k3q", "postgres", "x"), ("none", "", "")] {
        assert_eq!(state.journal_get(restore, source, key).unwrap(), None);
    }
    let keys: Vec<String> = state.journal_all("7k3q", "postgres").unwrap().into_iter().map(|(k, _)| k).collect();
    assert_eq!(keys, ["created", "renamed"]);
    assert_eq!(state.journal_restores().unwrap(), ["7k3q", "9x9x"]);
}

#[test]
fn f72_a_high_water_mark_never_goes_back() {
    let (_folder, path) = scratch();
    let state = open(&path);
    let job = "shop".parse().unwrap();
    let [a, b] = [Sha256::of(b"a"), Sha256::of(b"b")];
    assert_eq!(state.mark("r1", &job).unwrap(), None);
    state.raise_mark("r1", &job, 7, &a).unwrap();
    state.raise_mark("r1", &job, 7, &a).unwrap();
    state.raise_mark("r1", &job, 5, &b).unwrap();
    assert_eq!(state.mark("r1", &job).unwrap(), Some((7, a)));
    let error = state.raise_mark("r1", &job, 7, &b).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(state.mark("r1", &job).unwrap(), Some((7, a)));
    state.raise_mark("r1", &job, 8, &b).unwrap();
    assert_eq!(open(&path).mark("r1", &job).unwrap(), Some((8, b)));
    assert_eq!(state.mark("r2", &job).unwrap(), None);
    assert_eq!(state.mark("r1", &"other".parse().unwrap()).unwrap(), None);
    assert!(state.raise_mark("r1", &job, u64::MAX, &b).is_err());
}

#[test]
fn settings_are_kept() {
    let (_folder, path) = scratch();
    let state = open(&path);
    assert_eq!(state.setting("key-confirmed").unwrap(), None);
    state.set_setting("key-confirmed", "2025-01-01").unwrap();
    state.set_setting("key-confirmed", "2025-01-02").unwrap();
    assert_eq!(open(&path).setting("key-confirmed").unwrap().as_deref(), Some("2025-01-02"));
}

#[test]
fn several_processes_write_at_once() {
    const EACH: u64 = 40;
    let job = "shop".parse().unwrap();
    let work = |path: &Path, who: u64| {
        let state = open(path);
        for i in 1..=EACH {
            state.journal_note("r", "s", &format!("{who}-{i}"), &json!(i)).unwrap();
            state.raise_mark("repository", &job, i, &Sha256::of(&i.to_le_bytes())).unwrap();
            state.begin_run("backup", None).unwrap().finish(0, None).unwrap();
            assert!(state.sweep_interrupted().unwrap().is_empty(), "none of the living is taken for dead");
        }
    };
    if let Some(path) = inside() {
        return work(&path, u64::from(std::process::id()));
    }
    let (_folder, path) = scratch();
    // All of them make the file and its tables at the same moment.
    let mut children: Vec<_> = (0..3).map(|_| another_process("several_processes_write_at_once", &path)).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| work(&path, 1));
        scope.spawn(|| work(&path, 2));
    });
    assert!(children.iter_mut().all(|c| c.wait().unwrap().success()));
    let state = open(&path);
    assert_eq!(state.journal_all("r", "s").unwrap().len() as u64, 5 * EACH);
    assert_eq!(state.mark("repository", &job).unwrap().unwrap().0, EACH);
    let runs = state.runs(None, None, 10_000).unwrap();
    assert!(runs.len() as u64 == 5 * EACH && runs.iter().all(|r| r.outcome == RunOutcome::Finished(0)));
}

/// Closing any descriptor of a file drops all locks its process has on it; the next process to close then takes itself for the last one and
/// removes the write-ahead log under the first.
#[test]
fn f116_a_second_opening_in_one_process_loses_nothing_of_the_first() {
    const TEST: &str = "f116_a_second_opening_in_one_process_loses_nothing_of_the_first";
    if let Some(path) = inside() {
        return open(&path).set_setting("of the child", "is kept").unwrap();
    }
    let (_folder, path) = scratch();
    let first = open(&path);
    first.set_setting("before", "is kept").unwrap();
    let second = open(&path);
    assert!(another_process(TEST, &path).wait().unwrap().success());
    first.set_setting("of the first", "is kept").unwrap();
    second.set_setting("of the second", "is kept").unwrap();
    assert!(another_process(TEST, &path).wait().unwrap().success());
    drop((first, second));
    for key in ["before", "of the child", "of the first", "of the second"] {
        assert_eq!(open(&path).setting(key).unwrap().as_deref(), Some("is kept"), "{key}");
    }
}

#[test]
fn files_that_sqlite_has_open_are_known() {
    let (_folder, path) = scratch();
    let state = open(&path);
    let files: Vec<_> =
        std::fs::read_dir(path.parent().unwrap()).unwrap().map(|f| f.unwrap().metadata().unwrap()).filter(|m| m.is_file()).collect();
    assert_eq!(files.len(), 3, "the file, its log and its shared memory");
    let open_here = || files.iter().filter(|m| drctl::state::is_open_here(m.dev(), m.ino())).count();
    let second = open(&path);
    assert_eq!(open_here(), 3);
    drop(state);
    assert_eq!(open_here(), 3, "the second still has them");
    drop(second);
    assert_eq!(open_here(), 0);
}

#[test]
fn the_file_is_private() {
    let (_folder, path) = scratch();
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    let state = open(&path);
    state.set_setting("a", "b").unwrap();
    let run = state.begin_run("backup", None).unwrap();
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    for beside in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        assert_eq!(mode(&beside.unwrap().path()) & 0o077, 0);
    }
    run.finish(0, None).unwrap();
    drop(state);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    open(&path);
    assert_eq!(mode(&path), 0o600, "rights of others are taken away");
}

#[test]
fn damage_is_an_error_that_tells_the_way_out() {
    let (_folder, path) = scratch();
    let state = open(&path);
    for i in 0..2000 {
        state.set_setting(&format!("key {i}"), &"x".repeat(100)).unwrap();
    }
    drop(state);
    let sound = std::fs::read(&path).unwrap();
    assert!(sound.len() > 100_000);

    let mut garbled = sound.clone();
    garbled[sound.len() / 2..sound.len() / 2 + 4096].fill(0xa5);
    for (name, bytes) in [
        ("text", b"this is not a database, but long enough to be looked at".repeat(100)),
        ("garbled", garbled),
        ("cut", sound[..40_960].to_vec()),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let (kind, text) = kind_of_open(&path);
        assert_eq!(kind, Kind::Corrupt, "{name}: {text}");
        assert!(text.contains("no backup set depends on it"), "{text}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}: nothing is changed");
    }

    let now = "2025-01-01T02:00:00Z".parse().unwrap();
    let aside = StateFile::move_aside(&path, now).unwrap();
    assert!(aside.to_string_lossy().ends_with("state.sqlite.broken-20250101T020000Z"));
    assert_eq!(std::fs::read(&aside).unwrap(), sound[..40_960]);
    assert_eq!(open(&path).setting("key 1").unwrap(), None);
    assert_eq!(StateFile::move_aside(&path, now).unwrap_err().kind(), Kind::Exists, "an earlier one is not overwritten");
}

#[test]
fn f59_what_was_handled_of_a_schedule_is_remembered() {
    let (_folder, path) = scratch();
    let mark = |what: &str, handled: &str| ScheduleMark {
        job: "shop".into(),
        group: "main".into(),
        what: what.into(),
        schedule: "0 2 * * * UTC".into(),
        handled: handled.parse().unwrap(),
    };
    let (old, new) = ("2025-01-01T02:00:00Z", "2025-01-02T02:00:00.5Z");
    let state = open(&path);
    state.replace_schedule_marks("r", &[mark("full", old), mark("verify", old)]).unwrap();
    state.keep_schedule_marks("other", &[mark("full", old)]).unwrap();
    state.keep_schedule_marks("r", &[mark("full", new)]).unwrap();
    state.keep_schedule_marks("r", &[]).unwrap();
    assert_eq!(open(&path).schedule_marks("r").unwrap(), [mark("full", new), mark("verify", old)]);
    state.replace_schedule_marks("r", &[mark("full", old)]).unwrap();
    assert_eq!(open(&path).schedule_marks("r").unwrap(), [mark("full", old)]);
    assert_eq!(open(&path).schedule_marks("other").unwrap(), [mark("full", old)]);
    rusqlite::Connection::open(&path).unwrap().execute("UPDATE schedule SET handled = 'soon'", []).unwrap();
    assert_eq!(open(&path).schedule_marks("r").unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_file_of_an_earlier_version_gets_what_it_lacks_and_keeps_what_it_has() {
    let (_folder, path) = scratch();
    open(&path).set_setting("a", "b").unwrap();
    // As the first version made it.
    const FIRST: [&str; 7] = ["migrations", "runs", "restores", "journal", "high_water", "settings", "sqlite_sequence"];
    let connection = rusqlite::Connection::open(&path).unwrap();
    let mut query = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let tables: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let later: Vec<String> = tables.into_iter().filter(|table| !FIRST.contains(&table.as_str())).collect();
    assert!(later.len() >= 3, "{later:?}");
    for table in &later {
        connection.execute_batch(&format!("DROP TABLE {table}")).unwrap();
    }
    connection.execute_batch("DELETE FROM migrations WHERE version > 1; PRAGMA user_version = 1").unwrap();
    drop(query);
    drop(connection);
    let state = open(&path);
    assert_eq!((state.schedule_marks("r").unwrap(), state.setting("a").unwrap().as_deref()), (vec![], Some("b")));
    let steps: i64 = rusqlite::Connection::open(&path).unwrap().query_row("SELECT count(*) FROM migrations", [], |r| r.get(0)).unwrap();
    assert!(steps > 1);
}

#[test]
fn another_programs_file_and_a_newer_version_are_refused() {
    let (_folder, path) = scratch();
    open(&path);
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(kind_of_open(&path).0, Kind::Unsupported);

    let other = path.with_file_name("other.sqlite");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE bookmarks (a)").unwrap();
    let (kind, text) = kind_of_open(&other);
    assert_eq!(kind, Kind::Corrupt);
    assert!(text.contains("another program"), "{text}");
    let tables: i64 =
        rusqlite::Connection::open(&other).unwrap().query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn unusable_places_are_typed_errors() {
    let folder = tempfile::tempdir().unwrap();
    assert!(StateFile::open(folder.path(), Arc::new(SystemClock)).is_err(), "a folder");
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert!(StateFile::open(&folder.path().join("file/state.sqlite"), Arc::new(SystemClock)).is_err(), "below a file");
    // Being root, only a filesystem that cannot be written refuses.
    let (kind, text) = kind_of_open(Path::new("/proc/drctl-state.sqlite"));
    assert!(matches!(kind, Kind::Denied | Kind::NotFound), "{text}");
}

#[test]
fn an_interrupted_making_is_finished_by_the_next_open() {
    let (_folder, path) = scratch();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, b"").unwrap();
    open(&path).set_setting("a", "b").unwrap();
    assert_eq!(open(&path).setting("a").unwrap().as_deref(), Some("b"));
}
