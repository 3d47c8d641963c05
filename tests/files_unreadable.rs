//! Files that drctl's user may not read: named before and after, and let in by the very lines that drctl prints.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "support/cli.rs"]
mod cli;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use cli::{Home, Ran};

const UID: &str = "10001";

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A home of uid 10001, and root's files in `data` beside it.
struct Host {
    home: Home,
    data: tempfile::TempDir,
    program: tempfile::TempDir,
}

impl Host {
    fn new(sources: &[&str]) -> Host {
        let host = Host { home: Home::new(), data: tempfile::tempdir().unwrap(), program: tempfile::tempdir().unwrap() };
        for folder in [host.data.path(), host.program.path()] {
            mode(folder, 0o755);
        }
        // Where it is built a stranger may not get to.
        cli::copy_program(&host.program.path().join("drctl"));
        host.file("open", 0o644);
        let sources: Vec<String> =
            sources.iter().map(|s| format!("      - {}\n", s.replace("DATA", &host.data.path().display().to_string()))).collect();
        host.home.init(&format!("jobs:\n  - job: shop\n    sources:\n{}", sources.concat()));
        host.sh(&format!("chown -R {UID}:{UID} {}", host.home.path("").parent().unwrap().display()));
        host
    }

    fn file(&self, name: &str, bits: u32) {
        let path = self.data.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, name).unwrap();
        mode(&path, bits);
    }

    fn sh(&self, line: &str) {
        let ran = Ran::of(Command::new("sh").args(["-ec", line]).output().unwrap());
        assert_eq!(ran.code, 0, "{line}: {}", ran.all());
    }

    fn as_user(&self, more: &[&str], args: &[&str]) -> Ran {
        let prepared = self.home.command(args);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", UID, "--regid", UID, "--clear-groups"]).args(more).arg(self.program.path().join("drctl")).args(args);
        command.current_dir(self.home.path("")).env_clear().envs(prepared.get_envs().filter_map(|(n, v)| Some((n, v?))));
        Ran::of(command.output().unwrap())
    }

    fn drctl(&self, args: &[&str]) -> Ran {
        self.as_user(&[], args)
    }
}

/// The line behind `As root: `, up to the next sentence.
fn line_of(text: &str) -> String {
    let begin = text.find("setfacl ").unwrap_or_else(|| panic!("no line in {text}"));
    text[begin..].split("; or ").next().unwrap().to_owned()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED what another user may not read: that needs root");
    }
    root
}

#[test]
fn what_may_not_be_read_is_named_and_let_in() {
    if !is_root() {
        return;
    }
    let host = Host::new(&["files: { name: data, paths: [DATA], exclude: [\"*.tmp\"] }"]);
    let at = |name: &str| host.data.path().join(name).display().to_string();
    assert!(!host.drctl(&["doctor"]).out.contains("may not be read"));
    for i in 1..=4 {
        host.file(&format!("closed {i}"), 0o600);
    }
    for name in ["left out.tmp", "vault/in", "names/in"] {
        host.file(name, 0o600);
    }
    mode(&host.data.path().join("vault"), 0o700);
    // It shows its names, and nothing more.
    mode(&host.data.path().join("names"), 0o744);
    host.sh(&format!("chown daemon:adm '{}'", at("closed 1")));

    let doctor = host.drctl(&["doctor"]);
    for words in [
        "warning  source shop: data: 6 of 7 files and folders may not be read by uid 10001, and no set is whole without them: ",
        &format!("{} (daemon:adm, mode 0600), {} (root:root, mode 0600)", at("closed 1"), at("closed 2")),
        &format!("{} (root:root, mode 0744) and 1 more. As root: setfacl -R", at("names")),
        "AmbientCapabilities=",
    ] {
        assert!(doctor.out.contains(words), "{words}\n{}", doctor.out);
    }
    let partial = host.drctl(&["backup", "now"]);
    assert_eq!(partial.code, 3, "{}", partial.all());
    // With the capability nothing is closed.
    let whole = host.as_user(&["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"], &["backup", "now"]);
    assert!(whole.code == 0 && !whole.all().contains("may not be read"), "{}", whole.all());

    host.sh(&line_of(&doctor.out));
    // What comes later is let in too.
    host.file("vault/later", 0o640);
    let doctor = host.drctl(&["doctor"]);
    assert!(!doctor.out.contains("may not be read"), "{}", doctor.out);
    let whole = host.drctl(&["backup", "now"]);
    assert_eq!(whole.code, 0, "{}", whole.all());
}

/// Where nothing can be read at all preflight refuses, and the line is for what stands in the way.
#[test]
fn a_path_that_is_closed_as_a_whole_is_refused_with_its_line() {
    if !is_root() {
        return;
    }
    for source in [
        "files: { name: data, paths: [DATA/folder/deep] }",
        "files: { name: data, paths: [DATA/folder/deep/.env] }",
        "environment: { from: { file: DATA/folder/deep/.env } }",
        "compose: { files: [DATA/folder/deep/.env] }",
    ] {
        let host = Host::new(&[source]);
        host.file("folder/deep/.env", 0o600);
        std::fs::write(host.data.path().join("folder/deep/.env"), "A=b\n").unwrap();
        mode(&host.data.path().join("folder/deep"), 0o700);
        mode(&host.data.path().join("folder"), 0o700);
        // One after the other: the folder above, the folder, the file.
        let mut lines = Vec::new();
        let last = loop {
            let ran = host.drctl(&["backup", "now"]);
            if ran.code == 0 || lines.len() > 3 {
                break ran;
            }
            assert_eq!(ran.code, if lines.is_empty() || !ran.all().contains("PARTIAL") { 4 } else { 3 }, "{source}: {}", ran.all());
            assert!(ran.all().contains("root:root, mode 0") && ran.all().contains("s root: setfacl"), "{source}: {}", ran.all());
            let line = line_of(&ran.all());
            assert!(!lines.contains(&line), "{line} did not help: {}", ran.all());
            host.sh(&line);
            lines.push(line);
        };
        assert_eq!(last.code, 0, "{source}: {lines:?}\n{}", last.all());
        assert!(lines[0].ends_with(&format!("-m u:10001:x {}/folder", host.data.path().display())), "{lines:?}");
    }
}

#[test]
fn what_root_does_in_anothers_repository_stays_the_others() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED runs as root and as another user: this is not root");
        return;
    }
    let host = Host::new(&["files: { name: data, paths: [DATA] }"]);
    let ran = host.as_user(&[], &["backup", "now"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    // `sudo drctl …`, with all that writes there.
    host.home.ok(&["verify"]);
    host.home.ok(&["backup", "now"]);
    host.home.ok(&["restore", "--date", "latest", "--target", "back", "--yes"]);
    cli::walk(&host.home.path("drctl-repository"), &mut |path| {
        use std::os::unix::fs::MetadataExt;
        let meta = path.metadata().unwrap();
        assert_eq!((meta.uid().to_string(), meta.gid().to_string()), (UID.to_owned(), UID.to_owned()), "{}", path.display());
        assert_eq!(path.parent().unwrap().metadata().unwrap().uid().to_string(), UID, "{}", path.display());
    });
    for args in [&["backup", "now"][..], &["list"], &["verify"], &["status"]] {
        let ran = host.as_user(&[], args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.all());
        assert!(!ran.err.to_lowercase().contains("denied") && !ran.err.contains("warning"), "{args:?}: {}", ran.err);
    }
}
