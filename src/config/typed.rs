//! The configuration as the rest of drctl sees it: everything parsed, checked and with its default. Only secrets, and the names that
//! come from the same places, are fetched when they are used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::config::notify::NotifierConfig;
use crate::config::problem::Problem;
use crate::config::running::{AgentConfig, Hooks, Limits};
use crate::config::s3::S3Place;
use crate::config::secret::{SecretRef, TextRef};
use crate::config::values::CronSchedule;
use crate::model::{Codec, JobName};

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The files it was read from; `drctl.yaml` first.
    pub files: Vec<PathBuf>,
    /// The folder of `drctl.yaml`, absolute.
    pub folder: PathBuf,
    /// Where this host keeps its own state, absolute.
    pub state: PathBuf,
    /// Where backup sets are kept.
    pub repository: Repository,
    /// The jobs, those of `drctl.yaml` first, then those of `jobs/` by file name.
    pub jobs: Vec<Job>,
    /// Settings of `drctl agent`.
    pub agent: AgentConfig,
    /// Who is told of everything.
    pub notify: Vec<NotifierConfig>,
    /// What is worth saying; nothing here refuses anything.
    pub warnings: Vec<Problem>,
    /// Where each value came from, by its path as `config show` has it.
    pub(crate) origins: BTreeMap<String, String>,
}

impl Config {
    /// A job by name.
    pub fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.iter().find(|j| j.name.as_str() == name)
    }
}

/// Where backup sets are kept, who can open them, and the keys that sign them.
#[derive(Clone, Debug, PartialEq)]
pub struct Repository {
    /// The repository's id.
    pub id: String,
    /// The root public key, minisign's base64: the trust anchor.
    pub root_key: String,
    /// The stores; the first holds the log. Never empty.
    pub stores: Vec<StoreConfig>,
    /// age X25519 public keys, sorted, each once.
    pub recipients: Vec<String>,
    /// The file of the age identity, where this host can open sets.
    pub identity: Option<PathBuf>,
    /// The file of the key that signs this host's records.
    pub signing_key: PathBuf,
    /// Whether artifacts are encrypted. `false` only by explicit choice; every source whose content is secret by nature then has
    /// [`SourceConfig::allow_plaintext`].
    pub encrypt: bool,
    /// How artifacts are compressed.
    pub codec: Codec,
    /// Decompress and compare every frame before it is stored.
    pub decode_check: bool,
}

/// One store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Its name, unique in the repository.
    pub name: String,
    /// A set counts as stored even when this store missed it. Never so for the first store.
    pub optional: bool,
    /// What a person says of it: whether only one host may write there (`true`), or that it keeps writers apart (`false`). `None`: found out.
    pub single_writer: Option<bool>,
    /// Where it lies.
    pub place: StorePlace,
}

/// Where a store lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// A folder on this machine, absolute.
    Local {
        /// The folder.
        path: PathBuf,
    },
    /// In a bucket.
    S3(Box<S3Place>),
}

impl StorePlace {
    /// Whether two places hold the same objects.
    pub fn same(&self, other: &StorePlace) -> bool {
        match (self, other) {
            (StorePlace::S3(one), StorePlace::S3(two)) => one.same_place(two),
            _ => self == other,
        }
    }
}

/// What is backed up together, when, and how long it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its name, unique in the configuration.
    pub name: JobName,
    /// The zone that schedules and dates are meant in.
    pub timezone: TimeZone,
    /// What is backed up, in this order. Never empty.
    pub sources: Vec<SourceConfig>,
    /// What is known to be there and is not backed up yet.
    pub later_sources: Vec<LaterSource>,
    /// Names of the stores it writes to; the first is the repository's first and holds the log. Never empty.
    pub stores: Vec<String>,
    /// When it runs.
    pub schedule: Schedule,
    /// Which sets are kept; `None` keeps every set.
    pub retention: Option<Retention>,
    /// What a recovery must achieve.
    pub objectives: Objectives,
    /// When a run is given up.
    pub limits: Limits,
    /// Programs run before and after each run.
    pub hooks: Hooks,
    /// Who is told of this job, besides those of the whole configuration.
    pub notify: Vec<NotifierConfig>,
}

/// A source that a later version brings, written under `later:` to go on without it.
#[derive(Clone, Debug, PartialEq)]
pub struct LaterSource {
    /// Its key: `redis`, `mongodb`, `kubernetes`, `environment`.
    pub kind: &'static str,
    /// What it is, in words: `redis`, `the environment of a container`.
    pub what: String,
    /// Its settings as they are shown: without any text that may be a secret.
    pub settings: serde_json::Value,
}

