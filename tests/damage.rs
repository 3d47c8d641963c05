//! Deletes, cuts, flips and swaps what lies in a repository: verify names it, restore and other sets are safe from it.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;

use std::path::PathBuf;

use cli::Home;

const JOBS: &str = "jobs:\n  - job: shop\n    sources:\n      - files: { name: uploads, paths: [data] }\n      - environment: { from: { file: app.env } }\n";

fn home() -> Home {
    let home = Home::new();
    home.write("data/a.txt", &"some text ".repeat(40_000));
    home.write("data/sub/b.txt", "b");
    home.write("app.env", "A=1\nSECRET=canary\n");
    home.init(JOBS);
    home.ok(&["backup", "now"]);
    home
}

fn objects(home: &Home, set: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    cli::walk(&home.set_folder(set), &mut |path| found.push(path.to_owned()));
    found.sort();
    found
}

/// Every kind of damage to every object of a set is found and named; the other set stays good.
#[test]
fn f23_f74_damage_to_any_object_is_found_and_named() {
    let home = home();
    let good = home.newest();
    home.write("data/c.txt", "new");
    home.ok(&["backup", "now"]);
    let set = home.newest();
    let files = objects(&home, &set);
    assert_eq!(files.len(), 5, "{files:?}");
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let whole = std::fs::read(&path).unwrap();
        let middle = whole.len() / 2;
        type Damage<'a> = (&'a str, Box<dyn Fn()>);
        let (p, w) = (path.clone(), whole.clone());
        let (p2, w2) = (path.clone(), whole.clone());
        let (p3, w3) = (path.clone(), whole.clone());
        let p4 = path.clone();
        let damages: Vec<Damage> = vec![
            (
                "flip",
                Box::new(move || {
                    let mut bad = w.clone();
                    bad[middle] ^= 1;
                    std::fs::write(&p, bad).unwrap();
                }),
            ),
            ("cut", Box::new(move || std::fs::write(&p2, &w2[..middle]).unwrap())),
            ("grow", Box::new(move || std::fs::write(&p3, [w3.as_slice(), b"x"].concat()).unwrap())),
            ("delete", Box::new(move || std::fs::remove_file(&p4).unwrap())),
        ];
        for (what, damage) in damages {
            damage();
            let ran = home.run(&["verify", &set]);
            assert_eq!(ran.code, 5, "{what} {name}: {}", ran.all());
            assert!(ran.out.contains(name.split(".zst").next().unwrap()), "{what} {name} is not named: {}", ran.out);
            std::fs::write(&path, &whole).unwrap();
        }
    }
    home.ok(&["verify", &good]);
    // What was damaged and is whole again can be proven again.
    home.ok(&["verify", &set]);
}

