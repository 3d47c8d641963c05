//! The built `drctl` in a folder of its own, run as a person would.
//!
//! Include it with `#[path = "support/cli.rs"] mod cli;`.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A working folder with a state folder beside it; both vanish with it.
pub struct Home {
    temp: tempfile::TempDir,
    /// Variables every run gets.
    pub env: Vec<(String, String)>,
}

/// What a run gave.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Home {
    pub fn new() -> Home {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("work")).unwrap();
        std::fs::create_dir(temp.path().join("state")).unwrap();
        Home { temp, env: Vec::new() }
    }

    /// The working folder.
    pub fn path(&self, below: &str) -> PathBuf {
        let work = self.temp.path().join("work");
        if below.is_empty() { work } else { work.join(below) }
    }

    /// The folder of the host's own state.
    pub fn state(&self) -> PathBuf {
        self.temp.path().join("state")
    }

    /// A place that is not on this host: a safe, another machine.
    pub fn away(&self, name: &str) -> PathBuf {
        let away = self.temp.path().join("away");
        std::fs::create_dir_all(&away).unwrap();
        away.join(name)
    }

    pub fn env(&mut self, name: &str, value: &str) {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.into(), value.into()));
    }

    pub fn write(&self, below: &str, text: &str) {
        std::fs::create_dir_all(self.path(below).parent().unwrap()).unwrap();
        std::fs::write(self.path(below), text).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(self.path(below), PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// Puts a whole file in the place of another: who watches it never sees half of it.
    pub fn exchange(&self, below: &str, text: &str) {
        let beside = format!("{below}.new");
        self.write(&beside, text);
        std::fs::rename(self.path(&beside), self.path(below)).unwrap();
    }

    /// `drctl ARGS…`, ready to be changed before it runs.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drctl"));
        command.args(args).current_dir(self.path("")).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap());
        command.env("STATE_DIRECTORY", self.temp.path().join("state"));
        command.env("RUST_BACKTRACE", "0").env("DRCTL_TEST_WEAK_PASSPHRASE", "1");
        command.envs(self.env.iter().map(|(n, v)| (n, v)));
        command
    }

    /// Runs `drctl ARGS…` to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Runs it and insists on exit code 0.
    pub fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "drctl {args:?}\n{}{}", ran.out, ran.err);
        ran
    }

    /// Runs it with `--json` and gives its result.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let mut all = args.to_vec();
        all.extend(["--json", "--quiet"]);
        let ran = self.run(&all);
        let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{args:?}: {e}\n{}{}", ran.out, ran.err));
        assert_eq!(value["schema"], "drctl.v1");
        value
    }

    /// `drctl init` with a passphrase file, then jobs appended as YAML; `jobs` begins with `jobs:`.
    pub fn init(&self, jobs: &str) {
        self.init_with(&[], jobs);
    }

    /// The same with further arguments, such as `--store URL`.
    pub fn init_with(&self, more: &[&str], jobs: &str) {
        self.write("passphrase", "correct horse battery staple");
        self.ok(&[&["init", "--job", "shop", "--passphrase-file", "passphrase"], more].concat());
        let config = std::fs::read_to_string(self.path("drctl.yaml")).unwrap();
        let head: Vec<&str> = config.lines().take_while(|line| !line.starts_with("jobs:")).collect();
        self.write("drctl.yaml", &format!("{}\n{jobs}", head.join("\n")));
        self.ok(&["config", "check"]);
    }

    /// The newest set's id.
    pub fn newest(&self) -> String {
        let list = self.json(&["list"]);
        list["result"]["sets"].as_array().unwrap().last().unwrap()["set"].as_str().unwrap().to_owned()
    }

    /// Ids of all sets.
    pub fn sets(&self) -> Vec<String> {
        let list = self.json(&["list"]);
        list["result"]["sets"].as_array().unwrap().iter().map(|s| s["set"].as_str().unwrap().to_owned()).collect()
    }

    /// Folder of a set in the repository.
    pub fn set_folder(&self, set: &str) -> PathBuf {
        let id: drctl::model::SetId = set.parse().unwrap();
        self.path("drctl-repository").join(id.prefix())
    }

    /// Files below a folder, relative to it.
    pub fn files(&self, below: &str) -> Vec<String> {
        let root = self.path(below);
        let mut found = Vec::new();
        walk(&root, &mut |path| found.push(path.strip_prefix(&root).unwrap().display().to_string()));
        found.sort();
        found
    }
}

/// A copy of drctl that anybody may run. A process of its own makes it: what this one has open for writing, a child that another thread has just
/// forked has too, and a program that is open for writing cannot be run.
pub fn copy_program(to: &Path) {
    let made = Command::new("install").args(["-m", "755", env!("CARGO_BIN_EXE_drctl")]).arg(to).status().unwrap();
    assert!(made.success(), "{}", to.display());
}

pub fn walk(folder: &Path, each: &mut dyn FnMut(&Path)) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        // What went since it was listed is not there.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            walk(&entry.path(), each);
        } else {
            each(&entry.path());
        }
    }
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or_else(|| {
                use std::os::unix::process::ExitStatusExt;
                128 + output.status.signal().unwrap_or(0)
            }),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Both streams, for searching.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}