impl LaterSource {
    /// What every check, and every set of the job, says of it.
    pub fn warning(&self) -> String {
        format!("{} comes with a later version of drctl: nothing of it is backed up", self.what)
    }
}

/// The group of all sources without a schedule of their own.
pub const MAIN_GROUP: &str = "main";

impl Job {
    /// What no set of this job holds, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut all: Vec<String> = self.later_sources.iter().map(LaterSource::warning).collect();
        all.sort();
        all.dedup();
        all
    }

    /// A source by name.
    pub fn source(&self, name: &str) -> Option<&SourceConfig> {
        self.sources.iter().find(|s| s.name == name)
    }

    /// The names of its groups, in the order of their first source.
    pub fn group_names(&self) -> Vec<String> {
        self.groups().into_iter().map(|(name, _)| name.to_owned()).collect()
    }

    /// The schedule that a group goes by: its source's own, or the job's.
    pub fn schedule_of(&self, group: &str) -> &Schedule {
        let own = self.sources.iter().find(|source| source.group() == group && group != MAIN_GROUP);
        own.and_then(|source| source.schedule.as_ref()).unwrap_or(&self.schedule)
    }

    /// The groups of sources that are backed up together, in the order of their first source: [`MAIN_GROUP`], and one for each
    /// source with a schedule of its own, named after it (FORMAT, Keys). No group is empty.
    pub fn groups(&self) -> Vec<(&str, Vec<&SourceConfig>)> {
        let mut groups: Vec<(&str, Vec<&SourceConfig>)> = Vec::new();
        for source in &self.sources {
            match groups.iter_mut().find(|(name, _)| *name == source.group()) {
                Some((_, members)) => members.push(source),
                None => groups.push((source.group(), vec![source])),
            }
        }
        groups
    }
}

/// When a job, or a source with a schedule of its own, runs. Nothing set: only by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Full backups.
    pub full: Option<CronSchedule>,
    /// Incremental backups.
    pub incremental: Option<CronSchedule>,
    /// Archive backups.
    pub archive: Option<CronSchedule>,
    /// Verification.
    pub verify: Option<CronSchedule>,
    /// Drills.
    pub drill: Option<CronSchedule>,
    /// Prunes.
    pub prune: Option<CronSchedule>,
    /// Start up to this much later.
    pub jitter: Duration,
    /// A missed run that should have begun longer ago than this is not made up for.
    pub catch_up: Duration,
}

impl Schedule {
    /// [`Schedule::catch_up`] where nothing is said of it.
    pub const CATCH_UP: Duration = Duration::from_secs(7 * 86_400);

    /// Whether nothing ever comes due by it.
    pub fn is_empty(&self) -> bool {
        let crons = [&self.full, &self.incremental, &self.archive, &self.verify, &self.drill, &self.prune];
        crons.iter().all(|cron| cron.is_none())
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            full: None,
            incremental: None,
            archive: None,
            verify: None,
            drill: None,
            prune: None,
            jitter: Duration::ZERO,
            catch_up: Self::CATCH_UP,
        }
    }
}

/// Which sets are kept: a set stays when any rule wants it. At least one rule besides `keep_min_verified` is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many.
    pub keep_last: u32,
    /// All younger than this.
    pub keep_within: Option<Duration>,
    /// The newest of each of so many hours.
    pub keep_hourly: u32,
    /// … days.
    pub keep_daily: u32,
    /// … weeks.
    pub keep_weekly: u32,
    /// … months.
    pub keep_monthly: u32,
    /// … years.
    pub keep_yearly: u32,
    /// Never fewer than so many proven sets; at least 1.
    pub keep_min_verified: u32,
}

impl Retention {
    /// Keeps nothing but what is always kept: the newest proven set.
    pub const NOTHING: Retention = Retention {
        keep_last: 0,
        keep_within: None,
        keep_hourly: 0,
        keep_daily: 0,
        keep_weekly: 0,
        keep_monthly: 0,
        keep_yearly: 0,
        keep_min_verified: 1,
    };
}

