//! Databases with extensions that a load must know of, dumped and loaded. The extensions are stand-ins.
//!
//! TimescaleDB's has the same two calls and a catalogue that takes rows only between them: it proves the calls and their order, not chunks or
//! compression. pg_cron's can be made in the one database that the server's setting names, as the real one, and schedules nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use drctl::error::{Kind, Result};
use drctl::source::load::{Journal, LoadArtifact, LoadRequest, Loader};
use drctl::source::postgres::{PostgresLoader, PostgresSettings};
use serde_json::Value;

#[path = "support/load.rs"]
mod load;
#[path = "support/postgres.rs"]
mod support;
use support::{Dumped, PASSWORD, Server, bin, context, dump_all, extension_folder};

#[derive(Default)]
struct Notes(Mutex<std::collections::BTreeMap<String, Value>>);

#[async_trait]
impl Journal for Notes {
    async fn note(&self, key: &str, value: Value) -> Result<()> {
        self.0.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }

    fn get(&self, key: &str) -> Option<Value> {
        self.0.lock().unwrap().get(key).cloned()
    }
}

/// The installed extensions and the stand-in in these versions.
fn extensions(versions: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("drctl-test-extensions-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for entry in std::fs::read_dir(extension_folder()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("timescaledb.control", &format!("default_version = '{}'\nrelocatable = false\n", versions[0]));
    for version in versions {
        write(&format!("timescaledb--{version}.sql"), STAND_IN);
    }
    write("pg_cron.control", "default_version = '99.1'\nrelocatable = false\n");
    write("pg_cron--99.1.sql", CRON);
    folder
}

const CRON: &str = r"
DO $$ BEGIN
  IF current_database() <> current_setting('cron.database_name') THEN
    RAISE EXCEPTION 'can only create extension in database %', current_setting('cron.database_name');
  END IF;
END $$;
CREATE SCHEMA cron;
CREATE TABLE cron.job (jobid int, command text);
SELECT pg_catalog.pg_extension_config_dump('cron.job', '');
";

const STAND_IN: &str = r"
CREATE SCHEMA _timescaledb_catalog;
CREATE SCHEMA _timescaledb_internal;
CREATE TABLE _timescaledb_catalog.hypertable (id int PRIMARY KEY, table_name text);
SELECT pg_catalog.pg_extension_config_dump('_timescaledb_catalog.hypertable', '');
CREATE FUNCTION _timescaledb_catalog.guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF coalesce(current_setting('timescaledb.restoring', true), '') <> 'on' THEN
    RAISE EXCEPTION 'the catalogue of TimescaleDB is not written to';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE INSERT ON _timescaledb_catalog.hypertable FOR EACH ROW EXECUTE FUNCTION _timescaledb_catalog.guard();
CREATE FUNCTION timescaledb_pre_restore() RETURNS bool LANGUAGE plpgsql AS $$
BEGIN EXECUTE format('ALTER DATABASE %I SET timescaledb.restoring = on', current_database()); RETURN true; END $$;
CREATE FUNCTION timescaledb_post_restore() RETURNS bool LANGUAGE plpgsql AS $$
BEGIN EXECUTE format('ALTER DATABASE %I RESET timescaledb.restoring', current_database()); RETURN true; END $$;
";

fn server(extensions: &Path) -> Server {
    Server::start_seeing("", Some(extensions.to_owned()))
}

/// 1,000 rows in a chunk of a hypertable.
fn fill(server: &Server) {
    server.sql("postgres", "CREATE DATABASE metrics");
    server.sql("metrics", "CREATE EXTENSION timescaledb; CREATE TABLE load (at timestamptz, value int)");
    server.sql("metrics", "SET timescaledb.restoring = on; INSERT INTO _timescaledb_catalog.hypertable VALUES (1, 'load')");
    server.sql("metrics", "CREATE TABLE _timescaledb_internal._hyper_1_1_chunk () INHERITS (load)");
    server.sql("metrics", "INSERT INTO _timescaledb_internal._hyper_1_1_chunk SELECT now(), i FROM generate_series(1, 1000) i");
}

async fn request(settings: PostgresSettings) -> (Vec<Dumped>, LoadRequest) {
    let (dumped, details) = dump_all(settings, &context("backup")).await.unwrap();
    let artifacts: Vec<LoadArtifact> = dumped.iter().map(load::artifact).collect();
    let as_of = jiff::Timestamp::now();
    let request = LoadRequest {
        restore: "7k3q".into(),
        source: "postgres".into(),
        artifacts,
        details,
        as_of,
        in_place: false,
        grows: Vec::new(),
        exchange_first: false,
        target: None,
    };
    (dumped, request)
}

async fn load_all(dumped: &[Dumped], request: &LoadRequest, loader: &PostgresLoader, journal: &Notes) -> Result<()> {
    for (dumped, artifact) in dumped.iter().zip(&request.artifacts) {
        loader.load(request, artifact, load::plain(&dumped.bytes), journal, &context("restore")).await?;
    }
    Ok(())
}

/// As a person would without knowing: `createdb`, `pg_restore`.
fn plain_pg_restore(server: &Server, archive: &[u8]) -> bool {
    use std::io::Write;
    server.sql("postgres", "CREATE DATABASE plain");
    let mut command = std::process::Command::new(bin().join("pg_restore"));
    command.args(["--exit-on-error", "-h", "127.0.0.1", "-U", "postgres", "-d", "plain", "-p"]).arg(server.port.to_string());
    command.env("PGPASSWORD", PASSWORD).stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    // It may stop reading.
    let _ = child.stdin.take().unwrap().write_all(archive);
    child.wait().unwrap().success()
}

#[tokio::test]
async fn a_timescale_database_comes_back_by_its_own_calls() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED a stand-in for TimescaleDB needs root: a mount for one server");
        return;
    }
    let own = extensions(&["2.11.0", "2.12.0"]);
    let server = server(own.path());
    fill(&server);
    let (dumped, request) = request(server.named(&["metrics"])).await;
    let archive = dumped.iter().find(|d| d.plan.name == "metrics").unwrap();
    assert!(!plain_pg_restore(&server, &archive.bytes), "the stand-in must refuse what TimescaleDB refuses");

    for in_place in [false, true] {
        let request = LoadRequest { in_place, restore: if in_place { "inpl".into() } else { "7k3q".into() }, ..request.clone() };
        server.sql("metrics", "DELETE FROM load; INSERT INTO load VALUES (now(), 7)");
        let (loader, journal) = (PostgresLoader::new(server.settings()), Notes::default());
        let plan = loader.plan(&request, &context("restore")).await.unwrap();
        assert_eq!(plan.refusals, Vec::<String>::new());
        load_all(&dumped, &request, &loader, &journal).await.unwrap();
        let artifact = request.artifacts.iter().find(|a| a.name == "metrics").unwrap();
        let facts = loader.count(&request, artifact, &journal, &context("restore")).await.unwrap();
        let chunk = "_timescaledb_internal._hyper_1_1_chunk";
        assert_eq!(artifact.facts.per_name.get(chunk), Some(&1000), "{:?}", artifact.facts);
        assert_eq!(facts.per_name.get(chunk), Some(&1000), "chunks are counted: {facts:?}");
        loader.switch(&request, &journal, &context("restore")).await.unwrap();
        assert_eq!(server.sql("metrics", "SELECT count(*), sum(value) FROM load"), "1000|500500");
        assert_eq!(server.sql("metrics", "SELECT table_name FROM _timescaledb_catalog.hypertable"), "load");
        assert_eq!(
            server.sql("metrics", "SELECT extversion || ' ' || extnamespace::regnamespace FROM pg_extension WHERE extname = 'timescaledb'"),
            "2.11.0 public"
        );
        // Its catalogue is guarded again, and nothing of the restore stays on the database.
        let guarded = "DO $$ BEGIN INSERT INTO _timescaledb_catalog.hypertable VALUES (2, 'x'); RAISE 'not guarded';
            EXCEPTION WHEN raise_exception THEN IF SQLERRM = 'not guarded' THEN RAISE; END IF; END $$";
        server.sql("metrics", guarded);
        assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_db_role_setting"), "0");
        loader.finish(&journal, &context("restore")).await.unwrap();
    }
}

