//! Dumping real PostgreSQL servers, with real and with fake tools.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use drctl::error::{Error, Kind};
use drctl::model::{ArtifactFormat, Secret};
use drctl::source::postgres::{Databases, PostgresSettings, PostgresSource};
use drctl::source::{ArtifactPlan, LeftOut, Source};

#[path = "support/postgres.rs"]
mod support;
use support::{Server, bin, context, dump, dump_all, fake_tools, listening, shared};

/// A shared server with a database of this test's own.
fn database(name: &str, sql: &str) -> Arc<Server> {
    let server = shared();
    server.sql("postgres", &format!("create database {name}"));
    server.sql(name, sql);
    server
}

fn plan(name: &str) -> ArtifactPlan {
    ArtifactPlan { name: name.into(), format: ArtifactFormat::PgCustom, extension: None, expected_bytes: None, secret: false }
}

const SHOP: &str = "create table orders (id int primary key, note text); insert into orders select i, 'n' from generate_series(1, 1000) i;
    create table empty (a int); create table zero (); insert into zero select from generate_series(1, 3); select lo_from_bytea(0, 'hello');";

/// Dumps one database with a fake pg_dump in front of the real tools. `$REAL` in the script is the real one.
async fn dump_with(
    server: &Server,
    name: &str,
    script: &str,
    change: impl FnOnce(&mut PostgresSettings),
) -> drctl::error::Result<support::Dumped> {
    let real = bin().join("pg_dump");
    let script = format!("REAL={}\n[ \"$1\" = --version ] && exec $REAL --version\n{script}", real.display());
    let fake = fake_tools(&[("pg_dump", &script)]);
    let mut settings = server.named(&[name]);
    settings.client_folders = vec![fake.path().to_owned(), bin()];
    change(&mut settings);
    let context = context("fake");
    let mut session = PostgresSource::new("postgres", settings).open(&context).await?;
    dump(session.as_mut(), &plan(name), &context).await
}

fn error_of(result: drctl::error::Result<support::Dumped>) -> Error {
    result.err().expect("the dump must fail")
}

