//! Every database of a server stands for itself: what becomes of those that cannot be dumped, need not be, or are not there any more; and names
//! in encodings other than UTF-8.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/postgres.rs"]
mod support;

use cli::{Home, Ran};
use support::{PASSWORD, Server};

/// A home whose job backs up all databases of the server as `user`, with more keys of the source.
fn home(server: &Server, user: &str, more: &str) -> Home {
    let home = Home::new();
    home.write("pg-password", if user == "postgres" { PASSWORD } else { "rolepw" });
    home.init(&jobs(server, user, more));
    home
}

fn jobs(server: &Server, user: &str, more: &str) -> String {
    let port = server.port;
    format!(
        "jobs:\n  - job: shop\n    sources:\n      - postgres: {{ host: 127.0.0.1, port: {port}, user: {user}, password: {{ file: pg-password }}, \
         database: all{more} }}\n"
    )
}

/// Another source in the place of the first.
fn configure(home: &Home, jobs: &str) {
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let head: Vec<&str> = config.lines().take_while(|line| !line.starts_with("jobs:")).collect();
    home.write("drctl.yaml", &format!("{}\n{jobs}", head.join("\n")));
}

fn database(server: &Server, name: &str) {
    server.sql("postgres", &format!("create database \"{name}\""));
    server.sql(name, "create table t as select generate_series(1, 7) i");
}

/// The newest set's artifacts, by their true names, without globals and configuration.
fn artifacts(home: &Home) -> Vec<String> {
    let shown = home.json(&["show", &home.newest()]);
    let files = shown["result"]["artifacts"].as_array().unwrap().iter();
    let mut names: Vec<String> = files
        .filter_map(|a| Some(a["file"].as_str()?.strip_prefix("postgres.")?.split('.').next()?.to_owned()))
        .filter(|name| name != "globals")
        .collect();
    names.sort();
    names
}

fn has(ran: &Ran, words: &[&str]) {
    for words in words {
        assert!(ran.all().contains(words), "no '{words}' in\n{}", ran.all());
    }
}

const ROLE: &str = "create role drctl login password 'rolepw' in role pg_read_all_stats";

#[test]
fn f96_each_database_stands_for_itself() {
    let server = Server::start();
    server.sql("postgres", ROLE);
    for name in ["good", "secret", "full", "unread", "rdsadmin", "later"] {
        database(&server, name);
    }
    for name in ["good", "full", "rdsadmin", "later"] {
        server.sql(name, "grant select on t to drctl");
    }
    server.sql(
        "postgres",
        "create role rdsadmin; alter database rdsadmin owner to rdsadmin; revoke connect on database rdsadmin, secret from public;
         alter database \"full\" connection limit 0",
    );
    let home = home(&server, "drctl", "");
    let (grant, limit) = ("GRANT CONNECT ON DATABASE \"secret\" TO \"drctl\"", "ALTER DATABASE \"full\" CONNECTION LIMIT 4");
    let unread = "database unread cannot be dumped: role drctl may not read 1 tables, public.t the first of them";
    let ran = home.run(&["doctor"]);
    assert_ne!(ran.code, 0);
    has(&ran, &[grant, limit, unread, "exclude: [secret] at this source", "3 databases"]);
    let ran = home.run(&["backup", "now", "--dry-run"]);
    assert_eq!(ran.code, 8, "that of the first, which may be gone later: {}", ran.all());
    has(&ran, &[grant, limit, unread]);

    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    has(&ran, &["PARTIAL", grant, limit, unread]);
    assert!(!ran.all().contains("rdsadmin"), "{}", ran.all());
    assert_eq!(artifacts(&home), ["good", "later", "postgres"]);
    // The set holds what it holds, and says what it lacks, with the line that mends it.
    let set = home.newest();
    has(&home.run(&["show", &set]), &[grant, limit, unread]);
    server.sql("good", "drop table t");
    home.write("pg-password", PASSWORD);
    configure(&home, &jobs(&server, "postgres", ""));
    home.ok(&["restore", &set, "--yes"]);
    assert_eq!(server.sql("good", "select count(*) from t"), "7");

    server.sql("postgres", "grant connect on database secret to drctl; alter database \"full\" connection limit -1");
    for name in ["secret", "unread"] {
        server.sql(name, "grant select on t to drctl");
    }
    home.write("pg-password", "rolepw");
    configure(&home, &jobs(&server, "drctl", ", exclude: ['*_drctl_*']"));
    home.ok(&["backup", "now"]);
    assert_eq!(artifacts(&home), ["full", "good", "later", "postgres", "secret", "unread"]);
    // None of those that are named can be dumped: the first says why.
    let named = jobs(&server, "drctl", "").replace("database: all", "database: [nosuch, neither]");
    configure(&home, &named);
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 4, "{}", ran.all());
    has(&ran, &["there is no database neither at"]);
    // Of those that are named, each that is missing is missing by itself.
    configure(&home, &named.replace("neither", "good"));
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    has(&ran, &["there is no database nosuch at"]);
    assert_eq!(artifacts(&home), ["good"]);
}

