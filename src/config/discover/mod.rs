//! What `init` finds by looking around: variables, `.env`, compose files, local sockets. The looking is done once, into a [`Look`];
//! everything else is pure. Nothing is connected to here.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::config::environment::Environment;
use crate::config::postgres::PostgresUrl;
use crate::config::tree::FILE_LIMIT;
use crate::error::Result;
use crate::model::Secret;

mod compose;
mod envfile;

pub use envfile::parse_env_file;

/// Most compose files that are looked at.
const COMPOSE_FILES: usize = 20;

/// What was seen in a folder and around it.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Variables.
    pub environment: Environment,
    /// The folder looked at.
    pub folder: PathBuf,
    /// Content of `.env` files and compose files there, by file name.
    pub files: BTreeMap<String, String>,
    /// Sockets of local PostgreSQL servers: folder and port.
    pub sockets: Vec<(PathBuf, u16)>,
}

impl Look {
    /// Looks at a folder and at `/var/run/postgresql`. Files that are too large or not text are passed over.
    pub fn at(environment: &Environment, folder: &Path) -> Result<Look> {
        let mut look = Look { environment: environment.clone(), folder: folder.to_owned(), ..Look::default() };
        let mut names: Vec<String> = names_in(folder).into_iter().filter(|n| n == ".env" || compose::is_file_name(n)).collect();
        names.truncate(COMPOSE_FILES);
        for name in names {
            if let Some(text) = small_text(&folder.join(&name)) {
                look.files.insert(name, text);
            }
        }
        let sockets = Path::new("/var/run/postgresql");
        let ports = names_in(sockets).into_iter().filter_map(|n| n.strip_prefix(".s.PGSQL.")?.parse::<u16>().ok());
        look.sockets = ports.map(|port| (sockets.to_owned(), port)).collect();
        Ok(look)
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).map(|all| all.flatten().filter_map(|e| e.file_name().into_string().ok()).collect());
    let mut names: Vec<String> = entries.unwrap_or_default();
    names.sort();
    names
}

fn small_text(path: &Path) -> Option<String> {
    let file = std::fs::File::open(path).ok().filter(|f| f.metadata().is_ok_and(|m| m.is_file() && m.len() <= FILE_LIMIT))?;
    let mut text = String::new();
    file.take(FILE_LIMIT).read_to_string(&mut text).ok()?;
    Some(text)
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A whole sentence for people, without secrets.
    pub sentence: String,
    /// What it is.
    pub found: Found,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A PostgreSQL server that can be tried.
    Postgres(FoundPostgres),
    /// A file of variables; its name in the folder.
    EnvFile(String),
    /// Compose files; their names in the folder.
    Compose(Vec<String>),
    /// Something that a later version backs up.
    Later {
        /// `redis`, `mongodb`.
        kind: &'static str,
    },
    /// Something that cannot be reached or backed up as it is; the sentence says why.
    Note,
}

/// A PostgreSQL server as the configuration will have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundPostgres {
    /// The source's name.
    pub name: String,
    /// Variable that holds the whole URL; then the rest is only known, not written.
    pub url_env: Option<String>,
    /// The compose service that it is, where only Docker gets at it.
    pub docker: Option<String>,
    /// Host or socket folder.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// User.
    pub user: Option<String>,
    /// A single database; `None` for all.
    pub database: Option<String>,
    /// Variable that holds the password.
    pub password_env: Option<String>,
    /// The password itself, found in a file; `init` puts it into a secret file of its own.
    pub password: Option<Secret>,
}

impl FoundPostgres {
    fn of_url(text: &str) -> Option<FoundPostgres> {
        let url = PostgresUrl::parse(text).ok()?;
        Some(FoundPostgres {
            host: url.host,
            port: url.port,
            user: url.user,
            database: url.database,
            password: url.password,
            ..FoundPostgres::default()
        })
    }

    fn place(&self) -> String {
        let host = self.host.as_deref().unwrap_or("localhost");
        format!("{host}:{}", self.port.unwrap_or(5432))
    }