#[tokio::test]
async fn a_whole_server_is_dumped_and_counted() {
    let server = Server::start();
    server.sql("postgres", "create database shop");
    server.sql("postgres", "create role app login password 'x1'");
    server.sql("shop", SHOP);
    server.sql("shop", "create extension pg_trgm; create publication pub for all tables");
    server.sql("postgres", "alter database shop owner to app");
    server.sql(
        "postgres",
        "alter database shop set work_mem = '5MB'; grant connect on database shop to app; comment on database shop is 'it''s'",
    );
    server.sql("postgres", "alter role app in database shop set search_path = \"$user\", public");
    server.sql("postgres", "create database closed allow_connections false");
    server.sql("postgres", "create database shop_drctl_old_7k3q9xyz allow_connections false");
    server.sql("postgres", "create database other_drctl_undone_7k3q9xyz allow_connections false");
    server.sql("postgres", "create database shop_drctl_7k3q9xyz");
    server.sql("postgres", "create database data_drctl_abcd2345");
    // Somebody is loading the first.
    let mut loads = server.sql_in_background("shop_drctl_7k3q9xyz", "select pg_sleep(3600)");
    while server.sql("postgres", "select count(*) from pg_stat_activity where datname = 'shop_drctl_7k3q9xyz'") != "1" {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let (context, _) = listening("r1");
    let source = PostgresSource::new("postgres", server.settings());
    let preflight = source.preflight(&context).await.unwrap();
    assert!(preflight.summary.starts_with("PostgreSQL ") && preflight.summary.contains("2 databases"), "{}", preflight.summary);
    let missing =
        "Database closed is not dumped: it accepts no connections (to have it dumped: ALTER DATABASE \"closed\" ALLOW_CONNECTIONS true).";
    let (left, loading, kept) = (
        "Database data_drctl_abcd2345 is not dumped: it has the name of what a restore loads and nobody is connected to it; drctl status shows \
         whose it is, and one of yours needs another name: ALTER DATABASE \"data_drctl_abcd2345\" RENAME TO ….",
        "Database shop_drctl_7k3q9xyz is not dumped: a restore is loading it.",
        "Restore 7k3q9xyz keeps old data aside, which is not dumped: other_drctl_undone_7k3q9xyz, shop_drctl_old_7k3q9xyz. To drop it: \
         drctl restore --finish 7k3q9xyz",
    );
    assert_eq!(preflight.warnings, [kept, left, loading]);
    let closed = LeftOut { artifact: "closed".into(), words: missing.into(), on_purpose: false };
    assert_eq!((preflight.left_out.as_slice(), preflight.problems.len()), ([closed.clone()].as_slice(), 0));

    let before = jiff::Timestamp::now();
    let mut session = source.open(&context).await.unwrap();
    assert_eq!((session.problems(), session.warnings()), (vec![], vec![kept.to_owned(), left.to_owned(), loading.to_owned()]));
    assert_eq!(session.left_out(), [closed]);
    loads.kill().unwrap();
    loads.wait().unwrap();
    assert!(session.identity()["system_identifier"].parse::<u64>().is_ok());
    let plans = session.artifacts();
    let names: Vec<_> = plans.iter().map(|p| (p.name.as_str(), p.format, p.secret)).collect();
    let (sql, custom) = (ArtifactFormat::Sql, ArtifactFormat::PgCustom);
    assert_eq!(names, [("globals", sql, true), ("postgres", custom, false), ("shop", custom, false)]);
    for plan in &plans {
        let dumped = dump(session.as_mut(), plan, &context).await.unwrap();
        let facts = dumped.facts.unwrap();
        match plan.name.as_str() {
            "globals" => assert!(String::from_utf8(dumped.bytes).unwrap().contains("CREATE ROLE app")),
            "shop" => {
                assert_eq!(dumped.end.expected_totals["tables"], 3);
                assert_eq!((facts.totals["tables"], facts.totals["rows"], facts.totals["large_objects"]), (3, 1003, 1));
                assert_eq!(facts.per_name["public.orders"], 1000);
            }
            _ => assert_eq!(dumped.end.expected_totals["tables"], 0, "f66: an empty database is a valid one"),
        }
    }
    assert!(before <= session.as_of() && session.as_of() <= jiff::Timestamp::now());
    let details = session.details();
    let shop = &details["databases"][1];
    assert_eq!(shop["settings"], serde_json::json!(["work_mem=5MB"]));
    assert_eq!(shop["role_settings"]["app"], serde_json::json!(["search_path=\"$user\", public"]));
    assert_eq!((shop["owner"].as_str(), shop["comment"].as_str(), shop["empty"].as_bool()), (Some("app"), Some("it's"), Some(false)));
    assert_eq!(shop["extensions"][0]["name"], "pg_trgm");
    assert_eq!(shop["publications"], serde_json::json!(["pub"]));
    assert_eq!(details["databases"][0]["empty"], true);
    let skipped: Vec<_> = details["skipped_databases"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(
        skipped,
        [
            "closed",
            "data_drctl_abcd2345",
            "other_drctl_undone_7k3q9xyz",
            "shop_drctl_7k3q9xyz",
            "shop_drctl_old_7k3q9xyz",
            "template0",
            "template1"
        ]
    );
    // The password shows nowhere: not in what is told, nor at the server, nor in the details.
    assert!(!details.to_string().contains("canary"));
    assert!(!server.log().contains("canary"));

    // f45: what is new is dumped in the next run.
    server.sql("postgres", "create database later");
    let session = source.open(&context).await.unwrap();
    assert!(session.artifacts().iter().any(|p| p.name == "later"));
}

#[tokio::test]
async fn f67_names_of_every_kind_are_dumped() {
    let server = Server::start();
    let names = ["a b", "qu\"ote", "it's", "-rf", "ünïcode", "x=y", "postgres://h/x", "back\\slash", "new\nline", "globals", "%41+", ".."];
    for name in names {
        server.sql("postgres", &format!("create database \"{}\"", name.replace('"', "\"\"")));
        server.sql(name, "create table \"T. \"\"x\" (a int); insert into \"T. \"\"x\" values (1), (2)");
    }
    let (dumped, _) = dump_all(server.named(&names), &context("names")).await.unwrap();
    assert_eq!(dumped.len(), names.len() + 1);
    for dumped in dumped.into_iter().filter(|d| d.plan.format == ArtifactFormat::PgCustom) {
        let facts = dumped.facts.unwrap();
        assert_eq!(facts.per_name.into_iter().collect::<Vec<_>>(), [("public.\"T. \"\"x\"".to_owned(), 2)], "{:?}", dumped.plan.name);
    }
}

#[tokio::test]
async fn f26_dump_that_exits_non_zero_after_all_output() {
    let server = database("f26", SHOP);
    let script = "$REAL \"$@\"; echo 'pg_dump: error: something at the end' >&2; exit 1";
    let error = error_of(dump_with(&server, "f26", script, |_| {}).await);
    let text = error.to_string();
    assert!(text.starts_with("pg_dump of f26 exited 1 after ") && text.contains("something at the end"), "{text}");
}

#[tokio::test]
async fn f27_truncated_dump_with_exit_0() {
    let server = database("f27", SHOP);
    let dumped = dump_with(&server, "f27", "$REAL \"$@\" | head -c 3000", |_| {}).await.unwrap();
    let error = dumped.facts.unwrap_err();
    assert_eq!((error.kind(), dumped.bytes.len()), (Kind::Corrupt, 3000));
    assert!(error.to_string().contains("it ends within"), "{error}");
}

#[tokio::test]
async fn f27_truncated_globals_with_exit_0() {
    let server = shared();
    let script = format!("[ \"$1\" = --version ] && exec {0} --version; {0} \"$@\" | head -n 20", bin().join("pg_dumpall").display());
    let fake = fake_tools(&[("pg_dumpall", &script)]);
    let settings = PostgresSettings { client_folders: vec![fake.path().to_owned(), bin()], ..server.named(&[]) };
    let error = dump_all(settings, &context("f27")).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("cut short"), "{error}");
}

#[tokio::test]
async fn f28_dump_that_exits_0_with_empty_output() {
    let server = database("f28", SHOP);
    let nothing = dump_with(&server, "f28", "exit 0", |_| {}).await.unwrap();
    assert_eq!(nothing.facts.unwrap_err().kind(), Kind::Corrupt);
    // A valid archive of another, empty database: only the count made beforehand shows it.
    let script =
        "for last; do :; done; set -- \"$1\" \"$2\" \"$3\" \"$4\" --format=custom --compress=0 --dbname=postgres; exec $REAL \"$@\"";
    let other = dump_with(&server, "f28", script, |_| {}).await.unwrap();
    assert!(other.facts.unwrap().totals["tables"] < other.end.expected_totals["tables"]);
}

#[tokio::test]
async fn f29_dump_that_hangs_or_floods_stderr() {
    let server = database("f29", SHOP);
    let since = Instant::now();
    let hang = |settings: &mut PostgresSettings| settings.idle_timeout = Some(Duration::from_millis(500));
    let error = error_of(dump_with(&server, "f29", "head -c 100000 /dev/zero; exec sleep 600", hang).await);
    assert!(error.to_string().contains("wrote nothing for 0.5 s"), "{error}");
    let slow = |settings: &mut PostgresSettings| settings.total_timeout = Some(Duration::from_millis(500));
    let error = error_of(dump_with(&server, "f29", "exec yes", slow).await);
    assert!(error.to_string().contains("not done within 0.5 s"), "{error}");
    assert!(since.elapsed() < Duration::from_secs(120));
    let script = "head -c 300000000 /dev/zero | tr '\\0' x >&2; exec $REAL \"$@\"";
    let dumped = dump_with(&server, "f29", script, |_| {}).await.unwrap();
    assert_eq!(dumped.facts.unwrap().totals["rows"], 1003);
}

#[tokio::test]
async fn f30_dump_tool_missing_or_not_executable() {
    let server = shared();
    let empty = tempfile::tempdir().unwrap();
    let mut settings = PostgresSettings { client_folders: vec![empty.path().to_owned()], ..server.settings() };
    let error = PostgresSource::new("postgres", settings.clone()).preflight(&context("f30")).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Preflight);
    assert!(error.to_string().starts_with("there is no pg_dump in "), "{error}");
    assert!(error.hint_text().unwrap().contains("apt-get install postgresql-client-"));
    std::fs::write(empty.path().join("pg_dump"), "").unwrap();
    settings.client_folders = vec![empty.path().to_owned()];
    let error = PostgresSource::new("postgres", settings).preflight(&context("f30")).await.err().unwrap();
    assert!(error.to_string().contains("may not be executed"), "{error}");
}