#[test]
fn f97_closed_databases_are_known_once_said_or_excluded() {
    let server = Server::start();
    for name in ["shop", "old", "older", "tmp_1"] {
        database(&server, name);
    }
    let home = home(&server, "postgres", "");
    home.ok(&["backup", "now"]);
    server.sql("postgres", "alter database old allow_connections false");
    let closed =
        "Database old is not dumped: it accepts no connections (to have it dumped: ALTER DATABASE \"old\" ALLOW_CONNECTIONS true).";
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    has(&ran, &[closed, "drctl backup now shop --accept-smaller postgres"]);
    // Said once, it is known; what is closed later is not.
    let ran = home.ok(&["backup", "now", "--accept-smaller", "postgres"]);
    has(&ran, &[closed, "That is known from now on."]);
    let ran = home.ok(&["backup", "now"]);
    has(&ran, &[closed, "That is known."]);
    server.sql("postgres", "alter database older allow_connections false");
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    // What the configuration leaves out is neither a problem nor suspect.
    configure(&home, &jobs(&server, "postgres", ", exclude: [older, 'tmp_*']"));
    let ran = home.ok(&["backup", "now"]);
    assert!(!ran.all().contains("older") && ran.all().contains("ok shop/"), "{}", ran.all());
    assert_eq!(artifacts(&home), ["postgres", "shop"]);
    has(&home.run(&["doctor"]), &["2 databases, 2 excluded"]);
    has(&home.run(&["config", "show"]), &["exclude:", "tmp_*"]);
    // What leaves nothing is no backup.
    configure(&home, &jobs(&server, "postgres", ", exclude: ['*']"));
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 4, "{}", ran.all());
    has(&ran, &["exclude (*) leaves none of the databases"]);
    configure(&home, &jobs(&server, "postgres", ", exclude: [older, 'tmp_*']"));
    // One that is gone without a word is suspect all the same.
    server.sql("postgres", "drop database shop");
    let ran = home.run(&["backup", "now"]);
    has(&ran, &["SUSPECT", "postgres.shop.dump", "is gone"]);
}

#[test]
fn f98_what_an_interrupted_drop_left_is_passed_over_and_missed() {
    let server = Server::start();
    for name in ["shop", "half"] {
        database(&server, name);
    }
    server.sql("postgres", "update pg_database set datconnlimit = -2 where datname = 'half'");
    let home = home(&server, "postgres", "");
    let ran = home.ok(&["backup", "now"]);
    has(&ran, &["Database half is not dumped: an interrupted DROP DATABASE left it", "DROP DATABASE \"half\""]);
    assert_eq!(artifacts(&home), ["postgres", "shop"]);
    // One that was in the sets before is missed.
    server.sql("postgres", "update pg_database set datconnlimit = -2 where datname = 'shop'");
    let ran = home.run(&["backup", "now"]);
    has(&ran, &["SUSPECT", "postgres.shop.dump", "is gone"]);
    // By name it has to be there.
    configure(&home, &jobs(&server, "postgres", "").replace("database: all", "database: [postgres, half]"));
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    has(&ran, &["database half cannot be dumped: an interrupted DROP DATABASE left it", "DROP DATABASE \"half\""]);
}

