//! The sources environment, compose and command, and the loader that lays their artifacts aside.
#![allow(clippy::unwrap_used, reason = "test code")]

mod files_support;

use std::sync::Arc;

use drctl::error::Kind;
use drctl::model::ArtifactFormat;
use drctl::source::Source;
use drctl::source::command::{CommandSettings, CommandSource};
use drctl::source::compose::{ComposeSettings, ComposeSource};
use drctl::source::environment::{EnvironmentFrom, EnvironmentSettings, EnvironmentSource};
use drctl::source::environment_load::AsideLoader;
use drctl::source::load::Loader;
use files_support::*;

fn environment(from: EnvironmentFrom, prefixes: &[&str], names: &[&str]) -> EnvironmentSettings {
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    EnvironmentSettings { from, prefixes: strings(prefixes), names: strings(names) }
}

#[tokio::test]
async fn environment_of_a_file_is_filtered_and_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".env");
    std::fs::write(&file, "B_TWO='x y'\nA=1\nexport B_ONE=2\nC=3\n").unwrap();
    let settings = environment(EnvironmentFrom::File(file.clone()), &["B_"], &["C", "D"]);
    let source = EnvironmentSource::new("environment", settings);
    let context = context();
    assert_eq!(source.preflight(&context).await.unwrap().warnings.len(), 1, "D is not there");
    assert!(source.open(&context).await.unwrap().artifacts()[0].secret);
    let (taken, details) = take(&source).await.unwrap();
    assert_eq!(taken[0].bytes, b"B_TWO='x y'\nexport B_ONE=2\nC=3\n");
    assert_eq!(details["names"], serde_json::json!(["B_ONE", "B_TWO", "C"]));
    assert!(!details.to_string().contains("x y"));

    let none = EnvironmentSource::new("e", environment(EnvironmentFrom::File(file), &["NO_"], &[]));
    assert_eq!(take(&none).await.err().unwrap().kind(), Kind::Preflight);
    let missing = EnvironmentSource::new("e", environment(EnvironmentFrom::File("/no/such".into()), &[], &[]));
    assert_eq!(take(&missing).await.err().unwrap().kind(), Kind::Preflight);
}

#[tokio::test]
async fn f122_a_restored_env_file_is_what_was_backed_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".env");
    let texts: [&[u8]; 4] = [
        b"# database\nURL=postgres://${USER}:${PW}@db/shop\n\nexport Z=1\nA=a #b\nA=again\n",
        b"P=\"a\"b\r\nQ='tis\r\nKEY=\"-----BEGIN\nabc==\n-----END\"\r\nnonsense\r\n1x=3",
        b"\xef\xbb\xbfA=\xff\xfe\nB=\"never closed\n",
        b"# only a remark",
    ];
    for text in texts {
        std::fs::write(&file, text).unwrap();
        let settings = environment(EnvironmentFrom::File(file.clone()), &[], &[]);
        let (taken, details) = take(&EnvironmentSource::new("environment", settings.clone())).await.unwrap();
        assert_eq!(taken[0].bytes, text);
        let loader = AsideLoader::new(dir.path().join("to"), Some(settings));
        let request = request("environment", vec![taken[0].artifact.clone()], details);
        let journal = MemoryJournal::default();
        loader.load(&request, &request.artifacts[0], stream(taken[0].bytes.clone(), true), &journal, &context()).await.unwrap();
        assert_eq!(loader.count(&request, &request.artifacts[0], &journal, &context()).await.unwrap(), request.artifacts[0].facts);
        loader.switch(&request, &journal, &context()).await.unwrap();
        assert!(loader.kept(&journal, &context()).await.unwrap().iter().any(|line| line.contains("cp ")));
        assert_eq!(std::fs::read(dir.path().join("to/drctl-restore-20250101/environment.env")).unwrap(), text);
        loader.discard(&journal, &context()).await.unwrap();
    }
    // Chosen lines stand as they stood, and are not to be copied over the rest.
    std::fs::write(&file, texts[0]).unwrap();
    let chosen = environment(EnvironmentFrom::File(file.clone()), &["Z"], &["A"]);
    let (taken, details) = take(&EnvironmentSource::new("environment", chosen.clone())).await.unwrap();
    assert_eq!(taken[0].bytes, b"export Z=1\nA=a #b\nA=again\n");
    let request = request("environment", vec![taken[0].artifact.clone()], details);
    let plan = AsideLoader::new(dir.path(), Some(chosen)).plan(&request, &context()).await.unwrap();
    assert!(!plan.touches.iter().any(|line| line.contains("cp ")) && plan.touches.iter().any(|line| line.contains("by hand")), "{plan:?}");
    // Nothing at all is an error still.
    for (text, names) in [(&b" \n\n"[..], &[][..]), (b"A=1\n", &["B"])] {
        std::fs::write(&file, text).unwrap();
        let none = EnvironmentSource::new("e", environment(EnvironmentFrom::File(file.clone()), &[], names));
        assert_eq!(take(&none).await.err().unwrap().kind(), Kind::Preflight);
    }
}