#[tokio::test]
async fn f31_client_older_than_server() {
    let server = shared();
    let fake = fake_tools(&[("pg_dump", "echo 'pg_dump (PostgreSQL) 10.23'")]);
    let settings = PostgresSettings { client_folders: vec![fake.path().to_owned()], ..server.settings() };
    let error = PostgresSource::new("postgres", settings).preflight(&context("f31")).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Preflight);
    let text = error.to_string();
    assert!(text.contains("pg_dump 10.23") && text.contains("is older than the server, PostgreSQL 1"), "{text}");
    assert!(error.hint_text().unwrap().contains("postgresql-client-1"), "{error:?}");
}

#[tokio::test]
async fn f39_server_down_at_start() {
    let settings = PostgresSettings { port: support::free_port(), ..PostgresSettings::default() };
    let error = PostgresSource::new("postgres", settings).preflight(&context("f39")).await.err().unwrap();
    assert!(error.kind().retryable() && error.kind().exit_code() == 8, "{error:?}");
    assert!(error.to_string().contains("127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn f40_server_restarted_in_mid_dump() {
    let server = Server::start();
    server.sql("postgres", "create database f40");
    server.sql("f40", SHOP);
    server.sql("f40", "create table big as select i, repeat('x', 1000) t from generate_series(1, 200000) i");
    let context = context("f40");
    let mut session = PostgresSource::new("postgres", server.named(&["f40"])).open(&context).await.unwrap();
    let (sender, mut receiver) = drctl::pipeline::plain::channel();
    let plan = plan("f40");
    let dumping = session.dump(&plan, sender, &context);
    let crash = async {
        receiver.next().await.unwrap();
        server.crash();
        server.start_again();
        while receiver.next().await.is_some() {}
    };
    let (result, ()) = tokio::join!(dumping, crash);
    let error = result.unwrap_err();
    assert!(error.kind().retryable(), "{error:?}");
    // The same session dumps it again, whole.
    let again = dump(session.as_mut(), &plan, &context).await.unwrap();
    assert_eq!(again.facts.unwrap().totals["rows"], 201_003);
}

/// The server is exchanged between two artifacts of a session: nothing of the other one is dumped, and both are named.
#[tokio::test]
async fn f40_another_server_in_mid_run_is_refused_by_the_session() {
    let (server, mut other) = (Server::start(), Server::start());
    for server in [&server, &other] {
        server.sql("postgres", "create database f40");
        server.sql("f40", SHOP);
    }
    let context = context("f40");
    let mut session = PostgresSource::new("postgres", server.named(&["f40"])).open(&context).await.unwrap();
    let (one, two) = (server.identifier(), other.identifier());
    server.crash();
    other.take_place_at(server.port);
    let error = error_of(dump(session.as_mut(), &plan("f40"), &context).await);
    assert!(error.to_string().contains(&format!("system_identifier {one} then, {two} now")), "{error}");
    assert!(!error.kind().retryable(), "{error:?}");
}

#[tokio::test]
async fn f42_a_wrong_password_is_one_clear_error_without_the_password() {
    let server = shared();
    let settings = PostgresSettings { password: Some(Secret::new("wrong-canary")), ..server.settings() };
    let error = PostgresSource::new("postgres", settings).preflight(&context("f42")).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Preflight);
    let text = format!("{error:?}");
    assert!(text.contains("authentication") && !text.contains("canary"), "{text}");
}

#[tokio::test]
async fn f43_a_lock_timeout_names_the_blocker() {
    let server = database("f43", SHOP);
    let mut locker = server.sql_in_background("f43", "begin; lock table orders; select pg_sleep(600)");
    let held = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and relation = 'orders'::regclass and granted";
    while server.sql("f43", held) != "1" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut found = None;
    // Who looks for the holder of the lock may be held up: then the dump waits for longer.
    for seconds in [3, 10, 40] {
        let (context, heard) = listening("f43");
        let settings = PostgresSettings { lock_wait_timeout: Duration::from_secs(seconds), ..server.named(&["f43"]) };
        let mut session = PostgresSource::new("postgres", settings).open(&context).await.unwrap();
        let error = error_of(dump(session.as_mut(), &plan("f43"), &context).await);
        let seen = heard.text().contains("waits for a lock held by process");
        found = Some((error, heard));
        if seen {
            break;
        }
    }
    let (error, heard) = found.unwrap();
    server.sql("postgres", "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'f43' and application_name = 'psql'");
    locker.wait().unwrap();
    assert!(error.to_string().starts_with("a table is locked by process "), "{error}");
    assert!(error.to_string().contains("user postgres, application psql, active"), "{error}");
    assert!(error.hint_text().unwrap().contains("pg_terminate_backend("));
    assert!(heard.text().contains("waits for a lock held by process"));
}

#[tokio::test]
async fn f45_a_named_database_that_is_gone_is_said() {
    let server = shared();
    let error = PostgresSource::new("postgres", server.named(&["nowhere"])).open(&context("f45")).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Preflight);
    assert!(error.to_string().contains("no database nowhere") && error.hint_text().unwrap().contains("postgres"), "{error:?}");
}