/// What a recovery must achieve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objectives {
    /// Greatest age of the newest good set.
    pub rpo: Option<Duration>,
    /// Longest time a restore may take.
    pub rto: Option<Duration>,
    /// Greatest spread of times across the sources of one set.
    pub spread: Option<Duration>,
    /// A run that takes longer is told of; it is not ended.
    pub max_duration: Duration,
    /// Greatest age of the newest set that was verified.
    pub verified_within: Option<Duration>,
    /// Greatest age of the newest drill that passed.
    pub drilled_within: Option<Duration>,
    /// Greatest size of all sets of the job together, in stored bytes.
    pub max_total_size: Option<u64>,
}

impl Objectives {
    /// [`Objectives::max_duration`] where nothing is said of it.
    pub const MAX_DURATION: Duration = Duration::from_secs(30 * 60);
}

impl Default for Objectives {
    fn default() -> Self {
        Objectives {
            rpo: None,
            rto: None,
            spread: None,
            max_duration: Self::MAX_DURATION,
            verified_within: None,
            drilled_within: None,
            max_total_size: None,
        }
    }
}

/// One source of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceConfig {
    /// Its name, unique in the job.
    pub name: String,
    /// A schedule of its own; the source then forms a group.
    pub schedule: Option<Schedule>,
    /// Retention of its own; only with a schedule of its own.
    pub retention: Option<Retention>,
    /// May be stored in clear when the repository does not encrypt.
    pub allow_plaintext: bool,
    /// What it is.
    pub kind: SourceKind,
}

impl SourceConfig {
    /// The group it belongs to.
    pub fn group(&self) -> &str {
        if self.schedule.is_some() { &self.name } else { MAIN_GROUP }
    }
}

/// What a source is.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// PostgreSQL.
    Postgres(Box<PostgresConfig>),
    /// Folders and files.
    Files(FilesConfig),
    /// Environment variables.
    Environment(EnvironmentConfig),
    /// Compose files.
    Compose(ComposeConfig),
    /// What a program prints.
    Command(CommandConfig),
}

impl SourceKind {
    /// `postgres`, `files`, `environment`, `compose`, `command`.
    pub fn name(&self) -> &'static str {
        match self {
            SourceKind::Postgres(_) => "postgres",
            SourceKind::Files(_) => "files",
            SourceKind::Environment(_) => "environment",
            SourceKind::Compose(_) => "compose",
            SourceKind::Command(_) => "command",
        }
    }

    /// Whether its content is secret by nature: password hashes in globals, environment variables, compose files with passwords.
    pub fn secret(&self) -> bool {
        matches!(self, SourceKind::Postgres(_) | SourceKind::Environment(_) | SourceKind::Compose(_))
    }
}

/// Which databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseChoice {
    /// Every database that takes connections, asked anew at each run.
    All,
    /// These.
    Named(Vec<String>),
}

/// libpq's sslmode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only if the server insists.
    Allow,
    /// TLS if the server offers it.
    Prefer,
    /// TLS, whoever answers.
    Require,
    /// TLS, the certificate checked.
    VerifyCa,
    /// TLS, the certificate and its name checked.
    VerifyFull,
}

impl SslMode {
    /// All of them with libpq's names.
    pub const ALL: [(SslMode, &'static str); 6] = [
        (SslMode::Disable, "disable"),
        (SslMode::Allow, "allow"),
        (SslMode::Prefer, "prefer"),
        (SslMode::Require, "require"),
        (SslMode::VerifyCa, "verify-ca"),
        (SslMode::VerifyFull, "verify-full"),
    ];

    /// libpq's name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(mode, _)| *mode == self).map_or("prefer", |(_, name)| name)
    }

    /// The mode of this name.
    pub fn of(name: &str) -> Option<SslMode> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(mode, _)| *mode)
    }
}

/// libpq's `channel_binding`: whether a password is tied to the server's certificate (SCRAM-SHA-256-PLUS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where both sides can.
    #[default]
    Prefer,
    /// Always: a server that cannot, or asks for no password that way, is refused.
    Require,
}

impl ChannelBinding {
    const ALL: [(ChannelBinding, &'static str); 3] =
        [(ChannelBinding::Disable, "disable"), (ChannelBinding::Prefer, "prefer"), (ChannelBinding::Require, "require")];

    /// As libpq spells it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(binding, _)| *binding == self).map_or("prefer", |(_, name)| name)
    }

    /// The one of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(binding, _)| *binding)
    }
}