/// A restore with --exchange-first loads under the live name: what has it meanwhile is half of a database.
#[test]
fn f114_a_database_that_is_half_loaded_under_its_own_name_is_not_dumped() {
    let server = Server::start();
    for name in ["shop", "jobs"] {
        database(&server, name);
    }
    let home = home(&server, "postgres", "");
    server.sql("postgres", "comment on database jobs is 'drctl: being loaded by restore 7k3q9xyz'");
    let ran = home.run(&["backup", "now"]);
    has(&ran, &["Database jobs is not dumped: a restore is loading it."]);
    assert_eq!(artifacts(&home), ["postgres", "shop"]);
    // By name it is missed, and no other is kept from being dumped.
    configure(&home, &jobs(&server, "postgres", "").replace("database: all", "database: [jobs, shop]"));
    for args in [&["backup", "--dry-run"][..], &["backup", "now"]] {
        let ran = home.run(args);
        has(&ran, &["database jobs cannot be dumped: a restore is loading it", "drctl restore --undo"]);
    }
    let ran = home.run(&["backup", "now"]);
    assert_eq!((ran.code, artifacts(&home)), (3, vec!["shop".to_owned()]), "{}", ran.all());
    // A comment of one's own says nothing.
    server.sql("postgres", "comment on database jobs is 'being loaded by restore 7k3q9xyz'");
    home.ok(&["backup", "now"]);
    assert_eq!(artifacts(&home), ["jobs", "shop"]);
}

#[test]
fn f98_a_database_that_vanishes_before_its_dump_is_no_failure() {
    let server = Server::start();
    for name in ["shop", "vanishing"] {
        database(&server, name);
    }
    // The first dump of the run is that of `postgres`: the other database goes meanwhile.
    let real = support::bin();
    let script = format!(
        "[ \"$1\" = --version ] && exec {0}/pg_dump --version\n\
         case \"$*\" in *\"dbname='postgres'\"*) PGPASSWORD=\"$DROP_PASSWORD\" {0}/psql -X -q -h 127.0.0.1 -p {1} -U postgres -d postgres \
         -c 'drop database if exists vanishing with (force)' >/dev/null 2>&1;; esac\nexec {0}/pg_dump \"$@\"",
        real.display(),
        server.port
    );
    let tools = support::fake_tools(&[("pg_dump", &script)]);
    let folders = format!(", client_folders: [{}, {}]", tools.path().display(), real.display());
    let mut home = home(&server, "postgres", &folders);
    home.env("DROP_PASSWORD", PASSWORD);
    let ran = home.ok(&["backup", "now"]);
    has(&ran, &["Database vanishing was dropped while the backup looked at its server"]);
    assert_eq!(artifacts(&home), ["postgres", "shop"]);
    // Asked for by name it is missed.
    database(&server, "vanishing");
    configure(&home, &jobs(&server, "postgres", &folders).replace("database: all", "database: [postgres, vanishing]"));
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
}

#[test]
fn f105_tables_that_were_added_to_an_extension_are_missed() {
    let server = Server::start();
    database(&server, "shop");
    server.sql("shop", "create extension hstore");
    server.sql("shop", "create table mine as select 1 i; create table empty (i int)");
    server.sql("shop", "alter extension hstore add table mine");
    server.sql("shop", "alter extension hstore add table empty");
    let home = home(&server, "postgres", "");
    let mend = "ALTER EXTENSION \"hstore\" DROP TABLE public.mine";
    has(&home.run(&["doctor"]), &["table public.mine was added to extension \"hstore\"", mend]);
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    has(&ran, &["table public.mine was added to extension \"hstore\"", "neither the table nor its rows are in the set", mend]);
    assert!(!ran.all().contains("public.empty"), "{}", ran.all());
    server.sql("shop", mend);
    home.ok(&["backup", "now"]);
    // What the extension marks as its data is in the dump, as before.
    server.sql(
        "shop",
        "update pg_extension set extconfig = array['empty'::regclass::oid], extcondition = array[''] where extname = 'hstore'",
    );
    server.sql("shop", "insert into empty values (1)");
    home.ok(&["backup", "now"]);
}

