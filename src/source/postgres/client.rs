//! PostgreSQL's own programs: finding the right version, and running them without giving a secret away.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::config::environment::Environment;
use crate::error::{Context, Error, Kind, Result};
use crate::file_lock::HeldFile;
use crate::model::Secret;
use crate::model::artifact::Tool;
use crate::process::{Command, Limits, lookup};
use crate::reach::{Reach, Way, there};
use crate::source::postgres::connect::password;
use crate::source::postgres::packages::install;
use crate::source::postgres::settings::{PostgresSettings, SslMode, Tools};
use crate::source::postgres::tls::TlsFiles;

/// A program that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) path: PathBuf,
    pub(super) major: u32,
    pub(super) tool: Tool,
    /// It is one of those beside the server, which the reach runs.
    pub(super) there: bool,
}

/// Looks for `tool` of major version `at_least` or later, best the earliest of those: an archive made by a later pg_dump cannot be read by
/// the pg_restore that belongs to the server. `why` ends "… is older than". With a reach, one beside the server will do too.
pub(super) async fn find(settings: &PostgresSettings, tool: &str, at_least: u32, why: &str, cancel: &CancellationToken) -> Result<Client> {
    let Some(reach) = settings.reach.as_deref() else { return find_here(settings, tool, at_least, why, cancel).await };
    if settings.tools == Tools::There {
        return find_there(reach, settings, tool, at_least, why, cancel).await;
    }
    match find_here(settings, tool, at_least, why, cancel).await {
        Err(here) if settings.tools == Tools::Auto && here.kind() == Kind::Preflight && !cancel.is_cancelled() => {
            find_there(reach, settings, tool, at_least, why, cancel).await.map_err(|there| {
                let hint = here.hint_text().unwrap_or_default().to_owned();
                Error::new(there.kind(), format!("{here}; and {there}")).hint(hint)
            })
        }
        found => found,
    }
}

/// What is missing to load here what this pg_dump writes: no older pg_restore reads it.
pub(super) async fn cannot_load(settings: &PostgresSettings, pg_dump: &Client, cancel: &CancellationToken) -> Result<Option<String>> {
    match find(settings, "pg_restore", pg_dump.major, "the pg_dump in use", cancel).await {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == Kind::Interrupted || cancel.is_cancelled() => Err(error),
        Err(error) => {
            let hint = error.hint_text().map(|hint| format!(" To have one: {hint}.")).unwrap_or_default();
            let version = pg_dump.tool.version.split(' ').next().unwrap_or_default();
            Ok(Some(format!("What pg_dump {version} writes cannot be loaded from this host: {error}.{hint}")))
        }
    }
}

/// Prints `path<TAB>version text` for each there is.
const VERSIONS: &str = r#"for t in /usr/lib/postgresql/*/bin/"$1" /usr/pgsql-*/bin/"$1" "$(command -v "$1")"; do if [ -x "$t" ]; then printf '%s\t' "$t"; LC_ALL=C "$t" --version; fi; done; :"#;

/// Looks where the server is, in the folders in which packages put clients and in `PATH`.
async fn find_there(
    reach: &dyn Reach,
    settings: &PostgresSettings,
    tool: &str,
    at_least: u32,
    why: &str,
    cancel: &CancellationToken,
) -> Result<Client> {
    if matches!(settings.sslmode, SslMode::VerifyCa | SslMode::VerifyFull) || settings.sslcert.is_some() {
        return Err(Error::new(
            Kind::Preflight,
            format!("the {tool} of {} cannot be used: the certificates to check with lie here, not there", reach.name()),
        )
        .hint(format!("here: {}", install(at_least))));
    }
    let limits = Limits { total: Some(Duration::from_secs(60)), ..Limits::default() };
    let command = reach.shell(&format!("look for {tool}"), VERSIONS, &[tool.to_owned()]).await?.limits(limits);
    let (out, _) = command.output(cancel, 64 * 1024).await.map_err(|failure| judged(reach, failure.into(), ""))?;
    let text = String::from_utf8_lossy(&out);
    let seen: Vec<Client> = text
        .lines()
        .filter_map(|line| {
            let (path, version) = line.split_once('\t')?;
            let (major, version) = parse_version(version)?;
            Some(Client { path: PathBuf::from(path), major, tool: Tool { name: tool.to_owned(), version }, there: true })
        })
        .collect();
    if let Some(best) = seen.iter().filter(|client| client.major >= at_least).min_by_key(|client| client.major) {
        return Ok(best.clone());
    }
    let old: Vec<String> = seen.iter().map(|c| format!("{tool} {} there is older than {why}", c.tool.version)).collect();
    let what = if old.is_empty() { format!("there is no {tool} there either") } else { old.join("; ") };
    Err(Error::new(Kind::Preflight, format!("{}: {what}", reach.name())).hint(format!("{}; or install it there", install(at_least))))
}