    /// Two findings of the same server. Names of one machine count as one.
    fn same_server(&self, other: &FoundPostgres) -> bool {
        if self.docker.is_some() || other.docker.is_some() {
            return self.docker == other.docker;
        }
        let key = |found: &FoundPostgres| {
            let host = found.host.clone().unwrap_or_else(|| "localhost".to_owned());
            let local = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1" | "0.0.0.0") || host.starts_with('/');
            (if local { "localhost".to_owned() } else { host }, found.port.unwrap_or(5432))
        };
        key(self) == key(other)
    }
}

/// Variables that may hold a URL.
const URL_VARIABLES: [&str; 4] = ["DATABASE_URL", "POSTGRES_URL", "POSTGRESQL_URL", "PG_URL"];

/// Everything worth telling or backing up. Servers that are found twice are told once, the surest way first.
pub fn discover(look: &Look) -> Vec<Finding> {
    let dotenv: BTreeMap<String, String> =
        look.files.get(".env").map(|text| parse_env_file(text).into_iter().collect()).unwrap_or_default();
    let composed = compose::services(look, &dotenv);
    let mut findings = Vec::new();
    let mut servers: Vec<FoundPostgres> = Vec::new();
    let own = |name: &str| look.environment.get(name).map(str::to_owned);
    let filed = |name: &str| dotenv.get(name).filter(|v| !v.is_empty()).cloned();

    let mut add = |findings: &mut Vec<Finding>, mut found: FoundPostgres, sentence: String| {
        if servers.iter().any(|s| s.same_server(&found)) {
            return;
        }
        if found.name.is_empty() {
            found.name = "postgres".to_owned();
        }
        let base = found.name.clone();
        let mut number = 2;
        while servers.iter().any(|s| s.name == found.name) {
            found.name = format!("{base}-{number}");
            number += 1;
        }
        servers.push(found.clone());
        findings.push(Finding { sentence, found: Found::Postgres(found) });
    };

    for name in URL_VARIABLES {
        if let Some(mut found) = own(name).and_then(|text| FoundPostgres::of_url(&text)) {
            found.url_env = Some(name.to_owned());
            found.password = None;
            let sentence = format!("The variable {name} names PostgreSQL at {}.", found.place());
            add(&mut findings, found, sentence);
        }
    }
    if let Some(found) = pg_variables(&own) {
        let sentence = format!("PG* variables name PostgreSQL at {}.", found.place());
        add(&mut findings, found, sentence);
    }
    if let Some(mut found) = postgres_variables(&own) {
        found.password_env = own("POSTGRES_PASSWORD").map(|_| "POSTGRES_PASSWORD".to_owned());
        found.password = None;
        let sentence = format!("POSTGRES_* variables name PostgreSQL at {}.", found.place());
        add(&mut findings, found, sentence);
    }
    let from_file = URL_VARIABLES.iter().filter_map(|name| Some((*name, FoundPostgres::of_url(&filed(name)?)?)));
    for (name, found) in from_file.chain(postgres_variables(&filed).map(|found| ("POSTGRES_HOST", found))) {
        if let Some(service) = found.host.as_ref().and_then(|host| composed.iter().find(|s| &s.name == host)) {
            // The name only works inside the compose network; the service itself is told below.
            let sentence =
                format!("{name} in .env names the compose service {}, which has no such name outside of its network.", service.name);
            findings.push(Finding { sentence, found: Found::Note });
            continue;
        }
        let sentence = format!("{name} in .env names PostgreSQL at {}.", found.place());
        add(&mut findings, found, sentence);
    }
    for service in &composed {
        let (file, name) = (&service.file, &service.name);
        match (service.kind, service.published) {
            (compose::Kind::Postgres, Some(port)) => {
                let found = FoundPostgres {
                    name: compose::source_name(name),
                    host: Some("127.0.0.1".to_owned()),
                    port: Some(port),
                    user: service.variable("POSTGRES_USER").or_else(|| Some("postgres".to_owned())),
                    password: service.variable("POSTGRES_PASSWORD").map(Secret::new),
                    ..FoundPostgres::default()
                };
                let sentence = format!("The service {name} in {file} is PostgreSQL ({}), published at 127.0.0.1:{port}.", service.image);
                add(&mut findings, found, sentence);
            }
            (compose::Kind::Postgres, None) => {
                let image = &service.image;
                let sentence = format!("The service {name} in {file} is PostgreSQL ({image}) without a published port: reached by docker.");
                let found = FoundPostgres {
                    name: compose::source_name(name),
                    docker: Some(name.clone()),
                    user: service.variable("POSTGRES_USER").or_else(|| Some("postgres".to_owned())),
                    password: service.variable("POSTGRES_PASSWORD").map(Secret::new),
                    ..FoundPostgres::default()
                };
                match compose::is_service_name(name) {
                    true => add(&mut findings, found, sentence),
                    false => findings
                        .push(Finding { sentence: format!("{sentence} Its name is none that docker can have."), found: Found::Note }),
                }
            }
            (compose::Kind::Later(kind), _) => {
                let sentence = format!("The service {name} in {file} is {kind} ({}); {kind} comes with a later version.", service.image);
                findings.push(Finding { sentence, found: Found::Later { kind } });
            }
            (compose::Kind::Unknown, _) => {}
        }
    }
    for (folder, port) in &look.sockets {
        let found = FoundPostgres { host: Some(folder.display().to_string()), port: Some(*port), ..FoundPostgres::default() };
        let sentence = format!("A PostgreSQL server listens on the socket {}/.s.PGSQL.{port}.", folder.display());
        add(&mut findings, found, sentence);
    }
    for (variable, kind) in [("REDIS_URL", "redis"), ("MONGODB_URI", "mongodb"), ("MONGO_URL", "mongodb")] {
        if own(variable).or_else(|| filed(variable)).is_some() {
            let sentence = format!("{variable} names a {kind} server; {kind} comes with a later version.");
            findings.push(Finding { sentence, found: Found::Later { kind } });
        }
    }
    let compose_files: Vec<String> = look.files.keys().filter(|name| compose::is_file_name(name)).cloned().collect();
    if !compose_files.is_empty() {
        let sentence = format!("Compose files: {}.", compose_files.join(", "));
        findings.push(Finding { sentence, found: Found::Compose(compose_files) });
    }
    if !dotenv.is_empty() {
        let sentence = format!("The file .env holds {} variables.", dotenv.len());
        findings.push(Finding { sentence, found: Found::EnvFile(".env".to_owned()) });
    }
    findings
}

