//! Several stores through the built program: what is said, the exit codes, and that a copy alone brings everything back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;

use cli::Home;

const JOBS: &str = "jobs:\n  - job: shop\n    timezone: UTC\n    sources:\n      - files: { paths: [data] }\n";

/// A home with a second store in the folder `copy`; `more` stands behind its place.
fn two_stores(more: &str) -> Home {
    let home = Home::new();
    home.write("data/a.txt", "alpha");
    home.write("data/sub/b.bin", &"0123456789".repeat(50_000));
    home.init(JOBS);
    std::fs::create_dir(home.path("copy")).unwrap();
    add_store(&home, &format!("{{ name: second, local: {{ path: copy }}{more} }}"));
    home
}

fn add_store(home: &Home, store: &str) {
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let place = "      local: { path: drctl-repository }\n";
    assert!(config.contains(place), "{config}");
    home.write("drctl.yaml", &config.replace(place, &format!("{place}    - {store}\n")));
    home.ok(&["config", "check"]);
}

/// Every file below a folder with its bytes.
fn tree(home: &Home, below: &str) -> Vec<(String, Vec<u8>)> {
    home.files(below).into_iter().map(|file| (file.clone(), std::fs::read(home.path(below).join(&file)).unwrap())).collect()
}

#[test]
fn rule_11_the_first_store_is_gone_and_the_copy_alone_brings_every_byte_back() {
    let home = two_stores("");
    let ran = home.ok(&["backup", "now", "--verify", "read-back"]);
    assert!(ran.out.contains("main and second"), "{}", ran.out);
    let set = home.newest();
    assert!(home.ok(&["show", &set]).out.contains("stores    main, second"));
    assert!(home.ok(&["config", "show"]).out.contains("second"));
    let live = tree(&home, "data");
    std::fs::remove_dir_all(home.path("drctl-repository")).unwrap();

    // With the configuration: what is said leads to the copy.
    for verb in [&["list"][..], &["verify"], &["cat", "latest", "files"], &["restore", "latest", "--target", "x", "--yes"]] {
        let ran = home.run(verb);
        assert_eq!(ran.code, 8, "{verb:?}: {}", ran.all());
        assert!(ran.err.contains(&format!("drctl {} … --store second", verb[0])), "{verb:?}: {}", ran.err);
    }
    assert!(home.run(&["status"]).err.contains("drctl list … --store second"));
    let backup = home.run(&["backup", "now"]);
    assert_eq!(backup.code, 8, "{}", backup.all());
    assert!(!backup.err.contains("--store"), "a backup cannot go on by a copy: {}", backup.err);
    let before = home.files("copy");
    let listed = home.ok(&["list", "--store", "second"]);
    assert!(listed.out.contains(&set) && listed.err.contains("may lack the newest records"), "{}", listed.all());
    home.ok(&["verify", "--store", "second"]);
    assert_eq!(
        home.ok(&["cat", "latest", "files", "--store", "second", "--path", &home.path("data/a.txt").display().to_string()]).out,
        "alpha"
    );
    home.ok(&["restore", "latest", "--store", "second", "--target", "by-name", "--yes"]);
    let refused = home.run(&["restore", "latest", "--store", "second", "--in-place", "--yes"]);
    assert_eq!(refused.code, 4, "a safety set cannot be committed: {}", refused.all());
    assert_eq!(home.files("copy"), before, "reading from a copy writes nothing there");
    let wrong = home.run(&["list", "--store", "third"]);
    assert!(wrong.code == 2 && wrong.err.contains("its stores are: main, second"), "{}", wrong.all());

    // And on a new machine, from the recovery file.
    let mut new = Home::new();
    std::fs::copy(home.path("drctl-recovery.txt"), new.path("recovery.txt")).unwrap();
    new.env("DRCTL_PASSPHRASE_FILE", &home.path("passphrase").display().to_string());
    let copy = home.path("copy").display().to_string();
    let alone = |args: &[&str]| new.run(&[&["--repo", &copy, "--recovery", "recovery.txt"], args].concat());
    assert!(alone(&["list"]).out.contains(&set));
    let restored = alone(&["restore", "--date", "latest", "--target", "back", "--yes"]);
    assert_eq!(restored.code, 0, "{}", restored.all());
    for (folder, place) in [(&new, "back"), (&home, "by-name")] {
        let inside = format!("{place}/{}", home.path("data").display().to_string().trim_start_matches('/'));
        assert_eq!(tree(folder, &inside), live, "{place}");
    }
    let both = alone(&["list", "--store", "second"]);
    assert_eq!(both.code, 2, "{}", both.all());
}