/// One that is dropped between the look at the server and its dump is an error of its own artifact; the others are dumped whole.
#[tokio::test]
async fn f45_a_database_that_vanishes_in_mid_run_is_said_and_the_others_are_dumped() {
    let server = Server::start();
    for name in ["goes", "stays"] {
        server.sql("postgres", &format!("create database {name}"));
        server.sql(name, SHOP);
    }
    let context = context("f45");
    let mut session = PostgresSource::new("postgres", server.settings()).open(&context).await.unwrap();
    // With force: what looked at it may still be closing its connections.
    server.sql("postgres", "drop database goes with (force)");
    let error = error_of(dump(session.as_mut(), &plan("goes"), &context).await);
    assert!(error.to_string().contains("database \"goes\" does not exist"), "{error}");
    assert!(!error.kind().retryable(), "{error:?}");
    assert_eq!(dump(session.as_mut(), &plan("stays"), &context).await.unwrap().facts.unwrap().totals["rows"], 1003);
}

#[tokio::test]
async fn f65_wide_rows_and_many_tables() {
    let server = Server::start_with("max_locks_per_transaction = 512");
    server.sql("postgres", "create database f65");
    server.sql(
        "f65",
        "create table wide (a bytea, b bytea); insert into wide select x, x from (select decode(repeat('0a5c00ff', 8000000), 'hex') x) s",
    );
    server.sql("f65", "do $$ begin for i in 1..2000 loop execute format('create table t%s (a int)', i); end loop; end $$");
    let (dumped, _) = dump_all(server.named(&["f65"]), &context("f65")).await.unwrap();
    let last = &dumped[1];
    let facts = last.facts.as_ref().unwrap();
    assert_eq!((facts.totals["tables"], facts.totals["rows"], last.end.expected_totals["tables"]), (2001, 1, 2001));
    assert!(last.bytes.len() > 128_000_000);
}

