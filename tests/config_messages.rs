//! Bad configurations and the exact words about them: every folder of tests/data/config is one, `expected.txt` in it holds the
//! messages. `DRCTL_BLESS=1` writes them anew; read them before you commit them.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the message")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use drctl::config::{Environment, LoadOptions, Problems, load};

/// A copy of a case in a folder of its own, with keys beside it: files kept with the source cannot have mode 0600.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn of(name: &str, mode: u32) -> Case {
        let case = Case { folder: tempfile::tempdir().unwrap() };
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config").join(name), case.folder.path(), mode);
        let keys = case.folder.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        for (name, mode) in [("identity", 0o600), ("signing", 0o600), ("open", 0o644)] {
            std::fs::write(keys.join(name), "key\n").unwrap();
            std::fs::set_permissions(keys.join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        case
    }

    fn options(&self) -> LoadOptions {
        LoadOptions::new(Environment::of(self.folder.path(), [("SET", "hunter2"), ("HOME", "/nonexistent")]))
    }

    fn messages(&self) -> String {
        let folder = self.folder.path().display().to_string();
        let problems: Problems = load(&self.options()).unwrap_err();
        format!("{problems}\n").replace(&folder, "$DIR")
    }
}

fn copy(from: &Path, to: &Path, mode: u32) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target, mode);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
            std::fs::set_permissions(&target, PermissionsExt::from_mode(mode)).unwrap();
        }
    }
}

fn expect(name: &str, mode: u32) -> String {
    let got = Case::of(name, mode).messages();
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config").join(name).join("expected.txt");
    if std::env::var_os("DRCTL_BLESS").is_some() {
        std::fs::write(&file, &got).unwrap();
    }
    assert_eq!(got, std::fs::read_to_string(&file).unwrap(), "{name}");
    assert!(!got.contains("hunter2") && !got.contains("HUNTER2"), "a secret stands in a message");
    got
}

#[test]
fn twelve_mistakes_of_many_kinds_give_twelve_messages_with_lines() {
    let got = expect("twelve_mistakes", 0o600);
    assert_eq!(got.lines().count(), 12);
    for line in got.lines() {
        let mut parts = line.splitn(4, ':');
        assert_eq!(parts.next(), Some("drctl.yaml"));
        assert!(parts.next().unwrap().parse::<u32>().is_ok() && parts.next().unwrap().parse::<u32>().is_ok(), "{line}");
    }
}

#[test]
fn f62_an_unknown_key_and_a_double_name_are_refused_with_their_lines() {
    let got = Case::of("twelve_mistakes", 0o600).messages();
    for line in [
        "drctl.yaml:21:11: jobs[0].sources[0].postgres.pasword: unknown key; did you mean 'password'?\n",
        "drctl.yaml:25:5: jobs[1].job: 'shop' names two jobs, first at drctl.yaml:14:5\n",
    ] {
        assert!(got.contains(line), "{got}");
    }
    let case = Case::of("empty", 0o600);
    let many: String = (0..5000).map(|i| format!("key{i}: 1\n")).collect();
    std::fs::write(case.folder.path().join("drctl.yaml"), many).unwrap();
    let got = case.messages();
    assert!(got.contains("drctl.yaml:1:1: 4950 more unknown keys\n"), "{got}");
    assert_eq!(got.lines().count(), 52);
}

#[test]
fn values_that_are_none() {
    expect("values", 0o600);
}

#[test]
fn f97_databases_that_are_left_out() {
    expect("exclude", 0o600);
}

#[test]
fn f121_patterns_that_can_match_nothing() {
    expect("patterns", 0o600);
}

#[test]
fn f142_lengths_of_time_that_are_kept() {
    let got = expect("lengths", 0o600);
    assert!(got.lines().count() == 4 && got.contains("'7min' or '7mo'"), "{got}");
}

#[test]
fn tls_of_postgres() {
    expect("tls", 0o600);
}

#[test]
fn wrong_types() {
    expect("types", 0o600);
}

#[test]
fn f62_stores_in_one_place_and_a_first_one_that_may_be_missed() {
    let got = expect("stores", 0o600);
    assert_eq!(got.lines().count(), 6, "{got}");
}

#[test]
fn ways_to_a_server() {
    expect("reach", 0o600);
    // Everything of it in one file: two passes find it, for shapes are checked before meanings.
    expect("reach-meaning", 0o600);
}

#[test]
fn what_comes_with_a_later_version_is_refused_with_that_sentence() {
    expect("later", 0o600);
}

#[test]
fn how_jobs_are_run() {
    expect("running", 0o600);
}

#[test]
fn who_is_told() {
    expect("notify", 0o600);
}

#[test]
fn buckets() {
    expect("s3", 0o600);
}

#[test]
fn f62_secrets_and_keys() {
    expect("secrets", 0o600);
}

