//! Restoring into real PostgreSQL servers: beside, switched, undone, finished, in place, to another server; crashes in between.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use drctl::error::{Error, Kind, Result};
use drctl::model::ArtifactFormat;
use drctl::ops::restore::run::compare;
use drctl::pipeline::plain::{PlainReceiver, channel};
use drctl::source::load::{Growth, Journal, LoadArtifact, LoadProblem, LoadRequest, Loader, Rereads};
use drctl::source::postgres::{PostgresLoader, PostgresSettings, PostgresSource};
use drctl::source::{RunContext, Source};
use serde_json::Value;

#[path = "support/load.rs"]
mod load;
#[path = "support/pgbouncer.rs"]
mod pgbouncer;
#[path = "support/postgres.rs"]
mod support;
use pgbouncer::Pooler;
use support::{Dumped, PASSWORD, Server, bin, context, dump_all, fake_tools, listening, shared};

/// A journal in memory. From its `fails_at`th note on it fails *before* noting: as if the process had died there.
#[derive(Default)]
struct TestJournal {
    values: Mutex<BTreeMap<String, Value>>,
    notes: Mutex<usize>,
    fails_at: Option<usize>,
}

impl TestJournal {
    fn text(&self) -> String {
        format!("{:?}", self.values.lock().unwrap())
    }

    fn notes(&self) -> usize {
        *self.notes.lock().unwrap()
    }

    /// What a later process finds of it.
    fn reopened(&self) -> TestJournal {
        TestJournal { values: Mutex::new(self.values.lock().unwrap().clone()), ..TestJournal::default() }
    }

    fn dying_at(&self, note: usize) -> TestJournal {
        TestJournal { fails_at: Some(note), ..self.reopened() }
    }
}

#[async_trait]
impl Journal for TestJournal {
    async fn note(&self, key: &str, value: Value) -> Result<()> {
        let mut notes = self.notes.lock().unwrap();
        if self.fails_at.is_some_and(|at| *notes >= at) {
            return Err(Error::failed("the process died here"));
        }
        *notes += 1;
        self.values.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }

    fn get(&self, key: &str) -> Option<Value> {
        self.values.lock().unwrap().get(key).cloned()
    }
}

/// A set of one source, kept in memory.
struct Set {
    dumped: Vec<Dumped>,
    request: LoadRequest,
}

impl Set {
    async fn of(settings: PostgresSettings) -> Set {
        let (dumped, details) = dump_all(settings, &context("backup")).await.unwrap();
        let request = LoadRequest {
            restore: "7k3q".into(),
            source: "postgres".into(),
            artifacts: dumped.iter().map(load::artifact).collect(),
            details,
            as_of: jiff::Timestamp::now(),
            in_place: false,
            grows: Vec::new(),
            exchange_first: false,
            target: None,
        };
        Set { dumped, request }
    }

    /// Loads all of it; artifacts are cut to `keep` bytes and then end badly, if that is given.
    async fn load_cut(
        &self,
        loader: &PostgresLoader,
        journal: &TestJournal,
        context: &RunContext,
        keep: Option<usize>,
    ) -> Result<Vec<LoadProblem>> {
        let mut problems = Vec::new();
        for (dumped, artifact) in self.dumped.iter().zip(&self.request.artifacts) {
            let (sender, receiver) = channel();
            let cut = keep.filter(|_| dumped.plan.format == ArtifactFormat::PgCustom);
            let bytes = bytes::Bytes::copy_from_slice(&dumped.bytes[..cut.unwrap_or(dumped.bytes.len())]);
            let send = async move {
                for at in (0..bytes.len()).step_by(100_000) {
                    if sender.data(bytes.slice(at..bytes.len().min(at + 100_000))).await.is_err() {
                        return;
                    }
                }
                if cut.is_none() {
                    let _ = sender.end().await;
                }
            };
            // The stream again, as often as it is asked for.
            let (ask, mut asked) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<PlainReceiver>>(1);
            let again = async {
                while let Some(reply) = asked.recv().await {
                    let _ = reply.send(load::plain(&dumped.bytes));
                }
            };
            let loading = async {
                let artifact = LoadArtifact { rereads: Rereads::of(ask), ..artifact.clone() };
                loader.load(&self.request, &artifact, receiver, journal, context).await
            };
            let (result, (), ()) = tokio::join!(loading, send, again);
            problems.extend(result?);
        }
        Ok(problems)
    }

    async fn load(&self, loader: &PostgresLoader, journal: &TestJournal, context: &RunContext) -> Result<Vec<LoadProblem>> {
        self.load_cut(loader, journal, context, None).await
    }

    async fn load_and_switch(&self, loader: &PostgresLoader, journal: &TestJournal) {
        let context = context("restore");
        self.load(loader, journal, &context).await.unwrap();
        loader.switch(&self.request, journal, &context).await.unwrap();
    }

    async fn counts_are_equal(&self, loader: &PostgresLoader, journal: &TestJournal) {
        for artifact in self.request.artifacts.iter().filter(|a| a.artifact.format == ArtifactFormat::PgCustom) {
            let facts = loader.count(&self.request, artifact, journal, &context("count")).await.unwrap();
            assert_eq!(facts.per_name, artifact.facts.per_name);
            for total in ["rows", "tables", "large_objects"] {
                let want = artifact.facts.totals[total];
                assert_eq!(facts.totals.get(total).copied().unwrap_or(0), want, "{total} of {}", artifact.name);
            }
        }
    }
}

/// Globals as older versions stored them: in the encoding of the server, which is that of its databases.
#[tokio::test]
async fn f95_globals_that_are_no_utf8_are_loaded() {
    let (server, other, utf8) = (Server::start_in("LATIN1"), Server::start_in("LATIN1"), Server::start());
    server.sql(
        "postgres",
        "create role \"müller\" login password 'x'; create role app; grant app to \"müller\"; comment on role app is 'für ß'",
    );
    let mut set = Set::of(server.named(&[])).await;
    let text = String::from_utf8(set.dumped[0].bytes.clone()).unwrap();
    set.dumped[0].bytes = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    // As the details of those versions: the server's encoding is not among them.
    set.request.details["server"].as_object_mut().unwrap().remove("encoding");
    set.request.details["databases"] = serde_json::json!([
        { "name": "postgres", "oid": 5, "owner": "postgres", "encoding": "LATIN1", "collate": "C", "ctype": "C", "provider": "libc", "locale": null,
          "icu_rules": null, "collation_version": null, "connection_limit": -1, "allow_connections": true, "template": false,
          "tablespace": "pg_default", "acl": null, "comment": null, "size_bytes": 1 }
    ]);
    let roles = "select string_agg(rolname || coalesce(shobj_description(oid, 'pg_authid'), ''), ', ' order by 1) from pg_roles where rolname !~ '^(pg_|post)'";
    for target in [&other, &utf8] {
        let loader = PostgresLoader::new(target.settings());
        set.load(&loader, &TestJournal::default(), &context("load")).await.unwrap();
        assert_eq!(target.sql("postgres", roles), "appfür ß, müller");
        assert_eq!(
            target.sql("postgres", "select pg_has_role('müller', 'app', 'member') and rolcanlogin from pg_roles where rolname = 'müller'"),
            "t"
        );
    }
    // Where nobody knows the encoding, what can be read is loaded and the rest is named.
    let fresh = Server::start();
    set.request.details["databases"] = serde_json::json!([]);
    let (context, heard) = listening("load");
    set.load(&PostgresLoader::new(fresh.settings()), &TestJournal::default(), &context).await.unwrap();
    assert_eq!(fresh.sql("postgres", roles), "app");
    assert!(heard.text().contains("m\\\\xfcller"), "{}", heard.text());
}

const SHOP: &str = "create extension pg_trgm; create extension hstore; create schema \"Sch.ema\";
    create table orders (id serial primary key, note text, h hstore); insert into orders (note) select 'n' || i from generate_series(1, 1000) i;
    create index on orders using gin (note gin_trgm_ops);
    create table \"Sch.ema\".\"T x\" (b bytea, t text); insert into \"Sch.ema\".\"T x\" values ('\\x000a5c', E'a\\nb\\\\.\\tc'), (null, '\\.'), ('', '');
    create table empty (a int); create table zero (); insert into zero select from generate_series(1, 3);
    create table part (a int) partition by list (a); create table part1 partition of part for values in (1); insert into part values (1), (1);
    create materialized view mv as select count(*) from orders; create view v as select * from orders;
    select lo_from_bytea(0, 'hello'), lo_from_bytea(0, '');
    alter table orders owner to app; grant select on orders to ro; comment on table orders is 'it''s'";

/// A server with a database `shop` that has one of everything.
fn shop() -> Server {
    let server = Server::start();
    for sql in [
        "create role app login password 'secret-of-app' connection limit 9",
        "create role ro nologin",
        "grant ro to app with admin option",
        "comment on role app is 'the; app'",
        "alter role app set statement_timeout = '7s'",
        "create database shop owner app connection limit 50",
    ] {
        server.sql("postgres", sql);
    }
    server.sql("shop", SHOP);
    for sql in [
        "revoke all on database shop from public",
        "grant connect on database shop to ro with grant option",
        "set session authorization ro; grant connect on database shop to pg_monitor",
        "alter database shop set search_path = \"$user\", public, \"Sch.ema\"",
        "alter database shop set \"app.key\" = 'it''s=x'",
        "alter role ro in database shop set work_mem = '5MB'",
        "comment on database shop is 'the shop'",
    ] {
        server.sql("postgres", sql);
    }
    server
}