#[tokio::test]
async fn a_role_that_may_not_read_is_refused_before_the_dump() {
    let server = database("rights", SHOP);
    server.sql("rights", "create role reader login password 'r'");
    let settings = PostgresSettings {
        user: "reader".into(),
        password: Some(Secret::new("r")),
        databases: Databases::Named(vec!["rights".into()]),
        ..server.settings()
    };
    let found = PostgresSource::new("postgres", settings.clone()).preflight(&context("rights")).await.unwrap();
    let error = &found.problems[0];
    assert_eq!(error.kind(), Kind::Preflight);
    let opened = PostgresSource::new("postgres", settings.clone()).open(&context("rights")).await.err().unwrap();
    assert_eq!(opened.to_string(), error.to_string(), "where it is the only one, nothing is backed up");
    assert!(error.to_string().contains("may not read 3 tables, public.empty the first"), "{error}");
    assert!(error.hint_text().unwrap().contains("GRANT pg_read_all_data"));
    // With the right it works, but for the passwords of roles, which is said; and for row security, which is refused.
    server.sql("rights", "grant select on all tables in schema public to reader; select lo_unlink(oid) from pg_largeobject_metadata");
    let source = PostgresSource::new("postgres", settings.clone());
    let preflight = source.preflight(&context("rights")).await.unwrap();
    assert!(preflight.warnings.iter().any(|w| w.contains("without them")), "{:?}", preflight.warnings);
    let (dumped, details) = dump_all(settings, &context("rights")).await.unwrap();
    assert!(!String::from_utf8_lossy(&dumped[0].bytes).contains("SCRAM"));
    assert_eq!(details["role_passwords"], false);
    server.sql("rights", "alter table orders enable row level security");
    let error = source.open(&context("rights")).await.err().unwrap();
    assert!(error.to_string().contains("row security on 1 tables"), "{error}");
}

