//! Restores that must not begin, or that fail before the switch: what is said, the exit code, and that nothing live changed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use shop::Shop;

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

/// Whatever of a set cannot be used must not keep anyone from the rest: every refusal names the artifact, and the option that goes past it.
#[test]
fn f108_the_rest_of_a_set_comes_back_without_what_cannot_be_used() {
    let shop = Shop::new();
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
        assert!(ran.err.contains(&format!("Left out: environment (to get it: --source environment)")), "{}", ran.err);
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