fn databases(server: &Server) -> Vec<String> {
    let all = server.sql(
        "postgres",
        "select datname || case when datallowconn then '' else ' closed' end from pg_database where datname ~ 'shop' order by 1",
    );
    all.lines().map(str::to_owned).collect()
}

/// What a restore must bring back of a database beside its rows.
fn properties(server: &Server) -> String {
    server.sql(
        "postgres",
        "select to_jsonb(d) - 'oid' - 'datfrozenxid' - 'datminmxid' - 'datacl' - 'datdba', pg_get_userbyid(d.datdba),
           (select jsonb_agg(x order by x::text) from (select pg_get_userbyid(grantor) g, grantee::regrole::text, privilege_type, is_grantable
              from aclexplode(d.datacl)) x),
           (select jsonb_agg(jsonb_build_array(setrole::regrole::text, setconfig) order by setrole::regrole::text) from pg_db_role_setting where setdatabase = d.oid),
           shobj_description(d.oid, 'pg_database')
         from pg_database d where datname = 'shop'",
    )
}

fn content(server: &Server, database: &str) -> String {
    server.sql(
        database,
        "select (select md5(string_agg(o::text, ',' order by id)) from public.orders o), (select md5(string_agg(t::text, ',' order by t.t)) from \"Sch.ema\".\"T x\" t),
           (select count(*) from public.zero), (select last_value from public.orders_id_seq), (select count(*) from pg_largeobject_metadata),
           (select string_agg(extname || extversion, ',' order by extname) from pg_extension), (select * from public.mv),
           (select relowner::regrole::text || relacl::text from pg_class where relname = 'orders'), obj_description('public.orders'::regclass)",
    )
}