#[tokio::test]
async fn what_pg_dump_says_although_it_ends_well_is_kept() {
    let server = database("remarks", SHOP);
    let subscription = "create subscription s connection 'host=127.0.0.1 port=1 dbname=x' publication p with (connect = false)";
    server.sql("remarks", &format!("{subscription}; alter subscription s set (slot_name = none)"));
    server.sql(
        "remarks",
        "create table a (i int primary key, j int); create table b (i int primary key, j int references a); \
        alter table a add foreign key (j) references b; create role remarker login password 'remarker-pw' in role pg_read_all_data; \
        select lo_unlink(oid) from pg_largeobject_metadata",
    );
    let settings = PostgresSettings { user: "remarker".into(), password: Some(Secret::new("remarker-pw")), ..server.named(&["remarks"]) };
    let context = context("remarks");
    let mut session = PostgresSource::new("postgres", settings).open(&context).await.unwrap();
    let before = session.warnings().len();
    for _ in 0..2 {
        dump(session.as_mut(), &plan("remarks"), &context).await.unwrap().facts.unwrap();
        assert_eq!(session.problems(), ["pg_dump of remarks: subscriptions not dumped because current user is not a superuser"]);
        assert_eq!(session.warnings().len(), before, "{:?}", session.warnings());
    }
    server.sql("remarks", "drop subscription s");
    let script = "echo 'pg_dump: warning: something odd' >&2; exec $REAL \"$@\"";
    let fake = fake_tools(&[(
        "pg_dump",
        &format!("REAL={}\n[ \"$1\" = --version ] && exec $REAL --version\n{script}", bin().join("pg_dump").display()),
    )]);
    let settings = PostgresSettings { client_folders: vec![fake.path().to_owned(), bin()], ..server.named(&["remarks"]) };
    let mut session = PostgresSource::new("postgres", settings).open(&context).await.unwrap();
    dump(session.as_mut(), &plan("remarks"), &context).await.unwrap();
    assert_eq!((session.problems(), session.warnings()), (vec![], vec!["pg_dump of remarks: something odd".to_owned()]));
}

#[tokio::test]
async fn a_replica_with_unlogged_tables_is_dumped_without_their_rows() {
    let primary = Server::start();
    primary.sql("postgres", "create database rep");
    primary.sql("rep", SHOP);
    primary.sql("rep", "create unlogged table \"Fast\" (a int); insert into \"Fast\" values (1)");
    let replica = primary.replica();
    let context = context("replica");
    let warning = "Database rep is dumped from a replica, which has no rows of its unlogged tables: public.\"Fast\".".to_owned();
    let source = PostgresSource::new("postgres", replica.named(&["rep"]));
    assert!(source.preflight(&context).await.unwrap().warnings.contains(&warning));
    let mut session = source.open(&context).await.unwrap();
    let dumped = dump(session.as_mut(), &plan("rep"), &context).await.unwrap();
    let facts = dumped.facts.unwrap();
    assert_eq!((facts.totals["tables"], facts.totals["rows"], dumped.end.expected_totals["tables"]), (3, 1003, 3));
    assert_eq!(session.warnings(), [warning]);
}