/// An error of a program that a reach ran, by what its words tell of what stands in between.
pub(super) fn judged(reach: &dyn Reach, error: Error, said: &str) -> Error {
    let text = format!("{error} {said}");
    match reach.judge()(&text) {
        Some((kind, hint)) => error.with_kind(kind).hint(hint),
        None => error,
    }
}

async fn find_here(settings: &PostgresSettings, tool: &str, at_least: u32, why: &str, cancel: &CancellationToken) -> Result<Client> {
    let install = format!("{}; or name the folder of such a client in client_folders", install(at_least));
    let mut seen = Vec::new();
    let mut problems = Vec::new();
    for folders in folders(settings) {
        let found = lookup::find(tool, &folders);
        problems.extend(found.not_executable.iter().map(|path| format!("{} may not be executed", path.display())));
        for path in found.tools {
            match version(tool, &path, cancel).await {
                Ok(client) => seen.push(client),
                // Said as what it is, not as a tool that is missing.
                Err(error) if cancel.is_cancelled() => return Err(error),
                Err(error) => problems.push(error.to_string()),
            }
        }
        let fitting = seen.iter().filter(|client| client.major >= at_least);
        if let Some(best) = fitting.min_by_key(|client| client.major) {
            return Ok(best.clone());
        }
    }
    problems.extend(seen.iter().map(|c| format!("{tool} {} ({}) is older than {why}", c.tool.version, c.path.display())));
    let what = if problems.is_empty() {
        let places: Vec<String> = folders(settings).concat().iter().map(|f| f.display().to_string()).collect();
        format!("there is no {tool} in {}", places.join(", "))
    } else {
        problems.join("; ")
    };
    Err(Error::new(Kind::Preflight, what).hint(install))
}

/// Where to look, in groups: a later group only counts when nothing in the earlier fits (the wrapper that Debian has in `PATH` is slow).
fn folders(settings: &PostgresSettings) -> Vec<Vec<PathBuf>> {
    if !settings.client_folders.is_empty() {
        return vec![settings.client_folders.clone()];
    }
    // Debian and Ubuntu; PGDG's packages for Red Hat and its kin.
    let mut packaged = lookup::numbered_folders(Path::new("/usr/lib/postgresql"), "", "bin");
    packaged.extend(lookup::numbered_folders(Path::new("/usr"), "pgsql-", "bin"));
    vec![packaged, lookup::path_folders()]
}

async fn version(tool: &str, path: &Path, cancel: &CancellationToken) -> Result<Client> {
    let limits = Limits { total: Some(Duration::from_secs(20)), ..Limits::default() };
    let command = Command::new(format!("{} --version", path.display()), path).arg("--version").env("LC_ALL", "C").limits(limits);
    let (out, _) = command.output(cancel, 4096).await?;
    let text = String::from_utf8_lossy(&out).trim().to_owned();
    let unknown = || Error::new(Kind::Preflight, format!("{} --version says '{}'", path.display(), text.escape_debug()));
    let (major, version) = parse_version(&text).ok_or_else(unknown)?;
    Ok(Client { path: path.to_owned(), major, tool: Tool { name: tool.to_owned(), version }, there: false })
}

/// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0)` → 15 and what follows the first bracket.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    Some((major_of(version)?, version.trim().to_owned()))
}

