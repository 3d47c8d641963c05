//! PostgreSQL: one `pg_dump -Fc -Z0` a database, `pg_dumpall --globals-only`, and what neither holds; the way back in [`PostgresLoader`].
//!
//! The archive is not compressed by pg_dump: equal rows then give equal frames, and drctl compresses better in parallel.

mod blocker;
mod catalog;
mod choose;
mod client;
mod connect;
mod dump;
pub mod grants;
mod load;
mod names;
mod packages;
mod pooler;
mod session;
mod settings;
mod tls;

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::source::{Preflight, RunContext, Session, Source};

use catalog::{Database, Server, Standing};
use choose::{Choice, TEMPLATE, Why};
use client::{Client, Private};
use connect::{Connection, connect, ident};
use dump::PostgresSession;
use names::{is_raw, shown};

pub use client::sweep_private_files;
pub use load::PostgresLoader;
pub use settings::{ChannelBinding, Databases, PostgresSettings, SslMode, Tools};

/// The oldest server that is supported: the queries and the dump's order rely on it.
const OLDEST: u32 = 10;

/// `drctl/<run>`: how drctl shows in `pg_stat_activity`.
fn application(context: &RunContext) -> String {
    format!("drctl/{}", context.run)
}

fn without_unlogged(database: &Database, inside: &catalog::Inside) -> Option<String> {
    let (name, tables) = (shown(&database.name), inside.unlogged.join(", ").replace(char::is_control, "?"));
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
    choice: Choice,
    role_passwords: bool,
    superuser: bool,
    warnings: Vec<String>,
    /// For what of the settings' wish the backup will not be whole.
    problems: Vec<String>,
}

impl Found {
    /// What a dump of this database leaves out although it is the database's own.
    fn tell_members(&mut self, database: &Database, members: Vec<catalog::Member>) {
        for catalog::Member { table, extension, added, .. } in members {
            let (name, table, extension) = (shown(&database.name), shown(&table), ident(&extension));
            let mend = format!("ALTER EXTENSION {extension} DROP TABLE {table}");
            if added {
                self.problems.push(format!(
                    "Database {name}: table {table} was added to extension {extension}, and a dump leaves out what belongs to an extension: \
                     neither the table nor its rows are in the set. To have it dumped: {mend}."
                ));
            } else {
                self.warnings.push(format!(
                    "Database {name}: table {table} of extension {extension} has rows that the extension does not mark as data: after a restore it \
                     has what CREATE EXTENSION puts there. If the rows are yours: {mend}."
                ));
            }
        }
    }
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
        let choice = Choice::of(settings, catalog::databases(&connection).await?);
        let mut warnings = Vec::new();
        warnings.extend(client::cannot_load(settings, &pg_dump, &context.cancel).await?);
        let readable = connection
            .query_one("select has_table_privilege('pg_authid', 'SELECT'), rolsuper from pg_roles where rolname = current_user", &[])
            .await;
        let row = readable.map_err(|e| connect::pg_error("ask for privileges", &e))?;
        let (may_read, superuser): (bool, bool) = (row.get(0), row.get(1));
        let wanted = settings.globals && settings.role_passwords;
        let role_passwords = wanted && may_read;
        if wanted && !may_read {
            warnings.push(format!("Role {} may not read the passwords of roles: the globals are dumped without them.", settings.user));
        }
        let mut found =
            Found { connection, server, pg_dump, pg_dumpall, choice, role_passwords, superuser, warnings, problems: Vec::new() };
        self.look(&mut found, context).await?;
        // Every cluster has the two templates; a warning in every run would only teach people to skip warnings. Details name them.
        found.warnings.splice(0..0, found.choice.remarks());
        Ok(found)
    }

    /// Looks into every chosen database. Each stands for itself: one that cannot be dumped is noted and keeps no other from it.
    async fn look(&self, found: &mut Found, context: &RunContext) -> Result<()> {
        let all = self.settings.databases == Databases::All;
        for mut database in std::mem::take(&mut found.choice.databases) {
            let error = match self.look_into(found, &mut database, context).await {
                Ok(()) if all && database.name == TEMPLATE && database.has_no_objects() => {
                    found.choice.left.push((database, Why::BareTemplate));
                    continue;
                }
                Ok(()) => {
                    found.choice.databases.push(database);
                    continue;
                }
                Err(error) => error,
            };
            let name = shown(&database.name);
            // Where the server itself does not answer any more, that is what is wrong.
            let Ok(standing) = catalog::standing(&found.connection, database.oid).await else { return Err(error) };
            match standing {
                Standing::Gone if all => found.warnings.push(vanished(&name)),
                Standing::HalfDropped if all => found.choice.left.push((database, Why::HalfDropped)),
                Standing::There if all && error.kind() == Kind::Preflight && choose::is_of_provider(&database) => {
                    found.choice.left.push((database, Why::OfProvider));
                }
                Standing::There if all && database.name == TEMPLATE => {
                    found.warnings.push(format!("Whether {TEMPLATE} has something of its own is not known: {error}."));
                    found.choice.left.push((database, Why::BareTemplate));
                }
                // It is not entered by any other name either: from here on it has the one that people see.
                _ if is_raw(&database.name) => drop(found.choice.failed.insert(name, error)),
                _ => {
                    found.choice.failed.insert(database.name.clone(), error);
                    found.choice.databases.push(database);
                }
            }
        }
        Ok(())
    }

    async fn look_into(&self, found: &mut Found, database: &mut Database, context: &RunContext) -> Result<()> {
        let converted = found.server.converts_names();
        let entered = connect(&self.settings, &database.name, &application(context)).await;
        let connection = entered.map_err(|error| choose::cannot_enter(&self.settings, database, error, converted))?;
        let inside = catalog::look_inside(&connection, database).await?;
        if let Some(why) = catalog::unreadable(&connection).await? {
            let role = ident(&self.settings.user);
            let mend = format!("as a superuser: GRANT pg_read_all_data TO {role}; ALTER ROLE {role} BYPASSRLS");
            let why = format!("role {} {why}", shown(&self.settings.user));
            return Err(choose::cannot(&self.settings, database, Kind::Preflight, &why, &mend));
        }
        found.warnings.extend(without_unlogged(database, &inside));
        if inside.large_objects > 0 && !found.superuser {
            found.warnings.push(format!(
                "Database {} has {} large objects; role {} is no superuser and must have been granted SELECT on each.",
                shown(&database.name),
                inside.large_objects,
                self.settings.user
            ));
        }
        let members = catalog::members_with_rows(&connection, &inside).await?;
        found.tell_members(database, members);
        Ok(())
    }
}