#[tokio::test]
async fn environment_of_this_process() {
    let source = EnvironmentSource::new("e", environment(EnvironmentFrom::Process, &[], &["PATH"]));
    let (taken, _) = take(&source).await.unwrap();
    assert!(taken[0].bytes.starts_with(b"PATH="));
}

#[tokio::test]
async fn environment_is_laid_aside_and_only_names_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.env");
    std::fs::write(&file, "SAME=1\nCHANGED=secret-old\nGONE=secret-gone\n").unwrap();
    let settings = environment(EnvironmentFrom::File(file.clone()), &[], &[]);
    let (taken, details) = take(&EnvironmentSource::new("environment", settings.clone())).await.unwrap();
    std::fs::write(&file, "SAME=1\nCHANGED=secret-new\nADDED=secret-added\n").unwrap();

    let loader = AsideLoader::new(dir.path(), Some(settings));
    let request = request("environment", vec![taken[0].artifact.clone()], details);
    let (journal, mut context, told) = (MemoryJournal::default(), context(), Arc::new(Told::default()));
    context.bus = drctl::observe::Bus::new();
    context.bus.subscribe(told.clone());
    let plan = loader.plan(&request, &context).await.unwrap();
    loader.load(&request, &request.artifacts[0], stream(taken[0].bytes.clone(), true), &journal, &context).await.unwrap();
    let facts = loader.count(&request, &request.artifacts[0], &journal, &context).await.unwrap();
    assert_eq!(facts, request.artifacts[0].facts);
    loader.switch(&request, &journal, &context).await.unwrap();
    let aside = dir.path().join("drctl-restore-20250101/environment.env");
    assert_eq!(std::fs::read(&aside).unwrap(), taken[0].bytes);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&aside).unwrap().mode() & 0o777, 0o600);
    let lines = loader.kept(&journal, &context).await.unwrap();
    let said = [told.0.lock().unwrap().join("\n"), plan.touches.join("\n"), lines.join("\n")].concat();
    for line in ["~ CHANGED", "+ GONE", "- ADDED", "cp "] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("secret"), "{said}");
    assert!(std::fs::read_to_string(&file).unwrap().contains("secret-new"), "the live file is as it was");
    // A second restore of that day does not overwrite the first; a broken stream leaves nothing.
    let broken = MemoryJournal::default();
    assert!(loader.load(&request, &request.artifacts[0], stream(taken[0].bytes.clone(), false), &broken, &context).await.is_err());
    assert_eq!(std::fs::read_dir(aside.parent().unwrap()).unwrap().count(), 1);
    loader.discard(&journal, &context).await.unwrap();
    loader.discard(&journal, &context).await.unwrap();
    assert!(!aside.parent().unwrap().exists());
}

#[tokio::test]
async fn compose_files_come_byte_for_byte_with_their_images() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("docker-compose.prod.yml"), dir.path().join("broken.yaml"));
    let text = "# remark stays\nservices:\n  db: {image: 'postgres:15', env_file: db.env}\n";
    std::fs::write(&one, text).unwrap();
    std::fs::write(&two, "a: [").unwrap();
    let source = ComposeSource::new("compose", ComposeSettings { files: vec![one.clone(), two] });
    let preflight = source.preflight(&context()).await.unwrap();
    assert!(preflight.warnings[0].contains("not valid YAML"));
    let (taken, details) = take(&source).await.unwrap();
    assert_eq!((taken[0].artifact.name.as_str(), taken[1].artifact.name.as_str()), ("docker-compose.prod", "broken"));
    assert_eq!(taken[0].bytes, text.as_bytes());
    assert_eq!(details["files"][0]["images"]["db"], "postgres:15");
    assert_eq!(details["files"][0]["env_files"][0], "db.env");

    std::fs::write(&one, "changed").unwrap();
    let request = request("compose", vec![taken[0].artifact.clone()], details);
    let plan = AsideLoader::new(dir.path(), None).plan(&request, &context()).await.unwrap();
    assert!(plan.touches[1].starts_with("diff -u ") && plan.touches[2].starts_with("cp "), "{plan:?}");

    let missing = ComposeSource::new("c", ComposeSettings { files: vec!["/no/compose.yml".into()] });
    assert_eq!(take(&missing).await.err().unwrap().kind(), Kind::Preflight);
}

