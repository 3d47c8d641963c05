//! A full set opens by the lines of its own RESTORE.md with stock tools. drctl is not used to do it: a copy of the repository, the
//! text's own lines, bash.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/guide.rs"]
mod guide;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use guide::{blocks, type_lines};
use shop::{ENV_CANARY, Shop};

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// A set of `codec`, with an artifact of several objects if `large`, opened with nothing but its own text.
fn opens_by_its_own_lines(codec: &str, encrypted: bool, large: bool) {
    let shop = Shop::new();
    let role = format!("{}_owner", shop.database);
    shop.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'; ALTER TABLE orders OWNER TO {role}; GRANT SELECT ON customers TO {role}"));
    let config = shop.file("drctl.yaml");
    let mut config = config.replace("  # codec: { zstd: 1 }", &format!("  codec: {codec}\n  # codec: {{ zstd: 1 }}"));
    if !encrypted {
        config = config.replace("  signing_key:", "  encryption: none\n  signing_key:");
        config = config.replace(&format!("[{}]", shop.database), &format!("[{}], allow_plaintext: true", shop.database));
        config =
            config.replace("environment: { from: { file: app.env } }", "environment: { from: { file: app.env }, allow_plaintext: true }");
        config = config.replace("files: [compose.yml]", "files: [compose.yml], allow_plaintext: true");
        let recipients = config.find("  recipients:").unwrap();
        let end = config[recipients..].find("  # The private key that opens").unwrap() + recipients;
        config.replace_range(recipients..end, "");
    }
    shop.home.write("drctl.yaml", &config);
    if large {
        // Random bytes, which do not get smaller: the artifact becomes two objects.
        let mut noise = std::fs::File::open("/dev/urandom").unwrap().take(70 << 20);
        std::io::copy(&mut noise, &mut std::fs::File::create(shop.home.path("uploads/large.bin")).unwrap()).unwrap();
    }
    let set = shop.backup();
    // A proof names the set too; the lines must find the commit.
    shop.home.ok(&["verify"]);
    let orders = shop.orders();
    let uploads = shop.home.path("uploads");

    let away = tempfile::tempdir().unwrap();
    let repository = away.path().join("repository");
    copy(&shop.home.path("drctl-repository"), &repository);
    let id: drctl::model::SetId = set.parse().unwrap();
    let folder = repository.join(id.prefix());
    let guide = std::fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    if encrypted {
        guide::put_key(&shop.home, &folder);
        let printed = Command::new("age-keygen").arg("-y").arg(folder.join("key.txt")).output().unwrap();
        let recipient = String::from_utf8(printed.stdout).unwrap();
        assert!(guide.contains(&format!("must print {}", recipient.trim())), "{guide}");
    }
    let second = if encrypted { "uploads.tree.tar.zst.age.002" } else { "uploads.tree.tar.002" };
    assert_eq!(folder.join(second).exists(), large, "{guide}");
    let shown = guide.clone();
    let before: Vec<(String, Vec<u8>)> = contents(&folder);

    // On a server where neither database nor role are left.
    shop.server.sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", shop.database));
    shop.server.sql("postgres", &format!("DROP ROLE {role}"));
    let new = format!("{}_by_hand", shop.database);
    let blocks: Vec<String> = blocks(&guide).iter().map(|block| block.replace("NEW_DATABASE", &new)).collect();
    assert!(blocks.len() >= 9, "{guide}");
    let globals = blocks.iter().position(|b| b.contains("globals")).unwrap_or_else(|| panic!("no globals: {guide}"));
    let dump = blocks.iter().position(|b| b.contains("pg_restore")).unwrap();
    assert!(globals < dump, "roles come before what they own: {guide}");
    let said = type_lines(&shop.server, &shop.server.bin, &folder, &blocks);

    assert!(said.contains("Signature and comment signature verified"), "{said}");
    assert!(!said.contains("NOT in the record"), "{said}");
    assert!(said.matches(": OK").count() >= 7, "{said}");
    assert_eq!(
        shop.server.sql(&new, "SELECT count(*) || ' ' || sum(price) || ' ' || md5(string_agg(item, ',' ORDER BY id)) FROM orders"),
        orders
    );
    assert_eq!(shop.server.sql(&new, "SELECT tableowner FROM pg_tables WHERE tablename = 'orders'"), role);
    assert_eq!(shop.server.sql(&new, &format!("SELECT has_table_privilege('{role}', 'customers', 'SELECT')")), "t");
    let same = Command::new("diff").arg("-r").arg(&uploads).arg(folder.join("restored").join(shop.stored("uploads"))).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    let plain = |name: &str| {
        let name = if encrypted || codec != "none" { name.to_owned() } else { format!("plain.{name}") };
        std::fs::read_to_string(folder.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}\n{shown}"))
    };
    assert!(plain("environment.variables.env").contains(ENV_CANARY));
    assert_eq!(plain("compose.compose.yml"), shop.file("compose.yml"));
    assert!(plain("drctl.yaml").contains("job: shop"));
    assert!(plain("details.json").contains(&shop.database));
    // Nothing of the set itself was changed by it.
    for (name, bytes) in before {
        assert_eq!(std::fs::read(folder.join(&name)).unwrap(), bytes, "{name}");
    }
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

#[test]
fn a_zstd_set_opens_by_its_own_lines() {
    opens_by_its_own_lines("zstd", true, true);
}

#[test]
fn a_gzip_set_opens_by_its_own_lines() {
    opens_by_its_own_lines("gzip", true, false);
}

#[test]
fn a_set_that_is_not_compressed_opens_by_its_own_lines() {
    opens_by_its_own_lines("none", true, false);
}

/// Neither compressed nor sealed: the stored files have the plain names, and `cat X > X` would empty them.
#[test]
fn a_plain_set_opens_by_its_own_lines_and_is_not_harmed_by_them() {
    opens_by_its_own_lines("none", false, true);
}

/// What calls by a bare name cannot be loaded by pg_restore, which empties the search_path: the guide says how it is loaded after all.
#[test]
fn f89_what_pg_restore_leaves_out_comes_back_by_the_words_of_the_guide() {
    let shop = Shop::new();
    shop.sql(
        "CREATE FUNCTION plain(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'select lower(t)';
         CREATE FUNCTION slug(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'select plain(t)';
         CREATE TABLE posts (id int PRIMARY KEY, title text, slug text GENERATED ALWAYS AS (slug(title)) STORED);
         INSERT INTO posts SELECT i, 'Title ' || i FROM generate_series(1, 50) i;
         CREATE TABLE tags (tag text CHECK (slug(tag) <> ''));
         INSERT INTO tags SELECT 'Tag ' || i FROM generate_series(1, 30) i;
         CREATE FUNCTION dear() RETURNS SETOF int LANGUAGE sql AS 'select id from orders where price > 1000';
         CREATE MATERIALIZED VIEW dearest AS SELECT d FROM dear() d;
         CREATE INDEX by_slug ON orders (slug(item))",
    );
    let picture = "SELECT (SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM posts p) || (SELECT count(*) FROM dearest) ||
        (SELECT count(*) FROM tags) || (SELECT count(*) FROM orders) || (SELECT string_agg(indexname, ',' ORDER BY indexname) FROM pg_indexes WHERE schemaname = 'public')";
    let whole = shop.sql(picture);
    let set = shop.backup();
    let folder = shop.home.set_folder(&set);
    guide::put_key(&shop.home, &folder);
    let text = std::fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    let new = format!("{}_by_hand", shop.database);
    let lines: Vec<String> = blocks(&text).iter().map(|block| block.replace("NEW_DATABASE", &new)).collect();
    let said = type_lines(&shop.server, &shop.server.bin, &folder, &lines);
    // One table is made and its rows fail, the other cannot even be made.
    assert!(said.contains("pg_restore: error: COPY failed for table \"tags\""), "{said}");

    // Now by the words: statements again, the rows of the table by the line that is told.
    let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let again = words.split("`| pg_restore --data-only").nth(1).and_then(|rest| rest.split("`.").next()).unwrap();
    let again = |table: &str| format!("| pg_restore --data-only{again}").replace("TABLE", table).replace("NEW_DATABASE", &new);
    let load = lines.iter().find(|block| block.contains("pg_restore")).unwrap();
    let open = load.lines().find(|line| line.contains("| LC_ALL=C ")).unwrap().split("| LC_ALL=C ").next().unwrap();
    let errors =
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).find(|path| path.extension().is_some_and(|e| e == "errors"));
    let errors = std::fs::read_to_string(errors.unwrap()).unwrap();
    let mut repeated = Vec::new();
    for error in errors.split("pg_restore: error: ").skip(1) {
        if error.starts_with("COPY failed for table \"tags\"") {
            repeated.push(format!("{open}{}\n", again("tags")));
        } else if error.contains("Command was: COPY public.posts ") {
            repeated.push(format!("{open}{}\n", again("posts")));
        } else if let Some((_, statement)) = error.split_once("Command was: ") {
            let statement = statement.split("pg_restore: ").next().unwrap();
            repeated.push(format!("psql -v ON_ERROR_STOP=1 --dbname={new} <<'END'\n{statement}\nEND\n"));
        }
    }
    assert!(repeated.len() > 5, "{errors}");
    repeated.insert(0, "set -o pipefail\n".to_owned());
    type_lines(&shop.server, &shop.server.bin, &folder, &repeated);
    assert_eq!(shop.server.sql(&new, picture), whole);
}

/// What the recovery file says of life without drctl: the lines below, age, the passphrase.
#[test]
fn the_recovery_file_gives_the_key_to_stock_age() {
    let shop = Shop::new();
    let set = shop.backup();
    let recovery = shop.file("drctl-recovery.txt");
    assert!(recovery.contains("age -d sealed.age > identity.txt"), "{recovery}");
    let sealed = &recovery[recovery.find("-----BEGIN").unwrap()..];
    let folder = shop.home.set_folder(&set);
    std::fs::write(folder.join("sealed.age"), sealed).unwrap();
    // age asks at a terminal: `script` is one.
    let mut script = Command::new("script");
    script.args(["-qec", "age -d sealed.age > identity.txt", "/dev/null"]).current_dir(&folder);
    let mut asked = script.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    use std::io::Write;
    asked.stdin.as_mut().unwrap().write_all(b"correct horse battery staple\n").unwrap();
    let output = asked.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let opened = Command::new("bash")
        .args(["-c", "age -d -i identity.txt environment.variables.env.zst.age | zstd -d"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&opened.stdout).contains(ENV_CANARY), "{}", String::from_utf8_lossy(&opened.stderr));
}

/// What the other tests may leave out, for it takes a second each.
#[test]
fn a_passphrase_is_as_dear_to_guess_as_with_stock_age() {
    use base64::Engine as _;
    let home = cli::Home::new();
    home.write("passphrase", "correct horse battery staple");
    let mut init = home.command(&["init", "--job", "shop", "--passphrase-file", "passphrase"]);
    assert!(init.env_remove("DRCTL_TEST_WEAK_PASSPHRASE").output().unwrap().status.success());
    let recovery = std::fs::read_to_string(home.path("drctl-recovery.txt")).unwrap();
    let sealed: String = recovery.lines().skip_while(|line| !line.starts_with("-----BEGIN AGE")).skip(1).take(4).collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(sealed).unwrap();
    let header = String::from_utf8_lossy(&bytes);
    let stanza = header.lines().nth(1).unwrap();
    assert!(stanza.starts_with("-> scrypt ") && stanza.ends_with(" 18"), "{stanza}");
}

/// A changed object is seen by the guide's own check.
#[test]
fn the_check_of_the_guide_finds_damage() {
    let shop = Shop::new();
    let set = shop.backup();
    let folder = shop.home.set_folder(&set);
    let guide = std::fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    let check = blocks(&guide).into_iter().find(|block| block.contains("sha256sum")).unwrap();
    let object = folder.join("uploads.tree.tar.zst.age");
    let mut bytes = std::fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let output = Command::new("bash").arg("-c").arg(&check).current_dir(&folder).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("uploads.tree.tar.zst.age: FAILED"));
}