/// What to say of a database that was listed, and was dropped before it could be dumped.
fn vanished(name: &str) -> String {
    format!("Database {name} was dropped while the backup looked at its server: it is not in the set.")
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
        let found = self.find(context).await?;
        let choice = &found.choice;
        let fine = || choice.databases.iter().filter(|d| !choice.failed.contains_key(&d.name));
        let bytes: u64 = fine().filter_map(|d| d.size_bytes).sum();
        let replica = if found.server.in_recovery { ", a replica" } else { "" };
        let there = match found.pg_dump.there {
            true => format!(", dumped by the pg_dump {} there", found.pg_dump.tool.version.split(' ').next().unwrap_or_default()),
            false => String::new(),
        };
        let excluded = match choice.left.iter().filter(|(_, why)| *why == Why::Excluded).count() {
            0 => String::new(),
            n => format!(", {n} excluded"),
        };
        let summary = format!(
            "PostgreSQL {} at {}{replica}, {} databases{excluded}, {}{there}",
            found.server.version.split(' ').next().unwrap_or_default(),
            self.settings.address(),
            fine().count(),
            crate::process::human_bytes(bytes)
        );
        let left_out = choice.left_out();
        let nothing = found.choice.nothing(&self.settings);
        let problems =
            nothing.into_iter().chain(found.choice.failed.into_values()).chain(found.problems.into_iter().map(Error::failed)).collect();
        Ok(Preflight { warnings: found.warnings, problems, left_out, summary })
    }

    async fn open(&self, context: &RunContext) -> Result<Box<dyn Session>> {
        let as_of = context.clock.now();
        let mut found = self.find(context).await?;
        if let Some(error) = found.choice.nothing(&self.settings) {
            return Err(error);
        }
        let Choice { databases, failed, .. } = &mut found.choice;
        if databases.iter().all(|d| failed.contains_key(&d.name))
            && let Some((_, first)) = failed.pop_first()
        {
            // Nothing of the data can be had.
            return Err(first);
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
            choice: found.choice,
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