/// libpq's own variables.
fn pg_variables(get: &dyn Fn(&str) -> Option<String>) -> Option<FoundPostgres> {
    if ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER"].iter().all(|name| get(name).is_none()) {
        return None;
    }
    Some(FoundPostgres {
        host: get("PGHOST"),
        port: get("PGPORT").and_then(|p| p.parse().ok()),
        user: get("PGUSER"),
        database: get("PGDATABASE"),
        password_env: get("PGPASSWORD").map(|_| "PGPASSWORD".to_owned()),
        ..FoundPostgres::default()
    })
}

/// The variables many applications use.
fn postgres_variables(get: &dyn Fn(&str) -> Option<String>) -> Option<FoundPostgres> {
    Some(FoundPostgres {
        host: Some(get("POSTGRES_HOST")?),
        port: get("POSTGRES_PORT").and_then(|p| p.parse().ok()),
        user: get("POSTGRES_USER"),
        database: get("POSTGRES_DB"),
        password: get("POSTGRES_PASSWORD").map(Secret::new),
        ..FoundPostgres::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(vars: &[(&str, &str)], files: &[(&str, &str)]) -> Look {
        Look {
            environment: Environment::of("/srv/app", vars.iter().copied()),
            folder: "/srv/app".into(),
            files: files.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            sockets: vec![],
        }
    }

    fn servers(look: &Look) -> Vec<FoundPostgres> {
        discover(look).into_iter().filter_map(|f| if let Found::Postgres(p) = f.found { Some(p) } else { None }).collect()
    }

    #[test]
    fn variables_are_found() {
        let found = servers(&look(&[("DATABASE_URL", "postgresql+asyncpg://app:hunter2@db:5433/shop")], &[]));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].url_env.as_deref(), found[0].place().as_str()), (Some("DATABASE_URL"), "db:5433"));
        assert_eq!(found[0].password, None, "it stays in the environment");
        let found = servers(&look(&[("PGHOST", "h"), ("PGPASSWORD", "hunter2")], &[]));
        assert_eq!((found[0].host.as_deref(), found[0].password_env.as_deref()), (Some("h"), Some("PGPASSWORD")));
        assert!(servers(&look(&[("DATABASE_URL", "mysql://x/y")], &[])).is_empty());
    }

    #[test]
    fn the_same_server_is_told_once() {
        let mut both = look(&[("PGHOST", "localhost"), ("DATABASE_URL", "postgres://u@127.0.0.1/shop")], &[]);
        both.sockets.push(("/var/run/postgresql".into(), 5432));
        both.sockets.push(("/var/run/postgresql".into(), 5433));
        let found = servers(&both);
        assert_eq!(found.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["postgres", "postgres-2"]);
        assert_eq!(found[1].port, Some(5433));
    }

    #[test]
    fn compose_services_are_mapped_by_image() {
        let compose = "
services:
  db-master:
    image: timescale/timescaledb:latest-pg15
    ports: ['127.0.0.1:6432:5432']
    environment: { POSTGRES_USER: app, POSTGRES_PASSWORD: '${DB_PASSWORD}' }
  inner:
    image: docker.io/library/postgres@sha256:abc
    environment: [POSTGRES_PASSWORD=x]
  cache: { image: 'redis:7-alpine' }
  mongo: { image: mongo }
  web: { image: nginx, ports: [80] }
";
        let look = look(
            &[],
            &[("docker-compose.prod.yml", compose), (".env", "DB_PASSWORD=hunter2\nDATABASE_URL=postgres://app@db-master/shop\n")],
        );
        let found = discover(&look);
        let text: Vec<&str> = found.iter().map(|f| f.sentence.as_str()).collect();
        assert_eq!(
            text,
            [
                "DATABASE_URL in .env names the compose service db-master, which has no such name outside of its network.",
                "The service cache in docker-compose.prod.yml is redis (redis:7-alpine); redis comes with a later version.",
                "The service db-master in docker-compose.prod.yml is PostgreSQL (timescale/timescaledb:latest-pg15), published at 127.0.0.1:6432.",
                "The service inner in docker-compose.prod.yml is PostgreSQL (docker.io/library/postgres@sha256:abc) without a published port: reached by docker.",
                "The service mongo in docker-compose.prod.yml is mongodb (mongo); mongodb comes with a later version.",
                "Compose files: docker-compose.prod.yml.",
                "The file .env holds 2 variables.",
            ]
        );
        let server = &servers(&look)[0];
        assert_eq!((server.user.as_deref(), server.password.as_ref().unwrap().expose()), (Some("app"), "hunter2"));
        assert!(!format!("{found:?}").contains("hunter2"));
        let inner = &servers(&look)[1];
        assert_eq!((inner.docker.as_deref(), inner.host.as_deref(), inner.user.as_deref()), (Some("inner"), None, Some("postgres")));
        assert_eq!((inner.name.as_str(), inner.password.as_ref().unwrap().expose()), ("inner", "x"));
    }

    #[test]
    fn a_folder_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in
            [(".env", "A=1"), ("compose.yaml", "services: {}"), ("other.yaml", "x"), ("docker-compose.override.yml", "\u{0}")]
        {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let look = Look::at(&Environment::default(), dir.path()).unwrap();
        assert_eq!(look.files.keys().collect::<Vec<_>>(), [".env", "compose.yaml", "docker-compose.override.yml"]);
    }

    proptest::proptest! {
        #[test]
        fn strange_files_do_no_harm(compose in "[a-z:\\- \n{}\\[\\]$\"]{0,80}", env in "[A-Z=\"' #\n$]{0,40}") {
            let _ = discover(&look(&[], &[("compose.yml", &compose), (".env", &env)]));
        }
    }
}