#[tokio::test]
async fn f46_another_version_of_timescale_is_refused_with_both_versions() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED a stand-in for TimescaleDB needs root: a mount for one server");
        return;
    }
    let (old, new) = (extensions(&["2.11.0"]), extensions(&["2.12.0", "2.13.0"]));
    let (from, to) = (server(old.path()), server(new.path()));
    fill(&from);
    let (dumped, request) = request(from.named(&["metrics"])).await;
    let loader = PostgresLoader::new(to.settings());
    let plan = loader.plan(&request, &context("restore")).await.unwrap();
    assert!(plan.refusals.iter().any(|r| r.contains("2.11.0") && r.contains("2.12.0, 2.13.0")), "{plan:?}");
    assert_eq!(plan.refusals.len(), 1, "{plan:?}");
    // Who loads all the same gets an error before the first row, and keeps nothing half made.
    let error = load_all(&dumped, &request, &loader, &Notes::default()).await.unwrap_err();
    assert!(error.to_string().contains("make extension timescaledb 2.11.0"), "{error}");
    assert_ne!(error.kind(), Kind::Corrupt);
    assert_eq!(to.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ 'metrics'"), "0");
    // In a schema of its own, which the dump makes anew, it cannot be there before.
    from.sql("postgres", "CREATE DATABASE apart");
    from.sql("apart", "CREATE SCHEMA ts; CREATE EXTENSION timescaledb WITH SCHEMA ts");
    let (_, apart) = self::request(from.named(&["apart"])).await;
    let plan = PostgresLoader::new(from.settings()).plan(&apart, &context("restore")).await.unwrap();
    assert!(plan.refusals.len() == 1 && plan.refusals[0].contains("in schema ts"), "{plan:?}");
}

