//! A small production lost and brought back through the program: every verb that stands between `init` and `restore --finish`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use std::process::Command;

use cli::{Home, Ran};
use shop::{ENV_CANARY, Shop, day_of};
use support::PASSWORD;

/// The restore's id, from the line that tells how to undo it.
fn restore_id(ran: &Ran) -> String {
    let line = ran.all();
    let at = line.find("drctl restore --undo ").unwrap_or_else(|| panic!("no undo line: {line}"));
    line[at..].split_whitespace().nth(3).unwrap().to_owned()
}

#[test]
fn lost_data_comes_back_by_date_can_be_undone_and_finished() {
    let shop = Shop::new();
    let whole = shop.picture();
    let made = shop.home.ok(&["backup", "now"]);
    assert!(made.out.contains("\nok shop/") || made.out.starts_with("ok shop/"), "{}", made.out);
    assert!(made.out.contains("first good set"), "{}", made.out);
    let set = shop.home.newest();

    let listed = shop.home.ok(&["list"]);
    assert!(listed.out.contains(&set) && listed.out.contains("postgres uploads environment compose hello"), "{}", listed.out);
    let shown = shop.home.ok(&["show", &set]);
    for word in ["1,000  public.orders", "50  public.customers", "1,050 rows", "2 files", "greeting"] {
        assert!(shown.out.contains(word), "{word}: {}", shown.out);
    }
    let status = shop.home.ok(&["status"]);
    assert!(status.out.contains(&set) && status.out.contains("lost if now"), "{}", status.out);
    let verified = shop.home.ok(&["verify"]);
    assert!(verified.out.contains("read-back"), "{}", verified.out);

    shop.damage();
    let lost = shop.picture();
    assert_ne!(lost, whole);
    let date = day_of(&set);

    // No terminal and no --yes: the plan, the line to type, exit 4, nothing changed.
    let asked = shop.run(&["restore", "--date", &date]);
    assert_eq!(asked.code, 4, "{}", asked.all());
    assert!(asked.err.contains("What is lost") && asked.err.contains(&format!("drctl restore {set} --yes")), "{}", asked.err);
    assert_eq!((shop.picture(), shop.databases().len(), shop.beside().len()), (lost.clone(), 1, 0));

    let dry = shop.home.ok(&["restore", "--date", &date, "--dry-run"]);
    for word in ["RESTORE shop/", "(UTC)", "proven read-back", "postgres into PostgreSQL", "uploads into", "Left out: environment"] {
        assert!(dry.out.contains(word), "{word}: {}", dry.out);
    }
    assert_eq!((shop.picture(), shop.databases().len(), shop.beside().len()), (lost.clone(), 1, 0));

    let done = shop.home.ok(&["restore", "--date", &date, "--yes"]);
    assert!(done.out.contains("counted as in the backup") && done.out.contains("kept: "), "{}", done.out);
    assert_eq!(shop.picture(), whole, "{}", done.all());
    let id = restore_id(&done);
    assert_eq!(shop.databases(), [shop.database.clone(), format!("{}_drctl_old_{id}", shop.database)]);
    assert_eq!(shop.beside(), [format!("uploads.drctl-old-{id}")]);
    // The environment is not touched unless it is named.
    assert!(shop.file("app.env").contains(ENV_CANARY));
    let status = shop.home.ok(&["status"]);
    assert!(status.out.contains(&id) && status.out.contains("old data kept aside"), "{}", status.out);
    assert!(done.out.contains("then:            vacuumdb --host=127.0.0.1 "), "{}", done.out);

    let undone = shop.home.ok(&["restore", "--undo"]);
    assert!(undone.out.contains(&id), "{}", undone.out);
    assert_eq!(shop.picture(), lost, "{}", undone.all());
    let finished = shop.home.ok(&["restore", "--finish", "--yes"]);
    assert_eq!((shop.databases().len(), shop.beside().len()), (1, 0), "{}", finished.all());
    assert_eq!(shop.run(&["restore", "--undo"]).code, 6);

    // And once more for good.
    let done = shop.home.ok(&["restore", &set, "--yes"]);
    assert!(done.err.contains("The last restore of this job took"), "{}", done.err);
    let id = restore_id(&done);
    shop.home.ok(&["restore", "--finish", &id, "--yes"]);
    assert_eq!((shop.picture(), shop.databases().len(), shop.beside().len()), (whole, 1, 0));
    assert!(!shop.home.ok(&["status"]).out.contains(&id));
    let again = shop.run(&["restore", "--undo", &id]);
    assert_eq!(again.code, 4, "{}", again.all());
}

