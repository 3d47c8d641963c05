//! PostgreSQL: one `pg_dump -Fc -Z0` a database, `pg_dumpall --globals-only`, and what neither holds; the way back in [`PostgresLoader`].
//!
//! The archive is not compressed by pg_dump: equal rows then give equal frames, and drctl compresses better in parallel.

mod blocker;
mod catalog;
mod client;
mod connect;
mod dump;
pub mod grants;
mod load;
mod packages;
mod pooler;
mod session;
mod settings;
mod tls;

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::source::{Preflight, RunContext, Session, Source};

use catalog::{Database, Server};
use client::{Client, Private};
use connect::{Connection, connect};
use dump::PostgresSession;
use load::{Beside, beside, is_lent};

pub use client::sweep_private_files;
pub use load::PostgresLoader;
pub use settings::{ChannelBinding, Databases, PostgresSettings, SslMode, Tools};

/// The oldest server that is supported: the queries and the dump's order rely on it.
const OLDEST: u32 = 10;

/// `drctl/<run>`: how drctl shows in `pg_stat_activity`.
fn application(context: &RunContext) -> String {
    format!("drctl/{}", context.run)
}

/// The databases to dump, and those that are not with the reason.
type Chosen = (Vec<Database>, Vec<(String, Refused)>);

/// A database that is not dumped, and why.
type Skipped = (String, String);

/// Why a database is left out when all are to be dumped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    Closed,
    Template,
    Beside(Beside),
}

impl Refused {
    fn why(self) -> &'static str {
        match self {
            Refused::Closed => "it accepts no connections",
            Refused::Template => "it is a template",
            Refused::Beside(Beside::Loading) => "a restore is loading it",
            Refused::Beside(Beside::Kept) => "a restore keeps it aside",
        }
    }

    fn of(database: &Database) -> Option<Refused> {
        match beside(&database.name) {
            _ if is_lent(database.comment.as_deref()) => Some(Refused::Beside(Beside::Loading)),
            Some((Beside::Loading, _)) => Some(Refused::Beside(Beside::Loading)),
            Some((Beside::Kept, _)) if !database.allow_connections => Some(Refused::Beside(Beside::Kept)),
            _ if database.template => Some(Refused::Template),
            _ => (!database.allow_connections).then_some(Refused::Closed),
        }
    }
}

/// A line for each restore that keeps databases aside, with the one that lets go of them.
fn kept_aside(refused: &[(String, Refused)]) -> Vec<String> {
    let mut restores: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, why) in refused {
        if let (Refused::Beside(Beside::Kept), Some((_, restore))) = (why, beside(name)) {
            restores.entry(restore).or_default().push(name);
        }
    }
    let line = |(restore, names): (&str, Vec<&str>)| {
        let names = names.join(", ").escape_debug().to_string();
        format!("Restore {restore} keeps old data aside, which is not dumped: {names}. To drop it: drctl restore --finish {restore}")
    };
    restores.into_iter().map(line).collect()
}

fn without_unlogged(database: &Database, inside: &catalog::Inside) -> Option<String> {
    let (name, tables) = (database.name.escape_debug(), inside.unlogged.join(", ").replace(char::is_control, "?"));
    let any = !inside.unlogged.is_empty();
    any.then(|| format!("Database {name} is dumped from a replica, which has no rows of its unlogged tables: {tables}."))
}

/// A PostgreSQL server as a source.
pub struct PostgresSource {
    name: String,
    settings: PostgresSettings,
}

/// What both preflight and open find out.
struct Found {
    connection: Connection,
    server: Server,
    pg_dump: Client,
    pg_dumpall: Client,
    databases: Vec<Database>,
    skipped: Vec<Skipped>,
    role_passwords: bool,
    superuser: bool,
    warnings: Vec<String>,
    /// For what of the settings' wish the backup will not be whole.
    problems: Vec<String>,
}

impl PostgresSource {
    /// A source under a name that is unique in its job.
    pub fn new(name: impl Into<String>, settings: PostgresSettings) -> Self {
        PostgresSource { name: name.into(), settings }
    }

