//! `drctl init --from`: a new machine with the recovery file takes its place in an existing repository.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/versitygw.rs"]
mod versitygw;

use std::os::unix::fs::PermissionsExt as _;

use cli::{Home, Ran};
use versitygw::{ROOT, ROOT_SECRET};

const PASSPHRASE: &str = "correct horse battery staple";

/// A machine with two sets of a folder; `jobs` stands for the job where it is given.
fn old_machine(store: Option<&str>, jobs: Option<&str>) -> Home {
    let mut home = Home::new();
    bucket_keys(&mut home);
    home.write("data/a.txt", "one");
    home.write("passphrase", PASSPHRASE);
    let mut args = vec!["init", "--job", "shop", "--passphrase-file", "passphrase"];
    args.extend(store.iter().flat_map(|store| ["--store", store]));
    home.ok(&args);
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let head: Vec<&str> = config.lines().take_while(|line| !line.starts_with("jobs:")).collect();
    let own = "jobs:\n  - job: shop\n    timezone: Europe/Berlin\n    sources:\n      - files: { name: data, paths: [data] }\n";
    home.write("drctl.yaml", &format!("{}\n{}", head.join("\n"), jobs.unwrap_or(own)));
    home.ok(&["backup", "now"]);
    home.write("data/a.txt", "two");
    home.ok(&["backup", "now"]);
    home
}

fn bucket_keys(home: &mut Home) {
    home.env("AWS_ACCESS_KEY_ID", ROOT);
    home.env("AWS_SECRET_ACCESS_KEY", ROOT_SECRET);
    home.env("AWS_EC2_METADATA_DISABLED", "true");
}

/// Another machine, which has the recovery file and its passphrase.
fn new_machine(old: &Home) -> Home {
    let mut home = Home::new();
    bucket_keys(&mut home);
    home.write("recovery.txt", &std::fs::read_to_string(old.path("drctl-recovery.txt")).unwrap());
    home.write("passphrase", PASSPHRASE);
    home
}

fn init(home: &Home, from: &str, more: &[&str]) -> Ran {
    let mut command = home.command(&["init", "--from", from, "--recovery", "recovery.txt"]);
    command.args(more).env("DRCTL_PASSPHRASE_FILE", home.path("passphrase"));
    Ran::of(command.output().unwrap())
}

fn init_ok(home: &Home, from: &str, more: &[&str]) -> Ran {
    let ran = init(home, from, more);
    assert_eq!(ran.code, 0, "init --from {from} {more:?}\n{}", ran.all());
    ran
}

fn store(old: &Home) -> String {
    old.path("drctl-repository").display().to_string()
}

