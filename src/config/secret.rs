//! Values that are fetched when they are used: secrets, and names that come from the same places.
//!
//! Fetching blocks (a file, a command): call it off the async threads.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::config::environment::Environment;
use crate::error::{Context, Error, Kind, Result};
use crate::model::Secret;

/// Longest secret, in bytes.
const SECRET_LIMIT: u64 = 64 << 10;
/// Longest time a command may take to print a secret.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// Where a value is fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// An environment variable, or the file that `<name>_FILE` names.
    Env(String),
    /// A file that only its owner may read; newlines at its end are dropped.
    File(PathBuf),
    /// What a program prints; newlines at its end are dropped.
    Cmd(Vec<String>),
    /// A systemd credential (`LoadCredential=`), by name.
    Cred(String),
}

impl Reference {
    /// Fetches the value. Errors name the place, never the value.
    pub fn fetch(&self, environment: &Environment) -> Result<Secret> {
        match self {
            Reference::Env(name) => environment.secret(name),
            Reference::File(path) => read_secret_file(path),
            Reference::Cmd(argv) => run(argv, COMMAND_LIMIT),
            Reference::Cred(name) => {
                let folder = environment.get("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    Error::new(Kind::Config, format!("no systemd credentials here (wanted '{name}'): CREDENTIALS_DIRECTORY is not set"))
                        .hint(format!("add LoadCredential={name}:/path to the unit"))
                })?;
                read_secret_file(&Path::new(folder).join(name))
            }
        }
    }
}

impl fmt::Display for Reference {
    /// `env: NAME`, `file: PATH`, `cmd: PROGRAM …`, `cred: NAME`. Arguments of a command are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Env(name) => write!(f, "env: {name}"),
            Reference::File(path) => write!(f, "file: {}", path.display()),
            Reference::Cmd(argv) => write!(f, "cmd: {} …", argv.first().map_or("", String::as_str)),
            Reference::Cred(name) => write!(f, "cred: {name}"),
        }
    }
}

/// A secret of the configuration. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// It stands in the configuration itself, or came in by `${NAME}`.
    Plain {
        /// The secret.
        value: Secret,
        /// What may be shown instead: the `${NAME}` it came by.
        shown: Option<String>,
    },
    /// It is fetched when used.
    By(Reference),
}

impl SecretRef {
    /// Fetches the secret with this process's environment.
    pub fn resolve(&self) -> Result<Secret> {
        self.resolve_in(&Environment::system())
    }