    async fn find(&self, context: &RunContext) -> Result<Found> {
        let settings = &self.settings;
        let connection = connect(settings, &settings.maintenance_database, &application(context)).await?;
        let server = catalog::server(&connection).await?;
        let major = server.major();
        if major < OLDEST {
            return Err(Error::new(
                Kind::Preflight,
                format!("the server at {} is PostgreSQL {}; {OLDEST} is the oldest that drctl knows", settings.address(), server.version),
            ));
        }
        let why = format!("the server, PostgreSQL {}", server.version);
        let pg_dump = client::find(settings, "pg_dump", major, &why, &context.cancel).await?;
        let pg_dumpall = client::find(settings, "pg_dumpall", major, &why, &context.cancel).await?;
        let (databases, refused) = self.choose(catalog::databases(&connection).await?)?;
        // Every cluster has the two templates; a warning in every run would only teach people to skip warnings. Details name them.
        let (mut warnings, mut problems) = (kept_aside(&refused), Vec::new());
        warnings.extend(client::cannot_load(settings, &pg_dump, &context.cancel).await?);
        for (name, why) in refused.iter().filter(|(name, _)| !matches!(name.as_str(), "template0" | "template1")) {
            if *why == Refused::Beside(Beside::Kept) {
                continue;
            }
            let line = format!("Database {} is not dumped: {}.", name.escape_debug(), why.why());
            // Someone's data that nobody could read: the set is not whole without it.
            if *why == Refused::Closed { &mut problems } else { &mut warnings }.push(line);
        }
        let skipped = refused.into_iter().map(|(name, why)| (name, why.why().to_owned())).collect();
        let readable = connection
            .query_one("select has_table_privilege('pg_authid', 'SELECT'), rolsuper from pg_roles where rolname = current_user", &[])
            .await;
        let row = readable.map_err(|e| connect::pg_error("ask for privileges", &e))?;
        let (role_passwords, superuser): (bool, bool) = (row.get(0), row.get(1));
        if !role_passwords {
            warnings.push(format!("Role {} may not read the passwords of roles: the globals are dumped without them.", settings.user));
        }
        Ok(Found { connection, server, pg_dump, pg_dumpall, databases, skipped, role_passwords, superuser, warnings, problems })
    }

    /// The databases to dump, and those that are not, with the reason.
    fn choose(&self, all: Vec<Database>) -> Result<Chosen> {
        match &self.settings.databases {
            Databases::All => {
                let (mut chosen, mut skipped) = (Vec::new(), Vec::new());
                for database in all {
                    match Refused::of(&database) {
                        None => chosen.push(database),
                        Some(why) => skipped.push((database.name, why)),
                    }
                }
                Ok((chosen, skipped))
            }
            Databases::Named(names) => {
                let found = |name: &String| {
                    let missing = || {
                        Error::new(Kind::Preflight, format!("there is no database {} at {}", name.escape_debug(), self.settings.address()))
                            .hint(format!("there are: {}", all.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ")))
                    };
                    let database = all.iter().find(|d| d.name == *name).ok_or_else(missing)?;
                    if !database.allow_connections {
                        let why = Refused::Closed.why();
                        return Err(Error::new(Kind::Preflight, format!("database {} cannot be dumped: {why}", name.escape_debug())));
                    }
                    Ok(database.clone())
                };
                Ok((names.iter().map(found).collect::<Result<_>>()?, Vec::new()))
            }
        }
    }
}

#[async_trait]
impl Source for PostgresSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn preflight(&self, context: &RunContext) -> Result<Preflight> {
        let mut found = self.find(context).await?;
        for database in &mut found.databases {
            let connection = connect(&self.settings, &database.name, &application(context)).await?;
            let inside = catalog::look_inside(&connection, database).await?;
            let (user, name) = (&self.settings.user, database.name.escape_debug().to_string());
            if let Some(why) = catalog::unreadable(&connection).await? {
                return Err(Error::new(Kind::Preflight, format!("role {user} cannot dump database {name}: it {why}"))
                    .hint(format!("as a superuser: GRANT pg_read_all_data TO \"{user}\"; ALTER ROLE \"{user}\" BYPASSRLS")));
            }
            found.warnings.extend(without_unlogged(database, &inside));
            if inside.large_objects > 0 && !found.superuser {
                found.warnings.push(format!(
                    "Database {name} has {} large objects; role {user} is no superuser and must have been granted SELECT on each.",
                    inside.large_objects
                ));
            }
        }
        let bytes: u64 = found.databases.iter().filter_map(|d| d.size_bytes).sum();
        let replica = if found.server.in_recovery { ", a replica" } else { "" };
        let there = match found.pg_dump.there {
            true => format!(", dumped by the pg_dump {} there", found.pg_dump.tool.version.split(' ').next().unwrap_or_default()),
            false => String::new(),
        };
        let summary = format!(
            "PostgreSQL {} at {}{replica}, {} databases, {}{there}",
            found.server.version.split(' ').next().unwrap_or_default(),
            self.settings.address(),
            found.databases.len(),
            crate::process::human_bytes(bytes)
        );
        found.warnings.extend(found.problems);
        Ok(Preflight { warnings: found.warnings, summary })
    }

    async fn open(&self, context: &RunContext) -> Result<Box<dyn Session>> {
        let as_of = context.clock.now();
        let mut found = self.find(context).await?;
        for database in &mut found.databases {
            let connection = connect(&self.settings, &database.name, &application(context)).await?;
            let inside = catalog::look_inside(&connection, database).await?;
            found.warnings.extend(without_unlogged(database, &inside));
        }
        let surroundings = catalog::surroundings(&found.connection).await?;
        let private = Private::open(&self.settings, &[&found.pg_dump, &found.pg_dumpall]).await?;
        Ok(Box::new(PostgresSession {
            settings: self.settings.clone(),
            application: application(context),
            connection: Some(found.connection),
            private,
            server: found.server,
            pg_dump: found.pg_dump,
            pg_dumpall: found.pg_dumpall,
            databases: found.databases,
            skipped: found.skipped,
            surroundings,
            role_passwords: found.role_passwords,
            warnings: found.warnings,
            problems: found.problems,
            as_of,
            dumped: false,
            broken_off: Default::default(),
        }))
    }
}