#[tokio::test]
async fn a_round_trip_brings_everything_back_and_can_be_undone_and_finished() {
    let server = shop();
    let (properties_before, content_before) = (properties(&server), content(&server, "shop"));
    let set = Set::of(server.named(&["shop"])).await;
    let loader = PostgresLoader::new(server.settings());
    let (context, journal) = (context("restore"), TestJournal::default());

    // Damage, and someone who keeps a connection open.
    server.sql("shop", "drop table empty; update orders set note = 'bad'; create table later (a int)");
    let mut busy = server.sql_in_background("shop", "select pg_sleep(600)");
    let since = Instant::now();
    // Those of the backup are closed by tasks of this test's one thread: it must not be held meanwhile.
    let connected = "select coalesce(string_agg(application_name, ','), 'nobody') from pg_stat_activity where datname = 'shop' and usesysid is not null";
    loop {
        let who = server.sql("postgres", connected);
        if who == "psql" {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "connected: {who}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let plan = loader.plan(&set.request, &context).await.unwrap();
    assert_eq!(plan.refusals, Vec::<String>::new());
    assert!(plan.target.starts_with("PostgreSQL 1"), "{plan:?}");
    let touched = plan.touches.join("\n");
    assert!(
        touched.contains("database shop: ") && touched.contains("kept as shop_drctl_old_7k3q, 1 connections will be ended"),
        "{touched}"
    );
    assert_eq!(databases(&server), ["shop"], "a plan changes nothing");

    set.load(&loader, &journal, &context).await.unwrap();
    assert_eq!(databases(&server), ["shop", "shop_drctl_7k3q"]);
    assert_eq!(server.sql("shop", "select note from orders where id = 1"), "bad", "the live database is untouched");
    set.counts_are_equal(&loader, &journal).await;

    loader.switch(&set.request, &journal, &context).await.unwrap();
    busy.wait().unwrap();
    assert_eq!(databases(&server), ["shop", "shop_drctl_old_7k3q closed"]);
    assert_eq!((properties(&server), content(&server, "shop")), (properties_before.clone(), content_before.clone()));
    set.counts_are_equal(&loader, &journal).await;
    assert!(loader.kept(&journal, &context).await.unwrap()[0].starts_with("database shop_drctl_old_7k3q: "));
    loader.switch(&set.request, &journal, &context).await.unwrap();
    loader.discard(&journal, &context).await.unwrap();
    assert_eq!(databases(&server), ["shop", "shop_drctl_old_7k3q closed"], "both may be repeated");

    server.sql("shop", "insert into orders (note) values ('written since')");
    let lines = loader.undo(&journal.reopened(), &context).await.unwrap();
    assert_eq!(lines, ["database shop is again what it was before the restore; what was written since is kept as shop_drctl_undone_7k3q"]);
    assert_eq!(databases(&server), ["shop", "shop_drctl_undone_7k3q closed"]);
    assert_eq!(server.sql("shop", "select note from orders where id = 1"), "bad");
    assert_eq!(properties(&server), properties_before, "the old database has its properties still");

    // The journal of the undo is the one that was reopened: this one still says switched, and what is there decides.
    let lines = loader.undo(&journal, &context).await.unwrap();
    assert_eq!((lines.len(), databases(&server).len()), (1, 2), "it may be repeated");
    let lines = loader.finish(&journal, &context).await.unwrap();
    assert!(lines[0].starts_with("dropped database shop_drctl_undone_7k3q, "), "{lines:?}");
    assert_eq!(databases(&server), ["shop"]);
    assert!(loader.finish(&journal, &context).await.unwrap().is_empty());
    assert!(loader.undo(&journal, &context).await.is_err());
    assert!(!server.log().contains("canary") && !journal.text().contains("canary"));
}

#[tokio::test]
async fn finish_drops_the_old_database_only() {
    let server = shop();
    let set = Set::of(server.named(&["shop"])).await;
    let (loader, journal) = (PostgresLoader::new(server.settings()), TestJournal::default());
    set.load_and_switch(&loader, &journal).await;
    let before = content(&server, "shop");
    let lines = loader.finish(&journal, &context("finish")).await.unwrap();
    assert!(lines[0].starts_with("dropped database shop_drctl_old_7k3q, "), "{lines:?}");
    assert_eq!((databases(&server), content(&server, "shop")), (vec!["shop".to_owned()], before));
}

#[tokio::test]
async fn a_whole_server_comes_back_on_another_one() {
    let (from, to) = (shop(), Server::start());
    from.sql("postgres", "create table in_postgres as select 1 a");
    let mut set = Set::of(from.settings()).await;
    to.sql("postgres", "create role ro connection limit 3");
    let url = format!("postgres://postgres:{}@127.0.0.1:{}/", url_encode(PASSWORD), to.port);
    set.request.target = Some(url);
    // The loader's own settings are those of the first server.
    let (loader, journal) = (PostgresLoader::new(from.settings()), TestJournal::default());
    let (context, heard) = listening("restore");
    let plan = loader.plan(&set.request, &context).await.unwrap();
    assert_eq!(plan.refusals, Vec::<String>::new());
    assert!(plan.warnings.iter().any(|w| w.starts_with("Another server: the set comes from server ")), "{plan:?}");
    assert!(plan.touches.iter().any(|t| t == "roles that are missing and own something: app"), "{plan:?}");
    set.load(&loader, &journal, &context).await.unwrap();
    set.counts_are_equal(&PostgresLoader::new(to.settings()), &journal).await;
    loader.switch(&set.request, &TestJournal::default(), &context).await.unwrap();
    // Later steps find the target in the journal and the password in the settings of the same server.
    let later = PostgresLoader::new(to.settings());
    later.switch(&set.request, &journal, &context).await.unwrap();
    assert_eq!((properties(&to), content(&to, "shop")), (properties(&from), content(&from, "shop")));
    assert_eq!(to.sql("postgres", "select a from in_postgres"), "1", "the maintenance database itself was replaced");
    let roles = "select r.rolname, rolcanlogin, rolsuper, rolconnlimit, (select setconfig from pg_db_role_setting where setrole = r.oid and setdatabase = 0), shobj_description(r.oid, 'pg_authid'), rolpassword
        from pg_authid r where rolname = 'app'";
    assert_eq!(to.sql("postgres", roles), from.sql("postgres", roles));
    assert_eq!(to.sql("postgres", "select rolconnlimit from pg_roles where rolname = 'ro'"), "3", "a role that exists stays as it is");
    let members = "select admin_option from pg_auth_members m where roleid = 'ro'::regrole and member = 'app'::regrole";
    assert_eq!(to.sql("postgres", members), "t");
    assert!(heard.text().contains("created roles app"), "{}", heard.text());
    assert!(!journal.text().contains("canary") && !heard.text().contains("SCRAM"));
    later.undo(&journal, &context).await.unwrap();
    assert_eq!(databases(&to), ["shop_drctl_undone_7k3q closed"]);
}

fn url_encode(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// Runs `step` with a journal that dies at every note in turn; `check` looks at what is left each time.
#[tokio::test]
async fn f84_a_crash_between_any_two_steps_of_a_switch_is_repaired_by_switch_undo_or_discard() {
    let server = shop();
    let set = Set::of(server.named(&["shop"])).await;
    let loader = PostgresLoader::new(server.settings());
    let context = context("restore");
    server.sql("shop", "update orders set note = 'bad'");
    let mut deaths = 0;
    for note in 0.. {
        let journal = TestJournal::default();
        set.load(&loader, &journal, &context).await.unwrap();
        let dying = journal.dying_at(note);
        let died = loader.switch(&set.request, &dying, &context).await.is_err();
        let left = databases(&server);
        let old_lives = left.contains(&"shop_drctl_7k3q".to_owned());
        let want: &[&str] = if old_lives { &["shop", "shop_drctl_7k3q"] } else { &["shop", "shop_drctl_old_7k3q closed"] };
        assert_eq!(left, want, "died at note {note}");
        // Another process goes on, each time in another way.
        match note % 3 {
            0 => {
                let journal = dying.reopened();
                loader.switch(&set.request, &journal, &context).await.unwrap();
                assert_eq!(databases(&server), ["shop", "shop_drctl_old_7k3q closed"]);
                loader.undo(&journal, &context).await.unwrap();
                loader.finish(&journal, &context).await.unwrap();
            }
            1 => {
                let journal = dying.reopened();
                loader.undo(&journal, &context).await.unwrap();
                loader.discard(&journal, &context).await.unwrap();
                loader.finish(&journal, &context).await.unwrap();
            }
            _ => {
                let journal = dying.reopened();
                loader.discard(&journal, &context).await.unwrap();
                loader.undo(&journal, &context).await.unwrap();
                loader.finish(&journal, &context).await.unwrap();
            }
        }
        assert_eq!(databases(&server), ["shop"], "died at note {note}");
        assert_eq!(server.sql("shop", "select note from orders where id = 1"), "bad");
        if !died {
            assert_eq!(dying.notes(), note);
            break;
        }
        deaths += 1;
    }
    assert!(deaths >= 2, "{deaths}");
}

#[tokio::test]
async fn f84_a_crash_in_mid_load_or_undo_is_repaired() {
    let server = shop();
    let set = Set::of(server.named(&["shop"])).await;
    let loader = PostgresLoader::new(server.settings());
    let context = context("restore");
    for note in 0..20 {
        let journal = TestJournal::default().dying_at(note);
        let died = set.load(&loader, &journal, &context).await.is_err();
        let journal = journal.reopened();
        if note % 2 == 0 {
            set.load(&loader, &journal, &context).await.unwrap();
        }
        loader.discard(&journal, &context).await.unwrap();
        assert_eq!(databases(&server), ["shop"], "died at note {note}");
        if !died {
            break;
        }
    }
    for note in 0..20 {
        let journal = TestJournal::default();
        set.load_and_switch(&loader, &journal).await;
        let dying = journal.dying_at(note);
        let died = loader.undo(&dying, &context).await.is_err();
        let journal = dying.reopened();
        assert_eq!(loader.undo(&journal, &context).await.unwrap().is_empty(), !died, "died at note {note}");
        assert_eq!(databases(&server), ["shop", "shop_drctl_undone_7k3q closed"]);
        loader.finish(&journal, &context).await.unwrap();
        if !died {
            break;
        }
    }
}

#[tokio::test]
async fn f84_a_stream_that_breaks_off_leaves_nothing() {
    let server = shop();
    let set = Set::of(server.named(&["shop"])).await;
    let loader = PostgresLoader::new(server.settings());
    let (whole, context) = (set.dumped[1].bytes.len(), context("restore"));
    for keep in [0, 100, whole / 2, whole - 1, whole] {
        let journal = TestJournal::default();
        let error = set.load_cut(&loader, &journal, &context, Some(keep)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{keep}: {error}");
        assert_eq!(databases(&server), ["shop"], "cut at {keep}");
    }
}

#[tokio::test]
async fn a_failing_pg_restore_is_said_and_leaves_nothing() {
    let server = shop();
    let set = Set::of(server.named(&["shop"])).await;
    let script = format!(
        "[ \"$1\" = --version ] && exec {} --version; head -c 1000 >/dev/null; echo 'pg_restore: error: no luck' >&2; exit 1",
        bin().join("pg_restore").display()
    );
    let fake = fake_tools(&[("pg_restore", &script)]);
    let loader = PostgresLoader::new(PostgresSettings { client_folders: vec![fake.path().to_owned()], ..server.settings() });
    let error = set.load(&loader, &TestJournal::default(), &context("restore")).await.unwrap_err();
    assert!(
        error.to_string().contains("pg_restore (pre-data) into shop_drctl_7k3q exited 1") && error.to_string().contains("no luck"),
        "{error}"
    );
    assert_eq!(databases(&server), ["shop"]);
    // One that stops early with success must not be believed either.
    let script =
        format!("[ \"$1\" = --version ] && exec {} --version; head -c 1000 >/dev/null; exit 0", bin().join("pg_restore").display());
    let fake = fake_tools(&[("pg_restore", &script)]);
    let loader = PostgresLoader::new(PostgresSettings { client_folders: vec![fake.path().to_owned()], ..server.settings() });
    let journal = TestJournal::default();
    let loaded = set.load(&loader, &journal, &context("restore")).await;
    if loaded.is_ok() {
        // The pipe took all of the small archive: then the count finds it.
        let error = loader.count(&set.request, &set.request.artifacts[1], &journal, &context("count")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Verify);
        loader.discard(&journal, &context("restore")).await.unwrap();
    }
    assert_eq!(databases(&server), ["shop"]);
}

#[tokio::test]
async fn in_place_replaces_the_database_without_keeping_it() {
    let server = shop();
    let (properties_before, content_before) = (properties(&server), content(&server, "shop"));
    let mut set = Set::of(server.named(&["shop"])).await;
    set.request.in_place = true;
    server.sql("shop", "update orders set note = 'bad'");
    let (loader, journal, context) = (PostgresLoader::new(server.settings()), TestJournal::default(), context("restore"));
    let plan = loader.plan(&set.request, &context).await.unwrap();
    assert!(plan.touches.iter().any(|t| t.starts_with("database shop: ") && t.contains("dropped before the load")), "{plan:?}");
    set.load_and_switch(&loader, &journal).await;
    set.counts_are_equal(&loader, &journal).await;
    assert_eq!(
        (databases(&server), properties(&server), content(&server, "shop")),
        (vec!["shop".to_owned()], properties_before, content_before)
    );
    assert!(loader.undo(&journal, &context).await.unwrap_err().hint_text().unwrap().contains("safety set"));
    assert!(loader.finish(&journal, &context).await.unwrap().is_empty());
    // A load that breaks off leaves no half database under the live name, but what it has come to: nothing else is left.
    let again = TestJournal::default();
    set.load_cut(&loader, &again, &context, Some(5000)).await.unwrap_err();
    assert_eq!(databases(&server), ["shop_drctl_7k3q"]);
    loader.discard(&again, &context).await.unwrap();
    assert_eq!(databases(&server), ["shop_drctl_7k3q"]);
    assert!(loader.kept(&again, &context).await.unwrap()[0].starts_with("database shop_drctl_7k3q: "));
    assert_eq!(set.load(&loader, &again, &context).await.unwrap(), []);
    set.load_and_switch(&loader, &again).await;
    assert_eq!(databases(&server), ["shop"]);
}

#[tokio::test]
async fn f83_another_server_with_data_under_the_same_name_is_refused() {
    let (from, to) = (shop(), shop());
    let mut set = Set::of(from.named(&["shop"])).await;
    let loader = PostgresLoader::new(to.settings());
    let plan = loader.plan(&set.request, &context("restore")).await.unwrap();
    assert_eq!(plan.refusals.len(), 1, "{plan:?}");
    assert!(plan.refusals[0].contains("and it has shop already") && plan.refusals[0].contains("--target postgres://postgres@127.0.0.1:"));
    // An empty server under the old address, as after a loss, is only said.
    to.sql("postgres", "drop database shop with (force)");
    let plan = loader.plan(&set.request, &context("restore")).await.unwrap();
    assert_eq!(plan.refusals, Vec::<String>::new());
    assert!(plan.warnings.iter().any(|w| w.starts_with("Another server: ")));
    // What else refuses: all of it at once.
    set.request.details["server"]["version"] = "99.1".into();
    let extension = serde_json::json!({ "name": "timescaledb", "version": "2.11", "schema": "public" });
    set.request.details["databases"][0]["extensions"].as_array_mut().unwrap().push(extension);
    set.request.details["databases"][0]["owner"] = "nobody_known".into();
    set.request.artifacts.remove(0);
    to.sql("postgres", "create database shop_drctl_7k3q");
    let plan = loader.plan(&set.request, &context("restore")).await.unwrap();
    for want in
        ["install 99 or later", "needs extension timescaledb 2.11", "roles nobody_known are missing", "shop_drctl_7k3q exists already"]
    {
        assert!(plan.refusals.iter().any(|r| r.contains(want)), "{want}: {plan:?}");
    }
    // And a load does not take over a database that is not its own.
    assert!(set.load(&loader, &TestJournal::default(), &context("restore")).await.is_err());
    assert!(databases(&to).contains(&"shop_drctl_7k3q".to_owned()));
}

#[tokio::test]
async fn a_switch_that_cannot_be_done_leaves_the_live_database_open() {
    let server = Server::start_with("max_prepared_transactions = 5");
    server.sql("postgres", "create database shop");
    server.sql("shop", "create table t (a int)");
    let set = Set::of(server.named(&["shop"])).await;
    let (loader, journal, context) = (PostgresLoader::new(server.settings()), TestJournal::default(), context("restore"));
    set.load(&loader, &journal, &context).await.unwrap();
    server.sql("shop", "begin; insert into t values (1); prepare transaction 'held'");
    let error = loader.switch(&set.request, &journal, &context).await.unwrap_err();
    assert!(error.to_string().contains("prepared transactions hold it"), "{error}");
    assert_eq!(databases(&server), ["shop", "shop_drctl_7k3q"], "both open, nothing renamed");
    server.sql("shop", "rollback prepared 'held'");
    loader.switch(&set.request, &journal, &context).await.unwrap();
    assert_eq!(databases(&server), ["shop", "shop_drctl_old_7k3q closed"]);
}

#[tokio::test]
async fn f67_a_database_of_any_name_comes_back() {
    let server = Server::start();
    let names = ["qu\"ote it's", "-rf x=y", "new\nline \\ %", "globals"];
    for name in names {
        server.sql("postgres", &format!("create database \"{}\"", name.replace('"', "\"\"")));
        server.sql(name, "create table \"T. \"\"x\" (a int); insert into \"T. \"\"x\" values (1), (2)");
    }
    let set = Set::of(server.named(&names)).await;
    for name in names {
        server.sql(name, "drop table \"T. \"\"x\"");
    }
    let (loader, journal) = (PostgresLoader::new(server.settings()), TestJournal::default());
    set.load_and_switch(&loader, &journal).await;
    set.counts_are_equal(&loader, &journal).await;
    for name in names {
        assert_eq!(server.sql(name, "select count(*) from \"T. \"\"x\""), "2", "{name}");
    }
    assert_eq!(loader.finish(&journal, &context("finish")).await.unwrap().len(), names.len());
}

/// Databases whose name begins so.
fn named(server: &Server, name: &str) -> Vec<String> {
    let query = format!(
        "select datname || case when datallowconn then '' else ' closed' end from pg_database where datname ~ '^{name}(_drctl_|$)' order by 1"
    );
    server.sql("postgres", &query).lines().map(str::to_owned).collect()
}

/// A set of one small database of the shared server, without the globals.
async fn small(server: &Server, name: &str, sql: &str) -> Set {
    server.sql("postgres", &format!("create database {name}"));
    server.sql(name, "create table t (a int); insert into t values (1)");
    server.sql(name, sql);
    without_globals(Set::of(server.named(&[name])).await)
}

fn without_globals(mut set: Set) -> Set {
    set.dumped.remove(0);
    set.request.artifacts.remove(0);
    set
}

/// In place is for want of room beside; it needs some too, and nothing may be dropped for what would not fit.
#[tokio::test]
async fn f112_in_place_is_refused_where_what_it_frees_is_not_enough() {
    let server = shared();
    let set = small(&server, "roomy", "").await;
    let loader = PostgresLoader::new(server.settings());
    let plan = async |size: u64, in_place: bool, grows: &[(&str, u64)]| {
        let mut request = LoadRequest { in_place, ..set.request.clone() };
        request.grows = grows.iter().map(|(folder, bytes)| Growth { folder: folder.into(), bytes: *bytes }).collect();
        let databases = request.details["databases"].as_array_mut().unwrap();
        let recorded = databases.iter_mut().find(|d| d["name"] == "roomy").unwrap();
        assert!(recorded["size_bytes"].as_u64().unwrap() > 0);
        recorded["size_bytes"] = size.into();
        loader.plan(&request, &context("plan")).await.unwrap().refusals
    };
    let (small, huge) = (1 << 20, 1 << 60);
    let temp = std::env::temp_dir().display().to_string();
    assert_eq!(plan(small, true, &[(&temp, small)]).await, Vec::<String>::new());
    let refused = plan(huge, true, &[]).await;
    assert!(refused.len() == 1 && refused[0].contains("what is live gives back") && refused[0].contains("--target"), "{refused:?}");
    let refused = plan(huge, false, &[]).await;
    assert!(refused.len() == 1 && refused[0].contains("in place they would not fit either"), "{refused:?}");
    // A safety set on the same disk takes its part first; elsewhere it does not.
    let refused = plan(small, true, &[(&temp, huge)]).await;
    assert!(refused.len() == 1 && refused[0].contains("the safety set, which goes to that disk first"), "{refused:?}");
    assert_eq!(plan(small, true, &[("/proc", huge)]).await, Vec::<String>::new());
}

#[tokio::test]
async fn in_place_keeps_the_live_database_when_the_new_one_cannot_be_made() {
    let server = shared();
    let mut set = small(&server, "inplace", "").await;
    set.request.in_place = true;
    set.request.details["databases"][0]["collate"] = serde_json::json!("de_XX.UTF-8");
    let (loader, journal, context) = (PostgresLoader::new(server.settings()), TestJournal::default(), context("restore"));
    let plan = loader.plan(&set.request, &context).await.unwrap();
    assert!(plan.refusals.len() == 1 && plan.refusals[0].contains("needs locale de_XX.UTF-8"), "{plan:?}");
    set.load(&loader, &journal, &context).await.unwrap_err();
    loader.discard(&journal, &context).await.unwrap();
    assert_eq!(named(&server, "inplace"), ["inplace"]);
    assert_eq!(server.sql("inplace", "select a from t"), "1");
    // Whatever the load died of, another try brings the database.
    set.request.details["databases"][0]["collate"] = serde_json::json!("C.UTF-8");
    assert!(loader.plan(&set.request, &context).await.unwrap().refusals.is_empty());
    for note in 0..20 {
        let dying = TestJournal::default().dying_at(note);
        let died = set.load(&loader, &dying, &context).await.is_err();
        let again = dying.reopened();
        let dying = again.dying_at(2);
        let _ = set.load(&loader, &dying, &context).await;
        let again = dying.reopened();
        set.load(&loader, &again, &context).await.unwrap_or_else(|e| panic!("died at note {note}: {e}"));
        assert_eq!((named(&server, "inplace"), server.sql("inplace", "select a from t").as_str()), (vec!["inplace".to_owned()], "1"));
        if !died {
            break;
        }
    }
}

#[tokio::test]
async fn an_undo_or_a_load_in_place_that_cannot_be_done_leaves_the_live_database_open() {
    let server = Server::start_with("max_prepared_transactions = 5");
    server.sql("postgres", "create database shop");
    server.sql("shop", "create table t (a int)");
    let mut set = Set::of(server.named(&["shop"])).await;
    let (loader, journal, context) = (PostgresLoader::new(server.settings()), TestJournal::default(), context("restore"));
    set.load_and_switch(&loader, &journal).await;
    server.sql("shop", "begin; insert into t values (1); prepare transaction 'held'");
    let error = loader.undo(&journal, &context).await.unwrap_err();
    assert!(error.to_string().contains("prepared transactions hold it"), "{error}");
    assert_eq!(databases(&server), ["shop", "shop_drctl_old_7k3q closed"], "open, nothing renamed");
    set.request.in_place = true;
    set.request.restore = "8k3q".into();
    let second = TestJournal::default();
    set.load(&loader, &second, &context).await.unwrap_err();
    loader.discard(&second, &context).await.unwrap();
    assert_eq!(databases(&server), ["shop", "shop_drctl_old_7k3q closed"], "open, not dropped");
    server.sql("shop", "rollback prepared 'held'");
    // Both databases of one undo are opened again when one of them cannot be closed, and a cancel is such a reason.
    context.cancel.cancel();
    assert_eq!(loader.undo(&journal, &context).await.unwrap_err().kind(), Kind::Interrupted);
    assert_eq!(databases(&server), ["shop", "shop_drctl_old_7k3q closed"]);
    loader.undo(&journal, &support::context("restore")).await.unwrap();
    assert_eq!(databases(&server), ["shop", "shop_drctl_undone_7k3q closed"]);
}

#[tokio::test]
async fn an_undo_out_of_order_or_at_another_server_is_refused() {
    let server = shared();
    let mut set = small(&server, "stacked", "").await;
    server.sql("stacked", "insert into t values (99)");
    let loader = PostgresLoader::new(server.settings());
    let (first, second, context) = (TestJournal::default(), TestJournal::default(), context("undo"));
    set.load_and_switch(&loader, &first).await;
    set.request.restore = "8k3q".into();
    set.load_and_switch(&loader, &second).await;
    let before = named(&server, "stacked");
    let error = loader.undo(&first, &context).await.unwrap_err();
    assert!(error.to_string().contains("is now called stacked_drctl_old_8k3q"), "{error}");
    assert!(error.hint_text().unwrap().contains("undo that one first"));
    assert_eq!(named(&server, "stacked"), before);
    let other = Server::start();
    other.sql("postgres", "create database stacked");
    let error = PostgresLoader::new(other.settings()).undo(&second, &context).await.unwrap_err();
    assert!(error.to_string().contains("the restore went to server "), "{error}");
    // In order both can be undone.
    assert_eq!(loader.undo(&second, &context).await.unwrap().len(), 1);
    assert_eq!(loader.undo(&first, &context).await.unwrap().len(), 1);
    assert_eq!(server.sql("stacked", "select max(a) from t"), "99");
    assert_eq!(loader.finish(&second, &context).await.unwrap().len(), 1);
    // Dropped by someone else, with what was kept: said, not taken for done.
    server.sql("postgres", "drop database stacked_drctl_undone_7k3q with (force)");
    let journal = TestJournal::default();
    set.load_and_switch(&loader, &journal).await;
    server.sql("postgres", "alter database stacked_drctl_old_8k3q rename to stacked_by_hand");
    server.sql("postgres", "drop database stacked with (force)");
    assert!(loader.undo(&journal, &context).await.unwrap_err().to_string().contains("not on this server any more"));
}

/// Whatever became of the live database: what is kept may be its last copy.
#[tokio::test]
async fn f101_the_last_copy_is_not_dropped_and_an_undo_puts_it_back() {
    let server = shared();
    let set = small(&server, "lastly", "").await;
    server.sql("lastly", "insert into t values (99)");
    let (loader, context) = (PostgresLoader::new(server.settings()), context("finish"));
    for away in ["drop database lastly with (force)", "alter database lastly rename to lastly_by_hand"] {
        let journal = TestJournal::default();
        set.load_and_switch(&loader, &journal).await;
        server.sql("postgres", away);
        let kept = loader.kept(&journal, &context).await.unwrap();
        assert!(kept[0].contains("NOTHING is called lastly"), "{kept:?}");
        let error = loader.finish(&journal, &context).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Preflight);
        assert!(error.to_string().contains("lastly_drctl_old_7k3q would be dropped: it may be the last copy"), "{error}");
        assert!(error.hint_text().unwrap().contains("drctl restore --undo 7k3q"), "{error:?}");
        // The way on that it names.
        let done = loader.undo(&journal, &context).await.unwrap();
        assert!(done[0].contains("is again what it was before"), "{done:?}");
        assert_eq!(server.sql("lastly", "select max(a) from t"), "99", "{away}");
        // What was live since is not what an undo kept: nothing is dropped.
        let done = loader.finish(&journal, &context).await.unwrap();
        assert!(done.iter().all(|line| line.contains("is called lastly_by_hand by now: it stays")), "{done:?}");
    }
    server.sql("postgres", "drop database lastly_by_hand");
    // Undone, and then the live one is lost: what was live since the restore is all there is.
    let journal = TestJournal::default();
    set.load_and_switch(&loader, &journal).await;
    loader.undo(&journal, &context).await.unwrap();
    server.sql("postgres", "drop database lastly with (force)");
    let error = loader.finish(&journal, &context).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("\"lastly_drctl_undone_7k3q\" RENAME TO \"lastly\""), "{error:?}");
    server.sql("postgres", "create database lastly");
    assert_eq!(loader.finish(&journal, &context).await.unwrap().len(), 1);
    // Another one under the name is told before anything is dropped, and nothing puts the old one over it.
    let journal = TestJournal::default();
    set.load_and_switch(&loader, &journal).await;
    server.sql("postgres", "drop database lastly with (force)");
    server.sql("postgres", "create database lastly");
    let kept = loader.kept(&journal, &context).await.unwrap();
    assert!(kept[0].contains("is not what this restore made"), "{kept:?}");
    let error = loader.undo(&journal, &context).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("rename away what is called lastly now"), "{error:?}");
    server.sql("postgres", "drop database lastly");
    loader.undo(&journal, &context).await.unwrap();
}

/// What was not there before the restore, and was undone, is all there is of it.
#[tokio::test]
async fn f111_the_undone_copy_of_what_was_not_there_before_is_not_dropped() {
    let server = shared();
    let set = small(&server, "firstly", "").await;
    let (loader, context) = (PostgresLoader::new(server.settings()), context("finish"));
    server.sql("postgres", "drop database firstly with (force)");
    // Taken back by hand, dropped by hand, or another made under the name: then the end may come.
    let kept = "firstly_drctl_undone_7k3q";
    for (way, lines) in [
        (vec![format!("alter database {kept} rename to firstly"), "alter database firstly allow_connections true".into()], 1),
        (vec![format!("drop database {kept} with (force)")], 0),
        (vec!["create database firstly".to_owned()], 1),
    ] {
        let journal = TestJournal::default();
        set.load_and_switch(&loader, &journal).await;
        loader.undo(&journal, &context).await.unwrap();
        assert_eq!(named(&server, "firstly"), [format!("{kept} closed")]);
        let told = loader.kept(&journal, &context).await.unwrap();
        assert!(told[0].contains("NOTHING is called firstly"), "{told:?}");
        let error = loader.finish(&journal, &context).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Preflight);
        assert!(error.to_string().contains(&format!("{kept} would be dropped: it may be the last copy")), "{error}");
        let hint = error.hint_text().unwrap();
        assert!(hint.contains(&format!("ALTER DATABASE \"{kept}\" RENAME TO \"firstly\"")) && hint.contains("restore it again"), "{hint}");
        assert!(hint.contains(&format!("DROP DATABASE \"{kept}\"")), "{hint}");
        assert_eq!(named(&server, "firstly"), [format!("{kept} closed")]);
        way.iter().for_each(|sql| drop(server.sql("postgres", sql)));
        assert_eq!(loader.finish(&journal, &context).await.unwrap().len(), lines, "{way:?}");
        server.sql("postgres", "drop database if exists firstly with (force)");
    }
}

