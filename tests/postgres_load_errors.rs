//! Dumps that `pg_restore` loads with errors (FAULTS 90 to 92): what it brings back, drctl brings back, and what a search_path or the order
//! alone was wrong with, too.
//!
//! Each file of tests/data/load_errors makes a database and says in its first lines what shape it is, who meets it, and what drctl must make
//! of it:
//! ```text
//! -- expect: whole       all comes back as it was
//! -- expect: errors 1    one thing is lost that no path and no order brings back: it is listed, and a person decides
//! -- expect: lost        rows are lost with it: nothing is switched, whatever is accepted
//! -- named: TEXT         what the list must name
//! -- reason: TEXT        words of the server that must stand there
//! -- more: TEXT          an object that the source has not and the result may have
//! -- changed: TEXT       an object that is there again otherwise than it was
//! -- in place: TEXT      words with which it is refused there
//! ```
//! Beside it stands what `pg_restore` without `--exit-on-error` makes of the same dump. The table of all is printed: `-- --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/postgres.rs"]
mod support;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cli::{Home, Ran};
use serde_json::Value;
use support::{PASSWORD, Server, shared};

/// Kind and name of an object, and what it is like.
type Picture = BTreeMap<(String, String), Value>;

#[derive(Debug, PartialEq)]
enum Expect {
    Whole,
    Errors(u32),
    Lost,
}

struct Shape {
    name: String,
    path: PathBuf,
    text: String,
    expect: Expect,
}

impl Shape {
    fn of(path: PathBuf) -> Shape {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut shape = Shape { name, path, text, expect: Expect::Whole };
        let said = shape.said("expect");
        shape.expect = match said.as_slice() {
            ["whole"] => Expect::Whole,
            ["lost"] => Expect::Lost,
            [errors] => Expect::Errors(errors.strip_prefix("errors ").unwrap().parse().unwrap()),
            other => panic!("{}: {other:?}", shape.name),
        };
        shape
    }

    /// What the lines `-- WORD: …` say.
    fn said(&self, word: &str) -> Vec<&str> {
        let begin = format!("-- {word}: ");
        self.text.lines().filter_map(|line| line.strip_prefix(begin.as_str())).collect()
    }

    /// Names and words that a list of what failed must hold.
    fn to_be_told(&self) -> Vec<&str> {
        [self.said("named"), self.said("reason")].concat()
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn shapes() -> Vec<Shape> {
    let folder = std::fs::read_dir(data().join("load_errors")).unwrap();
    let mut paths: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(Shape::of).collect()
}

/// A program of PostgreSQL at this server.
fn client(server: &Server, program: &str) -> Command {
    let mut command = Command::new(server.bin.join(program));
    command.args(["-h", "127.0.0.1", "-U", "postgres", "-p"]).arg(server.port.to_string()).env("PGPASSWORD", PASSWORD);
    command
}

fn read_file(server: &Server, database: &str, file: &Path) -> Output {
    let mut psql = client(server, "psql");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-f"]).arg(file);
    let output = psql.output().unwrap();
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    output
}

fn picture(server: &Server, database: &str) -> Picture {
    let output = read_file(server, database, &data().join("load_fingerprint.sql"));
    let lines = String::from_utf8(output.stdout).unwrap();
    let object = |line: &str| -> ((String, String), Value) {
        let (kind, name, what) = serde_json::from_str(line).unwrap();
        ((kind, name), what)
    };
    let objects: Vec<_> = lines.lines().filter(|line| !line.is_empty()).map(object).collect();
    let all = objects.len();
    let picture: Picture = objects.into_iter().collect();
    assert_eq!(picture.len(), all, "two objects of one name");
    picture
}

/// The objects of one that another has not, or has otherwise.
fn lacking<'a>(of: &'a Picture, in_other: &Picture) -> Vec<&'a (String, String)> {
    of.iter().filter(|(key, what)| in_other.get(*key) != Some(what)).map(|(key, _)| key).collect()
}

/// One shape on the server: its database, what pg_restore makes of it, and a set.
struct Case {
    shape: Shape,
    server: Arc<Server>,
    home: Home,
    database: String,
    source: Picture,
    /// What plain pg_restore brings back, and with how many errors.
    plain: Picture,
    plain_errors: usize,
    set: String,
}

