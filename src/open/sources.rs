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
        globals: config.globals,
        role_passwords: config.role_passwords,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::config::{LoadOptions, load};

    const HEAD: &str = "repository:\n  id: shop-7k3q\n  root_key: RWR3cBpllPzfHE/HcwpCzx0LtLbYTVuI6FSpV6SdSJzNM53mU1tJlsq/\n  \
        stores: [{ name: main, local: { path: store } }]\n  recipients: [age17et55u4d4df3aee5pafa5cs4ahcwfrl507ultujwu3a9ntsk34xs7r78nm]\n  \
        identity: keys/identity\n  signing_key: keys/signing\njobs:\n  - job: shop\n    sources:\n";

    /// What is done by a source with these settings; an error's text where they are refused.
    fn done(folder: &Path, kind: &str, settings: &str) -> String {
        let path = folder.join("drctl.yaml");
        std::fs::write(&path, format!("{HEAD}      - {kind}: {{ {settings} }}\n")).unwrap();
        let mut options = LoadOptions::new(Environment::of(folder, [("HOME", "/nonexistent")]));
        (options.config, options.look_at_files) = (Some(path), false);
        let config = match load(&options) {
            Ok(config) => config,
            Err(problems) => return problems.to_string(),
        };
        let source = &config.jobs[0].sources[0];
        let settings = match &source.kind {
            SourceKind::Postgres(c) => postgres_settings(c).map(|s| {
                let password = s.password.as_ref().map(|password| password.expose().to_owned());
                format!("{s:?} {password:?}")
            }),
            SourceKind::Files(c) => Ok(format!("{:?}", files_settings(c))),
            SourceKind::Environment(c) => Ok(format!("{:?}", environment_settings(c))),
            SourceKind::Compose(c) => Ok(format!("{:?}", c.files)),
            SourceKind::Command(c) => {
                command_settings(c).map(|s| format!("{s:?} {:?}", s.env.iter().map(|(n, v)| (n, v.expose())).collect::<Vec<_>>()))
            }
        };
        format!("{} {:?} {:?}", source.name, settings.unwrap_or_else(|e| e.to_string()), allowed(source))
    }

    /// Keys, each with a value that is not what holds without it.
    type Flips<'a> = &'a [(&'a str, &'a str)];

    /// What every source has, and where the tests are that show what it does.
    const COMMON: [(&str, &str); 3] =
        [("schedule", "tests/groups.rs"), ("retention", "src/open/policy.rs"), ("allow_plaintext", "tests/config_messages.rs")];

    /// A setting that is read, checked and shown, and then does nothing, is a promise that nobody keeps (FAULTS 124).
    #[test]
    fn f124_every_setting_of_a_source_changes_what_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let schema: &Value = &crate::config::schema::JOB.value;
        let of = |kind: &str| -> Vec<String> {
            let kinds = &schema["properties"]["sources"]["items"]["properties"];
            let own = |value: &Value| value["properties"].as_object().map(|keys| keys.keys().cloned().collect::<Vec<_>>());
            let alternatives = || kinds[kind]["anyOf"].as_array()?.iter().find_map(own);
            own(&kinds[kind]).or_else(alternatives).unwrap_or_else(|| panic!("{kind}: {}", kinds[kind]))
        };
        let flips: [(&str, &str, Flips<'_>); 5] = [
            (
                "postgres",
                "host: h",
                &[
                    ("name", "other"),
                    ("reach", "{ docker: db }"),
                    ("tools", "there, reach: { docker: db }"),
                    ("url", "postgres://u:p@elsewhere:1/d"),
                    ("host", "elsewhere"),
                    ("port", "5555"),
                    ("database", "[shop]"),
                    ("exclude", "[shop]"),
                    ("user", "other"),
                    ("password", "secret"),
                    ("sslmode", "require"),
                    ("sslrootcert", "/ca.pem, sslmode: verify-ca"),
                    ("sslcert", "/c.pem, sslkey: /k.pem"),
                    ("sslkey", "/k.pem, sslcert: /c.pem"),
                    ("maintenance_database", "other"),
                    ("globals", "false"),
                    ("role_passwords", "false"),
                    ("allow_empty", "true"),
                    ("lock_wait_timeout", "7s"),
                    ("connect_timeout", "7s"),
                    ("client_folders", "[/usr/lib/x]"),
                ],
            ),
            (
                "files",
                "paths: [/srv]",
                &[
                    ("name", "other"),
                    ("paths", "[/opt]"),
                    ("include", "['*.a']"),
                    ("exclude", "['*.b']"),
                    ("newer_than", "7d"),
                    ("one_file_system", "false"),
                    ("allow_empty", "true"),
                ],
            ),
            ("environment", "from: { file: e.env }", &[("name", "other"), ("from", "self"), ("prefixes", "[A]"), ("names", "[B]")]),
            ("compose", "files: [c.yml]", &[("name", "other"), ("files", "[d.yml]")]),
            (
                "command",
                "run: [echo]",
                &[
                    ("name", "other"),
                    ("run", "[printf]"),
                    ("artifact", "other"),
                    ("extension", "txt"),
                    ("folder", "/srv"),
                    ("env", "{ A: b }"),
                    ("allow_empty", "true"),
                    ("timeout", "7s"),
                    ("idle_timeout", "7s"),
                ],
            ),
        ];
        for (kind, base, flips) in flips {
            let as_it_is = done(folder.path(), kind, base);
            for key in of(kind) {
                if COMMON.iter().any(|(common, _)| *common == key) {
                    continue;
                }
                let (_, value) =
                    flips.iter().find(|(known, _)| *known == key).unwrap_or_else(|| panic!("{kind}.{key} is in no row of this test"));
                // A value may bring what it needs with it; that alone must not make the difference.
                let (own, beside) = value.split_once("}, ").map_or_else(
                    || value.split_once(", ").filter(|(_, rest)| rest.contains(": ")).map_or((*value, ""), |(own, rest)| (own, rest)),
                    |_| (*value, ""),
                );
                let base_without: Vec<&str> = base.split(", ").filter(|part| !part.starts_with(&format!("{key}:"))).collect();
                let with = |more: &[&str]| {
                    let parts: Vec<&str> =
                        base_without.iter().copied().chain(more.iter().copied()).filter(|part| !part.is_empty()).collect();
                    done(folder.path(), kind, &parts.join(", "))
                };
                let before = if beside.is_empty() { as_it_is.clone() } else { with(&[beside]) };
                let flipped = with(&[&format!("{key}: {own}"), beside]);
                assert_ne!(flipped, before, "{kind}.{key}: {value} does nothing");
                assert!(!flipped.contains("unknown key"), "{kind}.{key}: {flipped}");
            }
        }
    }
}