#[test]
fn f106_templates_are_dumped_and_restored() {
    let server = Server::start();
    database(&server, "shop");
    let home = home(&server, "postgres", "");
    home.ok(&["backup", "now"]);
    assert_eq!(artifacts(&home), ["postgres", "shop"], "as initdb made it, template1 holds nothing");

    database(&server, "tmpl");
    server.sql("postgres", "alter database tmpl is_template true");
    server.sql("postgres", "create database shut is_template true allow_connections false");
    server.sql("template1", "create table ours as select generate_series(1, 3) i");
    let ran = home.ok(&["backup", "now"]);
    has(&ran, &["Database shut is not dumped: it is a template that accepts no connections"]);
    assert_eq!(artifacts(&home), ["postgres", "shop", "template1", "tmpl"]);
    let set = home.newest();

    // Back again, beside and then exchanged; new databases are copied from what was restored.
    server.sql("template1", "drop table ours");
    server.sql("tmpl", "drop table t");
    let ran = home.ok(&["restore", &set, "--yes"]);
    let state = "select string_agg(datname || ' ' || datistemplate || ' ' || datallowconn, ', ' order by datname) from pg_database
        where datname in ('template1', 'tmpl')";
    assert_eq!(server.sql("postgres", state), "template1 true true, tmpl true true", "{}", ran.all());
    server.sql("postgres", "create database fresh");
    server.sql("postgres", "create database other template tmpl");
    assert_eq!((server.sql("fresh", "select count(*) from ours"), server.sql("other", "select count(*) from t")), ("3".into(), "7".into()));
    // And back.
    home.ok(&["restore", "--undo", "--yes"]);
    assert_eq!(server.sql("template1", "select to_regclass('ours') is null"), "t");
    server.sql("postgres", "create database fresher");
    home.ok(&["restore", &set, "--yes"]);
    home.ok(&["restore", "--finish", "--yes"]);
    assert_eq!(server.sql("postgres", "select count(*) from pg_database where datname ~ 'template1_drctl_old'"), "0");
    // In place there would be no template1 for a time: it stays.
    server.sql("template1", "insert into ours values (4)");
    let ran = home.ok(&["restore", &set, "--in-place", "--yes"]);
    has(&ran, &["database template1: stays as it is"]);
    assert_eq!(server.sql("template1", "select count(*) from ours"), "4");
    assert_eq!(server.sql("tmpl", "select count(*) from t"), "7");
}

#[test]
fn f106_templates_go_to_another_server() {
    let (server, other) = (Server::start(), Server::start());
    server.sql("template1", "create table ours as select generate_series(1, 3) i");
    database(&server, "shop");
    let home = home(&server, "postgres", "");
    home.ok(&["backup", "now"]);
    configure(&home, &jobs(&other, "postgres", ""));
    let set = home.newest();
    home.ok(&["restore", &set, "--yes"]);
    other.sql("postgres", "create database fresh");
    assert_eq!((other.sql("fresh", "select count(*) from ours"), other.sql("shop", "select count(*) from t")), ("3".into(), "7".into()));
}

/// What bytes an SQL text is that names something in another encoding: as an escaped text that the server executes.
fn raw(sql: &str) -> String {
    format!("do $$ begin execute E'{sql}'; end $$")
}