impl Case {
    fn make(shape: Shape, server: Arc<Server>) -> Case {
        let database = format!("le_{}", shape.name);
        server.sql("postgres", &format!("CREATE DATABASE \"{database}\" TEMPLATE template0"));
        read_file(&server, &database, &shape.path);
        let source = picture(&server, &database);
        let (plain, plain_errors) = plain_restore(&server, &database);
        let home = Home::new();
        home.write("pg-password", PASSWORD);
        let job = format!(
            "jobs:\n  - job: le\n    timezone: UTC\n    sources:\n      - postgres: {{ host: 127.0.0.1, port: {}, user: postgres, \
             password: {{ file: pg-password }}, database: [{database}] }}\n",
            server.port
        );
        home.init(&job);
        home.ok(&["backup", "now"]);
        let set = home.newest();
        Case { shape, server, home, database, source, plain, plain_errors, set }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let ran = self.home.run(&[&["restore", &self.set, "--yes"], args].concat());
        assert!(!ran.all().contains("canary"), "rows and passwords are told to nobody: {}", ran.all());
        ran
    }

    fn picture(&self) -> Picture {
        picture(&self.server, &self.database)
    }

    fn oid(&self) -> String {
        self.server.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = '{}'", self.database))
    }

    /// Other databases of this one, such as what a restore keeps.
    fn beside(&self) -> Vec<String> {
        let sql = format!("SELECT datname FROM pg_database WHERE starts_with(datname, '{}_') ORDER BY 1", self.database);
        self.server.sql("postgres", &sql).lines().map(str::to_owned).collect()
    }

    /// Nothing that plain pg_restore brings back is missing, nothing is there that neither had.
    fn not_less_than_plain(&self, got: &Picture, ran: &Ran) {
        let changed = self.shape.said("changed");
        let may_differ = |key: &(String, String)| got.contains_key(key) && changed.contains(&format!("{} {}", key.0, key.1).as_str());
        let less = lacking(&self.plain, got).into_iter().filter(|key| self.source.get(*key) != got.get(*key) && !may_differ(key));
        let less: Vec<_> = less.map(|key| (key, &self.plain[key], got.get(key), self.source.get(key))).collect();
        assert!(less.is_empty(), "pg_restore brings back what drctl does not (it, drctl, the source): {less:#?}\n{}", ran.all());
        let more = self.said_more();
        let of_nobody = |key: &&(String, String)| !self.source.contains_key(*key) && !self.plain.contains_key(*key);
        let doubled: Vec<_> = got.keys().filter(of_nobody).filter(|key| !more.contains(&format!("{} {}", key.0, key.1))).collect();
        assert!(doubled.is_empty(), "{doubled:#?}\n{}", ran.all());
    }

    fn said_more(&self) -> Vec<String> {
        self.shape.said("more").into_iter().flat_map(|object| [object.to_owned(), format!("right {object}")]).collect()
    }

    fn whole(&self, got: &Picture, ran: &Ran) {
        let lost: Vec<_> = lacking(&self.source, got).into_iter().map(|key| (key, &self.source[key], got.get(key))).collect();
        assert!(lost.is_empty(), "not as it was: {lost:#?}\n{}", ran.all());
        let more = self.said_more();
        let other: Vec<_> = got.keys().filter(|key| !self.source.contains_key(*key)).collect();
        let other: Vec<_> = other.into_iter().filter(|key| !more.contains(&format!("{} {}", key.0, key.1))).collect();
        assert!(other.is_empty(), "not of the source: {other:#?}\n{}", ran.all());
    }

    /// Refused: what is live is what it was, and the list says what failed and why.
    fn refused(&self, args: &[&str]) -> Ran {
        let (oid, before) = (self.oid(), self.picture());
        let ran = self.run(args);
        assert!(![0, 2, 3].contains(&ran.code), "{args:?} {}: {}", ran.code, ran.all());
        assert_eq!(self.oid(), oid, "{args:?} switched: {}", ran.all());
        assert_eq!(self.picture(), before, "{args:?}: {}", ran.all());
        for word in self.shape.to_be_told() {
            assert!(ran.all().contains(word), "{args:?} must tell {word:?}: {}", ran.all());
        }
        ran
    }

    /// Switched with errors that were accepted: exit 3, all of them listed.
    fn switched_with_errors(&self, args: &[&str]) -> Picture {
        let oid = self.oid();
        let ran = self.run(args);
        assert_eq!(ran.code, 3, "{args:?}: {}", ran.all());
        assert_ne!(self.oid(), oid, "{args:?}: {}", ran.all());
        for word in self.shape.to_be_told() {
            assert!(ran.all().contains(word), "{args:?} must tell {word:?}: {}", ran.all());
        }
        let got = self.picture();
        self.not_less_than_plain(&got, &ran);
        got
    }