/// One leftover that cannot be dropped keeps no other, and what somebody else dropped or renamed is nobody's to clean up.
#[tokio::test]
async fn f99_each_leftover_stands_for_itself() {
    let server = Server::start_with("max_prepared_transactions=5");
    for name in ["one", "two", "three", "four"] {
        server.sql("postgres", &format!("create database {name}"));
        server.sql(name, "create table t (a int); insert into t values (1)");
    }
    let set = Set::of(server.settings()).await;
    let (loader, journal, context) = (PostgresLoader::new(server.settings()), TestJournal::default(), context("clean"));
    set.load(&loader, &journal, &context).await.unwrap();
    server.sql("one_drctl_7k3q", "begin; insert into t values (2); prepare transaction 'held'");
    server.sql("postgres", "drop database two_drctl_7k3q");
    server.sql("postgres", "create database two_drctl_7k3q template template0");
    server.sql("postgres", "alter database three_drctl_7k3q rename to three_by_hand");
    let error = loader.discard(&journal, &context).await.unwrap_err();
    assert!(error.to_string().contains("1 prepared transactions hold it"), "{error}");
    let left = |like: &str| {
        server.sql("postgres", &format!("select string_agg(datname, ' ' order by datname) from pg_database where datname ~ '{like}'"))
    };
    assert_eq!(left("drctl|hand"), "one_drctl_7k3q three_by_hand two_drctl_7k3q");
    server.sql("one_drctl_7k3q", "rollback prepared 'held'");
    loader.discard(&journal, &context).await.unwrap();
    assert_eq!(left("drctl|hand"), "three_by_hand two_drctl_7k3q");
}