/// A project is all that its files name; what cannot be taken is named.
#[tokio::test]
async fn f126_everything_that_a_compose_project_names_is_taken_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "compose.yml",
        "include: [part/compose.yml]\nservices:\n  a: {env_file: [a.env, missing.env, {path: perhaps.env, required: false}]}\n  \
         b: {env_file: '${STAGE}.env', extends: {file: base/common.yml, service: b}}\nsecrets: {pw: {file: secrets/pw}, dir: {file: secrets}}\n",
    );
    write("compose.override.yml", "services:\n  a: {env_file: override.env}\n");
    write("override.env", "O=1\n");
    write(".env", "STAGE=prod\n");
    write("a.env", "A=a #b\n");
    write("secrets/pw", "hunter2");
    write("base/common.yml", "services:\n  b: {env_file: common.env}\n");
    write("base/common.env", "C=1\n");
    // A circle comes to its end; what it names counts from its own folder.
    write("part/compose.yml", "include: [../compose.yml]\nconfigs: {c: {file: nginx.conf}}\n");
    write("part/nginx.conf", "server {}\n");
    let source = ComposeSource::new("compose", ComposeSettings { files: vec![root.join("compose.yml")] });
    let preflight = source.preflight(&context()).await.unwrap();
    assert_eq!(preflight.problems.len(), 0, "{:?}", preflight.problems);
    let words = preflight.warnings.join("\n");
    assert_eq!(preflight.warnings.len(), 3, "{words}");
    for what in [
        "missing.env (env_file), which is not there",
        "${STAGE}.env (env_file), which a variable decides",
        "secrets (secrets), which is no file",
    ] {
        assert!(words.contains(what), "{what}: {words}");
    }
    let (taken, details) = take(&source).await.unwrap();
    let mut found: Vec<(String, String)> = (taken.iter().zip(details["files"].as_array().unwrap()))
        .map(|(taken, file)| {
            let path = file["path"].as_str().unwrap().strip_prefix(&format!("{}/", root.display())).unwrap().to_owned();
            assert_eq!(taken.bytes, std::fs::read(root.join(&path)).unwrap(), "{path}");
            assert_eq!(taken.artifact.name, file["name"].as_str().unwrap());
            (path, taken.artifact.name.clone())
        })
        .collect();
    found.sort();
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            ".env",
            "a.env",
            "base/common.env",
            "base/common.yml",
            "compose.override.yml",
            "compose.yml",
            "override.env",
            "part/compose.yml",
            "part/nginx.conf",
            "secrets/pw"
        ]
    );
    let names: std::collections::BTreeSet<&String> = found.iter().map(|(_, name)| name).collect();
    assert_eq!(names.len(), found.len(), "no two share a name: {found:?}");
    // Each comes back with the line that copies it to where it was.
    let artifacts = taken.iter().map(|taken| taken.artifact.clone()).collect();
    let plan = AsideLoader::new(dir.path(), None).plan(&request("compose", artifacts, details), &context()).await.unwrap();
    assert!(plan.touches.iter().any(|line| line.starts_with("cp ") && line.ends_with("/secrets/pw")), "{:?}", plan.touches);
    // What is there and cannot be taken is missing from the set.
    std::fs::File::create(root.join("a.env")).unwrap().set_len(17 << 20).unwrap();
    let preflight = source.preflight(&context()).await.unwrap();
    assert!(
        preflight.problems.len() == 1 && preflight.problems[0].to_string().contains("a.env is longer than"),
        "{:?}",
        preflight.problems
    );
}

#[tokio::test]
async fn a_command_is_no_shell_line_and_its_exit_status_decides() {
    let of = |program: &str, args: &[&str]| CommandSource::new("command", CommandSettings::of(program, args.iter().copied()));
    let (taken, _) = take(&of("printf", &["%s|", "a b", "$(id)", "*"])).await.unwrap();
    assert_eq!(taken[0].bytes, b"a b|$(id)|*|");
    assert_eq!(taken[0].artifact.artifact.format, ArtifactFormat::Raw);

    let failed = take(&of("sh", &["-c", "echo half; echo because >&2; exit 3"])).await.err().unwrap();
    assert!(failed.to_string().contains("exited 3") && failed.to_string().contains("because"), "{failed}");
    let silent = take(&of("true", &[])).await.err().unwrap();
    assert!(silent.to_string().contains("wrote nothing"), "{silent}");
    let missing = take(&of("no-such-program-at-all", &[])).await.err().unwrap();
    assert_eq!(missing.kind(), Kind::Preflight);

    let empty = CommandSource::new("command", CommandSettings { allow_empty: true, ..CommandSettings::of("true", [""; 0]) });
    assert!(take(&empty).await.unwrap().0[0].bytes.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_streams_fast() {
    let source = CommandSource::new("command", CommandSettings::of("head", ["-c", "1073741824", "/dev/zero"]));
    let context = context();
    let mut session = source.open(&context).await.unwrap();
    let plan = session.artifacts().remove(0);
    let (sender, mut receiver) = drctl::pipeline::plain::channel();
    let started = std::time::Instant::now();
    let reading = std::thread::spawn(move || {
        let mut bytes = 0u64;
        while let Some(piece) = receiver.blocking_next() {
            if let drctl::pipeline::plain::Plain::Data(data) = piece {
                bytes += data.len() as u64;
            }
        }
        bytes
    });
    session.dump(&plan, sender, &context).await.unwrap();
    assert_eq!(reading.join().unwrap(), 1 << 30);
    println!("{:.2} GB/s", 1.074 / started.elapsed().as_secs_f64());
}