#[test]
fn f95_a_latin1_server_comes_back() {
    let (server, other, utf8) = (Server::start_in("LATIN1"), Server::start_in("LATIN1"), Server::start());
    server.sql("postgres", "create role \"müller\" login password 'pw ü'; comment on role \"müller\" is 'Größe'");
    server.sql("postgres", "create database shop owner \"müller\"");
    server.sql(
        "shop",
        "create table \"größe\" as select chr(228) || i::text as t from generate_series(1, 9) i; alter table \"größe\" owner to \"müller\"",
    );
    // What is loaded by drctl itself, rights and what pg_restore cannot load, has such names too.
    server.sql("shop", "create role \"gärtner\"; grant select on \"größe\" to \"gärtner\"");
    server.sql("shop", "create table ort (t text); create function ist_größe(text) returns bool language plpgsql as
        $$ begin return exists (select from \"größe\" where t = $1); end $$; alter table ort add check (ist_größe(t)); insert into ort select t from \"größe\"");
    let mut home = home(&server, "postgres", "");
    home.env("PGPASSWORD", PASSWORD);
    home.ok(&["backup", "now", "--verify", "read-back"]);
    let set = home.newest();
    let globals = home.ok(&["cat", &set, "globals"]).out;
    assert!(globals.contains("CREATE ROLE \"müller\";") && globals.contains("client_encoding = 'UTF8'"), "{globals}");
    server.sql("shop", "drop table \"größe\"");
    home.ok(&["restore", &set, "--yes"]);
    assert_eq!(server.sql("shop", "select count(*) || max(t) from \"größe\""), "9ä9");
    assert_eq!(server.sql("shop", "select count(*) || max(t) from ort"), "9ä9");
    assert_eq!(server.sql("shop", "select has_table_privilege('gärtner', '\"größe\"', 'select')"), "t");
    // Another server of that encoding gets the role, one of another is refused before anything is touched.
    let to =
        |server: &Server| home.run(&["restore", &set, "--yes", "--target", &format!("postgres://postgres@127.0.0.1:{}/", server.port)]);
    let ran = to(&other);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let comment = "select shobj_description(oid, 'pg_authid') from pg_roles where rolname = 'müller'";
    assert_eq!(other.sql("postgres", comment), "Größe");
    assert_eq!(other.sql("shop", "select relowner::regrole from pg_class where relname = 'größe'"), "\"müller\"");
    let ran = to(&utf8);
    assert_eq!(ran.code, 4, "{}", ran.all());
    has(&ran, &["database shop is of encoding LATIN1", "müller)", "initdb --encoding=LATIN1", "--no-owner"]);

    // Nobody can connect by a name that is in other bytes there: said, with the way on, and the rest is backed up.
    server.sql("postgres", "create database \"größe\"");
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    has(&ran, &["database größe cannot be dumped: nobody can connect to it by its name in UTF-8; to mend it: DO $$"]);
    let mend = ran.out.split("to mend it: ").nth(1).unwrap().lines().next().unwrap();
    server.sql("postgres", mend);
    home.ok(&["backup", "now"]);
    assert!(artifacts(&home).contains(&"new_name".to_owned()));
}

#[test]
fn f95_a_server_without_encoding_comes_back_with_the_bytes_it_has() {
    let (server, other, utf8) = (Server::start_in("SQL_ASCII"), Server::start_in("SQL_ASCII"), Server::start());
    server.sql("postgres", &raw("create role \"m\\374ller\" login"));
    server.sql("postgres", &raw("comment on role \"m\\374ller\" is E''it\\047\\047s \\\\\\\\ \\374''"));
    server.sql("postgres", "create role \"grün\"");
    server.sql("postgres", "create database shop");
    server.sql("postgres", &raw("alter database shop owner to \"m\\374ller\""));
    server.sql("shop", &raw("create table \"gr\\366\\337e\" as select E''\\\\374''::text as t from generate_series(1, 4)"));
    server.sql("shop", &raw("alter table \"gr\\366\\337e\" owner to \"m\\374ller\""));
    server.sql("shop", "create table \"größe\" (i int); insert into \"größe\" values (1)");
    let mut home = home(&server, "postgres", "");
    home.env("PGPASSWORD", PASSWORD);
    home.ok(&["backup", "now", "--verify", "read-back"]);
    let set = home.newest();
    for server in [&server, &other] {
        home.ok(&["restore", &set, "--yes", "--target", &format!("postgres://postgres@127.0.0.1:{}/", server.port)]);
        let owner = "select encode(pg_get_userbyid(datdba)::text::bytea, 'hex') from pg_database where datname = 'shop'";
        assert_eq!(server.sql("postgres", owner), "6dfc6c6c6572");
        let comments = "select count(*) from pg_roles where shobj_description(oid, 'pg_authid') ~ E'^it''s'";
        assert_eq!(server.sql("postgres", comments), "1");
        assert_eq!(
            server.sql(
                "shop",
                "select count(*) from pg_class where relkind = 'r' and relowner = (select datdba from pg_database where datname = 'shop')"
            ),
            "1"
        );
    }
    let ran = home.run(&["restore", &set, "--yes", "--target", &format!("postgres://postgres@127.0.0.1:{}/", utf8.port)]);
    assert_eq!(ran.code, 4, "{}", ran.all());
    has(&ran, &["roles (m\\xfcller)", "initdb --encoding=SQL_ASCII"]);
    // A database whose own name is no UTF-8 is named, and left out by its name as it is shown.
    server.sql_bytes("postgres", b"create database \"gr\xfcn\"");
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    has(&ran, &["database gr\\xfcn cannot be dumped", "exclude: [gr\\xfcn]"]);
    configure(&home, &jobs(&server, "postgres", ", exclude: ['gr\\xfcn', '*_drctl_*']"));
    home.ok(&["backup", "now"]);
}

#[test]
fn f95_a_client_encoding_that_is_set_changes_nothing() {
    let server = Server::start_with("client_encoding = 'LATIN1'");
    server.sql("postgres", "create role \"dr€\"");
    server.sql("postgres", "create database shop");
    server.sql("shop", "set client_encoding = 'UTF8'; create table \"€\" as select '€'::text t");
    server.sql("postgres", "alter role postgres set client_encoding = 'LATIN1'; alter database shop set client_encoding = 'LATIN9'");
    let mut home = home(&server, "postgres", "");
    home.env("PGCLIENTENCODING", "WIN1250");
    home.ok(&["backup", "now", "--verify", "read-back"]);
    server.sql("shop", "set client_encoding = 'UTF8'; truncate \"€\"");
    home.ok(&["restore", &home.newest(), "--yes"]);
    assert_eq!(server.sql("shop", "set client_encoding = 'UTF8'; select t from \"€\""), "€");
}