#[tokio::test]
async fn a_template_and_a_database_with_a_subscription_come_back_and_can_be_finished() {
    let server = shared();
    let subscription = "create subscription sub connection 'host=127.0.0.1 port=1 dbname=x' publication p with (connect = false)";
    let mut set = small(&server, "subscribed", subscription).await;
    server.sql("postgres", "alter database subscribed is_template true");
    set.request.details["databases"][0]["template"] = true.into();
    let (loader, journal) = (PostgresLoader::new(server.settings()), TestJournal::default());
    let (context, heard) = listening("restore");
    set.load_and_switch(&loader, &journal).await;
    let lines = loader.finish(&journal, &context).await.unwrap();
    assert!(lines[0].starts_with("dropped database subscribed_drctl_old_7k3q, "), "{lines:?}");
    assert_eq!(named(&server, "subscribed"), ["subscribed"]);
    assert_eq!(server.sql("postgres", "select datistemplate from pg_database where datname = 'subscribed'"), "t");
    assert_eq!(server.sql("subscribed", "select subname from pg_subscription"), "sub");
    assert!(heard.text().contains("left their replication slots at their publishers: sub"), "{}", heard.text());
    // One that was never switched in goes too.
    let journal = TestJournal::default();
    set.load(&loader, &journal, &context).await.unwrap();
    loader.discard(&journal, &context).await.unwrap();
    assert_eq!(named(&server, "subscribed"), ["subscribed"]);
    set.request.in_place = true;
    let plan = loader.plan(&set.request, &context).await.unwrap();
    assert!(plan.refusals.len() == 1 && plan.refusals[0].contains("has subscriptions (sub)"), "{plan:?}");
    server.sql("subscribed", "alter subscription sub set (slot_name = none); drop subscription sub");
}