#[tokio::test(flavor = "multi_thread")]
async fn f44_a_replica_that_takes_rows_away_from_the_dump_is_named_with_the_setting_that_helps() {
    // An autovacuum that looks at the table would keep the rows for itself.
    let primary = Server::start_with("max_standby_streaming_delay = 200ms\nlog_recovery_conflict_waits = on\nautovacuum = off");
    primary.sql("postgres", "create database rep");
    // More than what lies between server and dump in buffers.
    primary.sql("rep", "create table big as select i, repeat('x', 200) pad from generate_series(1, 200000) i");
    let replica = Arc::new(primary.replica());
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let (reading, gone) = (folder.path().join("reading"), folder.path().join("gone"));
    // Reads no more until the rows are gone and the replica has had enough of waiting.
    let script = format!(
        "exec bash -c 'set -o pipefail; \"$0\" \"$@\" | {{ head -c 20000; touch {}; until [ -e {} ]; do sleep 0.05; done; cat; }}' $REAL \"$@\"",
        reading.display(),
        gone.display()
    );
    let vacuum = {
        let (reading, replica) = (reading.clone(), replica.clone());
        tokio::task::spawn_blocking(move || {
            while !reading.exists() {
                std::thread::sleep(Duration::from_millis(20));
            }
            primary.sql("rep", "delete from big");
            primary.sql("rep", "vacuum big");
            // Said after a wait of deadlock_timeout, 1 s: the dump was told to end by then.
            let since = Instant::now();
            while !replica.log().contains("recovery still waiting after") && since.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(20));
            }
            std::fs::write(gone, "").unwrap();
            primary
        })
    };
    let error = error_of(dump_with(&replica, "rep", &script, |_| {}).await);
    let primary = vacuum.await.unwrap();
    // Unreachable: the whole dump is tried once more (F40).
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(error.to_string().contains("conflict with recovery"), "{error}");
    assert!(error.hint_text().unwrap().contains("hot_standby_feedback = on"), "{error:?}");

    // A dump that is left alone says that it is of a replica, and how far that one had come.
    let context = context("replica");
    let source = PostgresSource::new("postgres", replica.named(&["rep"]));
    assert!(source.preflight(&context).await.unwrap().summary.contains(", a replica"));
    let session = source.open(&context).await.unwrap();
    let server = &session.details()["server"];
    assert_eq!(server["in_recovery"], true, "{server}");
    assert!(server["replay_lsn"].as_str().is_some_and(|lsn| lsn.contains('/')), "{server}");
    let own = PostgresSource::new("postgres", primary.named(&["rep"])).open(&context).await.unwrap();
    assert!(own.details()["server"].get("replay_lsn").is_none());
}

#[tokio::test]
async fn cancel_ends_the_dump_and_its_process() {
    let server = database("cancelled", SHOP);
    let mut context = context("cancelled");
    context.cancel = tokio_util::sync::CancellationToken::new();
    let fake = fake_tools(&[(
        "pg_dump",
        &format!("[ \"$1\" = --version ] && exec {} --version; exec sleep 600", bin().join("pg_dump").display()),
    )]);
    let settings = PostgresSettings { client_folders: vec![fake.path().to_owned(), bin()], ..server.named(&["cancelled"]) };
    let mut session = PostgresSource::new("postgres", settings).open(&context).await.unwrap();
    let cancel = context.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    });
    let error = error_of(dump(session.as_mut(), &plan("cancelled"), &context).await);
    assert_eq!(error.kind(), Kind::Interrupted);
}

