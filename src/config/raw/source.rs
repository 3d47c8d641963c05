//! Sources as they are written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Later, RawDatabases, RawFrom, RawReach, RawRetention, RawSchedule, RawSslMode, RawText, RawTools};

/// One source: exactly one of these.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct RawSource {
    /// PostgreSQL databases and globals.
    pub postgres: Option<RawPostgres>,
    /// Folders and files.
    pub files: Option<RawFiles>,
    /// Environment variables.
    pub environment: Option<RawEnvironment>,
    /// Compose files.
    pub compose: Option<RawCompose>,
    /// What a program prints.
    pub command: Option<RawCommand>,
    /// Redis (comes with a later version).
    pub redis: Option<Later>,
    /// MongoDB (comes with a later version).
    pub mongodb: Option<Later>,
    /// Kubernetes objects (comes with a later version).
    pub kubernetes: Option<Later>,
    /// A source that comes with a later version: known to be there, and not backed up. Every check and every set says so.
    pub later: Option<RawLaterSource>,
}

/// A source that comes with a later version: exactly one of these. What stands in it is not looked at.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct RawLaterSource {
    /// Redis.
    pub redis: Option<Later>,
    /// MongoDB.
    pub mongodb: Option<Later>,
    /// Kubernetes objects.
    pub kubernetes: Option<Later>,
    /// The environment of a container, a systemd unit or a pod.
    pub environment: Option<Later>,
}

/// PostgreSQL databases and globals. What is not given comes from `url`, then PGSERVICE, then PGHOST, PGPORT, PGUSER, PGPASSWORD,
/// PGDATABASE, PGSSLMODE, PGSSLROOTCERT, PGSSLCERT, PGSSLKEY, PGCHANNELBINDING; a password also from PGPASSFILE or ~/.pgpass.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawPostgres {
    /// The source's name in the job (default `postgres`).
    pub name: Option<String>,
    /// How the server is got at: `direct` (default), or one of docker, ssh.
    pub reach: Option<RawReach>,
    /// With docker or ssh: run pg_dump and pg_restore `here`, or `there` beside the server (default `auto`: here when there is a new
    /// enough one).
    pub tools: Option<RawTools>,
    /// `postgres://user:password@host:port/database`; also postgresql:// and postgresql+driver://. Text, or one of env, file, cmd, cred.
    pub url: Option<RawText>,
    /// Name or address of the server, or the folder of its socket. Text, or one of env, file, cmd, cred.
    pub host: Option<RawText>,
    /// Port (default 5432).
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// `all` (every database, asked anew at each run), a name, a list of names, or one of env, file, cmd, cred.
    pub database: Option<RawDatabases>,
    /// Databases that `database` means and that are not backed up: names, or patterns with `*`, `?`, `[…]` and `{…}`.
    #[schemars(length(min = 1))]
    pub exclude: Option<Vec<Option<String>>>,
    /// User. Text, or one of env, file, cmd, cred.
    pub user: Option<RawText>,
    /// Password, best as one of env, file, cmd, cred.
    pub password: Option<RawText>,
    /// libpq's sslmode (default `prefer`).
    pub sslmode: Option<RawSslMode>,
    /// PEM file with the certificates of authorities that the server's is checked against, or `system` for those of the operating
    /// system (default ~/.postgresql/root.crt where it is there, and for `verify-full` else `system`).
    pub sslrootcert: Option<String>,
    /// PEM file with a client certificate (default ~/.postgresql/postgresql.crt where it is there).
    pub sslcert: Option<String>,
    /// PEM file with its private key, readable by nobody else (default ~/.postgresql/postgresql.key where it is there).
    pub sslkey: Option<String>,
    /// The database to connect to for questions about the server (default `postgres`).
    pub maintenance_database: Option<String>,
    /// Dump roles and tablespaces too (default true).
    pub globals: Option<bool>,
    /// Dump the roles' password hashes too (default true; managed servers refuse it).
    pub role_passwords: Option<bool>,
    /// A database without tables is no reason for suspicion where the set before had some (default false).
    pub allow_empty: Option<bool>,
    /// Longest wait for a table's lock (default 5m).
    pub lock_wait_timeout: Option<String>,
    /// Longest wait for a connection (default 10s).
    pub connect_timeout: Option<String>,
    /// Folders with pg_dump and friends, looked at before the usual ones.
    pub client_folders: Option<Vec<Option<String>>>,
    /// A schedule of its own; the source then forms a group with its own sets.
    pub schedule: Option<RawSchedule>,
    /// Retention of its own; needs a schedule of its own.
    pub retention: Option<RawRetention>,
    /// May be stored in clear when the repository's encryption is `none` (default false).
    pub allow_plaintext: Option<bool>,
}