#[test]
fn status_says_how_far_a_store_lags() {
    let home = two_stores("");
    home.ok(&["backup", "now"]);
    assert!(home.ok(&["status"]).out.contains("store second     has every record\n"), "{}", home.ok(&["status"]).out);
    std::fs::remove_file(home.path("copy/jobs/shop/log/0000000001.signed")).unwrap();
    assert!(home.ok(&["status"]).out.contains("1 record behind: the next backup brings them"));
    let json = home.json(&["status"]);
    assert_eq!(json["result"]["jobs"][0]["copies"][0]["records_behind"], 1);
    home.ok(&["backup", "now"]);
    assert_eq!(home.json(&["status"])["result"]["jobs"][0]["copies"][0]["records_behind"], 0);
    std::fs::rename(home.path("copy"), home.path("elsewhere")).unwrap();
    assert!(home.ok(&["status"]).out.contains("CANNOT BE READ"));
    home.ok(&["list"]);
    home.ok(&["verify"]);
}

#[test]
fn rule_11_a_required_store_that_is_away_ends_the_run_and_an_optional_one_does_not() {
    let required = two_stores("");
    required.ok(&["backup", "now"]);
    let optional = two_stores(", optional: true");
    optional.ok(&["backup", "now"]);
    for home in [&required, &optional] {
        std::fs::rename(home.path("copy"), home.path("elsewhere")).unwrap();
    }
    let before = required.sets();
    let ran = required.run(&["backup", "now"]);
    assert_eq!(ran.code, 8, "{}", ran.all());
    assert!(ran.err.contains("store 'second'") && ran.err.contains("is its disk mounted?"), "{}", ran.err);
    assert_eq!(required.sets(), before);
    let checked = required.run(&["backup", "--dry-run"]);
    assert!(checked.code == 8 && checked.err.contains("store 'second'"), "{}", checked.all());
    assert!(optional.ok(&["backup", "--dry-run"]).err.contains("store 'second'"));
    let ran = optional.ok(&["backup", "now"]);
    assert!(ran.err.contains("goes on without the optional store 'second'") && !ran.out.contains("second"), "{}", ran.all());
    // An empty mount point is not filled.
    for home in [&required, &optional] {
        std::fs::create_dir(home.path("copy")).unwrap();
    }
    let ran = required.run(&["backup", "now"]);
    assert!(ran.code == 8 && ran.err.contains("is its disk mounted?") && required.files("copy").is_empty(), "{}", ran.all());
    let ran = optional.ok(&["backup", "now"]);
    assert!(ran.err.contains("is its disk mounted?") && optional.files("copy").is_empty(), "{}", ran.all());
    // Mounted again: the records come, the sets it missed are told of.
    for home in [&required, &optional] {
        std::fs::remove_dir(home.path("copy")).unwrap();
        std::fs::rename(home.path("elsewhere"), home.path("copy")).unwrap();
        home.ok(&["backup", "now"]);
        home.ok(&["verify", "--store", "second"]);
    }
    let status = optional.ok(&["status"]).out;
    assert!(status.contains("has every record; it has not all of 2 sets"), "{status}");
    let missed = &optional.sets()[1];
    let ran = optional.run(&["verify", missed, "--store", "second"]);
    assert!(ran.code == 6 && ran.err.contains("it was stored in main"), "{}", ran.all());
}

