//! Restores that must not begin, or that fail before the switch: what is said, the exit code, and that nothing live changed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cli::Ran;
use drctl::model::SystemClock;
use drctl::ops::restore::journal::{Phase, RestoreNote};
use drctl::state::StateFile;
use rustix::process::{Pid, Signal, kill_process};
use shop::Shop;
use support::{PASSWORD, Server};

/// The stored object of the shop's database.
fn dump_of(shop: &Shop, set: &str) -> std::path::PathBuf {
    let folder = shop.home.set_folder(set);
    let name = format!("postgres.{}.dump.zst.age", shop.database);
    assert!(folder.join(&name).exists(), "{:?}", std::fs::read_dir(&folder).unwrap().collect::<Vec<_>>());
    folder.join(name)
}

/// In place everything is checked before the first byte goes to the database (FAULTS 81): what is found then leaves the live data alone.
#[test]
fn f81_f84_a_load_in_place_whose_check_fails_has_changed_nothing() {
    let shop = Shop::new();
    let set = shop.backup();
    shop.damage();
    let lost = shop.picture();
    let path = dump_of(&shop, &set);
    let good = std::fs::read(&path).unwrap();
    let args = ["restore", &set, "--source", "postgres", "--in-place", "--no-safety-set", "--yes"];
    let oid = || shop.server.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = '{}'", shop.database));
    let before = oid();
    // At its front, in its last bytes, and cut.
    for (what, at) in [("front", 300), ("end", good.len() - 20), ("cut", 0)] {
        let mut bad = good.clone();
        match at {
            0 => bad.truncate(good.len() / 2),
            at => bad[at] ^= 1,
        }
        std::fs::write(&path, bad).unwrap();
        let ran = shop.run(&args);
        assert_eq!(ran.code, 4, "{what}: {}", ran.all());
        assert!(ran.err.contains(path.file_name().unwrap().to_str().unwrap()), "{what}: {}", ran.err);
        assert!(ran.err.contains("nothing was changed") && ran.err.contains("hint: "), "{what}: {}", ran.err);
        assert!(!ran.err.contains("overwritten in part"), "{what}: {}", ran.err);
        assert_eq!((shop.picture(), oid(), shop.databases().len()), (lost.clone(), before.clone(), 1), "{what}");
        let status = shop.home.ok(&["status"]);
        assert!(!status.out.contains("drctl restore --"), "{what}: nothing is left to mend: {}", status.out);
        assert_eq!(shop.run(&["restore", "--undo"]).code, 6, "{what}");
    }
    // Beside, in one pass: not switched, and nothing is left beside it.
    let ran = shop.run(&["restore", &set, "--source", "postgres", "--yes"]);
    assert_eq!(ran.code, 5, "{}", ran.all());
    assert_eq!((shop.picture(), oid(), shop.databases().len()), (lost, before, 1), "{}", ran.all());
    std::fs::write(&path, good).unwrap();
    shop.home.ok(&args);
    assert!(shop.orders().starts_with("1000 "));
    assert!(!shop.home.ok(&["status"]).out.contains("drctl restore --"));
}

