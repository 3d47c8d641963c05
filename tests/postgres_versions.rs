//! Clients of one major version of PostgreSQL with servers of another: what they back up comes back by every way there is.
//!
//! PostgreSQL 15 is Debian's, 16 and 18 come from scripts/postgres-wheels.sh. Each test has a server of its own: roles are of the whole server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/guide.rs"]
mod guide;
#[path = "support/postgres.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use cli::Home;
use support::{PASSWORD, Server, bin_of};

/// All kinds of things that a database of its age can hold.
const RICH: &str = include_str!("data/rich.sql");
/// A role that the database belongs to, and what belongs to it; `owner` holds no role of its own server.
const ROLES: &str = "CREATE ROLE owner LOGIN PASSWORD 'x' CREATEROLE; CREATE ROLE reader NOLOGIN; CREATE ROLE member LOGIN NOINHERIT;
    GRANT reader TO owner WITH ADMIN OPTION; GRANT reader TO member; GRANT pg_monitor TO reader; ALTER ROLE member SET work_mem = '1MB'";
const OWNED: &str = "ALTER TABLE people OWNER TO owner; GRANT SELECT (name) ON people TO reader; ALTER SCHEMA app OWNER TO owner;
    ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA app GRANT SELECT ON TABLES TO reader; GRANT USAGE ON SCHEMA app TO reader WITH GRANT OPTION;
    CREATE POLICY own ON people FOR SELECT TO reader USING (id > 10); ALTER TABLE people ENABLE ROW LEVEL SECURITY";

/// A database on a server of its own, backed up by clients of one version.
struct Pair {
    home: Home,
    server: Server,
    /// The clients' programs.
    client: PathBuf,
}

impl Pair {
    /// `None`, said aloud, where one of the two is not here.
    fn new(client: u32, server: u32) -> Option<Pair> {
        let (client, server) = (bin_of(client)?, Server::start_version(server)?);
        let home = Home::new();
        server.sql("postgres", ROLES);
        server.sql("postgres", "CREATE DATABASE shop OWNER owner");
        server.sql(
            "postgres",
            "ALTER DATABASE shop SET search_path = public, app; GRANT CONNECT ON DATABASE shop TO reader;
             ALTER ROLE reader IN DATABASE shop SET work_mem = '2MB'",
        );
        server.sql("shop", RICH);
        server.sql("shop", OWNED);
        home.write("pg-password", PASSWORD);
        let pair = Pair { home, server, client };
        pair.home.init(&pair.job(&[&pair.client]));
        Some(pair)
    }

    fn job(&self, clients: &[&Path]) -> String {
        let folders: Vec<String> = clients.iter().map(|folder| folder.display().to_string()).collect();
        format!(
            "jobs:\n  - job: shop\n    timezone: UTC\n    sources:\n      - postgres: {{ host: 127.0.0.1, port: {}, user: postgres, \
             password: {{ file: pg-password }}, database: [shop], client_folders: [{}] }}\n",
            self.server.port,
            folders.join(", ")
        )
    }

    fn backup(&self) -> String {
        self.home.ok(&["backup", "now"]);
        let verified = self.home.ok(&["verify"]);
        assert!(verified.out.contains("read-back"), "{}", verified.out);
        self.home.newest()
    }

    /// Writes over what is there, and loses what holds no rows.
    fn damage(&self) {
        self.server.sql("shop", "DROP PUBLICATION whole; UPDATE people SET name = 'lost'; DROP VIEW grown_up; DROP INDEX people_lower");
    }
}

/// All that a database holds, as text: what pg_dump says of it. In which leaf of `hashed` a row is, the numbers of the enum's values decide, which
/// each database has its own of: the lines are sorted.
fn picture(server: &Server, client: &Path, database: &str) -> Vec<String> {
    let mut dump = Command::new(client.join("pg_dump"));
    dump.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &server.port.to_string(), "-d", database]).env("PGPASSWORD", PASSWORD);
    let output = dump.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // A key that is new each time.
    let mut lines: Vec<String> =
        text.lines().filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict")).map(str::to_owned).collect();
    lines.sort();
    assert!(lines.len() > 1500, "{} lines", lines.len());
    lines
}

/// What the server holds of the database besides.
fn properties(server: &Server) -> String {
    server.sql(
        "postgres",
        "SELECT pg_get_userbyid(datdba), datacl, (SELECT array_agg(setrole::regrole || setconfig::text ORDER BY 1) FROM pg_db_role_setting
         WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = 'shop'",
    )
}

/// Two texts line by line; what differs is shown.
#[track_caller]
fn assert_same(have: &[String], want: &[String], when: &str) {
    let missing: Vec<&String> = want.iter().filter(|line| !have.contains(line)).collect();
    let added: Vec<&String> = have.iter().filter(|line| !want.contains(line)).collect();
    assert!(have == want, "{when}\nmissing: {missing:#?}\nadded: {added:#?}");
}