#[tokio::test]
async fn a_role_that_may_only_create_databases_can_restore_its_own() {
    let server = shared();
    server.sql("postgres", "create role lim login createdb password 'limited'");
    let set = small(&server, "limited", "alter table t owner to lim").await;
    server.sql("postgres", "alter database limited owner to lim");
    let mut set = Set { request: LoadRequest { details: Set::of(server.named(&["limited"])).await.request.details, ..set.request }, ..set };
    let settings = PostgresSettings { user: "lim".into(), password: Some(drctl::model::Secret::new("limited")), ..server.settings() };
    let (loader, journal, context) = (PostgresLoader::new(settings), TestJournal::default(), context("restore"));
    assert_eq!(loader.plan(&set.request, &context).await.unwrap().refusals, Vec::<String>::new());
    set.load_and_switch(&loader, &journal).await;
    assert_eq!(named(&server, "limited"), ["limited", "limited_drctl_old_7k3q closed"]);
    loader.finish(&journal, &context).await.unwrap();
    assert_eq!(named(&server, "limited"), ["limited"]);
    server.sql("postgres", "alter role postgres set allow_in_place_tablespaces = on");
    server.sql("postgres", "create tablespace fast location ''");
    set.request.details["databases"][0]["tablespace"] = "fast".into();
    let plan = loader.plan(&set.request, &context).await.unwrap();
    assert!(plan.refusals.len() == 1 && plan.refusals[0].contains("GRANT CREATE ON TABLESPACE \"fast\" TO \"lim\""), "{plan:?}");
    server.sql("postgres", "grant create on tablespace fast to lim");
    assert_eq!(loader.plan(&set.request, &context).await.unwrap().refusals, Vec::<String>::new());
}

#[tokio::test]
async fn no_content_of_a_dump_shows_in_an_error() {
    let server = shared();
    let subscription =
        "create subscription sub connection 'host=127.0.0.1 port=1 dbname=x password=subsecret' publication p with (connect = false)";
    let mut set = small(&server, "telling", subscription).await;
    server.sql("postgres", "create role telling login createdb password 'telling'; alter database telling owner to telling");
    set.request.details["databases"][0]["owner"] = "telling".into();
    server.sql("telling", "alter table t owner to telling; alter subscription sub set (slot_name = none); drop subscription sub");
    let settings = PostgresSettings { user: "telling".into(), password: Some(drctl::model::Secret::new("telling")), ..server.settings() };
    let (loader, context) = (PostgresLoader::new(settings), context("restore"));
    let journal = TestJournal::default();
    let problems = set.load(&loader, &journal, &context).await.unwrap();
    assert!(problems.iter().any(|p| p.object == "SUBSCRIPTION sub" && p.statement == "CREATE SUBSCRIPTION sub …"), "{problems:?}");
    assert!(!format!("{problems:?}").contains("subsecret"), "{problems:?}");
    loader.discard(&journal, &context).await.unwrap();
    assert_eq!(named(&server, "telling"), ["telling"]);
    // What cannot be loaded under its name is refused by the plan and by the load.
    let loader = PostgresLoader::new(server.settings());
    let long = "x".repeat(64);
    set.request.target = Some(format!("postgres://postgres@127.0.0.1:{}/{long}", server.port));
    let plan = loader.plan(&set.request, &context).await.unwrap();
    assert!(plan.refusals.iter().any(|r| r.contains("has 64 bytes: PostgreSQL takes 63")), "{plan:?}");
    let error = set.load(&loader, &TestJournal::default(), &context).await.unwrap_err();
    assert!(error.kind() == Kind::Preflight && error.to_string().contains("has 64 bytes"), "{error}");
    set.request.target = None;
    assert_eq!(named(&server, "telling"), ["telling"]);
}

#[tokio::test]
async fn a_load_ends_with_its_limits_and_a_switch_with_its_run() {
    let server = shared();
    let set = small(&server, "slow", "").await;
    let script = format!("[ \"$1\" = --version ] && exec {} --version; exec sleep 600", bin().join("pg_restore").display());
    let fake = fake_tools(&[("pg_restore", &script)]);
    let hanging = PostgresSettings { client_folders: vec![fake.path().to_owned()], ..server.settings() };
    let short = Some(Duration::from_millis(500));
    let cases = [
        (PostgresSettings { load_idle_timeout: short, ..hanging.clone() }, "for 0.5 s"),
        (PostgresSettings { load_total_timeout: short, ..hanging }, "not done within 0.5 s"),
    ];
    for (settings, want) in cases {
        let error = set.load(&PostgresLoader::new(settings), &TestJournal::default(), &context("restore")).await.unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert_eq!(named(&server, "slow"), ["slow"]);
    }
    let (loader, journal, context) = (PostgresLoader::new(server.settings()), TestJournal::default(), context("restore"));
    set.load(&loader, &journal, &context).await.unwrap();
    context.cancel.cancel();
    assert_eq!(loader.switch(&set.request, &journal, &context).await.unwrap_err().kind(), Kind::Interrupted);
    assert_eq!(named(&server, "slow"), ["slow", "slow_drctl_7k3q"], "open, nothing renamed");
    loader.discard(&journal, &context).await.unwrap();
    assert_eq!(named(&server, "slow"), ["slow"], "a cancelled run still cleans up");
}

/// `cargo test --test postgres_load -- --ignored --nocapture`
#[tokio::test]
#[ignore = "takes a minute and prints times; a debug build's say little of a release's"]
async fn speed_of_a_load_against_pg_restore_of_a_file() {
    let server = Server::start_with("max_wal_size = '4GB'\nshared_buffers = '256MB'");
    server.sql("postgres", "create database big");
    server.sql(
        "big",
        "create table a as select i, md5(i::text) m, repeat('x', 200) t from generate_series(1, 2000000) i; create index on a (i)",
    );
    let since = Instant::now();
    let set = Set::of(server.named(&["big"])).await;
    println!("dump {:.2} s, {} MiB", since.elapsed().as_secs_f64(), set.dumped[1].bytes.len() >> 20);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    std::fs::write(&file, &set.dumped[1].bytes).unwrap();
    let loader = PostgresLoader::new(server.settings());
    for round in 0..3 {
        server.sql("postgres", "create database plain");
        server.sql("postgres", "checkpoint");
        let since = Instant::now();
        let mut command = std::process::Command::new(bin().join("pg_restore"));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-d", "plain", "-p"]).arg(server.port.to_string()).arg(&file);
        assert!(command.env("PGPASSWORD", PASSWORD).status().unwrap().success());
        let plain = since.elapsed().as_secs_f64();
        server.sql("postgres", "drop database plain");
        server.sql("postgres", "checkpoint");
        let since = Instant::now();
        let journal = TestJournal::default();
        set.load(&loader, &journal, &context("restore")).await.unwrap();
        println!("round {round}: pg_restore of a file {plain:.2} s, loader {:.2} s", since.elapsed().as_secs_f64());
        loader.discard(&journal, &context("restore")).await.unwrap();
    }
}