    fn beside_the_live(&self) -> Picture {
        let oid = self.oid();
        let got = match self.shape.expect {
            Expect::Whole => {
                let ran = self.run(&[]);
                assert_eq!(ran.code, 0, "{}", ran.all());
                assert_ne!(self.oid(), oid, "{}", ran.all());
                let got = self.picture();
                self.not_less_than_plain(&got, &ran);
                self.whole(&got, &ran);
                got
            }
            Expect::Errors(count) => {
                self.refused(&[]);
                self.refused(&["--accept-load-errors", &(count - 1).to_string()]);
                self.switched_with_errors(&["--accept-load-errors", &count.to_string()])
            }
            Expect::Lost => {
                self.refused(&[]);
                self.refused(&["--accept-load-errors", "9"]);
                return self.picture();
            }
        };
        self.home.ok(&["restore", "--finish", "--yes"]);
        assert!(self.beside().is_empty(), "{:?}", self.beside());
        got
    }

    /// In place; what is live now is what a restore made before. Whatever happens, there is a live database or something is kept and named.
    fn in_place(&self) {
        let oid = self.oid();
        let args = ["--in-place", "--no-safety-set"];
        if let [words] = self.shape.said("in place")[..] {
            let ran = self.refused(&args);
            assert!(ran.all().contains(words), "{}", ran.all());
            return;
        }
        let ran = self.run(&args);
        let live = self.oid();
        if live.is_empty() {
            let kept = self.beside();
            assert!(!kept.is_empty(), "nothing live and nothing kept: {}", ran.all());
            assert!(kept.iter().all(|name| ran.all().contains(name)), "{kept:?} must be named: {}", ran.all());
            assert_ne!(self.shape.expect, Expect::Whole, "{}", ran.all());
            self.not_less_than_plain(&picture(&self.server, &kept[0]), &ran);
        }
        match self.shape.expect {
            Expect::Whole => {
                assert_eq!(ran.code, 0, "{}", ran.all());
                assert_ne!(live, oid, "{}", ran.all());
                self.whole(&self.picture(), &ran);
            }
            Expect::Errors(count) => {
                assert!(![0, 2].contains(&ran.code), "{}: {}", ran.code, ran.all());
                for word in self.shape.to_be_told() {
                    assert!(ran.all().contains(word), "must tell {word:?}: {}", ran.all());
                }
                self.switched_with_errors(&[&args[..], &["--accept-load-errors", &count.to_string()]].concat());
            }
            Expect::Lost => assert!(![0, 2].contains(&ran.code), "{}: {}", ran.code, ran.all()),
        }
    }

    /// Its line of the table: objects of the source as they were, by pg_restore and by drctl.
    fn line(&self, got: &Picture, took: Duration) -> String {
        let all = self.source.len();
        let as_they_were = |picture: &Picture| all - lacking(&self.source, picture).len();
        let (plain, drctl) = (as_they_were(&self.plain), as_they_were(got));
        format!(
            "| {} | {all} | {plain} ({} errors) | {drctl} | {:?} | {:.1} s |",
            self.shape.name,
            self.plain_errors,
            self.shape.expect,
            took.as_secs_f32()
        )
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        for database in [vec![self.database.clone()], self.beside()].concat() {
            discard(&self.server, &database);
        }
    }
}

/// Drops a database, with its subscriptions; it may be gone.
fn discard(server: &Server, database: &str) {
    let subscriptions = "SELECT format('DROP SUBSCRIPTION %I', subname) FROM pg_subscription \
                         WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \\gexec\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), subscriptions).unwrap();
    let mut psql = client(server, "psql");
    let _ = psql.args(["-X", "-q", "-d", database, "-f"]).arg(file.path()).output();
    let mut psql = client(server, "psql");
    let _ = psql.args(["-X", "-q", "-d", "postgres", "-c"]).arg(format!("DROP DATABASE IF EXISTS \"{database}\" WITH (FORCE)")).output();
}

/// What a person gets from `pg_dump -Fc` and `pg_restore -d`, and how many errors it ignored.
fn plain_restore(server: &Server, database: &str) -> (Picture, usize) {
    let plain = format!("plain_{database}");
    server.sql("postgres", &format!("CREATE DATABASE \"{plain}\" TEMPLATE template0"));
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    let dumped = client(server, "pg_dump").args(["-Fc", "-d", database, "-f"]).arg(&dump).output().unwrap();
    assert!(dumped.status.success(), "{database}: {}", String::from_utf8_lossy(&dumped.stderr));
    let loaded = client(server, "pg_restore").args(["-d", &plain]).arg(&dump).output().unwrap();
    let told = String::from_utf8_lossy(&loaded.stderr).into_owned();
    let errors = told.rsplit_once("errors ignored on restore: ").map_or(0, |(_, count)| count.trim().parse().unwrap());
    let picture = picture(server, &plain);
    discard(server, &plain);
    (picture, errors)
}

