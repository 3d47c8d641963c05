//! What a restore drops, exchanges, leaves alone and asks before it does so.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cli::Ran;
use shop::{Shop, day_of};
use support::Server;

fn jobs(shop: &Shop, databases: &str) -> String {
    let postgres = shop.postgres("").replace(&format!("[{}]", shop.database), databases);
    format!("jobs:\n  - job: shop\n    timezone: UTC\n    sources:\n      - {postgres}\n")
}

/// Runs drctl at a terminal, `script` is one, and types an answer.
fn at_a_terminal(shop: &Shop, args: &[&str], answer: &str) -> Ran {
    let drctl = shop.home.command(args);
    let line = format!("{} {}", drctl.get_program().display(), args.join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(shop.home.path("")).env_clear();
    for (name, value) in drctl.get_envs() {
        script.env(name, value.unwrap());
    }
    let mut asked = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    asked.stdin.as_mut().unwrap().write_all(format!("{answer}\n").as_bytes()).unwrap();
    Ran::of(asked.wait_with_output().unwrap())
}

#[test]
fn f84_in_place_drops_nothing_that_the_safety_set_does_not_hold() {
    let shop = Shop::on(Arc::new(Server::start()));
    shop.server.sql("postgres", "CREATE DATABASE other");
    shop.server.sql("other", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    shop.set_jobs(&jobs(&shop, &format!("[{}, other]", shop.database)));
    let set = shop.backup();
    // What the job holds is fewer by now; what the set would drop is not.
    shop.set_jobs(&jobs(&shop, &format!("[{}]", shop.database)));
    shop.server.sql("other", "INSERT INTO t VALUES (2)");
    let lost = shop.server.sql("other", "SELECT sum(i) FROM t");
    let refused = shop.run(&["restore", &set, "--in-place", "--yes"]);
    assert_eq!(refused.code, 4, "{}", refused.all());
    for word in ["nothing was dropped", "the safety set does not hold postgres: other", "hint: ", "--no-safety-set"] {
        assert!(refused.err.contains(word), "{word}: {}", refused.err);
    }
    assert_eq!(shop.server.sql("other", "SELECT sum(i) FROM t"), lost);
    assert!(shop.orders().starts_with("1000 "));

    shop.set_jobs(&jobs(&shop, &format!("[{}, other]", shop.database)));
    shop.home.ok(&["restore", &set, "--in-place", "--yes"]);
    assert_eq!(shop.server.sql("other", "SELECT sum(i) FROM t"), "1");
    let safety = shop.home.newest();
    shop.home.ok(&["restore", &safety, "--in-place", "--no-safety-set", "--yes"]);
    assert_eq!(shop.server.sql("other", "SELECT sum(i) FROM t"), lost);
}

#[test]
fn f117_a_safety_set_is_never_what_a_date_means() {
    let shop = Shop::new();
    // Nothing but the database, so that a restore of all data saves all of the job.
    shop.set_jobs(&jobs(&shop, &format!("[{}]", shop.database)));
    let whole = shop.orders();
    let set = shop.backup();
    // Most of what the sets before held is gone: that is why it is restored, and no reason to refuse the safety set.
    shop.damage();
    shop.home.ok(&["restore", &set, "--in-place", "--yes"]);
    let safety = shop.home.newest();
    assert!(safety != set && shop.orders() == whole, "{safety}");
    let list = shop.home.ok(&["list"]).out;
    let line = |id: &str| list.lines().find(|line| line.contains(id)).unwrap().to_owned();
    assert!(line(&safety).contains("complete, safety set") && !line(&set).contains("safety"), "{list}");
    let show = shop.home.ok(&["show", &safety]).out;
    assert!(show.contains("(full, complete, safety set)"), "{show}");

    // The same line again means the same set again; by its id the safety set is had, and named as what it is.
    for wanted in [&["latest"][..], &[&day_of(&set)], &["latest", "--source", "postgres"], &["1 second ago"]] {
        let plan = shop.home.ok(&[&["restore", "--dry-run", "--in-place"], wanted].concat()).out;
        assert!(plan.contains(&format!("RESTORE {set}")) && !plan.contains(&safety), "{wanted:?}: {plan}");
    }
    let plan = shop.home.ok(&["restore", &safety, "--in-place", "--dry-run"]).out;
    assert!(plan.contains(&format!("RESTORE {safety}  (complete, safety set, ")), "{plan}");
    assert!(shop.home.ok(&["show", "latest"]).out.starts_with(&set));

    // No age counts from it, and it is no set that is not good.
    let status = shop.home.ok(&["status"]).out;
    assert!(status.contains(&set) && !status.contains(&safety), "{status}");
    // Nor is what comes next compared with it.
    let next = shop.backup();
    assert!(shop.home.ok(&["list"]).out.lines().any(|line| line.contains(&next) && line.contains("complete ")), "{next}");
}

#[test]
fn f118_a_date_with_no_good_set_names_what_there_is() {
    let shop = Shop::new();
    let set = shop.backup();
    std::fs::remove_dir_all(shop.home.path("uploads")).unwrap();
    let partial = shop.run(&["backup", "now"]);
    assert_eq!(partial.code, 3, "{}", partial.all());
    let newest = shop.home.newest();
    // Only the partial one is of a source that no good set has whole.
    for wanted in [&["--date", "2001-01-01"][..], &["--date", "2001-01-01", "--source", "postgres"]] {
        let refused = shop.run(&[&["restore"], wanted].concat());
        assert!(refused.code == 6 && refused.err.contains(&set) && !refused.err.contains("(partial)"), "{}", refused.all());
    }
    let fresh = Shop::new();
    std::fs::remove_dir_all(fresh.home.path("uploads")).unwrap();
    assert_eq!(fresh.run(&["backup", "now"]).code, 3);
    let only = fresh.home.newest();
    for wanted in [day_of(&only), "latest".into()] {
        let refused = fresh.run(&["restore", &wanted]);
        assert_eq!(refused.code, 6, "{}", refused.all());
        assert!(refused.err.contains(&format!("{only} (partial)")) && refused.err.contains("drctl restore ID"), "{}", refused.all());
    }
    assert_ne!(newest, set);
}

#[test]
fn finish_and_undo_say_what_they_do_and_finish_asks() {
    let shop = Shop::new();
    let whole = shop.picture();
    let set = shop.backup();
    shop.damage();
    let lost = shop.picture();
    shop.home.ok(&["restore", &set, "--yes"]);
    let kept = shop.databases().into_iter().find(|d| d.contains("_drctl_old_")).unwrap();
    let id = kept.rsplit('_').next().unwrap().to_owned();

    let nobody = shop.run(&["restore", "--finish"]);
    assert_eq!(nobody.code, 4, "{}", nobody.all());
    for word in [&format!("FINISH restore {id} of {set}"), "Dropped for good:", &format!("database {kept}: "), "uploads.drctl-old-"] {
        assert!(nobody.err.contains(word), "{word}: {}", nobody.err);
    }
    assert!(
        nobody.err.contains("live since ") && nobody.err.contains(&format!("hint: drctl restore --finish {id} --yes")),
        "{}",
        nobody.err
    );
    let dry = shop.home.ok(&["restore", "--finish", &id, "--dry-run"]);
    assert!(dry.out.contains("Dropped for good:"), "{}", dry.all());
    let no = at_a_terminal(&shop, &["restore", "--finish"], "no");
    assert_eq!(no.code, 4, "{}", no.all());
    assert!(no.out.contains("Dropped for good:") && no.out.contains("Type yes to go on"), "{}", no.all());
    let dry = shop.home.ok(&["restore", "--undo", "--dry-run"]);
    assert!(
        dry.out.contains(&format!("UNDO restore {id}")) && dry.out.contains("Live again, instead of what is live now:"),
        "{}",
        dry.all()
    );
    let no = at_a_terminal(&shop, &["restore", "--undo"], "n");
    assert_eq!(no.code, 4, "{}", no.all());
    assert_eq!((shop.picture(), shop.databases().len(), shop.beside().len()), (whole.clone(), 2, 1), "nothing was changed");

    // The way back needs nobody who could be asked, and says what it does.
    let undone = shop.home.ok(&["restore", "--undo"]);
    assert!(undone.err.contains(&format!("database {kept}: ")) && undone.err.contains("kept aside, until"), "{}", undone.err);
    assert_eq!(shop.picture(), lost);
    let yes = at_a_terminal(&shop, &["restore", "--finish"], "yes");
    assert_eq!(yes.code, 0, "{}", yes.all());
    assert_eq!((shop.picture(), shop.databases().len(), shop.beside().len()), (lost, 1, 0));
    assert_eq!(shop.run(&["restore", "--finish"]).code, 6);
}

#[test]
fn f83_a_target_with_live_data_is_exchanged_and_the_way_back_is_shown_and_works() {
    let shop = Shop::new();
    let set = shop.backup();
    let other = Server::start();
    other.sql("postgres", "CREATE DATABASE theirs");
    other.sql("theirs", "CREATE TABLE kept (i int); INSERT INTO kept VALUES (7)");
    let url = format!("postgres://postgres:{}@127.0.0.1:{}/theirs", percent(support::PASSWORD), other.port);
    let args = ["restore", &set, "--source", "postgres", "--target", &url];
    let dry = shop.home.ok(&[&args[..], &["--dry-run"]].concat());
    assert!(dry.out.contains("What is live there stays in use") && dry.out.contains("Back again: drctl restore --undo "), "{}", dry.out);
    assert!(dry.out.contains("its password in PGPASSWORD"), "{}", dry.out);
    let done = shop.home.ok(&[&args[..], &["--yes"]].concat());
    assert_eq!(other.sql("theirs", "SELECT count(*) FROM orders"), "1000");
    let at = done.out.find("drctl restore --undo ").unwrap_or_else(|| panic!("no undo line: {}", done.all()));
    let id = done.out[at..].split_whitespace().nth(3).unwrap().to_owned();
    // The password stood in the URL only, and is nowhere kept.
    let mut undo = shop.home.command(&["restore", "--undo", &id]);
    let undone = Ran::of(undo.env("PGPASSWORD", support::PASSWORD).output().unwrap());
    assert_eq!(undone.code, 0, "{}", undone.all());
    assert!(undone.err.contains(&format!("at postgres://postgres:***@127.0.0.1:{}/theirs", other.port)), "{}", undone.err);
    assert_eq!(other.sql("theirs", "SELECT i FROM kept"), "7");
    let mut finish = shop.home.command(&["restore", "--finish", &id, "--yes"]);
    assert_eq!(Ran::of(finish.env("PGPASSWORD", support::PASSWORD).output().unwrap()).code, 0);
    assert_eq!(other.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ '_drctl_'"), "0");
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

#[test]
fn an_empty_maintenance_database_stays_as_it_is_unless_it_is_named() {
    let shop = Shop::on(Arc::new(Server::start()));
    let oid = || shop.server.sql("template1", "SELECT oid FROM pg_database WHERE datname = 'postgres'");
    let bare = oid();
    shop.set_jobs(&jobs(&shop, "all"));
    let set = shop.backup();
    shop.damage();
    let dry = shop.home.json(&["restore", &set, "--dry-run"]);
    let source = &dry["result"]["sources"][0];
    assert_eq!(source["artifacts"], serde_json::json!(["globals", shop.database]), "{dry}");
    let plan = shop.home.ok(&["restore", &set, "--dry-run"]).out;
    assert_eq!(plan.matches("database postgres").count(), 1, "{plan}");
    assert!(plan.contains("database postgres: empty in the set, stays as it is"), "{plan}");
    let done = shop.home.ok(&["restore", &set, "--yes"]);
    assert!(shop.orders().starts_with("1000 "), "{}", done.all());
    assert_eq!(oid(), bare);
    // One database: the line for its statistics names it.
    let line =
        format!("vacuumdb --host=127.0.0.1 --port={} --username=postgres --analyze-in-stages --dbname={}", shop.server.port, shop.database);
    assert!(done.out.contains(&line), "{}", done.out);
    shop.home.ok(&["restore", "--finish", "--yes"]);
    let in_place = shop.home.ok(&["restore", &set, "--in-place", "--yes"]);
    assert_eq!(oid(), bare, "{}", in_place.all());

    // Named in the configuration it is restored like any other.
    shop.set_jobs(&jobs(&shop, "[postgres]"));
    let named = shop.home.ok(&["restore", &set, "--dry-run"]).out;
    assert!(named.contains("kept as postgres_drctl_old_"), "{named}");
    // And a view alone is something of its own.
    shop.server.sql("postgres", "CREATE VIEW v AS SELECT 1");
    shop.set_jobs(&jobs(&shop, "all"));
    let set = shop.backup();
    let plan = shop.home.ok(&["restore", &set, "--dry-run"]).out;
    assert!(plan.contains("kept as postgres_drctl_old_"), "{plan}");
}

#[test]
fn several_databases_into_one_are_refused_once() {
    let shop = Shop::on(Arc::new(Server::start()));
    shop.server.sql("postgres", "CREATE DATABASE other");
    shop.set_jobs(&jobs(&shop, &format!("[{}, other]", shop.database)));
    let set = shop.backup();
    let url = format!("postgres://postgres@127.0.0.1:{}/onedb", shop.server.port);
    let refused = shop.run(&["restore", &set, "--target", &url, "--yes"]);
    assert_eq!(refused.code, 4, "{}", refused.all());
    let told = format!("the target names one database, but 2 are to be restored ({}, other)", shop.database);
    // In the plan, and as the error that ends it.
    assert_eq!(refused.err.matches(&told).count(), 2, "{}", refused.err);
    let dry = shop.run(&["restore", &set, "--target", &url, "--dry-run"]);
    assert_eq!((dry.code, dry.out.matches(&told).count(), dry.out.matches("  ! ").count()), (4, 1, 1), "{}", dry.all());
}

/// A child whose parent is gone: the rows are whole, and their foreign key cannot be made of them. Nothing but the rows shows it.
const BROKEN_KEY: &str = "CREATE TABLE parent (i int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 9);
    CREATE TABLE child (i int CONSTRAINT child_of REFERENCES parent); INSERT INTO child SELECT generate_series(1, 9);
    SET session_replication_role = replica; DELETE FROM parent WHERE i > 5";

fn with_broken_key() -> (Shop, String, String) {
    let shop = Shop::on(Arc::new(Server::start()));
    shop.sql(BROKEN_KEY);
    shop.server.sql("postgres", "CREATE DATABASE other");
    shop.server.sql("other", BROKEN_KEY);
    shop.set_jobs(&jobs(&shop, &format!("[{}, other]", shop.database)));
    let set = shop.backup();
    for database in [shop.database.as_str(), "other"] {
        shop.server.sql(database, "INSERT INTO parent VALUES (77)");
    }
    let other = shop.server.sql("postgres", "SELECT oid FROM pg_database WHERE datname = 'other'");
    (shop, set, other)
}

/// Databases of the server but its own.
fn all_databases(shop: &Shop) -> String {
    shop.server.sql("postgres", "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname !~ '^(postgres|template)'")
}

fn parents(shop: &Shop, database: &str) -> String {
    shop.server.sql(database, "SELECT count(*) || ' ' || max(i) || ' ' || (SELECT count(*) FROM child) FROM parent")
}

/// What was live is gone by the time that the rows show it, and at night there is nobody to be asked: a database without a foreign key is better
/// than none.
#[test]
fn f110_what_only_the_rows_show_in_place_never_leaves_nothing_live() {
    let (shop, set, _) = with_broken_key();
    let dry = shop.home.ok(&["restore", &set, "--in-place", "--dry-run"]).out;
    assert!(dry.contains("What only the rows show") && dry.contains("(exit 3)"), "{dry}");
    assert!(dry.contains("the way back is the safety set made first, of about "), "{dry}");
    let databases = format!("other {}", shop.database);
    for more in [&[][..], &["--no-safety-set"], &["--no-safety-set", "--accept-load-errors", "0"]] {
        let ran = shop.run(&[&["restore", &set, "--in-place", "--yes"], more].concat());
        assert_eq!(ran.code, 3, "{more:?}: {}", ran.all());
        assert_eq!(all_databases(&shop), databases, "{more:?}: {}", ran.all());
        for database in [shop.database.as_str(), "other"] {
            assert_eq!(parents(&shop, database), "5 5 9", "{database} {more:?}: {}", ran.all());
            assert!(ran.out.contains(&format!("{database}: FK CONSTRAINT public.child child_of")), "{more:?}: {}", ran.out);
        }
        let told = ["NOT LOADED, as nobody could be asked and nothing else was live (2):", "ADD CONSTRAINT child_of FOREIGN KEY"];
        assert!(told.iter().all(|words| ran.out.contains(words)), "{more:?}: {}", ran.out);
        let back = match more {
            [] => format!("back to what was live before: drctl restore {} --in-place", shop.home.newest()),
            _ => "no safety set was made".to_owned(),
        };
        assert!(ran.err.contains(&back), "{more:?}: {}", ran.err);
        assert!(!shop.home.ok(&["status"]).out.contains("restore --"), "{more:?}: nothing is left to mend");
    }
    // For machines, too. What was accepted beforehand is nobody's to be told that it was not.
    let restore = |number: &str| {
        shop.home.json(&["restore", &set, "--in-place", "--no-safety-set", "--yes", "--accept-load-errors", number])["result"].clone()
    };
    let (unasked, asked) = (restore("0"), restore("2"));
    assert_eq!((&unasked["unasked"], unasked["problems"].as_array().unwrap().len()), (&true.into(), 2), "{unasked}");
    assert_eq!((&asked["unasked"], asked["problems"].as_array().unwrap().len()), (&false.into(), 2), "{asked}");
    // Beside, where everything is live, nothing is taken that nobody accepted.
    let ran = shop.run(&["restore", &set, "--yes"]);
    assert_eq!((ran.code, all_databases(&shop)), (4, databases), "{}", ran.all());
}

/// A person is asked for each database before the next one is dropped, and a no keeps what was loaded aside.
#[test]
fn f110_a_person_is_asked_in_place_before_the_next_database_is_dropped() {
    let (shop, set, other) = with_broken_key();
    let ran = at_a_terminal(&shop, &["restore", &set, "--in-place", "--no-safety-set", "--yes"], "no");
    let list = all_databases(&shop);
    let kept = list.split(' ').find(|name| name.contains("_drctl_")).unwrap_or_else(|| panic!("{list}: {}", ran.all()));
    assert!(ran.out.contains("that was not accepted") && ran.out.contains(kept), "{}", ran.all());
    assert_eq!(parents(&shop, kept), "5 5 9");
    // The other one is what it was: nothing of it was touched.
    let now = shop.server.sql("postgres", "SELECT oid FROM pg_database WHERE datname = 'other'");
    assert_eq!((now, parents(&shop, "other")), (other, "6 77 9".to_owned()), "{}", ran.all());
    // The line that mends it says what it takes, and does it.
    let status = shop.home.ok(&["status"]).out;
    let line = format!("drctl restore {set} --source postgres --in-place --no-safety-set --accept-load-errors 1");
    assert!(status.contains(&line), "{status}");
    let ran = at_a_terminal(&shop, &["restore", &set, "--in-place", "--no-safety-set", "--yes"], "yes\nyes");
    assert_eq!(ran.code, 3, "{}", ran.all());
    assert_eq!(all_databases(&shop), format!("other {}", shop.database), "{}", ran.all());
    assert!(ran.out.contains("NOT LOADED, accepted (2)"), "{}", ran.all());
}