#[tokio::test]
async fn cancel_in_mid_load_ends_pg_restore_and_leaves_nothing() {
    let server = shop();
    let set = Set::of(server.named(&["shop"])).await;
    let (loader, journal, context) = (PostgresLoader::new(server.settings()), TestJournal::default(), context("restore"));
    let (sender, receiver) = channel();
    let artifact = &set.request.artifacts[1];
    sender.data(bytes::Bytes::copy_from_slice(&set.dumped[1].bytes[..set.dumped[1].bytes.len() - 10])).await.unwrap();
    let loading = async {
        let result = loader.load(&set.request, artifact, receiver, &journal, &context).await;
        (result.unwrap_err(), Instant::now())
    };
    let cancelling = async {
        let began = Instant::now();
        while server.sql("postgres", "select count(*) from pg_stat_activity where datname = 'shop_drctl_7k3q'") == "0" {
            assert!(began.elapsed() < Duration::from_secs(60), "pg_restore never connects");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        context.cancel.cancel();
    };
    let ((error, since), ()) = tokio::join!(loading, cancelling);
    // The stream was open all the time: it was not its end that ended the load.
    drop(sender);
    assert_eq!(error.kind(), Kind::Interrupted);
    assert_eq!(databases(&server), ["shop"]);
    // A run that was cancelled before says so too, and makes nothing.
    let (sender, receiver) = channel();
    let error = loader.load(&set.request, artifact, receiver, &TestJournal::default(), &context).await.unwrap_err();
    drop(sender);
    assert_eq!((error.kind(), databases(&server)), (Kind::Interrupted, vec!["shop".to_owned()]));
    while server.sql("postgres", "select count(*) from pg_stat_activity where application_name like 'drctl/%'") != "0" {
        assert!(since.elapsed() < Duration::from_secs(60), "a connection stays open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Hash partitions by an enum hold other rows after a restore, whose enum has new oids: pg_dump loads them through their root, at whatever depth
/// and in whatever schema. Their sum must be right; every other partition is counted for itself.
#[tokio::test]
async fn f93_partitions_that_are_loaded_through_their_root_are_counted_together() {
    let server = shared();
    let set = small(
        &server,
        "f93",
        "create schema other; create type mood as enum ('a','b','c','d','e','f','g','h','i','j');
         create table h (k mood, v int) partition by hash (k);
         create table h0 partition of h for values with (modulus 3, remainder 0);
         create table other.h1 partition of h for values with (modulus 3, remainder 1);
         create table h2 partition of h for values with (modulus 3, remainder 2);
         insert into h select (enum_range(null::mood))[1 + i % 10], i from generate_series(1, 1000) i;
         create table deep (d int, k mood) partition by range (d);
         create table deep1 partition of deep for values from (0) to (10) partition by hash (k);
         create table deep1a partition of deep1 for values with (modulus 2, remainder 0);
         create table other.deep1b partition of deep1 for values with (modulus 2, remainder 1);
         create table deep2 partition of deep for values from (10) to (100);
         insert into deep select i % 20, (enum_range(null::mood))[1 + (i / 20) % 10] from generate_series(1, 777) i;
         create table whole (i int) partition by hash (i);
         create table whole0 partition of whole for values with (modulus 2, remainder 0);
         create table whole1 partition of whole for values with (modulus 2, remainder 1);
         insert into whole select generate_series(1, 100)",
    )
    .await;
    let (loader, journal, context) = (PostgresLoader::new(server.settings()), TestJournal::default(), context("restore"));
    set.load(&loader, &journal, &context).await.unwrap();
    let dumped = &set.request.artifacts[0].facts;
    let count = || loader.count(&set.request, &set.request.artifacts[0], &journal, &context);
    let found = count().await.unwrap();
    compare(dumped, &found).unwrap();
    assert_eq!((found.totals["rows"], found.totals["tables"]), (1878, 9), "{found:?}");
    let counted: Vec<&str> = found.per_name.keys().map(String::as_str).collect();
    assert_eq!(counted, ["public.deep2", "public.t", "public.whole0", "public.whole1"], "those that were loaded by their own name");
    assert_eq!(server.sql("f93_drctl_7k3q", "select count(*) from h"), "1000");

    // A row too few in one partition, whichever that is, and one in the wrong one of those that are exact.
    server.sql("f93_drctl_7k3q", "delete from deep where d < 10 and ctid = (select min(ctid) from deep where d < 10)");
    let error = count().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Verify);
    assert!(error.to_string().contains("the partitions of \"public\".\"deep\" have 38"), "{error}");
    server.sql("f93_drctl_7k3q", "truncate deep1; insert into deep1 select i % 10, 'a' from generate_series(1, 389) i");
    compare(dumped, &count().await.unwrap()).unwrap();
    server.sql("f93_drctl_7k3q", "delete from whole where i = 1; insert into whole select i from whole1 limit 1");
    let error = compare(dumped, &count().await.unwrap()).unwrap_err();
    assert!(error.to_string().contains("public.whole"), "{error}");
    loader.discard(&journal, &context).await.unwrap();
}

/// pg_dump knows an enum that is the key itself, and not one within an array, a composite or a range: such a dump could never be loaded.
#[tokio::test]
async fn f145_partitions_by_the_hash_of_what_holds_an_enum_come_back() {
    let server = shared();
    let set = small(
        &server,
        "f145",
        "create type mood as enum ('a','b','c','d','e','f','g','h','i','j');
         create type pair as (m mood, i int); create type span as range (subtype = mood);
         create domain moods as mood[];
         create table a (k mood[], v int) partition by hash (k);
         create table a0 partition of a for values with (modulus 2, remainder 0);
         create table a1 partition of a for values with (modulus 2, remainder 1);
         insert into a select array[(enum_range(null::mood))[1 + i % 10]], i from generate_series(1, 500) i;
         create table b (k pair, v int) partition by hash (k);
         create table b0 partition of b for values with (modulus 2, remainder 0);
         create table b1 partition of b for values with (modulus 2, remainder 1);
         insert into b select ((enum_range(null::mood))[1 + i % 10], 1)::pair, i from generate_series(1, 300) i;
         create table c (k span, l moods) partition by hash (k, l);
         create table c0 partition of c for values with (modulus 2, remainder 0);
         create table c1 partition of c for values with (modulus 2, remainder 1);
         insert into c select span('a', (enum_range(null::mood))[2 + i % 9], '[]'), array['b']::mood[] from generate_series(1, 200) i;
         create table steady (i int) partition by list (i);
         create table steady1 partition of steady for values in (1); insert into steady values (1), (1)",
    )
    .await;
    let (loader, journal, context) = (PostgresLoader::new(server.settings()), TestJournal::default(), context("restore"));
    assert_eq!(set.load(&loader, &journal, &context).await.unwrap().len(), 0);
    let dumped = &set.request.artifacts[0].facts;
    let found = loader.count(&set.request, &set.request.artifacts[0], &journal, &context).await.unwrap();
    compare(dumped, &found).unwrap();
    assert_eq!(
        server.sql("f145_drctl_7k3q", "select (select count(*) from a), (select count(*) from b), (select count(*) from c)"),
        "500|300|200"
    );
    server.sql("f145_drctl_7k3q", "delete from b where v = 7");
    let error = loader.count(&set.request, &set.request.artifacts[0], &journal, &context).await.unwrap_err();
    assert!(error.to_string().contains("the partitions of \"public\".\"b\" have 299"), "{error}");
    loader.discard(&journal, &context).await.unwrap();
}

/// A tablespace of single tables and indexes that the target lacks: in the plan, with what makes it there; the load does without.
#[tokio::test]
async fn f102_tables_of_a_tablespace_that_the_target_lacks_are_loaded_without_it() {
    let (server, other) = (shared(), Server::start());
    server.sql("postgres", "alter role postgres set allow_in_place_tablespaces = on");
    server.sql("postgres", "create tablespace f102 location ''");
    let mut set = small(
        &server,
        "f102",
        "create table a (i int primary key) tablespace f102; insert into a select generate_series(1, 50);
         create index on t (a) tablespace f102; create materialized view mv tablespace f102 as select count(*) from a",
    )
    .await;
    let context = context("restore");
    let lies = |server: &Server, database: &str| {
        server.sql(database, "select count(*) from pg_class c join pg_tablespace s on s.oid = c.reltablespace where spcname = 'f102'")
    };
    // Where it is there everything lies in it again.
    let (here, journal) = (PostgresLoader::new(server.settings()), TestJournal::default());
    assert!(!here.plan(&set.request, &context).await.unwrap().warnings.join(" ").contains("tablespace"));
    load_whole(&set, &here, &journal).await;
    assert_eq!(lies(&server, "f102_drctl_7k3q"), lies(&server, "f102"));
    here.discard(&journal, &context).await.unwrap();
    // A set of this version, one of an older that says only which tablespaces the server had, and one that says nothing of them.
    for (what, warned) in [("recorded", " lie in "), ("older", " may lie in ")] {
        if what == "older" {
            set.request.details["databases"][0].as_object_mut().unwrap().remove("object_tablespaces").unwrap();
            set.request.details["surroundings"]["tablespaces"][0]["location"] = "/srv/fast".into();
        }
        let (there, journal) = (PostgresLoader::new(other.settings()), TestJournal::default());
        let plan = there.plan(&set.request, &context).await.unwrap();
        assert_eq!(plan.refusals, Vec::<String>::new(), "{what}");
        let warnings = plan.warnings.join("\n");
        for part in [warned, "the target lacks (f102)", "CREATE TABLESPACE \"f102\" LOCATION"] {
            assert!(warnings.contains(part), "{what}, {part}: {warnings}");
        }
        load_whole(&set, &there, &journal).await;
        there.switch(&set.request, &journal, &context).await.unwrap();
        set.counts_are_equal(&there, &journal).await;
        assert_eq!(other.sql("f102", "select count(*) || ' ' || (select count from mv) from a"), "50 50", "{what}");
        assert_eq!(lies(&other, "f102"), "0");
        there.finish(&journal, &context).await.unwrap();
        other.sql("postgres", "drop database f102");
    }
    // A role that may make nothing in it does without it too.
    server.sql("postgres", "create role f102 login createdb password 'f102'");
    server.sql("f102", "alter table t owner to f102; alter table a owner to f102; alter materialized view mv owner to f102");
    server.sql("postgres", "alter database f102 owner to f102");
    let set = without_globals(Set::of(server.named(&["f102"])).await);
    let settings = PostgresSettings { user: "f102".into(), password: Some(drctl::model::Secret::new("f102")), ..server.settings() };
    let (loader, journal) = (PostgresLoader::new(settings), TestJournal::default());
    let warnings = loader.plan(&set.request, &context).await.unwrap().warnings.join("\n");
    assert!(warnings.contains("GRANT CREATE ON TABLESPACE \"f102\" TO \"f102\""), "{warnings}");
    load_whole(&set, &loader, &journal).await;
    loader.switch(&set.request, &journal, &context).await.unwrap();
    assert_eq!(lies(&server, "f102"), "0");
    loader.finish(&journal, &context).await.unwrap();
}

/// A pooler that shares sessions is found before anything is set in one, and the way round is said; one that keeps them whole will do.
#[tokio::test]
async fn f103_a_pooler_that_shares_sessions_is_refused_and_one_that_keeps_them_is_gone_through() {
    let server = shared();
    let set = small(&server, "f103", "create table big as select generate_series(1, 500) i").await;
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(&server, mode, "* = SERVER");
        let settings = pooler.before(server.named(&["f103"]));
        let errors = [
            PostgresSource::new("postgres", settings.clone()).preflight(&context("doctor")).await.map(drop).unwrap_err(),
            dump_all(settings.clone(), &context("backup")).await.map(drop).unwrap_err(),
            PostgresLoader::new(settings.clone()).plan(&set.request, &context("restore")).await.map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), Kind::Preflight, "{error}");
            assert!(error.to_string().contains("a connection pooler answers (PgBouncer or its kind)"), "{error}");
            let hint = error.hint_text().unwrap().to_owned();
            assert!(hint.contains(&format!("port {}", server.port)) && hint.contains("pool_mode=session"), "{hint}");
        }
        // What the application finds in the session that was looked at.
        let seen = server.sql_by(pooler.port, "f103", "select current_setting('search_path') || ' ' || current_setting('row_security')");
        assert_eq!(seen, "\"$user\", public on", "{mode}");
    }
    let pooler = Pooler::start(&server, "session", "* = SERVER");
    let settings = pooler.before(server.named(&["f103"]));
    let set = without_globals(Set::of(settings.clone()).await);
    let (loader, journal) = (PostgresLoader::new(settings), TestJournal::default());
    assert_eq!(loader.plan(&set.request, &context("restore")).await.unwrap().refusals, Vec::<String>::new());
    load_whole(&set, &loader, &journal).await;
    loader.switch(&set.request, &journal, &context("restore")).await.unwrap();
    set.counts_are_equal(&loader, &journal).await;
    loader.finish(&journal, &context("restore")).await.unwrap();
    assert_eq!(named(&server, "f103"), ["f103"]);
    // A database that the pooler does not know.
    let pooler = Pooler::start(&server, "session", "postgres = SERVER");
    let error = dump_all(pooler.before(server.named(&["f103"])), &context("backup")).await.map(drop).unwrap_err();
    assert!(error.hint_text().is_some_and(|hint| hint.contains("PgBouncer stands between")), "{error:?}");
}