/// The major version that a version text begins with; 9 for 9.x.
pub(super) fn major_of(version: &str) -> Option<u32> {
    let digits = version.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// A folder of mode 0700 in memory where possible, holding a password file of mode 0600; gone when dropped. And the files for TLS.
pub(super) struct Private {
    folder: Option<PathBuf>,
    password: Option<Secret>,
    tls: TlsFiles,
    /// The password file, locked: the kernel lets go of it when this process dies, however it dies and in whatever container.
    _held: Option<HeldFile>,
    /// For programs of this machine, when something stands in between.
    way: Option<Way>,
}

/// What a program is run for.
#[derive(Default)]
pub(super) struct Call {
    /// Names it in errors.
    pub(super) what: String,
    /// Its own arguments; those for the connection come in front.
    pub(super) args: Vec<String>,
    /// `PGOPTIONS`; empty for none.
    pub(super) options: String,
    /// It reads its standard input.
    pub(super) reads: bool,
}

impl Private {
    /// Makes it for programs found by [`find`]. A way through a reach ends with it.
    pub(super) async fn open(settings: &PostgresSettings, clients: &[&Client]) -> Result<Private> {
        let mut private = Private::new(settings)?;
        if let Some(reach) = &settings.reach
            && clients.iter().any(|client| !client.there)
        {
            private.way = Some(Way::open(reach.clone(), &settings.host, settings.port).await?);
        }
        Ok(private)
    }

    /// Why the last connection through the reach that went wrong did.
    pub(super) fn trouble(&self) -> Option<Error> {
        self.way.as_ref()?.trouble()
    }

    fn new(settings: &PostgresSettings) -> Result<Private> {
        let tls = TlsFiles::of(settings, &Environment::system())?;
        let Some(password) = password(settings) else {
            return Ok(Private { folder: None, password: None, tls, way: None, _held: None });
        };
        if password.expose().contains(['\n', '\r', '\0']) {
            return Err(Error::new(Kind::Preflight, format!("the password of {} holds a line break", settings.user))
                .hint("a PostgreSQL password file cannot hold such a password: change it"));
        }
        let parent = private_parent();
        let folder = parent.join(format!("{PREFIX}{}-{:016x}", std::process::id(), rand::random::<u64>()));
        let what = || format!("make a private folder in {}", parent.display());
        std::fs::DirBuilder::new().mode(0o700).create(&folder).context(what)?;
        let mut private = Private { folder: Some(folder.clone()), password: Some(password.clone()), tls, way: None, _held: None };
        let mut options = std::fs::OpenOptions::new();
        let beginning = folder.join(BEGINNING);
        let mut file = HeldFile::of(options.write(true).create_new(true).mode(0o600).open(&beginning).context(what)?);
        // Locked before it has its name: no sweeper can find it unlocked. Where there are no locks the number of the process has to do.
        let _ = file.try_exclusive();
        std::io::Write::write_all(&mut *file, format!("*:*:*:*:{}\n", escaped(&password).expose()).as_bytes()).context(what)?;
        std::fs::rename(&beginning, folder.join("pgpass")).context(what)?;
        private._held = Some(file);
        Ok(private)
    }

    /// A program of the client, set to connect to a database of the server.
    pub(super) async fn command(&self, settings: &PostgresSettings, client: &Client, application: &str, call: Call) -> Result<Command> {
        let reach = settings.reach.as_deref();
        let way = self.way.as_ref().map(Way::address);
        let (host, port) = match (reach, way) {
            (Some(reach), _) if client.there => (reach.host_there(&settings.host), settings.port),
            // The name stays the server's own: it is the one that its certificate is checked for.
            (_, Some((_, port))) => (settings.host.as_str(), port),
            _ => (settings.host.as_str(), settings.port),
        };
        let mut args = vec!["--no-password".to_owned(), format!("--host={host}"), format!("--port={port}")];
        args.push(format!("--username={}", settings.user));
        args.extend(call.args);
        let mut env = vec![
            ("PGAPPNAME", application.to_owned()),
            ("PGSSLMODE", settings.sslmode.name().to_owned()),
            ("PGCHANNELBINDING", settings.channel_binding.name().to_owned()),
            ("PGCONNECT_TIMEOUT", (settings.connect_timeout.as_secs().max(2) + if way.is_some() { 20 } else { 0 }).to_string()),
            // Messages are read by us and by people who search for them.
            ("LC_ALL", "C".to_owned()),
        ];
        if !call.options.is_empty() {
            env.push(("PGOPTIONS", call.options));
        }
        if let Some(reach) = reach.filter(|_| client.there) {
            let program = there::Program {
                what: call.what,
                path: client.path.to_string_lossy().into_owned(),
                args,
                env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                secret: self.password.clone().map(|password| ("PGPASSWORD".to_owned(), password)),
                reads: call.reads,
            };
            return there::command(reach, &program).await;
        }
        let mut command = Command::new(call.what, &client.path).args(args);
        env.extend(way.map(|(ip, _)| ("PGHOSTADDR", ip.to_string())));
        for (name, value) in env {
            command = command.env(name, value);
        }
        for (name, value) in self.tls.variables() {
            command = command.env(name, value);
        }
        if let Some(folder) = &self.folder {
            command = command.env("PGPASSFILE", folder.join("pgpass"));
        }
        if let Some(password) = &self.password {
            command = command.secret(password).secret(&escaped(password));
        }
        Ok(command)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            remove(folder);
        }
    }
}