#[test]
fn f73_objects_of_two_sets_that_were_swapped_are_found() {
    let home = home();
    let first = home.newest();
    home.write("data/a.txt", &"other text ".repeat(40_000));
    home.ok(&["backup", "now"]);
    let second = home.newest();
    let file = "uploads.tree.tar.zst.age";
    let (a, b) = (home.set_folder(&first).join(file), home.set_folder(&second).join(file));
    let (x, y) = (std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    std::fs::write(&a, &y).unwrap();
    std::fs::write(&b, &x).unwrap();
    for set in [&first, &second] {
        let ran = home.run(&["verify", set]);
        assert_eq!(ran.code, 5, "{}", ran.all());
    }
}

/// The same with objects that differ in their bytes only: of equal length, each a good file of its own. In clear, for a seal's length is not fixed.
#[test]
fn f73_swapped_objects_of_equal_length_are_found_and_named() {
    let mut home = Home::new();
    home.env("DRCTL_CODEC", "none");
    home.init("jobs:\n  - job: shop\n    sources:\n      - command: { name: report, run: [cat, report] }\n");
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let clear: Vec<&str> = config.lines().filter(|l| !l.trim_start().starts_with("- age1") && !l.contains("recipients:")).collect();
    home.write("drctl.yaml", &clear.join("\n").replacen("repository:", "repository:\n  encryption: none", 1));
    for text in ["one", "two"] {
        home.write("report", text);
        home.ok(&["backup", "now"]);
    }
    let sets = home.sets();
    let file = |set: &str| home.set_folder(set).join("report.output.raw");
    let [one, two] = [0, 1].map(|at| std::fs::read(file(&sets[at])).unwrap());
    assert_eq!((one.as_slice(), two.as_slice()), (&b"one"[..], &b"two"[..]));
    std::fs::write(file(&sets[0]), &two).unwrap();
    std::fs::write(file(&sets[1]), &one).unwrap();
    for set in &sets {
        let ran = home.run(&["verify", set]);
        assert_eq!(ran.code, 5, "{}", ran.all());
        assert!(ran.out.contains("report.output.raw: its SHA-256 is ") && ran.out.contains("the manifest has "), "{}", ran.out);
        let cat = home.run(&["cat", set, "report"]);
        assert_eq!(cat.code, 5, "{}", cat.all());
    }
}

#[test]
fn f71_a_commit_record_with_any_byte_flipped_makes_the_set_vanish_and_alarms() {
    let home = home();
    let record = home.path("drctl-repository/jobs/shop/log/0000000001.signed");
    let whole = std::fs::read(&record).unwrap();
    // Every byte is flipped in the catalog's own test; here some of them through the whole program.
    for at in [0, 1, whole.len() / 3, whole.len() / 2, whole.len() - 80, whole.len() - 2] {
        let mut bad = whole.clone();
        bad[at] ^= 4;
        std::fs::write(&record, &bad).unwrap();
        let ran = home.run(&["list"]);
        assert!(!ran.out.contains("-full-"), "flip at {at}: {}", ran.out);
        assert!(ran.all().contains("ALARM") || ran.code != 0, "flip at {at} is silent: {}", ran.all());
        assert_ne!(home.run(&["restore", "--date", "latest", "--dry-run"]).code, 0);
    }
    std::fs::write(&record, &whole).unwrap();
    assert_eq!(home.sets().len(), 1);
}

#[test]
fn f75_artifacts_without_a_record_are_no_set() {
    let home = home();
    let set = home.newest();
    std::fs::remove_file(home.path("drctl-repository/jobs/shop/log/0000000001.signed")).unwrap();
    let ran = home.run(&["list"]);
    assert!(!ran.out.contains(&set), "{}", ran.out);
    assert_eq!(home.run(&["restore", &set, "--dry-run"]).code, 6);
    assert!(!objects(&home, &set).is_empty(), "nothing is deleted for it");
}

#[test]
fn f74_an_object_that_is_missing_never_reaches_the_restore() {
    let home = home();
    std::fs::remove_file(home.set_folder(&home.newest()).join("uploads.tree.tar.zst.age")).unwrap();
    let ran = home.run(&["restore", "--date", "latest", "--source", "uploads", "--yes"]);
    assert_ne!(ran.code, 0, "{}", ran.all());
    assert_eq!(std::fs::read_to_string(home.path("data/sub/b.txt")).unwrap(), "b");
    assert!(!home.files("").iter().any(|f| f.contains(".drctl-")), "leftovers: {:?}", home.files(""));
}

#[test]
fn show_rescue_says_what_is_whole_and_cat_gives_what_comes_before_the_damage() {
    let home = home();
    let set = home.newest();
    let path = home.set_folder(&set).join("uploads.tree.tar.zst.age");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let ran = home.run(&["show", &set, "--rescue"]);
    assert_eq!(ran.code, 5);
    assert!(ran.out.contains("DAMAGED: ") && ran.out.contains("whole: drctl cat"), "{}", ran.out);
}

#[test]
fn f79_without_the_identity_every_verb_that_opens_names_the_recipient() {
    let home = home();
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let recipient = config.lines().find_map(|l| l.trim().strip_prefix("- age1")).map(|r| format!("age1{r}")).unwrap();
    let without: Vec<&str> = config.lines().filter(|l| !l.trim().starts_with("identity:")).collect();
    home.write("drctl.yaml", &without.join("\n"));
    for args in [&["verify"][..], &["cat", "latest", "environment"], &["restore", "--date", "latest", "--dry-run"]] {
        let ran = home.run(args);
        assert_eq!(ran.code, 4, "{args:?}: {}", ran.all());
        assert!(ran.err.contains(&recipient), "{args:?}: {}", ran.err);
    }
    // A key of another, and a file that is no key any more.
    let good = std::fs::read_to_string(home.path("drctl-keys/identity.txt")).unwrap();
    home.write("drctl.yaml", &config);
    let (other, _) = drctl::pipeline::seal::Identities::generate();
    home.write("drctl-keys/identity.txt", other.expose());
    for args in [&["verify"][..], &["cat", "latest", "environment"], &["restore", "--date", "latest", "--dry-run"]] {
        let ran = home.run(args);
        assert_eq!(ran.code, 4, "{args:?}: {}", ran.all());
        assert!(ran.err.contains(&recipient) && ran.err.contains("hint: "), "{args:?}: {}", ran.err);
    }
    let secret = good.lines().find(|l| l.starts_with("AGE-SECRET-KEY-1")).unwrap();
    home.write("drctl-keys/identity.txt", &good.replace(secret, &secret[..50]));
    for args in [&["verify"][..], &["backup", "now"]] {
        let ran = home.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.all());
        assert!(ran.err.contains("identity.txt:") && ran.err.contains("hint: "), "{args:?}: {}", ran.err);
        assert!(!ran.all().contains(&secret[..30]), "{args:?}: {}", ran.all());
    }
    home.write("drctl-keys/identity.txt", &good);
    // Nothing was proven false by a key that is not there.
    assert_eq!(home.json(&["list"])["result"]["sets"][0]["grade"], "uploaded");
}