/// Whatever a role, its database or the server set for every session: ours and those of our programs are as they must be.
#[tokio::test]
async fn f104_no_setting_of_the_role_reaches_a_dump_or_a_load() {
    let server = shared();
    server.sql("postgres", "create role f104 login superuser password 'f104'");
    let set = small(
        &server,
        "f104",
        "create schema evil; create function evil.count(bigint) returns bigint language sql as 'select 0::bigint';
         create function evil.pg_backend_pid() returns int language sql as 'select 1';
         create table words (i int, w text[], v interval, b bytea);
         insert into words values (1, array['a', null, 'NULL'], '-1 day 2 hours', '\\x00ff'); create view never as select 1 as i where null = null;
         create table parent (i int primary key); create table child (i int references parent)",
    )
    .await;
    for setting in [
        "default_transaction_read_only = on",
        "default_transaction_isolation = serializable",
        "statement_timeout = '9s'",
        "lock_timeout = '9s'",
        "idle_in_transaction_session_timeout = '9s'",
        "idle_session_timeout = '9s'",
        "search_path = evil, pg_catalog, public",
        "session_replication_role = replica",
        "exit_on_error = on",
        "array_nulls = off",
        "transform_null_equals = on",
        "default_tablespace = f104_is_not_there",
        "client_min_messages = error",
        "row_security = on",
        "bytea_output = escape",
        "\"DateStyle\" = 'SQL, DMY'",
        "\"IntervalStyle\" = sql_standard",
    ] {
        server.sql("postgres", &format!("alter role f104 set {setting}"));
    }
    server.sql("postgres", "alter database f104 set default_transaction_read_only = on");
    let settings = PostgresSettings { user: "f104".into(), password: Some(drctl::model::Secret::new("f104")), ..server.named(&["f104"]) };
    let own = without_globals(Set::of(settings.clone()).await);
    assert_eq!(own.request.artifacts[0].facts.per_name, set.request.artifacts[0].facts.per_name);
    let content = "select i || w::text || v::text || b::text || (select count(*) from never) from words";
    let before = server.sql("f104", content);
    for in_place in [false, true] {
        let own = Set { request: LoadRequest { in_place, ..own.request.clone() }, dumped: own.dumped.iter().map(copy_of).collect() };
        let (loader, journal, context) = (PostgresLoader::new(settings.clone()), TestJournal::default(), context("restore"));
        assert_eq!(loader.plan(&own.request, &context).await.unwrap().refusals, Vec::<String>::new());
        load_whole(&own, &loader, &journal).await;
        loader.switch(&own.request, &journal, &context).await.unwrap();
        own.counts_are_equal(&loader, &journal).await;
        assert_eq!(server.sql("f104", content), before);
        loader.finish(&journal, &context).await.unwrap();
    }
    // Through a pooler of whole sessions nothing can be said at their start.
    let pooler = Pooler::start(&server, "session", "* = SERVER");
    let through = PostgresSettings { maintenance_database: "f104".into(), ..pooler.before(server.named(&["f104"])) };
    let refused = PostgresLoader::new(through).plan(&set.request, &context("restore")).await.unwrap().refusals.join("\n");
    assert!(refused.contains("a connection pooler stands between") && refused.contains("default_transaction_read_only"), "{refused}");
}

fn copy_of(dumped: &Dumped) -> Dumped {
    let facts = Ok(dumped.facts.as_ref().unwrap().clone());
    Dumped { plan: dumped.plan.clone(), bytes: dumped.bytes.clone(), end: dumped.end.clone(), facts }
}

/// Loads all of it, with nothing left that could not be loaded.
async fn load_whole(set: &Set, loader: &PostgresLoader, journal: &TestJournal) {
    for (dumped, artifact) in set.dumped.iter().zip(&set.request.artifacts) {
        let problems = loader.load(&set.request, artifact, load::plain(&dumped.bytes), journal, &context("restore")).await.unwrap();
        assert_eq!(problems, [], "{}", artifact.name);
    }
}

/// `$ 12,34` of one locale is 1,234 by another, and nobody is told: every dump writes money by one that all servers have, and every load reads it
/// by that.
#[tokio::test]
async fn f113_money_is_what_it_was_whatever_locale_is_set_for_it() {
    let Some(server) = Server::start_with_locale("es_AR") else { return };
    let money = "create function least_of() returns numeric language sql as 'select 0.01';
        create function is_much(m money) returns bool language plpgsql as $$ begin return m::numeric > least_of(); end $$;
        create table m (i int primary key, m money, n money default '$ 5,50');
        insert into m values (1, '$ 12,34'), (2, '$ 1.234,56');
        create index on m (i) where m > '$ 12,50'::money;
        -- pg_restore cannot load these rows: what the check calls is found by a path.
        create table late (m money, check (is_much(m))); insert into late values ('$ 99,01')";
    let amounts = "select string_agg(a::text, ' ' order by a) from (select m::numeric from m union all select n::numeric from m \
        union all select m::numeric from late) x (a)";
    let partial = "select pg_get_expr(indpred, indrelid) from pg_index where indpred is not null";
    let default = "insert into m values (3, 1::numeric::money) returning n::numeric";
    for whose in ["database peso", "role postgres", "role postgres in database peso"] {
        server.sql("postgres", "create database peso");
        server.sql("postgres", &format!("alter {whose} set lc_monetary = 'es_AR.UTF-8'"));
        server.sql("peso", money);
        let (before, index) = (server.sql("peso", amounts), server.sql("peso", partial));
        assert_eq!(before, "5.50 5.50 12.34 99.01 1234.56");
        let set = without_globals(Set::of(server.named(&["peso"])).await);
        let loader = PostgresLoader::new(server.settings());
        let loads_it = async |set: &Set| {
            let journal = TestJournal::default();
            set.load_and_switch(&loader, &journal).await;
            let got = (server.sql("peso", amounts), server.sql("peso", partial), server.sql("peso", default));
            assert_eq!(got, (before.clone(), index.clone(), "5.50".to_owned()), "{whose}");
            loader.undo(&journal, &context("undo")).await.unwrap();
            loader.finish(&journal, &context("finish")).await.unwrap();
        };
        loads_it(&set).await;
        // Sets of older versions were written by what the session had, and read by what the database is set to.
        if whose == "database peso" {
            let mut older = set;
            older.request.details["databases"]
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(|d| drop(d.as_object_mut().unwrap().remove("money_locale")));
            older.dumped[0].bytes = server.pg_dump("peso", &["--format=custom", "--compress=0"]);
            loads_it(&older).await;
            // What cannot be read as it was written is not read at all.
            older.request.details["databases"].as_array_mut().unwrap().iter_mut().for_each(|d| d["money_locale"] = "xx_XX".into());
            let error = older.load(&loader, &TestJournal::default(), &context("none")).await.unwrap_err();
            assert!(error.kind() == Kind::Preflight && error.to_string().contains("does not have the locale xx_XX"), "{error}");
            assert_eq!(named(&server, "peso"), ["peso"]);
        }
        server.sql("postgres", &format!("alter {whose} reset lc_monetary"));
        server.sql("postgres", "drop database peso with (force)");
    }
}