#[test]
fn f62_a_secret_in_a_file_that_others_can_read() {
    expect("open_file", 0o640);
    let case = Case::of("open_file", 0o600);
    let config = load(&case.options()).unwrap();
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|w| w.contains("stands in the file; better")), "{warnings:?}");
}

#[test]
fn without_encryption_secrets_need_permission() {
    expect("plaintext", 0o600);
}

#[test]
fn job_files_beside_the_configuration() {
    expect("job_files", 0o600);
}

#[test]
fn files_that_cannot_be_understood() {
    for name in ["syntax", "braces", "a_list", "empty"] {
        expect(name, 0o600);
    }
    let case = Case::of("empty", 0o600);
    let file = case.folder.path().join("drctl.yaml");
    std::fs::write(&file, b"a: \xff\n").unwrap();
    assert_eq!(case.messages(), "drctl.yaml:1:4: not text in UTF-8\n");
    std::fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(case.messages(), "drctl.yaml:1:1: larger than 1 MiB; that is no configuration\n");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(case.messages(), "drctl.yaml:1:1: cannot be read: not a file\n");
    std::fs::remove_dir(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    assert_eq!(case.messages(), "drctl.yaml:1:1: cannot be read: not a file\n");
}

#[test]
fn problems_exit_2_and_say_what_to_type() {
    let folder = tempfile::tempdir().unwrap();
    let options = LoadOptions::new(Environment::of(folder.path(), [("HOME", "/nonexistent")]));
    let error: drctl::error::Error = load(&options).unwrap_err().into();
    assert_eq!(error.kind().exit_code(), 2);
    assert!(error.hint_text().unwrap().contains("drctl init"));
    let error: drctl::error::Error = load(&Case::of("twelve_mistakes", 0o600).options()).unwrap_err().into();
    assert_eq!(error.kind().exit_code(), 2);
    assert!(error.to_string().starts_with("the configuration has 12 mistakes:\ndrctl.yaml:"));
}

#[test]
fn config_check_show_and_schema_say_what_is_there() {
    use drctl::cli::config::{ConfigVerb, run};
    let case = Case::of("job_files", 0o600);
    for name in ["b.yaml", "c.yml", "d.yaml"] {
        std::fs::remove_file(case.folder.path().join("jobs").join(name)).unwrap();
    }
    let more = "job: more\nschedule: { full: '0 2 * * *', drill: '0 5 * * 0' }\nretention: { keep_within: 30d }\ntimezone: UTC\n\
                sources:\n  - postgres: { host: db, password: hunter2 }\n  - files: { name: up, paths: [/x] }\n";
    std::fs::write(case.folder.path().join("jobs/more.yaml"), more).unwrap();
    std::fs::set_permissions(case.folder.path().join("jobs/more.yaml"), PermissionsExt::from_mode(0o600)).unwrap();
    let folder = case.folder.path().display().to_string();
    let checked = run(ConfigVerb::Check, &case.options()).unwrap();
    let zone = load(&case.options()).unwrap().jobs[0].timezone.iana_name().unwrap_or("UTC").to_owned();
    assert_eq!(
        checked.text.replace(&folder, "$DIR").replace(&zone, "UTC"),
        "read $DIR/drctl.yaml, $DIR/jobs/more.yaml\n\
         repository shop-7k3q: stores main; encrypted for 1 recipient\n\
         job a: files; no schedule; every set is kept\n\
         job more: postgres, up (files); schedule '0 2 * * *' (UTC), by drctl agent; \
         retention 30d, by drctl prune\n\
         warning: jobs/more.yaml:2:32: schedule.drill: drills are not yet run by this version of drctl\n\
         warning: jobs/more.yaml:6:27: sources[0].postgres.password: a secret stands in the file; better { file: … }, { env: … }, { cmd: […] } or { cred: … }\n\
         the configuration is fine: 2 jobs, 3 sources, 2 warnings\n"
    );
    assert_eq!(checked.json["jobs"][1]["sources"][1], serde_json::json!({ "name": "up", "kind": "files", "group": "main" }));
    assert_eq!(checked.json["warnings"][0]["line"], 2);
    let shown = run(ConfigVerb::Show, &case.options()).unwrap();
    assert!(shown.text.contains("password: \"***\"  # jobs/more.yaml:6:37\n"), "{}", shown.text);
    assert!(shown.text.contains("decode_check: true  # default\n"), "{}", shown.text);
    let schema = run(ConfigVerb::Schema { job: false }, &case.options()).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&schema.text).unwrap(), schema.json);
    assert!(schema.json["properties"]["jobs"]["items"]["properties"]["sources"].is_object());
    let problems = run(ConfigVerb::Check, &Case::of("twelve_mistakes", 0o600).options()).unwrap_err();
    let first = &problems.to_json()[1];
    assert_eq!((&first["file"], &first["line"], &first["column"]), (&"drctl.yaml".into(), &11.into(), &3.into()));
    assert_eq!(first["path"], "repository.decode_check");
}