#[test]
fn f88_a_newer_format_is_refused_and_nothing_is_written() {
    let home = home();
    let log = home.path("drctl-repository/jobs/shop/log");
    let before = std::fs::read_dir(&log).unwrap().count();
    let file = home.path("drctl-repository/drctl-repository.json");
    let newer = std::fs::read_to_string(&file).unwrap().replacen("\"format\":0", "\"format\":9", 1);
    std::fs::write(file, newer).unwrap();
    for args in [&["backup", "now"][..], &["list"], &["verify"], &["restore", "--date", "latest", "--yes"]] {
        let ran = home.run(args);
        assert_eq!(ran.code, 1, "{args:?}: {}", ran.all());
        assert!(ran.err.contains("format 9") && ran.err.contains("newer drctl") && ran.err.contains("hint: "), "{args:?}: {}", ran.err);
    }
    assert_eq!(std::fs::read_dir(&log).unwrap().count(), before);
}

/// What takes a name in a folder and is no file: a link, a pipe, a socket, a folder with something in it.
fn occupy(path: &std::path::Path, kind: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    match kind {
        0 => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        1 => rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from(0o600)).unwrap(),
        2 => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        3 => {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("x"), "x").unwrap();
        }
        4 => std::os::unix::fs::symlink("..", path).unwrap(),
        _ => std::fs::File::create(path).unwrap().set_len(70 << 20).unwrap(),
    }
}

/// The input of the fault: one object under `repository/` that nobody signed makes every verb refuse. Its kind: everywhere else, too, and whatever
/// takes the name. No verb hangs, none fails, each thing is named.
#[test]
fn f131_f132_f133_what_nobody_signed_hinders_no_verb_whatever_it_is() {
    let home = home();
    let first = home.newest();
    let repository = home.path("drctl-repository");
    for kind in 0..6 {
        let at = |key: String| repository.join(key);
        occupy(&at(format!("repository/{:04}.json", 2 + kind)), kind);
        occupy(&at(format!("keys/{:04}.json", 2 + kind)), kind);
        occupy(&at(format!("jobs/shop/lease/{}.json", u64::MAX - kind as u64)), kind);
        occupy(&at(format!("jobs/shop/log/{:010}.signed", 9000 + kind)), kind);
        occupy(&at(format!("jobs/shop/sets/2030/01/0{}", 1 + kind)), kind);
        occupy(&at(format!("jobs/strange{kind}")), kind);
        // Where the next record belongs.
        let next =
            home.files("drctl-repository/jobs/shop/log").iter().filter_map(|f| f[..10].parse::<u64>().ok()).filter(|n| *n < 9000).max();
        occupy(&at(format!("jobs/shop/log/{:010}.signed", next.unwrap() + 1)), kind);
        let begun = std::time::Instant::now();
        let ran = home.ok(&["backup", "now"]);
        assert!(ran.err.contains("keys/0002.json") && ran.err.contains("passed over"), "kind {kind}: {}", ran.all());
        let set = home.newest();
        home.ok(&["verify", &set]);
        home.ok(&["list"]);
        home.ok(&["key", "list"]);
        assert_eq!(home.run(&["prune"]).code, 0, "kind {kind}");
        let doctor = home.run(&["doctor"]).all();
        for part in ["repository/0002.json", "keys/0002.json", "is no lease", "jobs/strange0", "/lease/"] {
            assert!(doctor.contains(part), "kind {kind}: {part}\n{doctor}");
        }
        home.ok(&["unlock", "shop"]);
        assert!(!home.run(&["doctor"]).all().contains("is no lease"), "kind {kind}");
        home.ok(&["repository", "acknowledge", "shop", "--yes"]);
        home.ok(&["backup", "now"]);
        let back = format!("back{kind}");
        home.ok(&["restore", &first, "--source", "uploads", "--target", &back, "--yes"]);
        assert!(begun.elapsed() < std::time::Duration::from_secs(120), "kind {kind}: it hung");
    }
    // The way of the recovery file, and of a new machine.
    let (repo, recovery) = (repository.display().to_string(), home.path("drctl-recovery.txt").display().to_string());
    let other = Home::new();
    for args in [vec!["list", "--repo", &repo, "--recovery", &recovery], vec!["init", "--from", &repo, "--recovery", &recovery]] {
        let ran = cli::Ran::of(other.command(&args).env("DRCTL_PASSPHRASE_FILE", home.path("passphrase")).output().unwrap());
        assert_eq!(ran.code, 0, "{args:?}\n{}", ran.all());
    }
    other.ok(&["backup", "now"]);
    let rotated =
        home.command(&["key", "rotate", "--by", "drctl-recovery.txt"]).env("DRCTL_PASSPHRASE_FILE", home.path("passphrase")).output();
    assert!(rotated.unwrap().status.success());
    home.ok(&["backup", "now"]);
}
