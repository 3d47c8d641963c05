//! From the configuration of a source to the source, and to its loader.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::environment::Environment;
use crate::config::postgres::PostgresConnection;
use crate::config::typed::{
    self, CommandConfig, DatabaseChoice, EnvironmentConfig, FilesConfig, PostgresConfig, ReachConfig, SourceConfig, SourceKind,
};
use crate::error::{Error, Kind, Result};
use crate::ops::suspect::Allowed;
use crate::process::Limits;
use crate::reach::{Docker, Reach, Ssh};
use crate::source::Source;
use crate::source::command::{CommandSettings, CommandSource};
use crate::source::compose::{ComposeSettings, ComposeSource};
use crate::source::environment::{EnvironmentFrom, EnvironmentSettings, EnvironmentSource};
use crate::source::environment_load::AsideLoader;
use crate::source::files::{FilesLoader, FilesSettings, FilesSource};
use crate::source::load::Loader;
use crate::source::postgres::{Databases, PostgresLoader, PostgresSettings, PostgresSource, SslMode};

/// The source that a configuration describes. Fetches the secrets it needs, so it may block for a moment.
pub fn source(config: &SourceConfig) -> Result<Arc<dyn Source>> {
    let name = &config.name;
    Ok(match &config.kind {
        SourceKind::Postgres(postgres) => Arc::new(PostgresSource::new(name, postgres_settings(postgres)?)),
        SourceKind::Files(files) => Arc::new(FilesSource::new(name, files_settings(files))?),
        SourceKind::Environment(environment) => Arc::new(EnvironmentSource::new(name, environment_settings(environment))),
        SourceKind::Compose(compose) => Arc::new(ComposeSource::new(name, ComposeSettings { files: compose.files.clone() })),
        SourceKind::Command(command) => Arc::new(CommandSource::new(name, command_settings(command)?)),
    })
}

/// A loader for a source of a set: what is configured under its name, or, with a target, what its kind alone can do.
pub fn loader(name: &str, kind: &str, configured: Option<&SourceConfig>) -> Result<Arc<dyn Loader>> {
    // Absolute: another process may have to find what lies there.
    let here = || std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    Ok(match (kind, configured.map(|c| &c.kind)) {
        ("postgres", Some(SourceKind::Postgres(postgres))) => Arc::new(PostgresLoader::new(postgres_settings(postgres)?)),
        ("postgres", _) => Arc::new(PostgresLoader::new(PostgresSettings::default())),
        ("files", Some(SourceKind::Files(files))) => Arc::new(FilesLoader::new(files_settings(files))),
        ("files", _) => Arc::new(FilesLoader::new(FilesSettings::all_of(Vec::<PathBuf>::new()))),
        ("environment", Some(SourceKind::Environment(environment))) => {
            Arc::new(AsideLoader::new(here(), Some(environment_settings(environment))))
        }
        ("environment" | "compose", _) => Arc::new(AsideLoader::new(here(), None)),
        _ => {
            return Err(Error::new(Kind::Preflight, format!("'{name}' ({kind}) cannot be restored by drctl alone"))
                .hint(format!("write it out and load it by hand: drctl cat SET {name} > FILE")));
        }
    })
}

/// What a source may do that would be odd of another: what shows a window of time, or whatever a program prints, comes and goes.
pub fn allowed(config: &SourceConfig) -> Allowed {
    let (empty, smaller) = match &config.kind {
        SourceKind::Files(files) => (files.allow_empty, files.newer_than.is_some()),
        SourceKind::Command(command) => (command.allow_empty, true),
        SourceKind::Postgres(postgres) => (postgres.allow_empty, false),
        // Nothing found is an error of these.
        SourceKind::Environment(_) | SourceKind::Compose(_) => (false, false),
    };
    // Only where the server is asked which databases there are may one be gone without a word.
    let asked = matches!(&config.kind, SourceKind::Postgres(postgres) if !matches!(postgres.databases, Some(DatabaseChoice::Named(_))));
    Allowed { empty, smaller, fewer: !asked }
}

fn files_settings(config: &FilesConfig) -> FilesSettings {
    FilesSettings {
        paths: config.paths.clone(),
        include: config.include.clone(),
        exclude: config.exclude.clone(),
        newer_than: config.newer_than,
        one_file_system: config.one_file_system,
        allow_empty: config.allow_empty,
    }
}

fn environment_settings(config: &EnvironmentConfig) -> EnvironmentSettings {
    EnvironmentSettings {
        from: match &config.from {
            typed::EnvironmentFrom::OwnProcess => EnvironmentFrom::Process,
            typed::EnvironmentFrom::File(path) => EnvironmentFrom::File(path.clone()),
        },
        prefixes: config.prefixes.clone(),
        names: config.names.clone(),
    }
}

fn command_settings(config: &CommandConfig) -> Result<CommandSettings> {
    let env = config.env.iter().map(|(name, secret)| Ok((name.clone(), secret.resolve()?))).collect::<Result<_>>()?;
    Ok(CommandSettings {
        program: config.program.clone(),
        args: config.args.clone(),
        env,
        folder: Some(config.folder.clone()),
        artifact: config.artifact.clone(),
        extension: Some(config.extension.clone()),
        allow_empty: config.allow_empty,
        limits: Limits { idle: Some(config.idle_timeout), total: config.timeout, ..Limits::default() },
    })
}

fn postgres_settings(config: &PostgresConfig) -> Result<PostgresSettings> {
    let connection: PostgresConnection = config.connection(&Environment::system())?;
    let reach: Option<Arc<dyn Reach>> = match &config.reach {
        ReachConfig::Direct => None,
        ReachConfig::Docker(name) => Some(Arc::new(Docker::new(name))),
        ReachConfig::Ssh { host, config, identity } => {
            Some(Arc::new(Ssh { host: host.clone(), config: config.clone(), identity: identity.clone() }))
        }
    };
    Ok(PostgresSettings {
        reach,
        tools: config.tools,
        password: connection.password_for(&connection.maintenance_database),
        host: connection.host,
        port: connection.port,
        user: connection.user,
        databases: match connection.databases {
            DatabaseChoice::All => Databases::All,
            DatabaseChoice::Named(names) => Databases::Named(names),
        },
        exclude: config.exclude.clone(),
        maintenance_database: connection.maintenance_database,
        lock_wait_timeout: config.lock_wait_timeout,
        sslmode: match connection.sslmode {
            typed::SslMode::Disable => SslMode::Disable,
            typed::SslMode::Allow | typed::SslMode::Prefer => SslMode::Prefer,
            typed::SslMode::Require => SslMode::Require,
            typed::SslMode::VerifyCa => SslMode::VerifyCa,
            typed::SslMode::VerifyFull => SslMode::VerifyFull,
        },
        sslrootcert: connection.sslrootcert,
        sslcert: connection.sslcert,
        sslkey: connection.sslkey,
        channel_binding: connection.channel_binding,
        client_folders: config.client_folders.clone(),
        connect_timeout: config.connect_timeout,
        ..PostgresSettings::default()
    })
}