#[test]
fn a_damaged_first_store_refuses_and_the_copy_restores() {
    let home = two_stores("");
    home.ok(&["backup", "now"]);
    let set = home.newest();
    let object = home.set_folder(&set).join("files.tree.tar.zst.age");
    std::fs::write(&object, b"rotten").unwrap();
    assert_eq!(home.run(&["verify"]).code, 5);
    let refused = home.run(&["restore", &set, "--target", "x", "--yes"]);
    assert_eq!(refused.code, 5, "{}", refused.all());
    home.ok(&["verify", &set, "--store", "second"]);
    assert_eq!(home.json(&["show", &set])["result"]["set"]["grade"], serde_json::Value::Null, "the first store's set is still bad");
    let plan = home.ok(&["restore", &set, "--store", "second", "--target", "back", "--dry-run"]);
    assert!(plan.out.contains("read from the copy in store 'second'"), "{}", plan.out);
    home.ok(&["restore", &set, "--store", "second", "--target", "back", "--yes"]);
    let inside = format!("back/{}", home.path("data").display().to_string().trim_start_matches('/'));
    assert_eq!(tree(&home, &inside), tree(&home, "data"));
    // On another machine nobody knows which of the stores this is: it is tried, and said.
    let mut new = Home::new();
    std::fs::copy(home.path("drctl-recovery.txt"), new.path("recovery.txt")).unwrap();
    new.env("DRCTL_PASSPHRASE_FILE", &home.path("passphrase").display().to_string());
    let copy = home.path("copy").display().to_string();
    let ran = new.ok(&["--repo", &copy, "--recovery", "recovery.txt", "restore", &set, "--target", "back", "--yes"]);
    assert!(ran.err.contains("failed its last verification in store 'main'"), "{}", ran.err);
    let first = home.path("drctl-repository").display().to_string();
    let ran = new.run(&["--repo", &first, "--recovery", "recovery.txt", "restore", &set, "--target", "other", "--yes"]);
    assert_ne!(ran.code, 0, "{}", ran.all());
    // A copy that is damaged is its own matter.
    home.ok(&["backup", "now", "--verify", "read-back"]);
    let set = home.newest();
    let id: drctl::model::SetId = set.parse().unwrap();
    std::fs::write(home.path("copy").join(id.prefix()).join("files.tree.tar.zst.age"), b"rotten").unwrap();
    assert_eq!(home.run(&["verify", &set, "--store", "second"]).code, 5);
    assert_eq!(home.json(&["show", &set])["result"]["set"]["grade"], "read-back");
    let ran = home.run(&["restore", &set, "--store", "second", "--target", "never", "--yes"]);
    assert_eq!(ran.code, 5, "{}", ran.all());
    home.ok(&["restore", &set, "--target", "from-first", "--yes"]);
}

#[test]
fn rule_13_a_store_that_needs_one_writer_is_refused_where_the_repository_names_none() {
    let home = Home::new();
    home.write("data/a.txt", "alpha");
    home.init(JOBS);
    assert!(home.files("drctl-repository").contains(&"probe/create-only".to_owned()), "init asks the store");
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let place = "      local: { path: drctl-repository }\n";
    let with = |told: &str| home.write("drctl.yaml", &config.replace(place, &format!("{place}      single_writer: {told}\n")));
    with("true");
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 4, "{}", ran.all());
    assert!(ran.err.contains("names no single writer") && ran.err.contains("hint: "), "{}", ran.err);
    assert!(!home.files("drctl-repository").iter().any(|file| file.starts_with("jobs/")));
    with("false");
    home.ok(&["backup", "now"]);
}