/// How a server is got at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReachConfig {
    /// It listens where drctl can connect to it.
    #[default]
    Direct,
    /// In a container of this name, or the one container of this compose service.
    Docker(String),
    /// From a host that ssh gets at.
    Ssh {
        /// `host`, `user@host`, or a name of the ssh configuration.
        host: String,
        /// Another ssh configuration file than the user's, absolute.
        config: Option<PathBuf>,
        /// The private key to use, absolute.
        identity: Option<PathBuf>,
    },
}

/// Whose programs are run for a server that is not reached directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tools {
    /// Those of this machine where they are new enough, else those beside the server.
    #[default]
    Auto,
    /// Those of this machine.
    Here,
    /// Those beside the server.
    There,
}

impl Tools {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Tools::Auto => "auto",
            Tools::Here => "here",
            Tools::There => "there",
        }
    }
}

/// A PostgreSQL server. Where to connect is what [`PostgresConfig::connection`] makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PostgresConfig {
    /// The source's name.
    pub name: String,
    /// How it is got at.
    pub reach: ReachConfig,
    /// Whose pg_dump and pg_restore are run.
    pub tools: Tools,
    /// Connection URL; the fields below win over its parts.
    pub url: Option<SecretRef>,
    /// Name, address, or folder of the socket.
    pub host: Option<TextRef>,
    /// Port.
    pub port: Option<u16>,
    /// User.
    pub user: Option<TextRef>,
    /// Password.
    pub password: Option<SecretRef>,
    /// TLS.
    pub sslmode: Option<SslMode>,
    /// PEM file with the authorities to check the server's certificate against, absolute; or `system`.
    pub sslrootcert: Option<PathBuf>,
    /// PEM file with the client's certificate. Absolute.
    pub sslcert: Option<PathBuf>,
    /// PEM file with its key. Absolute.
    pub sslkey: Option<PathBuf>,
    /// Which databases; `None` means the URL's or PGDATABASE's, and all where neither names one.
    pub databases: Option<DatabaseChoice>,
    /// A single database whose name comes from elsewhere; wins over `databases`, which is then `None`.
    pub database_ref: Option<TextRef>,
    /// Of those, what is left out: names or globs.
    pub exclude: Vec<String>,
    /// The database to connect to for questions about the server.
    pub maintenance_database: String,
    /// Dump roles and tablespaces too.
    pub globals: bool,
    /// Dump the roles' password hashes too.
    pub role_passwords: bool,
    /// A database may be empty that was not empty before.
    pub allow_empty: bool,
    /// Longest wait for a table's lock.
    pub lock_wait_timeout: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Folders with pg_dump and friends, looked at before the usual ones. Absolute.
    pub client_folders: Vec<PathBuf>,
}

/// Folders and files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesConfig {
    /// The source's name.
    pub name: String,
    /// Folders and files, absolute. Never empty.
    pub paths: Vec<PathBuf>,
    /// Globs; empty means everything.
    pub include: Vec<String>,
    /// Globs.
    pub exclude: Vec<String>,
    /// Only files changed within this time.
    pub newer_than: Option<Duration>,
    /// Do not go into other file systems.
    pub one_file_system: bool,
    /// Nothing found is no error.
    pub allow_empty: bool,
}

/// Environment variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentConfig {
    /// The source's name.
    pub name: String,
    /// Where they come from.
    pub from: EnvironmentFrom,
    /// Name prefixes. With `names` empty too: every variable.
    pub prefixes: Vec<String>,
    /// Names.
    pub names: Vec<String>,
}

/// Where variables come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvironmentFrom {
    /// The environment of this process.
    OwnProcess,
    /// An env file, absolute.
    File(PathBuf),
}

/// Compose files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComposeConfig {
    /// The source's name.
    pub name: String,
    /// The files, absolute. Never empty.
    pub files: Vec<PathBuf>,
}

/// What a program prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandConfig {
    /// The source's name.
    pub name: String,
    /// The program: a name looked up in PATH, or an absolute path.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Name of the artifact.
    pub artifact: String,
    /// Extension of the artifact's file, without a dot in front.
    pub extension: String,
    /// The folder it is run in, absolute.
    pub folder: PathBuf,
    /// Variables added to its environment.
    pub env: BTreeMap<String, SecretRef>,
    /// Printing nothing is no error.
    pub allow_empty: bool,
    /// Longest time it may take.
    pub timeout: Option<Duration>,
    /// Longest time without output.
    pub idle_timeout: Duration,
}