/// Back by every way: beside, in place, by the lines of the set's own guide.
fn comes_back(client: u32, server: u32) {
    let pair_of = format!("clients {client} with server {server}");
    let Some(pair) = Pair::new(client, server) else { return };
    let Pair { home, server, client } = &pair;
    let (whole, around) = (picture(server, client, "shop"), properties(server));
    let set = pair.backup();

    pair.damage();
    let beside = home.ok(&["restore", &set, "--yes"]);
    assert!(beside.out.contains("counted as in the backup"), "{}", beside.all());
    assert_same(&picture(server, client, "shop"), &whole, "beside");
    assert_eq!(properties(server), around);
    home.ok(&["restore", "--finish", "--yes"]);

    pair.damage();
    home.ok(&["restore", &set, "--in-place", "--yes"]);
    assert_same(&picture(server, client, "shop"), &whole, "in place");
    assert_eq!(properties(server), around);

    // The server lost all of it.
    server.sql("postgres", "DROP DATABASE shop");
    server.sql("postgres", "DROP ROLE owner, reader, member");
    let folder = home.set_folder(&set);
    guide::put_key(home, &folder);
    let text = std::fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    let blocks: Vec<String> = guide::blocks(&text).iter().map(|block| block.replace("NEW_DATABASE", "by_hand")).collect();
    guide::type_lines(server, client, &folder, &blocks);
    assert_same(&picture(server, client, "by_hand"), &whole, "by hand");
    println!("{pair_of}: backup, verify, restore beside, in place, by the lines of RESTORE.md");
}

macro_rules! pairs {
    ($($name:ident: $client:literal, $server:literal;)*) => {
        $(
            #[test]
            fn $name() {
                comes_back($client, $server);
            }
        )*
    };
}

pairs! {
    f89_clients_15_with_server_15: 15, 15;
    f89_clients_16_with_server_15: 16, 15;
    f89_clients_18_with_server_15: 18, 15;
    f89_clients_16_with_server_16: 16, 16;
    f89_clients_18_with_server_16: 18, 16;
    f89_clients_18_with_server_18: 18, 18;
}

/// A set of an old server goes into a newer one, whichever of two clients made it.
fn goes_into_a_newer(clients: &[u32], server: u32, newer: u32) {
    let Some(folders) = clients.iter().map(|major| bin_of(*major)).collect::<Option<Vec<PathBuf>>>() else { return };
    let (Some(mut pair), Some(newer)) = (Pair::new(clients[0], server), Server::start_version(newer)) else { return };
    let last = folders.last().unwrap();
    let whole = picture(&pair.server, last, "shop");
    let set = pair.backup();
    let config = std::fs::read_to_string(pair.home.path("drctl.yaml")).unwrap();
    let head = config[..config.rfind("\njobs:").unwrap() + 1].to_owned();
    pair.home.write("drctl.yaml", &(head + &pair.job(&folders.iter().map(PathBuf::as_path).collect::<Vec<_>>())));
    let url = format!("postgres://postgres@127.0.0.1:{}", newer.port);
    pair.home.env("PGPASSWORD", PASSWORD);
    let restored = pair.home.ok(&["restore", &set, "--target", &url, "--yes"]);
    assert!(restored.out.contains("counted as in the backup"), "{}", restored.all());
    // Views are shown with a table's name in front by servers up to 15, later only where two tables are in question.
    let common = |lines: Vec<String>| {
        let lines = lines.iter().filter(|line| !line.starts_with("-- Dumped from")).map(|line| line.replace("people.", ""));
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines
    };
    assert_same(&common(picture(&newer, last, "shop")), &common(whole), "into the newer");
    println!("clients {clients:?}: backup of a server {server}, verify, restore into another");
}

#[test]
fn f89_a_set_of_server_15_by_its_own_clients_goes_into_server_18() {
    goes_into_a_newer(&[15, 18], 15, 18);
}

#[test]
fn f89_a_set_of_server_15_by_clients_18_goes_into_server_18() {
    goes_into_a_newer(&[18], 15, 18);
}

#[test]
fn f89_a_set_of_server_15_by_clients_18_goes_into_server_16() {
    goes_into_a_newer(&[18], 15, 16);
}

#[test]
fn f89_a_set_of_server_16_by_its_own_clients_goes_into_server_18() {
    goes_into_a_newer(&[16, 18], 16, 18);
}

/// Settings go with versions, and with what else a server has: what the target does not take is left out, named, and no reason to refuse.
#[test]
fn f89_settings_that_the_target_does_not_know_are_left_out_and_named() {
    let Some(pair) = Pair::new(15, 15) else { return };
    let Pair { home, server, client } = &pair;
    // As pg_upgrade leaves them.
    server.sql(
        "postgres",
        "UPDATE pg_db_role_setting SET setconfig = setconfig || '{old_snapshot_age=canary,lc_monetary=xx_XX,app.secret=canary}'::text[]
           WHERE setdatabase <> 0;
         UPDATE pg_db_role_setting SET setconfig = setconfig || '{gone_for_good=canary,lc_time=canary}'::text[] WHERE setdatabase = 0",
    );
    let whole = picture(server, client, "shop");
    let set = pair.backup();
    for in_place in [false, true] {
        server.sql("postgres", "DROP DATABASE shop");
        server.sql("postgres", "DROP ROLE owner, reader, member");
        let args = [&["restore", &set, "--yes"][..], if in_place { &["--in-place", "--no-safety-set"] } else { &[] }].concat();
        let ran = home.ok(&args);
        for words in [
            "Database shop: its setting old_snapshot_age is left out, as the server does not know it",
            "Database shop: its setting lc_monetary is left out, as the server does not take its value",
            "Database shop: its setting old_snapshot_age of role reader is left out",
            "left out is role member: its setting gone_for_good, as the server does not know it",
            "left out is role member: its setting lc_time, as the server does not take its value",
        ] {
            assert!(ran.all().contains(words), "{words}\n{}", ran.all());
        }
        assert!(!ran.all().contains("canary"), "{}", ran.all());
        assert_same(&picture(server, client, "shop"), &whole, "without its settings");
        let kept = server.sql("postgres", "SELECT setconfig FROM pg_db_role_setting WHERE setdatabase <> 0 AND setrole = 0");
        assert!(kept.contains("search_path") && kept.contains("app.secret=canary") && !kept.contains("old_snapshot_age"), "{kept}");
    }
}