fn names(server: &Server) -> String {
    server.sql("postgres", "SELECT string_agg(datname || case when datallowconn then '' else ' closed' end, ', ' ORDER BY datname) FROM pg_database WHERE datname ~ 'jobs'")
}

#[tokio::test]
async fn f94_what_is_bound_to_its_databases_name_is_loaded_under_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED a stand-in for pg_cron needs root: a mount for one server");
        return;
    }
    let own = extensions(&["2.11.0"]);
    let server = Server::start_seeing("cron.database_name = 'jobs'", Some(own.path().to_owned()));
    server.sql("postgres", "CREATE DATABASE jobs CONNECTION LIMIT 7");
    server.sql("postgres", "COMMENT ON DATABASE jobs IS 'ours'");
    server.sql(
        "jobs",
        "CREATE EXTENSION pg_cron; INSERT INTO cron.job VALUES (1, 'select 1'); CREATE TABLE t AS SELECT generate_series(1, 100) i",
    );
    let (dumped, request) = request(server.named(&["jobs"])).await;
    server.sql("jobs", "DELETE FROM t");
    let (loader, context) = (PostgresLoader::new(server.settings()), context("restore"));
    let plan = async |request: &LoadRequest| loader.plan(request, &context).await.unwrap();

    // The name is taken: said before anything is done, and refused by the load too.
    let refused = plan(&request).await.refusals;
    assert!(refused.len() == 1 && refused[0].contains("extension pg_cron") && refused[0].contains("--exchange-first"), "{refused:?}");
    let error = load_all(&dumped, &request, &loader, &Notes::default()).await.unwrap_err();
    assert!(error.kind() == Kind::Preflight && error.hint_text().unwrap().contains("--exchange-first"), "{error}");
    let in_place = plan(&LoadRequest { in_place: true, ..request.clone() }).await.refusals;
    assert!(in_place.len() == 1 && in_place[0].contains("instead of --in-place"), "{in_place:?}");
    let other = LoadRequest { target: Some(format!("postgres://postgres@127.0.0.1:{}/jobs2", server.port)), ..request.clone() };
    let refused = plan(&other).await.refusals;
    assert!(refused.iter().any(|r| r.contains("in database jobs only") && r.contains("cron.database_name = 'jobs2'")), "{refused:?}");
    assert_eq!((names(&server).as_str(), server.sql("jobs", "SELECT count(*) FROM t").as_str()), ("jobs", "0"));

    // Put aside first, and back as soon as the load is done: the switch is a step of its own.
    let request = LoadRequest { exchange_first: true, ..request };
    assert!(plan(&request).await.warnings.iter().any(|w| w.contains("Database jobs is OUT OF USE")));
    let journal = Notes::default();
    load_all(&dumped, &request, &loader, &journal).await.unwrap();
    assert_eq!((names(&server).as_str(), server.sql("jobs", "SELECT count(*) FROM t").as_str()), ("jobs, jobs_drctl_7k3q", "0"));
    loader.switch(&request, &journal, &context).await.unwrap();
    let live = "SELECT (SELECT count(*) FROM t), (SELECT command FROM cron.job), datconnlimit, shobj_description(oid, 'pg_database')
        FROM pg_database WHERE datname = current_database()";
    assert_eq!(server.sql("jobs", live), "100|select 1|7|ours");
    loader.undo(&journal, &context).await.unwrap();
    assert_eq!(server.sql("jobs", "SELECT count(*) FROM t"), "0");
    loader.finish(&journal, &context).await.unwrap();
    assert_eq!(names(&server), "jobs");

    // A load that fails gives the name back, and so does whoever cleans up after one that died.
    let mut broken = dumped.iter().find(|d| d.plan.name == "jobs").unwrap().bytes.clone();
    broken.truncate(broken.len() - 20);
    let artifact = request.artifacts.iter().find(|a| a.name == "jobs").unwrap();
    let (sender, receiver) = drctl::pipeline::plain::channel();
    sender.data(broken.clone().into()).await.unwrap();
    drop(sender);
    loader.load(&request, artifact, receiver, &Notes::default(), &context).await.unwrap_err();
    assert_eq!((names(&server).as_str(), server.sql("jobs", "SELECT count(*) FROM t").as_str()), ("jobs", "0"));
    let (sender, receiver) = drctl::pipeline::plain::channel();
    sender.data(broken.into()).await.unwrap();
    let journal = Notes::default();
    {
        let mut load = std::pin::pin!(loader.load(&request, artifact, receiver, &journal, &context));
        let lent = async {
            while server
                .sql("postgres", "SELECT count(*) FROM pg_database WHERE shobj_description(oid, 'pg_database') ~ '^drctl: being loaded'")
                != "1"
            {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ended = &mut load => panic!("it ended: {ended:?}"),
            () = lent => {}
        }
    }
    assert_eq!(names(&server), "jobs, jobs_drctl_old_7k3q closed");
    loader.discard(&journal, &context).await.unwrap();
    assert_eq!((names(&server).as_str(), server.sql("jobs", "SELECT count(*) FROM t").as_str()), ("jobs", "0"));

    // Where the name is free nothing needs to be said.
    server.sql("postgres", "DROP DATABASE jobs");
    let free = LoadRequest { exchange_first: false, ..request };
    assert_eq!(plan(&free).await.refusals, Vec::<String>::new());
    let journal = Notes::default();
    load_all(&dumped, &free, &loader, &journal).await.unwrap();
    loader.switch(&free, &journal, &context).await.unwrap();
    assert_eq!(server.sql("jobs", live), "100|select 1|7|ours");
}