    /// Fetches the secret.
    pub fn resolve_in(&self, environment: &Environment) -> Result<Secret> {
        match self {
            SecretRef::Plain { value, .. } => Ok(value.clone()),
            SecretRef::By(reference) => reference.fetch(environment),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Plain { .. } => f.write_str("***"),
            SecretRef::By(reference) => write!(f, "*** ({reference})"),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Text of the configuration that is no secret but may come from the same places (a user's name, a host).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextRef {
    /// It stands in the configuration.
    Plain(String),
    /// It is fetched when used.
    By(Reference),
}

impl TextRef {
    /// Fetches the text.
    pub fn resolve_in(&self, environment: &Environment) -> Result<String> {
        match self {
            TextRef::Plain(text) => Ok(text.clone()),
            TextRef::By(reference) => Ok(reference.fetch(environment)?.expose().to_owned()),
        }
    }
}

/// Why a file is not private enough to hold a secret; `None` when it is.
///
/// Files below `/run/secrets` and `/var/run/secrets` may be readable by all: Docker and Kubernetes mount them so (0444, 0644) inside
/// a container whose other users do not exist.
pub fn exposed(path: &Path, mode: u32) -> Option<String> {
    let mounted = ["/run/secrets", "/var/run/secrets"].iter().any(|root| path.starts_with(root));
    if mode & 0o077 == 0 || (mounted && mode & 0o022 == 0) {
        return None;
    }
    let who = match (mode & 0o070 != 0, mode & 0o007 != 0) {
        (_, true) => "others than its owner",
        _ => "its group",
    };
    Some(format!("{} holds a secret but is open to {who} (mode {:04o}); chmod 600 {}", path.display(), mode & 0o7777, path.display()))
}

/// Reads a file that holds a secret; refuses one that others may read, and one that is empty.
pub fn read_secret_file(path: &Path) -> Result<Secret> {
    let what = || format!("read the secret file {}", path.display());
    // Without waiting: a named pipe would hold us for ever.
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).context(what)?;
    let meta = file.metadata().context(what)?;
    if !meta.is_file() {
        return Err(Error::new(Kind::Config, format!("{} is not a file", path.display())));
    }
    // The open file is asked, not the name: it cannot be changed in between.
    if let Some(why) = exposed(path, meta.permissions().mode()) {
        return Err(Error::new(Kind::Config, why).hint(format!("chmod 600 {}", path.display())));
    }
    if meta.size() > SECRET_LIMIT {
        return Err(Error::new(Kind::Config, format!("{} has {} bytes; a secret has at most {SECRET_LIMIT}", path.display(), meta.size())));
    }
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(SECRET_LIMIT + 1).read_to_end(&mut bytes).context(what)?;
    text(bytes, || path.display().to_string())
}

fn text(bytes: Vec<u8>, from: impl Fn() -> String) -> Result<Secret> {
    if bytes.len() as u64 > SECRET_LIMIT {
        return Err(Error::new(Kind::Config, format!("{} gives more than {SECRET_LIMIT} bytes; that is no secret", from())));
    }
    // The UTF-8 error is dropped: it would show nothing, and its owner holds the bytes.
    let text = String::from_utf8(bytes).map_err(|_| Error::new(Kind::Config, format!("{} does not give text (UTF-8)", from())))?;
    // As a shell's `$(cat FILE)` has it: no secret ends with one, and editors and pipes add more than one.
    let line = text.trim_end_matches(['\n', '\r']);
    if line.is_empty() {
        return Err(Error::new(Kind::Config, format!("{} is empty; a secret was expected", from())));
    }
    Ok(Secret::new(line))
}

/// Runs a program and takes what it prints. Its group of processes ends with the time limit.
fn run(argv: &[String], limit: Duration) -> Result<Secret> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Error::new(Kind::Config, "a secret's cmd names no program"));
    };
    let what = || format!("run '{program}' for a secret");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().context(what)?;
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let kill = || {
        if let Some(group) = group {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    };
    let Some(stdout) = child.stdout.take() else {
        return Err(Error::failed(what()));
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(SECRET_LIMIT + 1).read_to_end(&mut bytes);
        // Nobody listens any more once the time is up.
        let _ = sender.send(read.map(|_| bytes));
    });
    let late = || {
        Error::new(Kind::Config, format!("'{program}' gave no secret within {} s", limit.as_secs()))
            .hint("run it by hand; it must print the secret and end")
    };
    let end = Instant::now() + limit;
    let bytes = match receiver.recv_timeout(limit) {
        Ok(bytes) => bytes.context(what),
        Err(_) => Err(late()),
    };
    let too_long = bytes.as_ref().is_ok_and(|b| b.len() as u64 > SECRET_LIMIT);
    if bytes.is_err() || too_long {
        kill();
    }
    let status = loop {
        match child.try_wait().context(what)? {
            Some(status) => break status,
            None if Instant::now() > end => {
                kill();
                let _ = child.wait();
                return Err(late());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let bytes = bytes?;
    if !status.success() && !too_long {
        // What it wrote to stderr is not repeated: it may hold the secret.
        return Err(Error::new(Kind::Config, format!("'{program}' ended with {status}, so there is no secret")).hint("run it by hand"));
    }
    text(bytes, || format!("'{program}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret_file(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn f143_newlines_at_the_end_of_a_secret_are_no_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        for (at, written) in ["pw", "pw\n", "pw\r\n", "pw\n\n", "pw\r\n\r\n"].into_iter().enumerate() {
            let path = secret_file(dir.path(), &format!("f{at}"), written, 0o600);
            assert_eq!(read_secret_file(&path).unwrap().expose(), "pw", "{written:?}");
        }
        let kept = secret_file(dir.path(), "kept", " two\nlines \n", 0o600);
        assert_eq!(read_secret_file(&kept).unwrap().expose(), " two\nlines ");
        let empty = secret_file(dir.path(), "empty", "\n\n", 0o600);
        assert_eq!(read_secret_file(&empty).unwrap_err().kind(), Kind::Config);
    }

    #[test]
    fn every_place_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = secret_file(dir.path(), "pw", "from-file\n", 0o600);
        secret_file(dir.path(), "cred", "from-cred", 0o400);
        let env = Environment::of(
            dir.path(),
            [("PW", "from-env"), ("OTHER_FILE", "pw"), ("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap()), ("EMPTY", "")],
        );
        let cmd = |argv: &[&str]| Reference::Cmd(argv.iter().map(|a| (*a).to_owned()).collect());
        for (reference, want) in [
            (Reference::Env("PW".into()), "from-env"),
            (Reference::Env("OTHER".into()), "from-file"),
            (Reference::File(file), "from-file"),
            (cmd(&["printf", "from-%s\\n", "cmd"]), "from-cmd"),
            (Reference::Cred("cred".into()), "from-cred"),
        ] {
            assert_eq!(reference.fetch(&env).unwrap().expose(), want);
        }
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());
        for (reference, part) in [
            (Reference::File(pipe), "is not a file"),
            (Reference::Env("NOPE".into()), "NOPE is not set, and neither is NOPE_FILE"),
            (Reference::Env("EMPTY".into()), "EMPTY is not set"),
            (Reference::File(dir.path().join("gone")), "gone"),
            (Reference::File(dir.path().to_owned()), "is not a file"),
            (Reference::File(secret_file(dir.path(), "void", "\n", 0o600)), "is empty"),
            (cmd(&["false"]), "exit status: 1"),
            (cmd(&["/no/such/program"]), "no/such/program"),
            (cmd(&["yes"]), "more than 65536 bytes"),
        ] {
            let error = reference.fetch(&env).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn f62_a_secret_file_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, who) in [(0o640, "its group"), (0o604, "others"), (0o620, "its group"), (0o777, "others")] {
            let path = secret_file(dir.path(), "pw", "hunter2", mode);
            let error = read_secret_file(&path).unwrap_err();
            assert!(error.to_string().contains(who), "{error}");
            assert!(!error.to_string().contains("hunter2"));
            assert_eq!(error.kind(), Kind::Config);
        }
        assert!(exposed(Path::new("/run/secrets/pw"), 0o444).is_none());
        assert!(exposed(Path::new("/run/secrets/pw"), 0o666).is_some());
        assert!(exposed(Path::new("/run/secrets2/pw"), 0o444).is_some());
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        for script in ["sleep 600", "exec >&-; sleep 600", "sleep 600 & echo x"] {
            let pids = dir.path().join("pids");
            let script = format!("echo $$ > {}; {script}", pids.display());
            let argv = ["sh".to_owned(), "-c".to_owned(), script.clone()];
            let mut limit = Duration::from_millis(300);
            let group: i32 = loop {
                let _ = std::fs::remove_file(&pids);
                let start = Instant::now();
                let error = run(&argv, limit).unwrap_err();
                assert!(error.to_string().contains("gave no secret within"), "{script}: {error}");
                assert!(start.elapsed() < limit + Duration::from_secs(60));
                if let Some(group) = std::fs::read_to_string(&pids).ok().and_then(|text| text.trim().parse().ok()) {
                    break group;
                }
                // One that was ended before it had begun says nothing of one that hangs.
                limit *= 2;
                assert!(limit < Duration::from_secs(60), "{script} does not begin");
            };
            let group = rustix::process::Pid::from_raw(group).unwrap();
            let end = Instant::now() + Duration::from_secs(60);
            // Whoever was killed may wait a moment for its new parent.
            while rustix::process::test_kill_process_group(group).is_ok() && !zombies_only(group) {
                assert!(Instant::now() < end, "{script}: something still runs");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Nothing of the group runs any more, though not all of it was waited for (field 3 of /proc/PID/stat, field 5 is the group).
    fn zombies_only(group: rustix::process::Pid) -> bool {
        let stats = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| std::fs::read_to_string(e.path().join("stat")).ok());
        stats
            .filter_map(|s| Some(s.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect::<Vec<_>>()))
            .filter(|fields| fields.get(2) == Some(&group.as_raw_nonzero().to_string()))
            .all(|fields| fields[0] == "Z")
    }

    #[test]
    fn secrets_print_as_stars() {
        let plain = SecretRef::Plain { value: Secret::new("hunter2"), shown: None };
        assert_eq!(format!("{plain} {plain:?}"), "*** ***");
        assert!(!format!("{:?}", Environment::of("/", [("PW", "hunter2")])).contains("hunter2"));
    }
}