#[tokio::test]
async fn no_secret_shows_in_the_arguments_or_environment_of_a_child() {
    let server = database("canary", SHOP);
    let spy = tempfile::tempdir().unwrap();
    let file = spy.path().join("seen");
    let script = format!("{{ cat /proc/$$/cmdline /proc/$$/environ | tr '\\0' '\\n'; }} > {}\nexec $REAL \"$@\"", file.display());
    let dumped = dump_with(&server, "canary", &script, |_| {}).await.unwrap();
    assert_eq!(dumped.facts.unwrap().totals["rows"], 1003);
    let seen = std::fs::read_to_string(&file).unwrap();
    assert!(
        seen.contains("--dbname=")
            && seen.contains("keepalives_idle=30")
            && seen.contains("PGPASSFILE=")
            && seen.contains("PGAPPNAME=drctl/fake"),
        "{seen}"
    );
    assert!(!seen.contains("canary:") && !seen.contains("canary\\:"), "{seen}");
    let passfile = seen.lines().find_map(|l| l.strip_prefix("PGPASSFILE=")).unwrap();
    assert!(!std::path::Path::new(passfile).exists(), "the password file must be gone with the session");
}

/// A server that runs out of room for temporary files; a limit on them stands for a full disk.
#[tokio::test(flavor = "multi_thread")]
async fn f41_a_server_without_room_for_temporary_files_gives_its_own_words() {
    let server = Server::start();
    let tables: String = (0..1500).map(|i| format!("create table t{i}(a int, b text, c numeric default 7);")).collect();
    server.sql("postgres", &format!("begin; {tables} commit;"));
    server.sql("postgres", "alter role postgres set work_mem = '64kB'");
    server.sql("postgres", "alter role postgres set temp_file_limit = '1kB'");
    let error = dump_all(server.named(&["postgres"]), &context("f41")).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("temp_file_limit"), "{error}");
    assert!(!error.kind().retryable(), "{error:?}");
}

/// The same with a disk that is full indeed, under the server's data, in a mount namespace.
#[tokio::test(flavor = "multi_thread")]
async fn f41_a_server_whose_data_disk_is_full_gives_its_own_words() {
    const NAME: &str = "f41_a_server_whose_data_disk_is_full_gives_its_own_words";
    const INSIDE: &str = "DRCTL_TEST_FULL_DISK";
    let Some(disk) = std::env::var_os(INSIDE).map(std::path::PathBuf::from) else {
        let unshare = |args: &[&str]| {
            let mut command = std::process::Command::new("unshare");
            command.arg("-m").args(args);
            command
        };
        if !rustix::process::geteuid().is_root() || !unshare(&["true"]).status().is_ok_and(|s| s.success()) {
            eprintln!("SKIPPED {NAME}: no mount namespaces here");
            return;
        }
        let disk = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let mut inner = unshare(&[program.to_str().unwrap(), "--exact", NAME, "--nocapture"]);
        let output = inner.env(INSIDE, disk.path()).env("TMPDIR", disk.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
        return;
    };
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=400m,mode=755", "none"]).arg(&disk).status();
    assert!(mounted.unwrap().success());
    let server = Server::start();
    let tables: String = (0..1500).map(|i| format!("create table t{i}(a int, b text, c numeric default 7);")).collect();
    server.sql("postgres", &format!("begin; {tables} commit;"));
    server.sql("postgres", "alter role postgres set work_mem = '64kB'");
    server.sql("postgres", "checkpoint");
    let mut fill = std::fs::File::create(disk.join("fill")).unwrap();
    while std::io::Write::write_all(&mut fill, &[0; 4096]).is_ok() {}
    let error = dump_all(server.named(&["postgres"]), &context("f41")).await.map(drop).unwrap_err();
    println!("{error:?}");
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert_eq!(error.kind(), Kind::Full, "{error:?}");
    // With room again it is dumped whole.
    fill.set_len(0).unwrap();
    let (dumped, _) = dump_all(server.named(&["postgres"]), &context("f41")).await.unwrap();
    assert_eq!(dumped[1].facts.as_ref().unwrap().totals["tables"], 1500);
}