/// The newest set lost an object: it is named, and an older set is restored only when a person says so.
#[test]
fn f74_a_set_that_lost_an_object_is_named_and_an_older_one_is_taken_only_if_told() {
    let shop = Shop::new();
    let older = shop.backup();
    shop.sql("DELETE FROM orders WHERE id > 900");
    let newest = shop.backup();
    shop.damage();
    let lost = shop.picture();
    let path = dump_of(&shop, &newest);
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = std::fs::read(&path).unwrap();
    for (what, damage) in [("missing", None), ("short", Some(&whole[..whole.len() - 1]))] {
        match damage {
            None => std::fs::remove_file(&path).unwrap(),
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
        }
        let ran = shop.run(&["restore", "--date", "latest", "--yes"]);
        assert_eq!(ran.code, 5, "{what}: {}", ran.all());
        assert!(ran.err.contains(&name) && ran.err.contains("hint: "), "{what}: {}", ran.err);
        assert_eq!((shop.picture(), shop.databases().len(), shop.beside().len()), (lost.clone(), 1, 0), "{what}: {}", ran.all());
    }
    let verified = shop.run(&["verify", &newest]);
    assert_eq!(verified.code, 5, "{}", verified.all());
    assert!(verified.out.contains(&name), "{}", verified.out);
    // Now the log knows it, and still nobody is given another day's data without having asked for it.
    let status = shop.home.ok(&["status"]);
    assert!(status.out.contains(&format!("newest good set  {older}")) && status.out.contains(&newest), "{}", status.out);
    let asked = shop.run(&["restore", "--date", "latest", "--yes"]);
    assert_eq!(asked.code, 5, "{}", asked.all());
    assert!(asked.err.contains(&format!("{newest} failed its last verification")) && asked.err.contains("drctl list"), "{}", asked.err);
    assert_eq!(shop.picture(), lost);
    shop.home.ok(&["restore", &older, "--yes"]);
    assert!(shop.orders().starts_with("1000 "));
    shop.home.ok(&["verify", &older]);
}

/// A target that holds something: the plan names it, its server and what it holds; without a yes nothing happens; with one it is kept aside whole.
#[test]
fn f83_a_target_that_holds_something_is_named_and_kept() {
    let shop = Shop::new();
    let set = shop.backup();
    let taken = format!("{}_taken", shop.database);
    shop.server.sql("postgres", &format!("CREATE DATABASE {taken}"));
    shop.server.sql(&taken, "CREATE TABLE precious AS SELECT 42 AS i");
    let url = format!("postgres://postgres@127.0.0.1:{}/{taken}", shop.server.port);
    let args = ["restore", &set, "--source", "postgres", "--target", &url];
    let ran = shop.run(&args);
    assert_eq!(ran.code, 4, "{}", ran.all());
    for word in [&format!("database {taken}: "), &format!("127.0.0.1:{}", shop.server.port), "live, kept as ", "nothing was changed"] {
        assert!(ran.err.contains(word), "{word}: {}", ran.err);
    }
    assert_eq!(shop.server.sql(&taken, "SELECT i FROM precious"), "42");
    shop.home.ok(&[&args[..], &["--yes"]].concat());
    assert_eq!(shop.server.sql(&taken, "SELECT count(*) FROM orders"), "1000");
    shop.home.ok(&["restore", "--undo"]);
    assert_eq!(shop.server.sql(&taken, "SELECT i FROM precious"), "42");
    shop.home.ok(&["restore", "--finish", "--yes"]);
    // A folder that holds something is not touched at all.
    shop.home.write("elsewhere/mine", "mine");
    let ran = shop.run(&["restore", &set, "--source", "uploads", "--target", "elsewhere", "--yes"]);
    assert_eq!(ran.code, 4, "{}", ran.all());
    assert!(ran.err.contains("elsewhere") && ran.err.contains("hint: "), "{}", ran.err);
    assert_eq!(shop.home.files("elsewhere"), ["mine"]);
    shop.server.sql("postgres", &format!("DROP DATABASE {taken} WITH (FORCE)"));
}

/// A table whose rows take for ever to load into a database that is not live yet.
const ENDLESS: &str = "CREATE FUNCTION endless(i int) RETURNS bool LANGUAGE plpgsql AS
      $$ BEGIN IF current_database() ~ '_drctl_' THEN PERFORM pg_sleep(3600); END IF; RETURN true; END $$;
    CREATE TABLE endless (i int CHECK (endless(i))); INSERT INTO endless VALUES (1)";