/// The server of all shapes; of another version by `LOAD_ERRORS_MAJOR=18`, with its programs first in `PATH`.
fn server() -> Arc<Server> {
    match std::env::var("LOAD_ERRORS_MAJOR") {
        Ok(major) => Arc::new(Server::start_version(major.parse().unwrap()).unwrap()),
        Err(_) => shared(),
    }
}

/// Restores each beside and in place; one that fails does not keep the others from being tried.
fn restore_each(which: impl Fn(usize, &Shape) -> bool) {
    let server = server();
    let (mut lines, mut failed) = (Vec::new(), Vec::new());
    for (at, shape) in shapes().into_iter().enumerate() {
        if !which(at, &shape) || std::env::var("LOAD_ERRORS_ONLY").is_ok_and(|only| !shape.name.starts_with(&only)) {
            continue;
        }
        let name = shape.name.clone();
        let began = Instant::now();
        let tried = catch_unwind(AssertUnwindSafe(|| {
            let case = Case::make(shape, server.clone());
            let got = case.beside_the_live();
            case.in_place();
            case.line(&got, began.elapsed())
        }));
        match tried {
            Ok(line) => lines.push(line),
            Err(_) => failed.push(name),
        }
    }
    drop(server);
    println!("{}", lines.join("\n"));
    assert!(failed.is_empty(), "not as expected: {failed:?}; see above");
}

fn is_whole(shape: &Shape) -> bool {
    shape.expect == Expect::Whole
}

#[test]
fn f90_f91_what_pg_restore_brings_back_and_more_part_1() {
    restore_each(|at, shape| is_whole(shape) && at % 4 == 0);
}

#[test]
fn f90_f91_what_pg_restore_brings_back_and_more_part_2() {
    restore_each(|at, shape| is_whole(shape) && at % 4 == 1);
}

#[test]
fn f90_f91_what_pg_restore_brings_back_and_more_part_3() {
    restore_each(|at, shape| is_whole(shape) && at % 4 == 2);
}

#[test]
fn f90_f91_what_pg_restore_brings_back_and_more_part_4() {
    restore_each(|at, shape| is_whole(shape) && at % 4 == 3);
}

#[test]
fn f91_f92_what_nothing_can_mend_is_listed_and_a_person_decides() {
    restore_each(|_, shape| !is_whole(shape));
}

/// Valid indexes and filled materialized views of users, and functions that hold settings.
fn built(server: &Server, database: &str) -> String {
    let sql = "SELECT c.oid::regclass::text FROM pg_class c LEFT JOIN pg_index ON indexrelid = c.oid \
               WHERE c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)' AND (indisvalid OR (relkind = 'm' AND relispopulated)) \
               UNION ALL SELECT oid::regprocedure::text FROM pg_proc WHERE proconfig IS NOT NULL ORDER BY 1";
    server.sql(database, sql)
}

#[test]
fn f90_a_newer_server_that_empties_the_path_itself_gets_what_an_older_one_had() {
    let Some(newer) = Server::start_version(18) else { return };
    let older = shared();
    for shape in shapes().into_iter().filter(|shape| ["03", "04", "06", "19", "27", "29", "31"].iter().any(|n| shape.name.starts_with(n))) {
        let database = format!("newer_{}", shape.name);
        older.sql("postgres", &format!("CREATE DATABASE \"{database}\" TEMPLATE template0"));
        read_file(&older, &database, &shape.path);
        let mut home = Home::new();
        home.write("pg-password", PASSWORD);
        home.init(&format!(
            "jobs:\n  - job: le\n    timezone: UTC\n    sources:\n      - postgres: {{ host: 127.0.0.1, port: {}, user: postgres, \
             password: {{ file: pg-password }}, database: [{database}], client_folders: [{}] }}\n",
            older.port,
            newer.bin.display()
        ));
        home.ok(&["backup", "now"]);
        let had = built(&older, &database);
        discard(&older, &database);
        home.env("PGPASSWORD", PASSWORD);
        let target = format!("postgres://postgres@127.0.0.1:{}/{database}", newer.port);
        let ran = home.ok(&["restore", &home.newest(), "--yes", "--target", &target]);
        assert_eq!(built(&newer, &database), had, "{}: {}", shape.name, ran.all());
        assert!(ran.all().contains("ALTER FUNCTION … SET search_path"), "{}", ran.all());
    }
}