/// What the new machine can do: everything.
fn takes_over(old: &Home, from: &str) {
    let (first, second) = (old.sets()[0].clone(), old.newest());
    let home = new_machine(old);
    let ran = init_ok(&home, from, &["--dry-run"]);
    assert!(ran.out.contains(&second) && ran.out.contains("nothing was made"), "{}", ran.out);
    assert!(!home.path("drctl.yaml").exists() && !home.path("drctl-keys").exists());

    let ran = init_ok(&home, from, &[]);
    assert!(ran.out.contains(&format!("the configuration of {second}, job shop")), "{}", ran.out);
    assert!(ran.out.contains("signing key 2 (writer, prover, pruner, restorer)"), "{}", ran.out);
    assert!(ran.out.contains("key 1 of ") && ran.out.contains("stays valid"), "{}", ran.out);
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    assert!(config.contains(&format!("# From the configuration that {second} was made with")), "{config}");
    assert!(config.contains("Europe/Berlin") && config.contains(&old.path("data").display().to_string()), "{config}");
    assert!(!config.contains("AGE-SECRET-KEY") && !config.contains(PASSPHRASE));
    for private in ["drctl.yaml", "drctl-keys/identity.txt", "drctl-keys/signing.key"] {
        assert_eq!(home.path(private).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{private}");
    }
    assert_eq!(home.files("drctl-keys"), ["identity.txt", "signing.key"], "no marker stays");
    assert_eq!(std::fs::read_dir(home.path("")).unwrap().count(), 4, "nothing else was made");

    home.ok(&["config", "check"]);
    assert_eq!(home.sets(), [first, second.clone()]);
    home.ok(&["verify", &second]);
    let ran = home.ok(&["restore", "--date", "latest", "--source", "data", "--target", "back", "--yes"]);
    assert!(!ran.err.contains("without a hold"), "{}", ran.err);
    let back = home.files("back").into_iter().find(|file| file.ends_with("a.txt")).unwrap();
    assert_eq!(std::fs::read_to_string(home.path("back").join(back)).unwrap(), "two");
    old.write("data/a.txt", "three");
    home.ok(&["backup", "now"]);
    assert_eq!(home.sets().len(), 3);
    assert!(!home.ok(&["status"]).out.contains("ALARM"));
    // The old one goes on, too: its key is as good as before.
    old.ok(&["backup", "now"]);
    assert_eq!(home.json(&["key", "list"])["result"].as_array().unwrap().len(), 2);

    let again = init(&home, from, &[]);
    assert!(again.code == 4 && again.err.contains("drctl.yaml exists already: nothing was changed"), "{}", again.all());
}

#[test]
fn a_new_machine_takes_over_from_a_folder() {
    let old = old_machine(None, None);
    takes_over(&old, &store(&old));
}

#[test]
fn a_new_machine_takes_over_from_a_bucket() {
    let Some(gateway) = versitygw::start() else { return };
    let url = format!("s3://backups/acme/drctl?endpoint=http%3A%2F%2F127.0.0.1%3A{}&region=us-east-1&provider=versitygw", gateway.port);
    takes_over(&old_machine(Some(&url), None), &url);
}

#[test]
fn a_writer_is_sealed_and_a_lost_host_is_revoked() {
    let old = old_machine(None, None);
    let home = new_machine(&old);
    let set = old.newest();
    let ran = init_ok(&home, &store(&old), &["--role", "writer", "--revoke", "1"]);
    assert!(ran.out.contains("signing key 2 (writer), and no identity") && !ran.out.contains("stays valid"), "{}", ran.out);
    // F130: every set was signed by the key that goes, so a thief may have written the newest configuration. It can be looked at.
    assert!(
        ran.out.contains("no configuration to start from") && ran.out.contains(&format!("drctl cat {set} drctl.yaml --repo ")),
        "{}",
        ran.out
    );
    let mut command = home.command(&["cat", &set, "drctl.yaml", "--repo", &store(&old), "--recovery", "recovery.txt"]);
    let kept = Ran::of(command.env("DRCTL_PASSPHRASE_FILE", home.path("passphrase")).output().unwrap());
    let jobs = kept.out.split_once("\njobs:").unwrap().1;
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &format!("{config}\njobs:{jobs}"));
    assert_eq!(home.files("drctl-keys"), ["signing.key"]);
    assert!(home.ok(&["status"]).out.contains("sealed writer: "));
    let audit = home.json(&["audit"])["result"]["entries"].to_string();
    assert!(audit.contains("init --from") && audit.contains(r#"{\"revoke\":[1],\"roles\":\"writer\"}"#), "{audit}");
    home.ok(&["backup", "now"]);
    assert_ne!(home.run(&["cat", &home.newest(), "data"]).code, 0);
    let ran = old.run(&["backup", "now"]);
    assert!(ran.code == 1 && ran.err.contains("key 1 was revoked"), "{}", ran.all());
    assert_eq!(init(&new_machine(&old), &store(&old), &["--revoke", "9"]).code, 2);
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_made() {
    let old = old_machine(None, None);
    let home = new_machine(&old);
    let untouched = || {
        let left: Vec<_> = home.files("").into_iter().filter(|file| file != "recovery.txt" && file != "passphrase").collect();
        assert_eq!(left, [""; 0]);
    };
    let records = || old.files("drctl-repository").len();
    let before = records();
    let refuse = |from: &str, more: &[&str], code: i32, part: &str| {
        let ran = init(&home, from, more);
        assert!(ran.code == code && ran.err.contains(part), "{from} {more:?}: {part}\n{}", ran.all());
        untouched();
        assert_eq!(records(), before);
    };
    let there = store(&old);
    std::fs::create_dir(home.path("empty")).unwrap();
    refuse("empty", &[], 4, "there is no drctl repository in ");
    refuse("nowhere", &[], 8, "there is no folder ");
    refuse(&there, &["--store", "x"], 2, "cannot be used with");
    let ran = home.run(&["init", "--from", &there]);
    assert!(ran.code == 2 && ran.err.contains("--recovery FILE"), "{}", ran.all());
    let ran = home.run(&["list", "--recovery", "recovery.txt"]);
    assert!(ran.code == 2 && ran.err.contains("--repo"), "{}", ran.all());
    home.write("passphrase", "wrong");
    refuse(&there, &[], 1, "the passphrase is wrong");
    home.write("passphrase", PASSPHRASE);

    let other = old_machine(None, None);
    refuse(&store(&other), &[], 4, "this recovery file is for repository");
    home.write("recovery.txt", "hello");
    refuse(&there, &[], 5, "recovery file");

    // Someone's folder of keys.
    let home = new_machine(&old);
    home.write("drctl-keys/identity.txt", "mine");
    let ran = init(&home, &there, &[]);
    assert!(ran.code == 4 && ran.err.contains("drctl-keys exists already"), "{}", ran.all());
    assert_eq!(std::fs::read_to_string(home.path("drctl-keys/identity.txt")).unwrap(), "mine");
    // Begun for another repository.
    let home = new_machine(&old);
    home.write("drctl-keys/.init-from", "0123\n");
    let ran = init(&home, &there, &[]);
    assert!(ran.code == 4 && ran.err.contains("begun for another repository"), "{}", ran.all());
    assert_eq!(records(), before);
}

#[test]
fn a_call_that_broke_off_is_gone_on_with() {
    let old = old_machine(None, None);
    let id = std::fs::read_to_string(old.path("drctl.yaml")).unwrap();
    let id = id.lines().find_map(|line| line.trim().strip_prefix("id: ")).unwrap().trim_matches('"').to_owned();
    let home = new_machine(&old);
    // Behind the folder; in the middle of the identity; behind the key; behind the configuration.
    std::fs::create_dir(home.path("drctl-keys")).unwrap();
    init_ok(&home, &store(&old), &[]);
    let key = std::fs::read_to_string(home.path("drctl-keys/signing.key")).unwrap();
    let identity = std::fs::read_to_string(home.path("drctl-keys/identity.txt")).unwrap();
    let keys = || old.files("drctl-repository/keys").len();
    assert_eq!(keys(), 2);

    let marker = format!("{id}\n");
    for (cut, remove_config) in [(true, true), (false, true), (false, false)] {
        home.write("drctl-keys/.init-from", &marker);
        if cut {
            home.write("drctl-keys/identity.txt", &identity[..40]);
        }
        if remove_config {
            std::fs::remove_file(home.path("drctl.yaml")).unwrap();
            home.write(".drctl.yaml.next", "half");
        }
        let ran = init_ok(&home, &store(&old), &[]);
        assert!(ran.out.contains("signing key 2"), "{}", ran.out);
        assert_eq!(keys(), 2, "no third key");
        assert_eq!(std::fs::read_to_string(home.path("drctl-keys/signing.key")).unwrap(), key);
        assert_eq!(std::fs::read_to_string(home.path("drctl-keys/identity.txt")).unwrap(), identity);
        assert_eq!(home.files("drctl-keys"), ["identity.txt", "signing.key"]);
        assert!(!home.path(".drctl.yaml.next").exists());
        home.ok(&["verify"]);
        home.ok(&["backup", "now"]);
    }
}

#[test]
fn jobs_that_do_not_work_here_are_written_down_and_not_in_effect() {
    let mut old = Home::new();
    old.write("data/a.txt", "a");
    old.env("SHOP_PW", "hunter2");
    let postgres =
        |password: &str| format!("      - postgres: {{ host: 127.0.0.1, port: 1, user: x, database: all, password: {password} }}\n");
    let job = |name: &str, password: &str| format!("  - job: {name}\n    sources:\n{}", postgres(password));
    old.init(&format!(
        "jobs:\n{}  - job: shop\n    sources:\n      - files: {{ name: data, paths: [data] }}\n{}{}",
        job("variable", "\"${SHOP_PW}\""),
        job("file", "{ file: /nowhere/pw }"),
        job("clear", "hunter3"),
    ));
    old.ok(&["backup", "now", "shop"]);
    let home = new_machine(&old);
    let ran = init_ok(&home, &store(&old), &[]);
    assert!(ran.out.contains("job shop, file, clear\n"), "{}", ran.out);
    assert!(ran.out.contains("NOT IN EFFECT  job variable: ") && ran.out.contains("SHOP_PW"), "{}", ran.out);
    assert!(ran.out.contains("/nowhere/pw") && ran.out.contains("job clear: a secret stood in the configuration itself"), "{}", ran.out);
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    assert!(!config.contains("hunter") && config.contains("\n  # - job: variable\n") && config.contains("\n  - job: shop\n"), "{config}");
    home.ok(&["config", "check"]);
    home.ok(&["backup", "now", "shop"]);
    // What was taken out comes back by taking the '#' away, with the variable set.
    let mended: Vec<String> = config
        .lines()
        .map(|line| line.strip_prefix("  # ").filter(|l| l.starts_with([' ', '-'])).map_or(line.to_owned(), |l| format!("  {l}")))
        .collect();
    home.write("drctl.yaml", &mended.join("\n"));
    let mut command = home.command(&["config", "check"]);
    let ran = Ran::of(command.env("SHOP_PW", "x").output().unwrap());
    assert!(ran.code == 0 && std::fs::read_to_string(home.path("drctl.yaml")).unwrap().contains("\n  - job: variable\n"), "{}", ran.all());
}

#[test]
fn a_copy_is_not_taken_for_the_first_store() {
    let old = Home::new();
    old.write("data/a.txt", "a");
    std::fs::create_dir(old.path("far")).unwrap();
    old.init("jobs:\n  - job: shop\n    sources:\n      - files: { name: data, paths: [data] }\n");
    let config = std::fs::read_to_string(old.path("drctl.yaml")).unwrap();
    let first = "      local: { path: drctl-repository }";
    let config =
        config.replace(first, &format!("{first}\n    - {{ name: far, local: {{ path: far }} }}")).replace("name: main", "name: near");
    old.write("drctl.yaml", &config);
    old.ok(&["backup", "now"]);
    let home = new_machine(&old);
    let ran = init(&home, &old.path("far").display().to_string(), &[]);
    assert!(ran.code == 4 && ran.err.contains("is store 'far', a copy: the log lies in store 'near'"), "{}", ran.all());
    let ran = init_ok(&home, &store(&old), &[]);
    assert!(ran.out.contains("further stores (far)"), "{}", ran.out);
    assert!(std::fs::read_to_string(home.path("drctl.yaml")).unwrap().contains("- name: near\n"), "sets know their store by this name");
    home.ok(&["backup", "now"]);
}

/// The old machine's host, as a thief copied it: its configuration, its keys, and the store as it was then.
fn copied_host(old: &Home) -> Home {
    let thief = Home::new();
    for file in old.files("") {
        if !file.starts_with("drctl-keys") && !file.starts_with("drctl-repository") && file != "drctl.yaml" {
            continue;
        }
        std::fs::create_dir_all(thief.path(&file).parent().unwrap()).unwrap();
        std::fs::copy(old.path(&file), thief.path(&file)).unwrap();
    }
    thief
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    cli::walk(from, &mut |file| {
        let there = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(there.parent().unwrap()).unwrap();
        std::fs::copy(file, there).unwrap();
    });
}

fn rotate(home: &Home) {
    let mut command = home.command(&["key", "rotate", "--by", "drctl-recovery.txt"]);
    let ran = Ran::of(command.env("DRCTL_PASSPHRASE_FILE", home.path("passphrase")).output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.all());
}

/// The input of the fault: the old key founds the log of a new job, whose set carries a configuration with hooks.
#[test]
fn f130_a_revoked_key_founds_no_job_and_no_new_machine_runs_its_hooks() {
    let old = old_machine(None, None);
    let thief = copied_host(&old);
    let marker = thief.path("OWNED").display().to_string();
    let config = std::fs::read_to_string(thief.path("drctl.yaml")).unwrap();
    let hooks = format!("    hooks: {{ before: [ {{ run: [touch, \"{marker}\"] }} ] }}\n");
    let evil = |name: &str| format!("  - job: {name}\n    sources:\n      - files: {{ name: data, paths: [data] }}\n{hooks}");
    thief.write("data/a.txt", "evil");
    thief.write("drctl.yaml", &format!("{config}\n{}", evil("evil")));
    thief.ok(&["backup", "now", "evil"]);
    thief.ok(&["backup", "now", "shop"]);
    std::fs::remove_file(&marker).unwrap();
    rotate(&old);
    old.ok(&["backup", "now"]);
    let sets = old.sets();
    // What the thief made with the old key: a new job's log and sets; and, in the log of the job that was, the number that comes next.
    copy_folder(&thief.path("drctl-repository/jobs/evil"), &old.path("drctl-repository/jobs/evil"));
    let record = |home: &Home, number: usize| home.path(&format!("drctl-repository/jobs/shop/log/{number:010}.signed"));
    let next = old.files("drctl-repository/jobs/shop/log").len() + 1;
    std::fs::copy(record(&thief, 3), record(&old, next)).unwrap();

    assert_eq!(old.sets(), sets, "nothing of it is a set");
    let status = old.run(&["status"]);
    assert!(status.all().contains("evil") && status.all().contains("foreign"), "{}", status.all());
    let evil_set = thief.json(&["list", "--job", "evil"])["result"]["sets"][0]["set"].as_str().unwrap().to_owned();
    for args in [vec!["show", &evil_set], vec!["cat", &evil_set, "data"], vec!["restore", &evil_set, "--target", "back", "--yes"]] {
        assert_ne!(old.run(&args).code, 0, "{args:?}");
    }
    for (revoke, keys) in [(&[][..], "3"), (&["--revoke", "1"], "4")] {
        let home = new_machine(&old);
        let ran = init_ok(&home, &store(&old), revoke);
        assert!(ran.out.contains("job shop\n") && ran.out.contains(&format!("signing key {keys} ")), "{}", ran.out);
        let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
        assert!(!config.contains("touch") && !config.contains("evil"), "{config}");
        home.ok(&["backup", "now"]);
    }
    assert!(!std::path::Path::new(&marker).exists());
    assert!(old.run(&["doctor"]).out.contains("jobs/evil/ (foreign"));
}

/// Nobody has revoked anything yet: the thief's configuration is the newest one there is.
#[test]
fn f130_what_runs_a_program_comes_commented_out_and_is_shown() {
    let old = Home::new();
    let marker = old.path("OWNED").display().to_string();
    old.write("data/a.txt", "a");
    old.write("pw", "x");
    old.init(&format!(
        "jobs:\n  - job: shop\n    sources:\n      - files: {{ name: data, paths: [data] }}\n      - command: {{ name: run, run: [echo, mine] }}\n    hooks:\n      \
         after: [ {{ run: [touch, \"{marker}\"] }} ]\n  - job: db\n    sources:\n      - postgres: {{ host: 127.0.0.1, port: 1, user: x, database: all, \
         password: {{ cmd: [touch, \"{marker}\"] }} }}\n"
    ));
    old.ok(&["backup", "now", "shop"]);
    std::fs::remove_file(&marker).unwrap();
    let home = new_machine(&old);
    let ran = init_ok(&home, &store(&old), &[]);
    for part in [
        format!("NOT SWITCHED ON  job shop, hooks: it came out of the repository and would run\n        touch {marker}\n"),
        "NOT SWITCHED ON  job shop, sources[1].command: it came out of the repository and would run\n        echo mine\n".to_owned(),
        "NOT SWITCHED ON  job db, sources[0].postgres.password: ".to_owned(),
        "take the '# ' before it away in ".to_owned(),
    ] {
        assert!(ran.out.contains(&part), "{part}\n{}", ran.out);
    }
    home.run(&["config", "check"]);
    home.run(&["doctor"]);
    home.ok(&["backup", "now", "shop"]);
    assert!(!std::path::Path::new(&marker).exists());
    // Switched on as it says.
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let on = |line: &str| match line.trim_start().strip_prefix("# ") {
        Some(rest) if rest.starts_with("NOT SWITCHED ON") => String::new(),
        Some(rest) if line.starts_with("    ") => format!("{}{rest}\n", &line[..line.len() - line.trim_start().len()]),
        _ => format!("{line}\n"),
    };
    let (head, jobs) = config.split_once("\njobs:\n").unwrap();
    home.write("drctl.yaml", &format!("{head}\njobs:\n{}", jobs.lines().map(on).collect::<String>()));
    home.ok(&["backup", "now", "shop"]);
    assert!(std::path::Path::new(&marker).exists(), "it runs when a person says so");
}