/// Starts a restore and waits until it is in the midst of loading on `server`: it, its id, and the database it loads.
fn in_mid_load(server: &Server, command: &mut Command) -> (Child, String, String) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    loop {
        let loading = "SELECT datname FROM pg_stat_activity WHERE datname ~ '_drctl_' AND wait_event = 'PgSleep' LIMIT 1";
        let database = server.sql("postgres", loading);
        if let Some((_, id)) = database.rsplit_once("_drctl_") {
            return (child, id.to_owned(), database.clone());
        }
        assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(120), "it never came to its load");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A restore that was killed while it loaded: its id, and the database it left.
fn killed_in_mid_load(shop: &Shop, server: &Server, args: &[&str]) -> (String, String) {
    let (mut child, id, database) = in_mid_load(server, &mut shop.home.command(args));
    child.kill().unwrap();
    child.wait().unwrap();
    (id, database)
}

/// Ends what a killed restore left at work in a database.
fn empty(server: &Server, database: &str) {
    let begun = Instant::now();
    while server.sql("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'")) != "0" {
        server.sql("postgres", &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"));
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}

/// The note of a restore, changed as if it had come another way.
fn renoted(shop: &Shop, id: &str, change: impl Fn(&mut RestoreNote)) {
    let state = StateFile::open(&shop.home.state().join("state.sqlite"), Arc::new(SystemClock)).unwrap();
    let mut note = RestoreNote::all(&state).unwrap().into_iter().find(|note| note.restore == id).unwrap();
    change(&mut note);
    note.save(&state).unwrap();
}

fn has(server: &Server, database: &str) -> bool {
    server.sql("postgres", &format!("SELECT count(*) FROM pg_database WHERE datname = '{database}'")) == "1"
}

#[test]
fn f99_a_leftover_that_cannot_be_dropped_and_a_source_that_is_gone_keep_no_other_restore() {
    let shop = Shop::on(Arc::new(Server::start_with("max_prepared_transactions=5")));
    shop.sql(ENDLESS);
    let set = shop.backup();
    let (id, left) = killed_in_mid_load(&shop, &shop.server, &["restore", &set, "--source", "postgres", "--yes"]);
    shop.server.sql(&left, "BEGIN; CREATE TABLE held (); PREPARE TRANSACTION 'held'");
    let forget = format!("drctl restore --forget {id}");
    let other = ["restore", &set, "--source", "uploads", "--yes"];
    // What holds it is named, with every way on; the restore takes place.
    std::fs::remove_dir_all(shop.home.path("uploads")).unwrap();
    let ran = shop.home.ok(&other);
    assert!(ran.err.contains(&format!("restore {id} of {set}")) && ran.err.contains("stays noted"), "{}", ran.err);
    assert!(ran.err.contains("prepared transactions hold it") && ran.err.contains("ROLLBACK PREPARED"), "{}", ran.err);
    assert!(ran.err.contains(&forget) && ran.err.contains(&format!("drctl restore --undo {id}")), "{}", ran.err);
    assert_eq!(shop.file("uploads/a.txt"), "alpha");
    let status = shop.home.ok(&["status"]).out;
    assert!(status.contains(&forget), "{status}");
    let undone = shop.run(&["restore", "--undo", &id]);
    assert!(undone.code != 0 && undone.err.contains("prepared transactions hold it") && undone.err.contains(&forget), "{}", undone.all());
    shop.server.sql(&left, "ROLLBACK PREPARED 'held'");
    // Renamed in the configuration: nothing says where it went, and that is said.
    shop.set_jobs(&shop.jobs().replace("postgres: { host", "postgres: { name: shopdb, host"));
    let ran = shop.home.ok(&other);
    assert!(ran.err.contains("has no source 'postgres'") && ran.err.contains(&forget), "{}", ran.err);
    assert!(has(&shop.server, &left));
    // A restore to the very server cleans up there, under whatever name.
    shop.sql("DROP TABLE endless");
    let renamed = shop.backup();
    let ran = shop.home.ok(&["restore", &renamed, "--source", "shopdb", "--yes"]);
    assert!(!ran.err.contains("stays noted"), "{}", ran.err);
    assert!(!has(&shop.server, &left));
    assert!(!shop.home.ok(&["status"]).out.contains(&id));
}

#[test]
fn f99_a_server_that_is_another_by_now_proves_a_note_dead_and_one_that_is_gone_can_be_given_up() {
    let shop = Shop::on(Arc::new(Server::start()));
    shop.sql(ENDLESS);
    let set = shop.backup();
    shop.sql("DROP TABLE endless");
    let quick = shop.backup();
    // A scratch server with a password in its URL, which is never noted.
    let scratch = Server::start();
    let url = format!("postgres://postgres:{}@127.0.0.1:{}", percent(PASSWORD), scratch.port);
    let to_scratch = |set: &str| {
        vec!["restore".to_owned(), set.to_owned(), "--source".into(), "postgres".into(), "--target".into(), url.clone(), "--yes".into()]
    };
    let run = |args: Vec<String>| shop.home.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let args = to_scratch(&set);
    let (id, left) = killed_in_mid_load(&shop, &scratch, &args.iter().map(String::as_str).collect::<Vec<_>>());
    let ran = shop.home.ok(&["restore", &quick, "--source", "uploads", "--yes"]);
    assert!(ran.err.contains("PGPASSWORD") && ran.err.contains(&format!("drctl restore --forget {id}")), "{}", ran.err);
    assert!(!ran.err.contains(PASSWORD), "{}", ran.err);
    // A restore to the same place knows the password: it cleans up there.
    assert!(has(&scratch, &left));
    run(to_scratch(&quick));
    assert!(!has(&scratch, &left));
    assert!(!shop.home.ok(&["status"]).out.contains(&id));
    scratch.sql("postgres", &format!("DROP DATABASE {}", shop.database));
    // The scratch server goes, with what was being loaded there.
    let (id, _) = killed_in_mid_load(&shop, &scratch, &args.iter().map(String::as_str).collect::<Vec<_>>());
    drop(scratch);
    let ran = shop.home.ok(&["restore", &quick, "--source", "uploads", "--yes"]);
    assert!(ran.err.contains("stays noted") && ran.err.contains(&format!("drctl restore --forget {id}")), "{}", ran.err);
    // Given up: shown first, asked for, and told no more.
    let asked = shop.run(&["restore", "--forget", &id]);
    assert_eq!(asked.code, 4, "{}", asked.all());
    assert!(
        asked.err.contains(&format!("FORGET restore {id}")) && asked.err.contains(&format!("database {}_drctl_{id} at ", shop.database)),
        "{}",
        asked.err
    );
    assert!(asked.err.contains(&format!("drctl restore --forget {id} --yes")), "{}", asked.err);
    assert!(shop.home.ok(&["restore", "--forget", &id, "--dry-run"]).out.contains("Nothing is touched"));
    shop.home.ok(&["restore", "--forget", &id, "--yes"]);
    assert!(!shop.home.ok(&["status"]).out.contains(&id));
    let again = shop.run(&["restore", "--forget", &id, "--yes"]);
    assert!(again.code == 4 && again.err.contains("it is given up"), "{}", again.all());
    // The server of the configuration is built anew under the same address.
    let (id, left) = killed_in_mid_load(&shop, &shop.server, &["restore", &set, "--source", "postgres", "--yes"]);
    let anew = Server::start();
    shop.set_jobs(&shop.jobs().replace(&format!("port: {}", shop.server.port), &format!("port: {}", anew.port)));
    let undone = shop.run(&["restore", "--undo", &id]);
    assert!(undone.code != 0 && undone.err.contains("the restore went to server ") && undone.err.contains("--forget"), "{}", undone.all());
    let ran = shop.home.ok(&["restore", &quick, "--source", "postgres", "--yes"]);
    assert!(ran.err.contains("the restore went to server ") && ran.err.contains("is gone with that server"), "{}", ran.err);
    assert!(!shop.home.ok(&["status"]).out.contains(&id));
    assert!(has(&shop.server, &left), "the other server is not touched");
}

#[test]
fn f99_a_switch_that_broke_off_keeps_only_its_own_sources() {
    let shop = Shop::new();
    let set = shop.backup();
    let first = shop.home.json(&["restore", &set, "--source", "postgres", "--yes"])["result"]["restore"].as_str().unwrap().to_owned();
    renoted(&shop, &first, |note| note.phase = Phase::Switching);
    // It is told by the plan already, and by every verb that could go on.
    for args in [&["restore", &set, "--dry-run"][..], &["restore", &set, "--yes"], &["restore", &set, "--source", "postgres", "--yes"]] {
        let ran = shop.run(args);
        assert_eq!(ran.code, 4, "{args:?}: {}", ran.all());
        for way in [format!("drctl restore --undo {first}"), format!("drctl restore --forget {first}")] {
            assert!(ran.all().contains(&way), "{args:?}: {}", ran.all());
        }
    }
    let ran = shop.home.ok(&["restore", &set, "--source", "uploads", "--yes"]);
    assert!(ran.err.contains(&format!("restore {first} of {set} was interrupted in its switch and is not touched")), "{}", ran.err);
    shop.home.ok(&["restore", "--undo", &first]);
    shop.home.ok(&["restore", &set, "--source", "postgres", "--yes"]);
}

#[test]
fn f99_undo_and_finish_do_what_they_can_and_tell_the_rest() {
    let shop = Shop::new();
    let set = shop.backup();
    shop.damage();
    let restore = || shop.home.json(&["restore", &set, "--yes"])["result"]["restore"].as_str().unwrap().to_owned();
    let (away, back) = (shop.jobs().replace("postgres: { host", "postgres: { name: other, host"), shop.jobs());
    for (verb, kept) in [("--undo", "drctl-old-"), ("--finish", "drctl-old-")] {
        let id = restore();
        assert!(shop.beside().iter().any(|name| name.contains(&format!("{kept}{id}"))), "{:?}", shop.beside());
        shop.set_jobs(&away);
        let ran = shop.run(&["restore", verb, &id, "--yes"]);
        assert_eq!(ran.code, 3, "{verb}: {}", ran.all());
        assert!(ran.out.contains("NOT DONE  postgres: ") && ran.out.contains(&format!("drctl restore --forget {id}")), "{}", ran.out);
        assert!(!shop.beside().iter().any(|name| name.contains(&format!("{kept}{id}"))), "{verb}: {:?}", shop.beside());
        assert!(shop.home.ok(&["status"]).out.contains(&format!("restore {id} of")));
        shop.set_jobs(&back);
        shop.home.ok(&["restore", verb, &id, "--yes"]);
        if verb == "--undo" {
            assert_eq!(shop.file("uploads/a.txt"), "overwritten");
            shop.home.ok(&["restore", "--finish", &id, "--yes"]);
        }
        assert!(!shop.home.ok(&["status"]).out.contains(&id));
    }
    assert_eq!((shop.databases().len(), shop.beside()), (1, Vec::<String>::new()));
}

/// Two containers on one state volume: neither sees the other's processes.
#[test]
fn f100_a_restore_in_another_container_is_seen_and_left_alone() {
    let shop = Shop::on(Arc::new(Server::start()));
    shop.sql(ENDLESS);
    let set = shop.backup();
    let root: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["-r"] };
    let apart = |args: &[&str]| {
        let inner = shop.home.command(args);
        let mut outer = Command::new("unshare");
        outer.args(root).args(["--pid", "--fork", "--mount-proc"]).arg(inner.get_program()).args(args);
        outer.current_dir(shop.home.path("")).env_clear().stdin(Stdio::null());
        outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        outer
    };
    let can = Command::new("unshare").args(root).args(["--pid", "--fork", "--mount-proc", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        // Not eprintln: the harness would swallow it.
        let _ = writeln!(std::io::stderr(), "SKIPPED f100: no process namespace can be made here");
        return;
    }
    let (mut first, id, loading) = in_mid_load(&shop.server, &mut shop.home.command(&["restore", &set, "--source", "postgres", "--yes"]));
    let second = |args: &[&str]| Ran::of(apart(args).output().unwrap());
    let ran = second(&["restore", &set, "--source", "uploads", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(has(&shop.server, &loading) && !ran.err.contains(&id), "{}", ran.err);
    let status = second(&["status"]);
    assert!(status.out.contains(&format!("restore {id} of {set}: under way")), "{}", status.all());
    for verb in ["--undo", "--forget"] {
        let ran = second(&["restore", verb, &id, "--yes"]);
        assert_eq!(ran.code, 7, "{verb}: {}", ran.all());
    }
    assert!(has(&shop.server, &loading) && first.try_wait().unwrap().is_none());
    // The other way round: what died in another container is known to be dead.
    first.kill().unwrap();
    first.wait().unwrap();
    let ran = second(&["restore", &set, "--source", "uploads", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(!has(&shop.server, &loading), "{}", ran.err);
}

#[test]
fn f101_the_last_copy_is_not_dropped() {
    let shop = Shop::new();
    let set = shop.backup();
    let id = shop.home.json(&["restore", &set, "--source", "postgres", "--yes"])["result"]["restore"].as_str().unwrap().to_owned();
    shop.server.sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", shop.database));
    let ran = shop.run(&["restore", "--finish", &id, "--yes"]);
    assert_eq!(ran.code, 4, "{}", ran.all());
    assert!(ran.err.contains("it may be the last copy") && ran.err.contains(&format!("drctl restore --undo {id}")), "{}", ran.err);
    assert!(ran.err.contains("NOTHING is called"), "the plan says it too: {}", ran.err);
    shop.home.ok(&["restore", "--undo", &id]);
    assert_eq!(shop.sql("SELECT count(*) FROM orders"), "1000");
}

/// In place the live database is gone while the new one loads: what was loaded until a crash is all there is.
#[test]
fn f101_what_a_killed_load_in_place_came_to_is_not_dropped_and_stays_noted() {
    let shop = Shop::on(Arc::new(Server::start()));
    shop.sql(ENDLESS);
    let set = shop.backup();
    let args = ["restore", &set, "--source", "postgres", "--in-place", "--no-safety-set", "--yes"];
    let (id, left) = killed_in_mid_load(&shop, &shop.server, &args);
    assert!(!has(&shop.server, &shop.database), "it was killed too early to tell anything");
    for _ in 0..2 {
        let ran = shop.run(&["restore", "--finish", &id, "--yes"]);
        assert_eq!(ran.code, 4, "{}", ran.all());
        assert!(ran.err.contains("nothing else is left") && ran.err.contains("--in-place --no-safety-set"), "{}", ran.err);
        assert!(has(&shop.server, &left) && shop.home.ok(&["status"]).out.contains(&id));
    }
    // A person took it by hand.
    let rename = format!("ALTER DATABASE {left} RENAME TO {}", shop.database);
    empty(&shop.server, &left);
    shop.server.sql("postgres", &rename);
    shop.home.ok(&["restore", "--finish", &id, "--yes"]);
    assert!(has(&shop.server, &shop.database) && !shop.home.ok(&["status"]).out.contains(&id));
}

/// Runs something that must end by itself.
fn within(command: &mut Command, limit: Duration) -> Ran {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > limit {
            child.kill().unwrap();
            panic!("it did not end within {limit:?}: {}", Ran::of(child.wait_with_output().unwrap()).all());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ran::of(child.wait_with_output().unwrap())
}

/// Two restores of the same to the same place would each take the other's work for what was live.
#[test]
fn f114_a_second_restore_of_the_same_gives_way() {
    let shop = Shop::on(Arc::new(Server::start()));
    shop.sql(ENDLESS);
    let set = shop.backup();
    let args = ["restore", &set, "--source", "postgres", "--yes"];
    let (mut first, id, loading) = in_mid_load(&shop.server, &mut shop.home.command(&args));
    for second in
        [&args[..], &["restore", &set, "--yes"], &["restore", &set, "--source", "postgres", "--in-place", "--no-safety-set", "--yes"]]
    {
        let ran = within(&mut shop.home.command(second), Duration::from_secs(120));
        assert_eq!(ran.code, 7, "{second:?}: {}", ran.all());
        assert!(ran.err.contains(&format!("restore {id} of {set} is under way, to the same place")), "{second:?}: {}", ran.err);
        assert!(ran.err.contains("hint: wait for its end (drctl status)"), "{second:?}: {}", ran.err);
        let there = shop.databases();
        assert_eq!(there, [shop.database.clone(), loading.clone()], "{second:?}: {}", ran.all());
    }
    // Another source, or another place, is none of its business.
    shop.home.ok(&["restore", &set, "--source", "uploads", "--yes"]);
    assert!(first.try_wait().unwrap().is_none(), "the first one is still at work");
    first.kill().unwrap();
    first.wait().unwrap();
    // What is dead keeps nobody away: the next one gets as far as its own load.
    empty(&shop.server, &loading);
    let (next, _) = killed_in_mid_load(&shop, &shop.server, &args);
    assert_ne!(next, id);
    assert!(!has(&shop.server, &loading));
}

/// Like [`ENDLESS`], in a database that has its live name for as long as it is loaded.
const ENDLESS_LENT: &str = "CREATE FUNCTION endless(i int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
      IF (SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()) ~ '^drctl: being loaded' THEN
        PERFORM pg_sleep(3600);
      END IF; RETURN true; END $$;
    CREATE TABLE endless (i int CHECK (endless(i))); INSERT INTO endless VALUES (1)";

/// What is live is put aside for the load: whoever stops that gets it back, and gets into it.
#[test]
fn f114_a_load_under_the_live_name_that_is_told_to_stop_gives_the_name_back() {
    let shop = Shop::on(Arc::new(Server::start()));
    shop.sql(ENDLESS_LENT);
    let set = shop.backup();
    shop.damage();
    let lost = shop.picture();
    let oid = || shop.server.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = '{}'", shop.database));
    let before = oid();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut command = shop.home.command(&["restore", &set, "--source", "postgres", "--exchange-first", "--yes"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        let loading = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event = 'PgSleep'", shop.database);
        while shop.server.sql("postgres", &loading) != "1" {
            assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(120), "it never came to its load");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_ne!(oid(), before, "another one has the name meanwhile");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, code, "{}", ran.all());
        assert_eq!((oid(), shop.databases()), (before.clone(), vec![shop.database.clone()]), "{}", ran.all());
        // It is open, and what it was.
        assert_eq!(shop.picture(), lost, "{}", ran.all());
        let open = format!("SELECT datallowconn || ' ' || datconnlimit FROM pg_database WHERE datname = '{}'", shop.database);
        assert_eq!(shop.server.sql("postgres", &open), "true -1");
        assert!(!shop.home.ok(&["status"]).out.contains("restore --"), "nothing is left to undo");
    }
}

/// `template0` is what databases are made from, and what is in `template1` every new database begins with.
#[test]
fn f114_no_restore_goes_into_the_templates_of_the_server() {
    let shop = Shop::new();
    let set = shop.backup();
    for (name, why) in [("template0", "is never restored: name another database"), ("template1", "name another database than template1")] {
        let url = format!("postgres://postgres@127.0.0.1:{}/{name}", shop.server.port);
        let oid = || shop.server.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = '{name}'"));
        let before = oid();
        for more in ["--dry-run", "--yes"] {
            let ran = shop.run(&["restore", &set, "--source", "postgres", "--target", &url, more]);
            assert_eq!(ran.code, 4, "{name} {more}: {}", ran.all());
            assert!(ran.all().contains(why), "{name} {more}: {}", ran.all());
        }
        assert_eq!(oid(), before);
    }
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// Whatever of a set cannot be used must not keep anyone from the rest: every refusal names the artifact, and the option that goes past it.
#[test]
fn f108_the_rest_of_a_set_comes_back_without_what_cannot_be_used() {
    // Of its own: restores of other tests beside this one would make the role again that is dropped here.
    let shop = Shop::on(Arc::new(Server::start()));
    let owner = format!("owner_of_{}", shop.database);
    shop.server.sql("postgres", &format!("CREATE ROLE {owner}"));
    shop.sql(&format!("ALTER TABLE customers OWNER TO {owner}"));
    let set = shop.backup();
    let good = shop.picture();
    shop.damage();
    let (lost, database) = (shop.picture(), format!("postgres.{}", shop.database));
    let path = dump_of(&shop, &set);
    let mut bad = std::fs::read(&path).unwrap();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&path, bad).unwrap();
    let past = format!("--without {database}");
    // While it is loaded, once the log knows it, and in place.
    for (what, more) in [("load", &[][..]), ("log", &[]), ("in place", &["--in-place", "--no-safety-set"])] {
        if what == "log" {
            assert_eq!(shop.run(&["verify", &set]).code, 5);
        }
        let ran = shop.run(&[&["restore", &set, "--yes"], more].concat());
        assert_ne!(ran.code, 0, "{what}: {}", ran.all());
        assert!(ran.err.contains(&past), "{what}: {}", ran.err);
        assert_eq!((shop.picture(), shop.databases().len()), (lost.clone(), 1), "{what}");
    }
    // By its true name, and by that of its file.
    let file = path.file_name().unwrap().to_str().unwrap();
    for name in [database.as_str(), file] {
        let ran = shop.home.ok(&["restore", &set, "--without", name, "--yes"]);
        assert!(ran.err.contains("Left out: environment (to get it: --source environment)"), "{}", ran.err);
        assert!(ran.err.contains(&format!("{database} (--without)")), "{}", ran.err);
        assert_eq!((shop.file("uploads/a.txt"), shop.databases().len()), ("alpha".to_owned(), 1));
        shop.home.ok(&["restore", "--undo"]);
        shop.home.ok(&["restore", "--finish", "--yes"]);
        assert_eq!(shop.picture(), lost);
    }
    // A word that names nothing is refused with the list; so is leaving out everything.
    let ran = shop.run(&["restore", &set, "--without", "postgres.shopp", "--yes"]);
    assert_eq!(ran.code, 6, "{}", ran.all());
    for name in ["postgres.globals", &database, "uploads.tree"] {
        assert!(ran.err.contains(name), "{name}: {}", ran.err);
    }
    let ran = shop.run(&["restore", &set, "--source", "uploads", "--without", "uploads.tree", "--yes"]);
    assert_eq!(ran.code, 2, "{}", ran.all());
    // Without the globals too every owner must be there, and the line for scripts says again what was left out.
    let set = {
        shop.server.sql(&shop.database, "DROP TABLE customers");
        std::fs::write(
            &path,
            std::fs::read(&path).unwrap().iter().enumerate().map(|(i, b)| if i == middle { b ^ 1 } else { *b }).collect::<Vec<u8>>(),
        )
        .unwrap();
        shop.home.ok(&["verify", &set]);
        set
    };
    let ran = shop.run(&["restore", &set, "--without", "postgres.globals"]);
    assert!(ran.code == 4 && ran.err.contains(&format!("hint: drctl restore {set} --without postgres.globals --yes")), "{}", ran.all());
    shop.server.sql("postgres", &format!("DROP ROLE {owner}"));
    let ran = shop.run(&["restore", &set, "--without", "postgres.globals", "--yes"]);
    assert!(ran.code == 4 && ran.err.contains(&format!("roles {owner} are missing")), "{}", ran.all());
    shop.home.ok(&["restore", &set, "--yes"]);
    assert_eq!(shop.picture(), good);
    shop.home.ok(&["restore", "--finish", "--yes"]);
}