/// The password as it stands in the password file; a tool that shows the file shows this.
fn escaped(password: &Secret) -> Secret {
    Secret::new(password.expose().replace('\\', "\\\\").replace(':', "\\:"))
}

/// A database as an argument: a connection string, since a bare name that holds `=` or starts with `postgres:` would be taken for one.
pub(super) fn database_argument(database: &str) -> String {
    format!("--dbname=dbname='{}' {KEEPALIVES}", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A network that died is noticed within a minute or so.
const KEEPALIVES: &str = "keepalives_idle=30 keepalives_interval=10 keepalives_count=3 tcp_user_timeout=60000";

const PREFIX: &str = "drctl-pg-";

/// The user's runtime folder or shared memory, which no disk ever sees; else the folder for temporary files.
fn private_parent() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let in_memory = runtime.into_iter().chain([PathBuf::from("/dev/shm")]);
    let usable = |folder: &PathBuf| folder.is_absolute() && rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok();
    in_memory.into_iter().find(usable).unwrap_or_else(std::env::temp_dir)
}

/// Removes password files that a killed drctl of this user left. For the start of every verb: it costs the listing of one folder.
pub fn sweep_private_files() {
    sweep(&private_parent());
}

/// A password file without its lock and name.
const BEGINNING: &str = "pgpass.new";

fn remove(folder: &Path) {
    for file in ["pgpass", BEGINNING] {
        let _ = std::fs::remove_file(folder.join(file));
    }
    let _ = std::fs::remove_dir(folder);
}

/// How old a folder must be where nothing in it can be locked: a process of another namespace is not in `/proc`.
const DONE_WITHIN: Duration = Duration::from_secs(600);

/// Whether the owner of a private folder is gone.
fn is_left_over(folder: &Path, pid: u32, age: Duration) -> bool {
    let dead = || age > DONE_WITHIN && !Path::new(&format!("/proc/{pid}")).exists();
    // Not followed: whoever else may write to the parent folder must not lead us elsewhere.
    let open = |name| rustix::fs::open(folder.join(name), OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    // One that never got its name may belong to a process that lives only as long as it is young.
    let file = open("pgpass").ok().or_else(|| (age > DONE_WITHIN).then(|| open(BEGINNING).ok()).flatten());
    let Some(file) = file.map(|fd| HeldFile::of(fd.into())) else { return dead() };
    match file.try_exclusive() {
        Ok(()) => true,
        Err(Errno::AGAIN) => false,
        Err(_) => dead(),
    }
}

fn sweep(parent: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(meta) = entry.metadata() else { continue };
        let age = meta.modified().ok().and_then(|t| t.elapsed().ok()).unwrap_or_default();
        let ours = std::os::unix::fs::MetadataExt::uid(&meta) == own && meta.permissions().mode() & 0o077 == 0;
        if ours && meta.is_dir() && is_left_over(&entry.path(), pid, age) {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let cases = [
            ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some((15, "15.18 (Debian 15.18-0+deb12u1)"))),
            ("pg_restore (PostgreSQL) 9.6.24", Some((9, "9.6.24"))),
            ("pg_dump (PostgreSQL) 19devel", Some((19, "19devel"))),
            ("pg_dump (EnterpriseDB)", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_version(text), want.map(|(major, version)| (major, version.to_owned())), "{text}");
        }
    }

    #[test]
    fn f67_a_database_name_is_never_taken_for_something_else() {
        assert_eq!(database_argument("a'b\\ =c"), format!("--dbname=dbname='a\\'b\\\\ =c' {KEEPALIVES}"));
    }

    #[test]
    fn the_password_file_is_private_and_goes_away() {
        let settings = PostgresSettings { password: Some(Secret::new("a:b\\c")), ..PostgresSettings::default() };
        let private = Private::new(&settings).unwrap();
        let folder = private.folder.clone().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("pgpass"))), (0o700, 0o600));
        assert_eq!(std::fs::read_to_string(folder.join("pgpass")).unwrap(), "*:*:*:*:a\\:b\\\\c\n");
        // However old it looks, its owner lives.
        let old = std::time::SystemTime::now() - Duration::from_secs(6000);
        std::fs::File::open(&folder).unwrap().set_modified(old).unwrap();
        sweep(folder.parent().unwrap());
        assert!(folder.join("pgpass").exists());
        drop(private);
        assert!(!folder.exists());
        let broken = PostgresSettings { password: Some(Secret::new("a\nb")), ..PostgresSettings::default() };
        assert_eq!(Private::new(&broken).err().unwrap().kind(), Kind::Preflight);
    }

    #[test]
    fn password_files_of_a_killed_process_are_swept_and_others_are_not() {
        let parent = tempfile::tempdir().unwrap();
        let aged = |folder: &Path, age: u64| {
            let then = std::time::SystemTime::now() - Duration::from_secs(age);
            std::fs::File::open(folder).unwrap().set_modified(then).unwrap();
        };
        let make = |name: &str, age: u64| {
            let folder = parent.path().join(name);
            std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
            let file = std::fs::File::create(folder.join("pgpass")).unwrap();
            aged(&folder, age);
            file
        };
        let living = std::process::id();
        // The owner's number says nothing: it may be another process by now, or of another container.
        drop(make(&format!("{PREFIX}{living}-dead"), 0));
        drop(make("other-1-x", 6000));
        // Who may look into it, or owns it, is not us.
        let open = format!("{PREFIX}4194998-open");
        drop(make(&open, 6000));
        std::fs::set_permissions(parent.path().join(&open), std::fs::Permissions::from_mode(0o750)).unwrap();
        let held = HeldFile::of(make(&format!("{PREFIX}4194999-held"), 6000));
        held.try_exclusive().unwrap();
        let names = || {
            let entries = std::fs::read_dir(parent.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = entries.collect();
            names.sort();
            names
        };
        // One that is being made has no password file yet. Young, it is let be; later its lock tells.
        let begin = |name: &str, age: u64| {
            let (file, folder) = (make(name, 0), parent.path().join(name));
            std::fs::rename(folder.join("pgpass"), folder.join(BEGINNING)).unwrap();
            aged(&folder, age);
            HeldFile::of(file)
        };
        let beginning = format!("{PREFIX}{living}-beginning");
        let begun = begin(&beginning, 6000);
        begun.try_exclusive().unwrap();
        let young = format!("{PREFIX}4194997-young");
        drop((begin(&young, 60), begin(&format!("{PREFIX}{living}-stuck"), 6000)));
        sweep(parent.path());
        let mut left = vec![format!("{PREFIX}4194999-held"), beginning, young, open, "other-1-x".to_owned()];
        left.sort();
        assert_eq!(names(), left);
        drop(held);
        sweep(parent.path());
        assert!(!names().contains(&format!("{PREFIX}4194999-held")));
    }

    /// Makes a program by way of another process. A file that we had written ourselves could still be open, in a child that another test is just
    /// starting, and what is open for writing cannot be run.
    fn program(path: &Path, text: &str) {
        let write = r#"printf %s "$1" > "$0" && chmod 755 "$0""#;
        assert!(std::process::Command::new("sh").args(["-c", write]).arg(path).arg(text).status().unwrap().success());
    }

    #[tokio::test]
    async fn the_right_client_is_chosen_among_several() {
        let root = tempfile::tempdir().unwrap();
        let mut folders = Vec::new();
        for (name, version) in [("old", "14.9"), ("newer", "17.2"), ("right", "15.1"), ("odd", "x")] {
            let folder = root.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            program(&folder.join("pg_dump"), &format!("#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n"));
            folders.push(folder);
        }
        let mut settings = PostgresSettings { client_folders: folders.clone(), ..PostgresSettings::default() };
        let cancel = CancellationToken::new();
        let found = find(&settings, "pg_dump", 15, "the server", &cancel).await.unwrap();
        assert_eq!((found.path, found.major), (folders[2].join("pg_dump"), 15));
        let found = find(&settings, "pg_dump", 16, "the server", &cancel).await.unwrap();
        assert_eq!(found.major, 17);
        settings.client_folders.truncate(1);
        let error = find(&settings, "pg_dump", 15, "the server, PostgreSQL 15.18", &cancel).await.unwrap_err();
        assert!(
            error.to_string().contains("pg_dump 14.9") && error.to_string().ends_with("older than the server, PostgreSQL 15.18"),
            "{error}"
        );
        assert!(error.hint_text().unwrap().contains("apt-get install postgresql-client-15"));
    }
}