/// Names a host as the only one that may write; needs the root key, which is in the recovery file.
fn name_single_writer(home: &Home, host: &str) {
    use drctl::catalog::{Env, RecoveryFile, Repository};
    let recovery = RecoveryFile::parse(&std::fs::read_to_string(home.path("drctl-recovery.txt")).unwrap()).unwrap();
    let passphrase = std::fs::read_to_string(home.path("passphrase")).unwrap();
    let secrets = recovery.open(&drctl::model::Secret::new(passphrase)).unwrap();
    let store = std::sync::Arc::new(drctl::store::local::LocalStore::open(&home.path("drctl-repository")).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let repository = Repository::open(store, Env::default(), &recovery.trust()).await.unwrap();
        repository.make_single_writer(&secrets.root, host).await.unwrap();
    });
}

#[test]
fn rule_13_the_one_host_writes_under_a_lock_and_another_one_only_reads() {
    let home = two_stores("");
    home.ok(&["backup", "now"]);
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name_single_writer(&home, &host);
    home.ok(&["backup", "now", "--verify", "read-back"]);
    let lock = home.path("drctl-repository/.drctl-tmp/single-writer.lock");
    assert!(lock.is_file());
    assert!(home.path("copy/repository/0001.json").is_file(), "the terms are copied too");
    // Whoever holds it keeps every other append waiting.
    let held = std::fs::OpenOptions::new().write(true).open(&lock).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test that plays another process")]
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut waiting =
        home.command(&["backup", "now"]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(waiting.try_wait().unwrap().is_none(), "it waits");
    drop(held);
    assert!(waiting.wait().unwrap().success());
    assert_eq!(home.sets().len(), 3);
    name_single_writer(&home, "elsewhere");
    let ran = home.run(&["backup", "now"]);
    assert!(ran.code == 4 && ran.err.contains("only 'elsewhere' may write"), "{}", ran.all());
    let records = home.files("drctl-repository/jobs/shop/log");
    home.ok(&["verify"]);
    home.ok(&["restore", "latest", "--target", "back", "--yes"]);
    assert_eq!(home.files("drctl-repository/jobs/shop/log"), records);
}

fn with_passphrase(home: &Home, args: &[&str]) -> cli::Ran {
    let mut command = home.command(args);
    command.env("DRCTL_PASSPHRASE_FILE", home.path("passphrase"));
    cli::Ran::of(command.output().unwrap())
}

#[test]
fn rule_13_this_host_takes_the_place_of_the_one_writer_that_is_gone() {
    let home = two_stores("");
    home.ok(&["backup", "now"]);
    name_single_writer(&home, "elsewhere");
    let ran = home.run(&["backup", "now"]);
    assert!(ran.code == 4 && ran.err.contains("drctl repository adopt --by"), "{}", ran.all());
    let args = ["repository", "adopt", "--by", "drctl-recovery.txt"];
    let ran = with_passphrase(&home, &args);
    assert!(ran.code == 4 && ran.err.contains("'elsewhere' is the one host that writes") && ran.err.contains("--yes"), "{}", ran.all());
    assert_eq!(home.run(&["backup", "now"]).code, 4, "nothing was changed");
    let ran = with_passphrase(&home, &[&args[..], &["--yes"]].concat());
    assert!(ran.code == 0 && ran.out.contains("writes from now on, 'elsewhere' no more"), "{}", ran.all());
    home.ok(&["backup", "now"]);
    let terms = home.files("drctl-repository/repository").len();
    let again = with_passphrase(&home, &[&args[..], &["--yes"]].concat());
    assert!(again.code == 0 && again.out.contains("already"), "{}", again.all());
    assert_eq!(home.files("drctl-repository/repository").len(), terms, "nothing is written twice");
}

/// Puts the store `second` first in the configuration; what was first becomes `old`, or goes.
fn put_second_first(home: &Home, keep_old: bool) {
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let second = "    - { name: second, local: { path: copy } }\n";
    assert!(config.contains(second), "{config}");
    let lines: Vec<&str> = config.lines().collect();
    let at = lines.iter().position(|line| line.contains("stores:")).unwrap();
    let main = lines.iter().position(|line| line.contains("local: { path: drctl-repository }")).unwrap();
    let (begin, mut out) = (at + 1, lines[..=at].join("\n"));
    out.push('\n');
    out.push_str(second);
    if keep_old {
        out.push_str(&lines[begin..=main].join("\n"));
        out.push('\n');
    }
    let rest: Vec<&str> = lines[main + 1..].iter().copied().filter(|line| !line.contains("name: second")).collect();
    out.push_str(&rest.join("\n"));
    home.write("drctl.yaml", &out);
    home.ok(&["config", "check"]);
}

#[test]
fn rule_11_a_copy_becomes_the_first_store_and_the_old_one_follows() {
    let home = two_stores("");
    home.ok(&["backup", "now"]);
    assert_eq!(home.run(&["repository", "adopt"]).code, 2);
    assert_eq!(home.run(&["repository", "adopt", "--store", "nowhere"]).code, 2);
    assert_eq!(home.run(&["repository", "adopt", "--store", "main"]).code, 2);
    // The copy lags: its newest record is gone.
    let newest = home.files("copy/jobs/shop/log").into_iter().max().unwrap();
    std::fs::remove_file(home.path("copy/jobs/shop/log").join(newest)).unwrap();
    let ran = home.ok(&["repository", "adopt", "--store", "second"]);
    assert!(ran.out.contains("put 'second' first") && ran.out.contains("every record"), "{}", ran.out);
    put_second_first(&home, true);
    home.ok(&["backup", "now"]);
    home.ok(&["verify"]);
    assert_eq!(home.sets().len(), 2);
    assert_eq!(home.files("copy/jobs/shop/log").len(), home.files("drctl-repository/jobs/shop/log").len());
}

#[test]
fn rule_11_a_copy_that_lost_records_becomes_the_first_only_when_a_person_has_seen_what_is_lost() {
    let home = two_stores("");
    home.ok(&["backup", "now"]);
    home.ok(&["backup", "now"]);
    let newest = home.files("copy/jobs/shop/log").into_iter().max().unwrap();
    std::fs::remove_file(home.path("copy/jobs/shop/log").join(newest)).unwrap();
    std::fs::rename(home.path("drctl-repository"), home.path("gone")).unwrap();
    let before = home.files("copy");
    let ran = home.run(&["repository", "adopt", "--store", "second"]);
    assert!(ran.code == 4 && ran.err.contains("1 newer record that this host has seen IS MISSING"), "{}", ran.all());
    assert_eq!(home.files("copy"), before, "nothing was changed");
    let ran = home.ok(&["repository", "adopt", "--store", "second", "--yes"]);
    assert!(ran.out.contains("take the old first one out"), "{}", ran.out);
    put_second_first(&home, false);
    home.ok(&["backup", "now"]);
    home.ok(&["verify"]);
    assert!(!home.ok(&["status"]).out.contains("ALARM"), "{}", home.ok(&["status"]).out);

    // The old one comes back: it is no copy of this log any more, and nothing is written to either.
    std::fs::rename(home.path("gone"), home.path("drctl-repository")).unwrap();
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let second = "    - { name: second, local: { path: copy } }\n";
    home.write("drctl.yaml", &config.replace(second, &format!("{second}    - {{ name: old, local: {{ path: drctl-repository }} }}\n")));
    let before = (tree(&home, "copy"), tree(&home, "drctl-repository"));
    let ran = home.run(&["backup", "now"]);
    assert_ne!(ran.code, 0, "{}", ran.all());
    let after = (tree(&home, "copy"), tree(&home, "drctl-repository"));
    let named =
        |tree: &[(String, Vec<u8>)]| -> Vec<String> { tree.iter().map(|(name, _)| name.clone()).filter(|n| n.contains("/log/")).collect() };
    assert_eq!((named(&after.0), named(&after.1)), (named(&before.0), named(&before.1)));
}