/// Folders and files.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawFiles {
    /// The source's name in the job (default `files`).
    pub name: Option<String>,
    /// Folders and files, absolute or relative to the configuration file.
    #[schemars(extend("x-required" = true), length(min = 1))]
    pub paths: Option<Vec<Option<String>>>,
    /// Only files that match one of these patterns, or lie below a folder that does.
    pub include: Option<Vec<Option<String>>>,
    /// Not what matches one of these patterns: a name at any depth (`*.tmp`), a path below one of `paths` (`logs/old`), or a whole path
    /// (`/srv/app/cache`). `*` stops at slashes, `**` does not.
    pub exclude: Option<Vec<Option<String>>>,
    /// Only files changed within this time: `7d`.
    pub newer_than: Option<String>,
    /// Do not go into other file systems (default true).
    pub one_file_system: Option<bool>,
    /// That nothing is found is no error (default false).
    pub allow_empty: Option<bool>,
    /// A schedule of its own; the source then forms a group with its own sets.
    pub schedule: Option<RawSchedule>,
    /// Retention of its own; needs a schedule of its own.
    pub retention: Option<RawRetention>,
    /// May be stored in clear when the repository's encryption is `none` (files need no such permission).
    pub allow_plaintext: Option<bool>,
}

/// Environment variables; nothing matched is an error.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawEnvironment {
    /// The source's name in the job (default `environment`).
    pub name: Option<String>,
    /// `self` (the environment of drctl, default), or one of file, container, unit, pod.
    pub from: Option<RawFrom>,
    /// Only variables whose name starts with one of these.
    pub prefixes: Option<Vec<Option<String>>>,
    /// Variables by name, besides those of `prefixes`.
    pub names: Option<Vec<Option<String>>>,
    /// A schedule of its own; the source then forms a group with its own sets.
    pub schedule: Option<RawSchedule>,
    /// Retention of its own; needs a schedule of its own.
    pub retention: Option<RawRetention>,
    /// May be stored in clear when the repository's encryption is `none` (default false).
    pub allow_plaintext: Option<bool>,
}

/// Compose files, with the image names they pin.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawCompose {
    /// The source's name in the job (default `compose`).
    pub name: Option<String>,
    /// Compose files, absolute or relative to the configuration file.
    #[schemars(extend("x-required" = true), length(min = 1))]
    pub files: Option<Vec<Option<String>>>,
    /// A schedule of its own; the source then forms a group with its own sets.
    pub schedule: Option<RawSchedule>,
    /// Retention of its own; needs a schedule of its own.
    pub retention: Option<RawRetention>,
    /// May be stored in clear when the repository's encryption is `none` (default false).
    pub allow_plaintext: Option<bool>,
}

/// What a program prints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawCommand {
    /// The source's name in the job (default `command`).
    pub name: Option<String>,
    /// Program and arguments. No shell is involved unless you name one: `[sh, -c, "…"]`.
    #[schemars(extend("x-required" = true), length(min = 1))]
    pub run: Option<Vec<Option<String>>>,
    /// Name of the artifact (default `output`).
    pub artifact: Option<String>,
    /// Extension of the artifact's file: `sql`, `tar` … (default `raw`).
    pub extension: Option<String>,
    /// The folder it is run in (default: the configuration file's).
    pub folder: Option<String>,
    /// Variables for the program. Text, or one of env, file, cmd, cred.
    pub env: Option<BTreeMap<String, Option<RawText>>>,
    /// Printing nothing is no error (default false).
    pub allow_empty: Option<bool>,
    /// Longest time the program may take; default is no limit.
    pub timeout: Option<String>,
    /// Longest time without output (default 10m).
    pub idle_timeout: Option<String>,
    /// A schedule of its own; the source then forms a group with its own sets.
    pub schedule: Option<RawSchedule>,
    /// Retention of its own; needs a schedule of its own.
    pub retention: Option<RawRetention>,
    /// May be stored in clear when the repository's encryption is `none` (a program's output needs no such permission).
    pub allow_plaintext: Option<bool>,
}