#[test]
fn other_places_only_some_sources_and_in_place() {
    let shop = Shop::new();
    let whole = shop.picture();
    let set = shop.backup();
    shop.damage();
    let lost = shop.picture();

    // Another database, another folder: nothing live is touched.
    let scratch = format!("{}_scratch", shop.database);
    let url = format!("postgres://postgres@127.0.0.1:{}/{scratch}", shop.server.port);
    let into = shop.home.ok(&["restore", &set, "--source", "postgres", "--target", &url, "--yes"]);
    assert_eq!(shop.server.sql(&scratch, "SELECT count(*) FROM orders"), "1000", "{}", into.all());
    let into = shop.home.ok(&["restore", &set, "--source", "uploads", "--target", "elsewhere", "--yes"]);
    assert_eq!(shop.file(&format!("elsewhere/{}", shop.stored("uploads/a.txt"))), "alpha", "{}", into.all());
    assert_eq!((shop.picture(), shop.beside().len()), (lost.clone(), 0));
    let taken = shop.run(&["restore", &set, "--source", "uploads", "--target", "elsewhere", "--yes"]);
    assert_eq!(taken.code, 4, "{}", taken.all());

    // The environment is laid aside, no value is printed.
    let aside = shop.home.ok(&["restore", &set, "--source", "environment", "--source", "compose", "--yes"]);
    assert!(!aside.all().contains(ENV_CANARY) && aside.all().contains("cp "), "{}", aside.all());
    let made = std::fs::read_dir(shop.home.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let made: Vec<String> = made.filter(|name| name.starts_with("drctl-restore-")).collect();
    let [folder] = made.as_slice() else { panic!("{made:?}") };
    let day = folder.trim_start_matches("drctl-restore-");
    // Of when it was read, which may be behind the midnight that the run began before.
    assert!(day.len() == 8 && *day >= *day_of(&set), "{folder}");
    let laid = shop.home.files(folder);
    assert_eq!(laid.len(), 2, "{laid:?}");
    assert!(laid.iter().any(|f| shop.file(&format!("{folder}/{f}")).contains(ENV_CANARY)), "{laid:?}");
    assert!(!aside.out.contains("--undo"), "there is nothing to undo: {}", aside.out);

    // What drctl cannot load by itself says how a person can.
    let command = shop.run(&["restore", &set, "--source", "hello", "--yes"]);
    assert_eq!(command.code, 4, "{}", command.all());
    assert!(command.err.contains("drctl cat"), "{}", command.err);
    let unknown = shop.run(&["restore", &set, "--source", "mongo", "--dry-run"]);
    assert_eq!(unknown.code, 6);
    assert!(unknown.err.contains("its sources are: postgres, uploads"), "{}", unknown.err);

    // In place: a safety set first, then over the live data, and back by the safety set.
    let sets = shop.home.sets().len();
    let done = shop.home.ok(&["restore", &set, "--in-place", "--source", "postgres", "--yes"]);
    assert!(shop.picture().ends_with(&shop.orders()) && shop.orders().starts_with("1000 "), "{}", done.all());
    assert_eq!(shop.home.sets().len(), sets + 1, "the safety set");
    let safety = shop.home.newest();
    assert!(done.err.contains(&format!("drctl restore {safety} --in-place")), "{}", done.err);
    shop.home.ok(&["restore", &safety, "--in-place", "--no-safety-set", "--yes"]);
    assert_eq!(shop.picture(), lost);
    assert_eq!(shop.databases().len(), 1, "in place keeps nothing aside");
    // Files are laid beside even then, and can be put back; the database cannot.
    let done = shop.home.ok(&["restore", &set, "--in-place", "--no-safety-set", "--yes"]);
    assert_eq!(shop.picture(), whole, "{}", done.all());
    let undone = shop.home.ok(&["restore", "--undo"]);
    assert!(undone.out.contains("postgres was loaded in place and stays"), "{}", undone.out);
    assert_eq!((shop.file("uploads/a.txt").as_str(), shop.orders().starts_with("1000 ")), ("overwritten", true));
    shop.home.ok(&["restore", "--finish", "--yes"]);
    assert!(shop.beside().is_empty() && !shop.home.ok(&["status"]).out.contains("restore --"));
}

#[test]
fn every_way_to_name_a_set_and_what_is_said_when_there_is_none() {
    let shop = Shop::new();
    let set = shop.backup();
    let bare = set.split('/').nth(1).unwrap();
    let date = day_of(&set);
    let dashed = format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for word in [&set, bare, &date, &dashed, "latest", &now] {
        let dry = shop.home.json(&["restore", "--date", word, "--dry-run"]);
        if word.contains("-full-") {
            assert_eq!(dry["error"]["exit_code"], 2, "an id is no date: {dry}");
        } else {
            assert_eq!(dry["result"]["sets"][0]["set"], set.as_str(), "{word}: {dry}");
        }
        let shown = shop.home.json(&["show", word]);
        assert_eq!(shown["result"]["set"]["set"], set.as_str(), "{word}");
        assert_eq!(shop.home.json(&["restore", word, "--dry-run"])["result"]["sets"][0]["set"], set.as_str(), "{word}");
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let ago = shop.home.json(&["restore", "--date", "1 second ago", "--dry-run"]);
    assert_eq!(ago["result"]["sets"][0]["set"], set.as_str(), "{ago}");
    for (word, says) in [
        ("20250101", format!("none before, nearest after: {set}")),
        ("21000101", format!("nearest before: {set}, none after")),
        ("2 hours ago", format!("none before, nearest after: {set}")),
        ("2025-01-01T00:00:00Z", format!("none before, nearest after: {set}")),
    ] {
        let ran = shop.run(&["restore", "--date", word, "--dry-run"]);
        assert_eq!(ran.code, 6, "{word}: {}", ran.all());
        assert!(ran.err.contains(&says), "{word}: {}", ran.err);
    }
    for (word, code) in [("yesterday-ish", 2), ("20250230", 2), ("2025-01-01T00:00:00", 2), ("", 2)] {
        let ran = shop.run(&["restore", "--date", word, "--dry-run"]);
        assert_eq!(ran.code, code, "{word}: {}", ran.all());
        assert!(ran.err.contains("2025-01-01T02:00:00Z"), "{word}: {}", ran.err);
    }
    assert_eq!(shop.run(&["restore", "shop/20250101T000000Z-full-aaaa", "--dry-run"]).code, 6);
    let nothing = shop.run(&["restore"]);
    assert_eq!(nothing.code, 2, "{}", nothing.all());
    assert!(nothing.err.contains("--date latest --dry-run"), "{}", nothing.err);
}

#[test]
fn with_two_jobs_one_must_be_named() {
    let home = Home::new();
    home.write("a/1", "1");
    home.write("b/2", "2");
    home.init(
        "jobs:\n  - job: one\n    sources:\n      - files: { paths: [a] }\n  - job: two\n    sources:\n      - files: { paths: [b] }\n",
    );
    home.ok(&["backup", "now"]);
    assert_eq!(home.sets().len(), 2);
    for args in
        [&["restore", "--date", "latest", "--dry-run"][..], &["show", "latest"], &["cat", "latest", "files"], &["diff", "latest", "latest"]]
    {
        let ran = home.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.all());
        assert!(ran.err.contains("--job one | --job two"), "{args:?}: {}", ran.err);
    }
    for (job, file) in [("one", "1"), ("two", "2")] {
        let path = home.path(if job == "one" { "a" } else { "b" }).join(file).display().to_string();
        let ran = home.ok(&["cat", "latest", "files", "--job", job, "--path", &path]);
        assert_eq!(ran.out, file);
    }
    let unknown = home.run(&["backup", "now", "three"]);
    assert_eq!(unknown.code, 2, "{}", unknown.all());
    let unknown = home.run(&["list", "--job", "three"]);
    assert_eq!(unknown.code, 6, "{}", unknown.all());
    assert!(unknown.err.contains("one, two"), "{}", unknown.err);
    // An id names its job.
    let set = home.sets()[1].clone();
    home.ok(&["show", &set]);
    home.ok(&["verify", "--all"]);
}

#[test]
fn cat_and_diff() {
    let shop = Shop::new();
    let first = shop.backup();
    let env = shop.home.ok(&["cat", &first, "environment"]);
    assert!(env.out.contains(ENV_CANARY));
    assert_eq!(shop.home.ok(&["cat", "latest", "hello"]).out, "hello world\n");
    let path = shop.home.path("uploads/a.txt").display().to_string();
    assert_eq!(shop.home.ok(&["cat", "latest", "uploads", "--path", &path]).out, "alpha");
    assert_eq!(shop.home.ok(&["cat", "latest", "compose"]).out, shop.file("compose.yml"));
    let tar = shop.home.command(&["cat", &first, "uploads"]).output().unwrap();
    let listed = pipe(Command::new("tar").arg("-t"), &tar.stdout);
    assert!(listed.contains("uploads/sub/b.bin"), "{listed}");
    let dump = shop.home.command(&["cat", &first, &shop.database]).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    assert!(pipe(Command::new("pg_restore").arg("--list"), &dump.stdout).contains("TABLE DATA public orders"));
    let none = shop.run(&["cat", &first, "uploads", "--path", "uploads/none"]);
    assert_eq!(none.code, 6, "{}", none.all());
    let several = shop.run(&["cat", &first, "postgres"]);
    assert_eq!(several.code, 2, "{}", several.all());
    assert!(several.err.contains("globals") && several.err.contains(&shop.database), "{}", several.err);
    let wrong = shop.run(&["cat", &first, "mongodb"]);
    assert_ne!(wrong.code, 0);

    shop.sql("INSERT INTO orders VALUES (2001, 'x', 1); CREATE TABLE extra (i int); DROP TABLE customers");
    shop.home.write("uploads/c.txt", "c");
    std::fs::remove_file(shop.home.path("uploads/a.txt")).unwrap();
    shop.home.write("app.env", "APP_KEY=canary-changed\nAPP_NEW=canary-new\n");
    shop.home.write("compose.yml", "services:\n  db:\n    image: postgres:16\n");
    let second = shop.backup();
    let diff = shop.home.ok(&["diff", &first, &second]);
    let (plus, minus) = (format!("+ {}", shop.stored("uploads/c.txt")), format!("- {}", shop.stored("uploads/a.txt")));
    for word in [
        "public.orders: 1,000 → 1,001",
        "public.customers: 50 → –",
        "public.extra: – → 0",
        &plus,
        &minus,
        "~ APP_KEY",
        "+ APP_NEW",
        "- APP_MODE",
        "postgres:16",
    ] {
        assert!(diff.out.contains(word), "{word}: {}", diff.out);
    }
    assert!(!diff.all().contains("canary"), "{}", diff.out);
    assert!(!diff.out.contains("hello.greeting"), "what did not change is not told: {}", diff.out);
    assert!(shop.home.ok(&["diff", &second, &second]).out.contains("nothing changed"));
}

/// What `drctl cat … | head` is to a person: no word of a broken pipe, and the end that a shell shows for it.
#[test]
fn a_reader_that_has_seen_enough_ends_cat_in_silence() {
    use std::io::Read;
    use std::process::Stdio;
    let home = Home::new();
    home.write("data/big", &"0123456789abcdef".repeat(200_000));
    home.init("jobs:\n  - job: shop\n    sources:\n      - files: { paths: [data] }\n");
    home.ok(&["backup", "now"]);
    let path = home.path("data/big").display().to_string();
    for args in [&["cat", "latest", "files"][..], &["cat", "latest", "files", "--path", &path]] {
        let mut cat = home.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut head = [0; 10];
        cat.stdout.take().unwrap().read_exact(&mut head).unwrap();
        let ended = cat.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(141), ""), "{args:?}");
    }
    // The hold on the set was let go of all the same.
    assert!(home.files("drctl-repository/jobs/shop/log").len() >= 5);
    for args in [&["completions", "bash"][..], &["man"], &["--help"]] {
        let mut printing = home.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(printing.stdout.take());
        let ended = printing.wait_with_output().unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

/// Databases that a restore keeps aside are not dumped; one line says whose they are and how to let go of them.
#[test]
fn what_a_restore_keeps_aside_is_told_in_one_line_and_never_dumped() {
    let shop = Shop::on(std::sync::Arc::new(support::Server::start()));
    shop.server.sql("postgres", "CREATE DATABASE other");
    shop.server.sql("other", "CREATE TABLE t (i int)");
    let postgres = shop.postgres("").replace(&format!("[{}]", shop.database), "all");
    shop.set_jobs(&format!("jobs:\n  - job: shop\n    sources:\n      - {postgres}\n"));
    let set = shop.backup();
    let done = shop.home.ok(&["restore", &set, "--yes"]);
    let id = restore_id(&done);
    assert!(done.out.contains("vacuumdb --host=127.0.0.1") && done.out.contains("--analyze-in-stages --all"), "{}", done.out);
    let next = shop.home.ok(&["backup", "now"]);
    let line = format!(
        "Restore {id} keeps old data aside, which is not dumped: other_drctl_old_{id}, {}_drctl_old_{id}. To drop it: drctl restore --finish {id}",
        shop.database
    );
    assert_eq!(next.out.matches("_drctl_old_").count(), 2, "{}", next.out);
    assert!(next.out.contains(&line), "{}", next.out);
    let shown = shop.home.ok(&["show", &shop.home.newest(), "--json"]).out;
    assert!(!shown.contains(&format!("\"name\":\"other_drctl_old_{id}\"")) && shown.contains("\"name\":\"other\""), "{shown}");
    shop.home.ok(&["restore", "--finish", &id, "--yes"]);
    assert!(!shop.home.ok(&["backup", "now"]).all().contains("keeps old data aside"));
}

/// A drctl that was killed leaves its password file in memory; whatever drctl does next takes it away.
#[test]
fn f02_the_password_file_of_a_killed_run_is_swept_by_the_next_verb() {
    use std::os::unix::fs::PermissionsExt;
    let mut home = Home::new();
    home.write("data/a", "a");
    home.init("jobs:\n  - job: shop\n    sources:\n      - files: { paths: [data] }\n");
    home.write("runtime/drctl-pg-4194999-0123456789abcdef/pgpass", "*:*:*:*:secret\n");
    let left = home.path("runtime/drctl-pg-4194999-0123456789abcdef");
    std::fs::set_permissions(&left, PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::File::open(&left).unwrap().set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(30)).unwrap();
    home.env("XDG_RUNTIME_DIR", &home.path("runtime").display().to_string());
    home.ok(&["status"]);
    assert!(!left.exists());
}

/// What a person without drctl reads: counts in words, zeros left out, and what to do for the planner.
#[test]
fn the_guide_counts_in_words() {
    let shop = Shop::new();
    let set = shop.backup();
    let guide = std::fs::read_to_string(shop.home.set_folder(&set).join("RESTORE.md")).unwrap();
    assert!(guide.contains(" plain: 2 tables, 1,050 rows.") && guide.contains(" plain: 2 files, 2 folders."), "{guide}");
    assert!(!guide.contains("large_objects") && !guide.contains(" 0 ") && !guide.contains(", ."), "{guide}");
    assert!(guide.contains("vacuumdb --analyze-in-stages --dbname=NEW_DATABASE"), "{guide}");
}

fn pipe(command: &mut Command, input: &[u8]) -> String {
    use std::io::Write;
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every verb that has a result prints it as one line of JSON, errors too.
#[test]
fn every_verb_speaks_json() {
    let shop = Shop::new();
    let made = shop.home.json(&["backup", "now", "--verify", "read-back"]);
    assert_eq!(made["verb"], "backup");
    let set = made["result"][0]["set"].as_str().unwrap().to_owned();
    assert_eq!(made["result"][0]["verified"]["passed"], true, "{made}");
    for args in [
        &["list"][..],
        &["show", &set],
        &["show", &set, "--rescue"],
        &["status"],
        &["verify", &set],
        &["verify", "--all", "--grade", "uploaded"],
        &["backup", "--dry-run"],
        &["restore", &set, "--dry-run"],
        &["diff", &set, &set],
        &["config", "check"],
        &["config", "show"],
        &["config", "schema"],
        &["restore", &set, "--yes"],
        &["restore", "--undo"],
        &["restore", "--finish", "--yes"],
    ] {
        let value = shop.home.json(args);
        assert_eq!(value["verb"], args[0], "{args:?}");
        assert!(!value["result"].is_null(), "{args:?}: {value}");
        assert!(value["error"].is_null(), "{args:?}: {value}");
    }
    for (args, kind, code) in [
        (&["show", "shop/20250101T000000Z-full-aaaa"][..], "no-such-set", 6),
        (&["restore", "--date", "20250101"], "no-such-set", 6),
        (&["restore", "--date", "latest"], "preflight", 4),
        (&["backup", "now", "other"], "usage", 2),
        (&["restore"], "usage", 2),
        (&["status", "--max-age", "soon"], "usage", 2),
        (&["cat", &set, "nothing"], "no-such-set", 6),
        (&["init"], "preflight", 4),
    ] {
        let value = shop.home.json(args);
        assert_eq!((&value["error"]["kind"], &value["error"]["exit_code"]), (&kind.into(), &code.into()), "{args:?}: {value}");
        assert_eq!(shop.run(args).code, code, "{args:?}");
    }
    // Progress as JSON lines goes to standard error, and each of them parses.
    let loud = shop.home.ok(&["backup", "now", "--json"]);
    assert_eq!(loud.out.lines().count(), 1);
    assert!(!loud.err.trim().is_empty());
    for line in loud.err.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
    // A broken configuration, too.
    shop.home.write("drctl.yaml", "repository: [\n");
    let broken = shop.home.json(&["list"]);
    assert_eq!(broken["error"]["exit_code"], 2, "{broken}");
}

#[test]
fn completions_and_manual() {
    let home = Home::new();
    for (name, word) in [("bash", "complete -F"), ("zsh", "#compdef drctl"), ("fish", "complete -c drctl")] {
        assert!(home.ok(&["completions", name]).out.contains(word), "{name}");
    }
    // Where the shells are at hand they take it.
    let text = home.ok(&["completions", "bash"]).out;
    home.write("drctl.bash", &text);
    assert!(Command::new("bash").arg("-n").arg(home.path("drctl.bash")).status().unwrap().success());
    let page = home.ok(&["man"]).out;
    assert!(page.contains(".TH drctl 1") && page.contains("restore"), "{page}");
    home.ok(&["man", "--out", "pages"]);
    assert!(home.files("pages").contains(&"drctl-restore.1".to_owned()), "{:?}", home.files("pages"));
    assert_eq!(home.run(&["frobnicate"]).code, 2);
    assert_eq!(home.run(&["--help"]).code, 0);
    assert_eq!(home.run(&["--version"]).code, 0);
}

/// The host is gone: a repository, the recovery file and its passphrase are enough.
#[test]
fn the_recovery_file_opens_the_repository_without_a_configuration() {
    let shop = Shop::new();
    let set = shop.backup();
    let mut new = Home::new();
    let repo = shop.home.path("drctl-repository").display().to_string();
    std::fs::copy(shop.home.path("drctl-recovery.txt"), new.path("recovery.txt")).unwrap();
    new.write("phrase", "correct horse battery staple\n");
    let phrase = new.path("phrase").display().to_string();
    let run = |new: &Home, args: &[&str]| {
        let mut all = vec!["--repo", &repo, "--recovery", "recovery.txt"];
        all.extend(args);
        new.run(&all)
    };
    let without = run(&new, &["list"]);
    assert_eq!(without.code, 4, "{}", without.all());
    assert!(without.err.contains("DRCTL_PASSPHRASE_FILE"), "{}", without.err);
    new.env("DRCTL_PASSPHRASE_FILE", &phrase);
    for args in [&["list"][..], &["show", &set], &["status"], &["verify"], &["cat", "latest", "environment"], &["diff", &set, &set]] {
        let ran = run(&new, args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.all());
    }
    assert!(run(&new, &["cat", "latest", "environment"]).out.contains(ENV_CANARY));
    let restored = run(&new, &["restore", "--date", "latest", "--source", "uploads", "--target", "back", "--yes"]);
    assert_eq!(restored.code, 0, "{}", restored.all());
    assert_eq!(std::fs::read_to_string(new.path("back").join(shop.stored("uploads/a.txt"))).unwrap(), "alpha");
    // A database, to a server that is named.
    // Nobody but a person knows where: the line that is missing is told.
    let nowhere = run(&new, &["restore", "--date", "latest", "--yes"]);
    assert_eq!(nowhere.code, 4, "{}", nowhere.all());
    let hint = "--source postgres --target postgres://USER@HOST:5432";
    assert!(nowhere.err.contains("without a configuration nothing says where 'postgres'") && nowhere.err.contains(hint), "{}", nowhere.err);
    let nowhere = run(&new, &["restore", "--date", "latest", "--source", "uploads", "--yes"]);
    assert!(nowhere.err.contains("--source uploads --target FOLDER"), "{}", nowhere.err);
    let target = format!("{}_recovered", shop.database);
    new.env("PGPASSWORD", PASSWORD);
    let url = format!("postgres://postgres@127.0.0.1:{}/{target}", shop.server.port);
    let restored = run(&new, &["restore", "--date", "latest", "--source", "postgres", "--target", &url, "--yes"]);
    assert_eq!(restored.code, 0, "{}", restored.all());
    assert_eq!(shop.server.sql(&target, "SELECT count(*) FROM orders"), "1000");
    let backup = run(&new, &["backup", "now"]);
    assert_eq!(backup.code, 2, "{}", backup.all());

    new.write("phrase", "wrong");
    let wrong = run(&new, &["list"]);
    assert_ne!(wrong.code, 0);
    assert!(wrong.err.contains("passphrase"), "{}", wrong.err);
    // A recovery file of another repository vouches for nothing here.
    let other = Home::new();
    other.write("x", "x");
    other.init("jobs:\n  - job: shop\n    sources:\n      - files: { paths: [x] }\n");
    std::fs::copy(other.path("drctl-recovery.txt"), new.path("recovery.txt")).unwrap();
    new.write("phrase", "correct horse battery staple");
    let foreign = run(&new, &["list"]);
    assert_ne!(foreign.code, 0, "{}", foreign.all());
}

#[test]
fn f124_globals_and_role_passwords_are_left_out_where_the_configuration_says_so() {
    let shop = Shop::new();
    let jobs = |more: &str| format!("jobs:\n  - job: shop\n    timezone: UTC\n    sources:\n      - {}\n", shop.postgres(more));
    let whole = shop.orders();
    shop.set_jobs(&jobs(""));
    shop.backup();
    let artifacts = |set: &str| shop.home.ok(&["show", set]).out;
    let globals = || shop.home.ok(&["cat", "latest", "postgres.globals.sql"]).out;
    assert!(globals().contains("CREATE ROLE") && globals().contains("PASSWORD 'SCRAM-SHA-256$"), "the role that connects has one");

    shop.set_jobs(&jobs(", role_passwords: false"));
    shop.backup();
    assert!(globals().contains("CREATE ROLE") && !globals().contains("PASSWORD"), "{}", globals());

    // Left out on purpose is neither missing nor odd, and the rest comes back.
    shop.set_jobs(&jobs(", globals: false"));
    let set = shop.backup();
    assert!(!artifacts(&set).contains("globals") && artifacts(&set).contains("complete"), "{}", artifacts(&set));
    shop.damage();
    let restored = shop.home.ok(&["restore", &set, "--yes"]);
    assert_eq!(shop.orders(), whole, "{}", restored.all());
}
